"""Of which kind the brokers' queues are, and what services' drivers are told of it. Pure.

Queues are declared by the services, so every node has to come to one answer: that of the metadata, else that of the
broker on the node, else that of the broker which the node's distribution has.

Sources: https://www.rabbitmq.com/docs/ha (mirroring is gone since 4.0), /docs/quorum-queues, /docs/streams,
/docs/deprecated-features-list; the releases of oslo.messaging themselves.
"""

from __future__ import annotations

import typing

from om_agent import errors, kinds, model
from om_agent.plan import layout

_WITHOUT_MIRRORS = (4,)
_WITH_QUORUM = (3, 8)
_REFUSES_TRANSIENT = (4, 3)
MEMBERS = 3  # of a quorum queue where there are as many brokers, RabbitMQ's own default
_RECONCILES_SINCE = (3, 13)  # rabbit.schema, quorum_queue.continuous_membership_reconciliation
_TESTED = ((3,), (4,))  # major versions
_RELEASES_WITH_4 = {"debian": (13,), "ubuntu": (25, 4)}  # since; a Debian without a number is testing or unstable

_TRANSIENT_OPTION_SINCE = (14, 7)
# What the driver is told, and the oslo.messaging that knows it first. A stream needs a limit to what is sent ahead:
# this is as many as a service works at at a time (executor_thread_pool_size).
QUORUM_OPTIONS = (
    ("rabbit_quorum_queue", "true", (12, 13)),
    ("amqp_durable_queues", "true", ()),
    ("rabbit_transient_quorum_queue", "true", _TRANSIENT_OPTION_SINCE),
    ("rabbit_stream_fanout", "true", (14, 7)),
    ("rabbit_qos_prefetch_count", "64", (14, 7)),
)
# By itself: two services that run in the same program, uwsgi or Apache, are one to it, and get each other's answers
# (oslo.messaging bug 2110957).
MANAGER_OPTION = ("use_queue_manager", "true", (14, 7))


class Choice(typing.NamedTuple):
    """Of which kind queues are, and why, a clause.

    :param kind: None where brokers are somebody else's and the metadata does not say.
    """

    kind: model.Queues | None
    why: str


def choose(d: model.Deployment, host: layout.Host) -> Choice:
    """Return of which kind queues are, as far as can be seen from ``host``."""
    if d.broker.queues:
        return Choice(d.broker.queues, "the metadata says so")
    if not any(b.scheme is model.Scheme.RABBIT and not b.external for b in d.halves):
        return Choice(None, "nothing is known of the brokers")
    if host.broker_version:
        return Choice(_of(layout.numbers(host.broker_version)), f"RabbitMQ {host.broker_version} is installed here")
    major = 4 if _release_has_4(host.release) else 3
    where = host.release or "an unknown distribution"
    why = f"no RabbitMQ is installed here and {where} is taken to have RabbitMQ {major}; broker.queues overrules this"
    return Choice(_of((major,)), why)


def _of(version: tuple[int, ...]) -> model.Queues:
    return model.Queues.QUORUM if version >= _WITHOUT_MIRRORS else model.Queues.MIRRORED


def _release_has_4(release: str) -> bool:
    name, _, version = release.partition(" ")
    first = _RELEASES_WITH_4.get(name)
    return first is not None and (layout.numbers(version) >= first or not version)


def can_mirror(host: layout.Host) -> bool:
    """Return whether the broker of ``host`` takes a policy of mirroring; one of 4.x does not even start with it."""
    return layout.numbers(host.broker_version) < _WITHOUT_MIRRORS


def problems(d: model.Deployment, host: layout.Host) -> typing.Iterator[errors.Problem]:
    """Yield why the broker of ``host`` cannot have the queues that the metadata asks for."""
    version, key = layout.numbers(host.broker_version), "broker.queues"
    if d.broker.queues is model.Queues.MIRRORED and not can_mirror(host):
        yield kinds.problem(key, "queues-mirrored", version=host.broker_version)
    if d.broker.queues is model.Queues.QUORUM and version and version < _WITH_QUORUM:
        yield kinds.problem(key, "queues-too-old", version=host.broker_version)


def queue_findings(d: model.Deployment, host: layout.Host, runs: bool, uses: bool) -> typing.Iterator[errors.Problem]:
    """Yield what may go wrong.

    :param runs: whether the node runs a broker.
    :param uses: whether services of the node use RabbitMQ.
    """
    version = layout.numbers(host.broker_version)
    if runs and version and version[:1] not in _TESTED:
        yield kinds.problem("broker", "broker-untested", version=host.broker_version)
    if runs and d.broker.queues is model.Queues.MIRRORED and not version:
        yield kinds.problem("broker.queues", "queues-unknown")
    services = layout.numbers(host.oslo_messaging)
    if uses and choose(d, host).kind is model.Queues.QUORUM and services and services < QUORUM_OPTIONS[0][2]:
        yield kinds.problem("broker.queues", "quorum-unknown", version=host.oslo_messaging)


def options(d: model.Deployment, host: layout.Host) -> dict[str, str]:
    """Return what services of this node are told of queues in ``[oslo_messaging_rabbit]``.

    Where the services' oslo.messaging is not known, all options are written: older ones ignore what they do not know.
    """
    if choose(d, host).kind is not model.Queues.QUORUM:
        return {}
    version = layout.numbers(host.oslo_messaging)
    wanted = [*QUORUM_OPTIONS, *([MANAGER_OPTION] if d.broker.queue_manager else [])]
    return {name: value for name, value, since in wanted if not version or version >= since}


def permits_transient(d: model.Deployment, host: layout.Host) -> bool:
    """Return whether the broker must be told to take queues that are neither durable nor of one connection.

    RabbitMQ 4.3 refuses them by itself. Answers and fanouts go through such queues unless the driver is told otherwise.
    """
    if layout.numbers(host.broker_version) < _REFUSES_TRANSIENT:
        return False
    services = layout.numbers(host.oslo_messaging)
    return choose(d, host).kind is not model.Queues.QUORUM or bool(services and services < _TRANSIENT_OPTION_SINCE)


def members(d: model.Deployment, host: layout.Host, brokers: int) -> int:
    """Return how many members the broker is to give each quorum queue by itself; 0 when it cannot, or has none.

    A queue that is declared before all brokers have joined has fewer, and would keep so.
    """
    reconciles = layout.numbers(host.broker_version) >= _RECONCILES_SINCE
    return min(MEMBERS, brokers) if reconciles and choose(d, host).kind is model.Queues.QUORUM else 0
