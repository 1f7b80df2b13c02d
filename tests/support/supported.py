"""The table of the README that says what is supported."""

from __future__ import annotations

import dataclasses
import re

from tests.support import helpers

# The column of each release, and the release's name in packages and images.
RELEASES = {"bookworm": "Debian 12", "trixie": "Debian 13"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One row: what is in it for each release, and the tests that prove it."""

    name: str
    cells: dict[str, str]
    proof: str


def table() -> tuple[Row, ...]:
    """Return the rows of the table."""
    lines = (helpers.ROOT / "README.rst").read_text().splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("Supported  "))
    columns = [match.span() for match in re.finditer("=+", lines[head - 1])]
    rows: list[list[str]] = []
    for line in lines[head:]:
        if line == lines[head - 1]:
            if len(rows) > 1:
                break
            continue
        # The last column may be longer than its rule.
        cells = [line[start:end].strip() for start, end in columns[:-1]] + [line[columns[-1][0] :].strip()]
        if cells[0]:
            rows.append(cells)
        else:
            rows[-1] = [f"{old} {new}".strip() for old, new in zip(rows[-1], cells)]
    titles = rows[0]
    assert titles == ["Supported", *RELEASES.values(), "Proven by"]
    return tuple(Row(cells[0], dict(zip(RELEASES, cells[1:-1])), cells[-1]) for cells in rows[1:])
