"""The node's lock: only one agent works at a time, and none while a puppet that outlived its agent still runs."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import stat
import time
import typing

from om_agent import errors
from om_agent.apply import access, files
from om_agent.plan import layout

_LOCK_POLL = 0.1  # seconds


@contextlib.contextmanager
def lock(root: pathlib.Path, timeout: float) -> typing.Iterator[int]:
    """Hold the node's lock; yield its descriptor.

    puppet inherits the descriptor. So a puppet that outlives a killed agent keeps the next agent waiting.

    :param timeout: seconds to wait for another agent.
    :raises om_agent.errors.Busy: when it does not finish in time.
    :raises om_agent.errors.ApplyFailed: when the state directory cannot be made.
    """
    directory = files.state_dir(root)
    problems = access.hazards(root, [f"{layout.STATE_DIR}/lock"])
    if problems:
        raise errors.NotReady(problems)
    try:
        for missing in files.missing_parents(root, [f"{layout.STATE_DIR}/lock"]):
            with contextlib.suppress(FileExistsError):  # another agent made it meanwhile
                files.make_directory(files.on_disk(root, missing))
        directory.chmod(0o700)
        descriptor = _open_lock(directory / "lock")
    except OSError as e:
        if e.errno in (errno.ELOOP, errno.EISDIR, errno.EEXIST, errno.ENOTDIR, errno.ENXIO):
            raise errors.ApplyFailed(
                f"{e.filename} cannot be used: {e.strerror}. It is not as om-agent makes it: remove it and run again."
            ) from None
        raise errors.ApplyFailed(
            f"{directory} cannot be used: {e.strerror}. Run om-agent as root, or free some space."
        ) from None
    try:
        _wait_for_lock(descriptor, directory / "lock", timeout)
        yield descriptor
    finally:
        os.close(descriptor)


def _open_lock(path: pathlib.Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ENXIO, "it is a pipe or a device", str(path))
    return descriptor


def _wait_for_lock(descriptor: int, path: pathlib.Path, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise errors.Busy(
                    f"Another om-agent, or a puppet that it started, still holds {path} after {timeout:.0f} s. "
                    "Wait for it to end, or see what it hangs on (fuser tells its process id)."
                ) from None
            time.sleep(_LOCK_POLL)
        else:
            return
