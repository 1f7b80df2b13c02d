"""What the tests of the development router share: starting an engine, and talking to it. Holds no tests itself.

The same behaviour is asked of three engines; where a real one is not installed, its tests are skipped with the reason.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import typing

import pytest
from om_agent import model

from testbed import routers
from tests.support import waiting

proton = pytest.importorskip("proton", reason="python-qpid-proton is not installed")
proton_reactor = pytest.importorskip("proton.reactor", reason="python-qpid-proton is not installed")
proton_utils = pytest.importorskip("proton.utils", reason="python-qpid-proton is not installed")

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DEVROUTER, QDROUTERD, SKROUTERD = "om-devrouter", "qdrouterd", "skrouterd"
ENGINES = (
    DEVROUTER,
    pytest.param(QDROUTERD, marks=pytest.mark.router),
    pytest.param(SKROUTERD, marks=pytest.mark.router),
)
BY_PROGRAM = {engine.record.program: engine for engine in model.Engine}

Entity = tuple[str, dict[str, object]]

ADDRESSES: tuple[Entity, ...] = tuple(
    ("address", {"prefix": f"openstack.org/om/{half}/{kind}", "distribution": distribution})
    for half in ("rpc", "notify")
    for kind, distribution in (("multicast", "multicast"), ("unicast", "closest"), ("anycast", "balanced"))
)
MULTICAST, CLOSEST, BALANCED = (f"openstack.org/om/rpc/{kind}/x" for kind in ("multicast", "unicast", "anycast"))


def command(engine: str) -> list[str]:
    """The program of an engine; skips the test when this machine has none."""
    found = routers.find(BY_PROGRAM[engine])
    if found is None:
        pytest.skip(f"{engine} is not installed: set {routers.VARIABLES[BY_PROGRAM[engine]]} or PATH")
    return list(found)


def free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


def loopback() -> str:
    """An address that no other test is likely to use."""
    return f"127.{random.randint(64, 191)}.{random.randint(1, 254)}.{random.randint(1, 254)}"


@dataclasses.dataclass
class Router:
    """A router on an address and ports of its own; it can be stopped and started again."""

    engine: str
    directory: pathlib.Path
    host: str
    port: int
    http_port: int
    process: subprocess.Popen[bytes] | None = None
    stopped: bool = False

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def write(
        self,
        listener: typing.Mapping[str, object] | None = None,
        router: typing.Mapping[str, object] | None = None,
        more: collections.abc.Iterable[Entity] = (),
    ) -> None:
        """Write the configuration, as the agent would."""
        client: dict[str, object] = {
            "name": "client",
            "host": self.host,
            "port": self.port,
            "role": "normal",
            "authenticatePeer": False,
            "saslMechanisms": "ANONYMOUS",
            "linkCapacity": 100,
            "idleTimeoutSeconds": 16,
            "maxFrameSize": 16384,
        }
        client.update(listener or {})
        entities: list[Entity] = [
            ("router", {"mode": "standalone", "id": "ctl-0", "workerThreads": 2, **(router or {})}),
            *more,
            ("listener", client),
            *ADDRESSES,
        ]
        self.directory.joinpath("router.json").write_text(json.dumps(entities))

    def start(self) -> None:
        self.stopped = False
        environment = dict(os.environ, PYTHONPATH=str(REPOSITORY / "devrouter"), PYTHONDONTWRITEBYTECODE="1")
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*command(self.engine), "-c", str(self.directory / "router.json")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment if self.engine == DEVROUTER else None,
            )
        waiting.until(self.accepts, 15, lambda: f"{self.engine} does not accept; it says:\n{self.log}")

    def accepts(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.engine} ended with {self.process.returncode}:\n{self.log}"
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), timeout=1):
            return True
        return False

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop the router; return its exit code."""
        assert self.process is not None
        self.stopped = True
        self.process.send_signal(number)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise

    def cpu_seconds(self) -> float:
        """Return its processor time in seconds."""
        assert self.process is not None
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running(
    engine: str,
    directory: pathlib.Path,
    host: str | None = None,
    listener: typing.Mapping[str, object] | None = None,
    router: typing.Mapping[str, object] | None = None,
    more: collections.abc.Iterable[Entity] = (),
    http: bool = False,
) -> collections.abc.Iterator[Router]:
    """A router for as long as the context lasts."""
    host = host or loopback()
    made = Router(engine, directory, host, free_port(host), free_port(host))
    extra: list[Entity] = list(more)
    if http:
        page: dict[str, object] = {"name": "http", "host": host, "port": made.http_port, "http": True}
        extra.append(("listener", {**page, "healthz": True, "metrics": True, "websockets": False}))
    made.write(listener, router, extra)
    command(engine)
    made.start()
    try:
        yield made
    finally:
        if made.process is not None and not made.stopped:
            code = made.stop() if made.process.poll() is None else made.process.returncode
            assert code == 0, f"{engine} ended with {code}; it says:\n{made.log}"


@contextlib.contextmanager
def connected(router: Router, **options: object) -> collections.abc.Iterator[typing.Any]:
    """A blocking connection of proton's; those that share a ``container`` all work while one of them waits."""
    options.setdefault("timeout", 10)
    # Without this, proton answers a slow start with retries of its own.
    options.setdefault("reconnect", False)
    scheme = "amqps" if "ssl_domain" in options else "amqp"
    connection = proton_utils.BlockingConnection(f"{scheme}://{router.url}", **options)
    try:
        yield connection
    finally:
        with contextlib.suppress(proton.ProtonException):
            if "container" in options:
                # Its own close() would wait for the end of every connection of the container.
                connection.conn.close()
                closed = connection.conn.REMOTE_CLOSED
                connection.wait(lambda: connection.conn.state & closed, timeout=2)
            else:
                connection.close()


class Management:
    """Asks the $management node of a router."""

    def __init__(self, connection: typing.Any, engine: str) -> None:
        self._prefix = BY_PROGRAM[engine].record.prefix
        self._engine = engine
        self._receiver = connection.create_receiver(None, dynamic=True, credit=10)
        self._sender = connection.create_sender("$management")

    def request(
        self, properties: typing.Mapping[str, object], body: object = None, correlation_id: object = "1"
    ) -> typing.Any:
        reply_to = self._receiver.link.remote_source.address
        self._sender.send(
            proton.Message(reply_to=reply_to, correlation_id=correlation_id, properties=dict(properties), body=body)
        )
        return self._receiver.receive(timeout=5)

    def query(self, entity: str, names: typing.Sequence[str] = (), **more: object) -> list[dict[str, typing.Any]]:
        """Return the rows of an entity."""
        reply = self.request(
            {
                "operation": "QUERY",
                "type": "org.amqp.management",
                "name": "self",
                "entityType": self._prefix + entity,
                **more,
            },
            {"attributeNames": list(names)},
        )
        assert reply.properties["statusCode"] == 200, reply.properties
        return [dict(zip(reply.body["attributeNames"], row)) for row in reply.body["results"]]

    def counters(self) -> dict[str, int]:
        """The router's counts of deliveries; skrouterd has them in an entity of their own."""
        row = self.query("routerMetrics" if self._engine == SKROUTERD else "router")[0]
        return {name: value for name, value in row.items() if "eliveries" in name and value is not None}

    def address(self, name: str) -> dict[str, typing.Any] | None:
        """The row of a mobile address; what qdrouterd calls M0 (with a phase) skrouterd calls M."""
        mobile = ("M" if self._engine == SKROUTERD else "M0") + name
        rows = [row for row in self.query("router.address") if row["name"] == mobile]
        return rows[0] if rows else None
