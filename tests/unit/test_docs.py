"""The documentation says what the code does: every key, every problem, every service."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import pathlib
import re

import pytest
from om_agent import errors, model

ROOT = pathlib.Path(__file__).resolve().parents[2]


def asked_keys(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return every key that parsing asks for, as the reference writes it."""
    asked: set[str] = set()
    original = model._Section.raw

    def raw(self: model._Section, key: str) -> object:
        asked.add(re.sub(r"\[\d+\]", "[]", self.at(key)))
        return original(self, key)

    monkeypatch.setattr(model._Section, "raw", raw)
    sites = {"links": [{"between": ["a", "b"], "cost": 1}]}
    nodes = [{"name": "n", "site": "a"}, {"name": "m", "site": "b"}]
    model.parse({"rpc": {"password": "x"}, "nodes": nodes, "sites": sites})
    sections = {"rpc", "notify", "router", "broker", "tls", "sites", "sites.links"}
    return asked - sections


def test_metadata_reference_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "doc/metadata.rst").read_text()
    documented = set(re.findall(r"^``([a-z_.\[\]]+)``  ", text, re.MULTILINE))
    expected = asked_keys(monkeypatch)
    assert documented == expected


@pytest.mark.parametrize("name", ["services", "failures"])
def test_generated_tables_are_current(name: str) -> None:
    loader = importlib.machinery.SourceFileLoader("doc_tables", str(ROOT / "tools/doc-tables"))
    spec = importlib.util.spec_from_loader("doc_tables", loader)
    assert spec
    tool = importlib.util.module_from_spec(spec)
    loader.exec_module(tool)
    text = (ROOT / f"doc/{name}.rst").read_text()
    assert text == tool.regenerate(text, name), "run tools/doc-tables"


def test_every_problem_has_a_remedy() -> None:
    for code, (message, remedy) in errors.SENTENCES.items():
        assert message and remedy, code
        assert not message.endswith(".") and not remedy.endswith("."), code
