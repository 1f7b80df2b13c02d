"""An interrupted run leaves no node, no mount and no directory."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import typing

import pytest

from testbed import image as building
from tests.support import helpers

PREFIX = "om-image-interrupted"
PROGRAM = f"""
import pathlib, sys
from testbed import image, image_node
image.raise_at_sigterm()
with image.scratch("{PREFIX}") as work, image_node.Node(pathlib.Path(sys.argv[1]), work / "0") as node:
    node.boot()
    print(work, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run(image: pathlib.Path) -> typing.Iterator[tuple[subprocess.Popen[str], pathlib.Path]]:
    """A run whose node is up, and its directory."""
    command = [sys.executable, "-c", PROGRAM, str(image / "tree")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=helpers.ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout
        yield process, pathlib.Path(process.stdout.readline().strip())
        process.kill()


def left(directory: pathlib.Path) -> list[str]:
    mounts = pathlib.Path("/proc/self/mountinfo").read_text()
    found = [*map(str, building.cgroups(directory)), *(["mounts"] if f"{directory}/" in mounts else [])]
    return found + ([str(directory)] if directory.exists() else [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ended_by_a_signal(run: tuple[subprocess.Popen[str], pathlib.Path], number: signal.Signals) -> None:
    process, directory = run
    assert directory.is_dir() and building.cgroups(directory)
    process.send_signal(number)
    process.wait(600)
    assert left(directory) == []


def test_killed(run: tuple[subprocess.Popen[str], pathlib.Path]) -> None:
    """The next run removes what is left."""
    process, directory = run
    process.kill()
    process.wait(60)
    assert str(directory) in left(directory)
    os.utime(directory, (0, 0))  # else it may be one that has only begun
    with building.scratch(PREFIX):
        assert left(directory) == []
