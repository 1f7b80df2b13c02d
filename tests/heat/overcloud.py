"""A small overcloud of tripleo: Heat resolves its roles, and each node gets the hieradata of its role."""

from __future__ import annotations

import json
import pathlib
import types
import typing

from tests.heat import engine

ENVIRONMENTS = engine.HEAT / "environments/messaging"
NET_MAP = {f"OsloMessaging{name}Network": "internal_api" for name in ("Rpc", "RpcEdge", "Notify")}
PASSWORDS = {
    "RpcPassword": "rpc-secret: @?#%$é",
    "NotifyPassword": "notify-secret",
    "RpcMeshPassword": "mesh-secret",
    "RabbitCookie": "cookie-secret",
}
_PREFIX = "OS::TripleO::Services::OsloMessaging"
ROLES = {
    "Controller": [
        _PREFIX + "Rpc",
        _PREFIX + "Notify",
        "OS::TripleO::Services::RabbitMQ",
        "OS::TripleO::Services::Qdr",
    ],
    "Compute": [_PREFIX + "RpcEdge"],
}
SEPARATE = {
    "Controller": [_PREFIX + "Rpc"],
    "NotificationBroker": [_PREFIX + "Notify"],
    "Compute": [_PREFIX + "RpcEdge"],
}


class Node(typing.NamedTuple):
    """A host: its name without domain, its address, its role."""

    name: str
    address: str
    role: str

    @property
    def fqdn(self) -> str:
        """The node's name in the messaging network, as tripleo builds it."""
        return f"{self.name}.internalapi.localdomain"


NODES = (
    *(Node(f"overcloud-controller-{i}", f"172.17.0.{11 + i}", "Controller") for i in range(3)),
    *(Node(f"overcloud-novacompute-{i}", f"172.17.0.{51 + i}", "Compute") for i in range(2)),
    *(Node(f"overcloud-notificationbroker-{i}", f"172.17.0.{31 + i}", "NotificationBroker") for i in range(3)),
)


def cases(
    release: str,
    *environments: str,
    roles: typing.Mapping[str, typing.Sequence[str]] = ROLES,
    parameters: typing.Mapping[str, object] = types.MappingProxyType({}),
) -> dict[str, engine.Case]:
    """Return a case for each role; ``parameters`` are parameter_defaults, None for one that is not given."""
    defaults = {k: v for k, v in {**PASSWORDS, **parameters}.items() if v is not None}
    return {
        role: {
            "template": engine.HERE / f"{release}-role.yaml",
            "environments": [ENVIRONMENTS / name for name in environments],
            "parameters": {"Services": services, "RoleName": role, "ServiceNetMap": NET_MAP},
            "parameter_defaults": defaults,
        }
        for role, services in roles.items()
    }


def hieradata(role_data: typing.Mapping[str, engine.Result], node: Node) -> dict[str, dict[str, object]]:
    """Return a node's files of /etc/puppet/hieradata, by name, as tripleo fills them.

    all_nodes: the nodes of each service in the network that ServiceNetMap has for it. service_configs: config_settings
    of the role, global_config_settings of all roles over them.
    """
    all_nodes: dict[str, object] = {}
    service_configs: dict[str, object] = dict(role_data[node.role]["config_settings"])
    for role, data in role_data.items():
        service_configs.update(data["global_config_settings"])
        for service in data["service_names"]:
            camel = "".join(word.capitalize() for word in service.split("_")) + "Network"
            if camel in NET_MAP:
                members = [n for n in NODES if n.role == role]
                for key, values in (
                    ("node_names", [n.fqdn for n in members]),
                    ("node_ips", [n.address for n in members]),
                ):
                    found = typing.cast("list[str]", all_nodes.setdefault(f"{service}_{key}", []))
                    found += values
    return {"all_nodes": all_nodes, "service_configs": service_configs}


def write(root: pathlib.Path, files: typing.Mapping[str, typing.Mapping[str, object]]) -> None:
    """Write hieradata below ``root``, with the hierarchy that orders the files."""
    directory = root / "etc/puppet/hieradata"
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    (root / "etc/puppet/hiera.yaml").write_text("---\n:hierarchy: [service_configs, all_nodes]\n")
