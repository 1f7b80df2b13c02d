"""Findings about services' connections at their router, and the units that should have one."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import socket
import time
import typing

import pytest
from om_agent import clients, connections, kinds, model, observed, plan, verify
from om_agent.plan import router

from tests.support import helpers

RPC = "openstack.org/om/rpc/anycast/nova/compute"
NOTIFY = "openstack.org/om/notify/anycast/nova/x"
ONE = clients.Client(
    "openstack.org/om/container/ctl-0/nova-conductor/7/ab",
    "10.0.0.1:5",
    "rpc@overcloud",
    "nova-conductor",
    7,
    "ctl-0",
    2,
    3,
)


def a_plan(raw: helpers.Raw | None = None) -> plan.Plan:
    return helpers.plan_for(raw or helpers.dual(), "ctl-0")


def limited(**group: int) -> router.RouterPlan:
    """The plan with limits in each group of the policy."""
    made = a_plan().router
    assert made

    def groups(a: typing.Mapping[str, typing.Any]) -> dict[str, typing.Any]:
        return {**a, "groups": {n: {**g, **group} for n, g in a["groups"].items()}} if "groups" in a else dict(a)

    return dataclasses.replace(made, entities=tuple((kind, groups(a)) for kind, a in made.entities))


def codes(seen: clients.ServicesSeen, **group: int) -> list[str]:
    return [f.code for f in clients.client_findings(limited(**group), seen)]


@pytest.mark.parametrize(
    ("links", "group", "code"),
    [
        (12, {"maxSessions": 16}, []),
        (13, {"maxSessions": 16}, ["sessions-near"]),
        (14, {"maxSessions": 16}, ["sessions-exhausted"]),
        (16, {"maxSessions": 16}, ["sessions-exhausted"]),
        (40, {"maxSessions": 16}, []),  # several links in a session
        (40, {"maxSessions": 32768}, []),
        (300, {"maxSessions": 0}, []),
        (26300, {"maxSessions": 0}, ["sessions-near"]),  # a listener's own limit
        (9, {"maxSessions": 1000, "maxReceivers": 9}, ["sessions-exhausted"]),
        (9, {"maxSessions": 1000, "maxSenders": 10}, []),
    ],
)
def test_limits_come_from_the_plan(links: int, group: dict[str, int], code: list[str]) -> None:
    one = dataclasses.replace(ONE, senders=0, receivers=links)
    assert codes(clients.ServicesSeen((one,)), **group) == code


def test_a_client_that_is_not_oslo_messagings_has_no_session_for_every_link() -> None:
    one = dataclasses.replace(ONE, container="other", receivers=15, process="")
    assert codes(clients.ServicesSeen((one,)), maxSessions=16) == []
    assert one.who == '"other" at 10.0.0.1:5'


def test_a_user_without_a_rule_has_no_limit() -> None:
    assert clients.limits(limited(maxSessions=16), "nobody@overcloud") == clients.Limits()
    assert clients.limits(limited(maxSessions=16), "rpc@overcloud").sessions == 16


def test_many_services_are_one_sentence() -> None:
    many = tuple(dataclasses.replace(ONE, pid=n, receivers=14) for n in range(9))
    (found,) = clients.client_findings(limited(maxSessions=18), clients.ServicesSeen(many))
    assert "nova-conductor (process 0 on ctl-0)" in found.message and "and 6 more" in found.message


@pytest.mark.parametrize(("total", "code"), [(79, []), (80, ["connections-near"]), (100, ["connections-exhausted"])])
def test_connections_of_the_router(total: int, code: list[str]) -> None:
    made = a_plan(helpers.put(helpers.dual(), "router.max_connections", 100)).router
    assert made
    assert [f.code for f in clients.client_findings(made, clients.ServicesSeen(total=total))] == code


def still(address: str, receives: bool, client: clients.Client = ONE) -> clients.StuckLink:
    return clients.StuckLink(client, address, receives, 2)


@pytest.mark.parametrize(
    ("links", "code"),
    [
        ([], []),
        ([still(RPC, True)], ["service-stuck"]),
        ([still(RPC, True), still(RPC, False)], ["service-stuck"]),  # who waits for it is not told as well
        ([still(RPC, False)], ["calls-stuck"]),
        ([still(NOTIFY, True), still(NOTIFY, False)], ["listener-slow"]),
        ([still(NOTIFY, False)], []),  # the listener is told of where it is
        ([still(RPC, True), still(NOTIFY, True)], ["service-stuck", "listener-slow"]),
        ([still("amqp:/_topo/0/ctl-0/temp.x", True)], ["service-stuck"]),
    ],
)
def test_what_does_not_move(links: list[clients.StuckLink], code: list[str]) -> None:
    assert codes(clients.ServicesSeen((ONE,), stuck=tuple(links), seconds=10.2)) == code


def test_slow_listeners_leave_the_verdict() -> None:
    found = tuple(clients.client_findings(limited(), clients.ServicesSeen(stuck=(still(NOTIFY, True),))))
    assert kinds.verdict(found) == kinds.WORKS
    found = tuple(clients.client_findings(limited(), clients.ServicesSeen(stuck=(still(RPC, True),))))
    assert kinds.verdict(found) == kinds.BROKEN


@pytest.mark.parametrize(
    ("owning", "address"),
    [
        (f"M0{RPC}", RPC),  # qdrouterd
        (f"M{RPC}", RPC),  # skrouterd
        ("M0amqp:/_topo/0/a/temp.1", "amqp:/_topo/0/a/temp.1"),
        ("Ltemp.x", "Ltemp.x"),
        (None, ""),
    ],
)
def test_addresses_as_services_know_them(owning: str | None, address: str) -> None:
    assert clients.address_of(owning) == address


def test_whose_processes_have_a_connection() -> None:
    units = [
        clients.Unit("nova-conductor", "/f", frozenset((6, 7))),
        clients.Unit("nova-scheduler", "/f", frozenset((8,))),
    ]
    assert [u.name for u in clients.unconnected(units, [ONE], "ctl-0")] == ["nova-scheduler"]
    assert len(clients.unconnected(units, [ONE], "ctl-1")) == 2  # that is a process of another machine
    (found,) = clients.client_findings(limited(), clients.ServicesSeen(units=(units[1],)))
    assert found.code == "unit-unconnected" and "journalctl -u nova-scheduler" in found.remedy
    assert kinds.of(found).heals


# -- units -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def systemctl(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> typing.Callable[[str], None]:
    """Puts a program on PATH that says this."""

    def put(text: str) -> None:
        (tmp_path / "said").write_text(text)
        (tmp_path / "systemctl").write_text(f'#!/bin/sh\necho "$@" >"{tmp_path}/asked"\ncat "{tmp_path}/said"\n')
        (tmp_path / "systemctl").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return put


def block(unit: str, pid: int, state: str = "active", age: float = 3600, group: str = "") -> str:
    started = int((time.monotonic() - age) * 1e6)
    return (
        f"MainPID={pid}\nControlGroup={group}\nId={unit}.service\nActiveState={state}\n"
        f"ActiveEnterTimestampMonotonic={started}\n\n"
    )


def found(raw: helpers.Raw, manage: bool = True) -> dict[str, clients.Unit]:
    host = helpers.host("nova", "neutron", manage_services=manage)
    d, planned = helpers.deployment_and_plan(raw, "ctl-0", host)
    return {unit.name: unit for unit in connections.units(d, planned, host)}


@pytest.mark.subprocess
def test_units_that_serve_calls(
    systemctl: typing.Callable[[str], None], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "cgroup/system.slice/nova-conductor.service"
    (group / "below").mkdir(parents=True)
    (group / "cgroup.procs").write_text("12\n13\n")
    (group / "below/cgroup.procs").write_text("14\n")
    monkeypatch.setattr(connections, "_CGROUPS", (str(tmp_path / "cgroup"), str(tmp_path / "none")))
    systemctl(
        block("nova-conductor", 12, group="/system.slice/nova-conductor.service")
        + block("nova-scheduler", 20)
        + block("nova-compute", 0, "inactive")
        + block("neutron-l3-agent", 30, age=5.0)  # it may not have connected yet
        + block("nova-api", 40)  # not asked for; it connects with its first call
    )
    units = found(helpers.dual())
    assert {name: unit.pids for name, unit in units.items()} == {
        "nova-conductor": {12, 13, 14}, "nova-scheduler": {20},
    }  # fmt: skip
    assert units["nova-conductor"].file == "/etc/nova/nova.conf"
    asked = (tmp_path / "asked").read_text().split()
    assert "nova-conductor.service" in asked and "nova-api.service" not in asked


@pytest.mark.subprocess
def test_where_no_unit_is_looked_for(systemctl: typing.Callable[[str], None], tmp_path: pathlib.Path) -> None:
    systemctl(block("nova-conductor", 12))
    assert found(helpers.dual(), manage=False) == {}
    assert found(helpers.put(helpers.dual(), "rpc.hosts", ["elsewhere"])) == {}
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_units_whose_processes_have_a_connection_to_a_broker(host: str) -> None:
    """As the kernel tells: a connection that is open, to that port, and of one of the processes."""
    unit = clients.Unit("nova-conductor", "/f", frozenset((os.getpid(),)))
    ended = clients.Unit("nova-scheduler", "/f", frozenset((2**22 + 1,)))
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        port = listening.getsockname()[1]
        assert connections.unconnected_to(port, [unit, ended]) == (unit, ended)
        with socket.create_connection((host, port)):
            assert connections.unconnected_to(port, [unit, ended]) == (ended,)
            assert connections.unconnected_to(port + 1, [unit]) == (unit,)
        assert connections.unconnected_to(port, [unit]) == (unit,)
    (found,) = (f for f in verify.findings(a_plan(), observed.Seen(units=(unit,))) if f.code == "unit-unconnected")
    assert "nova-conductor runs and has no connection to a broker, which /f names" in found.message


def test_every_unit_that_serves_is_in_the_catalogue() -> None:
    every = {
        unit.rpartition("openstack-")[2] for s in helpers.catalogue().values() for u in s.units.values() for unit in u
    }
    assert not connections.SERVING - every


def test_the_other_interiors_are_asked_only_where_services_may_be_connected_there() -> None:
    asked: list[str] = []

    class Client:
        def query(self, entity: str, router: str = "", attributes: object = ()) -> list[dict[str, object]]:
            asked.append(router)
            return []

    d, planned = helpers.deployment_and_plan(helpers.dual(), "ctl-0")
    assert planned.router
    units = [clients.Unit("nova-compute", "/f", frozenset((1,)))]
    for mode, expected in ((model.Clients.LOCAL, []), (model.Clients.MESH, ["ctl-1", "ctl-2"])):
        changed = dataclasses.replace(d, router=dataclasses.replace(d.router, clients=mode))
        list(connections._at_other_routers(changed, planned.router, typing.cast("typing.Any", Client()), units))
        assert asked == expected
