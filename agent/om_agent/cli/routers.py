"""The commands for this node's running router: drain, resync, watch."""

from __future__ import annotations

import argparse
import os
import sys
import typing

from om_agent import drain, engines, errors, kinds, report, resync, workflow
from om_agent.apply import files, locking
from om_agent.cli import arguments, output
from om_agent.plan import topology

_DRAIN_SECONDS = 30.0
_RESYNC_SECONDS = 60.0


def add_drain(commands: typing.Any) -> None:
    parser = commands.add_parser("drain", help="take clients off this node's router before it is stopped")
    arguments.add_files(parser)
    parser.add_argument("--timeout", type=arguments.seconds, default=_DRAIN_SECONDS, metavar="SECONDS",
                        help="wait so long until nothing is under way any more (default: %(default).0f)")  # fmt: skip
    parser.add_argument("--undo", action="store_true", help="make the running router as its file says again")
    arguments.add_node_options(parser)
    parser.set_defaults(run=_drain, left=workflow.left_by_drain)


def _drain(args: argparse.Namespace) -> int:
    options = arguments.options(args)
    ready = workflow.prepare_to_look(options)
    name, planned, root = ready.plan.node.name, ready.plan.router, options.root
    if not planned:
        raise errors.NotReady([kinds.problem(name, "no-router")])
    with locking.lock(root, options.lock_seconds):
        config = files.read(files.on_disk(root, planned.paths.config))
        if args.undo:
            output.say(report.undo_text(name, drain.undo(planned, config, root)))
            return errors.EXIT_OK
        left = drain.drain(ready.deployment, planned, root, args.timeout)
    output.say(report.drain_text(name, left))
    return errors.EXIT_OK if left.clean else errors.EXIT_UNHEALTHY


def add_resync(commands: typing.Any) -> None:
    parser = commands.add_parser(
        "resync", help="have the other routers learn the addresses of this node's router again"
    )
    arguments.add_files(parser)
    parser.add_argument("--timeout", type=arguments.seconds, default=_RESYNC_SECONDS, metavar="SECONDS",
                        help="try for so long (default: %(default).0f)")  # fmt: skip
    parser.add_argument("--stay", action="store_true",
                        help="look for all of that time, as the unit does that starts with the router")  # fmt: skip
    arguments.add_node_options(parser)
    parser.set_defaults(run=_resync)


def _resync(args: argparse.Namespace) -> int:
    options = arguments.options(args)
    d = workflow.parsed(workflow.existing_metadata(options))
    local = workflow.own_router(d, topology.mesh(d), options)
    done = resync.resync(d, local, options.root, args.timeout, args.stay)
    output.say(report.resync_text(local.node.name, done))
    return errors.EXIT_UNHEALTHY if done.missing else errors.EXIT_OK


def add_watch(commands: typing.Any) -> None:
    parser = commands.add_parser("watch", help="end this node's router when it hangs; a unit runs this, always")
    parser.add_argument("unit", choices=[e.unit for e in engines.RECORDS.values()], help="the router's unit")
    arguments.add_root(parser, "read the router's file below DIR instead of /")
    parser.set_defaults(run=_watch)


def _watch(args: argparse.Namespace) -> typing.NoReturn:
    """Turn into a program that has imported a third of what this one has, since it runs as long as the router."""
    config = next(e.config for e in engines.RECORDS.values() if e.unit == args.unit)
    kept = os.environ.get("RUNTIME_DIRECTORY")  # systemd.exec(5)
    order = (args.unit, str(files.on_disk(args.root, config)), f"{kept}/{args.unit}" if kept else "")
    os.execv(sys.executable, [sys.executable, "-c", f"from om_agent import watch; watch.run(*{order!r})"])
