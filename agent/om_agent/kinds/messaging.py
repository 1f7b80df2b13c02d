"""What messaging that runs can have wrong, and the next command to run."""

from __future__ import annotations

from om_agent.kinds import kind

KINDS = {
    "config-differs": kind.Kind(
        "{count} things on disk are not as the metadata says, the first: {what}",
        "Run om-agent apply",
        verdict=kind.BROKEN,
    ),
    "router-down": kind.Kind(
        "no router listens at {where}",
        "Run systemctl status {unit}, and journalctl -u {unit} for why",
        verdict=kind.BROKEN,
        heals=True,
        mesh=True,
        blocks=True,
    ),
    "router-hung": kind.Kind(
        "the router at {where} takes connections and does not answer",
        "Run systemctl restart {unit}; if that does not help, ss -ltnp says which program has the port",
        verdict=kind.BROKEN,
        heals=True,
        mesh=True,
        blocks=True,
    ),
    "router-closed": kind.Kind(
        "the router at {where} ended the connection before it was agreed upon",
        "Run ss -ltnp to see that it is the router, then journalctl -u {unit}; it may expect TLS where none is "
        "configured, or the other way round",
        verdict=kind.BROKEN,
        mesh=True,
        blocks=True,
    ),
    "router-login": kind.Kind(
        "the router at {where} does not let om-agent in: its users are not those of the metadata",
        "Run om-agent apply, then om-agent verify",
        verdict=kind.BROKEN,
        mesh=True,
        blocks=True,
    ),
    "router-certificate": kind.Kind(
        "the certificate that the router at {where} shows is expired, of another authority or for another name",
        "Run openssl x509 -noout -enddate -issuer -ext subjectAltName -in {file}",
        verdict=kind.BROKEN,
        mesh=True,
        blocks=True,
    ),
    "stale-certificate": kind.Kind(
        "the router at {where} shows another certificate than the one that is in {file} by now",
        "Run om-agent drain, then systemctl restart {unit}",
        verdict=kind.WORKS,
        mesh=True,
    ),
    "stale-broker-certificate": kind.Kind(
        "the broker at {where} shows another certificate than the one that is in {file} by now",
        "Wait two minutes, or run rabbitmqctl eval 'ssl:clear_pem_cache().'",
        verdict=kind.WORKS,
    ),
    "router-stranger": kind.Kind(
        "what listens at {where} calls itself {name}, which is not this node's router",
        "Run ss -ltnp to see which program has the port, end it, and run systemctl restart {unit}",
        verdict=kind.BROKEN,
        mesh=True,
        blocks=True,
    ),
    "router-engine": kind.Kind(
        "what listens is {found}, where {engine} is configured",
        "Stop it, and run systemctl restart {engine}",
        verdict=kind.BROKEN,
        mesh=True,
        blocks=True,
    ),
    "router-drained": kind.Kind(
        "the router was drained, so no client and no edge router can connect to it",
        "Run om-agent drain --undo, or systemctl restart its unit",
        verdict=kind.BROKEN,
        mesh=True,
        blocks=True,
    ),
    "router-drift": kind.Kind(
        "the running router is not as {file} says, this would make it so: {what}",
        "Run om-agent drain --undo, which makes it so without a restart",
        verdict=kind.BROKEN,
        mesh=True,
    ),
    "watch-kills": kind.Kind(
        "the router hangs: on {times} connections in a row to {where} it said nothing for {seconds} s. It is "
        "killed, and systemd starts it again",
        "Read journalctl -u {unit} for what came before, and tell those who make the engine",
    ),
    "watch-cannot-kill": kind.Kind(
        "the router hangs and cannot be killed: {why}",
        "Run systemctl restart {unit}",
    ),
    "watch-gives-up": kind.Kind(
        "the router hangs again, {times} kills within an hour did not fix that, and it is left alone for now",
        "Read journalctl -u {unit}, then run systemctl restart {unit}",
    ),
    "peer-down": kind.Kind(
        "no router listens on {name}, so it is not reached",
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
        "the router on {name} does not let om-agent in: it has passwords of another deployment",
        "Run om-agent apply on {name} with the same metadata as here",
        verdict=kind.BROKEN,
        mesh=True,
    ),
    "peer-credentials": kind.Kind(
        "the routers here and on {name} do not accept each other: the one on {who} says that a certificate {why}; "
        "the two nodes differ in router.mesh_password, or a file of router.mesh_certificate_file is not good",
        "Run openssl x509 -noout -issuer -enddate -ext subjectAltName -in {file} on both; where the issuers "
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
        "the router on {name} runs, and the mesh has no way to it",
        "Run om-agent verify on {name}; see that a firewall lets the routers through",
        verdict=kind.BROKEN,
        heals=True,
        mesh=True,
    ),
    "peer-partial": kind.Kind(
        "the router on {name} is reached, but does not reach {lacking} itself",
        "Run om-agent verify on {name}",
        verdict=kind.BROKEN,
        heals=True,
        mesh=True,
    ),
    "link-down": kind.Kind(
        "the connection from the router on {source} to the one on {name} is not open, and messages take another way",
        "Run om-agent verify on {source} and on {name}; see that a firewall lets the routers through",
        verdict=kind.DEGRADED,
        heals=True,
        mesh=True,
    ),
    "addresses-unknown": kind.Kind(
        "the router on {name} did not learn {count} addresses of this node's router, and calls to them from there "
        "time out",
        "Run om-agent resync on this node",
        verdict=kind.BROKEN,
        heals=True,
        mesh=True,
    ),
    "mesh-minority": kind.Kind(
        "this node reaches the routers on {here} only, and those on {names} give no answer: either they are off, "
        "or the network between here and them is cut, and then services on the two sides cannot call each other",
        "Run om-agent verify on each of them; see that the network between them and this node works",
        verdict=kind.BROKEN,
        heals=True,
        mesh=True,
    ),
    "duplicate-id": kind.Kind(
        "two routers are called {name} (seen at {where}), and the mesh routes to one of them only",
        "Run om-agent status on both nodes, and om-agent apply on the one that has the wrong name",
        verdict=kind.BROKEN,
        mesh=True,
    ),
    "other-engine": kind.Kind(
        "the router {name} at {where} is {found}, and it does not route together with {engine}",
        "Run om-agent plan on that node, and give all nodes one router.engine",
        verdict=kind.BROKEN,
        mesh=True,
    ),
    "uplink-down": kind.Kind(
        "no connection to an interior router is open (tried: {names}): only this node's own clients are reached",
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
        "the connections and links of services could not be looked at: {why}",
        "Run om-agent verify again; if it stays so, the router has more links than the agent reads",
        verdict=kind.WORKS,
        mesh=True,
    ),
    "sessions-exhausted": kind.Kind(
        "these services have all {limit} {what} that the router allows a connection, so that from now on their "
        "calls and answers time out: {names}",
        "Restart them to get them going; then spread their peers over more processes (workers)",
        verdict=kind.BROKEN,
        mesh=True,
    ),
    "sessions-near": kind.Kind(
        "these services have nearly all of the {limit} {what} that the router allows a connection: {names}",
        "Run more processes of them (workers), before the last one is taken and they stop",
        verdict=kind.WORKS,
        mesh=True,
    ),
    "connections-exhausted": kind.Kind(
        "the router has {count} connections, and router.max_connections allows {limit}: it refuses every other one",
        "Raise router.max_connections",
        verdict=kind.BROKEN,
        mesh=True,
    ),
    "connections-near": kind.Kind(
        "the router has {count} connections, and router.max_connections allows {limit}",
        "Raise router.max_connections before they are used up",
        verdict=kind.WORKS,
        mesh=True,
    ),
    "service-stuck": kind.Kind(
        "{count} calls were delivered to these services, which took none of them in the last {seconds} s: {names}",
        "Run systemctl status on their units; a process that hangs, or has no worker left, needs a restart",
        verdict=kind.BROKEN,
        mesh=True,
    ),
    "listener-slow": kind.Kind(
        "{count} notifications were delivered to these services, which settled none of them in the last {seconds} "
        "s: {names}",
        "See that they run and are not overloaded",
        verdict=kind.WORKS,
        mesh=True,
    ),
    "calls-stuck": kind.Kind(
        "{count} calls that services on this node sent were taken by nobody in the last {seconds} s, to: {names}",
        "Run om-agent verify on the nodes that serve these addresses",
        verdict=kind.BROKEN,
        mesh=True,
    ),
    "unit-unconnected": kind.Kind(
        "{unit} runs and has no connection to {where}, which {file} names",
        "Run journalctl -u {unit} for why; if it was not restarted since the file changed, systemctl restart {unit}",
        verdict=kind.BROKEN,
        heals=True,
        half="rpc",
    ),
    "broker-down": kind.Kind(
        "the broker cannot be asked: {why}",
        "Run systemctl status {unit}, and journalctl -u {unit} for why",
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
        "the cluster is split: {names} lost sight of each other",
        "Run systemctl restart {unit} on the smaller side",
        verdict=kind.BROKEN,
    ),
    "broker-alarm": kind.Kind(
        "the broker has raised an alarm and stopped taking messages: {what}",
        "Run rabbitmqctl status, and free disk or memory on that node",
        verdict=kind.BROKEN,
    ),
    "broker-metrics": kind.Kind(
        "the broker's metrics at {where} cannot be read, so its queues and messages are not counted: {why}",
        "Run ss -ltnp to see which program has the port, and rabbitmq-plugins list rabbitmq_prometheus; then "
        "systemctl restart {unit}",
        verdict=kind.WORKS,
    ),
    "broker-majors": kind.Kind(
        "members of the cluster run different major versions of RabbitMQ ({versions}), as they may only during an "
        "upgrade",
        "Bring all of them to one version (doc/rabbitmq4.rst)",
        verdict=kind.DEGRADED,
    ),
    "broker-flags": kind.Kind(
        "these feature flags of the cluster are not enabled, and a newer RabbitMQ may refuse to start: {names}",
        "Run rabbitmqctl enable_feature_flag all once every member runs the same version, and before an upgrade",
        verdict=kind.WORKS,
    ),
    "queue-unfit": kind.Kind(
        "the queue {name} in the virtual host {vhost} is a {found} queue, and broker.queues is {wanted} ({count} "
        "such queues): services that declare it get 406 PRECONDITION_FAILED",
        "If it is a queue of OpenStack services, run rabbitmqctl delete_queue --vhost {vhost} {name} once it is "
        "empty; services declare it again (doc/rabbitmq4.rst)",
        verdict=kind.WORKS,
    ),
    "queue-members": kind.Kind(
        "the quorum queue {name} in the virtual host {vhost} has no copy on {names} ({count} such queues), so it "
        "may stand still or be lost when a broker ends",
        "Run rabbitmq-queues grow {first} all; RabbitMQ 3.13 and newer does so by itself within a minute or so",
        verdict=kind.DEGRADED,
        heals=True,
    ),
    "broker-listener": kind.Kind(
        "the broker does not listen on port {port}",
        "Run systemctl restart {unit}",
        verdict=kind.BROKEN,
    ),
    "rpc-failed": kind.Kind(
        "a call with the transport URL of this file, to a server on {to}, did not come back: {why}",
        "Run om-agent status on both nodes",
        verdict=kind.BROKEN,
        heals=True,
        half="rpc",
    ),
    "notify-failed": kind.Kind(
        "a notification with the transport URL of this file, by way of {to}, did not come back: {why}",
        "Run om-agent status on both nodes",
        verdict=kind.BROKEN,
        heals=True,
        half="notify",
    ),
    "probe-impossible": kind.Kind(
        "no message can be sent to try it out: {why}",
        "Install oslo.messaging (older than 15 for amqp, with pyngus and python-qpid-proton) where om-agent runs",
        verdict=kind.BROKEN,
    ),
    "no-router": kind.Kind(
        "the node runs no router",
        "Run this on a node that runs a router",
    ),
    "no-probe": kind.Kind(
        "no service on this node has a configuration file, so no transport URL was tried out",
        "Nothing needs doing where none is expected",
        verdict=kind.WORKS,
    ),
}
