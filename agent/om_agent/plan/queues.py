"""Choose the kind of the brokers' queues, and the options that services need for it. Pure.

Services declare the queues, so all nodes must choose the same kind. The metadata decides. Without a word in it, the
version of the broker on the node decides; without a broker, the version that the node's distribution has.

Sources: https://www.rabbitmq.com/docs/ha (4.0 removed mirroring), /docs/quorum-queues, /docs/streams,
/docs/deprecated-features-list; the releases of oslo.messaging themselves.
"""

from __future__ import annotations

import typing

from om_agent import errors, kinds, model
from om_agent.plan import layout

_WITHOUT_MIRRORS = (4,)
_WITH_QUORUM = (3, 8)
_REFUSES_TRANSIENT = (4, 3)
MEMBERS = 3  # of a quorum queue, where there are enough brokers: RabbitMQ's own default
_RECONCILES_SINCE = (3, 13)  # rabbit.schema, quorum_queue.continuous_membership_reconciliation
_TESTED = ((3,), (4,))  # major versions
# The first release of a distribution with RabbitMQ 4. A Debian without a number is testing or unstable.
_RELEASES_WITH_4 = {"debian": (13,), "ubuntu": (25, 4)}

_TRANSIENT_OPTION_SINCE = (14, 7)
# Options of the driver, their values, and the first oslo.messaging that has them. A stream needs a prefetch count: this
# one is the number of messages that a service handles at a time (executor_thread_pool_size).
QUORUM_OPTIONS = (
    ("rabbit_quorum_queue", "true", (12, 13)),
    ("amqp_durable_queues", "true", ()),
    ("rabbit_transient_quorum_queue", "true", _TRANSIENT_OPTION_SINCE),
    ("rabbit_stream_fanout", "true", (14, 7)),
    ("rabbit_qos_prefetch_count", "64", (14, 7)),
)
# Only on request: with it, two services in the same program (uwsgi or Apache) get each other's replies (oslo.messaging
# bug 2110957).
MANAGER_OPTION = ("use_queue_manager", "true", (14, 7))


class Choice(typing.NamedTuple):
    """The kind of the queues.

    :param kind: None when the metadata does not say and the brokers are external.
    :param why: the reason, a clause.
    """

    kind: model.Queues | None
    why: str


def choose(d: model.Deployment, host: layout.Host) -> Choice:
    """Return the kind of the queues, by the metadata and the facts of ``host``."""
    if d.broker.queues:
        return Choice(d.broker.queues, "the metadata says so")
    if not any(b.scheme is model.Scheme.RABBIT and not b.external for b in d.halves):
        return Choice(None, "nothing is known of the brokers")
    if host.broker_version:
        return Choice(
            _kind_for(layout.numbers(host.broker_version)), f"RabbitMQ {host.broker_version} is installed here"
        )
    major = 4 if _release_has_4(host.release) else 3
    where = host.release or "an unknown distribution"
    why = f"no RabbitMQ is installed here and {where} is taken to have RabbitMQ {major}; broker.queues overrules this"
    return Choice(_kind_for((major,)), why)


def _kind_for(version: tuple[int, ...]) -> model.Queues:
    return model.Queues.QUORUM if version >= _WITHOUT_MIRRORS else model.Queues.MIRRORED


def _release_has_4(release: str) -> bool:
    name, _, version = release.partition(" ")
    first = _RELEASES_WITH_4.get(name)
    return first is not None and (layout.numbers(version) >= first or not version)


def can_mirror(host: layout.Host) -> bool:
    """Return whether the broker of ``host`` accepts a mirroring policy; RabbitMQ 4 does not start with one."""
    return layout.numbers(host.broker_version) < _WITHOUT_MIRRORS


def problems(d: model.Deployment, host: layout.Host) -> typing.Iterator[errors.Problem]:
    """Yield the reasons why the broker of ``host`` cannot have the kind of queues that the metadata asks for."""
    version, key = layout.numbers(host.broker_version), "broker.queues"
    if d.broker.queues is model.Queues.MIRRORED and not can_mirror(host):
        yield kinds.problem(key, "queues-mirrored", version=host.broker_version)
    if d.broker.queues is model.Queues.QUORUM and version and version < _WITH_QUORUM:
        yield kinds.problem(key, "queues-too-old", version=host.broker_version)


def queue_findings(d: model.Deployment, host: layout.Host, runs: bool, uses: bool) -> typing.Iterator[errors.Problem]:
    """Yield warnings about queues.

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
    """Return the options about queues for ``[oslo_messaging_rabbit]`` in the files of this node's services.

    When the version of oslo.messaging is unknown, all options are there: an old version ignores unknown options.
    """
    if choose(d, host).kind is not model.Queues.QUORUM:
        return {}
    version = layout.numbers(host.oslo_messaging)
    wanted = [*QUORUM_OPTIONS, *([MANAGER_OPTION] if d.broker.queue_manager else [])]
    return {name: value for name, value, since in wanted if not version or version >= since}


def permits_transient(d: model.Deployment, host: layout.Host) -> bool:
    """Return whether the broker needs a setting to accept queues that are neither durable nor exclusive.

    RabbitMQ 4.3 refuses them by default. The driver uses such queues for replies and fanouts unless an option says
    otherwise.
    """
    if layout.numbers(host.broker_version) < _REFUSES_TRANSIENT:
        return False
    services = layout.numbers(host.oslo_messaging)
    return choose(d, host).kind is not model.Queues.QUORUM or bool(services and services < _TRANSIENT_OPTION_SINCE)


def members(d: model.Deployment, host: layout.Host, brokers: int) -> int:
    """Return the number of members to which the broker grows each quorum queue; 0 without that, or without such queues.

    A queue that is declared before all brokers have joined has fewer members, and would keep that number.
    """
    reconciles = layout.numbers(host.broker_version) >= _RECONCILES_SINCE
    return min(MEMBERS, brokers) if reconciles and choose(d, host).kind is model.Queues.QUORUM else 0
