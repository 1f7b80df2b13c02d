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

from om_agent import (
    amqp,
    clients,
    connections,
    errors,
    ini,
    kinds,
    model,
    picture,
    plan,
    proc,
    resync,
    sources,
    verify,
)
from om_agent.apply import files, foreign_settings, live_broker, live_router, service_files
from om_agent.plan import broker, layout, queues, router, services, topology, transport_url

PAUSE = 1.0  # seconds between two looks
_PEER_SECONDS = 3.0
_ANSWER_SECONDS = 10.0  # a broker that many connect to at once answers late
_AMQP_0_9_1 = b"AMQP\x00\x00\x09\x01"  # what a connection begins with (AMQP 0-9-1, 4.2.2)
_MOST_ADDRESSES = 20_000  # that are compared with those of every other interior, in each look
_MOST_PEERS = 8  # that are asked directly, why they are not reached; the sentences are the same for more
_METRICS_SECONDS = 5.0  # for all of the metrics
_MOST_METRICS = 8 * 2**20  # bytes; 3.10 sends 200 KiB
_TRUE = ("true", "1", "on", "yes")  # to oslo.config, in any case
_AT_ONCE = 12  # messages under way in one process
_START_SECONDS = 30.0  # for Python to import oslo.messaging on a busy machine, and to end


def mesh(
    d: model.Deployment,
    r: router.RouterPlan,
    config: bytes | None,
    root: pathlib.Path,
    units: typing.Sequence[clients.Unit] = (),
) -> verify.Mesh:
    """Return what the routers say.

    :param config: the content of this router's file.
    :param units: of services, that should be connected.
    """
    try:
        with live_router.connect(r, live_router.read_door(root)) as client:
            own = _router(client)
            if verify.product_of(r.engine) not in own.product:
                return verify.Mesh(own)
            drift = _drift(r, config, client)
            tables = _tables(r, client)
            services = _services(d, r, client, own.uptime, units)
            lacking = resync.missing(client, r) if own.addresses <= _MOST_ADDRESSES else {}
    except errors.NotReady as e:
        return verify.Mesh(verify.Router(verify.UNASKED, str(e)))
    except amqp.Unreachable as e:
        return verify.Mesh(verify.Router(e.kind, e.why))
    except errors.Unreachable as e:  # it answers, and not as it should
        return verify.Mesh(verify.Router(verify.CLOSED, str(e)))
    views = {name: None if rows is None else verify.reachable(rows, name) for name, rows in tables.items()}
    links = next((verify.links(rows, name) for name, rows in tables.items() if rows is not None), None)
    unknown = {name: len(addresses) for name, addresses in lacking.items()}
    found = verify.Mesh(own, drift, views, links=links, services=services, unknown=unknown)
    missing = [name for name in r.interiors if name not in verify.reached_interiors(r, found) and name != r.node.name]
    return dataclasses.replace(found, peers={name: _peer(d, r, name) for name in missing[:_MOST_PEERS]})


def _services(
    d: model.Deployment, r: router.RouterPlan, client: amqp.Client, uptime: int, units: typing.Sequence[clients.Unit]
) -> clients.Seen:
    try:
        return connections.look(d, r, client, uptime, units)
    except errors.Unreachable as e:
        return clients.Seen(why=str(e).rstrip("."))


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
        addresses=int(counts.get("addrCount") or 0),
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
    entities = live_router.entities(config)
    if entities is None or not amqp.DIALECTS[r.engine].changes:
        return ()
    found = live_router.drift(r, entities, client)
    return (*map(str, found.steps), *found.obstacles)


def _tables(r: router.RouterPlan, client: amqp.Client) -> dict[str, list[amqp.Row] | None]:
    """Return the rows of ``router.node`` of every interior that is reached; an edge router asks through its uplink.

    This router's own come first; None of one that gave no answer.
    """
    found: dict[str, list[amqp.Row] | None] = {}
    known = frozenset(r.interiors)  # until one of them has said which it reaches
    if r.mode != "edge":
        found[r.node.name] = client.query("router.node")
        known = verify.reachable(found[r.node.name] or (), r.node.name)
    for name in r.interiors:
        if name in found or name not in known:
            continue
        found[name] = None
        with contextlib.suppress(errors.Unreachable):
            rows = client.query("router.node", router=name)
            found[name] = rows
            if r.mode == "edge":
                known &= verify.reachable(rows, name)
    return found


def _peer(d: model.Deployment, r: router.RouterPlan, name: str) -> verify.Router:
    """Ask a router directly, which every node's agent may."""
    node = d.by_name()[name]
    try:
        with amqp.Client(live_router.login(r, (node.host, r.listener[1]), host=node.host), _PEER_SECONDS) as client:
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
    with live_router.connect(r, live_router.read_door(root)) as client:
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


def rabbit(
    d: model.Deployment, p: plan.Plan, b: broker.BrokerPlan, host: layout.Host, root: pathlib.Path, count: bool
) -> verify.Broker:
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
    silent = set(_silent(d, p, b, status.get("running_nodes", ())))
    if not count:
        rows = tuple(_local_queues(b, host, root)) if p.queues.kind else ()
        unfit: typing.Iterable[tuple[str, str, str]] = ()
        if _decides_queues(d, p, host, root):
            unfit = unfit_queues(rows, p.queues.kind is model.Queues.QUORUM)
        found = parse_rabbit(own, status, "", silent)
        return dataclasses.replace(found, unfit=tuple(unfit), thin=tuple(thin_queues(rows, found.running)))
    address = _metrics_address(p, b)
    at = errors.where(*address)
    try:
        text = read_metrics(address, _METRICS_SECONDS)
    except _NoMetricsError as e:
        return dataclasses.replace(parse_rabbit(own, status, "", silent), metrics=str(e), metrics_at=at)
    found = parse_rabbit(own, status, text, silent)
    if found.queues is None or found.messages is None:
        why = "what it sends does not say how many queues and messages there are"
        found = dataclasses.replace(found, metrics=why, metrics_at=at)
    return found


def _silent(
    d: model.Deployment, p: plan.Plan, b: broker.BrokerPlan, members: typing.Iterable[str]
) -> typing.Iterator[str]:
    """Yield the other members of the cluster that hang.

    RabbitMQ counts one that hangs among the running for a minute (Erlang's net_ticktime); 4.0.5 even tells its version.
    """
    nodes = {broker.node_name(node): node for node in d.nodes if node != p.node}
    port = min(verify.expected_ports(b))
    for name in members:
        if name in nodes and hangs((nodes[name].address, port), _ANSWER_SECONDS):
            yield name


def hangs(address: tuple[str, int], seconds: float) -> bool:
    """Return whether a broker does not take a connection, or takes it and says nothing on it.

    One that refuses it is down and does not hang; one that cannot be reached may be well.
    """
    try:
        with socket.create_connection(address, timeout=seconds) as connection:
            connection.sendall(_AMQP_0_9_1)
            connection.recv(1)  # one that expects TLS sends an alert
    except socket.timeout:
        return True
    except OSError:
        return False
    return False


def _listens(p: plan.Plan, b: broker.BrokerPlan) -> bool:
    """Return whether clients could connect; the kernel takes connections for a program that hangs, too."""
    for port in verify.expected_ports(b):
        with contextlib.suppress(OSError):
            socket.create_connection((p.node.address, port), timeout=_PEER_SECONDS).close()
            return True
    return False


class _NoMetricsError(Exception):
    """A metrics port cannot be read; ``str()`` is a clause that says why."""


def _metrics_address(p: plan.Plan, b: broker.BrokerPlan) -> tuple[str, int]:
    settings = dict(b.settings)
    return settings.get("prometheus.tcp.ip", p.node.address), int(settings["prometheus.tcp.port"])


def read_metrics(address: tuple[str, int], seconds: float) -> str:
    """Return what a Prometheus port says. Any program may listen there, so time and size are bounded.

    ``rabbitmqctl list_queues`` would ask every member of the cluster, and wait a minute for one that is not well.

    :raises _NoMetricsError: when that cannot be had.
    """
    deadline = time.monotonic() + seconds
    late = f"it did not send them within {seconds:.0f} s"
    request = f"GET /metrics HTTP/1.0\r\nHost: {errors.where(*address)}\r\n\r\n".encode()
    answer = bytearray()
    try:
        with socket.create_connection(address, timeout=seconds) as connection:
            connection.sendall(request)
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise _NoMetricsError(late)
                connection.settimeout(left)
                part = connection.recv(65536)
                if not part:
                    break
                answer += part
                if len(answer) > _MOST_METRICS:
                    raise _NoMetricsError(f"it sends more than {_MOST_METRICS // 2**20} MiB")
    except socket.timeout:
        raise _NoMetricsError(late) from None
    except ConnectionRefusedError:
        raise _NoMetricsError("nothing listens there") from None
    except OSError as e:
        raise _NoMetricsError(f"the connection failed ({(e.strerror or 'no reason given').lower()})") from None
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] ([0-9]{3})\b", head)
    if not status:
        raise _NoMetricsError("what listens there does not speak HTTP")
    if status[1] != b"200":
        raise _NoMetricsError(f"it answers {status[1].decode()}")
    return body.decode(errors="replace")


def _whole(text: str) -> int | None:
    """Return a number of Prometheus's text format; None for one that counts nothing, such as NaN, +Inf or -5."""
    try:
        number = int(float(text))
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < 2**63 else None


def _decides_queues(d: model.Deployment, p: plan.Plan, host: layout.Host, root: pathlib.Path) -> bool:
    """Return whether the metadata, and not an operator's own option, decides which type of queue services declare."""
    if queues.options(d, host):
        return True
    return d.broker.queues is not None and not any(_wants_quorum(file, root) for file in p.config_files)


def _wants_quorum(file: services.ConfigFile, root: pathlib.Path) -> bool:
    """Return whether a service's file, or one that the service also reads, asks for quorum queues."""
    if file.format != services.OSLO:
        return False
    key = (services.DRIVERS[model.Scheme.RABBIT], queues.QUORUM_OPTIONS[0][0])
    values = list(service_files.keys_of(file.path, root).get(key, []))
    for _, keys in foreign_settings.other_settings(file, root):
        values += keys.get(key, [])
    return any(value.text.lower() in _TRUE for value in values)


def _local_queues(
    b: broker.BrokerPlan, host: layout.Host, root: pathlib.Path
) -> typing.Iterator[tuple[str, typing.Mapping[str, typing.Any]]]:
    """Yield (virtual host, row) of the queues that this broker leads. Others are asked on their own nodes: a question
    to all waits a minute for a member that is not well."""
    columns = ("name", "type", "exclusive", "members")  # the last is of quorum queues alone
    for vhost in [str(row["name"]) for row in b.definitions["vhosts"]]:
        with contextlib.suppress(errors.ProcessFailed):
            for row in _ctl(b, host, root, "list_queues", "--local", "--vhost", vhost, *columns) or ():
                yield vhost, row


_Rows = typing.Iterable[tuple[str, typing.Mapping[str, typing.Any]]]


def unfit_queues(rows: _Rows, quorum: bool) -> list[tuple[str, str, str]]:
    """Return (virtual host, queue, type) of the queues that services declare as another type.

    Queues for answers and fanouts have a new name after each start of a service, and go by themselves.
    """
    found = []
    for vhost, row in rows:
        name, kind = str(row.get("name")), str(row.get("type"))
        passing = row.get("exclusive") or re.match(r"amq\.|reply_|om_agent", name) or "_fanout" in name
        if not passing and (kind == "quorum") != quorum and kind in ("quorum", "classic"):
            found.append((vhost, name, kind))
    return sorted(found)


def thin_queues(rows: _Rows, running: typing.Collection[str]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return (virtual host, queue, brokers that lack it) of the quorum queues that could have more members.

    RabbitMQ gives a new queue three members, or as many as there are brokers at that time.

    :param running: the brokers that could have a member each.
    """
    found = []
    for vhost, row in rows:
        members = row.get("members")
        if row.get("type") != "quorum" or not isinstance(members, list):
            continue
        if len(members) < min(queues.MEMBERS, len(running)):
            found.append((vhost, str(row.get("name")), tuple(sorted(set(running) - set(map(str, members))))))
    return sorted(found)


def parse_rabbit(own: str, status: typing.Any, metrics: str, silent: typing.Collection[str] = ()) -> verify.Broker:
    """Return what ``cluster_status`` says, as JSON, and the metrics.

    :param silent: members that do not answer, whatever the cluster thinks of them.
    """
    counts = {
        m[1]: _whole(m[2]) for m in re.finditer(r"^(rabbitmq_queues|rabbitmq_queue_messages) (\S+)\r?$", metrics, re.M)
    }
    listeners = status.get("listeners", {}).get(own, [])
    versions = status.get("versions", {}).get(own, {})
    mute = {name for name, told in status.get("versions", {}).items() if not told.get("rabbitmq_version")}
    partitions = status.get("partitions", {})
    told = sorted(status.get("versions", {}).items())
    flags = {str(row["name"]): row for row in status.get("feature_flags", ())}
    khepri = flags.get("khepri_db", {}).get("state") == "enabled"
    return verify.Broker(
        version=str(versions.get("rabbitmq_version", "")),
        members=tuple(sorted({*status.get("disk_nodes", ()), *status.get("ram_nodes", ())})),
        running=tuple(sorted(set(status.get("running_nodes", ())) - mute - set(silent))),
        partitions=tuple(sorted(partitions if isinstance(partitions, dict) else map(str, partitions))),
        alarms=tuple(sorted({_alarm(a) for a in status.get("alarms", ())})),
        listeners=tuple(
            (str(x["interface"]), int(x["port"])) for x in listeners if x["protocol"] in ("amqp", "amqp/ssl")
        ),
        versions=tuple((name, str(of["rabbitmq_version"])) for name, of in told if of.get("rabbitmq_version")),
        flags=tuple(sorted(name for name, row in flags.items() if _is_missed(row))),
        store="Khepri" if khepri else "Mnesia",
        queues=counts.get("rabbitmq_queues"),
        messages=counts.get("rabbitmq_queue_messages"),
    )


def _is_missed(flag: typing.Mapping[str, typing.Any]) -> bool:
    return flag.get("state") == "disabled" and flag.get("stability") != "experimental"


def _alarm(alarm: typing.Any) -> str:
    if not isinstance(alarm, dict):
        return str(alarm)
    resources = {
        "memory": "memory is short",
        "disk": "disk space is short",
        "file_descriptor_limit": "too many open files",
    }
    what = str(alarm.get("resource") or alarm.get("type") or "unknown")
    return f"{resources.get(what, what)} on {alarm.get('node')}"


def _ctl(b: broker.BrokerPlan, host: layout.Host, root: pathlib.Path, *command: str) -> typing.Any:
    """Return what rabbitmqctl prints as JSON, None when it fails.

    :raises om_agent.errors.ProcessFailed: when it is not installed or does not end.
    """
    done = live_broker.Door(b, root, bool(host.prefix)).ctl("--formatter", "json", *command)
    try:
        return json.loads(done.stdout) if done.returncode == 0 else None
    except ValueError:
        return None


# -- messages there and back -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Job:
    config: tuple[str, ...]
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
        return (), (() if named else (kinds.finding(p.node.name, "no-probe"),))
    results: list[verify.Probe] = []
    for config in dict.fromkeys(job.config for job in jobs):
        mine = [job for job in jobs if job.config == config]
        for i in range(0, len(mine), _AT_ONCE):
            try:
                results += _run(config, mine[i : i + _AT_ONCE], seconds)
            except errors.ProcessFailed as e:
                return tuple(results), (kinds.finding(p.node.name, "probe-impossible", why=str(e).rstrip(".")),)
    return tuple(results), ()


def _run(config: tuple[str, ...], jobs: typing.Sequence[_Job], seconds: float) -> list[verify.Probe]:
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
    seen: set[tuple[str, str, tuple[str, ...]]] = set()
    for file in p.config_files:
        read = _read_by(file, root)
        own_path = str(files.on_disk(root, file.path))
        beside = tuple(path for path in read if path != own_path)
        for half, url, own in _urls(file, root):
            if (half, url, beside) in seen:
                continue
            seen.add((half, url, beside))
            config = () if own else read
            backend = d.rpc if half == "rpc" else d.notify
            servers = [("", "")]
            if half == "rpc" and backend in d.routed:
                names = d.by_name()
                servers = [(n, _server(backend, names[n])) for n in model.interiors(d) if n in reached]
            for to, server in servers:
                yield _Job(config, verify.Probe(half, to, file.path), own, server)


def _read_by(file: services.ConfigFile, root: pathlib.Path) -> tuple[str, ...]:
    """Return the files that the service reads, in the order of their weight; those that hold keys of ours alone, which
    is what makes another call of it."""
    ours = {(ini.section_name(s.section), s.key) for s in file.settings}
    own = str(files.on_disk(root, file.path))
    if file.format != services.OSLO:
        return (own,)
    others = sources.other_files(file.path, file.units, root)
    found = [
        (s.after, str(files.on_disk(root, s.path))) for s in others if ours & service_files.keys_of(s.path, root).keys()
    ]
    return (*(path for after, path in found if not after), own, *(path for after, path in found if after))


def _server(backend: model.Backend, node: model.Node) -> str:
    return transport_url.build(dataclasses.replace(backend, hosts=(node.host,))).reveal()


def _urls(file: services.ConfigFile, root: pathlib.Path) -> typing.Iterator[tuple[str, str, str]]:
    """Yield (half, the URL as it stands in the file, the URL when oslo.config would not find it there)."""
    keys = ini.read((files.read(files.on_disk(root, file.path)) or b"").decode(errors="replace"), file.format)
    for s in file.settings:
        value = next((v.text for v in reversed(keys.get((ini.section_name(s.section, file.format), s.key), []))), "")
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
