"""verify and status with a RabbitMQ cluster of two: healthy, with an alarm, with a stopped member."""

from __future__ import annotations

import os
import signal
import time
import typing

import pytest
from om_agent import clients, connections

from testbed import processes, workers
from tests.support import brokers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

pytest.importorskip("oslo_messaging")
pytest.importorskip("proton")

NODES = ("ctl-1", "ctl-2")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[brokers.Brokers]:
    addresses = {name: f"127.0.48.{10 + i}" for i, name in enumerate(NODES)}
    with brokers.running(tmp_path_factory.mktemp("rabbit"), addresses) as made:
        yield made


def faults(told: dict[str, typing.Any]) -> dict[str, str]:
    """The sentences by code."""
    return {f["code"]: f"{f['message']}. {f['remedy']}" for f in told["findings"] if f["severity"] == "error"}


def test_all_is_well_and_nothing_is_left(cluster: brokers.Brokers) -> None:
    code, told = cluster.agent("verify", "--timeout", "60")
    assert (code, faults(told)) == (0, {})
    assert sorted((p["half"], p["to"], p["error"]) for p in told["probes"]) == [("notify", "", ""), ("rpc", "", "")]
    processes.wait_until(
        "the queues and exchanges of the probe are gone",
        # list_queues would wait a minute for the other broker, which cannot reach rabbitmqctl without a port mapper.
        lambda: (
            "om_agent" not in cluster.ctl(0, "eval", "{rabbit_amqqueue:list_names(), rabbit_exchange:list_names()}.")
        ),
        30,
        interval=1,
    )
    code, told = cluster.agent("status")
    assert code == 0
    assert told["router"] is None
    assert [(m["name"], m["running"]) for m in told["broker"]["members"]] == [
        ("rabbit@ctl-1", True), ("rabbit@ctl-2", True),
    ]  # fmt: skip
    assert told["broker"]["listeners"] == [{"address": "127.0.48.10", "port": 5672}]
    assert told["broker"]["queues"] is not None


def test_units_that_are_connected_and_those_that_are_not(cluster: brokers.Brokers) -> None:
    """A real service's process has a connection to a broker, on whichever node that is."""
    server = workers.Server(cluster.supervisor, cluster.cloud.hosts[0], "nova", "compute")
    server.expect("ready", workers.READY_SECONDS)
    units = [clients.Unit("nova-compute", "/f", frozenset((server.process.pid,)))]
    units += [clients.Unit("nova-conductor", "/f", frozenset((os.getpid(),)))]
    assert [u.name for u in connections.unconnected_to(5672, units)] == ["nova-conductor"]


@pytest.mark.parametrize(
    ("raise_it", "end_it", "said"),
    [
        (("set_vm_memory_high_watermark", "0.00001"), ("set_vm_memory_high_watermark", "0.4"), "memory is short"),
        (("set_disk_free_limit", "900000GB"), ("set_disk_free_limit", "50MB"), "disk space is short"),
    ],
    ids=["memory", "disk"],
)
def test_an_alarm(cluster: brokers.Brokers, raise_it: tuple[str, ...], end_it: tuple[str, ...], said: str) -> None:
    cluster.ctl(0, *raise_it)
    try:
        for node in (0, 1):  # an alarm of one stops the publishers of all
            code, told = cluster.agent("verify", "--timeout", "5", node=node)
            assert code == 3
            assert f"{said} on rabbit@ctl-1" in faults(told)["broker-alarm"]
            assert "free disk space or memory on that node" in faults(told)["broker-alarm"]
        code, told = cluster.agent("status")
        assert (code, told["broker"]["alarms"]) == (3, [f"{said} on rabbit@ctl-1"])
    finally:
        cluster.ctl(0, *end_it)


def test_a_broker_that_hangs(cluster: brokers.Brokers) -> None:
    process = cluster.cluster.nodes[1].process
    assert process
    process.signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        code, told = cluster.agent("status")  # which Erlang lets wait for up to 75 s
        assert (code, set(faults(told))) == (3, {"broker-members"}), told
        assert "do not run or do not answer: rabbit@ctl-2" in faults(told)["broker-members"]
        code, told = cluster.agent("status", node=1)
        assert (code, set(faults(told))) == (3, {"broker-down"})
        assert "it takes connections and does not answer: it hangs" in faults(told)["broker-down"]
        assert time.monotonic() - begun < 180
    finally:
        process.signal(signal.SIGCONT)
    cluster.cluster.wait()


def test_a_stopped_member(cluster: brokers.Brokers) -> None:
    process = cluster.cluster.nodes[1].process
    assert process
    cluster.supervisor.end(process, grace=30)
    code, told = cluster.agent("verify", "--timeout", "3")
    assert code == 3
    assert "do not run or do not answer: rabbit@ctl-2" in faults(told)["broker-members"]
    assert "om-agent status on ctl-2" in faults(told)["broker-members"]
    code, told = cluster.agent("status", node=1)
    assert code == 3
    assert told["broker"]["running"] is False
    assert "nothing listens: it does not run" in faults(told)["broker-down"]
    assert "systemctl status rabbitmq-server" in faults(told)["broker-down"]
