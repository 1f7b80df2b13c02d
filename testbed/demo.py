"""``make demo``: an overcloud's messaging on this machine, from its metadata to a router's restart under load.

It uses the real om-agent, puppet, router, RabbitMQ cluster and oslo.messaging. The exit code is 0 when all checks
succeed. Otherwise the demo prints one sentence and exits with 1, or with 128 plus the number of a signal.
"""

from __future__ import annotations

import argparse
import collections.abc
import contextlib
import os
import pathlib
import shutil
import sys
import tempfile
import time
import traceback

from om_agent import model

from testbed import console, errors, overcloud, processes, rabbitmq, routers, scenario, sockets, workers

EXAMPLE = overcloud.TREE / "examples/overcloud.json"
STEPS = 7
_ENGINES = [engine.value for engine in model.Engine]
_RESTART_SECONDS = 15.0
_RESTART_PAUSE = 0.1  # systemd.service(5), RestartSec
_LABELS = {"call": "RPC call", "cast": "RPC cast", "fanout": "RPC fanout", "notify": "notification"}


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed.demo",
        description="Run an overcloud's messaging on this machine: real router, RabbitMQ, puppet, oslo.messaging.",
        epilog="Set OM_QDROUTERD or OM_SKROUTERD to the path of a router that is not on PATH.",
    )
    parser.add_argument("--metadata", type=pathlib.Path, default=EXAMPLE, metavar="FILE",
                        help="the overcloud (default: examples/overcloud.json)")  # fmt: skip
    parser.add_argument("--engine", choices=_ENGINES,
                        help="the router (default: the metadata's, or embedded where there is none)")  # fmt: skip
    parser.add_argument("--keep", type=pathlib.Path, metavar="DIR",
                        help="work in DIR, new or empty, and leave the files and logs there")  # fmt: skip
    return parser


def main(argv: collections.abc.Sequence[str] | None = None) -> int:
    """Run the demo. Return the exit code."""
    args = build_parser().parse_args(argv)
    processes.stop_on_signals()
    out = console.Console(STEPS)
    logs = None
    try:
        with _work_directory(args.keep) as directory, processes.Supervisor(directory / "logs") as supervisor:
            logs = supervisor.logs
            Demo(out, supervisor, directory, args.metadata.resolve(), args.engine).run()
    except errors.TestbedError as e:
        out.fail(str(e), e.detail)
        if args.keep and logs:
            out.fail(f"The logs are in {logs}.")
        return 1
    except errors.Stopped as e:
        out.fail(f"ended by {e.signal.name}; everything that it had started is ended too.")
        return e.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as e:  # a defect; its text may contain a password, so print only its place
        place = traceback.extract_tb(e.__traceback__)[-1]
        out.fail(
            f"defect: {type(e).__name__} in {os.path.basename(place.filename)} line {place.lineno}. Please report it."
        )
        return 1
    return 0


@contextlib.contextmanager
def _work_directory(keep: pathlib.Path | None) -> collections.abc.Iterator[pathlib.Path]:
    if keep is None:
        made = tempfile.mkdtemp(prefix="om-demo-")
        try:
            yield pathlib.Path(made).resolve()
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return
    try:
        keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        empty = not any(keep.iterdir())
    except OSError as e:
        raise errors.TestbedError(f"--keep {keep}: {e.strerror}.") from None
    if not empty:
        raise errors.TestbedError(f"--keep {keep}: the directory is not empty.")
    yield keep.resolve()


class Demo:
    """The seven steps, in order."""

    def __init__(
        self,
        out: console.Console,
        supervisor: processes.Supervisor,
        directory: pathlib.Path,
        metadata: pathlib.Path,
        engine: str | None,
    ) -> None:
        self.out = out
        self.supervisor = supervisor
        self.directory = directory
        self.metadata = metadata
        self.engine = engine

    def run(self) -> None:
        """Run all steps.

        :raises testbed.errors.TestbedError: when a check fails.
        """
        with self.out.step("The metadata, and what this machine has"):
            cloud = self.prepare()
        with self.out.step(f"om-agent and puppet on {len(cloud.hosts)} nodes"):
            cluster = rabbitmq.Cluster(self.supervisor, cloud)
            self.apply(cloud, cluster)
        mesh = routers.Mesh(self.supervisor, cloud)
        with self.out.step(f"Router: {cloud.deployment.router.engine.value}"):
            self.start_mesh(mesh)
            services = scenario.Services(self.supervisor, cloud, mesh)
        with self.out.step("RabbitMQ"):
            cluster.wait()
            took = time.monotonic() - cluster.started
            self.out.note(f"{len(cluster.nodes)} nodes, one cluster, {took:.1f} s after their start during step 2")
        with self.out.step("Services, configured by nothing but their rendered files"):
            outcomes = self.talk(services, cluster)
        with self.out.step("Which backend carried what, by the backends' own counters"):
            self.prove(cloud, outcomes, mesh, cluster)
        with self.out.step("A router is killed under load, and started again as systemd would"):
            self.restart(services, mesh)
            self.end(cloud, cluster)
        self.out.line(f"All as it should be, in {self.out.seconds:.0f} s. Nothing is left running.")

    def prepare(self) -> overcloud.Overcloud:
        """Check everything that can be checked before the start, and make the nodes' directories."""
        version = workers.check_oslo_messaging()
        rabbitmq.find_server()
        if not overcloud.find_program("puppet") and not os.access("/opt/puppetlabs/bin/puppet", os.X_OK):
            raise errors.TestbedError("puppet is not on PATH: install puppet-agent (Debian 12: package puppet-agent).")
        files = [self.metadata]
        self.out.note(f"om-agent validate: {overcloud.validate(self.supervisor, files)}")
        deployment = overcloud.load(files)
        self.out.hide(overcloud.Overcloud(deployment, ()).secrets())
        if deployment.rpc.scheme is not model.Scheme.AMQP or deployment.notify.scheme is not model.Scheme.RABBIT:
            raise errors.TestbedError("The demo needs rpc.scheme amqp and notify.scheme rabbit in the metadata.")
        files += self._overlay(deployment)
        cloud = overcloud.create(files, self.directory / "nodes")
        wanted = overcloud.wanted_sockets(cloud)
        sockets.check_free(wanted)
        self.out.note(f"oslo.messaging {version}; all {len(wanted)} sockets are free")
        return cloud

    def _overlay(self, deployment: model.Deployment) -> list[pathlib.Path]:
        """Return the metadata file, if needed, that adapts the deployment to the routers of this machine."""
        wanted = model.Engine(self.engine) if self.engine else deployment.router.engine
        path = self.directory / "engine.json"
        if wanted is not model.Engine.EMBEDDED and routers.find(wanted):
            return [] if wanted is deployment.router.engine else [overcloud.engine_overlay(wanted, path)]
        if self.engine and wanted is not model.Engine.EMBEDDED:
            raise errors.TestbedError(f"{wanted.value} is not on this machine: put it on PATH.")
        why = "as asked" if self.engine else f"no {wanted.value} here"
        self.out.note(f"{why}: the development router om-devrouter takes the mesh's place, on one controller")
        return [overcloud.embedded_overlay(deployment, path)]

    def apply(self, cloud: overcloud.Overcloud, cluster: rabbitmq.Cluster) -> None:
        """Apply the metadata on every node, and show that a second apply has nothing to do.

        The brokers start as soon as all their nodes are ready, because they spend most of their start waiting for one
        another.
        """
        waiting = {node.host.name for node in cluster.nodes}

        def ready(node: str) -> None:
            if node in waiting:
                waiting.remove(node)
                if not waiting:
                    cluster.start()

        first = overcloud.apply_all(self.supervisor, cloud, "apply", ready)
        for said in first.said.values():
            self.out.note(said)
        self.out.note(f"first time: {first.seconds:.1f} s, {first.cpu:.1f} s of CPU")
        again = overcloud.apply_all(self.supervisor, cloud, "apply-again")
        changed = [said for said in again.said.values() if "nothing to do" not in said]
        if changed:
            raise errors.TestbedError("The second om-agent apply found something to do.", "\n".join(changed))
        self.out.note(f"again, nothing to do on any: {again.seconds:.1f} s, {again.cpu:.1f} s of CPU")

    def start_mesh(self, mesh: routers.Mesh) -> None:
        """Start the routers."""
        mesh.start()
        edges = [router for router in mesh.routers if router not in mesh.interiors]
        names = ", ".join(router.host.name for router in mesh.interiors)
        reach = "each reaches every other" if len(mesh.interiors) > 1 else "alone"
        self.out.note(f"{names}: {reach}")
        if edges:
            self.out.note(f"{', '.join(router.host.name for router in edges)}: edge routers, with an uplink each")

    def talk(self, services: scenario.Services, cluster: rabbitmq.Cluster) -> list[scenario.Outcome]:
        """Send messages of every kind, and show how many arrived."""
        counts = scenario.Counts()
        services.start_clients()
        servers = ", ".join(f"{server.service} on {server.host.name}" for server in services.servers)
        self.out.note(f"RPC servers: {servers}; {len(services.clients)} clients, one on every node")
        outcomes = [
            services.rpc("call", counts.calls),
            services.rpc("cast", counts.casts),
            services.rpc("fanout", counts.fanouts),
        ]
        stored, fetch = services.notify(counts.notifications)
        before = cluster.counters()
        if before.delivered:
            raise errors.TestbedError("RabbitMQ delivered notifications that nobody listens for.")
        fetched = fetch()
        self.out.note(
            f"{stored.sent} notifications were sent with no listener; attached afterwards, it got {fetched.received}"
        )
        return [*outcomes, fetched]

    def prove(
        self,
        cloud: overcloud.Overcloud,
        outcomes: list[scenario.Outcome],
        mesh: routers.Mesh,
        cluster: rabbitmq.Cluster,
    ) -> None:
        """Compare the counts of the services with those of the backends."""
        found = scenario.carried(mesh, cluster)
        head = ("what", "backend", "sent", "received", "p50 ms", "p99 ms")
        self.out.table(head, [_row(outcome) for outcome in outcomes])
        self.out.note("(call: until the answer; cast, fanout: until received; notification: until confirmed)")
        rpc, notify, broker = found.router_rpc, found.router_notify, found.broker
        again = scenario.note_again(outcomes)
        if again:
            self.out.note(again)
        self.out.table(
            ("carried by", "counted as", "in", "out"),
            [
                ("router", f"{routers.RPC}...", str(rpc.ingress), str(rpc.egress)),
                ("router", f"{routers.NOTIFY}...", str(notify.ingress), str(notify.egress)),
                ("RabbitMQ", "published, acknowledged", str(broker.received), str(broker.acknowledged)),
            ],
        )
        qdrouterd = cloud.deployment.router.engine is model.Engine.QDROUTERD
        scenario.check(outcomes, found, fanouts_again=qdrouterd and len(mesh.interiors) > 2)

    def restart(self, services: scenario.Services, mesh: routers.Mesh) -> None:
        """Restart the busiest router."""
        done = services.restart(mesh.busiest(), _RESTART_SECONDS, _RESTART_PAUSE)
        self.out.note(f"killed: {done.node}, with {done.clients} of the services' connections")
        self.out.note(
            f"calls: {done.ok} ok, {done.failed} failed; longest gap {done.gap:.2f} s; "
            f"{done.recovery:.2f} s after the restart every client had a good call again"
        )
        if done.late:
            names = ", ".join(done.late)
            self.out.note(f"no good call within {_RESTART_SECONDS * 2 / 3:.0f} s: {names}; they were given more time")
            self.out.note(f"om-agent resync: {done.resynced}")
        mesh.wait()

    def end(self, cloud: overcloud.Overcloud, cluster: rabbitmq.Cluster) -> None:
        """End everything, and check that nothing is left."""
        cluster.end()
        self.supervisor.end_all()
        left = self.supervisor.left()
        if left:
            raise errors.TestbedError("Something is still running.", "\n".join(left))
        sockets.check_free(overcloud.wanted_sockets(cloud))


def _row(outcome: scenario.Outcome) -> tuple[str, ...]:
    times = (scenario.percentile(outcome.seconds, percent) * 1000 for percent in (50, 99))
    backend = "RabbitMQ" if outcome.what == "notify" else "router"
    return (
        _LABELS[outcome.what],
        backend,
        str(outcome.sent),
        str(outcome.received),
        *(f"{milliseconds:.1f}" for milliseconds in times),
    )


if __name__ == "__main__":
    sys.exit(main())
