"""Move clients away from a router before an operator stops it, and undo that. The router's file stays unchanged.

The agent deletes the listeners for clients and edge routers, so that no new connection arrives. It creates a listener
on the loopback address for itself. Then it closes the connections of clients whose transport URL names other routers
too. Both engines refuse to close connections of edge routers (403, qpid-dispatch src/router_core/agent_connection.c),
so the agent asks each edge router to use its other uplink. A client whose transport URL names only this router keeps
its connection until the router stops: it could connect to no other router.
"""

from __future__ import annotations

import dataclasses
import pathlib
import socket
import time
import typing

from om_agent import amqp, errors, model, proc, verify
from om_agent.apply import files, live_router
from om_agent.plan import router

_POLL_SECONDS = 0.2
_EDGE_SECONDS = 3.0
_LISTENER_ROLES = ("normal", "edge")
_CONNECTOR_ATTRIBUTES = (
    "host", "port", "role", "cost", "saslMechanisms", "saslUsername", "saslPassword", "sslProfile", "linkCapacity",
    "idleTimeoutSeconds", "verifyHostname",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Remaining:
    """What drain did, and what is still connected at its end.

    :param closed: names of the listeners that drain deleted.
    :param moved: how many connections of clients and edge routers drain closed.
    :param unsettled: how many messages are under way to or from clients.
    """

    closed: tuple[str, ...]
    moved: int
    clients: int
    edges: int
    unsettled: int
    seconds: float

    @property
    def clean(self) -> bool:
        """Whether an operator can stop the router without disturbing other nodes."""
        return not self.edges and not self.unsettled


class _Traffic(typing.NamedTuple):
    """What uses the router now.

    :param clients: identities of the clients' connections.
    :param edges: the names of edge routers, by the identity of the connection.
    :param unsettled: how many messages are under way.
    """

    clients: frozenset[str]
    edges: dict[str, str]
    unsettled: int


def drain(
    deployment: model.Deployment, router_plan: router.RouterPlan, root: pathlib.Path, seconds: float
) -> Remaining:
    """Move clients away from the router.

    :param root: directory below which the agent stores the port of its own listener.
    :raises om_agent.errors.Unreachable: when the router's management cannot be reached, or does not do as asked.
    """
    if not router_plan.engine.record.changes:
        raise errors.Unreachable(
            "This router engine cannot be changed while it runs. Stop the router; its clients wait until it is back."
        )
    start = time.monotonic()
    move_clients = deployment.router.clients is model.Clients.MESH
    with live_router.connect(router_plan, live_router.read_drained_port(root)) as client:
        closed = _close_listeners(client, router_plan, root)
        moved_clients = _close_clients(client) if move_clients else 0
        moved_edges: set[str] = set()
        while True:
            traffic = _measure(client)
            elapsed = time.monotonic() - start
            remaining = Remaining(
                closed=tuple(closed),
                moved=moved_clients + len(moved_edges),
                clients=len(traffic.clients),
                edges=len(traffic.edges),
                unsettled=traffic.unsettled,
                seconds=elapsed,
            )
            waits_for_clients = move_clients and bool(traffic.clients)
            done = remaining.clean and not waits_for_clients
            if done or elapsed > seconds:
                return remaining
            for name in traffic.edges.values():  # in each round: an edge router's other uplink may come up only now
                in_time = time.monotonic() - start < seconds
                if in_time and turn_edge(deployment, router_plan, name):
                    moved_edges.add(name)
            time.sleep(_POLL_SECONDS)


def _close_clients(client: amqp.Client) -> int:
    """Close the connections of all clients; return how many."""
    rows = [row for row in client.query("connection") if amqp.is_client(row)]
    for row in rows:
        identity = str(row["identity"])
        client.update("connection", identity, {"adminStatus": "deleted"})
    return len(rows)


def _close_listeners(client: amqp.Client, router_plan: router.RouterPlan, root: pathlib.Path) -> list[str]:
    """Delete the listeners for clients and edge routers; return their names.

    The agent's own listener exists before that, so that the router can still be managed.
    """
    listeners = {str(row["name"]): row for row in client.query("listener")}
    own = verify.AGENT_LISTENER
    if own not in listeners:
        _open_own_listener(client, router_plan, root)
    names = []
    for name, row in listeners.items():
        serves_others = row["role"] in _LISTENER_ROLES and not row.get("http")
        if serves_others and name != own:
            names.append(name)
    for name in names:
        client.delete("listener", name)
    after = [str(row["name"]) for row in client.query("listener")]
    still_open = [name for name in after if name in names]
    if still_open:
        raise errors.Unreachable(f"The router did not close the listeners {', '.join(still_open)}.")
    return names


def _open_own_listener(client: amqp.Client, router_plan: router.RouterPlan, root: pathlib.Path) -> None:
    """Create a listener for the agent alone, and store its port."""
    port = _free_port()
    live_router.write_drained_port(root, port)
    listeners = [attributes for kind, attributes in router_plan.entities if kind == "listener"]
    vhost = next(attributes["policyVhost"] for attributes in listeners if "policyVhost" in attributes)
    attributes = {
        "host": "127.0.0.1",
        "port": str(port),
        "role": "normal",
        "authenticatePeer": True,
        "saslMechanisms": "PLAIN",
        "policyVhost": vhost,
    }
    client.create("listener", verify.AGENT_LISTENER, attributes)


def _free_port() -> int:
    """Return a port of the loopback address that no program uses now."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
    return port


def turn_edge(deployment: model.Deployment, router_plan: router.RouterPlan, name: str) -> bool:
    """Make an edge router use its other uplink, and reconnect to this router later; return whether it did."""
    node = deployment.by_name().get(name)
    if not node:
        return False
    own_name = router_plan.node.name
    uplink = f"uplink/{own_name}"
    address = (node.host, router_plan.listener[1])
    login = live_router.login(router_plan, address, host=node.host)
    try:
        with amqp.Client(login, _EDGE_SECONDS) as edge:
            connectors = [row for row in edge.query("connector") if row["name"] == uplink]
            uplinks_up = [row for row in edge.query("connection") if _is_up(row, "edge")]
            has_other = any(row["container"] != own_name for row in uplinks_up)
            if not connectors or not has_other:
                return False
            values = {key: connectors[0].get(key) for key in _CONNECTOR_ATTRIBUTES}
            attributes = {key: value for key, value in values.items() if value is not None}
            with proc.uninterrupted():
                edge.delete("connector", uplink)
                edge.create("connector", uplink, attributes)
            return True
    except errors.Unreachable:
        return False


def undo(router_plan: router.RouterPlan, root: pathlib.Path) -> tuple[str, ...]:
    """Restore the running router to its file; return the steps that were done.

    :raises om_agent.errors.ApplyFailed: when that is not possible.
    """
    path = router_plan.paths.config
    entities = live_router.entities(files.read(files.on_disk(root, path)))
    if entities is None:
        raise errors.ApplyFailed(f"{path} is missing or damaged. Run om-agent apply.")
    steps = live_router.match(router_plan, entities, root)
    live_router.write_drained_port(root, None)
    return steps


def _measure(client: amqp.Client) -> _Traffic:
    """Return what uses the router now."""
    clients: set[str] = set()
    edges: dict[str, str] = {}
    for row in client.query("connection"):
        identity = str(row["identity"])
        if amqp.is_client(row) and row.get("operStatus", "up") == "up":
            clients.add(identity)
        elif _is_up(row, "edge") and row["dir"] == "in":
            edges[identity] = str(row["container"])
    own = clients | edges.keys()
    unsettled = 0
    for link in client.query("router.link"):
        if str(link.get("connectionId")) in own:
            unsettled += int(link.get("unsettledCount") or 0)
            unsettled += int(link.get("undeliveredCount") or 0)
    return _Traffic(frozenset(clients), edges, unsettled)


def _is_up(connection: amqp.Row, role: str) -> bool:
    return bool(connection["role"] == role and connection.get("operStatus", "up") == "up")
