"""Which server of a topic gets a call: the one on the caller's router, until too many calls wait for it."""

from __future__ import annotations

import pathlib
import signal

import pytest
from om_agent import model

from testbed import processes, routers, workers
from tests.router import cloud as clouds

pytestmark = pytest.mark.router

HERE, NEXT_DOOR = "ctl-0", "ctl-1"
COST = 8
CALLS, CALLERS = 60, 4


def test_a_server_here_is_preferred_until_as_many_wait_as_a_link_costs(
    engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path
) -> None:
    nodes = dict.fromkeys((HERE, NEXT_DOOR), "controller")
    cloud = clouds.Cloud(supervisor, tmp_path, engine, "127.0.66", nodes, router={"link_cost": COST})
    for name in nodes:
        cloud.apply(name, cloud.metadata(*nodes))
    cloud.start(*nodes)
    cloud.converge()
    servers = {name: workers.Server(supervisor, cloud.hosts[name], "nova", "compute") for name in nodes}
    client = workers.Client(supervisor, cloud.hosts[HERE], "nova")
    for worker in (*servers.values(), client):
        worker.expect("ready", workers.READY_SECONDS)
    topic = routers.RPC + "anycast/nova/compute"
    processes.wait_until(
        "both routers know both servers", lambda: all(r.knows(topic) == (1, 1) for r in cloud.routers.values()), 20
    )

    client.begin("call", CALLS, 60.0, servers[HERE], timeout=30.0, threads=CALLERS)
    assert [one.error for one in client.result()] == [""] * CALLS
    assert len(servers[HERE].got("call").seconds) == CALLS, "no more wait than there are callers"

    servers[HERE].process.signal(signal.SIGSTOP)
    try:
        client.begin("call", CALLS, 60.0, servers[HERE], timeout=2.0, threads=CALLERS)
        errors = [one.error for one in client.result() if one.error]
    finally:
        servers[HERE].process.signal(signal.SIGCONT)
    assert set(errors) == {"MessagingTimeout"}, "some were sent to the server that stands still"
    assert len(errors) >= COST, "as many as a link costs were sent to it"
    assert len(errors) <= COST + CALLERS, "and no more than a link costs, and wait next door meanwhile"
    assert len(servers[NEXT_DOOR].got("call").seconds) == CALLS - len(errors)
