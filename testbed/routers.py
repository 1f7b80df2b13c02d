"""The router engines of this machine, and routers started from the JSON that om-agent rendered for each node."""

from __future__ import annotations

import dataclasses
import functools
import signal
import sys

import om_agent.plan.router
from om_agent import amqp, model, verify
from om_agent.plan import layout

from testbed import errors, overcloud, processes, sockets

START_SECONDS = 15.0
CONVERGE_SECONDS = 30.0
RPC = "openstack.org/om/rpc/"
NOTIFY = "openstack.org/om/notify/"

VARIABLES = {model.Engine.QDROUTERD: "OM_QDROUTERD", model.Engine.SKROUTERD: "OM_SKROUTERD"}


@dataclasses.dataclass(frozen=True)
class Counters:
    """Messages from clients (ingress) and to clients (egress), over the links that exist now."""

    ingress: int
    egress: int


def find(engine: model.Engine) -> tuple[str, ...] | None:
    """Return the command that runs an engine, or None when this machine has none."""
    if engine is model.Engine.EMBEDDED:
        return (sys.executable, "-m", "om_devrouter")
    found = overcloud.find_program(engine.value, VARIABLES[engine])
    return (found,) if found else None


class Router:
    """One router."""

    def __init__(self, supervisor: processes.Supervisor, deployment: model.Deployment, host: overcloud.Host) -> None:
        self.host = host
        self.process: processes.Process | None = None
        self._supervisor = supervisor
        self._deployment = deployment
        self.address = (host.node.address, deployment.rpc.port)

    def start(self, within: tuple[str, ...] = ()) -> None:
        """Start the router without waiting for it.

        :param within: a command that runs the router's command.
        """
        engine = self._deployment.router.engine
        command = find(engine)
        if not command:
            raise errors.TestbedError(f"{engine.value} is not on PATH, and {VARIABLES[engine]} does not name it.")
        argv = [*within, *self.host.within, *command, "-c", str(self.host.path(engine.record.config))]
        environment = dict(layout.ROUTER_ENVIRONMENT)
        if engine is model.Engine.EMBEDDED:
            environment |= overcloud.python_environment()
        self.process = self._supervisor.start(f"router-{self.host.name}", argv, environment)

    def wait(self) -> None:
        """Wait until clients can connect."""
        watched = [self.process] if self.process else []
        what = f"the router on {self.host.name} listens"
        processes.wait_until(what, lambda: sockets.is_open(self.address), START_SECONDS, watched)

    def kill(self) -> None:
        """End the router with SIGKILL, as a crash does."""
        if self.process:
            self.process.signal(signal.SIGKILL)
            self._supervisor.end(self.process, grace=0)

    def manage(self) -> amqp.Client:
        """Return a management client, logged in as the agent is.

        :raises om_agent.errors.Unreachable: when the router cannot be asked.
        """
        settings = self._deployment.router
        user = f"{model.ADMIN_USER}@{om_agent.plan.router.REALM}"
        name = self.host.node.host
        ca = str(self.host.path(settings.engine.record.tls("ca"))) if settings.tls else ""
        login = amqp.Login(*self.address, name, user, settings.admin_password, settings.engine, settings.tls, ca)
        return amqp.Client(login)

    def peers(self) -> set[str]:
        """Return the routers that it can reach."""
        with self.manage() as client:
            rows = client.query("router.node")
        return set(verify.reachable(rows, self.host.name)) - {self.host.name}

    def clients(self) -> int:
        """Return how many clients are connected, without the connection of this query."""
        with self.manage() as client:
            rows = client.query("connection")
        return sum(map(amqp.is_client, rows))

    def has_uplink(self) -> bool:
        """Return whether an edge router has a connection to an interior one."""
        with self.manage() as client:
            rows = client.query("connection")
        return any(row["role"] == "edge" and row["opened"] for row in rows)

    def client_links(self, address: str) -> list[amqp.Row]:
        """Return the links of clients, not of other routers, whose address holds ``address``."""
        with self.manage() as client:
            connections = client.query("connection")
            links = client.query("router.link")
        roles = {row["identity"]: row["role"] for row in connections}
        of_address = [row for row in links if address in (row["owningAddr"] or "")]
        return [row for row in of_address if roles.get(row["connectionId"]) == "normal"]

    def counters(self, prefix: str) -> Counters:
        """Return what its clients sent to and got from the addresses that begin with ``prefix``."""
        ingress = egress = 0
        for row in self.client_links(prefix):
            if row["linkDir"] == "in":
                ingress += row["deliveryCount"]
            else:
                egress += row["deliveryCount"]
        return Counters(ingress, egress)

    def knows(self, address: str) -> tuple[int, int]:
        """Return the number of links that consume an address here, and of other interior routers with such links.

        Links of clients and of edge routers count.
        """
        with self.manage() as client:
            rows = client.query("router.address")
        of_address = [row for row in rows if row["name"].endswith(address)]
        local = sum(row["subscriberCount"] for row in of_address)
        remote = sum(row["remoteCount"] for row in of_address)
        return local, remote


class Mesh:
    """The routers of an overcloud. A single router is a mesh, too."""

    def __init__(self, supervisor: processes.Supervisor, cloud: overcloud.Overcloud) -> None:
        hosts = cloud.having(model.Scheme.AMQP)
        self.routers = tuple(Router(supervisor, cloud.deployment, host) for host in hosts)

    def start(self) -> None:
        """Start all routers and wait until each reaches every other."""
        for router in self.routers:
            router.start()
        for router in self.routers:
            router.wait()
        self.wait()

    @property
    def interiors(self) -> tuple[Router, ...]:
        """The routers that know the whole mesh."""
        return tuple(router for router in self.routers if router.host.node.router is model.RouterMode.INTERIOR)

    def wait(self) -> None:
        """Wait until each interior router reaches every other, and each edge one of them."""
        names = {router.host.name for router in self.interiors}
        watched = [router.process for router in self.routers if router.process]
        for router in self.routers:
            others = names - {router.host.name}
            if router in self.interiors:
                joined = functools.partial(_reaches, router, others)
                what = f"the router on {router.host.name} reaches all others"
            else:
                joined = functools.partial(Router.has_uplink, router)
                what = f"the router on {router.host.name} reaches an interior one"
            processes.wait_until(what, joined, CONVERGE_SECONDS, watched, interval=0.2)

    def wait_for_consumers(self, address: str, count: int, seconds: float = 20.0) -> None:
        """Wait until ``count`` clients consume an RPC address, and every interior router knows of them.

        Until then a fanout would reach fewer clients, and a call would wait.

        :param address: for example ``multicast/nova/compute``.
        """

        def complete() -> bool:
            consumers = 0
            for router in self.routers:
                consumers += sum(row["linkDir"] == "out" for row in router.client_links(RPC + address))
            found = [router.knows(RPC + address) for router in self.interiors]
            having = sum(local > 0 for local, _ in found)
            known = all(remote == having - (local > 0) for local, remote in found)
            return consumers == count and having > 0 and known

        processes.wait_until(f"all routers know the consumers of {address}", complete, seconds, interval=0.1)

    def counters(self, prefix: str) -> Counters:
        """Return how many messages all clients together sent and got."""
        found = [router.counters(prefix) for router in self.routers]
        ingress = sum(counters.ingress for counters in found)
        egress = sum(counters.egress for counters in found)
        return Counters(ingress, egress)

    def busiest(self) -> Router:
        """Return the router with the most clients."""
        return max(self.routers, key=Router.clients)


def _reaches(router: Router, others: set[str]) -> bool:
    return router.peers() == others
