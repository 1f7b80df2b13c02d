"""The page of a run: JSON, tables, plots. Nothing on it is written by hand, so that it says what was measured."""

from __future__ import annotations

import collections.abc
import json
import math
import pathlib
import typing

from bench import figures, plots, sides, targets, work

_TITLES = {
    "one": "One router and one RabbitMQ",
    "three": "Three routers and three RabbitMQ",
    "settings": "Settings of a router and its drivers",
    "driver": "Drivers of oslo.messaging over one router",
    "driver-mesh": "Drivers of oslo.messaging over three routers",
    "agent": "The agent",
    "scale": "The mesh",
}
_KINDS = {
    "calls": "Calls",
    "far": "Calls to the server of another node",
    "burst": "Bursts: sent as fast as so many threads can, without a pause",
    "connections": "Connections that say nothing",
    "storm": f"{work.STORM} clients come back after kill -9",
    "failover": "Kill -9 of one of three under calls",
}
_PLOTTED = {"calls/s": False, "p99 ms": True, "CPU s/10k": True}
_NAMES = {kind.name: kind.words for pair in sides.KINDS.values() for kind in pair}


def write(found: dict[str, typing.Any], directory: pathlib.Path) -> None:
    """Write ``performance.json``, ``performance.rst`` and its plots.

    :param found: ``when``, ``machine``, ``engine``, ``seconds``, ``samples`` (`figures.Sample` as dictionaries) and
        ``found``, what parts said beside their samples.
    :raises testbed.errors.TestbedError: when gnuplot is missing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "performance.json").write_text(json.dumps(found, indent=1) + "\n")
    samples = [figures.Sample(**sample) for sample in found["samples"]]
    drawn = list(_plots(samples))
    for name, plot in drawn:
        plots.draw(plot, directory / f"{name}.svg")
    (directory / "performance.rst").write_text(text(found, samples, [name for name, _ in drawn]))


def text(
    found: dict[str, typing.Any],
    samples: collections.abc.Sequence[figures.Sample],
    drawn: collections.abc.Iterable[str],
) -> str:
    """Return the page."""
    machine = found["machine"]
    foreign = [s.foreign for s in samples]
    beside = [s.beside for s in samples if s.pair in sides.KINDS]
    lines = [
        *_heading("Performance", "=", over=True),
        f"One run of ``make bench`` with {found['engine']}, {found['when']}, {found['seconds'] / 60:.0f} minutes, on",
        f"{machine['cores']} cores ({machine['processor']}), {machine['memory_gib']:g} GiB, {machine['system']},",
        f"Linux {machine['kernel']}, Python {machine['python']}{_broker(machine)}. Made by ``bench``; what the",
        "settings are is in `tuning <tuning.rst>`_.",
        "",
        "Sides did the same work in turn, in processes of their own, with the files that the agent rendered; what it",
        "does not write, quorum queues and mirroring on all brokers, was put into them by hand. Where RPC goes over",
        "routers, RabbitMQ runs beside them for notifications, as many brokers as on the other side.",
        "",
        "Figures are medians, and of what was lost, failed or disturbed the worst; in parentheses is the ratio of a",
        "table's first column to that one. Believe ratios, not seconds: other programs used",
        f"{figures.number(figures.percentile(foreign, 50))} cores in the median meanwhile, and up to",
        f"{figures.number(max(foreign, default=math.nan))}; sides that stood idle while another worked used",
        f"{figures.number(figures.percentile(beside, 50))}.",
        "",
        *_left_out(machine.get("rabbitmq", ""), dict.fromkeys(s.pair for s in samples)),
        *_targets(samples, found["found"]),
    ]
    for pair in dict.fromkeys(s.pair for s in samples):
        of_pair = [s for s in samples if s.pair == pair]
        lines += _heading(_TITLES[pair], "=")
        for kind in dict.fromkeys(s.work.partition("/")[0] for s in of_pair):
            lines += _kind(kind, [s for s in of_pair if s.work.partition("/")[0] == kind])
            for name in drawn:
                if name.startswith(f"performance-{pair}-{kind}-"):
                    lines += [f".. image:: {name}.svg", f"   :alt: {_TITLES[pair]}, the table above as a plot", ""]
    return "\n".join(lines).rstrip() + "\n"


def _heading(title: str, line: str, over: bool = False) -> list[str]:
    rule = line * len(title)
    return [*([rule] if over else []), title, rule, ""]


def _targets(samples: collections.abc.Sequence[figures.Sample], beside: dict[str, typing.Any]) -> list[str]:
    """Return the table of what was to be reached by the pairs that were measured at all.

    :param beside: what parts said beside their samples.
    """
    rows = []
    pairs = {s.pair for s in samples}
    for target in (target for target in targets.TARGETS if target.pair in pairs):
        found = target.found(samples)
        against = f" / {_name(target.against)}" if target.against else ""
        rows.append(
            [
                f"{target.work}: {target.value}, {_name(target.side)}{against}",
                f"at {'most' if target.most else 'least'} {target.limit:g}",
                *(["-", "not measured"] if math.isnan(found) else [figures.number(found), _reached(target.met(found))]),
            ]
        )
    for command, growth in beside.get("agent", {}).get("growth", {}).items():
        for value in ("CPU us a node, ratio", "memory KiB a node, ratio"):
            what = f"{command}: {value.removesuffix(', ratio')}, a node more among many / among fewer"
            met = _reached(growth[value] <= targets.LINEAR)
            rows.append([what, f"at most {targets.LINEAR:g}", figures.number(growth[value]), met])
    lost = targets.lost(samples)
    if not math.isnan(lost):
        what = "casts, fanouts and notifications lost, nothing killed, acknowledged settings"
        rows.append([what, "0", figures.number(lost), _reached(not lost)])
    return [*_heading("What was to be reached", "="), *_table(["", "Wanted", "Found", "Reached"], rows)] if rows else []


def _broker(machine: dict[str, typing.Any]) -> str:
    """Return which RabbitMQ it was; runs until 2026-11 did not say."""
    version = machine.get("rabbitmq", "")
    return f", RabbitMQ {version}" if version else ""


def _left_out(version: str, pairs: collections.abc.Iterable[str]) -> list[str]:
    """Return the sentences about the sides that this RabbitMQ cannot be."""
    kinds = [kind for pair in pairs for kind in sides.KINDS.get(pair, ()) if kind not in sides.kinds(pair, version)]
    words = list(dict.fromkeys(kind.words for kind in kinds))
    if not words:
        return []
    return [f"RabbitMQ {version} has no mirrored queues. Not measured therefore: {'; '.join(words)}.", ""]


def _reached(met: bool) -> str:
    return "yes" if met else "**no**"


def _name(side: str) -> str:
    return _NAMES.get(side, side)


def _kind(kind: str, samples: collections.abc.Sequence[figures.Sample]) -> list[str]:
    works = list(dict.fromkeys(s.work for s in samples))
    there = list(dict.fromkeys(s.side for s in samples))
    values = list(dict.fromkeys(value for s in samples for value in s.values))
    lines = _heading(_KINDS.get(kind, kind.capitalize()), "-")
    if len(there) == 1:
        rows = [
            [_variant(work), *(figures.number(figures.overall(samples, work, there[0], v)) for v in values)]
            for work in works
        ]
        return [*lines, *_table(["", *values], rows)]
    head = [_name(side) for side in there]
    if len(works) == 1:
        return [*lines, *_table(["", *head], [[v, *_compared(samples, works[0], there, v)] for v in values])]
    for value in values:
        rows = [[_variant(work), *_compared(samples, work, there, value)] for work in works]
        lines += _table([value, *head], [row for row in rows if set(row[1:]) != {"-"}])
    return lines


def _variant(work: str) -> str:
    return work.partition("/")[2] or work


def _compared(samples: collections.abc.Sequence[figures.Sample], work: str, there: list[str], value: str) -> list[str]:
    """Return the cells of one row: each side's median, and the first one's divided by it."""
    medians = [figures.overall(samples, work, side, value) for side in there]
    ratios = [figures.ratio(medians[0], m) for m in medians]
    plain = not all(medians) or math.isnan(medians[0])
    return [
        figures.number(m) + ("" if not i or plain or math.isnan(m) else f" ({figures.number(r)})")
        for i, (m, r) in enumerate(zip(medians, ratios))
    ]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (head, *rows):
        lines += [f"   {'*' if not i else ' '} - {cell}".rstrip() for i, cell in enumerate(row)]
    return [*lines, ""]


def _plots(samples: collections.abc.Sequence[figures.Sample]) -> collections.abc.Iterator[tuple[str, plots.Plot]]:
    """Yield (file's name without ending, plot): calls of each pair, and what connections cost."""
    for pair in ("one", "three"):
        of_pair = [s for s in samples if s.pair == pair]
        called = list(dict.fromkeys((s.work, s.side) for s in of_pair if s.work.startswith("calls/")))
        for value, logarithmic in _PLOTTED.items() if called else ():
            medians = {(side, float(_variant(w))): figures.overall(of_pair, w, side, value) for w, side in called}
            name = f"performance-{pair}-calls-{value.split()[0].replace('/', '-per-').lower()}"
            lines = plots.over(_name, {at: y for at, y in medians.items() if not math.isnan(y)})
            if lines:
                yield name, plots.Plot(f"{_TITLES[pair]}: {value}", "callers", value, lines, logarithmic)
        opened = {
            (s.side, float(value.rpartition(" ")[2])): figures.overall(of_pair, s.work, s.side, value)
            for s in of_pair if s.work == "connections"
            for value in s.values if value.startswith("memory MiB at ")
        }  # fmt: skip
        if opened:
            title = f"{_TITLES[pair]}: memory"
            name = f"performance-{pair}-connections-memory"
            yield name, plots.Plot(title, "idle connections", "MiB", plots.over(_name, opened))
