"""Make the other interior routers learn the addresses of this router again after its restart.

A router tells the others its addresses in numbered updates. An update with an unexpected number makes the receiver ask
for the whole list (qcm_mobile_sync_on_mau_CT in src/router_core/modules/mobile_sync/mobile.c of qpid-dispatch 1.19.0;
skupper-router 3.4.2 ignores further updates until it has the list). The restarted router counts from 1 again. If its
first update arrives before the receiver has noticed the restart, the receiver asks with the old, higher number, and
gets no answer. While it waits for that answer, it takes any update as the next one. From then on the numbers agree, and
the addresses in between are never learned: calls to them from behind the receiver wait until they time out.

No management operation makes the receiver ask again, and a router accepts updates from other routers alone. But an
address that goes away and comes back is in two new updates. So the agent closes the connections of the clients that
have such an address: they connect again after a second. Edge routers take another uplink.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
import typing

from om_agent import amqp, drain, errors, model, verify
from om_agent.apply import live_router
from om_agent.plan import router

# A router sends its updates once a second. On a busy machine it took up to 3 s until all others had them.
PATIENCE = 5.0
_MOBILE = "M"  # the name of an address that clients consume begins with this letter

Missing = typing.Mapping[str, typing.AbstractSet[str]]


@dataclasses.dataclass(frozen=True)
class Done:
    """What a run did and found.

    :param closed: how many connections the agent closed, and how many edge routers it moved.
    :param missing: how many addresses each other router lacks at the end, by its name.
    """

    closed: int
    missing: typing.Mapping[str, int]
    seconds: float


def consumed(rows: typing.Iterable[amqp.Row]) -> frozenset[str]:
    """Return the addresses that a router's clients and edge routers consume, from its ``router.address``; pure."""
    found: set[str] = set()
    for row in rows:
        name = str(row["name"])
        if name.startswith(_MOBILE) and row["subscriberCount"]:
            found.add(name)
    return frozenset(found)


def known(rows: typing.Iterable[amqp.Row], name: str) -> frozenset[str]:
    """Return the addresses of the router ``name`` that another router knows, from its ``router.address``; pure."""
    found: set[str] = set()
    for row in rows:
        owners_of_address = row["remoteHostRouters"] or ()
        if name in owners_of_address:
            found.add(str(row["name"]))
    return frozenset(found)


def owners(links: typing.Iterable[amqp.Row], addresses: typing.AbstractSet[str]) -> frozenset[str]:
    """Return the connections whose links consume one of ``addresses``; pure."""
    consumers = [link for link in links if link["linkDir"] == "out" and link["owningAddr"] in addresses]
    return frozenset(str(link["connectionId"]) for link in consumers)


def both(before: Missing, now: Missing) -> frozenset[str]:
    """Return the addresses that the same router lacked in two checks in a row; pure."""
    found: set[str] = set()
    for name, addresses in now.items():
        found |= addresses & before.get(name, frozenset())
    return frozenset(found)


def missing(client: amqp.Client, router_plan: router.RouterPlan) -> dict[str, frozenset[str]]:
    """Return the addresses of this router that each other interior router lacks.

    A router that lacks none, or does not answer, is not in the result.

    :raises om_agent.errors.Unreachable: when this router gives no answer.
    """
    found: dict[str, frozenset[str]] = {}
    own_name = router_plan.node.name
    own: frozenset[str] = frozenset()
    if _has_others(router_plan):
        own = consumed(client.query("router.address", attributes=("name", "subscriberCount")))
    if not own:
        return found
    reachable = verify.reachable(client.query("router.node"), own_name)
    for name in sorted(reachable - {own_name}):
        with contextlib.suppress(errors.Unreachable):
            rows = client.query("router.address", router=name, attributes=("name", "remoteHostRouters"))
            lacking = own - known(rows, own_name)
            if lacking:
                found[name] = lacking
    return found


def resync(
    deployment: model.Deployment, router_plan: router.RouterPlan, root: pathlib.Path, seconds: float, stay: bool
) -> Done:
    """Check until no other interior router lacks an address, or for ``seconds``; close connections where one does.

    :param root: directory below which the agent stores where it manages a drained router.
    :param stay: check for all of ``seconds``, and meanwhile wait for a router that gives no answer.
    :raises om_agent.errors.Unreachable: when this router's management cannot be reached.
    """
    if not _has_others(router_plan):
        return Done(0, {}, 0.0)
    start = time.monotonic()
    closed: set[str] = set()
    before: Missing = {}
    while True:
        is_last = time.monotonic() - start + PATIENCE > seconds
        may_wait = stay and not is_last
        now, stuck = _check(deployment, router_plan, root, {} if is_last else before, closed, may_wait)
        if is_last or not (now or stay):
            counts = {name: len(addresses) for name, addresses in now.items()}
            return Done(len(closed), counts, time.monotonic() - start)
        # The closed connections are coming back. An address counts as missing only after two more checks.
        before = {} if stuck else now
        time.sleep(PATIENCE)


def _has_others(router_plan: router.RouterPlan) -> bool:
    """Return whether other routers learn addresses from this router by updates.

    An edge router needs none: it tells its uplink each address by itself.
    """
    return router_plan.mode == "interior" and router_plan.engine.record.changes


def _check(
    deployment: model.Deployment,
    router_plan: router.RouterPlan,
    root: pathlib.Path,
    before: Missing,
    closed: set[str],
    may_wait: bool,
) -> tuple[Missing, frozenset[str]]:
    """Return what is missing now, and the addresses whose connections the agent therefore closed.

    :param before: what was missing at the last check.
    :param closed: gets the identities of the closed connections.
    :param may_wait: whether a router that gives no answer is no error.
    """
    try:
        with live_router.connect(router_plan, live_router.read_drained_port(root)) as client:
            now = missing(client, router_plan)
            stuck = both(before, now)
            if stuck:
                closed.update(_close(deployment, router_plan, client, stuck))
    except errors.Unreachable:
        if not may_wait:
            raise
        return {}, frozenset()
    return now, stuck


def _close(
    deployment: model.Deployment,
    router_plan: router.RouterPlan,
    client: amqp.Client,
    addresses: typing.AbstractSet[str],
) -> typing.Iterator[str]:
    """Close the connections that consume ``addresses``, and move edge routers; yield each connection's identity."""
    links = client.query("router.link", attributes=("linkDir", "owningAddr", "connectionId"))
    to_close = owners(links, addresses)
    for row in client.query("connection"):
        identity = str(row["identity"])
        if identity not in to_close:
            continue
        if row["role"] == "edge":  # the engines refuse to close it
            if drain.turn_edge(deployment, router_plan, str(row["container"])):
                yield identity
            continue
        with contextlib.suppress(amqp.Refused):  # the connection ended by itself
            client.update("connection", identity, {"adminStatus": "deleted"})
            yield identity
