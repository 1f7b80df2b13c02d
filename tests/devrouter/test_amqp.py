"""A router's protocol behaviour: settlement, credit, distribution, timeouts, management, security.

Each test runs against the development router and against the real ones, so that a difference is either none, or said.
"""

from __future__ import annotations

import collections.abc
import contextlib
import pathlib
import shutil
import socket
import subprocess
import time
import typing
import urllib.error
import urllib.request

import pytest

from tests.support import engines

proton = engines.proton
Delivery = proton.Delivery
CAPACITY = 100
MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module", params=engines.ENGINES)
def router(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> collections.abc.Iterator[engines.Router]:
    with engines.running(request.param, tmp_path_factory.mktemp(request.param), http=True) as started:
        yield started


@pytest.fixture(params=engines.ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def container() -> typing.Any:
    """The proton container that the connections of a test share."""
    return engines.proton_reactor.Container()


@pytest.fixture
def producer(router: engines.Router, container: typing.Any) -> collections.abc.Iterator[typing.Any]:
    with engines.connected(router, container=container) as connection:
        yield connection


@pytest.fixture
def consumer(router: engines.Router, container: typing.Any) -> collections.abc.Iterator[typing.Any]:
    with engines.connected(router, container=container) as connection:
        yield connection


_count = iter(range(1_000_000))


def fresh(prefix: str = engines.BALANCED) -> str:
    """An address that no other test uses."""
    return f"{prefix}/{next(_count)}"


def settled(connection: typing.Any, delivery: typing.Any) -> typing.Any:
    connection.wait(lambda: delivery.settled, timeout=5)
    return delivery.remote_state


def drive(connection: typing.Any, seconds: float = 0.3) -> None:
    """Process a connection's events for a while."""
    with contextlib.suppress(proton.Timeout):
        connection.wait(lambda: False, timeout=seconds)


def take(connection: typing.Any, receiver: typing.Any) -> typing.Any:
    """The next delivery, unsettled. Unlike ``receive`` this does not grant credit."""
    connection.wait(lambda: receiver.fetcher.has_message, timeout=5)
    receiver.fetcher.pop()
    return receiver.fetcher.unsettled.popleft()


def wait_credit(connection: typing.Any, sender: typing.Any) -> None:
    connection.wait(lambda: sender.link.credit > 0, timeout=5)


# Settlement.


@pytest.mark.parametrize("outcome", ["accepted", "rejected", "released", "modified"])
def test_the_outcome_of_the_consumer_is_the_producers(producer: typing.Any, consumer: typing.Any, outcome: str) -> None:
    address = fresh()
    receiver = consumer.create_receiver(address, credit=1)
    sender = producer.create_sender(address)
    wait_credit(producer, sender)
    delivery = sender.link.send(proton.Message(body="x"))
    taken = take(consumer, receiver)
    if outcome == "rejected":
        taken.local.condition = proton.Condition("test:why", "because")
    if outcome == "modified":
        taken.local.failed = taken.local.undeliverable = True
    state = getattr(Delivery, outcome.upper())
    taken.update(state)
    taken.settle()
    assert settled(producer, delivery) == state
    if outcome == "rejected":
        assert (delivery.remote.condition.name, delivery.remote.condition.description) == ("test:why", "because")
    if outcome == "modified":
        assert (delivery.remote.failed, delivery.remote.undeliverable) == (True, True)


def test_an_outcome_without_settlement_is_passed_on(producer: typing.Any, consumer: typing.Any) -> None:
    address = fresh()
    receiver = consumer.create_receiver(address, credit=1)
    sender = producer.create_sender(address)
    wait_credit(producer, sender)
    delivery = sender.link.send(proton.Message(body="x"))
    taken = take(consumer, receiver)
    taken.update(Delivery.ACCEPTED)
    drive(consumer, 0.05)
    producer.wait(lambda: delivery.remote_state == Delivery.ACCEPTED, timeout=5)
    assert not delivery.settled
    taken.settle()
    assert settled(producer, delivery) == Delivery.ACCEPTED


def test_a_presettled_delivery_arrives_settled(producer: typing.Any, consumer: typing.Any) -> None:
    address = fresh()
    receiver = consumer.create_receiver(address, credit=1)
    sender = producer.create_sender(address)
    wait_credit(producer, sender)
    sender.link.send(proton.Message(body="x")).settle()
    drive(producer, 0.05)
    assert receiver.receive(timeout=5).body == "x"
    assert not receiver.fetcher.unsettled


def test_what_a_dead_consumer_held_is_modified_and_failed(
    router: engines.Router, container: typing.Any, producer: typing.Any
) -> None:
    address = fresh()
    with engines.connected(router, container=container) as dying:
        # Credit by hand: what proton is told to prefetch, it asks for again and again.
        receiver = dying.create_receiver(address, credit=0)
        receiver.link.flow(1)
        sender = producer.create_sender(address)
        wait_credit(producer, sender)
        held = sender.link.send(proton.Message(body="seen"))
        take(producer, receiver)
        waiting = sender.link.send(proton.Message(body="not seen"))
        drive(producer, 0.1)
    assert settled(producer, held) == Delivery.MODIFIED
    assert held.remote.failed
    assert settled(producer, waiting) == Delivery.RELEASED


# Credit.


def test_a_producer_has_credit_only_while_somebody_consumes(producer: typing.Any, consumer: typing.Any) -> None:
    address = fresh()
    sender = producer.create_sender(address)
    drive(producer)
    assert sender.link.credit == 0
    receiver = consumer.create_receiver(address, credit=10)
    wait_credit(producer, sender)
    assert sender.link.credit == CAPACITY
    receiver.close()
    # Credit that was granted cannot be taken back from a peer that ignores drain, but no more is granted.
    drive(producer)
    for _ in range(sender.link.credit):
        assert settled(producer, sender.link.send(proton.Message(body="x"))) == Delivery.RELEASED
    drive(producer)
    assert sender.link.credit == 0
    consumer.create_receiver(address, credit=10)
    wait_credit(producer, sender)
    assert sender.link.credit == CAPACITY


def test_credit_comes_back_with_settlement(producer: typing.Any, consumer: typing.Any) -> None:
    address = fresh()
    receiver = consumer.create_receiver(address, credit=CAPACITY)
    sender = producer.create_sender(address)
    for _ in range(3):
        wait_credit(producer, sender)
        deliveries = [sender.link.send(proton.Message(body="x")) for _ in range(sender.link.credit)]
        assert 50 < len(deliveries) <= CAPACITY
        for _ in deliveries:
            receiver.receive(timeout=5)
            receiver.accept()
        assert {settled(producer, delivery) for delivery in deliveries} == {Delivery.ACCEPTED}


def test_a_consumer_can_drain(producer: typing.Any, consumer: typing.Any) -> None:
    address = fresh()
    receiver = consumer.create_receiver(address, credit=0)
    sender = producer.create_sender(address)
    wait_credit(producer, sender)
    sender.link.send(proton.Message(body="one"))
    drive(producer, 0.1)
    receiver.link.drain(10)
    consumer.wait(lambda: not receiver.link.draining(), timeout=5)
    assert receiver.link.credit == 0
    assert receiver.fetcher.has_message == 1


def test_an_anonymous_sender_reaches_any_address(producer: typing.Any, consumer: typing.Any) -> None:
    address = fresh()
    receiver = consumer.create_receiver(address, credit=10)
    sender = producer.create_sender(None)
    wait_credit(producer, sender)
    delivery = sender.link.send(proton.Message(id="a" * 300, user_id=b"u", address=address, body="x"))
    assert receiver.receive(timeout=5).body == "x"
    receiver.accept()
    assert settled(producer, delivery) == Delivery.ACCEPTED
    assert settled(producer, sender.link.send(proton.Message(address=fresh(), body="x"))) == Delivery.RELEASED


def test_a_dynamic_source_gets_an_address_of_its_own(producer: typing.Any, consumer: typing.Any) -> None:
    receiver = consumer.create_receiver(None, dynamic=True, credit=1)
    address = receiver.link.remote_source.address
    assert address.startswith("amqp:/_topo/0/ctl-0/temp.")
    sender = producer.create_sender(address)
    wait_credit(producer, sender)
    sender.link.send(proton.Message(body="x"))
    drive(producer, 0.05)
    assert receiver.receive(timeout=5).body == "x"


# Distribution.


def test_closest_takes_turns(producer: typing.Any, consumer: typing.Any) -> None:
    address = fresh(engines.CLOSEST)
    receivers = [consumer.create_receiver(address, credit=100, name=str(number)) for number in range(2)]
    sender = producer.create_sender(address)
    wait_credit(producer, sender)
    deliveries = [sender.link.send(proton.Message(body=number)) for number in range(20)]
    drive(producer, 0.2)
    assert [receiver.fetcher.has_message for receiver in receivers] == [10, 10]
    assert len(deliveries) == 20


def test_balanced_prefers_whoever_is_less_busy(producer: typing.Any, consumer: typing.Any) -> None:
    address = fresh()
    quick = consumer.create_receiver(address, credit=100, name="quick")
    slow = consumer.create_receiver(address, credit=100, name="slow")
    sender = producer.create_sender(address)
    wait_credit(producer, sender)
    for number in range(20):
        sender.link.send(proton.Message(body=number))
        drive(producer, 0.02)
        while quick.fetcher.has_message:
            quick.receive(timeout=1)
            quick.accept()
    assert slow.fetcher.has_message <= 5  # of 20; on a busy machine the quick one settles late


def test_multicast_is_settled_when_every_consumer_has(producer: typing.Any, consumer: typing.Any) -> None:
    address = fresh(engines.MULTICAST)
    receivers = [consumer.create_receiver(address, credit=10, name=str(number)) for number in range(3)]
    sender = producer.create_sender(address)
    wait_credit(producer, sender)
    delivery = sender.link.send(proton.Message(body="x"))
    drive(producer, 0.05)
    for number, receiver in enumerate(receivers):
        assert not delivery.settled
        receiver.receive(timeout=5)
        if number == 1:
            receiver.release()
        else:
            receiver.accept()
        drive(producer, 0.05)
    # One of three accepted: that wins over the release.
    assert settled(producer, delivery) == Delivery.ACCEPTED


def test_presettled_multicast_to_a_slow_consumer_is_dropped_and_counted(
    router: engines.Router, producer: typing.Any, consumer: typing.Any
) -> None:
    address = fresh(engines.MULTICAST)
    quick = consumer.create_receiver(address, credit=1000, name="quick")
    slow = consumer.create_receiver(address, credit=0, name="slow")
    sender = producer.create_sender(address)
    with engines.connected(router) as connection:
        before = engines.Management(connection, router.engine).counters()
    total, sent = 250, 0
    while sent < total:
        wait_credit(producer, sender)
        for _ in range(min(sender.link.credit, total - sent)):
            sender.link.send(proton.Message(body=sent)).settle()
            sent += 1
        drive(producer, 0.05)
    assert [quick.receive(timeout=5).body for _ in range(total)] == list(range(total))
    with engines.connected(router) as connection:
        after = engines.Management(connection, router.engine).counters()
    dropped = after["droppedPresettledDeliveries"] - before["droppedPresettledDeliveries"]
    slow.link.flow(1000)
    drive(consumer, 0.3)
    # The queue holds linkCapacity deliveries; whenever it is full, all but its head go.
    assert 0 < slow.fetcher.has_message <= CAPACITY
    assert dropped == total - slow.fetcher.has_message


# Large messages.


def start_streaming(connection: typing.Any, sender: typing.Any, body: bytes) -> typing.Any:
    delivery = sender.link.delivery("streamed")
    sender.link.stream(body)
    drive(connection, 0.2)
    return delivery


def test_a_message_is_passed_on_while_it_still_arrives(producer: typing.Any, consumer: typing.Any) -> None:
    address = fresh()
    receiver = consumer.create_receiver(address, credit=1)
    sender = producer.create_sender(address)
    wait_credit(producer, sender)
    encoded = proton.Message(body=b"x" * MEBIBYTE).encode()
    delivery = start_streaming(producer, sender, encoded[: MEBIBYTE // 2])
    consumer.wait(lambda: receiver.link.current is not None and receiver.link.current.pending > 300_000, timeout=5)
    assert receiver.link.current.partial
    sender.link.stream(encoded[MEBIBYTE // 2 :])
    sender.link.advance()
    drive(producer, 0.2)
    assert len(receiver.receive(timeout=5).body) == MEBIBYTE
    receiver.accept()
    assert settled(producer, delivery) == Delivery.ACCEPTED


def test_a_message_whose_producer_vanishes_is_aborted(
    router: engines.Router, container: typing.Any, consumer: typing.Any
) -> None:
    address = fresh()
    receiver = consumer.create_receiver(address, credit=2)
    with engines.connected(router, container=container) as vanishing:
        sender = vanishing.create_sender(address)
        wait_credit(vanishing, sender)
        start_streaming(vanishing, sender, proton.Message(body=b"x" * MEBIBYTE).encode()[:500_000])
        consumer.wait(lambda: receiver.link.current is not None and receiver.link.current.pending > 0, timeout=5)
    consumer.wait(lambda: receiver.link.current is None or receiver.link.current.aborted, timeout=5)


def test_a_slow_consumer_holds_back_a_large_message(
    router: engines.Router, container: typing.Any, consumer: typing.Any
) -> None:
    """Send a message much larger than the router's buffer to a consumer that reads only later."""
    address, size = fresh(), 12 * MEBIBYTE
    receiver = consumer.create_receiver(address, credit=0)
    with engines.connected(router, timeout=30, container=container) as producer:
        sender = producer.create_sender(address)
        wait_credit(producer, sender)
        delivery = sender.link.send(proton.Message(body=b"y" * size))
        drive(producer, 0.5)
        if router.engine == engines.DEVROUTER:
            # What it did not read is still the producer's.
            assert sender.link.session.outgoing_bytes > size // 2
        receiver.link.flow(1)
        drive(consumer, 0.05)
        assert len(receiver.receive(timeout=20).body) == size
        receiver.accept()
        assert settled(producer, delivery) == Delivery.ACCEPTED


def test_the_cost_of_a_large_message_grows_with_its_size_only(tmp_path: pathlib.Path) -> None:
    with engines.running(engines.DEVROUTER, tmp_path) as router:
        costs = []
        for size in (2 * MEBIBYTE, 8 * MEBIBYTE):
            with engines.connected(router, timeout=30) as both:
                address = fresh()
                receiver, sender = both.create_receiver(address, credit=1), both.create_sender(address)
                wait_credit(both, sender)
                before = router.cpu_seconds()
                sender.link.send(proton.Message(body=b"z" * size))
                assert len(receiver.receive(timeout=30).body) == size
                costs.append(router.cpu_seconds() - before)
        # Linear would be 4, quadratic 16; the processor clock has ticks of 10 ms.
        assert costs[1] < 8 * max(costs[0], 0.02), costs


# Timeouts.


def test_a_silent_peer_is_dropped(engine: str, tmp_path: pathlib.Path) -> None:
    quick = {"idleTimeoutSeconds": 1}
    with engines.running(engine, tmp_path, listener=quick) as router, engines.connected(router) as connection:
        connection.create_receiver(fresh())
        # Nobody drives this connection now, so it sends no heartbeats.
        time.sleep(2.5)
        with engines.connected(router) as other:
            rows = engines.Management(other, engine).query("connection")
            assert [row["container"] for row in rows] == [other.conn.container]


def test_heartbeats_are_sent_as_the_peer_asks(router: engines.Router) -> None:
    with engines.connected(router, heartbeat=1) as connection:
        drive(connection, 3)
        assert connection.create_receiver(fresh()) is not None


# Management and monitoring.


def test_management_answers_with_the_schemas_names(router: engines.Router, consumer: typing.Any) -> None:
    management = engines.Management(consumer, router.engine)
    address = fresh()
    consumer.create_receiver(address)
    row = management.query("router")[0]
    assert (row["id"], row["mode"]) == ("ctl-0", "standalone")
    assert {"version", "metadata", "workerThreads"} <= set(row)
    assert management.query("router.node") == []
    assert [row["name"] for row in management.query("listener") if not row["http"]] == ["client"]
    connection = next(row for row in management.query("connection") if row["container"] == consumer.conn.container)
    assert (connection["role"], connection["dir"], connection["opened"]) == ("normal", "in", True)
    assert connection["isEncrypted"] is False
    found = management.address(address)
    assert found is not None
    assert (found["distribution"], found["subscriberCount"]) == ("balanced", 1)
    link = next(row for row in management.query("router.link") if row["owningAddr"] == found["name"])
    assert (link["linkDir"], link["linkType"], link["capacity"]) == ("out", "endpoint", CAPACITY)


def test_the_columns_are_those_of_qdrouterd(router: engines.Router, consumer: typing.Any) -> None:
    if router.engine == engines.SKROUTERD:
        pytest.skip("skrouterd has a schema of its own")
    from om_devrouter import schema

    management = engines.Management(consumer, router.engine)
    for entity, columns in schema.COLUMNS.items():
        reply = management.request(
            {
                "operation": "QUERY",
                "type": "org.amqp.management",
                "name": "self",
                "entityType": schema.TYPE_PREFIX + entity,
            },
            {"attributeNames": []},
        )
        assert reply.body["attributeNames"] == list(columns), entity


def test_a_query_can_be_cut_to_columns_and_rows(router: engines.Router, consumer: typing.Any) -> None:
    management = engines.Management(consumer, router.engine)
    everything = [row["name"] for row in management.query("router.address", ["name"])]
    assert management.query("router.address", ["name"], offset=1, count=2) == [
        {"name": name} for name in everything[1:3]
    ]


@pytest.mark.parametrize("correlation_id", ["text", 7, b"bytes", None], ids=repr)
def test_the_correlation_id_comes_back(router: engines.Router, consumer: typing.Any, correlation_id: object) -> None:
    reply = engines.Management(consumer, router.engine).request(
        {
            "operation": "QUERY",
            "type": "org.amqp.management",
            "name": "self",
            "entityType": engines.BY_PROGRAM[router.engine].record.prefix + "router.address",
        },
        {"attributeNames": ["name"]},
        correlation_id,
    )
    if router.engine != engines.DEVROUTER and not isinstance(correlation_id, str):
        return  # the real ones lose some of these types, some of the time
    found = reply.correlation_id
    assert (bytes(found) if isinstance(found, memoryview) else found) == correlation_id


def test_what_is_not_a_query_is_not_implemented(router: engines.Router, consumer: typing.Any) -> None:
    management = engines.Management(consumer, router.engine)
    reply = management.request({"operation": "FROBNICATE", "type": "org.amqp.management", "name": "self"})
    assert reply.properties["statusCode"] == 501
    assert reply.properties["statusDescription"]


def test_the_counters_count_as_qdrouterd_does(engine: str, tmp_path: pathlib.Path) -> None:
    """The same deliveries through each engine give the same counters."""
    with engines.running(engine, tmp_path) as router, engines.connected(router) as both:
        management = engines.Management(both, engine)
        before = management.counters()
        address, group, nobody = fresh(), fresh(engines.MULTICAST), fresh()
        receiver = both.create_receiver(address, credit=100)
        members = [both.create_receiver(group, credit=100, name=str(number)) for number in range(2)]
        sender, caster, relay = both.create_sender(address), both.create_sender(group), both.create_sender(None)
        for link in (sender, caster, relay):
            wait_credit(both, link)
        for state in [Delivery.ACCEPTED] * 4 + [Delivery.REJECTED] * 3 + [Delivery.RELEASED] * 2 + [Delivery.MODIFIED]:
            delivery = sender.link.send(proton.Message(body="x"))
            taken = take(both, receiver)
            taken.update(state)
            taken.settle()
            assert settled(both, delivery) == state
        for _ in range(5):
            caster.link.send(proton.Message(body="x")).settle()
        relay.link.send(proton.Message(address=nobody, body="x")).settle()
        assert settled(both, relay.link.send(proton.Message(address=nobody, body="x"))) == Delivery.RELEASED
        for member in members:
            for _ in range(5):
                member.receive(timeout=5)
        time.sleep(0.2)
        after = management.counters()
        one, many = management.address(address), management.address(group)
    assert one is not None and many is not None
    assert (one["deliveriesIngress"], one["deliveriesEgress"]) == (10, 10)
    assert (many["deliveriesIngress"], many["deliveriesEgress"]) == (5, 10)
    names = [f"{fate}Deliveries" for fate in ("accepted", "rejected", "released", "modified", "presettled")]
    changed = [after[name] - before[name] for name in [*names, "droppedPresettledDeliveries"]]
    # The fifth acceptance is the first question to $management.
    assert changed == [5, 3, 3, 1, 6, 1]


def test_the_status_pages(router: engines.Router) -> None:
    base = f"http://{router.host}:{router.http_port}"
    try:
        with urllib.request.urlopen(f"{base}/healthz", timeout=5) as page:
            assert page.status == 200
    except urllib.error.URLError:
        if router.engine == engines.SKROUTERD:
            pytest.skip("this skrouterd was built without an http server")
        raise
    if router.engine != engines.SKROUTERD:
        with urllib.request.urlopen(f"{base}/metrics", timeout=5) as page:
            text = page.read().decode()
        assert "# TYPE qdr_connections_total gauge" in text
        assert "\nqdr_deliveries_ingress_total " in text
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{base}/nothing", timeout=5)


# Security.


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A directory with a password file and a certificate for localhost."""
    directory = tmp_path_factory.mktemp("secrets")
    for program in ("saslpasswd2", "openssl"):
        if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            pytest.skip(f"{program} is not installed")
    subprocess.run(
        ["saslpasswd2", "-c", "-p", "-f", str(directory / "db"), "-u", "overcloud", "rpc"], input=b"right", check=True
    )
    directory.joinpath("qdrouterd.conf").write_text(
        f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {directory}/db\nmech_list: PLAIN ANONYMOUS\n"
    )
    files = ["-addext", "subjectAltName=DNS:localhost", "-keyout", f"{directory}/key", "-out", f"{directory}/cert"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", *files],
        check=True,
        capture_output=True,
    )
    return directory


def sasl(secrets: pathlib.Path) -> dict[str, object]:
    return {"saslConfigDir": str(secrets), "saslConfigName": "qdrouterd"}


def profile(secrets: pathlib.Path, **more: object) -> engines.Entity:
    files = {"certFile": "cert", "privateKeyFile": "key", "caCertFile": "cert"}
    return "sslProfile", {"name": "tls", **{name: str(secrets / file) for name, file in files.items()}, **more}


def refused(router: engines.Router, **options: object) -> bool:
    try:
        with engines.connected(router, timeout=3, **options) as connection:
            connection.create_receiver(fresh())
    except proton.ProtonException:
        return True
    return False


def test_plain_asks_for_the_right_password(engine: str, tmp_path: pathlib.Path, secrets: pathlib.Path) -> None:
    listener = {"authenticatePeer": True, "saslMechanisms": "PLAIN"}
    plain: dict[str, object] = {"allowed_mechs": "PLAIN", "allow_insecure_mechs": True}
    with engines.running(engine, tmp_path, listener=listener, router=sasl(secrets)) as router:
        with engines.connected(router, user="rpc@overcloud", password="right", **plain) as connection:
            row = engines.Management(connection, engine).query("connection")[0]
            assert (row["user"], row["isAuthenticated"], row["sasl"]) == ("rpc@overcloud", True, "PLAIN")
        assert refused(router, user="rpc@overcloud", password="wrong", **plain)
        assert refused(router, user="nobody@overcloud", password="right", **plain)
        assert refused(router, allowed_mechs="ANONYMOUS")
        assert refused(router, sasl_enabled=False)


def test_required_tls_refuses_plaintext(engine: str, tmp_path: pathlib.Path, secrets: pathlib.Path) -> None:
    listener = {"sslProfile": "tls", "requireSsl": True}
    more = [profile(secrets, protocols="TLSv1.2 TLSv1.3")]
    with engines.running(engine, tmp_path, listener=listener, more=more) as router:
        domain = proton.SSLDomain(proton.SSLDomain.MODE_CLIENT)
        domain.set_trusted_ca_db(str(secrets / "cert"))
        domain.set_peer_authentication(proton.SSLDomain.VERIFY_PEER)
        with engines.connected(router, ssl_domain=domain) as connection:
            row = engines.Management(connection, engine).query("connection")[0]
            assert (row["isEncrypted"], row["ssl"]) == (True, True)
            assert row["sslProto"] in ("TLSv1.2", "TLSv1.3")
        assert refused(router)


def test_optional_tls_takes_both(engine: str, tmp_path: pathlib.Path, secrets: pathlib.Path) -> None:
    with engines.running(engine, tmp_path, listener={"sslProfile": "tls"}, more=[profile(secrets)]) as router:
        domain = proton.SSLDomain(proton.SSLDomain.MODE_CLIENT)
        domain.set_peer_authentication(proton.SSLDomain.ANONYMOUS_PEER)
        assert not refused(router, ssl_domain=domain)
        assert not refused(router)


def test_only_the_configured_tls_protocols_are_spoken(
    engine: str, tmp_path: pathlib.Path, secrets: pathlib.Path
) -> None:
    import ssl

    listener = {"sslProfile": "tls", "requireSsl": True}
    more = [profile(secrets, protocols="TLSv1.3")]
    with engines.running(engine, tmp_path, listener=listener, more=more) as router:
        spoken: dict[ssl.TLSVersion, str | None] = {}
        where, name = (router.host, router.port), "localhost"
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile=str(secrets / "cert"))
            context.minimum_version = context.maximum_version = version
            try:
                with socket.create_connection(where, 5) as sock, context.wrap_socket(sock, server_hostname=name) as tls:
                    spoken[version] = tls.version()
            except OSError:
                spoken[version] = None
    assert spoken == {ssl.TLSVersion.TLSv1_2: None, ssl.TLSVersion.TLSv1_3: "TLSv1.3"}


def test_an_ipv6_listener(engine: str, tmp_path: pathlib.Path) -> None:
    try:
        engines.free_port("::1")
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with engines.running(engine, tmp_path, host="::1") as router:
        assert not refused(router)
