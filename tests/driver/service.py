"""A service for the tests of releases and executors: RPC servers, a notification listener and their client.

It runs in the Python of an environment and prints what it saw as JSON::

    python service.py TASK EXECUTOR URL [URL OF A SILENT ROUTER]

With the executor ``eventlet`` whoever starts it has monkey-patched the process, as services that use eventlet do.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
import typing

import oslo_messaging
from oslo_config import cfg

TASK, EXECUTOR, URL = sys.argv[1:4]
# 14.0 has only the class, which later releases ask not to be called.
get_rpc_client = getattr(oslo_messaging, "get_rpc_client", oslo_messaging.RPCClient)
SECONDS = 15.0
TICK = 0.01


class Endpoint:
    """Remembers what came."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def echo(self, context: object, value: object) -> object:
        return value

    def slow(self, context: object, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def where(self, context: object) -> int:
        return os.getpid()

    def note(self, context: object, value: object) -> None:
        self.seen.append(value)

    def info(self, context: object, publisher: str, event: str, payload: object, metadata: object) -> None:
        self.seen.append(payload)


class Service:
    """Two RPC servers, a listener, and a client of both."""

    def __init__(self, stack: contextlib.ExitStack, url: str = URL, servers: int = 2) -> None:
        self._stack = stack
        rpc = self._transport(oslo_messaging.get_rpc_transport, url)
        notifications = self._transport(oslo_messaging.get_notification_transport, url)
        self.endpoints = [Endpoint() for _ in range(servers)]
        for number, endpoint in enumerate(self.endpoints):
            target = oslo_messaging.Target(topic="matrix", server=f"server-{number}")
            policy = oslo_messaging.DefaultRPCAccessPolicy
            own = self._transport(oslo_messaging.get_rpc_transport, url)
            self._start(oslo_messaging.get_rpc_server(own, target, [endpoint], EXECUTOR, access_policy=policy))
        self.listener = Endpoint()
        targets = [oslo_messaging.Target(topic="matrix")]
        if servers:
            self._start(
                oslo_messaging.get_notification_listener(notifications, targets, [self.listener], executor=EXECUTOR)
            )
        self.client = get_rpc_client(rpc, oslo_messaging.Target(topic="matrix"), timeout=SECONDS)
        self.notifier = oslo_messaging.Notifier(notifications, "test", driver="messagingv2", topics=["matrix"])

    def _transport(self, get: typing.Any, url: str) -> typing.Any:
        transport = get(cfg.CONF, url=url)
        self._stack.callback(transport.cleanup)
        return transport

    def _start(self, server: typing.Any) -> None:
        server.start()
        self._stack.callback(server.wait)
        self._stack.callback(server.stop)


def until(check: typing.Callable[[], bool]) -> bool:
    """Wait for something to become true; returns whether it did."""
    deadline = time.monotonic() + SECONDS
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(TICK)
    return True


def patterns() -> dict[str, object]:
    """Send one of each kind, and return what came."""
    with contextlib.ExitStack() as stack:
        before = _native_threads(stack)
        service = Service(stack)
        first, second = service.endpoints
        called = service.client.call({}, "echo", value="ü" * 10_000)
        service.client.cast({}, "note", value="cast")
        cast = until(lambda: first.seen + second.seen == ["cast"])
        service.client.prepare(fanout=True).cast({}, "note", value="fanout")
        fanout = until(lambda: first.seen[-1:] == second.seen[-1:] == ["fanout"])
        service.notifier.info({}, "event", {"number": 1})
        notification = until(lambda: service.listener.seen == [{"number": 1}])
        return {
            "call": called == "ü" * 10_000,
            "cast": cast,
            "fanout": fanout,
            "notification": notification,
            "threads": len([thread for thread in threading.enumerate() if thread.name == "amqp1"]),
            "native": len(os.listdir("/proc/self/task")) - before,
        }


def _native_threads(stack: contextlib.ExitStack) -> int:
    """Return how many threads the kernel sees once oslo.messaging has made its own: 14.x has one for metrics."""
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url="fake://")
    stack.callback(transport.cleanup)
    get_rpc_client(transport, oslo_messaging.Target(topic="matrix")).cast({}, "note", value=0)
    return len(os.listdir("/proc/self/task"))


def fork() -> dict[str, object]:
    """Fork with a connection up; parent and child both go on. With eventlet, so do copies of the green threads."""
    with contextlib.ExitStack() as stack:
        service = Service(stack)
        client = service.client.prepare(server="server-0")
        before = client.call({}, "where")
        engine = service.client.transport._driver._engine
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            _in_child(service.client, writing)
        os.close(writing)
        during = [client.call({}, "echo", value=number) for number in range(50)]
        told = _read(reading)  # what the child says at its end
        os.waitpid(child, 0)
        return {
            "parent": before == client.call({}, "where") == os.getpid() and during == list(range(50)),
            "same connection": service.client.transport._driver._engine is engine and not engine.trouble,
            "child": json.loads(told or b"{}"),
        }


def _read(pipe: int) -> bytes:
    """Return what comes out of a pipe, while the servers work.

    Reading must not block. With eventlet, both processes share an epoll set. There, the child's descriptor of the
    same number tells the parent that its pipe can be read.
    """
    os.set_blocking(pipe, False)
    told: list[bytes] = []

    def came() -> bool:
        with contextlib.suppress(BlockingIOError):
            told.append(os.read(pipe, 65536))
        return bool(told)

    until(came)
    return b"".join(told)


def _in_child(client: typing.Any, pipe: int) -> typing.NoReturn:
    """Call the parent's server, and serve a topic of the child's own; never returns."""
    try:
        calls = [client.prepare(server="server-0").call({}, "echo", value=number) for number in range(50)]
        target = oslo_messaging.Target(topic="child", server="child")
        policy = oslo_messaging.DefaultRPCAccessPolicy
        server = oslo_messaging.get_rpc_server(client.transport, target, [Endpoint()], EXECUTOR, access_policy=policy)
        server.start()
        served = client.prepare(topic="child", server="child").call({}, "where") == os.getpid()
        server.stop()
        server.wait()
        client.transport.cleanup()
        result: dict[str, object] = {"calls": calls == list(range(50)), "server": served}
    except Exception as error:
        result = {"error": repr(error)}
    os.write(pipe, json.dumps(result).encode())
    os._exit(0)


def workers() -> dict[str, object]:
    """Let oslo.service start two workers after the parent has connected; all of them use one transport object."""
    from oslo_service import service as oslo_service

    with contextlib.ExitStack() as stack:
        service = Service(stack, servers=0)
        transport = service.client.transport
        service.client.cast({}, "note", value="connect")  # nobody listens yet

        class Worker(oslo_service.Service):  # type: ignore[misc]
            server: typing.Any = None  # none in the parent, which oslo.service stops as well

            def start(self) -> None:
                super().start()
                target = oslo_messaging.Target(topic="matrix", server=f"worker-{os.getpid()}")
                policy = oslo_messaging.DefaultRPCAccessPolicy
                self.server = oslo_messaging.get_rpc_server(
                    transport, target, [Endpoint()], EXECUTOR, access_policy=policy
                )
                self.server.start()

            def stop(self, graceful: bool = False) -> None:
                if self.server is not None:
                    self.server.stop()
                    self.server.wait()
                super().stop(graceful)

        launcher = oslo_service.launch(cfg.CONF, Worker(), workers=2)
        seen: set[int] = set()

        def call() -> bool:
            seen.add(service.client.call({}, "where"))
            return len(seen) == 2

        def client() -> None:
            until(call)
            launcher.stop()

        caller = threading.Thread(target=client)
        caller.start()
        launcher.wait()
        caller.join()
        return {"workers": len(seen - {os.getpid()}), "connected": not transport._driver._engine.trouble}


def hub() -> dict[str, object]:
    """Return the longest time for which other green threads could not run, by what was done meanwhile; seconds."""
    with contextlib.ExitStack() as stack:
        service = Service(stack)
        nobody = service.client.prepare(topic="nobody", timeout=1)
        call, cast = service.client.call, nobody.cast
        frozen = Service(stack, sys.argv[4], servers=0).client.prepare(timeout=1)

        def to_nobody() -> None:
            with contextlib.suppress(oslo_messaging.MessagingTimeout):
                nobody.call({}, "echo", value=1)

        def to_a_silent_router() -> None:
            with contextlib.suppress(oslo_messaging.MessagingTimeout):
                frozen.call({}, "echo", value=1)

        call({}, "echo", value=1)
        return {
            "a slow call": _longest_gap(lambda: call({}, "slow", seconds=1)),
            "calls": _longest_gap(lambda: [call({}, "echo", value=number) for number in range(100)]),
            "casts to nobody": _longest_gap(lambda: [cast({}, "note", value=number) for number in range(10)]),
            "a call to nobody": _longest_gap(to_nobody),
            "a silent router": _longest_gap(to_a_silent_router),
        }


def _longest_gap(action: typing.Callable[[], object]) -> float:
    """Return the longest time between two ticks of a green thread while an action runs."""
    gaps = [0.0]
    running = True

    def tick() -> None:
        last = time.monotonic()
        while running:
            time.sleep(TICK)
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    ticker = threading.Thread(target=tick)
    ticker.start()
    action()
    running = False
    ticker.join()
    return max(gaps)


TASKS = {"patterns": patterns, "fork": fork, "workers": workers, "hub": hub}

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    cfg.CONF([], project="service")
    print(json.dumps(TASKS[TASK]()), flush=True)
    os._exit(0)  # oslo.messaging 14.9 has a thread for metrics, which would take ten seconds to end
