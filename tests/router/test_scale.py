"""A mesh too large for full connection: start it, check it, use it, and add one interior."""

from __future__ import annotations

import pathlib
import time
import typing

import pytest
from om_agent import errors, model
from om_agent.plan import topology

from testbed import overcloud, processes, routers, workers
from tests.router import cloud as clouds

pytestmark = [pytest.mark.router, pytest.mark.slow]

INTERIORS = 15
EDGES = 30
NEW = f"ctl-{INTERIORS:02}"
CONTROLLERS = [f"ctl-{i:02}" for i in range(INTERIORS)]
COMPUTES = [f"cmp-{i:02}" for i in range(EDGES)]
_SECONDS = 150.0


def resident_mib(names: typing.Iterable[str], cloud: clouds.Cloud) -> list[float]:
    """Return the resident memory of routers."""
    found = []
    for name in names:
        process = cloud.routers[name].process
        assert process
        found.append(process.resident_kib / 1024)
    return found


def cpu_seconds(cloud: clouds.Cloud) -> float:
    """Return how much CPU all routers have used."""
    found = 0.0
    for router in cloud.routers.values():
        assert router.process
        found += router.process.cpu_seconds
    return found


def uplinked(cloud: clouds.Cloud, seconds: float = _SECONDS) -> None:
    """Wait until every edge has an uplink."""

    def has(router: routers.Router) -> bool:
        try:
            return router.has_uplink()
        except errors.Unreachable:
            return False

    for name in COMPUTES:
        processes.wait_until(f"{name} has an uplink", lambda name=name: has(cloud.routers[name]), seconds, interval=0.3)  # type: ignore[misc]


def answered(cloud: clouds.Cloud, server: workers.Server, client: workers.Client, seconds: float = 60.0) -> None:
    """Call until one call succeeds, which proves that the path between the two works."""
    deadline = time.monotonic() + seconds
    while True:
        client.begin("call", 1, 20.0, server, timeout=10.0)
        (sent,) = client.result()
        if not sent.error:
            return
        assert time.monotonic() < deadline, sent.error


@pytest.mark.timeout(900)
def test_fifteen_interiors_and_thirty_edges(
    engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path
) -> None:
    nodes = {**dict.fromkeys([*CONTROLLERS, NEW], "controller"), **dict.fromkeys(COMPUTES, "compute")}
    cloud = clouds.Cloud(supervisor, tmp_path, engine, "127.0.61", nodes)
    far = ("cmp-00", "cmp-29")
    before, after = cloud.metadata(*CONTROLLERS, *COMPUTES), cloud.metadata(*CONTROLLERS, NEW, *COMPUTES)
    overcloud.without_services(host for name, host in cloud.hosts.items() if name not in far)
    mesh = topology.mesh(overcloud.load([before]))
    assert len([link for link in mesh.links if not link.uplink]) < INTERIORS * (INTERIORS - 1) / 2

    for name in (*CONTROLLERS, *COMPUTES):
        cloud.apply(name, before)
    start = time.monotonic()
    cloud.start(*CONTROLLERS, wait=False)
    cloud.start(*COMPUTES, wait=False)
    took = cloud.converge(_SECONDS)
    uplinked(cloud)
    every = time.monotonic() - start
    server = workers.Server(supervisor, cloud.hosts[far[0]], "nova", "compute")
    client = workers.Client(supervisor, cloud.hosts[far[1]], "nova")
    for worker in (server, client):
        worker.expect("ready", workers.READY_SECONDS)
    answered(cloud, server, client)
    used = cpu_seconds(cloud)
    time.sleep(20)
    used = (cpu_seconds(cloud) - used) / 20
    inner, outer = resident_mib(CONTROLLERS, cloud), resident_mib(COMPUTES, cloud)
    print(
        f"{engine.value}: {len(mesh.links)} links; interiors all reach each other {took:.1f} s after the last started, "
        f"with the edges {every:.1f} s after the first; resident MiB: interior {sum(inner) / len(inner):.0f}, edge "
        f"{sum(outer) / len(outer):.0f}, all {sum(inner) + sum(outer):.0f}; idle: {100 * used:.0f} % of a core"
    )

    pids = cloud.pids()
    opened = {link.source for link in topology.mesh(overcloud.load([after])).links} | set(CONTROLLERS)
    changed = [name for name in (*CONTROLLERS, *COMPUTES) if name in opened]
    start = time.monotonic()
    cloud.apply(NEW, after)
    cloud.start(NEW, wait=False)
    for name in changed:
        cloud.apply(name, after)
    applied = time.monotonic() - start
    took = cloud.converge(_SECONDS)
    assert {name: cloud.pids()[name] for name in pids} == pids
    answered(cloud, server, client)
    print(f"{engine.value}: one more: {len(changed)} nodes applied in {applied:.1f} s, {took:.1f} s until all knew")
