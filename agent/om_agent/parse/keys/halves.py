"""The keys of ``rpc`` and ``notify``."""

from __future__ import annotations

from om_agent import fields, model
from om_agent.parse import mapping, values

_DRIVERS = ("messagingv2", "messaging", "noop", "log", "routing", "test")

_ACCOUNT: mapping.Keys = (
    mapping.Key(
        "username",
        values.Text(fields.USERNAME),
        "The name of the other user; what ``rpc.username`` must be, it must be too.",
        default="",
        required="a user has a name and a password",
    ),
    mapping.Key(
        "password",
        values.Text(fields.PASSWORD),
        "The password of the other user.",
        default=model.NO_SECRET,
        required="a user has a name and a password",
        secret=True,
    ),
)

# What both halves have; the defaults are those of ``rpc``.
_BOTH: mapping.Keys = (
    mapping.Key(
        "scheme",
        values.Word(model.Scheme),
        "What carries the half: RabbitMQ brokers, or AMQP 1.0 routers.",
        default=model.Scheme.RABBIT,
    ),
    mapping.Key(
        "port",
        values.Number(1, 65535),
        "The port that clients connect to.",
        default_text="5672 for ``rabbit``, 31459 for ``amqp``",
    ),
    mapping.Key(
        "username",
        values.Text(fields.USERNAME),
        "The user that services log in as. For RabbitMQ the name may not hold ``/``, since oslo.messaging could not "
        "log in. For a router of ours it may not hold ``@``, and it may be neither ``router-admin``, which is "
        "reserved, nor ``*``, which means everybody to a router.",
        default="openstack",
    ),
    mapping.Key(
        "password",
        values.Text(fields.PASSWORD),
        "The password of that user. For RabbitMQ it may not hold ``/``. For a router of ours it may not end with a "
        "line break, which saslpasswd2 cuts off. With ``EXTERNAL`` there is no password.",
        default=model.NO_SECRET,
        default_text="none: it must be given, except with ``EXTERNAL``",
        secret=True,
    ),
    mapping.Key(
        "sasl_mechanism",
        values.Word(model.Mechanism),
        "How services log in. ``SCRAM-SHA-256`` is for routers only (see `security <security.rst>`_). ``EXTERNAL`` "
        "is by certificate.",
        default=model.Mechanism.PLAIN,
    ),
    mapping.Key(
        "client_certificate_file",
        values.Text(fields.PATH),
        "The services' certificate, with ``EXTERNAL`` only. Its common name must be ``rpc.username``.",
        default="",
        default_text="none: it must be given with ``EXTERNAL``",
    ),
    mapping.Key(
        "client_key_file",
        values.Text(fields.PATH),
        "The key of that certificate, with ``EXTERNAL`` only.",
        default="",
        default_text="none: it must be given with ``EXTERNAL``",
    ),
    mapping.Key(
        "also_accept",
        mapping.Mappings(_ACCOUNT, "user"),
        "Other users that may log in while a `password is changed <operations.rst>`_. No service uses them. An "
        "external backend cannot have any.",
        default=(),
    ),
    mapping.Key(
        "virtual_host",
        values.Text(fields.VIRTUAL_HOST),
        "The virtual host of the transport URL. For RabbitMQ it may not hold ``%``, ``?``, ``#`` or ``;``.",
        default="",
        default_text="none: ``/`` of RabbitMQ",
    ),
    mapping.Key(
        "tls",
        values.Truth(),
        "Whether clients use TLS. Without it passwords cross the network in the clear.",
        default=False,
        default_text="false for ``rabbit``; for ``amqp`` none: it must be given",
    ),
    mapping.Key(
        "nodes",
        values.Names(fields.HOST, "node"),
        "The nodes that run the brokers, or the interior routers.",
        default_text="brokers: the nodes of role ``controller``; routers: as ``nodes[].interior`` and "
        "``router.roles`` say, see below",
    ),
    mapping.Key(
        "hosts",
        values.Names(fields.HOST, "host"),
        "The hosts of an external backend, in the order of the transport URL.",
    ),
)

RPC: mapping.Keys = (
    *_BOTH,
    mapping.Key(
        "delivery",
        values.Word(model.Delivery),
        "Which RPC messages are sent again until they arrive, over AMQP 1.0 only. ``acknowledged_calls``: calls "
        "and answers. ``acknowledged``: casts and fanouts too; a message that nobody receives then fails after "
        "30 s. ``pre_settled``: calls alone. A message that is not acknowledged may be lost (`semantics "
        "<semantics.rst>`_).",
        default=model.Delivery.CALLS,
    ),
    mapping.Key(
        "response_timeout",
        values.Number(0, 86400, "seconds"),
        "How long a call waits for its answer. 0 leaves ``rpc_response_timeout`` as it is, even if an earlier "
        "deployment wrote it.",
        default=0,
    ),
    # Stock AMQP 1.0 never notices a dead router, and RabbitMQ only after 60 s. With 5 s clients left a frozen
    # router after 6.9 s and lost 2 calls instead of every one (measured, doc/design.rst).
    mapping.Key(
        "idle_timeout",
        values.Number(1, 3600, "seconds"),
        "A client leaves a router that has given no sign of life for so long.",
        default=5,
        default_text="5 (oslo.messaging: never)",
    ),
    mapping.Key(
        "heartbeat",
        values.Number(2, 3600, "seconds"),
        "A client leaves a broker that has given no sign of life for so long.",
        default=30,
        default_text="30 (oslo.messaging: 60)",
    ),
)

_SAME_SCHEME = "that of ``rpc`` for the same scheme"
_NOTIFY_DEFAULTS = {
    "port": f"{_SAME_SCHEME}; otherwise as for ``rpc``",
    "sasl_mechanism": f"{_SAME_SCHEME}; otherwise ``PLAIN``",
    "client_certificate_file": _SAME_SCHEME,
    "client_key_file": _SAME_SCHEME,
    "also_accept": "those of ``rpc`` when the user is the same too",
    "nodes": f"{_SAME_SCHEME.replace('that', 'those')}; otherwise as for ``rpc``",
    "hosts": _SAME_SCHEME.replace("that", "those"),
}
# Texts without a default of their own; the other keys have none either, since they come from ``rpc``.
_NOTIFY_VALUES = {
    "password": model.NO_SECRET,
    "client_certificate_file": "",
    "client_key_file": "",
    "also_accept": (),
}


def _for_notify(key: mapping.Key) -> mapping.Key:
    """Return a key of ``rpc`` as ``notify`` has it."""
    return key._replace(
        text=f"As ``rpc.{key.name}``.",
        default=_NOTIFY_VALUES.get(key.name),
        default_text=_NOTIFY_DEFAULTS.get(key.name, "that of ``rpc``"),
    )


NOTIFY: mapping.Keys = (
    *map(_for_notify, _BOTH),
    mapping.Key(
        "driver",
        values.Word(_DRIVERS),
        "The driver of oslo.messaging that services send notifications with.",
        default="messagingv2",
    ),
)
