"""Making the node so: compare, write, run puppet, look again; all of it or nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import pathlib
import typing

from om_agent import certs, errors, ini, kinds, model, plan, proc, render, sources
from om_agent.apply import files, live_broker, live_router, puppet
from om_agent.plan import broker, layout, router, services

_READERS = {services.OSLO: "oslo.config", services.PASTE: "PasteDeploy"}
_STATE = f"{layout.STATE_DIR}/state.json"
_SASL_TIMEOUT = 30.0  # seconds for saslpasswd2 to add one user; it takes some 10 ms
_RESTART_TIMEOUT = 30.0  # seconds for systemctl to queue a start or restart


@dataclasses.dataclass(frozen=True)
class Change:
    """One thing that is not as it should be.

    :param action: ``create``, ``change`` or ``remove`` a file or key, ``restart``, ``reconcile`` (change it while it
        runs) or ``stop`` a unit.
    :param path: of the file, or the name of the unit.
    :param detail: which key; why a unit is restarted; what of it is changed.
    :param old: a key's present value, which may hold a password, as may ``new``: for `om_agent.report` to mask.
    """

    action: str
    path: str
    detail: str = ""
    old: str = dataclasses.field(default="", repr=False)
    new: str = dataclasses.field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.action} {self.path}{': ' if self.detail else ''}{self.detail}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What apply did.

    :param changes: empty when the node was right already.
    :param puppet: what puppet says it did.
    :param notes: what turned out otherwise than planned, a sentence each.
    """

    changes: tuple[Change, ...]
    puppet: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Target:
    """A file of ours with its bytes and owner."""

    file: render.File
    content: bytes
    uid: int | None
    gid: int | None

    def right(self, root: pathlib.Path) -> bool:
        """Return whether the disk has it so."""
        return files.same(files.on_disk(root, self.file.path), self.content, self.file.mode, self.uid, self.gid)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is on disk beside what should be.

    :param wrong: files of ours to write.
    :param gone: paths of files of ours to remove.
    :param hieradata: what puppet reads from now on.
    :param farewell: what it reads this once instead, to stop and disable units that the node runs no more, and to
        remove the keys of a driver that a service uses no more.
    :param state: what the next run has to know.
    :param live: a router that is changed while it runs.
    :param broker: a broker that is.
    :param stamps: by unit of these, the path and content of what notes that it runs with its present files.
    :param new_users: whether a SASL database is still to be made, which a dry comparison does not do.
    """

    changes: tuple[Change, ...]
    wrong: tuple[Target, ...]
    gone: tuple[str, ...]
    needs_puppet: bool
    hieradata: Target
    farewell: Target | None
    state: files.State
    live: live_router.Work | None = None
    broker: live_broker.Work | None = None
    stamps: typing.Mapping[str, tuple[str, bytes]] = dataclasses.field(default_factory=dict)
    new_users: bool = False


def recover(root: pathlib.Path, manage_services: bool) -> bool:
    """End what an interrupted run left behind; return whether there was anything.

    The caller holds the lock.
    """
    units = files.recover(root)
    if units and manage_services:
        _bring_back(root, units)
    return units is not None


def apply(
    rendered: render.Rendered,
    host: layout.Host,
    root: pathlib.Path,
    puppet_timeout: float,
    lock: int,
    live: plan.Plan | None = None,
) -> Outcome:
    """Make the node so. The caller holds the lock, whose descriptor is ``lock``, and has called `recover`.

    :param puppet_timeout: seconds.
    :param live: whose router and broker may be changed while they run.
    :raises om_agent.errors.NotReady: when something is missing; nothing was touched.
    :raises om_agent.errors.ApplyFailed: when something failed; everything is as it was.
    """
    check(rendered, host, root)
    work = compare(rendered, host, root, live=live)
    outcome = Outcome(work.changes)
    if work.changes:
        check_writable(rendered, root, work)
        tools = _tools(host, work)
        outcome = _carry_out(rendered, host, root, puppet_timeout, lock, tools, work)
    elif files.load_state(root) != work.state:  # lost, or of a run without services
        files.write(files.on_disk(root, _STATE), files.dump_state(work.state), 0o600)
    if host.manage_services:
        _queue("start", (u.name for u in rendered.units))  # puppet enables router and broker, and restarts them
    return outcome


def _tools(host: layout.Host, work: Comparison) -> puppet.Tools | None:
    """Return what ``work`` needs of puppet, if anything.

    :raises om_agent.errors.NotReady: when it is not installed.
    """
    # For a router or broker that cannot be changed after all, puppet must be there to restart it.
    needs = work.needs_puppet or ((work.live or work.broker) and host.manage_services)
    return puppet.find_tools(puppet.module_directories()) if needs and work.changes else None


def refusals(
    rendered: render.Rendered, host: layout.Host, root: pathlib.Path, work: Comparison
) -> tuple[errors.Problem, ...]:
    """Return everything because of which `apply` would not begin, where ``work`` is of a dry comparison."""
    found: list[errors.Problem] = []
    for look in (
        lambda: check(rendered, host, root),
        lambda: _find_saslpasswd() if work.new_users else None,
        lambda: check_writable(rendered, root, work),
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
    work: Comparison,
) -> Outcome:
    """Do the work inside one transaction; what runs gets what is new before it ends, and loses what is old after."""
    units = [*(u.name for u in rendered.units), *(u for c in rendered.config_files for u in c.units)]
    try:
        if work.live:
            live_router.set_mark(root, work.live)
        if work.broker:
            live_broker.set_mark(work.broker)
        transaction = files.begin(root, [*_replaced(work), *_edited(rendered)], dict.fromkeys(units))
    except OSError as e:
        raise errors.ApplyFailed(f"Nothing was changed: {reason(e)}.") from None
    said: tuple[str, ...] = ()
    trouble: dict[str, str] = {}
    try:
        for target in work.wrong:
            transaction.put(target.file, target.content, target.uid, target.gid)
        if work.farewell:
            transaction.put(work.farewell.file, work.farewell.content, work.farewell.uid, work.farewell.gid)
        for path in work.gone:
            transaction.remove(path)
        trouble = _grow(work)
        _stamp(root, (stamp for unit, stamp in work.stamps.items() if not trouble[unit]))
        if tools and (work.needs_puppet or any(trouble.values())):
            transaction.phase(files.PUPPET)
            said = puppet.run(tools, root, puppet_timeout, lock)
            _look_again(rendered, root)
        if work.farewell:
            transaction.put(work.hieradata.file, work.hieradata.content, work.hieradata.uid, work.hieradata.gid)
        files.write(files.on_disk(root, _STATE), files.dump_state(work.state), 0o600)
        transaction.commit()
    except BaseException as e:
        if transaction.committed:  # interrupted too late: it is done
            return Outcome(work.changes, said, _finish(work, trouble, host, root))
        why = f"{reason(e)}." if isinstance(e, OSError) else str(e)
        _give_up(work, root, host, transaction, units, why)
        if isinstance(e, (OSError, errors.ApplyFailed)):
            raise errors.ApplyFailed(f"Everything is as it was before: {why}") from None
        raise
    return Outcome(work.changes, said, _finish(work, trouble, host, root))


def _replaced(work: Comparison) -> list[str]:
    """Return the paths of the files that a new file replaces, or that are removed."""
    return [*(t.file.path for t in work.wrong), work.hieradata.file.path, *work.gone, _STATE]


def _edited(rendered: render.Rendered) -> list[str]:
    """Return the paths of the files that puppet edits in place."""
    return [*(c.path for c in rendered.config_files), *render.stamp_paths(rendered)]


def _grow(work: Comparison) -> dict[str, str]:
    """Make what is new in what runs; return, by unit, why only a restart can bring it."""
    trouble = {work.live.plan.paths.unit: live_router.grow(work.live)} if work.live else {}
    return {**trouble, **({layout.RABBIT_UNIT: live_broker.grow(work.broker)} if work.broker else {})}


def _stamp(root: pathlib.Path, stamps: typing.Iterable[tuple[str, bytes]]) -> None:
    """Note, as puppet would, that units run with their present files."""
    for path, content in stamps:
        files.write(files.on_disk(root, path), content, 0o600)


def _give_up(
    work: Comparison,
    root: pathlib.Path,
    host: layout.Host,
    transaction: files.Transaction,
    units: typing.Sequence[str],
    why: str,
) -> None:
    """Make what runs and the files what they were."""
    with proc.uninterrupted():
        left = live_router.take_back(work.live) if work.live else ""
        stuck = live_broker.take_back(work.broker) if work.broker else ""
        try:
            began = transaction.roll_back()
        except errors.RollbackFailed as r:
            raise errors.RollbackFailed(f"Applying failed: {why or 'it was interrupted.'} {r}") from None
        if work.live and not left and work.live.certificates:
            left = live_router.reload(work.live)
        if work.broker and not stuck and work.broker.certificate is not None:
            stuck = live_broker.reload(work.broker)
        if work.live and not left:
            live_router.clear_mark(root)
            units = [u for u in units if u != work.live.plan.paths.unit]  # it runs with the old files already
        if work.broker and work.broker.alone and not stuck:
            units = [u for u in units if u != layout.RABBIT_UNIT]
        if (began or left or stuck) and host.manage_services:
            wrong = [work.live.plan.paths.unit] if work.live and left else []
            _bring_back(root, units if began else [*wrong, *([layout.RABBIT_UNIT] if stuck else [])])


def _finish(
    work: Comparison, trouble: typing.Mapping[str, str], host: layout.Host, root: pathlib.Path
) -> tuple[str, ...]:
    """Take from what runs what nothing uses any more; return what turned out otherwise than planned."""
    notes = _shrink(work.live, trouble[work.live.plan.paths.unit], host, root) if work.live else ()
    return (*notes, *(_shrink_broker(work.broker, trouble[layout.RABBIT_UNIT], host) if work.broker else ()))


def _shrink_broker(work: live_broker.Work, trouble: str, host: layout.Host) -> list[str]:
    notes, left, unit = [], "", layout.RABBIT_UNIT
    with contextlib.suppress(KeyboardInterrupt), proc.uninterrupted():  # too late to interrupt: it is done
        left = live_broker.finish(work)
    if trouble and work.alone:
        done = f"{unit} is restarted instead" if host.manage_services else f"Its next start has it: restart {unit}"
        notes.append(f"The running broker could not be changed: {trouble}. {done}.")
    if left:
        names = ", ".join(map(live_broker.called, work.remove))
        notes.append(f"The broker still has {names}: {left}. Run om-agent apply again when it runs.")
    if work.staying:
        names = ", ".join(map(live_broker.called, work.staying))
        notes.append(
            f"The broker still has {names}, since services of other nodes may log in so. "
            "Run rabbitmqctl delete_user when none does."
        )
    return notes


def _shrink(live: live_router.Work, trouble: str, host: layout.Host, root: pathlib.Path) -> tuple[str, ...]:
    """Take from a running router what nothing uses any more; the transaction is over, so that this cannot fail it.

    :return: what turned out otherwise than planned.
    """
    unit, grown = live.plan.paths.unit, not trouble
    with contextlib.suppress(KeyboardInterrupt), proc.uninterrupted():  # too late to interrupt: it is done
        trouble = trouble or live_router.shrink(live)
        if trouble and grown and host.manage_services:
            _queue("restart", [unit])
        if not trouble or (host.manage_services and not grown):
            live_router.clear_mark(root)
    if not trouble:
        return ()
    done = f"{unit} is restarted instead" if host.manage_services else f"Restart {unit}"
    return (f"The running router could not be changed: {trouble}. {done}.",)


def reason(e: OSError) -> str:
    """Return a sentence for an error of the operating system."""
    name = e.filename2 or e.filename  # of a renaming, where to: what is to be fixed is there
    if files.full_disk(e):
        return f"the disk is full ({name or 'writing a file'}); free some space and run again"
    if errors.limit(e.errno):
        return f"{name or 'a file'} cannot be used: {errors.limit(e.errno)}; then run again"
    return f"{name or 'a file'} cannot be used ({e.strerror}); fix this and run om-agent again"


def _bring_back(root: pathlib.Path, units: typing.Iterable[str]) -> None:
    """Have units run with the configuration that was put back: restart those that run, start ours that were stopped."""
    _queue("try-restart", units)
    _queue("start", files.load_state(root).units)


def _queue(verb: str, units: typing.Iterable[str]) -> None:
    """Ask systemd for something. Never waits for it, since a unit may itself be waiting for this run."""
    systemctl = proc.find("systemctl")
    names = list(dict.fromkeys(units))
    if systemctl and names:
        with contextlib.suppress(errors.ProcessFailed):  # what went wrong before is what has to be told
            proc.run([systemctl, verb, "--no-block", *names], _RESTART_TIMEOUT)


# -- comparing -------------------------------------------------------------------------------------------------------


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
    state = files.load_state(root)
    rendered = dataclasses.replace(
        rendered, config_files=tuple(_with_removable(c, root, state) for c in rendered.config_files)
    )
    targets, new_state = _targets(rendered, host, root, state, dry)
    wrong = [t for t in targets if not t.right(root)]
    gone = [p for p in state.files if p not in new_state.files and os.path.lexists(files.on_disk(root, p))]
    keys = [c for file in rendered.config_files for c in key_changes(file, root)]
    retired = [u for u in state.units if u not in new_state.units]
    if retired and not host.manage_services:  # left for a run that may stop them
        new_state = dataclasses.replace(new_state, units=(*new_state.units, *retired))
        retired = []
    leaving = bool(keys) and any(s.leaving for file in rendered.config_files for s in file.settings)
    farewell = _hieradata(rendered, host, targets, retired, leaving) if retired or leaving else None
    stamps = _stale_stamps(rendered, targets, root) if host.manage_services else {}
    verdict = live_router.Verdict()
    if live and live.router:
        verdict = _judge_router(rendered, host, targets, root, live.router)
    asked = _judge_broker(rendered, host, targets, root, live.broker) if live and live.broker else None
    unit = live.router.paths.unit if live and live.router else ""
    alone = [*([unit] if verdict.work else []), *([layout.RABBIT_UNIT] if asked and asked.alone else [])]
    paths = dict(zip((u.name for u in rendered.units), render.stamp_paths(rendered)))
    own = {u: (paths[u], stamps.pop(u)) for u in alone if u in stamps}
    changes = [Change("change" if files.on_disk(root, t.file.path).exists() else "create", t.file.path) for t in wrong]
    changes += [*(Change("remove", p) for p in gone), *keys]
    if verdict.work:
        changes += [Change("reconcile", unit, line) for line in verdict.work.told()]
    if asked:
        changes += [Change("reconcile", layout.RABBIT_UNIT, line) for line in asked.told()]
    why = {unit: verdict.why}
    changes += [*(Change("restart", u, why.get(u, "")) for u in stamps), *(Change("stop", u) for u in retired)]
    needs_puppet = bool(keys or stamps or retired)
    new_state = dataclasses.replace(new_state, changes=len(changes) or state.changes)
    return Comparison(
        changes=tuple(changes),
        wrong=tuple(wrong),
        gone=tuple(gone),
        needs_puppet=needs_puppet,
        hieradata=targets[-1],
        farewell=farewell,
        state=new_state,
        live=verdict.work,
        broker=asked,
        stamps=own,
        new_users=dry and any(t.file.content is None and not t.content for t in targets),
    )


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
) -> live_broker.Work | None:
    """Return what is done at the running broker."""
    unit, stamp = _unit(rendered, layout.RABBIT_UNIT)
    if host.manage_services and files.read(files.on_disk(root, stamp)) is None:
        return None  # not started yet
    present = {path: files.read(files.on_disk(root, path)) for path in unit.files}
    outdated = bool(live_router.outdated(unit, present, root, stamp if host.manage_services else None))
    door = live_broker.Door(live, root, bool(host.prefix))
    return live_broker.decide(door, present, {t.file.path: t.content for t in targets}, outdated)


def _unit(rendered: render.Rendered, name: str) -> tuple[render.Unit, str]:
    """Return a unit of ours, and where its stamp is."""
    return next((u, s) for u, s in zip(rendered.units, render.stamp_paths(rendered)) if u.name == name)


def _targets(
    rendered: render.Rendered, host: layout.Host, root: pathlib.Path, state: files.State, dry: bool
) -> tuple[list[Target], files.State]:
    """Return every file of ours with its bytes, the hieradata last, and the state that having them all makes."""
    targets, sasl = [], {}
    for file in rendered.files:
        content = file.content
        if content is None:
            content, sasl[file.path] = _sasl_database(file, root, state, dry)
        targets.append(Target(file, content, host.uids.get(file.owner), host.gids.get(file.group)))
    root_ids = host.uids.get("root"), host.gids.get("root")
    hiera_config = render.hiera_config(host)
    targets.append(Target(render.File(layout.HIERA_CONFIG, hiera_config, mode=0o600), hiera_config, *root_ids))
    targets.append(_hieradata(rendered, host, targets, ()))
    paths, units = tuple(t.file.path for t in targets), tuple(u.name for u in rendered.units)
    drivers = {**state.drivers, **{c.path: c.drivers for c in rendered.config_files if c.format == services.OSLO}}
    sections = {**state.sections, **{c.path: _added_sections(c, root) for c in rendered.config_files}}
    new = files.State(paths, units, sasl, node=rendered.node, drivers=drivers, sections=sections)
    return targets, dataclasses.replace(new, queue_options=rendered.queue_options)


def _with_removable(file: services.ConfigFile, root: pathlib.Path, state: files.State) -> services.ConfigFile:
    """Return ``file`` with the sections that the agent added to it, or adds in this run.

    Any other section is the operator's, and its header stays, with or without keys below it.
    """
    if file.format != services.OSLO:
        return file  # no section is ever added to it
    present = ini.section_names(_text_of(file, root))
    wanted = frozenset(ini.section_name(s.section) for s in file.settings)
    added = present.intersection(state.sections.get(file.path, ()))
    return dataclasses.replace(file, removable=(wanted - present) | added)


def _added_sections(file: services.ConfigFile, root: pathlib.Path) -> tuple[str, ...]:
    """Return the sections of the agent's own that ``file`` has after this run."""
    text = _text_of(file, root)
    if key_changes(file, root):
        text = ini.edit(text, _wanted(file), file.format, file.removable)
    return tuple(sorted(ini.section_names(text, file.format) & file.removable))


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


def _sasl_database(
    file: render.File, root: pathlib.Path, state: files.State, dry: bool
) -> tuple[bytes, tuple[str, str]]:
    """Return a SASL database's bytes: those on disk while they are ours and say the same, else new ones."""
    fingerprint = render.fingerprint(file.users, files.load_key(root, make=not dry))
    present = files.read(files.on_disk(root, file.path))
    if present is not None and state.sasl.get(file.path) == (fingerprint, files.digest(present)):
        return present, (fingerprint, files.digest(present))
    content = b"" if dry else make_sasl_database(file.users, files.sasl_dir(root))
    return content, (fingerprint, files.digest(content))


def make_sasl_database(users: typing.Sequence[router.SaslUser], directory: pathlib.Path) -> bytes:
    """Return a new SASL database; passwords go to saslpasswd2 through its standard input.

    :param directory: where to make it, for as long as that takes.
    :raises om_agent.errors.NotReady: when saslpasswd2 is not installed.
    :raises om_agent.errors.ApplyFailed: when it fails.
    """
    tool = _find_saslpasswd()
    database = directory / "users"
    _discard(database)
    try:
        directory.mkdir(0o700)
        content = _add_users(tool, users, database)
    except BaseException as e:
        with proc.uninterrupted():
            try:
                _discard(database)
            except errors.ApplyFailed as left:
                raise errors.ApplyFailed(f"{e} {left}" if isinstance(e, errors.AgentError) else str(left)) from None
        raise
    with proc.uninterrupted():
        _discard(database)
    return content


def _find_saslpasswd() -> str:
    tool = proc.find("saslpasswd2", ("/usr/sbin",))
    if not tool:
        raise errors.NotReady([kinds.problem("saslpasswd2", "no-saslpasswd")])
    return tool


def _discard(database: pathlib.Path) -> None:
    """Remove a SASL database with its directory.

    :raises om_agent.errors.ApplyFailed: when that is not possible.
    """
    with contextlib.suppress(OSError):  # first, since the rest needs descriptors, and there may be none
        database.unlink()
    files.remove_directory(database.parent)


def _add_users(tool: str, users: typing.Sequence[router.SaslUser], path: pathlib.Path) -> bytes:
    for user in users:
        command = [tool, "-c", "-p", "-f", str(path), "-u", user.realm, "--", user.name]
        result = proc.run(command, _SASL_TIMEOUT, stdin=user.password.reveal().encode())
        if result.returncode != 0 or not path.exists():
            raise errors.ApplyFailed(
                f"saslpasswd2 could not add the user {errors.quoted(user.name)} (exit code {result.returncode}). "
                "See that the disk is not full and that Cyrus SASL has its sasldb plugin (Debian: libsasl2-modules-db)."
            )
    return path.read_bytes()


def _stale_stamps(rendered: render.Rendered, targets: list[Target], root: pathlib.Path) -> dict[str, bytes]:
    """Return the units of ours that were not yet restarted with the present files, each with its stamp as it should
    be."""
    digests = _digests(targets)
    stamps = {u.name: render.unit_digest(u, digests).encode() + b"\n" for u in rendered.units}
    found = {u.name: files.read(files.on_disk(root, p)) for u, p in zip(rendered.units, render.stamp_paths(rendered))}
    return {name: stamp for name, stamp in stamps.items() if found[name] != stamp}


def _text_of(file: services.ConfigFile, root: pathlib.Path) -> str:
    return (files.read(files.on_disk(root, file.path)) or b"").decode(errors="surrogateescape")


def _wanted(file: services.ConfigFile) -> list[tuple[str, str, str | None]]:
    """Return each (section, key, value); None when the key must be absent."""
    return [(s.section, s.key, s.value.reveal() if s.value else None) for s in file.settings]


def key_changes(file: services.ConfigFile, root: pathlib.Path) -> list[Change]:
    """Return what puppet has to do to one service's file; the values themselves are not in it."""
    path = files.on_disk(root, file.path)
    content = files.read(path)
    keys = ini.read((content or b"").decode(errors="surrogateescape"), file.format)
    changes = []
    for section, key, value in _wanted(file):
        if not ini.holds(keys, section, key, value, file.format):
            found = keys.get((ini.section_name(section, file.format), key), [])
            old = [f"{v.text} ..." if v.continued else v.text for v in found]
            action = "remove" if value is None else "change" if old else "create"
            changes.append(Change(action, file.path, f"[{section}] {key}", "; ".join(old), value or ""))
    if content is not None and path.lstat().st_mode & 0o7777 != file.mode:
        changes.append(Change("change", file.path, f"mode 0{file.mode:o}"))
    return changes


def _look_again(rendered: render.Rendered, root: pathlib.Path) -> None:
    """Fail when puppet says that all is well and a file says otherwise."""
    left = [str(c) for file in rendered.config_files for c in key_changes(file, root)]
    if left:
        raise errors.ApplyFailed(
            f"puppet reported success, but this is still to do: {'; '.join(left[:5])}. "
            "Another program may be editing the same files: stop it and run again."
        )


def check(rendered: render.Rendered, host: layout.Host, root: pathlib.Path) -> None:
    """Fail before anything is written when the node lacks something.

    :raises om_agent.errors.NotReady: with every problem.
    """
    problems = []
    for path in dict.fromkeys(r.path for r in rendered.requires):
        disk = path if host.prefix else str(files.on_disk(root, path))
        if not os.path.isfile(disk):
            asked = [r for r in rendered.requires if r.path == path]
            what = " and ".join(r.what for r in asked)
            problems.append(kinds.problem(disk, "missing-file", what=what, key=asked[0].key))
    lacking = {f.owner for f in rendered.files} - host.uids.keys() | {
        f.group for f in rendered.files
    } - host.gids.keys()
    for name in sorted(lacking):
        if not host.target:
            problems.append(kinds.problem("/etc/passwd", "no-user", name=name, what="router or broker"))
    for file in rendered.config_files:
        problems += _check_editable(file, root)
        problems += _misfits_elsewhere(file, root)
    problems += _check_certificates(rendered, host, root)
    ours = [*(f.path for f in rendered.files), layout.HIERA_CONFIG, layout.HIERADATA, _STATE]
    problems += files.hazards(root, [*ours, *(c.path for c in rendered.config_files)])
    if problems:
        raise errors.NotReady(tuple(dict.fromkeys(problems)))


def check_writable(rendered: render.Rendered, root: pathlib.Path, work: Comparison) -> None:
    """Fail before anything is written when the system keeps even root from changing a file.

    :raises om_agent.errors.NotReady: with every problem.
    """
    problems = files.obstacles(root, _replaced(work), _edited(rendered)) if work.changes else []
    if problems:
        raise errors.NotReady(problems)


def _check_certificates(rendered: render.Rendered, host: layout.Host, root: pathlib.Path) -> list[errors.Problem]:
    """Look at what servers are given, text or files; a file that is not there has been told of."""
    now = datetime.datetime.now(datetime.timezone.utc)
    found: list[errors.Problem] = []
    for server in rendered.servers:
        texts = []
        for part in (server.ca, server.certificate, server.key):
            disk = pathlib.Path(part.path) if host.prefix else files.on_disk(root, part.path)
            content = files.read(disk) if part.path else None
            texts.append((content or b"").decode(errors="replace") if part.path else part.text.reveal())
        found += certs.check(certs.Shown(server, texts[0], texts[1], model.Secret(texts[2])), now)
    return list(dict.fromkeys(found))


def _check_editable(file: services.ConfigFile, root: pathlib.Path) -> list[errors.Problem]:
    path = files.on_disk(root, file.path)
    if not os.path.lexists(path):
        return []
    if path.is_symlink() or not path.is_file():
        found = "a symbolic link" if path.is_symlink() else "a directory or device"
        return [kinds.problem(str(path), "not-a-file", found=found)]
    if path.stat().st_nlink > 1:
        return [kinds.problem(str(path), "hard-link", count=path.stat().st_nlink)]
    if not os.access(path, os.R_OK | os.W_OK):
        return [kinds.problem(str(path), "read-only")]
    return _check_text(file, path, _text_of(file, root))


def misfits(file: services.ConfigFile, path: pathlib.Path, keys: ini.Keys) -> list[errors.Problem]:
    """Return keys of the operator's own with which no message of the service passes the router."""
    found = []
    for key, good in file.fitting.items():
        values = keys.get((services.DRIVERS[model.Scheme.AMQP], key), [])
        if values and (values[-1].continued or values[-1].text.lower() not in good):
            said = f"[{services.DRIVERS[model.Scheme.AMQP]}] {key}"
            where = f"{path}:{values[-1].line}"
            found.append(kinds.problem(where, "address-misfit", key=said, service=file.service, wanted=good[0]))
    return found


def _misfits_elsewhere(file: services.ConfigFile, root: pathlib.Path) -> list[errors.Problem]:
    """Return `misfits` of what the service reads and takes instead of its own file."""
    if not file.fitting:
        return []
    found: list[errors.Problem] = []
    for source, keys in other_settings(file, root):
        if source.after:
            found += misfits(file, files.on_disk(root, source.path), keys)
    return found


def other_settings(file: services.ConfigFile, root: pathlib.Path) -> list[tuple[sources.Source, ini.Keys]]:
    """Return the other files that a service reads and the environment of its units, each with the keys that it sets."""
    found: list[tuple[sources.Source, ini.Keys]] = []
    for source in sources.other_files(file.path, file.units, root):
        found.append((source, keys_of(source.path, root)))
    for variable in sources.variables(file.units, root):
        value = ini.Value(variable.value, False, variable.line)
        source = sources.Source(variable.path, variable.unit, True)
        found.append((source, {(variable.section, variable.key): [value]}))
    return found


def overrides(rendered: render.Rendered, host: layout.Host, root: pathlib.Path) -> tuple[errors.Problem, ...]:
    """Return the lines of services' files, and of other files that services read, that count instead of ours, or with
    which ours do not work."""
    found = list(_own_transports_of_paste(rendered, host, root))
    for file in rendered.config_files:
        if file.format != services.OSLO:
            continue
        found += _rejected(file, root)
        found += _own_transports(file, file.path, keys_of(file.path, root), root)
        found += _threads(file, root)
        found += _elsewhere(file, rendered, root)
        for source, keys in other_settings(file, root):
            for s in file.settings:
                values = keys.get((ini.section_name(s.section), s.key), [])
                ours = s.value.reveal() if s.value else None
                adds = any(name in services.ADDED_UP for name in ((s.section, s.key), *_newer_name(s)))
                counts = source.after or adds or ours is None
                if values and counts and (adds or [v.text for v in values][-1] != ours):
                    where = f"{files.on_disk(root, source.path)}:{values[-1].line}"
                    told = {"key": f"[{s.section}] {s.key}", "unit": source.unit, "own": file.path}
                    found.append(kinds.problem(where, "overridden", **told))
            found += _own_transports(file, source.path, keys, root)
    return tuple(dict.fromkeys(found))


def _elsewhere(
    file: services.ConfigFile, rendered: render.Rendered, root: pathlib.Path
) -> typing.Iterator[errors.Problem]:
    """Yield where the environment of a unit names other files than the service's own, so that it reads none of them."""
    own = [f.path for f in rendered.config_files if f.service == file.service and f.format == services.OSLO]
    for one in sources.elsewhere(own, file.units, root):
        where = f"{files.on_disk(root, one.path)}:{one.line}"
        yield kinds.problem(where, "unread", unit=one.unit, own=file.path, variable=one.name)


def _threads(file: services.ConfigFile, root: pathlib.Path) -> typing.Iterator[errors.Problem]:
    """Yield the APIs of a service with RPC over a router whose threads eventlet and uWSGI both make."""
    group = services.DRIVERS[model.Scheme.AMQP]
    if not any(s.section == group and s.value for s in file.settings):
        return
    for unit in services.PATCHED_APIS.get(file.service, ()):
        for one in sources.threads([unit], root):
            where = f"{files.on_disk(root, one.path)}:{one.line}"
            yield kinds.problem(where, "uwsgi-threads", unit=unit, count=one.threads)


def _newer_name(setting: services.Setting) -> list[tuple[str, str]]:
    """Return the present name of a key, when ``setting`` is about one of its older names."""
    return [new for new, old in services.OLDER_NAMES.items() if (setting.section, setting.key) in old]


def _own_transports(file: services.ConfigFile, path: str, keys: ini.Keys, root: pathlib.Path) -> list[errors.Problem]:
    names = (*services.OWN_TRANSPORTS.get(file.service, ()), services.OWN_TRANSPORT_OF_ANY)
    found = [(name, keys[name][-1]) for name in names if name in keys]
    return [
        kinds.problem(
            f"{files.on_disk(root, path)}:{value.line}",
            "own-transport",
            key=f"[{name[0]}] {name[1]}",
            name=file.service,
        )
        for name, value in found
    ]


def _own_transports_of_paste(
    rendered: render.Rendered, host: layout.Host, root: pathlib.Path
) -> typing.Iterator[errors.Problem]:
    """Yield the URLs of middleware in services' paste files, but for those that are ours."""
    of_oslo = [file for file in rendered.config_files if file.format == services.OSLO]
    paths = {path: file.service for file in of_oslo for path in _beside(file, root)}
    paths.update({files.on_disk(root, path): path.split("/")[2] for path, _ in sorted(host.paste_sections)})
    ours = {
        (files.on_disk(root, file.path), ini.section_name(s.section, ini.PASTE), s.key)
        for file in rendered.config_files
        for s in file.settings
    }
    for path, name in paths.items():
        with contextlib.suppress(OSError):
            keys = ini.read((files.read(path) or b"").decode(errors="replace"), ini.PASTE)
            for (section, key), values in keys.items():
                known = key.removeprefix("set ").strip() in services.OWN_TRANSPORTS_OF_PASTE
                foreign = known and (path, section, key) not in ours
                if foreign and services.TRANSPORT_URL.fullmatch(values[-1].text):
                    where = f"{path}:{values[-1].line}"
                    yield kinds.problem(where, "own-transport", key=f"[{section}] {key}", name=name)


def _beside(file: services.ConfigFile, root: pathlib.Path) -> list[pathlib.Path]:
    """Return the paste files in the directory of a service's file."""
    return sorted(files.on_disk(root, file.path).parent.glob("*paste*.ini"))


def _rejected(file: services.ConfigFile, root: pathlib.Path) -> typing.Iterator[errors.Problem]:
    """Yield what oslo.config rejects in the other files that a service reads, where none of their keys can be seen."""
    for source in sources.other_files(file.path, file.units, root):
        path = files.on_disk(root, source.path)
        with contextlib.suppress(OSError):
            fault = ini.fault((files.read(path) or b"").decode(errors="surrogateescape"))
            if fault:
                told = {"reader": _READERS[services.OSLO], "why": fault.why}
                yield kinds.warning(f"{path}:{fault.line}", "rejected-line", **told)


def keys_of(path: str, root: pathlib.Path) -> ini.Keys:
    """Return the keys of a file that oslo.config reads; none when it cannot be read."""
    try:
        return ini.read((files.read(files.on_disk(root, path)) or b"").decode(errors="surrogateescape"))
    except OSError:
        return {}


def look_for_misfits(rendered: render.Rendered, root: pathlib.Path) -> tuple[errors.Problem, ...]:
    """Return `misfits` of every service's file as it is on disk, and of the files that it reads after that."""
    found: list[errors.Problem] = []
    for file in rendered.config_files:
        path = files.on_disk(root, file.path)
        found += misfits(file, path, ini.read(_text_of(file, root), file.format))
        found += _misfits_elsewhere(file, root)
    return tuple(dict.fromkeys(found))


def _check_text(file: services.ConfigFile, path: pathlib.Path, text: str) -> list[errors.Problem]:
    """Refuse what the file's own reader rejects, and an edit after which it would not read what is wanted."""
    reader = _READERS[file.format]
    fault = ini.fault(text, file.format)
    if fault:
        return [kinds.problem(f"{path}:{fault.line}", "rejected-line", reader=reader, why=fault.why)]
    keys = ini.read(text, file.format)
    for s in file.settings if file.format == services.PASTE else ():
        # PasteDeploy passes over a key of a section that is in DEFAULT too, and "get KEY" comes after KEY. What DEFAULT
        # gets, every section gets.
        sections = ("DEFAULT", ini.section_name(s.section, services.PASTE))
        for section, key in keys:
            got = key.startswith("get ") and key[4:].strip() == s.key and section in sections
            if got or (section, key) == ("DEFAULT", s.key):
                where = f"{path}:{keys[section, key][0].line}"
                return [kinds.problem(where, "paste-elsewhere", key=key, section=section, ours=s.key)]
    found = misfits(file, path, keys)
    if found:
        return found
    wanted = _wanted(file)
    if all(ini.holds(keys, *setting, file.format) for setting in wanted):
        return []
    wrong = ini.misread(text, ini.edit(text, wanted, file.format), wanted, file.format)
    return [kinds.problem(f"{path}:{wrong.line}", "cannot-edit", reader=reader, why=wrong.why)] if wrong else []
