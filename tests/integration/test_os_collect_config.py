"""The chain on a node: os-collect-config finds metadata, os-refresh-config runs the hooks, the hooks run the agent."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import typing

import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]
HOOKS = REPOSITORY / "elements/om-agent/os-refresh-config"
BESIDE_PYTHON = pathlib.Path(sys.executable).parent
PATH = os.pathsep.join([str(BESIDE_PYTHON), os.environ.get("PATH", os.defpath)])
TOOLS = ("os-collect-config", "os-refresh-config", "dib-run-parts", "puppet")

pytestmark = pytest.mark.skipif(
    any(not shutil.which(tool, path=PATH) for tool in TOOLS),
    reason="needs " + ", ".join(TOOLS),
)

NODES = [
    {"name": "ctl-0", "address": "192.0.2.10", "role": "controller"},
    {"name": "cmp-0", "address": "192.0.2.20", "role": "compute"},
]
GOOD: dict[str, typing.Any] = {
    "rpc": {"scheme": "amqp", "tls": False, "password": "one"},
    "notify": {"scheme": "rabbit"},
    "router": {"mesh_password": "m"},
    "nodes": NODES,
    "node": "cmp-0",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """The result of one run of a program."""

    code: int
    output: str


@dataclasses.dataclass(frozen=True)
class Node:
    """A compute node below a directory, with os-collect-config's local source as the only one."""

    base: pathlib.Path

    @property
    def root(self) -> pathlib.Path:
        return self.base / "root"

    @property
    def conf(self) -> pathlib.Path:
        return self.root / "etc/nova/nova.conf"

    @classmethod
    def make(cls, base: pathlib.Path) -> Node:
        node = cls(base)
        for directory in ("root/etc/nova", "root/var/lib/os-collect-config", "local-data", "bin"):
            (base / directory).mkdir(parents=True)
        (base / "local-data").chmod(0o700)  # os-collect-config refuses what others can write
        node.conf.write_text("[DEFAULT]\ndebug = true\n")
        for phase in ("configure.d", "post-configure.d"):
            shutil.copytree(HOOKS / phase, base / "orc" / phase)
        agent = base / "bin/om-agent"
        agent.write_text(f'#!/bin/sh\necho "$*" >>"{base}/calls"\nexec "{sys.executable}" -m om_agent "$@"\n')
        agent.chmod(0o755)
        (base / "os-collect-config.conf").write_text(
            "[DEFAULT]\n"
            f"command = os-refresh-config --lockfile {base}/orc.lock --timeout 120\n"
            "collectors = local\n"
            f"cachedir = {base}/root/var/lib/os-collect-config\n"
            f"backup_cachedir = {base}/backup\n"
            f"[local]\npath = {base}/local-data\n"
        )
        return node

    def metadata(self, name: str, content: object) -> None:
        """Write the metadata file of the local source; a string is written unchanged."""
        text = content if isinstance(content, str) else json.dumps(content)
        (self.base / "local-data" / name).write_text(text)

    def run(self, *command: str, **more: str) -> Run:
        environment = {
            "PATH": os.pathsep.join([str(self.base / "bin"), PATH]),
            "PYTHONPATH": str(REPOSITORY / "agent"),
            "PYTHONWARNINGS": "ignore",
            "LC_ALL": "C",  # os-collect-config dies of a locale that is not installed
            "HOME": str(self.base),
            "OS_REFRESH_CONFIG_BASE_DIR": str(self.base / "orc"),
            "OM_AGENT_ARGS": f"--root {self.root}",
            **more,
        }
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
        return Run(done.returncode, done.stdout.decode(errors="replace"))

    def collect(self, *options: str) -> Run:
        config = str(self.base / "os-collect-config.conf")
        return self.run("os-collect-config", "--config-file", config, "--one-time", *options)

    def calls(self) -> list[str]:
        """The agent's arguments, run by run, and forget them."""
        path = self.base / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line.replace(f" --root {self.root}", "") for line in lines]


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node.make(tmp_path)


HOOKS_RAN = ["apply --signal", "apply --json", "signal"]


def url(password: str) -> str:
    return f"transport_url = amqp://openstack%40overcloud:{password}@192.0.2.20:31459/?ssl=0"


def test_metadata_comes_changes_goes_bad_and_is_mended(node: Node) -> None:
    node.metadata("10-heat.json", {"oslo_messaging": GOOD})
    first = node.collect()
    assert first.code == 0, first.output
    assert node.calls() == HOOKS_RAN
    assert url("one") in node.conf.read_text()
    assert (node.root / "etc/om-agent/hieradata/messaging.json").is_file()

    assert node.collect().code == 0
    assert node.calls() == [], "unchanged metadata starts nothing"
    forced = node.collect("--force")
    assert (forced.code, node.calls()) == (0, HOOKS_RAN)
    assert "nothing to do" in forced.output

    # A second file overlays the first, key by key.
    node.metadata("20-operator.json", {"oslo_messaging": {"rpc": {"password": "two"}}})
    assert node.collect().code == 0
    assert node.calls() == HOOKS_RAN
    assert url("two") in node.conf.read_text()

    before = node.conf.read_bytes()
    node.metadata("20-operator.json", {"oslo_messaging": {"rpc": {"password": "three", "prot": 1}}})
    for _ in range(2):  # the next run tries again, though nothing has changed
        bad = node.collect()
        assert bad.code == 1, bad.output
        assert '"prot" is not a key here' in bad.output
        assert "three" not in bad.output
        assert node.calls() == ["apply --signal"], "what comes after configure.d does not run"
        assert node.conf.read_bytes() == before

    node.metadata("20-operator.json", {"oslo_messaging": {"rpc": {"password": "three"}}})
    assert node.collect().code == 0
    assert url("three") in node.conf.read_text()


def test_no_metadata_keeps_the_present_state(node: Node) -> None:
    """A broken file makes os-collect-config run the hooks with an empty list; so does a source that is not there."""
    node.metadata("10-heat.json", {"oslo_messaging": GOOD})
    assert node.collect().code == 0
    before = node.conf.read_bytes()
    node.calls()
    node.metadata("10-heat.json", '{"oslo_messaging": {"rpc": ')
    forced = node.collect("--force")
    assert forced.code == 0, forced.output
    assert node.calls() == HOOKS_RAN
    assert "nothing was changed, the present state stays" in forced.output
    assert node.conf.read_bytes() == before


def test_refresh_by_hand_finds_the_list_that_the_collector_left(node: Node) -> None:
    node.metadata("10-heat.json", {"oslo_messaging": GOOD})
    assert node.collect().code == 0
    node.conf.write_text("[DEFAULT]\n")  # an operator's slip
    by_hand = node.run("os-refresh-config", "--lockfile", f"{node.base}/orc.lock")
    assert by_hand.code == 0, by_hand.output
    assert url("one") in node.conf.read_text()


def test_hook_fails_when_the_agent_cannot_apply(node: Node) -> None:
    """A failure of puppet stops the run, and the file is restored."""
    node.metadata("10-heat.json", {"oslo_messaging": GOOD})
    (node.base / "bin/puppet").write_text("#!/bin/sh\nexit 4\n")
    (node.base / "bin/puppet").chmod(0o755)
    failed = node.collect()
    assert failed.code == 1, failed.output
    assert "Everything is as it was before: puppet failed (exit code 4)" in failed.output
    assert node.conf.read_text() == "[DEFAULT]\ndebug = true\n"
    (node.base / "bin/puppet").unlink()
    assert node.collect().code == 0
    assert url("one") in node.conf.read_text()


def test_post_configure_finds_what_another_program_undid(node: Node) -> None:
    """A hook between the two phases sets the key its own way, as the overcloud's own puppet run would."""
    node.metadata("10-heat.json", {"oslo_messaging": GOOD})
    other = node.base / "orc/configure.d/90-other"
    other.write_text(f"#!/bin/sh\nsed -i 's,^transport_url.*,transport_url = rabbit://other/,' {node.conf}\n")
    other.chmod(0o755)
    run = node.collect()
    assert run.code == 1, run.output
    assert "another program changed this node's messaging" in run.output
    assert "[DEFAULT] transport_url" in run.output
    assert "one@" not in run.output
    other.unlink()
    assert node.collect().code == 0


@pytest.mark.parametrize("phase", ["configure.d", "post-configure.d"])
def test_hooks_are_what_dib_run_parts_runs(phase: str) -> None:
    """Hooks must be executable and have no dot in the name; dib-run-parts silently ignores other files."""
    hooks = list((HOOKS / phase).iterdir())
    assert hooks
    assert [hook.name for hook in hooks if "." in hook.name or not os.access(hook, os.X_OK)] == []
