"""Making the node so: compare, write, run puppet, look again; all of it or nothing."""

from __future__ import annotations

import contextlib
import pathlib
import typing

from om_agent import errors, plan, proc, render
from om_agent.apply import (
    checks,
    comparing,
    files,
    journal,
    live_broker,
    live_router,
    puppet,
    results,
    sasl_database,
    saved_state,
    service_files,
    systemd,
)
from om_agent.plan import layout


def recover(root: pathlib.Path, manage_services: bool) -> bool:
    """End what an interrupted run left behind; return whether there was anything.

    The caller holds the lock.
    """
    units = journal.recover(root)
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
    """Make the node so. The caller holds the lock, whose descriptor is ``lock``, and has called `recover`.

    :param puppet_timeout: seconds.
    :param live: whose router and broker may be changed while they run.
    :raises om_agent.errors.NotReady: when something is missing; nothing was touched.
    :raises om_agent.errors.ApplyFailed: when something failed; everything is as it was.
    """
    checks.check_node(rendered, host, root)
    work = comparing.compare(rendered, host, root, live=live)
    outcome = results.Outcome(work.changes)
    if work.changes:
        checks.check_writable(rendered, root, work)
        tools = _tools(host, work)
        outcome = _carry_out(rendered, host, root, puppet_timeout, lock, tools, work)
    elif saved_state.load_state(root) != work.state:  # lost, or of a run without services
        files.write(files.on_disk(root, saved_state.PATH), saved_state.dump_state(work.state), 0o600)
    if host.manage_services:
        systemd.queue("start", (u.name for u in rendered.units))  # puppet enables router and broker, and restarts them
    return outcome


def _tools(host: layout.Host, work: comparing.Comparison) -> puppet.Tools | None:
    """Return what ``work`` needs of puppet, if anything.

    :raises om_agent.errors.NotReady: when it is not installed.
    """
    # For a router or broker that cannot be changed after all, puppet must be there to restart it.
    needs = work.needs_puppet or ((work.router or work.broker) and host.manage_services)
    return puppet.find_tools(puppet.module_directories()) if needs and work.changes else None


def refusals(
    rendered: render.Rendered, host: layout.Host, root: pathlib.Path, work: comparing.Comparison
) -> tuple[errors.Problem, ...]:
    """Return everything because of which `apply` would not begin, where ``work`` is of a dry comparison."""
    found: list[errors.Problem] = []
    for look in (
        lambda: checks.check_node(rendered, host, root),
        lambda: sasl_database.find_saslpasswd() if work.new_users else None,
        lambda: checks.check_writable(rendered, root, work),
        lambda: _tools(host, work),
    ):
        try:
            look()
        except errors.NotReady as e:
            found += e.problems
    return tuple(dict.fromkeys(found))


def _carry_out(
    rendered: render.Rendered,
    host: layout.Host,
    root: pathlib.Path,
    puppet_timeout: float,
    lock: int,
    tools: puppet.Tools | None,
    work: comparing.Comparison,
) -> results.Outcome:
    """Do the work inside one transaction; what runs gets what is new before it ends, and loses what is old after."""
    units = [*(u.name for u in rendered.units), *(u for c in rendered.config_files for u in c.units)]
    try:
        if work.router:
            live_router.set_mark(root, work.router)
        if work.broker:
            live_broker.set_mark(work.broker)
        transaction = journal.begin(
            root, [*comparing.replaced_paths(work), *comparing.edited_paths(rendered)], dict.fromkeys(units)
        )
    except OSError as e:
        raise errors.ApplyFailed(f"Nothing was changed: {files.reason(e)}.") from None
    said: tuple[str, ...] = ()
    trouble: dict[str, str] = {}
    try:
        for target in work.files_to_write:
            transaction.put(target.file, target.content, target.uid, target.gid)
        if work.hieradata_once:
            transaction.put(
                work.hieradata_once.file, work.hieradata_once.content, work.hieradata_once.uid, work.hieradata_once.gid
            )
        for path in work.files_to_remove:
            transaction.remove(path)
        trouble = _grow(work)
        _stamp(root, (stamp for unit, stamp in work.stamps.items() if not trouble[unit]))
        if tools and (work.needs_puppet or any(trouble.values())):
            transaction.phase(journal.PUPPET)
            said = puppet.run(tools, root, puppet_timeout, lock)
            _look_again(rendered, root)
        if work.hieradata_once:
            transaction.put(work.hieradata.file, work.hieradata.content, work.hieradata.uid, work.hieradata.gid)
        files.write(files.on_disk(root, saved_state.PATH), saved_state.dump_state(work.state), 0o600)
        transaction.commit()
    except BaseException as e:
        if transaction.committed:  # interrupted too late: it is done
            return results.Outcome(work.changes, said, _finish(work, trouble, host, root))
        why = f"{files.reason(e)}." if isinstance(e, OSError) else str(e)
        _give_up(work, root, host, transaction, units, why)
        if isinstance(e, (OSError, errors.ApplyFailed)):
            raise errors.ApplyFailed(f"Everything is as it was before: {why}") from None
        raise
    return results.Outcome(work.changes, said, _finish(work, trouble, host, root))


def _grow(work: comparing.Comparison) -> dict[str, str]:
    """Make what is new in what runs; return, by unit, why only a restart can bring it."""
    trouble = {work.router.plan.paths.unit: live_router.grow(work.router)} if work.router else {}
    return {**trouble, **({layout.RABBIT_UNIT: live_broker.grow(work.broker)} if work.broker else {})}


def _stamp(root: pathlib.Path, stamps: typing.Iterable[tuple[str, bytes]]) -> None:
    """Note, as puppet would, that units run with their present files."""
    for path, content in stamps:
        files.write(files.on_disk(root, path), content, 0o600)


def _give_up(
    work: comparing.Comparison,
    root: pathlib.Path,
    host: layout.Host,
    transaction: journal.Transaction,
    units: typing.Sequence[str],
    why: str,
) -> None:
    """Make what runs and the files what they were."""
    with proc.uninterrupted():
        left = live_router.take_back(work.router) if work.router else ""
        stuck = live_broker.take_back(work.broker) if work.broker else ""
        try:
            began = transaction.roll_back()
        except errors.RollbackFailed as r:
            raise errors.RollbackFailed(f"Applying failed: {why or 'it was interrupted.'} {r}") from None
        if work.router and not left and work.router.certificates:
            left = live_router.reload(work.router)
        if work.broker and not stuck and work.broker.certificate is not None:
            stuck = live_broker.reload(work.broker)
        if work.router and not left:
            live_router.clear_mark(root)
            units = [u for u in units if u != work.router.plan.paths.unit]  # it runs with the old files already
        if work.broker and work.broker.needs_no_restart and not stuck:
            units = [u for u in units if u != layout.RABBIT_UNIT]
        if (began or left or stuck) and host.manage_services:
            wrong = [work.router.plan.paths.unit] if work.router and left else []
            wrong += [layout.RABBIT_UNIT] if stuck else []
            systemd.bring_back(root, units if began else wrong)


def _finish(
    work: comparing.Comparison, trouble: typing.Mapping[str, str], host: layout.Host, root: pathlib.Path
) -> tuple[str, ...]:
    """Take from what runs what nothing uses any more; return what turned out otherwise than planned."""
    notes = _shrink(work.router, trouble[work.router.plan.paths.unit], host, root) if work.router else ()
    return (*notes, *(_shrink_broker(work.broker, trouble[layout.RABBIT_UNIT], host) if work.broker else ()))


def _shrink_broker(work: live_broker.BrokerWork, trouble: str, host: layout.Host) -> list[str]:
    notes, left, unit = [], "", layout.RABBIT_UNIT
    with contextlib.suppress(KeyboardInterrupt), proc.uninterrupted():  # too late to interrupt: it is done
        left = live_broker.finish(work)
    if trouble and work.needs_no_restart:
        done = f"{unit} is restarted instead" if host.manage_services else f"Its next start has it: restart {unit}"
        notes.append(f"The running broker could not be changed: {trouble}. {done}.")
    if left:
        names = ", ".join(map(live_broker.called, work.remove))
        notes.append(f"The broker still has {names}: {left}. Run om-agent apply again when it runs.")
    if work.kept_users:
        names = ", ".join(map(live_broker.called, work.kept_users))
        notes.append(
            f"The broker still has {names}, since services of other nodes may log in so. "
            "Run rabbitmqctl delete_user when none does."
        )
    return notes


def _shrink(live: live_router.RouterWork, trouble: str, host: layout.Host, root: pathlib.Path) -> tuple[str, ...]:
    """Take from a running router what nothing uses any more; the transaction is over, so that this cannot fail it.

    :return: what turned out otherwise than planned.
    """
    unit, grown = live.plan.paths.unit, not trouble
    with contextlib.suppress(KeyboardInterrupt), proc.uninterrupted():  # too late to interrupt: it is done
        trouble = trouble or live_router.shrink(live)
        if trouble and grown and host.manage_services:
            systemd.queue("restart", [unit])
        if not trouble or (host.manage_services and not grown):
            live_router.clear_mark(root)
    if not trouble:
        return ()
    done = f"{unit} is restarted instead" if host.manage_services else f"Restart {unit}"
    return (f"The running router could not be changed: {trouble}. {done}.",)


def _look_again(rendered: render.Rendered, root: pathlib.Path) -> None:
    """Fail when puppet says that all is well and a file says otherwise."""
    left = [str(c) for file in rendered.config_files for c in service_files.key_changes(file, root)]
    if left:
        raise errors.ApplyFailed(
            f"puppet reported success, but this is still to do: {'; '.join(left[:5])}. "
            "Another program may be editing the same files: stop it and run again."
        )
