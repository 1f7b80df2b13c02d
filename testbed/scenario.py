"""The messages that the demo sends over an overcloud's two backends, and the checks of their counts."""

from __future__ import annotations

import collections.abc
import dataclasses
import itertools
import math
import time

from testbed import errors, overcloud, processes, rabbitmq, routers, workers

CALL_SECONDS = 5.0  # a call's own timeout
_SETTLE_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class Counts:
    """The number of messages of each kind."""

    calls: int = 300
    casts: int = 300
    fanouts: int = 100
    notifications: int = 200


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One line of the table.

    :param received: messages that arrived, each counted once per receiver.
    :param again: how many arrived more than once.
    :param seconds: by message, the time until a call's answer, a cast's or fanout's arrival, or a notification's
        confirmation.
    """

    what: str
    sent: int
    expected: int
    received: int
    again: int
    seconds: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Restart:
    """The effect of a router's restart on calls.

    :param gap: the longest time that any client had no successful call.
    :param recovery: seconds from the router's start until every client had a successful call.
    :param late: clients without a successful call in the first round, which then got a second round.
    :param resynced: the output of ``om-agent resync`` between the rounds; '' when no client was late.
    """

    node: str
    clients: int
    ok: int
    failed: int
    gap: float
    recovery: float
    late: tuple[str, ...]
    resynced: str


def percentile(values: collections.abc.Iterable[float], percent: float) -> float:
    """Return the smallest value that ``percent`` of the values do not exceed, NaN without values."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    rank = math.ceil(len(ordered) * percent / 100)
    return ordered[max(0, rank - 1)]


class Services:
    """The services of the demo: nova on the computes, another one on each controller, and a client on every node."""

    def __init__(self, supervisor: processes.Supervisor, cloud: overcloud.Overcloud, mesh: routers.Mesh) -> None:
        self._supervisor = supervisor
        self._mesh = mesh
        controllers, computes = cloud.role("controller"), cloud.role("compute")
        if not controllers or len(computes) < 2:
            raise errors.TestbedError("The demo needs a controller and two computes in the metadata.")
        self.computes = tuple(workers.Server(supervisor, host, "nova", "compute") for host in computes)
        pairs = (("neutron", "q-plugin"), ("cinder", "cinder-volume"), ("heat", "engine"))
        self.others = tuple(
            workers.Server(supervisor, host, name, topic) for (name, topic), host in zip(pairs, controllers)
        )
        names = ("nova", *(server.service for server in self.others))
        self._clients = list(zip(cloud.hosts, itertools.cycle(names)))
        self.names = tuple(dict.fromkeys(names))
        self._listening_host = controllers[-1]
        self.clients: tuple[workers.Client, ...] = ()

    @property
    def servers(self) -> tuple[workers.Server, ...]:
        """Every RPC server."""
        return (*self.computes, *self.others)

    def start_clients(self) -> None:
        """Start a client on every node and wait until all are ready. The broker must run already."""
        self.clients = tuple(workers.Client(self._supervisor, host, service) for host, service in self._clients)
        for worker in (*self.servers, *self.clients):
            worker.expect("ready", workers.READY_SECONDS)
        self._mesh.wait_for_consumers("multicast/nova/compute", len(self.computes))
        for server in self.others:
            self._mesh.wait_for_consumers(f"anycast/{server.service}/{server.topic}", 1)

    def send(self, kind: str, count: int) -> list[workers.Sent]:
        """Let the clients together send ``count`` messages.

        Controllers send fanouts to the computes. All clients send the other kinds to all servers.
        """
        targets = self.computes[:1] if kind == "fanout" else (self.computes[0], *self.others)
        clients = list(self.clients)
        if kind == "fanout":
            # An edge router passes a sender's first fanout only to its own consumers (doc/topology.rst). As in a real
            # overcloud, controllers send the fanouts to the computes.
            clients = [client for client in self.clients if client.host.node.role == "controller"]
        share, rest = divmod(count, len(clients))
        sent: list[workers.Sent] = []
        for number, client in enumerate(clients):
            own_share = share + 1 if number < rest else share
            to = None if kind == "notify" else targets[number % len(targets)]
            client.begin(kind, own_share, 60.0, to, timeout=30.0)
            if kind == "notify" and number == 0:
                # When several clients declare a new quorum queue at once, RabbitMQ 4.0.5 may lose the first messages
                # (doc/rabbitmq4.rst). So one client declares it.
                sent += client.result()
        waiting = clients[1:] if kind == "notify" else clients
        for client in waiting:
            sent += client.result()
        return sent

    def rpc(self, kind: str, count: int) -> Outcome:
        """Send calls, casts or fanouts and wait until all have arrived."""
        sent = _by_ident(kind, self.send(kind, count))
        copies = len(self.computes) if kind == "fanout" else 1
        expected = count * copies
        got = _settled(lambda: [server.got(kind) for server in self.servers], expected)
        arrived: list[float] = []
        for received in got:
            arrived += [seconds for ident, seconds in received.seconds.items() if ident in sent]
        again = sum(received.again for received in got)
        times = _seconds(sent) if kind == "call" else tuple(arrived)
        return Outcome(kind, len(sent), expected, len(arrived), again, times)

    def notify(self, count: int) -> tuple[Outcome, collections.abc.Callable[[], Outcome]]:
        """Send notifications without any listener. Return the outcome, and a function that starts a listener."""
        sent = _by_ident("notify", self.send("notify", count))
        times = _seconds(sent)

        def fetch() -> Outcome:
            listener = workers.Listener(self._supervisor, self._listening_host, "nova", self.names)
            listener.expect("ready", workers.READY_SECONDS)
            (got,) = _settled(lambda: [listener.got()], count)
            received = sent.keys() & got.seconds.keys()
            return Outcome("notify", len(sent), count, len(received), got.again, times)

        return Outcome("notify", len(sent), count, 0, 0, times), fetch

    def restart(self, router: routers.Router, seconds: float, pause: float) -> Restart:
        """Kill a router while every client calls in a loop, and start it again as systemd would.

        :param seconds: the length of the loop; the kill comes after a third of it.
        :param pause: seconds between kill and start; systemd's RestartSec is 0.1.
        """
        attached = router.clients()
        self._call(self.clients, seconds)
        time.sleep(seconds / 3)
        router.kill()
        time.sleep(pause)
        restarted = time.monotonic()
        router.start()
        results = {client: client.result() for client in self.clients}
        late = _without(results, restarted)
        resynced = ""
        if late:
            # Other routers may lack addresses of the restarted one (doc/operations.rst), or the machine is just busy.
            resynced = overcloud.resync(self._supervisor, router.host)
            self._call(late, seconds)
            for client in late:
                results[client] += client.result()
        failing = [client.host.name for client in _without(results, restarted)]
        if failing:
            raise errors.TestbedError(
                f"The clients on {', '.join(failing)} had no successful call after the router's restart.",
                f"om-agent resync said: {resynced}",
            )
        good = [_good_calls(sent) for sent in results.values()]
        total = sum(map(len, results.values()))
        ok = sum(map(len, good))
        return Restart(
            node=router.host.name,
            clients=attached,
            ok=ok,
            failed=total - ok,
            gap=max(_longest_gap(calls) for calls in good),
            recovery=max(_first_after(calls, restarted) for calls in good) - restarted,
            late=tuple(client.host.name for client in late),
            resynced=resynced,
        )

    def _call(self, clients: collections.abc.Iterable[workers.Client], seconds: float) -> None:
        """Let these clients begin to call in a loop. Each calls one server."""
        targets = (self.computes[0], *self.others)
        for client in clients:
            to = targets[self.clients.index(client) % len(targets)]
            client.begin("call", 1_000_000, seconds, to, timeout=CALL_SECONDS, interval=0.02)


def _without(
    results: collections.abc.Mapping[workers.Client, list[workers.Sent]], since: float
) -> list[workers.Client]:
    """Return the clients that had no successful call since a point in time."""
    clients = []
    for client, sent in results.items():
        if not any(call.done > since for call in _good_calls(sent)):
            clients.append(client)
    return clients


def _good_calls(sent: collections.abc.Iterable[workers.Sent]) -> list[workers.Sent]:
    return [call for call in sent if not call.error]


def _longest_gap(calls: list[workers.Sent]) -> float:
    return max((later.done - earlier.done for earlier, later in zip(calls, calls[1:])), default=0.0)


def _first_after(calls: collections.abc.Iterable[workers.Sent], moment: float) -> float:
    return min(call.done for call in calls if call.done > moment)


def _by_ident(kind: str, sent: collections.abc.Collection[workers.Sent]) -> dict[str, workers.Sent]:
    """Return messages by their names.

    :raises testbed.errors.TestbedError: when one could not be sent.
    """
    failed = [message.error for message in sent if message.error]
    if failed:
        raise errors.TestbedError(f"{len(failed)} of {len(sent)} ({kind}) could not be sent: {', '.join(set(failed))}.")
    return {message.ident: message for message in sent}


def _seconds(sent: collections.abc.Mapping[str, workers.Sent]) -> tuple[float, ...]:
    return tuple(message.seconds for message in sent.values())


def _settled(ask: collections.abc.Callable[[], list[workers.Got]], expected: int) -> list[workers.Got]:
    """Ask until the expected number of messages has arrived, or the time is over. The caller checks the number."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        got = ask()
        if sum(len(one.seconds) for one in got) >= expected or time.monotonic() > deadline:
            return got
        time.sleep(0.1)


# --------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Carried:
    """The messages that the backends counted."""

    router_rpc: routers.Counters
    router_notify: routers.Counters
    broker: rabbitmq.Counters


def note_again(outcomes: collections.abc.Iterable[Outcome]) -> str:
    """Return the note about fanouts that arrived more than once, '' when there are none.

    qpid-dispatch 1.19.0 passes a multicast message from one interior router on to all others, although these also get
    a direct copy: qdr_forward_multicast_CT in src/router_core/forwarder.c does not check valid_origins, unlike its
    balanced forwarder and skupper-router's multicast. This needs at least three routers. No message is lost.
    """
    again = sum(outcome.again for outcome in outcomes)
    if not again:
        return ""
    return f"{again} fanouts arrived again: qdrouterd multicasts along every path of a mesh of three or more"


def carried(mesh: routers.Mesh, cluster: rabbitmq.Cluster) -> Carried:
    """Return the counters of both backends."""
    return Carried(mesh.counters(routers.RPC), mesh.counters(routers.NOTIFY), cluster.counters())


def check(outcomes: collections.abc.Iterable[Outcome], found: Carried, fanouts_again: bool) -> None:
    """Check that no message was lost, and that RPC and notifications each used only their own backend.

    :param fanouts_again: whether fanouts may arrive more than once in this mesh, see `note_again`.
    :raises testbed.errors.TestbedError: for the first check that fails.
    """
    by_kind = {outcome.what: outcome for outcome in outcomes}
    for outcome in by_kind.values():
        if outcome.received != outcome.expected:
            raise errors.TestbedError(
                f"Messages were lost: only {outcome.received} of {outcome.expected} ({outcome.what}) arrived."
            )
        if outcome.again and not (outcome.what == "fanout" and fanouts_again):
            raise errors.TestbedError(f"{outcome.again} messages ({outcome.what}) arrived twice.")
    rpc = [by_kind[kind] for kind in ("call", "cast", "fanout")]
    rpc_sent = sum(outcome.sent for outcome in rpc)
    rpc_delivered = sum(outcome.received + outcome.again for outcome in rpc)
    notifications = by_kind["notify"].sent
    expectations = (
        ("RPC messages that the routers received", found.router_rpc.ingress, rpc_sent),
        ("RPC messages that the routers delivered", found.router_rpc.egress, rpc_delivered),
        ("notifications that the routers received", found.router_notify.ingress, 0),
        ("messages that RabbitMQ received", found.broker.received, notifications),
        ("messages that RabbitMQ confirmed", found.broker.confirmed, notifications),
        ("messages that consumers of RabbitMQ acknowledged", found.broker.acknowledged, notifications),
        ("messages that RabbitMQ could not route", found.broker.unroutable, 0),
    )
    for what, counted, expected in expectations:
        if counted != expected:
            raise errors.TestbedError(f"The counters do not agree: {what}: {counted} instead of {expected}.")
