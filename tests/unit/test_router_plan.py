"""The router's configuration: who listens, who connects to whom, and what our own check refuses."""

from __future__ import annotations

import itertools
import json
import typing

import hypothesis
import pytest
from hypothesis import strategies as st
from om_agent import errors, model
from om_agent.plan import layout, router, topology

from tests import helpers

QUICK = hypothesis.settings(max_examples=100, deadline=None)
put = helpers.put


def build(raw: object, node: str = "ctl-0", machine: layout.Host | None = None) -> router.RouterPlan:
    d = model.parse(raw)
    built = router.build(d, d.by_name()[node], machine or helpers.host())
    assert built
    return built


def of_kind(plan: router.RouterPlan, kind: str) -> list[dict[str, typing.Any]]:
    return [dict(attributes) for k, attributes in plan.entities if k == kind]


def one(plan: router.RouterPlan, kind: str, name: str) -> dict[str, typing.Any]:
    (found,) = [a for a in of_kind(plan, kind) if a["name"] == name]
    return found


ADDRESSES = {
    f"openstack.org/om/{half}/{kind}": distribution
    for half in ("rpc", "notify")
    for kind, distribution in (("multicast", "multicast"), ("unicast", "closest"), ("anycast", "balanced"))
}


def test_a_node_that_carries_no_router_has_none() -> None:
    d = model.parse(helpers.dual())
    assert router.build(d, d.by_name()["cmp-0"], helpers.host()) is None
    d = model.parse(helpers.default())
    assert router.build(d, d.by_name()["ctl-0"], helpers.host()) is None
    d = model.parse(put(helpers.dual(), "rpc.hosts", ["elsewhere"]))
    assert router.build(d, d.by_name()["ctl-0"], helpers.host()) is None


def test_one_controller() -> None:
    plan = build(helpers.dual(1))
    assert of_kind(plan, "router") == [
        {
            "mode": "standalone",
            "id": "ctl-0",
            "workerThreads": 4,
            "saslConfigDir": "/etc/qpid-dispatch/sasl2",
            "saslConfigName": "qdrouterd",
        }
    ]
    assert [(a["name"], a["host"], a["port"]) for a in of_kind(plan, "listener")] == [
        ("client-rpc", "172.17.0.11", 31459),
        ("http", "172.17.0.11", 31462),
    ]
    assert of_kind(plan, "connector") == [] and not plan.mesh
    assert {a["prefix"]: a["distribution"] for a in of_kind(plan, "address")} == ADDRESSES
    assert [(u.name, u.realm, u.password.reveal()) for u in plan.users] == [("rpc", "overcloud", "rpc-secret")]


def test_three_controllers() -> None:
    plan = build(helpers.dual(), "ctl-2")
    assert of_kind(plan, "router")[0]["mode"] == "interior"
    mesh = one(plan, "listener", "inter-router")
    assert (mesh["host"], mesh["port"], mesh["role"]) == ("172.17.0.13", 31460, "inter-router")
    assert (mesh["authenticatePeer"], mesh["saslMechanisms"]) == (True, "SCRAM-SHA-256")
    connectors = of_kind(plan, "connector")
    assert [(c["name"], c["host"], c["port"]) for c in connectors] == [
        ("inter-router/ctl-0", "172.17.0.11", 31460),
        ("inter-router/ctl-1", "172.17.0.12", 31460),
    ]
    assert {c["saslPassword"] for c in connectors} == {"file:/etc/qpid-dispatch/mesh.password"}
    assert [u.name for u in plan.users] == ["rpc", "router-mesh"]
    assert plan.requires == ()


def test_clients_authenticate() -> None:
    for raw in (helpers.dual(), helpers.with_tls(helpers.dual())):
        client = one(build(raw), "listener", "client-rpc")
        assert client["authenticatePeer"] is True and client["saslMechanisms"] == "PLAIN"
        assert client["linkCapacity"] == 1000 and client["idleTimeoutSeconds"] == 16


def test_no_password_is_in_the_configuration() -> None:
    raw = put(helpers.dual(), "router.mesh_password", "mesh-secret")
    text = json.dumps(build(raw).entities)
    assert "secret" not in text and model.parse(helpers.dual()).router.mesh_password.reveal() not in text


TLS_PATHS = ("/etc/pki/tls/ca.pem", "/etc/pki/tls/node.pem", "/etc/pki/tls/node.key")
OWN_PATHS = tuple(f"/etc/qpid-dispatch/tls/{name}.pem" for name in ("ca", "certificate", "key"))


@pytest.mark.parametrize(("form", "paths"), [("paths", TLS_PATHS), ("pem", OWN_PATHS)])
def test_tls(form: str, paths: tuple[str, str, str]) -> None:
    plan = build(helpers.with_tls(helpers.dual(), form), "ctl-1")
    (profile,) = of_kind(plan, "sslProfile")
    assert (profile["caCertFile"], profile["certFile"], profile["privateKeyFile"]) == paths
    for name in ("client-rpc", "inter-router"):
        assert one(plan, "listener", name)["sslProfile"] == profile["name"]
        assert one(plan, "listener", name)["requireSsl"] is True
    assert one(plan, "listener", "inter-router")["saslMechanisms"] == "EXTERNAL"
    (connector,) = of_kind(plan, "connector")
    assert connector["verifyHostname"] is True and connector["host"] == "ctl-0"
    assert connector["saslMechanisms"] == "EXTERNAL" and "saslPassword" not in connector
    assert [u.name for u in plan.users] == ["rpc"]
    assert [r.path for r in plan.requires] == (list(paths) if form == "paths" else [])


def test_relocated_paths_move_but_the_operators_own() -> None:
    machine = helpers.host(prefix="/mnt")
    profile = of_kind(build(helpers.with_tls(helpers.dual(), "pem"), machine=machine), "sslProfile")[0]
    assert profile["certFile"] == "/mnt" + OWN_PATHS[1]
    plan = build(helpers.with_tls(helpers.dual()), machine=machine)
    assert of_kind(plan, "sslProfile")[0]["certFile"] == TLS_PATHS[1]
    assert of_kind(plan, "router")[0]["saslConfigDir"] == "/mnt/etc/qpid-dispatch/sasl2"


@pytest.mark.parametrize(
    ("engine", "directory"),
    [("qdrouterd", "/etc/qpid-dispatch"), ("skrouterd", "/etc/skupper-router"), ("embedded", "/etc/om-devrouter")],
)
def test_engines(engine: str, directory: str) -> None:
    plan = build(put(helpers.dual(1), "router.engine", engine))
    assert plan.engine.value == engine
    assert plan.paths.directory == directory
    assert of_kind(plan, "router")[0]["saslConfigDir"] == directory + "/sasl2"
    assert list(router.check("x", plan.entities)) == []


def test_both_halves_over_one_router() -> None:
    both = put(helpers.dual(), "notify.scheme", "amqp")
    assert [a["name"] for a in of_kind(build(both), "listener")] == ["client-rpc", "http", "inter-router"]
    assert sorted(u.name for u in build(both).users) == ["notify", "router-mesh", "rpc"]
    plan = build(put(both, "notify.port", 5671))
    listeners = {a["name"]: a["port"] for a in of_kind(plan, "listener")}
    assert (listeners["client-rpc"], listeners["client-notify"]) == (31459, 5671)


# -- the mesh --------------------------------------------------------------------------------------------------------


def pairs(raw: helpers.Raw) -> list[tuple[str, str]]:
    """Who connects to whom, all nodes together."""
    d = model.parse(raw)
    return [(n.name, peer.name) for n in d.nodes if n.name in model.interiors(d) for peer in topology.peers(d, n.name)]


def mesh(names: typing.Sequence[str]) -> helpers.Raw:
    members = [{"name": name, "address": f"10.0.0.{i}"} for i, name in enumerate(names, 1)]
    return put(helpers.dual(), "nodes", members)


CONTAINED = ("ctl-1", "ctl-10", "ctl-11", "ctl-2", "ctl", "a.ctl-1", "ctl-1.a")


@QUICK
@hypothesis.given(st.permutations(CONTAINED[:4]), st.integers(1, 4))
def test_each_pair_is_connected_exactly_once(names: list[str], count: int) -> None:
    found = pairs(mesh(names[:count]))
    assert sorted(map(sorted, found)) == sorted(map(sorted, itertools.combinations(names[:count], 2)))


@QUICK
@hypothesis.given(st.lists(st.from_regex(r"[a-c][a-c1-2]{0,2}", fullmatch=True), min_size=2, max_size=8, unique=True))
def test_any_names(names: list[str]) -> None:
    found = pairs(put(mesh(names), "notify.hosts", ["elsewhere"]))
    assert len(found) == len({frozenset(p) for p in found}) == len(names) * (len(names) - 1) // 2


@QUICK
@hypothesis.given(st.permutations(helpers.nodes(4, 2)))
def test_the_same_plan_whatever_the_order_of_nodes(shuffled: list[helpers.Raw]) -> None:
    raw, other = helpers.dual(4, 2), put(helpers.dual(4, 2), "nodes", shuffled)
    for name in ("ctl-0", "ctl-3"):
        assert build(raw, name) == build(other, name)


def test_dotted_names_that_contain_one_another() -> None:
    names = [n for n in CONTAINED if "." not in n]
    assert len(pairs(mesh(names))) == 10


# -- our own check ---------------------------------------------------------------------------------------------------

GOOD = build(helpers.with_tls(helpers.dual()), "ctl-2").entities
ROUTER = GOOD[0]


def without(kind: str) -> list[router.Entity]:
    return [e for e in GOOD if e[0] != kind]


def with_attribute(kind: str, name: str, value: str) -> list[router.Entity]:
    return [(k, {**a, name: value} if k == kind else a) for k, a in GOOD]


LISTENER: router.Entity = ("listener", {"name": "other", "host": "172.17.0.13", "port": 31459})
WRONG: dict[str, tuple[list[router.Entity], set[str]]] = {
    "nothing": ([], {"router-entity"}),
    "no router entity": (without("router"), {"router-entity"}),
    "two router entities": ([*GOOD, ("router", {"id": "other", "mode": "interior"})], {"router-entity"}),
    "an unknown entity": ([*GOOD, ("tcpBridge", {"name": "x"})], {"router-unknown"}),
    "an unknown entity with nothing in it": ([*GOOD, ("fixedAddress", {})], {"router-unknown"}),
    "an unknown attribute": (with_attribute("router", "routerId", "x"), {"router-unknown"}),
    "an attribute of old": (with_attribute("connector", "addr", "x"), {"router-unknown"}),
    "no sslProfile": (without("sslProfile"), {"router-no-profile"}),
    "another sslProfile": (with_attribute("sslProfile", "name", "other"), {"router-no-profile"}),
    "an sslProfile without name": ([*without("sslProfile"), ("sslProfile", {})], {"router-no-profile"}),
    "a name twice": ([*GOOD, ("listener", {"name": "http", "host": "x", "port": 1})], {"router-duplicate"}),
    "a prefix twice": ([*GOOD, ("address", {"prefix": next(iter(ADDRESSES))})], {"router-duplicate"}),
    "a socket twice": ([*GOOD, LISTENER], {"router-duplicate"}),
}


@pytest.mark.parametrize(("entities", "codes"), WRONG.values(), ids=WRONG.keys())
def test_check_refuses(entities: list[router.Entity], codes: set[str]) -> None:
    found = list(router.check("/etc/x.json", entities))
    assert {p.code for p in found} == codes
    assert {p.path for p in found} == {"/etc/x.json"}


def test_an_unused_sslProfile_of_another_name_is_no_fault() -> None:
    entities: list[router.Entity] = [ROUTER, ("sslProfile", {"name": "x"}), ("address", {"prefix": "a"})]
    assert list(router.check("x", entities)) == []


@pytest.mark.parametrize("controllers", [1, 2, 3])
@pytest.mark.parametrize("tls", ["", "paths", "pem"])
def test_check_accepts_all_that_is_planned(controllers: int, tls: str) -> None:
    raw = helpers.dual(controllers)
    plan = build(helpers.with_tls(raw, tls) if tls else raw)
    assert list(router.check("x", plan.entities)) == []


def test_a_faulty_plan_is_not_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "_http_listener", lambda *_: ("listener", {"title": "x"}))
    with pytest.raises(errors.InvalidInput) as caught:
        helpers.rendered(helpers.dual(), "ctl-0")
    assert {p.code for p in caught.value.problems} == {"router-unknown"}
