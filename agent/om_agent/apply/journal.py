"""Files on disk, changed all together or not at all.

A transaction is a journal and a copy of every file that may change, in that file's directory. Putting back is a rename,
which needs no space, so it works on a full disk. The journal goes through the phases

    prepare -> active -> puppet -> committed

and says at any instant, to this process or to the next one after a SIGKILL, what to do: before ``active`` nothing was
touched, from ``active`` on the copies go back, after ``committed`` they are thrown away. Its paths are those below the
root directory, so that a run in an image that was mounted somewhere is put right by the agent in the booted image.

A power loss may undo the last changes of one directory and keep those of another: they may be on different file
systems. So each step syncs every directory that it changed before the journal says that the step is done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import shutil
import stat
import typing

from om_agent import errors, kinds, proc, render
from om_agent.apply import access, files, saved_state

PREPARE, ACTIVE, PUPPET, COMMITTED = "prepare", "active", "puppet", "committed"

_OLD = ".om-agent-old"


@dataclasses.dataclass
class Transaction:
    """A journal in use. `begin` makes one, `commit` or `roll_back` ends it."""

    root: pathlib.Path
    journal: dict[str, typing.Any]
    _doubtful: bool = False  # whether the journal on disk may be of a later phase than this one

    def phase(self, name: str) -> None:
        """Enter the next phase, durably."""
        entered = {**self.journal, "phase": name}
        content = json.dumps(entered).encode()
        self._doubtful = True
        try:
            files.write(_journal_path(self.root), content, 0o600)
        except OSError:
            # A full disk fails before the new journal has its name: then the one on disk is surely the earlier one,
            # and putting back needs no space.
            with contextlib.suppress(OSError):
                self._doubtful = files.read(_journal_path(self.root)) == content
            raise
        self.journal = entered  # only now: a phase that is not on disk has not begun
        self._doubtful = False

    def put(self, file: render.File, content: bytes, uid: int | None, gid: int | None) -> None:
        """Write one file of ours."""
        files.write(files.on_disk(self.root, file.path), content, file.mode, uid, gid)

    def remove(self, path: str) -> None:
        """Remove one file."""
        files.remove(files.on_disk(self.root, path))

    @property
    def committed(self) -> bool:
        """True when it is too late to put anything back."""
        return bool(self.journal["phase"] == COMMITTED)

    def commit(self) -> None:
        """Keep everything."""
        with proc.uninterrupted():
            for entry in self.journal["entries"]:
                files.sync_file(
                    files.on_disk(self.root, entry["path"])
                )  # puppet does not: a power loss could empty the file
            self.phase(COMMITTED)
            with contextlib.suppress(OSError):  # all is well; the next run throws away what is left
                _finish(self.root, self.journal)

    def roll_back(self) -> bool:
        """Put everything back; return whether puppet had begun, so that units may run with what is now gone.

        :raises om_agent.errors.RollbackFailed: when a file cannot be put back; the journal stays.
        """
        with proc.uninterrupted():
            if self._doubtful:  # else a run after this one could throw away the copies that are not back yet
                try:
                    self.phase(self.journal["phase"])
                except OSError as e:
                    raise errors.RollbackFailed(
                        f"Nothing was put back, since {_journal_path(self.root)} cannot be written ({e.strerror}). "
                        "Fix that and run om-agent apply again: it goes on where this run stopped."
                    ) from None
            return _restore(self.root, self.journal)


def begin(root: pathlib.Path, paths: typing.Iterable[str], units: typing.Iterable[str]) -> Transaction:
    """Copy every file that may change, and make the directories that are missing.

    :param paths: files that will be written, edited or removed.
    :param units: units to restart should everything be put back after puppet ran.
    """
    entries: list[dict[str, typing.Any]] = []
    directories: list[str] = []
    paths = tuple(dict.fromkeys(paths))
    problems = access.hazards(root, paths)
    if problems:
        raise errors.NotReady(problems)
    for path in paths:
        entry = _describe(root, path)
        if entry is None:
            found = "a directory or device"
            raise errors.NotReady([kinds.problem(str(files.on_disk(root, path)), "not-a-file", found=found)])
        entries.append(entry)
        directories += files.missing_parents(root, path)
    directories = list(dict.fromkeys(directories))
    journal = {"phase": PREPARE, "entries": entries, "directories": directories, "units": list(units)}
    transaction = Transaction(root, journal)
    try:
        transaction.phase(PREPARE)
        for directory in directories:
            made = files.on_disk(root, directory)
            os.mkdir(made, 0o755)
            os.chmod(made, 0o755)  # whatever the umask
            files.sync_directory(made.parent)
        for entry in entries:
            _copy_aside(root, entry)
        transaction.phase(ACTIVE)
    except BaseException:
        with contextlib.suppress(errors.RollbackFailed):
            transaction.roll_back()
        raise
    return transaction


def recover(root: pathlib.Path) -> tuple[str, ...] | None:
    """End what an interrupted run left behind.

    :return: None when there was nothing; else the units that may run with a configuration that is gone.
    :raises om_agent.errors.RollbackFailed: when a file cannot be put back.
    """
    for leftover in files.state_dir(root).glob(f".*{files.NEW}"):  # of a journal or a key that never came to be
        leftover.unlink()
    files.remove_directory(saved_state.sasl_dir(root))
    path = _journal_path(root)
    content = files.read(path)
    if content is None:
        return None
    journal = _parse_journal(content)
    if journal is None:
        raise errors.RollbackFailed(
            f"{path} is damaged, so what an interrupted run left cannot be put back. "
            f"Look for files that end in {_OLD} beside the configuration files, then remove {path}."
        )
    with proc.uninterrupted():
        began = _restore(root, journal)
    return tuple(journal["units"]) if began else ()


def unfinished(root: pathlib.Path) -> bool:
    """Return whether a run's changes are neither complete nor taken back."""
    return os.path.lexists(_journal_path(root))


def _parse_journal(content: bytes) -> dict[str, typing.Any] | None:
    """Return a journal as `begin` writes it, or None when this is not one."""
    try:
        journal = json.loads(content)
        entries = journal["entries"]
        texts = [*journal["directories"], *journal["units"], *(e[k] for e in entries for k in ("path", "link"))]
        whole = all(isinstance(t, str) for t in texts) and all(isinstance(e["copy"], bool) for e in entries)
        return journal if whole and journal["phase"] in (PREPARE, ACTIVE, PUPPET, COMMITTED) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _journal_path(root: pathlib.Path) -> pathlib.Path:
    return files.state_dir(root) / "journal.json"


def _old(root: pathlib.Path, path: str) -> pathlib.Path:
    """Return where the copy of ``path`` is kept."""
    place = files.on_disk(root, path)
    return place.with_name(f".{place.name}{_OLD}")


def _describe(root: pathlib.Path, path: str) -> dict[str, typing.Any] | None:
    """Return what has to be known to put ``path`` back; None when it is neither a file nor a link nor absent."""
    entry: dict[str, typing.Any] = {"path": path, "copy": False, "link": ""}
    try:
        mode = files.on_disk(root, path).lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return entry
    if stat.S_ISLNK(mode):
        entry["link"] = os.readlink(files.on_disk(root, path))
        return entry
    entry["copy"] = True
    return entry if stat.S_ISREG(mode) else None


def _copy_aside(root: pathlib.Path, entry: dict[str, typing.Any]) -> None:
    """Copy one file into its own directory with owner, times and labels, closed to all others.

    An old password may be in it, and it may stay for long when this run is killed. All of it is done by descriptor, so
    that whoever owns the directory cannot exchange what is looked at.
    """
    if not entry["copy"]:
        return
    source, old = files.on_disk(root, entry["path"]), _old(root, entry["path"])
    with contextlib.suppress(FileNotFoundError):
        old.unlink()
    descriptor = os.open(old, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    copystat: typing.Any = shutil.copystat  # takes descriptors too, as all that it calls does
    with os.fdopen(descriptor, "wb") as to, files.open_regular(source) as original:
        shutil.copyfileobj(original, to)
        to.flush()
        found = os.fstat(original.fileno())
        with contextlib.suppress(PermissionError):  # as somebody else than root one's own files are all there is
            os.fchown(to.fileno(), found.st_uid, found.st_gid)
        copystat(original.fileno(), to.fileno())
        os.fchmod(to.fileno(), 0o600)
        entry["mode"] = stat.S_IMODE(found.st_mode)
        os.fsync(to.fileno())
    files.sync_directory(old.parent)


def _restore(root: pathlib.Path, journal: dict[str, typing.Any]) -> bool:
    """Put back or throw away the copies, as the phase says; see the head of this module."""
    phase = journal["phase"]
    if phase in (PREPARE, COMMITTED):
        _finish_or_tell(root, journal, remove_directories=phase == PREPARE)
        return False
    failures = []
    for entry in journal["entries"]:
        try:
            _put_back(root, entry)
        except OSError as e:
            failures.append(f"{files.on_disk(root, entry['path'])} ({e.strerror})")
    if failures:
        raise errors.RollbackFailed(
            f"These files could not be put back: {', '.join(failures)}. Fix this and run om-agent apply again: "
            "it goes on where it stopped."
        )
    _finish_or_tell(root, journal, remove_directories=True)
    return bool(phase == PUPPET)


def _finish_or_tell(root: pathlib.Path, journal: dict[str, typing.Any], remove_directories: bool) -> None:
    try:
        _finish(root, journal, remove_directories)
    except OSError as e:
        raise errors.RollbackFailed(
            f"Every file is as it should be, but copies of the old ones may be left next to them, since "
            f"{e.filename or 'a directory'} cannot be changed ({e.strerror}). They end in {_OLD} and may hold "
            "passwords. Fix that and run om-agent apply again: it removes them."
        ) from None


def _put_back(root: pathlib.Path, entry: dict[str, typing.Any]) -> None:
    path = files.on_disk(root, entry["path"])
    if entry["copy"]:
        with contextlib.suppress(FileNotFoundError):  # gone: a run before this one has put it back already
            _open_up(_old(root, entry["path"]), entry.get("mode"))
            _replace(_old(root, entry["path"]), path)
        return
    files.remove(path)
    if entry["link"]:
        os.symlink(entry["link"], path)
        files.sync_directory(path.parent)


def _open_up(old: pathlib.Path, mode: int | None) -> None:
    """Give the copy the mode that its original had; journals of earlier versions do not know it, and need not."""
    if mode is not None:
        with (
            contextlib.suppress(PermissionError),
            files.open_regular(old) as stream,
        ):  # closed to its owner: done already
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())


def _replace(old: pathlib.Path, path: pathlib.Path) -> None:
    """Put the copy in the file's place; a mounted file (containers mount single ones) cannot be replaced, so its
    content is."""
    try:
        os.replace(old, path)
    except OSError as e:
        if e.errno != errno.EBUSY:
            raise
        copystat: typing.Any = shutil.copystat  # takes descriptors too
        with files.open_regular(old) as source, files.open_regular(path, writable=True) as target:
            shutil.copyfileobj(source, target)
            target.truncate()
            target.flush()
            copystat(source.fileno(), target.fileno())
            os.fsync(target.fileno())
        old.unlink()
    files.sync_directory(path.parent)


def _finish(root: pathlib.Path, journal: dict[str, typing.Any], remove_directories: bool = False) -> None:
    """Remove copies, unfinished files and, when that is durable, the journal."""
    changed: set[pathlib.Path] = set()
    for entry in journal["entries"]:
        path = files.on_disk(root, entry["path"])
        for leftover in (_old(root, entry["path"]), path.with_name(f".{path.name}{files.NEW}")):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                leftover.unlink()
        changed.add(path.parent)
    if remove_directories:
        for directory in reversed(journal["directories"]):
            with contextlib.suppress(OSError):  # somebody else's file may be in it by now
                files.on_disk(root, directory).rmdir()
            changed.add(files.on_disk(root, directory).parent)
    for parent in sorted(changed):  # all of them: a run that was killed may have changed one and not synced it
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            files.sync_directory(parent)
    files.remove(_journal_path(root))
