"""What a side is made to do, and the figures of it."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import itertools
import time

from bench import figures, machine, sides
from testbed import errors, processes, workers

_FAR_CALLERS = (1, 12)
_CALLERS = {
    "one": (1, 4, 16, 32, 64), "three": (1, 4, 12, 16, 64), "settings": (12, 64),
    "driver": (1, 16, 32, 64), "driver-mesh": (12,),
}  # fmt: skip
_ONLY = {"driver": ("cast",), "driver-mesh": (), "settings": ("cast", "fanout")}  # bursts; else all kinds
CONNECTIONS = (100, 500, 1000, 2000)
STORM = 500
_WARM_SECONDS = 1.0
_CALL_SECONDS = 5.0
_TIMEOUT = 30.0
_BURST_SECONDS = 60.0
_BURSTS = (("cast", 4, 4000), ("cast", 32, 6000), ("fanout", 4, 2000), ("notify", 4, 3000))  # kind, threads, messages
_SETTLE_SECONDS = 3.0  # without a change, until what is missing is lost
_OPEN_SECONDS = 180.0
_IDLE_SECONDS = 10.0
_FAILOVER_SECONDS = 20.0
_FAILURE_AT = 3.0
_BACK_AFTER = 1.0  # as the units restart what has crashed
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
    return [total // parts + (i < total % parts) for i in range(min(total, parts))]


def calls(side: sides.Side, callers: int, far: bool = False) -> Values:
    """Call as fast as so many threads can, spread over the clients; servers answer at once.

    :param far: whether each client calls the server of the next node; else any server may answer.
    """
    servers = itertools.cycle((*side.servers[1:], side.servers[0]))
    used = list(zip(side.clients, _shares(callers, len(side.clients)), servers))
    watched = (side.intermediaries, [worker.process for worker in (*side.servers, *side.clients)])
    for seconds in (_WARM_SECONDS, _CALL_SECONDS):
        before = [machine.used(some) for some in watched]
        for client, threads, server in used:
            only = server.host.name if far else ""
            client.begin("call", _MANY, seconds, server, only=only, timeout=_TIMEOUT, threads=threads)
        sent = [one for client, *_ in used for one in client.result()]
        after = [machine.used(some) for some in watched]
    good = [one for one in sent if not one.error]
    if not good:
        raise errors.TestbedError(f"No call of {side.kind.words} was answered.", side.clients[0].process.tail())
    took = [1000 * one.seconds for one in good]
    carrying, serving = (10_000 * (b - a) / len(good) for a, b in zip(before, after))
    return {
        "calls/s": len(good) / (max(one.done for one in good) - min(one.begun for one in sent)),
        "p50 ms": figures.percentile(took, 50),
        "p99 ms": figures.percentile(took, 99),
        "CPU s/10k": carrying,
        "services' CPU s/10k": serving,
        "CPU of all s/10k": carrying + serving,
        "memory MiB": machine.resident(side.intermediaries),
        "memory with notifications MiB": machine.resident(side.messaging),
        "failed": len(sent) - len(good),
    }


def burst(side: sides.Side, kind: str, threads: int, count: int) -> Values:
    """Send as fast as one process with so many threads can, and see what arrives."""
    carriers = side.stores if kind == "notify" else side.intermediaries
    client = side.clients[0]
    target = None if kind == "notify" else side.servers[0]
    before = machine.Usage.now(carriers, ())
    client.begin(kind, count, _BURST_SECONDS, target, timeout=_TIMEOUT, threads=threads)
    sent = client.result()
    good = {one.ident: one.begun for one in sent if not one.error}
    arrived = _arrived(side, kind, good)
    after = machine.Usage.now(carriers, ())
    begun = min(one.begun for one in sent)
    copies = len(side.servers) if kind == "fanout" else 1
    wanted = copies * len(good)
    return {
        "sent/s": len(good) / (max(one.done for one in sent) - begun),
        "arrived/s": len(arrived) / (max(arrived, default=begun) - begun + 1e-9),
        "CPU s/10k": 10_000 * (after.asked - before.asked) / max(1, len(arrived)),
        "lost": wanted - len(arrived),
        "lost %": 100 * (wanted - len(arrived)) / max(1, wanted),
        "refused": len(sent) - len(good),
    }


def _arrived(side: sides.Side, kind: str, good: dict[str, float]) -> list[float]:
    """Wait until all are there or no more come; returns when each did."""
    if kind == "notify":
        read: list[collections.abc.Callable[[], workers.Got]] = [one.got for one in side.listeners]
    else:
        read = [lambda server=server: server.got(kind) for server in side.servers]  # type: ignore[misc]
    wanted = len(good) * (len(read) if kind == "fanout" else 1)
    found: list[float] = []
    changed = time.monotonic()
    while len(found) < wanted and time.monotonic() < changed + _SETTLE_SECONDS:
        time.sleep(0.3)
        before = len(found)
        found = [good[i] + late for got in read for i, late in got().seconds.items() if i in good]
        if len(found) != before:
            changed = time.monotonic()
    return found


def connections(side: sides.Side) -> Values:
    """Connect more and more clients that say nothing, each with what an RPC server has for itself and for answers."""
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
        side.supervisor.end(*(c.process for c in crowds), grace=0)
    return values


def storm(side: sides.Side) -> Values:
    """Kill what hundreds are connected to, start it again, and wait until all are complete again."""
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
        side.supervisor.end(*(c.process for c in crowds), grace=0)


def _open(crowds: list[workers.Crowd]) -> tuple[int, float]:
    reports = [crowd.report() for crowd in crowds]
    return sum(count for count, _ in reports), max(last for _, last in reports)


def _complete(crowds: list[workers.Crowd], count: int) -> None:
    what = f"{count} clients are connected"
    processes.wait_until(what, lambda: _open(crowds)[0] == count, _OPEN_SECONDS, interval=0.5)


def failover(side: sides.Side) -> Values:
    """Kill -9 the first node's router or broker under calls from every node; it is started again a second later.

    Services are new: those that have been through it are connected elsewhere, and would lose nothing.
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
    everything = [one for by_client in sent for one in by_client]
    disturbed = [one.done for one in everything if one.error or one.seconds > 1]
    return {
        "calls lost": sum(bool(one.error) for one in everything),
        "longest outage s": max(outage(by_client, begun) for by_client in sent),
        "disturbed until s": max(disturbed, default=killed) - killed,
        "calls": sum(not one.error for one in everything),
    }


def outage(sent: collections.abc.Iterable[workers.Sent], begun: float) -> float:
    """Return the longest time in seconds in which a thread of a client got no answer; ``begun`` is when all began."""
    found = 0.0
    last: dict[int, float] = {}
    for one in sorted(sent, key=lambda one: one.done):
        before = last.setdefault(one.thread, begun)
        found = max(found, one.done - before)
        if not one.error:
            last[one.thread] = one.done
    return found


def plan(pair: str) -> list[Work]:
    """Return the work for the sides of a pair, in order: what disturbs most comes last."""
    every = [Work(f"calls/{n}", functools.partial(calls, callers=n), 3) for n in _CALLERS[pair]]
    if pair == "three":
        every += [Work(f"far/{n}", functools.partial(calls, callers=n, far=True), 3) for n in _FAR_CALLERS]
    every += [
        Work(f"burst/{kind} {threads}", functools.partial(burst, kind=kind, threads=threads, count=count), 3)
        for kind, threads, count in _BURSTS
        if kind in _ONLY.get(pair, (kind,))
    ]
    last = {
        "one": [Work("connections", connections, 1), Work("storm", storm, 3)],
        "three": [Work("failover", failover, 3)],
    }
    return [*every, *last.get(pair, ())]
