"""RabbitMQ's files: settings, environment, resolver, users."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import typing

import hypothesis
import pytest
from hypothesis import strategies as st
from om_agent import ciphers, model, parse
from om_agent.plan import broker, layout

from tests.support import helpers

QUICK = hypothesis.settings(max_examples=100, deadline=None)
put = helpers.put


def build(raw: object, node: str = "ctl-0", machine: layout.Host | None = None) -> broker.BrokerPlan:
    d = parse.deployment(raw)
    built = broker.plan_broker(d, d.by_name()[node], machine or helpers.host())
    assert built
    return built


def file(raw: object, name: str, node: str = "ctl-0") -> str:
    """The content of one of the broker's files."""
    (found,) = [f for f in helpers.rendered(raw, node).files if f.path == f"{layout.RABBIT_DIR}/{name}"]
    assert found.content is not None
    return found.content.decode()


def conf(raw: object, node: str = "ctl-0") -> dict[str, str]:
    """rabbitmq.conf as its reader splits it (key = value, no key twice)."""
    lines = [line for line in file(raw, "rabbitmq.conf", node).splitlines() if not line.startswith("#")]
    settings = dict(line.split(" = ", 1) for line in lines)
    assert len(settings) == len(lines)
    return settings


def shell(raw: object, *names: str, node: str = "ctl-0") -> dict[str, str]:
    """What a shell makes of rabbitmq-env.conf."""
    script = file(raw, "rabbitmq-env.conf", node) + "".join(f"\nprintf '%s\\0' \"${name}\"" for name in names)
    result = subprocess.run(["/bin/sh", "-eu", "-c", script], capture_output=True, text=True, check=True)
    return dict(zip(names, result.stdout.split("\0")))


def definitions(raw: object, node: str = "ctl-0") -> dict[str, list[dict[str, typing.Any]]]:
    found = json.loads(file(raw, "definitions.json", node))
    assert isinstance(found, dict)
    return found


def matches(hashed: str, password: str) -> bool:
    """RabbitMQ's own check: rabbit_password:hash with the salt in front."""
    raw = base64.b64decode(hashed, validate=True)
    return len(raw) == 36 and raw[4:] == hashlib.sha256(raw[:4] + password.encode()).digest()


def test_only_where_a_broker_runs() -> None:
    d = parse.deployment(helpers.default())
    assert broker.plan_broker(d, d.by_name()["cmp-0"], helpers.host()) is None
    d = parse.deployment(put(helpers.default(), "rpc.hosts", ["elsewhere"]))
    assert broker.plan_broker(d, d.by_name()["ctl-0"], helpers.host()) is None


def test_settings_of_a_cluster() -> None:
    assert conf(helpers.default()) == {
        "listeners.tcp.1": "172.17.0.11:5672",
        "auth_mechanisms.1": "PLAIN",
        "auth_mechanisms.2": "AMQPLAIN",
        "loopback_users": "none",
        "load_definitions": "/etc/rabbitmq/definitions.json",
        "prometheus.tcp.ip": "172.17.0.11",
        "prometheus.tcp.port": "15692",
        "cluster_formation.peer_discovery_backend": "classic_config",
        "cluster_formation.classic_config.nodes.1": "rabbit@ctl-0",
        "cluster_formation.classic_config.nodes.2": "rabbit@ctl-1",
        "cluster_formation.classic_config.nodes.3": "rabbit@ctl-2",
        "cluster_partition_handling": "pause_minority",
    }


def test_a_single_broker_has_no_cluster() -> None:
    assert not [key for key in conf(helpers.default(1)) if key.startswith("cluster")]
    assert build(helpers.default(1)).definitions["policies"] == []


def test_two_brokers_have_no_majority() -> None:
    assert conf(helpers.default(2))["cluster_partition_handling"] == "ignore"


def test_every_member_names_the_same_cluster() -> None:
    shuffled = put(helpers.default(), "nodes", helpers.nodes()[::-1])
    clusters = [
        {k: v for k, v in conf(raw, node).items() if k.startswith("cluster")}
        for raw in (helpers.default(), shuffled)
        for node in ("ctl-0", "ctl-2")
    ]
    assert all(c == clusters[0] for c in clusters)


def test_ipv6() -> None:
    raw = put(helpers.default(1), "nodes.0.address", "fd00::11")
    assert conf(raw)["listeners.tcp.1"] == "fd00::11:5672"  # RabbitMQ 3.10.8 refuses brackets here
    environment = dict(build(raw).environment)
    assert "-proto_dist inet6_tcp" in environment["SERVER_ADDITIONAL_ERL_ARGS"]
    assert "{64768,0,0,0,0,0,0,17}" in environment["SERVER_ADDITIONAL_ERL_ARGS"]
    assert '{host, {64768,0,0,0,0,0,0,17}, ["ctl-0"]}.' in file(raw, "erl_inetrc")
    assert "{inet6, true}." in file(raw, "erl_inetrc")
    assert "inet6" not in file(helpers.default(1), "erl_inetrc")


def test_separate_clusters_have_their_own_members_port_and_user() -> None:
    raw = put(put(helpers.default(), "rpc.nodes", ["ctl-0"]), "notify", {"nodes": ["ctl-1", "ctl-2"], "username": "n"})
    raw = put(raw, "notify.port", 5699)
    assert "cluster_formation.classic_config.nodes.1" not in conf(raw)
    assert conf(raw, "ctl-1")["listeners.tcp.1"] == "172.17.0.12:5699"
    assert conf(raw, "ctl-1")["cluster_formation.classic_config.nodes.2"] == "rabbit@ctl-2"
    assert [u["name"] for u in definitions(raw)["users"]] == ["openstack"]
    assert [u["name"] for u in definitions(raw, "ctl-1")["users"]] == ["n"]


TLS_PATHS = {
    "cacertfile": "/etc/pki/tls/ca.pem",
    "certfile": "/etc/pki/tls/node.pem",
    "keyfile": "/etc/pki/tls/node.key",
}
OWN_PATHS = {
    "cacertfile": "/etc/rabbitmq/tls/ca.pem",
    "certfile": "/etc/rabbitmq/tls/certificate.pem",
    "keyfile": "/etc/rabbitmq/tls/key.pem",
}


@pytest.mark.parametrize(("form", "paths"), [("paths", TLS_PATHS), ("pem", OWN_PATHS)])
def test_tls_means_tls_only(form: str, paths: dict[str, str]) -> None:
    raw = helpers.with_tls(helpers.default(), form)
    settings = conf(raw)
    assert settings["listeners.tcp"] == "none" and settings["listeners.ssl.1"] == "172.17.0.11:5672"
    assert not [key for key in settings if key.startswith("listeners.tcp.")]
    assert {key: settings[f"ssl_options.{key}"] for key in paths} == paths
    assert {v for k, v in settings.items() if k.startswith("ssl_options.versions")} == {"tlsv1.3", "tlsv1.2"}
    required = [r.path for r in build(raw).requires]
    assert required == (list(paths.values()) if form == "paths" else [])


def test_tls_1_3_alone() -> None:
    raw = put(helpers.with_tls(helpers.default()), "tls.min_version", "1.3")
    settings = conf(raw)
    assert {k: v for k, v in settings.items() if k.startswith("ssl_options.versions")} == {
        "ssl_options.versions.1": "tlsv1.3"
    }
    assert "ssl_options.client_renegotiation" not in settings  # which 1.3 has not, and refuses to hear of
    assert "secure_renegotiate" not in file(raw, "distribution-tls.config")


def test_ciphers_keep_tls_1_3() -> None:
    raw = put(helpers.with_tls(helpers.default()), "tls.ciphers", list(ciphers.NAMES[:2]))
    settings = conf(raw)
    assert settings["ssl_options.honor_cipher_order"] == "true"
    names = [v for k, v in settings.items() if k.startswith("ssl_options.ciphers.")]
    assert names == [*ciphers.TLS_1_3, *ciphers.NAMES[:2]]
    assert all(f'"{name}"' in file(raw, "distribution-tls.config") for name in names)


def test_brokers_of_a_cluster_speak_tls_when_clients_do() -> None:
    raw = helpers.with_tls(helpers.default())
    wanted = "-proto_dist inet_tls -ssl_dist_optfile /etc/rabbitmq/distribution-tls.config"
    for name in ("SERVER_ADDITIONAL_ERL_ARGS", "CTL_ERL_ARGS"):
        assert wanted in dict(build(raw).environment)[name]
        for plain in (
            helpers.default(),
            helpers.with_tls(helpers.default(1)),
            put(raw, "broker.distribution_tls", False),
        ):
            assert "proto_dist" not in dict(build(plain).environment).get(name, "")
    assert build(helpers.default()).distribution is None
    six = put(helpers.with_tls(helpers.default(1)), "nodes.0.address", "fd00::11")
    assert "-proto_dist inet6_tls" in dict(build(put(six, "broker.distribution_tls", True)).environment)["CTL_ERL_ARGS"]


def test_distribution_without_tls_for_clients() -> None:
    raw = put(
        put(helpers.default(), "tls", helpers.with_tls(helpers.default(), "pem")["tls"]),
        "broker.distribution_tls",
        True,
    )
    assert "listeners.tcp.1" in conf(raw) and "ssl_options.certfile" not in conf(raw)
    paths = [f.path for f in helpers.rendered(raw, "ctl-0").files]
    assert "/etc/rabbitmq/tls/key.pem" in paths and layout.RABBIT_DISTRIBUTION in paths


def test_an_odd_directory_stays_inside_its_quotes() -> None:
    plan = build(helpers.with_tls(helpers.default(), "pem"), machine=helpers.host(prefix='/a"b'))
    assert plan.distribution and '{cacertfile, "/a\\"b/etc/rabbitmq/tls/ca.pem"}' in plan.distribution


@pytest.mark.subprocess
def test_the_environment_as_a_shell_reads_it() -> None:
    names = (
        "NODENAME",
        "DIST_PORT",
        "SERVER_ADDITIONAL_ERL_ARGS",
        "CONFIG_FILE",
        "ENABLED_PLUGINS_FILE",
        "ERL_INETRC",
    )
    assert shell(helpers.default(), *names) == {n: dict(build(helpers.default()).environment)[n] for n in names}
    assert shell(helpers.default(), "NODENAME")["NODENAME"] == "rabbit@ctl-0"


@pytest.mark.parametrize("raw", [helpers.default(), helpers.with_tls(helpers.default())], ids=["plain", "tls"])
def test_what_rabbitmqctl_is_given_has_no_quotes(raw: helpers.Raw) -> None:
    """RabbitMQ 4 hands it to erl in ERL_FLAGS, where erl removes quotes; 3.10 as words, where it does not."""
    environment = dict(build(raw).environment)
    assert not set("\"'\\") & set(environment.get("CTL_ERL_ARGS", ""))
    assert environment["ERL_INETRC"] == "/etc/rabbitmq/erl_inetrc"


@pytest.mark.subprocess
def test_a_directory_with_an_odd_name_executes_nothing() -> None:
    machine = helpers.host(prefix="/tmp/a`false`$(false)\"'\\b")
    found = helpers.rendered(helpers.default(), "ctl-0", machine).files
    (content,) = [f.content for f in found if f.path.endswith("/rabbitmq-env.conf")]
    assert content is not None
    script = content.decode() + '\nprintf %s "$CONFIG_FILE"'
    result = subprocess.run(["/bin/sh", "-eu", "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == machine.prefix + "/etc/rabbitmq/rabbitmq.conf"


def test_long_names() -> None:
    raw = put(helpers.default(1), "nodes.0.name", "ctl-0.example.com")
    environment = dict(build(raw, "ctl-0.example.com").environment)
    assert environment["NODENAME"] == "rabbit@ctl-0.example.com" and environment["USE_LONGNAME"] == "true"
    assert "USE_LONGNAME" not in dict(build(helpers.default()).environment)


def test_the_resolver_knows_the_cluster_and_then_asks_the_system() -> None:
    lines = [line for line in file(helpers.default(), "erl_inetrc").splitlines() if not line.startswith("%")]
    assert lines == [
        '{host, {172,17,0,11}, ["ctl-0"]}.',
        '{host, {172,17,0,12}, ["ctl-1"]}.',
        '{host, {172,17,0,13}, ["ctl-2"]}.',
        "{lookup, [file, native]}.",
    ]


def test_a_node_without_address_is_left_to_the_system() -> None:
    raw = put(helpers.default(), "nodes.1", {"name": "ctl-1"})
    assert [name for _, name in build(raw).inet_hosts] == ["ctl-0", "ctl-2"]


def test_one_user() -> None:
    found = definitions(helpers.default())
    (user,) = found["users"]
    assert (user["name"], user["tags"]) == ("openstack", [])
    assert user["hashing_algorithm"] == "rabbit_password_hashing_sha256"
    assert matches(user["password_hash"], "rpc-secret")
    assert found["vhosts"] == [{"name": "/"}]
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    assert found["permissions"] == [{"user": "openstack", "vhost": "/", **everything}]


def test_two_users_and_two_virtual_hosts() -> None:
    raw = put(helpers.default(), "notify", {"username": "notify", "password": "other", "virtual_host": "n"})
    found = definitions(raw)
    passwords = {"openstack": "rpc-secret", "notify": "other"}
    assert {u["name"] for u in found["users"]} == set(passwords)
    assert all(matches(u["password_hash"], passwords[u["name"]]) for u in found["users"])
    assert [v["name"] for v in found["vhosts"]] == ["/", "n"]
    assert [(p["user"], p["vhost"]) for p in found["permissions"]] == [("notify", "n"), ("openstack", "/")]
    assert [p["vhost"] for p in found["policies"]] == ["/", "n"]


def test_in_a_dual_deployment_the_broker_knows_notify_only() -> None:
    found = definitions(helpers.dual())
    assert [u["name"] for u in found["users"]] == ["notify"]
    assert "rpc-secret" not in json.dumps(found) and "notify-secret" not in json.dumps(found)


@pytest.mark.parametrize(("members", "copies"), [(2, 2), (3, 2), (4, 3), (5, 3)])
def test_a_majority_of_copies(members: int, copies: int) -> None:
    (policy,) = build(helpers.default(members)).definitions["policies"]
    assert policy["definition"]["ha-params"] == copies
    assert build(put(helpers.default(), "broker.mirrored_queues", False)).definitions["policies"] == []


@QUICK
@hypothesis.given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1), st.text(min_size=1, alphabet="abc"))
def test_password_hash(password: str, key: str) -> None:
    hashed = broker.password_hash(model.Secret(password), model.Secret(key))
    assert matches(hashed, password)
    assert not matches(hashed, password + "x")
    assert hashed == broker.password_hash(model.Secret(password), model.Secret(key))


def test_equal_passwords_of_two_clouds_do_not_show() -> None:
    assert broker.password_hash(model.Secret("x"), model.Secret("a")) != broker.password_hash(
        model.Secret("x"), model.Secret("b")
    )


def test_secret_files_are_closed() -> None:
    files = {f.path: f for f in helpers.rendered(helpers.with_tls(helpers.default(), "pem"), "ctl-0").files}
    for name in ("/etc/rabbitmq/definitions.json", "/etc/rabbitmq/tls/key.pem", layout.RABBIT_COOKIE):
        assert files[name].secret and files[name].mode & 0o007 == 0
    assert files[layout.RABBIT_COOKIE].mode == 0o400 and files[layout.RABBIT_COOKIE].owner == "rabbitmq"
    for f in files.values():
        assert f.secret or b"secret" not in (f.content or b"")


def test_a_name_for_an_address_listens_everywhere_and_says_so() -> None:
    raw = helpers.default(controllers=1)
    raw["nodes"][0]["address"] = "ctl-0.internalapi"
    planned = helpers.plan_for(raw, "ctl-0")
    assert planned.broker
    settings = dict(planned.broker.settings)
    assert settings["listeners.tcp.default"] == "5672"
    assert "listeners.tcp.1" not in settings and "prometheus.tcp.ip" not in settings
    assert "inet_dist_use_interface" not in dict(planned.broker.environment)["SERVER_ADDITIONAL_ERL_ARGS"]
    assert ("nodes[0].address", "listens-everywhere") in [(p.path, p.code) for p in planned.findings]
