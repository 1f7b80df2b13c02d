"""What happens when a signal comes that ends a program, for as long as a context lasts."""

from __future__ import annotations

import contextlib
import signal
import sys
import typing

from om_agent import proc

# By signal: a function, or signal.SIG_IGN or signal.SIG_DFL.
Handlers = typing.Mapping[int, typing.Any]
IGNORED: Handlers = dict.fromkeys(proc.ENDING, signal.SIG_IGN)


@contextlib.contextmanager
def handled_by(handlers: Handlers) -> typing.Iterator[Handlers]:
    """Use these handlers; yield the earlier ones, which come back at the end."""
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
    """Raise `KeyboardInterrupt` when a signal comes that ends a program. Signals that nohup ignores stay ignored."""
    not_ignored = [number for number in proc.ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    hook = sys.unraisablehook
    try:
        with handled_by(dict.fromkeys(not_ignored, _interrupt)):
            yield
    finally:
        sys.unraisablehook = hook


def _interrupt(number: int, frame: object) -> typing.NoReturn:
    # An object whose __init__ is interrupted may fail in its __del__ too (proton's SSLDomain), and Python would print
    # a traceback. `interrupting` puts the hook back.
    sys.unraisablehook = lambda unraisable: None
    raise KeyboardInterrupt
