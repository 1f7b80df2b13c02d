"""Files of metadata: which ones there are, and JSON or YAML in them -> values."""

from __future__ import annotations

import errno
import json
import pathlib
import re
import typing

from om_agent import errors, kinds, reading

# Where os-collect-config keeps the list of its files: the present cachedir, then the former one.
OS_CONFIG_FILES_PATHS = (
    "var/lib/os-collect-config/os_config_files.json",
    "var/run/os-collect-config/os_config_files.json",
)
HIERADATA_DIR = "etc/puppet/hieradata"
_MAX_DEPTH = 60
_MAX_MIB = 64
_MAX_DIGITS = 640  # Python converts at least so many (sys.int_info.str_digits_check_threshold)
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
# Texts that YAML 1.1 reads as numbers and people do not: 05672 is octal, 22:22 has the base 60.
_YAML_11_NUMBER = re.compile(r"[-+]?(0[0-9_]|0b|.*[_:])")
_LOCATION = re.compile(r"line (\d+), column (\d+)")


def from_environment(value: str) -> tuple[str, ...]:
    """Return the files that os-collect-config names in ``OS_CONFIG_FILES``."""
    return tuple(f for f in value.split(":") if f)


def from_list_file(root: pathlib.Path) -> tuple[str, ...] | None:
    """Return the files of os-collect-config's ``os_config_files.json``, below ``root``; None when there is no list.

    :raises om_agent.errors.InvalidInput: when the list is not a list of paths.
    """
    for relative in OS_CONFIG_FILES_PATHS:
        path = root / relative
        if not path.exists():
            continue
        names = read_file(str(path))
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise errors.InvalidInput(
                [kinds.problem(str(path), "wrong-type", found="content", wanted="a list of paths")]
            )
        return tuple(n if pathlib.Path(n).is_relative_to(root) else str(root / n.lstrip("/")) for n in names)
    return None


def read_file(path: str) -> object:
    """Return what a JSON or YAML file holds.

    :raises om_agent.errors.InvalidInput: when it cannot be read, is neither JSON nor YAML, or repeats a key.
    """
    try:
        return parse_text(reading.content(path, _MAX_MIB * reading.MIB, handed=True), path)
    except OSError as e:
        if e.errno == errno.EFBIG:
            raise errors.InvalidInput([kinds.problem(path, "too-big", limit=_MAX_MIB)]) from None
        raise errors.InvalidInput([kinds.problem(path, "unreadable", reason=e.strerror)]) from None


def parse_text(data: bytes, path: str) -> object:
    """Return what JSON or YAML text holds; see `read_file`.

    The parser's own message is never passed on: it quotes a piece of the text, which may be a secret.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise errors.InvalidInput([kinds.problem(path, "not-utf8")]) from None
    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, path), parse_int=_integer)
    except json.JSONDecodeError as e:
        if text.lstrip()[:1] in ("{", "["):
            raise errors.InvalidInput([kinds.problem(path, "not-json", line=e.lineno, column=e.colno)]) from None
    except RecursionError:
        raise errors.InvalidInput([kinds.problem(path, "too-deep")]) from None
    else:
        return _shallow(value, path)
    return _shallow(_parse_yaml(text, path), path)


def _values(value: object) -> typing.Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _shallow(value: object, path: str) -> object:
    """Return ``value``; refuse it when it is nested so deeply that walking through it could exhaust Python's stack."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [inner for outer in level for inner in _values(outer)]
        if not level:
            return value
    raise errors.InvalidInput([kinds.problem(path, "too-deep")])


def _integer(text: str) -> int | float:
    """Return a whole number; one with more digits than Python converts becomes infinite, as ``1e999`` does.

    No key takes such a number, and `om_agent.parse` then names the key.
    """
    return int(text) if len(text) <= _MAX_DIGITS else float(text)


def _unique(pairs: list[tuple[str, object]], path: str) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, value in pairs:
        if key in result:
            raise errors.InvalidInput([kinds.problem(path, "duplicate-key", key=errors.key_name(key))])
        result[key] = value
    return result


def _parse_yaml(text: str, path: str) -> object:
    import yaml  # imported here: a node gets JSON, and only people write YAML

    def refuse(code: str, mark: typing.Any) -> errors.InvalidInput:
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        return errors.InvalidInput([kinds.problem(path, code, line=line, column=column)])

    base: typing.Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, four times as fast

    class Loader(base):  # type: ignore[misc]
        """A safe loader that refuses a repeated key, and a number or date that cannot be read."""

        def construct_object(self, node: typing.Any, deep: bool = False) -> object:
            if isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS and _YAML_11_NUMBER.match(node.value):
                raise refuse("yaml-number", node.start_mark)
            try:
                return super().construct_object(node, deep)
            except (ValueError, TypeError, OverflowError, LookupError, AttributeError):
                raise refuse("no-value", node.start_mark) from None

        def construct_mapping(self, node: typing.Any, deep: bool = False) -> dict[typing.Any, typing.Any]:
            seen = set()
            if not isinstance(node, yaml.MappingNode):  # a tag can say so of anything
                raise refuse("not-json", node.start_mark)
            for child, _ in node.value:
                key = self.construct_object(child, deep=True)
                huge = isinstance(key, int) and key.bit_length() > 64  # str() of it may fail
                if huge or not isinstance(key, (str, int, float, bool, type(None))):
                    raise refuse("not-json", child.start_mark)
                if key in seen:
                    raise errors.InvalidInput([kinds.problem(path, "duplicate-key", key=errors.key_name(key))])
                seen.add(key)
            return typing.cast("dict[typing.Any, typing.Any]", super().construct_mapping(node, deep))

    try:
        depth = 0
        for event in yaml.parse(text, Loader=base):
            # Checked before nodes are made of the events: a few lines of aliases can grow to gigabytes, and libyaml's
            # composer overflows the stack without an exception.
            if isinstance(event, yaml.AliasEvent):
                raise refuse("yaml-alias", event.start_mark)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise errors.InvalidInput([kinds.problem(path, "too-deep")])
        return typing.cast("object", yaml.load(text, Loader=Loader))
    except yaml.YAMLError as e:
        raise refuse("not-json", getattr(e, "problem_mark", None)) from None


def hieradata_files(root: pathlib.Path) -> tuple[str, ...]:
    """Return tripleo's hieradata files, weakest first, for when os-collect-config's metadata says nothing.

    Hiera takes the first level that knows a key; merging takes the last, so the hierarchy of ``/etc/puppet/hiera.yaml``
    is read backwards (heat-config-hiera writes it in hiera 3's form). Without that, or in another form: by name.
    """
    directory = root / HIERADATA_DIR
    files = {p.stem: str(p) for p in sorted(directory.glob("*.json"))} if directory.is_dir() else {}
    config = root / "etc/puppet/hiera.yaml"
    hierarchy: object = None
    if files and config.is_file():
        raw = read_file(str(config))
        hierarchy = (raw.get(":hierarchy") or raw.get("hierarchy")) if isinstance(raw, dict) else None
    if not isinstance(hierarchy, list) or not all(isinstance(n, str) for n in hierarchy):
        return tuple(files.values())
    return tuple(files[n] for n in reversed(hierarchy) if n in files)
