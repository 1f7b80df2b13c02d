"""One socket to a router: set it up (TCP, TLS, SASL, protocol header), then read and write without blocking."""

from __future__ import annotations

import collections
import socket
import ssl
import struct
import time
import typing

from oslo_messaging_amqp1 import errors, frames, sasl

_READ_SIZE = 256 * 1024
_RECORD_SIZE = 16 * 1024  # the largest content of a TLS record
_MAX_HANDSHAKE_FRAME = 16 * 1024  # part 5.3.1 limits SASL frames to 512 bytes, but lists of mechanisms can be longer
_MAX_HANDSHAKE_FRAMES = 16


class Tls(typing.NamedTuple):
    """The TLS settings of a connection.

    :param ca_file: '' for the system's authorities.
    :param name: the name that the peer's certificate must contain, '' for the host of the connection.
    """

    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    key_password: str = ""
    name: str = ""

    def __repr__(self) -> str:
        return f"Tls({self.ca_file!r}, {self.certificate_file!r})"

    def context(self) -> ssl.SSLContext:
        """Return a context that verifies the peer and its name.

        :raises errors.HandshakeError: when a file cannot be used.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            # Since Python 3.13 the default refuses certificates for formal reasons, for example when they have no
            # authority key identifier. Routers, RabbitMQ's clients and the in-tree driver accept them.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            if self.certificate_file:
                # With an empty string instead of a function, OpenSSL would ask for the password at the terminal.
                context.load_cert_chain(self.certificate_file, self.key_file or None, lambda: self.key_password)
        except (OSError, ValueError) as error:
            files = ", ".join(path for path in (self.ca_file, self.certificate_file, self.key_file) if path)
            raise errors.HandshakeError(f"TLS cannot use {files or 'the system CA bundle'}: {_reason(error)}") from None
        return context


class Login(typing.NamedTuple):
    """How a connection logs in.

    :param mechanisms: the SASL mechanisms that the configuration allows.
    :param hostname: the virtual host to name in SASL and open, '' for none.
    """

    credentials: sasl.Credentials
    mechanisms: tuple[str, ...] = ()
    tls: Tls | None = None
    hostname: str = ""


class Transport:
    """A socket that is logged in.

    The caller holds one lock while it calls `put`, `take` or `decrypt`. One thread at a time may call `send`, and one
    thread at a time may call `receive`.

    :ivar pending: how many bytes wait because the socket was full.
    :ivar ended: the reason why TLS has ended, '' before that.
    :ivar last_sent: when bytes were last written to the socket.
    """

    def __init__(self, sock: socket.socket, tls: ssl.SSLObject | None, bios: typing.Sequence[ssl.MemoryBIO]):
        self._socket = sock
        self._tls = tls
        self._bios = bios
        self._plain: list[bytes] = []
        self._out: collections.deque[memoryview] = collections.deque()
        self.pending = 0
        self.ended = ""
        self.last_sent = time.monotonic()

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def put(self, data: bytes) -> None:
        """Encrypt bytes if the connection uses TLS. The next `take` returns them.

        :raises errors.ConnectionLost: when TLS has failed.
        """
        if self._tls is None:
            self._plain.append(data)
            return
        try:
            self._tls.write(data)
        except ssl.SSLError as error:  # TLS already failed, while input was decrypted
            raise errors.ConnectionLost(f"TLS failed: {_reason(error)}") from None

    def take(self) -> bytes:
        """Return the bytes to send next, b'' when there are none."""
        if self._tls is not None:
            return self._bios[1].read()  # also TLS's own answers, for example to a key update
        data = self._plain[0] if len(self._plain) == 1 else b"".join(self._plain)
        self._plain.clear()
        return data

    def send(self, data: bytes) -> None:
        """Send the pending bytes and then ``data``, until the socket is full. The rest stays pending.

        :raises errors.ConnectionLost: when the socket has failed.
        """
        if self._out:
            self._out.append(memoryview(data))
            self.pending += len(data)
            self._send_pending()
            return
        sent = self._send(data)
        if sent < len(data):
            self._out.append(memoryview(data)[sent:])
            self.pending += len(data) - sent

    def _send_pending(self) -> None:
        while self._out:
            sent = self._send(self._out[0])
            self.pending -= sent
            if sent < len(self._out[0]):
                self._out[0] = self._out[0][sent:]
                return
            self._out.popleft()

    def _send(self, data: bytes | memoryview) -> int:
        if not data:
            return 0
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise errors.ConnectionLost(f"the connection broke: {_reason(error)}") from None
        self.last_sent = time.monotonic()
        return sent

    def receive(self) -> bytes:
        """Return the bytes that have arrived, b'' when there are none.

        :raises errors.ConnectionLost: when the peer closed the connection, or the socket has failed.
        """
        try:
            data = self._socket.recv(_READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as error:
            raise errors.ConnectionLost(f"the connection broke: {_reason(error)}") from None
        if not data:
            raise errors.ConnectionLost("the peer closed the connection")
        return data

    def decrypt(self, data: bytes) -> bytes:
        """Return received bytes decrypted, or unchanged without TLS.

        When TLS ends or fails, set `ended` and return the bytes that came before.
        """
        if self._tls is None:
            return data
        self._bios[0].write(data)
        chunks = []
        try:
            while self._bios[0].pending or self._tls.pending():
                chunk = self._tls.read(_RECORD_SIZE)  # Python allocates this much for each read, so keep it small
                if not chunk:
                    self.ended = "the peer ended TLS"
                    break
                chunks.append(chunk)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.ended = f"TLS failed: {_reason(error)}"
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def close(self) -> None:
        """Close the socket. Pending bytes are lost."""
        self._socket.close()


def spell(host: str, port: int) -> str:
    """Return ``host:port``, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connect(host: str, port: int, login: Login, seconds: float) -> tuple[Transport, bytes]:
    """Return a connection that is logged in, and the bytes that the peer already sent after its protocol header.

    :param seconds: the time limit for all steps together.
    :raises errors.HandshakeError: when the connection cannot be set up in that time.
    """
    deadline = time.monotonic() + seconds
    context = login.tls.context() if login.tls else None
    peer = spell(host, port)
    try:
        sock = _open_socket(host, port, deadline)
    except (OSError, ValueError) as error:  # a ValueError for a name with characters that are not allowed
        raise errors.HandshakeError(f"{peer} cannot be reached: {_reason(error)}") from None
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handshake = _Handshake(sock, deadline)
        if context and login.tls:
            handshake.start_tls(context, login.tls.name or host)
        _log_in(handshake, login, encrypted=context is not None)
        handshake.exchange_header(frames.AMQP_HEADER)
        sock.setblocking(False)
        connected = Transport(sock, handshake.tls, handshake.bios)
        rest = handshake.rest + connected.decrypt(b"")  # bytes that came together with the end of the login
        if connected.ended:
            raise errors.ConnectionLost(connected.ended)
        return connected, rest
    except errors.HandshakeError as error:
        sock.close()
        raise errors.HandshakeError(f"{peer}: {error}", error.condition) from None
    except errors.AmqpError as error:
        sock.close()
        raise errors.HandshakeError(f"{peer} does not speak AMQP 1.0 as expected: {error}") from None
    except (OSError, ValueError) as error:
        sock.close()
        raise errors.HandshakeError(f"{peer}: {_reason(error)}") from None


def _open_socket(host: str, port: int, deadline: float) -> socket.socket:
    """Return a socket to the first address of ``host`` that answers. All addresses and the login share the time."""
    failure: OSError = OSError("the name has no address")
    # By position, because eventlet 0.33 of Debian 12 gives the fourth argument another name.
    found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    for left, (family, kind, protocol, _, address) in zip(range(len(found), 0, -1), found):
        sock = socket.socket(family, kind, protocol)
        try:
            # An address that drops packets must leave time for the other addresses, and for the login.
            share = (deadline - time.monotonic()) / (left + 1)
            sock.settimeout(max(0.001, share))
            sock.connect(address)
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise failure


class _Handshake:
    """A socket during the login: blocking, with a deadline for everything together."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._socket = sock
        self._deadline = deadline
        self.tls: ssl.SSLObject | None = None
        self.bios: tuple[ssl.MemoryBIO, ...] = ()
        self.rest = b""

    def start_tls(self, context: ssl.SSLContext, name: str) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._send(outgoing.read())
                incoming.write(self._receive())
            except ssl.SSLError as error:
                alert = outgoing.read()
                if alert:
                    self._send(alert)
                raise errors.HandshakeError(f"TLS failed: {_reason(error)}") from None
        self._send(outgoing.read())
        self.tls, self.bios = tls, (incoming, outgoing)

    def write(self, data: bytes) -> None:
        if self.tls:
            self.tls.write(data)
            data = self.bios[1].read()
        self._send(data)

    def read(self, size: int) -> bytes:
        while len(self.rest) < size:
            if not self.tls:
                self.rest += self._receive()
                continue
            try:
                self.rest += self.tls.read(_READ_SIZE) or self._closed()
            except ssl.SSLWantReadError:
                self.bios[0].write(self._receive())
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken

    def exchange_header(self, header: bytes) -> None:
        self.write(header)
        answer = self.read(frames.HEADER_SIZE)
        if answer != header:
            spoken = (
                "no AMQP at all" if answer[:4] != b"AMQP" else f"protocol {answer[4]}, version {answer[5:].hex('.')}"
            )
            wanted = "SASL" if header == frames.SASL_HEADER else "AMQP 1.0"
            raise errors.HandshakeError(f"the peer speaks {spoken}, but {wanted} is needed")

    def read_frame(self) -> tuple[int, frames.Fields]:
        size, offset, kind, _ = struct.unpack(">IBBH", self.read(frames.HEADER_SIZE))
        if not frames.HEADER_SIZE <= size <= _MAX_HANDSHAKE_FRAME or kind != frames.SASL_FRAME or not offset >= 2:
            raise errors.DecodeError("a frame of the login has a wrong size or type")
        body = self.read(size - frames.HEADER_SIZE)
        code, fields, _ = frames.parse(body[4 * offset - frames.HEADER_SIZE :])
        return code, fields

    def _send(self, data: bytes) -> None:
        self._socket.settimeout(self._left())
        self._socket.sendall(data)

    def _receive(self) -> bytes:
        self._socket.settimeout(self._left())
        return self._socket.recv(_READ_SIZE) or self._closed()

    def _closed(self) -> typing.NoReturn:
        raise errors.HandshakeError("the peer closed the connection before it was set up")

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise errors.HandshakeError("the peer did not answer in time")
        return left


def _log_in(handshake: _Handshake, login: Login, encrypted: bool) -> None:
    handshake.exchange_header(frames.SASL_HEADER)
    mechanism: sasl.Mechanism | None = None
    for _ in range(_MAX_HANDSHAKE_FRAMES):
        code, fields = handshake.read_frame()
        if code == frames.SASL_MECHANISMS and mechanism is None:
            offered = frames.symbols(fields[0])
            mechanism = sasl.choose(offered, login.mechanisms, login.credentials, encrypted)
            answer = frames.sasl_init(mechanism.name, mechanism.first(), login.hostname)
        elif code == frames.SASL_CHALLENGE and mechanism is not None:
            answer = frames.sasl_response(mechanism.answer(fields[0]))
        elif code == frames.SASL_OUTCOME and mechanism is not None:
            if fields[0] != 0:
                user = login.credentials.username
                who = f'as "{user}"' if user else "without a user name"
                raise errors.HandshakeError(
                    f"the peer refused the login {who} with {mechanism.name}: check user, password and realm"
                )
            mechanism.finish(fields[1])
            return
        else:
            raise errors.DecodeError("a frame of the login is out of order")
        handshake.write(frames.frame(answer, kind=frames.SASL_FRAME))
    raise errors.HandshakeError(f"the login was not complete after {_MAX_HANDSHAKE_FRAMES} frames")


def _reason(error: Exception) -> str:
    """Return the message of an error, without the number and the source line that Python adds."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"TLS reports {error.reason.lower().replace('_', ' ')}"
    if isinstance(error, (TimeoutError, socket.timeout)):  # two classes in Python 3.9
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
