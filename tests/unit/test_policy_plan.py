"""The rendered router policy, matched as the engines match it."""

from __future__ import annotations

import re
import typing

import pytest
from om_agent import model, parse
from om_agent.plan import policy, router, topology

from tests.support import helpers

put = helpers.put


def vhosts(raw: helpers.Raw, node: str = "ctl-0") -> dict[str, dict[str, typing.Any]]:
    d = parse.deployment(raw)
    built = router.plan_router(d, d.by_name()[node], helpers.host(), topology.mesh(d))
    assert built
    return {a["hostname"]: a for kind, a in built.entities if kind == "vhost"}


def matches(pattern: str, address: str) -> bool:
    """``*`` is one word, ``#`` any number of them, and words end at ``/`` and ``.`` (parse_tree.c of both engines)."""
    words = {"*": "[^ ]+", "#": "([^ ]+( |$))*"}
    parts = [words.get(w, re.escape(w)) for w in re.split(r"[/.]", pattern)]
    expression = "".join(p if p == words["#"] else p + "( |$)" for p in parts)
    return re.fullmatch(expression, " ".join(re.split(r"[/.]", address))) is not None


def allowed(group: dict[str, typing.Any], way: str, address: str) -> bool:
    return any(matches(pattern, address) for pattern in group[f"{way}Pattern"].split(","))


def test_a_service_reaches_its_own_half_and_answers() -> None:
    group = vhosts(helpers.dual())["client-rpc"]["groups"]["rpc"]
    assert group["users"] == "rpc@overcloud"
    for way in ("source", "target"):
        assert allowed(group, way, "openstack.org/om/rpc/anycast/nova/conductor")
        assert not allowed(group, way, "openstack.org/om/notify/anycast/nova/info")
        assert not allowed(group, way, "openstack.org/om/rpcs/x")
        assert not allowed(group, way, "$management")
        assert not allowed(group, way, "amqp:/_topo/0/ctl.temp.x/$management")
        assert not allowed(group, way, "_topo/0/ctl-1/$management")
    for answers in ("amqp:/_topo/0/ctl-1/temp.0aZ+_9", "amqp:/_topo/0/a.b.c/temp.1", "amqp:/_edge/cmp-0/temp.1"):
        assert allowed(group, "target", answers)
        assert not allowed(group, "source", answers)  # of others


def test_management_is_for_the_agent() -> None:
    groups = vhosts(helpers.dual())["client-rpc"]["groups"]
    everything = [name for name, group in groups.items() if group.get("targets") == "*" or group.get("sources") == "*"]
    assert everything == ["operator"]
    assert groups["operator"]["users"] == f"{model.ADMIN_USER}@overcloud"
    assert not vhosts(helpers.dual())["client-rpc"]["allowUnknownUser"]


def test_edges_come_by_another_listener() -> None:
    assert vhosts(helpers.dual())[policy.ROUTERS]["groups"]["$default"]["targets"] == "*"
    assert policy.ROUTERS not in vhosts(helpers.dual(), "cmp-0")
    assert policy.ROUTERS not in vhosts(put(helpers.dual(), "router.clients", "mesh"))


BOTH = put(
    helpers.dual(),
    "notify",
    {"scheme": "amqp", "tls": False, "username": "n", "password": "notify-secret", "port": 5671},
)


def test_who_is_accepted_too_may_do_the_same() -> None:
    pinned = put(put(helpers.dual(), "router.mesh_password", "m"), "broker.erlang_cookie", "cookiecookie")
    old, new = (vhosts(put(pinned, "rpc", {"scheme": "amqp", "tls": False, **user}))["client-rpc"] for user in TURNS)
    assert old["groups"]["rpc"]["users"] == "rpc-1@overcloud,rpc-2@overcloud"
    assert old == new  # whichever of the two services are given


TURNS = [
    {**first, "also_accept": [second]}
    for first, second in (
        ({"username": "rpc-1", "password": "a"}, {"username": "rpc-2", "password": "b"}),
        ({"username": "rpc-2", "password": "b"}, {"username": "rpc-1", "password": "a"}),
    )
]


@pytest.mark.parametrize(
    ("raw", "groups"),
    [
        (BOTH, {"client-rpc": ["rpc"], "client-notify": ["notify"]}),
        (put(BOTH, "notify.port", 31459), {"client-rpc": ["rpc", "notify"]}),
        (
            put(put(put(BOTH, "notify.port", 31459), "notify.username", "rpc"), "notify.password", "rpc-secret"),
            {"client-rpc": ["rpc-notify"]},
        ),
    ],
)
def test_two_halves(raw: helpers.Raw, groups: dict[str, list[str]]) -> None:
    found = vhosts(raw)
    del found[policy.ROUTERS]
    assert {name: [g for g in a["groups"] if g != "operator"] for name, a in found.items()} == groups


def test_virtual_hosts_are_apart() -> None:
    group = vhosts(put(helpers.dual(), "rpc.virtual_host", "cell.1/a"))["client-rpc"]["groups"]["rpc"]
    assert allowed(group, "target", "openstack.org/om/rpc/unicast/cell.1/a/nova/compute/h")
    assert not allowed(group, "target", "openstack.org/om/rpc/unicast/cell.2/a/nova/compute/h")
    assert not allowed(group, "source", "openstack.org/om/rpc/unicast/nova/compute/h")


@pytest.mark.parametrize("node", ["ctl-0", "cmp-0"])
def test_only_what_ends_without_harm_is_limited(node: str) -> None:
    """A process has a session, a sender and a receiver for each of thousands of peers, and may send what it likes."""
    for group in vhosts(helpers.dual(), node)["client-rpc"]["groups"].values():
        assert group.get("maxSessions", policy.SESSIONS) == 32768
        assert not {name for name in group if name.startswith("max")} - {"maxSessions"}
