"""Deployment and node in, the node's `Plan` out; pure."""

from __future__ import annotations

import dataclasses

from om_agent import errors, model
from om_agent.plan import broker, layout, queues, router, services, topology


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that this project decides about one node.

    :param router: None when the node runs no router.
    :param broker: None when the node runs no broker.
    :param queues: of which kind the brokers' are.
    :param queue_options: names of the options about queues that services are given.
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
    queues: queues.Choice
    queue_options: tuple[str, ...] = ()


def build(d: model.Deployment, node: model.Node, catalogue: dict[str, services.Service], host: layout.Host) -> Plan:
    """Return the plan for ``node``.

    :raises om_agent.errors.InvalidInput: when the node lacks what is asked of it.
    """
    problems = tuple(queues.problems(d, host)) if d.carried_by(node, model.Scheme.RABBIT) else ()
    if problems:
        raise errors.InvalidInput(problems)
    mesh = topology.mesh(d)
    uses_tls = any(b.tls for b in d.halves)
    ca = [layout.Required(d.tls.ca_file, "the clients", "tls.ca_file")] if uses_tls and d.tls.ca_file else []
    logins = {b.client_files: b for b in reversed(d.halves) if b.client_files}.values()
    shown = [(f"{b.half}.{key}", path) for b in logins for key, path in zip(model.CLIENT_FILES, b.client_files)]
    config_files = services.plan_services(d, node, catalogue, host)
    broker_plan = broker.plan_broker(d, node, host)
    uses = bool(config_files) and any(b.scheme is model.Scheme.RABBIT for b in d.halves)
    found = [*d.findings, *topology.mesh_findings(d, mesh), *services.service_findings(d, catalogue, config_files)]
    found += queues.queue_findings(d, host, broker_plan is not None, uses)
    return Plan(
        node=node,
        tls=d.tls,
        router=router.plan_router(d, node, host, mesh),
        broker=broker_plan,
        config_files=config_files,
        findings=tuple(found),
        client_requires=(*ca, *(layout.Required(path, "the clients", key) for key, path in shown)),
        clients=tuple(_client(d, b) for b in logins),
        queues=queues.choose(d, host),
        queue_options=tuple(queues.options(d, host)) if uses else (),
    )


def _client(d: model.Deployment, backend: model.Backend) -> layout.Server:
    where = (f"{backend.half}.{key}" for key in model.CLIENT_FILES)
    certificate, key = (layout.Credential(name, path) for name, path in zip(where, backend.client_files))
    ca = layout.Credential("tls.ca", d.tls.ca_file, model.Secret(d.tls.ca))
    return layout.Server("clients", (), (), False, ca, certificate, key, backend.username)
