"""What every service must find in its configuration, for every kind of deployment."""

from __future__ import annotations

import typing

import pytest
from om_agent import errors, model, parse
from om_agent.plan import driver_options, layout, services, transport_url

from tests.support import helpers

put = helpers.put
CATALOGUE = helpers.catalogue()
SPEAKING = [n for n, s in CATALOGUE.items() if s.rpc or s.notify or s.listens]
PASTE = [n for n in SPEAKING if CATALOGUE[n].files[0].format == services.PASTE]
OSLO = [n for n in SPEAKING if n not in PASTE]
SILENT = [n for n in CATALOGUE if n not in SPEAKING]

Settings = dict[tuple[str, str], typing.Optional[str]]


def build(raw: object, machine: layout.Host | None = None, node: str = "") -> dict[str, services.ConfigFile]:
    d = parse.deployment(raw)
    local = d.by_name()[node] if node else d.nodes[0]
    found = services.plan_services(d, local, CATALOGUE, machine or helpers.host())
    assert len({f.path for f in found}) == len(found)
    return {f.service: f for f in found}


def settings(raw: object, service: str, machine: layout.Host | None = None, node: str = "") -> Settings:
    file = build(raw, machine, node)[service]
    found = {(s.section, s.key): s.value.reveal() if s.value else None for s in file.settings}
    assert len(found) == len(file.settings), "a key stands twice"
    return found


def codes(raw: object, machine: layout.Host | None = None) -> list[tuple[str, str]]:
    with pytest.raises(errors.InvalidInput) as caught:
        build(raw, machine)
    return [(p.path, p.code) for p in caught.value.problems]


RPC_URL = "amqp://rpc%40overcloud:rpc-secret@172.17.0.11:31459/?ssl=0"
MESH_URL = (
    "amqp://rpc%40overcloud:rpc-secret@172.17.0.11:31459,rpc%40overcloud:rpc-secret@172.17.0.12:31459,"
    "rpc%40overcloud:rpc-secret@172.17.0.13:31459/?ssl=0"
)
NOTIFY_URL = (
    "rabbit://notify:notify-secret@172.17.0.11:5672,notify:notify-secret@172.17.0.12:5672,"
    "notify:notify-secret@172.17.0.13:5672/?ssl=0"
)


@pytest.mark.parametrize(
    ("changes", "node", "url"),
    [
        ({}, "ctl-0", RPC_URL),
        ({}, "ctl-1", RPC_URL.replace(".11", ".12")),
        ({}, "cmp-0", RPC_URL.replace(".11", ".51")),
        ({"nodes.3.host": "cmp-0.internal"}, "cmp-0", RPC_URL.replace("172.17.0.11", "cmp-0.internal")),
        ({"router.clients": "mesh"}, "ctl-1", MESH_URL),
        ({"router.clients": "mesh"}, "cmp-0", MESH_URL),
        ({"router.roles": {"compute": "none"}}, "cmp-0", MESH_URL),
        ({"rpc.hosts": ["172.17.0.11"]}, "cmp-0", RPC_URL.replace("%40overcloud", "")),
        ({"rpc.nodes": ["ctl-0"], "router.engine": "embedded"}, "cmp-0", RPC_URL),
        ({"rpc.nodes": ["ctl-0"], "router.engine": "embedded"}, "ctl-1", RPC_URL),
    ],
)
def test_which_routers_the_services_of_a_node_connect_to(changes: dict[str, object], node: str, url: str) -> None:
    raw = helpers.dual()
    for path, value in changes.items():
        raw = put(raw, path, value)
    assert settings(raw, "nova", node=node)["DEFAULT", "transport_url"] == url


@pytest.mark.parametrize("service", OSLO)
def test_every_service_gets_its_urls(service: str) -> None:
    found = settings(helpers.dual(), service)
    row = CATALOGUE[service]
    assert found["DEFAULT", "transport_url"] == RPC_URL
    url = found.get(("oslo_messaging_notifications", "transport_url"))
    assert url == (NOTIFY_URL if row.notify or row.listens else None)
    driver = found.get(("oslo_messaging_notifications", "driver"))
    assert driver == ("messagingv2" if row.notify else None)


@pytest.mark.parametrize("service", SILENT)
def test_a_service_without_messaging_gets_no_password(service: str) -> None:
    assert service not in build(helpers.dual())
    assert build(put(helpers.dual(), "services", [service])) == {}


@pytest.mark.parametrize("service", OSLO)
def test_both_drivers_are_told_what_they_need(service: str) -> None:
    found = settings(helpers.dual(), service)
    amqp = {key: value for (section, key), value in found.items() if section == "oslo_messaging_amqp" and value}
    rabbit = {key: value for (section, key), value in found.items() if section == "oslo_messaging_rabbit" and value}
    expected = {
        "sasl_mechanisms": "PLAIN",
        "idle_timeout": "5",
        "link_retry_delay": "1",
        "connection_retry_interval_max": "2",
        "pre_settled": "rpc-cast",
        "default_reply_retry": "-1",
    }
    assert amqp == (expected if CATALOGUE[service].rpc else {})
    uses_rabbit = CATALOGUE[service].notify or CATALOGUE[service].listens
    assert rabbit == ({"heartbeat_timeout_threshold": "30"} if uses_rabbit else {})


@pytest.mark.parametrize("service", ["ironic", "octavia"])
def test_notifications_of_ironic_and_octavia_go_to_the_notification_backend(service: str) -> None:
    assert settings(helpers.dual(), service)["oslo_messaging_notifications", "transport_url"] == NOTIFY_URL


def test_notifications_of_swift_go_to_the_notification_backend() -> None:
    section = "filter:ceilometer"
    assert settings(helpers.dual(), "swift") == {(section, "url"): NOTIFY_URL, (section, "driver"): "messagingv2"}


def test_options() -> None:
    raw = put(put(helpers.dual(), "rpc.delivery", "pre_settled"), "rpc.response_timeout", 120)
    raw = put(put(raw, "rpc.idle_timeout", 7), "rpc.heartbeat", "11")
    found = settings(put(raw, "notify.driver", "noop"), "nova")
    assert found["oslo_messaging_amqp", "pre_settled"] is None
    assert found["oslo_messaging_amqp", "default_reply_retry"] is None
    assert found["DEFAULT", "rpc_response_timeout"] == "120"
    assert found["oslo_messaging_amqp", "idle_timeout"] == "7"
    assert found["oslo_messaging_rabbit", "heartbeat_timeout_threshold"] == "11"
    assert found["oslo_messaging_notifications", "driver"] == "noop"


def test_an_external_router_has_realms_of_its_own() -> None:
    found = settings(put(helpers.dual(), "rpc.hosts", ["elsewhere"]), "nova")
    assert "@elsewhere" in (found["DEFAULT", "transport_url"] or "")
    assert "overcloud" not in (found["DEFAULT", "transport_url"] or "")
    assert found["oslo_messaging_amqp", "sasl_mechanisms"] == "PLAIN"


@pytest.mark.parametrize(("form", "ca"), [("paths", "/etc/pki/tls/ca.pem"), ("pem", "/etc/om-agent/tls/ca.pem")])
@pytest.mark.parametrize("section", ["oslo_messaging_amqp", "oslo_messaging_rabbit"])
def test_tls(section: str, form: str, ca: str) -> None:
    found = settings(helpers.with_tls(helpers.dual(), form), "nova")
    assert (found[section, "ssl"], found[section, "ssl_ca_file"]) == ("true", ca)
    assert (found["DEFAULT", "transport_url"] or "").endswith("@ctl-0:31459/?ssl=1")


def test_tls_with_the_systems_own_authorities() -> None:
    raw = {"rpc": {"password": "x", "tls": True, "hosts": ["r.example.com"]}, "nodes": helpers.nodes()}
    found = settings(raw, "nova")
    assert found["oslo_messaging_rabbit", "ssl"] == "true" and found["oslo_messaging_rabbit", "ssl_ca_file"] is None


DEPLOYMENTS = {
    "default": helpers.default(),
    "dual": helpers.dual(),
    "amqp": put(helpers.dual(), "notify.scheme", "amqp"),
    "turned": put(put(helpers.dual(), "rpc.scheme", "rabbit"), "notify.scheme", "amqp"),
    "tls": helpers.with_tls(helpers.dual()),
    "external": put(helpers.dual(), "rpc.hosts", ["elsewhere"]),
    "separate": put(put(helpers.default(), "rpc.nodes", ["ctl-0"]), "notify", {"nodes": ["ctl-1"], "port": 5673}),
    "options": put(put(helpers.dual(), "rpc.delivery", "pre_settled"), "rpc.response_timeout", 1),
}


@pytest.mark.parametrize("service", SPEAKING)
def test_every_deployment_says_something_of_the_same_keys(service: str) -> None:
    """So that what one deployment wrote the next one removes: going there and back ends where it began."""
    # How long a call waits is the operator's own unless the metadata says otherwise.
    own = {("DEFAULT", "rpc_response_timeout")}
    before = tuple(services.DRIVERS.values())  # as the state says of a file in which both drivers' keys were ours
    paths = [f.path["debian"] for f in CATALOGUE[service].files]
    machine = helpers.host(drivers=dict.fromkeys(paths, before))
    keys = {name: set(settings(raw, service, machine)) - own for name, raw in DEPLOYMENTS.items()}
    assert all(found == keys["default"] for found in keys.values()), keys


def test_there_and_back_again() -> None:
    first = settings(helpers.default(), "nova")
    gone = {key for key, value in first.items() if value is None}
    assert {section for section, _ in gone} == {"oslo_messaging_rabbit", "DEFAULT"}
    machine = helpers.host(drivers={"/etc/nova/nova.conf": ("oslo_messaging_amqp",)})
    back = settings(helpers.default(), "nova", machine)
    assert {section for (section, _), value in back.items() if value is None} >= set(services.DRIVERS.values())
    over_amqp = settings(DEPLOYMENTS["amqp"], "nova")
    assert {key for key, value in over_amqp.items() if value and key[0] == "oslo_messaging_rabbit"} == set()
    assert over_amqp["oslo_messaging_amqp", "pre_settled"] == "rpc-cast"  # notifications are acknowledged


@pytest.mark.parametrize(
    ("delivery", "notify", "expected"),
    [
        (None, "rabbit", ("rpc-cast", "-1")),
        ("acknowledged_calls", "rabbit", ("rpc-cast", "-1")),
        ("acknowledged_calls", "amqp", ("rpc-cast", "-1")),
        ("acknowledged", "rabbit", ("notify", "-1")),
        ("acknowledged", "amqp", ("none", "-1")),
        ("pre_settled", "rabbit", (None, None)),
        ("pre_settled", "amqp", (None, None)),
    ],
)
def test_delivery(delivery: str | None, notify: str, expected: tuple[str | None, str | None]) -> None:
    """Unacknowledged messages may be lost, but never block a service, even without a listener."""
    raw = put(helpers.dual(), "notify.scheme", notify)
    found = settings(put(raw, "rpc.delivery", delivery) if delivery else raw, "nova")
    assert tuple(found["oslo_messaging_amqp", key] for key in ("pre_settled", "default_reply_retry")) == expected


def test_older_names_are_those_of_oslo_messaging() -> None:
    """Of the keys that are written here, by the release that is installed."""
    opts: typing.Any = pytest.importorskip("oslo_messaging.opts")
    written = {key for raw in DEPLOYMENTS.values() for name in OSLO for key in settings(raw, name)}
    written -= {older for names in services.OLDER_NAMES.values() for older in names}
    found: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for group, options in opts.list_opts():
        for option in options:
            key = (group or "DEFAULT", option.dest)
            for old in option.deprecated_opts if key in written else ():
                found.setdefault(key, set()).add((old.group or key[0], old.name or key[1]))
    assert found and found == {key: set(names) for key, names in services.OLDER_NAMES.items()}


@pytest.mark.parametrize("service", OSLO)
@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_key_of_ours_has_none_of_its_older_names(service: str, name: str) -> None:
    found = settings(DEPLOYMENTS[name], service)
    older = {old for key in found for old in services.OLDER_NAMES.get(key, ())}
    assert older and {found[old] for old in older} == {None}


def test_addresses_are_those_of_the_driver() -> None:
    opts: typing.Any = pytest.importorskip("oslo_messaging._drivers.amqp1_driver.opts")
    stock = {option.dest: option.default for option in opts.amqp1_opts}
    assert {key: stock[key] for key in services.ADDRESSING} == {k: v[0] for k, v in services.ADDRESSING.items()}
    assert set(build(helpers.dual())["nova"].fitting) == set(services.ADDRESSING)
    with_host = put(helpers.dual(), "rpc.virtual_host", "vh")
    assert set(build(with_host)["nova"].fitting) == {*services.ADDRESSING, "pseudo_vhost"}
    for raw in (helpers.default(), put(helpers.dual(), "rpc.hosts", ["elsewhere"])):
        assert build(raw)["nova"].fitting == {}
    assert build(helpers.dual())["ceilometer"].fitting == {}


AMQP, RABBIT = "oslo_messaging_amqp", "oslo_messaging_rabbit"


@pytest.mark.parametrize("service", OSLO)
@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_only_keys_of_drivers_that_the_service_uses(service: str, name: str) -> None:
    """The section of another driver is the operator's: ceilometer may publish to a metrics router of its own."""
    d, row = parse.deployment(DEPLOYMENTS[name]), CATALOGUE[service]
    used = {services.DRIVERS[d.rpc.scheme]} if row.rpc else set()
    used |= {services.DRIVERS[d.notify.scheme]} if row.notify or row.listens else set()
    file = build(DEPLOYMENTS[name])[service]
    assert {s.section for s in file.settings} & {AMQP, RABBIT} == used == set(file.drivers)


@pytest.mark.parametrize("service", ["aodh", "ceilometer", "glance", "keystone"])
def test_a_service_without_rpc_gets_no_keys_of_rpcs_driver(service: str) -> None:
    assert build(helpers.dual())[service].drivers == (RABBIT,)
    assert {s.section for s in build(helpers.dual())[service].settings} & {AMQP} == set()
    assert build(DEPLOYMENTS["amqp"])[service].drivers == (AMQP,)


@pytest.mark.parametrize("service", OSLO)
def test_keys_of_a_driver_that_was_used_before_go(service: str) -> None:
    path = CATALOGUE[service].files[0].path["debian"]
    found = settings(helpers.default(), service, helpers.host(drivers={path: (AMQP,)}))
    of_amqp = {value for (section, _), value in found.items() if section == AMQP}
    assert of_amqp == {None}


def test_percents_are_escaped_for_their_reader() -> None:
    raw = put(put(helpers.dual(), "notify.password", "a@b$c"), "tls.ca_file", "/etc/x/ca%1.pem")
    raw = put(raw, "notify.tls", True)
    raw = put(put(raw, "tls.certificate_file", "/c"), "tls.key_file", "/k")
    nova, swift = settings(raw, "nova"), settings(raw, "swift")
    assert nova["oslo_messaging_rabbit", "ssl_ca_file"] == "/etc/x/ca%1.pem"
    url = transport_url.url_of(parse.deployment(raw).notify, {"ssl_ca_file": "/etc/x/ca%1.pem"}).reveal()
    assert swift["filter:ceilometer", "url"] == url.replace("%", "%%")
    assert "%%40" in url.replace("%", "%%") and "$" not in url


def test_paste_over_amqp_doubles_the_percent_of_the_realm() -> None:
    url = settings(DEPLOYMENTS["amqp"], "swift")["filter:ceilometer", "url"]
    assert url and url.startswith("amqp://") and "%%40overcloud:" in url and url.endswith("/?ssl=0")


@pytest.mark.parametrize("value", [s.value for f in build(helpers.dual()).values() for s in f.settings][:20])
def test_values_do_not_show(value: model.Secret | None) -> None:
    assert value is None or repr(value) == "Secret(***)"


# -- which files -----------------------------------------------------------------------------------------------------


def test_the_catalogues_services_that_this_node_has() -> None:
    assert set(build(helpers.dual(), helpers.host("nova", "neutron", "swift"))) == {"nova", "neutron", "swift"}
    assert build(helpers.dual(), layout.Host()) == {}


def test_only_the_services_asked_for() -> None:
    assert list(build(put(helpers.dual(), "services", ["neutron", "nova"]))) == ["neutron", "nova"]


def test_a_service_that_is_asked_for_and_not_there() -> None:
    raw = put(helpers.dual(), "services", ["nova", "heat", "swift"])
    machine = helpers.host("nova", "swift", paste_sections=frozenset())
    assert codes(raw, machine) == [
        ("services[1]", "absent-service"),
        ("services[2]", "no-section"),
    ]


def test_swift_without_the_filter_is_passed_over_unless_asked_for() -> None:
    machine = helpers.host("nova", "swift", paste_sections=frozenset())
    assert set(build(helpers.dual(), machine)) == {"nova"}


@pytest.mark.parametrize("family", services.FAMILIES)
@pytest.mark.parametrize("service", SPEAKING)
def test_both_families(service: str, family: str) -> None:
    file = build(helpers.dual(), helpers.host(family=family))[service]
    row = CATALOGUE[service]
    assert file.path == row.files[0].path[family]
    assert file.units == row.units[family]


@pytest.mark.parametrize(
    ("mode", "kept"), [(0o644, 0o640), (0o640, 0o640), (0o600, 0o600), (0o666, 0o660), (0o777, 0o770), (0o400, 0o400)]
)
def test_a_file_that_is_there_keeps_its_owner_and_its_mode_but_for_the_world(mode: int, kept: int) -> None:
    machine = helpers.host("nova", existing={"/etc/nova/nova.conf": (mode, 7, 8)}, uids={"root": 0}, gids={"nova": 9})
    file = build(helpers.dual(), machine)["nova"]
    assert (file.mode, file.uid, file.gid) == (kept, 7, 8)


@pytest.mark.parametrize(
    ("mode", "gid", "kept", "group"),
    [(0o644, 0, 0o640, 9), (0o604, 5, 0o640, 9), (0o644, 9, 0o640, 9), (0o640, 0, 0o640, 0), (0o600, 0, 0o600, 0)],
)
def test_a_file_of_roots_that_everybody_could_read_stays_readable_to_its_service(
    mode: int, gid: int, kept: int, group: int
) -> None:
    there = {"/etc/nova/nova.conf": (mode, 0, gid)}
    file = build(helpers.dual(), helpers.host("nova", existing=there, uids={"root": 0}, gids={"nova": 9}))["nova"]
    assert (file.mode, file.uid, file.gid) == (kept, 0, group)
    unknown = build(helpers.dual(), helpers.host("nova", existing=there, uids={"root": 0}))["nova"]
    assert (unknown.mode, unknown.gid) == (mode & ~0o007, gid)  # nobody knows the group


def test_a_new_file_gets_the_catalogues() -> None:
    file = build(helpers.dual(), helpers.host("nova", uids={"root": 0}, gids={"nova": 9}))["nova"]
    assert (file.mode, file.uid, file.gid) == (0o640, 0, 9)
    assert (build(helpers.dual())["nova"].uid, build(helpers.dual())["nova"].gid) == (None, None)


def test_names_are_checked_without_a_node() -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        parse.deployment(put(helpers.dual(), "services", ["nova", "nva"]), CATALOGUE)
    (problem,) = caught.value.problems
    assert (problem.path, problem.code) == ("services[1]", "unknown-service")
    assert "nova" in problem.remedy and "zaqar" in problem.remedy


def test_every_kind_of_backend_has_options() -> None:
    assert set(driver_options.VALUES) == set(model.Scheme)
