"""Collect the facts of the machine below a root directory, for `om_agent.plan.layout.Host`."""

from __future__ import annotations

import contextlib
import dataclasses
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
# The name of the metadata of oslo.messaging. pip and the distributions spell it differently.
_OSLO = re.compile(r"oslo[._]messaging-([0-9][0-9a-z.]*?)(?:-py[0-9.]+)?\.(?:dist|egg)-info", re.ASCII)
_PYTHON = re.compile(r"python3\.[0-9]+", re.ASCII)


def gather(
    catalogue: dict[str, services.Service], root: pathlib.Path, relocate: bool, manage_services: bool | None
) -> layout.Host:
    """Return the facts of the machine whose root directory is ``root``.

    :param relocate: put ``root`` before the paths inside files too. The programs are then those of this machine.
    :param manage_services: what the command line asks for; see `manages_services`.
    """
    is_this_machine = root == pathlib.Path("/")
    family = _family(root)
    programs = pathlib.Path("/") if relocate else root
    directories = [path for path in services.directories(catalogue) if (root / path.lstrip("/")).is_dir()]
    found = _service_files(catalogue, family, root)
    return layout.Host(
        family=family,
        directories=frozenset(directories),
        existing=found.modes,
        paste_sections=frozenset(found.paste_sections),
        paste_filters=frozenset(found.paste_filters),
        uids=_local_uids() if is_this_machine else _ids(root / "etc/passwd", root),
        gids=_local_gids() if is_this_machine else _ids(root / "etc/group", root),
        uid=os.geteuid(),
        gid=os.getegid(),
        prefix=str(root) if relocate and not is_this_machine else "",
        target="" if is_this_machine else str(root),
        manage_services=manages_services(root, manage_services),
        broker_version=broker_version(programs),
        oslo_messaging=oslo_messaging_version(root, family),
        release=_release(_os_release(programs)),
    )


@dataclasses.dataclass(frozen=True)
class _ServiceFiles:
    """The services' files that exist.

    :param modes: mode, owner's id and group's id of each file, by its path.
    :param paste_sections: path and section of the files that PasteDeploy reads.
    :param paste_filters: the same, for sections that use the module which the catalogue names.
    """

    modes: dict[str, tuple[int, int, int]] = dataclasses.field(default_factory=dict)
    paste_sections: set[tuple[str, str]] = dataclasses.field(default_factory=set)
    paste_filters: set[tuple[str, str]] = dataclasses.field(default_factory=set)


def _service_files(catalogue: dict[str, services.Service], family: str, root: pathlib.Path) -> _ServiceFiles:
    """Return what is known about the services' files that exist below ``root``."""
    found = _ServiceFiles()
    for service in catalogue.values():
        for file in service.files:
            path = file.path[family]
            disk = root / path.lstrip("/")
            try:
                status = disk.lstat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            found.modes[path] = (status.st_mode & 0o7777, status.st_uid, status.st_gid)
            if file.format == services.PASTE and disk.is_file():
                text = _paste_text(disk, root)
                found.paste_sections.update((path, name) for name in ini.section_names(text, ini.PASTE))
                found.paste_filters.update((path, name) for name in _sections_that_use(text, file.uses))
    return found


def _family(root: pathlib.Path) -> str:
    """Return the family of the distribution below ``root``: ``redhat`` or ``debian``."""
    keys = _os_release(root)
    ids = {keys.get("ID", ""), *keys.get("ID_LIKE", "").split()}
    return "redhat" if _REDHAT & ids else "debian"


def _local_uids() -> dict[str, int]:
    return {user.pw_name: user.pw_uid for user in pwd.getpwall()}


def _local_gids() -> dict[str, int]:
    return {group.gr_name: group.gr_gid for group in grp.getgrall()}


def broker_version(root: pathlib.Path) -> str:
    """Return the version of the RabbitMQ package below ``root``; '' without one.

    Every package has its files in a directory whose name holds the version. An upgrade may leave an old directory
    behind, so only a directory with the server's scripts counts.
    """
    directory = root / "usr/lib/rabbitmq/lib"
    versions = []
    for name in _names(directory):
        match = _BROKER.fullmatch(name)
        if match and (directory / name / "sbin").is_dir():
            versions.append(match[1])
    return max(versions, key=layout.numbers, default="")


def oslo_messaging_version(root: pathlib.Path, family: str) -> str:
    """Return the version of the oslo.messaging that the system's Python imports below ``root``; '' without one.

    It is part of a directory's name, so that the agent runs neither Python nor a package manager. The agent does not
    look for the oslo.messaging of a service in a virtual environment or a container.
    """
    for directory in _python_directories(root, family):
        matches = [_OSLO.fullmatch(name) for name in _names(directory)]
        versions = [match[1] for match in matches if match]
        if versions:
            return max(versions, key=layout.numbers)
    return ""


def _python_directories(root: pathlib.Path, family: str) -> typing.Iterator[pathlib.Path]:
    """Yield the directories in which the system's Python looks for modules, in its order.

    The source is Python's module ``site``, with Debian's changes.
    """
    python = _python(root)
    if family == "redhat":
        yield root / "usr/local/lib" / python / "site-packages"
        yield root / "usr/lib" / python / "site-packages"
    else:
        yield root / "usr/local/lib" / python / "dist-packages"
        yield root / "usr/lib/python3/dist-packages"


def _python(root: pathlib.Path) -> str:
    """Return the name of the system's Python, for example ``python3.11``.

    That is the target of the link ``python3``, or the newest Python when there is no such link.
    """
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
    """Return whether this run manages units.

    :param asked: what the command line asks for. Without that, the agent manages units if the root directory is ``/``
        and systemd runs the machine (sd_booted(3) tests for the same directory).
    """
    if asked is not None:
        return asked
    return root == pathlib.Path("/") and os.path.isdir("/run/systemd/system")


def _release(keys: dict[str, str]) -> str:
    """Return the name and the version of a distribution."""
    return f"{keys.get('ID', '')} {keys.get('VERSION_ID', '')}".strip()


def _os_release(root: pathlib.Path) -> dict[str, str]:
    """Return the keys of ``/etc/os-release`` (os-release(5)); none when there is no such file."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        text = reading.text(root / name, root, reading.UNIT_LIMIT)
        if text:
            return dict(re.findall(r"^([A-Z_]+)=[\"']?([^\"'\n]*)", text, re.MULTILINE))
    return {}


def _paste_text(path: pathlib.Path, root: pathlib.Path) -> str:
    """Return a file's text without a byte order mark, which would hide the first section.

    Apply refuses a file with that mark later.
    """
    return reading.text(path, root, reading.SERVICE_LIMIT).removeprefix(ini.BYTE_ORDER_MARK)


def _sections_that_use(text: str, module: str) -> set[str]:
    """Return the sections that use a Python module, or a package of that name (``use = egg:name#x``)."""
    found: set[str] = set()
    if not module:
        return found
    mention = re.compile(rf"(?:.*[:\s])?{re.escape(module)}(?:[.:#\s].*)?")
    for (section, key), values in ini.read(text, ini.PASTE).items():
        names_code = key == "use" or key.startswith("paste.")
        if names_code and mention.fullmatch(values[-1].text):
            found.add(section)
    return found


def _ids(path: pathlib.Path, root: pathlib.Path) -> dict[str, int]:
    """Return the ids by name from a passwd or group file below ``root``; none when there is no such file."""
    ids: dict[str, int] = {}
    for line in reading.text(path, root, reading.SERVICE_LIMIT).splitlines():
        fields = line.split(":")
        if len(fields) > 2 and re.fullmatch(r"[0-9]{1,9}", fields[2]):
            ids[fields[0]] = int(fields[2])
    return ids
