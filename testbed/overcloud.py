"""An overcloud in a directory: one root directory per node, made ready by the real om-agent and puppet."""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import os
import pathlib
import re
import shutil
import socket
import sys
import time
import urllib.parse

import om_agent.errors
from om_agent import metadata, model, parse

from testbed import errors, processes, sockets

TREE = pathlib.Path(__file__).resolve().parents[1]
SERVICES = ("nova", "neutron", "cinder", "heat", "keystone", "ironic")
_RESYNC_SECONDS = 90.0  # its own time is 60
_APPLY_SECONDS = 300.0

# As a package leaves it, except for the URL: it comes from an older deployment, and the agent must replace it.
_SERVICE_FILE = """\
[DEFAULT]
# {service}'s own, left as it is
state_path = /var/lib/{service}
transport_url = rabbit://guest:guest@localhost:5672/

[oslo_messaging_notifications]
#driver =
"""


@dataclasses.dataclass(frozen=True)
class Host:
    """One node and its root directory.

    :param files: its metadata. A later file overrides an earlier one.
    :param within: the command that runs another command on this node, empty when the node is this machine.
    """

    node: model.Node
    root: pathlib.Path
    files: tuple[pathlib.Path, ...]
    within: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name

    def path(self, inside: str) -> pathlib.Path:
        """Return the path on this machine of the node's absolute path ``inside``."""
        return self.root / inside.lstrip("/")

    def service_file(self, service: str) -> pathlib.Path:
        """Return a service's configuration file."""
        return self.path(f"/etc/{service}/{service}.conf")


@dataclasses.dataclass(frozen=True)
class Overcloud:
    """The deployment and its hosts."""

    deployment: model.Deployment
    hosts: tuple[Host, ...]

    def having(self, scheme: model.Scheme) -> tuple[Host, ...]:
        """Return the hosts that run a router (AMQP) or a broker (RABBIT)."""
        return tuple(host for host in self.hosts if self.deployment.carried_by(host.node, scheme))

    def role(self, role: str) -> tuple[Host, ...]:
        """Return the hosts with that role."""
        return tuple(host for host in self.hosts if host.node.role == role)

    def secrets(self) -> frozenset[str]:
        """Return every password, both plain and quoted for a URL."""
        deployment = self.deployment
        secrets = [deployment.router.mesh_password, deployment.broker.erlang_cookie, deployment.tls.key]
        for half in deployment.halves:
            secrets += [account.password for account in half.accounts.values()]
        plain = {secret.reveal() for secret in secrets} - {""}
        return frozenset(plain | {urllib.parse.quote(text, safe="") for text in plain})


def load(files: collections.abc.Sequence[pathlib.Path]) -> model.Deployment:
    """Return the deployment that the files describe, merged.

    :raises testbed.errors.TestbedError: when it is not valid.
    """
    try:
        raw = metadata.read([str(file) for file in files])
        return parse.deployment(metadata.select(raw, socket.gethostname()))
    except om_agent.errors.AgentError as e:
        raise errors.TestbedError("The metadata is not valid.", str(e)) from None


def create(files: collections.abc.Sequence[pathlib.Path], directory: pathlib.Path) -> Overcloud:
    """Make a root directory per node, with the services' files as packages leave them."""
    deployment = load(files)
    directory.mkdir()
    hosts = []
    for node in deployment.nodes:
        own = [*files, *_own_http_port(deployment, node, directory)]
        host = Host(node, directory / node.name, tuple(own))
        for service in SERVICES:
            path = host.service_file(service)
            path.parent.mkdir(parents=True)
            path.write_text(_SERVICE_FILE.format(service=service))
        hosts.append(host)
    return Overcloud(deployment, tuple(hosts))


def without_services(hosts: collections.abc.Iterable[Host], keep: collections.abc.Container[str] = ()) -> None:
    """Remove all services except those in ``keep`` from nodes. An apply needs no puppet on a node without services."""
    for host in hosts:
        for service in SERVICES:
            if service not in keep:
                shutil.rmtree(host.service_file(service).parent)


def _own_http_port(deployment: model.Deployment, node: model.Node, directory: pathlib.Path) -> list[pathlib.Path]:
    """Return the metadata file, if needed, that gives a node's router another HTTP port than the other nodes'.

    qdrouterd 1.19 and skrouterd 3.4 open that port on 0.0.0.0, whatever the listener's host is (seen with ss(8)). So
    only one router of a machine can have it, and qdrouterd crashes when it cannot. No other program uses the port.
    """
    having = [other.name for other in deployment.nodes if other.router is not model.RouterMode.NONE]
    if node.name not in having[1:] or not deployment.router.http_port:
        return []
    port = deployment.router.http_port + having.index(node.name)
    return [_overlay({"router": {"http_port": port}}, directory / f"{node.name}.json")]


def _overlay(messaging: dict[str, object], path: pathlib.Path) -> pathlib.Path:
    path.write_text(json.dumps({metadata.KEY: messaging}, indent=2) + "\n")
    return path


def embedded_overlay(deployment: model.Deployment, path: pathlib.Path) -> pathlib.Path:
    """Write the metadata file that replaces the mesh by one development router."""
    carrier = model.interiors(deployment)[:1]
    return _overlay({"router": {"engine": model.Engine.EMBEDDED.value}, "rpc": {"nodes": list(carrier)}}, path)


def engine_overlay(engine: model.Engine, path: pathlib.Path) -> pathlib.Path:
    """Write the metadata file that chooses another engine."""
    return _overlay({"router": {"engine": engine.value}}, path)


def wanted_sockets(cloud: Overcloud) -> dict[sockets.Address, str]:
    """Return every socket that the rendered files will open, with its purpose.

    They do not include RabbitMQ's port mapper, which `testbed.rabbitmq` does not use.
    """
    wanted = {}
    for host in cloud.hosts:
        for port, key in model.sockets(load(host.files), host.name):
            if port == model.EPMD_PORT:
                continue
            everywhere = key == "router.http_port" and cloud.deployment.router.engine is not model.Engine.EMBEDDED
            address = "0.0.0.0" if everywhere else host.node.address
            wanted[address, port] = f"{key} of {host.name}"
    return wanted


def python_environment() -> dict[str, str]:
    """Return the environment in which a Python child process finds this package, om_agent and om_devrouter."""
    agent_tree = pathlib.Path(om_agent.__file__).resolve().parents[1]
    paths = [str(TREE), str(TREE / "devrouter"), str(agent_tree), os.environ.get("PYTHONPATH")]
    return {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


# -- om-agent --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Applied:
    """The cost of one `apply_all` in wall and CPU seconds, and the agent's last line by node."""

    seconds: float
    cpu: float
    said: dict[str, str]


def agent(supervisor: processes.Supervisor, name: str, *arguments: str | pathlib.Path) -> processes.Process:
    """Start ``om-agent`` with ``arguments``. ``name`` is the name of its log."""
    argv = [sys.executable, "-m", "om_agent", *map(str, arguments)]
    return supervisor.start(name, argv, python_environment())


def validate(supervisor: processes.Supervisor, files: collections.abc.Sequence[pathlib.Path]) -> str:
    """Run ``om-agent validate``. Return the last line of its output."""
    done = supervisor.finish(agent(supervisor, "validate", "validate", *files), 30)
    if done.returncode:
        raise errors.TestbedError("om-agent validate refused the metadata.", done.output)
    return _last_line(done.output)


def apply_all(
    supervisor: processes.Supervisor,
    cloud: Overcloud,
    name: str,
    ready: collections.abc.Callable[[str], None] = lambda node: None,
    at_once: int = 2,
) -> Applied:
    """Run ``om-agent apply`` for every host, a few at a time.

    :param name: the first part of the logs' names, ``NAME-NODE.log``.
    :param ready: called with the name of each node when its apply has ended.
    :raises testbed.errors.TestbedError: with the agent's output, when one fails.
    """
    start = time.monotonic()
    waiting = list(cloud.hosts)
    running: dict[str, processes.Process] = {}
    said: dict[str, str] = {}
    cpu = 0.0
    while waiting or running:
        while waiting and len(running) < at_once:
            host = waiting.pop(0)
            options = ("--node", host.name, "--root", host.root, "--relocate", "--no-services")
            running[host.name] = agent(supervisor, f"{name}-{host.name}", "apply", "--metadata", *host.files, *options)
        processes.wait_until("om-agent apply ends", lambda: bool(_ended(running)), _APPLY_SECONDS)
        for node in _ended(running):
            done = supervisor.finish(running.pop(node), 1)
            if done.returncode:
                raise errors.TestbedError(f"om-agent apply failed on {node} with {done.returncode}.", done.output)
            said[node] = _last_line(done.output)
            cpu += done.cpu
            ready(node)
    return Applied(time.monotonic() - start, cpu, said)


def resync(supervisor: processes.Supervisor, host: Host) -> str:
    """Run ``om-agent resync`` and return its last line. In an image, a unit runs it after each start of the router."""
    options = ("--node", host.name, "--root", host.root, "--relocate", "--no-services")
    done = supervisor.finish(agent(supervisor, f"resync-{host.name}", "resync", *host.files, *options), _RESYNC_SECONDS)
    return _last_line(done.output)


def _ended(running: collections.abc.Mapping[str, processes.Process]) -> list[str]:
    return [node for node, process in running.items() if process.poll() is not None]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


# -- programs --------------------------------------------------------------------------------------------------------


def find_program(name: str, variable: str = "") -> str | None:
    """Return a program's path, from ``variable`` or PATH.

    For each ``bin`` in PATH, the search includes the ``sbin`` next to it, because an ordinary user's PATH has no
    ``sbin``.

    :raises testbed.errors.TestbedError: when the variable names something that is not a program.
    """
    named = os.environ.get(variable) if variable else None
    if named:
        found = shutil.which(named)
        if not found:
            raise errors.TestbedError(f"{variable} names {named}, which is not a program.")
        return found
    directories = os.environ.get("PATH", os.defpath).split(os.pathsep)
    system = [directory[: -len("bin")] + "sbin" for directory in directories if directory.endswith("/bin")]
    return shutil.which(name, path=os.pathsep.join([*directories, *system]))


def use_driver(path: pathlib.Path, scheme: str) -> None:
    """Make a service use another driver for AMQP 1.0. The agent writes the scheme of oslo.messaging's in-tree driver.

    :param path: the service's file.
    :raises testbed.errors.TestbedError: when the file does not have exactly one URL of the in-tree driver.
    """
    url = re.compile(r"^(transport_url\s*=\s*)amqp://", re.MULTILINE)
    text, count = url.subn(rf"\g<1>{scheme}://", path.read_text())
    if count != 1:
        raise errors.TestbedError(f"{path} has {count} transport URLs of the scheme amqp instead of one.")
    path.write_text(text)
