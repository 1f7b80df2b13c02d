"""Every pattern of oslo.messaging, through the development router and through the real ones."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import pathlib
import signal
import threading
import time
import typing

import pytest

from tests.support import engines, waiting

pytest.importorskip("pyngus", reason="pyngus, the AMQP 1.0 driver's engine, is not installed")
oslo_messaging = pytest.importorskip("oslo_messaging", reason="oslo.messaging is not installed")
cfg = pytest.importorskip("oslo_config.cfg", reason="oslo.config is not installed")
pytest.importorskip("oslo_messaging._drivers.impl_amqp1", reason="this oslo.messaging has no AMQP 1.0 driver")

MEBIBYTE = 1024 * 1024
# A shorter retry than the driver's ten seconds: a link that found nobody tries again within a test's patience.
QUICK = "link_retry_delay=1&connection_retry_interval=1&connection_retry_backoff=0"


@pytest.fixture(scope="module", params=engines.ENGINES)
def router(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> collections.abc.Iterator[engines.Router]:
    with engines.running(request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


@pytest.fixture(params=engines.ENGINES)
def own_router(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> collections.abc.Iterator[engines.Router]:
    """A router that the test may stop."""
    with engines.running(request.param, tmp_path) as started:
        yield started


class Refused(Exception):
    """An error that a server raises for its client."""


class Endpoint:
    """A server's endpoint, which records casts."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[object] = []
        self.attached = False

    def echo(self, context: object, value: object) -> object:
        return value

    def who(self, context: object) -> str:
        return self.name

    def slow(self, context: object, seconds: float) -> str:
        time.sleep(seconds)
        return self.name

    def note(self, context: object, value: object) -> None:
        if value is None:
            self.attached = True
        else:
            self.seen.append(value)

    def fail(self, context: object, text: str) -> None:
        raise Refused(text)


class Bus:
    """The clients and servers of one test, on transports that end with it."""

    def __init__(self, router: engines.Router, query: str = QUICK, user: str = "") -> None:
        self._url = f"amqp://{user}{router.url}/?{query}"
        self._stack = contextlib.ExitStack()
        self._servers: list[typing.Any] = []

    def __enter__(self) -> Bus:
        return self

    def __exit__(self, *exc: object) -> None:
        # Each takes a second to stop: let them do it together.
        stoppers = [threading.Thread(target=_stop, args=(server,)) for server in self._servers]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join(30)
        self._stack.close()

    def transport(self, get: typing.Any) -> typing.Any:
        cfg.CONF([], project="devrouter")
        modules = [__name__, "tests.devrouter.test_oslo_messaging"]
        transport = get(cfg.CONF, url=self._url, allowed_remote_exmods=modules)
        self._stack.callback(transport.cleanup)
        return transport

    def server(self, topic: str, name: str) -> tuple[Endpoint, typing.Any]:
        endpoint = Endpoint(name)
        transport = self.transport(oslo_messaging.get_rpc_transport)
        target = oslo_messaging.Target(topic=topic, server=name)
        server = oslo_messaging.get_rpc_server(
            transport, target, [endpoint], executor="threading", access_policy=oslo_messaging.DefaultRPCAccessPolicy
        )
        server.start()
        self._servers.append(server)
        return endpoint, server

    def client(self, topic: str, timeout: float = 10, **options: object) -> typing.Any:
        transport = self.transport(oslo_messaging.get_rpc_transport)
        return oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(topic=topic), timeout=timeout, **options)


def _stop(server: typing.Any) -> None:
    server.stop()
    server.wait()


def wait_until_attached(client: typing.Any, endpoints: list[Endpoint]) -> None:
    """Wait for the server's links: they attach after its start, and earlier messages reach no consumer."""

    def reached() -> bool:
        client.cast({}, "note", value=None)
        return all(e.attached for e in endpoints)

    waiting.until(reached, 30)


def wait_for_notes(endpoint: Endpoint, count: int) -> None:
    waiting.until(lambda: len(endpoint.seen) == count)


@pytest.fixture
def bus(router: engines.Router) -> collections.abc.Iterator[Bus]:
    with Bus(router) as made:
        yield made


def test_call(bus: Bus) -> None:
    bus.server("call", "one")
    client = bus.client("call")
    for value in (1, "two", {"three": [None, True]}):
        assert client.call({}, "echo", value=value) == value


def test_call_from_many_threads(bus: Bus) -> None:
    bus.server("many", "one")
    bus.server("many", "two")
    client = bus.client("many")
    answers: list[int] = []

    def work(first: int) -> None:
        answers.extend(client.call({}, "echo", value=first + number) for number in range(25))

    threads = [threading.Thread(target=work, args=(100 * index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(answers) == sorted(100 * index + number for index in range(6) for number in range(25))


def test_cast(bus: Bus) -> None:
    endpoint, _ = bus.server("cast", "one")
    client = bus.client("cast")
    for number in range(50):
        client.cast({}, "note", value=number)
    wait_for_notes(endpoint, 50)
    assert sorted(typing.cast("list[int]", endpoint.seen)) == list(range(50))


def test_fanout_reaches_every_server(bus: Bus) -> None:
    endpoints = [bus.server("fanout", name)[0] for name in ("one", "two", "three")]
    client = bus.client("fanout").prepare(fanout=True)
    wait_until_attached(client, endpoints)
    for number in range(20):
        client.cast({}, "note", value=number)
    for endpoint in endpoints:
        wait_for_notes(endpoint, 20)


def test_call_to_a_named_server(bus: Bus) -> None:
    for name in ("one", "two"):
        bus.server("named", name)
    client = bus.client("named")
    for name in ("two", "one", "two", "two"):
        assert client.prepare(server=name).call({}, "who") == name


def test_calls_go_to_both_servers_of_a_topic(bus: Bus) -> None:
    for name in ("one", "two"):
        bus.server("balanced", name)
    client = bus.client("balanced")
    # Not exactly in turn: a server that answered may not have settled the request yet, and counts as busy.
    shares = collections.Counter(client.call({}, "who") for _ in range(20))
    assert set(shares) == {"one", "two"}
    assert min(shares.values()) >= 4


def test_a_remote_exception_comes_back_with_its_type(bus: Bus) -> None:
    bus.server("exception", "one")
    with pytest.raises(Exception, match="no such thing") as caught:
        bus.client("exception").call({}, "fail", text="no such thing")
    assert type(caught.value).__name__.startswith("Refused")


def test_a_call_to_nobody_times_out(bus: Bus) -> None:
    began = time.monotonic()
    with pytest.raises(oslo_messaging.MessagingTimeout):
        bus.client("nobody", timeout=2).call({}, "who")
    assert 1.5 < time.monotonic() - began < 5


def test_a_cast_to_nobody_is_no_error(bus: Bus) -> None:
    bus.client("nobody").cast({}, "note", value=1)
    bus.client("nobody").prepare(fanout=True).cast({}, "note", value=1)


@pytest.mark.parametrize("size", [MEBIBYTE, 10 * MEBIBYTE], ids=["1MiB", "10MiB"])
def test_large_bodies_go_both_ways(bus: Bus, size: int) -> None:
    bus.server("large", "one")
    body = "0123456789abcdef" * (size // 16)
    assert bus.client("large", timeout=30).call({}, "echo", value=body) == body


def test_notifications_arrive_and_are_acknowledged(bus: Bus) -> None:
    seen: list[tuple[str, object]] = []

    class Sink:
        def info(self, context: object, publisher: str, event: str, payload: object, metadata: object) -> None:
            seen.append((event, payload))

    listener = oslo_messaging.get_notification_listener(
        bus.transport(oslo_messaging.get_notification_transport),
        [oslo_messaging.Target(topic="notices")],
        [Sink()],
        executor="threading",
    )
    listener.start()
    try:
        notifier = oslo_messaging.Notifier(
            bus.transport(oslo_messaging.get_notification_transport),
            publisher_id="test",
            driver="messaging",
            topics=["notices"],
            retry=3,
        )
        for number in range(20):
            notifier.info({}, "event", {"number": number})
        waiting.until(lambda: len(seen) == 20)
    finally:
        listener.stop()
        listener.wait()
    assert seen == [("event", {"number": number}) for number in range(20)]


def test_a_server_restarts(router: engines.Router) -> None:
    with Bus(router) as steady:
        client = steady.client("restart", timeout=15)
        for name in ("first", "second", "third"):
            with Bus(router) as passing:
                passing.server("restart", name)
                assert client.call({}, "who") == name


def test_a_client_restarts(router: engines.Router) -> None:
    with Bus(router) as steady:
        steady.server("again", "one")
        for number in range(5):
            with Bus(router) as passing:
                assert passing.client("again").call({}, "echo", value=number) == number


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_every_pattern_passes_the_agents_policy(engine: str, tmp_path: pathlib.Path) -> None:
    """The policy that the agent renders for services (om_agent.plan.policy), for the one user of these tests."""
    own = "openstack.org/om/rpc/#"
    group: dict[str, object] = {
        "users": "anonymous",
        "remoteHosts": "*",
        "allowDynamicSource": True,
        "allowAnonymousSender": False,
        "allowUserIdProxy": False,
        "maxSessions": 32768,
        "sourcePattern": own,
        "targetPattern": f"{own},amqp:/_topo/*/#/temp/*,amqp:/_edge/#/temp/*",
    }
    more: list[engines.Entity] = [
        ("policy", {"enableVhostPolicy": True, "maxConnections": 65535}),
        ("vhost", {"hostname": "client-rpc", "allowUnknownUser": False, "groups": {"rpc": group}}),
    ]
    with engines.running(engine, tmp_path, listener={"policyVhost": "client-rpc"}, more=more) as router:
        with Bus(router) as bus:
            endpoints = [bus.server("policy", name)[0] for name in ("one", "two")]
            client = bus.client("policy", timeout=20)
            assert client.call({}, "echo", value="x" * MEBIBYTE) == "x" * MEBIBYTE
            assert client.prepare(server="two").call({}, "who") == "two"
            wait_until_attached(client.prepare(fanout=True), endpoints)
        assert "DENY" not in router.log


def test_the_router_restarts_under_load(own_router: engines.Router) -> None:
    """Calls in flight may time out; those made later, on the same transports, must all succeed again."""
    outcomes: list[tuple[float, bool]] = []
    done = threading.Event()

    def work(client: typing.Any) -> None:
        while not done.is_set():
            try:
                client.call({}, "echo", value="x" * 2000)
                outcomes.append((time.monotonic(), True))
            except oslo_messaging.MessagingException:
                outcomes.append((time.monotonic(), False))

    with Bus(own_router) as bus:
        bus.server("load", "one")
        bus.server("load", "two")
        client = bus.client("load", timeout=3)
        assert client.call({}, "echo", value=1) == 1
        threads = [threading.Thread(target=work, args=(client,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(1)
            before = len(outcomes)
            own_router.stop(signal.SIGKILL)
            own_router.start()
            restarted = time.monotonic()
            waiting.until(lambda: any(good and when > restarted for when, good in outcomes[before:]), 15)
            # Whoever was in flight has by now given up or succeeded.
            time.sleep(4)
            settled = len(outcomes)
            time.sleep(1)
        finally:
            done.set()
            for thread in threads:
                thread.join(20)
        assert all(good for _, good in outcomes[:before])
        assert outcomes[settled:] and all(good for _, good in outcomes[settled:])
