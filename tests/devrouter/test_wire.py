"""Finding a message's destination in its first bytes, wherever they are cut off."""

from __future__ import annotations

import pytest
from om_devrouter import wire

HEADER = b"\x00\x53\x70\xc0\x02\x01\x41"
ANNOTATIONS = b"\x00\x53\x72\xd1\x00\x00\x00\x0a\x00\x00\x00\x02\xa3\x01k\xa1\x01v"
BODY = b"\x00\x53\x75\xa0\x01x"


def properties(*fields: bytes, wide: bool = False) -> bytes:
    content = b"".join(fields)
    if wide:
        return (
            b"\x00\x80"
            + b"\x00" * 7
            + b"\x73\xd0"
            + (len(content) + 4).to_bytes(4, "big")
            + bytes([0, 0, 0, len(fields)])
            + content
        )
    return b"\x00\x53\x73\xc0" + bytes([len(content) + 1, len(fields)]) + content


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("message_id", [b"\x40", b"\x43", b"\x53\x07", b"\x98" + b"u" * 16, b"\xa1\x02id"])
def test_the_address_is_found(message_id: bytes, wide: bool) -> None:
    message = HEADER + ANNOTATIONS + properties(message_id, b"\xa0\x01u", b"\xa1\x03foo", b"\x40", wide=wide) + BODY
    assert wire.head(message).to == "foo"
    long = properties(message_id, b"\x40", b"\xb1\x00\x00\x00\x03foo", wide=wide)
    assert wire.head(bytearray(long)).to == "foo"


@pytest.mark.parametrize(
    "message",
    [BODY, HEADER + BODY, b"\x00\x53\x73\x45", properties(b"\x40", b"\x40"), properties(b"\x40", b"\x40", b"\x40")],
)
def test_there_may_be_none(message: bytes) -> None:
    assert wire.head(message).to is None


def test_more_bytes_are_asked_for_until_the_answer_is_there() -> None:
    message = HEADER + ANNOTATIONS + properties(b"\x98" + b"u" * 16, b"\x40", b"\xa1\x03foo")
    for cut in range(len(message)):
        with pytest.raises(wire.Incomplete):
            wire.head(message[:cut])
    assert wire.head(message).to == "foo"


@pytest.mark.parametrize(
    "message",
    [
        b"nonsense",
        b"\x00\xa3\x01x",
        b"\x00\x53\x73\xa1\x01x",
        b"\x00\x53\x70\x33",
        properties(b"\x40", b"\x40", b"\x52\x01"),
        b"\x00\x53\x73\xc0\x02\x09\x40",
    ],
)
def test_what_is_no_message_is_malformed(message: bytes) -> None:
    with pytest.raises(wire.Malformed):
        wire.head(message + b"\x40" * 50)
