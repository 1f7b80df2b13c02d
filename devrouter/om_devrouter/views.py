"""What management shows: rows of the router's state, under qpid-dispatch 1.19's attribute names.

A column that is not filled in here is answered with null: this router does not measure it.
"""

from __future__ import annotations

import time
from typing import Any

import om_devrouter
from om_devrouter import config, management, outlink, router
from om_devrouter.reader import Attributes

Row = dict[str, Any]


def tables(core: router.Router) -> management.Tables:
    """The entities that can be queried."""
    return {
        "router": lambda: [router_row(core)],
        # A standalone router computes no routes: qdrouterd answers with no rows in that mode, and so does this.
        "router.node": list,
        "connection": lambda: [peer.row() for peer in core.peers if not peer.refused],
        "listener": lambda: [listener_row(listener) for listener in core.config.listeners],
        "router.address": lambda: [address_row(address) for address in core.table],
        "policy": lambda: [policy_row(core)],
        "vhost": lambda: [vhost_row(raw) for raw in core.config.vhosts],
        "vhostStats": lambda: [vhost_stats_row(core, name) for name in core.admission.vhosts],
        "router.link": lambda: [link_row(end) for peer in core.peers for end in list(peer.ends)],
    }


def router_row(core: router.Router) -> Row:
    """The row of ``router``; counts are since the start, times are seconds. Reads Python state only (no proton)."""
    counters = core.counters
    return {
        "name": core.config.router_id,
        "identity": "1",
        "id": core.config.router_id,
        "mode": "standalone",
        "area": "0",
        "version": f"om-devrouter {om_devrouter.__version__}",
        "metadata": core.config.metadata,
        "addrCount": len(core.table),
        "linkCount": sum(len(peer.ends) for peer in list(core.peers)),
        "nodeCount": 0,
        "linkRouteCount": 0,
        "autoLinkCount": 0,
        "connectionCount": len(core.peers),
        "presettledDeliveries": counters.presettled,
        "droppedPresettledDeliveries": counters.dropped,
        "acceptedDeliveries": counters.accepted,
        "rejectedDeliveries": counters.rejected,
        "releasedDeliveries": counters.released,
        "modifiedDeliveries": counters.modified,
        "deliveriesIngress": counters.ingress,
        "deliveriesEgress": counters.egress,
        "deliveriesTransit": 0,
        "deliveriesIngressRouteContainer": 0,
        "deliveriesEgressRouteContainer": 0,
        "deliveriesRedirectedToFallback": 0,
        "uptimeSeconds": int(time.monotonic() - core.started),
        "workerThreads": core.config.worker_threads,
    }


def listener_row(listener: config.Listener) -> Row:
    """The row of one ``listener``: what the file says, and the defaults that it leaves out."""
    row: Row = {
        "role": "normal",
        "cost": 1,
        "requireEncryption": False,
        "requireSsl": False,
        "authenticatePeer": False,
        "maxFrameSize": 16384,
        "maxSessions": 32768,
        "idleTimeoutSeconds": 16,
        "initialHandshakeTimeoutSeconds": 0,
        "stripAnnotations": "both",
        "multiTenant": False,
        "healthz": True,
        "metrics": True,
        "websockets": True,
        "http": False,
        "messageLoggingComponents": "none",
    }
    row.update(listener.attributes)
    row.update(
        name=listener.name,
        host=listener.host,
        port=str(listener.port),
        identity=f"listener/{listener.host}:{listener.port}:{listener.name}",
    )
    return row


def address_row(address: router.RouterAddress) -> Row:
    """The row of one ``router.address``."""
    return {
        "name": address.key,
        "identity": address.key,
        "key": address.key,
        "distribution": address.distribution,
        "inProcess": int(address.in_process),
        "subscriberCount": len(address.consumers),
        "remoteCount": 0,
        "containerCount": 0,
        "remoteHostRouters": [],
        "deliveriesIngress": address.ingress,
        "deliveriesEgress": address.egress,
        "deliveriesTransit": 0,
        "deliveriesToContainer": address.to_container,
        "deliveriesFromContainer": address.from_container,
        "deliveriesEgressRouteContainer": 0,
        "deliveriesIngressRouteContainer": 0,
        "trackedDeliveries": 0,
        "priority": -1,
        "deliveriesRedirectedToFallback": 0,
    }


def link_row(end: router.End) -> Row:
    """The row of one ``router.link``; credit is in deliveries."""
    outgoing, counters = isinstance(end, outlink.OutLink), end.counters
    owner: Any | None = end.address
    return {
        "name": end.name,
        "linkName": end.name,
        "linkType": "endpoint",
        "linkDir": "out" if outgoing else "in",
        "owningAddr": owner.key if owner is not None else None,
        "capacity": end.capacity,
        "undeliveredCount": len(end.queue) if isinstance(end, outlink.OutLink) else 0,
        "unsettledCount": len(end.unsettled),
        "deliveryCount": counters.egress if outgoing else counters.ingress,
        "connectionId": str(end.peer.number),
        "adminStatus": "enabled",
        "operStatus": "up",
        "presettledCount": counters.presettled,
        "droppedPresettledCount": counters.dropped,
        "acceptedCount": counters.accepted,
        "rejectedCount": counters.rejected,
        "releasedCount": counters.released,
        "modifiedCount": counters.modified,
        "creditAvailable": end.link.credit,
    }


def policy_row(core: router.Router) -> Row:
    """The row of ``policy``, under the name that qdrouterd gives its only one."""
    rules, counts = core.config.rules, core.admission
    return {
        "name": "policy/None",
        "identity": "policy/None",
        "maxConnections": rules.max_connections,
        "maxMessageSize": 0,
        "enableVhostPolicy": rules.enabled,
        "enableVhostNamePatterns": False,
        "policyDir": "",
        "defaultVhost": rules.default_vhost,
        "connectionsProcessed": counts.processed,
        "connectionsDenied": counts.denied,
        "connectionsCurrent": counts.current,
        "linksDenied": counts.links_denied,
        "maxMessageSizeDenied": 0,
        "totalDenials": counts.total_denials,
    }


def vhost_row(raw: Attributes) -> Row:
    """The row of one ``vhost``: what the file says, and the defaults that it leaves out."""
    row: Row = {"maxConnections": 65535, "maxConnectionsPerUser": 65535, "maxConnectionsPerHost": 65535}
    name = f"vhost/{raw['hostname']}"
    return {**row, "allowUnknownUser": False, "name": name, **raw, "identity": name}


def vhost_stats_row(core: router.Router, hostname: str) -> Row:
    """The row of one ``vhostStats``."""
    counts, name = core.admission.vhosts[hostname], f"vhostStats/{hostname}"
    remotes = {peer.number: peer.remote for peer in core.peers}
    return {
        "id": hostname,
        "hostname": hostname,
        "name": name,
        "identity": name,
        "connectionsApproved": counts.approved,
        "connectionsDenied": counts.denied,
        "connectionsCurrent": counts.current,
        "perUserState": {str(user): [remotes[n] for n in numbers] for user, numbers in counts.users.items()},
        "perHostState": {host: [remotes[n] for n in numbers] for host, numbers in counts.hosts.items()},
        "sessionDenied": counts.sessions_denied,
        "senderDenied": counts.senders_denied,
        "receiverDenied": counts.receivers_denied,
        "maxMessageSizeDenied": 0,
    }


def metric_lines(core: router.Router) -> list[str]:
    """Prometheus text, under the names that qdrouterd has (``src/http-libwebsockets.c``)."""
    row = router_row(core)
    lines = []
    for name, kind, attribute in (
        ("connections", "gauge", "connectionCount"),
        ("links", "gauge", "linkCount"),
        ("addresses", "gauge", "addrCount"),
        ("routers", "gauge", "nodeCount"),
        ("presettled_deliveries", "counter", "presettledDeliveries"),
        ("dropped_presettled_deliveries", "counter", "droppedPresettledDeliveries"),
        ("accepted_deliveries", "counter", "acceptedDeliveries"),
        ("released_deliveries", "counter", "releasedDeliveries"),
        ("rejected_deliveries", "counter", "rejectedDeliveries"),
        ("modified_deliveries", "counter", "modifiedDeliveries"),
        ("deliveries_ingress", "counter", "deliveriesIngress"),
        ("deliveries_egress", "counter", "deliveriesEgress"),
    ):
        lines += [f"# TYPE qdr_{name}_total {kind}", f"qdr_{name}_total {row[attribute]}"]
    lines.append("# TYPE om_devrouter_policy_denials_total counter")
    for what, count in core.admission.denials().items():
        lines.append(f'om_devrouter_policy_denials_total{{what="{what}"}} {count}')
    return lines
