"""The other end of a connection, as a test scripts it: performatives of a router, and a socket that speaks them."""

from __future__ import annotations

import collections.abc
import contextlib
import socket
import struct
import threading
import typing

from oslo_messaging_amqp1 import codec, errors, frames

MANY = 0x7FFFFFFF


def opened(product: str = "test-router", max_frame: int = 16384, idle: float = 0) -> bytes:
    return frames.frame(frames.open_("peer", "", max_frame, 0, idle, {"product": product}))


def begun(window: int = MANY) -> bytes:
    fields = (codec.ushort(0), codec.uint(0), codec.uint(window), codec.uint(MANY), codec.uint(MANY))
    return frames.frame(codec.composite(frames.BEGIN, fields))


def attached(name: str, handle: int, sends: bool, address: str | None) -> bytes:
    """Answer an attach: ``sends`` says whether the peer sends over this link; no ``address`` refuses it."""
    where = None if address is None else (codec.string(address),)
    source = None if where is None else codec.composite(frames.SOURCE, where)
    target = None if where is None else codec.composite(frames.TARGET, where)
    fields = (codec.string(name), codec.uint(handle), codec.boolean(not sends), None, None, source, target)
    return frames.frame(codec.composite(frames.ATTACH, fields))


def credit(handle: int, count: int, credit: int, window: int = MANY, incoming: int = 0, drain: bool = False) -> bytes:
    return frames.frame(frames.flow(incoming, window, 0, MANY, handle, count, credit, drain))


def asked(handle: int | None, count: int | None, credit: int | None) -> bytes:
    """A flow that wants an answer."""
    link = [None if value is None else codec.uint(value) for value in (handle, count, credit)]
    fields = [codec.uint(0), codec.uint(MANY), codec.uint(0), codec.uint(MANY), *link, None, None, codec.TRUE]
    return frames.frame(codec.composite(frames.FLOW, fields))


def window(incoming: int, size: int) -> bytes:
    return frames.frame(frames.flow(incoming, size, 0, MANY))


def transfer(
    handle: int, number: int | None, payload: bytes, more: bool = False, settled: bool = False, aborted: bool = False
) -> bytes:
    fields = [codec.uint(handle), None if number is None else codec.uint(number), None, None, codec.boolean(settled)]
    fields += [codec.boolean(more), None, None, None, codec.boolean(aborted)]
    return frames.frame(codec.composite(frames.TRANSFER, fields), payload)


def disposed(first: int, last: int | None, state: bytes | None, settled: bool = True, receiver: bool = True) -> bytes:
    fields = (codec.boolean(receiver), codec.uint(first), None if last is None else codec.uint(last))
    return frames.frame(codec.composite(frames.DISPOSITION, (*fields, codec.boolean(settled), state)))


def state(code: int, *fields: bytes | None) -> bytes:
    return codec.composite(code, fields)


def detached(handle: int, condition: str = "", description: str = "") -> bytes:
    fault = fault_of(condition, description) if condition else None
    return frames.frame(codec.composite(frames.DETACH, (codec.uint(handle), codec.TRUE, fault)))


def fault_of(condition: str, description: str) -> bytes:
    return codec.composite(frames.ERROR, (codec.symbol(condition), codec.string(description)))


class Seen(typing.NamedTuple):
    """A performative that this side sent."""

    code: int
    fields: frames.Fields
    payload: bytes


def read(data: bytes) -> list[Seen]:
    """What this side sent; empty frames are left out."""
    found = []
    at = 0
    while at < len(data):
        size = struct.unpack_from(">I", data, at)[0]
        body = data[at + frames.HEADER_SIZE : at + size]
        if body:
            code, fields, after = frames.parse(body)
            found.append(Seen(code, fields, body[after:]))
        at += size
    return found


class Server:
    """A listening socket; what becomes of each connection is ``serve``'s business.

    :ivar failed: what ``serve`` raised.
    """

    def __init__(self, serve: collections.abc.Callable[[socket.socket], None], host: str = "127.0.0.1") -> None:
        self._serve = serve
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.failed: list[Exception] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with contextlib.closing(connection):
            try:
                self._serve(connection)
            except (OSError, errors.AmqpError):
                pass
            except Exception as error:
                self.failed.append(error)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


def exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise OSError("closed")
        data += chunk
    return data


def one_frame(connection: socket.socket) -> bytes:
    size = struct.unpack(">I", exactly(connection, 4))[0]
    return exactly(connection, size - 4)[4:]


def log_in(connection: socket.socket, mechanisms: tuple[str, ...] = ("ANONYMOUS",)) -> None:
    """Speak SASL as a router does, and the AMQP header after it."""
    exactly(connection, 8)
    offered = codec.composite(frames.SASL_MECHANISMS, (array(mechanisms),))
    connection.sendall(frames.SASL_HEADER + frames.frame(offered, kind=frames.SASL_FRAME))
    one_frame(connection)
    outcome = codec.composite(frames.SASL_OUTCOME, (codec.ubyte(0),))
    connection.sendall(frames.frame(outcome, kind=frames.SASL_FRAME))
    exactly(connection, 8)
    connection.sendall(frames.AMQP_HEADER)


def array(symbols: tuple[str, ...]) -> bytes:
    """An array of symbols, which this driver itself never sends."""
    body = b"".join(bytes((len(symbol),)) + symbol.encode() for symbol in symbols)
    return b"\xf0" + struct.pack(">II", len(body) + 5, len(symbols)) + b"\xa3" + body


def frames_of(connection: socket.socket) -> collections.abc.Iterator[Seen]:
    """The performatives that this side sends, one after the other."""
    while True:
        yield from read(frames.frame(one_frame(connection)))


def redirected(host: str, port: int) -> bytes:
    info = {codec.symbol("network-host"): codec.string(host), codec.symbol("port"): codec.uint(port)}
    fault = codec.composite(frames.ERROR, (codec.symbol("amqp:connection:redirect"), None, codec.mapping(info)))
    return frames.frame(codec.composite(frames.CLOSE, (fault,)))


def accept_everything(connection: socket.socket) -> None:
    """A router with one consumer for each address, which accepts what comes."""
    log_in(connection)
    for seen in frames_of(connection):
        if seen.code == frames.OPEN:
            connection.sendall(opened())
        elif seen.code == frames.BEGIN:
            connection.sendall(begun())
        elif seen.code == frames.ATTACH:
            name, handle, receives = seen.fields[:3]
            where = "address"
            connection.sendall(attached(name, handle, receives, where))
            if not receives:
                connection.sendall(credit(handle, 0, 1000))
        elif seen.code == frames.TRANSFER and seen.fields[1] is not None:
            connection.sendall(disposed(seen.fields[1], None, state(frames.ACCEPTED)))
        elif seen.code == frames.CLOSE:
            connection.sendall(frames.frame(frames.close()))
            return
