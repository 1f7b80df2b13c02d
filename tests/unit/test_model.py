"""The model reports every problem of metadata at once, by path, and repeats no value."""

from __future__ import annotations

import ast
import typing

import pytest
from om_agent import errors, kinds, model, parse

from tests.support import helpers

Raw = helpers.Raw
D = helpers.default()
DUAL = helpers.dual()
TLS = helpers.with_tls(helpers.default())
put = helpers.put


def drop(raw: Raw, path: str) -> Raw:
    """A copy of ``raw`` without the key at a dotted path."""
    parent, _, key = path.rpartition(".")
    result: Raw = put(raw, path, None)
    at: typing.Any = result
    for part in parent.split(".") if parent else ():
        at = at[int(part)] if isinstance(at, list) else at[part]
    del at[key]
    return result


def problems(raw: object) -> list[tuple[str, str]]:
    """(path, code) of every problem; none when the metadata is valid."""
    try:
        parse.deployment(raw, helpers.catalogue())
    except errors.InvalidInput as e:
        assert all(p.severity == errors.ERROR for p in e.problems)
        return [(p.path, p.code) for p in e.problems]
    return []


def separate(rpc: list[str], notify: list[str]) -> Raw:
    """RabbitMQ for both, on nodes of its own each."""
    return put(put(D, "rpc.nodes", rpc), "notify.nodes", notify)


def odd_key() -> Raw:
    """YAML has keys that are no text."""
    return typing.cast("Raw", {7: 1})


def names(count: int) -> list[Raw]:
    return [{"name": f"n-{i}", "address": f"10.0.{i // 250}.{i % 250 + 1}"} for i in range(count)]


SITES = put(put(put(put(put(helpers.dual(), "nodes.0.site", "dc1"), "nodes.1.site", "dc1"), "nodes.2.site", "dc2"),
                "nodes.3.site", "dc2"), "sites.links", [{"between": ["dc1", "dc2"], "cost": 5}])  # fmt: skip

# Controllers of two families; the brokers are elsewhere.
MIXED = put(put(DUAL, "nodes.0.address", "fd00::1"), "notify.hosts", ["elsewhere"])

# The password of rpc is about to be changed, with the secrets pinned that are made from it.
PINNED = put(put(D, "broker.erlang_cookie", "cookiecookie"), "router.mesh_password", "m")
EXTERNAL = helpers.with_tls(DUAL)
EXTERNAL["rpc"] = {
    "scheme": "amqp", "tls": True, "username": "rpc", "sasl_mechanism": "EXTERNAL",
    "client_certificate_file": "/c", "client_key_file": "/k",
}  # fmt: skip
DUAL_PINNED = put(put(DUAL, "broker.erlang_cookie", "cookiecookie"), "router.mesh_password", "m")
SECOND = {"username": "second", "password": "p"}

CASES: dict[str, tuple[object, list[tuple[str, str]]]] = {
    # shape
    "nothing": (None, [("oslo_messaging", "missing"), ("nodes", "missing"), ("rpc.password", "missing")]),
    "empty": ({}, [("nodes", "missing"), ("rpc.password", "missing")]),
    "a list": ([], [("oslo_messaging", "wrong-type")]),
    "unknown key": (put(D, "passwrd", "x"), [("oslo_messaging", "unknown-key")]),
    "unknown key in rpc": (put(D, "rpc.user", "x"), [("rpc", "unknown-key")]),
    "unknown key in notify": (put(D, "notify.delivery", "x"), [("notify", "unknown-key")]),
    "unknown key in a node": (put(D, "nodes.1.place", "x"), [("nodes[1]", "unknown-key")]),
    "unknown key in router": (put(D, "router.x", 1), [("router", "unknown-key")]),
    "unknown key in broker": (put(D, "broker.x", 1), [("broker", "unknown-key")]),
    "unknown key in tls": (put(D, "tls.x", 1), [("tls", "unknown-key")]),
    "unknown key in sites": (put(D, "sites.x", 1), [("sites", "unknown-key")]),
    "unknown key in a link": (
        put(SITES, "sites.links.0.x", 1),
        [("sites.links[0]", "unknown-key")],
    ),
    "a link of one site": (put(SITES, "sites.links.0.between", ["dc1"]), [("sites.links[0].between", "not-two-sites")]),
    "a link to itself": (put(SITES, "sites.links.0.between", ["dc1"] * 2), [("sites.links[0].between[1]", "twice")]),
    "a link of one odd site": (
        put(SITES, "sites.links.0.between", ["d 1"]),
        [("sites.links[0].between[0]", "bad-text")],
    ),
    "a link of text": (put(SITES, "sites.links.0.between", "dc1"), [("sites.links[0].between", "wrong-type")]),
    "a link that is text": (put(SITES, "sites.links.0", "dc1"), [("sites.links[0]", "wrong-type")]),
    "a link that is null": (put(SITES, "sites.links.-", None), [("sites.links[1].between", "not-two-sites")]),
    "a link with an unknown key for between": (
        put(SITES, "sites.links.-", {"ends": ["dc1", "dc2"]}),
        [("sites.links[1]", "unknown-key")],
    ),
    "a link without sites": (put(SITES, "sites.links.-", {"cost": 2}), [("sites.links[1].between", "not-two-sites")]),
    "two sites linked twice": (
        put(SITES, "sites.links.-", {"between": ["dc2", "dc1"]}),
        [("sites.links[1].between", "linked-twice")],
    ),
    "sites without a link": (put(SITES, "sites", {}), [("sites.links", "site-apart")]),
    "a site without interiors between two": (
        put(
            put(put(SITES, "nodes.3.site", "dc3"), "nodes.2.site", "dc2"),
            "sites.links",
            [{"between": ["dc1", "dc3"]}, {"between": ["dc3", "dc2"]}],
        ),
        [("sites.links", "site-between")],
    ),
    "edges far from every interior": (put(SITES, "nodes.3.site", "dc3"), [("sites.links", "site-apart")]),
    "some nodes without a site": (put(SITES, "nodes.2.site", ""), [("nodes", "site-missing")]),
    "no interior": (put(helpers.dual(), "router.roles", {"controller": "edge"}), [("rpc", "no-interior")]),
    "roles as a list": (put(D, "router.roles", ["controller"]), [("router.roles", "wrong-type")]),
    "a role that cannot be": (put(D, "router.roles", {"a b": "edge"}), [("router.roles", "not-a-role")]),
    "a role of no kind": (put(D, "router.roles", {"storage": "interor"}), [("router.roles.storage", "not-one-of")]),
    "interior against rpc.nodes": (
        put(put(put(helpers.dual(), "rpc.nodes", ["ctl-0"]), "nodes.1.interior", True), "nodes.0.interior", "false"),
        [("nodes[0].interior", "interior-differs"), ("nodes[1].interior", "interior-differs")],
    ),
    "an interior that is no truth value": (put(D, "nodes.3.interior", "maybe"), [("nodes[3].interior", "wrong-type")]),
    "a key that is no text": ({**D, **odd_key()}, [("oslo_messaging", "unknown-key")]),
    "no password": (drop(D, "rpc.password"), [("rpc.password", "missing")]),
    "null password": (put(D, "rpc.password", None), [("rpc.password", "missing")]),
    "empty password": (put(D, "rpc.password", ""), [("rpc.password", "missing")]),
    "NUL in password": (put(D, "rpc.password", "a@b\0"), [("rpc.password", "bad-text")]),
    "half a character in password": (put(D, "rpc.password", "\ud800"), [("rpc.password", "bad-text")]),
    "long password": (put(D, "rpc.password", "é" * 513), [("rpc.password", "bad-text")]),
    "number for password": (put(D, "rpc.password", 12345), [("rpc.password", "wrong-type")]),
    "user of two lines": (put(D, "rpc.username", "a\nb"), [("rpc.username", "bad-text")]),
    "a service nobody knows": (put(D, "services", ["nova", "nva"]), [("services[1]", "unknown-service")]),
    "cross-checks beside others": (
        put(put(put(D, "rpc.password", "a/b"), "services", ["nva"]), "router.http_port", "x"),
        [
            ("router.http_port", "wrong-type"),
            ("services[0]", "unknown-service"),
            ("rpc.password", "rabbit-slash"),
            ("notify.password", "rabbit-slash"),
        ],
    ),
    "no cross-check of what is not known": (
        put(put(DUAL, "rpc.port", "x"), "notify.port", 31459),
        [("rpc.port", "wrong-type")],
    ),
    "IPv6 beside IPv4": (
        put(D, "nodes.0.address", "fd00::1"),
        [("nodes", "mixed-families"), ("nodes", "mixed-families"), ("nodes", "mixed-cluster")],
    ),
    "brokers of two families with names": (
        put(put(D, "nodes.0.address", "fd00::1"), "rpc.hosts", ["elsewhere"])
        | {
            "notify": {"scheme": "rabbit", "nodes": ["ctl-0", "ctl-1"]},
            "nodes": [{**n, "host": n["name"]} for n in put(D, "nodes.0.address", "fd00::1")["nodes"]],
        },
        [("nodes", "mixed-cluster")],
    ),
    "routers of two families in one URL": (
        put(put(MIXED, "nodes.3.role", "storage"), "router.roles", {"storage": "none"}),
        [("nodes", "mixed-families")],
    ),
    "routers of two families in every URL": (put(MIXED, "router.clients", "mesh"), [("nodes", "mixed-families")]),
    "external hosts of two families": (
        put(D, "rpc.hosts", ["::1", "a"]),
        [("rpc.hosts", "mixed-families"), ("notify.hosts", "mixed-families")],
    ),
    "a slash for kombu": (
        put(put(D, "rpc.password", "a/b"), "rpc.username", "u/v"),
        [(f"{half}.{key}", "rabbit-slash") for half in ("rpc", "notify") for key in ("username", "password")],
    ),
    "a virtual host for kombu": (
        put(D, "rpc.virtual_host", "a%b"),
        [("rpc.virtual_host", "rabbit-vhost"), ("notify.virtual_host", "rabbit-vhost")],
    ),
    "a router named like an answer": (put(DUAL, "nodes.0.name", "temp"), [("nodes[0].name", "router-temp")]),
    "second users that are no list": (put(PINNED, "rpc.also_accept", SECOND), [("rpc.also_accept", "wrong-type")]),
    "no second user": (put(PINNED, "rpc.also_accept", []), [("rpc.also_accept", "empty-list")]),
    "a second user's name alone": (put(PINNED, "rpc.also_accept", ["second"]), [("rpc.also_accept[0]", "wrong-type")]),
    "a second user that is null": (
        put(PINNED, "rpc.also_accept", [None]),
        [("rpc.also_accept[0].username", "missing"), ("rpc.also_accept[0].password", "missing")],
    ),
    "half a second user": (
        put(PINNED, "rpc.also_accept", [{"password": "p"}, {"username": "x"}]),
        [("rpc.also_accept[0].username", "missing"), ("rpc.also_accept[1].password", "missing")],
    ),
    "more than a second user": (
        put(PINNED, "rpc.also_accept", [{**SECOND, "x": 1}]),
        [("rpc.also_accept[0]", "unknown-key")],
    ),
    "a second user who is the first": (
        put(PINNED, "rpc.also_accept", [SECOND, {**SECOND, "username": "openstack"}, SECOND]),
        [("rpc.also_accept[1].username", "twice"), ("rpc.also_accept[2].username", "twice")],
    ),
    "a second user of another password": (
        put(put(PINNED, "rpc.also_accept", [SECOND]), "notify", {"username": "second", "password": "other"}),
        [("notify.password", "two-passwords")],
    ),
    "a second user whom policies and SASL split": (
        put(DUAL_PINNED, "rpc.also_accept", [{"username": "a,b@c", "password": "x\n"}]),
        [
            ("rpc.also_accept[0].username", "username-realm"),
            ("rpc.also_accept[0].password", "password-line-end"),
            ("rpc.also_accept[0].username", "router-username"),
        ],
    ),
    "a second user who is everybody": (
        put(DUAL_PINNED, "rpc.also_accept", [{**SECOND, "username": "*"}]),
        [("rpc.also_accept[0].username", "router-everybody")],
    ),
    "a second user with the agent's name": (
        put(DUAL_PINNED, "rpc.also_accept", [{**SECOND, "username": "router-admin"}]),
        [("rpc.also_accept[0].username", "username-taken")],
    ),
    "a second user with a slash": (
        put(DUAL, "notify.also_accept", [{"username": "a/b", "password": "p"}]),
        [("notify.also_accept[0].username", "rabbit-slash")],
    ),
    "a second user elsewhere": (
        put(put(DUAL, "notify.hosts", ["elsewhere"]), "notify.also_accept", [SECOND]),
        [("notify.also_accept", "external-accept")],
    ),
    "a second user with derived secrets": (
        put(D, "rpc.also_accept", [SECOND]),
        [("broker.erlang_cookie", "derived-changes")],
    ),
    "nobody says whether routers' clients use TLS": (
        put(put(DUAL, "rpc.tls", ""), "notify.tls", False),
        [("rpc.tls", "tls-not-said")],
    ),
    "nor for notifications alone": (
        put(put(D, "notify.scheme", "amqp"), "router.mesh_password", "m"),
        [("notify.tls", "tls-not-said")],
    ),
    "nor for routers elsewhere": (
        put(put(DUAL, "rpc.tls", None), "rpc.hosts", ["elsewhere"]),
        [("rpc.tls", "tls-not-said")],
    ),
    "a certificate and a password": (
        put(EXTERNAL, "rpc", {**EXTERNAL["rpc"], "password": "p", "also_accept": [SECOND]}),
        [("rpc.password", "external-password"), ("rpc.also_accept", "external-password")],
    ),
    "a login by certificate without files": (
        put(EXTERNAL, "rpc", {"scheme": "amqp", "tls": True, "sasl_mechanism": "EXTERNAL"}),
        [(f"rpc.{key}", "external-files") for key in model.CLIENT_FILES],
    ),
    "a login by certificate without TLS": (
        put(put(EXTERNAL, "rpc.tls", False), "notify.tls", False),
        [("rpc.sasl_mechanism", "external-tls")],
    ),
    "files that nobody shows": (
        put(put(DUAL, "rpc.client_key_file", "/k"), "notify.client_certificate_file", "/c"),
        [("rpc.client_key_file", "client-files-unused"), ("notify.client_certificate_file", "client-files-unused")],
    ),
    "two ways to log in": (
        put(put(EXTERNAL, "notify.scheme", "amqp"), "notify.sasl_mechanism", "PLAIN"),
        [("notify.sasl_mechanism", "login-differs")],
    ),
    "two certificates": (
        put(EXTERNAL, "notify", {"scheme": "amqp", "client_certificate_file": "/c", "client_key_file": "/other"}),
        [("notify.client_key_file", "login-differs")],
    ),
    "one certificate for two": (
        put(EXTERNAL, "notify", {"scheme": "amqp", "username": "other"}),
        [("notify.username", "login-differs")],
    ),
    "no password that a cookie could be made from": (
        put(EXTERNAL, "broker", {}),
        [("broker.erlang_cookie", "missing")],
    ),
    "SCRAM for RabbitMQ": (
        put(D, "rpc.sasl_mechanism", "SCRAM-SHA-256"),
        [
            ("rpc.sasl_mechanism", "scram-rabbit"),
            ("notify.sasl_mechanism", "scram-rabbit"),
        ],
    ),
    "SCRAM for the development router": (
        put(put(helpers.dual(1), "router.engine", "embedded"), "rpc.sasl_mechanism", "SCRAM-SHA-256"),
        [("rpc.sasl_mechanism", "embedded-login")],
    ),
    "no such mechanism": (put(DUAL, "rpc.sasl_mechanism", "GSSAPI"), [("rpc.sasl_mechanism", "not-one-of")]),
    "no secret of the mesh": (put(DUAL, "router", {}), [("router.mesh_password", "mesh-secret")]),
    "no secret of the mesh but an administrator's": (
        put(DUAL, "router", {"admin_password": "a"}),
        [("router.mesh_password", "mesh-secret")],
    ),
    "own certificates of the mesh and nothing to manage it with": (
        put(DUAL, "router", dict.fromkeys(model.MESH_FILES, "/x")),
        [("router.admin_password", "admin-secret")],
    ),
    "a user that a policy splits": (
        put(put(DUAL, "rpc.username", "a,b"), "rpc.virtual_host", "a*"),
        [("rpc.username", "router-username"), ("rpc.virtual_host", "router-vhost")],
    ),
    "a user who is everybody": (put(DUAL, "rpc.username", "*"), [("rpc.username", "router-everybody")]),
    "vhost of two lines": (put(D, "rpc.virtual_host", "a\nb"), [("rpc.virtual_host", "bad-text")]),
    "unknown scheme": (put(D, "rpc.scheme", "kafka"), [("rpc.scheme", "not-one-of")]),
    "scheme by case": (put(D, "rpc.scheme", "RABBIT"), [("rpc.scheme", "not-one-of")]),
    "port 0": (put(D, "rpc.port", 0), [("rpc.port", "out-of-range")]),
    "port 65536": (put(D, "rpc.port", "65536"), [("rpc.port", "out-of-range")]),
    "port true": (put(D, "rpc.port", True), [("rpc.port", "wrong-type")]),
    "port 5672.0": (put(D, "rpc.port", 5672.0), [("rpc.port", "wrong-type")]),
    "port in Arabic digits": (put(D, "rpc.port", "٥٦٧٢"), [("rpc.port", "wrong-type")]),
    "tls maybe": (put(D, "rpc.tls", "maybe"), [("rpc.tls", "wrong-type")]),
    "tls 2": (put(D, "rpc.tls", 2), [("rpc.tls", "wrong-type")]),
    "tls a huge number": (put(D, "rpc.tls", 1 << 20_000), [("rpc.tls", "wrong-type")]),
    "no nodes": (drop(D, "nodes"), [("nodes", "missing")]),
    "empty nodes": (put(D, "nodes", []), [("nodes", "empty-list")]),
    "nodes by name": (put(D, "nodes", {"a": "b"}), [("nodes", "wrong-type")]),
    "a node that is text": (put(D, "nodes.1", "ctl-1"), [("nodes[1]", "wrong-type")]),
    "a node without name": (drop(D, "nodes.1.name"), [("nodes[1].name", "missing")]),
    "a node with an odd name": (put(D, "nodes.1.name", "ctl 1"), [("nodes[1].name", "not-a-host")]),
    "a node's odd role": (put(D, "nodes.1.role", "a b"), [("nodes[1].role", "bad-text")]),
    "a node's odd site": (put(D, "nodes.1.site", "a b"), [("nodes[1].site", "bad-text")]),
    "a name twice": (put(D, "nodes.1.name", "ctl-0"), [("nodes[1].name", "twice")]),
    "a name twice for DNS": (put(D, "nodes.1.name", "CTL-0."), [("nodes[1].name", "same-name")]),
    "a name twice without addresses": (
        put(D, "nodes", [{"name": "a"}, {"name": "A"}]),
        [("nodes[1].name", "same-name")],
    ),
    "an address twice for DNS": (
        put(put(D, "nodes.0.address", "a.b"), "nodes.1.address", "A.b."),
        [("nodes[1].address", "same-name")],
    ),
    "an address twice, once a name": (
        put(D, "nodes", [{"name": "a", "address": "b"}, {"name": "b"}]),
        [("nodes[1].address", "twice")],
    ),
    "an address twice, once as IPv6": (
        put(D, "nodes.1.address", "::ffff:172.17.0.11"),
        [("nodes[1].address", "twice")],
    ),
    "an address twice, once as IPv6 in hexadecimal": (
        put(put(D, "nodes.0.address", "::FFFF:AC11:B"), "nodes.1.address", "172.17.0.11"),
        [("nodes[1].address", "twice")],
    ),
    "hosts twice, once as IPv6": (
        put(put(D, "rpc.hosts", ["10.0.0.1", "::ffff:a00:1", "fd00::1", "FD00:0::1"]), "rpc.tls", False),
        [("rpc.hosts[1]", "twice"), ("rpc.hosts[3]", "twice")],
    ),
    "two nodes with each other's address as host": (
        put(put(D, "nodes.0.host", "172.17.0.12"), "nodes.1.host", "172.17.0.11"),
        [("nodes[0].host", "crossed-node")],
    ),
    "the address of another node as host": (
        put(put(D, "nodes.0.host", "a"), "nodes.2.host", "::ffff:172.17.0.11"),
        [("nodes[0].address", "crossed-node")],
    ),
    "the name of another node as host": (put(D, "nodes.0.host", "CTL-1."), [("nodes[0].host", "crossed-node")]),
    "the name of another node as address": (
        put(D, "nodes.1.address", "Ctl-0"),
        [("nodes[1].address", "crossed-node")],
    ),
    "the host of another node as address": (
        put(put(put(D, "nodes.0.host", "x.Y"), "nodes.1.address", "X.y."), "nodes.1.host", "b"),
        [("nodes[0].host", "crossed-node")],
    ),
    "two of three nodes crossed": (
        put(D, "nodes", [{"name": "a", "address": "b"}, {"name": "c", "address": "a"}, {"name": "b", "address": "d"}]),
        [("nodes[0].address", "crossed-node"), ("nodes[1].address", "crossed-node")],
    ),
    "an address twice": (put(D, "nodes.1.address", "172.17.0.11"), [("nodes[1].address", "twice")]),
    "a broken address": (put(D, "nodes.0.address", "256.1.1.1"), [("nodes[0].address", "not-a-host")]),
    "an address with a port": (put(D, "nodes.0.address", "10.0.0.1:5672"), [("nodes[0].address", "not-a-host")]),
    "an address in brackets": (put(D, "nodes.0.address", "[fd00::1]"), [("nodes[0].address", "not-a-host")]),
    "an address with a zone": (put(D, "nodes.0.address", "fe80::1%eth0"), [("nodes[0].address", "not-a-host")]),
    "a long name": (put(D, "nodes.0.name", "a" * 64), [("nodes[0].name", "not-a-host")]),
    "a list for a name": (put(D, "nodes.0.name", ["a"]), [("nodes[0].name", "wrong-type")]),
    "hosts as text": (put(D, "rpc.hosts", "a,b"), [("rpc.hosts", "wrong-type")]),
    "no hosts": (put(D, "rpc.hosts", []), [("rpc.hosts", "empty-list")]),
    "an odd host": (put(D, "rpc.hosts", ["a", "b c"]), [("rpc.hosts[1]", "not-a-host")]),
    "an empty host": (put(D, "rpc.hosts", [""]), [("rpc.hosts[0]", "empty")]),
    "a host twice": (put(D, "rpc.hosts", ["a", "a"]), [("rpc.hosts[1]", "twice")]),
    "a number for a host": (put(D, "rpc.hosts", [7]), [("rpc.hosts[0]", "wrong-type")]),
    "no services": (put(D, "services", []), [("services", "empty-list")]),
    "an odd service": (put(D, "services", ["no va"]), [("services[0]", "bad-text")]),
    "a relative path": (put(TLS, "tls.ca_file", "ca.pem"), [("tls.ca_file", "bad-text")]),
    "a path with a space": (put(TLS, "tls.ca_file", "/a b"), [("tls.ca_file", "bad-text")]),
    "a short cookie": (put(D, "broker.erlang_cookie", "abc"), [("broker.erlang_cookie", "bad-text")]),
    "an odd cookie": (put(D, "broker.erlang_cookie", "abcdef gh"), [("broker.erlang_cookie", "bad-text")]),
    "a mesh password of two lines": (put(D, "router.mesh_password", "a\nb"), [("router.mesh_password", "bad-text")]),
    "an unknown engine": (put(D, "router.engine", "artemis"), [("router.engine", "not-one-of")]),
    "no threads": (put(D, "router.worker_threads", 0), [("router.worker_threads", "out-of-range")]),
    "an unknown driver": (put(D, "notify.driver", "mail"), [("notify.driver", "not-one-of")]),
    "an unknown delivery": (put(D, "rpc.delivery", "never"), [("rpc.delivery", "not-one-of")]),
    "links as a mapping": (put(D, "sites.links", {}), [("sites.links", "wrong-type")]),
    "a link between unknown sites": (
        put(put(D, "nodes.0.site", "dc1"), "sites.links", [{"between": ["dc1", "dc2"]}]),
        [("sites.links[0].between[1]", "not-one-of")],
    ),
    "a link without cost": (put(SITES, "sites.links.0.cost", 0), [("sites.links[0].cost", "out-of-range")]),
    # rules
    "an unknown node": (put(D, "rpc.nodes", ["ctl-0", "ctl"]), [("rpc.nodes[1]", "unknown-node")]),
    "this node unknown": (put(D, "node", "ctl-00"), [("node", "not-in-nodes")]),
    "no controllers": (put(D, "nodes", [{"name": "a", "role": "compute"}]), [("rpc", "no-carrier")]),
    "hosts and nodes": (put(put(D, "rpc.hosts", ["x"]), "rpc.nodes", ["ctl-0"]), [("rpc.hosts", "hosts-and-nodes")]),
    "overlapping brokers": (separate(["ctl-0", "ctl-1"], ["ctl-1", "ctl-2"]), [("notify.nodes", "overlap")]),
    "two meshes": (
        put(put(put(DUAL, "notify.scheme", "amqp"), "rpc.nodes", ["ctl-0"]), "notify.nodes", ["ctl-1"]),
        [("notify.nodes", "one-mesh")],
    ),
    "shared broker, two ports": (put(D, "notify.port", 5673), [("notify.port", "shared-differs")]),
    "shared broker, half TLS": (
        put(TLS, "notify.tls", False),
        [("notify.tls", "shared-differs"), ("notify.tls", "tls-not-on-clients")],
    ),
    "one user, two passwords": (put(D, "notify.password", "other"), [("notify.password", "two-passwords")]),
    "two of ours on one port": (put(DUAL, "router.http_port", 31459), [("router.http_port", "port-collision")]),
    "router and broker on one port": (put(DUAL, "notify.port", 31459), [("notify.port", "port-collision")]),
    "broker on Erlang's port": (put(D, "rpc.port", 4369), [("rpc.port", "port-collision")]),
    "router on Erlang's port": (put(DUAL, "rpc.port", 4369), [("rpc.port", "port-collision")]),
    "TLS without anything": (
        put(D, "rpc.tls", True),
        [
            ("rpc.tls", "tls-no-certificate"),
            ("tls", "tls-no-ca"),
            ("notify.tls", "tls-no-certificate"),
        ],
    ),
    "TLS without CA": (drop(TLS, "tls.ca_file"), [("tls", "tls-no-ca")]),
    "TLS not on the broker": (
        put(TLS, "broker.tls", False),
        [("broker.tls", "tls-not-on-server"), ("broker.tls", "tls-not-on-server")],
    ),
    "TLS not on the clients": (
        put(put(put(TLS, "rpc.tls", False), "notify.tls", False), "broker.tls", True),
        [("rpc.tls", "tls-not-on-clients"), ("notify.tls", "tls-not-on-clients")],
    ),
    "TLS to an address": (
        put(helpers.with_tls(DUAL), "nodes.1.host", "172.17.0.12"),
        [("nodes[1].host", "tls-needs-name")],
    ),
    "TLS to an external address": (
        put(helpers.with_tls(DUAL), "rpc.hosts", ["router.example.com", "10.0.0.1"]),
        [("rpc.hosts[1]", "tls-needs-name")],
    ),
    "path and PEM": (put(TLS, "tls.ca", helpers.CERTIFICATE), [("tls.ca", "tls-both")]),
    "certificate without key": (drop(TLS, "tls.key_file"), [("tls.certificate_file", "tls-half")]),
    "key without certificate": (
        drop(helpers.with_tls(D, "pem"), "tls.certificate"),
        [("tls.key", "tls-half")],
    ),
    "another version of TLS": (put(TLS, "tls.min_version", "1.1"), [("tls.min_version", "not-one-of")]),
    "a version as a number": (put(TLS, "tls.min_version", 1.2), [("tls.min_version", "wrong-type")]),
    "a cipher of old": (put(TLS, "tls.ciphers", ["RC4-SHA"]), [("tls.ciphers[0]", "not-a-cipher")]),
    "ciphers of one text": (put(TLS, "tls.ciphers", "ECDHE-RSA-AES256-GCM-SHA384"), [("tls.ciphers", "wrong-type")]),
    "a cipher that would end its line": (
        put(TLS, "tls.ciphers", ["ECDHE-RSA-AES256-GCM-SHA384\nlisteners.tcp.1 = 5672"]),
        [("tls.ciphers[0]", "not-a-cipher")],
    ),
    "no ciphers": (put(TLS, "tls.ciphers", []), [("tls.ciphers", "empty-list")]),
    "ciphers of a version that is ruled out": (
        put(put(TLS, "tls.min_version", "1.3"), "tls.ciphers", ["ECDHE-RSA-AES256-GCM-SHA384"]),
        [("tls.ciphers", "tls-ciphers")],
    ),
    "TLS between brokers without a certificate": (
        put(D, "broker.distribution_tls", True),
        [("broker.distribution_tls", "tls-distribution")],
    ),
    "TLS between brokers called by their addresses": (
        put(TLS, "nodes.1.name", "172.17.0.12"),
        [("nodes[1].name", "tls-node-name"), ("nodes", "mixed-names")],
    ),
    "no PEM": (put(helpers.with_tls(D, "pem"), "tls.ca", "MIIB"), [("tls.ca", "not-pem")]),
    "PEM of something else": (
        put(helpers.with_tls(D, "pem"), "tls.key", helpers.CERTIFICATE),
        [("tls.key", "not-pem")],
    ),
    "a key among certificates": (
        put(helpers.with_tls(D, "pem"), "tls.certificate", helpers.CERTIFICATE + helpers.KEY),
        [("tls.certificate", "key-in-certificate")],
    ),
    "PEM cut off": (
        put(helpers.with_tls(D, "pem"), "tls.ca", helpers.CERTIFICATE[:40]),
        [("tls.ca", "not-pem")],
    ),
    "embedded mesh": (put(DUAL, "router.engine", "embedded"), [("router.engine", "embedded-mesh")]),
    "129 routers": (put(DUAL, "nodes", names(129)), [("nodes", "too-many-routers")]),
    "129 routers by name": (
        put(put(DUAL, "nodes", names(130)), "rpc.nodes", [n["name"] for n in names(129)]),
        [("rpc.nodes", "too-many-routers")],
    ),
    "129 routers for both halves": (
        put(put(DUAL, "nodes", names(129)), "notify.scheme", "amqp"),
        [("nodes", "too-many-routers")],
    ),
    "queues by two names": (
        put(put(D, "broker.queues", "quorum"), "broker.mirrored_queues", False),
        [("broker.mirrored_queues", "queues-twice")],
    ),
    "queues of no kind": (put(D, "broker.queues", "lazy"), [("broker.queues", "not-one-of")]),
    "brokers apart": (
        put(D, "broker.cluster", False),
        [("broker.cluster", "lone-brokers"), ("broker.cluster", "lone-brokers")],
    ),
    "short and long names": (put(D, "nodes.0.name", "ctl-0.example.com"), [("nodes", "mixed-names")]),
    "a line end for saslpasswd2": (put(DUAL, "rpc.password", "ab\n"), [("rpc.password", "password-line-end")]),
    "everybody's address": (put(D, "nodes.0.address", "0.0.0.0"), [("nodes[0].address", "no-own-address")]),
    "a multicast address": (put(D, "nodes.0.address", "224.0.0.1"), [("nodes[0].address", "no-own-address")]),
    "a mapped broadcast address": (
        put(helpers.default(1, 0), "nodes.0.address", "::ffff:255.255.255.255"),
        [("nodes[0].address", "no-own-address")],
    ),
    "everybody's address for clients": (put(D, "nodes.0.host", "0.0.0.0"), [("nodes[0].host", "no-own-address")]),
    "a link-local address for clients": (
        put(helpers.default(1, 0), "nodes.0.host", "fe80::1"),
        [("nodes[0].host", "no-own-address")],
    ),
    "everybody's external address": (
        put(D, "rpc.hosts", ["0.0.0.0"]),
        [("rpc.hosts[0]", "no-own-address"), ("notify.hosts[0]", "no-own-address")],
    ),
    "an address of few numbers": (put(D, "nodes.0.host", "0x7f.1"), [("nodes[0].host", "not-a-host")]),
    "an address of one number": (put(D, "nodes.0.host", "0X7F000001"), [("nodes[0].host", "not-a-host")]),
    "one address in two spellings": (
        put(put(helpers.default(2, 0), "nodes.0.address", "::1"), "nodes.1.address", "0:0:0:0:0:0:0:1"),
        [("nodes[1].address", "twice")],
    ),
    "user with realm": (put(DUAL, "rpc.username", "rpc@overcloud"), [("rpc.username", "username-realm")]),
    "certificates of the mesh without key": (
        put(put(DUAL, "router.mesh_ca_file", "/ca"), "router.mesh_certificate_file", "/certificate"),
        [("router.mesh_key_file", "mesh-files")],
    ),
    "a key of the mesh alone": (
        put(DUAL, "router.mesh_key_file", "/key"),
        [("router.mesh_ca_file", "mesh-files"), ("router.mesh_certificate_file", "mesh-files")],
    ),
    "the agent's own user": (put(DUAL, "rpc.username", "router-admin"), [("rpc.username", "username-taken")]),
    "a number that is not finite": (put(D, "rpc.port", float("nan")), [("rpc.port", "wrong-type")]),
}

FINDINGS = {
    "fanout-duplicates",
    "cookie-derived",
    "cookie-replaced",
    "listens-everywhere",
    "mirrored-queues",
    "not-stored",
    "plaintext",
    "role-unused",
    "roles-overruled",
    "scram-cyrus",
    "still-accepted",
}  # they stop nothing; test_model_defaults.py has them


@pytest.mark.parametrize(("raw", "expected"), CASES.values(), ids=CASES.keys())
def test_problem(raw: object, expected: list[tuple[str, str]]) -> None:
    assert problems(raw) == expected


def codes_named_in_model() -> set[str]:
    paths = [helpers.PACKAGE / "fields.py", helpers.PACKAGE / "rules.py", *(helpers.PACKAGE / "parse").glob("*.py")]
    modules = [ast.parse(path.read_text()) for path in paths]
    constants = [n for module in modules for n in ast.walk(module) if isinstance(n, ast.Constant)]
    return {n.value for n in constants if isinstance(n.value, str)} & set(kinds.KINDS)


def test_every_code_of_the_model_has_a_case() -> None:
    covered = {code for _, expected in CASES.values() for _, code in expected}
    assert codes_named_in_model() - FINDINGS == covered


@pytest.mark.parametrize("raw", [raw for raw, _ in CASES.values()], ids=CASES.keys())
def test_a_problem_has_a_message_and_a_remedy(raw: object) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        parse.deployment(raw, helpers.catalogue())
    for problem in caught.value.problems:
        assert problem.message and problem.remedy and problem.path
        assert "{" not in problem.message + problem.remedy, "a placeholder was left"
        assert str(problem) in str(caught.value)


def test_all_problems_at_once() -> None:
    raw = {
        "rpc": {"port": "x", "tls": "x", "scheme": "x", "passwrd": "x"},
        "notify": {"username": ""},
        "nodes": [{"name": "a b", "address": []}, {"place": "x"}],
        "router": {"engine": "x"},
        "broker": [],
        "tls": {"ca": "x", "certificate_file": "x"},
        "node": 7,
        "services": "x",
        "sites": {"links": "x"},
        "extra": 1,
    }
    assert sorted(problems(raw)) == sorted(
        [
            ("rpc.port", "wrong-type"),
            ("rpc.tls", "wrong-type"),
            ("rpc.scheme", "not-one-of"),
            ("rpc", "unknown-key"),
            ("rpc.password", "missing"),
            ("nodes[0].name", "not-a-host"),
            ("nodes[0].address", "wrong-type"),
            ("nodes[1].name", "missing"),
            ("nodes[1]", "unknown-key"),
            ("router.engine", "not-one-of"),
            ("broker", "wrong-type"),
            ("tls.ca", "not-pem"),
            ("tls.certificate_file", "bad-text"),
            ("tls.certificate_file", "tls-half"),
            ("node", "wrong-type"),
            ("services", "wrong-type"),
            ("sites.links", "wrong-type"),
            ("oslo_messaging", "unknown-key"),
        ]
    )


def test_routers_of_two_families_may_be_mixed_where_every_url_has_one_host() -> None:
    assert problems(MIXED) == []


def said(raw: Raw) -> str:
    with pytest.raises(errors.InvalidInput) as caught:
        parse.deployment(raw)
    return "\n".join(map(str, caught.value.problems))


def test_the_remedy_for_sites_that_are_apart_is_possible() -> None:
    assert 'no link leads from "dc2" to "dc1". Add a link' in said(put(SITES, "sites", {}))
    unnamed = said(put(SITES, "nodes.2.site", ""))
    assert '1 nodes with a router have no site, the first is "ctl-2"' in unnamed and "Give every node a site" in unnamed
    raw = put(
        put(SITES, "nodes.3.site", "dc3"), "sites.links", [{"between": ["dc1", "dc3"]}, {"between": ["dc3", "dc2"]}]
    )
    assert 'the way from "dc2" to "dc1" leads over "dc3", where no interior router is' in said(raw)
    assert 'Give "dc3" an interior router, or link "dc2" with' in said(raw)


def test_the_reserved_user_name_is_said() -> None:
    assert "router-admin" in said(put(DUAL, "rpc.username", "router-admin"))


def test_every_nonsense_at_once() -> None:
    raw = put(put(put(helpers.with_tls(DUAL), "node", "x"), "router.engine", "embedded"), "rpc.username", "a@b")
    assert {code for _, code in problems(raw)} == {"not-in-nodes", "embedded-mesh", "username-realm"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("p@ss word\0", "U+0000 at position 10"),
        ("\ud83d-lone", "U+D83D at position 1"),
        ("p@ss" * 400, "its form or length"),
    ],
)
def test_a_sentence_points_at_the_very_character(text: str, said: str) -> None:
    with pytest.raises(errors.InvalidInput, match=r"rpc\.password") as caught:
        parse.deployment(put(D, "rpc.password", text))
    assert said in caught.value.problems[0].message
