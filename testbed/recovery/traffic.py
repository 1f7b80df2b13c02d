"""RPC and notifications all the while: what was sent, what became of it, and for how long it was disturbed."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import time

from testbed import overcloud, processes, workers

CALL_SECONDS = 10.0
SLOW_SECONDS = 1.0  # a call that takes longer is one that the failure disturbed
_INTERVAL = 0.25
_SETTLE_SECONDS = 5.0  # without a change
_ON_CONTROLLER = ("call", "call", "cast", "fanout", "notify")
_ON_COMPUTE = ("call", "call", "cast", "notify")  # no fanout to where it comes from: see doc/recovery.rst


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of everything.

    :param gap: the longest time that any client was without a good call.
    :param disturbed: from the failure until the last call ended that failed or was slow; 0 when there was none.
    :param acknowledged: by kind, how many were sent and not refused.
    :param refused: by kind, how many sends raised an error.
    :param lost: by kind, how many of those acknowledged never arrived; a fanout counts once per server.
    :param lost_at: by kind, how many seconds after the failure these were sent.
    """

    ok: int
    failed: int
    gap: float
    disturbed: float
    acknowledged: dict[str, int]
    refused: dict[str, int]
    lost: dict[str, int]
    lost_at: dict[str, list[float]]
    errors: dict[str, int]


class Traffic:
    """Servers on both computes and a controller, clients on two controllers and a compute, one listener."""

    def __init__(self, supervisor: processes.Supervisor, hosts: collections.abc.Mapping[str, overcloud.Host]) -> None:
        self.servers = [workers.Server(supervisor, hosts[name], "nova", "compute") for name in ("cmp-1", "cmp-2")]
        self.clients = [workers.Client(supervisor, hosts[name], "nova") for name in ("ctl-1", "ctl-2", "cmp-1")]
        self.listener = workers.Listener(supervisor, hosts["ctl-3"], "nova", ("nova",))
        self._supervisor = supervisor
        for worker in (*self.servers, *self.clients, self.listener):
            worker.expect("ready", workers.READY_SECONDS)
        self._begun = 0.0

    def begin(self, seconds: float) -> None:
        """Begin to send."""
        self._begun = time.monotonic()
        for client in self.clients:
            kinds = _ON_COMPUTE if client.host.node.role == "compute" else _ON_CONTROLLER
            client.begin(kinds, 1_000_000, seconds, self.servers[0], interval=_INTERVAL, timeout=CALL_SECONDS)

    def warm_up(self) -> None:
        """Send until every kind works for every client, so that links and queues are there."""
        for _ in range(10):
            self.begin(2.0)
            if not any(sent.error for client in self.clients for sent in client.result()):
                return

    def result(self, failure: float) -> Outcome:
        """End what was begun, and tell what became of it.

        :param failure: when that was.
        """
        for client in self.clients:
            client.enough()
        sent = [client.result() for client in self.clients]
        everything = [one for by_client in sent for one in by_client]
        calls = [one for one in everything if one.kind == "call"]
        others = [one for one in everything if one.kind != "call"]
        bad = [one for one in calls if one.error or one.seconds > SLOW_SECONDS]
        lost = self._lost({one.ident for one in others if not one.error})
        begun = {one.ident: one.begun for one in others}
        return Outcome(
            ok=sum(not one.error for one in calls),
            failed=sum(bool(one.error) for one in calls),
            gap=max(self._gap(by_client) for by_client in sent),
            disturbed=max([one.done - failure for one in bad], default=0.0),
            acknowledged=_count(one.kind for one in others if not one.error),
            refused=_count(one.kind for one in others if one.error),
            lost={kind: len(idents) for kind, idents in lost.items()},
            lost_at={
                kind: sorted(round(begun[ident] - failure, 2) for ident in idents) for kind, idents in lost.items()
            },
            errors=_count(f"{one.kind}: {one.error}" for one in everything if one.error),
        )

    def _gap(self, sent: list[workers.Sent]) -> float:
        good = [self._begun, *sorted(one.done for one in sent if one.kind == "call" and not one.error)]
        return max([later - one for one, later in zip(good, good[1:])], default=time.monotonic() - self._begun)

    def _lost(self, acknowledged: set[str]) -> dict[str, list[str]]:
        """Wait until nothing is missing, or no more arrives."""
        missing, changed = self._missing(acknowledged), time.monotonic()
        while any(missing.values()) and time.monotonic() < changed + _SETTLE_SECONDS:
            time.sleep(0.5)
            before, missing = missing, self._missing(acknowledged)
            changed = changed if missing == before else time.monotonic()
        return missing

    def _missing(self, acknowledged: set[str]) -> dict[str, list[str]]:
        wanted: dict[str, set[str]] = {kind: set() for kind in ("cast", "fanout", "notify")}
        for ident in acknowledged:
            wanted[ident.split(".")[2]].add(ident)
        casts = [server.got("cast").seconds.keys() for server in self.servers]
        fanouts = [server.got("fanout").seconds.keys() for server in self.servers]
        return {
            "cast": sorted(wanted["cast"].difference(*casts)),
            "fanout": sorted(ident for got in fanouts for ident in wanted["fanout"] - got),
            "notify": sorted(wanted["notify"] - self.listener.got().seconds.keys()),
        }

    def end(self) -> None:
        """End the services."""
        self._supervisor.end(*(w.process for w in (*self.servers, *self.clients, self.listener)), grace=3)


def _count(found: collections.abc.Iterable[str]) -> dict[str, int]:
    return dict(sorted(collections.Counter(found).items()))
