"""The service templates in the role chains of Queens and Wallaby, and the agent on their hieradata."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import typing

import pytest
import yaml
from om_agent import ini

from tests.heat import engine, overcloud
from tests.support import helpers, tls
from tests.unit import test_transport_url as puppet

RELEASES = ("queens", "wallaby")
DUAL = "rpc-qdrouterd-notify-rabbitmq.yaml"
SHARED = "rpc-rabbitmq-notify-rabbitmq-shared.yaml"
SEPARATE = "rpc-rabbitmq-notify-rabbitmq-separate.yaml"
TLS = "tls-everywhere.yaml"
HOSTS: dict[str, object] = {
    "RpcHosts": ["router-a.example.com", "router-b.example.com"],
    "NotifyHosts": ["rabbit.example.com"],
}

# What is deployed, by name: environments, parameters, roles.
Deployment = tuple[tuple[str, ...], dict[str, object], dict[str, list[str]]]
DEPLOYMENTS: dict[str, Deployment] = {
    "dual": ((DUAL,), {}, overcloud.ROLES),
    "dual, clients of the mesh": ((DUAL,), {"RpcRouterClients": "mesh"}, overcloud.ROLES),
    "dual with TLS": ((DUAL, TLS), {}, overcloud.ROLES),
    "dual, skrouterd": ((DUAL,), {"RpcRouterEngine": "skrouterd"}, overcloud.ROLES),
    "dual, sites": ((DUAL, "sites-example.yaml"), {}, overcloud.ROLES),
    "shared": ((SHARED,), {}, overcloud.ROLES),
    "shared with TLS": ((SHARED, TLS), {}, overcloud.ROLES),
    "separate": ((SEPARATE,), {}, overcloud.SEPARATE),
    "notify external": (("rpc-qdrouterd-notify-external.yaml",), HOSTS, overcloud.ROLES),
    "rpc external": (
        ("rpc-external-notify-rabbitmq.yaml",),
        {**HOSTS, "RpcScheme": "amqp", "RpcPort": 31459},
        overcloud.ROLES,
    ),
    "both external": (("rpc-external-notify-external.yaml", TLS), HOSTS, overcloud.ROLES),
}


@pytest.fixture(scope="module")
def resolved() -> dict[tuple[str, str], dict[str, engine.Result]]:
    """Return Heat's outputs of every deployment for both releases, by role."""
    cases = {
        (release, name, role): case
        for release in RELEASES
        for name, (environments, parameters, roles) in DEPLOYMENTS.items()
        for role, case in overcloud.cases(release, *environments, roles=roles, parameters=parameters).items()
    }
    found: dict[tuple[str, str], dict[str, engine.Result]] = {}
    for (release, name, role), result in zip(cases, engine.resolve(list(cases.values()))):
        assert "error" not in result, (release, name, role, result["error"])
        found.setdefault((release, name), {})[role] = result["outputs"]
    return found


Resolved = dict[tuple[str, str], dict[str, engine.Result]]


def settings(resolved: Resolved, release: str, name: str) -> dict[str, typing.Any]:
    """The global settings of all roles."""
    merged: dict[str, typing.Any] = {}
    for outputs in resolved[release, name].values():
        merged |= outputs["global_config_settings"]
    return merged


def half(scheme: str, half_name: str, user: str, password: str, port: int, use_ssl: bool = False) -> dict[str, object]:
    values = {"scheme": scheme, "user_name": user, "password": password, "port": port, "use_ssl": use_ssl}
    return {f"oslo_messaging_{half_name}_{key}": value for key, value in values.items()}


ROUTERS_USER = "guest@overcloud"  # as routers of this project know RpcUserName
RPC, NOTIFY = overcloud.PASSWORDS["RpcPassword"], overcloud.PASSWORDS["NotifyPassword"]
FILES = {
    "ca_file": "/etc/ipa/ca.crt",
    "certificate_file": "/etc/pki/tls/certs/messaging.crt",
    "key_file": "/etc/pki/tls/private/messaging.key",
}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dual", half("amqp", "rpc", ROUTERS_USER, RPC, 31459) | half("rabbit", "notify", "guest", NOTIFY, 5672)),
        (
            "dual with TLS",
            half("amqp", "rpc", ROUTERS_USER, RPC, 31459, True)
            | half("rabbit", "notify", "guest", NOTIFY, 5672, True)
            | {"oslo_messaging_tls": FILES},
        ),
        ("shared", half("rabbit", "rpc", "guest", RPC, 5672) | half("rabbit", "notify", "guest", RPC, 5672)),
        ("separate", half("rabbit", "rpc", "guest", RPC, 5672) | half("rabbit", "notify", "guest", NOTIFY, 5672)),
        (
            "rpc external",
            half("amqp", "rpc", "guest", RPC, 31459)
            | half("rabbit", "notify", "guest", NOTIFY, 5672)
            | {"oslo_messaging_rpc_hosts": HOSTS["RpcHosts"], "oslo_messaging_rpc_node_names": HOSTS["RpcHosts"]},
        ),
        ("both external", {"oslo_messaging_tls": {"ca_file": "/etc/ipa/ca.crt"}}),
        ("both external", {"oslo_messaging_rpc_use_ssl": True, "oslo_messaging_notify_use_ssl": True}),
        ("dual", {"messaging_rpc_service_name": "amqp", "messaging_notify_service_name": "rabbit"}),
        ("dual", {"keystone::messaging::amqp::amqp_pre_settled": "rpc-cast"}),
        ("dual", {"oslo_messaging_broker": {"erlang_cookie": "cookie-secret"}}),
    ],
)  # fmt: skip
def test_the_hiera_contract(resolved: Resolved, release: str, name: str, expected: dict[str, object]) -> None:
    found = settings(resolved, release, name)
    assert {key: found.get(key) for key in expected} == expected


@pytest.mark.parametrize("release", RELEASES)
def test_the_routers_settings(resolved: Resolved, release: str) -> None:
    defaults = {
        "engine": "qdrouterd",
        "clients": "local",
        "mesh_password": "mesh-secret",
        "inter_router_port": 31460,
        "edge_port": 31461,
        "http_port": 31462,
        "worker_threads": 1,
        "require_redundancy": False,
    }
    assert settings(resolved, release, "dual")["oslo_messaging_router"] == defaults
    sites = settings(resolved, release, "dual, sites")
    assert sites["oslo_messaging_sites"] == {"links": [{"between": ["dc1", "dc2"], "cost": 10}]}
    assert sites["oslo_messaging_node_sites"]["overcloud-controller-2"] == "dc2"
    assert "oslo_messaging_node_sites" not in settings(resolved, release, "dual")
    for name in ("shared", "separate", "both external"):
        found = settings(resolved, release, name)
        assert "oslo_messaging_router" not in found and "keystone::messaging::amqp::amqp_pre_settled" not in found


@pytest.mark.parametrize("release", RELEASES)
def test_firewalls(resolved: Resolved, release: str) -> None:
    controller, compute = resolved[release, "dual"]["Controller"], resolved[release, "dual"]["Compute"]
    rpc = {"109 oslo_messaging_rpc": {"dport": [31459, 31460, 31461]}}
    notify = {"109 oslo_messaging_notify": {"dport": [4369, 5672, 25672]}}
    if release == "wallaby":
        assert controller["firewall_rules"] == rpc | notify and compute["firewall_rules"] == {}
    assert controller["config_settings"]["tripleo.oslo_messaging_rpc.firewall_rules"] == rpc
    assert controller["config_settings"]["tripleo.oslo_messaging_notify.firewall_rules"] == notify
    assert not [key for key in compute["config_settings"] if "firewall" in key]


@pytest.mark.parametrize("release", RELEASES)
def test_nothing_runs_for_what_others_run(resolved: Resolved, release: str) -> None:
    for outputs in resolved[release, "both external"].values():
        assert outputs["config_settings"] == {}
        assert not [n for n in outputs["service_names"] if n in ("oslo_messaging_rpc", "oslo_messaging_notify")]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_agent_runs_on_every_node(resolved: Resolved, release: str, name: str) -> None:
    for role, outputs in resolved[release, name].items():
        assert "'om-agent apply'" in outputs["step_config"], role


@pytest.mark.parametrize("release", RELEASES)
def test_puppet_tripleo_is_told_of_the_local_router_on_the_nodes_that_have_one(
    resolved: Resolved, release: str
) -> None:
    """If a key is in both, the global settings win, so it must be in only one of them."""
    key = "tripleo::profile::base::nova::oslomsg_rpc_hosts"
    for role in ("Controller", "Compute"):
        assert resolved[release, "dual"][role]["config_settings"][key] == ["%{hiera('fqdn_internal_api')}"]
    assert key not in settings(resolved, release, "dual")
    everywhere = "%{alias('oslo_messaging_rpc_node_names')}"
    for name in ("dual, clients of the mesh", "shared", "separate", "rpc external"):
        assert settings(resolved, release, name)[key] == everywhere
        assert not [r for r in resolved[release, name].values() if key in r["config_settings"]]
    assert settings(resolved, release, "dual")["tripleo::profile::base::swift::proxy::oslomsg_rpc_port"] == (
        "%{hiera('oslo_messaging_notify_port')}"
    )


def parameters_of(release: str) -> set[str]:
    """The parameters of puppet's classes that messaging is configured with, as hiera names them."""
    groups = yaml.safe_load((engine.HERE / "puppet-parameters.yaml").read_text())[release]
    return {f"{c}::{p}" for g in groups for c in g["classes"] for p in g["parameters"]}


@pytest.mark.parametrize("name", ["dual", "dual with TLS", "shared", "separate", "both external"])
@pytest.mark.parametrize("release", RELEASES)
def test_puppet_tripleo_is_told_everything(resolved: Resolved, release: str, name: str) -> None:
    """puppet takes missing keys from Queens' own RabbitMQ, or removes them from services' files."""
    found = settings(resolved, release, name)
    for outputs in resolved[release, name].values():
        found |= outputs["config_settings"]
    tls = "TLS" in name or name == "both external"
    amqp = found["oslo_messaging_rpc_scheme"] == "amqp"
    wanted = {key for key in parameters_of(release) if amqp or "amqp_" not in key}
    assert {key for key in wanted if tls or not key.endswith("amqp_ssl_ca_file")} <= set(found)
    assert {found[k] for k in found if k.endswith("::amqp_sasl_mechanisms")} == ({"PLAIN"} if amqp else set())
    authorities = {found[k] for k in found if k.endswith("::amqp_ssl_ca_file")}
    assert authorities == ({FILES["ca_file"]} if amqp and tls else set())


def test_puppets_classes_are_told_nothing_that_they_do_not_know(resolved: Resolved) -> None:
    """A class of either release; hiera passes over a key that nobody asks for, and a misspelt one."""
    classes = {key.rpartition("::")[0] for release in RELEASES for key in parameters_of(release)}
    known = set().union(*map(parameters_of, RELEASES))
    # Every class of a list gets all the names; that it lacks one of them does no harm.
    urls_of = {key.rpartition("::")[2] for key in known if "::oslomsg_" in key}
    known |= {f"{c}::{parameter}" for c in classes for parameter in urls_of}
    for release, name in resolved:
        for outputs in resolved[release, name].values():
            keys = {*outputs["global_config_settings"], *outputs["config_settings"]}
            assert {key for key in keys if "::" in key} <= known


def test_certificates_are_asked_for_with_tls_alone(resolved: Resolved) -> None:
    for release in RELEASES:
        steps = resolved[release, "dual with TLS"]["Controller"]["step_config"]
        assert "certmonger_certificate" in steps and "hiera('fqdn_internal_api')" in steps and "@" not in steps
        for name in ("dual", "both external"):
            assert "certmonger" not in resolved[release, name]["Controller"]["step_config"]


def test_no_secret_is_in_a_manifest_or_stands_twice(resolved: Resolved) -> None:
    for outputs in resolved.values():
        for role in outputs.values():
            for secret in overcloud.PASSWORDS.values():
                assert secret not in role["step_config"]
                assert secret not in json.dumps(role["config_settings"], ensure_ascii=False)
    text = json.dumps(settings(resolved, "queens", "dual"), ensure_ascii=False)
    assert [text.count(s) for s in ("rpc-secret", "notify-secret", "mesh-secret", "cookie-secret")] == [1, 1, 1, 1]


@pytest.mark.parametrize("name", ["dual", "dual with TLS"])
def test_the_manifest_is_puppets(resolved: Resolved, name: str, tmp_path: pathlib.Path) -> None:
    if not shutil.which("puppet"):
        helpers.skip("puppet is not installed")
    manifest = tmp_path / "steps.pp"
    manifest.write_text(resolved["wallaby", name]["Controller"]["step_config"])
    command = ["puppet", "parser", "validate", f"--confdir={tmp_path}", f"--vardir={tmp_path}", str(manifest)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# -- the agent -------------------------------------------------------------------------------------------------------


def nodes_of(name: str, role: str) -> list[overcloud.Node]:
    return [n for n in overcloud.NODES if n.role == role and n.role in DEPLOYMENTS[name][2]]


def issue(root: pathlib.Path, node: overcloud.Node) -> None:
    """Put a certificate where the templates say that it is."""
    authority = tls.Authority.create()
    pair = authority.issue(node.fqdn)
    for key, text in (("ca_file", authority.pem), ("certificate_file", pair.certificate), ("key_file", pair.key)):
        path = root / FILES[key].lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def urls(cases: list[dict[str, object]]) -> list[str]:
    """What puppet-openstacklib's os_transport_url gives."""
    ruby = shutil.which("ruby")
    if not ruby or not all(path.is_file() for path in puppet.FILES):
        helpers.skip("ruby or the puppet modules openstacklib and stdlib are not installed")
    command = [ruby, "-Ku", "-e", puppet.RUBY, *map(str, puppet.FILES)]
    done = subprocess.run(command, input=json.dumps(cases).encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return typing.cast("list[str]", json.loads(done.stdout))


CONTROLLERS = [n.fqdn for n in overcloud.NODES if n.role == "Controller"]
BROKERS = [n.fqdn for n in overcloud.NODES if n.role == "NotificationBroker"]
# By deployment: hosts of RPC, None for the node itself, and of notifications.
EXPECTED_HOSTS: dict[str, tuple[list[str] | None, list[str]]] = {
    "dual": (None, CONTROLLERS),
    "dual, clients of the mesh": (CONTROLLERS, CONTROLLERS),
    "dual with TLS": (None, CONTROLLERS),
    "dual, skrouterd": (None, CONTROLLERS),
    "shared": (CONTROLLERS, CONTROLLERS),
    "shared with TLS": (CONTROLLERS, CONTROLLERS),
    "separate": (CONTROLLERS, BROKERS),
    "notify external": (None, typing.cast("list[str]", HOSTS["NotifyHosts"])),
    "rpc external": (typing.cast("list[str]", HOSTS["RpcHosts"]), CONTROLLERS),
    "both external": (typing.cast("list[str]", HOSTS["RpcHosts"]), typing.cast("list[str]", HOSTS["NotifyHosts"])),
}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_nodes_get_the_same_from_either_release(resolved: Resolved, name: str) -> None:
    """Then the tests below need only one release."""
    queens, wallaby = ({r: dict(d) for r, d in resolved[release, name].items()} for release in RELEASES)
    for outputs in wallaby.values():
        assert isinstance(outputs.pop("firewall_rules"), dict)
    assert queens == wallaby


@pytest.mark.parametrize("role", ["Controller", "Compute"])
@pytest.mark.parametrize("name", EXPECTED_HOSTS)
def test_the_agents_urls_are_puppets(resolved: Resolved, tmp_path: pathlib.Path, name: str, role: str) -> None:
    """Run the real command line on one node's hieradata, and check the URLs in nova.conf."""
    node = nodes_of(name, role)[-1]
    host = helpers.machine(tmp_path)
    files = overcloud.hieradata(resolved["queens", name], node)
    overcloud.write(host.root, files)
    issue(host.root, node)
    # A node that carries nothing is not in hieradata, and known by its host name alone.
    listed = node.fqdn in json.dumps(files["all_nodes"])
    done = host.run("apply", *(["--node", node.fqdn] if listed else []))
    assert done.returncode == 0, done.stderr
    found = settings(resolved, "queens", name)
    rpc_hosts, notify_hosts = EXPECTED_HOSTS[name]
    wanted = urls(
        [
            {
                "transport": found[f"oslo_messaging_{h}_scheme"],
                "hosts": hosts,
                "port": found[f"oslo_messaging_{h}_port"],
                "username": found[f"oslo_messaging_{h}_user_name"],
                "password": found[f"oslo_messaging_{h}_password"],
                "ssl": "1" if found[f"oslo_messaging_{h}_use_ssl"] else "0",
            }
            for h, hosts in (("rpc", rpc_hosts or [node.fqdn]), ("notify", notify_hosts))
        ]
    )
    keys = ini.read((host.root / "etc/nova/nova.conf").read_text())
    written = [keys["DEFAULT", "transport_url"], keys["oslo_messaging_notifications", "transport_url"]]
    assert [[v.text for v in values] for values in written] == [[url] for url in wanted]


def test_interiors_edges_and_sites(resolved: Resolved, tmp_path: pathlib.Path) -> None:
    for name, links in (("dual", 0), ("dual, sites", 1)):
        for node in nodes_of(name, "Controller") + nodes_of(name, "Compute"):
            host = helpers.machine(tmp_path / name.replace(", ", "-") / node.name)
            overcloud.write(host.root, overcloud.hieradata(resolved["queens", name], node))
            done = host.run("apply", "--node", node.fqdn)
            assert done.returncode == 0, done.stderr
            config = json.loads((host.root / "etc/qpid-dispatch/qdrouterd.json").read_text())
            mode = next(entity for kind, entity in config if kind == "router")["mode"]
            assert mode == ("interior" if node.role == "Controller" else "edge")
            connectors = [e for kind, e in config if kind == "connector"]
            if node.role == "Compute":
                assert {c["role"] for c in connectors} == {"edge"}
                if links:  # both uplinks are of its own site, or another's where its own has one interior alone
                    assert len(connectors) == 2


# -- what Heat refuses -----------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, dict[str, object], str]] = {
    "no RPC password": (DUAL, {"RpcPassword": None}, "RpcPassword"),
    "no password for notifications": (DUAL, {"NotifyPassword": None}, "NotifyPassword"),
    "no secret of the mesh": (DUAL, {"RpcMeshPassword": None}, "RpcMeshPassword"),
    "a short secret of the mesh": (DUAL, {"RpcMeshPassword": "short"}, "RpcMeshPassword"),
    "an empty password": (DUAL, {"RpcPassword": ""}, "RpcPassword"),
    "a password that hiera would change": (DUAL, {"RpcPassword": "a%{b}"}, "RpcPassword"),
    "a password with a line end": (DUAL, {"RpcPassword": "a\n"}, "RpcPassword"),
    "a broker's password with a slash": (SHARED, {"RpcPassword": "a/b"}, "RpcPassword"),
    "a port of 0": (DUAL, {"RpcPort": 0}, "RpcPort"),
    "a port beyond the last": (DUAL, {"NotifyPort": 65536}, "NotifyPort"),
    "a port in words": (DUAL, {"RpcPort": "many"}, "RpcPort"),
    "an inter-router port beyond the last": (DUAL, {"RpcInterRouterPort": 70000}, "RpcInterRouterPort"),
    "neither true nor false": (DUAL, {"RpcUseSSL": "maybe"}, "RpcUseSSL"),
    "an unknown engine": (DUAL, {"RpcRouterEngine": "artemis"}, "RpcRouterEngine"),
    "an unknown choice of clients": (DUAL, {"RpcRouterClients": "all"}, "RpcRouterClients"),
    "too many threads": (DUAL, {"RpcRouterWorkerThreads": 65}, "RpcRouterWorkerThreads"),
    "a reserved user": (DUAL, {"RpcUserName": "router-admin"}, "RpcUserName"),
    "a user who is everybody": (DUAL, {"RpcUserName": "*"}, "RpcUserName"),
    "a user with a realm": (DUAL, {"RpcUserName": "a@b"}, "RpcUserName"),
    "a cookie with a blank": (SHARED, {"RabbitCookie": "cookie secret"}, "RabbitCookie"),
    "a short cookie": (SHARED, {"RabbitCookie": "cookie"}, "RabbitCookie"),
    "a path that is not absolute": (DUAL, {"MessagingKeyFile": "key.pem"}, "MessagingKeyFile"),
    "sites that are no mapping": (DUAL, {"MessagingNodeSites": "dc1"}, "must be valid JSON"),
    "no external host": ("rpc-qdrouterd-notify-external.yaml", {"NotifyHosts": []}, "NotifyHosts"),
    "external hosts not named": ("rpc-qdrouterd-notify-external.yaml", {}, "NotifyHosts"),
    "an unknown scheme": (
        "rpc-external-notify-rabbitmq.yaml",
        {"RpcHosts": ["a"], "RpcScheme": "zmq"},
        "RpcScheme",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def refusals() -> dict[str, engine.Result]:
    cases = {
        name: overcloud.cases("wallaby", environment, parameters=parameters)["Controller"]
        for name, (environment, parameters, _) in REFUSED.items()
    }
    return engine.resolve_all(cases)


@pytest.mark.parametrize("name", REFUSED)
def test_heat_refuses(refusals: dict[str, engine.Result], name: str) -> None:
    said = refusals[name].get("error", "")
    assert REFUSED[name][2] in said, refusals[name]


def test_heat_does_not_say_what_it_accepted(refusals: dict[str, engine.Result]) -> None:
    """Heat quotes only values that it refuses, even hidden ones; doc/deployment.rst warns about that."""
    said = "".join(r.get("error", "") for r in refusals.values())
    for secret in overcloud.PASSWORDS.values():
        assert secret not in said
