"""The typed deployment: what the metadata says, as frozen dataclasses, and questions that it answers.

Pure: no I/O, no clock, no environment. After `om_agent.parse` nothing in the agent sees a raw dict again.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import hmac
import typing

from om_agent import backends, engines, errors, fields, kinds
from om_agent.engines import record

# The ports of design.md; 25672, 4369 and 15692 are RabbitMQ's own (https://www.rabbitmq.com/docs/networking#ports).
AMQP_PORT = backends.RECORDS["amqp"].port
INTER_ROUTER_PORT = 31460
EDGE_PORT = 31461
ROUTER_HTTP_PORT = 31462
RABBIT_PORT = backends.RECORDS["rabbit"].port
RABBIT_DIST_PORT = 25672
RABBIT_METRICS_PORT = 15692
EPMD_PORT = 4369

ADMIN_USER = "router-admin"  # with which the agent manages a running router
CLIENT_FILES = ("client_certificate_file", "client_key_file")  # keys of a half
MESH_FILES = ("mesh_ca_file", "mesh_certificate_file", "mesh_key_file")  # keys of ``router``
MAX_INTERIORS = 128  # qpid-dispatch 1.19 src/bitmask.c:27-28
MAX_COST = 1000  # of links within sites and of links between them, which are multiplied; the engines take more


class Scheme(enum.Enum):
    """What carries a half; the value is the transport URL's scheme."""

    RABBIT = "rabbit"
    AMQP = "amqp"

    @property
    def record(self) -> backends.Record:
        """What is true of this kind of backend and of no other."""
        return backends.RECORDS[self.value]


class Engine(enum.Enum):
    """Which router program runs."""

    QDROUTERD = "qdrouterd"
    SKROUTERD = "skrouterd"
    EMBEDDED = "embedded"

    @property
    def record(self) -> record.Record:
        """What is true of this program and of no other."""
        return engines.RECORDS[self.value]


class Mechanism(enum.Enum):
    """How services log in, as SASL calls it."""

    PLAIN = "PLAIN"
    SCRAM = "SCRAM-SHA-256"
    EXTERNAL = "EXTERNAL"


class TlsVersion(enum.Enum):
    """A version of TLS, oldest first."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


class RouterMode(enum.Enum):
    """What the router on a node is for, or that there is none; the values are those of ``router.roles``."""

    INTERIOR = "interior"
    EDGE = "edge"
    NONE = "none"


class Queues(enum.Enum):
    """Of which kind the queues of the brokers are.

    ``CLASSIC`` queues are on one broker; ``MIRRORED`` are classic queues with copies on others, by a policy.
    """

    MIRRORED = "mirrored"
    QUORUM = "quorum"
    CLASSIC = "classic"


class Delivery(enum.Enum):
    """Which RPC messages a service waits for until their receiver has them."""

    CALLS = "acknowledged_calls"  # calls and answers
    ALL = "acknowledged"
    CALLS_ONLY = "pre_settled"  # calls alone, as oslo.messaging's stock does


class Clients(enum.Enum):
    """Which routers a node's services connect to."""

    LOCAL = "local"
    MESH = "mesh"


@dataclasses.dataclass(frozen=True)
class Secret:
    """A text that must not be shown; only `reveal` gives it, so that every use can be found by name."""

    _value: str = dataclasses.field(repr=False)

    def reveal(self) -> str:
        """Return the text itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__


NO_SECRET = Secret("")  # in place of a secret that is not given


@dataclasses.dataclass(frozen=True)
class Node:
    """An overcloud host.

    :param name: what the metadata calls it; compared whole.
    :param address: where its own router and broker listen: IP address or host name.
    :param host: what clients put into a transport URL.
    :param role: ``controller``, ``compute`` or any other word.
    :param site: where it stands; '' when the metadata does not say.
    :param router: what its router is for, if the overcloud's RPC or notifications use routers of its own at all.
    """

    name: str
    address: str
    host: str
    role: str
    site: str
    router: RouterMode


@dataclasses.dataclass(frozen=True)
class SiteLink:
    """Two sites that routers connect, and what a message's way between them costs."""

    between: tuple[str, str]
    cost: int


@dataclasses.dataclass(frozen=True)
class Account:
    """Somebody who may log in."""

    username: str
    password: Secret


@dataclasses.dataclass(frozen=True)
class Backend:
    """What carries one half, ``rpc`` or ``notify``.

    :param hosts: hosts of the transport URL, in order.
    :param nodes: names of the nodes that run it; empty for an external one.
    :param password: '' with `Mechanism.EXTERNAL`.
    :param client_files: paths of certificate and key that services log in with; empty unless they do.
    :param also_accept: other users that may log in while the password is changed.
    """

    half: str
    scheme: Scheme
    port: int
    username: str
    password: Secret
    virtual_host: str
    tls: bool
    hosts: tuple[str, ...]
    nodes: tuple[str, ...]
    mechanism: Mechanism = Mechanism.PLAIN
    client_files: tuple[str, ...] = ()
    also_accept: tuple[Account, ...] = ()

    @property
    def accounts(self) -> dict[str, Account]:
        """Who may log in, by the key of the metadata; the user of the transport URL first."""
        others = {f"{self.half}.also_accept[{i}]": account for i, account in enumerate(self.also_accept)}
        return {self.half: Account(self.username, self.password), **others}

    @property
    def external(self) -> bool:
        """True when somebody else runs it."""
        return not self.nodes


@dataclasses.dataclass(frozen=True)
class Router:
    """Settings of every router; seconds and counts.

    :param http_port: 0 for no HTTP listener.
    :param max_links: to interiors of its own site that an interior has at most, once a full mesh would be too many.
    :param link_cost: how many more messages must wait here than beyond a link before *balanced* sends one over it.
    :param require_redundancy: whether a mesh that one loss would partition is refused.
    :param mesh_files: CA, certificate and key, of the operator's own, that routers show to each other; empty when they
        are made from ``mesh_password``.
    """

    engine: Engine
    clients: Clients
    inter_router_port: int
    max_connections: int
    edge_port: int
    http_port: int
    max_links: int
    require_redundancy: bool
    worker_threads: int
    link_cost: int
    link_capacity: int
    idle_timeout: int
    tls: bool
    mesh_password: Secret
    mesh_files: tuple[str, ...]
    admin_password: Secret


@dataclasses.dataclass(frozen=True)
class Broker:
    """Settings of every broker.

    :param queues: None for what the RabbitMQ on the node suggests.
    :param queue_manager: whether services name their queues for answers after host and program.
    :param distribution_tls: whether brokers, and rabbitmqctl, speak TLS to each other, both sides with a certificate.
    """

    cluster: bool
    erlang_cookie: Secret
    dist_port: int
    metrics_port: int
    queues: Queues | None
    queue_manager: bool
    tls: bool
    distribution_tls: bool


@dataclasses.dataclass(frozen=True)
class Tls:
    """Certificates: paths on the node, or PEM text that the agent writes there. Empty means not given.

    :param ciphers: of TLS 1.2, as OpenSSL calls them, the best first; empty for what the engines take by themselves.
    """

    ca_file: str
    certificate_file: str
    key_file: str
    ca: str
    certificate: str
    key: Secret
    min_version: TlsVersion
    ciphers: tuple[str, ...]

    @property
    def versions(self) -> tuple[TlsVersion, ...]:
        """The versions that may be spoken, oldest first."""
        known = list(TlsVersion)
        return tuple(known[known.index(self.min_version) :])

    @property
    def has_certificate(self) -> bool:
        """True when a server can be run with it."""
        return bool((self.certificate_file and self.key_file) or (self.certificate and self.key.reveal()))

    @property
    def has_ca(self) -> bool:
        """True when peers can be verified with more than the system's own authorities."""
        return bool(self.ca_file or self.ca)


class Oslo(typing.NamedTuple):
    """Settings of the services' oslo.messaging other than the URLs; times are in seconds."""

    notification_driver: str
    delivery: Delivery
    rpc_response_timeout: int | None
    amqp_idle_timeout: int
    rabbit_heartbeat: int


@dataclasses.dataclass(frozen=True)
class Deployment:
    """The whole overcloud's messaging, as every node understands it."""

    rpc: Backend
    notify: Backend
    router: Router
    broker: Broker
    tls: Tls
    oslo: Oslo
    nodes: tuple[Node, ...]
    site_links: tuple[SiteLink, ...]
    node: str
    services: tuple[str, ...] | None
    findings: tuple[errors.Problem, ...]

    @property
    def halves(self) -> tuple[Backend, Backend]:
        """RPC first, then notifications."""
        return (self.rpc, self.notify)

    @property
    def servers(self) -> dict[str, Router | Broker]:
        """Settings of what runs on nodes, by what a kind of backend calls it."""
        return {"router": self.router, "broker": self.broker}

    def carried_by(self, node: Node, scheme: Scheme) -> tuple[Backend, ...]:
        """Return the halves of ``scheme`` that ``node`` runs a router, interior or edge, or a broker for."""
        if scheme is Scheme.AMQP:
            return self.routed if node.router is not RouterMode.NONE else ()
        return tuple(b for b in self.halves if b.scheme is scheme and node.name in b.nodes)

    @property
    def routed(self) -> tuple[Backend, ...]:
        """The halves that routers of this overcloud carry."""
        return tuple(b for b in self.halves if b.scheme is Scheme.AMQP and not b.external)

    def by_name(self) -> dict[str, Node]:
        """Return the nodes by name."""
        return {n.name: n for n in self.nodes}


def derive(secret: Secret, purpose: str) -> str:
    """Return a secret for ``purpose`` made from another one: 64 hexadecimal digits, the same on every node."""
    return hmac.new(secret.reveal().encode(), purpose.encode(), hashlib.sha256).hexdigest()


def site_name(site: str) -> str:
    """Return a site as a message names it."""
    return errors.quoted(site) if site else "the nodes without a site"


def sockets(d: Deployment, name: str) -> tuple[tuple[int, str], ...]:
    """Return (port, what listens there, as a metadata path) for everything that this project starts on a node."""
    node = d.by_name()[name]
    found: list[tuple[int, str]] = []
    amqp, rabbit = d.carried_by(node, Scheme.AMQP), d.carried_by(node, Scheme.RABBIT)
    found += {b.port: (b.port, f"{b.half}.port") for b in reversed(amqp)}.values()
    if amqp and d.router.http_port:
        found.append((d.router.http_port, "router.http_port"))
    if amqp and may_have_peers(d) and node.router is RouterMode.INTERIOR:
        found.append((d.router.inter_router_port, "router.inter_router_port"))
        if d.router.clients is Clients.LOCAL:
            found.append((d.router.edge_port, "router.edge_port"))
    found += {b.port: (b.port, f"{b.half}.port") for b in reversed(rabbit)}.values()
    if rabbit:
        found.append((d.broker.dist_port, "broker.dist_port"))
        found.append((d.broker.metrics_port, "broker.metrics_port"))
        found.insert(0, (EPMD_PORT, "Erlang's port mapper"))  # first: a collision is reported at the other port's key
    return tuple(found)


def may_have_peers(d: Deployment) -> bool:
    """Return whether routers can have peers, now or after a change of the deployment that restarts none of them."""
    return d.router.engine.record.meshes


def interiors(d: Deployment) -> tuple[str, ...]:
    """Return the names of the nodes that run an interior router, in the order of the metadata."""
    return next((b.nodes for b in d.routed), ())


def node_of_host(d: Deployment, hostname: str) -> Node:
    """Return the node that is the machine called ``hostname``: by its whole name, else by its name up to the first dot.

    :raises om_agent.errors.InvalidInput: when no node is, or when two nodes may be it.
    """
    short = fields.first_label(hostname)
    whole = [n for n in d.nodes if fields.host_key(n.name) == fields.host_key(hostname)]
    alike = [n.name for n in d.nodes if fields.first_label(n.name) == short]
    if not whole and len(alike) > 1:
        names = errors.listed([errors.quoted(n) for n in alike], 4)
        raise errors.InvalidInput([kinds.problem("node", "ambiguous-node", host=errors.quoted(hostname), names=names)])
    return local_node(d, [hostname, short])


def local_node(d: Deployment, names: typing.Sequence[str]) -> Node:
    """Return the first node called, as a whole name, one of ``names``. DNS ignores case, so case does not matter.

    :raises om_agent.errors.InvalidInput: when none is.
    """
    by_key = {fields.host_key(n.name): n for n in d.nodes}
    for name in names:
        if fields.host_key(name) in by_key:
            return by_key[fields.host_key(name)]
    raise errors.InvalidInput([kinds.problem("node", "not-in-nodes", name=errors.quoted(names[0] if names else ""))])
