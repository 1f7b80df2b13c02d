"""Settings of the operator with which those that the agent writes have no effect, or do not work."""

from __future__ import annotations

import contextlib
import pathlib
import typing

from om_agent import errors, ini, kinds, model, render, sources
from om_agent.apply import files, service_files
from om_agent.plan import layout, services


def misfits_elsewhere(file: services.ConfigFile, root: pathlib.Path) -> list[errors.Problem]:
    """Return `service_files.misfits` in the other places that the service reads after its own file."""
    if not file.fitting:
        return []
    found: list[errors.Problem] = []
    for source, keys in other_settings(file, root):
        if source.after:
            found += service_files.misfits(file, files.on_disk(root, source.path), keys)
    return found


def other_settings(file: services.ConfigFile, root: pathlib.Path) -> list[tuple[sources.Source, ini.Keys]]:
    """Return the other files that a service reads and the environment of its units, each with the keys that it sets."""
    found: list[tuple[sources.Source, ini.Keys]] = []
    for source in sources.other_files(file.path, file.units, root):
        found.append((source, service_files.keys_of(source.path, root)))
    for variable in sources.variables(file.units, root):
        value = ini.Value(variable.value, False, variable.line)
        source = sources.Source(variable.path, variable.unit, True)
        found.append((source, {(variable.section, variable.key): [value]}))
    return found


def overrides(rendered: render.Rendered, host: layout.Host, root: pathlib.Path) -> tuple[errors.Problem, ...]:
    """Return the lines that override ours, or with which ours do not work, in all files that services read."""
    found = list(_own_transports_of_paste(rendered, host, root))
    for file in rendered.config_files:
        if file.format != services.OSLO:
            continue
        found += _rejected(file, root)
        found += _own_transports(file, file.path, service_files.keys_of(file.path, root), root)
        found += _threads(file, root)
        found += _elsewhere(file, rendered, root)
        for source, keys in other_settings(file, root):
            for s in file.settings:
                values = keys.get((ini.section_name(s.section), s.key), [])
                ours = s.value.reveal() if s.value else None
                adds = any(name in services.ADDED_UP for name in ((s.section, s.key), *_newer_name(s)))
                counts = source.after or adds or ours is None
                if values and counts and (adds or [v.text for v in values][-1] != ours):
                    where = f"{files.on_disk(root, source.path)}:{values[-1].line}"
                    names = {"key": f"[{s.section}] {s.key}", "unit": source.unit, "own": file.path}
                    found.append(kinds.problem(where, "overridden", **names))
            found += _own_transports(file, source.path, keys, root)
    return tuple(dict.fromkeys(found))


def _elsewhere(
    file: services.ConfigFile, rendered: render.Rendered, root: pathlib.Path
) -> typing.Iterator[errors.Problem]:
    """Yield where the environment of a unit names other files, so that it does not read the service's own."""
    own = [f.path for f in rendered.config_files if f.service == file.service and f.format == services.OSLO]
    for one in sources.elsewhere(own, file.units, root):
        where = f"{files.on_disk(root, one.path)}:{one.line}"
        yield kinds.problem(where, "unread", unit=one.unit, own=file.path, variable=one.name)


def _threads(file: services.ConfigFile, root: pathlib.Path) -> typing.Iterator[errors.Problem]:
    """Yield the APIs of a service with RPC over a router in which both eventlet and uWSGI make threads."""
    group = services.DRIVERS[model.Scheme.AMQP]
    if not any(s.section == group and s.value for s in file.settings):
        return
    for unit in services.PATCHED_APIS.get(file.service, ()):
        for one in sources.threads([unit], root):
            where = f"{files.on_disk(root, one.path)}:{one.line}"
            yield kinds.problem(where, "uwsgi-threads", unit=unit, count=one.threads)


def _newer_name(setting: services.Setting) -> list[tuple[str, str]]:
    """Return the present name of a key, when ``setting`` is about one of its older names."""
    return [new for new, old in services.OLDER_NAMES.items() if (setting.section, setting.key) in old]


def _own_transports(file: services.ConfigFile, path: str, keys: ini.Keys, root: pathlib.Path) -> list[errors.Problem]:
    names = (*services.OWN_TRANSPORTS.get(file.service, ()), services.OWN_TRANSPORT_OF_ANY)
    found = [(name, keys[name][-1]) for name in names if name in keys]
    return [
        kinds.problem(
            f"{files.on_disk(root, path)}:{value.line}",
            "own-transport",
            key=f"[{name[0]}] {name[1]}",
            name=file.service,
        )
        for name, value in found
    ]


def _own_transports_of_paste(
    rendered: render.Rendered, host: layout.Host, root: pathlib.Path
) -> typing.Iterator[errors.Problem]:
    """Yield the transport URLs of middleware in services' paste files that are not ours."""
    of_oslo = [file for file in rendered.config_files if file.format == services.OSLO]
    paths = {path: file.service for file in of_oslo for path in _paste_files(file, root)}
    paths.update({files.on_disk(root, path): path.split("/")[2] for path, _ in sorted(host.paste_sections)})
    ours = {
        (files.on_disk(root, file.path), ini.section_name(s.section, ini.PASTE), s.key)
        for file in rendered.config_files
        for s in file.settings
    }
    for path, name in paths.items():
        with contextlib.suppress(OSError):
            keys = ini.read((files.read(path) or b"").decode(errors="replace"), ini.PASTE)
            for (section, key), values in keys.items():
                known = key.removeprefix("set ").strip() in services.OWN_TRANSPORTS_OF_PASTE
                foreign = known and (path, section, key) not in ours
                if foreign and services.TRANSPORT_URL.fullmatch(values[-1].text):
                    where = f"{path}:{values[-1].line}"
                    yield kinds.problem(where, "own-transport", key=f"[{section}] {key}", name=name)


def _paste_files(file: services.ConfigFile, root: pathlib.Path) -> list[pathlib.Path]:
    """Return the paste files in the directory of a service's file."""
    return sorted(files.on_disk(root, file.path).parent.glob("*paste*.ini"))


def _rejected(file: services.ConfigFile, root: pathlib.Path) -> typing.Iterator[errors.Problem]:
    """Yield the other files of a service that oslo.config rejects: the agent cannot see the keys in them."""
    for source in sources.other_files(file.path, file.units, root):
        path = files.on_disk(root, source.path)
        with contextlib.suppress(OSError):
            fault = ini.fault((files.read(path) or b"").decode(errors="surrogateescape"))
            if fault:
                reader = service_files.READERS[services.OSLO]
                yield kinds.warning(f"{path}:{fault.line}", "rejected-line", reader=reader, why=fault.why)


def look_for_misfits(rendered: render.Rendered, root: pathlib.Path) -> tuple[errors.Problem, ...]:
    """Return the misfits in every service's file on disk, and in the places that the service reads after it."""
    found: list[errors.Problem] = []
    for file in rendered.config_files:
        path = files.on_disk(root, file.path)
        text = service_files.text_of(service_files.read(file, root))
        found += service_files.misfits(file, path, ini.read(text, file.format))
        found += misfits_elsewhere(file, root)
    return tuple(dict.fromkeys(found))
