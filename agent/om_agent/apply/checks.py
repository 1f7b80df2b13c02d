"""What is looked at before the first write."""

from __future__ import annotations

import datetime
import os
import pathlib

from om_agent import certs, errors, ini, kinds, model, render
from om_agent.apply import (
    access,
    comparing,
    files,
    foreign_settings,
    puppet,
    saved_state,
    service_files,
)
from om_agent.plan import layout, services


def check_node(rendered: render.Rendered, host: layout.Host, root: pathlib.Path) -> None:
    """Fail before anything is written when the node lacks something.

    :raises om_agent.errors.NotReady: with every problem.
    """
    problems = []
    for path in dict.fromkeys(r.path for r in rendered.requires):
        disk = path if host.prefix else str(files.on_disk(root, path))
        if not os.path.isfile(disk):
            asked = [r for r in rendered.requires if r.path == path]
            what = " and ".join(r.what for r in asked)
            problems.append(kinds.problem(disk, "missing-file", what=what, key=asked[0].key))
    lacking = {f.owner for f in rendered.files} - host.uids.keys() | {
        f.group for f in rendered.files
    } - host.gids.keys()
    for name in sorted(lacking):
        if not host.target:
            problems.append(kinds.problem("/etc/passwd", "no-user", name=name, what="router or broker"))
    for file in rendered.config_files:
        problems += _check_editable(file, root)
        problems += foreign_settings.misfits_elsewhere(file, root)
    problems += _check_certificates(rendered, host, root)
    ours = [*(f.path for f in rendered.files), layout.HIERA_CONFIG, layout.HIERADATA, saved_state.PATH]
    entered = [f"puppet/{name}" for name in puppet.DIRECTORIES] + ["units", "sasl"]
    inside = [f"{layout.STATE_DIR}/{name}/file" for name in entered]
    problems += access.hazards(root, [*ours, *inside, *(c.path for c in rendered.config_files)])
    if problems:
        raise errors.NotReady(tuple(dict.fromkeys(problems)))


def check_writable(rendered: render.Rendered, root: pathlib.Path, work: comparing.Comparison) -> None:
    """Fail before anything is written when the system keeps even root from changing a file.

    :raises om_agent.errors.NotReady: with every problem.
    """
    problems = (
        access.obstacles(root, comparing.replaced_paths(work), comparing.edited_paths(rendered)) if work.changes else []
    )
    if problems:
        raise errors.NotReady(problems)


def _check_certificates(rendered: render.Rendered, host: layout.Host, root: pathlib.Path) -> list[errors.Problem]:
    """Look at what servers are given, text or files; a file that is not there has been told of."""
    now = datetime.datetime.now(datetime.timezone.utc)
    found: list[errors.Problem] = []
    for server in rendered.servers:
        texts = []
        for part in (server.ca, server.certificate, server.key):
            disk = pathlib.Path(part.path) if host.prefix else files.on_disk(root, part.path)
            content = files.read(disk) if part.path else None
            texts.append((content or b"").decode(errors="replace") if part.path else part.text.reveal())
        found += certs.check_server(certs.Given(server, texts[0], texts[1], model.Secret(texts[2])), now)
    return list(dict.fromkeys(found))


def _check_editable(file: services.ConfigFile, root: pathlib.Path) -> list[errors.Problem]:
    path = files.on_disk(root, file.path)
    if not os.path.lexists(path):
        return []
    if path.is_symlink() or not path.is_file():
        found = "a symbolic link" if path.is_symlink() else "a directory or device"
        return [kinds.problem(str(path), "not-a-file", found=found)]
    if path.stat().st_nlink > 1:
        return [kinds.problem(str(path), "hard-link", count=path.stat().st_nlink)]
    if not os.access(path, os.R_OK | os.W_OK):
        return [kinds.problem(str(path), "read-only")]
    return _check_text(file, path, service_files.text_of(file, root))


def _check_text(file: services.ConfigFile, path: pathlib.Path, text: str) -> list[errors.Problem]:
    """Refuse what the file's own reader rejects, and an edit after which it would not read what is wanted."""
    reader = foreign_settings.READERS[file.format]
    fault = ini.fault(text, file.format)
    if fault:
        return [kinds.problem(f"{path}:{fault.line}", "rejected-line", reader=reader, why=fault.why)]
    keys = ini.read(text, file.format)
    for s in file.settings if file.format == services.PASTE else ():
        # PasteDeploy passes over a key of a section that is in DEFAULT too, and "get KEY" comes after KEY. What DEFAULT
        # gets, every section gets.
        sections = ("DEFAULT", ini.section_name(s.section, services.PASTE))
        for section, key in keys:
            got = key.startswith("get ") and key[4:].strip() == s.key and section in sections
            if got or (section, key) == ("DEFAULT", s.key):
                where = f"{path}:{keys[section, key][0].line}"
                return [kinds.problem(where, "paste-elsewhere", key=key, section=section, ours=s.key)]
    found = foreign_settings.misfits(file, path, keys)
    if found:
        return found
    wanted = service_files.wanted_keys(file)
    if all(ini.holds(keys, *setting, file.format) for setting in wanted):
        return []
    wrong = ini.misread(text, ini.edit(text, wanted, file.format), wanted, file.format)
    return [kinds.problem(f"{path}:{wrong.line}", "cannot-edit", reader=reader, why=wrong.why)] if wrong else []
