"""What each OpenStack service on the node must find in its configuration: the catalogue, and keys with their values."""

from __future__ import annotations

import dataclasses
import posixpath
import re
import typing

from om_agent import errors, kinds, model
from om_agent.plan import layout, policy, queues, transport_url

OSLO = "oslo"
PASTE = "paste"
FAMILIES = ("debian", "redhat")
DRIVERS = {scheme: scheme.record.section for scheme in model.Scheme}  # by the section that each reads

# Every key of these sections that this project may ever write. In the section of a driver that a service uses, those
# that the present deployment does not want are made absent; and all of them are in the section of a driver that this
# project made the service use before (`om_agent.plan.layout.Host.drivers`). The section of a driver that this project
# never made the service use is the operator's own: ceilometer may publish over AMQP 1.0 to a router of its own.
_AMQP_KEYS = (
    "ssl", "ssl_ca_file", "ssl_cert_file", "ssl_key_file", "sasl_mechanisms", "sasl_default_realm", "idle_timeout",
    "pre_settled", "default_reply_retry", "link_retry_delay", "connection_retry_interval_max",
)  # fmt: skip
_RABBIT_KEYS = (
    "ssl", "ssl_ca_file", "ssl_cert_file", "ssl_key_file", "rabbit_login_method", "heartbeat_timeout_threshold",
)  # fmt: skip

# Older names of keys above that oslo.messaging reads (deprecated_opts of its options): the same ones from 12.7
# (Wallaby) to 14.9, and those of RabbitMQ and of notifications in 15.0 too. 16.0 removed all of them, and 16.1 to 17.1
# read none: there a line with such a name has no effect, and is removed all the same. oslo.config adds up the values
# of all names of `driver`, so that notifications would go out twice; and another name counts where ours is absent. So
# a file that has a key of this project has none of its older names. They do not come back with another backend: the
# operator finds the present name there, which means the same.
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
# What the router's policy and its addresses expect of a service (`om_agent.plan.policy`), beside what is written: keys
# of [oslo_messaging_amqp], each with the values that fit. The first is oslo.messaging's default.
ADDRESSING = {
    "addressing_mode": ("dynamic", "routable"),
    "rpc_address_prefix": (f"{policy.PREFIX}/rpc",),
    "notify_address_prefix": (f"{policy.PREFIX}/notify",),
    "multicast_address": ("multicast",),
    "unicast_address": ("unicast",),
    "anycast_address": ("anycast",),
}
# Options that name a transport of their own, whatever [DEFAULT] and [oslo_messaging_notifications] say: by service, and
# of what any service may have in its pipeline (keystonemiddleware 13.0.1, keystonemiddleware/audit/__init__.py).
# doc/services.rst says which releases of which services were searched.
OWN_TRANSPORTS = {
    "ceilometer": (("notification", "messaging_urls"),),  # ceilometer 11.0.0 and 27.0.0, ceilometer/notification.py
    "murano": (("rabbitmq", "host"),),  # murano 16.0.0, murano/common/config.py: its guest agents' broker
    # octavia 3.0.0 and 4.1.1, octavia/common/config.py; gone in 5.0.0 (Train)
    "octavia": (("oslo_messaging", "event_stream_transport_url"),),
}
# Units that uWSGI can serve and in which eventlet has patched threads. In a second thread of the operating system their
# AMQP 1.0 driver waits for ever (doc/services.rst: which units were looked at).
PATCHED_APIS = {
    "masakari": ("masakari-api",),
    "neutron": ("neutron-api",),
    "nova": ("nova-api", "nova-api-metadata"),
}
OWN_TRANSPORT_OF_ANY = ("audit_middleware_notifications", "transport_url")
# The like in a paste file: oslo.messaging's RequestNotifier (oslo_messaging/notify/middleware.py) and
# ceilometermiddleware take "url", keystonemiddleware's audit filter "transport_url".
OWN_TRANSPORTS_OF_PASTE = ("url", "transport_url")
TRANSPORT_URL = re.compile(r"\s*(?:rabbit|amqp|kombu|kafka|pika|qpid|zmq)[+\w]*://.*", re.DOTALL)
# Names of sections that puppet's type takes, and that mean nothing to hiera.
_PLAIN_FILTER = re.compile(r"(?:filter|filter-app|app):[\w.-]+")
# Options whose values oslo.config adds up over all files (MultiStrOpt).
ADDED_UP = (("oslo_messaging_notifications", "driver"), ("oslo_messaging_amqp", "pre_settled"))
# The virtual host is a part of the address, which the policy names where there is one.
_PSEUDO_VHOST = {"pseudo_vhost": ("true", "1", "yes", "on")}


# oslo.messaging 15.0 removed the driver for AMQP 1.0 (its release notes, 2025.1).
_NO_AMQP_SINCE = 15


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
    """One key of a file that somebody else owns.

    :param value: as it must stand in the file, escaped for it; None when the key must be absent.
    :param leaving: whether it is removed once, with a driver or a type of queues that the service uses no more.
    """

    section: str
    key: str
    value: model.Secret | None
    leaving: bool = False


@dataclasses.dataclass(frozen=True)
class ConfigFile:
    """One service's configuration file on this node.

    :param uid: None when nothing is known of the owner; a file that is there keeps its own.
    :param mode: permission bits; a file that is there keeps its own but for those of others, since it holds passwords.
    :param drivers: the sections of the drivers that these settings make the service use.
    :param removable: sections that go with their last key: those that the agent added, or adds.
    :param fitting: keys of [oslo_messaging_amqp] that are the operator's own, each with the values that fit the router.
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
                uses=f.get("uses", ""),
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


def service_findings(
    deployment: model.Deployment, catalogue: dict[str, Service], config_files: typing.Iterable[ConfigFile]
) -> typing.Iterator[errors.Problem]:
    """Yield what services on this node will do wrong because the two halves have different backends."""
    if (deployment.rpc.scheme, deployment.rpc.hosts) == (deployment.notify.scheme, deployment.notify.hosts):
        return
    for name in dict.fromkeys(c.service for c in config_files):
        if catalogue[name].caution:
            yield kinds.problem(name, "mixes-halves", name=name, caution=catalogue[name].caution)


def plan_services(
    deployment: model.Deployment, node: model.Node, catalogue: dict[str, Service], host: layout.Host
) -> tuple[ConfigFile, ...]:
    """Return the files to configure on ``node``: those of the services asked for, or of the catalogue's that it has.

    :raises om_agent.errors.InvalidInput: for a service that is asked for and is not there, and for AMQP 1.0 where
        oslo.messaging is too new for it.
    """
    problems = []
    found: list[ConfigFile] = []
    deployment = dataclasses.replace(
        deployment,
        rpc=as_seen_from(deployment, node, deployment.rpc),
        notify=as_seen_from(deployment, node, deployment.notify),
    )
    for name in deployment.services if deployment.services is not None else catalogue:
        service = catalogue[name]
        for file in service.files if _has_messaging(service) else ():
            lacking = _lacking(file, host)
            if not lacking:
                found.append(_config_file(deployment, service, file, host))
            elif deployment.services is not None:
                at = f"services[{deployment.services.index(name)}]"
                problems.append(kinds.problem(at, lacking[0], name=errors.quoted(name), where=lacking[1]))
    problems += _driver_problems(deployment, catalogue, found, host) if not problems else ()
    if problems:
        raise errors.InvalidInput(problems)
    return tuple(found)


def _driver_problems(
    deployment: model.Deployment, catalogue: dict[str, Service], found: typing.Sequence[ConfigFile], host: layout.Host
) -> typing.Iterator[errors.Problem]:
    """Yield, for each half over AMQP 1.0, that this node's services have no driver for it."""
    if layout.numbers(host.oslo_messaging)[:1] < (_NO_AMQP_SINCE,):
        return  # not found counts as ()
    users = [catalogue[file.service] for file in found]
    using = {"rpc": users, "notify": [service for service in users if service.notify or service.listens]}
    for backend in deployment.halves:
        if backend.scheme is model.Scheme.AMQP and using[backend.half]:
            name = using[backend.half][0].name
            yield kinds.problem(f"{backend.half}.scheme", "no-amqp-driver", version=host.oslo_messaging, name=name)


def as_seen_from(deployment: model.Deployment, node: model.Node, backend: model.Backend) -> model.Backend:
    """Return ``backend`` with the hosts that ``node``'s services connect to: its own router alone, where it runs one.

    The driver starts at a random one of several hosts and stays there, so others behind the local router would take
    most of the clients from it (measured, doc/topology.rst).
    """
    local = deployment.router.clients is model.Clients.LOCAL and node.router is not model.RouterMode.NONE
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
    if file.format == PASTE and not _filters(file, host):
        return ("no-section", f"[{file.section}] in {host.target}{path}")
    return None


def _filters(file: CatalogueFile, host: layout.Host) -> list[str]:
    """Return the sections of a paste file that are ours to fill: the catalogue's, and others that use the same."""
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

    A file that is there keeps its own. One of root's that everybody could read gets its service's group, or the service
    would be among those who no longer may.
    """
    own_uid, own_gid = host.uids.get(file.owner[host.family]), host.gids.get(file.group[host.family])
    there = host.existing.get(file.path[host.family])
    if not there:
        uid, gid = host.uid if own_uid is None else own_uid, host.gid if own_gid is None else own_gid
        return uid, gid, file.mode & ~0o007
    bits, uid, gid = there
    if uid == 0 and bits & 0o004 and own_gid not in (None, gid):
        gid, bits = own_gid, bits | 0o040
    return uid, gid, bits & ~0o007


def _fitting(used: typing.Mapping[str, list[model.Backend]]) -> dict[str, tuple[str, ...]]:
    """Return what a router of this overcloud expects of a service's own keys: nothing is known of another one."""
    ours = [b for b in used.get(DRIVERS[model.Scheme.AMQP], []) if not b.external]
    if not ours:
        return {}
    return {**ADDRESSING, **(_PSEUDO_VHOST if any(b.virtual_host for b in ours) else {})}


def _used_drivers(deployment: model.Deployment, service: Service) -> dict[str, list[model.Backend]]:
    """Return what a service connects to, by the section of the driver that it uses for that."""
    halves = [deployment.rpc] if service.rpc else []
    if service.notify or service.listens:
        halves.append(deployment.notify)
    used: dict[str, list[model.Backend]] = {}
    for backend in halves:
        used.setdefault(DRIVERS[backend.scheme], []).append(backend)
    return used


def ca_path(tls: model.Tls, host: layout.Host) -> str:
    """Return the path of the CA file that clients verify with, '' for the system's own authorities."""
    return tls.ca_file or (host.inside(layout.CA_FILE) if tls.ca else "")


def _oslo_settings(
    deployment: model.Deployment,
    service: Service,
    used: dict[str, list[model.Backend]],
    host: layout.Host,
    before: typing.Collection[str],
) -> typing.Iterator[Setting]:
    values: dict[tuple[str, str], str | None] = {
        ("DEFAULT", "transport_url"): transport_url.url_of(deployment.rpc).reveal(),
    }
    if deployment.oslo.rpc_response_timeout:  # else it is the operator's own
        values["DEFAULT", "rpc_response_timeout"] = str(deployment.oslo.rpc_response_timeout)
    if service.notify or service.listens:
        values["oslo_messaging_notifications", "transport_url"] = transport_url.url_of(deployment.notify).reveal()
    if service.notify:
        values["oslo_messaging_notifications", "driver"] = deployment.oslo.notification_driver
    for scheme, of_driver in ((model.Scheme.AMQP, _amqp_values), (model.Scheme.RABBIT, _rabbit_values)):
        section = DRIVERS[scheme]
        if section in used or section in before:
            values.update({(section, k): v for k, v in of_driver(deployment, used.get(section, []), host).items()})
    left = set(DRIVERS.values()) - used.keys()
    for (section, key), value in values.items():
        shown = None if value is None else model.Secret(transport_url.escape_oslo(value))
        taken_back = value is None and section == DRIVERS[model.Scheme.RABBIT] and key in host.queue_options
        yield Setting(section, key, shown, section in left or taken_back)
    older = {name: written[0] in left for written in values for name in OLDER_NAMES.get(written, ())}
    for (section, key), leaving in older.items():
        yield Setting(section, key, None, leaving)


def _amqp_values(deployment: model.Deployment, used: list[model.Backend], host: layout.Host) -> dict[str, str | None]:
    values: dict[str, str | None] = dict.fromkeys(_AMQP_KEYS)
    if used:
        values.update(_login(used[0]))
        values["idle_timeout"] = str(deployment.oslo.amqp_idle_timeout)
        # Stock: 10 s before a message is sent again that a router handed back because it knows no consumer yet, and
        # those behind it wait too; up to 30 s between two tries to connect. The local router is back in a second.
        values["link_retry_delay"] = "1"
        values["connection_retry_interval_max"] = "2"
        values.update(_delivery(deployment))
    if any(b.tls for b in used):
        values["ssl"] = "true"
        values["ssl_ca_file"] = ca_path(deployment.tls, host) or None
    return values


def _delivery(deployment: model.Deployment) -> dict[str, str]:
    """Return what makes services wait until a message has arrived, and what makes them not wait.

    A router hands a message back that nobody receives. The driver sends an acknowledged one again for 30 s, and then
    raises an error; a pre-settled one is gone. RabbitMQ drops a cast or a fanout that nobody receives, and services
    rely on that. The driver cannot tell a fanout from a cast.
    """
    if deployment.oslo.delivery is model.Delivery.CALLS_ONLY:
        return {}  # stock: rpc-cast and rpc-reply
    # Stock is 0: the driver gives up an answer that a router handed back. -1: it tries for default_reply_timeout, 30 s.
    found = {"default_reply_retry": "-1", "pre_settled": "rpc-cast"}
    if deployment.oslo.delivery is model.Delivery.ALL:
        # The driver has no word for "none", and warns of those that it does not know. It sends no notifications where
        # those go over RabbitMQ.
        found["pre_settled"] = "none" if deployment.notify.scheme is model.Scheme.AMQP else "notify"
    return found


def _login(backend: model.Backend) -> dict[str, str]:
    """Return how a service logs in, as its driver is told."""
    shown = dict(zip(("ssl_cert_file", "ssl_key_file"), backend.client_files))
    record = backend.scheme.record
    return {record.mechanism: backend.mechanism.value, **shown} if shown or record.says_mechanism else {}


def _rabbit_values(deployment: model.Deployment, used: list[model.Backend], host: layout.Host) -> dict[str, str | None]:
    values: dict[str, str | None] = dict.fromkeys(_RABBIT_KEYS)
    values.update(dict.fromkeys(host.queue_options))  # others are the operator's own
    if used:
        values.update(_login(used[0]))
        values.update(queues.options(deployment, host))
        values["heartbeat_timeout_threshold"] = str(deployment.oslo.rabbit_heartbeat)
    if any(b.tls for b in used):
        values["ssl"] = "true"
        values["ssl_ca_file"] = ca_path(deployment.tls, host) or None
    return values


def _paste_settings(deployment: model.Deployment, file: CatalogueFile, host: layout.Host) -> typing.Iterator[Setting]:
    """A paste filter has no oslo sections: what the driver needs beside the URL goes into the URL's query."""
    query = {}
    if deployment.notify.mechanism is not model.Mechanism.PLAIN:
        query.update(_login(deployment.notify))
    if deployment.notify.tls and ca_path(deployment.tls, host):
        query["ssl_ca_file"] = ca_path(deployment.tls, host)
    if deployment.notify.scheme is model.Scheme.RABBIT:
        query.update(queues.options(deployment, host))
    url = transport_url.url_of(deployment.notify, query).reveal()
    for section in _filters(file, host):
        yield Setting(section, "url", model.Secret(transport_url.escape_paste(url)))
        yield Setting(section, "driver", model.Secret(deployment.oslo.notification_driver))
