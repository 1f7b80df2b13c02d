"""A process with hundreds of peers, which both the development router's and the engines' tests use."""

from __future__ import annotations

import json
import sys

from testbed import overcloud, processes

COUNT = 300
SECONDS = 240.0


def check(supervisor: processes.Supervisor, host: overcloud.Host, service: str) -> None:
    """Let one server answer 300 callers, and one client call 300 servers."""
    config = str(host.service_file(service))
    argv = [*host.within, sys.executable, "-W", "ignore", "-m", "testbed.peers"]
    options = ["--config", config, "--count", str(COUNT)]
    process = supervisor.start("peers", [*argv, *options], overcloud.python_environment())
    done = supervisor.finish(process, SECONDS)
    assert done.returncode == 0, done.output
    found = json.loads(done.output.splitlines()[-1])
    good = {"good": COUNT, "errors": []}
    assert found == {
        "servers called": good,
        "callers served": good,
        "still connected": {"good": 1, "errors": []},
    }, done.output[-2000:]
