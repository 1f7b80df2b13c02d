"""The import table of the design: one direction, and nothing impure in the pure part."""

from __future__ import annotations

import ast
import pathlib
import re
import subprocess
import sys
import typing

import pytest

from tests.support import helpers

# From left to right; no module imports one further right.
ORDER = (
    "errors", "kinds", "ini", "ciphers", "fields", "backends", "engines", "reading", "metadata_files", "metadata",
    "model", "rules", "parse", "plan", "picture", "clients", "observed", "verify", "templating", "render", "certs",
    "validate", "proc", "drawing", "signals", "watch", "host_facts", "unitfile", "sources", "amqp", "probe", "apply",
    "connections", "drain", "resync", "observe", "heat_signal", "report", "workflow", "deployments", "cli",
)  # fmt: skip
PURE = (
    "errors", "kinds", "ini", "ciphers", "fields", "backends", "engines", "model", "rules", "parse", "plan", "clients",
    "observed", "verify", "templating", "render", "certs",
)  # fmt: skip
MOST_LINES = 450
MOST_LINES_OF_A_FUNCTION = 60
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
IMPURE_MODULES = {"logging", "os", "pathlib", "socket", "subprocess", "time"}

# What one module may import and no other, with the modules that may.
ONLY = {
    "subprocess": {"proc"},
    "argparse": {"cli"},
    "jinja2": {"templating"},
    "cryptography": {"plan.authority", "certs"},
    "proton": {"amqp"},
    "oslo_messaging": {"probe"},
    "oslo_config": {"probe"},
}
# cli reads the environment, which a design rule says. apply.puppet and proc hand PATH on to the programs they start,
# and only that: a child without PATH finds no ruby and no systemctl.
PATH_READERS = {"apply.puppet", "proc"}
# A program of its own, whose standard input is where its work comes from.
PROGRAMS = {"probe"}


def sources() -> dict[str, pathlib.Path]:
    found = {}
    for path in sorted(helpers.PACKAGE.rglob("*.py")):
        parts = path.relative_to(helpers.PACKAGE).with_suffix("").parts
        if parts not in (("__init__",), ("__main__",)):
            found[".".join(p for p in parts if p != "__init__")] = path
    return found


SOURCES = sources()


def imports(path: pathlib.Path) -> set[str]:
    """Return every module that a file imports, also in functions; fail for a relative import."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, path
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(path: pathlib.Path) -> set[str]:
    """Return the modules of this package that a file imports, without the package's name."""
    return {name.partition(".")[2] for name in imports(path) if name.partition(".")[0] == "om_agent"} - {""}


def foreign(path: pathlib.Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)} - {"om_agent"}


def place(module: str) -> int:
    return ORDER.index(module.partition(".")[0])


def functions(path: pathlib.Path) -> list[tuple[int, str]]:
    """Return (lines, name) of every function of a file."""
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, FUNCTIONS)]
    return [((node.end_lineno or node.lineno) - node.lineno + 1, node.name) for node in found]


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_is_short_enough_to_be_read(module: str) -> None:
    assert len(SOURCES[module].read_text().splitlines()) <= MOST_LINES
    assert [one for one in functions(SOURCES[module]) if one[0] > MOST_LINES_OF_A_FUNCTION] == []


def nested(path: pathlib.Path, *kinds: type[ast.AST]) -> list[int]:
    """Return the lines where one of these expressions contains another."""
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    return [typing.cast("ast.expr", node).lineno for node in found if inside(node, kinds)]


def inside(node: ast.AST, kinds: tuple[type[ast.AST], ...]) -> bool:
    return any(isinstance(below, kinds) for below in ast.walk(node) if below is not node)


@pytest.mark.parametrize("module", SOURCES)
def test_one_thought_a_line(module: str) -> None:
    assert nested(SOURCES[module], ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp) == []
    assert nested(SOURCES[module], ast.IfExp) == []


def test_every_module_has_a_place() -> None:
    assert {name.partition(".")[0] for name in SOURCES} <= set(ORDER)


@pytest.mark.parametrize("module", SOURCES)
def test_no_module_imports_one_further_right(module: str) -> None:
    assert {name for name in own(SOURCES[module]) if place(name) > place(module)} == set()


def documented() -> dict[str, set[str]]:
    """Return the modules that each module may import, from the table of doc/design.rst."""
    text = (helpers.ROOT / "doc/design.rst").read_text()
    bar = re.search(r"^=+ .*\n(?=Module )", text, re.MULTILINE)
    assert bar
    last = bar.group().rindex(" =") + 1
    found: dict[str, str] = {}
    for line in text[bar.end() :].split(bar.group())[1].splitlines():
        name = line.partition("  ")[0].strip("`") or list(found)[-1]
        found[name] = f"{found.get(name, '')} {line[last:]}"
    everything = {"all": set(ORDER), "the standard library alone": set(), "errors alone": {"errors"}}
    return {n: everything.get(t.strip(), {"errors", "kinds", *re.findall(r"\w+", t)}) for n, t in found.items()}


def test_the_design_names_every_module_in_its_order() -> None:
    assert tuple(documented()) == ORDER


@pytest.mark.parametrize("module", SOURCES)
def test_no_module_imports_more_than_the_design_says(module: str) -> None:
    package = module.partition(".")[0]
    assert {name.partition(".")[0] for name in own(SOURCES[module])} - {package} <= documented()[package]


@pytest.mark.parametrize("module", SOURCES)
def test_only_modules_are_imported_not_objects(module: str) -> None:
    assert own(SOURCES[module]) <= set(SOURCES)


@pytest.mark.parametrize("module", [name for name in SOURCES if name.partition(".")[0] in PURE])
def test_pure_modules_import_nothing_impure(module: str) -> None:
    assert foreign(SOURCES[module]) & IMPURE_MODULES == set()


@pytest.mark.parametrize("module", [name for name in SOURCES if name.partition(".")[0] in PURE])
def test_pure_modules_open_no_file(module: str) -> None:
    names = [node.id for node in ast.walk(ast.parse(SOURCES[module].read_text())) if isinstance(node, ast.Name)]
    assert not {"open", "print", "input", "__import__"} & set(names)


@pytest.mark.parametrize("module", SOURCES)
@pytest.mark.parametrize("library", ONLY)
def test_a_library_with_one_door_is_imported_there_only(library: str, module: str) -> None:
    allowed = {module, module.partition(".")[0]} & ONLY[library]
    assert allowed or library not in foreign(SOURCES[module])


def attributes(path: pathlib.Path, of: str) -> list[tuple[str, str]]:
    """Return every attribute of the module ``of`` that is used, with its first argument or subscript."""
    found = []
    parsed = ast.parse(path.read_text())
    for node in ast.walk(parsed):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == of:
            found.append((node.attr, ""))
    for node in ast.walk(parsed):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(f"{of}.environ") and node.args:
            found.append(("environ with", ast.unparse(node.args[0]).strip("'\"")))
    return found


@pytest.mark.parametrize("module", [name for name in SOURCES if name.partition(".")[0] != "cli"])
def test_only_the_command_line_reads_the_environment_and_exits(module: str) -> None:
    used = attributes(SOURCES[module], "os")
    read = {first for name, first in used if name == "environ with"}
    assert read <= ({"PATH"} if module in PATH_READERS else set())
    assert module in PATH_READERS or not {"environ", "getenv", "environb"} & {name for name, _ in used}
    assert not ({"exit", "argv"} | (set() if module in PROGRAMS else {"stdin"})) & {
        name for name, _ in attributes(SOURCES[module], "sys")
    }


def modules_after(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter has imported after a statement."""
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    command = [sys.executable, "-P" if sys.version_info >= (3, 11) else "-B", "-c", code]
    environment = {"PYTHONPATH": str(helpers.PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in result.stdout.split()}


@pytest.mark.subprocess
def test_validate_needs_no_more_than_it_says(tmp_path: pathlib.Path) -> None:
    """On the build host there is no proton, no oslo and no jinja2."""
    path = tmp_path / "m.json"
    path.write_text('{"oslo_messaging": {"rpc": {"password": "x"}, "nodes": [{"name": "a"}]}}')
    loaded = modules_after(f"from om_agent import cli\nassert cli.main(['validate', {str(path)!r}]) == 0")
    unwanted = {"jinja2", "oslo_config", "oslo_messaging", "proton", "cproton", "pyngus", "eventlet", "kombu"}
    assert "om_agent" in loaded
    assert loaded & unwanted == set()


@pytest.mark.subprocess
@pytest.mark.parametrize("module", [name for name in SOURCES if name.partition(".")[0] in PURE])
def test_a_pure_module_can_be_read_alone(module: str) -> None:
    """Importing it imports nothing of the edge."""
    code = (
        f"import om_agent.{module}\nimport sys\nprint('\\n'.join(m for m in sys.modules if m.startswith('om_agent')))"
    )
    environment = {"PYTHONPATH": str(helpers.PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert {name.split(".")[1] for name in result.stdout.split() if "." in name} <= set(PURE)
