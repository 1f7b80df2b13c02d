"""Looking at what services have: their connections and links at this node's router, and their units."""

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

STILL_SECONDS = 10.0  # both engines call a delivery stuck after as long
PAUSE = 1.0
_CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd")  # version 2 and 1
_SYSTEMCTL_SECONDS = 10.0
# A driver tries again after up to 30 s, and a service needs its time to start: until then nobody is missed.
_SETTLED_SECONDS = 60.0
_LINK = (
    "connectionId", "linkName", "linkDir", "linkType", "owningAddr", "undeliveredCount", "unsettledCount",
    "deliveryCount", "acceptedCount", "rejectedCount", "releasedCount", "modifiedCount",
)  # fmt: skip
_CONNECTION = ("identity", "container", "role", "user", "host", "properties", "opened")
_ESTABLISHED = "01"  # in /proc/net/tcp
_OUTCOMES = ("acceptedCount", "rejectedCount", "releasedCount", "modifiedCount")
# Units that serve calls from their start on, whatever is configured, and so have a connection. Those that only make
# calls, such as every API, connect with the first one; neutron-server serves nobody where ML2 has no agents.
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
) -> clients.Seen:
    """Return what the services connected to this node's router have.

    Where a link holds messages it is looked at again, until it has moved or `STILL_SECONDS` are over; so a router at
    which nothing waits is looked at once.

    :param uptime: seconds since the router started.
    :param units: that should be connected.
    """
    rows = client.query("connection", attributes=_CONNECTION)
    links = _links(client)
    found = {str(row["identity"]): row for row in rows if amqp.is_client(row)}
    known = {identity: _client(row, links.get(identity, {}).values()) for identity, row in found.items()}
    waiting = {(c, name): _moved(link) for c in known for name, link in links.get(c, {}).items() if _held(link)}
    begun = time.monotonic()
    while waiting and time.monotonic() - begun < STILL_SECONDS:
        time.sleep(PAUSE)
        links = _links(client)
        waiting = {
            (c, name): moved
            for (c, name), moved in waiting.items()
            if _held(links.get(c, {}).get(name, {})) and _moved(links[c][name]) == moved
        }
    still = [(known[c], links[c][name]) for c, name in waiting]
    everybody = (*known.values(), *_elsewhere(deployment, router_plan, client, units))
    missed = units if uptime >= _SETTLED_SECONDS else ()
    return clients.Seen(
        clients=tuple(known.values()),
        total=len(rows),
        still=tuple(
            clients.Still(one, clients.address_of(link["owningAddr"]), link["linkDir"] == "out", _held(link))
            for one, link in still
        ),
        seconds=time.monotonic() - begun,
        units=clients.unconnected(missed, everybody, socket.gethostname()),
    )


def _links(client: amqp.Client) -> dict[str, dict[str, amqp.Row]]:
    """Return the links of every connection by name."""
    found: dict[str, dict[str, amqp.Row]] = {}
    for row in client.query("router.link", attributes=_LINK):
        if row["linkType"] == "endpoint":
            found.setdefault(str(row["connectionId"]), {})[str(row["linkName"])] = row
    return found


def _client(row: amqp.Row, links: typing.Iterable[amqp.Row]) -> clients.Client:
    told = row.get("properties") or {}
    ways = [link["linkDir"] for link in links]
    return clients.Client(
        container=str(row.get("container") or ""),
        host=str(row.get("host") or ""),
        user=str(row.get("user") or ""),
        process=str(told.get("process") or ""),
        pid=int(told["pid"]) if re.fullmatch("[0-9]{1,9}", str(told.get("pid"))) else 0,
        node=str(told.get("node") or ""),
        senders=ways.count("in"),
        receivers=ways.count("out"),
    )


def _held(link: amqp.Row) -> int:
    """Return how many messages wait on a link."""
    return int(link.get("undeliveredCount") or 0) + int(link.get("unsettledCount") or 0)


def _moved(link: amqp.Row) -> tuple[int, int]:
    """Return counts that grow when a message is dealt with; of pre-settled ones only that they went out is known."""
    settled = sum(int(link.get(name) or 0) for name in _OUTCOMES)
    return settled, 0 if link.get("unsettledCount") else int(link.get("deliveryCount") or 0)


def _elsewhere(
    deployment: model.Deployment,
    router_plan: router.RouterPlan,
    client: amqp.Client,
    units: typing.Sequence[clients.Unit],
) -> typing.Iterator[clients.Client]:
    """Yield services' connections at the other interior routers, where services of this node may have theirs."""
    if not units or deployment.router.clients is not model.Clients.MESH:
        return
    for name in router_plan.interiors:
        if name != router_plan.node.name:
            with contextlib.suppress(errors.Unreachable):
                rows = client.query("connection", router=name, attributes=_CONNECTION)
                yield from (_client(row, ()) for row in rows if amqp.is_client(row))


# -- units -----------------------------------------------------------------------------------------------------------


def units(deployment: model.Deployment, node_plan: plan.Plan, host: layout.Host) -> tuple[clients.Unit, ...]:
    """Return the units here that have run for a while and serve calls over this node's router or broker; none where
    systemd does not run, or where calls go to hosts outside the overcloud."""
    files = {
        unit: file.path
        for file in node_plan.config_files
        for unit in file.units
        if unit.rpartition("openstack-")[2] in SERVING and _has_transport(file)
    }
    systemctl = proc.find("systemctl")
    if not (host.manage_services and files and systemctl and not deployment.rpc.external):
        return ()
    wanted = "Id,ActiveState,MainPID,ControlGroup,ActiveEnterTimestampMonotonic"
    try:
        done = proc.run(
            [systemctl, "show", f"--property={wanted}", "--", *(f"{u}.service" for u in files)], _SYSTEMCTL_SECONDS
        )
    except errors.ProcessFailed:
        return ()
    return tuple(_running(done.stdout, files, time.monotonic()))


def _has_transport(file: services.ConfigFile) -> bool:
    return any(setting.key == "transport_url" and setting.value for setting in file.settings)


def _running(told: str, files: typing.Mapping[str, str], now: float) -> typing.Iterator[clients.Unit]:
    """Yield the units of what ``systemctl show`` says.

    :param now: on the monotonic clock, as systemd's times are.
    """
    for block in told.split("\n\n"):
        row = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        name = row.get("Id", "").removesuffix(".service")
        started = int(row.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
        if name in files and row.get("ActiveState") == "active" and now - started >= _SETTLED_SECONDS:
            pids = {int(row.get("MainPID") or 0), *_processes(row.get("ControlGroup", ""))} - {0}
            if pids:
                yield clients.Unit(name, files[name], frozenset(pids))


def _processes(group: str) -> typing.Iterator[int]:
    """Yield the processes of a control group and of those below it."""
    for top in _CGROUPS if group.strip("/") else ():
        with contextlib.suppress(OSError, ValueError):
            for file in pathlib.Path(top + group).rglob("cgroup.procs"):
                yield from map(int, file.read_text().split())


def unconnected_to(port: int, asked: typing.Iterable[clients.Unit]) -> tuple[clients.Unit, ...]:
    """Return the units none of whose processes has a TCP connection to that port, whosever it is.

    So it is seen of brokers: rabbitmqctl would ask all members of the cluster, and wait half a minute for one that is
    not well. A process whose files this user may not see is taken to have one.
    """
    return tuple(unit for unit in asked if not _has_connection(unit, port))


def _has_connection(unit: clients.Unit, port: int) -> bool:
    return any(_is_connected(pid, port) for pid in unit.pids)


def _is_connected(pid: int, port: int) -> bool:
    process = pathlib.Path(f"/proc/{pid}")
    open_files = set()
    rows = []
    try:
        for file in (process / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since
                open_files.add(os.readlink(file))
        for name in ("tcp", "tcp6"):
            rows += [line.split() for line in (process / "net" / name).read_text().splitlines()[1:]]
    except PermissionError:
        return True
    except OSError:  # it has just ended
        return False
    return any(
        row[3] == _ESTABLISHED and int(row[2].rpartition(":")[2], 16) == port and f"socket:[{row[9]}]" in open_files
        for row in rows
    )
