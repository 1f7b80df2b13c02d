"""Compare what is on disk with what should be there."""

from __future__ import annotations

import dataclasses
import pathlib
import typing

from om_agent import plan, render
from om_agent.apply import (
    files,
    live_broker,
    live_router,
    results,
    running,
    sasl_database,
    saved_state,
    service_files,
    snapshot,
)
from om_agent.plan import layout, services


@dataclasses.dataclass(frozen=True)
class Target:
    """A file of ours with its bytes and owner."""

    file: render.File
    content: bytes
    uid: int | None
    gid: int | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is on disk, compared with what should be there, and what has to be done.

    :param before: what was on disk.
    :param config_files: services' files, which puppet edits.
    :param units: those of which something may change: ours and the services'.
    :param files_to_write: files of ours to write.
    :param files_to_remove: paths of files of ours to remove.
    :param hieradata: what puppet reads from now on.
    :param hieradata_once: what puppet reads in this run instead, to stop and disable units that the node does not run
        any more, and to remove the keys of a driver that a service does not use any more.
    :param state: what the next run has to know.
    :param running: the router and the broker, if they are changed while they run.
    :param stamps: by unit that is changed without puppet, what its stamp has to hold.
    :param replaced_paths: files that a new file replaces, or that are removed.
    :param edited_paths: files that puppet edits in place.
    :param needs_saslpasswd: whether a SASL database is still to be made, which a dry comparison does not do.
    """

    before: snapshot.Snapshot
    changes: tuple[results.Change, ...]
    config_files: tuple[services.ConfigFile, ...]
    units: tuple[str, ...]
    files_to_write: tuple[Target, ...]
    files_to_remove: tuple[str, ...]
    needs_puppet: bool
    hieradata: Target
    hieradata_once: Target | None
    state: saved_state.State
    running: tuple[running.Running, ...]
    stamps: typing.Mapping[str, bytes]
    replaced_paths: tuple[str, ...]
    edited_paths: tuple[str, ...]
    needs_saslpasswd: bool


def compare(
    rendered: render.Rendered,
    host: layout.Host,
    root: pathlib.Path,
    dry: bool = False,
    live: plan.Plan | None = None,
    before: snapshot.Snapshot | None = None,
) -> Comparison:
    """Return what has to be done; write at most, at first use, this node's own random key.

    :param dry: write nothing at all and start no program: a new SASL database is then empty.
    :param live: the plan whose router and broker may be changed while they run.
    :param before: what is on disk, if it was read already.
    :raises om_agent.errors.ApplyFailed: when a SASL database is needed and cannot be made.
    """
    before = before or snapshot.take(rendered, root)
    for found in (*before.own.values(), *before.stamps.values()):
        if found.error:
            raise found.error
    compared = [
        service_files.compare(file, before.services[file.path], before.state.sections.get(file.path, ()))
        for file in rendered.config_files
    ]
    rendered = dataclasses.replace(rendered, config_files=tuple(one.file for one in compared))
    targets, users_noted = _targets(rendered, host, before, dry)
    state = _new_state(rendered, before.state, targets, users_noted, compared)
    retired = [unit for unit in before.state.units if unit not in state.units]
    if retired and not host.manage_services:  # left for a run that may stop them
        state = dataclasses.replace(state, units=(*state.units, *retired))
        retired = []
    keys = [change for one in compared for change in one.changes]
    removes_keys = bool(keys) and any(s.leaving for file in rendered.config_files for s in file.settings)
    hieradata_once = _hieradata(rendered, host, targets, retired, removes_keys) if retired or removes_keys else None
    units = _compare_units(rendered, host, targets, before, live)
    to_write = [t for t in targets if not before.own[t.file.path].has(t.content, t.file.mode, t.uid, t.gid)]
    to_remove = [path for path in before.state.files if path not in state.files and before.own[path].status]
    changes = [*_file_changes(before, to_write, to_remove), *keys]
    changes += [results.Change("reconcile", one.unit, line) for one in units.running for line in one.lines()]
    changes += [*units.restarts, *(results.Change("stop", unit) for unit in retired)]
    units_of_services = [unit for file in rendered.config_files for unit in file.units]
    return Comparison(
        before=before,
        changes=tuple(changes),
        config_files=rendered.config_files,
        units=tuple(dict.fromkeys([*(unit.name for unit in rendered.units), *units_of_services])),
        files_to_write=tuple(to_write),
        files_to_remove=tuple(to_remove),
        needs_puppet=bool(keys or units.restarts or retired),
        hieradata=targets[-1],
        hieradata_once=hieradata_once,
        state=dataclasses.replace(state, changes=len(changes) or before.state.changes),
        running=units.running,
        stamps=units.stamps,
        replaced_paths=(*(t.file.path for t in to_write), layout.HIERADATA, *to_remove, saved_state.PATH),
        edited_paths=(*before.services, *(found.path for found in before.stamps.values())),
        needs_saslpasswd=dry and any(t.file.content is None and not t.content for t in targets),
    )


def _file_changes(
    before: snapshot.Snapshot, to_write: typing.Iterable[Target], to_remove: typing.Iterable[str]
) -> typing.Iterator[results.Change]:
    for target in to_write:
        exists = before.own[target.file.path].place.exists()
        yield results.Change("change" if exists else "create", target.file.path)
    for path in to_remove:
        yield results.Change("remove", path)


# -- units of ours ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _UnitChanges:
    """What becomes of our units; see `Comparison`.

    :param restarts: the units that puppet restarts.
    """

    running: tuple[running.Running, ...]
    stamps: typing.Mapping[str, bytes]
    restarts: tuple[results.Change, ...]


def _compare_units(
    rendered: render.Rendered,
    host: layout.Host,
    targets: typing.Sequence[Target],
    before: snapshot.Snapshot,
    live: plan.Plan | None,
) -> _UnitChanges:
    """Return which units are changed while they run, and which are restarted."""
    contents = {target.file.path: target.content for target in targets}
    digests = _digests(targets)
    unit_files: dict[str, running.UnitFiles] = {}
    stale: dict[str, bytes] = {}
    for unit in rendered.units:
        present = {path: before.own[path].content for path in unit.files}
        noted, outdated = before.stamps[unit.name].content, ""
        if host.manage_services:
            outdated = running.outdated(unit, present, noted)
            stamp = render.unit_digest(unit, digests).encode() + b"\n"
            if noted != stamp:
                stale[unit.name] = stamp
        unit_files[unit.name] = running.UnitFiles(present, contents, outdated)
    decisions: dict[str, running.Decision] = {}
    if live and live.router:
        unit_name = live.router.paths.unit
        decisions[unit_name] = live_router.decide(live.router, unit_files[unit_name], before.root)
    if live and live.broker:
        control = live_broker.Control(live.broker, before.root, bool(host.prefix))
        decisions[layout.RABBIT_UNIT] = live_broker.decide(control, unit_files[layout.RABBIT_UNIT])
    changed = tuple(decision.running for decision in decisions.values() if decision.running)
    without_restart = {one.unit for one in changed if not one.needs_restart}
    reasons = {name: decision.why for name, decision in decisions.items()}
    return _UnitChanges(
        running=changed,
        stamps={name: stamp for name, stamp in stale.items() if name in without_restart},
        restarts=tuple(
            results.Change("restart", name, reasons.get(name, "")) for name in stale if name not in without_restart
        ),
    )


# -- files of ours ---------------------------------------------------------------------------------------------------


def _targets(
    rendered: render.Rendered, host: layout.Host, before: snapshot.Snapshot, dry: bool
) -> tuple[list[Target], dict[str, tuple[str, str]]]:
    """Return every file of ours with its bytes, the hieradata last; and what the state notes of SASL databases."""
    targets, users_noted = [], {}
    for file in (*rendered.files, render.hiera_config(host)):
        content = file.content
        if content is None:
            content, users_noted[file.path] = sasl_database.content_of(file, before, dry)
        targets.append(Target(file, content, host.uids.get(file.owner), host.gids.get(file.group)))
    targets.append(_hieradata(rendered, host, targets, (), False))
    return targets, users_noted


def _new_state(
    rendered: render.Rendered,
    old: saved_state.State,
    targets: typing.Sequence[Target],
    users_noted: dict[str, tuple[str, str]],
    compared: typing.Sequence[service_files.Comparison],
) -> saved_state.State:
    """Return the state after this run."""
    drivers = {file.path: file.drivers for file in rendered.config_files if file.format == services.OSLO}
    return saved_state.State(
        files=tuple(target.file.path for target in targets),
        units=tuple(unit.name for unit in rendered.units),
        sasl=users_noted,
        node=rendered.node,
        drivers={**old.drivers, **drivers},
        sections={**old.sections, **{one.file.path: one.added_sections for one in compared}},
        queue_options=rendered.queue_options,
        texts={target.file.digest: target.content.decode() for target in targets if target.file.digest},
    )


def _hieradata(
    rendered: render.Rendered,
    host: layout.Host,
    targets: typing.Sequence[Target],
    retired: typing.Iterable[str],
    removes_keys: bool,
) -> Target:
    content = render.hieradata(rendered, host, _digests(targets), retired, removes_keys)
    return _root_target(render.File(layout.HIERADATA, content, mode=0o600, secret=True), content, host)


def _root_target(file: render.File, content: bytes, host: layout.Host) -> Target:
    return Target(file, content, host.uids.get("root"), host.gids.get("root"))


def _digests(targets: typing.Iterable[Target]) -> dict[str, str]:
    return {target.file.path: files.digest(target.content) for target in targets}
