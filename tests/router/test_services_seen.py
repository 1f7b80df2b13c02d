"""verify's findings about connected services: none for healthy ones, and one for each kind of hang."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import signal
import sys
import time
import typing

import pytest
from om_agent import clients, host_facts, kinds, model, observed, plan
from om_agent.observe import routers
from om_agent.plan import router as router_plan

from testbed import overcloud, processes, workers
from tests.router import cloud as clouds
from tests.support import helpers

pytest.importorskip("oslo_messaging")
pytest.importorskip("pyngus")

pytestmark = [pytest.mark.router, pytest.mark.timeout(240)]

NAME = "ctl-1"
PROGRAM = pathlib.Path(__file__).with_name("services.py")
FEW = 16  # sessions of a connection


@pytest.fixture(params=(*clouds.ENGINES, model.Engine.EMBEDDED), ids=lambda e: e.value)
def cloud(request: pytest.FixtureRequest, supervisor: processes.Supervisor, tmp_path: pathlib.Path) -> clouds.Cloud:
    clouds.need(request.param)
    made = clouds.Cloud(
        supervisor, tmp_path, request.param, "127.0.43", {NAME: "controller"}, notify={"scheme": "amqp"}
    )
    made.apply(NAME, made.metadata(NAME))
    return made


def start(cloud: clouds.Cloud, kind: str, count: float) -> processes.Process:
    """Start one of `tests.router.services`."""
    argv = [sys.executable, str(PROGRAM), str(cloud.hosts[NAME].service_file("nova")), kind, str(count)]
    process = cloud.supervisor.start(f"{kind}", argv, overcloud.python_environment())
    processes.wait_until(f"{kind} is ready", lambda: "ready" in log(process), workers.READY_SECONDS, [process])
    return process


def log(process: processes.Process) -> str:
    assert process.log
    return process.log.read_text(errors="replace")


def planned(cloud: clouds.Cloud, **group: int) -> router_plan.RouterPlan:
    """Return the plan of the node's router with these limits in each policy group, and write its file."""
    root = cloud.hosts[NAME].root
    d = cloud.all.deployment
    made = plan.build(
        d, d.nodes[0], helpers.catalogue(), host_facts.gather(helpers.catalogue(), root, True, False)
    ).router
    assert made
    entities = json.loads(json.dumps(made.entities))
    for kind, attributes in entities:
        for one in attributes["groups"].values() if kind == "vhost" else ():
            one.update(group)
    cloud.config(NAME).write_text(json.dumps(entities))
    return dataclasses.replace(made, entities=tuple((kind, a) for kind, a in entities))


def look(cloud: clouds.Cloud, r: router_plan.RouterPlan) -> tuple[dict[str, str], clients.ServicesSeen]:
    """Observe like verify; return the messages of findings by code."""
    host = cloud.hosts[NAME]
    mesh = routers.mesh(cloud.all.deployment, r, cloud.config(NAME).read_bytes(), host.root)
    assert mesh.own.login == observed.OPEN and mesh.services
    return {f.code: str(f) for f in clients.client_findings(r, mesh.services)}, mesh.services


def serve(cloud: clouds.Cloud) -> workers.Server:
    server = workers.Server(cloud.supervisor, cloud.hosts[NAME], "nova", "compute")
    server.expect("ready", workers.READY_SECONDS)
    return server


def test_healthy_services(cloud: clouds.Cloud) -> None:
    """Idle, under load, after a restart of the router; calls and notifications that take long."""
    r = planned(cloud)
    cloud.start(NAME)
    server = serve(cloud)
    begun = time.monotonic()
    found, seen = look(cloud, r)
    assert found == {} and time.monotonic() - begun < 3  # where nothing waits it is not waited for
    (one,) = (client for client in seen.clients if client.pid == server.process.pid)
    assert one.process == "workload.py" and one.sessions >= one.receivers >= 3
    client = workers.Client(cloud.supervisor, cloud.hosts[NAME], "nova")
    client.expect("ready", workers.READY_SECONDS)
    client.begin("call", 1_000_000, 40.0, server, interval=0.0, timeout=20.0, threads=8)
    for _ in range(3):
        assert look(cloud, r)[0] == {}
    cloud.stop(NAME)
    cloud.start(NAME)
    for _ in range(4):
        assert look(cloud, r)[0] == {}
        time.sleep(2)
    client.enough()
    client.result()


def test_healthy_services_that_are_slow(cloud: clouds.Cloud) -> None:
    r = planned(cloud)
    cloud.start(NAME)
    start(cloud, "server", 12.0)
    start(cloud, "callers", 3)
    start(cloud, "listener", 2.0)
    time.sleep(4)
    found, seen = look(cloud, r)
    assert found == {}, seen
    assert seen.seconds > 0  # something waited, and moved


def test_a_server_that_hangs(cloud: clouds.Cloud) -> None:
    """The server is connected and gets deliveries, but does not answer."""
    r = planned(cloud)
    cloud.start(NAME)
    server = serve(cloud)
    calling = start(cloud, "callers", 4)
    processes.wait_until("calls are answered", lambda: ", 0 failed" in log(calling), 30, interval=0.2)
    time.sleep(2)
    server.process.signal(signal.SIGSTOP)
    time.sleep(1)
    found, _ = look(cloud, r)
    server.process.signal(signal.SIGCONT)
    assert set(found) == {"service-stuck"}, found
    assert f"workload.py (process {server.process.pid} on " in found["service-stuck"]
    assert "systemctl status" in found["service-stuck"]
    processes.wait_until("calls are answered", lambda: look(cloud, r)[0] == {}, 60, interval=1)


def test_a_server_with_more_callers_than_sessions(cloud: clouds.Cloud) -> None:
    """The driver opens a session for every link, so no session is left for the last callers' answers."""
    r = planned(cloud, maxSessions=FEW)
    cloud.start(NAME)
    server = serve(cloud)
    start(cloud, "callers", 4)
    time.sleep(3)
    assert look(cloud, r)[0] == {}
    start(cloud, "callers", 20)
    time.sleep(6)
    found, seen = look(cloud, r)
    counts = [(client.who, client.sessions) for client in seen.clients if client.receivers > 1]
    assert "sessions-exhausted" in found and set(found) <= {"sessions-exhausted", "service-stuck"}, (counts, found)
    assert f"all {FEW} sessions" in found["sessions-exhausted"]
    assert f"workload.py (process {server.process.pid} on " in found["sessions-exhausted"]
    assert kinds.KINDS["sessions-exhausted"].verdict == kinds.BROKEN


def test_verify_says_so(cloud: clouds.Cloud) -> None:
    """verify's own test messages still succeed."""
    cloud.start(NAME)
    metadata = cloud.metadata(NAME)
    server = serve(cloud)
    called = start(cloud, "callers", 4)
    assert cloud.verify(NAME, metadata, seconds=20)[:2] == (0, {})
    server.process.signal(signal.SIGSTOP)
    try:
        time.sleep(1)  # each calls again half a second after an answer, and then waits
        code, found, done = cloud.verify(NAME, metadata)
    finally:
        server.process.signal(signal.SIGCONT)
    assert (code, set(found)) == (3, {"service-stuck"}), done.output + log(called)
    told: dict[str, typing.Any] = json.loads(done.output)
    assert told["verdict"] == "broken"
    assert [probe["error"] for probe in told["probes"]] == [""] * len(told["probes"]) != []
