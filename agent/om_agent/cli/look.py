"""The commands that inspect the node or the plan and change nothing: verify, status, topology, capacity."""

from __future__ import annotations

import argparse
import dataclasses
import re
import typing

from om_agent import drawing, errors, kinds, model, picture, report, verify, workflow
from om_agent.cli import arguments, output
from om_agent.observe import routers
from om_agent.plan import capacity, topology

_VERIFY_SECONDS = 60.0
_SCALES = (1, 10)  # capacity is for the given number of service processes, and for ten times as many


def add_commands(commands: typing.Any) -> None:
    """Add the commands of this module."""
    _add_verify(commands)
    _add_status(commands)
    _add_topology(commands)
    _add_capacity(commands)


def _add_verify(commands: typing.Any) -> None:
    parser = commands.add_parser("verify", help="test whether messaging works on this node: routers, broker, messages")
    arguments.add_files(parser)
    parser.add_argument(
        "--timeout",
        type=arguments.seconds,
        default=_VERIFY_SECONDS,
        metavar="SECONDS",
        help="wait up to SECONDS for problems that may resolve by themselves (default: %(default).0f)",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    arguments.add_node_options(parser)
    parser.set_defaults(run=_verify)


def _verify(args: argparse.Namespace) -> int:
    options = arguments.options(args)
    ready = workflow.prepare_to_look(options)
    seen, findings = workflow.verified(ready, options.root, args.timeout)
    if args.json:
        output.say_json(report.verify_json(ready.plan, seen, findings))
    else:
        output.note_findings(findings)
        output.say(report.verify_text(ready.plan, seen, findings))
    return output.exit_code(findings)


def _add_status(commands: typing.Any) -> None:
    parser = commands.add_parser("status", help="show the current state of the routers and both backends as a table")
    arguments.add_files(parser)
    parser.add_argument("--json", action="store_true", help="print the state as JSON, in a stable schema")
    arguments.add_node_options(parser)
    parser.set_defaults(run=_status)


def _status(args: argparse.Namespace) -> int:
    options = arguments.options(args)
    ready = workflow.prepare_to_look(options)
    seen = workflow.look(ready, options.root, count=True)
    findings = verify.findings(ready.plan, seen)
    if args.json:
        output.say_json(report.status_json(ready.deployment, ready.plan, seen, findings))
    else:
        output.say(report.status_text(ready.deployment, ready.plan, seen))
        output.say(report.verdict_text(ready.plan, findings))
        output.note_findings(findings)
    return output.exit_code(findings)


def _add_topology(commands: typing.Any) -> None:
    parser = commands.add_parser("topology", help="draw the planned mesh, and what each single failure would cut off")
    arguments.add_files(parser)
    parser.add_argument(
        "--format",
        choices=("svg", "dot", "json"),
        default="svg",
        help="format of the output (default: %(default)s)",
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="colour the routers and links that are up and down; this node's router reports them",
    )
    arguments.add_node_options(parser)
    parser.set_defaults(run=_topology)


def _topology(args: argparse.Namespace) -> int:
    options = arguments.options(args)
    wanted = options if args.live else dataclasses.replace(options, node=None)
    deployment = workflow.parsed(workflow.existing_metadata(wanted))
    mesh = topology.mesh(deployment)
    findings = (*deployment.findings, *topology.mesh_findings(deployment, mesh))
    if not mesh.interiors:
        raise errors.InvalidInput([kinds.problem("rpc.scheme", "no-mesh")])
    colours = None
    if args.live:
        own_router = workflow.own_router(deployment, mesh, options)
        colours = routers.live(own_router, mesh, options.root)
    _print_mesh(mesh, colours, args.format)
    output.note_findings(findings)
    return errors.EXIT_OK


def _print_mesh(mesh: topology.Mesh, colours: picture.Live | None, format_name: str) -> None:
    if format_name == "json":
        output.say_json(picture.data(mesh, colours), needed=True)
        return
    text = picture.dot(mesh, colours)
    drawn = drawing.svg(text) if format_name == "svg" else text.rstrip("\n")
    output.say(drawn, needed=True)


def _add_capacity(commands: typing.Any) -> None:
    parser = commands.add_parser(
        "capacity", help="estimate connections, file descriptors and memory of routers and brokers"
    )
    arguments.add_files(parser)
    parser.add_argument(
        "--processes",
        type=_processes,
        action="append",
        default=[],
        metavar="ROLE=N",
        help="number of service processes that use messaging on each node of ROLE"
        f" (default: {_describe_default_processes()})",
    )
    parser.add_argument("--json", action="store_true", help="print the estimate as JSON")
    parser.set_defaults(run=_capacity)


def _capacity(args: argparse.Namespace) -> int:
    deployment = workflow.parsed(workflow.existing_metadata(arguments.options(args)))
    processes = dict(args.processes)
    _check_roles(deployment, processes)
    sizes = [capacity.measure(deployment, processes, times) for times in _SCALES]
    if args.json:
        output.say_json([dataclasses.asdict(size) for size in sizes], needed=True)
    else:
        output.say(report.capacity_text(sizes), needed=True)
    return errors.EXIT_OK


def _check_roles(deployment: model.Deployment, processes: typing.Iterable[str]) -> None:
    """Refuse a role that no node has."""
    known = sorted({node.role for node in deployment.nodes})
    unknown = [role for role in processes if role not in known]
    if unknown:
        role = errors.quoted(unknown[0])
        problem = kinds.problem("--processes", "unknown-role", role=role, known=", ".join(known))
        raise errors.InvalidInput([problem])


def _describe_default_processes() -> str:
    counts = {**capacity.PROCESSES, "any other": capacity.OTHER_PROCESSES}
    return ", ".join(f"{role} {count}" for role, count in counts.items())


def _processes(text: str) -> tuple[str, int]:
    role, _, count = text.partition("=")
    if not role or not re.fullmatch(r"[0-9]{1,6}", count):
        raise argparse.ArgumentTypeError("expected a role and a number, for example compute=8")
    return role, int(count)
