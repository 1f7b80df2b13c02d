"""What the metadata's files, and a key of it by itself, can have wrong."""

from __future__ import annotations

from om_agent.kinds import kind

KINDS = {
    # -- metadata: files
    "unreadable": kind.Kind(
        "the file cannot be read: {reason}",
        "Check the path and its permissions",
    ),
    "not-json": kind.Kind(
        "this is neither JSON nor YAML (line {line}, column {column})",
        "Fix the syntax at that place",
    ),
    "no-value": kind.Kind(
        "what stands at line {line}, column {column} looks like a number or a date, and is none that can be read",
        "Fix it, or put it in quotes if it is meant as text",
    ),
    "yaml-number": kind.Kind(
        "YAML reads the text at line {line}, column {column} as a number of base 2, 8 or 60, or ignores a _ in it",
        "Write a decimal number without a leading 0, or put it in quotes if it is meant as text",
    ),
    "not-utf8": kind.Kind(
        "the file is not UTF-8 text",
        "Save it as UTF-8",
    ),
    "too-big": kind.Kind(
        "the file is larger than {limit} MiB",
        "Give a file that holds metadata",
    ),
    "too-deep": kind.Kind(
        "the metadata is nested too deeply to be read",
        "Fix the file; 20 levels are plenty",
    ),
    "not-a-mapping": kind.Kind(
        "this is a {type}, where a mapping is needed",
        "Put the metadata under a top-level key oslo_messaging",
    ),
    "no-metadata": kind.Kind(
        "there is no oslo_messaging key and no oslo_messaging_rpc_* hiera key",
        "Give the file that holds the messaging metadata",
    ),
    "yaml-alias": kind.Kind(
        "line {line} refers to an anchor, which is not read: a few lines of them can stand for gigabytes",
        "Write the value out",
    ),
    "no-config": kind.Kind(
        "standard input is not a heat-config deployment: there is no config, and no input called oslo_messaging",
        "Give the deployment's JSON as heat-config does; for plain metadata use om-agent apply",
    ),
    "no-deployment": kind.Kind(
        "there is nothing on standard input, where a heat-config deployment is needed",
        "Give the deployment's JSON as heat-config does; for plain metadata use om-agent apply",
    ),
    "deployment-not-json": kind.Kind(
        "what came on standard input is not JSON, as a heat-config deployment is",
        "Give the deployment's JSON as heat-config does; for plain metadata use om-agent apply",
    ),
    "not-a-deployment": kind.Kind(
        "what came on standard input is a {type}, where a heat-config deployment is a mapping with config and inputs",
        "Give the deployment's JSON as heat-config does; for plain metadata use om-agent apply",
    ),
    "bad-arguments": kind.Kind(
        "om-agent hook was called with what it does not take: {what}",
        "Fix OM_AGENT_ARGS, with which heat-config's hook calls it; om-agent hook --help says what there is",
    ),
    "not-seconds": kind.Kind(
        "this is no number of seconds from 0 to 604800",
        "Give such a number, as in 300",
    ),
    "two-deliveries": kind.Kind(
        "the metadata has this deployment of group om-messaging and also a key oslo_messaging, which wins",
        "Keep one of the two: remove the deployment, or what delivers the key",
    ),
    "signal-zaqar": kind.Kind(
        "the deployment wants its signal in a Zaqar queue, and only heat-agents can put it there",
        "Install heat-agents, or set signal_transport of the deployment to CFN_SIGNAL, TEMP_URL_SIGNAL or HEAT_SIGNAL",
    ),
    "duplicate-key": kind.Kind(
        "the key {key} stands twice in one mapping",
        "Keep one of the two",
    ),
    # -- metadata: shape
    "unknown-key": kind.Kind(
        "{key} is not a key here",
        "Remove it, or use one of: {known}",
    ),
    "missing": kind.Kind(
        "the value is missing",
        "Set it; {hint}",
    ),
    "wrong-type": kind.Kind(
        "a {found} stands where {wanted} is needed",
        "Write {wanted}",
    ),
    "empty": kind.Kind(
        "the value is empty",
        "Write {wanted}, or leave the key out",
    ),
    "out-of-range": kind.Kind(
        "the number is outside {low} to {high}",
        "Choose one from {low} to {high}",
    ),
    "bad-text": kind.Kind(
        "the text holds a character that cannot stand here ({which})",
        "Use {wanted}",
    ),
    "no-own-address": kind.Kind(
        "this address belongs to no single host: it is unspecified, multicast, broadcast or link-local",
        "Write the host's own address",
        reads=kind.CARRIERS,
    ),
    "not-one-of": kind.Kind(
        "the value is not one of the allowed words",
        "Use one of: {known}",
    ),
    "not-a-host": kind.Kind(
        "this is neither a host name, an IPv4 nor an IPv6 address",
        "Write one host without port, brackets or zone",
    ),
    "empty-list": kind.Kind(
        "the list is empty",
        "Name at least one {what}, or leave the key out for the default",
    ),
    "twice": kind.Kind(
        "{name} stands twice ({first})",
        "Keep one of the two",
        reads=kind.CARRIERS,
    ),
    "same-name": kind.Kind(
        "{name} is the same name as that of {first}: DNS looks neither at upper and lower case nor at a dot at the end",
        "Give each node a name of its own",
    ),
    "crossed-node": kind.Kind(
        "{name} is {first}, another node: what connects to one of the two would reach the other",
        "Give each node a name, an address and a host that lead to it alone",
    ),
}
