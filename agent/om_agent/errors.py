"""Everything that can go wrong, and the sentences in which people hear of it.

AgentError
  +- InvalidInput          exit 2: the metadata or the command is wrong; nothing was touched
  +- ApplyFailed           exit 1: the node is as it was before
       +- NotReady         something that the node must have is missing; nothing was touched
       +- ProcessFailed    a program could not be started, failed or ran out of time
       +- Busy             another agent holds the lock
       +- RollbackFailed   putting the old files back failed too; the next run goes on with it
       +- Unreachable      a router's management cannot be reached, or does not do as asked
       +- CannotLoad       a Python module is there, and cannot be loaded

A `Problem` is one thing to fix: where it is, what is wrong and what to do. Its text comes from `SENTENCES`, so that
every sentence a person can meet is in this file and each has a stable code that ``--json`` prints.
"""

from __future__ import annotations

import dataclasses
import errno
import re
import typing

EXIT_OK = 0
EXIT_APPLY_FAILED = 1
EXIT_INVALID = 2
EXIT_UNHEALTHY = 3

ERROR = "error"
WARNING = "warning"

# What is true of a node when a command is cut short, by a signal or a defect.
AS_BEFORE = "the node is as it was before"
HALF_DONE = "some files are new and some are old; run om-agent apply again, which puts all of them right"
APPLIED = "what the metadata says is applied, and whether messaging works was not seen to the end"
NOTHING_CHANGED = "it had changed nothing"
# What stands at the end of a text that is too long for Heat.
CUT_OFF = "... cut off, {left} characters before the end: om-agent plan and om-agent verify, on the node, say all of it"
HALF_DRAINED = "the running router may be drained, wholly or by half; om-agent drain --undo, or its restart, ends that"

OUT_OF_MEMORY = (
    "There is not enough memory. Free some, or raise the limit that om-agent runs with (ulimit -v, MemoryMax= of its "
    "unit); then run again"
)
# What is short, by the system's own number, and what to do.
_LIMITS = {
    errno.ENOMEM: "there is not enough memory: free some, or raise the limit (ulimit -v, MemoryMax= of the unit)",
    errno.EAGAIN: "no more processes may be started: end some, or raise the limit (ulimit -u, TasksMax= of the unit)",
    errno.EMFILE: "om-agent may open no more files: raise the limit (ulimit -n, LimitNOFILE= of the unit)",
    errno.ENFILE: "no more files may be open on this machine: close some, or raise the limit (sysctl fs.file-max)",
}

_MAX_ECHO = 60  # characters of a name that a sentence repeats
_MAX_SHOWN = 1200  # characters of any value in a sentence: lists of known keys are the longest


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing to fix.

    :param path: where, as ``nodes[2].address`` in the metadata, or an absolute file path.
    :param code: a key of `SENTENCES`; stable, for programs.
    :param message: one sentence saying what is wrong.
    :param remedy: one sentence saying how to fix it.
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


class CannotLoad(ApplyFailed):
    """A Python module is installed and cannot be loaded."""

    def __init__(self, name: str, error: ImportError) -> None:
        super().__init__(
            f"The Python module {name} is installed and cannot be loaded ({printable(str(error))}). "
            "See that there is enough memory (ulimit -v, MemoryMax= of the unit), or install the module again."
        )


def limit(number: int | None) -> str:
    """Return what is short when the system says ``number``, a clause; '' when it is something else."""
    return _LIMITS.get(number or 0, "")


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
    return printable(cut) if cut == text else printable(cut) + "..."


def printable(text: str) -> str:
    """Return ``text`` with everything escaped that would do something to a terminal, or not be seen there."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def quoted(name: object) -> str:
    """Return a name from the metadata in quotes, cut to a length that a sentence can hold."""
    text = str(name)
    return '"' + (text if len(text) <= _MAX_ECHO else text[:_MAX_ECHO] + "...") + '"'


def where(host: str, port: object) -> str:
    """Return an address with its port: that of IPv6 is in brackets, so that the two can be told apart."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def key_name(key: object) -> str:
    """Return a key of the metadata in quotes; never one that cannot be a name, since ``{password:secret}``, without
    the blank, is a key to YAML."""
    if isinstance(key, str) and re.fullmatch(r"[A-Za-z0-9_.-]+(::[A-Za-z0-9_.-]+)*", key):
        return quoted(key)
    return "something that cannot be a name"


def listed(names: typing.Sequence[str], most: int) -> str:
    """Return up to ``most`` names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


# Values of the metadata are never repeated in a sentence, only names (keys, nodes, services): a password in the wrong
# place must not end up in a log.
SENTENCES: dict[str, tuple[str, str]] = {
    # -- metadata: files
    "unreadable": ("the file cannot be read: {reason}", "Check the path and its permissions"),
    "not-json": ("this is neither JSON nor YAML (line {line}, column {column})", "Fix the syntax at that place"),
    "no-value": (
        "what stands at line {line}, column {column} looks like a number or a date, and is none that can be read",
        "Fix it, or put it in quotes if it is meant as text",
    ),
    "yaml-number": (
        "YAML reads the text at line {line}, column {column} as a number of base 2, 8 or 60, or ignores a _ in it",
        "Write a decimal number without a leading 0, or put it in quotes if it is meant as text",
    ),
    "not-utf8": ("the file is not UTF-8 text", "Save it as UTF-8"),
    "too-big": ("the file is larger than {limit} MiB", "Give a file that holds metadata"),
    "too-deep": ("the metadata is nested too deeply to be read", "Fix the file; 20 levels are plenty"),
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
    "no-deployment": (
        "there is nothing on standard input, where a heat-config deployment is needed",
        "Give the deployment's JSON as heat-config does; for plain metadata use om-agent apply",
    ),
    "deployment-not-json": (
        "what came on standard input is not JSON, as a heat-config deployment is",
        "Give the deployment's JSON as heat-config does; for plain metadata use om-agent apply",
    ),
    "not-a-deployment": (
        "what came on standard input is a {type}, where a heat-config deployment is a mapping with config and inputs",
        "Give the deployment's JSON as heat-config does; for plain metadata use om-agent apply",
    ),
    "bad-arguments": (
        "om-agent hook was called with what it does not take: {what}",
        "Fix OM_AGENT_ARGS, with which heat-config's hook calls it; om-agent hook --help says what there is",
    ),
    "not-seconds": ("this is no number of seconds from 0 to 604800", "Give such a number, as in 300"),
    "two-deliveries": (
        "the metadata has this deployment of group om-messaging and a key oslo_messaging beside it, which wins",
        "Keep one of the two: remove the deployment, or what delivers the key",
    ),
    "signal-zaqar": (
        "the deployment wants its signal in a Zaqar queue, and only heat-agents can put it there",
        "Install heat-agents, or set signal_transport of the deployment to CFN_SIGNAL, TEMP_URL_SIGNAL or HEAT_SIGNAL",
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
    "same-name": (
        "{name} is the same name as that of {first}: DNS looks neither at upper and lower case nor at a dot at the end",
        "Give each node a name of its own",
    ),
    "crossed-node": (
        "{name} is {first}, another node: what connects to one of the two would reach the other",
        "Give each node a name, an address and a host that lead to it alone",
    ),
    # -- metadata: sense
    "unknown-node": ("{name} is not the name of a node in nodes", "Use a name from nodes, compared whole"),
    "not-in-nodes": (
        "this node, {name}, is not in nodes (names are compared whole, without regard to case)",
        "Add it to nodes, or set node (or --node) to the name that nodes uses",
    ),
    "ambiguous-node": (
        "this host is called {host}, and several nodes have a name that begins so: {names}",
        "Name the node with --node or the key node (hiera: oslo_messaging_node)",
    ),
    "other-node": (
        "this host was the node {old} and ran {units}; by its host name it would now be {name}, and {what}",
        "See that the host name and the names of the metadata are right. If this is meant, name the node with --node "
        "or the key node (hiera: oslo_messaging_node)",
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
    "role-unused": (
        "no node has the role {role}",
        "Nothing needs doing if nodes of that role may come; otherwise use a role of nodes: {known}",
    ),
    "roles-overruled": (
        "{half}.nodes names every node with an interior router, so {name} is not what this says of the role {role}",
        "Take {half}.nodes off the metadata, or the role {role} off router.roles",
    ),
    "unknown-role": ("no node has the role {role}", "Use a role of nodes: {known}"),
    "not-two-sites": ("a link has two different sites", "Name two, as in between: [dc1, dc2]"),
    "linked-twice": ("{sites} are linked twice", "Give each pair of sites one link"),
    "site-apart": (
        "no link leads from {site} to {rest}",
        "Add a link between them to sites.links",
    ),
    "site-between": (
        "the way from {site} to {rest} leads over {between}, where no interior router is",
        "Give {between} an interior router, or link {site} with a site that has one",
    ),
    "site-missing": (
        "{count} nodes with a router have no site, the first is {name}; others have one, and no link can lead there",
        "Give every node a site, or none",
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
    "not-a-cipher": (
        "this is not one of the cipher suites of TLS 1.2 that may be chosen from",
        "Use one of: {wanted}",
    ),
    "tls-ciphers": (
        "tls.ciphers chooses among cipher suites of TLS 1.2, which tls.min_version 1.3 rules out",
        "Leave tls.ciphers out, or make tls.min_version 1.2",
    ),
    "tls-distribution": (
        "brokers that speak TLS to each other need a CA, a certificate and a key",
        "Set the keys of tls, or broker.distribution_tls: false",
    ),
    "tls-node-name": (
        "brokers that speak TLS to each other need host names, and this is an address: Erlang verifies no address",
        "Use the host name that its certificate holds, or set broker.distribution_tls: false",
    ),
    "cert-unreadable": (
        "the {what} cannot be read",
        "Give a whole X.509 certificate as PEM, from BEGIN CERTIFICATE to END CERTIFICATE",
    ),
    "cert-bad-key": (
        "the private key cannot be read: it is none, damaged, or has a password",
        "Give a private key as PEM, without a password",
    ),
    "cert-other-key": (
        "this is not the key of the certificate ({certificate})",
        "Give the key with which that certificate was requested, or the certificate of this key",
    ),
    "cert-other-host": (
        "the certificate is not for {name}, which peers look for in it; it is for {found}",
        "Give this node a certificate with that name among its subject alternative names, in full where brokers speak "
        "TLS to each other",
    ),
    "cert-other-use": (
        "the certificate may not be used as that of a TLS {use}, as the {what} does",
        "Request one whose extended key usage has both serverAuth and clientAuth",
    ),
    "cert-not-signed": (
        "the certificate does not lead to an authority in {ca}",
        "Give the CA that signed it, down to its root, and put intermediate certificates after the server's own",
    ),
    "cert-not-yet": (
        "the {whose} is valid only from {when} on",
        "Wait until then, give another one, or set the clock of this machine right",
    ),
    "cert-expired": (
        "the {whose} has expired on {when}",
        "Give a renewed one, or set the clock of this machine right",
    ),
    "mesh-files": (
        "routers that show certificates of your own to each other need a CA, a certificate and a key",
        "Set router.mesh_ca_file, router.mesh_certificate_file and router.mesh_key_file, or none of them",
    ),
    "key-in-certificate": (
        "the text holds a private key, and its file is readable to everybody",
        "Take the key out; it belongs into tls.key",
    ),
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
        "the {half} transport URL would hold IPv6 addresses beside other hosts, and newer Pythons refuse to read it",
        "Use IPv6 addresses for all of its hosts, or names or IPv4 addresses for all",
    ),
    "mixed-cluster": (
        "some brokers of the cluster have IPv6 addresses and others have not: Erlang's nodes would not find each other",
        "Use IPv6 addresses for all nodes that carry {half}, or for none",
    ),
    "rabbit-slash": (
        "this holds a /, which oslo.messaging's RabbitMQ driver passes on unencoded: no service could log in",
        "Choose one without /",
    ),
    "rabbit-vhost": (
        "this holds one of % ? # ; which oslo.messaging's RabbitMQ driver passes on unencoded",
        "Choose a virtual host without them",
    ),
    "router-username": (
        "this holds a comma, or begins or ends with white space, which a router's policy takes for the end of a name",
        "Choose a user name without",
    ),
    "router-everybody": (
        "this is *, which a router's policy takes for anyone who can log in, with any certificate of the CA too",
        "Choose another user name",
    ),
    "router-vhost": (
        "this holds one of * # , $ or a space, which mean something in a router's policy",
        "Choose a virtual host without them",
    ),
    "router-temp": (
        "the last part of this name is temp, which a router's policy takes for the address of an answer",
        "Choose another name for the node",
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
    "username-taken": (
        "router-admin is reserved: om-agent logs in to routers with it",
        "Use another user name",
    ),
    "external-accept": (
        "somebody else runs this backend, so no user is made there",
        "Leave the key out, and have its operator accept both users meanwhile",
    ),
    "mirrored-queues": (
        "this is the old name of a setting: broker.queues says the same, and knows quorum queues too",
        "Write broker.queues: {meant} instead, on all nodes at once",
    ),
    "queues-twice": (
        "broker.queues and its old name, mirrored_queues, are both given",
        "Keep broker.queues",
    ),
    "derived-changes": (
        "rpc.password is about to be changed, and this secret, which is made from it, would change too: brokers would "
        "be parted",
        "Set it, for all nodes, to what it is now (doc/operations.rst, Changing a password), and leave it so",
    ),
    "still-accepted": (
        "the user {name} may log in too, with a password that no service is given",
        "Take it off once every service has the other one (doc/operations.rst, Changing a password)",
    ),
    "not-stored": (
        "notifications go to a router, which stores none: while no listener is attached, each one holds up its service "
        "for 30 s and is then lost",
        "Use notify.scheme rabbit. Where nobody listens, set notify.driver to noop",
    ),
    "fanout-duplicates": (
        "qdrouterd 1.19 delivers a fanout more than once in a mesh of {count} interior routers",
        "Use router.engine skrouterd (fixed since 3.1.0) or two nodes, or see that your services bear it",
    ),
    "listens-everywhere": (
        "the address is a name, and RabbitMQ takes addresses only: the broker listens on every address of the node",
        "Write the IP address",
    ),
    "lone-interior": (
        "if the router on {name} is lost, {who} cannot reach the rest",
        "Give another node of the site an interior router, or leave router.require_redundancy false and accept it",
    ),
    "lone-link": (
        "if the link between {name} is lost, {who} cannot reach the rest",
        "Give the site a third interior router, or each of the linked sites two, or leave router.require_redundancy "
        "false and accept it",
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
    "crowded": (
        "each of the {count} interior routers of {site} connects to up to {links} others: 15 in a full mesh, 14 links "
        "each, idle at 11 % of a core, and 20 never come to rest",
        "Lower router.max_links (its default is 6), or let roles run edge routers (router.roles)",
    ),
    "flooded": (
        "the {count} interior routers of {site} pass each change on over every way between them: with 6 links each, 50 "
        "did not come to rest on two cores, and while anything changes 100 need 0.8 and 128 all of a core each",
        "Let roles run edge routers (router.roles), divide the interiors among sites around one in the middle, or set "
        "router.max_links to 4 for a quarter of that, or to 2 (a ring) for next to nothing",
    ),
    "plaintext": (
        "{half} runs without TLS: passwords cross the network in the clear",
        "Set {half}.tls to true and give tls",
    ),
    "tls-not-said": (
        "nothing says whether clients of the routers use TLS, and without it passwords cross the network in the clear",
        "Set it to true and give tls, or to false where the network is trusted with passwords",
    ),
    "external-password": (
        "services log in with a certificate here, so the password is ignored",
        "Leave the key out, or sasl_mechanism: EXTERNAL",
    ),
    "external-files": (
        "the value is missing: with it services log in, since sasl_mechanism is EXTERNAL",
        "Set it to the absolute path at which services find it on every node",
    ),
    "external-tls": (
        "a certificate can be shown over TLS only, and {half} has none",
        "Set {half}.tls to true and give tls, or choose PLAIN",
    ),
    "client-files-unused": (
        "services log in with a password here, so this is ignored",
        "Set sasl_mechanism to EXTERNAL, or leave the key out",
    ),
    "login-differs": (
        "{key} differs between the two halves, and a service's file has one section for both",
        "Give both halves the same {key}",
    ),
    "scram-rabbit": ("RabbitMQ does not know SCRAM", "Choose PLAIN, with tls: true, or EXTERNAL"),
    "scram-cyrus": (
        "SCRAM needs a python-qpid-proton that was built with Cyrus SASL, and Debian's is not",
        "Install such a one for the services and the agent, or choose PLAIN, with tls: true, or EXTERNAL",
    ),
    "embedded-login": ("om-devrouter, which is for development, knows no login but PLAIN", "Choose PLAIN"),
    "cert-other-user": (
        "the certificate is for the user {found}, and services log in as {name}",
        "Use a certificate with the common name {name}, or set the user name to {found}",
    ),
    "mesh-secret": (
        "the value is missing: from it routers make what they know each other by, and the agent what it manages them "
        "with",
        "Set it to a long random text, the same for all nodes (openssl rand -hex 32), which services do not know",
    ),
    "admin-secret": (
        "the value is missing: with it the agent manages running routers, and without router.mesh_password it cannot "
        "be made",
        "Set it to a long random text, the same for all nodes (openssl rand -hex 32)",
    ),
    "cookie-derived": (
        "the brokers' cookie is made from rpc.password: anyone who has a service's password and reaches the port "
        "between brokers can do anything to them",
        "Set broker.erlang_cookie to a long random text, the same for all nodes (openssl rand -hex 32)",
    ),
    "cookie-replaced": (
        "the cookie is 20 capital letters, as Erlang makes them, and Debian's rabbitmq-server package replaces such a "
        "cookie at each of its upgrades: the broker then leaves its cluster until the next om-agent apply",
        "Set broker.erlang_cookie to a long random text, the same for all nodes (openssl rand -hex 32)",
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
    "queues-mirrored": (
        "RabbitMQ {version} is installed here, and RabbitMQ has no mirrored queues since 4.0: it does not start with a "
        "policy for them",
        "Set broker.queues to quorum, or to classic for queues without copies (doc/rabbitmq4.rst)",
    ),
    "queues-too-old": (
        "RabbitMQ {version} is installed here, and RabbitMQ has quorum queues since 3.8",
        "Set broker.queues to mirrored, or install a newer RabbitMQ",
    ),
    "queues-unknown": (
        "no RabbitMQ is found on this node, so nothing tells whether it has mirrored queues: 4.0 and newer have none",
        "Set broker.queues to quorum where the brokers will be RabbitMQ 4",
    ),
    "quorum-unknown": (
        "queues are to be quorum queues, and the services here use oslo.messaging {version}: 12.13 is the first that "
        "declares them",
        "Update oslo.messaging on this node, or set broker.queues to classic on all nodes",
    ),
    "broker-untested": (
        "RabbitMQ {version} is installed here, and om-agent was tested with 3.x and 4.x only",
        "Try it on one node first, and run om-agent verify there",
    ),
    "no-amqp-driver": (
        "the services here ({name} is one) use oslo.messaging {version}, and 15.0 removed its driver for AMQP 1.0",
        "Use scheme rabbit, or an image whose oslo.messaging is older than 15, for example Debian 12's",
    ),
    "not-a-file": ("this is {found}, not a regular file", "Move it away"),
    "hard-link": (
        "the file has {count} names (hard links), and what is written to one could not be taken back from the others",
        "Put a copy in its place (cp -p), under this name alone",
    ),
    "anybody-writes": (
        "everybody may write in this directory, and so put links in the way of what is written there",
        "Run chmod o-w on it, once you have seen that nothing strange is in it",
    ),
    "link-of-another": (
        "this symbolic link was made by the user with the id {owner}, who could lead what is written elsewhere",
        "Remove it, or create it again as root",
    ),
    "link-leads-out": (
        "this symbolic link leads out of {root}, so another system than the one there would be changed",
        "Make it a relative link, or a directory",
    ),
    "not-our-own": (
        "this directory is om-agent's own, and belongs to the user with the id {owner}",
        "Remove it with all that is in it, or chown it to the user that om-agent runs as, if you trust what is in it",
    ),
    "attribute": (
        "{what} has the attribute {name} (lsattr shows it), so not even root can {lacking}",
        "Run chattr -{flag} on it",
    ),
    "mounted-file": (
        "something is mounted on this file, so it cannot be replaced",
        "Unmount it; in a container, mount the directory instead of the file",
    ),
    "read-only-directory": (
        "the file system of this directory is mounted read-only",
        "Mount it so that it can be written (mount -o remount,rw)",
    ),
    "rejected-line": (
        "{reader} rejects this line, so the service that reads the file cannot start: {why}",
        "Correct the line, then run om-agent again",
    ),
    "address-misfit": (
        "{key} gives {service} addresses that the router's policy refuses: every call would time out",
        "Remove the line, or set it to {wanted}",
    ),
    "overridden": (
        "{unit} also reads this file, and {key} here overrides or adds to the value in {own}",
        "Remove the line, so that the service has the value that om-agent writes",
    ),
    "unread": (
        "{unit} reads the files that {variable} names here, and not {own}, in which om-agent writes",
        "Let {variable} name {own} too, or remove this line, so that the service has the values that om-agent writes",
    ),
    "uwsgi-threads": (
        "uWSGI serves {unit} with {count} threads, in which eventlet has patched threads: RPC over a router waits for "
        "ever in all but one",
        "Set threads = 1 in this line, raise processes instead, and restart {unit}",
    ),
    "own-transport": (
        "{key} gives {name} a second transport URL, which om-agent does not manage and which may be out of date",
        "Remove the line, or see that what it names is still there",
    ),
    "cannot-edit": (
        "this file cannot be edited safely at this line: {reader} would then read {why}",
        "Write the keys of messaging one to a line, without indentation, then run om-agent again",
    ),
    "paste-elsewhere": (
        "PasteDeploy uses {key} in section {section} instead of {ours} in the filter",
        "Remove this line; the notification URL and driver belong in the filter's own section",
    ),
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
    "router-hung": (
        "the router at {where} takes connections and does not answer",
        "Run systemctl restart {unit}; if that does not help, ss -ltnp says which program has the port",
    ),
    "router-closed": (
        "the router at {where} ended the connection before it was agreed upon",
        "Run ss -ltnp to see that it is the router, then journalctl -u {unit}; it may expect TLS where none is "
        "configured, or the other way round",
    ),
    "router-login": (
        "the router at {where} does not let om-agent in: its users are not those of the metadata",
        "Run om-agent apply, then om-agent verify",
    ),
    "router-certificate": (
        "the certificate that the router at {where} shows is expired, of another authority or for another name",
        "Run openssl x509 -noout -enddate -issuer -ext subjectAltName -in {file}",
    ),
    "stale-certificate": (
        "the router at {where} shows another certificate than the one that is in {file} by now",
        "Run om-agent drain, then systemctl restart {unit}",
    ),
    "stale-broker-certificate": (
        "the broker at {where} shows another certificate than the one that is in {file} by now",
        "Wait two minutes, or run rabbitmqctl eval 'ssl:clear_pem_cache().'",
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
    "watch-kills": (
        "the router hangs: on {times} connections in a row to {where} it said nothing for {seconds} s. It is killed,"
        " and systemd starts it again",
        "Read journalctl -u {unit} for what came before, and tell those who make the engine",
    ),
    "watch-cannot-kill": ("the router hangs and cannot be killed: {why}", "Run systemctl restart {unit}"),
    "watch-gives-up": (
        "the router hangs again, {times} kills within an hour did not fix that, and it is left alone for now",
        "Read journalctl -u {unit}, then run systemctl restart {unit}",
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
        "the routers here and on {name} do not accept each other: the one on {who} says that a certificate {why}; the "
        "two nodes differ in router.mesh_password, or a file of router.mesh_certificate_file is not good",
        "Run openssl x509 -noout -issuer -enddate -ext subjectAltName -in {file} on both; where the issuers differ, "
        "run om-agent apply on both with the same metadata",
    ),
    "peer-certificate": (
        "the router on {name} cannot be asked over TLS: {why}",
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
    "link-down": (
        "the connection from the router on {source} to the one on {name} is not open, and messages take another way",
        "Run om-agent verify on {source} and on {name}; see that a firewall lets the routers through",
    ),
    "addresses-unknown": (
        "the router on {name} did not learn {count} addresses of this node's router, and calls to them from there time "
        "out",
        "Run om-agent resync on this node",
    ),
    "mesh-minority": (
        "this node reaches the routers on {here} only, and those on {names} give no answer: either they are off, or "
        "the network between here and them is cut, and then services on the two sides cannot call each other",
        "Run om-agent verify on each of them; see that the network between them and this node works",
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
    "services-unseen": (
        "the connections and links of services could not be looked at: {why}",
        "Run om-agent verify again; if it stays so, the router has more links than the agent reads",
    ),
    "sessions-exhausted": (
        "these services have all {limit} {what} that the router allows a connection, so that from now on their calls "
        "and answers time out: {names}",
        "Restart them to get them going; then spread their peers over more processes (workers)",
    ),
    "sessions-near": (
        "these services have nearly all of the {limit} {what} that the router allows a connection: {names}",
        "Run more processes of them (workers), before the last one is taken and they stop",
    ),
    "connections-exhausted": (
        "the router has {count} connections, and router.max_connections allows {limit}: it refuses every other one",
        "Raise router.max_connections",
    ),
    "connections-near": (
        "the router has {count} connections, and router.max_connections allows {limit}",
        "Raise router.max_connections before they are used up",
    ),
    "service-stuck": (
        "{count} calls were delivered to these services, which took none of them in the last {seconds} s: {names}",
        "Run systemctl status on their units; a process that hangs, or has no worker left, needs a restart",
    ),
    "listener-slow": (
        "{count} notifications were delivered to these services, which settled none of them in the last {seconds} s: "
        "{names}",
        "See that they run and are not overloaded",
    ),
    "calls-stuck": (
        "{count} calls that services on this node sent were taken by nobody in the last {seconds} s, to: {names}",
        "Run om-agent verify on the nodes that serve these addresses",
    ),
    "unit-unconnected": (
        "{unit} runs and has no connection to {where}, which {file} names",
        "Run journalctl -u {unit} for why; if it was not restarted since the file changed, systemctl restart {unit}",
    ),
    "broker-down": (
        "the broker cannot be asked: {why}",
        "Run systemctl status {unit}, and journalctl -u {unit} for why",
    ),
    "broker-members": (
        "these members of the cluster do not run or do not answer: {names}",
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
    "broker-metrics": (
        "the broker's metrics at {where} cannot be read, so its queues and messages are not counted: {why}",
        "Run ss -ltnp to see which program has the port, and rabbitmq-plugins list rabbitmq_prometheus; then "
        "systemctl restart {unit}",
    ),
    "broker-majors": (
        "members of the cluster run different major versions of RabbitMQ ({versions}), as they may only during an "
        "upgrade",
        "Bring all of them to one version (doc/rabbitmq4.rst)",
    ),
    "broker-flags": (
        "these feature flags of the cluster are not enabled, and a newer RabbitMQ may refuse to start: {names}",
        "Run rabbitmqctl enable_feature_flag all once every member runs the same version, and before an upgrade",
    ),
    "queue-unfit": (
        "the queue {name} in the virtual host {vhost} is a {found} queue, and broker.queues is {wanted} ({count} such "
        "queues): services that declare it get 406 PRECONDITION_FAILED",
        "If it is a queue of OpenStack services, run rabbitmqctl delete_queue --vhost {vhost} {name} once it is empty; "
        "services declare it again (doc/rabbitmq4.rst)",
    ),
    "queue-members": (
        "the quorum queue {name} in the virtual host {vhost} has no copy on {names} ({count} such queues), so it may "
        "stand still or be lost when a broker ends",
        "Run rabbitmq-queues grow {first} all; RabbitMQ 3.13 and newer does so by itself within a minute or so",
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
    "no-cryptography": (
        "the Python module cryptography, which makes the routers' certificates for each other, is not installed",
        "Install python3-cryptography, or the module cryptography in om-agent's own Python",
    ),
    "no-ed25519": (
        "OpenSSL is restricted here (FIPS mode, for one) and makes no Ed25519 keys for the routers",
        "Set router.mesh_ca_file, router.mesh_certificate_file and router.mesh_key_file to certificates of your own",
    ),
    "no-user": ("there is no user or group {name} on this node", "Install the package that makes it ({what})"),
}
