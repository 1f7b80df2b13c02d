"""The image that ``make image-test`` built, and nodes booted from it."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
import typing

import pytest

from testbed import image_node


@pytest.fixture(scope="session")
def image() -> pathlib.Path:
    """Directory with ``tree`` and ``image.qcow2``."""
    if not os.environ.get("OM_IMAGE"):
        pytest.skip("make image-test builds the image and runs these")
    return pathlib.Path(os.environ["OM_IMAGE"]).resolve()


MakeNode = typing.Callable[[], image_node.Node]


@pytest.fixture(scope="module")
def make_node(image: pathlib.Path) -> typing.Iterator[MakeNode]:
    """Make nodes that are ended when the module's tests are through."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="om-image-test-", dir="/var/tmp"))
    nodes: list[image_node.Node] = []

    def make() -> image_node.Node:
        nodes.append(image_node.Node(image / "tree", work / str(len(nodes))))
        return nodes[-1]

    yield make
    for node in nodes:
        node.__exit__()
    shutil.rmtree(work)
