"""The driver as oslo.messaging calls it."""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import logging
import os
import socket
import sys
import threading
import time
import typing
import uuid
import weakref

import oslo_messaging
from oslo_messaging._drivers import base, common
from oslo_serialization import jsonutils

from oslo_messaging_amqp1 import address, engine, errors, frames, log, messages, options, sasl, session, transport

LOG = logging.getLogger(__name__)

_PORT = 5672
_PRODUCT = "oslo-messaging-amqp1"  # shows a router's operator which connections this driver opened
_CONSUMER_CHECK_SECONDS = 0.2  # between two checks whether an address has a consumer
_TAIL_SECONDS = 0.1  # how long a stopped listener still takes messages that are on their way
_PRE_SETTLED = ("rpc-call", "rpc-reply", "rpc-cast", "notify")
_ID_BATCH = 64  # call ids that are generated at once
_MAX_WAITING = 100  # messages for one address that may wait in the background; above that, the sender waits


_dumps = json.JSONEncoder(default=jsonutils.to_primitive).encode  # jsonutils.dumps would make an encoder for each call


_DRIVERS: weakref.WeakSet[Driver] = weakref.WeakSet()


def _after_fork() -> None:
    for driver in list(_DRIVERS):
        driver.forked()


os.register_at_fork(after_in_child=_after_fork)


class Waiter:
    """Let one thread wait for one result. A lock is the cheapest means to wait.

    :ivar sent: whether the call whose result the thread waits for was sent.
    """

    __slots__ = ("_lock", "result", "sent")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.result: typing.Any = None
        self.sent = False

    def wait(self, seconds: float) -> bool:
        """Wait for a result. Return whether there is one."""
        return self._lock.acquire(timeout=max(0.0, seconds))

    def give(self, result: typing.Any) -> None:
        """Give a result and wake the thread. The first result counts. A heartbeat gives None and only wakes."""
        if self.result is None:
            self.result = result
        with contextlib.suppress(RuntimeError):  # the thread was woken before
            self._lock.release()


class IncomingMessage(base.RpcIncomingMessage):
    """A request or notification."""

    def __init__(self, driver: Driver, arrival: session.Arrival, received: messages.Message) -> None:
        content = json.loads(received.body or "")
        super().__init__(content.get("context"), common.deserialize_msg(content["request"]))
        self.client_timeout = content.get("call_monitor_timeout")
        self._driver = driver
        self._arrival = arrival
        self._reply_to = received.reply_to
        self._id = received.message_id

    def acknowledge(self) -> None:
        """Tell the router that the server accepts the message.

        :raises oslo_messaging.MessageDeliveryFailure: when the connection that delivered the message has ended. The
            router then told the sender that the message failed, or gave it to another server. The exception keeps
            oslo.messaging from handling it here.
        """
        if self._arrival.session.closed and not self._arrival.settled:
            raise oslo_messaging.MessageDeliveryFailure("the connection that delivered the message has ended")
        self._driver.settle(self._arrival, frames.ACCEPTED, answered=bool(self._reply_to))

    def requeue(self) -> None:
        self._driver.settle(self._arrival, frames.RELEASED)

    def reply(self, reply: typing.Any = None, failure: typing.Any = None) -> None:
        if not self._reply_to:
            return
        content = {"failure": common.serialize_remote_exception(failure)} if failure else {"response": reply}
        self._driver.reply(self._reply_to, messages.encode(
            self._reply_to, _dumps(content), correlation_id=self._id
        ))  # fmt: skip

    def heartbeat(self) -> None:
        if self._reply_to:
            ttl = int((self.client_timeout or 0) * 1000) or None
            beat = messages.encode(self._reply_to, None, correlation_id=self._id, ttl=ttl)
            self._driver.heartbeat(self._reply_to, beat)


class Listener(base.Listener):
    """Pass each message to the server, in the engine's thread. The server passes it to a thread of its own."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(batch_size=1, batch_timeout=None)
        self._driver = driver
        self._lock = threading.Lock()
        self._early: list[session.Arrival] = []  # messages that came before the server was ready
        self._stopped = False
        self.receivers: list[session.Receiver] = []

    def start(self, on_incoming_callback: typing.Callable[[list[IncomingMessage]], None]) -> None:
        with self._lock:
            super().start(on_incoming_callback)
            early, self._early = self._early, []
            for arrival in early:
                self._hand_over(arrival)

    def incoming(self, arrival: session.Arrival) -> None:
        """Pass on a message, or keep it until the server is ready."""
        with self._lock:
            if self._stopped:
                self._driver.settle(arrival, frames.RELEASED)  # for another server
            elif self.on_incoming_callback is None:
                self._early.append(arrival)
            else:
                self._hand_over(arrival)

    def _hand_over(self, arrival: session.Arrival) -> None:
        message = self._driver.read(arrival)
        if message is not None:
            self.on_incoming_callback([message])

    def stop(self) -> None:
        """Ask for no further messages. The server still handles those that came."""
        self._driver.stop(self.receivers)
        time.sleep(_TAIL_SECONDS)
        with self._lock:
            self._stopped = True
            early, self._early = self._early, []
        for arrival in early:
            self._driver.settle(arrival, frames.RELEASED)
        self._driver.leave(self.receivers)
        super().stop()

    def cleanup(self) -> None:
        self._driver.unsubscribe(self.receivers)


class BatchListener(base.PollStyleListener):
    """Keep messages until the server polls for a batch."""

    def __init__(self, driver: Driver, prefetch_size: int) -> None:
        super().__init__(prefetch_size)
        self._driver = driver
        self._messages: collections.deque[session.Arrival] = collections.deque()
        self._changed = threading.Condition()
        self._stopped_at: float | None = None
        self._done = False
        self.receivers: list[session.Receiver] = []

    def incoming(self, arrival: session.Arrival) -> None:
        """Keep a message for the next poll."""
        with self._changed:
            if not self._done:
                self._messages.append(arrival)
                self._changed.notify()
                return
        self._driver.settle(arrival, frames.RELEASED)  # for another server

    @base.batch_poll_helper
    def poll(self, timeout: float | None = None) -> IncomingMessage | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            arrival = self._next(deadline)
            if arrival is None:
                return None
            message = self._driver.read(arrival)
            if message is not None:
                return message

    def _next(self, deadline: float | None) -> session.Arrival | None:
        """Return the next message. Return None after the deadline, or when a stopped listener has no more."""
        with self._changed:
            while not self._messages:
                until = deadline if self._stopped_at is None else self._stopped_at + _TAIL_SECONDS
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    if self._stopped_at is not None:
                        self._done = True
                        self._driver.leave(self.receivers)
                    return None
                self._changed.wait(left)
            return self._messages.popleft()

    def stop(self) -> None:
        """Ask for no further messages. `poll` still returns those that came."""
        self._driver.stop(self.receivers)
        with self._changed:
            self._stopped_at = time.monotonic()
            self._changed.notify_all()

    def cleanup(self) -> None:
        self._driver.unsubscribe(self.receivers)


class Driver(base.BaseDriver):
    """Speak AMQP 1.0 to routers (qpid-dispatch-router, skupper-router), as oslo.messaging's in-tree driver did.

    :raises ValueError: when an option or the transport URL cannot be used.
    """

    def __init__(
        self,
        conf: typing.Any,
        url: typing.Any,
        default_exchange: str | None = None,
        allowed_remote_exmods: typing.Sequence[str] = (),
    ) -> None:
        super().__init__(conf, url, default_exchange, list(allowed_remote_exmods))
        values = options.read(conf, url.query)
        unknown = sorted(set(values.pre_settled).difference(_PRE_SETTLED, ("none",)))
        if unknown:
            LOG.warning("pre_settled ignores %s; allowed values are %s", ", ".join(unknown), ", ".join(_PRE_SETTLED))
        self._values = values
        self._pre_settled = frozenset(values.pre_settled)
        self._addressing = _addressing(values, default_exchange or "", url.virtual_host or "")
        self._calls: dict[messages.Id, Waiter] = {}
        self._ids: collections.deque[str] = collections.deque()
        self._dropped: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()
        self._active_engine: engine.Engine | None = None
        self._ended = False
        _DRIVERS.add(self)

    # -- the connection

    @property
    def _engine(self) -> engine.Engine:
        """Return the engine of this process. Start it at the first use.

        :raises oslo_messaging.MessageDeliveryFailure: after `cleanup`.
        """
        with self._lock:
            if self._ended:
                raise oslo_messaging.MessageDeliveryFailure("the driver was shut down")
            if self._active_engine is None:
                self._active_engine = engine.Engine(_settings(self._values, self._url), self._answered, self._lost)
            return self._active_engine

    def forked(self) -> None:
        """Leave the connection to the parent process. A child process opens its own when it needs one."""
        self._lock = threading.Lock()  # a thread that exists only in the parent may hold the inherited lock
        inherited, self._active_engine = self._active_engine, None
        self._calls = {}
        self._ids.clear()  # the parent uses these
        if inherited is not None:
            inherited.abandon()

    def _lost(self, reason: str) -> None:
        """Fail the calls that wait for an answer: the reply address ended with the connection."""
        for waiter in list(self._calls.values()):
            if waiter.sent:
                waiter.give(oslo_messaging.MessageDeliveryFailure(f"the answer can no longer arrive: {reason}"))

    def _legacy(self, deadline: float) -> bool:
        if self._addressing.mode != "dynamic":
            return self._addressing.mode == "legacy"
        product = self._engine.product(deadline)
        return self._addressing.legacy("router" if product is None else product)

    # -- sending

    def send(
        self,
        target: typing.Any,
        ctxt: typing.Any,
        message: typing.Any,
        wait_for_reply: bool | None = None,
        timeout: float | None = None,
        call_monitor_timeout: float | None = None,
        retry: int | None = None,
        transport_options: typing.Any = None,
    ) -> typing.Any:
        content = {"request": message, "context": ctxt}
        if call_monitor_timeout is not None:
            content["call_monitor_timeout"] = call_monitor_timeout
        body = _dumps(content)
        deadline = time.monotonic() + (timeout or self._values.default_send_timeout)
        destination = self._addressing.resolve(target, address.RPC, self._legacy(deadline))
        ttl, expiry = (int(timeout * 1000), int((time.time() + timeout) * 1000)) if timeout else (None, None)
        if not wait_for_reply:
            cast = messages.encode(destination, body, ttl=ttl, expiry=expiry)
            self._cast(destination, cast, deadline, retry, bool(target.fanout), "rpc-cast" in self._pre_settled)
            return None
        call_id = self._new_id()
        waiter = self._calls[call_id] = Waiter()

        def build(reply_to: str) -> bytes:
            waiter.sent = True
            return messages.encode(destination, body, message_id=call_id, reply_to=reply_to, ttl=ttl, expiry=expiry)

        try:
            return self._call(destination, build, waiter, deadline, call_monitor_timeout, retry, timeout)
        finally:
            self._calls.pop(call_id, None)

    def _new_id(self) -> str:
        """Return a call id that nobody can guess.

        Ids are generated in batches, because each system call lets another thread run.
        """
        while True:
            try:
                return self._ids.popleft()
            except IndexError:
                digits = os.urandom(_ID_BATCH * 16).hex()
                self._ids.extend(digits[start : start + 32] for start in range(0, len(digits), 32))

    def _call(
        self,
        destination: str,
        build: typing.Callable[[str], bytes],
        waiter: Waiter,
        deadline: float,
        monitor: float | None,
        retry: int | None,
        timeout: float | None,
    ) -> typing.Any:
        retries = _Retries(retry)
        active_engine = self._engine

        def done(outcome: session.Outcome, reason: str) -> None:
            if outcome in (session.Outcome.ACCEPTED, session.Outcome.EXPIRED):
                return
            if outcome in _RESEND_OUTCOMES and retries.use_one():
                waiter.sent = False
                active_engine.resend(delivery)
            else:
                waiter.give(_failure(destination, outcome, reason))

        delivery = session.Delivery(build, done, deadline, "rpc-call" in self._pre_settled, needs_reply=True)
        active_engine.send(destination, delivery)
        until = min(deadline, time.monotonic() + monitor) if monitor else deadline
        while not waiter.wait(until - time.monotonic()) or waiter.result is None:
            if time.monotonic() >= until:
                why = active_engine.refusal(delivery)
                active_engine.cancel(delivery)
                if timeout or delivery.sent:
                    raise oslo_messaging.MessagingTimeout(f"no answer from {destination}: {why}")
                raise oslo_messaging.MessageDeliveryFailure(f"a call to {destination} was not sent in time: {why}")
            if monitor:  # a heartbeat woke this thread: the server still works on the call
                until = min(deadline, time.monotonic() + monitor)
        if isinstance(waiter.result, Exception):
            raise waiter.result
        return self._response(waiter.result)

    def _response(self, body: str) -> typing.Any:
        try:
            content = json.loads(body)
            failure = content.get("failure")
        except (ValueError, AttributeError, RecursionError):
            raise oslo_messaging.MessageDeliveryFailure("the answer cannot be read") from None
        if failure is not None:
            raise common.deserialize_remote_exception(failure, self._allowed_remote_exmods)
        return content.get("response")

    def _answered(self, arrival: session.Arrival) -> tuple[int | bytes, typing.Callable[[], None]]:
        """Return the state that settles an answer or heartbeat, and a function that then wakes its caller."""
        try:
            received = messages.decode(arrival.payload)
        except errors.DecodeError:
            return frames.rejected("amqp:decode-error", "not an answer of oslo.messaging"), _nothing
        waiter = None if received.correlation_id is None else self._calls.get(received.correlation_id)
        if waiter is None:
            return frames.MODIFIED, _nothing
        return frames.ACCEPTED, functools.partial(waiter.give, received.body)

    def _cast(
        self,
        destination: str,
        payload: bytes,
        deadline: float,
        retry: int | None,
        fanout: bool,
        settled: bool,
    ) -> None:
        """Send a message that has no answer. Wait for its acknowledgement only when the address has a consumer.

        Without a consumer, a fanout is finished. Any other message is sent again in the background for
        ``undelivered_cast_timeout``. The driver then drops it, counts it, and logs the first one for each address.
        """
        waiter = Waiter()
        retries = _Retries(retry)
        active_engine = self._engine
        background_deadline = min(deadline, time.monotonic() + self._values.undelivered_cast_timeout)
        background = False

        def done(outcome: session.Outcome, reason: str) -> None:
            nonlocal background
            if outcome is session.Outcome.RELEASED:
                background = True
                waiter.give(_DONE)
                delivery.deadline = min(delivery.deadline, background_deadline)
            if outcome is session.Outcome.RELEASED and fanout:
                return
            if outcome in _RESEND_OUTCOMES and retries.use_one():
                active_engine.resend(delivery, _MAX_WAITING if background else float("inf"))
            elif outcome is not session.Outcome.ACCEPTED and background:
                self._drop(destination)
            else:
                result = _DONE if outcome is session.Outcome.ACCEPTED else _failure(destination, outcome, reason)
                active_engine.after(functools.partial(waiter.give, result))

        delivery = session.Delivery(lambda _: payload, done, deadline, settled)
        waiting = active_engine.send(destination, delivery)
        pause = 0.0
        while not waiter.wait(min(pause, deadline - time.monotonic())):
            if active_engine.without_consumer(delivery):
                background = True
                delivery.deadline = background_deadline
                if waiting > _MAX_WAITING and active_engine.cancel(delivery):
                    self._drop(destination)
                return
            if time.monotonic() >= deadline:
                why = active_engine.refusal(delivery)
                active_engine.cancel(delivery)
                raise oslo_messaging.MessageDeliveryFailure(
                    f"a message to {destination} was not acknowledged in time: {why}"
                )
            pause = _CONSUMER_CHECK_SECONDS
        if isinstance(waiter.result, Exception):
            raise waiter.result

    def _drop(self, destination: str) -> None:
        """Count a dropped message. Log the first one for each address."""
        self._dropped[destination] += 1
        if self._dropped[destination] == 1:
            text = "Dropped a message to %s: nobody listens there. Further messages to it are only counted."
            log.later(LOG, logging.WARNING, text, destination)

    def send_notification(
        self,
        target: typing.Any,
        ctxt: typing.Any,
        message: typing.Any,
        version: float,
        retry: int | None = None,
    ) -> None:
        request = common.serialize_msg(message) if version == 2.0 else message
        body = _dumps({"request": request, "context": ctxt})
        deadline = time.monotonic() + self._values.default_notify_timeout
        destination = self._addressing.resolve(target, address.NOTIFY, self._legacy(deadline))
        notification = messages.encode(destination, body)
        self._cast(destination, notification, deadline, retry, False, "notify" in self._pre_settled)

    # -- receiving

    def listen(self, target: typing.Any, batch_size: int, batch_timeout: float | None) -> base.Listener:
        deadline = time.monotonic() + self._values.default_send_timeout
        legacy = self._legacy(deadline)
        addresses = (
            self._addressing.unicast_address(target, address.RPC, legacy),
            self._addressing.multicast_address(target, address.RPC, legacy),
            self._addressing.anycast_address(target, address.RPC, legacy),
        )
        return self._listener(addresses, self._values.rpc_server_credit, batch_size, batch_timeout, deadline)

    def listen_for_notifications(
        self,
        targets_and_priorities: typing.Iterable[tuple[typing.Any, str]],
        pool: str | None,
        batch_size: int,
        batch_timeout: float | None,
    ) -> base.Listener:
        if pool:
            raise NotImplementedError("a listener cannot have a pool, because AMQP 1.0 routers store no messages")
        deadline = time.monotonic() + self._values.default_notify_timeout
        legacy = self._legacy(deadline)
        topics = [f"{target.topic}.{priority}" for target, priority in targets_and_priorities]
        addresses = [
            self._addressing.anycast_address(oslo_messaging.Target(topic=topic), address.NOTIFY, legacy)
            for topic in topics
        ]
        return self._listener(addresses, self._values.notify_server_credit, batch_size, batch_timeout, deadline)

    def _listener(
        self,
        addresses: typing.Iterable[str],
        credit: int,
        batch_size: int,
        batch_timeout: float | None,
        deadline: float,
    ) -> base.Listener:
        one_by_one = batch_size == 1 and not batch_timeout
        listener = Listener(self) if one_by_one else BatchListener(self, self.prefetch_size)
        active_engine = self._engine
        for each in dict.fromkeys(addresses):
            listener.receivers.append(active_engine.subscribe(each, credit, listener.incoming))
        # Once `listen` returns, clients can call the server. Without a router, the links come with the connection.
        active_engine.attached(listener.receivers, deadline)
        if isinstance(listener, BatchListener):
            return base.PollStyleListenerAdapter(listener, batch_size, batch_timeout)
        return listener

    # -- for messages and listeners

    def read(self, arrival: session.Arrival) -> IncomingMessage | None:
        """Return the message that a server is to handle. Return None when it must not, or cannot be read."""
        if arrival.session.closed and not arrival.settled:
            return None  # the router told the sender that the message failed, or gave it to another server
        try:
            return IncomingMessage(self, arrival, messages.decode(arrival.payload))
        except (errors.DecodeError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            LOG.warning("Rejected a message that cannot be read: %s", type(error).__name__)
            self.settle(arrival, frames.rejected("amqp:decode-error", "not a message of oslo.messaging"))
            return None

    def settle(self, arrival: session.Arrival, state: int | bytes, answered: bool = False) -> None:
        """Settle a message. Do nothing when its connection has ended.

        :param answered: whether an answer is likely to follow at once.
        """
        active_engine = self._active_engine
        if active_engine is not None:
            active_engine.settle(arrival, state, answered)

    def stop(self, receivers: typing.Sequence[session.Receiver]) -> None:
        """Ask for no further messages from these links."""
        active_engine = self._active_engine
        if active_engine is not None:
            active_engine.stop(receivers)

    def leave(self, receivers: typing.Sequence[session.Receiver]) -> None:
        """Detach these links, each once the messages that came over it are settled."""
        active_engine = self._active_engine
        if active_engine is not None:
            active_engine.leave(receivers)

    def unsubscribe(self, receivers: typing.Sequence[session.Receiver]) -> None:
        """Detach these links now."""
        active_engine = self._active_engine
        if active_engine is not None:
            active_engine.unsubscribe(receivers)

    def reply(self, destination: str, payload: bytes) -> None:
        """Send an answer. Wait only when many answers for this address are waiting already."""
        timeout = self._values.default_reply_timeout
        retries = _Retries(self._values.default_reply_retry)
        waiter = Waiter()
        active_engine = self._active_engine
        if active_engine is None:  # the driver was shut down
            return

        def done(outcome: session.Outcome, reason: str) -> None:
            if outcome in _RESEND_OUTCOMES and retries.use_one():
                active_engine.resend(delivery)
                return
            waiter.give(_DONE)
            if outcome is not session.Outcome.ACCEPTED:
                log.later(LOG, logging.DEBUG, "Could not deliver an answer to %s: %s", destination, outcome.value)

        deadline = time.monotonic() + timeout
        delivery = session.Delivery(lambda _: payload, done, deadline, "rpc-reply" in self._pre_settled)
        if active_engine.send(destination, delivery) > _MAX_WAITING:
            waiter.wait(timeout)

    def heartbeat(self, destination: str, payload: bytes) -> None:
        """Tell a caller that the server still works on its call. Drop the heartbeat if it cannot be sent within 1 s."""
        delivery = session.Delivery(lambda _: payload, lambda *_: None, time.monotonic() + 1, settled=True)
        active_engine = self._active_engine
        if active_engine is not None:
            active_engine.send(destination, delivery)

    def cleanup(self) -> None:
        with self._lock:
            self._ended = True
            ended, self._active_engine = self._active_engine, None
        if ended is not None:
            ended.close()
        if self._dropped:
            count = sum(self._dropped.values())
            LOG.info("Dropped %d messages to %d addresses: nobody listened there", count, len(self._dropped))

    def require_features(self, requeue: bool = False) -> None:
        """Accept every feature: a released message is delivered again, here or to another listener."""


def _nothing() -> None:
    """Do nothing."""


_DONE = object()
_RESEND_OUTCOMES = (session.Outcome.RELEASED, session.Outcome.MODIFIED)


class _Retries:
    """Count how often a message may be sent again.

    :param retry: None or -1 for no limit.
    """

    def __init__(self, retry: int | None) -> None:
        self._left = -1 if retry is None else retry

    def use_one(self) -> bool:
        """Use one retry. Return whether one was left."""
        if self._left > 0:
            self._left -= 1
            return True
        return self._left < 0


def _failure(destination: str, outcome: session.Outcome, reason: str) -> oslo_messaging.MessageDeliveryFailure:
    return oslo_messaging.MessageDeliveryFailure(
        f"a message to {destination} was {outcome.value}" + (f": {reason}" if reason else "")
    )


def _addressing(values: typing.Any, default_exchange: str, virtual_host: str) -> address.Addressing:
    if values.addressing_mode not in ("dynamic", "routable", "legacy"):
        raise ValueError("addressing_mode must be dynamic, routable or legacy")
    return address.Addressing(
        mode=values.addressing_mode,
        default_exchange=default_exchange,
        rpc_exchange=values.default_rpc_exchange or "",
        notify_exchange=values.default_notification_exchange or "",
        virtual_host=virtual_host if values.pseudo_vhost else "",
        rpc_prefix=values.rpc_address_prefix,
        notify_prefix=values.notify_address_prefix,
        multicast=values.multicast_address,
        unicast=values.unicast_address,
        anycast=values.anycast_address,
        server_prefix=values.server_request_prefix,
        broadcast_prefix=values.broadcast_prefix,
        group_prefix=values.group_request_prefix,
    )


def _settings(values: typing.Any, url: typing.Any) -> engine.Settings:
    virtual_host = url.virtual_host or ""
    hostname = "" if values.pseudo_vhost else virtual_host
    node, command, pid = socket.gethostname(), os.path.basename(sys.argv[0]), os.getpid()
    identity = f"openstack.org/om/container/{node}/{command}/{pid}/{uuid.uuid4().hex}"
    hosts = tuple(_host(values, host, hostname, virtual_host) for host in url.hosts)
    return engine.Settings(
        hosts=hosts or (_host(values, oslo_messaging.TransportHost("localhost"), hostname, virtual_host),),
        container=values.container_name or identity,
        hostname=hostname,
        properties={"product": _PRODUCT, "process": command, "pid": str(pid), "node": node},
        idle_timeout=values.idle_timeout,
        retry=(
            values.connection_retry_interval,
            values.connection_retry_backoff,
            values.connection_retry_interval_max,
        ),
        link_retry=values.link_retry_delay,
        link_timeout=values.default_sender_link_timeout,
        reply_credit=values.reply_link_credit,
    )


def _host(values: typing.Any, host: typing.Any, hostname: str, virtual_host: str) -> engine.Host:
    username = host.username or ""
    if username and values.sasl_default_realm and "@" not in username:
        username = f"{username}@{values.sasl_default_realm}"
    tls = None
    if values.ssl:
        tls = transport.Tls(
            ca_file=values.ssl_ca_file,
            certificate_file=values.ssl_cert_file,
            key_file=values.ssl_key_file,
            key_password=values.ssl_key_password or "",
            name=virtual_host if values.ssl_verify_vhost else "",
        )
    credentials = sasl.Credentials(username, host.password or "", bool(tls and tls.certificate_file))
    mechanisms = tuple(values.sasl_mechanisms.split())
    login = transport.Login(credentials, mechanisms, tls, hostname)
    return engine.Host(host.hostname or "localhost", host.port or _PORT, login)
