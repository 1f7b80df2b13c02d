"""The image has the versions that the README says are supported."""

from __future__ import annotations

import pathlib
import re

import pytest

from tests.image import material
from tests.support import supported

# Row of the README's table: the package whose version it is.
PACKAGES = {
    "Python": "python3",
    "OpenStack": "heat-engine",
    "puppet": "puppet-agent",
    "RabbitMQ": "rabbitmq-server",
    "oslo.messaging": "python3-oslo.messaging",
}
OPENSTACK = {"19": "Zed", "24": "Epoxy"}  # by heat's version
CELLS = {row.name: row.cells[material.RELEASE] for row in supported.table()}


def version(tree: pathlib.Path, package: str) -> str:
    """Return the upstream version of a package that is installed."""
    status = (tree / "var/lib/dpkg/status").read_text()
    found = re.search(rf"^Package: {re.escape(package)}\n(?:\S.*\n| .*\n)*?Version: (?:\d+:)?([0-9.]+)", status, re.M)
    assert found, package
    return found[1]


@pytest.mark.parametrize("name", PACKAGES)
def test_versions(image: pathlib.Path, name: str) -> None:
    found = version(image / "tree", PACKAGES[name])
    if name == "OpenStack":
        assert OPENSTACK[found.partition(".")[0]] == CELLS[name]
    else:
        assert found.split(".")[:2] == CELLS[name].split(".")
