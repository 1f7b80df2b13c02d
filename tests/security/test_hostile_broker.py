"""Content that the broker's user puts into its files runs with its own rights, whoever runs the command."""

from __future__ import annotations

import collections.abc
import os
import pathlib
import tempfile

import pytest
from om_agent import errors, proc
from om_agent.apply import live_broker
from om_agent.plan import layout

from tests.security import shapes
from tests.support import helpers

MALLORY = 65534
CONFIGURATION, DATA = "etc/rabbitmq", "var/lib/rabbitmq"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others, and be mistaken")


def give(*paths: pathlib.Path) -> None:
    for path in paths:
        os.chown(path, MALLORY, MALLORY, follow_symlinks=False)


@pytest.fixture
def node() -> collections.abc.Iterator[helpers.Machine]:
    """A machine to which others can come, as they cannot to pytest's directories."""
    with tempfile.TemporaryDirectory(prefix="om-agent-test-") as directory:
        pathlib.Path(directory).chmod(0o755)
        yield helpers.machine(pathlib.Path(directory))


@pytest.mark.parametrize("command", [["status"], ["verify", "--timeout", "0"]])
def test_a_broker_that_says_what_rabbitmqctl_does(node: helpers.Machine, command: list[str]) -> None:
    options = [node.metadata(shapes.dual()), "--node", "ctl-0", "--relocate", "--no-services"]
    done = node.run("apply", *options)
    assert done.returncode == 0, done.stderr
    for name in (CONFIGURATION, DATA):
        give(node.root / name, *(node.root / name).rglob("*"))
    told = node.base / "told"
    told.mkdir()
    give(told)
    script = node.root / CONFIGURATION / "rabbitmq-env.conf"
    script.write_text(f"{script.read_text()}{{ id -u; id -G; pwd; env; }} >{told}/who; exit 69\n")
    if not pathlib.Path(live_broker._CTL).exists():  # what it does first
        (node.bin / "rabbitmqctl").write_text('#!/bin/sh\n. "$RABBITMQ_CONF_ENV_FILE"\n')
        (node.bin / "rabbitmqctl").chmod(0o755)
    done = node.run(*command, *options, OS_PASSWORD="of an administrator's shell")
    assert done.returncode == 3, done.stderr
    uid, groups, directory, *environment = (told / "who").read_text().splitlines()
    assert (uid, groups, directory) == (str(MALLORY), str(MALLORY), "/")
    assert f"HOME={node.root / DATA}" in environment
    assert not [line for line in environment if line.startswith(("OS_", "PYTHON"))]


def control(root: pathlib.Path) -> live_broker.Control:
    planned = helpers.plan_for(helpers.default(), "ctl-0").broker
    assert planned
    for name in (f"{CONFIGURATION}/rabbitmq-env.conf", layout.RABBIT_COOKIE.lstrip("/")):
        (root / name).parent.mkdir(parents=True)
        (root / name).touch(0o600)
    return live_broker.Control(planned, root, relocated=True)


@pytest.mark.parametrize(
    "name", [CONFIGURATION, DATA, f"{CONFIGURATION}/rabbitmq-env.conf", layout.RABBIT_COOKIE.lstrip("/")]
)
def test_whoever_has_a_say_is_whom_it_runs_as(name: str, tmp_path: pathlib.Path) -> None:
    made = control(tmp_path)
    assert made.user() is None
    give(tmp_path / name)
    found = made.user()
    assert found and found.uid == MALLORY and found.gid != 0


def test_a_directory_that_leads_to_anothers(tmp_path: pathlib.Path) -> None:
    made = control(tmp_path)
    (tmp_path / DATA).rename(tmp_path / "data")
    (tmp_path / DATA).symlink_to(tmp_path / "data")
    assert made.user() is None
    give(tmp_path / "data")
    assert made.user() == proc.User(MALLORY, MALLORY)


def test_an_owner_whom_this_machine_does_not_know(tmp_path: pathlib.Path) -> None:
    made = control(tmp_path)
    os.chown(tmp_path / DATA, 54321, 0)
    assert made.user() == proc.User(54321, 54321)


def test_roots_own_that_a_group_may_write(tmp_path: pathlib.Path) -> None:
    made = control(tmp_path)
    path = tmp_path / CONFIGURATION
    path.chmod(0o775)
    assert made.user() is None
    os.chown(path, 0, MALLORY)
    with pytest.raises(errors.ProcessFailed, match="rabbitmqctl would do what they say"):
        made.user()
    give(tmp_path / DATA)  # as RPMs have it
    assert made.user() == proc.User(MALLORY, MALLORY)


def test_nobody_but_root_can_become_another(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = control(tmp_path)
    give(tmp_path / DATA)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert made.user() is None
