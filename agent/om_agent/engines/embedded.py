"""The development router of this project, for tests and demonstrations."""

from __future__ import annotations

from om_agent.engines import record

ENGINE = record.Record(
    program="om-devrouter",
    directory="/etc/om-devrouter",
    product="om-devrouter",
    prefix="org.apache.qpid.dispatch.",
    statistics="router",
    meshes=False,
    only_plain=True,
    changes=False,
    caches_tls=False,
    repeats_fanouts=False,
    interior_connections=1,
)
