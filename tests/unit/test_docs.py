"""The documentation matches the code: every key, every problem, every service."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import pathlib
import re

import pytest
from om_agent import ciphers, engines, kinds
from om_agent.parse import keys

from testbed import image
from tests.support import supported

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_metadata_reference_is_complete() -> None:
    """A key that is declared stands in one of the generated tables; those of other users stand there once."""
    text = (ROOT / "doc/metadata.rst").read_text()
    documented = re.findall(r"^   \* - ``([a-z_.\[\]]+)``$", text, re.MULTILINE)
    sections = {"rpc", "notify", "router", "broker", "tls", "sites"}
    expected = {path for path, _ in keys.every()} - sections
    assert sorted(documented) == sorted(path for path in expected if not path.startswith("notify.also_accept["))


def test_cipher_suites_in_the_reference_are_those_that_can_be_chosen() -> None:
    text = (ROOT / "doc/metadata.rst").read_text()
    assert tuple(re.findall(r"``((?:EC)?DHE-[A-Z0-9]+-[A-Z0-9-]+)``", text)) == ciphers.NAMES


@pytest.mark.parametrize("name", ["services", "failures", "deployment", "metadata"])
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


@pytest.mark.parametrize("row", supported.table(), ids=lambda row: row.name)
def test_what_is_supported_has_tests_that_exist(row: supported.Row) -> None:
    assert all(1 <= len(cell.split()) <= 3 for cell in row.cells.values())
    for part in row.proof.split(";"):
        (file,) = re.findall(r"tests/\S+\.py", part)
        text = (ROOT / file).read_text()
        assert [name for name in re.findall(r"``(test_\w+)``", part) if f"def {name}(" not in text] == [], file


def test_what_is_supported_is_what_images_are_made_of() -> None:
    rows = {row.name: row.cells for row in supported.table()}
    assert supported.RELEASES.keys() == image.MESSAGING.keys()
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
