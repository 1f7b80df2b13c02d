"""A router or broker that runs: the operations with which apply changes it without a restart."""

from __future__ import annotations

import dataclasses
import typing

from om_agent import render
from om_agent.apply import files

NOT_STARTED = "it was not started yet"
OTHER_FILES = "it was started with other files than those on disk"


class Running(typing.Protocol):
    """Something that runs, and what this run of apply does to it.

    The operations are called in this order. `set_mark` notes on disk that a change begins, so that the next run goes on
    with one that was cut short. `add_new` makes what is new, before services use it. Then services get their new
    configuration and the transaction ends. `remove_old` removes what no service uses any more. When the transaction
    fails, `take_back` and `finish_taking_back` undo the change instead.

    An operation that can fail returns why it failed, a clause; '' means success.
    """

    @property
    def unit(self) -> str:
        """The name of its systemd unit."""

    @property
    def needs_restart(self) -> bool:
        """True when it has to be restarted in addition, by puppet."""

    def lines(self) -> tuple[str, ...]:
        """Return what a plan says will be changed, a line each."""

    def set_mark(self) -> None:
        """Note, durably, that it is about to be changed."""

    def add_new(self) -> str:
        """Make what is new."""

    def remove_old(self, failure: str, manage_services: bool) -> tuple[str, ...]:
        """Remove what is old; return a sentence for each thing that went otherwise than planned.

        :param failure: of `add_new`.
        """

    def take_back(self) -> str:
        """Undo `add_new`, while the new files are still on disk: the login may be new."""

    def finish_taking_back(self) -> str:
        """Have it read its old certificates again, now that the old files are on disk; forget the mark."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """What is done about a unit whose files change.

    :param running: None when it is left alone or restarted.
    :param why: why it has to be restarted.
    """

    running: Running | None = None
    why: str = ""


@dataclasses.dataclass(frozen=True)
class UnitFiles:
    """The files of a unit of ours.

    :param present: their content on disk, by path.
    :param wanted: their content as it will be.
    :param outdated: why the files on disk are not those with which the unit was started; '' when they are.
    """

    present: typing.Mapping[str, bytes | None]
    wanted: typing.Mapping[str, bytes]
    outdated: str = ""

    @property
    def changed(self) -> tuple[str, ...]:
        """The paths of the files that change."""
        return tuple(path for path, content in self.present.items() if content != self.wanted[path])


def outdated(unit: render.Unit, present: typing.Mapping[str, bytes | None], stamp: bytes | None) -> str:
    """Return why the files on disk are not those with which a unit was started; '' when they are.

    :param stamp: what puppet noted when it started the unit; None when it never did.
    """
    if stamp is None:
        return NOT_STARTED
    digests = {path: files.digest(content) for path, content in present.items() if content is not None}
    if digests.keys() == set(unit.files) and stamp == render.unit_digest(unit, digests).encode() + b"\n":
        return ""
    return OTHER_FILES
