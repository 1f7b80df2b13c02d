"""Compare what is on disk with what should be there."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import typing

from om_agent import plan, render
from om_agent.apply import (
    files,
    live_broker,
    live_router,
    results,
    sasl_database,
    saved_state,
    service_files,
)
from om_agent.plan import broker, layout, router, services


@dataclasses.dataclass(frozen=True)
class Target:
    """A file of ours with its bytes and owner."""

    file: render.File
    content: bytes
    uid: int | None
    gid: int | None

    def is_on_disk(self, root: pathlib.Path) -> bool:
        """Return whether the disk has it so."""
        return files.same(files.on_disk(root, self.file.path), self.content, self.file.mode, self.uid, self.gid)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is on disk, compared with what should be there.

    :param files_to_write: files of ours to write.
    :param files_to_remove: paths of files of ours to remove.
    :param hieradata: what puppet reads from now on.
    :param hieradata_once: what it reads this once instead, to stop and disable units that the node runs no more, and to
        remove the keys of a driver that a service uses no more.
    :param state: what the next run has to know.
    :param router: what changes the router while it runs, if anything does.
    :param broker: the same of the broker.
    :param stamps: by unit of these, the path and content of what notes that it runs with its present files.
    :param new_users: whether a SASL database is still to be made, which a dry comparison does not do.
    """

    changes: tuple[results.Change, ...]
    files_to_write: tuple[Target, ...]
    files_to_remove: tuple[str, ...]
    needs_puppet: bool
    hieradata: Target
    hieradata_once: Target | None
    state: saved_state.State
    router: live_router.RouterWork | None = None
    broker: live_broker.BrokerWork | None = None
    stamps: typing.Mapping[str, tuple[str, bytes]] = dataclasses.field(default_factory=dict)
    new_users: bool = False


def replaced_paths(work: Comparison) -> list[str]:
    """Return the paths of the files that a new file replaces, or that are removed."""
    return [
        *(t.file.path for t in work.files_to_write),
        work.hieradata.file.path,
        *work.files_to_remove,
        saved_state.PATH,
    ]


def edited_paths(rendered: render.Rendered) -> list[str]:
    """Return the paths of the files that puppet edits in place."""
    return [*(c.path for c in rendered.config_files), *render.stamp_paths(rendered)]


def compare(
    rendered: render.Rendered,
    host: layout.Host,
    root: pathlib.Path,
    dry: bool = False,
    live: plan.Plan | None = None,
) -> Comparison:
    """Return what has to be done; writes at most, at first use, this node's own random key.

    :param dry: write nothing at all and start no program: a new SASL database is then empty.
    :param live: whose router and broker may be changed while they run.
    :raises om_agent.errors.ApplyFailed: when a SASL database is needed and cannot be made.
    """
    state = saved_state.load_state(root)
    rendered = dataclasses.replace(
        rendered, config_files=tuple(service_files.with_removable(c, root, state) for c in rendered.config_files)
    )
    targets, new_state = _targets(rendered, host, root, state, dry)
    to_write = [t for t in targets if not t.is_on_disk(root)]
    to_remove = [p for p in state.files if p not in new_state.files and os.path.lexists(files.on_disk(root, p))]
    keys = [c for file in rendered.config_files for c in service_files.key_changes(file, root)]
    retired = [u for u in state.units if u not in new_state.units]
    if retired and not host.manage_services:  # left for a run that may stop them
        new_state = dataclasses.replace(new_state, units=(*new_state.units, *retired))
        retired = []
    leaving = bool(keys) and any(s.leaving for file in rendered.config_files for s in file.settings)
    hieradata_once = _hieradata(rendered, host, targets, retired, leaving) if retired or leaving else None
    stamps = _stale_stamps(rendered, targets, root) if host.manage_services else {}
    verdict = live_router.Verdict()
    if live and live.router:
        verdict = _judge_router(rendered, host, targets, root, live.router)
    broker_work = _judge_broker(rendered, host, targets, root, live.broker) if live and live.broker else None
    unit = live.router.paths.unit if live and live.router else ""
    without_puppet = [unit] if verdict.work else []
    if broker_work and broker_work.needs_no_restart:
        without_puppet.append(layout.RABBIT_UNIT)
    paths = dict(zip((u.name for u in rendered.units), render.stamp_paths(rendered)))
    own_stamps = {u: (paths[u], stamps.pop(u)) for u in without_puppet if u in stamps}
    changes = [*_file_changes(root, to_write, to_remove), *keys]
    changes += _live_changes(unit, verdict.work, broker_work)
    changes += [results.Change("restart", u, verdict.why if u == unit else "") for u in stamps]
    changes += [results.Change("stop", u) for u in retired]
    needs_puppet = bool(keys or stamps or retired)
    new_state = dataclasses.replace(new_state, changes=len(changes) or state.changes)
    return Comparison(
        changes=tuple(changes),
        files_to_write=tuple(to_write),
        files_to_remove=tuple(to_remove),
        needs_puppet=needs_puppet,
        hieradata=targets[-1],
        hieradata_once=hieradata_once,
        state=new_state,
        router=verdict.work,
        broker=broker_work,
        stamps=own_stamps,
        new_users=dry and any(t.file.content is None and not t.content for t in targets),
    )


def _file_changes(
    root: pathlib.Path, to_write: typing.Iterable[Target], to_remove: typing.Iterable[str]
) -> typing.Iterator[results.Change]:
    for target in to_write:
        exists = files.on_disk(root, target.file.path).exists()
        yield results.Change("change" if exists else "create", target.file.path)
    for path in to_remove:
        yield results.Change("remove", path)


def _live_changes(
    unit: str, router_work: live_router.RouterWork | None, broker_work: live_broker.BrokerWork | None
) -> typing.Iterator[results.Change]:
    """Yield what is changed of the router, whose unit is ``unit``, and of the broker while they run."""
    for line in router_work.lines() if router_work else ():
        yield results.Change("reconcile", unit, line)
    for line in broker_work.lines() if broker_work else ():
        yield results.Change("reconcile", layout.RABBIT_UNIT, line)


def _judge_router(
    rendered: render.Rendered,
    host: layout.Host,
    targets: list[Target],
    root: pathlib.Path,
    live: router.RouterPlan,
) -> live_router.Verdict:
    """Return what becomes of the router."""
    unit, stamp = _unit(rendered, live.paths.unit)
    contents = {t.file.path: t.content for t in targets}
    return live_router.decide(live, unit, contents, root, stamp if host.manage_services else None)


def _judge_broker(
    rendered: render.Rendered,
    host: layout.Host,
    targets: list[Target],
    root: pathlib.Path,
    live: broker.BrokerPlan,
) -> live_broker.BrokerWork | None:
    """Return what is done at the running broker."""
    unit, stamp = _unit(rendered, layout.RABBIT_UNIT)
    if host.manage_services and files.read(files.on_disk(root, stamp)) is None:
        return None  # not started yet
    present = {path: files.read(files.on_disk(root, path)) for path in unit.files}
    outdated = bool(live_router.outdated(unit, present, root, stamp if host.manage_services else None))
    control = live_broker.Control(live, root, bool(host.prefix))
    return live_broker.needed_work(control, present, {t.file.path: t.content for t in targets}, outdated)


def _unit(rendered: render.Rendered, name: str) -> tuple[render.Unit, str]:
    """Return a unit of ours, and where its stamp is."""
    return next((u, s) for u, s in zip(rendered.units, render.stamp_paths(rendered)) if u.name == name)


def _targets(
    rendered: render.Rendered, host: layout.Host, root: pathlib.Path, state: saved_state.State, dry: bool
) -> tuple[list[Target], saved_state.State]:
    """Return every file of ours with its bytes, the hieradata last, and the state that having them all makes."""
    targets, sasl = [], {}
    for file in (*rendered.files, render.hiera_config(host)):
        content = file.content
        if content is None:
            content, sasl[file.path] = sasl_database.content_of(file, root, state, dry)
        targets.append(Target(file, content, host.uids.get(file.owner), host.gids.get(file.group)))
    targets.append(_hieradata(rendered, host, targets, ()))
    paths, units = tuple(t.file.path for t in targets), tuple(u.name for u in rendered.units)
    drivers = {**state.drivers, **{c.path: c.drivers for c in rendered.config_files if c.format == services.OSLO}}
    sections = {**state.sections, **{c.path: service_files.added_sections(c, root) for c in rendered.config_files}}
    new = saved_state.State(paths, units, sasl, node=rendered.node, drivers=drivers, sections=sections)
    texts = {t.file.digest: t.content.decode() for t in targets if t.file.digest}
    return targets, dataclasses.replace(new, queue_options=rendered.queue_options, texts=texts)


def _hieradata(
    rendered: render.Rendered,
    host: layout.Host,
    targets: list[Target],
    retired: typing.Iterable[str],
    leaving: bool = False,
) -> Target:
    content = render.hieradata(rendered, host, _digests(targets), retired, leaving)
    file = render.File(layout.HIERADATA, content, mode=0o600, secret=True)
    return Target(file, content, host.uids.get("root"), host.gids.get("root"))


def _digests(targets: typing.Iterable[Target]) -> dict[str, str]:
    return {t.file.path: files.digest(t.content) for t in targets}


def _stale_stamps(rendered: render.Rendered, targets: list[Target], root: pathlib.Path) -> dict[str, bytes]:
    """Return the units of ours that were not yet restarted with the present files, each with its stamp as it should
    be."""
    digests = _digests(targets)
    stamps = {u.name: render.unit_digest(u, digests).encode() + b"\n" for u in rendered.units}
    found = {u.name: files.read(files.on_disk(root, p)) for u, p in zip(rendered.units, render.stamp_paths(rendered))}
    return {name: stamp for name, stamp in stamps.items() if found[name] != stamp}
