"""The record of one kind of problem or finding."""

from __future__ import annotations

import dataclasses

from om_agent import errors

# The verdict about a node's messaging. It works; it works without redundancy, so that the next failure may stop it; or
# it does not work.
WORKS, DEGRADED, BROKEN = "works", "degraded", "broken"

# Groups of metadata keys that rules read.
PORTS = ("port", "inter_router_port", "edge_port", "http_port", "dist_port", "metrics_port")
PASSWORDS = ("password", "mesh_password", "admin_password")
TLS = ("tls", "distribution_tls")
CARRIERS = ("nodes", "hosts", "scheme", "engine")  # which nodes carry a half


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of problem or finding.

    :param message: what is wrong, a clause with places for names.
    :param remedy: how to fix it.
    :param severity: `errors.ERROR` when it stops the command that finds it.
    :param reads: the metadata keys that the rule reads. If one of them is invalid, the rule reports nothing, since its
        problem would only follow from that key. None for a check that reads only its own key.
    :param verdict: the verdict about messaging on the node because of it; '' when it is never found at running
        messaging. With the verdict `WORKS` it is a warning there.
    :param heals: whether it may disappear without any action: a router is starting, a connector tries again after up
        to 10 s, or the connector's last message is older than the repair. Everything else is reported at once.
    :param mesh: whether it concerns the routers and their clients, as Heat's output ``mesh`` does.
    :param half: ``rpc`` or ``notify`` when it concerns the backend of that half, and so the mesh if that is a router.
    :param blocks: whether this node's own router accepts no message of a service because of it.
    """

    message: str
    remedy: str
    severity: str = errors.ERROR
    reads: tuple[str, ...] | None = None
    verdict: str = ""
    heals: bool = False
    mesh: bool = False
    half: str = ""
    blocks: bool = False

    @property
    def found_severity(self) -> str:
        """The severity of what a look at running messaging finds."""
        return errors.WARNING if self.verdict == WORKS else errors.ERROR
