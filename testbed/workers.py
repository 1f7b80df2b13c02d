"""The parent's side of `testbed.workload`: services as children, told what to do and asked what came."""

from __future__ import annotations

import collections.abc
import dataclasses
import importlib.metadata
import json
import queue
import signal
import sys
import threading
import time
import typing

from om_agent import model
from om_agent.plan import policy

from testbed import errors, overcloud, processes

READY_SECONDS = 60.0
_SLACK_SECONDS = 30.0  # beyond a command's own time: the last call's timeout, a slow machine


@dataclasses.dataclass(frozen=True)
class Sent:
    """One message, as its sender saw it; ``error`` is the exception's class or '', ``thread`` which of the sender's."""

    ident: str
    begun: float
    done: float
    error: str
    thread: int

    @property
    def kind(self) -> str:
        """What it was: call, cast, fanout or notify."""
        return self.ident.split(".")[2]

    @property
    def seconds(self) -> float:
        """How long the sender was occupied with it."""
        return self.done - self.begun


@dataclasses.dataclass(frozen=True)
class Got:
    """What a server or listener received of one kind.

    :param seconds: from sending to receiving, by message.
    :param again: how many more came that had come already.
    """

    seconds: dict[str, float]
    again: int


class Worker:
    """One child; everything a `processes.Supervisor` starts ends with it."""

    module = "testbed.workload"

    def __init__(self, supervisor: processes.Supervisor, host: overcloud.Host, name: str, *arguments: str) -> None:
        self.name = f"{name}-{host.name}"
        argv = [*host.within, sys.executable, "-W", "ignore", "-m", self.module, *arguments]
        self.process = supervisor.start(self.name, argv, overcloud.python_environment(), piped=True)
        self._supervisor = supervisor
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with_output = typing.cast(typing.TextIO, self.process.popen.stdout)
        try:
            for line in with_output:
                self._lines.put(line)
        except ValueError:
            pass  # closed, as this worker is at its end
        self._lines.put("")

    def expect(self, event: str, seconds: float) -> dict[str, typing.Any]:
        """Wait for the next report, which must be ``event``.

        :raises testbed.errors.TestbedError: when it does not come in time or the child ends.
        """
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise errors.TestbedError(f"{self.name} said nothing for {seconds:.0f} s.", self.process.tail()) from None
        found = json.loads(line) if line else {}
        if found.get("event") != event:
            raise errors.TestbedError(f"{self.name} ended before it was {event}.", self.process.tail())
        return typing.cast("dict[str, typing.Any]", found)

    def tell(self, **command: object) -> None:
        """Send one command."""
        pipe = typing.cast(typing.TextIO, self.process.popen.stdin)
        try:
            pipe.write(json.dumps(command) + "\n")
            pipe.flush()
        except OSError:
            raise errors.TestbedError(f"{self.name} has ended.", self.process.tail()) from None


class Receiver(Worker):
    """What receives, and keeps the names of all that came."""

    def got(self, kind: str) -> Got:
        """Return what has come so far: of ``call``, ``cast``, ``fanout`` or ``notify``."""
        self.tell(do="report")
        report = self.expect("report", _SLACK_SECONDS)
        return Got(dict(report["seen"].get(kind, ())), report["again"].get(kind, 0))

    def forget(self) -> None:
        """Let it forget what has come so far."""
        self.tell(do="forget")

    def finish(self) -> dict[str, list[str]]:
        """End it as its unit's stop does; returns the names of all that it got, by kind."""
        self.process.signal(signal.SIGTERM)
        report = self.expect("last", _SLACK_SECONDS)
        return {kind: [name for name, _ in seen] for kind, seen in report["seen"].items()}


class Server(Receiver):
    """An RPC server, configured by ``service``'s file on ``host``."""

    def __init__(self, supervisor: processes.Supervisor, host: overcloud.Host, service: str, topic: str) -> None:
        self.service, self.topic, self.host = service, topic, host
        config = str(host.service_file(service))
        options = ("--config", config, "--exchange", service, "--topic", topic, "--server", host.name)
        super().__init__(supervisor, host, f"server-{service}", "serve", *options)


class Listener(Receiver):
    """A listener to the notifications of ``services``, configured by ``service``'s file on ``host``."""

    def __init__(
        self,
        supervisor: processes.Supervisor,
        host: overcloud.Host,
        service: str,
        services: collections.abc.Iterable[str],
    ) -> None:
        options = ("--config", str(host.service_file(service)), "--exchange", service, *services)
        super().__init__(supervisor, host, f"listener-{service}", "listen", *options)

    def got(self, kind: str = "notify") -> Got:
        """Return what has come so far."""
        return super().got(kind)


class Client(Worker):
    """What calls, casts and notifies, configured by ``service``'s file on ``host``."""

    def __init__(self, supervisor: processes.Supervisor, host: overcloud.Host, service: str, topic: str = "") -> None:
        """Start one; with ``topic`` it is an RPC server of that as well."""
        self.service, self.topic, self.host = service, topic, host
        options = ["--config", str(host.service_file(service)), "--exchange", service]
        if topic:
            options += ["--topic", topic, "--server", host.name]
        super().__init__(supervisor, host, f"client-{service}", "client", *options)
        self._until = 0.0

    def begin(
        self,
        kind: str | collections.abc.Sequence[str],
        count: int,
        seconds: float,
        to: Server | Client | None = None,
        *,
        only: str = "",
        **options: float,
    ) -> None:
        """Begin to send, at most ``count`` messages and for ``seconds``, and do not wait.

        :param kind: call, cast, fanout or notify; of several, each in a thread of its own.
        :param to: any server of the topic meant; none for ``notify``.
        :param only: the name of the one server of the topic that is to get it; any otherwise.
        :param options: timeout, interval, threads.
        """
        where = {"topic": to.topic, "exchange": to.service} if to else {}
        if only:
            where["server"] = only
        self.tell(do=kind, count=count, seconds=seconds, **where, **options)
        self._until = time.monotonic() + seconds + options.get("timeout", 0.0) + _SLACK_SECONDS

    def enough(self) -> None:
        """Let it end before its time; what is under way is waited for."""
        self.process.signal(signal.SIGUSR1)

    def result(self) -> list[Sent]:
        """Wait for what was begun, and return what became of each message."""
        done = self.expect("done", max(0.0, self._until - time.monotonic()))
        return [Sent(*row) for row in done["results"]]


class Crowd(Worker):
    """Many light clients, see `testbed.crowd`."""

    module = "testbed.crowd"

    def __init__(
        self,
        supervisor: processes.Supervisor,
        cloud: overcloud.Overcloud,
        hosts: collections.abc.Sequence[overcloud.Host],
        first: int,
        count: int,
    ) -> None:
        """Start as many as ``count``, numbered from ``first``, with the heartbeat that the agent writes for drivers.

        :param hosts: where they run, which is at the first, and those that they connect to, of which AMQP 1.0's are
            the first alone.
        """
        super().__init__(supervisor, hosts[0], f"crowd-{first}")
        d = cloud.deployment
        amqp = d.rpc.scheme is model.Scheme.AMQP
        self.tell(
            first=first, count=count, scheme=d.rpc.scheme.value, hosts=[host.node.host for host in hosts],
            port=d.rpc.port, user=policy.login(d.rpc), password=d.rpc.password.reveal(),
            heartbeat=d.oslo.amqp_idle_timeout if amqp else d.oslo.rabbit_heartbeat,
        )  # fmt: skip
        self.expect("ready", READY_SECONDS)

    def report(self) -> tuple[int, float]:
        """Return how many of them are complete, and since when the last of these is."""
        self.tell(do="report")
        found = self.expect("report", _SLACK_SECONDS)
        return found["open"], found["last"]


def check_oslo_messaging() -> str:
    """Return the version of oslo.messaging.

    :raises testbed.errors.TestbedError: when it, or what its AMQP 1.0 driver needs, is not installed.
    """
    try:
        version = importlib.metadata.version("oslo.messaging")
    except importlib.metadata.PackageNotFoundError:
        raise errors.TestbedError("oslo.messaging is not installed: run tools/bootstrap demo.") from None
    if int(version.partition(".")[0]) >= 15:
        raise errors.TestbedError(
            f"oslo.messaging {version} has no AMQP 1.0 driver (removed in 15.0.0): install one older than 15."
        )
    try:
        import proton
        import pyngus  # noqa: F401
    except ImportError as e:
        raise errors.TestbedError(
            f"oslo.messaging's AMQP 1.0 driver lacks {e.name}: run tools/bootstrap demo."
        ) from None
    if not proton.SASL.extended():
        raise errors.TestbedError(
            "python-qpid-proton is without Cyrus SASL: run tools/bootstrap demo to compile it anew."
        )
    return version
