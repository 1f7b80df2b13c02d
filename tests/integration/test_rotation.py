"""A new RabbitMQ password with real puppet and services under load: with a second user, no message is lost."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import pathlib
import shutil
import signal
import sys
import time
import typing

import pytest
from om_agent.plan import layout

from testbed import overcloud, processes, rabbitmq
from tests.support import helpers, restarting

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

pytest.importorskip("oslo_messaging")
kombu = pytest.importorskip("kombu")

NODES = {"ctl-1": "controller", "ctl-2": "controller", "cmp-1": "compute"}
BROKERS = ("ctl-1", "ctl-2")
ADDRESSES = {name: f"127.0.52.{10 + i}" for i, name in enumerate(NODES)}
OLD = {"username": "rpc", "password": "the-old-word"}
NEW = {"username": "rpc-2", "password": "the-new-word"}
# A name that a shell would run and an option parser would take for itself.
OLD_NOTIFY = {"username": "--quiet $(touch pwned) `touch pwned` \"'é", "password": "notes-old-word"}
NEW_NOTIFY = {"username": "notify-2", "password": "notes-new-word"}
PASSWORDS = [user["password"] for user in (OLD, NEW, OLD_NOTIFY, NEW_NOTIFY)]
BY_HAND = ("made-by-hand", "secret-of-hands")


class Cloud:
    """Two brokers, three nodes, and the agent on each."""

    def __init__(self, supervisor: processes.Supervisor, directory: pathlib.Path) -> None:
        self.supervisor = supervisor
        self._directory = directory
        self._count = 0
        self.all = overcloud.create([self.metadata(rpc=OLD, notify=OLD_NOTIFY)], directory / "nodes")
        self.hosts = {host.name: host for host in self.all.hosts}
        for host in self.all.hosts:
            for service in set(overcloud.SERVICES) - {"nova"}:
                shutil.rmtree(host.service_file(service).parent)
        self._erlang = rabbitmq.erlang_environment(self.all.deployment.broker.dist_port)

    def metadata(self, **messaging: typing.Any) -> pathlib.Path:
        """Write a metadata file."""
        self._count += 1
        path = self._directory / f"metadata-{self._count}.json"
        nodes = [{"name": name, "address": ADDRESSES[name], "role": role} for name, role in NODES.items()]
        path.write_text(json.dumps({"oslo_messaging": {**messaging, "nodes": nodes}}))
        return path

    def begin(self, name: str, metadata: pathlib.Path, command: str = "apply") -> processes.Process:
        """Start the agent on a node; it changes the running broker."""
        self._count += 1
        options = ["--node", name, "--root", str(self.hosts[name].root), "--relocate", "--no-services", "--reconcile"]
        argv = [sys.executable, "-m", "om_agent", command, str(metadata), *options]
        argv += ["--verbose"] if command == "apply" else []
        environment = {**overcloud.python_environment(), **self._erlang}
        return self.supervisor.start(f"{command}-{self._count}-{name}", argv, environment)

    def agent(self, name: str, metadata: pathlib.Path, command: str = "apply") -> str:
        """Run the agent and return its output."""
        done = self.supervisor.finish(self.begin(name, metadata, command), 120)
        assert done.returncode == 0, done.output
        assert not [word for word in PASSWORDS if word in done.output]
        return done.output

    def ctl(self, *command: str) -> str:
        """Run rabbitmqctl on the first broker."""
        return rabbitmq.ctl(self.hosts[BROKERS[0]], *command)

    def users(self) -> set[str]:
        """Return the names of the brokers' users."""
        return {row["user"] for row in json.loads(self.ctl("list_users", "--formatter", "json"))}

    def mark(self, name: str) -> pathlib.Path:
        """Return what says that a run changes the broker."""
        return self.hosts[name].path(layout.STATE_DIR) / "broker-changing"


def lets_in(name: str, user: typing.Mapping[str, str]) -> bool:
    """Return whether a broker accepts a login."""
    connection = kombu.Connection(
        hostname=ADDRESSES[name], userid=user["username"], password=user["password"], connect_timeout=5
    )
    with contextlib.closing(connection):
        try:
            connection.connect()
        except (*connection.connection_errors, *connection.channel_errors) as e:
            assert "ACCESS_REFUSED" in str(e), e
            return False
        return True


def pids(cluster: rabbitmq.Cluster) -> list[int]:
    assert all(process.poll() is None for process in cluster.processes)
    return [process.pid for process in cluster.processes]


@pytest.fixture
def cloud(tmp_path: pathlib.Path) -> typing.Iterator[Cloud]:
    helpers.need_rabbitmq()
    if not shutil.which("puppet"):
        helpers.skip("puppet is not on PATH")
    with processes.Supervisor(tmp_path / "logs") as supervisor:
        yield Cloud(supervisor, tmp_path)


@contextlib.contextmanager
def running(cloud: Cloud) -> typing.Iterator[rabbitmq.Cluster]:
    """The brokers, started with what was applied first."""
    cluster = rabbitmq.Cluster(cloud.supervisor, cloud.all)
    try:
        cluster.start()
        cluster.wait()
        yield cluster
    finally:
        cluster.end()


def derived(purpose: str) -> str:
    """Return a secret derived from ``rpc.password`` with the command of doc/operations.rst."""
    return hmac.new(OLD["password"].encode(), purpose.encode(), hashlib.sha256).hexdigest()


def test_three_updates(cloud: Cloud) -> None:
    first = cloud.metadata(rpc=OLD, notify=OLD_NOTIFY)
    for name in NODES:
        cloud.agent(name, first)
    broker = {"erlang_cookie": derived("erlang cookie")}
    accept = cloud.metadata(
        rpc={**OLD, "also_accept": [NEW]}, notify={**OLD_NOTIFY, "also_accept": [NEW_NOTIFY]}, broker=broker
    )
    swap = cloud.metadata(
        rpc={**NEW, "also_accept": [OLD]}, notify={**NEW_NOTIFY, "also_accept": [OLD_NOTIFY]}, broker=broker
    )
    drop = cloud.metadata(rpc=NEW, notify=NEW_NOTIFY, broker=broker)
    with running(cloud) as cluster:
        before = pids(cluster)
        cloud.ctl("add_user", *BY_HAND)
        services = restarting.Services(
            cloud.supervisor, cloud.all.hosts, ("ctl-1", "cmp-1"), ("ctl-2",), ("call", "cast", "notify")
        )
        services.begin()
        planned = cloud.agent("ctl-1", accept, "plan")
        assert "change rabbitmq-server while it runs\n" in planned and "+ user rpc-2" in planned
        for update, order in (
            (accept, ("ctl-1", "ctl-2", "cmp-1")),
            (swap, ("cmp-1", "ctl-2", "ctl-1")),  # a node without a broker before those that have one
            (drop, ("ctl-2", "cmp-1", "ctl-1")),
        ):
            for name in order:
                said = cloud.agent(name, update)
                assert "could not be changed" not in said and "still has" not in said
                assert services.restart_if_changed(name) is (update is swap)
                if update is not drop:  # whoever may log in at any time of it may do so everywhere
                    known = (OLD, OLD_NOTIFY) if update is accept else (OLD, NEW, OLD_NOTIFY, NEW_NOTIFY)
                    assert all(lets_in(at, user) for at in BROKERS for user in known)
                assert not cloud.mark(name).exists()
                assert "nothing to do" in cloud.agent(name, update)
            time.sleep(2)
        sent, lost = services.end()
        print(f"{sent}, {services.restarts} restarts of a node's services, lost: {lost}")
        assert lost == [] and min(sent.values()) > 300
        assert services.restarts == len(NODES)
        assert pids(cluster) == before
        assert cloud.users() == {"rpc-2", "notify-2", BY_HAND[0]}
        for at in BROKERS:
            assert [lets_in(at, user) for user in (NEW, NEW_NOTIFY)] == [True, True]
            assert [lets_in(at, user) for user in (OLD, OLD_NOTIFY)] == [False, False]
    assert not list(cloud.hosts["ctl-1"].root.rglob("pwned"))


def test_what_ends_with_the_user(cloud: Cloud) -> None:
    """Deleting a user closes its connections and removes the mirrors that are no longer needed."""
    accept = cloud.metadata(rpc={**NEW, "also_accept": [OLD]}, broker={"erlang_cookie": "cookiecookie"})
    drop = cloud.metadata(rpc=NEW, broker={"erlang_cookie": "cookiecookie", "queues": "classic"})
    for name in BROKERS:
        cloud.agent(name, accept)
    with running(cloud):
        assert ("ha" in cloud.ctl("list_policies")) is helpers.MIRRORED_QUEUES
        connections = {
            user["username"]: kombu.Connection(
                hostname=ADDRESSES["ctl-2"], userid=user["username"], password=user["password"]
            )
            for user in (OLD, NEW)
        }
        for connection in connections.values():
            connection.connect()
        said = cloud.agent("ctl-1", drop)
        assert "- user rpc\n" in said
        assert ("- policy ha in /" in said) is helpers.MIRRORED_QUEUES
        assert "nothing to do" not in cloud.agent("ctl-2", drop)  # its file; the users are the cluster's
        time.sleep(1)
        with pytest.raises(connections["rpc"].connection_errors):
            connections["rpc"].default_channel.queue_declare("x", exclusive=True)
        connections["rpc-2"].default_channel.queue_declare("y", exclusive=True)
        assert "ha" not in cloud.ctl("list_policies")
        for connection in connections.values():
            with contextlib.suppress(OSError):
                connection.close()


def test_another_user_in_one_step_stays_for_the_others(cloud: Cloud) -> None:
    """Nodes that are updated later know only the old user, so no update may delete it."""
    metadata = [cloud.metadata(rpc=user, broker={"erlang_cookie": "cookiecookie"}) for user in (OLD, NEW)]
    cloud.agent("ctl-1", metadata[0])
    cloud.agent("ctl-2", metadata[0])
    with running(cloud):
        said = cloud.agent("ctl-1", metadata[1])
        assert "The broker still has user rpc, since services of other nodes may log in so." in said
        assert lets_in("ctl-2", OLD) and lets_in("ctl-2", NEW)
        assert "nothing to do" in cloud.agent("ctl-1", metadata[1])


def test_killed_at_any_moment(cloud: Cloud) -> None:
    broker = {"erlang_cookie": "cookiecookie"}
    accept = cloud.metadata(rpc={**OLD, "also_accept": [NEW]}, broker=broker)
    drop = cloud.metadata(rpc=OLD, broker=broker)
    for name in BROKERS:
        cloud.agent(name, drop)
    wanted = {accept: {"rpc", "rpc-2", BY_HAND[0]}, drop: {"rpc", BY_HAND[0]}}
    with running(cloud) as cluster:
        before = pids(cluster)
        cloud.ctl("add_user", *BY_HAND)
        now, other, marks = drop, accept, 0
        for i in range(8):
            run = cloud.begin("ctl-1", other)
            while run.poll() is None and not cloud.mark("ctl-1").exists():
                time.sleep(0.005)
            time.sleep(0.5 * i)
            run.signal(signal.SIGKILL)
            run.wait(10)
            marks += cloud.mark("ctl-1").exists()
            if i % 3:  # on with it; else back
                now, other = other, now
            assert "could not be changed" not in cloud.agent("ctl-1", now)
            assert cloud.users() == wanted[now]
            assert "nothing to do" in cloud.agent("ctl-1", now)
        print(f"{marks} of 8 runs were killed while they changed the broker")
        assert marks
        assert pids(cluster) == before


def test_a_broker_that_is_down_has_it_with_its_next_start(cloud: Cloud) -> None:
    broker = {"erlang_cookie": "cookiecookie", "cluster": False}
    nodes = {"nodes": ["ctl-1"]}
    first, accept, drop = (
        cloud.metadata(rpc={**user, **nodes}, broker=broker) for user in (OLD, {**OLD, "also_accept": [NEW]}, NEW)
    )
    cloud.agent("ctl-1", first)
    node = rabbitmq.Node(cloud.supervisor, cloud.hosts["ctl-1"], cloud.all.deployment.broker.metrics_port)

    def start() -> None:
        node.start()
        assert node.process
        processes.wait_until("the broker runs", node.is_ready, rabbitmq.READY_SECONDS, [node.process])

    def stop() -> None:
        assert node.process
        cloud.supervisor.end(node.process, grace=30)

    start()
    stop()
    said = cloud.agent("ctl-1", accept)
    assert "The running broker could not be changed: it does not run, or does not accept this node's Erlang" in said
    assert "Its next start has it: restart rabbitmq-server." in said
    start()
    assert lets_in("ctl-1", OLD) and lets_in("ctl-1", NEW)
    stop()
    said = cloud.agent("ctl-1", drop)
    assert "The broker still has user rpc: it does not run" in said
    assert "Run om-agent apply again when it runs." in said
    start()
    assert lets_in("ctl-1", OLD)  # nothing but a broker that runs can be told to forget somebody
    assert "an interrupted run may have left it half changed" not in (said := cloud.agent("ctl-1", drop))
    assert "- user rpc" in said
    assert not lets_in("ctl-1", OLD) and lets_in("ctl-1", NEW)
    assert "nothing to do" in cloud.agent("ctl-1", drop)
    stop()
    node.close()
