"""Looking at ports at which any program may listen: bounded in time and in size, and each fault has a reason."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import typing

import pytest
from om_agent import verify
from om_agent.observe import brokers

from tests.unit import test_verify_findings as findings

GOOD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nrabbitmq_queues 2\nrabbitmq_queue_messages 5.0\n"


@contextlib.contextmanager
def serving(parts: typing.Iterable[bytes], pause: float = 0.0) -> typing.Iterator[tuple[str, int]]:
    """A program that sends these bytes to whoever connects, with a pause after each part."""
    ended = threading.Event()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    connection.settimeout(5)
                    connection.recv(4096)
                    for part in parts:
                        connection.sendall(part)
                        if ended.wait(pause):
                            return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()
        finally:
            ended.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_good_metrics() -> None:
    with serving([GOOD]) as address:
        text = brokers.read_metrics(address, 5)
    found = brokers.parse_rabbit("rabbit@ctl-0", findings.RABBIT, text)
    assert (found.queues, found.messages) == (2, 5)


def endless() -> typing.Iterator[bytes]:
    yield GOOD
    while True:
        yield b"x 1\n" * 2**14


@pytest.mark.parametrize(
    ("parts", "pause", "said"),
    [
        ([bytes([c]) for c in GOOD], 0.2, "did not send them within 1 s"),  # in its head
        ([GOOD, *[b"x"] * 100], 0.2, "did not send them within 1 s"),  # in its body
        ([b""], 60.0, "did not send them within 1 s"),
        (endless(), 0.0, "more than 8 MiB"),
        ([b"AMQP\0\0\x09\x01"], 0.0, "does not speak HTTP"),
        ([b""], 0.0, "does not speak HTTP"),
        ([b"HTTP/1.1 500 Oh\r\n\r\n"], 0.0, "it answers with HTTP status 500"),
    ],
)
def test_a_port_that_cannot_be_read(parts: typing.Iterable[bytes], pause: float, said: str) -> None:
    begun = time.monotonic()
    with serving(parts, pause) as address, pytest.raises(brokers._NoMetricsError, match=said):
        brokers.read_metrics(address, 1.0)
    assert time.monotonic() - begun < 5


def test_a_port_where_nothing_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    with pytest.raises(brokers._NoMetricsError, match="nothing listens there"):
        brokers.read_metrics(address, 1.0)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "many", "1e999", "0x10", "-5", "1e300"])
def test_a_number_that_counts_nothing(value: str) -> None:
    text = f"rabbitmq_queues {value}\nrabbitmq_queue_messages 5\n"
    found = brokers.parse_rabbit("rabbit@ctl-0", findings.RABBIT, text)
    assert (found.queues, found.messages) == (None, 5)


def test_metrics_that_cannot_be_read_are_a_warning() -> None:
    seen = findings.with_broker(
        metrics="it answers with HTTP status 500", metrics_at="[fd00::1]:15692", queues=None, messages=None
    )
    (found,) = verify.findings(findings.node_plan(), seen)
    assert (found.code, found.severity) == ("broker-metrics", "warning")
    assert "at [fd00::1]:15692 cannot be read" in found.message and found.message.endswith(
        "it answers with HTTP status 500"
    )


def test_a_broker_that_hangs_is_told_from_one_that_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # the kernel takes connections
        address = listening.getsockname()
        assert brokers.hangs(address, 0.3)
    assert not brokers.hangs(address, 5)  # nothing listens: it is down
    for parts in ([b"\x01\x00\x00"], [b"\x15\x03\x03"], []):  # AMQP, an alert of TLS, hung up
        with serving(parts) as address:
            assert not brokers.hangs(address, 5)
