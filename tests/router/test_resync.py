"""After quick restarts of a router, `om-agent resync` makes all others learn its addresses again.

qdrouterd's fault is a race (doc/operations.rst).
"""

from __future__ import annotations

import pathlib
import time

import pytest
from om_agent import model

from testbed import processes, workers
from tests.router import cloud as clouds

pytestmark = [pytest.mark.router, pytest.mark.slow, pytest.mark.timeout(600)]

NODES = {"ctl-1": "controller", "ctl-2": "controller", "ctl-3": "controller"}
RESTARTS = 4
SERVERS = 4


def test_addresses_are_known_after_quick_restarts(
    engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path
) -> None:
    cloud = clouds.Cloud(supervisor, tmp_path, engine, "127.0.76", NODES)
    metadata = cloud.metadata(*NODES)
    for name in NODES:
        cloud.apply(name, metadata)
    cloud.start(*NODES)
    cloud.converge()
    servers = [workers.Server(supervisor, cloud.hosts["ctl-1"], "nova", f"compute-{i}") for i in range(SERVERS)]
    client = workers.Client(supervisor, cloud.hosts["ctl-2"], "nova")
    for worker in (*servers, client):
        worker.expect("ready", workers.READY_SECONDS)
    said = []
    for _ in range(RESTARTS):
        cloud.routers["ctl-1"].kill()
        time.sleep(0.1)
        cloud.start("ctl-1")
        said.append(cloud.agent("ctl-1", "resync", metadata, "--stay", "--timeout", "40").output)
        assert "every router that is reached knows the addresses" in said[-1], said
        for server in servers:
            client.begin("call", 1, 10.0, server, timeout=10.0)
            assert [sent.error for sent in client.result()] == [""], said
    _, found, done = cloud.verify("ctl-1", metadata)
    assert "addresses-unknown" not in found, done.output
    print("\n".join(said))
