"""Transport URLs, the example stacks, roles and environments, and proof that these checks can fail."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import pathlib
import re
import typing

import pytest
import yaml
from om_agent import parse

from tests.heat import engine, overcloud, test_tripleo
from tests.support import helpers

URLS = engine.HEAT / "deployment/oslo-messaging/transport-urls.yaml"
EXAMPLES = engine.HEAT / "examples"
SECRETS = {
    "rpc_password": "rpc-secret",
    "notify_password": "notify-secret",
    "mesh_password": "mesh-secret",
    "broker_cookie": "cookie-secret",
}
NASTY = "p:/?#[]@!$&'()*+,;=%~_-. \"\\ é<host>{}%(x)s%{y}"
TEMPLATES = sorted(engine.HEAT.rglob("*.yaml"))
SERVICES = sorted(engine.HEAT.glob("deployment/oslo-messaging/*-baremetal-puppet.yaml"))


def body(path: pathlib.Path) -> dict[str, typing.Any]:
    return typing.cast("dict[str, typing.Any]", yaml.safe_load(path.read_text()))


# -- transport URLs --------------------------------------------------------------------------------------------------

URL_CASES: dict[str, dict[str, object]] = {
    "one host": {"hosts": ["10.0.0.1"]},
    "names": {"hosts": ["ctl-0.example.com", "ctl-1.example.com"], "transport": "amqp", "port": 31459},
    "IPv6": {"hosts": ["fd00::1", "::1"], "ssl": "1"},
    "TLS": {"hosts": ["ctl-0.example.com"], "transport": "amqp", "ssl": "1"},
    "nasty": {"hosts": ["a", "b", "c"], "username": NASTY, "password": NASTY},
    "a password like a host": {"hosts": ["a", "b"], "username": "a", "password": "b"},
    "blanks": {"hosts": ["a"], "username": " ", "password": "a b"},
}


@pytest.fixture(scope="module")
def heat_urls() -> dict[str, engine.Result]:
    cases = {}
    for name, values in URL_CASES.items():
        given = {"transport": "rabbit", "port": 5672, "username": "guest", "password": "x", "ssl": "0", **values}
        values.update(given)
        half = {
            "Scheme": given["transport"],
            "Hosts": given["hosts"],
            "Port": given["port"],
            "UserName": given["username"],
            "Password": given["password"],
            "UseSSL": given["ssl"] == "1",
        }
        other = {"NotifyHosts": ["other"], "NotifyPassword": "y", "NotifyUseSSL": given["ssl"] == "0"}
        cases[name] = {"template": URLS, "parameters": {**{f"Rpc{k}": v for k, v in half.items()}, **other}}
    return engine.resolve_all(cases)


@pytest.mark.parametrize("name", URL_CASES)
def test_heats_urls_are_puppets(heat_urls: dict[str, engine.Result], name: str) -> None:
    outputs = heat_urls[name]["outputs"]
    assert outputs["rpc_transport_url"] == test_tripleo.urls([URL_CASES[name]])[0]
    other = {"transport": "rabbit", "hosts": ["other"], "port": 5672, "username": "guest", "password": "y"}
    ssl = "0" if URL_CASES[name]["ssl"] == "1" else "1"
    assert outputs["notify_transport_url"] == test_tripleo.urls([{**other, "ssl": ssl}])[0]


# -- the example stacks ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def examples() -> dict[str, engine.Result]:
    nodes = body(EXAMPLES / "deployed-servers-environment.yaml")["parameters"]["nodes"]
    config: engine.Case = {"template": EXAMPLES / "messaging-config.yaml"}
    given = {**SECRETS, "nodes": nodes}
    rabbit = {"rpc_scheme": "rabbit", "rpc_port": 5672}
    server = {"template": EXAMPLES / "overcloud.yaml", "parameters": {**SECRETS, "image": "overcloud"}}
    deployed = EXAMPLES / "deployed-servers.yaml", [EXAMPLES / "deployed-servers-environment.yaml"]
    cases = {
        "dual": {**config, "parameters": given},
        "rabbit": {**config, "parameters": {**given, **rabbit}},
        "tls": {**config, "parameters": {**given, "tls": True}},
        "servers": server,
        "no computes": {**server, "parameters": {**server["parameters"], "compute_count": 0}},  # type: ignore[dict-item]
        "deployed": {"template": deployed[0], "environments": deployed[1], "parameters": SECRETS},
        **{f"no {name}": {**config, "parameters": {**given, name: ""}} for name in SECRETS},
        "cookie": {**config, "parameters": {**given, "broker_cookie": "a b c d e f"}},
        "too many": {**server, "parameters": {**server["parameters"], "controller_count": 129}},  # type: ignore[dict-item]
        "unknown": {**config, "parameters": {**given, "rcp_port": 1}},
    }
    return engine.resolve_all(cases)


def metadata_of(result: engine.Result) -> dict[str, typing.Any]:
    assert "error" not in result, result["error"]
    config = result["resources"]["config"]
    assert config["type"] == "OS::Heat::StructuredConfig" and config["properties"]["group"] == "om-messaging"
    return typing.cast("dict[str, typing.Any]", config["properties"]["config"])


@pytest.mark.parametrize(
    ("name", "rpc", "notify", "findings"),
    [
        ("dual", ("amqp", 31459), ("rabbit", 5672), {"plaintext", "fanout-duplicates"}),
        ("rabbit", ("rabbit", 5672), ("rabbit", 5672), {"plaintext"}),
    ],
)
def test_the_examples_metadata_is_the_agents(
    examples: dict[str, engine.Result],
    tmp_path: pathlib.Path,
    name: str,
    rpc: tuple[str, int],
    notify: tuple[str, int],
    findings: set[str],
) -> None:
    metadata = metadata_of(examples[name])
    d = parse.deployment(metadata["oslo_messaging"])
    assert (d.rpc.scheme.value, d.rpc.port, d.notify.scheme.value, d.notify.port) == (*rpc, *notify)
    assert (d.rpc.password.reveal(), d.notify.password.reveal()) == ("rpc-secret", "notify-secret")
    assert (d.router.mesh_password.reveal(), d.broker.erlang_cookie.reveal()) == ("mesh-secret", "cookie-secret")
    assert [n.role for n in d.nodes] == ["controller"] * 3 + ["compute"] * 2
    host = helpers.machine(tmp_path)
    path = host.base / "heat.json"
    path.write_text(json.dumps(metadata))
    validated = host.run("validate", str(path), "--json")
    assert validated.returncode == 0
    assert {problem["code"] for problem in json.loads(validated.stdout)["problems"]} == findings
    for node in ("overcloud-controller-0", "overcloud-novacompute-1"):
        planned = host.run("plan", str(path), "--node", node)
        assert planned.returncode == 0 and "nova.conf" in planned.stdout, planned.stderr


def test_the_examples_tls(examples: dict[str, engine.Result]) -> None:
    raw = metadata_of(examples["tls"])["oslo_messaging"]
    assert raw["rpc"]["tls"] is True and raw["notify"]["tls"] is True
    assert raw["tls"]["certificate_file"] == "/etc/pki/tls/certs/messaging.crt"
    assert parse.deployment(raw).rpc.hosts[0] == "overcloud-controller-0"  # names, which certificates have
    assert "tls" not in metadata_of(examples["dual"])["oslo_messaging"]


def test_servers_of_nova(examples: dict[str, engine.Result]) -> None:
    resources = examples["servers"]["resources"]
    assert [n["name"] for n in resources["messaging"]["properties"]["nodes"]] == [
        *(f"overcloud-controller-{i}" for i in range(3)),
        "overcloud-novacompute-0",
    ]
    assert resources["messaging"]["properties"]["nodes"][3] == {
        "name": "overcloud-novacompute-0",
        "address": "<0.first_address>",
        "role": "compute",
    }
    for name, count in (("controllers", 3), ("computes", 1)):
        deployment = resources[f"{name}_messaging"]
        assert deployment["type"] == "OS::Heat::StructuredDeploymentGroup"
        assert deployment["properties"]["servers"] == {str(i): f"<{i}>" for i in range(count)}
        assert deployment["properties"]["config"] == "<config>"
    assert [n["role"] for n in examples["no computes"]["resources"]["messaging"]["properties"]["nodes"]] == [
        "controller"
    ] * 3
    for name, attribute in (("said", "deploy_stdouts"), ("generation", "generation"), ("mesh", "mesh")):
        assert examples["servers"]["outputs"][name] == {
            group: [f"<{i}.{attribute}>" for i in range(count)]
            for group, count in (("controllers", 3), ("computes", 1))
        }


def test_servers_that_are_there_already(examples: dict[str, engine.Result]) -> None:
    result = examples["deployed"]
    assert result["resources"]["servers_messaging"]["properties"]["servers"] == {str(i): "<server>" for i in range(5)}
    assert [s["name"] for s in result["outputs"]["os_collect_config"]][4] == "overcloud-novacompute-1"


@pytest.mark.parametrize(
    ("name", "said"),
    [*((f"no {n}", n) for n in SECRETS), ("cookie", "broker_cookie"), ("too many", "controller_count")],
)
def test_examples_refuse(examples: dict[str, engine.Result], name: str, said: str) -> None:
    assert said in examples[name].get("error", ""), examples[name]


def test_an_unknown_parameter_is_refused(examples: dict[str, engine.Result]) -> None:
    assert "rcp_port" in examples["unknown"].get("error", ""), examples["unknown"]


# -- that mistakes in templates are seen -----------------------------------------------------------------------------

MISTAKES = {
    "property": ("UseSSL: {get_param: RpcUseSSL}", "UseTLS: {get_param: RpcUseSSL}", "UseTLS"),
    "parameter": ("Port: {get_param: RpcPort}", "Port: {get_param: RcpPort}", "RcpPort"),
    "type": ("type: ./rpc-half.yaml", "type: ./rcp-half.yaml", "rcp-half"),
    "resource": ("{get_attr: [RpcHalf, global", "{get_attr: [RcpHalf, global", "RcpHalf"),
    "output": ("[RpcHalf, global_config_settings]", "[RpcHalf, global_settings]", "global_settings"),
    "condition": ("if: [skrouterd,", "if: [skruoterd,", "skruoterd"),
    "wrong default": ("default: 31460", "default: 131460", "RpcInterRouterPort"),
}


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, engine.Result]:
    cases = {}
    for name, (old, new, _) in {
        **MISTAKES,
        "none": ("", "", ""),
        "function": ("engine: {get_param", "engine: {get_parm", ""),
    }.items():
        base = tmp_path_factory.mktemp("templates")
        for path in (engine.HEAT / "deployment/oslo-messaging").iterdir():
            (base / path.name).write_text(path.read_text())
        router = base / "rpc-qdrouterd-baremetal-puppet.yaml"
        text = router.read_text()
        assert old in text
        router.write_text(text.replace(old, new) if old else text)
        given = {**overcloud.PASSWORDS, "ServiceNetMap": overcloud.NET_MAP}
        given = {k: given[k] for k in ("RpcPassword", "RpcMeshPassword", "ServiceNetMap")}
        cases[name] = {"template": router, "parameters": given}
    return engine.resolve_all(cases)


@pytest.mark.parametrize("name", MISTAKES)
def test_heat_sees_a_mistake(mistakes: dict[str, engine.Result], name: str) -> None:
    assert MISTAKES[name][2] in mistakes[name].get("error", ""), mistakes[name]


def test_a_misspelt_function_shows_in_the_resolved_value(mistakes: dict[str, engine.Result]) -> None:
    """Heat takes it for a mapping; that is why values are compared here, and templates searched."""
    assert "error" not in mistakes["none"]
    good, bad = (mistakes[n]["outputs"]["role_data"]["global_config_settings"] for n in ("none", "function"))
    assert good["oslo_messaging_router"]["engine"] == "qdrouterd"
    assert bad["oslo_messaging_router"]["engine"] == {"get_parm": "RpcRouterEngine"}


FUNCTIONS = {
    "filter", "get_attr", "get_file", "get_param", "get_resource", "if", "list_join", "make_url", "map_merge",
    "repeat", "str_replace", "yaql", "equals", "not", "or", "and",
}  # fmt: skip


def odd_functions(value: object) -> set[str]:
    """Return mappings of one key that looks like a function's name but is not one."""
    found: set[str] = set()
    if isinstance(value, dict):
        if len(value) == 1:
            found |= {k for k in value if re.fullmatch(r"(get|str|list|map|make)_[a-z]+|i[ft]|repaet|yalq", str(k))}
        for item in value.values():
            found |= odd_functions(item)
    for item in value if isinstance(value, list) else ():
        found |= odd_functions(item)
    return found - FUNCTIONS


# -- every file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.relative_to(engine.HEAT).as_posix())
def test_style(path: pathlib.Path) -> None:
    text = path.read_text()
    assert text.endswith("\n") and not text.endswith("\n\n")
    for line in text.splitlines():
        assert line == line.rstrip() and len(line) <= 120 and "\t" not in line, line
    content = yaml.safe_load(text)
    if not isinstance(content, dict):
        return
    assert odd_functions(content) == set()
    assert "heat_template_version" not in content or content["heat_template_version"] == "queens"  # of the older cloud
    for name, parameter in content.get("parameters", {}).items():
        if "heat_template_version" not in content:
            break
        assert re.match(r"[A-Z\[].*", parameter["description"]), name
        assert re.search(r"[.:]", parameter["description"]), name
        if re.search(r"password|cookie", name, re.IGNORECASE) and name != "DefaultPasswords":
            assert parameter["hidden"] is True, name
            assert not parameter.get("default"), name


@pytest.mark.parametrize("path", SERVICES, ids=lambda p: p.stem)
def test_services_take_what_both_chains_pass(path: pathlib.Path) -> None:
    content = body(path)
    assert {"ServiceData", "ServiceNetMap", "DefaultPasswords", "RoleName", "RoleParameters", "EndpointMap"} <= set(
        content["parameters"]
    )
    role_data = content["outputs"]["role_data"]["value"]
    assert re.fullmatch(r"oslo_messaging_(rpc|notify)(_client|_edge|_external)?", role_data["service_name"])


@pytest.mark.parametrize(
    "path", sorted((engine.HEAT / "environments").rglob("*.yaml")), ids=lambda p: p.stem
)  # fmt: skip
def test_environments_name_what_is_there(path: pathlib.Path) -> None:
    content = body(path)
    parameters = {name for service in SERVICES for name in body(service)["parameters"]}
    assert set(content) <= {"resource_registry", "parameter_defaults"}
    assert set(content.get("parameter_defaults", {})) <= parameters
    for target in content.get("resource_registry", {}).values():
        assert target == "OS::Heat::None" or (path.parent / target).resolve() in SERVICES, target
    assert not re.search(r"(?i)^\s+\w*(password|cookie):", path.read_text(), re.MULTILINE)


# -- roles -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tool() -> typing.Any:
    loader = importlib.machinery.SourceFileLoader("roles", str(engine.HEAT / "tools/oslo-messaging-roles"))
    spec = importlib.util.spec_from_loader("roles", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


ROLES = """\
# a comment
- name: Controller
  ServicesDefault:
    - OS::TripleO::Services::Keystone
    - OS::TripleO::Services::RabbitMQ

- name: LaterController
  ServicesDefault:
  - OS::TripleO::Services::OsloMessagingRpc
  - OS::TripleO::Services::NovaApi
- name: Compute  # another
  ServicesDefault:
    - OS::TripleO::Services::NovaCompute
- name: Storage
  ServicesDefault:
    - OS::TripleO::Services::CephOSD
- name: Empty
  ServicesDefault: []
"""


def test_roles_get_their_services(tool: typing.Any) -> None:
    rules = yaml.safe_load(tool.RULES.read_text())
    made = tool.add(ROLES, rules)
    prefix = "OS::TripleO::Services::OsloMessaging"
    before, after = yaml.safe_load(ROLES), yaml.safe_load(made)
    added = {b["name"]: a["ServicesDefault"][len(b["ServicesDefault"]) :] for b, a in zip(before, after)}
    assert added == {
        "Controller": [prefix + "Rpc", prefix + "Notify"],
        "LaterController": [],
        "Compute": [prefix + "RpcEdge"],
        "Storage": [],
        "Empty": [],
    }
    assert tool.add(made, rules) == made
    assert [line for line in made.splitlines() if "OsloMessaging" not in line] == [
        line for line in ROLES.splitlines() if "OsloMessaging" not in line
    ]


def test_roles_are_what_tripleo_takes_for_roles() -> None:
    """Its yaml-validate.py and ``openstack overcloud roles`` read every file there."""
    for path in sorted((engine.HEAT / "roles").iterdir()):
        for role in yaml.safe_load(path.read_text()):
            assert {"name", "ServicesDefault"} <= set(role), path


# -- tripleo-quickstart ----------------------------------------------------------------------------------------------

QUICKSTART = engine.HEAT / "quickstart"


@pytest.mark.parametrize("choice", ["dual", "shared", "dual-tls"])
@pytest.mark.parametrize("release", ["queens", "wallaby"])
def test_the_feature_set_deploys_what_is_there(choice: str, release: str) -> None:
    jinja2 = pytest.importorskip("jinja2")
    features = body(QUICKSTART / "featureset-dual-messaging.yml")
    assert features["om_messaging"] == "dual"
    variables = {**features, "working_dir": "/home/stack", "om_templates": "T", "om_messaging": choice}
    arguments = jinja2.Template(features["extra_args"]).render(**variables, release=release).split()
    environments = [arguments[i + 1] for i, a in enumerate(arguments) if a == "-e"]
    assert environments[-1] == "/home/stack/messaging-passwords.yaml"
    for path in environments[:-1]:
        assert (engine.HEAT / path.replace("T/", "", 1)).is_file(), path
    assert arguments[:2] == ["-r", "/home/stack/messaging-roles-data.yaml"]


def test_quickstarts_passwords_are_the_templates_and_no_secret_is_in_the_files() -> None:
    script = (QUICKSTART / "overcloud-messaging-tht.sh.j2").read_text()
    for name in overcloud.PASSWORDS:
        assert name in script
    assert script.index("umask 077") < script.index("openssl rand")
    for path in QUICKSTART.iterdir():
        assert not re.search(r"(?i)(password|cookie|secret): *[\w'\"]", path.read_text()), path


def test_quickstarts_nodes_are_enough() -> None:
    nodes = body(QUICKSTART / "3ctlr_2comp_messaging.yml")
    counts = {role: details["scale"] for role, details in nodes["topology_map"].items()}
    assert counts == {"Controller": 3, "Compute": 2}
    assert nodes["node_count"] == sum(counts.values()) == len(nodes["overcloud_nodes"])
    ports = [n["virtualbmc_port"] for n in nodes["overcloud_nodes"]]
    assert len(set(ports)) == len(ports)
