"""What the units may do: the figures of doc/security.rst, and what systemd finds."""

from __future__ import annotations

import re

from tests.support import helpers


def documented() -> dict[str, tuple[float, float]]:
    """Return (before, after) by unit, from the table."""
    text = (helpers.ROOT / "doc/security.rst").read_text()
    rows = re.findall(r"^``([a-z@-]+)``\s+([0-9.]+)\s+([0-9.]+)  ", text, re.MULTILINE)
    return {name: (float(before), float(after)) for name, before, after in rows}


def overall(said: str) -> float:
    """Return the figure in what ``systemd-analyze security`` said of one unit."""
    found = re.findall(r"Overall exposure level for \S+: ([0-9.]+) ", said)
    assert len(found) == 1, said
    return float(found[0])
