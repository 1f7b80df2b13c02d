"""Log from where nobody may wait."""

from __future__ import annotations

import contextlib
import logging
import threading
import typing


def later(logger: logging.Logger, level: int, message: str, *arguments: object, **keywords: typing.Any) -> None:
    """Log in a thread of its own.

    A handler may send what is logged over the same connection, as oslo.messaging's LoggingNotificationHandler does, and
    then waits for the engine's thread and its lock.

    :param level: of the logging module.
    """
    if not logger.isEnabledFor(level):
        return
    with contextlib.suppress(RuntimeError):  # at the interpreter's end there are no new threads
        threading.Thread(
            target=logger.log, args=(level, message, *arguments), kwargs=keywords, name="amqp1-log", daemon=True
        ).start()
