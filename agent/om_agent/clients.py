"""The connections and links of services at a router, and what is wrong with them. Pure.

A test message of om-agent does not show these problems, since it uses its own connection.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import typing

from om_agent import errors, kinds
from om_agent.plan import policy, router

NEAR = 0.8  # the share of a limit from which there is a warning
# A limit counts as used up when this many are left. The router does not count what a client is trying to open: when a
# service stood still, it counted 14 to 16 of 16 (run).
_SPARE = 2
_NAMES = 3  # in a sentence
_DRIVER = "openstack.org/om/container/"  # the start of the container ids of oslo.messaging's driver
# What the engines put before an address of clients; qdrouterd also puts a phase there.
_MOBILE = re.compile(r"^M[0-9]?(?=\w)")
_NOTIFICATIONS = f"{policy.PREFIX}/notify/"  # the start of addresses of notifications


@dataclasses.dataclass(frozen=True)
class Client:
    """A connection of a service to the router.

    :param host: the address and port of the client.
    :param node: the name of its machine, as oslo.messaging's driver reports it; '' when the client is another program.
    :param senders: how many links it sends on.
    :param receivers: how many links it receives on.
    """

    container: str
    host: str
    user: str
    process: str = ""
    pid: int = 0
    node: str = ""
    senders: int = 0
    receivers: int = 0

    @property
    def who(self) -> str:
        """How a sentence names it."""
        if self.process:
            return f"{self.process} (process {self.pid} on {self.node})"
        return f"{errors.quoted(self.container)} at {self.host}"

    @property
    def sessions(self) -> int:
        """How many sessions it has. A router does not report them, but the driver opens one for every link."""
        return self.senders + self.receivers if self.container.startswith(_DRIVER) else 0


@dataclasses.dataclass(frozen=True)
class StuckLink:
    """A link that holds messages, none of which was settled while the agent watched it.

    :param receives: whether the client receives on it; otherwise it sends.
    :param held: how many messages wait on it.
    """

    client: Client
    address: str
    receives: bool
    held: int


@dataclasses.dataclass(frozen=True)
class Unit:
    """A systemd unit that runs and serves calls, so that it connects when it starts.

    :param file: the file that names the router or broker.
    :param pids: the ids of its processes.
    """

    name: str
    file: str
    pids: frozenset[int]


@dataclasses.dataclass(frozen=True)
class ServicesSeen:
    """What the agent observed of all connected services.

    :param total: how many connections the router has, including those of other routers.
    :param stuck: links on which no message moved for ``seconds``.
    :param units: units none of whose processes has a connection.
    :param why: why the agent could not examine the services; '' when it could.
    """

    clients: tuple[Client, ...] = ()
    total: int = 0
    stuck: tuple[StuckLink, ...] = ()
    seconds: float = 0.0
    units: tuple[Unit, ...] = ()
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Limits:
    """How many sessions and links a connection of one user may have; None where there is no limit."""

    sessions: int | None = None
    senders: int | None = None
    receivers: int | None = None


def address_of(owning: object) -> str:
    """Return the address that services use, from ``owningAddr`` of a link."""
    return _MOBILE.sub("", str(owning or ""))


def unconnected(units: typing.Iterable[Unit], connected: typing.Iterable[Client], node: str) -> tuple[Unit, ...]:
    """Return the units none of whose processes has a connection.

    :param node: this machine's name, as the driver reports it.
    """
    pids = {client.pid for client in connected if client.node == node}
    return tuple(unit for unit in units if not unit.pids & pids)


def limits(router_plan: router.RouterPlan, user: str) -> Limits:
    """Return the limits of a user in the plan's policy. Of several rules for one user, the most permissive counts."""
    listeners = {}
    for kind, attributes in router_plan.entities:
        if kind == "listener":
            listeners[str(attributes.get("policyVhost"))] = attributes
    found = []
    for kind, vhost in router_plan.entities:
        listener = listeners.get(str(vhost.get("hostname")))
        if kind == "vhost" and listener:
            groups = dict(vhost.get("groups") or {}).values()
            found += [_limits_of(group, listener) for group in groups if user in str(group.get("users")).split(",")]
    if not found:
        return Limits()
    return Limits(
        sessions=_highest([one.sessions for one in found]),
        senders=_highest([one.senders for one in found]),
        receivers=_highest([one.receivers for one in found]),
    )


def _limits_of(group: typing.Mapping[str, typing.Any], listener: typing.Mapping[str, typing.Any]) -> Limits:
    """Return the limits of one group of a policy."""
    of_listener = int(listener.get("maxSessions") or policy.SESSIONS)  # the default of both engines
    of_group = int(group.get("maxSessions") or of_listener)
    return Limits(
        sessions=min(of_listener, of_group),
        senders=int(group.get("maxSenders") or 0) or None,
        receivers=int(group.get("maxReceivers") or 0) or None,
    )


def _highest(limits: typing.Sequence[int | None]) -> int | None:
    """Return the highest limit; None, which means no limit, is the highest of all."""
    known = [limit for limit in limits if limit is not None]
    return max(known) if len(known) == len(limits) else None


def client_findings(router_plan: router.RouterPlan, seen: ServicesSeen) -> typing.Iterator[errors.Problem]:
    """Yield what is wrong with the connections and links of services."""
    at = f"router on {router_plan.node.name}"
    if seen.why:
        yield kinds.finding(at, "services-unseen", why=seen.why)
    yield from _near_limits(router_plan, seen, at)
    policies = [attributes for kind, attributes in router_plan.entities if kind == "policy"]
    limit = next((int(one["maxConnections"]) for one in policies if "maxConnections" in one), 0)
    if limit and seen.total >= NEAR * limit:
        code = "connections-exhausted" if seen.total >= limit else "connections-near"
        yield kinds.finding(at, code, count=seen.total, limit=limit)
    yield from _stuck_receivers(seen, at)
    yield from _stuck_calls(seen, at)
    yield from unit_findings(seen.units, f"the router at {errors.where(*router_plan.listener)}")


def unit_findings(units: typing.Iterable[Unit], where: str) -> typing.Iterator[errors.Problem]:
    """Yield that units have no connection.

    :param where: what they should be connected to.
    """
    for unit in units:
        yield kinds.finding(unit.name, "unit-unconnected", unit=unit.name, where=where, file=unit.file)


def _near_limits(router_plan: router.RouterPlan, seen: ServicesSeen, at: str) -> typing.Iterator[errors.Problem]:
    """Yield the services that have nearly all sessions or links that the policy allows them."""
    known: dict[str, Limits] = {}
    groups: dict[tuple[str, str, int], list[Client]] = collections.defaultdict(list)
    for client in seen.clients:
        if client.user not in known:
            known[client.user] = limits(router_plan, client.user)
        for what in ("sessions", "senders", "receivers"):
            count = getattr(client, what)
            limit = getattr(known[client.user], what)
            # A count above the limit means several links in one session: then the number of sessions is not known.
            if limit and NEAR * limit <= count <= limit:
                code = "sessions-exhausted" if count >= limit - _SPARE else "sessions-near"
                groups[code, what, limit].append(client)
    for (code, what, limit), found in groups.items():
        names = errors.listed(sorted(client.who for client in found), _NAMES)
        yield kinds.finding(at, code, names=names, what=what, limit=limit)


def _stuck_receivers(seen: ServicesSeen, at: str) -> typing.Iterator[errors.Problem]:
    """Yield the services that do not accept the messages that the router holds for them."""
    by_code: dict[str, list[StuckLink]] = collections.defaultdict(list)
    for link in seen.stuck:
        if link.receives:
            notified = link.address.startswith(_NOTIFICATIONS)
            by_code["listener-slow" if notified else "service-stuck"].append(link)
    for code, links in by_code.items():
        names = errors.listed(sorted({link.client.who for link in links}), _NAMES)
        count = sum(link.held for link in links)
        yield kinds.finding(at, code, names=names, count=count, seconds=f"{seen.seconds:.0f}")


def _stuck_calls(seen: ServicesSeen, at: str) -> typing.Iterator[errors.Problem]:
    """Yield the calls of services here that no service accepts, unless that service is connected here as well."""
    reported = {link.address for link in seen.stuck if link.receives}
    sending = [link for link in seen.stuck if not link.receives and link.address not in reported]
    calls = [link for link in sending if not link.address.startswith(_NOTIFICATIONS)]
    if calls:
        names = errors.listed(sorted({link.address for link in calls}), _NAMES)
        count = sum(link.held for link in calls)
        yield kinds.finding(at, "calls-stuck", names=names, count=count, seconds=f"{seen.seconds:.0f}")
