"""What a link needs of its surroundings: its connection and the router.

The two kinds of links are ``inlink.InLink``, which takes from a producer, and ``outlink.OutLink``, which gives to a
consumer. All calls come from the one thread that runs the engine.
"""

from __future__ import annotations

from typing import Protocol

from om_devrouter import addresses, admission, deliveries, policy


class Peer(Protocol):
    """The connection of a link, as far as links need it."""

    number: int
    permit: policy.Permit | None
    stalled: dict[deliveries.ConsumerLink, None]

    def touch(self) -> None:
        """Have the connection's output written in this turn of the loop."""
        ...  # pragma: no cover


class Core(Protocol):
    """The router, as far as links need it."""

    admission: admission.Admission
    counters: deliveries.Counters
    resumable: dict[deliveries.ProducerLink, None]

    def route(self, inbound: deliveries.Inbound, address: addresses.Address[deliveries.ConsumerLink] | None) -> None:
        """Choose consumers for a delivery and queue it with them, or dispose of it."""
        ...  # pragma: no cover

    def resolve(self, name: str) -> addresses.Address[deliveries.ConsumerLink] | None:
        """The address of that name, if it is in use."""
        ...  # pragma: no cover

    def handle(self, data: deliveries.Chunk) -> deliveries.Outcome:
        """Carry out a management request and say what becomes of it."""
        ...  # pragma: no cover
