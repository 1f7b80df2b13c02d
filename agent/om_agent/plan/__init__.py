"""Deployment and node in, the node's `Plan` out; pure."""

from __future__ import annotations

import dataclasses

from om_agent import errors, model
from om_agent.plan import broker, layout, router, services, topology


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that this project decides about one node.

    :param router: None when the node runs no router.
    :param broker: None when the node runs no broker.
    :param clients: the certificates that services log in with.
    :param config_files: keys of files that others own.
    """

    node: model.Node
    tls: model.Tls
    router: router.RouterPlan | None
    broker: broker.BrokerPlan | None
    config_files: tuple[services.ConfigFile, ...]
    findings: tuple[errors.Problem, ...]
    client_requires: tuple[layout.Required, ...]
    clients: tuple[layout.Server, ...]


def build(d: model.Deployment, node: model.Node, catalogue: dict[str, services.Service], host: layout.Host) -> Plan:
    """Return the plan for ``node``.

    :raises om_agent.errors.InvalidInput: when the node lacks what is asked of it.
    """
    mesh = topology.mesh(d)
    uses_tls = any(b.tls for b in d.halves)
    ca = [layout.Required(d.tls.ca_file, "the clients", "tls.ca_file")] if uses_tls and d.tls.ca_file else []
    logins = {b.client_files: b for b in reversed(d.halves) if b.client_files}.values()
    shown = [(f"{b.half}.{key}", path) for b in logins for key, path in zip(model.CLIENT_FILES, b.client_files)]
    config_files = services.build(d, node, catalogue, host)
    return Plan(
        node=node,
        tls=d.tls,
        router=router.build(d, node, host, mesh),
        broker=broker.build(d, node, host),
        config_files=config_files,
        findings=(*d.findings, *topology.findings(d, mesh), *services.findings(d, catalogue, config_files)),
        client_requires=(*ca, *(layout.Required(path, "the clients", key) for key, path in shown)),
        clients=tuple(_client(d, b) for b in logins),
    )


def _client(d: model.Deployment, backend: model.Backend) -> layout.Server:
    where = (f"{backend.half}.{key}" for key in model.CLIENT_FILES)
    certificate, key = (layout.Credential(name, path) for name, path in zip(where, backend.client_files))
    ca = layout.Credential("tls.ca", d.tls.ca_file, model.Secret(d.tls.ca))
    return layout.Server("clients", (), (), False, ca, certificate, key, backend.username)
