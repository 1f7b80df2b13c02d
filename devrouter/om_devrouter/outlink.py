"""``OutLink``: the router's end of a link on which a consumer receives.

Its queue is bounded: for deliveries that await an outcome by the producers' credit, for presettled ones by dropping
what waits once linkCapacity of them do (qpid-dispatch 1.19, ``forwarder.c``, qdr_forward_deliver_CT).
"""

from __future__ import annotations

import collections
import itertools
from typing import Any

from om_devrouter import addresses, deliveries, links
from om_devrouter.deliveries import Outbound, Outcome

#: Bytes of one delivery that proton may hold encoded before the rest waits for the socket.
SEND_WINDOW = 256 * 1024

_NO_ROUTE = Outcome(deliveries.RELEASED)
_LOST = Outcome(deliveries.MODIFIED, failed=True)


class OutLink:
    """A link on which a consumer receives."""

    _tags = itertools.count()

    def __init__(
        self,
        core: links.Core,
        peer: links.Peer,
        link: Any,
        capacity: int,
        address: addresses.Address[deliveries.ConsumerLink],
    ) -> None:
        self.core = core
        self.peer = peer
        self.link = link
        self.name: str = link.name
        self.capacity = capacity
        self.address = address
        self.counters = deliveries.Counters()
        self.queue: collections.deque[Outbound] = collections.deque()
        self.unsettled: set[Outbound] = set()
        self.closed = False

    @property
    def outstanding(self) -> int:
        """Deliveries queued for the consumer plus those that it holds unsettled."""
        return len(self.queue) + len(self.unsettled)

    def offer(self, out: Outbound) -> None:
        """Queue a copy; a full queue of presettled ones is dropped first, but for what may be half sent."""
        if out.presettled and len(self.queue) >= self.capacity:
            self._drop_presettled()
        self.queue.append(out)
        self.counters.egress += 1

    def _drop_presettled(self) -> None:
        kept = collections.deque(itertools.islice(self.queue, 1))
        dropped = 0
        for out in itertools.islice(self.queue, 1, None):
            if out.presettled:
                out.done(Outcome(None))
                dropped += 1
            else:
                kept.append(out)
        self.queue = kept
        self.counters.dropped += dropped
        self.core.counters.dropped += dropped

    def pump(self) -> None:
        """Send what the consumer's credit and the socket allow."""
        while self.queue and not self.closed:
            out = self.queue[0]
            if out.delivery is None and not self._start(out):
                return
            self.peer.touch()
            if not self._push(out):
                return
            self.queue.popleft()
            self.link.advance()
            if out.presettled:
                self._forget(out)
                out.delivery.settle()
                self.counters.count(True, None)
                out.done(Outcome(None))
        if not self.closed and self.link.drain_mode:
            self.link.drained()
            self.peer.touch()

    def _start(self, out: Outbound) -> bool:
        if self.link.credit <= 0 or not (out.chunks or out.complete):
            return False
        out.delivery = self.link.delivery(b"%x" % next(self._tags))
        out.delivery.outbound = out
        if not out.presettled:
            self.unsettled.add(out)
        return True

    def _push(self, out: Outbound) -> bool:
        """Hand bytes of the delivery to proton; True when that was the last of it."""
        chunks = out.chunks
        while chunks:
            if len(chunks) > 1 and out.delivery.pending > SEND_WINDOW:
                self.peer.stalled[self] = None
                return False
            data = chunks.popleft()
            out.waiting -= len(data)
            self.link.send(data)
        source = out.inbound.link if out.inbound is not None else None
        if source is not None and source.held_off and out.waiting <= deliveries.HOLD_BYTES // 2:
            self.core.resumable[source] = None
        return out.complete

    def updated(self, delivery: Any) -> None:
        """The consumer reported an outcome, a settlement, or both."""
        out: Outbound | None = getattr(delivery, "outbound", None)
        if out is None:
            if delivery.settled:
                delivery.settle()
            return
        settled, state = delivery.settled, int(delivery.remote_state)
        outcome = _remote(delivery, state) if state in deliveries.TERMINAL else Outcome(None)
        if outcome.state is not None and not out.reported:
            out.reported = True
            if not settled and out.inbound is not None:
                out.inbound.progress(outcome)
        if settled:
            self._settled(out, outcome)

    def _settled(self, out: Outbound, outcome: Outcome) -> None:
        self.unsettled.discard(out)
        self.counters.count(False, outcome.state)
        if self.queue and self.queue[0] is out:
            # Settled before all of it was sent: the rest still has to follow, then it ends without a word.
            inbound, out.inbound, out.presettled = out.inbound, None, True
            if inbound is not None:
                inbound.consumer_done(outcome)
            return
        self._forget(out)
        out.delivery.settle()
        self.peer.touch()
        out.done(outcome)

    def settle(self, out: Outbound) -> None:
        """The producer settled first: the consumer's copy is settled too, after it was sent."""
        out.presettled = True
        self.unsettled.discard(out)
        if out.delivery is not None and not (self.queue and self.queue[0] is out):
            self._forget(out)
            out.delivery.settle()
            out.gone = True
            self.peer.touch()

    def abort(self, out: Outbound) -> None:
        """Withdraw a copy whose producer gave up before its end."""
        if self.closed or out.gone:
            return
        if out in self.queue:
            self.queue.remove(out)
        self.unsettled.discard(out)
        if out.delivery is not None:
            self._forget(out)
            out.delivery.abort()
            self.peer.touch()
        out.done(Outcome(None))
        self.pump()

    @staticmethod
    def _forget(out: Outbound) -> None:
        # The wrapper's attributes live in proton's memory: without this neither side would ever be freed.
        out.delivery.outbound = None

    def close(self) -> None:
        """The consumer is gone: what it was not sent is released, what it may have seen is modified(failed)."""
        self.closed = True
        queued, self.queue = self.queue, collections.deque()
        begun, self.unsettled = self.unsettled, set()
        for out in begun:
            out.done(_LOST)
        for out in queued:
            if not out.gone:
                out.done(_LOST if out.delivery is not None else _NO_ROUTE)
        for out in itertools.chain(begun, queued):
            if out.delivery is not None:
                self._forget(out)


def _remote(delivery: Any, state: int) -> Outcome:
    """What the consumer said, with the details that its kind of outcome has."""
    remote = delivery.remote
    if state == deliveries.REJECTED:
        return Outcome(state, condition=remote.condition)
    if state == deliveries.MODIFIED:
        return Outcome(state, remote.failed, remote.undeliverable, remote.annotations)
    return Outcome(state)
