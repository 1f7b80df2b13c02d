"""Services that tests of verify need: ``python services.py CONFIG KIND [COUNT]``. It says "ready", and goes on until it
is ended; ``callers`` say every second how many calls were good and how many failed."""

from __future__ import annotations

import sys
import threading
import time
import typing

import oslo_messaging
from oslo_config import cfg

TARGET = {"exchange": "nova", "topic": "compute"}
TOPIC = "slow"


class Endpoint:
    """A slow endpoint. The driver acknowledges a call before it runs, and a notification after it ran."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def message(self, context: object, **values: object) -> str:
        """Answer a call."""
        time.sleep(self.seconds)
        return "done"

    def info(self, *values: object) -> None:
        """Take a notification."""
        time.sleep(self.seconds)


def server(seconds: float) -> None:
    """Serve calls, each for so long."""
    transport = oslo_messaging.get_rpc_transport(cfg.CONF)
    target = oslo_messaging.Target(server="slow", **TARGET)
    oslo_messaging.get_rpc_server(transport, target, [Endpoint(seconds)], executor="threading").start()


def listener(seconds: float) -> None:
    """Take notifications, one after the other, each for so long, while others are sent all the time."""
    transport = oslo_messaging.get_notification_transport(cfg.CONF)
    targets = [oslo_messaging.Target(topic=TOPIC, exchange=TARGET["exchange"])]
    oslo_messaging.get_notification_listener(transport, targets, [Endpoint(seconds)], executor="threading").start()
    time.sleep(1)
    notifier = oslo_messaging.Notifier(transport, "x", driver="messagingv2", topics=[TOPIC])
    for _ in range(200):
        threading.Thread(target=lambda: notifier.info({}, "x", {}), daemon=True).start()


def callers(count: float) -> None:
    """Call from so many connections."""
    good, failed = [], []
    make = getattr(oslo_messaging, "get_rpc_client", None) or oslo_messaging.RPCClient

    def call(transport: typing.Any) -> None:
        client = make(transport, oslo_messaging.Target(**TARGET)).prepare(timeout=8)
        while True:
            try:
                client.call({}, "message", kind="call", ident="a.b.call.d", sent=time.time())
                good.append(1)
            except oslo_messaging.MessagingException:
                failed.append(1)
            time.sleep(0.5)

    for _ in range(int(count)):
        threading.Thread(target=call, args=(oslo_messaging.get_rpc_transport(cfg.CONF),), daemon=True).start()

    def tell() -> None:
        while True:
            print(f"{len(good)} good, {len(failed)} failed", flush=True)
            time.sleep(1)

    threading.Thread(target=tell, daemon=True).start()


if __name__ == "__main__":
    cfg.CONF(["--config-file", sys.argv[1]], project="services", default_config_dirs=[])
    {"server": server, "listener": listener, "callers": callers}[sys.argv[2]](float(sys.argv[3]))
    print("ready", flush=True)
    while True:
        time.sleep(60)
