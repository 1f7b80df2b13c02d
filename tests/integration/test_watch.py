"""The watch kills a router that hangs, and does nothing in any other case."""

from __future__ import annotations

import collections.abc
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import typing

import pytest
from om_agent import watch

from tests.support import engines, waiting

# The times of a test's patience; where nothing may happen a silence of a second is no proof, so it is PATIENT there.
QUICK = watch.Pace(
    pause=0.1, pause_without_health=0.1, trust=0.3, seconds=0.5, times=3, slack=0.5, grace=0.5, kills=2, per=3600.0
)
PATIENT = QUICK._replace(seconds=5.0, grace=0.0)
# Stands for systemd: notes what it was asked for, and kills the router.
SYSTEMCTL = '#!/bin/sh\necho "$@" >>{calls}\nkill -KILL $(cat {pid})\n'
KILL = "kill --signal=KILL --kill-who=main a-router"


@pytest.fixture(params=engines.ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    engines.command(request.param)
    return typing.cast("str", request.param)


class Watched:
    """A watch that runs, and what it did."""

    def __init__(self, directory: pathlib.Path, pace: watch.Pace, config: pathlib.Path | None = None) -> None:
        self.directory = directory
        self.pace = pace
        self.config = config or directory / "router.json"
        (directory / "bin").mkdir(exist_ok=True)
        tool = directory / "bin/systemctl"
        tool.write_text(SYSTEMCTL.format(calls=directory / "calls", pid=directory / "pid"))
        tool.chmod(0o755)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Watched:
        order = ("a-router", str(self.config), str(self.directory / "notes"))
        code = f"from om_agent import watch; watch.run(*{order!r}, watch.{self.pace!r})"
        environment = {
            "PATH": f"{self.directory}/bin:{os.environ['PATH']}",
            "PYTHONPATH": str(engines.REPOSITORY / "agent"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with open(self.directory / "watch.log", "ab") as log:
            self.process = subprocess.Popen([sys.executable, "-c", code], stderr=log, env=environment)
        return self

    def __exit__(self, *exception: object) -> None:
        assert self.process
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            assert self.process.wait(10) == 0, self.said
        finally:
            self.process.kill()
            self.process.wait(10)
        assert "Traceback" not in self.said

    @property
    def said(self) -> str:
        return (self.directory / "watch.log").read_text()

    @property
    def calls(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / "calls").read_text().splitlines()
        return []

    def is_killed(self, router: engines.Router, times: int) -> None:
        """Wait until the router has been killed ``times`` times."""
        assert router.process
        waiting.until(lambda: len(self.calls) == times, 20, lambda: self.said)
        assert router.process.wait(10) == -signal.SIGKILL
        assert self.calls == [KILL] * times


def stop(router: engines.Router) -> None:
    """Make the router hang, so that it cannot end by itself."""
    assert router.process
    (router.directory / "pid").write_text(str(router.process.pid))
    router.stopped = True
    router.process.send_signal(signal.SIGSTOP)


@contextlib.contextmanager
def running(engine: str, directory: pathlib.Path, **options: typing.Any) -> collections.abc.Iterator[engines.Router]:
    """Run a router like the tests of the development router do; end it even if it hangs."""
    with engines.running(engine, directory, **options) as router:
        try:
            yield router
        finally:
            if router.stopped and router.process:
                router.process.kill()
                router.process.wait(10)


def secure(directory: pathlib.Path) -> dict[str, typing.Any]:
    """Return settings that make the clients' listener use TLS."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    files = {"certFile": f"{directory}/cert", "privateKeyFile": f"{directory}/key", "caCertFile": f"{directory}/cert"}
    # For another name: that is the clients' trouble, and no hang.
    made = ["-keyout", files["privateKeyFile"], "-out", files["certFile"], "-days", "2", "-subj", "/CN=elsewhere"]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made], check=True, capture_output=True)
    profile = ("sslProfile", {"name": "tls", **files})
    return {"listener": {"sslProfile": "tls", "requireSsl": True}, "more": [profile]}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls, healthz"])
def test_a_router_that_hangs_is_killed(engine: str, tmp_path: pathlib.Path, tls: bool) -> None:
    options = secure(tmp_path) if tls else {}
    with running(engine, tmp_path, http=tls, **options) as router, Watched(tmp_path, QUICK) as watched:
        time.sleep(2)
        assert watched.calls == []
        stop(router)
        watched.is_killed(router, 1)
        where = f"on 3 connections in a row to {router.url} it sent nothing for 0.5 s"
        assert f"om-agent: a-router: the router hangs: {where}." in watched.said
        router.start()  # systemd's part
        time.sleep(2)
        assert watched.calls == [KILL]
        stop(router)
        watched.is_killed(router, 2)
        router.start()
        stop(router)
        waiting.until(lambda: "is not killed again for now" in watched.said, 20)
        time.sleep(3)
        assert len(watched.calls) == 2
        assert watched.said.count("is not killed again for now") == 1


def test_kills_are_known_to_the_next_watch(tmp_path: pathlib.Path) -> None:
    """systemd restarts it with the router."""
    with running(engines.DEVROUTER, tmp_path) as router:
        with Watched(tmp_path, QUICK._replace(kills=1)) as watched:
            stop(router)
            watched.is_killed(router, 1)
        router.start()
        stop(router)
        with Watched(tmp_path, QUICK._replace(kills=1)) as watched:
            waiting.until(lambda: "1 kills within an hour" in watched.said, 20)
            assert watched.calls == [KILL]


def test_a_router_that_is_left_alone(engine: str, tmp_path: pathlib.Path) -> None:
    """The watch leaves a router alone that never started, works, restarts, drains, stops, or loses its file."""
    with Watched(tmp_path, PATIENT) as watched:
        time.sleep(0.5)  # no file
        with running(engine, tmp_path, http=True) as router:
            (tmp_path / "pid").write_text(str(router.process.pid if router.process else 0))
            time.sleep(1)
            for _ in range(3):
                router.stop()
                time.sleep(0.3)
                router.start()
            time.sleep(0.5)
            file = (tmp_path / "router.json").read_text()
            for port in (router.port, router.http_port):  # nobody listens where its file says
                file = file.replace(f'"port": {port}', f'"port": {engines.free_port(router.host)}')
            (tmp_path / "router.json").write_text(file)
            time.sleep(1)
            router.stop()
        time.sleep(0.5)
        (tmp_path / "router.json").unlink()
        time.sleep(0.5)
        assert (watched.calls, watched.said) == ([], "")


def test_a_pause_of_the_machine_is_no_hang(tmp_path: pathlib.Path) -> None:
    """Stop the watch and the router together for a while. Here a single silence would be enough for a kill."""
    pace = QUICK._replace(times=1, pause=1.0, pause_without_health=1.0, seconds=2.0, grace=0.0)
    with running(engines.DEVROUTER, tmp_path) as router, Watched(tmp_path, pace) as watched:
        assert router.process and watched.process
        for before in (0.0, 1.5):  # while it sleeps, while it waits for an answer
            time.sleep(2)
            router.process.send_signal(signal.SIGSTOP)
            time.sleep(before)
            watched.process.send_signal(signal.SIGSTOP)
            time.sleep(4)
            watched.process.send_signal(signal.SIGCONT)
            time.sleep(0.1)
            router.process.send_signal(signal.SIGCONT)
        time.sleep(2)
        assert (watched.calls, watched.said) == ([], "")


def test_a_kill_that_fails_is_told(tmp_path: pathlib.Path) -> None:
    watched = Watched(tmp_path, QUICK)
    (tmp_path / "bin/systemctl").write_text("#!/bin/sh\necho Unit a-router.service not loaded. >&2\nexit 1\n")
    with running(engines.DEVROUTER, tmp_path) as router, watched:
        stop(router)
        waiting.until(lambda: "cannot be killed: Unit a-router.service not loaded. Run" in watched.said, 20)


def test_the_command_costs_little(tmp_path: pathlib.Path) -> None:
    """The command replaces itself with a smaller program in the same process."""
    with running(engines.DEVROUTER, tmp_path, http=True) as router:
        config = tmp_path / "root/etc/om-devrouter/om-devrouter.json"
        config.parent.mkdir(parents=True)
        shutil.copy(router.directory / "router.json", config)
        command = [sys.executable, "-m", "om_agent", "watch", "om-devrouter", "--root", str(tmp_path / "root")]
        environment = dict(os.environ, PYTHONPATH=str(engines.REPOSITORY / "agent"), PYTHONDONTWRITEBYTECODE="1")
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        try:
            about = pathlib.Path(f"/proc/{process.pid}")
            waiting.until(lambda: b"watch.run(" in (about / "cmdline").read_bytes(), 20)
            time.sleep(1)
            status = (about / "status").read_text().split()
            assert int(status[status.index("VmRSS:") + 1]) < 20_000  # kB; 15 MB on Debian 12
        finally:
            process.terminate()
            _, said = process.communicate(timeout=10)
        assert (process.returncode, said) == (0, b"")
