"""The router engines, by the values of ``router.engine``: one module for each engine."""

from __future__ import annotations

from om_agent.engines import embedded, qdrouterd, record, skrouterd

RECORDS: dict[str, record.Record] = {
    "qdrouterd": qdrouterd.ENGINE,
    "skrouterd": skrouterd.ENGINE,
    "embedded": embedded.ENGINE,
}
