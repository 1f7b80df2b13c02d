"""The sides to compare: overclouds of one or three controllers, rendered by the agent, with services that use them."""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import pathlib
import time
import typing

from om_agent import model
from om_agent.plan import layout, queues

from testbed import errors, overcloud, processes, rabbitmq, routers, workers
from testbed.recovery import network
from tests.support import tls

_PASSWORDS = {"rpc": "bench-rpc-secret", "notify": "bench-notify-secret"}
_TOPIC = "compute"
_SERVICE = "nova"
_FILE = "/etc/nova/nova.conf"
_BACK_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of side: backends and their settings.

    :param words: its name in tables.
    :param scheme: the backend of RPC.
    :param rpc: keys of the metadata's ``rpc``.
    :param router: keys of the metadata's ``router``.
    :param broker: keys of the metadata's ``broker``.
    :param works: the kinds of work that it takes part in; empty for all.
    :param notify: the backend of notifications. Where both backends are routers, no RabbitMQ runs.
    :param tls: whether services use TLS to their router.
    :param driver: the scheme of services' URLs where RPC goes over routers; see `testbed.overcloud.use_driver`.
    :param edits: changes of rendered files: a path on each node, a text that the file contains once, and the text that
        replaces it.
    """

    name: str
    words: str
    scheme: model.Scheme
    nodes: int
    rpc: dict[str, str] = dataclasses.field(default_factory=dict)
    router: dict[str, int] = dataclasses.field(default_factory=dict)
    broker: dict[str, str] = dataclasses.field(default_factory=dict)
    works: tuple[str, ...] = ()
    notify: model.Scheme = model.Scheme.RABBIT
    tls: bool = False
    driver: str = "amqp"
    edits: tuple[tuple[str, str, str], ...] = ()


_AMQP, _RABBIT = model.Scheme.AMQP, model.Scheme.RABBIT
_FAST = {"delivery": "pre_settled"}
_STOCK = {"link_capacity": 250}  # the default of both engines
_QUORUM = (
    "[oslo_messaging_rabbit]\n",
    "[oslo_messaging_rabbit]\nrabbit_quorum_queue = true\namqp_durable_queues = true\n",
)
# TripleO's default is a majority of copies (RabbitHAQueues 0). This is its setting -1.
_EVERYWHERE = ('"ha-mode": "exactly",\n        "ha-params": 2,', '"ha-mode": "all",')
_OWN = "amqp1"  # the scheme of the driver of this project
KINDS = {
    "one": (
        Kind("router", "one router", _AMQP, 1),
        Kind("router-fast", "one router, pre-settled", _AMQP, 1, _FAST),
        Kind("router-stock", "one router, stock settings", _AMQP, 1, _FAST, _STOCK, works=("burst",)),
        Kind("rabbit", "one RabbitMQ", _RABBIT, 1),
    ),
    "three": (
        Kind("mesh", "three routers", _AMQP, 3),
        Kind("mirrored", "three RabbitMQ, mirrored", _RABBIT, 3, broker={"queues": "mirrored"}),
        Kind(
            "mirrored-all", "three RabbitMQ, mirrored on all", _RABBIT, 3, broker={"queues": "mirrored"},
            works=("calls", "far"), edits=((layout.RABBIT_DEFINITIONS, *_EVERYWHERE),),
        ),
        Kind("classic", "three RabbitMQ, classic", _RABBIT, 3, broker={"queues": "classic"}),
        Kind(
            "quorum", "three RabbitMQ, quorum", _RABBIT, 3, broker={"queues": "classic"},
            edits=((_FILE, *_QUORUM),),
        ),
    ),
    "settings": (
        Kind("rendered", "as rendered", _AMQP, 3, notify=_AMQP),
        Kind("cost-1", "link_cost 1", _AMQP, 3, router={"link_cost": 1}, notify=_AMQP, works=("calls",)),
        Kind("workers-2", "worker_threads 2", _AMQP, 3, router={"worker_threads": 2}, notify=_AMQP, works=("calls",)),
        Kind("workers-4", "worker_threads 4", _AMQP, 3, router={"worker_threads": 4}, notify=_AMQP, works=("calls",)),
        Kind("capacity-250", "link_capacity 250", _AMQP, 3, router=_STOCK, notify=_AMQP, works=("burst",)),
        Kind("settled", "pre-settled", _AMQP, 3, _FAST, notify=_AMQP),
    ),
    "driver": (
        Kind("own", "the driver of this project", _AMQP, 1, driver=_OWN),
        Kind("in-tree", "oslo.messaging's former driver", _AMQP, 1),
        Kind("own-tls", "the driver of this project, TLS", _AMQP, 1, works=("calls",), tls=True, driver=_OWN),
        Kind("broker", "one RabbitMQ", _RABBIT, 1),
    ),
    "driver-mesh": (
        Kind("own-mesh", "three routers, the driver of this project", _AMQP, 3, driver=_OWN),
        Kind("in-tree-mesh", "three routers, oslo.messaging's former driver", _AMQP, 3),
        Kind(
            "brokers", "three RabbitMQ, mirrored on all", _RABBIT, 3, broker={"queues": "mirrored"},
            edits=((layout.RABBIT_DEFINITIONS, *_EVERYWHERE),),
        ),
        Kind(
            "brokers-quorum", "three RabbitMQ, quorum", _RABBIT, 3, broker={"queues": "classic"},
            edits=((_FILE, *_QUORUM),),
        ),
    ),
}  # fmt: skip


def kinds(pair: str, version: str) -> tuple[Kind, ...]:
    """Return the kinds of a pair that are possible with this version of RabbitMQ. From 4.0 it has no mirrored queues.

    :param version: as `om_agent.host_facts.broker_version` gives it.
    """
    mirrors = queues.can_mirror(layout.Host(broker_version=version))
    return tuple(kind for kind in KINDS[pair] if mirrors or kind.broker.get("queues") != "mirrored")


class Side:
    """A running overcloud with RPC servers, clients and a listener for its notifications.

    :param number: gives each side addresses of its own.
    """

    def __init__(
        self, supervisor: processes.Supervisor, directory: pathlib.Path, kind: Kind, engine: model.Engine, number: int
    ) -> None:
        self.kind = kind
        self.supervisor = supervisor
        self.cloud = self._apply(directory, engine, number)
        self.mesh = routers.Mesh(supervisor, self.cloud)
        self.cluster = rabbitmq.Cluster(supervisor, self.cloud)
        self.servers: list[workers.Server] = []
        self.clients: list[workers.Client] = []
        self.listeners: list[workers.Listener] = []

    def _apply(self, directory: pathlib.Path, engine: model.Engine, number: int) -> overcloud.Overcloud:
        kind = self.kind
        raw: dict[str, typing.Any] = {
            "rpc": {
                "scheme": kind.scheme.value, "username": "rpc", "password": _PASSWORDS["rpc"], "tls": kind.tls,
                "delivery": "acknowledged", **kind.rpc,  # so that each lost message is a fault
            },
            "notify": {
                "scheme": kind.notify.value, "username": "notify", "password": _PASSWORDS["notify"], "tls": False,
            },
            "router": {"engine": engine.value, "http_port": 0, "mesh_password": "bench-mesh-secret", **kind.router},
            "broker": {"erlang_cookie": "bench-cookie", **kind.broker},
            "nodes": [
                {"name": f"{kind.name}-{index}", "address": f"127.0.{100 + number}.{index + 1}", "role": "controller"}
                for index in range(kind.nodes)
            ],
        }  # fmt: skip
        if kind.tls:
            addresses = {node["name"]: node["address"] for node in raw["nodes"]}
            pair = tls.authority().issue(*addresses, *addresses.values())
            network.resolve(addresses, directory / f"{kind.name}.hosts")
            raw["tls"] = {"ca": tls.authority().pem, "certificate": pair.certificate, "key": pair.key}
        if kind.scheme is _RABBIT:
            del raw["notify"]  # by default, notifications use the same brokers and user
        metadata = directory / f"{kind.name}.json"
        metadata.write_text(json.dumps({"oslo_messaging": raw}))
        cloud = overcloud.create([metadata], directory / kind.name)
        overcloud.without_services(cloud.hosts, keep=[_SERVICE])
        overcloud.apply_all(self.supervisor, cloud, f"apply-{kind.name}")
        for host in cloud.hosts:
            for name, old, new in kind.edits:
                _edit(host.path(name), old, new)
            if kind.driver != "amqp":
                overcloud.use_driver(host.path(_FILE), kind.driver)
        return cloud

    @property
    def intermediaries(self) -> tuple[processes.Process, ...]:
        """The processes that carry RPC: the routers, or the brokers."""
        if self.kind.scheme is _AMQP:
            return tuple(router.process for router in self.mesh.routers if router.process)
        return self.cluster.processes

    @property
    def stores(self) -> tuple[processes.Process, ...]:
        """The processes that carry notifications: the brokers."""
        return self.cluster.processes

    def start(self) -> None:
        """Start all of it."""
        self.cluster.start()
        self.mesh.start()
        self.cluster.wait()
        self._start_services()

    def renew_services(self) -> None:
        """Replace the services by new ones.

        Services whose broker was killed stay connected to another one. New services are distributed as at the start.
        """
        self.supervisor.end(*self._services, grace=1)
        self._start_services()

    def _start_services(self) -> None:
        """Start two servers and two clients on a single node, or one of each on every node."""
        hosts = self.cloud.hosts if len(self.cloud.hosts) > 1 else _twice(self.cloud.hosts[0])
        self.servers = [workers.Server(self.supervisor, host, _SERVICE, _TOPIC) for host in hosts]
        for server in self.servers:
            server.expect("ready", workers.READY_SECONDS)
        self.clients = [workers.Client(self.supervisor, host, _SERVICE) for host in hosts]
        self.listeners = [workers.Listener(self.supervisor, hosts[0], _SERVICE, [_SERVICE])]
        for worker in (*self.clients, *self.listeners):
            worker.expect("ready", workers.READY_SECONDS)
        if self.mesh.routers:
            self.mesh.wait_for_consumers(f"multicast/{_SERVICE}/{_TOPIC}", len(self.servers))

    def forget(self) -> None:
        """Make servers and listener forget the messages that they received."""
        receivers: list[workers.Receiver] = [*self.servers, *self.listeners]
        for receiver in receivers:
            receiver.forget()

    def kill(self, node: int) -> None:
        """End a node's intermediary as a crash does."""
        process = (self.mesh.routers or self.cluster.nodes)[node].process
        if process:
            self.supervisor.end(process, grace=0)

    def revive(self, node: int) -> None:
        """Start a node's intermediary again without waiting for it."""
        (self.mesh.routers or self.cluster.nodes)[node].start()

    def wait(self) -> None:
        """Wait until all intermediaries run and know each other."""
        if self.mesh.routers:
            for router in self.mesh.routers:
                router.wait()
            self.mesh.wait()
        else:
            self.cluster.wait(_BACK_SECONDS)

    def crowd(self, first: int, count: int) -> workers.Crowd:
        """Connect that many more clients to the first node, numbered from ``first``."""
        return workers.Crowd(self.supervisor, self.cloud, self.cloud.hosts[:1], first, count)

    @property
    def messaging(self) -> tuple[processes.Process, ...]:
        """The processes that carry RPC or notifications."""
        return tuple({*self.intermediaries, *self.stores})

    @property
    def _services(self) -> tuple[processes.Process, ...]:
        return tuple(worker.process for worker in (*self.servers, *self.clients, *self.listeners))

    def own(self) -> tuple[processes.Process, ...]:
        """Return every process of this side."""
        return (*self.messaging, *self._services)

    def end(self) -> None:
        """End all of it."""
        self.supervisor.end(*self.own(), grace=1)
        self.cluster.end()


def _edit(path: pathlib.Path, old: str, new: str) -> None:
    text = path.read_text()
    if text.count(old) != 1:
        raise errors.TestbedError(f"{path} is not as the benchmark expects: it does not contain {old!r} exactly once.")
    path.write_text(text.replace(old, new))


def _twice(host: overcloud.Host) -> collections.abc.Sequence[overcloud.Host]:
    hosts = []
    for number in (1, 2):
        node = dataclasses.replace(host.node, name=f"{host.name}-{number}")
        hosts.append(dataclasses.replace(host, node=node))
    return hosts


def settle(seconds: float) -> None:
    """Wait until work in progress has ended."""
    time.sleep(seconds)
