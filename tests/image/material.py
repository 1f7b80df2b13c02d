"""What the tests give a node: metadata, and programs for the Python that its services use; those print JSON."""

from __future__ import annotations

import typing

NAME = "overcloud-controller-0"
ADDRESS = "127.0.0.11"


def metadata(**changes: typing.Any) -> dict[str, typing.Any]:
    """RPC over the embedded router, notifications over RabbitMQ, one controller."""
    messaging: dict[str, typing.Any] = {
        "rpc": {"scheme": "amqp", "username": "rpc", "password": "rpc-secret"},
        "notify": {"scheme": "rabbit", "username": "notify", "password": "notify-secret"},
        "router": {"engine": "embedded"},
        "broker": {"erlang_cookie": "image-test-cookie"},  # else it is made from the password of RPC
        "nodes": [{"name": NAME, "address": ADDRESS}],
    }
    return {"oslo_messaging": {**messaging, **changes}}


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
client = oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(topic="om-image-test"), timeout=30) \\
    if hasattr(oslo_messaging, "get_rpc_client") \\
    else oslo_messaging.RPCClient(transport, oslo_messaging.Target(topic="om-image-test"), timeout=30)
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
event.wait(30)
print(json.dumps(got))
sys.stdout.flush()
os._exit(0)
"""

# Arguments: address, port, user, password. Prints deliveries by address.
ADDRESSES = """
import json, sys
from proton import Message
from proton.utils import BlockingConnection
host, port, user, password = sys.argv[1:]
connection = BlockingConnection(f"amqp://{host}:{port}", timeout=20, user=f"{user}@overcloud", password=password,
                                allowed_mechs="PLAIN", allow_insecure_mechs=True, sasl_enabled=True)
receiver = connection.create_receiver(None, dynamic=True)
sender = connection.create_sender("$management")
sender.send(Message(address="$management", reply_to=receiver.link.remote_source.address, correlation_id=1,
                    properties={"operation": "QUERY", "type": "org.amqp.management", "name": "self",
                                "entityType": "org.apache.qpid.dispatch.router.address"},
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
deadline = time.monotonic() + 90
while True:
    try:
        template = {"heat_template_version": "2018-08-31", "resources": {"text": {"type": "OS::Heat::RandomString"}}}
        made = ask(base, {"stack_name": name, "template": template, "timeout_mins": 2})
        break
    except Exception as e:
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
