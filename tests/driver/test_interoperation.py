"""Every pattern of oslo.messaging over each router: this driver at both ends, and the in-tree one at either end."""

from __future__ import annotations

import collections.abc
import contextlib
import multiprocessing
import os
import pathlib
import signal
import threading
import time
import typing

import pytest

from tests.support import engines, waiting

oslo_messaging = pytest.importorskip("oslo_messaging", reason="oslo.messaging is not installed")
cfg = pytest.importorskip("oslo_config.cfg", reason="oslo.config is not installed")
pytest.importorskip("oslo_messaging._drivers.impl_amqp1", reason="this oslo.messaging has no AMQP 1.0 driver")

OWN, IN_TREE = "amqp1", "amqp"
MEBIBYTE = 1024 * 1024
QUERY = "link_retry_delay=1&connection_retry_interval=1&connection_retry_backoff=0"


@pytest.fixture(scope="module", params=engines.ENGINES)
def router(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> collections.abc.Iterator[engines.Router]:
    with engines.running(request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


class Refused(Exception):
    """What a server raises, to be seen by its client."""


class Endpoint:
    """What a server offers; remembers what came by cast."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[object] = []

    def echo(self, context: object, value: object) -> object:
        return value

    def who(self, context: object) -> str:
        return self.name

    def context(self, context: object) -> object:
        return context

    def slow(self, context: object, seconds: float) -> str:
        time.sleep(seconds)
        return self.name

    def note(self, context: object, value: object) -> None:
        self.seen.append(value)

    def fail(self, context: object, text: str) -> None:
        raise Refused(text)

    def fail_unknown(self, context: object) -> None:
        raise type("Strange", (Exception,), {"__module__": "elsewhere.exceptions"})("strange")


class Listener:
    """What a notification listener got."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, object]] = []

    def info(self, context: object, publisher: str, event: str, payload: object, metadata: object) -> None:
        self.seen.append((event, payload))

    def error(self, context: object, publisher: str, event: str, payload: object, metadata: object) -> typing.Any:
        self.seen.append((event, payload))
        again = oslo_messaging.NotificationResult.REQUEUE
        return again if len(self.seen) == 1 else oslo_messaging.NotificationResult.HANDLED


class Bus:
    """The clients and servers of one test, on transports that end with it."""

    def __init__(self, router: engines.Router, client: str = OWN, server: str = OWN, query: str = QUERY) -> None:
        self._router, self._query = router, query
        self._schemes = {"client": client, "server": server}
        self._stack = contextlib.ExitStack()
        self._servers: list[typing.Any] = []

    def __enter__(self) -> Bus:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def transport(self, get: typing.Any, side: str, host: str = "") -> typing.Any:
        cfg.CONF([], project="driver")
        url = f"{self._schemes[side]}://{host or self._router.url}/?{self._query}"
        transport = get(cfg.CONF, url=url, allowed_remote_exmods=[__name__, "tests.driver.test_interoperation"])
        self._stack.callback(transport.cleanup)
        return transport

    def server(self, topic: str, name: str) -> Endpoint:
        endpoint = Endpoint(name)
        server = oslo_messaging.get_rpc_server(
            self.transport(oslo_messaging.get_rpc_transport, "server"),
            oslo_messaging.Target(topic=topic, server=name),
            [endpoint],
            executor="threading",
            access_policy=oslo_messaging.DefaultRPCAccessPolicy,
        )
        server.start()
        self._servers.append(server)
        self._stack.callback(server.wait)
        self._stack.callback(server.stop)
        return endpoint

    def stop(self, number: int) -> None:
        """Stop the server that was made as that one, counted from 0."""
        self._servers[number].stop()
        self._servers[number].wait()

    def client(self, topic: str, timeout: float | None = 10, host: str = "", **options: object) -> typing.Any:
        transport = self.transport(oslo_messaging.get_rpc_transport, "client", host)
        return oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(topic=topic), timeout=timeout, **options)

    def listener(self, topic: str, **options: object) -> Listener:
        endpoint = Listener()
        listener = oslo_messaging.get_notification_listener(
            self.transport(oslo_messaging.get_notification_transport, "server"),
            [oslo_messaging.Target(topic=topic)],
            [endpoint],
            executor="threading",
            **options,
        )
        listener.start()
        self._stack.callback(listener.wait)
        self._stack.callback(listener.stop)
        return endpoint

    def notifier(self, topic: str, driver: str = "messagingv2") -> typing.Any:
        transport = self.transport(oslo_messaging.get_notification_transport, "client")
        return oslo_messaging.Notifier(transport, "publisher", driver=driver, topics=[topic])


PAIRS = [(OWN, OWN), (OWN, IN_TREE), (IN_TREE, OWN)]


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0]}-to-{pair[1]}")
def bus(request: pytest.FixtureRequest, router: engines.Router) -> collections.abc.Iterator[Bus]:
    with Bus(router, *request.param) as made:
        yield made


def test_calls(bus: Bus) -> None:
    for name in ("one", "two"):
        bus.server("calls", name)
    client = bus.client("calls")
    for value in ("", "ü€😀 $%{", None, 0, [1, {"a": True}], "x" * 20_000):
        assert client.call({}, "echo", value=value) == value
    assert client.call({"user": "ü"}, "context") == {"user": "ü"}
    for name in ("one", "two"):
        assert client.prepare(server=name).call({}, "who") == name


@pytest.mark.parametrize("size", [0, 16_000, MEBIBYTE, 8 * MEBIBYTE])
def test_bodies(bus: Bus, size: int) -> None:
    bus.server("bodies", "one")
    value = "x" * size
    assert bus.client("bodies", timeout=60).call({}, "echo", value=value) == value


def test_remote_exceptions(bus: Bus) -> None:
    bus.server("errors", "one")
    client = bus.client("errors")
    with pytest.raises(Refused, match="no"):
        client.call({}, "fail", text="no")
    with pytest.raises(oslo_messaging.RemoteError, match="strange"):
        client.call({}, "fail_unknown")


def test_casts_and_fanouts(bus: Bus) -> None:
    servers = [bus.server("casts", name) for name in ("one", "two")]
    client = bus.client("casts")
    client.call({}, "who")
    for number in range(50):
        client.cast({}, "note", value=number)
    waiting.until(lambda: sum(len(server.seen) for server in servers) == 50)
    for number in range(50):
        client.prepare(fanout=True).cast({}, "note", value=f"all {number}")
    waiting.until(lambda: all(len([v for v in server.seen if str(v).startswith("all")]) == 50 for server in servers))
    client.prepare(server="two").cast({}, "note", value="for two")
    waiting.until(lambda: "for two" in servers[1].seen)
    assert "for two" not in servers[0].seen


def test_a_long_call_is_monitored(bus: Bus) -> None:
    bus.server("long", "one")
    client = bus.client("long", timeout=30).prepare(call_monitor_timeout=2)
    assert client.call({}, "slow", seconds=4) == "one"


def test_a_monitored_call_to_nobody(router: engines.Router) -> None:
    with Bus(router) as bus:
        start = time.monotonic()
        with pytest.raises(oslo_messaging.MessagingTimeout):
            bus.client("long-nobody", timeout=30).prepare(call_monitor_timeout=1).call({}, "who")
        assert time.monotonic() - start < 3


@pytest.mark.parametrize("driver", ["messaging", "messagingv2"])
def test_notifications(bus: Bus, driver: str) -> None:
    listener = bus.listener(f"notes-{driver}")
    notifier = bus.notifier(f"notes-{driver}", driver)
    for number in range(20):
        notifier.info({}, "happened", {"number": number, "text": "ü"})
    waiting.until(lambda: len(listener.seen) == 20)
    assert sorted(listener.seen, key=str) == sorted(
        (("happened", {"number": number, "text": "ü"}) for number in range(20)), key=str
    )


def test_a_notification_is_requeued(bus: Bus) -> None:
    listener = bus.listener("again", allow_requeue=True)
    bus.notifier("again").error({}, "failed", {"a": 1})
    waiting.until(lambda: len(listener.seen) == 2)
    assert listener.seen == [("failed", {"a": 1})] * 2


# -- what services take for granted, which the in-tree driver does not give


def test_nobody_listens(router: engines.Router) -> None:
    """As over RabbitMQ: a cast or fanout returns at once, a call waits for its timeout and not longer."""
    with Bus(router) as bus:
        client = bus.client("nobody", timeout=1)
        client.cast({}, "note", value=0)  # the first one connects
        start = time.monotonic()
        for number in range(20):
            client.cast({}, "note", value=number)
            client.prepare(fanout=True).cast({}, "note", value=number)
            client.prepare(server="unknown").cast({}, "note", value=number)
        bus.notifier("nobody").info({}, "event", {})
        assert time.monotonic() - start < 3
        start = time.monotonic()
        with pytest.raises(oslo_messaging.MessagingTimeout, match="nobody listens at openstack"):
            client.call({}, "who")
        assert 0.95 < time.monotonic() - start < 1.5


def test_a_consumer_that_comes_later(router: engines.Router) -> None:
    with Bus(router) as bus:
        client = bus.client("later", timeout=20)
        client.cast({}, "note", value="early")
        answers: list[object] = []
        caller = threading.Thread(target=lambda: answers.append(client.call({}, "who")))
        caller.start()
        time.sleep(0.5)
        server = bus.server("later", "one")
        caller.join(20)
        assert answers == ["one"]
        waiting.until(lambda: server.seen == ["early"])


def test_deadlines_are_exact(router: engines.Router) -> None:
    with Bus(router) as bus:
        bus.server("deadline", "one")
        client = bus.client("deadline")
        client.call({}, "who")
        for timeout in (0.25, 0.5, 1.0):
            start = time.monotonic()
            with pytest.raises(oslo_messaging.MessagingTimeout):
                client.prepare(timeout=timeout).call({}, "slow", seconds=1.5)
            assert 0 <= time.monotonic() - start - timeout < 0.25  # a busy machine; alone it is below 0.05


def test_many_callers_at_once(router: engines.Router) -> None:
    with Bus(router) as bus:
        for name in ("one", "two"):
            bus.server("many", name)
        client = bus.client("many", timeout=30)
        wrong: list[object] = []

        def call(first: int) -> None:
            for number in range(first, first + 50):
                if client.call({}, "echo", value=number) != number:
                    wrong.append(number)

        callers = [threading.Thread(target=call, args=(1000 * each,)) for each in range(32)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(60)
        assert not wrong
        assert not any(caller.is_alive() for caller in callers)


def test_a_server_that_stops_loses_no_call_and_makes_none_twice(router: engines.Router) -> None:
    with Bus(router) as bus:
        endpoints = [bus.server("stops", name) for name in ("one", "two")]
        client = bus.client("stops", timeout=20)
        failed: list[BaseException] = []
        made: list[int] = []
        ends = time.monotonic() + 4

        def call(first: int) -> None:
            number = first
            while time.monotonic() < ends:
                try:
                    client.call({}, "note", value=number)
                    made.append(number)
                except Exception as error:
                    failed.append(error)
                number += 1

        callers = [threading.Thread(target=call, args=(100_000 * each,)) for each in range(8)]
        for caller in callers:
            caller.start()
        time.sleep(1)
        bus.stop(0)
        for caller in callers:
            caller.join(30)
        assert not failed
        seen = [value for endpoint in endpoints for value in endpoint.seen]
        assert sorted(map(str, seen)) == sorted(map(str, made))


def test_an_unreachable_host_is_passed_over_and_named(router: engines.Router) -> None:
    with Bus(router) as bus:
        bus.server("hosts", "one")
        dead = f"{router.host}:1"
        assert bus.client("hosts", host=f"{dead},{router.url}").call({}, "who") == "one"
        with pytest.raises(oslo_messaging.MessagingTimeout, match="Connection refused"):
            bus.client("hosts", host=dead, timeout=1).call({}, "who")


def _in_child(client: typing.Any, results: typing.Any) -> None:
    try:
        results.send(client.call({}, "who"))
    except Exception as error:
        results.send(repr(error))
    os._exit(0)


def test_after_a_fork_the_child_has_a_connection_of_its_own(router: engines.Router) -> None:
    with Bus(router) as bus:
        bus.server("fork", "one")
        client = bus.client("fork")
        assert client.call({}, "who") == "one"
        context = multiprocessing.get_context("fork")
        results, other_end = context.Pipe()
        child = context.Process(target=_in_child, args=(client, other_end))
        child.start()
        assert results.poll(20)
        assert results.recv() == "one"
        child.join(10)
        assert client.call({}, "who") == "one"


@pytest.mark.parametrize("mode", ["dynamic", "routable"])
def test_the_first_call_of_a_process(router: engines.Router, mode: str) -> None:
    with Bus(router, query=f"{QUERY}&addressing_mode={mode}") as bus:
        bus.server("first", "one")
        assert bus.client("first").call({}, "who") == "one"


def test_the_agents_word_for_no_pre_settled_messages(router: engines.Router) -> None:
    with Bus(router, query=f"{QUERY}&pre_settled=none") as bus:
        bus.server("none", "one")
        assert bus.client("none").call({}, "who") == "one"


def test_a_driver_that_was_shut_down_says_so(router: engines.Router) -> None:
    with Bus(router) as bus:
        client = bus.client("shut")
        client.cast({}, "note", value=1)
        client.transport.cleanup()
        with pytest.raises(oslo_messaging.MessageDeliveryFailure, match="was shut down"):
            client.cast({}, "note", value=2)
        assert not [thread for thread in threading.enumerate() if thread.name == "amqp1"]


def test_a_call_under_way_fails_at_once_when_the_router_dies(tmp_path: pathlib.Path, router: engines.Router) -> None:
    """Its answer cannot come any more: the address that it was sent to is gone."""
    with engines.running(router.engine, tmp_path) as own, Bus(own) as bus:
        bus.server("dies", "one")
        client = bus.client("dies", timeout=30)
        client.call({}, "who")
        errors: list[BaseException] = []

        def call() -> None:
            try:
                client.call({}, "slow", seconds=5)
            except Exception as error:
                errors.append(error)

        caller = threading.Thread(target=call)
        caller.start()
        time.sleep(1)
        start = time.monotonic()
        own.stop(signal.SIGKILL)
        caller.join(20)
        assert time.monotonic() - start < 4
        assert [type(error) for error in errors] == [oslo_messaging.MessageDeliveryFailure]
        own.start()


def test_the_in_tree_driver_keeps_its_own_defaults(router: engines.Router) -> None:
    """Both register the same options; whichever comes first must not change the other's."""
    with Bus(router, OWN, IN_TREE, query="") as bus:
        own = bus.transport(oslo_messaging.get_rpc_transport, "client")._driver
        in_tree = bus.transport(oslo_messaging.get_rpc_transport, "server")._driver
        assert own._pre_settled == frozenset()
        assert own._values.idle_timeout == 10
        assert in_tree._pre_settle_cast and in_tree._pre_settle_reply
        assert in_tree._conf.oslo_messaging_amqp.link_retry_delay == 10


def test_a_router_that_restarts(tmp_path: pathlib.Path, router: engines.Router) -> None:
    with engines.running(router.engine, tmp_path) as own, Bus(own) as bus:
        server = bus.server("restart", "one")
        client = bus.client("restart", timeout=20)
        assert client.call({}, "who") == "one"
        own.stop()
        caller = threading.Thread(target=lambda: client.cast({}, "note", value="while it was away"))
        caller.start()
        time.sleep(0.5)
        own.start()
        caller.join(20)
        assert client.call({}, "who") == "one"
        waiting.until(lambda: server.seen == ["while it was away"])
