"""The steps of the commands, from reading the metadata to what was done or seen. Nothing here prints or exits."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import socket
import time
import typing

from om_agent import (
    apply,
    connections,
    engines,
    errors,
    fields,
    host_facts,
    kinds,
    metadata,
    metadata_files,
    model,
    observe,
    observed,
    parse,
    plan,
    render,
    report,
    signals,
    verify,
)
from om_agent.apply import (
    comparing,
    files,
    foreign_settings,
    journal,
    listening,
    live_router,
    locking,
    results,
    saved_state,
)
from om_agent.kinds import clauses
from om_agent.observe import brokers, messages, routers
from om_agent.plan import layout, router, services, topology

_WAIT_POLL = 1.0
_PROBE_SECONDS = 15.0

Tell = typing.Callable[[str], None]  # is called with messages for people while a step runs


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a command that are about the node.

    :param files: the files of metadata that were given to the command.
    :param collected: the environment variable with os-collect-config's list of files; None when it is not set.
    :param node: the local node's name, when it was given to the command.
    :param root: the directory that stands for ``/``.
    :param relocate: put that directory into the paths inside the files too.
    :param manage_services: whether units may be restarted; None where that depends on whether systemd runs.
    :param reconcile: whether router and broker may be changed while they run; None where units are managed.
    :param lock_seconds: how long to wait for another agent.
    :param puppet_seconds: how long puppet may take.
    """

    files: tuple[str, ...] = ()
    collected: str | None = None
    node: str | None = None
    root: pathlib.Path = pathlib.Path("/")
    relocate: bool = False
    manage_services: bool | None = None
    reconcile: bool | None = None
    lock_seconds: float = 300.0
    puppet_seconds: float = 900.0


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Everything that is known about a node before the first write."""

    deployment: model.Deployment
    plan: plan.Plan
    host: layout.Host
    rendered: render.Rendered


@dataclasses.dataclass(frozen=True)
class Applied:
    """What an apply did.

    :param handlers: the handlers of the signals that end a program, as they were before apply ended.
    """

    ready: Prepared
    outcome: results.Outcome
    handlers: signals.Handlers


# -- cut short -------------------------------------------------------------------------------------------------------


class CutShort(BaseException):
    """A signal, lack of memory or a defect ended a step.

    :param cause: the exception.
    :param left: the state in which the node was left, a clause.
    """

    def __init__(self, cause: BaseException, left: str) -> None:
        super().__init__(left)
        self.cause = cause
        self.left = left


@contextlib.contextmanager
def leaving(left: str) -> typing.Iterator[None]:
    """Add the state of the node to an exception that ends the step.

    :raises CutShort: for all exceptions but those that have a sentence of their own.
    """
    try:
        yield
    except (errors.AgentError, OSError):
        raise
    except (Exception, KeyboardInterrupt) as e:
        raise CutShort(e, left) from e


def cut_short_text(cause: BaseException, left: str) -> str:
    """Return a sentence for people. For a defect it only names the place: the exception's text may hold a secret."""
    if isinstance(cause, KeyboardInterrupt):
        return f"interrupted; {left}."
    if isinstance(cause, MemoryError):
        return f"{errors.OUT_OF_MEMORY}; by now {left}."
    trace = cause.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = "an unknown place"
    if trace:
        place = f"{os.path.basename(trace.tb_frame.f_code.co_filename)} line {trace.tb_lineno}"
    return f"defect: {type(cause).__name__} in {place}; {left}. Please report this."


def left_by_apply(root: pathlib.Path) -> str:
    """Return the state in which an apply that was cut short left the node, a clause."""
    return clauses.HALF_DONE if journal.unfinished(root) else clauses.AS_BEFORE


def left_by_drain(root: pathlib.Path) -> str:
    """Return the state in which a drain that was cut short left the node, a clause."""
    with contextlib.suppress(OSError):  # a user who may not read the port could not drain either
        if live_router.read_drained_port(root) is not None:
            return clauses.HALF_DRAINED
    return clauses.NOTHING_CHANGED


# -- metadata --------------------------------------------------------------------------------------------------------


def catalogue() -> dict[str, services.Service]:
    """Return the services that the agent knows."""
    path = pathlib.Path(__file__).with_name("data") / "services.yaml"
    return services.parse_catalogue(path.read_text("utf-8"))


def parsed(raw: object) -> model.Deployment:
    """Return the deployment that raw metadata describes; the catalogue is read only where it names services."""
    return parse.deployment(raw, catalogue() if isinstance(raw, dict) and "services" in raw else ())


def raw_metadata(options: Options) -> object:
    """Return the raw messaging metadata.

    :raises om_agent.metadata.NoData: when there is none and none was named.
    """
    hostname, asked = socket.gethostname(), options.node or ""
    if options.files:
        raw = metadata.select(metadata.read(options.files), hostname, asked)
        if raw is None:
            raise errors.InvalidInput([kinds.problem(", ".join(options.files), "no-metadata")])
        return raw
    found = collected_files(options)
    raw = metadata.select(metadata.read(found or ()), hostname, asked)
    if raw is None and found != ():  # an empty list is no data at all
        raw = metadata.select(metadata.read(metadata_files.hieradata_files(options.root)), hostname, asked)
    if raw is None:
        raise metadata.NoData("there is no messaging metadata: nothing was changed, the present state stays")
    return raw


def collected_files(options: Options) -> tuple[str, ...] | None:
    """Return the files of os-collect-config; None when nothing says which those are."""
    if options.collected is None:
        return metadata_files.from_list_file(options.root)
    return metadata_files.from_environment(options.collected)


def existing_metadata(options: Options) -> object:
    """Return the raw messaging metadata, for commands that need it."""
    try:
        return raw_metadata(options)
    except metadata.NoData:
        raise errors.InvalidInput([kinds.problem("", "no-metadata")]) from None


def wait_for_metadata(options: Options, seconds: float, tell: Tell) -> object:
    """Return the raw messaging metadata. On a node where none was ever applied, wait for it."""
    deadline = time.monotonic() + seconds
    announced = False
    while True:
        try:
            return raw_metadata(options)
        except metadata.NoData:
            # A node keeps the configuration that it has: an empty list at a reboot must not keep it down.
            if not seconds or saved_state.load_state(options.root).files:
                raise
            if time.monotonic() >= deadline:
                raise errors.ApplyFailed(
                    f"There was no messaging metadata after {seconds:.0f} s. See that os-collect-config runs and that "
                    "Heat has the key oslo_messaging for this node."
                ) from None
        if not announced:
            tell(f"om-agent: waiting up to {seconds:.0f} s for metadata")
            announced = True
        time.sleep(_WAIT_POLL)


# -- the node --------------------------------------------------------------------------------------------------------


def local_node(d: model.Deployment, asked: str | None) -> model.Node:
    """Return the node to work on: ``--node``, the metadata's own ``node``, or this host by its whole or first name."""
    name = asked or d.node
    return model.local_node(d, [name]) if name else model.node_of_host(d, socket.gethostname())


def _check_identity(
    d: model.Deployment, rendered: render.Rendered, state: saved_state.State, asked: str | None, root: pathlib.Path
) -> None:
    """Refuse to stop a router or broker that this node ran before, or to rename it, because of the host name alone.

    :raises om_agent.errors.InvalidInput: when the node has to be named.
    """
    named = asked or (d.node and not isinstance(d.node, fields.Guess))
    wanted = {unit.name for unit in rendered.units}
    units_to_stop = [unit for unit in state.units if unit not in wanted]
    if named or not state.units:
        return
    if isinstance(d.node, fields.Unlisted):
        kept = [unit for unit in units_to_stop if _others_keep(d, unit, root)]
        if kept:
            name, units = errors.quoted(rendered.node), " and ".join(kept)
            raise errors.InvalidInput([kinds.problem("node", "dropped-node", name=name, units=units)])
    if _is_same_node(d, rendered.node, state, units_to_stop):
        return
    names = {"old": errors.quoted(state.node or "?"), "name": errors.quoted(rendered.node)}
    what = f"would stop {' and '.join(units_to_stop)}" if units_to_stop else "would run it under another name"
    raise errors.InvalidInput(
        [kinds.problem("node", "other-node", units=" and ".join(state.units), what=what, **names)]
    )


def _others_keep(d: model.Deployment, unit: str, root: pathlib.Path) -> bool:
    """Return whether other nodes still run what this unit was here: an interior router or a broker.

    An edge router serves only its own node, so it may be stopped when the metadata does not need it.
    """
    if unit == layout.RABBIT_UNIT:
        return any(b.scheme is model.Scheme.RABBIT and b.nodes for b in d.halves)
    configs = [engine.config for engine in engines.RECORDS.values() if engine.unit == unit]
    entities = [live_router.entities(files.read(files.on_disk(root, path))) for path in configs]
    modes = [attributes.get("mode") for found in entities for kind, attributes in found or () if kind == "router"]
    return "edge" not in modes and bool(model.interiors(d))


def _is_same_node(
    d: model.Deployment, name: str, state: saved_state.State, units_to_stop: typing.Collection[str]
) -> bool:
    """Return whether the host is the same node as at the last apply."""
    if not state.node:  # the state file of an older agent does not say which node this was
        return not units_to_stop or not isinstance(d.node, fields.Unlisted)
    if fields.host_key(state.node) == fields.host_key(name):
        return True
    # Another domain of the same host, unless both are nodes.
    is_another = fields.host_key(state.node) in {fields.host_key(n.name) for n in d.nodes}
    return not units_to_stop and not is_another and fields.first_label(state.node) == fields.first_label(name)


def prepare(raw: object, options: Options) -> Prepared:
    """Do all steps that write nothing."""
    known = catalogue()
    d = parse.deployment(raw, known)
    host = host_facts.gather(known, options.root, options.relocate, options.manage_services)
    state = saved_state.load_state(options.root)
    host = dataclasses.replace(host, drivers=state.drivers, queue_options=state.queue_options, texts=state.texts)
    planned = plan.build(d, local_node(d, options.node), known, host)
    rendered = render.render(planned, host)
    _check_identity(d, rendered, state, options.node, options.root)
    found = (*planned.findings, *foreign_settings.overrides(rendered, host, options.root))
    return Prepared(d, dataclasses.replace(planned, findings=found), host, rendered)


def prepare_to_look(options: Options) -> Prepared:
    """Prepare a command that needs metadata."""
    return prepare(existing_metadata(options), options)


def live_plan(ready: Prepared, options: Options) -> plan.Plan | None:
    """Return the plan, if its router and broker may be changed while they run."""
    wanted = ready.host.manage_services if options.reconcile is None else options.reconcile
    return ready.plan if wanted else None


def own_router(d: model.Deployment, mesh: topology.Mesh, options: Options) -> router.RouterPlan:
    """Return the plan of this node's router.

    It reads no service's file: many users, and the unit that runs resync, may not read the directories of services.
    """
    node = local_node(d, options.node)
    host = host_facts.gather({}, options.root, options.relocate, options.manage_services)
    found = router.plan_router(d, node, host, mesh)
    if not found:
        raise errors.NotReady([kinds.problem(node.name, "no-router")])
    return found


# -- apply -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def applied(get_raw: typing.Callable[[], object], options: Options, tell: Tell) -> typing.Iterator[Applied]:
    """Finish an interrupted run or take it back, whatever the metadata says now; then apply.

    The context is for reporting what was done. "Interrupted" would be wrong there, so signals that end a program are
    ignored in it.
    """
    root = options.root
    manage_services = host_facts.manages_services(root, options.manage_services)
    with contextlib.ExitStack() as stack:
        with locking.lock(root, options.lock_seconds):
            if apply.recover(root, manage_services):
                tell("om-agent: what an interrupted run left was put right first")
        raw = get_raw()  # may wait, and must not keep others out meanwhile
        with locking.lock(root, options.lock_seconds) as lock:
            apply.recover(root, manage_services)
            ready = prepare(raw, options)
            if ready.plan.findings:
                tell(report.problems_text(ready.plan.findings))
            live = live_plan(ready, options)
            outcome = apply.apply(ready.rendered, ready.host, root, options.puppet_seconds, lock, live)
            before = stack.enter_context(signals.handled_by(signals.IGNORED))
        yield Applied(ready, outcome, before)


# -- looking at what runs --------------------------------------------------------------------------------------------


def look(ready: Prepared, root: pathlib.Path, count: bool) -> observed.Seen:
    """Observe everything but messages there and back.

    :param count: whether the broker's queues and messages are counted.
    """
    comparison = comparing.compare(ready.rendered, ready.host, root, dry=True)
    mesh = broker = None
    units = connections.units(ready.deployment, ready.plan, ready.host)
    over_broker = ready.deployment.rpc.scheme is model.Scheme.RABBIT
    if ready.plan.router:
        config = files.read(files.on_disk(root, ready.plan.router.paths.config))
        mesh = routers.mesh(ready.deployment, ready.plan.router, config, root, () if over_broker else units)
    if ready.plan.broker:
        broker = brokers.rabbit(ready.deployment, ready.plan, ready.plan.broker, ready.host, root, count)
    unconnected = connections.unconnected_to(ready.deployment.rpc.port, units) if over_broker else ()
    others = tuple(map(kinds.as_found, foreign_settings.overrides(ready.rendered, ready.host, root)))
    misfits = (*foreign_settings.look_for_misfits(ready.rendered, root), *others)
    seen = observed.Seen(tuple(map(str, comparison.changes)), mesh, broker, units=unconnected, findings=misfits)
    stale = (shown for shown in verify.tls_listeners(ready.plan, seen) if _is_stale(shown, ready.host, root))
    return dataclasses.replace(seen, stale=tuple(stale))


def _is_stale(shown: observed.TlsListener, host: layout.Host, root: pathlib.Path) -> bool:
    """Return whether a listener shows another certificate than the one in its file, which may have been renewed."""
    place = pathlib.Path(shown.file) if host.prefix else files.on_disk(root, shown.file)
    return listening.shows_another(shown.host, shown.port, place)


def verified(ready: Prepared, root: pathlib.Path, seconds: float) -> tuple[observed.Seen, tuple[errors.Problem, ...]]:
    """Check whether messaging works; wait up to ``seconds`` for problems that may end by themselves."""
    deadline = time.monotonic() + seconds

    def look_once() -> tuple[observed.Seen, tuple[errors.Problem, ...]]:
        """Send messages only when all else is well, and once more at the end."""
        seen = look(ready, root, count=False)
        found = verify.findings(ready.plan, seen)
        if not verify.settled(found) and time.monotonic() + observe.PAUSE < deadline:
            return seen, found
        if not verify.can_send(found):
            return seen, found
        reached = verify.reached(ready.deployment, ready.plan, seen)
        probes, problems = messages.probes(ready.deployment, ready.plan, root, reached, _PROBE_SECONDS)
        seen = dataclasses.replace(seen, probes=probes, findings=(*seen.findings, *problems))
        return seen, verify.findings(ready.plan, seen)

    return observe.wait(look_once, deadline)
