"""Looking at the routers of a mesh: this node's own, and by way of it the others."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import typing

from om_agent import (
    amqp,
    clients,
    connections,
    errors,
    model,
    observed,
    picture,
    resync,
    verify,
)
from om_agent.apply import live_router, router_difference
from om_agent.plan import router, topology

PEER_SECONDS = 3.0
_MOST_ADDRESSES = 20_000  # that are compared with those of every other interior, in each look
_MOST_PEERS = 8  # that are asked directly, why they are not reached; the sentences are the same for more


def mesh(
    deployment: model.Deployment,
    router_plan: router.RouterPlan,
    config: bytes | None,
    root: pathlib.Path,
    units: typing.Sequence[clients.Unit] = (),
) -> observed.MeshSeen:
    """Return what the routers say.

    :param config: the content of this router's file.
    :param units: of services, that should be connected.
    """
    try:
        with live_router.connect(router_plan, live_router.read_drained_port(root)) as client, _management():
            own = _router(client)
            if router_plan.engine.record.product not in own.product:
                return observed.MeshSeen(own)
            drift = _drift(router_plan, config, client)
            tables = _tables(router_plan, client)
            services = _services(deployment, router_plan, client, own.uptime, units)
            lacking = resync.missing(client, router_plan) if own.addresses <= _MOST_ADDRESSES else {}
    except errors.NotReady as e:
        return observed.MeshSeen(observed.RouterSeen(observed.UNASKED, str(e)))
    except amqp.Unreachable as e:
        return observed.MeshSeen(observed.RouterSeen(e.kind, e.why))
    except errors.Unreachable as e:  # it answers, and not as it should
        return observed.MeshSeen(observed.RouterSeen(observed.CLOSED, str(e)))
    views = {name: None if rows is None else verify.reachable(rows, name) for name, rows in tables.items()}
    links = next((verify.links(rows, name) for name, rows in tables.items() if rows is not None), None)
    unknown = {name: len(addresses) for name, addresses in lacking.items()}
    found = observed.MeshSeen(own, drift, views, links=links, services=services, unknown=unknown)
    missing = [
        name
        for name in router_plan.interiors
        if name not in verify.reached_interiors(router_plan, found) and name != router_plan.node.name
    ]
    return dataclasses.replace(
        found, peers={name: _peer(deployment, router_plan, name) for name in missing[:_MOST_PEERS]}
    )


@contextlib.contextmanager
def _management() -> typing.Iterator[None]:
    """Treat an answer that cannot be read as no answer. Another program may listen there.

    :raises om_agent.errors.Unreachable: for such an answer.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise errors.Unreachable("What it answers is not what a router's management says.") from None


def _services(
    deployment: model.Deployment,
    router_plan: router.RouterPlan,
    client: amqp.Client,
    uptime: int,
    units: typing.Sequence[clients.Unit],
) -> clients.ServicesSeen:
    try:
        return connections.look(deployment, router_plan, client, uptime, units)
    except errors.Unreachable as e:
        return clients.ServicesSeen(why=str(e).rstrip("."))


def _router(client: amqp.Client) -> observed.RouterSeen:
    """Return what a router says of itself."""
    dialect = client.login.engine.record
    product = client.product
    if dialect.product not in product:
        return observed.RouterSeen(observed.OPEN, container=client.container, product=product)
    (counts,) = client.query(dialect.statistics)[:1] or ({},)
    connections = client.query("connection")
    nodes = client.query("router.node")
    connectors = client.query("connector") if dialect.changes else []
    return observed.RouterSeen(
        observed.OPEN,
        container=client.container,
        product=product,
        version=product.rpartition(" ")[2],
        uptime=int(counts.get("uptimeSeconds") or 0),
        clients=sum(amqp.is_client(row) for row in connections),
        links=int(counts.get("linkCount") or 0),
        addresses=int(counts.get("addrCount") or 0),
        dropped=int(counts.get("droppedPresettledDeliveries") or 0),
        reached=verify.reachable(nodes, client.container),
        connectors=tuple(
            observed.Connector(str(row["name"]), str(row.get("connectionStatus")), str(row.get("connectionMsg") or ""))
            for row in connectors
        ),
        connections=tuple(
            _connection(row) for row in connections if not amqp.is_client(row) and row["role"] != "normal"
        ),
    )


def _connection(row: amqp.Row) -> observed.RouterConnection:
    told = row.get("properties") or {}
    product = " ".join(str(told[k]) for k in ("product", "version") if k in told)
    return observed.RouterConnection(
        str(row["role"]), str(row["dir"]), str(row["host"]), str(row.get("container") or ""), product
    )


def _drift(router_plan: router.RouterPlan, config: bytes | None, client: amqp.Client) -> tuple[str, ...]:
    entities = live_router.entities(config)
    if entities is None or not router_plan.engine.record.changes:
        return ()
    found = router_difference.drift(router_plan, entities, client)
    return (*map(str, found.steps), *found.obstacles)


def _tables(router_plan: router.RouterPlan, client: amqp.Client) -> dict[str, list[amqp.Row] | None]:
    """Return the rows of ``router.node`` of every interior that is reached; an edge router asks through its uplink.

    This router's own come first; None of one that gave no answer.
    """
    found: dict[str, list[amqp.Row] | None] = {}
    known = frozenset(router_plan.interiors)  # until one of them has said which it reaches
    if router_plan.mode != "edge":
        found[router_plan.node.name] = client.query("router.node")
        known = verify.reachable(found[router_plan.node.name] or (), router_plan.node.name)
    for name in router_plan.interiors:
        if name in found or name not in known:
            continue
        found[name] = None
        with contextlib.suppress(errors.Unreachable):
            rows = client.query("router.node", router=name)
            found[name] = rows
            if router_plan.mode == "edge":
                known &= verify.reachable(rows, name)
    return found


def _peer(deployment: model.Deployment, router_plan: router.RouterPlan, name: str) -> observed.RouterSeen:
    """Ask a router directly, which every node's agent may."""
    node = deployment.by_name()[name]
    try:
        with amqp.Client(
            live_router.login(router_plan, (node.host, router_plan.listener[1]), host=node.host), PEER_SECONDS
        ) as client:
            return _router(client)
    except amqp.Unreachable as e:
        return observed.RouterSeen(e.kind, e.why)
    except errors.Unreachable as e:
        return observed.RouterSeen(observed.CLOSED, str(e))


def live(router_plan: router.RouterPlan, planned: topology.Mesh, root: pathlib.Path) -> picture.Live:
    """Return what is up of a mesh, as its interior routers say, asked through this node's.

    :raises om_agent.errors.Unreachable: when this node's router cannot be asked.
    """
    routers = dict.fromkeys((n.name for n in planned.interiors), picture.DOWN)
    found: set[tuple[str, str]] = set()
    with live_router.connect(router_plan, live_router.read_drained_port(root)) as client:
        known = set(routers)  # until one of them has said which it reaches
        for name in sorted(routers, key=lambda name: name != client.container):
            if name not in known:
                continue
            asked = "" if name == client.container else name
            with contextlib.suppress(errors.Unreachable):
                rows = client.query("router.node", router=asked)
                edges = [row for row in client.query("connection", router=asked) if row["role"] == "edge"]
                known &= verify.reachable(rows, name)
                routers[name] = picture.UP
                found |= {(str(row["id"]), name) for row in rows if row.get("routerLink") is not None}
                found |= {(str(row["container"]), name) for row in edges if row.get("opened")}
    links = {}
    for link in planned.links:
        ends = (link.source, link.target)
        if ends in found or ends[::-1] in found:
            links[ends] = picture.UP
        elif routers[link.target] == picture.UP and routers.get(link.source) != picture.DOWN:
            links[ends] = picture.DOWN
    for edge in planned.edges:
        told = {links.get(ends) for ends in links if ends[0] == edge.name}
        if told:
            routers[edge.name] = picture.UP if picture.UP in told else picture.DOWN
    return picture.Live(routers, links)
