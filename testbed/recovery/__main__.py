"""``python -m testbed.recovery``: the table of failures, for one router engine and for RabbitMQ."""

from __future__ import annotations

import argparse
import collections.abc
import dataclasses
import json
import pathlib
import sys

from om_agent import model

from testbed import console, errors, processes
from testbed.recovery import cases, network, runner

_HEAD = ("failure", "RPC over", "ok", "failed", "gap s", "disturbed s", "lost")  # as in doc/recovery.rst
_ENGINES = [model.Engine.QDROUTERD.value, model.Engine.SKROUTERD.value]


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    names = [case.name for case in cases.CASES]
    parser = argparse.ArgumentParser(
        prog="python -m testbed.recovery",
        description="Put failures into an overcloud under load, and tell what became of the calls and messages.",
        epilog="cases:\n" + "\n".join(f"  {case.name:15}  {case.what}" for case in cases.CASES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--engine", choices=_ENGINES, default=_ENGINES[0], help="the router (default: %(default)s)")
    parser.add_argument("--driver", choices=("amqp", "amqp1"), default="amqp", help="its scheme (default: %(default)s)")
    parser.add_argument("--rpc", choices=[b.value for b in runner.BACKENDS], help="over this alone (default: both)")
    parser.add_argument("--only", action="append", choices=names, metavar="CASE", help="may be given several times")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--keep", type=pathlib.Path, metavar="DIR", help="a new directory: leave files and logs there")
    return parser


def main(argv: collections.abc.Sequence[str] | None = None) -> int:
    """Run the cases; returns the exit code."""
    args = build_parser().parse_args(argv)
    out = console.Console(0)
    processes.stop_on_signals()
    try:
        network.enter("testbed.recovery")
        with network.directory(args.keep) as directory, processes.Supervisor(directory / "logs") as supervisor:
            _run(out, supervisor, directory, args)
    except errors.TestbedError as e:
        out.fail(str(e), e.detail)
        return 1
    except errors.Stopped as e:
        return e.exit_code
    return 0


def _run(
    out: console.Console, supervisor: processes.Supervisor, directory: pathlib.Path, args: argparse.Namespace
) -> None:
    wanted = [case for case in cases.CASES if not args.only or case.name in args.only]
    rows: list[runner.Row] = []

    def show(row: runner.Row) -> None:
        rows.append(row)
        found = row.outcome
        refused = f"; refused {found.refused}" if found.refused else ""
        out.line(
            f"{row.case} ({row.backend}): lasted {row.lasted:.1f} s, well {row.well:.1f} s later; "
            f"acknowledged {found.acknowledged}{refused}; errors {found.errors}"
            + (f"; lost {found.lost_at}" if any(found.lost.values()) else "")
            + (f"; {row.starved} edges given up" if row.starved else "")
            + (f"; {row.remark}" if row.remark else "")
        )
        if args.json:
            args.json.write_text(json.dumps([dataclasses.asdict(r) for r in rows], indent=1) + "\n")

    backends = [b for b in runner.BACKENDS if args.rpc in (None, b.value)]
    runner.run(supervisor, directory, model.Engine(args.engine), backends, wanted, show, args.driver)
    out.table(_HEAD, [_cells(row) for row in rows])


def _cells(row: runner.Row) -> tuple[str, ...]:
    found = row.outcome
    lost = ", ".join(str(found.lost[kind]) for kind in ("cast", "fanout", "notify"))
    times = (f"{found.gap:.1f}", f"{found.disturbed:.1f}")
    return (row.case, row.backend, str(found.ok), str(found.failed), *times, lost)


if __name__ == "__main__":
    sys.exit(main())
