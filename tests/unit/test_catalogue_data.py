"""The service catalogue says what its header promises, for every service that an operator would look for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

CATALOGUE = Path(__file__).resolve().parents[2] / "agent" / "om_agent" / "data" / "services.yaml"

FAMILIES = ("debian", "redhat")
ENTRY_KEYS = {"summary", "rpc", "notify", "listens", "files", "units"}
FILE_KEYS_REQUIRED = {"path", "group"}
FILE_KEYS_OPTIONAL = {"owner", "mode", "format", "section", "uses"}
REQUIRED = """
aodh barbican blazar ceilometer cinder cloudkitty congress cyborg designate ec2api glance heat ironic ironic-inspector
keystone magnum manila masakari mistral murano neutron nova octavia panko sahara senlin swift tacker trove vitrage
watcher zaqar
"""
REQUIRED_SERVICES = set(REQUIRED.split())
NO_MESSAGING_AT_ALL = {"gnocchi", "horizon", "placement"}

UNIT = re.compile(r"[a-z0-9][a-z0-9-]*(@[a-z0-9]+)?")
ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]*")
MODE = re.compile(r"0[0-7]{3}")
PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")

Entry = dict[str, Any]


class StrictLoader(yaml.SafeLoader):
    """A loader that refuses repeated keys, which plain YAML accepts silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"keys given twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def load() -> dict[str, Entry]:
    data = yaml.load(CATALOGUE.read_text(encoding="utf-8"), Loader=StrictLoader)
    assert isinstance(data, dict)
    return data


SERVICES = load()


def of_family(value: Any, family: str) -> Any:
    """One family's value of an attribute that is given once, or once per family."""
    return value[family] if isinstance(value, dict) else value


def both_families(value: Any) -> list[Any]:
    if isinstance(value, dict):
        assert set(value) == set(FAMILIES)
        assert value["debian"] != value["redhat"], "given per family, but the same in both"
    return [of_family(value, family) for family in FAMILIES]


def test_the_required_services_are_there_and_those_without_messaging_options_are_not() -> None:
    assert set(SERVICES) >= REQUIRED_SERVICES
    assert not set(SERVICES) & NO_MESSAGING_AT_ALL


def test_services_are_in_alphabetical_order() -> None:
    assert list(SERVICES) == sorted(SERVICES)


def test_a_service_is_named_as_unit_and_group_names_are() -> None:
    assert [name for name in SERVICES if not re.fullmatch(r"[a-z][a-z0-9-]*", name)] == []


def test_the_header_says_what_it_is_and_where_it_is_from() -> None:
    text = CATALOGUE.read_text(encoding="utf-8")
    header = text.split("\n\n", 1)[0]
    assert all(line.startswith("#") for line in header.splitlines())
    for word in ("Format", "Sources", "placement", "gnocchi"):
        assert word in header


@pytest.mark.parametrize("name", SERVICES)
def test_an_entry_has_all_keys_and_nothing_else(name: str) -> None:
    entry = SERVICES[name]
    assert set(entry) - {"caution"} == ENTRY_KEYS
    assert isinstance(entry["summary"], str) and entry["summary"].strip() == entry["summary"] != ""
    for key in ("rpc", "notify", "listens"):
        assert isinstance(entry[key], bool), key
    assert isinstance(entry["files"], list) and entry["files"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_file_is_described_completely(name: str) -> None:
    for item in SERVICES[name]["files"]:
        assert FILE_KEYS_REQUIRED <= set(item) <= FILE_KEYS_REQUIRED | FILE_KEYS_OPTIONAL
        for path in both_families(item["path"]):
            assert PATH.fullmatch(path), path
            assert ".." not in Path(path).parts
            assert path.startswith("/etc/")
        for group in both_families(item["group"]):
            assert ACCOUNT.fullmatch(group), group
        for owner in both_families(item.get("owner", "root")):
            assert ACCOUNT.fullmatch(owner), owner


@pytest.mark.parametrize("name", SERVICES)
def test_a_mode_is_a_string_and_never_lets_the_world_read_a_password(name: str) -> None:
    for item in SERVICES[name]["files"]:
        if "mode" not in item:
            continue
        mode = item["mode"]
        assert isinstance(mode, str) and MODE.fullmatch(mode)
        assert int(mode, 8) & 0o007 == 0
        assert mode != "0640", "the default is not repeated"


@pytest.mark.parametrize("name", SERVICES)
def test_paste_and_only_paste_has_a_section(name: str) -> None:
    for item in SERVICES[name]["files"]:
        kind = item.get("format", "oslo")
        assert kind in ("oslo", "paste")
        assert ("section" in item) == ("uses" in item) == (kind == "paste")
        if kind == "paste":
            assert re.fullmatch(r"(filter|app|pipeline|composite):\S+", item["section"])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", SERVICES)
def test_units_are_sorted_unique_and_without_suffix(name: str, family: str) -> None:
    assert set(SERVICES[name]["units"]) == set(FAMILIES)
    units = SERVICES[name]["units"][family]
    assert isinstance(units, list) and units
    assert units == sorted(set(units))
    for unit in units:
        assert isinstance(unit, str)
        assert UNIT.fullmatch(unit), unit


@pytest.mark.parametrize("name", SERVICES)
def test_the_web_server_is_named_as_its_family_names_it(name: str) -> None:
    assert "httpd" not in SERVICES[name]["units"]["debian"]
    assert "apache2" not in SERVICES[name]["units"]["redhat"]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_two_services_own_the_same_file(family: str) -> None:
    owners: dict[str, list[str]] = {}
    for name, entry in SERVICES.items():
        for item in entry["files"]:
            owners.setdefault(of_family(item["path"], family), []).append(name)
    assert {path: names for path, names in owners.items() if len(names) > 1} == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_web_server_belongs_to_several_services(family: str) -> None:
    owners: dict[str, list[str]] = {}
    for name, entry in SERVICES.items():
        for unit in entry["units"][family]:
            owners.setdefault(unit, []).append(name)
    shared = {unit for unit, names in owners.items() if len(names) > 1}
    assert shared <= {"apache2", "httpd"}


@pytest.mark.parametrize("name", ["ironic", "octavia", "swift"])
def test_notifications_that_tripleo_sends_down_the_rpc_router_are_notifications_here(name: str) -> None:
    assert SERVICES[name]["notify"] is True


@pytest.mark.parametrize("name", ["aodh", "barbican", "ceilometer", "designate", "vitrage", "watcher"])
def test_known_consumers_of_notifications_listen(name: str) -> None:
    assert SERVICES[name]["listens"] is True


def test_the_loader_refuses_a_key_given_twice() -> None:
    with pytest.raises(yaml.constructor.ConstructorError):
        yaml.load("nova: {rpc: true, rpc: false}", Loader=StrictLoader)
