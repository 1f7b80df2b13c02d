"""Keep one connection to the routers alive, and links on it; the only module with a thread that stays.

Whoever sends writes to the socket in his own thread: nothing is handed over. One thread per engine reads, reconnects
and runs what is due later. All state is under one lock, which nobody holds while waiting or in a system call.

What is written is collected, since each system call lets another thread of Python run. One thread writes at a time and
takes along what others added meanwhile. After the engine's thread has handed over several messages or answers, those
who got them are likely to send at once: only the last one writes. That lasts for `_SOON_SECONDS`. After that each one
writes what is there, and so does the engine's thread. When the engine's thread came too late, because others keep the
interpreter busy, nothing is held back for `_CALM_SECONDS`.
"""

from __future__ import annotations

import collections
import contextlib
import heapq
import itertools
import logging
import os
import random
import select
import socket
import threading
import time
import typing

from oslo_messaging_amqp1 import errors, log, session, transport

LOG = logging.getLogger(__name__)

_HANDSHAKE_SECONDS = 10.0
_CLOSE_SECONDS = 2.0  # for what is under way when a process ends
_HIGH_WATER = 1024 * 1024  # bytes that the socket did not take: from here on messages wait in their link's queue
_PURGE_SECONDS = 30.0  # between two looks for links that nobody uses
_CREDIT_SECONDS = 0.2  # a router that has a consumer gives credit with its answer to the attach, or right after it
_GOODBYE_SECONDS = 0.5  # for the peer's own close
_MAX_REDIRECTS = 4  # one after the other
_EXPIRE_SECONDS = 1.0  # between two looks for messages that waited too long
_STEADY_SECONDS = 5.0  # a connection that stood so long was a good one: the next failure is the first again
_MAX_WAIT = 60.0
_SOON_SECONDS = 0.001  # for what may be written together with what is about to follow
_LATE_SECONDS = 0.02
_CALM_SECONDS = 1.0
_MAX_PENDING = 128 * _HIGH_WATER  # of one message and what the peer made this side answer
_WRITER_SECONDS = 1.0  # for another thread to leave a socket that never blocks

_Reply = tuple[typing.Union[int, bytes], typing.Callable[[], None]]

Link = typing.Union[session.Sender, session.Receiver]


class Host(typing.NamedTuple):
    """A router of the transport URL, and how to log in to it."""

    name: str
    port: int
    login: transport.Login


class Settings(typing.NamedTuple):
    """What an engine is told; seconds.

    :param hosts: of the transport URL, in order; the first one is chosen by chance.
    :param properties: of the connection, for those who look at the router.
    :param idle_timeout: after which a silent peer is given up; 0 for never.
    :param retry: the pause after a failed round of the hosts, what it grows by, and how far.
    """

    hosts: tuple[Host, ...]
    container: str
    hostname: str = ""
    properties: typing.Mapping[str, str] = {}
    idle_timeout: float = 10.0
    retry: tuple[float, float, float] = (1.0, 2.0, 30.0)
    link_retry: float = 1.0
    link_timeout: float = 600.0
    reply_credit: int = 200


class Engine:
    """A connection that comes back, and links that come back with it.

    :param on_reply: takes what comes to the reply address, in the engine's thread and not under its lock. It returns
        what to settle it with, and what to call after that.
    :param on_lost: is told that a connection ended, and with it the reply address. It is called under the lock, too.
    """

    def __init__(
        self,
        settings: Settings,
        on_reply: typing.Callable[[session.Arrival], _Reply],
        on_lost: typing.Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._settings = settings
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._senders: dict[str, session.Sender] = {}
        self._receivers: list[session.Receiver] = []
        self._on_reply = on_reply
        self._answers: list[session.Arrival] = []
        self._replies = session.Receiver(None, "rpc-response", settings.reply_credit, self._answers.append)
        self._session: session.Session | None = None
        self._transport: transport.Transport | None = None
        self._writing: transport.Transport | None = None  # to which some thread writes now
        self._promised_until = 0.0  # when the engine's thread writes what others held back; 0 when they may not
        self._expected = 0  # who are likely to send before that
        self._held = False  # whether somebody held something back
        self._calm_until = 0.0
        self._reading = False  # whether what came is being read now
        self._calls: list[typing.Callable[[], None]] = []  # for when it is read
        self._trouble = "no connection was tried yet"
        self._trouble_is_of_login = False
        self._logged = ""
        self._timers: list[tuple[float, int, typing.Callable[[], None]]] = []
        self._order = itertools.count()
        self._arrived: collections.deque[tuple[typing.Callable[[session.Arrival], None], session.Arrival]]
        self._arrived = collections.deque()
        self._waiting: dict[session.Sender, None] = {}
        self._redirect: Host | None = None
        self._redirects = 0
        self._end = float("inf")
        self._next_host = random.randrange(len(settings.hosts))
        self._closing = False
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._poller = _Poller()
        self._connected = threading.Condition(self._lock)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="amqp1", daemon=True)
        self._thread.start()

    # -- for callers, in any thread

    @property
    def trouble(self) -> str:
        """Why there is no connection now; '' while there is one."""
        return "" if self._session is not None and self._session.began else self._trouble

    def product(self, deadline: float) -> str | None:
        """Return what the peer says it is, waiting for a connection until ``deadline``; None without one."""
        now = self._session
        if now is not None and now.began:
            return now.product
        with self._lock:
            while self._session is None or not self._session.began:
                left = deadline - time.monotonic()
                if left <= 0 or self._closing:
                    return None
                self._connected.wait(left)
            return self._session.product

    def send(self, address: str, delivery: session.Delivery) -> int:
        """Send a delivery, now or as soon as the peer takes it; its ``done`` is told what became of it.

        :return: how many deliveries wait to be sent to this address, this one included.
        :raises UnicodeEncodeError: when the address is no text that can be sent.
        """
        with self._lock:
            if self._closing:
                delivery.done(session.Outcome.LOST, "the driver was shut down")
                return 0
            sender = self._senders.get(address)
            if sender is None:
                address.encode()  # what cannot be encoded is the caller's mistake, not one of the engine's thread
                sender = self._senders[address] = session.Sender(address, time.monotonic())
            delivery.sender = sender
            self._submit(sender, delivery)
            waiting = len(sender.queue)
            out = self._output() if self._is_last() else b""
        self._write(out)
        return waiting

    def cancel(self, delivery: session.Delivery) -> bool:
        """Take back what was not sent yet; returns whether that was so. It is not sent again either."""
        with self._lock:
            delivery.deadline = 0.0
            if delivery.sent or delivery.sender is None:
                return False
            try:
                delivery.sender.queue.remove(delivery)
            except ValueError:
                return False
            return True

    def without_consumer(self, delivery: session.Delivery) -> bool:
        """Return whether a delivery waits because nobody listens: the link stands for a while, and the peer gives no
        credit although nothing is under way on it."""
        with self._lock:
            sender = delivery.sender
            if sender is None or delivery.sent or sender.attached is None:
                return False
            nobody = sender.credit <= 0 and not sender.unsettled
            return nobody and time.monotonic() - sender.attached >= _CREDIT_SECONDS

    def refusal(self, delivery: session.Delivery) -> str:
        """Return why a delivery is not sent, as far as it is known."""
        with self._lock:
            sender = delivery.sender
            if self.trouble:
                return self.trouble
            if sender is not None and sender.refused:
                return f"the router refused the link to {sender.address}: {sender.refused}"
            if delivery.needs_reply and not delivery.sent and not self._replies.source:
                return f"the router gave no address for replies: {self._replies.refused or 'it did not answer yet'}"
            if delivery.sent:
                return "the router took the message and nobody answered"
            return f"nobody listens at {sender.address if sender else 'its address'}, or those who do are busy"

    def resend(self, delivery: session.Delivery, most: float = float("inf")) -> None:
        """Send a delivery again after the pause for links, unless that is after its deadline, or ``most`` deliveries to
        its address wait for the same already; for ``done`` alone, which is called under the lock."""
        sender = delivery.sender
        assert sender is not None
        late = time.monotonic() + self._settings.link_retry > delivery.deadline
        if late or sender.resends >= most:
            delivery.done(session.Outcome.EXPIRED, "")
            return
        delivery.sent = False
        sender.resends += 1
        self._later(self._settings.link_retry, lambda: self._again(sender, delivery))

    def after(self, call: typing.Callable[[], None]) -> None:
        """Call this once all that came is read, or else now; for ``done`` alone, which is called under the lock.

        A thread that is woken earlier only waits for the interpreter."""
        if self._reading:
            self._calls.append(call)
        else:
            call()

    def subscribe(
        self, address: str, credit: int, incoming: typing.Callable[[session.Arrival], None]
    ) -> session.Receiver:
        """Receive from an address, from now on and after each reconnection.

        :param incoming: takes each message, in the engine's thread and not under its lock. It must not block.
        """
        receiver = session.Receiver(address, address, credit, lambda arrival: self._arrived.append((incoming, arrival)))
        with self._lock:
            self._receivers.append(receiver)
            if self._session is not None and self._session.began:
                self._session.attach(receiver)
            out = self._output()
        self._write(out)
        return receiver

    def attached(self, receivers: typing.Collection[session.Receiver], deadline: float) -> bool:
        """Wait until the peer confirmed these links; returns whether it did."""
        with self._lock:
            while not all(receiver.source for receiver in receivers):
                left = deadline - time.monotonic()
                if left <= 0 or self._closing:
                    return False
                self._connected.wait(left)
            return True

    def stop(self, receivers: typing.Iterable[session.Receiver]) -> None:
        """Ask for no further messages from these links; those on their way still come."""
        with self._lock:
            for receiver in receivers:
                # After a fork, a server of the parent's is none of this engine's.
                if self._session is not None and receiver in self._receivers:
                    self._session.stop(receiver)
            out = self._output()
        self._write(out)

    def leave(self, receivers: typing.Iterable[session.Receiver]) -> None:
        """Detach these links, each as soon as what came over it is settled: the router may not send to a link that
        takes nothing, and may not think that what is still handled has failed."""
        with self._lock:
            for receiver in receivers:
                receiver.leaving = True
                if not receiver.outstanding:
                    self._detach(receiver)
            out = self._output()
        self._write(out)

    def unsubscribe(self, receivers: typing.Iterable[session.Receiver]) -> None:
        """Detach these links now."""
        with self._lock:
            for receiver in receivers:
                self._detach(receiver)
            out = self._output()
        self._write(out)

    def settle(self, arrival: session.Arrival, state: int | bytes, answered: bool = False) -> None:
        """Settle a message that came.

        :param answered: whether an answer is likely to follow, with which this may be written.
        """
        out = b""
        with self._lock:
            if arrival.session is self._session:
                self._settle(arrival, state)
                if answered and time.monotonic() < self._promised_until:
                    self._held = True
                elif self._is_last():
                    out = self._output()
        self._write(out)

    def close(self) -> None:
        """Send what is under way, as far as that takes no more than two seconds, and end."""
        deadline = time.monotonic() + _CLOSE_SECONDS
        with self._lock:
            while self._busy() and not self._closing and time.monotonic() < deadline:
                self._connected.wait(0.02)
            if not self._closing:
                self._end = time.monotonic()
                if self._session is not None and self._session.began:
                    self._session.finish()
                    self._end += _GOODBYE_SECONDS
            self._closing = True
            self._connected.notify_all()
            out = self._output()
        self._write(out)
        self._wake()
        if threading.current_thread() is not self._thread:
            self._over.wait(_CLOSE_SECONDS)  # eventlet's join raises its own Timeout on Python 3.13

    def abandon(self) -> None:
        """Give up this process's copies of the descriptors: after a fork the connection is the parent's.

        A green thread of eventlet is copied by the fork and may go on: it finds that this engine has ended. Until then
        the numbers of its descriptors must not be used for others, and eventlet's epoll set is the parent's as well. So
        the descriptors are not closed but replaced, by a socket at its end, which takes nothing from that set.
        """
        self._closing = True
        self._on_lost = lambda reason: None
        ended, other = socket.socketpair()
        for thing in (self._transport, self._wake_read, self._wake_write):
            if thing is not None and thing.fileno() >= 0:
                os.dup2(ended.fileno(), thing.fileno(), inheritable=False)
        ended.close()
        other.close()

    # -- under the lock

    def _busy(self) -> bool:
        """Return whether there is something that the present connection can still send, or has no outcome for."""
        if self._session is None or not self._session.began or self._transport is None:
            return False
        now = time.monotonic()
        waiting = any(
            sender.queue
            and not sender.refused
            and (sender.credit > 0 or sender.attached is None or now - sender.attached < _CREDIT_SECONDS)
            for sender in self._senders.values()
        )
        unwritten = self._transport.pending > 0 or self._writing is not None or self._held
        return waiting or unwritten or not self._session.quiet

    def _detach(self, receiver: session.Receiver) -> None:
        if receiver in self._receivers:
            self._receivers.remove(receiver)
            if self._session is not None:
                self._session.detach(receiver)

    def _submit(self, sender: session.Sender, delivery: session.Delivery) -> None:
        now = self._session
        sender.used = time.monotonic()
        if now is not None and now.began:
            if sender.handle is None and not sender.refused:
                now.attach(sender)
            if delivery.needs_reply and self._replies.handle is None:
                now.reply_receiver = self._replies
                now.attach(self._replies)
            if not sender.queue and self._has_room() and now.can_send(sender, delivery):
                now.transmit(sender, delivery)
                return
        sender.queue.append(delivery)
        if sender.credit > 0:
            self._waiting[sender] = None

    def _again(self, sender: session.Sender, delivery: session.Delivery) -> None:
        sender.resends -= 1
        if self._closing:
            delivery.done(session.Outcome.LOST, "the driver was shut down")
        elif delivery.deadline <= time.monotonic():
            delivery.done(session.Outcome.EXPIRED, sender.refused)
        else:
            self._submit(sender, delivery)

    def _has_room(self) -> bool:
        """Return whether the socket keeps up."""
        if self._transport is None or self._session is None:
            return False
        return self._transport.pending + self._session.prepared < _HIGH_WATER

    def _pump(self) -> None:
        """Send what waits on links with credit, as far as credit and socket go."""
        now = self._session
        if now is None or not self._waiting:
            return
        for sender in list(self._waiting):
            while sender.queue and self._has_room() and now.can_send(sender, sender.queue[0]):
                now.transmit(sender, sender.queue.popleft())
            if not sender.queue or sender.credit <= 0:
                del self._waiting[sender]

    def _settle(self, arrival: session.Arrival, state: int | bytes) -> None:
        arrival.session.settle(arrival, state)
        if arrival.receiver.leaving and not arrival.receiver.outstanding:
            self._detach(arrival.receiver)

    def _is_last(self) -> bool:
        """Return whether to write now, after something was added: others may be expected to add more at once."""
        self._expected -= 1
        self._held = self._expected > 0 and time.monotonic() < self._promised_until
        return not self._held

    def _output(self) -> bytes:
        """Return what is to be written, for `_write`, which the caller is then obliged to call after the lock; b'' when
        that is nothing, or when another thread writes and takes it along."""
        wire, now = self._transport, self._session
        if wire is None or now is None or self._writing is not None:
            return b""
        try:
            now.flush()
            data = wire.take()
        except errors.ConnectionLost:
            self._wake()  # the engine's thread meets the same error and cleans up
            return b""
        self._held = False
        if data:
            self._writing = wire
        return data

    def _leave(self, wire: transport.Transport) -> None:
        """Let others write; to another connection they do already."""
        if self._writing is wire:
            self._writing = None

    # -- not under the lock

    def _write(self, data: bytes) -> None:
        """Write what `_output` returned, and what was added until that is done."""
        wire = self._writing
        if data and wire is not None:
            self._write_all(wire, data)

    def _write_pending(self, wire: transport.Transport) -> None:
        """Write what the socket did not take before, and what was added until that is done."""
        with self._lock:
            if self._writing is not None:
                return
            self._writing = wire
        self._write_all(wire, b"")

    def _write_all(self, wire: transport.Transport, data: bytes) -> None:
        mine = True
        try:
            while mine:
                wire.send(data)
                with self._lock:
                    self._leave(wire)
                    data = self._output() if wire is self._transport else b""
                    mine = bool(data)
        except errors.ConnectionLost:
            self._wake()  # the engine's thread meets the same error and cleans up
        finally:
            if mine:
                with self._lock:
                    self._leave(wire)
        if wire.pending:
            self._wake()

    # -- under the lock

    def _later(self, seconds: float, call: typing.Callable[[], None]) -> None:
        when = time.monotonic() + seconds
        first = not self._timers or when < self._timers[0][0]
        heapq.heappush(self._timers, (when, next(self._order), call))
        if first:
            self._wake()

    def _link_changed(self, link: Link, reason: str) -> None:
        """The peer attached a link, gave it credit, or ended it for ``reason``."""
        if reason:
            address = link.address or "its reply address"
            log.later(LOG, logging.WARNING, "AMQP link for %s ended: %s; it is tried again", address, reason)
            self._later(self._settings.link_retry, lambda: self._attach_again(link))
            if link is self._replies:
                self._on_lost(f"the reply address is gone: {reason}")
        elif isinstance(link, session.Receiver):
            self._connected.notify_all()
            if link is self._replies:  # calls waited for it
                self._waiting.update((sender, None) for sender in self._senders.values() if sender.queue)
        elif link.queue:
            self._waiting[link] = None

    def _attach_again(self, link: Link) -> None:
        now = self._session
        if now is None or not now.began or link.handle is not None:
            return
        if isinstance(link, session.Sender):
            link.refused = ""
            if not link.queue:
                return
        elif link is self._replies:
            now.reply_receiver = self._replies
        elif link not in self._receivers:
            return
        now.attach(link)

    def _expire(self) -> None:
        """Give up what waited too long."""
        now = time.monotonic()
        for sender in self._senders.values():
            for delivery in [d for d in sender.queue if d.deadline <= now]:
                sender.queue.remove(delivery)
                delivery.done(session.Outcome.EXPIRED, sender.refused)
        self._later(_EXPIRE_SECONDS, self._expire)

    def _purge(self) -> None:
        """Detach the links that nobody used for a while."""
        now = time.monotonic()
        for sender in list(self._senders.values()):
            if (
                not sender.queue
                and not sender.unsettled
                and not sender.resends
                and now - sender.used > self._settings.link_timeout
            ):
                del self._senders[sender.address]
                if self._session is not None:
                    self._session.detach(sender)
        self._later(_PURGE_SECONDS, self._purge)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake; closed: it has ended
            self._wake_write.send(b"\0")

    # -- the engine's thread

    def _run(self) -> None:
        with self._lock:
            self._later(_PURGE_SECONDS, self._purge)
            self._later(_EXPIRE_SECONDS, self._expire)
        failures = 0
        while not self._closing:
            host = self._choose_host()
            if not self._logged:
                self._trouble = f"{transport.spell(host.name, host.port)} has not answered yet"
            began = time.monotonic()
            try:
                wire, rest = transport.connect(host.name, host.port, host.login, _HANDSHAKE_SECONDS)
                self._serve(wire, rest)
            except errors.AmqpError as error:
                self._failed(error, host)
            except Exception as error:  # a defect: the services of this process must not lose their messaging for good
                log.later(LOG, logging.WARNING, "AMQP connection ended by a defect; connecting again", exc_info=error)
                self._failed(errors.ConnectionLost("the connection ended by a defect"), host)
            if time.monotonic() - began > _STEADY_SECONDS and not self._trouble_is_of_login:
                failures = self._redirects = 0
                self._logged = ""
                continue
            if self._redirect is not None:
                continue
            failures += 1
            if failures % len(self._settings.hosts) == 0:
                self._pause(failures // len(self._settings.hosts) - 1)
        self._failed(errors.ConnectionLost("the driver was shut down"), None)
        with self._lock:
            for _, _, call in sorted(self._timers):  # whoever waits for what is due later is told
                call()
            for sender in self._senders.values():
                while sender.queue:
                    sender.queue.popleft().done(session.Outcome.LOST, "the driver was shut down")
            self._wake_read.close()
            self._wake_write.close()
        self._over.set()

    def _choose_host(self) -> Host:
        if self._redirect is not None:
            host, self._redirect = self._redirect, None
            return host
        host = self._settings.hosts[self._next_host]
        self._next_host = (self._next_host + 1) % len(self._settings.hosts)
        return host

    def _follow(self, redirected: errors.Redirected, host: Host) -> None:
        """Connect next to where a peer leads, with the login for that host, or else the one for the peer."""
        self._redirects += 1
        if self._redirects <= _MAX_REDIRECTS:
            there = (redirected.host, redirected.port)
            known = (each for each in self._settings.hosts if (each.name, each.port) == there)
            self._redirect = next(known, Host(*there, host.login))

    def _pause(self, rounds: int) -> None:
        first, step, most = self._settings.retry
        # Less for some: the clients of a router that went away must not all come back in the same moment.
        until = time.monotonic() + min(first + rounds * step, most) * random.uniform(0.5, 1.0)
        while not self._closing and time.monotonic() < until:
            self._wait(None, until - time.monotonic())
            self._run_timers()

    def _failed(self, error: errors.AmqpError, host: Host | None) -> None:
        """Forget the connection, and say once why there is none."""
        if isinstance(error, errors.Redirected) and host is not None:
            self._follow(error, host)
        with self._lock:
            named = host is None or isinstance(error, errors.HandshakeError)
            where = "" if named or host is None else f"{transport.spell(host.name, host.port)}: "
            self._trouble = f"{where}{error}"
            ended, self._session = self._session, None
            wire, self._transport = self._transport, None
            self._trouble_is_of_login = isinstance(error, errors.HandshakeError)
            self._promised_until = 0.0
            self._held = False
            self._answers.clear()
            if ended is not None:
                ended.lost(self._trouble)
                self._on_lost(self._trouble)
            self._replies.reset()
            self._waiting.clear()
            until = time.monotonic() + _WRITER_SECONDS
            while self._writing is not None and time.monotonic() < until:
                self._connected.wait(0.001)
            self._writing = None
        if ended is not None and wire is not None and not self._closing:
            _say_goodbye(ended, wire, error)
        if wire is not None:
            wire.close()
        if not self._closing and self._trouble != self._logged:
            self._logged = self._trouble
            log.later(LOG, logging.WARNING, "AMQP connection: %s; trying again", self._trouble)

    def _serve(self, wire: transport.Transport, rest: bytes) -> None:
        """Run one connection until it ends, which an exception says."""
        settings = self._settings
        with self._lock:
            now = self._session = session.Session(wire.put, self._link_changed, settings.container)
            self._transport = wire
            now.start(settings.hostname, settings.idle_timeout, settings.properties)
            self._take(now, rest)
            out = self._output()
        self._write(out)
        began = time.monotonic()
        while True:
            if self._closing and time.monotonic() >= self._end:
                raise errors.ConnectionLost("the driver was shut down")
            readable = self._wait(wire, self._next_due(now, wire, began))
            data = wire.receive() if readable else b""
            out = b""
            try:
                with self._lock:
                    held = self._held
                    if data:
                        self._take(now, wire.decrypt(data))
                    if wire.ended:
                        raise errors.ConnectionLost(wire.ended)
                    self._look_at_clock(now, wire, began)
                    self._promise(held)
                    if now.urgent or held or not self._promised_until:
                        out = self._output()
                self._write(out)
                if wire.pending > _MAX_PENDING:
                    raise errors.ConnectionLost("the peer does not read what it makes this side send")
                if wire.pending:
                    self._write_pending(wire)
            finally:  # what came before the connection's end as well
                self._hand_over(now)
            self._run_timers()

    def _answer(self, now: session.Session) -> None:
        """Give the answers and outcomes that came to those who wait for them."""
        calls, self._calls = self._calls, []
        try:
            if self._answers:
                answers = [(arrival, *self._on_reply(arrival)) for arrival in self._answers]
                self._answers.clear()
                calls += [call for _, _, call in answers]
                with self._lock:
                    if now is self._session:
                        for arrival, state, _ in answers:
                            self._settle(arrival, state)
                        self._held = True
        finally:
            for call in calls:
                call()
        if not self._promised_until:
            with self._lock:
                out = self._output()
            self._write(out)

    def _promise(self, held: bool) -> None:
        """Let those who get what came hold back what they send, if they are likely to send at once.

        :param held: whether somebody held something back until now.
        """
        moment = time.monotonic()
        if held and moment > self._promised_until + _LATE_SECONDS:
            self._calm_until = moment + _CALM_SECONDS
        self._expected = len(self._arrived) + len(self._answers) + len(self._calls)
        promised = self._expected > 0 and moment >= self._calm_until
        self._promised_until = moment + _SOON_SECONDS if promised else 0.0

    def _hand_over(self, now: session.Session) -> None:
        """Hand the messages that came to those who take them."""
        self._answer(now)
        while self._arrived:
            incoming, arrival = self._arrived.popleft()
            try:
                incoming(arrival)
            except Exception as error:  # a service's defect, or one of oslo.messaging: the others get their messages
                log.later(LOG, logging.WARNING, "A message could not be handed to its server", exc_info=error)

    def _take(self, now: session.Session, data: bytes) -> None:
        """Take what the peer sent."""
        before = now.began
        self._reading = True
        try:
            now.feed(data, time.monotonic())
        finally:
            self._reading = False
        if now.began and not before:
            self._begun(now)
        self._pump()

    def _begun(self, now: session.Session) -> None:
        """The session stands: bring the links back."""
        for receiver in self._receivers:
            receiver.moved = ""
            now.attach(receiver)
        for sender in self._senders.values():
            sender.refused = sender.moved = ""
            if sender.queue:
                now.attach(sender)
        if any(d.needs_reply for s in self._senders.values() for d in s.queue):
            now.reply_receiver = self._replies
            now.attach(self._replies)
        self._connected.notify_all()

    def _look_at_clock(self, now: session.Session, wire: transport.Transport, began: float) -> None:
        moment = time.monotonic()
        limit = self._settings.idle_timeout
        if limit and moment - max(now.heard, began) > limit:
            raise errors.ConnectionLost(f"the peer was silent for {limit:g} s")
        if not now.began and moment - began > _HANDSHAKE_SECONDS:
            raise errors.ConnectionLost("the peer did not open a session in time")
        if now.idle_timeout and moment - wire.last_sent > now.idle_timeout / 2 and not wire.pending:
            now.alive()

    def _next_due(self, now: session.Session, wire: transport.Transport, began: float) -> float:
        """Return the seconds until something is to be done by itself."""
        due = min(time.monotonic() + _MAX_WAIT, self._end)
        if self._timers:
            due = min(due, self._timers[0][0])
        if self._settings.idle_timeout:
            due = min(due, max(now.heard, began) + self._settings.idle_timeout)
        if now.idle_timeout and not wire.pending:
            due = min(due, wire.last_sent + now.idle_timeout / 2)
        if not now.began:
            due = min(due, time.monotonic() + 1)
        if self._promised_until:
            due = min(due, self._promised_until)
        return max(0.0, due - time.monotonic() + 0.001)

    def _run_timers(self) -> None:
        if not self._timers or self._timers[0][0] > time.monotonic():
            return
        with self._lock:
            while self._timers and self._timers[0][0] <= time.monotonic():
                call = heapq.heappop(self._timers)[2]
                try:
                    call()
                except Exception as error:  # a defect: this thread must not end, whatever was due
                    log.later(LOG, logging.WARNING, "What was due in the AMQP engine failed", exc_info=error)
            self._pump()
            out = self._output()
        self._write(out)

    def _wait(self, wire: transport.Transport | None, seconds: float) -> bool:
        """Wait until there is something to do; returns whether the socket has something to read."""
        wake = self._wake_read.fileno()
        socket_ = -1 if wire is None else wire.fileno()
        reading = (wake,) if wire is None else (wake, socket_)
        writing = (socket_,) if wire is not None and wire.pending else ()
        ready = self._poller.wait(reading, writing, seconds)
        if wake in ready:
            with contextlib.suppress(OSError):
                self._wake_read.recv(4096)
        return wire is not None and socket_ in ready


def _say_goodbye(ended: session.Session, wire: transport.Transport, error: errors.AmqpError) -> None:
    """Tell the peer why its connection is closed, if it can still be told."""
    with contextlib.suppress(Exception):  # whatever broke may break again, and the thread goes on
        if isinstance(error, errors.DecodeError):
            ended.finish("amqp:decode-error", str(error))
        else:
            ended.finish()
        ended.flush()
        wire.send(wire.take())


class _Poller:
    """Waits for descriptors.

    poll(2) bears descriptors above 1023. Eventlet replaces select and takes poll away; its select bears them as well.
    """

    def __init__(self) -> None:
        self._watched: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
        self._poll: typing.Any = None

    def wait(self, reading: tuple[int, ...], writing: tuple[int, ...], seconds: float) -> set[int]:
        """Return the descriptors of ``reading`` that can be read, after ``seconds`` at the latest."""
        if not hasattr(select, "poll"):
            return set(select.select(reading, writing, [], seconds)[0])
        if self._poll is None or self._watched != (reading, writing):
            self._watched = (reading, writing)
            self._poll = select.poll()
            for descriptor in {*reading, *writing}:
                wanted = select.POLLIN if descriptor in reading else 0
                wanted |= select.POLLOUT if descriptor in writing else 0
                self._poll.register(descriptor, wanted)
        found = self._poll.poll(seconds * 1000)
        return {descriptor for descriptor, event in found if descriptor in reading and event & ~select.POLLOUT}
