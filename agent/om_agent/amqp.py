"""A client of a router's ``$management`` node: AMQP Management, working draft 16, as both engines answer it.

The only user of proton, which is imported when the first connection is made: a node without it has no router either.
Sources: qpid-dispatch 1.19.0 python/qpid_dispatch_internal/management/agent.py and src/router_core/management_agent.c,
skupper-router 3.4.2 the same.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import gc
import secrets
import time
import types
import typing

from om_agent import errors, kinds, model

Row = dict[str, typing.Any]


SECONDS = 5.0
QUERY_SECONDS = 30.0  # for all pages of a query together
CLOSE_SECONDS = 2.0
_PAGE = 500  # rows in one answer
_MOST_ROWS = 200_000  # of one query: links of 10,000 connections; more than that is a router that never stops
_CREDIT = 10
CONTAINER = "om-agent"

# What a login can fail for.
REFUSED, SILENT, LOGIN, CERTIFICATE, CLOSED = "refused", "silent", "login", "certificate", "closed"


@dataclasses.dataclass(frozen=True)
class Login:
    """How to reach a router's management.

    :param host: to connect to.
    :param name: that the certificate must hold; not used without TLS.
    :param user: with its realm.
    :param ca: file of the authority to verify with, '' for the system's own.
    :param shown: files of certificate and key, where the router wants one to be shown; the login is with a password.
    """

    host: str
    port: int
    name: str
    user: str
    password: model.Secret
    engine: model.Engine
    tls: bool = False
    ca: str = ""
    shown: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """What a sentence calls it."""
        return errors.where(self.host, self.port)


class Unreachable(errors.Unreachable):
    """No connection, or no answer on it.

    :param kind: `REFUSED`, `SILENT`, `LOGIN`, `CERTIFICATE` or `CLOSED`.
    """

    def __init__(self, where: str, kind: str, why: str) -> None:
        super().__init__(f"The router at {where} cannot be asked: {why}.")
        self.kind = kind
        self.why = why


class Refused(errors.Unreachable):
    """The router answered a request with another status than success.

    :param status: as of HTTP; 404 for an entity that is not there.
    """

    def __init__(self, what: str, status: int, said: str) -> None:
        super().__init__(f"The router answered {status} to {what}: {said[:200].rstrip('.')}.")
        self.status = status


def is_client(row: Row) -> bool:
    """Return whether a row of ``connection`` is a client's: neither another router's nor an agent's."""
    return row["role"] == "normal" and not str(row.get("container")).startswith(f"{CONTAINER}-")


class Client:
    """One connection; a context manager.

    :param seconds: for the connection, and for every answer.
    :raises om_agent.amqp.Unreachable: when the connection cannot be had.
    :raises om_agent.errors.NotReady: when proton is not installed.
    """

    def __init__(self, login: Login, seconds: float = SECONDS) -> None:
        self.login = login
        self._proton, utils, reactor = _load()
        self._prefix = login.engine.record.prefix
        self._seconds = seconds
        self._asked = 0
        self._senders: dict[str, typing.Any] = {}
        self._replies: typing.Any = None
        url = f"{'amqps' if login.tls else 'amqp'}://{login.where}"
        options: dict[str, typing.Any] = {}
        if login.tls:
            options = {"ssl_domain": self._domain(), "sni": login.name}
        container = reactor.Container()
        container.container_id = f"{CONTAINER}-{secrets.token_hex(4)}"  # by which status tells us from clients
        with self._failures():
            self._connection = _bounded(utils.BlockingConnection, self._proton, time.monotonic() + seconds)(
                url,
                timeout=seconds,
                container=container,
                user=login.user,
                password=login.password.reveal(),
                allowed_mechs="PLAIN",
                allow_insecure_mechs=not login.tls,
                reconnect=False,
                **options,
            )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; whatever the router makes of that."""
        self._connection.deadline = time.monotonic() + min(self._seconds, CLOSE_SECONDS)
        with contextlib.suppress(Exception):
            self._connection.close()

    @property
    def container(self) -> str:
        """The router's own id, as it says in the connection's opening."""
        return str(self._connection.conn.remote_container or "")

    @property
    def product(self) -> str:
        """Which program the router says it is, and its version."""
        told = self._connection.conn.remote_properties or {}
        texts = {str(k): str(v) for k, v in told.items()}
        return " ".join(texts[k] for k in ("product", "version") if k in texts)

    def query(self, entity: str, router: str = "", attributes: typing.Sequence[str] = ()) -> list[Row]:
        """Return every row of an entity.

        :param router: id of another interior router to ask through this one.
        :param attributes: what to ask for; all of them when empty.
        :raises om_agent.errors.Unreachable: also for an answer that does not end, or is none.
        """
        rows: list[Row] = []
        deadline = time.monotonic() + QUERY_SECONDS
        while True:
            body = self._request(
                {
                    "operation": "QUERY",
                    "type": "org.amqp.management",
                    "name": "self",
                    "entityType": self._prefix + entity,
                    "offset": len(rows),
                    "count": _PAGE,
                },
                {"attributeNames": list(attributes)},
                router,
                deadline,
            )
            page = _rows(body)
            if page is None:
                raise Unreachable(self.login.where, CLOSED, f"its answer to a query of {entity} is not one")
            rows += page
            if len(page) < _PAGE:
                return rows
            if len(rows) >= _MOST_ROWS:
                raise Unreachable(self.login.where, SILENT, f"it has more than {_MOST_ROWS} rows of {entity}")

    def create(self, entity: str, name: str, attributes: typing.Mapping[str, object]) -> None:
        """Create an entity; that this succeeds says little, see `om_agent.apply.live_router`."""
        kind = self._prefix + entity
        self._request({"operation": "CREATE", "type": kind, "name": name}, {**attributes, "name": name})

    def delete(self, entity: str, name: str) -> None:
        """Delete the entity called ``name``; one that is not there is fine."""
        try:
            self._request({"operation": "DELETE", "type": self._prefix + entity, "name": name}, {})
        except Refused as e:
            if e.status != 404:
                raise

    def update(self, entity: str, identity: str, attributes: typing.Mapping[str, object]) -> None:
        """Change attributes of the entity with that identity."""
        kind = self._prefix + entity
        self._request({"operation": "UPDATE", "type": kind, "identity": identity}, attributes)

    def _request(
        self,
        properties: typing.Mapping[str, object],
        body: typing.Mapping[str, object],
        router: str = "",
        deadline: float | None = None,
    ) -> dict[str, typing.Any]:
        address = f"_topo/0/{router}/$management" if router else "$management"
        self._asked += 1
        # A number would come back from the engines' Python half and be lost in their C half.
        correlation = f"{CONTAINER}-{self._asked}"
        own = time.monotonic() + self._seconds
        self._connection.deadline = own if deadline is None else min(own, deadline)
        with self._failures():
            if self._replies is None:
                self._replies = self._connection.create_receiver(None, dynamic=True, credit=_CREDIT)
            if address not in self._senders:
                self._senders[address] = self._connection.create_sender(address)
            message = self._proton.Message(
                body=dict(body),
                properties=dict(properties),
                correlation_id=correlation,
                reply_to=self._replies.link.remote_source.address,
            )
            self._senders[address].send(message)
            reply = self._replies.receive()
            while reply.correlation_id != correlation:  # the answer to a question that was given up
                self._connection.check()
                reply = self._replies.receive()
        told = reply.properties if isinstance(reply.properties, dict) else {}
        status = told.get("statusCode")
        if not isinstance(status, int) or not isinstance(reply.body, dict):
            raise Unreachable(self.login.where, CLOSED, "what it answers is not management")
        if not 200 <= status < 300:
            what = f"{properties['operation']} {properties.get('entityType') or properties['type']}"
            raise Refused(what, int(status), str(told.get("statusDescription", "")))
        return typing.cast("dict[str, typing.Any]", reply.body)

    def _domain(self) -> typing.Any:
        domain = self._proton.SSLDomain(self._proton.SSLDomain.MODE_CLIENT)
        try:
            if self.login.ca:
                domain.set_trusted_ca_db(self.login.ca)
            domain.set_peer_authentication(self._proton.SSLDomain.VERIFY_PEER_NAME)
            if self.login.shown:
                domain.set_credentials(*self.login.shown, None)
        except self._proton.SSLException:
            files = " or ".join((self.login.ca or "of the system", *self.login.shown))
            why = f"the {'certificate or key' if self.login.shown else 'CA'} file {files} cannot be used"
            raise Unreachable(self.login.where, CERTIFICATE, why) from None
        return domain

    @contextlib.contextmanager
    def _failures(self) -> typing.Iterator[None]:
        """Turn what proton raises into a sentence; none of its texts holds a password, and only ours are told."""
        try:
            yield
        except (self._proton.ProtonException, OSError, ValueError) as e:
            raise Unreachable(self.login.where, *_judge(str(e), self._proton, e, self._seconds)) from None


def _rows(body: typing.Mapping[str, typing.Any]) -> list[Row] | None:
    """Return the rows of an answer to a query; None when it is none."""
    names, results = body.get("attributeNames"), body.get("results")
    if not isinstance(names, list) or not isinstance(results, list):
        return None
    if any(not isinstance(row, list) or len(row) != len(names) for row in results):
        return None
    return [dict(zip(map(str, names), map(_plain, row))) for row in results]


def _bounded(base: typing.Any, proton: types.ModuleType, until: float) -> typing.Any:
    """Return proton's blocking connection with one deadline on the monotonic clock for whatever it waits for.

    proton reckons each of its own limits as a point in wall time. After the clock was set back an hour, it waits that
    hour, and its close waits as long as a timer is left. ``process`` itself waits no longer than the container's
    ``timeout``.
    """

    class Connection(base):  # type: ignore[misc]
        """One conversation at a time, each with its own ``deadline``."""

        deadline = until

        def wait(self, condition: typing.Callable[[], bool], timeout: object = None, msg: str = "") -> None:
            """Process events until ``condition`` is true; no longer than the deadline, or than
            ``timeout``, which a part of proton gives where it wants less."""
            end = self.deadline
            if isinstance(timeout, (int, float)) and timeout is not False:
                end = min(end, time.monotonic() + timeout)
            while not condition() and not self.disconnected:
                left = end - time.monotonic()
                if left <= 0:
                    raise proton.Timeout(msg)
                self.container.timeout = left
                self.container.process()
            if self.disconnected and not self._is_closed():
                raise proton.ConnectionException(f"disconnected: {self.disconnected}")

        def check(self) -> None:
            """Raise proton's Timeout when the deadline is over."""
            if time.monotonic() >= self.deadline:
                raise proton.Timeout("too late")

        def run(self) -> None:
            """Let the container come to its end, which `close` calls last."""
            self.container.timeout = 0.0
            while time.monotonic() < self.deadline and self.container.process():
                self.container.timeout = 0.01
            self.container.stop()
            self.container.process()

    return Connection


def _plain(value: typing.Any) -> typing.Any:
    """Return a value without AMQP's own types, of which each number shows its name."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) else str(value)


def _judge(said: str, proton: types.ModuleType, error: Exception, seconds: float) -> tuple[str, str]:
    """Return (kind, why) for an error of proton's."""
    low = said.lower()
    if isinstance(error, proton.Timeout):
        return SILENT, f"it did not answer within {seconds:.0f} s"
    if "certificate verify failed" in low or "host name" in low or "hostname" in low:
        return CERTIFICATE, "its certificate is not good: it is expired, of another authority or for another name"
    if "amqp:unauthorized-access" in low or "authentication failed" in low or "no mechanism" in low:
        return LOGIN, "it does not accept the user and password"
    if "ssl" in low or "tls" in low:
        return CERTIFICATE, "TLS could not be agreed upon"
    if "refused" in low or "unreachable" in low or "no route" in low or "not known" in low or "resolution" in low:
        return REFUSED, "nothing listens there"
    return CLOSED, "the connection was closed"


def _load() -> tuple[types.ModuleType, types.ModuleType, types.ModuleType]:
    """Return ``proton``, ``proton.utils`` and ``proton.reactor``."""
    try:
        import proton
        import proton.reactor
        import proton.utils

        # What a connection leaves that was given up in the middle of a request, Python's last collection frees in an
        # order that proton 0.40 does not survive (SIGSEGV, run). What was made before that is left alone.
        atexit.register(gc.freeze)
    except ModuleNotFoundError:
        raise errors.NotReady([kinds.problem("proton", "no-proton")]) from None
    except ImportError as e:
        raise errors.CannotLoad("proton", e) from None
    return proton, proton.utils, proton.reactor
