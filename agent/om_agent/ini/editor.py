"""An editor of the lines of a configuration file. Pure.

The puppet module has the same editor in Ruby (``puppet_x/om_messaging/ini_text.rb``); the methods have the same names.
"""

from __future__ import annotations

import bisect
import re
import typing

from om_agent.ini import syntax

# The editor keeps the sections with this prefix sorted at the end of a file.
_ORDERED = "oslo_messaging_"
_MAY_FOLLOW_VALUE = (syntax.MORE, syntax.BLANK, syntax.COMMENT)
_OPENS_VALUE = (syntax.KEY, syntax.MORE)


class Section(typing.NamedTuple):
    """Where a section is: the place of its header, and the place after its last line."""

    name: str
    first: int
    stop: int


class Editor:
    """The lines of one file, with what each line means.

    :param removable: names of the sections that are removed with their last key.
    """

    def __init__(self, text: str, style: str, removable: typing.Collection[str]) -> None:
        self.rows = text.split("\n")
        self.style = style
        self.removable = removable
        self.lines: list[syntax.Line] = []
        self.heads: list[int] = []  # the places of headers
        self._read()

    def _read(self) -> None:
        """Find out what all lines mean."""
        text = "\n".join(self.rows)
        self.lines = list(syntax.lines(text, self.style))
        self.heads = [place for place, line in enumerate(self.lines) if line.kind == syntax.HEADER]

    def replace(self, start: int, stop: int, *rows: str) -> None:
        """Replace the lines from ``start`` up to ``stop`` by ``rows``."""
        new = self._read_part(start, stop, rows)
        self.rows[start:stop] = rows
        self.rows = self.rows or [""]  # an empty text has one empty line
        if new is None:
            self._read()
            return
        self.lines[start:stop] = new
        first = bisect.bisect_left(self.heads, start)
        last = bisect.bisect_left(self.heads, stop)
        added = [start + offset for offset, line in enumerate(new) if line.kind == syntax.HEADER]
        shift = len(rows) - (stop - start)
        moved = [place + shift for place in self.heads[last:]]
        self.heads[first:] = [*added, *moved]

    def _read_part(self, start: int, stop: int, rows: typing.Sequence[str]) -> list[syntax.Line] | None:
        """Return what ``rows`` mean in the place of some lines.

        None when only the whole text shows that, or when the change affects the lines that follow. Without this, the
        editor would read a large file again for each key.
        """
        in_section = bool(self.heads) and self.heads[0] < start
        if self.style == syntax.PASTE or not in_section:
            return None
        if any("\n" in row or syntax.NOT_UTF_8.search(row) for row in rows):
            return None
        before = self.lines[start - 1]
        replaced = self.lines[stop - 1]
        new = list(syntax.oslo_lines(rows, in_section, before.kind in _OPENS_VALUE))
        last = new[-1] if new else before
        next_kind = self.lines[stop].kind if stop < len(self.lines) else syntax.BLANK
        opens_value = last.kind in _OPENS_VALUE
        opened_value = replaced.kind in _OPENS_VALUE
        if syntax.BAD in (before.kind, replaced.kind):
            return None
        if opens_value != opened_value and next_kind in (syntax.MORE, syntax.BAD):
            return None
        return new

    def sections(self) -> list[Section]:
        """Return all sections."""
        stops = [*self.heads[1:], len(self.rows)]
        return [Section(self.lines[first].name, first, stop) for first, stop in zip(self.heads, stops)]

    def named(self, section: str) -> list[Section]:
        """Return the sections that the reader takes for ``section``."""
        name = syntax.section_name(section, self.style)
        numbers = [number for number, first in enumerate(self.heads) if self.lines[first].name == name]
        found: list[Section] = []
        for number in numbers:
            is_last = number + 1 == len(self.heads)
            stop = len(self.rows) if is_last else self.heads[number + 1]
            found.append(Section(name, self.heads[number], stop))
        return found

    def entries(self, section: str, key: str) -> list[int]:
        """Return the places of a key."""
        found: list[int] = []
        for one in self.named(section):
            places = range(one.first + 1, one.stop)
            found += [i for i in places if self.lines[i].kind == syntax.KEY and self.lines[i].name == key]
        return found

    def set(self, section: str, key: str, value: str) -> None:
        """Give the key this value only. Of several lines the last one counts, so the editor keeps that one."""
        places = self.entries(section, key)
        if not places:
            self.add(section, key, value)
            return
        *others, last = places
        row = self.rows[last]
        line = self.lines[last]
        self.drop(last, row[: line.start] + value + row[line.stop :])
        for place in reversed(others):
            self.drop(place)

    def remove(self, section: str, key: str) -> None:
        """Remove the key, and then a removable section that has nothing left."""
        is_removable = syntax.section_name(section, self.style) in self.removable
        for place in reversed(self.entries(section, key)):
            self.drop(place)
            if is_removable:
                number = bisect.bisect_left(self.heads, place) - 1
                self.remove_section(self.heads[number])

    def drop(self, place: int, *row: str) -> None:
        """Replace a key, and the lines that continue it, by ``row``. Comments between them stay."""
        last = place
        stop = place + 1
        while stop < len(self.rows) and self.lines[stop].kind in _MAY_FOLLOW_VALUE:
            if self.lines[stop].kind == syntax.MORE:
                last = stop
            stop += 1
        comments = [self.rows[i] for i in range(place + 1, last + 1) if self.lines[i].kind == syntax.COMMENT]
        self.replace(place, last + 1, *row, *comments)

    def add(self, section: str, key: str, value: str) -> None:
        """Add a key below its commented example if there is one, else at the end of the section, before blank lines."""
        found = self.named(section)
        if not found:
            self.add_section(section, f"{key} = {value}")
            return
        first = found[0].first
        place = self._place_in(found[0], key)
        row = f"{self.indent(first, place)}{key} = {value}{self._line_end(first)}"
        self.replace(place + 1, place + 1, row)

    def _place_in(self, section: Section, key: str) -> int:
        """Return the place of the line below which a new key belongs."""
        example = re.compile(rf"\s*[#;]+\s*{re.escape(key)}\s*=")
        _, first, stop = section
        last = first
        example_place = -1
        next_kind = self.lines[stop].kind if stop < len(self.lines) else ""  # of the next line that is no comment
        for place in reversed(range(first, stop)):
            kind = self.lines[place].kind
            # A comment inside a value that spans lines is no place for a key.
            if kind == syntax.COMMENT and next_kind != syntax.MORE and example.match(self.rows[place]):
                example_place = place  # the first example, at the end of the loop
            if last == first and kind != syntax.BLANK:
                last = place
            if kind not in (syntax.BLANK, syntax.COMMENT):
                next_kind = kind
        return example_place if example_place >= 0 else last

    def _line_end(self, place: int) -> str:
        """Return the carriage return that ends a line, if there is one."""
        return "\r" if self.rows[place].endswith("\r") else ""

    def indent(self, first: int, place: int) -> str:
        """Return the white space before a new line below ``place``: that of a neighbour.

        With less, the lines that follow would continue the value of the new line.
        """
        if self.style == syntax.OSLO:
            return ""
        neighbour = self._neighbour(first, place)
        if neighbour is None:
            return ""
        row = self.rows[neighbour]
        return row[: len(row) - len(row.lstrip())]

    def _neighbour(self, first: int, place: int) -> int | None:
        """Return the place of the last key before a new line, else of the first key or header after it."""
        for before in reversed(range(first + 1, place + 1)):
            if self.lines[before].kind == syntax.KEY:
                return before
        for after in range(place + 1, len(self.rows)):
            if self.lines[after].kind in (syntax.KEY, syntax.HEADER):
                return after
        return None

    def add_section(self, name: str, row: str) -> None:
        """Add a section with one line at the end; the sections of oslo.messaging stay sorted."""
        end = self._line_end(0)
        compared = syntax.section_name(name, self.style)
        successors = [section.first for section in self._ordered_tail() if section.name > compared]
        if successors:
            place = successors[0]
            self.replace(place, place, f"[{name}]{end}", f"{row}{end}", end)
            return
        last = len(self.rows) if self.rows[-1] else len(self.rows) - 1
        separator = [end] if last else []
        self.replace(last, last, *separator, f"[{name}]{end}", f"{row}{end}")

    def _ordered_tail(self) -> list[Section]:
        """Return the sections of oslo.messaging at the end of the file."""
        tail: list[Section] = []
        for section in reversed(self.sections()):
            if not section.name.startswith(_ORDERED):
                break
            tail.insert(0, section)
        return tail

    def remove_section(self, first: int) -> None:
        """Remove what `add_section` added, if the section is empty: the header and one blank line next to it."""
        stop = next(section.stop for section in self.sections() if section.first == first)
        if any(line.kind != syntax.BLANK for line in self.lines[first + 1 : stop]):
            return
        is_last = stop == len(self.rows)
        neighbour = first - 1 if is_last else first
        self.replace(first, first + 1)
        if 0 <= neighbour < len(self.rows) and self.lines[neighbour].kind == syntax.BLANK:
            self.replace(neighbour, neighbour + 1)
