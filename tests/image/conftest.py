"""The image that ``make image-test`` built, and nodes booted from it."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import typing

import pytest

from testbed import image as building
from testbed import image_node
from tests.image import material


@pytest.fixture(scope="session", autouse=True)
def sigterm() -> None:
    """SIGTERM ends the tests as Ctrl-C does: nodes are powered off and unmounted."""
    if os.environ.get("OM_IMAGE"):
        building.raise_at_sigterm()


@pytest.fixture(scope="session")
def image() -> pathlib.Path:
    """Directory with ``tree`` and ``image.qcow2``."""
    if not os.environ.get("OM_IMAGE"):
        pytest.skip("make image-test builds the image and runs these")
    return pathlib.Path(os.environ["OM_IMAGE"]).resolve()


# Without KVM a virtual machine takes most of the time that these tests need.
NO_QEMU = os.environ.get("OM_IMAGE_QEMU") == "no"
MakeNode = typing.Callable[[], image_node.Node]


@pytest.fixture(scope="module")
def make_node(image: pathlib.Path) -> typing.Iterator[MakeNode]:
    """Start nodes, and end them after the tests of the module."""
    nodes: list[image_node.Node] = []
    with building.scratch("om-image-test") as work:

        def make() -> image_node.Node:
            nodes.append(image_node.Node(image / "tree", work / str(len(nodes))))
            return nodes[-1]

        try:
            yield make
        finally:
            for node in nodes:
                node.__exit__()


@dataclasses.dataclass(frozen=True)
class Machine:
    """A virtual machine that was powered on and powers itself off."""

    process: subprocess.Popen[bytes]
    directory: pathlib.Path

    def last_words(self) -> str:
        """Return the end of its console output."""
        return (self.directory / "serial.log").read_text(errors="replace")[-3000:]


@pytest.fixture(scope="session")
def machine(image: pathlib.Path) -> typing.Iterator[Machine]:
    """The bootable image in qemu, with its instructions on a second disk."""
    if NO_QEMU:
        pytest.skip("left out (--no-qemu): the bootable image of this release is not booted in a virtual machine")
    with building.scratch("om-image-qemu") as work:
        backing = ["-F", "qcow2", "-b", str(image / "image.qcow2")]
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(work / "disk")], check=True)
        todo = {
            "metadata": material.QEMU,
            "units": [material.APPLY, *material.BACKENDS],
            "program": material.RPC,
            "arguments": ["/etc/heat/heat.conf", "10"],
        }
        (work / "order").write_bytes(json.dumps(todo).encode().ljust(64 * 1024, b"\0"))
        command = [
            "setpriv", "--pdeathsig", "KILL",
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048", "-nodefaults",
            "-no-reboot", "-display", "none", "-monitor", "none", "-serial", f"file:{work}/serial.log",
            # Without bootindex the BIOS may try the other disk.
            "-drive", f"file={work}/disk,if=none,id=root,format=qcow2,cache=unsafe",
            "-device", "virtio-blk-pci,drive=root,bootindex=0",
            "-drive", f"file={work}/order,if=none,id=order,format=raw,readonly=on",
            "-device", "virtio-blk-pci,drive=order,serial=om-image-test",
            "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
            "-chardev", f"file,id=results,path={work}/results",
            "-device", "virtserialport,chardev=results,name=om-image-test",
        ]  # fmt: skip
        process = subprocess.Popen(command)
        try:
            yield Machine(process, work)
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="session", autouse=True)
def longest_first(request: pytest.FixtureRequest, sigterm: None) -> None:
    """Run the virtual machine from the start, in parallel with the other tests, because it takes longest."""
    wanted = any("machine" in getattr(i, "fixturenames", ()) for i in request.session.items)
    if os.environ.get("OM_IMAGE") and wanted and not NO_QEMU:
        request.getfixturevalue("machine")
