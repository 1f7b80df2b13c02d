"""The parent's side of `testbed.workload`: services as child processes, which get commands and send reports."""

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
    """One message, as its sender saw it.

    :param error: the class of the exception, '' without one.
    :param thread: the number of the sender's thread.
    """

    ident: str
    begun: float
    done: float
    error: str
    thread: int

    @property
    def kind(self) -> str:
        """The kind of the message: call, cast, fanout or notify."""
        return self.ident.split(".")[2]

    @property
    def seconds(self) -> float:
        """How long sending took, with a call's answer or an acknowledgement."""
        return self.done - self.begun


@dataclasses.dataclass(frozen=True)
class Got:
    """The messages of one kind that a server or listener received.

    :param seconds: by message, the time from sending to receiving.
    :param again: how many came more than once.
    """

    seconds: dict[str, float]
    again: int


class Worker:
    """One child process. Its `processes.Supervisor` ends it."""

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
            pass  # the pipe is closed, because this worker ends
        self._lines.put("")

    def expect(self, event: str, seconds: float) -> dict[str, typing.Any]:
        """Wait for the next report, which must be ``event``.

        :raises testbed.errors.TestbedError: when it does not come in time or the child ends.
        """
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise errors.TestbedError(f"{self.name} sent no report in {seconds:.0f} s.", self.process.tail()) from None
        report = json.loads(line) if line else {}
        if report.get("event") != event:
            raise errors.TestbedError(f"{self.name} ended before it reported {event}.", self.process.tail())
        return typing.cast("dict[str, typing.Any]", report)

    def tell(self, **command: object) -> None:
        """Send one command."""
        pipe = typing.cast(typing.TextIO, self.process.popen.stdin)
        try:
            pipe.write(json.dumps(command) + "\n")
            pipe.flush()
        except OSError:
            raise errors.TestbedError(f"{self.name} has ended.", self.process.tail()) from None


class Receiver(Worker):
    """A worker that receives messages and records their names."""

    def got(self, kind: str) -> Got:
        """Return the messages of one kind that have come so far: ``call``, ``cast``, ``fanout`` or ``notify``."""
        self.tell(do="report")
        report = self.expect("report", _SLACK_SECONDS)
        return Got(dict(report["seen"].get(kind, ())), report["again"].get(kind, 0))

    def forget(self) -> None:
        """Make the worker forget the messages that have come so far."""
        self.tell(do="forget")

    def finish(self) -> dict[str, list[str]]:
        """End the worker as stopping its unit would. Return the names of all messages that it got, by kind."""
        self.process.signal(signal.SIGTERM)
        report = self.expect("last", _SLACK_SECONDS)
        names = {}
        for kind, seen in report["seen"].items():
            names[kind] = [name for name, _ in seen]
        return names


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
        """Return the notifications that have come so far."""
        return super().got(kind)


class Client(Worker):
    """A worker that calls, casts and notifies, configured by ``service``'s file on ``host``."""

    def __init__(self, supervisor: processes.Supervisor, host: overcloud.Host, service: str, topic: str = "") -> None:
        """Start a client. With ``topic`` it is also an RPC server of that topic."""
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
        """Begin to send for ``seconds``, at most ``count`` messages, without waiting for the end.

        :param kind: call, cast, fanout or notify. Several kinds have a thread each.
        :param to: a server whose topic gets the messages; None for ``notify``.
        :param only: the name of the only server that shall get them; '' for any server of the topic.
        :param options: timeout, interval, threads.
        """
        where = {"topic": to.topic, "exchange": to.service} if to else {}
        if only:
            where["server"] = only
        self.tell(do=kind, count=count, seconds=seconds, **where, **options)
        self._until = time.monotonic() + seconds + options.get("timeout", 0.0) + _SLACK_SECONDS

    def enough(self) -> None:
        """Make the client stop sending early. It still waits for the messages that it has begun to send."""
        self.process.signal(signal.SIGUSR1)

    def result(self) -> list[Sent]:
        """Wait for the end of what `begin` began, and return its messages."""
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
        """Start ``count`` clients, numbered from ``first``, with the heartbeat that the agent writes for services.

        :param hosts: the hosts to connect to; over AMQP 1.0 only the first one. The clients run on the first one.
        """
        super().__init__(supervisor, hosts[0], f"crowd-{first}")
        rpc = cloud.deployment.rpc
        oslo = cloud.deployment.oslo
        heartbeats = {model.Scheme.AMQP: oslo.amqp_idle_timeout, model.Scheme.RABBIT: oslo.rabbit_heartbeat}
        self.tell(
            first=first,
            count=count,
            scheme=rpc.scheme.value,
            hosts=[host.node.host for host in hosts],
            port=rpc.port,
            user=policy.login(rpc),
            password=rpc.password.reveal(),
            heartbeat=heartbeats[rpc.scheme],
        )
        self.expect("ready", READY_SECONDS)

    def report(self) -> tuple[int, float]:
        """Return how many clients are fully connected, and when the last of them became so."""
        self.tell(do="report")
        found = self.expect("report", _SLACK_SECONDS)
        return found["open"], found["last"]


def check_oslo_messaging() -> str:
    """Return the version of oslo.messaging.

    :raises testbed.errors.TestbedError: when oslo.messaging or a library of its AMQP 1.0 driver is not installed.
    """
    try:
        version = importlib.metadata.version("oslo.messaging")
    except importlib.metadata.PackageNotFoundError:
        raise errors.TestbedError("oslo.messaging is not installed: run tools/bootstrap demo.") from None
    if int(version.partition(".")[0]) >= 15:
        raise errors.TestbedError(
            f"oslo.messaging {version} has no AMQP 1.0 driver (removed in 15.0.0): install a release older than 15."
        )
    try:
        import proton
        import pyngus  # noqa: F401
    except ImportError as e:
        raise errors.TestbedError(
            f"oslo.messaging's AMQP 1.0 driver lacks {e.name}: run tools/bootstrap demo."
        ) from None
    if not proton.SASL.extended():
        raise errors.TestbedError("python-qpid-proton lacks Cyrus SASL: run tools/bootstrap demo to compile it again.")
    return version
