"""The router itself: who is attached to which address, and where each delivery goes."""

from __future__ import annotations

import logging
import time
from typing import Any, Callable, Union

import proton

from om_devrouter import addresses, admission, config, deliveries, inlink, links, management, outlink, policy
from om_devrouter.deliveries import Inbound, Outbound, Outcome

LOG = logging.getLogger(__name__)

End = Union[inlink.InLink, outlink.OutLink]
RouterAddress = addresses.Address[deliveries.ConsumerLink]


class Peer(links.Peer):
    """A connection, as far as the router needs it."""

    listener: config.Listener
    connection: Any
    transport: Any
    host: str
    ends: set[End]
    senders: int
    receivers: int

    def row(self) -> dict[str, Any]:
        """Its row for management."""
        raise NotImplementedError


class Router:
    """Addresses, links and counters of one router. Every method is called from the engine's thread.

    ``tables`` makes what management answers with from the router: ``views.tables``.
    """

    def __init__(self, settings: config.Config, tables: Callable[[Router], management.Tables]) -> None:
        self.config = settings
        self.table: addresses.AddressTable[deliveries.ConsumerLink] = addresses.AddressTable(
            settings.router_id, settings.addresses, settings.default_distribution
        )
        self.admission = admission.Admission(settings.rules)
        self.counters = deliveries.Counters()
        self.peers: set[Any] = set()
        self.resumable: dict[deliveries.ProducerLink, None] = {}
        self.started = time.monotonic()
        self._tables = tables(self)

    # Connections and links come and go.

    def admit(self, peer: Peer) -> policy.Denial | None:
        """A peer opened its connection: let it in with a permit, if a policy is in force, or say why not."""
        vhost = peer.listener.policy_vhost or peer.connection.remote_hostname or ""
        found = self.admission.opened(peer.number, peer.transport.user, peer.host, vhost)
        if isinstance(found, policy.Denial):
            return found
        peer.permit = found
        return None

    def attach(self, peer: Peer, link: Any) -> None:
        """A peer opened a link: answer it, or refuse it with the reason."""
        if peer.permit is not None and self._deny(peer, peer.permit, link):
            return
        link.source.copy(link.remote_source)
        link.target.copy(link.remote_target)
        link.snd_settle_mode = link.remote_snd_settle_mode
        link.rcv_settle_mode = link.remote_rcv_settle_mode
        refusal = self._attach_consumer(peer, link) if link.is_sender else self._attach_producer(peer, link)
        if refusal is not None:
            link.open()
            link.condition = refusal
            link.close()

    def _deny(self, peer: Peer, permit: policy.Permit, link: Any) -> bool:
        """Close a link that the policy does not allow; the answer has neither source nor target, as qdrouterd's."""
        if link.is_sender:
            source = link.remote_source
            denial = permit.receiver(source.address, source.dynamic, peer.receivers)
        else:
            denial = permit.sender(link.remote_target.address, peer.senders)
        if denial is None:
            return False
        self.admission.link_denied(peer.number, permit, denial, sender=link.is_receiver)
        link.condition = proton.Condition(denial.condition, denial.description)
        link.close()
        return True

    def _attach_consumer(self, peer: Peer, link: Any) -> proton.Condition | None:
        if link.remote_source.dynamic:
            link.source.dynamic = True
            link.source.address = self.table.dynamic_name()
        name = link.source.address
        if not name:
            return proton.Condition("amqp:invalid-field", "a receiver needs a source address")
        address = self.table.obtain(name)
        if address.in_process:
            return proton.Condition("amqp:not-allowed", f"nobody can receive from {name}")
        end = outlink.OutLink(self, peer, link, peer.listener.link_capacity, address)
        link.end = end
        peer.ends.add(end)
        peer.receivers += 1
        link.open()
        address.consumers.append(end)
        if len(address.consumers) == 1:
            self._each_producer(address, inlink.InLink.grant)
        return None

    def _attach_producer(self, peer: Peer, link: Any) -> proton.Condition | None:
        target = link.remote_target
        if target.type == proton.Terminus.COORDINATOR or target.dynamic:
            return proton.Condition("amqp:not-implemented", "no transactions and no dynamic targets here")
        address = self.table.obtain(target.address) if target.address else None
        end = inlink.InLink(self, peer, link, peer.listener.link_capacity, address)
        link.end = end
        peer.ends.add(end)
        peer.senders += 1
        link.open()
        if address is not None:
            address.producers[end] = None
        end.grant()
        return None

    @staticmethod
    def _each_producer(address: RouterAddress, action: Any) -> None:
        for producer in list(address.producers):
            action(producer)

    def detach(self, end: End) -> None:
        """A link is gone, whoever closed it and however."""
        if end.closed:
            return
        peer: Any = end.peer
        peer.ends.discard(end)
        end.link.end = None
        self.resumable.pop(end, None)  # type: ignore[arg-type]
        address = end.address
        if isinstance(end, outlink.OutLink):
            peer.receivers -= 1
            peer.stalled.pop(end, None)
            end.address.consumers.remove(end)
            end.close()
            if not end.address.reachable:
                self._each_producer(end.address, inlink.InLink.revoke)
        else:
            peer.senders -= 1
            if address is not None:
                address.producers.pop(end, None)
            end.close()
        if address is not None:
            self.table.forget_unused(address)

    # Deliveries.

    def resolve(self, name: str) -> RouterAddress | None:
        """The address of that name, if somebody is attached to it."""
        return self.table.find(name)

    def route(self, inbound: Inbound, address: RouterAddress | None) -> None:
        """Queue a delivery with the consumers of its address; release it when there is none."""
        if address is None or not address.reachable:
            inbound.outcome = Outcome(deliveries.RELEASED)
            if inbound.presettled:
                self.counters.dropped += 1
            return
        address.ingress += 1
        if address.in_process:
            address.to_container += 1
            inbound.for_router = True
            return
        inbound.multicast = address.distribution == addresses.MULTICAST
        for consumer in address.choose():
            out = Outbound(consumer, inbound)
            inbound.outs.append(out)
            inbound.waiting += 1
            consumer.offer(out)
            address.egress += 1
            self.counters.egress += 1

    def resume(self) -> None:
        """Read on where reading had stopped and there is room again."""
        while self.resumable:
            end = next(iter(self.resumable))
            del self.resumable[end]
            if not end.closed:
                end.read()

    # Management.

    def handle(self, data: deliveries.Chunk) -> Outcome:
        """Carry out a request to $management and send the reply to where the request says."""
        request = proton.Message()
        try:
            request.decode(bytes(data))
            reply = management.answer(request.properties, request.body, self._tables)
        except (proton.ProtonException, ValueError) as exc:
            LOG.debug("undecodable management request: %s", exc)
            return Outcome(
                deliveries.REJECTED, condition=proton.Condition("amqp:decode-error", "not a management request")
            )
        address = self.resolve(request.reply_to) if request.reply_to else None
        correlation_id: Any = request.correlation_id
        if isinstance(correlation_id, memoryview):
            # Proton reads a binary one as a view, which it then cannot write.
            correlation_id = bytes(correlation_id)
        if address is not None and not address.in_process:
            self._send(
                address,
                proton.Message(
                    address=request.reply_to,
                    correlation_id=correlation_id,
                    properties={"statusCode": proton.int32(reply.status), "statusDescription": reply.description},
                    body=reply.body,
                ).encode(),
            )
        return Outcome(deliveries.ACCEPTED)

    def _send(self, address: RouterAddress, data: bytes) -> None:
        """Send a message of the router's own, presettled."""
        origin = Inbound(None, None, presettled=True)
        origin.complete = True
        for consumer in address.choose():
            out = Outbound(consumer, origin)
            out.feed(data)
            out.complete = True
            consumer.offer(out)
            address.egress += 1
            address.from_container += 1
            self.counters.egress += 1
            consumer.pump()
