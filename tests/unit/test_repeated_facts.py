"""Facts that stand in more than one file are the same in all of them: names, words, ports, defaults, lists.

Heat templates, puppet manifests, elements and the development router cannot import the agent. Each test here compares
what one of them repeats with the agent's own record of it. `test_elements` does so for units, users and paths.
"""

from __future__ import annotations

import configparser
import pathlib
import re
import typing

import om_agent.engines
import om_devrouter
import pytest
import yaml
from om_agent import errors, model, parse
from om_agent.plan import policy, services
from om_devrouter import schema

from testbed import routers
from tests.support import helpers

HEAT = helpers.ROOT / "heat"
TEMPLATES = sorted([*HEAT.glob("deployment/oslo-messaging/*.yaml"), *HEAT.glob("examples/*.yaml")])
HALVES = ("rpc-half", "notify-half")
DUAL = helpers.dual()
DEPLOYMENT = parse.deployment(DUAL)


def load(path: pathlib.Path) -> dict[str, typing.Any]:
    return typing.cast("dict[str, typing.Any]", yaml.safe_load(path.read_text()))


def parameters(name: str) -> list[dict[str, typing.Any]]:
    """The declarations of a parameter in all templates that have it."""
    found = [load(path).get("parameters", {}) for path in TEMPLATES]
    declared = [template[name] for template in found if name in template]
    assert declared, f"no template has the parameter {name}"
    return declared


def constraints(name: str, kind: str) -> list[typing.Any]:
    """The constraints of one kind on a parameter, one for each template that has it."""
    found = [constraint[kind] for p in parameters(name) for constraint in p["constraints"] if kind in constraint]
    assert len(found) == len(parameters(name))
    return found


def section(config: str, name: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(helpers.ROOT / config)
    return parser[name]


# -- versions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "version"), [("setup.cfg", om_agent.__version__), ("devrouter/setup.cfg", om_devrouter.__version__)]
)
def test_a_package_says_the_version_of_its_distribution(config: str, version: str) -> None:
    assert section(config, "metadata")["version"] == version


def test_images_are_built_with_the_diskimage_builder_of_the_tests() -> None:
    (pinned,) = re.findall(r"^DIB=(\S+)$", (helpers.ROOT / "tools/image").read_text(), re.MULTILINE)
    assert pinned in section("setup.cfg", "options.extras_require")["test"].splitlines()


# -- router engines --------------------------------------------------------------------------------------------------

MESHING = {engine.value for engine in model.Engine if engine.record.meshes}
ALL_ENGINES = {engine.value for engine in model.Engine}


def test_every_engine_has_a_record() -> None:
    assert om_agent.engines.RECORDS.keys() == ALL_ENGINES


def test_the_development_router_is_what_its_record_says() -> None:
    record = model.Engine.EMBEDDED.record
    assert record.product == om_devrouter.PRODUCT
    assert record.prefix == schema.TYPE_PREFIX
    commands = section("devrouter/setup.cfg", "options.entry_points")["console_scripts"].split("=")
    assert commands[0].strip() == record.program
    assert section("devrouter/setup.cfg", "metadata")["name"] == record.program


def test_tripleos_templates_offer_the_engines_that_can_mesh() -> None:
    for values in constraints("RpcRouterEngine", "allowed_values"):
        assert set(values) == MESHING


def test_the_examples_offer_every_engine() -> None:
    for values in constraints("router_engine", "allowed_values"):
        assert set(values) == ALL_ENGINES


def test_the_element_takes_every_engine() -> None:
    element = helpers.ROOT / "elements/qpid-dispatch-router"
    (cases,) = re.findall(
        r"^    (\w+(?: \| \w+)*)\) ;;$", (element / "extra-data.d/60-qpid-dispatch-router").read_text(), re.M
    )
    assert set(cases.split(" | ")) == ALL_ENGINES
    readme = (element / "README.rst").read_text().partition("DIB_DISPATCH_ROUTER_ENGINE\n")[2].partition("\n\n")[0]
    assert {engine for engine in ALL_ENGINES if f"``{engine}``" in readme} == ALL_ENGINES


def test_the_testbed_looks_for_the_engines_that_are_programs_of_others() -> None:
    assert {engine.value for engine in routers.VARIABLES} == MESHING


# -- schemes, clients, logins ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MessagingHalfScheme", "RpcScheme", "NotifyScheme", "rpc_scheme"])
def test_templates_offer_every_scheme(name: str) -> None:
    for values in constraints(name, "allowed_values"):
        assert set(values) == {scheme.value for scheme in model.Scheme}


@pytest.mark.parametrize("name", ["MessagingHalfClients", "RpcRouterClients"])
def test_templates_offer_every_choice_of_clients(name: str) -> None:
    for values in constraints(name, "allowed_values"):
        assert set(values) == {clients.value for clients in model.Clients}


def test_templates_of_routers_reserve_the_agents_own_user() -> None:
    for name in ("rpc-qdrouterd", "rpc-edge"):
        template = load(HEAT / f"deployment/oslo-messaging/{name}-baremetal-puppet.yaml")
        given = template["parameters"]["RpcUserName"]["constraints"]
        (pattern,) = [constraint["allowed_pattern"] for constraint in given if "allowed_pattern" in constraint]
        assert not re.fullmatch(pattern, model.ADMIN_USER)
        assert re.fullmatch(pattern, model.ADMIN_USER + "s")


def test_a_routers_user_has_the_agents_realm() -> None:
    (realm,) = re.findall(
        r"list_join: \['@', \[\{get_param: MessagingHalfUserName\}, (\w+)\]\]",
        (HEAT / "deployment/oslo-messaging/rpc-half.yaml").read_text(),
    )
    assert realm == policy.REALM


# -- ports and defaults ----------------------------------------------------------------------------------------------

DEFAULTS: dict[str, object] = {
    "NotifyPort": model.RABBIT_PORT,
    "RpcPort": model.RABBIT_PORT,
    "RpcInterRouterPort": DEPLOYMENT.router.inter_router_port,
    "RpcEdgePort": DEPLOYMENT.router.edge_port,
    "RpcRouterHttpPort": DEPLOYMENT.router.http_port,
    "RpcRouterWorkerThreads": DEPLOYMENT.router.worker_threads,
    "RpcRouterRequireRedundancy": DEPLOYMENT.router.require_redundancy,
    "RpcRouterEngine": DEPLOYMENT.router.engine.value,
    "RpcRouterClients": DEPLOYMENT.router.clients.value,
    "router_engine": DEPLOYMENT.router.engine.value,
    "rpc_port": model.AMQP_PORT,
    "rpc_scheme": model.Scheme.AMQP.value,
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_of_templates_are_the_agents(name: str) -> None:
    for parameter in parameters(name):
        assert parameter["default"] == DEFAULTS[name]


LIMITS = {
    "RpcInterRouterPort": "router.inter_router_port",
    "RpcEdgePort": "router.edge_port",
    "RpcRouterHttpPort": "router.http_port",
    "RpcRouterWorkerThreads": "router.worker_threads",
    "RpcPort": "rpc.port",
    "NotifyPort": "notify.port",
    "rpc_port": "rpc.port",
}


def refused(key: str, value: object) -> bool:
    """Whether the agent refuses the value of a key of the metadata for itself."""
    try:
        parse.deployment(helpers.put(DUAL, key, value))
    except errors.InvalidInput as e:
        return key in {problem.path for problem in e.problems}
    return False


@pytest.mark.parametrize("name", LIMITS)
def test_ranges_of_templates_are_the_agents(name: str) -> None:
    for limits in constraints(name, "range"):
        assert not refused(LIMITS[name], limits["min"])
        assert not refused(LIMITS[name], limits["max"])
        assert refused(LIMITS[name], limits["min"] - 1)
        assert refused(LIMITS[name], limits["max"] + 1)


LENGTHS = {
    "RpcMeshPassword": "router.mesh_password",
    "mesh_password": "router.mesh_password",
    "RpcPassword": "rpc.password",
    "NotifyPassword": "notify.password",
    "rpc_password": "rpc.password",
    "notify_password": "notify.password",
    "NotifyUserName": "notify.username",
}


@pytest.mark.parametrize("name", LENGTHS)
def test_lengths_in_templates_are_the_agents(name: str) -> None:
    """The agent takes an empty text as none. For the mesh's secret the templates want 8 characters, the agent 1."""
    for limits in constraints(name, "length"):
        assert not refused(LENGTHS[name], "x" * limits["min"])
        assert not refused(LENGTHS[name], "x" * limits["max"])
        assert refused(LENGTHS[name], "x" * (limits["max"] + 1))


ENVIRONMENT_PORTS = {
    "rpc-qdrouterd": ("RpcPort", model.AMQP_PORT),
    "rpc-rabbitmq": ("RpcPort", model.RABBIT_PORT),
    "notify-rabbitmq": ("NotifyPort", model.RABBIT_PORT),
}


@pytest.mark.parametrize("part", ENVIRONMENT_PORTS)
def test_environments_have_the_agents_ports(part: str) -> None:
    parameter, port = ENVIRONMENT_PORTS[part]
    found = [
        load(path)["parameter_defaults"] for path in HEAT.glob("environments/messaging/*.yaml") if part in path.name
    ]
    assert found
    # The shared environment names one port for both.
    assert {given.get(parameter, given["RpcPort"]) for given in found} == {port}


def test_the_example_has_the_brokers_port_for_notifications() -> None:
    text = (HEAT / "examples/messaging-config.yaml").read_text()
    (port,) = re.findall(r"port: \{if: \[rabbit, \{get_param: rpc_port\}, (\d+)\]\}", text)
    assert int(port) == DEPLOYMENT.notify.port == model.RABBIT_PORT


@pytest.mark.parametrize("half", ["rpc", "notify"])
def test_firewalls_open_what_a_broker_needs(half: str) -> None:
    template = load(HEAT / f"deployment/oslo-messaging/{half}-rabbitmq-baremetal-puppet.yaml")
    (rules,) = template["outputs"]["role_data"]["value"]["firewall_rules"].values()
    numbers = [port for port in rules["dport"] if isinstance(port, int)]
    assert numbers == [model.EPMD_PORT, DEPLOYMENT.broker.dist_port]


def test_alerts_name_the_default_ports() -> None:
    text = (helpers.ROOT / "doc/prometheus-alerts.yaml").read_text()
    assert f"http://NODE:{DEPLOYMENT.router.http_port}/metrics (router.http_port)" in text
    assert f"http://NODE:{DEPLOYMENT.broker.metrics_port}/metrics (broker.metrics_port)" in text


def settings(value: object) -> typing.Iterator[tuple[str, object]]:
    """Every key and value of nested mappings and lists."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key), item
            yield from settings(item)
    elif isinstance(value, list):
        for item in value:
            yield from settings(item)


def planned(option: str) -> set[str]:
    """What the agent writes for an option into the services' files, where it writes it."""
    files = helpers.plan_for(DUAL, "ctl-0").config_files
    values = [setting.value for file in files for setting in file.settings if setting.key == option]
    return {value.reveal() for value in values if value}


TUNING = {
    "amqp_idle_timeout": "idle_timeout",
    "amqp_pre_settled": "pre_settled",
    "amqp_sasl_mechanisms": "sasl_mechanisms",
    "rabbit_heartbeat_timeout_threshold": "heartbeat_timeout_threshold",
}


@pytest.mark.parametrize("parameter", TUNING)
def test_puppets_classes_are_told_what_the_agent_writes(parameter: str) -> None:
    halves = [load(HEAT / f"deployment/oslo-messaging/{half}.yaml") for half in HALVES]
    told = {str(value) for half in halves for key, value in settings(half) if key.endswith(f"::{parameter}")}
    assert told == planned(TUNING[parameter])


# -- services --------------------------------------------------------------------------------------------------------

# Of the catalogue, what puppet-tripleo has no parameters of messaging for (tests/heat/puppet-parameters.yaml): their
# own puppet classes leave the agent's settings alone, or the overcloud has no such service.
WITHOUT_PARAMETERS = {
    "blazar", "cloudkitty", "cyborg", "ec2api", "ironic-inspector", "magnum", "masakari", "murano", "panko", "senlin",
    "trove", "vitrage", "watcher", "zaqar",
}  # fmt: skip
# Has parameters of messaging in puppet-tripleo, and is in no catalogue: only what puppet writes configures it.
OF_PUPPET_ALONE = {"novajoin"}
# Swift's proxy has parameters with names of their own in notify-half.yaml.
WITH_OTHER_PARAMETERS = {"swift"}
# Run on controllers alone, which have a router of their own already.
ON_CONTROLLERS_ALONE = {"congress", "tacker"}


def of_puppet() -> set[str]:
    known = set(helpers.catalogue())
    assert known >= WITHOUT_PARAMETERS
    return known - WITHOUT_PARAMETERS | OF_PUPPET_ALONE


def test_the_manifest_knows_the_catalogues_services() -> None:
    text = (HEAT / "deployment/oslo-messaging/apply.pp").read_text()
    listed = re.findall(r"'([a-z]+)'", text.partition("    [\n")[2].partition("]")[0])
    assert listed == sorted(of_puppet())


def class_lists(half: str) -> list[set[str]]:
    """The lists of classes that a template repeats something for."""
    template = load(HEAT / f"deployment/oslo-messaging/{half}.yaml")
    repeated = [value["for_each"] for key, value in settings(template) if key == "repeat" and isinstance(value, dict)]
    return [set(one["CLASS"]) for one in repeated if "CLASS" in one]


@pytest.mark.parametrize("half", HALVES)
def test_hieradata_is_for_the_catalogues_services(half: str) -> None:
    """Each list of puppet-tripleo's profiles has all services; those of the services' own classes have some."""
    lists = class_lists(half)
    everything = max(lists, key=len)
    assert {name.partition("::")[0] for name in everything} == of_puppet() - WITH_OTHER_PARAMETERS
    for one in lists:
        assert {name.partition("::")[0] for name in one} <= of_puppet()
        assert len(one) < 15 or one == everything


def test_both_halves_repeat_the_same_lists() -> None:
    (amqp,) = [one for one in class_lists("rpc-half") if "keystone::messaging::amqp" in one and "nova" in one][:1]
    assert amqp not in class_lists("notify-half")  # notifications go over RabbitMQ
    assert all(one in class_lists("rpc-half") for one in class_lists("notify-half"))


def test_roles_with_a_service_of_the_catalogue_get_a_router() -> None:
    (edge,) = [
        entry
        for entry in yaml.safe_load((HEAT / "tools/oslo-messaging-services.yaml").read_text())
        if "OS::TripleO::Services::OsloMessagingRpcEdge" in entry["add"]
    ]
    named = [name.rpartition("::")[2].lower() for name in edge["with"]]
    missing = {service for service in of_puppet() if not any(service in name for name in named)}
    assert missing == ON_CONTROLLERS_ALONE | OF_PUPPET_ALONE


def test_the_catalogue_is_the_agents() -> None:
    """`plan.services` reads each entry, so the lists above are of services that the agent configures."""
    assert all(isinstance(service, services.Service) for service in helpers.catalogue().values())
