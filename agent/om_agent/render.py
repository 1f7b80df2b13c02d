"""Make files and hieradata from a plan: what apply writes, and what a dry run shows. Pure.

Text files come from the templates in ``templates/``, JSON files from `json`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import shlex
import typing

from om_agent import errors, model, plan, templating
from om_agent.plan import authority, broker, layout, router, services

_STAMP_DIR = layout.STATE_DIR + "/units"


@dataclasses.dataclass(frozen=True)
class File:
    """A file that the agent owns and writes whole.

    :param path: absolute, below the root directory that apply is given.
    :param content: None for a SASL database, which only saslpasswd2 can make, from ``users``.
    :param secret: whether the content must not be shown.
    :param digest: of the template and values that the content was made from; '' for a file that has no template.
    """

    path: str
    content: bytes | None
    owner: str = "root"
    group: str = "root"
    mode: int = 0o644
    secret: bool = False
    users: tuple[router.SaslUser, ...] = ()
    digest: str = ""


class Unit(typing.NamedTuple):
    """A systemd unit of ours.

    :param files: paths of the files that the unit reads at its start: when one changes, the unit must be restarted.
    """

    name: str
    files: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Rendered:
    """The files and units of one node.

    :param files: the files that the agent writes whole, in this order; `hieradata` makes one more.
    :param config_files: keys in files of other owners, which puppet edits.
    :param requires: files that must be there before anything is written.
    :param servers: servers and clients whose certificates are checked before anything is written.
    :param node: the node's name in the metadata.
    :param queue_options: names of the options about queues that services get.
    """

    files: tuple[File, ...]
    units: tuple[Unit, ...]
    config_files: tuple[services.ConfigFile, ...]
    requires: tuple[layout.Required, ...]
    servers: tuple[layout.Server, ...] = ()
    node: str = ""
    queue_options: tuple[str, ...] = ()


def render(p: plan.Plan, host: layout.Host) -> Rendered:
    """Return the files and units of ``p``.

    :raises om_agent.errors.InvalidInput: when the check of the router's configuration finds a problem.
    :raises om_agent.errors.NotReady: when a Python module that the files need is not installed.
    """
    files = [File(layout.CA_FILE, p.tls.ca.encode())] if p.tls.ca else []
    requires = list(p.client_requires)
    servers: list[layout.Server] = []
    units = []
    if p.router:
        router_files = list(_router_files(p.tls, p.router, host))
        # Cyrus opens the SASL database again for every login, so new passwords need no restart.
        restart_for = tuple(f.path for f in router_files if not f.users)
        units.append(Unit(p.router.paths.unit, restart_for))
        files += router_files
        requires += p.router.requires
        servers += p.router.servers
    if p.broker:
        broker_files = list(_broker_files(p.tls, p.broker, host))
        units.append(Unit(layout.RABBIT_UNIT, tuple(f.path for f in broker_files)))
        files += broker_files
        requires += p.broker.requires
        servers += p.broker.servers
    return Rendered(
        files=tuple(files),
        units=tuple(units),
        config_files=p.config_files,
        requires=tuple(dict.fromkeys(requires)),
        servers=(*servers, *p.clients),
        node=p.node.name,
        queue_options=p.queue_options,
    )


def _text_file(path: str, made: templating.Text, owner: str = "root", group: str = "root", mode: int = 0o644) -> File:
    return File(path, made.content.encode(), owner, group, mode, digest=made.digest)


def _tls_files(tls: model.Tls, directory: str, group: str) -> typing.Iterator[File]:
    """Yield the PEM files of one service; only root and the service's own group can read its key."""
    ca, certificate, key = router.tls_paths(tls, directory)
    if tls.ca:
        yield File(ca, tls.ca.encode())
    if tls.certificate:
        yield File(certificate, tls.certificate.encode())
        yield File(key, tls.key.reveal().encode(), group=group, mode=0o640, secret=True)


def _router_files(tls: model.Tls, r: router.RouterPlan, host: layout.Host) -> typing.Iterator[File]:
    where = r.paths
    if r.tls:
        yield from _tls_files(tls, where.directory, where.user)
    yield File(where.sasl_database, None, group=where.user, mode=0o640, secret=True, users=r.users)
    yield _text_file(where.sasl_config, _sasl_config(r, host))
    if r.mesh_password:
        credentials = authority.issue(r.mesh_password, r.node)
        key = credentials.key.reveal().encode()
        yield File(where.mesh("ca"), credentials.ca.encode())
        yield File(where.mesh("certificate"), credentials.certificate.encode())
        yield File(where.mesh("key"), key, group=where.user, mode=0o640, secret=True)
    problems = list(router.check_entities(where.config, r.entities))
    if problems:
        raise errors.InvalidInput(problems)
    lines = ",\n  ".join(json.dumps(entity) for entity in r.entities)  # one entity a line, for readable diffs
    yield File(where.config, f"[\n  {lines}\n]\n".encode(), group=where.user, mode=0o640)


def _sasl_config(r: router.RouterPlan, host: layout.Host) -> templating.Text:
    """Return the options of Cyrus SASL (https://www.cyrusimap.org/sasl/sasl/options.html).

    They allow every mechanism that a listener may offer. Each listener names its own in the router's configuration.
    """
    always = ("PLAIN", "EXTERNAL")
    mechanisms = (*always, *sorted(r.mechanisms.difference(always)))
    return templating.text("sasl.conf", host.texts, database=r.sasl_database, mechanisms=mechanisms)


def _broker_files(tls: model.Tls, b: broker.BrokerPlan, host: layout.Host) -> typing.Iterator[File]:
    base, user = layout.RABBIT_DIR, layout.RABBIT_USER
    if b.tls:
        yield from _tls_files(tls, base, user)
    if b.distribution:
        distribution = templating.text("distribution-tls.config", host.texts, options=b.distribution)
        yield _text_file(layout.RABBIT_DISTRIBUTION, distribution)
    cookie = b.erlang_cookie.reveal().encode()
    yield File(layout.RABBIT_COOKIE, cookie, owner=user, group=user, mode=0o400, secret=True)
    definitions = json.dumps(b.definitions, indent=2, ensure_ascii=False).encode() + b"\n"
    yield File(layout.RABBIT_DEFINITIONS, definitions, group=user, mode=0o640, secret=True)
    # Debian's package makes this user the owner at every upgrade.
    plugins = templating.text("enabled_plugins", host.texts, plugins=b.plugins)
    yield _text_file(f"{base}/enabled_plugins", plugins, owner=user, group=user)
    yield _text_file(f"{base}/erl_inetrc", _resolver(b, host))
    yield _text_file(f"{base}/rabbitmq-env.conf", _environment(b, host))
    yield _text_file(f"{base}/rabbitmq.conf", templating.text("rabbitmq.conf", host.texts, settings=b.settings))


def _resolver(b: broker.BrokerPlan, host: layout.Host) -> templating.Text:
    """Return Erlang's resolver file: it looks up names in the cluster first, then asks the system's own resolver."""
    hosts = []
    for inet_host in b.inet_hosts:
        address, name = broker.erlang_address(inet_host.address), broker.erlang_string(inet_host.name)
        hosts.append(broker.InetHost(address, name))
    has_ipv6 = any(":" in inet_host.address for inet_host in b.inet_hosts)
    # Without this Erlang looks up the names above as IPv4 addresses only.
    options = ("{inet6, true}",) if has_ipv6 else ()
    return templating.text("erl_inetrc", host.texts, hosts=hosts, options=options)


def _environment(b: broker.BrokerPlan, host: layout.Host) -> templating.Text:
    """Return rabbitmq-env.conf, which a shell reads."""
    variables = [broker.Variable(name, shlex.quote(value)) for name, value in b.environment]
    return templating.text("rabbitmq-env.conf", host.texts, variables=variables)


# --------------------------------------------------------------------------------------------------------------------


def hieradata(
    rendered: Rendered,
    host: layout.Host,
    digests: typing.Mapping[str, str],
    retired: typing.Iterable[str],
    leaving: bool = False,
) -> bytes:
    """Return the parameters of the puppet module ``om_messaging`` as JSON.

    :param digests: by path of a file of ours, the SHA-256 of its content after this run.
    :param retired: units that this node ran before and does not run any more.
    :param leaving: whether to include the keys that are removed only once.
    """
    units: dict[str, dict[str, object]] = {}
    for unit in rendered.units:
        units[unit.name] = {"enable": True, "config_digest": unit_digest(unit, digests)}
    for name in retired:
        units[name] = {"enable": False, "ensure": "stopped"}
    data = {
        "om_messaging::config_files": {host.target + c.path: _config_file(c, leaving) for c in rendered.config_files},
        "om_messaging::units": units,
        "om_messaging::manage_service": host.manage_services,
        "om_messaging::state_dir": host.target + _STAMP_DIR,
    }
    text = json.dumps(data, indent=2, ensure_ascii=False)
    # Hiera interpolates %{...} wherever it stands; this is its own way to write the two characters themselves.
    return text.replace("%{", "%{literal('%')}{").encode() + b"\n"


def stamp_paths(rendered: Rendered) -> tuple[str, ...]:
    """Return the stamps: in each of them puppet notes the configuration with which it last started a unit of ours."""
    return tuple(f"{_STAMP_DIR}/{u.name}" for u in rendered.units)


def unit_digest(unit: Unit, digests: typing.Mapping[str, str]) -> str:
    """Return one SHA-256 over the unit's files: when it changes, the unit must be restarted."""
    joined = "".join(f"{path} {digests[path]}\n" for path in sorted(unit.files))
    return hashlib.sha256(joined.encode()).hexdigest()


def _config_file(c: services.ConfigFile, leaving: bool) -> dict[str, object]:
    settings: dict[str, dict[str, str | None]] = {}
    for s in c.settings:
        if s.leaving and not leaving:
            continue
        settings.setdefault(s.section, {})[s.key] = s.value.reveal() if s.value else None
    removable = sorted(name for name in settings if name in c.removable)
    ids = {"owner": c.uid, "group": c.gid}
    return {
        **{k: str(v) for k, v in ids.items() if v is not None},
        "mode": f"{c.mode:04o}",
        **({"style": c.format} if c.format == services.PASTE else {}),
        **({"removable_sections": removable} if removable else {}),
        "settings": settings,
        "units": list(c.units),
    }


def fingerprint(users: tuple[router.SaslUser, ...], key: bytes) -> str:
    """Return a digest of the users in a SASL database, under a key that never leaves the node.

    The bytes of the database differ every time it is made. The digest shows whether its users are still the same.
    """
    text = json.dumps([[u.name, u.realm, u.password.reveal()] for u in users]).encode()
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def hiera_config(host: layout.Host) -> File:
    """Return hiera's configuration; TripleO's own /etc/puppet/hiera.yaml stays as it is."""
    directory = host.target + layout.HIERADATA.rpartition("/")[0]
    # JSON is YAML: its quotes keep any directory's name one value.
    made = templating.text("hiera.yaml", host.texts, datadir=json.dumps(directory))
    return _text_file(layout.HIERA_CONFIG, made, mode=0o600)
