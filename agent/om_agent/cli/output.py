"""What a command prints, and the exit code that a verdict gives."""

from __future__ import annotations

import json
import os
import sys
import typing

from om_agent import errors, kinds, report


def say(text: str, where: str = "stdout") -> None:
    """Print ``text``; that nobody can hear it changes nothing about what was done and how it is told."""
    stream: typing.TextIO | None = getattr(sys, where)
    if stream is None:
        return
    if where == "stderr":  # where a sentence may repeat what another program said; pictures have a format of their own
        text = report.printable(text)
    try:
        stream.write(text + "\n")
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python flushes once more at its end


def note(text: str) -> None:
    """Print ``text`` beside a command's own output."""
    say(text, "stderr")


def say_json(value: object) -> None:
    """Print a value for programs."""
    say(json.dumps(value, indent=2))


def note_findings(findings: typing.Sequence[errors.Problem]) -> None:
    """Print findings beside a command's own output."""
    if findings:
        note(report.problems_text(findings))


def exit_code(found: typing.Iterable[errors.Problem]) -> int:
    """Return 0 when messaging works, 3 when it is degraded or broken."""
    return errors.EXIT_OK if kinds.verdict(found) == kinds.WORKS else errors.EXIT_UNHEALTHY
