"""For every test: a clean environment, no real programs in unit tests, and a header that names the routers found."""

from __future__ import annotations

import collections.abc
import os
import pathlib
import shutil
import signal
import subprocess
import typing

import hypothesis
import pytest
from om_agent import model

from testbed import errors, routers

UNIT = pathlib.Path(__file__).parent / "unit"

# Files of these may run at the same time as any other file. Those of tests/devrouter and tests/integration that start
# programs use networks of their own in 127.0.0.0/8.
BESIDE_OTHERS = {UNIT, UNIT.parent / "scenario", UNIT.parent / "devrouter", UNIT.parent / "integration"}

# What a developer's shell or a node may have set, and the agent or the programs it starts would listen to.
FOREIGN_PREFIXES = ("ERL_", "FACTER_", "HEAT_", "OS_", "PN_", "PUPPET_", "RABBITMQ_", "SASL_")

# On a busy machine an example takes seconds, which says nothing of the code.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")

# Who starts the tests may ignore these, as behind "&" and nohup, and every program that a test starts would too.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


def describe(engine: model.Engine) -> str:
    """Say which program of an engine the tests will start."""
    try:
        found = routers.find(engine)
    except errors.TestbedError as e:
        return f"{engine.value} not found ({e})"
    return f"{engine.value} {found[0] if found else 'not found'}"


def pytest_report_header() -> str:
    return "router engines: " + ", ".join(map(describe, routers.VARIABLES))


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tell `pytest-xdist --dist loadgroup` which tests may run at the same time, the long groups first.

    One file is in one process, because it shares its fixtures. Files outside `BESIDE_OTHERS` share addresses, ports or
    mounts, and run one after another.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    for item in items:
        item.add_marker(pytest.mark.xdist_group("alone" if _is_alone(item) else item.path.stem))
    # A long group that starts last keeps one process busy while the others wait.
    items.sort(key=lambda item: (not _is_alone(item), item.path not in slow, UNIT in item.path.parents))


def _is_alone(item: pytest.Item) -> bool:
    return not BESIDE_OTHERS & set(item.path.parents)


@pytest.fixture(autouse=True, scope="session")
def clean_environment() -> collections.abc.Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(FOREIGN_PREFIXES):
                patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def no_real_programs(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Fail a unit test that starts a program, unless the test wrote that program itself or is marked `subprocess`."""
    if UNIT not in request.path.parents or request.node.get_closest_marker("subprocess"):
        return
    own = tmp_path_factory.getbasetemp().resolve()
    start = subprocess.Popen.__init__

    def refuse(what: object) -> typing.NoReturn:
        pytest.fail(f"a unit test would have started {what}: put a fake on PATH or mark the test `subprocess`")

    def popen(self: subprocess.Popen[typing.Any], args: typing.Any, *more: typing.Any, **options: typing.Any) -> None:
        program = args if isinstance(args, (str, bytes, os.PathLike)) else args[0]
        path = (options.get("env") or os.environ).get("PATH")
        found = None if options.get("shell") else shutil.which(os.fsdecode(program), path=path)
        if options.get("shell") or (found and own not in pathlib.Path(found).resolve().parents):
            refuse(program)
        # A program that does not exist is left to fail as it would anywhere.
        start(self, args, *more, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", popen)
    for name in ("system", "posix_spawn", "posix_spawnp"):
        monkeypatch.setattr(os, name, lambda program, *args, **options: refuse(program))
