"""What the services that are connected to a router have, and what is wrong with that. Pure.

A message of om-agent's own says nothing of them: it goes over a connection of its own.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import typing

from om_agent import errors, kinds
from om_agent.plan import policy, router

NEAR = 0.8  # of a limit, from which there is a warning
_SPARE = 2  # of a limit: what is being opened and cannot be is not counted (14 to 16 of 16 when a service stood; run)
_NAMES = 3  # in a sentence
_DRIVER = "openstack.org/om/container/"  # how the container ids of oslo.messaging's driver begin
_MOBILE = re.compile(r"^M[0-9]?(?=\w)")  # what the engines put before an address of clients; qdrouterd a phase, too


@dataclasses.dataclass(frozen=True)
class Client:
    """A connection of a service to the router.

    :param host: its address and port.
    :param node: the name of its machine, as oslo.messaging's driver tells; '' of another program.
    :param senders: links on which it sends.
    :param receivers: links on which it receives.
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
        """What a sentence calls it."""
        if self.process:
            return f"{self.process} (process {self.pid} on {self.node})"
        return f"{errors.quoted(self.container)} at {self.host}"

    @property
    def sessions(self) -> int:
        """How many sessions it has as far as a router tells: the driver opens one for every link."""
        return self.senders + self.receivers if self.container.startswith(_DRIVER) else 0


@dataclasses.dataclass(frozen=True)
class Still:
    """A link that holds messages, of which none was settled while it was looked at.

    :param receives: whether the client receives on it; else it sends.
    :param held: messages that wait on it.
    """

    client: Client
    address: str
    receives: bool
    held: int


@dataclasses.dataclass(frozen=True)
class Unit:
    """A unit that runs and serves calls, so that it connects when it starts.

    :param file: that names the router.
    :param pids: of its processes.
    """

    name: str
    file: str
    pids: frozenset[int]


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was seen of all services that are connected.

    :param total: all connections, those of routers among them.
    :param still: what did not move for `seconds`.
    :param units: those whose processes have no connection.
    :param why: the rest could not be looked at; '' when it was.
    """

    clients: tuple[Client, ...] = ()
    total: int = 0
    still: tuple[Still, ...] = ()
    seconds: float = 0.0
    units: tuple[Unit, ...] = ()
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a connection of one user may have; None where there is no limit."""

    sessions: int | None = None
    senders: int | None = None
    receivers: int | None = None


def address_of(owning: object) -> str:
    """Return an address as services know it, from ``owningAddr`` of a link."""
    return _MOBILE.sub("", str(owning or ""))


def unconnected(units: typing.Iterable[Unit], seen: typing.Iterable[Client], node: str) -> tuple[Unit, ...]:
    """Return the units none of whose processes has a connection.

    :param node: this machine's name, as the driver tells it.
    """
    connected = {client.pid for client in seen if client.node == node}
    return tuple(unit for unit in units if not unit.pids & connected)


def limits(router_plan: router.RouterPlan, user: str) -> Limits:
    """Return what the plan's policy lets a user have; of several rules for one user the widest."""
    listeners = {str(a.get("policyVhost")): a for kind, a in router_plan.entities if kind == "listener"}
    found: dict[str, list[int | None]] = collections.defaultdict(list)
    for kind, vhost in router_plan.entities:
        listener = listeners.get(str(vhost.get("hostname")))
        if kind != "vhost" or listener is None:
            continue
        for group in dict(vhost.get("groups") or {}).values():
            if user in str(group.get("users")).split(","):
                own = int(listener.get("maxSessions") or policy.SESSIONS)  # the default of both engines
                found["sessions"].append(min(own, int(group.get("maxSessions") or own)))
                found["senders"].append(int(group.get("maxSenders") or 0) or None)
                found["receivers"].append(int(group.get("maxReceivers") or 0) or None)
    return Limits(**{key: _widest(values) for key, values in found.items()})


def _widest(limits: typing.Sequence[int | None]) -> int | None:
    """Return the largest; None stands for no limit."""
    return None if None in limits else max(limit for limit in limits if limit)


def client_findings(router_plan: router.RouterPlan, seen: Seen) -> typing.Iterator[errors.Problem]:
    """Yield what is wrong with what services have."""
    at = f"router on {router_plan.node.name}"
    if seen.why:
        yield kinds.finding(at, "services-unseen", why=seen.why)
    yield from _near_limits(router_plan, seen, at)
    most = next(
        (int(a["maxConnections"]) for kind, a in router_plan.entities if kind == "policy" and "maxConnections" in a), 0
    )
    if most and seen.total >= NEAR * most:
        code = "connections-exhausted" if seen.total >= most else "connections-near"
        yield kinds.finding(at, code, count=seen.total, limit=most)
    yield from _stuck(seen, at)
    yield from unit_findings(seen.units, f"the router at {errors.where(*router_plan.listener)}")


def unit_findings(units: typing.Iterable[Unit], where: str) -> typing.Iterator[errors.Problem]:
    """Yield that units have no connection.

    :param where: to what.
    """
    for unit in units:
        yield kinds.finding(unit.name, "unit-unconnected", unit=unit.name, where=where, file=unit.file)


def _near_limits(router_plan: router.RouterPlan, seen: Seen, at: str) -> typing.Iterator[errors.Problem]:
    known: dict[str, Limits] = {}
    groups: dict[tuple[str, str, int], list[Client]] = collections.defaultdict(list)
    for client in seen.clients:
        limit = known.setdefault(client.user, limits(router_plan, client.user))
        for what in ("sessions", "senders", "receivers"):
            count, most = getattr(client, what), getattr(limit, what)
            # More than there can be: it has several links in a session, so that nothing is told of its sessions.
            if most and NEAR * most <= count <= most:
                code = "sessions-exhausted" if count >= most - _SPARE else "sessions-near"
                groups[code, what, most].append(client)
    for (code, what, most), many in groups.items():
        names = errors.listed(sorted(client.who for client in many), _NAMES)
        yield kinds.finding(at, code, names=names, what=what, limit=most)


def _stuck(seen: Seen, at: str) -> typing.Iterator[errors.Problem]:
    takers: dict[str, list[Still]] = collections.defaultdict(list)
    for one in seen.still:
        if one.receives:
            takers["listener-slow" if one.address.startswith(f"{policy.PREFIX}/notify/") else "service-stuck"].append(
                one
            )
    for code, many in takers.items():
        names = errors.listed(sorted({one.client.who for one in many}), _NAMES)
        count = sum(one.held for one in many)
        yield kinds.finding(at, code, names=names, count=count, seconds=f"{seen.seconds:.0f}")
    told = {one.address for one in seen.still if one.receives}
    waiting = [one for one in seen.still if not one.receives and one.address not in told]
    waiting = [one for one in waiting if not one.address.startswith(f"{policy.PREFIX}/notify/")]
    if waiting:
        names = errors.listed(sorted({one.address for one in waiting}), _NAMES)
        count = sum(one.held for one in waiting)
        yield kinds.finding(at, "calls-stuck", names=names, count=count, seconds=f"{seen.seconds:.0f}")
