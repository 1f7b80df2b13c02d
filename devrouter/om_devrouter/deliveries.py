"""Deliveries on their way through the router, and how the outcomes of consumers become the producer's.

Pure: proton's delivery objects are only carried along. The rules are those of qpid-dispatch 1.19,
``src/router_core/delivery.c``: the outcome of a single consumer is copied; several consumers' outcomes (multicast) are
merged, and reported when the last one has settled.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import Any, NamedTuple, Protocol, Union

from om_devrouter import addresses

Chunk = Union[bytes, bytearray]

#: Terminal delivery states (AMQP 1.0 part 3, section 3.4: the descriptors of the outcomes).
ACCEPTED, REJECTED, RELEASED, MODIFIED = 0x24, 0x25, 0x26, 0x27
TERMINAL = frozenset((ACCEPTED, REJECTED, RELEASED, MODIFIED))
#: Which outcome of a multicast wins (delivery.c, qdr_delivery_mcast_outbound_disposition_CT).
_PRIORITY = {RELEASED: 0, MODIFIED: 1, ACCEPTED: 2, REJECTED: 3}

#: A message of which so many bytes wait for its only consumer is not read further until half of it is gone.
HOLD_BYTES = 1024 * 1024


class Outcome(NamedTuple):
    """What became of a delivery; ``state`` is None for a settlement without an outcome."""

    state: int | None
    failed: bool = False
    undeliverable: bool = False
    annotations: Any = None
    condition: Any = None


@dataclasses.dataclass
class Counters:
    """Deliveries by fate, as management names them; those of the router count incoming links only."""

    presettled: int = 0
    dropped: int = 0
    accepted: int = 0
    rejected: int = 0
    released: int = 0
    modified: int = 0
    ingress: int = 0
    egress: int = 0

    def count(self, presettled: bool, state: int | None) -> None:
        """Count one finished delivery."""
        if presettled:
            self.presettled += 1
        elif state == ACCEPTED:
            self.accepted += 1
        elif state == REJECTED:
            self.rejected += 1
        elif state == RELEASED:
            self.released += 1
        elif state == MODIFIED:
            self.modified += 1


def merge(first: Outcome | None, second: Outcome) -> Outcome:
    """The outcome of two consumers of one multicast delivery: the more severe one."""
    if first is None or first.state is None:
        return second
    if second.state is None or _PRIORITY[second.state] <= _PRIORITY[first.state]:
        return first
    return second


class ProducerLink(Protocol):
    """The link on which a producer sends, as far as deliveries and consumers need it: ``inlink.InLink``."""

    closed: bool
    held_off: bool

    def read(self) -> None:
        """Take what has arrived."""
        ...  # pragma: no cover

    def report(self, inbound: Inbound, outcome: Outcome) -> None:
        """Tell the producer an outcome without settling."""
        ...  # pragma: no cover

    def finish(self, inbound: Inbound, outcome: Outcome) -> None:
        """Settle with the producer."""
        ...  # pragma: no cover


class ConsumerLink(addresses.Consumer, Protocol):
    """The link on which a consumer receives, as far as deliveries and producers need it: ``outlink.OutLink``."""

    def offer(self, out: Outbound) -> None:
        """Queue a copy."""
        ...  # pragma: no cover

    def pump(self) -> None:
        """Send what the consumer's credit and the socket allow."""
        ...  # pragma: no cover

    def settle(self, out: Outbound) -> None:
        """Settle a copy, since its producer settled first."""
        ...  # pragma: no cover

    def abort(self, out: Outbound) -> None:
        """Withdraw a copy whose producer gave up before its end."""
        ...  # pragma: no cover


class Inbound:
    """A delivery that a producer sends.

    ``held`` collects its bytes until it is routed; afterwards they live in the queues of ``outs`` only.
    """

    __slots__ = (
        "complete",
        "delivery",
        "finished",
        "for_router",
        "held",
        "link",
        "multicast",
        "outcome",
        "outs",
        "presettled",
        "refused",
        "routed",
        "waiting",
    )

    def __init__(self, link: ProducerLink | None, delivery: Any, presettled: bool) -> None:
        self.link = link
        self.delivery = delivery
        self.presettled = presettled
        self.complete = False
        self.routed = False
        self.held = bytearray()
        self.outs: list[Outbound] = []
        self.waiting = 0
        self.outcome: Outcome | None = None
        self.multicast = False
        self.for_router = False
        self.finished = False
        # Not let through, and therefore none of the router's deliveries.
        self.refused = False

    @property
    def blocked(self) -> bool:
        """Whether reading on would only pile up bytes. Multicast is never blocked: the slowest would stop all."""
        return len(self.outs) == 1 and not self.multicast and self.outs[0].waiting > HOLD_BYTES

    def feed(self, data: Chunk) -> None:
        """Pass on more bytes; the consumers' queues share one copy of them."""
        for out in self.outs:
            if not out.gone:
                out.feed(data)

    def progress(self, outcome: Outcome) -> None:
        """A consumer reported an outcome that it has not settled yet: an only consumer's is told at once."""
        if not self.multicast and self.link is not None and not self.presettled and not self.finished:
            self.link.report(self, outcome)

    def consumer_done(self, outcome: Outcome) -> None:
        """A consumer will not say more about its copy; the last one settles the delivery."""
        self.waiting -= 1
        self.outcome = merge(self.outcome, outcome)
        self.settle_if_done()

    def settle_if_done(self) -> None:
        """Settle with the producer once all of it arrived and every consumer is done with it."""
        if self.complete and self.waiting <= 0 and self.link is not None and not self.finished:
            self.finished = True
            self.link.finish(self, self.outcome or Outcome(None))


class Outbound:
    """One consumer's copy of a delivery. ``waiting`` counts bytes not yet handed to proton."""

    __slots__ = ("chunks", "complete", "delivery", "gone", "inbound", "link", "presettled", "reported", "waiting")

    def __init__(self, link: ConsumerLink, inbound: Inbound) -> None:
        self.link = link
        self.inbound: Inbound | None = inbound
        self.presettled = inbound.presettled
        self.chunks: collections.deque[Chunk] = collections.deque()
        self.waiting = 0
        self.complete = False
        self.delivery: Any = None
        self.gone = False
        self.reported = False

    def feed(self, data: Chunk) -> None:
        """Queue more bytes of it."""
        self.chunks.append(data)
        self.waiting += len(data)

    def done(self, outcome: Outcome) -> None:
        """Nothing more is to be expected of this copy: tell the producer's side, once."""
        self.gone = True
        self.chunks.clear()
        self.waiting = 0
        inbound, self.inbound = self.inbound, None
        if inbound is not None:
            inbound.consumer_done(outcome)
