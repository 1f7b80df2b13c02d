"""Which addresses other routers lack, and when connections are closed for that."""

from __future__ import annotations

import dataclasses
import pathlib
import time
import typing

import pytest
from om_agent import amqp, drain, errors, parse, resync
from om_agent.apply import live_router
from om_agent.plan import layout, router, topology

from tests.support import helpers

HERE, CALLS = "ctl-0", "M0openstack.org/om/rpc/unicast/nova/compute"


def address(name: str, subscribers: int = 0, on: typing.Sequence[str] | None = ()) -> amqp.Row:
    return {"name": name, "subscriberCount": subscribers, "remoteHostRouters": on}


def test_only_what_clients_consume_counts() -> None:
    rows = [address(CALLS, 1), address("Lqdhello", 1), address("T0temp.a", 1), address("M0gone")]
    assert resync.consumed(rows) == {CALLS}


def test_only_what_is_known_of_this_router_counts() -> None:
    rows = [address("M0a", on=("ctl-1", HERE)), address("M0b", on=("ctl-10",)), address("M0c", on=None)]
    assert resync.known(rows, HERE) == {"M0a"}


def test_senders_are_not_owners() -> None:
    links = [
        {"connectionId": 1, "linkDir": "in", "owningAddr": CALLS},
        {"connectionId": 2, "linkDir": "out", "owningAddr": CALLS},
        {"connectionId": 3, "linkDir": "out", "owningAddr": None},
        {"connectionId": 4, "linkDir": "out", "owningAddr": "M0other"},
    ]
    assert resync.owners(links, {CALLS}) == {"2"}


def test_one_look_is_not_enough() -> None:
    a, b = frozenset({"M0a"}), frozenset({"M0a", "M0b"})
    assert resync.both({}, {"ctl-1": a}) == set()
    assert resync.both({"ctl-2": a}, {"ctl-1": a}) == set()
    assert resync.both({"ctl-1": a, "ctl-2": b}, {"ctl-1": b, "ctl-2": b}) == {"M0a", "M0b"}


class Mesh:
    """What the routers answer: ``missing`` at ctl-1, look by look; None where this node's router is not there."""

    def __init__(self, *missing: typing.Collection[str] | None, role: str = "normal") -> None:
        self.missing = list(missing)
        self.role = role
        self.closed: list[str] = []

    def __enter__(self) -> Mesh:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def query(self, entity: str, router: str = "", attributes: typing.Sequence[str] = ()) -> list[amqp.Row]:
        rows: dict[str, list[amqp.Row]] = {
            "router.address": [address("M0a", 1), address("M0b", 1)],
            "router.node": [
                {"id": HERE, "linkState": ["ctl-1"]},
                {"id": "ctl-1", "linkState": [HERE], "routerLink": 1},
                {"id": "ctl-2", "linkState": [HERE], "routerLink": None, "nextHop": None},
            ],
            "router.link": [{"connectionId": "7", "linkDir": "out", "owningAddr": "M0a"}],
            "connection": [
                {"identity": "7", "role": self.role, "container": "cmp-0"},
                {"identity": "8", "role": "normal", "container": "x"},
            ],
        }
        if not router:
            return rows[entity]
        assert router == "ctl-1", "a router that is not reached was asked"
        lacking = self.missing.pop(0)
        return [address(name, on=(HERE,)) for name in ("M0a", "M0b") if name not in (lacking or ())]

    def update(self, entity: str, identity: str, attributes: typing.Mapping[str, object]) -> None:
        assert (entity, attributes) == ("connection", {"adminStatus": "deleted"})
        self.closed.append(identity)


def run(monkeypatch: pytest.MonkeyPatch, mesh: Mesh, seconds: float = 60, stay: bool = False) -> resync.Done:
    """Resync without waiting."""
    now = [0.0]
    d = parse.deployment(helpers.dual(), ())
    plan = router.plan_router(d, d.by_name()[HERE], layout.Host(), topology.mesh(d))
    assert plan

    def connect(p: router.RouterPlan, door: int | None) -> Mesh:
        if mesh.missing[0] is None:
            mesh.missing.pop(0)
            raise amqp.Unreachable("h:1", amqp.REFUSED, "nothing listens there")
        return mesh

    def sleep(asked: float) -> None:
        now[0] += asked

    monkeypatch.setattr(live_router, "connect", connect)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    return resync.resync(d, plan, pathlib.Path("/nowhere"), seconds, stay)


def test_all_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = Mesh(())
    assert run(monkeypatch, mesh) == resync.Done(0, {}, 0.0)
    assert not mesh.closed


def test_what_comes_by_itself_closes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = Mesh(("M0a",), ("M0b",), ())
    assert run(monkeypatch, mesh).missing == {} and not mesh.closed


def test_the_owner_of_what_stays_missing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = Mesh(("M0a",), ("M0a",), ("M0a",), ())
    assert run(monkeypatch, mesh) == resync.Done(1, {}, 3 * resync.PATIENCE)
    assert mesh.closed == ["7"]


def test_it_closes_again_when_once_was_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = Mesh(*[("M0a",)] * 4, ())
    assert run(monkeypatch, mesh).missing == {}
    assert mesh.closed == ["7", "7"]


def test_it_tells_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = Mesh(*[("M0a", "M0b")] * 9)
    assert run(monkeypatch, mesh, seconds=12).missing == {"ctl-1": 2}
    assert mesh.closed == ["7"]  # none in the last look, after which nobody would see what became of it


def test_an_edge_router_is_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []

    def turn(d: object, p: object, name: str) -> bool:
        moved.append(name)
        return len(moved) > 1

    monkeypatch.setattr(drain, "turn_edge", turn)
    mesh = Mesh(*[("M0a",)] * 4, (), role="edge")
    assert run(monkeypatch, mesh).closed == 1
    assert moved == ["cmp-0", "cmp-0"] and not mesh.closed


def test_a_router_that_starts_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = Mesh(None, None, ("M0a",), ("M0a",), (), (), ())
    assert run(monkeypatch, mesh, seconds=30, stay=True) == resync.Done(1, {}, 6 * resync.PATIENCE)
    assert mesh.closed == ["7"]


def test_without_a_router_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.Unreachable):
        run(monkeypatch, Mesh(None))
    with pytest.raises(errors.Unreachable):
        run(monkeypatch, Mesh(None, None, None), seconds=12, stay=True)


def test_an_edge_router_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    d = parse.deployment(helpers.dual(), ())
    edge = router.plan_router(d, d.by_name()["cmp-0"], layout.Host(), topology.mesh(d))
    assert edge and edge.mode == "edge"
    assert resync.missing(Mesh(), edge) == {}  # type: ignore[arg-type]
    assert resync.resync(d, edge, pathlib.Path("/nowhere"), 60, True) == resync.Done(0, {}, 0.0)
    lone = dataclasses.replace(edge, entities=(("router", {"mode": "standalone"}), *edge.entities[1:]))
    assert resync.resync(d, lone, pathlib.Path("/nowhere"), 60, True) == resync.Done(0, {}, 0.0)
