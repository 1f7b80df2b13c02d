"""A router that runs tells no secret to whoever may ask it everything, and neither do those who ask it."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import typing

import pytest
from om_agent import amqp, model

from testbed import overcloud
from tests.security import canary, routers, shapes
from tests.support import helpers

LINE = canary.BETWEEN_IN_LINE


@pytest.fixture(params=routers.ENGINES, ids=lambda e: e.value)
def engine(request: pytest.FixtureRequest) -> model.Engine:
    return typing.cast("model.Engine", request.param)


def messaging(engine: model.Engine, address: str) -> helpers.Raw:
    """Both halves over this router, with a second user each."""
    raw = routers.metadata(engine, address, shapes.routers())
    for half in ("rpc", "notify"):
        raw[half]["also_accept"] = [{"username": f"former {half}", "password": canary.secret("former")}]
    raw["router"]["admin_password"] = canary.secret("admin", LINE)
    return raw


def test_management_tells_no_secret(engine: model.Engine, tmp_path: pathlib.Path) -> None:
    """No type of entity and no log of a router contains a secret."""
    searcher = canary.Searcher()
    told: dict[str, int] = {}
    with routers.run(messaging(engine, "127.0.66.10"), tmp_path) as router:
        types = router.types()
        for kind in types:
            try:
                rows = router.client.query(kind)
            except amqp.Refused:  # an abstract one
                continue
            told[kind] = len(rows)
            assert not searcher.find(repr(rows)), (kind, searcher.find(repr(rows)))
    assert {"listener", "vhost", "policy", "connection", "router.link"} <= {kind for kind, n in told.items() if n}
    logs = "".join(path.read_text(errors="replace") for path in (tmp_path / "logs").iterdir())
    assert logs and not searcher.find(logs), searcher.find(logs)


def test_verify_and_status_of_a_router_that_runs(engine: model.Engine, tmp_path: pathlib.Path) -> None:
    """They log in with one password, send messages with two others, and start a program for that."""
    pytest.importorskip("oslo_messaging")
    pytest.importorskip("pyngus")
    searcher, raw = canary.Searcher(), messaging(engine, "127.0.67.10")
    path = tmp_path / "metadata.json"
    path.touch(0o600)
    path.write_text(json.dumps({"oslo_messaging": raw}))
    with routers.run(raw, tmp_path) as router, canary.Watcher(searcher, tmp_path) as watcher:
        for command, more in (("verify", ["--timeout", "0"]), ("status", [])):
            argv = [sys.executable, "-m", "om_agent", command, "--json", str(path), "--node", routers.NAME, *more]
            argv += ["--root", str(router.root), "--relocate", "--no-services"]
            done = subprocess.run(
                argv, env=overcloud.python_environment(), capture_output=True, text=True, timeout=120, check=False
            )
            said = done.stdout + done.stderr
            assert not searcher.find(said), searcher.find(said)
            answer = json.loads(done.stdout)
            assert {f["code"] for f in answer["findings"] if f["severity"] == "error"} <= {"config-differs"}, said
            if command == "verify":
                assert sorted(p["half"] for p in answer["probes"]) == ["notify", "rpc"]
    assert watcher.found == [] and watcher.looks and watcher.processes
