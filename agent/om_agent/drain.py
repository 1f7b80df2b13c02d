"""Taking clients off a router before it is stopped, and putting it back; its file stays as it is.

Nobody new comes once the listeners for clients and edge routers are gone; one on the loopback address stays for the
agent alone. Clients whose transport URL has other hosts are then sent away by closing their connections. Both engines
refuse that for edge routers (403, qpid-dispatch src/router_core/agent_connection.c), so those are asked themselves to
take the other of their uplinks. A client that has this router alone stays to the end: it would only find nobody.
"""

from __future__ import annotations

import dataclasses
import pathlib
import socket
import time

from om_agent import amqp, errors, model, proc, verify
from om_agent.apply import live_router
from om_agent.plan import router

_POLL = 0.2
_EDGE_SECONDS = 3.0
_LISTENERS = ("normal", "edge")
_CONNECTOR = (
    "host", "port", "role", "cost", "saslMechanisms", "saslUsername", "saslPassword", "sslProfile", "linkCapacity",
    "idleTimeoutSeconds", "verifyHostname",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Remaining:
    """What is still there when drain ends.

    :param closed: listeners that were taken away.
    :param moved: connections that were closed.
    :param unsettled: messages under way to or from clients.
    """

    closed: tuple[str, ...]
    moved: int
    clients: int
    edges: int
    unsettled: int
    seconds: float

    @property
    def clean(self) -> bool:
        """True when stopping the router disturbs no other node."""
        return not self.edges and not self.unsettled


def drain(d: model.Deployment, p: router.RouterPlan, root: pathlib.Path, seconds: float) -> Remaining:
    """Take clients off the router.

    :param root: below which it is noted where the router is managed from now on.
    :raises om_agent.errors.Unreachable: when it cannot be asked, or did not do as told.
    """
    if not p.engine.record.changes:
        raise errors.Unreachable(
            "This engine cannot be changed while it runs: stop it, its clients wait for its return."
        )
    start = time.monotonic()
    move_clients = d.router.clients is model.Clients.MESH
    with live_router.connect(p, live_router.read_drained_port(root)) as client:
        names = _close_listeners(client, p, root)
        leaving = [r for r in client.query("connection") if move_clients and amqp.is_client(r)]
        for row in leaving:
            client.update("connection", str(row["identity"]), {"adminStatus": "deleted"})
        turned: set[str] = set()
        while True:
            clients, edges, unsettled = _count(client)
            took = time.monotonic() - start
            moved = len(leaving) + len(turned)
            found = Remaining(tuple(names), moved, len(clients), len(edges), unsettled, took)
            if (found.clean and not (clients and move_clients)) or took > seconds:
                return found
            for name in edges.values():  # again and again: its other uplink may just be coming back
                if time.monotonic() - start < seconds and turn_edge(d, p, name):
                    turned.add(name)
            time.sleep(_POLL)


def _close_listeners(client: amqp.Client, p: router.RouterPlan, root: pathlib.Path) -> list[str]:
    """Take away the listeners for clients and edges, once the agent's own is there."""
    present = {str(r["name"]): r for r in client.query("listener")}
    if verify.AGENT_LISTENER not in present:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        live_router.write_drained_port(root, port)
        listener = {"host": "127.0.0.1", "port": str(port), "role": "normal", "authenticatePeer": True}
        vhost = next(a["policyVhost"] for kind, a in p.entities if kind == "listener" and "policyVhost" in a)
        client.create("listener", verify.AGENT_LISTENER, {**listener, "saslMechanisms": "PLAIN", "policyVhost": vhost})
    names = [
        n for n, r in present.items() if r["role"] in _LISTENERS and not r.get("http") and n != verify.AGENT_LISTENER
    ]
    for name in names:
        client.delete("listener", name)
    still = [str(r["name"]) for r in client.query("listener") if r["name"] in names]
    if still:
        raise errors.Unreachable(f"The router still has the listeners {', '.join(still)}.")
    return names


def turn_edge(d: model.Deployment, p: router.RouterPlan, name: str) -> bool:
    """Have an edge router give up its connection to this one, and try again later; return whether it did."""
    node, uplink = d.by_name().get(name), f"uplink/{p.node.name}"
    if not node:
        return False
    try:
        with amqp.Client(live_router.login(p, (node.host, p.listener[1]), host=node.host), _EDGE_SECONDS) as edge:
            rows = [r for r in edge.query("connector") if r["name"] == uplink]
            others = [r for r in edge.query("connection") if _is_up(r, "edge") and r["container"] != p.node.name]
            if not rows or not others:  # it has nowhere else to go
                return False
            kept = {a: rows[0][a] for a in _CONNECTOR if rows[0].get(a) is not None}
            with proc.uninterrupted():
                edge.delete("connector", uplink)
                edge.create("connector", uplink, kept)
            return True
    except errors.Unreachable:
        return False


def undo(p: router.RouterPlan, config: bytes | None, root: pathlib.Path) -> tuple[str, ...]:
    """Make the running router as its file says; return what was done.

    :raises om_agent.errors.ApplyFailed: when that is not possible.
    """
    entities = live_router.entities(config)
    if entities is None:
        raise errors.ApplyFailed(f"{p.paths.config} is not there or damaged. Run om-agent apply.")
    done = live_router.match(p, entities, root)
    live_router.write_drained_port(root, None)
    return done


def _count(client: amqp.Client) -> tuple[set[str], dict[str, str], int]:
    """Return the connections of clients, those of edge routers with their ids, and how many messages are under way."""
    rows = client.query("connection")
    clients = {str(r["identity"]) for r in rows if amqp.is_client(r) and r.get("operStatus", "up") == "up"}
    edges = {str(r["identity"]): str(r["container"]) for r in rows if _is_up(r, "edge") and r["dir"] == "in"}
    links = [r for r in client.query("router.link") if str(r.get("connectionId")) in {*clients, *edges}]
    under_way = sum(int(r.get("unsettledCount") or 0) + int(r.get("undeliveredCount") or 0) for r in links)
    return clients, edges, under_way


def _is_up(connection: amqp.Row, role: str) -> bool:
    return bool(connection["role"] == role and connection.get("operStatus", "up") == "up")
