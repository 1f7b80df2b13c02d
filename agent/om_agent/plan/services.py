"""What each OpenStack service on the node must find in its configuration: the catalogue, and keys with their values."""

from __future__ import annotations

import dataclasses
import posixpath
import typing

from om_agent import errors, model
from om_agent.plan import layout, transport_url

OSLO = "oslo"
PASTE = "paste"
FAMILIES = ("debian", "redhat")

# Every key of these sections that this project may ever write. Those that the present deployment does not want are
# made absent, so that going to another backend and back ends where it began.
_AMQP_KEYS = (
    "ssl", "ssl_ca_file", "ssl_cert_file", "ssl_key_file", "sasl_mechanisms", "sasl_default_realm", "idle_timeout",
    "pre_settled", "default_reply_retry", "link_retry_delay", "connection_retry_interval_max",
)  # fmt: skip
_RABBIT_KEYS = (
    "ssl", "ssl_ca_file", "ssl_cert_file", "ssl_key_file", "rabbit_login_method", "heartbeat_timeout_threshold",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CatalogueFile:
    """One configuration file of a service, by family where families differ."""

    path: dict[str, str]
    owner: dict[str, str]
    group: dict[str, str]
    mode: int
    format: str
    section: str


@dataclasses.dataclass(frozen=True)
class Service:
    """One row of the catalogue; see the head of ``data/services.yaml``."""

    name: str
    summary: str
    caution: str
    rpc: bool
    notify: bool
    listens: bool
    files: tuple[CatalogueFile, ...]
    units: dict[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Setting:
    """One key of a file that somebody else owns.

    :param value: as it must stand in the file, escaped for it; None when the key must be absent.
    """

    section: str
    key: str
    value: model.Secret | None


@dataclasses.dataclass(frozen=True)
class ConfigFile:
    """One service's configuration file on this node.

    :param uid: None when nothing is known of the owner; a file that is there keeps its own.
    :param mode: permission bits; a file that is there keeps its own but for those of others, since it holds passwords.
    """

    service: str
    path: str
    uid: int | None
    gid: int | None
    mode: int
    format: str
    settings: tuple[Setting, ...]
    units: tuple[str, ...]


def parse_catalogue(text: str) -> dict[str, Service]:
    """Return the services of ``data/services.yaml`` by name; KeyError and TypeError tell of a defect in that file."""
    import yaml  # metadata that names no services is looked through without it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    rows: dict[str, dict[str, typing.Any]] = yaml.load(text, Loader=loader)
    return {name: _service(name, row) for name, row in rows.items()}


def _service(name: str, row: dict[str, typing.Any]) -> Service:
    return Service(
        name=name,
        summary=row["summary"],
        caution=row.get("caution", ""),
        rpc=row["rpc"],
        notify=row["notify"],
        listens=row["listens"],
        files=tuple(
            CatalogueFile(
                path=_by_family(f["path"]),
                owner=_by_family(f.get("owner", "root")),
                group=_by_family(f["group"]),
                mode=int(f.get("mode", "0640"), 8),
                format=f.get("format", OSLO),
                section=f.get("section", ""),
            )
            for f in row["files"]
        ),
        units={family: tuple(row["units"][family]) for family in FAMILIES},
    )


def _by_family(value: str | dict[str, str]) -> dict[str, str]:
    return dict.fromkeys(FAMILIES, value) if isinstance(value, str) else value


def directories(catalogue: dict[str, Service]) -> frozenset[str]:
    """Return every directory that holds a configuration file of the catalogue, in any family."""
    return frozenset(posixpath.dirname(path) for s in catalogue.values() for f in s.files for path in f.path.values())


def findings(
    d: model.Deployment, catalogue: dict[str, Service], config_files: typing.Iterable[ConfigFile]
) -> typing.Iterator[errors.Problem]:
    """Yield what services on this node will do wrong because the two halves have different backends."""
    if (d.rpc.scheme, d.rpc.hosts) == (d.notify.scheme, d.notify.hosts):
        return
    for name in dict.fromkeys(c.service for c in config_files):
        if catalogue[name].caution:
            yield errors.warning(name, "mixes-halves", name=name, caution=catalogue[name].caution)


def build(
    d: model.Deployment, node: model.Node, catalogue: dict[str, Service], host: layout.Host
) -> tuple[ConfigFile, ...]:
    """Return the files to configure on ``node``: those of the services asked for, or of the catalogue's that it has.

    :raises om_agent.errors.InvalidInput: for a service that is asked for and is not there.
    """
    problems = []
    found: list[ConfigFile] = []
    d = dataclasses.replace(d, rpc=as_seen_from(d, node, d.rpc), notify=as_seen_from(d, node, d.notify))
    for name in d.services if d.services is not None else catalogue:
        service = catalogue[name]
        for file in service.files if _has_messaging(service) else ():
            lacking = _lacking(file, host)
            if not lacking:
                found.append(_config_file(d, service, file, host))
            elif d.services is not None:
                at = f"services[{d.services.index(name)}]"
                problems.append(errors.problem(at, lacking[0], name=errors.quoted(name), where=lacking[1]))
    if problems:
        raise errors.InvalidInput(problems)
    return tuple(found)


def as_seen_from(d: model.Deployment, node: model.Node, backend: model.Backend) -> model.Backend:
    """Return ``backend`` with the hosts that ``node``'s services connect to: its own router alone, where it runs one.

    The driver starts at a random one of several hosts and stays there, so others behind the local router would take
    most of the clients from it (measured, doc/topology.rst).
    """
    local = d.router.clients is model.Clients.LOCAL and node.router is not model.RouterMode.NONE
    if backend.scheme is not model.Scheme.AMQP or backend.external or not local:
        return backend
    return dataclasses.replace(backend, hosts=(node.host,))


def _has_messaging(service: Service) -> bool:
    return service.rpc or service.notify or service.listens


def _lacking(file: CatalogueFile, host: layout.Host) -> tuple[str, str] | None:
    """Return (problem code, what is not there) when ``host`` does not have the service of ``file``."""
    path = file.path[host.family]
    if posixpath.dirname(path) not in host.directories:
        return ("absent-service", host.target + posixpath.dirname(path))
    if file.format == PASTE and (path, file.section) not in host.paste_sections:
        return ("no-section", f"[{file.section}] in {host.target}{path}")
    return None


def _config_file(d: model.Deployment, service: Service, file: CatalogueFile, host: layout.Host) -> ConfigFile:
    family = host.family
    path = file.path[family]
    settings = _paste_settings(d, file, host) if file.format == PASTE else _oslo_settings(d, service, host)
    uid = host.uids.get(file.owner[family], host.uid)
    gid = host.gids.get(file.group[family], host.gid)
    mode, uid, gid = host.existing.get(path, (file.mode, uid, gid))
    return ConfigFile(
        service=service.name,
        path=path,
        uid=uid,
        gid=gid,
        mode=mode & ~0o007,
        format=file.format,
        settings=tuple(settings),
        units=service.units[family],
    )


def ca_path(tls: model.Tls, host: layout.Host) -> str:
    """Return the path of the CA file that clients verify with, '' for the system's own authorities."""
    return tls.ca_file or (host.inside(layout.CA_FILE) if tls.ca else "")


def _oslo_settings(d: model.Deployment, service: Service, host: layout.Host) -> typing.Iterator[Setting]:
    values: dict[tuple[str, str], str | None] = {
        ("DEFAULT", "transport_url"): transport_url.build(d.rpc).reveal(),
    }
    if d.oslo.rpc_response_timeout:  # else it is the operator's own
        values["DEFAULT", "rpc_response_timeout"] = str(d.oslo.rpc_response_timeout)
    if service.notify or service.listens:
        values["oslo_messaging_notifications", "transport_url"] = transport_url.build(d.notify).reveal()
    if service.notify:
        values["oslo_messaging_notifications", "driver"] = d.oslo.notification_driver
    used = [d.rpc, d.notify] if service.notify or service.listens else [d.rpc]
    amqp = [b for b in used if b.scheme is model.Scheme.AMQP]
    rabbit = [b for b in used if b.scheme is model.Scheme.RABBIT]
    values.update({("oslo_messaging_amqp", k): v for k, v in _amqp_values(d, amqp, host).items()})
    values.update({("oslo_messaging_rabbit", k): v for k, v in _rabbit_values(d, rabbit, host).items()})
    for (section, key), value in values.items():
        shown = None if value is None else model.Secret(transport_url.escape_oslo(value))
        yield Setting(section, key, shown)


def _amqp_values(d: model.Deployment, used: list[model.Backend], host: layout.Host) -> dict[str, str | None]:
    values: dict[str, str | None] = dict.fromkeys(_AMQP_KEYS)
    if used:
        values.update(_login(used[0]))
        values["idle_timeout"] = str(d.oslo.amqp_idle_timeout)
        # Stock: 10 s before a message is sent again that a router handed back because it knows no consumer yet, and
        # those behind it wait too; up to 30 s between two tries to connect. The local router is back in a second.
        values["link_retry_delay"] = "1"
        values["connection_retry_interval_max"] = "2"
        if d.oslo.acknowledged:
            # Stock is rpc-cast and rpc-reply. A message sent pre-settled is dropped silently when a link runs out of
            # credit or the way to its receiver is just being changed. The driver has no word for "none" and warns of
            # those that it does not know; it sends no notifications where those go over RabbitMQ.
            values["pre_settled"] = "none" if d.notify.scheme is model.Scheme.AMQP else "notify"
            # Stock is 0, which gives up an answer that a router handed back; -1 tries for default_reply_timeout, 30 s.
            values["default_reply_retry"] = "-1"
    if any(b.tls for b in used):
        values["ssl"] = "true"
        values["ssl_ca_file"] = ca_path(d.tls, host) or None
    return values


def _login(backend: model.Backend) -> dict[str, str]:
    """Return how a service logs in, as its driver is told; that of RabbitMQ uses PLAIN unless told otherwise."""
    shown = dict(zip(("ssl_cert_file", "ssl_key_file"), backend.client_files))
    if backend.scheme is model.Scheme.AMQP:
        return {"sasl_mechanisms": backend.mechanism.value, **shown}
    return {"rabbit_login_method": backend.mechanism.value, **shown} if shown else {}


def _rabbit_values(d: model.Deployment, used: list[model.Backend], host: layout.Host) -> dict[str, str | None]:
    values: dict[str, str | None] = dict.fromkeys(_RABBIT_KEYS)
    if used:
        values.update(_login(used[0]))
        values["heartbeat_timeout_threshold"] = str(d.oslo.rabbit_heartbeat)
    if any(b.tls for b in used):
        values["ssl"] = "true"
        values["ssl_ca_file"] = ca_path(d.tls, host) or None
    return values


def _paste_settings(d: model.Deployment, file: CatalogueFile, host: layout.Host) -> typing.Iterator[Setting]:
    """A paste filter has no oslo sections: what the driver needs beside the URL goes into the URL's query."""
    query = {}
    if d.notify.mechanism is not model.Mechanism.PLAIN:
        query.update(_login(d.notify))
    if d.notify.tls and ca_path(d.tls, host):
        query["ssl_ca_file"] = ca_path(d.tls, host)
    url = transport_url.build(d.notify, query).reveal()
    yield Setting(file.section, "url", model.Secret(transport_url.escape_paste(url)))
    yield Setting(file.section, "driver", model.Secret(d.oslo.notification_driver))
