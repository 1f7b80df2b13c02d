"""An overcloud with real routers that tests change while it runs, with calls in the background."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import sys
import time
import typing

import pytest
from om_agent import errors, model

from testbed import overcloud, processes, routers, sockets, workers

ENGINES = (model.Engine.QDROUTERD, model.Engine.SKROUTERD)
PORT = 31459
ROUTER = {"http_port": 0, "mesh_password": "mesh-secret"}  # unless a test says otherwise


def need(engine: model.Engine) -> None:
    """Skip the test if this router is not installed."""
    if not routers.find(engine):
        pytest.skip(f"no {engine.value} on PATH or named by OM_{engine.value.upper()}")
    pytest.importorskip("proton")


class Cloud:
    """Nodes and their routers.

    :param network: the first three numbers of every node's address; the last is told by the order in ``nodes``.
    :param nodes: role by name.
    :param within: the command under which names resolve; nodes are then known by their names.
    :param bare: no services, so that puppet has nothing to do.
    """

    def __init__(
        self,
        supervisor: processes.Supervisor,
        directory: pathlib.Path,
        engine: model.Engine,
        network: str,
        nodes: typing.Mapping[str, str],
        within: tuple[str, ...] = (),
        bare: bool = False,
        **messaging: typing.Any,
    ) -> None:
        self.within = within
        self.supervisor = supervisor
        self.directory = directory
        self.engine = engine
        self.nodes = {
            name: {
                "name": name,
                "address": f"{network}.{10 + i}",
                "role": role,
                "host": name if within else f"{network}.{10 + i}",
            }
            for i, (name, role) in enumerate(nodes.items())
        }
        self.messaging = {
            "rpc": {"scheme": "amqp", "tls": False, "username": "rpc", "password": "rpc-secret", "port": PORT},
            "notify": {"scheme": "rabbit", "password": "n", "hosts": ["127.0.0.1"]},
            **messaging,
            "router": {**ROUTER, "engine": engine.value, **messaging.get("router", {})},
        }
        self.routers: dict[str, routers.Router] = {}
        self._count = 0
        self.all = overcloud.create([self.metadata(*nodes)], directory / "nodes")
        self.hosts = {host.name: host for host in self.all.hosts}
        for host in self.all.hosts if bare else ():
            for service in overcloud.SERVICES:
                shutil.rmtree(host.service_file(service).parent)

    def metadata(self, *names: str, **changes: typing.Any) -> pathlib.Path:
        """Write a metadata file with these nodes."""
        self._count += 1
        path = self.directory / f"metadata-{self._count}.json"
        path.write_text(json.dumps({"oslo_messaging": self.raw(*names, **changes)}))
        return path

    def raw(self, *names: str, **changes: typing.Any) -> dict[str, typing.Any]:
        """Return the metadata with these nodes."""
        given = self.messaging.items()
        merged = {k: {**v, **changes.get(k, {})} if isinstance(v, dict) else changes.get(k, v) for k, v in given}
        more = {k: v for k, v in changes.items() if k not in merged}
        return {**merged, **more, "nodes": [self.nodes[name] for name in names]}

    def agent(
        self, name: str, command: str, *arguments: str | pathlib.Path, seconds: float = 120.0
    ) -> processes.Finished:
        """Run a command of the agent on a node."""
        self._count += 1
        options = ("--node", name, "--root", self.hosts[name].root, "--relocate", "--no-services")
        return self.supervisor.finish(self.begin(name, command, *arguments, *options), seconds)

    def begin(self, name: str, command: str, *arguments: str | pathlib.Path) -> processes.Process:
        """Start the agent; `agent` has the options that it needs."""
        argv = [*self.within, sys.executable, "-m", "om_agent", command, *map(str, arguments)]
        return self.supervisor.start(f"{command}-{self._count}-{name}", argv, overcloud.python_environment())

    def verify(
        self, name: str, metadata: pathlib.Path, seconds: float = 2
    ) -> tuple[int, dict[str, str], processes.Finished]:
        """Run verify on a node; returns the exit code and the findings' sentences by code."""
        done = self.agent(name, "verify", metadata, "--json", "--timeout", f"{seconds:.0f}")
        found = json.loads(done.output)
        faults = [f for f in found["findings"] if f["severity"] == "error"]
        assert done.returncode == (3 if faults else 0), done.output
        assert found["healthy"] is not bool(faults)
        return done.returncode, {f["code"]: f"{f['path']}: {f['message']}. {f['remedy']}." for f in faults}, done

    def apply(self, name: str, metadata: pathlib.Path, *options: str) -> str:
        """Apply on a node; returns what is said."""
        done = self.agent(name, "apply", metadata, "--verbose", "--reconcile", *options)
        assert done.returncode == 0, done.output
        return done.output

    def start(self, *names: str, wait: bool = True) -> None:
        """Start the routers of nodes."""
        for name in names:
            router = routers.Router(self.supervisor, self.all.deployment, self.hosts[name])
            self.routers[name] = router
            router.start(self.within)
        for name in names if wait else ():
            self.routers[name].wait()

    def stop(self, *names: str) -> None:
        """End the routers of nodes as systemd does."""
        for name in names:
            process = self.routers.pop(name).process
            assert process
            self.supervisor.end(process)

    def pids(self) -> dict[str, int]:
        """Return the process id of every router that runs."""
        found = {}
        for name, router in self.routers.items():
            assert router.process and router.process.poll() is None, f"{name} does not run"
            found[name] = router.process.pid
        return found

    def interiors(self) -> set[str]:
        """Return the names of the controllers whose routers run."""
        return {name for name in self.routers if self.nodes[name]["role"] == "controller"}

    def converge(self, seconds: float = 40.0) -> float:
        """Wait until every interior reaches all others and no more; returns how long it took."""
        wanted, start = self.interiors(), time.monotonic()
        while True:
            found = {name: self.reached(name) for name in wanted}
            took = time.monotonic() - start
            if all(reached == wanted - {name} for name, reached in found.items()):
                return took
            assert took < seconds, found
            time.sleep(0.1)

    def reached(self, name: str) -> set[str] | None:
        """Return the other interiors that a router reaches, or None if it does not answer."""
        with contextlib.suppress(errors.Unreachable):
            return self.routers[name].peers()
        return None

    def starved(self) -> list[str]:
        """Return what routers did because this machine was too busy: an interior gives up an edge whose heartbeat is
        late by two seconds (heartbeat_server.c of both engines), and the calls of that moment are lost."""
        lines = [line for log in (self.directory / "logs").glob("router-*.log") for line in log.open(errors="replace")]
        return [line.strip() for line in lines if "Lost heartbeat" in line]

    def config(self, name: str) -> pathlib.Path:
        """Return a router's file."""
        return self.hosts[name].path(self.engine.record.config)


class Load:
    """Calls from several nodes to servers on two, for as long as the ``with`` lasts at most ``seconds``."""

    def __init__(self, cloud: Cloud, servers: typing.Sequence[str], clients: typing.Sequence[str]) -> None:
        self._servers = [workers.Server(cloud.supervisor, cloud.hosts[n], "nova", "compute") for n in servers]
        self._clients = [workers.Client(cloud.supervisor, cloud.hosts[n], "nova") for n in clients]
        for worker in (*self._servers, *self._clients):
            worker.expect("ready", workers.READY_SECONDS)
        time.sleep(1.5)  # for all routers to know of the servers

    def begin(self, seconds: float, interval: float = 0.1, timeout: float = 10.0) -> None:
        """Begin to call."""
        for i, client in enumerate(self._clients):
            server = self._servers[i % len(self._servers)]
            client.begin("call", 1_000_000, seconds, server, interval=interval, timeout=timeout)

    def results(self) -> tuple[int, list[str], float]:
        """Return how many calls were good, the errors of the others, and the longest that any took."""
        sent = [one for client in self._clients for one in client.result()]
        failed = [one.error for one in sent if one.error]
        return len(sent) - len(failed), failed, max(one.seconds for one in sent)


def free(address: sockets.Address) -> bool:
    """Return whether no program listens on this port."""
    return not sockets.is_open(address)


@contextlib.contextmanager
def supervised(directory: pathlib.Path) -> typing.Iterator[processes.Supervisor]:
    """Return a supervisor that keeps its logs in the test's directory and prints none."""
    os.makedirs(directory, exist_ok=True)
    with processes.Supervisor(directory / "logs") as supervisor:
        yield supervisor
