"""The driver as oslo.messaging calls it, at a peer that a test scripts."""

from __future__ import annotations

import collections.abc
import concurrent.futures
import contextlib
import json
import logging
import socket
import threading
import time
import typing

import pytest
from oslo_messaging_amqp1 import driver, frames, messages

from tests.driver import peer
from tests.support import waiting

oslo_messaging = pytest.importorskip("oslo_messaging", reason="oslo.messaging is not installed")
cfg = pytest.importorskip("oslo_config.cfg", reason="oslo.config is not installed")

TARGET = oslo_messaging.Target(topic="topic", server="server")


class Router:
    """A router of which each step is a test's. It answers open, begin and attach by itself.

    :ivar seen: what this side sent on the last connection, without open and begin.
    :ivar links: of the last connection: address (None for the reply address) to handle.
    """

    def __init__(self, react: collections.abc.Callable[[Router, peer.Seen], None] = lambda *_: None) -> None:
        self._react = react
        self._connection: socket.socket | None = None
        self.seen: list[peer.Seen] = []
        self.links: dict[str | None, int] = {}
        self.senders: set[int] = set()
        self.server = peer.Server(self._serve)

    def _serve(self, connection: socket.socket) -> None:
        peer.log_in(connection)
        connection.sendall(peer.opened() + peer.begun())
        self._connection, self.seen, self.links = connection, [], {}
        for seen in peer.frames_of(connection):
            if seen.code == frames.ATTACH:
                self._attach(seen)
            self.seen.append(seen)
            self._react(self, seen)
            if seen.code == frames.CLOSE:
                self.send(frames.frame(frames.close()))
                return

    def _attach(self, seen: peer.Seen) -> None:
        name, handle, receives = seen.fields[:3]
        address = frames.composite(seen.fields[5])[1][0]
        self.links[address] = handle
        self.send(peer.attached(name, handle, receives, address or "reply-address"))

    def send(self, *data: bytes) -> None:
        assert self._connection is not None
        self._connection.sendall(b"".join(data))

    def drop(self) -> None:
        assert self._connection is not None
        self._connection.shutdown(socket.SHUT_RDWR)

    def codes(self) -> list[int]:
        return [seen.code for seen in self.seen]


def gives_credit(router: Router, seen: peer.Seen) -> None:
    """A router with a consumer for each address."""
    if seen.code == frames.ATTACH and not seen.fields[2]:
        router.send(peer.credit(seen.fields[1], 0, 100))


def accepts(router: Router, seen: peer.Seen) -> None:
    gives_credit(router, seen)
    if seen.code == frames.TRANSFER:
        router.send(peer.disposed(seen.fields[1], None, peer.state(frames.ACCEPTED)))


@pytest.fixture
def stack() -> collections.abc.Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as found:
        yield found


def connect(stack: contextlib.ExitStack, router: Router, query: str = "") -> driver.Driver:
    stack.callback(router.server.close)
    cfg.CONF([], project="driver")
    url = f"amqp1://127.0.0.1:{router.server.port}/?addressing_mode=routable&{query}"
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=url)
    stack.callback(transport.cleanup)
    made: driver.Driver = transport._driver
    return made


def request(name: str) -> bytes:
    return messages.encode("to", json.dumps({"request": {"method": name}, "context": {}}))


class Server:
    """A listener with one thread, which takes ``seconds`` for a message.

    :param batch: how many messages the listener hands over at once.
    """

    def __init__(self, made: driver.Driver, seconds: float = 0.0, batch: int = 1) -> None:
        self.handled: list[str] = []
        self._seconds = seconds
        self._executor = concurrent.futures.ThreadPoolExecutor(1)
        self.listener = made.listen(TARGET, batch, 0.1 if batch > 1 else None)
        self.listener.start(lambda incoming: self._executor.submit(self._handle, incoming))

    def _handle(self, incoming: list[typing.Any]) -> None:
        for message in incoming:
            message.acknowledge()
            self.handled.append(message.message["method"])
            time.sleep(self._seconds)

    def stop(self) -> None:
        """Stop, and handle what came."""
        self.listener.stop()
        self._executor.shutdown()


ADDRESS = "openstack.org/om/rpc/anycast/openstack/topic"


@pytest.mark.parametrize("batch", [1, 3])
def test_a_listener_that_stops_handles_what_came_and_leaves_the_rest(stack: contextlib.ExitStack, batch: int) -> None:
    """With its links detached at once, the router would tell the senders of what is handled that it failed."""
    router = Router()
    server = Server(connect(stack, router), 0.05, batch)
    waiting.until(lambda: len(router.links) == 3)
    handle = router.links[ADDRESS]
    router.send(*(peer.transfer(handle, number, request(str(number))) for number in range(5)))
    waiting.until(lambda: server.handled)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    waiting.until(lambda: [seen.fields[6] for seen in router.seen if seen.code == frames.FLOW][-3:] == [0, 0, 0])
    router.send(peer.transfer(handle, 5, request("5")))  # it was on its way
    stopping.join(10)
    assert server.handled == ["0", "1", "2", "3", "4", "5"]
    waiting.until(lambda: router.codes().count(frames.DETACH) == 3)
    accepted = [seen.fields[1] for seen in router.seen if seen.code == frames.DISPOSITION]
    assert max(accepted) == 5
    detached = [at for at, seen in enumerate(router.seen) if (seen.code, seen.fields[0]) == (frames.DETACH, handle)]
    settled = [at for at, seen in enumerate(router.seen) if seen.code == frames.DISPOSITION]
    assert max(settled) < detached[0]
    router.send(peer.transfer(handle, 6, request("6")))  # it crossed with the detach
    server.listener.cleanup()
    assert len(server.handled) == 6


def test_a_stopped_listener_leaves_before_its_slow_handler_ends(stack: contextlib.ExitStack) -> None:
    """A router may send to a link that gives no credit: the requests would wait for the handler."""
    router = Router()
    server = Server(connect(stack, router), 2)
    waiting.until(lambda: len(router.links) == 3)
    router.send(peer.transfer(router.links[ADDRESS], 0, request("slow")))
    waiting.until(lambda: server.handled)
    start = time.monotonic()
    server.listener.stop()
    waiting.until(lambda: router.codes().count(frames.DETACH) == 3)
    assert time.monotonic() - start < 1.5
    server.stop()


def test_what_waits_when_its_connection_ends_is_not_handled(stack: contextlib.ExitStack) -> None:
    """The router tells its sender that it failed, or sends it to somebody else."""
    router = Router()
    server = Server(connect(stack, router), 0.5)
    waiting.until(lambda: len(router.links) == 3)
    handle = router.links[ADDRESS]
    router.send(*(peer.transfer(handle, number, request(str(number))) for number in range(3)))
    waiting.until(lambda: server.handled)
    router.links.clear()  # those of the new connection are waited for
    router.drop()
    waiting.until(lambda: router.server.connections == 2 and len(router.links) == 3)
    router.send(peer.transfer(router.links[ADDRESS], 0, request("again")))
    waiting.until(lambda: "again" in server.handled)
    assert server.handled == ["0", "again"]
    server.stop()


def test_what_came_settled_is_handled_although_the_connection_ends_right_after_it(stack: contextlib.ExitStack) -> None:
    router = Router()
    server = Server(connect(stack, router, "connection_retry_interval=60&connection_retry_interval_max=60"))
    waiting.until(lambda: len(router.links) == 3)
    last = peer.transfer(router.links[ADDRESS], 0, request("last"), settled=True)
    router.send(last, frames.frame(frames.close("amqp:connection:forced", "shutting down")))
    waiting.until(lambda: server.handled == ["last"])  # and not with the next connection only
    server.stop()


def test_what_comes_before_a_server_starts_waits_for_it(stack: contextlib.ExitStack) -> None:
    router = Router()
    made = connect(stack, router)
    listener = made.listen(TARGET, 1, None)
    router.send(peer.transfer(router.links[ADDRESS], 0, request("early")))
    time.sleep(0.3)
    handled: list[str] = []
    listener.start(lambda incoming: handled.append(incoming[0].message["method"]))
    assert handled == ["early"]
    listener.stop()
    listener.cleanup()


@pytest.mark.parametrize("batch", [1, 3])
def test_what_no_server_can_read_is_rejected_and_the_next_one_is_handled(
    stack: contextlib.ExitStack, batch: int
) -> None:
    router = Router()
    server = Server(connect(stack, router), batch=batch)
    waiting.until(lambda: len(router.links) == 3)
    bodies = ["", "[]", "{", "1", "[" * 10_000, json.dumps({"context": {}})]
    unreadable = [messages.encode("to", body) for body in bodies] + [b"garbage", b"\x00\x45\x45"]
    handle = router.links[ADDRESS]
    router.send(*(peer.transfer(handle, number, message) for number, message in enumerate(unreadable)))
    router.send(peer.transfer(handle, len(unreadable), request("good")))
    waiting.until(lambda: "good" in server.handled)
    server.stop()


def test_a_defect_of_a_server_leaves_the_others_their_messages(
    stack: contextlib.ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    router = Router()
    made = connect(stack, router)
    handled: list[str] = []

    def handle(incoming: list[typing.Any]) -> None:
        handled.append(incoming[0].message["method"])
        if len(handled) == 1:
            raise RuntimeError("a defect")

    listener = made.listen(TARGET, 1, None)
    listener.start(handle)
    router.send(*(peer.transfer(router.links[ADDRESS], number, request(str(number))) for number in range(2)))
    waiting.until(lambda: handled == ["0", "1"])
    assert "Could not pass a message to its server" in caplog.text
    listener.stop()


def test_a_call_whose_reply_address_goes_away_fails_at_once(stack: contextlib.ExitStack) -> None:
    router = Router(accepts)
    made = connect(stack, router)
    said: list[str] = []

    def call() -> None:
        try:
            made.send(TARGET, {}, {"method": "x"}, wait_for_reply=True, timeout=20)
        except oslo_messaging.MessageDeliveryFailure as error:
            said.append(str(error))

    caller = threading.Thread(target=call)
    caller.start()
    waiting.until(lambda: frames.TRANSFER in router.codes())
    start = time.monotonic()
    router.send(peer.detached(router.links[None], "amqp:resource-deleted", "gone"))
    caller.join(10)
    assert time.monotonic() - start < 2
    reason = "the router removed the reply address: amqp:resource-deleted: gone"
    assert said == [f"the answer can no longer arrive: {reason}"]


def test_a_router_that_gives_no_reply_address_is_named(stack: contextlib.ExitStack) -> None:
    def serve(router: Router, seen: peer.Seen) -> None:
        gives_credit(router, seen)
        if seen.code == frames.ATTACH and seen.fields[2]:
            router.send(peer.detached(seen.fields[1], "amqp:unauthorized-access", "dynamic source"))

    made = connect(stack, Router(serve))
    with pytest.raises(oslo_messaging.MessagingTimeout, match="gave no address for replies: amqp:unauthorized-access"):
        made.send(TARGET, {}, {"method": "x"}, wait_for_reply=True, timeout=0.5)


def test_a_cast_in_the_background_is_counted_whatever_becomes_of_it(
    stack: contextlib.ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def serve(router: Router, seen: peer.Seen) -> None:
        gives_credit(router, seen)
        if seen.code == frames.TRANSFER:
            count = router.codes().count(frames.TRANSFER)
            if count == 1:
                router.send(peer.disposed(seen.fields[1], None, peer.state(frames.RELEASED)))
            else:
                router.drop()

    made = connect(stack, Router(serve))
    made.send(TARGET, {}, {"method": "x"})
    waiting.until(lambda: sum(made._dropped.values()) == 1)
    made.cleanup()
    assert "Dropped 1 messages to 1 addresses" in caplog.text


def test_an_answer_counts_although_the_connection_ends_right_after_it() -> None:
    waiter = driver.Waiter()
    waiter.give(None)
    assert waiter.wait(0) and waiter.result is None  # a heartbeat
    waiter.give("answer")
    waiter.give(oslo_messaging.MessageDeliveryFailure("lost"))
    assert waiter.wait(0)
    assert waiter.result == "answer"


def test_deadlines_are_exact_without_a_router(stack: contextlib.ExitStack) -> None:
    made = connect(stack, Router())
    for timeout in (0.2, 0.5):
        start = time.monotonic()
        with pytest.raises(oslo_messaging.MessagingTimeout, match="nobody listens at"):
            made.send(TARGET, {}, {"method": "x"}, wait_for_reply=True, timeout=timeout)
        assert 0 <= time.monotonic() - start - timeout < 0.25  # a busy machine; alone it is below 0.05
