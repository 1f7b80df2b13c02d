"""Having the other interior routers learn the addresses of this one again, after its restart.

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
_MOBILE = "M"  # the class of an address that clients consume, the first letter of its name

Missing = typing.Mapping[str, typing.AbstractSet[str]]


@dataclasses.dataclass(frozen=True)
class Done:
    """What a run did and found.

    :param closed: connections that it closed, or edge routers that it moved.
    :param missing: by the other router's name, how many addresses that one lacks at the end.
    """

    closed: int
    missing: typing.Mapping[str, int]
    seconds: float


def consumed(rows: typing.Iterable[amqp.Row]) -> frozenset[str]:
    """Return the addresses that clients or edge routers of a router consume, from its ``router.address``; pure."""
    return frozenset(str(r["name"]) for r in rows if str(r["name"])[:1] == _MOBILE and r["subscriberCount"])


def known(rows: typing.Iterable[amqp.Row], name: str) -> frozenset[str]:
    """Return the addresses of the router ``name`` that another one knows, from that one's ``router.address``; pure."""
    return frozenset(str(r["name"]) for r in rows if name in (r["remoteHostRouters"] or ()))


def owners(links: typing.Iterable[amqp.Row], addresses: typing.AbstractSet[str]) -> frozenset[str]:
    """Return the connections whose links consume one of ``addresses``; pure."""
    return frozenset(str(r["connectionId"]) for r in links if r["linkDir"] == "out" and r["owningAddr"] in addresses)


def both(before: Missing, now: Missing) -> frozenset[str]:
    """Return the addresses that the same router lacked in two looks; pure."""
    return frozenset(address for name in now for address in now[name] & before.get(name, frozenset()))


def missing(client: amqp.Client, p: router.RouterPlan) -> dict[str, frozenset[str]]:
    """Return which addresses of this router each other interior lacks; without those that lack none or do not answer.

    :raises om_agent.errors.Unreachable: when this router gives no answer.
    """
    found: dict[str, frozenset[str]] = {}
    if not _has_others(p):
        return found
    own = consumed(client.query("router.address", attributes=("name", "subscriberCount")))
    reached = verify.reachable(client.query("router.node"), p.node.name) - {p.node.name} if own else frozenset()
    for name in sorted(reached):
        with contextlib.suppress(errors.Unreachable):
            rows = client.query("router.address", router=name, attributes=("name", "remoteHostRouters"))
            lacking = own - known(rows, p.node.name)
            if lacking:
                found[name] = lacking
    return found


def resync(d: model.Deployment, p: router.RouterPlan, root: pathlib.Path, seconds: float, stay: bool) -> Done:
    """Look until no other interior lacks an address, or for ``seconds``; close connections where one does.

    :param root: below which it is noted where a drained router is managed.
    :param stay: look for all of ``seconds``, and wait meanwhile for a router that gives no answer.
    :raises om_agent.errors.Unreachable: when this router cannot be asked.
    """
    start = time.monotonic()
    closed: set[str] = set()
    before: Missing = {}
    while _has_others(p):
        late = time.monotonic() - start + PATIENCE > seconds
        now, stuck = _look(d, p, root, {} if late else before, closed, stay and not late)
        if late or not (now or stay):
            return Done(len(closed), {name: len(lacking) for name, lacking in now.items()}, time.monotonic() - start)
        # What was closed is on its way back, and counts as missing only after two more looks.
        before = {} if stuck else now
        time.sleep(PATIENCE)
    return Done(0, {}, 0.0)


def _has_others(p: router.RouterPlan) -> bool:
    """Return whether other routers learn addresses from this one: an edge router tells each to its uplink by itself."""
    return p.mode == "interior" and p.engine.record.changes


def _look(
    d: model.Deployment, p: router.RouterPlan, root: pathlib.Path, before: Missing, closed: set[str], waits: bool
) -> tuple[Missing, frozenset[str]]:
    """Return what is missing now, and the addresses whose connections were therefore closed."""
    try:
        with live_router.connect(p, live_router.read_drained_port(root)) as client:
            now = missing(client, p)
            stuck = both(before, now)
            closed.update(_close(d, p, client, stuck) if stuck else ())
    except errors.Unreachable:
        if not waits:
            raise
        return {}, frozenset()
    return now, stuck


def _close(
    d: model.Deployment, p: router.RouterPlan, client: amqp.Client, addresses: typing.AbstractSet[str]
) -> typing.Iterator[str]:
    """Close the connections that consume ``addresses``; yields each that was closed, or whose edge router moved."""
    links = client.query("router.link", attributes=("linkDir", "owningAddr", "connectionId"))
    found = owners(links, addresses)
    for row in client.query("connection"):
        identity = str(row["identity"])
        if identity not in found:
            continue
        if row["role"] == "edge":  # the engines refuse to close it
            if drain.turn_edge(d, p, str(row["container"])):
                yield identity
            continue
        with contextlib.suppress(amqp.Refused):  # it ended by itself
            client.update("connection", identity, {"adminStatus": "deleted"})
            yield identity
