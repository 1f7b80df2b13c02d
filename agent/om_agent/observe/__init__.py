"""Look at the routers and the broker, for `om_agent.verify` to judge. Every look has a time limit."""

from __future__ import annotations

import time
import typing

from om_agent import errors, observed, verify

PAUSE = 1.0  # seconds between two looks


def wait(
    look: typing.Callable[[], tuple[observed.Seen, tuple[errors.Problem, ...]]], deadline: float
) -> tuple[observed.Seen, tuple[errors.Problem, ...]]:
    """Look again and again until it is useless to wait (`om_agent.verify.settled`), or until the time is over.

    :param deadline: when the time is over, on the monotonic clock.
    """
    while True:
        seen, found = look()
        if verify.settled(found) or time.monotonic() + PAUSE >= deadline:
            return seen, found
        time.sleep(PAUSE)
