"""Changes to running routers of the real engines, without a restart and during calls."""

from __future__ import annotations

import pathlib
import signal
import socket
import time

import pytest
from om_agent import model
from om_agent.plan import layout

from testbed import processes, sockets
from tests.router import cloud as clouds

pytestmark = pytest.mark.router

SMALL = ("ctl-1", "ctl-2", "ctl-3")
MORE = ("ctl-4", "ctl-5")
COMPUTES = ("cmp-1", "cmp-2", "cmp-3")
NODES = {**dict.fromkeys(SMALL + MORE, "controller"), **dict.fromkeys(COMPUTES, "compute")}


def judge(cloud: clouds.Cloud, ok: int, failed: list[str]) -> None:
    """Check that no call was lost. The error shows routers that lost peers because this machine was too busy."""
    assert (failed, ok > 300) == ([], True), cloud.starved()[:1]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_controllers_come_and_go_without_a_restart_or_a_lost_call(
    engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path
) -> None:
    cloud = clouds.Cloud(supervisor, tmp_path, engine, "127.0.41", NODES)
    three = cloud.metadata(*SMALL, *COMPUTES)
    five = cloud.metadata(*NODES)
    for name in SMALL + COMPUTES:
        cloud.apply(name, three)
    cloud.start(*SMALL, *COMPUTES)
    cloud.converge()
    pids = cloud.pids()
    load = clouds.Load(cloud, COMPUTES[:2], (*SMALL, *COMPUTES))

    load.begin(40)
    for name in MORE:
        cloud.apply(name, five)
    cloud.start(*MORE)
    said = [cloud.apply(name, five) for name in SMALL + COMPUTES]
    took = cloud.converge()
    ok, failed, slowest = load.results()
    print(f"{engine.value} 3 -> 5: {ok} calls, {failed}, slowest {slowest:.2f} s, converged after {took:.2f} s")
    judge(cloud, ok, failed)
    assert "could not be changed" not in "".join(said)
    assert {name: cloud.pids()[name] for name in pids} == pids

    load.begin(40)
    said = [cloud.apply(name, three) for name in SMALL + COMPUTES]
    cloud.stop(*MORE)
    took = cloud.converge()
    ok, failed, slowest = load.results()
    print(f"{engine.value} 5 -> 3: {ok} calls, {failed}, slowest {slowest:.2f} s, converged after {took:.2f} s")
    judge(cloud, ok, failed)
    assert "could not be changed" not in "".join(said)
    assert cloud.pids() == pids


NODE = {"ctl-1": "controller", "ctl-2": "controller"}


def test_a_port_that_another_program_has(
    engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path
) -> None:
    """The engines report a new listener even if its port is taken, so the agent checks before and after."""
    cloud = clouds.Cloud(supervisor, tmp_path, engine, "127.0.41", NODE, bare=True)
    metadata = cloud.metadata(*NODE)
    cloud.apply("ctl-1", metadata)
    cloud.start("ctl-1")
    before = cloud.config("ctl-1").read_bytes()
    with socket.socket() as taken:
        taken.bind(("127.0.41.10", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with cloud.routers["ctl-1"].manage() as client:
            client.create("listener", "taken", {"host": "127.0.41.10", "port": str(port), "role": "normal"})
            assert "taken" in [row["name"] for row in client.query("listener")]
            client.delete("listener", "taken")
        done = cloud.agent("ctl-1", "apply", cloud.metadata(*NODE, rpc={"port": port}), "--reconcile")
        assert done.returncode == 1
        assert f"Port {port} of 127.0.41.10 is taken by another program" in done.output
    assert cloud.config("ctl-1").read_bytes() == before
    with cloud.routers["ctl-1"].manage() as client:  # at its old port: the change was taken back
        assert sorted(row["port"] for row in client.query("listener")) == ["31459", "31460", "31461"]
    moved = cloud.apply("ctl-1", cloud.metadata(*NODE, rpc={"port": port}))
    assert "reconcile" in moved
    assert "could not be changed" not in moved
    assert sockets.is_open(("127.0.41.10", port))
    assert not sockets.is_open(("127.0.41.10", clouds.PORT))


def test_what_a_killed_run_left_is_mended(
    engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path
) -> None:
    cloud = clouds.Cloud(supervisor, tmp_path, engine, "127.0.41", NODE, bare=True)
    metadata = cloud.metadata(*NODE)
    for name in NODE:
        cloud.apply(name, metadata)
    cloud.start(*NODE)
    cloud.converge()
    pids = cloud.pids()
    state = cloud.hosts["ctl-2"].path(layout.STATE_DIR)
    (state / "router-changing").write_text("{}")
    with cloud.routers["ctl-2"].manage() as client:
        client.delete("connector", "inter-router/ctl-1")
        stray = {"host": "127.0.41.99", "port": "1", "role": "inter-router", "saslMechanisms": "ANONYMOUS"}
        client.create("connector", "inter-router/stray", stray)
    said = cloud.apply("ctl-2", metadata)
    assert "an interrupted run may have left it half changed" in said
    assert "could not be changed" not in said
    with cloud.routers["ctl-2"].manage() as client:
        assert [row["name"] for row in client.query("connector")] == ["inter-router/ctl-1"]
    cloud.converge()
    assert cloud.pids() == pids
    assert "nothing to do" in cloud.apply("ctl-2", metadata)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_at_any_moment(engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path) -> None:
    """After a kill at any point, the next run of either deployment makes the router match its file."""
    cloud = clouds.Cloud(supervisor, tmp_path, engine, "127.0.41", dict.fromkeys(SMALL, "controller"), bare=True)
    few = cloud.metadata("ctl-1", "ctl-3")
    many = cloud.metadata(*SMALL, router={"link_capacity": 77})
    host = cloud.hosts["ctl-3"]
    for name in ("ctl-1", "ctl-3"):
        cloud.apply(name, few)
    cloud.start("ctl-1", "ctl-3")
    pids = cloud.pids()
    options = ("--reconcile", "--node", "ctl-3", "--root", host.root, "--relocate", "--no-services")
    mark = host.path(layout.STATE_DIR) / "router-changing"
    cloud.apply("ctl-3", many)
    marks, now, other = 0, many, few
    for i in range(12):
        run = cloud.begin("ctl-3", "apply", other, *options)
        while run.poll() is None and not mark.exists():
            time.sleep(0.001)
        time.sleep(0.01 * i)
        run.signal(signal.SIGKILL)
        run.wait(10)
        marks += mark.exists()
        if i % 3:  # on with it; else back
            now, other = other, now
        assert "could not be changed" not in cloud.apply("ctl-3", now)
        assert "nothing to do" in cloud.apply("ctl-3", now)
        with cloud.routers["ctl-3"].manage() as client:
            assert len(client.query("connector")) == (2 if now is many else 1)
            (listener,) = [row for row in client.query("listener") if row["name"] == "client-rpc"]
            assert (listener["linkCapacity"] == 77) is (now is many)
    print(f"{engine.value}: {marks} of 12 runs were killed while they changed the router")
    assert marks
    assert cloud.pids() == pids


def test_a_router_that_cannot_be_asked_is_to_be_restarted(
    engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path
) -> None:
    cloud = clouds.Cloud(supervisor, tmp_path, engine, "127.0.41", NODE, bare=True)
    cloud.apply("ctl-1", cloud.metadata(*NODE))
    more = cloud.metadata(*NODE, router={"link_capacity": 77})
    planned = cloud.agent("ctl-1", "plan", more, "--reconcile").output
    assert f"change {engine.value} while it runs\n  ~ listener client-rpc: linkCapacity" in planned
    said = cloud.apply("ctl-1", more)
    assert "The running router could not be changed" in said
    assert f"Restart {engine.value}." in said


def test_mesh_password_is_changed_while_it_runs(
    engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path
) -> None:
    cloud = clouds.Cloud(supervisor, tmp_path, engine, "127.0.41", NODE, bare=True)
    for name in NODE:
        cloud.apply(name, cloud.metadata(*NODE, router={"admin_password": "a"}))
    cloud.start(*NODE)
    pids = cloud.pids()
    renewed = cloud.metadata(*NODE, router={"mesh_password": "another", "admin_password": "b"})
    said = [cloud.apply(name, renewed) for name in NODE]
    assert "certificates are read anew: mesh" in said[1]
    assert "could not be changed" not in "".join(said)
    code, found, _ = cloud.verify("ctl-2", renewed, seconds=30)
    assert (code, found) == (0, {})
    assert cloud.pids() == pids


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_draining_before_a_restart(
    engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path
) -> None:
    nodes = {**dict.fromkeys(SMALL, "controller"), **dict.fromkeys(COMPUTES, "compute")}
    cloud = clouds.Cloud(supervisor, tmp_path, engine, "127.0.41", nodes)
    metadata = cloud.metadata(*nodes)
    for name in nodes:
        cloud.apply(name, metadata)
    cloud.start(*nodes)
    cloud.converge()
    load = clouds.Load(cloud, COMPUTES[:2], COMPUTES)
    for how in ("stopped", "drained"):
        load.begin(24)
        for name in SMALL:
            if how == "drained":
                done = cloud.agent(name, "drain", metadata)
                assert done.returncode == 0, done.output
                assert "nothing of other nodes passes here any more" in done.output
            cloud.stop(name)
            cloud.start(name)
            cloud.converge()
        ok, failed, slowest = load.results()
        print(f"{engine.value} rolling restart, {how}: {ok} calls, {failed}, slowest {slowest:.2f} s")
        assert len(failed) < ok / 50
    _, found, _ = cloud.verify("cmp-1", metadata, seconds=60)
    assert [code for code in found if not code.startswith("notify")] == []  # there is no RabbitMQ here


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_draining_where_clients_have_other_routers(
    engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path
) -> None:
    """With ``router.clients: mesh`` clients move to other routers, and those that moved keep working."""
    nodes = {**dict.fromkeys(SMALL, "controller"), "cmp-1": "compute"}
    router = {"clients": "mesh"}
    cloud = clouds.Cloud(supervisor, tmp_path, engine, "127.0.41", nodes, router=router)
    metadata = cloud.metadata(*nodes)
    for name in nodes:
        cloud.apply(name, metadata)
    cloud.start(*SMALL)
    cloud.converge()
    load = clouds.Load(cloud, ("cmp-1",), (*nodes, *nodes))
    load.begin(20)
    done = cloud.agent("ctl-1", "drain", metadata)
    assert done.returncode == 0, done.output
    assert "clients have this router alone" not in done.output
    with cloud.routers["ctl-2"].manage() as client:  # the others are told nothing and lose nothing
        assert [row["name"] for row in client.query("listener")]
    cloud.stop("ctl-1")
    cloud.start("ctl-1")
    cloud.converge()
    ok, failed, slowest = load.results()
    print(f"{engine.value} drained, clients elsewhere: {ok} calls, {failed}, slowest {slowest:.2f} s; {done.output}")
    assert len(failed) <= 2
    assert ok > 100
