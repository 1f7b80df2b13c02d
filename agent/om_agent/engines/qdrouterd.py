"""Apache qpid-dispatch-router 1.19.0.

Source of paths and user: its unit file and RPM specification.
"""

from __future__ import annotations

from om_agent.engines import record

ENGINE = record.Record(
    program="qdrouterd",
    directory="/etc/qpid-dispatch",
    product="qpid-dispatch-router",
    prefix="org.apache.qpid.dispatch.",
    statistics="router",
    meshes=True,
    only_plain=False,
    changes=True,
    caches_tls=False,  # run
    repeats_fanouts=True,  # run; doc/topology.rst
    interior_connections=1,
)
