"""Commands that cannot do their task: the exit code and a true message."""

from __future__ import annotations

import json
import pathlib
import shutil
import typing

import pytest
from om_agent import apply, cli, drain, errors
from om_agent.apply import live_router
from om_agent.observe import routers

from tests.support import helpers

put = helpers.put
# One router of its own and no broker, so that nothing but the router is asked.
RAW = put(put(helpers.dual(1, 1), "notify", {"scheme": "amqp"}), "services", ["nova"])


@pytest.fixture
def node(tmp_path: pathlib.Path) -> helpers.Machine:
    return helpers.machine(tmp_path)


def without_proton(node: helpers.Machine) -> str:
    """A PYTHONPATH with which proton cannot be imported, wherever it is installed."""
    shadow = node.base / "shadow"
    shadow.mkdir(exist_ok=True)
    (shadow / "proton.py").write_text("raise ModuleNotFoundError(\"No module named 'proton'\", name='proton')\n")
    return f"{shadow}:{node.base / 'agent'}"


def applied(node: helpers.Machine, name: str = "ctl-0") -> tuple[str, ...]:
    """Apply, and return the arguments of a command that checks the result."""
    arguments = (node.metadata(RAW), "--node", name, "--no-services")
    assert node.run("apply", *arguments).returncode == 0
    return arguments


# -- proton is not installed -----------------------------------------------------------------------------------------


def test_verify_and_status_without_proton(node: helpers.Machine) -> None:
    arguments, lacking = applied(node), without_proton(node)
    for command in ("verify", "status"):
        done = node.run(command, *arguments, "--json", PYTHONPATH=lacking)
        told = json.loads(done.stdout)
        faults = {f["code"]: f for f in told["findings"] if f["severity"] == "error"}
        assert (done.returncode, told["healthy"]) == (3, False)
        assert faults["no-proton"]["path"] == "router on ctl-0"
        assert faults["no-proton"]["remedy"].startswith("Install python3-qpid-proton")
        assert "router-down" not in faults
    assert told["router"]["running"] is False
    done = node.run("status", *arguments, PYTHONPATH=lacking)
    assert done.returncode == 3
    assert "router  qdrouterd, interior: cannot be asked" in done.stdout
    assert "Install python3-qpid-proton" in done.stderr


@pytest.mark.parametrize("command", [["drain"], ["drain", "--undo"], ["topology", "--live", "--format", "dot"]])
def test_other_commands_without_proton(node: helpers.Machine, command: list[str]) -> None:
    before = node.tree() if applied(node) else {}
    done = node.run(command[0], *applied(node), *command[1:], PYTHONPATH=without_proton(node))
    assert (done.returncode, done.stdout) == (1, "")
    assert "the Python module proton, which talks to routers, is not installed. Install python3" in done.stderr
    assert node.tree() == before


def test_apply_without_proton_says_that_a_restart_is_needed(node: helpers.Machine) -> None:
    """The agent does not change the running router, and the message says why and what to do."""
    applied(node, "cmp-0")
    grown = node.metadata(put(RAW, "nodes.-", {"name": "ctl-9", "address": "172.17.0.99"}), "grown.json")
    arguments = (grown, "--node", "cmp-0", "--no-services", "--reconcile")
    assert "+ connector uplink/ctl-9" in node.run("plan", *arguments).stdout
    done = node.run("apply", *arguments, PYTHONPATH=without_proton(node))
    assert done.returncode == 0
    assert "The running router could not be changed: " in done.stdout
    assert "proton, which talks to routers, is not installed. Install python3-qpid-proton" in done.stdout
    assert "Restart qdrouterd." in done.stdout
    config = json.loads((node.root / "etc/qpid-dispatch/qdrouterd.json").read_text())
    assert "uplink/ctl-9" in [a["name"] for kind, a in config if kind == "connector"]


# -- the system ------------------------------------------------------------------------------------------------------


def test_looking_is_not_possible(node: helpers.Machine) -> None:
    """The exit code is neither 0 nor 3, because the state of messaging is unknown."""
    arguments = applied(node)
    state = node.root / helpers.STATE
    shutil.rmtree(state)
    state.symlink_to(state.name)
    for command in ("verify", "status"):
        done = node.run(command, *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert "cannot be used (Too many levels of symbolic links); fix this and run om-agent again." in done.stderr
        done = node.run(command, *arguments, "--json")
        assert done.returncode == 1 and done.stderr == ""
        told = json.loads(done.stdout)
        assert set(told) == {"error", "problems"} and "symbolic links" in told["error"]


# -- interruptions and defects ---------------------------------------------------------------------------------------


def cut(
    command: str, node: helpers.Machine, monkeypatch: pytest.MonkeyPatch, error: BaseException, begun: bool = False
) -> int:
    """Run a command that fails halfway; with ``begun``, after its first change."""

    def fail(*arguments: object) -> typing.NoReturn:
        if begun:
            live_router.write_drained_port(node.root, 12345)
        raise error

    for module, name in ((drain, "drain"), (drain, "undo"), (routers, "mesh"), (apply, "apply")):
        monkeypatch.setattr(module, name, fail)
    metadata = node.metadata(RAW)
    return cli.main([command, metadata, "--node", "ctl-0", "--root", str(node.root), "--no-services"])


UNREACHABLE = errors.Unreachable("The agent cannot query the router at 127.0.0.1:1: the connection was closed.")
DRAINED = "the running router may be drained, wholly or by half; om-agent drain --undo, or its restart, ends that."


@pytest.mark.parametrize(
    ("command", "error", "begun", "said"),
    [
        ("verify", KeyboardInterrupt(), False, "om-agent: interrupted; it had changed nothing."),
        ("status", KeyboardInterrupt(), False, "om-agent: interrupted; it had changed nothing."),
        ("apply", KeyboardInterrupt(), False, "om-agent: interrupted; the node is as it was before."),
        ("drain", KeyboardInterrupt(), False, "om-agent: interrupted; it had changed nothing."),
        ("drain", KeyboardInterrupt(), True, f"om-agent: interrupted; {DRAINED}"),
        ("drain", UNREACHABLE, False, f"om-agent: {UNREACHABLE}"),
        ("drain", UNREACHABLE, True, f"om-agent: {UNREACHABLE} By now {DRAINED}"),
    ],
)
def test_what_is_said_is_true(
    node: helpers.Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    error: BaseException,
    begun: bool,
    said: str,
) -> None:
    assert cut(command, node, monkeypatch, error, begun) == 1
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[-1]) == ("", said)


@pytest.mark.parametrize(
    ("command", "begun", "said"),
    [
        ("verify", False, "; it had changed nothing. Please report this."),
        ("status", False, "; it had changed nothing. Please report this."),
        ("apply", False, "; the node is as it was before. Please report this."),
        ("drain", False, "; it had changed nothing. Please report this."),
        ("drain", True, f"; {DRAINED} Please report this."),
    ],
)
def test_a_defect(
    node: helpers.Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    begun: bool,
    said: str,
) -> None:
    assert cut(command, node, monkeypatch, RuntimeError("rpc-secret"), begun) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[-1].startswith("om-agent: defect: RuntimeError in ")
    assert err.splitlines()[-1].endswith(said) and "rpc-secret" not in err
