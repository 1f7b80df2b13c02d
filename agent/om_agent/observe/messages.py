"""Send test messages and receive them again, with the transport URLs in the services' own files."""

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

_AT_ONCE = 12  # messages that one process sends at the same time
_START_SECONDS = 30.0  # for Python to import oslo.messaging on a busy machine, and to end


@dataclasses.dataclass(frozen=True)
class _Job:
    """One message to send.

    :param config: files of the service that the sender reads; none when ``client`` holds the URL.
    :param client: the URL to send with, '' when it is in the files.
    :param server: the URL to receive with, '' for the same as the sender's.
    """

    config: tuple[str, ...]
    probe: observed.Probe
    client: str
    server: str


@dataclasses.dataclass(frozen=True)
class _Url:
    """A transport URL in a service's file.

    :param value: the text in the file.
    :param unescaped: the URL itself where oslo.config would not find it in the file; '' where it would.
    """

    half: str
    value: str
    unescaped: str = ""


def probes(
    deployment: model.Deployment,
    node_plan: plan.Plan,
    root: pathlib.Path,
    reached: typing.Collection[str],
    seconds: float,
) -> tuple[tuple[observed.Probe, ...], tuple[errors.Problem, ...]]:
    """Send a call to every interior router, and a notification, with every URL in the services' files.

    :param reached: the interior routers to which calls are sent.
    :param seconds: how long to wait for the messages.
    :return: the results, and the reason where nothing was sent.
    """
    at = node_plan.node.name
    jobs = list(_jobs(deployment, node_plan, root, reached))
    if not jobs:
        urls = [url for file in node_plan.config_files for url in _urls(file, root)]
        # Where there are URLs, another finding says why they were not tried.
        return (), (() if urls else (kinds.finding(at, "no-probe"),))
    results: list[observed.Probe] = []
    for config, own in _by_config(jobs).items():
        for start in range(0, len(own), _AT_ONCE):
            try:
                results += _run(config, own[start : start + _AT_ONCE], seconds)
            except errors.ProcessFailed as e:
                return tuple(results), (kinds.finding(at, "probe-impossible", why=str(e).rstrip(".")),)
    return tuple(results), ()


def _by_config(jobs: typing.Iterable[_Job]) -> dict[tuple[str, ...], list[_Job]]:
    found: dict[tuple[str, ...], list[_Job]] = {}
    for job in jobs:
        found.setdefault(job.config, []).append(job)
    return found


def _run(config: tuple[str, ...], jobs: typing.Sequence[_Job], seconds: float) -> list[observed.Probe]:
    """Send the messages of some jobs in one process."""
    rows = [{"half": job.probe.half, "to": job.probe.to, "client": job.client, "server": job.server} for job in jobs]
    request = {"config": config, "seconds": seconds, "jobs": rows}
    argv = [sys.executable, "-W", "ignore", "-m", "om_agent.probe"]
    done = proc.run(argv, seconds + _START_SECONDS, stdin=json.dumps(request).encode())
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise errors.ProcessFailed(f"oslo.messaging ended with exit code {done.returncode}") from None
    if "impossible" in answer:
        raise errors.ProcessFailed(answer["impossible"])
    return [_result(job, row) for job, row in zip(jobs, answer["results"])]


def _result(job: _Job, row: typing.Mapping[str, typing.Any]) -> observed.Probe:
    return dataclasses.replace(job.probe, error=str(row["error"]), seconds=float(row["seconds"]))


def _jobs(
    deployment: model.Deployment, node_plan: plan.Plan, root: pathlib.Path, reached: typing.Collection[str]
) -> typing.Iterator[_Job]:
    """Yield the messages to send: once for each URL, however many services have it."""
    seen: set[tuple[str, str, tuple[str, ...]]] = set()
    for file in node_plan.config_files:
        config = _config_files(file, root)
        own_path = str(files.on_disk(root, file.path))
        other_files = tuple(path for path in config if path != own_path)
        for url in _urls(file, root):
            key = (url.half, url.value, other_files)
            if key in seen:
                continue
            seen.add(key)
            for name, server in _servers(deployment, url.half, reached).items():
                probe = observed.Probe(url.half, name, file.path)
                yield _Job(() if url.unescaped else config, probe, url.unescaped, server)


def _servers(deployment: model.Deployment, half: str, reached: typing.Collection[str]) -> dict[str, str]:
    """Return the interior routers to which one half sends a message, with their URLs; '' for the backend itself."""
    backend = deployment.rpc if half == "rpc" else deployment.notify
    if half != "rpc" or backend not in deployment.routed:
        return {"": ""}
    nodes = deployment.by_name()
    names = [name for name in model.interiors(deployment) if name in reached]
    return {name: _server_url(backend, nodes[name]) for name in names}


def _config_files(file: services.ConfigFile, root: pathlib.Path) -> tuple[str, ...]:
    """Return the service's file and the other files that it reads, in the order in which they take effect.

    Only the files that hold keys of the agent are there: no others affect the message.
    """
    own = str(files.on_disk(root, file.path))
    if file.format != services.OSLO:
        return (own,)
    keys = {(ini.section_name(setting.section), setting.key) for setting in file.settings}
    before: list[str] = []
    after: list[str] = []
    for other in sources.other_files(file.path, file.units, root):
        if keys & service_files.keys_of(other.path, root).keys():
            (after if other.after else before).append(str(files.on_disk(root, other.path)))
    return (*before, own, *after)


def _server_url(backend: model.Backend, node: model.Node) -> str:
    return transport_url.url_of(dataclasses.replace(backend, hosts=(node.host,))).reveal()


def _urls(file: services.ConfigFile, root: pathlib.Path) -> typing.Iterator[_Url]:
    """Yield the transport URLs in a service's file."""
    text = (files.read(files.on_disk(root, file.path)) or b"").decode(errors="replace")
    keys = ini.read(text, file.format)
    for setting in file.settings:
        section = ini.section_name(setting.section, file.format)
        texts = [found.text for found in keys.get((section, setting.key), [])]
        value = texts[-1] if texts else ""  # the last one counts
        if not value or setting.value is None:
            continue
        if file.format == services.PASTE and setting.key == "url":
            yield _Url("notify", value, value.replace("%%", "%"))
        elif (setting.section, setting.key) == ("DEFAULT", "transport_url"):
            yield _Url("rpc", value)
        elif (setting.section, setting.key) == ("oslo_messaging_notifications", "transport_url"):
            yield _Url("notify", value)
