"""The source of a Debian root directory, and when the testbed rebuilds it."""

from __future__ import annotations

import dataclasses

import pytest

from testbed import debian_root, errors, service_root

OWN = "http://one/debian bookworm\nhttp://one/debian bookworm-updates\nhttp://one/security bookworm-security\n"


@pytest.mark.parametrize(
    ("listed", "release", "expected"),
    [
        (OWN, "bookworm", "http://one/debian"),
        (OWN, "trixie", "http://one/debian"),
        (OWN + "http://two/debian trixie\n", "trixie", "http://two/debian"),
        ("http://first/debian bookworm\nhttp://second/debian bookworm\n", "bookworm", "http://first/debian"),
    ],
)
def test_a_root_comes_from_the_mirror_of_this_machine(listed: str, release: str, expected: str) -> None:
    assert debian_root.mirror(listed, release) == expected


@pytest.mark.parametrize("listed", ["", "http://one/security bookworm-security\n"])
def test_a_machine_without_a_mirror(listed: str) -> None:
    with pytest.raises(errors.TestbedError, match="add one to its sources"):
        debian_root.mirror(listed, "bookworm")


@pytest.mark.parametrize("change", [{"release": "trixie"}, {"packages": ("one",)}, {"prepare": "true"}])
def test_another_recipe_is_another_root(change: dict[str, object]) -> None:
    recipe = service_root.recipe("bookworm")
    assert dataclasses.replace(recipe, **change).path != recipe.path  # type: ignore[arg-type]
