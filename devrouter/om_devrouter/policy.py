"""Who may do what: the rules of qpid-dispatch 1.19's vhost policies, as frozen data and decisions on it. Pure.

The rules are those of ``src/policy.c`` (links, messages and sessions), of ``src/parse_tree.c`` (patterns) and of
``python/qpid_dispatch_internal/policy/policy_local.py`` (vhosts, groups and users). ``admission`` keeps the counts.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple, Union

#: Stands for the connection's user in names and patterns (policy.c, user_subst_key).
USER = "${user}"
#: The group of users whom no group names, and the vhost of connections whose own vhost nobody defines.
DEFAULT = "$default"
#: What separates the tokens of a pattern, and of an address that is compared with it (parse_tree.c).
SEPARATORS = "./"
#: Default of maxSenders and maxReceivers (policy_local.py, compile_app_settings).
UNLIMITED = 2**31 - 1

RESOURCE_LIMIT, UNAUTHORIZED = "amqp:resource-limit-exceeded", "amqp:unauthorized-access"
_CONNECTION, _SESSION, _LINK = (f"{what} disallowed by local policy" for what in ("connection", "session", "link"))

_Host = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


class Denial(NamedTuple):
    """A refusal: condition and description for the peer, ``what`` was refused and why for the log."""

    condition: str
    description: str
    what: str


@dataclasses.dataclass(frozen=True)
class Names:
    """``sources`` or ``targets``: whole names, or the beginnings of names before a last ``*``."""

    rules: tuple[str, ...] = ()

    def allow(self, user: str, name: str) -> bool:
        """Whether one of them is this name (policy.c, _qd_policy_approve_link_name)."""
        return bool(name) and any(_is_name(rule.replace(USER, user, 1), name) for rule in self.rules)


def _is_name(rule: str, name: str) -> bool:
    # The star is looked for after the user was put in, as there: that of a user 'x*' counts too.
    return name.startswith(rule[:-1]) if rule.endswith("*") else name == rule


@dataclasses.dataclass(frozen=True)
class Patterns:
    """``sourcePattern`` or ``targetPattern``, split into tokens; a user stands at the beginning or the end only."""

    rules: tuple[tuple[str, ...], ...]
    plain: bool
    user_first: bool
    user_last: bool

    def allow(self, user: str, name: str) -> bool:
        """Whether one of them matches this name (policy.c, _qd_policy_approve_link_name_tree).

        It is the name in which the user is replaced by the token, not the pattern the other way round: so neither the
        dots in a user's name nor its stars mean anything. Each form of the name is tried with every pattern.
        """
        if not name:
            return False
        size, rest = len(user), len(name) - len(user)
        forms = []
        if self.plain:
            forms.append(name)
        if self.user_first and name.startswith(user) and (rest == 0 or name[size] in SEPARATORS):
            forms.append(USER + name[size:])
        if self.user_last and rest > 0 and name.endswith(user) and name[rest - 1] in SEPARATORS:
            forms.append(name[:rest] + USER)
        return any(matches(rule, tokens(form)) for form in forms for rule in self.rules)


Access = Union[Names, Patterns]


def patterns(rules: Iterable[str]) -> Patterns:
    """Compile patterns.

    :param rules: as written, each with at most one user, at its beginning or end
    """
    rules = tuple(rules)
    first = any(rule.startswith(USER) for rule in rules)
    last = any(rule.endswith(USER) and rule != USER for rule in rules)
    # A pattern without tokens is not taken into qdrouterd's tree and matches nothing, not even itself.
    split = tuple(found for found in map(tokens, rules) if found)
    return Patterns(split, any(USER not in rule for rule in rules), first, last)


def tokens(text: str) -> tuple[str, ...]:
    """The tokens of a pattern or a name (parse_tree.c, token_iterator_init and token_iterator_next).

    Separators at the beginning do not count, nor does one at the end; between two of them is an empty token.
    """
    found = re.split("[./]", text.lstrip(SEPARATORS))
    return tuple(found if found[-1] else found[:-1])


def matches(rule: tuple[str, ...], name: tuple[str, ...]) -> bool:
    """Whether a pattern matches a name: ``*`` is any one token, ``#`` any number (parse_tree.c, parse_node_find).

    All ways to read the pattern are followed at once, so that no name, however it is made, takes more than the
    product of both lengths.
    """
    ways = _skip_any(rule, {0})
    for token in name:
        went = {way for way in ways if way < len(rule) and rule[way] == "#"}
        # A wildcard in the name is a token like any other.
        went |= {way + 1 for way in ways if way < len(rule) and rule[way] != "#" and rule[way] in (token, "*")}
        ways = _skip_any(rule, went)
        if not ways:
            return False
    return len(rule) in ways


def _skip_any(rule: tuple[str, ...], ways: set[int]) -> set[int]:
    found = set(ways)
    for way in ways:
        while way < len(rule) and rule[way] == "#":
            way += 1
            found.add(way)
    return found


@dataclasses.dataclass(frozen=True)
class Hosts:
    """Addresses from ``first`` to ``last`` of one family (policy_util.py, HostAddr)."""

    first: _Host
    last: _Host

    def holds(self, host: _Host) -> bool:
        """Whether this address lies in it."""
        return self.first.version == host.version and int(self.first) <= int(host) <= int(self.last)


@dataclasses.dataclass(frozen=True)
class Group:
    """One of a vhost's user groups. ``hosts`` None means all; a limit of 0 is none at all, here as in policy.c."""

    name: str
    users: tuple[str, ...] = ("",)
    hosts: tuple[Hosts, ...] | None = ()
    sources: Access = Names()
    targets: Access = Names()
    allow_dynamic_source: bool = False
    allow_anonymous_sender: bool = False
    allow_user_id_proxy: bool = False
    max_frame_size: int = 0
    max_sessions: int = 0
    max_senders: int = UNLIMITED
    max_receivers: int = UNLIMITED
    max_connections_per_user: int | None = None
    max_connections_per_host: int | None = None

    def takes(self, host: str) -> bool:
        """Whether its users may connect from this numeric address."""
        if self.hosts is None:
            return True
        try:
            found = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        return any(hosts.holds(found) for hosts in self.hosts)


@dataclasses.dataclass(frozen=True)
class Vhost:
    """One ``vhost``."""

    hostname: str
    allow_unknown_user: bool = False
    max_connections: int = 65535
    max_connections_per_user: int = 65535
    max_connections_per_host: int = 65535
    groups: tuple[Group, ...] = ()

    def group(self, user: str | None) -> Group | None:
        """The group of a user: that which names it, that of ``*``, or the default one (policy_local.py, lookup_user).

        :param user: None when the peer did not log in at all
        """
        by_user = {name: group for group in self.groups for name in group.users}
        found = by_user.get(user) if user is not None else None
        if found is None:
            found = by_user.get("*")
        if found is None and self.allow_unknown_user:
            found = next((group for group in self.groups if group.name == DEFAULT), None)
        return found


@dataclasses.dataclass(frozen=True)
class Policy:
    """The ``policy`` and every ``vhost``. Only ``max_connections`` counts while it is not ``enabled``."""

    enabled: bool = False
    max_connections: int = 65535
    default_vhost: str = DEFAULT
    vhosts: tuple[Vhost, ...] = ()

    def vhost(self, name: str) -> Vhost | None:
        """The vhost of that name, or the default one (policy_local.py, lookup_vhost_alias)."""
        by_name = {vhost.hostname: vhost for vhost in self.vhosts}
        return by_name.get(name) or by_name.get(self.default_vhost)


@dataclasses.dataclass(frozen=True)
class Permit:
    """What a connection that was let in may do. Its limits count what the connection already has."""

    vhost: str
    group: Group
    user: str | None
    host: str

    def session(self, count: int) -> Denial | None:
        """One session more (policy.c, qd_policy_approve_amqp_session)."""
        if self.group.max_sessions and count >= self.group.max_sessions:
            return Denial(RESOURCE_LIMIT, _SESSION, "session: maxSessions reached")
        return None

    def sender(self, target: str | None, count: int) -> Denial | None:
        """A link on which the peer sends (policy.c, qd_policy_approve_amqp_sender_link)."""
        if self.group.max_senders and count >= self.group.max_senders:
            return Denial(RESOURCE_LIMIT, _LINK, "sender: maxSenders reached")
        if not target:
            return None if self.group.allow_anonymous_sender else _unauthorized("anonymous sender")
        return None if self._may(self.group.targets, target) else _unauthorized(f"sender to {shown(target)}")

    def receiver(self, source: str | None, dynamic: bool, count: int) -> Denial | None:
        """A link on which the peer receives (policy.c, qd_policy_approve_amqp_receiver_link)."""
        if self.group.max_receivers and count >= self.group.max_receivers:
            return Denial(RESOURCE_LIMIT, _LINK, "receiver: maxReceivers reached")
        if dynamic:
            return None if self.group.allow_dynamic_source else _unauthorized("receiver with a dynamic source")
        if source and self._may(self.group.sources, source):
            return None
        return _unauthorized(f"receiver from {shown(source)}")

    def message(self, to: str) -> Denial | None:
        """A message on a link without a target (policy.c, qd_policy_approve_message_target)."""
        if self._may(self.group.targets, to):
            return None
        return Denial(UNAUTHORIZED, "policy violation on target", f"message to {shown(to)}")

    def user_id(self, user_id: bytes | None) -> Denial | None:
        """The user id in a message (router_node.c, AMQP_rx_handler)."""
        if self.group.allow_user_id_proxy or not user_id or user_id == (self.user or "").encode():
            return None
        return Denial(UNAUTHORIZED, "user_id proxy violation", "message with the user id of somebody else")

    def _may(self, access: Access, name: str) -> bool:
        return access.allow(self.user or "", name)


def refused_connection(what: str) -> Denial:
    """A connection that is not let in (policy.c, qd_policy_amqp_open)."""
    return Denial(RESOURCE_LIMIT, _CONNECTION, what)


def _unauthorized(what: str) -> Denial:
    return Denial(UNAUTHORIZED, _LINK, what)


def shown(name: str | None) -> str:
    """A name from the wire, fit for one line of a log: quoted, without control characters, and not endless."""
    return ascii(name if name is None or len(name) <= 200 else name[:200] + "...")
