"""The plan of one node: everything that the agent decides about it. Pure."""

from __future__ import annotations

import dataclasses
import typing

from om_agent import errors, model
from om_agent.plan import broker, layout, queues, router, services, topology


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that this project decides about one node.

    :param router: None when the node runs no router.
    :param broker: None when the node runs no broker.
    :param config_files: the services' files, with the keys that the agent sets in them.
    :param client_requires: files that the operator has to provide for the services.
    :param clients: the certificates that services log in with.
    :param queues: which kind of queue the brokers have.
    :param queue_options: names of the options about queues that the agent writes for services.
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

    :raises om_agent.errors.InvalidInput: when the node does not have what the metadata asks of it.
    """
    broker_plan = broker.plan_broker(deployment, node, host)
    problems = tuple(queues.problems(deployment, host)) if broker_plan else ()
    if problems:
        raise errors.InvalidInput(problems)
    mesh = topology.mesh(deployment)
    logins = _certificate_logins(deployment)
    config_files = services.plan_services(deployment, node, catalogue, host)
    declares_queues = any(backend.scheme.record.declares_queues for backend in deployment.halves)
    uses_queues = bool(config_files) and declares_queues
    found = [
        *deployment.findings,
        *topology.mesh_findings(deployment, mesh),
        *services.service_findings(deployment, catalogue, config_files),
        *queues.queue_findings(deployment, host, broker_plan is not None, uses_queues),
    ]
    return Plan(
        node=node,
        tls=deployment.tls,
        router=router.plan_router(deployment, node, host, mesh),
        broker=broker_plan,
        config_files=config_files,
        findings=tuple(found),
        client_requires=tuple(_client_requires(deployment, logins)),
        clients=tuple(_client(deployment, backend) for backend in logins),
        queues=queues.choose(deployment, host),
        queue_options=tuple(queues.options(deployment, host)) if uses_queues else (),
    )


def _certificate_logins(deployment: model.Deployment) -> tuple[model.Backend, ...]:
    """Return the halves in which services log in with a certificate; for two halves with the same one, the first."""
    with_certificate = [backend for backend in deployment.halves if backend.client_files]
    return tuple({backend.client_files: backend for backend in reversed(with_certificate)}.values())


def _client_requires(
    deployment: model.Deployment, logins: typing.Iterable[model.Backend]
) -> typing.Iterator[layout.Required]:
    """Yield the files that clients on the node need, and that the operator has to provide."""
    ca_file = deployment.tls.ca_file
    if ca_file and any(backend.tls for backend in deployment.halves):
        yield layout.Required(ca_file, "the clients", "tls.ca_file")
    for backend in logins:
        for key, path in zip(model.CLIENT_FILES, backend.client_files):
            yield layout.Required(path, "the clients", f"{backend.half}.{key}")


def _client(deployment: model.Deployment, backend: model.Backend) -> layout.Server:
    keys = [f"{backend.half}.{key}" for key in model.CLIENT_FILES]
    certificate, key = map(layout.Credential, keys, backend.client_files)
    ca = layout.Credential("tls.ca", deployment.tls.ca_file, model.Secret(deployment.tls.ca))
    return layout.Server("clients", (), (), False, ca, certificate, key, backend.username)
