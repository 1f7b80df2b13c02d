"""The router engines of this machine, and routers started from the JSON that om-agent rendered for each node."""

from __future__ import annotations

import dataclasses
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

_VARIABLES = {model.Engine.QDROUTERD: "OM_QDROUTERD", model.Engine.SKROUTERD: "OM_SKROUTERD"}


@dataclasses.dataclass(frozen=True)
class Counters:
    """Messages to addresses: from clients, and to clients, over the links that they have now."""

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

    def start(self, within: tuple[str, ...] = ()) -> None:
        """Start it, and do not wait.

        :param within: a command that starts it in its turn.
        """
        engine = self._deployment.router.engine
        command = find(engine)
        if not command:
            raise errors.TestbedError(f"{engine.value} is neither on PATH nor named by {_VARIABLES[engine]}.")
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
        """End it as a crash does: SIGKILL, nothing said to anybody."""
        if self.process:
            self.process.signal(signal.SIGKILL)
            self._supervisor.end(self.process, grace=0)

    def manage(self) -> amqp.Client:
        """Return a management client, logged in as the agent is.

        :raises om_agent.errors.Unreachable: when the router cannot be asked.
        """
        settings = self._deployment.router
        user, name = f"{model.ADMIN_USER}@{om_agent.plan.router.REALM}", self.host.node.host
        ca = str(self.host.path(settings.engine.record.tls("ca"))) if settings.tls else ""
        login = amqp.Login(*self.address, name, user, settings.admin_password, settings.engine, settings.tls, ca)
        return amqp.Client(login)

    def peers(self) -> set[str]:
        """Return the routers that it can reach."""
        with self.manage() as client:
            return set(verify.reachable(client.query("router.node"), self.host.name)) - {self.host.name}

    def clients(self) -> int:
        """Return how many clients are connected, this question's own connection not counted."""
        with self.manage() as client:
            rows = client.query("connection")
        return sum(map(amqp.is_client, rows))

    def has_uplink(self) -> bool:
        """Return whether an edge router has a connection to an interior one."""
        with self.manage() as client:
            return any(row["role"] == "edge" and row["opened"] for row in client.query("connection"))

    def client_links(self, address: str) -> list[amqp.Row]:
        """Return the links of clients, not of other routers, whose address holds ``address``."""
        with self.manage() as client:
            roles = {row["identity"]: row["role"] for row in client.query("connection")}
            links = [row for row in client.query("router.link") if address in (row["owningAddr"] or "")]
        return [row for row in links if roles.get(row["connectionId"]) == "normal"]

    def counters(self, prefix: str) -> Counters:
        """Return what its clients sent to and got from the addresses that begin with ``prefix``."""
        links = self.client_links(prefix)
        ways = [sum(row["deliveryCount"] for row in links if row["linkDir"] == way) for way in ("in", "out")]
        return Counters(*ways)

    def knows(self, address: str) -> tuple[int, int]:
        """Return how many links, of clients and edge routers, consume an address, and on how many other interior
        routers it knows some."""
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

    @property
    def interiors(self) -> tuple[Router, ...]:
        """The routers that know the whole mesh."""
        return tuple(r for r in self.routers if r.host.node.router is model.RouterMode.INTERIOR)

    def wait(self) -> None:
        """Wait until each interior router reaches every other, and each edge one of them."""
        names = {router.host.name for router in self.interiors}
        watched = [r.process for r in self.routers if r.process]
        for router in self.routers:
            interior = router in self.interiors

            def joined(router: Router = router, interior: bool = interior) -> bool:
                return router.peers() == names - {router.host.name} if interior else router.has_uplink()

            what = f"the router on {router.host.name} reaches {'all others' if interior else 'an interior one'}"
            processes.wait_until(what, joined, CONVERGE_SECONDS, watched, interval=0.2)

    def wait_for_consumers(self, address: str, count: int, seconds: float = 20.0) -> None:
        """Wait until ``count`` clients consume an RPC address, such as ``multicast/nova/compute``.

        And until every interior router knows: until then a fanout would reach fewer, and a call be held back.
        """

        def complete() -> bool:
            links = [row for router in self.routers for row in router.client_links(RPC + address)]
            found = [router.knows(RPC + address) for router in self.interiors]
            having = sum(local > 0 for local, _ in found)
            known = all(remote == having - (local > 0) for local, remote in found)
            return sum(row["linkDir"] == "out" for row in links) == count and having > 0 and known

        processes.wait_until(f"all routers know the consumers of {address}", complete, seconds, interval=0.1)

    def counters(self, prefix: str) -> Counters:
        """Return what all clients together sent and got."""
        found = [router.counters(prefix) for router in self.routers]
        return Counters(sum(c.ingress for c in found), sum(c.egress for c in found))

    def busiest(self) -> Router:
        """Return the router with the most clients."""
        return max(self.routers, key=Router.clients)
