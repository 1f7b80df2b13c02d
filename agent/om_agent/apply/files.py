"""Single files on disk: read and written whole, durably, and never through somebody else's symbolic link."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import os
import pathlib
import shutil
import stat
import typing

from om_agent import errors
from om_agent.plan import layout

NEW = ".om-agent-new"
# The errors of opening a path where no regular file is.
_NOT_A_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)


@dataclasses.dataclass(frozen=True)
class Found:
    """What was on disk at one path when it was read.

    :param path: as it is in the root directory.
    :param place: the same path below the directory that stands for the root.
    :param status: what lstat(2) says; None when nothing is there.
    :param content: of a regular file; None for anything else.
    :param error: why it could not be read.
    """

    path: str
    place: pathlib.Path
    status: os.stat_result | None = None
    content: bytes | None = dataclasses.field(default=None, repr=False)
    error: OSError | None = None

    def has(self, content: bytes, mode: int, uid: int | None, gid: int | None) -> bool:
        """Return whether it is a regular file of just this content, mode and owner."""
        if self.content != content or not self.status:
            return False
        owned = uid in (None, self.status.st_uid) and gid in (None, self.status.st_gid)
        return owned and stat.S_IMODE(self.status.st_mode) == mode


def find(root: pathlib.Path, path: str, most: int = -1) -> Found:
    """Return what is at ``path`` below ``root``.

    :param most: bytes after which reading ends; -1 for no limit.
    """
    place = on_disk(root, path)
    status = None
    try:
        status = place.lstat()
        return Found(path, place, status, read(place, most))
    except (FileNotFoundError, NotADirectoryError):
        return Found(path, place)
    except OSError as e:
        return Found(path, place, status, error=e)


def on_disk(root: pathlib.Path, path: str) -> pathlib.Path:
    """Return where ``path`` is below ``root``."""
    return root / path.lstrip("/")


def state_dir(root: pathlib.Path) -> pathlib.Path:
    """Return the agent's own directory below ``root``."""
    return on_disk(root, layout.STATE_DIR)


def write(path: pathlib.Path, content: bytes, mode: int, uid: int | None = None, gid: int | None = None) -> None:
    """Put a whole new file in the place of ``path``, durably; a symbolic link there is replaced, not followed."""
    new = path.with_name(f".{path.name}{NEW}")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            if uid is not None or gid is not None:
                os.fchown(stream.fileno(), -1 if uid is None else uid, -1 if gid is None else gid)
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    sync_directory(path.parent)


def remove(path: pathlib.Path) -> None:
    """Remove a file, durably; it is no error when there is none."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()
        sync_directory(path.parent)


def sync_directory(directory: pathlib.Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: pathlib.Path) -> None:
    """Make a directory, durably."""
    path.mkdir(0o755)
    path.chmod(0o755)  # whatever the umask
    sync_directory(path.parent)


def sync_file(path: pathlib.Path) -> None:
    """Make a regular file and its content durable; it is no error when there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        if e.errno in _NOT_A_FILE:
            return  # puppet's result was checked before; what somebody else did since is not ours to judge
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def digest(content: bytes) -> str:
    """Return the SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read(path: pathlib.Path, most: int = -1) -> bytes | None:
    """Return the content of a regular file; None when there is none, or when it is a link or anything else.

    :param most: bytes after which reading ends; -1 for no limit.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        with open_regular(path) as stream:
            return stream.read(most)
    except (FileNotFoundError, NotADirectoryError):
        return None


def open_regular(path: pathlib.Path, writable: bool = False) -> typing.BinaryIO:
    """Open a regular file: neither follow a link that was put there just now, nor wait for a pipe."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags | (os.O_RDWR if writable else os.O_RDONLY))
    stream: typing.BinaryIO = os.fdopen(descriptor, "r+b" if writable else "rb")
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "it is no regular file any more", str(path))
    return stream


def remove_directory(path: pathlib.Path) -> None:
    """Remove a directory with all that is in it. Leave anything else, since rmtree would wait for a pipe's writer.

    :raises om_agent.errors.ApplyFailed: when that is not possible.
    """
    if not path.is_dir() or path.is_symlink():
        return
    try:
        shutil.rmtree(path)
    except OSError as e:
        why = errors.limit(e.errno) or e.strerror
        raise errors.ApplyFailed(
            f"{path} may hold passwords and cannot be removed ({why}). Remove it and run again."
        ) from None


def missing_parents(root: pathlib.Path, paths: typing.Iterable[str]) -> list[str]:
    """Return the directories that have to be made for ``paths``, each after the one that it is in."""
    missing: dict[str, None] = {}
    for path in paths:
        parents = [str(parent) for parent in pathlib.PurePosixPath(path).parents]
        absent = itertools.takewhile(lambda parent: not on_disk(root, parent).exists(), parents)
        missing.update(dict.fromkeys(reversed(list(absent))))
    return list(missing)


def full_disk(error: OSError) -> bool:
    """Return whether ``error`` says that there is no space left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def reason(e: OSError) -> str:
    """Return a sentence for an error of the operating system."""
    name = e.filename2 or e.filename  # the new name of a file that was renamed: the trouble is there
    if full_disk(e):
        return f"the disk is full ({name or 'writing a file'}); free some space and run again"
    if errors.limit(e.errno):
        return f"{name or 'a file'} cannot be used: {errors.limit(e.errno)}; then run again"
    return f"{name or 'a file'} cannot be used ({e.strerror}); fix this and run om-agent again"
