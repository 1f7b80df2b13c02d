"""What goes out to people, Heat and logs: clear, and without passwords."""

from __future__ import annotations

import json
import pathlib
import typing

import hypothesis
import pytest
from hypothesis import strategies as st
from om_agent import kinds, model, report
from om_agent.apply import comparing, files, results
from om_agent.plan import transport_url
from om_agent.report import masking

from tests.support import helpers, trees

QUICK = hypothesis.settings(max_examples=300, deadline=None)
put = helpers.put

HOST = "10.0.0.1"
PASSWORDS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=4, max_size=40)
URL_ALPHABET = "ab1@:/,?#%[] .;&="


def url_of(password: str, hosts: tuple[str, ...] = (HOST,)) -> str:
    values: typing.Any = ("rpc", model.Scheme.RABBIT, 5672, "user", model.Secret(password), "vhost", True, hosts, ())
    return transport_url.url_of(model.Backend(*values), {"ssl_ca_file": "/etc/ca.pem"}).reveal()


@QUICK
@hypothesis.given(PASSWORDS, st.integers(1, 3))
def test_a_password_does_not_survive(password: str, count: int) -> None:
    """The output is the same for every password."""
    hosts = (HOST, "ctl-1", "fd00::1")[:count]
    for escape in (str, transport_url.escape_paste, transport_url.escape_oslo):
        masked = masking.mask(escape(url_of(password, hosts)))
        assert masked == masking.mask(escape(url_of("another", hosts)))
        assert masked.count("user:***@") == count and HOST in masked, "everything else may be seen"


@QUICK
@hypothesis.given(st.text(URL_ALPHABET, max_size=15))
def test_nor_one_that_somebody_wrote_without_encoding(middle: str) -> None:
    password = f"Qz7x{middle}Zq9x"
    for url in (f"rabbit://user:{password}@{HOST}:5672/", f"amqp://a:b@h,user:{password}@{HOST}/v?ssl=0"):
        masked = masking.mask(url)
        assert password not in masked
        assert "Qz7x" not in masked and ("Zq9x" not in masked or "@" in middle)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("rabbit://u:p@h:5672/?ssl=0", "rabbit://u:***@h:5672/?ssl=0"),
        ("rabbit://u:p@h", "rabbit://u:***@h"),
        ("rabbit://u:p@a:1,u:p@[fd00::1]:1/v", "rabbit://u:***@a:1,u:***@[fd00::1]:1/v"),
        ("rabbit://:p@h/", "rabbit://:***@h/"),
        ("rabbit://h:5672/", "rabbit://h:5672/"),
        ("rabbit://a:5672,b:5671/v", "rabbit://a:5672,b:5671/v"),
        ("amqp://ctl-0:31459,ctl-1", "amqp://ctl-0:31459,ctl-1"),
        ("rabbit://10.0.0.1:1,[fd00::1]:2/", "rabbit://10.0.0.1:1,[fd00::1]:2/"),
        ("rabbit://guest:12345", "***"),
        ("rabbit://guest:12345/", "***"),
        ("rabbit://a:5672,guest:1/", "***"),
        ("rabbit://h:5672/guest:pw", "***"),
        ("rabbit://u:p/q@h/", "***"),
        ("rabbit://u:a,b:c@h/", "***"),
        ("rabbit://u:1,b:c@h/", "***"),
        ("rabbit://u:p@h/; rabbit://u:q@h/", "***"),
        ("rabbit://u:p@", "***"),
        ("u:p@h", "***"),
        ("RABBIT://u:p@h", "***"),
        ("messagingv2", "messagingv2"),
        ("true", "true"),
        ("/etc/pki/tls/ca.pem", "/etc/pki/tls/ca.pem"),
        ("", ""),
    ],
)
def test_mask(value: str, shown: str) -> None:
    assert masking.mask(value) == shown


# -- plans -----------------------------------------------------------------------------------------------------------


def plan_of(raw: object, node: str, root: pathlib.Path) -> str:
    machine = helpers.host("nova", "swift")
    planned, rendered = helpers.plan_for(raw, node, machine), helpers.rendered(raw, node, machine)
    work = comparing.compare(rendered, machine, root, dry=True)
    old = {t.file.path: files.read(files.on_disk(root, t.file.path)) for t in work.files_to_write}
    return report.plan_text(planned, work, old)


SECRETS = ("Canary-rpc", "Canary-notify", "Canary-mesh", "Canary-cookie", "bm90IGEga2V5")


def secretive(tls: str = "") -> helpers.Raw:
    raw = put(put(helpers.dual(), "rpc.password", "Canary-rpc"), "notify.password", "Canary-notify")
    raw = put(put(raw, "router.mesh_password", "Canary-mesh"), "broker.erlang_cookie", "Canary-cookie")
    return helpers.with_tls(raw, tls) if tls else raw


@pytest.mark.parametrize("tls", ["", "paths", "pem"])
def test_a_plan_shows_no_secret_and_what_would_be_done(tmp_path: pathlib.Path, tls: str) -> None:
    text = plan_of(secretive(tls), "ctl-1", tmp_path)
    for secret in SECRETS:
        assert secret not in text
    assert text.startswith("ctl-1 (controller, interior router and broker): ")
    assert "create /etc/qpid-dispatch/sasl2/users.sasldb (mode 0640 root:qdrouterd; secret, not shown)" in text
    assert "+ [DEFAULT] transport_url = amqp://rpc%40overcloud:***@" in text
    assert "  +listeners." in text


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=4, max_size=20))
def test_no_password_survives_in_a_plan(tmp_path_factory: pytest.TempPathFactory, middle: str) -> None:
    password = f"Qz7x{middle}Zq9x"
    text = plan_of(put(helpers.dual(), "rpc.password", password), "ctl-1", tmp_path_factory.getbasetemp())
    assert password not in text and transport_url.encode(password) not in text
    assert "Qz7x" not in text and "Zq9x" not in text


OTHERS = b"""\
# Canary in a comment
default_user = admin
default_pass = Canary
listeners.tcp.1 = 172.17.0.12:5672
"""


def test_what_others_wrote_into_our_files_is_not_shown(tmp_path: pathlib.Path) -> None:
    """A package's or an operator's own rabbitmq.conf may hold a password; a diff would print it."""
    for name, content in (
        ("etc/rabbitmq/rabbitmq.conf", OTHERS),
        ("etc/rabbitmq/rabbitmq-env.conf", b'SERVER_ADDITIONAL_ERL_ARGS="-setcookie Canary"\n'),
        ("etc/qpid-dispatch/qdrouterd.json", b'[["connector", {"saslPassword": "Canary"}]]\n'),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    text = plan_of(secretive(), "ctl-1", tmp_path)
    assert "Canary" not in text
    assert "- default_pass = ***" in text.replace("-default", "- default")
    assert "change /etc/rabbitmq/rabbitmq.conf" in text


def test_a_plan_shows_present_values_masked(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "etc/nova/nova.conf"
    path.parent.mkdir(parents=True)
    path.write_text("[DEFAULT]\ntransport_url = rabbit://guest:Canary@old:5672/\n[oslo_messaging_rabbit]\nssl = true\n")
    text = plan_of(secretive(), "cmp-0", tmp_path)
    assert "Canary" not in text
    assert "- [DEFAULT] transport_url = rabbit://guest:***@old:5672/" in text
    assert "- [oslo_messaging_rabbit] ssl = true\n" in text and "+ [oslo_messaging_rabbit] ssl" not in text
    assert text.startswith("cmp-0 (compute, edge router): ")


BROKEN = ("rabbit:guest:Canary", "guest:Canary", "rabbit//guest:Canary", "rabbit:/guest:Canary/", "Canary", "12345")


@pytest.mark.parametrize("url", [*BROKEN, "rabbit://guest:12345"])
def test_of_a_url_that_is_none_nothing_is_shown(tmp_path: pathlib.Path, url: str) -> None:
    for name, text in (
        ("nova/nova.conf", f"[DEFAULT]\ntransport_url = {url}\n[oslo_messaging_notifications]\ntransport_url={url}\n"),
        ("swift/proxy-server.conf", f"[filter:ceilometer]\nurl = {url}\n"),
    ):
        path = tmp_path / "etc" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    text = plan_of(secretive(), "cmp-0", tmp_path)
    assert text.count("url = ***\n") == 3
    assert "Canary" not in text and "12345" not in text


def test_what_a_file_holds_does_nothing_to_a_terminal(tmp_path: pathlib.Path) -> None:
    odd = "\x1b]0;x\x07\x9b31m\u202e\r"
    for name, content in (
        ("etc/nova/nova.conf", f"[oslo_messaging_rabbit]\nssl = {odd}\n[oslo_messaging_amqp]\nssl = {odd}x\n"),
        ("etc/rabbitmq/rabbitmq.conf", f"{odd} = {odd}\na = {odd}b\n"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    text = plan_of(secretive(), "ctl-1", tmp_path)
    assert all(line.isprintable() for line in text.split("\n"))
    assert r"- [oslo_messaging_rabbit] ssl = \x1b]0;x\x07\x9b31m\u202e" in text


def test_a_plan_writes_nothing(tmp_path: pathlib.Path) -> None:
    plan_of(secretive("pem"), "ctl-1", tmp_path)
    assert trees.snapshot(tmp_path) == {}


# -- the rest --------------------------------------------------------------------------------------------------------

PROBLEM = kinds.problem("rpc.password", "missing", hint="it is needed")
CHANGES = (
    results.Change("create", "/etc/x"),
    results.Change("change", "/etc/nova/nova.conf", "[DEFAULT] transport_url", "old-secret", "new-secret"),
)


def test_problems() -> None:
    warning = kinds.problem("rpc.tls", "plaintext", half="rpc")
    text = report.problems_text([PROBLEM, warning])
    assert text.splitlines()[0] == "error: rpc.password: the value is missing. Set it; it is needed."
    assert text.splitlines()[1].startswith("warning: rpc.tls: ")
    (first, second) = report.problems_json([PROBLEM, warning])
    assert first == {
        "severity": "error",
        "path": "rpc.password",
        "code": "missing",
        "message": "the value is missing",
        "remedy": "Set it; it is needed",
    }
    assert second["severity"] == "warning"


def test_changes_have_no_values() -> None:
    text = json.dumps(report.changes_json(CHANGES)) + repr(CHANGES) + " ".join(map(str, CHANGES))
    assert "secret" not in text
    assert report.changes_json(CHANGES) == [
        {"action": "create", "path": "/etc/x"},
        {"action": "change", "path": "/etc/nova/nova.conf", "detail": "[DEFAULT] transport_url"},
    ]


def test_outcome() -> None:
    assert report.outcome_text("ctl-0", results.Outcome(()), True) == (
        "ctl-0: nothing to do, the messaging configuration is right"
    )
    outcome = results.Outcome(CHANGES, ("File[/etc/x]: created",))
    assert report.outcome_text("ctl-0", outcome, False).startswith("ctl-0: applied, 2 changes")
    text = report.outcome_text("ctl-0", outcome, True)
    assert "create /etc/x" in text and "puppet: File[/etc/x]: created" in text and "secret" not in text
    odd = results.Outcome(CHANGES, ("File[/etc/x]: \x1b[31m",), ("note \x1b[31m",))
    assert "\x1b" not in report.outcome_text("ctl-0", odd, True)
    assert report.printable("a\x1b[31m\nb\n") == "a\\x1b[31m\nb\n"


def test_signal() -> None:
    assert json.loads(report.signal(2, "out", "err\ud800", {"node": "n"})) == {
        "deploy_stdout": "out",
        "deploy_stderr": "err\ud800",
        "deploy_status_code": 2,
        "node": "n",
        "problem": "err\ud800",
    }


@pytest.mark.parametrize("line", ["nodes[{}].address: it is missing. Set it.", "{}: ü\U0001f600", "{}" + "x" * 99])
def test_signal_is_no_longer_than_heat_takes(line: str) -> None:
    lines = [line.format(i) for i in range(20_000)]
    text = "\n".join(lines)
    signal = report.signal(2, text, text, {"mesh": "x" * 2**20})
    assert len(signal) < 2**20 / 2
    answer = json.loads(signal)
    kept, _, said = answer["deploy_stderr"].rpartition("\n")
    assert lines[: kept.count("\n") + 1] == kept.split("\n") and kept.count("\n") > 100, "whole lines"
    assert said == (
        f"... cut off, {len(text) - len(kept)} characters before the end: om-agent plan and om-agent verify, on the"
        " node, say all of it"
    )
    assert answer["deploy_stdout"] == answer["deploy_stderr"] and answer["problem"].startswith(lines[0])
    assert answer["mesh"].startswith("xxx") and "cut off" in answer["mesh"]
    for size in (2**16 - 2, 2**16 - 1):
        short = json.loads(report.signal(0, "x" * size, "", {}))["deploy_stdout"]
        assert (short == "x" * size) == (size == 2**16 - 2)
