"""Metadata with a canary wherever a secret may stand, in every shape in which it reaches a node."""

from __future__ import annotations

import functools
import json
import typing

from om_agent import parse
from om_agent.parse import keys

from tests.security import canary
from tests.support import helpers, tls

Raw = dict[str, typing.Any]

# RabbitMQ's passwords have no slash, a router's end in no line break, a mesh's have no control characters.
LINE = canary.BETWEEN_IN_LINE
PEM_KEY = f"-----BEGIN PRIVATE KEY-----\n{canary.STEM}key\n{canary.STEM}=\n-----END PRIVATE KEY-----\n"  # no real one
COOKIE = f"{canary.STEM}cookie_+/=-{canary.STEM}"
OLD = f"rabbit://guest:{canary.STEM}old@192.0.2.9:5672/"


@functools.cache
def pair() -> tls.Pair:
    """A certificate that is valid for every node, and its key."""
    return tls.authority().issue("ctl-0", "ctl-1", "ctl-2", "cmp-0")


def words() -> list[str]:
    """Return other secret text: the lines of the real key except the first, which all keys share."""
    return pair().key.splitlines()[2:-2]


def dual(controllers: int = 2) -> Raw:
    """Every key that holds a secret, over both backends and with TLS."""
    raw = helpers.with_tls(helpers.dual(controllers), "pem")
    raw["rpc"].update(password=canary.secret("rpc"), username="rpc user")
    raw["notify"].update(password=canary.secret("notify"), virtual_host="a/b")
    for half in ("rpc", "notify"):  # while passwords are changed
        raw[half]["also_accept"] = [{"username": f"former {half}", "password": canary.secret("former")}]
    raw["router"] = {"mesh_password": canary.secret("mesh", LINE), "admin_password": canary.secret("admin", LINE)}
    raw["broker"] = {"erlang_cookie": COOKIE}
    raw["tls"] = {"ca": tls.authority().pem, "certificate": pair().certificate}
    raw["tls"]["key"] = f"the key of {canary.STEM}\n{pair().key}"  # OpenSSL passes over what stands around a block
    return raw


def rabbit() -> Raw:
    """One broker for both halves, and everything else derived from its password."""
    return {**helpers.default(2), "rpc": {"password": canary.secret("rpc")}}


def routers() -> Raw:
    """Routers for both halves."""
    raw = helpers.dual(2)
    raw["rpc"]["password"], raw["router"] = canary.secret("rpc"), {"mesh_password": canary.secret("mesh", LINE)}
    raw["notify"] = {"scheme": "amqp", "tls": False, "username": "notify", "password": canary.secret("notify")}
    return raw


def external() -> Raw:
    """Both halves run by somebody else."""
    return {
        "rpc": {
            "scheme": "amqp",
            "tls": False,
            "hosts": ["router.example.com"],
            "password": canary.secret("rpc", "/" + LINE),
        },
        "notify": {"scheme": "rabbit", "hosts": ["192.0.2.7", "192.0.2.8"], "password": canary.secret("notify")},
        "nodes": helpers.nodes(2),
    }


def embedded() -> Raw:
    """The development router."""
    raw = helpers.dual(1)
    raw["rpc"]["password"], raw["notify"]["password"] = canary.secret("rpc"), canary.secret("notify")
    raw["broker"] = {"erlang_cookie": COOKIE}
    raw["router"] = {
        "engine": "embedded",
        "mesh_password": canary.secret("mesh", LINE),
        "admin_password": canary.secret("admin", LINE),
    }
    return raw


BACKENDS: dict[str, typing.Callable[[], Raw]] = {
    "dual": dual,
    "rabbit": rabbit,
    "routers": routers,
    "external": external,
    "embedded": embedded,
}


def others() -> Raw:
    """What other projects have in the same metadata: none of our business, and full of secrets."""
    return {
        "mysql_password": canary.secret("mysql"),
        canary.secret("key"): {"deep": [canary.secret("list")]},
        "nova::api_database::password": canary.secret("nova"),
    }


def documents() -> dict[str, bytes]:
    """The same deployment as every kind of document that the agent reads, each a file's bytes."""
    raw = dual()
    deployment = {
        "group": "om-messaging",
        "config": json.dumps({k: v for k, v in raw.items() if k != "rpc"}),
        "inputs": [
            {"name": "other", "value": canary.secret("input"), "type": "String"},
            {"name": "oslo_messaging", "value": {"rpc": raw["rpc"]}},
        ],
    }
    hiera = {
        **{f"oslo_messaging_{half}_password": canary.secret(half) for half in ("rpc", "notify")},
        **{f"oslo_messaging_{half}_user_name": half for half in ("rpc", "notify")},
        **{f"oslo_messaging_{half}_node_names": ["ctl-0"] for half in ("rpc", "notify")},
        "oslo_messaging_rpc_scheme": "amqp",
        "oslo_messaging_rpc_use_ssl": False,
        "oslo_messaging_router": {"mesh_password": canary.secret("mesh", LINE)},
        "oslo_messaging_broker": {"erlang_cookie": COOKIE},
    }
    return {
        "oslo_messaging": json.dumps({"oslo_messaging": raw, **others()}).encode(),
        "deployments": json.dumps({"deployments": [deployment], **others()}).encode(),
        "hieradata": json.dumps({**hiera, **others()}, ensure_ascii=False).encode(),
    }


def heat() -> bytes:
    """A deployment as heat-config gives it to a hook."""
    config = json.dumps({"oslo_messaging": dual()})
    inputs = [
        {"name": "db_password", "value": canary.secret("input")},
        {"name": "deploy_password", "value": canary.secret("heat")},
        {"name": "verify_timeout", "value": "0"},
    ]
    return json.dumps({"id": "1", "group": "om-messaging", "config": config, "inputs": inputs}).encode()


def derived(raw: Raw) -> list[str]:
    """Return the derived secrets, with which anyone could log in."""
    d = parse.deployment(raw, helpers.catalogue())
    found = [d.router.mesh_password, d.router.admin_password, d.broker.erlang_cookie]
    return [s.reveal() for s in found if s.reveal() and canary.STEM not in s.reveal()]


def slips() -> dict[str, bytes]:
    """Documents that are wrong just where a secret is, as people make them."""
    word = f"{canary.STEM}slip"
    good = json.dumps({"oslo_messaging": dual()})
    at = good.index('"password": "') + len('"password": "') + 8
    nodes = "nodes: [{name: ctl-0, address: 192.0.2.1}]"
    return {
        "JSON cut off in a secret": good[:at].encode(),
        "JSON with a line break in a secret": (good[:at] + "\n" + good[at:]).encode(),
        "JSON with a bad escape in a secret": (good[:at] + "\\q" + good[at:]).encode(),
        "JSON with a quote in a secret": (good[:at] + '"' + good[at:]).encode(),
        "JSON without its end": good[:-1].encode(),
        "JSON with a number that is none": f'{{"oslo_messaging": {{"rpc": {{"password": 12{word}}}}}}}'.encode(),
        "not UTF-8 in a secret": good[:at].encode() + b"\xff" + good[at:].encode(),
        "YAML, no blank behind the colon": f"oslo_messaging: {{rpc: {{password:{word}}}, {nodes}}}".encode(),
        "YAML, no colon": f"oslo_messaging: {{rpc: {{password {word}}}, {nodes}}}".encode(),
        "YAML, an equals sign": f"oslo_messaging:\n  rpc: password={word}\n  {nodes}\n".encode(),
        "YAML, an equals sign in a mapping": f"oslo_messaging: {{rpc: {{password={word}}}, {nodes}}}".encode(),
        "YAML, a secret as a key": f"oslo_messaging:\n  ? '{word}!'\n  : 1\n  {nodes}\n".encode(),
        "YAML, such a key twice": f"oslo_messaging: {{'{word} x': 1, '{word} x': 2}}".encode(),
        "YAML, a tag": f"oslo_messaging:\n  rpc: !{word} {{password: {word}}}\n".encode(),
        "YAML, a tag of Python": f"oslo_messaging: !!python/object:os.{word} {{a: {word}}}\n".encode(),
        "YAML, a number": f"oslo_messaging: {{rpc: {{password: !!int {word}}}}}".encode(),
        "YAML, a date": f"oslo_messaging: {{rpc: {{password: !!timestamp {word}}}}}".encode(),
        "YAML, an alias": f"oslo_messaging: {{rpc: {{password: *{word}}}}}".encode(),
        "YAML, an anchor twice": f"oslo_messaging: [&{word} a, *{word}]".encode(),
        "YAML, a tab": f"oslo_messaging:\n\trpc: {word}\n".encode(),
        "YAML, a quote": f"oslo_messaging: {{rpc: {{password: '{word}}}}}".encode(),
        "YAML, two documents": f"oslo_messaging: {word}\n---\n{word}\n".encode(),
        "YAML, a directive": f"%{word}\n---\n{word}\n".encode(),
        "a line": word.encode(),
        "a list": json.dumps([word]).encode(),
    }


# Where any line of text is good.
FREE = ("rpc.virtual_host", "notify.virtual_host")


def paths() -> list[str]:
    """Where each declared key stands in `dual`: the first entry of a list has it."""
    return ["nodes.0", *(path.replace("[]", ".0") for path, _ in keys.every())]


def secret_paths() -> list[str]:
    """Where each key stands whose value is declared to be a secret."""
    return [path.replace("[]", ".0") for path, key in keys.every() if key.secret]


def misplaced() -> dict[str, Raw]:
    """Well-formed metadata with a secret where something else is wanted, or something else where a secret is."""
    text, line = canary.secret("misplaced"), f"{canary.STEM}misplaced"
    found: dict[str, Raw] = {}
    for path in paths():
        for kind, value in {
            "text": text + "\0",
            "list": [text],
            "mapping": {"password": text},
            "list of mappings": [{text: text}],
            "URL": f"rabbit://user:{line}@host:5672/",
            "very long": text * 40,
        }.items():
            if path not in FREE or kind != "URL":
                found[f"{path} is a {kind}"] = helpers.put(dual(), path, value)
    found["a key that is a secret"] = helpers.put(dual(), "rpc." + text.replace(".", ""), "x")
    found["a key with a secret"] = helpers.put(dual(), "rpc.secret", text)
    found["a node's key that is a secret"] = helpers.put(dual(), "nodes.0." + text.replace(".", ""), 1)
    found["a role that is a secret"] = helpers.put(dual(), "router.roles", {text: "edge", "a": text})
    found["a certificate with its key"] = helpers.put(dual(), "tls.certificate", helpers.CERTIFICATE + PEM_KEY)
    found["authorities with a key"] = helpers.put(dual(), "tls.ca", PEM_KEY + helpers.CERTIFICATE)
    found["hosts with a login"] = helpers.put(external(), "notify.hosts", [f"user:{line}@h"])
    found["two passwords of one user"] = helpers.put(helpers.put(rabbit(), "notify.password", text + "2"), "a", 1)
    return found
