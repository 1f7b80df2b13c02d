"""Ask systemd to start or restart units, and never wait for it."""

from __future__ import annotations

import contextlib
import pathlib
import typing

from om_agent import errors, proc
from om_agent.apply import saved_state

_RESTART_TIMEOUT = 30.0  # seconds for systemctl to queue a start or restart


def bring_back(root: pathlib.Path, units: typing.Iterable[str]) -> None:
    """Restart units that run, so that they read the files that were put back; start ours that were stopped."""
    queue("try-restart", units)
    queue("start", saved_state.load_state(root).units)


def queue(verb: str, units: typing.Iterable[str]) -> None:
    """Ask systemd for something. Do not wait for it, since a unit may itself be waiting for this run."""
    systemctl = proc.find("systemctl")
    names = list(dict.fromkeys(units))
    if systemctl and names:
        with contextlib.suppress(errors.ProcessFailed):  # what failed before is what has to be reported
            proc.run([systemctl, verb, "--no-block", *names], _RESTART_TIMEOUT)
