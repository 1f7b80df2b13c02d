"""Raw metadata in, the typed `om_agent.model.Deployment` or every problem at once out.

Pure. The keys, their defaults and their meaning are described for people in ``doc/metadata.rst``; a test compares that
page with what is asked for here.
"""

from __future__ import annotations

import dataclasses
import itertools
import typing

from om_agent import errors, fields, kinds, model, rules


def deployment(raw: object, services: typing.Collection[str] = ()) -> model.Deployment:
    """Return the deployment that ``raw``, the value of the ``oslo_messaging`` key, describes.

    :param services: names of the service catalogue; empty when nothing is known of it.

    :raises om_agent.errors.InvalidInput: with every problem, each with its path below ``oslo_messaging``.
    """
    problems: list[errors.Problem] = []
    top = fields.Section(raw, "", problems)
    if raw is None:
        top.fail("", "missing", hint="rpc.password and nodes are needed")
    tls = _parse_tls(top.section("tls"))
    rpc_section, notify_section, router_section = (top.section(key) for key in ("rpc", "notify", "router"))
    roles = _parse_roles(router_section)
    nodes = _parse_nodes(top, roles, _wants_tls(rpc_section) or _wants_tls(notify_section))
    rpc = _parse_backend(rpc_section, None, nodes)
    notify = _parse_backend(notify_section, rpc, nodes)
    _check_tls_said(rpc_section, notify_section, rpc, notify)
    broker_section = top.section("broker")
    given = rules.Given(
        roles=roles,
        nodes=nodes,
        named=tuple(s.path for s in (rpc_section, notify_section) if s.has("nodes")),
        cookie=broker_section.has("erlang_cookie"),
        mirrored=broker_section.has("mirrored_queues"),
    )
    router = _parse_router(router_section, rpc, notify)
    broker = _parse_broker(broker_section, rpc, notify)
    oslo = _parse_oslo(rpc_section, notify_section)
    d = model.Deployment(
        rpc=rpc,
        notify=notify,
        router=router,
        broker=broker,
        tls=tls,
        oslo=oslo,
        nodes=_place_routers(router, rpc, notify, nodes),
        site_links=_parse_sites(top, nodes),
        node=_local_name(top, nodes),
        services=top.names("services", fields.check_word, "service"),
        findings=(),
    )
    for section in (rpc_section, notify_section, top):
        section.done()
    if d.routed:
        _check_interiors(top, d)
    problems += _without_followers(rules.check(d, given, services), tuple(problems))
    if problems:
        raise errors.InvalidInput(problems)
    return dataclasses.replace(d, findings=tuple(rules.findings(d, given)))


def _without_followers(
    found: typing.Iterable[errors.Problem], known: typing.Sequence[errors.Problem]
) -> typing.Iterator[errors.Problem]:
    """Yield each problem once that does not follow from one that is known: at its own key, or at one that it reads."""
    paths = {problem.path for problem in known}
    wrong_keys = {key for path in paths for key in fields.keys_of(path)}
    for problem in dict.fromkeys(found):  # two halves may need the same thing
        if problem.path not in paths and not wrong_keys.intersection(kinds.of(problem).reads or ()):
            yield problem


def _local_name(top: fields.Section, nodes: tuple[model.Node, ...]) -> str:
    """Return the local node's name as ``nodes`` spells it; `om_agent.rules` reports one that is not there."""
    said = top.text("node", check=fields.check_host)
    if isinstance(said, fields.Guess):
        return said
    return next((n.name for n in nodes if said and fields.host_key(n.name) == fields.host_key(said)), said)


def _wants_tls(section: fields.Section) -> bool:
    return fields.truth(section.raw("tls")) is True


def _check_tls_said(
    rpc_section: fields.Section, notify_section: fields.Section, rpc: model.Backend, notify: model.Backend
) -> None:
    """Passwords reach a router without TLS only if somebody has said so."""
    said = rpc_section.has("tls")
    for section, backend in ((rpc_section, rpc), (notify_section, notify)):
        said = said or section.has("tls")
        if backend.scheme is model.Scheme.AMQP and not said:
            section.fail("tls", "tls-not-said")


def _parse_roles(section: fields.Section) -> dict[str, model.RouterMode]:
    """Return what the metadata says routers are for, by role."""
    roles: dict[str, model.RouterMode] = {}
    raw = section.raw("roles")
    if raw is not None and not isinstance(raw, dict):
        section.fail("roles", "wrong-type", found=fields.type_name(raw), wanted="a mapping")
    for role in raw if isinstance(raw, dict) else ():
        if isinstance(role, str) and not fields.check_word(role):
            modes = fields.Section(raw, section.at("roles"), section.problems)
            default = _mode_of(role, roles)
            roles[role] = model.RouterMode(modes.word(role, default.value, [m.value for m in model.RouterMode]))
        else:
            section.fail("roles", "not-a-role", role=errors.key_name(role))
    return roles


def _mode_of(role: str, roles: typing.Mapping[str, model.RouterMode]) -> model.RouterMode:
    return roles.get(role, model.RouterMode.INTERIOR if role == "controller" else model.RouterMode.EDGE)


def _place_routers(
    router: model.Router, rpc: model.Backend, notify: model.Backend, nodes: tuple[model.Node, ...]
) -> tuple[model.Node, ...]:
    """Return the nodes with what their routers are for in the end."""
    carrying = next((set(b.nodes) for b in (rpc, notify) if b.scheme is model.Scheme.AMQP and b.nodes), set())
    edges = bool(carrying) and router.clients is model.Clients.LOCAL and router.engine is not model.Engine.EMBEDDED

    def mode(node: model.Node) -> model.RouterMode:
        if node.name in carrying:
            return model.RouterMode.INTERIOR
        return model.RouterMode.EDGE if edges and node.router is not model.RouterMode.NONE else model.RouterMode.NONE

    placed = ((n, mode(n)) for n in nodes)
    return tuple(n if n.router is wanted else dataclasses.replace(n, router=wanted) for n, wanted in placed)


def _check_interiors(top: fields.Section, d: model.Deployment) -> None:
    """``nodes`` of a half and ``interior`` of a node are two ways to say the same thing: they must not contradict."""
    raw, named = top.raw("nodes"), model.interiors(d)
    for i, node in enumerate(raw if isinstance(raw, list) else ()):
        said = fields.truth(node.get("interior")) if isinstance(node, dict) and node.get("interior") != "" else None
        if said is not None and said != (node.get("name") in named):
            half = d.routed[0].half
            top.fail(f"nodes[{i}].interior", "interior-differs", half=half, name=errors.quoted(node.get("name")))


def _parse_nodes(top: fields.Section, roles: dict[str, model.RouterMode], tls: bool) -> tuple[model.Node, ...]:
    raw = top.raw("nodes")
    if not isinstance(raw, list):
        code = "missing" if raw is None else "wrong-type"
        top.fail(
            "nodes", code, hint="list every node with name and address", found=fields.type_name(raw), wanted="a list"
        )
        return ()
    if not raw:
        top.fail("nodes", "empty-list", what="node")
    nodes = [_parse_node(fields.Section(item, f"nodes[{i}]", top.problems), roles, tls) for i, item in enumerate(raw)]
    told = _check_distinct(top, "name", nodes, ())
    alike = _check_distinct(top, "address", nodes, {i for i in told if nodes[i].address == nodes[i].name})
    derived = {i for i in told if nodes[i].host == nodes[i].name} | {
        i for i in alike if nodes[i].host == nodes[i].address
    }
    _check_distinct(top, "host", nodes, derived)
    _check_crossed(top, nodes)
    return tuple(nodes)


def _check_distinct(
    top: fields.Section, key: str, nodes: typing.Sequence[model.Node], quiet: typing.Collection[int]
) -> list[int]:
    """Note each node, ``quiet`` ones aside, that shares a value of ``key`` with one before it; return their places.

    What is one name to DNS may not be two nodes, and an IPv6 address has several spellings.
    """
    seen: dict[str, int] = {}
    told = []
    for i, node in enumerate(nodes):
        value = getattr(node, key)
        first = seen.setdefault(fields.host_key(value), i)
        if value and first != i and i not in quiet:
            told.append(i)
            code = "twice" if fields.is_address(value) or value == getattr(nodes[first], key) else "same-name"
            top.fail(f"nodes[{i}].{key}", code, name=errors.quoted(value), first=f"nodes[{first}].{key}")
    return told


def _check_crossed(top: fields.Section, nodes: typing.Sequence[model.Node]) -> None:
    """Note each pair of nodes one of which has what leads to the other as its host or address: a connector, or a
    broker that joins the cluster, would reach the wrong one of the two."""
    keys = ("name", "address", "host")
    spelled = [{key: fields.host_key(getattr(node, key)) for key in keys} for node in nodes]
    owners: dict[tuple[str, str], int] = {}
    for i, values in enumerate(spelled):
        for key, value in values.items():
            owners.setdefault((key, value), i)
    told: set[frozenset[int]] = set()
    for i, values in enumerate(spelled):
        given = [key for key in ("host", "address") if key == "address" or values["host"] != values["address"]]
        for key, other in itertools.product(given, keys):
            j = owners.get((other, values[key]), i)
            pair = frozenset((i, j))
            alike = any(values[k] == spelled[j][k] for k in keys)  # noted by `_check_distinct`, or the node itself
            if values[key] and not alike and pair not in told:
                told.add(pair)
                shown = {"name": errors.quoted(getattr(nodes[i], key)), "first": f"nodes[{j}].{other}"}
                top.fail(f"nodes[{i}].{key}", "crossed-node", **shown)


def _parse_node(section: fields.Section, roles: dict[str, model.RouterMode], tls: bool) -> model.Node:
    name = section.text("name", check=fields.check_host)
    if not section.has("name"):
        section.fail("name", "missing", hint="it is how the nodes are told apart")
    address = section.text("address", name, check=fields.check_host)
    host = section.text("host", name if tls else address, check=fields.check_host)
    role = section.text("role", "controller", check=fields.check_word)
    mode = _mode_of(role, roles)
    if section.has("interior"):
        mode = model.RouterMode.INTERIOR if section.boolean("interior", False) else model.RouterMode.EDGE
    node = model.Node(
        name=name,
        address=address,
        host=host,
        role=role,
        site=section.text("site", "", check=fields.check_word),
        router=mode,
    )
    section.done()
    return node


def _parse_backend(
    section: fields.Section, other: model.Backend | None, nodes: tuple[model.Node, ...]
) -> model.Backend:
    """Return one half; what ``notify`` leaves out it takes from ``other``, the RPC half, as oslo.messaging does."""
    half = "notify" if other else "rpc"
    scheme = model.Scheme(
        section.word("scheme", (other.scheme if other else model.Scheme.RABBIT).value, [s.value for s in model.Scheme])
    )
    default_port = model.RABBIT_PORT if scheme is model.Scheme.RABBIT else model.AMQP_PORT
    if other and other.scheme is scheme:
        default_port = other.port
    alike = other if other and other.scheme is scheme else None
    default = (alike.mechanism if alike else model.Mechanism.PLAIN).value
    mechanism = model.Mechanism(section.word("sasl_mechanism", default, [m.value for m in model.Mechanism]))
    external = mechanism is model.Mechanism.EXTERNAL
    password = section.password("password")
    if external:
        for key in ("password", "also_accept"):
            if section.has(key):
                section.fail(key, "external-password")
        password = ""
    elif not section.has("password"):
        password = other.password.reveal() if other else ""
        if other is None or other.mechanism is model.Mechanism.EXTERNAL:
            section.fail("password", "missing", hint=f"it is the password of the {half} user")
    names = section.names("nodes", fields.check_host, "node")
    hosts = section.names("hosts", fields.check_host, "host")
    if names is not None and hosts is not None:
        section.fail("hosts", "hosts-and-nodes")
    username = section.text("username", other.username if other else "openstack", check=fields.check_username)
    backend = model.Backend(
        half=half,
        scheme=scheme,
        port=section.port("port", default_port),
        username=username,
        password=model.Secret(password),
        virtual_host=section.text("virtual_host", other.virtual_host if other else "", check=fields.check_virtual_host),
        tls=section.boolean("tls", other.tls if other else False),
        hosts=hosts or (),
        nodes=(),
        mechanism=mechanism,
        client_files=_parse_client_files(section, external, alike),
        also_accept=_parse_accounts(section, "also_accept"),
    )
    if hosts is not None:
        return backend
    if other and not external and not any(section.has(key) for key in ("username", "password", "also_accept")):
        backend = dataclasses.replace(backend, also_accept=other.also_accept)  # one user for both halves
    if names is None and other and other.scheme is scheme:
        return dataclasses.replace(backend, nodes=other.nodes, hosts=other.hosts)
    return _place(section, backend, names, nodes)


def _parse_client_files(section: fields.Section, external: bool, other: model.Backend | None) -> tuple[str, ...]:
    given = tuple(section.text(key, check=fields.check_path) for key in model.CLIENT_FILES)
    if not external:
        for key in model.CLIENT_FILES:
            if section.has(key):
                section.fail(key, "client-files-unused")
        return ()
    if other and not any(section.has(key) for key in model.CLIENT_FILES):
        return other.client_files
    for key in model.CLIENT_FILES:
        if not section.has(key):
            section.fail(key, "external-files")
    return given


def _parse_accounts(parent: fields.Section, key: str) -> tuple[model.Account, ...]:
    raw = parent.raw(key)
    if raw is not None and not isinstance(raw, list):
        parent.fail(key, "wrong-type", found=fields.type_name(raw), wanted="a list")
    elif raw is not None and not raw:
        parent.fail(key, "empty-list", what="user")
    found = []
    for i, item in enumerate(raw if isinstance(raw, list) else ()):
        section = fields.Section(item, parent.at(f"{key}[{i}]"), parent.problems)
        for needed in ("username", "password") if isinstance(item, dict) else ():
            if not section.has(needed):
                section.fail(needed, "missing", hint="a user has a name and a password")
        username = section.text("username", check=fields.check_username)
        found.append(model.Account(username, model.Secret(section.password("password"))))
        section.done()
    return tuple(found)


def _place(
    section: fields.Section, backend: model.Backend, names: tuple[str, ...] | None, nodes: tuple[model.Node, ...]
) -> model.Backend:
    """Return ``backend`` carried by the nodes called ``names``, or by those that are meant for it: every controller for
    a broker, every node with an interior router for a mesh."""
    by_name = {fields.host_key(n.name): n for n in nodes}
    for i, name in enumerate(names or ()):
        if fields.host_key(name) not in by_name:
            section.fail(f"nodes[{i}]", "unknown-node", name=errors.quoted(name))
    routed = backend.scheme is model.Scheme.AMQP
    if names is not None:
        keys = map(fields.host_key, names)
        carriers = [by_name[key] for key in keys if key in by_name]
    else:
        carriers = [n for n in nodes if (n.router is model.RouterMode.INTERIOR if routed else n.role == "controller")]
    if nodes and names is None and not carriers:
        section.fail("", "no-interior" if routed else "no-carrier", half=backend.half)
    return dataclasses.replace(backend, nodes=tuple(n.name for n in carriers), hosts=tuple(n.host for n in carriers))


def _parse_router(section: fields.Section, rpc: model.Backend, notify: model.Backend) -> model.Router:
    amqp = [b for b in (rpc, notify) if b.scheme is model.Scheme.AMQP]
    mesh_password = section.text("mesh_password", check=fields.check_mesh_password)
    admin_password = section.text("admin_password", check=fields.check_mesh_password)
    mesh_files = _parse_mesh_files(section)
    if any(not b.external for b in amqp) and not section.has("mesh_password"):
        if not mesh_files:
            section.fail("mesh_password", "mesh-secret")
        elif not section.has("admin_password"):
            section.fail("admin_password", "admin-secret")
    router = model.Router(
        engine=model.Engine(section.word("engine", model.Engine.QDROUTERD.value, [e.value for e in model.Engine])),
        clients=model.Clients(section.word("clients", model.Clients.LOCAL.value, [c.value for c in model.Clients])),
        inter_router_port=section.port("inter_router_port", model.INTER_ROUTER_PORT),
        max_connections=section.integer("max_connections", 65535, 16, 65535),  # what both engines take, and stock
        edge_port=section.port("edge_port", model.EDGE_PORT),
        max_links=section.integer("max_links", 6, 2, model.MAX_INTERIORS - 1),
        require_redundancy=section.boolean("require_redundancy", False),
        http_port=section.integer("http_port", model.ROUTER_HTTP_PORT, 0, 65535),
        worker_threads=section.integer("worker_threads", 1, 1, 64),
        link_cost=section.integer("link_cost", 30, 1, model.MAX_COST),
        # Routers drop pre-settled messages when more than this wait for one link (doc/tuning.rst).
        link_capacity=section.integer("link_capacity", 10000, 1, 100000),
        idle_timeout=section.integer("idle_timeout", 16, 2, 3600),
        tls=section.boolean("tls", any(b.tls for b in amqp)),
        mesh_password=model.Secret(mesh_password),
        mesh_files=mesh_files,
        admin_password=model.Secret(admin_password or model.derive(model.Secret(mesh_password), "router admin")),
    )
    section.done()
    return router


def _parse_mesh_files(section: fields.Section) -> tuple[str, ...]:
    given = [key for key in model.MESH_FILES if section.has(key)]
    for key in model.MESH_FILES if given else ():
        if key not in given:
            section.fail(key, "mesh-files")
    return tuple(section.text(key, check=fields.check_path) for key in given)


def _parse_broker(section: fields.Section, rpc: model.Backend, notify: model.Backend) -> model.Broker:
    rabbit = [b for b in (rpc, notify) if b.scheme is model.Scheme.RABBIT]
    if (
        not section.has("erlang_cookie")
        and rpc.mechanism is model.Mechanism.EXTERNAL
        and any(not b.external for b in rabbit)
    ):
        section.fail("erlang_cookie", "missing", hint="there is no rpc.password that it could be made from")
    cookie = section.text("erlang_cookie", check=fields.check_cookie) or model.derive(rpc.password, "erlang cookie")
    cluster, tls = section.boolean("cluster", True), section.boolean("tls", any(b.tls for b in rabbit))
    clustered = cluster and any(len(b.nodes) > 1 for b in rabbit)
    broker = model.Broker(
        cluster=cluster,
        erlang_cookie=model.Secret(cookie),
        dist_port=section.port("dist_port", model.RABBIT_DIST_PORT),
        metrics_port=section.port("metrics_port", model.RABBIT_METRICS_PORT),
        queues=_parse_queues(section),
        queue_manager=section.boolean("queue_manager", False),
        tls=tls,
        distribution_tls=section.boolean("distribution_tls", tls and clustered),
    )
    section.done()
    return broker


def _parse_queues(section: fields.Section) -> model.Queues | None:
    """Return ``queues``, or what its predecessor, ``mirrored_queues``, means by the same."""
    mirrored = section.boolean("mirrored_queues", True)
    if section.has("queues"):
        if section.has("mirrored_queues"):
            section.fail("mirrored_queues", "queues-twice")
        return model.Queues(section.word("queues", model.Queues.CLASSIC.value, [q.value for q in model.Queues]))
    if section.has("mirrored_queues"):
        return model.Queues.MIRRORED if mirrored else model.Queues.CLASSIC
    return None


def _parse_tls(section: fields.Section) -> model.Tls:
    tls = model.Tls(
        ca_file=section.text("ca_file", check=fields.check_path),
        certificate_file=section.text("certificate_file", check=fields.check_path),
        key_file=section.text("key_file", check=fields.check_path),
        ca=fields.certificates(section.text("ca", check=fields.check_certificate)),
        certificate=fields.certificates(section.text("certificate", check=fields.check_certificate)),
        key=model.Secret(section.text("key", check=fields.check_key)),
        min_version=model.TlsVersion(
            section.word("min_version", model.TlsVersion.TLS_1_2.value, [v.value for v in model.TlsVersion])
        ),
        ciphers=section.names("ciphers", fields.check_cipher, "cipher suite") or (),
    )
    if tls.ciphers and model.TlsVersion.TLS_1_2 not in tls.versions:
        section.fail("ciphers", "tls-ciphers")
    for file_key, text_key in (("ca_file", "ca"), ("certificate_file", "certificate"), ("key_file", "key")):
        if section.has(file_key) and section.has(text_key):
            section.fail(text_key, "tls-both", file_key=section.at(file_key), text_key=section.at(text_key))
    for a, b in (("certificate_file", "key_file"), ("certificate", "key")):
        if section.has(a) != section.has(b):
            section.fail(a if section.has(a) else b, "tls-half")
    section.done()
    return tls


def _parse_oslo(rpc: fields.Section, notify: fields.Section) -> model.Oslo:
    drivers = ("messagingv2", "messaging", "noop", "log", "routing", "test")
    timeout = rpc.integer("response_timeout", 0, 0, 86400)
    return model.Oslo(
        notification_driver=notify.word("driver", "messagingv2", drivers),
        delivery=model.Delivery(
            rpc.word("delivery", model.Delivery.CALLS.value, [delivery.value for delivery in model.Delivery])
        ),
        rpc_response_timeout=timeout or None,
        # Stock AMQP 1.0 never notices a dead router, and RabbitMQ only after 60 s; with 5 s a frozen router was left
        # after 6.9 s and lost 2 calls instead of every one (measured, doc/design.rst).
        amqp_idle_timeout=rpc.integer("idle_timeout", 5, 1, 3600),
        rabbit_heartbeat=rpc.integer("heartbeat", 30, 2, 3600),
    )


def _parse_sites(top: fields.Section, nodes: tuple[model.Node, ...]) -> tuple[model.SiteLink, ...]:
    section = top.section("sites")
    raw = section.raw("links")
    if raw is not None and not isinstance(raw, list):
        section.fail("links", "wrong-type", found=fields.type_name(raw), wanted="a list")
    known = {n.site for n in nodes if n.site}
    links: dict[frozenset[str], model.SiteLink] = {}
    for i, item in enumerate(raw if isinstance(raw, list) else ()):
        at = f"links[{i}]"
        link = fields.Section(item, section.at(at), section.problems)
        cost = link.integer("cost", 1, 1, model.MAX_COST)
        told = len(section.problems)
        names = link.names("between", fields.check_word, "site") or ()
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
            links[frozenset(names)] = model.SiteLink((min(names), max(names)), cost)
        link.done()
    section.done()
    return tuple(sorted(links.values(), key=lambda link: link.between))
