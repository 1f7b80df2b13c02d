"""verify's findings for an observed state: every fault alone, without a router or a broker."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import typing

import pytest
from om_agent import errors, kinds, observed, parse, plan, report, verify
from om_agent.observe import brokers

from tests.support import helpers

PRODUCT = "qpid-dispatch-router 1.19.0"
ALL = frozenset(("ctl-0", "ctl-1", "ctl-2"))
OWN = observed.RouterSeen(
    observed.OPEN, container="ctl-0", product=PRODUCT, version="1.19.0", uptime=90061, clients=3, links=40, reached=ALL
)
WELL = observed.MeshSeen(OWN, views=dict.fromkeys(sorted(ALL), ALL))
MEMBERS = ("rabbit@ctl-0", "rabbit@ctl-1", "rabbit@ctl-2")
BROKER = observed.BrokerSeen(
    version="3.10.8", members=MEMBERS, running=MEMBERS, listeners=(("172.17.0.11", 5672),), queues=4, messages=2
)
QUORUM = "[oslo_messaging_rabbit]\nrabbit_quorum_queue = true\n"
SERVICE = "[Service]\nExecStart=/usr/bin/nova-api --config-file /etc/nova/nova.conf --config-file /etc/nova/api.conf\n"
GOOD = observed.Seen(mesh=WELL, broker=BROKER, probes=(observed.Probe("rpc", "ctl-1", "/etc/nova/nova.conf", "", 0.1),))


def node_plan(name: str = "ctl-0") -> plan.Plan:
    return helpers.plan_for(helpers.dual(), name)


def codes(seen: observed.Seen, name: str = "ctl-0") -> list[str]:
    return [f.code for f in verify.findings(node_plan(name), seen)]


def with_own(**changes: typing.Any) -> observed.Seen:
    return dataclasses.replace(GOOD, mesh=dataclasses.replace(WELL, own=dataclasses.replace(OWN, **changes)))


def with_peer(peer: observed.RouterSeen, connectors: tuple[observed.Connector, ...] = ()) -> observed.Seen:
    own = dataclasses.replace(OWN, reached=ALL - {"ctl-2"}, connectors=connectors)
    views = dict.fromkeys(("ctl-0", "ctl-1"), ALL - {"ctl-2"})
    return dataclasses.replace(GOOD, mesh=observed.MeshSeen(own, views=views, peers={"ctl-2": peer}))


def with_broker(**changes: typing.Any) -> observed.Seen:
    return dataclasses.replace(GOOD, broker=dataclasses.replace(BROKER, **changes))


def test_all_is_well() -> None:
    assert codes(GOOD) == []


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (observed.REFUSED, "router-down"),
        (observed.SILENT, "router-hung"),
        (observed.LOGIN, "router-login"),
        (observed.CERTIFICATE, "router-certificate"),
        (observed.CLOSED, "router-closed"),
    ],
)
def test_this_router_cannot_be_asked(kind: str, code: str) -> None:
    assert codes(with_own(login=kind)) == [code]
    assert not verify.can_send(verify.findings(node_plan(), with_own(login=kind)))


def connection(**changes: str) -> observed.RouterConnection:
    values = {"role": "inter-router", "direction": "in", "host": "h:1", "container": "ctl-1", "product": PRODUCT}
    return observed.RouterConnection(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"product": "skupper-router 3.4.2"}, "router-engine"),
        ({"product": ""}, "router-engine"),
        ({"container": "ctl-9"}, "router-stranger"),
        ({"connections": (connection(product="skupper-router 3.4.2"),)}, "other-engine"),
        ({"connections": (connection(container="ctl-0"),)}, "duplicate-id"),
        ({"connections": (connection(), connection(host="h:2"))}, "duplicate-id"),
        ({"connections": (connection(), connection(role="inter-router-data", host="h:2"))}, None),
    ],
)
def test_what_this_router_shows(changes: dict[str, typing.Any], code: str | None) -> None:
    assert codes(with_own(**changes)) == ([code] if code else [])


LINK = observed.Connector("inter-router/ctl-2", "CONNECTING", "")
PEER = observed.RouterSeen(observed.OPEN, container="ctl-2", product=PRODUCT)
REFUSED = "Connection to h:1 failed: amqp:connection:framing-error SSL Failure: certificate verify failed"
NO_MECHANISM = "Connection to h:1 failed: amqp:unauthorized-access Authentication failed [mech=EXTERNAL]"
EXPIRED = "Connection to h:1 failed: amqp:connection:framing-error SSL Failure: certificate has expired"


@pytest.mark.parametrize(
    ("peer", "said", "code"),
    [
        (observed.RouterSeen(observed.REFUSED), "", "peer-down"),
        (observed.RouterSeen(observed.SILENT), "", "peer-hung"),
        (observed.RouterSeen(observed.LOGIN), "", "peer-login"),
        (observed.RouterSeen(observed.CERTIFICATE, "expired"), "", "peer-certificate"),
        (dataclasses.replace(PEER, product="skupper-router 3.4.2"), "", "other-engine"),
        (dataclasses.replace(PEER, container="ctl-1"), "", "duplicate-id"),
        (PEER, "", "peer-unlinked"),
        (PEER, REFUSED, "peer-credentials"),
        (PEER, NO_MECHANISM, "peer-credentials"),
        (PEER, EXPIRED, "peer-credentials"),
    ],
)
def test_why_a_peer_is_not_reached(peer: observed.RouterSeen, said: str, code: str) -> None:
    links = (dataclasses.replace(LINK, said=said),) if said else ()
    assert codes(with_peer(peer, links)) == [code]
    back = tuple(dataclasses.replace(link, name="inter-router/ctl-0") for link in links)
    assert codes(with_peer(dataclasses.replace(peer, connectors=back))) == [code]


def test_routers_that_do_not_accept_each_other_are_told_why_and_what_next() -> None:
    links = (dataclasses.replace(LINK, said=EXPIRED),)
    (found,) = verify.findings(node_plan(), with_peer(PEER, links))
    assert "the router on ctl-0 reports that a certificate has expired" in found.message
    assert "router.mesh_password" in found.message and "router.mesh_certificate_file" in found.message
    assert "-in /etc/qpid-dispatch/mesh/certificate.pem on both" in found.remedy


def test_a_reached_router_that_does_not_answer_or_sees_less() -> None:
    assert codes(dataclasses.replace(GOOD, mesh=dataclasses.replace(WELL, views={"ctl-1": ALL}))) == ["peer-hung"]
    views = {**WELL.views, "ctl-1": ALL - {"ctl-2"}}
    assert codes(dataclasses.replace(GOOD, mesh=dataclasses.replace(WELL, views=views))) == ["peer-partial"]


def test_listeners_whose_certificates_are_looked_at() -> None:
    """Those of what answers, each with the file that its own configuration names."""
    raw = helpers.with_tls(helpers.dual())
    for i, node in enumerate(raw["nodes"]):
        raw = helpers.put(raw, f"nodes.{i}.host", f"{node['name']}.example.com")
    planned = helpers.plan_for(raw, "ctl-0")
    own, mesh = "/etc/pki/tls/node.pem", "/etc/qpid-dispatch/mesh/certificate.pem"
    routers = [(31459, own), (31460, mesh), (31461, mesh)]
    found = verify.tls_listeners(planned, GOOD)
    assert [(s.port, s.file) for s in found if s.half == "router"] == routers
    assert [(s.host, s.port, s.file) for s in found if s.half == "broker"] == [("172.17.0.11", 5672, own)]
    assert {s.half for s in verify.tls_listeners(planned, with_own(login=observed.SILENT))} == {"broker"}
    assert {s.half for s in verify.tls_listeners(planned, with_broker(why="it does not run"))} == {"router"}
    assert {s.port for s in verify.tls_listeners(node_plan(), GOOD)} == {
        31460,
        31461,
    }  # routers always speak TLS to each other
    assert verify.tls_listeners(node_plan(), observed.Seen()) == ()


def test_a_certificate_that_was_not_read_anew_is_a_warning() -> None:
    stale = (
        observed.TlsListener("router", "172.17.0.11", 31459, "/etc/pki/node.pem"),
        observed.TlsListener("broker", "172.17.0.11", 5672, "/etc/pki/node.pem"),
    )
    found = verify.findings(node_plan(), dataclasses.replace(GOOD, stale=stale))
    assert [(f.path, f.code, f.severity) for f in found] == [
        ("router on ctl-0", "stale-certificate", errors.WARNING),
        ("broker on ctl-0", "stale-broker-certificate", errors.WARNING),
    ]
    assert (
        "172.17.0.11:31459 still shows an old certificate, not the present one in /etc/pki/node.pem" in found[0].message
    )
    assert "systemctl restart qdrouterd" in found[0].remedy and "clear_pem_cache" in found[1].remedy
    assert verify.can_send(found) and verify.settled(found)


@pytest.mark.parametrize(
    ("connections", "code"),
    [
        ((), ["link-down"]),
        ((connection(container="ctl-2"),), ["link-down"]),
        ((connection(container="ctl-2", direction="out"),), []),
        ((connection(container="ctl-2", direction="out", role="edge"),), []),
    ],
)
def test_a_broken_connection_to_a_router_that_is_reached_another_way(
    connections: tuple[observed.RouterConnection, ...], code: list[str]
) -> None:
    """It is waited for, and then told: messaging works, and redundancy is lost."""
    link = dataclasses.replace(LINK, status="SUCCESS")  # what a connector says after its connection has timed out
    found = verify.findings(node_plan(), with_own(connectors=(link,), connections=connections))
    assert [f.code for f in found] == code
    assert kinds.verdict(found) == (kinds.DEGRADED if code else kinds.WORKS)
    assert verify.settled(found) is not bool(code)


def test_nothing_to_ask_with() -> None:
    found = verify.findings(node_plan(), with_own(login=observed.UNASKED))
    assert [f.code for f in found] == ["no-proton"]
    assert verify.settled(found)


def test_drift_and_drain() -> None:
    assert codes(dataclasses.replace(GOOD, mesh=dataclasses.replace(WELL, drift=("+ connector x",)))) == [
        "router-drift"
    ]
    drained = dataclasses.replace(WELL, drift=("+ listener client-rpc", f"- listener {verify.AGENT_LISTENER}"))
    assert codes(dataclasses.replace(GOOD, mesh=drained)) == ["router-drained"]


def test_a_router_that_lacks_addresses_of_this_one() -> None:
    seen = dataclasses.replace(GOOD, mesh=dataclasses.replace(WELL, unknown={"ctl-2": 20}))
    (found,) = verify.findings(node_plan(), seen)
    assert found.code == "addresses-unknown" and "the router on ctl-2 did not learn 20 addresses" in str(found)
    assert kinds.verdict((found,)) == kinds.BROKEN
    assert not verify.settled((found,))  # updates come once a second: wait before anybody is told


def test_an_edge_router() -> None:
    up = observed.RouterConnection("edge", "out", "h:1", "ctl-1", PRODUCT)
    own = dataclasses.replace(OWN, container="cmp-0", reached=frozenset(("cmp-0",)), connections=(up,))
    mesh = observed.MeshSeen(own, views=dict.fromkeys(sorted(ALL), ALL))
    seen = dataclasses.replace(GOOD, mesh=mesh, broker=None)
    assert codes(seen, "cmp-0") == []
    d = plan_deployment()
    assert verify.reached(d, node_plan("cmp-0"), seen) == ALL
    alone = dataclasses.replace(mesh, own=dataclasses.replace(own, connections=()))
    assert "uplink-down" in codes(dataclasses.replace(seen, mesh=alone), "cmp-0")
    strange = dataclasses.replace(own, connections=(dataclasses.replace(up, container="x"),))
    assert codes(dataclasses.replace(seen, mesh=dataclasses.replace(mesh, own=strange)), "cmp-0") == ["uplink-stranger"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"why": "it does not run"}, "broker-down"),
        ({"running": MEMBERS[:2]}, "broker-members"),
        ({"members": (*MEMBERS, "rabbit@old"), "running": MEMBERS}, "broker-stranger"),
        ({"partitions": (MEMBERS[1],)}, "broker-partition"),
        ({"alarms": ("memory is short on rabbit@ctl-1",)}, "broker-alarm"),
        ({"listeners": ()}, "broker-listener"),
        ({"versions": ((MEMBERS[0], "3.13.7"), (MEMBERS[1], "4.0.5"))}, "broker-majors"),
        ({"flags": ("message_containers",)}, "broker-flags"),
        ({"unfit": (("/", "notifications.info", "classic"),)}, "queue-unfit"),
        ({"thin": (("/", "notifications.info", ("rabbit@ctl-1",)),)}, "queue-members"),
    ],
)
def test_the_broker(changes: dict[str, typing.Any], code: str) -> None:
    assert codes(with_broker(**changes)) == [code]


def test_files_and_messages() -> None:
    assert codes(dataclasses.replace(GOOD, changes=("change /etc/x",))) == ["config-differs"]
    probes = (observed.Probe("rpc", "ctl-1", "/x", "late"), observed.Probe("notify", "", "/x", "late"))
    assert codes(dataclasses.replace(GOOD, probes=probes)) == ["rpc-failed", "notify-failed"]


def test_waiting_helps_only_against_what_may_go_away() -> None:
    def settled(*names: str) -> bool:
        values = dict.fromkeys(
            ("name", "source", "what", "count", "where", "unit", "file", "engine", "found", "why", "to"), "x"
        )
        return verify.settled([kinds.problem("x", name, **values) for name in names])

    assert settled()
    assert not settled("peer-down")
    assert settled("other-engine")
    assert settled("peer-down", "other-engine")
    assert verify.settled([kinds.warning("x", "no-probe")])


def rows(**links: str) -> list[dict[str, typing.Any]]:
    """Rows of ``router.node`` as the router a has them: ``b="ac"`` says that b has links to a and c."""
    return [{"id": n, "linkState": list(peers), "routerLink": None, "nextHop": "x"} for n, peers in links.items()]


@pytest.mark.parametrize(
    ("table", "reached"),
    [
        (rows(a="bc", b="ac", c="ab"), "abc"),
        (rows(a="b", b="ac", c="b"), "abc"),
        (rows(a="c", b="ac", c="a"), "ac"),  # b has died: its row, its next hop and its own link state stay
        (rows(a="", b="a"), "a"),
        ([{**rows(b="a")[0], "nextHop": None}, *rows(a="b")], "a"),
        ([], ""),
    ],
)
def test_reachable_by_routing_state(table: list[dict[str, typing.Any]], reached: str) -> None:
    assert verify.reachable(table, "a") == frozenset(reached)


def plan_deployment() -> typing.Any:

    return parse.deployment(helpers.dual(), helpers.catalogue())


# -- reports ---------------------------------------------------------------------------------------------------------

RABBIT: dict[str, typing.Any] = {
    "alarms": [{"node": "rabbit@ctl-1", "resource": "memory", "type": "resource_limit"}],
    "disk_nodes": ["rabbit@ctl-0", "rabbit@ctl-1"],
    "listeners": {
        "rabbit@ctl-0": [
            {"interface": "172.17.0.11", "port": 5672, "protocol": "amqp"},
            {"interface": "[::]", "port": 25672, "protocol": "clustering"},
        ]
    },
    "partitions": {"rabbit@ctl-1": ["rabbit@ctl-0"]},
    "running_nodes": ["rabbit@ctl-0"],
    "versions": {"rabbit@ctl-0": {"rabbitmq_version": "3.10.8"}},
}


def test_what_rabbitmqctl_says() -> None:
    found = brokers.parse_rabbit("rabbit@ctl-0", RABBIT, "# HELP\nrabbitmq_queues 2\nrabbitmq_queue_messages 5.0\n")
    assert found == observed.BrokerSeen(
        version="3.10.8",
        versions=(("rabbit@ctl-0", "3.10.8"),),
        members=("rabbit@ctl-0", "rabbit@ctl-1"),
        running=("rabbit@ctl-0",),
        partitions=("rabbit@ctl-1",),
        alarms=("memory is short on rabbit@ctl-1",),
        listeners=(("172.17.0.11", 5672),),
        queues=2,
        messages=5,
    )
    hung = {"rabbitmq_version": "", "erlang_version": ""}
    status = {**RABBIT, "running_nodes": RABBIT["disk_nodes"], "versions": {**RABBIT["versions"], "rabbit@ctl-1": hung}}
    assert brokers.parse_rabbit("rabbit@ctl-0", status, "").running == ("rabbit@ctl-0",)


def flag(name: str, state: str, stability: str = "stable") -> dict[str, str]:
    return {"name": name, "state": state, "stability": stability}


def test_what_rabbitmqctl_says_of_feature_flags_and_versions() -> None:
    """As 4.0.5 and 4.3.6 print it; 4.3 knows no RAM nodes."""
    status = {
        **RABBIT,
        "versions": {"rabbit@ctl-1": {"rabbitmq_version": "4.0.5"}, "rabbit@ctl-0": {"rabbitmq_version": "3.13.7"}},
        "feature_flags": [
            flag("message_containers", "disabled"),
            flag("quorum_queue", "enabled", "required"),
            flag("khepri_db", "disabled", "experimental"),
        ],
    }
    found = brokers.parse_rabbit("rabbit@ctl-0", status, "")
    assert found.versions == (("rabbit@ctl-0", "3.13.7"), ("rabbit@ctl-1", "4.0.5"))
    assert (found.flags, found.store) == (("message_containers",), "Mnesia")
    status["feature_flags"] = [flag("khepri_db", "enabled")]
    found = brokers.parse_rabbit("rabbit@ctl-0", status, "")
    assert (found.flags, found.store) == ((), "Khepri")


def test_which_queues_services_declare_otherwise() -> None:
    names = ("conductor", "notifications.info", "reply_1f", "conductor_fanout_1f", "amq.gen-1", "om_agent_verify")
    classic = [{"name": name, "type": "classic", "exclusive": False} for name in names]
    more = [
        {"name": "q", "type": "quorum", "exclusive": False},
        {"name": "own", "type": "classic", "exclusive": True},
        {"name": "s", "type": "stream", "exclusive": False},
    ]
    rows = [("/", row) for row in [*classic, *more]]
    assert brokers.unfit_queues(rows, quorum=True) == [
        ("/", "conductor", "classic"), ("/", "notifications.info", "classic"),
    ]  # fmt: skip
    assert brokers.unfit_queues(rows, quorum=False) == [("/", "q", "quorum")]


def test_which_quorum_queues_could_have_more_members() -> None:
    def thin(members: object, names: str, kind: str = "quorum") -> list[str]:
        row = {"name": "q", "type": kind, "members": members}
        return [name for _, _, lacking in brokers.thin_queues([("/", row)], list(names)) for name in lacking]

    assert thin(["a"], "abc") == ["b", "c"]
    assert thin(["a", "b"], "abc") == ["c"]
    assert thin(["a", "b"], "ab") == thin(["a", "b", "c"], "abcde") == thin(["a"], "a") == []
    assert thin(["a", "b", "c"], "ab") == []  # one is down
    assert thin("", "abc", "classic") == thin("", "abc") == []


@pytest.mark.parametrize(
    ("kind", "version", "files", "told"),
    [
        ("", "3.10.8", {"nova/nova.conf": QUORUM}, False),
        ("", "3.10.8", {}, False),
        ("", "4.0.5", {"nova/nova.conf": QUORUM}, True),
        ("quorum", "3.10.8", {}, True),
        ("classic", "3.10.8", {}, True),
        ("mirrored", "3.10.8", {"nova/nova.conf": QUORUM.replace("true", "False")}, True),
        ("mirrored", "3.10.8", {"nova/nova.conf": QUORUM}, False),
        ("classic", "4.0.5", {"nova/nova.conf": QUORUM.replace("true", "Yes")}, False),
        ("classic", "4.0.5", {"nova/nova-api.conf": QUORUM}, True),
        ("classic", "4.0.5", {"nova/api.conf": QUORUM, "systemd/system/nova-api.service": SERVICE}, False),
    ],
)
def test_queues_are_compared_only_where_the_metadata_decides(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, kind: str, version: str, files: dict[str, str], told: bool
) -> None:
    """An operator's own rabbit_quorum_queue stays in the services' files, so the queues fit the services."""

    def answer(b: object, host: object, root: object, command: str, *options: str) -> object:
        rows = [{"name": "q1", "type": "classic"}, {"name": "q2", "type": "quorum"}]  # one of them never fits
        return rows if command == "list_queues" else {}

    for name, content in files.items():
        (tmp_path / "etc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "etc" / name).write_text(content)
    monkeypatch.setattr(brokers, "_ctl", answer)
    raw = helpers.put(helpers.default(), "broker.queues", kind) if kind else helpers.default()
    machine = helpers.host(broker_version=version)
    d, planned = helpers.deployment_and_plan(raw, "ctl-0", machine)
    assert planned.broker
    seen = brokers.rabbit(d, planned, planned.broker, machine, tmp_path, count=False)
    assert bool(seen.unfit) is told


def schema(value: object) -> object:
    """Names and types of a JSON value."""
    if isinstance(value, dict):
        return {key: schema(v) for key, v in value.items()}
    if isinstance(value, list):
        return [schema(value[0])] if value else []
    return type(value).__name__


def test_the_schema_of_status_is_stable() -> None:
    """What doc/verify.rst promises; a key may be added, and none renamed or removed, within version 1."""
    seen = dataclasses.replace(
        GOOD, mesh=dataclasses.replace(WELL, own=dataclasses.replace(OWN, connections=(connection(),)), drift=("x",))
    )
    found = verify.findings(node_plan(), seen)
    told = report.status_json(plan_deployment(), node_plan(), seen, found)
    assert schema(told) == {
        "version": "int", "node": "str", "healthy": "bool", "verdict": "str",
        "rpc": {"scheme": "str", "external": "bool"}, "notify": {"scheme": "str", "external": "bool"},
        "router": {
            "engine": "str", "mode": "str", "running": "bool", "id": "str", "version": "str", "up_seconds": "int",
            "clients": "int", "links": "int", "dropped_presettled": "int",
            "connections": [{"role": "str", "direction": "str", "host": "str", "router": "str"}], "drift": ["str"],
            "interiors": [{"name": "str", "reached": "bool", "reaches": ["str"]}],
        },
        "broker": {
            "name": "str", "running": "bool", "version": "str", "metadata_store": "str",
            "disabled_feature_flags": [], "members": [{"name": "str", "running": "bool"}],
            "partitions": [], "alarms": [], "listeners": [{"address": "str", "port": "int"}], "queues": "int",
            "messages": "int",
        },
        "findings": [{"severity": "str", "path": "str", "code": "str", "message": "str", "remedy": "str"}],
    }  # fmt: skip
    assert told["version"] == 1


def keys(value: object, path: str = "") -> typing.Iterator[str]:
    """Every key of a JSON value as doc/verify.rst writes it, and every place that may hold null instead of keys."""
    if isinstance(value, dict):
        yield from (path,) if path in ("router", "broker") else ()
        for key, below in value.items():
            yield from keys(below, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield from keys(value[0], f"{path}[]")
    else:
        yield path


def documented(command: str) -> list[str]:
    """The keys in the table of doc/verify.rst that follows where a command is said to be stable."""
    text = (helpers.ROOT / "doc/verify.rst").read_text()
    _, _, rest = text.partition(f"``om-agent {command} --json`` is stable")
    table = re.split("^=+  =+$", rest, maxsplit=3, flags=re.MULTILINE)[2]
    found: list[str] = []
    for row in table.strip().splitlines():
        for name in re.findall("``(\\S+)``", row[:38]):
            found.append(found[-1].rpartition(".")[0] + name if name.startswith(".") else name)
    return found


def test_every_key_of_json_is_documented_and_every_documented_key_is_there() -> None:
    found = (kinds.finding("x", "no-probe"),)
    mesh = dataclasses.replace(WELL, own=dataclasses.replace(OWN, connections=(connection(),)))
    seen = dataclasses.replace(GOOD, mesh=mesh)
    told = report.status_json(plan_deployment(), node_plan(), seen, found)
    assert sorted(documented("status")) == sorted(keys(told))
    assert sorted(documented("verify")) == sorted(keys(report.verify_json(node_plan(), seen, found)))


def test_status_as_a_table() -> None:
    text = report.status_text(plan_deployment(), node_plan(), with_broker(running=MEMBERS[:2], alarms=("disk",)))
    assert text.splitlines() == [
        "node            ctl-0 (controller): rpc over amqp, notify over rabbit",
        "router          qdrouterd 1.19.0, interior, up 1 d 1 h",
        "                3 clients, 40 links",
        "  ctl-0         reached, reaches 3 of 3",
        "  ctl-1         reached, reaches 3 of 3",
        "  ctl-2         reached, reaches 3 of 3",
        "broker          RabbitMQ 3.10.8 (Mnesia), 4 queues, 2 messages",
        "  rabbit@ctl-0  runs",
        "  rabbit@ctl-1  runs",
        "  rabbit@ctl-2  DOES NOT RUN",
        "                ALARM: disk",
    ]


def test_status_without_counts() -> None:
    text = report.status_text(plan_deployment(), node_plan(), with_broker(queues=None, messages=None))
    assert "broker          RabbitMQ 3.10.8 (Mnesia)\n" in text


def test_an_address_of_ipv6_is_told_from_its_port() -> None:
    """Wherever verify names the two together."""
    raw = helpers.with_tls(helpers.dual())
    for i, node in enumerate(raw["nodes"]):
        raw = helpers.put(raw, f"nodes.{i}.address", f"fd00::{i + 1}")
        raw = helpers.put(raw, f"nodes.{i}.host", f"{node['name']}.example.com")
    planned = helpers.plan_for(raw, "ctl-0")
    for kind in (observed.REFUSED, observed.SILENT, observed.LOGIN, observed.CERTIFICATE, observed.CLOSED):
        (found,) = verify.findings(planned, dataclasses.replace(with_own(login=kind), broker=None))
        assert " [fd00::1]:31459 " in f"{found.message} "
    shown = verify.tls_listeners(planned, GOOD)
    assert {s.host for s in shown} == {"fd00::1"}
    for found in verify.findings(planned, observed.Seen(stale=shown)):
        assert " [fd00::1]:" in found.message


# -- the record of findings ------------------------------------------------------------------------------------------


def test_what_is_about_the_mesh() -> None:
    """A router that nobody can ask is no whole mesh, and neither the broker nor files are the mesh."""
    mesh = {code for code, kind in kinds.KINDS.items() if kind.mesh}
    assert "no-proton" in mesh
    assert not {code for code in mesh if code.startswith(("broker", "notify", "config", "probe"))}
    found = {code for code, kind in kinds.KINDS.items() if kind.verdict}
    assert {code for code in found if code.startswith(("router-", "peer-", "uplink-", "link-"))} <= mesh


def test_heat_is_told_of_a_router_that_nobody_can_ask() -> None:
    found = verify.findings(node_plan(), with_own(login=observed.UNASKED))
    assert report.mesh_state(plan_deployment(), node_plan(), found).startswith(
        "broken: router on ctl-0: the Python module proton"
    )
    assert report.mesh_state(plan_deployment(), node_plan(), ()) == "works"
    assert (
        report.mesh_state(plan_deployment(), node_plan(), verify.findings(node_plan(), with_broker(why="x"))) == "works"
    )
    stale = (observed.TlsListener("router", "172.17.0.11", 31459, "/etc/pki/node.pem"),)
    warned = verify.findings(node_plan(), dataclasses.replace(GOOD, stale=stale))
    assert len(warned) == 1 and report.mesh_state(plan_deployment(), node_plan(), warned) == "works"


# -- works, degraded, broken -----------------------------------------------------------------------------------------

INTERIOR_LINKS = frozenset((a, b) for a in ALL for b in ALL if a != b)


def without(*dead: str, kind: str = observed.REFUSED, name: str = "ctl-0", cut: tuple[str, ...] = ()) -> observed.Seen:
    """What a node sees of three interiors of which some are dead and one link may be cut."""
    alive = ALL - set(dead)
    edge = name == "cmp-0"
    links = frozenset(pair for pair in INTERIOR_LINKS if set(pair) <= alive and set(pair) != set(cut))
    connector = [(n, k) for n in sorted(alive) for k in ("edge" if edge else "inter-router",)]
    out = tuple(observed.RouterConnection(k, "out", "h:1", n, PRODUCT) for n, k in connector if n != name)
    own = dataclasses.replace(OWN, container=name, reached=frozenset((name,)) if edge else alive, connections=out)
    views = dict.fromkeys(sorted(alive), alive)
    mesh = observed.MeshSeen(own, views=views, peers={n: observed.RouterSeen(kind) for n in dead}, links=links)
    return dataclasses.replace(GOOD, mesh=mesh, broker=None if edge else BROKER)


@pytest.mark.parametrize("name", ["ctl-0", "ctl-2", "cmp-0"])
@pytest.mark.parametrize(
    ("seen", "expected", "said"),
    [
        ({}, kinds.WORKS, []),
        ({"dead": ("ctl-1",)}, kinds.DEGRADED, ["peer-down"]),
        ({"dead": ("ctl-1",), "kind": observed.SILENT}, kinds.DEGRADED, ["peer-hung"]),
        ({"dead": ("ctl-1",), "kind": observed.LOGIN}, kinds.BROKEN, ["peer-login"]),
        ({"cut": ("ctl-0", "ctl-1")}, kinds.DEGRADED, ["link-down"]),
    ],
)
def test_every_node_says_the_same_of_the_same_mesh(
    name: str, seen: dict[str, typing.Any], expected: str, said: list[str]
) -> None:
    dead = seen.get("dead", ())
    found = verify.findings(
        node_plan(name), without(*dead, **{k: v for k, v in seen.items() if k != "dead"}, name=name)
    )
    assert [f.code for f in found] == said
    assert kinds.verdict(found) == expected
    assert {f.severity for f in found} <= {errors.ERROR}
    assert report.mesh_state(plan_deployment(), node_plan(name), found).partition(":")[0] == expected
    assert report.verify_json(node_plan(name), GOOD, found)["verdict"] == expected
    assert report.status_json(plan_deployment(), node_plan(name), GOOD, found)["verdict"] == expected
    assert ("messaging works" if expected == kinds.WORKS else f"messaging is {expected}") in report.verify_text(
        node_plan(name), GOOD, found
    )


def test_a_node_that_may_be_cut_off_does_not_say_that_messaging_works() -> None:
    found = verify.findings(node_plan(), without("ctl-1", "ctl-2", kind=observed.SILENT))
    assert {f.code for f in found} == {"peer-hung", "mesh-minority"}
    assert kinds.verdict(found) == kinds.BROKEN
    found = verify.findings(node_plan(), without("ctl-1", "ctl-2"))  # their machines answer: no router runs there
    assert kinds.verdict(found) == kinds.DEGRADED


@pytest.mark.parametrize(
    ("raw", "code", "expected"),
    [
        ("dual", "unit-unconnected", kinds.BROKEN),
        ("dual", "rpc-failed", kinds.BROKEN),
        ("dual", "address-misfit", kinds.BROKEN),
        ("dual", "notify-failed", kinds.WORKS),  # those go over RabbitMQ
        ("dual", "overridden", kinds.WORKS),
        ("dual", "broker-members", kinds.WORKS),
        ("notify", "unit-unconnected", kinds.WORKS),
        ("notify", "rpc-failed", kinds.WORKS),
        ("notify", "notify-failed", kinds.BROKEN),
        ("both", "rpc-failed", kinds.BROKEN),
        ("both", "notify-failed", kinds.BROKEN),
        ("none", "unit-unconnected", "none"),
    ],
)
def test_the_mesh_is_also_who_is_connected_to_it(raw: str, code: str, expected: str) -> None:
    """Heat's output must not say that it works for a conductor without a connection, and not blame it for a broker."""
    over_rabbit = {**helpers.dual()["rpc"], "scheme": "rabbit"}
    over_routers = {"scheme": "amqp", "username": "notify", "password": "notify-secret", "tls": False}
    halves: dict[str, helpers.Raw] = {
        "dual": {},
        "notify": {"rpc": over_rabbit, "notify": over_routers},
        "both": {"notify": over_routers},
        "none": {"rpc": over_rabbit},
    }
    d, planned = helpers.deployment_and_plan({**helpers.dual(), **halves[raw]}, "ctl-0")
    found = errors.Problem("nova-conductor", code, "it is so", "do that", kinds.KINDS[code].found_severity)
    assert report.mesh_state(d, planned, (found,)).partition(":")[0] == expected


def test_the_worst_reason_is_the_meshs() -> None:
    found = (kinds.finding("a", "peer-down", name="x"), kinds.finding("b", "router-drained"))
    assert report.mesh_state(plan_deployment(), node_plan(), found).startswith("broken: b: ")
    assert report.mesh_state(plan_deployment(), node_plan(), found).endswith("(and 1 more)")


def test_verify_in_one_line() -> None:
    assert report.verify_text(node_plan(), GOOD, ()) == (
        "ctl-0: messaging works: 3 of 3 interior routers reached, 3 of 3 brokers run, 1 call there and back"
    )
    found = verify.findings(node_plan(), with_own(login=observed.REFUSED))
    assert report.verify_text(node_plan(), GOOD, found) == "ctl-0: messaging is broken: 1 fault"
    assert report.verify_json(node_plan(), GOOD, ())["probes"] == [
        {"half": "rpc", "to": "ctl-1", "file": "/etc/nova/nova.conf", "error": "", "seconds": 0.1}
    ]
