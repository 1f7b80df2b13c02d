"""Obstacles to a write: links and directories that lead it elsewhere, and what keeps even root from writing."""

from __future__ import annotations

import fcntl
import os
import pathlib
import platform
import re
import stat
import struct
import typing

from om_agent import errors, kinds
from om_agent.apply import files
from om_agent.plan import layout

# Who could write here could have puppet, which runs as root, do anything.
_OWN_DIRECTORIES = (layout.STATE_DIR, layout.CONFIG_DIR, layout.HIERADATA.rpartition("/")[0])


def hazards(root: pathlib.Path, paths: typing.Iterable[str]) -> list[errors.Problem]:
    """Return what could lead a write to ``paths`` elsewhere, or let another user control this program.

    That is a directory on the way in which everybody may put links, sticky or not; a link there that somebody else
    made (as fs.protected_symlinks, proc(5)), or that leads out of ``root``; and a directory of ours that is another
    user's. A directory that belongs to a service is trusted with the service's own files.
    """
    problems = []
    parents = dict.fromkeys(str(parent) for path in paths for parent in pathlib.PurePosixPath(path).parents)
    real_root = os.path.realpath(root)
    seen: set[str] = set()
    for parent in sorted(parents):
        place = files.on_disk(root, parent)
        if not os.path.lexists(place):
            continue
        real = os.path.realpath(place)
        problem = _link_problem(place, real, real_root)
        if problem:
            problems.append(problem)
            continue
        inside = [str(p) for p in (pathlib.Path(real), *pathlib.Path(real).parents) if _below(str(p), real_root)]
        for directory in [d for d in inside if d not in seen and os.path.isdir(d)]:
            seen.add(directory)
            if os.stat(directory).st_mode & stat.S_IWOTH:
                problems.append(kinds.problem(directory, "anybody-writes"))
        if parent in _OWN_DIRECTORIES and os.path.isdir(real) and os.stat(real).st_uid not in (0, os.geteuid()):
            problems.append(kinds.problem(str(place), "not-our-own", owner=os.stat(real).st_uid))
    return problems


def _link_problem(place: pathlib.Path, real: str, real_root: str) -> errors.Problem | None:
    found = place.lstat()
    if stat.S_ISLNK(found.st_mode) and found.st_uid not in (0, os.geteuid()):
        return kinds.problem(str(place), "link-of-another", owner=found.st_uid)
    if not _below(real, real_root):
        return kinds.problem(str(place), "link-leads-out", root=real_root)
    return None


def _below(path: str, directory: str) -> bool:
    return os.path.commonpath([path, directory]) == directory


# The attributes of lsattr that bind even root (linux/fs.h): flag, letter, name, what cannot be done then.
_ATTRIBUTES = (
    (0x10, "i", "immutable", "change it"),
    (0x20, "a", "append only", "replace or shorten what is in it"),
)


def _get_flags_request() -> int:
    """Return the number of FS_IOC_GETFLAGS, _IOR('f', 1, long): some architectures number directions otherwise."""
    reading = 1 if platform.machine().startswith(("ppc", "mips", "sparc", "alpha")) else 2
    return reading << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 1


def obstacles(root: pathlib.Path, replaced: typing.Iterable[str], edited: typing.Iterable[str]) -> list[errors.Problem]:
    """Return what keeps even root from changing these files: attributes, mounts, read-only file systems.

    :param replaced: files that a new file replaces, or that are removed.
    :param edited: files that are changed in place; copies are made next to all of them.
    """
    replaced = tuple(replaced)
    mounted = _mount_points()
    problems = []
    directories = set()
    for path in dict.fromkeys((*replaced, *edited)):
        place = files.on_disk(root, path)
        directories.add(next(parent for parent in place.parents if parent.is_dir()))
        if not place.is_symlink() and place.is_file():
            problems += _fixed(place, "the file")
            if path in replaced and os.path.realpath(place) in mounted:
                problems.append(kinds.problem(str(place), "mounted-file"))
    for directory in sorted(directories):
        problems += _fixed(directory, "the directory")
        if os.statvfs(directory).f_flag & os.ST_RDONLY:
            problems.append(kinds.problem(str(directory), "read-only-directory"))
    return problems


def _fixed(place: pathlib.Path, what: str) -> list[errors.Problem]:
    """Return the attributes that keep a file or directory as it is."""
    flags = bytearray(struct.calcsize("l"))
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return []  # what reads it later reports that
    try:
        fcntl.ioctl(descriptor, _get_flags_request(), flags)
    except OSError:
        return []  # not every file system has them
    finally:
        os.close(descriptor)
    found = struct.unpack_from("i", flags)[0]  # the kernel writes an int, whatever the request says
    return [
        kinds.problem(str(place), "attribute", what=what, flag=letter, name=name, lacking=lacking)
        for bit, letter, name, lacking in _ATTRIBUTES
        if found & bit
    ]


def _mount_points() -> frozenset[str]:
    """Return all mount points; a single file can be one too."""
    try:
        text = pathlib.Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return frozenset()
    places = (line.split(" ")[4] for line in text.splitlines())
    return frozenset(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), place) for place in places)
