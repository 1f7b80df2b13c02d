"""Plan in, files and hieradata out: exactly what apply consumes and what a dry run shows. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import shlex
import typing

from om_agent import errors, model, plan
from om_agent.plan import authority, broker, layout, router, services

_NOTE = "Written by om-agent from the overcloud's metadata; it replaces every change made here."
_STAMP_DIR = layout.STATE_DIR + "/units"


@dataclasses.dataclass(frozen=True)
class File:
    """A file that is wholly ours.

    :param path: absolute, below the root directory that apply is given.
    :param content: None when ``users`` says what is in it.
    :param secret: whether the content may be shown.
    :param users: of a SASL database, whose bytes only saslpasswd2 can make.
    """

    path: str
    content: bytes | None
    owner: str = "root"
    group: str = "root"
    mode: int = 0o644
    secret: bool = False
    users: tuple[router.SaslUser, ...] = ()


@dataclasses.dataclass(frozen=True)
class Unit:
    """A systemd unit of ours: which files, when changed, need it restarted."""

    name: str
    files: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Rendered:
    """What a node's plan comes to.

    :param files: wholly ours, in the order in which they are written; the hieradata is made by `hieradata`.
    :param config_files: keys in files of others, edited by puppet.
    :param requires: files that have to be there already.
    :param servers: whose certificates have to be good.
    :param node: its name in the metadata.
    :param queue_options: names of the options about queues that services are given.
    """

    files: tuple[File, ...]
    units: tuple[Unit, ...]
    config_files: tuple[services.ConfigFile, ...]
    requires: tuple[layout.Required, ...]
    servers: tuple[layout.Server, ...] = ()
    node: str = ""
    queue_options: tuple[str, ...] = ()


def render(p: plan.Plan, host: layout.Host) -> Rendered:
    """Return the files of ``p``.

    :raises om_agent.errors.InvalidInput: when our own check of the router's configuration finds something.
    """
    groups: list[tuple[Unit | None, list[File]]] = [(None, _client_files(p))]
    requires = list(p.client_requires)
    if p.router:
        files = list(_router_files(p, p.router))
        # Cyrus opens the SASL database anew for every login, so other passwords need no restart.
        restart_for = tuple(f.path for f in files if not f.users)
        groups.append((Unit(p.router.paths.unit, restart_for), files))
        requires += p.router.requires
    if p.broker:
        files = list(_broker_files(p, p.broker))
        groups.append((Unit(layout.RABBIT_UNIT, tuple(f.path for f in files)), files))
        requires += p.broker.requires
    return Rendered(
        files=tuple(f for _, files in groups for f in files),
        units=tuple(unit for unit, _ in groups if unit),
        config_files=p.config_files,
        requires=tuple(dict.fromkeys(requires)),
        queue_options=p.queue_options,
        servers=(*(p.router.servers if p.router else ()), *(p.broker.servers if p.broker else ()), *p.clients),
        node=p.node.name,
    )


def _client_files(p: plan.Plan) -> list[File]:
    return [File(layout.CA_FILE, p.tls.ca.encode())] if p.tls.ca else []


def _tls_files(tls: model.Tls, directory: str, group: str) -> typing.Iterator[File]:
    """Yield the PEM files for one service: its key is readable by its own group alone."""
    ca, certificate, key = router.tls_paths(tls, directory)
    if tls.ca:
        yield File(ca, tls.ca.encode())
    if tls.certificate:
        yield File(certificate, tls.certificate.encode())
        yield File(key, tls.key.reveal().encode(), group=group, mode=0o640, secret=True)


def _router_files(p: plan.Plan, r: router.RouterPlan) -> typing.Iterator[File]:
    where = r.paths
    if r.tls:
        yield from _tls_files(p.tls, where.directory, where.user)
    yield File(where.sasl_database, None, group=where.user, mode=0o640, secret=True, users=r.users)
    yield File(where.sasl_config, _sasl_config(r.sasl_database, r.mechanisms))
    if r.mesh_password:
        shown = authority.issue(r.mesh_password, r.node)
        yield File(where.mesh("ca"), shown.ca.encode())
        yield File(where.mesh("certificate"), shown.certificate.encode())
        yield File(where.mesh("key"), shown.key.reveal().encode(), group=where.user, mode=0o640, secret=True)
    lines = ",\n  ".join(json.dumps(entity) for entity in r.entities)  # one entity a line: a diff says what changed
    content = f"[\n  {lines}\n]\n".encode()
    problems = list(router.check_entities(where.config, json.loads(content)))
    if problems:
        raise errors.InvalidInput(problems)
    yield File(where.config, content, group=where.user, mode=0o640)


def _sasl_config(database: str, offered: frozenset[str]) -> bytes:
    """Return the Cyrus SASL options (https://www.cyrusimap.org/sasl/sasl/options.html); the listeners choose among the
    mechanisms."""
    always = ("PLAIN", "EXTERNAL")
    lines = (
        f"# {_NOTE}",
        "pwcheck_method: auxprop",
        "auxprop_plugin: sasldb",
        f"sasldb_path: {database}",
        f"mech_list: {' '.join([*always, *sorted(offered.difference(always))])}",
    )
    return ("\n".join(lines) + "\n").encode()


def _broker_files(p: plan.Plan, b: broker.BrokerPlan) -> typing.Iterator[File]:
    base, group = layout.RABBIT_DIR, layout.RABBIT_USER
    if b.tls:
        yield from _tls_files(p.tls, base, group)
    if b.distribution:
        yield File(layout.RABBIT_DISTRIBUTION, f"%% {_NOTE}\n{b.distribution}".encode())
    yield File(
        layout.RABBIT_COOKIE, b.erlang_cookie.reveal().encode(), owner=group, group=group, mode=0o400, secret=True
    )
    definitions = json.dumps(b.definitions, indent=2, ensure_ascii=False).encode() + b"\n"
    yield File(layout.RABBIT_DEFINITIONS, definitions, group=group, mode=0o640, secret=True)
    # The owner that Debian's package gives it at each of its upgrades.
    yield File(f"{base}/enabled_plugins", f"[{','.join(b.plugins)}].\n".encode(), owner=group, group=group)
    yield File(f"{base}/erl_inetrc", _inetrc(b.inet_hosts))
    yield File(f"{base}/rabbitmq-env.conf", _environment(b.environment))
    lines = [f"# {_NOTE}"] + [f"{key} = {value}" for key, value in b.settings]
    yield File(f"{base}/rabbitmq.conf", ("\n".join(lines) + "\n").encode())


def _inetrc(hosts: tuple[tuple[str, str], ...]) -> bytes:
    """Return Erlang's resolver file: the cluster's names first, then the system's own resolver."""
    lines = [f"%% {_NOTE}"]
    for address, name in hosts:
        lines.append(f'{{host, {broker.erlang_address(address)}, ["{name}"]}}.')
    if any(":" in address for address, _ in hosts):
        lines.append("{inet6, true}.")  # or the names above are looked up over IPv4 alone
    return ("\n".join([*lines, "{lookup, [file, native]}.", ""])).encode()


def _environment(variables: tuple[tuple[str, str], ...]) -> bytes:
    """Return rabbitmq-env.conf, which a shell reads."""
    lines = [f"# {_NOTE}", *(f"{name}={shlex.quote(value)}" for name, value in variables)]
    return ("\n".join(lines) + "\n").encode()


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


HIERA_CONFIG = """\
---
version: 5
defaults:
  datadir: {datadir}
  data_hash: json_data
hierarchy:
  - name: om-agent
    path: messaging.json
"""


def hiera_config(host: layout.Host) -> bytes:
    """Return hiera's configuration; TripleO's /etc/puppet/hiera.yaml stays its own."""
    datadir = host.target + layout.HIERADATA.rpartition("/")[0]
    return HIERA_CONFIG.format(datadir=json.dumps(datadir)).encode()
