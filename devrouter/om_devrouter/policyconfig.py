"""Reads the ``policy`` and ``vhost`` entities into ``policy.Policy``, or says in one sentence why not. Pure.

What is refused is what qpid-dispatch 1.19 refuses (``policy_local.py``, PolicyCompiler), what it takes and then
ignores, and what ``policy`` does not implement.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from om_devrouter import errors, policy
from om_devrouter.reader import Attributes, Reader

#: More fit no AMQP channel number, nor qdrouterd's variable for it.
_MAX_SESSIONS = 65536
_MAX_CONNECTIONS = 65535


def policy_of(policies: Sequence[Attributes], vhosts: Sequence[Attributes]) -> policy.Policy:
    """Read everything about policies.

    :param policies: the attributes of every ``policy`` entity; there may be one
    :raises DevRouterError: for the first thing that is wrong
    """
    if len(policies) > 1:
        raise errors.DevRouterError(f"There must be at most one policy entity; there are {len(policies)}.")
    raw = policies[0] if policies else {}
    reader = Reader("policy", raw)
    found = tuple(_vhost(attributes) for attributes in vhosts)
    for vhost in found:
        if [other.hostname for other in found].count(vhost.hostname) > 1:
            raise errors.DevRouterError(f"The vhost {vhost.hostname!r} is defined twice.")
    return policy.Policy(
        enabled=reader.flag("enableVhostPolicy", False),
        max_connections=reader.number("maxConnections", _MAX_CONNECTIONS, 0),
        # A blank name is one that means something: no default.
        default_vhost="" if raw.get("defaultVhost") == "" else reader.text("defaultVhost", policy.DEFAULT),
        vhosts=found,
    )


def _vhost(raw: Attributes) -> policy.Vhost:
    named = isinstance(raw.get("hostname"), str)
    reader = Reader("vhost", raw, f"vhost {raw['hostname']!r}" if named else None)
    hostname = reader.required("hostname")
    groups = raw.get("groups") or {}
    if not isinstance(groups, dict):
        raise reader.bad("groups", "an object of groups by name")
    found = tuple(_group(f"{reader.label}: group {name!r}", name, group) for name, group in groups.items())
    _refuse_shared_users(reader.label, found)
    unknown = reader.flag("allowUnknownUser", False)
    if unknown and not any(group.name == policy.DEFAULT for group in found):
        raise errors.DevRouterError(f"{reader.label}: allowUnknownUser needs a group {policy.DEFAULT!r}.")
    return policy.Vhost(
        hostname=hostname,
        allow_unknown_user=unknown,
        max_connections=reader.number("maxConnections", _MAX_CONNECTIONS, 0, _MAX_CONNECTIONS),
        max_connections_per_user=reader.number("maxConnectionsPerUser", _MAX_CONNECTIONS, 0, _MAX_CONNECTIONS),
        max_connections_per_host=reader.number("maxConnectionsPerHost", _MAX_CONNECTIONS, 0, _MAX_CONNECTIONS),
        groups=found,
    )


def _refuse_shared_users(label: str, groups: Sequence[policy.Group]) -> None:
    owners: dict[str, str] = {}
    for group in groups:
        for user in group.users:
            if owners.setdefault(user, group.name) != group.name:
                # Groups without users share the user without a name, and qdrouterd refuses those too.
                what = f"user {user!r} is" if user else "no user is"
                raise errors.DevRouterError(f"{label}: {what} in both groups {owners[user]!r} and {group.name!r}.")


def _group(label: str, name: str, raw: object) -> policy.Group:
    if not name:
        raise errors.DevRouterError(f"{label}: a group without a name lets nobody in.")
    if not isinstance(raw, dict):
        raise errors.DevRouterError(f"{label} must be an object.")
    reader = Reader("vhostUserGroupSettings", raw, label)
    per_user, per_host = "maxConnectionsPerUser", "maxConnectionsPerHost"
    return policy.Group(
        name=name,
        users=_items(reader, raw, "users") or ("",),
        hosts=_hosts(reader, raw),
        sources=_access(reader, raw, "sources", "sourcePattern"),
        targets=_access(reader, raw, "targets", "targetPattern"),
        allow_dynamic_source=_switch(reader, raw, "allowDynamicSource"),
        allow_anonymous_sender=_switch(reader, raw, "allowAnonymousSender"),
        allow_user_id_proxy=_switch(reader, raw, "allowUserIdProxy"),
        max_frame_size=reader.number("maxFrameSize", 0, 0),
        max_sessions=reader.number("maxSessions", 0, 0, _MAX_SESSIONS),
        max_senders=reader.number("maxSenders", policy.UNLIMITED, 0),
        max_receivers=reader.number("maxReceivers", policy.UNLIMITED, 0),
        max_connections_per_user=_limit(reader, raw, per_user),
        max_connections_per_host=_limit(reader, raw, per_host),
    )


def _switch(reader: Reader, raw: Attributes, name: str) -> bool:
    # Inside a group qdrouterd takes "true", but reads "True" as false.
    if isinstance(raw.get(name), str):
        raise reader.bad(name, "true or false, without quotation marks")
    return reader.flag(name, False)


def _limit(reader: Reader, raw: Attributes, name: str) -> int | None:
    return None if raw.get(name) is None else reader.number(name, 0, 0, _MAX_CONNECTIONS)


def _items(reader: Reader, raw: Attributes, name: str) -> tuple[str, ...]:
    """The items between commas, without the spaces around them and without repetitions."""
    value = raw.get(name)
    if value is None or value == "":
        return ()
    return tuple(dict.fromkeys(item.strip(" ") for item in str(reader.text(name, "")).split(",")))


def _access(reader: Reader, raw: Attributes, names: str, pattern: str) -> policy.Access:
    if raw.get(names) is not None and raw.get(pattern) is not None:
        raise errors.DevRouterError(f"{reader.label}: only one of {names} and {pattern} is possible.")
    if raw.get(pattern) is None:
        return policy.Names(_checked(reader, names, _items(reader, raw, names)))
    rules = _checked(reader, pattern, _items(reader, raw, pattern))
    for rule in rules:
        if rule == "*":
            # qdrouterd mistakes it for that of sources and targets, and from then on nothing matches.
            raise errors.DevRouterError(f"{reader.label}: {pattern} must not have a lone '*'; '#' means everything.")
        if policy.USER in rule and not (rule.startswith(policy.USER) or rule.endswith(policy.USER)):
            raise errors.DevRouterError(
                f"{reader.label}: {pattern} may have {policy.USER} only where an item begins or ends."
            )
    return policy.patterns(rules)


def _checked(reader: Reader, name: str, rules: tuple[str, ...]) -> tuple[str, ...]:
    if any(rule.count(policy.USER) > 1 for rule in rules):
        raise errors.DevRouterError(f"{reader.label}: {name} may have {policy.USER} once in an item only.")
    return rules


def _hosts(reader: Reader, raw: Attributes) -> tuple[policy.Hosts, ...] | None:
    """Addresses and ranges of them; None for all. One that is blank is an error, as there; none at all is nobody."""
    items = _items(reader, raw, "remoteHosts") if reader.text("remoteHosts", None) else ()
    found = tuple(_range(reader, item) for item in items if item != "*")
    return None if "*" in items else found


def _range(reader: Reader, item: str) -> policy.Hosts:
    try:
        ends = [ipaddress.ip_address(end.strip()) for end in item.split("-")]
    except ValueError:
        ends = []
    if not 1 <= len(ends) <= 2 or ends[0].version != ends[-1].version or int(ends[0]) > int(ends[-1]):
        # Names would have to be resolved, and may mean something else a minute later.
        raise reader.bad("remoteHosts", "'*', or addresses and first-last ranges of them; names are not supported")
    return policy.Hosts(ends[0], ends[-1])
