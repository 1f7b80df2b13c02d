"""What the machine below a root directory is like: the edge's reading for `om_agent.plan.layout.Host`."""

from __future__ import annotations

import grp
import os
import pathlib
import pwd
import re

from om_agent.plan import layout, services

_REDHAT = frozenset(("rhel", "fedora", "centos"))


def gather(
    catalogue: dict[str, services.Service], root: pathlib.Path, relocate: bool, manage_services: bool | None
) -> layout.Host:
    """Return the facts of the machine whose root directory is ``root``.

    :param relocate: put ``root`` before the paths inside files too.
    :param manage_services: as asked for; see `manages_services`.
    """
    here = root == pathlib.Path("/")
    family = _family(root)
    existing, sections = {}, set()
    for service in catalogue.values():
        for file in service.files:
            path = file.path[family]
            disk = root / path.lstrip("/")
            try:
                found = disk.lstat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            existing[path] = (found.st_mode & 0o7777, found.st_uid, found.st_gid)
            if file.format == services.PASTE and disk.is_file():
                sections |= {(path, name) for name in _sections(disk)}
    return layout.Host(
        family=family,
        directories=frozenset(d for d in services.directories(catalogue) if (root / d.lstrip("/")).is_dir()),
        existing=existing,
        paste_sections=frozenset(sections),
        uids={p.pw_name: p.pw_uid for p in pwd.getpwall()} if here else _ids(root / "etc/passwd"),
        gids={g.gr_name: g.gr_gid for g in grp.getgrall()} if here else _ids(root / "etc/group"),
        uid=os.geteuid(),
        gid=os.getegid(),
        prefix=str(root) if relocate and not here else "",
        target="" if here else str(root),
        manage_services=manages_services(root, manage_services),
    )


def manages_services(root: pathlib.Path, asked: bool | None) -> bool:
    """Return whether units are this run's business: as asked, else on a machine that systemd runs, and only for ``/``
    (sd_booted(3) looks for the same directory)."""
    if asked is not None:
        return asked
    return root == pathlib.Path("/") and os.path.isdir("/run/systemd/system")


def _family(root: pathlib.Path) -> str:
    """Return the packaging family that ``/etc/os-release`` names (os-release(5), ID and ID_LIKE), else Debian's."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        try:
            text = (root / name).read_text(errors="replace")
        except OSError:
            continue
        words = re.findall(r"^(?:ID|ID_LIKE)=[\"']?([^\"'\n]*)", text, re.MULTILINE)
        return "redhat" if _REDHAT & set(" ".join(words).split()) else "debian"
    return "debian"


def _sections(path: pathlib.Path) -> set[str]:
    try:
        return set(re.findall(r"^\[([^\]\n]+)\]", path.read_text(errors="replace"), re.MULTILINE))
    except OSError:
        return set()


def _ids(path: pathlib.Path) -> dict[str, int]:
    """Return ids by name from a passwd or group file below another root; none when there is no such file."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    fields = (line.split(":") for line in lines)
    return {f[0]: int(f[2]) for f in fields if len(f) > 2 and re.fullmatch(r"[0-9]{1,9}", f[2])}
