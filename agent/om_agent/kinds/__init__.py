"""Every kind of problem and finding: one record for each code, with its sentences and properties. Pure.

A new code gets a record in the module of its subject. A test finds codes without a record, and records without a use. A
sentence never repeats a value of the metadata, only names (keys, nodes, services): a password in the wrong place must
not appear in a log.
"""

from __future__ import annotations

import dataclasses
import typing

from om_agent import errors
from om_agent.kinds import kind, messaging, metadata, node, rules, security

WORKS, DEGRADED, BROKEN = kind.WORKS, kind.DEGRADED, kind.BROKEN

# In the order of the table in doc/failures.rst.
KINDS: typing.Mapping[str, kind.Kind] = {
    **metadata.KINDS,
    **rules.KINDS,
    **security.KINDS,
    **node.KINDS,
    **messaging.KINDS,
}


def of(found: errors.Problem) -> kind.Kind:
    """Return the record of a problem or finding."""
    return KINDS[found.code]


def problem(path: str, code: str, /, **values: object) -> errors.Problem:
    """Return a problem with the sentences and the severity of its kind.

    :raises KeyError: for an unknown code, which is a programming error.
    """
    return _fill(path, code, KINDS[code].severity, values)


def warning(path: str, code: str, /, **values: object) -> errors.Problem:
    """Return a problem as a warning: here it stops nothing, although a problem of its kind may stop another command."""
    return _fill(path, code, errors.WARNING, values)


def finding(at: str, code: str, /, **values: object) -> errors.Problem:
    """Return what the agent found at running messaging, with the severity that its kind has there."""
    return _fill(at, code, KINDS[code].found_severity, values)


def _fill(path: str, code: str, severity: str, values: typing.Mapping[str, object]) -> errors.Problem:
    one = KINDS[code]
    texts = {name: errors.one_line(value) for name, value in values.items()}
    message, remedy = one.message.format(**texts), one.remedy.format(**texts)
    return errors.Problem(path or "oslo_messaging", code, message, remedy, severity)


def as_found(one: errors.Problem) -> errors.Problem:
    """Return a problem from before an apply with the severity that it has at running messaging."""
    return dataclasses.replace(one, severity=of(one).found_severity)


def verdict(found: typing.Iterable[errors.Problem]) -> str:
    """Return `WORKS`, `DEGRADED` or `BROKEN`."""
    verdicts = {of(one).verdict for one in found}
    return next((word for word in (BROKEN, DEGRADED) if word in verdicts), WORKS)
