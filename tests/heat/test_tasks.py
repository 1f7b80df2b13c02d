"""The update and upgrade tasks of the service templates, and the nodes that they register in FreeIPA."""

from __future__ import annotations

import dataclasses
import typing

import pytest

from tests.heat import engine, overcloud
from tests.support import helpers

DUAL = "rpc-qdrouterd-notify-rabbitmq.yaml"
SHARED = "rpc-rabbitmq-notify-rabbitmq-shared.yaml"
TLS = "tls-everywhere.yaml"
SKROUTERD: dict[str, object] = {"RpcRouterEngine": "skrouterd"}

CASES = {
    f"{release}, {name}, {role}": case
    for release in ("queens", "wallaby")
    for name, environments, parameters in (
        ("dual", (DUAL,), {}),
        ("dual with TLS", (DUAL, TLS), {}),
        ("skrouterd", (DUAL,), SKROUTERD),
        ("shared", (SHARED,), {}),
    )
    for role, case in overcloud.cases(release, *environments, parameters=parameters).items()
}
Task = dict[str, typing.Any]


@pytest.fixture(scope="module")
def resolved() -> dict[str, engine.Result]:
    """The outputs of each role."""
    found = engine.resolve_all(CASES)
    for name, result in found.items():
        assert "error" not in result, (name, result["error"])
    return {name: result["outputs"] for name, result in found.items()}


@pytest.mark.parametrize("release", ["queens", "wallaby"])
def test_whom_the_authority_is_to_know(resolved: dict[str, engine.Result], release: str) -> None:
    for role in overcloud.ROLES:
        found = resolved[f"{release}, dual with TLS, {role}"]["metadata_settings"]
        assert found == [{"service": "messaging", "network": "internal_api", "type": "node"}]
        assert resolved[f"{release}, dual, {role}"]["metadata_settings"] == []


# -- tasks -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Node:
    """A node as Ansible's tasks find it.

    :param units: what systemd says of each unit that is there.
    :param drain: the exit code of ``om-agent drain``, which says 1 where no router listens and 2 without metadata.
    :param systemd: whether it answers.
    """

    units: dict[str, list[str]]
    drain: int = 0
    systemd: bool = True

    def command(self, line: str) -> dict[str, object]:
        """Run a command; return the result that Ansible's module ``command`` returns."""
        if line == "om-agent drain":
            return {"rc": self.drain, "stdout_lines": []}
        words = line.split()
        assert words[:2] == ["systemctl", "show"] and set(words[2:-1:2]) == {"-p"}, line
        if not self.systemd:
            return {"rc": 1, "stdout_lines": []}
        said = self.units.get(words[-1], ["LoadState=not-found", "ActiveState=inactive", "UnitFileState="])
        return {"rc": 0, "stdout_lines": [one for one in said if one.partition("=")[0] in words[3:-1:2]]}


def carried_out(tasks: list[Task], node: Node) -> list[str]:
    """Run tasks step by step like Ansible; return the actions without the queries.

    :raises AssertionError: for a task that fails, with which the update ends.
    """
    try:
        import jinja2
    except ImportError:
        helpers.skip("there is no jinja2, with which Ansible reads its conditions")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    facts: dict[str, typing.Any] = {}
    done: list[str] = []

    def holds(expression: bool | str) -> bool:
        if isinstance(expression, bool):
            return expression
        value = environment.compile_expression(expression, undefined_to_none=False)(**facts)
        assert isinstance(value, bool), f"Ansible 2.19 refuses what is neither true nor false: {expression}"
        return value

    for step in map(str, range(6)):
        facts["step"] = step
        for task in tasks:
            when = task["when"] if isinstance(task["when"], list) else [task["when"]]
            if not all(map(holds, when)):
                facts[task.get("register", "_")] = {"skipped": True}
                continue
            if "command" in task:
                facts[task["register"]] = result = node.command(task["command"])
                assert not holds(task.get("failed_when", result["rc"] != 0)), f"{task['name']} failed: {result}"
                if holds(task["changed_when"]):
                    done.append(task["command"])
            elif "service" in task:
                unit, state = task["service"]["name"], task["service"]["state"]
                assert unit in node.units, f"{task['name']} failed: Could not find the requested service {unit}"
                done.append(f"{unit} {state}")
            else:
                done.append(f"{task['package']['name']} {task['package']['state']}")
    return done


RUNNING = ["LoadState=loaded", "ActiveState=active", "UnitFileState=enabled"]
DEAD = ["LoadState=loaded", "ActiveState=failed", "UnitFileState=enabled"]
OFF = ["LoadState=loaded", "ActiveState=inactive", "UnitFileState=disabled"]  # in an image, before om-agent's apply
# A unit, the package's name, and which role of which deployment has it.
PARTS = {
    "interior": ("qdrouterd", "qpid-dispatch-router", "dual, Controller"),
    "edge": ("qdrouterd", "qpid-dispatch-router", "dual, Compute"),
    "skrouterd": ("skrouterd", "skupper-router", "skrouterd, Compute"),
    "broker of notifications": ("rabbitmq-server", "rabbitmq-server", "dual, Controller"),
    "broker of both": ("rabbitmq-server", "rabbitmq-server", "shared, Controller"),
}
# What systemd says of the unit (None: nothing at all), what drain gives, and what is done: drain, stop, update, run.
STATES: dict[str, tuple[list[str] | None, int, str]] = {
    "running": (RUNNING, 0, "d s u r"),
    "running, clients stay": (RUNNING, 3, "s u r"),
    "running, deaf": (RUNNING, 1, "s u r"),
    "running, no metadata": (RUNNING, 2, "s u r"),
    "dead": (DEAD, 1, "s u r"),
    "there, and never the node's": (OFF, 2, "s u"),
    "not there": ([], 2, "u"),
    "no systemd": (None, 1, "u"),
}


@pytest.mark.parametrize("kind", ["update_tasks", "upgrade_tasks"])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("part", PARTS)
def test_updates(resolved: dict[str, engine.Result], part: str, state: str, kind: str) -> None:
    unit, package, role = PARTS[part]
    said, drain, letters = STATES[state]
    node = Node({unit: said} if said else {}, drain, systemd=said is not None)
    words = {"d": "om-agent drain", "s": f"{unit} stopped", "u": f"{package} latest", "r": f"{unit} started"}
    expected = [words[letter] for letter in letters.split() if letter != "d" or "router" in unit]
    for release in ("queens", "wallaby"):
        tasks = resolved[f"{release}, {role}"][kind]
        own = [t for t in tasks if ("router" in t["name"]) == ("router" in unit)]
        assert carried_out(own, node) == expected


def test_a_controllers_router_and_broker_do_not_disturb_each_other(resolved: dict[str, engine.Result]) -> None:
    tasks = resolved["queens, dual, Controller"]["update_tasks"]
    node = Node({"rabbitmq-server": RUNNING}, drain=2)
    assert carried_out(tasks, node) == [
        "rabbitmq-server stopped", "qpid-dispatch-router latest", "rabbitmq-server latest", "rabbitmq-server started",
    ]  # fmt: skip
