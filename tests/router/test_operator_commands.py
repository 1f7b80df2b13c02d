"""The commands in doc/operations.rst that query a router with its engine's own tools."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from om_agent import model

from testbed import processes, routers
from tests.router import cloud as clouds
from tests.support import helpers

pytestmark = pytest.mark.router

TOOLS = {model.Engine.QDROUTERD: "qdstat", model.Engine.SKROUTERD: "skstat"}
NAME = "ctl-1"


def commands() -> str:
    """The block of commands."""
    text = (helpers.ROOT / "doc/operations.rst").read_text()
    _, _, rest = text.partition("Asking a router with its own tools\n===")
    found = re.search(r"::\n\n((?:    .*\n)+)", rest)
    assert found
    return re.sub("^    ", "", found[1], flags=re.MULTILINE)


def tool(engine: model.Engine, directory: pathlib.Path) -> pathlib.Path:
    """A directory with the engine's tool: the system's, or the one that was built with the router."""
    name, command = TOOLS[engine], routers.find(engine)
    if shutil.which(name):
        return pathlib.Path(str(shutil.which(name))).parent
    assert command
    prefix = pathlib.Path(command[0]).resolve().parents[1]
    if not (prefix / "bin" / name).exists():
        pytest.skip(f"{name} is neither on PATH nor beside the router")
    modules = next(prefix.glob("lib/*/python"))
    made = directory / name
    made.write_text(f'#!/bin/sh\nPYTHONPATH="{modules}" exec "{sys.executable}" "{prefix}/bin/{name}" "$@"\n')
    made.chmod(0o755)
    return directory


def test_who_is_connected(engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path) -> None:
    cloud = clouds.Cloud(supervisor, tmp_path, engine, "127.0.44", {NAME: "controller"}, bare=True)
    cloud.apply(NAME, cloud.metadata(NAME))
    cloud.start(NAME)
    text = commands().replace("172.17.0.11", str(cloud.nodes[NAME]["address"])).replace("/run/om-admin", "om-admin")
    assert "--sasl-password " not in text
    text = text.replace("qdstat", TOOLS[engine]).replace("\nrm om-admin", "\nstat -c %a om-admin\nrm om-admin")
    path = f"{tool(engine, tmp_path)}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-e", "-c", text], cwd=tmp_path, env={**os.environ, "PATH": path}, input="mesh-secret\n",
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "router-admin@overcloud" in done.stdout and "\n600\n" in done.stdout
