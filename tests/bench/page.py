"""The page of a run: JSON, tables and plots."""

from __future__ import annotations

import json
import pathlib
import typing


def write(found: dict[str, typing.Any], directory: pathlib.Path) -> None:
    """Write it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "performance.json").write_text(json.dumps(found, indent=1) + "\n")
