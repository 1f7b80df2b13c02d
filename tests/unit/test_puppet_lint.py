"""The puppet module's own tools, as tests."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.subprocess

MODULE = pathlib.Path(__file__).resolve().parents[2] / "puppet" / "modules" / "om_messaging"


def run(directory: pathlib.Path, *command: str) -> str:
    """What the tool printed; fails when the tool does, and skips where it is not installed unless this is CI."""
    __tracebackhide__ = True
    if shutil.which(command[0]) is None:
        reason = f"{command[0]} is not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    done = subprocess.run(
        command,
        cwd=directory,
        env={"PATH": os.environ["PATH"], "HOME": str(directory.parent), "LC_ALL": "C.UTF-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=200,
        check=False,
    )
    output = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        pytest.fail(f"{command[0]}:\n{output}", pytrace=False)
    return output


@pytest.fixture
def module(tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy, since the tools leave caches behind."""
    return pathlib.Path(shutil.copytree(MODULE, tmp_path / "modules" / MODULE.name))


def manifests(module: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(module)) for path in module.rglob("*.pp"))


def test_parser_validate(module: pathlib.Path) -> None:
    run(module, "puppet", "parser", "validate", *manifests(module))


def test_puppet_lint(module: pathlib.Path) -> None:
    assert run(module, "puppet-lint", "--fail-on-warnings", *manifests(module)) == ""


def test_metadata(module: pathlib.Path) -> None:
    run(module, "metadata-json-lint", "metadata.json")


def test_rspec(module: pathlib.Path) -> None:
    if not os.environ.get("CI") and not shutil.which("puppet"):
        pytest.skip("puppet is not installed")
    output = run(module, "rspec", "--no-color", "spec")
    assert " 0 failures" in output
    assert ", 0 examples" not in output


def test_reference_is_up_to_date(module: pathlib.Path) -> None:
    reference = module / "REFERENCE.md"
    committed = reference.read_text(encoding="utf-8")
    reference.unlink()
    output = run(module, "puppet", "strings", "generate", "--format", "markdown")
    assert "[warn]" not in output, output
    generated = reference.read_text(encoding="utf-8")
    wanted, found = words(generated), words(committed)
    assert wanted == found, "run in the module: puppet strings generate --format markdown; rm -r .yardoc"


def words(reference: str) -> list[str]:
    """What puppet-strings wrote, without what its versions write differently: anchors, and how code is marked."""
    without_anchors = re.sub(r'\]\(#[^)]*\)|<a name="[^"]*"></a>', "]", reference)
    return re.sub(r"^```\w*$|`", "", without_anchors, flags=re.MULTILINE).split()


@pytest.mark.parametrize(
    ("old", "new"),
    [("# Reference\n", "# Ref\n"), ("`om_messaging`", "`om_other`"), ("Hash[", "Array["), ("Default value", "Value")],
)
def test_a_difference_in_the_reference_is_found(old: str, new: str) -> None:
    committed = (MODULE / "REFERENCE.md").read_text(encoding="utf-8")
    assert old in committed and words(committed.replace(old, new, 1)) != words(committed)
