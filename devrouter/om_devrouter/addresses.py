"""Addresses: how they are named, how they are distributed, who consumes them.

Pure: consumers and producers are whatever the caller puts in, as long as they look like ``Consumer``. Names and rules
are those of qpid-dispatch 1.19 (``src/iterator.c`` for names, ``src/router_core/forwarder.c`` for the choice).
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from om_devrouter import config

BALANCED, CLOSEST, MULTICAST = config.DISTRIBUTIONS
MANAGEMENT = "$management"
#: What the last word of a dynamic address is made of (src/discriminator.c): nothing that separates the tokens of a
#: policy's pattern.
_WORD = string.ascii_letters + string.digits + "+_"


class Consumer(Protocol):
    """What the choice between consumers needs: both figures count deliveries."""

    capacity: int

    @property
    def outstanding(self) -> int:
        """Deliveries queued for it plus those that it holds unsettled."""
        ...  # pragma: no cover


C = TypeVar("C", bound=Consumer)


class Address(Generic[C]):
    """One address in the table: its consumers in order of turn, its producers, its counters (deliveries)."""

    def __init__(self, key: str, distribution: str, in_process: bool = False) -> None:
        self.key = key
        self.distribution = distribution
        self.in_process = in_process
        self.consumers: list[C] = []
        # A dict keeps the order of attachment; producers are granted credit in that order.
        self.producers: dict[object, None] = {}
        self.ingress = self.egress = self.to_container = self.from_container = 0

    @property
    def reachable(self) -> bool:
        """Whether a delivery sent here would find somebody."""
        return self.in_process or bool(self.consumers)

    def choose(self) -> tuple[C, ...]:
        """Who gets the next delivery: everybody, the next in turn, or the least busy. Empty when there is nobody."""
        if self.distribution == MULTICAST or len(self.consumers) < 2:
            return tuple(self.consumers)
        if self.distribution == CLOSEST:
            self.consumers.append(self.consumers.pop(0))
            return (self.consumers[-1],)
        return (self._least_busy(),)

    def _least_busy(self) -> C:
        # A consumer at its capacity is taken only when all are; among equals the earlier one. An idle one ends
        # the search and passes the turn on, so that little load is spread as well.
        best, best_rank = self.consumers[0], (True, 1 << 62)
        for consumer in self.consumers:
            outstanding = consumer.outstanding
            rank = (outstanding >= consumer.capacity, outstanding)
            if rank < best_rank:
                best, best_rank = consumer, rank
            if outstanding == 0:
                break
        if best_rank[1] == 0:
            self.consumers.append(self.consumers.pop(0))
        return best


class AddressTable(Generic[C]):
    """Every address in use, by key; an address lives while somebody is attached to it."""

    def __init__(self, router_id: str, rules: Iterable[config.Address] = (), default: str = BALANCED) -> None:
        self.router_id = router_id
        self._rules = {rule.prefix: rule.distribution for rule in rules}
        self._default = default
        self._table: dict[str, Address[C]] = {}
        for key in ("M0" + MANAGEMENT, "L" + MANAGEMENT):
            self._table[key] = Address(key, CLOSEST, in_process=True)

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Address[C]]:
        return iter(list(self._table.values()))

    def find(self, name: str) -> Address[C] | None:
        """The address that ``name`` means, if it is in use."""
        return self._table.get(self.key(name))

    def obtain(self, name: str) -> Address[C]:
        """The address that ``name`` means, made when it is new."""
        key = self.key(name)
        if key not in self._table:
            # What is local to this router, such as a dynamic reply address, has no configured distribution.
            distribution = self.distribution(key[2:]) if key.startswith("M0") else BALANCED
            self._table[key] = Address(key, distribution)
        return self._table[key]

    def forget_unused(self, address: Address[C]) -> None:
        """Drop an address that nobody is attached to any more."""
        if not (address.in_process or address.consumers or address.producers):
            self._table.pop(address.key, None)

    def dynamic_name(self) -> str:
        """A new name for a dynamic source, of qdrouterd's shape."""
        word = "".join(_WORD[byte & 63] for byte in secrets.token_bytes(15))
        return f"amqp:/_topo/0/{self.router_id}/temp.{word}"

    def distribution(self, name: str) -> str:
        """The distribution of the longest configured prefix that ends where a part of ``name`` ends."""
        prefix = name
        while prefix:
            if prefix in self._rules:
                return self._rules[prefix]
            prefix = prefix.rpartition("/")[0]
        return self._default

    def key(self, name: str) -> str:
        """``name`` as the table knows it: 'M0' and the name, or 'L' and the rest for what is this router's own."""
        if name.startswith("amqp:"):
            name = name[len("amqp:") :]
            if name.startswith("//"):
                name = name[2:].partition("/")[2]
        elif name.startswith("amqps://"):
            name = name[len("amqps://") :].partition("/")[2]
        name = name.lstrip("/")
        for own in (f"_topo/0/{self.router_id}/", "_local/"):
            if name.startswith(own):
                return "L" + name[len(own) :]
        return "M0" + name
