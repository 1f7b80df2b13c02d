"""The model of ``nodes`` and ``sites``: which nodes there are, and what their routers are for."""

from __future__ import annotations

import dataclasses
import itertools
import typing

from om_agent import errors, fields, model
from om_agent.parse import mapping


def place_routers(
    router: model.Router, rpc: model.Backend, notify: model.Backend, nodes: tuple[model.Node, ...]
) -> tuple[model.Node, ...]:
    """Return the nodes with what their routers are for in the end."""
    carrying = next((set(b.nodes) for b in (rpc, notify) if b.scheme is model.Scheme.AMQP and b.nodes), set())
    edges = bool(carrying) and router.clients is model.Clients.LOCAL and router.engine.record.meshes

    def mode(node: model.Node) -> model.RouterMode:
        if node.name in carrying:
            return model.RouterMode.INTERIOR
        return model.RouterMode.EDGE if edges and node.router is not model.RouterMode.NONE else model.RouterMode.NONE

    placed = ((n, mode(n)) for n in nodes)
    return tuple(n if n.router is wanted else dataclasses.replace(n, router=wanted) for n, wanted in placed)


def check_interiors(top: mapping.Mapping, d: model.Deployment) -> None:
    """Note each node whose ``interior`` contradicts ``nodes`` of the half that routers carry."""
    named = model.interiors(d)
    half = d.routed[0].half
    for i, node in enumerate(top["nodes"]):
        if node["interior"] is not None and node["interior"] != (node["name"] in named):
            top.fail(f"nodes[{i}].interior", "interior-differs", half=half, name=errors.quoted(node["name"]))


def make_nodes(top: mapping.Mapping) -> tuple[model.Node, ...]:
    """Return the nodes, each with what its router is for if no half has a key ``nodes``."""
    roles: dict[str, model.RouterMode] = top["router"]["roles"]
    tls = top["rpc"]["tls"] is True or top["notify"]["tls"] is True
    nodes = [_make_node(given, roles, tls) for given in top["nodes"]]
    same_name = _check_distinct(top, "name", nodes, ())
    derived = {i for i in same_name if nodes[i].address == nodes[i].name}
    same_address = _check_distinct(top, "address", nodes, derived)
    derived = {i for i in same_name if nodes[i].host == nodes[i].name}
    derived |= {i for i in same_address if nodes[i].host == nodes[i].address}
    _check_distinct(top, "host", nodes, derived)
    _check_crossed(top, nodes)
    return tuple(nodes)


def _make_node(given: mapping.Mapping, roles: dict[str, model.RouterMode], tls: bool) -> model.Node:
    name, role, interior = given["name"], given["role"], given["interior"]
    address = given["address"] or name
    mode = model.RouterMode.INTERIOR if role == "controller" else model.RouterMode.EDGE
    mode = roles.get(role, mode)
    if interior is not None:
        mode = model.RouterMode.INTERIOR if interior else model.RouterMode.EDGE
    host = given["host"] or (name if tls else address)
    return model.Node(name=name, address=address, host=host, role=role, site=given["site"], router=mode)


def _check_distinct(
    top: mapping.Mapping, key: str, nodes: typing.Sequence[model.Node], derived: typing.Collection[int]
) -> list[int]:
    """Note each node that shares a value of ``key`` with a node before it, and return the places of these nodes.

    Two nodes may not have what is one name to DNS, and an IPv6 address has several spellings.

    :param derived: places of nodes whose value follows from another key, at which the problem is already noted.
    """
    seen: dict[str, int] = {}
    noted = []
    for i, node in enumerate(nodes):
        value = getattr(node, key)
        first = seen.setdefault(fields.host_key(value), i)
        if value and first != i and i not in derived:
            noted.append(i)
            code = "twice" if fields.is_address(value) or value == getattr(nodes[first], key) else "same-name"
            top.fail(f"nodes[{i}].{key}", code, name=errors.quoted(value), first=f"nodes[{first}].{key}")
    return noted


def _spelled(node: model.Node, keys: typing.Sequence[str]) -> dict[str, str]:
    return {key: fields.host_key(getattr(node, key)) for key in keys}


def _check_crossed(top: mapping.Mapping, nodes: typing.Sequence[model.Node]) -> None:
    """Note each pair of nodes where the host or address of one leads to the other.

    A connector, or a broker that joins the cluster, would reach the wrong one of the two.
    """
    keys = ("name", "address", "host")
    spelled = [_spelled(node, keys) for node in nodes]
    owners: dict[tuple[str, str], int] = {}
    for i, values in enumerate(spelled):
        for key, value in values.items():
            owners.setdefault((key, value), i)
    noted: set[frozenset[int]] = set()
    for i, values in enumerate(spelled):
        checked = [key for key in ("host", "address") if key == "address" or values["host"] != values["address"]]
        for key, other in itertools.product(checked, keys):
            j = owners.get((other, values[key]), i)
            pair = frozenset((i, j))
            alike = any(values[k] == spelled[j][k] for k in keys)  # noted by `_check_distinct`, or the node itself
            if values[key] and not alike and pair not in noted:
                noted.add(pair)
                shown = {"name": errors.quoted(getattr(nodes[i], key)), "first": f"nodes[{j}].{other}"}
                top.fail(f"nodes[{i}].{key}", "crossed-node", **shown)


def make_site_links(sites: mapping.Mapping, nodes: tuple[model.Node, ...]) -> tuple[model.SiteLink, ...]:
    """Return the links between sites, sorted by the names of the sites."""
    known = sorted({n.site for n in nodes if n.site})
    links: dict[frozenset[str], model.SiteLink] = {}
    for given in sites["links"]:
        names = given["between"]
        unknown = [i for i, name in enumerate(names) if name not in known]
        for i in unknown:
            given.fail(f"between[{i}]", "not-one-of", known=", ".join(known) or "the sites of nodes")
        if unknown or not given.sound:
            continue  # further problems would only follow from those that are noted
        if len(names) != 2:
            given.fail("between", "not-two-sites")
        elif frozenset(names) in links:
            given.fail("between", "linked-twice", sites=" and ".join(sorted(names)))
        else:
            links[frozenset(names)] = model.SiteLink((min(names), max(names)), given["cost"])
    return tuple(sorted(links.values(), key=lambda link: link.between))
