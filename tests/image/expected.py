"""The expected disk of a node after its first boot: every file of the agent, every line of the services' files."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import subprocess
import tempfile
import typing

from om_agent import host_facts, render
from om_agent.plan import layout, services

from tests.image import material
from tests.support import helpers


class File(typing.NamedTuple):
    """A file as a disk has it; the mode in octal."""

    mode: str
    uid: int
    gid: int
    content: bytes


Read = typing.Callable[[str], File]


def from_directory(root: pathlib.Path) -> Read:
    """Return how to read a disk that is mounted."""

    def read(path: str) -> File:
        state = (root / path[1:]).stat()
        return File(f"{state.st_mode & 0o7777:04o}", state.st_uid, state.st_gid, (root / path[1:]).read_bytes())

    return read


def from_partition(device: str) -> Read:
    """Return how to read a disk that is a file, and not mounted; debugfs(8) has the form of ``device``."""

    def ask(request: str) -> bytes:
        return subprocess.run(["debugfs", "-R", request, device], capture_output=True, check=True).stdout

    def read(path: str) -> File:
        said = ask(f"stat {path}").decode()
        found = re.search(r"Mode:\s+(\d+).*?User:\s+(\d+)\s+Group:\s+(\d+)", said, re.DOTALL)
        assert found, f"{path}: {said}"
        return File(found[1], int(found[2]), int(found[3]), ask(f"cat {path}"))

    return read


def differences(read: Read, tree: pathlib.Path, node: str, metadata: dict[str, typing.Any]) -> list[str]:
    """Return what is wrong on a disk.

    :param tree: what it was before its first boot.
    """
    host = dataclasses.replace(host_facts.gather(helpers.catalogue(), tree, False, True), target="")
    rendered = helpers.rendered(metadata, node, host)
    contents = {file.path: file.content for file in rendered.files}
    contents[layout.HIERA_CONFIG] = render.hiera_config(host).content
    paths = {*contents, layout.HIERADATA, *(file.path for file in rendered.config_files)}
    assert paths == material.FILES.keys()
    found = {path: read(path) for path in paths}
    wrong = []
    for path, (mode, owner, group) in material.FILES.items():
        have, want = found[path][:3], (mode, host.uids[owner], host.gids[group])
        if have != want:
            wrong.append(f"{path} has mode, owner and group {have}, not {want}")
    for path, content in contents.items():
        if content is not None and found[path].content != content:
            wrong.append(f"{path} has another content")
    for database in (file for file in rendered.files if file.users):
        users = sorted(f"{user.name}@{user.realm}: userPassword" for user in database.users)
        if _users(found[database.path].content) != users:
            wrong.append(f"{database.path} has other users than {users}")
    wrong += _hieradata(json.loads(found[layout.HIERADATA].content), rendered)
    for file in rendered.config_files:
        before = (tree / file.path[1:]).read_text()
        lines = _lines(before, found[file.path].content.decode(), file.settings)
        wrong += [f"{file.path}: {line}" for line in lines]
    return wrong


def _users(database: bytes) -> list[str]:
    with tempfile.NamedTemporaryFile() as copy:
        copy.write(database)
        copy.flush()
        listed = subprocess.run(["/usr/sbin/sasldblistusers2", "-f", copy.name], stdout=subprocess.PIPE, check=True)
    return sorted(listed.stdout.decode().splitlines())


def _hieradata(data: dict[str, typing.Any], rendered: render.Rendered) -> list[str]:
    names = {
        "config_files": {file.path for file in rendered.config_files},
        "units": {unit.name for unit in rendered.units},
    }
    return [f"hieradata has other {key}" for key, want in names.items() if set(data[f"om_messaging::{key}"]) != want]


def _lines(before: str, after: str, settings: typing.Iterable[services.Setting]) -> list[str]:
    """Return the keys that are not as wanted, and the lines of others that are not as they were."""
    wanted = {(s.section, s.key): f"{s.key} = {s.value.reveal()}" if s.value else None for s in settings}
    ours, others = _split(after, wanted)
    wrong = [f"{key} is {ours.get(key)}, not {line}" for key, line in wanted.items() if ours.get(key) != line]
    return wrong if others == _split(before, wanted)[1] else [*wrong, "another line is not as it was"]


def _split(text: str, wanted: typing.Container[tuple[str, str]]) -> tuple[dict[tuple[str, str], str], list[str]]:
    """Return the lines of wanted keys, and all others."""
    section, ours, others = "", {}, []
    for line in text.splitlines():
        if header := re.match(r"\[(.+)\]", line):
            section = header.group(1)
        setting = re.match(r"(\w+)\s*=", line)
        if setting and (section, setting.group(1)) in wanted:
            ours[section, setting.group(1)] = line
        else:
            others.append(line)
    return ours, others
