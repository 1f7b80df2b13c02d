"""The record of findings: what is true of each code that a look at running messaging may give. Pure.

A new finding gets a row here; a test says which are missing.
"""

from __future__ import annotations

import dataclasses
import typing

from om_agent import errors

# What a node's messaging is, in one word: it works; it works and redundancy is lost, so that the next loss may cut
# somebody off; it does not work.
WORKS, DEGRADED, BROKEN = "works", "degraded", "broken"


@dataclasses.dataclass(frozen=True)
class Nature:
    """What is true of a finding whatever its words.

    :param verdict: what messaging on the node is because of it. One that leaves it at `WORKS` is a warning.
    :param heals: it may go away by itself: a router is being started, a connector tries again after up to 10 s, or its
        last words are older than the repair. Everything else is reported at once.
    :param mesh: it is about routers and who is connected to them, as Heat's output ``mesh`` is.
    :param half: ``rpc`` or ``notify`` when it is about what that half goes over, and so about the mesh where that does.
    :param blocks: as long as it is there, this node's own router takes no message of a service.
    """

    verdict: str = BROKEN
    heals: bool = False
    mesh: bool = False
    half: str = ""
    blocks: bool = False

    @property
    def severity(self) -> str:
        """The severity of the finding."""
        return errors.WARNING if self.verdict == WORKS else errors.ERROR


_OWN = Nature(mesh=True, blocks=True)  # of this node's router
_STARTS = Nature(heals=True, mesh=True, blocks=True)
_PEER = Nature(mesh=True)
_APART = Nature(heals=True, mesh=True)
_LOST = Nature(DEGRADED, heals=True, mesh=True)
_LOST_COPIES = Nature(DEGRADED, heals=True)
_NOTE = Nature(WORKS)

# Every code that `om_agent.verify` or `om_agent.observe` may give.
NATURES: typing.Mapping[str, Nature] = {
    "config-differs": Nature(),
    "address-misfit": Nature(mesh=True, blocks=True),
    "overridden": Nature(),
    "rejected-line": Nature(),
    "unread": Nature(),
    "uwsgi-threads": Nature(),
    "own-transport": _NOTE,
    "no-proton": Nature(mesh=True),
    "router-down": _STARTS,
    "router-hung": _STARTS,
    "router-closed": _OWN,
    "router-login": _OWN,
    "router-certificate": _OWN,
    "router-stranger": _OWN,
    "router-engine": _OWN,
    "router-drained": _OWN,
    "router-drift": _PEER,
    "stale-certificate": Nature(WORKS, mesh=True),
    "peer-down": _LOST,
    "peer-hung": _LOST,
    "link-down": _LOST,
    "addresses-unknown": _APART,
    "mesh-minority": _APART,
    "peer-unlinked": _APART,
    "peer-partial": _APART,
    "peer-credentials": _APART,
    "peer-certificate": _APART,
    "peer-login": _PEER,
    "duplicate-id": _PEER,
    "other-engine": _PEER,
    "uplink-down": _APART,
    "uplink-stranger": _PEER,
    "services-unseen": Nature(WORKS, mesh=True),
    "sessions-exhausted": _PEER,
    "sessions-near": Nature(WORKS, mesh=True),
    "connections-exhausted": _PEER,
    "connections-near": Nature(WORKS, mesh=True),
    "service-stuck": _PEER,
    "listener-slow": Nature(WORKS, mesh=True),
    "calls-stuck": _PEER,
    "unit-unconnected": Nature(heals=True, half="rpc"),
    "broker-down": Nature(heals=True),
    "broker-members": _LOST_COPIES,
    "broker-stranger": Nature(),
    "broker-partition": Nature(),
    "broker-alarm": Nature(),
    "broker-listener": Nature(),
    "broker-majors": Nature(DEGRADED),
    "broker-flags": _NOTE,
    "queue-unfit": _NOTE,
    "queue-members": _LOST_COPIES,
    "broker-metrics": _NOTE,
    "stale-broker-certificate": _NOTE,
    "rpc-failed": Nature(heals=True, half="rpc"),
    "notify-failed": Nature(heals=True, half="notify"),
    "probe-impossible": Nature(),
    "no-probe": _NOTE,
}


def finding(at: str, code: str, **values: object) -> errors.Problem:
    """Return a finding, with the severity of its kind."""
    return errors.problem(at, code, NATURES[code].severity, **values)


def verdict(found: typing.Iterable[errors.Problem]) -> str:
    """Return `WORKS`, `DEGRADED` or `BROKEN`."""
    verdicts = {NATURES[f.code].verdict for f in found}
    return next((word for word in (BROKEN, DEGRADED) if word in verdicts), WORKS)
