"""What a command prints, and the exit code that a verdict gives."""

from __future__ import annotations

import errno
import json
import os
import sys
import typing

from om_agent import errors, kinds, report


class OutputLost(errors.AgentError):
    """What a command was to print could not be written."""


def say(text: str, where: str = "stdout", needed: bool = False) -> None:
    """Print ``text``.

    :param needed: the text is all that the command is for. Otherwise a failure to print changes nothing about what was
        done and how it is told.
    :raises OutputLost: when a needed text could not be written. A reader that wants no more of it, as head(1), is none.
    """
    stream: typing.TextIO | None = getattr(sys, where)
    if stream is None:
        return
    if where == "stderr":  # where a sentence may repeat what another program said; pictures have a format of their own
        text = report.printable(text)
    try:
        stream.write(text + "\n")
        stream.flush()
    except OSError as e:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python flushes once more at its end
        if needed and e.errno != errno.EPIPE:
            reason = (e.strerror or "no reason given").lower()
            raise OutputLost(
                f"The output could not be written ({reason}). Write it elsewhere, or free space."
            ) from None


def note(text: str) -> None:
    """Print ``text`` beside a command's own output."""
    say(text, "stderr")


def say_json(value: object, needed: bool = False) -> None:
    """Print a value for programs; see `say`."""
    say(json.dumps(value, indent=2), needed=needed)


def note_findings(findings: typing.Sequence[errors.Problem]) -> None:
    """Print findings beside a command's own output."""
    if findings:
        note(report.problems_text(findings))


def exit_code(found: typing.Iterable[errors.Problem]) -> int:
    """Return 0 when messaging works, 3 when it is degraded or broken."""
    return errors.EXIT_OK if kinds.verdict(found) == kinds.WORKS else errors.EXIT_UNHEALTHY
