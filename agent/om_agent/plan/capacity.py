"""How many connections and descriptors, and how much memory, an overcloud of this size needs. Pure.

Every constant is measured: ``python -m testbed.footprint`` compares resident memory and descriptors, with qdrouterd
1.19.0, skrouterd 3.4.2 and RabbitMQ 3.10.8 and clients without TLS. Of the two engines, the larger value counts. The
constants are multiplied by the number of service processes on a node, which the operator can correct.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import typing

from om_agent import model
from om_agent.plan import policy, topology

# Descriptors that the router's unit (by our drop-in) and RabbitMQ's unit (by the distribution) allow.
ROUTER_DESCRIPTORS = 65536
BROKER_DESCRIPTORS = 65536

# Service processes that use messaging on one node, unless the operator names another number: workers of APIs and
# conductors on a controller, agents on a compute node.
PROCESSES = {"controller": 100, "compute": 6}
OTHER_PROCESSES = 6


@dataclasses.dataclass(frozen=True)
class Constants:
    """What one router or broker needs; bytes and counts.

    :param memory: what it needs without any client.
    :param descriptors: what it needs without any client.
    :param client_memory: what it needs for a service process with all its connections.
    :param client_connections: how many connections a service process opens.
    """

    memory: int
    descriptors: int
    client_memory: int
    client_connections: int


MIB = 1024 * 1024
KIB = 1024
ROUTER = Constants(memory=25 * MIB, descriptors=12, client_memory=150 * KIB, client_connections=1)
# A process that uses RabbitMQ for RPC and notifications has 6 connections with 4 or 5 queues. A process that uses it
# for notifications only has one connection and no queue.
RPC_BROKER = Constants(memory=140 * MIB, descriptors=34, client_memory=512 * KIB, client_connections=6)
NOTIFY_BROKER = Constants(memory=140 * MIB, descriptors=34, client_memory=47 * KIB, client_connections=1)
# A session and its link need 8.1 to 8.5 KiB for a sender and 9.6 to 10.0 KiB for a receiver, with both engines (the
# development router: 7.1 and 7.9 KiB). The driver keeps one link for every peer of the last 10 to 20 minutes.
LINK_MEMORY = 10 * KIB
# Every process outside the controllers calls the RPC workers of one service; within 20 minutes it calls each of them.
# So a worker answers at most half of all these processes: three of the six on a compute node belong to neutron.
WORKERS = 8
CALLERS_OF_ONE_SERVICE = 0.5
# With TLS, which routers always use with each other; fitted to meshes of 5 to 50 interior routers (doc/scale.rst).
INTER_ROUTER_MEMORY = 1386 * KIB
EDGE_MEMORY = 215 * KIB


@dataclasses.dataclass(frozen=True)
class Need:
    """What the busiest node of one kind needs.

    :param kind: ``interior``, ``edge`` or ``broker``.
    :param nodes: how many nodes of this kind there are.
    :param name: the name of the busiest node.
    :param clients: service processes connected to it.
    :param edges: connections of edge routers; each edge router has two.
    :param peers: connections with interior routers or brokers.
    :param links: links of service processes to the peers that they answer.
    :param memory: bytes.
    :param limit: how many descriptors its unit allows.
    """

    kind: str
    nodes: int
    name: str
    clients: int
    edges: int
    peers: int
    links: int
    connections: int
    descriptors: int
    memory: int
    limit: int


@dataclasses.dataclass(frozen=True)
class Size:
    """An overcloud of some size: what it needs, and which limits that exceeds.

    :param times: by how much the number of nodes without interior router or broker is multiplied.
    :param advice: a sentence for each limit.
    """

    times: int
    nodes: int
    needs: tuple[Need, ...]
    advice: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Load:
    """A deployment, the service processes on its nodes, and by how much its small nodes are multiplied."""

    deployment: model.Deployment
    processes: typing.Mapping[str, int]
    times: int

    def on(self, node: model.Node) -> int:
        """Return how many service processes one node has."""
        return self.processes.get(node.role, PROCESSES.get(node.role, OTHER_PROCESSES))

    def with_router(self, *modes: model.RouterMode) -> list[model.Node]:
        """Return the nodes with a router of one of these modes."""
        return [node for node in self.deployment.nodes if node.router in modes]

    @property
    def servers(self) -> set[str]:
        """The nodes that are not multiplied: those with an interior router or a broker."""
        interiors = {node.name for node in self.with_router(model.RouterMode.INTERIOR)}
        return interiors.union(*_clusters(self.deployment))

    @property
    def callers(self) -> int:
        """How many service processes there are on nodes without an interior router."""
        nodes = self.with_router(model.RouterMode.EDGE, model.RouterMode.NONE)
        return sum(map(self.on, nodes)) * self.times


def measure(deployment: model.Deployment, processes: typing.Mapping[str, int], times: int) -> Size:
    """Return what ``deployment`` needs with ``times`` as many nodes that run neither an interior router nor a broker.

    :param processes: service processes that use messaging, by role.
    """
    load = _Load(deployment, processes, times)
    own = [backend for backend in deployment.halves if not backend.external]
    used = {backend.scheme.record.server for backend in own}
    needs = [need for server in sorted(used, reverse=True) for need in _NEEDS[server](load)]
    servers = load.servers
    nodes = len(servers) + (len(deployment.nodes) - len(servers)) * times
    callers = load.callers if deployment.routed else 0
    return Size(times, nodes, tuple(needs), tuple(_advice(deployment, needs, callers)))


# -- routers ---------------------------------------------------------------------------------------------------------


def _routers(load: _Load) -> typing.Iterator[Need]:
    """Yield what the busiest interior router and the busiest edge router need."""
    needs = list(_interiors(load))
    yield max(needs, key=lambda need: need.memory)
    edges = load.with_router(model.RouterMode.EDGE)
    if edges:
        needs = [_edge(load, node, needs[0].nodes, len(edges)) for node in edges]
        yield max(needs, key=lambda need: need.memory)


def _interiors(load: _Load) -> typing.Iterator[Need]:
    links = topology.mesh(load.deployment).links
    uplinks = collections.Counter(link.target for link in links if link.uplink)
    ends = [(link.source, link.target) for link in links if not link.uplink]
    neighbours = collections.Counter(itertools.chain.from_iterable(ends))
    connections = load.deployment.router.engine.record.interior_connections
    interiors = load.with_router(model.RouterMode.INTERIOR)
    share = _share_of_interior(load, interiors)
    callers = load.callers
    for node in interiors:
        count = neighbours[node.name]
        peers = (count * connections, count * INTER_ROUTER_MEMORY)
        own = 0 if load.deployment.router.clients is model.Clients.MESH else load.on(node)
        edges = uplinks[node.name] * load.times
        yield _router("interior", len(interiors), node, own + share, edges, peers, callers * WORKERS)


def _share_of_interior(load: _Load, interiors: typing.Sequence[model.Node]) -> int:
    """Return how many service processes of other nodes are connected to one interior router.

    A client on a node without a router starts at a random interior router, so each of them has an equal share.
    """
    elsewhere = sum(map(load.on, load.with_router(model.RouterMode.NONE))) * load.times
    if load.deployment.router.clients is model.Clients.MESH:
        elsewhere += sum(map(load.on, interiors))
    return math.ceil(elsewhere / max(1, len(interiors)))


def _edge(load: _Load, node: model.Node, interiors: int, edges: int) -> Need:
    peers = (2, 2 * EDGE_MEMORY)
    clients = load.on(node)
    links = clients * WORKERS * interiors  # the workers on every controller also call the processes here
    return _router("edge", edges * load.times, node, clients, 0, peers, links)


def _router(
    kind: str, nodes: int, node: model.Node, clients: int, edges: int, peers: tuple[int, int], links: int
) -> Need:
    """Return what one router needs.

    :param peers: connections with interior routers, and the bytes that they need.
    """
    peer_connections, peer_memory = peers
    connections = clients * ROUTER.client_connections + edges + peer_connections
    memory = ROUTER.memory + clients * ROUTER.client_memory + edges * EDGE_MEMORY + peer_memory + links * LINK_MEMORY
    return Need(
        kind=kind,
        nodes=nodes,
        name=node.name,
        clients=clients,
        edges=edges,
        peers=peer_connections,
        links=links,
        connections=connections,
        descriptors=ROUTER.descriptors + connections,
        memory=memory,
        limit=ROUTER_DESCRIPTORS,
    )


# -- brokers ---------------------------------------------------------------------------------------------------------


def _clusters(deployment: model.Deployment) -> tuple[tuple[str, ...], ...]:
    """Return the names of the nodes of each cluster of brokers, once for each cluster."""
    clusters = [backend.nodes for backend in deployment.halves if backend.scheme.record.server == "broker"]
    return tuple(dict.fromkeys(filter(None, clusters)))


def _brokers(load: _Load) -> typing.Iterator[Need]:
    """Yield what a broker of each cluster needs."""
    deployment = load.deployment
    servers = load.servers
    on_servers = sum(load.on(node) for node in deployment.nodes if node.name in servers)
    on_others = sum(load.on(node) for node in deployment.nodes if node.name not in servers)
    processes = on_servers + on_others * load.times
    for names in _clusters(deployment):
        clients = math.ceil(processes / len(names))  # the driver starts at a random broker
        peers = len(names) - 1
        carries_rpc = deployment.rpc.scheme.record.server == "broker" and deployment.rpc.nodes == names
        constants = RPC_BROKER if carries_rpc else NOTIFY_BROKER
        connections = clients * constants.client_connections + peers
        yield Need(
            kind="broker",
            nodes=len(names),
            name=names[0],
            clients=clients,
            edges=0,
            peers=peers,
            links=0,
            connections=connections,
            descriptors=constants.descriptors + connections,
            memory=constants.memory + clients * constants.client_memory,
            limit=BROKER_DESCRIPTORS,
        )


# By what a kind of backend calls its server.
_NEEDS: typing.Mapping[str, typing.Callable[[_Load], typing.Iterator[Need]]] = {"router": _routers, "broker": _brokers}

_MORE_DESCRIPTORS = {
    "interior": "add interior routers, or raise LimitNOFILE in the drop-in of the router's unit",
    "edge": "raise LimitNOFILE in the drop-in of the router's unit",
    "broker": "add brokers, put RPC on routers, or raise LimitNOFILE of rabbitmq-server.service",
}


def _advice(deployment: model.Deployment, needs: typing.Sequence[Need], callers: int) -> typing.Iterator[str]:
    for need in needs:
        if need.descriptors > need.limit:
            place = f"{need.name} ({need.kind})"
            remedy = _MORE_DESCRIPTORS[need.kind]
            yield f"{need.descriptors} descriptors on {place}, and {need.limit} are allowed: {remedy}"
    sessions = math.ceil(callers * CALLERS_OF_ONE_SERVICE)
    if sessions > policy.SESSIONS:
        yield (
            f"{sessions} sessions on one connection of a busy service, and {policy.SESSIONS} are possible: "
            "lower [oslo_messaging_amqp] default_sender_link_timeout of the services on controllers"
        )
    count = len(model.interiors(deployment)) if model.may_have_peers(deployment) else 0
    if count > model.MAX_INTERIORS * 3 // 4:
        yield f"{count} of at most {model.MAX_INTERIORS} interior routers: let more roles run edge routers"
