"""A client of a router's ``$management`` node: AMQP Management, working draft 16, as both engines implement it.

This is the only module that uses proton. It imports proton at the first connection, so that nodes without a router do
not need proton. Sources: python/qpid_dispatch_internal/management/agent.py and src/router_core/management_agent.c of
qpid-dispatch 1.19.0, and the same files of skupper-router 3.4.2.
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
QUERY_SECONDS = 30.0  # for all pages of a query
CLOSE_SECONDS = 2.0
_PAGE = 500  # rows in one answer
_MOST_ROWS = 200_000  # of one query: the links of 10,000 connections; the limit stops a router that sends rows forever
_CREDIT = 10
CONTAINER = "om-agent"

# Why a login can fail.
REFUSED, SILENT, LOGIN, CERTIFICATE, CLOSED = "refused", "silent", "login", "certificate", "closed"


@dataclasses.dataclass(frozen=True)
class Login:
    """How to reach a router's management.

    :param host: address to connect to.
    :param name: host name that must be in the router's certificate; not used without TLS.
    :param user: user name with its realm.
    :param ca: CA file that verifies the router's certificate; '' for the CAs of the system.
    :param shown: files of the agent's certificate and key, if the router asks for a certificate. The agent logs in with
        the password in any case.
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
        """The address and port, for sentences and URLs."""
        return errors.where(self.host, self.port)


class Unreachable(errors.Unreachable):
    """The agent got no connection, or no answer on it.

    :param kind: `REFUSED`, `SILENT`, `LOGIN`, `CERTIFICATE` or `CLOSED`.
    """

    def __init__(self, where: str, kind: str, why: str) -> None:
        super().__init__(f"The agent cannot query the router at {where}: {why}.")
        self.kind = kind
        self.why = why


class Refused(errors.Unreachable):
    """The router refused a request.

    :param request: the operation and the entity.
    :param status: an HTTP status code, for example 404 for an entity that does not exist.
    :param description: the router's own text.
    """

    def __init__(self, request: str, status: int, description: str) -> None:
        reason = description[:200].rstrip(".")
        super().__init__(f"The router answered {status} to {request}: {reason}.")
        self.status = status


def is_client(row: Row) -> bool:
    """Return whether a row of ``connection`` belongs to a client, and not to another router or an agent."""
    is_agent = str(row.get("container")).startswith(f"{CONTAINER}-")
    return row["role"] == "normal" and not is_agent


class Client:
    """One connection to a router's management; a context manager.

    :param seconds: time limit for connecting, and for each answer.
    :raises om_agent.amqp.Unreachable: when the agent cannot connect.
    :raises om_agent.errors.NotReady: when proton is not installed.
    """

    def __init__(self, login: Login, seconds: float = SECONDS) -> None:
        self.login = login
        self._proton, utils, reactor = _load()
        self._prefix = login.engine.record.prefix
        self._seconds = seconds
        self._requests = 0
        self._senders: dict[str, typing.Any] = {}
        self._replies: typing.Any = None
        url = f"{'amqps' if login.tls else 'amqp'}://{login.where}"
        options: dict[str, typing.Any] = {}
        if login.tls:
            options = {"ssl_domain": self._domain(), "sni": login.name}
        container = reactor.Container()
        container.container_id = f"{CONTAINER}-{secrets.token_hex(4)}"  # is_client recognises the agent by it
        deadline = time.monotonic() + seconds
        connection_class = _bounded(utils.BlockingConnection, self._proton, deadline)
        with self._failures():
            self._connection = connection_class(
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
        """Close the connection, and ignore errors."""
        self._connection.deadline = time.monotonic() + min(self._seconds, CLOSE_SECONDS)
        with contextlib.suppress(Exception):
            self._connection.close()

    @property
    def container(self) -> str:
        """The router's id, which it sends when the connection opens."""
        return str(self._connection.conn.remote_container or "")

    @property
    def product(self) -> str:
        """The name and version of the router program, as it reports them."""
        properties = self._connection.conn.remote_properties or {}
        texts = {str(key): str(value) for key, value in properties.items()}
        return " ".join(texts[key] for key in ("product", "version") if key in texts)

    def query(self, entity: str, router: str = "", attributes: typing.Sequence[str] = ()) -> list[Row]:
        """Return every row of an entity.

        :param router: id of another interior router to query through this router.
        :param attributes: names of the attributes to return; empty for all of them.
        :raises om_agent.errors.Unreachable: also for an answer that is malformed or does not end.
        """
        rows: list[Row] = []
        deadline = time.monotonic() + QUERY_SECONDS
        while True:
            properties = {
                "operation": "QUERY",
                "type": "org.amqp.management",
                "name": "self",
                "entityType": self._prefix + entity,
                "offset": len(rows),
                "count": _PAGE,
            }
            body = self._request(properties, {"attributeNames": list(attributes)}, router, deadline)
            page = _rows(body)
            if page is None:
                raise Unreachable(self.login.where, CLOSED, f"its answer to a query of {entity} is malformed")
            rows += page
            if len(page) < _PAGE:
                return rows
            if len(rows) >= _MOST_ROWS:
                raise Unreachable(self.login.where, SILENT, f"it has more than {_MOST_ROWS} rows of {entity}")

    def create(self, entity: str, name: str, attributes: typing.Mapping[str, object]) -> None:
        """Create an entity. Success does not prove that the entity works, see `om_agent.apply.live_router`."""
        properties = {"operation": "CREATE", "type": self._prefix + entity, "name": name}
        self._request(properties, {**attributes, "name": name})

    def delete(self, entity: str, name: str) -> None:
        """Delete the entity called ``name``, if it exists."""
        properties = {"operation": "DELETE", "type": self._prefix + entity, "name": name}
        try:
            self._request(properties, {})
        except Refused as e:
            if e.status != 404:
                raise

    def update(self, entity: str, identity: str, attributes: typing.Mapping[str, object]) -> None:
        """Change attributes of the entity with that identity."""
        properties = {"operation": "UPDATE", "type": self._prefix + entity, "identity": identity}
        self._request(properties, attributes)

    def _request(
        self,
        properties: typing.Mapping[str, object],
        body: typing.Mapping[str, object],
        router: str = "",
        deadline: float | None = None,
    ) -> dict[str, typing.Any]:
        """Send a request and return the body of the answer.

        :param deadline: time limit, in addition to the limit for each answer.
        """
        address = f"_topo/0/{router}/$management" if router else "$management"
        limit = time.monotonic() + self._seconds
        self._connection.deadline = limit if deadline is None else min(limit, deadline)
        with self._failures():
            reply = self._exchange(address, dict(properties), dict(body))
        answer = reply.properties if isinstance(reply.properties, dict) else {}
        status = answer.get("statusCode")
        if not isinstance(status, int) or not isinstance(reply.body, dict):
            raise Unreachable(self.login.where, CLOSED, "its answer does not follow AMQP Management")
        if not 200 <= status < 300:
            entity = properties.get("entityType") or properties["type"]
            description = str(answer.get("statusDescription", ""))
            raise Refused(f"{properties['operation']} {entity}", int(status), description)
        return typing.cast("dict[str, typing.Any]", reply.body)

    def _exchange(self, address: str, properties: dict[str, object], body: dict[str, object]) -> typing.Any:
        """Send a message to ``address`` and return the message that answers it."""
        self._requests += 1
        # A text, since the C half of the engines loses a number. (Their Python half would return it.)
        correlation = f"{CONTAINER}-{self._requests}"
        if self._replies is None:
            self._replies = self._connection.create_receiver(None, dynamic=True, credit=_CREDIT)
        if address not in self._senders:
            self._senders[address] = self._connection.create_sender(address)
        message = self._proton.Message(
            body=body,
            properties=properties,
            correlation_id=correlation,
            reply_to=self._replies.link.remote_source.address,
        )
        self._senders[address].send(message)
        reply = self._replies.receive()
        while reply.correlation_id != correlation:  # a late answer to an earlier request
            self._connection.check()
            reply = self._replies.receive()
        return reply

    def _domain(self) -> typing.Any:
        """Return proton's TLS settings for the login."""
        domain = self._proton.SSLDomain(self._proton.SSLDomain.MODE_CLIENT)
        try:
            if self.login.ca:
                domain.set_trusted_ca_db(self.login.ca)
            domain.set_peer_authentication(self._proton.SSLDomain.VERIFY_PEER_NAME)
            if self.login.shown:
                domain.set_credentials(*self.login.shown, None)
        except self._proton.SSLException:
            kind = "certificate or key" if self.login.shown else "CA"
            files = " or ".join((self.login.ca or "of the system", *self.login.shown))
            raise Unreachable(self.login.where, CERTIFICATE, f"the {kind} file {files} cannot be used") from None
        return domain

    @contextlib.contextmanager
    def _failures(self) -> typing.Iterator[None]:
        """Turn proton's exceptions into `Unreachable`. Its sentences are the agent's own, so they hold no password."""
        try:
            yield
        except (self._proton.ProtonException, OSError, ValueError) as e:
            kind, why = _explain(e, self._proton, self._seconds)
            raise Unreachable(self.login.where, kind, why) from None


def _rows(body: typing.Mapping[str, typing.Any]) -> list[Row] | None:
    """Return the rows of the answer to a query; None when the answer is malformed."""
    names = body.get("attributeNames")
    results = body.get("results")
    if not isinstance(names, list) or not isinstance(results, list):
        return None
    keys = [str(name) for name in names]
    rows: list[Row] = []
    for values in results:
        if not isinstance(values, list) or len(values) != len(keys):
            return None
        rows.append(dict(zip(keys, map(_plain, values))))
    return rows


def _bounded(base: typing.Any, proton: types.ModuleType, until: float) -> typing.Any:
    """Return proton's blocking connection, changed so that one deadline on the monotonic clock limits every wait.

    proton measures its own time limits with the wall clock. If that clock is set back an hour, proton waits an hour
    longer, and its ``close`` waits as long as a timer is left. ``process`` itself waits no longer than the container's
    ``timeout``.
    """

    class Connection(base):  # type: ignore[misc]
        """A connection that carries one request at a time, each with its own ``deadline``."""

        deadline = until

        def wait(self, condition: typing.Callable[[], bool], timeout: object = None, msg: str = "") -> None:
            """Process events until ``condition`` is true.

            :param timeout: shorter time limit, which some parts of proton pass.
            :raises proton.Timeout: after the deadline or the timeout.
            """
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
            """Raise proton's Timeout after the deadline."""
            if time.monotonic() >= self.deadline:
                raise proton.Timeout("too late")

        def run(self) -> None:
            """Let the container finish; `close` calls this last."""
            self.container.timeout = 0.0
            while time.monotonic() < self.deadline and self.container.process():
                self.container.timeout = 0.01
            self.container.stop()
            self.container.process()

    return Connection


def _plain(value: typing.Any) -> typing.Any:
    """Return a value in Python's own types. proton has a type for each AMQP number, and ``repr`` shows its name."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) else str(value)


def _explain(error: Exception, proton: types.ModuleType, seconds: float) -> tuple[str, str]:
    """Return the kind of an exception of proton, and a clause that explains it."""
    text = str(error).lower()

    def mentions(*phrases: str) -> bool:
        return any(phrase in text for phrase in phrases)

    if isinstance(error, proton.Timeout):
        return SILENT, f"it did not answer within {seconds:.0f} s"
    if mentions("certificate verify failed", "host name", "hostname"):
        return CERTIFICATE, "its certificate is expired, of another authority or for another name"
    if mentions("amqp:unauthorized-access", "authentication failed", "no mechanism"):
        return LOGIN, "it does not accept the user and password"
    if mentions("ssl", "tls"):
        return CERTIFICATE, "the TLS handshake failed"
    if mentions("refused", "unreachable", "no route", "not known", "resolution"):
        return REFUSED, "nothing listens there"
    return CLOSED, "the connection was closed"


def _load() -> tuple[types.ModuleType, types.ModuleType, types.ModuleType]:
    """Import ``proton``, ``proton.utils`` and ``proton.reactor``, and return them."""
    try:
        import proton
        import proton.reactor
        import proton.utils

        # If the agent gave up a connection in the middle of a request, objects of proton stay behind. Python's last
        # garbage collection frees them in an order that crashes proton 0.40 (SIGSEGV, run). So that collection skips
        # all objects that exist by then.
        atexit.register(gc.freeze)
    except ModuleNotFoundError:
        raise errors.NotReady([kinds.problem("proton", "no-proton")]) from None
    except ImportError as e:
        raise errors.CannotLoad("proton", e) from None
    return proton, proton.utils, proton.reactor
