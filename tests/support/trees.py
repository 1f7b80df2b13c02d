"""A directory as data, so that two states of it can be compared."""

from __future__ import annotations

import os
import pathlib
import stat
import typing


class Entry(typing.NamedTuple):
    """What is at one path.

    :param kind: ``link``, ``directory``, ``file``, or ``other`` for what is not read, a pipe for one.
    :param mode: permission bits; 0 for a link.
    :param content: a file's bytes, or a link's target.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    content: bytes


Tree = dict[str, Entry]


def snapshot(root: pathlib.Path, *without: str) -> Tree:
    """Return everything below ``root`` by path, except for the paths ``without`` and what is below them."""
    found: Tree = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if not any(name == left_out or name.startswith(left_out + "/") for left_out in without):
            found[name] = _entry(path)
    return found


def _entry(path: pathlib.Path) -> Entry:
    status = path.lstat()
    mode, owner = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
    if stat.S_ISLNK(status.st_mode):
        return Entry("link", 0, *owner, os.readlink(path).encode())
    if stat.S_ISDIR(status.st_mode):
        return Entry("directory", mode, *owner, b"")
    if stat.S_ISREG(status.st_mode):
        return Entry("file", mode, *owner, path.read_bytes())
    return Entry("other", mode, *owner, b"")


def differences(found: Tree, wanted: Tree) -> str:
    """Say in which entries two trees differ, a line each."""
    names = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    return "\n".join(f"{name}: {found.get(name)} instead of {wanted.get(name)}" for name in names)
