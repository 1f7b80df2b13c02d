"""Looking at the routers and the broker: what `om_agent.verify` judges. Every look is bounded in time."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import re
import socket
import sys
import time
import typing

from om_agent import amqp, errors, ini, model, picture, plan, proc, verify
from om_agent.apply import broker as running_broker
from om_agent.apply import files
from om_agent.apply import router as running
from om_agent.plan import broker, layout, router, services, topology, transport_url

PAUSE = 1.0  # seconds between two looks
_PEER_SECONDS = 3.0
_MOST_PEERS = 8  # that are asked directly, why they are not reached; the sentences are the same for more
_METRICS_SECONDS = 5.0
_AT_ONCE = 12  # messages under way in one process
_START_SECONDS = 30.0  # for Python to import oslo.messaging on a busy machine, and to end


def mesh(d: model.Deployment, r: router.RouterPlan, config: bytes | None, root: pathlib.Path) -> verify.Mesh:
    """Return what the routers say.

    :param config: the content of this router's file.
    """
    try:
        with running.connect(r, running.read_door(root)) as client:
            own = _router(client)
            if verify.product_of(r.engine) not in own.product:
                return verify.Mesh(own)
            drift = _drift(r, config, client)
            views = _views(r, own, client)
    except errors.NotReady as e:
        return verify.Mesh(verify.Router(verify.UNASKED, str(e)))
    except amqp.Unreachable as e:
        return verify.Mesh(verify.Router(e.kind, e.why))
    except errors.Unreachable as e:  # it answers, and not as it should
        return verify.Mesh(verify.Router(verify.CLOSED, str(e)))
    missing = [name for name in r.interiors if name not in own.reached and name != r.node.name]
    asked = (
        missing
        if r.mode == "interior"
        else [n for n in missing if any(c.name == f"uplink/{n}" for c in own.connectors)]
    )
    return verify.Mesh(own, drift, views, {name: _peer(d, r, name) for name in asked[:_MOST_PEERS]})


def _router(client: amqp.Client) -> verify.Router:
    """Return what a router says of itself."""
    dialect = amqp.DIALECTS[client.login.engine]
    product = client.product
    if dialect.product not in product:
        return verify.Router(verify.OPEN, container=client.container, product=product)
    (counts,) = client.query(dialect.statistics)[:1] or ({},)
    connections = client.query("connection")
    nodes = client.query("router.node")
    connectors = client.query("connector") if dialect.changes else []
    return verify.Router(
        verify.OPEN,
        container=client.container,
        product=product,
        version=product.rpartition(" ")[2],
        uptime=int(counts.get("uptimeSeconds") or 0),
        clients=sum(amqp.is_client(row) for row in connections),
        links=int(counts.get("linkCount") or 0),
        dropped=int(counts.get("droppedPresettledDeliveries") or 0),
        reached=verify.reachable(nodes, client.container),
        connectors=tuple(
            verify.Link(str(row["name"]), str(row.get("connectionStatus")), str(row.get("connectionMsg") or ""))
            for row in connectors
        ),
        connections=tuple(
            _connection(row) for row in connections if not amqp.is_client(row) and row["role"] != "normal"
        ),
    )


def _connection(row: amqp.Row) -> verify.Connection:
    told = row.get("properties") or {}
    product = " ".join(str(told[k]) for k in ("product", "version") if k in told)
    return verify.Connection(
        str(row["role"]), str(row["dir"]), str(row["host"]), str(row.get("container") or ""), product
    )


def _drift(r: router.RouterPlan, config: bytes | None, client: amqp.Client) -> tuple[str, ...]:
    entities = running.entities(config)
    if entities is None or not amqp.DIALECTS[r.engine].changes:
        return ()
    found = running.drift(r, entities, client)
    return (*map(str, found.steps), *found.obstacles)


def _views(r: router.RouterPlan, own: verify.Router, client: amqp.Client) -> dict[str, frozenset[str] | None]:
    """Ask every interior that is reached which ones it reaches; an edge asks through its uplink."""
    asked = [n for n in r.interiors if n in own.reached or r.mode == "edge"]
    found: dict[str, frozenset[str] | None] = {}
    for name in asked:
        if name == client.container:
            found[name] = own.reached
            continue
        found[name] = None
        with contextlib.suppress(errors.Unreachable):
            found[name] = verify.reachable(client.query("router.node", router=name), name)
    return found


def _peer(d: model.Deployment, r: router.RouterPlan, name: str) -> verify.Router:
    """Ask a router directly, which every node's agent may."""
    node = d.by_name()[name]
    try:
        with amqp.Client(running.login(r, (node.host, r.listener[1]), host=node.host), _PEER_SECONDS) as client:
            return _router(client)
    except amqp.Unreachable as e:
        return verify.Router(e.kind, e.why)
    except errors.Unreachable as e:
        return verify.Router(verify.CLOSED, str(e))


def live(r: router.RouterPlan, planned: topology.Mesh, root: pathlib.Path) -> picture.Live:
    """Return what is up of a mesh, as its interior routers say, asked through this node's.

    :raises om_agent.errors.Unreachable: when this node's router cannot be asked.
    """
    routers = dict.fromkeys((n.name for n in planned.interiors), picture.DOWN)
    found: set[tuple[str, str]] = set()
    with running.connect(r, running.read_door(root)) as client:
        known = set(routers)  # until one of them has said which it reaches
        for name in sorted(routers, key=lambda name: name != client.container):
            if name not in known:
                continue
            asked = "" if name == client.container else name
            with contextlib.suppress(errors.Unreachable):
                rows = client.query("router.node", router=asked)
                edges = [row for row in client.query("connection", router=asked) if row["role"] == "edge"]
                known &= verify.reachable(rows, name)
                routers[name] = picture.UP
                found |= {(str(row["id"]), name) for row in rows if row.get("routerLink") is not None}
                found |= {(str(row["container"]), name) for row in edges if row.get("opened")}
    links = {}
    for link in planned.links:
        ends = (link.source, link.target)
        if ends in found or ends[::-1] in found:
            links[ends] = picture.UP
        elif routers[link.target] == picture.UP and routers.get(link.source) != picture.DOWN:
            links[ends] = picture.DOWN
    for edge in planned.edges:
        told = {links.get(ends) for ends in links if ends[0] == edge.name}
        if told:
            routers[edge.name] = picture.UP if picture.UP in told else picture.DOWN
    return picture.Live(routers, links)


# -- broker ----------------------------------------------------------------------------------------------------------


def rabbit(p: plan.Plan, b: broker.BrokerPlan, host: layout.Host, root: pathlib.Path, count: bool) -> verify.Broker:
    """Return what the broker on this node says.

    :param count: its own queues and the messages in them, too.
    """
    try:
        status = _ctl(b, host, root, "cluster_status")
        if status is None and _listens(p, b):  # it may have failed for another member, which was given up since
            status = _ctl(b, host, root, "cluster_status")
    except errors.ProcessFailed as e:
        return verify.Broker(why=str(e).rstrip("."))
    if status is None:
        cookie = "does not accept this node's Erlang cookie"
        hangs = f"it takes connections and does not answer: it hangs, or {cookie}"
        return verify.Broker(why=hangs if _listens(p, b) else f"nothing listens: it does not run, or {cookie}")
    own = broker.node_name(p.node)
    return parse_rabbit(own, status, _metrics(p, b) if count else "")


def _listens(p: plan.Plan, b: broker.BrokerPlan) -> bool:
    """Return whether clients could connect; the kernel takes connections for a program that hangs, too."""
    for port in verify.expected_ports(b):
        with contextlib.suppress(OSError):
            socket.create_connection((p.node.address, port), timeout=_PEER_SECONDS).close()
            return True
    return False


def _metrics(p: plan.Plan, b: broker.BrokerPlan) -> str:
    """Return what the broker's Prometheus plugin says, '' when it does not.

    ``rabbitmqctl list_queues`` would ask every member of the cluster, and wait a minute for one that is not well.
    """
    import http.client  # only here, and it imports much

    settings = dict(b.settings)
    address = settings.get("prometheus.tcp.ip", p.node.address)
    connection = http.client.HTTPConnection(address, int(settings["prometheus.tcp.port"]), timeout=_METRICS_SECONDS)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def parse_rabbit(own: str, status: typing.Any, metrics: str) -> verify.Broker:
    """Return what ``cluster_status`` says, as JSON, and the metrics."""
    counts = {
        m[1]: int(float(m[2])) for m in re.finditer(r"^(rabbitmq_queues|rabbitmq_queue_messages) (\S+)$", metrics, re.M)
    }
    listeners = status.get("listeners", {}).get(own, [])
    versions = status.get("versions", {}).get(own, {})
    # One that hangs is among the running for a minute (Erlang's net_ticktime), and tells no version (run, 3.10.8).
    silent = {name for name, told in status.get("versions", {}).items() if not told.get("rabbitmq_version")}
    partitions = status.get("partitions", {})
    return verify.Broker(
        version=str(versions.get("rabbitmq_version", "")),
        members=tuple(sorted({*status.get("disk_nodes", ()), *status.get("ram_nodes", ())})),
        running=tuple(sorted(set(status.get("running_nodes", ())) - silent)),
        partitions=tuple(sorted(partitions if isinstance(partitions, dict) else map(str, partitions))),
        alarms=tuple(sorted({_alarm(a) for a in status.get("alarms", ())})),
        listeners=tuple(
            (str(x["interface"]), int(x["port"])) for x in listeners if x["protocol"] in ("amqp", "amqp/ssl")
        ),
        queues=counts.get("rabbitmq_queues"),
        messages=counts.get("rabbitmq_queue_messages"),
    )


def _alarm(alarm: typing.Any) -> str:
    if not isinstance(alarm, dict):
        return str(alarm)
    kinds = {"memory": "memory is short", "disk": "disk space is short", "file_descriptor_limit": "too many open files"}
    what = str(alarm.get("resource") or alarm.get("type") or "unknown")
    return f"{kinds.get(what, what)} on {alarm.get('node')}"


def _ctl(b: broker.BrokerPlan, host: layout.Host, root: pathlib.Path, *command: str) -> typing.Any:
    """Return what rabbitmqctl prints as JSON, None when it fails.

    :raises om_agent.errors.ProcessFailed: when it is not installed or does not end.
    """
    done = running_broker.Door(b, root, bool(host.prefix)).ctl("--formatter", "json", *command)
    try:
        return json.loads(done.stdout) if done.returncode == 0 else None
    except ValueError:
        return None


# -- messages there and back -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Job:
    config: str
    probe: verify.Probe
    client: str
    server: str


def probes(
    d: model.Deployment, p: plan.Plan, root: pathlib.Path, reached: typing.Collection[str], seconds: float
) -> tuple[tuple[verify.Probe, ...], tuple[errors.Problem, ...]]:
    """Send a call to every interior router and a notification, with every URL that is in the services' files.

    :param reached: interior routers; nothing is sent to the others.
    :return: what came of it, and why nothing was sent where that is so.
    """
    jobs = list(_jobs(d, p, root, reached))
    if not jobs:  # when there are URLs, what keeps them from being tried out is a finding already
        named = any(True for file in p.config_files for _ in _urls(file, root))
        return (), (() if named else (errors.warning(p.node.name, "no-probe"),))
    results: list[verify.Probe] = []
    for config in dict.fromkeys(job.config for job in jobs):
        mine = [job for job in jobs if job.config == config]
        for i in range(0, len(mine), _AT_ONCE):
            try:
                results += _run(config, mine[i : i + _AT_ONCE], seconds)
            except errors.ProcessFailed as e:
                return tuple(results), (errors.problem(p.node.name, "probe-impossible", why=str(e).rstrip(".")),)
    return tuple(results), ()


def _run(config: str, jobs: typing.Sequence[_Job], seconds: float) -> list[verify.Probe]:
    """Do some jobs in a process of their own."""
    asked = {
        "config": config,
        "seconds": seconds,
        "jobs": [{"half": j.probe.half, "to": j.probe.to, "client": j.client, "server": j.server} for j in jobs],
    }
    argv = [sys.executable, "-W", "ignore", "-m", "om_agent.probe"]
    done = proc.run(argv, seconds + _START_SECONDS, stdin=json.dumps(asked).encode())
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise errors.ProcessFailed(f"oslo.messaging ended with exit code {done.returncode}") from None
    if "impossible" in answer:
        raise errors.ProcessFailed(answer["impossible"])
    return [
        dataclasses.replace(job.probe, error=str(result["error"]), seconds=float(result["seconds"]))
        for job, result in zip(jobs, answer["results"])
    ]


def _jobs(
    d: model.Deployment, p: plan.Plan, root: pathlib.Path, reached: typing.Collection[str]
) -> typing.Iterator[_Job]:
    """Yield what to send: for each URL once, however many services have it."""
    seen: set[tuple[str, str]] = set()
    for file in p.config_files:
        for half, url, own in _urls(file, root):
            if (half, url) in seen:
                continue
            seen.add((half, url))
            config = "" if own else str(files.on_disk(root, file.path))
            backend = d.rpc if half == "rpc" else d.notify
            servers = [("", "")]
            if half == "rpc" and backend in d.routed:
                names = d.by_name()
                servers = [(n, _server(backend, names[n])) for n in model.interiors(d) if n in reached]
            for to, server in servers:
                yield _Job(config, verify.Probe(half, to, file.path), own, server)


def _server(backend: model.Backend, node: model.Node) -> str:
    return transport_url.build(dataclasses.replace(backend, hosts=(node.host,))).reveal()


def _urls(file: services.ConfigFile, root: pathlib.Path) -> typing.Iterator[tuple[str, str, str]]:
    """Yield (half, the URL as it stands in the file, the URL when oslo.config would not find it there)."""
    keys = ini.read((files.read(files.on_disk(root, file.path)) or b"").decode(errors="replace"))
    for s in file.settings:
        value = next((v.text for v in keys.get((s.section, s.key), ())), "")
        if not value or s.value is None:
            continue
        if file.format == services.PASTE and s.key == "url":
            yield ("notify", value, value.replace("%%", "%"))
        elif (s.section, s.key) == ("DEFAULT", "transport_url"):
            yield ("rpc", value, "")
        elif (s.section, s.key) == ("oslo_messaging_notifications", "transport_url"):
            yield ("notify", value, "")


def wait(
    look: typing.Callable[[], tuple[verify.Seen, tuple[errors.Problem, ...]]], deadline: float
) -> tuple[verify.Seen, tuple[errors.Problem, ...]]:
    """Look until all is well, or nothing is wrong that may go away by itself, or the time is over.

    :param deadline: on the monotonic clock.
    """
    while True:
        seen, found = look()
        if verify.settled(found) or time.monotonic() + PAUSE >= deadline:
            return seen, found
        time.sleep(PAUSE)
