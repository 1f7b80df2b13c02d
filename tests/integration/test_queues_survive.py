"""A notification survives kill -9 of the broker that leads its queue, with whichever RabbitMQ is installed."""

from __future__ import annotations

import signal
import typing

import pytest

from testbed import processes
from tests import brokers, helpers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

oslo_messaging = pytest.importorskip("oslo_messaging")
cfg = pytest.importorskip("oslo_config.cfg")

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
