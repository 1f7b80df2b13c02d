"""What $management answers."""

from __future__ import annotations

import pytest
from om_devrouter import management, schema

ROWS = [{"name": str(number), "key": number} for number in range(5)]
TABLES: management.Tables = {"router.address": lambda: ROWS, "router.node": list}


def ask(body: object = None, **properties: object) -> management.Reply:
    query: dict[str, object] = {
        "operation": "QUERY",
        "type": "org.amqp.management",
        "name": "self",
        "entityType": schema.TYPE_PREFIX + "router.address",
    }
    return management.answer({**query, **properties}, body, TABLES)


def test_all_columns_in_qdrouterds_order() -> None:
    bodies: tuple[object, ...] = (None, {}, {"attributeNames": []})
    for body in bodies:
        reply = ask(body)
        assert (reply.status, reply.description) == (200, "OK")
        assert reply.body["attributeNames"] == list(schema.COLUMNS["router.address"])
        assert [row[0] for row in reply.body["results"]] == list("01234")
        assert all(row[2] == "org.apache.qpid.dispatch.router.address" for row in reply.body["results"])


def test_some_columns_and_unknown_ones_as_null() -> None:
    reply = ask({"attributeNames": ["key", "nosuch"]})
    assert reply.body == {"attributeNames": ["key", "nosuch"], "results": [[number, None] for number in range(5)]}


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ({"offset": 3}, "34"),
        ({"count": 2}, "01"),
        ({"offset": 1, "count": 2}, "12"),
        ({"offset": 9}, ""),
        ({"count": 0}, ""),
        ({"offset": -1, "count": -1}, "01234"),
        ({"offset": "x"}, "01234"),
    ],
)
def test_some_rows(page: dict[str, object], names: str) -> None:
    assert [row[0] for row in ask({"attributeNames": ["name"]}, **page).body["results"]] == list(names)


@pytest.mark.parametrize(
    "properties",
    [
        {"operation": "CREATE"},
        {"operation": "READ"},
        {"operation": None},
        {"entityType": "router.address"},
        {"entityType": schema.TYPE_PREFIX + "connector"},
        {"entityType": None},
        {"type": "org.apache.qpid.dispatch.listener"},
    ],
)
def test_anything_else_is_not_implemented(properties: dict[str, object]) -> None:
    reply = ask(**properties)
    assert reply.status == 501 and reply.description and reply.body == {}


@pytest.mark.parametrize("properties", [None, [], "x"])
def test_a_request_without_properties(properties: object) -> None:
    assert management.answer(properties, None, TABLES).status == 501
