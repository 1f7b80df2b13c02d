"""Messages there and back, with the transport URLs of services' own files."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
import typing

from om_agent import (
    errors,
    ini,
    kinds,
    model,
    observed,
    plan,
    proc,
    sources,
)
from om_agent.apply import files, service_files
from om_agent.plan import services, transport_url

_AT_ONCE = 12  # messages under way in one process
_START_SECONDS = 30.0  # for Python to import oslo.messaging on a busy machine, and to end


@dataclasses.dataclass(frozen=True)
class _Job:
    config: tuple[str, ...]
    probe: observed.Probe
    client: str
    server: str


def probes(
    deployment: model.Deployment,
    node_plan: plan.Plan,
    root: pathlib.Path,
    reached: typing.Collection[str],
    seconds: float,
) -> tuple[tuple[observed.Probe, ...], tuple[errors.Problem, ...]]:
    """Send a call to every interior router and a notification, with every URL that is in the services' files.

    :param reached: interior routers; nothing is sent to the others.
    :return: what came of it, and why nothing was sent where that is so.
    """
    jobs = list(_jobs(deployment, node_plan, root, reached))
    if not jobs:  # when there are URLs, what keeps them from being tried out is a finding already
        named = any(True for file in node_plan.config_files for _ in _urls(file, root))
        return (), (() if named else (kinds.finding(node_plan.node.name, "no-probe"),))
    results: list[observed.Probe] = []
    for config in dict.fromkeys(job.config for job in jobs):
        mine = [job for job in jobs if job.config == config]
        for i in range(0, len(mine), _AT_ONCE):
            try:
                results += _run(config, mine[i : i + _AT_ONCE], seconds)
            except errors.ProcessFailed as e:
                return tuple(results), (kinds.finding(node_plan.node.name, "probe-impossible", why=str(e).rstrip(".")),)
    return tuple(results), ()


def _run(config: tuple[str, ...], jobs: typing.Sequence[_Job], seconds: float) -> list[observed.Probe]:
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
    deployment: model.Deployment, node_plan: plan.Plan, root: pathlib.Path, reached: typing.Collection[str]
) -> typing.Iterator[_Job]:
    """Yield what to send: for each URL once, however many services have it."""
    seen: set[tuple[str, str, tuple[str, ...]]] = set()
    for file in node_plan.config_files:
        read = _read_by(file, root)
        own_path = str(files.on_disk(root, file.path))
        beside = tuple(path for path in read if path != own_path)
        for half, url, own in _urls(file, root):
            if (half, url, beside) in seen:
                continue
            seen.add((half, url, beside))
            config = () if own else read
            backend = deployment.rpc if half == "rpc" else deployment.notify
            servers = [("", "")]
            if half == "rpc" and backend in deployment.routed:
                names = deployment.by_name()
                servers = [(n, _server(backend, names[n])) for n in model.interiors(deployment) if n in reached]
            for to, server in servers:
                yield _Job(config, observed.Probe(half, to, file.path), own, server)


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
    return transport_url.url_of(dataclasses.replace(backend, hosts=(node.host,))).reveal()


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
