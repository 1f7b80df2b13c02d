"""Brokers of one cluster from what the agent writes, each at an address of its own, and the agent on each."""

from __future__ import annotations

import contextlib
import json
import pathlib
import sys
import typing

from testbed import overcloud, processes, rabbitmq
from tests.support import helpers

PASSWORD = "a-very-secret-word"


class Brokers:
    """Brokers with the service nova on each node; nothing is started yet.

    :param addresses: of the nodes, by name.
    :param settings: more of the metadata, by section.
    """

    def __init__(
        self,
        supervisor: processes.Supervisor,
        directory: pathlib.Path,
        addresses: typing.Mapping[str, str],
        **settings: typing.Any,
    ) -> None:
        self.supervisor = supervisor
        self.metadata = directory / "metadata.json"
        nodes = [{"name": name, "address": address} for name, address in addresses.items()]
        raw = {"rpc": {"username": "openstack", "password": PASSWORD}, "nodes": nodes, "services": ["nova"], **settings}
        self.metadata.write_text(json.dumps({"oslo_messaging": raw}))
        self.cloud = overcloud.create([self.metadata], directory / "nodes")
        overcloud.without_services(self.cloud.hosts, keep=("nova",))
        overcloud.apply_all(supervisor, self.cloud, "apply")
        self.cluster = rabbitmq.Cluster(supervisor, self.cloud)
        self._count = 0

    @property
    def everybody(self) -> set[str]:
        """The Erlang names of all members."""
        return {f"rabbit@{host.name}" for host in self.cloud.hosts}

    def agent(self, command: str, *arguments: str, node: int = 0) -> tuple[int, dict[str, typing.Any]]:
        """Run a command of the agent with ``--json``; return the exit code and what it printed."""
        self._count += 1
        host = self.cloud.hosts[node]
        argv = [*host.within, sys.executable, "-m", "om_agent", command, str(self.metadata), "--json"]
        argv += ["--node", host.name, "--root", str(host.root), "--relocate", "--no-services", *arguments]
        erlang = rabbitmq.erlang_environment(self.cloud.deployment.broker.dist_port)
        started = self.supervisor.start(f"{command}-{self._count}", argv, {**overcloud.python_environment(), **erlang})
        done = self.supervisor.finish(started, 200)
        assert PASSWORD not in done.output
        return done.returncode, json.loads(done.output)

    def ctl(self, node: int, *command: str) -> str:
        """Run rabbitmqctl on a node; return what it says."""
        return rabbitmq.ctl(self.cloud.hosts[node], *command)

    def members(self, node: int) -> set[str]:
        """Return the members that run, as one of them says."""
        return set(json.loads(self.ctl(node, "--formatter", "json", "cluster_status"))["running_nodes"])


@contextlib.contextmanager
def create(
    directory: pathlib.Path, addresses: typing.Mapping[str, str], **settings: typing.Any
) -> typing.Iterator[Brokers]:
    """Make brokers, and end them afterwards."""
    helpers.need_rabbitmq()
    with processes.Supervisor(directory / "logs") as supervisor:
        made = Brokers(supervisor, directory, addresses, **settings)
        try:
            yield made
        finally:
            made.cluster.end()


@contextlib.contextmanager
def running(
    directory: pathlib.Path, addresses: typing.Mapping[str, str], **settings: typing.Any
) -> typing.Iterator[Brokers]:
    """Brokers that are one cluster."""
    with create(directory, addresses, **settings) as made:
        made.cluster.start()
        made.cluster.wait()
        yield made
