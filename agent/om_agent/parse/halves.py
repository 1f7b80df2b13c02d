"""The model of ``rpc`` and ``notify``: what carries each half, and who logs in there."""

from __future__ import annotations

import dataclasses
import typing

from om_agent import errors, fields, model
from om_agent.parse import mapping


def check_tls_given(
    rpc_given: mapping.Mapping, notify_given: mapping.Mapping, rpc: model.Backend, notify: model.Backend
) -> None:
    """Note a half over routers for which nobody said whether clients use TLS: passwords may need it."""
    given = False
    for half, backend in ((rpc_given, rpc), (notify_given, notify)):
        given = given or half.has("tls")
        if backend.scheme is model.Scheme.AMQP and not given:
            half.fail("tls", "tls-not-said")


def make_backend(given: mapping.Mapping, rpc: model.Backend | None, nodes: tuple[model.Node, ...]) -> model.Backend:
    """Return one half.

    :param rpc: the RPC half when ``given`` is ``notify``, which takes from it what it leaves out, as oslo.messaging
        does; else None.
    """
    scheme = _own_or_of(rpc, given, "scheme")
    alike = rpc if rpc and rpc.scheme is scheme else None
    mechanism = given["sasl_mechanism"] or (alike.mechanism if alike else model.Mechanism.PLAIN)
    external = mechanism is model.Mechanism.EXTERNAL
    if given["nodes"] is not None and given["hosts"] is not None:
        given.fail("hosts", "hosts-and-nodes")
    backend = model.Backend(
        half=given.path,
        scheme=scheme,
        port=given["port"] or (alike.port if alike else scheme.record.port),
        username=_own_or_of(rpc, given, "username"),
        password=_password(given, rpc, external),
        virtual_host=given["virtual_host"] or (rpc.virtual_host if rpc else ""),
        tls=_own_or_of(rpc, given, "tls"),
        hosts=given["hosts"] or (),
        nodes=(),
        mechanism=mechanism,
        client_files=_client_files(given, alike, external),
        also_accept=tuple(model.Account(user["username"], user["password"]) for user in given["also_accept"]),
    )
    if given["hosts"] is not None:
        return backend
    one_user = not external and not any(given.has(name) for name in ("username", "password", "also_accept"))
    if rpc and one_user:
        backend = dataclasses.replace(backend, also_accept=rpc.also_accept)
    if given["nodes"] is None and alike:
        return dataclasses.replace(backend, nodes=alike.nodes, hosts=alike.hosts)
    return _place(backend, given, nodes)


def _own_or_of(rpc: model.Backend | None, given: mapping.Mapping, name: str) -> typing.Any:
    """Return the value of a key; that of the RPC half when ``notify`` leaves it out."""
    return getattr(rpc, name) if rpc and given[name] is None else given[name]


def _password(given: mapping.Mapping, rpc: model.Backend | None, external: bool) -> model.Secret:
    if external:
        for name in ("password", "also_accept"):
            if given.has(name):
                given.fail(name, "external-password")
        return model.NO_SECRET
    if not given.has("password"):
        if rpc is None or rpc.mechanism is model.Mechanism.EXTERNAL:
            given.fail("password", "missing", hint=f"it is the password of the {given.path} user")
        elif rpc:
            return rpc.password
    found: model.Secret = given["password"]
    return found


def _client_files(given: mapping.Mapping, alike: model.Backend | None, external: bool) -> tuple[str, ...]:
    """Return the certificate and the key that services log in with."""
    if not external:
        for name in model.CLIENT_FILES:
            if given.has(name):
                given.fail(name, "client-files-unused")
        return ()
    if alike and not any(given.has(name) for name in model.CLIENT_FILES):
        return alike.client_files
    for name in model.CLIENT_FILES:
        if not given.has(name):
            given.fail(name, "external-files")
    return tuple(given[name] for name in model.CLIENT_FILES)


def _place(backend: model.Backend, given: mapping.Mapping, nodes: tuple[model.Node, ...]) -> model.Backend:
    """Return ``backend`` with the nodes that carry it.

    These are the nodes that the half names. When it names none, every controller carries a broker, and every node with
    an interior router carries a mesh.
    """
    names = given["nodes"]
    by_name = {fields.host_key(n.name): n for n in nodes}
    for i, name in enumerate(names or ()):
        if fields.host_key(name) not in by_name:
            given.fail(f"nodes[{i}]", "unknown-node", name=errors.quoted(name))
    routed = backend.scheme is model.Scheme.AMQP
    if names is not None:
        by_key = map(fields.host_key, names)
        carriers = [by_name[key] for key in by_key if key in by_name]
    elif routed:
        carriers = [n for n in nodes if n.router is model.RouterMode.INTERIOR]
    else:
        carriers = [n for n in nodes if n.role == "controller"]
    if nodes and names is None and not carriers:
        given.fail("", "no-interior" if routed else "no-carrier", half=backend.half)
    return dataclasses.replace(backend, nodes=tuple(n.name for n in carriers), hosts=tuple(n.host for n in carriers))


def make_oslo(rpc_given: mapping.Mapping, notify_given: mapping.Mapping) -> model.Oslo:
    """Return what the services' oslo.messaging is told besides the URLs."""
    return model.Oslo(
        notification_driver=notify_given["driver"],
        delivery=rpc_given["delivery"],
        rpc_response_timeout=rpc_given["response_timeout"] or None,
        amqp_idle_timeout=rpc_given["idle_timeout"],
        rabbit_heartbeat=rpc_given["heartbeat"],
    )
