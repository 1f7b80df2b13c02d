"""Which router connects to which: at present every interior to every other, one connector per pair."""

from __future__ import annotations

from om_agent import model


def peers(deployment: model.Deployment, node: str) -> tuple[model.Node, ...]:
    """Return the nodes that the router on ``node`` opens a connection to.

    Of each pair the router whose name sorts later connects, so that all nodes agree whatever the order of the
    metadata, and names that contain one another (``ctl-1``, ``ctl-10``) are different names.
    """
    by_name = deployment.by_name()
    return tuple(by_name[n] for n in sorted(model.interiors(deployment)) if n < node)
