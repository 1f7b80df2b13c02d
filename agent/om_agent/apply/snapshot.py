"""What is on disk before a run of apply, read once for everything that compares or checks it."""

from __future__ import annotations

import dataclasses
import pathlib
import typing

from om_agent import render
from om_agent.apply import files, saved_state, service_files
from om_agent.plan import layout


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What was on disk when a run began.

    :param state: what the last run left.
    :param own: by path, the agent's own files that are there or wanted.
    :param stamps: by unit, the file in which puppet notes with which files it started the unit.
    :param services: by path, the services' files.
    """

    root: pathlib.Path
    state: saved_state.State
    own: typing.Mapping[str, files.Found]
    stamps: typing.Mapping[str, files.Found]
    services: typing.Mapping[str, files.Found]


def take(rendered: render.Rendered, root: pathlib.Path) -> Snapshot:
    """Read all files that a run compares. A file that cannot be read is no error yet.

    :raises om_agent.errors.NotReady: when the state is damaged, or a service's file is too large.
    """
    state = saved_state.load_state(root)
    paths = [*(file.path for file in rendered.files), layout.HIERA_CONFIG, layout.HIERADATA, *state.files]
    own = {path: files.find(root, path) for path in dict.fromkeys(paths)}
    paths_of_stamps = zip(rendered.units, render.stamp_paths(rendered))
    stamps = {unit.name: files.find(root, path) for unit, path in paths_of_stamps}
    services = {file.path: service_files.read(file, root) for file in rendered.config_files}
    return Snapshot(root, state, own, stamps, services)
