"""The checks before the first write."""

from __future__ import annotations

import datetime
import os
import pathlib

from om_agent import certs, errors, kinds, model, render
from om_agent.apply import (
    access,
    comparing,
    files,
    foreign_settings,
    puppet,
    saved_state,
    service_files,
    snapshot,
)
from om_agent.plan import layout


def check_node(rendered: render.Rendered, host: layout.Host, before: snapshot.Snapshot) -> None:
    """Fail before anything is written when the node lacks something.

    :raises om_agent.errors.NotReady: with every problem.
    """
    root = before.root
    problems = _check_required(rendered, host, root)
    for file in rendered.config_files:
        problems += service_files.check(file, before.services[file.path])
        problems += foreign_settings.misfits_elsewhere(file, root)
    problems += _check_certificates(rendered, host, root)
    ours = [*(f.path for f in rendered.files), layout.HIERA_CONFIG, layout.HIERADATA, saved_state.PATH]
    entered = [f"puppet/{name}" for name in puppet.DIRECTORIES] + ["units", "sasl"]
    inside = [f"{layout.STATE_DIR}/{name}/file" for name in entered]
    problems += access.hazards(root, [*ours, *inside, *(c.path for c in rendered.config_files)])
    if problems:
        raise errors.NotReady(tuple(dict.fromkeys(problems)))


def check_writable(comparison: comparing.Comparison) -> None:
    """Fail before anything is written when the system keeps even root from changing a file.

    :raises om_agent.errors.NotReady: with every problem.
    """
    if comparison.changes:
        problems = access.obstacles(comparison.before.root, comparison.replaced_paths, comparison.edited_paths)
        if problems:
            raise errors.NotReady(problems)


def _check_required(rendered: render.Rendered, host: layout.Host, root: pathlib.Path) -> list[errors.Problem]:
    """Look for the files and users that have to be there already."""
    problems = []
    for path in dict.fromkeys(r.path for r in rendered.requires):
        place = path if host.prefix else str(files.on_disk(root, path))
        if not os.path.isfile(place):
            required = [r for r in rendered.requires if r.path == path]
            what = " and ".join(r.what for r in required)
            problems.append(kinds.problem(place, "missing-file", what=what, key=required[0].key))
    unknown_users = {f.owner for f in rendered.files} - host.uids.keys()
    unknown_groups = {f.group for f in rendered.files} - host.gids.keys()
    for name in sorted(unknown_users | unknown_groups):
        if not host.target:
            problems.append(kinds.problem("/etc/passwd", "no-user", name=name, what="router or broker"))
    return problems


def _check_certificates(rendered: render.Rendered, host: layout.Host, root: pathlib.Path) -> list[errors.Problem]:
    """Check the certificates of servers, given as text or as files; `_check_required` reports a missing file."""
    now = datetime.datetime.now(datetime.timezone.utc)
    found: list[errors.Problem] = []
    for server in rendered.servers:
        texts = []
        for part in (server.ca, server.certificate, server.key):
            place = pathlib.Path(part.path) if host.prefix else files.on_disk(root, part.path)
            content = files.read(place) if part.path else None
            texts.append((content or b"").decode(errors="replace") if part.path else part.text.reveal())
        found += certs.check_server(certs.Given(server, texts[0], texts[1], model.Secret(texts[2])), now)
    return list(dict.fromkeys(found))
