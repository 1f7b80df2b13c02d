"""The targets of the benchmark, and whether a run reached them."""

from __future__ import annotations

import collections.abc
import dataclasses
import math

from bench import figures


@dataclasses.dataclass(frozen=True)
class Target:
    """What a side must reach.

    :param against: the side to compare with. ``limit`` is then of the ratio of the medians. '' for no comparison.
    :param most: whether ``limit`` is a maximum; otherwise it is a minimum.
    """

    pair: str
    work: str
    value: str
    side: str
    against: str
    limit: float
    most: bool = True

    def found(self, samples: collections.abc.Iterable[figures.Sample]) -> float:
        """Return the ratio or figure to compare with the limit, NaN when it was not measured."""
        of_pair = [sample for sample in samples if sample.pair == self.pair]
        figure = figures.overall(of_pair, self.work, self.side, self.value)
        if not self.against:
            return figure
        other = figures.overall(of_pair, self.work, self.against, self.value)
        return figures.ratio(figure, other)

    def met(self, found: float) -> bool:
        """Return whether a ratio or figure reaches the target. NaN never does."""
        return found <= self.limit if self.most else found >= self.limit


_CALLS = "calls/s"
_P99 = "p99 ms"
_ROUTER_CPU = "CPU s/10k"
_CPU_OF_ALL = "CPU of all s/10k"
_MEMORY = "memory MiB"
_SENT = "sent/s"


def _compared(
    pair: str,
    work: str,
    side: str,
    against: str,
    minimum_calls: float,
    maximum_p99: float,
    maximum_cpu: float,
    maximum_memory: float,
) -> list[Target]:
    """Return the four targets of a comparison of calls."""
    return [
        Target(pair, work, _CALLS, side, against, minimum_calls, most=False),
        Target(pair, work, _P99, side, against, maximum_p99),
        Target(pair, work, _ROUTER_CPU, side, against, maximum_cpu),
        Target(pair, work, _MEMORY, side, against, maximum_memory),
    ]


def _routers_and_brokers() -> list[Target]:
    targets = []
    for mirrored in ("mirrored", "mirrored-all"):
        targets += _compared("three", "calls/12", "mesh", mirrored, 3.5, 0.25, 0.1, 0.25)
    targets += _compared("one", "calls/32", "router", "rabbit", 2.0, 0.5, 0.2, 0.25)
    for side, minimum in (("router", 1.0), ("router-fast", 2.0)):
        for senders in (4, 32):
            targets.append(Target("one", f"burst/cast {senders}", _SENT, side, "rabbit", minimum, most=False))
    return targets


def _drivers() -> list[Target]:
    targets = []
    callers = (1, 16, 32, 64)
    for count in callers:
        targets.append(Target("driver", f"calls/{count}", _CALLS, "own", "in-tree", 3.0, most=False))
    for count in callers:
        targets.append(Target("driver", f"calls/{count}", _P99, "own", "in-tree", 1.0))
    targets += [
        Target("driver", "calls/32", _CALLS, "own", "broker", 5.0, most=False),
        Target("driver", "calls/32", _P99, "own", "broker", 0.25),
        Target("driver", "calls/32", _CPU_OF_ALL, "own", "broker", 0.2),
    ]
    for count in (16, 32):
        targets.append(Target("driver", f"calls/{count}", _CALLS, "own-tls", "own", 0.75, most=False))
    for senders in (4, 32):
        targets.append(Target("driver", f"burst/cast {senders}", _SENT, "own", "broker", 2.5, most=False))
    return targets


def _drivers_over_a_mesh() -> list[Target]:
    pair, work, side = "driver-mesh", "calls/12", "own-mesh"
    return [
        Target(pair, work, _CALLS, side, "brokers", 5.0, most=False),
        Target(pair, work, _P99, side, "brokers", 0.25),
        Target(pair, work, _P99, side, "in-tree-mesh", 1.0),
        Target(pair, work, _CPU_OF_ALL, side, "brokers", 0.2),
    ]


def _agent() -> list[Target]:
    targets = [
        Target("agent", "apply/no-op", "CPU s", "agent", "puppet", 0.1),
        Target("agent", "apply/no-op", "wall s", "agent", "puppet", 0.1),
    ]
    for services in (1, 10, 30):
        targets.append(Target("agent", f"apply/first-{services}", "wall s", "agent", "puppet", 1.25))
    for value, limit in (("wall s", 1.0), (_MEMORY, 200.0)):
        for command in ("validate", "plan", "topology"):
            targets.append(Target("agent", f"{command}/10000", value, "agent", "", limit))
    return targets


TARGETS = (*_routers_and_brokers(), *_drivers(), *_drivers_over_a_mesh(), *_agent())

# The highest ratio of the cost of one more node among 4 000 to 10 000 nodes to its cost among 1 000 to 4 000.
LINEAR = 1.5

# Sides whose settings lose messages when they are sent faster than they are received.
PRE_SETTLED = ("router-fast", "router-stock", "settled")


def lost(samples: collections.abc.Iterable[figures.Sample]) -> float:
    """Return how many casts, fanouts and notifications were lost while nothing was killed; NaN when none were sent.

    Only sides whose settings ask for acknowledgements count.
    """
    acknowledged = [sample for sample in samples if sample.side not in PRE_SETTLED]
    counts = [sample.values["lost"] for sample in acknowledged if "lost" in sample.values]
    return sum(counts) if counts else math.nan
