"""Files on disk, changed all together or not at all.

A transaction is a journal and a copy of every file that may change, in that file's directory. Putting a file back is a
rename. A rename needs no space, so it works on a full disk. The journal goes through the phases

    prepare -> active -> puppet -> committed

and says at any instant, to this process or to the next one after a SIGKILL, what to do:

* before ``active`` no file was touched;
* from ``active`` on the copies are put back;
* after ``committed`` the copies are thrown away.

A power loss may undo the last changes of one directory and keep those of another: they may be on different file
systems. So each step syncs every directory that it changed before the journal says that the step is done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import typing

from om_agent import errors, proc
from om_agent.apply import access, copies, files, journal, saved_state


@dataclasses.dataclass
class Transaction:
    """A journal in use. `begin` makes one, `commit` or `roll_back` ends it."""

    root: pathlib.Path
    journal: journal.Journal
    _doubtful: bool = False  # whether the journal on disk may be of a later phase than this one

    def phase(self, name: str) -> None:
        """Enter the next phase, durably."""
        entered = dataclasses.replace(self.journal, phase=name)
        self._doubtful = True
        try:
            journal.save(self.root, entered)
        except OSError:
            # A full disk fails before the new journal has its name. Then the one on disk is surely the earlier one,
            # and putting back needs no space.
            with contextlib.suppress(OSError):
                self._doubtful = journal.is_saved(self.root, entered)
            raise
        self.journal = entered  # only now: a phase that is not on disk has not begun
        self._doubtful = False

    def write(
        self, path: str, content: bytes, mode: int = 0o600, uid: int | None = None, gid: int | None = None
    ) -> None:
        """Write one file."""
        files.write(files.on_disk(self.root, path), content, mode, uid, gid)

    def remove(self, path: str) -> None:
        """Remove one file."""
        files.remove(files.on_disk(self.root, path))

    @property
    def committed(self) -> bool:
        """True when it is too late to put anything back."""
        return self.journal.phase == journal.COMMITTED

    def commit(self) -> None:
        """Keep everything."""
        with proc.uninterrupted():
            for entry in self.journal.entries:
                entry.sync(self.root)
            self.phase(journal.COMMITTED)
            with contextlib.suppress(OSError):  # all is well; the next run removes the copies that are still there
                _clean_up(self.root, self.journal)

    def roll_back(self) -> bool:
        """Put everything back; return whether puppet had begun, so that units may run with the files of this run.

        :raises om_agent.errors.RollbackFailed: when a file cannot be put back; the journal stays.
        """
        with proc.uninterrupted():
            if self._doubtful:  # else a run after this one could throw away the copies that are not back yet
                try:
                    self.phase(self.journal.phase)
                except OSError as e:
                    raise errors.RollbackFailed(
                        f"Nothing was put back, since {journal.path_of(self.root)} cannot be written ({e.strerror}). "
                        "Fix that and run om-agent apply again: it goes on where this run stopped."
                    ) from None
            return _restore(self.root, self.journal)


def begin(root: pathlib.Path, paths: typing.Iterable[str], units: typing.Iterable[str]) -> Transaction:
    """Copy every file that may change, and make the directories that are missing.

    :param paths: files that will be written, edited or removed.
    :param units: units to restart should everything be put back after puppet ran.
    """
    paths = tuple(dict.fromkeys(paths))
    problems = access.hazards(root, paths)
    if problems:
        raise errors.NotReady(problems)
    entries = tuple(copies.describe(root, path) for path in paths)
    directories = tuple(files.missing_parents(root, paths))
    transaction = Transaction(root, journal.Journal(journal.PREPARE, entries, directories, tuple(units)))
    try:
        transaction.phase(journal.PREPARE)
        for directory in directories:
            files.make_directory(files.on_disk(root, directory))
        copied = []
        for entry in entries:
            copied.append(entry.copy_aside(root))
        transaction.journal = dataclasses.replace(transaction.journal, entries=tuple(copied))
        transaction.phase(journal.ACTIVE)
    except BaseException:
        with contextlib.suppress(errors.RollbackFailed):
            transaction.roll_back()
        raise
    return transaction


def recover(root: pathlib.Path) -> tuple[str, ...] | None:
    """Finish a run that was interrupted, or take it back.

    :return: None when there was none; else the units that may run with files that are no longer on disk.
    :raises om_agent.errors.RollbackFailed: when a file cannot be put back.
    """
    for unfinished in files.state_dir(root).glob(f".*{files.NEW}"):  # a journal or a key that was not complete
        unfinished.unlink()
    files.remove_directory(saved_state.sasl_dir(root))
    path = journal.path_of(root)
    content = files.read(path)
    if content is None:
        return None
    found = journal.parse(content)
    if found is None:
        raise errors.RollbackFailed(
            f"{path} is damaged, so what an interrupted run left cannot be put back. "
            f"Look for files that end in {copies.OLD} next to the configuration files, then remove {path}."
        )
    with proc.uninterrupted():
        puppet_began = _restore(root, found)
    return found.units if puppet_began else ()


def _restore(root: pathlib.Path, found: journal.Journal) -> bool:
    """Put back or throw away the copies, as the phase says; see the head of this module."""
    if found.phase in (journal.PREPARE, journal.COMMITTED):
        _clean_up_or_report(root, found, remove_directories=found.phase == journal.PREPARE)
        return False
    failures = []
    for entry in found.entries:
        try:
            entry.put_back(root)
        except OSError as e:
            failures.append(f"{entry.places(root)[0]} ({e.strerror})")
    if failures:
        raise errors.RollbackFailed(
            f"These files could not be put back: {', '.join(failures)}. Fix this and run om-agent apply again: "
            "it goes on where it stopped."
        )
    _clean_up_or_report(root, found, remove_directories=True)
    return found.phase == journal.PUPPET


def _clean_up_or_report(root: pathlib.Path, found: journal.Journal, remove_directories: bool) -> None:
    try:
        _clean_up(root, found, remove_directories)
    except OSError as e:
        raise errors.RollbackFailed(
            f"Every file is as it should be, but copies of the old ones may be left next to them, since "
            f"{e.filename or 'a directory'} cannot be changed ({e.strerror}). They end in {copies.OLD} and may hold "
            "passwords. Fix that and run om-agent apply again: it removes them."
        ) from None


def _clean_up(root: pathlib.Path, found: journal.Journal, remove_directories: bool = False) -> None:
    """Remove copies, unfinished files and, when that is durable, the journal."""
    changed: set[pathlib.Path] = set()
    for entry in found.entries:
        changed.add(entry.remove_copy(root))
    if remove_directories:
        for directory in reversed(found.directories):
            place = files.on_disk(root, directory)
            with contextlib.suppress(OSError):  # somebody else's file may be in it by now
                place.rmdir()
            changed.add(place.parent)
    for parent in sorted(changed):  # all of them: a run that was killed may have changed one and not synced it
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            files.sync_directory(parent)
    journal.remove(root)
