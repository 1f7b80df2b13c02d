"""Encode frames and performatives, and decode and check them (OASIS AMQP 1.0, parts 2 and 5).

A decoded performative is a list of all fields of its type, in the order of the specification. A field that the peer
left out is None. `parse` checks the type of each field, so that its users need not.
"""

from __future__ import annotations

import struct
import typing

from oslo_messaging_amqp1 import codec, errors

AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"
HEADER_SIZE = 8  # of a protocol header, and of a frame's own header
MIN_MAX_FRAME_SIZE = 512  # every peer must accept frames of this size (part 2.7.1)

AMQP_FRAME, SASL_FRAME = 0, 1

OPEN, BEGIN, ATTACH, FLOW, TRANSFER, DISPOSITION, DETACH, END, CLOSE = range(0x10, 0x19)
ERROR = 0x1D
RECEIVED, ACCEPTED, REJECTED, RELEASED, MODIFIED = 0x23, 0x24, 0x25, 0x26, 0x27
SOURCE, TARGET = 0x28, 0x29
SASL_MECHANISMS, SASL_INIT, SASL_CHALLENGE, SASL_RESPONSE, SASL_OUTCOME = range(0x40, 0x45)

_BY_NAME = {
    "amqp:open:list": OPEN, "amqp:begin:list": BEGIN, "amqp:attach:list": ATTACH, "amqp:flow:list": FLOW,
    "amqp:transfer:list": TRANSFER, "amqp:disposition:list": DISPOSITION, "amqp:detach:list": DETACH,
    "amqp:end:list": END, "amqp:close:list": CLOSE, "amqp:error:list": ERROR, "amqp:received:list": RECEIVED,
    "amqp:accepted:list": ACCEPTED, "amqp:rejected:list": REJECTED, "amqp:released:list": RELEASED,
    "amqp:modified:list": MODIFIED, "amqp:source:list": SOURCE, "amqp:target:list": TARGET,
    "amqp:sasl-mechanisms:list": SASL_MECHANISMS, "amqp:sasl-init:list": SASL_INIT,
    "amqp:sasl-challenge:list": SASL_CHALLENGE, "amqp:sasl-response:list": SASL_RESPONSE,
    "amqp:sasl-outcome:list": SASL_OUTCOME,
}  # fmt: skip

Fields = list[typing.Any]
_Kinds = tuple[type, ...]

_UINT: _Kinds = (int,)
_ULONG: _Kinds = (int, codec.Long)
_BOOL: _Kinds = (bool,)
_TEXT: _Kinds = (str, codec.Symbol)
_BYTES: _Kinds = (bytes,)
_STATE: _Kinds = (codec.Described,)
_MAP: _Kinds = (dict,)
_SYMBOLS: _Kinds = (codec.Symbol, str, list)
_ANY: _Kinds = ()

# For each performative, the types that each field may have, and the indexes of the mandatory fields.
_FIELDS: dict[int, tuple[tuple[_Kinds, ...], tuple[int, ...]]] = {
    OPEN: ((_TEXT, _TEXT, _UINT, _UINT, _UINT, _SYMBOLS, _SYMBOLS, _SYMBOLS, _SYMBOLS, _MAP), (0,)),
    BEGIN: ((_UINT, _UINT, _UINT, _UINT, _UINT, _SYMBOLS, _SYMBOLS, _MAP), (1, 2, 3)),
    ATTACH: (
        (_TEXT, _UINT, _BOOL, _UINT, _UINT, _STATE, _STATE, _MAP, _BOOL, _UINT, _ULONG, _SYMBOLS, _SYMBOLS, _MAP),
        (0, 1, 2),
    ),
    FLOW: ((_UINT, _UINT, _UINT, _UINT, _UINT, _UINT, _UINT, _UINT, _BOOL, _BOOL, _MAP), (1, 2, 3)),
    TRANSFER: ((_UINT, _UINT, _BYTES, _UINT, _BOOL, _BOOL, _UINT, _STATE, _BOOL, _BOOL, _BOOL), (0,)),
    DISPOSITION: ((_BOOL, _UINT, _UINT, _BOOL, _STATE, _BOOL), (0, 1)),
    DETACH: ((_UINT, _BOOL, _STATE), (0,)),
    END: ((_STATE,), ()),
    CLOSE: ((_STATE,), ()),
    ERROR: ((_TEXT, _TEXT, _MAP), (0,)),
    RECEIVED: ((_UINT, _ULONG), ()),
    ACCEPTED: ((), ()),
    REJECTED: ((_STATE,), ()),
    RELEASED: ((), ()),
    MODIFIED: ((_BOOL, _BOOL, _MAP), ()),
    SOURCE: ((_TEXT, _UINT, _ANY, _UINT, _BOOL, _MAP, _TEXT, _MAP, _STATE, _SYMBOLS, _SYMBOLS), ()),
    TARGET: ((_TEXT, _UINT, _ANY, _UINT, _BOOL, _MAP, _SYMBOLS), ()),
    SASL_MECHANISMS: ((_SYMBOLS,), (0,)),
    SASL_CHALLENGE: ((_BYTES,), (0,)),
    SASL_OUTCOME: ((_UINT, _BYTES), (0,)),
}

_pack_header = struct.Struct(">IBBH").pack


def frame(performative: bytes, payload: bytes = b"", channel: int = 0, kind: int = AMQP_FRAME) -> bytes:
    """Return one frame."""
    return _pack_header(HEADER_SIZE + len(performative) + len(payload), 2, kind, channel) + performative + payload


_MAX_LOGGED = 300  # characters of the peer's text

EMPTY_FRAME = frame(b"")  # a keepalive


def parse(body: bytes) -> tuple[int, Fields, int]:
    """Return the code and the fields of a frame's performative, and the position of its payload.

    :raises errors.DecodeError: when there is no performative, or one of its fields is not valid.
    """
    if body.startswith(_NUMBERED) and len(body) > 3:
        value, after = codec.decode(body, 3)
        return body[2], _checked(body[2], value), after
    value, after = codec.decode(body)
    code, fields = composite(value)
    return code, fields, after


def composite(value: object) -> tuple[int, Fields]:
    """Return the code and the checked fields of a composite value.

    :raises errors.DecodeError: when its type is unknown, or one of its fields is not valid.
    """
    if not isinstance(value, codec.Described):
        raise errors.DecodeError("a performative is missing")
    code = value.descriptor
    if isinstance(code, str):
        code = _BY_NAME.get(code)
    if not isinstance(code, int):
        raise errors.DecodeError("a performative has an unknown type")
    return code, _checked(code, value.value)


_NUMBERED = b"\x00\x53"  # begins a value whose descriptor is a small number
_known_shapes: set[tuple[object, ...]] = set()  # codes with field types that passed `_check_shape`
_MAX_SHAPES = 1000  # few occur in practice, but a hostile peer could send any number


def _checked(code: int, fields: object) -> Fields:
    """Check the types of a performative's fields. Return all fields, with None for those that are missing."""
    if code not in _FIELDS or type(fields) is not list:
        raise errors.DecodeError("a performative has an unknown type")
    kinds, required = _FIELDS[code]
    shape = (code, *map(type, fields))
    if shape not in _known_shapes:
        _check_shape(shape[1:], kinds, required)
        if len(_known_shapes) < _MAX_SHAPES:
            _known_shapes.add(shape)
    fields += [None] * (len(kinds) - len(fields))
    return fields


def _check_shape(shape: tuple[object, ...], kinds: tuple[_Kinds, ...], required: tuple[int, ...]) -> None:
    if len(shape) > len(kinds):
        raise errors.DecodeError("a performative has too many fields")
    for found, kind in zip(shape, kinds):
        if found is not type(None) and kind and found not in kind:
            raise errors.DecodeError("a field of a performative has the wrong type")
    for index in required:
        if index >= len(shape) or shape[index] is type(None):
            raise errors.DecodeError("a mandatory field of a performative is missing")


def symbols(value: object) -> tuple[str, ...]:
    """Return the symbols of a field that may hold none, one or several."""
    if isinstance(value, list):
        return tuple(str(item) for item in value)
    return () if value is None else (str(value),)


class Fault(typing.NamedTuple):
    """The peer's error for a link, session, connection or message. Its texts are safe to log.

    :param text: condition and description, '' when the peer gave none.
    :param info: further facts for the condition, such as the target of a redirection.
    """

    condition: str = ""
    text: str = ""
    info: typing.Mapping[object, object] = {}


def fault(value: object) -> Fault:
    """Return the content of an error field."""
    if value is None:
        return Fault()
    code, fields = composite(value)
    if code != ERROR:
        return Fault()
    condition, description = readable(fields[0]), readable(fields[1] or "")
    return Fault(condition, f"{condition}: {description}" if description else condition, fields[2] or {})


def readable(text: str) -> str:
    """Return the peer's text in a form that is safe to log: one line, printable and short."""
    return "".join(character if character.isprintable() else "?" for character in text[:_MAX_LOGGED])


# -- encoding ----------------------------------------------------------------------------------------------------------


def open_(
    container: str,
    hostname: str,
    max_frame_size: int,
    channel_max: int,
    idle_timeout: float,
    properties: typing.Mapping[str, str],
) -> bytes:
    """Return an open. ``hostname`` may be ''. ``idle_timeout`` is in seconds, 0 for none."""
    return codec.composite(
        OPEN,
        (
            codec.string(container),
            codec.string(hostname) if hostname else None,
            codec.uint(max_frame_size),
            codec.ushort(channel_max),
            codec.uint(int(idle_timeout * 1000)) if idle_timeout else None,
            None,
            None,
            None,
            None,
            codec.mapping({codec.symbol(key): codec.string(value) for key, value in properties.items()}),
        ),
    )


def begin(next_outgoing_id: int, incoming_window: int, outgoing_window: int, handle_max: int) -> bytes:
    """Return a begin of a session that this side starts."""
    fields = (next_outgoing_id, incoming_window, outgoing_window, handle_max)
    return codec.composite(BEGIN, (None, *(codec.uint(field) for field in fields)))


def attach_sender(name: str, handle: int, address: str) -> bytes:
    """Return an attach of a link that sends to ``address``."""
    return codec.composite(
        ATTACH,
        (
            codec.string(name),
            codec.uint(handle),
            codec.FALSE,  # role: sender
            codec.ubyte(2),  # each delivery may be settled or not
            codec.ubyte(0),  # the receiver settles first
            codec.composite(SOURCE, (codec.string(address),)),
            codec.composite(TARGET, (codec.string(address),)),
            None,
            None,
            codec.uint(0),  # initial delivery count
        ),
    )


def attach_receiver(name: str, handle: int, address: str | None, target: str) -> bytes:
    """Return an attach of a link that receives from ``address``. With None the peer shall create an address."""
    if address is None:
        source = codec.composite(SOURCE, (None, None, None, None, codec.TRUE))
    else:
        source = codec.composite(SOURCE, (codec.string(address),))
    return codec.composite(
        ATTACH,
        (
            codec.string(name),
            codec.uint(handle),
            codec.TRUE,  # role: receiver
            codec.ubyte(2),
            codec.ubyte(0),
            source,
            codec.composite(TARGET, (codec.string(target),)),
        ),
    )


def flow(
    next_incoming_id: int,
    incoming_window: int,
    next_outgoing_id: int,
    outgoing_window: int,
    handle: int | None = None,
    delivery_count: int = 0,
    credit: int = 0,
    drain: bool = False,
) -> bytes:
    """Return a flow of the session, and of the link ``handle`` unless it is None."""
    session = (next_incoming_id, incoming_window, next_outgoing_id, outgoing_window)
    fields = [codec.uint(field) for field in session]
    if handle is not None:
        fields += [codec.uint(handle), codec.uint(delivery_count), codec.uint(credit), codec.NULL]
        fields.append(codec.boolean(drain))
    return codec.composite(FLOW, fields)


_TRANSFER_FIRST = struct.Struct(">BBBBBBBIBIBBIB").pack
_TRANSFER_LAST = struct.Struct(">BBBBBBBIBIBBIBB").pack


def transfer(handle: int, delivery_id: int, settled: bool, more: bool) -> bytes:
    """Return the first transfer of a delivery. Its tag is its id."""
    # All fields have a fixed width, so that one struct encodes them: handle, id, tag, format 0, settled[, more].
    settled_code = 0x41 if settled else 0x42
    if more:
        return _TRANSFER_LAST(
            0x00, 0x53, TRANSFER, 0xC0, 20, 6, 0x70, handle, 0x70, delivery_id, 0xA0, 4, delivery_id, 0x43,
            settled_code,
        ) + codec.TRUE  # fmt: skip
    return _TRANSFER_FIRST(
        0x00, 0x53, TRANSFER, 0xC0, 19, 5, 0x70, handle, 0x70, delivery_id, 0xA0, 4, delivery_id, 0x43
    ) + bytes((settled_code,))  # fmt: skip


def transfer_more(handle: int, more: bool) -> bytes:
    """Return a transfer that continues the delivery of the previous transfer."""
    return codec.composite(TRANSFER, (codec.uint(handle), None, None, None, None, codec.boolean(more)))


_STATES = {
    ACCEPTED: codec.described(ACCEPTED, codec.compound(())),
    RELEASED: codec.described(RELEASED, codec.compound(())),
    MODIFIED: codec.composite(MODIFIED, (codec.TRUE, codec.TRUE)),  # delivery failed, undeliverable here
}


def rejected(condition: str, description: str) -> bytes:
    """Return the state that rejects a message, with an error."""
    fault = codec.composite(ERROR, (codec.symbol(condition), codec.string(description)))
    return codec.composite(REJECTED, (fault,))


_pack_u32 = struct.Struct(">I").pack
_DISPOSITION_START = bytes((0x00, 0x53, DISPOSITION, 0xC0, 13, 5)) + codec.TRUE + b"\x70"
_DISPOSITION_END = codec.NULL + codec.TRUE + _STATES[ACCEPTED]


def disposition(receiver: bool, first: int, last: int, state: int | bytes | None) -> bytes:
    """Return a disposition that settles the deliveries from ``first`` to ``last``.

    :param receiver: whether this side received them.
    :param state: the code of a state, or an encoded state.
    """
    if receiver and first == last and state == ACCEPTED:  # the most frequent case
        return _DISPOSITION_START + _pack_u32(first) + _DISPOSITION_END
    encoded_state = _STATES[state] if isinstance(state, int) else state
    return codec.composite(
        DISPOSITION,
        (
            codec.boolean(receiver),
            codec.uint(first),
            codec.uint(last) if last != first else None,
            codec.TRUE,
            encoded_state,
        ),
    )


def detach(handle: int, fault: bytes | None = None) -> bytes:
    """Return a detach that closes a link."""
    return codec.composite(DETACH, (codec.uint(handle), codec.TRUE, fault))


def close(condition: str = "", description: str = "") -> bytes:
    """Return a close, with an error when ``condition`` names one."""
    fault = codec.composite(ERROR, (codec.symbol(condition), codec.string(description))) if condition else None
    return codec.composite(CLOSE, (fault,))


def sasl_init(mechanism: str, response: bytes | None, hostname: str) -> bytes:
    """Return the content of the SASL frame with which a client begins."""
    return codec.composite(
        SASL_INIT,
        (
            codec.symbol(mechanism),
            None if response is None else codec.binary(response),
            codec.string(hostname) if hostname else None,
        ),
    )


def sasl_response(response: bytes) -> bytes:
    """Return the content of the SASL frame with which a client answers a challenge."""
    return codec.composite(SASL_RESPONSE, (codec.binary(response),))
