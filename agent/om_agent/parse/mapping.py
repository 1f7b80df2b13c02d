"""A declaration of the keys that a mapping of the metadata may have, and the mapping read by its declaration.

Pure. Whatever is wrong is noted as a problem at its path, and the key's default is taken in its place, so that one run
reports every problem.
"""

from __future__ import annotations

import math
import typing

from om_agent import errors, kinds, model


class Value(typing.Protocol):
    """What the value of a key may be; `om_agent.parse.values` has the kinds of values."""

    def read(self, mapping: Mapping, name: str, raw: object) -> typing.Any:
        """Return the value that ``raw`` stands for, or None after noting what is wrong with it."""

    def allowed(self) -> str:
        """Return what may be written, for the reference."""


class Key(typing.NamedTuple):
    """One key of the metadata. The parser, the reference and the tests' lists of keys all come from it.

    A named tuple is as frozen as a dataclass and costs the start of every command a tenth as much.

    :param name: as the metadata spells it.
    :param value: what its value may be.
    :param text: what the key is for: a sentence or a few, as reStructuredText.
    :param default: the value when the key is not given. None when it is computed, or when nothing takes its place.
    :param default_text: says what is taken when the key is not given, where ``default`` itself does not.
    :param required: not empty when the key must be given; the sentence of the problem then ends with it.
    :param secret: whether the value is read as a `model.Secret`.
    """

    name: str
    value: Value
    text: str
    default: typing.Any = None
    default_text: str = ""
    required: str = ""
    secret: bool = False

    @property
    def echo(self) -> bool:
        """Whether a message may repeat a value that is wrong: never a secret, nor a mapping with secrets in it."""
        if self.secret or isinstance(self.value, (Nested, Mappings)):
            return False
        check = getattr(self.value, "check", None)
        return check is None or bool(check.echo)


Keys = tuple[Key, ...]


class Nested(typing.NamedTuple):
    """A mapping with keys of its own; it may be left out, and then counts as empty."""

    keys: Keys

    def read(self, mapping: Mapping, name: str, raw: object) -> Mapping:
        """Return the mapping, read."""
        return Mapping(raw, self.keys, mapping.at(name), mapping.problems)

    def allowed(self) -> str:
        """Return what may be written, for the reference."""
        return "a mapping"


class Mappings(typing.NamedTuple):
    """A list of mappings that have the same keys.

    :param what: names one of them when the list may not be empty.
    """

    keys: Keys
    what: str = ""

    def read(self, mapping: Mapping, name: str, raw: object) -> tuple[Mapping, ...] | None:
        """Return the mappings, read; None when ``raw`` is no list."""
        if not isinstance(raw, list):
            mapping.fail(name, "wrong-type", found=type_name(raw), wanted="a list")
            return None
        if self.what and not raw:
            mapping.fail(name, "empty-list", what=self.what)
        at, keys, problems = mapping.at(name), self.keys, mapping.problems
        return tuple(Mapping(item, keys, f"{at}[{i}]", problems) for i, item in enumerate(raw))

    def allowed(self) -> str:
        """Return what may be written, for the reference."""
        names = ", ".join(key.name for key in self.keys)
        return f"a list of mappings with {names}"


class Mapping:
    """One mapping of the metadata, read whole.

    :ivar path: its path below ``oslo_messaging``.
    :ivar problems: the list of problems that all mappings share.
    :ivar sound: whether it is a mapping in which nothing is wrong.
    """

    __slots__ = ("_raw", "_values", "path", "problems", "sound")

    def __init__(self, raw: object, keys: Keys, path: str, problems: list[errors.Problem]) -> None:
        self.path = path
        self.problems = problems
        self._raw: dict[object, object] = raw if isinstance(raw, dict) else {}
        self._values: dict[str, typing.Any] = {}
        before = len(problems)
        is_mapping = raw is None or isinstance(raw, dict)
        if not is_mapping:
            self.fail("", "wrong-type", found=type_name(raw), wanted="a mapping")
        self._read(keys, is_mapping)
        self.sound = len(problems) == before

    def _read(self, keys: Keys, is_mapping: bool) -> None:
        given, values = self._raw, self._values
        for key in keys:
            name = key.name
            raw = given.get(name)
            # Heat's optional parameters are '' by default.
            if raw is None or raw == "":
                values[name] = self._absent(key, is_mapping)
                continue
            found = key.value.read(self, name, raw)
            if found is None:
                found = key.default
            elif key.secret:
                found = model.Secret(found)
            values[name] = found
        for other in given:
            if other not in values:
                self.fail("", "unknown-key", key=errors.key_name(other), known=", ".join(sorted(values)))

    def _absent(self, key: Key, is_mapping: bool) -> object:
        """Return what is taken in place of a key that is not given."""
        if key.required and is_mapping:
            self.fail(key.name, "missing", hint=key.required)
        if isinstance(key.value, Nested):
            return key.value.read(self, key.name, None)
        return key.default

    def __getitem__(self, name: str) -> typing.Any:
        """Return the value of a declared key: a good one, or the key's default."""
        return self._values[name]

    def values(self, *without: str) -> dict[str, typing.Any]:
        """Return the values of all keys but those named."""
        return {name: value for name, value in self._values.items() if name not in without}

    def has(self, name: str) -> bool:
        """Return whether a key is given; null and '' count as not given."""
        return self._raw.get(name) not in (None, "")

    def at(self, name: str) -> str:
        """Return the path of a key."""
        return f"{self.path}.{name}" if self.path and name else self.path or name

    def fail(self, name: str, code: str, /, **values: object) -> None:
        """Note a problem at a key."""
        self.problems.append(kinds.problem(self.at(name), code, **values))


def type_name(value: object) -> str:
    """Return what people call the type of a value that JSON or YAML gave."""
    if isinstance(value, float) and not math.isfinite(value):
        return "number that is not finite"
    names = {dict: "mapping", list: "list", str: "text", bool: "truth value", int: "number", float: "number"}
    return names.get(type(value), "null" if value is None else type(value).__name__)
