"""Messages as the in-tree driver has them on the wire; python-qpid-proton, which that one uses, is the judge."""

from __future__ import annotations

import contextlib
import tracemalloc
import uuid

import hypothesis
import pytest
from hypothesis import strategies
from oslo_messaging_amqp1 import codec, errors, messages

proton = pytest.importorskip("proton", reason="python-qpid-proton is not installed")

QUICK = hypothesis.settings(deadline=None, suppress_health_check=list(hypothesis.HealthCheck))


def test_a_call_as_proton_reads_it() -> None:
    data = messages.encode("to", "{}", message_id="id", reply_to="reply", ttl=5000, expiry=1_700_000_000_000)
    read = proton.Message()
    read.decode(data)
    assert (read.id, read.address, read.reply_to, read.ttl, read.body) == ("id", "to", "reply", 5, "{}")
    assert read.expiry_time == 1_700_000_000
    assert (read.subject, read.properties, read.correlation_id) == (None, None, None)


def test_an_answer_and_a_heartbeat_as_proton_reads_them() -> None:
    read = proton.Message()
    read.decode(messages.encode("to", '{"response": 1}', correlation_id="id"))
    assert (read.correlation_id, read.body, read.reply_to) == ("id", '{"response": 1}', None)
    read.decode(messages.encode("to", None, correlation_id="id", ttl=1000))
    assert (read.body, read.ttl) == (None, 1)


@QUICK
@hypothesis.given(
    strategies.one_of(strategies.text(max_size=40), strategies.uuids(), strategies.integers(0, 2**63)),
    strategies.text(max_size=300).filter(lambda text: "\ud800" not in text),
)
def test_it_reads_what_proton_wrote(message_id: object, body: str) -> None:
    written = proton.Message(inferred=True, body=body)
    written.id = proton.ulong(message_id) if isinstance(message_id, int) else message_id
    written.reply_to = "amqp:/_topo/0/x/temp.1"
    written.ttl = 30
    found = messages.decode(written.encode())
    assert found == messages.Message(written.id, "amqp:/_topo/0/x/temp.1", None, body)


@pytest.mark.parametrize("message_id", ["text", 5, 2**63, uuid.UUID(int=9), b"bytes"])
def test_an_answer_has_the_id_of_its_request(message_id: messages.Id) -> None:
    assert messages.decode(messages.encode("to", "x", correlation_id=message_id)).correlation_id == message_id


def test_a_body_in_data_sections() -> None:
    written = proton.Message(inferred=True, body=b'{"request": 1}')
    assert messages.decode(written.encode()).body == '{"request": 1}'


@pytest.mark.parametrize("body", [b"\xff", [1], {"a": 1}, 5])
def test_a_body_that_is_no_text_is_refused(body: object) -> None:
    with pytest.raises(errors.DecodeError):
        messages.decode(proton.Message(inferred=isinstance(body, bytes), body=body).encode())


@QUICK
@hypothesis.given(strategies.binary(max_size=300))
def test_garbage_is_refused_and_never_a_defect(data: bytes) -> None:
    with contextlib.suppress(errors.DecodeError):
        messages.decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x45\x45", b"\x00\xc1\x01\x00\x45", b"\x00\x00\x43\x43\x45", b"\x00\x53", b"\x00\x53\x77", b"\x45",
        b"\x00\x53\x10\x45", b"\x00\x53\x73\x43", b"\x00\x53\x75\xa1\x01x", b"\x00\xa3\x01x\x45",
        b"\x00\x53\x70\x45" * 65, b"\x00\x53\x73" + codec.compound([codec.NULL] * 70_000), b"\x00" * 100_000,
        b"\x00\x53\x73" + codec.compound([codec.TRUE]),
        b"\x00\x53\x73" + codec.compound([codec.NULL] * 4 + [codec.TRUE]),
    ],
    ids=range(15),
)  # fmt: skip
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(errors.DecodeError):
        messages.decode(data)


def test_sections_with_names_instead_of_numbers() -> None:
    """As the specification allows."""
    properties = b"\x00" + codec.symbol("amqp:properties:list") + codec.compound([codec.string("id")])
    body = b"\x00" + codec.symbol("amqp:amqp-value:*") + codec.string("{}")
    assert messages.decode(properties + body) == messages.Message("id", "", None, "{}")


def test_sections_that_are_not_needed_are_not_decoded() -> None:
    """A list of a million empty lists takes 64 MiB once it is decoded."""
    many = codec.compound([b"\x45"] * 1_000_000)
    tracemalloc.start()
    try:
        assert messages.decode(codec.described(0x78, many) + messages.encode("to", "{}")).body == "{}"
        with pytest.raises(errors.DecodeError, match="not text"):
            messages.decode(codec.described(0x77, many))
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()
