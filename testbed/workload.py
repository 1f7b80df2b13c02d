"""A service that only uses oslo.messaging, in a process of its own: ``python -m testbed.workload``.

Like a real service, it reads only the service's configuration file. It gets commands as JSON lines on standard input
and writes reports as JSON lines to standard output. It ends with its input or on SIGTERM. Every command has a maximum
count and time. `testbed.workers` is the parent's side.

Times are from the monotonic clock, which all processes of a Linux machine share.
"""

from __future__ import annotations

import argparse
import collections.abc
import concurrent.futures
import contextlib
import itertools
import json
import os
import signal
import sys
import threading
import time
import typing

import oslo_messaging
from oslo_config import cfg

_END_SECONDS = 5.0  # for the drivers to close their connections, before this process goes without
_CONTEXT: dict[str, str] = {}
_enough = threading.Event()  # SIGUSR1: the command that runs is to end early


class Received:
    """The messages that arrived, by kind: the seconds since they were sent, and how many arrived more than once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, dict[str, float]] = {}
        self._again: dict[str, int] = {}

    def note(self, kind: str, ident: str, sent: float) -> None:
        """Note one message."""
        now = time.monotonic()
        with self._lock:
            seen = self._seen.setdefault(kind, {})
            self._again[kind] = self._again.get(kind, 0) + (ident in seen)
            seen.setdefault(ident, now - sent)

    def report(self) -> dict[str, typing.Any]:
        """Return all of it."""
        with self._lock:
            seen = {kind: list(seconds.items()) for kind, seconds in self._seen.items()}
            return {"again": self._again, "seen": seen}

    def forget(self) -> None:
        """Forget it."""
        with self._lock:
            self._seen.clear()
            self._again.clear()


class RpcEndpoint:
    """What the RPC server offers."""

    def __init__(self, received: Received) -> None:
        self._received = received

    def message(self, context: dict[str, str], kind: str, ident: str, sent: float) -> str:
        """Take a call, a cast or a fanout; a call gets ``ident`` back."""
        self._received.note(kind, ident, sent)
        return ident


class NotificationEndpoint:
    """What the listener does with notifications."""

    def __init__(self, received: Received) -> None:
        self._received = received

    def info(self, context: object, publisher: str, event: str, payload: dict[str, typing.Any], about: object) -> None:
        """Take one notification."""
        self._received.note("notify", payload["ident"], payload["sent"])


def say(event: str, **values: object) -> None:
    """Report one line."""
    print(json.dumps({"event": event, **values}), flush=True)


def read_config(path: str, exchange: str) -> cfg.ConfigOpts:
    """Return the configuration that a service makes of its file.

    :param exchange: what the service sets in its code (nova/rpc.py: ``set_transport_defaults``).
    """
    oslo_messaging.set_transport_defaults(exchange)
    conf = cfg.CONF  # as services do: oslo.messaging registers some of its options nowhere else
    conf(["--config-file", path], project=exchange, default_config_dirs=[])
    return conf


def commands() -> collections.abc.Iterator[dict[str, typing.Any]]:
    """Yield commands until the input ends."""
    for line in sys.stdin:
        yield json.loads(line)


# -- servers ---------------------------------------------------------------------------------------------------------


def serve(args: argparse.Namespace) -> None:
    """Run an RPC server."""
    conf = read_config(args.config, args.exchange)
    transport = oslo_messaging.get_rpc_transport(conf)
    received = Received()
    target = oslo_messaging.Target(topic=args.topic, server=args.server)
    server = oslo_messaging.get_rpc_server(transport, target, [RpcEndpoint(received)], executor="threading")
    _run_server(server, transport, received)


def listen(args: argparse.Namespace) -> None:
    """Run a notification listener for the exchanges of all services."""
    conf = read_config(args.config, args.exchange)
    transport = oslo_messaging.get_notification_transport(conf)
    received = Received()
    targets = [oslo_messaging.Target(topic="notifications", exchange=e) for e in args.exchanges]
    server = oslo_messaging.get_notification_listener(
        transport, targets, [NotificationEndpoint(received)], executor="threading"
    )
    _run_server(server, transport, received)


def _run_server(server: typing.Any, transport: typing.Any, received: Received) -> None:
    server.start()
    say("ready")
    try:
        for command in commands():
            if command["do"] == "forget":
                received.forget()
            else:
                say("report", **received.report())
    finally:
        server.stop()
        server.wait()
        with contextlib.suppress(OSError):  # the parent may have closed the pipe
            say("last", **received.report())
        transport.cleanup()


# -- clients ---------------------------------------------------------------------------------------------------------


def client(args: argparse.Namespace) -> None:
    """Run a client that calls, casts and notifies. With a topic it is also an RPC server, like most services."""
    conf = read_config(args.config, args.exchange)
    rpc = oslo_messaging.get_rpc_transport(conf)
    if args.topic:
        target = oslo_messaging.Target(topic=args.topic, server=args.server)
        oslo_messaging.get_rpc_server(rpc, target, [RpcEndpoint(Received())], executor="threading").start()
    notifications = oslo_messaging.get_notification_transport(conf)
    notifier = oslo_messaging.Notifier(notifications, publisher_id=f"{args.exchange}.{os.getpid()}")
    say("ready")
    try:
        for number, command in enumerate(commands()):
            say("done", results=_perform(rpc, notifier, command, f"{os.getpid()}.{number}"))
    finally:
        rpc.cleanup()
        notifications.cleanup()


def _perform(
    rpc: typing.Any, notifier: typing.Any, command: dict[str, typing.Any], name: str
) -> list[tuple[str, float, float, str, int]]:
    """Do one command.

    :param command: ``do`` (call, cast, fanout, notify, or a list of these: one thread each), ``count``, ``seconds``;
        and as needed ``topic``, ``exchange``, ``server``, ``timeout``, ``interval`` (seconds between the starts of
        two), ``threads``.
    :return: for each message its name, when it was begun and done, the class of the error or '', and the number of its
        thread.
    """
    wanted = command["do"]
    kinds = [wanted] * command.get("threads", 1) if isinstance(wanted, str) else wanted
    acts = {}
    for kind in set(kinds):
        acts[kind] = _notify(notifier) if kind == "notify" else _rpc(rpc, kind, command)
    numbers = itertools.count()
    deadline = time.monotonic() + command["seconds"]
    _enough.clear()
    interval = command.get("interval", 0.0)

    def work(kind: str, thread: int) -> collections.abc.Iterator[tuple[str, float, float, str, int]]:
        while time.monotonic() < deadline and not _enough.is_set():
            number = next(numbers)  # one step for all threads: itertools.count is C
            if number >= command["count"]:
                return
            ident = f"{name}.{kind}.{number}"
            begun = time.monotonic()
            error = ""
            try:
                acts[kind](ident, begun)
            except Exception as e:  # whatever a service would meet is a result; its text may hold a URL
                error = type(e).__name__
            yield (ident, begun, time.monotonic(), error, thread)
            time.sleep(max(0.0, min(begun + interval, deadline) - time.monotonic()))

    with concurrent.futures.ThreadPoolExecutor(len(kinds)) as pool:
        running = [pool.submit(lambda *its: list(work(*its)), kind, thread) for thread, kind in enumerate(kinds)]
        return [result for done in running for result in done.result()]


def _notify(notifier: typing.Any) -> collections.abc.Callable[[str, float], None]:
    def act(ident: str, begun: float) -> None:
        notifier.info(_CONTEXT, "testbed.happened", {"ident": ident, "sent": begun})

    return act


def _rpc(
    transport: typing.Any, kind: str, command: dict[str, typing.Any]
) -> collections.abc.Callable[[str, float], None]:
    target = oslo_messaging.Target(topic=command["topic"], exchange=command["exchange"], server=command.get("server"))
    # Before 14.1 (Debian 12 ships 14.0.3) clients were made by their class.
    make_client = getattr(oslo_messaging, "get_rpc_client", None) or oslo_messaging.RPCClient
    prepared = make_client(transport, target).prepare(fanout=kind == "fanout", timeout=command.get("timeout", 30.0))

    def act(ident: str, begun: float) -> None:
        if kind == "call":
            answer = prepared.call(_CONTEXT, "message", kind=kind, ident=ident, sent=begun)
            if answer != ident:
                raise RuntimeError("the answer to another call")
        else:
            prepared.cast(_CONTEXT, "message", kind=kind, ident=ident, sent=begun)

    return act


# --------------------------------------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(prog="python -m testbed.workload", description=__doc__.splitlines()[0])
    roles = parser.add_subparsers(dest="role", required=True)
    for role in (serve, client, listen):
        made = roles.add_parser(role.__name__, help=(role.__doc__ or "").lower())
        made.set_defaults(run=role)
        made.add_argument("--config", required=True, metavar="FILE", help="the service's file")
        made.add_argument("--exchange", required=True, help="the service's control exchange")
        if role is not listen:
            made.add_argument("--topic", required=role is serve)
            made.add_argument("--server", required=role is serve)
        if role is listen:
            made.add_argument("exchanges", nargs="+", metavar="EXCHANGE")
    return parser


def main() -> None:
    """Run one role until the input ends or SIGTERM comes."""
    args = build_parser().parse_args()
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda number, frame: _enough.set())
    args.run(args)


def _end(number: int, frame: object) -> typing.NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    timer = threading.Timer(_END_SECONDS, os._exit, (0,))
    timer.daemon = True
    timer.start()
    sys.exit(0)


if __name__ == "__main__":
    main()
