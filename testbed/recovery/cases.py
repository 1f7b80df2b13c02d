"""The failures. Each is a generator: it acts, then yields the seconds to wait until its next action.

A failure that needs preparation yields `NOW` at the moment of the failure.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import pathlib
import signal
import time

from om_agent import model
from om_agent.plan import authority

import testbed.recovery.cloud
from testbed import processes, routers, workers

Cloud = testbed.recovery.cloud.Cloud
Steps = collections.abc.Iterator[float]
NOW = 0.0
_BURST = 3000
_CROWD = 300
AMQP, RABBIT = model.Scheme.AMQP, model.Scheme.RABBIT


@dataclasses.dataclass(frozen=True)
class Case:
    """One failure.

    :param backends: the backends of RPC with which the failure is tested.
    :param tls: whether routers and clients use TLS.
    """

    name: str
    what: str
    backends: tuple[model.Scheme, ...]
    steps: collections.abc.Callable[[Cloud], Steps]
    tls: bool = False


def kill_interior(cloud: Cloud) -> Steps:
    """A controller's router dies; systemd starts it again."""
    yield from _kill(cloud.routers["ctl-2"])


def kill_edge(cloud: Cloud) -> Steps:
    """A compute's router dies; systemd starts it again."""
    yield from _kill(cloud.routers["cmp-1"])


def _kill(router: routers.Router) -> Steps:
    router.kill()
    yield 1.0
    router.start()


def kill_broker(cloud: Cloud) -> Steps:
    """A broker dies; systemd starts it again."""
    cloud.kill_broker("ctl-2")
    yield 1.0
    cloud.brokers["ctl-2"].start()


def stop_router(cloud: Cloud) -> Steps:
    """A controller's router hangs."""
    yield from _stop(cloud.routers["ctl-2"].process)


def stop_broker(cloud: Cloud) -> Steps:
    """A broker hangs."""
    yield from _stop(cloud.brokers["ctl-2"].process)


def _stop(process: processes.Process | None) -> Steps:
    if process:
        process.signal(signal.SIGSTOP)
        yield 20.0
        process.signal(signal.SIGCONT)


def cut_link(cloud: Cloud) -> Steps:
    """Two controllers cannot reach each other."""
    cloud.net.cut(["ctl-1"], ["ctl-2"])
    yield 15.0
    cloud.net.heal()


def cut_site(cloud: Cloud) -> Steps:
    """A controller and a compute can reach only each other."""
    inside = ("ctl-3", "cmp-2")
    cloud.net.cut(inside, [name for name in cloud.hosts if name not in inside])
    yield 20.0
    cloud.net.heal()


def rolling(cloud: Cloud) -> Steps:
    """Every router is drained, restarted and waited for, one after the other."""
    for name, router in cloud.routers.items():
        cloud.agent(name, "drain", "--timeout", "10")
        if router.process:
            cloud.supervisor.end(router.process)
        yield 0.5
        router.start()
        deadline = time.monotonic() + 20
        while not cloud.is_well() and time.monotonic() < deadline:
            yield 0.3


def rolling_brokers(cloud: Cloud) -> Steps:
    """Every broker is restarted and waited for, one after the other."""
    for broker in cloud.brokers.values():
        if broker.process:
            cloud.supervisor.end(broker.process, grace=20)
        yield 0.5
        broker.start()
        deadline = time.monotonic() + 40
        while not cloud.is_well() and time.monotonic() < deadline:
            yield 0.3


def fill_disk(cloud: Cloud) -> Steps:
    """One broker's disk is full, but for less than RabbitMQ's limit of 50 MB."""
    filler = testbed.recovery.cloud.fill(cloud.disk, 20 << 20)
    yield 20.0
    filler.unlink()


def wrong_password(cloud: Cloud) -> Steps:
    """A controller's router restarts with a mesh password that differs from its peers'."""
    router = cloud.routers["ctl-2"]
    pair = authority.issue(model.Secret("wrong"), router.host.node)
    wrong_texts = {"ca": pair.ca, "certificate": pair.certificate, "key": pair.key.reveal()}
    paths = {name: router.host.path(cloud.engine.record.mesh(name)) for name in wrong_texts}
    right_texts = {name: path.read_text() for name, path in paths.items()}
    _write(paths, wrong_texts)
    yield from _kill(router)
    yield 14.0
    _write(paths, right_texts)
    yield from _kill(router)


def _write(paths: dict[str, pathlib.Path], texts: dict[str, str]) -> None:
    for name, path in paths.items():
        path.write_text(texts[name])


def expired(cloud: Cloud) -> Steps:
    """A controller's certificate expires. Its router continues until it is restarted."""
    router = cloud.routers["ctl-2"]
    path = router.host.path(cloud.engine.record.tls("certificate"))
    if cloud.certificates:
        path.write_text(cloud.certificates.text("expired"))
        yield 5.0
        stayed = "ctl-2" in cloud.routers["ctl-1"].peers()
        yield NOW
        yield from _kill(router)
        yield 8.0
        done = cloud.agent("ctl-2", "verify", "--timeout", "5")
        lines = [line.strip() for line in done.output.splitlines() if "ctl-2" in line]
        path.write_text(cloud.certificates.text("certificate"))
        yield from _kill(router)
        cloud.remark = f"routers stayed connected: {stayed}; verify on ctl-2 ends with {done.returncode}: {lines[:2]}"


def same_id(cloud: Cloud) -> Steps:
    """A second router has the id of ctl-2's router, as after copying a node."""
    host = cloud.hosts["ctl-2"]
    path = host.path(cloud.engine.record.config)
    entities = json.loads(path.read_text())
    # The copy runs on the same addresses, so its listeners need other ports. Its connectors go to the original's peers.
    copied = []
    for kind, attributes in entities:
        if kind != "listener":
            copied.append([kind, attributes])
        elif not attributes.get("http"):
            copied.append([kind, {**attributes, "port": int(attributes["port"]) + 10}])
    copy = path.with_name("copy.json")
    copy.write_text(json.dumps([*copied, _to_the_first(cloud, entities)]))
    command = routers.find(cloud.engine) or ()
    process = cloud.supervisor.start("router-copy", [*host.within, *command, "-c", str(copy)])
    yield 15.0
    cloud.supervisor.end(process)
    copy.unlink()


def _to_the_first(cloud: Cloud, entities: list[tuple[str, dict[str, str]]]) -> tuple[str, dict[str, str]]:
    """Return a connector to ctl-3. The original has none: it waits for ctl-3 to connect."""
    connectors = [attributes for kind, attributes in entities if kind == "connector"]
    return ("connector", {**connectors[0], "name": "copy", "host": cloud.hosts["ctl-3"].node.host})


def burst(cloud: Cloud) -> Steps:
    """Fanouts without a pause: acknowledged as rendered, and pre-settled as in oslo.messaging's in-tree driver."""
    host = cloud.hosts["ctl-1"]
    remarks = []
    stock = host.service_file("stock")
    stock.parent.mkdir(exist_ok=True)
    lines = host.service_file("nova").read_text().splitlines()
    stock.write_text("\n".join(line for line in lines if not line.startswith("pre_settled")) + "\n")
    # By default the in-tree driver sends pre-settled casts. This project's driver asks for acknowledgements.
    pre_settles = cloud.rpc is AMQP and cloud.driver == "amqp"
    for service in ("nova", "stock") if pre_settles else ("nova",):
        client = workers.Client(cloud.supervisor, host, service)
        client.expect("ready", workers.READY_SECONDS)
        client.begin("fanout", 1, 10.0, cloud.load.servers[0], timeout=10.0)
        client.result()
        yield NOW
        client.begin("fanout", _BURST, 30.0, cloud.load.servers[0], timeout=20.0, threads=8)
        sent = client.result()
        good = {fanout.ident for fanout in sent if not fanout.error}
        seconds = max(fanout.done for fanout in sent) - min(fanout.begun for fanout in sent)
        missing = -1
        for _ in range(20):
            before = missing
            missing = sum(len(good - server.got("fanout").seconds.keys()) for server in cloud.load.servers)
            if missing in (0, before):
                break
            yield 1.0
        kind = "acknowledged" if service == "nova" else "pre-settled"
        remarks.append(f"{kind}: {len(good)} of {len(sent)} sent in {seconds:.1f} s, {missing} of {2 * len(good)} lost")
        cloud.supervisor.end(client.process)
    cloud.remark = "; ".join(remarks)


def storm(cloud: Cloud) -> Steps:
    """One router or broker with many clients crashes. All its clients reconnect at once."""
    amqp = cloud.rpc is AMQP
    names = ("ctl-2",) if amqp else ("ctl-2", "ctl-1", "ctl-3")
    hosts = [cloud.hosts[name] for name in names]
    part = _CROWD // 3
    crowds = [workers.Crowd(cloud.supervisor, cloud.overcloud, hosts, first, part) for first in range(0, _CROWD, part)]
    yield from _until(crowds)
    yield NOW
    killed = time.monotonic()
    yield from kill_interior(cloud) if amqp else kill_broker(cloud)
    yield 1.0
    yield from _until(crowds)
    reports = [crowd.report() for crowd in crowds]
    cloud.supervisor.end(*(crowd.process for crowd in crowds))
    back = sum(count for count, _ in reports)
    last = max(last for _, last in reports)
    cloud.remark = f"{back} of {_CROWD} back after {last - killed:.1f} s"


def _until(crowds: list[workers.Crowd]) -> Steps:
    for _ in range(60):
        yield 0.5
        if sum(crowd.report()[0] for crowd in crowds) == _CROWD:
            break


CASES = (
    Case("kill-interior", "kill -9 a controller's router, back after 1 s", (AMQP,), kill_interior),
    Case("kill-edge", "kill -9 a compute's router, back after 1 s", (AMQP,), kill_edge),
    Case("kill-broker", "kill -9 a broker, back after 1 s", (AMQP, RABBIT), kill_broker),
    Case("stop-router", "SIGSTOP a controller's router for 20 s", (AMQP,), stop_router),
    Case("stop-broker", "SIGSTOP a broker for 20 s", (AMQP, RABBIT), stop_broker),
    Case("cut-link", "no packets between two controllers for 15 s", (AMQP, RABBIT), cut_link),
    Case("cut-site", "a controller and a compute cut off for 20 s", (AMQP, RABBIT), cut_site),
    Case("rolling-routers", "all routers drained and restarted, in turn", (AMQP,), rolling),
    Case("rolling-brokers", "all brokers restarted, in turn", (RABBIT,), rolling_brokers),
    Case("disk-full", "a broker's disk is full for 20 s", (AMQP, RABBIT), fill_disk),
    Case("wrong-password", "a router with a wrong mesh password for 15 s", (AMQP,), wrong_password),
    Case("same-id", "a second router with ctl-2's id for 15 s", (AMQP,), same_id),
    Case("expired", "restarted with an expired certificate, renewed after some 15 s", (AMQP,), expired, True),
    Case("burst", "3000 fanouts at once", (AMQP, RABBIT), burst),
    Case("storm", "300 clients at once, after kill -9 of what they were connected to", (AMQP, RABBIT), storm),
)
