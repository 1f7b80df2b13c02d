"""uWSGI's ini files, which set options, variables and arguments of the WSGI program that uWSGI runs."""

from __future__ import annotations

import pathlib
import re
import typing

from om_agent import reading
from om_agent.unitfile import references

_NAME = re.compile(r"[\w-]+")
_VARIABLE = re.compile(r"([%$])\(([\w-]+)\)")
MAX_FILES = 100  # ini files of one unit, and files that one ini file includes


class Option(typing.NamedTuple):
    """A line of an ini file."""

    path: str
    line: int
    name: str
    value: str


def options(path: str, root: pathlib.Path) -> list[Option]:
    """Return the options of an ini file, and of the files that it includes, each file once.

    :param path: of the file; after a colon, the name of the section that uWSGI reads (by default ``uwsgi``).

    The options of an included file follow the line that includes it. Files may include each other in a long chain, so
    this uses a stack of iterators instead of recursion.
    """
    files: dict[str, dict[str, list[Option]]] = {}

    def read_section(reference: str) -> typing.Iterator[Option]:
        name, _, section = reference.partition(":")
        if name not in files:
            files[name] = _read_sections(name, root)
        return iter(files[name].get(section or "uwsgi", ()))

    found: list[Option] = []
    seen = {path}
    stack = [read_section(path)]
    while stack:
        option = next(stack[-1], None)
        if option is None:
            stack.pop()
            continue
        found.append(option)
        includes = option.name == "ini" and option.value not in seen
        if includes and len(seen) < MAX_FILES:
            seen.add(option.value)
            stack.append(read_section(option.value))
    return found


def _read_sections(name: str, root: pathlib.Path) -> dict[str, list[Option]]:
    """Return the options of one ini file by section."""
    found: dict[str, list[Option]] = {}
    section = ""
    for number, row in reading.rows(reading.on_disk(root, name), root):
        text = row.strip()
        key, equals, value = row.partition("=")
        key = key.strip()
        if text.startswith("["):
            section = text.strip("[]")
        elif equals and _NAME.fullmatch(key):
            option = Option(name, number, key, value.strip())
            found.setdefault(section, []).append(option)
    return found


def resolve(value: str, known: typing.Mapping[str, str]) -> str:
    """Return ``value`` with the options and the variables that it refers to.

    :param known: values of options by name, for ``%(name)``; and of variables by ``$NAME``, for ``$(NAME)``.
    """

    def look_up(match: re.Match[str]) -> str | None:
        sign, name = match.groups()
        return known.get(f"${name}" if sign == "$" else name)

    filled = references.substitute(_VARIABLE, value, look_up)
    text = value if filled is None else filled
    return text.replace("%%", "%")
