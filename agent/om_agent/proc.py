"""Run other programs: with a list of arguments and a time limit, without a shell, and no secret in the arguments."""

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

# Each of these signals ends a run. `om_agent.signals` turns them into KeyboardInterrupt.
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

# The environment variables that the agent passes to a program of another user (rabbitmqctl). Others may hold passwords.
_FOR_OTHER_USERS = re.compile("PATH|LANG|LC_.*|TZ|ERL_.*|RABBITMQ_.*")
_PIPE_SECONDS = 5.0  # how long to wait for the pipes of a killed program; a daemon that it started may hold them open


@dataclasses.dataclass(frozen=True)
class Result:
    """The exit code and the output of a program; bytes that are not UTF-8 are replaced."""

    returncode: int
    stdout: str
    stderr: str


@dataclasses.dataclass(frozen=True)
class User:
    """The user and the group that a program runs as. It has no supplementary groups."""

    uid: int
    gid: int


def find(program: str, also: typing.Sequence[str] = ()) -> str | None:
    """Return the path of ``program`` on PATH or in one of the directories ``also``; None when there is none."""
    extra_path = os.pathsep.join(also)
    return shutil.which(program) or shutil.which(program, path=extra_path)


def run(
    argv: typing.Sequence[str],
    timeout: float,
    stdin: bytes = b"",
    env: typing.Mapping[str, str] | None = None,
    more: typing.Mapping[str, str] | None = None,
    keep_open: typing.Sequence[int] = (),
    user: User | None = None,
) -> Result:
    """Run a program and wait until it ends.

    :param timeout: seconds after which the agent kills the program and its process group.
    :param stdin: standard input; the place for secrets.
    :param env: the whole environment; by default the agent's own.
    :param more: variables in addition to the agent's own.
    :param keep_open: file descriptors that the program inherits.
    :param user: the user to run as, which needs root. The program then gets only some variables of the agent.
    :raises om_agent.errors.ProcessFailed: when the program cannot be started or takes too long; not for its exit code.
    """
    variables = dict(env) if env is not None else {**_environment(user), **(more or {})}
    process: subprocess.Popen[bytes] | None = None
    try:
        with uninterrupted():  # a signal right after the fork would leave a program that nothing can kill
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=variables,
                pass_fds=tuple(keep_open),
                start_new_session=True,
                cwd="/" if user else None,  # the user may have no access to the agent's directory
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=[] if user else None,
            )
        out, err = process.communicate(stdin, timeout=timeout)
    except BaseException as e:
        if process is None and isinstance(e, OSError):
            lacking = errors.limit(e.errno)
            why = f"{lacking}." if lacking else f"{e.strerror}. Install it or fix its permissions."
            raise errors.ProcessFailed(f"{argv[0]} cannot be started: {why}") from None
        if process is not None:
            _kill(process)
        if isinstance(e, subprocess.TimeoutExpired):
            raise errors.ProcessFailed(
                f"The agent killed {argv[0]}: it had not finished after {timeout:.0f} s. Find out what it waits for,"
                " and run om-agent again."
            ) from None
        raise
    return Result(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


def _environment(user: User | None) -> dict[str, str]:
    """Return the environment for a program that runs as ``user``; None is the agent's own user."""
    if user is None:
        return dict(os.environ)
    return {name: value for name, value in os.environ.items() if _FOR_OTHER_USERS.fullmatch(name)}


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and its process group, and wait until the program has ended."""
    with uninterrupted():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        try:
            process.communicate(timeout=_PIPE_SECONDS)
        except subprocess.TimeoutExpired:
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()
            process.wait()


@contextlib.contextmanager
def uninterrupted() -> typing.Iterator[None]:
    """Delay the signals that end a run until the block has ended. An error in the block takes precedence over them."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python calls signal handlers in the main thread only
        return
    delayed: list[int] = []
    handlers = {number: signal.getsignal(number) for number in ENDING}
    handled = {number: handler for number, handler in handlers.items() if callable(handler)}  # ignored ones stay so

    def delay(number: int, frame: object) -> None:
        delayed.append(number)

    for number in handled:
        signal.signal(number, delay)
    try:
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
    if delayed:
        signal.raise_signal(delayed[0])
