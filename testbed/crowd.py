"""Many light clients in one process: ``python -m testbed.crowd``, which reads its settings from standard input.

Each client has one connection with the links or queues that oslo.messaging makes for an RPC server and its replies:
over AMQP 1.0 four receivers and a sender, over AMQP 0-9-1 four queues with a consumer each. A client that loses its
connection tries again every second, over 0-9-1 at the next host. The clients send no messages. They show the cost of
connections, and how clients reconnect.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import typing

from testbed import sockets

_RETRY_SECONDS = 1.0
_RPC = "openstack.org/om/rpc"


class Open:
    """Which clients are complete, and since when."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[int, float] = {}

    def note(self, number: int, complete: bool) -> None:
        """Note that a client has all its links or queues, or has them no longer."""
        with self._lock:
            if complete:
                self._since[number] = time.monotonic()
            else:
                self._since.pop(number, None)

    def report(self) -> dict[str, typing.Any]:
        """Return how many are complete, and when the last of them became so."""
        with self._lock:
            return {"open": len(self._since), "last": max(self._since.values(), default=0.0)}


def _router_clients(settings: dict[str, typing.Any], opened: Open) -> None:
    """Run clients of a router."""
    import proton.handlers
    import proton.reactor

    class Clients(proton.handlers.MessagingHandler):
        def on_start(self, event: typing.Any) -> None:
            self.container = event.container
            for number in range(settings["first"], settings["first"] + settings["count"]):
                self.connect(number)

        def on_timer_task(self, event: typing.Any) -> None:
            while self.waiting:
                self.connect(self.waiting.pop())

        def connect(self, number: int) -> None:
            at = sockets.show((settings["hosts"][0], settings["port"]))
            connection = self.container.connect(
                f"amqp://{at}", user=settings["user"], password=settings["password"],
                allowed_mechs="PLAIN", allow_insecure_mechs=True, reconnect=False, heartbeat=settings["heartbeat"],
            )  # fmt: skip
            connection.number, connection.missing = number, 0
            names = (f"unicast/crowd/topic/{number}", "anycast/crowd/topic", "multicast/crowd/topic")
            for name in names:
                self.container.create_receiver(connection, f"{_RPC}/{name}")
            self.container.create_receiver(connection, None, dynamic=True)
            self.container.create_sender(connection, f"{_RPC}/anycast/crowd/topic")

        def on_link_opened(self, event: typing.Any) -> None:
            event.connection.missing += 1
            if event.connection.missing == 5:
                opened.note(event.connection.number, True)

        def on_disconnected(self, event: typing.Any) -> None:
            opened.note(event.connection.number, False)
            self.waiting.append(event.connection.number)
            self.container.schedule(_RETRY_SECONDS, self)

        on_transport_error = on_connection_error = lambda self, event: None
        waiting: typing.ClassVar[list[int]] = []

    proton.reactor.Container(Clients(auto_settle=True)).run()


def _broker_clients(settings: dict[str, typing.Any], opened: Open) -> None:
    """Run clients of a cluster of brokers."""

    def stay_connected(number: int) -> None:
        at = 0
        while True:
            host = settings["hosts"][at % len(settings["hosts"])]
            try:
                _broker_client(settings, host, number, opened)
            except Exception:  # a client tries again after any error
                opened.note(number, False)
            at += 1
            time.sleep(_RETRY_SECONDS)

    for number in range(settings["first"], settings["first"] + settings["count"]):
        threading.Thread(target=stay_connected, args=(number,), daemon=True).start()


def _broker_client(settings: dict[str, typing.Any], host: str, number: int, opened: Open) -> None:
    import amqp  # type: ignore[import-untyped]

    at = sockets.show((host, settings["port"]))
    user, password, heartbeat = settings["user"], settings["password"], settings["heartbeat"]
    with amqp.Connection(at, user, password, connect_timeout=10, heartbeat=heartbeat) as connection:
        channel = connection.channel()
        for kind in ("topic", "server", "fanout", "reply"):
            name = "crowd.topic" if kind == "topic" else f"crowd.{kind}.{number}"
            channel.queue_declare(name, auto_delete=kind != "topic")
            channel.basic_consume(name, callback=lambda message: None)
        opened.note(number, True)
        while True:
            try:
                connection.drain_events(timeout=10)
            except TimeoutError:
                connection.heartbeat_tick()


def main() -> None:
    """Read the settings, start the clients, and report whenever a line comes, until the input ends."""
    settings = json.loads(sys.stdin.readline())
    opened = Open()
    run = {"amqp": _router_clients, "rabbit": _broker_clients}[settings["scheme"]]
    threading.Thread(target=run, args=(settings, opened), daemon=True).start()
    print(json.dumps({"event": "ready"}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"event": "report", **opened.report()}), flush=True)


if __name__ == "__main__":
    main()
