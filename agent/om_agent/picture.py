"""The mesh as a picture: Graphviz's language from the plan, and from what the routers say if they were asked. Pure."""

from __future__ import annotations

import collections
import dataclasses
import typing

from om_agent import errors, model
from om_agent.plan import topology

UP, DOWN = "up", "down"

_MANY_EDGES = 24  # more edge routers than that are one box a site, and their uplinks a number at each interior router
_MANY_INTERIORS = 8  # more than that, of all sites together, are not drawn in rows
_NAMES = 40  # of edge routers in a tooltip
_FONT = "Helvetica,Arial,sans-serif"
_COLOURS = {"": "#5b6770", UP: "#2e7d32", DOWN: "#c62828"}
_RISK, _INTERIOR, _EDGE, _GONE = "#fff3cd", "#e3eefa", "#f4f5f6", "#fde7e7"


@dataclasses.dataclass(frozen=True)
class Live:
    """What running routers say, for colours.

    :param routers: name -> `UP` or `DOWN`; one that nobody can tell of is not in it.
    :param links: (source, target) -> `UP` or `DOWN`.
    """

    routers: typing.Mapping[str, str]
    links: typing.Mapping[tuple[str, str], str]


def dot(planned: topology.Mesh, live: Live | None = None) -> str:
    """Return the mesh in Graphviz's language: sites are clusters, dashed links have a cost, and what one loss would cut
    off is written where that loss would be; one loss more, where something is lost already."""
    losses = {loss.what: loss.cut for loss in remaining(planned, live).losses}
    many = len(planned.edges) > _MANY_EDGES
    layout = "fdp" if len(planned.interiors) > _MANY_INTERIORS else "dot"
    lines = [
        "graph mesh {",
        f'  graph [layout={layout}, fontname="{_FONT}", fontsize=11, ranksep=0.9, nodesep=0.35, K=2,'
        f" overlap=false, splines=true, newrank=true, labelloc=b, label={_quoted(_caption(planned, losses, live))}];",
        f'  node [shape=box, style="rounded,filled", fontname="{_FONT}", fontsize=10, margin="0.12,0.06"];',
        f'  edge [color="{_COLOURS[""]}", fontname="{_FONT}", fontsize=9];',
    ]
    uplinks = collections.Counter(link.target for link in planned.links if link.uplink) if many else {}
    inner: dict[str, list[str]] = collections.defaultdict(list)
    for node in planned.interiors:
        inner[node.site].append(_interior(node, losses.get((node.name,), ()), uplinks.get(node.name, 0), live))
    for name, site, names in _edge_boxes(planned, many):
        inner[site].append(_edges(name, names, live))
    for number, site in enumerate(sorted(inner)):
        if site:
            label = f'graph [label={_quoted(site)}, style=rounded, color="#b8c4ce", labelloc=t];'
            lines += [f"  subgraph cluster_{number} {{", f"    {label}", *(f"    {x}" for x in inner[site]), "  }"]
        else:
            lines += [f"  {x}" for x in inner[site]]
    lines += [f"  {_link(x, losses, live)}" for x in planned.links if not x.uplink]
    lines += [f"  {_uplink(x, live)}" for x in planned.links if x.uplink and not many]
    return "\n".join([*lines, "}"]) + "\n"


def data(planned: topology.Mesh, live: Live | None = None) -> dict[str, object]:
    """Return the mesh for programs; with ``live`` a ``state``, null where nobody can tell."""

    def node(n: model.Node) -> dict[str, object]:
        return {"name": n.name, "site": n.site, **({"state": live.routers.get(n.name)} if live else {})}

    return {
        "interiors": [node(n) for n in planned.interiors],
        "edges": [node(n) for n in planned.edges],
        "links": [
            {
                "source": link.source,
                "target": link.target,
                "kind": _kind(link),
                "cost": link.cost,
                **({"state": live.links.get((link.source, link.target))} if live else {}),
            }
            for link in planned.links
        ],
        "losses": [{"of": list(loss.what), "cuts_off": list(loss.cut)} for loss in remaining(planned, live).losses],
    }


def remaining(planned: topology.Mesh, live: Live | None) -> topology.Mesh:
    """Return what is left of the mesh without what is down. What nobody can tell of is taken to be there."""
    if not live:
        return planned
    down = {name for name, state in live.routers.items() if state == DOWN}
    return topology.Mesh(
        tuple(n for n in planned.interiors if n.name not in down),
        tuple(n for n in planned.edges if n.name not in down),
        tuple(
            link
            for link in planned.links
            if not {link.source, link.target} & down and live.links.get((link.source, link.target)) != DOWN
        ),
    )


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _caption(
    planned: topology.Mesh, losses: typing.Mapping[tuple[str, ...], tuple[str, ...]], live: Live | None
) -> str:
    lines = [f"{_count(len(planned.interiors), 'interior router')}, {_count(len(planned.edges), 'edge router')}"]
    left = remaining(planned, live)
    lost = [
        (len(planned.interiors) - len(left.interiors), "interior router"),
        (len(planned.edges) - len(left.edges), "edge router"),
    ]
    lost += [(len(planned.links) - len(left.links), "link")]
    if any(count for count, _ in lost):
        lines.append(f"Down now: {', '.join(_count(count, what) for count, what in lost if count)}")
    if not left.interiors:
        lines.append("No interior router is up.")
    elif not losses and len(left.interiors) > 1:
        more = " more" if len(left.links) < len(planned.links) else ""
        lines.append(f"Any one{more} interior router or link can be lost, and all others still reach each other.")
    for what, cut in losses.items():
        lines.append(f"Without {' - '.join(what)}: {errors.listed(cut, 3)} cut off")
    if live:
        told = collections.Counter(live.routers.values())
        unknown = len(planned.interiors) + len(planned.edges) - sum(told.values())
        lines.append(f"Live: {told[UP]} up, {told[DOWN]} down, {unknown} unknown")
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


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
        f"{_quoted(name)} [label={_quoted(label)}, fillcolor={_quoted(_GONE if state == DOWN else fill)},"
        f" color={_quoted(colour)}, tooltip={_quoted(tooltip)}{wide}];"
    )


def _interior(node: model.Node, cut: tuple[str, ...], uplinks: int, live: Live | None) -> str:
    state = live.routers.get(node.name, "") if live else ""
    label = [node.name, *([_count(uplinks, "uplink")] if uplinks else [])]
    label += [f"its loss cuts off {len(cut)}"] if cut else []
    tooltip = f"without {node.name}: {errors.listed(cut, _NAMES)} cut off" if cut else "its loss cuts nobody off"
    return _box(node.name, "\n".join(label), _RISK if cut else _INTERIOR, state, tooltip)


def _kind(link: topology.Link) -> str:
    if link.uplink:
        return "uplink"
    return "inter-site" if link.sites else "inter-router"


def _edges(name: str, names: list[str], live: Live | None) -> str:
    told = [live.routers.get(n, "") if live else "" for n in names]
    state = UP if set(told) == {UP} else ""
    if DOWN in told:
        state = DOWN
    label = name if len(names) == 1 else _count(len(names), "edge router")
    label += f"\n{told.count(DOWN)} down" if len(names) > 1 and state == DOWN else ""
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
