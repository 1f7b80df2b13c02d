"""AMQP 1.0 types: this driver and python-qpid-proton decode what it encodes, and garbage is refused."""

from __future__ import annotations

import contextlib
import struct
import time
import uuid

import hypothesis
import pytest
from hypothesis import strategies
from oslo_messaging_amqp1 import codec, errors

proton = pytest.importorskip("proton", reason="python-qpid-proton is not installed")

QUICK = hypothesis.settings(deadline=None, suppress_health_check=list(hypothesis.HealthCheck))

TEXT = strategies.text(max_size=400)
SCALARS: strategies.SearchStrategy[tuple[object, bytes]] = strategies.one_of(
    strategies.just((None, codec.NULL)),
    strategies.booleans().map(lambda value: (value, codec.boolean(value))),
    strategies.integers(0, 2**32 - 1).map(lambda value: (value, codec.uint(value))),
    strategies.integers(0, 2**64 - 1).map(lambda value: (value, codec.ulong(value))),
    strategies.integers(0, 2**16 - 1).map(lambda value: (value, codec.ushort(value))),
    strategies.integers(-(2**63), 2**63 - 1).map(lambda value: (value, codec.timestamp(value))),
    strategies.binary(max_size=400).map(lambda value: (value, codec.binary(value))),
    TEXT.filter(lambda value: value.isprintable()).map(lambda value: (value, codec.string(value))),
    strategies.from_regex(r"\A[a-z:.-]{1,300}\Z").map(lambda value: (value, codec.symbol(value))),
)


def _list(items: list[tuple[object, bytes]]) -> tuple[object, bytes]:
    return [value for value, _ in items], codec.compound([encoded for _, encoded in items])


VALUES = strategies.recursive(SCALARS, lambda inner: strategies.lists(inner, max_size=300).map(_list), max_leaves=40)


@QUICK
@hypothesis.given(VALUES)
def test_what_is_encoded_is_decoded(value: tuple[object, bytes]) -> None:
    assert codec.decode(value[1]) == (value[0], len(value[1]))


def _by_proton(encoded: bytes) -> object:
    data = proton.Data()
    assert data.decode(encoded) == len(encoded)
    data.rewind()
    data.next()
    found = data.get_object()
    return bytes(found) if isinstance(found, memoryview) else found  # the memory is that of ``data``


@QUICK
@hypothesis.given(SCALARS)
def test_proton_reads_it_alike(value: tuple[object, bytes]) -> None:
    assert _by_proton(value[1]) == value[0]


@pytest.mark.parametrize(
    "value",
    [
        proton.int32(-5), proton.int32(-500), proton.byte(-7), proton.short(-300), -(2**40), proton.ubyte(200), 1.5,
        proton.float32(0.25), proton.char("ß"), proton.timestamp(1), uuid.UUID(int=5), proton.symbol("amqp:x"), b"\xff",
        {"a": [1, True, None]}, ["x" * 300], proton.Described(proton.ulong(0x24), []),
    ],
    ids=repr,
)  # fmt: skip
def test_it_reads_what_proton_wrote(value: object) -> None:
    data = proton.Data()
    data.put_object(value)
    encoded = data.encode()
    found, after = codec.decode(encoded)
    assert after == len(encoded)
    if isinstance(value, proton.Described):
        assert found == codec.Described(0x24, [])
    else:
        assert found == value


def test_arrays() -> None:
    data = proton.Data()
    data.put_array(False, proton.Data.SYMBOL)
    data.enter()
    data.put_symbol("PLAIN")
    data.put_symbol("EXTERNAL")
    data.exit()
    assert codec.decode(data.encode())[0] == ["PLAIN", "EXTERNAL"]


@QUICK
@hypothesis.given(strategies.binary(max_size=200))
def test_garbage_is_refused_and_never_a_defect(data: bytes) -> None:
    try:
        _, after = codec.decode(data)
    except errors.DecodeError:
        return
    assert 0 < after <= len(data)


@QUICK
@hypothesis.given(VALUES, strategies.data())
def test_what_is_cut_off_is_refused(value: tuple[object, bytes], data: strategies.DataObject) -> None:
    size = data.draw(strategies.integers(0, len(value[1]) - 1))
    with pytest.raises(errors.DecodeError):
        codec.decode(value[1][:size])


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("nested lists", b"".join(b"\xd0" + struct.pack(">II", 2**20, 1) for _ in range(5000)) + bytes(2**21)),
        ("nested descriptors", b"\x00" * 5000),
        ("nested lists that fit", None),
        ("a list of 4 thousand million", b"\xd0" + struct.pack(">II", 4, 2**32 - 1)),
        ("an array of 4 thousand million nulls", b"\xf0" + struct.pack(">II", 5, 2**32 - 1) + b"\x40"),
        ("an array of lists without content", b"\xf0" + struct.pack(">II", 5, 2**31) + b"\x45"),
        ("a string of 4 GiB", b"\xb1" + struct.pack(">I", 2**32 - 1) + b"x"),
        ("a map with a key alone", b"\xc1\x02\x01\x40"),
        ("a map whose key is a list", b"\xc1\x03\x02\x45\x40"),
        ("a map whose key is described", b"\xc1\x05\x02\x00\x43\x43\x40"),
        ("no such type", b"\x99"),
        ("a character beyond Unicode", b"\x73\xff\xff\xff\xff"),
        ("not UTF-8", b"\xa1\x01\xff"),
        ("nothing", b""),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_hostile_values(what: str, data: bytes | None) -> None:
    if data is None:
        data = codec.NULL
        for _ in range(100):
            data = codec.compound([data])
    start = time.process_time()
    with pytest.raises(errors.DecodeError):
        codec.decode(data)
    assert time.process_time() - start < 1, what


def test_time_grows_with_the_size_alone() -> None:
    """The elements of a list are read in place: nothing is copied for each level or element."""
    wide = codec.compound([codec.string("x" * 200)] * 20_000)
    start = time.process_time()
    codec.decode(wide)
    assert time.process_time() - start < 2


def test_keys_that_collide_take_no_quadratic_time() -> None:
    """Python hashes a UUID by its number modulo 2**61 - 1, so that a peer could choose any number of them alike."""
    keys = [b"\x98" + ((2**61 - 1) * number).to_bytes(16, "big") for number in range(20_000)]
    encoded = codec.mapping(dict.fromkeys(keys, codec.NULL))
    start = time.process_time()
    with pytest.raises(errors.DecodeError, match="a key of a map"):
        codec.decode(encoded)
    assert time.process_time() - start < 1


@QUICK
@hypothesis.given(VALUES)
def test_what_is_skipped_ends_where_it_ends(value: tuple[object, bytes]) -> None:
    assert codec.skip(value[1] + b"\x40", 0, len(value[1]) + 1) == len(value[1])


@QUICK
@hypothesis.given(strategies.binary(max_size=200))
def test_what_can_be_decoded_can_be_skipped(data: bytes) -> None:
    try:
        _, after = codec.decode(data)
    except errors.DecodeError:
        with contextlib.suppress(errors.DecodeError):
            assert 0 < codec.skip(data, 0, len(data)) <= len(data)
        return
    assert codec.skip(data, 0, len(data)) == after
