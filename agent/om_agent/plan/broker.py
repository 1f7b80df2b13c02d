"""The broker's configuration: RabbitMQ's own files, so that no password is ever on a command line.

Sources: https://www.rabbitmq.com/docs/configure (keys), /docs/clustering and /docs/cluster-formation (classic config),
/docs/passwords (rabbit_password_hashing_sha256), /docs/definitions (import at boot); run with RabbitMQ 3.10.8.
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


@dataclasses.dataclass(frozen=True)
class Listener:
    """Where clients are served.

    :param address: '' for every address of the node.
    :param certificate: path, as the broker names it, of what it shows; '' without TLS.
    """

    address: str
    port: int
    certificate: str


@dataclasses.dataclass(frozen=True)
class BrokerPlan:
    """One node's broker.

    :param listener: of its clients.
    :param members: Erlang names of the cluster's nodes, this one included.
    :param metrics: address and port of its metrics.
    :param settings: lines of rabbitmq.conf, as (key, value).
    :param environment: lines of rabbitmq-env.conf, as (variable, value); values hold no shell syntax.
    :param distribution: options of TLS between brokers, as Erlang terms; None without.
    :param inet_hosts: (address, name) of the cluster's nodes, for Erlang's resolver: names need not be in DNS.
    :param plugins: those that are enabled.
    :param definitions: RabbitMQ's own definitions document: users with hashed passwords, vhosts, permissions, policies.
    """

    listener: Listener
    members: tuple[str, ...]
    metrics: tuple[str, int]
    settings: tuple[tuple[str, str], ...]
    environment: tuple[tuple[str, str], ...]
    distribution: str | None
    inet_hosts: tuple[tuple[str, str], ...]
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
    names, exact = (node.host,) if d.broker.tls else (), (node.name,) if d.broker.distribution_tls else ()
    members = tuple(by_name[n] for n in sorted(carried[0].nodes)) if d.broker.cluster else (node,)
    listener = _listener(d, node, carried[0], host)
    names_of_members = tuple(node_name(member) for member in members)
    metrics = (node.address, d.broker.metrics_port)
    return BrokerPlan(
        listener=listener,
        members=names_of_members,
        metrics=metrics,
        settings=tuple(_settings(d, node, listener, names_of_members, carried[0], host)),
        environment=tuple(_environment(d, node, host)),
        distribution=_distribution(d.tls, host) if d.broker.distribution_tls else None,
        inet_hosts=tuple((n.address, n.name) for n in members if fields.is_address(n.address)),
        plugins=(*PLUGINS, *([EXTERNAL_PLUGIN] if carried[0].client_files else [])),
        definitions=_definitions(d, carried, len(members), host),
        erlang_cookie=d.broker.erlang_cookie,
        requires=router.given_files(d.tls, "broker") if uses_tls else (),
        tls=uses_tls,
        servers=(layout.server("broker", d.tls, names, exact),) if uses_tls else (),
    )


def node_name(node: model.Node) -> str:
    """Return the Erlang node name."""
    return f"rabbit@{node.name}"


def _listener(d: model.Deployment, node: model.Node, backend: model.Backend, host: layout.Host) -> Listener:
    """Return where clients are served: RabbitMQ's listeners take addresses only (rabbit.schema, listeners.tcp.$name);
    om_agent.rules tells of a name."""
    certificate = dict(_files(d.tls, host))["certfile"] if d.broker.tls else ""
    return Listener(node.address if fields.is_address(node.address) else "", backend.port, certificate)


def _settings(
    d: model.Deployment,
    node: model.Node,
    listener: Listener,
    members: tuple[str, ...],
    backend: model.Backend,
    host: layout.Host,
) -> typing.Iterator[tuple[str, str]]:
    name = "1" if listener.address else "default"
    # An IPv6 address stands without brackets: 3.10.8 refuses to boot with them.
    address = f"{listener.address}:{listener.port}" if listener.address else str(listener.port)
    external = bool(backend.client_files)
    if d.broker.tls:
        yield ("listeners.tcp", "none")
        yield (f"listeners.ssl.{name}", address)
        for option, path in _files(d.tls, host):
            yield (f"ssl_options.{option}", path)
        yield ("ssl_options.verify", "verify_peer" if d.tls.has_ca else "verify_none")
        yield ("ssl_options.fail_if_no_peer_cert", "true" if external else "false")
        yield from _protocols(d.tls)
        if external:
            yield ("ssl_cert_login_from", "common_name")
    else:
        yield (f"listeners.tcp.{name}", address)
    # RabbitMQ 4.0 adds ANONYMOUS, which needs no password (rabbit.schema, auth_mechanisms and anonymous_login_user).
    for i, mechanism in enumerate(("EXTERNAL",) if external else ("PLAIN", "AMQPLAIN"), 1):
        yield (f"auth_mechanisms.{i}", mechanism)
    # Users come from the definitions alone; guest is never made, so nothing needs the loopback exception.
    yield ("loopback_users", "none")
    yield ("load_definitions", host.inside(layout.RABBIT_DEFINITIONS))
    if listener.address:
        yield ("prometheus.tcp.ip", listener.address)
    if queues.permits_transient(d, host):
        yield ("deprecated_features.permit.transient_nonexcl_queues", "true")
    yield ("prometheus.tcp.port", str(d.broker.metrics_port))
    if len(members) > 1:
        yield ("cluster_formation.peer_discovery_backend", "classic_config")
        for i, member in enumerate(members, 1):
            yield (f"cluster_formation.classic_config.nodes.{i}", member)
        yield ("cluster_partition_handling", "pause_minority" if len(members) > 2 else "ignore")
        copies = queues.members(d, host, len(members))
        if copies:
            yield (f"{_RECONCILIATION}.enabled", "true")
            yield (f"{_RECONCILIATION}.target_group_size", str(copies))


def _protocols(tls: model.Tls) -> typing.Iterator[tuple[str, str]]:
    for i, version in enumerate(reversed(tls.versions), 1):
        yield (f"ssl_options.versions.{i}", f"tlsv{version.value}")
    if model.TlsVersion.TLS_1_2 in tls.versions:
        yield ("ssl_options.client_renegotiation", "false")  # which would let a client make the server work for nothing
    if tls.ciphers:
        yield ("ssl_options.honor_cipher_order", "true")
        for i, name in enumerate((*ciphers.TLS_1_3, *tls.ciphers), 1):
            yield (f"ssl_options.ciphers.{i}", name)


def _files(tls: model.Tls, host: layout.Host) -> typing.Iterator[tuple[str, str]]:
    paths = zip(("cacertfile", "certfile", "keyfile"), router.tls_paths(tls, layout.RABBIT_DIR))
    return ((option, router.inside_or_given(path, tls, host)) for option, path in paths if path)


def _distribution(tls: model.Tls, host: layout.Host) -> str:
    """Return the options of TLS between brokers (https://www.erlang.org/doc/apps/ssl/ssl_distribution).

    Both sides show a certificate of the CA, and who connects verifies that it names the host of the node's name. Who
    accepts cannot verify a name: Erlang would, for nodes given to net_kernel:allow/1, which RabbitMQ has no setting
    for; there the CA and the cookie are what counts.
    """
    options = [f"{{{option}, {_erlang_string(path)}}}" for option, path in _files(tls, host)]
    options += ["{verify, verify_peer}"]
    options += [f"{{versions, [{', '.join(repr(f'tlsv{v.value}') for v in reversed(tls.versions))}]}}"]
    if model.TlsVersion.TLS_1_2 in tls.versions:  # there is none in 1.3, which refuses the option
        options += ["{secure_renegotiate, true}"]
    if tls.ciphers:
        names = ", ".join(f'"{name}"' for name in (*ciphers.TLS_1_3, *tls.ciphers))
        options += [f"{{ciphers, [{names}]}}"]
    sides = {"server": [*options, "{fail_if_no_peer_cert, true}"], "client": options}
    parts = {side: ",\n    ".join(those) for side, those in sides.items()}
    shown = (f"{{{side}, [\n    {those}\n  ]}}" for side, those in parts.items())
    return "[\n  " + ",\n  ".join(shown) + "\n].\n"


def _erlang_string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _environment(d: model.Deployment, node: model.Node, host: layout.Host) -> typing.Iterator[tuple[str, str]]:
    yield ("NODENAME", node_name(node))
    if "." in node.name:
        yield ("USE_LONGNAME", "true")
    yield ("DIST_PORT", str(d.broker.dist_port))
    resolver = f"{host.inside(layout.RABBIT_DIR)}/erl_inetrc"
    arguments = []
    if d.broker.distribution_tls:
        arguments.append(f"-proto_dist {'inet6' if ':' in node.address else 'inet'}_tls")
        arguments.append(f"-ssl_dist_optfile {host.inside(layout.RABBIT_DISTRIBUTION)}")
    elif ":" in node.address:
        arguments.append("-proto_dist inet6_tcp")
    own = [f"-kernel inet_dist_use_interface {erlang_address(node.address)}"] if fields.is_address(node.address) else []
    # The server's script expands this unquoted, so the double quotes that make it an Erlang string reach erl.
    yield ("SERVER_ADDITIONAL_ERL_ARGS", " ".join([f'-kernel inetrc "{resolver}"', *arguments, *own]))
    # RabbitMQ 3.10 passes CTL_ERL_ARGS to erl as words, with their quotes. RabbitMQ 4 passes them in ERL_FLAGS, and erl
    # removes the quotes there. So CTL_ERL_ARGS has no quotes, and rabbitmqctl, which exports every variable of this
    # file, gets the resolver file by Erlang's own variable.
    yield ("ERL_INETRC", resolver)
    if arguments:
        yield ("CTL_ERL_ARGS", " ".join(arguments))
    yield ("CONFIG_FILE", host.inside(f"{layout.RABBIT_DIR}/rabbitmq.conf"))
    yield ("ENABLED_PLUGINS_FILE", host.inside(f"{layout.RABBIT_DIR}/enabled_plugins"))


def erlang_address(address: str) -> str:
    """Return an IPv4 or IPv6 address as the tuple that Erlang writes: ``{127,0,0,1}``."""
    packed = ipaddress.ip_address(address).packed
    size = 1 if len(packed) == 4 else 2
    numbers = (str(int.from_bytes(packed[i : i + size], "big")) for i in range(0, len(packed), size))
    return "{" + ",".join(numbers) + "}"


def _definitions(
    d: model.Deployment, carried: tuple[model.Backend, ...], members: int, host: layout.Host
) -> dict[str, list[dict[str, typing.Any]]]:
    # By name: so nothing changes when two users change places.
    users = {a.username: a.password for b in carried for a in b.accounts.values()}
    vhosts = dict.fromkeys(b.virtual_host or "/" for b in carried)
    permissions = sorted({(a.username, b.virtual_host or "/") for b in carried for a in b.accounts.values()})
    policies = []
    if members > 1 and queues.choose(d, host).kind is model.Queues.MIRRORED and queues.can_mirror(host):
        # A majority of copies, as TripleO's RabbitHAQueues 0; names that begin with amq. are the broker's own.
        definition = {"ha-mode": "exactly", "ha-params": members // 2 + 1, "ha-sync-mode": "automatic"}
        policies = [
            {
                "vhost": v,
                "name": "ha",
                "pattern": r"^(?!amq\.).*",
                "apply-to": "queues",
                "priority": 0,
                "definition": definition,
            }
            for v in vhosts
        ]
    return {
        "users": [
            {
                "name": name,
                # Without one nobody can log in with a password (RabbitMQ's own way, `rabbitmqctl clear_password`).
                "password_hash": password_hash(password, d.broker.erlang_cookie) if password.reveal() else "",
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": [],
            }
            for name, password in sorted(users.items(), key=lambda item: item[0])
        ],
        "vhosts": [{"name": v} for v in vhosts],
        "permissions": [
            {"user": u, "vhost": v, "configure": ".*", "write": ".*", "read": ".*"} for u, v in permissions
        ],
        "policies": policies,
    }


def password_hash(password: model.Secret, key: model.Secret) -> str:
    """Return base64 of salt and SHA-256 of salt and password, RabbitMQ's own form.

    The salt is made from the password under a key that only the cluster has, so that the same metadata always gives
    the same file and yet equal passwords of two clouds do not show as equal.
    """
    text = password.reveal().encode()
    salt = hmac.new(key.reveal().encode(), b"salt" + text, hashlib.sha256).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + text).digest()).decode()
