"""The keys ``rpc`` and ``notify``: what carries each half, and who logs in there."""

from __future__ import annotations

import dataclasses

from om_agent import errors, fields, model


def wants_tls(section: fields.Section) -> bool:
    return fields.truth(section.raw("tls")) is True


def check_tls_said(
    rpc_section: fields.Section, notify_section: fields.Section, rpc: model.Backend, notify: model.Backend
) -> None:
    """Passwords reach a router without TLS only if somebody has said so."""
    said = rpc_section.has("tls")
    for section, backend in ((rpc_section, rpc), (notify_section, notify)):
        said = said or section.has("tls")
        if backend.scheme is model.Scheme.AMQP and not said:
            section.fail("tls", "tls-not-said")


def parse_backend(section: fields.Section, other: model.Backend | None, nodes: tuple[model.Node, ...]) -> model.Backend:
    """Return one half; what ``notify`` leaves out it takes from ``other``, the RPC half, as oslo.messaging does."""
    half = "notify" if other else "rpc"
    scheme = model.Scheme(
        section.word("scheme", (other.scheme if other else model.Scheme.RABBIT).value, [s.value for s in model.Scheme])
    )
    default_port = scheme.record.port
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


def parse_oslo(rpc: fields.Section, notify: fields.Section) -> model.Oslo:
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
