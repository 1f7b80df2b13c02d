"""Looking at the broker on this node, and at the cluster as it sees it."""

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
from om_agent.observe import routers
from om_agent.plan import broker, layout, queues, services

_ANSWER_SECONDS = 10.0  # a broker that many connect to at once answers late
_AMQP_0_9_1 = b"AMQP\x00\x00\x09\x01"  # what a connection begins with (AMQP 0-9-1, 4.2.2)
_METRICS_SECONDS = 5.0  # for all of the metrics
_MOST_METRICS = 8 * 2**20  # bytes; 3.10 sends 200 KiB
_TRUE = ("true", "1", "on", "yes")  # to oslo.config, in any case


def rabbit(
    deployment: model.Deployment,
    node_plan: plan.Plan,
    broker_plan: broker.BrokerPlan,
    host: layout.Host,
    root: pathlib.Path,
    count: bool,
) -> observed.BrokerSeen:
    """Return what the broker on this node says.

    :param count: its own queues and the messages in them, too.
    """
    try:
        status = _ctl(broker_plan, host, root, "cluster_status")
        if status is None and _listens(
            node_plan, broker_plan
        ):  # it may have failed for another member, which was given up since
            status = _ctl(broker_plan, host, root, "cluster_status")
    except errors.ProcessFailed as e:
        return observed.BrokerSeen(why=str(e).rstrip("."))
    if status is None:
        cookie = "does not accept this node's Erlang cookie"
        hangs = f"it takes connections and does not answer: it hangs, or {cookie}"
        return observed.BrokerSeen(
            why=hangs if _listens(node_plan, broker_plan) else f"nothing listens: it does not run, or {cookie}"
        )
    own = broker.node_name(node_plan.node)
    silent = set(_silent(deployment, node_plan, broker_plan, status.get("running_nodes", ())))
    if not count:
        rows = tuple(_local_queues(broker_plan, host, root)) if node_plan.queues.kind else ()
        unfit: typing.Iterable[tuple[str, str, str]] = ()
        if _decides_queues(deployment, node_plan, host, root):
            unfit = unfit_queues(rows, node_plan.queues.kind is model.Queues.QUORUM)
        found = parse_rabbit(own, status, "", silent)
        return dataclasses.replace(found, unfit=tuple(unfit), thin=tuple(thin_queues(rows, found.running)))
    address = broker_plan.metrics
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
    deployment: model.Deployment, node_plan: plan.Plan, broker_plan: broker.BrokerPlan, members: typing.Iterable[str]
) -> typing.Iterator[str]:
    """Yield the other members of the cluster that hang.

    RabbitMQ counts one that hangs among the running for a minute (Erlang's net_ticktime); 4.0.5 even tells its version.
    """
    nodes = {broker.node_name(node): node for node in deployment.nodes if node != node_plan.node}
    port = broker_plan.listener.port
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


def _listens(node_plan: plan.Plan, broker_plan: broker.BrokerPlan) -> bool:
    """Return whether clients could connect; the kernel takes connections for a program that hangs, too."""
    try:
        socket.create_connection(
            (node_plan.node.address, broker_plan.listener.port), timeout=routers.PEER_SECONDS
        ).close()
    except OSError:
        return False
    return True


class _NoMetricsError(Exception):
    """A metrics port cannot be read; ``str()`` is a clause that says why."""


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


def _decides_queues(deployment: model.Deployment, node_plan: plan.Plan, host: layout.Host, root: pathlib.Path) -> bool:
    """Return whether the metadata, and not an operator's own option, decides which type of queue services declare."""
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


def _local_queues(
    broker_plan: broker.BrokerPlan, host: layout.Host, root: pathlib.Path
) -> typing.Iterator[tuple[str, typing.Mapping[str, typing.Any]]]:
    """Yield (virtual host, row) of the queues that this broker leads. Others are asked on their own nodes: a question
    to all waits a minute for a member that is not well."""
    columns = ("name", "type", "exclusive", "members")  # the last is of quorum queues alone
    for vhost in [str(row["name"]) for row in broker_plan.definitions["vhosts"]]:
        with contextlib.suppress(errors.ProcessFailed):
            for row in _ctl(broker_plan, host, root, "list_queues", "--local", "--vhost", vhost, *columns) or ():
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


def parse_rabbit(
    own: str, status: typing.Any, metrics: str, silent: typing.Collection[str] = ()
) -> observed.BrokerSeen:
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
    return observed.BrokerSeen(
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


def _ctl(broker_plan: broker.BrokerPlan, host: layout.Host, root: pathlib.Path, *command: str) -> typing.Any:
    """Return what rabbitmqctl prints as JSON, None when it fails.

    :raises om_agent.errors.ProcessFailed: when it is not installed or does not end.
    """
    done = live_broker.Control(broker_plan, root, bool(host.prefix)).ctl("--formatter", "json", *command)
    try:
        return json.loads(done.stdout) if done.returncode == 0 else None
    except ValueError:
        return None
