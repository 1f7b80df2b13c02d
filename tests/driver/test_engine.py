"""A connection that comes back, and peers that are none: over real sockets, against a peer that a test scripts."""

from __future__ import annotations

import collections.abc
import contextlib
import logging
import os
import pathlib
import resource
import socket
import ssl
import struct
import threading
import time
import typing

import pytest
from oslo_messaging_amqp1 import codec, engine, errors, frames, sasl, session, transport

from tests.driver import peer
from tests.driver.peer import accept_everything
from tests.support import tls, waiting

PAYLOAD = b"\x00\x53\x77\xa1\x01x"
NOBODY = transport.Login(sasl.Credentials("", ""))


def unread(arrival: session.Arrival) -> tuple[int, collections.abc.Callable[[], None]]:
    """Take an answer that nobody waits for."""
    return frames.ACCEPTED, lambda: None


@pytest.fixture
def closing() -> collections.abc.Iterator[list[typing.Any]]:
    """What is closed at the end, the last one first."""
    things: list[typing.Any] = []
    yield things
    for thing in reversed(things):
        thing.close()


class Peers:
    """Starts peers and engines."""

    def __init__(self, closing: list[typing.Any]) -> None:
        self._closing = closing

    def serve(self, serve: collections.abc.Callable[[socket.socket], None]) -> peer.Server:
        server = peer.Server(serve)
        self._closing.append(server)
        return server

    def connect(self, *ports: int, idle: float = 10.0, retry: float = 0.05) -> engine.Engine:
        hosts = tuple(engine.Host("127.0.0.1", port, NOBODY) for port in ports)
        settings = engine.Settings(hosts, "me", idle_timeout=idle, retry=(retry, 0.0, retry), link_retry=0.1)
        found = engine.Engine(settings, unread)
        self._closing.append(found)
        return found


@pytest.fixture
def peers(closing: list[typing.Any]) -> Peers:
    return Peers(closing)


class Sent:
    """Deliveries, and what became of them."""

    def __init__(self, connection: engine.Engine) -> None:
        self._engine = connection
        self.outcomes: list[session.Outcome] = []

    def send(self, payload: bytes = PAYLOAD) -> session.Delivery:
        delivery = session.Delivery(
            lambda _: payload, lambda outcome, _: self.outcomes.append(outcome), time.monotonic() + 10
        )
        self._engine.send("address", delivery)
        return delivery


def test_it_sends_and_is_told_the_outcome(peers: Peers) -> None:
    sent = Sent(peers.connect(peers.serve(accept_everything).port))
    for _ in range(100):
        sent.send()
    waiting.until(lambda: sent.outcomes == [session.Outcome.ACCEPTED] * 100)


def test_it_goes_round_the_hosts(peers: Peers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    for _ in range(3):  # it begins with any of them
        sent = Sent(peers.connect(port, peers.serve(accept_everything).port))
        outcomes = sent.outcomes
        sent.send()
        waiting.until(outcomes.copy)
        assert outcomes == [session.Outcome.ACCEPTED]


@pytest.mark.parametrize("listens", [False, True])
def test_an_address_of_ipv6_is_told_from_its_port(closing: list[typing.Any], listens: bool) -> None:
    """Before it answers, when there is no way to it, and when its connection ends."""
    ended = peer.Server(peer.log_in, host="::1")
    closing.append(ended)
    where = f"[::1]:{ended.port if listens else 9}"
    hosts = (engine.Host("::1", ended.port if listens else 9, NOBODY),)
    connection = engine.Engine(engine.Settings(hosts, "me", retry=(0.05, 0.0, 0.05)), unread)
    closing.append(connection)
    told = {""}

    def has_failed() -> bool:
        told.add(connection.trouble)
        return any(text.startswith(where) and "not answered yet" not in text for text in told)

    waiting.until(has_failed)
    assert all(text.startswith(where) for text in told - {"", "no connection was tried yet"})


def test_what_waits_survives_a_reconnection_and_what_is_under_way_is_lost(peers: Peers) -> None:
    """What the peer may have got must not be sent twice."""
    taken = threading.Event()

    def serve(connection: socket.socket) -> None:
        if taken.is_set():
            accept_everything(connection)
            return
        peer.log_in(connection)
        connection.sendall(peer.opened() + peer.begun())
        while True:
            body = peer.one_frame(connection)
            (seen,) = peer.read(frames.frame(body))
            if seen.code == frames.ATTACH:
                connection.sendall(peer.attached(seen.fields[0], 0, False, "address") + peer.credit(0, 0, 1))
            if seen.code == frames.TRANSFER:
                taken.set()
                return

    sent = Sent(peers.connect(peers.serve(serve).port))
    sent.send()
    sent.send()  # for which there is no credit
    waiting.until(lambda: len(sent.outcomes) == 2)
    assert sent.outcomes == [session.Outcome.LOST, session.Outcome.ACCEPTED]


def silent(connection: socket.socket) -> None:
    peer.log_in(connection)
    connection.sendall(peer.opened() + peer.begun())
    time.sleep(30)


def test_a_silent_peer_is_given_up(peers: Peers) -> None:
    server = peers.serve(silent)
    found = peers.connect(server.port, idle=0.3)
    waiting.until(lambda: server.connections >= 2)
    waiting.until(lambda: "silent for 0.3 s" in found.trouble)


def test_signs_of_life(peers: Peers) -> None:
    """A peer that wants to hear something every 200 ms hears it."""
    heard: list[float] = []

    def serve(connection: socket.socket) -> None:
        peer.log_in(connection)
        connection.sendall(peer.opened(idle=0.2) + peer.begun())
        for _ in range(12):
            peer.one_frame(connection)
            heard.append(time.monotonic())

    peers.connect(peers.serve(serve).port, idle=0)
    waiting.until(lambda: len(heard) >= 12)
    assert max(b - a for a, b in zip(heard[2:], heard[3:])) < 0.5


def garbage(connection: socket.socket) -> None:
    connection.sendall(os.urandom(1000))
    time.sleep(5)


def http(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")


def older(connection: socket.socket) -> None:
    connection.sendall(b"AMQP\x00\x00\x09\x01")


def hangs_up(connection: socket.socket) -> None:
    peer.exactly(connection, 8)


def huge_frame(connection: socket.socket) -> None:
    peer.log_in(connection)
    connection.sendall(b"\xff\xff\xff\xff\x02\x00\x00\x00" + bytes(1000))
    time.sleep(5)


def nested_arrays(connection: socket.socket) -> None:
    """A frame of arrays in arrays, as deep as it can hold them; each announces as many elements as it may."""
    peer.log_in(connection)
    value = b"\x40"
    while len(value) < 60_000:
        value = struct.pack(">II", len(value) + 5, 0xFFFFFFFF) + b"\xf0" + value
    connection.sendall(frames.frame(b"\x00\x53\x10\xf0" + value))
    time.sleep(5)


def nested_descriptors(connection: socket.socket) -> None:
    peer.log_in(connection)
    connection.sendall(frames.frame(bytes(60_000)))
    time.sleep(5)


def huge_login_frame(connection: socket.socket) -> None:
    connection.sendall(frames.SASL_HEADER + b"\xff\xff\xff\xff\x02\x01\x00\x00")
    time.sleep(5)


def no_mechanism(connection: socket.socket) -> None:
    peer.log_in(connection, ("GSSAPI",))


def refuses(connection: socket.socket) -> None:
    connection.sendall(frames.SASL_HEADER)
    offered = codec.composite(frames.SASL_MECHANISMS, (peer.array(("ANONYMOUS",)),))
    connection.sendall(frames.frame(offered, kind=frames.SASL_FRAME))
    outcome = codec.composite(frames.SASL_OUTCOME, (codec.ubyte(1),))
    connection.sendall(frames.frame(outcome, kind=frames.SASL_FRAME))
    time.sleep(5)


@pytest.mark.parametrize(
    ("serve", "said"),
    [
        (garbage, "no AMQP at all"),
        (http, "no AMQP at all"),
        (older, "but SASL is needed"),
        (hangs_up, "closed the connection before"),
        (huge_frame, "wrong size"),
        (nested_arrays, "more elements than it has room for"),
        (nested_descriptors, "nested too deeply"),
        (huge_login_frame, "wrong size"),
        (no_mechanism, "offers GSSAPI"),
        (refuses, "refused the login without a user name"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_peers_that_are_none(peers: Peers, serve: collections.abc.Callable[[socket.socket], None], said: str) -> None:
    found = peers.connect(peers.serve(serve).port)
    waiting.until(lambda: said in found.trouble)
    assert "127.0.0.1" in found.trouble


def test_a_peer_that_says_nothing_ends_with_the_deadline(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_HANDSHAKE_SECONDS", 0.3)
    server = peers.serve(lambda _: time.sleep(5))
    found = peers.connect(server.port)
    waiting.until(lambda: server.connections >= 2)
    assert "the peer did not answer in time" in found.trouble or "no answer in time" in found.trouble


def test_one_byte_at_a_time_ends_with_the_deadline(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_HANDSHAKE_SECONDS", 0.5)

    def serve(connection: socket.socket) -> None:
        for byte in frames.SASL_HEADER + bytes(100):
            connection.sendall(bytes((byte,)))
            time.sleep(0.2)

    found = peers.connect(peers.serve(serve).port)
    waiting.until(lambda: "in time" in found.trouble, 3)


def test_an_endless_message_takes_bounded_memory(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_MESSAGE_SIZE", 4 * 2**20)

    def serve(connection: socket.socket) -> None:
        peer.log_in(connection)
        connection.sendall(peer.opened() + peer.begun())
        while True:
            (seen,) = peer.read(frames.frame(peer.one_frame(connection)))
            if seen.code == frames.ATTACH:
                connection.sendall(peer.attached(seen.fields[0], 0, True, "address"))
            if seen.code == frames.FLOW:
                break
        for _ in range(2000):
            connection.sendall(peer.transfer(0, 0, bytes(60_000), more=True))

    server = peers.serve(serve)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = peers.connect(server.port)
    found.subscribe("address", 10, lambda *_: None)
    waiting.until(lambda: server.connections >= 2)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 * 1024


def test_a_peer_that_reads_nothing_makes_senders_wait(peers: Peers) -> None:
    """The socket takes no more: messages stay in their link's queue, and the buffer has a limit."""

    def serve(connection: socket.socket) -> None:
        peer.log_in(connection)
        connection.sendall(peer.opened() + peer.begun())
        while True:
            (seen,) = peer.read(frames.frame(peer.one_frame(connection)))
            if seen.code == frames.ATTACH:
                connection.sendall(peer.attached(seen.fields[0], 0, False, "address") + peer.credit(0, 0, 10_000))
                break
        time.sleep(20)

    found = peers.connect(peers.serve(serve).port, idle=0)
    sent = Sent(found)
    sent.send()
    waiting.until(lambda: found._transport is not None and found._senders["address"].credit > 0)
    deliveries = [sent.send(bytes(100_000)) for _ in range(200)]
    unsent = [delivery for delivery in deliveries if not delivery.sent]
    assert found._transport is not None
    assert found._transport.pending < 2 * 2**20
    assert len(unsent) > 100
    assert found.cancel(unsent[0])
    assert not found.cancel(unsent[0])
    assert not found.cancel(deliveries[0])


def test_a_router_that_closes_is_left_and_come_back_to(peers: Peers) -> None:
    def serve(connection: socket.socket) -> None:
        peer.log_in(connection)
        connection.sendall(peer.opened() + peer.begun())
        connection.sendall(frames.frame(frames.close("amqp:connection:forced", "drained")))
        time.sleep(1)

    server = peers.serve(serve)
    found = peers.connect(server.port)
    waiting.until(lambda: server.connections >= 3)
    waiting.until(lambda: "drained" in found.trouble)


def test_a_router_that_closes_at_once_is_not_stormed(peers: Peers) -> None:
    """As one does that has as many connections as it may."""

    def serve(connection: socket.socket) -> None:
        peer.log_in(connection)
        connection.sendall(peer.opened() + frames.frame(frames.close("amqp:connection:forced", "too many")))
        peer.one_frame(connection)

    server = peers.serve(serve)
    peers.connect(server.port, retry=0.5)
    time.sleep(1.8)
    assert 2 <= server.connections <= 8  # a pause is 0.25 to 0.5 s


def test_after_its_end_nothing_waits(peers: Peers) -> None:
    found = peers.connect(peers.serve(accept_everything).port)
    assert found.product(time.monotonic() + 5) == "test-router"
    found.close()
    sent = Sent(found)
    sent.send()
    assert sent.outcomes == [session.Outcome.LOST]


def test_threads_and_descriptors_do_not_stay(peers: Peers) -> None:
    server = peers.serve(accept_everything)
    before = threading.active_count()
    for _ in range(5):
        found = peers.connect(server.port)
        assert found.product(time.monotonic() + 5) == "test-router"
        found.close()
    waiting.until(lambda: threading.active_count() <= before + 5)  # the peer's own threads
    assert not [thread for thread in threading.enumerate() if thread.name == "amqp1"]


def test_a_peer_that_sends_a_byte_now_and_then_is_given_up(peers: Peers) -> None:
    """A part of a frame is no sign of life."""

    def serve(connection: socket.socket) -> None:
        peer.log_in(connection)
        connection.sendall(peer.opened() + peer.begun() + b"\x00\x00\xff\x00\x02\x00\x00\x00")
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    server = peers.serve(serve)
    found = peers.connect(server.port, idle=0.4)
    waiting.until(lambda: server.connections >= 2)
    waiting.until(lambda: "silent for 0.4 s" in found.trouble)


def test_a_redirected_connection(peers: Peers) -> None:
    other = peers.serve(accept_everything)

    def serve(connection: socket.socket) -> None:
        peer.log_in(connection)
        connection.sendall(peer.opened() + peer.redirected("127.0.0.1", other.port))
        peer.one_frame(connection)

    first = peers.serve(serve)
    sent = Sent(peers.connect(first.port, retry=60))
    sent.send()
    waiting.until(lambda: sent.outcomes == [session.Outcome.ACCEPTED])
    assert [first.connections, other.connections] == [1, 1]


def test_redirections_that_do_not_end(peers: Peers) -> None:
    def serve(connection: socket.socket) -> None:
        peer.log_in(connection)
        connection.sendall(peer.opened() + peer.redirected("127.0.0.1", server.port))
        peer.one_frame(connection)

    server = peers.serve(serve)
    found = peers.connect(server.port, retry=60)
    waiting.until(lambda: server.connections == 5)
    time.sleep(0.3)
    assert server.connections == 5
    assert f"to 127.0.0.1, port {server.port}" in found.trouble


def test_a_redirection_to_nowhere(peers: Peers) -> None:
    """The hosts of the URL come next."""
    turn: list[int] = []

    def serve(connection: socket.socket) -> None:
        turn.append(1)
        if len(turn) > 1:
            accept_everything(connection)
            return
        peer.log_in(connection)
        connection.sendall(peer.opened() + peer.redirected("127.0.0.1", 1))
        peer.one_frame(connection)

    sent = Sent(peers.connect(peers.serve(serve).port))
    sent.send()
    waiting.until(lambda: sent.outcomes == [session.Outcome.ACCEPTED])


def test_the_peer_is_told_why_its_connection_is_closed(peers: Peers) -> None:
    last: list[peer.Seen] = []

    def serve(connection: socket.socket) -> None:
        peer.log_in(connection)
        connection.sendall(peer.opened() + peer.begun() + peer.transfer(99, 0, PAYLOAD))
        for seen in peer.frames_of(connection):
            last.append(seen)

    peers.connect(peers.serve(serve).port)
    waiting.until(lambda: last and last[-1].code == frames.CLOSE)
    assert frames.fault(last[-1].fields[0]).text == (
        "amqp:decode-error: a message came over a link that does not exist"
    )


def slow_to_give_credit(seconds: float) -> collections.abc.Callable[[socket.socket], None]:
    """A router that takes its time for each attach and each message."""

    def serve(connection: socket.socket) -> None:
        peer.log_in(connection)
        connection.sendall(peer.opened() + peer.begun())
        for seen in peer.frames_of(connection):
            if seen.code == frames.ATTACH:
                time.sleep(seconds)
                connection.sendall(peer.attached(seen.fields[0], 0, False, "address") + peer.credit(0, 0, 10))
            elif seen.code == frames.TRANSFER:
                time.sleep(seconds)
                connection.sendall(peer.disposed(seen.fields[1], None, peer.state(frames.ACCEPTED)))
            elif seen.code == frames.CLOSE:
                connection.sendall(frames.frame(frames.close()))
                return

    return serve


def test_what_is_under_way_is_sent_before_the_end(peers: Peers) -> None:
    """An answer to a new client needs a link first."""
    found = peers.connect(peers.serve(slow_to_give_credit(0.3)).port)
    assert found.product(time.monotonic() + 5) == "test-router"
    sent = Sent(found)
    sent.send()
    found.close()
    assert sent.outcomes == [session.Outcome.ACCEPTED]


def test_settled_messages_reach_a_slow_peer_before_the_end(peers: Peers) -> None:
    """The socket took a part of them only."""
    size = 4 * 2**20
    got: list[int] = []

    def serve(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        peer.log_in(connection)
        connection.sendall(peer.opened() + peer.begun())
        for seen in peer.frames_of(connection):
            if seen.code == frames.ATTACH:
                connection.sendall(peer.attached(seen.fields[0], 0, False, "address") + peer.credit(0, 0, 10))
                time.sleep(0.5)
            elif seen.code == frames.TRANSFER:
                got.append(len(seen.payload))
            elif seen.code == frames.CLOSE:
                connection.sendall(frames.frame(frames.close()))
                return

    found = peers.connect(peers.serve(serve).port)
    assert found.product(time.monotonic() + 5) == "test-router"
    found.send("address", session.Delivery(lambda _: bytes(size), lambda *_: None, time.monotonic() + 10, settled=True))
    waiting.until(lambda: found._senders["address"].credit == 9)
    found.close()
    waiting.until(lambda: sum(got) == size)


def test_a_peer_that_does_not_say_goodbye(peers: Peers) -> None:
    found = peers.connect(peers.serve(silent).port)
    assert found.product(time.monotonic() + 5) == "test-router"
    start = time.monotonic()
    found.close()
    assert time.monotonic() - start < 1.5
    waiting.until(lambda: not found._thread.is_alive())


def releasing(count: list[int]) -> collections.abc.Callable[[socket.socket], None]:
    """A router that gives each message back, and counts them."""

    def serve(connection: socket.socket) -> None:
        peer.log_in(connection)
        connection.sendall(peer.opened() + peer.begun())
        for seen in peer.frames_of(connection):
            if seen.code == frames.ATTACH:
                connection.sendall(peer.attached(seen.fields[0], 0, False, "address") + peer.credit(0, 0, 10_000))
            elif seen.code == frames.TRANSFER:
                count.append(seen.fields[1])
                connection.sendall(peer.disposed(seen.fields[1], None, peer.state(frames.RELEASED)))

    return serve


def test_what_comes_back_is_sent_again_until_its_deadline_or_until_nobody_wants_it(peers: Peers) -> None:
    count: list[int] = []
    found = peers.connect(peers.serve(releasing(count)).port)
    outcomes: list[session.Outcome] = []

    def done(outcome: session.Outcome, _: str) -> None:
        if outcome is session.Outcome.RELEASED:
            found.resend(delivery)
        else:
            outcomes.append(outcome)

    delivery = session.Delivery(lambda _: PAYLOAD, done, time.monotonic() + 0.55)
    found.send("address", delivery)
    waiting.until(lambda: outcomes == [session.Outcome.EXPIRED])
    assert 3 <= len(count) <= 6  # every 0.1 s
    outcomes.clear()
    delivery = session.Delivery(lambda _: PAYLOAD, done, time.monotonic() + 10)
    found.send("address", delivery)
    found.cancel(delivery)  # its caller has gone
    waiting.until(lambda: outcomes == [session.Outcome.EXPIRED])


def test_a_limited_number_of_messages_waits_to_be_sent_again(peers: Peers) -> None:
    found = peers.connect(peers.serve(releasing([])).port)
    outcomes: list[session.Outcome] = []

    def send() -> None:
        def done(outcome: session.Outcome, _: str) -> None:
            if outcome is session.Outcome.RELEASED:
                found.resend(delivery, 5)
            else:
                outcomes.append(outcome)

        delivery = session.Delivery(lambda _: PAYLOAD, done, time.monotonic() + 10)
        found.send("address", delivery)

    for _ in range(20):
        send()
    waiting.until(lambda: len(outcomes) == 15)
    found.close()
    waiting.until(lambda: outcomes == [session.Outcome.EXPIRED] * 15 + [session.Outcome.LOST] * 5)


def no_credit(connection: socket.socket) -> None:
    """A router without a consumer."""
    peer.log_in(connection)
    connection.sendall(peer.opened() + peer.begun())
    for seen in peer.frames_of(connection):
        if seen.code == frames.ATTACH:
            name, handle, receives = seen.fields[:3]
            connection.sendall(peer.attached(name, handle, receives, "address"))


def test_links_without_credit_take_no_time(peers: Peers) -> None:
    """A look at each of a thousand links whenever something comes would keep the thread busy."""
    found = peers.connect(peers.serve(no_credit).port)
    for number in range(100):
        found.send(f"address {number}", session.Delivery(lambda _: PAYLOAD, lambda *_: None, time.monotonic() + 10))
    waiting.until(lambda: all(sender.attached is not None for sender in found._senders.values()))
    assert not found._waiting


def test_all_addresses_of_a_host_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as one, socket.socket() as two:
        for each in (one, two):  # nobody accepts: a further connection gets no answer
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        time.sleep(0.1)
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", full.getsockname())] * 4
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        start = time.monotonic()
        with pytest.raises(errors.HandshakeError, match="cannot be reached: no answer in time"):
            transport.connect("host", 5672, NOBODY, 0.3)
        assert time.monotonic() - start < 0.6


def test_names_are_looked_up_as_every_eventlet_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The function that eventlet 0.33 puts in the place of socket's has other names for its arguments."""

    def getaddrinfo(host: str, port: int, family: int = 0, socktype: int = 0, proto: int = 0, flags: int = 0) -> object:
        assert (host, port, socktype) == ("host", 5672, socket.SOCK_STREAM)
        raise socket.gaierror(socket.EAI_NONAME, "nobody knows it")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(errors.HandshakeError, match="nobody knows it"):
        transport.connect("host", 5672, NOBODY, 0.3)


def test_what_comes_in_one_piece_with_the_end_of_the_login_over_tls(peers: Peers, tmp_path: pathlib.Path) -> None:
    pair = tls.authority().issue("127.0.0.1")
    paths = [tmp_path / name for name in ("certificate", "key", "ca")]
    for path, text in zip(paths, (pair.certificate, pair.key, tls.authority().pem)):
        path.write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paths[0], paths[1])

    def serve(connection: socket.socket) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        talk = context.wrap_bio(incoming, outgoing, server_side=True)

        def step(call: collections.abc.Callable[[], typing.Any]) -> typing.Any:
            while True:
                try:
                    result = call()
                    connection.sendall(outgoing.read())
                    return result
                except ssl.SSLWantReadError:
                    connection.sendall(outgoing.read())
                    incoming.write(connection.recv(65536) or b"")

        step(talk.do_handshake)
        step(lambda: talk.read(8))
        offered = codec.composite(frames.SASL_MECHANISMS, (peer.array(("ANONYMOUS",)),))
        step(lambda: talk.write(frames.SASL_HEADER + frames.frame(offered, kind=frames.SASL_FRAME)))
        step(lambda: talk.read(65536))
        outcome = codec.composite(frames.SASL_OUTCOME, (codec.ubyte(0),))
        talk.write(frames.frame(outcome, kind=frames.SASL_FRAME))
        talk.write(frames.AMQP_HEADER)  # each in a record of its own, and all in one segment
        talk.write(peer.opened())
        talk.write(peer.begun())
        connection.sendall(outgoing.read())
        time.sleep(5)

    login = NOBODY._replace(tls=transport.Tls(ca_file=str(paths[2])))
    wire, rest = transport.connect("127.0.0.1", peers.serve(serve).port, login, 5)
    wire.close()
    assert [seen.code for seen in peer.read(rest)] == [frames.OPEN, frames.BEGIN]


def test_an_address_that_cannot_be_sent_is_its_callers_mistake(peers: Peers) -> None:
    found = peers.connect(peers.serve(accept_everything).port)
    assert found.product(time.monotonic() + 5) == "test-router"
    delivery = session.Delivery(lambda _: PAYLOAD, lambda *_: None, time.monotonic() + 10)
    with pytest.raises(UnicodeEncodeError):
        found.send("\ud800", delivery)
    sent = Sent(found)
    sent.send()
    waiting.until(lambda: sent.outcomes == [session.Outcome.ACCEPTED])


def test_a_defect_in_what_is_due_does_not_end_the_thread(peers: Peers, caplog: pytest.LogCaptureFixture) -> None:
    def defect() -> None:
        raise ZeroDivisionError

    found = peers.connect(1)  # nobody is there: what is due is done between two attempts
    with found._lock:
        found._later(0.0, defect)
    waiting.until(lambda: "ZeroDivisionError" in caplog.text)
    assert found._thread.is_alive()


@pytest.mark.parametrize("piece", [1, 100, 16_500, 1_000_000])
def test_what_came_over_tls_in_any_pieces(tmp_path: pathlib.Path, piece: int) -> None:
    pair = tls.authority().issue("127.0.0.1")
    paths = [tmp_path / name for name in ("certificate", "key")]
    for path, text in zip(paths, (pair.certificate, pair.key)):
        path.write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paths[0], paths[1])
    bios = [ssl.MemoryBIO() for _ in range(4)]
    there = context.wrap_bio(bios[0], bios[1], server_side=True)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=tls.authority().pem)
    here = client.wrap_bio(bios[2], bios[3], server_hostname="127.0.0.1")
    for side in (here, there, here, there):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
        bios[0].write(bios[3].read())
        bios[2].write(bios[1].read())
    one, other = socket.socketpair()
    with one, other:
        wire = transport.Transport(one, here, (bios[2], bios[3]))
        wire.decrypt(b"")  # the tickets
        sent = os.urandom(100_000)
        there.write(sent)
        data = bios[1].read()
        got = b"".join(wire.decrypt(data[at : at + piece]) for at in range(0, len(data), piece))
        assert got == sent
        there.write(b"x")
        with contextlib.suppress(ssl.SSLWantReadError):
            there.unwrap()
        assert (wire.decrypt(bios[1].read()), wire.ended) == (b"x", "the peer ended TLS")


def tls_context(directory: pathlib.Path) -> ssl.SSLContext:
    """What a router with TLS has."""
    pair = tls.authority().issue("127.0.0.1")
    (directory / "pair.pem").write_text(pair.certificate + pair.key)
    (directory / "ca.pem").write_text(tls.authority().pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "pair.pem")
    return context


def test_garbage_within_tls_ends_the_connection_and_not_the_thread(peers: Peers, tmp_path: pathlib.Path) -> None:
    context = tls_context(tmp_path)

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            if server.connections > 2:
                accept_everything(wrapped)
                return
            peer.log_in(wrapped)
            wrapped.sendall(peer.opened() + peer.begun())
            peer.one_frame(wrapped)
            os.write(wrapped.fileno(), b"garbage" * 100)
            time.sleep(0.5)

    server = peers.serve(serve)
    login = NOBODY._replace(tls=transport.Tls(ca_file=str(tmp_path / "ca.pem")))
    settings = engine.Settings((engine.Host("127.0.0.1", server.port, login),), "me", retry=(0.05, 0.0, 0.05))
    found = engine.Engine(settings, unread)
    try:
        waiting.until(lambda: "TLS failed" in found.trouble)
        sent = Sent(found)
        sent.send()
        waiting.until(lambda: sent.outcomes == [session.Outcome.ACCEPTED])
    finally:
        found.close()


def three_requests(settled: list[int]) -> collections.abc.Callable[[socket.socket], None]:
    """A router that sends three messages in one piece, and notes which of them are settled."""

    def serve(connection: socket.socket) -> None:
        peer.log_in(connection)
        connection.sendall(peer.opened() + peer.begun())
        for seen in peer.frames_of(connection):
            if seen.code == frames.ATTACH:
                requests = b"".join(peer.transfer(0, number, PAYLOAD) for number in range(3))
                connection.sendall(peer.attached(seen.fields[0], 0, True, "address") + requests)
            elif seen.code == frames.DISPOSITION:
                settled.extend(range(seen.fields[1], (seen.fields[2] or seen.fields[1]) + 1))
            elif seen.code == frames.CLOSE:
                connection.sendall(frames.frame(frames.close()))
                return

    return serve


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("handled", [1, 2, 3])
def test_what_waits_for_others_is_written_without_them(peers: Peers, handled: int, answered: bool) -> None:
    """Of three who got a message at once, the last one writes for all; the engine does when it does not come."""
    settled: list[int] = []
    arrivals: list[session.Arrival] = []
    found = peers.connect(peers.serve(three_requests(settled)).port)
    found.subscribe("address", 10, arrivals.append)
    waiting.until(lambda: len(arrivals) == 3)
    for arrival in arrivals[:handled]:
        found.settle(arrival, frames.ACCEPTED, answered)
    waiting.until(lambda: settled == list(range(handled)))


def test_an_answer_that_cannot_be_taken_keeps_no_caller_waiting(peers: Peers) -> None:
    """Others get what came with it."""
    found = peers.connect(peers.serve(accept_everything).port)
    outcomes: list[session.Outcome] = []

    def done(outcome: session.Outcome, reason: str) -> None:
        found._answers.append(typing.cast(session.Arrival, None))
        found.after(lambda: outcomes.append(outcome))

    def refuse(arrival: session.Arrival) -> typing.NoReturn:
        raise ValueError("no answer")

    found._on_reply = refuse
    waiting.until(lambda: not found.trouble)
    first = found._session
    found.send("address", session.Delivery(lambda _: PAYLOAD, done, time.monotonic() + 10))
    waiting.until(lambda: outcomes == [session.Outcome.ACCEPTED])
    waiting.until(lambda: found._session is not first and not found.trouble)
    sent = Sent(found)
    sent.send()
    waiting.until(lambda: sent.outcomes == [session.Outcome.ACCEPTED])


def test_a_server_of_another_engine_is_not_stopped(peers: Peers) -> None:
    """After a fork a server of the parent's has a link number that means another link here."""
    found = peers.connect(peers.serve(accept_everything).port)
    foreign = session.Receiver("foreign", "foreign", 10, lambda arrival: None)
    foreign.handle, foreign.source = 0, "foreign"
    own = found.subscribe("own", 10, lambda arrival: None)
    assert found.attached([own], time.monotonic() + 5)
    found.stop([foreign])
    assert not foreign.stopped and not own.stopped


def test_what_others_add_while_the_rest_is_written_is_written_too(peers: Peers) -> None:
    """The socket took the rest at once; nothing else would have somebody write again."""
    found = peers.connect(peers.serve(accept_everything).port)
    sent = Sent(found)
    sent.send()
    waiting.until(lambda: sent.outcomes == [session.Outcome.ACCEPTED])
    wire = found._transport
    assert wire is not None
    send = wire.send

    def late(data: bytes) -> None:
        send(data)
        if not data:
            sent.send()

    wire.send = late  # type: ignore[method-assign]
    begun = time.monotonic()
    found._write_pending(wire)
    waiting.until(lambda: len(sent.outcomes) == 2)
    assert time.monotonic() - begun < 0.5


def test_after_a_late_turn_nothing_is_held_back_for_a_while(peers: Peers) -> None:
    """Threads that keep the interpreter busy keep the engine's thread from writing what was held back."""
    settled: list[int] = []
    arrivals: list[session.Arrival] = []
    found = peers.connect(peers.serve(three_requests(settled)).port)
    found.subscribe("address", 10, arrivals.append)
    waiting.until(lambda: len(arrivals) == 3)
    with found._lock:
        found._promised_until = time.monotonic() - 1
        found._arrived.append((arrivals.append, arrivals[0]))
        found._promise(held=True)
        assert not found._promised_until
        found._arrived.clear()
        assert found._is_last()


def test_a_dead_address_leaves_time_for_the_next_and_for_the_login(monkeypatch: pytest.MonkeyPatch) -> None:
    server = peer.Server(accept_everything)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as one, socket.socket() as two:
        for each in (one, two):  # nobody accepts: a further connection gets no answer
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        time.sleep(0.1)
        places = [full.getsockname(), ("127.0.0.1", server.port)]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", place) for place in places]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        wire, _ = transport.connect("host", 5672, NOBODY, 3)
        wire.close()
    server.close()


class Notifying(logging.Handler):
    """Sends what is logged, as oslo.messaging's LoggingNotificationHandler does, and waits for the outcome."""

    def __init__(self, connection: engine.Engine) -> None:
        super().__init__()
        self._engine = connection
        self.outcomes: list[session.Outcome] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != engine.LOG.name:
            return
        told = threading.Event()

        def done(outcome: session.Outcome, reason: str) -> None:
            self.outcomes.append(outcome)
            told.set()

        self._engine.send("log", session.Delivery(lambda _: PAYLOAD, done, time.monotonic() + 10))
        told.wait(10)


def test_a_log_handler_may_send_over_the_connection_that_was_lost(peers: Peers) -> None:
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        connections.append(connection)
        accept_everything(connection)

    found = peers.connect(peers.serve(serve).port)
    handler = Notifying(found)
    engine.LOG.addHandler(handler)
    try:
        waiting.until(lambda: not found.trouble)
        connections[0].shutdown(socket.SHUT_RDWR)
        waiting.until(lambda: handler.outcomes == [session.Outcome.ACCEPTED])
    finally:
        engine.LOG.removeHandler(handler)
