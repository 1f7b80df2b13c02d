"""Plan the AMQP policies, which say what each user may do at a router. Pure.

Both engines enforce a policy at the listener where a client connects. A service may use the addresses of its own half,
and the dynamic addresses at which callers wait for replies. It may not use ``$management``, neither of this router nor,
over the mesh, of another one. Only the agent's own user may.

Routers authenticate each other with certificates of the mesh (`om_agent.plan.router`). The engines apply no policy
between interior routers (qd_policy_amqp_open in src/policy.c of both), and the policy for edge routers allows
everything.
"""

from __future__ import annotations

import typing

from om_agent import model

ROUTERS = "edge"  # the vhost of listeners for edge routers
REALM = "overcloud"  # SASL realm of every user
PREFIX = "openstack.org/om"

# Addresses for replies, as the engines name the dynamic addresses of interior and of edge routers. "/" and "." separate
# words, "*" matches one word, "#" any number of words (a router's id may contain dots). No other address that contains
# a router's name, such as "$management", ends in "temp" and one more word (`om_agent.rules` refuses a router whose own
# name ends like that).
_ANSWERS = ("amqp:/_topo/*/#/temp/*", "amqp:/_edge/#/temp/*")

_ALL: dict[str, typing.Any] = {
    "remoteHosts": "*",
    "allowDynamicSource": True,
    "allowAnonymousSender": True,
    "sources": "*",
    "targets": "*",
}

# The limit of sessions in one connection. An engine cannot have more: proton numbers channels from 0 to 32767
# (PN_IMPL_CHANNEL_MAX), in routers and in services.
#
# The driver's library (pyngus) opens one session for every link. It keeps the link to a peer for 10 to 20 minutes after
# the last message (default_sender_link_timeout). So a process has as many sessions as it had peers in that time: one
# for each caller that it answered, and one for each server that it called. With 10,000 computes of three agents each, a
# neutron-server answers up to 30,000 callers. At the limit the client's own proton gives up the whole connection: it
# cannot send on any link from then on. A lower limit would protect nothing, since one session may hold any number of
# links, and a user may open any number of connections (doc/limits.rst).
SESSIONS = 32768

Vhost = tuple[str, dict[str, typing.Any]]


def entities(
    d: model.Deployment, listeners: typing.Mapping[str, typing.Sequence[model.Backend]], edges: bool
) -> list[Vhost]:
    """Return the ``policy`` entity and its ``vhost`` entities.

    :param listeners: by name of a listener for clients, the backends that use it; its vhost has the same name.
    :param edges: whether edge routers connect to this router.
    """
    found: list[Vhost] = [("policy", {"enableVhostPolicy": True, "maxConnections": d.router.max_connections})]
    for name, backends in listeners.items():
        logins = {b.username: login(b) for b in backends}
        groups = {"operator": {"users": with_realm(model.ADMIN_USER), **_ALL}}
        for own, users in _users_by_halves(backends).items():
            name_of_group = "-".join(b.half for b in own)
            own_logins = [logins.get(user, with_realm(user)) for user in users]
            groups[name_of_group] = _service_group(own_logins, own)
        found.append(("vhost", {"hostname": name, "allowUnknownUser": False, "groups": groups}))
    if edges:
        found.append(("vhost", {"hostname": ROUTERS, "allowUnknownUser": True, "groups": {"$default": _ALL}}))
    return found


def _has_user(backend: model.Backend, user: str) -> bool:
    return any(account.username == user for account in backend.accounts.values())


def _users_by_halves(backends: typing.Sequence[model.Backend]) -> dict[tuple[model.Backend, ...], list[str]]:
    """Return, for each combination of halves, the users who use exactly these.

    Users are sorted by name, so that the file stays the same when two users swap places in the metadata.
    """
    found: dict[tuple[model.Backend, ...], list[str]] = {(b,): [] for b in backends}
    for user in sorted({a.username for b in backends for a in b.accounts.values()}):
        own = tuple(b for b in backends if _has_user(b, user))
        found.setdefault(own, []).append(user)
    return {own: users for own, users in found.items() if users}


def _service_group(users: typing.Iterable[str], backends: typing.Sequence[model.Backend]) -> dict[str, typing.Any]:
    """Return the policy group of ``users``.

    :param users: names as the engines know them: with a realm, or the common name of a certificate.
    """
    own = ",".join(_addresses(b) for b in backends)
    return {
        "users": ",".join(users),
        "remoteHosts": "*",
        "allowDynamicSource": True,
        "allowAnonymousSender": False,
        "allowUserIdProxy": False,
        "maxSessions": SESSIONS,
        "sourcePattern": own,
        "targetPattern": ",".join((own, *_ANSWERS)),
    }


def _addresses(backend: model.Backend) -> str:
    """Return the pattern of a half's addresses.

    They are ``prefix/half/distribution[/virtual host]/exchange/...``, where distribution is ``multicast`` or another
    (RoutableAddresser in oslo_messaging/_drivers/amqp1_driver/addressing.py).
    """
    middle = f"/*/{backend.virtual_host}" if backend.virtual_host else ""
    return f"{PREFIX}/{backend.half}{middle}/#"


def login(backend: model.Backend) -> str:
    """Return the name by which a backend knows its services.

    A router of ours adds the realm to the name of a user who logs in with a password. From a certificate it takes the
    common name without a realm.
    """
    own_router = backend.scheme is model.Scheme.AMQP and not backend.external
    has_realm = own_router and backend.username and not backend.client_files
    return with_realm(backend.username) if has_realm else backend.username


def with_realm(name: str) -> str:
    """Return a user's name as SASL and the engines know it."""
    return f"{name}@{REALM}"
