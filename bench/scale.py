"""How large a mesh can be: meshes of a few sizes are measured, and models fitted to them predict larger ones.

All routers run on this machine and share its cores, unlike those of a deployment. So the figures for one router are
more reliable than those for a whole mesh.
"""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import dataclasses
import importlib.resources
import importlib.util
import itertools
import json
import pathlib
import time
import types
import typing

import om_agent.errors
from om_agent import amqp, apply, host_facts, model, plan, render, verify
from om_agent.apply import locking
from om_agent.plan import services, topology

from bench import figures, machine, models, run
from testbed import errors, overcloud, processes, routers

_KNOW_SECONDS = 120.0
_CHANGE_SECONDS = 60.0
_CALM_SECONDS = 12.0  # after a change, routers advertise themselves every 4 s for 8 s, then every 30 s
_IDLE_SECONDS = 30.0
_RESTLESS_SECONDS = 10.0
_AFTER_SECONDS = 5.0  # for the work that a change causes after all routers know of it
_POLL = 0.1
_UNSETTLED_SECONDS = 10.0
_PACKAGES = {model.Engine.QDROUTERD: "qpid_dispatch_internal", model.Engine.SKROUTERD: "skupper_router_internal"}
_ROUTED = (25, 50, 100, 128)
_COMPUTED = 3


@dataclasses.dataclass(frozen=True)
class Shape:
    """A mesh to start.

    :param most_links: ``router.max_links``, 0 for the default.
    """

    interiors: int
    edges: int = 0
    most_links: int = 0


_SHAPES = (
    Shape(5), Shape(15), Shape(25), Shape(50), Shape(50, most_links=2), Shape(3, edges=60),
)  # fmt: skip
_LARGER_INTERIORS = (15, 25, 50, 75, 100, 128)
_BEYOND = (
    *(Shape(interiors) for interiors in _LARGER_INTERIORS),
    *(Shape(interiors, most_links=4) for interiors in _LARGER_INTERIORS),
    *(Shape(interiors, most_links=2) for interiors in _LARGER_INTERIORS),
    *(Shape(interiors, most_links=127) for interiors in _LARGER_INTERIORS),
    Shape(3, edges=1_000),
    Shape(3, edges=10_000),
    Shape(12, edges=10_000),
    Shape(128, edges=10_000),
)


def measure(context: run.Context) -> dict[str, typing.Any]:
    """Measure the meshes, each once, and the computation of routes. Then fit the models."""
    points = []
    for number, shape in enumerate(_SHAPES):
        cloud = _render(context, shape, number)
        size = models.Size.of(cloud.deployment, shape.edges, shape.most_links)
        context.say(f"{size.name}: {size.links} links")
        mesh = routers.Mesh(context.supervisor, cloud)
        trial = Trial(mesh)
        try:
            values = {"links": float(size.links), **trial.values()}
        finally:
            trial.close()
            context.supervisor.end(*(router.process for router in mesh.routers if router.process))
        points.append(models.Point(size, values))
        context.show(figures.Sample("scale", size.name, context.engine.value, 0, values, trial.foreign))
    context.say("computing routes as the engine does")
    return {"scale": models.report(points, _routes(context), _beyond(context))}


# -- meshes ----------------------------------------------------------------------------------------------------------


def _metadata(context: run.Context, shape: Shape) -> pathlib.Path:
    names = [(f"ctl-{number:03}", "controller") for number in range(shape.interiors)]
    names += [(f"cmp-{number:03}", "compute") for number in range(shape.edges)]
    thinned = {"max_links": shape.most_links} if shape.most_links else {}
    raw: dict[str, typing.Any] = {
        "rpc": {"scheme": "amqp", "username": "rpc", "password": "bench-rpc-secret", "tls": False},
        "notify": {"scheme": "rabbit", "password": "bench-notify-secret", "hosts": ["127.0.0.1"]},
        "router": {
            "engine": context.engine.value, "http_port": 0, "mesh_password": "bench-mesh-secret", **thinned,
        },
        "nodes": [
            {"name": name, "address": f"127.1.{number // 250}.{number % 250 + 1}", "role": role}
            for number, (name, role) in enumerate(names)
        ],
    }  # fmt: skip
    path = context.directory / f"{shape.interiors}-{shape.edges}-{shape.most_links}.json"
    path.write_text(json.dumps({"oslo_messaging": raw}))
    return path


def _render(context: run.Context, shape: Shape, number: int) -> overcloud.Overcloud:
    """Return an overcloud with the files that ``om-agent apply`` would write.

    They are written in this process, because starting the agent for each of fifty nodes takes long.
    """
    cloud = overcloud.create([_metadata(context, shape)], context.directory / f"mesh-{number}")
    overcloud.without_services(cloud.hosts)
    text = importlib.resources.files("om_agent").joinpath("data/services.yaml").read_text("utf-8")
    catalogue = services.parse_catalogue(text)
    for host in cloud.hosts:
        found = host_facts.gather(catalogue, host.root, relocate=True, manage_services=False)
        rendered = render.render(plan.build(cloud.deployment, host.node, catalogue, found), found)
        with locking.lock(host.root, 1) as lock:
            apply.apply(rendered, found, host.root, 1, lock)
    return cloud


class Trial:
    """The measurement of one mesh: its start, its rest, and the loss and return of one router."""

    def __init__(self, mesh: routers.Mesh) -> None:
        self._mesh = mesh
        self._interiors = {router.host.name: router for router in mesh.interiors}
        self._edges = [router for router in mesh.routers if router not in mesh.interiors]
        self._client: amqp.Client | None = None
        self.foreign = 0.0

    def close(self) -> None:
        """Close the management connection. It must not exist while the mesh is measured at rest."""
        if self._client:
            self._client.close()
        self._client = None

    def values(self) -> dict[str, float]:
        """Measure the mesh. Leave out the figures of what did not happen in time."""
        for router in self._mesh.routers:
            router.start()
        begun = time.monotonic()
        for router in self._mesh.routers:
            router.wait()
        all_names = set(self._interiors)
        seconds = self._agree(all_names, begun, _KNOW_SECONDS)
        values = {models.AT_REST: float(seconds is not None), "CPU s at start": self._used()}
        if seconds is None:
            return {**values, **self._unsettled(all_names), **self._idle(counted=False)}
        values["know each other s"] = seconds
        time.sleep(_CALM_SECONDS)
        values.update(self._idle(counted=True))
        return {**values, **self._loss(values["idle cores"])}

    # -- which routers know each other --

    def _ask(self, name: str, entity: str) -> list[amqp.Row] | None:
        """Query a router through the first one. Return None when it does not answer."""
        first = next(iter(self._interiors))
        try:
            if not self._client:
                self._client = self._interiors[first].manage()
            return self._client.query(entity, "" if name == first else name)
        except om_agent.errors.Unreachable:
            self.close()
            return None

    def _reached(self, name: str) -> set[str]:
        rows = self._ask(name, "router.node")
        return set(verify.reachable(rows, name)) if rows else set()

    def _uplinks(self, names: collections.abc.Iterable[str]) -> int:
        count = 0
        for name in names:
            rows = self._ask(name, "connection") or ()
            count += sum(row["role"] == "edge" and row["opened"] for row in rows)
        return count

    def _agree(self, wanted: set[str], begun: float, seconds: float) -> float | None:
        """Wait until each router of ``wanted`` reaches exactly these.

        When ``wanted`` are all interiors, every edge must have both uplinks, too.

        :return: the seconds since ``begun``, None when it took longer than ``seconds``.
        """
        names = itertools.cycle(sorted(wanted))
        name = next(names)
        in_a_row = 0  # routers that gave the right answer
        uplinks = 2 * len(self._edges) if wanted == set(self._interiors) else 0
        while time.monotonic() < begun + seconds:
            if self._reached(name) != wanted:
                in_a_row = 0
                time.sleep(_POLL)
                continue
            name = next(names)
            in_a_row += 1
            if in_a_row >= len(wanted):
                if not uplinks or self._uplinks(wanted) == uplinks:
                    return time.monotonic() - begun
                time.sleep(_POLL)
        return None

    def _unsettled(self, names: set[str]) -> dict[str, float]:
        """Return how many routers answer and how many others they reach, in a mesh that did not come to rest."""
        deadline = time.monotonic() + _UNSETTLED_SECONDS
        counts = []
        for name in sorted(names):
            if time.monotonic() < deadline:
                counts.append(len(self._reached(name)))
        answers = [count for count in counts if count]
        return {
            "routers that answered": len(answers),
            "reached by these": sum(answers) / len(answers) if answers else 0.0,
        }

    # -- what it needs --

    def _processes(self, some: collections.abc.Iterable[routers.Router]) -> list[processes.Process]:
        return [router.process for router in some if router.process]

    def _used(self) -> float:
        return machine.used(self._processes(self._mesh.routers))

    def _control(self) -> dict[str, tuple[float, int]]:
        """Return by interior the time of the query, and how many messages it had sent over its control links."""
        found = {}
        for name in self._interiors:
            rows = self._ask(name, "router.link")
            if rows is not None:
                control = [row for row in rows if (row["linkType"], row["linkDir"]) == ("router-control", "out")]
                sent = sum(row["deliveryCount"] for row in control)
                found[name] = (time.monotonic(), sent)
        return found

    def _idle(self, counted: bool) -> dict[str, float]:
        """Return what the mesh uses while no client sends anything.

        :param counted: whether to count the messages between routers, too. A mesh that does not come to rest answers
            too late for that.
        """
        interiors = self._processes(self._interiors.values())
        edges = self._processes(self._edges)
        messages_before = self._control() if counted else {}
        self.close()
        time.sleep(1)
        before = machine.Usage.now((), interiors + edges)
        bytes_before, packets_before = _loopback()
        interiors_cpu = -_to_the_nanosecond(interiors)
        edges_cpu = -_to_the_nanosecond(edges)
        time.sleep(_IDLE_SECONDS if counted else _RESTLESS_SECONDS)
        interiors_cpu += _to_the_nanosecond(interiors)
        edges_cpu += _to_the_nanosecond(edges)
        after = machine.Usage.now((), interiors + edges)
        bytes_after, packets_after = _loopback()
        seconds = after.at - before.at
        self.foreign = before.foreign(after)
        values = {
            "idle cores": (interiors_cpu + edges_cpu) / seconds,
            models.IDLE: interiors_cpu / seconds / len(interiors),
            "memory by interior MiB": machine.resident(interiors) / len(interiors),
            "connections": _connections(),
            "kB/s": (bytes_after - bytes_before) / seconds / 1000,
            "packets/s": (packets_after - packets_before) / seconds,
        }
        if edges:
            values["idle cores by edge"] = edges_cpu / seconds / len(edges)
            values["memory by edge MiB"] = machine.resident(edges) / len(edges)
        messages_after = self._control() if counted else {}
        rates = _rates(messages_before, messages_after)
        if len(rates) == len(interiors):
            values[models.MESSAGES] = sum(rates)
        return values

    def _loss(self, idle: float) -> dict[str, float]:
        """Kill the last interior, and start it again.

        :param idle: cores that the mesh uses at rest.
        """
        name, lost = list(self._interiors.items())[-1]
        others = set(self._interiors) - {name}
        self._reached(min(others))  # logs in now, so that the login is not measured
        cpu_of_lost = machine.cpu(lost.process) if lost.process else 0.0
        cpu_before = self._used() - cpu_of_lost
        begun = time.monotonic()
        lost.kill()
        lost.process = None
        until_noticed = self._agree(others, begun, _CHANGE_SECONDS)
        time.sleep(_AFTER_SECONDS)
        cpu = self._used() - cpu_before
        cpu_at_rest = idle * (time.monotonic() - begun)
        values = {"CPU s by loss": max(0.0, cpu - cpu_at_rest)}
        lost.start()
        begun = time.monotonic()
        until_back = self._agree(set(self._interiors), begun, _CHANGE_SECONDS)
        if until_noticed is not None:
            values["lost s"] = until_noticed
        if until_back is not None:
            values["back s"] = until_back
        return values


def _rates(
    before: collections.abc.Mapping[str, tuple[float, int]], after: collections.abc.Mapping[str, tuple[float, int]]
) -> list[float]:
    """Return the messages per second of each router that answered both times."""
    rates = []
    for name, (time_before, sent_before) in before.items():
        if name in after:
            time_after, sent_after = after[name]
            rates.append((sent_after - sent_before) / (time_after - time_before))
    return rates


def _to_the_nanosecond(some: collections.abc.Iterable[processes.Process]) -> float:
    """Return the CPU seconds of processes. A clock tick is too coarse for a router at rest, a nanosecond is not."""
    total = 0
    for process in some:
        for path in pathlib.Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):  # the thread has ended meanwhile
                total += int(path.read_text().split()[0])
    return total / 1e9


def _loopback() -> tuple[int, int]:
    """Return the bytes and packets that the loopback device has received (proc(5)). Only this benchmark uses it."""
    lines = pathlib.Path("/proc/self/net/dev").read_text().splitlines()
    fields = next(line.split() for line in lines if line.strip().startswith("lo:"))
    return int(fields[1]), int(fields[2])


def _connections() -> float:
    """Return the number of connections. The table lists both ends of each."""
    rows = pathlib.Path("/proc/self/net/tcp").read_text().splitlines()[1:]
    return sum(row.split()[3] == "01" for row in rows) / 2


# -- computing routes ------------------------------------------------------------------------------------------------


def path_engine(engine: model.Engine) -> types.ModuleType:
    """Return the engine's module that computes routes. It is Python and needs no other part of the engine.

    :raises testbed.errors.TestbedError: when the module is not installed together with the program.
    """
    program = pathlib.Path((routers.find(engine) or ("",))[0]).resolve()
    for place in ("lib*/*/python", "lib*/python3*/*-packages"):
        for path in program.parent.parent.glob(f"{place}/{_PACKAGES[engine]}/router/path.py"):
            spec = importlib.util.spec_from_file_location("engine_path", path)
            if spec and spec.loader:
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                return module
    raise errors.TestbedError(
        f"The Python module with which {engine.value} computes routes is missing from the installation of {program}."
    )


def _routes(context: run.Context) -> list[models.Point]:
    """Return how long one computation takes in meshes of many sizes, with the default ``max_links`` and with all links.

    The time is the shortest of several computations.
    """
    module = typing.cast(typing.Any, path_engine(context.engine))
    points = []
    for count, (most_links, value) in itertools.product(_ROUTED, models.ROUTES.items()):
        deployment = overcloud.load([_metadata(context, Shape(count, most_links=most_links))])
        peers: dict[str, dict[str, int]] = collections.defaultdict(dict)
        for link in topology.interior_links(deployment):
            peers[link.source][link.target] = peers[link.target][link.source] = 1
        states = {name: types.SimpleNamespace(peers=own_peers) for name, own_peers in peers.items()}
        path_finder = module.PathEngine(types.SimpleNamespace(id=min(states)))
        seconds = []
        for _ in range(_COMPUTED):
            begun = time.thread_time()
            path_finder.calculate_routes(states)
            seconds.append(time.thread_time() - begun)
        points.append(models.Point(models.Size(count, most_links=most_links), {value: min(seconds)}))
    return points


def _beyond(context: run.Context) -> list[models.Size]:
    """Return the sizes of the larger meshes that the planner makes. Many are too large to start on one machine."""
    sizes = []
    for shape in _BEYOND:
        without_edges = dataclasses.replace(shape, edges=0)  # edges do not change the links between interiors
        deployment = overcloud.load([_metadata(context, without_edges)])
        sizes.append(models.Size.of(deployment, shape.edges, shape.most_links))
    return sizes
