"""Which router connects to which. Pure: the same metadata, in any order, gives the same mesh on every node.

* A few interior routers of one site form a full mesh, with one connection for each pair. More of them are connected in
  rings, each ring in another order: any single ring keeps them together when a router or a link is lost.
* Each of two linked sites has two gateways, if it has two interior routers. One connection leads from each gateway to a
  gateway of the other site.
* An edge router has two uplinks to interior routers of its own site. If its site has only one interior router, the
  second uplink leads to the nearest other site, by the costs of the links.

Hashes of pairs of names decide which routers are gateways and uplinks (rendezvous hashing, Thaler and Ravishankar
1998), so that adding or removing a router changes little. Names are compared as a whole: ``ctl-1`` and ``ctl-10`` are
two routers.
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

# Measured on two cores: 15 interior routers in a full mesh use 11 % of a core when idle, 20 never become idle
# (doc/topology.rst).
FULL_MESH = 12
BUSY_LINKS = 14  # links of one interior router to others of its site, as each of those 15 has
# From this number of interior routers in a site, each advertisement takes too many paths, except in a ring
# (doc/scale.rst).
FLOODED = 50
RING_LINKS = 2
_UPLINKS = 2  # of an edge router
_MOST_NAMES = 5  # in a finding
_64_BITS = (1 << 64) - 1
# An edge router that would lose more weight than this is not considered as long as there are enough others. The limit
# changes only how long the calculation takes.
_FAR = -(1 << 58)

Graph = dict[str, set[str]]


@dataclasses.dataclass(frozen=True, order=True)
class Link:
    """A connection that the router on ``source`` opens to the one on ``target``.

    :param uplink: whether it leads from an edge router to an interior router; otherwise it connects two interior ones.
    :param sites: the two sites, in order, when two interior routers of different sites are connected; otherwise empty.
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
        """Every single router or link whose loss cuts off other routers that still run."""
        return tuple(_losses(self))


def mesh(deployment: model.Deployment) -> Mesh:
    """Return every router and every connection; an empty mesh where no router of this overcloud has peers."""
    if not deployment.routed or not model.may_have_peers(deployment):
        return Mesh((), (), ())
    interiors = [node for node in deployment.nodes if node.router is model.RouterMode.INTERIOR]
    interiors.sort(key=lambda node: node.name)
    edges: list[model.Node] = []
    links = list(interior_links(deployment))
    for site, nodes in sorted(_by_site(deployment, model.RouterMode.EDGE).items()):
        edges += nodes
        links += _uplinks(deployment, site, nodes)
    return Mesh(tuple(interiors), tuple(edges), tuple(links))


def interior_links(deployment: model.Deployment) -> tuple[Link, ...]:
    """Return the connections between interior routers. The router whose name sorts later opens the connection."""
    found = []
    names: dict[str, list[str]] = {}
    for site, nodes in _by_site(deployment, model.RouterMode.INTERIOR).items():
        names[site] = [node.name for node in nodes]
        pairs = _site_pairs(names[site], deployment.router.max_links)
        found += [Link(max(pair), min(pair)) for pair in pairs]
    for site_link in deployment.site_links:
        first, second = site_link.between
        here = _gateways(site_link.between, names.get(first, []))
        there = _gateways(site_link.between, names.get(second, []))
        for pair in zip(_repeat_single(here, there), _repeat_single(there, here)):
            found.append(Link(max(pair), min(pair), site_link.cost, sites=site_link.between))
    return tuple(sorted(found))


def _by_site(deployment: model.Deployment, mode: model.RouterMode) -> dict[str, list[model.Node]]:
    found: dict[str, list[model.Node]] = collections.defaultdict(list)
    for node in deployment.nodes:
        if node.router is mode:
            found[node.site].append(node)
    return {site: sorted(nodes, key=lambda n: n.name) for site, nodes in found.items()}


def _hash(*names: str) -> int:
    """Return 64 bits that look random, and are the same on every node."""
    text = "\0".join(names).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def _weigher(hashes: typing.Sequence[int]) -> typing.Callable[[int], tuple[int, ...]]:
    """Return a function that mixes a hash with each of ``hashes``, so that rendezvous hashing can compare the results.

    It is the finalizer of SplitMix64 (Steele et al. 2014). A hundred interior and ten thousand edge routers make a
    million pairs, so it mixes all of ``hashes`` in one step: one long integer holds them, each in the lower half of 128
    bits, so that no product reaches the next hash.
    """
    layout = struct.Struct("<" + "Q8x" * len(hashes))
    ones = int.from_bytes(layout.pack(*[1] * len(hashes)), "little")
    every = int.from_bytes(layout.pack(*hashes), "little")
    lower = ones * _64_BITS

    def weigh(value: int) -> tuple[int, ...]:
        x = ((every ^ (ones * value)) * 0x9E3779B97F4A7C15) & lower
        x = (((x ^ (x >> 30)) & lower) * 0xBF58476D1CE4E5B9) & lower
        x = (((x ^ (x >> 27)) & lower) * 0x94D049BB133111EB) & lower
        return layout.unpack((x ^ (x >> 31)).to_bytes(layout.size, "little"))

    return weigh


# -- interior routers --------------------------------------------------------------------------------------------------


def is_thinned(count: int, max_links: int) -> bool:
    """Return whether ``count`` interior routers of one site are too many for a full mesh."""
    return count > max(FULL_MESH, max_links + 1)


def _most_links(count: int, max_links: int) -> int:
    """Return how many links an interior router has to others of its site at most.

    A ring gives each router two links, so an odd ``max_links`` counts as one less.
    """
    rings = max_links // 2
    return rings * 2 if is_thinned(count, max_links) else count - 1


def _site_pairs(names: list[str], max_links: int) -> set[frozenset[str]]:
    if not is_thinned(len(names), max_links):
        return {frozenset(pair) for pair in itertools.combinations(names, 2)}
    pairs: set[frozenset[str]] = set()
    for ring in range(max_links // 2):
        order = sorted(names, key=lambda name: (_hash("ring", str(ring), name), name))
        neighbours = order[1:] + order[:1]
        pairs.update(map(frozenset, zip(order, neighbours)))
    return pairs


def _gateways(link: tuple[str, str], names: list[str]) -> list[str]:
    return heapq.nlargest(2, names, key=lambda name: (_hash("gateway", *link, name), name))


def _repeat_single(gateways: list[str], others: list[str]) -> list[str]:
    """Return the gateways of one site; a single one is repeated for each gateway of the other site."""
    if len(gateways) == 1:
        return gateways * len(others)
    return gateways if others else []


# -- edge routers ------------------------------------------------------------------------------------------------------


def _uplinks(deployment: model.Deployment, site: str, edges: list[model.Node]) -> list[Link]:
    """Return the uplinks of the edge routers of one site."""
    names = [node.name for node in edges]
    chosen: dict[str, tuple[str, ...]] = dict.fromkeys(names, ())
    interiors = _by_site(deployment, model.RouterMode.INTERIOR)
    for near in _nearest(deployment, site, interiors):
        wanted = _UPLINKS - len(chosen[names[0]])
        if wanted:
            targets = [node.name for node in interiors[near]]
            more = spread(names, targets, wanted)
            chosen = {name: chosen[name] + more[name] for name in names}
    return [Link(name, target, uplink=True) for name in names for target in chosen[name]]


def _nearest(deployment: model.Deployment, site: str, interiors: typing.Collection[str]) -> list[str]:
    """Return the sites that have interior routers: ``site`` itself first, then by cost and name.

    This is Dijkstra's algorithm.
    """
    neighbours: dict[str, list[tuple[str, int]]] = collections.defaultdict(list)
    for link in deployment.site_links:
        first, second = link.between
        neighbours[first].append((second, link.cost))
        neighbours[second].append((first, link.cost))
    done: list[str] = []
    queue = [(0, site)]
    while queue:
        cost, current = heapq.heappop(queue)
        if current in done:
            continue
        done.append(current)
        for neighbour, more in neighbours[current]:
            heapq.heappush(queue, (cost + more, neighbour))
    return [name for name in done if name in interiors]


def spread(edges: typing.Sequence[str], interiors: typing.Sequence[str], wanted: int) -> dict[str, tuple[str, ...]]:
    """Return ``wanted`` different interior routers (fewer when there are fewer) for each edge router.

    The loads of two interior routers differ by one edge router at most.

    The interior routers are taken in the order of their names, numbers as numbers. The first ones get all edge routers.
    Each further one takes its share from those before it, and no more: it takes those edge routers that rendezvous
    hashing prefers to give to it. So a controller that is added after the others, as TripleO numbers them, moves
    exactly its share. One that is added or removed in the middle moves somewhat more (figures in doc/topology.rst). No
    method can give both equal loads and the fewest moves for every set of names.
    """
    order = sorted(interiors, key=_natural)
    names = sorted(edges)  # below, an edge router is its place here, and an interior router its place in ``order``
    weigh = _weigher([_hash(name) for name in names])
    by_interior = [dict(enumerate(weigh(_hash(name)))) for name in order[:wanted]]  # place -> {edge: weight}
    by_edge: list[dict[int, int]] = [{} for _ in names]  # edge -> {place: weight}
    for place, weights_here in enumerate(by_interior):
        for edge, weight in weights_here.items():
            by_edge[edge][place] = weight
    least = [min(own.values()) + _FAR for own in by_edge]
    for new in order[wanted:]:
        weights = weigh(_hash(new))
        moved = _moved(weights, least, by_interior, by_edge, wanted)
        for edge, weight in moved.items():
            by_edge[edge][len(by_interior)] = weight
            least[edge] = min(by_edge[edge].values()) + _FAR
        by_interior.append(moved)
    return {name: _nearest_first(order, own) for name, own in zip(names, by_edge)}


def _moved(
    weights: typing.Sequence[int],
    least: typing.Sequence[int],
    by_interior: typing.Sequence[dict[int, int]],
    by_edge: typing.Sequence[dict[int, int]],
    wanted: int,
) -> dict[int, int]:
    """Take the share of a new interior router from the others; return it as edge router -> weight.

    :param weights: the weight of each edge router at the new interior router.
    """
    # Most edge routers have better uplinks already and need no comparison. Where too few are left, all are compared.
    willing: dict[int, list[tuple[int, int]]] = collections.defaultdict(list)
    for edge in itertools.compress(range(len(weights)), map(operator.gt, weights, least)):
        own_weight = weights[edge]
        for donor, weight in by_edge[edge].items():
            gained = own_weight - weight
            if gained > _FAR:
                willing[donor].append((gained, edge))
    low, extra = divmod(len(weights) * wanted, len(by_interior) + 1)
    moved: dict[int, int] = {}
    # The sort is stable: of two interior routers with the same load, the one whose name sorts first comes first.
    for donor in sorted(range(len(by_interior)), key=lambda place: -len(by_interior[place])):
        keep = low
        if extra:
            keep += 1
            extra -= 1
        own = by_interior[donor]
        surplus = len(own) - keep
        gains = [found for found in willing[donor] if found[1] not in moved]
        if len(gains) < surplus:
            gains = [(weights[edge] - weight, edge) for edge, weight in own.items() if edge not in moved]
        for _, edge in sorted(gains, reverse=True)[:surplus]:
            moved[edge] = weights[edge]
            del own[edge], by_edge[edge][donor]
    return moved


def _nearest_first(order: typing.Sequence[str], weights: typing.Mapping[int, int]) -> tuple[str, ...]:
    """Return interior routers in the order of the weights of their places."""
    places = sorted(weights, key=lambda place: (weights[place], place))
    return tuple(order[place] for place in places)


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts ``ctl-10`` after ``ctl-9``."""
    return list(map(_natural_part, re.split(r"([0-9]+)", name)))


def _natural_part(part: str) -> tuple[int, str]:
    return (int(part) if part.isdigit() else -1, part)


# -- what a loss does ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Loss:
    """What the loss of one interior router or of one connection cuts off.

    :param what: the name of the router, or the two names at the ends of the connection.
    :param cut: the routers that lose contact with the largest part of the mesh.
    """

    what: tuple[str, ...]
    cut: tuple[str, ...]


def _losses(planned: Mesh) -> typing.Iterator[Loss]:
    graph: Graph = {node.name: set() for node in planned.interiors}
    uplinks: dict[str, set[str]] = collections.defaultdict(set)
    connections: collections.Counter[tuple[str, str]] = collections.Counter()
    for link in planned.links:
        if link.uplink:
            uplinks[link.source].add(link.target)
        else:
            graph[link.source].add(link.target)
            graph[link.target].add(link.source)
            connections[link.source, link.target] += 1
    # A loss cuts off all edge routers with the same uplinks together. There are few such groups, however many edges.
    groups: dict[frozenset[str], list[str]] = collections.defaultdict(list)
    for edge in planned.edges:
        groups[frozenset(uplinks[edge.name])].append(edge.name)
    # Where both ends have a neighbour in common, there is another path. So in a full mesh no link has to be examined.
    single = [pair for pair, count in connections.items() if count == 1]
    without_detour = [pair for pair in single if not graph[pair[0]] & graph[pair[1]]]
    routers = [(name,) for name in graph]
    cuts = {what: _cut_off(graph, groups, what) for what in (*routers, *without_detour)}
    if any(cuts.values()):
        names = sorted((node.name for node in (*planned.interiors, *planned.edges)), key=_natural)
        order = {name: place for place, name in enumerate(names)}
        for what, cut in cuts.items():
            if cut:
                yield Loss(what, tuple(sorted(cut, key=order.__getitem__)))


def _cut_off(graph: Graph, groups: dict[frozenset[str], list[str]], what: tuple[str, ...]) -> list[str]:
    """Return the routers that are not in the largest part of the mesh without ``what``."""
    is_router = len(what) == 1
    skip = is_router and _is_spare(graph, what[0])
    parts = [] if skip else list(_parts(graph, what))
    if len(parts) < 2:  # only edge routers with no other uplink are cut off
        return groups.get(frozenset(what), []) if is_router else []
    largest = max(parts, key=lambda part: (len(part), min(part)))
    cut = [name for part in parts if part is not largest for name in part]
    for uplinks, edges in groups.items():
        if not uplinks & largest:
            cut += edges
    return cut


def _is_spare(graph: Graph, name: str) -> bool:
    """Return whether one neighbour of ``name`` is connected to all the others: then they need no path through it."""
    return any(graph[name] - {other} <= graph[other] for other in graph[name])


def _parts(graph: Graph, what: tuple[str, ...]) -> typing.Iterator[set[str]]:
    """Yield the parts into which the interior routers fall without one router, or without the link between two."""
    lost = set(what)
    is_router = len(what) == 1
    unseen = set(graph) - lost if is_router else set(graph)
    while unseen:
        todo = [unseen.pop()]
        part = set(todo)
        while todo:
            name = todo.pop()
            neighbours = graph[name] & unseen
            if name in lost:
                neighbours -= lost
            unseen -= neighbours
            part |= neighbours
            todo += neighbours
        yield part


def mesh_findings(deployment: model.Deployment, planned: Mesh) -> list[errors.Problem]:
    """Return warnings about the mesh of ``deployment``.

    :raises om_agent.errors.InvalidInput: when one loss would partition it and ``router.require_redundancy`` is set.
    """
    places = {node.name: place for place, node in enumerate(deployment.nodes)}
    refuses = deployment.router.require_redundancy
    make = kinds.problem if refuses else kinds.warning
    found = []
    for loss in planned.losses:
        is_router = len(loss.what) == 1
        path = f"nodes[{places[loss.what[0]]}]" if is_router else "sites.links"
        code = "lone-interior" if is_router else "lone-link"
        who = errors.listed(loss.cut, _MOST_NAMES)
        found.append(make(path, code, name=" and ".join(loss.what), who=who))
    if found and refuses:
        raise errors.InvalidInput(found)
    for site, count in collections.Counter(node.site for node in planned.interiors).items():
        found += _size_findings(site, count, deployment.router.max_links)
    return found


def _size_findings(site: str, count: int, max_links: int) -> typing.Iterator[errors.Problem]:
    """Yield a warning where a site has many interior routers."""
    links = _most_links(count, max_links)
    text = {"count": count, "site": model.site_name(site), "links": links}
    if links >= BUSY_LINKS:
        yield kinds.problem("router.max_links", "crowded", **text)
    elif count >= FLOODED and links > RING_LINKS:
        yield kinds.problem("nodes", "flooded", **text)
    elif is_thinned(count, max_links):
        yield kinds.problem("nodes", "thinned", **text)
