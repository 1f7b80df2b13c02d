"""What a run of the agent imports.

A node pays for each import at every boot and every minute, and the build host lacks some of the modules. Each run sees
Python's own modules, the agent, and the libraries that setup.cfg requires. Other packages of this machine and its hooks
(``.pth`` files) are out of its sight, so they do not change the result.
"""

from __future__ import annotations

import configparser
import dataclasses
import importlib.metadata
import json
import pathlib
import subprocess
import sys

import pytest
from om_agent import errors
from packaging import requirements

from tests.support import helpers, trees

pytestmark = pytest.mark.subprocess

# What is imported only for a running router or broker, for Heat, for a probe or for a person.
OTHERS = {"cproton", "eventlet", "kombu", "oslo_config", "oslo_messaging", "proton", "pyngus"}  # not Python's own
NEVER = OTHERS | {"difflib", "email", "http", "importlib.resources", "ssl", "urllib.request", "zipfile"}
YAML, CRYPTOGRAPHY, JINJA2 = {"yaml"}, {"cryptography"}, {"jinja2"}
WATCHED = NEVER | YAML | CRYPTOGRAPHY | JINJA2
LOADED = """
print()
print(*sys.modules, sep="\\n")
sys.exit(code)
"""
SASLPASSWD = '#!/bin/sh\nwhile [ "$1" != -f ]; do shift; done\ncat >"$2"\n'


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """A node without services, where an apply can do all by itself; beside it what stands for saslpasswd2."""
    (tmp_path / "root/var/lib").mkdir(parents=True)
    (tmp_path / "saslpasswd2").write_text(SASLPASSWD)
    (tmp_path / "saslpasswd2").chmod(0o755)
    return tmp_path / "root"


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A directory with what the agent requires, what that requires in turn, and stand-ins for `OTHERS`."""
    directory = tmp_path_factory.mktemp("libraries")
    config = configparser.ConfigParser(comment_prefixes=("#",))
    config.read(helpers.ROOT / "setup.cfg")
    names = config["options"]["install_requires"].strip().splitlines()
    for distribution in required(names):
        for name in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not name.endswith((".dist-info", ".pth")):
                (directory / name).symlink_to(str(distribution.locate_file(name)))
    for name in OTHERS:  # stand-ins, so that an import is seen on a machine without the library too
        (directory / f"{name}.py").touch()
    assert {"yaml", "cryptography", "jinja2"} <= {path.name for path in directory.iterdir()}
    return directory


def required(lines: list[str]) -> list[importlib.metadata.Distribution]:
    """The distributions that requirements name, with all that those require."""
    found: dict[str, importlib.metadata.Distribution] = {}
    open_lines = list(lines)
    while open_lines:
        wanted = requirements.Requirement(open_lines.pop())
        name = wanted.name.lower()
        if name not in found and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
            found[name] = importlib.metadata.distribution(name)
            open_lines += found[name].requires or ()
    return list(found.values())


@dataclasses.dataclass(frozen=True)
class Agent:
    """``om-agent`` with nothing but ``libraries``; ``path`` is where it finds saslpasswd2."""

    libraries: pathlib.Path
    path: pathlib.Path

    def imported(self, *arguments: str, expected: int = 0) -> set[str]:
        """What is watched and imported by a whole run that ends with the exit code ``expected``."""
        code = (
            "import sys\nfrom om_agent import cli\ntry:\n    code = cli.main(sys.argv[1:])\nexcept SystemExit as e:\n"
        )
        code += f"    code = e.code\n{LOADED}"
        # -S: no site-packages and no hooks of packages that are there.
        command = [sys.executable, "-S", "-B", "-c", code, *arguments]
        python_path = f"{helpers.PACKAGE.parent}:{self.libraries}"
        environment = {"PYTHONPATH": python_path, "PATH": f"{self.path}:/usr/bin:/bin"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == expected, done.stdout + done.stderr
        found = set(done.stdout.rpartition("\n\n")[2].splitlines())
        assert "om_agent.cli" in found
        by_library = {"email"} if "cryptography" in found else set()  # some of its versions import that
        return (found & WATCHED) - by_library


@pytest.fixture
def agent(libraries: pathlib.Path, tmp_path: pathlib.Path) -> Agent:
    return Agent(libraries, tmp_path)


def written(directory: pathlib.Path, raw: helpers.Raw) -> str:
    path = directory / "metadata.json"
    path.write_text(json.dumps({"oslo_messaging": raw}))
    return str(path)


def test_help_needs_none_of_it(agent: Agent) -> None:
    assert agent.imported("--help") == set()


@pytest.mark.parametrize("raw", [helpers.default(), helpers.dual()], ids=["rabbit", "dual"])
@pytest.mark.parametrize("command", ["validate", "capacity"])
def test_looking_through_json_needs_none_of_it(
    agent: Agent, tmp_path: pathlib.Path, command: str, raw: helpers.Raw
) -> None:
    assert agent.imported(command, written(tmp_path, raw)) == set()


def test_a_topology_needs_none_of_it(agent: Agent, tmp_path: pathlib.Path) -> None:
    assert agent.imported("topology", "--format", "json", written(tmp_path, helpers.dual())) == set()


def test_the_name_of_a_service_needs_the_catalogue(agent: Agent, tmp_path: pathlib.Path) -> None:
    assert agent.imported("validate", written(tmp_path, {**helpers.default(), "services": ["nova"]})) == YAML


def test_yaml_needs_yaml(agent: Agent, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metadata.yaml"
    path.write_text("oslo_messaging:\n  rpc: {password: x}\n  nodes: [{name: a}]\n")
    assert agent.imported("validate", str(path)) == YAML


def test_a_certificate_needs_cryptography(agent: Agent, tmp_path: pathlib.Path) -> None:
    """This one is refused, and until then it is read."""
    raw = helpers.with_tls(helpers.dual(), "pem")
    assert agent.imported("validate", written(tmp_path, raw), expected=errors.EXIT_INVALID) == CRYPTOGRAPHY


@pytest.mark.parametrize("command", ["plan", "apply"])
@pytest.mark.parametrize(
    ("raw", "needed"),
    [
        pytest.param(helpers.default(), YAML, id="rabbit"),
        pytest.param(helpers.dual(), YAML | CRYPTOGRAPHY, id="dual"),
    ],
)
def test_nothing_to_do_needs_the_catalogue_and_what_makes_the_routers_certificate(
    agent: Agent, root: pathlib.Path, tmp_path: pathlib.Path, command: str, raw: helpers.Raw, needed: set[str]
) -> None:
    where = ("--node", "cmp-0", "--root", str(root), "--relocate", "--no-services")
    metadata = written(tmp_path, raw)
    assert agent.imported("plan", metadata, *where) == needed | JINJA2 | {"difflib"}  # it shows differences
    assert agent.imported("apply", metadata, *where) == needed | JINJA2
    before = trees.snapshot(root)
    assert agent.imported(command, metadata, *where) == needed
    assert trees.snapshot(root) == before
