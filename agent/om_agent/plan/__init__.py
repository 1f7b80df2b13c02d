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


def build(
    deployment: model.Deployment, node: model.Node, catalogue: dict[str, services.Service], host: layout.Host
) -> Plan:
    """Return the plan for ``node``.

    :raises om_agent.errors.InvalidInput: when the node lacks what is asked of it.
    """
    problems = tuple(queues.problems(deployment, host)) if deployment.carried_by(node, model.Scheme.RABBIT) else ()
    if problems:
        raise errors.InvalidInput(problems)
    mesh = topology.mesh(deployment)
    uses_tls = any(b.tls for b in deployment.halves)
    ca = (
        [layout.Required(deployment.tls.ca_file, "the clients", "tls.ca_file")]
        if uses_tls and deployment.tls.ca_file
        else []
    )
    logins = {b.client_files: b for b in reversed(deployment.halves) if b.client_files}.values()
    shown = [(f"{b.half}.{key}", path) for b in logins for key, path in zip(model.CLIENT_FILES, b.client_files)]
    config_files = services.plan_services(deployment, node, catalogue, host)
    broker_plan = broker.plan_broker(deployment, node, host)
    uses = bool(config_files) and any(b.scheme is model.Scheme.RABBIT for b in deployment.halves)
    found = [
        *deployment.findings,
        *topology.mesh_findings(deployment, mesh),
        *services.service_findings(deployment, catalogue, config_files),
    ]
    found += queues.queue_findings(deployment, host, broker_plan is not None, uses)
    return Plan(
        node=node,
        tls=deployment.tls,
        router=router.plan_router(deployment, node, host, mesh),
        broker=broker_plan,
        config_files=config_files,
        findings=tuple(found),
        client_requires=(*ca, *(layout.Required(path, "the clients", key) for key, path in shown)),
        clients=tuple(_client(deployment, b) for b in logins),
        queues=queues.choose(deployment, host),
        queue_options=tuple(queues.options(deployment, host)) if uses else (),
    )


def _client(deployment: model.Deployment, backend: model.Backend) -> layout.Server:
    where = (f"{backend.half}.{key}" for key in model.CLIENT_FILES)
    certificate, key = (layout.Credential(name, path) for name, path in zip(where, backend.client_files))
    ca = layout.Credential("tls.ca", deployment.tls.ca_file, model.Secret(deployment.tls.ca))
    return layout.Server("clients", (), (), False, ca, certificate, key, backend.username)
