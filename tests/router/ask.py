"""Print as JSON which others a router reaches: ``ask.py HOST PORT PREFIX USER CA`` with the password on standard input.

A program of its own, since the names in the certificates resolve in the test's mount namespace only.
"""

from __future__ import annotations

import json
import sys
import typing

import proton
import proton.utils


def main(host: str, port: str, prefix: str, user: str, ca: str) -> None:
    """Print the ids of the routers with a link or a next hop; see the module."""
    domain = None
    if ca:
        domain = proton.SSLDomain(proton.SSLDomain.MODE_CLIENT)
        domain.set_trusted_ca_db(ca)
        domain.set_peer_authentication(proton.SSLDomain.VERIFY_PEER_NAME)
    connection = proton.utils.BlockingConnection(
        f"{'amqps' if ca else 'amqp'}://{host}:{port}",
        timeout=5,
        ssl_domain=domain,
        user=user,
        password=sys.stdin.read(),
        allowed_mechs="PLAIN",
        allow_insecure_mechs=not ca,
        reconnect=False,
    )
    receiver = connection.create_receiver(None, dynamic=True, credit=5)
    sender = connection.create_sender("$management")
    properties = {
        "operation": "QUERY",
        "type": "org.amqp.management",
        "name": "self",
        "entityType": prefix + "router.node",
    }
    sender.send(
        proton.Message(
            body={"attributeNames": []},
            properties=properties,
            correlation_id="1",
            reply_to=receiver.link.remote_source.address,
        )
    )
    body: typing.Any = receiver.receive().body
    rows = [dict(zip(body["attributeNames"], row)) for row in body["results"]]
    reached = [r["id"] for r in rows if r.get("routerLink") is not None or r.get("nextHop") is not None]
    print(json.dumps(sorted(reached)))
    connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
