"""A program on a router's port may answer anything; verify reports that without a traceback."""

from __future__ import annotations

import contextlib
import pathlib
import typing

import pytest
from om_agent import amqp, model, observed
from om_agent.apply import live_router
from om_agent.observe import routers

from tests.support import helpers

HONEST: dict[str, typing.Any] = {"uptimeSeconds": 1, "linkCount": 1, "addrCount": 1, "name": "a", "role": "edge"}


class Liar:
    """A management client whose every query has one answer."""

    container, product = "ctl-0", "qpid-dispatch-router 1.19.0"

    def __init__(self, row: amqp.Row) -> None:
        self.login = amqp.Login("127.0.0.1", 1, "x", "x", model.Secret(""), model.Engine.QDROUTERD)
        self._row = row

    def query(self, *_: object) -> list[amqp.Row]:
        return [self._row]


@pytest.mark.parametrize(
    "row",
    [
        {**HONEST, "uptimeSeconds": "text"},
        {**HONEST, "linkCount": float("nan")},
        {**HONEST, "addrCount": float("inf")},
        {**HONEST, "addrCount": []},
        {**HONEST, "properties": 7},
        {},
    ],
)
def test_answers_that_are_none(row: amqp.Row, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(live_router, "connect", lambda *_: contextlib.nullcontext(Liar(row)))
    d, planned = helpers.deployment_and_plan(helpers.dual(), "ctl-0")
    assert planned.router
    seen = routers.mesh(d, planned.router, b"[]", tmp_path)
    assert seen.own.login == observed.CLOSED
    assert "not that of a router's management" in seen.own.why
