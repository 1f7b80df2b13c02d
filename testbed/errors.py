"""What can go wrong, in sentences for people.

TestbedError           something is not as it should be; ``str()`` says what and what to do
Stopped                SIGINT, SIGTERM or SIGHUP: not an Exception, so that nothing but the outermost code takes it
"""

from __future__ import annotations

import signal


class TestbedError(Exception):
    """Something is not as it should be.

    :param message: one sentence.
    :param detail: what a program said, for below the sentence.
    """

    __test__ = False  # pytest takes every class called Test* for tests

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class Stopped(BaseException):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)

    @property
    def exit_code(self) -> int:
        """What a shell would say of a program that this signal ended."""
        return 128 + self.signal
