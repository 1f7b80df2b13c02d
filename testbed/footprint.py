"""``python -m testbed.footprint``: what a router and a broker need for themselves and for each connection.

Resident memory and descriptors, read from /proc before and after so many connections of one kind were made; each figure
is the difference by their number. A client's connection is `testbed.crowd`'s. ``om-agent capacity`` multiplies these.
"""

from __future__ import annotations

import argparse
import collections.abc
import dataclasses
import json
import os
import pathlib
import sys
import time
import typing

from om_agent import model

from testbed import console, errors, overcloud, processes, rabbitmq, routers, workers
from testbed.recovery import network

_ENGINES = (model.Engine.QDROUTERD, model.Engine.SKROUTERD)
_CLIENTS = 300
_PEERS = 9
_EDGES = 24
_CALM_SECONDS = 4.0
_PASSWORD = "footprint-secret"
_MESH_PASSWORD = "mesh-secret"


@dataclasses.dataclass(frozen=True)
class Size:
    """What processes have: resident KiB, and descriptors."""

    kib: int
    descriptors: int

    @classmethod
    def of(cls, *made: processes.Process | None) -> Size:
        """Return the sum over processes, when they have come to rest."""
        time.sleep(_CALM_SECONDS)
        kib = descriptors = 0
        for process in made:
            if process:
                kib += process.resident_kib
                descriptors += len(os.listdir(f"/proc/{process.pid}/fd"))
        return cls(kib, descriptors)

    def more(self, later: Size, count: int) -> dict[str, float]:
        """Return how much more it is later, by each of ``count``."""
        return {
            "kib": round((later.kib - self.kib) / count, 1),
            "descriptors": round((later.descriptors - self.descriptors) / count, 2),
        }


class Bench:
    """Overclouds, one after the other."""

    def __init__(self, supervisor: processes.Supervisor, directory: pathlib.Path) -> None:
        self.supervisor = supervisor
        self.directory = directory
        self._count = 0

    def cloud(
        self, rpc: str, engine: str, controllers: int, computes: int, services: bool = False
    ) -> overcloud.Overcloud:
        """Apply an overcloud; services take long."""
        self._count += 1
        nodes = [f"ctl-{i}" for i in range(controllers)] + [f"cmp-{i}" for i in range(computes)]
        raw: dict[str, typing.Any] = {
            "rpc": {"scheme": rpc, "username": "rpc", "password": _PASSWORD, "tls": False},
            "notify": {"scheme": "rabbit", "username": "notify", "password": _PASSWORD},
            "router": {"engine": engine, "http_port": 0, "mesh_password": _MESH_PASSWORD},
            "nodes": [
                {"name": n, "address": f"127.0.77.{i + 1}", "role": "controller" if n[1] == "t" else "compute"}
                for i, n in enumerate(nodes)
            ],
        }
        metadata = self.directory / f"{self._count}.json"
        metadata.write_text(json.dumps({"oslo_messaging": raw}))
        made = overcloud.create([metadata], self.directory / f"nodes-{self._count}")
        if not services:
            overcloud.without_services(made.hosts)
        overcloud.apply_all(self.supervisor, made, f"apply-{self._count}")
        return made

    def crowd(self, cloud: overcloud.Overcloud, count: int) -> list[workers.Crowd]:
        """Connect clients to the first node, and wait for all."""
        made = [workers.Crowd(self.supervisor, cloud, cloud.hosts[:1], i * (count // 3), count // 3) for i in range(3)]
        what = f"{count} clients are connected"
        processes.wait_until(what, lambda: sum(c.report()[0] for c in made) == count, 120, interval=0.5)
        return made


def router(bench: Bench, engine: model.Engine) -> dict[str, typing.Any]:
    """Measure one engine."""
    cloud = bench.cloud("amqp", engine.value, 2 + _PEERS - 1, 0)
    mesh = routers.Mesh(bench.supervisor, cloud)
    first, *peers = mesh.routers
    first.start()
    first.wait()
    alone = Size.of(first.process)
    crowd = bench.crowd(cloud, _CLIENTS)
    full = Size.of(first.process)
    bench.supervisor.end(*(c.process for c in crowd), first.process or crowd[0].process)
    first.start()
    first.wait()
    before = Size.of(first.process)
    for peer in peers:
        peer.start()
    mesh.wait()
    time.sleep(20)
    meshed = Size.of(first.process)
    bench.supervisor.end(*(r.process for r in mesh.routers if r.process))

    cloud = bench.cloud("amqp", engine.value, 2, _EDGES)
    mesh = routers.Mesh(bench.supervisor, cloud)
    inner = [r for r in mesh.routers if r in mesh.interiors]
    outer = [r for r in mesh.routers if r not in mesh.interiors]
    for one in inner:
        one.start()
        one.wait()
    time.sleep(5)
    without = Size.of(*(r.process for r in inner))
    for one in outer:
        one.start()
    mesh.wait()
    edged = Size.of(*(r.process for r in inner))
    edge = Size.of(outer[0].process)
    bench.supervisor.end(*(r.process for r in mesh.routers if r.process))
    return {
        "alone": dataclasses.asdict(alone),
        "edge router, of itself with two uplinks": dataclasses.asdict(edge),
        "per client": alone.more(full, _CLIENTS),
        "per inter-router connection": before.more(meshed, _PEERS),
        "per edge connection": without.more(edged, 2 * _EDGES),
    }


def broker(bench: Bench) -> dict[str, typing.Any]:
    """Measure RabbitMQ."""
    cloud = bench.cloud("rabbit", "qdrouterd", 1, 0)
    cluster = rabbitmq.Cluster(bench.supervisor, cloud)
    cluster.start()
    cluster.wait()
    alone = Size.of(*cluster.processes)
    crowd = bench.crowd(cloud, _CLIENTS)
    full = Size.of(*cluster.processes)
    bench.supervisor.end(*(c.process for c in crowd))
    cluster.end()
    return {"alone": dataclasses.asdict(alone), "per client": alone.more(full, _CLIENTS)}


def service(bench: Bench, engine: model.Engine) -> dict[str, typing.Any]:
    """Count the connections of one service process: RPC server, client of two threads, notifications."""
    found = {}
    for rpc in ("amqp", "rabbit"):
        cloud = bench.cloud(rpc, engine.value, 1, 0, services=True)
        cluster = rabbitmq.Cluster(bench.supervisor, cloud)
        cluster.start()
        cluster.wait()
        mesh = routers.Mesh(bench.supervisor, cloud)
        mesh.start()
        one = workers.Client(bench.supervisor, cloud.hosts[0], "nova", "compute")
        one.expect("ready", workers.READY_SECONDS)
        time.sleep(2)
        one.begin(("call", "call", "cast", "notify"), 200, 10.0, one, timeout=10.0, interval=0.05)
        if any(sent.error for sent in one.result()):
            raise errors.TestbedError("The service could not send what it is counted by.")
        ports = {cloud.deployment.rpc.port, cloud.deployment.notify.port}
        counted = {port: _established(one.process, port) for port in ports}
        found[f"RPC over {rpc}"] = {
            "to the router": counted[cloud.deployment.rpc.port] if rpc == "amqp" else 0,
            "to the broker": counted[cloud.deployment.notify.port],
        }
        bench.supervisor.end(one.process, *(r.process for r in mesh.routers if r.process))
        cluster.end()
    return found


def _established(process: processes.Process, port: int) -> int:
    """Return how many connections to a port a process has (proc(5), /proc/net/tcp)."""
    links = [os.readlink(path) for path in pathlib.Path(f"/proc/{process.pid}/fd").iterdir()]
    inodes = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    rows = [line.split() for line in pathlib.Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(r[3] == "01" and r[9] in inodes and int(r[2].rpartition(":")[2], 16) == port for r in rows)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(prog="python -m testbed.footprint", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", type=pathlib.Path, metavar="DIR", help="a new directory: leave files and logs there")
    return parser


def main(argv: collections.abc.Sequence[str] | None = None) -> int:
    """Measure, and print JSON."""
    args = build_parser().parse_args(argv)
    processes.stop_on_signals()
    try:
        network.enter("testbed.footprint")
        network.loopback()
        with network.directory(args.keep) as directory, processes.Supervisor(directory / "logs") as supervisor:
            bench = Bench(supervisor, directory)
            here = [engine for engine in _ENGINES if routers.find(engine)]
            found = {engine.value: router(bench, engine) for engine in here}
            found["rabbitmq"] = broker(bench)
            if here:
                found["connections of a service process"] = service(bench, here[0])
            print(json.dumps(found, indent=1))
    except errors.TestbedError as e:
        console.Console(0).fail(str(e), e.detail)
        return 1
    except errors.Stopped as e:
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
