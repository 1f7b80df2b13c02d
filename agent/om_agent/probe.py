"""Send test messages in a separate process: a call with its reply, and a notification (``python -m om_agent.probe``).

This is the only module that uses oslo.messaging. It configures oslo.messaging from a service's files alone, like the
service itself. It reads its jobs as JSON from standard input, since they may hold a password, and writes the results as
JSON to standard output. It uses topics and an exchange of its own, so that no service receives its messages. Its queues
are deleted after it.

Input: ``{"config": [FILE, ...], "seconds": N, "jobs": [{"half": "rpc" or "notify", "to": NAME, "client": URL or "",
"server": URL or ""}]}``; an empty URL stands for the one in the file. Output: ``{"impossible": WHY}`` or ``{"results":
[{"error": WHY or "", "seconds": N}]}``, in the order of the jobs.
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

# The probe reads this after the service's file. RabbitMQ deletes the queues and the exchange with their last user, or
# after some seconds without use. They are durable, since RabbitMQ 4.3 refuses transient queues that are not exclusive.
_OWN_OPTIONS = f"""\
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
    """Read the jobs, do them, and exit within the time limit even if a driver still waits."""
    order = json.loads(sys.stdin.read())
    why = _why_impossible()
    if why:
        _exit_with({"impossible": why})
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as own:
        own.write(_OWN_OPTIONS)
        own.flush()
        results = _do_all(order, own.name)
    _exit_with({"results": results})


def _exit_with(answer: dict[str, object]) -> typing.NoReturn:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    os._exit(0)  # a driver may wait for its broker forever


def _why_impossible() -> str:
    """Return why no message can be sent; '' when it can."""
    try:
        version = importlib.metadata.version("oslo.messaging")
    except importlib.metadata.PackageNotFoundError:
        return "oslo.messaging is not installed"
    try:
        import oslo_messaging  # noqa: F401
    except ImportError as e:
        return f"oslo.messaging {version} cannot be imported: {e.name} is missing"
    return ""


def _why_no_amqp() -> str:
    """Return why oslo.messaging has no AMQP 1.0 driver; '' when it has."""
    version = importlib.metadata.version("oslo.messaging")
    if int(version.partition(".")[0]) >= _FIRST_WITHOUT_AMQP:
        return f"oslo.messaging {version} has no AMQP 1.0 driver, which 15.0 removed"
    missing = [name for name in ("proton", "pyngus") if not importlib.util.find_spec(name)]
    return f"oslo.messaging's AMQP 1.0 driver lacks the module {missing[0]}" if missing else ""


def _do_all(order: dict[str, typing.Any], own: str) -> list[dict[str, object]]:
    """Do each job in its own thread; a job that does not finish in time has failed.

    :param own: path of the file with `_OWN_OPTIONS`.
    """
    from oslo_config import cfg

    conf = cfg.CONF  # the object that services use: oslo.messaging registers some of its options only there
    files = [f"--config-file={path}" for path in order["config"]]
    conf([*files, "--config-file", own], project=EXCHANGE, default_config_dirs=[])
    seconds = float(order["seconds"])
    jobs = order["jobs"]
    finished: queue.SimpleQueue[tuple[int, str, float]] = queue.SimpleQueue()

    def work(number: int, job: dict[str, str]) -> None:
        send = _call if job["half"] == "rpc" else _notify
        start = time.monotonic()
        try:
            error = send(conf, job, seconds)
        except Exception as e:  # any error that a service would get; its text may hold a URL with a password
            error = _explain(e, seconds)
        finished.put((number, error, time.monotonic() - start))

    for number, job in enumerate(jobs):
        threading.Thread(target=work, args=(number, job), daemon=True).start()
    results: list[dict[str, object]] = [{"error": _late(seconds), "seconds": seconds} for _ in jobs]
    deadline = time.monotonic() + seconds + 2
    for _ in jobs:
        left = max(0.0, deadline - time.monotonic())
        try:
            number, error, elapsed = finished.get(timeout=left)
        except queue.Empty:
            break
        results[number] = {"error": error, "seconds": round(elapsed, 4)}
    return results


def _late(seconds: float) -> str:
    return f"no message arrived within {seconds:.0f} s"


def _explain(error: Exception, seconds: float) -> str:
    """Return a clause that explains an error of oslo.messaging, without the error's own text."""
    kind = type(error).__name__
    if kind == "DriverLoadFailure":
        return _why_no_amqp() or "oslo.messaging has no driver for this transport URL"
    known = {
        "MessagingTimeout": _late(seconds),
        "MessageDeliveryFailure": "the message could not be delivered",
        "InvalidTransportURL": "the transport URL cannot be read",
    }
    return known.get(kind, kind)


class _Echo:
    """The endpoint of the RPC server."""

    def echo(self, context: object, text: str) -> str:
        """Return ``text``."""
        return text


def _new_topic() -> str:
    return f"om_agent_verify_{secrets.token_hex(8)}"


def _call(conf: typing.Any, job: dict[str, str], seconds: float) -> str:
    """Start a server, and call it; return what failed, '' when the call succeeds."""
    import oslo_messaging

    client_transport = oslo_messaging.get_rpc_transport(conf, job["client"] or None)
    server_transport = oslo_messaging.get_rpc_transport(conf, job["server"] or job["client"] or None)
    topic = _new_topic()
    token = secrets.token_hex(8)
    target = oslo_messaging.Target(topic=topic, server="echo")
    server = oslo_messaging.get_rpc_server(server_transport, target, [_Echo()], executor="threading")
    server.start()
    try:
        # Before oslo.messaging 14.1 (Debian 12 ships 14.0.3) there was only the class.
        make_client = getattr(oslo_messaging, "get_rpc_client", None) or oslo_messaging.RPCClient
        client = make_client(client_transport, oslo_messaging.Target(topic=topic))
        reply = client.prepare(timeout=seconds).call({}, "echo", text=token)
        return "" if reply == token else "the reply belongs to another call"
    finally:
        _stop(server, client_transport, server_transport)


def _notify(conf: typing.Any, job: dict[str, str], seconds: float) -> str:
    """Start a listener, and send it a notification; return what failed, '' when the notification arrives."""
    import oslo_messaging

    transport = oslo_messaging.get_notification_transport(conf, job["client"] or None)
    topic = _new_topic()
    token = secrets.token_hex(8)
    arrived = threading.Event()

    class Endpoint:
        """The endpoint of the listener."""

        def info(self, context: object, publisher: str, event: str, payload: dict[str, str], about: object) -> None:
            """Receive a notification."""
            if payload.get("token") == token:
                arrived.set()

    target = oslo_messaging.Target(topic=topic, exchange=EXCHANGE)
    listener = oslo_messaging.get_notification_listener(transport, [target], [Endpoint()], executor="threading")
    listener.start()
    try:
        notifier = oslo_messaging.Notifier(transport, publisher_id=EXCHANGE, driver="messagingv2", topics=[topic])
        notifier.info({}, "om_agent.verify", {"token": token})
        return "" if arrived.wait(seconds) else _late(seconds)
    finally:
        _stop(listener, transport)


def _stop(server: typing.Any, *transports: typing.Any) -> None:
    server.stop()
    server.wait()
    for transport in transports:
        transport.cleanup()


if __name__ == "__main__":
    main()
