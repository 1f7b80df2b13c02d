"""The keys of each entry of ``nodes``, and of ``sites``."""

from __future__ import annotations

from om_agent import fields, model
from om_agent.parse import mapping, values

NODE: mapping.Keys = (
    mapping.Key(
        "name",
        values.Text(fields.HOST),
        "The name of the node; names are compared whole. Two names that differ only in case, or in a dot at the "
        "end, are the same name to DNS, and an error.",
        default="",
        required="it is how the nodes are told apart",
    ),
    mapping.Key(
        "address",
        values.Text(fields.HOST),
        "Where the node's own router and broker listen. When it is a name, a broker listens on every address.",
        default_text="the name",
    ),
    mapping.Key(
        "host",
        values.Text(fields.HOST),
        "The host that clients have for the node in a transport URL.",
        default_text="the address; with TLS the name",
    ),
    mapping.Key(
        "role",
        values.Text(fields.WORD),
        "What the node is. Nodes of role ``controller`` run the brokers unless ``nodes`` of a half says otherwise.",
        default="controller",
    ),
    mapping.Key(
        "interior",
        values.Truth(),
        "True: the node's router is an interior router. False: it is an edge router.",
        default_text="by its role",
    ),
    mapping.Key(
        "site",
        values.Text(fields.WORD),
        "Where the node stands. Either all nodes with a router have a site, or none has.",
        default="",
        default_text="none: all nodes without a site are one site",
    ),
)

_LINK: mapping.Keys = (
    mapping.Key(
        "between",
        values.Names(fields.WORD, "site"),
        "Two sites whose routers are connected.",
        default=(),
        default_text="none: needed when several sites have routers",
    ),
    mapping.Key(
        "cost",
        values.Number(1, model.MAX_COST),
        "The cost of the link, as a multiple of ``router.link_cost``. Messages take the cheapest way.",
        default=1,
    ),
)

SITES: mapping.Keys = (
    mapping.Key("links", mapping.Mappings(_LINK), "Which sites have connections between their routers.", default=()),
)
