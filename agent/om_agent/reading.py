"""Read files that others own, without waiting, filling the memory or leaving the root directory.

A path in another file may name a pipe, a device or a file as large as a disk, or may be no valid path at all.
"""

from __future__ import annotations

import errno
import os
import pathlib
import posixpath
import re
import stat

MIB = 2**20
UNIT_LIMIT = MIB  # bytes of a unit file, and of each file that it names: environments, scripts, uWSGI's ini files
SERVICE_LIMIT = 16 * MIB  # bytes of a service's configuration file
PATH_LIMIT = 4096  # PATH_MAX of linux/limits.h
# The paths that a shell passes instead of a file: standard input and process substitutions.
_DESCRIPTOR = re.compile(r"/dev/stdin|/dev/fd/[0-9]+|/proc/(?:self|[0-9]+)/fd/[0-9]+")


def content(path: str | pathlib.Path, limit: int, handed: bool = False) -> bytes:
    """Return the content of a regular file.

    :param limit: maximum size in bytes.
    :param handed: whether ``/dev/stdin`` and ``/dev/fd/N`` may be a pipe or a terminal. Reading it takes as long as the
        program at its other end wants.
    :raises OSError: when the file cannot be read; with ``errno.EFBIG`` when it is larger.
    """
    name = str(path)
    may_be_pipe = handed and bool(_DESCRIPTOR.fullmatch(name))
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        _refuse_special(os.stat(name), name, may_be_pipe)  # before opening it: opening a device may have an effect
        descriptor = os.open(name, flags)
    except ValueError:  # a NUL, or a character that the file system's encoding lacks
        raise OSError(errno.EINVAL, "the path is not valid", name) from None
    with os.fdopen(descriptor, "rb") as stream:
        _refuse_special(os.fstat(descriptor), name, may_be_pipe)
        os.set_blocking(descriptor, True)
        found = stream.read(limit + 1)
    if len(found) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit // MIB} MiB", name)
    return found


def _refuse_special(found: os.stat_result, name: str, may_be_pipe: bool) -> None:
    """Refuse anything but a regular file."""
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFDIR:
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if kind == stat.S_IFREG or (may_be_pipe and kind in (stat.S_IFIFO, stat.S_IFCHR)):
        return
    names = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    what = names.get(kind, "a device")
    raise OSError(errno.EINVAL, f"it is {what}, and not a regular file", name)


def text(path: pathlib.Path, root: pathlib.Path, limit: int) -> str:
    """Return the text of a regular file below ``root``; '' when it does not exist or cannot be read."""
    if not is_below(path, root):
        return ""
    try:
        decoded = content(path, limit).decode(errors="replace")
    except OSError:
        return ""
    return decoded.replace("\r\n", "\n").replace("\r", "\n")


def is_below(path: pathlib.Path, root: pathlib.Path) -> bool:
    """Return whether ``path`` is a valid path, and is below ``root`` after its links are followed."""
    try:
        real = os.path.realpath(path)
        top = os.path.realpath(root)
        os.fsencode(real)
    except (OSError, ValueError):  # a NUL, or a character that the file system's encoding lacks
        return False
    return os.path.commonpath([real, top]) == top


def is_file(path: pathlib.Path, root: pathlib.Path) -> bool:
    """Return whether ``path`` is a regular file below ``root``."""
    return os.path.isfile(path) and is_below(path, root)


def names(directory: pathlib.Path, root: pathlib.Path, ending: str) -> list[str]:
    """Return the names in a directory below ``root`` that have this ending, sorted; none when it cannot be read."""
    if not is_below(directory, root):
        return []
    try:
        return sorted(name for name in os.listdir(directory) if name.endswith(ending))
    except OSError:
        return []


def normal(path: str) -> str:
    """Return an absolute path without ``..``, so that it stays below any directory that it is added to."""
    return "/" + posixpath.normpath(f"/{path}").lstrip("/")


def on_disk(root: pathlib.Path, path: str) -> pathlib.Path:
    """Return the place below ``root`` of a path that a file names."""
    return root / normal(path).lstrip("/")


def rows(path: pathlib.Path, root: pathlib.Path) -> list[tuple[int, str]]:
    """Return the lines of a file below ``root`` with their numbers; none when it cannot be read."""
    found = text(path, root, UNIT_LIMIT)
    return list(enumerate(found.split("\n"), 1)) if found else []
