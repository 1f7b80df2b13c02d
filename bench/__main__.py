"""``make bench``: compare routers with RabbitMQ, and measure the cost of the agent and the limits of a mesh."""

from __future__ import annotations

import argparse
import collections.abc
import dataclasses
import datetime
import functools
import json
import pathlib
import sys
import time
import typing

import om_agent.errors
from om_agent import model

from bench import agent, figures, machine, page, plots, run, scale, sides
from testbed import console, errors, processes, rabbitmq, routers, workers
from testbed.recovery import network

_ENGINES = [model.Engine.QDROUTERD.value, model.Engine.SKROUTERD.value]
_KINDS = ("calls", "far", "burst", "connections", "storm", "failover")
_PARTS: dict[str, run.Part] = {
    **{name: functools.partial(run.pair, name=name) for name in sides.KINDS},
    "agent": agent.measure,
    "scale": scale.measure,
}


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", choices=_ENGINES, default=_ENGINES[0], help="the router (default: %(default)s)")
    parser.add_argument("--part", action="append", choices=_PARTS, help="run only this part; may be repeated")
    parser.add_argument("--work", action="append", choices=_KINDS, help="run only this work; may be repeated")
    parser.add_argument(
        "--repetitions", type=_positive, default=3, metavar="N", help="the maximum (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("build/bench"),
        metavar="DIR",
        help="write the results there (default: %(default)s)",
    )
    parser.add_argument(
        "--page-of", type=pathlib.Path, metavar="FILE", help="only make the page again from a run's JSON"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def main(argv: collections.abc.Sequence[str] | None = None) -> int:
    """Run the parts. Write JSON and the page after each of them. Return the exit code."""
    args = build_parser().parse_args(argv)
    out = console.Console(0)
    processes.stop_on_signals()
    try:
        if args.page_of:
            page.write(json.loads(args.page_of.read_text()), args.out)
            return 0
        _check(model.Engine(args.engine), args.part or _PARTS)
        network.enter("bench")
        network.loopback()
        with network.directory(None) as directory, processes.Supervisor(directory / "logs") as supervisor:
            _run(out, supervisor, directory, args)
    except errors.TestbedError as e:
        out.fail(str(e), e.detail)
        return 1
    except om_agent.errors.AgentError as e:  # a router or broker that could not be asked
        out.fail(str(e), "")
        return 1
    except errors.Stopped as e:
        return e.exit_code
    return 0


def _check(engine: model.Engine, parts: collections.abc.Container[str]) -> None:
    """Check at the start that all programs are installed, since a run takes an hour."""
    if not routers.find(engine):
        variable = f"OM_{engine.value.upper()}"
        raise errors.TestbedError(
            f"The benchmark needs a real router, but {engine.value} is not on PATH and {variable} does not name it."
        )
    workers.check_oslo_messaging()
    rabbitmq.find_server()
    plots.find()
    if "agent" in parts:
        agent.find()
    if "scale" in parts:
        scale.path_engine(engine)


def _run(
    out: console.Console, supervisor: processes.Supervisor, directory: pathlib.Path, args: argparse.Namespace
) -> None:
    begun = time.monotonic()
    found: dict[str, typing.Any] = {
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"),
        "machine": machine.describe(),
        "engine": args.engine,
        "samples": [],
        "found": {},
    }

    def say(text: str) -> None:
        out.line(f"{time.monotonic() - begun:5.0f} s  {text}")

    def show(sample: figures.Sample) -> None:
        found["samples"].append(dataclasses.asdict(sample))
        values = ", ".join(f"{figures.number(value)} {name}" for name, value in sample.values.items())
        say(
            f"{sample.pair} {sample.work} #{sample.repetition + 1} {sample.side}: {values}; "
            f"other programs used {sample.foreign:.2f} cores"
        )

    for part in dict.fromkeys(args.part or _PARTS):
        where = directory / part
        where.mkdir()
        wanted = args.work or _KINDS
        context = run.Context(supervisor, where, model.Engine(args.engine), args.repetitions, wanted, show, say)
        try:
            found["found"].update(_PARTS[part](context))
        finally:  # keep the figures of a part that failed
            found["seconds"] = round(time.monotonic() - begun)
            page.write(found, args.out)
    out.line(f"The page is {args.out / 'performance.rst'}.")


if __name__ == "__main__":
    sys.exit(main())
