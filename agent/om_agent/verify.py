"""Whether messaging works on a node: compares the plan with what was observed and makes findings. Pure.

A router counts as reachable when the routing tables say so: there must be a path through the link states of
``router.node``. An open connection, or a row in the table, proves nothing. Routers of two engines, or two routers with
one id, connect successfully and never route; and the row of a dead router stays for a minute. The agent examines
connections only to find out why a router is not reached.
"""

from __future__ import annotations

import collections
import typing

from om_agent import clients, errors, kinds, model, observed, plan
from om_agent.plan import broker, layout, router

# What is wrong with this node's own router, by the result of a login.
_CODES = {
    observed.REFUSED: "router-down",
    observed.LOGIN: "router-login",
    observed.CERTIFICATE: "router-certificate",
    observed.CLOSED: "router-closed",
}
_MOST_QUEUES = 10  # findings about single queues
_MOST_FLAGS = 5  # feature flags that a finding names
AGENT_LISTENER = "om-agent"  # the listener of a drained router that serves only the agent

_MESH = ("inter-router", "edge")  # roles of connections between routers
_CONNECTED = "SUCCESS"  # the status of a connector that is connected
_TLS_WORDS = ("certificate", "ssl", "tls", "authentication", "unauthorized", "sasl")

Row = typing.Mapping[str, typing.Any]


def reachable(rows: typing.Iterable[Row], own: str) -> frozenset[str]:
    """Return the ids of the routers that are reached according to the rows of ``router.node``, including ``own``.

    The row of a dead router stays for a minute. It also keeps its next hop when the other routers learned of its death
    in the wrong order (both engines; run). So there must also be a path to the router, link by link, according to the
    routers on that path.
    """
    table = {str(row["id"]): row for row in rows}
    found: set[str] = set()
    todo = [own] if own in table else []
    while todo:
        name = todo.pop()
        row = table[name]
        has_route = name == own or row.get("routerLink") is not None or row.get("nextHop") is not None
        if name in found or not has_route:
            continue
        found.add(name)
        neighbours = map(str, row.get("linkState") or ())
        todo += [neighbour for neighbour in neighbours if neighbour in table]
    return frozenset(found)


def links(rows: typing.Iterable[Row], own: str) -> frozenset[tuple[str, str]]:
    """Return (router, neighbour) for each link that a reached router reports in the rows of ``router.node``."""
    table = {str(row["id"]): row for row in rows}
    found = set()
    for name in reachable(table.values(), own):
        for neighbour in table[name].get("linkState") or ():
            found.add((name, str(neighbour)))
    return frozenset(found)


def findings(node_plan: plan.Plan, seen: observed.Seen) -> tuple[errors.Problem, ...]:
    """Return what is wrong, each with what to do next."""
    found = list(seen.findings)
    if seen.changes:
        count, first = len(seen.changes), seen.changes[0]
        found.append(kinds.finding(node_plan.node.name, "config-differs", count=count, what=first))
    if node_plan.router and seen.mesh:
        found += _router_findings(node_plan.router, seen.mesh)
        if seen.mesh.services:
            found += clients.client_findings(node_plan.router, seen.mesh.services)
    if node_plan.broker and seen.broker:
        found += _broker_findings(node_plan, node_plan.broker, seen.broker)
    found += clients.unit_findings(seen.units, "a broker")
    found += [_stale(node_plan, listener) for listener in seen.stale]
    found += [_failed_probe(probe) for probe in seen.probes if probe.error]
    return tuple(dict.fromkeys(found))


def _failed_probe(probe: observed.Probe) -> errors.Problem:
    target = f"the router on {probe.to}" if probe.to else "its backend"
    return kinds.finding(probe.path, f"{probe.half}-failed", to=target, why=probe.error)


def settled(found: typing.Iterable[errors.Problem]) -> bool:
    """Return whether it is useless to wait: nothing is wrong, or something is that does not heal by itself."""
    records = [kinds.of(one) for one in found]
    faults = [record for record in records if record.verdict != kinds.WORKS]
    return not faults or not all(record.heals for record in faults)


def reached(deployment: model.Deployment, node_plan: plan.Plan, seen: observed.Seen) -> frozenset[str]:
    """Return the interior routers to which a call can be sent from this node."""
    if not node_plan.router or not seen.mesh:
        return frozenset(model.interiors(deployment))
    if node_plan.router.mode == "edge":
        return _answered(seen.mesh)
    if node_plan.router.mode == "standalone":  # it computes no routes, so its own table is empty
        is_up = seen.mesh.own.login == observed.OPEN
        return frozenset((node_plan.node.name,) if is_up else ())
    return seen.mesh.own.reached


def reached_interiors(router_plan: router.RouterPlan, mesh: observed.MeshSeen) -> frozenset[str]:
    """Return the interior routers of the metadata that this node's router reaches.

    An edge router computes no routes. It reaches the interior routers that answered through its uplink.
    """
    names = _answered(mesh) if router_plan.mode == "edge" else mesh.own.reached
    return names & frozenset(router_plan.interiors)


def _answered(mesh: observed.MeshSeen) -> frozenset[str]:
    return frozenset(name for name, view in mesh.views.items() if view is not None)


def can_send(found: typing.Iterable[errors.Problem]) -> bool:
    """Return whether a message can get through at all.

    It cannot when this node's own router accepts none, or refuses a service its addresses.
    """
    return not any(kinds.of(one).blocks for one in found)


# -- certificates ----------------------------------------------------------------------------------------------------


def tls_listeners(node_plan: plan.Plan, seen: observed.Seen) -> tuple[observed.TlsListener, ...]:
    """Return the listeners on this node that answer, and whose certificates can be examined."""
    found: list[observed.TlsListener] = []
    if node_plan.router and seen.mesh and seen.mesh.own.login == observed.OPEN:
        found += _router_listeners(node_plan.router)
    if node_plan.broker and seen.broker and not seen.broker.why:
        own = node_plan.broker.listener
        if own.certificate:
            address = own.address or node_plan.node.address
            found.append(observed.TlsListener("broker", address, own.port, own.certificate))
    return tuple(found)


def _router_listeners(router_plan: router.RouterPlan) -> typing.Iterator[observed.TlsListener]:
    for kind, attributes in router_plan.entities:
        profile = str(attributes.get("sslProfile") or "")
        if kind == "listener" and profile:
            host, port = str(attributes["host"]), int(attributes["port"])
            yield observed.TlsListener("router", host, port, router_plan.certificates[profile])


def _stale(node_plan: plan.Plan, listener: observed.TlsListener) -> errors.Problem:
    """Return that the server still uses an old certificate: all works until that one expires."""
    at = f"{listener.half} on {node_plan.node.name}"
    where = errors.where(listener.host, listener.port)
    if listener.half == "broker":
        return kinds.finding(at, "stale-broker-certificate", where=where, file=listener.file)
    unit = node_plan.router.paths.unit if node_plan.router else ""
    return kinds.finding(at, "stale-certificate", where=where, file=listener.file, unit=unit)


# -- routers ---------------------------------------------------------------------------------------------------------


def _router_findings(router_plan: router.RouterPlan, mesh: observed.MeshSeen) -> typing.Iterator[errors.Problem]:
    stranger = _not_our_router(router_plan, mesh.own)
    if stranger:
        yield stranger
        return
    at = f"router on {router_plan.node.name}"
    if any(line.endswith(f"listener {AGENT_LISTENER}") for line in mesh.drift):
        yield kinds.finding(at, "router-drained")
    elif mesh.drift:
        yield kinds.finding(at, "router-drift", what="; ".join(mesh.drift), file=router_plan.paths.config)
    if router_plan.mode == "standalone":
        return
    yield from _mixed_engines(router_plan, mesh.own, at)
    yield from _duplicate_ids(router_plan, mesh.own, at)
    if router_plan.mode == "edge":
        yield from _uplinks(router_plan, mesh, at)
    yield from _unreached(router_plan, mesh)
    for name, count in sorted(mesh.unknown.items()):
        yield kinds.finding(at, "addresses-unknown", name=name, count=count)


def _not_our_router(router_plan: router.RouterPlan, own: observed.RouterSeen) -> errors.Problem | None:
    """Return why nothing can be said of this node's own router; None when it answered as the plan says."""
    at = f"router on {router_plan.node.name}"
    unit = router_plan.paths.unit
    where = errors.where(*router_plan.listener)
    if own.login == observed.UNASKED:
        return kinds.finding(at, "no-proton")
    if own.login != observed.OPEN:
        code = _CODES.get(own.login, "router-hung")
        file = router_plan.certificates.get(router.PROFILE, "")
        return kinds.finding(at, code, unit=unit, where=where, file=file)
    if router_plan.engine.record.product not in own.product:
        found = own.product or "another program"
        return kinds.finding(at, "router-engine", found=found, engine=router_plan.engine.value)
    if own.container != router_plan.node.name:
        return kinds.finding(at, "router-stranger", where=where, name=errors.quoted(own.container), unit=unit)
    return None


def _mixed_engines(
    router_plan: router.RouterPlan, own: observed.RouterSeen, at: str
) -> typing.Iterator[errors.Problem]:
    """Yield the connected routers of another engine. No router reports an error then, and none routes any message."""
    engine = router_plan.engine
    for connection in own.connections:
        product = connection.product
        if connection.role in _MESH and product and engine.record.product not in product:
            name = errors.quoted(connection.container)
            yield kinds.finding(
                at, "other-engine", name=name, where=connection.host, found=product, engine=engine.value
            )


def _duplicate_ids(
    router_plan: router.RouterPlan, own: observed.RouterSeen, at: str
) -> typing.Iterator[errors.Problem]:
    """Yield the ids that two routers have: both connect, and the mesh never sees one of them."""
    places: dict[str, set[tuple[str, str]]] = collections.defaultdict(set)
    for connection in own.connections:
        if connection.role == "inter-router":
            places[connection.container].add((connection.direction, connection.host))
    for name, found in places.items():
        if name == router_plan.node.name or len(found) > 1:
            where = ", ".join(sorted(host for _, host in found))
            yield kinds.finding(at, "duplicate-id", name=errors.quoted(name), where=where)


def _uplinks(router_plan: router.RouterPlan, mesh: observed.MeshSeen, at: str) -> typing.Iterator[errors.Problem]:
    uplinks = [one for one in mesh.own.connections if one.role == "edge" and one.direction == "out"]
    if not uplinks:
        names = ", ".join(map(_target, mesh.own.connectors))
        yield kinds.finding(at, "uplink-down", names=names or "any")
    for uplink in uplinks:
        if uplink.container not in router_plan.interiors:
            name = errors.quoted(uplink.container)
            yield kinds.finding(at, "uplink-stranger", name=name, where=uplink.host)


def _target(connector: observed.Connector) -> str:
    """Return the name of the node that a connector leads to; its own name is the kind, a slash and that name."""
    return connector.name.partition("/")[2]


def _unreached(router_plan: router.RouterPlan, mesh: observed.MeshSeen) -> typing.Iterator[errors.Problem]:
    """Yield why each interior router that should be reached is not; the same on every node that the mesh reaches."""
    connectors = {_target(connector): connector for connector in mesh.own.connectors}
    reached_names = reached_interiors(router_plan, mesh)
    silent = []
    for name in router_plan.interiors:
        if name in reached_names:
            yield from _partial(router_plan, mesh, name, reached_names)
        elif name in mesh.peers:
            found = _peer(router_plan, name, mesh.peers[name], connectors.get(name))
            silent += [name] if found.code == "peer-hung" else []
            yield found
        else:
            yield kinds.finding(f"router on {name}", "peer-down", name=name)
    # A router that does not answer may be off. Or the network is cut, and it runs on the other side with others.
    if reached_names and len(reached_names) <= len(silent):
        here = ", ".join(sorted(reached_names))
        at = f"router on {router_plan.node.name}"
        yield kinds.finding(at, "mesh-minority", here=here, names=", ".join(silent))
    yield from _lost_links(router_plan, mesh, reached_names)


def _partial(
    router_plan: router.RouterPlan, mesh: observed.MeshSeen, name: str, reached_names: frozenset[str]
) -> typing.Iterator[errors.Problem]:
    """Yield that a router that is reached does not answer, or does not reach all that this one reaches."""
    at = f"router on {name}"
    view = mesh.views.get(name)
    if view is None:
        if name != router_plan.node.name:
            yield kinds.finding(at, "peer-hung", name=name)
        return
    lacking = sorted(reached_names - view)
    if lacking:
        yield kinds.finding(at, "peer-partial", name=name, lacking=", ".join(lacking))


def _lost_links(
    router_plan: router.RouterPlan, mesh: observed.MeshSeen, reached_names: frozenset[str]
) -> typing.Iterator[errors.Problem]:
    """Yield the planned connections between reached routers that are not open: messages take another path.

    Every node sees the connections between interior routers. Only the node itself sees its own connections, such as the
    uplinks of an edge router.
    """
    # A connector that tries again where no packet passes still has the status SUCCESS (both engines; run).
    outgoing = [one for one in mesh.own.connections if one.direction == "out"]
    linked = {one.container for one in outgoing if one.role in _MESH}
    own = router_plan.node.name
    targets = [name for name in map(_target, mesh.own.connectors) if name in reached_names]
    lost = {(own, name) for name in targets if name not in linked}
    if mesh.links is not None:
        for source, target in router_plan.links:
            both = {(source, target), (target, source)}
            if {source, target} <= reached_names and not both <= mesh.links:
                lost.add((source, target))
    for source, target in sorted(lost):
        yield kinds.finding(f"router on {target}", "link-down", name=target, source=source)


def _peer(
    router_plan: router.RouterPlan, name: str, peer: observed.RouterSeen, link: observed.Connector | None
) -> errors.Problem:
    """Return why another router is not reached, from what it answered directly."""
    at = f"router on {name}"
    own = router_plan.node.name
    if peer.login == observed.REFUSED:
        return kinds.finding(at, "peer-down", name=name)
    if peer.login == observed.SILENT:
        return kinds.finding(at, "peer-hung", name=name)
    if peer.login == observed.LOGIN:
        return kinds.finding(at, "peer-login", name=name)
    if peer.login in (observed.CERTIFICATE, observed.CLOSED):
        file = router_plan.certificates.get(router.PROFILE, "")
        return kinds.finding(at, "peer-certificate", name=name, why=peer.why, file=file)
    engine = router_plan.engine
    if engine.record.product not in peer.product:
        found = peer.product or "another program"
        return kinds.finding(at, "other-engine", name=name, where=name, found=found, engine=engine.value)
    if peer.container != name:
        return kinds.finding(at, "duplicate-id", name=errors.quoted(peer.container), where=name)
    back = next((connector for connector in peer.connectors if _target(connector) == own), None)
    for connector, reporter in ((link, own), (back, name)):
        if connector and connector.status != _CONNECTED:
            return _refused(at, name, reporter, connector.said, router_plan)
    return kinds.finding(at, "peer-unlinked", name=name)


def _refused(at: str, name: str, reporter: str, said: str, router_plan: router.RouterPlan) -> errors.Problem:
    """Return what the last message of a connector means. Its words come from the engines and from proton.

    :param reporter: the node whose router has the connector.
    """
    words = said.lower()
    if any(word in words for word in _TLS_WORDS):
        why = "has expired" if "expired" in words else "was refused"
        file = router_plan.certificates.get(router.MESH_PROFILE, "")
        return kinds.finding(at, "peer-credentials", name=name, who=reporter, why=why, file=file)
    return kinds.finding(at, "peer-unlinked", name=name)


# -- broker ----------------------------------------------------------------------------------------------------------


def _broker_findings(
    node_plan: plan.Plan, broker_plan: broker.BrokerPlan, seen: observed.BrokerSeen
) -> typing.Iterator[errors.Problem]:
    at = f"broker on {node_plan.node.name}"
    unit = layout.RABBIT_UNIT
    if seen.why:
        yield kinds.finding(at, "broker-down", unit=unit, why=seen.why)
        return
    yield from _cluster_findings(set(broker_plan.members), seen, at)
    for alarm in seen.alarms:
        yield kinds.finding(at, "broker-alarm", what=alarm)
    yield from _version_findings(seen, at)
    yield from _queue_findings(node_plan, seen, at)
    if seen.metrics:
        yield kinds.finding(at, "broker-metrics", where=seen.metrics_at, why=seen.metrics, unit=unit)
    port = broker_plan.listener.port
    if all(port != other for _, other in seen.listeners):
        yield kinds.finding(at, "broker-listener", port=port, unit=unit)


def _cluster_findings(expected: set[str], seen: observed.BrokerSeen, at: str) -> typing.Iterator[errors.Problem]:
    down = sorted(expected - set(seen.running))
    if down:
        yield kinds.finding(at, "broker-members", names=", ".join(down), node=_host(down[0]))
    strange = sorted(set(seen.members) - expected)
    if strange:
        yield kinds.finding(at, "broker-stranger", names=", ".join(strange), first=strange[0])
    if seen.partitions:
        names = ", ".join(seen.partitions)
        yield kinds.finding(at, "broker-partition", names=names, unit=layout.RABBIT_UNIT)


def _version_findings(seen: observed.BrokerSeen, at: str) -> typing.Iterator[errors.Problem]:
    majors = {version.partition(".")[0] for _, version in seen.versions}
    if len(majors) > 1:
        versions = [f"{version} on {_host(member)}" for member, version in seen.versions]
        yield kinds.finding(at, "broker-majors", versions=", ".join(versions))
    if seen.flags:
        yield kinds.finding(at, "broker-flags", names=errors.listed(seen.flags, _MOST_FLAGS))


def _host(member: str) -> str:
    """Return the host in an Erlang node name."""
    return member.partition("@")[2]


def _queue_findings(node_plan: plan.Plan, seen: observed.BrokerSeen, at: str) -> typing.Iterator[errors.Problem]:
    wanted = node_plan.queues.kind.value if node_plan.queues.kind else ""
    count = len(seen.unfit)
    for vhost, name, found in seen.unfit[:_MOST_QUEUES]:
        yield kinds.finding(at, "queue-unfit", vhost=vhost, name=name, found=found, wanted=wanted, count=count)
    count = len(seen.thin)
    for vhost, name, lacking in seen.thin[:_MOST_QUEUES]:
        names = ", ".join(lacking)
        yield kinds.finding(at, "queue-members", vhost=vhost, name=name, names=names, first=lacking[0], count=count)
