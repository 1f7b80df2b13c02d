"""The commands for the running router of this node: drain, resync, watch."""

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


def add_commands(commands: typing.Any) -> None:
    """Add the commands of this module."""
    _add_drain(commands)
    _add_resync(commands)
    _add_watch(commands)


def _add_drain(commands: typing.Any) -> None:
    parser = commands.add_parser("drain", help="move clients away from this node's router before you stop it")
    arguments.add_files(parser)
    parser.add_argument(
        "--timeout",
        type=arguments.seconds,
        default=_DRAIN_SECONDS,
        metavar="SECONDS",
        help="wait up to SECONDS until no message is under way (default: %(default).0f)",
    )
    parser.add_argument("--undo", action="store_true", help="restore the running router to its configuration file")
    arguments.add_node_options(parser)
    parser.set_defaults(run=_drain, node_state=workflow.left_by_drain)


def _drain(args: argparse.Namespace) -> int:
    options = arguments.options(args)
    ready = workflow.prepare_to_look(options)
    name = ready.plan.node.name
    router_plan = ready.plan.router
    if not router_plan:
        raise errors.NotReady([kinds.problem(name, "no-router")])
    with locking.lock(options.root, options.lock_seconds):
        if args.undo:
            steps = drain.undo(router_plan, options.root)
            output.say(report.undo_text(name, steps))
            return errors.EXIT_OK
        remaining = drain.drain(ready.deployment, router_plan, options.root, args.timeout)
    output.say(report.drain_text(name, remaining))
    return errors.EXIT_OK if remaining.clean else errors.EXIT_UNHEALTHY


def _add_resync(commands: typing.Any) -> None:
    parser = commands.add_parser(
        "resync", help="make the other routers learn the addresses of this node's router again"
    )
    arguments.add_files(parser)
    parser.add_argument(
        "--timeout",
        type=arguments.seconds,
        default=_RESYNC_SECONDS,
        metavar="SECONDS",
        help="stop trying after SECONDS (default: %(default).0f)",
    )
    parser.add_argument(
        "--stay",
        action="store_true",
        help="keep checking until the timeout, as the unit that starts with the router does",
    )
    arguments.add_node_options(parser)
    parser.set_defaults(run=_resync)


def _resync(args: argparse.Namespace) -> int:
    options = arguments.options(args)
    deployment = workflow.parsed(workflow.existing_metadata(options))
    mesh = topology.mesh(deployment)
    own_router = workflow.own_router(deployment, mesh, options)
    done = resync.resync(deployment, own_router, options.root, args.timeout, args.stay)
    output.say(report.resync_text(own_router.node.name, done))
    return errors.EXIT_UNHEALTHY if done.missing else errors.EXIT_OK


def _add_watch(commands: typing.Any) -> None:
    parser = commands.add_parser(
        "watch", help="kill this node's router when it hangs; a systemd unit runs this command permanently"
    )
    units = [engine.unit for engine in engines.RECORDS.values()]
    parser.add_argument("unit", choices=units, help="systemd unit of the router")
    arguments.add_root(parser, "read the router's configuration file below DIR instead of /")
    parser.set_defaults(run=_watch)


def _watch(args: argparse.Namespace) -> typing.NoReturn:
    """Replace this process by a smaller program, since the watch runs as long as the router.

    That program imports a third of the modules that this process has imported.
    """
    config = next(engine.config for engine in engines.RECORDS.values() if engine.unit == args.unit)
    state_directory = os.environ.get("RUNTIME_DIRECTORY")  # systemd.exec(5)
    state_file = f"{state_directory}/{args.unit}" if state_directory else ""
    order = (args.unit, str(files.on_disk(args.root, config)), state_file)
    code = f"from om_agent import watch; watch.run(*{order!r})"
    os.execv(sys.executable, [sys.executable, "-c", code])
