"""One file that a run may change: what it was before, its copy, and the way back."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import pathlib
import shutil
import stat
import typing

from om_agent import errors, kinds
from om_agent.apply import files

OLD = ".om-agent-old"  # the name of a copy ends so


@dataclasses.dataclass(frozen=True)
class Original:
    """A file that the run may change, as it was before.

    :param copy: whether it was a regular file, which is copied before the first change.
    :param link: the target, when it was a symbolic link; else empty.
    :param mode: of the file that was copied; None before that, and in journals of earlier versions.
    """

    path: str
    copy: bool = False
    link: str = ""
    mode: int | None = None

    def places(self, root: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
        """Return where the file and its copy are below ``root``."""
        place = files.on_disk(root, self.path)
        return place, place.with_name(f".{place.name}{OLD}")

    def copy_aside(self, root: pathlib.Path) -> Original:
        """Copy the file into its own directory with owner, times and labels, closed to all others; return its mode too.

        An old password may be in it, and it may stay for long when this run is killed. All of it is done by descriptor,
        so that the owner of the directory cannot exchange the file meanwhile.
        """
        if not self.copy:
            return self
        place, old = self.places(root)
        with contextlib.suppress(FileNotFoundError):
            old.unlink()
        descriptor = os.open(old, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        copystat: typing.Any = shutil.copystat  # takes descriptors too, as all that it calls does
        with os.fdopen(descriptor, "wb") as to, files.open_regular(place) as original:
            shutil.copyfileobj(original, to)
            to.flush()
            found = os.fstat(original.fileno())
            with contextlib.suppress(PermissionError):  # a user other than root can only copy files of its own
                os.fchown(to.fileno(), found.st_uid, found.st_gid)
            copystat(original.fileno(), to.fileno())
            os.fchmod(to.fileno(), 0o600)
            os.fsync(to.fileno())
        files.sync_directory(old.parent)
        return dataclasses.replace(self, mode=stat.S_IMODE(found.st_mode))

    def sync(self, root: pathlib.Path) -> None:
        """Make durable what puppet wrote: it does not, so a power loss could empty the file."""
        files.sync_file(self.places(root)[0])

    def put_back(self, root: pathlib.Path) -> None:
        """Make the file what it was."""
        place, old = self.places(root)
        if self.copy:
            with contextlib.suppress(FileNotFoundError):  # an earlier run has put it back already
                _open_up(old, self.mode)
                _replace(old, place)
            return
        files.remove(place)
        if self.link:
            os.symlink(self.link, place)
            files.sync_directory(place.parent)

    def remove_copy(self, root: pathlib.Path) -> pathlib.Path:
        """Remove the copy and an unfinished new file; return the directory, which is to be synced."""
        place, old = self.places(root)
        for remains in (old, place.with_name(f".{place.name}{files.NEW}")):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                remains.unlink()
        return place.parent


def describe(root: pathlib.Path, path: str) -> Original:
    """Return what has to be known to put ``path`` back.

    :raises om_agent.errors.NotReady: when it is neither a file nor a link nor absent.
    """
    place = files.on_disk(root, path)
    try:
        mode = place.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return Original(path)
    if stat.S_ISLNK(mode):
        return Original(path, link=os.readlink(place))
    if not stat.S_ISREG(mode):
        raise errors.NotReady([kinds.problem(str(place), "not-a-file", found="a directory or device")])
    return Original(path, copy=True)


def _open_up(old: pathlib.Path, mode: int | None) -> None:
    """Give the copy the mode that its original had; journals of earlier versions do not know it, and need not."""
    if mode is None:
        return
    # When even its owner may not open the copy, it has its mode already.
    with contextlib.suppress(PermissionError), files.open_regular(old) as stream:
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
