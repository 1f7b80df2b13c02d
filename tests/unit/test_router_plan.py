"""The router's configuration: listeners, connectors, and the cases that our own check refuses."""

from __future__ import annotations

import json
import typing

import pytest
from om_agent import errors, model, parse
from om_agent.plan import layout, router, topology

from tests.support import helpers

put = helpers.put


def build(raw: object, node: str = "ctl-0", machine: layout.Host | None = None) -> router.RouterPlan:
    d = parse.deployment(raw)
    built = router.plan_router(d, d.by_name()[node], machine or helpers.host(), topology.mesh(d))
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


@pytest.mark.parametrize(
    ("raw", "node"),
    [
        (helpers.default(), "ctl-0"),
        (helpers.default(), "cmp-0"),
        (put(helpers.dual(), "rpc.hosts", ["elsewhere"]), "ctl-0"),
        (put(helpers.dual(), "rpc.hosts", ["elsewhere"]), "cmp-0"),
        (put(helpers.dual(), "router.clients", "mesh"), "cmp-0"),
        (put(helpers.dual(), "router.roles", {"compute": "none"}), "cmp-0"),
        (put(helpers.dual(1), "router.engine", "embedded"), "cmp-0"),
    ],
)
def test_a_node_that_has_no_router(raw: helpers.Raw, node: str) -> None:
    d = parse.deployment(raw)
    assert router.plan_router(d, d.by_name()[node], helpers.host(), topology.mesh(d)) is None


def listeners(plan: router.RouterPlan) -> list[tuple[str, str, int]]:
    return [(a["name"], a["host"], a["port"]) for a in of_kind(plan, "listener")]


def test_one_controller_is_interior_from_the_start() -> None:
    """The mode cannot be changed while the router runs, and peers may come."""
    plan = build(helpers.dual(1, 0))
    assert of_kind(plan, "router") == [
        {
            "mode": "interior",
            "id": "ctl-0",
            "workerThreads": 1,
            "saslConfigDir": "/etc/qpid-dispatch/sasl2",
            "saslConfigName": "qdrouterd",
        }
    ]
    assert listeners(plan) == [
        ("client-rpc", "172.17.0.11", 31459),
        ("http", "172.17.0.11", 31462),
        ("inter-router", "172.17.0.11", 31460),
        ("edge", "172.17.0.11", 31461),
    ]
    assert of_kind(plan, "connector") == []
    assert {a["prefix"]: a["distribution"] for a in of_kind(plan, "address")} == ADDRESSES
    assert [(u.name, u.realm) for u in plan.users] == [(n, "overcloud") for n in ("rpc", "router-admin")]
    assert plan.users[0].password.reveal() == "rpc-secret"


def test_the_development_router_stands_alone() -> None:
    plan = build(put(helpers.dual(1), "router.engine", "embedded"))
    assert plan.mode == "standalone" and plan.mesh_password is None
    assert [name for name, _, _ in listeners(plan)] == ["client-rpc", "http"]
    assert [u.name for u in plan.users] == ["rpc", "router-admin"]


def test_three_controllers() -> None:
    plan = build(helpers.dual(), "ctl-2")
    assert plan.mode == "interior" and plan.interiors == ("ctl-0", "ctl-1", "ctl-2")
    for name, port in (("inter-router", 31460), ("edge", 31461)):
        mesh = one(plan, "listener", name)
        assert (mesh["host"], mesh["port"], mesh["role"]) == ("172.17.0.13", port, name)
        assert (mesh["authenticatePeer"], mesh["saslMechanisms"]) == (True, "EXTERNAL")
        assert (mesh["sslProfile"], mesh["requireSsl"]) == ("mesh", True)
    connectors = of_kind(plan, "connector")
    assert [(c["name"], c["host"], c["port"], c["role"]) for c in connectors] == [
        ("inter-router/ctl-0", "172.17.0.11", 31460, "inter-router"),
        ("inter-router/ctl-1", "172.17.0.12", 31460, "inter-router"),
    ]
    assert {(c["sslProfile"], c["saslMechanisms"], c["verifyHostname"]) for c in connectors} == {
        ("mesh", "EXTERNAL", True)
    }
    assert one(plan, "sslProfile", "mesh") == {
        "name": "mesh",
        "caCertFile": "/etc/qpid-dispatch/mesh/ca.pem",
        "certFile": "/etc/qpid-dispatch/mesh/certificate.pem",
        "privateKeyFile": "/etc/qpid-dispatch/mesh/key.pem",
        "protocols": "TLSv1.3",
    }
    assert {c["cost"] for c in connectors} == {30}
    assert plan.requires == ()


def test_a_compute_has_an_edge_router_with_two_uplinks() -> None:
    plan = build(helpers.dual(), "cmp-0")
    assert plan.mode == "edge" and plan.listener == ("172.17.0.51", 31459)
    assert [name for name, _, _ in listeners(plan)] == ["client-rpc", "http"]
    connectors = of_kind(plan, "connector")
    assert {(c["role"], c["port"]) for c in connectors} == {("edge", 31461)}
    assert len({c["host"] for c in connectors}) == 2
    assert not any("cost" in c for c in connectors)
    assert all(c["name"].startswith("uplink/ctl-") for c in connectors)
    assert {(c["sslProfile"], c["saslMechanisms"]) for c in connectors} == {("mesh", "EXTERNAL")}
    assert [u.name for u in plan.users] == ["rpc", "router-admin"]
    assert plan.mesh_password == build(helpers.dual()).mesh_password


def test_a_link_between_sites_has_its_cost() -> None:
    raw = put(put(put(helpers.dual(2, 0), "nodes.0.site", "a"), "nodes.1.site", "b"), "sites.links", [])
    raw = put(raw, "sites.links.-", {"between": ["a", "b"], "cost": 7})
    assert one(build(raw, "ctl-1"), "connector", "inter-router/ctl-0")["cost"] == 7 * 30
    raw = put(raw, "router.link_cost", 4)
    assert one(build(raw, "ctl-1"), "connector", "inter-router/ctl-0")["cost"] == 7 * 4


def test_the_agent_has_a_user_of_its_own() -> None:
    plan = build(helpers.dual())
    assert plan.admin in plan.users and plan.admin.name == "router-admin"
    other = build(put(helpers.dual(), "router.admin_password", "mine"))
    assert other.admin.password.reveal() == "mine" != plan.admin.password.reveal()


def test_clients_authenticate() -> None:
    for raw in (helpers.dual(), helpers.with_tls(helpers.dual())):
        client = one(build(raw), "listener", "client-rpc")
        assert client["authenticatePeer"] is True and client["saslMechanisms"] == "PLAIN"
        assert client["linkCapacity"] == 10000 and client["idleTimeoutSeconds"] == 16


def test_no_password_is_in_the_configuration() -> None:
    raw = put(helpers.dual(), "router.mesh_password", "mesh-secret")
    text = json.dumps(build(raw).entities)
    assert "secret" not in text and parse.deployment(helpers.dual()).router.mesh_password.reveal() not in text


TLS_PATHS = ("/etc/pki/tls/ca.pem", "/etc/pki/tls/node.pem", "/etc/pki/tls/node.key")
OWN_PATHS = tuple(f"/etc/qpid-dispatch/tls/{name}.pem" for name in ("ca", "certificate", "key"))


@pytest.mark.parametrize(("form", "paths"), [("paths", TLS_PATHS), ("pem", OWN_PATHS)])
def test_tls(form: str, paths: tuple[str, str, str]) -> None:
    plan = build(helpers.with_tls(helpers.dual(), form), "ctl-1")
    profile, mesh = of_kind(plan, "sslProfile")
    assert (profile["caCertFile"], profile["certFile"], profile["privateKeyFile"]) == paths
    client = one(plan, "listener", "client-rpc")
    assert client["sslProfile"] == profile["name"] and client["requireSsl"] is True
    (connector,) = of_kind(plan, "connector")
    assert connector["host"] == "ctl-0"
    assert plan.ca == paths[0]
    assert [r.path for r in plan.requires] == (list(paths) if form == "paths" else [])
    plain = build(helpers.dual(), "ctl-1")
    assert mesh == one(plain, "sslProfile", "mesh") and plan.mesh_password == plain.mesh_password
    for name in ("inter-router", "edge"):
        assert one(plan, "listener", name) == one(plain, "listener", name)


OWN_FILES = {**dict(zip(model.MESH_FILES, ("/own/ca", "/own/certificate", "/own/key"))), "admin_password": "a"}


def test_certificates_of_the_operators_own_for_the_mesh() -> None:
    plan = build({**helpers.dual(), "router": OWN_FILES}, machine=helpers.host(prefix="/mnt"))
    profile = one(plan, "sslProfile", "mesh")
    assert [profile[a] for a in ("caCertFile", "certFile", "privateKeyFile")] == [
        OWN_FILES[key] for key in model.MESH_FILES
    ]
    assert plan.mesh_password is None
    assert [(r.path, r.key) for r in plan.requires] == [(OWN_FILES[key], f"router.{key}") for key in model.MESH_FILES]
    alone = build({**helpers.dual(1), "router": {**OWN_FILES, "engine": "embedded"}})
    assert alone.requires == () and of_kind(alone, "sslProfile") == []


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
    assert list(router.check_entities("x", plan.entities)) == []


def test_both_halves_over_one_router() -> None:
    both = put(helpers.dual(), "notify.scheme", "amqp")
    assert [name for name, _, _ in listeners(build(both))] == ["client-rpc", "http", "inter-router", "edge"]
    assert sorted(u.name for u in build(both).users) == ["notify", "router-admin", "rpc"]
    ports = {name: port for name, _, port in listeners(build(put(both, "notify.port", 5671)))}
    assert (ports["client-rpc"], ports["client-notify"]) == (31459, 5671)


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
    "another sslProfile": (with_attribute("connector", "sslProfile", "other"), {"router-no-profile"}),
    "an sslProfile without name": ([*without("sslProfile"), ("sslProfile", {})], {"router-no-profile"}),
    "a name twice": ([*GOOD, ("listener", {"name": "http", "host": "x", "port": 1})], {"router-duplicate"}),
    "a prefix twice": ([*GOOD, ("address", {"prefix": next(iter(ADDRESSES))})], {"router-duplicate"}),
    "a socket twice": ([*GOOD, LISTENER], {"router-duplicate"}),
}


@pytest.mark.parametrize(("entities", "codes"), WRONG.values(), ids=WRONG.keys())
def test_check_refuses(entities: list[router.Entity], codes: set[str]) -> None:
    found = list(router.check_entities("/etc/x.json", entities))
    assert {p.code for p in found} == codes
    assert {p.path for p in found} == {"/etc/x.json"}


def test_an_unused_sslProfile_of_another_name_is_no_fault() -> None:
    entities: list[router.Entity] = [ROUTER, ("sslProfile", {"name": "x"}), ("address", {"prefix": "a"})]
    assert list(router.check_entities("x", entities)) == []


@pytest.mark.parametrize("controllers", [1, 2, 3])
@pytest.mark.parametrize("tls", ["", "paths", "pem"])
def test_check_accepts_all_that_is_planned(controllers: int, tls: str) -> None:
    raw = helpers.dual(controllers)
    plan = build(helpers.with_tls(raw, tls) if tls else raw)
    assert list(router.check_entities("x", plan.entities)) == []


def test_a_faulty_plan_is_not_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "_http_listener", lambda *_: ("listener", {"title": "x"}))
    with pytest.raises(errors.InvalidInput) as caught:
        helpers.rendered(helpers.dual(), "ctl-0")
    assert {p.code for p in caught.value.problems} == {"router-unknown"}
