"""How many connections, descriptors and how much memory an overcloud of this size needs; pure.

Every constant is measured: differences of resident memory and descriptors by ``python -m testbed.footprint`` with
qdrouterd 1.19.0, skrouterd 3.4.2 and RabbitMQ 3.10.8, clients without TLS, the larger one of the two engines. What they
are multiplied with, service processes a node, is for the operator to correct.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import typing

from om_agent import model
from om_agent.plan import policy, topology

# Descriptors that the drop-in of the router's unit allows, and the distributions' unit of RabbitMQ.
ROUTER_DESCRIPTORS = 65536
BROKER_DESCRIPTORS = 65536

# Service processes that use messaging on one node, unless told: workers of APIs and conductors on a controller, agents
# on a compute.
PROCESSES = {"controller": 100, "compute": 6}
OTHER_PROCESSES = 6


@dataclasses.dataclass(frozen=True)
class Constants:
    """What one program needs; bytes and counts.

    :param memory: of itself.
    :param descriptors: of itself.
    :param client_memory: for a service process with all its connections.
    :param client_connections: that a service process makes.
    """

    memory: int
    descriptors: int
    client_memory: int
    client_connections: int


MIB = 1024 * 1024
KIB = 1024
ROUTER = Constants(memory=25 * MIB, descriptors=12, client_memory=150 * KIB, client_connections=1)
# A process that speaks RPC over RabbitMQ and notifies has 6 connections, 4 or 5 queues behind them; one that only
# notifies has a bare one.
RPC_BROKER = Constants(memory=140 * MIB, descriptors=34, client_memory=512 * KIB, client_connections=6)
NOTIFY_BROKER = Constants(memory=140 * MIB, descriptors=34, client_memory=47 * KIB, client_connections=1)
# A session and its link: 8.1 to 8.5 KiB for a sender, 9.6 to 10.0 for a receiver, with both engines (the development
# router: 7.1 and 7.9). The driver keeps one for every peer of the last 10 to 20 minutes.
LINK_MEMORY = 10 * KIB
# Every process outside the controllers calls the RPC workers of one service, and within 20 minutes it calls each of
# them. So a worker answers at most half of all these processes: three of a compute's six belong to neutron.
WORKERS = 8
CALLERS_OF_ONE_SERVICE = 0.5
# With TLS, which routers always speak with each other: fitted to meshes of 5 to 50 interiors (doc/scale.rst).
INTER_ROUTER_MEMORY = 1386 * KIB
EDGE_MEMORY = 215 * KIB


@dataclasses.dataclass(frozen=True)
class Need:
    """What the busiest node of one kind needs.

    :param kind: ``interior``, ``edge`` or ``broker``.
    :param nodes: how many there are of this kind.
    :param name: of the busiest.
    :param clients: service processes connected to it.
    :param edges: edge routers connected to it, both uplinks of each counted.
    :param peers: connections with interior routers or brokers.
    :param links: of service processes to the peers that they answer.
    :param memory: bytes.
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
    """An overcloud of some size: its needs, and what they run into.

    :param times: how many times as many nodes without interior router or broker as there are.
    """

    times: int
    nodes: int
    needs: tuple[Need, ...]
    advice: tuple[str, ...]


def measure(deployment: model.Deployment, processes: typing.Mapping[str, int], times: int) -> Size:
    """Return what ``d`` needs with ``times`` as many nodes that run neither an interior router nor a broker.

    :param processes: service processes that use messaging, by role.
    """
    needs = [*_routers(deployment, processes, times), *_brokers(deployment, processes, times)]
    servers = {n.name for n in deployment.nodes if n.router is model.RouterMode.INTERIOR} | _broker_names(deployment)
    nodes = len(servers) + (len(deployment.nodes) - len(servers)) * times
    callers = _callers(deployment, processes, times) if deployment.routed else 0
    return Size(times, nodes, tuple(needs), tuple(_advice(deployment, needs, callers)))


def _processes(node: model.Node, processes: typing.Mapping[str, int]) -> int:
    return processes.get(node.role, PROCESSES.get(node.role, OTHER_PROCESSES))


def _routers(deployment: model.Deployment, processes: typing.Mapping[str, int], times: int) -> typing.Iterator[Need]:
    if not deployment.routed:
        return
    mesh = topology.mesh(deployment)
    uplinks = collections.Counter(link.target for link in mesh.links if link.uplink)
    peers = collections.Counter(n for x in mesh.links if not x.uplink for n in (x.source, x.target))
    interiors = [n for n in deployment.nodes if n.router is model.RouterMode.INTERIOR]
    # Clients of nodes without a router start at a random interior one: a fair share each.
    elsewhere = sum(_processes(n, processes) * times for n in deployment.nodes if n.router is model.RouterMode.NONE)
    if deployment.router.clients is model.Clients.MESH:
        elsewhere += sum(_processes(n, processes) for n in interiors)
    share = math.ceil(elsewhere / max(1, len(interiors)))
    callers = _callers(deployment, processes, times)

    def interior(node: model.Node) -> Need:
        own = 0 if deployment.router.clients is model.Clients.MESH else _processes(node, processes)
        each = deployment.router.engine.record.interior_connections
        peer = (peers[node.name] * each, peers[node.name] * INTER_ROUTER_MEMORY)
        links = callers * WORKERS
        return _router("interior", len(interiors), node, own + share, uplinks[node.name] * times, peer, links)

    yield max((interior(n) for n in interiors), key=lambda need: need.memory)
    edges = [n for n in deployment.nodes if n.router is model.RouterMode.EDGE]
    if edges:
        peer = (2, 2 * EDGE_MEMORY)
        # What runs here is called by the same workers in its turn.
        links = {n.name: _processes(n, processes) * WORKERS * len(interiors) for n in edges}
        found = (
            _router("edge", len(edges) * times, n, _processes(n, processes), 0, peer, links[n.name]) for n in edges
        )
        yield max(found, key=lambda need: need.memory)


def _callers(deployment: model.Deployment, processes: typing.Mapping[str, int], times: int) -> int:
    """Return how many service processes there are on nodes without an interior router."""
    return sum(_processes(n, processes) * times for n in deployment.nodes if n.router is not model.RouterMode.INTERIOR)


def _router(
    kind: str, nodes: int, node: model.Node, clients: int, edges: int, peers: tuple[int, int], links: int
) -> Need:
    """Return what one router needs; ``peers`` are connections and bytes."""
    connections = clients * ROUTER.client_connections + edges + peers[0]
    return Need(
        kind=kind,
        nodes=nodes,
        name=node.name,
        clients=clients,
        edges=edges,
        peers=peers[0],
        links=links,
        connections=connections,
        descriptors=ROUTER.descriptors + connections,
        memory=ROUTER.memory + clients * ROUTER.client_memory + edges * EDGE_MEMORY + peers[1] + links * LINK_MEMORY,
        limit=ROUTER_DESCRIPTORS,
    )


def _broker_names(deployment: model.Deployment) -> set[str]:
    return {n for b in deployment.halves if b.scheme is model.Scheme.RABBIT for n in b.nodes}


def _brokers(deployment: model.Deployment, processes: typing.Mapping[str, int], times: int) -> typing.Iterator[Need]:
    servers = _broker_names(deployment) | {n.name for n in deployment.nodes if n.router is model.RouterMode.INTERIOR}
    total = sum(_processes(n, processes) * (1 if n.name in servers else times) for n in deployment.nodes)
    clusters = dict.fromkeys(b.nodes for b in deployment.halves if b.scheme is model.Scheme.RABBIT and b.nodes)
    for names in clusters:
        clients = math.ceil(total / len(names))  # the driver starts at a random one
        peers = len(names) - 1
        carries_rpc = deployment.rpc.scheme is model.Scheme.RABBIT and deployment.rpc.nodes == names
        each = RPC_BROKER if carries_rpc else NOTIFY_BROKER
        connections = clients * each.client_connections + peers
        yield Need(
            kind="broker",
            nodes=len(names),
            name=names[0],
            clients=clients,
            edges=0,
            peers=peers,
            links=0,
            connections=connections,
            descriptors=each.descriptors + connections,
            memory=each.memory + clients * each.client_memory,
            limit=BROKER_DESCRIPTORS,
        )


def _advice(deployment: model.Deployment, needs: list[Need], callers: int) -> typing.Iterator[str]:
    for need in needs:
        if need.descriptors > need.limit:
            remedy = {
                "interior": "add interior routers, or raise LimitNOFILE in the drop-in of the router's unit",
                "edge": "raise LimitNOFILE in the drop-in of the router's unit",
                "broker": "add brokers, put RPC on routers, or raise LimitNOFILE of rabbitmq-server.service",
            }[need.kind]
            yield f"{need.descriptors} descriptors on {need.name} ({need.kind}), and {need.limit} are allowed: {remedy}"
    sessions = math.ceil(callers * CALLERS_OF_ONE_SERVICE)
    if sessions > policy.SESSIONS:
        yield (
            f"{sessions} sessions on one connection of a busy service, and {policy.SESSIONS} are possible: "
            "lower [oslo_messaging_amqp] default_sender_link_timeout of the services on controllers"
        )
    count = len(model.interiors(deployment)) if model.may_have_peers(deployment) else 0
    if count > model.MAX_INTERIORS * 3 // 4:
        yield f"{count} of at most {model.MAX_INTERIORS} interior routers: let more roles run edge routers"
