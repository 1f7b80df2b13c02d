"""What is true of one kind of problem or finding, whatever its place and words."""

from __future__ import annotations

import dataclasses

from om_agent import errors

# What a node's messaging is, in one word: it works; it works and redundancy is lost, so that the next loss may cut
# somebody off; it does not work.
WORKS, DEGRADED, BROKEN = "works", "degraded", "broken"

# Keys of the metadata by what is read of them.
PORTS = ("port", "inter_router_port", "edge_port", "http_port", "dist_port", "metrics_port")
PASSWORDS = ("password", "mesh_password", "admin_password")
TLS = ("tls", "distribution_tls")
CARRIERS = ("nodes", "hosts", "scheme", "engine")  # which nodes carry a half


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of problem or finding.

    :param message: what is wrong, a clause with places for names.
    :param remedy: how to fix it.
    :param severity: `errors.ERROR` when it stops the command that meets it.
    :param reads: keys of the metadata that the check reads. While one of them is not known, the check says nothing:
        its problem would follow from that one. None of one that reads no other key than its own.
    :param verdict: what messaging on the node is because of it; '' when no look at running messaging finds it. One that
        leaves messaging at `WORKS` is a warning there.
    :param heals: it may go away by itself: a router is being started, a connector tries again after up to 10 s, or its
        last words are older than the repair. Everything else is reported at once.
    :param mesh: it is about routers and who is connected to them, as Heat's output ``mesh`` is.
    :param half: ``rpc`` or ``notify`` when it is about what that half goes over, and so about the mesh where that does.
    :param blocks: as long as it is there, this node's own router takes no message of a service.
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
