"""Compute the address of a target. All drivers of a cloud must compute the same one. Pure.

Routable addresses are ``prefix/delivery[/virtual host]/exchange/topic[/server]``. Legacy addresses are
``prefix[.virtual host].exchange.topic[.server or all]``, the same for RPC and notifications. They are for qpid-cpp and
for peers that do not announce a product name.
"""

from __future__ import annotations

import typing

RPC, NOTIFY = "rpc", "notify"
_LEGACY_PRODUCTS = ("", "qpid-cpp")


class Target(typing.Protocol):
    """The attributes of oslo_messaging.Target that this module reads."""

    exchange: str | None
    topic: str | None
    server: str | None
    fanout: bool | None


class Addressing(typing.NamedTuple):
    """The options from which addresses are computed.

    :param mode: ``dynamic``, ``routable`` or ``legacy``.
    :param default_exchange: the service's control_exchange, or ''.
    :param virtual_host: the virtual host if it is part of the addresses, otherwise ''.
    """

    mode: str = "dynamic"
    default_exchange: str = ""
    rpc_exchange: str = ""
    notify_exchange: str = ""
    virtual_host: str = ""
    rpc_prefix: str = "openstack.org/om/rpc"
    notify_prefix: str = "openstack.org/om/notify"
    multicast: str = "multicast"
    unicast: str = "unicast"
    anycast: str = "anycast"
    server_prefix: str = "exclusive"
    broadcast_prefix: str = "broadcast"
    group_prefix: str = "unicast"

    def legacy(self, product: str) -> bool:
        """Return whether a peer with this product name gets legacy addresses."""
        return self.mode == "legacy" or (self.mode == "dynamic" and product in _LEGACY_PRODUCTS)

    def resolve(self, target: Target, half: str, legacy: bool) -> str:
        """Return the address for a message to ``target``."""
        if target.fanout:
            return self.multicast_address(target, half, legacy)
        if target.server:
            return self.unicast_address(target, half, legacy)
        return self.anycast_address(target, half, legacy)

    def multicast_address(self, target: Target, half: str, legacy: bool) -> str:
        """Return the address of every server of a topic."""
        if legacy:
            return self._legacy(self.broadcast_prefix, target, "all")
        return self._routable(self.multicast, target, half, "")

    def unicast_address(self, target: Target, half: str, legacy: bool) -> str:
        """Return the address of one server."""
        server = target.server or ""
        if legacy:
            return self._legacy(self.server_prefix, target, server)
        return self._routable(self.unicast, target, half, server)

    def anycast_address(self, target: Target, half: str, legacy: bool) -> str:
        """Return the address of any server of a topic."""
        if legacy:
            return self._legacy(self.group_prefix, target, "")
        return self._routable(self.anycast, target, half, "")

    def _routable(self, delivery: str, target: Target, half: str, server: str) -> str:
        prefix = self.rpc_prefix if half == RPC else self.notify_prefix
        default_of_half = self.rpc_exchange if half == RPC else self.notify_exchange
        exchange = target.exchange or default_of_half or self.default_exchange or "openstack"
        return _joined("/", prefix, delivery, self.virtual_host, exchange, target.topic, server)

    def _legacy(self, prefix: str, target: Target, last: str) -> str:
        return _joined(".", prefix, self.virtual_host, target.exchange or self.default_exchange, target.topic, last)


def _joined(separator: str, *parts: str | None) -> str:
    return separator.join(part for part in parts if part)
