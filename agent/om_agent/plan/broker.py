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

from om_agent import model
from om_agent.plan import layout, router

PLUGINS = ("rabbitmq_prometheus",)


@dataclasses.dataclass(frozen=True)
class BrokerPlan:
    """One node's broker.

    :param settings: lines of rabbitmq.conf, as (key, value).
    :param environment: lines of rabbitmq-env.conf, as (variable, value); values hold no shell syntax.
    :param inet_hosts: (address, name) of the cluster's nodes, for Erlang's resolver: names need not be in DNS.
    :param definitions: RabbitMQ's own definitions document: users with hashed passwords, vhosts, permissions, policies.
    """

    settings: tuple[tuple[str, str], ...]
    environment: tuple[tuple[str, str], ...]
    inet_hosts: tuple[tuple[str, str], ...]
    definitions: dict[str, list[dict[str, typing.Any]]]
    erlang_cookie: model.Secret
    requires: tuple[layout.Required, ...]


def build(d: model.Deployment, node: model.Node, host: layout.Host) -> BrokerPlan | None:
    """Return the plan of the broker on ``node``, or None when the node runs none."""
    carried = d.carried_by(node, model.Scheme.RABBIT)
    if not carried:
        return None
    by_name = d.by_name()
    members = tuple(by_name[n] for n in sorted(carried[0].nodes)) if d.broker.cluster else (node,)
    return BrokerPlan(
        settings=tuple(_settings(d, node, members, carried[0].port, host)),
        environment=tuple(_environment(d, node, host)),
        inet_hosts=tuple((n.address, n.name) for n in members if model.is_address(n.address)),
        definitions=_definitions(d, carried, len(members)),
        erlang_cookie=d.broker.erlang_cookie,
        requires=router.given_files(d.tls, "broker") if d.broker.tls else (),
    )


def node_name(node: model.Node) -> str:
    """Return the Erlang node name."""
    return f"rabbit@{node.name}"


def _settings(
    d: model.Deployment, node: model.Node, members: tuple[model.Node, ...], port: int, host: layout.Host
) -> typing.Iterator[tuple[str, str]]:
    # RabbitMQ's listeners take addresses only (rabbit.schema, listeners.tcp.$name); om_agent.model tells of a name.
    # An IPv6 address stands without brackets: 3.10.8 refuses to boot with them.
    own = model.is_address(node.address)
    name = "1" if own else "default"
    address = f"{node.address}:{port}" if own else str(port)
    if d.broker.tls:
        yield ("listeners.tcp", "none")
        yield (f"listeners.ssl.{name}", address)
        ca, certificate, key = router.tls_paths(d.tls, layout.RABBIT_DIR)
        named = (("cacertfile", ca), ("certfile", certificate), ("keyfile", key))
        for option, path in named:
            if path:
                yield (f"ssl_options.{option}", router.inside_or_given(path, d.tls, host))
        yield ("ssl_options.verify", "verify_peer" if ca else "verify_none")
        yield ("ssl_options.fail_if_no_peer_cert", "false")
        yield ("ssl_options.versions.1", "tlsv1.3")
        yield ("ssl_options.versions.2", "tlsv1.2")
    else:
        yield (f"listeners.tcp.{name}", address)
    # Users come from the definitions alone; guest is never made, so nothing needs the loopback exception.
    yield ("loopback_users", "none")
    yield ("load_definitions", host.inside(f"{layout.RABBIT_DIR}/definitions.json"))
    if own:
        yield ("prometheus.tcp.ip", node.address)
    yield ("prometheus.tcp.port", str(d.broker.metrics_port))
    if len(members) > 1:
        yield ("cluster_formation.peer_discovery_backend", "classic_config")
        for i, member in enumerate(members, 1):
            yield (f"cluster_formation.classic_config.nodes.{i}", node_name(member))
        yield ("cluster_partition_handling", "pause_minority" if len(members) > 2 else "ignore")


def _environment(d: model.Deployment, node: model.Node, host: layout.Host) -> typing.Iterator[tuple[str, str]]:
    yield ("NODENAME", node_name(node))
    if "." in node.name:
        yield ("USE_LONGNAME", "true")
    yield ("DIST_PORT", str(d.broker.dist_port))
    # The server's scripts expand these unquoted, so the double quotes that make it an Erlang string reach erl.
    arguments = [f'-kernel inetrc "{host.inside(layout.RABBIT_DIR)}/erl_inetrc"']
    if ":" in node.address:
        arguments.append("-proto_dist inet6_tcp")
    own = [f"-kernel inet_dist_use_interface {erlang_address(node.address)}"] if model.is_address(node.address) else []
    yield ("SERVER_ADDITIONAL_ERL_ARGS", " ".join([*arguments, *own]))
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
    d: model.Deployment, carried: tuple[model.Backend, ...], members: int
) -> dict[str, list[dict[str, typing.Any]]]:
    users = {b.username: b for b in reversed(carried)}
    vhosts = dict.fromkeys(b.virtual_host or "/" for b in carried)
    permissions = dict.fromkeys((b.username, b.virtual_host or "/") for b in carried)
    policies = []
    if members > 1 and d.broker.mirrored_queues:
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
                "name": b.username,
                "password_hash": password_hash(b.password, d.broker.erlang_cookie),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": [],
            }
            for b in users.values()
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
