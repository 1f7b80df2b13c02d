"""The releases of oslo.messaging that have both drivers, as services: every pattern, over either backend and over both,
each service configured by nothing but the file that om-agent rendered for it.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import types
import typing

import pytest

pytest.importorskip("proton", reason="python-qpid-proton is not installed")

from testbed import overcloud, processes, rabbitmq, routers, workers
from tests.support import environments, helpers, waiting

CALLS, CASTS, FANOUTS, NOTIFICATIONS = 5, 20, 10, 10
SECONDS = 60.0

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not shutil.which("puppet"), reason="puppet is not installed, and the agent needs it"),
    pytest.mark.skipif(not overcloud.find_program("rabbitmq-server"), reason="rabbitmq-server is not installed"),
    pytest.mark.skipif(not overcloud.find_program("saslpasswd2"), reason="saslpasswd2 is not installed"),
]

# Characters that a URL, a shell, an ini file or SASL could stumble over. Not / for RabbitMQ: its driver puts the
# password into a URL for kombu with urllib.parse.quote, which leaves a / as it is (impl_rabbit.py of all releases).
RPC_PASSWORD, NOTIFY_PASSWORD = "rpc @:/?#%$\"'{}\\ %{x} ß", "notify @:?#%$\"'{}\\ &= é"
ADDRESS = "127.0.87."
USERS: dict[str, dict[str, typing.Any]] = {
    "rpc": {"username": "rpc", "password": RPC_PASSWORD},
    "notify": {"username": "notify", "password": NOTIFY_PASSWORD, "virtual_host": "notifications"},
}


def metadata(first: int, rpc: dict[str, typing.Any], notify: dict[str, typing.Any]) -> dict[str, typing.Any]:
    nodes = [
        {"name": "ctl-0", "address": f"{ADDRESS}{first}", "role": "controller"},
        {"name": "cmp-0", "address": f"{ADDRESS}{first + 1}", "role": "compute"},
    ]
    router = {"engine": "embedded", "mesh_password": "mesh-secret"}
    return {"oslo_messaging": {"rpc": rpc, "notify": notify, "router": router, "nodes": nodes}}


# Both halves over the router; RPC over a router and notifications over the broker; and both over that same broker,
# which is somebody else's then, so that one is enough.
ROUTER, DUAL, BROKER = "router", "dual", "broker"
CLOUDS = {
    ROUTER: metadata(10, {"scheme": "amqp", "tls": False, **USERS["rpc"]}, {"scheme": "amqp", **USERS["notify"]}),
    DUAL: metadata(20, {"scheme": "amqp", "tls": False, **USERS["rpc"]}, {"scheme": "rabbit", **USERS["notify"]}),
    BROKER: metadata(
        30, {"hosts": [f"{ADDRESS}20"], **USERS["notify"]}, {"hosts": [f"{ADDRESS}20"], **USERS["notify"]}
    ),
}
CLOUDS[ROUTER]["oslo_messaging"]["notify"].pop("virtual_host")
# No node of this cloud has the broker, so nothing tells how its queues are to be declared: as the other cloud does.
CLOUDS[BROKER]["oslo_messaging"]["broker"] = {"queues": "mirrored" if helpers.MIRRORED_QUEUES else "quorum"}


@pytest.fixture(scope="module", params=environments.WITH_IN_TREE_DRIVER)
def release(request: pytest.FixtureRequest) -> str:
    """A release of oslo.messaging."""
    return str(request.param)


@pytest.fixture(scope="module")
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, release: str) -> str:
    """The interpreter of the release's environment."""
    return environments.python(request.config, tmp_path_factory, release)


# -- the backends ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Backends:
    """All clouds, rendered, with their routers and the broker running."""

    clouds: dict[str, overcloud.Overcloud]
    meshes: dict[str, routers.Mesh]


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> collections.abc.Iterator[Backends]:
    base = tmp_path_factory.mktemp("backends")
    with processes.Supervisor(base / "logs") as supervisor:
        found = Backends({}, {})
        for name, content in CLOUDS.items():
            path = base / f"{name}.json"
            path.write_text(json.dumps(content))
            cloud = overcloud.create([path], base / name)
            overcloud.apply_all(supervisor, cloud, name)
            found.clouds[name] = cloud
        broker = rabbitmq.Cluster(supervisor, found.clouds[DUAL])
        broker.start()
        for name in (ROUTER, DUAL):
            found.meshes[name] = routers.Mesh(supervisor, found.clouds[name])
            found.meshes[name].start()
        broker.wait()
        yield found
        broker.end()
        for node in broker.nodes:
            node._notified.close()  # nobody else does, and a warning is an error here


@dataclasses.dataclass(frozen=True)
class Services:
    """Two RPC servers, a listener and a client of one release on one cloud."""

    first: workers.Server
    second: workers.Server
    listener: workers.Listener
    client: workers.Client

    def send(self, kind: str, count: int) -> set[str]:
        """Send this many messages and return their names; fail if any of them fails."""
        self.client.begin(kind, count, SECONDS, *([] if kind == "notify" else [self.first]))
        sent = self.client.result()
        assert [s.error for s in sent] == [""] * count
        return {s.ident for s in sent}


@pytest.fixture(params=CLOUDS)
def services(
    request: pytest.FixtureRequest,
    release: str,
    python: str,
    backends: Backends,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> collections.abc.Iterator[Services]:
    """The testbed starts its services with its own interpreter; here it is the release's."""
    monkeypatch.setattr(workers, "sys", types.SimpleNamespace(executable=python))
    controller, compute = backends.clouds[request.param].hosts
    # Releases declare the exchange of a topic's fanouts differently, and the broker outlives a release.
    topic = f"compute-{release}"
    with processes.Supervisor(tmp_path / "logs") as supervisor:
        made = Services(
            workers.Server(supervisor, controller, "nova", topic),
            workers.Server(supervisor, compute, "nova", topic),
            workers.Listener(supervisor, controller, "nova", ["nova", "neutron"]),
            workers.Client(supervisor, compute, "nova"),
        )
        for worker in (made.first, made.second, made.listener, made.client):
            worker.expect("ready", workers.READY_SECONDS)
        if request.param in backends.meshes:
            backends.meshes[request.param].wait_for_consumers(f"multicast/nova/{topic}", 2)
        yield made
        everyone = (made.first, made.second, made.listener, made.client)
        supervisor.end(*(worker.process for worker in everyone), grace=0)  # an orderly end takes five seconds


def received(kind: str, *servers: workers.Server) -> list[set[str]]:
    return [set(server.got(kind).seconds) for server in servers]


def wait_for(what: str, check: collections.abc.Callable[[], bool]) -> None:
    waiting.until(check, 20, lambda: f"After 20 s it was still waiting until {what}.", interval=0.2)


# --------------------------------------------------------------------------------------------------------------------


def test_every_pattern(services: Services) -> None:
    """A call is answered by one server, a cast reaches one, a fanout both, a notification the listener."""
    servers = (services.first, services.second)
    calls = services.send("call", CALLS)
    first, second = received("call", *servers)
    assert (first | second, first & second) == (calls, set())

    casts = services.send("cast", CASTS)
    wait_for("all casts have come", lambda: set.union(*received("cast", *servers)) == casts)
    first, second = received("cast", *servers)
    assert first & second == set()

    fanouts = services.send("fanout", FANOUTS)
    wait_for("all fanouts have come to both", lambda: received("fanout", *servers) == [fanouts, fanouts])

    notifications = services.send("notify", NOTIFICATIONS)
    wait_for("all notifications have come", lambda: set(services.listener.got().seconds) == notifications)


def test_it_is_that_release(python: str) -> None:
    code = "import importlib.metadata as m, oslo_messaging; print(m.version('oslo.messaging'), oslo_messaging.__file__)"
    done = subprocess.run([python, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    version, path = done.stdout.split()
    assert version in environments.WITH_IN_TREE_DRIVER
    assert re.search(rf"/{re.escape(version)}/lib/", path)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_services_read_what_the_agent_rendered(backends: Backends, cloud: str) -> None:
    """Check that each case of the matrix uses the backend in its name."""
    text = backends.clouds[cloud].hosts[1].service_file("nova").read_text()
    schemes = re.findall(r"^transport_url = (\w+)://", text, re.MULTILINE)
    assert schemes == {ROUTER: ["amqp", "amqp"], DUAL: ["amqp", "rabbit"], BROKER: ["rabbit", "rabbit"]}[cloud]
