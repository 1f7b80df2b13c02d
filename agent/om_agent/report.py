"""What people, Heat and programs are told; every value that goes out here passes `mask` first."""

from __future__ import annotations

import difflib
import json
import re
import typing

from om_agent import apply, errors, plan

# A transport URL whose hosts either all have a user and a password, or none: its password can be told from the rest.
_HOST = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?"
_USER = r"[A-Za-z0-9._~%-]*"
_QUERY = r"(?:ssl|ssl_ca_file|sasl_default_realm)=[^&@\s]*"  # any other option may be a password
_LOGIN = rf"{_USER}:[^@/,:\s]*@"
_URL = re.compile(
    rf"[a-z][a-z0-9+]*://(?:{_LOGIN}{_HOST}(?:,{_LOGIN}{_HOST})*|{_HOST}(?:,{_HOST})*)(?:/[^@?\s]*)?(?:\?{_QUERY}(?:&{_QUERY})*)?"
)
_PASSWORD = re.compile(rf"(?<=[/,])({_USER}):[^@/,:\s]*@")


def mask(value: str) -> str:
    """Return ``value`` without passwords: those of a transport URL, or all of it when it only resembles one."""
    if _URL.fullmatch(value):
        return _PASSWORD.sub(r"\1:***@", value)
    return "***" if "://" in value or "@" in value else value


def _mask_line(line: str) -> str:
    """Return a line of a diff. What is taken away was perhaps not written by this program: only its key is shown."""
    if not line.startswith("-"):
        return line
    key = re.match(r"-\s*[\w.-]+\s*(?==)", line)
    return (key.group() if key else "- ") + ("= ***" if key else "***")


def problems_text(problems: typing.Sequence[errors.Problem]) -> str:
    """Return problems for people, a line each."""
    return "\n".join(f"{p.severity}: {p}" for p in problems)


def problems_json(problems: typing.Sequence[errors.Problem]) -> list[dict[str, str]]:
    """Return problems for programs."""
    return [
        {"severity": p.severity, "path": p.path, "code": p.code, "message": p.message, "remedy": p.remedy}
        for p in problems
    ]


def plan_text(p: plan.Plan, work: apply.Comparison, old: typing.Mapping[str, bytes | None]) -> str:
    """Return a plan as a diff: files of ours line by line unless they are secret, keys of others one by one.

    :param old: present content of the files to write, by path.
    """
    lines = [summary(p, work)]
    for target in work.wrong:
        lines += _file_diff(target, old.get(target.file.path))
    lines += [f"remove {path}" for path in work.gone]
    path = ""
    for change in work.changes:
        if change.detail:
            if change.path != path:
                path = change.path
                lines.append(f"keys in {path}")
            lines += _key_diff(change)
    lines += [f"{c.action} {c.path}" for c in work.changes if c.action in ("restart", "stop")]
    return "\n".join(lines)


def summary(p: plan.Plan, work: apply.Comparison) -> str:
    """Return one line that says what the node is and what would be done."""
    runs = [*([f"{p.router.mode} router"] if p.router else ()), *(["broker"] if p.broker else ())]
    role = f"{p.node.name} ({p.node.role}, {' and '.join(runs) if runs else 'clients only'})"
    if not work.changes:
        return f"{role}: nothing to do"
    keys = [c for c in work.changes if c.detail.startswith("[")]
    of = len({c.path for c in keys})
    counts = (
        (len(work.wrong), "file", "to write"),
        (len(work.gone), "file", "to remove"),
        (len(keys), "key", f"to change in {of} file{'' if of == 1 else 's'} of services"),
    )
    return f"{role}: " + ", ".join(f"{n} {noun}{'' if n == 1 else 's'} {what}" for n, noun, what in counts if n)


def _file_diff(target: apply.Target, old: bytes | None) -> list[str]:
    name = target.file.path
    note = f"mode 0{target.file.mode:o} {target.file.owner}:{target.file.group}"
    verb = "create" if old is None else "change"
    if target.file.secret:
        return [f"{verb} {name} ({note}; secret, not shown)"]
    before = [] if old is None else old.decode(errors="replace").splitlines()
    after = target.content.decode(errors="replace").splitlines()
    diff = list(difflib.unified_diff(before, after, name, name, lineterm="", n=2))[2:]
    return [f"{verb} {name} ({note})", *("  " + _mask_line(line) for line in diff)]


def _key_diff(change: apply.Change) -> list[str]:
    lines = []
    if change.action in ("change", "remove") and not change.detail.startswith("mode "):
        lines.append(f"  - {change.detail} = {mask(change.old)}")
    if change.detail.startswith("mode "):
        return [f"  ~ {change.detail}"]
    if change.action != "remove":
        lines.append(f"  + {change.detail} = {mask(change.new)}")
    return lines


def outcome_text(node: str, outcome: apply.Outcome, verbose: bool) -> str:
    """Return what apply did."""
    if not outcome.changes:
        return f"{node}: nothing to do, the messaging configuration is right"
    count = len(outcome.changes)
    lines = [f"{node}: applied, {count} change{'' if count == 1 else 's'}"]
    if verbose:
        lines += [f"  {c}" for c in outcome.changes] + [f"  puppet: {line}" for line in outcome.puppet]
    return "\n".join(lines)


def changes_json(changes: typing.Sequence[apply.Change]) -> list[dict[str, str]]:
    """Return changes for programs, without values."""
    return [{"action": c.action, "path": c.path, **({"detail": c.detail} if c.detail else {})} for c in changes]


def signal(status: int, stdout: str, stderr: str, outputs: typing.Mapping[str, str]) -> str:
    """Return what a heat-config hook prints: Heat's ``deploy_*`` and the outputs."""
    return json.dumps({"deploy_stdout": stdout, "deploy_stderr": stderr, "deploy_status_code": status, **outputs})
