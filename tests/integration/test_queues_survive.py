"""A notification survives kill -9 of the broker that leads its queue, with whichever RabbitMQ is installed."""

from __future__ import annotations

import signal
import typing

import pytest

from testbed import processes
from tests.support import brokers, helpers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

oslo_messaging = pytest.importorskip("oslo_messaging")
cfg = pytest.importorskip("oslo_config.cfg")
kombu = pytest.importorskip("kombu")

NODES = ("ctl-1", "CTL-2", "ctl-3")
TOPIC = "om_survive"
SENT = [f"notification {i}" for i in range(5)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[brokers.Brokers]:
    addresses = {name: f"127.0.47.{10 + i}" for i, name in enumerate(NODES)}
    with brokers.running(tmp_path_factory.mktemp("survive"), addresses) as made:
        yield made


def leads(cluster: brokers.Brokers, node: int) -> dict[str, str]:
    """Return the queue of the notifications if that node leads it, else nothing.

    Nobody but the node itself is asked: without a port mapper the others do not find rabbitmqctl's own node.
    """
    columns = ("name", "type", "policy")
    lines = cluster.ctl(node, "list_queues", "--local", *columns).splitlines()
    rows = [dict(zip(columns, line.split("\t"))) for line in lines]
    return next((row for row in rows if row["name"] == f"{TOPIC}.info"), {})


def leader(cluster: brokers.Brokers, *nodes: int) -> int | None:
    """Return the first of these nodes that leads the queue."""
    return next((node for node in nodes if leads(cluster, node)), None)


class Received:
    """An endpoint of a listener."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def info(self, ctxt: object, publisher: str, event: str, payload: str, metadata: object) -> None:
        """Note a notification."""
        self.texts.append(payload)


def test_a_notification_survives_the_death_of_its_queues_leader(cluster: brokers.Brokers) -> None:
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[str(cluster.cloud.hosts[0].service_file("nova"))])
    transport = oslo_messaging.get_notification_transport(conf)
    notifier = oslo_messaging.Notifier(transport, "test", driver="messagingv2", topics=[TOPIC])
    for text in SENT:
        notifier.info({}, "event", text)
    leading = leader(cluster, 0, 1, 2)
    assert leading is not None
    queue = leads(cluster, leading)
    assert (queue["type"], queue["policy"]) == (("classic", "ha") if helpers.MIRRORED_QUEUES else ("quorum", ""))
    process = cluster.cluster.nodes[leading].process
    assert process
    process.signal(signal.SIGKILL)
    process.wait(30)
    others = [node for node in (0, 1, 2) if node != leading]
    processes.wait_until("another broker leads the queue", lambda: leader(cluster, *others) is not None, 60, interval=1)
    received = Received()
    listener = oslo_messaging.get_notification_listener(
        transport, [oslo_messaging.Target(topic=TOPIC)], [received], executor="threading"
    )
    listener.start()
    try:
        processes.wait_until("every notification is there", lambda: set(SENT) <= set(received.texts), 90)
    finally:
        listener.stop()
        listener.wait()
        transport.cleanup()
    cluster.cluster.nodes[leading].start()
    cluster.cluster.wait()
    assert cluster.members(others[0]) == cluster.everybody


def test_a_quorum_queue_that_lacks_members(cluster: brokers.Brokers) -> None:
    """A service may declare a queue before the other brokers have joined."""
    name = "om_thin"
    with kombu.Connection(f"amqp://openstack:{brokers.PASSWORD}@{cluster.cloud.hosts[0].node.address}//") as client:
        only_here = {"x-queue-type": "quorum", "x-quorum-initial-group-size": 1}
        client.default_channel.queue_declare(name, durable=True, auto_delete=False, arguments=only_here)
    code, told = cluster.agent("verify", "--timeout", "1")
    found = {f["code"]: f for f in told["findings"]}
    assert (code, told["verdict"]) == (3, "degraded"), told["findings"]
    said = f"the quorum queue {name} in the virtual host / has no copy on rabbit@CTL-2, rabbit@ctl-3"
    assert said in found["queue-members"]["message"]
    if helpers.MIRRORED_QUEUES:
        cluster.ctl(0, "delete_queue", name)
        assert "queue-members" not in {f["code"] for f in cluster.agent("verify", "--timeout", "60")[1]["findings"]}
        return
    # RabbitMQ 4 adds members when a broker joins again: what the agent wrote makes it do so.
    last = cluster.cluster.nodes[2]
    assert last.process
    cluster.supervisor.end(last.process, grace=30)
    last.start()
    cluster.cluster.wait()
    columns = ("name", "members")

    def members() -> int:
        lines = cluster.ctl(0, "list_queues", "--local", *columns).splitlines()
        return next((line.count("rabbit@") for line in lines if line.startswith(f"{name}\t")), 0)

    processes.wait_until("the queue has a member on each broker", lambda: members() == len(NODES), 120, interval=2)
    assert "queue-members" not in {f["code"] for f in cluster.agent("verify", "--timeout", "60")[1]["findings"]}
