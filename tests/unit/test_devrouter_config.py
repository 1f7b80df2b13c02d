"""The development router's configuration: what it reads, and every sentence with which it refuses."""

from __future__ import annotations

import json

import pytest
from om_devrouter import config, errors

ROUTER = ("router", {"mode": "standalone", "id": "ctl-0", "workerThreads": 4})
LISTENER = ("listener", {"name": "client", "host": "127.0.0.1", "port": 5672})
PROFILE = ("sslProfile", {"name": "tls", "certFile": "c", "privateKeyFile": "k", "caCertFile": "a"})


def parse(*entities: object) -> config.Config:
    return config.parse(json.dumps(entities))


def listener(**more: object) -> tuple[str, dict[str, object]]:
    return "listener", {"name": "client", "host": "127.0.0.1", "port": 5672, **more}


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
        ((ROUTER, LISTENER, ("policy", {})), "enforces no policy"),
        ((ROUTER, LISTENER, ("vhost", {})), "enforces no policy"),
        ((ROUTER, listener(policyVhost="x")), "policyVhost is not supported"),
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
