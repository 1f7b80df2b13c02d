"""The keys of ``router``."""

from __future__ import annotations

from om_agent import fields, model
from om_agent.parse import mapping, values

ROUTER: mapping.Keys = (
    mapping.Key(
        "engine",
        values.Word(model.Engine),
        "Which router program runs. ``embedded`` is a single router for development.",
        default=model.Engine.QDROUTERD,
    ),
    mapping.Key(
        "roles",
        values.WordByRole(values.Word(model.RouterMode)),
        "What the routers of each role are. It adds to the default. A node with ``none`` has no router, and its "
        "services connect to all interior routers.",
        default={},
        default_text="``{controller: interior}``; a role that is not named: ``edge``",
    ),
    mapping.Key(
        "clients",
        values.Word(model.Clients),
        "``local``: services connect to the router on their own node. ``mesh``: they connect to all interior "
        "routers, and there are no edge routers.",
        default=model.Clients.LOCAL,
        default_text="``local``; ``mesh`` for tripleo's hiera keys",
    ),
    mapping.Key(
        "inter_router_port",
        values.Number(1, 65535),
        "The port that interior routers connect to each other on.",
        default=model.INTER_ROUTER_PORT,
    ),
    mapping.Key(
        "edge_port",
        values.Number(1, 65535),
        "The port of interior routers that edge routers connect to.",
        default=model.EDGE_PORT,
    ),
    mapping.Key(
        "http_port",
        values.Number(0, 65535),
        "The port of ``/healthz`` and ``/metrics``; 0 for none. The engines serve HTTP on every address, whatever "
        "their configuration says.",
        default=model.ROUTER_HTTP_PORT,
    ),
    mapping.Key(
        "max_connections",
        values.Number(16, 65535, "connections"),
        "How many clients and edge routers one router takes.",
        default=65535,  # what both engines take, and stock
        default_text="65535, the engines' own",
    ),
    mapping.Key(
        "worker_threads",
        values.Number(1, 64),
        "How many threads a router runs.",
        default=1,
        default_text="1 (the engines: 4)",
    ),
    mapping.Key(
        "link_cost",
        values.Number(1, model.MAX_COST),
        "The cost of a link between interior routers. A message takes the link only when at least so many more "
        "messages wait for a server here than for one behind the link.",
        default=30,
        default_text="30 (the engines: 1)",
    ),
    # Routers drop pre-settled messages when more than this wait for one link (doc/tuning.rst).
    mapping.Key(
        "link_capacity",
        values.Number(1, 100000, "deliveries"),
        "How many deliveries may be under way on one link.",
        default=10000,
        default_text="10000 (the engines: 250)",
    ),
    mapping.Key(
        "idle_timeout",
        values.Number(2, 3600, "seconds"),
        "A router closes a connection that has given no sign of life for so long.",
        default=16,
        default_text="16, the engines' own",
    ),
    mapping.Key(
        "tls",
        values.Truth(),
        "Whether routers speak TLS with clients; it must agree with the halves.",
        default_text="that of the halves that use routers",
    ),
    mapping.Key(
        "max_links",
        values.Number(2, model.MAX_INTERIORS - 1, "routers"),
        "How many interior routers of its own site an interior router connects to, in a site that has more than 12 "
        "of them. An odd number counts as one less, since the links form rings. From 14 on there is a warning "
        "(`topology <topology.rst>`_).",
        default=6,
    ),
    mapping.Key(
        "require_redundancy",
        values.Truth(),
        "Whether it is an error when the loss of one router or link would partition the mesh.",
        default=False,
        default_text="false: there is a warning",
    ),
    mapping.Key(
        "mesh_password",
        values.Text(fields.MESH_PASSWORD),
        "The secret of the mesh. The certificates that routers show to each other are made from it.",
        default=model.NO_SECRET,
        default_text="none: it must be given where routers run here, unless the three files below and "
        "``admin_password`` are",
        secret=True,
    ),
    mapping.Key(
        "mesh_ca_file",
        values.Text(fields.PATH),
        "With the next two, the routers show these files to each other instead. The certificate must be for TLS "
        "1.3 as server and as client, with the node's ``host`` as a DNS name, even if that is an address. Anyone "
        "who has a certificate of this CA can join the mesh as a router.",
        default="",
        default_text="none: made from ``mesh_password``",
    ),
    mapping.Key(
        "mesh_certificate_file",
        values.Text(fields.PATH),
        "The certificate that a router shows to other routers.",
        default="",
    ),
    mapping.Key(
        "mesh_key_file",
        values.Text(fields.PATH),
        "The key of that certificate.",
        default="",
    ),
    mapping.Key(
        "admin_password",
        values.Text(fields.MESH_PASSWORD),
        "The password of the user ``router-admin``, with which the agent manages running routers.",
        default=model.NO_SECRET,
        default_text="derived from ``mesh_password``",
        secret=True,
    ),
)
