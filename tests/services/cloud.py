"""nova, neutron and cinder of Debian on one node, on what the agent writes; and questions to them."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys
import time
import typing
import urllib.request

from om_agent import metadata, model
from om_agent.plan import layout

from testbed import chroot_node, errors, overcloud, processes, routers, service_root, sockets

NAME = "ctl-0"
ADDRESS = "10.213.0.10"
START_SECONDS = 120.0
HERE = f"{chroot_node.INSIDE}/tests/services"
# The files of the services that the agent edits.
FILES = ("/etc/nova/nova.conf", "/etc/neutron/neutron.conf", "/etc/cinder/cinder.conf")

METADATA = "/root/metadata.json"  # what was applied last
_AGENT = f"PYTHONPATH={chroot_node.INSIDE}/agent"
_NOVA = ("--config-file=/etc/nova/nova.conf", f"--config-file={service_root.SETTINGS}/nova.conf")
_USERS = {"nova": "nova", "neutron": "neutron", "cinder": "cinder"}


@dataclasses.dataclass(frozen=True)
class Kind:
    """What carries RPC.

    :param engine: of the router; None when RabbitMQ does.
    :param driver: the scheme of the services' URL: ``amqp`` for oslo.messaging's former driver, ``amqp1`` for ours.
    """

    engine: model.Engine | None = None
    driver: str = "rabbit"

    def __str__(self) -> str:
        return f"{self.engine.value}-{self.driver}" if self.engine else "rabbitmq"


class Cloud:
    """The node and what runs on it."""

    def __init__(self, supervisor: processes.Supervisor, lower: pathlib.Path, work: pathlib.Path, kind: Kind) -> None:
        engine = self.engine = kind.engine
        self.kind = kind
        self.node = chroot_node.Node(supervisor, lower, work / "node", NAME, ADDRESS)
        self.started: dict[str, float] = {}
        self.before: dict[str, bytes] = {}  # files of the services with RabbitMQ for both
        self._supervisor = supervisor
        self._work = work
        self._processes: dict[str, processes.Process] = {}
        if engine:  # its package would; Debian has none
            self.node.run("useradd", "--system", engine.record.user)

    # -- the agent ---------------------------------------------------------------------------------------------------

    def apply(self, engine: model.Engine | None) -> str:
        """Run ``om-agent apply`` in the node; returns what it said last."""
        path = self.metadata(engine)
        self.node.path(METADATA).write_text(path.read_text())
        said = self.agent("apply", "--metadata", METADATA)
        return said.strip().splitlines()[-1]

    def install_driver(self) -> None:
        """Install our driver into the system's Python of the node, and have the services use it.

        The agent writes the scheme of the former driver; all else of the URL and of the options is the same.
        """
        source = self._work / "driver"
        shutil.copytree(chroot_node.TREE / "driver", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
        target = self.node.path("/usr/lib/python3/dist-packages")
        subprocess.run([*pip, "--no-index", "--target", str(target), str(source)], check=True, timeout=120)
        for name in FILES:
            overcloud.use_driver(self.node.path(name), self.kind.driver)

    def agent(self, *arguments: str, status: tuple[int, ...] = (0,)) -> str:
        """Run ``om-agent`` in the node."""
        return self.node.run("env", _AGENT, "python3", "-m", "om_agent", *arguments, timeout=300, status=status)

    def metadata(self, engine: model.Engine | None) -> pathlib.Path:
        """Write the metadata of RPC over ``engine``, or over RabbitMQ."""
        rpc: dict[str, object] = {"scheme": "rabbit", "username": "rpc", "password": "rpc-secret"}
        messaging: dict[str, object] = {
            "broker": {"erlang_cookie": "cookie-secret"},
            "nodes": [{"name": NAME, "address": ADDRESS}],
            "notify": {"scheme": "rabbit", "username": "notify", "password": "notify-secret"},
            "rpc": rpc,
        }
        if engine:
            rpc |= {"scheme": "amqp", "tls": False}
            messaging["router"] = {"engine": engine.value, "mesh_password": "mesh-secret"}
        path = self._work / f"metadata-{engine.value if engine else 'rabbit'}.json"
        path.write_text(json.dumps({metadata.KEY: messaging}))
        return path

    def files(self) -> dict[str, bytes]:
        """Return the files of the services that the agent edits."""
        return {path: self.node.path(path).read_bytes() for path in FILES}

    def nova_manage(self, *arguments: str) -> str:
        """Run ``nova-manage``."""
        return self.node.run("nova-manage", *_NOVA, *arguments, user="nova")

    # -- programs ----------------------------------------------------------------------------------------------------

    def start_database(self) -> None:
        """Start MariaDB and wait for it."""
        self.node.run("install", "-d", "-o", "mysql", "-g", "mysql", "/run/mysqld")
        self._processes["mariadb"] = self.node.start("mariadb", "mariadbd", "--user=mysql")
        self.wait("MariaDB answers", lambda: "alive" in self._ping(), START_SECONDS)

    def _ping(self) -> str:
        return self.node.run("mariadb-admin", "ping", status=(0, 1))

    def start_broker(self) -> None:
        """Start RabbitMQ, and do not wait."""
        self._processes["rabbitmq"] = self.node.start("rabbitmq", "/usr/sbin/rabbitmq-server", user="rabbitmq")

    def start_router(self) -> None:
        """Start the router, if one carries RPC, and do not wait."""
        if not self.engine:
            return
        command, place = routers.find(self.engine), self.engine.record
        assert command
        argv = self.node.router(place.directory, *command, "-c", place.config)
        environment = {**layout.ROUTER_ENVIRONMENT, **overcloud.python_environment()}
        self._processes["router"] = self._supervisor.start("router", argv, environment)

    def wait_for_messaging(self) -> None:
        """Wait until services can connect to what carries RPC and notifications."""
        for port in (5672, *([31459] if self.engine else [])):
            self.wait(f"port {port} is open", lambda p=port: self.is_open(p), START_SECONDS)  # type: ignore[misc]

    def is_open(self, port: int, address: str = ADDRESS) -> bool:
        """Return whether something listens on a port of the node."""
        return self.node.connected(lambda: sockets.is_open((address, port)))

    def start_service(self, name: str) -> processes.Process:
        """Start a service with the command of Debian's unit; as root first, for its directories."""
        user, path = _USERS[name.partition("-")[0]], f"/etc/init.d/{name}"
        self.node.run(path, "show-args")
        self.started[name] = time.monotonic()
        self._processes[name] = self.node.start(name, path, "systemd-start", user=user)
        return self._processes[name]

    def start_placement(self) -> None:
        """Start what nova-compute asks for before it starts."""
        self._processes["placement"] = self.node.start("placement", "python3", f"{HERE}/placement.py", "8778")
        self.wait("placement listens", lambda: self.is_open(8778, "127.0.0.1"), START_SECONDS)

    def start_computes(self, count: int) -> None:
        """Start more nova-computes, ``fake-00`` and so on."""
        arguments = ("/usr/bin/python3", f"{HERE}/computes.py", str(count), *_NOVA)
        self._processes["computes"] = self.node.start("computes", *arguments, user="nova")

    def stop(self, name: str, grace: float = 10) -> None:
        """End a program; with no ``grace`` as ``kill -9`` does."""
        self._supervisor.end(self._processes.pop(name), grace=grace)

    def below(self, process: processes.Process) -> frozenset[int]:
        """Return the processes that a program has started, with its own."""
        return frozenset(processes.descendants(process.pid))

    def ended(self, name: str) -> int | None:
        """Return the exit code of a program that has ended."""
        return self._processes[name].poll()

    def wait(self, what: str, check: typing.Callable[[], bool], seconds: float) -> float:
        """Wait for ``check``; returns how long it took.

        :raises testbed.errors.TestbedError: when it takes longer, with the ends of all logs.
        """
        start = time.monotonic()
        try:
            processes.wait_until(what, check, seconds, interval=0.5)
        except errors.TestbedError as e:
            raise AssertionError(f"{e}\n{self.complaints()}") from None
        return time.monotonic() - start

    # -- questions ---------------------------------------------------------------------------------------------------

    def sql(self, database: str, statement: str) -> list[list[str]]:
        """Return the rows of a statement."""
        text = self.node.run("mariadb", "--batch", "--skip-column-names", database, "--execute", statement)
        return [line.split("\t") for line in text.splitlines()]

    def up(self, project: str, seconds: float = 3 * service_root.REPORT_SECONDS) -> set[tuple[str, str]]:
        """Return (program, host) of each service that has reported within so many seconds."""
        column = {"nova": "last_seen_up", "cinder": "updated_at"}[project]
        found = self.sql(
            project,
            f"SELECT `binary`, host FROM services WHERE NOT deleted AND {column} > UTC_TIMESTAMP() - INTERVAL"
            f" {seconds:.0f} SECOND",
        )
        return {(program, host) for program, host in found}

    def calls(self, hosts: typing.Sequence[str]) -> dict[str, float | str]:
        """Call nova-computes; returns the seconds each took, or why it failed."""
        argv = ("python3", f"{HERE}/calls.py", ",".join(hosts), *_NOVA)
        text = self.node.run(*argv, user="nova", timeout=60 + 61 * len(hosts))
        return typing.cast("dict[str, float | str]", json.loads(text.splitlines()[-1]))

    def request(self, method: str, path: str, body: object = None) -> tuple[typing.Any, float]:
        """Send a request to neutron; returns the answer and the seconds it took."""
        data = json.dumps(body).encode() if body else None
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://{ADDRESS}:9696{path}", data, headers, method=method)

        def send() -> str:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=150) as response:
                return typing.cast("str", response.read().decode())

        start = time.monotonic()
        text = self.node.connected(send)
        return json.loads(text or "null"), time.monotonic() - start

    def queues(self) -> dict[str, int]:
        """Return RabbitMQ's queues: the messages in each."""
        text = self.node.run("rabbitmqctl", "--quiet", "--formatter=json", "list_queues", "name", "messages")
        return {row["name"]: row["messages"] for row in json.loads(text)}

    def router(self) -> routers.Router:
        """Return the router, to ask it; only inside `chroot_node.Node.connected`."""
        deployment = overcloud.load([self.metadata(self.engine)])
        host = overcloud.Host(deployment.nodes[0], self.node.path("/"), ())
        return routers.Router(self._supervisor, deployment, host)

    def links_by_connection(self) -> list[int]:
        """Return how many links each connection of a service has at the router, most first."""

        def ask() -> list[int]:
            links: dict[str, int] = {}
            for row in self.router().client_links(""):
                links[row["connectionId"]] = links.get(row["connectionId"], 0) + 1
            return sorted(links.values(), reverse=True)

        return self.node.connected(ask)

    def products(self) -> set[str]:
        """Return what the router's clients say they are; the former driver says nothing."""

        def ask() -> set[str]:
            with self.router().manage() as client:
                rows = client.query("connection")
            named = [row["properties"] or {} for row in rows if row["role"] == "normal"]
            return {str(properties.get("product", "")) for properties in named if "process" in properties}

        return self.node.connected(ask)

    def rpc(self) -> routers.Counters:
        """Return the messages to and from the router's RPC addresses."""
        return self.node.connected(lambda: self.router().counters(routers.RPC))

    def log(self, service: str) -> str:
        """Return what a service wrote to its log file."""
        project = service.partition("-")[0]
        return self.node.path(f"/var/log/{project}/{service}.log").read_text(errors="replace")

    def complaints(self) -> str:
        """Return the last errors of every log, for the message of a test that failed."""
        found = []
        for project in _USERS:
            for path in sorted(self.node.path(f"/var/log/{project}").glob("*.log")):
                lines = [x for x in path.read_text(errors="replace").splitlines() if " ERROR " in x or " WARNING " in x]
                found += [f"{path.name}: {line[:300]}" for line in lines[-3:]]
        return "\n".join(found[-40:])
