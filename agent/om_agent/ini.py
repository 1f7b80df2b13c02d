"""Configuration files that others own: read by the rules of the program that reads them, and edited. Pure.

Two programs read such files. oslo.config (oslo_config/iniparser.py) reads ``oslo`` files: only a blank or a tab at the
start of a line continues a value, and section names have no case but for DEFAULT. PasteDeploy reads ``paste`` files
with Python's ConfigParser: a line continues a value when it is indented further than the key, blank lines and comments
may stand between, a section or a key may be indented, and one that stands twice is an error.

`edit` does what the puppet module does (``puppet_x/om_messaging/ini_text.rb``): the result is known, and checked,
before puppet writes it. A test holds the two editors together.
"""

from __future__ import annotations

import bisect
import configparser
import functools
import re
import typing

OSLO, PASTE = "oslo", "paste"

BLANK, COMMENT, HEADER, KEY, MORE, BAD = "blank", "comment", "header", "key", "more", "bad"
# Sections of this kind are kept in order at the end of a file.
_ORDERED = "oslo_messaging_"
_PASTE_HEADER = re.compile(r"\[(.+)\]")
BYTE_ORDER_MARK = "\ufeff"
_NOT_UTF_8 = re.compile("[\udc80-\udcff]")  # a byte as Python's surrogateescape shows it
_LARGE = 2**18  # characters of a text
_KINDS_OF_APP = re.compile(r"\A([^:\s]+):\s+")


class Value(typing.NamedTuple):
    """One occurrence of a key.

    :param continued: whether further lines belong to it.
    :param line: its number, from 1.
    """

    text: str
    continued: bool
    line: int = 0


class Line(typing.NamedTuple):
    """What one line is to the reader.

    :param name: of a header, the section as the reader compares it; of a key, the key.
    :param value: of a key, as the reader takes it; of a line that the reader rejects, why.
    :param start: of a key, where its value begins in the line.
    :param stop: of a key, where its value ends in the line.
    """

    kind: str
    name: str = ""
    value: str = ""
    start: int = 0
    stop: int = 0


class Fault(typing.NamedTuple):
    """A line that the reader rejects."""

    line: int
    why: str


Keys = dict[tuple[str, str], list[Value]]


def section_name(name: str, style: str = OSLO) -> str:
    """Return a section's name as its reader compares it."""
    if style == PASTE:
        return _KINDS_OF_APP.sub(r"\1:", name).rstrip() if ":" in name else name
    return name if name == "DEFAULT" else name.lower()


def read(text: str, style: str = OSLO) -> Keys:
    """Return every occurrence of every key, by (section as compared, key), in the order of the file."""
    found: Keys = {}
    section, last = "", None
    for number, line in enumerate(lines(text, style), 1):
        if line.kind == HEADER:
            section, last = line.name, None
        elif line.kind == KEY:
            last = (section, line.name)
            found.setdefault(last, []).append(Value(line.value, False, number))
        elif line.kind == MORE and last is not None:
            found[last][-1] = found[last][-1]._replace(continued=True)
    return found


def section_names(text: str, style: str = OSLO) -> frozenset[str]:
    """Return the sections of a file, as their reader compares them."""
    return frozenset(line.name for line in lines(text, style) if line.kind == HEADER)


def fault(text: str, style: str = OSLO) -> Fault | None:
    """Return the first line that the reader rejects, or None when it takes the whole file."""
    rows = enumerate(lines(text, style), 1)
    return next((Fault(number, line.value) for number, line in rows if line.kind == BAD), None)


def holds(keys: Keys, section: str, key: str, value: str | None, style: str = OSLO) -> bool:
    """Return whether the key has exactly ``value``; None means that it must not be there."""
    values = keys.get((section_name(section, style), key), [])
    if value is None:
        return not values
    return len(values) == 1 and not values[0].continued and values[0].text == value


def misread(before: str, after: str, wanted: typing.Sequence[tuple[str, str, str | None]], style: str) -> Fault | None:
    """Return the first line of ``after``, an edit of ``before``, that its reader does not take as is ``wanted``."""
    wrong = fault(after, style) or _by_config_parser(after, style)
    if wrong:
        return wrong._replace(why=f"an error: {wrong.why}")
    old, new = read(before, style), read(after, style)
    ours = {(section_name(section, style), key) for section, key, _ in wanted}
    for section, key, value in wanted:
        if not holds(new, section, key, value, style):
            found = new.get((section_name(section, style), key), [Value("", False, 1)])
            return Fault(found[-1].line, f"another value of {key}")
    for name in {**old, **new}:
        was, now = old.get(name, []), new.get(name, [])
        if name not in ours and [v[:2] for v in was] != [v[:2] for v in now]:
            return Fault((now or was)[0].line, f"another value of {name[1]}")
    return None


def _by_config_parser(text: str, style: str) -> Fault | None:
    """Return what the parser that PasteDeploy itself uses says to ``text``; oslo.config's is not always installed."""
    if style != PASTE:
        return None
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text)
    except configparser.Error as e:
        return Fault(getattr(e, "lineno", None) or 1, type(e).__name__)
    return None


# -- lines -----------------------------------------------------------------------------------------------------------


def lines(text: str, style: str = OSLO) -> tuple[Line, ...]:
    """Return what each line is to the reader of ``style``; kept, since many things are asked of one file."""
    return (_lines if len(text) < _LARGE else _lines_of_large)(text, style)


@functools.lru_cache(maxsize=16)
def _lines(text: str, style: str) -> tuple[Line, ...]:
    rows = text.split("\n")
    found = _paste_lines(rows) if style == PASTE else _oslo_lines(rows)
    if text.isascii():
        return tuple(found)
    return tuple(_unreadable(row, place) or line for place, (row, line) in enumerate(zip(rows, found)))


# As it is and as it will be: more would take memory for nothing.
_lines_of_large = functools.lru_cache(maxsize=2)(_lines.__wrapped__)


def _unreadable(row: str, place: int) -> Line | None:
    """Return why a line cannot be read whatever stands in it. Both readers decode UTF-8, and leave a byte order mark in
    the text: a header behind it is none."""
    if place == 0 and row.startswith(BYTE_ORDER_MARK):
        return Line(BAD, value="the file begins with a byte order mark, the bytes EF BB BF")
    wrong = _NOT_UTF_8.search(row)
    if wrong:
        return Line(BAD, value=f"the byte {ord(wrong[0]) - 0xDC00:02X} in it is not UTF-8")
    return None


def _stray_return(row: str) -> bool:
    """Return whether a line has a carriage return that Python takes for the end of a line, and this module does not."""
    return "\r" in row.removesuffix("\r")


def _oslo_lines(rows: typing.Iterable[str], begun: bool = False, opened: bool = False) -> typing.Iterator[Line]:
    """Yield what lines are.

    :param begun: whether a section stands before them.
    :param opened: whether the first one may continue a value.
    """
    for row in rows:
        line = _oslo_line(row, begun, opened)
        begun = begun or line.kind == HEADER
        opened = line.kind in (KEY, MORE)
        yield line


def _oslo_line(row: str, begun: bool, opened: bool) -> Line:
    line = row.rstrip()
    if _stray_return(row):
        return Line(BAD, value="a carriage return stands inside the line, which the service takes for its end")
    if not line:
        return Line(BLANK)
    if line[0] in " \t":
        return Line(MORE) if opened else Line(BAD, value="a continued line has no key before it")
    if line[0] == "[":
        return _oslo_header(line)
    if line[0] in "#;":
        return Line(COMMENT)
    key = _key(row)
    early = key.kind == KEY and not begun
    return Line(BAD, value="this stands before the first section") if early else key


def _oslo_header(line: str) -> Line:
    if line[-1] != "]":
        return Line(BAD, value="the section's name has no closing bracket at the end of the line")
    if len(line) == 2:
        return Line(BAD, value="the section has no name")
    return Line(HEADER, section_name(line[1:-1]))


def _key(row: str, style: str = OSLO) -> Line:
    equals, colon = row.find("="), row.find(":")
    separator = equals if colon < 0 or 0 <= equals < colon else colon
    if separator < 0:
        return Line(BAD, value="there is no = or : in the line")
    name = row[:separator].strip()
    if not name:
        return Line(BAD, value="there is no key before the = or :")
    rest = row[separator + 1 :]
    value = rest.strip()
    start = separator + 1 + (len(rest) - len(rest.lstrip()) if value else _blanks(rest))
    stop = start + len(value)
    if style == OSLO and value and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return Line(KEY, name, value, start, stop)


def _blanks(rest: str) -> int:
    """Return how many blanks and tabs begin what stands behind the = of an empty value."""
    return len(rest) - len(rest.lstrip(" \t"))


def _paste_lines(rows: typing.Sequence[str]) -> list[Line]:
    found: list[Line] = []
    section = ""
    indent, opened = 0, False
    seen: set[tuple[str, str]] = set()
    for row in rows:
        value, depth = row.strip(), len(row) - len(row.lstrip())
        header = _PASTE_HEADER.match(value)
        if _stray_return(row):
            found.append(
                Line(BAD, value="a carriage return stands inside the line, which the service takes for its end")
            )
        elif not value:
            found.append(Line(BLANK))
        elif value[0] in "#;":
            found.append(Line(COMMENT))
        elif opened and depth > indent:
            found.append(Line(MORE))
        elif header:
            section, indent, opened = section_name(header[1], PASTE), depth, False
            twice = (section, "") in seen and section != "DEFAULT"  # PasteDeploy calls it ambiguous
            seen.add((section, ""))
            found.append(Line(BAD, value="the section stands twice") if twice else Line(HEADER, section))
        elif not section:
            found.append(Line(BAD, value="this stands before the first section"))
        else:
            indent = depth
            line = _key(row, PASTE)
            if (section, line.name) in seen and line.kind == KEY:
                line = Line(BAD, value="the key stands twice in its section")
            seen.add((section, line.name))
            opened = opened or line.kind == KEY
            found.append(line)
    return found


# -- editing ---------------------------------------------------------------------------------------------------------


def edit(
    text: str,
    settings: typing.Iterable[tuple[str, str, str | None]],
    style: str = OSLO,
    removable: typing.Collection[str] = (),
) -> str:
    """Return ``text`` with each (section, key, value) set, or removed for a value of None.

    :param removable: sections, as compared, that go with their last key; the header of any other section stays.
    """
    editor = _Editor(text, style, removable)
    for section, key, value in settings:
        if value is None:
            editor.remove(section, key)
        else:
            editor.set(section, key, value)
    return "\n".join(editor.rows)


class _Editor:
    """The lines of one file; see the Ruby class of the same methods."""

    def __init__(self, text: str, style: str, removable: typing.Collection[str]) -> None:
        self.rows = text.split("\n")
        self.style = style
        self.removable = removable
        self.lines: list[Line] = []
        self.heads: list[int] = []  # places of headers
        self.look()

    def look(self) -> None:
        """See what all lines are."""
        self.lines = list(lines("\n".join(self.rows), self.style))
        self.heads = [i for i, line in enumerate(self.lines) if line.kind == HEADER]

    def replace(self, start: int, stop: int, *rows: str) -> None:
        """Put ``rows`` in the place of some lines."""
        new = self._read_in(start, stop, rows)
        self.rows[start:stop] = rows
        self.rows = self.rows or [""]  # as a text without any line is split
        if new is None:
            self.look()
            return
        self.lines[start:stop] = new
        first, last = bisect.bisect_left(self.heads, start), bisect.bisect_left(self.heads, stop)
        added = [start + i for i, line in enumerate(new) if line.kind == HEADER]
        shift = len(rows) - (stop - start)
        self.heads[first:] = [*added, *(place + shift for place in self.heads[last:])]

    def _read_in(self, start: int, stop: int, rows: typing.Sequence[str]) -> list[Line] | None:
        """Return what ``rows`` are in the place of some lines; None when that, or what the lines behind them are, is to
        be seen from the whole text. A large file would else be looked at anew for each key."""
        begun = bool(self.heads) and self.heads[0] < start
        if self.style == PASTE or not begun or any("\n" in row or _NOT_UTF_8.search(row) for row in rows):
            return None
        before, replaced = self.lines[start - 1], self.lines[stop - 1]
        found = list(_oslo_lines(rows, begun, before.kind in (KEY, MORE)))
        last = found[-1] if found else before
        behind = self.lines[stop].kind if stop < len(self.lines) else BLANK
        same = (last.kind in (KEY, MORE)) == (replaced.kind in (KEY, MORE))
        if BAD in (before.kind, replaced.kind) or (not same and behind in (MORE, BAD)):
            return None
        return found

    def sections(self) -> list[tuple[str, int, int]]:
        """Return (name, header's place, one past the last line) of each section."""
        ends = [*self.heads[1:], len(self.rows)]
        return [(self.lines[i].name, i, stop) for i, stop in zip(self.heads, ends)]

    def named(self, section: str) -> list[tuple[str, int, int]]:
        """Return the sections that the reader takes for ``section``."""
        name = section_name(section, self.style)
        found = [place for place, i in enumerate(self.heads) if self.lines[i].name == name]
        ends = [*self.heads[1:], len(self.rows)] if found else []
        return [(name, self.heads[place], ends[place]) for place in found]

    def entries(self, section: str, key: str) -> list[int]:
        """Return the places of a key."""
        spans = [range(first + 1, stop) for _, first, stop in self.named(section)]
        return [i for span in spans for i in span if self.lines[i].kind == KEY and self.lines[i].name == key]

    def set(self, section: str, key: str, value: str) -> None:
        """Give the key this value and no other. The last assignment is the one that counts, so that one stays."""
        *others, last = self.entries(section, key) or [-1]
        if last < 0:
            self.add(section, key, value)
            return
        row, line = self.rows[last], self.lines[last]
        self.drop(last, row[: line.start] + value + row[line.stop :])
        for place in reversed(others):
            self.drop(place)

    def remove(self, section: str, key: str) -> None:
        """Remove the key, and with it a removable section that has nothing left."""
        for place in reversed(self.entries(section, key)):
            self.drop(place)
            if section_name(section, self.style) in self.removable:
                self.remove_section(self.heads[bisect.bisect_left(self.heads, place) - 1])

    def drop(self, place: int, *row: str) -> None:
        """Put ``row`` in the place of a key and of the lines that continue it; comments between them stay."""
        last, stop = place, place + 1
        while stop < len(self.rows) and self.lines[stop].kind in (MORE, BLANK, COMMENT):
            last = stop if self.lines[stop].kind == MORE else last
            stop += 1
        kept = [self.rows[i] for i in range(place + 1, last + 1) if self.lines[i].kind == COMMENT]
        self.replace(place, last + 1, *row, *kept)

    def add(self, section: str, key: str, value: str) -> None:
        """Add a key below its commented example if there is one, else below the last line that is not blank."""
        block = next(iter(self.named(section)), None)
        if block is None:
            self.add_section(section, f"{key} = {value}")
            return
        example = re.compile(rf"\s*[#;]+\s*{re.escape(key)}\s*=")
        _, first, stop = block
        last, found = first, -1
        behind = (
            self.lines[stop].kind if stop < len(self.lines) else ""
        )  # the kind of the next line that says something
        for i in reversed(range(first, stop)):
            kind = self.lines[i].kind
            if kind == COMMENT and behind != MORE and example.match(self.rows[i]):
                found = i  # the first one, in the end
            last = i if last == first and kind != BLANK else last
            behind = kind if kind not in (BLANK, COMMENT) else behind
        place = found if found >= 0 else last
        end = "\r" if self.rows[first].endswith("\r") else ""
        self.replace(place + 1, place + 1, f"{self.indent(first, place)}{key} = {value}{end}")

    def indent(self, first: int, place: int) -> str:
        """Return the blanks before a new line behind ``place``: those of its neighbours, or the lines behind it would
        continue its value."""
        if self.style == OSLO:
            return ""
        before = [i for i in range(first + 1, place + 1) if self.lines[i].kind == KEY]
        behind = [i for i in range(place + 1, len(self.rows)) if self.lines[i].kind in (KEY, HEADER)]
        if not (before or behind):
            return ""
        row = self.rows[before[-1] if before else behind[0]]
        return row[: len(row) - len(row.lstrip())]

    def add_section(self, name: str, row: str) -> None:
        """Add a section with one line at the end, those of oslo.messaging in order."""
        end = "\r" if self.rows[0].endswith("\r") else ""
        tail: list[tuple[str, int, int]] = []
        for section in reversed(self.sections()):
            if not section[0].startswith(_ORDERED):
                break
            tail.insert(0, section)
        successor = next((first for title, first, _ in tail if title > section_name(name, self.style)), None)
        if successor is not None:
            self.replace(successor, successor, f"[{name}]{end}", f"{row}{end}", end)
            return
        last = len(self.rows) - 1 if not self.rows[-1] else len(self.rows)
        self.replace(last, last, *([end] if last else []), f"[{name}]{end}", f"{row}{end}")

    def remove_section(self, first: int) -> None:
        """Take away what `add_section` had put there: the header and one blank line beside it."""
        stop = next(stop for _, start, stop in self.sections() if start == first)
        if any(self.lines[i].kind != BLANK for i in range(first + 1, stop)):
            return
        beside = first - 1 if stop == len(self.rows) else first
        self.replace(first, first + 1)
        if beside >= 0 and beside < len(self.rows) and self.lines[beside].kind == BLANK:
            self.replace(beside, beside + 1)
