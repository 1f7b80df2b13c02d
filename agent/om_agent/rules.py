"""Checks across keys: values that cannot work together, and values that work but deserve a warning. Pure."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import typing

from om_agent import errors, fields, kinds, model

# IPv4 addresses that are no single host's: unspecified, link-local, multicast, broadcast.
_NO_SINGLE_HOST = re.compile(r"0\.0\.0\.0\Z|169\.254\.|2(?:2[4-9]|3[0-9])\.|255\.255\.255\.255\Z")
# In a router's policy this user means everybody. A user that logs in by certificate has no realm after the name.
_EVERYBODY = "*"


class Given(typing.NamedTuple):
    """What the metadata itself says, where the deployment no longer shows it.

    :param roles: ``router.roles``, without the default.
    :param nodes: the nodes, with the routers that they would have if no half had a key ``nodes``.
    :param named: the halves that have a key ``nodes``.
    :param cookie: whether ``broker.erlang_cookie`` is given; it is made from ``rpc.password`` otherwise.
    :param mirrored: whether ``broker.mirrored_queues`` is given, the old name of ``broker.queues``.
    """

    roles: dict[str, model.RouterMode]
    nodes: tuple[model.Node, ...]
    named: tuple[str, ...]
    cookie: bool
    mirrored: bool = False


def _check_addresses(d: model.Deployment) -> typing.Iterator[errors.Problem]:
    """Refuse addresses that no single host can have, since clients or routers would connect to them."""
    for i, node in enumerate(d.nodes):
        for key in ("address",) if node.host == node.address else ("address", "host"):
            if _is_no_single_host(getattr(node, key)):
                yield kinds.problem(f"nodes[{i}].{key}", "no-own-address")
    for b in d.halves:
        if b.external:
            for i, host in enumerate(b.hosts):
                if _is_no_single_host(host):
                    yield kinds.problem(f"{b.half}.hosts[{i}]", "no-own-address")


def _is_no_single_host(host: str) -> bool:
    if not fields.is_address(host):
        return False
    if ":" not in host:
        return bool(_NO_SINGLE_HOST.match(host))
    ip = ipaddress.IPv6Address(host)
    if ip.ipv4_mapped:
        return bool(_NO_SINGLE_HOST.match(str(ip.ipv4_mapped)))
    return ip.is_unspecified or ip.is_multicast or ip.is_link_local


def problems(d: model.Deployment, given: Given, services: typing.Collection[str]) -> typing.Iterator[errors.Problem]:
    """Yield a problem for each value that is good by itself and cannot work with the others."""
    yield from _check_addresses(d)
    for i, name in enumerate(d.services or ()):
        if services and name not in services:
            yield kinds.problem(
                f"services[{i}]", "unknown-service", name=errors.quoted(name), known=", ".join(services)
            )
    if d.node and d.node not in d.by_name():
        yield kinds.problem("node", "not-in-nodes", name=errors.quoted(d.node))
    yield from _check_sharing(d)
    yield from _check_logins(d)
    yield from _check_tls(d)
    yield from _check_distribution(d)
    yield from _check_engine(d)
    yield from _check_interior_count(d, given)
    yield from _check_rabbit_urls(d)
    yield from _check_router_users(d)
    yield from _check_accounts(d, given)
    yield from _check_families(d)
    yield from _check_sites(d)
    yield from _check_ports(d)


def _check_sharing(d: model.Deployment) -> typing.Iterator[errors.Problem]:
    """Check that two halves of one scheme share one router mesh or broker cluster, or use two separate clusters."""
    rpc, notify = d.rpc, d.notify
    if rpc.scheme is not notify.scheme:
        return
    record = rpc.scheme.record
    same = set(rpc.nodes) == set(notify.nodes)
    if rpc.nodes and notify.nodes and not same:
        if record.one_network:
            yield kinds.problem("notify.nodes", "one-mesh")
        elif set(rpc.nodes) & set(notify.nodes):
            yield kinds.problem("notify.nodes", "overlap", scheme=rpc.scheme.value)
    if not same or rpc.external:
        return
    for key in record.shared:
        if getattr(rpc, key) != getattr(notify, key):
            yield kinds.problem(f"notify.{key}", "shared-differs", what=record.server, key=key)
    known = {a.username: a.password for a in reversed(rpc.accounts.values())}
    own = notify if notify in _own_accounts(d) else dataclasses.replace(notify, also_accept=())
    for path, account in own.accounts.items():
        if known.get(account.username, account.password) != account.password:
            yield kinds.problem(f"{path}.password", "two-passwords", what=record.server)


def _check_logins(d: model.Deployment) -> typing.Iterator[errors.Problem]:
    """Check that two halves of one scheme log in the same way: a service's file has one section for each driver."""
    rpc, notify = d.rpc, d.notify
    if rpc.scheme is notify.scheme:
        if rpc.mechanism is not notify.mechanism:
            yield kinds.problem("notify.sasl_mechanism", "login-differs", key="sasl_mechanism")
        elif rpc.client_files != notify.client_files:
            key = next(k for k, a, b in zip(model.CLIENT_FILES, rpc.client_files, notify.client_files) if a != b)
            yield kinds.problem(f"notify.{key}", "login-differs", key=key)
        elif rpc.client_files and rpc.username != notify.username:
            yield kinds.problem("notify.username", "login-differs", key="username")
    for b in d.halves:
        path = f"{b.half}.sasl_mechanism"
        if b.mechanism is model.Mechanism.SCRAM and b.scheme is model.Scheme.RABBIT:
            yield kinds.problem(path, "scram-rabbit")
        if b.mechanism is model.Mechanism.EXTERNAL and not b.tls:
            yield kinds.problem(path, "external-tls", half=b.half)
        if b.mechanism is not model.Mechanism.PLAIN and b in d.routed and d.router.engine.record.only_plain:
            yield kinds.problem(path, "embedded-login")


def _check_tls(d: model.Deployment) -> typing.Iterator[errors.Problem]:
    for b in d.halves:
        what = b.scheme.record.server
        server_tls = d.servers[what].tls
        if b.scheme is model.Scheme.AMQP and b.tls:
            own = [(f"nodes[{i}].host", n.host) for i, n in enumerate(d.nodes) if n.router is not model.RouterMode.NONE]
            others = [(f"{b.half}.hosts[{i}]", host) for i, host in enumerate(b.hosts)]
            for path, host in others if b.external else own:
                if fields.is_address(host):
                    yield kinds.problem(path, "tls-needs-name")
        if b.external:
            continue
        if b.tls and not server_tls:
            yield kinds.problem(f"{what}.tls", "tls-not-on-server", half=b.half, what=what)
        if server_tls and not b.tls:
            yield kinds.problem(f"{b.half}.tls", "tls-not-on-clients", half=b.half, what=what)
        if (b.tls or server_tls) and not d.tls.has_certificate:
            yield kinds.problem(f"{b.half}.tls", "tls-no-certificate", what=what)
        if b.tls and not d.tls.has_ca:
            yield kinds.problem("tls", "tls-no-ca")


def _check_distribution(d: model.Deployment) -> typing.Iterator[errors.Problem]:
    """Check the names of brokers: Erlang verifies that the certificate has the host of a node's name as a DNS name."""
    brokers = _brokers(d)
    if not d.broker.distribution_tls or not brokers:
        return
    if not d.broker.tls and not (d.tls.has_certificate and d.tls.has_ca):  # else see `_check_tls`
        yield kinds.problem("broker.distribution_tls", "tls-distribution")
    for i, n in enumerate(d.nodes):
        if n.name in brokers and fields.is_address(n.name):
            yield kinds.problem(f"nodes[{i}].name", "tls-node-name")


def _brokers(d: model.Deployment) -> set[str]:
    """Return the names of the nodes that run a broker."""
    return {n for b in d.halves if b.scheme is model.Scheme.RABBIT for n in b.nodes}


def _check_engine(d: model.Deployment) -> typing.Iterator[errors.Problem]:
    for b in d.halves:
        if b.scheme is not model.Scheme.AMQP:
            continue
        for path, account in b.accounts.items() if not b.external else ():
            if "@" in account.username:
                yield kinds.problem(f"{path}.username", "username-realm")
            if account.password.reveal()[-1:] in ("\n", "\r"):
                yield kinds.problem(f"{path}.password", "password-line-end")
            if account.username == model.ADMIN_USER:
                yield kinds.problem(f"{path}.username", "username-taken")
        if not d.router.engine.record.meshes and len(b.nodes) > 1:
            yield kinds.problem("router.engine", "embedded-mesh", count=len(b.nodes), half=b.half)
    for b in d.halves:
        if b.scheme is model.Scheme.RABBIT and len(b.nodes) > 1 and not d.broker.cluster:
            yield kinds.problem("broker.cluster", "lone-brokers", count=len(b.nodes), half=b.half)
    brokers = [n for b in d.halves if b.scheme is model.Scheme.RABBIT for n in b.nodes]
    if len({"." in n for n in brokers}) > 1:
        yield kinds.problem("nodes", "mixed-names")


def _check_interior_count(d: model.Deployment, given: Given) -> typing.Iterator[errors.Problem]:
    count = len(model.interiors(d))
    if count > model.MAX_INTERIORS:
        half = d.routed[0].half
        path = f"{half}.nodes" if half in given.named else "nodes"
        yield kinds.problem(path, "too-many-routers", count=count, half=half)


def _check_families(d: model.Deployment) -> typing.Iterator[errors.Problem]:
    """Refuse IPv6 addresses next to other hosts where one program reads both.

    A URL of several hosts: oslo.messaging reads it with urllib. With the fix of CVE-2025-0938 (tried with Debian 12's
    3.11.2), urllib takes the text after the last ``@`` for a single host. When the URL holds brackets, it refuses a
    last host without them, so the order of the hosts would matter.

    A cluster of brokers: Erlang distributes over ``inet_tcp`` or ``inet6_tcp``, not over both.

    Routers may be mixed: a connector has one host, and so has the URL of a service on a node with its own router.
    """
    by_name = d.by_name()
    for b in d.halves:
        alone = b in d.routed and all(n.router is not model.RouterMode.NONE for n in d.nodes)
        if len({":" in h for h in b.hosts}) > 1 and not (alone and d.router.clients is model.Clients.LOCAL):
            yield kinds.problem(f"{b.half}.hosts" if b.external else "nodes", "mixed-families", half=b.half)
    for b in {b.nodes: b for b in reversed(d.halves) if b.scheme is model.Scheme.RABBIT and d.broker.cluster}.values():
        if len({":" in by_name[name].address for name in b.nodes}) > 1:
            yield kinds.problem("nodes", "mixed-cluster", half=b.half)


def _check_rabbit_urls(d: model.Deployment) -> typing.Iterator[errors.Problem]:
    """Refuse characters that oslo.messaging does not encode in the URL for kombu (impl_rabbit.py, 14.0.3 to 14.9.3)."""
    for b in d.halves:
        if b.scheme is not model.Scheme.RABBIT:
            continue
        for path, account in b.accounts.items():
            for key, text in (("username", account.username), ("password", account.password.reveal())):
                if "/" in text:
                    yield kinds.problem(f"{path}.{key}", "rabbit-slash")
        if set("%?#;") & set(b.virtual_host):
            yield kinds.problem(f"{b.half}.virtual_host", "rabbit-vhost")


def _check_router_users(d: model.Deployment) -> typing.Iterator[errors.Problem]:
    """Refuse names that mean something else in a router's policy.

    The policy separates users by commas and reads addresses as patterns (policy_local.py, policy.c).
    """
    for b in d.halves:
        if b.scheme is not model.Scheme.AMQP or b.external:
            continue
        for path, account in b.accounts.items():
            if "," in account.username or account.username != account.username.strip():
                yield kinds.problem(f"{path}.username", "router-username")
            if account.username == _EVERYBODY:
                yield kinds.problem(f"{path}.username", "router-everybody")
        if set("*#,$ ") & set(b.virtual_host):
            yield kinds.problem(f"{b.half}.virtual_host", "router-vhost")
    for i, n in enumerate(d.nodes):  # services may send to any "<router>/temp.*"; "temp/$management" would match
        if n.router is not model.RouterMode.NONE and n.name.rpartition(".")[2].lower() == "temp":
            yield kinds.problem(f"nodes[{i}].name", "router-temp")


def _own_accounts(d: model.Deployment) -> tuple[model.Backend, ...]:
    """Return the halves that have accepted users of their own: not ``notify`` when it took those of ``rpc``."""
    return d.halves if d.notify.also_accept is not d.rpc.also_accept else (d.rpc,)


def _check_accounts(d: model.Deployment, given: Given) -> typing.Iterator[errors.Problem]:
    """Check the other users that may log in while a password is changed; nothing else may change with them."""
    for b in _own_accounts(d):
        if b.also_accept and b.external:
            yield kinds.problem(f"{b.half}.also_accept", "external-accept")
        first: dict[str, str] = {}
        for path, account in b.accounts.items():
            if first.setdefault(account.username, path) != path:
                text = {"name": errors.quoted(account.username), "first": f"{first[account.username]}.username"}
                yield kinds.problem(f"{path}.username", "twice", **text)
    if d.rpc.also_accept and not given.cookie and _brokers(d):
        yield kinds.problem("broker.erlang_cookie", "derived-changes")


def _check_sites(d: model.Deployment) -> typing.Iterator[errors.Problem]:
    """Check that each site with a router can reach every other one over sites that have an interior router."""
    routers = [n for n in d.nodes if n.router is not model.RouterMode.NONE]
    sites = {n.site for n in routers}
    if "" in sites and len(sites) > 1:
        names = [n.name for n in routers if not n.site]
        yield kinds.problem("nodes", "site-missing", count=len(names), name=errors.quoted(names[0]))
        return
    carrying = {n.site for n in routers if n.router is model.RouterMode.INTERIOR}
    first = sorted(carrying)[:1]
    reached = set(_ways(d, first, through=carrying))
    loose = _ways(d, first, through=sites | {s for link in d.site_links for s in link.between})
    for site in sorted(sites - reached):
        between = [s for s in loose.get(site, ()) if s not in carrying]
        text = {"site": model.site_name(site), "rest": model.site_name(first[0])}
        if between:
            yield kinds.problem(
                "sites.links", "site-between", between=" and ".join(map(model.site_name, between)), **text
            )
        else:
            yield kinds.problem("sites.links", "site-apart", **text)


def _ways(d: model.Deployment, start: typing.Sequence[str], through: set[str]) -> dict[str, tuple[str, ...]]:
    """Return the sites that can be reached from ``start`` over sites of ``through``, each with the sites on the way."""
    ways: dict[str, tuple[str, ...]] = dict.fromkeys(start, ())
    todo = list(start)
    for at in todo:  # grows
        for link in d.site_links if at in through else ():
            for site in link.between if at in link.between else ():
                if site not in ways:
                    ways[site] = (*ways[at], at)
                    todo.append(site)
    return ways


def _check_ports(d: model.Deployment) -> typing.Iterator[errors.Problem]:
    reported = set()
    for name in _different_nodes(d):
        claimed: dict[int, str] = {}
        for port, what in model.sockets(d, name):
            first = claimed.setdefault(port, what)
            if first != what and (first, what) not in reported:
                reported.add((first, what))
                yield kinds.problem(
                    what, "port-collision", port=port, node=errors.quoted(name), first=first, second=what
                )


def _different_nodes(d: model.Deployment) -> typing.Iterator[str]:
    """Yield one node of each kind; nodes of one kind listen on the same ports."""
    seen = set()
    carrying = [frozenset(b.nodes) for b in d.halves]
    for node in d.nodes:
        kind = (node.router, *(node.name in names for names in carrying))
        if kind not in seen:
            seen.add(kind)
            yield node.name


def warnings(d: model.Deployment, given: Given) -> typing.Iterator[errors.Problem]:
    """Yield a warning for each value that works and that operators should know about."""
    yield from _role_findings(d, given)
    if d.notify.scheme is model.Scheme.AMQP:
        yield kinds.problem("notify.scheme", "not-stored")
    for b in d.halves:
        if not b.tls:
            yield kinds.problem(f"{b.half}.tls", "plaintext", half=b.half)
    for b in d.halves:
        if b.mechanism is model.Mechanism.SCRAM:
            yield kinds.problem(f"{b.half}.sasl_mechanism", "scram-cyrus")
    for b in _own_accounts(d):
        for account in b.also_accept:
            yield kinds.problem(f"{b.half}.also_accept", "still-accepted", name=errors.quoted(account.username))
    brokers = _brokers(d)
    if not given.cookie and any(len(b.nodes) > 1 for b in d.halves if b.scheme is model.Scheme.RABBIT):
        yield kinds.problem("broker.erlang_cookie", "cookie-derived")
    if brokers and fields.erlang_made(d.broker.erlang_cookie.reveal()):
        yield kinds.problem("broker.erlang_cookie", "cookie-replaced")
    if given.mirrored:
        meant = (d.broker.queues or model.Queues.CLASSIC).value
        yield kinds.problem("broker.mirrored_queues", "mirrored-queues", meant=meant)
    for i, node in enumerate(d.nodes):
        if node.name in brokers and not fields.is_address(node.address):
            yield kinds.problem(f"nodes[{i}].address", "listens-everywhere")
    if d.router.engine.record.repeats_fanouts and len(model.interiors(d)) > 2:
        yield kinds.problem("router.engine", "fanout-duplicates", count=len(model.interiors(d)))


def _role_findings(d: model.Deployment, given: Given) -> typing.Iterator[errors.Problem]:
    known = sorted({n.role for n in d.nodes})
    for role in given.roles:
        if role not in known:
            yield kinds.problem(f"router.roles.{role}", "role-unused", role=errors.quoted(role), known=", ".join(known))
    half = d.routed[0].half if d.routed else ""
    unreported = set(given.roles) if half in given.named else set()
    for before, after in zip(given.nodes, d.nodes):
        # A node's own key interior cannot differ here: `om_agent.parse` refuses that.
        if before.role in unreported and (before.router is model.RouterMode.INTERIOR) != (
            after.router is model.RouterMode.INTERIOR
        ):
            unreported.remove(before.role)
            text = {"role": errors.quoted(before.role), "name": errors.quoted(before.name)}
            yield kinds.problem(f"router.roles.{before.role}", "roles-overruled", half=half, **text)
