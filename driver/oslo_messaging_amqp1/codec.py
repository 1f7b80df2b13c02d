"""Encode and decode AMQP 1.0 values (OASIS AMQP 1.0, part 1: Types).

The decoder must be safe with bytes from an untrusted peer. It checks each size against the remaining bytes before it
uses it. It limits nesting to `MAX_DEPTH`. It refuses arrays and lists that announce more elements than they have bytes.
So the length of a value bounds the time and the memory that decoding takes.
"""

from __future__ import annotations

import struct
import typing
import uuid

from oslo_messaging_amqp1 import errors

MAX_DEPTH = 16  # values of the performatives and sections that this package reads are nested at most five times

NULL = b"\x40"
TRUE = b"\x41"
FALSE = b"\x42"


class Symbol(str):
    """An AMQP symbol: ASCII text from a fixed domain, such as a capability or an error condition."""

    __slots__ = ()


class Long(int):
    """An integer that may be negative or have more than 32 bits: not of type ubyte, ushort or uint."""

    __slots__ = ()


class Described(typing.NamedTuple):
    """A described value.

    :param descriptor: a number or a symbol.
    """

    descriptor: object
    value: object


# -- encoding ----------------------------------------------------------------------------------------------------------

_pack_u16 = struct.Struct(">H").pack
_pack_u32 = struct.Struct(">I").pack
_pack_u64 = struct.Struct(">Q").pack
_pack_sizes = struct.Struct(">II").pack


def boolean(value: bool) -> bytes:
    """Encode a boolean."""
    return TRUE if value else FALSE


def ubyte(value: int) -> bytes:
    """Encode an unsigned integer of 8 bits."""
    return bytes((0x50, value))


def ushort(value: int) -> bytes:
    """Encode an unsigned integer of 16 bits."""
    return b"\x60" + _pack_u16(value)


def uint(value: int) -> bytes:
    """Encode an unsigned integer of 32 bits in its shortest form."""
    if value == 0:
        return b"\x43"
    if value < 256:
        return bytes((0x52, value))
    return b"\x70" + _pack_u32(value)


def ulong(value: int) -> bytes:
    """Encode an unsigned integer of 64 bits in its shortest form."""
    if value == 0:
        return b"\x44"
    if value < 256:
        return bytes((0x53, value))
    return b"\x80" + _pack_u64(value)


def timestamp(milliseconds: int) -> bytes:
    """Encode a time, in milliseconds since 1970."""
    return b"\x83" + struct.pack(">q", milliseconds)


def binary(value: bytes) -> bytes:
    """Encode bytes."""
    if len(value) < 256:
        return bytes((0xA0, len(value))) + value
    return b"\xb0" + _pack_u32(len(value)) + value


def string(value: str) -> bytes:
    """Encode text as UTF-8."""
    encoded = value.encode("utf-8")
    if len(encoded) < 256:
        return bytes((0xA1, len(encoded))) + encoded
    return b"\xb1" + _pack_u32(len(encoded)) + encoded


def symbol(value: str) -> bytes:
    """Encode a symbol.

    :raises UnicodeEncodeError: when it is not ASCII.
    """
    encoded = value.encode("ascii")
    if len(encoded) < 256:
        return bytes((0xA3, len(encoded))) + encoded
    return b"\xb3" + _pack_u32(len(encoded)) + encoded


def compound(items: typing.Sequence[bytes]) -> bytes:
    """Encode a list whose items are encoded already."""
    if not items:
        return b"\x45"
    body = b"".join(items)
    if len(body) < 255 and len(items) < 256:
        return bytes((0xC0, len(body) + 1, len(items))) + body
    return b"\xd0" + _pack_sizes(len(body) + 4, len(items)) + body


def mapping(items: typing.Mapping[bytes, bytes]) -> bytes:
    """Encode a map whose keys and values are encoded already."""
    body = b"".join(key + value for key, value in items.items())
    if len(body) < 255 and 2 * len(items) < 256:
        return bytes((0xC1, len(body) + 1, 2 * len(items))) + body
    return b"\xd1" + _pack_sizes(len(body) + 4, 2 * len(items)) + body


def described(code: int, value: bytes) -> bytes:
    """Encode a described value. ``code`` is its descriptor, a number below 256."""
    return bytes((0x00, 0x53, code)) + value


def composite(code: int, fields: typing.Sequence[bytes | None]) -> bytes:
    """Encode a composite type. None stands for null. Trailing nulls are left out."""
    length = len(fields)
    while length and fields[length - 1] is None:
        length -= 1
    return described(code, compound([NULL if field is None else field for field in fields[:length]]))


# -- decoding ----------------------------------------------------------------------------------------------------------

_u16 = struct.Struct(">H").unpack_from
_u32 = struct.Struct(">I").unpack_from
_u64 = struct.Struct(">Q").unpack_from

_Decoded = tuple[object, int]
_Decoder = typing.Callable[[bytes, int, int, int], _Decoded]


def decode(data: bytes, start: int = 0, end: int | None = None) -> _Decoded:
    """Decode the value that begins at ``start``. Return it and the position after it.

    A null becomes None, a list or array a list, a map a dict, a described value `Described`.

    :raises errors.DecodeError: when there is no valid value between ``start`` and ``end``.
    """
    return _value(data, start, len(data) if end is None else end, MAX_DEPTH)


def skip(data: bytes, at: int, end: int) -> int:
    """Return the position after the value at ``at``, without decoding or checking its content.

    :raises errors.DecodeError: when it ends after ``end``.
    """
    values = 1
    while values:
        if at >= end:
            raise errors.DecodeError("a value is cut off")
        code = data[at]
        at += 1
        values -= 1
        if code == 0:  # a descriptor and a value follow
            values += 2
        elif code < 0xA0:
            at += _WIDTHS.get(code >> 4, end)
        else:
            at = _span(data, at, end, bool(code & 0x10))[1]
    if at > end:
        raise errors.DecodeError("a value is cut off")
    return at


_WIDTHS = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}


def _value(data: bytes, at: int, end: int, depth: int) -> _Decoded:
    if at >= end:
        raise errors.DecodeError("a value is cut off")
    decoder = _DECODERS[data[at]]
    if decoder is None:
        raise errors.DecodeError(f"there is no AMQP type with the code 0x{data[at]:02x}")
    return decoder(data, at + 1, end, depth)


def _constant(value: object) -> _Decoder:
    def read(data: bytes, at: int, end: int, depth: int) -> _Decoded:
        return value, at

    return read


def _fixed(form: str, convert: typing.Callable[[typing.Any], object] | None = None) -> _Decoder:
    reader = struct.Struct(form)
    size, unpack = reader.size, reader.unpack_from

    def read(data: bytes, at: int, end: int, depth: int) -> _Decoded:
        after = at + size
        if after > end:
            raise errors.DecodeError("a number is cut off")
        value = unpack(data, at)[0]
        return (value if convert is None else convert(value)), after

    return read


def _small(data: bytes, at: int, end: int, depth: int) -> _Decoded:
    if at >= end:
        raise errors.DecodeError("a number is cut off")
    return data[at], at + 1


def _character(code: int) -> str:
    if code > 0x10FFFF:
        raise errors.DecodeError("a character is outside Unicode")
    return chr(code)


def _span(data: bytes, at: int, end: int, wide: bool) -> tuple[int, int]:
    """Return the positions where the content of a variable-width value begins and ends."""
    first = at + (4 if wide else 1)
    if first > end:
        raise errors.DecodeError("a size is cut off")
    after = first + (_u32(data, at)[0] if wide else data[at])
    if after > end:
        raise errors.DecodeError("a value is longer than the value or frame around it")
    return first, after


def _text(wide: bool) -> _Decoder:
    def read(data: bytes, at: int, end: int, depth: int) -> _Decoded:
        first, after = _span(data, at, end, wide)
        try:
            return str(data[first:after], "utf-8"), after
        except UnicodeDecodeError:
            raise errors.DecodeError("a string is not UTF-8") from None

    return read


def _symbol(wide: bool) -> _Decoder:
    def read(data: bytes, at: int, end: int, depth: int) -> _Decoded:
        first, after = _span(data, at, end, wide)
        try:
            return Symbol(str(data[first:after], "ascii")), after
        except UnicodeDecodeError:
            raise errors.DecodeError("a symbol is not ASCII") from None

    return read


def _binary(wide: bool) -> _Decoder:
    def read(data: bytes, at: int, end: int, depth: int) -> _Decoded:
        first, after = _span(data, at, end, wide)
        return bytes(data[first:after]), after

    return read


def _counted(data: bytes, at: int, end: int, wide: bool) -> tuple[int, int, int]:
    """Return the number of elements of a compound value, and the positions where they begin and end."""
    first, after = _span(data, at, end, wide)
    body = first + (4 if wide else 1)
    if body > after:
        raise errors.DecodeError("a count is cut off")
    count = _u32(data, first)[0] if wide else data[first]
    if count > after - body:  # each element takes at least one byte
        raise errors.DecodeError("a list announces more elements than it has room for")
    return count, body, after


_EMPTY_VALUES = {0x40: None, 0x41: True, 0x42: False, 0x43: 0, 0x44: 0}
_BYTE_VALUES = frozenset((0x50, 0x52, 0x53))


def _list8(data: bytes, at: int, end: int, depth: int) -> _Decoded:
    """Decode a list of up to 255 bytes. Decode the most frequent types here, to save a call for each field."""
    count, at, after = _counted(data, at, end, False)
    if depth == 0:
        raise errors.DecodeError("values are nested too deeply")
    items: list[object] = []
    append = items.append
    try:
        for _ in range(count):
            code = data[at]
            if code in _EMPTY_VALUES:
                append(_EMPTY_VALUES[code])
                at += 1
            elif code in _BYTE_VALUES:
                append(data[at + 1])
                at += 2
            elif code == 0x70:
                append(_u32(data, at + 1)[0])
                at += 5
            elif code == 0xA0:
                first = at + 2
                at = first + data[at + 1]
                append(data[first:at])
            elif code == 0xA1:
                first = at + 2
                at = first + data[at + 1]
                append(str(data[first:at], "utf-8"))
            else:
                item, at = _value(data, at, after, depth - 1)
                append(item)
    except (IndexError, struct.error):
        raise errors.DecodeError("a value is cut off") from None
    except UnicodeDecodeError:
        raise errors.DecodeError("a string is not UTF-8") from None
    if at != after:
        raise errors.DecodeError("the elements of a list do not end where it ends")
    return items, after


def _list32(data: bytes, at: int, end: int, depth: int) -> _Decoded:
    count, at, after = _counted(data, at, end, True)
    if depth == 0:
        raise errors.DecodeError("values are nested too deeply")
    items = []
    for _ in range(count):
        item, at = _value(data, at, after, depth - 1)
        items.append(item)
    if at != after:
        raise errors.DecodeError("the elements of a list do not end where it ends")
    return items, after


def _map(wide: bool) -> _Decoder:
    read_list = _list32 if wide else _list8

    def read(data: bytes, at: int, end: int, depth: int) -> _Decoded:
        items, after = read_list(data, at, end, depth)
        assert isinstance(items, list)
        if len(items) % 2:
            raise errors.DecodeError("a map has a key without a value")
        if not _KEYS.issuperset(map(type, items[::2])):
            raise errors.DecodeError("a key of a map has a type that is not allowed")
        return dict(zip(items[::2], items[1::2])), after

    return read


def _array(wide: bool) -> _Decoder:
    def read(data: bytes, at: int, end: int, depth: int) -> _Decoded:
        first, after = _span(data, at, end, wide)
        body = first + (4 if wide else 1)
        if body > after:
            raise errors.DecodeError("a count is cut off")
        count = _u32(data, first)[0] if wide else data[first]
        if depth == 0:
            raise errors.DecodeError("values are nested too deeply")
        descriptor, described_items, at = None, False, body
        if at < after and data[at] == 0:
            descriptor, at = _value(data, at + 1, after, depth - 1)
            described_items = True
        if at >= after:
            raise errors.DecodeError("an array has no type")
        decoder = _DECODERS[data[at]]
        if decoder is None or data[at] == 0:
            raise errors.DecodeError("an array has elements of an unknown type")
        # Elements of a type without content take no bytes. The size does not limit their number, so 255 does.
        if (data[at] in _EMPTY and count > 255) or (data[at] not in _EMPTY and count > after - at - 1):
            raise errors.DecodeError("an array announces more elements than it has room for")
        at += 1
        items: list[object] = []
        for _ in range(count):
            item, at = decoder(data, at, after, depth - 1)
            items.append(Described(descriptor, item) if described_items else item)
        if at != after:
            raise errors.DecodeError("an array is longer than its elements")
        return items, after

    return read


def _described(data: bytes, at: int, end: int, depth: int) -> _Decoded:
    if depth == 0:
        raise errors.DecodeError("values are nested too deeply")
    descriptor, at = _value(data, at, end, depth - 1)
    value, at = _value(data, at, end, depth - 1)
    return Described(descriptor, value), at


def _uuid(value: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=value)


# With keys of other types, a peer could choose keys whose hashes are all equal. Filling a dict would then take
# quadratic time.
_KEYS = frozenset((str, Symbol, int, Long, bool, bytes, type(None)))

_EMPTY = frozenset((0x40, 0x41, 0x42, 0x43, 0x44, 0x45))

_BY_CODE: dict[int, _Decoder] = {
    0x00: _described,
    0x40: _constant(None),
    0x41: _constant(True),
    0x42: _constant(False),
    0x43: _constant(0),
    0x44: _constant(0),
    0x50: _small,
    0x51: _fixed(">b", Long),
    0x52: _small,
    0x53: _small,
    0x54: _fixed(">b", Long),
    0x55: _fixed(">b", Long),
    0x56: _fixed(">B", bool),
    0x60: _fixed(">H"),
    0x61: _fixed(">h", Long),
    0x70: _fixed(">I"),
    0x71: _fixed(">i", Long),
    0x72: _fixed(">f"),
    0x73: _fixed(">I", _character),
    0x74: _fixed(">4s"),  # decimal: kept as bytes, because this package uses none
    0x80: _fixed(">Q", Long),
    0x81: _fixed(">q", Long),
    0x82: _fixed(">d"),
    0x83: _fixed(">q", Long),
    0x84: _fixed(">8s"),
    0x94: _fixed(">16s"),
    0x98: _fixed(">16s", _uuid),
    0xA0: _binary(False),
    0xA1: _text(False),
    0xA3: _symbol(False),
    0xB0: _binary(True),
    0xB1: _text(True),
    0xB3: _symbol(True),
    0xC0: _list8,
    0xC1: _map(False),
    0xD0: _list32,
    0xD1: _map(True),
    0xE0: _array(False),
    0xF0: _array(True),
}


def _empty_list(data: bytes, at: int, end: int, depth: int) -> _Decoded:
    return [], at


_BY_CODE[0x45] = _empty_list
_DECODERS: tuple[_Decoder | None, ...] = tuple(_BY_CODE.get(code) for code in range(256))
