"""The mesh as a picture in Graphviz's language: the plan, and on request the state of the running routers. Pure."""

from __future__ import annotations

import collections
import dataclasses
import typing

from om_agent import errors, model
from om_agent.plan import topology

UP, DOWN = "up", "down"

# With more edge routers than this, each site has one box for all of them, and each interior router shows the number of
# its uplinks.
_MANY_EDGES = 24
_MANY_INTERIORS = 8  # with more than this in all sites together, the picture has no rows
_NAMES = 40  # of edge routers in a tooltip
_NAMES_IN_CAPTION = 3
_FONT = "Helvetica,Arial,sans-serif"
_COLOURS = {"": "#5b6770", UP: "#2e7d32", DOWN: "#c62828"}
_RISK, _INTERIOR, _EDGE, _DOWN_FILL = "#fff3cd", "#e3eefa", "#f4f5f6", "#fde7e7"


@dataclasses.dataclass(frozen=True)
class Live:
    """The state of running routers and their links, for the colours.

    :param routers: name -> `UP` or `DOWN`; a router whose state is not known is not in it.
    :param links: (source, target) -> `UP` or `DOWN`; the same for a link.
    """

    routers: typing.Mapping[str, str]
    links: typing.Mapping[tuple[str, str], str]


def dot(planned: topology.Mesh, live: Live | None = None) -> str:
    """Return the mesh in Graphviz's language.

    Sites are clusters, and dashed links have a cost. Where a router or link could be lost, the picture says what its
    loss would cut off. With ``live`` these are the losses in addition to what is down already.
    """
    losses = {loss.what: loss.cut for loss in remaining(planned, live).losses}
    grouped = len(planned.edges) > _MANY_EDGES
    layout = "fdp" if len(planned.interiors) > _MANY_INTERIORS else "dot"
    caption = _quoted(_caption(planned, losses, live))
    lines = [
        "graph mesh {",
        f'  graph [layout={layout}, fontname="{_FONT}", fontsize=11, ranksep=0.9, nodesep=0.35, K=2,'
        f" overlap=false, splines=true, newrank=true, labelloc=b, label={caption}];",
        f'  node [shape=box, style="rounded,filled", fontname="{_FONT}", fontsize=10, margin="0.12,0.06"];',
        f'  edge [color="{_COLOURS[""]}", fontname="{_FONT}", fontsize=9];',
    ]
    boxes = _boxes(planned, losses, grouped, live)
    for number, site in enumerate(sorted(boxes)):
        lines += _cluster(number, site, boxes[site])
    uplinks = [link for link in planned.links if link.uplink]
    lines += [f"  {_link(link, losses, live)}" for link in planned.links if not link.uplink]
    if not grouped:
        lines += [f"  {_uplink(link, live)}" for link in uplinks]
    return "\n".join([*lines, "}"]) + "\n"


def _boxes(
    planned: topology.Mesh,
    losses: typing.Mapping[tuple[str, ...], tuple[str, ...]],
    grouped: bool,
    live: Live | None,
) -> dict[str, list[str]]:
    """Return the boxes of the routers, by site.

    :param grouped: whether all edge routers of a site share one box.
    """
    uplinks = collections.Counter(link.target for link in planned.links if link.uplink and grouped)
    boxes: dict[str, list[str]] = collections.defaultdict(list)
    for node in planned.interiors:
        cut = losses.get((node.name,), ())
        boxes[node.site].append(_interior(node, cut, uplinks[node.name], live))
    for name, site, names in _edge_boxes(planned, grouped):
        boxes[site].append(_edges(name, names, live))
    return boxes


def _cluster(number: int, site: str, boxes: typing.Sequence[str]) -> list[str]:
    """Return the lines of one site; nodes without a site are in no cluster."""
    if not site:
        return [f"  {box}" for box in boxes]
    label = f'graph [label={_quoted(site)}, style=rounded, color="#b8c4ce", labelloc=t];'
    inner = [f"    {line}" for line in (label, *boxes)]
    return [f"  subgraph cluster_{number} {{", *inner, "  }"]


def data(planned: topology.Mesh, live: Live | None = None) -> dict[str, object]:
    """Return the mesh for programs; with ``live`` also each ``state``, which is null where it is not known."""
    losses = remaining(planned, live).losses
    return {
        "interiors": [_node_data(node, live) for node in planned.interiors],
        "edges": [_node_data(node, live) for node in planned.edges],
        "links": [_link_data(link, live) for link in planned.links],
        "losses": [{"of": list(loss.what), "cuts_off": list(loss.cut)} for loss in losses],
    }


def _node_data(node: model.Node, live: Live | None) -> dict[str, object]:
    found: dict[str, object] = {"name": node.name, "site": node.site}
    if live:
        found["state"] = live.routers.get(node.name)
    return found


def _link_data(link: topology.Link, live: Live | None) -> dict[str, object]:
    found: dict[str, object] = {
        "source": link.source,
        "target": link.target,
        "kind": _kind(link),
        "cost": link.cost,
    }
    if live:
        found["state"] = live.links.get((link.source, link.target))
    return found


def remaining(planned: topology.Mesh, live: Live | None) -> topology.Mesh:
    """Return the mesh without what is down. What is not known counts as up."""
    if not live:
        return planned
    down = {name for name, state in live.routers.items() if state == DOWN}
    links = []
    for link in planned.links:
        ends = (link.source, link.target)
        if not down.intersection(ends) and live.links.get(ends) != DOWN:
            links.append(link)
    return topology.Mesh(
        interiors=tuple(node for node in planned.interiors if node.name not in down),
        edges=tuple(node for node in planned.edges if node.name not in down),
        links=tuple(links),
    )


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _caption(
    planned: topology.Mesh, losses: typing.Mapping[tuple[str, ...], tuple[str, ...]], live: Live | None
) -> str:
    up = remaining(planned, live)
    interiors = errors.counted(len(planned.interiors), "interior router")
    lines = [f"{interiors}, {errors.counted(len(planned.edges), 'edge router')}"]
    lost = [
        (len(planned.interiors) - len(up.interiors), "interior router"),
        (len(planned.edges) - len(up.edges), "edge router"),
        (len(planned.links) - len(up.links), "link"),
    ]
    if any(count for count, _ in lost):
        lines.append(f"Down now: {', '.join(errors.counted(count, what) for count, what in lost if count)}")
    if not up.interiors:
        lines.append("No interior router is up.")
    elif not losses and len(up.interiors) > 1:
        more = " more" if len(up.links) < len(planned.links) else ""
        lines.append(f"Any one{more} interior router or link can be lost, and all others still reach each other.")
    for what, cut in losses.items():
        lines.append(f"Without {' - '.join(what)}: {errors.listed(cut, _NAMES_IN_CAPTION)} cut off")
    if live:
        states = collections.Counter(live.routers.values())
        unknown = len(planned.interiors) + len(planned.edges) - sum(states.values())
        lines.append(f"Live: {states[UP]} up, {states[DOWN]} down, {unknown} unknown")
    return "\n".join(lines)


def _edge_boxes(planned: topology.Mesh, many: bool) -> typing.Iterator[tuple[str, str, list[str]]]:
    """Yield (name of the box, site, names of the edge routers in it)."""
    if not many:
        yield from ((n.name, n.site, [n.name]) for n in planned.edges)
        return
    for site in dict.fromkeys(n.site for n in planned.edges):
        names = [n.name for n in planned.edges if n.site == site]
        yield names[0], site, names


def _box(name: str, label: str, fill: str, state: str, tooltip: str) -> str:
    colour = _COLOURS[state]
    wide = ", penwidth=2" if state else ""
    return (
        f"{_quoted(name)} [label={_quoted(label)}, fillcolor={_quoted(_DOWN_FILL if state == DOWN else fill)},"
        f" color={_quoted(colour)}, tooltip={_quoted(tooltip)}{wide}];"
    )


def _interior(node: model.Node, cut: tuple[str, ...], uplinks: int, live: Live | None) -> str:
    state = live.routers.get(node.name, "") if live else ""
    label = [node.name]
    if uplinks:
        label.append(errors.counted(uplinks, "uplink"))
    if cut:
        label.append(f"its loss cuts off {len(cut)}")
    tooltip = f"without {node.name}: {errors.listed(cut, _NAMES)} cut off" if cut else "its loss cuts off no router"
    return _box(node.name, "\n".join(label), _RISK if cut else _INTERIOR, state, tooltip)


def _kind(link: topology.Link) -> str:
    if link.uplink:
        return "uplink"
    return "inter-site" if link.sites else "inter-router"


def _edges(name: str, names: list[str], live: Live | None) -> str:
    """Return the box of one edge router, or of all edge routers of a site."""
    known = live.routers if live else {}
    states = [known.get(edge, "") for edge in names]
    state = UP if set(states) == {UP} else ""
    if DOWN in states:
        state = DOWN
    label = name if len(names) == 1 else errors.counted(len(names), "edge router")
    if len(names) > 1 and state == DOWN:
        label += f"\n{states.count(DOWN)} down"
    return _box(name, label, _EDGE, state, errors.listed(names, _NAMES))


def _link(link: topology.Link, losses: typing.Mapping[tuple[str, ...], tuple[str, ...]], live: Live | None) -> str:
    pair = (link.source, link.target)
    state = live.links.get(pair, "") if live else ""
    cut = losses.get(pair)
    words = [f"cost {link.cost}"] if link.sites else []
    words += [f"its loss cuts off {len(cut)}"] if cut else []
    style = ', style="dashed"' if link.sites else ""
    return (
        f"{_quoted(link.target)} -- {_quoted(link.source)} [constraint={'true' if link.sites else 'false'},"
        f" penwidth=2, color={_quoted(_COLOURS[state])}, label={_quoted(', '.join(words))}{style}];"
    )


def _uplink(link: topology.Link, live: Live | None) -> str:
    state = live.links.get((link.source, link.target), "") if live else ""
    return f"{_quoted(link.target)} -- {_quoted(link.source)} [penwidth=0.8, color={_quoted(_COLOURS[state])}];"
