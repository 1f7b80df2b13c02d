"""The example alerts name metrics that router and broker really have."""

from __future__ import annotations

import json
import pathlib
import re
import typing
import urllib.request

import pytest
import yaml
from om_agent import model

from testbed import errors, overcloud, processes, rabbitmq, routers
from tests.support import helpers

ALERTS = pathlib.Path(__file__).parents[2] / "doc/prometheus-alerts.yaml"
ADDRESS = "127.0.73.10"
ENGINES = (model.Engine.QDROUTERD, model.Engine.SKROUTERD)


def rules(group: str) -> list[dict[str, typing.Any]]:
    groups = {g["name"]: g["rules"] for g in yaml.safe_load(ALERTS.read_text())["groups"]}
    return typing.cast("list[dict[str, typing.Any]]", groups[group])


def named(group: str, prefix: str) -> set[str]:
    """Return the metrics in the expressions of a group."""
    found = {name for rule in rules(group) for name in re.findall(rf"\b{prefix}_\w+", rule["expr"])}
    assert found
    return found


def test_every_alert_says_what_it_means_and_what_to_do_next() -> None:
    for group in ("om-router", "om-broker"):
        for rule in rules(group):
            assert rule["labels"]["severity"] in ("warning", "critical"), rule
            assert rule["annotations"]["summary"] and rule["annotations"]["next"], rule


def cloud(supervisor: processes.Supervisor, directory: pathlib.Path, engine: model.Engine) -> overcloud.Overcloud:
    """One controller, its files written by the agent."""
    raw = helpers.dual(1, 0)
    raw["nodes"][0].update(address=ADDRESS, host=ADDRESS)
    raw["router"]["engine"] = engine.value
    raw["broker"]["cluster"] = False
    path = directory / "metadata.json"
    path.write_text(json.dumps({"oslo_messaging": raw}))
    made = overcloud.create([path], directory / "nodes")
    overcloud.apply_all(supervisor, made, "apply")
    return made


@pytest.mark.router
@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.value)
def test_a_router_has_them(tmp_path: pathlib.Path, engine: model.Engine) -> None:
    if not routers.find(engine):
        pytest.skip(f"no {engine.value} on PATH or named by OM_{engine.value.upper()}")
    with processes.Supervisor(tmp_path / "logs") as supervisor:
        made = cloud(supervisor, tmp_path, engine)
        routers.Mesh(supervisor, made).start()
        url = f"http://{ADDRESS}:{made.deployment.router.http_port}/metrics"
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as response:
            text = response.read().decode()
    assert named("om-router", "qdr") <= set(re.findall(r"^(\w+) ", text, re.MULTILINE))


def test_a_broker_has_them(tmp_path: pathlib.Path) -> None:
    try:
        rabbitmq.find_server()
    except errors.TestbedError as e:
        helpers.skip(str(e))
    with processes.Supervisor(tmp_path / "logs") as supervisor:
        cluster = rabbitmq.Cluster(supervisor, cloud(supervisor, tmp_path, model.Engine.EMBEDDED))
        cluster.start()
        cluster.wait()
        found = cluster.nodes[0].scrape().keys()
        cluster.end()
    assert named("om-broker", "rabbitmq") <= found
