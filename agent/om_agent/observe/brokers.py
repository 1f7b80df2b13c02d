"""Look at the broker on this node, and at the cluster as this broker sees it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import re
import socket
import time
import typing

from om_agent import (
    errors,
    model,
    observed,
    plan,
)
from om_agent.apply import foreign_settings, live_broker, service_files
from om_agent.plan import broker, layout, queues, services

_ANSWER_SECONDS = 10.0  # a broker answers late while many clients connect
_LISTEN_SECONDS = 3.0
_AMQP_0_9_1 = b"AMQP\x00\x00\x09\x01"  # the first bytes that a client sends (AMQP 0-9-1, 4.2.2)
_METRICS_SECONDS = 5.0  # for the whole answer
_MOST_METRICS = 8 * 2**20  # bytes; 3.10 sends 200 KiB
_TRUE = ("true", "1", "on", "yes")  # for oslo.config, in upper or lower case


def rabbit(
    deployment: model.Deployment,
    node_plan: plan.Plan,
    broker_plan: broker.BrokerPlan,
    host: layout.Host,
    root: pathlib.Path,
    count: bool,
) -> observed.BrokerSeen:
    """Return what the broker on this node reports.

    :param count: whether to count queues and messages; otherwise the agent examines the queues themselves.
    """
    try:
        status = _ctl(broker_plan, host, root, "cluster_status")
        if status is None and _listens(node_plan, broker_plan):
            # It may have failed because of another member, which the cluster has given up in the meantime.
            status = _ctl(broker_plan, host, root, "cluster_status")
    except errors.ProcessFailed as e:
        return observed.BrokerSeen(why=str(e).rstrip("."))
    if status is None:
        return observed.BrokerSeen(why=_why_no_status(node_plan, broker_plan))
    running = status.get("running_nodes", ())
    silent = set(_silent(deployment, node_plan, broker_plan, running))
    if count:
        return _with_counts(node_plan, broker_plan, status, silent)
    found = parse_rabbit(broker.node_name(node_plan.node), status, "", silent)
    if not node_plan.queues.kind:
        return found
    rows = tuple(_local_queues(broker_plan, host, root))
    found = dataclasses.replace(found, thin=tuple(thin_queues(rows, found.running)))
    if _decides_queues(deployment, node_plan, host, root):
        unfit = unfit_queues(rows, node_plan.queues.kind is model.Queues.QUORUM)
        found = dataclasses.replace(found, unfit=tuple(unfit))
    return found


def _why_no_status(node_plan: plan.Plan, broker_plan: broker.BrokerPlan) -> str:
    cookie = "does not accept this node's Erlang cookie"
    if _listens(node_plan, broker_plan):
        return f"it takes connections and does not answer: it hangs, or {cookie}"
    return f"nothing listens: it does not run, or {cookie}"


def _with_counts(
    node_plan: plan.Plan, broker_plan: broker.BrokerPlan, status: typing.Any, silent: typing.Collection[str]
) -> observed.BrokerSeen:
    """Return what the broker reports, with the numbers of queues and messages from its metrics."""
    own = broker.node_name(node_plan.node)
    at = errors.where(*broker_plan.metrics)
    try:
        text = read_metrics(broker_plan.metrics, _METRICS_SECONDS)
    except _NoMetricsError as e:
        return dataclasses.replace(parse_rabbit(own, status, "", silent), metrics=str(e), metrics_at=at)
    found = parse_rabbit(own, status, text, silent)
    if found.queues is None or found.messages is None:
        why = "they do not contain the numbers of queues and messages"
        return dataclasses.replace(found, metrics=why, metrics_at=at)
    return found


def _silent(
    deployment: model.Deployment, node_plan: plan.Plan, broker_plan: broker.BrokerPlan, members: typing.Iterable[str]
) -> typing.Iterator[str]:
    """Yield the other members of the cluster that hang.

    For a minute RabbitMQ still lists a hanging member as running (Erlang's net_ticktime); 4.0.5 even lists its version.
    """
    nodes = {broker.node_name(node): node for node in deployment.nodes if node != node_plan.node}
    port = broker_plan.listener.port
    for name in members:
        if name in nodes and hangs((nodes[name].address, port), _ANSWER_SECONDS):
            yield name


def hangs(address: tuple[str, int], seconds: float) -> bool:
    """Return whether a broker does not accept a connection, or accepts it and sends nothing.

    A broker that refuses the connection is down and does not hang. One that cannot be reached may be healthy.
    """
    try:
        with socket.create_connection(address, timeout=seconds) as connection:
            connection.sendall(_AMQP_0_9_1)
            connection.recv(1)  # a broker that expects TLS sends an alert
    except socket.timeout:
        return True
    except OSError:
        return False
    return False


def _listens(node_plan: plan.Plan, broker_plan: broker.BrokerPlan) -> bool:
    """Return whether clients can connect. The kernel also accepts connections for a program that hangs."""
    try:
        socket.create_connection((node_plan.node.address, broker_plan.listener.port), _LISTEN_SECONDS).close()
    except OSError:
        return False
    return True


class _NoMetricsError(Exception):
    """The metrics cannot be read; ``str()`` is a clause that says why."""


def read_metrics(address: tuple[str, int], seconds: float) -> str:
    """Return what a Prometheus port sends. Any program may listen there, so time and size are limited.

    ``rabbitmqctl list_queues`` would ask every member of the cluster, and wait a minute for a member that hangs.

    :raises _NoMetricsError: when the port sends no metrics.
    """
    try:
        answer = _request_metrics(address, time.monotonic() + seconds)
    except socket.timeout:
        raise _NoMetricsError(f"it did not send them within {seconds:.0f} s") from None
    except ConnectionRefusedError:
        raise _NoMetricsError("nothing listens there") from None
    except OSError as e:
        reason = (e.strerror or "no reason given").lower()
        raise _NoMetricsError(f"the connection failed ({reason})") from None
    head, _, body = answer.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] ([0-9]{3})\b", head)
    if not status:
        raise _NoMetricsError("the program that listens there does not speak HTTP")
    if status[1] != b"200":
        raise _NoMetricsError(f"it answers with HTTP status {status[1].decode()}")
    return body.decode(errors="replace")


def _request_metrics(address: tuple[str, int], deadline: float) -> bytes:
    """Return the whole answer to a request for metrics.

    :raises socket.timeout: when it is not there before ``deadline``, on the monotonic clock.
    """
    answer = bytearray()
    with socket.create_connection(address, timeout=_remaining(deadline)) as connection:
        connection.sendall(f"GET /metrics HTTP/1.0\r\nHost: {errors.where(*address)}\r\n\r\n".encode())
        while True:
            connection.settimeout(_remaining(deadline))
            part = connection.recv(65536)
            if not part:
                return bytes(answer)
            answer += part
            if len(answer) > _MOST_METRICS:
                raise _NoMetricsError(f"it sends more than {_MOST_METRICS // 2**20} MiB")


def _remaining(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise socket.timeout
    return seconds


def _whole(text: str) -> int | None:
    """Return a number of Prometheus's text format; None for one that is no count, such as NaN, +Inf or -5."""
    try:
        number = int(float(text))
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < 2**63 else None


def _decides_queues(deployment: model.Deployment, node_plan: plan.Plan, host: layout.Host, root: pathlib.Path) -> bool:
    """Return whether the metadata decides which type of queue services declare, and not an option of the operator."""
    if queues.options(deployment, host):
        return True
    return deployment.broker.queues is not None and not any(
        _wants_quorum(file, root) for file in node_plan.config_files
    )


def _wants_quorum(file: services.ConfigFile, root: pathlib.Path) -> bool:
    """Return whether a service's file, or one that the service also reads, asks for quorum queues."""
    if file.format != services.OSLO:
        return False
    key = (services.DRIVERS[model.Scheme.RABBIT], queues.QUORUM_OPTIONS[0][0])
    values = list(service_files.keys_of(file.path, root).get(key, []))
    for _, keys in foreign_settings.other_settings(file, root):
        values += keys.get(key, [])
    return any(value.text.lower() in _TRUE for value in values)


def _local_queues(broker_plan: broker.BrokerPlan, host: layout.Host, root: pathlib.Path) -> typing.Iterator[_QueueRow]:
    """Yield (virtual host, row) of the queues that this broker leads.

    The other queues are examined on their own nodes: a question to all members waits a minute for one that hangs.
    """
    columns = ("name", "type", "exclusive", "members")  # only quorum queues have members
    for vhost in [str(row["name"]) for row in broker_plan.definitions["vhosts"]]:
        command = ("list_queues", "--local", "--vhost", vhost, *columns)
        with contextlib.suppress(errors.ProcessFailed):
            for row in _ctl(broker_plan, host, root, *command) or ():
                yield vhost, row


_QueueRow = tuple[str, typing.Mapping[str, typing.Any]]


def unfit_queues(rows: typing.Iterable[_QueueRow], quorum: bool) -> list[tuple[str, str, str]]:
    """Return (virtual host, queue, type) of the queues that services declare as another type.

    Queues for answers and fanouts are left out: each start of a service gives them a new name, and RabbitMQ deletes
    the old ones.
    """
    found = []
    for vhost, row in rows:
        name = str(row.get("name"))
        kind = str(row.get("type"))
        temporary = row.get("exclusive") or re.match(r"amq\.|reply_|om_agent", name) or "_fanout" in name
        is_unfit = kind in ("quorum", "classic") and (kind == "quorum") != quorum
        if is_unfit and not temporary:
            found.append((vhost, name, kind))
    return sorted(found)


def thin_queues(
    rows: typing.Iterable[_QueueRow], running: typing.Collection[str]
) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return (virtual host, queue, brokers without a copy) of the quorum queues that could have more members.

    RabbitMQ gives a new queue three members, or as many as there are brokers at that time.

    :param running: the brokers, each of which could have a member.
    """
    wanted = min(queues.MEMBERS, len(running))
    found = []
    for vhost, row in rows:
        members = row.get("members")
        if row.get("type") != "quorum" or not isinstance(members, list):
            continue
        if len(members) < wanted:
            lacking = sorted(set(running) - set(map(str, members)))
            found.append((vhost, str(row.get("name")), tuple(lacking)))
    return sorted(found)


def parse_rabbit(
    own: str, status: typing.Any, metrics: str, silent: typing.Collection[str] = ()
) -> observed.BrokerSeen:
    """Return what the JSON of ``cluster_status`` and the metrics report.

    :param own: the Erlang node name of this broker.
    :param silent: members that do not answer, whatever the cluster reports about them.
    """
    numbers = re.finditer(r"^(rabbitmq_queues|rabbitmq_queue_messages) (\S+)\r?$", metrics, re.M)
    counts = {found[1]: _whole(found[2]) for found in numbers}
    versions = {name: str(row.get("rabbitmq_version") or "") for name, row in status.get("versions", {}).items()}
    unknown_version = {name for name, version in versions.items() if not version}
    members = {*status.get("disk_nodes", ()), *status.get("ram_nodes", ())}
    running = set(status.get("running_nodes", ())) - unknown_version - set(silent)
    partitions = status.get("partitions", {})
    listeners = status.get("listeners", {}).get(own, [])
    amqp_listeners = [row for row in listeners if row["protocol"] in ("amqp", "amqp/ssl")]
    flags = {str(row["name"]): row for row in status.get("feature_flags", ())}
    uses_khepri = flags.get("khepri_db", {}).get("state") == "enabled"
    return observed.BrokerSeen(
        version=versions.get(own, ""),
        members=tuple(sorted(members)),
        running=tuple(sorted(running)),
        partitions=tuple(sorted(partitions if isinstance(partitions, dict) else map(str, partitions))),
        alarms=tuple(sorted(set(map(_alarm, status.get("alarms", ()))))),
        listeners=tuple((str(row["interface"]), int(row["port"])) for row in amqp_listeners),
        versions=tuple(sorted((name, version) for name, version in versions.items() if version)),
        flags=tuple(sorted(name for name, row in flags.items() if _is_missed(row))),
        store="Khepri" if uses_khepri else "Mnesia",
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


def _ctl(broker_plan: broker.BrokerPlan, host: layout.Host, root: pathlib.Path, *command: str) -> typing.Any:
    """Return what rabbitmqctl prints as JSON; None when it fails.

    :raises om_agent.errors.ProcessFailed: when it is not installed or does not end in time.
    """
    done = live_broker.Control(broker_plan, root, bool(host.prefix)).ctl("--formatter", "json", *command)
    try:
        return json.loads(done.stdout) if done.returncode == 0 else None
    except ValueError:
        return None
