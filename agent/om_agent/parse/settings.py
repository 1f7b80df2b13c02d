"""The model of ``router``, ``broker`` and ``tls``, and which of their keys do not fit together."""

from __future__ import annotations

from om_agent import model
from om_agent.parse import mapping


def make_router(given: mapping.Mapping, rpc: model.Backend, notify: model.Backend) -> model.Router:
    """Return the settings of routers."""
    amqp = [b for b in (rpc, notify) if b.scheme is model.Scheme.AMQP]
    mesh_files = _mesh_files(given)
    if any(not b.external for b in amqp) and not given.has("mesh_password"):
        if not mesh_files:
            given.fail("mesh_password", "mesh-secret")
        elif not given.has("admin_password"):
            given.fail("admin_password", "admin-secret")
    values = given.values("roles", *model.MESH_FILES)
    if values["tls"] is None:
        values["tls"] = any(b.tls for b in amqp)
    if not values["admin_password"].reveal():
        values["admin_password"] = model.Secret(model.derive(values["mesh_password"], "router admin"))
    return model.Router(**values, mesh_files=mesh_files)


def _mesh_files(given: mapping.Mapping) -> tuple[str, ...]:
    """Return the operator's own files of the mesh; either all of them are given or none."""
    names = [name for name in model.MESH_FILES if given.has(name)]
    for name in model.MESH_FILES if names else ():
        if name not in names:
            given.fail(name, "mesh-files")
    return tuple(given[name] for name in names)


def make_broker(given: mapping.Mapping, rpc: model.Backend, notify: model.Backend) -> model.Broker:
    """Return the settings of brokers."""
    rabbit = [b for b in (rpc, notify) if b.scheme is model.Scheme.RABBIT]
    own = any(not b.external for b in rabbit)
    if own and not given.has("erlang_cookie") and rpc.mechanism is model.Mechanism.EXTERNAL:
        given.fail("erlang_cookie", "missing", hint="there is no rpc.password that it could be made from")
    values = given.values("mirrored_queues")
    if not values["erlang_cookie"].reveal():
        values["erlang_cookie"] = model.Secret(model.derive(rpc.password, "erlang cookie"))
    if values["tls"] is None:
        values["tls"] = any(b.tls for b in rabbit)
    if values["distribution_tls"] is None:
        clustered = values["cluster"] and any(len(b.nodes) > 1 for b in rabbit)
        values["distribution_tls"] = values["tls"] and clustered
    values["queues"] = _queues(given)
    return model.Broker(**values)


def _queues(given: mapping.Mapping) -> model.Queues | None:
    """Return ``queues``, or what ``mirrored_queues``, its old name, means."""
    if given.has("queues"):
        if given.has("mirrored_queues"):
            given.fail("mirrored_queues", "queues-twice")
        found: model.Queues | None = given["queues"]
        return found
    if given["mirrored_queues"] is None:
        return None
    return model.Queues.MIRRORED if given["mirrored_queues"] else model.Queues.CLASSIC


def make_tls(given: mapping.Mapping) -> model.Tls:
    """Return the certificates."""
    tls = model.Tls(**given.values())
    if tls.ciphers and model.TlsVersion.TLS_1_2 not in tls.versions:
        given.fail("ciphers", "tls-ciphers")
    for file_key, text_key in (("ca_file", "ca"), ("certificate_file", "certificate"), ("key_file", "key")):
        if given.has(file_key) and given.has(text_key):
            given.fail(text_key, "tls-both", file_key=given.at(file_key), text_key=given.at(text_key))
    for a, b in (("certificate_file", "key_file"), ("certificate", "key")):
        if given.has(a) != given.has(b):
            given.fail(a if given.has(a) else b, "tls-half")
    return tls
