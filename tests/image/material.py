"""Material for a node: metadata, and programs that print JSON and run in the services' Python."""

from __future__ import annotations

import os
import typing

from om_agent import model

from testbed import image

NAME = "overcloud-controller-0"
ADDRESS = "127.0.0.11"
# The release of the image, and whether its services can use the router. Where they cannot, they use RabbitMQ for both.
RELEASE = image.RELEASE
DUAL = "overcloud-messaging" in image.MESSAGING[RELEASE]
# The router that the image was built with.
ENGINE = model.Engine(os.environ.get("DIB_DISPATCH_ROUTER_ENGINE") or "embedded")
WHERE = ENGINE.record

ROUTER, BROKER, APPLY = f"{WHERE.unit}.service", "rabbitmq-server.service", "om-agent-apply.service"
WATCH = f"om-router-watch@{WHERE.unit}.service"
BACKENDS = (ROUTER, BROKER) if DUAL else (BROKER,)
SERVICES = ("heat-api.service", "heat-engine.service", "glance-api.service")

# path: (mode, owner, group) of every file that is wholly the agent's, and of the services' that it has keys in.
COMMON_FILES = {
    "/etc/om-agent/hiera.yaml": ("0600", "root", "root"),
    "/etc/om-agent/hieradata/messaging.json": ("0600", "root", "root"),
}
BROKER_FILES = {
    "/etc/rabbitmq/definitions.json": ("0640", "root", "rabbitmq"),
    "/etc/rabbitmq/enabled_plugins": ("0644", "rabbitmq", "rabbitmq"),
    "/etc/rabbitmq/erl_inetrc": ("0644", "root", "root"),
    "/etc/rabbitmq/rabbitmq-env.conf": ("0644", "root", "root"),
    "/etc/rabbitmq/rabbitmq.conf": ("0644", "root", "root"),
    "/var/lib/rabbitmq/.erlang.cookie": ("0400", "rabbitmq", "rabbitmq"),
}
SERVICE_FILES = {
    "/etc/glance/glance-api.conf": ("0640", "root", "glance"),
    "/etc/heat/heat.conf": ("0640", "root", "heat"),
}
ROUTER_FILES = {
    WHERE.config: ("0640", "root", WHERE.user),
    WHERE.sasl_config: ("0644", "root", "root"),
    WHERE.sasl_database: ("0640", "root", WHERE.user),
}
if ENGINE is not model.Engine.EMBEDDED:  # which has no mesh
    ROUTER_FILES |= {WHERE.mesh(name): ("0644", "root", "root") for name in ("ca", "certificate")}
    ROUTER_FILES[WHERE.mesh("key")] = ("0640", "root", WHERE.user)
FILES = {**COMMON_FILES, **(ROUTER_FILES if DUAL else {}), **BROKER_FILES, **SERVICE_FILES}
# How services speak RPC.
RPC_SCHEME = "amqp" if DUAL else "rabbit"
RPC_URL = (
    f"amqp://rpc%40overcloud:rpc-secret@{ADDRESS}:31459/?ssl=0"
    if DUAL
    else f"rabbit://rpc:rpc-secret@{ADDRESS}:5672/?ssl=0"
)


def rpc(**changes: typing.Any) -> dict[str, typing.Any]:
    """The metadata of RPC, as the image's services can speak it."""
    return {"scheme": RPC_SCHEME, "tls": False, "username": "rpc", "password": "rpc-secret", **changes}


def metadata(**changes: typing.Any) -> dict[str, typing.Any]:
    """One controller: RPC over the router where services can, and notifications over RabbitMQ."""
    if DUAL:
        return dual(**changes)
    same = {"rpc": rpc(), "broker": {"erlang_cookie": "image-test-cookie"}}
    notify = {"scheme": "rabbit", "username": "notify", "password": "notify-secret"}
    return {"oslo_messaging": {**same, "notify": notify, "nodes": [{"name": NAME, "address": ADDRESS}], **changes}}


def dual(**changes: typing.Any) -> dict[str, typing.Any]:
    """RPC over the router, notifications over RabbitMQ, one controller."""
    messaging: dict[str, typing.Any] = {
        "rpc": {"scheme": "amqp", "tls": False, "username": "rpc", "password": "rpc-secret"},
        "notify": {"scheme": "rabbit", "username": "notify", "password": "notify-secret"},
        "router": {"engine": ENGINE.value, "mesh_password": "mesh-secret", "admin_password": "admin-secret"},
        "broker": {"erlang_cookie": "image-test-cookie"},
        "nodes": [{"name": NAME, "address": ADDRESS}],
    }
    return {"oslo_messaging": {**messaging, **changes}}


# The virtual machine is told its name, which it does not have.
QEMU = metadata(nodes=[{"name": "qemu", "address": ADDRESS}], node="qemu")

# Arguments: a service's configuration file, a number of calls.
RPC = """
import json, sys, threading
import oslo_messaging
from oslo_config import cfg
conf = cfg.CONF  # which some of oslo.messaging uses, whatever it is given
conf(["--config-file", sys.argv[1]], project="om-image-test")
transport = oslo_messaging.get_rpc_transport(conf)
class Endpoint:
    def echo(self, context, value):
        return value
target = oslo_messaging.Target(topic="om-image-test", server="here")
server = oslo_messaging.get_rpc_server(transport, target, [Endpoint()], executor="threading")
server.start()
client = oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(topic="om-image-test"), timeout=60) \\
    if hasattr(oslo_messaging, "get_rpc_client") \\
    else oslo_messaging.RPCClient(transport, oslo_messaging.Target(topic="om-image-test"), timeout=60)
answers = [client.call({}, "echo", value=i) for i in range(int(sys.argv[2]))]
print(json.dumps({"url": conf.transport_url.split(":")[0], "answers": answers}))
sys.stdout.flush()
import os
os._exit(0)
"""

# Arguments: a service's configuration file.
NOTIFY = """
import json, os, sys, threading
import oslo_messaging
from oslo_config import cfg
conf = cfg.CONF  # which some of oslo.messaging uses, whatever it is given
conf(["--config-file", sys.argv[1]], project="om-image-test")
transport = oslo_messaging.get_notification_transport(conf)
got, event = [], threading.Event()
class Endpoint:
    def info(self, context, publisher, kind, payload, metadata):
        got.append([publisher, kind, payload])
        event.set()
target = oslo_messaging.Target(topic="om-image-test", exchange="om-image-test")
listener = oslo_messaging.get_notification_listener(transport, [target], [Endpoint()], executor="threading")
listener.start()
conf.set_override("control_exchange", "om-image-test")
notifier = oslo_messaging.Notifier(transport, "here", driver="messagingv2", topics=["om-image-test"])
notifier.info({}, "om.image.test", {"n": 1})
event.wait(60)
print(json.dumps(got))
sys.stdout.flush()
os._exit(0)
"""

# Arguments: RabbitMQ's URL, a queue. Takes everything out of it and prints the types of the events.
EVENTS = """
import json, sys
import kombu
with kombu.Connection(sys.argv[1]) as connection:
    channel, found = connection.channel(), []
    while True:
        message = channel.basic_get(sys.argv[2], no_ack=True)
        if message is None:
            break
        body = json.loads(message.body)
        found.append(json.loads(body["oslo.message"])["event_type"])
print(json.dumps(found))
"""

# Arguments: address, port, user, password, the router's word for itself. Prints deliveries by address.
ADDRESSES = """
import json, sys
from proton import Message
from proton.utils import BlockingConnection
host, port, user, password, product = sys.argv[1:]
connection = BlockingConnection(f"amqp://{host}:{port}", timeout=20, user=f"{user}@overcloud", password=password,
                                allowed_mechs="PLAIN", allow_insecure_mechs=True, sasl_enabled=True)
receiver = connection.create_receiver(None, dynamic=True)
sender = connection.create_sender("$management")
sender.send(Message(address="$management", reply_to=receiver.link.remote_source.address, correlation_id=1,
                    properties={"operation": "QUERY", "type": "org.amqp.management", "name": "self",
                                "entityType": product + ".router.address"},
                    body={"attributeNames": ["name", "deliveriesIngress", "deliveriesEgress"]}))
body = receiver.receive(20).body
print(json.dumps({row[0]: row[1:] for row in body["results"]}))
connection.close()
"""

# Creates a stack through the API and waits for it; arguments: its name.
STACK = """
import json, sys, time, urllib.request
name = sys.argv[1]
headers = {"X-Auth-User": "admin", "X-Auth-Key": "x", "X-Auth-Token": "x", "Content-Type": "application/json"}
base = "http://127.0.0.1:8004/v1/admin/stacks"
def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        return json.load(answer)
deadline = time.monotonic() + 240
while True:
    try:
        template = {"heat_template_version": "2018-08-31", "resources": {"text": {"type": "OS::Heat::RandomString"}}}
        made = ask(base, {"stack_name": name, "template": template, "timeout_mins": 10})
        break
    except Exception as e:
        if getattr(e, "code", 0) == 409:  # made by a request whose answer came too late: the machine was busy
            made = {"stack": ask(f"{base}?name={name}")["stacks"][0]}
            break
        if time.monotonic() > deadline:
            said = e.read().decode() if hasattr(e, "read") else e
            raise SystemExit(f"no stack: {said}")
        time.sleep(1)
url = f"{base}/{name}/{made['stack']['id']}"
while True:
    stack = ask(url)["stack"]
    if stack["stack_status"] != "CREATE_IN_PROGRESS" or time.monotonic() > deadline:
        break
    time.sleep(0.5)
print(json.dumps({"status": stack["stack_status"], "reason": stack["stack_status_reason"]}))
"""

PRODUCT = "io.skupper.router" if ENGINE is model.Engine.SKROUTERD else "org.apache.qpid.dispatch"
