"""Medians and ratios of repeated measurements. Nothing here measures."""

from __future__ import annotations

import collections.abc
import dataclasses
import math
import statistics

# Figures of which the worst repetition counts, not the median.
WORST = ("failed", "refused", "lost", "lost %", "calls lost", "longest outage s", "disturbed until s")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One piece of work, done once by one side.

    :param pair: the set of sides that are compared, for example ``one``, ``three``, ``agent`` or ``scale``.
    :param work: kind and size of the work, for example ``calls/12``.
    :param values: figures by name; the name ends with the unit.
    :param foreign: cores that other programs used, on average.
    :param beside: cores that the idle sides of the pair used, on average.
    """

    pair: str
    work: str
    side: str
    repetition: int
    values: dict[str, float]
    foreign: float
    beside: float = 0.0


def percentile(values: collections.abc.Sequence[float], percent: float) -> float:
    """Return the smallest value that ``percent`` of the values do not exceed, NaN without values."""
    if not values:
        return math.nan
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[max(0, rank - 1)]


def overall(samples: collections.abc.Iterable[Sample], work: str, side: str, value: str) -> float:
    """Return the median of the repetitions, or the largest value for `WORST`. Return NaN without samples."""
    of_side = [sample for sample in samples if (sample.work, sample.side) == (work, side)]
    found = [sample.values[value] for sample in of_side if value in sample.values]
    if not found:
        return math.nan
    return max(found) if value in WORST else statistics.median(found)


def ratio(one: float, other: float) -> float:
    """Return one divided by the other, NaN where the other is 0."""
    return one / other if other else math.nan


def number(value: float) -> str:
    """Return a figure with three significant digits, since the measurement has no more."""
    if math.isnan(value):
        return "-"
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
