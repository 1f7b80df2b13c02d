"""The catalogue as the agent reads it: what the file says, by family. What is in the file: test_catalogue_data.py."""

from __future__ import annotations

import pytest
import yaml
from om_agent.plan import services

from tests.support import helpers

RAW = yaml.safe_load((helpers.PACKAGE / "data" / "services.yaml").read_text("utf-8"))
CATALOGUE = helpers.catalogue()


def test_every_row_is_read_in_order() -> None:
    assert list(CATALOGUE) == list(RAW)


@pytest.mark.parametrize("name", RAW)
def test_a_row(name: str) -> None:
    row, service = RAW[name], CATALOGUE[name]
    assert (service.name, service.summary) == (name, row["summary"])
    assert (service.rpc, service.notify, service.listens) == (row["rpc"], row["notify"], row["listens"])
    assert {family: list(units) for family, units in service.units.items()} == row["units"]
    assert len(service.files) == len(row["files"])
    for file in service.files:
        assert set(file.path) == set(file.owner) == set(file.group) == set(services.FAMILIES)
        assert file.mode & 0o007 == 0


SMALL = """
x:
  summary: X
  rpc: true
  notify: false
  listens: false
  files:
  - {path: {debian: /etc/x/d, redhat: /etc/x/r}, group: x, owner: {debian: a, redhat: b}, mode: "0600"}
  - {path: /etc/y/y.ini, group: y, format: paste, section: "filter:z"}
  units: {debian: [d], redhat: [r, s]}
"""


def test_families_and_defaults() -> None:
    first, second = services.parse_catalogue(SMALL)["x"].files
    assert first.path == {"debian": "/etc/x/d", "redhat": "/etc/x/r"}
    assert (first.owner, first.mode, first.format) == ({"debian": "a", "redhat": "b"}, 0o600, services.OSLO)
    assert second.path == dict.fromkeys(services.FAMILIES, "/etc/y/y.ini")
    assert (second.owner["debian"], second.mode, second.section) == ("root", 0o640, "filter:z")


def test_directories_of_both_families() -> None:
    assert services.directories(services.parse_catalogue(SMALL)) == {"/etc/x", "/etc/y"}


@pytest.mark.parametrize("key", ["summary", "rpc", "notify", "listens", "files", "units"])
def test_a_row_that_lacks_something_is_a_defect(key: str) -> None:
    row = yaml.safe_load(SMALL)
    del row["x"][key]
    with pytest.raises((KeyError, TypeError)):
        services.parse_catalogue(yaml.safe_dump(row))
