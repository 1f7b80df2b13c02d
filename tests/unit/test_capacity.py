"""Capacity: counts that can be checked by hand, and the limits that they reach."""

from __future__ import annotations

import pytest
from om_agent import model, parse
from om_agent.plan import capacity

from tests.support import helpers

put = helpers.put
PROCESSES = {"controller": 10, "compute": 2}


def needs(raw: helpers.Raw, times: int = 1) -> dict[str, capacity.Need]:
    return {n.kind: n for n in capacity.measure(parse.deployment(raw), PROCESSES, times).needs}


def test_dual_backends() -> None:
    found = needs(helpers.dual(3, 6))
    interior, edge, broker = found["interior"], found["edge"], found["broker"]
    assert (interior.nodes, interior.clients, interior.edges, interior.peers) == (3, 10, 4, 2)
    assert interior.connections == 10 * capacity.ROUTER.client_connections + 4 + 2
    assert (edge.nodes, edge.clients, edge.peers) == (6, 2, 2)
    assert (broker.nodes, broker.clients, broker.peers) == (3, 14, 2)  # (3 * 10 + 6 * 2) / 3
    assert interior.descriptors == capacity.ROUTER.descriptors + interior.connections
    assert (interior.links, edge.links, broker.links) == (6 * 2 * capacity.WORKERS, 2 * 3 * capacity.WORKERS, 0)
    own = capacity.ROUTER.memory + 10 * capacity.ROUTER.client_memory
    others = 4 * capacity.EDGE_MEMORY + 2 * capacity.INTER_ROUTER_MEMORY
    assert interior.memory == own + others + interior.links * capacity.LINK_MEMORY


def test_ten_times_as_many_nodes_without_server() -> None:
    size = capacity.measure(parse.deployment(helpers.dual(3, 6)), PROCESSES, 10)
    found = {n.kind: n for n in size.needs}
    assert size.nodes == 63
    assert (found["interior"].edges, found["interior"].clients) == (40, 10)
    assert (found["edge"].nodes, found["edge"].connections) == (60, needs(helpers.dual(3, 6))["edge"].connections)
    assert found["broker"].clients == 50


def test_clients_of_the_mesh_are_shared_by_all_interiors() -> None:
    found = needs(put(helpers.dual(3, 6), "router.clients", "mesh"))
    assert set(found) == {"interior", "broker"}
    assert (found["interior"].clients, found["interior"].edges) == (14, 0)


def test_a_role_without_router_connects_elsewhere() -> None:
    found = needs(put(helpers.dual(3, 6), "router.roles", {"compute": "none"}))
    assert found["interior"].clients == 10 + 4


def test_rabbit_for_both_has_more_connections() -> None:
    found = needs(helpers.default(3, 6))
    assert set(found) == {"broker"}
    assert found["broker"].connections == 14 * 6 + 2
    assert needs(helpers.dual(3, 6))["broker"].connections == 14 + 2


def test_skrouterd_has_two_connections_between_interiors() -> None:
    assert needs(put(helpers.dual(3, 6), "router.engine", "skrouterd"))["interior"].peers == 4


def test_external_backends_need_nothing_here() -> None:
    raw = put(put(helpers.dual(), "rpc.hosts", ["r"]), "notify.hosts", ["n"])
    assert needs(raw) == {}


def test_other_roles_have_the_default() -> None:
    raw = put(helpers.dual(3, 1), "nodes.3.role", "networker")
    assert needs(raw)["edge"].clients == capacity.OTHER_PROCESSES


@pytest.mark.parametrize(
    ("raw", "times", "words"),
    [
        (helpers.dual(3, 1), 10, ()),
        (helpers.dual(3, 1), 32_768, ()),  # two processes a compute, of which one calls
        (helpers.dual(3, 1), 32_769, ("32769 sessions on one connection", "default_sender_link_timeout")),
        (helpers.dual(3, 1), 200_000, ("descriptors on ctl-", "add interior routers")),
        (helpers.default(3, 1), 200_000, ("descriptors on ctl-0 (broker)", "put RPC on routers")),
        (helpers.dual(100, 0), 1, ("100 of at most 128 interior routers",)),
    ],
)
def test_advice(raw: helpers.Raw, times: int, words: tuple[str, ...]) -> None:
    advice = "\n".join(capacity.measure(parse.deployment(raw), PROCESSES, times).advice)
    assert bool(advice) is bool(words)
    for word in words:
        assert word in advice


def test_every_kind_of_backend_is_counted() -> None:
    assert set(capacity._NEEDS) == {scheme.record.server for scheme in model.Scheme}
