"""The keys ``nodes``, ``router.roles`` and ``sites``: which nodes there are, and what their routers are for."""

from __future__ import annotations

import dataclasses
import itertools
import typing

from om_agent import errors, fields, model


def parse_roles(section: fields.Section) -> dict[str, model.RouterMode]:
    """Return what the metadata says routers are for, by role."""
    roles: dict[str, model.RouterMode] = {}
    raw = section.raw("roles")
    if raw is not None and not isinstance(raw, dict):
        section.fail("roles", "wrong-type", found=fields.type_name(raw), wanted="a mapping")
    for role in raw if isinstance(raw, dict) else ():
        if isinstance(role, str) and not fields.check_word(role):
            modes = fields.Section(raw, section.at("roles"), section.problems)
            default = _mode_of(role, roles)
            roles[role] = model.RouterMode(modes.word(role, default.value, [m.value for m in model.RouterMode]))
        else:
            section.fail("roles", "not-a-role", role=errors.key_name(role))
    return roles


def _mode_of(role: str, roles: typing.Mapping[str, model.RouterMode]) -> model.RouterMode:
    return roles.get(role, model.RouterMode.INTERIOR if role == "controller" else model.RouterMode.EDGE)


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


def check_interiors(top: fields.Section, d: model.Deployment) -> None:
    """``nodes`` of a half and ``interior`` of a node are two ways to say the same thing: they must not contradict."""
    raw, named = top.raw("nodes"), model.interiors(d)
    for i, node in enumerate(raw if isinstance(raw, list) else ()):
        said = fields.truth(node.get("interior")) if isinstance(node, dict) and node.get("interior") != "" else None
        if said is not None and said != (node.get("name") in named):
            half = d.routed[0].half
            top.fail(f"nodes[{i}].interior", "interior-differs", half=half, name=errors.quoted(node.get("name")))


def parse_nodes(top: fields.Section, roles: dict[str, model.RouterMode], tls: bool) -> tuple[model.Node, ...]:
    raw = top.raw("nodes")
    if not isinstance(raw, list):
        code = "missing" if raw is None else "wrong-type"
        top.fail(
            "nodes", code, hint="list every node with name and address", found=fields.type_name(raw), wanted="a list"
        )
        return ()
    if not raw:
        top.fail("nodes", "empty-list", what="node")
    nodes = [_parse_node(fields.Section(item, f"nodes[{i}]", top.problems), roles, tls) for i, item in enumerate(raw)]
    told = _check_distinct(top, "name", nodes, ())
    alike = _check_distinct(top, "address", nodes, {i for i in told if nodes[i].address == nodes[i].name})
    derived = {i for i in told if nodes[i].host == nodes[i].name} | {
        i for i in alike if nodes[i].host == nodes[i].address
    }
    _check_distinct(top, "host", nodes, derived)
    _check_crossed(top, nodes)
    return tuple(nodes)


def _check_distinct(
    top: fields.Section, key: str, nodes: typing.Sequence[model.Node], quiet: typing.Collection[int]
) -> list[int]:
    """Note each node, ``quiet`` ones aside, that shares a value of ``key`` with one before it; return their places.

    What is one name to DNS may not be two nodes, and an IPv6 address has several spellings.
    """
    seen: dict[str, int] = {}
    told = []
    for i, node in enumerate(nodes):
        value = getattr(node, key)
        first = seen.setdefault(fields.host_key(value), i)
        if value and first != i and i not in quiet:
            told.append(i)
            code = "twice" if fields.is_address(value) or value == getattr(nodes[first], key) else "same-name"
            top.fail(f"nodes[{i}].{key}", code, name=errors.quoted(value), first=f"nodes[{first}].{key}")
    return told


def _spelled(node: model.Node, keys: typing.Sequence[str]) -> dict[str, str]:
    return {key: fields.host_key(getattr(node, key)) for key in keys}


def _check_crossed(top: fields.Section, nodes: typing.Sequence[model.Node]) -> None:
    """Note each pair of nodes one of which has what leads to the other as its host or address: a connector, or a
    broker that joins the cluster, would reach the wrong one of the two."""
    keys = ("name", "address", "host")
    spelled = [_spelled(node, keys) for node in nodes]
    owners: dict[tuple[str, str], int] = {}
    for i, values in enumerate(spelled):
        for key, value in values.items():
            owners.setdefault((key, value), i)
    told: set[frozenset[int]] = set()
    for i, values in enumerate(spelled):
        given = [key for key in ("host", "address") if key == "address" or values["host"] != values["address"]]
        for key, other in itertools.product(given, keys):
            j = owners.get((other, values[key]), i)
            pair = frozenset((i, j))
            alike = any(values[k] == spelled[j][k] for k in keys)  # noted by `_check_distinct`, or the node itself
            if values[key] and not alike and pair not in told:
                told.add(pair)
                shown = {"name": errors.quoted(getattr(nodes[i], key)), "first": f"nodes[{j}].{other}"}
                top.fail(f"nodes[{i}].{key}", "crossed-node", **shown)


def _parse_node(section: fields.Section, roles: dict[str, model.RouterMode], tls: bool) -> model.Node:
    name = section.text("name", check=fields.check_host)
    if not section.has("name"):
        section.fail("name", "missing", hint="it is how the nodes are told apart")
    address = section.text("address", name, check=fields.check_host)
    host = section.text("host", name if tls else address, check=fields.check_host)
    role = section.text("role", "controller", check=fields.check_word)
    mode = _mode_of(role, roles)
    if section.has("interior"):
        mode = model.RouterMode.INTERIOR if section.boolean("interior", False) else model.RouterMode.EDGE
    node = model.Node(
        name=name,
        address=address,
        host=host,
        role=role,
        site=section.text("site", "", check=fields.check_word),
        router=mode,
    )
    section.done()
    return node


def parse_sites(top: fields.Section, nodes: tuple[model.Node, ...]) -> tuple[model.SiteLink, ...]:
    section = top.section("sites")
    raw = section.raw("links")
    if raw is not None and not isinstance(raw, list):
        section.fail("links", "wrong-type", found=fields.type_name(raw), wanted="a list")
    known = {n.site for n in nodes if n.site}
    links: dict[frozenset[str], model.SiteLink] = {}
    for i, item in enumerate(raw if isinstance(raw, list) else ()):
        at = f"links[{i}]"
        link = fields.Section(item, section.at(at), section.problems)
        cost = link.integer("cost", 1, 1, model.MAX_COST)
        told = len(section.problems)
        names = link.names("between", fields.check_word, "site") or ()
        for j, name in enumerate(names):
            if name not in known:
                link.fail(f"between[{j}]", "not-one-of", known=", ".join(sorted(known)) or "the sites of nodes")
        if len(section.problems) > told or not isinstance(item, dict):
            pass  # what is wrong has been said
        elif len(names) != 2:
            link.fail("between", "not-two-sites")
        elif frozenset(names) in links:
            link.fail("between", "linked-twice", sites=" and ".join(sorted(names)))
        else:
            links[frozenset(names)] = model.SiteLink((min(names), max(names)), cost)
        link.done()
    section.done()
    return tuple(sorted(links.values(), key=lambda link: link.between))
