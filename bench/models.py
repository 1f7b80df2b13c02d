"""How advertisements travel in a mesh, and models fitted to what real meshes needed. Nothing here measures."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import dataclasses
import functools
import itertools
import math
import typing

from om_agent import model
from om_agent.plan import capacity, topology

_ADVERTISED_SECONDS = 30.0  # raIntervalSeconds of both engines
_CHANGING_SECONDS = 4.0  # raIntervalFluxSeconds
_HELLO_SECONDS = 1.0  # helloIntervalSeconds
# How often at most a router computes its routes, and helloMaxAgeSeconds: as long may it be deaf before it is given up.
_BUSY = {"a whole core when it changes": 1.0, "given up by its neighbours when it changes": 3.0}
# by router.max_links: the default, and one that never thins
ROUTES = {0: "s to compute routes, thinned", 127: "s to compute routes, full"}
_LARGEST = 1_000  # interiors up to which a limit is looked for; a network holds 128
_EPSILON = 1e-9
_NOTHING = 1e-9  # of a measured value: a term that adds no more than that is none
MESSAGES = "messages/s"
IDLE = "idle cores by interior"
AT_REST = "know each other"


@dataclasses.dataclass(frozen=True)
class Size:
    """What models know of a mesh.

    :param links: between interior routers.
    :param copies: how often links carry an advertisement when each router has made one; see `copies`.
    :param most_links: ``router.max_links``, where that is not the default.
    """

    interiors: int
    edges: int = 0
    links: int = 0
    copies: int = 0
    most_links: int = 0

    @classmethod
    def of(cls, d: model.Deployment, edges: int, most_links: int = 0) -> Size:
        """Return the size of a mesh as the planner lays it out.

        :param edges: how many there are, if ``d`` itself has none of them.
        """
        graph: dict[str, set[str]] = {n.name: set() for n in d.nodes if n.router is model.RouterMode.INTERIOR}
        links = topology.interior_links(d)
        for link in links:
            graph[link.source].add(link.target)
            graph[link.target].add(link.source)
        return cls(len(graph), edges, len(links), copies(graph), most_links)

    @property
    def name(self) -> str:
        """What it is called in samples."""
        thinned = f",max_links/{self.most_links}" if self.most_links else ""
        return f"interiors/{self.interiors}{thinned}" + (f"+edges/{self.edges}" if self.edges else "")

    def messages(self, interval: float) -> float:
        """Return the messages per second between routers, each of which advertises itself once in an interval."""
        return 2 * self.links / _HELLO_SECONDS + self.copies / interval


@dataclasses.dataclass(frozen=True)
class Point:
    """A mesh that was measured."""

    size: Size
    values: collections.abc.Mapping[str, float]


# -- how advertisements travel ---------------------------------------------------------------------------------------


def copies(graph: collections.abc.Mapping[str, set[str]]) -> int:
    """Return how often links carry an advertisement when each router has made one.

    Routers flood: each passes an advertisement on to all neighbours that it has not been at, whether or not it came
    before over another way, and drops one that came further than the mesh is wide by its own reckoning, and one
    (topology_radius in router_node.c of qpid-dispatch 1.19.0, run, and in amqp_adaptor.c of skupper-router 3.4.2). So
    what counts are the ways without a loop, up to that length, and not the links.
    """
    count = len(graph)
    if all(len(peers) == count - 1 for peers in graph.values()):  # there are too many to be counted one by one
        return count * sum(math.perm(count - 1, hops) for hops in (1, 2, 3))
    wide = {name: _radius(graph, name) for name in graph}

    def carried(at: str, behind: frozenset[str]) -> int:
        ahead = graph[at] - behind
        on = [name for name in ahead if len(behind) <= wide[name] + 1]
        return len(ahead) + sum(carried(name, behind | {name}) for name in on)

    return sum(carried(name, frozenset((name,))) for name in graph)


def _radius(graph: collections.abc.Mapping[str, set[str]], name: str) -> int:
    """Return how many links the furthest router is away."""
    seen, ring, found = {name}, {name}, 0
    while True:
        ring = set().union(*(graph[at] for at in ring)) - seen
        if not ring:
            return found
        seen |= ring
        found += 1


# -- models ----------------------------------------------------------------------------------------------------------


def least_squares(
    rows: collections.abc.Sequence[collections.abc.Sequence[float]], values: collections.abc.Sequence[float]
) -> tuple[float, ...]:
    """Return the coefficients by which the terms in ``rows`` come nearest to ``values``; what counts is the relative
    error, since sizes are far apart. None is below 0, for nothing needs less of a router because there is more of it.

    :raises ValueError: when there are fewer values than terms, or terms that cannot be told apart.
    """
    used = list(range(len(rows[0]) if rows else 0))
    if len(values) < max(1, len(used)) or not all(value > 0 for value in values):
        raise ValueError("fewer values above 0 than terms")
    scaled = [[term / value for term in row] for row, value in zip(rows, values)]
    while used:
        left = [[sum(row[i] * row[j] for row in scaled) for j in used] for i in used]
        found = _solve(left, [sum(row[i] for row in scaled) for i in used])
        if min(found) >= 0:
            # What adds nothing anywhere is what rounding left, and that differs between versions of Python.
            found = [c if c * max(row[i] for row in scaled) > _NOTHING else 0.0 for i, c in zip(used, found)]
            return tuple(found[used.index(i)] if i in used else 0.0 for i in range(len(rows[0])))
        used.remove(used[found.index(min(found))])
    return (0.0,) * len(rows[0])


def _solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Return the solution of a few linear equations (Gauss, with the largest pivot)."""
    size = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right)]
    most = [max(map(abs, row)) for row in matrix]
    for i in range(size):
        pivot = max(range(i, size), key=lambda k: abs(rows[k][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        most[i], most[pivot] = most[pivot], most[i]
        if abs(rows[i][i]) <= _EPSILON * most[i]:
            raise ValueError("terms that cannot be told apart")
        for k in range(i + 1, size):
            factor = rows[k][i] / rows[i][i]
            rows[k] = [x - factor * y for x, y in zip(rows[k], rows[i])]
    found = [0.0] * size
    for i in reversed(range(size)):
        rest = sum(rows[i][j] * found[j] for j in range(i + 1, size))
        found[i] = (rows[i][size] - rest) / rows[i][i]
    return found


def power_law(sizes: collections.abc.Sequence[float], values: collections.abc.Sequence[float]) -> tuple[float, float]:
    """Return factor and exponent of the power of ``sizes`` that comes nearest to ``values``, by relative error.

    :raises ValueError: when there are not two different sizes, or one of all is not above 0.
    """
    if len(set(sizes)) < 2 or len(sizes) != len(values) or not all(x > 0 for x in (*sizes, *values)):
        raise ValueError("not two different sizes with values above 0")
    xs, ys = [math.log(size) for size in sizes], [math.log(value) for value in values]
    middle, height = sum(xs) / len(xs), sum(ys) / len(ys)
    exponent = sum((x - middle) * (y - height) for x, y in zip(xs, ys)) / sum((x - middle) ** 2 for x in xs)
    return math.exp(height - exponent * middle), exponent


@dataclasses.dataclass(frozen=True)
class Model:
    """How a value depends on the size of a mesh.

    :param words: its formula.
    :param errors: by what it was fitted to, how much it is above what was measured there; -0.1 is a tenth below.
    """

    value: str
    words: str
    predict: collections.abc.Callable[[Size], float]
    errors: dict[str, float]

    def plain(self) -> dict[str, typing.Any]:
        """Return it as JSON has it."""
        return {"formula": f"{self.value} = {self.words}", "relative errors": _rounded(self.errors)}


_TERMS: dict[str, collections.abc.Callable[[Size], float]] = {
    "": lambda size: 1.0,
    "neighbours": lambda size: 2 * size.links / size.interiors,
    "routers": lambda size: size.interiors,
    "edges": lambda size: size.edges,
    "uplinks by interior": lambda size: 2 * size.edges / size.interiors,
    "hellos/s": lambda size: 2 * size.links / _HELLO_SECONDS,
    "copies of advertisements": lambda size: size.copies,
    "copies of advertisements/s": lambda size: size.copies / _ADVERTISED_SECONDS,
    "routers^3.7": lambda size: size.interiors**3.7,  # each computes its routes, which is some N^2.7 of work
    "messages/s by interior": lambda size: size.messages(_ADVERTISED_SECONDS) / size.interiors,
}
_SUMS = {
    "memory by interior MiB": ("", "neighbours", "routers", "uplinks by interior"),
    IDLE: ("", "messages/s by interior", "uplinks by interior"),
    "kB/s": ("hellos/s", "copies of advertisements/s", "edges"),
    "memory by edge MiB": ("",),
    "idle cores by edge": ("",),
    "CPU s at start": ("routers", "edges", "copies of advertisements", "routers^3.7"),
    "CPU s by loss": ("routers", "copies of advertisements", "routers^3.7"),
}


def models(points: collections.abc.Sequence[Point]) -> dict[str, Model]:
    """Return what can be fitted to meshes that came to rest; a value that too few of them have is left out."""
    calm = [point for point in points if point.values.get(AT_REST)]
    found = {}
    for value, terms in _SUMS.items():
        with contextlib.suppress(ValueError):
            found[value] = sum_of(value, terms, calm)
    counted = [point for point in calm if MESSAGES in point.values]
    found[MESSAGES] = Model(
        MESSAGES, "hellos/s + copies of advertisements/s", _carried, _errors(MESSAGES, _carried, counted)
    )
    return found


def _carried(size: Size) -> float:
    return size.messages(_ADVERTISED_SECONDS)


def sum_of(value: str, terms: collections.abc.Sequence[str], points: collections.abc.Iterable[Point]) -> Model:
    """Return the sum of terms that comes nearest to a value.

    :raises ValueError: as `least_squares`.
    """
    having = [point for point in points if value in point.values]
    rows = [[_TERMS[term](point.size) for term in terms] for point in having]
    found = least_squares(rows, [point.values[value] for point in having])
    words = " + ".join(f"{c:.3g} {term}".strip() for c, term in zip(found, terms) if c)

    def predict(size: Size) -> float:
        return sum(c * _TERMS[term](size) for c, term in zip(found, terms))

    return Model(value, words or "0", predict, _errors(value, predict, having))


def power_of(value: str, points: collections.abc.Iterable[Point]) -> Model:
    """Return the power of the number of interiors that comes nearest to a value.

    :raises ValueError: as `power_law`.
    """
    having = [point for point in points if value in point.values]
    factor, exponent = power_law([p.size.interiors for p in having], [p.values[value] for p in having])

    def predict(size: Size) -> float:
        return factor * math.pow(size.interiors, exponent)

    return Model(value, f"{factor:.3g} routers^{exponent:.2f}", predict, _errors(value, predict, having))


def _errors(
    value: str, predict: collections.abc.Callable[[Size], float], points: collections.abc.Iterable[Point]
) -> dict[str, float]:
    return {point.size.name: predict(point.size) / point.values[value] - 1 for point in points}


def planned_memory(size: Size) -> float:
    """Return the MiB of one interior router without clients by ``om-agent capacity``'s constants."""
    neighbours, uplinks = _TERMS["neighbours"](size), _TERMS["uplinks by interior"](size)
    return (
        capacity.ROUTER.memory + neighbours * capacity.INTER_ROUTER_MEMORY + uplinks * capacity.EDGE_MEMORY
    ) / capacity.MIB


# -- what they say ---------------------------------------------------------------------------------------------------


def report(
    points: collections.abc.Sequence[Point],
    routes: collections.abc.Sequence[Point],
    beyond: collections.abc.Sequence[Size],
) -> dict[str, typing.Any]:
    """Return the models, how far they are off, what they say of larger meshes and where those stop; plain JSON.

    :param routes: of computing routes alone.
    :param beyond: the larger meshes.
    """
    fitted = models(points)
    for value in ROUTES.values():
        with contextlib.suppress(ValueError):
            fitted[value] = power_of(value, routes)
    memory = "memory by interior MiB"
    planned = {p.size.name: planned_memory(p.size) / p.values[memory] - 1 for p in points if memory in p.values}
    said: dict[str, dict[str, float]] = {}
    for size in beyond:
        values = {value: one.predict(size) for value, one in fitted.items()}
        values["messages/s when it changes"] = size.messages(_CHANGING_SECONDS)
        if IDLE in fitted:
            values["cores by interior when it changes"] = _when_changing(fitted, size)
        said[size.name] = values
        values["memory by interior MiB, om-agent capacity"] = planned_memory(size)
    return {
        "models": {value: one.plain() for value, one in fitted.items()},
        "relative errors of om-agent capacity's memory": _rounded(planned),
        "measured s to compute routes": [{"interiors": p.size.interiors, **_rounded(p.values)} for p in routes],
        "predictions": {name: _rounded(values) for name, values in said.items()},
        "stops": stops(fitted, beyond),
        "did not come to rest": [p.size.name for p in points if not p.values.get(AT_REST)],
    }


def _when_changing(fitted: collections.abc.Mapping[str, Model], size: Size) -> float:
    """Return the cores that an interior needs while anything changes: routers then advertise themselves more often,
    as many messages at rest would cost the same, and compute their routes every second.

    Of meshes that are thinned otherwise than by default no computation was timed: they are taken for such.
    """
    more = size.copies * _ADVERTISED_SECONDS / _CHANGING_SECONDS
    routes = fitted.get(ROUTES.get(size.most_links, ROUTES[0]))
    found = fitted[IDLE].predict(dataclasses.replace(size, copies=round(more)))
    return found + (routes.predict(size) if routes else 0.0)


def stops(
    fitted: collections.abc.Mapping[str, Model], beyond: collections.abc.Sequence[Size] = ()
) -> dict[str, int | None]:
    """Return at which size a router needs all of a core; None where that is beyond what was looked at.

    A router computes its routes at most once a second, for as long as anything changes. One that needs longer than its
    neighbours wait for its hello is given up by them, which is another change: from there on a mesh does not come to
    rest whatever there is of cores, since the engine computes in one thread.
    """
    found: dict[str, int | None] = {}
    for value, (what, most) in itertools.product(ROUTES.values(), _BUSY.items()):
        if value in fitted:
            reached = functools.partial(_reaches, fitted[value], most)
            found[f"interiors, {value.rpartition(' ')[2]} mesh: {what}"] = first(reached, _LARGEST)
    if IDLE in fitted:
        idle = fitted[IDLE].predict
        for most, sizes in itertools.groupby((size for size in beyond if not size.edges), lambda s: s.most_links):
            busy = (size.interiors for size in sizes if _when_changing(fitted, size) >= 1)
            name = f"interiors, max_links {most or 'default'}: a whole core with messages"
            found[name] = min(busy, default=None)
        found["edges by interior: a whole core at rest"] = first(lambda n: idle(Size(3, 3 * n, 3, 12)) >= 1, 10**6)
    found["edges by interior: descriptors"] = (capacity.ROUTER_DESCRIPTORS - capacity.ROUTER.descriptors) // 2
    return found


def _reaches(one: Model, most: float, interiors: int) -> bool:
    return one.predict(Size(interiors)) >= most


def first(reached: collections.abc.Callable[[int], bool], most: int) -> int | None:
    """Return the least number from 1 to ``most`` from which on ``reached`` is true, None when there is none."""
    if not reached(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def _rounded(values: collections.abc.Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.3g}") for name, value in values.items()}
