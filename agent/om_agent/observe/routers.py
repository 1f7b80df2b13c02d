"""Look at the routers of a mesh: this node's own, and through it the others."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import typing

from om_agent import amqp, clients, connections, errors, model, observed, picture, resync, verify
from om_agent.apply import live_router, router_difference
from om_agent.plan import router, topology

PEER_SECONDS = 3.0
# With more addresses than this, the agent does not compare them with those of every other interior router.
_MOST_ADDRESSES = 20_000
# How many unreached routers the agent asks directly for the reason. More would give the same sentences again.
_MOST_PEERS = 8


def mesh(
    deployment: model.Deployment,
    router_plan: router.RouterPlan,
    config: bytes | None,
    root: pathlib.Path,
    units: typing.Sequence[clients.Unit] = (),
) -> observed.MeshSeen:
    """Return what the routers report.

    :param config: the content of this router's file.
    :param units: units of services that should be connected.
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
    except errors.Unreachable as e:  # it answers, but not as a router should
        return observed.MeshSeen(observed.RouterSeen(observed.CLOSED, str(e)))
    answers = {name: rows for name, rows in tables.items() if rows is not None}
    views: dict[str, frozenset[str] | None] = dict.fromkeys(tables)
    views.update({name: verify.reachable(rows, name) for name, rows in answers.items()})
    links = next((verify.links(rows, name) for name, rows in answers.items()), None)
    unknown = {name: len(addresses) for name, addresses in lacking.items()}
    found = observed.MeshSeen(own, drift, views, links=links, services=services, unknown=unknown)
    reached = {router_plan.node.name, *verify.reached_interiors(router_plan, found)}
    missing = [name for name in router_plan.interiors if name not in reached]
    peers = {name: _peer(deployment, router_plan, name) for name in missing[:_MOST_PEERS]}
    return dataclasses.replace(found, peers=peers)


@contextlib.contextmanager
def _management() -> typing.Iterator[None]:
    """Treat an answer that cannot be parsed as no answer. Another program may listen there.

    :raises om_agent.errors.Unreachable: for such an answer.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise errors.Unreachable("The answer is not that of a router's management.") from None


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
    """Return what a router reports of itself."""
    dialect = client.login.engine.record
    product = client.product
    if dialect.product not in product:
        return observed.RouterSeen(observed.OPEN, container=client.container, product=product)
    (counts,) = client.query(dialect.statistics)[:1] or ({},)
    rows = client.query("connection")
    nodes = client.query("router.node")
    connectors = client.query("connector") if dialect.changes else []
    routers = [row for row in rows if not amqp.is_client(row) and row["role"] != "normal"]
    return observed.RouterSeen(
        observed.OPEN,
        container=client.container,
        product=product,
        version=product.rpartition(" ")[2],
        uptime=int(counts.get("uptimeSeconds") or 0),
        clients=sum(map(amqp.is_client, rows)),
        links=int(counts.get("linkCount") or 0),
        addresses=int(counts.get("addrCount") or 0),
        dropped=int(counts.get("droppedPresettledDeliveries") or 0),
        reached=verify.reachable(nodes, client.container),
        connectors=tuple(map(_connector, connectors)),
        connections=tuple(map(_connection, routers)),
    )


def _connector(row: amqp.Row) -> observed.Connector:
    message = str(row.get("connectionMsg") or "")
    return observed.Connector(str(row["name"]), str(row.get("connectionStatus")), message)


def _connection(row: amqp.Row) -> observed.RouterConnection:
    properties = row.get("properties") or {}
    product = " ".join(str(properties[key]) for key in ("product", "version") if key in properties)
    return observed.RouterConnection(
        role=str(row["role"]),
        direction=str(row["dir"]),
        host=str(row["host"]),
        container=str(row.get("container") or ""),
        product=product,
    )


def _drift(router_plan: router.RouterPlan, config: bytes | None, client: amqp.Client) -> tuple[str, ...]:
    entities = live_router.entities(config)
    if entities is None or not router_plan.engine.record.changes:
        return ()
    found = router_difference.drift(router_plan, entities, client)
    return (*map(str, found.steps), *found.obstacles)


def _tables(router_plan: router.RouterPlan, client: amqp.Client) -> dict[str, list[amqp.Row] | None]:
    """Return the rows of ``router.node`` of every interior router that is reached; None of one that did not answer.

    This router's own rows come first. An edge router asks through its uplink.
    """
    found: dict[str, list[amqp.Row] | None] = {}
    known = frozenset(router_plan.interiors)  # until a router has answered which ones it reaches
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
    """Return what a router answers directly. Every node's agent may ask it."""
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
    """Return which routers and links of a mesh are up. The agent asks the interior routers, through this node's router.

    :raises om_agent.errors.Unreachable: when this node's router cannot be asked.
    """
    routers = dict.fromkeys((node.name for node in planned.interiors), picture.DOWN)
    found: set[tuple[str, str]] = set()
    with live_router.connect(router_plan, live_router.read_drained_port(root)) as client:
        known = set(routers)  # until a router has answered which ones it reaches
        for name in sorted(routers, key=lambda name: name != client.container):
            if name not in known:
                continue
            target = "" if name == client.container else name
            with contextlib.suppress(errors.Unreachable):
                rows = client.query("router.node", router=target)
                connections = client.query("connection", router=target)
                known &= verify.reachable(rows, name)
                routers[name] = picture.UP
                found |= _open_links(name, rows, connections)
    links = _link_states(planned, routers, found)
    for edge in planned.edges:
        states = {state for (source, _), state in links.items() if source == edge.name}
        if states:
            routers[edge.name] = picture.UP if picture.UP in states else picture.DOWN
    return picture.Live(routers, links)


def _open_links(
    name: str, rows: typing.Iterable[amqp.Row], connections: typing.Iterable[amqp.Row]
) -> set[tuple[str, str]]:
    """Return (other router, ``name``) for each link that the router ``name`` reports as open."""
    interiors = {(str(row["id"]), name) for row in rows if row.get("routerLink") is not None}
    edges = [row for row in connections if row["role"] == "edge" and row.get("opened")]
    return interiors | {(str(row["container"]), name) for row in edges}


def _link_states(
    planned: topology.Mesh, routers: typing.Mapping[str, str], found: typing.Collection[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    """Return the state of each planned link; none for a link between routers that did not answer."""
    links = {}
    for link in planned.links:
        ends = (link.source, link.target)
        if ends in found or ends[::-1] in found:
            links[ends] = picture.UP
        elif routers[link.target] == picture.UP and routers.get(link.source) != picture.DOWN:
            links[ends] = picture.DOWN
    return links
