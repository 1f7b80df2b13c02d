"""The commands that configure a node, or show what that would change: validate, plan, apply."""

from __future__ import annotations

import argparse
import json
import typing

from om_agent import apply, deployments, errors, metadata, report, validate, workflow
from om_agent.apply import comparing, files
from om_agent.cli import arguments, output

_WAIT_SECONDS = 3600.0


def add_commands(commands: typing.Any) -> None:
    """Add the commands of this module."""
    _add_validate(commands)
    _add_plan(commands)
    _add_apply(commands)


def _add_validate(commands: typing.Any) -> None:
    parser = commands.add_parser("validate", help="check the metadata and report every problem, on any machine")
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="JSON or YAML file; the agent merges several files, and a later file overrides an earlier one",
    )
    parser.add_argument("--node", help="also check that the metadata lists this node")
    parser.add_argument("--json", action="store_true", help="print the problems as JSON")
    parser.set_defaults(run=_validate)


def _validate(args: argparse.Namespace) -> int:
    deployment = workflow.parsed(workflow.raw_metadata(arguments.options(args)))
    findings = validate.validate(deployment, args.node)
    if args.json:
        output.say_json({"problems": report.problems_json(findings)})
        return errors.EXIT_OK
    output.note_findings(findings)
    count = len(deployment.nodes)
    rpc = deployment.rpc.scheme.value
    notify = deployment.notify.scheme.value
    output.say(f"valid: {count} nodes, rpc over {rpc}, notifications over {notify}")
    return errors.EXIT_OK


def _add_plan(commands: typing.Any) -> None:
    parser = commands.add_parser("plan", help="show what apply would change, with secrets masked")
    arguments.add_files(parser)
    parser.add_argument("--json", action="store_true", help="print the changes as JSON, without values")
    arguments.add_node_options(parser)
    arguments.add_reconcile_options(parser)
    parser.set_defaults(run=_plan)


def _plan(args: argparse.Namespace) -> int:
    options = arguments.options(args)
    root = options.root
    try:
        raw = workflow.raw_metadata(options)
    except metadata.NoData as e:
        return _no_data(args, e, {"changes": [], "problems": []})
    ready = workflow.prepare(raw, options)
    work = comparing.compare(ready.rendered, ready.host, root, dry=True, live=workflow.live_plan(ready, options))
    problems = apply.refusals(ready.rendered, ready.host, root, work)
    findings = (*ready.plan.findings, *problems)
    if args.json:
        changes = report.changes_json(work.changes)
        found = report.problems_json(findings)
        output.say_json({"node": ready.plan.node.name, "changes": changes, "problems": found}, needed=True)
    else:
        output.note_findings(findings)
        old = {t.file.path: files.read(files.on_disk(root, t.file.path)) for t in work.files_to_write}
        output.say(report.plan_text(ready.plan, work, old), needed=True)
    if problems:  # fail as apply would, so that `plan && apply` stops here
        output.note("om-agent: apply will refuse this. Fix the errors above first")
        return errors.EXIT_APPLY_FAILED
    return errors.EXIT_OK


def _no_data(args: argparse.Namespace, why: metadata.NoData, nothing: dict[str, list[object]]) -> int:
    """Report that there is no metadata. That is a success to os-refresh-config, and so plan reports success too."""
    text = json.dumps(nothing) if args.json else f"om-agent: {why}"
    output.say(text)
    return errors.EXIT_OK


def _add_apply(commands: typing.Any) -> None:
    parser = commands.add_parser("apply", help="configure this node as the metadata says")
    parser.add_argument("files", nargs="*", metavar="FILE", help="same as --metadata FILE")
    parser.add_argument(
        "--metadata",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="JSON or YAML file (default: the files that OS_CONFIG_FILES names, then those that os-collect-config lists"
        " in os_config_files.json, then tripleo's hieradata)",
    )
    parser.add_argument(
        "--wait",
        nargs="?",
        type=arguments.seconds,
        const=_WAIT_SECONDS,
        default=0.0,
        metavar="SECONDS",
        help=f"wait for metadata if this node was never configured (without SECONDS: {_WAIT_SECONDS:.0f})",
    )
    parser.add_argument("--json", action="store_true", help="print the changes as JSON, without values")
    parser.add_argument("-v", "--verbose", action="store_true", help="list every change and what puppet did")
    parser.add_argument(
        "--signal",
        action="store_true",
        help="if apply fails, report the failure to the Heat deployment that the metadata came from",
    )
    arguments.add_node_options(parser)
    arguments.add_apply_options(parser)
    parser.set_defaults(run=_apply, node_state=workflow.left_by_apply)


def _apply(args: argparse.Namespace) -> int:
    options = arguments.options(args)

    def get_raw() -> object:
        return workflow.wait_for_metadata(options, args.wait, output.note)

    try:
        with workflow.applied(get_raw, options, output.note) as done:
            name, outcome = done.ready.plan.node.name, done.outcome
            if args.json:
                output.say_json({"node": name, "changes": report.changes_json(outcome.changes)})
            else:
                output.say(report.outcome_text(name, outcome, args.verbose))
            return errors.EXIT_OK
    except metadata.NoData as e:
        return _no_data(args, e, {"changes": []})
    except (errors.AgentError, OSError) as e:
        if args.signal:
            failure = e if isinstance(e, errors.AgentError) else errors.ApplyFailed(f"{files.reason(e)}.")
            deployments.tell_of_failure(failure, options, output.note)
        raise
