"""Links, credit, windows and deliveries against a peer that a test scripts: no socket, no thread, no clock."""

from __future__ import annotations

import time
import typing

import pytest
from oslo_messaging_amqp1 import codec, errors, frames, session

from tests.driver import peer

PAYLOAD = b"\x00\x53\x77\xa1\x01x"


class Here:
    """A session with what it wrote, and what became of its deliveries."""

    def __init__(self) -> None:
        self.written = b""
        self.changes: list[tuple[object, str]] = []
        self.outcomes: list[tuple[session.Outcome, str]] = []
        self.arrivals: list[session.Arrival] = []
        self.session = session.Session(self._write, lambda link, why: self.changes.append((link, why)), "me")
        self.session.start("", 10, {})
        self.feed(peer.opened(), peer.begun())
        self.seen()

    def _write(self, data: bytes) -> None:
        self.written += data

    def feed(self, *data: bytes) -> None:
        self.session.feed(b"".join(data), 1.0)

    def seen(self) -> list[peer.Seen]:
        self.session.flush()
        data, self.written = self.written, b""
        return peer.read(data)

    def sender(self, credit: int = 10, handle: int = 0) -> session.Sender:
        sender = session.Sender("address", 0.0)
        self.session.attach(sender)
        name = self.seen()[0].fields[0]
        self.feed(peer.attached(name, handle, False, "address"), peer.credit(handle, 0, credit))
        return sender

    def receiver(self, limit: int = 4, handle: int = 7) -> session.Receiver:
        receiver = session.Receiver("address", "address", limit, self.arrivals.append)
        self.session.attach(receiver)
        name = self.seen()[0].fields[0]
        self.feed(peer.attached(name, handle, True, "address"))
        assert self.seen()[0].fields[4:7] == [receiver.handle, 0, limit]
        return receiver

    def delivery(self, payload: bytes = PAYLOAD, settled: bool = False) -> session.Delivery:
        def done(outcome: session.Outcome, reason: str) -> None:
            self.outcomes.append((outcome, reason))

        return session.Delivery(lambda _: payload, done, 1e9, settled)


@pytest.fixture
def here() -> Here:
    return Here()


def test_one_session_for_every_link(here: Here) -> None:
    for handle in range(50):
        here.sender(handle=handle)
    assert not [each for each in here.seen() if each.code == frames.BEGIN]


def test_a_delivery_and_its_outcome(here: Here) -> None:
    sender = here.sender(credit=1)
    delivery = here.delivery()
    assert here.session.can_send(sender, delivery)
    here.session.transmit(sender, delivery)
    (sent,) = here.seen()
    assert (sent.code, sent.fields[:6], sent.payload) == (
        frames.TRANSFER, [0, 0, b"\0\0\0\0", 0, False, None], PAYLOAD
    )  # fmt: skip
    assert not here.session.can_send(sender, here.delivery())  # the credit is used up
    assert [here.session.quiet, sender.unsettled] == [False, 1]
    here.feed(peer.disposed(0, None, peer.state(frames.ACCEPTED)))
    assert here.outcomes == [(session.Outcome.ACCEPTED, "")]
    assert [here.session.quiet, sender.unsettled] == [True, 0]


FAULT = peer.fault_of("amqp:not-allowed", "no")


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (peer.state(frames.RELEASED), (session.Outcome.RELEASED, "")),
        (peer.state(frames.MODIFIED), (session.Outcome.MODIFIED, "")),
        (peer.state(frames.MODIFIED, codec.TRUE), (session.Outcome.REJECTED, "the receiver failed")),
        (peer.state(frames.MODIFIED, None, codec.TRUE), (session.Outcome.REJECTED, "the receiver failed")),
        (peer.state(frames.REJECTED, FAULT), (session.Outcome.REJECTED, "amqp:not-allowed: no")),
        (None, (session.Outcome.ACCEPTED, "")),
        (
            peer.state(frames.RECEIVED, codec.uint(0), codec.ulong(0)),
            (session.Outcome.REJECTED, "the outcome is unknown"),
        ),
    ],
)
def test_outcomes(here: Here, state: bytes | None, outcome: tuple[session.Outcome, str]) -> None:
    sender = here.sender()
    here.session.transmit(sender, here.delivery())
    here.feed(peer.disposed(0, None, state))
    assert here.outcomes == [outcome]


def test_a_range_is_settled_and_answered_where_the_peer_waits_for_it(here: Here) -> None:
    sender = here.sender()
    for _ in range(4):
        here.session.transmit(sender, here.delivery())
    here.seen()
    here.feed(peer.disposed(0, 2, peer.state(frames.ACCEPTED), settled=False))
    assert here.outcomes == [(session.Outcome.ACCEPTED, "")] * 3
    (answer,) = here.seen()
    assert (answer.code, answer.fields[:4]) == (frames.DISPOSITION, [False, 0, 2, True])
    here.feed(peer.disposed(0, 3, peer.state(frames.RECEIVED, codec.uint(0), codec.ulong(0)), settled=False))
    assert len(here.outcomes) == 3  # not an outcome yet


def test_dispositions_of_everything_there_could_be_take_no_time(here: Here) -> None:
    sender = here.sender()
    for _ in range(3):
        here.session.transmit(sender, here.delivery())
    start = time.process_time()
    for _ in range(1000):
        here.feed(peer.disposed(2, 1, peer.state(frames.ACCEPTED)))  # from the third one round to the second
    assert time.process_time() - start < 1
    assert here.outcomes == [(session.Outcome.ACCEPTED, "")] * 3


def test_a_settled_delivery_is_done_at_once(here: Here) -> None:
    here.session.transmit(here.sender(), here.delivery(settled=True))
    assert here.outcomes == [(session.Outcome.ACCEPTED, "")]
    assert here.seen()[0].fields[4] is True


@pytest.mark.parametrize("size", [1, 16_000, 16_384, 100_000, 8 * 2**20])
def test_a_large_message_goes_in_several_frames(here: Here, size: int) -> None:
    sender = here.sender()
    payload = bytes(size)
    here.session.transmit(sender, here.delivery(payload))
    sent = here.seen()
    assert b"".join(each.payload for each in sent) == payload
    assert [bool(each.fields[5]) for each in sent] == [True] * (len(sent) - 1) + [False]
    assert sender.credit == 9


def test_the_peers_window_is_respected(here: Here) -> None:
    sender = here.sender()
    here.feed(peer.window(0, 3))
    here.session.transmit(sender, here.delivery(bytes(80_000)))  # five frames
    assert len(here.seen()) == 3
    assert not here.session.can_send(sender, here.delivery())  # it would come between the frames of the first
    here.feed(peer.window(3, 1))
    assert len(here.seen()) == 1
    here.feed(peer.window(4, 100))
    (last,) = here.seen()
    assert not last.fields[5]
    assert here.session.can_send(sender, here.delivery())


def test_credit_that_crosses_with_a_delivery(here: Here) -> None:
    sender = here.sender(credit=2)
    here.session.transmit(sender, here.delivery())
    here.feed(peer.credit(0, 0, 2))  # sent before the peer knew of the delivery
    assert sender.credit == 1
    here.session.transmit(sender, here.delivery())
    here.feed(peer.credit(0, 0, 1))
    assert sender.credit == 0


def test_drain(here: Here) -> None:
    sender = here.sender(credit=5)
    here.seen()
    here.feed(peer.credit(0, 0, 5, drain=True))
    (answer,) = here.seen()
    assert (answer.code, answer.fields[4:7], answer.fields[8]) == (frames.FLOW, [0, 5, 0], True)
    assert sender.credit == 0


def test_what_comes_is_settled_in_ranges_and_credit_given_when_half_is_used(here: Here) -> None:
    receiver = here.receiver(limit=4)
    here.feed(*(peer.transfer(7, number, PAYLOAD) for number in range(4)))
    assert [arrival.number for arrival in here.arrivals] == [0, 1, 2, 3]
    assert not here.seen()  # a server that handles nothing gets nothing more
    here.session.settle(here.arrivals[0])
    assert [each.code for each in here.seen()] == [frames.DISPOSITION]
    here.session.settle(here.arrivals[1])
    here.session.settle(here.arrivals[2])
    flow, disposition = sorted(here.seen(), key=lambda each: each.code)
    assert disposition.fields[:4] == [True, 1, 2, True]
    assert flow.fields[5:7] == [4, 2]
    assert receiver.outstanding == 1


def test_settled_messages_count_against_the_credit_until_they_are_handled(here: Here) -> None:
    here.receiver(limit=1)
    here.feed(peer.transfer(7, 0, PAYLOAD, settled=True))
    assert not here.seen()
    here.session.settle(here.arrivals[0])
    assert [each.code for each in here.seen()] == [frames.FLOW]


def test_more_messages_than_credit(here: Here) -> None:
    here.receiver(limit=1)
    with pytest.raises(errors.DecodeError, match="more messages than its credit allows"):
        here.feed(peer.transfer(7, 0, PAYLOAD), peer.transfer(7, 1, PAYLOAD))


def test_a_message_of_several_frames(here: Here) -> None:
    receiver = here.receiver(limit=2)
    here.feed(peer.transfer(7, 0, b"a", more=True), peer.transfer(7, None, b"b", more=True))
    assert not here.arrivals
    here.feed(peer.transfer(7, None, b"c"), peer.transfer(7, 1, b"d"))
    assert [arrival.payload for arrival in here.arrivals] == [b"abc", b"d"]
    assert receiver.outstanding == 2


def test_an_aborted_message(here: Here) -> None:
    receiver = here.receiver(limit=2)
    here.feed(peer.transfer(7, 0, b"a", more=True), peer.transfer(7, None, b"", aborted=True))
    assert not here.arrivals
    assert receiver.outstanding == 0
    here.feed(peer.transfer(7, 1, b"b"))
    assert [arrival.payload for arrival in here.arrivals] == [b"b"]


def test_an_endless_message(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_MESSAGE_SIZE", 1000)
    here.receiver()
    with pytest.raises(errors.DecodeError, match="larger than"):
        for _ in range(100):
            here.feed(peer.transfer(7, 0, bytes(100), more=True))


def test_messages_that_nobody_handles_take_bounded_memory(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_UNHANDLED_SIZE", 1000)
    here.receiver(limit=100)
    for number in range(30):
        here.feed(peer.transfer(7, number, bytes(100)))
        here.session.settle(here.arrivals[number])
    with pytest.raises(errors.DecodeError, match="of messages wait for this process"):
        for number in range(30, 41):
            here.feed(peer.transfer(7, number, bytes(100)))


def test_an_endless_message_of_nothing(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_MESSAGE_SIZE", 6400)
    here.receiver()
    with pytest.raises(errors.DecodeError, match="larger than"):
        for _ in range(200):
            here.feed(peer.transfer(7, 0, b"", more=True))


def test_a_refused_link(here: Here) -> None:
    sender = session.Sender("address", 0.0)
    here.session.attach(sender)
    name = here.seen()[0].fields[0]
    here.feed(peer.attached(name, 0, False, None), peer.detached(0, "amqp:unauthorized-access", "no"))
    assert sender.refused == "amqp:unauthorized-access: no"
    assert sender.handle is None
    assert here.changes == [(sender, "amqp:unauthorized-access: no")]
    assert here.seen()[0].code == frames.DETACH


def test_a_detached_link_can_be_attached_again(here: Here) -> None:
    sender = here.sender()
    here.feed(peer.detached(0))
    here.seen()
    here.session.attach(sender)
    (attach,) = here.seen()
    here.feed(peer.attached(attach.fields[0], 0, False, "address"), peer.credit(0, 0, 3))
    assert sender.credit == 3


def test_what_is_under_way_on_a_link_that_ends_is_lost(here: Here) -> None:
    sender, other = here.sender(), here.sender(handle=1)
    here.session.transmit(sender, here.delivery())
    here.session.transmit(other, here.delivery())
    here.feed(peer.detached(0, "amqp:internal-error", "no"))
    assert here.outcomes == [(session.Outcome.LOST, "amqp:internal-error: no")]
    here.feed(peer.disposed(0, 1, peer.state(frames.ACCEPTED)))  # too late for the first
    assert here.outcomes[1:] == [(session.Outcome.ACCEPTED, "")]
    assert [sender.unsettled, other.unsettled] == [0, 0]


def test_a_window_that_shrinks_below_what_is_under_way(here: Here) -> None:
    sender = here.sender()
    for _ in range(5):
        here.session.transmit(sender, here.delivery())
    here.seen()
    here.feed(peer.window(2, 1))  # the peer saw two of five frames and takes one more
    here.session.transmit(sender, here.delivery())
    assert not here.seen()


def test_an_end_of_the_connection(here: Here) -> None:
    sender, receiver = here.sender(), here.receiver()
    here.session.transmit(sender, here.delivery())
    here.feed(peer.transfer(7, 0, PAYLOAD))
    closed = frames.frame(frames.close("amqp:connection:forced", "shutting down"))
    with pytest.raises(errors.ConnectionLost, match="shutting down") as caught:
        here.feed(closed)
    assert caught.value.condition == "amqp:connection:forced"
    here.session.lost("gone")
    assert here.outcomes == [(session.Outcome.LOST, "gone")]
    assert (sender.handle, receiver.handle) == (None, None)
    here.seen()
    here.session.settle(here.arrivals[0])  # of a connection that is no more
    assert not here.seen()


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff\x02\x00\x00\x00", b"\x00\x00\x00\x07\x02\x00\x00\x00", b"\x00\x00\x00\x10\x01" + bytes(11),
        b"\x00\x00\x00\x10\xff" + bytes(11), peer.opened(), peer.begun(), peer.attached("other", 3, True, "x"),
        peer.transfer(99, 0, PAYLOAD), frames.frame(codec.composite(frames.SOURCE, ())),
        frames.frame(codec.string("text")), frames.frame(codec.composite(frames.TRANSFER, (codec.string("0"),))),
        frames.frame(codec.composite(frames.BEGIN, ())), frames.frame(codec.composite(frames.DETACH, [None] * 9)),
        frames.frame(b"x", kind=frames.SASL_FRAME),
    ],
    ids=range(14),
)  # fmt: skip
def test_what_a_peer_must_not_send(here: Here, data: bytes) -> None:
    with pytest.raises(errors.DecodeError):
        here.feed(data)


def test_before_open() -> None:
    now = session.Session(lambda _: None, lambda *_: None, "me")
    with pytest.raises(errors.DecodeError, match="out of order"):
        now.feed(peer.begun(), 0.0)


def test_bytes_come_in_any_pieces(here: Here) -> None:
    here.receiver()
    data = peer.transfer(7, 0, PAYLOAD) + frames.EMPTY_FRAME + peer.transfer(7, 1, PAYLOAD)
    for position in range(len(data)):
        here.feed(data[position : position + 1])
    assert [arrival.payload for arrival in here.arrivals] == [PAYLOAD, PAYLOAD]


def test_symbolic_descriptors(here: Here) -> None:
    sender = here.sender()
    here.session.transmit(sender, here.delivery())
    fields: list[typing.Any] = [codec.TRUE, codec.uint(0), None, codec.TRUE]
    fields.append(b"\x00" + codec.symbol("amqp:accepted:list") + codec.compound(()))
    listed = codec.compound([codec.NULL if field is None else field for field in fields])
    here.feed(frames.frame(b"\x00" + codec.symbol("amqp:disposition:list") + listed))
    assert here.outcomes == [(session.Outcome.ACCEPTED, "")]


def test_handles_are_used_again(here: Here) -> None:
    """A peer may limit them (handle-max)."""
    for _ in range(20):
        sender = here.sender()
        here.session.detach(sender)
        here.feed(peer.detached(0))
        (detach,) = here.seen()
        assert detach.fields[0] == 0


def test_a_message_from_before_its_link_was_attached_again_frees_no_credit(here: Here) -> None:
    receiver = here.receiver(limit=4)
    here.feed(*(peer.transfer(7, number, PAYLOAD) for number in range(4)))
    here.feed(peer.detached(7))
    here.seen()
    here.session.attach(receiver)
    (attach,) = here.seen()
    here.feed(peer.attached(attach.fields[0], 7, True, "address"))
    for arrival in here.arrivals:
        here.session.settle(arrival)
    assert [receiver.outstanding, receiver.credit] == [0, 4]


def test_a_stopped_link_gets_no_credit_and_what_is_on_its_way_still_comes(here: Here) -> None:
    receiver = here.receiver(limit=4)
    here.session.stop(receiver)
    (flow,) = here.seen()
    assert flow.fields[5:7] == [0, 0]
    here.feed(*(peer.transfer(7, number, PAYLOAD) for number in range(4)))
    assert len(here.arrivals) == 4
    for arrival in here.arrivals:
        here.session.settle(arrival)
    assert [each.code for each in here.seen()] == [frames.DISPOSITION]


def test_a_link_that_is_asked_for_its_state(here: Here) -> None:
    sender, receiver = here.sender(credit=5), here.receiver()
    here.session.transmit(sender, here.delivery())
    here.seen()
    here.feed(peer.asked(0, 0, 5), peer.asked(7, 0, 0), peer.asked(None, None, None))
    shown = [each.fields[4:7] for each in here.seen()]
    assert shown == [[sender.handle, 1, 4], [receiver.handle, 0, 4], [None, None, None]]


def test_a_link_that_this_side_left_is_asked_to_drain(here: Here) -> None:
    sender = here.sender()
    here.session.detach(sender)
    here.feed(peer.credit(0, 0, 5, drain=True), peer.detached(0))
    assert [each.code for each in here.seen()] == [frames.DETACH]


def test_a_peer_that_wants_signs_of_life_all_the_time() -> None:
    now = session.Session(lambda _: None, lambda *_: None, "me")
    with pytest.raises(errors.DecodeError, match="too often"):
        now.feed(peer.opened(idle=0.001), 0.0)


@pytest.mark.parametrize("number", [codec.ulong(2**40), b"\x54\xff", b"\x81" + b"\xff" * 8])
def test_numbers_out_of_range(here: Here, number: bytes) -> None:
    fields = (number, codec.uint(1), codec.uint(0), codec.uint(1))
    with pytest.raises(errors.DecodeError, match="wrong type"):
        here.feed(frames.frame(codec.composite(frames.FLOW, fields)))


def test_what_the_peer_says_is_fit_for_a_log(here: Here) -> None:
    with pytest.raises(errors.ConnectionLost) as caught:
        here.feed(frames.frame(frames.close("amqp:not-allowed", "a\nb\x1b[31m" + 5000 * "c")))
    assert str(caught.value).startswith("the peer closed the connection: amqp:not-allowed: a?b?[31mccc")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("port", [0, 70_000, 2**32 - 1])
def test_a_redirection_to_no_port_is_an_end_like_others(here: Here, port: int) -> None:
    with pytest.raises(errors.ConnectionLost, match="amqp:connection:redirect") as caught:
        here.feed(peer.redirected("host", port))
    assert not isinstance(caught.value, errors.Redirected)


def moved(handle: int, **info: str) -> bytes:
    shown = codec.mapping({codec.symbol(key.replace("_", "-")): codec.string(value) for key, value in info.items()})
    fault = codec.composite(frames.ERROR, (codec.symbol("amqp:link:redirect"), None, shown))
    return frames.frame(codec.composite(frames.DETACH, (codec.uint(handle), codec.TRUE, fault)))


def test_a_link_that_is_redirected_to_another_address(here: Here) -> None:
    sender = here.sender()
    here.feed(moved(0, address="elsewhere"))
    assert here.changes[-1] == (sender, "the peer detached the link")
    here.seen()
    here.session.attach(sender)
    (attach,) = here.seen()
    assert frames.composite(attach.fields[6])[1][0] == "elsewhere"


def test_a_link_that_is_redirected_to_another_host(here: Here) -> None:
    sender = here.sender()
    here.feed(moved(0, address="elsewhere", network_host="other.example"))
    assert sender.moved == ""
    assert "amqp:link:redirect (to other.example; this driver keeps all links on one connection)" in sender.refused


def test_what_is_settled_is_said_before_its_link_or_the_connection_ends(here: Here) -> None:
    receiver = here.receiver(limit=4)
    here.feed(*(peer.transfer(7, number, PAYLOAD) for number in range(2)))
    here.session.settle(here.arrivals[0])
    here.session.detach(receiver)
    assert [each.code for each in here.seen()] == [frames.DISPOSITION, frames.DETACH]
    here.session.settle(here.arrivals[1])
    here.session.finish()
    assert [each.code for each in here.seen()] == [frames.DISPOSITION, frames.CLOSE]
