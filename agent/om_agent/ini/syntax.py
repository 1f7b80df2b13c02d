"""What each line of a configuration file means to the program that reads the file. Pure."""

from __future__ import annotations

import functools
import re
import typing

OSLO, PASTE = "oslo", "paste"

BLANK, COMMENT, HEADER, KEY, MORE, BAD = "blank", "comment", "header", "key", "more", "bad"
BYTE_ORDER_MARK = "\ufeff"
NOT_UTF_8 = re.compile("[\udc80-\udcff]")  # a byte that Python decoded with surrogateescape
_PASTE_HEADER = re.compile(r"\[(.+)\]")
_KIND_OF_APP = re.compile(r"\A([^:\s]+):\s+")
_LARGE = 2**18  # characters


class Line(typing.NamedTuple):
    """What one line means.

    :param name: of a header, the section's name in the form that the reader compares; of a key, the key.
    :param value: of a key, the value as the reader takes it; of a line that the reader rejects, the reason.
    :param start: of a key, where its value begins in the line.
    :param stop: of a key, where its value ends in the line.
    """

    kind: str
    name: str = ""
    value: str = ""
    start: int = 0
    stop: int = 0


def _bad(reason: str) -> Line:
    """Return a line that the reader rejects."""
    return Line(BAD, value=reason)


_STRAY_RETURN = _bad("there is a carriage return inside the line, which the service takes for the end of the line")
_NO_SECTION = _bad("this stands before the first section")


def section_name(name: str, style: str = OSLO) -> str:
    """Return a section's name in the form that its reader compares."""
    if style == PASTE:
        return _KIND_OF_APP.sub(r"\1:", name).rstrip() if ":" in name else name
    return name if name == "DEFAULT" else name.lower()


def lines(text: str, style: str = OSLO) -> tuple[Line, ...]:
    """Return what each line means to the reader of ``style``.

    The result is cached, since one run asks several times.
    """
    cached = _lines if len(text) < _LARGE else _lines_of_large
    return cached(text, style)


@functools.lru_cache(maxsize=16)
def _lines(text: str, style: str) -> tuple[Line, ...]:
    rows = text.split("\n")
    found = _paste_lines(rows) if style == PASTE else oslo_lines(rows)
    if text.isascii():
        return tuple(found)
    checked: list[Line] = []
    for place, (row, line) in enumerate(zip(rows, found)):
        checked.append(_undecodable(row, place) or line)
    return tuple(checked)


# The file before and after the edit. A larger cache would only use memory.
_lines_of_large = functools.lru_cache(maxsize=2)(_lines.__wrapped__)


def _undecodable(row: str, place: int) -> Line | None:
    """Return a bad line if ``row`` cannot be read at all.

    Both readers decode UTF-8, and keep a byte order mark in the text. A header behind that mark is no header to them.
    """
    if place == 0 and row.startswith(BYTE_ORDER_MARK):
        return _bad("the file begins with a byte order mark, the bytes EF BB BF")
    match = NOT_UTF_8.search(row)
    if match:
        byte = ord(match[0]) - 0xDC00
        return _bad(f"the byte {byte:02X} in it is not UTF-8")
    return None


def _has_stray_return(row: str) -> bool:
    """Return whether a carriage return inside the line ends the line for Python, but not for this module."""
    return "\r" in row.removesuffix("\r")


# -- oslo.config -----------------------------------------------------------------------------------------------------


def oslo_lines(
    rows: typing.Iterable[str], in_section: bool = False, may_continue: bool = False
) -> typing.Iterator[Line]:
    """Yield what lines mean to oslo.config.

    :param in_section: whether the lines follow a section's header.
    :param may_continue: whether the first line may continue a value.
    """
    for row in rows:
        line = _oslo_line(row, in_section, may_continue)
        in_section = in_section or line.kind == HEADER
        may_continue = line.kind in (KEY, MORE)
        yield line


def _oslo_line(row: str, in_section: bool, may_continue: bool) -> Line:
    line = row.rstrip()
    if _has_stray_return(row):
        return _STRAY_RETURN
    if not line:
        return Line(BLANK)
    if line[0] in " \t":
        return Line(MORE) if may_continue else _bad("a continued line has no key before it")
    if line[0] == "[":
        return _oslo_header(line)
    if line[0] in "#;":
        return Line(COMMENT)
    key = _key(row)
    if key.kind == KEY and not in_section:
        return _NO_SECTION
    return key


def _oslo_header(line: str) -> Line:
    if line[-1] != "]":
        return _bad("the section's name has no closing bracket at the end of the line")
    if len(line) == 2:
        return _bad("the section has no name")
    return Line(HEADER, section_name(line[1:-1]))


# -- both ------------------------------------------------------------------------------------------------------------


def _key(row: str, style: str = OSLO) -> Line:
    separator = _separator(row)
    if separator < 0:
        return _bad("there is no = or : in the line")
    name = row[:separator].strip()
    if not name:
        return _bad("there is no key before the = or :")
    rest = row[separator + 1 :]
    value = rest.strip()
    # An empty value begins after the blanks and tabs that follow the separator.
    begin = rest.lstrip() if value else rest.lstrip(" \t")
    start = separator + 1 + len(rest) - len(begin)
    stop = start + len(value)
    is_quoted = bool(value) and value[0] == value[-1] and value[0] in "\"'"
    if style == OSLO and is_quoted:
        value = value[1:-1]
    return Line(KEY, name, value, start, stop)


def _separator(row: str) -> int:
    """Return the place of the first = or : of a line; -1 without one."""
    equals = row.find("=")
    colon = row.find(":")
    if equals < 0 or colon < 0:
        return max(equals, colon)
    return min(equals, colon)


# -- PasteDeploy -----------------------------------------------------------------------------------------------------


def _paste_lines(rows: typing.Sequence[str]) -> list[Line]:
    """Return what lines mean to PasteDeploy."""
    reader = _PasteReader()
    return [reader.read(row) for row in rows]


class _PasteReader:
    """Reads the lines of one file one after the other."""

    def __init__(self) -> None:
        self._section = ""
        self._indent = 0  # of the last key or header
        self._may_continue = False
        self._seen: set[tuple[str, str]] = set()  # section and key; an empty key stands for the header

    def read(self, row: str) -> Line:
        """Return what the next line means."""
        text = row.strip()
        indent = len(row) - len(row.lstrip())
        if _has_stray_return(row):
            return _STRAY_RETURN
        if not text:
            return Line(BLANK)
        if text[0] in "#;":
            return Line(COMMENT)
        if self._may_continue and indent > self._indent:
            return Line(MORE)
        header = _PASTE_HEADER.match(text)
        if header:
            self._indent = indent
            return self._header(section_name(header[1], PASTE))
        if not self._section:
            return _NO_SECTION
        self._indent = indent
        return self._key(row)

    def _header(self, name: str) -> Line:
        self._section = name
        self._may_continue = False
        is_second = (name, "") in self._seen and name != "DEFAULT"  # PasteDeploy calls that ambiguous
        self._seen.add((name, ""))
        return _bad("the section occurs twice") if is_second else Line(HEADER, name)

    def _key(self, row: str) -> Line:
        line = _key(row, PASTE)
        is_key = line.kind == KEY
        is_second = is_key and (self._section, line.name) in self._seen
        self._seen.add((self._section, line.name))
        if is_second:
            return _bad("the key occurs twice in its section")
        self._may_continue = self._may_continue or is_key
        return line
