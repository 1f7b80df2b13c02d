"""The exceptions, the exit codes, and what a problem is; the sentences are in `om_agent.kinds`.

AgentError
  +- InvalidInput          exit 2: the metadata or the command is invalid; nothing was changed
  +- ApplyFailed           exit 1: the node is as it was before
       +- NotReady         the node does not have what the agent needs; nothing was changed
       +- ProcessFailed    a program could not be started, failed or ran out of time
       +- Busy             another agent holds the lock
       +- RollbackFailed   restoring the old files failed as well; the next run continues it
       +- Unreachable      a router's management cannot be reached, or refuses a request
       +- CannotLoad       a Python module is installed but cannot be loaded

A `Problem` is one thing to fix: where it is, what is wrong and what to do. `om_agent.kinds` makes it from the record of
its code.
"""

from __future__ import annotations

import dataclasses
import errno
import re
import typing

EXIT_OK = 0
EXIT_APPLY_FAILED = 1
EXIT_INVALID = 2
EXIT_UNHEALTHY = 3

ERROR = "error"
WARNING = "warning"

OUT_OF_MEMORY = (
    "There is not enough memory. Free some, or raise the limit that om-agent runs with (ulimit -v, MemoryMax= of its "
    "unit); then run again"
)
# What there is not enough of, by the system's error number, and what to do.
_LIMITS = {
    errno.ENOMEM: "there is not enough memory: free some, or raise the limit (ulimit -v, MemoryMax= of the unit)",
    errno.EAGAIN: "no more processes may be started: end some, or raise the limit (ulimit -u, TasksMax= of the unit)",
    errno.EMFILE: "om-agent may open no more files: raise the limit (ulimit -n, LimitNOFILE= of the unit)",
    errno.ENFILE: "no more files may be open on this machine: close some, or raise the limit (sysctl fs.file-max)",
}

_MAX_ECHO = 60  # characters of a name that a sentence repeats
_MAX_LENGTH = 1200  # characters of any value in a sentence: lists of known keys are the longest


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing to fix.

    :param path: where, as ``nodes[2].address`` in the metadata, or an absolute file path.
    :param code: a key of `om_agent.kinds.KINDS`; stable, for programs.
    :param message: one sentence saying what is wrong.
    :param remedy: one sentence saying how to fix it.
    :param severity: `ERROR`, or `WARNING` for a finding that does not stop anything.
    """

    path: str
    code: str
    message: str
    remedy: str
    severity: str = ERROR

    def __str__(self) -> str:
        return f"{self.path}: {self.message}. {self.remedy}."


class AgentError(Exception):
    """Root of every error that a person may see; ``str()`` is a clear sentence."""

    exit_code = EXIT_APPLY_FAILED


class InvalidInput(AgentError):
    """The metadata or the command is invalid; carries every problem found."""

    exit_code = EXIT_INVALID

    def __init__(self, problems: typing.Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class ApplyFailed(AgentError):
    """Apply failed, and the node is as it was before."""


class NotReady(ApplyFailed):
    """The node does not have what apply needs; carries every problem found. Nothing was changed."""

    def __init__(self, problems: typing.Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class RollbackFailed(ApplyFailed):
    """Apply failed, and restoring the old files failed as well; the journal stays for the next run."""


class ProcessFailed(ApplyFailed):
    """A program is missing, failed or ran out of time."""


class Busy(ApplyFailed):
    """Another agent is running on this node."""


class Unreachable(ApplyFailed):
    """A router's management cannot be reached, or refuses a request."""


class CannotLoad(ApplyFailed):
    """A Python module is installed but cannot be loaded."""

    def __init__(self, name: str, error: ImportError) -> None:
        super().__init__(
            f"The Python module {name} is installed and cannot be loaded ({printable(str(error))}). "
            "See that there is enough memory (ulimit -v, MemoryMax= of the unit), or install the module again."
        )


def limit(number: int | None) -> str:
    """Return a clause that says which limit the system's error ``number`` means; '' when it is no limit."""
    return _LIMITS.get(number or 0, "")


def one_line(value: object) -> str:
    """Return ``value`` as one line of text: control characters are escaped, and a long text is cut."""
    text = value if isinstance(value, str) else str(value)
    cut = text[:_MAX_LENGTH]
    return printable(cut) if cut == text else printable(cut) + "..."


def printable(text: str) -> str:
    """Return ``text`` with everything escaped that a terminal would interpret or not show."""
    if text.isprintable():
        return text
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]


def quoted(name: object) -> str:
    """Return a name from the metadata in quotes, cut to a length that fits into a sentence."""
    text = str(name)
    return '"' + (text if len(text) <= _MAX_ECHO else text[:_MAX_ECHO] + "...") + '"'


def where(host: str, port: object) -> str:
    """Return an address with its port. An IPv6 address is in brackets, to separate it from the port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def key_name(key: object) -> str:
    """Return a key of the metadata in quotes, if it can be a name.

    A key that cannot is never repeated: without the space, YAML reads ``{password:secret}`` as a key.
    """
    if isinstance(key, str) and re.fullmatch(r"[A-Za-z0-9_.-]+(::[A-Za-z0-9_.-]+)*", key):
        return quoted(key)
    return "something that cannot be a name"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the singular or the plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(names: typing.Sequence[str], most: int) -> str:
    """Return up to ``most`` names, and how many more there are."""
    first = ", ".join(names[:most])
    return first if len(names) <= most else f"{first} and {len(names) - most} more"
