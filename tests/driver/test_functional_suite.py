"""oslo.messaging's own functional suite with this driver, under both of its names, over real routers.

The suite is in oslo.messaging's wheel. Most of its time it waits: for logged notifications 150 seconds.
"""

from __future__ import annotations

import collections.abc
import contextlib
import json
import os
import pathlib
import signal
import subprocess

import pytest

from tests.support import engines, environments

PROGRAM = pathlib.Path(__file__).with_name("functional_suite.py")
# What the suite imports, as it was tried.
LIBRARIES = ("fixtures==4.3.2", "oslotest==6.1.1", "requests==2.34.2", "testscenarios==0.7.0", "testtools==2.9.1")
CELLS = [("14.9.3", "amqp1"), ("18.3.1", "amqp1"), ("18.3.1", "amqp")]
# What the suite itself skips, for drivers of these names; doc/driver.rst has the reasons.
OTHERS_ONLY = "backend does not support call monitoring"
SKIPPED = {
    "amqp1": {"CallTestCase.test_mandatory_call": OTHERS_ONLY, "CallTestCase.test_monitor_long_call": OTHERS_ONLY},
    "amqp": {
        "CallTestCase.test_mandatory_call": OTHERS_ONLY,
        "CastTestCase.test_server_in_group": "QPID-6307",
        "NotifyTestCase.test_multiple_servers": "QPID-6307",
    },
}
# The batch is 205 notifications that nobody acknowledges. A router drops what is over this number.
LISTENER = {"linkCapacity": 1000}
SECONDS = 900

pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow, pytest.mark.router]


@pytest.fixture(scope="module", params=[engines.QDROUTERD, engines.SKROUTERD])
def router(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> collections.abc.Iterator[engines.Router]:
    engines.command(request.param)
    with engines.running(request.param, tmp_path_factory.mktemp(request.param), listener=LISTENER) as started:
        yield started


@pytest.fixture(scope="module", params=CELLS, ids="-".join)
def cell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """An interpreter whose environment can run the suite, and the scheme."""
    python = environments.python(request.config, tmp_path_factory, request.param[0])
    environments.install(python, *LIBRARIES)
    return python, request.param[1]


def run(command: list[str], directory: pathlib.Path, environment: dict[str, str]) -> tuple[int, str]:
    """Return the exit code and what was printed.

    The suite's oslo_metrics does not always end when it is told to. It would keep a pipe open, and its port busy.
    """
    with open(directory / "output", "wb") as output:
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            status = process.wait(SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return status, (directory / "output").read_text()


@pytest.mark.parametrize("part", ["batch", "others"])
def test_functional_suite(
    router: engines.Router, cell: tuple[str, str], part: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python, scheme = cell
    url = f"{scheme}://{router.url}/"
    # A test of the suite starts python3 -m oslo_metrics.
    path = f"{pathlib.Path(python).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "RPC_TRANSPORT_URL": url, "NOTIFY_TRANSPORT_URL": url}
    status, output = run([python, "-W", "ignore", str(PROGRAM), part], tmp_path, environment)
    lines = output.splitlines()
    ends = [line for line in lines if line.startswith(("Ran ", "OK", "FAILED", "FAIL:", "ERROR:"))]
    with capsys.disabled():
        print(f"\n{pathlib.Path(python).parts[-3]} {scheme} {router.engine} {part}: {' / '.join(ends)}")
    assert status == 0, "\n".join([*ends, output[-5000:]])
    told = next(line for line in lines if line.startswith('{"run"'))
    assert json.loads(told) == (
        {"run": 1, "skipped": {}} if part == "batch" else {"run": 30, "skipped": SKIPPED[scheme]}
    )
