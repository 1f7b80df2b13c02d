"""What the machine below a root directory is like: the edge's reading for `om_agent.plan.layout.Host`."""

from __future__ import annotations

import contextlib
import grp
import os
import pathlib
import pwd
import re
import typing

from om_agent import ini, reading
from om_agent.plan import layout, services

_REDHAT = frozenset(("rhel", "fedora", "centos"))
_BROKER = re.compile(r"rabbitmq_server-([0-9][\w.+-]*)", re.ASCII)
# A directory or file, and what pip and the distributions call it: oslo.messaging or oslo_messaging.
_OSLO = re.compile(r"oslo[._]messaging-([0-9][0-9a-z.]*?)(?:-py[0-9.]+)?\.(?:dist|egg)-info", re.ASCII)
_PYTHON = re.compile(r"python3\.[0-9]+", re.ASCII)


def gather(
    catalogue: dict[str, services.Service], root: pathlib.Path, relocate: bool, manage_services: bool | None
) -> layout.Host:
    """Return the facts of the machine whose root directory is ``root``.

    :param relocate: put ``root`` before the paths inside files too; the programs are then this machine's own.
    :param manage_services: as asked for; see `manages_services`.
    """
    here = root == pathlib.Path("/")
    said = _os_release(root)
    ids = {said.get("ID", ""), *said.get("ID_LIKE", "").split()}
    family = "redhat" if _REDHAT & ids else "debian"
    programs = pathlib.Path("/") if relocate else root
    existing, sections, filters = {}, set(), set()
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
                text = _paste_text(disk, root)
                sections |= {(path, name) for name in ini.section_names(text, ini.PASTE)}
                filters |= {(path, name) for name in _users(text, file.uses)}
    return layout.Host(
        family=family,
        directories=frozenset(d for d in services.directories(catalogue) if (root / d.lstrip("/")).is_dir()),
        existing=existing,
        paste_sections=frozenset(sections),
        paste_filters=frozenset(filters),
        uids={p.pw_name: p.pw_uid for p in pwd.getpwall()} if here else _ids(root / "etc/passwd", root),
        gids={g.gr_name: g.gr_gid for g in grp.getgrall()} if here else _ids(root / "etc/group", root),
        uid=os.geteuid(),
        gid=os.getegid(),
        prefix=str(root) if relocate and not here else "",
        target="" if here else str(root),
        manage_services=manages_services(root, manage_services),
        broker_version=broker_version(programs),
        oslo_messaging=oslo_messaging_version(root, family),
        release=_release(_os_release(programs)),
    )


def broker_version(root: pathlib.Path) -> str:
    """Return the version of the RabbitMQ package below ``root``, '' without one.

    Every package has its files in a directory of that name. An upgrade may leave an old directory behind, so only one
    with the server's scripts counts.
    """
    directory = root / "usr/lib/rabbitmq/lib"
    found = [name for name in _names(directory) if _BROKER.fullmatch(name) and (directory / name / "sbin").is_dir()]
    return max((_BROKER.sub(r"\1", name) for name in found), key=layout.numbers, default="")


def oslo_messaging_version(root: pathlib.Path, family: str) -> str:
    """Return the version of the oslo.messaging that the system's Python imports below ``root``, '' without one.

    The names of directories say it: neither Python nor a package database is read. A service in a virtual environment
    or a container has its own, which is not looked for.
    """
    for directory in _python_directories(root, family):
        found = [match[1] for match in map(_OSLO.fullmatch, _names(directory)) if match]
        if found:
            return max(found, key=layout.numbers)
    return ""


def _python_directories(root: pathlib.Path, family: str) -> typing.Iterator[pathlib.Path]:
    """Yield where the system's Python looks for modules, in its order (its ``site`` module, with Debian's changes)."""
    python = _python(root)
    if family == "redhat":
        yield root / "usr/local/lib" / python / "site-packages"
        yield root / "usr/lib" / python / "site-packages"
    else:
        yield root / "usr/local/lib" / python / "dist-packages"
        yield root / "usr/lib/python3/dist-packages"


def _python(root: pathlib.Path) -> str:
    """Return the name of the system's Python, as ``python3.11``: what ``python3`` leads to, else the newest there."""
    for link in ("usr/bin/python3", "etc/alternatives/python3"):
        with contextlib.suppress(OSError):
            name = os.path.basename(os.readlink(root / link))
            if _PYTHON.fullmatch(name):
                return name
    names = [name for name in _names(root / "usr/lib") if _PYTHON.fullmatch(name)]
    return max(names, key=lambda name: layout.numbers(name.removeprefix("python")), default="python3")


def _names(directory: pathlib.Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def manages_services(root: pathlib.Path, asked: bool | None) -> bool:
    """Return whether units are this run's business: as asked, else on a machine that systemd runs, and only for ``/``
    (sd_booted(3) looks for the same directory)."""
    if asked is not None:
        return asked
    return root == pathlib.Path("/") and os.path.isdir("/run/systemd/system")


def _release(said: dict[str, str]) -> str:
    return f"{said.get('ID', '')} {said.get('VERSION_ID', '')}".strip()


def _os_release(root: pathlib.Path) -> dict[str, str]:
    """Return the keys of ``/etc/os-release`` (os-release(5)); none where there is no such file."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        text = reading.text(root / name, root, reading.UNIT_LIMIT)
        if text:
            return dict(re.findall(r"^([A-Z_]+)=[\"']?([^\"'\n]*)", text, re.MULTILINE))
    return {}


def _paste_text(path: pathlib.Path, root: pathlib.Path) -> str:
    """Return a file's text without the byte order mark, because of which it is refused later: it hides a section."""
    return reading.text(path, root, reading.SERVICE_LIMIT).removeprefix(ini.BYTE_ORDER_MARK)


def _users(text: str, module: str) -> set[str]:
    """Return the sections that use a Python module, or a package of that name (``use = egg:name#x``)."""
    if not module:
        return set()
    named = re.compile(rf"(?:.*[:\s])?{re.escape(module)}(?:[.:#\s].*)?")
    return {
        section
        for (section, key), values in ini.read(text, ini.PASTE).items()
        if (key == "use" or key.startswith("paste.")) and named.fullmatch(values[-1].text)
    }


def _ids(path: pathlib.Path, root: pathlib.Path) -> dict[str, int]:
    """Return ids by name from a passwd or group file below another root; none when there is no such file."""
    fields = (line.split(":") for line in reading.text(path, root, reading.SERVICE_LIMIT).splitlines())
    return {f[0]: int(f[2]) for f in fields if len(f) > 2 and re.fullmatch(r"[0-9]{1,9}", f[2])}
