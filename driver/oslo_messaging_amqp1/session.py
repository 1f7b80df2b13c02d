"""One connection's AMQP state: session, links, credit and deliveries. Bytes in, bytes out; no socket, clock or thread.

There is one session, whatever the number of links. The caller keeps what is called here under one lock.
"""

from __future__ import annotations

import collections
import enum
import itertools
import struct
import typing

from oslo_messaging_amqp1 import errors, frames

MAX_FRAME_SIZE = 64 * 1024  # what this side takes; the engines send 16 KiB
MAX_MESSAGE_SIZE = 64 * 1024 * 1024  # more than services send by far; of messages of several frames, all together
_WINDOW = 0x7FFFFFFF
_SERIAL = 0xFFFFFFFF  # delivery and transfer numbers wrap (RFC 1982)
_TRANSFER_OVERHEAD = 64  # bytes of a frame's header and transfer, at most
MAX_HELD_SIZE = 1024 * 1024 * 1024  # of all messages that came and that nobody has handled yet
_CHUNK_OVERHEAD = 64  # bytes of memory that a part of a message takes besides its content
_MIN_IDLE_SECONDS = 0.1  # a peer that wants signs of life more often than this keeps a core busy
_LINK_REDIRECT, _CONNECTION_REDIRECT = "amqp:link:redirect", "amqp:connection:redirect"

_frame_header = struct.Struct(">IBBH").unpack_from


class Outcome(enum.Enum):
    """What became of a delivery."""

    ACCEPTED = "accepted"
    RELEASED = "released"  # nobody was there to take it
    MODIFIED = "modified"  # somebody had it and failed; it may be sent again
    REJECTED = "rejected"
    LOST = "lost"  # the connection ended before its outcome was known
    EXPIRED = "expired"  # given up before it was sent


class Delivery:
    """A message on its way out.

    :ivar build: makes the message when it is sent, from the reply address of that moment ('' where it needs none).
    :ivar done: is told the outcome, and the peer's reason, '' without one. It must not block, nor raise.
    :ivar deadline: until when it may wait to be sent, on the monotonic clock.
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
    """A link to an address, and what waits to be sent over it. It outlives connections.

    :ivar handle: None while it has none on the present connection.
    :ivar attached: when the peer confirmed it; None before.
    :ivar refused: the peer's reason when it refused the link, '' otherwise.
    :ivar moved: the address that the peer redirected this link to, '' otherwise.
    :ivar resends: deliveries that came back and wait to be sent again.
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
        """Forget the connection."""
        self.handle: int | None = None
        self.attached: float | None = None
        self.refused = ""
        self.credit = self.count = self.unsettled = 0


class Receiver:
    """A link from an address. It outlives connections.

    :ivar address: None for one that the peer makes, which is then in ``source``.
    :ivar refused: the peer's reason when it refused the link, '' otherwise.
    :ivar moved: the address that the peer redirected this link to, '' otherwise.
    :ivar credit: messages that the peer may still send.
    :ivar attach: counts attaches on the present connection, since handles are used again.
    :ivar stopped: whether it takes no further messages.
    :ivar leaving: whether it is detached once all messages that came are settled.
    :ivar outstanding: messages that came and are not settled; with the credit at most ``limit``.
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
        """Forget the link on the present connection."""
        self.handle: int | None = None
        self.source = ""
        self.credit = self.count = self.outstanding = 0


class Arrival(typing.NamedTuple):
    """A message that came.

    :param session: on which it came: after a reconnection it can be settled no more.
    :param attach: of the link on which it came: once the link was attached again it does not count against its credit.
    """

    session: Session
    receiver: Receiver
    attach: int
    number: int
    settled: bool
    payload: bytes


class _Partial:
    """A message of which more frames are to come."""

    __slots__ = ("chunks", "number", "settled")

    def __init__(self, number: int, settled: bool) -> None:
        self.number = number
        self.settled = settled
        self.chunks: list[bytes] = []


class Session:
    """The state of one connection.

    :param write: takes bytes for the peer.
    :param changed: is called with a link when the peer attached, refused or detached it.
    :ivar reply_address: where answers reach this side; '' until the peer made it.
    :ivar prepared: bytes of messages that the next `flush` writes.
    :ivar heard: when the peer's last whole frame came; a peer that sends a byte now and then is as good as silent.
    :ivar product: what the peer says it is, '' when it does not.
    :ivar idle_timeout: seconds after which the peer misses a sign of life; 0 for never.
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
        self._held_size = 0
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
        """Where answers reach this side, '' as long as the peer did not say."""
        return self.reply_receiver.source if self.reply_receiver else ""

    # -- the connection itself

    def start(self, hostname: str, idle_timeout: float, properties: typing.Mapping[str, str]) -> None:
        """Send open and begin."""
        # The specification asks to announce half of the time after which this side gives the peer up (2.4.5).
        opened = frames.open_(self._container, hostname, MAX_FRAME_SIZE, 0, idle_timeout / 2, properties)
        self._send(opened)
        self._send(frames.begin(0, _WINDOW, _WINDOW, _SERIAL))

    def finish(self, condition: str = "", description: str = "") -> None:
        """Send close, with an error when ``condition`` names one."""
        self._send_settlements()
        self._send(frames.close(condition, description))

    def alive(self) -> None:
        """Send a sign of life."""
        self._out.append(frames.EMPTY_FRAME)

    @property
    def quiet(self) -> bool:
        """True when nothing that was sent waits for its outcome, and nothing waits for the peer's window."""
        return not self._unsettled and not self._backlog

    @property
    def urgent(self) -> bool:
        """True when more than settlements is prepared."""
        return bool(self._out)

    def flush(self) -> None:
        """Write what was prepared, in one piece."""
        self._send_settlements()
        if self._out:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            self.prepared = 0
            self._write(data)

    def lost(self, reason: str) -> None:
        """Tell every delivery without an outcome that it is lost, and every link that it has no connection."""
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
        """Ask for a link."""
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
            self._send_settlements()  # after the link they would mean nothing
            self._send(frames.detach(link.handle))
            self._forget(link)

    def stop(self, receiver: Receiver) -> None:
        """Take no further messages from a link; those that are on their way still come."""
        receiver.stopped = True
        if receiver.source:
            self._give_credit(receiver)

    def _lose(self, sender: Sender, reason: str) -> None:
        """Tell the deliveries of one link that their outcome will not come."""
        for number in [number for number, delivery in self._unsettled.items() if delivery.sender is sender]:
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
        """Return whether the peer would take the delivery now."""
        if sender.credit <= 0 or sender.attached is None or self._backlog:
            return False
        return not delivery.needs_reply or bool(self.reply_address)

    def transmit(self, sender: Sender, delivery: Delivery) -> None:
        """Send a delivery; `can_send` was true."""
        payload = delivery.build(self.reply_address if delivery.needs_reply else "")  # first: it may raise
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
        shown = frames.frame(performative, payload)
        if self._window > 0 and not self._backlog:
            self._window -= 1
            self._next_outgoing = (self._next_outgoing + 1) & _SERIAL
            self._out.append(shown)
            self.prepared += len(shown)
        else:
            self._backlog.append(shown)

    def _send_backlog(self) -> None:
        while self._backlog and self._window > 0:
            self._window -= 1
            self._next_outgoing = (self._next_outgoing + 1) & _SERIAL
            self._out.append(self._backlog.popleft())

    # -- settling what came

    def settle(self, arrival: Arrival, state: int | bytes = frames.ACCEPTED) -> None:
        """Settle a message that came over this connection; over another one there is nothing to settle any more."""
        if self.closed or arrival.session is not self:
            return
        receiver = arrival.receiver
        self._held_size -= len(arrival.payload)
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
        """Note a settlement; neighbours with one state are sent as a range."""
        if self._settlements:
            last = self._settlements[-1]
            if last[0] is receiver and last[3] == state and number == (last[2] + 1) & _SERIAL and number:
                last[2] = number
                return
        self._settlements.append([receiver, number, number, state])

    def _give_credit(self, receiver: Receiver) -> None:
        if not receiver.stopped:  # what the peer sent before it knows of the stop still counts against the credit
            receiver.credit = receiver.limit - receiver.outstanding
        assert receiver.handle is not None
        credit = 0 if receiver.stopped else receiver.credit
        self._send(frames.flow(
            self._next_incoming, _WINDOW, self._next_outgoing, _WINDOW, receiver.handle, receiver.count, credit
        ))  # fmt: skip

    # -- what the peer says

    def feed(self, data: bytes, now: float) -> None:
        """Take bytes from the peer.

        :raises errors.AmqpError: when the connection is at its end.
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
            raise errors.DecodeError("the peer takes only frames that are too small")
        self._max_frame = min(fields[2] or MAX_FRAME_SIZE, MAX_FRAME_SIZE)
        self.idle_timeout = (fields[4] or 0) / 1000
        if 0 < self.idle_timeout < _MIN_IDLE_SECONDS:
            raise errors.DecodeError(
                f"the peer wants to hear something every {self.idle_timeout:g} s, which is too often"
            )
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
            if link is not None and link.handle is None:  # detached by this side before the peer attached it
                return
            raise errors.DecodeError("the peer attached a link that nobody asked for")
        self._remote[handle] = link
        link.refused = ""
        if isinstance(link, Sender):
            if target is not None:  # without one it is a refusal, and a detach with the reason follows
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
            self._lose(link, reason or "the peer detached the link")
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
        # A peer that has not seen the begin counts from the start (2.5.6).
        self._window = (((next_incoming or 0) + window) - self._next_outgoing) & _SERIAL
        if self._window > _WINDOW:  # it was made smaller than what is under way
            self._window = 0
        self._send_backlog()
        link = self._remote.get(handle) if handle is not None else None
        if isinstance(link, Sender):
            link.credit = (((count or 0) + (credit or 0)) - link.count) & _SERIAL
            if link.credit > _WINDOW:  # the peer did not know of the last deliveries yet
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
            return  # one that this side detached
        partial = self._partial.get(link)
        if partial is None:
            if number is None:
                raise errors.DecodeError("a message has no number")
            if link.credit <= 0:
                raise errors.DecodeError("the peer sent more messages than it may")
            link.credit -= 1
            link.count = (link.count + 1) & _SERIAL
            link.outstanding += 1
            if not more and not aborted:
                self._arrived(link, number, bool(settled), payload)
                return
            partial = self._partial[link] = _Partial(number, False)
        elif number is not None and number != partial.number:
            raise errors.DecodeError("a message began before the one before it ended")
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
        self._held_size += len(payload)
        if self._held_size > MAX_HELD_SIZE:
            raise errors.DecodeError(f"more than {MAX_HELD_SIZE // 2**20} MiB of messages wait for this process")
        link.incoming(Arrival(self, link, link.attach, number, settled, payload))

    def _drop_partial(self, link: Receiver) -> None:
        partial = self._partial.pop(link, None)
        if partial:
            self._partial_size -= sum(len(chunk) + _CHUNK_OVERHEAD for chunk in partial.chunks)

    def _on_disposition(self, fields: frames.Fields, payload: bytes, now: float) -> None:
        of_receiver, first, last, settled, state, _ = fields
        if not of_receiver:  # the sender of what came settles it by itself: nothing is left to do
            return
        last = first if last is None else last
        span = (last - first) & _SERIAL
        outcome, reason = _outcome(state, bool(settled))
        if outcome is None:
            return
        numbers: typing.Iterable[int] = (first,)
        if span >= len(self._unsettled):  # a peer may speak of any number of messages; only those that exist take time
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
        said = f"the peer closed the connection: {fault.text or 'no reason given'}"
        host, port = fault.info.get("network-host"), fault.info.get("port")
        leads = fault.condition == _CONNECTION_REDIRECT
        if leads and isinstance(host, str) and isinstance(port, int) and 0 < port < 2**16:
            raise errors.Redirected(f"{said} (to {frames.readable(host)}, port {port})", host, port)
        raise errors.ConnectionLost(said, fault.condition)

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
    """Return the outcome that a delivery state means, None when it is none yet."""
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
        # One that failed, or that is not to come here again, is none to send again (the in-tree driver's rule).
        again = not fields[0] and not fields[1]
        return (Outcome.MODIFIED, "") if again else (Outcome.REJECTED, "the receiver failed")
    return (Outcome.REJECTED, "of no known outcome") if settled else (None, "")
