"""Who is in: decides on connections, and counts them and every denial, as qpid-dispatch 1.19 does. No I/O.

Source: ``src/policy.c`` for the router's counts, ``policy_util.py``, PolicyAppConnectionMgr, for those of a vhost.
"""

from __future__ import annotations

import collections
import dataclasses
import logging

from om_devrouter import policy

LOG = logging.getLogger(__name__)


@dataclasses.dataclass
class VhostCounts:
    """Connections and denials of one vhost, by the names that management has for them."""

    approved: int = 0
    denied: int = 0
    current: int = 0
    sessions_denied: int = 0
    senders_denied: int = 0
    receivers_denied: int = 0
    users: dict[str | None, list[int]] = dataclasses.field(default_factory=lambda: collections.defaultdict(list))
    hosts: dict[str, list[int]] = dataclasses.field(default_factory=lambda: collections.defaultdict(list))


class Admission:
    """The door of one router. ``messages_denied`` counts what qdrouterd does not count."""

    def __init__(self, rules: policy.Policy) -> None:
        self.rules = rules
        self.processed = self.denied = self.current = self.links_denied = self.total_denials = 0
        self.messages_denied = 0
        self.vhosts = {vhost.hostname: VhostCounts() for vhost in rules.vhosts}

    # Connections.

    def accept(self, host: str) -> bool:
        """A socket was accepted: whether to keep it (policy.c, qd_policy_socket_accept)."""
        self.processed += 1
        if self.current < self.rules.max_connections:
            self.current += 1
            return True
        self.denied += 1
        self.total_denials += 1
        LOG.info("DENY connection from %s: the router's maxConnections reached", host)
        return False

    def opened(self, number: int, user: str | None, host: str, name: str) -> policy.Permit | policy.Denial | None:
        """A peer opened a connection: what it may do, or why nothing; None when no policy is in force.

        :param name: of the vhost that it wants or that its listener has
        """
        if not self.rules.enabled:
            return None
        vhost = self.rules.vhost(name)
        if vhost is None:
            return self._refuse(number, user, host, name, "no policy for this vhost")
        group, counts = vhost.group(user), self.vhosts[vhost.hostname]
        if group is None:
            why = "user in no group"
        elif not group.takes(host):
            why = "not from this host"
        else:
            why = self._full(vhost, group, user, host)
        if group is None or why:
            counts.denied += 1
            return self._refuse(number, user, host, vhost.hostname, why)
        counts.approved += 1
        counts.current += 1
        counts.users[user].append(number)
        counts.hosts[host].append(number)
        return policy.Permit(vhost.hostname, group, user, host)

    def _full(self, vhost: policy.Vhost, group: policy.Group, user: str | None, host: str) -> str:
        """Which limits are reached (policy_util.py, can_connect); a group's own override those of the vhost."""
        counts = self.vhosts[vhost.hostname]
        per_user, per_host = group.max_connections_per_user, group.max_connections_per_host
        limits = {
            "maxConnections": (counts.current, vhost.max_connections),
            "maxConnectionsPerUser": (
                len(counts.users.get(user, ())),
                vhost.max_connections_per_user if per_user is None else per_user,
            ),
            "maxConnectionsPerHost": (
                len(counts.hosts.get(host, ())),
                vhost.max_connections_per_host if per_host is None else per_host,
            ),
        }
        reached = [name for name, (count, limit) in limits.items() if count >= limit]
        return f"{' and '.join(reached)} reached" if reached else ""

    def _refuse(self, number: int, user: str | None, host: str, vhost: str, why: str) -> policy.Denial:
        denial = policy.refused_connection(f"connection: {why}")
        _log(number, denial, user, host, vhost)
        return denial

    def left(self, number: int, permit: policy.Permit | None) -> None:
        """A connection whose socket had been kept is gone."""
        self.current -= 1
        if permit is None:
            return
        counts = self.vhosts[permit.vhost]
        counts.current -= 1
        _remove(counts.users, permit.user, number)
        _remove(counts.hosts, permit.host, number)

    def denials(self) -> dict[str, int]:
        """How often what was refused, since the start."""
        vhosts = self.vhosts.values()
        return {
            "connection": self.denied + sum(counts.denied for counts in vhosts),
            "session": sum(counts.sessions_denied for counts in vhosts),
            "link": self.links_denied,
            "message": self.messages_denied,
        }

    # What those that are in were denied.

    def session_denied(self, number: int, permit: policy.Permit, denial: policy.Denial) -> None:
        """Count and log a session (policy.c, qd_policy_deny_amqp_session)."""
        self.total_denials += 1
        self.vhosts[permit.vhost].sessions_denied += 1
        _log(number, denial, permit.user, permit.host, permit.vhost)

    def link_denied(self, number: int, permit: policy.Permit, denial: policy.Denial, sender: bool) -> None:
        """Count and log a link (policy.c, _qd_policy_deny_amqp_link).

        :param sender: whether the peer wanted to send
        """
        self.links_denied += 1
        self.total_denials += 1
        counts = self.vhosts[permit.vhost]
        if sender:
            counts.senders_denied += 1
        else:
            counts.receivers_denied += 1
        _log(number, denial, permit.user, permit.host, permit.vhost)

    def message_denied(self, number: int, permit: policy.Permit, denial: policy.Denial) -> None:
        """Count and log a message; qdrouterd logs it only."""
        self.messages_denied += 1
        _log(number, denial, permit.user, permit.host, permit.vhost)


def _remove(lists: dict[str | None, list[int]] | dict[str, list[int]], key: str | None, number: int) -> None:
    found = lists[key]  # type: ignore[index]
    found.remove(number)
    if not found:
        del lists[key]  # type: ignore[arg-type]


def _log(number: int, denial: policy.Denial, user: str | None, host: str, vhost: str) -> None:
    where = (policy.shown(user), host, policy.shown(vhost))
    LOG.info("[C%d] DENY %s (user %s, host %s, vhost %s)", number, denial.what, *where)
