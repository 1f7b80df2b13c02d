"""Kinds of problems with the node, its services, its tools and its files."""

from __future__ import annotations

from om_agent import errors
from om_agent.kinds import kind

KINDS = {
    # -- services and the node
    "unknown-service": kind.Kind(
        "{name} is not in the service catalogue",
        "Use names from: {known}",
        reads=(),
    ),
    "mixes-halves": kind.Kind(
        "{name} mixes up the two backends whatever is configured: {caution}",
        "No configuration prevents it: do without that part of {name}, or give both halves the same backend",
        severity=errors.WARNING,
    ),
    "absent-service": kind.Kind(
        "the metadata names {name}, but its directory {where} does not exist",
        "Install {name}, or remove it from services",
    ),
    "queues-mirrored": kind.Kind(
        "RabbitMQ {version} is installed here. RabbitMQ has no mirrored queues since 4.0: it does not start with a "
        "policy for them",
        "Set broker.queues to quorum, or to classic for queues without copies (doc/rabbitmq4.rst)",
    ),
    "queues-too-old": kind.Kind(
        "RabbitMQ {version} is installed here, and quorum queues need 3.8 or newer",
        "Set broker.queues to mirrored, or install a newer RabbitMQ",
    ),
    "queues-unknown": kind.Kind(
        "RabbitMQ is not installed on this node, so the agent cannot check whether it has mirrored queues: 4.0 and "
        "newer have none",
        "Set broker.queues to quorum where the brokers will be RabbitMQ 4",
        severity=errors.WARNING,
    ),
    "quorum-unknown": kind.Kind(
        "broker.queues asks for quorum queues, and the services here use oslo.messaging {version}: only 12.13 and "
        "newer can declare them",
        "Update oslo.messaging on this node, or set broker.queues to classic on all nodes",
        severity=errors.WARNING,
    ),
    "broker-untested": kind.Kind(
        "RabbitMQ {version} is installed here, and om-agent was tested only with 3.x and 4.x",
        "Test it on one node first, and run om-agent verify there",
        severity=errors.WARNING,
    ),
    "no-amqp-driver": kind.Kind(
        "the services here ({name} is one) use oslo.messaging {version}, and 15.0 removed its driver for AMQP 1.0",
        "Use scheme rabbit, or an image whose oslo.messaging is older than 15, for example Debian 12's",
    ),
    "not-a-file": kind.Kind(
        "this is {found}, not a regular file",
        "Move it away",
    ),
    "hard-link": kind.Kind(
        "the file has {count} names (hard links), and the agent could not undo a change under the other names",
        "Put a copy in its place (cp -p) that has only this name",
    ),
    "damaged-state": kind.Kind(
        "the agent's record of this node's last apply cannot be read, so it does not know which router or broker "
        "ran here",
        "Move the file away and run om-agent apply. Then stop by hand the router or broker that this node no longer "
        "runs",
    ),
    "large-file": kind.Kind(
        "the file is larger than {limit} MiB, which no service's configuration is",
        "Find out what fills it, and put the service's configuration in its place",
    ),
    "anybody-writes": kind.Kind(
        "every user may write in this directory, and so could put links in place of the files that the agent writes",
        "Check that nothing strange is in it, then run chmod o-w on it",
    ),
    "link-of-another": kind.Kind(
        "this symbolic link belongs to the user with the id {owner}, who could redirect what the agent writes",
        "Remove it, or create it again as root",
    ),
    "link-leads-out": kind.Kind(
        "this symbolic link leads out of {root}, so the agent would change another system than the one there",
        "Make it a relative link, or a directory",
    ),
    "not-our-own": kind.Kind(
        "this directory is om-agent's own, but it belongs to the user with the id {owner}",
        "Remove it with everything in it. If you trust its content, chown it to the user that om-agent runs as",
    ),
    "attribute": kind.Kind(
        "{what} has the attribute {name} (lsattr shows it), so not even root can {lacking}",
        "Run chattr -{flag} on it",
    ),
    "mounted-file": kind.Kind(
        "something is mounted on this file, so it cannot be replaced",
        "Unmount it; in a container, mount the directory instead of the file",
    ),
    "read-only-directory": kind.Kind(
        "the file system of this directory is mounted read-only",
        "Mount it writable (mount -o remount,rw)",
    ),
    "rejected-line": kind.Kind(
        "{reader} rejects this line, so the service that reads the file cannot start: {why}",
        "Correct the line, then run om-agent again",
        verdict=kind.BROKEN,
    ),
    "address-misfit": kind.Kind(
        "{key} gives {service} addresses that the router's policy refuses: every call times out",
        "Remove the line, or set it to {wanted}",
        verdict=kind.BROKEN,
        mesh=True,
        blocks=True,
    ),
    "overridden": kind.Kind(
        "{unit} also reads this file, and {key} here overrides or adds to the value in {own}",
        "Remove the line, so that the service has the value that om-agent writes",
        severity=errors.WARNING,
        verdict=kind.BROKEN,
    ),
    "unread": kind.Kind(
        "{unit} reads the files that {variable} names here, and does not read {own}, where om-agent writes",
        "Add {own} to {variable}, or remove this line, so that the service has the values that om-agent writes",
        severity=errors.WARNING,
        verdict=kind.BROKEN,
    ),
    "uwsgi-threads": kind.Kind(
        "uWSGI serves {unit} with {count} threads, and eventlet has patched threads in it: RPC over a router waits "
        "for ever in all threads but one",
        "Set threads = 1 in this line, raise processes instead, and restart {unit}",
        severity=errors.WARNING,
        verdict=kind.BROKEN,
    ),
    "own-transport": kind.Kind(
        "{key} gives {name} a second transport URL, which om-agent does not manage and which may be out of date",
        "Remove the line, or check that the URL is still right",
        severity=errors.WARNING,
        verdict=kind.WORKS,
    ),
    "cannot-edit": kind.Kind(
        "the agent cannot edit this file safely at this line: {reader} would then read {why}",
        "Write each option of messaging on one line, without indentation, then run om-agent again",
    ),
    "paste-elsewhere": kind.Kind(
        "PasteDeploy uses {key} in section {section} instead of {ours} in the filter",
        "Remove this line; the notification URL and driver belong in the filter's own section",
    ),
    "read-only": kind.Kind(
        "the file cannot be written by this user",
        "Run om-agent as root, or make the file writable",
    ),
    "no-section": kind.Kind(
        "the metadata names {name}, but there is no section {where}",
        "Add the filter to the pipeline, or remove {name} from services",
    ),
    # -- rendered router file
    "router-entity": kind.Kind(
        "the router configuration has {count} router entities",
        "Report this: it is a defect of om-agent",
    ),
    "router-unknown": kind.Kind(
        "the router configuration has the name {name}, which the router does not know",
        "Report this: it is a defect of om-agent",
    ),
    "router-no-profile": kind.Kind(
        "the sslProfile {name} is used but not defined",
        "Report this: it is a defect of om-agent",
    ),
    "router-duplicate": kind.Kind(
        "{name} is defined twice",
        "Report this: it is a defect of om-agent",
    ),
    "missing-file": kind.Kind(
        "this file does not exist, and it is needed for {what}",
        "Put it there, or correct {key}",
    ),
    # -- tools
    "no-puppet": kind.Kind(
        "puppet is not installed",
        "Install puppet-agent, or put its directory on PATH",
    ),
    "no-module": kind.Kind(
        "the puppet module {name} is not in any of these directories: {paths}",
        "Install it (Debian: puppet-module-puppetlabs-{name})",
    ),
    "no-saslpasswd": kind.Kind(
        "saslpasswd2 is not installed",
        "Install sasl2-bin (Debian) or cyrus-sasl-lib (Red Hat)",
    ),
    "no-proton": kind.Kind(
        "the Python module proton, which talks to routers, is not installed",
        "Install python3-qpid-proton, or the module python-qpid-proton in om-agent's own Python",
        verdict=kind.BROKEN,
        mesh=True,
    ),
    "no-cryptography": kind.Kind(
        "the Python module cryptography, which makes the routers' certificates for each other, is not installed",
        "Install python3-cryptography, or the module cryptography in om-agent's own Python",
    ),
    "no-jinja2": kind.Kind(
        "the Python module jinja2, which makes configuration files from templates, is not installed",
        "Install python3-jinja2, or the module Jinja2 in om-agent's own Python",
    ),
    "no-ed25519": kind.Kind(
        "OpenSSL is restricted here (for example by FIPS mode) and makes no Ed25519 keys for the routers",
        "Set router.mesh_ca_file, router.mesh_certificate_file and router.mesh_key_file to certificates of your own",
    ),
    "no-user": kind.Kind(
        "there is no user or group {name} on this node",
        "Install the package that creates it ({what})",
    ),
}
