"""Configuration files that others own: read by the rules of the program that reads them, and edited. Pure.

Two programs read such files. oslo.config (oslo_config/iniparser.py) reads ``oslo`` files: only a line that begins with
a blank or a tab continues a value, and section names are case-insensitive except DEFAULT. PasteDeploy reads ``paste``
files with Python's ConfigParser: a line continues a value when it is indented further than the key, blank lines and
comments may stand in between, a section or a key may be indented, and a section or a key that occurs twice is an error.

`edit` does the same as the puppet module, so that the agent knows and checks the result before puppet writes the file.
A test compares the two editors.
"""

from __future__ import annotations

import configparser
import typing

from om_agent.ini import editor, syntax

OSLO, PASTE = syntax.OSLO, syntax.PASTE
BYTE_ORDER_MARK = syntax.BYTE_ORDER_MARK
section_name = syntax.section_name


class Value(typing.NamedTuple):
    """One occurrence of a key.

    :param continued: whether further lines continue the value.
    :param line: number of the line, from 1.
    """

    text: str
    continued: bool
    line: int = 0


class Fault(typing.NamedTuple):
    """A line that the reader rejects."""

    line: int
    why: str


Keys = dict[tuple[str, str], list[Value]]


def read(text: str, style: str = OSLO) -> Keys:
    """Return every occurrence of every key in the order of the file, by section and key.

    The section's name has the form that the reader compares.
    """
    found: Keys = {}
    section = ""
    last: tuple[str, str] | None = None
    for number, line in enumerate(syntax.lines(text, style), 1):
        if line.kind == syntax.HEADER:
            section = line.name
            last = None
        elif line.kind == syntax.KEY:
            last = (section, line.name)
            found.setdefault(last, []).append(Value(line.value, False, number))
        elif line.kind == syntax.MORE and last is not None:
            values = found[last]
            values[-1] = values[-1]._replace(continued=True)
    return found


def section_names(text: str, style: str = OSLO) -> frozenset[str]:
    """Return the names of the sections of a file, in the form that their reader compares."""
    return frozenset(line.name for line in syntax.lines(text, style) if line.kind == syntax.HEADER)


def fault(text: str, style: str = OSLO) -> Fault | None:
    """Return the first line that the reader rejects; None when it accepts the whole file."""
    for number, line in enumerate(syntax.lines(text, style), 1):
        if line.kind == syntax.BAD:
            return Fault(number, line.value)
    return None


def holds(keys: Keys, section: str, key: str, value: str | None, style: str = OSLO) -> bool:
    """Return whether the key has exactly ``value``; for None, whether the key is absent."""
    values = keys.get((section_name(section, style), key), [])
    if value is None:
        return not values
    return len(values) == 1 and not values[0].continued and values[0].text == value


def misread(before: str, after: str, wanted: typing.Sequence[tuple[str, str, str | None]], style: str) -> Fault | None:
    """Return the first line of ``after`` that its reader takes otherwise than intended; None when there is none.

    :param after: the result of an edit of ``before``.
    :param wanted: the settings of that edit. All other keys must keep their values.
    """
    error = fault(after, style) or _config_parser_fault(after, style)
    if error:
        return error._replace(why=f"an error: {error.why}")
    old = read(before, style)
    new = read(after, style)
    edited = {(section_name(section, style), key) for section, key, _ in wanted}
    for section, key, value in wanted:
        if not holds(new, section, key, value, style):
            found = new.get((section_name(section, style), key), [Value("", False, 1)])
            return Fault(found[-1].line, f"another value of {key}")
    for name in {**old, **new}:
        was = old.get(name, [])
        now = new.get(name, [])
        if name not in edited and [value[:2] for value in was] != [value[:2] for value in now]:
            _, key = name
            return Fault((now or was)[0].line, f"another value of {key}")
    return None


def _config_parser_fault(text: str, style: str) -> Fault | None:
    """Return the error of the parser that PasteDeploy itself uses.

    oslo.config's parser is not called, since oslo.config is not always installed.
    """
    if style != PASTE:
        return None
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text)
    except configparser.Error as e:
        return Fault(getattr(e, "lineno", None) or 1, type(e).__name__)
    return None


def edit(
    text: str,
    settings: typing.Iterable[tuple[str, str, str | None]],
    style: str = OSLO,
    removable: typing.Collection[str] = (),
) -> str:
    """Return ``text`` with each (section, key, value) set, or with the key removed for a value of None.

    :param removable: names of the sections that are removed with their last key, in the form that the reader compares.
        The header of any other section stays.
    """
    edited = editor.Editor(text, style, removable)
    for section, key, value in settings:
        if value is None:
            edited.remove(section, key)
        else:
            edited.set(section, key, value)
    return "\n".join(edited.rows)
