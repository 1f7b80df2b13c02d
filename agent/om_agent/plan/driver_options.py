"""The options that the agent writes for each driver of oslo.messaging, with their values. Pure.

A driver reads one section of a service's file; the record of its kind of backend names that section. `VALUES` has one
function for each kind of backend.
"""

from __future__ import annotations

import typing

from om_agent import model
from om_agent.plan import layout, queues

Values = dict[str, typing.Optional[str]]  # by option; None where the option must be absent

# Every option of these sections that this project may ever write. In the section of a driver that a service uses, the
# agent removes those that the present deployment does not want. In the section of a driver that the agent made the
# service use before (`om_agent.plan.layout.Host.drivers`), it removes all of them. The section of a driver that the
# agent never made the service use belongs to the operator: ceilometer may publish over AMQP 1.0 to a router of its own.
_TLS_OPTIONS = ("ssl", "ssl_ca_file", "ssl_cert_file", "ssl_key_file")
_AMQP_OPTIONS = (
    *_TLS_OPTIONS, "sasl_mechanisms", "sasl_default_realm", "idle_timeout", "pre_settled", "default_reply_retry",
    "link_retry_delay", "connection_retry_interval_max",
)  # fmt: skip
_RABBIT_OPTIONS = (*_TLS_OPTIONS, "rabbit_login_method", "heartbeat_timeout_threshold")


def ca_path(tls: model.Tls, host: layout.Host) -> str:
    """Return the path of the CA file that clients verify with, '' for the system's own authorities."""
    if tls.ca_file:
        return tls.ca_file
    return host.inside(layout.CA_FILE) if tls.ca else ""


def login(backend: model.Backend) -> dict[str, str]:
    """Return the options with which a driver logs in to ``backend``."""
    certificate = dict(zip(("ssl_cert_file", "ssl_key_file"), backend.client_files))
    record = backend.scheme.record
    if not certificate and not record.says_mechanism:
        return {}
    return {record.mechanism: backend.mechanism.value, **certificate}


def queue_options(deployment: model.Deployment, backend: model.Backend, host: layout.Host) -> dict[str, str]:
    """Return the options that say which type of queue services declare at ``backend``."""
    return queues.options(deployment, host) if backend.scheme.record.declares_queues else {}


def _amqp_values(deployment: model.Deployment, used: typing.Sequence[model.Backend], host: layout.Host) -> Values:
    values: Values = dict.fromkeys(_AMQP_OPTIONS)
    if used:
        values.update(login(used[0]))
        values["idle_timeout"] = str(deployment.oslo.amqp_idle_timeout)
        # When a router knows no consumer yet, it hands a message back. By default the driver waits 10 s before it sends
        # the message again, and the messages behind it wait as well.
        values["link_retry_delay"] = "1"
        # By default the driver waits up to 30 s between two attempts to connect. The local router is back in a second.
        values["connection_retry_interval_max"] = "2"
        values.update(_delivery(deployment))
    values.update(_tls(deployment, used, host))
    return values


def _rabbit_values(deployment: model.Deployment, used: typing.Sequence[model.Backend], host: layout.Host) -> Values:
    values: Values = dict.fromkeys(_RABBIT_OPTIONS)
    values.update(dict.fromkeys(host.queue_options))  # all other options about queues belong to the operator
    if used:
        values.update(login(used[0]))
        values.update(queue_options(deployment, used[0], host))
        values["heartbeat_timeout_threshold"] = str(deployment.oslo.rabbit_heartbeat)
    values.update(_tls(deployment, used, host))
    return values


def _tls(deployment: model.Deployment, used: typing.Sequence[model.Backend], host: layout.Host) -> Values:
    if not any(backend.tls for backend in used):
        return {}
    return {"ssl": "true", "ssl_ca_file": ca_path(deployment.tls, host) or None}


def _delivery(deployment: model.Deployment) -> dict[str, str]:
    """Return the options that say for which messages a service waits until they have arrived.

    A router hands back a message that nobody receives. The driver sends an acknowledged message again for 30 s, and
    then raises an error; a pre-settled message is lost. RabbitMQ drops a cast or a fanout that nobody receives, and
    services rely on that. The driver cannot distinguish a fanout from a cast.
    """
    if deployment.oslo.delivery is model.Delivery.CALLS_ONLY:
        return {}  # the driver's default: rpc-cast and rpc-reply
    # By default (0) the driver gives up an answer that a router handed back. With -1 it tries for
    # default_reply_timeout, which is 30 s.
    options = {"default_reply_retry": "-1", "pre_settled": "rpc-cast"}
    if deployment.oslo.delivery is model.Delivery.ALL:
        # The driver has no word for "none", and warns of words that it does not know. "notify" means the same where
        # this driver sends no notifications.
        sends_notifications = deployment.notify.scheme is model.Scheme.AMQP
        options["pre_settled"] = "none" if sends_notifications else "notify"
    return options


VALUES: typing.Mapping[
    model.Scheme, typing.Callable[[model.Deployment, typing.Sequence[model.Backend], layout.Host], Values]
] = {model.Scheme.AMQP: _amqp_values, model.Scheme.RABBIT: _rabbit_values}
