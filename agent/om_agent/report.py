"""What people, Heat and programs are told; every value that goes out here passes `mask` first, and every line that may
hold something of a file, a router or a broker is made printable."""

from __future__ import annotations

import itertools
import json
import re
import typing

from om_agent import drain, errors, kinds, model, observed, plan, resync, verify
from om_agent.apply import comparing, results
from om_agent.kinds import clauses
from om_agent.plan import broker, capacity

# A transport URL whose hosts either all have a user and a password, or none: its password can be told from the rest.
# Where there is no login, what looks like a host and its port may be a user and a password, if it is not plainly one.
_ADDRESS = r"(?:[0-9]+(?:\.[0-9]+){3}|\[[0-9A-Fa-f:.]+\])"
_HOST = rf"(?:[A-Za-z0-9._-]+|{_ADDRESS})(?::[0-9]+)?"
_PORT = rf"(?:5671|{model.RABBIT_PORT}|{model.AMQP_PORT})"
_PLAIN_HOST = rf"(?:{_ADDRESS}(?::[0-9]+)?|[A-Za-z0-9._-]+(?::{_PORT})?)"
_USER = r"[A-Za-z0-9._~%-]*"
_QUERY = r"(?:ssl|ssl_ca_file|sasl_default_realm)=[^&@\s]*"  # any other option may be a password
_LOGIN = rf"{_USER}:[^@/,:\s]*@"
_URL = re.compile(
    rf"[a-z][a-z0-9+]*://(?:{_LOGIN}{_HOST}(?:,{_LOGIN}{_HOST})*|{_PLAIN_HOST}(?:,{_PLAIN_HOST})*)"
    rf"(?:/[^:@?\s]*)?(?:\?{_QUERY}(?:&{_QUERY})*)?"
)
_URLS = ("transport_url", "url")  # keys that hold nothing else
_REASONS = 3  # sentences in a stack's reason
_MOST_TOLD = 2**16  # bytes of a text that Heat is told; it takes no more than 1 MiB of all (max_json_body_size)
_UNIT = ("restart", "reconcile", "stop")  # what is done to a unit, not to a file or key
_PASSWORD = re.compile(rf"(?<=[/,])({_USER}):[^@/,:\s]*@")


def mask(value: str) -> str:
    """Return ``value`` without passwords: those of a transport URL, or all of it when it only resembles one."""
    if _URL.fullmatch(value):
        return _PASSWORD.sub(r"\1:***@", value)
    return "***" if "://" in value or "@" in value else value


def _mask_key(detail: str, value: str) -> str:
    """Return the value of a key, called ``[section] key``, without passwords: of a URL that is none nothing is shown,
    since it takes no more than a forgotten slash for a password to stand where none is looked for."""
    url = detail.rpartition(" ")[2] in _URLS
    return "***" if url and value and not _URL.fullmatch(value) else mask(value)


def printable(text: str) -> str:
    """Return a text of several lines with whatever would do something to a terminal escaped."""
    return _text(text.split("\n"))


def _text(lines: typing.Iterable[str]) -> str:
    return "\n".join(map(errors.printable, lines))


def _mask_line(line: str) -> str:
    """Return a line of a diff. What is taken away was perhaps not written by this program: only its key is shown."""
    if not line.startswith("-"):
        return line
    key = re.match(r"-\s*[\w.-]+\s*(?==\s*[^=\s])", line)  # the end of a key in base64 looks like one
    return (key.group() if key else "- ") + ("= ***" if key else "***")


def problems_text(problems: typing.Sequence[errors.Problem]) -> str:
    """Return problems for people, a line each."""
    return _text(f"{p.severity}: {p}" for p in problems)


def problems_json(problems: typing.Sequence[errors.Problem]) -> list[dict[str, str]]:
    """Return problems for programs."""
    return [
        {"severity": p.severity, "path": p.path, "code": p.code, "message": p.message, "remedy": p.remedy}
        for p in problems
    ]


def plan_text(node_plan: plan.Plan, work: comparing.Comparison, old: typing.Mapping[str, bytes | None]) -> str:
    """Return a plan as a diff: files of ours line by line unless they are secret, keys of others one by one.

    :param old: present content of the files to write, by path.
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
    live = [c for c in work.changes if c.action == "reconcile"]
    lines += [f"change {c.path} while it runs" for c in live[:1]] + [f"  {c.detail}" for c in live]
    lines += [str(c) for c in work.changes if c.action in ("restart", "stop")]
    return _text(lines)


def summary(node_plan: plan.Plan, work: comparing.Comparison) -> str:
    """Return one line that says what the node is and what would be done."""
    runs = [
        *([f"{node_plan.router.mode} router"] if node_plan.router else ()),
        *(["broker"] if node_plan.broker else ()),
    ]
    role = f"{node_plan.node.name} ({node_plan.node.role}, {' and '.join(runs) if runs else 'clients only'})"
    if not work.changes:
        return f"{role}: nothing to do"
    keys = [c for c in work.changes if c.detail.startswith("[")]
    of = len({c.path for c in keys})
    counts = (
        (len(work.files_to_write), "file", "to write"),
        (len(work.files_to_remove), "file", "to remove"),
        (len(keys), "key", f"to change in {of} file{'' if of == 1 else 's'} of services"),
    )
    return f"{role}: " + ", ".join(f"{n} {noun}{'' if n == 1 else 's'} {what}" for n, noun, what in counts if n)


def _file_diff(target: comparing.Target, old: bytes | None) -> list[str]:
    name = target.file.path
    note = f"mode 0{target.file.mode:o} {target.file.owner}:{target.file.group}"
    verb = "create" if old is None else "change"
    if target.file.secret:
        return [f"{verb} {name} ({note}; secret, not shown)"]
    before = [] if old is None else old.decode(errors="replace").splitlines()
    after = target.content.decode(errors="replace").splitlines()
    import difflib  # apply shows none

    diff = list(difflib.unified_diff(before, after, name, name, lineterm="", n=2))[2:]
    return [f"{verb} {name} ({note})", *("  " + _mask_line(line) for line in diff)]


def _key_diff(change: results.Change) -> list[str]:
    lines = []
    if change.action in ("change", "remove") and not change.detail.startswith("mode "):
        lines.append(f"  - {change.detail} = {_mask_key(change.detail, change.old)}")
    if change.detail.startswith("mode "):
        return [f"  ~ {change.detail}"]
    if change.action != "remove":
        lines.append(f"  + {change.detail} = {_mask_key(change.detail, change.new)}")
    return lines


def outcome_text(node: str, outcome: results.Outcome, verbose: bool) -> str:
    """Return what apply did."""
    if not outcome.changes:
        return f"{node}: nothing to do, the messaging configuration is right"
    count = len(outcome.changes)
    lines = [f"{node}: applied, {count} change{'' if count == 1 else 's'}", *outcome.notes]
    if verbose:
        lines += [f"  {c}" for c in outcome.changes] + [f"  puppet: {line}" for line in outcome.puppet]
    return _text(lines)


def deployed_text(node: str, outcome: results.Outcome, changes: int) -> str:
    """Return what a deployment did.

    :param changes: how many the last apply made that made any: as a rule the one before this, in configure.d.
    """
    if outcome.changes:
        return outcome_text(node, outcome, verbose=True)
    return (
        f"{node}: the configuration is as the metadata says; {changes} change{'' if changes == 1 else 's'} made it so"
    )


def changes_json(changes: typing.Sequence[results.Change]) -> list[dict[str, str]]:
    """Return changes for programs, without values."""
    return [{"action": c.action, "path": c.path, **({"detail": c.detail} if c.detail else {})} for c in changes]


def signal(status: int, stdout: str, stderr: str, outputs: typing.Mapping[str, str]) -> str:
    """Return what a heat-config hook prints: Heat's ``deploy_*`` and the outputs.

    ``problem`` is there only when there is one. As an output with ``error_output: true`` it becomes the stack's reason,
    where ``deploy_stderr`` never appears; and Heat takes a deployment for failed when such an output has any value.
    """
    answer = {"deploy_stdout": stdout, "deploy_stderr": stderr, "deploy_status_code": status, **outputs}
    if status:
        lines = stderr.splitlines()
        more = f" (and {len(lines) - _REASONS} more: see deploy_stderr)" if len(lines) > _REASONS else ""
        answer["problem"] = " ".join(lines[:_REASONS]) + more
    return json.dumps({name: _cut_off(v) if isinstance(v, str) else v for name, v in answer.items()})


def _cut_off(text: str) -> str:
    """Return a text that is no longer than Heat may be told, as JSON has it: whole lines of one that was."""
    if len(json.dumps(text)) <= _MOST_TOLD:
        return text
    sizes = itertools.accumulate(len(json.dumps(character)) - len('""') for character in text)
    end = sum(1 for _ in itertools.takewhile(lambda size: size < _MOST_TOLD - len(clauses.CUT_OFF) - 20, sizes))
    kept = text[:end].rpartition("\n")[0] or text[:end]
    return f"{kept}\n{clauses.CUT_OFF.format(left=len(text) - len(kept))}"


def mesh_state(deployment: model.Deployment, node_plan: plan.Plan, found: typing.Sequence[errors.Problem]) -> str:
    """Return what the node's part of the mesh is: ``none``, ``works``, or ``degraded`` or ``broken`` and why.

    It works when its routers, the services that are to be connected to one here, and the agent's own messages do.
    """
    if not node_plan.router:
        return "none"
    halves = {backend.half for backend in deployment.routed}
    faults = [f for f in found if f.severity == errors.ERROR]
    trouble = [f for f in faults if kinds.of(f).mesh or kinds.of(f).half in halves]
    trouble.sort(key=lambda f: kinds.of(f).verdict != kinds.BROKEN)  # the worst first
    if not trouble:
        return kinds.WORKS
    more = f" (and {len(trouble) - 1} more)" if len(trouble) > 1 else ""
    return f"{kinds.verdict(trouble)}: {trouble[0].path}: {trouble[0].message}{more}"


# -- verify, status, drain -------------------------------------------------------------------------------------------


def verify_text(node_plan: plan.Plan, seen: observed.Seen, found: typing.Sequence[errors.Problem]) -> str:
    """Return one line that says whether messaging works on the node, and what was tried."""
    tried = [f"{what} and back" for what, n in _tried(seen) if n]
    said = verdict_text(node_plan, found)
    if kinds.verdict(found) != kinds.WORKS:
        return said
    return f"{said}: " + ", ".join([*_parts(node_plan, seen), *tried] or ["nothing runs here"])


def verdict_text(node_plan: plan.Plan, found: typing.Sequence[errors.Problem]) -> str:
    """Return what messaging on the node is, in a line."""
    faults = sum(f.severity == errors.ERROR for f in found)
    count = f"{faults} fault{'' if faults == 1 else 's'}"
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
    """Return the same for programs."""
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
    r, mesh = node_plan.router, seen.mesh
    if not r or not mesh:
        return None
    own, reached = mesh.own, _reached(node_plan, seen)
    return {
        "engine": r.engine.value,
        "mode": r.mode,
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
            {
                "name": name,
                "reached": name in reached,
                "reaches": None if mesh.views.get(name) is None else sorted(mesh.views[name] or ()),
            }
            for name in (() if r.mode == "standalone" else r.interiors)
        ],
    }


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


def status_text(deployment: model.Deployment, node_plan: plan.Plan, seen: observed.Seen) -> str:
    """Return the state of the node's messaging as a table."""
    halves = (f"{b.half} over {b.scheme.value}{' (external)' if b.external else ''}" for b in deployment.halves)
    rows = [("node", f"{node_plan.node.name} ({node_plan.node.role}): {', '.join(halves)}")]
    state = _router_json(node_plan, seen)
    if state and not state["running"]:
        unasked = seen.mesh and seen.mesh.own.login == observed.UNASKED
        what = "cannot be asked" if unasked else "does not answer"
        rows.append(("router", f"{state['engine']}, {state['mode']}: {what}"))
    elif state:
        rows.append(
            ("router", f"{state['engine']} {state['version']}, {state['mode']}, up {_span(state['up_seconds'])}")
        )
        dropped = f", {state['dropped_presettled']} dropped for want of credit" if state["dropped_presettled"] else ""
        rows.append(("", f"{state['clients']} clients, {state['links']} links{dropped}"))
        rows += [("", f"not as its file: {line}") for line in state["drift"]]
        for one in state["interiors"]:
            sees = "" if one["reaches"] is None else f", reaches {len(one['reaches'])} of {len(state['interiors'])}"
            rows.append((f"  {one['name']}", ("reached" if one["reached"] else "NOT REACHED") + sees))
    status = _broker_json(node_plan, seen)
    if status and not status["running"]:
        rows.append(("broker", "does not answer"))
    elif status:
        counts = [f"{status[what]} {what}" for what in ("queues", "messages") if status[what] is not None]
        rows.append(
            ("broker", ", ".join([f"RabbitMQ {status['version']} ({status['metadata_store'].capitalize()})", *counts]))
        )
        rows += [(f"  {m['name']}", "runs" if m["running"] else "DOES NOT RUN") for m in status["members"]]
        rows += [("", f"ALARM: {alarm}") for alarm in status["alarms"]]
        rows += [("", f"PARTITION: {name}") for name in status["partitions"]]
    width = max(len(name) for name, _ in rows) + 2
    return _text(f"{name:{width}}{text}".rstrip() for name, text in rows)


def _span(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    hours, minutes, rest = rest // 3600, rest % 3600 // 60, rest % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def capacity_text(sizes: typing.Sequence[capacity.Size]) -> str:
    """Return what an overcloud needs at several sizes, a table each."""
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
    """Yield lines in which the first column is flush left and the others are flush right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for first, *rest in rows:
        yield "  ".join([first.ljust(widths[0]), *(text.rjust(w) for text, w in zip(rest, widths[1:]))])


def drain_text(node: str, left: drain.Remaining) -> str:
    """Return what drain did and what is left."""
    closed = ", ".join(left.closed) or "no listener"
    done = f"{node}: closed {closed}, moved {left.moved} connections in {left.seconds:.1f} s"
    still = [f"{n} {what}" for n, what in ((left.edges, "edge routers"), (left.unsettled, "messages under way")) if n]
    own = f"; {left.clients} clients have this router alone, and wait for its return" if left.clients else ""
    if still:
        return f"{done}; still there: {', '.join(still)}{own}. Wait and run it again, or stop the router all the same."
    return f"{done}; nothing of other nodes passes here any more{own}. Now stop the router; starting it undoes this."


def resync_text(node: str, done: resync.Done) -> str:
    """Return what resync did and what is left."""
    closed = f"closed {done.closed} connections, which clients open again" if done.closed else "nothing to do"
    if not done.missing:
        return f"{node}: {closed}; every router that is reached knows the addresses of this one"
    lacking = ", ".join(f"{name} lacks {count}" for name, count in done.missing.items())
    return f"{node}: {closed}; {lacking} addresses still. Run it again, or restart the services of this node."


def undo_text(node: str, steps: typing.Sequence[str]) -> str:
    """Return what undoing a drain did."""
    return f"{node}: the running router is as its file says" + (f": {'; '.join(steps)}" if steps else " already")
