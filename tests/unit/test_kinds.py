"""Every code has one record, is used, and its record fits its use; no message repeats metadata beyond names."""

from __future__ import annotations

import ast
import pathlib
import re
import string
import typing

import pytest
from om_agent import errors, fields, kinds, parse

from tests.support import helpers

MAKERS = ("problem", "warning", "finding", "fail")  # functions whose second argument is a code
MADE_OF_PARTS = {"rpc-failed", "notify-failed"}
# Modules that look at running messaging, and what apply notes of services' files, which they pass on.
LOOKING = ("verify", "observe", "clients", "connections")
PASSED_ON = {"address-misfit", "overridden", "own-transport", "rejected-line", "unread", "uwsgi-threads"}


def modules() -> list[pathlib.Path]:
    """The package without the records themselves."""
    return [path for path in helpers.PACKAGE.rglob("*.py") if path.parent.name != "kinds"]


def module(name: str) -> list[pathlib.Path]:
    """The files of one module or package."""
    return [path for path in modules() if path.relative_to(helpers.PACKAGE).with_suffix("").parts[0] == name]


def codes_in(tree: ast.AST) -> set[str]:
    """The texts of a piece of code that are codes."""
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return {value for value in constants if isinstance(value, str)} & set(kinds.KINDS)


def calls(paths: typing.Iterable[pathlib.Path]) -> list[tuple[str, str]]:
    """(function, code) of each call that makes a problem and has its code written out."""
    found = []
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
                name = ast.unparse(node.func).rpartition(".")[2]
                if name in MAKERS:
                    found.append((name, str(node.args[1].value)))
    return found


def test_no_code_is_in_two_tables() -> None:
    tables = (kinds.metadata, kinds.rules, kinds.security, kinds.node, kinds.messaging)
    assert sum(len(table.KINDS) for table in tables) == len(kinds.KINDS)


def test_every_code_is_used() -> None:
    used = set[str]().union(*(codes_in(ast.parse(path.read_text())) for path in modules()))
    assert set(kinds.KINDS) - used - MADE_OF_PARTS == set()


def test_every_used_code_is_there() -> None:
    used = {code for _, code in calls(modules())}
    assert len(used) > 100
    assert used - set(kinds.KINDS) == set()


def test_a_code_has_a_verdict_where_a_look_finds_it_and_nowhere_else() -> None:
    paths = [path for name in LOOKING for path in module(name)]
    found = set[str]().union(*(codes_in(ast.parse(path.read_text())) for path in paths))
    assert found | MADE_OF_PARTS | PASSED_ON == {code for code, kind in kinds.KINDS.items() if kind.verdict}


def test_what_is_true_of_findings_is_said_of_nothing_else() -> None:
    others = [kind for kind in kinds.KINDS.values() if not kind.verdict]
    assert [kind for kind in others if kind.heals or kind.mesh or kind.half or kind.blocks] == []


def test_a_look_makes_findings_alone() -> None:
    paths = [path for name in LOOKING for path in module(name)]
    assert {name for name, _ in calls(paths)} == {"finding"}


def test_a_rule_says_which_keys_it_reads() -> None:
    """Otherwise it would report the consequence of a problem that is already reported."""
    used: set[str] = set()
    for path in module("rules"):
        for function in ast.parse(path.read_text()).body:
            if isinstance(function, ast.FunctionDef):
                used |= codes_in(function)
    refusing = {code for code in used if kinds.KINDS[code].severity == errors.ERROR}
    assert refusing == {code for code, kind in kinds.KINDS.items() if kind.reads is not None}


def test_what_a_rule_reads_are_keys_of_the_metadata() -> None:
    text = "".join(path.read_text() for path in (*module("parse"), *module("fields")))
    read = {key for kind in kinds.KINDS.values() for key in kind.reads or ()}
    assert {key for key in read if f'"{key}"' not in text} == set()


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("rpc.nodes[1]", ("rpc", "nodes")),
        ("nodes[0].interior", ("nodes", "interior")),
        ("tls", ("tls",)),
        ("broker.dist_port", ("broker", "dist_port")),
    ],
)
def test_the_keys_of_a_path(path: str, keys: tuple[str, ...]) -> None:
    assert fields.keys_of(path) == keys


@pytest.mark.parametrize(
    ("changes", "silent"),
    [
        ({"broker.dist_port": 5672}, False),
        ({"broker.dist_port": 5672, "router.edge_port": 0}, True),
        ({"broker.dist_port": 5672, "rpc.idle_timeout": 0}, False),
    ],
)
def test_a_problem_that_follows_from_another_is_not_told(changes: dict[str, object], silent: bool) -> None:
    raw = helpers.default()
    for path, value in changes.items():
        raw = helpers.put(raw, path, value)
    with pytest.raises(errors.InvalidInput) as caught:
        parse.deployment(raw)
    assert ("port-collision" not in {problem.code for problem in caught.value.problems}) == silent


def test_only_what_else_stops_a_command_is_lowered_to_a_warning() -> None:
    lowered = {code for name, code in calls(modules()) if name == "warning"}
    assert {code for code in lowered if kinds.KINDS[code].severity == errors.WARNING} == set()
    assert lowered


def test_a_check_of_one_key_refuses() -> None:
    codes = {code for name, code in calls(modules()) if name == "fail"}
    assert {kinds.KINDS[code].severity for code in codes} == {errors.ERROR}


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("code", kinds.KINDS)
def test_a_sentence_says_what_is_wrong_and_what_to_do(code: str) -> None:
    kind = kinds.KINDS[code]
    assert re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", code)
    for text in (kind.message, kind.remedy):
        assert text.strip() == text != ""
        assert not text.endswith(".")
        assert "\n" not in text
    assert kind.remedy[0].isupper() or kind.remedy.startswith("{")


@pytest.mark.parametrize("code", kinds.KINDS)
def test_a_sentence_has_no_place_for_a_value(code: str) -> None:
    kind = kinds.KINDS[code]
    assert not {"value", "password", "secret", "text"} & (placeholders(kind.message) | placeholders(kind.remedy))


def test_braces_in_a_name_are_not_placeholders() -> None:
    assert "{known}" in kinds.problem("a", "unknown-key", key="{known}", known="k").message


def test_an_empty_path_is_the_metadata_itself() -> None:
    assert kinds.problem("", "missing", hint="h").path == "oslo_messaging"


def test_an_unknown_code_is_a_programming_error() -> None:
    with pytest.raises(KeyError):
        kinds.problem("a", "no-such-code")


def test_severities() -> None:
    assert kinds.problem("a", "twice", name="n", first="f").severity == errors.ERROR
    assert kinds.problem("a", "not-stored").severity == errors.WARNING
    assert kinds.warning("a", "twice", name="n", first="f").severity == errors.WARNING
    assert kinds.finding("a", "broker-listener", port=1, unit="u").severity == errors.ERROR
    assert kinds.finding("a", "no-probe").severity == errors.WARNING
    told = kinds.problem("a", "overridden", unit="u", key="k", own="o")
    assert (told.severity, kinds.as_found(told).severity) == (errors.WARNING, errors.ERROR)
