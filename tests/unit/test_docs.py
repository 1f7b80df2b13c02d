"""The documentation matches the code: every key, every problem, every service."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import pathlib
import re
import typing

import pytest
from om_agent import engines, fields, kinds, parse

from testbed import image
from tests import support

ROOT = pathlib.Path(__file__).resolve().parents[2]


def asked_keys(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return every key that parsing asks for, as the reference writes it."""
    asked: set[str] = set()
    original = fields.Section.raw

    def raw(self: fields.Section, key: str) -> object:
        asked.add(re.sub(r"\[\d+\]", "[]", self.at(key)))
        return original(self, key)

    monkeypatch.setattr(fields.Section, "raw", raw)
    sites = {"links": [{"between": ["a", "b"], "cost": 1}]}
    nodes = [{"name": "n", "site": "a"}, {"name": "m", "site": "b"}]
    parse.deployment({"rpc": {"password": "x"}, "nodes": nodes, "sites": sites})
    sections = {"rpc", "notify", "router", "broker", "tls", "sites", "sites.links"}
    return asked - sections


def test_metadata_reference_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "doc/metadata.rst").read_text()
    documented = set(re.findall(r"^``(?!oslo_messaging_)([a-z_.\[\]]+)``  ", text, re.MULTILINE))  # those are hiera's
    expected = asked_keys(monkeypatch)
    assert documented == expected


def values_documented() -> dict[str, str]:
    """Return what the second column of the reference says, by key."""
    found: dict[str, str] = {}
    key = ""
    for line in (ROOT / "doc/metadata.rst").read_text().splitlines():
        new = re.match(r"``([a-z_.\[\]]+)``  ", line)
        key = new.group(1) if new else key if re.match(r" {31}", line) else ""
        if key:
            found[key] = " ".join([*found.get(key, "").split(), *line[31:75].split()])
    return found


def test_ranges_in_the_reference_are_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers, and lengths of texts as the checks word them, "1 to 255"."""
    ranges: dict[str, set[str]] = {}
    integer, text = fields.Section.integer, fields.Section.text

    def see_integer(self: fields.Section, key: str, default: int, low: int, high: int) -> int:
        ranges.setdefault(self.at(key), set()).add(f"{low} to {high}")
        return integer(self, key, default, low, high)

    def see_text(self: fields.Section, key: str, default: str = "", check: typing.Any = None) -> str:
        ranges.setdefault(self.at(key), set()).update(re.findall(r"[0-9]+ to [0-9]+", check("\0") if check else ""))
        return text(self, key, default, check)

    monkeypatch.setattr(fields.Section, "integer", see_integer)
    monkeypatch.setattr(fields.Section, "text", see_text)
    asked_keys(monkeypatch)
    wanted = {re.sub(r"\[\d+\]", "[]", key): found for key, found in ranges.items()}
    documented = values_documented()
    same = {key for key, said in documented.items() if said.startswith(("as for rpc", "the same"))}
    told = {key: set(re.findall(r"[0-9]+ to [0-9]+", said)) for key, said in documented.items()}
    assert {k: told[k] for k in wanted if k not in same} == {k: r for k, r in wanted.items() if k not in same}
    assert {k for k, found in told.items() if found} <= set(wanted)
    assert told["rpc.heartbeat"] == {"2 to 3600"}


@pytest.mark.parametrize("name", ["services", "failures", "deployment"])
def test_generated_tables_are_current(name: str) -> None:
    loader = importlib.machinery.SourceFileLoader("doc_tables", str(ROOT / "tools/doc-tables"))
    spec = importlib.util.spec_from_loader("doc_tables", loader)
    assert spec
    tool = importlib.util.module_from_spec(spec)
    loader.exec_module(tool)
    text = (ROOT / f"doc/{name}.rst").read_text()
    assert text == tool.regenerate(text, name), "run tools/doc-tables"


def proofs() -> list[str]:
    """The last column of the table of doc/security.rst, row by row."""
    text = (ROOT / "doc/security.rst").read_text()
    table = text[text.index("   * - What\n") : text.index("What to know\n")]
    rows = [re.split(r"\n {5}- ", row) for row in table.split("\n   * - ")]
    assert {len(row) for row in rows} == {5} and rows[0][-1] == "Proven by"
    return [" ".join(row[-1].split()) for row in rows[1:]]


@pytest.mark.parametrize("proof", proofs())
def test_what_is_said_to_prove_security_is_where_it_is_said_to_be(proof: str) -> None:
    """Each part between semicolons names files, and tests that are in every one of them."""
    assert "ibid" not in proof
    for part in proof.split(";"):
        files = re.findall(r"tests/\S+\.py", part)
        assert files and not re.search(r"(?<![/\w])\w+\.py", part), part
        for file in files:
            text = (ROOT / file).read_text()
            assert [n for n in re.findall(r"``(test_\w+)``", part) if f"def {n}(" not in text] == [], file


@pytest.mark.parametrize("row", support.table(), ids=lambda row: row.name)
def test_what_is_supported_has_tests_that_exist(row: support.Row) -> None:
    assert all(1 <= len(cell.split()) <= 3 for cell in row.cells.values())
    for part in row.proof.split(";"):
        (file,) = re.findall(r"tests/\S+\.py", part)
        text = (ROOT / file).read_text()
        assert [name for name in re.findall(r"``(test_\w+)``", part) if f"def {name}(" not in text] == [], file


def test_what_is_supported_is_what_images_are_made_of() -> None:
    rows = {row.name: row.cells for row in support.table()}
    assert support.RELEASES.keys() == image.MESSAGING.keys()
    for release, elements in image.MESSAGING.items():
        assert ("router" in rows["RPC"][release]) == ("overcloud-messaging" in elements), release
    assert len(engines.RECORDS) == 3  # "all three"


def test_the_first_screen_says_what_is_not_supported() -> None:
    first = "\n".join((ROOT / "README.rst").read_text().splitlines()[:24])
    missing = first.partition("**Not supported:**")[2]
    assert all(word in missing for word in ("Debian 13", "containers", "CentOS"))


def test_every_problem_has_a_remedy() -> None:
    for code, kind in kinds.KINDS.items():
        assert kind.message and kind.remedy, code
        assert not kind.message.endswith(".") and not kind.remedy.endswith("."), code
