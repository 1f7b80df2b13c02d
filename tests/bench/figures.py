"""What repetitions amount to: medians, ratios and targets. Nothing here measures."""

from __future__ import annotations

import collections.abc
import dataclasses
import math
import statistics
import typing


@dataclasses.dataclass(frozen=True)
class Sample:
    """One piece of work, done once by one side.

    :param pair: which sides are compared: ``one`` or ``three``.
    :param work: what was done, ``calls/12`` for instance.
    :param values: figures by name; the name ends with the unit.
    :param foreign: cores that were busy with nothing of this benchmark, on average.
    """

    pair: str
    work: str
    side: str
    repetition: int
    values: dict[str, float]
    foreign: float


@dataclasses.dataclass(frozen=True)
class Target:
    """What a side is to reach against another.

    :param most: whether ``ratio`` is the most that is allowed, or the least.
    """

    pair: str
    work: str
    value: str
    side: str
    against: str
    ratio: float
    most: bool

    def met(self, samples: collections.abc.Sequence[Sample]) -> bool:
        """Return whether the ratio of the medians is what it is to be."""
        found = ratio(samples, self)
        return found <= self.ratio if self.most else found >= self.ratio


def percentile(values: collections.abc.Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent of ``values`` are not above; NaN of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else math.nan


def median(samples: collections.abc.Iterable[Sample], pair: str, work: str, side: str, value: str) -> float:
    """Return the median over the repetitions; NaN when there is none."""
    found = [s.values[value] for s in samples if (s.pair, s.work, s.side) == (pair, work, side) and value in s.values]
    return statistics.median(found) if found else math.nan


def ratio(samples: collections.abc.Sequence[Sample], target: Target) -> float:
    """Return the side's median divided by the other's; NaN when one is missing or nothing."""
    one, other = (
        median(samples, target.pair, target.work, side, target.value) for side in (target.side, target.against)
    )
    return one / other if other else math.nan


def names(samples: collections.abc.Iterable[Sample], attribute: typing.Literal["pair", "work", "side"]) -> list[str]:
    """Return the different names in the order of their first appearance."""
    return list(dict.fromkeys(str(getattr(s, attribute)) for s in samples))


def number(value: float) -> str:
    """Return a figure with the three digits that it is worth."""
    if math.isnan(value):
        return "-"
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
