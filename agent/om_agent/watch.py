"""Ends this node's router when it hangs, for its unit to start it again: systemd sees a process end, and not one that
holds its connections and says nothing.

A program of its own, into which ``om-agent watch`` turns: it runs as long as the router does, so it imports next to
nothing. The file that the router was started with says where it listens.

What counts is whether clients get the first bytes of an answer. Both engines log every client that leaves before it has
logged in, skrouterd as an error, so ``/healthz``, of which they log nothing, is asked in between.
"""

from __future__ import annotations

import contextlib
import enum
import json
import pathlib
import signal
import socket
import sys
import time
import typing

from om_agent import errors, kinds, proc

_SYSTEMCTL_SECONDS = 30.0


class Pace(typing.NamedTuple):
    """When a router hangs, and how often it may be ended for it.

    :param pause: seconds between two questions to a router that answers.
    :param alone: the same for a router without ``/healthz`` (``router.http_port: 0``), whose log gets a line or two
        for each.
    :param trust: for so many seconds an answer from ``/healthz`` stands for one to a client: a thread of its own gives
        it, and may do so when those that serve clients hang.
    :param seconds: of silence that count. Routers that were well took up to 0.3 s for the first bytes, and once 4.3 s
        for TLS, on two cores with forty busy processes.
    :param times: that many connections one after the other have to meet silence. A router that is stopped is ended 20
        to 26 s later: once ``pause`` at most, once ``seconds`` for ``/healthz``, then these.
    :param slack: seconds by which a wait may last longer than it was to. Past them this process did not run either: the
        machine was paused, or is too busy to judge anybody by a clock.
    :param grace: seconds after a start, ours or the router's, in which nothing counts: clients by the hundred come
        back at once then (300 took up to 12 s, doc/recovery.rst).
    :param kills: so many within ``per`` seconds; a router that hangs again and again is not mended by that.
    """

    pause: float = 5.0
    alone: float = 20.0
    trust: float = 60.0
    seconds: float = 5.0
    times: int = 3
    slack: float = 2.0
    grace: float = 30.0
    kills: int = 3
    per: float = 3600.0


class Speaks(enum.Enum):
    """What is said first to a listener, and answered."""

    # With which a client offers SASL; a server has the same (AMQP 1.0, part 5, section 5.3.2).
    AMQP = b"AMQP\x03\x01\x00\x00"
    TLS = b""
    HTTP = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Listener(typing.NamedTuple):
    """Where a router listens."""

    host: str
    port: int
    speaks: Speaks


class Doors(typing.NamedTuple):
    """Where to ask a router. Of two listeners for clients the first stands for both: one process serves them with the
    same threads."""

    clients: Listener
    health: Listener | None


class Seen(enum.Enum):
    """What one connection met.

    ``HEALTHY``: an answer from ``/healthz``, which says nothing of what clients meet.
    ``CROWDED``: it was not taken. The kernel does that for a program until as many wait as it has room for, which the
    clients of a router that hangs fill within seconds; a firewall looks the same.
    ``UNSURE``: this process did not run when it was to, or ``/healthz`` did not say that all is well.
    """

    ANSWER = "answer"
    HEALTHY = "healthy"
    SILENCE = "silence"
    CROWDED = "crowded"
    NOBODY = "nobody"
    UNSURE = "unsure"


class Action(enum.Enum):
    """What to do about it."""

    NOTHING = "nothing"
    KILL = "kill"
    TELL = "tell"


class State(typing.NamedTuple):
    """What is known of the router.

    :param silent: connections in a row that met silence.
    :param answered: whether it ever answered, so that nothing but itself can be what does not take connections.
    :param until: nothing counts before this.
    :param kills: when it was killed; like every time here, seconds of the monotonic clock, which all processes of one
        boot share.
    :param told: whether it was said that it is left alone.
    """

    silent: int = 0
    answered: bool = False
    until: float = 0.0
    kills: tuple[float, ...] = ()
    told: bool = False


def next_action(state: State, seen: Seen, now: float, pace: Pace) -> tuple[State, Action]:
    """Return what is known after one more connection, and what to do; pure."""
    if seen is Seen.HEALTHY:
        return state, Action.NOTHING
    if seen is Seen.ANSWER:
        return state._replace(silent=0, answered=True, told=False), Action.NOTHING
    if now < state.until or not (seen is Seen.SILENCE or (seen is Seen.CROWDED and state.answered)):
        return state._replace(silent=0), Action.NOTHING
    state = state._replace(silent=state.silent + 1, kills=recent(state.kills, now, pace))
    if state.silent < pace.times:
        return state, Action.NOTHING
    if len(state.kills) < pace.kills:
        return state._replace(silent=0, kills=(*state.kills, now), until=now + pace.grace), Action.KILL
    return state._replace(told=True), Action.NOTHING if state.told else Action.TELL


def recent(kills: typing.Iterable[float], now: float, pace: Pace) -> tuple[float, ...]:
    """Return the kills that still count. One that is yet to come is of another boot."""
    return tuple(at for at in kills if now - pace.per < at <= now)


def doors(content: bytes) -> Doors | None:
    """Return where to ask a router, from its file as `om_agent.render` writes it; None when it has no clients."""
    clients, health = None, None
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
        for kind, a in json.loads(content):
            if kind != "listener" or a.get("role", "normal") != "normal":
                continue
            where = Listener(str(a["host"]), int(a["port"]), Speaks.TLS if a.get("sslProfile") else Speaks.AMQP)
            if not a.get("http"):
                clients = clients or where
            elif a.get("healthz") and where.speaks is Speaks.AMQP:
                health = where._replace(speaks=Speaks.HTTP)
    return Doors(clients, health) if clients else None


def ask(where: Listener, pace: Pace) -> Seen:
    """Connect once, and wait for the first bytes of an answer. To a client any are a sign of life."""
    begun, patience = time.monotonic(), Seen.CROWDED
    try:
        with socket.create_connection((where.host, where.port), pace.seconds) as plain:
            begun, patience = time.monotonic(), Seen.SILENCE
            if where.speaks is Speaks.TLS:
                _shake_hands(plain)
            else:
                plain.sendall(where.speaks.value)
                said = plain.recv(12)  # of a line of HTTP's, up to its status
                if where.speaks is Speaks.HTTP and not said.endswith(b" 200"):
                    return Seen.UNSURE  # it may be that clients are not served
    except (socket.timeout, TimeoutError):  # one and the same from Python 3.10 on
        return patience if time.monotonic() - begun <= pace.seconds + pace.slack else Seen.UNSURE
    except OSError:  # a connection that is refused or reset, an address that is not there; TLS that fails is alive
        return Seen.NOBODY if patience is Seen.CROWDED else Seen.ANSWER
    return Seen.ANSWER


def _shake_hands(plain: socket.socket) -> None:
    """Agree upon TLS. The certificate is not looked at: one that has expired is no reason to end a router, and nothing
    is sent that anybody could want to know."""
    import ssl  # 6 MB, which a router without TLS need not cost

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.wrap_socket(plain).close()


class Watch:
    """The watch over one unit.

    :param config: the router's file.
    :param notes: file that keeps the kills, since systemd restarts the watch with the router; None to keep them in
        memory alone.
    """

    def __init__(self, unit: str, config: pathlib.Path, notes: pathlib.Path | None, pace: Pace) -> None:
        self._unit = unit
        self._config = config
        self._notes = notes
        self._pace = pace
        self._stamp: tuple[int, ...] | None = None
        self._doors: Doors | None = None
        self._asked: float | None = None
        now = time.monotonic()
        self._state = State(until=now + pace.grace, kills=recent(self._read_notes(), now, pace))

    def run(self) -> typing.NoReturn:
        """Watch, until a signal ends it."""
        while True:
            if self._look() not in (Seen.SILENCE, Seen.CROWDED):
                self._sleep()

    def _look(self) -> Seen:
        found = self._read_doors()
        seen = self._ask(found) if found else Seen.NOBODY
        self._state, action = next_action(self._state, seen, time.monotonic(), self._pace)
        if action is Action.KILL and found:
            self._kill(found.clients)
        elif action is Action.TELL:
            _say(kinds.problem(self._unit, "watch-gives-up", times=len(self._state.kills), unit=self._unit))
        return seen

    def _ask(self, found: Doors) -> Seen:
        now = time.monotonic()
        trusted = self._asked is not None and now < self._asked + self._pace.trust and not self._state.silent
        if trusted and found.health and ask(found.health, self._pace) is Seen.ANSWER:
            return Seen.HEALTHY
        self._asked = now
        return ask(found.clients, self._pace)

    def _read_doors(self) -> Doors | None:
        """Return where to ask; the file is read when it is another than before."""
        try:
            found = self._config.stat()
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp != self._stamp:
                self._doors, self._stamp, self._asked = doors(self._config.read_bytes()), stamp, None
        except OSError:
            self._doors, self._stamp = None, None
        return self._doors

    def _sleep(self) -> None:
        begun = time.monotonic()
        pause = self._pace.pause if not self._doors or self._doors.health else self._pace.alone
        time.sleep(pause)
        now = time.monotonic()
        if now - begun > pause + self._pace.slack:
            self._state, _ = next_action(self._state, Seen.UNSURE, now, self._pace)

    def _kill(self, where: Listener) -> None:
        self._write_notes()  # first: what comes next may end this process too
        at, seconds = errors.where(where.host, where.port), f"{self._pace.seconds:g}"
        told = kinds.problem(
            self._unit, "watch-kills", times=self._pace.times, where=at, seconds=seconds, unit=self._unit
        )
        _say(told)
        # Spelt --kill-whom since systemd 252; the old word is understood by all.
        command = ["systemctl", "kill", "--signal=KILL", "--kill-who=main", self._unit]
        try:
            done = proc.run(command, _SYSTEMCTL_SECONDS)
            why = done.stderr.strip() if done.returncode else ""
        except errors.ProcessFailed as e:
            why = str(e)
        if why:
            _say(kinds.problem(self._unit, "watch-cannot-kill", why=why.rstrip("."), unit=self._unit))

    def _read_notes(self) -> tuple[float, ...]:
        with contextlib.suppress(OSError, ValueError, TypeError):
            return tuple(map(float, json.loads(self._notes.read_bytes()))) if self._notes else ()
        return ()

    def _write_notes(self) -> None:
        with contextlib.suppress(OSError):
            if self._notes:
                self._notes.write_text(json.dumps(self._state.kills))


def _say(problem: errors.Problem) -> None:
    with contextlib.suppress(OSError):
        print(f"om-agent: {problem}", file=sys.stderr, flush=True)


def _end(number: int, frame: object) -> typing.NoReturn:
    raise KeyboardInterrupt


def run(unit: str, config: str, notes: str = "", pace: Pace | None = None) -> None:
    """Watch the router of ``unit`` until a signal ends this."""
    for number in proc.ENDING:
        signal.signal(number, _end)
    with contextlib.suppress(KeyboardInterrupt):
        Watch(unit, pathlib.Path(config), pathlib.Path(notes) if notes else None, pace or Pace()).run()
