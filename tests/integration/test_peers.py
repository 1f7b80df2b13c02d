"""The development router bears as many peers of one process as the engines do (tests/router/test_peers.py)."""

from __future__ import annotations

import pathlib
import shutil

import pytest
from om_agent import model

from testbed import overcloud
from tests.router import cloud as clouds
from tests.support import peers

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(not shutil.which("puppet"), reason="puppet is not installed, and the agent needs it"),
    pytest.mark.skipif(not overcloud.find_program("saslpasswd2"), reason="saslpasswd2 is not installed"),
]


def test_one_server_and_one_client_with_hundreds_of_peers(tmp_path: pathlib.Path) -> None:
    clouds.need(model.Engine.EMBEDDED)
    with clouds.supervised(tmp_path) as supervisor:
        cloud = clouds.Cloud(supervisor, tmp_path, model.Engine.EMBEDDED, "127.0.45", {"ctl-1": "controller"})
        cloud.apply("ctl-1", cloud.metadata("ctl-1"))
        cloud.start("ctl-1")
        peers.check(supervisor, cloud.hosts["ctl-1"], "nova")
