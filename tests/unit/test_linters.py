"""The linters as tests, so that one command checks a change."""

from __future__ import annotations

import collections.abc
import io
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

docutils_core = pytest.importorskip("docutils.core")
docutils_utils = pytest.importorskip("docutils.utils")

pytestmark = pytest.mark.subprocess

ROOT = pathlib.Path(__file__).parents[2]

# Where the tree is not a git checkout (an unpacked sdist), everything but these is looked at.
NOT_OURS = {
    ".git",
    ".hypothesis",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".venv",
    ".venv-heat",
    "__pycache__",
    "build",
    "dist",
}


def list_files() -> list[pathlib.Path]:
    """Every text file that is tracked, or would be if it were added now."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
        paths = [ROOT / name for name in names if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not NOT_OURS.intersection(path.relative_to(ROOT).parts)]
    return sorted(path for path in paths if path.is_file() and not path.is_symlink() and b"\0" not in path.read_bytes())


@pytest.fixture(scope="module")
def files() -> list[pathlib.Path]:
    return list_files()


def find_tool(name: str) -> str:
    # Beside the interpreter first: pytest may run without .venv/bin on PATH.
    found = shutil.which(name, path=os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]]))
    if found:
        return found
    reason = f"{name} is not installed; tools/bootstrap test installs it"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def check(name: str, *arguments: str | pathlib.Path) -> None:
    """Fail with the tool's output, without a traceback of this file."""
    __tracebackhide__ = True
    command = [find_tool(name), *map(str, arguments)]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode:
        pytest.fail(f"{name}:\n{result.stdout}", pytrace=False)


def is_bash(path: pathlib.Path) -> bool:
    with path.open("rb") as file:
        return re.match(rb"#!.*\b(ba)?sh\b", file.readline(80)) is not None


def with_suffix(files: collections.abc.Iterable[pathlib.Path], suffix: str) -> list[pathlib.Path]:
    return [path for path in files if path.suffix == suffix]


def test_ruff_check(files: list[pathlib.Path]) -> None:
    check("ruff", "check", "--quiet", *with_suffix(files, ".py"))


def test_ruff_format(files: list[pathlib.Path]) -> None:
    check("ruff", "format", "--check", "--quiet", "--diff", *with_suffix(files, ".py"))


def test_mypy() -> None:
    check(
        "mypy",
        "--no-error-summary",
        *[name for name in ("agent", "bench", "devrouter", "driver", "testbed", "tests") if (ROOT / name).is_dir()],
    )


def test_codespell(files: list[pathlib.Path]) -> None:
    check("codespell", *[path for path in files if path.name != "LICENSE"])


def test_shellcheck(files: list[pathlib.Path]) -> None:
    scripts = [path for path in files if path.suffix in (".sh", ".bash") or is_bash(path)]
    assert ROOT / "tools/bootstrap" in scripts
    check("shellcheck", *scripts)


def read_rst(path: pathlib.Path) -> str:
    """Return docutils' warnings about a file; empty if there are none."""
    said = io.StringIO()
    settings = {
        "halt_level": docutils_utils.Reporter.SEVERE_LEVEL + 1,
        "report_level": docutils_utils.Reporter.WARNING_LEVEL,
        "warning_stream": said,
        "_disable_config": True,
    }
    docutils_core.publish_doctree(path.read_text(), source_path=str(path), settings_overrides=settings)
    return said.getvalue()


def test_rst(files: list[pathlib.Path]) -> None:
    pages = [
        path
        for path in files
        if path == ROOT / "README.rst" or (path.suffix == ".rst" and ROOT / "doc" in path.parents)
    ]
    said = "".join(map(read_rst, pages))
    if said:
        pytest.fail(said, pytrace=False)


# Written in parts, since this file is looked at too.
REGISTRY_HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("rubygems", "org"),
        ("registry", "npmjs", "org"),
        ("proxy", "golang", "org"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("mirror", "centos", "org"),
        ("forgeapi", "puppet", "com"),
        ("forgeapi", "puppetlabs", "com"),
        ("docker", "io"),
        ("quay", "io"),
    )
]
# A home directory other than those that an overcloud or undercloud has, or where this very checkout is.
DEVELOPERS_PATH = (
    r"(?<![\w.-])/(?:home|Users)/(?!(?:heat-admin|stack|tripleo-admin|zuul)\b)\w+|(?<![\w.-])/work(?:space)?/\w+"
)


def test_no_registry_and_no_developers_machine(files: list[pathlib.Path]) -> None:
    hosts = "|".join(rf"\b{re.escape(host)}\b" for host in REGISTRY_HOSTS)
    pattern = re.compile(rf"{hosts}|{DEVELOPERS_PATH}|{re.escape(str(ROOT))}\b")
    found = []
    for path in files:
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            found += [f"{path.relative_to(ROOT)}:{number}: {match.group()}" for match in pattern.finditer(line)]
    assert not found, "\n".join(found)
