"""Plan the router's configuration: a list of (entity, attributes) that qdrouterd 1.19 and skrouterd 3.4 both accept.

The attribute names are those that both engines' schemas have (python/qpid_dispatch/management/qdrouter.json at 1.19.0,
skrouter.json at 3.4.2). A router has no check mode. It starts without a router entity, with an sslProfile that does not
exist, or with a certificate file that is missing. So before anything is written, `check_entities` checks the plan
and apply looks for the files of `RouterPlan.requires`.
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
PROFILE = "messaging"  # the sslProfile of listeners for clients
MESH_PROFILE = "mesh"  # the sslProfile of connections between routers

# oslo.messaging's addresses with its default prefixes (oslo_messaging/_drivers/amqp1_driver/opts.py).
_DISTRIBUTION = (("multicast", "multicast"), ("unicast", "closest"), ("anycast", "balanced"))

# The entities and attributes that this project writes; both engines accept all of them.
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
    """The router of one node.

    :param mode: ``standalone``, ``interior`` or ``edge``, as the engines call it.
    :param sasl_database: path of the file with users and passwords, as the configuration names it.
    :param mechanisms: SASL mechanisms that the router's listeners offer.
    :param certificates: path of the router's certificate, as the configuration names it, by `PROFILE` and
        `MESH_PROFILE`.
    :param entities: the configuration, in the order of the file.
    :param users: users who log in with a password, ``admin`` included.
    :param admin: the agent's own user.
    :param client_files: certificate and key that clients of the router present, the agent included; empty when clients
        need none.
    :param requires: files that must be there before the router starts.
    :param mesh_password: the secret that the router's certificate for other routers is derived from; None when the
        operator provides that certificate, or when there are no other routers.
    :param interiors: names of all interior routers; a router's name is its id too.
    :param links: (source, target) of every connection between interior routers.
    :param listener: address and port of a listener for clients.
    :param tls: whether clients use TLS.
    :param ca: path, on this machine, of the CA certificates that verify ``listener``; '' for the system's.
    :param servers: what has a certificate that the operator provides.
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
    # A router that may get peers is interior from the start: its mode cannot be changed while it runs.
    mode = node.router.value if may_have_peers else "standalone"
    by_port: dict[int, list[model.Backend]] = {}
    for backend in carried:
        by_port.setdefault(backend.port, []).append(backend)
    listeners = tuple(tuple(backends) for backends in by_port.values())
    profiles = _profile_files(d, host, where)
    entities = [_router(d, node, host, where, mode)]
    if PROFILE in profiles:
        entities.append(_ssl_profile(d, profiles[PROFILE], any(b.client_files for b in carried)))
    if MESH_PROFILE in profiles:
        entities.append(_mesh_profile(profiles[MESH_PROFILE]))
    entities += _connections(d, node, listeners, mesh)
    admin = SaslUser(model.ADMIN_USER, REALM, d.router.admin_password)
    accounts = {account.username: account.password for b in carried for account in b.accounts.values()}
    users = [SaslUser(name, REALM, accounts[name]) for name in sorted(accounts) if accounts[name].reveal()]
    return RouterPlan(
        engine=d.router.engine,
        node=node,
        mode=mode,
        sasl_database=host.inside(where.sasl_database),
        mechanisms=_offered_mechanisms(listeners, may_have_peers),
        certificates={profile: certificate for profile, (_, certificate, _) in profiles.items()},
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


def _connections(
    d: model.Deployment, node: model.Node, listeners: tuple[tuple[model.Backend, ...], ...], mesh: topology.Mesh
) -> typing.Iterator[Entity]:
    """Yield listeners, connectors, addresses and policies.

    :param listeners: for each listener for clients, the backends that share its port.
    """
    for backends in listeners:
        yield _client_listener(d, node, backends[0])
    if d.router.http_port:
        yield _http_listener(d, node)
    may_have_peers = model.may_have_peers(d)
    accepts_routers = may_have_peers and node.router is model.RouterMode.INTERIOR
    accepts_edges = accepts_routers and d.router.clients is model.Clients.LOCAL
    if accepts_routers:
        yield _mesh_listener(d, node, "inter-router", d.router.inter_router_port)
    if accepts_edges:
        yield _mesh_listener(d, node, "edge", d.router.edge_port)
    by_name = d.by_name()
    for link in mesh.opened_by(node.name) if may_have_peers else ():
        yield _connector(d, link, by_name[link.target])
    for half in ("rpc", "notify"):
        for kind, distribution in _DISTRIBUTION:
            yield ("address", {"prefix": f"{policy.PREFIX}/{half}/{kind}", "distribution": distribution})
    by_vhost = {_listener_name(backends[0]): backends for backends in listeners}
    yield from policy.entities(d, by_vhost, accepts_edges)


def _offered_mechanisms(listeners: tuple[tuple[model.Backend, ...], ...], may_have_peers: bool) -> frozenset[str]:
    """Return the SASL mechanisms that the router's listeners offer."""
    for_clients = {name for backends in listeners for name in _mechanisms(backends[0])}
    for_routers = {model.Mechanism.EXTERNAL.value} if may_have_peers else set()
    return frozenset(for_clients | for_routers)


def _profile_files(d: model.Deployment, host: layout.Host, where: record.Record) -> dict[str, tuple[str, ...]]:
    """Return the paths of CA, certificate and key, as the configuration names them, by sslProfile."""
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
    """Return the paths of CA, certificate and key: the operator's files, or files below ``directory`` for PEM text."""
    return (
        tls.ca_file or (f"{directory}/tls/ca.pem" if tls.ca else ""),
        tls.certificate_file or f"{directory}/tls/certificate.pem",
        tls.key_file or f"{directory}/tls/key.pem",
    )


def given_files(tls: model.Tls, what: str) -> tuple[layout.Required, ...]:
    """Return the TLS files that the metadata names and the operator puts on the node."""
    named = (("ca_file", tls.ca_file), ("certificate_file", tls.certificate_file), ("key_file", tls.key_file))
    return tuple(layout.Required(path, f"the {what}", f"tls.{key}") for key, path in named if path)


def _requires(d: model.Deployment, may_have_peers: bool) -> tuple[layout.Required, ...]:
    files = zip(d.router.mesh_files, model.MESH_FILES) if may_have_peers else ()
    own = (layout.Required(path, "the router", f"router.{key}") for path, key in files)
    return (*(given_files(d.tls, "router") if d.router.tls else ()), *own)


def inside_or_given(path: str, tls: model.Tls, host: layout.Host) -> str:
    """Return a path as the configuration names it: only paths of the agent's own files are moved below a root."""
    return path if path in ("", tls.ca_file, tls.certificate_file, tls.key_file) else host.inside(path)


def _ssl_profile(d: model.Deployment, files: typing.Sequence[str], external: bool) -> Entity:
    kind, attributes = _profile(PROFILE, files, " ".join(f"TLSv{v.value}" for v in d.tls.versions))
    ciphers = {"ciphers": ":".join(d.tls.ciphers)} if d.tls.ciphers else {}
    # The common name of a client's certificate is the user's name.
    user = {"uidFormat": "n"} if external else {}
    return (kind, {**attributes, **ciphers, **user})


def _mesh_profile(files: typing.Sequence[str]) -> Entity:
    """Return the sslProfile for connections between routers, whose CA belongs to the mesh alone.

    With the clients' CA any client's certificate could join the mesh, and with passwords any client's password: one
    Cyrus configuration serves all listeners, and the engines apply no vhost policy between interior routers.
    """
    return _profile(MESH_PROFILE, files, "TLSv1.3")


def _profile(name: str, paths: typing.Sequence[str], protocols: str) -> Entity:
    ca, certificate, key = paths
    files = {"caCertFile": ca, "certFile": certificate, "privateKeyFile": key}
    return ("sslProfile", {"name": name, **files, "protocols": protocols})


def _mechanisms(backend: model.Backend) -> tuple[str, ...]:
    """Return the SASL mechanisms of a listener for clients.

    The agent logs in with PLAIN. Where the metadata chooses another one, services' files allow that one only.
    """
    return tuple(dict.fromkeys((backend.mechanism.value, model.Mechanism.PLAIN.value)))


def _client_listener(d: model.Deployment, node: model.Node, backend: model.Backend) -> Entity:
    listener: dict[str, str | int | bool] = {
        "name": _listener_name(backend),
        "host": node.address,
        "port": backend.port,
        "role": "normal",
        "authenticatePeer": True,
        "saslMechanisms": " ".join(_mechanisms(backend)),
        "linkCapacity": d.router.link_capacity,
        "idleTimeoutSeconds": d.router.idle_timeout,
        # Without this the client chooses its vhost in its Open frame.
        "policyVhost": _listener_name(backend),
    }
    if d.router.tls:
        listener.update(sslProfile=PROFILE, requireSsl=True)
    return ("listener", listener)


def _listener_name(backend: model.Backend) -> str:
    return f"client-{backend.half}"


def _http_listener(d: model.Deployment, node: model.Node) -> Entity:
    """Return the listener for health checks and metrics; without websockets it carries no AMQP.

    Both engines ignore ``host`` for HTTP and listen on every address (src/http-libwebsockets.c never sets an interface;
    tested with 1.19.0 and 3.4.2). So two routers on one machine need two ports.
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
    """Return the listener for other routers: for interior routers (``inter-router``) or for edges (``edge``)."""
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
    """Yield the mistakes in a configuration that a router would not report, or would report only while it runs.

    :param path: the file that will hold the configuration, for the messages.
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
