"""The commands that look and change nothing: verify, status, topology, capacity."""

from __future__ import annotations

import argparse
import dataclasses
import re
import typing

from om_agent import errors, kinds, picture, proc, report, verify, workflow
from om_agent.cli import arguments, output
from om_agent.observe import routers
from om_agent.plan import capacity, topology

_VERIFY_SECONDS = 60.0
_DRAW_SECONDS = 120.0  # 128 interiors took 9 s on a busy machine


def add_verify(commands: typing.Any) -> None:
    parser = commands.add_parser("verify", help="is messaging really working here: routers, broker, messages")
    arguments.add_files(parser)
    parser.add_argument("--timeout", type=arguments.seconds, default=_VERIFY_SECONDS, metavar="SECONDS",
                        help="wait so long for what may come right by itself (default: %(default).0f)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    arguments.add_node_options(parser)
    parser.set_defaults(run=_verify)


def _verify(args: argparse.Namespace) -> int:
    options = arguments.options(args)
    ready = workflow.prepare_to_look(options)
    seen, found = workflow.verified(ready, options.root, args.timeout)
    if args.json:
        output.say_json(report.verify_json(ready.plan, seen, found))
    else:
        output.note_findings(found)
        output.say(report.verify_text(ready.plan, seen, found))
    return output.exit_code(found)


def add_status(commands: typing.Any) -> None:
    parser = commands.add_parser("status", help="the routers and both backends as a table, as they are now")
    arguments.add_files(parser)
    parser.add_argument("--json", action="store_true", help="print it as JSON, whose schema is stable")
    arguments.add_node_options(parser)
    parser.set_defaults(run=_status)


def _status(args: argparse.Namespace) -> int:
    options = arguments.options(args)
    ready = workflow.prepare_to_look(options)
    seen = workflow.look(ready, options.root, count=True)
    found = verify.findings(ready.plan, seen)
    if args.json:
        output.say_json(report.status_json(ready.deployment, ready.plan, seen, found))
    else:
        output.say(report.status_text(ready.deployment, ready.plan, seen))
        output.say(report.verdict_text(ready.plan, found))
        output.note_findings(found)
    return output.exit_code(found)


def add_topology(commands: typing.Any) -> None:
    parser = commands.add_parser("topology", help="draw the planned mesh, and what would be cut off by one loss")
    arguments.add_files(parser)
    parser.add_argument("--format", choices=("svg", "dot", "json"), default="svg", help="(default: %(default)s)")
    parser.add_argument("--live", action="store_true", help="colour what is up and down, as this node's router says")
    arguments.add_node_options(parser)
    parser.set_defaults(run=_topology)


def _topology(args: argparse.Namespace) -> int:
    options = arguments.options(args)
    d = workflow.parsed(workflow.existing_metadata(options if args.live else dataclasses.replace(options, node=None)))
    mesh = topology.mesh(d)
    findings = (*d.findings, *topology.mesh_findings(d, mesh))
    if not mesh.interiors:
        raise errors.InvalidInput([kinds.problem("rpc.scheme", "no-mesh")])
    colours = None
    if args.live:
        colours = routers.live(workflow.own_router(d, mesh, options), mesh, options.root)
    if args.format == "json":
        output.say_json(picture.data(mesh, colours), needed=True)
    else:
        text = picture.dot(mesh, colours)
        output.say(_draw(text) if args.format == "svg" else text.rstrip("\n"), needed=True)
    output.note_findings(findings)
    return errors.EXIT_OK


def _draw(text: str) -> str:
    """Return the picture of a text in Graphviz's language, as SVG."""
    tool = proc.find("dot")
    if not tool:
        raise errors.NotReady([kinds.problem("dot", "no-graphviz")])
    done = proc.run([tool, "-Tsvg"], _DRAW_SECONDS, stdin=text.encode())
    if done.returncode:
        raise errors.ProcessFailed(
            f"dot failed (exit code {done.returncode}). Take --format dot, and see what it says to that."
        )
    return done.stdout.rstrip("\n")


def add_capacity(commands: typing.Any) -> None:
    parser = commands.add_parser("capacity", help="connections, descriptors and memory of routers and brokers")
    arguments.add_files(parser)
    parser.add_argument("--processes", type=_processes, action="append", default=[], metavar="ROLE=N",
                        help="service processes that use messaging on a node of that role"
                             f" (default: {_processes_default()})")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(run=_capacity)


def _capacity(args: argparse.Namespace) -> int:
    d = workflow.parsed(workflow.existing_metadata(arguments.options(args)))
    known = sorted({n.role for n in d.nodes})
    unknown = [role for role, _ in args.processes if role not in known]
    if unknown:
        text = {"role": errors.quoted(unknown[0]), "known": ", ".join(known)}
        raise errors.InvalidInput([kinds.problem("--processes", "unknown-role", **text)])
    sizes = [capacity.measure(d, dict(args.processes), times) for times in (1, 10)]
    if args.json:
        output.say_json([dataclasses.asdict(size) for size in sizes], needed=True)
    else:
        output.say(report.capacity_text(sizes), needed=True)
    return errors.EXIT_OK


def _processes_default() -> str:
    return ", ".join(f"{role} {n}" for role, n in {**capacity.PROCESSES, "any other": capacity.OTHER_PROCESSES}.items())


def _processes(text: str) -> tuple[str, int]:
    role, _, count = text.partition("=")
    if not role or not re.fullmatch(r"[0-9]{1,6}", count):
        raise argparse.ArgumentTypeError("a role and a number are needed, as in compute=8")
    return role, int(count)
