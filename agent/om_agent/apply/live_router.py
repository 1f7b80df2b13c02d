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
import socket
import time
import typing

from om_agent import amqp, errors, render
from om_agent.apply import files
from om_agent.plan import router

_MARK = "router-changing"
_DOOR = "router-door"
_TYPES = {"listener": "listener", "connector": "connector", "address": "router.config.address", "vhost": "vhost"}
# What may be changed of a listener: it holds for new connections, and those that exist lose nothing by staying as they
# are. Whom a listener lets in must hold for all at once, so that needs a restart.
_MOVES = frozenset(("host", "port", "linkCapacity", "idleTimeoutSeconds", "cost"))
_DEFAULTS: dict[str, object] = {"cost": 1}  # of attributes that are left out when they have this value
_PORT_SECONDS = 5.0
_UPLINK_SECONDS = 8.0  # a new one takes a moment, one that was refused at first 5 to 10 s
_POLL = 0.05
_LOOPBACK = "127.0.0.1"


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing to create, delete or change.

    :param sign: ``+``, ``-`` or ``~``.
    :param attributes: as they shall be, of what is deleted as they are.
    :param differs: what changes.
    """

    sign: str
    kind: str
    name: str
    attributes: typing.Mapping[str, object] = dataclasses.field(repr=False)
    differs: tuple[str, ...] = ()

    @property
    def early(self) -> bool:
        """True when it is done before services move: it makes something that they may need."""
        return self.sign == "+" or (self.sign == "~" and self.kind in ("listener", "vhost"))

    def __str__(self) -> str:
        return f"{self.sign} {self.kind} {self.name}{': ' if self.differs else ''}{', '.join(self.differs)}"


@dataclasses.dataclass(frozen=True)
class Difference:
    """What leads from one configuration to another.

    :param obstacles: what only a restart changes, a clause each.
    """

    steps: tuple[Step, ...]
    obstacles: tuple[str, ...]


def difference(old: typing.Sequence[router.Entity], new: typing.Sequence[router.Entity]) -> Difference:
    """Return what leads from ``old`` to ``new``; pure."""
    before, after = _by_key(old), _by_key(new)
    steps, obstacles = [], []
    for key in dict.fromkeys((*after, *before)):
        kind, name = key
        was, to_be = before.get(key), after.get(key)
        if was == to_be:
            continue
        differs = tuple(a for a in dict.fromkeys((*(to_be or ()), *(was or ()))) if _differs(a, was, to_be))
        sign = "-" if to_be is None else "+" if was is None else "~"
        attributes = to_be if to_be is not None else was or {}
        step = Step(sign, kind, name, attributes, differs if sign == "~" else ())
        if sign == "~" and not differs:
            continue
        if _possible(step, was or {}):
            steps.append(step)
        else:
            obstacles.append(_obstacle(step))
    order = {"address": 0, "vhost": 1, "listener": 2, "connector": 3}
    return Difference(tuple(sorted(steps, key=lambda s: order[s.kind])), tuple(obstacles))


def _by_key(entities: typing.Sequence[router.Entity]) -> dict[tuple[str, str], dict[str, typing.Any]]:
    return {(kind, str(a.get("prefix") or a.get("hostname") or a.get("name") or "")): dict(a) for kind, a in entities}


def _differs(
    attribute: str, was: typing.Mapping[str, object] | None, to_be: typing.Mapping[str, object] | None
) -> bool:
    default = _DEFAULTS.get(attribute)
    a, b = ((side or {}).get(attribute, default) for side in (was, to_be))
    return attribute != "name" and a != b and str(a) != str(b)  # a port comes back as text, and numbers as AMQP's own


def _possible(step: Step, was: typing.Mapping[str, object]) -> bool:
    if step.kind not in _TYPES or step.attributes.get("http") or was.get("http"):
        return False
    if step.sign == "~" and step.kind == "listener":
        return set(step.differs) <= _MOVES
    return step.sign != "~" or step.kind in ("connector", "vhost")


def _obstacle(step: Step) -> str:
    if step.kind == "router":
        return f"{', '.join(f'router.{a}' for a in step.differs) or 'the router itself'} changes"
    if step.sign == "~":
        return f"{', '.join(step.differs)} of the {step.kind} {step.name} changes"
    return f"the {step.kind} {step.name} is {'new' if step.sign == '+' else 'gone'}"


def drift(p: router.RouterPlan, wanted: typing.Sequence[router.Entity], client: amqp.Client) -> Difference:
    """Return what leads from the running router to ``wanted``.

    An edge's uplink in use is left alone as long as the router at its other end is of the mesh.
    """
    found: list[router.Entity] = []
    keyed = _by_key(wanted)
    for kind, entity in _TYPES.items():
        for row in client.query(entity):
            (key,) = _by_key([(kind, row)])
            if kind == "listener" and row.get("http") and key not in keyed:
                row = {"name": row["name"], "http": True}
            named = {a: row[a] for a in ("name", "prefix", "hostname") if a in row}
            attributes = {a: row[a] for a in (*keyed.get(key, ()), *_DEFAULTS) if a in row}
            found.append((kind, {**attributes, **named}))
    left = difference(found, [(kind, a) for kind, a in wanted if kind in _TYPES])
    staying = {f"uplink/{name}" for name in p.interiors}
    used = _uplink_in_use(client) if any(_gives_up_uplink(step) for step in left.steps) else ""
    steps = [step for step in left.steps if not (_gives_up_uplink(step) and step.name == used and used in staying)]
    return Difference(tuple(steps), left.obstacles)


def _gives_up_uplink(step: Step) -> bool:
    return step.sign == "-" and step.kind == "connector" and step.name.startswith("uplink/")


def _uplink_in_use(client: amqp.Client) -> str:
    """Return the name of the connector that an edge router sends everything over; the other one waits for its turn.

    Taking that away loses the calls of the next 10 to 400 ms, until all interiors know where the edge is now (measured
    with both engines, doc/verify.rst).
    """
    rows = [r for r in client.query("connection") if r["role"] == "edge" and r["dir"] == "out" and r.get("active")]
    return f"uplink/{rows[0]['container']}" if rows else ""


def _wait_for_another_uplink(client: amqp.Client, name: str) -> None:
    """Wait, if not for long, until an edge router has another way out than the one that it is about to lose."""
    deadline = time.monotonic() + _UPLINK_SECONDS
    while time.monotonic() < deadline:
        rows = [r for r in client.query("connection") if r["role"] == "edge" and r["dir"] == "out"]
        if any(f"uplink/{r['container']}" != name for r in rows):
            return
        time.sleep(_POLL)


# -- what to do ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Work:
    """A router that runs, and what it is to become.

    :param old: what it was started with, or made to be since.
    :param steps: what the two files say is to be done.
    :param certificates: by sslProfile whose files change, what its listeners have to show from now on; empty for what
        is not ours.
    :param leaving: whose connections end last, see `departed`.
    :param door: see `read_door`.
    """

    plan: router.RouterPlan
    old: tuple[router.Entity, ...]
    new: tuple[router.Entity, ...]
    steps: tuple[Step, ...]
    certificates: typing.Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    door: int | None = None
    leaving: tuple[str, ...] = ()

    def told(self) -> tuple[str, ...]:
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

    work: Work | None = None
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
    if not amqp.DIALECTS[p.engine].changes:
        return Verdict(why="this engine cannot be changed while it runs")
    old = entities(present.get(p.paths.config))
    if old is None:
        return Verdict(why="the file that it runs with is not there or damaged")
    profiles = {router.PROFILE: p.paths.tls, router.MESH_PROFILE: p.paths.mesh}
    tls = {name: {path(part) for part in ("ca", "certificate", "key")} for name, path in profiles.items()}
    others = [path for path in changed if path not in {p.paths.config}.union(*tls.values())]
    found = difference(old, p.entities)
    if others or found.obstacles:
        return Verdict(why="; ".join([*(f"{path} changes" for path in others), *found.obstacles]))
    again = bool(mark and mark.get("tls"))
    renewed = [name for name in profiles if tls[name] & (contents.keys() if again else set(changed))]
    certificates = {name: contents.get(profiles[name]("certificate"), b"") for name in renewed}
    noted = mark.get("leaving") if mark else None
    leaving = departed(old, p.entities, map(str, noted) if isinstance(noted, list) else ())
    return Verdict(Work(p, old, p.entities, found.steps, certificates, read_door(root), leaving))


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


def departed(
    old: typing.Sequence[router.Entity], new: typing.Sequence[router.Entity], noted: typing.Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the users who may log in no more and whose connections, which both engines leave alone, are to end.

    None while another user is new: services, on other nodes too, may not have moved to that one yet.

    :param noted: those of a run that did not come to its end.
    """
    before, after = _users(old), _users(new)
    return tuple(sorted({*before, *noted} - after)) if after <= before else ()


def _users(entities: typing.Sequence[router.Entity]) -> set[str]:
    groups = [g for kind, a in entities if kind == "vhost" for g in dict(a.get("groups") or {}).values()]
    return {user for group in groups for user in str(group.get("users") or "").split(",")} - {""}


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


def set_mark(root: pathlib.Path, work: Work) -> None:
    """Note, durably, that the running router is about to be changed."""
    mark = {"tls": bool(work.certificates), "leaving": work.leaving}
    files.write(_mark_path(root), json.dumps(mark).encode(), 0o600)


def clear_mark(root: pathlib.Path) -> None:
    """Note that the running router is as its file says."""
    files.remove(_mark_path(root))


def read_door(root: pathlib.Path) -> int | None:
    """Return the loopback port at which a drained router is managed, None when it was not drained."""
    content = files.read(files.state_dir(root) / _DOOR) or b""
    return int(content) if content.strip().isdigit() else None


def write_door(root: pathlib.Path, port: int | None) -> None:
    """Note where a drained router is managed, or that it is drained no more."""
    path = files.state_dir(root) / _DOOR
    if port is not None:
        files.write(path, f"{port}\n".encode(), 0o600)
    else:
        files.remove(path)


# -- doing it --------------------------------------------------------------------------------------------------------


class Trouble(Exception):
    """The running router is not as it was told to be; ``str()`` is a clause."""


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


def connect(p: router.RouterPlan, door: int | None) -> amqp.Client:
    """Return a client of the router of ``p``; at its own listener, or at the one that a drain left.

    :raises om_agent.amqp.Unreachable: when there is none.
    """
    try:
        return amqp.Client(login(p))
    except amqp.Unreachable as e:
        if door is None or e.kind != amqp.REFUSED:
            raise
        with contextlib.suppress(amqp.Unreachable):
            return amqp.Client(login(p, (_LOOPBACK, door), False))
        raise


def _connect(work: Work) -> amqp.Client:
    """Return a client, at the listener of the new configuration, of the old, or at the one that a drain left."""
    places = [place for side in (work.new, work.old) for place in _client_listeners(side)]
    places += [(_LOOPBACK, work.door, False)] if work.door is not None else []
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
        raise Trouble("it has no listener for clients")
    raise Trouble(str(telling[0] if telling else troubles[-1]).rstrip("."))


def _client_listeners(entities: typing.Sequence[router.Entity]) -> typing.Iterator[tuple[str, int, bool]]:
    for kind, a in entities:
        if kind == "listener" and a.get("role") == "normal" and not a.get("http"):
            yield (str(a["host"]), int(a["port"]), bool(a.get("sslProfile")))


def grow(work: Work) -> str:
    """Make what is new on the running router; return why only a restart can bring it, '' when all is well.

    :raises om_agent.errors.ApplyFailed: when another program has a port, so that a restart could not help either.
    """
    return _told(lambda: _reconcile(work, work.new, early=True))


def shrink(work: Work) -> str:
    """Remove what is old, and change what cannot be there twice."""

    def act() -> None:
        _reconcile(work, work.new, early=False)
        if work.leaving:
            with _connect(work) as client:
                _dismiss(client, work.leaving)

    return _told(act)


def _dismiss(client: amqp.Client, users: typing.Collection[str]) -> None:
    for row in client.query("connection"):
        if amqp.is_client(row) and row.get("user") in users:
            with contextlib.suppress(amqp.Refused):  # it has just gone by itself
                client.update("connection", str(row["identity"]), {"adminStatus": "deleted"})


def take_back(work: Work) -> str:
    """Make the running router what it was; call it before the old files are put back, since it logs in with the new."""
    return _told(lambda: _reconcile_whole(dataclasses.replace(work, certificates={}), work.old))


def reload(work: Work) -> str:
    """Have the running router read its certificates anew."""

    def act() -> None:
        with _connect(work) as client:
            _reload_tls(client, work, work.old)

    return _told(act)


def match(p: router.RouterPlan, entities: typing.Sequence[router.Entity], door: int | None = None) -> tuple[str, ...]:
    """Make the running router as its file says, whatever was changed by hand or by a drain; return what was done.

    :raises om_agent.errors.ApplyFailed: when that is not possible.
    """
    work = Work(p, tuple(entities), tuple(entities), (), door=door)
    try:
        with _connect(work) as client:
            found = drift(p, entities, client)
        if found.obstacles:
            raise Trouble("; ".join(found.obstacles))
        _reconcile_whole(work, work.new)
    except Trouble as e:
        raise errors.ApplyFailed(f"The running router cannot be made as its file says: {e}. Restart it.") from None
    return tuple(str(step) for step in found.steps)


def _told(act: typing.Callable[[], object]) -> str:
    try:
        act()
    except Trouble as e:
        return str(e)
    except (errors.NotReady, errors.Unreachable) as e:
        return str(e).rstrip(".")
    return ""


def _reconcile_whole(work: Work, wanted: typing.Sequence[router.Entity]) -> None:
    _reconcile(work, wanted, early=True)
    _reconcile(work, wanted, early=False)


def _reconcile(work: Work, wanted: typing.Sequence[router.Entity], early: bool) -> None:
    """Do one half of the steps and read back.

    :raises om_agent.apply.live_router.Trouble: when the router is not as it should be then.
    """
    with _connect(work) as client:
        found = drift(work.plan, wanted, client)
        if found.obstacles:
            raise Trouble("; ".join(found.obstacles))
        for step in found.steps:
            if step.early is early:
                if _gives_up_uplink(step):
                    _wait_for_another_uplink(client, step.name)
                _do(client, step)
        if early:
            _reload_tls(client, work, wanted)
        left = [step for step in drift(work.plan, wanted, client).steps if not early or step.early]
        if left:
            raise Trouble(f"it said that all is well, but this is left to do: {', '.join(map(str, left))}")
    for kind, a in wanted:
        if kind == "listener" and not a.get("http"):
            _wait_for_port(str(a["host"]), int(a["port"]), listening=True)
            if early and work.certificates.get(str(a.get("sslProfile"))):
                _check_certificate(str(a["host"]), int(a["port"]), work.certificates[a["sslProfile"]])


def _do(client: amqp.Client, step: Step) -> None:
    entity, own = _TYPES[step.kind], str(step.attributes.get("name") or step.name)
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
        _wait_for_port(*_socket(step), listening=False)
    client.create(entity, own, {k: v for k, v in step.attributes.items() if k != "name"})


def _socket(step: Step) -> tuple[str, int]:
    return str(step.attributes["host"]), int(str(step.attributes["port"]))


def _check_free(step: Step) -> None:
    host, port = _socket(step)
    try:
        _wait_for_port(host, port, listening=False, seconds=0)
    except Trouble:
        raise errors.ApplyFailed(
            f"Port {port} of {host} is taken by another program, so the router cannot listen there. "
            "End that program, or give the metadata another port."
        ) from None


def _reload_tls(client: amqp.Client, work: Work, wanted: typing.Sequence[router.Entity]) -> None:
    if amqp.DIALECTS[client.login.engine].caches_tls:
        for kind, a in wanted:
            if kind == "sslProfile" and a["name"] in work.certificates:
                client.update(kind, f"{kind}/{a['name']}", {k: v for k, v in a.items() if k != "name"})


def _wait_for_port(host: str, port: int, listening: bool, seconds: float = _PORT_SECONDS) -> None:
    """Wait until something listens there, or nothing does."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=2).close()
            open_ = True
        except OSError:
            open_ = False
        if open_ is listening:
            return
        if time.monotonic() >= deadline:
            raise Trouble(f"{'nothing' if listening else 'something'} listens at {errors.where(host, port)}")
        time.sleep(_POLL)


def _check_certificate(host: str, port: int, wanted: bytes) -> None:
    """Look at the certificate that a listener shows by now."""
    shown = served_certificate(host, port)
    if shown is None or shown != first_certificate(wanted.decode(errors="replace")):
        raise Trouble(f"it still shows its old certificate at port {port}")


def first_certificate(text: str) -> bytes | None:
    """Return the first certificate of a PEM text as DER."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    if begin not in text or end not in text:
        return None
    import ssl  # only where a running router or broker has a certificate

    try:
        return ssl.PEM_cert_to_DER_cert(text[text.index(begin) : text.index(end) + len(end)])
    except ValueError:
        return None


def shows_another(host: str, port: int, file: pathlib.Path) -> bool:
    """Return whether a TLS listener shows another certificate than the first one of a file; not when either of the two
    cannot be had, which is told elsewhere."""
    try:
        content = file.read_bytes() if file.is_file() else b""
    except OSError:
        return False
    wanted = first_certificate(content.decode(errors="replace"))
    served = served_certificate(host, port) if wanted else None
    return served is not None and served != wanted


def served_certificate(host: str, port: int, seconds: float = _PORT_SECONDS) -> bytes | None:
    """Return the certificate that a TLS listener shows, as DER; None when there is none."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), timeout=seconds) as plain, context.wrap_socket(plain) as secure:
            return secure.getpeercert(binary_form=True)
    except OSError:
        return None
