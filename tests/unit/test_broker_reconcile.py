"""The commands for a running broker whose certificate changed."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest
from om_agent import proc
from om_agent.apply import listening, live_broker, running
from om_agent.plan import broker, layout

from tests.support import helpers, tls

RAW = helpers.with_tls(helpers.default(1), "pem")
CERTIFICATE = layout.RABBIT_TLS["certificate"]


def contents(raw: helpers.Raw) -> dict[str, bytes]:
    return {f.path: f.content or b"" for f in helpers.rendered(raw, "ctl-0").files if "/rabbitmq" in f.path}


def changed(control: live_broker.Control, unit: running.UnitFiles) -> live_broker.RunningBroker | None:
    found = live_broker.decide(control, unit).running
    assert found is None or isinstance(found, live_broker.RunningBroker)
    return found


def decide(raw: helpers.Raw, root: pathlib.Path, outdated: str = "") -> live_broker.RunningBroker | None:
    planned = helpers.plan_for(raw, "ctl-0").broker
    assert planned
    unit = running.UnitFiles(dict(contents(RAW)), contents(raw), outdated)
    return changed(live_broker.Control(planned, root, False), unit)


def renewed(more: int = 2) -> helpers.Raw:
    return helpers.put(RAW, "tls.certificate", helpers.CERTIFICATE * more)


def test_a_certificate_is_read_anew(tmp_path: pathlib.Path) -> None:
    assert decide(RAW, tmp_path) is None
    work = decide(renewed(), tmp_path)
    assert work and not work.needs_restart and work.certificate == (helpers.CERTIFICATE * 2).encode()
    assert work.lines() == ("~ certificates are read anew",)
    key = decide(helpers.put(RAW, "tls.key", helpers.KEY * 2), tmp_path)
    assert key and key.certificate == helpers.CERTIFICATE.encode()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("tls.min_version", "1.3"),
        ("tls.ciphers", ["ECDHE-RSA-AES256-GCM-SHA384"]),
        ("broker.distribution_tls", True),
        ("tls", helpers.with_tls(helpers.default())["tls"]),
    ],
)
def test_what_needs_a_restart(tmp_path: pathlib.Path, path: str, value: object) -> None:
    raw = helpers.put(renewed(), path, value)
    if path == "tls":  # other files at other paths
        assert CERTIFICATE not in contents(raw)
        raw["rpc"]["username"] = "another"
    work = changed(
        live_broker.Control(helpers.plan_for(raw, "ctl-0").broker, tmp_path, False),  # type: ignore[arg-type]
        running.UnitFiles({path: contents(RAW).get(path) for path in contents(raw)}, contents(raw)),
    )
    assert work is None or (work.needs_restart and work.certificate is None)


def test_one_that_runs_with_other_files_is_restarted(tmp_path: pathlib.Path) -> None:
    work = decide(renewed(), tmp_path, outdated=running.OTHER_FILES)
    assert work and work.needs_restart and work.certificate is None


def test_a_ca_beside_files_by_path(tmp_path: pathlib.Path) -> None:
    paths = {key: f"/etc/pki/{key}" for key in ("certificate_file", "key_file")}
    was, to_be = ({**RAW, "tls": {**paths, "ca": helpers.CERTIFICATE * n}} for n in (1, 2))
    planned = helpers.plan_for(to_be, "ctl-0").broker
    assert planned
    unit = running.UnitFiles(dict(contents(was)), contents(to_be))
    work = changed(live_broker.Control(planned, tmp_path, False), unit)
    assert work and not work.needs_restart and work.certificate == b""


class Fake:
    """A broker's rabbitmqctl and its listener."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, shows: bytes | None, code: int = 0) -> None:
        self.asked: list[tuple[str, ...]] = []

        def ctl(control: live_broker.Control, *command: str, stdin: bytes = b"") -> proc.Result:
            self.asked.append(command)
            if command[0] == "export_definitions":
                return proc.Result(0, contents(RAW)[layout.RABBIT_DEFINITIONS].decode(), "")
            return proc.Result(code, "", "")

        monkeypatch.setattr(live_broker.Control, "ctl", ctl)
        monkeypatch.setattr(listening, "served_certificate", lambda host, port: shows)


def work_for(pair: tls.Pair, root: pathlib.Path) -> live_broker.RunningBroker:
    work = decide(helpers.put(RAW, "tls.certificate", pair.certificate), root)
    assert work
    return work


def test_the_new_one_has_to_be_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    pair, other = tls.authority().issue("ctl-0"), tls.authority().issue("ctl-0")
    work = work_for(pair, tmp_path)
    fake = Fake(monkeypatch, listening.first_certificate(pair.certificate))
    assert work.add_new() == ""
    assert ("eval", "ssl:clear_pem_cache().") in fake.asked
    Fake(monkeypatch, listening.first_certificate(other.certificate))
    assert work.add_new() == "it still shows its old certificate at port 5672"
    Fake(monkeypatch, None, code=69)
    assert "could not have it read its certificates (exit code 69)" in work.add_new()
    assert "exit code 69" in work.finish_taking_back()


def test_an_interrupted_run_is_taken_up(tmp_path: pathlib.Path) -> None:
    work = decide(renewed(), tmp_path)
    assert work
    (tmp_path / helpers.STATE).mkdir(parents=True)
    work.set_mark()
    again = decide(RAW, tmp_path)
    assert again and again.certificate == helpers.CERTIFICATE.encode()


def test_where_it_listens() -> None:
    planned = helpers.plan_for(RAW, "ctl-0").broker
    assert planned and live_broker.listeners(planned) == (("172.17.0.11", 5672),)
    for listener, wanted in (
        (broker.Listener("fd00::1", 5671, "/pem"), (("fd00::1", 5671),)),
        (broker.Listener("", 5671, "/pem"), (("localhost", 5671),)),
        (broker.Listener("10.0.0.1", 5672, ""), ()),
    ):
        assert live_broker.listeners(dataclasses.replace(planned, listener=listener)) == wanted
