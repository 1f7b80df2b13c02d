"""The configuration files of services on disk: what is in them, and what puppet has to change."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import stat
import typing

from om_agent import errors, ini, kinds, model, reading
from om_agent.apply import files, results
from om_agent.plan import services

READERS = {services.OSLO: "oslo.config", services.PASTE: "PasteDeploy"}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One service's file, compared with what should be in it.

    :param file: with the sections that may be removed when they become empty.
    :param changes: what puppet has to do.
    :param added_sections: the sections of the agent's own that the file has after that.
    """

    file: services.ConfigFile
    changes: tuple[results.Change, ...]
    added_sections: tuple[str, ...]


def read(file: services.ConfigFile, root: pathlib.Path) -> files.Found:
    """Return a service's file as it is on disk.

    :raises om_agent.errors.NotReady: when it is too large for a configuration.
    """
    found = files.find(root, file.path, reading.SERVICE_LIMIT + 1)
    if len(found.content or b"") > reading.SERVICE_LIMIT:
        limit = reading.SERVICE_LIMIT // reading.MIB
        raise errors.NotReady([kinds.problem(str(found.place), "large-file", limit=limit)])
    return found


def text_of(found: files.Found) -> str:
    """Return the text of a service's file; '' when there is none."""
    return (found.content or b"").decode(errors="surrogateescape")


def compare(file: services.ConfigFile, found: files.Found, added_before: typing.Collection[str]) -> Comparison:
    """Return what has to change in a service's file.

    Any section that the agent did not add is the operator's. Its header stays, with or without keys below it.

    :param added_before: the sections that earlier runs added to the file.
    """
    text = text_of(found)
    if file.format == services.OSLO:  # the agent adds sections to no other format
        present = ini.section_names(text)
        wanted = frozenset(ini.section_name(s.section) for s in file.settings)
        file = dataclasses.replace(file, removable=(wanted - present) | present.intersection(added_before))
    changes = key_changes(file, found)
    if changes:
        text = ini.edit(text, wanted_keys(file), file.format, file.removable)
    return Comparison(file, tuple(changes), tuple(sorted(ini.section_names(text, file.format) & file.removable)))


def check_puppet_result(config_files: typing.Iterable[services.ConfigFile], root: pathlib.Path) -> None:
    """Read the files again after puppet has run.

    :raises om_agent.errors.ApplyFailed: when puppet reported success and a file is not as it should be.
    """
    remaining = [str(change) for file in config_files for change in key_changes(file, read(file, root))]
    if remaining:
        raise errors.ApplyFailed(
            f"puppet reported success, but this is still to do: {'; '.join(remaining[:5])}. "
            "Another program may be editing the same files: stop it and run again."
        )


def wanted_keys(file: services.ConfigFile) -> list[tuple[str, str, str | None]]:
    """Return each (section, key, value); None when the key must be absent."""
    return [(s.section, s.key, s.value.reveal() if s.value else None) for s in file.settings]


def key_changes(file: services.ConfigFile, found: files.Found) -> list[results.Change]:
    """Return what puppet has to do to one service's file.

    :raises OSError: when the file could not be read.
    """
    if found.error:
        raise found.error
    keys = ini.read(text_of(found), file.format)
    changes = []
    for section, key, value in wanted_keys(file):
        if not ini.holds(keys, section, key, value, file.format):
            values = keys.get((ini.section_name(section, file.format), key), [])
            old = [f"{v.text} ..." if v.continued else v.text for v in values]
            action = "change" if old else "create"
            if value is None:
                action = "remove"
            changes.append(results.Change(action, file.path, f"[{section}] {key}", "; ".join(old), value or ""))
    if found.content is not None and found.status and found.status.st_mode & 0o7777 != file.mode:
        changes.append(results.Change("change", file.path, f"mode 0{file.mode:o}"))
    return changes


def keys_of(path: str, root: pathlib.Path) -> ini.Keys:
    """Return the keys of a file that oslo.config reads; none when it cannot be read."""
    try:
        return ini.read((files.read(files.on_disk(root, path)) or b"").decode(errors="surrogateescape"))
    except OSError:
        return {}


# -- checks before the first write -------------------------------------------------------------------------------------


def check(file: services.ConfigFile, found: files.Found) -> list[errors.Problem]:
    """Return why a service's file cannot be edited."""
    if not found.status:
        return []
    path, mode = found.place, found.status.st_mode
    if not stat.S_ISREG(mode):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "a directory or device"
        return [kinds.problem(str(path), "not-a-file", found=what)]
    if found.status.st_nlink > 1:
        return [kinds.problem(str(path), "hard-link", count=found.status.st_nlink)]
    if not os.access(path, os.R_OK | os.W_OK):
        return [kinds.problem(str(path), "read-only")]
    return _check_text(file, path, text_of(found))


def _check_text(file: services.ConfigFile, path: pathlib.Path, text: str) -> list[errors.Problem]:
    """Refuse a text that the file's reader rejects, and an edit after which it would not read what is wanted."""
    reader = READERS[file.format]
    fault = ini.fault(text, file.format)
    if fault:
        return [kinds.problem(f"{path}:{fault.line}", "rejected-line", reader=reader, why=fault.why)]
    keys = ini.read(text, file.format)
    for s in file.settings if file.format == services.PASTE else ():
        # PasteDeploy ignores a key of a section that is in DEFAULT too, and "get KEY" overrides KEY. Every section gets
        # the keys of DEFAULT.
        sections = ("DEFAULT", ini.section_name(s.section, services.PASTE))
        for section, key in keys:
            overrides = key.startswith("get ") and key[4:].strip() == s.key and section in sections
            if overrides or (section, key) == ("DEFAULT", s.key):
                where = f"{path}:{keys[section, key][0].line}"
                return [kinds.problem(where, "paste-elsewhere", key=key, section=section, ours=s.key)]
    problems = misfits(file, path, keys)
    if problems:
        return problems
    wanted = wanted_keys(file)
    if all(ini.holds(keys, *setting, file.format) for setting in wanted):
        return []
    fault = ini.misread(text, ini.edit(text, wanted, file.format), wanted, file.format)
    return [kinds.problem(f"{path}:{fault.line}", "cannot-edit", reader=reader, why=fault.why)] if fault else []


def misfits(file: services.ConfigFile, path: pathlib.Path, keys: ini.Keys) -> list[errors.Problem]:
    """Return keys of the operator with which no message of the service passes the router."""
    found = []
    for key, good in file.fitting.items():
        values = keys.get((services.DRIVERS[model.Scheme.AMQP], key), [])
        if values and (values[-1].continued or values[-1].text.lower() not in good):
            name = f"[{services.DRIVERS[model.Scheme.AMQP]}] {key}"
            where = f"{path}:{values[-1].line}"
            found.append(kinds.problem(where, "address-misfit", key=name, service=file.service, wanted=good[0]))
    return found
