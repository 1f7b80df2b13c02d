"""Files that others own, read so that none of them keeps a run waiting, fills the memory or lies outside of the root.

A file that another file names may be a pipe, a device, as long as a disk, or nothing that can have that name.
"""

from __future__ import annotations

import errno
import os
import pathlib
import posixpath
import re
import stat

MIB = 2**20
UNIT_LIMIT = MIB  # bytes of a unit, and of what it names: environments, scripts, uWSGI's ini files
SERVICE_LIMIT = 16 * MIB  # bytes of a service's configuration file
PATH_LIMIT = 4096  # PATH_MAX of linux/limits.h
# What a shell hands over in place of a file: its standard input and process substitutions.
_HANDED = re.compile(r"/dev/stdin|/dev/fd/[0-9]+|/proc/(?:self|[0-9]+)/fd/[0-9]+")


def content(path: str | pathlib.Path, limit: int, handed: bool = False) -> bytes:
    """Return what a regular file holds.

    :param limit: in bytes.
    :param handed: whether a pipe or a terminal that the caller was handed is as good, ``/dev/stdin`` or ``/dev/fd/N``;
        its other end then says how long that takes.
    :raises OSError: when it cannot be read; with ``errno.EFBIG`` when it is longer.
    """
    name = str(path)
    by_hand = handed and bool(_HANDED.fullmatch(name))
    try:
        _refuse_special(os.stat(name), name, by_hand)  # first: opening a device may do something
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError:  # a NUL, or what the file system's encoding does not have
        raise OSError(errno.EINVAL, "the path is not valid", name) from None
    with os.fdopen(descriptor, "rb") as stream:
        _refuse_special(os.fstat(descriptor), name, by_hand)
        os.set_blocking(descriptor, True)
        found = stream.read(limit + 1)
    if len(found) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit // MIB} MiB", name)
    return found


def _refuse_special(found: os.stat_result, name: str, by_hand: bool) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFDIR:
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if kind != stat.S_IFREG and not (by_hand and kind in (stat.S_IFIFO, stat.S_IFCHR)):
        names = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        raise OSError(errno.EINVAL, f"it is {names.get(kind, 'a device')}, and not a regular file", name)


def text(path: pathlib.Path, root: pathlib.Path, limit: int) -> str:
    """Return the text of a regular file below ``root``; '' when there is none, or when it cannot be read."""
    if not is_below(path, root):
        return ""
    try:
        return content(path, limit).decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    except OSError:
        return ""


def is_below(path: pathlib.Path, root: pathlib.Path) -> bool:
    """Return whether ``path`` can be one, and leads to a place below ``root`` when its links are followed."""
    try:
        real, top = os.path.realpath(path), os.path.realpath(root)
        os.fsencode(real)
    except (OSError, ValueError):  # a NUL, or what the file system's encoding does not have
        return False
    return os.path.commonpath([real, top]) == top


def is_file(path: pathlib.Path, root: pathlib.Path) -> bool:
    """Return whether there is a regular file below ``root``."""
    return os.path.isfile(path) and is_below(path, root)


def names(directory: pathlib.Path, root: pathlib.Path, ending: str) -> list[str]:
    """Return what a directory below ``root`` has of this ending, sorted; nothing when it cannot be read."""
    if not is_below(directory, root):
        return []
    try:
        return sorted(name for name in os.listdir(directory) if name.endswith(ending))
    except OSError:
        return []


def normal(path: str) -> str:
    """Return an absolute path without ``..``, so that it stays below whatever stands before it."""
    return "/" + posixpath.normpath(f"/{path}").lstrip("/")


def on_disk(root: pathlib.Path, path: str) -> pathlib.Path:
    """Return where a path that stands in a file is below ``root``."""
    return root / normal(path).lstrip("/")
