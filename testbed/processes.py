"""Child processes that always end: with a ``with`` block, an exception, a signal, or the end of this process.

Each child leads its own session. So Ctrl-C reaches only this process, which then ends the children in order. A mark in
the environment of each child identifies it and all processes that it started, and no others.
"""

from __future__ import annotations

import atexit
import collections.abc
import contextlib
import ctypes
import dataclasses
import os
import pathlib
import secrets
import signal
import subprocess
import sys
import time
import typing

from testbed import errors

MARK = "OM_TESTBED"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # prctl(2)
_LIBC = ctypes.CDLL(None, use_errno=True)
_POLL = 0.02
_KILL_SECONDS = 10.0  # how long a process may take to end after SIGKILL
_TAIL_LINES = 12

# Variables that a developer's shell may have set and that would change how the programs here behave.
_FOREIGN_PREFIXES = ("ERL_", "FACTER_", "HEAT_", "OS_", "PN_", "PUPPET_", "RABBITMQ_", "SASL_")


@dataclasses.dataclass(frozen=True)
class Finished:
    """The result of a program that has ended. ``cpu`` is in seconds and includes the children it waited for."""

    returncode: int
    output: str
    cpu: float


class Process:
    """One child.

    :param log: the file with its output; None when the caller reads the output.
    """

    def __init__(self, name: str, popen: subprocess.Popen[str], log: pathlib.Path | None) -> None:
        self.name = name
        self.popen = popen
        self.log = log
        self.cpu = 0.0

    @property
    def pid(self) -> int:
        """Process id, and id of its process group and session."""
        return self.popen.pid

    @property
    def resident_kib(self) -> int:
        """Resident memory in KiB, 0 for a process that has ended and was not waited for."""
        found = pathlib.Path(f"/proc/{self.pid}/status").read_text().partition("VmRSS:")[2].split()
        return int(found[0]) if found else 0

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds that all its threads have used. This raises OSError once the process was waited for."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        if self.popen.returncode is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.popen.returncode = os.waitstatus_to_exitcode(status)
                self.cpu = usage.ru_utime + usage.ru_stime
        return self.popen.returncode

    def wait(self, seconds: float) -> int | None:
        """Return the exit code, or None when it still runs after ``seconds``."""
        deadline = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL)
        return self.poll()

    def signal(self, number: int) -> None:
        """Send a signal to its process group, if it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def tail(self) -> str:
        """Return the last lines of its log."""
        if not self.log:
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])


class Supervisor:
    """Start children and end them. Use it as a context manager.

    :param logs: the directory for the children's logs.
    """

    def __init__(self, logs: pathlib.Path) -> None:
        self.logs = logs
        self._token = secrets.token_hex(8)
        self._processes: list[Process] = []
        logs.mkdir(parents=True, exist_ok=True)
        atexit.register(self.end_all)

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end_all()

    def start(
        self,
        name: str,
        argv: collections.abc.Sequence[str],
        env: collections.abc.Mapping[str, str] | None = None,
        cwd: pathlib.Path | None = None,
        piped: bool = False,
    ) -> Process:
        """Start a program. Call this only from the main thread, because the child ends with the thread that started it.

        :param name: the name of its log, ``NAME.log``. Output is appended to an existing log.
        :param env: variables in addition to those of `environment`.
        :param piped: whether the caller writes its standard input and reads its standard output.
        """
        log = self.logs / f"{name}.log"
        with log.open("ab") as sink, _held_back():
            try:
                popen = subprocess.Popen(
                    list(argv),
                    stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if piped else sink,
                    stderr=sink,
                    env={**environment(), **(env or {}), MARK: self._token},
                    cwd=cwd or self.logs,
                    text=True,
                    start_new_session=True,
                    preexec_fn=_child_setup,
                )
            except OSError as e:
                raise errors.TestbedError(f"{argv[0]} cannot be started: {e.strerror}.") from None
            process = Process(name, popen, log)
            self._processes.append(process)
        return process

    def finish(self, process: Process, seconds: float) -> Finished:
        """Wait for the end of a program that writes little. End it after ``seconds``.

        :raises testbed.errors.TestbedError: when it takes longer.
        """
        if process.wait(seconds) is None:
            self.end(process)
            raise errors.TestbedError(f"{process.name} had not finished after {seconds:.0f} s.", process.tail())
        self.end(process)
        output = process.log.read_text(errors="replace") if process.log else ""
        return Finished(typing.cast(int, process.poll()), output, process.cpu)

    def end(self, *processes: Process, grace: float = 5.0) -> None:
        """End children and their descendants: with SIGTERM, and with SIGKILL after ``grace`` seconds."""
        with _held_back():
            below: list[tuple[int, bytes | None]] = []
            for process in processes:
                below += [(pid, _started(pid)) for pid in descendants(process.pid)]
            if grace:
                for process in processes:
                    process.signal(signal.SIGTERM)
            deadline = time.monotonic() + grace
            for process in processes:
                process.wait(deadline - time.monotonic())
                process.signal(signal.SIGKILL)
                process.wait(_KILL_SECONDS)
                for stream in (process.popen.stdin, process.popen.stdout):
                    if stream:
                        with contextlib.suppress(OSError):
                            stream.close()
            for pid, started in below:
                if started is not None and _started(pid) == started:
                    _kill(pid)
            self._processes = [process for process in self._processes if process not in processes]

    def end_all(self) -> None:
        """End all children. This may be called more than once."""
        with _held_back():
            self.end(*reversed(self._processes))
            for pid in self._marked():
                _kill(pid)
            deadline = time.monotonic() + _KILL_SECONDS
            while self._marked() and time.monotonic() < deadline:
                time.sleep(_POLL)
        atexit.unregister(self.end_all)

    def left(self) -> list[str]:
        """Return the processes that were started here and still run, as ``pid command``."""
        return [f"{pid} {_command(pid)}" for pid in self._marked()]

    def _marked(self) -> list[int]:
        mark = f"{MARK}={self._token}".encode()
        return [pid for pid in _pids() if mark in _read(pid, "environ").split(b"\0") and _alive(pid)]


def environment() -> dict[str, str]:
    """Return this process's environment without variables that would change how the programs behave."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_PREFIXES)}
    kept.pop("NOTIFY_SOCKET", None)
    return kept


def wait_until(
    what: str,
    check: collections.abc.Callable[[], bool],
    seconds: float,
    watched: collections.abc.Iterable[Process] = (),
    interval: float = 0.05,
) -> None:
    """Wait until ``check`` returns true.

    :param what: completes the sentence "After N s it was still waiting until WHAT."
    :param watched: children that must run meanwhile.
    :raises testbed.errors.TestbedError: when the time is over or a child ends.
    """
    watched = tuple(watched)
    deadline = time.monotonic() + seconds
    while not check():
        for process in watched:
            code = process.poll()
            if code is not None:
                raise errors.TestbedError(f"{process.name} ended with {code} before {what}.", process.tail())
        if time.monotonic() > deadline:
            detail = "\n".join(process.tail() for process in watched)
            raise errors.TestbedError(f"After {seconds:.0f} s it was still waiting until {what}.", detail)
        time.sleep(interval)


def stop_on_signals() -> None:
    """Make SIGINT, SIGTERM and SIGHUP raise `errors.Stopped` in the main thread."""

    def stop(number: int, frame: object) -> None:
        # The exception may interrupt the constructor of an object (proton's SSLDomain). The destructor of the
        # incomplete object then fails, and Python would print a traceback.
        sys.unraisablehook = lambda unraisable: None
        raise errors.Stopped(number)

    for number in _SIGNALS:
        signal.signal(number, stop)


# --------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _held_back() -> collections.abc.Iterator[None]:
    """Delay signals, so that no child is started without a record, and no end of a child is interrupted."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _child_setup() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _read(pid: int, name: str) -> bytes:
    """Return a file of proc(5), empty for a process that has ended or belongs to another user."""
    try:
        return pathlib.Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _stat(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat after the command's name: state, parent, ..."""
    return _read(pid, "stat").rpartition(b") ")[2].split()


def _alive(pid: int) -> bool:
    stat = _stat(pid)
    return bool(stat) and stat[0] not in (b"Z", b"X")


def _started(pid: int) -> bytes | None:
    """Return the start time of a process, None when it has ended. Start time and id together identify a process."""
    stat = _stat(pid)
    return stat[19] if stat else None


def _command(pid: int) -> str:
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()[:80]


def descendants(pid: int) -> list[int]:
    """Return all running descendants of a process."""
    children: dict[int, list[int]] = {}
    for other in _pids():
        stat = _stat(other)
        if stat:
            children.setdefault(int(stat[1]), []).append(other)
    found = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
