"""Peers that say anything: this driver's codec is compared with proton's, and its session must end in order."""

from __future__ import annotations

import contextlib
import typing

import hypothesis
import pytest
from hypothesis import strategies
from oslo_messaging_amqp1 import codec, errors, frames, session

from tests.driver import peer

proton = pytest.importorskip("proton", reason="python-qpid-proton is not installed")

QUICK = hypothesis.settings(deadline=None, max_examples=200, suppress_health_check=list(hypothesis.HealthCheck))
PAYLOAD = b"\x00\x53\x77\xa1\x01x"

# -- what proton writes

TEXT = strategies.text(strategies.characters(exclude_categories=["Cs"]), max_size=300)
SYMBOLS = strategies.from_regex(r"\A[a-z:.-]{1,40}\Z")
WRITTEN: strategies.SearchStrategy[tuple[object, object]] = strategies.one_of(  # for proton, and what it is here
    strategies.none().map(lambda value: (value, value)),
    strategies.booleans().map(lambda value: (value, value)),
    strategies.integers(0, 2**8 - 1).map(lambda value: (proton.ubyte(value), value)),
    strategies.integers(0, 2**16 - 1).map(lambda value: (proton.ushort(value), value)),
    strategies.integers(0, 2**32 - 1).map(lambda value: (proton.uint(value), value)),
    strategies.integers(0, 2**64 - 1).map(lambda value: (proton.ulong(value), value)),
    strategies.integers(-(2**7), 2**7 - 1).map(lambda value: (proton.byte(value), value)),
    strategies.integers(-(2**15), 2**15 - 1).map(lambda value: (proton.short(value), value)),
    strategies.integers(-(2**31), 2**31 - 1).map(lambda value: (proton.int32(value), value)),
    strategies.integers(-(2**63), 2**63 - 1).map(lambda value: (value, value)),
    strategies.integers(0, 2**62).map(lambda value: (proton.timestamp(value), value)),
    strategies.floats(allow_nan=False).map(lambda value: (value, value)),
    strategies.uuids().map(lambda value: (value, value)),
    strategies.binary(max_size=300).map(lambda value: (value, value)),
    TEXT.map(lambda value: (value, value)),
    SYMBOLS.map(lambda value: (proton.symbol(value), value)),
)


def _lists(inner: typing.Any) -> typing.Any:
    return strategies.lists(inner, max_size=20).map(lambda pairs: ([a for a, _ in pairs], [b for _, b in pairs]))


def _maps(inner: typing.Any) -> typing.Any:
    return strategies.dictionaries(SYMBOLS, inner, max_size=20).map(
        lambda found: ({proton.symbol(k): a for k, (a, _) in found.items()}, {k: b for k, (_, b) in found.items()})
    )


def _described(inner: typing.Any) -> typing.Any:
    return strategies.tuples(strategies.integers(0, 2**64 - 1), inner).map(
        lambda found: (
            proton.Described(proton.ulong(found[0]), found[1][0]),
            codec.Described(found[0], found[1][1]),
        )
    )


NESTED = strategies.recursive(
    WRITTEN, lambda inner: strategies.one_of(_lists(inner), _maps(inner), _described(inner)), max_leaves=25
)


def _depth(value: object) -> int:
    if isinstance(value, codec.Described):
        return 1 + _depth(value.value)
    if isinstance(value, (list, dict)):
        return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)
    return 0


@QUICK
@hypothesis.given(NESTED)
def test_it_reads_whatever_proton_writes(pair: tuple[object, object]) -> None:
    hypothesis.assume(_depth(pair[1]) < codec.MAX_DEPTH)
    data = proton.Data()
    data.put_object(pair[0])
    encoded = data.encode()
    assert codec.decode(encoded) == (pair[1], len(encoded))
    assert codec.skip(encoded, 0, len(encoded)) == len(encoded)


@QUICK
@hypothesis.given(NESTED, strategies.data())
def test_a_changed_byte_is_read_or_refused(pair: tuple[object, object], data: strategies.DataObject) -> None:
    written = proton.Data()
    written.put_object(pair[0])
    encoded = bytearray(written.encode())
    encoded[data.draw(strategies.integers(0, len(encoded) - 1))] = data.draw(strategies.integers(0, 255))
    with contextlib.suppress(errors.DecodeError):
        _, after = codec.decode(bytes(encoded))
        assert codec.skip(bytes(encoded), 0, len(encoded)) == after


# -- a session with a peer that says anything

NUMBERS = strategies.one_of(strategies.integers(0, 9), strategies.sampled_from([2**31 - 1, 2**31, 2**32 - 1]))
FAULTS = strategies.sampled_from(
    [None, peer.fault_of("amqp:link:redirect", "x"), peer.fault_of("a:b", "\n"), codec.string("no fault")]
)
STATES = strategies.sampled_from(
    [None, *(peer.state(code) for code in range(frames.RECEIVED, frames.MODIFIED + 1)), codec.described(0x99, b"\x45")]
)
HANDLES = strategies.integers(0, 3)
FRAMES: strategies.SearchStrategy[bytes] = strategies.one_of(
    strategies.builds(peer.transfer, HANDLES, NUMBERS, strategies.binary(max_size=50), *[strategies.booleans()] * 3),
    strategies.builds(peer.transfer, HANDLES, strategies.none(), strategies.binary(max_size=50), strategies.booleans()),
    strategies.builds(
        peer.disposed, NUMBERS, strategies.one_of(strategies.none(), NUMBERS), STATES,
        *[strategies.booleans()] * 2,
    ),
    strategies.builds(peer.credit, HANDLES, NUMBERS, NUMBERS, NUMBERS, NUMBERS, strategies.booleans()),
    strategies.builds(peer.asked, strategies.one_of(strategies.none(), HANDLES), NUMBERS, NUMBERS),
    strategies.builds(peer.window, NUMBERS, NUMBERS),
    strategies.builds(
        lambda handle, fault: frames.frame(codec.composite(frames.DETACH, (codec.uint(handle), codec.TRUE, fault))),
        HANDLES, FAULTS,
    ),
    strategies.builds(
        lambda number, handle, sends, where: peer.attached(f"me/{number}", handle, sends, where),
        strategies.integers(0, 8), HANDLES, strategies.booleans(),
        strategies.sampled_from([None, "address"]),
    ),
)  # fmt: skip
STEPS = strategies.lists(
    strategies.one_of(FRAMES, strategies.sampled_from(["attach", "detach", "settle", "send", "large", "stop"])),
    max_size=40,
)


@QUICK
@hypothesis.given(STEPS)
def test_a_session_keeps_its_accounts_whatever_the_peer_says(steps: list[bytes | str]) -> None:
    """Credit never exceeds its limit, each delivery has one outcome, and what is written can be read."""
    written: list[bytes] = []
    arrivals: list[session.Arrival] = []
    outcomes: dict[int, int] = {}
    sent: list[session.Delivery] = []
    now = session.Session(written.append, lambda *_: None, "me")
    sender = session.Sender("address", 0.0)
    links: list[session.Sender | session.Receiver]
    links = [sender, session.Receiver("a", "a", 3, arrivals.append), session.Receiver(None, "r", 2, arrivals.append)]
    now.start("", 10, {})
    try:
        now.feed(peer.opened() + peer.begun(), 0.0)
        for handle, link in enumerate(links):
            now.attach(link)
            now.feed(peer.attached(f"me/{handle}", handle, link is not sender, "address"), 0.0)
        now.feed(peer.credit(0, 0, 5), 0.0)
        for step in steps:
            if isinstance(step, bytes):
                now.feed(step, 0.0)
            else:
                _act(now, step, links, arrivals, sent, outcomes)
            assert sender.credit >= 0 and sender.unsettled >= 0
            for link in links[1:]:
                assert isinstance(link, session.Receiver)
                assert link.credit >= 0 and link.outstanding >= 0
                assert link.credit + link.outstanding <= link.limit
    except errors.AmqpError:
        pass
    now.flush()
    now.lost("over")
    assert outcomes == dict.fromkeys(map(id, sent), 1)
    assert peer.read(b"".join(written))[0].code == frames.OPEN


def _act(
    now: session.Session,
    step: str,
    links: list[typing.Any],
    arrivals: list[session.Arrival],
    sent: list[session.Delivery],
    outcomes: dict[int, int],
) -> None:
    sender, receiver = links[:2]
    if step == "attach":
        for link in links:
            if link.handle is None:
                now.attach(link)
    elif step == "detach":
        now.detach(receiver)
    elif step == "stop":
        now.stop(receiver)
    elif step == "settle" and arrivals:
        now.settle(arrivals.pop(0))
    elif step in ("send", "large"):
        payload = PAYLOAD * (10_000 if step == "large" else 1)

        def done(outcome: session.Outcome, reason: str) -> None:
            outcomes[id(delivery)] = outcomes.get(id(delivery), 0) + 1

        delivery = session.Delivery(lambda _: payload, done, 1e9)
        if now.can_send(sender, delivery):
            sent.append(delivery)
            now.transmit(sender, delivery)
