"""Encode and decode messages in the format of oslo.messaging's in-tree driver (OASIS AMQP 1.0, part 3).

The body is an ``amqp-value`` section with a JSON string. There are no application properties and no subject.
"""

from __future__ import annotations

import typing
import uuid

from oslo_messaging_amqp1 import codec, errors

_HEADER, _PROPERTIES, _DATA, _VALUE = 0x70, 0x73, 0x75, 0x77
_SECTIONS: dict[object, int] = {code: code for code in range(0x70, 0x79)} | {
    "amqp:properties:list": _PROPERTIES, "amqp:data:binary": _DATA, "amqp:amqp-value:*": _VALUE,
}  # fmt: skip
_MAX_SECTIONS = 64
_MAX_PROPERTIES_SIZE = 64 * 1024  # a list of many small values takes 64 times as much memory once it is decoded
_MAX_DESCRIPTOR_SIZE = 64
_NO_TEXT = "the body of a message is not text"

Id = typing.Union[str, int, bytes, uuid.UUID]


class Message(typing.NamedTuple):
    """The parts of an incoming message that the driver uses.

    :param body: None in a heartbeat, which has no body.
    """

    message_id: Id | None
    reply_to: str
    correlation_id: Id | None
    body: str | None


def encode(
    to: str,
    body: str | None,
    message_id: str | None = None,
    reply_to: str | None = None,
    correlation_id: Id | None = None,
    ttl: int | None = None,
    expiry: int | None = None,
) -> bytes:
    """Return an encoded message.

    :param ttl: milliseconds after which the message may be dropped.
    :param expiry: the time after which it may be dropped, in milliseconds since 1970.
    """
    properties = codec.composite(
        _PROPERTIES,
        (
            None if message_id is None else codec.string(message_id),
            None,
            codec.string(to),
            None,
            None if reply_to is None else codec.string(reply_to),
            None if correlation_id is None else _encode_id(correlation_id),
            None,
            None,
            None if expiry is None else codec.timestamp(expiry),
        ),
    )
    header = b"" if ttl is None else codec.composite(_HEADER, (None, None, codec.uint(min(ttl, 0xFFFFFFFF))))
    return header + properties + codec.described(_VALUE, codec.NULL if body is None else codec.string(body))


def _encode_id(value: Id) -> bytes:
    if isinstance(value, str):
        return codec.string(value)
    if isinstance(value, int):
        return codec.ulong(value)
    if isinstance(value, uuid.UUID):
        return b"\x98" + value.bytes
    return codec.binary(value)


def decode(data: bytes) -> Message:
    """Return the parts of a message that the driver uses. Skip the other sections.

    :raises errors.DecodeError: when the bytes are not such a message.
    """
    properties: list[typing.Any] = [None] * 6
    body: str | None = None
    chunks: list[bytes] = []
    at, end, count = 0, len(data), 0
    while at < end:
        section, at = _section(data, at, end)
        count += 1
        if count > _MAX_SECTIONS:
            raise errors.DecodeError("a message has too many sections")
        if section == _PROPERTIES:
            properties, at = _properties(data, at, end)
        elif section == _VALUE:
            body, at = _text(data, at, end)
        elif section == _DATA:
            chunk, at = _chunk(data, at, end)
            chunks.append(chunk)
        else:
            at = codec.skip(data, at, end)
    if chunks:
        body = _utf8(b"".join(chunks))
    message_id, reply_to, correlation_id = properties[0], properties[4], properties[5]
    for value in (message_id, correlation_id):
        if not isinstance(value, (str, int, bytes, uuid.UUID, type(None))) or isinstance(value, bool):
            raise errors.DecodeError("the message id or correlation id of a message has the wrong type")
    if not isinstance(reply_to, (str, type(None))):
        raise errors.DecodeError("the reply address of a message is not text")
    return Message(message_id, reply_to or "", correlation_id, body)


def _section(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return the type of the section at ``at``, and the position of its value."""
    if data.startswith(b"\x00\x53", at) and at + 3 < end:
        descriptor: object = data[at + 2]
        after = at + 3
    else:
        after = codec.skip(data, at + 1, end)
        if data[at] != 0 or after - at > _MAX_DESCRIPTOR_SIZE:
            raise errors.DecodeError("a section of a message has no known type")
        descriptor, _ = codec.decode(data, at + 1, after)
    code = _SECTIONS.get(descriptor) if isinstance(descriptor, (int, str)) else None
    if code is None:
        raise errors.DecodeError("a section of a message has no known type")
    if after >= end:
        raise errors.DecodeError("a section of a message is cut off")
    return code, after


def _properties(data: bytes, at: int, end: int) -> tuple[list[typing.Any], int]:
    if data[at] == 0xD0 and codec.skip(data, at, end) - at > _MAX_PROPERTIES_SIZE:
        raise errors.DecodeError("the properties of a message are too large")
    if data[at] not in (0x45, 0xC0, 0xD0):
        raise errors.DecodeError("the properties of a message are not a list")
    found, after = codec.decode(data, at, end)
    properties = typing.cast("list[typing.Any]", found)
    return properties + [None] * (6 - len(properties)), after


def _text(data: bytes, at: int, end: int) -> tuple[str | None, int]:
    if data[at] not in (0x40, 0xA0, 0xA1, 0xB0, 0xB1):  # null, or binary or a string of either width
        raise errors.DecodeError(_NO_TEXT)
    value, after = codec.decode(data, at, end)
    return (_utf8(value) if isinstance(value, bytes) else typing.cast("str | None", value)), after


def _chunk(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    if data[at] not in (0xA0, 0xB0):
        raise errors.DecodeError(_NO_TEXT)
    value, after = codec.decode(data, at, end)
    return typing.cast(bytes, value), after


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise errors.DecodeError("the body of a message is not UTF-8") from None
