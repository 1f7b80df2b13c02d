"""When the watch considers a router hung: with fake results, and with sockets that behave like a router."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
import typing

import pytest
from om_agent import cli, model, watch
from om_agent.watch import Action, ProbeResult, Protocol, State

from tests.support import helpers

PACE = watch.Pace()
NEW = State()
SILENT, HEARD = [ProbeResult.SILENCE] * PACE.times, [ProbeResult.ANSWER]


def run(
    seen: typing.Iterable[ProbeResult], state: State = NEW, step: float = PACE.seconds
) -> tuple[State, list[Action]]:
    """Return what became of it, and what was done apart from nothing; one connection every ``step`` seconds."""
    now = 1000.0
    done: list[Action] = []
    for one in seen:
        now += step
        state, action = watch.next_action(state, one, now, PACE)
        done += [action] if action is not Action.NOTHING else []
    return state, done


@pytest.mark.parametrize(
    ("seen", "done"),
    [
        (HEARD * 100, []),
        ([ProbeResult.NOBODY] * 100, []),
        ([ProbeResult.UNSURE] * 100, []),
        ([ProbeResult.HEALTHY] * 100, []),
        (SILENT[1:], []),
        (SILENT, [Action.KILL]),
        (HEARD + SILENT, [Action.KILL]),
        ([*SILENT[1:], ProbeResult.ANSWER] * 20, []),
        ([*SILENT[1:], ProbeResult.NOBODY] * 20, []),  # it was just being restarted
        ([*SILENT[1:], ProbeResult.UNSURE] * 20, []),  # a machine that pauses now and then
        ([ProbeResult.CROWDED] * 20, []),  # a firewall
        (HEARD + [ProbeResult.CROWDED] * PACE.times, [Action.KILL]),
        ([ProbeResult.HEALTHY, *[ProbeResult.CROWDED] * 20], []),  # /healthz says nothing of a firewall at another port
        ([*HEARD, ProbeResult.SILENCE, ProbeResult.CROWDED, ProbeResult.CROWDED], [Action.KILL]),
    ],
)
def test_what_is_done(seen: list[ProbeResult], done: list[Action]) -> None:
    assert run(seen)[1] == done


def test_nothing_counts_right_after_a_start_or_a_kill() -> None:
    state, done = run(SILENT, State(until=1000 + PACE.grace))
    assert (done, state.silent) == ([], 0)
    killed, done = run(SILENT)
    assert (done, killed.silent, killed.until) == ([Action.KILL], 0, killed.kills[-1] + PACE.grace)
    assert watch.next_action(killed, ProbeResult.SILENCE, killed.until - 1, PACE) == (killed, Action.NOTHING)


def test_a_router_that_hangs_for_good_is_killed_a_few_times_an_hour() -> None:
    step = PACE.seconds
    state, done = run([ProbeResult.SILENCE] * int(3500 / step), step=step)
    assert done == [Action.KILL] * PACE.kills + [Action.GIVE_UP]
    assert len(state.kills) == PACE.kills
    _, done = run([ProbeResult.SILENCE] * int(7000 / step), step=step)
    assert done == ([Action.KILL] * PACE.kills + [Action.GIVE_UP]) + [Action.KILL] * PACE.kills


def test_it_is_said_again_once_the_router_had_answered() -> None:
    given_up = State(kills=(990.0, 991.0, 992.0))
    assert run([*SILENT, *SILENT, ProbeResult.ANSWER, *SILENT], given_up, step=1)[1] == [Action.GIVE_UP] * 2


def test_kills_of_another_boot_or_long_ago_do_not_count() -> None:
    assert watch.recent((1.0, 100.0, 4000.0, 5000.0), 4200.0, PACE) == (4000.0,)


# -- where it asks ---------------------------------------------------------------------------------------------------


def config(raw: helpers.Raw) -> bytes:
    path = model.Engine.QDROUTERD.record.config
    (found,) = (file.content for file in helpers.rendered(raw, "ctl-0").files if file.path == path)
    assert found
    return found


def test_the_rendered_file_says_where() -> None:
    clients = watch.Listener("172.17.0.11", 31459, Protocol.AMQP)
    health = watch.Listener("172.17.0.11", 31462, Protocol.HTTP)
    assert watch.find_listeners(config(helpers.dual())) == watch.Listeners(clients, health)
    assert watch.find_listeners(config(helpers.put(helpers.dual(), "router.http_port", 0))) == watch.Listeners(
        clients, None
    )
    secure = watch.find_listeners(config(helpers.with_tls(helpers.dual())))
    assert secure == watch.Listeners(clients._replace(protocol=Protocol.TLS), health)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b'[["listener", {"host": "h"}]]', b'[["listener", 3]]', b"\xff"]
)
def test_a_damaged_file_says_nothing(content: bytes) -> None:
    assert watch.find_listeners(content) is None


# -- asking ----------------------------------------------------------------------------------------------------------

QUICK = PACE._replace(seconds=0.3)


@contextlib.contextmanager
def listening(backlog: int = 5) -> typing.Iterator[tuple[socket.socket, watch.Listener]]:
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as server:
        host, port = server.getsockname()
        yield server, watch.Listener(host, port, Protocol.AMQP)


def answering(server: socket.socket, answer: bytes) -> None:
    client, _ = server.accept()
    with client:
        client.recv(100)
        client.sendall(answer)


@pytest.mark.parametrize("answer", [b"AMQP\x03\x01\x00\x00", b"AMQP\x00\x01\x00\x00", b"x", b""])
@pytest.mark.parametrize("protocol", [Protocol.AMQP, Protocol.TLS])
def test_any_answer_is_a_sign_of_life(answer: bytes, protocol: Protocol) -> None:
    """A router that closes the connection does not hang."""
    with listening() as (server, where):
        thread = threading.Thread(target=answering, args=(server, answer))
        thread.start()
        assert watch.probe(where._replace(protocol=protocol), PACE) is ProbeResult.ANSWER
        thread.join()


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (b"HTTP/1.1 200 OK\r\n", ProbeResult.ANSWER),
        (b"HTTP/1.0 200 OK\r\n", ProbeResult.ANSWER),
        (b"HTTP/1.0 503 Service Unavailable\r\n", ProbeResult.UNSURE),
        (b"", ProbeResult.UNSURE),
    ],
)
def test_healthz_has_to_say_that_all_is_well(answer: bytes, seen: ProbeResult) -> None:
    """If healthz does not answer that all is well, the watch probes the clients' listener."""
    with listening() as (server, where):
        thread = threading.Thread(target=answering, args=(server, answer))
        thread.start()
        assert watch.probe(where._replace(protocol=Protocol.HTTP), PACE) is seen
        thread.join()


@pytest.mark.parametrize("protocol", Protocol)
def test_a_connection_that_nobody_serves(protocol: Protocol) -> None:
    with listening() as (_, where):
        assert watch.probe(where._replace(protocol=protocol), QUICK) is ProbeResult.SILENCE


def test_a_crowd_that_nobody_serves() -> None:
    with listening(backlog=0) as (_, where), contextlib.ExitStack() as crowd:
        for _ in range(3):
            client = crowd.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex((where.host, where.port))
        assert watch.probe(where, QUICK) is ProbeResult.CROWDED


def test_nobody_there() -> None:
    with listening() as (_, where):
        pass
    assert watch.probe(where, QUICK) is ProbeResult.NOBODY


def test_a_late_clock_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine was paused while it waited."""
    times = iter((0.0, 0.0, QUICK.seconds + QUICK.slack + 1))
    with listening() as (_, where):
        monkeypatch.setattr(time, "monotonic", lambda: next(times))
        assert watch.probe(where, QUICK) is ProbeResult.UNSURE


# -- the program -----------------------------------------------------------------------------------------------------


def test_the_command_turns_into_the_watch(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, argv: started.append(argv))
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/w")
    cli.main(["watch", "qdrouterd", "--root", str(tmp_path)])
    order = ("qdrouterd", f"{tmp_path}/etc/qpid-dispatch/qdrouterd.json", "/run/w/qdrouterd")
    assert started == [[sys.executable, "-c", f"from om_agent import watch; watch.run(*{order!r})"]]


@pytest.mark.parametrize("unit", ["", "nova-compute", "qdrouterd.service"])
def test_other_units_are_not_watched(unit: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["watch", unit])
    assert "invalid choice" in capsys.readouterr().err


@pytest.mark.subprocess
def test_it_imports_little() -> None:
    code = "import json, sys\nfrom om_agent import watch\nprint(json.dumps(sorted(sys.modules)))"
    environment = {"PYTHONPATH": str(helpers.PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
    loaded = set(json.loads(said))
    assert loaded & {"argparse", "asyncio", "jinja2", "logging", "om_agent.model", "proton", "ssl", "yaml"} == set()
