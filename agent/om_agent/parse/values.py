"""What the value of a key may be: a text, a number, a truth value, one of some words, or names.

Pure. Each class reads a raw value as JSON, YAML or Heat gives it; Heat delivers numbers and truth values as text.
"""

from __future__ import annotations

import enum
import re
import typing

from om_agent import errors, fields
from om_agent.parse import mapping

_MAX_SEARCHED = 4096  # characters of a text that is not good in which to look for the reason
_TRUE = frozenset(("true", "yes", "on", "1", "t", "y"))
_FALSE = frozenset(("false", "no", "off", "0", "f", "n", ""))

Words = typing.Union["type[enum.Enum]", "tuple[str, ...]"]


class Text(typing.NamedTuple):
    """A text that a check accepts."""

    check: fields.Check

    def read(self, given: mapping.Mapping, name: str, raw: object) -> str | None:
        """Return the text, or the part of it that is used."""
        if not isinstance(raw, str):
            given.fail(name, "wrong-type", found=mapping.type_name(raw), wanted="text (in quotes)")
            return None
        if not self.check.good(raw):
            _refuse(given, name, raw, self.check)
            return None
        return self.check.keep(raw) if self.check.keep else raw

    def allowed(self) -> str:
        """Return what may be written, for the reference."""
        return self.check.short or self.check.wanted


class Number(typing.NamedTuple):
    """A whole number; digits in quotes are taken too.

    :param unit: what is counted.
    """

    low: int
    high: int
    unit: str = ""

    def read(self, given: mapping.Mapping, name: str, raw: object) -> int | None:
        """Return the number."""
        if isinstance(raw, str) and re.fullmatch(r"[0-9]{1,9}", raw.strip()):
            raw = int(raw)
        if isinstance(raw, bool) or not isinstance(raw, int):
            given.fail(name, "wrong-type", found=mapping.type_name(raw), wanted="a whole number")
            return None
        if not self.low <= raw <= self.high:
            given.fail(name, "out-of-range", low=self.low, high=self.high)
            return None
        return raw

    def allowed(self) -> str:
        """Return what may be written, for the reference."""
        return f"{self.low} to {self.high} {self.unit}".rstrip()


class Truth:
    """A truth value in any of Heat's and hiera's spellings."""

    def read(self, given: mapping.Mapping, name: str, raw: object) -> bool | None:
        """Return the truth value."""
        if isinstance(raw, int) and raw in (0, 1):
            return bool(raw)
        word = raw.lower() if isinstance(raw, str) else None
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
        given.fail(name, "wrong-type", found=mapping.type_name(raw), wanted="true or false")
        return None

    def allowed(self) -> str:
        """Return what may be written, for the reference."""
        return "true or false"


class Word(typing.NamedTuple):
    """One of some words: the values of an enumeration, whose member is returned, or the words themselves."""

    words: Words

    def known(self) -> list[str]:
        """Return the words that may be written."""
        return [word if isinstance(word, str) else word.value for word in self.words]

    def read(self, given: mapping.Mapping, name: str, raw: object) -> enum.Enum | str | None:
        """Return the word, or the member of the enumeration that it is the value of."""
        if not isinstance(raw, str):
            given.fail(name, "wrong-type", found=mapping.type_name(raw), wanted="text (in quotes)")
            return None
        if raw not in self.known():
            given.fail(name, "not-one-of", known=", ".join(self.known()))
            return None
        return raw if isinstance(self.words, tuple) else self.words(raw)

    def allowed(self) -> str:
        """Return what may be written, for the reference."""
        *first, last = (f"``{word}``" for word in self.known())
        return f"{', '.join(first)} or {last}"


class Names(typing.NamedTuple):
    """A list of distinct names, not empty.

    :param what: one of them.
    """

    check: fields.Check
    what: str

    def read(self, given: mapping.Mapping, name: str, raw: object) -> tuple[str, ...] | None:
        """Return the names that are good; None when ``raw`` is no list."""
        if not isinstance(raw, list):
            given.fail(name, "wrong-type", found=mapping.type_name(raw), wanted="a list")
            return None
        if not raw:
            given.fail(name, "empty-list", what=self.what)
        good: dict[str, int] = {}
        seen: dict[str, int] = {}
        for i, item in enumerate(raw):
            at = f"{name}[{i}]"
            if not isinstance(item, str):
                given.fail(at, "wrong-type", found=mapping.type_name(item), wanted="text (in quotes)")
                continue
            if not self.check.good(item):
                _refuse(given, at, item, self.check)
                continue
            first = seen.setdefault(fields.host_key(item) if self.check is fields.HOST else item, i)
            if first == i:
                good[item] = i
            else:
                code = "twice" if item in good or fields.is_address(item) else "same-name"
                given.fail(at, code, name=errors.quoted(item), first=given.at(f"{name}[{first}]"))
        return tuple(good)

    def allowed(self) -> str:
        """Return what may be written, for the reference."""
        return f"a list of {self.what}s"


class WordByRole(typing.NamedTuple):
    """A mapping from roles of nodes to one of some words each."""

    word: Word

    def read(self, given: mapping.Mapping, name: str, raw: object) -> dict[str, typing.Any] | None:
        """Return what the good roles are mapped to, in the order of the metadata."""
        if not isinstance(raw, dict):
            given.fail(name, "wrong-type", found=mapping.type_name(raw), wanted="a mapping")
            return None
        found: dict[str, typing.Any] = {}
        for role, value in raw.items():
            if not isinstance(role, str) or not fields.WORD.good(role):
                given.fail(name, "not-a-role", role=errors.key_name(role))
                continue
            word = None if value in (None, "") else self.word.read(given, f"{name}.{role}", value)
            if word is not None:
                found[role] = word
        return found

    def allowed(self) -> str:
        """Return what may be written, for the reference."""
        return f"a mapping from a role to {self.word.allowed()}"


def _refuse(given: mapping.Mapping, name: str, text: str, check: fields.Check) -> None:
    """Note that ``check`` does not accept the text at ``name``, without repeating the text."""
    code = check.code if text else "empty"
    if check is fields.CERTIFICATE and "PRIVATE KEY-----" in text:
        code = "key-in-certificate"
    which = _odd_character(text[:_MAX_SEARCHED], check.plain) if code == "bad-text" else ""
    given.fail(name, code, which=which, wanted=check.wanted, what=check.what)


def _odd_character(text: str, plain: bool) -> str:
    """Return a description of the first character that a check may not have accepted, without repeating the text.

    :param plain: whether the check accepts little more than letters and digits.
    """
    tests: list[typing.Callable[[str], bool]] = [fields.has_surrogate_or_nul, lambda c: not c.isprintable()]
    if plain:
        tests.append(lambda c: not (c.isascii() and (c.isalnum() or c in "._-/+=")))
    for test in tests:
        for i, c in enumerate(text):
            if test(c):
                return f"U+{ord(c):04X} at position {i + 1}"
    return "its form or length"
