"""What a run of the agent imports: a node pays for it at every boot and every minute, and on the build host some of it
is not even installed. Of time nothing is said here."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import typing

import pytest
from om_agent import errors

from tests.support import helpers, trees

pytestmark = pytest.mark.subprocess

# What only a running router or broker, Heat, a probe or a person's wish brings in.
NEVER = {
    "cproton", "difflib", "email", "eventlet", "http", "jinja2", "kombu", "oslo_config", "oslo_messaging", "proton",
    "pyngus", "ssl", "urllib.request", "importlib.resources", "zipfile",
}  # fmt: skip
YAML, CRYPTOGRAPHY = {"yaml"}, {"cryptography", "email"}  # the latter imports the other
# Of these, what comes with Python.
PYTHONS_OWN = {"difflib", "email", "http", "importlib.resources", "ssl", "urllib.request", "zipfile"}
WATCHED = NEVER | YAML | CRYPTOGRAPHY
# All that may come from outside Python itself: two libraries with what they import.
OUTSIDE = ("yaml", "_yaml", "cryptography", "_cffi_backend", "typing_extensions")
LOADED = """
print()
for name in sys.modules:
    print(name)
sys.exit(code)
"""
SASLPASSWD = '#!/bin/sh\nwhile [ "$1" != -f ]; do shift; done\ncat >"$2"\n'


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """All that the agent can import here besides Python's own modules, whatever else this machine's Python has.

    Of `OUTSIDE` what is installed; in place of what it must never import, empty modules, so that an attempt is seen.
    """
    directory = tmp_path_factory.mktemp("libraries")
    for name in OUTSIDE:
        found = importlib.util.find_spec(name)
        if found and found.origin:
            file = pathlib.Path(found.origin)
            real = file.parent if found.submodule_search_locations else file
            (directory / real.name).symlink_to(real)
    for name in NEVER - PYTHONS_OWN:
        (directory / f"{name}.py").touch()
    return directory


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """A node without services, where an apply can do all by itself; beside it what stands for saslpasswd2."""
    (tmp_path / "root/var/lib").mkdir(parents=True)
    (tmp_path / "saslpasswd2").write_text(SASLPASSWD)
    (tmp_path / "saslpasswd2").chmod(0o755)
    return tmp_path / "root"


Imported = typing.Callable[..., "set[str]"]


@pytest.fixture
def imported(libraries: pathlib.Path) -> Imported:
    """Run ``om-agent`` until it ends with the exit code ``expected``; return what of `WATCHED` it has imported."""
    code = "import sys\nfrom om_agent import cli\ntry:\n    code = cli.main(sys.argv[1:])\nexcept SystemExit as e:\n"
    code += f"    code = e.code\n{LOADED}"
    python_path = os.pathsep.join([str(helpers.PACKAGE.parent), str(libraries)])

    def run(*arguments: str, path: str = "", expected: int = 0) -> set[str]:
        # -S: neither this machine's site-packages nor what its .pth files import at the start of every Python.
        command = [sys.executable, "-S", "-B", "-c", code, *arguments]
        environment = {"PYTHONPATH": python_path, "PATH": f"{path}:/usr/bin:/bin"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == expected, done.stdout + done.stderr
        found = set(done.stdout[done.stdout.index("\nsys\n") :].splitlines())
        assert "om_agent.cli" in found
        return found & WATCHED

    return run


def written(directory: pathlib.Path, raw: helpers.Raw) -> str:
    path = directory / "metadata.json"
    path.write_text(json.dumps({"oslo_messaging": raw}))
    return str(path)


def test_help_needs_none_of_it(imported: Imported) -> None:
    assert imported("--help") == set()


@pytest.mark.parametrize("raw", [helpers.default(), helpers.dual()], ids=["rabbit", "dual"])
@pytest.mark.parametrize("command", ["validate", "capacity"])
def test_looking_through_json_needs_none_of_it(
    imported: Imported, tmp_path: pathlib.Path, command: str, raw: helpers.Raw
) -> None:
    assert imported(command, written(tmp_path, raw)) == set()


def test_a_topology_needs_none_of_it(imported: Imported, tmp_path: pathlib.Path) -> None:
    assert imported("topology", "--format", "json", written(tmp_path, helpers.dual())) == set()


def test_the_name_of_a_service_needs_the_catalogue(imported: Imported, tmp_path: pathlib.Path) -> None:
    assert imported("validate", written(tmp_path, {**helpers.default(), "services": ["nova"]})) == YAML


def test_yaml_needs_yaml(imported: Imported, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metadata.yaml"
    path.write_text("oslo_messaging:\n  rpc: {password: x}\n  nodes: [{name: a}]\n")
    assert imported("validate", str(path)) == YAML


def test_a_certificate_needs_cryptography(imported: Imported, tmp_path: pathlib.Path) -> None:
    """This one is refused, and until then it is read."""
    raw = helpers.with_tls(helpers.dual(), "pem")
    assert imported("validate", written(tmp_path, raw), expected=errors.EXIT_INVALID) == CRYPTOGRAPHY


@pytest.mark.parametrize("command", ["plan", "apply"])
@pytest.mark.parametrize(
    ("raw", "needed"),
    [
        pytest.param(helpers.default(), YAML, id="rabbit"),
        pytest.param(helpers.dual(), YAML | CRYPTOGRAPHY, id="dual"),
    ],
)
def test_nothing_to_do_needs_the_catalogue_and_what_makes_the_routers_certificate(
    imported: Imported, root: pathlib.Path, tmp_path: pathlib.Path, command: str, raw: helpers.Raw, needed: set[str]
) -> None:
    where = ("--node", "cmp-0", "--root", str(root), "--relocate", "--no-services")
    metadata, path = written(tmp_path, raw), str(tmp_path)
    imported("apply", metadata, *where, path=path)
    before = trees.snapshot(root)
    assert imported(command, metadata, *where, path=path) == needed
    assert trees.snapshot(root) == before
