"""``om-agent``: the only module that knows of arguments, the environment and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import io
import json
import os
import pathlib
import re
import resource
import signal
import socket
import sys
import sysconfig
import time
import typing

import om_agent
from om_agent import (
    apply,
    certs,
    connections,
    drain,
    errors,
    facts,
    fields,
    heat,
    kinds,
    metadata,
    model,
    observe,
    parse,
    picture,
    plan,
    proc,
    render,
    report,
    resync,
    verify,
)
from om_agent.apply import files
from om_agent.apply import router as running
from om_agent.kinds import clauses
from om_agent.plan import capacity, layout, router, services, topology

_WAIT_SECONDS = 3600.0
_WAIT_POLL = 1.0
_LOCK_SECONDS = 300.0
_PUPPET_SECONDS = 900.0
_VERIFY_SECONDS = 60.0
_DEPLOY_VERIFY_SECONDS = 300.0  # of a deployment: the other nodes of a new stack may come up minutes later
_PROBE_SECONDS = 15.0
_DRAIN_SECONDS = 30.0
_RESYNC_SECONDS = 60.0
_LEAVE = ("DELETE", "SUSPEND")  # what Heat does with a deployment that is not to change the node
_DRAW_SECONDS = 120.0  # 128 interiors took 9 s on a busy machine

_EPILOG = """\
exit codes:
  0  the desired state holds, or there is no metadata and the present state was kept
  1  it could not be done: apply failed, and the node is as it was before, unless the message says otherwise; plan says
     that apply would fail so; drain failed, and it says what is left; verify or status could not look, and tell nothing
     of messaging
  2  the metadata or the command is invalid, and nothing was touched
  3  verify or status found messaging degraded or broken, or drain left something; what it is and the next command to
     run are printed

examples:
  om-agent validate overcloud.json
  om-agent plan overcloud.json --node overcloud-controller-0
  om-agent apply --wait
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="om-agent",
        description="Make an overcloud node's messaging configuration right, from its Heat metadata.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"om-agent {om_agent.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    validate = commands.add_parser("validate", help="report every problem in the metadata, off the node")
    validate.add_argument("files", nargs="+", metavar="FILE", help="JSON or YAML; several are merged, a later one wins")
    validate.add_argument("--node", help="check that this node is in the metadata")
    validate.add_argument("--json", action="store_true", help="print the problems as JSON")

    planned = commands.add_parser("plan", help="show what apply would do, secrets masked")
    _add_files(planned)
    planned.add_argument("--json", action="store_true", help="print the changes as JSON, without values")
    _add_node_options(planned)
    _add_reconcile_options(planned)

    applied = commands.add_parser("apply", help="make this node so")
    applied.add_argument("files", nargs="*", metavar="FILE", help="the same as --metadata FILE")
    applied.add_argument("--metadata", nargs="+", action="extend", default=[], metavar="FILE",
                         help="JSON or YAML (default: OS_CONFIG_FILES, then os-collect-config's os_config_files.json,"
                              " then tripleo's hieradata)")  # fmt: skip
    applied.add_argument("--wait", nargs="?", type=_seconds, const=_WAIT_SECONDS, default=0.0, metavar="SECONDS",
                         help="where none was ever applied, wait for metadata (default: up to an hour)")  # fmt: skip
    applied.add_argument("--json", action="store_true", help="print the changes as JSON, without values")
    applied.add_argument("-v", "--verbose", action="store_true", help="list every change and what puppet did")
    applied.add_argument("--signal", action="store_true",
                         help="when it fails, tell the Heat deployment that the metadata is from")  # fmt: skip
    _add_node_options(applied)
    _add_apply_options(applied)

    hook = commands.add_parser("hook", help="heat-config hook: deployment on stdin, deploy_* on stdout, exit 0")
    signalled = commands.add_parser("signal", help="carry out Heat's deployment as the hook does, and tell Heat")
    for parser_ in (hook, signalled):
        parser_.add_argument("-v", "--verbose", action="store_true", help="as for apply; Heat is told of every change")
        _add_node_options(parser_)
        _add_apply_options(parser_)

    verified = commands.add_parser("verify", help="is messaging really working here: routers, broker, messages")
    _add_files(verified)
    verified.add_argument("--timeout", type=_seconds, default=_VERIFY_SECONDS, metavar="SECONDS",
                          help="wait so long for what may come right by itself (default: %(default).0f)")  # fmt: skip
    verified.add_argument("--json", action="store_true", help="print what was found as JSON")
    _add_node_options(verified)

    status = commands.add_parser("status", help="the routers and both backends as a table, as they are now")
    _add_files(status)
    status.add_argument("--json", action="store_true", help="print it as JSON, whose schema is stable")
    _add_node_options(status)

    drained = commands.add_parser("drain", help="take clients off this node's router before it is stopped")
    _add_files(drained)
    drained.add_argument("--timeout", type=_seconds, default=_DRAIN_SECONDS, metavar="SECONDS",
                         help="wait so long until nothing is under way any more (default: %(default).0f)")  # fmt: skip
    drained.add_argument("--undo", action="store_true", help="make the running router as its file says again")
    _add_node_options(drained)

    synced = commands.add_parser(
        "resync", help="have the other routers learn the addresses of this node's router again"
    )
    _add_files(synced)
    synced.add_argument("--timeout", type=_seconds, default=_RESYNC_SECONDS, metavar="SECONDS",
                        help="try for so long (default: %(default).0f)")  # fmt: skip
    synced.add_argument("--stay", action="store_true",
                        help="look for all of that time, as the unit does that starts with the router")  # fmt: skip
    _add_node_options(synced)

    watched = commands.add_parser("watch", help="end this node's router when it hangs; a unit runs this, always")
    watched.add_argument("unit", choices=[e.unit for e in layout.ENGINES.values()], help="the router's unit")
    watched.add_argument("--root", type=_root, default=pathlib.Path("/"), metavar="DIR",
                         help="read the router's file below DIR instead of /")  # fmt: skip

    drawn = commands.add_parser("topology", help="draw the planned mesh, and what would be cut off by one loss")
    _add_files(drawn)
    drawn.add_argument("--format", choices=("svg", "dot", "json"), default="svg", help="(default: %(default)s)")
    drawn.add_argument("--live", action="store_true", help="colour what is up and down, as this node's router says")
    _add_node_options(drawn)

    counted = commands.add_parser("capacity", help="connections, descriptors and memory of routers and brokers")
    _add_files(counted)
    counted.add_argument("--processes", type=_processes, action="append", default=[], metavar="ROLE=N",
                         help="service processes that use messaging on a node of that role"
                              f" (default: {_processes_default()})")  # fmt: skip
    counted.add_argument("--json", action="store_true", help="print it as JSON")

    commands.add_parser("elements-path", help="print where disk-image-create finds this project's elements")
    return parser


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", metavar="FILE", help="JSON or YAML (default: as for apply)")


def _add_node_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--node", help="the node's name in the metadata (default: its node key, then the host name)")
    parser.add_argument("--root", type=_root, default=pathlib.Path("/"), metavar="DIR",
                        help="work below DIR instead of /")  # fmt: skip
    parser.add_argument("--relocate", action="store_true",
                        help="put DIR into the paths inside the files too, so that programs outside a chroot find"
                             " them")  # fmt: skip
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--services", dest="services", action="store_true", default=None,
                       help="restart the units whose configuration changed (default: where systemd runs)")  # fmt: skip
    group.add_argument("--no-services", dest="services", action="store_false", help="leave every unit alone")


def _add_reconcile_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--reconcile", dest="reconcile", action="store_true", default=None,
                       help="change router and broker while they run, where that is possible (default: where units are"
                            " managed)")  # fmt: skip
    group.add_argument("--no-reconcile", dest="reconcile", action="store_false",
                       help="restart router and broker for every change")  # fmt: skip


def _add_apply_options(parser: argparse.ArgumentParser) -> None:
    _add_reconcile_options(parser)
    parser.add_argument("--lock-timeout", type=_seconds, default=_LOCK_SECONDS, metavar="SECONDS",
                        help="wait so long for another agent (default: %(default).0f)")  # fmt: skip
    parser.add_argument("--puppet-timeout", type=_seconds, default=_PUPPET_SECONDS, metavar="SECONDS",
                        help="end puppet after so long (default: %(default).0f)")  # fmt: skip


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 86400 * 7:
        raise argparse.ArgumentTypeError("a number of seconds from 0 to 604800 is needed")
    return value


def _processes_default() -> str:
    return ", ".join(f"{role} {n}" for role, n in {**capacity.PROCESSES, "any other": capacity.OTHER_PROCESSES}.items())


def _processes(text: str) -> tuple[str, int]:
    role, _, count = text.partition("=")
    if not role or not re.fullmatch(r"[0-9]{1,6}", count):
        raise argparse.ArgumentTypeError("a role and a number are needed, as in compute=8")
    return role, int(count)


def _root(text: str) -> pathlib.Path:
    path = pathlib.Path(os.path.abspath(text))
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a directory")
    if not re.fullmatch(r"[^$%,:\\\s]*", str(path)):
        raise argparse.ArgumentTypeError(
            "puppet and RabbitMQ cannot work in a directory with white space or $ % , : \\"
        )
    return path


# --------------------------------------------------------------------------------------------------------------------


def main(argv: typing.Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    args = _parse(sys.argv[1:] if argv is None else argv)
    if isinstance(args, _Answer):
        return _give(args)
    handlers = {number: signal.getsignal(number) for number in proc.ENDING}
    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:  # as nohup wants it
            signal.signal(number, _on_ending_signal)
    umask = os.umask(0o077)  # what is for others is opened by name; one of 0777 would close all to an ordinary user
    unraisable = sys.unraisablehook
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))  # the memory of this program and its children holds passwords
    try:
        return _run(args)
    finally:
        os.umask(umask)
        sys.unraisablehook = unraisable
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _open_standard_streams() -> None:
    """A file opened later must not become standard output because that was closed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def _say(text: str, where: str = "stdout") -> None:
    """Print ``text``; that nobody can hear it changes nothing about what was done and how it is told."""
    stream: typing.TextIO | None = getattr(sys, where)
    if stream is None:
        return
    if where == "stderr":  # where a sentence may repeat what another program said; pictures have a format of their own
        text = report.printable(text)
    try:
        stream.write(text + "\n")
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python flushes once more at its end


def _run(args: argparse.Namespace) -> int:
    commands = {
        "validate": _validate,
        "plan": _plan,
        "apply": _apply,
        "hook": _hook,
        "signal": _signal,
        "elements-path": _elements_path,
        "verify": _verify,
        "status": _status,
        "drain": _drain,
        "resync": _resync,
        "watch": _watch,
        "topology": _topology,
        "capacity": _capacity,
    }
    try:
        return commands[args.command](args)
    except errors.InvalidInput as e:
        return _failed(args, str(e), e.problems, e.exit_code)
    except errors.AgentError as e:
        more = f" By now {_left(args)}." if _left(args) == clauses.HALF_DRAINED else ""
        return _failed(args, f"{e}{more}", getattr(e, "problems", ()), e.exit_code)
    except KeyboardInterrupt:
        return _failed(args, f"interrupted; {_left(args)}.")
    except OSError as e:
        return _failed(args, f"{apply.reason(e)}.")
    except MemoryError:
        return _failed(args, f"{errors.OUT_OF_MEMORY}; by now {_left(args)}.")
    except Exception as e:  # a defect; its text may hold a secret, so only where it happened is told
        return _failed(args, _defect(e, args))


def _on_ending_signal(number: int, frame: object) -> typing.NoReturn:
    # An object that is cut short while it is being made cannot be taken apart either (proton's SSLDomain), and Python
    # would print that with a traceback. `main` puts the hook back.
    sys.unraisablehook = lambda unraisable: None
    raise KeyboardInterrupt


def _left(args: argparse.Namespace) -> str:
    """Return what is true of the node when a command was cut short, a clause."""
    if args.command in ("apply", "hook", "signal"):
        if files.unfinished(args.root):
            return clauses.HALF_DONE
        return clauses.APPLIED if getattr(args, "applied", False) else clauses.AS_BEFORE
    with contextlib.suppress(OSError):  # who may not read that could not drain
        if args.command == "drain" and running.read_door(args.root) is not None:
            return clauses.HALF_DRAINED
    return clauses.NOTHING_CHANGED


def _defect(error: Exception, args: argparse.Namespace) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = (
        f"{os.path.basename(trace.tb_frame.f_code.co_filename)} line {trace.tb_lineno}" if trace else "an unknown place"
    )
    return f"defect: {type(error).__name__} in {place}; {_left(args)}. Please report this."


def _failed(
    args: argparse.Namespace,
    text: str,
    problems: typing.Sequence[errors.Problem] = (),
    exit_code: int = errors.EXIT_APPLY_FAILED,
) -> int:
    """Say why a command could not do what it is for; returns ``exit_code``."""
    if getattr(args, "json", False):
        _say(json.dumps({"error": text, "problems": report.problems_json(problems)}, indent=2))
    elif problems:
        _say(report.problems_text(problems), "stderr")
    else:
        _say(f"om-agent: {text}", "stderr")
    return exit_code


def _catalogue() -> dict[str, services.Service]:
    path = pathlib.Path(__file__).with_name("data") / "services.yaml"
    return services.parse_catalogue(path.read_text("utf-8"))


def _service_names(raw: object) -> typing.Collection[str]:
    """Return the names of the catalogue where the metadata names services; else nobody asks for them."""
    return _catalogue() if isinstance(raw, dict) and "services" in raw else ()


def _tell(findings: typing.Sequence[errors.Problem]) -> None:
    if findings:
        _say(report.problems_text(findings), "stderr")


# -- metadata --------------------------------------------------------------------------------------------------------


def _raw(paths: typing.Sequence[str], root: pathlib.Path, asked: str | None = None) -> object:
    """Return the raw messaging metadata.

    :param asked: the local node's name, when the command was given it.

    :raises om_agent.metadata.NoData: when there is none and none was named.
    """
    hostname = socket.gethostname()
    if paths:
        raw = metadata.select(metadata.read(paths), hostname, asked or "")
        if raw is None:
            raise errors.InvalidInput([kinds.problem(", ".join(paths), "no-metadata")])
        return raw
    found = _collected_files(root)
    raw = metadata.select(metadata.read(found or ()), hostname, asked or "")
    if raw is None and found != ():  # an empty list is no data at all
        raw = metadata.select(metadata.read(metadata.hieradata_files(root)), hostname, asked or "")
    if raw is None:
        raise metadata.NoData("there is no messaging metadata: nothing was changed, the present state stays")
    return raw


def _collected_files(root: pathlib.Path) -> tuple[str, ...] | None:
    """Return the files of os-collect-config; None when nothing says which those are."""
    listed = os.environ.get("OS_CONFIG_FILES")
    return metadata.from_list_file(root) if listed is None else metadata.from_environment(listed)


def _wait_for_raw(paths: typing.Sequence[str], root: pathlib.Path, seconds: float, asked: str | None) -> object:
    deadline = time.monotonic() + seconds
    told = False
    while True:
        try:
            return _raw(paths, root, asked)
        except metadata.NoData:
            # A node that was made right before keeps that: it must not stay down because a list is empty at a reboot.
            if not seconds or files.load_state(root).files:
                raise
            if time.monotonic() >= deadline:
                raise errors.ApplyFailed(
                    f"There was no messaging metadata after {seconds:.0f} s. See that os-collect-config runs and that "
                    "Heat has the key oslo_messaging for this node."
                ) from None
        if not told:
            _say(f"om-agent: waiting up to {seconds:.0f} s for metadata", "stderr")
            told = True
        time.sleep(_WAIT_POLL)


def _local(d: model.Deployment, asked: str | None) -> model.Node:
    """Return the node to work on: ``--node``, the metadata's own ``node``, or this host by its whole or first name."""
    told = asked or d.node
    return model.local_node(d, [told]) if told else model.node_of_host(d, socket.gethostname())


def _check_identity(d: model.Deployment, rendered: render.Rendered, state: files.State, asked: str | None) -> None:
    """Refuse to stop, or to run under another name, a router or broker that this node ran before, when all that makes
    this host that node is its host name.

    :raises om_agent.errors.InvalidInput: when the node has to be named.
    """
    gone = [u for u in state.units if u not in {unit.name for unit in rendered.units}]
    if asked or (d.node and not isinstance(d.node, fields.Guess)) or not state.units:
        return
    if state.node:
        same = fields.host_key(state.node) == fields.host_key(rendered.node)
        # Another domain of the same host, unless both are nodes.
        other = fields.host_key(state.node) in {fields.host_key(n.name) for n in d.nodes}
        same = same or (not gone and not other and fields.first_label(state.node) == fields.first_label(rendered.node))
    else:  # the state file of an older agent does not say which node this was
        same = not gone or not isinstance(d.node, fields.Unlisted)
    if not same:
        names = {"old": errors.quoted(state.node or "?"), "name": errors.quoted(rendered.node)}
        what = f"would stop {' and '.join(gone)}" if gone else "would run it under another name"
        told = kinds.problem("node", "other-node", units=" and ".join(state.units), what=what, **names)
        raise errors.InvalidInput([told])


# -- commands --------------------------------------------------------------------------------------------------------


def _validate(args: argparse.Namespace) -> int:
    raw = _raw(args.files, pathlib.Path("/"), args.node)
    d = parse.deployment(raw, _service_names(raw))
    asked = [name for name in (args.node, d.node) if name]
    node = model.local_node(d, asked) if asked else None
    problems = list(_check_pem(d, node))
    if problems:
        raise errors.InvalidInput(problems)
    findings = (*d.findings, *topology.findings(d, topology.mesh(d)))
    if args.json:
        _say(json.dumps({"problems": report.problems_json(findings)}, indent=2))
    else:
        _tell(findings)
        _say(f"valid: {len(d.nodes)} nodes, rpc over {d.rpc.scheme.value}, notifications over {d.notify.scheme.value}")
    return errors.EXIT_OK


def _check_pem(d: model.Deployment, node: model.Node | None) -> typing.Iterator[errors.Problem]:
    """Yield what is wrong with a certificate that stands in the metadata itself, as far as any machine can say."""
    if not d.tls.certificate:
        return
    serves = node is not None and any(d.carried_by(node, b.scheme) for b in d.halves if b.tls)
    server = layout.server("server", d.tls, (node.host,) if node and serves else ())
    shown = certs.Shown(server, d.tls.ca, d.tls.certificate, d.tls.key)
    yield from certs.check(shown, datetime.datetime.now(datetime.timezone.utc))


class _Prepared(typing.NamedTuple):
    deployment: model.Deployment
    plan: plan.Plan
    host: layout.Host
    rendered: render.Rendered


def _prepare(raw: object, args: argparse.Namespace) -> _Prepared:
    """Do everything that needs no write."""
    catalogue = _catalogue()
    d = parse.deployment(raw, catalogue)
    host = facts.gather(catalogue, args.root, args.relocate, args.services)
    state = files.load_state(args.root)
    host = dataclasses.replace(host, drivers=state.drivers, queue_options=state.queue_options)
    planned = plan.build(d, _local(d, args.node), catalogue, host)
    rendered = render.render(planned, host)
    _check_identity(d, rendered, state, args.node)
    found = (*planned.findings, *apply.overrides(rendered, host, args.root))
    return _Prepared(d, dataclasses.replace(planned, findings=found), host, rendered)


def _live(ready: _Prepared, args: argparse.Namespace) -> plan.Plan | None:
    """Return the plan, if its router and broker may be changed while they run."""
    wanted = ready.host.manage_services if args.reconcile is None else args.reconcile
    return ready.plan if wanted else None


def _plan(args: argparse.Namespace) -> int:
    try:
        raw = _raw(args.files, args.root, args.node)
    except metadata.NoData as e:
        return _no_data(args, e)
    ready = _prepare(raw, args)
    work = apply.compare(ready.rendered, ready.host, args.root, dry=True, live=_live(ready, args))
    problems = apply.refusals(ready.rendered, ready.host, args.root, work)
    if args.json:
        told = report.problems_json((*ready.plan.findings, *problems))
        changes = report.changes_json(work.changes)
        _say(json.dumps({"node": ready.plan.node.name, "changes": changes, "problems": told}, indent=2))
    else:
        _tell((*ready.plan.findings, *problems))
        old = {t.file.path: files.read(files.on_disk(args.root, t.file.path)) for t in work.wrong}
        _say(report.plan_text(ready.plan, work, old))
    if problems:  # so that `plan && apply` stops here, as apply would
        _say("om-agent: apply will refuse this. Fix the errors above first", "stderr")
        return errors.EXIT_APPLY_FAILED
    return errors.EXIT_OK


def _no_data(args: argparse.Namespace, why: metadata.NoData) -> int:
    """There is nothing to do, which is what os-refresh-config calls a success; so plan foretells one."""
    problems: dict[str, object] = {"problems": []} if args.command == "plan" else {}
    _say(json.dumps({"changes": [], **problems}) if args.json else f"om-agent: {why}")
    return errors.EXIT_OK


def _apply(args: argparse.Namespace) -> int:
    try:
        paths = [*args.files, *args.metadata]
        ready, outcome = _run_apply(lambda: _wait_for_raw(paths, args.root, args.wait, args.node), args)
    except metadata.NoData as e:
        return _no_data(args, e)
    except (errors.AgentError, OSError) as e:
        if args.signal:
            _tell_of_failure(e if isinstance(e, errors.AgentError) else errors.ApplyFailed(f"{apply.reason(e)}."), args)
        raise
    planned = ready.plan
    if args.json:
        _say(json.dumps({"node": planned.node.name, "changes": report.changes_json(outcome.changes)}, indent=2))
    else:
        _say(report.outcome_text(planned.node.name, outcome, args.verbose))
    return errors.EXIT_OK


def _run_apply(get_raw: typing.Callable[[], object], args: argparse.Namespace) -> tuple[_Prepared, apply.Outcome]:
    """Finish what an interrupted run left, whatever the metadata says now; then apply."""
    with files.lock(args.root, args.lock_timeout) as lock:
        recover_services = facts.manages_services(args.root, args.services)
        if apply.recover(args.root, recover_services):
            _say("om-agent: what an interrupted run left was put right first", "stderr")
    raw = get_raw()  # may wait, and must not keep others out meanwhile
    with files.lock(args.root, args.lock_timeout) as lock:
        apply.recover(args.root, recover_services)
        ready = _prepare(raw, args)
        _tell(ready.plan.findings)
        outcome = apply.apply(ready.rendered, ready.host, args.root, args.puppet_timeout, lock, _live(ready, args))
        for number in proc.ENDING:  # all that is left is to say so: "interrupted" would be wrong now
            signal.signal(number, signal.SIG_IGN)
        return ready, outcome


def _look(ready: _Prepared, args: argparse.Namespace, count: bool) -> verify.Seen:
    """Return what there is to see, but for messages there and back."""
    work = apply.compare(ready.rendered, ready.host, args.root, dry=True)
    mesh = broker = None
    units = connections.units(ready.deployment, ready.plan, ready.host)
    over_broker = ready.deployment.rpc.scheme is model.Scheme.RABBIT
    if ready.plan.router:
        config = files.read(files.on_disk(args.root, ready.plan.router.paths.config))
        mesh = observe.mesh(ready.deployment, ready.plan.router, config, args.root, () if over_broker else units)
    if ready.plan.broker:
        broker = observe.rabbit(ready.deployment, ready.plan, ready.plan.broker, ready.host, args.root, count)
    missed = connections.unconnected_to(ready.deployment.rpc.port, units) if over_broker else ()
    beside = (kinds.as_found(f) for f in apply.overrides(ready.rendered, ready.host, args.root))
    misfits = (*apply.look_for_misfits(ready.rendered, args.root), *beside)
    seen = verify.Seen(tuple(map(str, work.changes)), mesh, broker, units=missed, findings=misfits)
    stale = (shown for shown in verify.shown(ready.plan, seen) if _is_stale(shown, ready, args))
    return dataclasses.replace(seen, stale=tuple(stale))


def _is_stale(shown: verify.Shown, ready: _Prepared, args: argparse.Namespace) -> bool:
    """Return whether a listener shows another certificate than its file has, which somebody else may have renewed."""
    disk = pathlib.Path(shown.file) if ready.host.prefix else files.on_disk(args.root, shown.file)
    return running.shows_another(shown.host, shown.port, disk)


def _prepared_for_look(args: argparse.Namespace) -> _Prepared:
    return _prepare(_existing_raw(args.files, args.root, args.node), args)


def _existing_raw(paths: typing.Sequence[str], root: pathlib.Path, asked: str | None = None) -> object:
    """Return the raw messaging metadata, without which some commands have nothing to say."""
    try:
        return _raw(paths, root, asked)
    except metadata.NoData:
        raise errors.InvalidInput([kinds.problem("", "no-metadata")]) from None


def _verify(args: argparse.Namespace) -> int:
    ready = _prepared_for_look(args)
    seen, found = _verified(ready, args, args.timeout)
    if args.json:
        _say(json.dumps(report.verify_json(ready.plan, seen, found), indent=2))
    else:
        _tell(found)
        _say(report.verify_text(ready.plan, seen, found))
    return _verdict(found)


def _verified(
    ready: _Prepared, args: argparse.Namespace, seconds: float
) -> tuple[verify.Seen, tuple[errors.Problem, ...]]:
    """Look whether messaging works; wait up to ``seconds`` for what may come right by itself."""
    deadline = time.monotonic() + seconds

    def look() -> tuple[verify.Seen, tuple[errors.Problem, ...]]:
        """Messages are sent when all else is well, and once more at the end."""
        seen = _look(ready, args, count=False)
        found = verify.findings(ready.plan, seen)
        if not verify.settled(found) and time.monotonic() + observe.PAUSE < deadline:
            return seen, found
        if not verify.can_send(found):
            return seen, found
        reached = verify.reached(ready.deployment, ready.plan, seen)
        probes, problems = observe.probes(ready.deployment, ready.plan, args.root, reached, _PROBE_SECONDS)
        seen = dataclasses.replace(seen, probes=probes, findings=(*seen.findings, *problems))
        return seen, verify.findings(ready.plan, seen)

    return observe.wait(look, deadline)


def _status(args: argparse.Namespace) -> int:
    ready = _prepared_for_look(args)
    seen = _look(ready, args, count=True)
    found = verify.findings(ready.plan, seen)
    if args.json:
        _say(json.dumps(report.status_json(ready.deployment, ready.plan, seen, found), indent=2))
    else:
        _say(report.status_text(ready.deployment, ready.plan, seen))
        _say(report.verdict_text(ready.plan, found))
        _tell(found)
    return _verdict(found)


def _topology(args: argparse.Namespace) -> int:
    raw = _existing_raw(args.files, args.root, args.node if args.live else None)
    d = parse.deployment(raw, _service_names(raw))
    mesh = topology.mesh(d)
    findings = (*d.findings, *topology.findings(d, mesh))
    if not mesh.interiors:
        raise errors.InvalidInput([kinds.problem("rpc.scheme", "no-mesh")])
    live = None
    if args.live:
        live = observe.live(_own_router(args, d, mesh), mesh, args.root)
    if args.format == "json":
        _say(json.dumps(picture.data(mesh, live), indent=2))
    else:
        text = picture.dot(mesh, live)
        _say(_draw(text) if args.format == "svg" else text.rstrip("\n"))
    _tell(findings)
    return errors.EXIT_OK


def _own_router(args: argparse.Namespace, d: model.Deployment, mesh: topology.Mesh) -> router.RouterPlan:
    """Return the plan of this node's router.

    No service is looked at: not every user may see into the directories of services, nor may the unit that runs resync.
    """
    node = _local(d, args.node)
    host = facts.gather({}, args.root, args.relocate, args.services)
    found = router.build(d, node, host, mesh)
    if not found:
        raise errors.NotReady([kinds.problem(node.name, "no-router")])
    return found


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


def _capacity(args: argparse.Namespace) -> int:
    raw = _existing_raw(args.files, pathlib.Path("/"))
    d = parse.deployment(raw, _service_names(raw))
    known = sorted({n.role for n in d.nodes})
    unknown = [role for role, _ in args.processes if role not in known]
    if unknown:
        text = {"role": errors.quoted(unknown[0]), "known": ", ".join(known)}
        raise errors.InvalidInput([kinds.problem("--processes", "unknown-role", **text)])
    sizes = [capacity.measure(d, dict(args.processes), times) for times in (1, 10)]
    if args.json:
        _say(json.dumps([dataclasses.asdict(size) for size in sizes], indent=2))
    else:
        _say(report.capacity_text(sizes))
    return errors.EXIT_OK


def _verdict(found: typing.Iterable[errors.Problem]) -> int:
    """Return the exit code: 0 when messaging works, 3 when it is degraded or broken."""
    return errors.EXIT_OK if kinds.verdict(found) == kinds.WORKS else errors.EXIT_UNHEALTHY


def _drain(args: argparse.Namespace) -> int:
    ready = _prepared_for_look(args)
    if not ready.plan.router:
        raise errors.NotReady([kinds.problem(ready.plan.node.name, "no-router")])
    with files.lock(args.root, _LOCK_SECONDS):
        config = files.read(files.on_disk(args.root, ready.plan.router.paths.config))
        if args.undo:
            _say(report.undo_text(ready.plan.node.name, drain.undo(ready.plan.router, config, args.root)))
            return errors.EXIT_OK
        left = drain.drain(ready.deployment, ready.plan.router, args.root, args.timeout)
    _say(report.drain_text(ready.plan.node.name, left))
    return errors.EXIT_OK if left.clean else errors.EXIT_UNHEALTHY


def _resync(args: argparse.Namespace) -> int:
    raw = _existing_raw(args.files, args.root, args.node)
    d = parse.deployment(raw, _service_names(raw))
    local = _own_router(args, d, topology.mesh(d))
    done = resync.resync(d, local, args.root, args.timeout, args.stay)
    _say(report.resync_text(local.node.name, done))
    return errors.EXIT_UNHEALTHY if done.missing else errors.EXIT_OK


def _watch(args: argparse.Namespace) -> typing.NoReturn:
    """Turn into a program that has imported a third of what this one has, since it runs as long as the router."""
    config = next(e.config for e in layout.ENGINES.values() if e.unit == args.unit)
    kept = os.environ.get("RUNTIME_DIRECTORY")  # systemd.exec(5)
    order = (args.unit, str(files.on_disk(args.root, config)), f"{kept}/{args.unit}" if kept else "")
    os.execv(sys.executable, [sys.executable, "-c", f"from om_agent import watch; watch.run(*{order!r})"])


# -- Heat ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Answer:
    """What Heat is told of a deployment.

    :param status: the exit code that apply would have given, or verify.
    :param outputs: beside Heat's own three, texts by name.
    """

    status: int
    stdout: str = ""
    stderr: str = ""
    outputs: typing.Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def text(self) -> str:
        """The signal as JSON."""
        return report.signal(self.status, self.stdout, self.stderr, self.outputs)


def _hook(args: argparse.Namespace) -> int:
    """Heat takes the verdict from ``deploy_status_code``; the exit code is always 0, as heat-config wants it."""

    def get() -> heat.Deployment:
        return metadata.parse_deployment(sys.stdin.buffer.read() if sys.stdin else b"")

    try:
        answer = _answer(get, args)
    except KeyboardInterrupt:
        answer = _Answer(errors.EXIT_APPLY_FAILED, stderr=f"interrupted; {_left(args)}.")
    return _give(answer)


def _give(answer: _Answer) -> int:
    """Print what heat-config is to tell Heat."""
    if answer.stderr:
        _say(answer.stderr, "stderr")
    _say(answer.text)
    return errors.EXIT_OK


def _parse(argv: typing.Sequence[str]) -> argparse.Namespace | _Answer:
    """Return the arguments; of a hook that has wrong ones what is to be answered all the same, with which Heat does not
    wait for its timeout."""
    if list(argv[:1]) != ["hook"]:
        return build_parser().parse_args(argv)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):  # argparse prints what is wrong, and keeps it from its caller
            return build_parser().parse_args(argv)
    except SystemExit as e:
        if not e.code:  # --help
            raise
    what = said.getvalue().strip().rpartition(": error: ")[2]
    return _Answer(errors.EXIT_INVALID, stderr=str(kinds.problem("arguments", "bad-arguments", what=what)))


def _answer(get: typing.Callable[[], heat.Deployment], args: argparse.Namespace) -> _Answer:
    """Carry out a deployment: apply, then verify. Whatever fails, there is an answer."""
    try:
        return _carry_out(get(), args)
    except errors.AgentError as e:
        return _Answer(e.exit_code, stderr=str(e))
    except OSError as e:
        return _Answer(errors.EXIT_APPLY_FAILED, stderr=f"{apply.reason(e)}.")
    except MemoryError:
        return _Answer(errors.EXIT_APPLY_FAILED, stderr=f"om-agent: {errors.OUT_OF_MEMORY}; by now {_left(args)}.")
    except Exception as e:
        return _Answer(errors.EXIT_APPLY_FAILED, stderr=f"om-agent: {_defect(e, args)}")


def _carry_out(deployment: heat.Deployment, args: argparse.Namespace) -> _Answer:
    given = heat.inputs(deployment)
    if given.get("deploy_action") in _LEAVE:
        return _Answer(errors.EXIT_OK, stdout=f"nothing is done at {given['deploy_action']}: the present state stays")
    if not deployment.get("config") and metadata.KEY not in given:
        raise errors.InvalidInput([kinds.problem("deployment", "no-config")])
    seconds = _verify_seconds(given)
    raw = metadata.from_deployment(dict(deployment))
    handlers = {number: signal.getsignal(number) for number in proc.ENDING}
    ready, outcome = _run_apply(lambda: raw, args)
    args.applied = True
    for number, handler in handlers.items():  # verify may be cut short again
        signal.signal(number, handler)
    changes = files.load_state(args.root).changes
    said = [report.deployed_text(ready.plan.node.name, outcome, changes)]
    outputs = {
        "node": ready.plan.node.name,
        "generation": heat.generation(raw, files.load_key(args.root, make=True)),
        "changes": str(changes),
    }
    seen, found = _verified(ready, args, seconds)
    outputs["mesh"] = report.mesh_state(ready.deployment, ready.plan, found)
    faults = [f for f in found if f.severity == errors.ERROR]
    said += [report.verify_text(ready.plan, seen, found)]
    # apply and verify both look at the lines of services' files; verify says how much one matters
    seen_by_verify = {(f.path, f.code) for f in found}
    planned = [f for f in ready.plan.findings if (f.path, f.code) not in seen_by_verify]
    said += [str(f) for f in (*planned, *found) if f.severity == errors.WARNING]
    return _Answer(_verdict(found), "\n".join(said), "\n".join(map(str, faults)), outputs)


def _verify_seconds(given: typing.Mapping[str, object]) -> float:
    """Return how long a deployment wants to be waited for: its input ``verify_timeout``."""
    value = given.get("verify_timeout", _DEPLOY_VERIFY_SECONDS)
    try:
        return _seconds(str(value))
    except argparse.ArgumentTypeError:
        raise errors.InvalidInput([kinds.problem("inputs.verify_timeout", "not-seconds")]) from None


def _collected_deployment(args: argparse.Namespace) -> tuple[heat.Deployment | None, bool]:
    """Return the deployment to carry out, if there is one, and whether other metadata stands in its place."""
    merged = metadata.read(_collected_files(args.root) or ())
    return metadata.newest_deployment(merged), metadata.KEY in merged


def _tell_of_failure(error: errors.AgentError, args: argparse.Namespace) -> None:
    """Tell Heat of an apply that failed, after which nothing else would. The error itself is the caller's to raise."""
    try:
        deployment, other = _collected_deployment(args)
        if deployment is None or other or not heat.wants_signal(deployment):
            return
        _tell_heat(deployment, _Answer(error.exit_code, stderr=str(error)), args)
    except errors.AgentError as e:
        _say(f"om-agent: {e}", "stderr")
    except OSError as e:  # it was told, and the disk has no room to note it
        _say(f"om-agent: {apply.reason(e)}.", "stderr")


def _tell_heat(deployment: heat.Deployment, answer: _Answer, args: argparse.Namespace) -> None:
    """Tell Heat, unless it was told before."""
    if heat.told(args.root, deployment) is None and heat.by_heat_config(args.root, deployment) is None:
        heat.tell(deployment, answer.text)
    with files.lock(args.root, args.lock_timeout):
        heat.note(args.root, deployment, answer.status)


def _signal(args: argparse.Namespace) -> int:
    """End with what became of the deployment: os-refresh-config then fails, and os-collect-config runs it again."""
    deployment, other = _collected_deployment(args)
    if deployment is None or not heat.wants_signal(deployment):
        _say("om-agent: no deployment of group om-messaging waits for a signal")
        return errors.EXIT_OK
    theirs = heat.by_heat_config(args.root, deployment)
    if theirs:
        heat.try_again(args.root, deployment)
        raise errors.ApplyFailed(
            f"The deployment failed with {theirs}, as heat-config has told Heat. The next run of os-refresh-config"
            " carries it out again."
        )
    if theirs == errors.EXIT_OK or heat.told(args.root, deployment) == errors.EXIT_OK:
        _say("om-agent: Heat knows that the deployment succeeded")
        return errors.EXIT_OK

    def get() -> heat.Deployment:
        if other:
            raise errors.InvalidInput([kinds.problem("deployment", "two-deliveries")])
        return deployment

    answer = _answer(get, args)
    _say(answer.stdout or answer.stderr, "stdout" if answer.stdout else "stderr")
    if answer.stdout and answer.stderr:
        _say(answer.stderr, "stderr")
    _tell_heat(deployment, answer, args)
    return answer.status


def _elements_path(args: argparse.Namespace) -> int:
    """The elements are in the source tree, or where pip puts data."""
    source = pathlib.Path(__file__).resolve().parents[2]
    shared = (pathlib.Path(d) / "share/om-dual-backends" for d in (sysconfig.get_path("data"), "/usr"))
    for directory in (source, *shared):
        if (directory / "elements/om-agent").is_dir():
            _say(str(directory / "elements"))
            return errors.EXIT_OK
    raise errors.ApplyFailed("The elements are not installed. Install om-dual-backends with pip.")
