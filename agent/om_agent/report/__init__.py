"""The texts for people, Heat and programs.

Every value passes `om_agent.report.masking` first. Every line with text from a file, a router or a broker is made
printable.
"""

from __future__ import annotations

import itertools
import json
import typing

from om_agent import drain, errors, kinds, model, observed, plan, resync, verify
from om_agent.apply import comparing, results
from om_agent.kinds import clauses
from om_agent.plan import broker, capacity
from om_agent.report import masking

_REASONS = 3  # sentences in a stack's reason
_MOST_SIGNALLED = 2**16  # bytes of a text in a signal; Heat accepts at most 1 MiB for all (max_json_body_size)
_UNIT = ("restart", "reconcile", "stop")  # actions on a unit, not on a file or key


def printable(text: str) -> str:
    """Return a text of several lines, with everything escaped that a terminal would interpret."""
    return _text(text.split("\n"))


def _text(lines: typing.Iterable[str]) -> str:
    return "\n".join(map(errors.printable, lines))


def problems_text(problems: typing.Sequence[errors.Problem]) -> str:
    """Return problems for people, one line each."""
    return _text(f"{p.severity}: {p}" for p in problems)


def problems_json(problems: typing.Sequence[errors.Problem]) -> list[dict[str, str]]:
    """Return problems for programs."""
    return [
        {"severity": p.severity, "path": p.path, "code": p.code, "message": p.message, "remedy": p.remedy}
        for p in problems
    ]


def plan_text(node_plan: plan.Plan, work: comparing.Comparison, old: typing.Mapping[str, bytes | None]) -> str:
    """Return a plan as a diff: the agent's own files line by line unless they are secret, other files key by key.

    :param old: the present content of the files to write, by path.
    """
    lines = [summary(node_plan, work)]
    if work.changes and node_plan.queues.kind and (node_plan.broker or node_plan.config_files):
        lines.append(f"queues: {node_plan.queues.kind.value}, since {node_plan.queues.why}")
    for target in work.files_to_write:
        lines += _file_diff(target, old.get(target.file.path))
    lines += [f"remove {path}" for path in work.files_to_remove]
    path = ""
    for change in work.changes:
        if change.detail and change.action not in _UNIT:
            if change.path != path:
                path = change.path
                lines.append(f"keys in {path}")
            lines += _key_diff(change)
    reconciled = [change for change in work.changes if change.action == "reconcile"]
    lines += [f"change {change.path} while it runs" for change in reconciled[:1]]
    lines += [f"  {change.detail}" for change in reconciled]
    lines += [str(c) for c in work.changes if c.action in ("restart", "stop")]
    return _text(lines)


def summary(node_plan: plan.Plan, work: comparing.Comparison) -> str:
    """Return one line that says what the node is and what apply would do."""
    runs = [f"{node_plan.router.mode} router"] if node_plan.router else []
    runs += ["broker"] if node_plan.broker else []
    role = f"{node_plan.node.name} ({node_plan.node.role}, {' and '.join(runs) or 'clients only'})"
    if not work.changes:
        return f"{role}: nothing to do"
    keys = [change for change in work.changes if change.detail.startswith("[")]
    files_of_services = errors.counted(len({change.path for change in keys}), "file")
    counts = (
        (len(work.files_to_write), "file", "to write"),
        (len(work.files_to_remove), "file", "to remove"),
        (len(keys), "key", f"to change in {files_of_services} of services"),
    )
    return f"{role}: " + ", ".join(f"{errors.counted(n, noun)} {what}" for n, noun, what in counts if n)


def _file_diff(target: comparing.Target, old: bytes | None) -> list[str]:
    name = target.file.path
    note = f"mode 0{target.file.mode:o} {target.file.owner}:{target.file.group}"
    verb = "create" if old is None else "change"
    if target.file.secret:
        return [f"{verb} {name} ({note}; secret, not shown)"]
    before = [] if old is None else old.decode(errors="replace").splitlines()
    after = target.content.decode(errors="replace").splitlines()
    import difflib  # here, since apply shows no diff

    diff = list(difflib.unified_diff(before, after, name, name, lineterm="", n=2))[2:]
    return [f"{verb} {name} ({note})", *("  " + masking.mask_line(line) for line in diff)]


def _key_diff(change: results.Change) -> list[str]:
    lines = []
    if change.action in ("change", "remove") and not change.detail.startswith("mode "):
        lines.append(f"  - {change.detail} = {masking.mask_key(change.detail, change.old)}")
    if change.detail.startswith("mode "):
        return [f"  ~ {change.detail}"]
    if change.action != "remove":
        lines.append(f"  + {change.detail} = {masking.mask_key(change.detail, change.new)}")
    return lines


def outcome_text(node: str, outcome: results.Outcome, verbose: bool) -> str:
    """Return what apply has done."""
    if not outcome.changes:
        return f"{node}: nothing to do, the messaging configuration is right"
    lines = [f"{node}: applied, {errors.counted(len(outcome.changes), 'change')}", *outcome.notes]
    if verbose:
        lines += [f"  {c}" for c in outcome.changes] + [f"  puppet: {line}" for line in outcome.puppet]
    return _text(lines)


def deployed_text(node: str, outcome: results.Outcome, changes: int) -> str:
    """Return what a deployment has done.

    :param changes: how many changes the last apply with changes made. As a rule that was the apply in configure.d.
    """
    if outcome.changes:
        return outcome_text(node, outcome, verbose=True)
    return f"{node}: the configuration is as the metadata says; {errors.counted(changes, 'change')} made it so"


def changes_json(changes: typing.Sequence[results.Change]) -> list[dict[str, str]]:
    """Return changes for programs, without values."""
    return list(map(_change_json, changes))


def _change_json(change: results.Change) -> dict[str, str]:
    row = {"action": change.action, "path": change.path}
    return {**row, "detail": change.detail} if change.detail else row


def signal(status: int, stdout: str, stderr: str, outputs: typing.Mapping[str, str]) -> str:
    """Return what a heat-config hook prints: Heat's ``deploy_*`` keys and the outputs.

    ``problem`` is there only when there is one. As an output with ``error_output: true`` it becomes the stack's reason,
    where ``deploy_stderr`` never appears. Heat also treats a deployment as failed when such an output has any value.
    """
    answer: dict[str, str | int] = {
        "deploy_stdout": stdout,
        "deploy_stderr": stderr,
        "deploy_status_code": status,
        **outputs,
    }
    if status:
        lines = stderr.splitlines()
        more = f" (and {len(lines) - _REASONS} more: see deploy_stderr)" if len(lines) > _REASONS else ""
        answer["problem"] = " ".join(lines[:_REASONS]) + more
    return json.dumps({name: _cut_off(value) for name, value in answer.items()})


def _cut_off(text: str | int) -> str | int:
    """Return a text that is short enough, as JSON, for a signal: the first whole lines of a longer one."""
    if isinstance(text, int) or len(json.dumps(text)) <= _MOST_SIGNALLED:
        return text
    sizes = itertools.accumulate(len(json.dumps(character)) - len('""') for character in text)
    limit = _MOST_SIGNALLED - len(clauses.CUT_OFF) - len("9" * 20)  # room for the number of characters
    end = sum(1 for _ in itertools.takewhile(lambda size: size < limit, sizes))
    kept = text[:end].rpartition("\n")[0] or text[:end]
    return f"{kept}\n{clauses.CUT_OFF.format(left=len(text) - len(kept))}"


def mesh_state(deployment: model.Deployment, node_plan: plan.Plan, found: typing.Sequence[errors.Problem]) -> str:
    """Return the state of the node's part of the mesh: ``none``, ``works``, or ``degraded`` or ``broken`` and why.

    It works when three things work: the routers, the connections of services to this node's router, and the agent's
    test messages.
    """
    if not node_plan.router:
        return "none"
    halves = {backend.half for backend in deployment.routed}
    faults = [f for f in found if f.severity == errors.ERROR]
    mesh_faults = [f for f in faults if kinds.of(f).mesh or kinds.of(f).half in halves]
    mesh_faults.sort(key=lambda f: kinds.of(f).verdict != kinds.BROKEN)  # the worst first
    if not mesh_faults:
        return kinds.WORKS
    more = f" (and {len(mesh_faults) - 1} more)" if len(mesh_faults) > 1 else ""
    return f"{kinds.verdict(mesh_faults)}: {mesh_faults[0].path}: {mesh_faults[0].message}{more}"


# -- verify, status, drain -------------------------------------------------------------------------------------------


def verify_text(node_plan: plan.Plan, seen: observed.Seen, found: typing.Sequence[errors.Problem]) -> str:
    """Return one line that says whether messaging works on the node, and what was tested."""
    tried = [f"{what} and back" for what, n in _tried(seen) if n]
    said = verdict_text(node_plan, found)
    if kinds.verdict(found) != kinds.WORKS:
        return said
    return f"{said}: " + ", ".join([*_parts(node_plan, seen), *tried] or ["nothing runs here"])


def verdict_text(node_plan: plan.Plan, found: typing.Sequence[errors.Problem]) -> str:
    """Return the verdict about messaging on the node, in one line."""
    faults = sum(f.severity == errors.ERROR for f in found)
    count = errors.counted(faults, "fault")
    said = {
        kinds.WORKS: "works",
        kinds.DEGRADED: f"is degraded: it works, and redundancy is lost: {count}",
        kinds.BROKEN: f"is broken: {count}",
    }
    return f"{node_plan.node.name}: messaging {said[kinds.verdict(found)]}"


def _tried(seen: observed.Seen) -> typing.Iterator[tuple[str, int]]:
    for half, noun in (("rpc", "call"), ("notify", "notification")):
        count = sum(probe.half == half for probe in seen.probes)
        yield (f"{count} {noun}{'' if count == 1 else 's'} there", count)


def _parts(node_plan: plan.Plan, seen: observed.Seen) -> typing.Iterator[str]:
    if node_plan.router and seen.mesh and node_plan.router.mode != "standalone":
        yield f"{len(_reached(node_plan, seen))} of {len(node_plan.router.interiors)} interior routers reached"
    elif node_plan.router:
        yield "the router runs"
    if node_plan.broker and seen.broker:
        expected = set(node_plan.broker.members)
        yield f"{len(expected & set(seen.broker.running))} of {len(expected)} brokers run"


def _reached(node_plan: plan.Plan, seen: observed.Seen) -> frozenset[str]:
    """Return the interior routers that this node's router reaches."""
    return verify.reached_interiors(node_plan.router, seen.mesh) if node_plan.router and seen.mesh else frozenset()


def verify_json(
    node_plan: plan.Plan, seen: observed.Seen, found: typing.Sequence[errors.Problem]
) -> dict[str, typing.Any]:
    """Return the result of ``verify`` for programs."""
    return {
        "version": 1,
        "node": node_plan.node.name,
        "healthy": kinds.verdict(found) == kinds.WORKS,
        "verdict": kinds.verdict(found),
        "probes": [
            {"half": x.half, "to": x.to, "file": x.path, "error": x.error, "seconds": round(x.seconds, 3)}
            for x in seen.probes
        ],
        "findings": problems_json(found),
    }


def status_json(
    deployment: model.Deployment, node_plan: plan.Plan, seen: observed.Seen, found: typing.Sequence[errors.Problem]
) -> dict[str, typing.Any]:
    """Return the state of the node's messaging; its schema is stable (doc/verify.rst)."""
    return {
        "version": 1,
        "node": node_plan.node.name,
        "healthy": kinds.verdict(found) == kinds.WORKS,
        "verdict": kinds.verdict(found),
        "rpc": {"scheme": deployment.rpc.scheme.value, "external": deployment.rpc.external},
        "notify": {"scheme": deployment.notify.scheme.value, "external": deployment.notify.external},
        "router": _router_json(node_plan, seen),
        "broker": _broker_json(node_plan, seen),
        "findings": problems_json(found),
    }


def _router_json(node_plan: plan.Plan, seen: observed.Seen) -> dict[str, typing.Any] | None:
    router_plan, mesh = node_plan.router, seen.mesh
    if not router_plan or not mesh:
        return None
    own = mesh.own
    reached = _reached(node_plan, seen)
    return {
        "engine": router_plan.engine.value,
        "mode": router_plan.mode,
        "running": own.login == observed.OPEN,
        "id": own.container,
        "version": own.version,
        "up_seconds": own.uptime,
        "clients": own.clients,
        "links": own.links,
        "dropped_presettled": own.dropped,
        "connections": [
            {"role": c.role, "direction": c.direction, "host": c.host, "router": c.container} for c in own.connections
        ],
        "drift": list(mesh.drift),
        "interiors": [
            {"name": name, "reached": name in reached, "reaches": _sorted(mesh.views.get(name))}
            for name in router_plan.interiors
            if router_plan.mode != "standalone"
        ],
    }


def _sorted(names: typing.Collection[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def _broker_json(node_plan: plan.Plan, seen: observed.Seen) -> dict[str, typing.Any] | None:
    if not node_plan.broker or not seen.broker:
        return None
    b = seen.broker
    names = sorted({*node_plan.broker.members, *b.members})
    return {
        "name": broker.node_name(node_plan.node),
        "running": not b.why,
        "version": b.version,
        "metadata_store": b.store.lower(),
        "disabled_feature_flags": list(b.flags),
        "members": [{"name": name, "running": name in b.running} for name in names],
        "partitions": list(b.partitions),
        "alarms": list(b.alarms),
        "listeners": [{"address": address, "port": port} for address, port in b.listeners],
        "queues": b.queues,
        "messages": b.messages,
    }


_Rows = list[tuple[str, str]]


def status_text(deployment: model.Deployment, node_plan: plan.Plan, seen: observed.Seen) -> str:
    """Return the state of the node's messaging as a table."""
    halves = ", ".join(map(_half_text, deployment.halves))
    rows = [("node", f"{node_plan.node.name} ({node_plan.node.role}): {halves}")]
    router_state = _router_json(node_plan, seen)
    if router_state and router_state["running"]:
        rows += _router_rows(router_state)
    elif router_state:
        unasked = seen.mesh and seen.mesh.own.login == observed.UNASKED
        what = "cannot be asked" if unasked else "does not answer"
        rows.append(("router", f"{router_state['engine']}, {router_state['mode']}: {what}"))
    broker_state = _broker_json(node_plan, seen)
    if broker_state and broker_state["running"]:
        rows += _broker_rows(broker_state)
    elif broker_state:
        rows.append(("broker", "does not answer"))
    width = max(len(name) for name, _ in rows) + 2
    return _text(f"{name:{width}}{text}".rstrip() for name, text in rows)


def _half_text(backend: model.Backend) -> str:
    external = " (external)" if backend.external else ""
    return f"{backend.half} over {backend.scheme.value}{external}"


def _router_rows(state: typing.Mapping[str, typing.Any]) -> _Rows:
    dropped = state["dropped_presettled"]
    lost = f", {dropped} dropped for want of credit" if dropped else ""
    rows = [
        ("router", f"{state['engine']} {state['version']}, {state['mode']}, up {_span(state['up_seconds'])}"),
        ("", f"{state['clients']} clients, {state['links']} links{lost}"),
    ]
    rows += [("", f"not as its file: {line}") for line in state["drift"]]
    for one in state["interiors"]:
        text = "reached" if one["reached"] else "NOT REACHED"
        if one["reaches"] is not None:
            text += f", reaches {len(one['reaches'])} of {len(state['interiors'])}"
        rows.append((f"  {one['name']}", text))
    return rows


def _broker_rows(state: typing.Mapping[str, typing.Any]) -> _Rows:
    parts = [f"RabbitMQ {state['version']} ({state['metadata_store'].capitalize()})"]
    parts += [f"{state[what]} {what}" for what in ("queues", "messages") if state[what] is not None]
    rows = [("broker", ", ".join(parts))]
    for member in state["members"]:
        rows.append((f"  {member['name']}", "runs" if member["running"] else "DOES NOT RUN"))
    rows += [("", f"ALARM: {alarm}") for alarm in state["alarms"]]
    rows += [("", f"PARTITION: {name}") for name in state["partitions"]]
    return rows


def _span(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    hours, minutes, rest = rest // 3600, rest % 3600 // 60, rest % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def capacity_text(sizes: typing.Sequence[capacity.Size]) -> str:
    """Return what an overcloud needs, with one table for each size."""
    if not any(size.needs for size in sizes):
        return f"{sizes[0].nodes} nodes: both halves are external, so no router and no broker here needs anything"
    return "\n\n".join(map(_size_text, sizes))


def _size_text(size: capacity.Size) -> str:
    what = "as it is" if size.times == 1 else f"with {size.times} times as many nodes without interior router or broker"
    head = ("busiest", "of", "processes", "edges", "peers", "links", "connections", "descriptors", "memory")
    rows = [
        (
            f"{need.kind} {need.name}",
            str(need.nodes),
            str(need.clients),
            str(need.edges),
            str(need.peers),
            str(need.links),
            str(need.connections),
            f"{need.descriptors} of {need.limit}",
            f"{need.memory / 2**20:.0f} MiB",
        )
        for need in size.needs
    ]
    lines = [f"{size.nodes} nodes, {what}", *_columns([head, *rows])]
    lines += [f"warning: {advice}" for advice in size.advice]
    return "\n".join(lines)


def _columns(rows: typing.Sequence[typing.Sequence[str]]) -> typing.Iterator[str]:
    """Yield the rows as lines: the first column flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for first, *rest in rows:
        yield "  ".join([first.ljust(widths[0]), *(text.rjust(w) for text, w in zip(rest, widths[1:]))])


def drain_text(node: str, left: drain.Remaining) -> str:
    """Return what drain has done and what remains."""
    closed = ", ".join(left.closed) or "no listener"
    done = f"{node}: closed {closed}, moved {left.moved} connections in {left.seconds:.1f} s"
    still = [f"{n} {what}" for n, what in ((left.edges, "edge routers"), (left.unsettled, "messages under way")) if n]
    own = f"; {left.clients} clients have this router alone, and wait for its return" if left.clients else ""
    if still:
        return f"{done}; still there: {', '.join(still)}{own}. Wait and run it again, or stop the router all the same."
    return f"{done}; nothing of other nodes passes here any more{own}. Now stop the router; starting it undoes this."


def resync_text(node: str, done: resync.Done) -> str:
    """Return what resync has done and what remains."""
    closed = f"closed {done.closed} connections, which clients open again" if done.closed else "nothing to do"
    if not done.missing:
        return f"{node}: {closed}; every router that is reached knows the addresses of this one"
    lacking = ", ".join(f"{name} lacks {count}" for name, count in done.missing.items())
    return f"{node}: {closed}; {lacking} addresses still. Run it again, or restart the services of this node."


def undo_text(node: str, steps: typing.Sequence[str]) -> str:
    """Return what undoing a drain has done."""
    return f"{node}: the running router is as its file says" + (f": {'; '.join(steps)}" if steps else " already")
