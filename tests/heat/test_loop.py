"""Heat's own engine deploys the example, a node applies it, and reports the result to Heat (`loop`)."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import socket
import typing

import pytest
from om_agent import model

from testbed import errors, processes, rabbitmq
from tests.heat import loop
from tests.support import helpers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

NODE = "ctl-0"
SECRETS = {name: f"a-secret-of-{name.replace('_', '-')}" for name in (
    "rpc_password", "notify_password", "mesh_password", "broker_cookie",
)}  # fmt: skip
RUN = ["apply --signal", "apply --json", "start", "signal"]  # configure, start, and then verify


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[loop.Loop]:
    if not loop.PYTHON.exists():
        helpers.skip("there is no .venv-heat: tools/bootstrap test makes it where there is Python 3.11")
    for tool in ("puppet", "saslpasswd2"):
        if not shutil.which(tool, path="/usr/sbin:/usr/bin"):
            helpers.skip(f"{tool} is not installed")
    try:
        rabbitmq.find_server()
    except errors.TestbedError as e:
        helpers.skip(str(e))
    with loop.loop(tmp_path_factory.mktemp("loop"), NODE) as found:
        yield found


def parameters_of(node: loop.Node) -> dict[str, object]:
    return {
        **SECRETS,
        "nodes": [{"name": node.name, "address": node.address, "role": "controller"}],
        "router_engine": "embedded",
        "verify_timeout": 60,
    }


def check_silent(text: str) -> None:
    assert [name for name, secret in SECRETS.items() if secret in text] == []


def test_a_failing_verification(made: loop.Loop) -> None:
    """The stack shows the problem and its remedy. After the remedy, verify passes, and so does the next update."""
    heat, node = made.heat, made.node
    node.disconnect()
    node.calls()
    node.may_start = {"broker"}
    parameters = parameters_of(node)
    heat.create("second", {**parameters, "verify_timeout": 0})
    node.connect(heat.credentials("second", NODE))
    stack = made.wait("second", "CREATE_FAILED")
    reason = stack.stack_status_reason
    print(reason)
    assert (  # Heat puts a blank behind each colon
        f"problem: router on {NODE}: no router listens at {node.address}: 31459. Run systemctl status om-devrouter, and"
        " journalctl -u om-devrouter to see why."
    ) in reason
    assert "non-zero status code: 3" in reason
    check_silent(reason)
    assert node.calls()[: len(RUN)] == RUN, "what failed was seen after everything was started"

    node.may_start = {"broker", "router"}  # the operator has mended it; nobody tells os-collect-config to run again
    told = node.root / helpers.STATE / "deployments.json"
    node.wait("the deployment was carried out again", lambda: list(json.loads(told.read_text()).values())[-1] == 0)
    assert heat.stack("second").stack_status == "CREATE_FAILED"
    heat.update("second", parameters)
    made.wait("second", "UPDATE_COMPLETE")
    assert list(heat.outputs("second")["mesh"].values()) == ["works"]


def test_create_and_update_to_another_backend(made: loop.Loop) -> None:
    heat, node = made.heat, made.node
    node.disconnect()
    node.calls()
    node.may_start = {"broker", "router"}
    parameters = parameters_of(node)
    heat.create("first", parameters)
    node.connect(heat.credentials("first", NODE))
    stack = made.wait("first", "CREATE_COMPLETE")
    assert node.calls() in (RUN, [*RUN, *RUN]), "the server was there before its deployment, or not"
    assert f"amqp://rpc%40overcloud:{SECRETS['rpc_password']}@{node.address}:31459/" in node.conf.read_text()
    created = heat.outputs("first")
    print(json.dumps({name: created[name] for name in ("said", "generation", "mesh")}, indent=2))
    check_silent(json.dumps(created) + stack.stack_status_reason)
    (said,) = created["said"].values()
    assert re.match(
        rf"{NODE}: the configuration is as the metadata says; [1-9]\d* changes made it so\n"
        rf"{NODE}: messaging works: the router runs, 1 of 1 brokers run, 1 call there and back, 1 notification there",
        said,
    )
    (generation,) = created["generation"].values()
    assert re.fullmatch("[0-9a-f]{12}", generation)
    assert list(created["mesh"].values()) == ["works"]

    heat.update("first", {**parameters, "rpc_scheme": "rabbit"})
    made.wait("first", "UPDATE_COMPLETE")
    assert node.calls() == RUN
    assert f"rabbit://rpc:{SECRETS['rpc_password']}@{node.address}:31459/" in node.conf.read_text()
    updated = heat.outputs("first")
    print(json.dumps({name: updated[name] for name in ("said", "generation", "mesh")}, indent=2))
    assert list(updated["mesh"].values()) == ["none"]
    assert list(updated["generation"].values()) != [generation]
    assert not (node.root / loop.ROUTER_CONFIG).exists()


def test_a_port_that_is_taken_is_taken_into_account() -> None:
    first = loop.free_address()
    with socket.create_server((first, model.ROUTER_HTTP_PORT)):
        assert loop.free_address() != first


def test_a_router_that_does_not_start_is_told_at_once(tmp_path: pathlib.Path) -> None:
    with processes.Supervisor(tmp_path / "logs") as supervisor:
        node = loop.Node(supervisor, tmp_path / "node", NODE, loop.free_address())
        config = node.root / loop.ROUTER_CONFIG
        config.parent.mkdir()
        config.write_text("no configuration")
        (node.base / "ask").touch()
        with pytest.raises(AssertionError, match=r"(?s)router ended with .*the end of router.log.*om-devrouter: "):
            node.wait("the stack is there", lambda: False)


def test_nothing_secret_is_in_a_log(made: loop.Loop) -> None:
    logs = list(made.node.base.parent.rglob("*.log"))
    assert {"node.log", "heat.log"} <= {path.name for path in logs}
    for path in logs:
        check_silent(path.read_text(errors="replace"))
