"""The router engines of this machine, and routers started from the JSON that om-agent rendered for each node."""

from __future__ import annotations

import dataclasses
import signal
import sys

from om_agent import model
from om_agent.plan import layout
from om_agent.plan import router as router_plan

from testbed import errors, management, overcloud, processes, sockets

START_SECONDS = 15.0
CONVERGE_SECONDS = 30.0
RPC = "openstack.org/om/rpc/"
NOTIFY = "openstack.org/om/notify/"

_VARIABLES = {model.Engine.QDROUTERD: "OM_QDROUTERD", model.Engine.SKROUTERD: "OM_SKROUTERD"}
_PREFIXES = {
    model.Engine.QDROUTERD: "org.apache.qpid.dispatch.",
    model.Engine.SKROUTERD: "io.skupper.router.",
    model.Engine.EMBEDDED: "org.apache.qpid.dispatch.",
}


@dataclasses.dataclass(frozen=True)
class Counters:
    """Messages to addresses since the start: from senders, and to receivers."""

    ingress: int
    egress: int


def find(engine: model.Engine) -> tuple[str, ...] | None:
    """Return the command that runs an engine, or None when this machine has none."""
    if engine is model.Engine.EMBEDDED:
        return (sys.executable, "-m", "om_devrouter")
    found = overcloud.find_program(engine.value, _VARIABLES[engine])
    return (found,) if found else None


class Router:
    """One router."""

    def __init__(self, supervisor: processes.Supervisor, deployment: model.Deployment, host: overcloud.Host) -> None:
        self.host = host
        self.process: processes.Process | None = None
        self._supervisor = supervisor
        self._deployment = deployment
        self.address = (host.node.address, deployment.rpc.port)

    def start(self) -> None:
        """Start it, and do not wait."""
        engine = self._deployment.router.engine
        command = find(engine)
        if not command:
            raise errors.TestbedError(f"{engine.value} is neither on PATH nor named by {_VARIABLES[engine]}.")
        argv = [*command, "-c", str(self.host.path(layout.ENGINES[engine].config))]
        environment = overcloud.python_environment() if engine is model.Engine.EMBEDDED else {}
        self.process = self._supervisor.start(f"router-{self.host.name}", argv, environment)

    def wait(self) -> None:
        """Wait until clients can connect."""
        watched = [self.process] if self.process else []
        what = f"the router on {self.host.name} listens"
        processes.wait_until(what, lambda: sockets.is_open(self.address), START_SECONDS, watched)

    def kill(self) -> None:
        """End it as a crash does: SIGKILL, nothing said to anybody."""
        if self.process:
            self.process.signal(signal.SIGKILL)
            self._supervisor.end(self.process, grace=0)

    def manage(self) -> management.Client:
        """Return a management client, logged in as the RPC user."""
        rpc = self._deployment.rpc
        user = f"{rpc.username}@{router_plan.REALM}"
        return management.Client(self.address, user, rpc.password.reveal(), _PREFIXES[self._deployment.router.engine])

    def peers(self) -> set[str]:
        """Return the routers that it can reach.

        A row alone says nothing: a dead router's stays for a minute.
        """
        with self.manage() as client:
            rows = client.query("router.node")
        return {
            row["id"]
            for row in rows
            if row["id"] != self.host.name and (row.get("routerLink") is not None or row.get("nextHop") is not None)
        }

    def clients(self) -> int:
        """Return how many clients are connected, this question's own connection not counted."""
        with self.manage() as client:
            roles = [row["role"] for row in client.query("connection")]
        return roles.count("normal") - 1

    def counters(self, prefix: str) -> Counters:
        """Return what went to the addresses that begin with ``prefix``."""
        with self.manage() as client:
            rows = [row for row in client.query("router.address") if prefix in row["name"]]
        return Counters(sum(r["deliveriesIngress"] for r in rows), sum(r["deliveriesEgress"] for r in rows))

    def consumers(self, address: str) -> tuple[int, int]:
        """Return how many of its clients consume an address, and how many other routers it knows that have some."""
        with self.manage() as client:
            rows = [row for row in client.query("router.address") if row["name"].endswith(address)]
        return sum(row["subscriberCount"] for row in rows), sum(row["remoteCount"] for row in rows)


class Mesh:
    """The routers of an overcloud; one alone is a mesh too."""

    def __init__(self, supervisor: processes.Supervisor, cloud: overcloud.Overcloud) -> None:
        self.routers = tuple(Router(supervisor, cloud.deployment, h) for h in cloud.having(model.Scheme.AMQP))

    def start(self) -> None:
        """Start all routers and wait until each reaches every other."""
        for router in self.routers:
            router.start()
        for router in self.routers:
            router.wait()
        self.wait()

    def wait(self) -> None:
        """Wait until each router reaches every other."""
        names = {router.host.name for router in self.routers}
        for router in self.routers:
            processes.wait_until(
                f"the router on {router.host.name} reaches all others",
                lambda router=router: router.peers() == names - {router.host.name},  # type: ignore[misc]
                CONVERGE_SECONDS,
                [r.process for r in self.routers if r.process],
                interval=0.2,
            )

    def wait_for_consumers(self, address: str, count: int, seconds: float = 20.0) -> None:
        """Wait until ``count`` clients consume an RPC address, such as ``multicast/nova/compute``.

        And until every router knows: until then a fanout would reach fewer, and a call be held back.
        """

        def complete() -> bool:
            found = [router.consumers(RPC + address) for router in self.routers]
            having = sum(local > 0 for local, _ in found)
            known = all(remote == having - (local > 0) for local, remote in found)
            return sum(local for local, _ in found) == count and known

        processes.wait_until(f"all routers know the consumers of {address}", complete, seconds, interval=0.1)

    def counters(self, prefix: str) -> Counters:
        """Return what the whole mesh counted: a message enters at one router and leaves at one."""
        found = [router.counters(prefix) for router in self.routers]
        return Counters(sum(c.ingress for c in found), sum(c.egress for c in found))

    def busiest(self) -> Router:
        """Return the router with the most clients."""
        return max(self.routers, key=Router.clients)
