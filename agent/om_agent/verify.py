"""Is messaging really working here: what was planned and what was seen in, findings out. Pure.

Reachable is what a router's own routing says: a way through the link states of ``router.node``. That a connection is
open, or that a row is there, says nothing: routers of two engines, or with one id, connect successfully and never
route, and a dead router's row stays for a minute. Connections are looked at only to tell why a router is not reached.
"""

from __future__ import annotations

import collections
import typing

from om_agent import clients, errors, kinds, model, observed, plan
from om_agent.plan import broker, layout, router

# What is wrong with this node's own router, by how it answered a login.
_CODES = {
    observed.REFUSED: "router-down",
    observed.LOGIN: "router-login",
    observed.CERTIFICATE: "router-certificate",
    observed.CLOSED: "router-closed",
}
_MOST_QUEUES = 10  # findings about single queues
AGENT_LISTENER = "om-agent"  # the listener that a drained router has for the agent alone

_MESH = ("inter-router", "edge")
_CONNECTED = "SUCCESS"  # a connector's status


def reachable(rows: typing.Iterable[typing.Mapping[str, typing.Any]], own: str) -> frozenset[str]:
    """Return the ids that the rows of ``router.node`` say are reached, ``own`` among them.

    A dead router keeps its row for a minute, and a next hop too when the others heard of its death in the wrong order
    (both engines; run). So the way to it must be there as well, link by link, as those on the way tell themselves.
    """
    table = {str(row["id"]): row for row in rows}
    reached: set[str] = set()
    todo = [own] if own in table else []
    while todo:
        at = todo.pop()
        row = table[at]
        if at in reached or (at != own and row.get("routerLink") is None and row.get("nextHop") is None):
            continue
        reached.add(at)
        todo += [str(name) for name in row.get("linkState") or () if str(name) in table]
    return frozenset(reached)


def links(rows: typing.Iterable[typing.Mapping[str, typing.Any]], own: str) -> frozenset[tuple[str, str]]:
    """Return (router, neighbour) as each router that is reached says of itself in the rows of ``router.node``."""
    table = {str(row["id"]): row for row in rows}
    reached = reachable(table.values(), own)
    return frozenset((name, str(peer)) for name in reached for peer in table[name].get("linkState") or ())


def findings(node_plan: plan.Plan, seen: observed.Seen) -> tuple[errors.Problem, ...]:
    """Return what is wrong, each with what to do next."""
    found = list(seen.findings)
    if seen.changes:
        found.append(
            kinds.finding(node_plan.node.name, "config-differs", count=len(seen.changes), what=seen.changes[0])
        )
    if node_plan.router and seen.mesh:
        found += _router_findings(node_plan.router, seen.mesh)
        if seen.mesh.services:
            found += clients.client_findings(node_plan.router, seen.mesh.services)
    if node_plan.broker and seen.broker:
        found += _broker_findings(node_plan, node_plan.broker, seen.broker)
    found += clients.unit_findings(seen.units, "a broker")
    found += (_stale(node_plan, tls_listeners) for tls_listeners in seen.stale)
    for probe in seen.probes:
        if probe.error:
            to = f"the router on {probe.to}" if probe.to else "its backend"
            found.append(kinds.finding(probe.path, f"{probe.half}-failed", to=to, why=probe.error))
    return tuple(dict.fromkeys(found))


def settled(found: typing.Iterable[errors.Problem]) -> bool:
    """Return whether waiting cannot help: nothing is wrong, or something that does not go away by itself."""
    faults = [kind for kind in map(kinds.of, found) if kind.verdict != kinds.WORKS]
    return not faults or any(not kind.heals for kind in faults)


def reached(deployment: model.Deployment, node_plan: plan.Plan, seen: observed.Seen) -> frozenset[str]:
    """Return the interior routers to which a call can be sent from here."""
    if not node_plan.router or not seen.mesh:
        return frozenset(model.interiors(deployment))
    if node_plan.router.mode == "edge":
        return frozenset(name for name, view in seen.mesh.views.items() if view is not None)
    if node_plan.router.mode == "standalone":  # it computes no routes, so its own table is empty
        return frozenset((node_plan.node.name,) if seen.mesh.own.login == observed.OPEN else ())
    return seen.mesh.own.reached


def can_send(found: typing.Iterable[errors.Problem]) -> bool:
    """Return whether a message may get through at all: not when this node's own router takes none, or refuses a
    service its addresses."""
    return not any(kinds.of(f).blocks for f in found)


# -- certificates ----------------------------------------------------------------------------------------------------


def tls_listeners(node_plan: plan.Plan, seen: observed.Seen) -> tuple[observed.TlsListener, ...]:
    """Return the listeners whose certificates can be looked at: those of what answers on this node."""
    found: list[observed.TlsListener] = []
    if node_plan.router and seen.mesh and seen.mesh.own.login == observed.OPEN:
        listeners = [a for kind, a in node_plan.router.entities if kind == "listener" and a.get("sslProfile")]
        found += (
            observed.TlsListener(
                "router", str(a["host"]), int(a["port"]), node_plan.router.certificates[str(a["sslProfile"])]
            )
            for a in listeners
        )
    if node_plan.broker and seen.broker and not seen.broker.why:
        own = node_plan.broker.listener
        if own.certificate:
            found.append(
                observed.TlsListener("broker", own.address or node_plan.node.address, own.port, own.certificate)
            )
    return tuple(found)


def _stale(node_plan: plan.Plan, one: observed.TlsListener) -> errors.Problem:
    """A file was renewed and the server has not read it: all is well until the old certificate expires."""
    at, where = f"{one.half} on {node_plan.node.name}", errors.where(one.host, one.port)
    if one.half == "broker":
        return kinds.finding(at, "stale-broker-certificate", where=where, file=one.file)
    unit = node_plan.router.paths.unit if node_plan.router else ""
    return kinds.finding(at, "stale-certificate", where=where, file=one.file, unit=unit)


# -- routers ---------------------------------------------------------------------------------------------------------


def _router_findings(router_plan: router.RouterPlan, mesh: observed.MeshSeen) -> typing.Iterator[errors.Problem]:
    own, unit, at = mesh.own, router_plan.paths.unit, f"router on {router_plan.node.name}"
    where = errors.where(*router_plan.listener)
    if own.login == observed.UNASKED:
        yield kinds.finding(at, "no-proton")
        return
    if own.login != observed.OPEN:
        code = _CODES.get(own.login, "router-hung")
        yield kinds.finding(at, code, unit=unit, where=where, file=router_plan.certificates.get(router.PROFILE, ""))
        return
    product = router_plan.engine.record.product
    if product not in own.product:
        yield kinds.finding(
            at, "router-engine", found=own.product or "another program", engine=router_plan.engine.value
        )
        return
    if own.container != router_plan.node.name:
        yield kinds.finding(at, "router-stranger", where=where, name=errors.quoted(own.container), unit=unit)
        return
    if any(line.endswith(f"listener {AGENT_LISTENER}") for line in mesh.drift):
        yield kinds.finding(at, "router-drained")
    elif mesh.drift:
        yield kinds.finding(at, "router-drift", what="; ".join(mesh.drift), file=router_plan.paths.config)
    if router_plan.mode == "standalone":
        return
    yield from _mixed(router_plan, own, at)
    yield from _doubles(router_plan, own, at)
    if router_plan.mode == "edge":
        yield from _uplinks(router_plan, mesh)
    yield from _unreached(router_plan, mesh)
    for name, count in sorted(mesh.unknown.items()):
        yield kinds.finding(at, "addresses-unknown", name=name, count=count)


def _mixed(router_plan: router.RouterPlan, own: observed.RouterSeen, at: str) -> typing.Iterator[errors.Problem]:
    """Routers of another engine that are connected: no error is told of it anywhere, and nothing is routed."""
    for c in own.connections:
        if c.role in _MESH and c.product and router_plan.engine.record.product not in c.product:
            name = errors.quoted(c.container)
            yield kinds.finding(
                at, "other-engine", name=name, where=c.host, found=c.product, engine=router_plan.engine.value
            )


def _doubles(router_plan: router.RouterPlan, own: observed.RouterSeen, at: str) -> typing.Iterator[errors.Problem]:
    """Two routers with one id: both connect, and one of them is never seen in the mesh."""
    places: dict[str, set[str]] = collections.defaultdict(set)
    for c in own.connections:
        if c.role == "inter-router":
            places[c.container].add(f"{c.direction} {c.host}")
    for name, hosts in places.items():
        if name == router_plan.node.name or len(hosts) > 1:
            where = ", ".join(sorted(h.partition(" ")[2] for h in hosts))
            yield kinds.finding(at, "duplicate-id", name=errors.quoted(name), where=where)


def _uplinks(router_plan: router.RouterPlan, mesh: observed.MeshSeen) -> typing.Iterator[errors.Problem]:
    up = [c for c in mesh.own.connections if c.role == "edge" and c.direction == "out"]
    if not up:
        names = ", ".join(link.name.partition("/")[2] for link in mesh.own.connectors)
        yield kinds.finding(f"router on {router_plan.node.name}", "uplink-down", names=names or "any")
    for c in up:
        if c.container not in router_plan.interiors:
            name = errors.quoted(c.container)
            yield kinds.finding(f"router on {router_plan.node.name}", "uplink-stranger", name=name, where=c.host)


def _unreached(router_plan: router.RouterPlan, mesh: observed.MeshSeen) -> typing.Iterator[errors.Problem]:
    """Why each interior that should be reached is not; the same on every node that the mesh reaches."""
    told = {link.name.partition("/")[2]: link for link in mesh.own.connectors}
    reached = reached_interiors(router_plan, mesh)
    silent = []
    for name in router_plan.interiors:
        at = f"router on {name}"
        view = mesh.views.get(name)
        if name in reached:
            lacking = sorted(reached - view) if view is not None else []
            if view is None and name != router_plan.node.name:
                yield kinds.finding(at, "peer-hung", name=name)
            elif lacking:
                yield kinds.finding(at, "peer-partial", name=name, lacking=", ".join(lacking))
        elif name in mesh.peers:
            found = _peer(router_plan, name, mesh.peers[name], told.get(name))
            silent += [name] if found.code == "peer-hung" else []
            yield found
        else:
            yield kinds.finding(at, "peer-down", name=name)
    # Of a router that says nothing nobody can tell whether it is off, or it and others are behind a cut.
    if reached and len(reached) <= len(silent):
        here = ", ".join(sorted(reached))
        yield kinds.finding(f"router on {router_plan.node.name}", "mesh-minority", here=here, names=", ".join(silent))
    yield from _lost_links(router_plan, mesh, reached)


def reached_interiors(router_plan: router.RouterPlan, mesh: observed.MeshSeen) -> frozenset[str]:
    """Return the interiors of the metadata that are reached from here; an edge router knows those that answered."""
    answered = frozenset(name for name, view in mesh.views.items() if view is not None)
    return frozenset(router_plan.interiors) & (answered if router_plan.mode == "edge" else mesh.own.reached)


def _lost_links(
    router_plan: router.RouterPlan, mesh: observed.MeshSeen, reached: frozenset[str]
) -> typing.Iterator[errors.Problem]:
    """Connections that are planned between routers that are reached, and are not there: messages take another way.

    Those between interiors every node sees; those of its own, an edge's uplinks above all, its node alone.
    """
    # A connector that tries again where no packet passes still has the status SUCCESS (both engines; run).
    linked = {c.container for c in mesh.own.connections if c.role in _MESH and c.direction == "out"}
    connectors = [link.name.partition("/")[2] for link in mesh.own.connectors]
    lost = {(router_plan.node.name, name) for name in connectors if name in reached and name not in linked}
    for source, target in router_plan.links if mesh.links is not None else ():
        if {source, target} <= reached and not {(source, target), (target, source)} <= (mesh.links or frozenset()):
            lost.add((source, target))
    for source, target in sorted(lost):
        yield kinds.finding(f"router on {target}", "link-down", name=target, source=source)


def _peer(
    router_plan: router.RouterPlan, name: str, peer: observed.RouterSeen, link: observed.Connector | None
) -> errors.Problem:
    """Return why a router that was asked directly is not reached."""
    at, own = f"router on {name}", router_plan.node.name
    if peer.login in (observed.REFUSED, observed.SILENT):
        return kinds.finding(at, "peer-down" if peer.login == observed.REFUSED else "peer-hung", name=name)
    if peer.login == observed.LOGIN:
        return kinds.finding(at, "peer-login", name=name)
    if peer.login in (observed.CERTIFICATE, observed.CLOSED):
        file = router_plan.certificates.get(router.PROFILE, "")
        return kinds.finding(at, "peer-certificate", name=name, why=peer.why, file=file)
    if router_plan.engine.record.product not in peer.product:
        return kinds.finding(
            at,
            "other-engine",
            name=name,
            where=name,
            found=peer.product or "another program",
            engine=router_plan.engine.value,
        )
    if peer.container != name:
        return kinds.finding(at, "duplicate-id", name=errors.quoted(peer.container), where=name)
    back = next((x for x in peer.connectors if x.name.partition("/")[2] == own), None)
    for side in (link, back):
        if side and side.status != _CONNECTED:
            return _refused(at, name, own if side is link else name, side.said, router_plan)
    return kinds.finding(at, "peer-unlinked", name=name)


def _refused(at: str, name: str, who: str, said: str, router_plan: router.RouterPlan) -> errors.Problem:
    """Return what a connector's last words mean; they are the engines' and proton's own."""
    low = said.lower()
    if any(word in low for word in ("certificate", "ssl", "tls", "authentication", "unauthorized", "sasl")):
        why = "has expired" if "expired" in low else "was refused"
        file = router_plan.certificates.get(router.MESH_PROFILE, "")
        return kinds.finding(at, "peer-credentials", name=name, who=who, why=why, file=file)
    return kinds.finding(at, "peer-unlinked", name=name)


# -- broker ----------------------------------------------------------------------------------------------------------


def _broker_findings(
    node_plan: plan.Plan, broker_plan: broker.BrokerPlan, seen: observed.BrokerSeen
) -> typing.Iterator[errors.Problem]:
    at = f"broker on {node_plan.node.name}"
    if seen.why:
        yield kinds.finding(at, "broker-down", unit=layout.RABBIT_UNIT, why=seen.why)
        return
    expected = set(broker_plan.members)
    down = sorted(expected - set(seen.running))
    if down:
        yield kinds.finding(at, "broker-members", names=", ".join(down), node=down[0].partition("@")[2])
    strange = sorted(set(seen.members) - expected)
    if strange:
        yield kinds.finding(at, "broker-stranger", names=", ".join(strange), first=strange[0])
    if seen.partitions:
        yield kinds.finding(at, "broker-partition", names=", ".join(seen.partitions), unit=layout.RABBIT_UNIT)
    for alarm in seen.alarms:
        yield kinds.finding(at, "broker-alarm", what=alarm)
    if len({version.partition(".")[0] for _, version in seen.versions}) > 1:
        tls_listeners = ", ".join(f"{version} on {name.partition('@')[2]}" for name, version in seen.versions)
        yield kinds.finding(at, "broker-majors", versions=tls_listeners)
    if seen.flags:
        yield kinds.finding(at, "broker-flags", names=errors.listed(seen.flags, 5))
    kind = node_plan.queues.kind.value if node_plan.queues.kind else ""
    for vhost, name, found in seen.unfit[:_MOST_QUEUES]:
        text = {"vhost": vhost, "name": name, "found": found, "wanted": kind, "count": len(seen.unfit)}
        yield kinds.finding(at, "queue-unfit", **text)
    for vhost, name, lacking in seen.thin[:_MOST_QUEUES]:
        text = {"vhost": vhost, "name": name, "names": ", ".join(lacking), "first": lacking[0]}
        yield kinds.finding(at, "queue-members", count=len(seen.thin), **text)
    if seen.metrics:
        yield kinds.finding(at, "broker-metrics", where=seen.metrics_at, why=seen.metrics, unit=layout.RABBIT_UNIT)
    ports = {port for _, port in seen.listeners}
    if broker_plan.listener.port not in ports:
        yield kinds.finding(at, "broker-listener", port=broker_plan.listener.port, unit=layout.RABBIT_UNIT)
