"""The event loop: sockets, timers and proton's events, all in one thread."""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
import time
from typing import Any, Callable

import cproton
import proton

from om_devrouter import config, connection, errors, outlink, policy, router, security, views

LOG = logging.getLogger(__name__)

#: Longest sleep, in seconds: bounds how stale ``alive_at`` gets.
_NAP = 1.0
_BACKLOG = 128
# Wrapping is untyped in proton.
_WRAP_DELIVERY: Any = proton.Delivery.wrap
_WRAP_LINK: Any = proton.Link.wrap
_WRAP_SESSION: Any = proton.Session.wrap
_WRAP_CONNECTION: Any = proton.Connection.wrap
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Engine:
    """Listeners and connections of one router.

    :raises DevRouterError: when a listener cannot be set up
    """

    def __init__(self, settings: config.Config) -> None:
        self.router = router.Router(settings, views.tables)
        #: When the loop last came round, in seconds, monotonic.
        self.alive_at = time.monotonic()
        self.endpoints: list[tuple[str, config.Listener]] = []
        self._selector = selectors.DefaultSelector()
        self._collector = proton.Collector()
        self._dirty: dict[connection.Connection, None] = {}
        self._garbage: list[tuple[Any, Any]] = []
        self._servers: list[socket.socket] = []
        self._number = 0
        self._stopping = False
        self._alarm, self.waker = socket.socketpair()
        for sock in (self._alarm, self.waker):
            sock.setblocking(False)
        self._selector.register(self._alarm, selectors.EVENT_READ, self._woken)
        self._handlers = self._dispatch_table()
        for listener in settings.listeners:
            if not listener.http:
                self._listen(listener, security.Security(listener, settings))

    # Running.

    def run(self) -> None:
        """Serve until ``stop``."""
        while not self._stopping:
            self.alive_at = time.monotonic()
            for key, mask in self._selector.select(self._patience()):
                key.data(mask)
            self._turn()
            self._keep_time()
        self._shut_down()

    def stop(self) -> None:
        """Make ``run`` return soon. Safe in a signal handler, and from any thread."""
        self._stopping = True
        try:
            self.waker.send(b".")
        except OSError:
            LOG.debug("already awake")

    def _woken(self, mask: int) -> None:
        self._alarm.recv(4096)

    def _patience(self) -> float:
        """Seconds until something is due."""
        due: list[float] = [peer.deadline for peer in self.router.peers if peer.deadline > 0]
        return max(0.0, min([_NAP] + [when - self.alive_at for when in due]))

    def _keep_time(self) -> None:
        now = time.monotonic()
        for peer in [peer for peer in self.router.peers if 0 < peer.deadline <= now]:
            peer.tick(now)
            peer.touch()
        self._turn()

    def _turn(self) -> None:
        """Handle every event and write every output, until both are quiet."""
        while True:
            self._handle_events()
            self.router.resume()
            dirty, self._dirty = self._dirty, {}
            for peer in dirty:
                self._flush(peer)
            garbage, self._garbage = self._garbage, []
            for peer, endpoint in garbage:
                # A connection that is gone has freed its endpoints itself; proton does not survive a second time.
                if peer in self.router.peers:
                    endpoint.free()
            if not (self._dirty or self.router.resumable or garbage or dirty):
                return

    def _touch(self, peer: connection.Connection) -> None:
        self._dirty[peer] = None

    # Sockets.

    def _listen(self, listener: config.Listener, guard: security.Security) -> None:
        server = bind(listener)
        self._servers.append(server)
        self.endpoints.append((_show(server), listener))
        self._selector.register(server, selectors.EVENT_READ, lambda mask: self._accept(server, listener, guard))

    def _accept(self, server: socket.socket, listener: config.Listener, guard: security.Security) -> None:
        try:
            sock, address = server.accept()
        except OSError as exc:
            if exc.errno in _OUT_OF_FILES:
                # The connection stays in the backlog, and the loop would come right back: let others finish.
                LOG.error("cannot accept a connection: %s", exc.strerror)
                time.sleep(0.05)
            return
        if not self.router.admission.accept(str(address[0])):
            sock.close()
            return
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._number += 1
            peer = connection.Connection(self._number, sock, listener, guard, self._collector, self._touch)
        except OSError:
            # The peer is gone already, and must not stay counted.
            self.router.admission.left(self._number, None)
            sock.close()
            return
        LOG.debug("[C%d] accepted from %s on %s", peer.number, peer.remote, listener.name)
        self.router.peers.add(peer)
        self._selector.register(sock, selectors.EVENT_READ, lambda mask: self._ready(peer, mask))
        peer.tick(time.monotonic())
        self._touch(peer)

    def _ready(self, peer: connection.Connection, mask: int) -> None:
        if mask & selectors.EVENT_READ:
            peer.read()
        self._touch(peer)

    def _flush(self, peer: connection.Connection) -> None:
        if peer not in self.router.peers:
            return
        peer.flush()
        if peer.finished:
            self._drop(peer)
            return
        mask = (selectors.EVENT_READ if peer.reading else 0) | (selectors.EVENT_WRITE if peer.wants_write else 0)
        key = self._selector.get_key(peer.sock)
        if key.events != mask:
            # A socket that is half closed may have nothing to wait for but the peer's own close.
            self._selector.modify(peer.sock, mask or selectors.EVENT_READ, key.data)

    def _drop(self, peer: connection.Connection) -> None:
        """Forget a connection and everything attached through it."""
        condition = peer.transport.condition
        LOG.debug("[C%d] gone%s", peer.number, f": {condition.name}" if condition else "")
        self.router.peers.discard(peer)
        self._selector.unregister(peer.sock)
        for end in list(peer.ends):
            self.router.detach(end)
        self.router.admission.left(peer.number, peer.permit)
        peer.release()

    def _shut_down(self) -> None:
        for server in self._servers:
            server.close()
        for peer in list(self.router.peers):
            peer.shut("amqp:connection:forced", "the router is stopping")
            peer.sock.close()
        self._selector.close()

    # Proton's events.

    def _dispatch_table(self) -> dict[int, Callable[[Any], None]]:
        event = proton.Event
        return {
            event.DELIVERY.number: self._on_delivery,
            event.LINK_FLOW.number: self._on_link_flow,
            event.LINK_REMOTE_OPEN.number: self._on_link_open,
            event.LINK_REMOTE_CLOSE.number: self._on_link_close,
            event.LINK_REMOTE_DETACH.number: self._on_link_detach,
            event.SESSION_REMOTE_OPEN.number: self._on_session_open,
            event.SESSION_REMOTE_CLOSE.number: self._on_session_close,
            event.CONNECTION_REMOTE_OPEN.number: self._on_connection_open,
            event.CONNECTION_REMOTE_CLOSE.number: self._on_connection_close,
            event.TRANSPORT_ERROR.number: self._on_transport_error,
        }

    def _handle_events(self) -> None:
        """Dispatch on the C event: proton's Event class wraps five objects each, mostly ones nobody looks at."""
        collector = self._collector._impl
        while True:
            event = cproton.pn_collector_peek(collector)
            if not event:
                return
            handler = self._handlers.get(cproton.pn_event_type(event))
            if handler is not None:
                try:
                    handler(event)
                except UnicodeDecodeError:
                    # Proton decodes a name when it is asked for it, and whoever can connect can send any bytes.
                    self._close_undecodable(event)
            cproton.pn_collector_pop(collector)

    @staticmethod
    def _close_undecodable(event: Any) -> None:
        peer = _WRAP_CONNECTION(cproton.pn_event_connection(event)).peer
        if peer is not None and not peer.refused:
            LOG.info("[C%d] closed: the peer sent text that is not UTF-8", peer.number)
            peer.refuse(None, policy.Denial("amqp:decode-error", "text that is not UTF-8", ""))
            peer.touch()

    def _on_delivery(self, event: Any) -> None:
        delivery = _WRAP_DELIVERY(cproton.pn_event_delivery(event))
        end = getattr(delivery.link, "end", None)
        if isinstance(end, outlink.OutLink):
            end.updated(delivery)
        elif end is not None:
            end.updated(delivery)
            end.read()

    def _on_link_flow(self, event: Any) -> None:
        end = getattr(_WRAP_LINK(cproton.pn_event_link(event)), "end", None)
        if isinstance(end, outlink.OutLink):
            end.pump()
            end.peer.touch()

    def _on_link_open(self, event: Any) -> None:
        link = _WRAP_LINK(cproton.pn_event_link(event))
        peer = link.connection.peer
        if peer is not None and link.state & proton.Endpoint.LOCAL_UNINIT and not peer.refused:
            self.router.attach(peer, link)
            peer.touch()

    def _on_link_close(self, event: Any) -> None:
        self._end_link(_WRAP_LINK(cproton.pn_event_link(event)), detach=False)

    def _on_link_detach(self, event: Any) -> None:
        self._end_link(_WRAP_LINK(cproton.pn_event_link(event)), detach=True)

    def _end_link(self, link: Any, detach: bool) -> None:
        end = getattr(link, "end", None)
        if end is not None:
            self.router.detach(end)
        if detach:
            link.detach()
        else:
            link.close()
        # Freed after the answer is written; otherwise a client that opens a link per call fills the memory.
        peer = link.connection.peer
        if peer is not None:
            self._garbage.append((peer, link))
            peer.touch()

    def _on_session_open(self, event: Any) -> None:
        session = _WRAP_SESSION(cproton.pn_event_session(event))
        peer = session.connection.peer
        if peer is None or peer.refused:
            return
        denial = peer.permit.session(peer.sessions) if peer.permit is not None else None
        if denial is None:
            peer.open_session(session)
            return
        self.router.admission.session_denied(peer.number, peer.permit, denial)
        session.condition = proton.Condition(denial.condition, denial.description)
        session.close()

    def _on_session_close(self, event: Any) -> None:
        session = _WRAP_SESSION(cproton.pn_event_session(event))
        peer = session.connection.peer
        if peer is not None:
            if session.state & proton.Endpoint.LOCAL_ACTIVE:
                peer.sessions -= 1
            for end in [end for end in peer.ends if end.link.session == session]:
                self.router.detach(end)
            self._garbage.append((peer, session))
            peer.touch()
        session.close()

    def _on_connection_open(self, event: Any) -> None:
        peer = _WRAP_CONNECTION(cproton.pn_event_connection(event)).peer
        if peer is not None:
            denial = self.router.admit(peer)
            if denial is None:
                peer.open(self.router.config.router_id)
            else:
                peer.refuse(self.router.config.router_id, denial)
            peer.tick(time.monotonic())
            peer.touch()

    def _on_connection_close(self, event: Any) -> None:
        wrapped = _WRAP_CONNECTION(cproton.pn_event_connection(event))
        wrapped.close()
        if wrapped.peer is not None:
            for end in list(wrapped.peer.ends):
                self.router.detach(end)
            wrapped.peer.touch()

    @staticmethod
    def _on_transport_error(event: Any) -> None:
        transport = proton.Transport.wrap(cproton.pn_event_transport(event))
        condition = transport.condition if transport is not None else None
        if condition is not None and condition.name != "amqp:connection:framing-error":
            LOG.info("connection lost: %s (%s)", condition.name, condition.description)
        else:
            LOG.debug("connection lost: %s", condition.description if condition is not None else "no reason given")


def bind(listener: config.Listener) -> socket.socket:
    """A listening socket for a listener, IPv4 or IPv6.

    :raises DevRouterError: when the address is in use or not this host's
    """
    where = connection.endpoint((listener.host, listener.port))
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            listener.host or None, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        server = socket.socket(family, kind, protocol)
    except OSError as exc:
        raise errors.DevRouterError(f"listener {listener.name!r}: cannot listen on {where}: {_why(exc)}.") from None
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
        server.listen(_BACKLOG)
        server.setblocking(False)
    except OSError as exc:
        server.close()
        raise errors.DevRouterError(f"listener {listener.name!r}: cannot listen on {where}: {_why(exc)}.") from None
    return server


def _why(exc: OSError) -> str:
    return os.strerror(exc.errno) if exc.errno and exc.errno > 0 else str(exc.strerror)


def _show(server: socket.socket) -> str:
    return connection.endpoint(server.getsockname())
