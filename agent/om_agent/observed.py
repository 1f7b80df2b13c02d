"""What was seen of routers, brokers and listeners, as `om_agent.verify` judges it. Pure."""

from __future__ import annotations

import dataclasses
import typing

from om_agent import clients, errors

# How a socket or a login answered; the same words as `om_agent.amqp` has.
OPEN, REFUSED, SILENT, LOGIN, CERTIFICATE, CLOSED = "open", "refused", "silent", "login", "certificate", "closed"
UNASKED = "unasked"  # there is nothing here to ask with: no proton


@dataclasses.dataclass(frozen=True)
class Connector:
    """A connector of a router, and what became of it.

    :param said: the router's last words about it.
    """

    name: str
    status: str
    said: str


@dataclasses.dataclass(frozen=True)
class RouterConnection:
    """A connection of a router to another one.

    :param container: the id that the other one has.
    :param product: which program the other one says it is, '' when it does not.
    """

    role: str
    direction: str
    host: str
    container: str
    product: str


@dataclasses.dataclass(frozen=True)
class RouterSeen:
    """What was seen of one router by logging in to it.

    :param login: `OPEN`, or why there was none.
    :param container: the id that it has.
    :param reached: ids that it reaches, itself among them.
    :param clients: connections that are neither other routers nor this program.
    """

    login: str
    why: str = ""
    container: str = ""
    product: str = ""
    version: str = ""
    uptime: int = 0
    clients: int = 0
    links: int = 0
    addresses: int = 0
    dropped: int = 0
    reached: frozenset[str] = frozenset()
    connectors: tuple[Connector, ...] = ()
    connections: tuple[RouterConnection, ...] = ()


@dataclasses.dataclass(frozen=True)
class MeshSeen:
    """What was seen of the routers.

    :param own: this node's.
    :param drift: in what the running router differs from its file.
    :param views: which ids each interior says it reaches, asked through the mesh; None when it gave no answer.
    :param services: what the services that are connected to this node's router have.
    :param links: (router, neighbour) as the routers' link states say, of those that are reached; None when nobody told.
    :param peers: those that are not reached, asked directly.
    :param unknown: by the name of another interior, how many addresses of this router it lacks.
    """

    own: RouterSeen
    drift: tuple[str, ...] = ()
    views: typing.Mapping[str, frozenset[str] | None] = dataclasses.field(default_factory=dict)
    peers: typing.Mapping[str, RouterSeen] = dataclasses.field(default_factory=dict)
    links: frozenset[tuple[str, str]] | None = None
    services: clients.Seen | None = None
    unknown: typing.Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class BrokerSeen:
    """What was seen of the broker on this node.

    :param why: it cannot be asked; '' when it was.
    :param versions: (member, its RabbitMQ's version), of those that tell.
    :param flags: stable feature flags that are not enabled; a newer RabbitMQ may refuse to start without them.
    :param store: where the cluster keeps its metadata, ``Khepri`` or ``Mnesia``.
    :param unfit: (virtual host, queue, type) of queues that services declare as another type by now.
    :param thin: (virtual host, queue, brokers that lack it) of quorum queues that could have more members.
    :param listeners: (address, port) of this node's AMQP 0-9-1 sockets.
    :param metrics: why its counts cannot be had, where they were asked for; '' when they were had.
    :param metrics_at: address and port of its metrics.
    """

    why: str = ""
    version: str = ""
    members: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    flags: tuple[str, ...] = ()
    store: str = "Mnesia"
    unfit: tuple[tuple[str, str, str], ...] = ()
    thin: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    listeners: tuple[tuple[str, int], ...] = ()
    queues: int | None = None
    messages: int | None = None
    metrics: str = ""
    metrics_at: str = ""


@dataclasses.dataclass(frozen=True)
class TlsListener:
    """A listener that speaks TLS, and the file with the certificate that it has to show.

    :param half: ``router`` or ``broker``.
    :param file: as the server's own configuration names it.
    """

    half: str
    host: str
    port: int
    file: str


@dataclasses.dataclass(frozen=True)
class Probe:
    """One message there and back.

    :param half: ``rpc`` or ``notify``.
    :param to: an interior router's name, or '' for the broker.
    :param path: the service's file that named the URL.
    :param error: '' when it came back.
    """

    half: str
    to: str
    path: str
    error: str = ""
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Seen:
    """Everything that was looked at.

    :param changes: what apply would change on disk, a line each.
    :param mesh: None when the node runs no router.
    :param broker: None when the node runs no broker.
    :param stale: those that show another certificate than the one in their file.
    :param units: of services, that run and have no connection to any broker, where calls go over one.
    :param findings: what came up while looking.
    """

    changes: tuple[str, ...] = ()
    mesh: MeshSeen | None = None
    broker: BrokerSeen | None = None
    stale: tuple[TlsListener, ...] = ()
    probes: tuple[Probe, ...] = ()
    units: tuple[clients.Unit, ...] = ()
    findings: tuple[errors.Problem, ...] = ()
