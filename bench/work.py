"""The work that sides do, and how its figures are computed."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import itertools
import operator
import time

from bench import figures, machine, sides
from testbed import errors, processes, workers

_FAR_CALLERS = (1, 12)
_CALLERS = {
    "one": (1, 4, 16, 32, 64), "three": (1, 4, 12, 16, 64), "settings": (12, 64),
    "driver": (1, 16, 32, 64), "driver-mesh": (12,),
}  # fmt: skip
_ONLY = {"driver": ("cast",), "driver-mesh": (), "settings": ("cast", "fanout")}  # kinds of bursts; otherwise all
CONNECTIONS = (100, 500, 1000, 2000)
STORM = 500
_WARM_SECONDS = 1.0
_CALL_SECONDS = 5.0
_TIMEOUT = 30.0
_BURST_SECONDS = 60.0
_BURSTS = (("cast", 4, 4000), ("cast", 32, 6000), ("fanout", 4, 2000), ("notify", 4, 3000))  # kind, threads, messages
_SETTLE_SECONDS = 3.0  # when nothing arrives for so long, missing messages count as lost
_OPEN_SECONDS = 180.0
_IDLE_SECONDS = 10.0
_FAILOVER_SECONDS = 20.0
_FAILURE_AT = 3.0
_BACK_AFTER = 1.0  # systemd restarts a crashed unit after about that time
_FAILOVER_TIMEOUT = 10.0
_MANY = 10_000_000

Values = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Work:
    """One row of the benchmark."""

    name: str
    do: collections.abc.Callable[[sides.Side], Values]
    repetitions: int


def _shares(total: int, parts: int) -> list[int]:
    """Return ``total`` divided into equal parts as far as possible. Leave out parts of 0."""
    share, rest = divmod(total, parts)
    larger = [share + 1] * rest
    return larger + [share] * (parts - rest) if share else larger


def calls(side: sides.Side, callers: int, far: bool = False) -> Values:
    """Call as fast as ``callers`` threads can. The threads are divided among the clients; servers answer at once.

    :param far: whether each client calls the server of the next node; otherwise any server may answer.
    """
    services = [worker.process for worker in (*side.servers, *side.clients)]
    _call(side, callers, far, _WARM_SECONDS)
    intermediaries_before = machine.used(side.intermediaries)
    services_before = machine.used(services)
    sent = _call(side, callers, far, _CALL_SECONDS)
    intermediaries_cpu = machine.used(side.intermediaries) - intermediaries_before
    services_cpu = machine.used(services) - services_before
    good = [call for call in sent if not call.error]
    if not good:
        raise errors.TestbedError(f"No call of {side.kind.words} was answered.", side.clients[0].process.tail())
    milliseconds = [1000 * call.seconds for call in good]
    seconds = max(call.done for call in good) - min(call.begun for call in sent)
    each = 10_000 / len(good)
    return {
        "calls/s": len(good) / seconds,
        "p50 ms": figures.percentile(milliseconds, 50),
        "p99 ms": figures.percentile(milliseconds, 99),
        "CPU s/10k": each * intermediaries_cpu,
        "services' CPU s/10k": each * services_cpu,
        "CPU of all s/10k": each * (intermediaries_cpu + services_cpu),
        "memory MiB": machine.resident(side.intermediaries),
        "memory with notifications MiB": machine.resident(side.messaging),
        "failed": len(sent) - len(good),
    }


def _call(side: sides.Side, callers: int, far: bool, seconds: float) -> list[workers.Sent]:
    """Let the clients call for ``seconds``. Return their calls."""
    servers = (*side.servers[1:], side.servers[0])
    clients = []
    for client, threads, server in zip(side.clients, _shares(callers, len(side.clients)), itertools.cycle(servers)):
        only = server.host.name if far else ""
        client.begin("call", _MANY, seconds, server, only=only, timeout=_TIMEOUT, threads=threads)
        clients.append(client)
    sent: list[workers.Sent] = []
    for client in clients:
        sent += client.result()
    return sent


def burst(side: sides.Side, kind: str, threads: int, count: int) -> Values:
    """Send as fast as one process with ``threads`` threads can, and count what arrives."""
    carriers = side.stores if kind == "notify" else side.intermediaries
    client = side.clients[0]
    target = None if kind == "notify" else side.servers[0]
    before = machine.Usage.now(carriers, ())
    client.begin(kind, count, _BURST_SECONDS, target, timeout=_TIMEOUT, threads=threads)
    sent = client.result()
    good = {message.ident: message.begun for message in sent if not message.error}
    arrived = _arrived(side, kind, good)
    after = machine.Usage.now(carriers, ())
    begun = min(message.begun for message in sent)
    sending_seconds = max(message.done for message in sent) - begun
    arriving_seconds = max(arrived, default=begun) - begun + 1e-9
    copies = len(side.servers) if kind == "fanout" else 1
    wanted = copies * len(good)
    lost = wanted - len(arrived)
    return {
        "sent/s": len(good) / sending_seconds,
        "arrived/s": len(arrived) / arriving_seconds,
        "CPU s/10k": 10_000 * (after.asked - before.asked) / max(1, len(arrived)),
        "lost": lost,
        "lost %": 100 * lost / max(1, wanted),
        "refused": len(sent) - len(good),
    }


def _arrived(side: sides.Side, kind: str, good: dict[str, float]) -> list[float]:
    """Wait until all messages have arrived or no more do. Return when each arrived.

    :param good: when each message was sent.
    """
    receivers: collections.abc.Sequence[workers.Receiver] = side.listeners if kind == "notify" else side.servers
    wanted = len(good) * (len(receivers) if kind == "fanout" else 1)
    arrived: list[float] = []
    changed = time.monotonic()
    while len(arrived) < wanted and time.monotonic() < changed + _SETTLE_SECONDS:
        time.sleep(0.3)
        before = len(arrived)
        arrived = []
        for receiver in receivers:
            got = receiver.got(kind).seconds
            arrived += [good[ident] + seconds for ident, seconds in got.items() if ident in good]
        if len(arrived) != before:
            changed = time.monotonic()
    return arrived


def connections(side: sides.Side) -> Values:
    """Connect more and more idle clients. Each has the links or queues of an RPC server and of its replies."""
    values: Values = {}
    crowds: list[workers.Crowd] = []
    try:
        alone = machine.resident(side.intermediaries)
        began = machine.Usage.now(side.intermediaries, ())
        have = 0
        for count in CONNECTIONS:
            while have < count:
                more = min(count - have, 250)
                crowds.append(side.crowd(have, more))
                have += more
            _complete(crowds, count)
            sides.settle(2)
            after = machine.Usage.now(side.intermediaries, ())
            memory = machine.resident(side.intermediaries)
            values[f"memory MiB at {count}"] = memory
            values[f"KiB each at {count}"] = 1024 * (memory - alone) / count
            values[f"CPU s to open {count}"] = after.asked - began.asked
        before = machine.Usage.now(side.intermediaries, ())
        sides.settle(_IDLE_SECONDS)
        idle = machine.Usage.now(side.intermediaries, ())
        values[f"idle CPU % at {have}"] = 100 * (idle.asked - before.asked) / (idle.at - before.at)
    finally:
        side.supervisor.end(*(crowd.process for crowd in crowds), grace=0)
    return values


def storm(side: sides.Side) -> Values:
    """Kill the router or broker of `STORM` clients, start it again, and wait until all of them are connected again."""
    crowds = [side.crowd(first, 250) for first in range(0, STORM, 250)]
    try:
        _complete(crowds, STORM)
        killed = time.monotonic()
        side.kill(0)
        side.revive(0)
        begun = machine.Usage.now(side.intermediaries, ())
        processes.wait_until("clients notice", lambda: _open(crowds)[0] < STORM, 30, interval=0.2)
        _complete(crowds, STORM)
        last = max(crowd.report()[1] for crowd in crowds)
        after = machine.Usage.now(side.intermediaries, ())
        side.wait()
        return {"until all are back s": last - killed, "CPU s": after.asked - begun.asked}
    finally:
        side.supervisor.end(*(crowd.process for crowd in crowds), grace=0)


def _open(crowds: list[workers.Crowd]) -> tuple[int, float]:
    reports = [crowd.report() for crowd in crowds]
    return sum(count for count, _ in reports), max(last for _, last in reports)


def _complete(crowds: list[workers.Crowd], count: int) -> None:
    what = f"{count} clients are connected"
    processes.wait_until(what, lambda: _open(crowds)[0] == count, _OPEN_SECONDS, interval=0.5)


def failover(side: sides.Side) -> Values:
    """Kill the first node's router or broker during calls from every node, and start it again a second later.

    The services are new ones. After an earlier failover, services are connected to other nodes and would lose nothing.
    """
    side.renew_services()
    begun = time.monotonic()
    for client in side.clients:
        client.begin(
            "call", _MANY, _FAILOVER_SECONDS, side.servers[0], timeout=_FAILOVER_TIMEOUT, threads=2, interval=0.02
        )
    time.sleep(_FAILURE_AT)
    side.kill(0)
    killed = time.monotonic()
    time.sleep(_BACK_AFTER)
    side.revive(0)
    sent = [client.result() for client in side.clients]
    side.wait()
    all_calls = [call for by_client in sent for call in by_client]
    disturbed = [call.done for call in all_calls if call.error or call.seconds > 1]
    return {
        "calls lost": sum(bool(call.error) for call in all_calls),
        "longest outage s": max(outage(by_client, begun) for by_client in sent),
        "disturbed until s": max(disturbed, default=killed) - killed,
        "calls": sum(not call.error for call in all_calls),
    }


def outage(sent: collections.abc.Iterable[workers.Sent], begun: float) -> float:
    """Return the longest time in seconds in which a thread of a client got no answer.

    :param begun: when all threads began.
    """
    longest = 0.0
    last_answer: dict[int, float] = {}
    for call in sorted(sent, key=operator.attrgetter("done")):
        before = last_answer.setdefault(call.thread, begun)
        longest = max(longest, call.done - before)
        if not call.error:
            last_answer[call.thread] = call.done
    return longest


def plan(pair: str) -> list[Work]:
    """Return the work for the sides of a pair, in order. The work that disturbs the sides most comes last."""
    works = []
    for count in _CALLERS[pair]:
        works.append(Work(f"calls/{count}", functools.partial(calls, callers=count), 3))
    if pair == "three":
        for count in _FAR_CALLERS:
            works.append(Work(f"far/{count}", functools.partial(calls, callers=count, far=True), 3))
    for kind, threads, count in _BURSTS:
        if kind in _ONLY.get(pair, (kind,)):
            do = functools.partial(burst, kind=kind, threads=threads, count=count)
            works.append(Work(f"burst/{kind} {threads}", do, 3))
    if pair == "one":
        works += [Work("connections", connections, 1), Work("storm", storm, 3)]
    if pair == "three":
        works.append(Work("failover", failover, 3))
    return works
