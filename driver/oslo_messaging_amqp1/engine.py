"""Keep one connection to a router and its links alive. This is the only module with a permanent thread.

A thread that sends also writes to the socket. One thread for each engine reads, reconnects and runs timers. One lock
protects all state. No thread holds it while it waits or in a system call.

Output is collected before it is written, because each system call lets another Python thread run:

* One thread writes at a time. It also writes what other threads added meanwhile.
* After the engine's thread has passed on several messages or answers, their receivers will probably send soon. For
  `_SOON_SECONDS` each of them holds its output back, except the last one, which writes everything.
* After that time, each thread writes what is there, and so does the engine's thread.
* When the engine's thread wakes up late, because other threads keep the interpreter busy, no thread holds output back
  for the next `_CALM_SECONDS`.
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
_CLOSE_SECONDS = 2.0  # how long `close` waits for messages that have no outcome
_HIGH_WATER = 1024 * 1024  # unwritten bytes; above that, messages wait in the queue of their link
_PURGE_SECONDS = 30.0  # between two searches for unused links
_CREDIT_SECONDS = 0.2  # a router that has a consumer gives credit with its attach or soon after
_PEER_CLOSE_SECONDS = 0.5  # how long to wait for the peer's close
_MAX_REDIRECTS = 4  # in a row
_EXPIRE_SECONDS = 1.0  # between two searches for messages whose deadline has passed
_STEADY_SECONDS = 5.0  # a connection that lasted this long resets the count of failures
_MAX_WAIT = 60.0
_SOON_SECONDS = 0.001  # how long output is held back
_LATE_SECONDS = 0.02  # a delay of the engine's thread that shows a busy interpreter
_CALM_SECONDS = 1.0  # how long no output is held back after such a delay
_MAX_PENDING = 128 * _HIGH_WATER  # unwritten bytes of one message and of answers to the peer
_WRITER_SECONDS = 1.0  # for another thread to finish with a socket that never blocks

_Reply = tuple[typing.Union[int, bytes], typing.Callable[[], None]]

Link = typing.Union[session.Sender, session.Receiver]


class Host(typing.NamedTuple):
    """A router of the transport URL, and how to log in to it."""

    name: str
    port: int
    login: transport.Login


class Settings(typing.NamedTuple):
    """The settings of an engine. Times are in seconds.

    :param hosts: the hosts of the transport URL, in order. The engine starts with a random one.
    :param properties: connection properties, which a router shows to its operator.
    :param idle_timeout: how long a peer may be silent before the connection is closed, 0 for any time.
    :param retry: the pause after all hosts failed, its growth with each further failure, and its maximum.
    :param link_retry: the pause before a link or a message is tried again.
    :param link_timeout: how long an unused link stays attached.
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
    """A connection that is opened again when it ends, together with its links.

    :param on_reply: gets each message for the reply address, in the engine's thread and without the lock. It returns
        the state that settles the message, and a function to call after that.
    :param on_lost: gets the reason when a connection ended, and with it the reply address. It is called under the
        lock.
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
        self._writing: transport.Transport | None = None  # the transport that a thread writes to now
        self._promised_until = 0.0  # when the engine's thread writes the held-back output; 0: nothing may be held back
        self._expected = 0  # how many threads will probably send before that
        self._held = False  # whether output is held back
        self._calm_until = 0.0  # no output is held back before this time
        self._reading = False  # whether the engine's thread processes input now
        self._calls: list[typing.Callable[[], None]] = []  # to be called after that
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
        """The reason why there is no connection, '' while there is one."""
        return "" if self._session is not None and self._session.began else self._trouble

    def product(self, deadline: float) -> str | None:
        """Return the peer's product name. Wait for a connection until ``deadline``, and return None without one."""
        active = self._session
        if active is not None and active.began:
            return active.product
        with self._lock:
            while self._session is None or not self._session.began:
                left = deadline - time.monotonic()
                if left <= 0 or self._closing:
                    return None
                self._connected.wait(left)
            return self._session.product

    def send(self, address: str, delivery: session.Delivery) -> int:
        """Send a delivery now, or as soon as the peer gives credit. Its ``done`` gets the outcome.

        :return: how many deliveries wait to be sent to this address, this one included.
        :raises UnicodeEncodeError: when the address cannot be encoded as UTF-8.
        """
        with self._lock:
            if self._closing:
                delivery.done(session.Outcome.LOST, "the driver was shut down")
                return 0
            sender = self._senders.get(address)
            if sender is None:
                address.encode()  # raise in the caller's thread; a later error would end the connection
                sender = self._senders[address] = session.Sender(address, time.monotonic())
            delivery.sender = sender
            self._submit(sender, delivery)
            waiting = len(sender.queue)
            out = self._output() if self._is_last() else b""
        self._write(out)
        return waiting

    def cancel(self, delivery: session.Delivery) -> bool:
        """Cancel a delivery. Return whether it had not been sent yet. It is not sent again either."""
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
        """Return whether a delivery waits because its address has no consumer.

        That is so when the link has been attached for a while, has no unsettled delivery, and still gets no credit.
        """
        with self._lock:
            sender = delivery.sender
            if sender is None or delivery.sent or sender.attached is None:
                return False
            unused_without_credit = sender.credit <= 0 and not sender.unsettled
            return unused_without_credit and time.monotonic() - sender.attached >= _CREDIT_SECONDS

    def refusal(self, delivery: session.Delivery) -> str:
        """Return the most likely reason why a delivery was not sent or has no answer."""
        with self._lock:
            sender = delivery.sender
            if self.trouble:
                return self.trouble
            if sender is not None and sender.refused:
                return f"the router refused the link to {sender.address}: {sender.refused}"
            if delivery.needs_reply and not delivery.sent and not self._replies.source:
                return f"the router gave no address for replies: {self._replies.refused or 'it has not answered yet'}"
            if delivery.sent:  # its frames are prepared, but perhaps not written
                return "the message was passed to the router connection, but no answer came"
            return f"nobody listens at {sender.address if sender else 'its address'}, or all listeners are busy"

    def resend(self, delivery: session.Delivery, most: float = float("inf")) -> None:
        """Send a delivery again after `Settings.link_retry`. Call this only from ``done``, which has the lock.

        Expire the delivery instead when that would be after its deadline, or when ``most`` deliveries for its address
        already wait to be sent again.
        """
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
        """Call ``call`` once the present input is processed, or now. Call this only from ``done``, which has the lock.

        A thread that is woken earlier would only wait for the interpreter.
        """
        if self._reading:
            self._calls.append(call)
        else:
            call()

    def subscribe(
        self, address: str, credit: int, incoming: typing.Callable[[session.Arrival], None]
    ) -> session.Receiver:
        """Receive from an address, now and after each reconnection.

        :param incoming: gets each message, in the engine's thread and without the lock. It must not block.
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
        """Wait until the peer has confirmed these links. Return whether it did before ``deadline``."""
        with self._lock:
            while not all(receiver.source for receiver in receivers):
                left = deadline - time.monotonic()
                if left <= 0 or self._closing:
                    return False
                self._connected.wait(left)
            return True

    def stop(self, receivers: typing.Iterable[session.Receiver]) -> None:
        """Ask for no further messages over these links. Messages that are on their way still arrive."""
        with self._lock:
            for receiver in receivers:
                # After a fork, this engine has no links for the parent's servers.
                if self._session is not None and receiver in self._receivers:
                    self._session.stop(receiver)
            out = self._output()
        self._write(out)

    def leave(self, receivers: typing.Iterable[session.Receiver]) -> None:
        """Detach each of these links once the messages that came over it are settled.

        If a link stayed attached, the router could choose it for messages that nobody takes. If it was detached
        earlier, the router would report the messages that are still handled as failed.
        """
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

        :param answered: whether an answer will probably follow. The settlement may then be written together with it.
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
        """Send what waits to be sent, for at most `_CLOSE_SECONDS`, and close the connection."""
        deadline = time.monotonic() + _CLOSE_SECONDS
        with self._lock:
            while self._busy() and not self._closing and time.monotonic() < deadline:
                self._connected.wait(0.02)
            if not self._closing:
                self._end = time.monotonic()
                if self._session is not None and self._session.began:
                    self._session.finish()
                    self._end += _PEER_CLOSE_SECONDS
            self._closing = True
            self._connected.notify_all()
            out = self._output()
        self._write(out)
        self._wake()
        if threading.current_thread() is not self._thread:
            self._over.wait(_CLOSE_SECONDS)  # eventlet's join raises its own Timeout on Python 3.13

    def abandon(self) -> None:
        """Give up this process's copies of the descriptors. After a fork the connection belongs to the parent.

        A fork copies eventlet's green threads, and the engine's one may run on until it sees that the engine has ended.
        Until then no other file may get the numbers of its descriptors. The child also shares eventlet's epoll set with
        the parent. So this method does not close the descriptors. It replaces each with a socket whose other end is
        closed, which leaves the parent's epoll set unchanged.
        """
        self._closing = True
        self._on_lost = lambda reason: None
        ended, other = socket.socketpair()
        for inherited in (self._transport, self._wake_read, self._wake_write):
            if inherited is not None and inherited.fileno() >= 0:
                os.dup2(ended.fileno(), inherited.fileno(), inheritable=False)
        ended.close()
        other.close()

    # -- under the lock

    def _busy(self) -> bool:
        """Return whether the connection can still send a waiting delivery, or expects the outcome of a sent one."""
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
        active = self._session
        sender.used = time.monotonic()
        if active is not None and active.began:
            if sender.handle is None and not sender.refused:
                active.attach(sender)
            if delivery.needs_reply and self._replies.handle is None:
                active.reply_receiver = self._replies
                active.attach(self._replies)
            if not sender.queue and self._has_room() and active.can_send(sender, delivery):
                active.transmit(sender, delivery)
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
        """Return whether so few bytes are unwritten that another message may be prepared."""
        if self._transport is None or self._session is None:
            return False
        return self._transport.pending + self._session.prepared < _HIGH_WATER

    def _pump(self) -> None:
        """Send the deliveries that wait on links with credit, until the credit or the room for output is used up."""
        active = self._session
        if active is None or not self._waiting:
            return
        for sender in list(self._waiting):
            while sender.queue and self._has_room() and active.can_send(sender, sender.queue[0]):
                active.transmit(sender, sender.queue.popleft())
            if not sender.queue or sender.credit <= 0:
                del self._waiting[sender]

    def _settle(self, arrival: session.Arrival, state: int | bytes) -> None:
        arrival.session.settle(arrival, state)
        if arrival.receiver.leaving and not arrival.receiver.outstanding:
            self._detach(arrival.receiver)

    def _is_last(self) -> bool:
        """Return whether the calling thread must write its output now. Otherwise another thread will write it soon."""
        self._expected -= 1
        self._held = self._expected > 0 and time.monotonic() < self._promised_until
        return not self._held

    def _output(self) -> bytes:
        """Return the bytes to write. The caller must pass them to `_write` after it has released the lock.

        Return b'' when there are none, or when another thread is writing: it will write these, too.
        """
        wire, active = self._transport, self._session
        if wire is None or active is None or self._writing is not None:
            return b""
        try:
            active.flush()
            data = wire.take()
        except errors.ConnectionLost:
            self._wake()  # the engine's thread meets the same error and cleans up
            return b""
        self._held = False
        if data:
            self._writing = wire
        return data

    def _leave(self, wire: transport.Transport) -> None:
        """Let other threads write to this connection, if it is still the present one."""
        if self._writing is wire:
            self._writing = None

    # -- not under the lock

    def _write(self, data: bytes) -> None:
        """Write the bytes that `_output` returned, and those that other threads add meanwhile."""
        wire = self._writing
        if data and wire is not None:
            self._write_all(wire, data)

    def _write_pending(self, wire: transport.Transport) -> None:
        """Write the bytes that did not fit into the socket before, and those that other threads add meanwhile."""
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
        """Act on a link that the peer attached, gave credit, or ended for ``reason``."""
        if reason:
            address = link.address or "replies"
            log.later(LOG, logging.WARNING, "AMQP link for %s ended: %s; trying again", address, reason)
            self._later(self._settings.link_retry, lambda: self._attach_again(link))
            if link is self._replies:
                self._on_lost(f"the router removed the reply address: {reason}")
        elif isinstance(link, session.Receiver):
            self._connected.notify_all()
            if link is self._replies:  # calls may wait for the reply address
                self._waiting.update((sender, None) for sender in self._senders.values() if sender.queue)
        elif link.queue:
            self._waiting[link] = None

    def _attach_again(self, link: Link) -> None:
        active = self._session
        if active is None or not active.began or link.handle is not None:
            return
        if isinstance(link, session.Sender):
            link.refused = ""
            if not link.queue:
                return
        elif link is self._replies:
            active.reply_receiver = self._replies
        elif link not in self._receivers:
            return
        active.attach(link)

    def _expire(self) -> None:
        """Expire the deliveries whose deadline has passed."""
        now = time.monotonic()
        for sender in self._senders.values():
            expired = [delivery for delivery in sender.queue if delivery.deadline <= now]
            for delivery in expired:
                sender.queue.remove(delivery)
                delivery.done(session.Outcome.EXPIRED, sender.refused)
        self._later(_EXPIRE_SECONDS, self._expire)

    def _purge(self) -> None:
        """Detach the links that were unused for `Settings.link_timeout`."""
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
        with contextlib.suppress(OSError):  # a full socket wakes the thread anyway; a closed one has no thread
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
            except Exception as error:  # a defect of the driver must not end this process's messaging for good
                log.later(
                    LOG, logging.WARNING, "AMQP connection: the driver has a defect; connecting again", exc_info=error
                )
                self._failed(errors.ConnectionLost("a defect of the driver ended the connection"), host)
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
            for _, _, call in sorted(self._timers):  # so that no thread waits for a timer that will not run
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
        """Choose the host of a redirection as the next one, with its own login if it is in the URL, or the peer's."""
        self._redirects += 1
        if self._redirects <= _MAX_REDIRECTS:
            there = (redirected.host, redirected.port)
            known = (each for each in self._settings.hosts if (each.name, each.port) == there)
            self._redirect = next(known, Host(*there, host.login))

    def _pause(self, rounds: int) -> None:
        first, step, most = self._settings.retry
        # Random, so that the clients of a failed router do not all reconnect at the same moment.
        until = time.monotonic() + min(first + rounds * step, most) * random.uniform(0.5, 1.0)
        while not self._closing and time.monotonic() < until:
            self._wait(None, until - time.monotonic())
            self._run_timers()

    def _failed(self, error: errors.AmqpError, host: Host | None) -> None:
        """Clean up after a connection, and log why it ended, once for each reason."""
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
            _send_close(ended, wire, error)
        if wire is not None:
            wire.close()
        if not self._closing and self._trouble != self._logged:
            self._logged = self._trouble
            log.later(LOG, logging.WARNING, "AMQP connection: %s; trying again", self._trouble)

    def _serve(self, wire: transport.Transport, rest: bytes) -> None:
        """Run one connection until it ends with an exception."""
        settings = self._settings
        with self._lock:
            active = self._session = session.Session(wire.put, self._link_changed, settings.container)
            self._transport = wire
            active.start(settings.hostname, settings.idle_timeout, settings.properties)
            self._process(active, rest)
            out = self._output()
        self._write(out)
        began = time.monotonic()
        while True:
            if self._closing and time.monotonic() >= self._end:
                raise errors.ConnectionLost("the driver was shut down")
            readable = self._wait(wire, self._next_due(active, wire, began))
            data = wire.receive() if readable else b""
            out = b""
            try:
                with self._lock:
                    held = self._held
                    if data:
                        self._process(active, wire.decrypt(data))
                    if wire.ended:
                        raise errors.ConnectionLost(wire.ended)
                    self._check_timeouts(active, wire, began)
                    self._promise(held)
                    if active.urgent or held or not self._promised_until:
                        out = self._output()
                self._write(out)
                if wire.pending > _MAX_PENDING:
                    raise errors.ConnectionLost("the peer does not read, while too many bytes wait to be sent to it")
                if wire.pending:
                    self._write_pending(wire)
            finally:  # also when the connection ended after it delivered messages
                self._pass_on(active)
            self._run_timers()

    def _pass_answers(self, active: session.Session) -> None:
        """Pass the answers and outcomes that came to the threads that wait for them."""
        calls, self._calls = self._calls, []
        try:
            if self._answers:
                answers = [(arrival, *self._on_reply(arrival)) for arrival in self._answers]
                self._answers.clear()
                calls += [call for _, _, call in answers]
                with self._lock:
                    if active is self._session:
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
        """Allow threads that get a message or answer to hold back output, and promise to write it soon.

        :param held: whether output was held back when this thread woke up.
        """
        now = time.monotonic()
        if held and now > self._promised_until + _LATE_SECONDS:
            self._calm_until = now + _CALM_SECONDS
        self._expected = len(self._arrived) + len(self._answers) + len(self._calls)
        promised = self._expected > 0 and now >= self._calm_until
        self._promised_until = now + _SOON_SECONDS if promised else 0.0

    def _pass_on(self, active: session.Session) -> None:
        """Pass the answers and messages that came to their receivers."""
        self._pass_answers(active)
        while self._arrived:
            incoming, arrival = self._arrived.popleft()
            try:
                incoming(arrival)
            except Exception as error:  # a defect of one server must not keep messages from the others
                log.later(LOG, logging.WARNING, "Could not pass a message to its server", exc_info=error)

    def _process(self, active: session.Session, data: bytes) -> None:
        """Process bytes from the peer, and send what they allow to send."""
        before = active.began
        self._reading = True
        try:
            active.feed(data, time.monotonic())
        finally:
            self._reading = False
        if active.began and not before:
            self._attach_links(active)
        self._pump()

    def _attach_links(self, active: session.Session) -> None:
        """Attach all links again, on a session that the peer has just begun."""
        for receiver in self._receivers:
            receiver.moved = ""
            active.attach(receiver)
        for sender in self._senders.values():
            sender.refused = sender.moved = ""
            if sender.queue:
                active.attach(sender)
        if any(delivery.needs_reply for sender in self._senders.values() for delivery in sender.queue):
            active.reply_receiver = self._replies
            active.attach(self._replies)
        self._connected.notify_all()

    def _check_timeouts(self, active: session.Session, wire: transport.Transport, began: float) -> None:
        now = time.monotonic()
        limit = self._settings.idle_timeout
        if limit and now - max(active.heard, began) > limit:
            raise errors.ConnectionLost(f"the peer was silent for {limit:g} s")
        if not active.began and now - began > _HANDSHAKE_SECONDS:
            raise errors.ConnectionLost("the peer did not open a session in time")
        if active.idle_timeout and now - wire.last_sent > active.idle_timeout / 2 and not wire.pending:
            active.alive()

    def _next_due(self, active: session.Session, wire: transport.Transport, began: float) -> float:
        """Return the seconds until the next timer or timeout."""
        due = min(time.monotonic() + _MAX_WAIT, self._end)
        if self._timers:
            due = min(due, self._timers[0][0])
        if self._settings.idle_timeout:
            due = min(due, max(active.heard, began) + self._settings.idle_timeout)
        if active.idle_timeout and not wire.pending:
            due = min(due, wire.last_sent + active.idle_timeout / 2)
        if not active.began:
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
                except Exception as error:  # a defect of one timer must not end this thread
                    log.later(LOG, logging.WARNING, "A timer of the AMQP engine failed", exc_info=error)
            self._pump()
            out = self._output()
        self._write(out)

    def _wait(self, wire: transport.Transport | None, seconds: float) -> bool:
        """Wait for input, a wake-up or the end of ``seconds``. Return whether the socket has input."""
        wake = self._wake_read.fileno()
        socket_ = -1 if wire is None else wire.fileno()
        reading = (wake,) if wire is None else (wake, socket_)
        writing = (socket_,) if wire is not None and wire.pending else ()
        ready = self._poller.wait(reading, writing, seconds)
        if wake in ready:
            with contextlib.suppress(OSError):
                self._wake_read.recv(4096)
        return wire is not None and socket_ in ready


def _send_close(ended: session.Session, wire: transport.Transport, error: errors.AmqpError) -> None:
    """Send a close with the reason to the peer, if the connection still works."""
    with contextlib.suppress(Exception):  # the cause of the end may fail again here; the engine's thread must go on
        if isinstance(error, errors.DecodeError):
            ended.finish("amqp:decode-error", str(error))
        else:
            ended.finish()
        ended.flush()
        wire.send(wire.take())


class _Poller:
    """Wait for descriptors.

    poll(2) allows descriptors above 1023. Eventlet replaces the module select and removes poll, but its own select
    allows them, too.
    """

    def __init__(self) -> None:
        self._watched: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
        self._poll: typing.Any = None

    def wait(self, reading: tuple[int, ...], writing: tuple[int, ...], seconds: float) -> set[int]:
        """Return the descriptors of ``reading`` that have input. Wait for at most ``seconds``."""
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
