"""What repetitions amount to: medians and ratios. Nothing here measures."""

from __future__ import annotations

import collections.abc
import dataclasses
import math
import statistics

# Figures of which one bad repetition counts, whatever the others say.
WORST = ("failed", "refused", "lost", "lost %", "calls lost", "longest outage s", "disturbed until s")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One piece of work, done once by one side.

    :param pair: which sides are compared: ``one``, ``three``, ``agent`` or ``scale``.
    :param work: what was done, ``calls/12`` for instance: a kind, and how much of it.
    :param values: figures by name; the name ends with the unit.
    :param foreign: cores that were busy with nothing of this benchmark, on average.
    :param beside: cores that the other sides of the pair used, though they had nothing to do.
    """

    pair: str
    work: str
    side: str
    repetition: int
    values: dict[str, float]
    foreign: float
    beside: float = 0.0


def percentile(values: collections.abc.Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent of ``values`` are not above; NaN of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else math.nan


def overall(samples: collections.abc.Iterable[Sample], work: str, side: str, value: str) -> float:
    """Return the median over the repetitions, or the worst of what should not be at all; NaN when there is none."""
    found = [s.values[value] for s in samples if (s.work, s.side) == (work, side) and value in s.values]
    return (max if value in WORST else statistics.median)(found) if found else math.nan


def ratio(one: float, other: float) -> float:
    """Return one divided by the other; NaN where the other is nothing."""
    return one / other if other else math.nan


def number(value: float) -> str:
    """Return a figure with the three digits that it is worth."""
    if math.isnan(value):
        return "-"
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
