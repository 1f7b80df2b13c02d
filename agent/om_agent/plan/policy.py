"""Who may do what at a router: AMQP policies, which both engines enforce where a client connects. Pure.

A service may attach to the addresses of its own half, and to the dynamic addresses at which callers wait for answers;
not to ``$management`` of this router or, over the mesh, of another. Only the agent's own user may do that. Routers
that connect to each other show a certificate of the mesh instead (`om_agent.plan.router`); the engines ask no policy
between interior routers (qd_policy_amqp_open in src/policy.c of both), and that of edges allows everything.
"""

from __future__ import annotations

import typing

from om_agent import model

ROUTERS = "edge"  # the vhost of listeners for edge routers
REALM = "overcloud"  # SASL realm of every user
PREFIX = "openstack.org/om"

# Where answers go, as the engines name the dynamic addresses of interior and of edge routers: "/" and "." part the
# words, "*" is one of them, "#" any number (a router's id may hold dots). Everything else that is routed by its
# router's name, "$management" for one, does not end in "temp" and one more word (`om_agent.rules` refuses routers whose
# own name ends so).
_ANSWERS = ("amqp:/_topo/*/#/temp/*", "amqp:/_edge/#/temp/*")

_ALL: dict[str, typing.Any] = {
    "remoteHosts": "*",
    "allowDynamicSource": True,
    "allowAnonymousSender": True,
    "sources": "*",
    "targets": "*",
}

# Sessions of one connection. This is the largest number that an engine can have: proton numbers channels from 0 to
# 32767 (PN_IMPL_CHANNEL_MAX), in routers and in services alike.
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
    """Return the ``policy`` and its ``vhost`` entities.

    :param listeners: for clients: by name, which is that of its vhost too, whose halves go over it.
    :param edges: whether edge routers connect here.
    """
    found: list[Vhost] = [("policy", {"enableVhostPolicy": True, "maxConnections": d.router.max_connections})]
    for name, backends in listeners.items():
        known = {b.username: login(b) for b in backends}
        groups = {"operator": {"users": with_realm(model.ADMIN_USER), **_ALL}}
        for own, users in _by_halves(backends).items():
            groups["-".join(b.half for b in own)] = _service([known.get(user, with_realm(user)) for user in users], own)
        found.append(("vhost", {"hostname": name, "allowUnknownUser": False, "groups": groups}))
    if edges:
        found.append(("vhost", {"hostname": ROUTERS, "allowUnknownUser": True, "groups": {"$default": _ALL}}))
    return found


def _accepts(backend: model.Backend, user: str) -> bool:
    return any(account.username == user for account in backend.accounts.values())


def _by_halves(backends: typing.Sequence[model.Backend]) -> dict[tuple[model.Backend, ...], list[str]]:
    """Return who uses just these halves, by name: so nothing changes when two users change places."""
    found: dict[tuple[model.Backend, ...], list[str]] = {(b,): [] for b in backends}
    for user in sorted({a.username for b in backends for a in b.accounts.values()}):
        own = tuple(b for b in backends if _accepts(b, user))
        found.setdefault(own, []).append(user)
    return {own: users for own, users in found.items() if users}


def _service(users: typing.Iterable[str], backends: typing.Sequence[model.Backend]) -> dict[str, typing.Any]:
    """Return the group of ``users``, as the engines know them: with a realm, or as their certificate says."""
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
    """Return the pattern of a half's addresses: ``prefix/half/multicast or the like[/virtual host]/exchange/...``
    (RoutableAddresser in oslo_messaging/_drivers/amqp1_driver/addressing.py)."""
    middle = f"/*/{backend.virtual_host}" if backend.virtual_host else ""
    return f"{PREFIX}/{backend.half}{middle}/#"


def login(backend: model.Backend) -> str:
    """Return as whom a backend knows its services: a router of ours puts the realm behind the name of one who logs in
    with a password, and takes the bare name from a certificate."""
    ours = backend.scheme is model.Scheme.AMQP and not backend.external
    return with_realm(backend.username) if ours and backend.username and not backend.client_files else backend.username


def with_realm(name: str) -> str:
    """Return a user as SASL and the engines know it."""
    return f"{name}@{REALM}"
