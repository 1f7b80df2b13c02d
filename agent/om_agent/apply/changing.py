"""Carry out what a comparison found, in one transaction: all of it or nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import typing

from om_agent import errors, proc
from om_agent.apply import (
    comparing,
    files,
    journal,
    puppet,
    results,
    saved_state,
    service_files,
    systemd,
    transaction,
)


@dataclasses.dataclass(frozen=True)
class Means:
    """What a run works with.

    :param puppet: None when the run does not need it.
    :param puppet_timeout: seconds.
    :param lock: descriptor of the node's lock.
    """

    manage_services: bool
    puppet: puppet.Tools | None
    puppet_timeout: float
    lock: int


def change(comparison: comparing.Comparison, means: Means) -> results.Outcome:
    """Make the changes.

    What runs gets what is new before the transaction ends, and loses what is old after it.

    :raises om_agent.errors.ApplyFailed: when something failed; everything is as it was.
    """
    root = comparison.before.root
    try:
        for one in comparison.running:
            one.set_mark()
        paths = (*comparison.replaced_paths, *comparison.edited_paths)
        begun = transaction.begin(root, paths, comparison.units)
    except OSError as e:
        raise errors.ApplyFailed(f"Nothing was changed: {files.reason(e)}.") from None
    messages: tuple[str, ...] = ()
    failures: dict[str, str] = {}
    try:
        _write_files(comparison, begun)
        for one in comparison.running:
            failures[one.unit] = one.add_new()
        for unit, stamp in comparison.stamps.items():
            if not failures[unit]:  # note, as puppet would, that it runs with its present files
                begun.write(comparison.before.stamps[unit].path, stamp)
        if means.puppet and (comparison.needs_puppet or any(failures.values())):
            begun.phase(journal.PUPPET)
            messages = puppet.run(means.puppet, root, means.puppet_timeout, means.lock)
            service_files.check_puppet_result(comparison.config_files, root)
        if comparison.hieradata_once:
            _put(begun, comparison.hieradata)
        begun.write(saved_state.PATH, saved_state.dump_state(comparison.state))
        begun.commit()
    except BaseException as e:
        if not begun.committed:
            why = f"{files.reason(e)}." if isinstance(e, OSError) else str(e)
            _take_back(comparison, means, begun, why)
            if isinstance(e, (OSError, errors.ApplyFailed)):
                raise errors.ApplyFailed(f"Everything is as it was before: {why}") from None
            raise
        # The interruption came too late: the run is complete.
    return results.Outcome(comparison.changes, messages, _remove_old(comparison, means, failures))


def _write_files(comparison: comparing.Comparison, begun: transaction.Transaction) -> None:
    for target in comparison.files_to_write:
        _put(begun, target)
    if comparison.hieradata_once:
        _put(begun, comparison.hieradata_once)
    for path in comparison.files_to_remove:
        begun.remove(path)


def _put(begun: transaction.Transaction, target: comparing.Target) -> None:
    begun.write(target.file.path, target.content, target.file.mode, target.uid, target.gid)


def _take_back(comparison: comparing.Comparison, means: Means, begun: transaction.Transaction, why: str) -> None:
    """Make what runs, and the files, what they were.

    :raises om_agent.errors.RollbackFailed: when that is not possible.
    """
    failures: dict[str, str] = {}
    with proc.uninterrupted():
        for one in comparison.running:
            failures[one.unit] = one.take_back()
        try:
            puppet_began = begun.roll_back()
        except errors.RollbackFailed as e:
            raise errors.RollbackFailed(f"Applying failed: {why or 'it was interrupted.'} {e}") from None
        for one in comparison.running:
            failures[one.unit] = failures[one.unit] or one.finish_taking_back()
        to_restart = [unit for unit, failure in failures.items() if failure]
        if puppet_began:
            as_before = {one.unit for one in comparison.running if not one.needs_restart and not failures[one.unit]}
            to_restart = [unit for unit in comparison.units if unit not in as_before]
        if (puppet_began or to_restart) and means.manage_services:
            systemd.bring_back(comparison.before.root, to_restart)


def _remove_old(comparison: comparing.Comparison, means: Means, failures: typing.Mapping[str, str]) -> tuple[str, ...]:
    """Remove from what runs what nothing uses any more. The transaction has ended, so this cannot fail it.

    :return: what went otherwise than planned.
    """
    notes: list[str] = []
    for one in comparison.running:
        with contextlib.suppress(KeyboardInterrupt), proc.uninterrupted():  # too late to interrupt: it is done
            notes += one.remove_old(failures[one.unit], means.manage_services)
    return tuple(notes)
