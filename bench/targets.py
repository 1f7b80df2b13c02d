"""What is to be reached, and whether it was."""

from __future__ import annotations

import collections.abc
import dataclasses
import math

from bench import figures


@dataclasses.dataclass(frozen=True)
class Target:
    """What a side is to reach.

    :param against: the side that it is compared with: then ``limit`` is of the ratio of the medians. '' for none.
    :param most: whether ``limit`` is the most that is allowed, or the least that is wanted.
    """

    pair: str
    work: str
    value: str
    side: str
    against: str
    limit: float
    most: bool = True

    def found(self, samples: collections.abc.Iterable[figures.Sample]) -> float:
        """Return the ratio, or the figure; NaN when it was not measured."""
        of_pair = [s for s in samples if s.pair == self.pair]
        one = figures.overall(of_pair, self.work, self.side, self.value)
        if not self.against:
            return one
        return figures.ratio(one, figures.overall(of_pair, self.work, self.against, self.value))

    def met(self, found: float) -> bool:
        """Return whether that is enough; never of NaN."""
        return found <= self.limit if self.most else found >= self.limit


def _versus(pair: str, work: str, side: str, against: str, **limits: float) -> list[Target]:
    """Return the four of a comparison of calls."""
    names = {"calls": "calls/s", "p99": "p99 ms", "cpu": "CPU s/10k", "memory": "memory MiB"}
    return [Target(pair, work, names[k], side, against, v, k != "calls") for k, v in limits.items()]


TARGETS = (
    *(
        target
        for mirrored in ("mirrored", "mirrored-all")
        for target in _versus("three", "calls/12", "mesh", mirrored, calls=3.5, p99=0.25, cpu=0.1, memory=0.25)
    ),
    *_versus("one", "calls/32", "router", "rabbit", calls=2.0, p99=0.5, cpu=0.2, memory=0.25),
    Target("one", "burst/cast 4", "sent/s", "router", "rabbit", 1.0, most=False),
    Target("one", "burst/cast 32", "sent/s", "router", "rabbit", 1.0, most=False),
    Target("one", "burst/cast 4", "sent/s", "router-fast", "rabbit", 2.0, most=False),
    Target("one", "burst/cast 32", "sent/s", "router-fast", "rabbit", 2.0, most=False),
    *(Target("driver", f"calls/{n}", "calls/s", "own", "in-tree", 3.0, most=False) for n in (1, 16, 32, 64)),
    *(Target("driver", f"calls/{n}", "p99 ms", "own", "in-tree", 1.0) for n in (1, 16, 32, 64)),
    Target("driver", "calls/32", "calls/s", "own", "broker", 5.0, most=False),
    Target("driver", "calls/32", "p99 ms", "own", "broker", 0.25),
    Target("driver", "calls/32", "CPU of all s/10k", "own", "broker", 0.2),
    *(Target("driver", f"calls/{n}", "calls/s", "own-tls", "own", 0.75, most=False) for n in (16, 32)),
    *(Target("driver", f"burst/cast {n}", "sent/s", "own", "broker", 2.5, most=False) for n in (4, 32)),
    Target("driver-mesh", "calls/12", "calls/s", "own-mesh", "brokers", 5.0, most=False),
    Target("driver-mesh", "calls/12", "p99 ms", "own-mesh", "brokers", 0.25),
    Target("driver-mesh", "calls/12", "p99 ms", "own-mesh", "in-tree-mesh", 1.0),
    Target("driver-mesh", "calls/12", "CPU of all s/10k", "own-mesh", "brokers", 0.2),
    Target("agent", "apply/no-op", "CPU s", "agent", "puppet", 0.1),
    Target("agent", "apply/no-op", "wall s", "agent", "puppet", 0.1),
    *(Target("agent", f"apply/first-{n}", "wall s", "agent", "puppet", 1.25) for n in (1, 10, 30)),
    *(Target("agent", f"{c}/10000", "wall s", "agent", "", 1.0) for c in ("validate", "plan", "topology")),
    *(Target("agent", f"{c}/10000", "memory MiB", "agent", "", 200.0) for c in ("validate", "plan", "topology")),
)

# How many times as much a node more may cost among 4 000 to 10 000 as among 1 000 to 4 000.
LINEAR = 1.5

# Sides whose settings are known to lose what is sent faster than it is taken.
PRE_SETTLED = ("router-fast", "router-stock", "settled")


def lost(samples: collections.abc.Iterable[figures.Sample]) -> float:
    """Return how many casts, fanouts and notifications were lost though nothing was killed, and acknowledged was what
    the settings ask for; NaN when none were sent."""
    found = [s.values["lost"] for s in samples if "lost" in s.values and s.side not in PRE_SETTLED]
    return sum(found) if found else math.nan
