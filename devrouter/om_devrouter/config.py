"""Configuration: the text of a qdrouterd JSON file -> frozen dataclasses, or one sentence why not.

Pure: no file, socket or clock is touched here. Certificate files are looked at by ``security``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Callable, TypeVar

from om_devrouter import errors, policy, policyconfig, schema
from om_devrouter.reader import Attributes, Reader

#: What qdrouterd uses when a listener does not say (connection_manager.c: linkCapacity 250).
DEFAULT_LINK_CAPACITY = 250
DISTRIBUTIONS = ("balanced", "closest", "multicast")
LOG_LEVELS = ("trace", "debug", "info", "notice", "warning", "error", "critical", "none", "default")

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class SslProfile:
    """One ``sslProfile``; paths are as written, ``password`` is qdrouterd's form of it, unresolved."""

    name: str
    cert_file: str
    private_key_file: str
    ca_cert_file: str | None = None
    protocols: str | None = None
    ciphers: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    password_file: str | None = None


@dataclasses.dataclass(frozen=True)
class Listener:
    """One ``listener``: ``port`` is a number, times are seconds, ``link_capacity`` counts deliveries."""

    name: str
    host: str
    port: int
    ssl_profile: SslProfile | None = None
    sasl_mechanisms: tuple[str, ...] = ()
    authenticate_peer: bool = False
    require_ssl: bool = False
    require_encryption: bool = False
    link_capacity: int = DEFAULT_LINK_CAPACITY
    idle_timeout: int = 16
    handshake_timeout: int = 0
    max_frame_size: int = 16384
    max_sessions: int = 32768
    http: bool = False
    healthz: bool = True
    metrics: bool = True
    policy_vhost: str | None = None
    attributes: Attributes = dataclasses.field(default_factory=dict, compare=False, repr=False)


@dataclasses.dataclass(frozen=True)
class Address:
    """One ``address``: everything under ``prefix`` is distributed like this."""

    prefix: str
    distribution: str


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole configuration. ``log_level`` is a qdrouterd level name or None."""

    router_id: str
    worker_threads: int
    sasl_config_dir: str | None
    sasl_config_name: str
    default_distribution: str
    metadata: str | None
    listeners: tuple[Listener, ...]
    addresses: tuple[Address, ...]
    log_level: str | None = None
    rules: policy.Policy = dataclasses.field(default_factory=policy.Policy)
    #: The attributes of every ``vhost`` as written, for management.
    vhosts: tuple[Attributes, ...] = dataclasses.field(default=(), compare=False, repr=False)


def parse(text: str) -> Config:
    """Parse and check a whole configuration file.

    :param text: what the file holds; lines that begin with '#' are dropped first, as qdrouterd does
    :raises DevRouterError: for the first thing that is wrong
    """
    entities = _entities(text)
    routers = [attributes for entity, attributes in entities if entity == "router"]
    if len(routers) != 1:
        raise errors.DevRouterError(f"There must be exactly one router entity; there are {len(routers)}.")
    profiles: dict[str, SslProfile] = {}
    for profile in _all(entities, "sslProfile", _ssl_profile):
        if profile.name in profiles:
            raise errors.DevRouterError(f"sslProfile {profile.name!r} is defined twice.")
        profiles[profile.name] = profile
    listeners = _all(entities, "listener", lambda reader, raw: _listener(reader, raw, profiles))
    _refuse_twins("listener name", [listener.name for listener in listeners])
    if not any(not listener.http for listener in listeners):
        raise errors.DevRouterError("There is no listener for AMQP.")
    addresses = _all(entities, "address", _address)
    _refuse_twins("address prefix", [address.prefix for address in addresses])
    levels = [level for level in _all(entities, "log", _log) if level is not None]
    policies = [raw for entity, raw in entities if entity == "policy"]
    vhosts = [raw for entity, raw in entities if entity == "vhost"]
    rules = policyconfig.policy_of(policies, vhosts)
    for listener in listeners:
        _check_vhost(listener, rules)
    return dataclasses.replace(
        _router(Reader("router", routers[0])),
        listeners=listeners,
        addresses=addresses,
        log_level=levels[-1] if levels else None,
        rules=rules,
        vhosts=tuple(vhosts),
    )


def _entities(text: str) -> list[tuple[str, Attributes]]:
    kept = "\n".join(line for line in text.splitlines() if not line.strip().startswith("#"))
    try:
        raw = json.loads(kept)
    except (ValueError, RecursionError) as exc:
        # The message of json holds a position only; its doc attribute, the text, must not be printed.
        where = f" (line {exc.lineno}, column {exc.colno})" if isinstance(exc, json.JSONDecodeError) else ""
        raise errors.DevRouterError(f"The configuration is not valid JSON{where}.") from None
    if not isinstance(raw, list):
        raise errors.DevRouterError("The configuration must be a list of [entity, attributes] pairs.")
    result: list[tuple[str, Attributes]] = []
    for index, item in enumerate(raw):
        if not (isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], dict)):
            raise errors.DevRouterError(f"Item {index} of the configuration is not an [entity, attributes] pair.")
        _check_entity(item[0])
        result.append((item[0], item[1]))
    return result


def _check_entity(entity: str) -> None:
    if entity in schema.MESH_ENTITIES:
        raise errors.DevRouterError(f"A {entity} is not supported: {errors.ONE_ROUTER}")
    if entity in schema.POLICY_ENTITIES:
        raise errors.DevRouterError(
            f"A {entity} entity is not supported: om-devrouter reads groups in a vhost only; use qdrouterd."
        )
    if entity not in schema.CONFIG_ATTRIBUTES:
        raise errors.DevRouterError(f"Unknown entity {entity!r}.")


def _all(
    entities: list[tuple[str, Attributes]], entity: str, build: Callable[[Reader, Attributes], _T]
) -> tuple[_T, ...]:
    return tuple(build(Reader(entity, raw), raw) for name, raw in entities if name == entity)


def _check_vhost(listener: Listener, rules: policy.Policy) -> None:
    """qdrouterd would start, and refuse every connection."""
    name = listener.policy_vhost
    if rules.enabled and name is not None and not listener.http and rules.vhost(name) is None:
        raise errors.DevRouterError(f"listener {listener.name!r}: there is no vhost {name!r}.")


def _refuse_twins(what: str, values: list[str]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise errors.DevRouterError(f"The {what} {value!r} is used twice.")


def _router(reader: Reader) -> Config:
    mode = reader.choice("mode", "standalone", ("standalone", "interior", "edge"))
    if mode != "standalone":
        raise errors.DevRouterError(f"Router mode {mode} is not supported: {errors.ONE_ROUTER}")
    return Config(
        router_id=reader.required("id"),
        worker_threads=reader.number("workerThreads", 4, 1),
        sasl_config_dir=reader.text("saslConfigDir", None),
        sasl_config_name=reader.text("saslConfigName", "qdrouterd"),
        default_distribution=reader.choice("defaultDistribution", "balanced", DISTRIBUTIONS),
        metadata=reader.text("metadata", None),
        listeners=(),
        addresses=(),
    )


def _ssl_profile(reader: Reader, raw: Attributes) -> SslProfile:
    return SslProfile(
        name=reader.required("name"),
        cert_file=reader.required("certFile"),
        private_key_file=reader.required("privateKeyFile"),
        ca_cert_file=reader.text("caCertFile", None),
        protocols=reader.text("protocols", None),
        ciphers=reader.text("ciphers", None),
        password=reader.text("password", None),
        password_file=reader.text("passwordFile", None),
    )


def _listener(reader: Reader, raw: Attributes, profiles: Mapping[str, SslProfile]) -> Listener:
    role = reader.choice("role", "normal", ("normal", "inter-router", "route-container", "edge"))
    if role != "normal":
        raise errors.DevRouterError(f"{reader.label}: role {role} is not supported: {errors.ONE_ROUTER}")
    profile = reader.text("sslProfile", None)
    if profile is not None and profile not in profiles:
        raise errors.DevRouterError(f"{reader.label}: there is no sslProfile {profile!r}.")
    require_ssl, require_encryption = reader.flag("requireSsl", False), reader.flag("requireEncryption", False)
    if (require_ssl or require_encryption) and profile is None:
        raise errors.DevRouterError(f"{reader.label}: requireSsl and requireEncryption need an sslProfile.")
    http = reader.flag("http", False)
    if http and profile is not None:
        raise errors.DevRouterError(f"{reader.label}: an http listener with an sslProfile is not supported.")
    host, port = str(reader.text("host", None) or ""), reader.port("port")
    mechanisms = str(reader.text("saslMechanisms", None) or "").replace(",", " ").split()
    return Listener(
        name=reader.text("name", f"{host}:{port}"),
        host=host,
        port=port,
        ssl_profile=profiles.get(profile),
        sasl_mechanisms=tuple(name.upper() for name in mechanisms),
        authenticate_peer=reader.flag("authenticatePeer", False),
        require_ssl=require_ssl,
        require_encryption=require_encryption,
        link_capacity=reader.number("linkCapacity", 0, 0) or DEFAULT_LINK_CAPACITY,
        idle_timeout=reader.number("idleTimeoutSeconds", 16, 0),
        handshake_timeout=reader.number("initialHandshakeTimeoutSeconds", 0, 0),
        max_frame_size=max(512, reader.number("maxFrameSize", 16384, 0)),
        max_sessions=max(1, reader.number("maxSessions", 32768, 0, 32768)),
        http=http,
        healthz=reader.flag("healthz", True),
        metrics=reader.flag("metrics", True),
        policy_vhost=reader.text("policyVhost", None),
        attributes=dict(raw),
    )


def _address(reader: Reader, raw: Attributes) -> Address:
    return Address(
        prefix=reader.required("prefix").strip("/"),
        distribution=reader.choice("distribution", "balanced", DISTRIBUTIONS),
    )


def _log(reader: Reader, raw: Attributes) -> str | None:
    """The level of module DEFAULT; other modules are qdrouterd's own parts, which do not exist here."""
    enable = reader.text("enable", None)
    if enable is not None:
        levels = [level.strip().rstrip("+") for level in str(enable).split(",")]
        if any(level not in LOG_LEVELS for level in levels):
            raise reader.bad("enable", f"a list of {', '.join(LOG_LEVELS)}")
        if reader.text("module", "DEFAULT") == "DEFAULT":
            return min(levels, key=LOG_LEVELS.index)
    return None
