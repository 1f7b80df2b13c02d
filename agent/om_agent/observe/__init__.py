"""Looking at the routers and the broker: what `om_agent.verify` judges. Every look is bounded in time."""

from __future__ import annotations

import time
import typing

from om_agent import (
    errors,
    observed,
    verify,
)

PAUSE = 1.0  # seconds between two looks


def wait(
    look: typing.Callable[[], tuple[observed.Seen, tuple[errors.Problem, ...]]], deadline: float
) -> tuple[observed.Seen, tuple[errors.Problem, ...]]:
    """Look until all is well, or nothing is wrong that may go away by itself, or the time is over.

    :param deadline: on the monotonic clock.
    """
    while True:
        seen, found = look()
        if verify.settled(found) or time.monotonic() + PAUSE >= deadline:
            return seen, found
        time.sleep(PAUSE)
