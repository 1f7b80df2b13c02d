"""Changing a running router instead of restarting it.

What is on disk is always the new file first; then listeners, connectors and addresses are created and deleted through
management until the running router is as a restart would make it. A success that the router tells proves nothing (it
says so of a listener whose port is taken, too), so every change is read back and every listener is connected to.

`grow` makes what is new before services move to it, `shrink` removes what is old after they have, and `take_back`
undoes the first. All three compare the running router with a file, so that it does not matter how far a run before
came that was killed; a mark on disk, from before the first change until the last was read back, says there was one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import time
import typing

from om_agent import amqp, errors, render
from om_agent.apply import files, listening, results, router_difference
from om_agent.plan import router

_MARK = "router-changing"
_DOOR = "router-door"
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
class RouterWork:
    """A router that runs, and what it is to become.

    :param old: what it was started with, or made to be since.
    :param steps: what the two files say is to be done.
    :param certificates: by sslProfile whose files change, what its listeners have to show from now on; empty for what
        is not ours.
    :param leaving: whose connections end last, see `departed`.
    :param drained_port: see `read_drained_port`.
    """

    plan: router.RouterPlan
    old: tuple[router.Entity, ...]
    new: tuple[router.Entity, ...]
    steps: tuple[router_difference.Step, ...]
    certificates: typing.Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    drained_port: int | None = None
    leaving: tuple[str, ...] = ()

    def lines(self) -> tuple[str, ...]:
        """Return what is said beforehand, a line each."""
        lines = [str(step) for step in self.steps]
        lines += [f"~ certificates are read anew: {name}" for name in self.certificates]
        lines += [f"- connections of {user}" for user in self.leaving]
        return tuple(lines or ["an interrupted run may have left it half changed"])


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What becomes of a router whose files change.

    :param work: None when it is left alone or restarted.
    :param why: for a restart, what makes it necessary.
    """

    work: RouterWork | None = None
    why: str = ""


def decide(
    p: router.RouterPlan, unit: render.Unit, contents: typing.Mapping[str, bytes], root: pathlib.Path, stamp: str | None
) -> Verdict:
    """Return what to do about the router.

    :param contents: of the unit's files as they are to be.
    :param stamp: path of the file that says with what it was started; None where units are not managed, and it is
        taken to run with what is on disk.
    """
    present = {path: files.read(files.on_disk(root, path)) for path in unit.files}
    changed = [path for path in unit.files if present[path] != contents[path]]
    mark = _read_mark(root)
    if not changed and mark is None:
        return Verdict(why=outdated(unit, present, root, stamp))
    stale = outdated(unit, present, root, stamp)
    if stale:
        return Verdict(why=stale)
    if not p.engine.record.changes:
        return Verdict(why="this engine cannot be changed while it runs")
    old = entities(present.get(p.paths.config))
    if old is None:
        return Verdict(why="the file that it runs with is not there or damaged")
    profiles = {router.PROFILE: p.paths.tls, router.MESH_PROFILE: p.paths.mesh}
    tls = {name: set(map(path, ("ca", "certificate", "key"))) for name, path in profiles.items()}
    others = [path for path in changed if path not in {p.paths.config}.union(*tls.values())]
    found = router_difference.difference(old, p.entities)
    if others or found.obstacles:
        return Verdict(why="; ".join([*(f"{path} changes" for path in others), *found.obstacles]))
    again = bool(mark and mark.get("tls"))
    renewed = [name for name in profiles if tls[name] & (contents.keys() if again else set(changed))]
    certificates = {name: contents.get(profiles[name]("certificate"), b"") for name in renewed}
    noted = mark.get("leaving") if mark else None
    leaving = router_difference.departed(old, p.entities, map(str, noted) if isinstance(noted, list) else ())
    return Verdict(RouterWork(p, old, p.entities, found.steps, certificates, read_drained_port(root), leaving))


def outdated(
    unit: render.Unit, present: typing.Mapping[str, bytes | None], root: pathlib.Path, stamp: str | None
) -> str:
    """Return why what runs is not what is on disk, '' when it is.

    :param present: the unit's files as they are on disk.
    """
    if stamp is None:
        return ""
    noted = files.read(files.on_disk(root, stamp))
    if noted is None:
        return "it was not started yet"
    digests = {path: files.digest(content) for path, content in present.items() if content is not None}
    if digests.keys() == set(unit.files) and noted == render.unit_digest(unit, digests).encode() + b"\n":
        return ""
    return "it was started with other files than those on disk"


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


def set_mark(root: pathlib.Path, work: RouterWork) -> None:
    """Note, durably, that the running router is about to be changed."""
    mark = {"tls": bool(work.certificates), "leaving": work.leaving}
    files.write(_mark_path(root), json.dumps(mark).encode(), 0o600)


def clear_mark(root: pathlib.Path) -> None:
    """Note that the running router is as its file says."""
    files.remove(_mark_path(root))


def read_drained_port(root: pathlib.Path) -> int | None:
    """Return the loopback port at which a drained router is managed, None when it was not drained."""
    content = files.read(files.state_dir(root) / _DOOR) or b""
    return int(content) if content.strip().isdigit() else None


def write_drained_port(root: pathlib.Path, port: int | None) -> None:
    """Note where a drained router is managed, or that it is drained no more."""
    path = files.state_dir(root) / _DOOR
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


def _connect(work: RouterWork) -> amqp.Client:
    """Return a client, at the listener of the new configuration, of the old, or at the one that a drain left."""
    places = [place for side in (work.new, work.old) for place in _client_listeners(side)]
    places += [(_LOOPBACK, work.drained_port, False)] if work.drained_port is not None else []
    troubles: list[errors.AgentError] = []
    for host, port, tls in dict.fromkeys(places):
        try:
            client = amqp.Client(login(work.plan, (host, port), tls))
        except errors.Unreachable as e:
            troubles.append(e)
            continue
        if client.container == work.plan.node.name:
            return client
        client.close()
        told = errors.quoted(client.container)
        troubles.append(errors.Unreachable(f"what listens at {client.login.where} calls itself {told}"))
    # Where nothing listens the router may not be yet, or not any more: what answered otherwise says what is wrong.
    telling = [e for e in troubles if not (isinstance(e, amqp.Unreachable) and e.kind == amqp.REFUSED)]
    if not troubles:
        raise results.NotAsTold("it has no listener for clients")
    raise results.NotAsTold(str(telling[0] if telling else troubles[-1]).rstrip("."))


def _client_listeners(entities: typing.Sequence[router.Entity]) -> typing.Iterator[tuple[str, int, bool]]:
    for kind, a in entities:
        if kind == "listener" and a.get("role") == "normal" and not a.get("http"):
            yield (str(a["host"]), int(a["port"]), bool(a.get("sslProfile")))


def grow(work: RouterWork) -> str:
    """Make what is new on the running router; return why only a restart can bring it, '' when all is well.

    :raises om_agent.errors.ApplyFailed: when another program has a port, so that a restart could not help either.
    """
    return _why_it_failed(lambda: _reconcile(work, work.new, early=True))


def shrink(work: RouterWork) -> str:
    """Remove what is old, and change what cannot be there twice."""

    def act() -> None:
        _reconcile(work, work.new, early=False)
        if work.leaving:
            with _connect(work) as client:
                _dismiss(client, work.leaving)

    return _why_it_failed(act)


def _dismiss(client: amqp.Client, users: typing.Collection[str]) -> None:
    for row in client.query("connection"):
        if amqp.is_client(row) and row.get("user") in users:
            with contextlib.suppress(amqp.Refused):  # it has just gone by itself
                client.update("connection", str(row["identity"]), {"adminStatus": "deleted"})


def take_back(work: RouterWork) -> str:
    """Make the running router what it was; call it before the old files are put back, since it logs in with the new."""
    return _why_it_failed(lambda: _reconcile_whole(dataclasses.replace(work, certificates={}), work.old))


def reload(work: RouterWork) -> str:
    """Have the running router read its certificates anew."""

    def act() -> None:
        with _connect(work) as client:
            _reload_tls(client, work, work.old)

    return _why_it_failed(act)


def match(
    p: router.RouterPlan, entities: typing.Sequence[router.Entity], drained_port: int | None = None
) -> tuple[str, ...]:
    """Make the running router as its file says, whatever was changed by hand or by a drain; return what was done.

    :raises om_agent.errors.ApplyFailed: when that is not possible.
    """
    work = RouterWork(p, tuple(entities), tuple(entities), (), drained_port=drained_port)
    try:
        with _connect(work) as client:
            found = router_difference.drift(p, entities, client)
        if found.obstacles:
            raise results.NotAsTold("; ".join(found.obstacles))
        _reconcile_whole(work, work.new)
    except results.NotAsTold as e:
        raise errors.ApplyFailed(f"The running router cannot be made as its file says: {e}. Restart it.") from None
    return tuple(str(step) for step in found.steps)


def _why_it_failed(act: typing.Callable[[], object]) -> str:
    try:
        act()
    except results.NotAsTold as e:
        return str(e)
    except (errors.NotReady, errors.Unreachable) as e:
        return str(e).rstrip(".")
    return ""


def _reconcile_whole(work: RouterWork, wanted: typing.Sequence[router.Entity]) -> None:
    _reconcile(work, wanted, early=True)
    _reconcile(work, wanted, early=False)


def _reconcile(work: RouterWork, wanted: typing.Sequence[router.Entity], early: bool) -> None:
    """Do one half of the steps and read back.

    :raises om_agent.apply.results.NotAsTold: when the router is not as it should be then.
    """
    with _connect(work) as client:
        found = router_difference.drift(work.plan, wanted, client)
        if found.obstacles:
            raise results.NotAsTold("; ".join(found.obstacles))
        for step in found.steps:
            if step.early is early:
                if router_difference.gives_up_uplink(step):
                    _wait_for_another_uplink(client, step.name)
                _do(client, step)
        if early:
            _reload_tls(client, work, wanted)
        left = [step for step in router_difference.drift(work.plan, wanted, client).steps if not early or step.early]
        if left:
            raise results.NotAsTold(f"it said that all is well, but this is left to do: {', '.join(map(str, left))}")
    for kind, a in wanted:
        if kind == "listener" and not a.get("http"):
            listening.wait_for_port(str(a["host"]), int(a["port"]), listening=True)
            if early and work.certificates.get(str(a.get("sslProfile"))):
                listening.check_certificate(str(a["host"]), int(a["port"]), work.certificates[a["sslProfile"]])


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


def _reload_tls(client: amqp.Client, work: RouterWork, wanted: typing.Sequence[router.Entity]) -> None:
    if client.login.engine.record.caches_tls:
        for kind, a in wanted:
            if kind == "sslProfile" and a["name"] in work.certificates:
                client.update(kind, f"{kind}/{a['name']}", {k: v for k, v in a.items() if k != "name"})
