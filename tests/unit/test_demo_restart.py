"""The demo's restart of a router: clients that are late get more time, and are named when that does not help."""

from __future__ import annotations

import time
import types
import typing

import pytest

from testbed import errors, overcloud, scenario, workers


class Client:
    """Answers from a list, one for each round of calls: whether a call after the restart was good."""

    def __init__(self, name: str, *good: bool) -> None:
        self.host = types.SimpleNamespace(name=name)
        self.good = list(good)

    def begin(self, *arguments: object, **options: object) -> None:
        pass

    def result(self) -> list[workers.Sent]:
        now = time.monotonic()
        error = "" if self.good.pop(0) else "MessagingTimeout"
        rows = ((now - 100, ""), (now - 99, ""), (now + 1, error))
        return [workers.Sent("a.b.call", done - 0.1, done, error, 0) for done, error in rows]


def restart(monkeypatch: pytest.MonkeyPatch, *clients: Client) -> scenario.Restart:
    services = object.__new__(scenario.Services)
    services._supervisor = typing.cast("typing.Any", None)
    services.clients = typing.cast("typing.Any", clients)
    services.computes = services.others = typing.cast("typing.Any", ("server",))
    router = types.SimpleNamespace(
        host=types.SimpleNamespace(name="ctl"), clients=lambda: 2, kill=lambda: None, start=lambda: None
    )
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(overcloud, "resync", lambda supervisor, host: f"{host.name}: nothing to do")
    return services.restart(typing.cast("typing.Any", router), 15.0, 0.1)


def test_nobody_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    done = restart(monkeypatch, Client("a", True), Client("b", True))
    assert (done.late, done.resynced, done.failed) == ((), "", 0)


def test_a_late_client_gets_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    done = restart(monkeypatch, Client("a", True), Client("b", False, True))
    assert (done.late, done.resynced, done.failed) == (("b",), "ctl: nothing to do", 1)


def test_a_client_that_stays_without_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.TestbedError, match="The clients on b had no successful call") as raised:
        restart(monkeypatch, Client("a", True), Client("b", False, False))
    assert "om-agent resync said: ctl: nothing to do" in str(raised.value.detail)
