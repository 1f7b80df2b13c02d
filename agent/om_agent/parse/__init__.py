"""Raw metadata in, the typed `om_agent.model.Deployment` or every problem at once out.

Pure. `om_agent.parse.keys` declares each key: what its value may be, its default, and its text in the reference. One
pass over the metadata checks each value by its declaration; the modules here make the model of the values, and report
keys that do not fit together.
"""

from __future__ import annotations

import dataclasses
import typing

from om_agent import errors, fields, kinds, model, rules
from om_agent.parse import halves, keys, mapping, node_list, settings


def deployment(raw: object, services: typing.Collection[str] = ()) -> model.Deployment:
    """Return the deployment that ``raw``, the value of the ``oslo_messaging`` key, describes.

    :param services: names of the service catalogue; empty when the catalogue is not known.

    :raises om_agent.errors.InvalidInput: with every problem, each with its path below ``oslo_messaging``.
    """
    problems: list[errors.Problem] = []
    if raw is None:
        problems.append(kinds.problem("", "missing", hint="rpc.password and nodes are needed"))
    top = mapping.Mapping(raw, keys.TOP, "", problems)
    if raw is not None and not isinstance(raw, dict):
        raise errors.InvalidInput(problems)
    d, given = _deployment(top)
    problems += _without_followers(rules.problems(d, given, services), tuple(problems))
    if problems:
        raise errors.InvalidInput(problems)
    return dataclasses.replace(d, findings=tuple(rules.warnings(d, given)))


def _deployment(top: mapping.Mapping) -> tuple[model.Deployment, rules.Given]:
    """Return the deployment, without findings, and what the rules need to know of the metadata besides."""
    nodes = node_list.make_nodes(top)
    rpc = halves.make_backend(top["rpc"], None, nodes)
    notify = halves.make_backend(top["notify"], rpc, nodes)
    halves.check_tls_given(top["rpc"], top["notify"], rpc, notify)
    tls = settings.make_tls(top["tls"])
    router = settings.make_router(top["router"], rpc, notify)
    broker = settings.make_broker(top["broker"], rpc, notify)
    d = model.Deployment(
        rpc=rpc,
        notify=notify,
        router=router,
        broker=broker,
        tls=tls,
        oslo=halves.make_oslo(top["rpc"], top["notify"]),
        nodes=node_list.place_routers(router, rpc, notify, nodes),
        site_links=node_list.make_site_links(top["sites"], nodes),
        node=_local_name(top, nodes),
        services=top["services"],
        findings=(),
    )
    if d.routed:
        node_list.check_interiors(top, d)
    given = rules.Given(
        roles=top["router"]["roles"],
        nodes=nodes,
        named=tuple(half.path for half in (top["rpc"], top["notify"]) if half.has("nodes")),
        cookie=top["broker"].has("erlang_cookie"),
        mirrored=top["broker"].has("mirrored_queues"),
    )
    return d, given


def _without_followers(
    found: typing.Iterable[errors.Problem], known: typing.Sequence[errors.Problem]
) -> typing.Iterator[errors.Problem]:
    """Yield each problem once, but none that follows from a known one.

    A problem follows from a known one that is at the same key, or at a key that its check reads.
    """
    paths = {problem.path for problem in known}
    wrong_keys = {key for path in paths for key in fields.keys_of(path)}
    for problem in dict.fromkeys(found):  # two halves may need the same thing
        if problem.path not in paths and not wrong_keys.intersection(kinds.of(problem).reads or ()):
            yield problem


def _local_name(top: mapping.Mapping, nodes: tuple[model.Node, ...]) -> str:
    """Return the local node's name as ``nodes`` spells it; `om_agent.rules` reports a name that is not there."""
    name: str = top["node"]
    if isinstance(name, fields.Guess):
        return name
    return next((n.name for n in nodes if name and fields.host_key(n.name) == fields.host_key(name)), name)
