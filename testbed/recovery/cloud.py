"""The overcloud for failures: three controllers and two computes, each with a network of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import typing

import om_agent.errors
from om_agent import model

from testbed import errors, overcloud, processes, rabbitmq, routers, sockets
from testbed.recovery import network, traffic

NODES = {
    "ctl-1": ("controller", f"{network.NETWORK}.11"),
    "ctl-2": ("controller", f"{network.NETWORK}.12"),
    "ctl-3": ("controller", f"{network.NETWORK}.13"),
    "cmp-1": ("compute", f"{network.NETWORK}.21"),
    "cmp-2": ("compute", f"{network.NETWORK}.22"),
}
SETTLE_SECONDS = 120.0
_DISK_MIB = 320


class Cloud:
    """The overcloud, running.

    :param rpc: the backend of RPC. Notifications go over RabbitMQ.
    :param tls: whether RPC and routers use TLS.
    :param driver: the scheme of services' URLs where RPC goes over routers: ``amqp`` is oslo.messaging's in-tree
        driver, ``amqp1`` the one of this project.
    """

    def __init__(
        self,
        supervisor: processes.Supervisor,
        directory: pathlib.Path,
        net: network.Network,
        rpc: model.Scheme,
        engine: model.Engine,
        tls: bool = False,
        driver: str = "amqp",
    ) -> None:
        self.supervisor = supervisor
        self.directory = directory
        self.net = net
        self.rpc = rpc
        self.engine = engine
        self.driver = driver
        directory.mkdir()
        self.certificates = Certificates(directory / "certificates") if tls else None
        metadata = directory / "metadata.json"
        metadata.write_text(json.dumps({"oslo_messaging": self._metadata()}))
        made = overcloud.create([metadata], directory / "nodes")
        hosts = [dataclasses.replace(host, within=net.within(host.name)) for host in made.hosts]
        self.overcloud = dataclasses.replace(made, hosts=tuple(hosts))
        self.hosts = {host.name: host for host in hosts}
        overcloud.apply_all(supervisor, self.overcloud, f"apply-{rpc.value}")
        if rpc is model.Scheme.AMQP and driver != "amqp":
            for host in hosts:
                overcloud.use_driver(host.service_file("nova"), driver)
        self.mesh = routers.Mesh(supervisor, self.overcloud)
        self.cluster = rabbitmq.Cluster(supervisor, self.overcloud)
        self.routers = {router.host.name: router for router in self.mesh.routers}
        self.brokers = {broker.host.name: broker for broker in self.cluster.nodes}
        self.load: traffic.Traffic  # set for each case
        self.remark = ""  # set by the case that runs
        self.disk = self._small_disk("ctl-1")

    def _metadata(self) -> dict[str, typing.Any]:
        raw: dict[str, typing.Any] = {
            "rpc": {
                "scheme": self.rpc.value,
                "username": "rpc",
                "password": "rpc-secret",
                "tls": self.certificates is not None,
                "delivery": "acknowledged",  # so that each lost message is a fault
            },
            "notify": {"scheme": "rabbit", "username": "notify", "password": "notify-secret", "tls": False},
            "router": {"engine": self.engine.value, "mesh_password": "mesh-secret"},
            "nodes": [{"name": name, "role": role, "address": address} for name, (role, address) in NODES.items()],
        }
        if self.certificates:
            raw["tls"] = self.certificates.metadata()
        return raw

    def start(self) -> None:
        """Start routers and brokers."""
        self.cluster.start()
        for router in self.mesh.routers:
            router.start()
        self.wait()

    def end(self) -> None:
        """End all of it."""
        self.supervisor.end(*(router.process for router in self.mesh.routers if router.process), grace=2)
        self.cluster.end()

    def wait(self, seconds: float = SETTLE_SECONDS) -> None:
        """Wait until every router and every broker runs and is connected to the others."""
        processes.wait_until("all routers and brokers are well", self.is_well, seconds, interval=0.3)

    def is_well(self) -> bool:
        """Return whether every router and every broker runs and is connected to the others."""
        with contextlib.suppress(om_agent.errors.Unreachable, errors.TestbedError, OSError):
            routers_joined = all(self._has_joined(router) for router in self.routers.values())
            count = len(self.brokers)
            return routers_joined and all(_is_member(broker, count) for broker in self.brokers.values())
        return False

    def _has_joined(self, router: routers.Router) -> bool:
        """Return whether an interior router reaches all others, or an edge router one of them."""
        interiors = {interior.host.name for interior in self.mesh.interiors}
        name = router.host.name
        return router.peers() == interiors - {name} if name in interiors else router.has_uplink()

    def kill_broker(self, name: str) -> None:
        """End a broker as a crash does."""
        process = self.brokers[name].process
        if process:
            process.signal(signal.SIGKILL)
            self.supervisor.end(process, grace=0)

    def starved(self) -> int:
        """Return how often an interior router dropped an edge router whose heartbeat was two seconds late."""
        logs = self.supervisor.logs.glob("router-*.log")
        return sum(log.read_text(errors="replace").count("Lost heartbeat") for log in logs)

    def agent(self, name: str, command: str, *options: str) -> processes.Finished:
        """Run the agent on a node."""
        host = self.hosts[name]
        where = ("--node", name, "--root", str(host.root), "--relocate", "--no-services")
        argv = [*host.within, sys.executable, "-m", "om_agent", command, *map(str, host.files), *where, *options]
        log = f"{command}-{name}-{time.monotonic_ns()}"
        return self.supervisor.finish(self.supervisor.start(log, argv, overcloud.python_environment()), 120)

    def _small_disk(self, name: str) -> pathlib.Path:
        """Give a node's broker a disk of its own, which can be filled."""
        path = self.hosts[name].path("/var/lib/rabbitmq/mnesia")
        path.mkdir(parents=True, exist_ok=True)
        argv = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MIB}m", "tmpfs", str(path)]
        subprocess.run(argv, check=True, timeout=20)
        return path


class Certificates:
    """An authority, a certificate for all nodes, and an expired one like it."""

    def __init__(self, directory: pathlib.Path) -> None:
        directory.mkdir(mode=0o700)
        self._directory = directory
        (directory / "names").write_text("subjectAltName=" + ",".join(f"DNS:{name}" for name in NODES))
        key = ("-newkey", "rsa:2048", "-nodes")
        self._openssl(
            "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=recovery", "-days", "2"
        )
        self._openssl("req", *key, "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=router")
        for name, days in (("certificate", "2"), ("expired", "-1")):
            sign = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", days, "-extfile", "names")
            self._openssl("x509", "-req", "-in", "request.pem", *sign, "-out", f"{name}.pem")

    def _openssl(self, *arguments: str) -> None:
        argv = ["openssl", *arguments]
        subprocess.run(argv, cwd=self._directory, check=True, capture_output=True, timeout=60)

    def text(self, name: str) -> str:
        """Return ``ca``, ``key``, ``certificate`` or ``expired``."""
        return (self._directory / f"{name}.pem").read_text()

    def metadata(self) -> dict[str, str]:
        """Return the metadata's section."""
        return {name: self.text(name) for name in ("ca", "certificate", "key")}


def fill(path: pathlib.Path, leave: int) -> pathlib.Path:
    """Write a file until only ``leave`` bytes are free. Return its path."""
    filler = path / "filler"
    count = shutil.disk_usage(path).free - leave
    with filler.open("wb") as sink:
        for _ in range(count // (1 << 20)):
            sink.write(bytes(1 << 20))
    return filler


def _is_member(broker: rabbitmq.Node, count: int) -> bool:
    """Return whether a broker serves clients and is connected to all others."""
    if not sockets.is_open((broker.host.node.address, model.RABBIT_PORT)):
        return False
    states = broker.scrape().get("erlang_vm_dist_node_state", {})
    up = [state == 3 for state in states.values()]
    return len(up) >= count - 1 and all(up)
