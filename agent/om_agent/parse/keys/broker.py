"""The keys of ``broker``."""

from __future__ import annotations

from om_agent import fields, model
from om_agent.parse import mapping, values

BROKER: mapping.Keys = (
    mapping.Key(
        "cluster",
        values.Truth(),
        "Whether the brokers form a cluster. False is possible with one broker only.",
        default=True,
    ),
    mapping.Key(
        "erlang_cookie",
        values.Text(fields.COOKIE),
        "The secret that the brokers of a cluster share.",
        default=model.NO_SECRET,
        default_text="derived from ``rpc.password``. In a cluster there is a warning, since services know that "
        "password",
        secret=True,
    ),
    mapping.Key(
        "dist_port",
        values.Number(1, 65535),
        "The port that brokers connect to each other on.",
        default=model.RABBIT_DIST_PORT,
    ),
    mapping.Key(
        "metrics_port",
        values.Number(1, 65535),
        "The port of RabbitMQ's metrics.",
        default=model.RABBIT_METRICS_PORT,
    ),
    mapping.Key(
        "queues",
        values.Word(model.Queues),
        "``mirrored``: classic queues, in a cluster with copies on a majority of the brokers, as TripleO's "
        "``RabbitHAQueues: 0`` makes them. ``quorum``: quorum queues. ``classic``: classic queues without copies. "
        "All nodes must have the same value.",
        default_text="``quorum`` where RabbitMQ is 4.x, ``mirrored`` where it is 3.x; see below",
    ),
    mapping.Key(
        "queue_manager",
        values.Truth(),
        "Whether, with ``quorum``, services name their queues after host and program (``use_queue_manager``); see "
        "below.",
        default=False,
    ),
    mapping.Key(
        "mirrored_queues",
        values.Truth(),
        "The old name of ``queues``: true is ``queues: mirrored``, false is ``queues: classic``.",
        default_text="none; when it is given there is a warning",
    ),
    mapping.Key(
        "tls",
        values.Truth(),
        "Whether brokers speak TLS with clients; it must agree with the halves.",
        default_text="that of the halves that use brokers",
    ),
    mapping.Key(
        "distribution_tls",
        values.Truth(),
        "Whether the brokers of a cluster, and rabbitmqctl, speak TLS to each other, both sides with a "
        "certificate. All running members must have the same value.",
        default_text="true for a cluster with ``broker.tls``",
    ),
)
