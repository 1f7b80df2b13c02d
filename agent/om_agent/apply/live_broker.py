"""Changing who may log in to a running broker instead of restarting it.

What is on disk is always the new definitions file first, which the broker's next start reads; the running one is given
the same document. RabbitMQ only ever adds from it, so what an earlier file of ours had and this one has not is deleted
by name, and nobody else's. Everything is read back. Users are the whole cluster's: every node's agent does the same,
and finds done what another has done.

Sources: https://www.rabbitmq.com/docs/definitions, rabbitmqctl(8) (import_definitions reads a file,
export_definitions writes to standard output); run with 3.10.8 and 4.0.5. That ends the connections of a user who is
deleted (rabbit_connection_tracking_handler.erl).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import pwd
import stat
import typing

from om_agent import errors, proc
from om_agent.apply import files, listening, results
from om_agent.plan import broker, layout

# rabbitmqctl asks every member, and waits for one that hangs until Erlang gives it up: 45 to 75 s (net_ticktime).
CTL_SECONDS = 90.0
# Of RabbitMQ itself: packages put a script of the same name before it, which hands its arguments to a shell.
_CTL = "/usr/lib/rabbitmq/bin/rabbitmqctl"
_MARK = "broker-changing"
_TLS = frozenset(layout.RABBIT_TLS.values())
_UNAVAILABLE = 69  # sysexits(3), of rabbitmqctl for a broker that it does not reach

# What tells two rows of a definitions document apart, by kind, and what people call one.
_KEYS = {
    "users": ("user", ("name",)),
    "vhosts": ("virtual host", ("name",)),
    "permissions": ("permissions of", ("user", "vhost")),
    "policies": ("policy", ("vhost", "name")),
}
_TAGS = "tags"  # of a user: ours have none, and versions write that differently

Definitions = typing.Mapping[str, typing.Sequence[typing.Mapping[str, typing.Any]]]
Key = tuple[str, ...]  # kind, and what tells the row apart


@dataclasses.dataclass(frozen=True)
class Control:
    """How rabbitmqctl reaches this node's broker."""

    plan: broker.BrokerPlan
    root: pathlib.Path
    relocated: bool

    def ctl(self, *command: str, keep_open: tuple[int, ...] = ()) -> proc.Result:
        """Run rabbitmqctl.

        :param keep_open: file descriptors that it inherits.
        :raises om_agent.errors.ProcessFailed: when it is not installed or does not end.
        """
        tool = _CTL if os.path.exists(_CTL) else proc.find("rabbitmqctl", ("/usr/sbin",))
        if not tool:
            raise errors.ProcessFailed("rabbitmqctl is not installed")
        settings = dict(self.plan.environment)
        argv = [tool, "--quiet", "--timeout", f"{CTL_SECONDS / 3:.0f}", "--node", settings["NODENAME"]]
        argv += ["--longnames"] if settings.get("USE_LONGNAME") else []
        more = {"HOME": str(files.on_disk(self.root, layout.RABBIT_COOKIE).parent)}
        if self.relocated:
            more["RABBITMQ_CONF_ENV_FILE"] = str(self._configuration / "rabbitmq-env.conf")
        return proc.run([*argv, *command], CTL_SECONDS, keep_open=keep_open, more=more, user=self.user())

    def user(self) -> proc.User | None:
        """Return as whom rabbitmqctl runs, None for whom this program runs as.

        It sources a shell script of its configuration directory, and Erlang takes commands from its home directory;
        packages give both to the broker's own user, who must not become root that way.

        :raises om_agent.errors.ProcessFailed: when others have a say in them and nobody is there to run it as.
        """
        if os.geteuid() != 0:
            return None
        cookie = files.on_disk(self.root, layout.RABBIT_COOKIE)
        places = (cookie.parent, self._configuration, cookie, self._configuration / "rabbitmq-env.conf")
        found = [(path, state) for path in places for state in _states(path)]
        for _, state in found:
            if state.st_uid != 0:
                return proc.User(state.st_uid, _group(state))
        for path, state in found:
            others = stat.S_IWOTH | (stat.S_IWGRP if state.st_gid else 0)
            if state.st_mode & others and not stat.S_ISLNK(state.st_mode):
                raise errors.ProcessFailed(
                    f"{path} is root's and others may write it: rabbitmqctl would do what they say. "
                    f"Give it to the user {layout.RABBIT_USER}, or take that right away."
                )
        return None

    @property
    def _configuration(self) -> pathlib.Path:
        return files.on_disk(self.root if self.relocated else pathlib.Path("/"), layout.RABBIT_DIR)


def _states(path: pathlib.Path) -> list[os.stat_result]:
    """Return what is there, and what it leads to if that is a link."""
    found = []
    for look in (os.lstat, os.stat):
        with contextlib.suppress(OSError):
            found.append(look(path))
    return found


def _group(state: os.stat_result) -> int:
    """Return the group of an owner."""
    try:
        return pwd.getpwuid(state.st_uid).pw_gid
    except KeyError:  # of another root directory
        return state.st_gid or state.st_uid


@dataclasses.dataclass(frozen=True)
class BrokerWork:
    """A broker that runs, and whom it is to know.

    :param old: the definitions that it knows.
    :param remove: of what we made: users and policies to delete once services have others.
    :param kept_users: users to delete, if services of other nodes had been given another before.
    :param needs_no_restart: whether nothing but definitions and certificates changes, so that no restart is needed.
    :param certificate: what its listener has to show from now on, empty where only a CA was given as PEM; None when
        nothing of that changes.
    """

    control: Control
    old: Definitions
    new: Definitions
    remove: tuple[Key, ...]
    kept_users: tuple[Key, ...]
    needs_no_restart: bool
    certificate: bytes | None = None

    def lines(self) -> tuple[str, ...]:
        """Return what is said beforehand, a line each."""
        before, after = _rows(self.old), _rows(self.new)
        signs = {key: "+" if key not in before else "~" for key, row in after.items() if before.get(key) != row}
        lines = [f"{sign} {called(key)}" for key, sign in signs.items()]
        lines += [f"- {called(key)}" for key in self.remove]
        lines += ["~ certificates are read anew"] if self.certificate is not None else []
        return tuple(lines or ["an interrupted run may have left it half changed"])


def called(key: Key) -> str:
    """Return what people call a row."""
    kind, *names = key
    what, parts = _KEYS[kind]
    return f"{what} {' in '.join(names[::-1] if parts[0] == 'vhost' else names)}"


def _without_tags(row: typing.Mapping[str, typing.Any]) -> dict[str, typing.Any]:
    return {key: value for key, value in row.items() if key != _TAGS}


def _rows(definitions: Definitions) -> dict[Key, dict[str, typing.Any]]:
    return {
        (kind, *map(str, map(row.__getitem__, names))): _without_tags(row)
        for kind, (_, names) in _KEYS.items()
        for row in definitions.get(kind, ())
    }


def lacking(wanted: Definitions, found: Definitions) -> tuple[Key, ...]:
    """Return what is not in ``found`` as it is in ``wanted``; what else a row of ``found`` says is no matter."""
    rows = _rows(found)
    return tuple(key for key, row in _rows(wanted).items() if not row.items() <= rows.get(key, {}).items())


def superfluous(
    old: Definitions, new: Definitions, noted: typing.Iterable[Key] = ()
) -> tuple[tuple[Key, ...], tuple[Key, ...]]:
    """Return what of ours is to be deleted, and which users are not for now.

    A user whom another one replaces in the same step is still that of the services on nodes whose turn comes later.

    :param noted: what a run that did not come to its end would have deleted, or had made.
    """
    before, after = _rows(old), _rows(new)
    gone = [key for key in dict.fromkeys((*before, *noted)) if key not in after and key[0] in ("users", "policies")]
    replaced = any(key[0] == "users" for key in after.keys() - before.keys())
    kept_users = tuple(key for key in gone if replaced and key[0] == "users")
    return tuple(key for key in gone if key not in kept_users), kept_users


def needed_work(
    control: Control, present: typing.Mapping[str, bytes | None], contents: typing.Mapping[str, bytes], outdated: bool
) -> BrokerWork | None:
    """Return what is to be done at the running broker; None when it is left alone, or knows nothing of ours yet.

    :param present: the unit's files as they are on disk.
    :param contents: the same as they are to be.
    :param outdated: whether it runs with others than those on disk.
    """
    path = layout.RABBIT_DEFINITIONS
    old, noted = _parse(present[path]), _read_mark(control.root)
    changed = {p for p in present if present[p] != contents[p]}
    renewed = _TLS & changed or (noted is not None and _TLS & present.keys())
    if old is None or (path not in changed and noted is None and not renewed):
        return None
    new = json.loads(contents[path])
    remove, kept_users = superfluous(old, new, noted or ())
    needs_no_restart = not (changed - {path} - _TLS or outdated)
    certificate = contents.get(layout.RABBIT_TLS["certificate"], b"") if renewed and needs_no_restart else None
    return BrokerWork(control, old, new, remove, kept_users, needs_no_restart, certificate)


def _parse(content: bytes | None) -> Definitions | None:
    """Return a definitions document; None for anything else."""
    try:
        found = json.loads(content or b"")
        _rows(found)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return typing.cast("Definitions", found)


# -- the mark: what to delete, should the run not come to its end ----------------------------------------------------


def _mark_path(root: pathlib.Path) -> pathlib.Path:
    return files.state_dir(root) / _MARK


def _read_mark(root: pathlib.Path) -> list[Key] | None:
    content = files.read(_mark_path(root))
    if content is None:
        return None
    with contextlib.suppress(ValueError, TypeError):
        return [tuple(map(str, key)) for key in json.loads(content) if key[0] in _KEYS]
    return []


def set_mark(work: BrokerWork) -> None:
    """Note, durably, that the running broker is about to be changed."""
    made = [key for key in _rows(work.new) if key not in _rows(work.old)]
    files.write(_mark_path(work.control.root), json.dumps([*work.remove, *work.kept_users, *made]).encode(), 0o600)


def _clear_mark(root: pathlib.Path) -> None:
    files.remove(_mark_path(root))


def grow(work: BrokerWork) -> str:
    """Make what is new, before services use it; return why that cannot be, '' when all is well."""

    def act() -> None:
        _hold(work.control, work.new)
        if work.certificate is not None:
            _read_anew(work.control, work.certificate)

    return _why_it_failed(act)


def finish(work: BrokerWork) -> str:
    """Delete what nothing uses any more; return why that cannot be, '' when all is well."""
    trouble = _why_it_failed(lambda: _delete(work)) if work.remove else ""
    if not trouble:
        _clear_mark(work.control.root)
    return trouble


def take_back(work: BrokerWork) -> str:
    """Make passwords, permissions and policies what they were.

    A user whom this run made stays, since another node's services may have been given it by now; the mark stays too,
    and with it the next run that comes to its end without making one deletes it.
    """
    return _why_it_failed(lambda: _hold(work.control, work.old))


def reload(work: BrokerWork) -> str:
    """Have the running broker read its certificates anew, whatever they are now."""
    return _why_it_failed(lambda: _forget_certificates(work.control))


def _read_anew(control: Control, certificate: bytes) -> None:
    _forget_certificates(control)
    wanted = listening.first_certificate(certificate.decode(errors="replace"))
    for host, port in listeners(control.plan) if certificate else ():
        if listening.served_certificate(host, port) != wanted:
            raise results.NotAsTold(f"it still shows its old certificate at port {port}")


def _forget_certificates(control: Control) -> None:
    """Have Erlang read its PEM files for the next connection; by itself it does within two minutes, and between brokers
    it always takes that long (ssl_pem_cache_clean, ssl(6)). Connections that exist stay."""
    done = control.ctl("eval", "ssl:clear_pem_cache().")
    if done.returncode:
        raise results.NotAsTold(f"rabbitmqctl could not have it read its certificates (exit code {done.returncode})")


def listeners(p: broker.BrokerPlan) -> tuple[tuple[str, int], ...]:
    """Return address and port of every listener for clients over TLS."""
    own = p.listener
    return ((own.address or "localhost", own.port),) if own.certificate else ()


def _why_it_failed(act: typing.Callable[[], object]) -> str:
    try:
        act()
    except (results.NotAsTold, errors.ProcessFailed) as e:
        return str(e).rstrip(".")
    return ""


def _hold(control: Control, wanted: Definitions) -> None:
    """Make the broker know what is wanted, and whatever else it knows."""
    if not lacking(wanted, _export(control)):
        return
    code = _import(control, wanted).returncode
    left = lacking(wanted, _export(control))
    if left:
        raise results.NotAsTold(f"it did not take {called(left[0])} (exit code {code})")


def _import(control: Control, wanted: Definitions) -> proc.Result:
    """Have the broker take definitions from a file in memory.

    The rabbitmqctl of RabbitMQ 4 never ends when it reads them from standard input. A file on disk would stay if the
    agent were killed. The broker's user cannot open a pipe of root's, but it can open a memfd that it inherits.
    """
    with os.fdopen(os.memfd_create("definitions"), "wb") as file:
        file.write(json.dumps(wanted).encode())
        file.flush()
        return control.ctl("import_definitions", f"/proc/self/fd/{file.fileno()}", keep_open=(file.fileno(),))


def _delete(work: BrokerWork) -> None:
    code = 0
    for kind, *names in [key for key in work.remove if key in _rows(_export(work.control))]:
        if kind == "users":
            code = work.control.ctl("delete_user", "--", *names).returncode
        else:
            code = work.control.ctl("clear_policy", "-p", names[0], "--", names[1]).returncode
    found = _rows(_export(work.control))
    left = [key for key in work.remove if key in found]
    if left:
        raise results.NotAsTold(f"it did not delete {called(left[0])} (exit code {code})")


def _export(control: Control) -> Definitions:
    """Return what the broker knows."""
    done = control.ctl("export_definitions", "-")
    if done.returncode == _UNAVAILABLE:
        raise results.NotAsTold("it does not run, or does not accept this node's Erlang cookie")
    found = _parse(done.stdout.encode()) if done.returncode == 0 else None
    if found is None:
        raise results.NotAsTold(f"rabbitmqctl could not ask it (exit code {done.returncode})")
    return found
