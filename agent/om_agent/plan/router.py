"""The router's configuration: a list of (entity, attributes) that qdrouterd 1.19 and skrouterd 3.4 both accept.

Only modern attribute names are used: the common part of both engines' schemas (python/qpid_dispatch/management/
qdrouter.json at 1.19.0, skrouter.json at 3.4.2). The router has no check mode and starts happily on a missing
certificate, an unknown sslProfile or without a router entity, so `check_entities` looks for
those before anything is written.
"""

from __future__ import annotations

import collections
import dataclasses
import typing

from om_agent import errors, kinds, model
from om_agent.engines import record
from om_agent.plan import layout, policy, topology

Entity = tuple[str, dict[str, typing.Any]]

REALM = policy.REALM
PROFILE = "messaging"  # what listeners for clients show
MESH_PROFILE = "mesh"  # what routers show to each other

# oslo.messaging's addresses with its default prefixes (oslo_messaging/_drivers/amqp1_driver/opts.py).
_DISTRIBUTION = (("multicast", "multicast"), ("unicast", "closest"), ("anycast", "balanced"))

# What both engines take, of what this project writes.
_LINK = ("name", "host", "port", "role", "saslMechanisms", "sslProfile", "linkCapacity", "idleTimeoutSeconds")
_KNOWN: dict[str, frozenset[str]] = {
    "router": frozenset(("id", "mode", "workerThreads", "saslConfigDir", "saslConfigName")),
    "sslProfile": frozenset(("name", "certFile", "privateKeyFile", "caCertFile", "protocols", "ciphers", "uidFormat")),
    "listener": frozenset(
        (*_LINK, "authenticatePeer", "requireSsl", "policyVhost", "http", "healthz", "metrics", "websockets")
    ),
    "connector": frozenset((*_LINK, "cost", "verifyHostname")),
    "address": frozenset(("prefix", "distribution")),
    "policy": frozenset(("enableVhostPolicy", "maxConnections")),
    "vhost": frozenset(("hostname", "allowUnknownUser", "groups")),
}


@dataclasses.dataclass(frozen=True)
class SaslUser:
    """One line of the SASL database."""

    name: str
    realm: str
    password: model.Secret


@dataclasses.dataclass(frozen=True)
class RouterPlan:
    """One node's router.

    :param entities: in the order in which they are written.
    :param users: who may log in with a password; ``admin`` is one of them, and the agent itself.
    :param client_files: certificate and key that the router's clients, and so the agent, show; empty when they need
        none.
    :param requires: files that must be there before the router starts.
    :param mode: ``standalone``, ``interior`` or ``edge``, as the engines call it.
    :param sasl_database: path of users and passwords, as the configuration names it.
    :param mechanisms: of SASL that its listeners offer.
    :param certificates: path of what it shows, as the configuration names it, by `PROFILE` and `MESH_PROFILE`.
    :param mesh_password: what its certificate for other routers is made from; None when that is the operator's own, or
        there are no others.
    :param interiors: names of all interior routers, which are their ids too.
    :param links: (source, target) of every connection between interior routers.
    :param listener: address and port of a listener for clients.
    :param servers: what it shows that is the operator's own, not made here.
    :param ca: path, on this machine, of the authorities that ``listener`` is verified with; '' for the system's.
    """

    engine: model.Engine
    node: model.Node
    mode: str
    sasl_database: str
    mechanisms: frozenset[str]
    certificates: typing.Mapping[str, str]
    entities: tuple[Entity, ...]
    users: tuple[SaslUser, ...]
    admin: SaslUser
    client_files: tuple[str, ...]
    requires: tuple[layout.Required, ...]
    mesh_password: model.Secret | None
    interiors: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    listener: tuple[str, int]
    tls: bool
    ca: str
    servers: tuple[layout.Server, ...]

    @property
    def paths(self) -> record.Record:
        """Where the engine keeps its files."""
        return self.engine.record


def plan_router(d: model.Deployment, node: model.Node, host: layout.Host, mesh: topology.Mesh) -> RouterPlan | None:
    """Return the plan of the router on ``node``, or None when the node runs none."""
    carried = d.carried_by(node, model.Scheme.AMQP)
    if not carried:
        return None
    where = d.router.engine.record
    may_have_peers = model.may_have_peers(d)
    interior = node.router is model.RouterMode.INTERIOR
    # Interior even without peers: the mode cannot be changed while the router runs, and peers may be added.
    mode = node.router.value if may_have_peers else "standalone"
    entities: list[Entity] = [_router(d, node, host, where, mode)]
    shown = _shown_files(d, host, where)
    if PROFILE in shown:
        entities.append(_ssl_profile(d, shown[PROFILE], any(b.client_files for b in carried)))
    if MESH_PROFILE in shown:
        entities.append(_mesh_profile(shown[MESH_PROFILE]))
    by_port: dict[int, list[model.Backend]] = {}
    for backend in carried:
        by_port.setdefault(backend.port, []).append(backend)
    entities += [_client_listener(d, node, backends[0]) for backends in by_port.values()]
    if d.router.http_port:
        entities.append(_http_listener(d, node))
    if may_have_peers and interior:
        entities.append(_mesh_listener(d, node, "inter-router", d.router.inter_router_port))
    edges = may_have_peers and interior and d.router.clients is model.Clients.LOCAL
    if edges:
        entities.append(_mesh_listener(d, node, "edge", d.router.edge_port))
    if may_have_peers:
        by_name = d.by_name()
        entities += [_connector(d, link, by_name[link.target]) for link in mesh.opened_by(node.name)]
    for half in ("rpc", "notify"):
        entities += [
            ("address", {"prefix": f"{policy.PREFIX}/{half}/{kind}", "distribution": distribution})
            for kind, distribution in _DISTRIBUTION
        ]
    entities += policy.entities(d, {_listener_name(b[0]): b for b in by_port.values()}, edges)
    admin = SaslUser(model.ADMIN_USER, REALM, d.router.admin_password)
    accounts = {a.username: a.password for b in carried for a in b.accounts.values()}
    users = [SaslUser(name, REALM, accounts[name]) for name in sorted(accounts) if accounts[name].reveal()]
    return RouterPlan(
        engine=d.router.engine,
        node=node,
        mode=mode,
        sasl_database=host.inside(where.sasl_database),
        mechanisms=frozenset(m for _, a in entities for m in str(a.get("saslMechanisms", "")).split()),
        certificates={profile: certificate for profile, (_, certificate, _) in shown.items()},
        entities=tuple(entities),
        users=(*users, admin),
        admin=admin,
        client_files=carried[0].client_files,
        requires=_requires(d, may_have_peers),
        mesh_password=d.router.mesh_password if may_have_peers and not d.router.mesh_files else None,
        interiors=model.interiors(d),
        links=tuple(dict.fromkeys((link.source, link.target) for link in mesh.links if not link.uplink)),
        listener=(node.address, carried[0].port),
        tls=d.router.tls,
        ca=inside_or_given(tls_paths(d.tls, where.directory)[0], d.tls, host),
        servers=tuple(_servers(d, node, may_have_peers)),
    )


def _shown_files(d: model.Deployment, host: layout.Host, where: record.Record) -> dict[str, tuple[str, ...]]:
    """Return the paths of CA, certificate and key, as the configuration names them, by profile."""
    found: dict[str, tuple[str, ...]] = {}
    if d.router.tls:
        found[PROFILE] = tuple(inside_or_given(path, d.tls, host) for path in tls_paths(d.tls, where.directory))
    if model.may_have_peers(d):
        own = tuple(host.inside(where.mesh(name)) for name in ("ca", "certificate", "key"))
        found[MESH_PROFILE] = d.router.mesh_files or own
    return found


def _servers(d: model.Deployment, node: model.Node, may_have_peers: bool) -> typing.Iterator[layout.Server]:
    if d.router.tls:
        yield layout.server("router", d.tls, (node.host,))
    if may_have_peers and d.router.mesh_files:
        files = zip(model.MESH_FILES, d.router.mesh_files)
        ca, certificate, key = (layout.Credential(f"router.{name}", path) for name, path in files)
        yield layout.Server("router", (node.host,), (), True, ca, certificate, key)


def _router(d: model.Deployment, node: model.Node, host: layout.Host, where: record.Record, mode: str) -> Entity:
    return (
        "router",
        {
            "mode": mode,
            "id": node.name,
            "workerThreads": d.router.worker_threads,
            "saslConfigDir": host.inside(where.sasl_dir),
            "saslConfigName": where.program,
        },
    )


def tls_paths(tls: model.Tls, directory: str) -> tuple[str, str, str]:
    """Return the paths of CA, certificate and key: the operator's own, or below ``directory`` for PEM text."""
    return (
        tls.ca_file or (f"{directory}/tls/ca.pem" if tls.ca else ""),
        tls.certificate_file or f"{directory}/tls/certificate.pem",
        tls.key_file or f"{directory}/tls/key.pem",
    )


def given_files(tls: model.Tls, what: str) -> tuple[layout.Required, ...]:
    """Return the files that the metadata names and somebody else puts on the node."""
    named = (("ca_file", tls.ca_file), ("certificate_file", tls.certificate_file), ("key_file", tls.key_file))
    return tuple(layout.Required(path, f"the {what}", f"tls.{key}") for key, path in named if path)


def _requires(d: model.Deployment, may_have_peers: bool) -> tuple[layout.Required, ...]:
    files = zip(d.router.mesh_files, model.MESH_FILES) if may_have_peers else ()
    own = (layout.Required(path, "the router", f"router.{key}") for path, key in files)
    return (*(given_files(d.tls, "router") if d.router.tls else ()), *own)


def inside_or_given(path: str, tls: model.Tls, host: layout.Host) -> str:
    """Return a path as the configuration names it: the operator's own paths are never moved below a root."""
    return path if path in ("", tls.ca_file, tls.certificate_file, tls.key_file) else host.inside(path)


def _ssl_profile(d: model.Deployment, files: typing.Sequence[str], external: bool) -> Entity:
    kind, attributes = _profile(PROFILE, files, " ".join(f"TLSv{v.value}" for v in d.tls.versions))
    ciphers = {"ciphers": ":".join(d.tls.ciphers)} if d.tls.ciphers else {}
    user = {"uidFormat": "n"} if external else {}  # who shows a certificate is who its common name says
    return (kind, {**attributes, **ciphers, **user})


def _mesh_profile(files: typing.Sequence[str]) -> Entity:
    """Return what routers show to each other: of an authority of the mesh's own, whatever clients have.

    With the clients' authority any client's certificate would do, and with passwords any client's password, since one
    Cyrus configuration serves all listeners and vhost policy does not look at connections between interiors.
    """
    return _profile(MESH_PROFILE, files, "TLSv1.3")


def _profile(name: str, paths: typing.Sequence[str], protocols: str) -> Entity:
    ca, certificate, key = paths
    files = {"caCertFile": ca, "certFile": certificate, "privateKeyFile": key}
    return ("sslProfile", {"name": name, **files, "protocols": protocols})


# PLAIN is how the agent logs in; who chooses another one tells services never to speak it.
_MECHANISMS = {m: " ".join(dict.fromkeys((m.value, model.Mechanism.PLAIN.value))) for m in model.Mechanism}


def _client_listener(d: model.Deployment, node: model.Node, backend: model.Backend) -> Entity:
    listener: dict[str, str | int | bool] = {
        "name": _listener_name(backend),
        "host": node.address,
        "port": backend.port,
        "role": "normal",
        "authenticatePeer": True,
        "saslMechanisms": _MECHANISMS[backend.mechanism],
        "linkCapacity": d.router.link_capacity,
        "idleTimeoutSeconds": d.router.idle_timeout,
        # Without this the client's own Open frame would choose its vhost.
        "policyVhost": _listener_name(backend),
    }
    if d.router.tls:
        listener.update(sslProfile=PROFILE, requireSsl=True)
    return ("listener", listener)


def _listener_name(backend: model.Backend) -> str:
    return f"client-{backend.half}"


def _http_listener(d: model.Deployment, node: model.Node) -> Entity:
    """Health and metrics only: with websockets off no AMQP can be spoken there.

    Both engines ignore ``host`` for HTTP and listen on every address (src/http-libwebsockets.c never sets an interface;
    run with 1.19.0 and 3.4.2), so two routers on one machine need two ports.
    """
    return (
        "listener",
        {
            "name": "http",
            "host": node.address,
            "port": d.router.http_port,
            "http": True,
            "healthz": True,
            "metrics": True,
            "websockets": False,
        },
    )


def _mesh_listener(d: model.Deployment, node: model.Node, role: str, port: int) -> Entity:
    """Return where other routers connect: interior ones (``inter-router``) or edges (``edge``)."""
    listener: dict[str, str | int | bool] = {
        "name": role,
        "host": node.address,
        "port": port,
        "role": role,
        "authenticatePeer": True,
        **({"policyVhost": policy.ROUTERS} if role == policy.ROUTERS else {}),
        "saslMechanisms": "EXTERNAL",
        "sslProfile": MESH_PROFILE,
        "requireSsl": True,
        "linkCapacity": d.router.link_capacity,
        "idleTimeoutSeconds": d.router.idle_timeout,
    }
    return ("listener", listener)


def _connector(d: model.Deployment, link: topology.Link, peer: model.Node) -> Entity:
    connector: dict[str, str | int | bool] = {
        "name": f"{'uplink' if link.uplink else 'inter-router'}/{peer.name}",
        "host": peer.host,
        "port": d.router.edge_port if link.uplink else d.router.inter_router_port,
        "role": "edge" if link.uplink else "inter-router",
        "saslMechanisms": "EXTERNAL",
        "sslProfile": MESH_PROFILE,
        "verifyHostname": True,
        "linkCapacity": d.router.link_capacity,
        "idleTimeoutSeconds": d.router.idle_timeout,
    }
    if not link.uplink:
        connector["cost"] = d.router.link_cost * link.cost
    return ("connector", connector)


def check_entities(path: str, entities: typing.Sequence[Entity]) -> typing.Iterator[errors.Problem]:
    """Yield what is wrong with a rendered configuration that the router itself would not refuse, or only at run time.

    :param path: the file that will hold it, for the sentences.
    """
    count = sum(kind == "router" for kind, _ in entities)
    if count != 1:
        yield kinds.problem(path, "router-entity", count=count)
    profiles = {a.get("name") for kind, a in entities if kind == "sslProfile"}
    for kind, attributes in entities:
        unknown = [kind] if kind not in _KNOWN else sorted(attributes.keys() - _KNOWN[kind])
        for name in unknown:
            yield kinds.problem(path, "router-unknown", name=name if kind not in _KNOWN else f"{kind}.{name}")
        if "sslProfile" in attributes and attributes["sslProfile"] not in profiles:
            yield kinds.problem(path, "router-no-profile", name=attributes["sslProfile"])
    names = [f"{kind} {a.get('name') or a.get('prefix') or a.get('hostname') or a.get('id')}" for kind, a in entities]
    names += [f"socket {a.get('host')} {a.get('port')}" for kind, a in entities if kind == "listener"]
    for name, times in collections.Counter(names).items():
        if times > 1:
            yield kinds.problem(path, "router-duplicate", name=name)
