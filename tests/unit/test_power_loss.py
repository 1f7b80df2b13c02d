"""What a power loss, a failing disk and a kill leave, alone and one after the other: the next run makes one tree of it,
the old or the new one, with no copies beside it.

The disk is modelled strictly: a directory's changes are lost unless the directory was synced, a file's content unless
the file was, each of them independently of all others, as on several file systems.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import errno
import itertools
import os
import pathlib
import shutil
import stat
import sys
import tempfile
import typing

import pytest
from om_agent import errors
from om_agent.apply import transaction

from tests.support import trees
from tests.unit import test_files
from tests.unit.test_files import Runs, change, recover

OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.chmod", "os.chown"}


class Killed(BaseException):
    """The process is gone: every further operation raises this too, so that nothing is cleaned up."""


class Operations:
    """Counts the operations on files; what happens before the n-th is up to ``before``."""

    def __init__(self) -> None:
        self.before: collections.abc.Callable[[int], None] | None = None
        self.synced: collections.abc.Callable[[int], None] | None = None
        self.seen = 0
        self._inside = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.before and event in OPERATIONS:
            if event == "open" and not isinstance(arguments[2], int):
                return
            self._step()

    def _step(self) -> None:
        if self.before and not self._inside:
            self.seen += 1
            self._inside = True
            try:
                self.before(self.seen)
            finally:
                self._inside = False

    def fsync(self, descriptor: int) -> None:
        if self._inside:
            return
        self._step()
        if self.synced:
            self._inside = True
            try:
                self.synced(descriptor)
            finally:
                self._inside = False

    @contextlib.contextmanager
    def watched(
        self,
        before: collections.abc.Callable[[int], None],
        synced: collections.abc.Callable[[int], None] | None = None,
    ) -> collections.abc.Iterator[None]:
        self.seen, self.before, self.synced = 0, before, synced
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", self.fsync)
            try:
                yield
            finally:
                self.before = self.synced = None


@pytest.fixture(scope="module")
def operations() -> Operations:
    return Operations()  # an audit hook stays for good


@pytest.fixture
def runs(tmp_path: pathlib.Path) -> collections.abc.Iterator[Runs]:
    """Where possible in memory: this makes some thousand trees."""
    base = pathlib.Path("/dev/shm")
    if not os.access(base, os.W_OK):
        yield Runs(tmp_path)
        return
    with tempfile.TemporaryDirectory(prefix="om-test-", dir=base) as made:
        yield Runs(pathlib.Path(made))


# -- the disk --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Content:
    """What a file or link is at an instant."""

    what: str
    mode: int
    data: bytes


Listing = dict[str, int]


class Disk:
    """What of a tree would survive a power loss."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self._open: list[int] = []  # keeps inodes from being used again
        self._known: set[int] = set()
        self.removed: dict[int, Content] = {}  # directories and links as last seen: they may come back
        self.top = root.stat().st_ino
        self.listings, self.contents, self.names = self.look()
        self.safe_listings = dict(self.listings)
        self.safe_contents = dict(self.contents)

    def look(self) -> tuple[dict[int, Listing], dict[int, Content], dict[int, str]]:
        """Return the listing of every directory, the content of every file and the name of each, by inode."""
        listings: dict[int, Listing] = {}
        contents: dict[int, Content] = {}
        names: dict[int, str] = {}
        for place, _, _ in os.walk(self.root):
            listing: Listing = {}
            for entry in os.scandir(place):
                found = entry.stat(follow_symlinks=False)
                listing[entry.name] = found.st_ino
                names[found.st_ino] = os.path.relpath(entry.path, self.root)
                self._keep(found.st_ino, entry.path)
                contents[found.st_ino] = self._content(entry, found)
                if contents[found.st_ino].what != "file":
                    self.removed[found.st_ino] = contents[found.st_ino]
            directory = os.stat(place)
            listings[directory.st_ino] = listing
            names[directory.st_ino] = os.path.relpath(place, self.root)
        return listings, contents, names

    def _keep(self, inode: int, path: str) -> None:
        if inode not in self._known:
            self._known.add(inode)
            self._open.append(os.open(path, os.O_PATH | os.O_NOFOLLOW))

    @staticmethod
    def _content(entry: os.DirEntry[str], found: os.stat_result) -> Content:
        mode = stat.S_IMODE(found.st_mode)
        if entry.is_symlink():
            return Content("link", mode, os.readlink(entry.path).encode())
        if entry.is_dir(follow_symlinks=False):
            return Content("directory", mode, b"")
        with open(entry.path, "rb") as stream:
            return Content("file", mode, stream.read())

    def close(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()

    def synced(self, descriptor: int) -> None:
        """Note that this file or directory is safe as it is now."""
        inode = os.fstat(descriptor).st_ino
        listings, contents, _ = self.look()
        if inode in listings:
            self.safe_listings[inode] = listings[inode]
        elif inode in contents:
            self.safe_contents[inode] = contents[inode]

    def losses(self) -> collections.abc.Iterator[Loss]:
        """Yield what a power loss now may leave: all that is not synced lost, or kept, and each of it alone."""
        listings, contents, names = self.look()
        pending = [i for i in listings if listings[i] != self.safe_listings.get(i, {})]
        files_pending = [i for i in contents if contents[i].what == "file" and contents[i] != self.safe_contents.get(i)]
        every = (*pending, *files_pending)
        etc = tuple(i for i in every if names[i].startswith("etc"))
        var = tuple(i for i in every if i not in etc)
        kept = [(), every, etc, var, *((i,) for i in every), *(tuple(j for j in every if j != i) for i in every)]
        for choice in dict.fromkeys(kept):
            yield Loss(self, listings, contents, frozenset(choice))


@dataclasses.dataclass(frozen=True)
class Loss:
    """One outcome of a power loss: only these changes, by inode, are kept of those that were not synced."""

    disk: Disk
    listings: dict[int, Listing]
    contents: dict[int, Content]
    kept: frozenset[int]

    def write(self, root: pathlib.Path) -> None:
        """Make the tree below ``root``."""
        self._directory(self.disk.top, root)

    def _directory(self, inode: int, place: pathlib.Path) -> None:
        now, safe = self.listings.get(inode, {}), self.disk.safe_listings.get(inode, {})
        place.mkdir()
        for name, child in (now if inode in self.kept else safe).items():
            found = self._content(child)
            if found.what == "directory":
                self._directory(child, place / name)
                (place / name).chmod(found.mode)
            elif found.what == "link":
                (place / name).symlink_to(found.data.decode())
            else:
                (place / name).write_bytes(found.data)
                (place / name).chmod(found.mode)

    def _content(self, inode: int) -> Content:
        now, safe = self.contents.get(inode), self.disk.safe_contents.get(inode)
        if now and (now.what != "file" or inode in self.kept or now == safe):
            return now
        if safe:
            return safe
        if inode in self.disk.removed:
            return self.disk.removed[inode]
        return Content("file", 0o600, b"")  # it was never synced: the name is there, and nothing else


def lose_power(
    operations: Operations, root: pathlib.Path, work: collections.abc.Callable[[pathlib.Path], object],
    check: collections.abc.Callable[[Loss, int], None], start: Disk | None = None,
) -> None:  # fmt: skip
    """Do the work, and look at each instant at what a power loss would leave."""
    disk = start or Disk(root)

    def before(step: int) -> None:
        for loss in disk.losses():
            check(loss, step)

    with operations.watched(before, disk.synced):
        work(root)
    for loss in disk.losses():
        check(loss, 0)
    disk.close()


class Checker:
    """Sees that the next run makes the old or the new tree of what a power loss left."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.outcomes: set[str] = set()
        self._seen: set[tuple[object, ...]] = set()
        self._where = runs.base / "after"

    def __call__(self, loss: Loss, step: int) -> None:
        shutil.rmtree(self._where, ignore_errors=True)
        loss.write(self._where)
        left = tuple(sorted(test_files.snapshot(self._where).items()))
        if left in self._seen:
            return
        self._seen.add(left)
        (self._where / "var/lib/om-agent").mkdir(0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            (self._where / "var/lib/om-agent/lock").unlink()
        transaction.recover(self._where)
        found = test_files.snapshot(self._where)
        assert found in (self.runs.old, self.runs.new), (step, trees.differences(found, self.runs.old))
        self.outcomes.add("old" if found == self.runs.old else "new")


def test_power_loss_at_every_instant(runs: Runs, operations: Operations) -> None:
    check = Checker(runs)
    lose_power(operations, runs.make(), change, check)
    assert check.outcomes == {"old", "new"}


@pytest.mark.parametrize("killed", range(9, 180, 17))
def test_power_loss_while_the_next_run_puts_back_what_a_killed_one_left(
    runs: Runs, operations: Operations, killed: int
) -> None:
    """What the killed run changed and did not sync is still not safe when its successor ends."""
    check = Checker(runs)
    root = runs.make()
    disk = Disk(root)

    def before(step: int) -> None:
        if step == killed:
            operations.before = dead
            raise Killed

    def dead(step: int) -> None:
        raise Killed

    with operations.watched(before, disk.synced), contextlib.suppress(Killed):
        change(root)
    lose_power(operations, root, recover, check, start=disk)
    assert check.outcomes


# -- an operation fails, and the process is killed ---------------------------------------------------------------------


def fail_then_die(operations: Operations, root: pathlib.Path, failing: int, dying: int) -> tuple[bool, bool]:
    """Let one operation fail with EIO, and kill the run at a later one; return whether both came up."""
    failed = died = False

    def before(step: int) -> None:
        nonlocal failed, died
        if died or step == dying:
            died = True
            raise Killed
        if step == failing:
            failed = True
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with operations.watched(before), contextlib.suppress(Killed, errors.ApplyFailed):
        test_files.change_or_put_back(root)
    return failed, died


def test_every_operation_fails_and_the_run_is_killed_at_each_later_one(runs: Runs, operations: Operations) -> None:
    """EIO at the sync of the directory in which the journal says ``committed``, for one, and a kill while the old
    files are put back."""
    outcomes = set()
    for failing in itertools.count(1):
        for dying in itertools.count(failing + 1 + failing % 3, 3):  # neighbours share most of what they leave
            root = runs.make()
            failed, died = fail_then_die(operations, root, failing, dying)
            if failed:
                transaction.recover(root)
                outcomes.add(runs.check(root))
            shutil.rmtree(root)
            if not died:
                break
        if not failed:
            break
    assert failing > 100
    assert outcomes == {"old", "new"}


@pytest.mark.parametrize("below", ["etc", "var"])
def test_a_file_system_fails_for_good_at_each_instant(runs: Runs, monkeypatch: pytest.MonkeyPatch, below: str) -> None:
    """It becomes read-only in the midst of the run, which says what it could not do; the next run comes after a
    repair."""
    sentences = set()
    for failing in itertools.count(1):
        root = runs.make()
        seen = 0

        def refuse(name: str, root: pathlib.Path = root, failing: int = failing) -> typing.Any:
            real = getattr(os, name)

            def act(*arguments: typing.Any, **options: typing.Any) -> object:
                nonlocal seen
                writes = name != "open" or bool(arguments[1] & (os.O_WRONLY | os.O_RDWR))
                if writes and str(arguments[0]).startswith(str(root / below)):
                    seen += 1
                    if seen >= failing:
                        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(arguments[0]))
                return real(*arguments, **options)

            return act

        with monkeypatch.context() as patch:
            for name in ("open", "unlink", "rename", "replace", "mkdir", "rmdir", "symlink"):
                patch.setattr(os, name, refuse(name))
            try:
                test_files.change_or_put_back(root)
            except errors.ApplyFailed as e:
                sentences.add(str(e).partition(",")[0].partition(":")[0][:40])
        transaction.recover(root)
        runs.check(root)
        shutil.rmtree(root)
        if seen < failing:
            break
    assert sentences
