"""Problems of keys that do not fit together, and warnings about metadata that works."""

from __future__ import annotations

from om_agent import errors
from om_agent.kinds import kind

KINDS = {
    "unknown-node": kind.Kind(
        "{name} is not the name of a node in nodes",
        "Use a name from nodes, compared whole",
    ),
    "not-in-nodes": kind.Kind(
        "this node, {name}, is not in nodes (names are compared whole, without regard to case)",
        "Add it to nodes, or set node (or --node) to the name that nodes uses",
        reads=("nodes",),
    ),
    "ambiguous-node": kind.Kind(
        "this host is called {host}, and several nodes have a name that begins so: {names}",
        "Name the node with --node or the key node (hiera: oslo_messaging_node)",
    ),
    "other-node": kind.Kind(
        "this host was the node {old} and ran {units}; by its host name it would now be {name}, and {what}",
        "See that the host name and the names of the metadata are right. If this is meant, name the node with "
        "--node or the key node (hiera: oslo_messaging_node)",
    ),
    "dropped-node": kind.Kind(
        "the metadata names no {name} any more, and applying it here would stop {units}, which other nodes keep",
        "See that the name of every node is spelt in the metadata as the node is called. If this node is to stop them, "
        "name it with --node or the key node (hiera: oslo_messaging_node)",
    ),
    "no-carrier": kind.Kind(
        "no node carries {half}: there is no node of role controller",
        "Give a node the role controller, name nodes in {half}.nodes, or external hosts in {half}.hosts",
    ),
    "hosts-and-nodes": kind.Kind(
        "both hosts and nodes are given",
        "Keep hosts for an external backend, or nodes for one on the overcloud's own nodes",
    ),
    "port-collision": kind.Kind(
        "port {port} on node {node} is claimed by {first} and by {second}",
        "Give one of them another port",
        reads=(*kind.PORTS, "nodes", "scheme"),
    ),
    "overlap": kind.Kind(
        "rpc.nodes and notify.nodes overlap without being the same, and both use {scheme}",
        "Make the two lists equal (one shared backend) or disjoint (two separate ones)",
        reads=kind.CARRIERS,
    ),
    "no-interior": kind.Kind(
        "no node has an interior router: no role is interior in router.roles, nor has a node interior: true",
        "Give a node the role controller or interior: true, or name nodes in {half}.nodes or external hosts in "
        "{half}.hosts",
    ),
    "interior-differs": kind.Kind(
        "this contradicts {half}.nodes, which names every node with an interior router, for {name}",
        "Take interior off the node, or {half}.nodes off the metadata",
    ),
    "not-a-role": kind.Kind(
        "{role} is not a role",
        "Name roles in up to 64 letters, digits, dots, hyphens and underscores",
    ),
    "role-unused": kind.Kind(
        "no node has the role {role}",
        "Nothing needs doing if nodes of that role may come; otherwise use a role of nodes: {known}",
        severity=errors.WARNING,
    ),
    "roles-overruled": kind.Kind(
        "{half}.nodes names every node with an interior router, so {name} is not what this says of the role {role}",
        "Take {half}.nodes off the metadata, or the role {role} off router.roles",
        severity=errors.WARNING,
    ),
    "unknown-role": kind.Kind(
        "no node has the role {role}",
        "Use a role of nodes: {known}",
    ),
    "not-two-sites": kind.Kind(
        "a link has two different sites",
        "Name two, as in between: [dc1, dc2]",
    ),
    "linked-twice": kind.Kind(
        "{sites} are linked twice",
        "Give each pair of sites one link",
    ),
    "site-apart": kind.Kind(
        "no link leads from {site} to {rest}",
        "Add a link between them to sites.links",
        reads=(*kind.CARRIERS, "sites"),
    ),
    "site-between": kind.Kind(
        "the way from {site} to {rest} leads over {between}, where no interior router is",
        "Give {between} an interior router, or link {site} with a site that has one",
        reads=(*kind.CARRIERS, "sites"),
    ),
    "site-missing": kind.Kind(
        "{count} nodes with a router have no site, the first is {name}; others have one, and no link can lead there",
        "Give every node a site, or none",
        reads=kind.CARRIERS,
    ),
    "one-mesh": kind.Kind(
        "rpc and notify both use amqp on different nodes",
        "Use the same nodes for both: they share one router mesh",
        reads=kind.CARRIERS,
    ),
    "shared-differs": kind.Kind(
        "rpc and notify share one {what}, but their {key} differs",
        "Give both the same {key}, or use separate nodes",
        reads=(*kind.PORTS, *kind.TLS, "nodes", "hosts", "scheme"),
    ),
    "embedded-mesh": kind.Kind(
        "the embedded engine is one router for development, and {count} nodes would run one",
        "Use engine qdrouterd or skrouterd, or name one node in {half}.nodes",
        reads=kind.CARRIERS,
    ),
    "too-many-routers": kind.Kind(
        "{count} interior routers, and one network holds at most 128",
        "Let roles run edge routers (router.roles), or name at most 128 nodes in {half}.nodes",
        reads=kind.CARRIERS,
    ),
    "mixed-families": kind.Kind(
        "the {half} transport URL would hold IPv6 addresses next to other hosts, and newer Pythons refuse to read it",
        "Use IPv6 addresses for all of its hosts, or names or IPv4 addresses for all",
        reads=kind.CARRIERS,
    ),
    "mixed-cluster": kind.Kind(
        "some brokers of the cluster have IPv6 addresses and others have not: Erlang's nodes would not find each other",
        "Use IPv6 addresses for all nodes that carry {half}, or for none",
        reads=kind.CARRIERS,
    ),
    "router-temp": kind.Kind(
        "the last part of this name is temp, which a router's policy takes for the address of an answer",
        "Choose another name for the node",
        reads=("nodes", "scheme"),
    ),
    "lone-brokers": kind.Kind(
        "broker.cluster is false, but {count} nodes would run one broker each, and messages do not cross between them",
        "Leave broker.cluster true, or name one node in {half}.nodes",
        reads=kind.CARRIERS,
    ),
    "mixed-names": kind.Kind(
        "the names of the broker's nodes mix fully qualified and short ones, and an Erlang cluster cannot",
        "Use one kind of name for all of them",
        reads=kind.CARRIERS,
    ),
    "mirrored-queues": kind.Kind(
        "this is the old name of a setting: broker.queues says the same, and knows quorum queues too",
        "Write broker.queues: {meant} instead, on all nodes at once",
        severity=errors.WARNING,
    ),
    "queues-twice": kind.Kind(
        "broker.queues and its old name, mirrored_queues, are both given",
        "Keep broker.queues",
    ),
    "not-stored": kind.Kind(
        "notifications go to a router, which stores none: while no listener is attached, each one holds up its "
        "service for 30 s and is then lost",
        "Use notify.scheme rabbit. Where nobody listens, set notify.driver to noop",
        severity=errors.WARNING,
    ),
    "fanout-duplicates": kind.Kind(
        "qdrouterd 1.19 delivers a fanout more than once in a mesh of {count} interior routers",
        "Use router.engine skrouterd (fixed since 3.1.0) or two nodes, or see that your services bear it",
        severity=errors.WARNING,
    ),
    "listens-everywhere": kind.Kind(
        "the address is a name, and RabbitMQ takes addresses only: the broker listens on every address of the node",
        "Write the IP address",
        severity=errors.WARNING,
    ),
    "lone-interior": kind.Kind(
        "if the router on {name} is lost, {who} cannot reach the rest",
        "Give another node of the site an interior router, or leave router.require_redundancy false and accept it",
    ),
    "lone-link": kind.Kind(
        "if the link between {name} is lost, {who} cannot reach the rest",
        "Give the site a third interior router, or each of the linked sites two, or leave "
        "router.require_redundancy false and accept it",
    ),
    "no-mesh": kind.Kind(
        "no half goes over routers of this overcloud that could form a mesh: there is nothing to draw",
        "Set rpc.scheme to amqp, without hosts, and a router.engine other than embedded",
    ),
    "no-graphviz": kind.Kind(
        "Graphviz is not installed, and it makes the picture",
        "Install graphviz, or take --format dot or json",
    ),
    "thinned": kind.Kind(
        "{count} interior routers of {site} are too many for a full mesh: each connects to {links} others at most",
        "Nothing needs doing; router.max_links changes the number",
        severity=errors.WARNING,
    ),
    "crowded": kind.Kind(
        "each of the {count} interior routers of {site} connects to up to {links} others: 15 in a full mesh, 14 "
        "links each, idle at 11 % of a core, and 20 never come to rest",
        "Lower router.max_links (its default is 6), or let roles run edge routers (router.roles)",
        severity=errors.WARNING,
    ),
    "flooded": kind.Kind(
        "the {count} interior routers of {site} pass each change on over every way between them: with 6 links "
        "each, 50 did not come to rest on two cores, and while anything changes 100 need 0.8 and 128 all of a core "
        "each",
        "Let roles run edge routers (router.roles), divide the interiors among sites around one in the middle, or "
        "set router.max_links to 4 for a quarter of that, or to 2 (a ring) for next to nothing",
        severity=errors.WARNING,
    ),
}
