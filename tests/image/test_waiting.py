"""A node without metadata, then with invalid metadata, then with valid metadata; and a boot with invalid metadata."""

from __future__ import annotations

import json

import pytest

from testbed import image_node
from tests.image import conftest, material
from tests.image.material import APPLY, BACKENDS, SERVICES

BAD = material.metadata(rpc=material.rpc(nonsense="y"))


@pytest.fixture(scope="module")
def node(make_node: conftest.MakeNode) -> image_node.Node:
    """Booted without metadata."""
    node = make_node()
    node.boot()
    node.wait(lambda: node.unit("multi-user.target").state == "active", "multi-user.target is reached")
    return node


def gated(node: image_node.Node) -> list[str]:
    return (node.root / "usr/lib/om-agent/gated-units").read_text().split()


def states(node: image_node.Node) -> set[str]:
    return {node.unit(name).state for name in gated(node)}


def status(node: image_node.Node) -> str:
    return node.call("systemctl", "status", "--no-pager", "--full", APPLY)[1]


def test_missing_metadata_keeps_gated_units_down_and_nothing_else(node: image_node.Node) -> None:
    assert node.unit(APPLY).state == "activating"
    assert states(node) == {"inactive"}
    assert node.unit("os-collect-config.service").state == "active"
    node.wait(lambda: "waiting up to 3600 s for metadata" in status(node), "systemctl status says what it waits for")
    assert (node.root / "var/lib/om-agent/state.json").exists() is False


def test_bad_metadata_keeps_them_down_and_says_why(node: image_node.Node) -> None:
    node.give(BAD)
    node.wait(lambda: node.unit(APPLY).result == "exit-code", "applying fails")
    node.wait(lambda: 'rpc: "nonsense" is not a key here' in status(node), "systemctl status says why")
    node.wait(lambda: "No jobs" in node.run("systemctl", "list-jobs"), "no job is left")
    assert states(node) == {"inactive"}
    assert "Dependency failed" in node.run("journalctl", "--boot", "--no-pager", "--unit=heat-engine")


def test_it_is_tried_again(node: image_node.Node) -> None:
    """om-agent-retry.service tries again, because os-collect-config sees no change."""
    before = node.unit(APPLY).started
    node.wait(lambda: node.unit(APPLY).started > before, "it is tried again")


def test_the_right_metadata_starts_them(node: image_node.Node) -> None:
    """os-refresh-config starts them; no reboot and no manual start is needed."""
    node.give(material.metadata())
    node.wait_active(APPLY, *BACKENDS, *SERVICES)
    applied = node.unit(APPLY).active
    assert all(node.unit(name).started >= applied for name in SERVICES)
    said = json.loads(node.python(material.RPC, "/etc/heat/heat.conf", "3"))
    assert said["answers"] == [0, 1, 2]


def test_a_boot_on_bad_metadata(node: image_node.Node) -> None:
    cached = node.root / "var/lib/os-collect-config/messaging.json.json"
    node.power_off()
    good = cached.read_text()
    cached.write_text(json.dumps(BAD))
    node.give(BAD)
    node.boot()
    node.wait(lambda: node.unit(APPLY).result == "exit-code", "applying fails")
    node.wait(lambda: "No jobs" in node.run("systemctl", "list-jobs"), "no job is left")
    assert states(node) == {"inactive"}
    node.give(json.loads(good))
    node.wait_active(APPLY, *BACKENDS, *SERVICES)


def test_a_boot_when_metadata_is_gone(node: image_node.Node) -> None:
    """An empty list means no metadata: the node keeps its state and starts."""
    node.power_off()
    (node.root / "var/lib/os-collect-config/os_config_files.json").write_text("[]")
    (node.root / "var/lib/os-collect-config/local-data/messaging.json").unlink()
    node.boot()
    node.wait_active(APPLY, *BACKENDS, *SERVICES)
    assert "the present state stays" in node.journal(APPLY)
