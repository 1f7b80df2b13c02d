"""The AMQP state of one connection: session, links, credit and deliveries. Bytes in, bytes out. Pure.

All links of a connection share one session. The caller holds one lock during each call into this module.
"""

from __future__ import annotations

import collections
import enum
import itertools
import struct
import typing

from oslo_messaging_amqp1 import errors, frames

MAX_FRAME_SIZE = 64 * 1024  # the largest frame that this side accepts; routers send 16 KiB
MAX_MESSAGE_SIZE = 64 * 1024 * 1024  # for all incomplete messages together; services send far smaller ones
_WINDOW = 0x7FFFFFFF
_SERIAL = 0xFFFFFFFF  # delivery and transfer numbers wrap (RFC 1982)
_TRANSFER_OVERHEAD = 64  # bytes of a frame's header and transfer, at most
MAX_UNHANDLED_SIZE = 1024 * 1024 * 1024  # for all messages that arrived and are not settled yet
_CHUNK_OVERHEAD = 64  # bytes of memory that a part of a message takes in addition to its content
_MIN_IDLE_SECONDS = 0.1  # sending keepalives more often than this would occupy a core
_LINK_REDIRECT, _CONNECTION_REDIRECT = "amqp:link:redirect", "amqp:connection:redirect"

_frame_header = struct.Struct(">IBBH").unpack_from


class Outcome(enum.Enum):
    """The outcome of a delivery."""

    ACCEPTED = "accepted"
    RELEASED = "released"  # there was no receiver
    MODIFIED = "modified"  # a receiver got the message and failed; it may be sent again
    REJECTED = "rejected"
    LOST = "lost"  # the connection ended before the outcome was known
    EXPIRED = "expired"  # its deadline passed before it was sent


class Delivery:
    """A message to send.

    :ivar build: encodes the message when it is sent. It gets the present reply address, '' if it needs none.
    :ivar done: gets the outcome and the peer's reason, '' without one. It must not block or raise.
    :ivar deadline: until when the message may wait to be sent, on the monotonic clock.
    :ivar settled: whether it is sent without asking for an acknowledgement.
    :ivar sent: whether its frames were prepared; the engine may not have written them to the socket yet.
    """

    __slots__ = ("build", "deadline", "done", "needs_reply", "sender", "sent", "settled")

    def __init__(
        self,
        build: typing.Callable[[str], bytes],
        done: typing.Callable[[Outcome, str], None],
        deadline: float,
        settled: bool = False,
        needs_reply: bool = False,
    ) -> None:
        self.build = build
        self.done = done
        self.deadline = deadline
        self.settled = settled
        self.needs_reply = needs_reply
        self.sender: Sender | None = None
        self.sent = False


class Sender:
    """A link to an address, and the deliveries that wait to be sent over it. It outlives connections.

    :ivar handle: its number on the present connection, None before it is attached.
    :ivar attached: when the peer confirmed the link, None before that.
    :ivar refused: the peer's reason when it refused the link, '' otherwise.
    :ivar moved: the address that the peer redirected this link to, '' otherwise.
    :ivar count: deliveries sent on the present connection (the specification's delivery-count).
    :ivar resends: how many returned deliveries wait to be sent again.
    :ivar unsettled: how many deliveries were sent and have no outcome yet.
    :ivar used: when a delivery was last submitted.
    """

    __slots__ = (
        "address",
        "attached",
        "count",
        "credit",
        "handle",
        "moved",
        "queue",
        "refused",
        "resends",
        "unsettled",
        "used",
    )

    def __init__(self, address: str, now: float) -> None:
        self.address = address
        self.queue: collections.deque[Delivery] = collections.deque()
        self.used = now
        self.moved = ""
        self.resends = 0
        self.reset()

    def reset(self) -> None:
        """Forget the state of the link on the present connection."""
        self.handle: int | None = None
        self.attached: float | None = None
        self.refused = ""
        self.credit = self.count = self.unsettled = 0


class Receiver:
    """A link from an address. It outlives connections.

    :ivar address: None when the peer shall create the address. It is then in ``source``.
    :ivar refused: the peer's reason when it refused the link, '' otherwise.
    :ivar moved: the address that the peer redirected this link to, '' otherwise.
    :ivar credit: how many messages the peer may still send.
    :ivar attach: the number of this attach on the present connection. It identifies the link, since handles are reused.
    :ivar stopped: whether the link asks for no further messages.
    :ivar leaving: whether to detach the link once all messages that came over it are settled.
    :ivar outstanding: how many messages came and are not settled. Together with the credit at most ``limit``.
    """

    __slots__ = (
        "address", "attach", "count", "credit", "handle", "incoming", "leaving", "limit", "moved", "outstanding",
        "refused", "source", "stopped", "target",
    )  # fmt: skip

    def __init__(
        self,
        address: str | None,
        target: str,
        limit: int,
        incoming: typing.Callable[[Arrival], None],
    ) -> None:
        self.address = address
        self.target = target
        self.limit = limit
        self.incoming = incoming
        self.moved = self.refused = ""
        self.stopped = self.leaving = False
        self.attach = -1
        self.reset()

    def reset(self) -> None:
        """Forget the state of the link on the present connection."""
        self.handle: int | None = None
        self.source = ""
        self.credit = self.count = self.outstanding = 0


class Arrival(typing.NamedTuple):
    """A message that came.

    :param session: the session it came over. After a reconnection the message can no longer be settled.
    :param attach: the link's `Receiver.attach` when it came. After another attach it no longer counts against credit.
    """

    session: Session
    receiver: Receiver
    attach: int
    number: int
    settled: bool
    payload: bytes


class _Partial:
    """A message whose last frame has not arrived yet."""

    __slots__ = ("chunks", "number", "settled")

    def __init__(self, number: int, settled: bool) -> None:
        self.number = number
        self.settled = settled
        self.chunks: list[bytes] = []


class Session:
    """The state of one connection.

    :param write: gets bytes for the peer.
    :param changed: gets a link that the peer attached, refused, detached or gave credit, and the reason of its end.
    :ivar reply_address: the address for answers to this side, '' until the peer has created it.
    :ivar prepared: how many bytes of messages the next `flush` writes.
    :ivar heard: when the peer's last complete frame came. Single bytes do not count as a sign of life.
    :ivar product: the product name that the peer announced, '' without one.
    :ivar idle_timeout: seconds of silence after which the peer closes the connection, 0 for never.
    """

    def __init__(
        self,
        write: typing.Callable[[bytes], None],
        changed: typing.Callable[[Sender | Receiver, str], None],
        container: str,
    ) -> None:
        self._write = write
        self._changed = changed
        self._container = container
        self._out: list[bytes] = []
        self._settlements: list[list[typing.Any]] = []
        self._backlog: collections.deque[bytes] = collections.deque()
        self._input = b""
        self._handles = itertools.count()
        self._free_handles: list[int] = []
        self._attaches = itertools.count()
        self._own: dict[int, Sender | Receiver] = {}
        self._names: dict[str, Sender | Receiver] = {}
        self._remote: dict[int, Sender | Receiver] = {}
        self._partial: dict[Receiver, _Partial] = {}
        self._partial_size = 0
        self._unhandled_size = 0
        self._unsettled: dict[int, Delivery] = {}
        self._next_delivery = 0
        self._next_outgoing = 0
        self._next_incoming = 0
        self._window = 0
        self._max_frame = frames.MIN_MAX_FRAME_SIZE
        self.reply_receiver: Receiver | None = None
        self.prepared = 0
        self.heard = 0.0
        self.opened = False
        self.began = False
        self.closed = False
        self.product = ""
        self.idle_timeout = 0.0

    @property
    def reply_address(self) -> str:
        """The address for answers to this side, '' until the peer has created it."""
        return self.reply_receiver.source if self.reply_receiver else ""

    # -- the connection itself

    def start(self, hostname: str, idle_timeout: float, properties: typing.Mapping[str, str]) -> None:
        """Send open and begin."""
        # The specification asks each side to announce half of its real timeout (2.4.5).
        opened = frames.open_(self._container, hostname, MAX_FRAME_SIZE, 0, idle_timeout / 2, properties)
        self._send(opened)
        self._send(frames.begin(0, _WINDOW, _WINDOW, _SERIAL))

    def finish(self, condition: str = "", description: str = "") -> None:
        """Send close, with an error when ``condition`` names one."""
        self._send_settlements()
        self._send(frames.close(condition, description))

    def alive(self) -> None:
        """Send an empty frame as a keepalive."""
        self._out.append(frames.EMPTY_FRAME)

    @property
    def quiet(self) -> bool:
        """True when no sent delivery waits for its outcome, and no frame waits for the peer's window."""
        return not self._unsettled and not self._backlog

    @property
    def urgent(self) -> bool:
        """True when frames other than settlements are prepared."""
        return bool(self._out)

    def flush(self) -> None:
        """Write all prepared frames in one piece."""
        self._send_settlements()
        if self._out:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            self.prepared = 0
            self._write(data)

    def lost(self, reason: str) -> None:
        """End every delivery without an outcome as lost, and reset every link."""
        self.closed = True
        for delivery in self._unsettled.values():
            delivery.done(Outcome.LOST, reason)
        self._unsettled.clear()
        for link in self._own.values():
            link.reset()

    def _send(self, performative: bytes, payload: bytes = b"") -> None:
        self._out.append(frames.frame(performative, payload))

    # -- links

    def attach(self, link: Sender | Receiver) -> None:
        """Ask the peer for a link."""
        handle = link.handle = self._free_handles.pop() if self._free_handles else next(self._handles)
        attach = next(self._attaches)
        name = f"{self._container}/{attach}"
        self._own[handle] = self._names[name] = link
        if isinstance(link, Sender):
            self._send(frames.attach_sender(name, handle, link.moved or link.address))
        else:
            link.attach = attach
            self._send(frames.attach_receiver(name, handle, link.moved or link.address, link.target))

    def detach(self, link: Sender | Receiver) -> None:
        """End a link."""
        if link.handle is not None:
            self._send_settlements()  # after the detach they would have no effect
            self._send(frames.detach(link.handle))
            self._forget(link)

    def stop(self, receiver: Receiver) -> None:
        """Ask for no further messages over a link. Messages that are on their way still arrive."""
        receiver.stopped = True
        if receiver.source:
            self._give_credit(receiver)

    def _end_deliveries(self, sender: Sender, reason: str) -> None:
        """End the deliveries of one link as lost: their outcome can no longer arrive."""
        numbers = [number for number, delivery in self._unsettled.items() if delivery.sender is sender]
        for number in numbers:
            self._unsettled.pop(number).done(Outcome.LOST, reason)

    def _forget(self, link: Sender | Receiver) -> None:
        if link.handle is not None:
            del self._own[link.handle]
            self._free_handles.append(link.handle)
        if isinstance(link, Receiver):
            self._drop_partial(link)
        link.reset()

    # -- sending

    def can_send(self, sender: Sender, delivery: Delivery) -> bool:
        """Return whether the peer's credit allows the delivery now."""
        if sender.credit <= 0 or sender.attached is None or self._backlog:
            return False
        return not delivery.needs_reply or bool(self.reply_address)

    def transmit(self, sender: Sender, delivery: Delivery) -> None:
        """Prepare the frames of a delivery. The caller has checked `can_send`."""
        payload = delivery.build(self.reply_address if delivery.needs_reply else "")  # before any change: it may raise
        number = self._next_delivery
        self._next_delivery = (number + 1) & _SERIAL
        sender.credit -= 1
        sender.count = (sender.count + 1) & _SERIAL
        delivery.sent = True
        assert sender.handle is not None
        room = self._max_frame - _TRANSFER_OVERHEAD
        if len(payload) <= room:
            self._send_transfer(frames.transfer(sender.handle, number, delivery.settled, False), payload)
        else:
            self._send_transfer(frames.transfer(sender.handle, number, delivery.settled, True), payload[:room])
            for start in range(room, len(payload), room):
                more = start + room < len(payload)
                self._send_transfer(frames.transfer_more(sender.handle, more), payload[start : start + room])
        if delivery.settled:
            delivery.done(Outcome.ACCEPTED, "")
        else:
            delivery.sender = sender
            sender.unsettled += 1
            self._unsettled[number] = delivery

    def _send_transfer(self, performative: bytes, payload: bytes) -> None:
        frame = frames.frame(performative, payload)
        if self._window > 0 and not self._backlog:
            self._window -= 1
            self._next_outgoing = (self._next_outgoing + 1) & _SERIAL
            self._out.append(frame)
            self.prepared += len(frame)
        else:
            self._backlog.append(frame)

    def _send_backlog(self) -> None:
        while self._backlog and self._window > 0:
            self._window -= 1
            self._next_outgoing = (self._next_outgoing + 1) & _SERIAL
            self._out.append(self._backlog.popleft())

    # -- settling messages that came

    def settle(self, arrival: Arrival, state: int | bytes = frames.ACCEPTED) -> None:
        """Settle a message that came over this connection. Do nothing for a message of another connection."""
        if self.closed or arrival.session is not self:
            return
        receiver = arrival.receiver
        self._unhandled_size -= len(arrival.payload)
        if not arrival.settled:
            self._settle(True, arrival.number, state)
        if receiver.handle is None or receiver.attach != arrival.attach:
            return
        receiver.outstanding -= 1
        if receiver.stopped:
            return
        if receiver.limit - receiver.outstanding - receiver.credit >= max(1, receiver.limit // 2):
            self._give_credit(receiver)

    def _send_settlements(self) -> None:
        for receiver, first, last, state in self._settlements:
            self._send(frames.disposition(receiver, first, last, state))
        self._settlements.clear()

    def _settle(self, receiver: bool, number: int, state: int | bytes | None) -> None:
        """Record a settlement. Consecutive numbers with the same state are sent as one range."""
        if self._settlements:
            last = self._settlements[-1]
            if last[0] is receiver and last[3] == state and number == (last[2] + 1) & _SERIAL and number:
                last[2] = number
                return
        self._settlements.append([receiver, number, number, state])

    def _give_credit(self, receiver: Receiver) -> None:
        if not receiver.stopped:  # messages that the peer sent before it learns of the stop still use up credit
            receiver.credit = receiver.limit - receiver.outstanding
        assert receiver.handle is not None
        credit = 0 if receiver.stopped else receiver.credit
        self._send(frames.flow(
            self._next_incoming, _WINDOW, self._next_outgoing, _WINDOW, receiver.handle, receiver.count, credit
        ))  # fmt: skip

    # -- frames from the peer

    def feed(self, data: bytes, now: float) -> None:
        """Process bytes from the peer.

        :raises errors.AmqpError: when the connection must end.
        """
        if self._input:
            data = self._input + data
        at, have = 0, len(data)
        while have - at >= frames.HEADER_SIZE:
            size, offset, kind, channel = _frame_header(data, at)
            if not frames.HEADER_SIZE <= size <= MAX_FRAME_SIZE or not 8 <= 4 * offset <= size:
                raise errors.DecodeError("a frame has a wrong size")
            if have - at < size:
                break
            self.heard = now
            if kind != frames.AMQP_FRAME:
                raise errors.DecodeError("a frame has a wrong type")
            if size > 4 * offset:
                self._frame(channel, data[at + 4 * offset : at + size], now)
            at += size
        self._input = data[at:]

    def _frame(self, channel: int, body: bytes, now: float) -> None:
        code, fields, after = frames.parse(body)
        handler = self._HANDLERS.get(code)
        if handler is None or (not self.opened and code not in (frames.OPEN, frames.CLOSE)):
            raise errors.DecodeError("a performative is out of order")
        handler(self, fields, body[after:], now)

    def _on_open(self, fields: frames.Fields, payload: bytes, now: float) -> None:
        if self.opened:
            raise errors.DecodeError("the peer opened the connection twice")
        self.opened = True
        if fields[2] is not None and fields[2] < frames.MIN_MAX_FRAME_SIZE:
            raise errors.DecodeError(f"the peer's maximum frame size is below {frames.MIN_MAX_FRAME_SIZE} bytes")
        self._max_frame = min(fields[2] or MAX_FRAME_SIZE, MAX_FRAME_SIZE)
        self.idle_timeout = (fields[4] or 0) / 1000
        if 0 < self.idle_timeout < _MIN_IDLE_SECONDS:
            raise errors.DecodeError(f"the peer asks for a keepalive every {self.idle_timeout:g} s, which is too often")
        self.product = str((fields[9] or {}).get("product", ""))

    def _on_begin(self, fields: frames.Fields, payload: bytes, now: float) -> None:
        if self.began:
            raise errors.DecodeError("the peer began the session twice")
        self.began = True
        self._next_incoming = fields[1]
        self._window = fields[2]

    def _on_attach(self, fields: frames.Fields, payload: bytes, now: float) -> None:
        name, handle, _, _, _, source, target = fields[:7]
        link = self._names.pop(name, None)
        if link is None or link.handle is None or handle in self._remote:
            if link is not None and link.handle is None:  # this side detached it before the peer attached it
                return
            raise errors.DecodeError("the peer attached a link that this side did not ask for")
        self._remote[handle] = link
        link.refused = ""
        if isinstance(link, Sender):
            if target is not None:  # without a target the peer refuses, and sends a detach with the reason
                link.attached = now
                self._changed(link, "")
            return
        if source is None:
            return
        _, source_fields = frames.composite(source)
        link.source = source_fields[0] or link.address or ""
        link.count = fields[9] or 0
        self._give_credit(link)
        self._changed(link, "")

    def _on_detach(self, fields: frames.Fields, payload: bytes, now: float) -> None:
        link = self._remote.pop(fields[0], None)
        if link is None or link.handle is None:
            return
        fault = frames.fault(fields[2])
        reason = fault.text
        if isinstance(link, Sender):
            self._end_deliveries(link, reason or "the peer detached the link")
        self._send(frames.detach(link.handle))
        self._forget(link)
        if fault.condition == _LINK_REDIRECT:
            host, address = (fault.info.get(key) for key in ("network-host", "address"))
            if link.address and isinstance(address, str) and not host:
                link.moved, reason = address, ""
            else:
                reason += f" (to {frames.readable(str(host))}; this driver keeps all links on one connection)"
        link.refused = reason
        self._changed(link, reason or "the peer detached the link")

    def _on_flow(self, fields: frames.Fields, payload: bytes, now: float) -> None:
        next_incoming, window, _next_outgoing, _, handle, count, credit, _, drain, echo = fields[:10]
        # Before it gets this side's begin, a peer leaves out next-incoming-id; the first id counts then (2.5.6).
        self._window = (((next_incoming or 0) + window) - self._next_outgoing) & _SERIAL
        if self._window > _WINDOW:  # negative: the peer shrank its window below what is on its way
            self._window = 0
        self._send_backlog()
        link = self._remote.get(handle) if handle is not None else None
        if isinstance(link, Sender):
            link.credit = (((count or 0) + (credit or 0)) - link.count) & _SERIAL
            if link.credit > _WINDOW:  # negative: the peer had not yet counted the last deliveries
                link.credit = 0
            if drain:
                link.count = (link.count + link.credit) & _SERIAL
                link.credit = 0
            if (drain or echo) and link.handle is not None:
                self._send(frames.flow(
                    self._next_incoming, _WINDOW, self._next_outgoing, _WINDOW, link.handle, link.count, link.credit,
                    bool(drain),
                ))  # fmt: skip
            self._changed(link, "")
        elif echo and isinstance(link, Receiver) and link.source:
            self._give_credit(link)
        elif echo:
            self._send(frames.flow(self._next_incoming, _WINDOW, self._next_outgoing, _WINDOW))

    def _on_transfer(self, fields: frames.Fields, payload: bytes, now: float) -> None:
        handle, number, _, _, settled, more, _, _, _, aborted, _ = fields
        self._next_incoming = (self._next_incoming + 1) & _SERIAL
        link = self._remote.get(handle)
        if not isinstance(link, Receiver) or link.handle is None:
            if link is None:
                raise errors.DecodeError("a message came over a link that does not exist")
            return  # this side detached the link
        partial = self._partial.get(link)
        if partial is None:
            if number is None:
                raise errors.DecodeError("a message has no number")
            if link.credit <= 0:
                raise errors.DecodeError("the peer sent more messages than its credit allows")
            link.credit -= 1
            link.count = (link.count + 1) & _SERIAL
            link.outstanding += 1
            if not more and not aborted:
                self._arrived(link, number, bool(settled), payload)
                return
            partial = self._partial[link] = _Partial(number, False)
        elif number is not None and number != partial.number:
            raise errors.DecodeError("a message began before the previous one ended")
        partial.settled = partial.settled or bool(settled)
        if aborted:
            self._drop_partial(link)
            link.outstanding -= 1
            return
        partial.chunks.append(payload)
        self._partial_size += len(payload) + _CHUNK_OVERHEAD
        if self._partial_size > MAX_MESSAGE_SIZE:
            raise errors.DecodeError(f"a message is larger than {MAX_MESSAGE_SIZE // 2**20} MiB")
        if not more:
            self._drop_partial(link)
            self._arrived(link, partial.number, partial.settled, b"".join(partial.chunks))

    def _arrived(self, link: Receiver, number: int, settled: bool, payload: bytes) -> None:
        self._unhandled_size += len(payload)
        if self._unhandled_size > MAX_UNHANDLED_SIZE:
            raise errors.DecodeError(f"more than {MAX_UNHANDLED_SIZE // 2**20} MiB of messages wait for this process")
        link.incoming(Arrival(self, link, link.attach, number, settled, payload))

    def _drop_partial(self, link: Receiver) -> None:
        partial = self._partial.pop(link, None)
        if partial:
            self._partial_size -= sum(len(chunk) + _CHUNK_OVERHEAD for chunk in partial.chunks)

    def _on_disposition(self, fields: frames.Fields, payload: bytes, now: float) -> None:
        of_receiver, first, last, settled, state, _ = fields
        if not of_receiver:  # the peer settles a message that it sent: there is nothing to do
            return
        last = first if last is None else last
        span = (last - first) & _SERIAL
        outcome, reason = _outcome(state, bool(settled))
        if outcome is None:
            return
        numbers: typing.Iterable[int] = (first,)
        if span >= len(self._unsettled):  # a peer may name a huge range: look only at deliveries that exist
            numbers = [number for number in self._unsettled if (number - first) & _SERIAL <= span]
        elif span:
            numbers = [number & _SERIAL for number in range(first, first + span + 1)]
        for number in numbers:
            delivery = self._unsettled.pop(number, None)
            if delivery is None:
                continue
            if not settled:
                self._settle(False, number, None)
            if delivery.sender is not None:
                delivery.sender.unsettled -= 1
            delivery.done(outcome, reason)

    def _on_end(self, fields: frames.Fields, payload: bytes, now: float) -> None:
        fault = frames.fault(fields[0])
        raise errors.ConnectionLost(f"the peer ended the session: {fault.text or 'no reason given'}", fault.condition)

    def _on_close(self, fields: frames.Fields, payload: bytes, now: float) -> None:
        fault = frames.fault(fields[0])
        reason = f"the peer closed the connection: {fault.text or 'no reason given'}"
        host, port = fault.info.get("network-host"), fault.info.get("port")
        redirects = fault.condition == _CONNECTION_REDIRECT
        if redirects and isinstance(host, str) and isinstance(port, int) and 0 < port < 2**16:
            raise errors.Redirected(f"{reason} (to {frames.readable(host)}, port {port})", host, port)
        raise errors.ConnectionLost(reason, fault.condition)

    _HANDLERS: typing.ClassVar[dict[int, typing.Callable[[Session, frames.Fields, bytes, float], None]]] = {
        frames.OPEN: _on_open,
        frames.BEGIN: _on_begin,
        frames.ATTACH: _on_attach,
        frames.FLOW: _on_flow,
        frames.TRANSFER: _on_transfer,
        frames.DISPOSITION: _on_disposition,
        frames.DETACH: _on_detach,
        frames.END: _on_end,
        frames.CLOSE: _on_close,
    }


def _outcome(state: object | None, settled: bool) -> tuple[Outcome | None, str]:
    """Return the outcome that a delivery state stands for, None when the state is not final."""
    if state is None:
        return (Outcome.ACCEPTED, "") if settled else (None, "")
    code, fields = frames.composite(state)
    if code == frames.ACCEPTED:
        return Outcome.ACCEPTED, ""
    if code == frames.RELEASED:
        return Outcome.RELEASED, ""
    if code == frames.REJECTED:
        return Outcome.REJECTED, frames.fault(fields[0]).text
    if code == frames.MODIFIED:
        # The in-tree driver's rule: send a message again only when it did not fail and may come back here.
        again = not fields[0] and not fields[1]
        return (Outcome.MODIFIED, "") if again else (Outcome.REJECTED, "the receiver failed")
    return (Outcome.REJECTED, "the outcome is unknown") if settled else (None, "")
