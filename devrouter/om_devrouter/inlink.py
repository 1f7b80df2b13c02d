"""``InLink``: the router's end of a link on which a producer sends.

Flow control is that of qpid-dispatch 1.19: a producer is granted the listener's linkCapacity while its address has a
consumer, and no more once it has none.
"""

from __future__ import annotations

from typing import Any

import proton

from om_devrouter import addresses, deliveries, links, policy, wire
from om_devrouter.deliveries import Inbound, Outcome

#: Properties must begin within this; an anonymous message that hides its destination behind more is rejected.
MAX_HEAD = 64 * 1024
#: So many destinations of an anonymous link are remembered as allowed before they are asked for again.
_REMEMBERED = 256

# router_node.c, AMQP_rx_handler, has the same words.
_UNREADABLE = proton.Condition("amqp:decode-error", "invalid message format")
_NO_ADDRESS = proton.Condition("amqp:precondition-failed", "Routing failure: no address present")


class InLink:
    """A link on which a producer sends. ``address`` is None for an anonymous relay."""

    def __init__(
        self,
        core: links.Core,
        peer: links.Peer,
        link: Any,
        capacity: int,
        address: addresses.Address[deliveries.ConsumerLink] | None,
    ) -> None:
        self.core = core
        self.peer = peer
        self.link = link
        self.name: str = link.name
        self.capacity = capacity
        self.address = address
        self.counters = deliveries.Counters()
        self.unsettled: set[Inbound] = set()
        self.closed = False
        # Whether reading stopped because the consumer of the current delivery is slower than its producer.
        self.held_off = False
        # Deliveries that were read whole and still await settlement: they keep their credit.
        self._holding = 0
        # Credit is given back in portions, not one by one: fewer flow frames.
        self._portion = max(1, capacity // 4)
        self._permit = peer.permit
        # Whether each message has to be looked into before it is routed: for its destination, or for its user.
        self._inspects = address is None or (self._permit is not None and not self._permit.group.allow_user_id_proxy)
        self._approved: set[str] = set()

    @property
    def wanted(self) -> bool:
        """Whether there is a point in sending here."""
        return self.address is None or self.address.reachable

    def grant(self) -> None:
        """Fill the producer's credit up to the capacity, if somebody consumes."""
        if self.closed or not self.wanted:
            return
        credit = self.link.credit
        missing = self.capacity - self._holding - credit
        if self.link.drain_mode:
            self.link.drain_mode = False
        elif not (missing >= self._portion or (missing > 0 and credit <= self._portion)):
            return
        self.link.flow(max(0, missing))
        self.peer.touch()

    def revoke(self) -> None:
        """Ask for the credit back: nobody consumes any more."""
        if not self.closed and self.link.credit > 0 and not self.link.drain_mode:
            self.link.drain(0)
            self.peer.touch()

    def read(self) -> None:
        """Take what has arrived, delivery by delivery, as far as it can be passed on."""
        while not self.closed:
            delivery = self.link.current
            if delivery is None or not self._read(delivery):
                return

    def _read(self, delivery: Any) -> bool:
        """Read on in the current delivery; True when it is finished and the next one can follow."""
        inbound: Inbound | None = getattr(delivery, "inbound", None)
        if inbound is None:
            if not delivery.pending and delivery.partial and not delivery.aborted:
                return False
            inbound = self._begin(delivery)
        if delivery.aborted:
            self._abort(inbound)
            return True
        self.held_off = inbound.blocked
        if self.held_off:
            return False
        size, partial = delivery.pending, delivery.partial
        if size:
            # Reading may open the session's window again, and the producer has to be told.
            self.peer.touch()
            self._take(inbound, self.link.recv(size), last=not partial)
        if not partial:
            self._end(inbound)
        return not partial

    def _begin(self, delivery: Any) -> Inbound:
        inbound = Inbound(self, delivery, presettled=delivery.settled)
        delivery.inbound = inbound
        self.unsettled.add(inbound)
        self.counters.ingress += 1
        self.core.counters.ingress += 1
        return inbound

    def _take(self, inbound: Inbound, data: deliveries.Chunk, last: bool) -> None:
        if inbound.routed and not inbound.for_router:
            inbound.feed(data)
        else:
            inbound.held += data
            if not inbound.routed:
                self._try_route(inbound, last)
        if not last:
            self._pump(inbound)

    def _try_route(self, inbound: Inbound, last: bool) -> None:
        """Route as soon as the destination is known and allowed: at once, unless the message is to be looked into."""
        address = self.address
        if self._inspects:
            try:
                head = wire.head(inbound.held)
            except wire.Incomplete:
                if last or len(inbound.held) > MAX_HEAD:
                    self._refuse(inbound, _UNREADABLE)
                return
            except wire.Malformed:
                self._refuse(inbound, _UNREADABLE)
                return
            denial = self._denial(head) if self._permit is not None else None
            if denial is not None:
                self._refuse(inbound, proton.Condition(denial.condition, denial.description))
                return
            if address is None:
                if head.to is None:
                    self._refuse(inbound, _NO_ADDRESS)
                    return
                address = self.core.resolve(head.to)
        inbound.routed = True
        self.core.route(inbound, address)
        if not inbound.for_router:
            data, inbound.held = inbound.held, bytearray()
            inbound.feed(data)

    def _denial(self, head: wire.Head) -> policy.Denial | None:
        """Why the policy does not let this message through, counted and logged."""
        permit = self._permit
        assert permit is not None
        denial = permit.user_id(head.user_id)
        if denial is None and self.address is None and head.to is not None and head.to not in self._approved:
            denial = permit.message(head.to)
            if denial is None:
                if len(self._approved) >= _REMEMBERED:
                    self._approved.clear()
                self._approved.add(head.to)
        if denial is not None:
            self.core.admission.message_denied(self.peer.number, permit, denial)
        return denial

    @staticmethod
    def _refuse(inbound: Inbound, condition: Any) -> None:
        inbound.routed = inbound.refused = True
        inbound.held = bytearray()
        inbound.outcome = Outcome(deliveries.REJECTED, condition=condition)

    def _end(self, inbound: Inbound) -> None:
        """All of the message is here."""
        if not inbound.routed:
            self._try_route(inbound, last=True)
        inbound.complete = True
        self.link.advance()
        self._holding += 1
        if inbound.for_router:
            inbound.outcome = self.core.handle(inbound.held)
            inbound.held = bytearray()
        for out in inbound.outs:
            out.complete = True
        if inbound.delivery.settled and not inbound.presettled:
            self._producer_settled(inbound)
        elif inbound.presettled:
            # Whatever the consumers do with their copies, the producer will not hear of it.
            inbound.waiting = 0
        self._pump(inbound)
        inbound.settle_if_done()

    def _pump(self, inbound: Inbound) -> None:
        for out in inbound.outs:
            out.link.pump()

    def _abort(self, inbound: Inbound) -> None:
        """The producer gave up in the middle: so do the copies."""
        self._drop_copies(inbound)
        inbound.finished = True
        self.unsettled.discard(inbound)
        inbound.delivery.inbound = None
        self.link.advance()
        inbound.delivery.settle()
        self.peer.touch()
        self.grant()

    @staticmethod
    def _drop_copies(inbound: Inbound) -> None:
        for out in inbound.outs:
            out.inbound = None
            if not out.complete:
                out.link.abort(out)

    def updated(self, delivery: Any) -> None:
        """The producer changed the state of a delivery that was read before."""
        inbound: Inbound | None = getattr(delivery, "inbound", None)
        if inbound is not None and inbound.complete and delivery.settled:
            self._producer_settled(inbound)
            inbound.settle_if_done()

    @staticmethod
    def _producer_settled(inbound: Inbound) -> None:
        """The producer no longer wants to know: settle the copies, whatever their consumers say."""
        for out in inbound.outs:
            if not out.gone:
                out.inbound = None
                out.link.settle(out)
        inbound.waiting = 0

    def report(self, inbound: Inbound, outcome: Outcome) -> None:
        """Tell the producer an outcome without settling."""
        if not self.closed and outcome.state is not None:
            _set_local(inbound.delivery, outcome)
            self.peer.touch()

    def finish(self, inbound: Inbound, outcome: Outcome) -> None:
        """Settle with the producer and give its credit back."""
        self.unsettled.discard(inbound)
        if not inbound.refused:
            self.core.counters.count(inbound.presettled, outcome.state)
            self.counters.count(inbound.presettled, outcome.state)
        if self.closed:
            return
        self._holding -= 1
        delivery, inbound.delivery = inbound.delivery, None
        delivery.inbound = None
        if outcome.state is not None and not inbound.presettled:
            _set_local(delivery, outcome)
        delivery.settle()
        self.peer.touch()
        self.grant()

    def close(self) -> None:
        """The producer is gone: what it sent whole is still delivered, what it had begun is aborted."""
        self.closed = True
        for inbound in list(self.unsettled):
            self._drop_copies(inbound)
            inbound.link = None
            if inbound.delivery is not None:
                inbound.delivery.inbound = None
        self.unsettled.clear()


def _set_local(delivery: Any, outcome: Outcome) -> None:
    local = delivery.local
    if outcome.state == deliveries.REJECTED:
        local.condition = outcome.condition
    elif outcome.state == deliveries.MODIFIED:
        local.failed, local.undeliverable = outcome.failed, outcome.undeliverable
        if outcome.annotations:
            local.annotations = outcome.annotations
    delivery.update(outcome.state)
