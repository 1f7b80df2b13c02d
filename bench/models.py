"""How advertisements travel in a mesh, and models fitted to measurements of real meshes. Nothing here measures."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import dataclasses
import functools
import itertools
import math
import operator
import typing

from om_agent import model
from om_agent.plan import capacity, topology

_ADVERTISED_SECONDS = 30.0  # raIntervalSeconds of both engines
_CHANGING_SECONDS = 4.0  # raIntervalFluxSeconds
_HELLO_SECONDS = 1.0  # helloIntervalSeconds
# Seconds that one computation of routes may take: a router starts one at most every second, and its neighbours drop it
# when it does not answer for helloMaxAgeSeconds.
_BUSY = {"a whole core when it changes": 1.0, "given up by its neighbours when it changes": 3.0}
# by router.max_links: the default, and a value that leaves all links in place
ROUTES = {0: "s to compute routes, thinned", 127: "s to compute routes, full"}
_LARGEST = 1_000  # interiors up to which a limit is searched; a network holds 128
_EPSILON = 1e-9
_NEGLIGIBLE = 1e-9  # relative to a measured value: a term that adds no more than that counts as 0
MESSAGES = "messages/s"
IDLE = "idle cores by interior"
AT_REST = "know each other"


@dataclasses.dataclass(frozen=True)
class Size:
    """The properties of a mesh that models use.

    :param links: the number of links between interior routers.
    :param copies: how often links carry an advertisement when each router has made one; see `copies`.
    :param most_links: ``router.max_links``, 0 for the default.
    """

    interiors: int
    edges: int = 0
    links: int = 0
    copies: int = 0
    most_links: int = 0

    @classmethod
    def of(cls, deployment: model.Deployment, edges: int, most_links: int = 0) -> Size:
        """Return the size of the mesh that the planner makes for a deployment.

        :param edges: the number of edge routers, whether or not ``deployment`` contains them.
        """
        interiors = [node for node in deployment.nodes if node.router is model.RouterMode.INTERIOR]
        graph: dict[str, set[str]] = {node.name: set() for node in interiors}
        links = topology.interior_links(deployment)
        for link in links:
            graph[link.source].add(link.target)
            graph[link.target].add(link.source)
        return cls(len(graph), edges, len(links), copies(graph), most_links)

    @property
    def name(self) -> str:
        """The name of the mesh in samples."""
        thinned = f",max_links/{self.most_links}" if self.most_links else ""
        edges = f"+edges/{self.edges}" if self.edges else ""
        return f"interiors/{self.interiors}{thinned}{edges}"

    def messages(self, interval: float) -> float:
        """Return the messages per second between routers when each router advertises itself once per interval."""
        hellos = 2 * self.links / _HELLO_SECONDS
        return hellos + self.copies / interval


@dataclasses.dataclass(frozen=True)
class Point:
    """A mesh that was measured."""

    size: Size
    values: collections.abc.Mapping[str, float]


# -- how advertisements travel ---------------------------------------------------------------------------------------


def copies(graph: collections.abc.Mapping[str, set[str]]) -> int:
    """Return how often links carry an advertisement when each router has made one.

    Routers flood. Each router passes an advertisement on to all neighbours that the advertisement has not visited, even
    if it received the same one before over another path. It drops an advertisement that has made more hops than its own
    radius of the mesh plus one (topology_radius in router_node.c of qpid-dispatch 1.19.0, run, and in amqp_adaptor.c of
    skupper-router 3.4.2). So the result is the number of paths without a loop up to that length, not the number of
    links.
    """
    count = len(graph)
    full_mesh = all(len(peers) == count - 1 for peers in graph.values())
    if full_mesh:  # it has too many paths to visit them one by one
        return count * sum(math.perm(count - 1, hops) for hops in (1, 2, 3))
    radius = {name: _radius(graph, name) for name in graph}

    def carried(router: str, visited: frozenset[str]) -> int:
        receivers = graph[router] - visited
        total = len(receivers)
        for name in receivers:
            if len(visited) <= radius[name] + 1:
                total += carried(name, visited | {name})
        return total

    return sum(carried(name, frozenset((name,))) for name in graph)


def _radius(graph: collections.abc.Mapping[str, set[str]], name: str) -> int:
    """Return the number of links to the furthest router."""
    visited = {name}
    ring = {name}
    radius = 0
    while True:
        neighbours: set[str] = set()
        for router in ring:
            neighbours |= graph[router]
        ring = neighbours - visited
        if not ring:
            return radius
        visited |= ring
        radius += 1


# -- models ----------------------------------------------------------------------------------------------------------


def least_squares(
    rows: collections.abc.Sequence[collections.abc.Sequence[float]], values: collections.abc.Sequence[float]
) -> tuple[float, ...]:
    """Return the coefficients with which the sum of the terms in ``rows`` comes closest to ``values``.

    The fit minimises relative errors, because meshes differ much in size. Coefficients are not negative, because a
    router never needs less when there is more of something.

    :raises ValueError: when there are fewer values than terms, or terms are linearly dependent.
    """
    count = len(rows[0]) if rows else 0
    if len(values) < max(1, count) or not all(value > 0 for value in values):
        raise ValueError("fewer values above 0 than terms")
    columns = [_relative(rows, term, values) for term in range(count)]
    used = list(range(count))
    while used:
        matrix = []
        for term in used:
            matrix.append([_product(columns[term], columns[other]) for other in used])
        right = [sum(columns[term]) for term in used]
        coefficients = _solve(matrix, right)
        lowest = min(coefficients)
        if lowest >= 0:
            by_term = dict(zip(used, coefficients))
            return tuple(_unless_negligible(columns[term], by_term.get(term, 0.0)) for term in range(count))
        used.remove(used[coefficients.index(lowest)])
    return (0.0,) * count


def _relative(
    rows: collections.abc.Iterable[collections.abc.Sequence[float]], term: int, values: collections.abc.Iterable[float]
) -> list[float]:
    """Return a term of all rows, each divided by the measured value."""
    return [row[term] / value for row, value in zip(rows, values)]


def _product(first_column: list[float], second_column: list[float]) -> float:
    return sum(one * other for one, other in zip(first_column, second_column))


def _unless_negligible(column: list[float], coefficient: float) -> float:
    """Return a coefficient, or 0 when it is only a rounding error, which differs between versions of Python."""
    return coefficient if coefficient * max(column) > _NEGLIGIBLE else 0.0


def _solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Return the solution of a few linear equations (Gaussian elimination with the largest pivot)."""
    size = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right)]
    largest = [max(map(abs, row)) for row in matrix]
    for column in range(size):
        candidates = [abs(row[column]) for row in rows[column:]]
        pivot = column + candidates.index(max(candidates))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        largest[column], largest[pivot] = largest[pivot], largest[column]
        upper = rows[column]
        if abs(upper[column]) <= _EPSILON * largest[column]:
            raise ValueError("linearly dependent terms")
        for below in range(column + 1, size):
            factor = rows[below][column] / upper[column]
            rows[below] = [value - factor * subtracted for value, subtracted in zip(rows[below], upper)]
    solution = [0.0] * size
    for line in reversed(range(size)):
        known = sum(rows[line][column] * solution[column] for column in range(line + 1, size))
        solution[line] = (rows[line][size] - known) / rows[line][line]
    return solution


def power_law(sizes: collections.abc.Sequence[float], values: collections.abc.Sequence[float]) -> tuple[float, float]:
    """Return factor and exponent of the power of ``sizes`` that comes closest to ``values``, by relative error.

    :raises ValueError: when there are fewer than two different sizes, or a size or value is not above 0.
    """
    positive = all(number > 0 for number in (*sizes, *values))
    if len(set(sizes)) < 2 or len(sizes) != len(values) or not positive:
        raise ValueError("not two different sizes with values above 0")
    log_sizes = [math.log(size) for size in sizes]
    log_values = [math.log(value) for value in values]
    mean_size = sum(log_sizes) / len(log_sizes)
    mean_value = sum(log_values) / len(log_values)
    covariance = sum((size - mean_size) * (value - mean_value) for size, value in zip(log_sizes, log_values))
    variance = sum((size - mean_size) ** 2 for size in log_sizes)
    exponent = covariance / variance
    return math.exp(mean_value - exponent * mean_size), exponent


@dataclasses.dataclass(frozen=True)
class Model:
    """How a value depends on the size of a mesh.

    :param words: its formula.
    :param errors: by mesh, the relative error against the measured value; -0.1 means that the model is 10 % too low.
    """

    value: str
    words: str
    predict: collections.abc.Callable[[Size], float]
    errors: dict[str, float]

    def plain(self) -> dict[str, typing.Any]:
        """Return the model in a form that JSON can hold."""
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
    "routers^3.7": lambda size: size.interiors**3.7,  # each router computes its routes, at a cost of about N^2.7
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
    """Return the models that can be fitted to meshes that came to rest. Leave out values that too few of them have."""
    calm = [point for point in points if point.values.get(AT_REST)]
    fitted = {}
    for value, terms in _SUMS.items():
        with contextlib.suppress(ValueError):
            fitted[value] = sum_of(value, terms, calm)
    counted = [point for point in calm if MESSAGES in point.values]
    relative_errors = _errors(MESSAGES, _messages_at_rest, counted)
    fitted[MESSAGES] = Model(MESSAGES, "hellos/s + copies of advertisements/s", _messages_at_rest, relative_errors)
    return fitted


def _messages_at_rest(size: Size) -> float:
    return size.messages(_ADVERTISED_SECONDS)


def sum_of(value: str, terms: collections.abc.Sequence[str], points: collections.abc.Iterable[Point]) -> Model:
    """Return the sum of terms that comes closest to a value.

    :raises ValueError: as `least_squares`.
    """
    having = [point for point in points if value in point.values]
    rows = [_evaluated(terms, point.size) for point in having]
    coefficients = least_squares(rows, [point.values[value] for point in having])
    pairs = list(zip(coefficients, terms))
    words = " + ".join(f"{coefficient:.3g} {term}".strip() for coefficient, term in pairs if coefficient)

    def predict(size: Size) -> float:
        return sum(coefficient * _TERMS[term](size) for coefficient, term in pairs)

    return Model(value, words or "0", predict, _errors(value, predict, having))


def _evaluated(terms: collections.abc.Iterable[str], size: Size) -> list[float]:
    return [_TERMS[term](size) for term in terms]


def power_of(value: str, points: collections.abc.Iterable[Point]) -> Model:
    """Return the power of the number of interiors that comes closest to a value.

    :raises ValueError: as `power_law`.
    """
    having = [point for point in points if value in point.values]
    interiors = [point.size.interiors for point in having]
    factor, exponent = power_law(interiors, [point.values[value] for point in having])

    def predict(size: Size) -> float:
        return factor * math.pow(size.interiors, exponent)

    return Model(value, f"{factor:.3g} routers^{exponent:.2f}", predict, _errors(value, predict, having))


def _errors(
    value: str, predict: collections.abc.Callable[[Size], float], points: collections.abc.Iterable[Point]
) -> dict[str, float]:
    return {point.size.name: predict(point.size) / point.values[value] - 1 for point in points}


def planned_memory(size: Size) -> float:
    """Return the MiB that one interior router without clients needs, by the constants of ``om-agent capacity``."""
    for_neighbours = _TERMS["neighbours"](size) * capacity.INTER_ROUTER_MEMORY
    for_uplinks = _TERMS["uplinks by interior"](size) * capacity.EDGE_MEMORY
    return (capacity.ROUTER.memory + for_neighbours + for_uplinks) / capacity.MIB


# -- predictions -----------------------------------------------------------------------------------------------------


def report(
    points: collections.abc.Sequence[Point],
    routes: collections.abc.Sequence[Point],
    beyond: collections.abc.Sequence[Size],
) -> dict[str, typing.Any]:
    """Return the models, their errors, their predictions for larger meshes and the limits of those, as plain JSON.

    :param routes: meshes of which only the computation of routes was measured.
    :param beyond: the larger meshes.
    """
    fitted = models(points)
    for value in ROUTES.values():
        with contextlib.suppress(ValueError):
            fitted[value] = power_of(value, routes)
    memory = "memory by interior MiB"
    having_memory = [point for point in points if memory in point.values]
    planned = {point.size.name: planned_memory(point.size) / point.values[memory] - 1 for point in having_memory}
    computed = [{"interiors": point.size.interiors, **_rounded(point.values)} for point in routes]
    return {
        "models": {value: fit.plain() for value, fit in fitted.items()},
        "relative errors of om-agent capacity's memory": _rounded(planned),
        "measured s to compute routes": computed,
        "predictions": {size.name: _rounded(_predicted(fitted, size)) for size in beyond},
        "stops": stops(fitted, beyond),
        "did not come to rest": [point.size.name for point in points if not point.values.get(AT_REST)],
    }


def _predicted(fitted: collections.abc.Mapping[str, Model], size: Size) -> dict[str, float]:
    values = {value: fit.predict(size) for value, fit in fitted.items()}
    values["messages/s when it changes"] = size.messages(_CHANGING_SECONDS)
    if IDLE in fitted:
        values["cores by interior when it changes"] = _when_changing(fitted, size)
    values["memory by interior MiB, om-agent capacity"] = planned_memory(size)
    return values


def _when_changing(fitted: collections.abc.Mapping[str, Model], size: Size) -> float:
    """Return the cores that an interior router needs while anything in the mesh changes.

    Routers then advertise themselves more often, at the cost that as many messages have at rest, and compute their
    routes every second. Computations were not timed in meshes with another ``max_links`` than those of `ROUTES`. The
    model of the default serves for these.
    """
    more_copies = size.copies * _ADVERTISED_SECONDS / _CHANGING_SECONDS
    for_messages = fitted[IDLE].predict(dataclasses.replace(size, copies=round(more_copies)))
    routes = fitted.get(ROUTES.get(size.most_links, ROUTES[0]))
    for_routes = routes.predict(size) if routes else 0.0
    return for_messages + for_routes


def stops(
    fitted: collections.abc.Mapping[str, Model], beyond: collections.abc.Sequence[Size] = ()
) -> dict[str, int | None]:
    """Return the size at which a router needs a whole core, None when that is beyond the sizes searched.

    A router computes its routes at most once a second while anything changes. When a computation takes longer than the
    neighbours wait for a hello, they drop the router, which is another change. Such a mesh never comes to rest, however
    many cores there are, because a router computes in one thread.
    """
    found: dict[str, int | None] = {}
    for value, (what, seconds) in itertools.product(ROUTES.values(), _BUSY.items()):
        if value in fitted:
            mesh = value.rpartition(" ")[2]
            reached = functools.partial(_reaches, fitted[value], seconds)
            found[f"interiors, {mesh} mesh: {what}"] = first(reached, _LARGEST)
    if IDLE in fitted:
        found.update(_stops_by_messages(fitted, beyond))
        idle = fitted[IDLE].predict
        found["edges by interior: a whole core at rest"] = first(
            lambda edges: idle(Size(3, edges=3 * edges, links=3, copies=12)) >= 1, 10**6
        )
    found["edges by interior: descriptors"] = (capacity.ROUTER_DESCRIPTORS - capacity.ROUTER.descriptors) // 2
    return found


def _stops_by_messages(
    fitted: collections.abc.Mapping[str, Model], beyond: collections.abc.Iterable[Size]
) -> dict[str, int | None]:
    """Return by ``max_links`` the smallest of the larger meshes in which an interior needs a whole core."""
    found: dict[str, int | None] = {}
    without_edges = [size for size in beyond if not size.edges]
    for most_links, sizes in itertools.groupby(without_edges, operator.attrgetter("most_links")):
        busy = [size.interiors for size in sizes if _when_changing(fitted, size) >= 1]
        name = f"interiors, max_links {most_links or 'default'}: a whole core with messages"
        found[name] = min(busy, default=None)
    return found


def _reaches(fit: Model, limit: float, interiors: int) -> bool:
    return fit.predict(Size(interiors)) >= limit


def first(reached: collections.abc.Callable[[int], bool], most: int) -> int | None:
    """Return the smallest number from 1 to ``most`` from which ``reached`` stays true, None when there is none."""
    if not reached(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        if reached(middle):
            high = middle
        else:
            low = middle
    return high


def _rounded(values: collections.abc.Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.3g}") for name, value in values.items()}
