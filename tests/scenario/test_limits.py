"""What the system itself keeps from the agent: attributes of files, mounts, descriptors, processes, memory. A sentence
names it, before anything is written or with everything as it was."""

from __future__ import annotations

import builtins
import collections.abc
import contextlib
import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys
import typing

import pytest
from om_agent import certs, cli, errors, metadata, model, proc
from om_agent.apply import files, sasl_database, saved_state, transaction
from om_agent.cli import change
from om_agent.plan import router as router_plan

from tests.scenario import test_transaction
from tests.scenario.test_transaction import CONTROLLER, DUAL, Node, assert_failed, snapshot

pytestmark = test_transaction.pytestmark


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node.make(tmp_path)


# -- attributes and mounts -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def attribute(letter: str, path: pathlib.Path) -> collections.abc.Iterator[None]:
    command = ["chattr", f"+{letter}", str(path)]
    if os.geteuid() != 0 or subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        pytest.skip("chattr needs root and a file system that knows it")
    try:
        yield
    finally:
        subprocess.run(["chattr", f"-{letter}", str(path)], check=True)


@pytest.mark.parametrize(
    ("letter", "name", "said"),
    [
        ("a", "nova/nova.conf", "chattr -a on it"),
        ("i", "nova/nova.conf", "the file cannot be written by this user"),
        ("a", "nova", "chattr -a on it"),
        ("i", "nova", "chattr -i on it"),
        ("a", "rabbitmq/rabbitmq.conf", "chattr -a on it"),
        ("i", "rabbitmq/rabbitmq.conf", "chattr -i on it"),
        ("i", "rabbitmq", "chattr -i on it"),
    ],
)
def test_an_attribute_is_found_before_the_first_write(node: Node, letter: str, name: str, said: str) -> None:
    before = snapshot(node.root)
    with attribute(letter, node.root / "etc" / name):
        assert_failed(node, node.apply(DUAL), before, said)
        assert node.calls() == []
    assert node.apply(DUAL).code == 0


def test_attributes_are_no_obstacle_when_there_is_nothing_to_do(node: Node) -> None:
    assert node.apply(DUAL).code == 0
    with attribute("a", node.root / "etc/nova/nova.conf"):
        run = node.apply(DUAL)
        assert (run.code, "nothing to do" in run.stdout) == (0, True), run.said


@contextlib.contextmanager
def bound(path: pathlib.Path, *options: str) -> collections.abc.Iterator[None]:
    """Mount a path on itself."""
    command = ["mount", "--bind", str(path), str(path)]
    if os.geteuid() != 0 or subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        pytest.skip("mounting needs root")
    try:
        if options:
            subprocess.run(["mount", "-o", f"remount,bind,{','.join(options)}", str(path)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_file_that_is_a_mount_point(node: Node) -> None:
    """A file of ours cannot be replaced; a service's file is edited in place, as before."""
    before = snapshot(node.root)
    with bound(node.root / "etc/rabbitmq/rabbitmq.conf"):
        assert_failed(node, node.apply(DUAL), before, r"rabbitmq\.conf: something is mounted on this file")
        assert node.calls() == []
    with bound(node.root / "etc/nova/nova.conf"):
        assert node.apply(DUAL).code == 0


def test_a_directory_that_is_mounted_read_only(node: Node) -> None:
    before = snapshot(node.root)
    with bound(node.root / "etc/rabbitmq", "ro"):
        assert_failed(node, node.apply(DUAL), before, "etc/rabbitmq: the file system .* is mounted read-only")
        assert node.calls() == []


# -- the temporary SASL database -------------------------------------------------------------------------------------

USERS = (router_plan.SaslUser("rpc", "overcloud", model.Secret("canary")),)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EBUSY, errno.EACCES])
def test_a_sasl_database_that_stays_is_told(node: Node, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The database's passwords are removed if that needs no descriptor."""
    monkeypatch.setenv("PATH", f"{node.bin}:/usr/bin:/bin")
    directory = saved_state.sasl_dir(node.root)
    directory.parent.mkdir(parents=True)

    def refuse(path: object, *arguments: object, **options: object) -> typing.NoReturn:
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        with pytest.raises(errors.ApplyFailed, match=r"sasl may hold passwords and cannot be removed \(.*Remove it"):
            sasl_database.make_sasl_database(USERS, directory)
        assert list(directory.iterdir()) == []
        with pytest.raises(errors.ApplyFailed, match="sasl may hold passwords"):
            transaction.recover(node.root)
    assert transaction.recover(node.root) is None
    assert not directory.exists()


# -- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOMEM, "not enough memory"),
        (errno.EAGAIN, "no more processes may be started"),
        (errno.EMFILE, "may open no more files"),
        (errno.ENFILE, "no more files may be open on this machine"),
    ],
)
def test_a_limit_is_named(monkeypatch: pytest.MonkeyPatch, number: int, said: str) -> None:
    def refuse(*arguments: object, **options: object) -> typing.NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(errors.ProcessFailed, match=said) as caught:
        proc.run(["puppet"], 1)
    assert "Install it" not in str(caught.value)
    assert said in files.reason(OSError(number, os.strerror(number), "/etc/x"))


def test_a_module_that_cannot_be_loaded_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with too little memory: failed to map segment from shared object."""

    def refuse(name: str, *arguments: typing.Any) -> object:
        if name == "cryptography":
            raise ImportError("libx.so: failed to map segment from shared object")
        return real(name, *arguments)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(errors.CannotLoad, match=r"cryptography is installed and cannot be loaded \(.*enough memory"):
        list(certs.check_server(None, None))  # type: ignore[arg-type]


def test_too_little_memory_is_no_defect(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*arguments: object) -> typing.NoReturn:
        raise MemoryError

    monkeypatch.setattr(change, "_plan", refuse)
    assert cli.main(["plan"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("om-agent: There is not enough memory. Free some")
    assert "it had changed nothing" in said


def test_heat_is_told_of_too_little_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*arguments: object) -> typing.NoReturn:
        raise MemoryError

    monkeypatch.setattr(metadata, "parse_deployment", refuse)
    monkeypatch.setattr(sys, "stdin", None)
    assert cli.main(["hook"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["deploy_status_code"] == 1
    assert answer["deploy_stderr"].startswith("om-agent: There is not enough memory. Free some")
    assert answer["deploy_stderr"].endswith("by now the node is as it was before.")


@pytest.mark.parametrize("megabytes", range(40, 200, 40))
def test_memory_of_a_hook_runs_out(node: Node, megabytes: int) -> None:
    """Heat gets a regular answer with the state of the node."""
    before = snapshot(node.root)
    inputs = {"oslo_messaging": json.dumps(DUAL), "verify_timeout": "0"}
    listed = [{"name": name, "value": value} for name, value in inputs.items()]
    command = [sys.executable, "-m", "om_agent", "hook", "--root", str(node.root), "--node", CONTROLLER]
    done = subprocess.run(
        ["prlimit", f"--as={megabytes << 20}", *command],
        env={**os.environ, "PATH": f"{node.bin}:{os.environ['PATH']}"},
        input=json.dumps({"id": "1", "group": "om-messaging", "config": "", "inputs": listed}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "defect" not in done.stderr + done.stdout
    if not done.stdout:
        return  # Python itself did not start
    answer = json.loads(done.stdout)
    said = answer["deploy_stdout"] + answer["deploy_stderr"]
    applied = "applied" in said
    assert (snapshot(node.root) == before) == (not applied), said
    assert answer["deploy_status_code"] in ((0, 1, 3) if applied else (1,))


@pytest.mark.parametrize("megabytes", range(40, 200, 20))
def test_memory_runs_out(node: Node, megabytes: int) -> None:
    """With any memory limit there is no traceback, and the node is in its old or its new state."""
    before = snapshot(node.root)
    file = node.bin / "metadata.json"
    file.write_text(json.dumps({"oslo_messaging": DUAL}))
    command = [sys.executable, "-m", "om_agent", "apply", str(file), "--root", str(node.root)]
    done = subprocess.run(
        ["prlimit", f"--as={megabytes << 20}", *command, "--node", CONTROLLER],
        env={**os.environ, "PATH": f"{node.bin}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "om-agent:" not in done.stderr + done.stdout:
        return  # Python itself did not start
    assert "defect" not in done.stderr
    assert done.returncode in (0, 1)
    assert (snapshot(node.root) == before) == (done.returncode == 1)
