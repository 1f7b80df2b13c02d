"""The ``$management`` node: a decoded request -> a reply. Pure.

Only QUERY is answered, as qpid-dispatch 1.19 answers it; anything else gets 501. Source of the shapes: AMQP Management
1.0 (working draft 16), section 3, and ``src/router_core/management_agent.c``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple

from om_devrouter import schema

Row = Mapping[str, Any]
#: Entity without the prefix -> its rows, made when asked.
Tables = Mapping[str, Callable[[], Sequence[Row]]]


class Reply(NamedTuple):
    """The application properties and the body of an answer."""

    status: int
    description: str
    body: dict[str, Any]


def answer(properties: Any, body: Any, tables: Tables) -> Reply:
    """Answer one request.

    :param properties: the request's application properties: operation, type, name, entityType, offset, count
    :param body: for QUERY a map with ``attributeNames``; none or an empty list means all of them
    """
    asked = properties if isinstance(properties, dict) else {}
    operation = asked.get("operation")
    if operation != "QUERY" or asked.get("type", "org.amqp.management") != "org.amqp.management":
        return _refuse(f"Operation {operation} is not implemented by om-devrouter, which answers QUERY only")
    entity_type = str(asked.get("entityType") or "")
    entity = entity_type[len(schema.TYPE_PREFIX) :] if entity_type.startswith(schema.TYPE_PREFIX) else ""
    if entity not in tables:
        return _refuse(f"om-devrouter has no entity type {entity_type!r}")
    names = body.get("attributeNames") if isinstance(body, dict) else None
    columns = [str(name) for name in names] if names else list(schema.COLUMNS[entity])
    rows = _page(list(tables[entity]()), asked.get("offset"), asked.get("count"))
    kind = schema.TYPE_PREFIX + entity
    return Reply(
        200,
        "OK",
        {
            "attributeNames": columns,
            "results": [[kind if column == "type" else row.get(column) for column in columns] for row in rows],
        },
    )


def _refuse(why: str) -> Reply:
    return Reply(501, why, {})


def _page(rows: list[Row], offset: Any, count: Any) -> list[Row]:
    start = max(0, int(offset)) if isinstance(offset, int) else 0
    if not isinstance(count, int) or count < 0:
        return rows[start:]
    return rows[start : start + count]
