"""What processes and this machine have used, read from proc(5)."""

from __future__ import annotations

import collections.abc
import dataclasses
import os
import pathlib
import platform
import re
import sys
import time
import typing

from om_agent import host_facts

from testbed import processes

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Usage:
    """CPU seconds used so far: by the processes asked for, by all of this benchmark, by the machine."""

    asked: float
    own: float
    machine: float
    at: float

    @classmethod
    def now(
        cls, asked: collections.abc.Iterable[processes.Process], own: collections.abc.Iterable[processes.Process]
    ) -> Usage:
        """Read it."""
        busy = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        idle = int(busy[3]) + int(busy[4])
        mine = sum(os.times()[:4])
        return cls(used(asked), used(own) + mine, (sum(map(int, busy)) - idle) / _TICKS, time.monotonic())

    def foreign(self, later: Usage) -> float:
        """Return how many cores something else used meanwhile, on average."""
        mine = later.own - self.own
        return max(0.0, (later.machine - self.machine - mine) / (later.at - self.at))


def cpu(process: processes.Process) -> float:
    """Return a process's CPU seconds, its threads' included; of one that has ended, what it had used by then."""
    try:
        return process.cpu_seconds
    except OSError:
        return process.cpu


def used(processes_: collections.abc.Iterable[processes.Process]) -> float:
    """Return the CPU seconds of all together."""
    return sum(map(cpu, processes_))


def resident(processes_: collections.abc.Iterable[processes.Process]) -> float:
    """Return the resident memory of all together, in MiB."""
    return sum(process.resident_kib for process in processes_) / 1024


def describe() -> dict[str, typing.Any]:
    """Return what a reader has to know of this machine.

    Whose Python it is matters, since services are Python: distributions build theirs with optimisations that a plain
    build lacks, and on Debian 12 it needs 0.7 of the time for the same work.
    """
    processor = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    release = pathlib.Path("/etc/os-release").read_text()
    name = re.search(r'PRETTY_NAME="(.*)"', release)
    return {
        "processor": processor[1] if processor else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory[1]) / 1024**2, 1) if memory else 0,
        "system": name[1] if name else platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version() + (" of the system" if sys.base_prefix == "/usr" else ""),
        "rabbitmq": host_facts.broker_version(pathlib.Path("/")),
    }
