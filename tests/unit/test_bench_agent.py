"""The agent benchmark: its files, its metadata and its figures."""

from __future__ import annotations

import math
import pathlib

import pytest
from om_agent import model, parse
from om_agent.plan import topology

from bench import agent, figures
from tests.support import helpers


def test_a_template_names_the_values_that_are_ours_and_keeps_the_rest() -> None:
    text = "[DEFAULT]\n# transport_url = x\ntransport_url = rabbit://a\nstate_path=/var\n"
    keys = [("transport_url", "rabbit://a"), ("ssl", None), ("state_path", "other")]
    assert agent.template(text, keys, 3) == (
        "[DEFAULT]\n# transport_url = x\ntransport_url = {{{v3}}}\nstate_path=/var\n",
        {"v3": "rabbit://a"},
    )


@pytest.mark.parametrize(("count", "sites"), [(10, 1), (100, 1), (2_500, 3)])
def test_an_overcloud_has_a_few_interiors_in_each_site_and_no_loss_cuts_it(count: int, sites: int) -> None:
    d = parse.deployment(agent.overcloud_of(count), helpers.catalogue())
    mesh = topology.mesh(d)
    assert len(d.nodes) == count
    assert [len(mesh.interiors), len(mesh.edges)] == [3 * sites, count - 3 * sites]
    assert mesh.losses == ()
    assert {n.router for n in d.nodes if n.role == "compute"} == {model.RouterMode.EDGE}


@pytest.mark.parametrize("count", agent.SERVICES)
def test_so_many_services_have_files_of_which_nova_is_the_first(tmp_path: pathlib.Path, count: int) -> None:
    having = agent.having(count)
    agent.make_node(tmp_path, having)
    assert having[0].name == "nova"
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == count


def test_growth_is_one_where_the_cost_is_linear_and_starting_does_not_count() -> None:
    def sample(count: int, cost: float) -> figures.Sample:
        return figures.Sample("agent", f"plan/{count}", "agent", 0, {"CPU s": cost, "memory MiB": 20.0}, 0.0)

    linear = agent.growth([sample(n, 0.3 + n * 5e-5) for n in agent.NODES], "plan")
    assert linear["CPU us a node"] == pytest.approx(50)
    assert linear["CPU us a node, ratio"] == pytest.approx(1)
    assert math.isnan(linear["memory KiB a node, ratio"])  # of nothing
    square = agent.growth([sample(n, 0.3 + n * n * 1e-8) for n in agent.NODES], "plan")
    assert square["CPU us a node, ratio"] == pytest.approx(2.8)  # (10 + 4) / (4 + 1)
