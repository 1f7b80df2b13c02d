"""The checks of parsed metadata that need no node, so that they run on any machine."""

from __future__ import annotations

import datetime
import typing

from om_agent import certs, errors, model
from om_agent.plan import layout, topology


def validate(deployment: model.Deployment, asked: str | None) -> tuple[errors.Problem, ...]:
    """Return the warnings about a deployment.

    :param asked: name of a node that the metadata must list, if one was given.
    :raises om_agent.errors.InvalidInput: when the metadata cannot be applied.
    """
    names = [name for name in (asked, deployment.node) if name]
    node = model.local_node(deployment, names) if names else None
    problems = list(_check_certificate(deployment, node))
    if problems:
        raise errors.InvalidInput(problems)
    mesh = topology.mesh(deployment)
    return (*deployment.findings, *topology.mesh_findings(deployment, mesh))


def _check_certificate(deployment: model.Deployment, node: model.Node | None) -> typing.Iterator[errors.Problem]:
    """Yield each problem of a certificate whose text is in the metadata.

    The name in the certificate can be checked only if the node is known and serves clients over TLS.
    """
    tls = deployment.tls
    if not tls.certificate:
        return
    hosts: tuple[str, ...] = ()
    if node:
        secured = [half.scheme for half in deployment.halves if half.tls]
        serves = any(deployment.carried_by(node, scheme) for scheme in secured)
        hosts = (node.host,) if serves else ()
    server = layout.server("server", tls, hosts)
    given = certs.Given(server, tls.ca, tls.certificate, tls.key)
    now = datetime.datetime.now(datetime.timezone.utc)
    yield from certs.check_server(given, now)
