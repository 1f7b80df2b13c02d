"""Problems are sentences, each with a code that is used, and none of them repeats more than a name."""

from __future__ import annotations

import ast
import pathlib
import re
import string

import pytest
from om_agent import errors

from tests import helpers


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def used_codes() -> set[object]:
    """Every string constant of the package outside the table itself that could be a code."""
    found: set[object] = set()
    for path in helpers.PACKAGE.rglob("*.py"):
        parsed = ast.parse(path.read_text())
        if path.name == "errors.py":
            table = [n for n in parsed.body if isinstance(n, ast.AnnAssign) and ast.unparse(n.target) == "SENTENCES"]
            parsed.body = [n for n in parsed.body if n not in table]
        found |= {n.value for n in ast.walk(parsed) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return found


def raised_codes() -> set[object]:
    """What stands in the place of a code in a call of `problem`, `warning` or a section's `fail`."""
    found: set[object] = set()
    for path in helpers.PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or len(node.args) < 2:
                continue
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in ("problem", "warning", "fail") and isinstance(node.args[1], ast.Constant):
                found.add(node.args[1].value)
    return found


def test_every_code_is_used() -> None:
    used = used_codes()
    assert [code for code in errors.SENTENCES if code not in used] == []


def test_every_used_code_is_there() -> None:
    assert raised_codes() - set(errors.SENTENCES) == set()
    assert raised_codes()


@pytest.mark.parametrize("code", errors.SENTENCES)
def test_a_sentence_says_what_is_wrong_and_what_to_do(code: str) -> None:
    message, remedy = errors.SENTENCES[code]
    assert re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", code)
    for text in (message, remedy):
        assert text.strip() == text != ""
        assert not text.endswith(".")
        assert "\n" not in text
    assert remedy[0].isupper() or remedy.startswith("{")


@pytest.mark.parametrize("code", errors.SENTENCES)
def test_a_sentence_has_no_place_for_a_value(code: str) -> None:
    message, remedy = errors.SENTENCES[code]
    assert not {"value", "password", "secret", "text"} & (fields(message) | fields(remedy))


def test_a_problem_prints_as_one_line() -> None:
    found = errors.problem("a.b", "unknown-key", key=errors.quoted("x\ny\x1b[31m\ud800"), known="a, b")
    assert str(found).isprintable()
    assert str(found) == 'a.b: "x\\ny\\x1b[31m\\ud800" is not a key here. Remove it, or use one of: a, b.'


def test_long_names_are_cut() -> None:
    found = errors.problem("a", "unknown-node", name=errors.quoted("n" * 10_000))
    assert len(found.message) < 150
    assert len(errors.problem("a", "unknown-service", name="x", known="k" * 100_000).remedy) < 1300


@pytest.mark.parametrize(
    ("host", "said"), [("h", "h:1"), ("10.0.0.1", "10.0.0.1:1"), ("fd00::1", "[fd00::1]:1"), ("::1", "[::1]:1")]
)
def test_an_address_and_its_port(host: str, said: str) -> None:
    assert errors.where(host, 1) == said


@pytest.mark.parametrize("path", sorted(helpers.PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_no_sentence_joins_an_address_and_a_port_itself(path: pathlib.Path) -> None:
    """`errors.where` knows of brackets. Files of others have rules of their own: plan/broker.py, transport URLs."""
    if path.name in ("broker.py", "transport_url.py"):
        return
    places = re.findall(r"(?:host|address|listener\[0\])\}:\{", path.read_text())
    assert places == (["host}:{"] if path.name == "errors.py" else [])


def test_braces_in_a_name_are_not_placeholders() -> None:
    assert "{known}" in errors.problem("a", "unknown-key", key="{known}", known="k").message


def test_an_empty_path_is_the_metadata_itself() -> None:
    assert errors.problem("", "missing", hint="h").path == "oslo_messaging"


def test_an_unknown_code_is_a_programming_error() -> None:
    with pytest.raises(KeyError):
        errors.problem("a", "no-such-code")


def test_severities() -> None:
    assert errors.problem("a", "not-stored").severity == errors.ERROR
    assert errors.warning("a", "not-stored").severity == errors.WARNING


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidInput([]), 2),
        (errors.ApplyFailed("x"), 1),
        (errors.NotReady([]), 1),
        (errors.RollbackFailed("x"), 1),
        (errors.ProcessFailed("x"), 1),
        (errors.Busy("x"), 1),
    ],
)
def test_exit_codes_are_a_published_contract(error: errors.AgentError, code: int) -> None:
    assert error.exit_code == code
    assert (errors.EXIT_OK, errors.EXIT_APPLY_FAILED, errors.EXIT_INVALID, errors.EXIT_UNHEALTHY) == (0, 1, 2, 3)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    classes = {n for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, errors.AgentError)}
    assert {n for n in classes if n not in (errors.__doc__ or "")} == set()
