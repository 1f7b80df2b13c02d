"""Kinds of findings at running messaging, each with the next command to run."""

from __future__ import annotations

from om_agent.kinds import kind

KINDS = {
    "config-differs": kind.Kind(
        "{count} things on disk differ from the metadata; the first one: {what}",
        "Run om-agent apply",
        verdict=kind.BROKEN,
    ),
    "router-down": kind.Kind(
        "no router listens at {where}",
        "Run systemctl status {unit}, and journalctl -u {unit} to see why",
        verdict=kind.BROKEN,
        heals=True,
        mesh=True,
        blocks=True,
    ),
    "router-hung": kind.Kind(
        "the router at {where} accepts connections and does not answer",
        "Run systemctl restart {unit}. If that does not help, run ss -ltnp to see which program has the port",
        verdict=kind.BROKEN,
        heals=True,
        mesh=True,
        blocks=True,
    ),
    "router-closed": kind.Kind(
        "the router at {where} closed the connection during the handshake",
        "Run ss -ltnp to see that it is the router, then journalctl -u {unit}; it may expect TLS where none is "
        "configured, or the other way round",
        verdict=kind.BROKEN,
        mesh=True,
        blocks=True,
    ),
    "router-login": kind.Kind(
        "the router at {where} rejects om-agent's login: its users differ from the metadata",
        "Run om-agent apply, then om-agent verify",
        verdict=kind.BROKEN,
        mesh=True,
        blocks=True,
    ),
    "router-certificate": kind.Kind(
        "the certificate that the router at {where} shows has expired, or is of another authority, or is for "
        "another name",
        "Run openssl x509 -noout -enddate -issuer -ext subjectAltName -in {file}",
        verdict=kind.BROKEN,
        mesh=True,
        blocks=True,
    ),
    "stale-certificate": kind.Kind(
        "the router at {where} still shows an old certificate, not the present one in {file}",
        "Run om-agent drain, then systemctl restart {unit}",
        verdict=kind.WORKS,
        mesh=True,
    ),
    "stale-broker-certificate": kind.Kind(
        "the broker at {where} still shows an old certificate, not the present one in {file}",
        "Wait two minutes, or run rabbitmqctl eval 'ssl:clear_pem_cache().'",
        verdict=kind.WORKS,
    ),
    "router-stranger": kind.Kind(
        "the program that listens at {where} calls itself {name}, which is not this node's router",
        "Run ss -ltnp to see which program has the port, stop it, and run systemctl restart {unit}",
        verdict=kind.BROKEN,
        mesh=True,
        blocks=True,
    ),
    "router-engine": kind.Kind(
        "{found} listens there, but {engine} is configured",
        "Stop it, and run systemctl restart {engine}",
        verdict=kind.BROKEN,
        mesh=True,
        blocks=True,
    ),
    "router-drained": kind.Kind(
        "the router was drained, so no client and no edge router can connect to it",
        "Run om-agent drain --undo, or restart the router's unit",
        verdict=kind.BROKEN,
        mesh=True,
        blocks=True,
    ),
    "router-drift": kind.Kind(
        "the running router differs from {file}; these changes would make it the same: {what}",
        "Run om-agent drain --undo, which makes the changes without a restart",
        verdict=kind.BROKEN,
        mesh=True,
    ),
    "watch-kills": kind.Kind(
        "the router hangs: on {times} connections in a row to {where} it sent nothing for {seconds} s. It is "
        "killed, and systemd starts it again",
        "Read what came before in journalctl -u {unit}, and report it to the makers of the engine",
    ),
    "watch-cannot-kill": kind.Kind(
        "the router hangs and cannot be killed: {why}",
        "Run systemctl restart {unit}",
    ),
    "watch-gives-up": kind.Kind(
        "the router hangs again after {times} kills within an hour, and is not killed again for now",
        "Read journalctl -u {unit}, then run systemctl restart {unit}",
    ),
    "peer-down": kind.Kind(
        "no router listens on {name}, so calls do not reach it",
        "Run om-agent status on {name}; if it is being started, wait and run om-agent verify again",
        verdict=kind.DEGRADED,
        heals=True,
        mesh=True,
    ),
    "peer-hung": kind.Kind(
        "the router on {name} does not answer",
        "Run om-agent verify on {name}",
        verdict=kind.DEGRADED,
        heals=True,
        mesh=True,
    ),
    "peer-login": kind.Kind(
        "the router on {name} rejects om-agent's login: it has the passwords of another deployment",
        "Run om-agent apply on {name} with the same metadata as here",
        verdict=kind.BROKEN,
        mesh=True,
    ),
    "peer-credentials": kind.Kind(
        "the routers here and on {name} do not accept each other: the router on {who} reports that a certificate "
        "{why}. The two nodes have different values of router.mesh_password, or a file of "
        "router.mesh_certificate_file is wrong",
        "Run openssl x509 -noout -issuer -enddate -ext subjectAltName -in {file} on both nodes. If the issuers "
        "differ, run om-agent apply on both with the same metadata",
        verdict=kind.BROKEN,
        heals=True,
        mesh=True,
    ),
    "peer-certificate": kind.Kind(
        "the router on {name} cannot be asked over TLS: {why}",
        "Run openssl x509 -noout -enddate -issuer -ext subjectAltName -in {file} on both nodes",
        verdict=kind.BROKEN,
        heals=True,
        mesh=True,
    ),
    "peer-unlinked": kind.Kind(
        "the router on {name} runs, but the mesh has no path to it",
        "Run om-agent verify on {name}; check that no firewall blocks the routers",
        verdict=kind.BROKEN,
        heals=True,
        mesh=True,
    ),
    "peer-partial": kind.Kind(
        "the router on {name} is reached, but does not itself reach {lacking}",
        "Run om-agent verify on {name}",
        verdict=kind.BROKEN,
        heals=True,
        mesh=True,
    ),
    "link-down": kind.Kind(
        "the connection from the router on {source} to the one on {name} is not open, and messages take another path",
        "Run om-agent verify on {source} and on {name}; check that no firewall blocks the routers",
        verdict=kind.DEGRADED,
        heals=True,
        mesh=True,
    ),
    "addresses-unknown": kind.Kind(
        "the router on {name} did not learn {count} addresses of this node's router; calls to them from there time out",
        "Run om-agent resync on this node",
        verdict=kind.BROKEN,
        heals=True,
        mesh=True,
    ),
    "mesh-minority": kind.Kind(
        "this node reaches only the routers on {here}, and those on {names} do not answer. Either they are off, or "
        "the network between here and them is cut; then services on the two sides cannot call each other",
        "Run om-agent verify on each of them; check the network between them and this node",
        verdict=kind.BROKEN,
        heals=True,
        mesh=True,
    ),
    "duplicate-id": kind.Kind(
        "two routers have the name {name} (seen at {where}), and the mesh routes to only one of them",
        "Run om-agent status on both nodes, and om-agent apply on the node with the wrong name",
        verdict=kind.BROKEN,
        mesh=True,
    ),
    "other-engine": kind.Kind(
        "the router {name} at {where} is {found}, which cannot exchange messages with {engine}",
        "Run om-agent plan on that node, and give all nodes the same router.engine",
        verdict=kind.BROKEN,
        mesh=True,
    ),
    "uplink-down": kind.Kind(
        "no connection to an interior router is open (tried: {names}), so only this node's own clients can reach "
        "each other",
        "Run om-agent verify on one of those nodes",
        verdict=kind.BROKEN,
        heals=True,
        mesh=True,
    ),
    "uplink-stranger": kind.Kind(
        "the uplink goes to {name} at {where}, which is no interior router of the metadata",
        "Run om-agent apply, then om-agent verify",
        verdict=kind.BROKEN,
        mesh=True,
    ),
    "services-unseen": kind.Kind(
        "the connections and links of services could not be read: {why}",
        "Run om-agent verify again; if this stays, the router has more links than the agent reads",
        verdict=kind.WORKS,
        mesh=True,
    ),
    "sessions-exhausted": kind.Kind(
        "these services have used all {limit} {what} that the router allows for one connection, so their calls and "
        "answers time out: {names}",
        "Restart them; then spread their work over more processes (workers)",
        verdict=kind.BROKEN,
        mesh=True,
    ),
    "sessions-near": kind.Kind(
        "these services have used nearly all of the {limit} {what} that the router allows for one connection: {names}",
        "Run more processes of them (workers) before they reach the limit and stop",
        verdict=kind.WORKS,
        mesh=True,
    ),
    "connections-exhausted": kind.Kind(
        "the router has {count} connections, and router.max_connections allows {limit}: it refuses every further "
        "connection",
        "Raise router.max_connections",
        verdict=kind.BROKEN,
        mesh=True,
    ),
    "connections-near": kind.Kind(
        "the router has {count} connections, and router.max_connections allows {limit}",
        "Raise router.max_connections before the limit is reached",
        verdict=kind.WORKS,
        mesh=True,
    ),
    "service-stuck": kind.Kind(
        "{count} calls were delivered to these services, which processed none of them in the last {seconds} s: {names}",
        "Run systemctl status on their units, and restart a process that hangs or has no free worker",
        verdict=kind.BROKEN,
        mesh=True,
    ),
    "listener-slow": kind.Kind(
        "{count} notifications were delivered to these services, which settled none of them in the last {seconds} "
        "s: {names}",
        "Check that they run and are not overloaded",
        verdict=kind.WORKS,
        mesh=True,
    ),
    "calls-stuck": kind.Kind(
        "{count} calls that services on this node sent were not accepted by any service in the last {seconds} s, "
        "to: {names}",
        "Run om-agent verify on the nodes that serve these addresses",
        verdict=kind.BROKEN,
        mesh=True,
    ),
    "unit-unconnected": kind.Kind(
        "{unit} runs and has no connection to {where}, which {file} names",
        "Run journalctl -u {unit} to see why; if it was not restarted after the file changed, run systemctl restart "
        "{unit}",
        verdict=kind.BROKEN,
        heals=True,
        half="rpc",
    ),
    "broker-down": kind.Kind(
        "the broker does not answer: {why}",
        "Run systemctl status {unit}, and journalctl -u {unit} to see why",
        verdict=kind.BROKEN,
        heals=True,
    ),
    "broker-members": kind.Kind(
        "these members of the cluster do not run or do not answer: {names}",
        "Run om-agent status on {node}",
        verdict=kind.DEGRADED,
        heals=True,
    ),
    "broker-stranger": kind.Kind(
        "the cluster has members that the metadata does not name: {names}",
        "Run rabbitmqctl forget_cluster_node {first} once it is stopped for good",
        verdict=kind.BROKEN,
    ),
    "broker-partition": kind.Kind(
        "the cluster is split: {names} lost contact with each other",
        "Run systemctl restart {unit} on the smaller side",
        verdict=kind.BROKEN,
    ),
    "broker-alarm": kind.Kind(
        "the broker has raised an alarm and accepts no messages: {what}",
        "Run rabbitmqctl status, and free disk space or memory on that node",
        verdict=kind.BROKEN,
    ),
    "broker-metrics": kind.Kind(
        "the broker's metrics at {where} cannot be read, so its queues and messages are not counted: {why}",
        "Run ss -ltnp to see which program has the port, and rabbitmq-plugins list rabbitmq_prometheus; then "
        "systemctl restart {unit}",
        verdict=kind.WORKS,
    ),
    "broker-majors": kind.Kind(
        "members of the cluster run different major versions of RabbitMQ ({versions}), which is allowed only during "
        "an upgrade",
        "Bring all of them to one version (doc/rabbitmq4.rst)",
        verdict=kind.DEGRADED,
    ),
    "broker-flags": kind.Kind(
        "these feature flags of the cluster are not enabled, and a newer RabbitMQ may refuse to start: {names}",
        "Run rabbitmqctl enable_feature_flag all once every member runs the same version, and before an upgrade",
        verdict=kind.WORKS,
    ),
    "queue-unfit": kind.Kind(
        "the queue {name} in the virtual host {vhost} is a {found} queue, but broker.queues is {wanted} ({count} "
        "such queues): services that declare it get 406 PRECONDITION_FAILED",
        "If it is a queue of OpenStack services, run rabbitmqctl delete_queue --vhost {vhost} {name} once it is "
        "empty; the services declare it again (doc/rabbitmq4.rst)",
        verdict=kind.WORKS,
    ),
    "queue-members": kind.Kind(
        "the quorum queue {name} in the virtual host {vhost} has no copy on {names} ({count} such queues), so it "
        "may stop or be lost when a broker stops",
        "Run rabbitmq-queues grow {first} all; RabbitMQ 3.13 and newer adds the copies itself within about a minute",
        verdict=kind.DEGRADED,
        heals=True,
    ),
    "broker-listener": kind.Kind(
        "the broker does not listen on port {port}",
        "Run systemctl restart {unit}",
        verdict=kind.BROKEN,
    ),
    "rpc-failed": kind.Kind(
        "a call with the transport URL of this file, to a server on {to}, got no answer: {why}",
        "Run om-agent status on both nodes",
        verdict=kind.BROKEN,
        heals=True,
        half="rpc",
    ),
    "notify-failed": kind.Kind(
        "a notification with the transport URL of this file, through {to}, did not arrive: {why}",
        "Run om-agent status on both nodes",
        verdict=kind.BROKEN,
        heals=True,
        half="notify",
    ),
    "probe-impossible": kind.Kind(
        "no test message can be sent: {why}",
        "Install oslo.messaging (older than 15 for amqp, with pyngus and python-qpid-proton) where om-agent runs",
        verdict=kind.BROKEN,
    ),
    "no-router": kind.Kind(
        "the node runs no router",
        "Run this on a node that runs a router",
    ),
    "no-probe": kind.Kind(
        "no service on this node has a configuration file, so no transport URL was tested",
        "Nothing needs to be done if this node has no services",
        verdict=kind.WORKS,
    ),
}
