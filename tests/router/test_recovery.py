"""Every failure of `testbed.recovery`: nothing acknowledged is lost, and everything recovers by itself.

One run for each engine makes all rows; the tests then look at them. What concerns brokers runs once, with RPC over
RabbitMQ. The second engine has the cases in which routers do the most; ``python -m testbed.recovery`` runs all.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing

import pytest
from om_agent import model

from testbed import overcloud, routers
from testbed.recovery import cases
from tests.router import cloud as clouds

pytestmark = [pytest.mark.router, pytest.mark.slow]

_SECONDS = 1500
_BROKERS = ("kill-broker", "stop-broker", "disk-full")
_ROUTERS = ("kill-interior", "kill-edge", "stop-router", "cut-site", "burst", "storm")
CASES = {
    "qdrouterd": [c.name for c in cases.CASES if cases.AMQP in c.backends and c.name not in _BROKERS],
    "skrouterd": [c.name for c in cases.CASES if c.name in _ROUTERS],
    "qdrouterd-amqp1": list(_ROUTERS),  # with the driver of this project
    "rabbitmq": [c.name for c in cases.CASES if cases.RABBIT in c.backends],
}
# A cut between two of three RabbitMQ stops all calls for half a minute. So few are no load.
_FEWEST_CALLS = 50
# A call that was under way may last its timeout of 10 s; on a busy machine everything takes longer.
_RECOVERED_SECONDS = 25.0

Row = dict[str, typing.Any]
_runs: dict[str, dict[str, Row]] = {}
_failed: dict[str, str] = {}


def rows(name: str, directory: pathlib.Path) -> dict[str, Row]:
    """Return the rows by case, from one run for each name: an engine, or RabbitMQ."""
    if os.geteuid() != 0:
        pytest.skip("networks that can be cut need root")
    if name not in _runs:
        found = directory / f"{name}.json"
        engine, _, driver = name.partition("-")
        options = ["--rpc", "rabbit"] if name == "rabbitmq" else ["--rpc", "amqp", "--engine", engine]
        options += ["--driver", driver] if driver else []
        options += [option for case in CASES[name] for option in ("--only", case)]
        argv = [sys.executable, "-m", "testbed.recovery", "--json", str(found), *options]
        environment = {**os.environ, **overcloud.python_environment()}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, env=environment, check=False)
        print(done.stdout)
        _failed[name] = done.stderr if done.returncode else ""
        _runs[name] = {row["case"]: row for row in json.loads(found.read_text())} if found.exists() else {}
    return _runs[name]


@pytest.mark.timeout(_SECONDS + 60)
@pytest.mark.parametrize(("name", "case"), [(name, case) for name in CASES for case in CASES[name]])
def test_nothing_is_lost_and_all_recovers(name: str, case: str, tmp_path: pathlib.Path) -> None:
    if name != "rabbitmq":
        clouds.need(model.Engine(name.partition("-")[0]))
    elif not any(routers.find(engine) for engine in clouds.ENGINES):
        pytest.skip("no qdrouterd or skrouterd that these rows would stand beside")
    row = rows(name, tmp_path).get(case)
    assert row, _failed[name]
    found = row["outcome"]
    assert found["ok"] > _FEWEST_CALLS
    assert (found["lost"]["cast"], found["lost"]["notify"]) == (0, 0), found["lost_at"]
    # A fanout is acknowledged by those servers that the routers know of in that moment, and by no others. Of an edge
    # whose heartbeat comes late on a busy machine they know nothing for a while.
    unwell = row["lasted"] + row["well"] + 5.0
    assert row["starved"] or all(-1.0 < at < unwell for at in found["lost_at"]["fanout"]), found["lost_at"]
    assert found["disturbed"] < row["lasted"] + row["well"] + _RECOVERED_SECONDS
