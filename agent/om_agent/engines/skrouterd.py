"""skupper-router 3.4.2.

Source of paths and user: its unit file and RPM specification.
"""

from __future__ import annotations

from om_agent.engines import record

ENGINE = record.Record(
    program="skrouterd",
    directory="/etc/skupper-router",
    product="skupper-router",
    prefix="io.skupper.router.",
    statistics="routerMetrics",
    meshes=True,
    only_plain=False,
    changes=True,
    caches_tls=True,  # run
    repeats_fanouts=False,  # since 3.1.0
    interior_connections=2,  # one of them for data
)
