"""A client of a router's ``$management`` node: AMQP Management, working draft 16, as qpid-dispatch answers it."""

from __future__ import annotations

import typing

import proton
import proton.utils

from testbed import errors, sockets

_SECONDS = 5.0
_CREDIT = 10


class Client:
    """One connection; a context manager.

    :param prefix: of the engine's entity types.
    """

    def __init__(self, address: sockets.Address, user: str, password: str, prefix: str) -> None:
        self._prefix = prefix
        self._asked = 0
        self._where = f"the router at {sockets.show(address)}"
        try:
            self._connection = proton.utils.BlockingConnection(
                f"amqp://{sockets.show(address)}",
                timeout=_SECONDS,
                user=user,
                password=password,
                allowed_mechs="PLAIN",
                allow_insecure_mechs=True,
                reconnect=False,
            )
            self._receiver = self._connection.create_receiver(None, dynamic=True, credit=_CREDIT)
            self._sender = self._connection.create_sender("$management")
        except (proton.ProtonException, OSError) as e:
            raise errors.TestbedError(f"Management of {self._where} cannot be reached: {e}.") from None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def query(self, entity: str) -> list[dict[str, typing.Any]]:
        """Return every row of an entity, with all its attributes."""
        self._asked += 1
        # A number would come back from the engine's Python half and be lost in its C half.
        correlation = f"testbed-{self._asked}"
        request = proton.Message(
            body={"attributeNames": []},
            properties={
                "operation": "QUERY",
                "type": "org.amqp.management",
                "name": "self",
                "entityType": self._prefix + entity,
            },
            correlation_id=correlation,
            reply_to=self._receiver.link.remote_source.address,
        )
        try:
            self._sender.send(request)
            reply = self._receiver.receive()
            while reply.correlation_id != correlation:
                reply = self._receiver.receive()
        except proton.ProtonException as e:
            raise errors.TestbedError(f"Management of {self._where} does not answer: {e}.") from None
        status = typing.cast("dict[str, int]", reply.properties)["statusCode"]
        if status != 200:
            raise errors.TestbedError(f"Management of {self._where} answered {status} to a query of {entity}.")
        body = typing.cast("dict[str, list[typing.Any]]", reply.body)
        return [dict(zip(body["attributeNames"], row)) for row in body["results"]]
