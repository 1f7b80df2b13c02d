"""Problems are printed as one line of bounded length, and exit codes are a contract."""

from __future__ import annotations

import pathlib
import re

import pytest
from om_agent import errors, kinds

from tests.support import helpers


def test_a_problem_prints_as_one_line() -> None:
    found = kinds.problem("a.b", "unknown-key", key=errors.quoted("x\ny\x1b[31m\ud800"), known="a, b")
    assert str(found).isprintable()
    assert str(found) == 'a.b: "x\\ny\\x1b[31m\\ud800" is not a key here. Remove it, or use one of: a, b.'


def test_long_names_are_cut() -> None:
    found = kinds.problem("a", "unknown-node", name=errors.quoted("n" * 10_000))
    assert len(found.message) < 150
    assert len(kinds.problem("a", "unknown-service", name="x", known="k" * 100_000).remedy) < 1300


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
