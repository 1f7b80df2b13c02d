"""Whatever is wrong with metadata, no sentence, plan or picture shows a secret of it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import re
import sys
import typing

import pytest
from om_agent import cli, proc, workflow

from tests.security import canary, shapes
from tests.support import helpers, tls, trees

SEARCHER = canary.Searcher(*shapes.words())


def run(*arguments: str, stdin: bytes = b"") -> tuple[int, str]:
    """Run a command in this process, many times faster than in one of its own; what it said on both streams."""
    out, err = io.StringIO(), io.StringIO()
    given = io.TextIOWrapper(io.BytesIO(stdin))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", given)
        patch.setattr(workflow, "catalogue", helpers.catalogue)  # reading it takes longer than all the rest
        code = cli.main(arguments)
    return code, out.getvalue() + err.getvalue()


def assert_silent(code: int, said: str, *wanted: int) -> None:
    assert not SEARCHER.find(said), SEARCHER.find(said)
    assert "defect" not in said and "Traceback" not in said, said
    assert code in wanted, said


def commands(path: str, root: pathlib.Path) -> list[list[str]]:
    """Every command that reads metadata and writes nothing, in all its forms."""
    at = ["--root", str(root), "--node", "ctl-0"]
    return [
        ["validate", path], ["validate", "--json", path],
        ["plan", path, *at], ["plan", "--json", path, *at], ["plan", path, *at, "--reconcile", "--services"],
        ["topology", "--format", "dot", path, *at], ["topology", "--format", "json", path, *at],
        ["topology", "--format", "dot", "--live", path, *at],
        ["capacity", path], ["capacity", "--json", path],
        ["verify", "--timeout", "0", path, *at], ["verify", "--timeout", "0", "--json", path, *at],
        ["status", path, *at], ["status", "--json", path, *at],
    ]  # fmt: skip


@pytest.fixture
def root(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A node on which somebody else's passwords are already, and whose broker is known not to run."""
    real = proc.run

    def start(argv: typing.Sequence[str], *more: typing.Any, **options: typing.Any) -> proc.Result:
        environment = {**(options.get("env") or {}), **(options.get("more") or {})}
        assert not SEARCHER.find(repr([*argv, environment]))
        if os.path.basename(argv[0]) == "rabbitmqctl":  # it takes seconds to find that out
            return proc.Result(69, "", "")
        if "om_agent.probe" in argv:  # and it waits for brokers
            return proc.Result(0, '{"impossible": "no time"}', "")
        return real(argv, *more, **options)

    monkeypatch.setattr(proc, "run", start)
    tree = tmp_path / "root"
    for name, text in {
        "etc/nova/nova.conf": f"[DEFAULT]\ntransport_url = {shapes.OLD}\n",
        "etc/neutron/neutron.conf": f"[DEFAULT]\ntransport_url = rabbit://u:{canary.STEM}\n  @h:1/\n",
        "etc/heat/heat.conf": f"[DEFAULT]\ntransport_url = {shapes.OLD}\ntransport_url = {shapes.OLD}?a={canary.STEM}\n",  # noqa: E501
        "etc/swift/proxy-server.conf": f"[filter:ceilometer]\nurl = kombu+{shapes.OLD}\n",
        "etc/rabbitmq/rabbitmq.conf": f"default_pass = {canary.STEM}\n{canary.STEM}=\n{canary.STEM}==\n",
        "etc/rabbitmq/tls/ca.pem": f"{canary.STEM}=\n",
        "etc/qpid-dispatch/qdrouterd.json": f'[["listener", {{"saslPassword": "{canary.STEM}"}}]]',
        "etc/qpid-dispatch/tls/certificate.pem": shapes.PEM_KEY,
        "var/lib/placeholder": "",
    }.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    return tree


@pytest.mark.parametrize("shape", shapes.BACKENDS)
def test_every_command_that_only_looks(shape: str, root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps({"oslo_messaging": shapes.BACKENDS[shape](), **shapes.others()}))
    before = trees.snapshot(root)
    for command in commands(str(path), root):
        assert_silent(*run(*command), 0, 1, 2, 3)
    assert trees.snapshot(root) == before


@pytest.mark.parametrize("document", shapes.documents())
def test_every_kind_of_document(document: str, root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metadata.json"
    path.write_bytes(shapes.documents()[document])
    for command in commands(str(path), root)[:5]:
        assert_silent(*run(*command), 0)


@pytest.mark.parametrize("slip", shapes.slips())
def test_a_slip_near_a_secret(slip: str, root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metadata"
    path.write_bytes(shapes.slips()[slip])
    before = trees.snapshot(root)
    for command in (*commands(str(path), root), ["apply", str(path), "--root", str(root)]):
        assert_silent(*run(*command), 2)
    assert trees.snapshot(root, helpers.STATE) == before
    text = shapes.slips()[slip].decode(errors="replace")
    for given in (text.encode(), json.dumps({"config": text}).encode()):
        code, said = run("hook", "--root", str(root), stdin=given)
        assert_silent(code, said, 0)
        assert '"deploy_status_code": 2' in said


def at(raw: typing.Any, path: str) -> object:
    """Return what stands at a dotted path."""
    for step in path.split("."):
        raw = raw[int(step) if isinstance(raw, list) else step]
    return raw


@pytest.mark.parametrize("path", shapes.secret_paths())
def test_every_key_declared_secret_is_tried(path: str) -> None:
    """As a good value in every command that only looks, and as a wrong one of each kind."""
    assert canary.STEM in str(at(shapes.dual(), path))
    assert len([name for name in shapes.misplaced() if name.startswith(f"{path} is ")]) == 6


SECTIONS = {re.split(r"[. ]", name)[0] for name in shapes.misplaced()}


@pytest.mark.parametrize("section", sorted(SECTIONS))
def test_a_secret_in_the_wrong_place(section: str, root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metadata.json"
    for name, raw in shapes.misplaced().items():
        if re.split(r"[. ]", name)[0] != section:
            continue
        path.write_text(json.dumps({"oslo_messaging": raw}))
        for command in (["validate", "--json"], ["plan", "--root", str(root), "--node", "ctl-0"]):
            assert_silent(*run(*command, str(path)), 0, 2)
        code, said = run("hook", "--root", str(root), "--node", "x", stdin=json.dumps({"config": raw}).encode())
        assert_silent(code, said, 0)
        assert '"deploy_status_code": 2' in said


@pytest.mark.parametrize("where", ["certificate", "ca"])
def test_a_private_key_among_certificates_is_refused(where: str, tmp_path: pathlib.Path) -> None:
    """Their files are readable to all, since every service verifies with them."""
    path = tmp_path / "metadata.json"
    raw = helpers.put(shapes.dual(), f"tls.{where}", helpers.CERTIFICATE + shapes.PEM_KEY)
    path.write_text(json.dumps({"oslo_messaging": raw}))
    code, said = run("validate", str(path))
    assert_silent(code, said, 2)
    assert f"tls.{where}: the text holds a private key" in said


NOISE = {
    "a key whose marker is damaged": shapes.PEM_KEY.replace("KEY-----", "KEY ----"),
    "a key in small letters": shapes.PEM_KEY.replace("PRIVATE KEY", "private key"),
    "a key without its markers": "".join(shapes.PEM_KEY.splitlines(True)[1:-1]),
    "a password": f"password: {canary.STEM}\n",
    "a password in another alphabet": f"пароль: {canary.STEM}\n",
}


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("where", ["certificate", "ca"])
def test_what_stands_around_a_certificate_is_dropped(where: str, noise: str, tmp_path: pathlib.Path) -> None:
    """It would stand in a diff, and in a file that everybody may read."""
    path, text = tmp_path / "metadata.json", NOISE[noise]
    raw = shapes.dual()
    clean = raw["tls"][where]
    for given in (text + clean, clean + text, clean + text + tls.authority("another").pem):
        path.write_text(json.dumps({"oslo_messaging": helpers.put(raw, f"tls.{where}", given)}))
        assert_silent(*run("validate", str(path)), 0)
        assert_silent(*run("plan", str(path), "--root", str(tmp_path), "--node", "ctl-0"), 0)
    rendered = helpers.rendered(helpers.put(raw, f"tls.{where}", f"{text}{clean}{text}"), "ctl-0")
    written = [f.content for f in rendered.files if f.path.endswith(f"/tls/{where}.pem")]
    assert written and set(written) == {clean.encode()}
    path.write_text(json.dumps({"oslo_messaging": helpers.put(raw, f"tls.{where}", text)}))
    code, said = run("validate", str(path))
    assert_silent(code, said, 2)
    assert f"tls.{where}: the text is not PEM" in said


def test_the_searcher_would_see_it(root: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the mask gone, the same search of the same command fails."""
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps({"oslo_messaging": shapes.dual()}))
    monkeypatch.setattr("om_agent.report.masking.mask", str)
    assert SEARCHER.find(run("plan", str(path), "--root", str(root), "--node", "ctl-0")[1])
