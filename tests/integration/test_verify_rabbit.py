"""verify and status against a real RabbitMQ cluster of two: all well, an alarm, a stopped member; nothing is left."""

from __future__ import annotations

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import typing

import pytest
from om_agent.plan import layout

from testbed import errors, overcloud, processes, rabbitmq
from tests import helpers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

pytest.importorskip("oslo_messaging")
pytest.importorskip("proton")

NODES = ("ctl-1", "ctl-2")
PASSWORD = "a-very-secret-word"


class Brokers:
    """Two brokers, and the agent on each."""

    def __init__(self, supervisor: processes.Supervisor, directory: pathlib.Path) -> None:
        self.supervisor = supervisor
        self.metadata = directory / "metadata.json"
        nodes = [{"name": name, "address": f"127.0.48.{10 + i}"} for i, name in enumerate(NODES)]
        raw = {"rpc": {"username": "openstack", "password": PASSWORD}, "nodes": nodes, "services": ["nova"]}
        self.metadata.write_text(json.dumps({"oslo_messaging": raw}))
        self.cloud = overcloud.create([self.metadata], directory / "nodes")
        for host in self.cloud.hosts:
            for service in set(overcloud.SERVICES) - {"nova"}:
                shutil.rmtree(host.service_file(service).parent)
        overcloud.apply_all(supervisor, self.cloud, "apply")
        self.cluster = rabbitmq.Cluster(supervisor, self.cloud)
        port = self.cloud.deployment.broker.dist_port
        # As `testbed.rabbitmq` starts them; the port is that of rabbitmqctl's own node too, so that one has an address.
        own = "-kernel inet_dist_use_interface {127,0,48,99}"
        self.erlang = {"ERL_ZFLAGS": f"-start_epmd false -erl_epmd_port {port} {own}"}
        self._count = 0

    def agent(self, command: str, *arguments: str, node: int = 0) -> tuple[int, dict[str, typing.Any]]:
        """Run a command with ``--json``; returns the exit code and what it printed."""
        self._count += 1
        host = self.cloud.hosts[node]
        argv = [sys.executable, "-m", "om_agent", command, str(self.metadata), "--json", "--node", host.name]
        argv += ["--root", str(host.root), "--relocate", "--no-services", *arguments]
        environment = {**overcloud.python_environment(), **self.erlang}
        done = self.supervisor.finish(self.supervisor.start(f"{command}-{self._count}", argv, environment), 200)
        assert PASSWORD not in done.output
        return done.returncode, json.loads(done.output)

    def ctl(self, *command: str) -> str:
        """Run rabbitmqctl on the first node."""
        host = self.cloud.hosts[0]
        environment = {
            **processes.environment(),
            **self.erlang,
            "HOME": str(host.path("/var/lib/rabbitmq")),
            "RABBITMQ_CONF_ENV_FILE": str(host.path(f"{layout.RABBIT_DIR}/rabbitmq-env.conf")),
        }
        argv = ["/usr/lib/rabbitmq/bin/rabbitmqctl", "--quiet", "--node", f"rabbit@{host.name}", *command]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=90, check=True)
        return done.stdout


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[Brokers]:
    try:
        rabbitmq.find_server()
    except errors.TestbedError as e:
        helpers.skip(str(e))
    if not pathlib.Path("/usr/lib/rabbitmq/bin/rabbitmqctl").exists():
        helpers.skip("RabbitMQ is not where Debian has it")
    directory = tmp_path_factory.mktemp("rabbit")
    with processes.Supervisor(directory / "logs") as supervisor:
        made = Brokers(supervisor, directory)
        try:
            made.cluster.start()
            made.cluster.wait()
            yield made
        finally:
            made.cluster.end()


def faults(told: dict[str, typing.Any]) -> dict[str, str]:
    """The sentences by code."""
    return {f["code"]: f"{f['message']}. {f['remedy']}" for f in told["findings"] if f["severity"] == "error"}


def test_all_is_well_and_nothing_is_left(brokers: Brokers) -> None:
    code, told = brokers.agent("verify", "--timeout", "60")
    assert (code, faults(told)) == (0, {})
    assert sorted((p["half"], p["to"], p["error"]) for p in told["probes"]) == [("notify", "", ""), ("rpc", "", "")]
    processes.wait_until(
        "the queues and exchanges of the probe are gone",
        lambda: "om_agent" not in brokers.ctl("list_queues", "name") + brokers.ctl("list_exchanges", "name"),
        30,
        interval=1,
    )
    code, told = brokers.agent("status")
    assert code == 0
    assert told["router"] is None
    assert [(m["name"], m["running"]) for m in told["broker"]["members"]] == [
        ("rabbit@ctl-1", True), ("rabbit@ctl-2", True),
    ]  # fmt: skip
    assert told["broker"]["listeners"] == [{"address": "127.0.48.10", "port": 5672}]
    assert told["broker"]["queues"] is not None


@pytest.mark.parametrize(
    ("raise_it", "end_it", "said"),
    [
        (("set_vm_memory_high_watermark", "0.00001"), ("set_vm_memory_high_watermark", "0.4"), "memory is short"),
        (("set_disk_free_limit", "900000GB"), ("set_disk_free_limit", "50MB"), "disk space is short"),
    ],
    ids=["memory", "disk"],
)
def test_an_alarm(brokers: Brokers, raise_it: tuple[str, ...], end_it: tuple[str, ...], said: str) -> None:
    brokers.ctl(*raise_it)
    try:
        for node in (0, 1):  # an alarm of one stops the publishers of all
            code, told = brokers.agent("verify", "--timeout", "5", node=node)
            assert code == 3
            assert f"{said} on rabbit@ctl-1" in faults(told)["broker-alarm"]
            assert "free disk or memory on that node" in faults(told)["broker-alarm"]
        code, told = brokers.agent("status")
        assert (code, told["broker"]["alarms"]) == (3, [f"{said} on rabbit@ctl-1"])
    finally:
        brokers.ctl(*end_it)


def test_a_broker_that_hangs(brokers: Brokers) -> None:
    process = brokers.cluster.nodes[1].process
    assert process
    process.signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        code, told = brokers.agent("status")  # which Erlang lets wait for up to 75 s
        assert (code, set(faults(told))) == (3, {"broker-members"}), told
        assert "do not run or do not answer: rabbit@ctl-2" in faults(told)["broker-members"]
        code, told = brokers.agent("status", node=1)
        assert (code, set(faults(told))) == (3, {"broker-down"})
        assert "it takes connections and does not answer: it hangs" in faults(told)["broker-down"]
        assert time.monotonic() - begun < 180
    finally:
        process.signal(signal.SIGCONT)
    brokers.cluster.wait()


def test_a_stopped_member(brokers: Brokers) -> None:
    process = brokers.cluster.nodes[1].process
    assert process
    brokers.supervisor.end(process, grace=30)
    code, told = brokers.agent("verify", "--timeout", "3")
    assert code == 3
    assert "do not run or do not answer: rabbit@ctl-2" in faults(told)["broker-members"]
    assert "om-agent status on ctl-2" in faults(told)["broker-members"]
    code, told = brokers.agent("status", node=1)
    assert code == 3
    assert told["broker"]["running"] is False
    assert "nothing listens: it does not run" in faults(told)["broker-down"]
    assert "systemctl status rabbitmq-server" in faults(told)["broker-down"]
