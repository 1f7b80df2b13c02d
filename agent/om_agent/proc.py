"""The one door to other programs: a list of arguments, a time limit, no shell, no secret in the arguments."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import typing

from om_agent import errors


@dataclasses.dataclass(frozen=True)
class Result:
    """What a program left behind; texts are decoded with replacement."""

    returncode: int
    stdout: str
    stderr: str


def find(program: str, also: typing.Sequence[str] = ()) -> str | None:
    """Return the path of ``program`` on PATH or in one of the directories ``also``, or None."""
    return shutil.which(program) or shutil.which(program, path=os.pathsep.join(also))


def run(
    argv: typing.Sequence[str],
    timeout: float,
    stdin: bytes = b"",
    env: typing.Mapping[str, str] | None = None,
    keep_open: typing.Sequence[int] = (),
) -> Result:
    """Run a program to its end.

    :param timeout: seconds; past them the program's whole process group is killed.
    :param stdin: where secrets go.
    :param keep_open: file descriptors that the program inherits.
    :raises om_agent.errors.ProcessFailed: when it cannot be started or runs out of time; not for its exit code.
    """
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env) if env is not None else None,
            pass_fds=tuple(keep_open),
            start_new_session=True,
        )
    except OSError as e:
        raise errors.ProcessFailed(f"{argv[0]} cannot be started: {e.strerror}. Install it or mend its permissions.") from None
    try:
        out, err = process.communicate(stdin, timeout=timeout)
    except BaseException as e:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.communicate()
        if isinstance(e, subprocess.TimeoutExpired):
            raise errors.ProcessFailed(
                f"{argv[0]} was ended: it had not finished after {timeout:.0f} s. See what it waits for, and run again."
            ) from None
        raise
    return Result(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
