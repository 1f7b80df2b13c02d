"""The whole loop on loopback: a Heat that makes stacks, and a node that polls it, configures itself and answers.

Everything on the node is what is on a real one: os-collect-config, os-refresh-config, the element's scripts, om-agent,
puppet, and behind them a router and a broker. What is not there is systemd; this module starts the backends in its
place, when the node's own script asks for it in the middle of post-configure.d.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import sys
import time
import typing

from heatclient import client
from heatclient.common import template_utils
from om_agent import model

from testbed import errors, overcloud, processes, rabbitmq, sockets
from tests.support import helpers

PYTHON = helpers.ROOT / ".venv-heat/bin/python"
TEMPLATE = helpers.ROOT / "heat/examples/deployed-servers.yaml"
ELEMENT = helpers.ROOT / "elements/om-agent"
ENGINE_SECONDS = 180.0
ROUTER_SECONDS = 60.0
STACK_SECONDS = 300.0  # a quiet machine takes a tenth
PORTS = {  # that the node's router and broker take, on its own address
    model.AMQP_PORT: "RPC", model.ROUTER_HTTP_PORT: "the router's HTTP", model.RABBIT_PORT: "notifications",
    model.RABBIT_DIST_PORT: "Erlang", model.RABBIT_METRICS_PORT: "RabbitMQ's metrics",
}  # fmt: skip
ROUTER_CONFIG = "etc/om-devrouter/om-devrouter.json"

Stack = typing.Any  # what heatclient gives


class Heat:
    """Heat's API and engine, and a client of theirs."""

    def __init__(self, supervisor: processes.Supervisor, directory: pathlib.Path) -> None:
        directory.mkdir()
        self.log = directory / "heat.log"
        program = pathlib.Path(__file__).with_name("loop_engine.py")
        process = supervisor.start("heat", [str(PYTHON), str(program), str(directory)], piped=True)
        assert process.popen.stdout
        with contextlib.ExitStack() as stack:  # its standard error is the log; nothing ends a readline() that hangs
            timer = stack.enter_context(_ended_after(supervisor, process, ENGINE_SECONDS))
            line = process.popen.stdout.readline()
            timer()
        assert line, f"Heat did not start:\n{self.tail()}\n{process.tail()}"
        ready = json.loads(line)
        self.keystone: str = ready["keystone"]
        print(f"Heat is ready after {ready['seconds']} s")
        # noauth takes whoever it is told; heatclient tells it beside a token only when asked.
        self.api = client.Client("1", ready["heat"], token="token", username="admin", password="x", include_pass=True)

    def tail(self) -> str:
        """Return the end of Heat's log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-30:])

    def create(self, name: str, parameters: dict[str, object]) -> None:
        """Begin to create a stack of the example."""
        self.api.stacks.create(stack_name=name, parameters=parameters, **self._template())

    def update(self, name: str, parameters: dict[str, object]) -> None:
        """Begin to update it."""
        self.api.stacks.update(name, parameters=parameters, **self._template())

    def stack(self, name: str) -> Stack:
        """Return the stack as it is."""
        return self.api.stacks.get(name)

    def outputs(self, name: str) -> dict[str, typing.Any]:
        """Return the stack's outputs by name."""
        return {o["output_key"]: o.get("output_value") for o in self.stack(name).outputs}

    def credentials(self, name: str, server: str) -> dict[str, str]:
        """Return what a server's os-collect-config needs, as soon as the stack knows it."""
        found: dict[str, str] = {}

        def given() -> bool:
            listed = self.outputs(name).get("os_collect_config") or []
            for one in listed:  # each is null for as long as Heat is not done with that server
                if one and one["name"] == server:
                    found.update((one["os_collect_config"] or {}).get("heat", {}))
            return bool(found)

        processes.wait_until("the stack has its server", given, STACK_SECONDS, interval=0.2)
        return found

    @staticmethod
    def _template() -> dict[str, typing.Any]:
        files, template = template_utils.get_template_contents(str(TEMPLATE))
        return {"template": template, "files": files}


@contextlib.contextmanager
def _ended_after(
    supervisor: processes.Supervisor, process: processes.Process, seconds: float
) -> typing.Iterator[typing.Callable[[], None]]:
    """Kill a process after a timeout, unless the test calls the yielded function before."""
    import threading

    timer = threading.Timer(seconds, process.popen.kill)
    timer.start()
    try:
        yield timer.cancel
    finally:
        timer.cancel()


class Node:
    """A controller below a directory.

    :param may_start: what its service manager does not refuse to start.
    """

    def __init__(self, supervisor: processes.Supervisor, base: pathlib.Path, name: str, address: str) -> None:
        self.base, self.name, self.address = base, name, address
        self.root = base / "root"
        self.may_start = {"router", "broker"}
        self._supervisor = supervisor
        self._collector: processes.Process | None = None
        # Its configuration, the process, and how to end it.
        self._running: dict[str, tuple[bytes, processes.Process, typing.Callable[[], None]]] = {}
        for directory in ("root/etc/nova", "root/var/lib/os-collect-config", "bin"):
            (base / directory).mkdir(parents=True)
        self.conf.write_text("[DEFAULT]\ndebug = true\n")
        for phase in ("configure.d", "post-configure.d"):
            shutil.copytree(ELEMENT / "os-refresh-config" / phase, base / "orc" / phase)
        log = f'echo "{{}}" >>"{base}/calls"'
        self._script(base / "bin/om-agent", f'{log.format("$*")}\nexec "{sys.executable}" -m om_agent "$@"')
        ask = f'touch "{base}/ask"\nwhile [ -e "{base}/ask" ]; do sleep 0.05; done'
        self._script(base / "orc/post-configure.d/70-start-backends", f"{log.format('start')}\n{ask}")

    @property
    def conf(self) -> pathlib.Path:
        """The file of its only service."""
        return self.root / "etc/nova/nova.conf"

    @staticmethod
    def _script(path: pathlib.Path, text: str) -> None:
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def environment(self) -> dict[str, str]:
        """The environment of everything that runs on the node."""
        path = [str(self.base / "bin"), str(pathlib.Path(sys.executable).parent), "/usr/sbin:/usr/bin:/sbin:/bin"]
        return {
            **overcloud.python_environment(),
            "PATH": ":".join(path),
            "PYTHONWARNINGS": "ignore",
            "LC_ALL": "C",
            "HOME": str(self.base),
            "OS_REFRESH_CONFIG_BASE_DIR": str(self.base / "orc"),
            "OM_AGENT_ARGS": f"--root {self.root} --node {self.name} --relocate --no-services",
            **rabbitmq.erlang_environment(25672),
        }

    def connect(self, credentials: dict[str, str]) -> None:
        """Begin to poll Heat every second with the credentials of a server."""
        self.disconnect()
        escaped = {key: str(value).replace("$", "$$") for key, value in credentials.items() if value}
        lines = [
            "[DEFAULT]",
            f"command = os-refresh-config --lockfile {self.base}/orc.lock --timeout {STACK_SECONDS:.0f}",
            "collectors = heat",
            f"cachedir = {self.root}/var/lib/os-collect-config",
            f"backup_cachedir = {self.base}/backup",
            "[heat]",
            *(f"{key} = {value}" for key, value in escaped.items()),
        ]
        config = self.base / "os-collect-config.conf"
        config.touch(0o600)
        config.write_text("\n".join(lines) + "\n")
        argv = ["os-collect-config", "--config-file", str(config), "--polling-interval", "1"]
        program = str(pathlib.Path(sys.executable).parent / argv[0])
        self._collector = self._supervisor.start("node", [program, *argv[1:]], self.environment())

    def disconnect(self) -> None:
        """Stop polling Heat."""
        if self._collector:
            self._supervisor.end(self._collector)
            self._collector = None

    def calls(self) -> list[str]:
        """Return the agent's commands and the starts of backends so far, and clear the record."""
        path = self.base / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line.partition(" --root")[0] for line in lines]

    def wait(self, what: str, check: typing.Callable[[], bool], seconds: float = STACK_SECONDS) -> None:
        """Wait until something is so, and start the node's backends whenever it asks for that.

        :raises AssertionError: with what everybody on the node said, when it does not come to be or a backend ended.
        """

        def step() -> bool:
            if (self.base / "ask").exists():
                self._start_backends()
                (self.base / "ask").unlink()
            for name, (_, process, _) in self._running.items():
                if process.poll() is not None:
                    raise errors.TestbedError(f"The {name} ended with {process.poll()} before {what}.")
            return check()

        start = time.monotonic()
        try:
            processes.wait_until(what, step, seconds, [self._collector] if self._collector else [], interval=0.1)
        except errors.TestbedError as e:
            raise AssertionError(f"{e}\n{self.said()}") from None
        print(f"{what}: after {time.monotonic() - start:.1f} s")

    def said(self) -> str:
        """Return the end of the log of the agent, and of each backend that was started."""
        logs = (*self._supervisor.logs.glob("router.log"), *self._supervisor.logs.glob("rabbitmq-*.log"))
        ends = [(path, 3000) for path in logs] + [(self._supervisor.logs / "node.log", 8000)]
        texts = [(path.name, path.read_text(errors="replace")[-n:]) for path, n in ends if path.exists()]
        return "\n".join(f"---- the end of {name} ----\n{text}" for name, text in texts)

    # -- in the place of systemd -------------------------------------------------------------------------------------

    def _start_backends(self) -> None:
        """Start backends that have a configuration, restart those whose file changed, and end those without one."""
        for name, path, start in (
            ("router", ROUTER_CONFIG, self._start_router),
            ("broker", "etc/rabbitmq/definitions.json", self._start_broker),
        ):
            file = self.root / path
            config = file.read_bytes() if file.exists() else b""
            if name not in self.may_start:
                config = b""
            if config == (self._running[name][0] if name in self._running else b""):
                continue
            self._end(name)
            if config:
                self._running[name] = (config, *start())

    def _start_router(self) -> tuple[processes.Process, typing.Callable[[], None]]:
        argv = [sys.executable, "-m", "om_devrouter", "-c", str(self.root / ROUTER_CONFIG)]
        process = self._supervisor.start("router", argv, overcloud.python_environment())
        address = (self.address, model.AMQP_PORT)
        processes.wait_until("the router listens", lambda: sockets.is_open(address), ROUTER_SECONDS, [process])
        return process, lambda: self._supervisor.end(process)

    def _start_broker(self) -> tuple[processes.Process, typing.Callable[[], None]]:
        deployment = overcloud.load([self.root / "var/lib/os-collect-config/heat.json"])
        host = overcloud.Host(deployment.nodes[0], self.root, ())
        cluster = rabbitmq.Cluster(self._supervisor, overcloud.Overcloud(deployment, (host,)))
        cluster.start()
        cluster.wait()
        (process,) = cluster.processes
        return process, cluster.end

    def _end(self, name: str) -> None:
        if name in self._running:
            _, _, end = self._running.pop(name)
            end()

    def end_backends(self) -> None:
        """End what was started."""
        for name in tuple(self._running):
            self._end(name)


@dataclasses.dataclass(frozen=True)
class Loop:
    """Heat and one node."""

    heat: Heat
    node: Node

    def wait(self, stack: str, status: str) -> Stack:
        """Wait until a stack has this status, and return it. If it gets another one, the error has all logs."""
        seen: list[Stack] = []

        def settled() -> bool:
            seen[:] = [self.heat.stack(stack)]
            return not seen[0].stack_status.endswith("IN_PROGRESS")

        self.node.wait(f"stack {stack} is {status}", settled)
        found = seen[0]
        text = f"{found.stack_status}: {found.stack_status_reason}\n{self.node.said()}\n{self.heat.tail()}"
        assert found.stack_status == status, text
        return found


def free_address() -> str:
    """Return an address of this machine that has every one of `PORTS` free.

    :raises testbed.errors.TestbedError: when there is none: whoever listens on all addresses has one of the ports.
    """
    last: errors.TestbedError | None = None
    for i in range(64):  # from another one on for each process, should several look at the same time
        address = f"127.66.{(os.getpid() + i) % 256}.10"
        try:
            sockets.check_free({(address, port): what for port, what in PORTS.items()})
        except errors.TestbedError as e:
            last = e
        else:
            return address
    assert last
    raise last


@contextlib.contextmanager
def loop(directory: pathlib.Path, name: str) -> typing.Iterator[Loop]:
    """Start Heat and prepare a node. When the ``with`` ends, end every started process."""
    address = free_address()
    with processes.Supervisor(directory / "logs") as supervisor:
        node = Node(supervisor, directory / "node", name, address)
        made = Loop(Heat(supervisor, directory / "heat"), node)
        try:
            yield made
        finally:
            node.disconnect()
            node.end_backends()
