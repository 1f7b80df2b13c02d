"""The keys ``router``, ``broker`` and ``tls``."""

from __future__ import annotations

from om_agent import fields, model


def parse_router(section: fields.Section, rpc: model.Backend, notify: model.Backend) -> model.Router:
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


def parse_broker(section: fields.Section, rpc: model.Backend, notify: model.Backend) -> model.Broker:
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


def parse_tls(section: fields.Section) -> model.Tls:
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
