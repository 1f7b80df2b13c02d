"""The commands that make a node so, or say what that would change: validate, plan, apply."""

from __future__ import annotations

import argparse
import datetime
import json
import typing

from om_agent import apply, certs, deployments, errors, metadata, model, report, workflow
from om_agent.apply import comparing, files
from om_agent.cli import arguments, output
from om_agent.plan import layout, topology

_WAIT_SECONDS = 3600.0


def add_validate(commands: typing.Any) -> None:
    parser = commands.add_parser("validate", help="report every problem in the metadata, off the node")
    parser.add_argument("files", nargs="+", metavar="FILE", help="JSON or YAML; several are merged, a later one wins")
    parser.add_argument("--node", help="check that this node is in the metadata")
    parser.add_argument("--json", action="store_true", help="print the problems as JSON")
    parser.set_defaults(run=_validate)


def _validate(args: argparse.Namespace) -> int:
    d = workflow.parsed(workflow.raw_metadata(arguments.options(args)))
    asked = [name for name in (args.node, d.node) if name]
    node = model.local_node(d, asked) if asked else None
    problems = list(_check_pem(d, node))
    if problems:
        raise errors.InvalidInput(problems)
    findings = (*d.findings, *topology.mesh_findings(d, topology.mesh(d)))
    if args.json:
        output.say_json({"problems": report.problems_json(findings)})
        return errors.EXIT_OK
    output.note_findings(findings)
    rpc, notify = d.rpc.scheme.value, d.notify.scheme.value
    output.say(f"valid: {len(d.nodes)} nodes, rpc over {rpc}, notifications over {notify}")
    return errors.EXIT_OK


def _check_pem(d: model.Deployment, node: model.Node | None) -> typing.Iterator[errors.Problem]:
    """Yield what is wrong with a certificate that stands in the metadata itself, as far as any machine can say."""
    if not d.tls.certificate:
        return
    serves = node is not None and any(d.carried_by(node, b.scheme) for b in d.halves if b.tls)
    server = layout.server("server", d.tls, (node.host,) if node and serves else ())
    shown = certs.Given(server, d.tls.ca, d.tls.certificate, d.tls.key)
    yield from certs.check_server(shown, datetime.datetime.now(datetime.timezone.utc))


def add_plan(commands: typing.Any) -> None:
    parser = commands.add_parser("plan", help="show what apply would do, secrets masked")
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
        told = report.problems_json(findings)
        output.say_json({"node": ready.plan.node.name, "changes": changes, "problems": told}, needed=True)
    else:
        output.note_findings(findings)
        old = {t.file.path: files.read(files.on_disk(root, t.file.path)) for t in work.files_to_write}
        output.say(report.plan_text(ready.plan, work, old), needed=True)
    if problems:  # so that `plan && apply` stops here, as apply would
        output.note("om-agent: apply will refuse this. Fix the errors above first")
        return errors.EXIT_APPLY_FAILED
    return errors.EXIT_OK


def _no_data(args: argparse.Namespace, why: metadata.NoData, nothing: dict[str, list[object]]) -> int:
    """There is nothing to do, which is what os-refresh-config calls a success; so plan foretells one."""
    output.say(json.dumps(nothing) if args.json else f"om-agent: {why}")
    return errors.EXIT_OK


def add_apply(commands: typing.Any) -> None:
    parser = commands.add_parser("apply", help="make this node so")
    parser.add_argument("files", nargs="*", metavar="FILE", help="the same as --metadata FILE")
    parser.add_argument("--metadata", nargs="+", action="extend", default=[], metavar="FILE",
                        help="JSON or YAML (default: OS_CONFIG_FILES, then os-collect-config's os_config_files.json,"
                             " then tripleo's hieradata)")  # fmt: skip
    parser.add_argument("--wait", nargs="?", type=arguments.seconds, const=_WAIT_SECONDS, default=0.0,
                        metavar="SECONDS",
                        help="where none was ever applied, wait for metadata (default: up to an hour)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the changes as JSON, without values")
    parser.add_argument("-v", "--verbose", action="store_true", help="list every change and what puppet did")
    parser.add_argument("--signal", action="store_true",
                        help="when it fails, tell the Heat deployment that the metadata is from")  # fmt: skip
    arguments.add_node_options(parser)
    arguments.add_apply_options(parser)
    parser.set_defaults(run=_apply, left=workflow.left_by_apply)


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
