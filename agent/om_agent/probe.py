"""A call and a notification there and back, in a process of its own: ``python -m om_agent.probe``.

The only user of oslo.messaging, configured by a service's files alone, as the service is. What to do comes as JSON on
standard input, since it may hold a password; what became of it goes as JSON to standard output. Topics and the exchange
are its own, so that no consumer of others gets anything, and its queues go with it.

Input: ``{"config": [FILE, ...], "seconds": N, "jobs": [{"half": "rpc" or "notify", "to": NAME, "client": URL or "",
"server": URL or ""}]}``; an empty URL is the file's own. Output: ``{"impossible": WHY}`` or ``{"results": [{"error":
WHY or "", "seconds": N}]}``, in the order of the jobs.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import queue
import secrets
import sys
import tempfile
import threading
import time
import typing

EXCHANGE = "om-agent-verify"
_FIRST_WITHOUT_AMQP = 15

# Beside the service's file. Queues and exchange go with their last user; those that cannot, after some seconds unused.
# Durable, since RabbitMQ 4.3 refuses queues that are neither that nor of one connection.
_OWN = f"""\
[DEFAULT]
control_exchange = {EXCHANGE}
[oslo_messaging_rabbit]
amqp_auto_delete = true
amqp_durable_queues = true
rabbit_quorum_queue = false
rabbit_stream_fanout = false
use_queue_manager = false
rabbit_transient_queues_ttl = 5
[oslo_messaging_metrics]
metrics_enabled = false
"""


def main() -> None:
    """Read what to do, do it, and end within the time whatever the drivers are still at."""
    asked = json.loads(sys.stdin.read())
    why = _lacking()
    if why:
        _end({"impossible": why})
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as own:
        own.write(_OWN)
        own.flush()
        results = _all(asked, own.name)
    _end({"results": results})


def _end(answer: dict[str, object]) -> typing.NoReturn:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    os._exit(0)  # a driver may wait for a broker for ever


def _lacking() -> str:
    """Return why nothing can be tried out, '' when it can."""
    try:
        version = importlib.metadata.version("oslo.messaging")
    except importlib.metadata.PackageNotFoundError:
        return "oslo.messaging is not installed"
    try:
        import oslo_messaging  # noqa: F401
    except ImportError as e:
        return f"oslo.messaging {version} cannot be imported: {e.name} is missing"
    return ""


def _lacking_amqp() -> str:
    """Return why oslo.messaging has no AMQP 1.0, '' when it has."""
    version = importlib.metadata.version("oslo.messaging")
    if int(version.partition(".")[0]) >= _FIRST_WITHOUT_AMQP:
        return f"oslo.messaging {version} has no AMQP 1.0 driver, which 15.0 removed"
    lacking = [name for name in ("proton", "pyngus") if not importlib.util.find_spec(name)]
    return f"oslo.messaging's AMQP 1.0 driver lacks the module {lacking[0]}" if lacking else ""


def _all(asked: dict[str, typing.Any], own: str) -> list[dict[str, object]]:
    """Do every job in a thread of its own; those that are not through in time have failed."""
    from oslo_config import cfg

    conf = cfg.CONF  # as services do: oslo.messaging registers some of its options nowhere else
    given = [f"--config-file={path}" for path in asked["config"]]
    conf([*given, "--config-file", own], project=EXCHANGE, default_config_dirs=[])
    seconds = float(asked["seconds"])
    done: queue.SimpleQueue[tuple[int, str, float]] = queue.SimpleQueue()

    def work(number: int, job: dict[str, str]) -> None:
        start = time.monotonic()
        try:
            error = (_call if job["half"] == "rpc" else _notify)(conf, job, seconds)
        except Exception as e:  # whatever a service would meet; its text may hold a URL, so only its kind is told
            error = _name(e, seconds)
        done.put((number, error, time.monotonic() - start))

    for number, job in enumerate(asked["jobs"]):
        threading.Thread(target=work, args=(number, job), daemon=True).start()
    results: list[dict[str, object]] = [{"error": _late(seconds), "seconds": seconds} for _ in asked["jobs"]]
    deadline = time.monotonic() + seconds + 2
    for _ in asked["jobs"]:
        try:
            number, error, took = done.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        results[number] = {"error": error, "seconds": round(took, 4)}
    return results


def _late(seconds: float) -> str:
    return f"nothing came within {seconds:.0f} s"


def _name(error: Exception, seconds: float) -> str:
    kind = type(error).__name__
    if kind == "DriverLoadFailure":
        return _lacking_amqp() or "oslo.messaging has no driver for this transport URL"
    known = {
        "MessagingTimeout": _late(seconds),
        "MessageDeliveryFailure": "it could not be delivered",
        "InvalidTransportURL": "the transport URL cannot be read",
    }
    return known.get(kind, kind)


class _Echo:
    """What the RPC server offers."""

    def echo(self, context: object, text: str) -> str:
        """Return what came."""
        return text


def _call(conf: typing.Any, job: dict[str, str], seconds: float) -> str:
    import oslo_messaging

    here = oslo_messaging.get_rpc_transport(conf, job["client"] or None)
    there = oslo_messaging.get_rpc_transport(conf, job["server"] or job["client"] or None)
    topic, token = f"om_agent_verify_{secrets.token_hex(8)}", secrets.token_hex(8)
    server = oslo_messaging.get_rpc_server(
        there, oslo_messaging.Target(topic=topic, server="echo"), [_Echo()], executor="threading"
    )
    server.start()
    try:
        # Before 14.1 (Debian 12 ships 14.0.3) clients were made by their class.
        make = getattr(oslo_messaging, "get_rpc_client", None) or oslo_messaging.RPCClient
        client = make(here, oslo_messaging.Target(topic=topic)).prepare(timeout=seconds)
        return "" if client.call({}, "echo", text=token) == token else "another answer came back"
    finally:
        _stop(server, here, there)


def _notify(conf: typing.Any, job: dict[str, str], seconds: float) -> str:
    import oslo_messaging

    transport = oslo_messaging.get_notification_transport(conf, job["client"] or None)
    topic, token = f"om_agent_verify_{secrets.token_hex(8)}", secrets.token_hex(8)
    came = threading.Event()

    class Endpoint:
        """What the listener does with notifications."""

        def info(self, context: object, publisher: str, event: str, payload: dict[str, str], about: object) -> None:
            """Take one."""
            if payload.get("token") == token:
                came.set()

    listener = oslo_messaging.get_notification_listener(
        transport, [oslo_messaging.Target(topic=topic, exchange=EXCHANGE)], [Endpoint()], executor="threading"
    )
    listener.start()
    try:
        notifier = oslo_messaging.Notifier(transport, publisher_id=EXCHANGE, driver="messagingv2", topics=[topic])
        notifier.info({}, "om_agent.verify", {"token": token})
        return "" if came.wait(seconds) else _late(seconds)
    finally:
        _stop(listener, transport)


def _stop(server: typing.Any, *transports: typing.Any) -> None:
    server.stop()
    server.wait()
    for transport in transports:
        transport.cleanup()


if __name__ == "__main__":
    main()
