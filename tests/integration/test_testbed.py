"""The demo does what it shows, explains why it cannot run, and always ends all its processes."""

from __future__ import annotations

import collections.abc
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip("oslo_messaging")
pytest.importorskip("proton")

from om_agent import model

from testbed import overcloud, routers
from tests.support import waiting

needs_programs = pytest.mark.skipif(
    not (overcloud.find_program("rabbitmq-server") and overcloud.find_program("puppet")),
    reason="rabbitmq-server or puppet is not installed; tools/bootstrap installs them",
)
QDROUTERD = routers.find(model.Engine.QDROUTERD)
ROW = re.compile(
    r"^ +(RPC call|RPC cast|RPC fanout|notification) +(\w+) +(\d+) +(\d+) +([\d.]+) +([\d.]+)$", re.MULTILINE
)
SENT = {"RPC call": (300, 300), "RPC cast": (300, 300), "RPC fanout": (100, 200), "notification": (200, 200)}
MARK = "OM_TEST_OF_TESTBED"


class Demo:
    """One run of the demo; its processes have a mark in their environment."""

    def __init__(self, directory: pathlib.Path, mark: str, *arguments: str | pathlib.Path, **environment: str) -> None:
        self.mark = mark
        self._out, self._err = directory / "demo.out", directory / "demo.err"
        env = {**os.environ, **overcloud.python_environment(), MARK: mark, "TMPDIR": str(directory), **environment}
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "testbed.demo", *map(str, arguments)],
                cwd=overcloud.TREE,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def finish(self, seconds: float) -> tuple[int, str, str]:
        """Return exit code, output and what it said of errors, as one line; check what is always to be so."""
        code = self.process.wait(seconds)
        out, err = self._out.read_text(), self._err.read_text()
        for text in (out, err):
            assert "Traceback" not in text
            assert "change me" not in text and "change%20me" not in text
            assert not [line for line in text.splitlines() if len(line) > 100]
        assert left(self.mark) == []
        return code, out, " ".join(err.split())

    def wait_for(self, text: str, seconds: float) -> None:
        """Wait until the demo has printed ``text``."""

        def printed() -> bool:
            assert self.process.poll() is None, self._err.read_text()
            return text in self._out.read_text()

        waiting.until(printed, seconds, self._out.read_text)


def left(mark: str) -> list[str]:
    """Return the command lines of running processes with ``mark``."""
    found = []
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in (directory / "environ").read_bytes().split(b"\0"):
                found.append((directory / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.fixture
def demo(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> collections.abc.Iterator[collections.abc.Callable[..., Demo]]:
    """Start the demo as a test asks, and end it if the test did not."""
    started: list[Demo] = []

    def start(*arguments: str | pathlib.Path, **environment: str) -> Demo:
        directory = tmp_path_factory.mktemp("demo")
        made = Demo(directory, f"{os.getpid()}-{request.node.name}-{len(started)}", *arguments, **environment)
        started.append(made)
        return made

    yield start
    for made in started:
        if made.process.poll() is None:
            made.process.terminate()
            made.process.wait(60)


Start = collections.abc.Callable[..., Demo]


def check_success(code: int, out: str, err: str) -> None:
    assert code == 0, out + err
    assert err == ""
    assert [line.split("]")[0] for line in out.splitlines() if line.startswith("[")] == [f"[{i}/7" for i in range(1, 8)]
    rows = {row[0]: row[1:] for row in ROW.findall(out)}
    assert {what: (int(row[1]), int(row[2])) for what, row in rows.items()} == SENT
    assert {what: row[0] for what, row in rows.items()} == {
        what: "RabbitMQ" if what == "notification" else "router" for what in SENT
    }
    assert all(0 < float(row[3]) <= float(row[4]) for row in rows.values())
    again = re.search(r"(\d+) fanouts arrived again", out)
    given_out = 800 + (int(again[1]) if again else 0)
    assert re.search(rf"^ +router +openstack.org/om/rpc/\.\.\. +700 +{given_out}$", out, re.MULTILINE)
    assert re.search(r"^ +router +openstack.org/om/notify/\.\.\. +0 +0$", out, re.MULTILINE)
    assert re.search(r"^ +RabbitMQ +published, acknowledged +200 +200$", out, re.MULTILINE)
    calls = re.search(r"calls: (\d+) ok, (\d+) failed", out)
    assert calls and int(calls[1]) > 100 and int(calls[2]) <= 10
    assert out.splitlines()[-1].endswith("Nothing is left running.")


@pytest.mark.slow
@needs_programs
def test_with_the_development_router(demo: Start, tmp_path: pathlib.Path) -> None:
    """The demo keeps logs and root directories, and none of them has the old URL."""
    check_success(*demo("--engine", "embedded", "--keep", tmp_path / "kept").finish(240))
    files = sorted((tmp_path / "kept/nodes").glob("*/etc/*/*.conf"))
    services = [f for f in files if f.stem in overcloud.SERVICES]
    assert len(services) == 5 * len(overcloud.SERVICES)
    assert not [f for f in services if "guest" in f.read_text()]


@pytest.mark.slow
@pytest.mark.router
@needs_programs
@pytest.mark.skipif(not QDROUTERD, reason="no qdrouterd on PATH, and OM_QDROUTERD names none")
def test_with_qdrouterd(demo: Start) -> None:
    code, out, err = demo("--engine", "qdrouterd").finish(240)
    check_success(code, out, err)
    assert "each reaches every other" in " ".join(out.split())


@pytest.mark.slow
@needs_programs
@pytest.mark.parametrize(
    ("step", "number"), [("[2/7]", signal.SIGTERM), ("[4/7]", signal.SIGINT), ("[5/7]", signal.SIGTERM)]
)
def test_a_signal_leaves_nothing(demo: Start, step: str, number: signal.Signals) -> None:
    run = demo("--engine", "embedded")
    run.wait_for(step, 150)
    time.sleep(1)
    run.process.send_signal(number)
    code, _, err = run.finish(40)
    assert code == 128 + number
    assert err == f"demo: ended by {number.name}; everything that it had started is ended too."
    for address in ("127.0.21.10", 5672), ("127.0.21.10", 31459):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=1)


HALF_MADE = """
import os, signal, sys
{before}

class Half:
    def __init__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        self.domain = object()

    def __del__(self):
        self.domain

def run(args=None):
    Half()

try:
    {run}
except errors.Stopped as e:
    sys.exit(e.exit_code)
"""


@pytest.mark.parametrize(
    ("before", "run", "expected"),
    [
        ("from testbed import errors, processes; processes.stop_on_signals()", "run()", (143, "")),
        (
            "from om_agent import cli; from om_agent.cli import change; from testbed import errors",
            "change._validate = run; sys.exit(cli.main(['validate', os.devnull]))",
            (1, "om-agent: interrupted; it had changed nothing.\n"),
        ),
    ],
    ids=["demo", "om-agent"],
)
def test_a_signal_while_an_object_is_made(before: str, run: str, expected: tuple[int, str]) -> None:
    """Python would print a traceback of the object's `__del__` (proton's SSLDomain, when TLS is set up)."""
    done = subprocess.run(
        [sys.executable, "-c", HALF_MADE.format(before=before, run=run)],
        cwd=overcloud.TREE,
        env={**os.environ, **overcloud.python_environment()},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == expected


@pytest.mark.slow
@needs_programs
def test_nothing_survives_a_kill(demo: Start) -> None:
    """After SIGKILL nothing can clean up, but no child process remains."""
    run = demo("--engine", "embedded")
    run.wait_for("[4/7]", 150)
    run.process.kill()
    run.process.wait(10)
    deadline = time.monotonic() + 10
    while left(run.mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left(run.mark) == []


@needs_programs
def test_port_in_use(demo: Start) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.21.11", 5672))
        taken.listen()
        code, _, err = demo("--engine", "embedded").finish(30)
    assert code == 1
    assert err.startswith("demo: 127.0.21.11:5672, wanted for notify.port of overcloud-controller-1, cannot be had")


def link(directory: pathlib.Path, *programs: str) -> str:
    """Return a PATH of nothing but these programs."""
    directory.mkdir()
    for program in programs:
        found = overcloud.find_program(program)
        assert found
        (directory / program).symlink_to(found)
    return str(directory)


def test_no_rabbitmq(demo: Start, tmp_path: pathlib.Path) -> None:
    code, _, err = demo(PATH=link(tmp_path / "bin")).finish(30)
    assert (code, err) == (1, "demo: rabbitmq-server is not on PATH: install the package rabbitmq-server.")


@needs_programs
@pytest.mark.skipif(os.path.exists("/opt/puppetlabs/bin/puppet"), reason="puppet is where it is always found")
def test_no_puppet(demo: Start, tmp_path: pathlib.Path) -> None:
    code, _, err = demo(PATH=link(tmp_path / "bin", "rabbitmq-server", "erl")).finish(30)
    assert code == 1
    assert err.startswith("demo: puppet is not on PATH: ")


@needs_programs
def test_apply_fails(demo: Start, tmp_path: pathlib.Path) -> None:
    """The demo shows om-agent's error."""
    directory = link(tmp_path / "bin")
    fake = pathlib.Path(directory) / "puppet"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    code, _, err = demo("--engine", "embedded", PATH=directory + os.pathsep + os.environ["PATH"]).finish(60)
    assert code == 1
    assert re.match(r"demo: om-agent apply failed on overcloud-[\w-]+ with 1\. \| ", err)
    assert "puppet" in err.partition(" | ")[2]


def test_oslo_messaging_without_the_driver(demo: Start, tmp_path: pathlib.Path) -> None:
    about = tmp_path / "oslo_messaging-15.0.0.dist-info/METADATA"
    about.parent.mkdir()
    about.write_text("Metadata-Version: 2.1\nName: oslo.messaging\nVersion: 15.0.0\n")
    code, _, err = demo(
        PYTHONPATH=os.pathsep.join([str(tmp_path), overcloud.python_environment()["PYTHONPATH"]])
    ).finish(30)
    assert code == 1
    assert err.startswith("demo: oslo.messaging 15.0.0 has no AMQP 1.0 driver")


@needs_programs
def test_a_router_that_is_none(demo: Start, tmp_path: pathlib.Path) -> None:
    """Lines break only between words, so that a path can be copied."""
    path = tmp_path / "no-router"
    code, _, err = demo(OM_QDROUTERD=str(path)).finish(30)
    assert (code, err) == (1, f"demo: OM_QDROUTERD names {path}, which is not a program.")


@needs_programs
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"notify": {"scheme": "amqp", "port": 31459}}, "The demo needs rpc.scheme amqp and notify.scheme rabbit"),
        ({"rpc": {"scheme": "pigeon"}}, "om-agent validate refused the metadata"),
    ],
)
def test_other_metadata(
    demo: Start, tmp_path: pathlib.Path, change: dict[str, dict[str, object]], expected: str
) -> None:
    data = json.loads((overcloud.TREE / "examples/overcloud.json").read_text())
    for half, values in change.items():
        data["oslo_messaging"][half].update(values)
    file = tmp_path / "metadata.json"
    file.write_text(json.dumps(data))
    code, _, err = demo("--metadata", file).finish(30)
    assert code == 1
    assert err.startswith(f"demo: {expected}")


def test_a_directory_that_is_not_empty(demo: Start, tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine").touch()
    code, _, err = demo("--keep", tmp_path).finish(30)
    assert (code, err) == (1, f"demo: --keep {tmp_path}: the directory is not empty.")
