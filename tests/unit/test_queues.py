"""Kinds of queues: who decides, the settings of brokers and drivers, and their removal on the way back."""

from __future__ import annotations

import urllib.parse

import pytest
from om_agent import errors, parse
from om_agent.plan import layout, queues

from tests.support import helpers

put = helpers.put
D = helpers.default()
DUAL = helpers.dual()
RABBIT = "oslo_messaging_rabbit"
OLD = {"rabbit_quorum_queue": "true", "amqp_durable_queues": "true"}
ALL = {
    **OLD,
    "rabbit_transient_quorum_queue": "true",
    "rabbit_stream_fanout": "true",
    "rabbit_qos_prefetch_count": "64",
}


def choose(raw: object, host: layout.Host) -> str:
    kind = queues.choose(parse.deployment(raw), host).kind
    return kind.value if kind else ""


@pytest.mark.parametrize(
    ("raw", "facts", "kind"),
    [
        (D, {}, "mirrored"),
        (D, {"broker_version": "3.10.8"}, "mirrored"),
        (D, {"broker_version": "3.13.7"}, "mirrored"),
        (D, {"broker_version": "4.0.0-rc.1"}, "quorum"),
        (D, {"broker_version": "4.0.5"}, "quorum"),
        (D, {"broker_version": "4.3.6", "release": "debian 12"}, "quorum"),
        (D, {"broker_version": "5.0"}, "quorum"),
        (D, {"broker_version": "2.8.4"}, "mirrored"),
        (D, {"release": "debian 12"}, "mirrored"),
        (D, {"release": "debian 13"}, "quorum"),
        (D, {"release": "debian 14"}, "quorum"),
        (D, {"release": "debian"}, "quorum"),
        (D, {"release": "ubuntu 24.04"}, "mirrored"),
        (D, {"release": "ubuntu 25.04"}, "quorum"),
        (D, {"release": "centos 9"}, "mirrored"),
        (D, {"release": "13"}, "mirrored"),
        (put(D, "broker.queues", "classic"), {"broker_version": "4.0.5"}, "classic"),
        (put(D, "broker.queues", "quorum"), {"broker_version": "3.10.8"}, "quorum"),
        (put(D, "broker.queues", "quorum"), {}, "quorum"),
        (put(D, "broker.mirrored_queues", True), {"release": "debian 13"}, "mirrored"),
        (put(D, "broker.mirrored_queues", False), {}, "classic"),
        (put(D, "rpc.hosts", ["elsewhere"]), {"release": "debian 13"}, ""),
        (put(put(D, "rpc.hosts", ["elsewhere"]), "broker.queues", "quorum"), {}, "quorum"),
        (put(DUAL, "notify.scheme", "amqp"), {"broker_version": "4.0.5"}, ""),
    ],
)
def test_who_decides(raw: object, facts: dict[str, str], kind: str) -> None:
    assert choose(raw, layout.Host(**facts)) == kind  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("raw", "version", "mirrored"),
    [
        (D, "3.10.8", True),
        (D, "", True),
        (D, "4.0.5", False),
        (D, "4.3.6", False),
        (D, "5.1.0", False),
        (put(D, "broker.queues", "quorum"), "3.10.8", False),
        (put(D, "broker.queues", "classic"), "3.10.8", False),
        (put(D, "broker.queues", "mirrored"), "3.10.8", True),
    ],
)
def test_only_a_broker_that_can_mirror_gets_a_policy(raw: object, version: str, mirrored: bool) -> None:
    planned = helpers.plan_for(raw, "ctl-0", helpers.host(broker_version=version)).broker
    assert planned
    assert [p["name"] for p in planned.definitions["policies"]] == (["ha"] if mirrored else [])


@pytest.mark.parametrize("key", ["queues", "mirrored_queues"])
@pytest.mark.parametrize("version", ["4.0.5", "4.3.6", "5.0.0"])
def test_mirrored_queues_are_refused_where_there_are_none(version: str, key: str) -> None:
    raw = put(D, f"broker.{key}", "mirrored" if key == "queues" else True)
    with pytest.raises(errors.InvalidInput) as caught:
        helpers.plan_for(raw, "ctl-0", helpers.host(broker_version=version))
    assert [(p.path, p.code) for p in caught.value.problems] == [("broker.queues", "queues-mirrored")]
    assert version in str(caught.value) and "quorum" in str(caught.value)
    helpers.plan_for(raw, "cmp-0", helpers.host())  # which has no broker


def test_quorum_queues_are_refused_where_there_are_none() -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        helpers.plan_for(put(D, "broker.queues", "quorum"), "ctl-0", helpers.host(broker_version="3.6.5"))
    assert [p.code for p in caught.value.problems] == ["queues-too-old"]


@pytest.mark.parametrize(
    ("raw", "node", "facts", "codes"),
    [
        (D, "ctl-0", {}, set()),
        (D, "ctl-0", {"broker_version": "3.10.8"}, set()),
        (D, "ctl-0", {"broker_version": "4.3.6", "oslo_messaging": "18.3.0"}, set()),
        (D, "ctl-0", {"broker_version": "2.8.4"}, {"broker-untested"}),
        (D, "ctl-0", {"broker_version": "5.0.0"}, {"broker-untested"}),
        (D, "cmp-0", {"broker_version": "5.0.0"}, set()),
        (put(D, "broker.queues", "mirrored"), "ctl-0", {}, {"queues-unknown"}),
        (put(D, "broker.queues", "mirrored"), "cmp-0", {}, set()),
        (D, "cmp-0", {"release": "debian 13", "oslo_messaging": "12.9.4"}, {"quorum-unknown"}),
        (D, "cmp-0", {"release": "debian 13", "oslo_messaging": "12.13.0"}, set()),
        (put(D, "broker.mirrored_queues", True), "cmp-0", {}, {"mirrored-queues"}),
    ],
)
def test_findings(raw: object, node: str, facts: dict[str, str], codes: set[str]) -> None:
    found = helpers.plan_for(raw, node, helpers.host(**facts)).findings
    usual = {f.code for f in helpers.plan_for(D, node).findings}
    assert {f.code for f in found} - usual == codes
    assert all(f.severity == errors.WARNING for f in found)
    assert all(facts["broker_version"] in str(f) for f in found if f.code == "broker-untested")


def settings(raw: object, service: str, machine: layout.Host) -> dict[tuple[str, str], str | None]:
    (file,) = [c for c in helpers.plan_for(raw, "cmp-0", machine).config_files if c.service == service]
    return {(s.section, s.key): s.value.reveal() if s.value else None for s in file.settings}


@pytest.mark.parametrize(
    ("version", "wanted"), [("", ALL), ("12.9.4", {"amqp_durable_queues": "true"}), ("12.13.0", OLD), ("14.0.3", OLD),
                            ("14.6.0", OLD), ("14.7.0", ALL), ("16.1.0", ALL), ("18.3.0", ALL)]
)  # fmt: skip
def test_drivers_are_told_what_they_know(version: str, wanted: dict[str, str]) -> None:
    machine = helpers.host(oslo_messaging=version)
    raw = put(D, "broker.queues", "quorum")
    found = settings(raw, "nova", machine)
    told = {key: value for (section, key), value in found.items() if section == RABBIT and value}
    assert told == {"heartbeat_timeout_threshold": "30", **wanted}
    url = settings(raw, "swift", machine)["filter:ceilometer", "url"]
    assert url
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url.replace("%%", "%")).query))
    assert query == {**wanted, "ssl": "0"}


def test_the_name_of_a_queue_is_made_of_the_program_only_when_asked_for() -> None:
    asked = put(put(D, "broker.queues", "quorum"), "broker.queue_manager", True)
    assert settings(asked, "nova", helpers.host())[RABBIT, "use_queue_manager"] == "true"
    manager = (RABBIT, "use_queue_manager")
    assert manager not in settings(asked, "nova", helpers.host(oslo_messaging="14.0.3"))
    assert manager not in settings(put(D, "broker.queue_manager", True), "nova", helpers.host())
    not_asked, told = put(D, "broker.queues", "quorum"), ("use_queue_manager", *ALL)
    assert settings(not_asked, "nova", helpers.host(queue_options=told))[manager] is None
    assert manager not in settings(not_asked, "nova", helpers.host(queue_options=(*ALL,)))


@pytest.mark.parametrize("kind", ["mirrored", "classic"])
def test_options_of_the_operator_stay(kind: str) -> None:
    """The agent does not remove options that it never wrote."""
    found = settings(put(D, "broker.queues", kind), "nova", helpers.host())
    assert not {key for section, key in found if section == RABBIT} & {*ALL, "use_queue_manager"}


@pytest.mark.parametrize(
    "after",
    [
        put(D, "broker.queues", "mirrored"),
        put(D, "broker.queues", "classic"),
        put(D, "rpc.hosts", ["elsewhere"]),
        put(DUAL, "notify.scheme", "amqp"),
    ],
)
def test_what_was_told_is_taken_back(after: object) -> None:
    ours = {"/etc/nova/nova.conf": (RABBIT,)}
    found = settings(after, "nova", helpers.host(queue_options=(*ALL, "use_queue_manager"), drivers=ours))
    assert {key: found[RABBIT, key] for key in (*ALL, "use_queue_manager")} == dict.fromkeys(
        (*ALL, "use_queue_manager")
    )


@pytest.mark.parametrize("rpc_over", ["amqp", "rabbit"])
def test_a_service_without_rabbitmq_is_told_nothing(rpc_over: str) -> None:
    raw = put(put(DUAL, "broker.queues", "quorum"), "rpc.scheme", rpc_over)
    raw = put(raw, "notify.scheme", "rabbit")
    silent = [n for n, s in helpers.catalogue().items() if s.rpc and not s.notify and not s.listens]
    for service in silent:
        found = settings(raw, service, helpers.host())
        assert (found.get((RABBIT, "rabbit_quorum_queue")) is None) == (rpc_over == "amqp")


@pytest.mark.parametrize(
    ("raw", "facts", "permitted"),
    [
        (D, {"broker_version": "4.2.0"}, False),
        (D, {"broker_version": "4.3.6"}, False),
        (D, {"broker_version": "4.3.6", "oslo_messaging": "14.7.0"}, False),
        (D, {"broker_version": "4.3.6", "oslo_messaging": "14.3.1"}, True),
        (put(D, "broker.queues", "classic"), {"broker_version": "4.3.6"}, True),
        (put(D, "broker.queues", "classic"), {"broker_version": "4.0.5"}, False),
    ],
)
def test_transient_queues_are_permitted_only_where_somebody_needs_them(
    raw: object, facts: dict[str, str], permitted: bool
) -> None:
    planned = helpers.plan_for(raw, "ctl-0", helpers.host(**facts)).broker
    assert planned
    key = "deprecated_features.permit.transient_nonexcl_queues"
    assert dict(planned.settings).get(key) == ("true" if permitted else None)


@pytest.mark.parametrize(
    ("raw", "version", "members"),
    [
        (D, "4.0.5", "3"),
        (helpers.default(controllers=2), "4.0.5", "2"),
        (helpers.default(controllers=5), "4.0.5", "3"),
        (helpers.default(controllers=1), "4.0.5", None),
        (put(D, "broker.queues", "quorum"), "3.13.7", "3"),
        (put(D, "broker.queues", "quorum"), "3.12.14", None),  # it does not start with an option that it does not know
        (put(D, "broker.queues", "quorum"), "", None),
        (put(D, "broker.queues", "classic"), "4.0.5", None),
    ],
)
def test_the_broker_gives_quorum_queues_the_members_that_they_lack(
    raw: object, version: str, members: str | None
) -> None:
    planned = helpers.plan_for(raw, "ctl-0", helpers.host(broker_version=version)).broker
    assert planned
    key = "quorum_queue.continuous_membership_reconciliation"
    settings = dict(planned.settings)
    assert settings.get(f"{key}.enabled") == (members and "true")
    assert settings.get(f"{key}.target_group_size") == members


def test_the_installed_driver_knows_what_it_is_told() -> None:
    """The releases above come from reading the options of those releases; this is the one that is here."""
    pytest.importorskip("oslo_messaging")
    import importlib.metadata

    from oslo_messaging._drivers import impl_rabbit

    version = layout.numbers(importlib.metadata.version("oslo.messaging"))
    known = {option.name for option in (*impl_rabbit.rabbit_opts, *_common_options())}
    for name, _, since in (*queues.QUORUM_OPTIONS, queues.MANAGER_OPTION):
        assert (name in known) == (version >= since or name == "rabbit_qos_prefetch_count"), name


def _common_options() -> list[object]:
    from oslo_messaging._drivers import amqp

    return list(amqp.amqp_opts)
