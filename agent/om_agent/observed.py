"""What the agent observed of routers, brokers and listeners; `om_agent.verify` judges it. Pure."""

from __future__ import annotations

import dataclasses
import typing

from om_agent import clients, errors

# The result of a login; the same words as in `om_agent.amqp`.
OPEN, REFUSED, SILENT, LOGIN, CERTIFICATE, CLOSED = "open", "refused", "silent", "login", "certificate", "closed"
UNASKED = "unasked"  # the agent could not try: proton is not installed


@dataclasses.dataclass(frozen=True)
class Connector:
    """A connector of a router, and its state.

    :param said: the router's last message about it.
    """

    name: str
    status: str
    said: str


@dataclasses.dataclass(frozen=True)
class RouterConnection:
    """A connection of a router to another router.

    :param container: the id of the other router.
    :param product: the program that the other router claims to be; '' when it does not say.
    """

    role: str
    direction: str
    host: str
    container: str
    product: str


@dataclasses.dataclass(frozen=True)
class RouterSeen:
    """What the agent observed of one router after it logged in.

    :param login: `OPEN`, or why the login failed.
    :param why: the reason in words; '' when the login succeeded.
    :param container: the id of the router.
    :param uptime: seconds since the router started.
    :param clients: connections except those of other routers and of the agent.
    :param dropped: pre-settled deliveries that the router dropped.
    :param reached: ids of the routers that it reaches, including its own.
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
    """What the agent observed of the routers.

    :param own: this node's router.
    :param drift: the differences between the running router and its file.
    :param views: the ids that each interior router reaches, by its own answer through the mesh; None when it did not
        answer.
    :param peers: what routers that are not reached answered when the agent asked them directly.
    :param links: (router, neighbour) for each link that a reached router reports; None when no router answered.
    :param services: the connections and links of services at this node's router.
    :param unknown: how many addresses of this router each other interior router has not learned, by name.
    """

    own: RouterSeen
    drift: tuple[str, ...] = ()
    views: typing.Mapping[str, frozenset[str] | None] = dataclasses.field(default_factory=dict)
    peers: typing.Mapping[str, RouterSeen] = dataclasses.field(default_factory=dict)
    links: frozenset[tuple[str, str]] | None = None
    services: clients.ServicesSeen | None = None
    unknown: typing.Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class BrokerSeen:
    """What the agent observed of the broker on this node.

    :param why: why the broker did not answer; '' when it did.
    :param versions: (member, version of its RabbitMQ), of the members that report one.
    :param flags: stable feature flags that are not enabled; a newer RabbitMQ may refuse to start without them.
    :param store: where the cluster keeps its metadata, ``Khepri`` or ``Mnesia``.
    :param unfit: (virtual host, queue, type) of queues that services now declare as another type.
    :param thin: (virtual host, queue, brokers without a copy) of quorum queues that could have more members.
    :param listeners: (address, port) of this node's AMQP 0-9-1 sockets.
    :param metrics: why the counts of queues and messages are missing; '' when they are there or were not wanted.
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
    """A listener that uses TLS, and the file with the certificate that it should show.

    :param half: ``router`` or ``broker``.
    :param file: the path in the server's own configuration.
    """

    half: str
    host: str
    port: int
    file: str


@dataclasses.dataclass(frozen=True)
class Probe:
    """One message that the agent sent and received again.

    :param half: ``rpc`` or ``notify``.
    :param to: the name of an interior router, or '' for the broker.
    :param path: the service's file that holds the URL.
    :param error: '' when the message came back.
    """

    half: str
    to: str
    path: str
    error: str = ""
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Seen:
    """Everything that the agent observed for one ``verify`` or ``status``.

    :param changes: what apply would change on disk, one line each.
    :param mesh: None when the node runs no router.
    :param broker: None when the node runs no broker.
    :param stale: listeners whose certificate differs from the one in their file.
    :param units: units of services that run without a connection to any broker, where calls go over brokers.
    :param findings: findings that were made while looking.
    """

    changes: tuple[str, ...] = ()
    mesh: MeshSeen | None = None
    broker: BrokerSeen | None = None
    stale: tuple[TlsListener, ...] = ()
    probes: tuple[Probe, ...] = ()
    units: tuple[clients.Unit, ...] = ()
    findings: tuple[errors.Problem, ...] = ()
