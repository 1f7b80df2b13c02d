"""Real nova, neutron and cinder work over what the agent writes, over a router as over RabbitMQ."""

from __future__ import annotations

import time

import pytest

from tests.services import cloud as clouds
from tests.services import conftest

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(900)]

HOSTS = (clouds.NAME, *(f"fake-{number:02}" for number in range(conftest.COMPUTES)))
COMPUTES = {("nova-compute", host) for host in HOSTS}
NOVA = COMPUTES | {("nova-conductor", clouds.NAME)}

# RabbitMQ's figure for each of these is below a second.
REQUEST_SECONDS = 8.0
# A router that releases a message of the AMQP 1.0 driver has it try again for 30 s; then the service ends.
ALONE_SECONDS = 60.0


def test_twenty_one_computes_register_and_stay_up(cloud: clouds.Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    """The conductor answers every compute: one process with more than twenty peers."""
    took = cloud.wait("all computes report", lambda: cloud.up("nova") >= NOVA, 180)
    cloud.nova_manage("cell_v2", "discover_hosts")
    known = {host for (host,) in cloud.sql("nova_api", "SELECT host FROM host_mappings")}
    assert known == set(HOSTS)
    answers = cloud.calls(HOSTS)
    failed = {host: answer for host, answer in answers.items() if isinstance(answer, str)}
    assert not failed, failed
    # Reports that are a moment old: nobody has stopped since.
    cloud.wait("all computes report still", lambda: cloud.up("nova") >= NOVA, 30)
    slowest = max(float(answer) for answer in answers.values())
    line = f"computes: {len(HOSTS)} registered within {took:.0f} s, slowest of {len(HOSTS)} calls {slowest:.2f} s"
    if cloud.engine:
        line += f", links of a connection at most {cloud.links_by_connection()[:3]}"
    with capsys.disabled():
        print(f"\n{line}")


def test_a_port_without_an_agent(cloud: clouds.Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    """neutron fans out what it does to ports, whoever listens."""
    cloud.wait("neutron listens", lambda: cloud.is_open(9696), clouds.START_SECONDS)
    made, network = cloud.request("POST", "/v2.0/networks", {"network": {"name": "n", "tenant_id": "t"}})
    body = {"port": {"network_id": made["network"]["id"], "tenant_id": "t", "admin_state_up": True}}
    port, create = cloud.request("POST", "/v2.0/ports", body)
    _, delete = cloud.request("DELETE", f"/v2.0/ports/{port['port']['id']}")
    with capsys.disabled():
        print(f"\nneutron: network created in {network:.1f} s, port in {create:.1f} s, deleted in {delete:.1f} s")
    assert max(create, delete) < REQUEST_SECONDS, (create, delete, cloud.complaints())


def test_a_scheduler_without_volume_or_backup(cloud: clouds.Cloud) -> None:
    """cinder-scheduler asks for capabilities in a fanout when it starts."""
    alive = cloud.started["cinder-scheduler"] + ALONE_SECONDS - time.monotonic()
    time.sleep(max(alive, 0))
    assert cloud.ended("cinder-scheduler") is None, cloud.complaints()
    wanted = {("cinder-scheduler", clouds.NAME)}
    cloud.wait("cinder-scheduler reports", lambda: cloud.up("cinder") >= wanted, 30)
    assert not fatal(cloud.log("cinder-scheduler"))


def test_a_volume_service_without_a_scheduler(cloud: clouds.Cloud) -> None:
    """cinder-volume tells schedulers its capabilities in a fanout, again and again; its worker must live."""
    cloud.stop("cinder-scheduler")
    volume = cloud.start_service("cinder-volume")
    wanted = {("cinder-volume", f"{clouds.NAME}@fake")}
    cloud.wait("cinder-volume reports", lambda: cloud.up("cinder") >= wanted, clouds.START_SECONDS)
    processes_at_first = cloud.below(volume)
    time.sleep(40)
    assert cloud.ended("cinder-volume") is None, volume.tail()
    assert cloud.below(volume) == processes_at_first, cloud.complaints()
    assert cloud.up("cinder") >= wanted


def fatal(log: str) -> str:
    """Return the lines about an end that nobody asked for."""
    return "\n".join(line for line in log.splitlines() if " CRITICAL " in line or "Error starting thread" in line)


def test_rpc_and_notifications_stay_apart(cloud: clouds.Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    """RPC goes through the router, notifications wait in RabbitMQ. Killed, RabbitMQ would lose these queues."""
    cloud.wait("all computes report", lambda: cloud.up("nova") >= NOVA, 180)  # which is notified
    queues = cloud.queues()
    notified = {name: count for name, count in queues.items() if "notifications." in name and count}
    rpc = sorted(name for name in queues if name not in notified and not name.endswith((".info", ".error")))
    assert any(name.startswith("versioned_notifications.") for name in notified), queues
    if cloud.engine:
        counters = cloud.rpc()
        assert counters.ingress
        assert counters.egress
        assert not rpc
        assert cloud.products() == ({"oslo-messaging-amqp1"} if cloud.kind.driver == conftest.OWN else {""})
        with capsys.disabled():
            print(f"\nRPC through the router: {counters}; notifications waiting in RabbitMQ: {notified}")
    else:
        assert {"conductor", "compute", "reply"} <= {name.partition(".")[0].partition("_")[0] for name in rpc}


def test_the_carrier_of_rpc_is_killed(cloud: clouds.Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    """kill -9, and a start 3 s later: everything reports again, and calls are answered."""
    name = "router" if cloud.engine else "rabbitmq"
    cloud.stop(name, grace=0)
    time.sleep(3)
    (cloud.start_router if cloud.engine else cloud.start_broker)()
    cloud.wait_for_messaging()
    start = time.monotonic()
    took = cloud.wait(
        "all computes report after the restart",
        lambda: time.monotonic() - start > 6 and cloud.up("nova", time.monotonic() - start) >= NOVA,
        180,
    )
    answers = cloud.calls(HOSTS)
    failed = {host: answer for host, answer in answers.items() if isinstance(answer, str)}
    assert not failed, failed
    with capsys.disabled():
        print(f"\nrestart: all of {len(NOVA)} services report {took:.0f} s after {name} is back")


def test_back_to_rabbitmq(cloud: clouds.Cloud) -> None:
    """Every file of the services is as it was, byte for byte; the agent finds nothing left to do."""
    cloud.apply(None)
    after = cloud.files()
    assert after == cloud.before
    planned = cloud.agent("plan", clouds.METADATA)
    assert "nothing to do" in planned, planned
