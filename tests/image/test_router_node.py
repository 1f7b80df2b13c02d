"""A node that runs a router for other nodes and has no services, where the release's services cannot use a router."""

from __future__ import annotations

import json
import shutil

import pytest
from om_agent import model

from testbed import image_node
from tests.image import confinement, conftest, material
from tests.image.material import APPLY, BROKER, ROUTER, SERVICES, WATCH

pytestmark = pytest.mark.skipif(
    material.DUAL, reason=f"services of {material.RELEASE} use the router: tests/image/test_boot.py has its tests"
)


@pytest.fixture(scope="module")
def node(make_node: conftest.MakeNode) -> image_node.Node:
    """Booted with dual backends, without heat and glance: the agent refuses dual backends only where services are."""
    node = make_node()
    for name in (*SERVICES, "heat-api-cfn.service"):
        (node.root / f"etc/systemd/system/{name}").unlink(missing_ok=True)
        (node.root / f"etc/systemd/system/{name}").symlink_to("/dev/null")
    for name in ("heat", "glance"):
        shutil.rmtree(node.root / "etc" / name)
    node.give(material.dual())
    node.boot()
    node.wait_active(APPLY, ROUTER, WATCH, BROKER)
    return node


def test_files_of_the_router(node: image_node.Node) -> None:
    said = node.run("stat", "--format=%n %04a %U %G", *material.ROUTER_FILES)
    found = {words[0]: (words[1], words[2], words[3]) for words in map(str.split, said.splitlines())}
    assert found == material.ROUTER_FILES


def test_a_client_logs_in_with_its_password(node: image_node.Node) -> None:
    python = "/opt/om-dual-backends/venv/bin/python"
    arguments = (material.ADDRESS, "31459", model.ADMIN_USER, "admin-secret", material.PRODUCT)
    said = node.run(python, "-W", "ignore", "-", *arguments, stdin=material.ADDRESSES)
    assert isinstance(json.loads(said), dict)


def test_the_router_runs_as_the_image_says(node: image_node.Node) -> None:
    confinement.router_runs_as_the_image_says(node)


@pytest.mark.parametrize("name", [ROUTER, WATCH])
def test_processes_are_confined(node: image_node.Node, name: str) -> None:
    confinement.process_is_limited(node, name)
    confinement.process_writes_its_own_files_only(node, name)


def test_the_watch_goes_with_the_router(node: image_node.Node) -> None:
    confinement.watch_follows_router(node)
