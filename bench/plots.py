"""Plots of a run, drawn by gnuplot."""

from __future__ import annotations

import collections.abc
import dataclasses
import pathlib
import shutil
import subprocess

from testbed import errors

_SECONDS = 30
_COLOURS = ("#1b6ca8", "#7fb7e0", "#c0504d", "#e0a030", "#7a5195")


@dataclasses.dataclass(frozen=True)
class Plot:
    """A plot of lines.

    :param x: the label of the x axis.
    :param y: the label of the y axis.
    :param lines: by name, the points (x, y) in the order of x.
    """

    title: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float]]]
    logarithmic: bool = False


def script(plot: Plot) -> str:
    """Return the script for gnuplot. It quotes all names, although they come from this project."""
    lines = [
        'set terminal svg size 640,360 font "Helvetica,12" background rgb "white"',
        f"set title {_quoted(plot.title)} noenhanced",
        f"set xlabel {_quoted(plot.x)} noenhanced",
        f"set ylabel {_quoted(plot.y)} noenhanced",
        "set key outside right noenhanced",
        "set grid ytics",
        "set logscale x 2" if plot.x == "callers" else "",
        "set logscale y" if plot.logarithmic else "set yrange [0:*]",
    ]
    positions = dict.fromkeys(x for points in plot.lines.values() for x, _ in points)
    ticks = ", ".join(f"'{x:g}' {x:g}" for x in positions)
    lines.append(f"set xtics ({ticks})")
    drawn = []
    for number, (name, points) in enumerate(plot.lines.items()):
        rows = "\n".join(f"{x:g} {y:g}" for x, y in points)
        lines.append(f"$d{number} << END\n{rows}\nEND")
        colour = _COLOURS[number % len(_COLOURS)]
        drawn.append(f"$d{number} with linespoints lw 2 pt 7 ps 0.6 lc rgb '{colour}' title {_quoted(name)}")
    lines.append("plot " + ", ".join(drawn))
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def find() -> str:
    """Return gnuplot's path.

    :raises testbed.errors.TestbedError: when it is missing.
    """
    found = shutil.which("gnuplot")
    if not found:
        raise errors.TestbedError("gnuplot, which draws the plots, is missing: run tools/bootstrap test.")
    return found


def draw(plot: Plot, path: pathlib.Path) -> None:
    """Write the plot as SVG.

    :raises testbed.errors.TestbedError: when gnuplot is missing or fails.
    """
    done = subprocess.run([find()], input=script(plot), capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode or not done.stdout.startswith("<?xml"):
        raise errors.TestbedError(f"gnuplot could not draw {plot.title}.", done.stderr)
    path.write_text("\n".join(line.rstrip() for line in done.stdout.splitlines()) + "\n")


def over(
    name: collections.abc.Callable[[str], str],
    medians: collections.abc.Mapping[tuple[str, float], float],
) -> dict[str, list[tuple[float, float]]]:
    """Return the lines of a plot, one for each side.

    :param name: returns the name of a side.
    :param medians: y by (side, x).
    """
    lines: dict[str, list[tuple[float, float]]] = {}
    for (side, x), y in medians.items():
        lines.setdefault(name(side), []).append((x, y))
    return {side: sorted(points) for side, points in lines.items()}
