"""Everything that can go wrong, and the sentences in which people hear of it.

AgentError
  +- InvalidInput          exit 2: the metadata or the command is wrong; nothing was touched
  +- ApplyFailed           exit 1: the node is as it was before
       +- NotReady         something that the node must have is missing; nothing was touched
       +- ProcessFailed    a program could not be started, failed or ran out of time
       +- Busy             another agent holds the lock
       +- RollbackFailed   putting the old files back failed too; the next run goes on with it
       +- Unreachable      a router's management cannot be reached, or does not do as asked

A `Problem` is one thing to mend: where it is, what is wrong and what to do. Its text comes from `SENTENCES`, so that
every sentence a person can meet is in this file and each has a stable code that ``--json`` prints.
"""

from __future__ import annotations

import dataclasses
import typing

EXIT_OK = 0
EXIT_APPLY_FAILED = 1
EXIT_INVALID = 2
EXIT_UNHEALTHY = 3

ERROR = "error"
WARNING = "warning"

_MAX_ECHO = 60  # characters of a name that a sentence repeats
_MAX_SHOWN = 1200  # characters of any value in a sentence: lists of known keys are the longest


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing to mend.

    :param path: where, as ``nodes[2].address`` in the metadata, or an absolute file path.
    :param code: a key of `SENTENCES`; stable, for programs.
    :param message: one sentence saying what is wrong.
    :param remedy: one sentence saying how to mend it.
    :param severity: `ERROR`, or `WARNING` for a finding that does not stop anything.
    """

    path: str
    code: str
    message: str
    remedy: str
    severity: str = ERROR

    def __str__(self) -> str:
        return f"{self.path}: {self.message}. {self.remedy}."


class AgentError(Exception):
    """Root of every error that a person may see; ``str()`` is a clear sentence."""

    exit_code = EXIT_APPLY_FAILED


class InvalidInput(AgentError):
    """The metadata or the command is wrong; carries every problem found."""

    exit_code = EXIT_INVALID

    def __init__(self, problems: typing.Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class ApplyFailed(AgentError):
    """Applying failed and everything is as it was before."""


class NotReady(ApplyFailed):
    """The node lacks something that applying needs; carries every problem found. Nothing was touched."""

    def __init__(self, problems: typing.Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class RollbackFailed(ApplyFailed):
    """Applying failed and putting the old files back failed too; the journal stays for the next run."""


class ProcessFailed(ApplyFailed):
    """A program is missing, failed or ran out of time."""


class Busy(ApplyFailed):
    """Another agent is at work on this node."""


class Unreachable(ApplyFailed):
    """A router's management cannot be reached, or does not do as asked."""


def problem(path: str, code: str, severity: str = ERROR, **values: object) -> Problem:
    """Return the `Problem` with the sentence of ``code``; raises KeyError for an unknown code (a programming error)."""
    message, remedy = SENTENCES[code]
    shown = {k: _shown(v) for k, v in values.items()}
    return Problem(path or "oslo_messaging", code, message.format(**shown), remedy.format(**shown), severity)


def warning(path: str, code: str, **values: object) -> Problem:
    """Return a finding: something to know that stops nothing."""
    return problem(path, code, WARNING, **values)


def _shown(value: object) -> str:
    """Return ``value`` fit for one line of text: control characters escaped, long ones cut."""
    text = value if isinstance(value, str) else str(value)
    cut = text[:_MAX_SHOWN]
    printable = "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut)
    return printable if cut == text else printable + "..."


def quoted(name: object) -> str:
    """Return a name from the metadata in quotes, cut to a length that a sentence can hold."""
    text = str(name)
    return '"' + (text if len(text) <= _MAX_ECHO else text[:_MAX_ECHO] + "...") + '"'


def listed(names: typing.Sequence[str], most: int) -> str:
    """Return up to ``most`` names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


# Values of the metadata are never repeated in a sentence, only names (keys, nodes, services): a password in the wrong
# place must not end up in a log.
SENTENCES: dict[str, tuple[str, str]] = {
    # -- metadata: files
    "unreadable": ("the file cannot be read: {reason}", "Check the path and its permissions"),
    "not-json": ("this is neither JSON nor YAML (line {line}, column {column})", "Mend the syntax at that place"),
    "not-utf8": ("the file is not UTF-8 text", "Save it as UTF-8"),
    "too-big": ("the file is larger than {limit} MiB", "Give a file that holds metadata"),
    "too-deep": ("the metadata is nested too deeply to be read", "Mend the file; 20 levels are plenty"),
    "not-a-mapping": (
        "this is a {type}, where a mapping is needed",
        "Put the metadata under a top-level key oslo_messaging",
    ),
    "no-metadata": (
        "there is no oslo_messaging key and no oslo_messaging_rpc_* hiera key",
        "Give the file that holds the messaging metadata",
    ),
    "yaml-alias": (
        "line {line} refers to an anchor, which is not read: a few lines of them can stand for gigabytes",
        "Write the value out",
    ),
    "no-config": (
        "standard input is not a heat-config deployment: there is no config, and no input called oslo_messaging",
        "Give the deployment's JSON as heat-config does; for plain metadata use om-agent apply",
    ),
    "duplicate-key": ("the key {key} stands twice in one mapping", "Keep one of the two"),
    # -- metadata: shape
    "unknown-key": ("{key} is not a key here", "Remove it, or use one of: {known}"),
    "missing": ("the value is missing", "Set it; {hint}"),
    "wrong-type": ("a {found} stands where {wanted} is needed", "Write {wanted}"),
    "empty": ("the value is empty", "Write {wanted}, or leave the key out"),
    "out-of-range": ("the number is outside {low} to {high}", "Choose one from {low} to {high}"),
    "bad-text": ("the text holds a character that cannot stand here ({which})", "Use {wanted}"),
    "no-own-address": (
        "this address belongs to no single node: it is unspecified, multicast, broadcast or link-local",
        "Write the node's own address",
    ),
    "not-one-of": ("the value is not one of the allowed words", "Use one of: {known}"),
    "not-a-host": (
        "this is neither a host name, an IPv4 nor an IPv6 address",
        "Write one host without port, brackets or zone",
    ),
    "empty-list": ("the list is empty", "Name at least one {what}, or leave the key out for the default"),
    "twice": ("{name} stands twice ({first})", "Keep one of the two"),
    # -- metadata: sense
    "unknown-node": ("{name} is not the name of a node in nodes", "Use a name from nodes, compared whole"),
    "not-in-nodes": (
        "this node, {name}, is not in nodes (names are compared whole)",
        "Add it to nodes, or set node (or --node) to the name that nodes uses",
    ),
    "no-carrier": (
        "no node carries {half}: there is no node of role controller",
        "Give a node the role controller, name nodes in {half}.nodes, or external hosts in {half}.hosts",
    ),
    "hosts-and-nodes": (
        "both hosts and nodes are given",
        "Keep hosts for an external backend, or nodes for one on the overcloud's own nodes",
    ),
    "port-collision": (
        "port {port} on node {node} is claimed by {first} and by {second}",
        "Give one of them another port",
    ),
    "overlap": (
        "rpc.nodes and notify.nodes overlap without being the same, and both use {scheme}",
        "Make the two lists equal (one shared backend) or disjoint (two separate ones)",
    ),
    "no-interior": (
        "no node has an interior router: no role is interior in router.roles, nor has a node interior: true",
        "Give a node the role controller or interior: true, or name nodes in {half}.nodes or external hosts in "
        "{half}.hosts",
    ),
    "interior-differs": (
        "{name} is told otherwise by {half}.nodes, which names every node with an interior router",
        "Take interior off the node, or {half}.nodes off the metadata",
    ),
    "not-a-role": (
        "{role} is not a role",
        "Name roles in up to 64 letters, digits, dots, hyphens and underscores",
    ),
    "not-two-sites": ("a link has two different sites", "Name two, as in between: [dc1, dc2]"),
    "linked-twice": ("{sites} are linked twice", "Give each pair of sites one link"),
    "site-apart": (
        "no way leads from {site} to {rest} over sites that have interior routers",
        "Add a link between them to sites.links, or take the sites off the nodes",
    ),
    "one-mesh": (
        "rpc and notify both use amqp on different nodes",
        "Use the same nodes for both: they share one router mesh",
    ),
    "shared-differs": (
        "rpc and notify share one {what}, but their {key} differs",
        "Give both the same {key}, or use separate nodes",
    ),
    "two-passwords": (
        "rpc and notify name the same user of one {what} with different passwords",
        "Use two user names, or one password",
    ),
    "tls-no-certificate": (
        "TLS is asked of the clients, but the {what} has no certificate and key",
        "Set tls.certificate_file and tls.key_file (or tls.certificate and tls.key)",
    ),
    "tls-not-on-server": (
        "TLS is asked of the clients ({half}.tls), but {what}.tls is false",
        "Make the two agree",
    ),
    "tls-not-on-clients": (
        "{what}.tls is true, but {half}.tls is false: the clients would be refused",
        "Make the two agree",
    ),
    "tls-needs-name": (
        "TLS needs a host name, and this is an address: the AMQP 1.0 driver cannot verify an address in a certificate",
        "Give the node a host key with the name that its certificate holds",
    ),
    "tls-no-ca": ("TLS is asked for, but there is no CA to verify peers with", "Set tls.ca_file (or tls.ca)"),
    "tls-both": ("both a path and PEM text are given for the same thing", "Keep {file_key} or {text_key}"),
    "tls-half": ("a certificate needs its key, and a key its certificate", "Set both, in the same form"),
    "not-pem": (
        "the text is not PEM: it needs a line -----BEGIN {what}----- and the END of it",
        "Paste the whole PEM block",
    ),
    "embedded-mesh": (
        "the embedded engine is one router for development, and {count} nodes would run one",
        "Use engine qdrouterd or skrouterd, or name one node in {half}.nodes",
    ),
    "too-many-routers": (
        "{count} interior routers, and one network holds at most 128",
        "Let roles run edge routers (router.roles), or name at most 128 nodes in {half}.nodes",
    ),
    "mixed-families": (
        "the {half} transport URL would mix IPv6 addresses with other hosts, and Python refuses to read such a URL",
        "Use IPv6 addresses for all of its hosts, or names or IPv4 addresses for all",
    ),
    "rabbit-slash": (
        "this holds a /, which oslo.messaging's RabbitMQ driver passes on unencoded: no service could log in",
        "Choose one without /",
    ),
    "rabbit-vhost": (
        "this holds one of % ? # ; which oslo.messaging's RabbitMQ driver passes on unencoded",
        "Choose a virtual host without them",
    ),
    "lone-brokers": (
        "broker.cluster is false, but {count} nodes would run one broker each, and messages do not cross between them",
        "Leave broker.cluster true, or name one node in {half}.nodes",
    ),
    "mixed-names": (
        "the names of the broker's nodes mix fully qualified and short ones, and an Erlang cluster cannot",
        "Use one kind of name for all of them",
    ),
    "password-line-end": (
        "the password ends in a line break, which saslpasswd2 cuts off: no client could log in to the router",
        "Choose a password that ends in something else",
    ),
    "username-realm": (
        "the user name holds an @, which separates user and realm in SASL",
        "Use a user name without @ for a router",
    ),
    "username-taken": ("the routers log in to each other with this user name", "Use another user name"),
    "not-stored": (
        "notifications go to a router: nothing stores them, so those sent while no listener is attached are lost",
        "Use notify.scheme rabbit unless every consumer tolerates that",
    ),
    "fanout-duplicates": (
        "qdrouterd 1.19 delivers a fanout more than once in a mesh of {count} interior routers",
        "Use router.engine skrouterd (mended since 3.1.0) or two nodes, or see that your services bear it",
    ),
    "listens-everywhere": (
        "the address is a name, and RabbitMQ takes addresses only: the broker listens on every address of the node",
        "Write the IP address",
    ),
    "lone-interior": (
        "if the router on {name} is lost, {who} cannot reach the rest",
        "Give another node an interior router, on the same site, or accept it",
    ),
    "lone-link": (
        "if the link between {name} is lost, {who} cannot reach the rest",
        "Give the site a third interior router, or each of the linked sites two, or accept it",
    ),
    "no-mesh": (
        "no half goes over routers of this overcloud that could form a mesh: there is nothing to draw",
        "Set rpc.scheme to amqp, without hosts, and a router.engine other than embedded",
    ),
    "no-graphviz": (
        "Graphviz is not installed, and it makes the picture",
        "Install graphviz, or take --format dot or json",
    ),
    "thinned": (
        "{count} interior routers of {site} are too many for a full mesh: each connects to {links} others at most",
        "Nothing needs doing; router.max_links changes the number",
    ),
    "plaintext": (
        "{half} runs without TLS: passwords cross the network in the clear",
        "Set {half}.tls to true and give tls",
    ),
    # -- services and the node
    "unknown-service": ("{name} is not in the service catalogue", "Use names from: {known}"),
    "mixes-halves": (
        "{name} mixes up the two backends whatever is configured: {caution}",
        "Nothing can be configured against it: do without that part of {name}, or give both halves one backend",
    ),
    "absent-service": (
        "{name} is asked for, but its directory {where} is not there",
        "Install {name}, or take it off services",
    ),
    "not-a-file": ("this is {found}, not a regular file", "Move it away"),
    "read-only": ("the file cannot be written by this user", "Run om-agent as root, or make the file writable"),
    "no-section": (
        "{name} is asked for, but there is no section {where}",
        "Add the filter to the pipeline, or take {name} off services",
    ),
    # -- rendered router file
    "router-entity": (
        "the router configuration has {count} router entities",
        "Report this: it is a defect of om-agent",
    ),
    "router-unknown": (
        "the router configuration names {name}, which the router does not know",
        "Report this: it is a defect of om-agent",
    ),
    "router-no-profile": ("the sslProfile {name} is used and not defined", "Report this: it is a defect of om-agent"),
    "router-duplicate": ("{name} is defined twice", "Report this: it is a defect of om-agent"),
    "missing-file": ("this file is not there, and it is needed for {what}", "Put it there, or correct {key}"),
    # -- verify: what is wrong with messaging as it runs, and the next command
    "config-differs": (
        "{count} things on disk are not as the metadata says, the first: {what}",
        "Run om-agent apply",
    ),
    "router-down": ("no router listens at {where}", "Run systemctl status {unit}, and journalctl -u {unit} for why"),
    "router-hung": ("the router at {where} takes connections and does not answer", "Run systemctl restart {unit}"),
    "router-closed": (
        "the router at {where} ended the connection before it was agreed upon",
        "Run journalctl -u {unit}; it may expect TLS where none is configured, or the other way round",
    ),
    "router-login": (
        "the router at {where} does not let om-agent in: its users are not those of the metadata",
        "Run om-agent apply, then om-agent verify",
    ),
    "router-certificate": (
        "the certificate that the router at {where} shows is expired, of another authority or for another name",
        "Run openssl x509 -noout -enddate -issuer -ext subjectAltName -in {file}",
    ),
    "router-stranger": (
        "what listens at {where} calls itself {name}, which is not this node's router",
        "Run ss -ltnp to see which program has the port, end it, and run systemctl restart {unit}",
    ),
    "router-engine": (
        "what listens is {found}, where {engine} is configured",
        "Stop it, and run systemctl restart {engine}",
    ),
    "router-drained": (
        "the router was drained, so no client and no edge router can connect to it",
        "Run om-agent drain --undo, or systemctl restart its unit",
    ),
    "router-drift": (
        "the running router is not as {file} says, this would make it so: {what}",
        "Run om-agent drain --undo, which makes it so without a restart",
    ),
    "peer-down": (
        "no router listens on {name}, so it is not reached",
        "Run om-agent status on {name}; if it is being started, wait and run om-agent verify again",
    ),
    "peer-hung": ("the router on {name} does not answer", "Run om-agent verify on {name}"),
    "peer-login": (
        "the router on {name} does not let om-agent in: it has passwords of another deployment",
        "Run om-agent apply on {name} with the same metadata as here",
    ),
    "peer-credentials": (
        "the routers here and on {name} differ in router.mesh_password: the login from {who} was refused",
        "Run om-agent apply on both nodes with the same metadata, then om-agent verify",
    ),
    "peer-certificate": (
        "TLS between the routers here and on {name} fails: {why}",
        "Run openssl x509 -noout -enddate -issuer -ext subjectAltName -in {file} on both nodes",
    ),
    "peer-unlinked": (
        "the router on {name} runs, and the mesh has no way to it",
        "Run om-agent verify on {name}; see that a firewall lets the routers through",
    ),
    "peer-partial": (
        "the router on {name} is reached, but does not reach {lacking} itself",
        "Run om-agent verify on {name}",
    ),
    "duplicate-id": (
        "two routers are called {name} (seen at {where}), and the mesh routes to one of them only",
        "Run om-agent status on both nodes, and om-agent apply on the one that has the wrong name",
    ),
    "other-engine": (
        "the router {name} at {where} is {found}, and it does not route together with {engine}",
        "Run om-agent plan on that node, and give all nodes one router.engine",
    ),
    "uplink-down": (
        "no connection to an interior router is open (tried: {names}): only this node's own clients are reached",
        "Run om-agent verify on one of those nodes",
    ),
    "uplink-stranger": (
        "the uplink goes to {name} at {where}, which is no interior router of the metadata",
        "Run om-agent apply, then om-agent verify",
    ),
    "broker-down": (
        "the broker cannot be asked: {why}",
        "Run systemctl status {unit}, and journalctl -u {unit} for why",
    ),
    "broker-members": (
        "these members of the cluster do not run: {names}",
        "Run om-agent status on {node}",
    ),
    "broker-stranger": (
        "the cluster has members that the metadata does not name: {names}",
        "Run rabbitmqctl forget_cluster_node {first} once it is stopped for good",
    ),
    "broker-partition": (
        "the cluster is split: {names} lost sight of each other",
        "Run systemctl restart {unit} on the smaller side",
    ),
    "broker-alarm": (
        "the broker has raised an alarm and stopped taking messages: {what}",
        "Run rabbitmqctl status, and free disk or memory on that node",
    ),
    "broker-listener": ("the broker does not listen on port {port}", "Run systemctl restart {unit}"),
    "rpc-failed": (
        "a call with the transport URL of this file, to a server on {to}, did not come back: {why}",
        "Run om-agent status on both nodes",
    ),
    "notify-failed": (
        "a notification with the transport URL of this file, by way of {to}, did not come back: {why}",
        "Run om-agent status on both nodes",
    ),
    "probe-impossible": (
        "no message can be sent to try it out: {why}",
        "Install oslo.messaging (older than 15 for amqp, with pyngus and python-qpid-proton) where om-agent runs",
    ),
    "no-router": ("the node runs no router", "Run this on a node that runs a router"),
    "no-probe": (
        "no service on this node has a configuration file, so no transport URL was tried out",
        "Nothing needs doing where none is expected",
    ),
    # -- tools
    "no-puppet": ("puppet is not installed", "Install puppet-agent, or give its path in PATH"),
    "no-module": (
        "the puppet module {name} is not in any of {paths}",
        "Install it (Debian: puppet-module-puppetlabs-{name})",
    ),
    "no-saslpasswd": ("saslpasswd2 is not installed", "Install sasl2-bin (Debian) or cyrus-sasl-lib (Red Hat)"),
    "no-proton": (
        "the Python module proton, which talks to routers, is not installed",
        "Install python3-qpid-proton, or the module python-qpid-proton in om-agent's own Python",
    ),
    "no-user": ("there is no user or group {name} on this node", "Install the package that makes it ({what})"),
}
