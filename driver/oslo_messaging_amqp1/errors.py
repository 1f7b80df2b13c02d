"""The exceptions of the modules below `driver`.

AmqpError
  +- DecodeError        the peer sent bytes that are not AMQP 1.0, or that exceed a limit
  +- ConnectionLost     the socket was closed, or the peer closed the connection
       +- Redirected       the peer closed the connection and names another host
       +- HandshakeError   the connection could not be set up: TCP, TLS, SASL or the protocol version
"""

from __future__ import annotations


class AmqpError(Exception):
    """The base class. ``str()`` gives a clear sentence without a password."""


class DecodeError(AmqpError):
    """The peer sent bytes that AMQP 1.0 does not allow, or more than this side accepts."""


class ConnectionLost(AmqpError):
    """The connection ended. ``condition`` is the peer's AMQP error condition, '' when it gave none."""

    def __init__(self, message: str, condition: str = "") -> None:
        super().__init__(message)
        self.condition = condition


class Redirected(ConnectionLost):
    """The peer closed the connection and names another host (``amqp:connection:redirect``)."""

    def __init__(self, message: str, host: str, port: int) -> None:
        super().__init__(message, "amqp:connection:redirect")
        self.host = host
        self.port = port


class HandshakeError(ConnectionLost):
    """The connection could not be set up: TCP, TLS, SASL or the protocol version."""
