"""The page of a run: JSON, tables, plots. The program writes all of it, so that it shows only what was measured."""

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
    "burst": "Bursts: messages sent without a pause, by the number of threads",
    "connections": "Idle connections",
    "storm": f"{work.STORM} clients reconnect after kill -9",
    "failover": "kill -9 of one of three during calls",
}
_PLOTTED = {"calls/s": False, "p99 ms": True, "CPU s/10k": True}
_NAMES = {kind.name: kind.words for pair in sides.KINDS.values() for kind in pair}


def write(found: dict[str, typing.Any], directory: pathlib.Path) -> None:
    """Write ``performance.json``, ``performance.rst`` and its plots.

    :param found: ``when``, ``machine``, ``engine``, ``seconds``, ``samples`` (`figures.Sample` as dictionaries) and
        ``found``, the further results of parts.
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
    drawn: collections.abc.Collection[str],
) -> str:
    """Return the page.

    :param drawn: the names of the plots.
    """
    machine = found["machine"]
    pairs = list(dict.fromkeys(sample.pair for sample in samples))
    lines = [
        *_heading("Performance", "=", over=True),
        *_machine(found, machine),
        *_method(samples),
        *_left_out(machine.get("rabbitmq", ""), pairs),
        *_targets(samples, found["found"]),
    ]
    for pair in pairs:
        lines += _pair(pair, [sample for sample in samples if sample.pair == pair], drawn)
    return "\n".join(lines).rstrip() + "\n"


def _machine(found: dict[str, typing.Any], machine: dict[str, typing.Any]) -> list[str]:
    minutes = found["seconds"] / 60
    return [
        f"One run of ``make bench`` with {found['engine']}, {found['when']}, {minutes:.0f} minutes, on",
        f"{machine['cores']} cores ({machine['processor']}), {machine['memory_gib']:g} GiB, {machine['system']},",
        f"Linux {machine['kernel']}, Python {machine['python']}{_broker(machine)}.",
        "``bench/`` made this page. `tuning <tuning.rst>`_ describes the settings.",
        "",
    ]


def _method(samples: collections.abc.Iterable[figures.Sample]) -> list[str]:
    foreign = [sample.foreign for sample in samples]
    beside = [sample.beside for sample in samples if sample.pair in sides.KINDS]
    return [
        "The sides did the same work in turn. Each ran in its own processes, with the files that the agent rendered.",
        "Quorum queues and mirroring on all brokers, which the agent does not write, were added by hand. Where RPC",
        "goes over routers, RabbitMQ carries the notifications, with as many brokers as on the other side.",
        "",
        "Figures are medians of the repetitions. For messages that were lost, failed or disturbed, they are the worst",
        "repetition. A ratio in parentheses is the figure of the first column divided by this one. Rely on ratios more",
        "than on seconds: other programs used",
        f"{figures.number(figures.percentile(foreign, 50))} cores in the median, and up to",
        f"{figures.number(max(foreign, default=math.nan))}. Sides that were idle while another one worked used",
        f"{figures.number(figures.percentile(beside, 50))} cores.",
        "",
    ]


def _pair(
    pair: str, samples: collections.abc.Sequence[figures.Sample], drawn: collections.abc.Iterable[str]
) -> list[str]:
    """Return the section of a pair: tables and plots of each kind of work."""
    title = _TITLES[pair]
    lines = _heading(title, "=")
    kinds = dict.fromkeys(_kind_of(sample) for sample in samples)
    for kind in kinds:
        lines += _kind(kind, [sample for sample in samples if _kind_of(sample) == kind])
        for name in drawn:
            if name.startswith(f"performance-{pair}-{kind}-"):
                lines += [f".. image:: {name}.svg", f"   :alt: {title}, the table above as a plot", ""]
    return lines


def _kind_of(sample: figures.Sample) -> str:
    return sample.work.partition("/")[0]


def _heading(title: str, line: str, over: bool = False) -> list[str]:
    rule = line * len(title)
    lines = [title, rule, ""]
    return [rule, *lines] if over else lines


def _targets(
    samples: collections.abc.Sequence[figures.Sample], further: collections.abc.Mapping[str, typing.Any]
) -> list[str]:
    """Return the table of the targets of the pairs that were measured at all.

    :param further: the further results of parts.
    """
    pairs = {sample.pair for sample in samples}
    rows = [_target(target, samples) for target in targets.TARGETS if target.pair in pairs]
    for command, growth in further.get("agent", {}).get("growth", {}).items():
        for value in ("CPU us a node, ratio", "memory KiB a node, ratio"):
            what = f"{command}: {value.removesuffix(', ratio')}, one more node among many / among fewer"
            met = _reached(growth[value] <= targets.LINEAR)
            rows.append([what, f"at most {targets.LINEAR:g}", figures.number(growth[value]), met])
    lost = targets.lost(samples)
    if not math.isnan(lost):
        what = "casts, fanouts and notifications lost without a failure, with acknowledgements"
        rows.append([what, "0", figures.number(lost), _reached(not lost)])
    if not rows:
        return []
    return [*_heading("Targets", "="), *_table(["", "Wanted", "Found", "Reached"], rows)]


def _target(target: targets.Target, samples: collections.abc.Iterable[figures.Sample]) -> list[str]:
    """Return a target's row of the table."""
    against = f" / {_name(target.against)}" if target.against else ""
    what = f"{target.work}: {target.value}, {_name(target.side)}{against}"
    wanted = f"at {'most' if target.most else 'least'} {target.limit:g}"
    found = target.found(samples)
    if math.isnan(found):
        return [what, wanted, "-", "not measured"]
    return [what, wanted, figures.number(found), _reached(target.met(found))]


def _broker(machine: dict[str, typing.Any]) -> str:
    """Return the version of RabbitMQ, '' for runs before 2026-11, which did not record it."""
    version = machine.get("rabbitmq", "")
    return f", RabbitMQ {version}" if version else ""


def _left_out(version: str, pairs: collections.abc.Iterable[str]) -> list[str]:
    """Return the sentences about the sides that this RabbitMQ cannot be."""
    left_out: list[str] = []
    for pair in pairs:
        possible = sides.kinds(pair, version) if pair in sides.KINDS else ()
        left_out += [kind.words for kind in sides.KINDS.get(pair, ()) if kind not in possible]
    if not left_out:
        return []
    words = "; ".join(dict.fromkeys(left_out))
    return [f"RabbitMQ {version} has no mirrored queues. So these sides were not measured: {words}.", ""]


def _reached(met: bool) -> str:
    return "yes" if met else "**no**"


def _name(side: str) -> str:
    return _NAMES.get(side, side)


def _kind(kind: str, samples: collections.abc.Sequence[figures.Sample]) -> list[str]:
    """Return the tables of one kind of work.

    With one side there is a table with a column for each value. With several sides there is a table for each value, or
    a single one if there is only one size of the work.
    """
    works = list(dict.fromkeys(sample.work for sample in samples))
    names = list(dict.fromkeys(sample.side for sample in samples))
    values = list(dict.fromkeys(value for sample in samples for value in sample.values))
    lines = _heading(_KINDS.get(kind, kind.capitalize()), "-")
    if len(names) == 1:
        rows = [[_variant(work), *_figures(samples, work, names[0], values)] for work in works]
        return [*lines, *_table(["", *values], rows)]
    head = [_name(side) for side in names]
    if len(works) == 1:
        rows = [[value, *_compared(samples, works[0], names, value)] for value in values]
        return [*lines, *_table(["", *head], rows)]
    for value in values:
        rows = [[_variant(work), *_compared(samples, work, names, value)] for work in works]
        measured = [row for row in rows if set(row[1:]) != {"-"}]
        lines += _table([value, *head], measured)
    return lines


def _variant(work: str) -> str:
    return work.partition("/")[2] or work


def _figures(
    samples: collections.abc.Sequence[figures.Sample], work: str, side: str, values: collections.abc.Iterable[str]
) -> list[str]:
    return [figures.number(figures.overall(samples, work, side, value)) for value in values]


def _compared(
    samples: collections.abc.Sequence[figures.Sample], work: str, names: collections.abc.Iterable[str], value: str
) -> list[str]:
    """Return the cells of one row: each side's median, and the first side's divided by it."""
    medians = [figures.overall(samples, work, side, value) for side in names]
    first = medians[0]
    no_ratios = not all(medians) or math.isnan(first)
    cells = [figures.number(first)]
    for median in medians[1:]:
        cell = figures.number(median)
        if not no_ratios and not math.isnan(median):
            cell += f" ({figures.number(figures.ratio(first, median))})"
        cells.append(cell)
    return cells


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for first, *others in (head, *rows):
        lines.append(f"   * - {first}".rstrip())
        lines += [f"     - {cell}".rstrip() for cell in others]
    return [*lines, ""]


_Named = tuple[str, plots.Plot]


def _plots(samples: collections.abc.Sequence[figures.Sample]) -> collections.abc.Iterator[_Named]:
    """Yield name and plot: the calls of each pair, and the memory of connections."""
    for pair in ("one", "three"):
        of_pair = [sample for sample in samples if sample.pair == pair]
        yield from _plots_of_calls(pair, of_pair)
        yield from _plots_of_connections(pair, of_pair)


def _plots_of_calls(pair: str, samples: collections.abc.Sequence[figures.Sample]) -> collections.abc.Iterator[_Named]:
    of_calls = [sample for sample in samples if sample.work.startswith("calls/")]
    measured = list(dict.fromkeys((sample.work, sample.side) for sample in of_calls))
    if not measured:
        return
    for value, logarithmic in _PLOTTED.items():
        medians = {}
        for called, side in measured:
            median = figures.overall(samples, called, side, value)
            if not math.isnan(median):
                medians[side, float(_variant(called))] = median
        lines = plots.over(_name, medians)
        unit = value.split()[0].replace("/", "-per-").lower()
        if lines:
            plot = plots.Plot(f"{_TITLES[pair]}: {value}", "callers", value, lines, logarithmic)
            yield f"performance-{pair}-calls-{unit}", plot


def _plots_of_connections(
    pair: str, samples: collections.abc.Sequence[figures.Sample]
) -> collections.abc.Iterator[_Named]:
    medians = {}
    for sample in samples:
        if sample.work != "connections":
            continue
        for value in sample.values:
            if value.startswith("memory MiB at "):
                count = float(value.rpartition(" ")[2])
                medians[sample.side, count] = figures.overall(samples, sample.work, sample.side, value)
    if medians:
        plot = plots.Plot(f"{_TITLES[pair]}: memory", "idle connections", "MiB", plots.over(_name, medians))
        yield f"performance-{pair}-connections-memory", plot
