"""A node never stops its router or broker only because its name matches no or another node."""

from __future__ import annotations

import json
import pathlib
import socket
import typing

import pytest

from tests.support import helpers

HOST = socket.gethostname().partition(".")[0]
HIERA: dict[str, typing.Any] = {
    "oslo_messaging_rpc_scheme": "amqp",
    "oslo_messaging_rpc_password": "x",
    "oslo_messaging_rpc_use_ssl": False,
    "oslo_messaging_rpc_port": 31459,
    "oslo_messaging_rpc_node_names": [f"{HOST.upper()}.internalapi.localdomain", "other.internalapi.localdomain"],
    "oslo_messaging_rpc_node_ips": ["172.17.0.11", "172.17.0.12"],
    "oslo_messaging_notify_scheme": "rabbit",
    "oslo_messaging_notify_password": "y",
    "oslo_messaging_notify_user_name": "notify",
    "oslo_messaging_notify_node_names": [f"{HOST.lower()}.internalapi.localdomain", "other.internalapi.localdomain"],
    "oslo_messaging_router": {"mesh_password": "mesh-secret"},
    "oslo_messaging_broker": {"erlang_cookie": "cookie-secret"},
}
ELSEWHERE = ["one.internalapi.localdomain", "two.internalapi.localdomain"]
GONE = {**HIERA, "oslo_messaging_rpc_node_names": ELSEWHERE, "oslo_messaging_notify_node_names": ELSEWHERE}


@pytest.fixture()
def node(tmp_path: pathlib.Path) -> helpers.Machine:
    return helpers.machine(tmp_path)


def apply(node: helpers.Machine, data: object, *arguments: str, command: str = "apply") -> tuple[int, str]:
    path = node.base / "hiera.json"
    path.write_text(json.dumps(data))
    done = node.run(command, *arguments, str(path))
    return done.returncode, done.stdout + done.stderr


def state(node: helpers.Machine) -> dict[str, typing.Any]:
    return typing.cast("dict[str, typing.Any]", json.loads((node.root / helpers.STATE / "state.json").read_text()))


def test_a_controller_in_another_case_stays_one(node: helpers.Machine) -> None:
    assert apply(node, HIERA)[0] == 0
    assert state(node)["units"] == ["qdrouterd", "rabbitmq-server"]
    assert state(node)["node"] == f"{HOST.upper()}.internalapi.localdomain"
    lower = json.loads(json.dumps(HIERA).replace(HOST.upper(), HOST.lower()))
    assert apply(node, lower)[0] == 0
    assert state(node)["units"] == ["qdrouterd", "rabbitmq-server"]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("command", ["plan", "apply"])
def test_what_ran_is_not_stopped_by_a_guess(node: helpers.Machine, command: str, old: bool) -> None:
    assert apply(node, HIERA)[0] == 0
    if old:  # the state of an agent that did not note the name
        left = {key: value for key, value in state(node).items() if key not in ("node", "drivers")}
        (node.root / helpers.STATE / "state.json").write_text(json.dumps(left))
    before = node.tree()
    code, said = apply(node, GONE, command=command)
    assert code == 2 and "would stop qdrouterd and rabbitmq-server" in said and "--node" in said
    assert node.tree() == before and state(node)["units"] == ["qdrouterd", "rabbitmq-server"]


@pytest.mark.parametrize("command", ["plan", "apply"])
@pytest.mark.parametrize("names", [["other"], [f"{HOST}x", "other"], ["172.17.0.11", "172.17.0.12"]])
def test_a_name_that_is_misspelt_or_left_out_stops_nothing(
    node: helpers.Machine, command: str, names: list[str]
) -> None:
    """Also if the host's own name is the node's name."""
    short = {key: [HOST, "other"] for key in HIERA if key.endswith("_node_names")}
    assert apply(node, {**HIERA, **short})[0] == 0
    before = node.tree()
    wrong: dict[str, typing.Any] = dict.fromkeys(short, names)
    wrong["oslo_messaging_rpc_node_ips"] = [f"172.17.0.{21 + number}" for number in range(len(names))]
    code, said = apply(node, {**HIERA, **wrong}, command=command)
    assert code == 2 and f'the metadata names no "{HOST}" any more' in said and "would stop" in said, said
    assert node.tree() == before and state(node)["units"] == ["qdrouterd", "rabbitmq-server"]
    assert apply(node, {**HIERA, **wrong}, "--node", HOST)[0] == 0
    assert not (node.root / "etc/rabbitmq/rabbitmq.conf").exists()


def test_an_edge_that_the_metadata_has_no_use_for_is_stopped(node: helpers.Machine) -> None:
    """A compute that goes back to RabbitMQ stops its edge router in this way."""
    edge = {"oslo_messaging_rpc_edge_node_names": [HOST], "oslo_messaging_rpc_edge_node_ips": ["172.17.0.31"]}
    assert apply(node, {**GONE, **edge})[0] == 0
    assert (node.root / "etc/qpid-dispatch/qdrouterd.json").exists()
    rabbit = {key: value for key, value in GONE.items() if "_port" not in key and key != "oslo_messaging_router"}
    code, said = apply(node, {**rabbit, "oslo_messaging_rpc_scheme": "rabbit"})
    assert code == 0, said
    assert not (node.root / "etc/qpid-dispatch/qdrouterd.json").exists()


def test_a_client_by_name_may_stop_them(node: helpers.Machine) -> None:
    assert apply(node, HIERA)[0] == 0
    assert apply(node, GONE, "--node", HOST + "x")[0] == 2
    assert apply(node, GONE, "--node", HOST)[0] == 0
    assert not (node.root / "etc/rabbitmq/rabbitmq.conf").exists()
    assert state(node)["node"] == HOST


def test_another_host_name_is_no_other_broker(node: helpers.Machine) -> None:
    assert apply(node, HIERA, "--node", "OTHER.internalapi.localdomain")[0] == 0
    code, said = apply(node, HIERA)
    assert code == 2 and "under another name" in said
    told = {**HIERA, "oslo_messaging_node": HIERA["oslo_messaging_rpc_node_names"][0]}
    assert apply(node, told)[0] == 0


def test_the_metadata_may_stop_what_the_same_node_ran(node: helpers.Machine) -> None:
    raw = helpers.put(helpers.dual(), "nodes.0.name", HOST)
    assert node.run("apply", node.metadata(raw)).returncode == 0
    away = helpers.put(helpers.put(raw, "rpc.nodes", ["ctl-1"]), "notify.nodes", ["ctl-1"])
    away = helpers.put(away, "router.roles", {"controller": "none"})
    assert node.run("apply", node.metadata(away)).returncode == 0
    assert not (node.root / "etc/rabbitmq/rabbitmq.conf").exists()


def test_a_name_of_plain_metadata_that_is_gone(node: helpers.Machine) -> None:
    """Node ctl-0 was this host; now its first name alone is another node's, which runs nothing."""
    raw = helpers.put(helpers.dual(), "nodes.0.name", f"{HOST}.dc1")
    raw = helpers.put(raw, "notify.nodes", [f"{HOST}.dc1"])
    assert node.run("apply", "--node", f"{HOST}.dc1", node.metadata(raw)).returncode == 0
    other = helpers.put(raw, "nodes.3.name", f"{HOST}")
    other = helpers.put(other, "router.roles", {"compute": "none"})
    done = node.run("apply", node.metadata(other))
    assert done.returncode == 2 and "would stop" in done.stderr


def test_another_node_with_the_same_first_name(node: helpers.Machine) -> None:
    """The host's name moved to another domain, in which there is a node of that name, too."""
    raw = helpers.put(helpers.put(helpers.dual(), "nodes.0.name", HOST), "nodes.1.name", f"{HOST}.dc1")
    raw = helpers.put(raw, "notify.nodes", [HOST])
    assert node.run("apply", "--node", f"{HOST}.dc1", node.metadata(raw)).returncode == 0
    before = node.tree()
    done = node.run("apply", node.metadata(raw))
    assert done.returncode == 2 and "under another name" in done.stderr and node.tree() == before
