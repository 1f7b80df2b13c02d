"""The benchmark's arithmetic and its page; what it measures with is real and not run here."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import typing

import docutils.core
import pytest

from bench import agent, figures, page, plots, sides, targets, work
from testbed import errors, workers


def sample(
    side: str, work: str = "calls/12", pair: str = "three", repetition: int = 0, **values: float
) -> figures.Sample:
    names = {"calls": "calls/s", "p99": "p99 ms", "cpu": "CPU s/10k", "memory": "memory MiB", "sent": "sent/s"}
    return figures.Sample(pair, work, side, repetition, {names.get(k, k): v for k, v in values.items()}, 0.25)


def test_every_target_is_of_what_is_measured() -> None:
    for target in targets.TARGETS:
        if target.pair == "agent":
            named = {"apply/no-op", *(f"apply/first-{n}" for n in agent.SERVICES)}
            named |= {f"{c}/{n}" for c in agent.COMMANDS for n in agent.NODES}
            assert target.work in named
            continue
        kinds = {kind.name: kind for kind in sides.KINDS[target.pair]}
        for side in (target.side, target.against):
            assert not kinds[side].works or target.work.partition("/")[0] in kinds[side].works
        assert target.work in {one.name for one in work.plan(target.pair)}


def test_rabbitmq_4_has_no_mirrored_sides() -> None:
    for pair, every in sides.KINDS.items():
        assert sides.kinds(pair, "3.13.7") == every
        left = [kind.name for kind in every if kind not in sides.kinds(pair, "4.0.5")]
        assert left == {"three": ["mirrored", "mirrored-all"], "driver-mesh": ["brokers"]}.get(pair, [])


def test_page_says_what_rabbitmq_4_cannot_be() -> None:
    of_4 = found([sample("mesh", calls=800.0)])
    of_4["machine"]["rabbitmq"] = "4.0.5"
    text = page.text(of_4, [sample("mesh", calls=800.0)], [])
    assert "Python 3, RabbitMQ 4.0.5." in text
    assert "these sides were not measured: three RabbitMQ, mirrored; three RabbitMQ, mirrored on all." in text


def test_one_bad_repetition_is_not_lost_in_a_median() -> None:
    lost = [sample("mesh", repetition=i, lost=v) for i, v in enumerate((0.0, 0.0, 500.0))]
    assert figures.overall(lost, "calls/12", "mesh", "lost") == 500


def sent(thread: int, done: float, error: str = "") -> workers.Sent:
    return workers.Sent("x", done - 0.1, done, error, thread)


def test_an_outage_is_that_of_one_thread_whatever_the_others_do() -> None:
    smooth = [sent(0, 1.0 + n / 10) for n in range(100)]
    assert work.outage(smooth, 0.9) == pytest.approx(0.1)
    stuck = [sent(1, 1.0), sent(1, 5.0, "MessagingTimeout"), sent(1, 6.5), sent(1, 7.0)]
    assert work.outage([*smooth, *stuck], 0.9) == pytest.approx(5.5)
    assert work.outage([*smooth, sent(1, 1.0), sent(1, 10.0, "MessagingTimeout")], 0.9) == pytest.approx(9.0)
    assert work.outage([], 0.9) == 0


def test_percentiles() -> None:
    values = [float(n) for n in range(1, 201)]
    assert [figures.percentile(values, p) for p in (50, 99, 100)] == [100, 198, 200]
    assert figures.percentile([3.0], 99) == 3
    assert math.isnan(figures.percentile([], 50))


def test_median_is_of_that_side_and_work_alone() -> None:
    samples = [sample("mesh", repetition=i, calls=v) for i, v in enumerate((300.0, 100.0, 110.0))]
    samples += [sample("mirrored", calls=1.0), sample("mesh", work="calls/1", calls=2.0)]
    assert figures.overall(samples, "calls/12", "mesh", "calls/s") == 110
    assert math.isnan(figures.overall(samples, "calls/12", "mesh", "p99 ms"))


@pytest.mark.parametrize(
    ("value", "shown"), [(math.nan, "-"), (0, "0"), (0.12345, "0.123"), (12.345, "12.3"), (1234.5, "1234")]
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert figures.number(value) == shown


def test_targets_compare_medians() -> None:
    target = targets.Target("three", "calls/12", "calls/s", "mesh", "mirrored", 3.5, most=False)
    good = [sample("mesh", calls=710.0), sample("mirrored", calls=200.0)]
    assert target.met(target.found(good))
    assert not target.met(target.found([sample("mesh", calls=690.0), sample("mirrored", calls=200.0)]))
    most = dataclasses.replace(target, most=True, limit=3.56)
    assert most.met(most.found(good))
    other_pair = [dataclasses.replace(s, pair="one") for s in good]
    assert math.isnan(target.found(other_pair))
    assert not target.met(math.nan)
    assert not most.met(math.nan)


def test_target_without_another_side_is_absolute() -> None:
    target = targets.Target("agent", "plan/10000", "wall s", "agent", "", 1.0)
    assert target.found([figures.Sample("agent", "plan/10000", "agent", 0, {"wall s": 0.5}, 0)]) == 0.5


def test_lost_is_of_acknowledged_settings_alone() -> None:
    samples = [sample("router", lost=1), sample("rabbit", lost=0), sample("router-stock", lost=500), sample("mesh")]
    assert targets.lost(samples) == 1
    assert math.isnan(targets.lost([sample("router-stock", lost=1)]))


def found(samples: list[figures.Sample]) -> dict[str, typing.Any]:
    return {
        "when": "2026-01-01T00:00+00:00",
        "machine": {
            "processor": "p", "cores": 2, "memory_gib": 8, "system": "s", "kernel": "k", "python": "3",
        },
        "engine": "qdrouterd",
        "seconds": 60,
        "samples": [dataclasses.asdict(s) for s in samples],
        "found": {},
    }  # fmt: skip


@pytest.mark.subprocess
def test_page_has_medians_ratios_targets_and_plots(tmp_path: pathlib.Path) -> None:
    samples = [sample("mesh", f"calls/{n}", calls=800.0 + n, p99=20.0) for n in (1, 12)]
    samples += [sample("mirrored", f"calls/{n}", calls=200.0, p99=60.0) for n in (1, 12)]
    opened = {"memory MiB at 100": 30.0, "memory MiB at 500": 50.0}
    samples.append(figures.Sample("one", "connections", "router", 0, opened, 0.25))
    page.write(found(samples), tmp_path)
    text = (tmp_path / "performance.rst").read_text()
    docutils.core.publish_doctree(text, settings_overrides={"report_level": 2, "halt_level": 2})
    assert "- 200 (4.06)" in text  # at 12 callers: 812 / 200
    rows = text.replace("\n     - ", " | ")
    assert "calls/12: calls/s, three routers / three RabbitMQ, mirrored | at least 3.5 | 4.06 | yes" in rows
    assert "calls/12: p99 ms, three routers / three RabbitMQ, mirrored | at most 0.25 | 0.333 | **no**" in rows
    drawn = {path.stem for path in tmp_path.glob("*.svg")}
    calls = ("performance-three-calls-calls-per-s", "performance-three-calls-p99")  # CPU was not measured
    assert drawn == {*calls, "performance-one-connections-memory"}
    assert all(f".. image:: {name}.svg" in text for name in drawn)
    assert "calls/12: memory MiB, three routers / three RabbitMQ, mirrored | at most 0.25 | - | not measured" in rows
    assert "apply/no-op" not in text  # a part that did not run
    assert "three routers" in (tmp_path / "performance-three-calls-calls-per-s.svg").read_text()


def test_page_of_nothing(tmp_path: pathlib.Path) -> None:
    """A run that was ended early, before its first sample."""
    page.write(found([]), tmp_path)
    assert "Performance" in (tmp_path / "performance.rst").read_text()


def test_plot_quotes_what_it_is_given() -> None:
    script = plots.script(plots.Plot("it's `date`", "x", "y", {"a'b": [(1, 2)]}))
    assert "'it''s `date`'" in script
    assert "title 'a''b'" in script


@pytest.mark.subprocess
def test_a_plot_that_cannot_be_drawn(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plot = plots.Plot("t", "x", "y", {"a": [(1, 2)]})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.TestbedError, match="gnuplot, which draws the plots, is missing"):
        plots.draw(plot, tmp_path / "a.svg")
    (tmp_path / "gnuplot").write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    (tmp_path / "gnuplot").chmod(0o755)
    with pytest.raises(errors.TestbedError, match="could not draw t"):
        plots.draw(plot, tmp_path / "a.svg")
    assert not (tmp_path / "a.svg").exists()
