"""The router's modules import in one direction, those for type checkers alone included, and the pure ones no proton."""

from __future__ import annotations

import ast
import pathlib

import om_devrouter
import pytest

# From left to right; no module imports itself or one further right.
ORDER = (
    "errors", "schema", "policy", "wire", "reader", "policyconfig", "config", "addresses", "admission", "management",
    "deliveries", "links", "inlink", "outlink", "router", "views", "security", "connection", "status", "engine", "cli",
)  # fmt: skip
WITH_PROTON = {"connection", "engine", "inlink", "router", "security"}
PROTON = {"cproton", "proton"}
SOURCES = {path.stem: path for path in pathlib.Path(om_devrouter.__file__).parent.glob("[!_]*.py")}


def imports(path: pathlib.Path) -> set[str]:
    """Every module that a file imports anywhere, by its whole name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, path
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(path: pathlib.Path) -> set[str]:
    """The modules of the router that a file imports, without the package's name."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("om_devrouter.")}


def test_every_module_has_a_place() -> None:
    assert SOURCES.keys() == set(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_no_module_imports_itself_or_one_further_right(module: str) -> None:
    assert own(SOURCES[module]) <= set(ORDER[: ORDER.index(module)])


def test_proton_is_imported_where_the_package_says() -> None:
    users = {name for name, path in SOURCES.items() if {i.partition(".")[0] for i in imports(path)} & PROTON}
    assert users == WITH_PROTON
    said = (om_devrouter.__doc__ or "").partition("Only ``")[2].partition("import proton")[0]
    assert {name for name in ORDER if f"{name}``" in said} == WITH_PROTON
