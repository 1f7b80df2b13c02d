"""Permissions of a service's user on a real router: each refusal next to an accepted case."""

from __future__ import annotations

import pathlib
import resource
import typing

import pytest
from om_agent import model
from om_agent.plan import policy

from testbed import processes
from tests.router import cloud as clouds

pytestmark = pytest.mark.router

NODES = {"ctl-1.domain": "controller", "ctl-2": "controller", "cmp-1": "compute"}
NETWORK = "127.0.42"


@pytest.fixture
def cloud(engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path) -> clouds.Cloud:
    """Two controllers and a compute that run; metadata is of version 1."""
    made = clouds.Cloud(supervisor, tmp_path, engine, NETWORK, NODES, bare=True)
    metadata = made.metadata(*NODES)
    for name in NODES:
        made.apply(name, metadata)
    made.start(*NODES)
    made.converge()
    return made


def connect(
    cloud: clouds.Cloud, node: str, user: str, password: str, vhost: str | None = None, seconds: float = 10
) -> typing.Any:
    """Connect as a client does."""
    utils = pytest.importorskip("proton.utils")
    host = cloud.nodes[node]["host"]
    url = f"amqp://{user}%40overcloud:{password}@{host}:{clouds.PORT}"
    options = {"allowed_mechs": "PLAIN", **({"virtual_host": vhost} if vhost else {})}
    return utils.BlockingConnection(url, timeout=seconds, **options)


def attach(connection: typing.Any, way: str, address: str | None) -> str:
    """Open a link; returns '' or the condition's description."""
    utils = pytest.importorskip("proton.utils")
    make = connection.create_sender if way == "to" else connection.create_receiver
    try:
        make(address).close()
    except utils.LinkDetached as e:
        return str(e.link.remote_condition.description)
    return ""


def service(cloud: clouds.Cloud, node: str, way: str, address: str | None, vhost: str | None = None) -> str:
    connection = connect(cloud, node, "rpc", "rpc-secret", vhost)
    try:
        return attach(connection, way, address)
    finally:
        connection.close()


MANAGEMENT = (
    "$management",
    "_local/$management",
    "_topo/0/ctl-1.domain/$management",
    "amqp:/_topo/0/ctl-1.domain/$management",
    "amqp:/_topo/0/ctl-2/temp/../$management",
    "_edge/cmp-1/$management",
    "amqp:/_edge/cmp-1/$management",
)


@pytest.mark.parametrize("node", ["ctl-1.domain", "cmp-1"])
def test_addresses(cloud: clouds.Cloud, node: str) -> None:
    refused = "link disallowed by local policy"
    found = {address: service(cloud, node, "to", address) for address in MANAGEMENT}
    assert found == dict.fromkeys(MANAGEMENT, refused)
    assert service(cloud, node, "from", "$management") == refused
    assert service(cloud, node, "to", "openstack.org/om/notify/anycast/x") == refused  # the other half
    assert service(cloud, node, "to", "openstack.org/om/rpcs/x") == refused
    assert service(cloud, node, "from", "amqp:/_topo/0/ctl-2/temp.0123456789abcde") == refused  # others' answers
    assert service(cloud, node, "to", None) == refused  # anonymous: it would say the address later
    assert service(cloud, node, "to", "openstack.org/om/rpc/anycast/nova/conductor") == ""
    assert service(cloud, node, "from", "openstack.org/om/rpc/unicast/nova/compute/host.name") == ""


def test_the_client_does_not_choose_its_policy(cloud: clouds.Cloud) -> None:
    for vhost in ("edge", "client-rpc", "$default", "elsewhere"):
        assert service(cloud, "ctl-2", "to", "$management", vhost) == "link disallowed by local policy"
        assert service(cloud, "ctl-2", "to", "openstack.org/om/rpc/anycast/x", vhost) == ""


def test_the_agents_user_manages_from_anywhere(cloud: clouds.Cloud) -> None:
    for name in NODES:
        with cloud.routers[name].manage() as client:
            assert client.query("router")[0]["id"] == name
        reached = {row["id"] for row in _peer_nodes(cloud, name)}
        assert {"ctl-1.domain", "ctl-2"} <= reached


def _peer_nodes(cloud: clouds.Cloud, name: str) -> list[dict[str, typing.Any]]:
    code, found, done = cloud.verify(name, cloud.metadata(*NODES), seconds=20)
    assert [c for c in found if not c.startswith("notify")] == [], (code, done.output)
    with cloud.routers["ctl-2"].manage() as client:
        return client.query("router.node")


def test_another_virtual_host(engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path) -> None:
    """Cells that share routers keep to their own addresses."""
    cloud = clouds.Cloud(supervisor, tmp_path, engine, NETWORK, {"ctl-1": "controller"}, bare=True)
    cloud.apply("ctl-1", cloud.metadata("ctl-1", rpc={"virtual_host": "cell.1/a"}))
    cloud.start("ctl-1")
    assert service(cloud, "ctl-1", "to", "openstack.org/om/rpc/anycast/cell.1/a/nova/x") == ""
    assert service(cloud, "ctl-1", "to", "openstack.org/om/rpc/anycast/cell.2/a/nova/x") != ""
    assert service(cloud, "ctl-1", "to", "openstack.org/om/rpc/anycast/nova/x") != ""


def test_another_user_while_it_runs(cloud: clouds.Cloud) -> None:
    pids = cloud.pids()
    renamed = cloud.metadata(*NODES, rpc={"username": "rpc2", "password": "another"})
    for name in NODES:
        assert "vhost client-rpc: groups" in (said := cloud.apply(name, renamed))
        assert "could not be changed" not in said
    assert cloud.pids() == pids
    connection = connect(cloud, "cmp-1", "rpc2", "another")
    assert attach(connection, "to", "openstack.org/om/rpc/anycast/x") == ""
    assert attach(connection, "to", "$management") != ""
    connection.close()
    proton = pytest.importorskip("proton")
    with pytest.raises(proton.ConnectionException):
        connect(cloud, "cmp-1", "rpc", "rpc-secret")


def test_connections_are_limited(
    engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path
) -> None:
    few = {"max_connections": 16}
    cloud = clouds.Cloud(supervisor, tmp_path, engine, NETWORK, {"ctl-1": "controller"}, bare=True, router=few)
    cloud.apply("ctl-1", cloud.metadata("ctl-1"))
    cloud.start("ctl-1")
    proton = pytest.importorskip("proton")
    held = []
    with pytest.raises(proton.ConnectionException):
        for _ in range(20):
            held.append(connect(cloud, "ctl-1", "rpc", "rpc-secret"))
    assert len(held) == 16
    held.pop().close()
    connect(cloud, "ctl-1", "rpc", "rpc-secret").close()
    for connection in held:
        connection.close()


def test_a_connection_may_have_every_session_that_proton_has(cloud: clouds.Cloud) -> None:
    """The driver opens a session for every link. At the limit the client's own proton gives up the connection."""
    proton = pytest.importorskip("proton")
    connection = connect(cloud, "ctl-2", "rpc", "rpc-secret")
    transport = connection.conn.transport
    most = proton.Transport().channel_max
    assert (most, transport.remote_channel_max, transport.channel_max) == (32767, most, most)
    assert most + 1 == policy.SESSIONS
    connection.close()


def test_descriptors_run_out(engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path) -> None:
    """Connected clients keep working; a rejected client gets in as soon as another one disconnects."""
    cloud = clouds.Cloud(supervisor, tmp_path, engine, NETWORK, {"ctl-1": "controller"}, bare=True)
    cloud.apply("ctl-1", cloud.metadata("ctl-1"))
    cloud.start("ctl-1")
    proton = pytest.importorskip("proton")
    held = [connect(cloud, "ctl-1", "rpc", "rpc-secret") for _ in range(3)]
    descriptors = pathlib.Path(f"/proc/{cloud.pids()['ctl-1']}/fd")
    most = max(int(one.name) for one in descriptors.iterdir()) + 3
    _, hard = resource.prlimit(cloud.pids()["ctl-1"], resource.RLIMIT_NOFILE)
    resource.prlimit(cloud.pids()["ctl-1"], resource.RLIMIT_NOFILE, (most, hard))
    with pytest.raises((proton.Timeout, proton.ConnectionException)):
        for _ in range(5):
            held.append(connect(cloud, "ctl-1", "rpc", "rpc-secret", seconds=3))
    assert 3 <= len(held) <= 5
    assert [attach(connection, "to", "openstack.org/om/rpc/anycast/x") for connection in held] == [""] * len(held)
    held.pop().close()
    held.pop().close()
    held.append(connect(cloud, "ctl-1", "rpc", "rpc-secret", seconds=20))
    assert attach(held[-1], "to", "openstack.org/om/rpc/anycast/x") == ""
