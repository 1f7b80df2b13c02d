"""Raw metadata in, the typed `om_agent.model.Deployment` or every problem at once out.

Pure. The keys, their defaults and their meaning are described for people in ``doc/metadata.rst``; a test compares that
page with what is asked for here.
"""

from __future__ import annotations

import dataclasses
import typing

from om_agent import errors, fields, kinds, model, rules
from om_agent.parse import halves, node_list, settings


def deployment(raw: object, services: typing.Collection[str] = ()) -> model.Deployment:
    """Return the deployment that ``raw``, the value of the ``oslo_messaging`` key, describes.

    :param services: names of the service catalogue; empty when nothing is known of it.

    :raises om_agent.errors.InvalidInput: with every problem, each with its path below ``oslo_messaging``.
    """
    problems: list[errors.Problem] = []
    top = fields.Section(raw, "", problems)
    if raw is None:
        top.fail("", "missing", hint="rpc.password and nodes are needed")
    tls = settings.parse_tls(top.section("tls"))
    rpc_section, notify_section, router_section = (top.section(key) for key in ("rpc", "notify", "router"))
    roles = node_list.parse_roles(router_section)
    nodes = node_list.parse_nodes(top, roles, halves.wants_tls(rpc_section) or halves.wants_tls(notify_section))
    rpc = halves.parse_backend(rpc_section, None, nodes)
    notify = halves.parse_backend(notify_section, rpc, nodes)
    halves.check_tls_said(rpc_section, notify_section, rpc, notify)
    broker_section = top.section("broker")
    given = rules.Given(
        roles=roles,
        nodes=nodes,
        named=tuple(s.path for s in (rpc_section, notify_section) if s.has("nodes")),
        cookie=broker_section.has("erlang_cookie"),
        mirrored=broker_section.has("mirrored_queues"),
    )
    router = settings.parse_router(router_section, rpc, notify)
    broker = settings.parse_broker(broker_section, rpc, notify)
    oslo = halves.parse_oslo(rpc_section, notify_section)
    d = model.Deployment(
        rpc=rpc,
        notify=notify,
        router=router,
        broker=broker,
        tls=tls,
        oslo=oslo,
        nodes=node_list.place_routers(router, rpc, notify, nodes),
        site_links=node_list.parse_sites(top, nodes),
        node=_local_name(top, nodes),
        services=top.names("services", fields.check_word, "service"),
        findings=(),
    )
    for section in (rpc_section, notify_section, top):
        section.done()
    if d.routed:
        node_list.check_interiors(top, d)
    problems += _without_followers(rules.problems(d, given, services), tuple(problems))
    if problems:
        raise errors.InvalidInput(problems)
    return dataclasses.replace(d, findings=tuple(rules.warnings(d, given)))


def _without_followers(
    found: typing.Iterable[errors.Problem], known: typing.Sequence[errors.Problem]
) -> typing.Iterator[errors.Problem]:
    """Yield each problem once that does not follow from one that is known: at its own key, or at one that it reads."""
    paths = {problem.path for problem in known}
    wrong_keys = {key for path in paths for key in fields.keys_of(path)}
    for problem in dict.fromkeys(found):  # two halves may need the same thing
        if problem.path not in paths and not wrong_keys.intersection(kinds.of(problem).reads or ()):
            yield problem


def _local_name(top: fields.Section, nodes: tuple[model.Node, ...]) -> str:
    """Return the local node's name as ``nodes`` spells it; `om_agent.rules` reports one that is not there."""
    said = top.text("node", check=fields.check_host)
    if isinstance(said, fields.Guess):
        return said
    return next((n.name for n in nodes if said and fields.host_key(n.name) == fields.host_key(said)), said)
