"""The changes to a running router whose files change, decided without a router."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from om_agent import amqp, engines, errors, model, render
from om_agent.apply import files, live_router, results, router_difference, running
from om_agent.plan import router

from tests.support import helpers

LISTENER: dict[str, str | int | bool] = {
    "name": "client-rpc",
    "host": "h",
    "port": 1,
    "role": "normal",
    "saslMechanisms": "PLAIN",
}
CONNECTOR: dict[str, str | int | bool] = {"name": "inter-router/b", "host": "b", "port": 2, "role": "inter-router"}
ADDRESS: dict[str, str | int | bool] = {"prefix": "a/b", "distribution": "multicast"}
BASE: tuple[router.Entity, ...] = (
    ("router", {"id": "a", "mode": "interior", "workerThreads": 4}),
    ("listener", LISTENER),
    ("connector", CONNECTOR),
    ("address", ADDRESS),
)


def without(kind: str) -> tuple[router.Entity, ...]:
    return tuple(e for e in BASE if e[0] != kind)


def changed(kind: str, **values: str | int | bool) -> tuple[router.Entity, ...]:
    return tuple((k, {**a, **values} if k == kind else a) for k, a in BASE)


@pytest.mark.parametrize(
    ("old", "new", "steps"),
    [
        (BASE, BASE, []),
        (without("connector"), BASE, ["+ connector inter-router/b"]),
        (BASE, without("connector"), ["- connector inter-router/b"]),
        (BASE, changed("connector", host="c", port=3), ["~ connector inter-router/b: host, port"]),
        (without("listener"), BASE, ["+ listener client-rpc"]),
        (BASE, changed("listener", port=9), ["~ listener client-rpc: port"]),
        (BASE, without("address"), ["- address a/b"]),
        (changed("listener", port="1"), BASE, []),
        (changed("connector", cost=1), BASE, []),
    ],
)
def test_what_can_be_changed_while_it_runs(
    old: tuple[router.Entity, ...], new: tuple[router.Entity, ...], steps: list[str]
) -> None:
    found = router_difference.difference(old, new)
    assert (list(map(str, found.steps)), found.obstacles) == (steps, ())


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (changed("router", workerThreads=2), "router.workerThreads changes"),
        (changed("router", id="b"), "router.id changes"),
        (changed("listener", saslMechanisms="EXTERNAL"), "saslMechanisms of the listener client-rpc changes"),
        (changed("address", distribution="closest"), "distribution of the address a/b changes"),
        ((*BASE, ("sslProfile", {"name": "x"})), "the sslProfile x is new"),
        ((*BASE, ("listener", {"name": "http", "http": True, "port": 8})), "the listener http is new"),
    ],
)
def test_what_only_a_restart_changes(new: tuple[router.Entity, ...], why: str) -> None:
    assert why in router_difference.difference(BASE, new).obstacles


NAMES = st.sampled_from(["a", "b", "c"])
ENTITIES = st.dictionaries(
    st.tuples(st.sampled_from(["listener", "connector"]), NAMES), st.integers(1, 3), max_size=6
).map(lambda d: tuple((kind, {"name": name, "host": "h", "port": port}) for (kind, name), port in d.items()))


@given(ENTITIES, ENTITIES)
def test_the_steps_lead_from_one_to_the_other(old: tuple[router.Entity, ...], new: tuple[router.Entity, ...]) -> None:
    found = router_difference.difference(old, new)
    state = {(k, str(a["name"])): a["port"] for k, a in old}
    for step in sorted(found.steps, key=lambda s: not s.early):
        if step.sign == "+":
            assert (step.kind, step.name) not in state
        if step.sign == "-":
            del state[step.kind, step.name]
        else:
            state[step.kind, step.name] = typing.cast("int", step.attributes["port"])
    assert state == {(k, str(a["name"])): a["port"] for k, a in new}
    assert not found.obstacles
    assert router_difference.difference(new, new).steps == ()


MESH_CERTIFICATE = "/etc/qpid-dispatch/mesh/certificate.pem"

# -- deciding --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Node:
    """A node whose files are on disk as three controllers need them, and stamped when units are managed."""

    root: pathlib.Path
    managed: bool

    def rendered(self, raw: helpers.Raw) -> tuple[render.Rendered, router.RouterPlan]:
        host = helpers.host(manage_services=self.managed)
        planned = helpers.plan_for(raw, "ctl-1", host)
        assert planned.router
        return render.render(planned, host), planned.router

    def contents(self, rendered: render.Rendered) -> dict[str, bytes]:
        return {f.path: f.content if f.content is not None else b"database" for f in rendered.files}

    def put(self, raw: helpers.Raw) -> None:
        rendered, plan = self.rendered(raw)
        contents = self.contents(rendered)
        for path, content in contents.items():
            place = files.on_disk(self.root, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        unit = next(u for u in rendered.units if u.name == plan.paths.unit)
        stamp = files.on_disk(self.root, self.stamp(rendered, unit))
        stamp.parent.mkdir(parents=True, exist_ok=True)
        digests = {path: files.digest(content) for path, content in contents.items()}
        stamp.write_text(render.unit_digest(unit, digests) + "\n")

    def stamp(self, rendered: render.Rendered, unit: render.Unit) -> str:
        return dict(zip((u.name for u in rendered.units), render.stamp_paths(rendered)))[unit.name]

    def decide(self, raw: helpers.Raw) -> running.Decision:
        rendered, plan = self.rendered(raw)
        unit = next(u for u in rendered.units if u.name == plan.paths.unit)
        present = {path: files.read(files.on_disk(self.root, path)) for path in unit.files}
        noted = files.read(files.on_disk(self.root, self.stamp(rendered, unit)))
        outdated = running.outdated(unit, present, noted) if self.managed else ""
        return live_router.decide(plan, running.UnitFiles(present, self.contents(rendered), outdated), self.root)

    def changed(self, raw: helpers.Raw) -> live_router.RunningRouter | None:
        found = self.decide(raw).running
        assert found is None or isinstance(found, live_router.RunningRouter)
        return found


@pytest.fixture(params=[True, False], ids=["managed", "unmanaged"])
def node(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Node:
    made = Node(tmp_path, request.param)
    made.put(helpers.dual())
    return made


def test_nothing_changed(node: Node) -> None:
    assert node.decide(helpers.dual()) == running.Decision()


def test_a_controller_more(node: Node) -> None:
    verdict = node.decide(helpers.dual(controllers=4))
    assert verdict.running is not None or "connector" not in verdict.why
    raw = helpers.put(helpers.dual(), "router.link_capacity", 77)
    work = node.changed(raw)
    assert work
    assert any(line.startswith("~ listener client-rpc: linkCapacity") for line in work.lines())


def test_another_cost_of_links_needs_none(node: Node) -> None:
    work = node.changed(helpers.put(helpers.dual(), "router.link_cost", 4))
    assert work and {(s.sign, s.kind, s.differs) for s in work.steps} == {("~", "connector", ("cost",))}


def test_threads_need_a_restart(node: Node) -> None:
    assert node.decide(helpers.put(helpers.dual(), "router.worker_threads", 9)).why == "router.workerThreads changes"


def test_another_mesh_password_is_another_certificate(node: Node) -> None:
    raw = helpers.put(helpers.dual(), "router.mesh_password", "other")
    work = node.changed(raw)
    assert work and not work.steps
    shown = node.contents(node.rendered(raw)[0])[MESH_CERTIFICATE]
    assert work.certificates == {"mesh": shown}
    assert work.lines() == ("~ certificates are read anew: mesh",)


def test_another_certificate_for_clients_leaves_the_mesh_alone(tmp_path: pathlib.Path) -> None:
    node = Node(tmp_path, True)
    raw = helpers.with_tls(helpers.dual(), "pem")
    node.put(raw)
    work = node.changed(helpers.put(raw, "tls.certificate", helpers.CERTIFICATE * 2))
    assert work and work.certificates == {"messaging": (helpers.CERTIFICATE * 2).encode()}


def test_certificates_of_the_operators_own_for_the_mesh_need_a_restart(node: Node) -> None:
    raw = helpers.put(
        helpers.dual(), "router", {"mesh_password": "mesh-secret", **dict.fromkeys(model.MESH_FILES, "/x")}
    )
    verdict = node.decide(raw)
    assert verdict.running is None and verdict.why


def test_the_embedded_engine_is_restarted(tmp_path: pathlib.Path) -> None:
    raw = helpers.put(helpers.dual(controllers=2), "router.engine", "embedded")
    raw = helpers.put(raw, "rpc.nodes", ["ctl-1"])
    node = Node(tmp_path, True)
    node.put(raw)
    verdict = node.decide(helpers.put(raw, "router.link_capacity", 77))
    assert verdict.why == "this engine cannot be changed while it runs"


def test_a_router_that_runs_with_something_else_is_restarted(tmp_path: pathlib.Path) -> None:
    node = Node(tmp_path, True)
    node.put(helpers.dual())
    _, plan = node.rendered(helpers.dual())
    files.on_disk(node.root, plan.paths.config).write_text("[]")
    raw = helpers.put(helpers.dual(), "router.link_capacity", 77)
    assert node.decide(raw).why == "it was started with other files than those on disk"
    files.on_disk(node.root, f"/var/lib/om-agent/units/{plan.paths.unit}").unlink()
    assert node.decide(raw).why == "it was not started yet"


def test_an_interrupted_change_is_looked_at_again(node: Node) -> None:
    work = node.changed(helpers.put(helpers.dual(), "router.mesh_password", "other"))
    assert work
    files.state_dir(node.root).mkdir(parents=True, exist_ok=True)
    work.set_mark()
    again = node.changed(helpers.dual())
    assert again
    assert again.certificates == {"mesh": node.contents(node.rendered(helpers.dual())[0])[MESH_CERTIFICATE]}
    live_router.clear_mark(node.root)
    live_router.clear_mark(node.root)
    assert node.decide(helpers.dual()) == running.Decision()


@pytest.mark.parametrize("mark", [b"", b"{", b"[]", b"null"])
def test_a_damaged_mark_counts(node: Node, mark: bytes) -> None:
    files.state_dir(node.root).mkdir(parents=True, exist_ok=True)
    (files.state_dir(node.root) / "router-changing").write_bytes(mark)
    assert node.decide(helpers.dual()).running


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]", b"nonsense"])
def test_a_damaged_file_is_no_configuration(content: bytes | None) -> None:
    assert not live_router.entities(content)


def test_the_door_of_a_drained_router(tmp_path: pathlib.Path) -> None:
    files.state_dir(tmp_path).mkdir(parents=True)
    assert live_router.read_drained_port(tmp_path) is None
    live_router.write_drained_port(tmp_path, 1234)
    assert live_router.read_drained_port(tmp_path) == 1234
    live_router.write_drained_port(tmp_path, None)
    live_router.write_drained_port(tmp_path, None)
    assert live_router.read_drained_port(tmp_path) is None


# -- the client ------------------------------------------------------------------------------------------------------


def test_a_login_shows_no_password() -> None:
    login = amqp.Login("h", 1, "h", "admin@overcloud", model.Secret("hidden"), model.Engine.QDROUTERD)
    assert "hidden" not in repr(login)
    assert dataclasses.replace(login, host="::1").where == "[::1]:1"


def test_an_unreachable_router_is_a_sentence() -> None:
    error = amqp.Unreachable("h:1", amqp.REFUSED, "nothing listens there")
    assert str(error) == "The agent cannot query the router at h:1: nothing listens there."
    assert isinstance(error, errors.ApplyFailed)


def test_every_engine_has_a_record() -> None:
    assert list(engines.RECORDS) == [engine.value for engine in model.Engine]


def test_changes_of_a_router_are_told() -> None:
    change = results.Change("reconcile", "qdrouterd", "+ connector inter-router/b")
    assert str(change) == "reconcile qdrouterd: + connector inter-router/b"


def test_a_file_is_read_as_it_is_rendered() -> None:
    assert live_router.entities(json.dumps(BASE).encode()) == BASE
