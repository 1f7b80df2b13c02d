"""The files of services on disk: what they say, and what puppet has to do to them."""

from __future__ import annotations

import dataclasses
import pathlib

from om_agent import errors, ini, kinds, reading
from om_agent.apply import files, results, saved_state
from om_agent.plan import services


def with_removable(file: services.ConfigFile, root: pathlib.Path, state: saved_state.State) -> services.ConfigFile:
    """Return ``file`` with the sections that the agent added to it, or adds in this run.

    Any other section is the operator's, and its header stays, with or without keys below it.
    """
    if file.format != services.OSLO:
        return file  # no section is ever added to it
    present = ini.section_names(text_of(file, root))
    wanted = frozenset(ini.section_name(s.section) for s in file.settings)
    added = present.intersection(state.sections.get(file.path, ()))
    return dataclasses.replace(file, removable=(wanted - present) | added)


def added_sections(file: services.ConfigFile, root: pathlib.Path) -> tuple[str, ...]:
    """Return the sections of the agent's own that ``file`` has after this run."""
    text = text_of(file, root)
    if key_changes(file, root):
        text = ini.edit(text, wanted_keys(file), file.format, file.removable)
    return tuple(sorted(ini.section_names(text, file.format) & file.removable))


def text_of(file: services.ConfigFile, root: pathlib.Path) -> str:
    """Return the text of a service's file; '' when there is none.

    :raises om_agent.errors.NotReady: when it is too large for a configuration.
    """
    return (_content(files.on_disk(root, file.path)) or b"").decode(errors="surrogateescape")


def _content(path: pathlib.Path) -> bytes | None:
    content = files.read(path, reading.SERVICE_LIMIT + 1)
    if content is not None and len(content) > reading.SERVICE_LIMIT:
        raise errors.NotReady([kinds.problem(str(path), "large-file", limit=reading.SERVICE_LIMIT // reading.MIB)])
    return content


def wanted_keys(file: services.ConfigFile) -> list[tuple[str, str, str | None]]:
    """Return each (section, key, value); None when the key must be absent."""
    return [(s.section, s.key, s.value.reveal() if s.value else None) for s in file.settings]


def key_changes(file: services.ConfigFile, root: pathlib.Path) -> list[results.Change]:
    """Return what puppet has to do to one service's file; the values themselves are not in it."""
    path = files.on_disk(root, file.path)
    content = _content(path)
    keys = ini.read((content or b"").decode(errors="surrogateescape"), file.format)
    changes = []
    for section, key, value in wanted_keys(file):
        if not ini.holds(keys, section, key, value, file.format):
            found = keys.get((ini.section_name(section, file.format), key), [])
            old = [f"{v.text} ..." if v.continued else v.text for v in found]
            action = "change" if old else "create"
            if value is None:
                action = "remove"
            changes.append(results.Change(action, file.path, f"[{section}] {key}", "; ".join(old), value or ""))
    if content is not None and path.lstat().st_mode & 0o7777 != file.mode:
        changes.append(results.Change("change", file.path, f"mode 0{file.mode:o}"))
    return changes


def keys_of(path: str, root: pathlib.Path) -> ini.Keys:
    """Return the keys of a file that oslo.config reads; none when it cannot be read."""
    try:
        return ini.read((files.read(files.on_disk(root, path)) or b"").decode(errors="surrogateescape"))
    except OSError:
        return {}
