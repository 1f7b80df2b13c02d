"""The model of valid metadata: defaults, Heat's spellings, every kind of deployment."""

from __future__ import annotations

import re

import pytest
from om_agent import errors, model, parse

from tests.support import helpers

put = helpers.put


def findings(raw: object) -> list[tuple[str, str]]:
    found = parse.deployment(raw).findings
    assert all(f.severity == errors.WARNING for f in found)
    return [(f.path, f.code) for f in found]


def test_a_password_and_nodes_are_enough() -> None:
    d = parse.deployment(helpers.default())
    assert d.rpc.scheme is d.notify.scheme is model.Scheme.RABBIT
    assert (d.rpc.port, d.rpc.username, d.rpc.virtual_host, d.rpc.tls) == (5672, "openstack", "", False)
    assert d.rpc.nodes == ("ctl-0", "ctl-1", "ctl-2")
    assert d.rpc.hosts == ("172.17.0.11", "172.17.0.12", "172.17.0.13")
    assert d.services is None and d.node == ""
    for name in ("scheme", "port", "username", "virtual_host", "tls", "hosts", "nodes"):
        assert getattr(d.notify, name) == getattr(d.rpc, name)
    assert d.notify.password.reveal() == d.rpc.password.reveal() == "rpc-secret"
    assert model.interiors(d) == ()


def test_notify_takes_from_rpc_what_it_leaves_out() -> None:
    raw = put(helpers.default(), "rpc", {"password": "x", "port": 5673, "username": "u", "virtual_host": "v"})
    d = parse.deployment(put(raw, "notify.username", "other"))
    assert (d.notify.port, d.notify.virtual_host, d.notify.username) == (5673, "v", "other")


def test_notify_takes_the_external_hosts_too() -> None:
    d = parse.deployment(put(helpers.default(), "rpc.hosts", ["r1", "r2"]))
    assert d.notify.hosts == ("r1", "r2") and d.notify.external


def test_dual() -> None:
    d = parse.deployment(helpers.dual())
    assert (d.rpc.scheme, d.rpc.port, d.rpc.username) == (model.Scheme.AMQP, 31459, "rpc")
    assert (d.notify.scheme, d.notify.port, d.notify.username) == (model.Scheme.RABBIT, 5672, "notify")
    assert model.interiors(d) == d.rpc.nodes == d.notify.nodes
    assert d.router.engine is model.Engine.QDROUTERD
    assert (d.router.inter_router_port, d.router.http_port) == (31460, 31462)


def test_the_port_follows_the_scheme() -> None:
    raw = put(
        put(helpers.dual(), "rpc", {"password": "x", "port": 1234}),
        "notify",
        {"scheme": "amqp", "tls": False, "username": "n"},
    )
    assert parse.deployment(raw).notify.port == 31459


def test_two_clusters_on_separate_nodes() -> None:
    raw = put(put(helpers.default(), "rpc.nodes", ["ctl-0"]), "notify", {"nodes": ["ctl-1", "ctl-2"], "port": 5699})
    d = parse.deployment(raw)
    assert (d.rpc.nodes, d.notify.nodes) == (("ctl-0",), ("ctl-1", "ctl-2"))
    assert d.notify.password.reveal() == "rpc-secret"


def test_a_host_may_have_another_name_than_its_address() -> None:
    d = parse.deployment(put(helpers.default(), "nodes.0.host", "ctl-0.internalapi"))
    assert d.rpc.hosts[0] == "ctl-0.internalapi"


def test_with_tls_urls_hold_names() -> None:
    assert parse.deployment(helpers.with_tls(helpers.dual())).rpc.hosts == ("ctl-0", "ctl-1", "ctl-2")


def test_an_external_backend_has_no_nodes() -> None:
    d = parse.deployment(put(helpers.dual(), "rpc.hosts", ["r1.example.com"]))
    assert d.rpc.external and d.rpc.hosts == ("r1.example.com",)
    assert model.interiors(d) == ()


def test_both_over_amqp_warns_that_nothing_stores_notifications() -> None:
    raw = put(helpers.with_tls(helpers.dual(controllers=2)), "notify.scheme", "amqp")
    assert findings(raw) == [("notify.scheme", "not-stored")]


@pytest.mark.parametrize(("controllers", "told"), [(1, False), (2, True)])
def test_a_cookie_that_services_could_make_is_told(controllers: int, told: bool) -> None:
    raw = helpers.with_tls(helpers.default(controllers))
    assert findings(raw) == [("broker.erlang_cookie", "cookie-derived")] * told
    assert findings(put(raw, "broker.erlang_cookie", "cookiecookie")) == []


@pytest.mark.parametrize(("cookie", "told"), [("ABCDEFGHIJKLMNOPQRST", True), ("ABCDEFGHIJKLMNOPQRSt", False)])
def test_a_cookie_that_a_package_replaces_is_told(cookie: str, told: bool) -> None:
    """Debian's rabbitmq-server.postinst: grep -q -E '^[A-Z]{20}$'."""
    raw = put(helpers.with_tls(helpers.default(2)), "broker.erlang_cookie", cookie)
    assert findings(raw) == [("broker.erlang_cookie", "cookie-replaced")] * told


def test_no_tls_warns() -> None:
    assert findings(helpers.default(1)) == [("rpc.tls", "plaintext"), ("notify.tls", "plaintext")]
    assert findings(helpers.with_tls(helpers.default(1))) == []


@pytest.mark.parametrize(
    ("engine", "controllers", "told"), [("qdrouterd", 2, False), ("qdrouterd", 3, True), ("skrouterd", 3, False)]
)
def test_a_mesh_of_qdrouterd_warns_of_duplicate_fanouts(engine: str, controllers: int, told: bool) -> None:
    raw = put(helpers.with_tls(helpers.dual(controllers)), "router.engine", engine)
    assert findings(raw) == [("router.engine", "fanout-duplicates")] * told


def test_sites_and_their_links() -> None:
    raw = put(put(helpers.with_tls(helpers.dual(2, 0)), "nodes.0.site", "dc1"), "nodes.1.site", "dc2")
    d = parse.deployment(put(raw, "sites.links", [{"between": ["dc2", "dc1"], "cost": "10"}]))
    assert d.site_links == (model.SiteLink(("dc1", "dc2"), 10),)
    assert d.findings == ()


INTERIOR, EDGE, NONE = model.RouterMode.INTERIOR, model.RouterMode.EDGE, model.RouterMode.NONE


@pytest.mark.parametrize(
    ("changes", "modes"),
    [
        ({}, (INTERIOR, INTERIOR, EDGE, EDGE)),
        ({"nodes.2.role": "networker"}, (INTERIOR, INTERIOR, EDGE, EDGE)),
        ({"nodes.2.role": "networker", "router.roles": {"networker": "interior"}},
         (INTERIOR, INTERIOR, INTERIOR, EDGE)),
        ({"nodes.2.role": "storage", "router.roles": {"storage": "none"}}, (INTERIOR, INTERIOR, NONE, EDGE)),
        ({"nodes.2.interior": True, "nodes.0.interior": "no"}, (EDGE, INTERIOR, INTERIOR, EDGE)),
        ({"nodes.2.role": "storage", "router.roles": {"storage": "none"}, "nodes.2.interior": False},
         (INTERIOR, INTERIOR, EDGE, EDGE)),
        ({"rpc.nodes": ["cmp-1"]}, (EDGE, EDGE, EDGE, INTERIOR)),
        ({"rpc.nodes": ["cmp-1"], "router.roles": {"compute": "none"}}, (EDGE, EDGE, NONE, INTERIOR)),
        ({"router.clients": "mesh"}, (INTERIOR, INTERIOR, NONE, NONE)),
        ({"rpc.nodes": ["ctl-0"], "router.engine": "embedded"}, (INTERIOR, NONE, NONE, NONE)),
        ({"rpc.scheme": "rabbit"}, (NONE, NONE, NONE, NONE)),
        ({"rpc.hosts": ["elsewhere"]}, (NONE, NONE, NONE, NONE)),
    ],
)  # fmt: skip
def test_what_routers_are_for(changes: dict[str, object], modes: tuple[model.RouterMode, ...]) -> None:
    raw = helpers.dual(2, 2)
    for path, value in changes.items():
        raw = put(raw, path, value)
    assert tuple(n.router for n in parse.deployment(raw).nodes) == modes


def test_a_role_that_no_node_has_is_told() -> None:
    raw = put(helpers.with_tls(helpers.dual(2, 1)), "router.roles", {"compute": "edge", "computer": "interior"})
    assert findings(raw) == [("router.roles.computer", "role-unused")]
    assert "compute, controller" in parse.deployment(raw).findings[0].remedy


@pytest.mark.parametrize(
    ("roles", "told"),
    [
        ({"controller": "interior"}, ["router.roles.controller"]),
        ({"compute": "interior", "controller": "edge"}, ["router.roles.compute", "router.roles.controller"]),
        ({"compute": "interior", "controller": "none"}, ["router.roles.compute", "router.roles.controller"]),
        ({"compute": "edge"}, []),
        ({"compute": "none"}, []),
    ],
)
def test_roles_that_the_nodes_of_a_half_overrule_are_told(roles: dict[str, str], told: list[str]) -> None:
    raw = put(helpers.with_tls(helpers.dual(2, 2)), "router.roles", roles)
    named = ["ctl-0"] if roles == {"controller": "interior"} else ["ctl-0", "ctl-1"]
    found = findings(put(raw, "rpc.nodes", named))
    assert sorted(found) == [(path, "roles-overruled") for path in told]
    assert "roles-overruled" not in str(findings(raw))


def test_a_node_that_says_interior_itself_is_not_overruled() -> None:
    raw = put(
        put(helpers.with_tls(helpers.dual(2, 2)), "rpc.nodes", ["ctl-0", "ctl-1", "cmp-0"]), "nodes.2.interior", True
    )
    assert findings(put(raw, "router.roles", {"compute": "edge"})) == [("router.engine", "fanout-duplicates")]


@pytest.mark.parametrize("word", ["true", "True", "TRUE", "yes", "on", "1", "t", "y", 1, True])
def test_heat_spellings_of_true(word: object) -> None:
    assert parse.deployment(put(helpers.with_tls(helpers.default()), "rpc.tls", word)).rpc.tls is True


@pytest.mark.parametrize("word", ["false", "False", "no", "off", "0", "f", "n", "", 0, False])
def test_heat_spellings_of_false(word: object) -> None:
    assert parse.deployment(put(helpers.default(), "rpc.tls", word)).rpc.tls is False


@pytest.mark.parametrize("word", ["true", 1, True])
def test_a_host_name_is_taken_for_any_spelling_of_true(word: object) -> None:
    assert parse.deployment(put(helpers.with_tls(helpers.dual()), "rpc.tls", word)).rpc.hosts[0] == "ctl-0"


@pytest.mark.parametrize("number", ["5673", " 5673 ", 5673, "05673"])
def test_heat_numbers(number: object) -> None:
    assert parse.deployment(put(helpers.default(), "rpc.port", number)).rpc.port == 5673


@pytest.mark.parametrize("section", ["notify", "router", "broker", "tls", "sites", "services", "node"])
def test_null_is_as_good_as_nothing(section: str) -> None:
    assert parse.deployment(put(helpers.default(), section, None)) == parse.deployment(helpers.default())


@pytest.mark.parametrize("password", ["a", " ", "\n", "é" * 512, "@:?#%$\"'{}\\ ", "%{x}", "${x}", "\U0001f600"])
def test_passwords_of_any_kind(password: str) -> None:
    assert parse.deployment(put(helpers.default(), "rpc.password", password)).rpc.password.reveal() == password


def test_a_slash_is_welcome_to_a_router() -> None:
    assert parse.deployment(put(helpers.dual(), "rpc.password", "a/b")).rpc.password.reveal() == "a/b"


@pytest.mark.parametrize("section", ["rpc.username", "rpc.port", "rpc.tls", "tls.ca_file", "nodes.1.role", "node"])
def test_an_empty_text_is_as_good_as_nothing(section: str) -> None:
    assert parse.deployment(put(helpers.default(), section, "")) == parse.deployment(helpers.default())


@pytest.mark.parametrize("address", ["10.0.0.1", "fd00::1", "::ffff:10.0.0.1", "ctl-0", "a.b.c.", "_x", "1a"])
def test_hosts(address: str) -> None:
    assert parse.deployment(put(helpers.default(controllers=1), "nodes.0.address", address)).nodes[0].address == address


@pytest.mark.parametrize("count", [1, 2, 128])
def test_mesh_sizes(count: int) -> None:
    raw = put(helpers.dual(), "nodes", [{"name": f"n{i}", "address": f"10.0.0.{i}"} for i in range(1, count + 1)])
    assert len(model.interiors(parse.deployment(raw))) == count


def test_derived_secrets_are_the_same_everywhere_and_not_the_password() -> None:
    first, second = (parse.deployment(put(helpers.dual(*size), "broker", {})) for size in ((), (1, 5)))
    assert first.broker.erlang_cookie == second.broker.erlang_cookie
    assert first.router.admin_password == second.router.admin_password
    made = [s.reveal() for d in (first, second) for s in (d.broker.erlang_cookie, d.router.admin_password)]
    assert len(set(made)) == 2 and not re.search("rpc-secret|mesh-secret", " ".join(made))


def test_services_log_in_with_a_password_unless_they_are_told_otherwise() -> None:
    d = parse.deployment(helpers.dual())
    assert {b.mechanism for b in d.halves} == {model.Mechanism.PLAIN} and d.rpc.client_files == ()


def test_a_login_by_certificate_is_taken_from_rpc_by_the_same_driver_alone() -> None:
    shown = {"sasl_mechanism": "EXTERNAL", "client_certificate_file": "/c", "client_key_file": "/k"}
    raw = helpers.with_tls(helpers.dual())
    raw["rpc"] = {"scheme": "amqp", "tls": True, "username": "rpc", **shown}
    d = parse.deployment(raw)
    assert d.rpc.client_files == ("/c", "/k") and d.rpc.password.reveal() == ""
    assert d.notify.mechanism is model.Mechanism.PLAIN and d.notify.client_files == ()
    raw["notify"] = {"scheme": "amqp"}
    d = parse.deployment(raw)
    assert d.notify.mechanism is model.Mechanism.EXTERNAL and d.notify.client_files == ("/c", "/k")


def test_scram_warns_of_what_it_needs() -> None:
    raw = put(helpers.with_tls(helpers.dual(1)), "rpc.sasl_mechanism", "SCRAM-SHA-256")
    assert findings(raw) == [("rpc.sasl_mechanism", "scram-cyrus")]


def test_an_administrators_password_may_be_given() -> None:
    raw = put(helpers.dual(), "router.admin_password", "a")
    assert parse.deployment(raw).router.admin_password.reveal() == "a"
    own = {**dict.fromkeys(model.MESH_FILES, "/x"), "admin_password": "a"}
    assert parse.deployment(put(helpers.dual(), "router", own)).router.mesh_files == ("/x", "/x", "/x")


def test_a_secret_shows_only_on_request() -> None:
    d = parse.deployment(helpers.with_tls(helpers.dual(), "pem"))
    shown = f"{d!r} {d} {d.rpc.password}"
    for secret in ("rpc-secret", "notify-secret", d.broker.erlang_cookie.reveal(), "bm90IGEga2V5"):
        assert secret not in shown
    assert model.Secret("a") == model.Secret("a") != model.Secret("b")


def test_local_node_compares_whole_names() -> None:
    d = parse.deployment(put(helpers.default(), "nodes", [{"name": n} for n in ("ctl-10", "ctl-1", "ctl-11")]))
    assert model.local_node(d, ["ctl", "ctl-1"]).name == "ctl-1"
    assert model.local_node(d, ["CTL-1."]).name == "ctl-1"
    for name in ("ctl", "ctl-", "ctl-1.example.com", ""):
        with pytest.raises(errors.InvalidInput) as caught:
            model.local_node(d, [name])
        assert [p.code for p in caught.value.problems] == ["not-in-nodes"]
    with pytest.raises(errors.InvalidInput):
        model.local_node(d, [])


def test_sockets_of_a_shared_node() -> None:
    d = parse.deployment(helpers.dual())
    ports = sorted(port for port, _ in model.sockets(d, "ctl-0"))
    assert ports == [4369, 5672, 15692, 25672, 31459, 31460, 31461, 31462]
    assert sorted(port for port, _ in model.sockets(d, "cmp-0")) == [31459, 31462]
