"""How the outcomes of consumers become the producer's."""

from __future__ import annotations

import typing

import pytest
from om_devrouter import deliveries
from om_devrouter.deliveries import ACCEPTED, MODIFIED, REJECTED, RELEASED, Inbound, Outbound, Outcome


class Producer:
    """Stands in for the producer's link."""

    def __init__(self) -> None:
        self.finished: list[Outcome] = []
        self.reported: list[Outcome] = []

    def finish(self, inbound: Inbound, outcome: Outcome) -> None:
        self.finished.append(outcome)

    def report(self, inbound: Inbound, outcome: Outcome) -> None:
        self.reported.append(outcome)


def routed(consumers: int, multicast: bool = False) -> tuple[Producer, Inbound]:
    producer = Producer()
    inbound = Inbound(typing.cast(typing.Any, producer), object(), presettled=False)
    inbound.routed, inbound.multicast, inbound.waiting = True, multicast, consumers
    inbound.outs = [Outbound(typing.cast(typing.Any, None), inbound) for _ in range(consumers)]
    return producer, inbound


def test_an_only_consumers_outcome_is_copied() -> None:
    producer, inbound = routed(1)
    inbound.complete = True
    outcome = Outcome(MODIFIED, failed=True, undeliverable=True, annotations={"a": 1})
    inbound.outs[0].done(outcome)
    assert producer.finished == [outcome]


def test_a_settlement_without_outcome_stays_one() -> None:
    producer, inbound = routed(1)
    inbound.complete = True
    inbound.outs[0].done(Outcome(None))
    assert producer.finished == [Outcome(None)]


def test_nothing_is_settled_before_all_of_it_arrived() -> None:
    producer, inbound = routed(1)
    inbound.outs[0].done(Outcome(REJECTED))
    assert producer.finished == []
    inbound.complete = True
    inbound.settle_if_done()
    inbound.settle_if_done()
    assert producer.finished == [Outcome(REJECTED)]


@pytest.mark.parametrize(
    ("states", "state"),
    [
        ((ACCEPTED, ACCEPTED), ACCEPTED),
        ((ACCEPTED, RELEASED), ACCEPTED),
        ((RELEASED, MODIFIED), MODIFIED),
        ((MODIFIED, ACCEPTED), ACCEPTED),
        ((ACCEPTED, REJECTED, RELEASED), REJECTED),
        ((RELEASED, None), RELEASED),
        ((None, ACCEPTED), ACCEPTED),
    ],
)
def test_multicast_reports_the_most_severe_when_all_are_done(states: tuple[int | None, ...], state: int) -> None:
    producer, inbound = routed(len(states), multicast=True)
    inbound.complete = True
    for out, given in zip(inbound.outs, states):
        assert producer.finished == []
        inbound.progress(Outcome(given))
        out.done(Outcome(given))
    assert [outcome.state for outcome in producer.finished] == [state]
    assert producer.reported == []


def test_an_only_consumers_early_outcome_is_reported() -> None:
    producer, inbound = routed(1)
    inbound.progress(Outcome(ACCEPTED))
    assert producer.reported == [Outcome(ACCEPTED)]


def test_consumers_share_the_bytes() -> None:
    _, inbound = routed(2, multicast=True)
    data = b"x" * 10
    inbound.feed(data)
    assert all(out.chunks[0] is data and out.waiting == 10 for out in inbound.outs)
    inbound.outs[0].done(Outcome(ACCEPTED))
    inbound.feed(data)
    assert [out.waiting for out in inbound.outs] == [0, 20]


def test_only_an_only_consumer_holds_back() -> None:
    much = b"x" * (deliveries.HOLD_BYTES + 1)
    for consumers, multicast, blocked in ((1, False, True), (2, True, False), (1, True, False)):
        _, inbound = routed(consumers, multicast)
        inbound.feed(much)
        assert inbound.blocked is blocked


def test_counters_count_by_fate() -> None:
    counters = deliveries.Counters()
    for state in (ACCEPTED, REJECTED, RELEASED, MODIFIED, None):
        counters.count(False, state)
    counters.count(True, ACCEPTED)
    assert counters == deliveries.Counters(presettled=1, accepted=1, rejected=1, released=1, modified=1)
