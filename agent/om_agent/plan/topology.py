"""Which router connects to which: pure, and the same on every node from the same metadata in any order.

* The interiors of a site form a full mesh, one connection a pair, as long as they are few. More are joined in rings,
  each with another order: any one ring keeps them together when a router or a link is lost.
* Linked sites have two gateways each, where there are two, and one connection from gateway to gateway.
* An edge has two uplinks, to interiors of its own site; when that has only one, to another site's as well, the nearest
  one by the costs of the links.

Who is whose gateway or uplink is decided by hashing pairs of names (rendezvous hashing, Thaler and Ravishankar 1998),
so that a router more or less changes little. A name is compared whole: ``ctl-1`` and ``ctl-10`` are two routers.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import heapq
import itertools
import operator
import re
import struct
import typing

from om_agent import errors, kinds, model

# Measured on two cores: 15 interiors fully meshed idle at 11 % of a core, 20 never come to rest (doc/topology.rst).
FULL_MESH = 12
BUSY_LINKS = 14  # of one interior to others of its site: as many as those 15 have
# So many interiors of a site pass advertisements on over too many ways, except in a ring (doc/scale.rst).
FLOODED = 50
RING_LINKS = 2
_SHOWN = 5  # names in a finding
_64_BITS = (1 << 64) - 1
_FAR = -(1 << 58)  # an edge that would lose more than that is not looked at where others do; changes the time alone

Graph = dict[str, set[str]]


@dataclasses.dataclass(frozen=True, order=True)
class Link:
    """A connection that the router on ``source`` opens to the one on ``target``.

    :param uplink: from an edge router to an interior one; else both are interior.
    :param sites: the two sites, in order, when they differ and both routers are interior; else empty.
    """

    source: str
    target: str
    cost: int = 1
    uplink: bool = False
    sites: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Every router and every connection."""

    interiors: tuple[model.Node, ...]
    edges: tuple[model.Node, ...]
    links: tuple[Link, ...]

    def opened_by(self, name: str) -> tuple[Link, ...]:
        """Return the connections that one node's router opens."""
        return tuple(link for link in self.links if link.source == name)

    @functools.cached_property
    def losses(self) -> tuple[Loss, ...]:
        """Every single loss that leaves a router alive that cannot reach the rest any more."""
        return tuple(_losses(self))


def mesh(deployment: model.Deployment) -> Mesh:
    """Return every router and every connection; nothing where no router of this overcloud has peers."""
    if not deployment.routed or not model.may_have_peers(deployment):
        return Mesh((), (), ())
    edges = _by_site(deployment, model.RouterMode.EDGE)
    uplinks = [link for site in sorted(edges) for link in _uplinks(deployment, site, edges[site])]
    interiors = sorted((n for n in deployment.nodes if n.router is model.RouterMode.INTERIOR), key=lambda n: n.name)
    every_edge = tuple(n for site in sorted(edges) for n in edges[site])
    return Mesh(tuple(interiors), every_edge, (*interior_links(deployment), *uplinks))


def interior_links(deployment: model.Deployment) -> tuple[Link, ...]:
    """Return the connections between interior routers: of each pair the one whose name sorts later opens it."""
    sites = _by_site(deployment, model.RouterMode.INTERIOR)
    found = []
    names = {}
    for site, nodes in sites.items():
        names[site] = [n.name for n in nodes]
        pairs = _site_pairs(names[site], deployment.router.max_links)
        found += [Link(max(pair), min(pair)) for pair in pairs]
    for site_link in deployment.site_links:
        a, b = (_gateways(site_link.between, names.get(site, [])) for site in site_link.between)
        for one, other in zip(_stretch(a, b), _stretch(b, a)):
            found.append(Link(max(one, other), min(one, other), site_link.cost, sites=site_link.between))
    return tuple(sorted(found))


def _by_site(deployment: model.Deployment, mode: model.RouterMode) -> dict[str, list[model.Node]]:
    found: dict[str, list[model.Node]] = collections.defaultdict(list)
    for node in deployment.nodes:
        if node.router is mode:
            found[node.site].append(node)
    return {site: sorted(nodes, key=lambda n: n.name) for site, nodes in found.items()}


def _hash(*names: str) -> int:
    """Return 64 bits that are as good as random, and the same everywhere."""
    return int.from_bytes(hashlib.blake2b("\0".join(names).encode(), digest_size=8).digest(), "big")


def _weigher(hashes: typing.Sequence[int]) -> typing.Callable[[int], tuple[int, ...]]:
    """Return a function that mixes a hash with each of ``hashes``, for rendezvous hashing to compare: the finalizer of
    SplitMix64 (Steele et al. 2014).

    A hundred interiors and ten thousand edges are a million pairs, so it works on all of ``hashes`` at once: one long
    integer holds them, each in the lower half of 128 bits, where no product runs into the next.
    """
    layout = struct.Struct("<" + "Q8x" * len(hashes))
    ones = int.from_bytes(layout.pack(*[1] * len(hashes)), "little")
    every = int.from_bytes(layout.pack(*hashes), "little")
    lower = ones * _64_BITS

    def weigh(one: int) -> tuple[int, ...]:
        x = ((every ^ (ones * one)) * 0x9E3779B97F4A7C15) & lower
        x = (((x ^ (x >> 30)) & lower) * 0xBF58476D1CE4E5B9) & lower
        x = (((x ^ (x >> 27)) & lower) * 0x94D049BB133111EB) & lower
        return layout.unpack((x ^ (x >> 31)).to_bytes(layout.size, "little"))

    return weigh


# -- interiors -------------------------------------------------------------------------------------------------------


def is_thinned(count: int, max_links: int) -> bool:
    """Return whether ``count`` interiors of one site are more than are fully meshed."""
    return count > max(FULL_MESH, max_links + 1)


def _most_links(count: int, max_links: int) -> int:
    """Return to how many others of its site an interior is connected at most; a ring is two
    links, so an odd ``max_links`` counts as one less."""
    return max_links // 2 * 2 if is_thinned(count, max_links) else count - 1


def _site_pairs(names: list[str], max_links: int) -> set[frozenset[str]]:
    if not is_thinned(len(names), max_links):
        return {frozenset(pair) for pair in itertools.combinations(names, 2)}
    pairs = set()
    for ring in range(max_links // 2):
        order = sorted(names, key=lambda name: (_hash("ring", str(ring), name), name))
        pairs |= {frozenset((a, b)) for a, b in zip(order, order[1:] + order[:1])}
    return pairs


def _gateways(link: tuple[str, str], names: list[str]) -> list[str]:
    return heapq.nlargest(2, names, key=lambda name: (_hash("gateway", *link, name), name))


def _stretch(gateways: list[str], others: list[str]) -> list[str]:
    """Return the gateways of one side, a lone one once for each of the other side's."""
    if len(gateways) == 1:
        return gateways * len(others)
    return gateways if others else []


# -- edges -----------------------------------------------------------------------------------------------------------


def _uplinks(deployment: model.Deployment, site: str, edges: list[model.Node]) -> list[Link]:
    """Return the uplinks of the edges of one site."""
    names = [n.name for n in edges]
    chosen: dict[str, tuple[str, ...]] = dict.fromkeys(names, ())
    interiors = _by_site(deployment, model.RouterMode.INTERIOR)
    for near in _nearest(deployment, site, interiors):
        wanted = 2 - len(chosen[names[0]])
        if wanted:
            more = spread(names, [n.name for n in interiors[near]], wanted)
            chosen = {name: chosen[name] + more[name] for name in names}
    return [Link(name, target, uplink=True) for name in names for target in chosen[name]]


def _nearest(deployment: model.Deployment, site: str, interiors: typing.Collection[str]) -> list[str]:
    """Return the sites that have interiors, ``site`` itself first, then by cost and name."""
    ways: dict[str, list[tuple[str, int]]] = collections.defaultdict(list)
    for link in deployment.site_links:
        a, b = link.between
        ways[a].append((b, link.cost))
        ways[b].append((a, link.cost))
    done: dict[str, int] = {}
    queue = [(0, site)]
    while queue:
        cost, at = heapq.heappop(queue)
        if at not in done:
            done[at] = cost
            for to, more in ways[at]:
                heapq.heappush(queue, (cost + more, to))
    return [s for s in done if s in interiors]


def spread(edges: typing.Sequence[str], interiors: typing.Sequence[str], wanted: int) -> dict[str, tuple[str, ...]]:
    """Return ``wanted`` different interiors (fewer when there are fewer) for each edge, with loads within one.

    The interiors are taken in the order of their names, numbers as numbers. The first have all the edges; each further
    one takes its share from those before it, and no more: from each the edges that rendezvous hashing would rather give
    to the new one. So a controller that is added behind the others, as TripleO numbers them, moves exactly its share.
    One that is added or removed in the middle moves somewhat more (figures in doc/topology.rst): balance and no more
    than the share are not to be had together for every set of names.
    """
    order = sorted(interiors, key=_natural)
    names = sorted(edges)  # below, an edge is its place here, and an interior its place in ``order``
    weigh = _weigher([_hash(name) for name in names])
    having = [dict(enumerate(weigh(_hash(name)))) for name in order[:wanted]]
    held: list[dict[int, int]] = [{} for _ in names]
    for place, weights_of_all in enumerate(having):
        for edge, weight in weights_of_all.items():
            held[edge][place] = weight
    least = [min(own.values()) + _FAR for own in held]
    for count, new in enumerate(order[wanted:], wanted + 1):
        weights = weigh(_hash(new))
        # Of most edges nobody has to think: they have better. Where that leaves a donor too few, it looks at all.
        willing: dict[int, list[tuple[int, int]]] = collections.defaultdict(list)
        for edge in itertools.compress(range(len(names)), map(operator.gt, weights, least)):
            own_weight = weights[edge]
            for donor, weight in held[edge].items():
                gained = own_weight - weight
                if gained > _FAR:
                    willing[donor].append((gained, edge))
        low, extra = divmod(len(names) * wanted, count)
        moved: dict[int, int] = {}
        for donor in sorted(range(len(having)), key=lambda place: -len(having[place])):  # stable: in order of names
            keep, extra = (low + 1, extra - 1) if extra else (low, 0)
            own, less = having[donor], len(having[donor]) - keep
            gain = [found for found in willing[donor] if found[1] not in moved]
            if len(gain) < less:
                gain = [(weights[edge] - weight, edge) for edge, weight in own.items() if edge not in moved]
            for _, edge in sorted(gain, reverse=True)[:less]:
                moved[edge] = weights[edge]
                del own[edge], held[edge][donor]
        for edge, weight in moved.items():
            held[edge][len(having)] = weight
            least[edge] = min(held[edge].values()) + _FAR
        having.append(moved)
    return {name: _nearest_first(order, own) for name, own in zip(names, held)}


def _nearest_first(order: typing.Sequence[str], weights: typing.Mapping[int, int]) -> tuple[str, ...]:
    """Return interiors by the weights of their places."""
    return tuple(order[place] for place in sorted(weights, key=lambda place: (weights[place], place)))


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key by which ``ctl-10`` comes after ``ctl-9``."""
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"([0-9]+)", name)]


# -- what a loss does ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Loss:
    """What the loss of one interior router or of one connection cuts off.

    :param what: one router, or two for the connection between them.
    :param cut: the routers on the smaller side, or sides.
    """

    what: tuple[str, ...]
    cut: tuple[str, ...]


def _losses(planned: Mesh) -> typing.Iterator[Loss]:
    graph: Graph = {n.name: set() for n in planned.interiors}
    uplinks: dict[str, set[str]] = collections.defaultdict(set)
    pairs: collections.Counter[tuple[str, str]] = collections.Counter()
    for link in planned.links:
        if link.uplink:
            uplinks[link.source].add(link.target)
        else:
            graph[link.source].add(link.target)
            graph[link.target].add(link.source)
            pairs[link.source, link.target] += 1
    # Edges with the same uplinks share their fate: there are few such groups however many edges.
    groups: dict[frozenset[str], list[str]] = collections.defaultdict(list)
    for edge in planned.edges:
        groups[frozenset(uplinks[edge.name])].append(edge.name)
    # Where both ends have a neighbour in common, there is another way: of a full mesh no link has to be looked at.
    lone = [pair for pair, count in pairs.items() if count == 1 and not graph[pair[0]] & graph[pair[1]]]
    every = ((name,) for name in graph)
    cuts = [(what, cut) for what in (*every, *lone) for cut in [_cut(graph, groups, what)] if cut]
    if cuts:
        names = sorted((n.name for n in (*planned.interiors, *planned.edges)), key=_natural)
        order = {name: place for place, name in enumerate(names)}
        yield from (Loss(what, tuple(sorted(cut, key=order.__getitem__))) for what, cut in cuts)


def _cut(graph: Graph, groups: dict[frozenset[str], list[str]], what: tuple[str, ...]) -> list[str]:
    """Return the routers that are not in the largest part of what is left without ``what``."""
    lone = len(what) == 1
    parts = [] if lone and _is_spare(graph, what[0]) else list(_parts(graph, what))
    if len(parts) < 2:  # whoever had no other uplink
        return groups.get(frozenset(what), []) if lone else []
    rest = max(parts, key=lambda p: (len(p), min(p)))
    cut = [name for part in parts if part is not rest for name in part]
    return cut + [edge for uplinks, edges in groups.items() if not uplinks & rest for edge in edges]


def _is_spare(graph: Graph, name: str) -> bool:
    """Return whether one neighbour of ``name`` has all its others: then they need no way through it."""
    return any(graph[name] - {other} <= graph[other] for other in graph[name])


def _parts(graph: Graph, what: tuple[str, ...]) -> typing.Iterator[set[str]]:
    """Yield the parts into which the interiors fall without one of them, or without the link between two."""
    left = set(graph) - (set(what) if len(what) == 1 else set())
    while left:
        todo = [left.pop()]
        part = set(todo)
        while todo:
            at = todo.pop()
            new = (graph[at] & left) - (set(what) if at in what else set())
            left -= new
            part |= new
            todo += new
        yield part


def mesh_findings(deployment: model.Deployment, planned: Mesh) -> list[errors.Problem]:
    """Return what people should know of the mesh ``m`` of ``d``.

    :raises om_agent.errors.InvalidInput: when one loss would partition it and ``router.require_redundancy`` is set.
    """
    places = {n.name: i for i, n in enumerate(deployment.nodes)}
    told = kinds.problem if deployment.router.require_redundancy else kinds.warning
    found = []
    for loss in planned.losses:
        who = errors.listed(loss.cut, _SHOWN)
        lone = len(loss.what) == 1
        path = f"nodes[{places[loss.what[0]]}]" if lone else "sites.links"
        code = "lone-interior" if lone else "lone-link"
        found.append(told(path, code, name=" and ".join(loss.what), who=who))
    if found and deployment.router.require_redundancy:
        raise errors.InvalidInput(found)
    for site, count in collections.Counter(n.site for n in planned.interiors).items():
        links = _most_links(count, deployment.router.max_links)
        text = {"count": count, "site": model.site_name(site), "links": links}
        if links >= BUSY_LINKS:
            found.append(kinds.problem("router.max_links", "crowded", **text))
        elif count >= FLOODED and links > RING_LINKS:
            found.append(kinds.problem("nodes", "flooded", **text))
        elif is_thinned(count, deployment.router.max_links):
            found.append(kinds.problem("nodes", "thinned", **text))
    return found
