"""Look at the connections and links of services at this node's router, and at the units of services."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import socket
import time
import typing

from om_agent import amqp, clients, errors, model, plan, proc
from om_agent.plan import layout, router, services

STUCK_SECONDS = 10.0  # both engines call a delivery stuck after this time
PAUSE = 1.0
_CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd")  # version 2 and 1
_SYSTEMCTL_SECONDS = 10.0
# A driver tries to connect again after up to 30 s, and a service needs time to start. Until then the agent does not
# report a missing connection.
_SETTLED_SECONDS = 60.0
_LINK = (
    "connectionId", "linkName", "linkDir", "linkType", "owningAddr", "undeliveredCount", "unsettledCount",
    "deliveryCount", "acceptedCount", "rejectedCount", "releasedCount", "modifiedCount",
)  # fmt: skip
_CONNECTION = ("identity", "container", "role", "user", "host", "properties", "opened")
_REMOTE, _STATE, _INODE = 2, 3, 9  # columns of /proc/net/tcp
_ESTABLISHED = "01"
_UNIT_PROPERTIES = "Id,ActiveState,MainPID,ControlGroup,ActiveEnterTimestampMonotonic"
_OUTCOMES = ("acceptedCount", "rejectedCount", "releasedCount", "modifiedCount")
# Units that serve calls as soon as they have started, whatever is configured, and so have a connection. Units that only
# make calls, such as every API, connect with the first call. neutron-server serves no calls where ML2 has no agents.
SERVING = frozenset((
    "nova-compute", "nova-conductor", "nova-scheduler", "cinder-backup", "cinder-scheduler", "cinder-volume",
    "neutron-dhcp-agent", "neutron-l3-agent", "neutron-linuxbridge-agent", "neutron-metering-agent",
    "neutron-openvswitch-agent", "heat-engine", "manila-data", "manila-scheduler", "manila-share", "magnum-conductor",
    "octavia-worker", "designate-central", "designate-producer", "designate-worker", "mistral-engine",
    "mistral-executor", "sahara-engine", "trove-conductor", "trove-taskmanager", "watcher-applier",
    "watcher-decision-engine", "senlin-conductor", "senlin-engine", "barbican-worker", "blazar-manager",
    "masakari-engine", "murano-engine",
))  # fmt: skip


def look(
    deployment: model.Deployment,
    router_plan: router.RouterPlan,
    client: amqp.Client,
    uptime: int,
    units: typing.Sequence[clients.Unit],
) -> clients.ServicesSeen:
    """Return what the agent observes of the services that are connected to this node's router.

    It reads a link that holds messages again, until the link has moved or `STUCK_SECONDS` are over. So a router with no
    waiting messages is read once.

    :param uptime: seconds since the router started.
    :param units: units that should be connected.
    """
    rows = client.query("connection", attributes=_CONNECTION)
    links = _links(client)
    known = {}
    for row in filter(amqp.is_client, rows):
        identity = str(row["identity"])
        known[identity] = _client(row, links.get(identity, {}).values())
    begun = time.monotonic()
    stuck = _watch(client, known, links, begun + STUCK_SECONDS)
    all_clients = (*known.values(), *_at_other_routers(deployment, router_plan, client, units))
    expected = units if uptime >= _SETTLED_SECONDS else ()
    return clients.ServicesSeen(
        clients=tuple(known.values()),
        total=len(rows),
        stuck=tuple(stuck),
        seconds=time.monotonic() - begun,
        units=clients.unconnected(expected, all_clients, socket.gethostname()),
    )


Links = dict[str, dict[str, amqp.Row]]  # of each connection, by its identity and their names


def _watch(
    client: amqp.Client, known: typing.Mapping[str, clients.Client], links: Links, deadline: float
) -> list[clients.StuckLink]:
    """Return the links that hold messages and on which none moves before ``deadline``."""
    waiting = {}
    for identity in known:
        for name, link in links.get(identity, {}).items():
            if _held(link):
                waiting[identity, name] = _moved(link)
    while waiting and time.monotonic() < deadline:
        time.sleep(PAUSE)
        links = _links(client)
        waiting = {key: moved for key, moved in waiting.items() if _stands_still(links, key, moved)}
    stuck = []
    for identity, name in waiting:
        link = links[identity][name]
        address = clients.address_of(link["owningAddr"])
        stuck.append(clients.StuckLink(known[identity], address, link["linkDir"] == "out", _held(link)))
    return stuck


def _stands_still(links: Links, key: tuple[str, str], moved: tuple[int, int]) -> bool:
    identity, name = key
    link = links.get(identity, {}).get(name)
    return link is not None and _held(link) > 0 and _moved(link) == moved


def _links(client: amqp.Client) -> Links:
    """Return the links of every connection by name."""
    found: Links = {}
    for row in client.query("router.link", attributes=_LINK):
        if row["linkType"] == "endpoint":
            found.setdefault(str(row["connectionId"]), {})[str(row["linkName"])] = row
    return found


def _client(row: amqp.Row, links: typing.Iterable[amqp.Row]) -> clients.Client:
    properties = row.get("properties") or {}
    pid = str(properties.get("pid"))
    directions = [link["linkDir"] for link in links]
    return clients.Client(
        container=str(row.get("container") or ""),
        host=str(row.get("host") or ""),
        user=str(row.get("user") or ""),
        process=str(properties.get("process") or ""),
        pid=int(pid) if re.fullmatch("[0-9]{1,9}", pid) else 0,
        node=str(properties.get("node") or ""),
        senders=directions.count("in"),
        receivers=directions.count("out"),
    )


def _held(link: amqp.Row) -> int:
    """Return how many messages wait on a link."""
    return int(link.get("undeliveredCount") or 0) + int(link.get("unsettledCount") or 0)


def _moved(link: amqp.Row) -> tuple[int, int]:
    """Return counts that grow when the client deals with a message.

    Of pre-settled messages a router knows only that they were sent.
    """
    settled = sum(int(link.get(name) or 0) for name in _OUTCOMES)
    sent = 0 if link.get("unsettledCount") else int(link.get("deliveryCount") or 0)
    return settled, sent


def _at_other_routers(
    deployment: model.Deployment,
    router_plan: router.RouterPlan,
    client: amqp.Client,
    units: typing.Sequence[clients.Unit],
) -> typing.Iterator[clients.Client]:
    """Yield the clients of the other interior routers, where services of this node may be connected."""
    if not units or deployment.router.clients is not model.Clients.MESH:
        return
    for name in router_plan.interiors:
        if name == router_plan.node.name:
            continue
        with contextlib.suppress(errors.Unreachable):
            rows = client.query("connection", router=name, attributes=_CONNECTION)
            yield from (_client(row, ()) for row in rows if amqp.is_client(row))


# -- units -----------------------------------------------------------------------------------------------------------


def units(deployment: model.Deployment, node_plan: plan.Plan, host: layout.Host) -> tuple[clients.Unit, ...]:
    """Return the units here that have run for a while and serve calls over this node's router or broker.

    There are none where systemd does not run, or where calls go to hosts outside the overcloud.
    """
    files = {}
    for file in filter(_has_transport, node_plan.config_files):
        files.update({unit: file.path for unit in file.units if unit.rpartition("openstack-")[2] in SERVING})
    systemctl = proc.find("systemctl")
    if not (host.manage_services and files and systemctl and not deployment.rpc.external):
        return ()
    names = [f"{unit}.service" for unit in files]
    try:
        done = proc.run([systemctl, "show", f"--property={_UNIT_PROPERTIES}", "--", *names], _SYSTEMCTL_SECONDS)
    except errors.ProcessFailed:
        return ()
    return tuple(_running(done.stdout, files, time.monotonic()))


def _has_transport(file: services.ConfigFile) -> bool:
    return any(setting.key == "transport_url" and setting.value for setting in file.settings)


def _running(output: str, files: typing.Mapping[str, str], now: float) -> typing.Iterator[clients.Unit]:
    """Yield the units that run, from the output of ``systemctl show``.

    :param now: the monotonic clock, which systemd's times use as well.
    """
    for block in output.split("\n\n"):
        row = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        name = row.get("Id", "").removesuffix(".service")
        started = int(row.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
        if name not in files or row.get("ActiveState") != "active" or now - started < _SETTLED_SECONDS:
            continue
        main_pid = int(row.get("MainPID") or 0)
        pids = {main_pid, *_processes(row.get("ControlGroup", ""))} - {0}
        if pids:
            yield clients.Unit(name, files[name], frozenset(pids))


def _processes(group: str) -> typing.Iterator[int]:
    """Yield the processes of a control group and of the groups below it."""
    if not group.strip("/"):
        return
    for top in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):
            for file in pathlib.Path(top + group).rglob("cgroup.procs"):
                yield from map(int, file.read_text().split())


def unconnected_to(port: int, units: typing.Iterable[clients.Unit]) -> tuple[clients.Unit, ...]:
    """Return the units none of whose processes has a TCP connection to ``port`` of any host.

    This is how the agent examines the clients of brokers: rabbitmqctl would ask all members of the cluster, and wait
    half a minute for a member that hangs. A process counts as connected when the agent may not read its files.
    """
    return tuple(unit for unit in units if not _has_connection(unit, port))


def _has_connection(unit: clients.Unit, port: int) -> bool:
    return any(_is_connected(pid, port) for pid in unit.pids)


def _is_connected(pid: int, port: int) -> bool:
    process = pathlib.Path(f"/proc/{pid}")
    open_files = set()
    rows = []
    try:
        for file in (process / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the process has closed it in the meantime
                open_files.add(os.readlink(file))
        for name in ("tcp", "tcp6"):
            lines = (process / "net" / name).read_text().splitlines()
            rows += [line.split() for line in lines[1:]]
    except PermissionError:
        return True
    except OSError:  # the process has just ended
        return False
    return any(_is_open_to(port, row) and f"socket:[{row[_INODE]}]" in open_files for row in rows)


def _is_open_to(port: int, row: typing.Sequence[str]) -> bool:
    """Return whether a row of /proc/net/tcp is an established connection to ``port``."""
    remote_port = row[_REMOTE].rpartition(":")[2]
    return row[_STATE] == _ESTABLISHED and int(remote_port, 16) == port
