"""The fit to measured meshes, and the prediction for larger ones."""

from __future__ import annotations

import json
import typing

import pytest

from bench import models


def points(value: str, predict: typing.Callable[[models.Size], float], calm: float = 1.0) -> list[models.Point]:
    made = ((5, 0, 10, 200), (10, 0, 45, 5850), (15, 0, 39, 12120), (25, 0, 67, 56275), (3, 60, 3, 12))
    sizes = [models.Size(*numbers) for numbers in made]
    return [models.Point(size, {value: predict(size), "know each other": calm}) for size in sizes]


def graph(*links: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for link in links:
        found.setdefault(link[0], set()).add(link[1])
        found.setdefault(link[1], set()).add(link[0])
    return found


def full(count: int) -> dict[str, set[str]]:
    names = {f"ctl-{i}" for i in range(count)}
    return {name: names - {name} for name in names}


@pytest.mark.parametrize(
    "mesh, expected",
    [
        (graph("ab"), 2),
        (graph("ab", "bc"), 6),  # along a line nothing comes twice
        (graph("ab", "bc", "ca"), 3 * 4),  # both ways round
        (full(5), 5 * (4 + 4 * 3 + 4 * 3 * 2)),  # one more hop than is taken, for the last is dropped on arrival
        (graph("ab", "bc", "cd", "da"), 4 * 6),
        (graph("ab", "ac", "ad", "ae"), 5 * 4),
    ],
    ids=["pair", "line", "triangle", "full mesh", "ring", "star"],
)
def test_advertisements_take_every_way_without_a_loop(mesh: dict[str, set[str]], expected: int) -> None:
    assert models.copies(mesh) == expected


def test_a_full_mesh_is_counted_as_any_other() -> None:
    nearly = full(6)
    nearly["ctl-0"].remove("ctl-1")
    nearly["ctl-1"].remove("ctl-0")
    assert models.copies(nearly) > models.copies(full(5))  # a radius of 2 lets them go further
    assert models.copies(full(128)) == 128 * (127 + 127 * 126 + 127 * 126 * 125)


def test_least_squares_finds_what_the_values_were_made_of() -> None:
    rows = [(1.0, 4.0, 5.0), (1.0, 6.0, 15.0), (1.0, 6.0, 50.0), (1.0, 9.0, 10.0)]
    found = models.least_squares(rows, [25 + 0.75 * d + 0.05 * n for _, d, n in rows])
    assert found == pytest.approx((25, 0.75, 0.05))


def test_a_large_value_counts_for_no_more_than_a_small_one() -> None:
    (found,) = models.least_squares([(1.0,), (1000.0,)], [1.1, 900.0])
    assert found * 1.0 / 1.1 - 1 == pytest.approx(-(found * 1000 / 900 - 1), abs=0.02)


def test_no_term_takes_anything_away() -> None:
    rows = [(1.0, float(n)) for n in (5, 15, 50)]
    constant, slope = models.least_squares(rows, [30.0, 29.0, 28.0])
    assert slope == 0
    assert constant == pytest.approx(29, rel=0.01)


def test_what_rounding_leaves_is_no_term() -> None:
    """Python 3.12 and newer sum floats with a correction, so that other digits are left than before."""
    rows = [(1.0, float(n)) for n in (5, 15, 50)]
    assert models.least_squares(rows, [30.0, 30 * (1 + 1e-12), 30 * (1 + 3e-12)])[1] == 0
    assert models.least_squares(rows, [30.0, 30.01, 30.045])[1] > 0


@pytest.mark.parametrize(
    "rows, values",
    [
        ([], []),
        ([(1.0, 2.0)], [1.0]),
        ([(1.0, 2.0), (2.0, 4.0), (3.0, 6.0)], [1.0, 2.0, 3.0]),
        ([(1.0, 0.0), (1.0, 0.0)], [1.0, 1.0]),
        ([(1.0,), (1.0,)], [1.0, 0.0]),
    ],
    ids=["nothing", "fewer values than terms", "the same term twice", "a term that is nowhere", "a value of 0"],
)
def test_what_cannot_be_fitted(rows: list[tuple[float, ...]], values: list[float]) -> None:
    with pytest.raises(ValueError):
        models.least_squares(rows, values)


def test_a_power_law_is_found() -> None:
    assert models.power_law([5, 15, 50], [2e-6 * n**2.5 for n in (5, 15, 50)]) == pytest.approx((2e-6, 2.5))


@pytest.mark.parametrize("sizes, values", [([], []), ([5], [1.0]), ([5, 5], [1.0, 2.0]), ([5, 15], [0.0, 1.0])])
def test_no_power_law(sizes: list[float], values: list[float]) -> None:
    with pytest.raises(ValueError):
        models.power_law(sizes, values)


def test_a_model_says_what_it_is_and_how_far_off() -> None:
    value = "CPU s at start"
    made = points(value, lambda s: 0.25 * s.interiors + 2e-4 * s.copies)
    found = models.models(made)[value]
    assert found.words == "0.25 routers + 0.0002 copies of advertisements"
    assert found.predict(models.Size(50, 0, 140, 448_750)) == pytest.approx(12.5 + 89.75)
    assert found.errors == pytest.approx({p.size.name: 0.0 for p in made})

    other = [*made[1:], models.Point(made[0].size, {value: made[0].values[value] * 2, "know each other": 1.0})]
    assert models.models(other)[value].errors[made[0].size.name] < -0.2


def test_a_mesh_that_did_not_come_to_rest_is_no_part_of_a_model() -> None:
    value = "CPU s at start"
    made = points(value, lambda s: 0.01 * s.interiors)
    restless = models.Point(models.Size(50, 0, 140), {value: 1e6, "know each other": 0.0})
    assert models.models([*made, restless])[value].predict(models.Size(50)) == pytest.approx(0.5)
    assert value not in models.models(points(value, lambda s: 1.0, calm=0.0))


def test_memory_is_planned_with_the_constants_of_capacity() -> None:
    assert models.planned_memory(models.Size(5, 0, 0)) == 25
    assert models.planned_memory(models.Size(4, 0, 6)) == pytest.approx(25 + 3 * 1386 / 1024)
    assert models.planned_memory(models.Size(4, 8, 6)) == pytest.approx(25 + 3 * 1386 / 1024 + 4 * 215 / 1024)


@pytest.mark.parametrize("least", [1, 2, 57, 100])
def test_first(least: int) -> None:
    assert models.first(lambda n: n >= least, 100) == least


def test_first_of_none() -> None:
    assert models.first(lambda n: n > 100, 100) is None


def test_a_mesh_stops_where_a_router_needs_a_core() -> None:
    value = "s to compute routes, full"
    routes = [models.Point(models.Size(n, 0, 0), {value: n**4 / 100**4}) for n in (25, 50, 100)]
    fitted = {value: models.power_of(value, routes)}
    found = models.stops(fitted)
    assert found["interiors, full mesh: a whole core when it changes"] in (100, 101)
    assert found["interiors, full mesh: given up by its neighbours when it changes"] == 132  # 100 by the 4th root of 3
    assert found["edges by interior: descriptors"] == (65536 - 12) // 2
    assert "edges by interior: a whole core at rest" not in found


def test_a_mesh_stops_where_messages_need_a_core() -> None:
    value = "idle cores by interior"
    made = points(value, lambda s: 0.001 + 1e-4 * (s.messages(30) + s.edges) / s.interiors)
    fitted = models.models(made)
    assert fitted[value].errors == pytest.approx(dict.fromkeys(fitted[value].errors, 0.0))
    beyond = [models.Size(n, 0, 3 * n, n**4, most) for most in (0, 2) for n in (25, 50, 100)]
    found = models.stops(fitted, [*beyond, models.Size(128, 10_000, 380, 10**9)])
    # A router's share of a second's messages is n**3 / 4, and a core does 10 000.
    assert found["interiors, max_links default: a whole core with messages"] == 50
    assert found["interiors, max_links 2: a whole core with messages"] == 50
    assert found["edges by interior: a whole core at rest"] == pytest.approx(9_990, abs=10)


def test_a_report_is_plain_json_even_of_nothing() -> None:
    empty = models.report([], [], [models.Size(128, 10_000, 384)])
    assert set(empty["models"]) == {"messages/s"}  # which is no fit
    assert "memory by interior MiB" not in empty["predictions"]["interiors/128+edges/10000"]

    made = points("memory by interior MiB", lambda s: 25.0 + 2 * s.links / s.interiors)
    restless = models.Point(models.Size(50, 0, 140), {"memory by interior MiB": 50.0, "know each other": 0.0})
    said = models.report([*made, restless], [], [models.Size(128, 0, 384)])
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert said["did not come to rest"] == ["interiors/50"]
    assert said["predictions"]["interiors/128"]["memory by interior MiB"] == pytest.approx(31)
