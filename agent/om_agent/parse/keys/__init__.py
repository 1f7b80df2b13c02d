"""Every key of the metadata, declared once. Pure.

The parser reads the metadata by these declarations. The tables in ``doc/metadata.rst`` are generated from them
(tools/doc-tables), and the tests that try wrong values and look for secrets take their lists of keys from here.
A new key is one `om_agent.parse.mapping.Key` here and the field of the same name in `om_agent.model`.
"""

from __future__ import annotations

import typing

from om_agent import fields
from om_agent.parse import mapping, values
from om_agent.parse.keys import broker, halves, nodes, router, tls

# The order is that in which problems are reported.
TOP: mapping.Keys = (
    mapping.Key("tls", mapping.Nested(tls.TLS), "Certificates."),
    mapping.Key(
        "nodes",
        mapping.Mappings(nodes.NODE, "node"),
        "Every node, clients included.",
        default=(),
        required="list every node with name and address",
    ),
    mapping.Key("rpc", mapping.Nested(halves.RPC), "What carries RPC."),
    mapping.Key("notify", mapping.Nested(halves.NOTIFY), "What carries notifications."),
    mapping.Key("router", mapping.Nested(router.ROUTER), "Settings of every router."),
    mapping.Key("broker", mapping.Nested(broker.BROKER), "Settings of every broker."),
    mapping.Key(
        "node",
        values.Text(fields.HOST),
        "The local node's name in ``nodes``, in upper or lower case.",
        default="",
        default_text="the host name, whole or up to its first dot",
    ),
    mapping.Key(
        "services",
        values.Names(fields.WORD, "service"),
        "The services to configure; names of the `service catalogue`_.",
        default_text="those whose directory the node has",
    ),
    mapping.Key("sites", mapping.Nested(nodes.SITES), "Which sites are connected."),
)


def every(keys: mapping.Keys = TOP, prefix: str = "") -> typing.Iterator[tuple[str, mapping.Key]]:
    """Yield every key with its path, as the reference writes it: ``nodes[].name``."""
    for key in keys:
        path = f"{prefix}{key.name}"
        yield path, key
        if isinstance(key.value, mapping.Nested):
            yield from every(key.value.keys, f"{path}.")
        elif isinstance(key.value, mapping.Mappings):
            yield from every(key.value.keys, f"{path}[].")
