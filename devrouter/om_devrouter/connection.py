"""One AMQP connection: a socket, proton's transport for it, and the links that live on it."""

from __future__ import annotations

import logging
import socket
import time
from typing import Any, Callable

import proton

import om_devrouter
from om_devrouter import config, deliveries, policy, router, security

LOG = logging.getLogger(__name__)

#: How often a ready socket is read before the others get their turn; each time takes what proton has room for.
_READS_PER_TURN = 16
#: Bytes of a session that proton may hold unread: the window behind the back-pressure on large messages.
_SESSION_BYTES = 4 * 1024 * 1024


class Connection(router.Peer):
    """The server's end of a connection. ``wants_write`` says that the socket refused some output.

    :param touch: called when there is output to write
    """

    def __init__(
        self,
        number: int,
        sock: socket.socket,
        listener: config.Listener,
        guard: security.Security,
        collector: Any,
        touch: Callable[[Connection], None],
    ) -> None:
        self.number = number
        self.sock = sock
        self.listener = listener
        self.ends: set[router.End] = set()
        self.permit: policy.Permit | None = None
        self.sessions = self.senders = self.receivers = 0
        self.stalled: dict[deliveries.ConsumerLink, None] = {}
        self.wants_write = False
        self.opened = False
        self.container: str | None = None
        self.properties: dict[str, str] = {}
        self.deadline = 0.0
        self.started = time.monotonic()
        self.host = str(sock.getpeername()[0])
        self.remote = endpoint(sock.getpeername())
        self._touch = touch
        self.connection: Any = proton.Connection()
        self.connection.peer = self
        self.connection.collect(collector)
        self.transport: Any = proton.Transport(proton.Transport.SERVER)
        self.transport.max_frame_size = listener.max_frame_size
        self.transport.channel_max = listener.max_sessions - 1
        self.transport.idle_timeout = listener.idle_timeout
        guard.apply(self.transport)
        self.transport.bind(self.connection)

    def touch(self) -> None:
        """Have the output written in this turn of the loop."""
        self._touch(self)

    @property
    def refused(self) -> bool:
        """Whether this side has closed it: what the peer had sent before it knew is not answered."""
        return bool(self.connection.state & proton.Endpoint.LOCAL_CLOSED)

    def open(self, router_id: str) -> None:
        """Answer the peer's open, with what its permit asks (policy.c, qd_policy_amqp_open)."""
        self.container = self.connection.remote_container
        self.properties = {str(key): str(value) for key, value in (self.connection.remote_properties or {}).items()}
        if self.permit is not None:
            group = self.permit.group
            if group.max_frame_size:
                self.transport.max_frame_size = max(512, group.max_frame_size)
            if group.max_sessions:
                self.transport.channel_max = group.max_sessions - 1
        self._introduce(router_id)
        self.connection.open()
        self.opened = True
        LOG.debug("[C%d] open: container %s", self.number, policy.shown(self.container))

    def refuse(self, router_id: str | None, denial: policy.Denial) -> None:
        """Answer the peer's open with a close; proton sends the open that belongs before it.

        :param router_id: None when it may be open already
        """
        if router_id is not None:
            self._introduce(router_id)
        self.connection.condition = proton.Condition(denial.condition, denial.description)
        self.connection.close()

    def _introduce(self, router_id: str) -> None:
        self.connection.container = router_id
        self.connection.offered_capabilities = [proton.symbol("ANONYMOUS-RELAY")]
        self.connection.properties = {
            proton.symbol("product"): om_devrouter.PRODUCT,
            proton.symbol("version"): om_devrouter.__version__,
        }

    def open_session(self, session: Any) -> None:
        """Answer the peer's begin."""
        self.sessions += 1
        session.incoming_capacity = _SESSION_BYTES
        session.open()

    def read(self) -> None:
        """Hand proton what the socket has."""
        for _ in range(_READS_PER_TURN):
            capacity = self._capacity()
            if capacity <= 0:
                return
            try:
                data = self.sock.recv(capacity)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            try:
                if not data:
                    self.transport.close_tail()
                    return
                self.transport.push(data)
            except proton.TransportException as exc:
                LOG.debug("[C%d] input: %s", self.number, exc)
                return
            if len(data) < capacity:
                return

    def _capacity(self) -> int:
        """Bytes that proton has room for; negative when it wants no more."""
        try:
            return int(self.transport.capacity())
        except proton.TransportException:
            return -1

    @property
    def reading(self) -> bool:
        """Whether input is still of interest."""
        return self._capacity() >= 0

    def flush(self) -> None:
        """Write until proton has nothing more or the socket takes no more; then let stalled links go on."""
        while True:
            self.wants_write = not self._write()
            if not self.stalled or self.wants_write:
                return
            stalled, self.stalled = self.stalled, {}
            for end in stalled:
                end.pump()
            if self.stalled.keys() == stalled.keys() and self._pending() <= 0:
                # The peer's session window is shut: its next flow frame brings us back here.
                return

    def _pending(self) -> int:
        try:
            return int(self.transport.pending())
        except proton.TransportException:
            return -1

    def _write(self) -> bool:
        """Write what is pending; False when the socket would block."""
        while True:
            pending = self._pending()
            if pending <= 0:
                return True
            try:
                sent = self.sock.send(self.transport.peek(pending))
            except (BlockingIOError, InterruptedError):
                return False
            except OSError:
                self._broken()
                return True
            self.transport.pop(sent)

    def _broken(self) -> None:
        for close in (self.transport.close_head, self.transport.close_tail):
            try:
                close()
            except proton.TransportException:
                LOG.debug("[C%d] the peer vanished", self.number)

    @property
    def finished(self) -> bool:
        """Whether nothing more can be read or written."""
        return self._pending() < 0 and not self.reading

    def tick(self, now: float) -> None:
        """Let proton keep time: heartbeats, idle peers, and a handshake that takes too long.

        :param now: seconds, monotonic
        """
        limit = self.listener.handshake_timeout
        if limit and not self.opened and now >= self.started + limit:
            LOG.info("[C%d] no open frame within %d s", self.number, limit)
            self._broken()
        due = [float(self.transport.tick(now))]
        if limit and not self.opened:
            due.append(self.started + limit)
        self.deadline = min((when for when in due if when > 0), default=0.0)

    def shut(self, name: str, description: str) -> None:
        """Close with a condition; what does not fit the socket at once is lost."""
        self.connection.condition = proton.Condition(name, description)
        self.connection.close()
        self.flush()

    def release(self) -> None:
        """Give everything back, after the links are gone."""
        self.connection.peer = None
        try:
            self.transport.unbind()
        except proton.TransportException:
            LOG.debug("[C%d] was never bound", self.number)
        self.connection.free()
        self.sock.close()

    def row(self) -> dict[str, Any]:
        """The row of ``connection`` for management."""
        tls = self._tls()
        return {
            "name": "connection/" + self.remote,
            "identity": str(self.number),
            "host": self.remote,
            "role": "normal",
            "protocol": "amqp",
            "dir": "in",
            "container": self.container,
            "sasl": self._mechanism(),
            "isAuthenticated": self.transport.authenticated,
            "user": self.transport.user,
            "isEncrypted": self.transport.encrypted,
            "sslProto": tls[0],
            "sslCipher": tls[1],
            "properties": self.properties,
            "tenant": None,
            "ssl": tls[0] is not None,
            "opened": self.opened,
            "active": True,
            "adminStatus": "enabled",
            "operStatus": "up",
            "uptimeSeconds": int(time.monotonic() - self.started),
            "enableProtocolTrace": False,
        }

    def _mechanism(self) -> str | None:
        mechanism = self.transport.sasl().mech
        return str(mechanism) if mechanism else None

    def _tls(self) -> tuple[str | None, str | None]:
        if self.listener.ssl_profile is None or not self.transport.encrypted:
            return None, None
        tls = self.transport.ssl()
        return tls.protocol_name(), tls.cipher_name()


def endpoint(address: Any) -> str:
    """A socket address as qdrouterd writes it."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
