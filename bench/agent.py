"""The cost of the agent, compared with puppet alone and os-apply-config, and with a growing number of nodes.

Every figure is for a whole process with its children, from start to end. Memory is the highest resident memory of all
of them together, sampled every few milliseconds. The sides take turns in one root directory. Each one finds it in the
same state: either as packages leave it, or as it is after an apply.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import importlib.resources
import json
import math
import pathlib
import shutil
import subprocess
import sys
import typing

import om_agent.errors
from om_agent.apply import files, puppet
from om_agent.plan import layout, services

from bench import figures, machine, run
from testbed import errors, overcloud

PAIR = "agent"
NODES = (10, 100, 1_000, 4_000, 10_000)
SERVICES = (1, 10, 30)
COMMANDS = ("validate", "plan", "topology")
_NO_OP_SERVICES = 10
_SITE = 1_000  # nodes of one site, at most
_INTERIORS = 3  # of each site
_SECONDS = 300.0
_NODE = "controller-0-0"
_CHANGED = 2  # puppet's exit code for "there was something to do, and it is done"

# A process takes over the peak of what it was forked from, which here is all of the benchmark. This is small enough.
_TIMER = """\
import ctypes, glob, json, os, signal, sys, threading, time
PR_SET_PDEATHSIG, PAGES, EVERY = 1, os.sysconf("SC_PAGE_SIZE") / 2**20, 0.02

def resident(pid):
    try:
        own = int(open(f"/proc/{pid}/statm").read().split()[1]) * PAGES
        below = [int(p) for c in glob.glob(f"/proc/{pid}/task/*/children") for p in open(c).read().split()]
    except (OSError, IndexError):  # it has just ended
        return 0.0
    return own + sum(map(resident, below))

libc = ctypes.CDLL(None)
begun = time.monotonic()
pid = os.fork()
if not pid:
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.umask(0o077)
    os.execvp(sys.argv[2], sys.argv[2:])
seen = [0.0]

def watch():
    while True:
        seen.append(resident(pid))
        time.sleep(EVERY)

threading.Thread(target=watch, daemon=True).start()
_, status, used = os.wait4(pid, 0)
wall = time.monotonic() - begun
most = max(*seen, used.ru_maxrss / 1024)  # which alone knows one that ended before it was looked at
found = {"wall s": wall, "CPU s": used.ru_utime + used.ru_stime, "memory MiB": most}
with open(sys.argv[1], "w") as file:
    json.dump([os.waitstatus_to_exitcode(status), found], file)
"""


@dataclasses.dataclass(frozen=True)
class Command:
    """A program to run.

    :param expected: the exit code of a successful run.
    :param env: variables in addition to this process's environment.
    """

    side: str
    argv: tuple[str, ...]
    env: dict[str, str]
    expected: int = 0


def find() -> None:
    """Check that the programs to compare the agent with are installed.

    :raises testbed.errors.TestbedError: when puppet or os-apply-config is missing.
    """
    _tools()
    _os_apply_config_program()


def measure(context: run.Context) -> dict[str, typing.Any]:
    """Measure everything. The result besides the samples is how the cost grows with the number of nodes."""
    samples: list[figures.Sample] = []
    bench = _Bench(context, samples)
    with _own_log_directory(context.directory / "log"):
        for count in SERVICES:
            _applies(bench, count)
    _growing(bench)
    return {"agent": {"growth": {command: growth(samples, command) for command in COMMANDS}}}


class _Bench:
    """Run programs and show what they used."""

    def __init__(self, context: run.Context, samples: list[figures.Sample]) -> None:
        self.context = context
        self.directory = context.directory
        self._samples = samples

    def do(self, work: str, command: Command, repetition: int) -> None:
        """Run a program and show what it used."""
        before = machine.Usage.now((), ())
        values = self.take(f"{work.replace('/', '-')}-{command.side}", command)
        after = machine.Usage.now((), ())
        sample = figures.Sample(PAIR, work, command.side, repetition, values, before.foreign(after))
        self._samples.append(sample)
        self.context.show(sample)

    def take(self, name: str, command: Command) -> dict[str, float]:
        """Run a program and return what it used.

        :raises testbed.errors.TestbedError: when its exit code is not the expected one.
        """
        result = self.directory / "took.json"
        argv = [sys.executable, "-I", "-S", "-c", _TIMER, str(result), *command.argv]
        process = self.context.supervisor.start(name, argv, command.env)
        done = self.context.supervisor.finish(process, _SECONDS)
        code, values = done.returncode, {}
        if done.returncode == 0:
            code, values = json.loads(result.read_text())
        if code != command.expected:
            raise errors.TestbedError(f"{name} ended with {code} instead of {command.expected}.", done.output[-2000:])
        return typing.cast("dict[str, float]", values)


# -- apply -----------------------------------------------------------------------------------------------------------


def _applies(bench: _Bench, count: int) -> None:
    """Let each side configure a node with ``count`` services. For one count, also let it find nothing to do."""
    base = bench.directory / f"services-{count}"
    base.mkdir()
    metadata = _metadata(bench, _INTERIORS + 1)
    root, pristine, right = (base / name for name in ("node", "pristine", "right"))
    make_node(pristine, having(count))
    _reset(pristine, root)
    agent = _agent("apply", metadata, root)
    bench.take(f"services-{count}", agent)
    _reset(root, right)
    sides = (agent, _puppet(root), _os_apply_config(base, root))
    wanted = _service_files(right)
    for repetition in range(bench.context.repetitions):
        for side in sides:
            _reset(pristine, root)
            if side.side == "puppet":
                _give_hieradata(right, root)
                side = dataclasses.replace(side, expected=_CHANGED)
            bench.do(f"apply/first-{count}", side, repetition)
            if _service_files(root) != wanted:
                raise errors.TestbedError(f"The services' files of {side.side} are not those of the agent.")
    if count == _NO_OP_SERVICES:
        _reset(right, root)
        for repetition in range(bench.context.repetitions):
            for side in sides:
                bench.do("apply/no-op", side, repetition)
        if _service_files(root) != wanted:
            raise errors.TestbedError("Something was changed though there was nothing to do.")


def _catalogue() -> dict[str, services.Service]:
    text = importlib.resources.files("om_agent").joinpath("data/services.yaml").read_text("utf-8")
    return services.parse_catalogue(text)


def having(count: int) -> list[services.Service]:
    """Return ``count`` services that use messaging, nova first."""
    found = [service for service in _catalogue().values() if service.rpc or service.notify or service.listens]
    return sorted(found, key=lambda service: service.name != "nova")[:count]


def make_node(root: pathlib.Path, installed: collections.abc.Iterable[services.Service]) -> None:
    """Make a root directory with the services' files as packages leave them."""
    for service in installed:
        for file in service.files:
            path = root / file.path["debian"].lstrip("/")
            path.parent.mkdir(parents=True)
            section = f"[{file.section}]\nuse = egg:{service.name}\n" if file.section else "[DEFAULT]\n"
            path.write_text(f"{section}# {service.name}'s own\nstate_path = /var/lib/{service.name}\n")


def _reset(source: pathlib.Path, target: pathlib.Path) -> None:
    """Replace a tree by a copy of another. Its place never changes, because the hieradata contains it."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)


def _give_hieradata(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy the hieradata that the agent writes, and prepare puppet's work directory."""
    for path in (layout.HIERA_CONFIG, layout.HIERADATA):
        files.on_disk(target, path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(files.on_disk(source, path), files.on_disk(target, path))
    puppet.prepare(_puppet_directory(target), _tools())


def _service_files(root: pathlib.Path) -> dict[str, bytes]:
    """Return the services' files, without the files that only the agent writes."""
    found = {}
    for service in _catalogue().values():
        for file in service.files:
            path = root / file.path["debian"].lstrip("/")
            if path.exists():
                found[str(path.relative_to(root))] = path.read_bytes()
    return found


def _agent(command: str, metadata: pathlib.Path, root: pathlib.Path | None, *more: str) -> Command:
    where = ("--node", _NODE, "--root", str(root), "--relocate", "--no-services") if root else ()
    argv = (sys.executable, "-m", "om_agent", command, str(metadata), *where, *more)
    return Command("agent", argv, overcloud.python_environment())


def _tools() -> puppet.Tools:
    try:
        return puppet.find_tools(puppet.module_directories())
    except om_agent.errors.NotReady as e:
        raise errors.TestbedError("The benchmark compares the agent with puppet, which is missing.", str(e)) from None


def _puppet_directory(root: pathlib.Path) -> pathlib.Path:
    return files.state_dir(root) / "puppet"


def _puppet(root: pathlib.Path) -> Command:
    """Return puppet as the agent starts it."""
    work = _puppet_directory(root)
    argv = puppet.command(_tools(), root, work, work / "log.jsonl")
    return Command("puppet", tuple(argv), puppet.environment(work))


# -- os-apply-config -------------------------------------------------------------------------------------------------


def _os_apply_config_program() -> pathlib.Path:
    program = pathlib.Path(sys.executable).with_name("os-apply-config")
    if not program.exists():
        raise errors.TestbedError("The benchmark compares the agent with os-apply-config, which is missing.")
    return program


def _os_apply_config(base: pathlib.Path, root: pathlib.Path) -> Command:
    """Return os-apply-config with templates whose results are the files below ``root``."""
    program = _os_apply_config_program()
    hieradata = json.loads(files.on_disk(root, layout.HIERADATA).read_text())
    values: dict[str, str] = {}
    for path, file in hieradata["om_messaging::config_files"].items():
        keys = [pair for section in file["settings"].values() for pair in section.items()]
        text, more = template(pathlib.Path(path).read_text(), keys, len(values))
        values.update(more)
        made = base / "templates" / pathlib.Path(path).relative_to(root)
        made.parent.mkdir(parents=True)
        made.write_text(text)
    metadata = base / "os-apply-config.json"
    metadata.write_text(json.dumps(values))
    options = ("--templates", str(base / "templates"), "--output", str(root), "--metadata", str(metadata))
    return Command("os-apply-config", (str(program), *options), {})


def template(
    text: str, keys: collections.abc.Iterable[tuple[str, str | None]], first: int
) -> tuple[str, dict[str, str]]:
    """Return a file as a Mustache template, and the value of each name in it.

    :param keys: the keys and values that the template replaces by names. The value None stands for a missing key.
    :param first: the number of the first name.
    """
    wanted = set(keys)
    values: dict[str, str] = {}
    lines = []
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition("="))
        if (key, value) in wanted:
            name = f"v{first + len(values)}"
            values[name] = value
            line = f"{key} = {{{{{{{name}}}}}}}"
        lines.append(line + "\n")
    return "".join(lines), values


@contextlib.contextmanager
def _own_log_directory(directory: pathlib.Path) -> collections.abc.Iterator[None]:
    """Mount another directory over /var/log, because os-apply-config always writes there when root runs it."""
    directory.mkdir()
    subprocess.run(["mount", "--bind", str(directory), "/var/log"], check=True, timeout=20)
    try:
        yield
    finally:
        subprocess.run(["umount", "/var/log"], check=True, timeout=20)


# -- many nodes ------------------------------------------------------------------------------------------------------


def overcloud_of(count: int) -> dict[str, typing.Any]:
    """Return messaging metadata of ``count`` nodes.

    Each site has a few interiors and its computes have edge routers. The sites form a ring.
    """
    sites = math.ceil(count / _SITE)
    nodes: list[dict[str, str]] = []
    for number in range(count):
        site, place = number % sites, number // sites
        role = "controller" if place < _INTERIORS else "compute"
        address = f"10.{site}.{place // 250}.{place % 250 + 1}"
        nodes.append({"name": f"{role}-{site}-{place}", "address": address, "role": role, "site": f"site-{site}"})
    links = []
    for one, other in _ring(sites):
        links.append({"between": [f"site-{one}", f"site-{other}"], "cost": 10})
    return {
        "rpc": {"scheme": "amqp", "username": "rpc", "password": "bench-rpc-secret", "tls": False},
        "notify": {
            "scheme": "rabbit", "username": "notify", "password": "bench-notify-secret", "tls": False,
            "nodes": [f"controller-0-{place}" for place in range(_INTERIORS)],
        },
        "router": {"engine": "skrouterd", "http_port": 0, "mesh_password": "bench-mesh-secret"},
        "broker": {"erlang_cookie": "bench-cookie"},
        "sites": {"links": links},
        "nodes": nodes,
    }  # fmt: skip


def _ring(count: int) -> list[tuple[int, int]]:
    """Return the pairs of neighbours in a ring of numbers, each pair once; none for a single number."""
    pairs = set()
    for number in range(count):
        neighbour = (number + 1) % count
        if neighbour != number:
            pairs.add((min(number, neighbour), max(number, neighbour)))
    return sorted(pairs)


def _metadata(bench: _Bench, count: int) -> pathlib.Path:
    path = bench.directory / f"nodes-{count}.json"
    path.write_text(json.dumps({"oslo_messaging": overcloud_of(count)}))
    return path


def _growing(bench: _Bench) -> None:
    """Run the commands that write nothing with more and more nodes."""
    root = bench.directory / "planned"
    make_node(root, having(1))
    for count in NODES:
        metadata = _metadata(bench, count)
        commands = {
            "validate": _agent("validate", metadata, None),
            "plan": _agent("plan", metadata, root),
            "topology": _agent("topology", metadata, None, "--format", "json"),
        }
        for repetition in range(bench.context.repetitions):
            for name, command in commands.items():
                bench.do(f"{name}/{count}", command, repetition)


def growth(samples: collections.abc.Sequence[figures.Sample], command: str) -> dict[str, float]:
    """Return the cost of one more node among many nodes, and its ratio to the cost of one more node among fewer.

    The ratio is about 1 where the cost is linear. Both costs are slopes between the three largest sizes, so that the
    cost of the start does not count.
    """
    fewer, more, most = NODES[-3:]
    found = {}
    for value, unit, scale in (("CPU s", "CPU us", 1e6), ("memory MiB", "memory KiB", 1024.0)):
        cost = {count: figures.overall(samples, f"{command}/{count}", PAIR, value) for count in (fewer, more, most)}
        among_most = (cost[most] - cost[more]) / (most - more)
        among_fewer = (cost[more] - cost[fewer]) / (more - fewer)
        found[f"{unit} a node"] = scale * among_most
        found[f"{unit} a node, ratio"] = figures.ratio(among_most, among_fewer)
    return found
