"""A RabbitMQ cluster on one machine, from the files that om-agent rendered for each node.

Three nodes named rabbit cannot share one epmd, because epmd ignores the host part of names. RabbitMQ also tries to open
its distribution port on 0.0.0.0, which fails when another node has that port. So flags start Erlang's distribution
before RabbitMQ does: every node uses the same rendered port on its own address, and none asks an epmd (erl(1),
-erl_epmd_port, Erlang/OTP 23.1 and newer). All other settings come from the rendered files.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import os
import pathlib
import re
import shlex
import socket
import subprocess
import time
import urllib.error
import urllib.request

from om_agent import model
from om_agent.plan import layout

from testbed import errors, overcloud, processes, sockets

READY_SECONDS = 120.0
# The wrapper in /usr/sbin becomes the user rabbitmq when root runs it, and refuses all other users. This one does
# neither.
_SERVERS = ("/usr/lib/rabbitmq/bin/rabbitmq-server",)
_CTL = "/usr/lib/rabbitmq/bin/rabbitmqctl"
_TRIES = 3
_SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")


@dataclasses.dataclass(frozen=True)
class Counters:
    """Messages over AMQP 0-9-1 since the start, on all nodes together.

    :param received: messages that clients published.
    :param confirmed: messages that brokers confirmed to their publishers.
    :param delivered: messages sent to consumers that acknowledge.
    :param acknowledged: messages that these consumers acknowledged.
    :param unroutable: messages that were published and reached no queue.
    """

    received: int = 0
    confirmed: int = 0
    delivered: int = 0
    acknowledged: int = 0
    unroutable: int = 0


_METRICS = {
    "received": ("rabbitmq_global_messages_received_total",),
    "confirmed": ("rabbitmq_global_messages_confirmed_total",),
    "delivered": ("rabbitmq_global_messages_delivered_consume_manual_ack_total",),
    "acknowledged": ("rabbitmq_global_messages_acknowledged_total",),
    "unroutable": (
        "rabbitmq_global_messages_unroutable_dropped_total",
        "rabbitmq_global_messages_unroutable_returned_total",
    ),
}


def find_server() -> str:
    """Return the path of ``rabbitmq-server``.

    :raises testbed.errors.TestbedError: when it is not installed.
    """
    found = overcloud.find_program("rabbitmq-server")
    if not found or not overcloud.find_program("erl"):
        raise errors.TestbedError("rabbitmq-server is not on PATH: install the package rabbitmq-server.")
    return next((server for server in _SERVERS if os.access(server, os.X_OK)), found)


def find_ctl() -> str:
    """Return the path of the ``rabbitmqctl`` that works for every user.

    :raises testbed.errors.TestbedError: when RabbitMQ is not where Debian has it.
    """
    if not os.access(_CTL, os.X_OK):
        raise errors.TestbedError(f"{_CTL} does not exist: install Debian's package rabbitmq-server.")
    return _CTL


def erlang_environment(port: int) -> dict[str, str]:
    """Return the environment with which an Erlang node finds the brokers at this port, without a port mapper.

    The node itself does not listen, because the broker has that port. This is for ``rabbitmqctl``, of which several may
    run at once, and for the second node that RabbitMQ 4 starts to ask the peers.
    """
    return {"ERL_ZFLAGS": f"-start_epmd false -erl_epmd_port {port} -dist_listen false"}


def ctl(host: overcloud.Host, *command: str, seconds: float = 90.0) -> str:
    """Run ``rabbitmqctl`` on a node for its broker. Return its output.

    When it cannot reach the broker, it has done nothing and is run again. Over TLS on a busy machine that happens to
    one run in twenty, because Erlang allows seven seconds for a handshake (kernel(6), net_setuptime).

    :raises testbed.errors.TestbedError: with its output, when it fails.
    """
    path = host.path(f"{layout.RABBIT_DIR}/rabbitmq-env.conf")
    settings = _read_environment(path)
    environment = {
        **processes.environment(),
        **erlang_environment(int(settings["DIST_PORT"])),
        "HOME": str(host.path("/var/lib/rabbitmq")),
        "RABBITMQ_CONF_ENV_FILE": str(path),
    }
    argv = [*host.within, find_ctl(), "--quiet", "--node", settings["NODENAME"], *command]
    for _ in range(_TRIES):
        done = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode != os.EX_UNAVAILABLE:
            break
    if done.returncode:
        raise errors.TestbedError(f"rabbitmqctl {' '.join(command)} ended with {done.returncode}.", done.stderr)
    return done.stdout


class Node:
    """One broker."""

    def __init__(self, supervisor: processes.Supervisor, host: overcloud.Host, metrics_port: int) -> None:
        self.host = host
        self.process: processes.Process | None = None
        self._supervisor = supervisor
        self._metrics = (host.node.address, metrics_port)
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.setblocking(False)
        self._notified.bind("")  # Linux gives it an abstract name (unix(7), autobind)
        self._ready = False

    def start(self) -> None:
        """Start it, and do not wait."""
        self._ready = False
        argv = [*self.host.within, find_server()]
        self.process = self._supervisor.start(f"rabbitmq-{self.host.name}", argv, self._environment())

    def is_ready(self) -> bool:
        """Return whether the broker has sent READY=1, as to systemd, after its start (sd_notify(3))."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._ready |= b"READY=1" in self._notified.recv(4096).split(b"\n")
        return self._ready

    def close(self) -> None:
        """Close the socket for the broker's notifications."""
        self._notified.close()

    def scrape(self) -> dict[str, dict[str, float]]:
        """Return the broker's metrics by name and by labels, as in the text between the braces."""
        url = f"http://{sockets.show(self._metrics)}/metrics"
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as response:
                text = response.read().decode()
        except (OSError, urllib.error.URLError) as e:
            raise errors.TestbedError(f"RabbitMQ on {self.host.name} does not answer at {url}: {e}.") from None
        found: dict[str, dict[str, float]] = {}
        for line in text.splitlines():
            sample = _SAMPLE.fullmatch(line)
            if sample:
                found.setdefault(sample[1], {})[sample[2] or ""] = float(sample[3])
        return found

    def cluster_id(self) -> str:
        """Return the cluster's own identifier, which members share."""
        labels = "".join(self.scrape().get("rabbitmq_identity_info", {}))
        found = re.search(r'rabbitmq_cluster_permanent_id="([^"]+)"', labels)
        return found[1] if found else ""

    def _environment(self) -> dict[str, str]:
        settings = _read_environment(self.host.path(f"{layout.RABBIT_DIR}/rabbitmq-env.conf"))
        data, logs = self.host.path("/var/lib/rabbitmq"), self.host.path("/var/log/rabbitmq")
        logs.mkdir(parents=True, exist_ok=True)
        name_type = "-name" if settings.get("USE_LONGNAME") == "true" else "-sname"
        port = settings["DIST_PORT"]
        return {
            "HOME": str(data),  # of the rendered .erlang.cookie
            "RABBITMQ_CONF_ENV_FILE": str(self.host.path(f"{layout.RABBIT_DIR}/rabbitmq-env.conf")),
            "RABBITMQ_CONFIG_FILES": str(self.host.path(f"{layout.RABBIT_DIR}/conf.d")),  # not this machine's
            "RABBITMQ_MNESIA_BASE": str(data / "mnesia"),
            "RABBITMQ_LOG_BASE": str(logs),
            "ERL_CRASH_DUMP_BYTES": "0",
            "RABBITMQ_SERVER_START_ARGS": f"{name_type} {settings['NODENAME']} -dist_listen true"
            f" -kernel inet_dist_listen_min {port} -kernel inet_dist_listen_max {port}",
            **erlang_environment(
                int(port)
            ),  # of two -dist_listen erl takes the first, so that the broker itself listens
            # Also makes the server's script become the server, instead of staying between it and us.
            "NOTIFY_SOCKET": "@" + self._notified.getsockname()[1:].decode(),
        }


class Cluster:
    """The brokers of an overcloud."""

    def __init__(self, supervisor: processes.Supervisor, cloud: overcloud.Overcloud) -> None:
        port = cloud.deployment.broker.metrics_port
        self._supervisor = supervisor
        self.started = 0.0  # on the monotonic clock
        self.nodes = tuple(Node(supervisor, host, port) for host in cloud.having(model.Scheme.RABBIT))

    @property
    def processes(self) -> tuple[processes.Process, ...]:
        """The processes of the nodes that were started."""
        return tuple(node.process for node in self.nodes if node.process)

    def start(self) -> None:
        """Start all nodes, and do not wait."""
        self.started = time.monotonic()
        for node in self.nodes:
            node.start()

    def wait(self, seconds: float = READY_SECONDS) -> None:
        """Wait until every node has started and all form one cluster.

        :raises testbed.errors.TestbedError: with the end of the log, when that does not happen in time.
        """
        processes.wait_until("RabbitMQ is ready", self._is_ready, seconds, self.processes)
        if len({node.cluster_id() for node in self.nodes}) > 1:
            raise errors.TestbedError("The RabbitMQ nodes run, but did not become one cluster.")

    def _is_ready(self) -> bool:
        ready = [node.is_ready() for node in self.nodes]  # ask every node each time, to read all notifications
        return all(ready)

    def counters(self) -> Counters:
        """Return the counters of the cluster."""
        total = dict.fromkeys(_METRICS, 0)
        for node in self.nodes:
            scraped = node.scrape()
            for field, names in _METRICS.items():
                for name in names:
                    total[field] += _amqp_0_9_1(scraped.get(name, {}))
        return Counters(**total)

    def end(self) -> None:
        """Kill all nodes at once. Nobody needs their data any more, and an orderly end takes seconds."""
        self._supervisor.end(*self.processes, grace=0)
        for node in self.nodes:
            node.close()


def _read_environment(path: pathlib.Path) -> dict[str, str]:
    """Return the variables of a rendered rabbitmq-env.conf, which holds nothing but ``NAME="value"`` lines."""
    variables = {}
    for word in shlex.split(path.read_text(), comments=True):
        name, _, value = word.partition("=")
        variables[name] = value
    return variables


def _amqp_0_9_1(values: collections.abc.Mapping[str, float]) -> int:
    """Return the sum of a metric's values for AMQP 0-9-1."""
    return sum(int(value) for labels, value in values.items() if 'protocol="amqp091"' in labels)
