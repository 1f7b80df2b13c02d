"""Apply makes the node as the metadata says: read the disk, compare, write, run puppet; all of it or nothing."""

from __future__ import annotations

import pathlib

from om_agent import errors, plan, render
from om_agent.apply import (
    changing,
    checks,
    comparing,
    files,
    puppet,
    results,
    sasl_database,
    saved_state,
    snapshot,
    systemd,
    transaction,
)
from om_agent.plan import layout


def recover(root: pathlib.Path, manage_services: bool) -> bool:
    """Finish a run that was interrupted, or take it back; return whether there was one.

    The caller holds the lock.
    """
    units = transaction.recover(root)
    if units and manage_services:
        systemd.bring_back(root, units)
    return units is not None


def apply(
    rendered: render.Rendered,
    host: layout.Host,
    root: pathlib.Path,
    puppet_timeout: float,
    lock: int,
    live: plan.Plan | None = None,
) -> results.Outcome:
    """Make the node as it should be. The caller holds the lock, whose descriptor is ``lock``, and has called `recover`.

    :param puppet_timeout: seconds.
    :param live: the plan whose router and broker may be changed while they run.
    :raises om_agent.errors.NotReady: when something is missing; nothing was touched.
    :raises om_agent.errors.ApplyFailed: when something failed; everything is as it was.
    """
    before = snapshot.take(rendered, root)
    checks.check_node(rendered, host, before)
    comparison = comparing.compare(rendered, host, root, live=live, before=before)
    outcome = results.Outcome(comparison.changes)
    if comparison.changes:
        checks.check_writable(comparison)
        means = changing.Means(host.manage_services, _tools(host, comparison), puppet_timeout, lock)
        outcome = changing.change(comparison, means)
    elif before.state != comparison.state:  # lost, or of a run without services
        files.write(files.on_disk(root, saved_state.PATH), saved_state.dump_state(comparison.state), 0o600)
    if host.manage_services:  # puppet enables router and broker, and restarts them; it does not start them
        systemd.queue("start", (unit.name for unit in rendered.units))
    return outcome


def _tools(host: layout.Host, comparison: comparing.Comparison) -> puppet.Tools | None:
    """Return puppet, if ``comparison`` may need it.

    :raises om_agent.errors.NotReady: when it is not installed.
    """
    # When a router or broker cannot be changed while it runs after all, puppet restarts it.
    may_need = comparison.needs_puppet or (comparison.running and host.manage_services)
    return puppet.find_tools(puppet.module_directories()) if may_need and comparison.changes else None


def refusals(
    rendered: render.Rendered, host: layout.Host, root: pathlib.Path, comparison: comparing.Comparison
) -> tuple[errors.Problem, ...]:
    """Return everything because of which `apply` would not begin, where ``comparison`` is a dry one."""
    found: list[errors.Problem] = []
    for check in (
        lambda: checks.check_node(rendered, host, comparison.before),
        lambda: sasl_database.find_saslpasswd() if comparison.needs_saslpasswd else None,
        lambda: checks.check_writable(comparison),
        lambda: _tools(host, comparison),
    ):
        try:
            check()
        except errors.NotReady as e:
            found += e.problems
    return tuple(dict.fromkeys(found))
