"""What happens at a signal that ends a program, as long as a context lasts."""

from __future__ import annotations

import contextlib
import signal
import sys
import typing

from om_agent import proc

# By signal: a function, or one of Python's own two words for ignoring it and for what the system does.
Handlers = typing.Mapping[int, typing.Any]
IGNORED: Handlers = dict.fromkeys(proc.ENDING, signal.SIG_IGN)


@contextlib.contextmanager
def handled_by(handlers: Handlers) -> typing.Iterator[Handlers]:
    """Handle signals so; yields what handled them before, and is put back at the end."""
    before = {number: signal.getsignal(number) for number in handlers}
    try:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        yield before
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interrupting() -> typing.Iterator[None]:
    """Raise `KeyboardInterrupt` at a signal that ends a program, unless it is ignored, as nohup wants it."""
    heard = [number for number in proc.ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    hook = sys.unraisablehook
    try:
        with handled_by(dict.fromkeys(heard, _interrupt)):
            yield
    finally:
        sys.unraisablehook = hook


def _interrupt(number: int, frame: object) -> typing.NoReturn:
    # An object that is cut short while it is being made cannot be taken apart either (proton's SSLDomain), and Python
    # would print that with a traceback. `interrupting` puts the hook back.
    sys.unraisablehook = lambda unraisable: None
    raise KeyboardInterrupt
