"""Changing who may log in to a running broker instead of restarting it.

The new definitions file is always on disk first. The broker's next start reads it, and the running broker is given the
same document. RabbitMQ only ever adds from such a document. So the agent deletes by name what an earlier file of ours
had and this one does not have, and nothing else. Everything is read back. Users belong to the whole cluster: the agent
of every node does the same, and finds done what another agent has done.

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
from om_agent.apply import files, listening, results, running
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
        """Return the user that rabbitmqctl runs as; None for the user of this program.

        rabbitmqctl sources a shell script of its configuration directory, and Erlang takes commands from its home
        directory. Packages give both to the broker's own user, who must not become root that way.

        :raises om_agent.errors.ProcessFailed: when they are root's and other users may write them.
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
    """Return the status of what is there, and of its target if that is a link."""
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
class RunningBroker:
    """A broker that runs, and which users it will know; see `om_agent.apply.running.Running`.

    :param old: the definitions that it knows.
    :param remove: users and policies of ours to delete once services have others.
    :param kept_users: users of ours that stay for now, since services of other nodes may still log in with them.
    :param needs_restart: whether more than definitions and certificates changes.
    :param certificate: what its listener has to show from now on, empty where only a CA was given as PEM; None when
        nothing of that changes.
    """

    control: Control
    old: Definitions
    new: Definitions
    remove: tuple[Key, ...]
    kept_users: tuple[Key, ...]
    needs_restart: bool
    certificate: bytes | None = None

    @property
    def unit(self) -> str:
        """The name of its systemd unit."""
        return layout.RABBIT_UNIT

    def lines(self) -> tuple[str, ...]:
        """Return what a plan says will be changed, a line each."""
        before, after = _rows(self.old), _rows(self.new)
        signs = {key: "+" if key not in before else "~" for key, row in after.items() if before.get(key) != row}
        lines = [f"{sign} {called(key)}" for key, sign in signs.items()]
        lines += [f"- {called(key)}" for key in self.remove]
        lines += ["~ certificates are read anew"] if self.certificate is not None else []
        return tuple(lines or ["an interrupted run may have left it half changed"])

    def set_mark(self) -> None:
        """Note, durably, what a later run has to delete if this one does not come to its end."""
        made = [key for key in _rows(self.new) if key not in _rows(self.old)]
        content = json.dumps([*self.remove, *self.kept_users, *made]).encode()
        files.write(_mark_path(self.control.root), content, 0o600)

    def add_new(self) -> str:
        """Make what is new, before services use it."""
        return _failure_of(self._add_new)

    def _add_new(self) -> None:
        _import_lacking(self.control, self.new)
        if self.certificate is not None:
            _clear_certificate_cache(self.control)
            _check_certificate(self.control.plan, self.certificate)

    def remove_old(self, failure: str, manage_services: bool) -> tuple[str, ...]:
        """Delete what no service uses any more."""
        not_deleted = _failure_of(lambda: _delete(self.control, self.remove)) if self.remove else ""
        if not not_deleted:
            files.remove(_mark_path(self.control.root))
        notes = []
        if failure and not self.needs_restart:
            restart = f"{self.unit} is restarted instead"
            if not manage_services:
                restart = f"Its next start has it: restart {self.unit}"
            notes.append(f"The running broker could not be changed: {failure}. {restart}.")
        if not_deleted:
            names = ", ".join(map(called, self.remove))
            notes.append(f"The broker still has {names}: {not_deleted}. Run om-agent apply again when it runs.")
        if self.kept_users:
            names = ", ".join(map(called, self.kept_users))
            notes.append(
                f"The broker still has {names}, since services of other nodes may log in so. "
                "Run rabbitmqctl delete_user when none does."
            )
        return tuple(notes)

    def take_back(self) -> str:
        """Make passwords, permissions and policies what they were.

        A user whom this run made stays, since services of another node may have been given that user by now. The mark
        stays too. With it, the next run that comes to its end without making a user deletes that one.
        """
        return _failure_of(lambda: _import_lacking(self.control, self.old))

    def finish_taking_back(self) -> str:
        """Have it read its old certificates again."""
        return _failure_of(lambda: _clear_certificate_cache(self.control)) if self.certificate is not None else ""


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
    """Return what is not in ``found`` as it is in ``wanted``; rows of ``found`` may say more."""
    rows = _rows(found)
    return tuple(key for key, row in _rows(wanted).items() if not row.items() <= rows.get(key, {}).items())


def superfluous(
    old: Definitions, new: Definitions, noted: typing.Iterable[Key] = ()
) -> tuple[tuple[Key, ...], tuple[Key, ...]]:
    """Return what of ours has to be deleted, and the users that have to stay for now.

    When one user replaces another in the same step, services of nodes that are updated later still use the old one.

    :param noted: what a run that did not come to its end would have deleted, or had made.
    """
    before, after = _rows(old), _rows(new)
    deletable = [key for key in dict.fromkeys((*before, *noted)) if key[0] in ("users", "policies")]
    unwanted = [key for key in deletable if key not in after]
    has_new_user = any(key[0] == "users" for key in after.keys() - before.keys())
    kept_users = tuple(key for key in unwanted if has_new_user and key[0] == "users")
    return tuple(key for key in unwanted if key not in kept_users), kept_users


def decide(control: Control, unit: running.UnitFiles) -> running.Decision:
    """Return what is done at the running broker; nothing when it does not know any definitions of ours yet."""
    path = layout.RABBIT_DEFINITIONS
    old, noted = _parse(unit.present[path]), _read_mark(control.root)
    changed = set(unit.changed)
    renewed = _TLS & changed or (noted is not None and _TLS & unit.present.keys())
    nothing_to_do = path not in changed and noted is None and not renewed
    if old is None or nothing_to_do or unit.outdated == running.NOT_STARTED:
        return running.Decision()
    new = json.loads(unit.wanted[path])
    remove, kept_users = superfluous(old, new, noted or ())
    needs_restart = bool(changed - {path} - _TLS or unit.outdated)
    certificate = None
    if renewed and not needs_restart:
        certificate = unit.wanted.get(layout.RABBIT_TLS["certificate"], b"")
    return running.Decision(RunningBroker(control, old, new, remove, kept_users, needs_restart, certificate))


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


def _check_certificate(p: broker.BrokerPlan, certificate: bytes) -> None:
    wanted = listening.first_certificate(certificate.decode(errors="replace"))
    for host, port in listeners(p) if certificate else ():
        if listening.served_certificate(host, port) != wanted:
            raise results.NotAsTold(f"it still shows its old certificate at port {port}")


def _clear_certificate_cache(control: Control) -> None:
    """Have Erlang read its PEM files for the next connection; connections that exist stay.

    By itself Erlang reads them again within two minutes, and between brokers it always takes that long
    (ssl_pem_cache_clean, ssl(6)).
    """
    done = control.ctl("eval", "ssl:clear_pem_cache().")
    if done.returncode:
        raise results.NotAsTold(f"rabbitmqctl could not have it read its certificates (exit code {done.returncode})")


def listeners(p: broker.BrokerPlan) -> tuple[tuple[str, int], ...]:
    """Return address and port of every listener for clients over TLS."""
    own = p.listener
    return ((own.address or "localhost", own.port),) if own.certificate else ()


def _failure_of(act: typing.Callable[[], object]) -> str:
    try:
        act()
    except (results.NotAsTold, errors.ProcessFailed) as e:
        return str(e).rstrip(".")
    return ""


def _import_lacking(control: Control, wanted: Definitions) -> None:
    """Make the broker know all of ``wanted``, in addition to what else it knows."""
    if not lacking(wanted, _export(control)):
        return
    code = _import(control, wanted).returncode
    still_lacking = lacking(wanted, _export(control))
    if still_lacking:
        raise results.NotAsTold(f"it did not take {called(still_lacking[0])} (exit code {code})")


def _import(control: Control, wanted: Definitions) -> proc.Result:
    """Have the broker take definitions from a file in memory.

    The rabbitmqctl of RabbitMQ 4 never ends when it reads them from standard input. A file on disk would stay if the
    agent were killed. The broker's user cannot open a pipe of root's, but it can open a memfd that it inherits.
    """
    with os.fdopen(os.memfd_create("definitions"), "wb") as file:
        file.write(json.dumps(wanted).encode())
        file.flush()
        return control.ctl("import_definitions", f"/proc/self/fd/{file.fileno()}", keep_open=(file.fileno(),))


def _delete(control: Control, keys: typing.Sequence[Key]) -> None:
    code = 0
    known = _rows(_export(control))
    for kind, *names in [key for key in keys if key in known]:
        if kind == "users":
            code = control.ctl("delete_user", "--", *names).returncode
        else:
            code = control.ctl("clear_policy", "-p", names[0], "--", names[1]).returncode
    known = _rows(_export(control))
    remaining = [key for key in keys if key in known]
    if remaining:
        raise results.NotAsTold(f"it did not delete {called(remaining[0])} (exit code {code})")


def _export(control: Control) -> Definitions:
    """Return what the broker knows."""
    done = control.ctl("export_definitions", "-")
    if done.returncode == _UNAVAILABLE:
        raise results.NotAsTold("it does not run, or does not accept this node's Erlang cookie")
    found = _parse(done.stdout.encode()) if done.returncode == 0 else None
    if found is None:
        raise results.NotAsTold(f"rabbitmqctl could not ask it (exit code {done.returncode})")
    return found
