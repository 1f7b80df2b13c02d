"""The development router's configuration: accepted settings, and every error message."""

from __future__ import annotations

import json

import pytest
from om_devrouter import config, errors, policy

ROUTER = ("router", {"mode": "standalone", "id": "ctl-0", "workerThreads": 4})
LISTENER = ("listener", {"name": "client", "host": "127.0.0.1", "port": 5672})
PROFILE = ("sslProfile", {"name": "tls", "certFile": "c", "privateKeyFile": "k", "caCertFile": "a"})


def parse(*entities: object) -> config.Config:
    return config.parse(json.dumps(entities))


def listener(**more: object) -> tuple[str, dict[str, object]]:
    return "listener", {"name": "client", "host": "127.0.0.1", "port": 5672, **more}


ENABLED = ("policy", {"enableVhostPolicy": True})


def vhost(hostname: str = "v", **more: object) -> tuple[str, dict[str, object]]:
    return "vhost", {"hostname": hostname, **more}


def group(**more: object) -> tuple[str, dict[str, object]]:
    return vhost(groups={"g": more})


#: Entities, and what is said of them.
WRONG_VHOSTS: list[tuple[tuple[object, ...], str]] = [
    ((("vhost", {}),), "vhost: hostname is missing"),
    ((vhost(""),), "hostname must be a non-empty string"),
    ((vhost(), vhost()), "vhost 'v' is defined twice"),
    ((vhost(id="v"),), "unknown attribute 'id'"),
    ((vhost(aliases="w"),), "aliases is not supported"),
    ((vhost(maxMessageSize=5),), "vhost 'v': maxMessageSize is not supported"),
    ((vhost(maxConnections=65536),), "vhost 'v': maxConnections must be a whole number from 0 to 65535"),
    ((vhost(maxConnectionsPerUser="x"),), "maxConnectionsPerUser must be"),
    ((vhost(allowUnknownUser=7),), "allowUnknownUser must be true or false"),
    ((vhost(allowUnknownUser=True),), "allowUnknownUser needs a group '$default'"),
    ((vhost(groups="g"),), "groups must be an object"),
    ((vhost(groups={"g": 1}),), "vhost 'v': group 'g' must be an object"),
    ((vhost(groups={"": {}}),), "a group without a name lets nobody in"),
    ((vhost(groups={"a": {"users": "x, y"}, "b": {"users": "z,y"}}),), "user 'y' is in both groups 'a' and 'b'"),
    ((vhost(groups={"a": {}, "b": {}}),), "no user is in both groups 'a' and 'b'"),
    ((group(colour="red"),), "vhost 'v': group 'g': unknown attribute 'colour'"),
    ((group(users=["x"]),), "users must be a non-empty string"),
    ((group(maxMessageSize=9),), "maxMessageSize is not supported"),
    ((group(maxSessionWindow=9),), "maxSessionWindow is not supported"),
    ((group(allowWaypointLinks=False),), "allowWaypointLinks is not supported"),
    ((group(allowFallbackLinks=False),), "allowFallbackLinks is not supported"),
    ((group(allowDynamicSource="true"),), "allowDynamicSource must be true or false"),
    ((group(allowAnonymousSender=1),), "allowAnonymousSender must be true or false"),
    ((group(maxSessions=-1),), "maxSessions must be"),
    ((group(maxSessions=65537),), "maxSessions must be"),
    ((group(sources="a", sourcePattern="a"),), "only one of sources and sourcePattern"),
    ((group(targets="", targetPattern="a"),), "only one of targets and targetPattern"),
    ((group(sources="${user}${user}"),), "sources may have ${user} once"),
    ((group(targetPattern="a/${user}/b"),), "targetPattern may have ${user} only where"),
    ((group(targetPattern="a,*"),), "targetPattern must not have a lone '*'"),
    ((group(remoteHosts=""),), "remoteHosts must be a non-empty string"),
    ((group(remoteHosts="localhost"),), "remoteHosts must be '*', or addresses"),
    ((group(remoteHosts="10.0.0.1,,10.0.0.2"),), "remoteHosts must be"),
    ((group(remoteHosts="10.0.0.2-10.0.0.1"),), "remoteHosts must be"),
    ((group(remoteHosts="10.0.0.1-::1"),), "remoteHosts must be"),
    ((group(remoteHosts="1.1.1.1-2.2.2.2-3.3.3.3"),), "remoteHosts must be"),
    ((group(remoteHosts="10.0.0.0/8"),), "remoteHosts must be"),
]


def test_the_policy_that_the_agent_writes() -> None:
    own = "openstack.org/om/rpc/#"
    rpc = {
        "users": "rpc@overcloud",
        "remoteHosts": "*",
        "allowDynamicSource": True,
        "allowAnonymousSender": False,
        "allowUserIdProxy": False,
        "maxSessions": 32768,
        "sourcePattern": own,
        "targetPattern": f"{own},amqp:/_topo/*/#/temp/*,amqp:/_edge/#/temp/*",
    }
    settings = parse(
        ROUTER,
        ("policy", {"enableVhostPolicy": True, "maxConnections": 100}),
        vhost(
            "client-rpc",
            allowUnknownUser=False,
            groups={"rpc": rpc, "$default": {"remoteHosts": "::1, 10.0.0.1-10.0.0.9"}},
        ),
        listener(policyVhost="client-rpc"),
    )
    assert (settings.rules.enabled, settings.rules.max_connections, settings.rules.default_vhost) == (
        True,
        100,
        "$default",
    )
    assert settings.listeners[0].policy_vhost == "client-rpc"
    (made,) = settings.rules.vhosts
    assert made.max_connections == 65535 and not made.allow_unknown_user
    one, other = made.groups
    assert (one.name, one.users, one.hosts, one.max_sessions, one.max_senders) == (
        "rpc",
        ("rpc@overcloud",),
        None,
        32768,
        policy.UNLIMITED,
    )
    assert one.allow_dynamic_source and not one.allow_anonymous_sender and not one.allow_user_id_proxy
    assert one.sources == policy.patterns((own,))
    assert one.targets.allow("rpc@overcloud", "amqp:/_topo/0/ctl-0/temp.x")
    assert (other.users, len(other.hosts or ()), other.sources) == (("",), 2, policy.Names())


@pytest.mark.parametrize(
    ("name", "default"), [({}, "$default"), ({"defaultVhost": ""}, ""), ({"defaultVhost": "v"}, "v")]
)
def test_the_default_vhost(name: dict[str, object], default: str) -> None:
    assert parse(ROUTER, LISTENER, ("policy", name)).rules.default_vhost == default


def test_a_vhost_that_is_missing_is_no_error_where_there_is_another() -> None:
    assert parse(ROUTER, ENABLED, vhost("$default"), listener(policyVhost="x"))
    assert parse(ROUTER, vhost(), listener(policyVhost="x")).rules == policy.Policy(vhosts=(policy.Vhost("v"),))


def test_the_file_that_the_agent_writes() -> None:
    settings = parse(
        ("router", {**ROUTER[1], "saslConfigDir": "/x/sasl2", "saslConfigName": "qdrouterd", "metadata": "m"}),
        ("sslProfile", {**PROFILE[1], "protocols": "TLSv1.2 TLSv1.3"}),
        listener(
            role="normal",
            authenticatePeer=True,
            saslMechanisms="PLAIN",
            sslProfile="tls",
            requireSsl=True,
            linkCapacity=1000,
            idleTimeoutSeconds=8,
            maxFrameSize=16384,
        ),
        ("listener", {"name": "http", "host": "::1", "port": "31462", "http": True, "websockets": False}),
        ("address", {"prefix": "openstack.org/om/rpc/multicast", "distribution": "multicast"}),
        ("log", {"module": "DEFAULT", "enable": "warning+"}),
    )
    assert (settings.router_id, settings.sasl_config_dir, settings.metadata) == ("ctl-0", "/x/sasl2", "m")
    client, http = settings.listeners
    assert client.ssl_profile == config.SslProfile("tls", "c", "k", "a", "TLSv1.2 TLSv1.3")
    assert client.require_ssl and client.authenticate_peer and client.sasl_mechanisms == ("PLAIN",)
    assert (client.link_capacity, client.idle_timeout) == (1000, 8)
    assert (http.host, http.port, http.http, http.metrics) == ("::1", 31462, True, True)
    assert settings.addresses == (config.Address("openstack.org/om/rpc/multicast", "multicast"),)
    assert settings.log_level == "warning"


def test_what_is_left_out_has_qdrouterds_defaults() -> None:
    (made,) = parse(ROUTER, ("listener", {})).listeners
    assert (made.host, made.port, made.name) == ("", 5672, ":5672")
    assert (made.link_capacity, made.idle_timeout, made.max_frame_size) == (250, 16, 16384)
    assert not (made.require_ssl or made.authenticate_peer or made.http)


@pytest.mark.parametrize(("port", "number"), [(1, 1), ("65535", 65535), ("amqp", 5672), ("amqps", 5671), (0, 0)])
def test_a_port_is_a_number_or_its_text_or_a_service(port: object, number: int) -> None:
    assert parse(ROUTER, listener(port=port)).listeners[0].port == number


def test_lines_of_comment_are_dropped() -> None:
    assert config.parse(f"# why\n[{json.dumps(ROUTER)},\n  # and\n{json.dumps(LISTENER)}]").router_id == "ctl-0"


@pytest.mark.parametrize(
    ("entities", "sentence"),
    [
        ((LISTENER,), "exactly one router entity; there are 0"),
        ((ROUTER, ROUTER, LISTENER), "there are 2"),
        ((("router", {}), LISTENER), "router: id is missing"),
        ((ROUTER,), "no listener for AMQP"),
        ((ROUTER, listener(http=True)), "no listener for AMQP"),
        ((ROUTER, LISTENER, LISTENER), "name 'client' is used twice"),
        ((ROUTER, LISTENER, ("nonsense", {})), "Unknown entity 'nonsense'"),
        ((ROUTER, LISTENER, "nonsense"), "Item 2 "),
        ((ROUTER, LISTENER, ("address", [])), "Item 2 "),
        ((("router", {"id": "a", "mode": "edge"}), LISTENER), "one router only; use qdrouterd for a mesh"),
        ((("router", {"id": "a", "mode": "interior"}), LISTENER), "one router only; use qdrouterd for a mesh"),
        ((("router", {"id": "a", "mode": "odd"}), LISTENER), "mode must be one of"),
        ((ROUTER, listener(role="inter-router")), "one router only; use qdrouterd for a mesh"),
        ((ROUTER, listener(role="edge")), "one router only; use qdrouterd for a mesh"),
        ((ROUTER, LISTENER, ("connector", {})), "one router only; use qdrouterd for a mesh"),
        ((ROUTER, LISTENER, ("linkRoute", {})), "one router only; use qdrouterd for a mesh"),
        ((ROUTER, LISTENER, ("vhostUserGroupSettings", {})), "groups in a vhost only"),
        ((ROUTER, LISTENER, ("authServicePlugin", {})), "groups in a vhost only"),
        ((ROUTER, LISTENER, ("policy", {}), ("policy", {})), "at most one policy entity; there are 2"),
        ((ROUTER, LISTENER, ("policy", {"maxConnections": -1})), "policy: maxConnections must be"),
        ((ROUTER, LISTENER, ("policy", {"enableVhostPolicy": "perhaps"})), "enableVhostPolicy must be true or false"),
        ((ROUTER, LISTENER, ("policy", {"maxMessageSize": 1})), "policy: maxMessageSize is not supported"),
        ((ROUTER, LISTENER, ("policy", {"policyDir": "/etc"})), "policy: policyDir is not supported"),
        ((ROUTER, LISTENER, ("policy", {"enableVhostNamePatterns": True})), "enableVhostNamePatterns is not"),
        ((ROUTER, LISTENER, ("policy", {"colour": 1})), "policy: unknown attribute 'colour'"),
        ((ROUTER, ENABLED, listener(policyVhost="x")), "listener 'client': there is no vhost 'x'"),
        ((ROUTER, ENABLED, vhost(), listener(policyVhost="V")), "there is no vhost 'V'"),
        ((ROUTER, listener(sslProfile="none")), "there is no sslProfile 'none'"),
        ((ROUTER, listener(requireSsl=True)), "need an sslProfile"),
        ((ROUTER, PROFILE, PROFILE, LISTENER), "defined twice"),
        ((ROUTER, ("sslProfile", {"name": "tls", "certFile": "c"}), LISTENER), "privateKeyFile is missing"),
        ((ROUTER, ("sslProfile", {"certFile": "c", "privateKeyFile": "k"}), LISTENER), "name is missing"),
        ((ROUTER, PROFILE, LISTENER, listener(name="h", http=True, sslProfile="tls")), "http listener with"),
        ((ROUTER, listener(port="x")), "port must be a whole number"),
        ((ROUTER, listener(port=65536)), "port must be a whole number"),
        ((ROUTER, listener(port=True)), "port must be a whole number"),
        ((ROUTER, listener(authenticatePeer="perhaps")), "authenticatePeer must be true or false"),
        ((ROUTER, listener(host=7)), "host must be a non-empty string"),
        ((ROUTER, listener(colour="red")), "unknown attribute 'colour'"),
        ((ROUTER, listener(multiTenant=True)), "multiTenant is not supported"),
        ((ROUTER, LISTENER, ("address", {"distribution": "closest"})), "prefix is missing"),
        ((ROUTER, LISTENER, ("address", {"prefix": "a", "distribution": "unavailable"})), "distribution must be"),
        ((ROUTER, LISTENER, ("address", {"pattern": "a"})), "pattern is not supported"),
        ((ROUTER, LISTENER, ("address", {"prefix": "a", "waypoint": True})), "waypoint is not supported"),
        ((ROUTER, LISTENER, ("address", {"prefix": "a"}), ("address", {"prefix": "a"})), "used twice"),
        ((ROUTER, LISTENER, ("log", {"enable": "loud"})), "enable must be"),
        *(((ROUTER, LISTENER, *entities), sentence) for entities, sentence in WRONG_VHOSTS),
    ],
)
def test_what_is_wrong_is_said(entities: tuple[object, ...], sentence: str) -> None:
    with pytest.raises(errors.DevRouterError) as caught:
        parse(*entities)
    text = str(caught.value)
    assert sentence in text
    assert text.endswith(".") and "\n" not in text


@pytest.mark.parametrize("text", ["", "{", '{"router": 1}', "3", '[["router", {"password": "s3cret"'])
def test_what_is_no_configuration_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(errors.DevRouterError) as caught:
        config.parse(text)
    assert "s3cret" not in str(caught.value) and "s3cret" not in repr(caught.value.__context__)


def test_a_wrong_value_is_not_shown() -> None:
    with pytest.raises(errors.DevRouterError) as caught:
        parse(ROUTER, listener(port="s3cret"))
    assert "s3cret" not in str(caught.value)


def test_a_key_password_has_no_repr() -> None:
    assert "s3cret" not in repr(parse(ROUTER, ("sslProfile", {**PROFILE[1], "password": "s3cret"}), LISTENER))
    assert "s3cret" not in repr(
        parse(ROUTER, ("sslProfile", {**PROFILE[1], "password": "s3cret"}), listener(sslProfile="tls"))
    )
