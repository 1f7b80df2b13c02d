"""The output for people: numbered steps with their seconds, tables, sentences. No password and no traceback."""

from __future__ import annotations

import collections.abc
import contextlib
import os
import sys
import textwrap
import time
import typing

WIDTH = 100
_BOLD, _GREEN, _RED, _PLAIN = "\033[1m", "\033[32m", "\033[31m", "\033[0m"
Row = collections.abc.Sequence[str]


class Console:
    """Write to standard output and error.

    :param steps: the number of steps.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._step = 0
        self._begun = time.monotonic()
        self._secrets: frozenset[str] = frozenset()
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    @property
    def seconds(self) -> float:
        """The seconds since the beginning."""
        return time.monotonic() - self._begun

    def hide(self, secrets: collections.abc.Iterable[str]) -> None:
        """Print *** instead of these texts from now on."""
        self._secrets |= frozenset(secrets)

    @contextlib.contextmanager
    def step(self, title: str) -> collections.abc.Iterator[None]:
        """Announce a step. When it succeeds, print how long it took."""
        self._step += 1
        begun = time.monotonic()
        self.line(f"{_BOLD}[{self._step}/{self._steps}] {title}{_PLAIN}")
        yield
        self.line(f"      {_GREEN}done{_PLAIN} in {time.monotonic() - begun:.1f} s")

    def note(self, text: str) -> None:
        """Print a note below a step."""
        for line in _wrapped(self._masked(text), " " * 6):
            self.line(line)

    def table(self, head: Row, rows: collections.abc.Sequence[Row]) -> None:
        """Print a table. The first two columns are aligned left. The others hold numbers and are aligned right."""
        widths = [max(map(len, column)) for column in zip(head, *rows)]
        title = _aligned(head, widths)
        self.line(f"      {_BOLD}{title}{_PLAIN}")
        for row in rows:
            self.line(f"      {_aligned(row, widths)}")

    def line(self, text: str) -> None:
        """Print one line."""
        self._print(text, sys.stdout, self._colour)

    def fail(self, sentence: str, detail: str = "") -> None:
        """Print an error to standard error."""
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        for line in _wrapped(self._masked(f"demo: {sentence}"), ""):
            self._print(f"{_RED}{line}{_PLAIN}", sys.stderr, colour)
        for detail_line in self._masked(detail).splitlines():
            for line in _wrapped(detail_line, "  | "):
                self._print(line, sys.stderr, colour)

    def _masked(self, text: str) -> str:
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def _print(self, text: str, stream: typing.TextIO, colour: bool) -> None:
        text = self._masked(text)
        if not colour:
            for code in (_BOLD, _GREEN, _RED, _PLAIN):
                text = text.replace(code, "")
        print(text, file=stream, flush=True)


def _aligned(row: Row, widths: collections.abc.Iterable[int]) -> str:
    cells = []
    for column, (cell, width) in enumerate(zip(row, widths)):
        cells.append(cell.ljust(width) if column < 2 else cell.rjust(width))
    return "  ".join(cells).rstrip()


def _wrapped(text: str, indent: str) -> list[str]:
    # Do not break paths and options, because people copy them.
    wrapper = textwrap.TextWrapper(
        WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return wrapper.wrap(text) or [indent]
