"""Debian's init scripts: they compose a command line from shell variables and from files in /etc/default."""

from __future__ import annotations

import pathlib
import re

from om_agent import reading

_DIRECTORY = "/etc/init.d/"
_ASSIGNMENT = re.compile(r"^[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)=[\"']?([^\n\"'`]*)", re.MULTILINE)
_EXPORT = re.compile(r"^[ \t]*export[ \t]+([A-Za-z_]\w*)=[\"']?([^\n\"'`]*)", re.MULTILINE)


def path_of(unit: str) -> str:
    """Return the path that the init script of a unit would have."""
    return f"{_DIRECTORY}{unit}"


def exists(path: str, root: pathlib.Path) -> bool:
    """Return whether ``path`` is an init script below ``root``."""
    in_directory = reading.normal(path).startswith(_DIRECTORY)
    return in_directory and reading.is_file(reading.on_disk(root, path), root)


def text(path: str, root: pathlib.Path) -> str:
    """Return an init script's text without comments."""
    return without_comments(read_joined(reading.on_disk(root, path), root))


def variables(script: str, unit: str, root: pathlib.Path) -> dict[str, str]:
    """Return the variables that a script sets.

    The first value counts: files in /etc/default come first, and a later assignment in a script is usually a default.
    """
    found: dict[str, str] = {}
    for part in (defaults(unit, root), script):
        for name, value in _ASSIGNMENT.findall(part):
            found.setdefault(name, value)
    return found


def defaults_paths(unit: str, root: pathlib.Path) -> list[pathlib.Path]:
    """Return the files that the init script of a unit sources."""
    return [root / "etc/default" / name for name in ("openstack", unit)]


def defaults(unit: str, root: pathlib.Path) -> str:
    """Return the text of the files that the init script of a unit sources."""
    return "\n".join(read_joined(path, root) for path in defaults_paths(unit, root))


def without_comments(script: str) -> str:
    """Return a script without the lines that are comments."""
    lines = [line for line in script.splitlines() if not line.lstrip().startswith("#")]
    return "\n".join(lines)


def assigned(path: pathlib.Path, root: pathlib.Path) -> dict[str, str]:
    """Return the variables that a file sets, exported or not."""
    return dict(_ASSIGNMENT.findall(read_joined(path, root)))


def exported(path: pathlib.Path, root: pathlib.Path) -> dict[str, str]:
    """Return the variables that a shell script exports."""
    return dict(_EXPORT.findall(read_joined(path, root)))


def read_joined(path: pathlib.Path, root: pathlib.Path) -> str:
    """Return a file's text with its continued lines joined; '' when it cannot be read."""
    return re.sub(r"\\\n\s*", " ", reading.text(path, root, reading.UNIT_LIMIT))
