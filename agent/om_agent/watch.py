"""Kill this node's router when it hangs, so that its unit starts it again.

systemd notices when a process ends. It does not notice a process that keeps its connections open and answers nothing.

``om-agent watch`` turns into this program. It runs as long as the router, so it imports next to nothing. The file that
the router was started with says where the router listens.

What counts is whether clients get the first bytes of an answer. Both engines log every client that leaves before it has
logged in, skrouterd as an error. They log nothing about ``/healthz``, so the watch mostly probes that.
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
    """How often the watch probes the router, when it considers the router hung, and how often it may kill it.

    :param pause: seconds between two probes of a router that answers.
    :param pause_without_health: the same for a router without ``/healthz`` (``router.http_port: 0``). Such a router
        logs a line or two for each probe.
    :param trust: how many seconds the watch relies on ``/healthz`` alone. A separate thread answers it, and may do so
        while the threads that serve clients hang.
    :param seconds: how long a probe waits for an answer. Healthy routers took up to 0.3 s for the first bytes, and once
        4.3 s for TLS, on two cores with forty busy processes.
    :param times: how many probes in a row must get no answer. The watch kills a stopped router 20 to 26 s later: once
        ``pause`` at most, once ``seconds`` for ``/healthz``, then these.
    :param slack: how many seconds longer than planned a wait may last. After a longer wait the result does not count:
        the machine was paused, or is too busy to judge a program by the clock.
    :param grace: how many seconds after a start of the watch or the router nothing counts. Clients reconnect by the
        hundred then (300 clients took up to 12 s, doc/recovery.rst).
    :param kills: how often the watch may kill the router within ``per`` seconds. If the router hangs again and again,
        killing it does not help.
    """

    pause: float = 5.0
    pause_without_health: float = 20.0
    trust: float = 60.0
    seconds: float = 5.0
    times: int = 3
    slack: float = 2.0
    grace: float = 30.0
    kills: int = 3
    per: float = 3600.0


class Protocol(enum.Enum):
    """What a client sends first to a listener of this kind."""

    # A client offers SASL with this header, and a server accepts with the same (AMQP 1.0, part 5, section 5.3.2).
    AMQP = b"AMQP\x03\x01\x00\x00"
    TLS = b""
    HTTP = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Listener(typing.NamedTuple):
    """Where a router listens."""

    host: str
    port: int
    protocol: Protocol


class Listeners(typing.NamedTuple):
    """The listeners that the watch probes.

    :param clients: the first listener for clients. It stands for all of them, since the same threads serve all.
    :param health: the listener for ``/healthz``, if there is one.
    """

    clients: Listener
    health: Listener | None


class ProbeResult(enum.Enum):
    """The result of one connection to the router.

    ``ANSWER``: the router sent the first bytes of an answer, or closed the connection itself.
    ``HEALTHY``: ``/healthz`` answered, which proves nothing about clients.
    ``SILENCE``: the connection was accepted, and nothing came.
    ``CROWDED``: the connection was not accepted. The kernel accepts connections for a program until its queue is full,
    and the clients of a hung router fill the queue within seconds. A firewall has the same effect.
    ``NOBODY``: nothing listens.
    ``UNSURE``: this process did not run in time, or ``/healthz`` did not report success.
    """

    ANSWER = "answer"
    HEALTHY = "healthy"
    SILENCE = "silence"
    CROWDED = "crowded"
    NOBODY = "nobody"
    UNSURE = "unsure"


_NO_ANSWER = (ProbeResult.SILENCE, ProbeResult.CROWDED)


class Action(enum.Enum):
    """What the watch does after a probe."""

    NOTHING = "nothing"
    KILL = "kill"
    GIVE_UP = "give up"


class State(typing.NamedTuple):
    """What the watch knows about the router.

    :param silent: how many probes in a row got no answer.
    :param answered: whether the router ever answered. If it did, connections that are not accepted are its own fault,
        and not that of a firewall.
    :param until: nothing counts before this time.
    :param kills: the times of the kills. All times here are seconds of the monotonic clock, which all processes of one
        boot share.
    :param gave_up: whether the watch has reported that it kills the router no more.
    """

    silent: int = 0
    answered: bool = False
    until: float = 0.0
    kills: tuple[float, ...] = ()
    gave_up: bool = False


def next_action(state: State, result: ProbeResult, now: float, pace: Pace) -> tuple[State, Action]:
    """Return the state after one more probe, and what to do; pure."""
    if result is ProbeResult.HEALTHY:
        return state, Action.NOTHING
    if result is ProbeResult.ANSWER:
        return state._replace(silent=0, answered=True, gave_up=False), Action.NOTHING
    is_silent = result is ProbeResult.SILENCE or (result is ProbeResult.CROWDED and state.answered)
    if now < state.until or not is_silent:
        return state._replace(silent=0), Action.NOTHING
    state = state._replace(silent=state.silent + 1, kills=recent(state.kills, now, pace))
    if state.silent < pace.times:
        return state, Action.NOTHING
    if len(state.kills) < pace.kills:
        kills = (*state.kills, now)
        return state._replace(silent=0, kills=kills, until=now + pace.grace), Action.KILL
    action = Action.NOTHING if state.gave_up else Action.GIVE_UP
    return state._replace(gave_up=True), action


def recent(kills: typing.Iterable[float], now: float, pace: Pace) -> tuple[float, ...]:
    """Return the kills that still count. A time in the future is of another boot."""
    return tuple(at for at in kills if now - pace.per < at <= now)


def find_listeners(content: bytes) -> Listeners | None:
    """Return the listeners to probe, from the router's file as `om_agent.render` writes it.

    None when the file has no listener for clients.
    """
    clients: Listener | None = None
    health: Listener | None = None
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
        for kind, attributes in json.loads(content):
            if kind != "listener" or attributes.get("role", "normal") != "normal":
                continue
            protocol = Protocol.TLS if attributes.get("sslProfile") else Protocol.AMQP
            listener = Listener(str(attributes["host"]), int(attributes["port"]), protocol)
            if not attributes.get("http"):
                clients = clients or listener
            elif attributes.get("healthz") and protocol is Protocol.AMQP:
                health = listener._replace(protocol=Protocol.HTTP)
    return Listeners(clients, health) if clients else None


def probe(listener: Listener, pace: Pace) -> ProbeResult:
    """Connect once, and wait for the first bytes of an answer. Any bytes show that the router does not hang."""
    begun = time.monotonic()
    connected = False
    try:
        with socket.create_connection((listener.host, listener.port), pace.seconds) as connection:
            begun = time.monotonic()
            connected = True
            return _exchange(connection, listener.protocol)
    except (socket.timeout, TimeoutError):  # the same class since Python 3.10
        if time.monotonic() - begun > pace.seconds + pace.slack:
            return ProbeResult.UNSURE
        return ProbeResult.SILENCE if connected else ProbeResult.CROWDED
    except OSError:  # refused, reset, no such address; a router whose TLS handshake fails does not hang
        return ProbeResult.ANSWER if connected else ProbeResult.NOBODY


def _exchange(connection: socket.socket, protocol: Protocol) -> ProbeResult:
    """Send the first bytes of a protocol, and wait for an answer."""
    if protocol is Protocol.TLS:
        _shake_hands(connection)
        return ProbeResult.ANSWER
    connection.sendall(protocol.value)
    answer = connection.recv(12)  # of an HTTP answer: the first line up to the status code
    if protocol is Protocol.HTTP and not answer.endswith(b" 200"):
        return ProbeResult.UNSURE  # the router may not serve clients
    return ProbeResult.ANSWER


def _shake_hands(connection: socket.socket) -> None:
    """Do a TLS handshake without verifying the certificate.

    An expired certificate is no reason to kill a router, and the watch sends nothing secret.
    """
    import ssl  # takes 6 MB, which a router without TLS need not cost

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.wrap_socket(connection).close()


class Watch:
    """The watch over one unit.

    :param config: the router's file.
    :param kills_file: file that keeps the times of the kills, since systemd restarts the watch with the router; None to
        keep them in memory only.
    """

    def __init__(self, unit: str, config: pathlib.Path, kills_file: pathlib.Path | None, pace: Pace) -> None:
        self._unit = unit
        self._config = config
        self._kills_file = kills_file
        self._pace = pace
        self._stamp: tuple[int, ...] | None = None
        self._listeners: Listeners | None = None
        self._clients_probed: float | None = None  # when the watch last probed the listener for clients
        now = time.monotonic()
        self._state = State(until=now + pace.grace, kills=recent(self._read_kills(), now, pace))

    def run(self) -> typing.NoReturn:
        """Watch until a signal ends this program."""
        while True:
            result = self._check()
            if result not in _NO_ANSWER:
                self._sleep()

    def _check(self) -> ProbeResult:
        """Probe the router once, and act on the result."""
        listeners = self._read_listeners()
        result = self._probe(listeners) if listeners else ProbeResult.NOBODY
        self._state, action = next_action(self._state, result, time.monotonic(), self._pace)
        if action is Action.KILL and listeners:
            self._kill(listeners.clients)
        elif action is Action.GIVE_UP:
            _report(kinds.problem(self._unit, "watch-gives-up", times=len(self._state.kills), unit=self._unit))
        return result

    def _probe(self, listeners: Listeners) -> ProbeResult:
        """Probe ``/healthz`` if that suffices now, else the listener for clients."""
        now = time.monotonic()
        probed = self._clients_probed
        trusted = probed is not None and now < probed + self._pace.trust and not self._state.silent
        if trusted and listeners.health and probe(listeners.health, self._pace) is ProbeResult.ANSWER:
            return ProbeResult.HEALTHY
        self._clients_probed = now
        return probe(listeners.clients, self._pace)

    def _read_listeners(self) -> Listeners | None:
        """Return the listeners to probe; read the router's file again when it has changed."""
        try:
            found = self._config.stat()
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp != self._stamp:
                self._listeners = find_listeners(self._config.read_bytes())
                self._stamp = stamp
                self._clients_probed = None
        except OSError:
            self._listeners = None
            self._stamp = None
        return self._listeners

    def _sleep(self) -> None:
        has_no_health = self._listeners is not None and self._listeners.health is None
        pause = self._pace.pause_without_health if has_no_health else self._pace.pause
        begun = time.monotonic()
        time.sleep(pause)
        now = time.monotonic()
        if now - begun > pause + self._pace.slack:
            self._state, _ = next_action(self._state, ProbeResult.UNSURE, now, self._pace)

    def _kill(self, listener: Listener) -> None:
        self._write_kills()  # first: the kill may end this process too
        where = errors.where(listener.host, listener.port)
        seconds = f"{self._pace.seconds:g}"
        times = self._pace.times
        _report(kinds.problem(self._unit, "watch-kills", times=times, where=where, seconds=seconds, unit=self._unit))
        # systemd 252 renamed the option to --kill-whom; every version accepts the old name.
        command = ["systemctl", "kill", "--signal=KILL", "--kill-who=main", self._unit]
        try:
            result = proc.run(command, _SYSTEMCTL_SECONDS)
            why = result.stderr.strip() if result.returncode else ""
        except errors.ProcessFailed as e:
            why = str(e)
        if why:
            _report(kinds.problem(self._unit, "watch-cannot-kill", why=why.rstrip("."), unit=self._unit))

    def _read_kills(self) -> tuple[float, ...]:
        if not self._kills_file:
            return ()
        try:
            return tuple(float(at) for at in json.loads(self._kills_file.read_bytes()))
        except (OSError, ValueError, TypeError):
            return ()

    def _write_kills(self) -> None:
        if not self._kills_file:
            return
        with contextlib.suppress(OSError):
            self._kills_file.write_text(json.dumps(self._state.kills))


def _report(problem: errors.Problem) -> None:
    with contextlib.suppress(OSError):
        print(f"om-agent: {problem}", file=sys.stderr, flush=True)


def _interrupt(number: int, frame: object) -> typing.NoReturn:
    raise KeyboardInterrupt


def run(unit: str, config: str, kills_file: str = "", pace: Pace | None = None) -> None:
    """Watch the router of ``unit`` until a signal ends this program."""
    for number in proc.ENDING:
        signal.signal(number, _interrupt)
    path = pathlib.Path(kills_file) if kills_file else None
    with contextlib.suppress(KeyboardInterrupt):
        Watch(unit, pathlib.Path(config), path, pace or Pace()).run()
