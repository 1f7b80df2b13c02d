"""A router that runs with what is rendered from metadata, written here without puppet, and asked as the agent asks."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import pathlib
import typing

import pytest
from om_agent import amqp, model, parse, plan, render
from om_agent.apply import live_router, sasl_database
from om_agent.plan import layout
from om_devrouter import schema

from testbed import overcloud, processes, routers, sockets
from tests.support import helpers

# The real ones are run wherever they are installed.
ENGINES = [
    model.Engine.EMBEDDED,
    *(pytest.param(e, marks=pytest.mark.router) for e in (model.Engine.QDROUTERD, model.Engine.SKROUTERD)),
]
NAME = "ctl-0"


@dataclasses.dataclass(frozen=True)
class Running:
    """A router that runs.

    :param root: where its node's files are.
    """

    plan: plan.Plan
    root: pathlib.Path
    client: amqp.Client

    @property
    def entities(self) -> tuple[typing.Any, ...]:
        """What it was told to be."""
        assert self.plan.router
        return self.plan.router.entities

    def types(self) -> list[str]:
        """Every type of entity that it has, without the engine's prefix."""
        if self.client.login.engine is model.Engine.EMBEDDED:  # which answers queries alone
            return list(schema.COLUMNS)
        body = self.client._request({"operation": "GET-TYPES", "type": "org.amqp.management", "name": "self"}, {})
        prefix = self.client.login.engine.record.prefix
        return [name[len(prefix) :] for name in body if name.startswith(prefix)]


def metadata(engine: model.Engine, address: str, raw: helpers.Raw) -> helpers.Raw:
    """The same for this one engine on this one node."""
    more = {"engine": engine.value, "http_port": 0}
    return {**raw, "router": {**raw.get("router", {}), **more}, "nodes": [{"name": NAME, "address": address}]}


@contextlib.contextmanager
def run(raw: helpers.Raw, base: pathlib.Path) -> collections.abc.Iterator[Running]:
    """Start the router of the first node and log in to it."""
    d = parse.deployment(raw, helpers.catalogue())
    command = routers.find(d.router.engine)
    if not command:
        pytest.skip(f"{d.router.engine.value} is not installed")
    pytest.importorskip("proton")
    root = base / "root"
    host = helpers.host("nova", prefix=str(root), target=str(root))
    planned = plan.build(d, d.nodes[0], helpers.catalogue(), host)
    assert planned.router
    write(render.render(planned, host), root, base / "making")
    environment = dict(layout.ROUTER_ENVIRONMENT)
    if d.router.engine is model.Engine.EMBEDDED:
        environment |= overcloud.python_environment()
    with processes.Supervisor(base / "logs") as supervisor:
        process = supervisor.start("router", [*command, "-c", str(root) + planned.router.paths.config], environment)
        address = planned.router.listener
        processes.wait_until("the router listens", lambda: sockets.is_open(address), 20, [process])
        with amqp.Client(live_router.login(planned.router)) as client:
            yield Running(planned, root, client)


def write(rendered: render.Rendered, root: pathlib.Path, making: pathlib.Path) -> None:
    """Write what the agent would, and what puppet would of nova's file."""
    for file in rendered.files:
        path = root / file.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(file.mode)
        path.write_bytes(sasl_database.make_sasl_database(file.users, making) if file.content is None else file.content)
    for config in rendered.config_files:
        path = root / config.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(config.mode)
        sections: dict[str, list[str]] = {}
        for s in config.settings:
            sections.setdefault(s.section, []).extend([f"{s.key} = {s.value.reveal()}"] if s.value else [])
        path.write_text("".join(f"[{name}]\n" + "\n".join(lines) + "\n" for name, lines in sections.items()))
