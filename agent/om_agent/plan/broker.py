"""Plan the configuration of RabbitMQ: what its own files say.

RabbitMQ reads users and passwords from a file, so no password is ever on a command line.

Sources: https://www.rabbitmq.com/docs/configure (keys), /docs/clustering and /docs/cluster-formation (classic config),
/docs/passwords (rabbit_password_hashing_sha256), /docs/definitions (import at boot). Tested with RabbitMQ 3.10.8.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import ipaddress
import typing

from om_agent import ciphers, fields, model
from om_agent.plan import layout, queues, router

_RECONCILIATION = "quorum_queue.continuous_membership_reconciliation"

PLUGINS = ("rabbitmq_prometheus",)
EXTERNAL_PLUGIN = "rabbitmq_auth_mechanism_ssl"


class Listener(typing.NamedTuple):
    """Where the broker accepts clients.

    :param address: '' for every address of the node.
    :param certificate: path of the broker's certificate, as its configuration names it; '' without TLS.
    """

    address: str
    port: int
    certificate: str


class Setting(typing.NamedTuple):
    """One line of rabbitmq.conf."""

    key: str
    value: str


class Variable(typing.NamedTuple):
    """One line of rabbitmq-env.conf."""

    name: str
    value: str


class InetHost(typing.NamedTuple):
    """A host that Erlang's resolver knows."""

    address: str
    name: str


@dataclasses.dataclass(frozen=True)
class BrokerPlan:
    """The broker of one node.

    :param members: Erlang names of all nodes of the cluster, this node included.
    :param metrics: address and port of the broker's metrics.
    :param settings: lines of rabbitmq.conf.
    :param environment: lines of rabbitmq-env.conf; the values are not quoted for the shell.
    :param distribution: options of TLS between brokers, each an Erlang term; None without TLS.
    :param inet_hosts: the cluster's nodes for Erlang's resolver, so that their names need not be in DNS.
    :param plugins: the plugins that are enabled.
    :param definitions: RabbitMQ's definitions document: users with hashed passwords, vhosts, permissions, policies.
    :param tls: whether the broker has a certificate, for clients or for other brokers.
    """

    listener: Listener
    members: tuple[str, ...]
    metrics: tuple[str, int]
    settings: tuple[Setting, ...]
    environment: tuple[Variable, ...]
    distribution: tuple[str, ...] | None
    inet_hosts: tuple[InetHost, ...]
    plugins: tuple[str, ...]
    definitions: dict[str, list[dict[str, typing.Any]]]
    erlang_cookie: model.Secret
    requires: tuple[layout.Required, ...]
    tls: bool
    servers: tuple[layout.Server, ...]


def plan_broker(d: model.Deployment, node: model.Node, host: layout.Host) -> BrokerPlan | None:
    """Return the plan of the broker on ``node``, or None when the node runs none."""
    carried = d.carried_by(node, model.Scheme.RABBIT)
    if not carried:
        return None
    by_name = d.by_name()
    uses_tls = d.broker.tls or d.broker.distribution_tls
    names = (node.host,) if d.broker.tls else ()
    exact_names = (node.name,) if d.broker.distribution_tls else ()
    members = tuple(by_name[name] for name in sorted(carried[0].nodes)) if d.broker.cluster else (node,)
    member_names = tuple(node_name(member) for member in members)
    listener = _listener(d, node, carried[0], host)
    return BrokerPlan(
        listener=listener,
        members=member_names,
        metrics=(node.address, d.broker.metrics_port),
        settings=tuple(_settings(d, node, listener, member_names, carried[0], host)),
        environment=tuple(_environment(d, node, host)),
        distribution=tuple(_distribution(d.tls, host)) if d.broker.distribution_tls else None,
        inet_hosts=tuple(InetHost(n.address, n.name) for n in members if fields.is_address(n.address)),
        plugins=(*PLUGINS, EXTERNAL_PLUGIN) if carried[0].client_files else PLUGINS,
        definitions=_definitions(d, carried, len(members), host),
        erlang_cookie=d.broker.erlang_cookie,
        requires=router.given_files(d.tls, "broker") if uses_tls else (),
        tls=uses_tls,
        servers=(layout.server("broker", d.tls, names, exact_names),) if uses_tls else (),
    )


def node_name(node: model.Node) -> str:
    """Return the Erlang node name."""
    return f"rabbit@{node.name}"


def _listener(d: model.Deployment, node: model.Node, backend: model.Backend, host: layout.Host) -> Listener:
    """Return where the broker accepts clients.

    RabbitMQ's listeners take addresses only (rabbit.schema, listeners.tcp.$name). For a node with a host name in place
    of an address, the broker listens on every address, and `om_agent.rules` warns about it.
    """
    certificate = dict(_files(d.tls, host))["certfile"] if d.broker.tls else ""
    address = node.address if fields.is_address(node.address) else ""
    return Listener(address, backend.port, certificate)


def _settings(
    d: model.Deployment,
    node: model.Node,
    listener: Listener,
    members: tuple[str, ...],
    backend: model.Backend,
    host: layout.Host,
) -> typing.Iterator[Setting]:
    yield from _listener_settings(d, listener, backend, host)
    # RabbitMQ 4.0 adds ANONYMOUS, which needs no password (rabbit.schema, auth_mechanisms and anonymous_login_user).
    mechanisms = ("EXTERNAL",) if backend.client_files else ("PLAIN", "AMQPLAIN")
    yield from _numbered("auth_mechanisms", mechanisms)
    # All users come from the definitions, and guest is not among them. So no user needs the loopback restriction.
    yield Setting("loopback_users", "none")
    yield Setting("load_definitions", host.inside(layout.RABBIT_DEFINITIONS))
    if listener.address:
        yield Setting("prometheus.tcp.ip", listener.address)
    if queues.permits_transient(d, host):
        yield Setting("deprecated_features.permit.transient_nonexcl_queues", "true")
    yield Setting("prometheus.tcp.port", str(d.broker.metrics_port))
    if len(members) > 1:
        yield Setting("cluster_formation.peer_discovery_backend", "classic_config")
        yield from _numbered("cluster_formation.classic_config.nodes", members)
        yield Setting("cluster_partition_handling", "pause_minority" if len(members) > 2 else "ignore")
        queue_members = queues.members(d, host, len(members))
        if queue_members:
            yield Setting(f"{_RECONCILIATION}.enabled", "true")
            yield Setting(f"{_RECONCILIATION}.target_group_size", str(queue_members))


def _listener_settings(
    d: model.Deployment, listener: Listener, backend: model.Backend, host: layout.Host
) -> typing.Iterator[Setting]:
    name = "1" if listener.address else "default"
    # RabbitMQ 3.10.8 does not start when an IPv6 address is in brackets.
    address = f"{listener.address}:{listener.port}" if listener.address else str(listener.port)
    if not d.broker.tls:
        yield Setting(f"listeners.tcp.{name}", address)
        return
    needs_certificate = bool(backend.client_files)
    yield Setting("listeners.tcp", "none")
    yield Setting(f"listeners.ssl.{name}", address)
    for option, path in _files(d.tls, host):
        yield Setting(f"ssl_options.{option}", path)
    yield Setting("ssl_options.verify", "verify_peer" if d.tls.has_ca else "verify_none")
    yield Setting("ssl_options.fail_if_no_peer_cert", "true" if needs_certificate else "false")
    yield from _protocols(d.tls)
    if needs_certificate:
        yield Setting("ssl_cert_login_from", "common_name")


def _protocols(tls: model.Tls) -> typing.Iterator[Setting]:
    yield from _numbered("ssl_options.versions", _versions(tls))
    if model.TlsVersion.TLS_1_2 in tls.versions:
        # With renegotiation a client could keep the server busy with handshakes.
        yield Setting("ssl_options.client_renegotiation", "false")
    if tls.ciphers:
        yield Setting("ssl_options.honor_cipher_order", "true")
        yield from _numbered("ssl_options.ciphers", (*ciphers.TLS_1_3, *tls.ciphers))


def _numbered(key: str, values: typing.Iterable[str]) -> typing.Iterator[Setting]:
    """Yield a list as rabbitmq.conf has it: ``key.1``, ``key.2`` and so on."""
    for number, value in enumerate(values, 1):
        yield Setting(f"{key}.{number}", value)


def _versions(tls: model.Tls) -> list[str]:
    """Return the versions of TLS as Erlang calls them, the newest first."""
    return [f"tlsv{version.value}" for version in reversed(tls.versions)]


def _files(tls: model.Tls, host: layout.Host) -> typing.Iterator[tuple[str, str]]:
    """Yield (Erlang's option, path) for CA, certificate and key."""
    paths = zip(("cacertfile", "certfile", "keyfile"), router.tls_paths(tls, layout.RABBIT_DIR))
    return ((option, router.inside_or_given(path, tls, host)) for option, path in paths if path)


def _distribution(tls: model.Tls, host: layout.Host) -> typing.Iterator[str]:
    """Yield the options of TLS between brokers (https://www.erlang.org/doc/apps/ssl/ssl_distribution).

    Both sides present a certificate that the CA signed. The connecting broker verifies that the certificate names the
    host of the node's name. The accepting broker cannot verify a name: Erlang does that only for nodes that are given
    to net_kernel:allow/1, which RabbitMQ has no setting for. There the CA and the cookie are the protection.
    """
    for option, path in _files(tls, host):
        yield f"{{{option}, {erlang_string(path)}}}"
    yield "{verify, verify_peer}"
    versions = ", ".join(f"'{version}'" for version in _versions(tls))
    yield f"{{versions, [{versions}]}}"
    if model.TlsVersion.TLS_1_2 in tls.versions:  # TLS 1.3 has no renegotiation and refuses the option
        yield "{secure_renegotiate, true}"
    if tls.ciphers:
        names = ", ".join(map(erlang_string, (*ciphers.TLS_1_3, *tls.ciphers)))
        yield f"{{ciphers, [{names}]}}"


def erlang_string(text: str) -> str:
    """Return ``text`` as an Erlang string, quotes included."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _environment(d: model.Deployment, node: model.Node, host: layout.Host) -> typing.Iterator[Variable]:
    yield Variable("NODENAME", node_name(node))
    if "." in node.name:
        yield Variable("USE_LONGNAME", "true")
    yield Variable("DIST_PORT", str(d.broker.dist_port))
    resolver = f"{host.inside(layout.RABBIT_DIR)}/erl_inetrc"
    common = _distribution_arguments(d, node, host)
    # The server's script expands this without quotes, so the double quotes of the Erlang string reach erl.
    server = [f'-kernel inetrc "{resolver}"', *common]
    if fields.is_address(node.address):
        server.append(f"-kernel inet_dist_use_interface {erlang_address(node.address)}")
    yield Variable("SERVER_ADDITIONAL_ERL_ARGS", " ".join(server))
    # RabbitMQ 3.10 passes CTL_ERL_ARGS to erl as words, with their quotes. RabbitMQ 4 passes them in ERL_FLAGS, and erl
    # removes the quotes there. So CTL_ERL_ARGS has no quotes, and rabbitmqctl, which exports every variable of this
    # file, gets the resolver file by Erlang's own variable.
    yield Variable("ERL_INETRC", resolver)
    if common:
        yield Variable("CTL_ERL_ARGS", " ".join(common))
    yield Variable("CONFIG_FILE", host.inside(f"{layout.RABBIT_DIR}/rabbitmq.conf"))
    yield Variable("ENABLED_PLUGINS_FILE", host.inside(f"{layout.RABBIT_DIR}/enabled_plugins"))


def _distribution_arguments(d: model.Deployment, node: model.Node, host: layout.Host) -> list[str]:
    """Return erl's arguments for connections between brokers, which rabbitmqctl needs too."""
    has_ipv6 = ":" in node.address
    if d.broker.distribution_tls:
        protocol = "inet6_tls" if has_ipv6 else "inet_tls"
        return [f"-proto_dist {protocol}", f"-ssl_dist_optfile {host.inside(layout.RABBIT_DISTRIBUTION)}"]
    return ["-proto_dist inet6_tcp"] if has_ipv6 else []


def erlang_address(address: str) -> str:
    """Return an IPv4 or IPv6 address as the tuple that Erlang writes: ``{127,0,0,1}``."""
    packed = ipaddress.ip_address(address).packed
    size = 1 if len(packed) == 4 else 2
    numbers = (str(int.from_bytes(packed[i : i + size], "big")) for i in range(0, len(packed), size))
    return "{" + ",".join(numbers) + "}"


def _definitions(
    d: model.Deployment, carried: tuple[model.Backend, ...], members: int, host: layout.Host
) -> dict[str, list[dict[str, typing.Any]]]:
    # Sorted by name, so that the file stays the same when two users swap places in the metadata.
    passwords = {account.username: account.password for b in carried for account in b.accounts.values()}
    vhosts = dict.fromkeys(b.virtual_host or "/" for b in carried)
    permissions = sorted({(a.username, b.virtual_host or "/") for b in carried for a in b.accounts.values()})
    mirrored = queues.choose(d, host).kind is model.Queues.MIRRORED and queues.can_mirror(host)
    return {
        "users": [_user(name, passwords[name], d.broker.erlang_cookie) for name in sorted(passwords)],
        "vhosts": [{"name": vhost} for vhost in vhosts],
        "permissions": [_permission(user, vhost) for user, vhost in permissions],
        "policies": [_mirroring(vhost, members) for vhost in vhosts] if members > 1 and mirrored else [],
    }


def _user(name: str, password: model.Secret, key: model.Secret) -> dict[str, typing.Any]:
    return {
        "name": name,
        # RabbitMQ refuses every password of a user whose hash is empty (as after `rabbitmqctl clear_password`).
        "password_hash": password_hash(password, key) if password.reveal() else "",
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": [],
    }


def _permission(user: str, vhost: str) -> dict[str, typing.Any]:
    return {"user": user, "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"}


def _mirroring(vhost: str, members: int) -> dict[str, typing.Any]:
    """Return the policy that mirrors the queues of ``vhost``.

    A majority of the brokers has a copy, as with TripleO's RabbitHAQueues 0. Names that begin with ``amq.`` belong to
    the broker itself.
    """
    return {
        "vhost": vhost,
        "name": "ha",
        "pattern": r"^(?!amq\.).*",
        "apply-to": "queues",
        "priority": 0,
        "definition": {"ha-mode": "exactly", "ha-params": members // 2 + 1, "ha-sync-mode": "automatic"},
    }


def password_hash(password: model.Secret, key: model.Secret) -> str:
    """Return the hash of a password in RabbitMQ's form: base64 of the salt and of SHA-256 of salt and password.

    The salt is an HMAC of the password under a key that only the cluster has. So the same metadata always gives the
    same file, and nobody can see that two clouds have the same password.
    """
    text = password.reveal().encode()
    salt = hmac.new(key.reveal().encode(), b"salt" + text, hashlib.sha256).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + text).digest()).decode()
