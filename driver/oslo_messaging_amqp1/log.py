"""Log from code that must not wait."""

from __future__ import annotations

import contextlib
import logging
import threading
import typing


def later(logger: logging.Logger, level: int, message: str, *arguments: object, **keywords: typing.Any) -> None:
    """Log in a separate thread.

    A logging handler may send the record over the same connection, as oslo.messaging's LoggingNotificationHandler does.
    It would then wait for the engine's thread and its lock.

    :param level: a level of the logging module.
    """
    if not logger.isEnabledFor(level):
        return
    with contextlib.suppress(RuntimeError):  # no thread can start while the interpreter shuts down
        threading.Thread(
            target=logger.log, args=(level, message, *arguments), kwargs=keywords, name="amqp1-log", daemon=True
        ).start()
