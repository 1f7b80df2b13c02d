"""Children that are always ended: by the end of a ``with``, by an exception, by a signal, at exit, by our own death.

Each child leads a session of its own, so that Ctrl-C reaches this process alone, which then ends them in order. Each
carries a mark in its environment, by which whatever it started in turn is found, and nothing else ever is.
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
_KILL_SECONDS = 10.0  # for a process that got SIGKILL to be gone
_TAIL_LINES = 12

# What a developer's shell may have set and the programs here would listen to.
_FOREIGN_PREFIXES = ("ERL_", "FACTER_", "HEAT_", "OS_", "PN_", "PUPPET_", "RABBITMQ_", "SASL_")


@dataclasses.dataclass(frozen=True)
class Finished:
    """What a program that ran to its end left; ``cpu`` is in seconds and counts the children it waited for."""

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
        """Resident memory, in KiB; 0 of one that has ended and was not waited for."""
        found = pathlib.Path(f"/proc/{self.pid}/status").read_text().partition("VmRSS:")[2].split()
        return int(found[0]) if found else 0

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds used so far, by all its threads; not readable once it was waited for (OSError)."""
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
    """Starts children and ends them; a context manager.

    :param logs: the directory of their logs.
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
        """Start a program; call this from the main thread only, since the child dies with the thread that made it.

        :param name: of its log, ``NAME.log``; one that is there is continued.
        :param env: in addition to `environment`.
        :param piped: the caller writes its standard input and reads its standard output.
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
        """Wait for the end of a program that writes little; past ``seconds`` it is ended.

        :raises testbed.errors.TestbedError: when it takes longer.
        """
        if process.wait(seconds) is None:
            self.end(process)
            raise errors.TestbedError(f"{process.name} had not finished after {seconds:.0f} s.", process.tail())
        self.end(process)
        output = process.log.read_text(errors="replace") if process.log else ""
        return Finished(typing.cast(int, process.poll()), output, process.cpu)

    def end(self, *processes: Process, grace: float = 5.0) -> None:
        """End children and everything below them: SIGTERM, and SIGKILL for those that are there after ``grace``."""
        with _held_back():
            below = [(pid, _started(pid)) for process in processes for pid in descendants(process.pid)]
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
            self._processes = [p for p in self._processes if p not in processes]

    def end_all(self) -> None:
        """End everything; may be called again."""
        with _held_back():
            self.end(*reversed(self._processes))
            for pid in self._marked():
                _kill(pid)
            deadline = time.monotonic() + _KILL_SECONDS
            while self._marked() and time.monotonic() < deadline:
                time.sleep(_POLL)
        atexit.unregister(self.end_all)

    def left(self) -> list[str]:
        """Return what still runs of all that was ever started here, as ``pid command``."""
        return [f"{pid} {_command(pid)}" for pid in self._marked()]

    def _marked(self) -> list[int]:
        mark = f"{MARK}={self._token}".encode()
        return [pid for pid in _pids() if mark in _read(pid, "environ").split(b"\0") and _alive(pid)]


def environment() -> dict[str, str]:
    """Return this process's environment without what would configure the programs behind our back."""
    return {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN_PREFIXES) and k != "NOTIFY_SOCKET"}


def wait_until(
    what: str,
    check: collections.abc.Callable[[], bool],
    seconds: float,
    watched: collections.abc.Iterable[Process] = (),
    interval: float = 0.05,
) -> None:
    """Wait for ``check`` to be true.

    :param what: of the sentence "WHAT did not happen within N s."
    :param watched: children that must live meanwhile.
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
        # An object that is cut short while it is being made cannot be taken apart either (proton's SSLDomain), and
        # Python would print that with a traceback.
        sys.unraisablehook = lambda unraisable: None
        raise errors.Stopped(number)

    for number in _SIGNALS:
        signal.signal(number, stop)


# --------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _held_back() -> collections.abc.Iterator[None]:
    """Keep signals for later, so that nothing is started without being noted and no ending is cut short."""
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
    """Return a file of proc(5), empty for a process that is gone or somebody else's."""
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
    """Return when a process was started, which with its id tells it from any other; None when it is gone."""
    stat = _stat(pid)
    return stat[19] if stat else None


def _command(pid: int) -> str:
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()[:80]


def descendants(pid: int) -> list[int]:
    """Return every process that ``pid`` has started, and that these have started, as far as they run."""
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
