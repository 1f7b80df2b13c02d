"""The service catalogue, and the keys that each OpenStack service on the node must have in its configuration. Pure."""

from __future__ import annotations

import dataclasses
import posixpath
import re
import stat
import typing

from om_agent import errors, kinds, model
from om_agent.plan import driver_options, layout, policy, transport_url

_OTHERS = stat.S_IRWXO

OSLO = "oslo"
PASTE = "paste"
FAMILIES = ("debian", "redhat")
DRIVERS = {scheme: scheme.record.section for scheme in driver_options.VALUES}  # the section that each driver reads
_QUEUE_SECTIONS = frozenset(scheme.record.section for scheme in model.Scheme if scheme.record.declares_queues)

# Older names of options that the agent writes, as oslo.messaging reads them (deprecated_opts of its options). They are
# the same from 12.7 (Wallaby) to 14.9; 15.0 still reads those of RabbitMQ and of notifications; 16.0 removed all of
# them, and 16.1 to 17.1 read none. There a line with such a name has no effect, and the agent removes it all the same.
#
# oslo.config adds up the values of all names of `driver`, so services would send every notification twice. It also uses
# an older name where the present one is absent. So where the agent writes an option, it removes the older names. They
# do not come back with another backend: the operator finds the present name, which means the same.
OLDER_NAMES: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("oslo_messaging_notifications", "driver"): (("DEFAULT", "notification_driver"),),
    ("oslo_messaging_notifications", "transport_url"): (("DEFAULT", "notification_transport_url"),),
    **{
        ("oslo_messaging_amqp", key): (("amqp1", key),)
        for key in ("idle_timeout", "sasl_mechanisms", "ssl_ca_file", "ssl_cert_file", "ssl_key_file")
    },
    ("oslo_messaging_rabbit", "rabbit_login_method"): (("DEFAULT", "rabbit_login_method"),),
    ("oslo_messaging_rabbit", "ssl"): (("oslo_messaging_rabbit", "rabbit_use_ssl"),),
    ("oslo_messaging_rabbit", "ssl_ca_file"): (("oslo_messaging_rabbit", "kombu_ssl_ca_certs"),),
    ("oslo_messaging_rabbit", "ssl_cert_file"): (("oslo_messaging_rabbit", "kombu_ssl_certfile"),),
    ("oslo_messaging_rabbit", "ssl_key_file"): (("oslo_messaging_rabbit", "kombu_ssl_keyfile"),),
}
# Options of [oslo_messaging_amqp] that the agent does not write, with the values that fit the router's policy and its
# addresses (`om_agent.plan.policy`). The first value is oslo.messaging's default.
ADDRESSING = {
    "addressing_mode": ("dynamic", "routable"),
    "rpc_address_prefix": (f"{policy.PREFIX}/rpc",),
    "notify_address_prefix": (f"{policy.PREFIX}/notify",),
    "multicast_address": ("multicast",),
    "unicast_address": ("unicast",),
    "anycast_address": ("anycast",),
}
# Options that name a second transport, whatever [DEFAULT] and [oslo_messaging_notifications] say, by service. Any
# service may have OWN_TRANSPORT_OF_ANY in its pipeline (keystonemiddleware 13.0.1,
# keystonemiddleware/audit/__init__.py). doc/services.rst says which releases of which services were searched.
OWN_TRANSPORTS = {
    "ceilometer": (("notification", "messaging_urls"),),  # ceilometer 11.0.0 and 27.0.0, ceilometer/notification.py
    "murano": (("rabbitmq", "host"),),  # murano 16.0.0, murano/common/config.py: the broker of its guest agents
    # octavia 3.0.0 and 4.1.1, octavia/common/config.py; 5.0.0 (Train) removed it
    "octavia": (("oslo_messaging", "event_stream_transport_url"),),
}
# Units that uWSGI can serve and in which eventlet has patched threads. In a second thread of the operating system their
# AMQP 1.0 driver waits for ever (doc/services.rst says which units were examined).
PATCHED_APIS = {
    "masakari": ("masakari-api",),
    "neutron": ("neutron-api",),
    "nova": ("nova-api", "nova-api-metadata"),
}
OWN_TRANSPORT_OF_ANY = ("audit_middleware_notifications", "transport_url")
# The same in a paste file: oslo.messaging's RequestNotifier (oslo_messaging/notify/middleware.py) and
# ceilometermiddleware read "url", keystonemiddleware's audit filter reads "transport_url".
OWN_TRANSPORTS_OF_PASTE = ("url", "transport_url")
TRANSPORT_URL = re.compile(r"\s*(?:rabbit|amqp|kombu|kafka|pika|qpid|zmq)[+\w]*://.*", re.DOTALL)
# Names of sections that puppet's type accepts, and that hiera does not interpolate.
_PLAIN_FILTER = re.compile(r"(?:filter|filter-app|app):[\w.-]+")
# Options whose values oslo.config adds up over all files (MultiStrOpt).
ADDED_UP = (("oslo_messaging_notifications", "driver"), ("oslo_messaging_amqp", "pre_settled"))
# The virtual host is a part of the address, and the policy names it.
_PSEUDO_VHOST = {"pseudo_vhost": ("true", "1", "yes", "on")}

Used = dict[str, list[model.Backend]]  # what a service connects to, by the section of the driver


@dataclasses.dataclass(frozen=True)
class CatalogueFile:
    """One configuration file of a service, by family where families differ."""

    path: dict[str, str]
    owner: dict[str, str]
    group: dict[str, str]
    mode: int
    format: str
    section: str
    uses: str


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
    """One key of a file that the agent does not own.

    :param value: the text to write, escaped for the file; None when the key must be absent.
    :param leaving: whether the agent removes the key once, with a driver or a type of queue that the service no longer
        uses.
    """

    section: str
    key: str
    value: model.Secret | None
    leaving: bool = False


@dataclasses.dataclass(frozen=True)
class ConfigFile:
    """One service's configuration file on this node.

    :param uid: None when the owner is not known; an existing file keeps its owner.
    :param mode: permission bits. An existing file keeps its own, except those of others, since it holds passwords.
    :param drivers: the sections of the drivers that these settings make the service use.
    :param removable: sections that the agent added or adds; it removes such a section with its last key.
    :param fitting: options of [oslo_messaging_amqp] that belong to the operator, each with the values that fit the
        router.
    """

    service: str
    path: str
    uid: int | None
    gid: int | None
    mode: int
    format: str
    settings: tuple[Setting, ...]
    units: tuple[str, ...]
    drivers: tuple[str, ...] = ()
    removable: frozenset[str] = frozenset()
    fitting: typing.Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


def parse_catalogue(text: str) -> dict[str, Service]:
    """Return the services of ``data/services.yaml`` by name; KeyError and TypeError mean a defect in that file."""
    import yaml  # here, since metadata that names no services is parsed without it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    rows: dict[str, dict[str, typing.Any]] = yaml.load(text, Loader=loader)
    return {name: _service(name, row) for name, row in rows.items()}


def _service(name: str, row: dict[str, typing.Any]) -> Service:
    units = row["units"]
    return Service(
        name=name,
        summary=row["summary"],
        caution=row.get("caution", ""),
        rpc=row["rpc"],
        notify=row["notify"],
        listens=row["listens"],
        files=tuple(map(_file, row["files"])),
        units={family: tuple(units[family]) for family in FAMILIES},
    )


def _file(row: dict[str, typing.Any]) -> CatalogueFile:
    return CatalogueFile(
        path=_by_family(row["path"]),
        owner=_by_family(row.get("owner", "root")),
        group=_by_family(row["group"]),
        mode=int(row.get("mode", "0640"), 8),
        format=row.get("format", OSLO),
        section=row.get("section", ""),
        uses=row.get("uses", ""),
    )


def _by_family(value: str | dict[str, str]) -> dict[str, str]:
    return dict.fromkeys(FAMILIES, value) if isinstance(value, str) else value


def directories(catalogue: dict[str, Service]) -> frozenset[str]:
    """Return every directory that holds a configuration file of the catalogue, in any family."""
    files = [file for service in catalogue.values() for file in service.files]
    return frozenset(posixpath.dirname(path) for file in files for path in file.path.values())


def service_findings(
    deployment: model.Deployment, catalogue: dict[str, Service], config_files: typing.Iterable[ConfigFile]
) -> typing.Iterator[errors.Problem]:
    """Yield a warning for each service on this node that cannot keep two different backends apart."""
    if (deployment.rpc.scheme, deployment.rpc.hosts) == (deployment.notify.scheme, deployment.notify.hosts):
        return
    for name in dict.fromkeys(c.service for c in config_files):
        if catalogue[name].caution:
            yield kinds.problem(name, "mixes-halves", name=name, caution=catalogue[name].caution)


def plan_services(
    deployment: model.Deployment, node: model.Node, catalogue: dict[str, Service], host: layout.Host
) -> tuple[ConfigFile, ...]:
    """Return the files to configure on ``node``.

    They are the files of the services that the metadata names. Without such a list, they are the files of all services
    of the catalogue that are installed.

    :raises om_agent.errors.InvalidInput: when the metadata names a service that is not installed, and when the
        services' oslo.messaging has no driver for a backend.
    """
    problems = []
    found: list[ConfigFile] = []
    rpc = as_seen_from(deployment, node, deployment.rpc)
    notify = as_seen_from(deployment, node, deployment.notify)
    deployment = dataclasses.replace(deployment, rpc=rpc, notify=notify)
    named = deployment.services
    names = catalogue.keys() if named is None else named
    services = [catalogue[name] for name in names]
    for service in filter(_has_messaging, services):
        for file in service.files:
            lacking = _lacking(file, host)
            if not lacking:
                found.append(_config_file(deployment, service, file, host))
            elif named is not None:
                code, where = lacking
                path = f"services[{named.index(service.name)}]"
                problems.append(kinds.problem(path, code, name=errors.quoted(service.name), where=where))
    if not problems:
        problems += _driver_problems(deployment, catalogue, found, host)
    if problems:
        raise errors.InvalidInput(problems)
    return tuple(found)


def _driver_problems(
    deployment: model.Deployment, catalogue: dict[str, Service], found: typing.Sequence[ConfigFile], host: layout.Host
) -> typing.Iterator[errors.Problem]:
    """Yield a problem for each half whose driver the oslo.messaging of this node's services does not have."""
    installed = layout.numbers(host.oslo_messaging)  # () when none was found
    users = [catalogue[file.service] for file in found]
    notified = [service for service in users if service.notify or service.listens]
    users_of_half = {"rpc": users, "notify": notified}
    for backend in deployment.halves:
        removed_in = backend.scheme.record.driver_removed_in
        if removed_in is None or installed < removed_in:
            continue
        for service in users_of_half[backend.half][:1]:
            path = f"{backend.half}.scheme"
            yield kinds.problem(path, "no-amqp-driver", version=host.oslo_messaging, name=service.name)


def as_seen_from(deployment: model.Deployment, node: model.Node, backend: model.Backend) -> model.Backend:
    """Return ``backend`` with the hosts that ``node``'s services connect to: only the node's own router, if it has one.

    The driver starts at a random host of a URL and stays there. So with further hosts behind the local router most
    clients would leave the local router (measured, doc/topology.rst).
    """
    has_router = node.router is not model.RouterMode.NONE
    uses_local_router = deployment.router.clients is model.Clients.LOCAL and has_router
    if backend.external or not backend.scheme.record.runs_on_every_node or not uses_local_router:
        return backend
    return dataclasses.replace(backend, hosts=(node.host,))


def _has_messaging(service: Service) -> bool:
    return service.rpc or service.notify or service.listens


def _lacking(file: CatalogueFile, host: layout.Host) -> tuple[str, str] | None:
    """Return (problem code, what is missing) when ``host`` does not have the service of ``file``."""
    path = file.path[host.family]
    if posixpath.dirname(path) not in host.directories:
        return ("absent-service", host.target + posixpath.dirname(path))
    if file.format == PASTE and not _filters(file, host):
        return ("no-section", f"[{file.section}] in {host.target}{path}")
    return None


def _filters(file: CatalogueFile, host: layout.Host) -> list[str]:
    """Return the sections of a paste file that the agent fills: the catalogue's, and others that use its module."""
    path = file.path[host.family]
    usual = [file.section] if (path, file.section) in host.paste_sections else []
    others = sorted(name for at, name in host.paste_filters if at == path and _PLAIN_FILTER.fullmatch(name))
    return list(dict.fromkeys((*usual, *others)))


def _config_file(deployment: model.Deployment, service: Service, file: CatalogueFile, host: layout.Host) -> ConfigFile:
    family = host.family
    path = file.path[family]
    used = _used_drivers(deployment, service) if file.format == OSLO else {}
    if file.format == PASTE:
        settings = _paste_settings(deployment, file, host)
    else:
        settings = _oslo_settings(deployment, service, used, host, host.drivers.get(path, ()))
    uid, gid, mode = _access(file, host)
    return ConfigFile(
        service=service.name,
        path=path,
        uid=uid,
        gid=gid,
        mode=mode,
        format=file.format,
        settings=tuple(settings),
        units=service.units[family],
        drivers=tuple(used),
        fitting=_fitting(used),
    )


def _access(file: CatalogueFile, host: layout.Host) -> tuple[int | None, int | None, int]:
    """Return user, group and permission bits of a service's file; nobody else may read it.

    An existing file keeps its own. A file of root's that everybody could read gets the group of its service: otherwise
    the service itself could not read it any more.
    """
    family = host.family
    own_uid = host.uids.get(file.owner[family])
    own_gid = host.gids.get(file.group[family])
    existing = host.existing.get(file.path[family])
    if not existing:
        uid = host.uid if own_uid is None else own_uid
        gid = host.gid if own_gid is None else own_gid
        return uid, gid, file.mode & ~_OTHERS
    bits, uid, gid = existing
    readable_by_others = uid == 0 and bits & stat.S_IROTH
    if readable_by_others and own_gid not in (None, gid):
        gid = own_gid
        bits |= stat.S_IRGRP
    return uid, gid, bits & ~_OTHERS


def _fitting(used: Used) -> dict[str, tuple[str, ...]]:
    """Return what a router of this overcloud expects of a service's own options; an external one may differ."""
    ours = [backend for backend in used.get(DRIVERS[model.Scheme.AMQP], []) if not backend.external]
    if not ours:
        return {}
    if any(backend.virtual_host for backend in ours):
        return {**ADDRESSING, **_PSEUDO_VHOST}
    return dict(ADDRESSING)


def _used_drivers(deployment: model.Deployment, service: Service) -> Used:
    """Return the backends that a service connects to, by the section of the driver that it uses."""
    halves = [deployment.rpc] if service.rpc else []
    if service.notify or service.listens:
        halves.append(deployment.notify)
    used: Used = {}
    for backend in halves:
        used.setdefault(DRIVERS[backend.scheme], []).append(backend)
    return used


def _oslo_settings(
    deployment: model.Deployment,
    service: Service,
    used: Used,
    host: layout.Host,
    sections_before: typing.Collection[str],
) -> typing.Iterator[Setting]:
    """Yield the settings of an oslo.config file.

    :param sections_before: the sections of the drivers that the agent made the service use before.
    """
    values = _url_values(deployment, service)
    for scheme, section in DRIVERS.items():
        if section in used or section in sections_before:
            options = driver_options.VALUES[scheme](deployment, used.get(section, []), host)
            values.update({(section, option): value for option, value in options.items()})
    unused = set(DRIVERS.values()) - used.keys()
    for (section, key), value in values.items():
        text = None if value is None else model.Secret(transport_url.escape_oslo(value))
        dropped = value is None and section in _QUEUE_SECTIONS and key in host.queue_options
        yield Setting(section, key, text, leaving=section in unused or dropped)
    older_names = {older: key[0] in unused for key in values for older in OLDER_NAMES.get(key, ())}
    for (section, key), leaving in older_names.items():
        yield Setting(section, key, None, leaving)


def _url_values(deployment: model.Deployment, service: Service) -> dict[tuple[str, str], str | None]:
    """Return the options that name the backends, by section and key."""
    values: dict[tuple[str, str], str | None] = {
        ("DEFAULT", "transport_url"): transport_url.url_of(deployment.rpc).reveal(),
    }
    if deployment.oslo.rpc_response_timeout:  # otherwise the option belongs to the operator
        values["DEFAULT", "rpc_response_timeout"] = str(deployment.oslo.rpc_response_timeout)
    if service.notify or service.listens:
        values["oslo_messaging_notifications", "transport_url"] = transport_url.url_of(deployment.notify).reveal()
    if service.notify:
        values["oslo_messaging_notifications", "driver"] = deployment.oslo.notification_driver
    return values


def _paste_settings(deployment: model.Deployment, file: CatalogueFile, host: layout.Host) -> typing.Iterator[Setting]:
    """Yield the settings of a paste file. It has no oslo sections, so the URL's query holds the driver's options."""
    query = {}
    if deployment.notify.mechanism is not model.Mechanism.PLAIN:
        query.update(driver_options.login(deployment.notify))
    ca_path = driver_options.ca_path(deployment.tls, host)
    if deployment.notify.tls and ca_path:
        query["ssl_ca_file"] = ca_path
    query.update(driver_options.queue_options(deployment, deployment.notify, host))
    url = transport_url.url_of(deployment.notify, query).reveal()
    for section in _filters(file, host):
        yield Setting(section, "url", model.Secret(transport_url.escape_paste(url)))
        yield Setting(section, "driver", model.Secret(deployment.oslo.notification_driver))
