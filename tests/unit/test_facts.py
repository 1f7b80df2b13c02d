"""Facts about a host: versions read from directory names, without starting a program."""

from __future__ import annotations

import pathlib

import pytest
from om_agent import errors, host_facts
from om_agent.plan import layout

from tests.support import helpers


def make(root: pathlib.Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True)


def gather(root: pathlib.Path, relocate: bool = False) -> layout.Host:
    return host_facts.gather(helpers.catalogue(), root, relocate, False)


@pytest.mark.parametrize(
    ("names", "version"),
    [
        ([], ""),
        (["usr/lib/rabbitmq/lib/rabbitmq_server-3.10.8/sbin"], "3.10.8"),
        (["usr/lib/rabbitmq/lib/rabbitmq_server-4.0.5/sbin"], "4.0.5"),
        (["usr/lib/rabbitmq/lib/rabbitmq_server-3.13.0-rc.1/sbin"], "3.13.0-rc.1"),
        # dpkg leaves a directory behind that holds somebody else's file
        (["usr/lib/rabbitmq/lib/rabbitmq_server-3.10.8/plugins", "usr/lib/rabbitmq/lib/rabbitmq_server-4.0.5/sbin"],
         "4.0.5"),
        (["usr/lib/rabbitmq/lib/rabbitmq_server-9.0.0/plugins", "usr/lib/rabbitmq/lib/rabbitmq_server-4.0.5/sbin"],
         "4.0.5"),
        (["usr/lib/rabbitmq/lib/rabbitmq_server-3.9.1/sbin", "usr/lib/rabbitmq/lib/rabbitmq_server-3.10.8/sbin"],
         "3.10.8"),
        (["usr/lib/rabbitmq/lib/rabbitmq_server-/sbin", "usr/lib/rabbitmq/lib/erlang/sbin"], ""),
    ],
)  # fmt: skip
def test_the_version_of_the_broker(tmp_path: pathlib.Path, names: list[str], version: str) -> None:
    make(tmp_path, *names)
    assert gather(tmp_path).broker_version == version


DEBIAN = "usr/lib/python3/dist-packages/"


@pytest.mark.parametrize(
    ("os_release", "python", "names", "version"),
    [
        ("ID=debian", "python3.11", [DEBIAN + "oslo.messaging-14.0.3.egg-info"], "14.0.3"),
        ("ID=debian", "python3.13", [DEBIAN + "oslo.messaging-16.1.0.egg-info"], "16.1.0"),
        ("ID=debian", "python3.13", [DEBIAN + "oslo_messaging-17.0.0.dist-info"], "17.0.0"),
        ("ID=debian", "python3.11", [DEBIAN + "oslo_messaging", DEBIAN + "oslo.log-9.0.0.egg-info"], ""),
        # what pip installed for the system's Python comes first; what it installed for the one before does not count
        ("ID=debian", "python3.13",
         [DEBIAN + "oslo.messaging-16.1.0.egg-info",
          "usr/local/lib/python3.13/dist-packages/oslo.messaging-14.3.1.dist-info",
          "usr/local/lib/python3.11/dist-packages/oslo.messaging-12.0.0.dist-info"], "14.3.1"),
        ("ID=centos", "python3.9", ["usr/lib/python3.9/site-packages/oslo.messaging-14.0.0-py3.9.egg-info"], "14.0.0"),
        ("ID=rhel", "python3.9",
         ["usr/lib/python3.12/site-packages/oslo_messaging-17.0.0.dist-info",
          "usr/lib/python3.9/site-packages/oslo.messaging-12.13.3-py3.9.egg-info"], "12.13.3"),
        ("ID=rhel", "", ["usr/lib/python3.9/site-packages/oslo.messaging-12.13.3-py3.9.egg-info"], "12.13.3"),
        ("ID=debian", "python3.11",
         [DEBIAN + "oslo.messaging-9.8.0.egg-info", DEBIAN + "oslo.messaging-14.0.3.egg-info"], "14.0.3"),
        ("", "", [], ""),
    ],
)  # fmt: skip
def test_the_version_of_the_services_oslo_messaging(
    tmp_path: pathlib.Path, os_release: str, python: str, names: list[str], version: str
) -> None:
    make(tmp_path, "etc", "usr/bin", *names)
    (tmp_path / "etc/os-release").write_text(os_release + "\n")
    if python:
        (tmp_path / "usr/bin/python3").symlink_to(python)
    assert gather(tmp_path).oslo_messaging == version


def test_below_another_root_the_programs_are_this_machines_own(tmp_path: pathlib.Path) -> None:
    """The services are not: nobody starts those of this machine with a relocated configuration."""
    make(tmp_path, "usr/lib/rabbitmq/lib/rabbitmq_server-0.0.1/sbin")
    found = gather(tmp_path, relocate=True)
    assert (found.broker_version, found.oslo_messaging) == (host_facts.broker_version(pathlib.Path("/")), "")
    assert gather(tmp_path).broker_version == "0.0.1"


@pytest.mark.parametrize(
    ("version", "numbers"), [("4.0.5", (4, 0, 5)), ("4.0.5-rc.1", (4, 0, 5)), ("15.0.0.dev1", (15, 0, 0)), ("", ()),
                             ("x", ()), ("٤.1", ())]
)  # fmt: skip
def test_numbers_of_a_version(version: str, numbers: tuple[int, ...]) -> None:
    assert layout.numbers(version) == numbers


@pytest.mark.parametrize("version", ["15.0.0", "16.1.0", "18.3.1", "15.0.0.0rc1"])
def test_amqp_is_refused_where_oslo_messaging_has_no_driver_for_it(version: str) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        helpers.plan_for(helpers.dual(), "cmp-0", helpers.host(oslo_messaging=version))
    assert [(p.path, p.code) for p in caught.value.problems] == [("rpc.scheme", "no-amqp-driver")]
    assert version in str(caught.value)
    both = {**helpers.dual(), "notify": {"scheme": "amqp", "username": "rpc", "password": "rpc-secret"}}
    with pytest.raises(errors.InvalidInput) as caught:
        helpers.plan_for(both, "ctl-0", helpers.host(oslo_messaging=version))
    assert [p.path for p in caught.value.problems] == ["rpc.scheme", "notify.scheme"]


@pytest.mark.parametrize("version", ["", "9.5.2", "14.0.3", "14.9.3", "x"])
def test_amqp_is_planned_where_the_driver_is_there_or_nothing_is_known(version: str) -> None:
    assert helpers.plan_for(helpers.dual(), "cmp-0", helpers.host(oslo_messaging=version)).config_files


def test_a_driver_that_nobody_uses_is_not_missed() -> None:
    """A node without services, and one whose services send nothing over AMQP 1.0."""
    new = {"oslo_messaging": "16.1.0"}
    silent = [n for n, s in helpers.catalogue().items() if not (s.rpc or s.notify or s.listens)]
    assert not helpers.plan_for(helpers.dual(), "ctl-0", helpers.host(*silent, **new)).config_files
    assert helpers.plan_for(helpers.default(), "ctl-0", helpers.host(**new)).config_files
    assert helpers.plan_for(helpers.dual(), "ctl-0", layout.Host(oslo_messaging="16.1.0")).router
