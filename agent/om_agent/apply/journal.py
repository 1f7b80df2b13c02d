"""The journal of a transaction on disk: which files a run may change, and how far it has come.

The journal is one JSON file in the agent's own directory. Its paths are those below the root directory. So a run in an
image that was mounted somewhere can be put right by the agent in the booted image.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib

from om_agent.apply import copies, files
from om_agent.plan import layout

PREPARE, ACTIVE, PUPPET, COMMITTED = "prepare", "active", "puppet", "committed"


@dataclasses.dataclass(frozen=True)
class Journal:
    """What is needed to finish a run or to take it back.

    :param directories: those that the run makes.
    :param units: units to restart when everything is put back after puppet ran.
    """

    phase: str
    entries: tuple[copies.Original, ...]
    directories: tuple[str, ...]
    units: tuple[str, ...]

    def dump(self) -> bytes:
        """Return the bytes of the journal on disk."""
        return json.dumps({**vars(self), "entries": [_raw(entry) for entry in self.entries]}).encode()


def _raw(entry: copies.Original) -> dict[str, object]:
    return {name: value for name, value in vars(entry).items() if value is not None}  # as earlier versions wrote it


def parse(content: bytes) -> Journal | None:
    """Return the journal that `Journal.dump` made ``content`` of; None when this is not one."""
    try:
        raw = json.loads(content)
        entries = tuple(copies.Original(e["path"], e["copy"], e["link"], e.get("mode")) for e in raw["entries"])
        read = Journal(raw["phase"], entries, tuple(raw["directories"]), tuple(raw["units"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    texts = [*read.directories, *read.units, *(e.path for e in entries), *(e.link for e in entries)]
    whole = all(isinstance(text, str) for text in texts) and all(isinstance(e.copy, bool) for e in entries)
    modes_are_good = all(isinstance(e.mode, (int, type(None))) for e in entries)
    return read if whole and modes_are_good and read.phase in (PREPARE, ACTIVE, PUPPET, COMMITTED) else None


def path_of(root: pathlib.Path) -> pathlib.Path:
    """Return where the journal is."""
    return files.on_disk(root, f"{layout.STATE_DIR}/journal.json")


def save(root: pathlib.Path, journal: Journal) -> None:
    """Write the journal, durably."""
    files.write(path_of(root), journal.dump(), 0o600)


def is_saved(root: pathlib.Path, journal: Journal) -> bool:
    """Return whether the journal on disk is just this one."""
    return files.read(path_of(root)) == journal.dump()


def remove(root: pathlib.Path) -> None:
    """Remove the journal: the run is complete or taken back."""
    files.remove(path_of(root))


def unfinished(root: pathlib.Path) -> bool:
    """Return whether a run's changes are neither complete nor taken back."""
    return os.path.lexists(path_of(root))
