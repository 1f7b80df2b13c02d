"""verify and status end to end with the development router: a healthy one, and every fault of a single router.

The services' files are the stand-in puppet's, so that this needs neither puppet nor RabbitMQ; messages are real
oslo.messaging's, and the router's users real saslpasswd2's.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import shutil
import signal
import socket
import threading
import time
import typing

import pytest

from testbed import overcloud, processes, sockets
from tests.support import helpers

pytest.importorskip("oslo_messaging")
pytest.importorskip("pyngus")
pytest.importorskip("proton")

PASSWORD = "a-very-secret-word"
ADDRESS = ("127.0.46.10", 31459)
WHERE = "127.0.46.10:31459"
WHERE_TO_LOOK = ("--node", "ctl-1", "--relocate", "--no-services")
CONFIG = "etc/om-devrouter/om-devrouter.json"


class Node:
    """A node whose only router is the development router, and the agent on it."""

    def __init__(self, machine: helpers.Machine, supervisor: processes.Supervisor) -> None:
        self.machine = machine
        self.metadata = machine.metadata(messaging())
        self._supervisor = supervisor
        self.process: processes.Process | None = None

    def path(self, inside: str) -> pathlib.Path:
        """Where a file of the node is."""
        return self.machine.root / inside

    def agent(self, command: str, *options: str, metadata: str = "") -> tuple[int, str, str]:
        """Run a command; return exit code, output and errors, and check that they contain no password."""
        done = self.machine.run(command, metadata or self.metadata, *WHERE_TO_LOOK, *options)
        assert PASSWORD not in done.stdout + done.stderr
        return done.returncode, done.stdout, done.stderr

    def verify(self, *options: str, metadata: str = "") -> dict[str, str]:
        """Run verify; return the messages of faults by code, and check that the exit code matches."""
        code, out, _ = self.agent("verify", "--json", "--timeout", "1", *options, metadata=metadata)
        return faults(code, json.loads(out))

    def status(self, metadata: str = "") -> tuple[dict[str, str], dict[str, typing.Any]]:
        """Run status; return the messages of faults by code, and the whole output."""
        code, out, _ = self.agent("status", "--json", metadata=metadata)
        return faults(code, json.loads(out)), json.loads(out)

    def start(self, config: pathlib.Path | None = None) -> None:
        """Start the router and wait until it listens."""
        argv = [self.machine.python, "-m", "om_devrouter", "-c", str(config or self.path(CONFIG))]
        self.process = self._supervisor.start("router", argv, overcloud.python_environment())
        processes.wait_until("the router listens", lambda: sockets.is_open(ADDRESS), 20, [self.process])

    def stop(self) -> None:
        """End the router as systemd does."""
        if self.process:
            self._supervisor.end(self.process)
            self.process = None


def messaging(**rpc: str) -> helpers.Raw:
    return {
        "rpc": {"scheme": "amqp", "tls": False, "username": "rpc", "password": PASSWORD, **rpc},
        "notify": {"scheme": "amqp"},
        "router": {"engine": "embedded", "http_port": 0, "mesh_password": "mesh-secret"},
        "nodes": [{"name": "ctl-1", "address": ADDRESS[0], "host": ADDRESS[0]}],
        "services": ["nova", "swift"],
    }


def faults(code: int, told: dict[str, typing.Any]) -> dict[str, str]:
    found = [f for f in told["findings"] if f["severity"] == "error"]
    assert (code, told["healthy"]) == ((3, False) if found else (0, True)), told
    return {f["code"]: f"{f['path']}: {f['message']}. {f['remedy']}." for f in found}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[Node]:
    if not shutil.which("saslpasswd2", path="/usr/sbin:/usr/bin"):
        helpers.skip("saslpasswd2 is not installed (Debian: sasl2-bin)")
    directory = tmp_path_factory.mktemp("verify")
    machine = helpers.machine(directory)
    (machine.bin / "saslpasswd2").unlink()  # the real one: the router reads what it writes
    with processes.Supervisor(directory / "logs") as supervisor:
        node = Node(machine, supervisor)
        code, out, err = node.agent("apply")
        assert code == 0, out + err
        yield node


@pytest.fixture
def node(made: Node) -> typing.Iterator[Node]:
    """The router runs, and files are put back afterwards."""
    before = {path: made.path(path).read_bytes() for path in (CONFIG, "etc/nova/nova.conf")}
    if not made.process:
        made.start()
    yield made
    for path, content in before.items():
        made.path(path).write_bytes(content)


def test_all_is_well(node: Node) -> None:
    code, out, _ = node.agent("verify", "--json", "--timeout", "20")
    told = json.loads(out)
    assert faults(code, told) == {}
    assert [(p["half"], p["to"], p["error"]) for p in told["probes"]] == [
        ("rpc", "ctl-1", ""), ("notify", "", ""), ("notify", "", ""),
    ]  # fmt: skip
    assert {p["file"] for p in told["probes"]} == {"/etc/nova/nova.conf", "/etc/swift/proxy-server.conf"}
    code, out, err = node.agent("verify", "--timeout", "20")
    assert (code, out) == (
        0, "ctl-1: messaging works: the router runs, 1 call there and back, 2 notifications there and back\n"
    )  # fmt: skip
    assert "error:" not in err


def test_status(node: Node) -> None:
    found, told = node.status()
    assert found == {}
    router = told["router"]
    assert (router["engine"], router["mode"], router["id"]) == ("embedded", "standalone", "ctl-1")
    assert (router["running"], router["clients"], router["interiors"], router["drift"]) == (True, 0, [], [])
    assert told["broker"] is None
    code, out, _ = node.agent("status")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "node    ctl-1 (controller): rpc over amqp, notify over amqp"
    assert re.fullmatch(r"router  embedded \S+, standalone, up 0 min \d+ s", lines[1])
    assert re.fullmatch(r"        0 clients, \d+ links", lines[2])


def test_a_file_that_was_changed_by_hand(node: Node) -> None:
    config = node.path(CONFIG)
    config.write_text(config.read_text().replace('"workerThreads"', ' "workerThreads"'))
    found = node.verify()
    assert set(found) == {"config-differs"}
    assert f"1 things on disk differ from the metadata; the first one: change /{CONFIG}" in found["config-differs"]
    assert "Run om-agent apply." in found["config-differs"]


def test_a_services_file_with_another_url(node: Node) -> None:
    nova = node.path("etc/nova/nova.conf")
    nova.write_text(nova.read_text().replace(f"@{WHERE}", "@127.0.46.11:31459"))
    begun = time.monotonic()
    found = node.verify()
    assert set(found) == {"config-differs", "rpc-failed", "notify-failed"}
    assert "change /etc/nova/nova.conf: [DEFAULT] transport_url" in found["config-differs"]
    assert found["rpc-failed"].startswith("/etc/nova/nova.conf: a call with the transport URL of this file, to")
    assert time.monotonic() - begun < 60


def test_another_password(node: Node) -> None:
    """The router's users differ from the metadata, for example when a stack update has not reached the node."""
    raw = helpers.put(messaging(password="another-password"), "router.mesh_password", "another-password")
    other = node.machine.metadata(raw, "other.json")
    found = node.verify(metadata=other)
    assert set(found) == {"config-differs", "router-login"}
    assert "rejects om-agent's login" in found["router-login"] and "Run om-agent apply" in found["router-login"]
    found, told = node.status(metadata=other)
    assert set(found) == {"config-differs", "router-login"}
    assert told["router"]["running"] is False
    code, out, err = node.agent("status", metadata=other)
    assert code == 3 and "another-password" not in out + err
    assert "router  embedded, standalone: does not answer" in out and "error: router on ctl-1: the router at" in err


def test_a_router_that_hangs(node: Node) -> None:
    assert node.process
    node.process.signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        found = node.verify()
        assert time.monotonic() - begun < 30
        assert set(found) == {"router-hung"}
        assert f"the router at {WHERE} accepts connections and does not answer" in found["router-hung"]
        assert "Run systemctl restart om-devrouter" in found["router-hung"]
        found, told = node.status()
        assert set(found) == {"router-hung"} and told["router"]["running"] is False
    finally:
        node.process.signal(signal.SIGCONT)


def test_a_router_that_was_stopped(node: Node) -> None:
    node.stop()
    found = node.verify()
    assert set(found) == {"router-down"}
    assert f"no router listens at {WHERE}. Run systemctl status om-devrouter" in found["router-down"]
    found, told = node.status()
    assert set(found) == {"router-down"} and told["router"]["running"] is False
    code, out, err = node.agent("verify", "--timeout", "1")
    assert (code, out) == (3, "ctl-1: messaging is broken: 1 fault\n")
    assert err.splitlines()[-1].startswith("error: router on ctl-1: no router listens at")


def test_a_router_that_is_being_started_is_waited_for(node: Node) -> None:
    node.stop()
    waiting = node.machine.start("verify", node.metadata, *WHERE_TO_LOOK, "--timeout", "60")
    try:
        time.sleep(2)
        assert waiting.poll() is None
        node.start()
        out, err = waiting.communicate(timeout=60)
    finally:
        waiting.kill()
    assert waiting.returncode == 0 and "messaging works" in out, err


@contextlib.contextmanager
def program(answer: bytes) -> typing.Iterator[None]:
    """Something that has the router's port: it says ``answer`` to whoever comes and ends the connection, or says
    nothing and keeps it."""
    kept = []
    with socket.create_server(ADDRESS) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    kept.append(connection)
                    if answer:
                        connection.recv(4096)
                        connection.sendall(answer)
                        connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        for connection in kept:
            connection.close()


@pytest.mark.parametrize(
    ("answer", "code"), [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "router-closed"), (b"", "router-hung")]
)
def test_another_program_has_the_port(node: Node, answer: bytes, code: str) -> None:
    node.stop()
    with program(answer):
        found = node.verify()
    assert set(found) == {code}
    assert "ss -ltnp" in found[code]


def test_another_nodes_router_has_the_port(node: Node) -> None:
    node.stop()
    config = node.path("copied.json")
    config.write_text(node.path(CONFIG).read_text().replace('"id": "ctl-1"', '"id": "ctl-9"'))
    node.start(config)
    try:
        found = node.verify()
        assert set(found) == {"router-stranger"}
        assert f'the program that listens at {WHERE} calls itself "ctl-9"' in found["router-stranger"]
        assert "ss -ltnp" in found["router-stranger"]
    finally:
        node.stop()


def test_another_engine_has_the_port(node: Node) -> None:
    other = node.machine.metadata(helpers.put(messaging(), "router.engine", "qdrouterd"), "engine.json")
    found = node.verify(metadata=other)
    assert set(found) == {"config-differs", "router-engine"}
    assert "listens there, but qdrouterd is configured" in found["router-engine"]
    assert "systemctl restart qdrouterd" in found["router-engine"]
