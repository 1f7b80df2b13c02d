"""``python -m testbed.footprint``: the memory and descriptors of a router and a broker, alone and for each connection.

The program reads resident memory and descriptors from /proc, before and after a number of connections of one kind. A
figure is the difference divided by that number. Clients are those of `testbed.crowd`. ``om-agent capacity`` uses these
figures.
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
    """The resident KiB and the descriptors of processes."""

    kib: int
    descriptors: int

    @classmethod
    def of(cls, *made: processes.Process | None) -> Size:
        """Return the sum over processes, after a pause in which they come to rest."""
        time.sleep(_CALM_SECONDS)
        kib = descriptors = 0
        for process in made:
            if process:
                kib += process.resident_kib
                descriptors += len(os.listdir(f"/proc/{process.pid}/fd"))
        return cls(kib, descriptors)

    def more(self, later: Size, count: int) -> dict[str, float]:
        """Return the difference to a later size, divided by ``count``."""
        return {
            "kib": round((later.kib - self.kib) / count, 1),
            "descriptors": round((later.descriptors - self.descriptors) / count, 2),
        }


class Bench:
    """Make overclouds, one after the other."""

    def __init__(self, supervisor: processes.Supervisor, directory: pathlib.Path) -> None:
        self.supervisor = supervisor
        self.directory = directory
        self._count = 0

    def cloud(
        self, rpc: str, engine: str, controllers: int, computes: int, services: bool = False
    ) -> overcloud.Overcloud:
        """Apply an overcloud. Leave out the services unless they are needed, because their files take long."""
        self._count += 1
        roles = ["controller"] * controllers + ["compute"] * computes
        nodes = []
        for number, role in enumerate(roles, start=1):
            nodes.append({"name": f"{role}-{number}", "address": f"127.0.77.{number}", "role": role})
        raw: dict[str, typing.Any] = {
            "rpc": {"scheme": rpc, "username": "rpc", "password": _PASSWORD, "tls": False},
            "notify": {"scheme": "rabbit", "username": "notify", "password": _PASSWORD},
            "router": {"engine": engine, "http_port": 0, "mesh_password": _MESH_PASSWORD},
            "nodes": nodes,
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
        part = count // 3
        hosts = cloud.hosts[:1]
        crowds = [workers.Crowd(self.supervisor, cloud, hosts, first, part) for first in (0, part, 2 * part)]

        def all_connected() -> bool:
            return sum(crowd.report()[0] for crowd in crowds) == count

        processes.wait_until(f"{count} clients are connected", all_connected, 120, interval=0.5)
        return crowds


def router(bench: Bench, engine: model.Engine) -> dict[str, typing.Any]:
    """Measure one engine."""
    return {**_interior(bench, engine), **_edges(bench, engine)}


def _interior(bench: Bench, engine: model.Engine) -> dict[str, typing.Any]:
    """Measure an interior router alone, with clients, and with peers."""
    cloud = bench.cloud("amqp", engine.value, 1 + _PEERS, 0)
    mesh = routers.Mesh(bench.supervisor, cloud)
    first, *peers = mesh.routers
    first.start()
    first.wait()
    alone = Size.of(first.process)
    crowd = bench.crowd(cloud, _CLIENTS)
    with_clients = Size.of(first.process)
    bench.supervisor.end(*(part.process for part in crowd), *_processes([first]))
    first.start()
    first.wait()
    without_peers = Size.of(first.process)
    for peer in peers:
        peer.start()
    mesh.wait()
    time.sleep(20)
    with_peers = Size.of(first.process)
    bench.supervisor.end(*_processes(mesh.routers))
    return {
        "alone": dataclasses.asdict(alone),
        "per client": alone.more(with_clients, _CLIENTS),
        "per inter-router connection": without_peers.more(with_peers, _PEERS),
    }


def _edges(bench: Bench, engine: model.Engine) -> dict[str, typing.Any]:
    """Measure an edge router, and two interior routers with and without edge routers."""
    cloud = bench.cloud("amqp", engine.value, 2, _EDGES)
    mesh = routers.Mesh(bench.supervisor, cloud)
    edges = [router for router in mesh.routers if router not in mesh.interiors]
    for interior in mesh.interiors:
        interior.start()
        interior.wait()
    time.sleep(5)
    without_edges = Size.of(*_processes(mesh.interiors))
    for edge in edges:
        edge.start()
    mesh.wait()
    with_edges = Size.of(*_processes(mesh.interiors))
    edge_size = Size.of(edges[0].process)
    bench.supervisor.end(*_processes(mesh.routers))
    return {
        "edge router, of itself with two uplinks": dataclasses.asdict(edge_size),
        "per edge connection": without_edges.more(with_edges, 2 * _EDGES),
    }


def _processes(some: collections.abc.Iterable[routers.Router]) -> list[processes.Process]:
    return [router.process for router in some if router.process]


def broker(bench: Bench) -> dict[str, typing.Any]:
    """Measure RabbitMQ."""
    cloud = bench.cloud("rabbit", "qdrouterd", 1, 0)
    cluster = rabbitmq.Cluster(bench.supervisor, cloud)
    cluster.start()
    cluster.wait()
    alone = Size.of(*cluster.processes)
    crowd = bench.crowd(cloud, _CLIENTS)
    with_clients = Size.of(*cluster.processes)
    bench.supervisor.end(*(part.process for part in crowd))
    cluster.end()
    return {"alone": dataclasses.asdict(alone), "per client": alone.more(with_clients, _CLIENTS)}


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
        client = workers.Client(bench.supervisor, cloud.hosts[0], "nova", "compute")
        client.expect("ready", workers.READY_SECONDS)
        time.sleep(2)
        client.begin(("call", "call", "cast", "notify"), 200, 10.0, client, timeout=10.0, interval=0.05)
        if any(sent.error for sent in client.result()):
            raise errors.TestbedError("The service whose connections are counted could not send its messages.")
        ports = {cloud.deployment.rpc.port, cloud.deployment.notify.port}
        counted = {port: _established(client.process, port) for port in ports}
        found[f"RPC over {rpc}"] = {
            "to the router": counted[cloud.deployment.rpc.port] if rpc == "amqp" else 0,
            "to the broker": counted[cloud.deployment.notify.port],
        }
        bench.supervisor.end(client.process, *_processes(mesh.routers))
        cluster.end()
    return found


def _established(process: processes.Process, port: int) -> int:
    """Return how many connections to a port a process has (proc(5), /proc/net/tcp)."""
    links = [os.readlink(path) for path in pathlib.Path(f"/proc/{process.pid}/fd").iterdir()]
    inodes = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    count = 0
    for line in pathlib.Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        remote_port = int(fields[2].rpartition(":")[2], 16)
        established = fields[3] == "01"
        count += established and fields[9] in inodes and remote_port == port
    return count


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
