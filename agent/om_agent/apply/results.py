"""What apply reports: what is not as it should be, and what it did."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Change:
    """One thing that is not as it should be.

    :param action: ``create``, ``change`` or ``remove`` a file or key, ``restart``, ``reconcile`` (change it while it
        runs) or ``stop`` a unit.
    :param path: of the file, or the name of the unit.
    :param detail: which key; why a unit is restarted; what of it is changed.
    :param old: a key's present value, which may hold a password, as may ``new``: for `om_agent.report` to mask.
    """

    action: str
    path: str
    detail: str = ""
    old: str = dataclasses.field(default="", repr=False)
    new: str = dataclasses.field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.action} {self.path}{': ' if self.detail else ''}{self.detail}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What apply did.

    :param changes: empty when the node was right already.
    :param puppet: what puppet says it did.
    :param notes: what went otherwise than planned, a sentence each.
    """

    changes: tuple[Change, ...]
    puppet: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class NotAsTold(Exception):
    """A router or broker is not as it was told to be; ``str()`` is a clause."""
