"""What the demo sends over an overcloud's two backends, and what of it must be true."""

from __future__ import annotations

import collections.abc
import dataclasses
import math
import time

from testbed import errors, overcloud, processes, rabbitmq, routers, workers

CALL_SECONDS = 5.0  # a call's own timeout
_SETTLE_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class Counts:
    """How many messages of each kind."""

    calls: int = 300
    casts: int = 300
    fanouts: int = 100
    notifications: int = 200


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One line of the table.

    :param received: messages that arrived, each counted once per receiver.
    :param again: those that arrived although they had already.
    :param seconds: a call's answer, a cast's or fanout's way, a notification's confirmation; by message.
    """

    what: str
    sent: int
    expected: int
    received: int
    again: int
    seconds: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Restart:
    """What a router's restart did to calls.

    :param gap: the longest time that any client was without a good call.
    :param recovery: from the router's new start until every client had a good call.
    :param late: clients that had none while all called, and were then given as long again.
    :param resynced: what ``om-agent resync`` said in between; '' when no client was late.
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
    """Return the smallest value that ``percent`` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else math.nan


class Services:
    """The services of the demo's overcloud: nova on the computes, one other on each controller, clients everywhere."""

    def __init__(self, supervisor: processes.Supervisor, cloud: overcloud.Overcloud, mesh: routers.Mesh) -> None:
        self._supervisor = supervisor
        self._mesh = mesh
        controllers, computes = cloud.role("controller"), cloud.role("compute")
        if not controllers or len(computes) < 2:
            raise errors.TestbedError("The demo needs a controller and two computes in the metadata.")
        self.computes = tuple(workers.Server(supervisor, host, "nova", "compute") for host in computes)
        others = zip(("neutron", "cinder", "heat"), ("q-plugin", "cinder-volume", "engine"), controllers)
        self.others = tuple(workers.Server(supervisor, host, name, topic) for name, topic, host in others)
        names = ("nova", *(server.service for server in self.others))
        self._clients = [(host, names[i % len(names)]) for i, host in enumerate(cloud.hosts)]
        self.names = tuple(dict.fromkeys(names))
        self._listening_host = controllers[-1]
        self.clients: tuple[workers.Client, ...] = ()

    @property
    def servers(self) -> tuple[workers.Server, ...]:
        """Every RPC server."""
        return (*self.computes, *self.others)

    def start_clients(self) -> None:
        """Start a client on every node and wait for all; the broker must be there."""
        self.clients = tuple(workers.Client(self._supervisor, host, service) for host, service in self._clients)
        for worker in (*self.servers, *self.clients):
            worker.expect("ready", workers.READY_SECONDS)
        self._mesh.wait_for_consumers("multicast/nova/compute", len(self.computes))
        for server in self.others:
            self._mesh.wait_for_consumers(f"anycast/{server.service}/{server.topic}", 1)

    def send(self, kind: str, count: int) -> list[workers.Sent]:
        """Let clients together send ``count`` messages; fanouts go from controllers to computes, the rest from all
        to all servers."""
        targets = self.computes[:1] if kind == "fanout" else (self.computes[0], *self.others)
        # An edge router hands a sender's first fanout to consumers of its own alone (doc/topology.rst): as in a real
        # overcloud, those to the computes come from controllers.
        clients = [c for c in self.clients if kind != "fanout" or c.host.node.role == "controller"]
        first: list[workers.Sent] = []
        for i, client in enumerate(clients):
            share = count // len(clients) + (i < count % len(clients))
            to = None if kind == "notify" else targets[i % len(targets)]
            client.begin(kind, share, 60.0, to, timeout=30.0)
            if kind == "notify" and not i:
                # When several clients declare a new quorum queue at once, RabbitMQ 4.0.5 may lose the first messages
                # (doc/rabbitmq4.rst). So one client declares it.
                first = client.result()
        waiting = clients[1:] if kind == "notify" else clients
        return first + [sent for client in waiting for sent in client.result()]

    def rpc(self, kind: str, count: int) -> Outcome:
        """Send calls, casts or fanouts and wait until all have arrived."""
        sent = _good(kind, self.send(kind, count))
        copies = len(self.computes) if kind == "fanout" else 1
        got = _settled(lambda: [server.got(kind) for server in self.servers], count * copies)
        arrived = [seconds for one in got for ident, seconds in one.seconds.items() if ident in sent]
        times = [s.seconds for s in sent.values()] if kind == "call" else arrived
        return Outcome(kind, len(sent), count * copies, len(arrived), sum(one.again for one in got), tuple(times))

    def notify(self, count: int) -> tuple[Outcome, collections.abc.Callable[[], Outcome]]:
        """Send notifications with no listener anywhere; returns what was sent, and how to fetch it."""
        sent = _good("notify", self.send("notify", count))
        times = tuple(s.seconds for s in sent.values())

        def fetch() -> Outcome:
            listener = workers.Listener(self._supervisor, self._listening_host, "nova", self.names)
            listener.expect("ready", workers.READY_SECONDS)
            (got,) = _settled(lambda: [listener.got()], count)
            return Outcome("notify", len(sent), count, len(sent.keys() & got.seconds.keys()), got.again, times)

        return Outcome("notify", len(sent), count, 0, 0, times), fetch

    def restart(self, router: routers.Router, seconds: float, pause: float) -> Restart:
        """Kill a router while every client calls in a loop, and start it again as systemd would.

        :param seconds: of the loop; a third of it is before the kill.
        :param pause: between the two; systemd's RestartSec is 0.1.
        """
        attached = router.clients()
        self._call(self.clients, seconds)
        time.sleep(seconds / 3)
        router.kill()
        time.sleep(pause)
        restarted = time.monotonic()
        router.start()
        results = {client: client.result() for client in self.clients}
        late, resynced = _without(results, restarted), ""
        if late:
            # Other routers may lack addresses of the restarted one (doc/operations.rst), or the machine is just busy.
            resynced = overcloud.resync(self._supervisor, router.host)
            self._call(late, seconds)
            for client in late:
                results[client] += client.result()
        still = [client.host.name for client in _without(results, restarted)]
        if still:
            told = f"om-agent resync said: {resynced}"
            raise errors.TestbedError(
                f"After the router's restart the clients on {', '.join(still)} had no good call any more.", told
            )
        good = [[s for s in sent if not s.error] for sent in results.values()]
        return Restart(
            node=router.host.name,
            clients=attached,
            ok=sum(map(len, good)),
            failed=sum(map(len, results.values())) - sum(map(len, good)),
            gap=max(b.done - a.done for sent in good for a, b in zip(sent, sent[1:])),
            recovery=max(min(s.done for s in sent if s.done > restarted) for sent in good) - restarted,
            late=tuple(client.host.name for client in late),
            resynced=resynced,
        )

    def _call(self, clients: collections.abc.Iterable[workers.Client], seconds: float) -> None:
        """Have these clients begin to call in a loop, each a server of its own."""
        targets = (self.computes[0], *self.others)
        for client in clients:
            to = targets[self.clients.index(client) % len(targets)]
            client.begin("call", 1_000_000, seconds, to, timeout=CALL_SECONDS, interval=0.02)


def _without(
    results: collections.abc.Mapping[workers.Client, list[workers.Sent]], since: float
) -> list[workers.Client]:
    """Return the clients that had no good call since a point in time."""
    return [client for client, sent in results.items() if not any(s.done > since and not s.error for s in sent)]


def _good(kind: str, sent: list[workers.Sent]) -> dict[str, workers.Sent]:
    failed = [s.error for s in sent if s.error]
    if failed:
        raise errors.TestbedError(f"{len(failed)} of {len(sent)} ({kind}) could not be sent: {', '.join(set(failed))}.")
    return {s.ident: s for s in sent}


def _settled(ask: collections.abc.Callable[[], list[workers.Got]], expected: int) -> list[workers.Got]:
    """Ask until what is expected is there, or time is over: too few is for the caller to tell."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        got = ask()
        if sum(len(one.seconds) for one in got) >= expected or time.monotonic() > deadline:
            return got
        time.sleep(0.1)


# --------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Carried:
    """What the backends themselves counted."""

    router_rpc: routers.Counters
    router_notify: routers.Counters
    broker: rabbitmq.Counters


def note_again(outcomes: collections.abc.Iterable[Outcome]) -> str:
    """Return what is to be said of fanouts that arrived more than once, '' when there are none.

    qpid-dispatch 1.19.0 passes a multicast message that it got from one interior on to every other one, whose direct
    copy is under way too: qdr_forward_multicast_CT in src/router_core/forwarder.c does not look at valid_origins, as
    its own balanced forwarder and skupper-router's multicast do. Two routers have no third; fanouts are meant for all,
    and nothing is lost.
    """
    again = sum(outcome.again for outcome in outcomes)
    return (
        f"{again} fanouts arrived again: qdrouterd multicasts along every path of a mesh of three or more"
        if again
        else ""
    )


def carried(mesh: routers.Mesh, cluster: rabbitmq.Cluster) -> Carried:
    """Ask both backends."""
    return Carried(mesh.counters(routers.RPC), mesh.counters(routers.NOTIFY), cluster.counters())


def check(outcomes: collections.abc.Iterable[Outcome], found: Carried, fanouts_again: bool) -> None:
    """Check that nothing was lost, and that each half went where the metadata says and nowhere else.

    :param fanouts_again: whether this mesh is one that multicasts more than once, see `note_again`.
    :raises testbed.errors.TestbedError: with the first thing that is not so.
    """
    by_kind = {outcome.what: outcome for outcome in outcomes}
    for outcome in by_kind.values():
        if outcome.received != outcome.expected:
            raise errors.TestbedError(
                f"Messages were lost: of {outcome.expected} ({outcome.what}) {outcome.received} arrived."
            )
        if outcome.again and not (outcome.what == "fanout" and fanouts_again):
            raise errors.TestbedError(f"{outcome.again} messages ({outcome.what}) arrived twice.")
    rpc = [by_kind[kind] for kind in ("call", "cast", "fanout")]
    notifications = by_kind["notify"].sent
    expectations = (
        ("the router took in RPC messages", found.router_rpc.ingress, sum(o.sent for o in rpc)),
        ("the router gave out RPC messages", found.router_rpc.egress, sum(o.received + o.again for o in rpc)),
        ("the router took in notifications", found.router_notify.ingress, 0),
        ("RabbitMQ took in messages", found.broker.received, notifications),
        ("RabbitMQ confirmed messages", found.broker.confirmed, notifications),
        ("RabbitMQ had messages acknowledged", found.broker.acknowledged, notifications),
        ("RabbitMQ could not route messages", found.broker.unroutable, 0),
    )
    for what, counted, expected in expectations:
        if counted != expected:
            raise errors.TestbedError(f"The counters do not agree: {what}: {counted}, where {expected} is right.")
