"""What a command prints, and the exit code for its findings."""

from __future__ import annotations

import errno
import json
import os
import sys
import typing

from om_agent import errors, kinds, report


class OutputLost(errors.AgentError):
    """The agent could not write the output of a command."""


def say(text: str, where: str = "stdout", needed: bool = False) -> None:
    """Print ``text``.

    :param needed: whether the command exists only to print this text. Otherwise a failure to print changes neither what
        the command did nor its exit code.
    :raises OutputLost: when the agent could not write a needed text. A reader that closes the pipe early, like head(1),
        is no error.
    """
    stream: typing.TextIO | None = getattr(sys, where)
    if stream is None:
        return
    if where == "stderr":  # its sentences may repeat text of other programs; standard output may be an SVG picture
        text = report.printable(text)
    try:
        stream.write(text + "\n")
        stream.flush()
    except OSError as e:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())  # Python flushes the stream once more when it exits
        if needed and e.errno != errno.EPIPE:
            reason = (e.strerror or "no reason given").lower()
            raise OutputLost(
                f"The output could not be written ({reason}). Write it elsewhere, or free space."
            ) from None


def note(text: str) -> None:
    """Print ``text`` to standard error."""
    say(text, "stderr")


def say_json(value: object, needed: bool = False) -> None:
    """Print ``value`` as JSON; see `say`."""
    text = json.dumps(value, indent=2)
    say(text, needed=needed)


def note_findings(findings: typing.Sequence[errors.Problem]) -> None:
    """Print findings to standard error."""
    if findings:
        note(report.problems_text(findings))


def exit_code(findings: typing.Iterable[errors.Problem]) -> int:
    """Return 0 when messaging works, 3 when it is degraded or broken."""
    return errors.EXIT_OK if kinds.verdict(findings) == kinds.WORKS else errors.EXIT_UNHEALTHY
