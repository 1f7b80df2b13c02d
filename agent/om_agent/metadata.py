"""Where metadata comes from, and how several files become one raw dict.

os-collect-config leaves a list of JSON files; they are merged as os-apply-config merges them (mappings deeply, a later
file wins, lists are replaced: os_apply_config/collect_config.py merge_configs). An empty list means *no data*, never
*reset to defaults*.
"""

from __future__ import annotations

import contextlib
import json
import re
import typing

from om_agent import errors, fields, kinds, metadata_files

KEY = "oslo_messaging"
HOOK_GROUP = "om-messaging"


class NoData(errors.AgentError):
    """There is no metadata yet: the present state is to be kept. Not a failure."""

    exit_code = errors.EXIT_OK


def merge(base: object, over: object) -> object:
    """Return ``base`` overlaid with ``over``: mappings key by key, anything else replaced."""
    if isinstance(base, dict) and isinstance(over, dict):
        merged = dict(base)
        for key, value in over.items():
            merged[key] = merge(base[key], value) if key in base else value
        return merged
    return over


def read(paths: typing.Sequence[str]) -> dict[str, object]:
    """Return all files merged.

    :raises om_agent.errors.InvalidInput: with every file that cannot be used.
    """
    problems: list[errors.Problem] = []
    merged: object = {}
    for path in paths:
        try:
            value = metadata_files.read_file(path)
            if value is None or value == "":
                continue
            if not isinstance(value, dict):
                kind = "list" if isinstance(value, list) else "single value"
                raise errors.InvalidInput([kinds.problem(path, "not-a-mapping", type=kind)])
        except errors.InvalidInput as e:
            problems.extend(e.problems)
        else:
            merged = merge(merged, value)
    if problems:
        raise errors.InvalidInput(problems)
    return typing.cast("dict[str, object]", merged)


def select(merged: dict[str, object], hostname: str, asked: str = "") -> object | None:
    """Return the raw value to hand to `om_agent.parse.deployment`, or None when the metadata says nothing of messaging.

    It is the key ``oslo_messaging``, or that of the newest deployment of group ``om-messaging``, or what tripleo's
    hiera keys say.

    :param asked: the local node's name, when somebody gave it.
    """
    if KEY in merged and merged[KEY] != "":
        return merged[KEY]
    deployment = newest_deployment(merged)
    if deployment is not None:
        return from_deployment(deployment)
    if any(isinstance(k, str) and re.fullmatch(r"oslo_messaging_(rpc|notify)_\w+", k) for k in merged):
        return from_hiera(merged, hostname, asked)
    return None


def newest_deployment(merged: dict[str, object]) -> dict[str, object] | None:
    """Return the newest deployment of group ``om-messaging``, or None.

    Heat sorts deployments by name, which says nothing of their age. A deployment that failed is still among them while
    the one that replaces it waits to be carried out.
    """
    listed = merged.get("deployments")
    own = (
        [d for d in listed if isinstance(d, dict) and d.get("group") == HOOK_GROUP] if isinstance(listed, list) else []
    )
    # max() takes the first of equals, and a later one of the list counts when no time tells them apart.
    return max(reversed(own), key=lambda d: str(d.get("creation_time") or ""), default=None)


def parse_deployment(data: bytes) -> dict[str, object]:
    """Return the deployment that heat-config gives its hook, which is JSON and nothing else.

    :raises om_agent.errors.InvalidInput: when it is none.
    """

    def refuse(code: str, **values: str) -> errors.InvalidInput:
        return errors.InvalidInput([kinds.problem("deployment", code, **values)])

    if not data.strip():
        raise refuse("no-deployment")
    with contextlib.suppress(RecursionError):
        try:
            found = json.loads(data, parse_int=float)  # of any length
        except ValueError:
            raise refuse("deployment-not-json") from None
        if not isinstance(found, dict):
            raise refuse("not-a-deployment", type="list" if isinstance(found, list) else "single value")
    # Read it again as all metadata is read, which refuses a repeated key and too many levels.
    return typing.cast("dict[str, object]", metadata_files.parse_text(data, "deployment"))


def from_deployment(deployment: dict[str, object]) -> object:
    """Return the messaging metadata of one heat-config deployment: its config, overlaid with its inputs of that name.

    :raises om_agent.errors.InvalidInput: when the config is text that is neither JSON nor YAML.
    """
    config: object = deployment.get("config") or {}
    if isinstance(config, str):
        config = metadata_files.parse_text(config.encode("utf-8", "replace"), "config")
    if isinstance(config, dict) and KEY in config:
        config = config[KEY]
    inputs = deployment.get("inputs")
    for item in inputs if isinstance(inputs, list) else []:
        if isinstance(item, dict) and item.get("name") == KEY:
            value = item.get("value")
            if isinstance(value, str) and value:
                value = metadata_files.parse_text(value.encode("utf-8", "replace"), "inputs.oslo_messaging")
            config = merge(config, value) if value != "" else config
    return config


# --------------------------------------------------------------------------------------------------------------------

# hiera key below oslo_messaging_{rpc,notify}_ -> key of a half (tripleo-heat-templates' global_config_settings).
_HIERA = {
    "scheme": "scheme",
    "port": "port",
    "user_name": "username",
    "password": "password",
    "use_ssl": "tls",
    "hosts": "hosts",
}
# What puppet-tripleo is to write into URLs for a router of ours: users have the realm in their names there
# (om_agent.plan.transport_url), and in the metadata not.
_REALM = "@overcloud"
_HIERA_TLS = {
    "ca_file": "tripleo::profile::base::qdr::listener_ssl_cert_db",
    "certificate_file": "tripleo::profile::base::qdr::listener_ssl_cert_file",
    "key_file": "tripleo::profile::base::qdr::listener_ssl_key_file",
}
_HIERA_SECTIONS = ("router", "broker", "tls", "sites")  # as in the metadata, whole, at oslo_messaging_<section>
_HIERA_SITES = f"{KEY}_node_sites"
_HIERA_NODE = f"{KEY}_node"
_EDGE = f"{KEY}_rpc_edge_"  # tripleo makes <service name>_node_names and _node_ips for every service
_CLIENT_ROLE = (
    "client"  # of a local node that carries nothing, where a node of any other role would have an edge router
)


def from_hiera(data: dict[str, object], hostname: str, asked: str = "") -> dict[str, object]:
    """Return metadata in the project's own form from tripleo's hiera keys.

    ``oslo_messaging_{rpc,notify}_{scheme,user_name,password,use_ssl,port,node_names}`` are what puppet-tripleo reads
    (manifests/profile/base/*.pp). ``node_names`` hold only the nodes that carry the backend, so the local node joins
    them as one that carries none. Addresses come from ``..._node_ips`` where tripleo gives them; a URL always holds
    the names, as puppet-tripleo's does. What tripleo has no words for has keys of this project's own: ``hosts`` of an
    external backend, before which ``node_names`` do not count; the nodes of the service ``oslo_messaging_rpc_edge``,
    which have edge routers; ``oslo_messaging_{router,broker,tls,sites}``, ``oslo_messaging_node_sites``, and
    ``oslo_messaging_node``, the local node's name.

    :param asked: the local node's name, which comes before ``oslo_messaging_node``.
    """
    result: dict[str, object] = {}
    nodes: dict[str, dict[str, object]] = {}
    for half in ("rpc", "notify"):
        prefix = f"{KEY}_{half}_"
        section = {
            ours: data[prefix + theirs] for theirs, ours in _HIERA.items() if data.get(prefix + theirs) is not None
        }
        names = data.get(prefix + "node_names") if "hosts" not in section else None
        if names is not None:
            section["nodes"] = names
        user = section.get("username")
        if section.get("scheme") == "amqp" and "hosts" not in section and isinstance(user, str):
            section["username"] = user[: -len(_REALM)] if user.endswith(_REALM) else user
        if section:
            result[half] = section
        _join(nodes, _hiera_nodes(names, data.get(prefix + "node_ips")), f"{prefix}node_ips")
    edges = _hiera_nodes(data.get(_EDGE + "node_names"), data.get(_EDGE + "node_ips"))
    _join(nodes, [{**node, "role": "compute"} for node in edges], f"{_EDGE}node_ips")
    # puppet-tripleo writes all of the nodes into every URL, and would undo another one at its next run; the templates
    # of this project, which make edges, tell it of the local router instead.
    router = merge({"clients": "local" if edges else "mesh"}, data.get(f"{KEY}_router") or {})
    local = _hiera_local(nodes, hostname, asked or data.get(_HIERA_NODE))
    if isinstance(local, str) and fields.host_key(local) not in nodes and _may_join(nodes, local, hostname):
        with_edges = isinstance(router, dict) and router.get("clients") == "local"
        nodes[fields.host_key(local)] = {"name": local, "role": _CLIENT_ROLE if with_edges else "compute"}
        router = merge({"roles": {_CLIENT_ROLE: "none"}}, router) if with_edges else router
    _place_nodes(nodes, data.get(_HIERA_SITES))
    tls = {ours: data[theirs] for ours, theirs in _HIERA_TLS.items() if data.get(theirs)}
    result = {**result, "router": router, **({"tls": tls} if tls else {})}
    sections = {name: data.get(f"{KEY}_{name}") for name in _HIERA_SECTIONS if name != "router"}
    merged = merge(result, {name: value for name, value in sections.items() if value is not None})
    return {**typing.cast("dict[str, object]", merged), "nodes": list(nodes.values()), "node": local}


def _hiera_nodes(names: object, ips: object) -> list[dict[str, object]]:
    """Return the nodes of one service; what is no name is left to `om_agent.parse`, which sees the list itself."""
    found: list[dict[str, object]] = []
    for i, name in enumerate(names if isinstance(names, list) else []):
        if isinstance(name, str):
            has_ip = isinstance(ips, list) and i < len(ips)
            address = typing.cast("list[object]", ips)[i] if has_ip else name
            found.append({"name": name, "address": address, "host": name})
    return found


def _join(nodes: dict[str, dict[str, object]], more: list[dict[str, object]], path: str) -> None:
    """Add the nodes of one more service. A known node keeps its address, since each network has its own.

    :raises om_agent.errors.InvalidInput: when a node has the address of another node: tripleo lists names and addresses
        in the same order, so one of the lists is wrong.
    """
    owners = {fields.host_key(str(node["address"])): key for key, node in nodes.items()}
    problems = []
    for i, node in enumerate(more):
        key = fields.host_key(str(node["name"]))
        owner = owners.get(fields.host_key(str(node["address"])), key)
        if key in nodes and owner != key:
            names = {
                "name": errors.quoted(node["address"]),
                "first": f"the address of {errors.quoted(nodes[owner]['name'])}",
            }
            problems.append(kinds.problem(f"{path}[{i}]", "crossed-node", **names))
        nodes.setdefault(key, node)
    if problems:
        raise errors.InvalidInput(problems)


def _hiera_local(nodes: dict[str, dict[str, object]], hostname: str, named: object) -> object:
    """Return the local node's name.

    It is the name that somebody gave, else the name that ``nodes`` have for this host, whose domain differs from
    network to network, else the host's own name.

    :param nodes: by `fields.host_key` of their names.
    :raises om_agent.errors.InvalidInput: when several may be meant.
    """
    if named is not None and named != "":
        return named
    alike = [key for key in nodes if fields.first_label(key) == fields.first_label(hostname)]
    if fields.host_key(hostname) in nodes:
        alike = [fields.host_key(hostname)]
    if len(alike) > 1:
        names = errors.listed([errors.quoted(nodes[key]["name"]) for key in alike], 4)
        raise errors.InvalidInput([kinds.problem("node", "ambiguous-node", host=errors.quoted(hostname), names=names)])
    return fields.Guess(nodes[alike[0]]["name"]) if alike else fields.Unlisted(hostname)


def _may_join(nodes: dict[str, dict[str, object]], local: str, hostname: str) -> bool:
    """Return whether ``local`` may join as a client: only this host's own name may.

    A mistyped name may not, nor a name that begins like the name of a node.
    """
    short = fields.first_label(local)
    own = fields.host_key(local) in (fields.host_key(hostname), fields.first_label(hostname))
    return own and all(fields.first_label(key) != short for key in nodes)


def _place_nodes(nodes: dict[str, dict[str, object]], sites: object) -> None:
    """Give the nodes their sites, by whole name or up to the first dot.

    :raises om_agent.errors.InvalidInput: when ``sites`` is no mapping.
    """
    if sites is None or sites == "":
        return
    if not isinstance(sites, dict):
        raise errors.InvalidInput([kinds.problem(_HIERA_SITES, "wrong-type", found="content", wanted="a mapping")])
    by_key: dict[str, str] = {}
    for name in sites:
        first = by_key.setdefault(fields.host_key(str(name)), name)
        if first != name and sites[first] != sites[name]:
            names = {"name": errors.quoted(name), "first": errors.quoted(first)}
            raise errors.InvalidInput([kinds.problem(_HIERA_SITES, "same-name", **names)])
    for key, node in nodes.items():
        found = by_key.get(key, by_key.get(fields.first_label(key)))
        if found is not None and sites[found] is not None:
            node["site"] = sites[found]
