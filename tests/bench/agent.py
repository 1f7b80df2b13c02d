"""Stub."""

from __future__ import annotations

import typing

from tests.bench import run


def measure(context: run.Context) -> dict[str, typing.Any]:
    """Measure."""
    return {}
