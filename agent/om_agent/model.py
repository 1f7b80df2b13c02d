"""The typed deployment: raw metadata in, frozen dataclasses or every problem at once out.

Pure: no I/O, no clock, no environment. After `parse` nothing in the agent sees a raw dict again. The keys, their
defaults and their meaning are described for people in ``doc/metadata.rst``; a test compares that page with
what is asked for here.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import hmac
import ipaddress
import math
import re
import typing

from om_agent import ciphers, errors

# The ports of design.md; 25672, 4369 and 15692 are RabbitMQ's own (https://www.rabbitmq.com/docs/networking#ports).
AMQP_PORT = 31459
INTER_ROUTER_PORT = 31460
EDGE_PORT = 31461
ROUTER_HTTP_PORT = 31462
RABBIT_PORT = 5672
RABBIT_DIST_PORT = 25672
RABBIT_METRICS_PORT = 15692
EPMD_PORT = 4369

ADMIN_USER = "router-admin"  # with which the agent manages a running router
MESH_FILES = ("mesh_ca_file", "mesh_certificate_file", "mesh_key_file")  # keys of ``router``
MAX_INTERIORS = 128  # qpid-dispatch 1.19 src/bitmask.c:27-28
MAX_COST = 1000  # of a link between sites; the engines take more, and add them up
_MAX_SEARCHED = 4096  # characters of a text that is not good in which to look for the reason
MAX_MESH_PASSWORD_BYTES = 128
MAX_PASSWORD_BYTES = 1024  # saslpasswd2 reads at most 2048 bytes (cyrus-sasl utils/saslpasswd.c PW_BUF_SIZE)

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_TRUE = frozenset(("true", "yes", "on", "1", "t", "y"))
_FALSE = frozenset(("false", "no", "off", "0", "f", "n", ""))


class Scheme(enum.Enum):
    """What carries a half; the value is the transport URL's scheme."""

    RABBIT = "rabbit"
    AMQP = "amqp"


class Engine(enum.Enum):
    """Which router program runs."""

    QDROUTERD = "qdrouterd"
    SKROUTERD = "skrouterd"
    EMBEDDED = "embedded"


class TlsVersion(enum.Enum):
    """A version of TLS, oldest first."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


class RouterMode(enum.Enum):
    """What the router on a node is for, or that there is none; the values are those of ``router.roles``."""

    INTERIOR = "interior"
    EDGE = "edge"
    NONE = "none"


class Clients(enum.Enum):
    """Which routers a node's services connect to."""

    LOCAL = "local"
    MESH = "mesh"


@dataclasses.dataclass(frozen=True)
class Secret:
    """A text that must not be shown; only `reveal` gives it, so that every use can be found by name."""

    _value: str = dataclasses.field(repr=False)

    def reveal(self) -> str:
        """Return the text itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__


@dataclasses.dataclass(frozen=True)
class Node:
    """An overcloud host.

    :param name: what the metadata calls it; compared whole.
    :param address: where its own router and broker listen: IP address or host name.
    :param host: what clients put into a transport URL.
    :param role: ``controller``, ``compute`` or any other word.
    :param site: where it stands; '' when the metadata does not say.
    :param router: what its router is for, if the overcloud's RPC or notifications use routers of its own at all.
    """

    name: str
    address: str
    host: str
    role: str
    site: str
    router: RouterMode


@dataclasses.dataclass(frozen=True)
class SiteLink:
    """Two sites that routers connect, and what a message's way between them costs."""

    between: tuple[str, str]
    cost: int


@dataclasses.dataclass(frozen=True)
class Account:
    """Somebody who may log in."""

    username: str
    password: Secret


@dataclasses.dataclass(frozen=True)
class Backend:
    """What carries one half, ``rpc`` or ``notify``.

    :param hosts: hosts of the transport URL, in order.
    :param nodes: names of the nodes that run it; empty for an external one.
    :param also_accept: who may log in beside the user of the transport URL, while passwords are changed.
    """

    half: str
    scheme: Scheme
    port: int
    username: str
    password: Secret
    virtual_host: str
    tls: bool
    hosts: tuple[str, ...]
    nodes: tuple[str, ...]
    also_accept: tuple[Account, ...] = ()

    @property
    def accounts(self) -> dict[str, Account]:
        """Who may log in, by the key of the metadata; the user of the transport URL first."""
        others = {f"{self.half}.also_accept[{i}]": account for i, account in enumerate(self.also_accept)}
        return {self.half: Account(self.username, self.password), **others}

    @property
    def external(self) -> bool:
        """True when somebody else runs it."""
        return not self.nodes


@dataclasses.dataclass(frozen=True)
class Router:
    """Settings of every router; seconds and counts.

    :param http_port: 0 for no HTTP listener.
    :param max_links: to interiors of its own site that an interior has at most, once a full mesh would be too many.
    :param require_redundancy: whether a mesh that one loss would partition is refused.
    :param mesh_files: CA, certificate and key, of the operator's own, that routers show to each other; empty when they
        are made from ``mesh_password``.
    """

    engine: Engine
    clients: Clients
    inter_router_port: int
    max_connections: int
    edge_port: int
    http_port: int
    max_links: int
    require_redundancy: bool
    worker_threads: int
    link_capacity: int
    idle_timeout: int
    tls: bool
    mesh_password: Secret
    mesh_files: tuple[str, ...]
    admin_password: Secret


@dataclasses.dataclass(frozen=True)
class Broker:
    """Settings of every broker.

    :param distribution_tls: whether brokers, and rabbitmqctl, speak TLS to each other, both sides with a certificate.
    """

    cluster: bool
    erlang_cookie: Secret
    dist_port: int
    metrics_port: int
    mirrored_queues: bool
    tls: bool
    distribution_tls: bool


@dataclasses.dataclass(frozen=True)
class Tls:
    """Certificates: paths on the node, or PEM text that the agent writes there. Empty means not given.

    :param ciphers: of TLS 1.2, as OpenSSL calls them, the best first; empty for what the engines take by themselves.
    """

    ca_file: str
    certificate_file: str
    key_file: str
    ca: str
    certificate: str
    key: Secret
    min_version: TlsVersion
    ciphers: tuple[str, ...]

    @property
    def versions(self) -> tuple[TlsVersion, ...]:
        """The versions that may be spoken, oldest first."""
        known = list(TlsVersion)
        return tuple(known[known.index(self.min_version) :])

    @property
    def has_certificate(self) -> bool:
        """True when a server can be run with it."""
        return bool((self.certificate_file and self.key_file) or (self.certificate and self.key.reveal()))

    @property
    def has_ca(self) -> bool:
        """True when peers can be verified with more than the system's own authorities."""
        return bool(self.ca_file or self.ca)


@dataclasses.dataclass(frozen=True)
class Oslo:
    """What the services' oslo.messaging is told beside the URLs; seconds."""

    notification_driver: str
    acknowledged: bool
    rpc_response_timeout: int | None
    amqp_idle_timeout: int
    rabbit_heartbeat: int


@dataclasses.dataclass(frozen=True)
class Deployment:
    """The whole overcloud's messaging, as every node understands it."""

    rpc: Backend
    notify: Backend
    router: Router
    broker: Broker
    tls: Tls
    oslo: Oslo
    nodes: tuple[Node, ...]
    site_links: tuple[SiteLink, ...]
    node: str
    services: tuple[str, ...] | None
    findings: tuple[errors.Problem, ...]

    @property
    def halves(self) -> tuple[Backend, Backend]:
        """RPC first, then notifications."""
        return (self.rpc, self.notify)

    def carried_by(self, node: Node, scheme: Scheme) -> tuple[Backend, ...]:
        """Return the halves of ``scheme`` that ``node`` runs a router, interior or edge, or a broker for."""
        if scheme is Scheme.AMQP:
            return self.routed if node.router is not RouterMode.NONE else ()
        return tuple(b for b in self.halves if b.scheme is scheme and node.name in b.nodes)

    @property
    def routed(self) -> tuple[Backend, ...]:
        """The halves that routers of this overcloud carry."""
        return tuple(b for b in self.halves if b.scheme is Scheme.AMQP and not b.external)

    def by_name(self) -> dict[str, Node]:
        """Return the nodes by name."""
        return {n.name: n for n in self.nodes}


# --------------------------------------------------------------------------------------------------------------------


class _Section:
    """One mapping of the metadata, read key by key; problems go to the list that all sections share."""

    def __init__(self, raw: object, path: str, problems: list[errors.Problem]) -> None:
        self.path = path
        self.problems = problems
        self._asked: list[str] = []
        self._raw: dict[object, object] = {}
        if isinstance(raw, dict):
            self._raw = raw
        elif raw is not None:
            self.fail("", "wrong-type", found=_type_name(raw), wanted="a mapping")

    def at(self, key: str) -> str:
        """Return the path of ``key`` below this section."""
        return ".".join(p for p in (self.path, key) if p)

    def fail(self, key: str, code: str, /, **values: object) -> None:
        """Note a problem at ``key``."""
        self.problems.append(errors.problem(self.at(key), code, errors.ERROR, **values))

    def has(self, key: str) -> bool:
        """Return whether ``key`` is given."""
        return self.raw(key) is not None

    def raw(self, key: str) -> object:
        """Return the raw value of ``key``, or None; null and '' count as not given, since Heat's optional parameters
        are '' by default."""
        self._asked.append(key)
        value = self._raw.get(key)
        return None if value == "" else value

    def section(self, key: str) -> _Section:
        """Return the mapping at ``key``, empty when absent."""
        return _Section(self.raw(key), self.at(key), self.problems)

    def text(self, key: str, default: str = "", check: typing.Callable[[str], str] | None = None) -> str:
        """Return the text at ``key``; ``check`` returns what is wanted when the text is not good, else ''."""
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self.fail(key, "wrong-type", found=_type_name(value), wanted="text (in quotes)")
            return default
        if check and check(value):
            self.fail_text(key, value, check)
            return default
        return value

    def fail_text(self, key: str, value: str, check: typing.Callable[[str], str]) -> None:
        """Note that ``check`` does not accept the text at ``key``."""
        code, what = ("empty", "") if not value else _TEXT_CODES.get(check, ("bad-text", ""))
        if check is _check_certificate and "PRIVATE KEY-----" in value:
            code = "key-in-certificate"
        which = _odd_character(value[:_MAX_SEARCHED], check in _PLAIN_CHECKS) if code == "bad-text" else ""
        self.fail(key, code, which=which, wanted=check(value), what=what)

    def password(self, key: str) -> str:
        """Return the password at ``key``, '' when absent or bad."""
        return self.text(key, check=_check_password)

    def accounts(self, key: str) -> tuple[Account, ...]:
        """Return the list of users and passwords at ``key``, empty when absent."""
        raw = self.raw(key)
        if raw is not None and not isinstance(raw, list):
            self.fail(key, "wrong-type", found=_type_name(raw), wanted="a list")
        elif raw is not None and not raw:
            self.fail(key, "empty-list", what="user")
        found = []
        for i, item in enumerate(raw if isinstance(raw, list) else ()):
            section = _Section(item, self.at(f"{key}[{i}]"), self.problems)
            for needed in ("username", "password") if isinstance(item, dict) else ():
                if not section.has(needed):
                    section.fail(needed, "missing", hint="a user has a name and a password")
            username = section.text("username", check=_check_username)
            found.append(Account(username, Secret(section.password("password"))))
            section.done()
        return tuple(found)

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        """Return the whole number at ``key``; digits in quotes are taken too, since Heat delivers those."""
        value = self.raw(key)
        if value is None:
            return default
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value.strip()):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(key, "wrong-type", found=_type_name(value), wanted="a whole number")
            return default
        if not low <= value <= high:
            self.fail(key, "out-of-range", low=low, high=high)
            return default
        return value

    def port(self, key: str, default: int) -> int:
        """Return the TCP port at ``key``."""
        return self.integer(key, default, 1, 65535)

    def boolean(self, key: str, default: bool) -> bool:
        """Return the truth value at ``key``; Heat's and hiera's spellings of it are taken too."""
        value = self.raw(key)
        if value is None:
            return default
        truth = _truth(value)
        if truth is None:
            self.fail(key, "wrong-type", found=_type_name(value), wanted="true or false")
            return default
        return truth

    def word(self, key: str, default: str, known: typing.Sequence[str]) -> str:
        """Return one of ``known``."""
        value = self.text(key, default)
        if value in known:
            return value
        self.fail(key, "not-one-of", known=", ".join(known))
        return default

    def names(self, key: str, check: typing.Callable[[str], str], what: str) -> tuple[str, ...] | None:
        """Return the list of distinct names at ``key``, or None when absent."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, list):
            self.fail(key, "wrong-type", found=_type_name(value), wanted="a list")
            return None
        if not value:
            self.fail(key, "empty-list", what=what)
        good: dict[str, int] = {}
        for i, item in enumerate(value):
            at = f"{key}[{i}]"
            if not isinstance(item, str):
                self.fail(at, "wrong-type", found=_type_name(item), wanted="text (in quotes)")
            elif check(item):
                self.fail_text(at, item, check)
            elif item in good:
                self.fail(at, "twice", name=errors.quoted(item), first=self.at(f"{key}[{good[item]}]"))
            else:
                good[item] = i
        return tuple(good)

    def done(self) -> None:
        """Note every key that nobody asked for."""
        known = ", ".join(sorted(set(self._asked)))
        for key in self._raw:
            if key not in self._asked:
                self.fail("", "unknown-key", key=errors.key_name(key), known=known)


def _truth(value: object) -> bool | None:
    """Return what a truth value says in any of Heat's and hiera's spellings, None for anything else."""
    if isinstance(value, int):
        return bool(value) if value in (0, 1) else None
    word = value.lower() if isinstance(value, str) else None
    return True if word in _TRUE else False if word in _FALSE else None


def _type_name(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "number that is not finite"
    names = {dict: "mapping", list: "list", str: "text", bool: "truth value", int: "number", float: "number"}
    return names.get(type(value), "null" if value is None else type(value).__name__)


def _odd_character(text: str, plain: bool) -> str:
    """Return a description of the first character that a check may not have accepted, without repeating the text.

    :param plain: whether the check accepts little more than letters and digits.
    """
    tests: list[typing.Callable[[str], bool]] = [_has_surrogate_or_nul, lambda c: not c.isprintable()]
    if plain:
        tests.append(lambda c: not (c.isascii() and (c.isalnum() or c in "._-/+=")))
    for test in tests:
        for i, c in enumerate(text):
            if test(c):
                return f"U+{ord(c):04X} at position {i + 1}"
    return "its form or length"


def _has_surrogate_or_nul(text: str) -> bool:
    return any(c == "\0" or 0xD800 <= ord(c) <= 0xDFFF for c in text)


def _check_password(text: str) -> str:
    wanted = f"1 to {MAX_PASSWORD_BYTES} bytes of UTF-8 without NUL"
    if not text or _has_surrogate_or_nul(text):
        return wanted
    return "" if len(text.encode()) <= MAX_PASSWORD_BYTES else wanted


def _check_mesh_password(text: str) -> str:
    good = not _check_password(text) and text.isprintable() and len(text.encode()) <= MAX_MESH_PASSWORD_BYTES
    return "" if good else f"1 to {MAX_MESH_PASSWORD_BYTES} bytes of UTF-8 without control characters"


def _check_username(text: str) -> str:
    good = text and text.isprintable() and len(text) <= 255 and not _has_surrogate_or_nul(text)
    return "" if good else "1 to 255 printable characters"


def _check_virtual_host(text: str) -> str:
    good = (not text or text.isprintable()) and len(text) <= 255 and not _has_surrogate_or_nul(text)
    return "" if good else "at most 255 printable characters"


def _check_path(text: str) -> str:
    # RabbitMQ puts another key's value in the place of $(key), and takes the bytes of UTF-8 for characters, each.
    good = re.fullmatch(r"/[!-~]*", text) and not set("\"'\\#$`") & set(text)
    return "" if good else "an absolute path of ASCII without spaces, quotes, backslash, # or $"


def _check_word(text: str) -> str:
    return "" if _WORD.fullmatch(text) else "up to 64 letters, digits, dots, hyphens and underscores"


def _check_cookie(text: str) -> str:
    return "" if re.fullmatch(r"[A-Za-z0-9_+/=-]{8,255}", text) else "8 to 255 letters, digits and _+/=-"


def is_address(host: str) -> bool:
    """Return whether ``host`` is an IPv4 or IPv6 address (without brackets or zone) rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def _check_host(text: str) -> str:
    dotted_digits = re.fullmatch(r"[0-9.]+", text)  # 1.2.3 or 256.1.1.1: a broken address, not a name
    name = len(text) <= 253 and not dotted_digits and _HOST_NAME.fullmatch(text)
    return "" if is_address(text) or name else "a host name, an IPv4 or an IPv6 address, without port, brackets or zone"


def _check_certificate(text: str) -> str:
    if "PRIVATE KEY-----" in text:
        return "certificates alone"
    return _check_pem(text, "CERTIFICATE")


def _check_key(text: str) -> str:
    return _check_pem(text, "PRIVATE KEY")


def _check_cipher(text: str) -> str:
    return "" if text in ciphers.NAMES else ", ".join(ciphers.NAMES)


def _check_pem(text: str, what: str) -> str:
    block = rf"^-----BEGIN ([A-Z0-9 ]+ )?{what}-----\s*$[^-]+^-----END ([A-Z0-9 ]+ )?{what}-----\s*$"
    good = re.search(block, text, re.MULTILINE) and text.isascii() and "\0" not in text
    return "" if good else f"PEM text with a line -----BEGIN {what}----- and its END"


# What is said when a check does not accept a text: the code, and what it speaks of.
_TEXT_CODES: dict[typing.Callable[[str], str], tuple[str, str]] = {
    _check_host: ("not-a-host", ""),
    _check_cipher: ("not-a-cipher", ""),
    _check_certificate: ("not-pem", "CERTIFICATE"),
    _check_key: ("not-pem", "PRIVATE KEY"),
}
_PLAIN_CHECKS = (_check_path, _check_word, _check_cookie)

# --------------------------------------------------------------------------------------------------------------------


# A check across fields says nothing while a field that it reads is not known: by code, which paths those are.
_READS_ANYWAY = r"nodes|hosts|scheme|engine"
_READS = {
    "port-collision": r"port|nodes|scheme",
    "shared-differs": r"port|tls|nodes|hosts|scheme",
    "two-passwords": r"password|username|nodes|hosts|scheme",
    "rabbit-slash": r"scheme",
    "rabbit-vhost": r"scheme",
    "router-username": r"scheme",
    "router-vhost": r"scheme",
    "router-temp": r"nodes|scheme",
    "unknown-service": r"^$",
    "not-in-nodes": r"nodes",
    "site-apart": r"nodes|hosts|scheme|engine|sites",
    "site-between": r"nodes|hosts|scheme|engine|sites",
}


def parse(raw: object, services: typing.Collection[str] = ()) -> Deployment:
    """Return the deployment that ``raw``, the value of the ``oslo_messaging`` key, describes.

    :param services: names of the service catalogue; empty when nothing is known of it.

    :raises om_agent.errors.InvalidInput: with every problem, each with its path below ``oslo_messaging``.
    """
    problems: list[errors.Problem] = []
    top = _Section(raw, "", problems)
    if raw is None:
        top.fail("", "missing", hint="rpc.password and nodes are needed")
    tls = _parse_tls(top.section("tls"))
    rpc_section, notify_section, router_section = (top.section(key) for key in ("rpc", "notify", "router"))
    roles = _parse_roles(router_section)
    nodes = _parse_nodes(top, roles, _wants_tls(rpc_section) or _wants_tls(notify_section))
    rpc = _parse_backend(rpc_section, None, nodes)
    notify = _parse_backend(notify_section, rpc, nodes)
    broker_section = top.section("broker")
    given = _Given(
        roles=roles,
        nodes=nodes,
        named=tuple(s.path for s in (rpc_section, notify_section) if s.has("nodes")),
        derived=tuple(_derived(router_section, broker_section, rpc, notify)),
    )
    router = _parse_router(router_section, rpc, notify)
    broker = _parse_broker(broker_section, rpc, notify)
    oslo = _parse_oslo(rpc_section, notify_section)
    deployment = Deployment(
        rpc=rpc,
        notify=notify,
        router=router,
        broker=broker,
        tls=tls,
        oslo=oslo,
        nodes=_place_routers(router, rpc, notify, nodes),
        site_links=_parse_sites(top, nodes),
        node=top.text("node", check=_check_host),
        services=top.names("services", _check_word, "service"),
        findings=(),
    )
    for section in (rpc_section, notify_section, top):
        section.done()
    if deployment.routed:
        _check_interiors(top, deployment)
    wrong = [p.path for p in problems]
    for problem in dict.fromkeys(_check_sense(deployment, given, services)):  # two halves may need the same thing
        reads = _READS.get(problem.code, r"tls|nodes|hosts|scheme" if "tls" in problem.code else _READS_ANYWAY)
        if problem.path not in wrong and not any(re.search(reads, path) for path in wrong):
            problems.append(problem)
    if problems:
        raise errors.InvalidInput(problems)
    return dataclasses.replace(deployment, findings=tuple(_findings(deployment, given)))


@dataclasses.dataclass(frozen=True)
class _Given:
    """What the metadata itself says of where routers are, for sentences about it.

    :param roles: ``router.roles``, with nothing added.
    :param nodes: with what their routers would be for if no half had a key ``nodes``.
    :param named: the halves that have one.
    :param derived: keys of secrets in use that are made from ``rpc.password``.
    """

    roles: dict[str, RouterMode]
    nodes: tuple[Node, ...]
    named: tuple[str, ...]
    derived: tuple[str, ...]


def _derived(router: _Section, broker: _Section, rpc: Backend, notify: Backend) -> typing.Iterator[str]:
    carried = {b.scheme for b in (rpc, notify) if not b.external}
    for section, key, scheme in ((router, "mesh_password", Scheme.AMQP), (broker, "erlang_cookie", Scheme.RABBIT)):
        if scheme in carried and not section.has(key):
            yield section.at(key)


def _wants_tls(section: _Section) -> bool:
    return _truth(section.raw("tls")) is True


def _parse_roles(section: _Section) -> dict[str, RouterMode]:
    """Return what the metadata says routers are for, by role."""
    roles: dict[str, RouterMode] = {}
    raw = section.raw("roles")
    if raw is not None and not isinstance(raw, dict):
        section.fail("roles", "wrong-type", found=_type_name(raw), wanted="a mapping")
    for role in raw if isinstance(raw, dict) else ():
        if isinstance(role, str) and not _check_word(role):
            modes = _Section(raw, section.at("roles"), section.problems)
            default = _mode_of(role, roles)
            roles[role] = RouterMode(modes.word(role, default.value, [m.value for m in RouterMode]))
        else:
            section.fail("roles", "not-a-role", role=errors.key_name(role))
    return roles


def _mode_of(role: str, roles: typing.Mapping[str, RouterMode]) -> RouterMode:
    return roles.get(role, RouterMode.INTERIOR if role == "controller" else RouterMode.EDGE)


def _place_routers(router: Router, rpc: Backend, notify: Backend, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Return the nodes with what their routers are for in the end."""
    interiors = next((set(b.nodes) for b in (rpc, notify) if b.scheme is Scheme.AMQP and b.nodes), set())
    edges = bool(interiors) and router.clients is Clients.LOCAL and router.engine is not Engine.EMBEDDED

    def mode(node: Node) -> RouterMode:
        if node.name in interiors:
            return RouterMode.INTERIOR
        return RouterMode.EDGE if edges and node.router is not RouterMode.NONE else RouterMode.NONE

    return tuple(dataclasses.replace(n, router=mode(n)) for n in nodes)


def _check_interiors(top: _Section, d: Deployment) -> None:
    """``nodes`` of a half and ``interior`` of a node are two ways to say the same thing: they must not contradict."""
    raw, named = top.raw("nodes"), interiors(d)
    for i, node in enumerate(raw if isinstance(raw, list) else ()):
        said = _truth(node.get("interior")) if isinstance(node, dict) and node.get("interior") != "" else None
        if said is not None and said != (node.get("name") in named):
            half = d.routed[0].half
            top.fail(f"nodes[{i}].interior", "interior-differs", half=half, name=errors.quoted(node.get("name")))


def _parse_nodes(top: _Section, roles: dict[str, RouterMode], tls: bool) -> tuple[Node, ...]:
    raw = top.raw("nodes")
    if not isinstance(raw, list):
        code = "missing" if raw is None else "wrong-type"
        top.fail("nodes", code, hint="list every node with name and address", found=_type_name(raw), wanted="a list")
        return ()
    if not raw:
        top.fail("nodes", "empty-list", what="node")
    nodes = [_parse_node(_Section(item, f"nodes[{i}]", top.problems), roles, tls) for i, item in enumerate(raw)]
    told = _check_distinct(top, "name", nodes, ())
    _check_distinct(top, "address", nodes, {i for i in told if nodes[i].address == nodes[i].name})
    return tuple(nodes)


def _check_distinct(top: _Section, key: str, nodes: typing.Sequence[Node], quiet: typing.Collection[int]) -> list[int]:
    """Note each node, ``quiet`` ones aside, that shares a value of ``key`` with one before it; return their places.

    What is one name to DNS may not be two nodes. `_check_addresses` knows other spellings of an IPv6 address.
    """
    seen: dict[str, int] = {}
    told = []
    for i, node in enumerate(nodes):
        value = getattr(node, key)
        first = seen.setdefault(value if ":" in value else value.lower().removesuffix("."), i)
        if value and first != i and i not in quiet:
            told.append(i)
            code = "twice" if value == getattr(nodes[first], key) else "same-name"
            top.fail(f"nodes[{i}].{key}", code, name=errors.quoted(value), first=f"nodes[{first}].{key}")
    return told


def _parse_node(section: _Section, roles: dict[str, RouterMode], tls: bool) -> Node:
    name = section.text("name", check=_check_host)
    if not section.has("name"):
        section.fail("name", "missing", hint="it is how the nodes are told apart")
    address = section.text("address", name, check=_check_host)
    host = section.text("host", name if tls else address, check=_check_host)
    role = section.text("role", "controller", check=_check_word)
    mode = _mode_of(role, roles)
    if section.has("interior"):
        mode = RouterMode.INTERIOR if section.boolean("interior", False) else RouterMode.EDGE
    node = Node(
        name=name,
        address=address,
        host=host,
        role=role,
        site=section.text("site", "", check=_check_word),
        router=mode,
    )
    section.done()
    return node


def _parse_backend(section: _Section, other: Backend | None, nodes: tuple[Node, ...]) -> Backend:
    """Return one half; what ``notify`` leaves out it takes from ``other``, the RPC half, as oslo.messaging does."""
    half = "notify" if other else "rpc"
    scheme = Scheme(section.word("scheme", (other.scheme if other else Scheme.RABBIT).value, [s.value for s in Scheme]))
    default_port = RABBIT_PORT if scheme is Scheme.RABBIT else AMQP_PORT
    if other and other.scheme is scheme:
        default_port = other.port
    password = section.password("password")
    if not section.has("password"):
        if other is None:
            section.fail("password", "missing", hint="it is the password of the RPC user")
        else:
            password = other.password.reveal()
    names = section.names("nodes", _check_host, "node")
    hosts = section.names("hosts", _check_host, "host")
    if names is not None and hosts is not None:
        section.fail("hosts", "hosts-and-nodes")
    username = section.text("username", other.username if other else "openstack", check=_check_username)
    backend = Backend(
        half=half,
        scheme=scheme,
        port=section.port("port", default_port),
        username=username,
        password=Secret(password),
        virtual_host=section.text("virtual_host", other.virtual_host if other else "", check=_check_virtual_host),
        tls=section.boolean("tls", other.tls if other else False),
        hosts=hosts or (),
        nodes=(),
        also_accept=section.accounts("also_accept"),
    )
    if hosts is not None:
        return backend
    if other and not any(section.has(key) for key in ("username", "password", "also_accept")):
        backend = dataclasses.replace(backend, also_accept=other.also_accept)  # one user for both halves
    if names is None and other and other.scheme is scheme:
        return dataclasses.replace(backend, nodes=other.nodes, hosts=other.hosts)
    return _place(section, backend, names, nodes)


def _place(section: _Section, backend: Backend, names: tuple[str, ...] | None, nodes: tuple[Node, ...]) -> Backend:
    """Return ``backend`` carried by the nodes called ``names``, or by those that are meant for it: every controller for
    a broker, every node with an interior router for a mesh."""
    by_name = {n.name: n for n in nodes}
    for i, name in enumerate(names or ()):
        if name not in by_name:
            section.fail(f"nodes[{i}]", "unknown-node", name=errors.quoted(name))
    routed = backend.scheme is Scheme.AMQP
    if names is not None:
        carriers = [by_name[n] for n in names if n in by_name]
    else:
        carriers = [n for n in nodes if (n.router is RouterMode.INTERIOR if routed else n.role == "controller")]
    if nodes and names is None and not carriers:
        section.fail("", "no-interior" if routed else "no-carrier", half=backend.half)
    return dataclasses.replace(backend, nodes=tuple(n.name for n in carriers), hosts=tuple(n.host for n in carriers))


def derive(secret: Secret, purpose: str) -> str:
    """Return a secret for ``purpose`` made from another one: 64 hexadecimal digits, the same on every node."""
    return hmac.new(secret.reveal().encode(), purpose.encode(), hashlib.sha256).hexdigest()


def _parse_router(section: _Section, rpc: Backend, notify: Backend) -> Router:
    amqp = [b for b in (rpc, notify) if b.scheme is Scheme.AMQP]
    mesh_password = section.text("mesh_password", check=_check_mesh_password) or derive(rpc.password, "router mesh")
    admin_password = section.text("admin_password", check=_check_mesh_password)
    router = Router(
        engine=Engine(section.word("engine", Engine.QDROUTERD.value, [e.value for e in Engine])),
        clients=Clients(section.word("clients", Clients.LOCAL.value, [c.value for c in Clients])),
        inter_router_port=section.port("inter_router_port", INTER_ROUTER_PORT),
        max_connections=section.integer("max_connections", 65535, 16, 65535),  # what both engines take, and stock
        edge_port=section.port("edge_port", EDGE_PORT),
        max_links=section.integer("max_links", 6, 2, MAX_INTERIORS - 1),
        require_redundancy=section.boolean("require_redundancy", False),
        http_port=section.integer("http_port", ROUTER_HTTP_PORT, 0, 65535),
        worker_threads=section.integer("worker_threads", 4, 1, 64),
        link_capacity=section.integer("link_capacity", 1000, 1, 100000),
        idle_timeout=section.integer("idle_timeout", 16, 2, 3600),
        tls=section.boolean("tls", any(b.tls for b in amqp)),
        mesh_password=Secret(mesh_password),
        mesh_files=_parse_mesh_files(section),
        admin_password=Secret(admin_password or derive(Secret(mesh_password), "router admin")),
    )
    section.done()
    return router


def _parse_mesh_files(section: _Section) -> tuple[str, ...]:
    given = [key for key in MESH_FILES if section.has(key)]
    for key in MESH_FILES if given else ():
        if key not in given:
            section.fail(key, "mesh-files")
    return tuple(section.text(key, check=_check_path) for key in given)


def _parse_broker(section: _Section, rpc: Backend, notify: Backend) -> Broker:
    rabbit = [b for b in (rpc, notify) if b.scheme is Scheme.RABBIT]
    cookie = section.text("erlang_cookie", check=_check_cookie) or derive(rpc.password, "erlang cookie")
    cluster, tls = section.boolean("cluster", True), section.boolean("tls", any(b.tls for b in rabbit))
    clustered = cluster and any(len(b.nodes) > 1 for b in rabbit)
    broker = Broker(
        cluster=cluster,
        erlang_cookie=Secret(cookie),
        dist_port=section.port("dist_port", RABBIT_DIST_PORT),
        metrics_port=section.port("metrics_port", RABBIT_METRICS_PORT),
        mirrored_queues=section.boolean("mirrored_queues", True),
        tls=tls,
        distribution_tls=section.boolean("distribution_tls", tls and clustered),
    )
    section.done()
    return broker


def _parse_tls(section: _Section) -> Tls:
    tls = Tls(
        ca_file=section.text("ca_file", check=_check_path),
        certificate_file=section.text("certificate_file", check=_check_path),
        key_file=section.text("key_file", check=_check_path),
        ca=section.text("ca", check=_check_certificate),
        certificate=section.text("certificate", check=_check_certificate),
        key=Secret(section.text("key", check=_check_key)),
        min_version=TlsVersion(section.word("min_version", TlsVersion.TLS_1_2.value, [v.value for v in TlsVersion])),
        ciphers=section.names("ciphers", _check_cipher, "cipher suite") or (),
    )
    if tls.ciphers and TlsVersion.TLS_1_2 not in tls.versions:
        section.fail("ciphers", "tls-ciphers")
    for file_key, text_key in (("ca_file", "ca"), ("certificate_file", "certificate"), ("key_file", "key")):
        if section.has(file_key) and section.has(text_key):
            section.fail(text_key, "tls-both", file_key=section.at(file_key), text_key=section.at(text_key))
    for a, b in (("certificate_file", "key_file"), ("certificate", "key")):
        if section.has(a) != section.has(b):
            section.fail(a if section.has(a) else b, "tls-half")
    section.done()
    return tls


def _parse_oslo(rpc: _Section, notify: _Section) -> Oslo:
    drivers = ("messagingv2", "messaging", "noop", "log", "routing", "test")
    timeout = rpc.integer("response_timeout", 0, 0, 86400)
    return Oslo(
        notification_driver=notify.word("driver", "messagingv2", drivers),
        acknowledged=rpc.word("delivery", "acknowledged", ("acknowledged", "pre_settled")) == "acknowledged",
        rpc_response_timeout=timeout or None,
        # Stock AMQP 1.0 never notices a dead router, and RabbitMQ only after 60 s; with 5 s a frozen router was left
        # after 6.9 s and lost 2 calls instead of every one (measured, doc/design.rst).
        amqp_idle_timeout=rpc.integer("idle_timeout", 5, 1, 3600),
        rabbit_heartbeat=rpc.integer("heartbeat", 30, 2, 3600),
    )


def _parse_sites(top: _Section, nodes: tuple[Node, ...]) -> tuple[SiteLink, ...]:
    section = top.section("sites")
    raw = section.raw("links")
    if raw is not None and not isinstance(raw, list):
        section.fail("links", "wrong-type", found=_type_name(raw), wanted="a list")
    known = {n.site for n in nodes if n.site}
    links: dict[frozenset[str], SiteLink] = {}
    for i, item in enumerate(raw if isinstance(raw, list) else ()):
        at = f"links[{i}]"
        link = _Section(item, section.at(at), section.problems)
        cost = link.integer("cost", 1, 1, MAX_COST)
        told = len(section.problems)
        names = link.names("between", _check_word, "site") or ()
        for j, name in enumerate(names):
            if name not in known:
                link.fail(f"between[{j}]", "not-one-of", known=", ".join(sorted(known)) or "the sites of nodes")
        if len(section.problems) > told or not isinstance(item, dict):
            pass  # what is wrong has been said
        elif len(names) != 2:
            link.fail("between", "not-two-sites")
        elif frozenset(names) in links:
            link.fail("between", "linked-twice", sites=" and ".join(sorted(names)))
        else:
            links[frozenset(names)] = SiteLink((min(names), max(names)), cost)
        link.done()
    section.done()
    return tuple(sorted(links.values(), key=lambda link: link.between))


# --------------------------------------------------------------------------------------------------------------------


def _check_addresses(d: Deployment) -> typing.Iterator[errors.Problem]:
    """Addresses that no node can have for itself, and one address in two spellings."""
    seen: dict[str, str] = {}
    for i, node in enumerate(d.nodes):
        if not is_address(node.address):
            continue
        path, ip = f"nodes[{i}].address", ipaddress.ip_address(node.address)
        if ip.is_unspecified or ip.is_multicast or ip.is_link_local or str(ip) == "255.255.255.255":
            yield errors.problem(path, "no-own-address")
        first = seen.setdefault(str(ip), path)
        if first != path and node.address not in [n.address for n in d.nodes[:i]]:
            yield errors.problem(path, "twice", name=errors.quoted(node.address), first=first)


def _check_sense(d: Deployment, given: _Given, services: typing.Collection[str]) -> typing.Iterator[errors.Problem]:
    """Yield what is well-formed and yet cannot work."""
    yield from _check_addresses(d)
    for i, name in enumerate(d.services or ()):
        if services and name not in services:
            yield errors.problem(
                f"services[{i}]", "unknown-service", name=errors.quoted(name), known=", ".join(services)
            )
    if d.node and d.node not in d.by_name():
        yield errors.problem("node", "not-in-nodes", name=errors.quoted(d.node))
    yield from _check_sharing(d)
    yield from _check_tls(d)
    yield from _check_distribution(d)
    yield from _check_engine(d)
    yield from _check_interior_count(d, given)
    yield from _check_rabbit_urls(d)
    yield from _check_router_users(d)
    yield from _check_accounts(d, given)
    yield from _check_families(d)
    yield from _check_sites(d)
    yield from _check_ports(d)


def _check_sharing(d: Deployment) -> typing.Iterator[errors.Problem]:
    """Two halves of one scheme share one router mesh or broker cluster, or are two separate clusters."""
    rpc, notify = d.rpc, d.notify
    if rpc.scheme is not notify.scheme:
        return
    what = "router" if rpc.scheme is Scheme.AMQP else "broker"
    same = set(rpc.nodes) == set(notify.nodes)
    if rpc.nodes and notify.nodes and not same:
        if rpc.scheme is Scheme.AMQP:
            yield errors.problem("notify.nodes", "one-mesh")
        elif set(rpc.nodes) & set(notify.nodes):
            yield errors.problem("notify.nodes", "overlap", scheme=rpc.scheme.value)
    if not same or rpc.external:
        return
    for key in ("tls", "port") if rpc.scheme is Scheme.RABBIT else ("tls",):
        if getattr(rpc, key) != getattr(notify, key):
            yield errors.problem(f"notify.{key}", "shared-differs", what=what, key=key)
    known = {a.username: a.password for a in reversed(rpc.accounts.values())}
    own = notify if notify in _own_accounts(d) else dataclasses.replace(notify, also_accept=())
    for path, account in own.accounts.items():
        if known.get(account.username, account.password) != account.password:
            yield errors.problem(f"{path}.password", "two-passwords", what=what)


def _check_tls(d: Deployment) -> typing.Iterator[errors.Problem]:
    for b in d.halves:
        what, server_tls = ("router", d.router.tls) if b.scheme is Scheme.AMQP else ("broker", d.broker.tls)
        if b.scheme is Scheme.AMQP and b.tls:
            own = [(f"nodes[{i}].host", n.host) for i, n in enumerate(d.nodes) if n.router is not RouterMode.NONE]
            others = [(f"{b.half}.hosts[{i}]", host) for i, host in enumerate(b.hosts)]
            for path, host in others if b.external else own:
                if is_address(host):
                    yield errors.problem(path, "tls-needs-name")
        if b.external:
            continue
        if b.tls and not server_tls:
            yield errors.problem(f"{what}.tls", "tls-not-on-server", half=b.half, what=what)
        if server_tls and not b.tls:
            yield errors.problem(f"{b.half}.tls", "tls-not-on-clients", half=b.half, what=what)
        if (b.tls or server_tls) and not d.tls.has_certificate:
            yield errors.problem(f"{b.half}.tls", "tls-no-certificate", what=what)
        if b.tls and not d.tls.has_ca:
            yield errors.problem("tls", "tls-no-ca")


def _check_distribution(d: Deployment) -> typing.Iterator[errors.Problem]:
    """Erlang verifies that the host of a node's name is in its certificate, as a name."""
    brokers = {n for b in d.halves if b.scheme is Scheme.RABBIT for n in b.nodes}
    if not d.broker.distribution_tls or not brokers:
        return
    if not d.broker.tls and not (d.tls.has_certificate and d.tls.has_ca):  # with it, that is told of for the clients
        yield errors.problem("broker.distribution_tls", "tls-distribution")
    for i, n in enumerate(d.nodes):
        if n.name in brokers and is_address(n.name):
            yield errors.problem(f"nodes[{i}].name", "tls-node-name")


def _check_engine(d: Deployment) -> typing.Iterator[errors.Problem]:
    for b in d.halves:
        if b.scheme is not Scheme.AMQP:
            continue
        for path, account in b.accounts.items() if not b.external else ():
            if "@" in account.username:
                yield errors.problem(f"{path}.username", "username-realm")
            if account.password.reveal()[-1:] in ("\n", "\r"):
                yield errors.problem(f"{path}.password", "password-line-end")
            if account.username == ADMIN_USER:
                yield errors.problem(f"{path}.username", "username-taken")
        if d.router.engine is Engine.EMBEDDED and len(b.nodes) > 1:
            yield errors.problem("router.engine", "embedded-mesh", count=len(b.nodes), half=b.half)
    for b in d.halves:
        if b.scheme is Scheme.RABBIT and len(b.nodes) > 1 and not d.broker.cluster:
            yield errors.problem("broker.cluster", "lone-brokers", count=len(b.nodes), half=b.half)
    brokers = [n for b in d.halves if b.scheme is Scheme.RABBIT for n in b.nodes]
    if len({"." in n for n in brokers}) > 1:
        yield errors.problem("nodes", "mixed-names")


def _check_interior_count(d: Deployment, given: _Given) -> typing.Iterator[errors.Problem]:
    count = len(interiors(d))
    if count > MAX_INTERIORS:
        half = d.routed[0].half
        path = f"{half}.nodes" if half in given.named else "nodes"
        yield errors.problem(path, "too-many-routers", count=count, half=half)


def _check_families(d: Deployment) -> typing.Iterator[errors.Problem]:
    """Refuse IPv6 addresses beside other hosts where one reader gets both.

    A URL of several hosts: with CVE-2025-0938 mended (run with Debian 12's 3.11.2) urllib, which oslo.messaging
    reads it with, takes what follows the last ``@`` for the one host, and where there are brackets refuses a last host
    without; so it would depend on the order. A cluster of brokers: Erlang distributes over ``inet_tcp`` or
    ``inet6_tcp``, not over both. Routers may be mixed: a connector has one host, and so has the URL of a service beside
    a router of its own.
    """
    by_name = d.by_name()
    for b in d.halves:
        alone = b in d.routed and all(n.router is not RouterMode.NONE for n in d.nodes)
        if len({":" in h for h in b.hosts}) > 1 and not (alone and d.router.clients is Clients.LOCAL):
            yield errors.problem(f"{b.half}.hosts" if b.external else "nodes", "mixed-families", half=b.half)
    for b in {b.nodes: b for b in reversed(d.halves) if b.scheme is Scheme.RABBIT and d.broker.cluster}.values():
        if len({":" in by_name[name].address for name in b.nodes}) > 1:
            yield errors.problem("nodes", "mixed-cluster", half=b.half)


def _check_rabbit_urls(d: Deployment) -> typing.Iterator[errors.Problem]:
    """oslo.messaging hands a URL on to kombu and encodes too little on the way (impl_rabbit.py, 14.0.3 to 14.9.3)."""
    for b in d.halves:
        if b.scheme is not Scheme.RABBIT:
            continue
        for path, account in b.accounts.items():
            for key, text in (("username", account.username), ("password", account.password.reveal())):
                if "/" in text:
                    yield errors.problem(f"{path}.{key}", "rabbit-slash")
        if set("%?#;") & set(b.virtual_host):
            yield errors.problem(f"{b.half}.virtual_host", "rabbit-vhost")


def _check_router_users(d: Deployment) -> typing.Iterator[errors.Problem]:
    """A router's policy lists users between commas, and addresses as patterns (policy_local.py, policy.c)."""
    for b in d.halves:
        if b.scheme is not Scheme.AMQP or b.external:
            continue
        for path, account in b.accounts.items():
            if "," in account.username or account.username != account.username.strip():
                yield errors.problem(f"{path}.username", "router-username")
        if set("*#,$ ") & set(b.virtual_host):
            yield errors.problem(f"{b.half}.virtual_host", "router-vhost")
    for i, n in enumerate(d.nodes):  # services may send to any "<router>/temp.*", so "temp/$management" is one too many
        if n.router is not RouterMode.NONE and n.name.rpartition(".")[2].lower() == "temp":
            yield errors.problem(f"nodes[{i}].name", "router-temp")


def _own_accounts(d: Deployment) -> tuple[Backend, ...]:
    """Return the halves without one that accepts whom the other one does."""
    return d.halves if d.notify.also_accept is not d.rpc.also_accept else (d.rpc,)


def _check_accounts(d: Deployment, given: _Given) -> typing.Iterator[errors.Problem]:
    """Passwords are changed by way of a second user, and nothing else may change with them."""
    for b in _own_accounts(d):
        if b.also_accept and b.external:
            yield errors.problem(f"{b.half}.also_accept", "external-accept")
        first: dict[str, str] = {}
        for path, account in b.accounts.items():
            if first.setdefault(account.username, path) != path:
                text = {"name": errors.quoted(account.username), "first": f"{first[account.username]}.username"}
                yield errors.problem(f"{path}.username", "twice", **text)
    for key in given.derived if d.rpc.also_accept else ():
        yield errors.problem(key, "derived-changes")


def _check_sites(d: Deployment) -> typing.Iterator[errors.Problem]:
    """Every site that has a router must be reachable from every other over sites that have an interior."""
    routers = [n for n in d.nodes if n.router is not RouterMode.NONE]
    sites = {n.site for n in routers}
    if "" in sites and len(sites) > 1:
        names = [n.name for n in routers if not n.site]
        yield errors.problem("nodes", "site-missing", count=len(names), name=errors.quoted(names[0]))
        return
    carrying = {n.site for n in routers if n.router is RouterMode.INTERIOR}
    first = sorted(carrying)[:1]
    reached = set(_ways(d, first, through=carrying))
    loose = _ways(d, first, through=sites | {s for link in d.site_links for s in link.between})
    for site in sorted(sites - reached):
        between = [s for s in loose.get(site, ()) if s not in carrying]
        text = {"site": site_name(site), "rest": site_name(first[0])}
        if between:
            yield errors.problem("sites.links", "site-between", between=" and ".join(map(site_name, between)), **text)
        else:
            yield errors.problem("sites.links", "site-apart", **text)


def _ways(d: Deployment, start: typing.Sequence[str], through: set[str]) -> dict[str, tuple[str, ...]]:
    """Return the sites that links lead to from ``start`` over sites of ``through``, each with those on the way."""
    ways: dict[str, tuple[str, ...]] = dict.fromkeys(start, ())
    todo = list(start)
    for at in todo:  # grows
        for link in d.site_links if at in through else ():
            for site in link.between if at in link.between else ():
                if site not in ways:
                    ways[site] = (*ways[at], at)
                    todo.append(site)
    return ways


def site_name(site: str) -> str:
    """Return how people are told of a site."""
    return errors.quoted(site) if site else "the nodes without a site"


def sockets(d: Deployment, name: str) -> tuple[tuple[int, str], ...]:
    """Return (port, what listens there, as a metadata path) for everything that this project starts on a node."""
    node = d.by_name()[name]
    found: list[tuple[int, str]] = []
    amqp, rabbit = d.carried_by(node, Scheme.AMQP), d.carried_by(node, Scheme.RABBIT)
    found += {b.port: (b.port, f"{b.half}.port") for b in reversed(amqp)}.values()
    if amqp and d.router.http_port:
        found.append((d.router.http_port, "router.http_port"))
    if amqp and meshed(d) and node.router is RouterMode.INTERIOR:
        found.append((d.router.inter_router_port, "router.inter_router_port"))
        if d.router.clients is Clients.LOCAL:
            found.append((d.router.edge_port, "router.edge_port"))
    found += {b.port: (b.port, f"{b.half}.port") for b in reversed(rabbit)}.values()
    if rabbit:
        found.append((d.broker.dist_port, "broker.dist_port"))
        found.append((d.broker.metrics_port, "broker.metrics_port"))
        found.insert(0, (EPMD_PORT, "Erlang's port mapper"))  # first: a collision is told at the key of the other one
    return tuple(found)


def meshed(d: Deployment) -> bool:
    """Return whether routers can have peers, now or after a change of the deployment that restarts none of them."""
    return d.router.engine is not Engine.EMBEDDED


def interiors(d: Deployment) -> tuple[str, ...]:
    """Return the names of the nodes that run an interior router, in the order of the metadata."""
    return next((b.nodes for b in d.routed), ())


def _check_ports(d: Deployment) -> typing.Iterator[errors.Problem]:
    reported = set()
    for name in _different_nodes(d):
        claimed: dict[int, str] = {}
        for port, what in sockets(d, name):
            first = claimed.setdefault(port, what)
            if first != what and (first, what) not in reported:
                reported.add((first, what))
                yield errors.problem(
                    what, "port-collision", port=port, node=errors.quoted(name), first=first, second=what
                )


def _different_nodes(d: Deployment) -> typing.Iterator[str]:
    """Yield one node of each kind: those of one kind listen on the same ports."""
    seen = set()
    for node in d.nodes:
        kind = (node.router, *(node.name in b.nodes for b in d.halves))
        if kind not in seen:
            seen.add(kind)
            yield node.name


def _findings(d: Deployment, given: _Given) -> typing.Iterator[errors.Problem]:
    yield from _role_findings(d, given)
    if d.notify.scheme is Scheme.AMQP:
        yield errors.warning("notify.scheme", "not-stored")
    for b in d.halves:
        if not b.tls:
            yield errors.warning(f"{b.half}.tls", "plaintext", half=b.half)
    for b in _own_accounts(d):
        for account in b.also_accept:
            yield errors.warning(f"{b.half}.also_accept", "still-accepted", name=errors.quoted(account.username))
    if "router.mesh_password" in given.derived and meshed(d):
        yield errors.warning("router.mesh_password", "mesh-derived")
    brokers = {n for b in d.halves if b.scheme is Scheme.RABBIT for n in b.nodes}
    for i, node in enumerate(d.nodes):
        if node.name in brokers and not is_address(node.address):
            yield errors.warning(f"nodes[{i}].address", "listens-everywhere")
    if d.router.engine is Engine.QDROUTERD and len(interiors(d)) > 2:
        yield errors.warning("router.engine", "fanout-duplicates", count=len(interiors(d)))


def _role_findings(d: Deployment, given: _Given) -> typing.Iterator[errors.Problem]:
    known = sorted({n.role for n in d.nodes})
    for role in given.roles:
        if role not in known:
            yield errors.warning(
                f"router.roles.{role}", "role-unused", role=errors.quoted(role), known=", ".join(known)
            )
    half = d.routed[0].half if d.routed else ""
    told = set(given.roles) if half in given.named else set()
    for before, after in zip(given.nodes, d.nodes):
        # What the node itself says of its router cannot differ here: that is an error.
        if before.role in told and (before.router is RouterMode.INTERIOR) != (after.router is RouterMode.INTERIOR):
            told.remove(before.role)
            text = {"role": errors.quoted(before.role), "name": errors.quoted(before.name)}
            yield errors.warning(f"router.roles.{before.role}", "roles-overruled", half=half, **text)


def local_node(d: Deployment, names: typing.Sequence[str]) -> Node:
    """Return the first node called, as a whole name, one of ``names``.

    :raises om_agent.errors.InvalidInput: when none is.
    """
    by_name = d.by_name()
    for name in names:
        if name in by_name:
            return by_name[name]
    raise errors.InvalidInput([errors.problem("node", "not-in-nodes", name=errors.quoted(names[0] if names else ""))])
