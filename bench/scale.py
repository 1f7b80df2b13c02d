"""How far a mesh goes: real ones of a few sizes, models fitted to what they needed, and what those say of larger ones.

Every router runs here, so that they share the cores of one machine, which a deployment's do not: figures by router are
worth more than those of the whole.
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

from om_agent import amqp, apply, errors, host_facts, model, plan, render, verify
from om_agent.apply import locking
from om_agent.plan import services, topology

from bench import figures, machine, models, run
from testbed import errors as testbed_errors
from testbed import overcloud, processes, routers

_KNOW_SECONDS = 120.0
_CHANGE_SECONDS = 60.0
_CALM_SECONDS = 12.0  # after a change routers advertise themselves every 4 s, for 8 s; then every 30 s
_IDLE_SECONDS = 30.0
_RESTLESS_SECONDS = 10.0
_AFTER_SECONDS = 5.0  # what a change still has to do when all know of it
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
_BEYOND = tuple(Shape(n, most_links=m) for m, n in itertools.product((0, 4, 2, 127), (15, 25, 50, 75, 100, 128)))
_BEYOND += tuple(Shape(n, edges=e) for n, e in ((3, 1_000), (3, 10_000), (12, 10_000), (128, 10_000)))


def measure(context: run.Context) -> dict[str, typing.Any]:
    """Start the meshes one after the other, and once; then compute."""
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
            context.supervisor.end(*(r.process for r in mesh.routers if r.process))
        points.append(models.Point(size, values))
        context.show(figures.Sample("scale", size.name, context.engine.value, 0, values, trial.foreign))
    context.say("computing routes as the engine does")
    return {"scale": models.report(points, _routes(context), _beyond(context))}


# -- meshes ----------------------------------------------------------------------------------------------------------


def _metadata(context: run.Context, shape: Shape) -> pathlib.Path:
    names = [(f"ctl-{i:03}", "controller") for i in range(shape.interiors)]
    names += [(f"cmp-{i:03}", "compute") for i in range(shape.edges)]
    thinned = {"max_links": shape.most_links} if shape.most_links else {}
    raw: dict[str, typing.Any] = {
        "rpc": {"scheme": "amqp", "username": "rpc", "password": "bench-rpc-secret", "tls": False},
        "notify": {"scheme": "rabbit", "password": "bench-notify-secret", "hosts": ["127.0.0.1"]},
        "router": {
            "engine": context.engine.value, "http_port": 0, "mesh_password": "bench-mesh-secret", **thinned,
        },
        "nodes": [
            {"name": name, "address": f"127.1.{i // 250}.{i % 250 + 1}", "role": role}
            for i, (name, role) in enumerate(names)
        ],
    }  # fmt: skip
    path = context.directory / f"{shape.interiors}-{shape.edges}-{shape.most_links}.json"
    path.write_text(json.dumps({"oslo_messaging": raw}))
    return path


def _render(context: run.Context, shape: Shape, number: int) -> overcloud.Overcloud:
    """Return an overcloud whose nodes have what ``om-agent apply`` would write, done here: fifty of it take long."""
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
    """One mesh: started, left alone, one router lost and back again."""

    def __init__(self, mesh: routers.Mesh) -> None:
        self._mesh = mesh
        self._interiors = {router.host.name: router for router in mesh.interiors}
        self._edges = [router for router in mesh.routers if router not in mesh.interiors]
        self._client: amqp.Client | None = None
        self.foreign = 0.0

    def close(self) -> None:
        """End the connection over which routers are asked; as long as it is idle it must not be there."""
        if self._client:
            self._client.close()
        self._client = None

    def values(self) -> dict[str, float]:
        """Do all of it; what did not happen in time has no figure."""
        for router in self._mesh.routers:
            router.start()
        begun = time.monotonic()
        for router in self._mesh.routers:
            router.wait()
        all_names = set(self._interiors)
        took = self._agree(all_names, begun, _KNOW_SECONDS)
        values = {models.AT_REST: float(took is not None), "CPU s at start": self._used()}
        if took is None:
            return {**values, **self._unsettled(all_names), **self._idle(counted=False)}
        values["know each other s"] = took
        time.sleep(_CALM_SECONDS)
        values.update(self._idle(counted=True))
        return {**values, **self._loss(values["idle cores"])}

    # -- who knows whom --

    def _ask(self, name: str, entity: str) -> list[amqp.Row] | None:
        """Return what a router says, asked through the first one; None when it says nothing."""
        eye = next(iter(self._interiors))
        try:
            if not self._client:
                self._client = self._interiors[eye].manage()
            return self._client.query(entity, "" if name == eye else name)
        except errors.Unreachable:
            self.close()
            return None

    def _reached(self, name: str) -> set[str]:
        rows = self._ask(name, "router.node")
        return set(verify.reachable(rows, name)) if rows else set()

    def _uplinks(self, names: collections.abc.Iterable[str]) -> int:
        rows = itertools.chain.from_iterable(self._ask(name, "connection") or () for name in names)
        return sum(row["role"] == "edge" and row["opened"] for row in rows)

    def _agree(self, wanted: set[str], begun: float, seconds: float) -> float | None:
        """Wait until each router of ``wanted`` reaches these and no other, and every edge has both uplinks if all
        interiors are there; return how long after ``begun`` that was, None when it was not within ``seconds``."""
        names = itertools.cycle(sorted(wanted))
        name, good = next(names), 0
        complete = wanted == set(self._interiors)
        while time.monotonic() < begun + seconds:
            if self._reached(name) != wanted:
                good = 0
                time.sleep(_POLL)
                continue
            name, good = next(names), good + 1
            if good >= len(wanted):
                if not complete or self._uplinks(wanted) == 2 * len(self._edges):
                    return time.monotonic() - begun
                time.sleep(_POLL)
        return None

    def _unsettled(self, names: set[str]) -> dict[str, float]:
        """Return what routers know that do not all know each other."""
        deadline = time.monotonic() + _UNSETTLED_SECONDS
        found = []
        for name in sorted(names):
            if time.monotonic() < deadline:
                found.append(len(self._reached(name)))
        answers = [count for count in found if count]
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
        """Return by interior when it was asked, and how many messages it had sent over its control links."""
        found = {}
        for name in self._interiors:
            rows = self._ask(name, "router.link")
            if rows is not None:
                sent = [r["deliveryCount"] for r in rows if (r["linkType"], r["linkDir"]) == ("router-control", "out")]
                found[name] = (time.monotonic(), sum(sent))
        return found

    def _idle(self, counted: bool) -> dict[str, float]:
        """Return what is used when nobody sends anything.

        :param counted: ask for the messages too, which a mesh that does not come to rest answers too late.
        """
        inner, outer = self._processes(self._interiors.values()), self._processes(self._edges)
        counts = self._control() if counted else {}
        self.close()
        time.sleep(1)
        before, carried = machine.Usage.now((), inner + outer), _loopback()
        used, edges = _to_the_nanosecond(inner), _to_the_nanosecond(outer)
        time.sleep(_IDLE_SECONDS if counted else _RESTLESS_SECONDS)
        used, edges = _to_the_nanosecond(inner) - used, _to_the_nanosecond(outer) - edges
        after, now = machine.Usage.now((), inner + outer), _loopback()
        seconds = after.at - before.at
        self.foreign = before.foreign(after)
        values = {
            "idle cores": (used + edges) / seconds,
            models.IDLE: used / seconds / len(inner),
            "memory by interior MiB": machine.resident(inner) / len(inner),
            "connections": _connections(),
            "kB/s": (now[0] - carried[0]) / seconds / 1000,
            "packets/s": (now[1] - carried[1]) / seconds,
        }
        if outer:
            values["idle cores by edge"] = edges / seconds / len(outer)
            values["memory by edge MiB"] = machine.resident(outer) / len(outer)
        later = self._control() if counted else {}
        rates = [(later[n][1] - sent) / (later[n][0] - at) for n, (at, sent) in counts.items() if n in later]
        if len(rates) == len(inner):
            values[models.MESSAGES] = sum(rates)
        return values

    def _loss(self, idle: float) -> dict[str, float]:
        """Kill the last interior, and start it again.

        :param idle: cores that are used anyway.
        """
        name, lost = list(self._interiors.items())[-1]
        rest = set(self._interiors) - {name}
        self._reached(min(rest))  # logs in, so that this is not measured
        own = machine.cpu(lost.process) if lost.process else 0.0
        used, begun = self._used() - own, time.monotonic()
        lost.kill()
        lost.process = None
        gone = self._agree(rest, begun, _CHANGE_SECONDS)
        time.sleep(_AFTER_SECONDS)
        values = {"CPU s by loss": max(0.0, self._used() - used - idle * (time.monotonic() - begun))}
        lost.start()
        begun = time.monotonic()
        back = self._agree(set(self._interiors), begun, _CHANGE_SECONDS)
        values.update({"lost s": gone} if gone is not None else {})
        values.update({"back s": back} if back is not None else {})
        return values


def _to_the_nanosecond(some: collections.abc.Iterable[processes.Process]) -> float:
    """Return the CPU seconds of processes, to the nanosecond, since a router at rest uses few of a clock's ticks."""
    total = 0
    for process in some:
        for path in pathlib.Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):  # the thread has just ended
                total += int(path.read_text().split()[0])
    return total / 1e9


def _loopback() -> tuple[int, int]:
    """Return bytes and packets that came over the loopback device so far; here nobody else uses it (proc(5))."""
    lines = pathlib.Path("/proc/self/net/dev").read_text().splitlines()
    fields = next(line.split() for line in lines if line.strip().startswith("lo:"))
    return int(fields[1]), int(fields[2])


def _connections() -> float:
    """Return how many connections there are; both ends of each are here."""
    rows = pathlib.Path("/proc/self/net/tcp").read_text().splitlines()[1:]
    return sum(row.split()[3] == "01" for row in rows) / 2


# -- computing routes ------------------------------------------------------------------------------------------------


def path_engine(engine: model.Engine) -> types.ModuleType:
    """Return the engine's own computation of routes, Python that needs nothing of the rest.

    :raises testbed.errors.TestbedError: when it is not found beside the program.
    """
    program = pathlib.Path((routers.find(engine) or ("",))[0]).resolve()
    for place in ("lib*/*/python", "lib*/python3*/*-packages"):
        for path in program.parent.parent.glob(f"{place}/{_PACKAGES[engine]}/router/path.py"):
            spec = importlib.util.spec_from_file_location("engine_path", path)
            if spec and spec.loader:
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                return module
    raise testbed_errors.TestbedError(
        f"The computation of routes of {engine.value} is not found where {program} is installed."
    )


def _routes(context: run.Context) -> list[models.Point]:
    """Return how long one computation takes in meshes of many sizes, thinned and not."""
    module = typing.cast(typing.Any, path_engine(context.engine))
    found = []
    for count, (most, value) in itertools.product(_ROUTED, models.ROUTES.items()):
        d = overcloud.load([_metadata(context, Shape(count, most_links=most))])
        peers: dict[str, dict[str, int]] = collections.defaultdict(dict)
        for link in topology.interior_links(d):
            peers[link.source][link.target] = peers[link.target][link.source] = 1
        states = {name: types.SimpleNamespace(peers=own) for name, own in peers.items()}
        engine = module.PathEngine(types.SimpleNamespace(id=min(states)))
        took = []
        for _ in range(_COMPUTED):
            begun = time.thread_time()
            engine.calculate_routes(states)
            took.append(time.thread_time() - begun)
        found.append(models.Point(models.Size(count, most_links=most), {value: min(took)}))
    return found


def _beyond(context: run.Context) -> list[models.Size]:
    """Return meshes of which many are too large to be started here, as the planner lays them out."""
    found = []
    for shape in _BEYOND:
        alone = dataclasses.replace(shape, edges=0)  # edges have no part in the links between interiors
        found.append(models.Size.of(overcloud.load([_metadata(context, alone)]), shape.edges, shape.most_links))
    return found
