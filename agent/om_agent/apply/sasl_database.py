"""The SASL database of a router: its bytes are those on disk, or saslpasswd2 makes new ones."""

from __future__ import annotations

import contextlib
import pathlib
import typing

from om_agent import errors, kinds, proc, render
from om_agent.apply import files, saved_state, snapshot
from om_agent.plan import router

_SASL_TIMEOUT = 30.0  # seconds for saslpasswd2 to add one user; it takes some 10 ms


def content_of(file: render.File, before: snapshot.Snapshot, dry: bool) -> tuple[bytes, tuple[str, str]]:
    """Return a SASL database's bytes, and what the state notes of it.

    The bytes are those on disk while they are ours and hold the same users. Else they are new, or none if ``dry``.
    """
    fingerprint = render.fingerprint(file.users, saved_state.load_key(before.root, make=not dry))
    content = before.own[file.path].content
    if content is not None:
        note = (fingerprint, files.digest(content))
        if before.state.sasl.get(file.path) == note:
            return content, note
    content = b"" if dry else make_sasl_database(file.users, saved_state.sasl_dir(before.root))
    return content, (fingerprint, files.digest(content))


def make_sasl_database(users: typing.Sequence[router.SaslUser], directory: pathlib.Path) -> bytes:
    """Return a new SASL database; passwords go to saslpasswd2 through its standard input.

    :param directory: where to make it, for as long as that takes.
    :raises om_agent.errors.NotReady: when saslpasswd2 is not installed.
    :raises om_agent.errors.ApplyFailed: when it fails.
    """
    tool = find_saslpasswd()
    database = directory / "users"
    _discard(database)
    try:
        directory.mkdir(0o700)
        content = _add_users(tool, users, database)
    except BaseException as e:
        with proc.uninterrupted():
            try:
                _discard(database)
            except errors.ApplyFailed as left:
                raise errors.ApplyFailed(f"{e} {left}" if isinstance(e, errors.AgentError) else str(left)) from None
        raise
    with proc.uninterrupted():
        _discard(database)
    return content


def find_saslpasswd() -> str:
    """Return the path of saslpasswd2.

    :raises om_agent.errors.NotReady: when it is not installed.
    """
    tool = proc.find("saslpasswd2", ("/usr/sbin",))
    if not tool:
        raise errors.NotReady([kinds.problem("saslpasswd2", "no-saslpasswd")])
    return tool


def _discard(database: pathlib.Path) -> None:
    """Remove a SASL database with its directory.

    :raises om_agent.errors.ApplyFailed: when that is not possible.
    """
    with contextlib.suppress(OSError):  # first, since the rest needs descriptors, and there may be none
        database.unlink()
    files.remove_directory(database.parent)


def _add_users(tool: str, users: typing.Sequence[router.SaslUser], path: pathlib.Path) -> bytes:
    for user in users:
        command = [tool, "-c", "-p", "-f", str(path), "-u", user.realm, "--", user.name]
        result = proc.run(command, _SASL_TIMEOUT, stdin=user.password.reveal().encode())
        if result.returncode != 0 or not path.exists():
            raise errors.ApplyFailed(
                f"saslpasswd2 could not add the user {errors.quoted(user.name)} (exit code {result.returncode}). "
                "See that the disk is not full and that Cyrus SASL has its sasldb plugin (Debian: libsasl2-modules-db)."
            )
    return path.read_bytes()
