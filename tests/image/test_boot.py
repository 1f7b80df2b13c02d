"""One node's life in order: first boot, work, second boot, stack update, invalid metadata."""

from __future__ import annotations

import json
import re
import stat
import time
import typing

import pytest
from om_agent import model, watch

from testbed import image_node
from tests.image import confinement, conftest, expected, material
from tests.image.material import APPLY, BACKENDS, BROKER, ENGINE, FILES, ROUTER, SERVICES, WATCH
from tests.support import exposure

SECRETS = ("rpc-secret", "notify-secret", "mesh-secret", "admin-secret")
CHANGES = ENGINE.record.changes
# Where services cannot use the router, tests/image/test_router_node.py has a node that runs nothing else.
dual = pytest.mark.skipif(not material.DUAL, reason=f"services of {material.RELEASE} have no AMQP 1.0 driver")
UNITS = (ROUTER, WATCH, BROKER) if material.DUAL else (BROKER,)


@pytest.fixture(scope="module")
def node(make_node: conftest.MakeNode) -> image_node.Node:
    """Booted with metadata that os-collect-config finds at once."""
    node = make_node()
    node.give(material.metadata())
    node.boot()
    node.wait_active(APPLY, *BACKENDS, *SERVICES)
    return node


def settled(node: image_node.Node) -> None:
    """Wait until no job is left."""
    node.wait(lambda: "No jobs" in node.run("systemctl", "list-jobs"), "no job is left")


def owners(node: image_node.Node, *paths: str) -> dict[str, tuple[str, str, str]]:
    said = node.run("stat", "--format=%n %04a %U %G", *paths)
    return {words[0]: (words[1], words[2], words[3]) for words in map(str.split, said.splitlines())}


def addresses(node: image_node.Node) -> dict[str, list[int]]:
    arguments = (material.ADDRESS, "31459", model.ADMIN_USER, "admin-secret", material.PRODUCT)
    said = node.python(material.ADDRESSES, *arguments)
    return typing.cast("dict[str, list[int]]", json.loads(said))


def rpc(node: image_node.Node, times: int = 1) -> None:
    said = json.loads(node.python(material.RPC, "/etc/heat/heat.conf", str(times)))
    assert said == {"url": material.RPC_SCHEME, "answers": list(range(times))}


def rpc_deliveries(node: image_node.Node) -> int:
    """Return how many messages the router took for heat-engine, or how many RabbitMQ counts as acknowledged."""
    if material.DUAL:
        return sum(row[0] for address, row in addresses(node).items() if "anycast/heat/engine" in address)
    said = node.run("rabbitmqctl", "--quiet", "eval", "rabbit_global_counters:overview().")
    return sum(map(int, re.findall(r"messages_acknowledged_total => (\d+)", said)))


def queued(node: image_node.Node, queue: str) -> int:
    rows = json.loads(node.run("rabbitmqctl", "--quiet", "--formatter=json", "list_queues", "name", "messages"))
    return sum(row["messages"] for row in rows if row["name"] == queue)


def events(node: image_node.Node) -> list[str]:
    """Return the notifications that wait in RabbitMQ, and remove them."""
    url = f"amqp://notify:notify-secret@{material.ADDRESS}:5672//"
    return typing.cast("list[str]", json.loads(node.python(material.EVENTS, url, "notifications.info")))


def pids(node: image_node.Node, *units: str) -> dict[str, int]:
    return {name: node.unit(name).main_pid for name in units}


# -- the first boot --------------------------------------------------------------------------------------------------


def test_nothing_gated_starts_before_the_agent_has_applied(node: image_node.Node) -> None:
    applied = node.unit(APPLY).active
    gated = (node.root / "usr/lib/om-agent/gated-units").read_text().split()
    assert {ROUTER, BROKER, *SERVICES} <= set(gated)
    assert applied > 0
    assert {name: node.unit(name).started for name in gated if 0 < node.unit(name).started < applied} == {}


def test_router_and_broker_start_before_services(node: image_node.Node) -> None:
    first = max(node.unit(name).active for name in BACKENDS)
    assert all(node.unit(name).started >= first for name in SERVICES)


def test_os_collect_config_did_not_wait(node: image_node.Node) -> None:
    assert 0 < node.unit("os-collect-config.service").started < node.unit(APPLY).active


def test_the_boot_ends_well(node: image_node.Node) -> None:
    settled(node)
    failed = node.run("systemctl", "--failed", "--plain", "--no-legend")
    # For want of real disks and networks.
    allowed = ("systemd-firstboot", "systemd-networkd", "systemd-remount-fs")
    units = [x.split()[0] for x in failed.splitlines() if not x.startswith(allowed)]
    said = "\n".join(node.journal(unit) for unit in units)
    assert units == [], said


def test_every_file(node: image_node.Node) -> None:
    assert owners(node, *FILES) == FILES
    state = json.loads((node.root / "var/lib/om-agent/state.json").read_text())
    assert set(state["files"]) <= set(FILES)


def test_no_secret_is_readable_by_all(node: image_node.Node) -> None:
    for top in ("etc", "var/lib/om-agent", "var/log"):
        for path in (node.root / top).rglob("*"):
            if path.is_file() and not path.is_symlink() and path.stat().st_mode & stat.S_IROTH:
                text = path.read_bytes()
                assert not any(secret.encode() in text for secret in SECRETS), path


def test_what_the_services_read(node: image_node.Node) -> None:
    heat = (node.root / "etc/heat/heat.conf").read_text().splitlines()
    assert f"transport_url = {material.RPC_URL}" in heat
    assert f"transport_url = rabbit://notify:notify-secret@{material.ADDRESS}:5672/?ssl=0" in heat
    assert "flavor = noauth" in heat  # somebody else's line
    glance = (node.root / "etc/glance/glance-api.conf").read_text()
    assert "transport_url = rabbit://notify:" in glance


@dual
def test_units_run_as_the_image_says(node: image_node.Node) -> None:
    confinement.router_runs_as_the_image_says(node)


@pytest.mark.parametrize("name", UNITS)
def test_processes_may_do_what_they_need_and_no_more(node: image_node.Node, name: str) -> None:
    confinement.process_is_limited(node, name)


@pytest.mark.parametrize("name", UNITS)
def test_processes_see_and_write_their_own_files_only(node: image_node.Node, name: str) -> None:
    confinement.process_writes_its_own_files_only(node, name)


def test_units_are_as_confined_as_the_documentation_says(node: image_node.Node) -> None:
    """systemd reports the same exposure on a booted node as for a directory, or slightly less."""
    units = {"router": ROUTER, "om-router-watch@": WATCH, "om-router-resync@": WATCH.replace("watch", "resync")}
    found = {}
    for name, (_, after) in exposure.documented().items():
        unit = units.get(name, f"{name}.service")
        found[name] = exposure.overall(node.run("systemd-analyze", "security", "--no-pager", unit))
        assert found[name] <= after, name
    print(found)


# -- at work ---------------------------------------------------------------------------------------------------------


def test_rpc_through_the_rendered_url(node: image_node.Node) -> None:
    rpc(node, 20)


def test_notification_through_the_rendered_url(node: image_node.Node) -> None:
    said = json.loads(node.python(material.NOTIFY, "/etc/heat/heat.conf"))
    assert said == [["here", "om.image.test", {"n": 1}]]


def test_heat_creates_a_stack(node: image_node.Node) -> None:
    """Debian's heat, unchanged: its RPC goes through the backend of the metadata, its notifications into RabbitMQ."""
    before = rpc_deliveries(node)
    said = json.loads(node.python(material.STACK, "first", timeout=300))
    assert said["status"] == "CREATE_COMPLETE", said
    node.wait(lambda: rpc_deliveries(node) > before, "heat's calls went through the backend")
    node.wait(lambda: queued(node, "notifications.info") == 2, "two notifications are in RabbitMQ")
    assert events(node) == ["orchestration.stack.create.start", "orchestration.stack.create.end"]


def test_queues_are_of_the_kind_that_the_broker_has(node: image_node.Node) -> None:
    """RabbitMQ 4 has quorum queues; on 3.10 a queue is classic, and mirrored where there are other brokers."""
    rows = json.loads(node.run("rabbitmqctl", "--quiet", "--formatter=json", "list_queues", "name", "type"))
    kinds = {row["name"]: row["type"] for row in rows}
    used = ["notifications.info"] if material.DUAL else ["notifications.info", "engine"]
    assert [kinds[name] for name in used] == ["classic" if material.RELEASE == "bookworm" else "quorum"] * len(used)


# -- a stack update --------------------------------------------------------------------------------------------------


def update(node: image_node.Node, metadata: object) -> None:
    """Write other metadata, and wait until os-refresh-config has applied it."""

    def completed() -> int:
        return node.journal("os-collect-config").count("Completed phase post-configure")

    before = completed()
    node.give(metadata)
    node.wait(lambda: completed() > before, "os-refresh-config is through")
    settled(node)
    node.wait_active(*SERVICES, *BACKENDS)


def test_stack_update(node: image_node.Node) -> None:
    """With a new RPC password, files and services change, and everything else keeps running."""
    before = pids(node, *BACKENDS, *SERVICES)
    update(node, material.metadata(rpc=material.rpc(password="rpc-changed")))
    assert "rpc-changed" in (node.root / "etc/heat/heat.conf").read_text()
    after = pids(node, *BACKENDS, *SERVICES)
    assert {name for name in before if before[name] != after[name]} == set(SERVICES)
    rpc(node, 5)


def test_stack_update_back(node: image_node.Node) -> None:
    update(node, material.metadata())
    assert "rpc-changed" not in (node.root / "etc/heat/heat.conf").read_text()
    rpc(node, 5)


@dual
def test_stack_update_of_the_router(node: image_node.Node) -> None:
    """With a new port, the router's and the services' files change. The router restarts first, if it must."""
    before = pids(node, *BACKENDS, *SERVICES)
    rpc_changed = material.rpc(port=31469)
    router_changed = {**material.metadata()["oslo_messaging"]["router"], "inter_router_port": 31480}
    update(node, material.metadata(rpc=rpc_changed, router=router_changed))
    after = pids(node, *BACKENDS, *SERVICES)
    assert {name for name in before if before[name] == after[name]} == ({BROKER, ROUTER} if CHANGES else {BROKER})
    assert all(node.unit(name).started > node.unit(ROUTER).active for name in SERVICES)
    rpc(node, 5)
    update(node, material.metadata())


@dual
@pytest.mark.skipif(not CHANGES, reason=f"{ENGINE.value} is restarted for every change; a real router is not")
def test_stack_update_of_a_running_router(node: image_node.Node) -> None:
    """With another node, the router gets a connector without a restart. Only the test restarts it afterwards."""
    before = pids(node, *BACKENDS, *SERVICES)
    other = {"name": "a-network-node", "address": "127.0.0.12", "role": "compute", "interior": True}
    update(node, material.metadata(nodes=[*material.metadata()["oslo_messaging"]["nodes"], other]))
    assert "inter-router/a-network-node" in (node.root / material.WHERE.config[1:]).read_text()
    assert pids(node, *before) == before
    for restart in (False, True):
        if restart:
            node.run("systemctl", "restart", ROUTER)
            node.wait_active(ROUTER)
        process = pids(node, ROUTER)
        assert "nothing to do" in node.run("om-agent", "apply")
        state = json.loads(node.call("om-agent", "status", "--json")[1])["router"]
        assert (state["running"], state["drift"]) == (True, [])
        assert pids(node, ROUTER) == process
        rpc(node, 5)
    update(node, material.metadata())
    assert pids(node, ROUTER) == process


# -- a router that hangs ---------------------------------------------------------------------------------------------


@dual
def test_the_watch_goes_with_the_router(node: image_node.Node) -> None:
    confinement.watch_follows_router(node)


@dual
def test_a_router_that_hangs_comes_back(node: image_node.Node) -> None:
    """systemd does not notice the hang, but the watch does. Services wait only until the router is back."""
    rpc(node, 1)
    pace, before = watch.Pace(), pids(node, ROUTER, *SERVICES)
    node.run("systemctl", "kill", "--signal=STOP", "--kill-who=main", ROUTER)
    # The grace after its start, at most; then the watch's time, and some for a busy machine.
    begun, bound = time.monotonic(), pace.grace + pace.pause + pace.seconds * (1 + pace.times) + 15
    node.wait(lambda: pids(node, ROUTER)[ROUTER] not in (0, before[ROUTER]), "another router runs", bound)
    print(f"the router was back after {time.monotonic() - begun:.1f} s")
    node.wait_active(ROUTER, WATCH)
    said = node.journal(WATCH)
    assert f"om-agent: {material.WHERE.unit}: the router hangs" in said
    assert "cannot be killed" not in said and "Traceback" not in said
    assert pids(node, *SERVICES) == {name: before[name] for name in SERVICES}
    rpc(node, 5)
    stack = json.loads(node.python(material.STACK, "after-the-hang", timeout=300))
    assert stack["status"] == "CREATE_COMPLETE", stack


def test_bad_metadata_keeps_the_old_state_and_keeps_serving(node: image_node.Node) -> None:
    before = (pids(node, *BACKENDS, *SERVICES), {p: (node.root / p[1:]).read_bytes() for p in FILES})
    node.give(material.metadata(rpc=material.rpc(nonsense="y")))
    said = '"nonsense" is not a key here'
    node.wait(lambda: said in node.journal("os-collect-config"), "the mistake is in the journal")
    assert (pids(node, *BACKENDS, *SERVICES), {p: (node.root / p[1:]).read_bytes() for p in FILES}) == before
    rpc(node, 5)


@pytest.mark.skipif(material.DUAL, reason=f"services of {material.RELEASE} have the AMQP 1.0 driver")
def test_dual_backends_are_refused(node: image_node.Node) -> None:
    """The agent says why and what to do, and changes nothing."""
    before = (pids(node, *BACKENDS, *SERVICES), {p: (node.root / p[1:]).read_bytes() for p in FILES})
    node.give(material.dual())
    node.wait(lambda: "15.0 removed its driver" in node.journal("os-collect-config"), "the journal says why")
    said = node.journal("os-collect-config")
    assert "rpc.scheme: the services here" in said and "use oslo.messaging 16." in said
    assert "Use scheme rabbit, or an image whose oslo.messaging is older than 15" in said
    assert (pids(node, *BACKENDS, *SERVICES), {p: (node.root / p[1:]).read_bytes() for p in FILES}) == before
    rpc(node, 5)


# -- the second boot -------------------------------------------------------------------------------------------------


def test_every_file_after_power_off(node: image_node.Node) -> None:
    """Content, mode and owner on the disk of a node that is off."""
    node.give(material.metadata())
    cached = node.root / "var/lib/os-collect-config/messaging.json.json"
    right = material.metadata()
    node.wait(lambda: json.loads(cached.read_text()) == right, "os-collect-config has the right metadata again")
    settled(node)
    node.power_off()
    read, messaging = expected.from_directory(node.root), material.metadata()["oslo_messaging"]
    assert expected.differences(read, node.tree, material.NAME, messaging) == []


def test_second_boot_is_a_no_op(node: image_node.Node) -> None:
    times = {p: (node.root / p[1:]).stat().st_mtime_ns for p in FILES}
    log = node.root / "var/lib/om-agent/puppet/log.jsonl"
    puppet = log.stat().st_mtime_ns
    node.boot()
    node.wait_active(APPLY, *BACKENDS, *SERVICES)
    assert {p: (node.root / p[1:]).stat().st_mtime_ns for p in FILES} == times
    assert log.stat().st_mtime_ns == puppet  # puppet was not even started
    assert "nothing to do" in node.journal(APPLY)
    applied = node.unit(APPLY).active
    assert all(node.unit(name).started >= applied for name in (*BACKENDS, *SERVICES))
    rpc(node, 5)
    said = json.loads(node.python(material.STACK, "second", timeout=300))
    assert said["status"] == "CREATE_COMPLETE", said
