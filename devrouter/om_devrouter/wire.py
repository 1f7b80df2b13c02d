"""Just enough of AMQP 1.0's encoding to find where a message wants to go and who sends it, from its first bytes.

A message on an anonymous-relay link names its destination in the ``to`` field of its properties; ``user-id`` stands
before it. Decoding the whole
message for that would keep the router from passing on a large body while it still arrives.
Source: OASIS AMQP 1.0, part 1 section 1.2 (constructors) and part 3 section 3.2 (message sections).
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Union

Buffer = Union[bytes, bytearray]

#: Descriptor codes: header, delivery-annotations, message-annotations come before properties.
_PROPERTIES = 0x73
_BEFORE_PROPERTIES = (0x70, 0x71, 0x72)
#: High nibble of a constructor -> width of a fixed value; others carry their size.
_FIXED = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}


class Incomplete(Exception):
    """More bytes are needed before an answer is possible."""


class Malformed(ValueError):
    """These bytes are not an AMQP 1.0 message."""


class Head(NamedTuple):
    """What the properties of a message say; None for what they do not have."""

    user_id: bytes | None = None
    to: str | None = None


_NOTHING = Head()


def head(data: Buffer) -> Head:
    """The properties of an encoded message, as far as they matter here.

    :param data: the message from its first byte, possibly cut off anywhere
    :raises Incomplete: when the answer lies beyond what is there
    :raises Malformed: when it is no message
    """
    position = 0
    while True:
        code, position = _descriptor(data, position)
        if code == _PROPERTIES:
            return _properties(data, position)
        if code not in _BEFORE_PROPERTIES:
            return _NOTHING
        position = _skip(data, position)


def _byte(data: Buffer, position: int) -> int:
    if position >= len(data):
        raise Incomplete()
    return data[position]


def _take(data: Buffer, position: int, size: int) -> Buffer:
    if position + size > len(data):
        raise Incomplete()
    return data[position : position + size]


def _descriptor(data: Buffer, position: int) -> tuple[int, int]:
    if _byte(data, position) != 0x00:
        raise Malformed("no descriptor where a section must begin")
    kind = _byte(data, position + 1)
    if kind == 0x53:
        return _byte(data, position + 2), position + 3
    if kind == 0x80:
        return struct.unpack("!Q", _take(data, position + 2, 8))[0], position + 10
    raise Malformed("a section descriptor must be an ulong")


def _extent(data: Buffer, position: int) -> tuple[int, int]:
    """Where the value at ``position`` begins and ends, its constructor and size field left out."""
    constructor = _byte(data, position)
    nibble = constructor >> 4
    position += 1
    if nibble in _FIXED:
        return position, position + _FIXED[nibble]
    if nibble in (0xA, 0xC, 0xE):
        return position + 1, position + 1 + _byte(data, position)
    if nibble in (0xB, 0xD, 0xF):
        return position + 4, position + 4 + struct.unpack("!I", _take(data, position, 4))[0]
    raise Malformed(f"unknown constructor 0x{constructor:02x}")


def _skip(data: Buffer, position: int) -> int:
    return _extent(data, position)[1]


def _properties(data: Buffer, position: int) -> Head:
    """The list of properties: message-id, user-id, to, and what follows."""
    constructor = _byte(data, position)
    if constructor == 0x45:
        return _NOTHING
    if constructor not in (0xC0, 0xD0):
        raise Malformed("properties must be a list")
    start, end = _extent(data, position)
    width = 1 if constructor == 0xC0 else 4
    count = int.from_bytes(_take(data, start, width), "big")
    if count < 2:
        return _NOTHING
    # Whatever type the user id has, its bytes are compared; it is only asked for where there is a policy.
    user_id, position = _value(data, _skip(data, start + width), end)
    if count == 2:
        return Head(user_id)
    if _byte(data, position) not in (0x40, 0xA1, 0xB1):
        raise Malformed("to must be a string")
    to, _ = _value(data, position, end)
    return Head(user_id, None if to is None else to.decode("utf-8", "replace"))


def _value(data: Buffer, position: int, end: int) -> tuple[bytes | None, int]:
    """The bytes of a field, None for null, and where the next one begins."""
    if position >= end:
        raise Malformed("properties are shorter than they say")
    if _byte(data, position) == 0x40:
        return None, position + 1
    begin, finish = _extent(data, position)
    return bytes(_take(data, begin, finish - begin)), finish
