"""Changing a running router instead of restarting it.

The new file is always on disk first. Then listeners, connectors and addresses are created and deleted through
management, until the running router is as a restart would make it. The router reports success even for a listener whose
port is taken. So every change is read back, and the agent connects to every listener.

All operations compare the running router with a file, so it does not matter how far an earlier run came that was
killed. A mark on disk says that there was one: it is there from before the first change until the last was read back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import time
import typing

from om_agent import amqp, errors
from om_agent.apply import files, listening, results, router_difference, running, systemd
from om_agent.plan import router

_MARK = "router-changing"
_DRAINED_PORT = "router-door"  # the file's name is that of earlier versions
_UPLINK_SECONDS = 8.0  # a new one takes a moment, one that was refused at first 5 to 10 s
_LOOPBACK = "127.0.0.1"


def _wait_for_another_uplink(client: amqp.Client, name: str) -> None:
    """Wait, if not for long, until an edge router has another way out than the one that it is about to lose."""
    deadline = time.monotonic() + _UPLINK_SECONDS
    while time.monotonic() < deadline:
        rows = [r for r in client.query("connection") if r["role"] == "edge" and r["dir"] == "out"]
        if any(f"uplink/{r['container']}" != name for r in rows):
            return
        time.sleep(listening.POLL)


# -- what to do ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class RunningRouter:
    """A router that runs, and what it will be; see `om_agent.apply.running.Running`.

    :param old: what it was started with, or made to be since.
    :param steps: what leads from the old file to the new one.
    :param certificates: by sslProfile whose files change, the certificate that its listeners have to show from now on;
        empty for certificates that are not ours.
    :param departed_users: whose connections are ended last, see `router_difference.departed`.
    :param drained_port: see `read_drained_port`.
    """

    root: pathlib.Path
    plan: router.RouterPlan
    old: tuple[router.Entity, ...]
    new: tuple[router.Entity, ...]
    steps: tuple[router_difference.Step, ...] = ()
    certificates: typing.Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    drained_port: int | None = None
    departed_users: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """The name of its systemd unit."""
        return self.plan.paths.unit

    @property
    def needs_restart(self) -> bool:
        """A router is changed as a whole or not at all."""
        return False

    def lines(self) -> tuple[str, ...]:
        """Return what a plan says will be changed, a line each."""
        lines = [str(step) for step in self.steps]
        lines += [f"~ certificates are read anew: {name}" for name in self.certificates]
        lines += [f"- connections of {user}" for user in self.departed_users]
        return tuple(lines or ["an interrupted run may have left it half changed"])

    def set_mark(self) -> None:
        """Note, durably, that it is about to be changed."""
        mark = {"tls": bool(self.certificates), "leaving": self.departed_users}
        files.write(_mark_path(self.root), json.dumps(mark).encode(), 0o600)

    def add_new(self) -> str:
        """Make what is new; return why only a restart can bring it.

        :raises om_agent.errors.ApplyFailed: when another program has a port, so that a restart could not help either.
        """
        return _failure_of(lambda: _reconcile(self, self.new, early=True))

    def remove_old(self, failure: str, manage_services: bool) -> tuple[str, ...]:
        """Remove what is old, and change what cannot be there twice."""
        was_added = not failure
        if was_added:
            failure = _failure_of(self._remove_old)
        if failure and was_added and manage_services:
            systemd.queue("restart", [self.unit])
        if not failure or (manage_services and not was_added):  # puppet has restarted it
            clear_mark(self.root)
        if not failure:
            return ()
        done = f"{self.unit} is restarted instead" if manage_services else f"Restart {self.unit}"
        return (f"The running router could not be changed: {failure}. {done}.",)

    def _remove_old(self) -> None:
        _reconcile(self, self.new, early=False)
        if self.departed_users:
            with _connect(self) as client:
                _end_connections(client, self.departed_users)

    def take_back(self) -> str:
        """Make it what it was, while the new files are on disk: the agent logs in with those."""
        return _failure_of(lambda: _reconcile_whole(dataclasses.replace(self, certificates={}), self.old))

    def finish_taking_back(self) -> str:
        """Have it read its old certificates again; forget the mark."""
        failure = _failure_of(self._reload_old_tls) if self.certificates else ""
        if not failure:
            clear_mark(self.root)
        return failure

    def _reload_old_tls(self) -> None:
        with _connect(self) as client:
            _reload_tls(client, self, self.old)


def decide(p: router.RouterPlan, unit: running.UnitFiles, root: pathlib.Path) -> running.Decision:
    """Return whether the router can be changed while it runs, or has to be restarted."""
    mark = _read_mark(root)
    if unit.outdated or (not unit.changed and mark is None):
        return running.Decision(why=unit.outdated)
    if not p.engine.record.changes:
        return running.Decision(why="this engine cannot be changed while it runs")
    old = entities(unit.present.get(p.paths.config))
    if old is None:
        return running.Decision(why="the file that it runs with is not there or damaged")
    profiles = {router.PROFILE: p.paths.tls, router.MESH_PROFILE: p.paths.mesh}
    tls_files = {name: set(map(path, ("ca", "certificate", "key"))) for name, path in profiles.items()}
    others = [path for path in unit.changed if path not in {p.paths.config}.union(*tls_files.values())]
    found = router_difference.difference(old, p.entities)
    if others or found.obstacles:
        return running.Decision(why="; ".join([*(f"{path} changes" for path in others), *found.obstacles]))
    mark = mark or {}
    read_again = unit.wanted.keys() if mark.get("tls") else set(unit.changed)
    renewed = [name for name in profiles if tls_files[name] & read_again]
    certificates = {name: unit.wanted.get(profiles[name]("certificate"), b"") for name in renewed}
    noted = mark.get("leaving")
    departed = router_difference.departed(old, p.entities, map(str, noted) if isinstance(noted, list) else ())
    port = read_drained_port(root)
    return running.Decision(RunningRouter(root, p, old, p.entities, found.steps, certificates, port, departed))


def entities(content: bytes | None) -> tuple[router.Entity, ...] | None:
    """Return the entities of a file as `om_agent.render` writes it; None for anything else."""
    try:
        return tuple((str(kind), dict(attributes)) for kind, attributes in json.loads(content or b""))
    except (ValueError, TypeError):
        return None


# -- the mark --------------------------------------------------------------------------------------------------------


def _mark_path(root: pathlib.Path) -> pathlib.Path:
    return files.state_dir(root) / _MARK


def _read_mark(root: pathlib.Path) -> dict[str, object] | None:
    content = files.read(_mark_path(root))
    if content is None:
        return None
    try:
        mark = json.loads(content)
    except ValueError:
        mark = None
    return mark if isinstance(mark, dict) else {}


def clear_mark(root: pathlib.Path) -> None:
    """Note that the running router is as its file says."""
    files.remove(_mark_path(root))


def read_drained_port(root: pathlib.Path) -> int | None:
    """Return the loopback port at which a drained router is managed, None when it was not drained."""
    content = files.read(files.state_dir(root) / _DRAINED_PORT) or b""
    return int(content) if content.strip().isdigit() else None


def write_drained_port(root: pathlib.Path, port: int | None) -> None:
    """Note where a drained router is managed, or that it is drained no more."""
    path = files.state_dir(root) / _DRAINED_PORT
    if port is not None:
        files.write(path, f"{port}\n".encode(), 0o600)
    else:
        files.remove(path)


def login(
    p: router.RouterPlan, listener: tuple[str, int] | None = None, tls: bool | None = None, host: str = ""
) -> amqp.Login:
    """Return how the agent manages the router of ``p``, or that of another node.

    :param host: the other node's, as its certificate has it.
    """
    address, port = listener or p.listener
    return amqp.Login(
        host=address,
        port=port,
        name=host or p.node.host,
        user=f"{p.admin.name}@{p.admin.realm}",
        password=p.admin.password,
        engine=p.engine,
        tls=p.tls if tls is None else tls,
        ca=p.ca,
        shown=p.client_files,
    )


def connect(p: router.RouterPlan, drained_port: int | None) -> amqp.Client:
    """Return a client of the router of ``p``; at its own listener, or at the one that a drain left.

    :raises om_agent.amqp.Unreachable: when there is none.
    """
    try:
        return amqp.Client(login(p))
    except amqp.Unreachable as e:
        if drained_port is None or e.kind != amqp.REFUSED:
            raise
        with contextlib.suppress(amqp.Unreachable):
            return amqp.Client(login(p, (_LOOPBACK, drained_port), False))
        raise


def _connect(changed: RunningRouter) -> amqp.Client:
    """Return a client, at the listener of the new configuration, of the old, or at the one that a drain left."""
    places = [place for side in (changed.new, changed.old) for place in _client_listeners(side)]
    places += [(_LOOPBACK, changed.drained_port, False)] if changed.drained_port is not None else []
    failures: list[errors.AgentError] = []
    for host, port, tls in dict.fromkeys(places):
        try:
            client = amqp.Client(login(changed.plan, (host, port), tls))
        except errors.Unreachable as e:
            failures.append(e)
            continue
        if client.container == changed.plan.node.name:
            return client
        client.close()
        name = errors.quoted(client.container)
        failures.append(errors.Unreachable(f"what listens at {client.login.where} calls itself {name}"))
    # Where nothing listens the router may not be yet, or not any more: what answered otherwise says what is wrong.
    answers = [e for e in failures if not (isinstance(e, amqp.Unreachable) and e.kind == amqp.REFUSED)]
    if not failures:
        raise results.NotAsTold("it has no listener for clients")
    raise results.NotAsTold(str(answers[0] if answers else failures[-1]).rstrip("."))


def _client_listeners(entities: typing.Sequence[router.Entity]) -> typing.Iterator[tuple[str, int, bool]]:
    for kind, a in entities:
        if kind == "listener" and a.get("role") == "normal" and not a.get("http"):
            yield (str(a["host"]), int(a["port"]), bool(a.get("sslProfile")))


def _end_connections(client: amqp.Client, users: typing.Collection[str]) -> None:
    for row in client.query("connection"):
        if amqp.is_client(row) and row.get("user") in users:
            with contextlib.suppress(amqp.Refused):  # it has just gone by itself
                client.update("connection", str(row["identity"]), {"adminStatus": "deleted"})


def match(p: router.RouterPlan, entities: typing.Sequence[router.Entity], root: pathlib.Path) -> tuple[str, ...]:
    """Make the running router as its file says, whatever was changed by hand or by a drain; return what was done.

    :raises om_agent.errors.ApplyFailed: when that is not possible.
    """
    changed = RunningRouter(root, p, tuple(entities), tuple(entities), drained_port=read_drained_port(root))
    try:
        with _connect(changed) as client:
            found = router_difference.drift(p, entities, client)
        if found.obstacles:
            raise results.NotAsTold("; ".join(found.obstacles))
        _reconcile_whole(changed, changed.new)
    except results.NotAsTold as e:
        raise errors.ApplyFailed(f"The running router cannot be made as its file says: {e}. Restart it.") from None
    return tuple(str(step) for step in found.steps)


def _failure_of(act: typing.Callable[[], object]) -> str:
    try:
        act()
    except results.NotAsTold as e:
        return str(e)
    except (errors.NotReady, errors.Unreachable) as e:
        return str(e).rstrip(".")
    return ""


def _reconcile_whole(changed: RunningRouter, wanted: typing.Sequence[router.Entity]) -> None:
    _reconcile(changed, wanted, early=True)
    _reconcile(changed, wanted, early=False)


def _reconcile(changed: RunningRouter, wanted: typing.Sequence[router.Entity], early: bool) -> None:
    """Do one half of the steps and read back.

    :raises om_agent.apply.results.NotAsTold: when the router is not as it should be then.
    """
    with _connect(changed) as client:
        found = router_difference.drift(changed.plan, wanted, client)
        if found.obstacles:
            raise results.NotAsTold("; ".join(found.obstacles))
        for step in found.steps:
            if step.early is early:
                if router_difference.gives_up_uplink(step):
                    _wait_for_another_uplink(client, step.name)
                _do(client, step)
        if early:
            _reload_tls(client, changed, wanted)
        after = router_difference.drift(changed.plan, wanted, client).steps
        remaining = [str(step) for step in after if not early or step.early]
        if remaining:
            raise results.NotAsTold(f"it said that all is well, but this is left to do: {', '.join(remaining)}")
    for kind, a in wanted:
        if kind == "listener" and not a.get("http"):
            listening.wait_for_port(str(a["host"]), int(a["port"]), listening=True)
            if early and changed.certificates.get(str(a.get("sslProfile"))):
                listening.check_certificate(str(a["host"]), int(a["port"]), changed.certificates[a["sslProfile"]])


def _do(client: amqp.Client, step: router_difference.Step) -> None:
    entity, own = router_difference.TYPES[step.kind], str(step.attributes.get("name") or step.name)
    moves = step.sign == "+" or {"host", "port"} & set(step.differs)
    if step.kind == "listener" and step.sign != "-" and moves:
        _check_free(step)  # before the old one goes, over which this router is managed
    if step.sign == "~" and step.kind == "vhost":  # between deleting and creating nobody could log in
        client.update(entity, f"{entity}/{step.name}", {a: step.attributes[a] for a in step.differs})
        return
    if step.sign != "+":
        client.delete(entity, own)
    if step.sign == "-":
        return
    if step.kind == "listener" and not moves:
        listening.wait_for_port(*_socket(step), listening=False)
    client.create(entity, own, {k: v for k, v in step.attributes.items() if k != "name"})


def _socket(step: router_difference.Step) -> tuple[str, int]:
    return str(step.attributes["host"]), int(str(step.attributes["port"]))


def _check_free(step: router_difference.Step) -> None:
    host, port = _socket(step)
    try:
        listening.wait_for_port(host, port, listening=False, seconds=0)
    except results.NotAsTold:
        raise errors.ApplyFailed(
            f"Port {port} of {host} is taken by another program, so the router cannot listen there. "
            "End that program, or give the metadata another port."
        ) from None


def _reload_tls(client: amqp.Client, changed: RunningRouter, wanted: typing.Sequence[router.Entity]) -> None:
    if client.login.engine.record.caches_tls:
        for kind, a in wanted:
            if kind == "sslProfile" and a["name"] in changed.certificates:
                client.update(kind, f"{kind}/{a['name']}", {k: v for k, v in a.items() if k != "name"})
