"""Regular expressions that look at PEM text do work in proportion to its length. Steps are counted, not time.

Python's engine tells nobody how much it does, so a small one of the same kind (it tries one thing after the other, and
goes back) does the same search here and counts.
"""

from __future__ import annotations

import importlib
import re
import sys
import typing

import pytest
from om_agent import certs, fields

_parser: typing.Any = importlib.import_module("re._parser")
_Node = typing.Any
_Then = typing.Callable[[int], bool]
_CLASSES = {"CATEGORY_SPACE": str.isspace, "CATEGORY_DIGIT": str.isdigit}


class Matcher:
    """A regular expression that counts each character and each place it looks at."""

    def __init__(self, pattern: str, flags: int = 0) -> None:
        self.tree = list(_parser.parse(pattern, flags))
        self.steps = 0
        self.text = ""
        self.groups: dict[int, str] = {}

    def search(self, text: str, start: int = 0) -> tuple[int, int] | None:
        """Return where the first match begins and ends."""
        self.text = text
        for place in range(start, len(text) + 1):
            end: list[int] = []
            if self._match(self.tree, place, lambda stop, end=end: end.append(stop) is None):  # type: ignore[misc]
                return place, end[-1]
        return None

    def find_all(self, text: str) -> list[str]:
        """Return every match, as finditer does."""
        found, start = [], 0
        while (span := self.search(text, start)) is not None:
            found.append(text[slice(*span)])
            start = max(span[1], span[0] + 1)
        return found

    def _match(self, nodes: list[_Node], place: int, then: _Then) -> bool:
        self.steps += 1
        if not nodes:
            return then(place)
        (code, value), rest = nodes[0], nodes[1:]
        name = str(code)
        if name == "AT":
            return self._at(str(value), place) and self._match(rest, place, then)
        if name == "SUBPATTERN":
            group, _, _, inner = value
            return self._match(list(inner), place, lambda stop: self._close(group, place, stop, rest, then))
        if name == "GROUPREF":
            told = self.groups.get(value, "")
            return self.text.startswith(told, place) and self._match(rest, place + len(told), then)
        if name == "MAX_REPEAT":
            return self._repeat(value, place, lambda stop: self._match(rest, stop, then))
        if name == "BRANCH":
            return any(self._match([*choice, *rest], place, then) for choice in value[1])
        return self._one(nodes[0], place) and self._match(rest, place + 1, then)

    def _close(self, group: int | None, start: int, stop: int, rest: list[_Node], then: _Then) -> bool:
        if group is not None:
            self.groups[group] = self.text[start:stop]
        return self._match(rest, stop, then)

    def _repeat(self, value: _Node, place: int, then: _Then) -> bool:
        least, most, inner = value
        if len(inner) > 1 or str(inner[0][0]) == "SUBPATTERN":
            return self._repeat_group(list(inner), least, int(most), place, then)
        stop = place
        while stop < len(self.text) and stop - place < int(most) and self._one(inner[0], stop):
            stop += 1
        return any(then(at) for at in range(stop, place + least - 1, -1))

    def _repeat_group(self, inner: list[_Node], least: int, most: int, place: int, then: _Then) -> bool:
        def again(stop: int) -> bool:
            return stop > place and self._repeat_group(inner, least - 1, most - 1, stop, then)

        if most > 0 and self._match(inner, place, again):
            return True
        return least <= 0 and then(place)

    def _at(self, name: str, place: int) -> bool:
        before, behind = self.text[place - 1 : place], self.text[place : place + 1]
        found = {"AT_BEGINNING": before in ("", "\n"), "AT_END": behind in ("", "\n"), "AT_END_STRING": behind == ""}
        return found[name]

    def _one(self, node: _Node, place: int) -> bool:
        self.steps += 1
        character = self.text[place : place + 1]
        return bool(character) and _takes(node, character)


def _takes(node: _Node, character: str) -> bool:
    """Return whether one character fits a node that takes one."""
    name, value = str(node[0]), node[1]
    if name == "LITERAL":
        return bool(ord(character) == value)
    if name == "NOT_LITERAL":
        return bool(ord(character) != value)
    if name == "RANGE":
        return bool(value[0] <= ord(character) <= value[1])
    if name == "CATEGORY":
        return _CLASSES[str(value)](character)
    assert name == "IN", name
    negated = str(value[0][0]) == "NEGATE"
    return any(_takes(one, character) for one in value[negated:]) is not negated


def hostile(what: str, size: int) -> list[str]:
    """Texts of about ``size`` characters that are nearly PEM."""
    begin, end = f"-----BEGIN {what}-----", f"-----END {what}-----"
    return [
        f"{begin}{filling}{tail}"
        for filling in (
            "\n" * size,
            " " * size,
            "\r" * size,
            "\t\n" * (size // 2),
            "A" * size,
            f"\n{begin}" * (size // 30),
        )
        for tail in ("", "-", f"\n{end[:-1]}", f"{end}")
    ] + [
        "-" * size,
        "-----BEGIN " + "A " * (size // 2),
        "\n" * size,
        "-----BEGIN " * (size // 11),
        f"{begin}\nMIIB\n{end}" + "\n" * size + "x",
        f"{begin}\nMIIB\n{end}" + " \n" * (size // 2) + "x",
    ]


def quadratic(steps: typing.Callable[[str], int], what: str) -> list[str]:
    """Return the texts for which four times the length is more than about four times the work."""
    small, large = hostile(what, 60), hostile(what, 240)
    return [text[:40] for text, longer in zip(small, large) if steps(longer) > 5 * steps(text) + 500]


@pytest.fixture(autouse=True)
def deep() -> typing.Iterator[None]:
    """This engine calls itself for each repetition of a group."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield
    sys.setrecursionlimit(before)


class Counting:
    """In the place of the module ``re``: looks as it does, and counts."""

    def __init__(self) -> None:
        self.steps = 0

    def search(self, pattern: str, text: str, flags: int = 0) -> re.Match[str] | None:
        """Search with both engines, which must find the same."""
        matcher, found = Matcher(pattern, flags), re.search(pattern, text, flags)
        assert matcher.search(text) == (found.span() if found else None)
        self.steps += matcher.steps
        return found

    def __getattr__(self, name: str) -> typing.Any:
        return getattr(re, name)


def test_the_count_sees_what_is_quadratic() -> None:
    """The expression of old for ``tls.key``, for which 16,000 line breaks took 5.6 s."""

    def steps(text: str) -> int:
        old = Counting()
        old.search(r"^-----BEGIN ([A-Z0-9 ]+ )?PRIVATE KEY-----\s*$[^-]+^-----END ([A-Z0-9 ]+ )?PRIVATE KEY-----\s*$",
                   text, re.MULTILINE)  # fmt: skip
        return old.steps

    assert quadratic(steps, "PRIVATE KEY")


def test_a_key_of_line_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting()
    monkeypatch.setattr(fields, "re", counting)

    def steps(text: str) -> int:
        counting.steps = 0
        fields.PRIVATE_KEY.good(text)
        return counting.steps

    assert steps("\n" * 100) > 100  # it was looked at, by this engine
    assert quadratic(steps, "PRIVATE KEY") == []
    assert quadratic(steps, "RSA PRIVATE KEY") == []


@pytest.mark.parametrize("expression", [fields._CERTIFICATE, fields._BEGINS_CERTIFICATE, certs._BLOCK])
def test_certificates(expression: re.Pattern[str]) -> None:
    def steps(text: str) -> int:
        matcher = Matcher(expression.pattern, expression.flags)
        assert matcher.find_all(text) == [match.group() for match in expression.finditer(text)]
        return matcher.steps

    assert quadratic(steps, "CERTIFICATE") == []
