"""Waiting in tests until something is so."""

from __future__ import annotations

import collections.abc
import time

import pytest


def until(
    check: collections.abc.Callable[[], object],
    seconds: float = 20.0,
    why: collections.abc.Callable[[], str] = lambda: "it did not happen in time",
    interval: float = 0.02,
) -> None:
    """Wait until ``check`` returns something true; fail the test with the sentence of ``why`` when time is over."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            pytest.fail(why())
        time.sleep(interval)
