"""To quorum queues and back: written keys are removed again, and refused upgrades are reported."""

from __future__ import annotations

import pathlib

import pytest

from tests.support import helpers, trees

put = helpers.put


@pytest.fixture
def node(tmp_path: pathlib.Path) -> helpers.Machine:
    return helpers.machine(tmp_path)


def apply(node: helpers.Machine, kind: str) -> trees.Tree:
    path = node.metadata(put(helpers.default(), "broker.queues", kind))
    planned = node.run("plan", path, "--node", "cmp-0")
    assert f"queues: {kind}, since the metadata says so" in planned.stdout
    done = node.run("apply", path, "--node", "cmp-0", "--no-services")
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in node.run("plan", path, "--node", "cmp-0").stdout
    return {name: found for name, found in node.tree().items() if "hieradata" not in name}


def apply_again(node: helpers.Machine) -> None:
    done = node.run("apply", str(node.base / "metadata.json"), "--node", "cmp-0", "--no-services")
    assert done.returncode == 0 and "nothing to do" in done.stdout, done.stderr


def test_to_quorum_queues_and_back(node: helpers.Machine) -> None:
    first, second, third = (apply(node, kind) for kind in ("mirrored", "quorum", "mirrored"))
    assert b"rabbit_quorum_queue = true" in second["etc/neutron/neutron.conf"].content
    assert b"rabbit_quorum_queue=true" in second["etc/swift/proxy-server.conf"].content
    assert third == first


def test_options_of_the_operator_stay(node: helpers.Machine) -> None:
    file = node.root / "etc/neutron/neutron.conf"
    file.write_text(helpers.NEUTRON + "amqp_durable_queues = true\nrabbit_qos_prefetch_count = 7\n")
    content = apply(node, "mirrored")["etc/neutron/neutron.conf"].content
    assert b"amqp_durable_queues = true\nrabbit_qos_prefetch_count = 7\n" in content


def test_options_of_the_operator_outlast_quorum_queues(node: helpers.Machine) -> None:
    """What the agent never wrote stays there and back: the manager is not asked for, 12.13 is told of no limit."""
    (node.root / "usr/lib/python3/dist-packages/oslo.messaging-12.13.0.egg-info").mkdir(parents=True)
    file = node.root / "etc/neutron/neutron.conf"
    file.write_text(helpers.NEUTRON + "use_queue_manager = true\nrabbit_qos_prefetch_count = 7\n")
    own = "use_queue_manager = true\nrabbit_qos_prefetch_count = 7\n"
    for kind in ("quorum", "mirrored", "quorum", "mirrored"):
        apply(node, kind)
        apply_again(node)
        assert own in file.read_text()
    file.write_text(file.read_text() + "rabbit_quorum_queue = true\n")
    apply_again(node)
    assert file.read_text().endswith("rabbit_quorum_queue = true\n")


@pytest.mark.parametrize("command", ["plan", "apply"])
def test_mirrored_queues_are_refused_with_rabbitmq_4(node: helpers.Machine, command: str) -> None:
    (node.root / "usr/lib/rabbitmq/lib/rabbitmq_server-4.0.5/sbin").mkdir(parents=True)
    before = node.tree()
    path = node.metadata(put(helpers.default(), "broker.queues", "mirrored"))
    refused = node.run(command, path, "--node", "ctl-0")
    assert refused.returncode == 2
    assert "RabbitMQ 4.0.5 is installed here" in " ".join(refused.stderr.split())
    assert node.tree() == before


@pytest.mark.parametrize("version", ["2.8.4", "5.0.0"])
def test_a_broker_that_nobody_tried_is_a_warning(node: helpers.Machine, version: str) -> None:
    (node.root / f"usr/lib/rabbitmq/lib/rabbitmq_server-{version}/sbin").mkdir(parents=True)
    planned = node.run("plan", node.metadata(helpers.default()), "--node", "ctl-0")
    assert planned.returncode == 0
    assert f"RabbitMQ {version} is installed here, and om-agent was tested" in " ".join(planned.stderr.split())


@pytest.mark.parametrize("command", ["plan", "apply"])
def test_amqp_is_refused_without_a_driver(node: helpers.Machine, command: str) -> None:
    (node.root / "usr/lib/python3/dist-packages/oslo.messaging-16.1.0.egg-info").mkdir(parents=True)
    before, path = node.tree(), node.metadata(helpers.dual())
    assert node.run("validate", path).returncode == 0
    refused = node.run(command, path, "--node", "cmp-0")
    assert refused.returncode == 2
    assert "oslo.messaging 16.1.0" in " ".join(refused.stderr.split())
    assert node.tree() == before
