"""One process with hundreds of peers: every link is a session, and no limit of the router's may cut them off."""

from __future__ import annotations

import pathlib

import pytest
from om_agent import model

from testbed import processes
from tests.router import cloud as clouds
from tests.support import peers

pytestmark = [pytest.mark.router, pytest.mark.timeout(400)]


def test_one_server_and_one_client_with_hundreds_of_peers(
    engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path
) -> None:
    cloud = clouds.Cloud(supervisor, tmp_path, engine, "127.0.43", {"ctl-1": "controller"})
    cloud.apply("ctl-1", cloud.metadata("ctl-1"))
    cloud.start("ctl-1")
    peers.check(supervisor, cloud.hosts["ctl-1"], "nova")
    with cloud.routers["ctl-1"].manage() as client:
        (vhost,) = [v for v in client.query("vhostStats") if v["hostname"] == "client-rpc"]
    assert (vhost["sessionDenied"], vhost["senderDenied"], vhost["receiverDenied"]) == (0, 0, 0)
