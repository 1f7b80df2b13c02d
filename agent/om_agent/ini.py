"""Reading keys of configuration files that others own, to see whether they already say what they should. Pure.

Lines are understood as puppet's inifile module edits them and as oslo.config reads them (a line that starts with white
space continues the value before it: oslo_config/iniparser.py).
"""

from __future__ import annotations

import re
import typing

_SECTION = re.compile(r"\[(.*)\]$")
_KEY = re.compile(r"([^#;\s\[=:][^=:]*?)\s*[=:]\s*(.*?)\s*$")


class Value(typing.NamedTuple):
    """One occurrence of a key.

    :param continued: whether further lines belong to it.
    """

    text: str
    continued: bool


Keys = dict[tuple[str, str], list[Value]]


def read(text: str) -> Keys:
    """Return every occurrence of every key, by (section, key), in the order of the file."""
    found: Keys = {}
    section, last = "", None
    for line in text.split("\n"):
        if not line.strip():
            last = None
        elif line[0] in " \t" and last is not None:
            found[last][-1] = found[last][-1]._replace(continued=True)
        elif line.lstrip()[0] in "#;":
            continue
        elif match := _SECTION.match(line.strip()):
            section, last = match.group(1), None
        elif match := _KEY.match(line.strip()):
            last = (section, match.group(1))
            found.setdefault(last, []).append(Value(match.group(2), False))
        else:
            last = None
    return found


def holds(keys: Keys, section: str, key: str, value: str | None) -> bool:
    """Return whether the key has exactly ``value``; None means that it must not be there."""
    values = keys.get((section, key), [])
    return not values if value is None else values == [Value(value, False)]
