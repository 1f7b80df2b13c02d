"""Every management request ends in time, whatever the router answers and whatever this machine's clock does."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
import socket
import sys
import time
import typing

import pytest
from om_agent import amqp, model
from om_agent.apply import live_router, results
from om_agent.plan import router as router_plan

from testbed import routers as engines
from tests.security import routers
from tests.support import helpers

pytest.importorskip("proton")

ADDRESS = "127.0.72.20"
SECONDS = 1.5

# The development router with another management. MODE says how it answers every query after the first.
PROGRAM = """
import itertools, sys, types
from om_devrouter import management, cli, router
mode, count, honest = MODE, itertools.count(), management.answer
def answer(properties, body, tables):
    reply = honest(properties, body, tables)
    if mode == "silent" and next(count):
        import time
        time.sleep(3600)
    if mode == "pages":
        return reply._replace(body={"attributeNames": ["a"], "results": [["b"]] * 500})
    if mode == "text":
        return reply._replace(body={"attributeNames": "no", "results": [1]})
    if mode == "short":
        return reply._replace(body={"attributeNames": ["a", "b"], "results": [[1]]})
    return reply
management.answer = answer
if mode == "correlation":
    import proton
    class Message(proton.Message):
        def __init__(self, *args, correlation_id=None, **more):
            super().__init__(*args, correlation_id="of another", **more)
    router.proton = types.SimpleNamespace(**{**vars(proton), "Message": Message})
if mode == "status":
    import proton
    router.proton = types.SimpleNamespace(**{**vars(proton), "int32": lambda number: "fine"})
sys.exit(cli.main(sys.argv[1:]))
"""


def hostile(
    mode: str, directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> typing.ContextManager[routers.Running]:
    if not shutil.which("saslpasswd2", path="/usr/sbin:/usr/bin"):
        helpers.skip("saslpasswd2 is not installed (Debian: sasl2-bin)")
    program = directory / "router.py"
    program.write_text(PROGRAM.replace("MODE", repr(mode)))
    monkeypatch.setattr(engines, "find", lambda engine: (sys.executable, str(program)))
    raw = routers.metadata(model.Engine.EMBEDDED, ADDRESS, helpers.dual(1))
    return routers.run(raw, directory)


def ask(router: routers.Running, *entities: str) -> tuple[amqp.Unreachable, float]:
    """Send requests until one fails; return the error and the duration of that request."""
    assert router.plan.router
    with amqp.Client(live_router.login(router.plan.router), SECONDS) as client:
        for entity in entities:
            begun = time.monotonic()
            try:
                client.query(entity)
            except amqp.Unreachable as e:
                return e, time.monotonic() - begun
    pytest.fail("it answered")


@pytest.mark.parametrize("mode", ["silent", "correlation"])
def test_an_answer_that_does_not_come(mode: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither silence nor answers to other questions move the deadline."""
    with hostile(mode, tmp_path, monkeypatch) as router:
        error, took = ask(router, "router", "router", "router")
        assert error.kind == amqp.SILENT
        assert SECONDS - 0.2 < took < SECONDS + 1.5


def test_a_query_without_an_end(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless query ends at its time limit or its size limit."""
    with hostile("pages", tmp_path, monkeypatch) as router:
        monkeypatch.setattr(amqp, "QUERY_SECONDS", 2.0)
        error, took = ask(router, "router")
        assert error.kind == amqp.SILENT and took < 4
        monkeypatch.setattr(amqp, "QUERY_SECONDS", 60.0)
        monkeypatch.setattr(amqp, "_MOST_ROWS", 2000)
        error, took = ask(router, "router")
        assert "more than 2000 rows of router" in str(error) and took < 20


@pytest.mark.parametrize(
    ("mode", "said"),
    [("text", "is malformed"), ("short", "is malformed"), ("status", "does not follow AMQP Management")],
)
def test_an_answer_that_is_none(mode: str, said: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile(mode, tmp_path, monkeypatch) as router:
        error, _ = ask(router, "router")
        assert said in str(error) and error.kind == amqp.CLOSED


@pytest.fixture
def set_back(monkeypatch: pytest.MonkeyPatch) -> typing.Callable[[], None]:
    """Return a function that sets this process's wall clock back by an hour."""
    wall = time.time

    def go() -> None:
        monkeypatch.setattr(time, "time", lambda: wall() - 3600)

    return go


def test_a_clock_that_is_set_back_while_it_is_asked(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, set_back: typing.Callable[[], None]
) -> None:
    """An answer, a silence and the end of the connection each take no longer than they would."""
    with hostile("", tmp_path, monkeypatch) as router:
        assert router.plan.router
        client = amqp.Client(live_router.login(router.plan.router), SECONDS)
        assert client.query("router")
        set_back()
        assert client.query("router")
        begun = time.monotonic()
        client.close()
        assert time.monotonic() - begun < amqp.CLOSE_SECONDS + 1


def test_a_clock_that_is_set_back_before_a_silent_router(
    set_back: typing.Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while connecting: the kernel accepts the connection, but the router is silent."""
    with socket.socket() as taken:
        taken.bind((ADDRESS, 0))
        taken.listen()
        port = taken.getsockname()[1]
        login = amqp.Login(ADDRESS, port, "x", "u", model.Secret("p"), model.Engine.QDROUTERD)
        wall, asked = time.time, iter(range(10**9))
        monkeypatch.setattr(time, "time", lambda: wall() - (3600 if next(asked) > 3 else 0))
        begun = time.monotonic()
        with pytest.raises(amqp.Unreachable) as caught:
            amqp.Client(login, SECONDS)
        assert caught.value.kind == amqp.SILENT
        assert time.monotonic() - begun < 2 * SECONDS + amqp.CLOSE_SECONDS


# -- which of two listeners a sentence names -------------------------------------------------------------------------


def listener(port: int) -> router_plan.Entity:
    return ("listener", {"name": "client-rpc", "host": ADDRESS, "port": port, "role": "normal"})


def test_the_sentence_names_the_listener_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The metadata has a new port, but the hanging router still listens on the old one."""
    monkeypatch.setattr(amqp, "SECONDS", SECONDS)
    planned = helpers.plan_for(helpers.dual(1), "ctl-0").router
    assert planned
    with socket.socket() as old, socket.socket() as new:
        for one in (old, new):
            one.bind((ADDRESS, 0))
        old.listen()
        was, to_be = (one.getsockname()[1] for one in (old, new))
        work = live_router.RunningRouter(pathlib.Path("/"), planned, (listener(was),), (listener(to_be),))
        with pytest.raises(results.NotAsTold) as caught:
            live_router._connect(work)
        assert f"cannot query the router at {ADDRESS}:{was}: it did not answer" in str(caught.value)
        old.close()
        with pytest.raises(results.NotAsTold) as caught:
            live_router._connect(work)
        assert f"cannot query the router at {ADDRESS}:{was}: nothing listens there" in str(caught.value)
        with pytest.raises(results.NotAsTold) as caught:
            live_router._connect(dataclasses.replace(work, old=(), new=()))
        assert str(caught.value) == "it has no listener for clients"
