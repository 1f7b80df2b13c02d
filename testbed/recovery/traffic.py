"""The load during a failure, RPC and notifications: what was sent, its outcome, and how long it was disturbed."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import time

from testbed import overcloud, processes, workers

CALL_SECONDS = 10.0
SLOW_SECONDS = 1.0  # a call that takes longer counts as disturbed by the failure
_INTERVAL = 0.25
_SETTLE_SECONDS = 5.0  # without a change
_ON_CONTROLLER = ("call", "call", "cast", "fanout", "notify")
_ON_COMPUTE = ("call", "call", "cast", "notify")  # without fanouts to its own node: see doc/recovery.rst


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of all messages.

    :param gap: the longest time that any client had no successful call.
    :param disturbed: seconds from the failure to the end of the last failed or slow call; 0 without such a call.
    :param acknowledged: by kind, the number of messages sent without an error.
    :param refused: by kind, the number of messages whose sending raised an error.
    :param lost: by kind, the number of acknowledged messages that never arrived; a fanout counts once per server.
    :param lost_at: by kind, how many seconds after the failure the lost messages were sent.
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
    """Servers on both computes, clients on two controllers and a compute, one listener."""

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
        """Send until every kind works for every client, so that all links and queues exist."""
        for _ in range(10):
            self.begin(2.0)
            if not any(sent.error for client in self.clients for sent in client.result()):
                return

    def result(self, failure: float) -> Outcome:
        """Stop sending, and return the outcome of all messages.

        :param failure: when the failure came.
        """
        for client in self.clients:
            client.enough()
        by_client = [client.result() for client in self.clients]
        sent = [message for messages in by_client for message in messages]
        calls = [message for message in sent if message.kind == "call"]
        good_calls = [call for call in calls if not call.error]
        disturbed = [call.done for call in calls if call.error or call.seconds > SLOW_SECONDS]
        others = [message for message in sent if message.kind != "call"]
        acknowledged = [message for message in others if not message.error]
        begun = {message.ident: message.begun for message in acknowledged}
        lost = self._lost(begun.keys())
        lost_at = {}
        for kind, idents in lost.items():
            lost_at[kind] = sorted(round(begun[ident] - failure, 2) for ident in idents)
        return Outcome(
            ok=len(good_calls),
            failed=len(calls) - len(good_calls),
            gap=max(self._gap(messages) for messages in by_client),
            disturbed=max(disturbed) - failure if disturbed else 0.0,
            acknowledged=_count(message.kind for message in acknowledged),
            refused=_count(message.kind for message in others if message.error),
            lost={kind: len(idents) for kind, idents in lost.items()},
            lost_at=lost_at,
            errors=_count(f"{message.kind}: {message.error}" for message in sent if message.error),
        )

    def _gap(self, sent: list[workers.Sent]) -> float:
        """Return the longest time without a successful call."""
        answered = [message.done for message in sent if message.kind == "call" and not message.error]
        if not answered:
            return time.monotonic() - self._begun
        times = [self._begun, *sorted(answered)]
        return max(later - earlier for earlier, later in zip(times, times[1:]))

    def _lost(self, acknowledged: collections.abc.Collection[str]) -> dict[str, list[str]]:
        """Wait until no message is missing or no more arrive. Return the missing ones by kind."""
        missing = self._missing(acknowledged)
        changed = time.monotonic()
        while any(missing.values()) and time.monotonic() < changed + _SETTLE_SECONDS:
            time.sleep(0.5)
            before = missing
            missing = self._missing(acknowledged)
            if missing != before:
                changed = time.monotonic()
        return missing

    def _missing(self, acknowledged: collections.abc.Iterable[str]) -> dict[str, list[str]]:
        wanted: dict[str, set[str]] = {kind: set() for kind in ("cast", "fanout", "notify")}
        for ident in acknowledged:
            wanted[ident.split(".")[2]].add(ident)
        casts = [server.got("cast").seconds.keys() for server in self.servers]
        missing_fanouts: list[str] = []
        for server in self.servers:
            missing_fanouts += wanted["fanout"] - server.got("fanout").seconds.keys()
        return {
            "cast": sorted(wanted["cast"].difference(*casts)),
            "fanout": sorted(missing_fanouts),
            "notify": sorted(wanted["notify"] - self.listener.got().seconds.keys()),
        }

    def end(self) -> None:
        """End the services."""
        services = (*self.servers, *self.clients, self.listener)
        self._supervisor.end(*(worker.process for worker in services), grace=3)


def _count(words: collections.abc.Iterable[str]) -> dict[str, int]:
    return dict(sorted(collections.Counter(words).items()))
