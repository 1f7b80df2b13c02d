"""The development router as a program: how it starts, what it refuses, how it stops."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.support import engines

ROUTER = ["router", {"mode": "standalone", "id": "ctl-0"}]
PASSWORD = "s3cret-in-the-file"


def listener(**more: object) -> list[object]:
    return ["listener", {"name": "client", "host": "127.0.0.1", "port": 0, "saslMechanisms": "ANONYMOUS", **more}]


def run(directory: pathlib.Path, content: object) -> subprocess.CompletedProcess[str]:
    path = directory / "router.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return subprocess.run(
        [sys.executable, "-m", "om_devrouter", "-c", str(path)],
        env=dict(os.environ, PYTHONPATH=str(engines.REPOSITORY / "devrouter")),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def profile(**more: object) -> list[object]:
    return ["sslProfile", {"name": "tls", "certFile": "/nowhere/cert", "privateKeyFile": "/nowhere/key", **more}]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('[["router", {"password": "' + PASSWORD + '"', "not valid JSON"),
        ([listener()], "exactly one router"),
        ([ROUTER, listener(), ["sslProfil", {}]], "Unknown entity"),
        ([["router", {"id": "a", "mode": "interior"}], listener()], "use qdrouterd for a mesh"),
        ([ROUTER, listener(), ["connector", {"name": "x", "saslPassword": PASSWORD}]], "use qdrouterd for a mesh"),
        ([ROUTER, listener(), ["policy", {"policyDir": "/etc/policy"}]], "policyDir is not supported"),
        ([ROUTER, listener(policyVhost="x"), ["policy", {"enableVhostPolicy": True}]], "there is no vhost 'x'"),
        ([ROUTER, listener(sslProfile="tls")], "no sslProfile 'tls'"),
        ([ROUTER, profile(password=PASSWORD), listener(sslProfile="tls")], "cannot read certFile /nowhere/cert"),
        ([ROUTER, listener(host="192.0.2.1")], "cannot listen on 192.0.2.1:0"),
        (
            [["router", {"id": "a", "saslConfigDir": "/nowhere"}], listener(saslMechanisms="PLAIN")],
            "cannot read qdrouterd.conf",
        ),
    ],
)
def test_it_refuses_in_one_sentence(tmp_path: pathlib.Path, content: object, sentence: str) -> None:
    ended = run(tmp_path, content)
    assert ended.returncode == 1
    assert sentence in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert PASSWORD not in ended.stderr + ended.stdout
    assert ended.stdout == ""


def test_it_refuses_a_port_in_use(tmp_path: pathlib.Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        ended = run(tmp_path, [ROUTER, listener(port=other.getsockname()[1])])
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
    assert "Address already in use" in ended.stderr


def test_it_refuses_a_file_that_is_not_there(tmp_path: pathlib.Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "om_devrouter", "-c", str(tmp_path / "none.json")],
        env=dict(os.environ, PYTHONPATH=str(engines.REPOSITORY / "devrouter")),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("om-devrouter: Cannot read ") and len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_within_a_second(tmp_path: pathlib.Path, number: int) -> None:
    with engines.running(engines.DEVROUTER, tmp_path, http=True) as router:
        with engines.connected(router) as connection:
            connection.create_receiver("a", credit=10)
            began = time.monotonic()
            assert router.stop(number) == 0
            assert time.monotonic() - began < 1
        assert "development only" in router.log
        assert f"listening on {router.url} (client)" in router.log
        assert "Traceback" not in router.log


def test_it_survives_nonsense(tmp_path: pathlib.Path) -> None:
    with engines.running(engines.DEVROUTER, tmp_path) as router:
        for junk in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"AMQP\x00\x01\x00\x00" + b"\xff" * 4000,
            b"\x16\x03\x01" + b"x" * 99,
            b"",
        ):
            with socket.create_connection((router.host, router.port), timeout=5) as sock:
                sock.sendall(junk)
        with engines.connected(router) as connection:
            sender = connection.create_sender(None)
            delivery = sender.link.delivery("junk")
            sender.link.stream(b"this is no message")
            sender.link.advance()
            connection.wait(lambda: delivery.settled, timeout=5)
            assert delivery.remote_state == engines.proton.Delivery.REJECTED
            sender = connection.create_sender("$management")
            delivery = sender.link.delivery("more junk")
            sender.link.stream(b"nor is this")
            sender.link.advance()
            connection.wait(lambda: delivery.settled, timeout=5)


@pytest.mark.parametrize("policy", [False, True])
@pytest.mark.parametrize("place", ["hostname", "container", "source", "target", "link"])
def test_it_survives_names_that_are_not_utf8(tmp_path: pathlib.Path, place: str, policy: bool) -> None:
    proton = engines.proton
    mark, closed = "ZZZZZZ", proton.Endpoint.REMOTE_CLOSED
    connection, transport = proton.Connection(), proton.Transport()
    connection.hostname = mark if place == "hostname" else "v"
    connection.container = mark if place == "container" else "c"
    transport.bind(connection)
    connection.open()
    session = connection.session()
    session.open()
    for link in (session.sender(mark if place == "link" else "s"), session.receiver("r")):
        link.source.address = mark if place == "source" else "a"
        link.target.address = mark if place == "target" else "a"
        link.open()
    group = {"users": "*", "remoteHosts": "*", "sources": "*", "targets": "*", "allowDynamicSource": True}
    group["allowAnonymousSender"] = True
    more: list[engines.Entity] = [("vhost", {"hostname": "$default", "groups": {"g": group}})]
    more += [("policy", {"enableVhostPolicy": policy}), ("log", {"module": "DEFAULT", "enable": "debug+"})]
    with engines.running(engines.DEVROUTER, tmp_path, more=more) as router:
        with socket.create_connection((router.host, router.port), timeout=5) as sock:
            sock.sendall(transport.peek(transport.pending()).replace(mark.encode(), b"\xff\xfe" * 3))
            sock.settimeout(0.5)
            try:
                while transport.capacity() > 0 and not connection.state & closed:
                    transport.push(sock.recv(4096))
            except (OSError, proton.TransportException):
                pass
            with engines.connected(router, virtual_host="v") as other:
                # While the first connection may still be there.
                management = engines.Management(other, router.engine)
                for entity in ("connection", "router.link", "router.address", "vhostStats"):
                    assert management.query(entity)
        assert "Traceback" not in router.log


def test_memory_does_not_grow_with_links_and_messages(tmp_path: pathlib.Path) -> None:
    with engines.running(engines.DEVROUTER, tmp_path) as router:
        sizes = []
        for _ in range(3):
            for _ in range(6):
                with engines.connected(router) as connection:
                    receiver = connection.create_receiver("a", credit=50)
                    sender = connection.create_sender("a")
                    for _ in range(40):
                        sender.link.send(engines.proton.Message(body=b"x" * 10_000)).settle()
                    for _ in range(40):
                        receiver.receive(timeout=5)
                    for index in range(10):
                        connection.create_sender("a", name=str(index)).close()
            assert router.process is not None
            status = pathlib.Path(f"/proc/{router.process.pid}/status").read_text()
            sizes.append(int(status.partition("VmRSS:")[2].split()[0]))
        # Kibibytes. The first round warms up; a leak of the messages alone would be 2400 a round.
        assert sizes[2] - sizes[1] < 1500, sizes
