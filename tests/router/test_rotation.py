"""Another password for services of routers, by way of a second user: real engines, services under load, no restart."""

from __future__ import annotations

import pathlib
import time
import typing

import pytest
from om_agent import model

from testbed import processes
from tests.router import cloud as clouds
from tests.support import restarting

pytestmark = pytest.mark.router

NODES = {"ctl-1": "controller", "ctl-2": "controller", "cmp-1": "compute"}
OLD = {"username": "rpc", "password": "the-old-word"}
NEW = {"username": "rpc-2", "password": "the-new-word"}


def connect(cloud: clouds.Cloud, node: str, user: typing.Mapping[str, str]) -> typing.Any:
    """Connect as a client does."""
    utils = pytest.importorskip("proton.utils")
    url = f"amqp://{user['username']}%40overcloud:{user['password']}@{cloud.nodes[node]['host']}:{clouds.PORT}"
    return utils.BlockingConnection(url, timeout=10, allowed_mechs="PLAIN")


def lets_in(cloud: clouds.Cloud, node: str, user: typing.Mapping[str, str]) -> bool:
    """Return whether a router accepts a login and an attach to RPC's addresses."""
    proton = pytest.importorskip("proton")
    try:
        connection = connect(cloud, node, user)
    except proton.ConnectionException as e:
        assert "unauthorized" in str(e), e
        return False
    connection.create_sender("openstack.org/om/rpc/anycast/x").close()
    connection.close()
    return True


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_three_updates(engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path) -> None:
    cloud = clouds.Cloud(supervisor, tmp_path, engine, "127.0.53", NODES)
    first, accept, swap, drop = (
        cloud.metadata(*NODES, rpc=rpc)
        for rpc in (OLD, {**OLD, "also_accept": [NEW]}, {**NEW, "also_accept": [OLD]}, NEW)
    )
    for name in NODES:
        cloud.apply(name, first)
    cloud.start(*NODES)
    cloud.converge()
    pids = cloud.pids()
    services = restarting.Services(supervisor, cloud.all.hosts, ("ctl-1", "cmp-1"))
    time.sleep(1.5)  # for all routers to know of the servers
    services.begin()
    left_over = None
    for update, order in (
        (accept, ("ctl-1", "ctl-2", "cmp-1")),
        (swap, ("cmp-1", "ctl-2", "ctl-1")),
        (drop, ("ctl-2", "cmp-1", "ctl-1")),
    ):
        if update is drop:
            left_over = connect(cloud, "ctl-2", OLD)  # of a service that nobody restarted
        for name in order:
            said = cloud.apply(name, update)
            assert "could not be changed" not in said
            assert ("reconcile" in said) is (update is not swap)  # which changes services' files alone
            assert services.restart_if_changed(name) is (update is swap)
            if update is accept:
                assert lets_in(cloud, name, OLD) and lets_in(cloud, name, NEW)
        if update is swap:
            assert all(lets_in(cloud, name, user) for name in NODES for user in (OLD, NEW))
        time.sleep(3)
    sent, lost = services.end()
    print(f"{engine.value}: {sent}, {services.restarts} restarts of a node's services, lost: {lost}")
    assert (lost, sent["call"] > 300) == ([], True), cloud.starved()[:1]
    assert services.restarts == len(NODES)
    assert cloud.pids() == pids
    for name in NODES:
        assert lets_in(cloud, name, NEW) and not lets_in(cloud, name, OLD)
    proton = pytest.importorskip("proton")
    assert left_over
    with pytest.raises((proton.ConnectionException, proton.utils.LinkDetached)):
        left_over.create_sender("openstack.org/om/rpc/anycast/x")


def test_in_one_step_nobody_is_thrown_out(
    engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path
) -> None:
    """Even without a second user, services on nodes that are updated later keep their connections."""
    nodes = {"ctl-1": "controller"}
    cloud = clouds.Cloud(supervisor, tmp_path, engine, "127.0.53", nodes, bare=True)
    cloud.apply("ctl-1", cloud.metadata(*nodes, rpc=OLD))
    cloud.start("ctl-1")
    connection = connect(cloud, "ctl-1", OLD)
    said = cloud.apply("ctl-1", cloud.metadata(*nodes, rpc=NEW))
    assert "reconcile" in said and "could not be changed" not in said
    connection.create_sender("openstack.org/om/rpc/anycast/x").close()
    assert lets_in(cloud, "ctl-1", NEW) and not lets_in(cloud, "ctl-1", OLD)


def test_the_agents_own_password(
    engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path
) -> None:
    """Only the SASL database has it, and the router reads that at each login."""
    nodes = {"ctl-1": "controller"}
    cloud = clouds.Cloud(supervisor, tmp_path, engine, "127.0.53", nodes, bare=True)
    for word in ("one", "two"):
        metadata = cloud.metadata(*nodes, rpc=OLD, router={"admin_password": word})
        cloud.apply("ctl-1", metadata)
        if not cloud.routers:
            cloud.start("ctl-1")
            pids = cloud.pids()
        code, found, _ = cloud.verify("ctl-1", metadata)
        assert [c for c in found if not c.startswith("notify")] == [], code
    assert cloud.pids() == pids
    admin = {"username": model.ADMIN_USER, "password": "one"}
    assert not lets_in(cloud, "ctl-1", admin)
