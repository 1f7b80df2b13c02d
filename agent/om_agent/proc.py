"""The one door to other programs: a list of arguments, a time limit, no shell, no secret in the arguments."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import threading
import typing

from om_agent import errors

# Each of these ends a run. The command line turns them into KeyboardInterrupt, wherever the program is just then.
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

# Of this program's variables, what one that runs as somebody else (rabbitmqctl) is given: others may hold passwords.
_FOR_OTHERS = re.compile("PATH|LANG|LC_.*|TZ|ERL_.*|RABBITMQ_.*")
_DRAIN = 5.0  # seconds for the pipes of a killed program to close; a daemon that it started may keep them open


@dataclasses.dataclass(frozen=True)
class Result:
    """What a program left behind; texts are decoded with replacement."""

    returncode: int
    stdout: str
    stderr: str


@dataclasses.dataclass(frozen=True)
class User:
    """As whom a program runs that another user has a say in; in no group but this one."""

    uid: int
    gid: int


def find(program: str, also: typing.Sequence[str] = ()) -> str | None:
    """Return the path of ``program`` on PATH or in one of the directories ``also``, or None."""
    return shutil.which(program) or shutil.which(program, path=os.pathsep.join(also))


def run(
    argv: typing.Sequence[str],
    timeout: float,
    stdin: bytes = b"",
    env: typing.Mapping[str, str] | None = None,
    more: typing.Mapping[str, str] | None = None,
    keep_open: typing.Sequence[int] = (),
    user: User | None = None,
) -> Result:
    """Run a program to its end.

    :param timeout: seconds; past them the program's whole process group is killed.
    :param stdin: where secrets go.
    :param env: its whole environment; by default this program's own.
    :param more: variables beside this program's own.
    :param keep_open: file descriptors that the program inherits.
    :param user: as whom it runs, which only root can ask for; it is not given all of this program's variables then.
    :raises om_agent.errors.ProcessFailed: when it cannot be started or runs out of time; not for its exit code.
    """
    process: subprocess.Popen[bytes] | None = None
    try:
        with uninterrupted():  # else a signal between fork and here would leave a program that nobody knows of
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(env) if env is not None else {**_environment(user), **(more or {})},
                pass_fds=tuple(keep_open),
                start_new_session=True,
                cwd="/" if user else None,  # where this program is may be closed to them
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=[] if user else None,
            )
        out, err = process.communicate(stdin, timeout=timeout)
    except BaseException as e:
        if process is None and isinstance(e, OSError):
            short = errors.limit(e.errno)
            why = f"{short}." if short else f"{e.strerror}. Install it or fix its permissions."
            raise errors.ProcessFailed(f"{argv[0]} cannot be started: {why}") from None
        if process is not None:
            _kill(process)
        if isinstance(e, subprocess.TimeoutExpired):
            raise errors.ProcessFailed(
                f"{argv[0]} was ended: it had not finished after {timeout:.0f} s. See what it waits for, and run again."
            ) from None
        raise
    return Result(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


def _environment(user: User | None) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if user is None or _FOR_OTHERS.fullmatch(k)}


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a program and its process group, and wait until it is gone."""
    with uninterrupted():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        try:
            process.communicate(timeout=_DRAIN)
        except subprocess.TimeoutExpired:
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()
            process.wait()


@contextlib.contextmanager
def uninterrupted() -> typing.Iterator[None]:
    """Hold back the signals that end a run until the block is through; an error in the block goes before them."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python calls signal handlers in the main thread only
        return
    held: list[int] = []
    handlers = {n: signal.getsignal(n) for n in ENDING}
    own = {n: h for n, h in handlers.items() if callable(h)}  # what is ignored stays ignored
    for number in own:
        signal.signal(number, lambda n, frame: held.append(n))
    try:
        yield
    finally:
        for number, handler in own.items():
            signal.signal(number, handler)
    if held:
        signal.raise_signal(held[0])
