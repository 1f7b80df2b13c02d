"""Canaries: secrets that can be found again however they are written, and who looks for them.

Every secret has one word twice, at its start and at its end, with characters between the two that every format has to
escape. The word is letters and digits alone, so percent signs, JSON, shells, Erlang, Ruby and YAML leave it as it is,
and a part of a secret that was cut off somewhere holds it still; what changes letters too (base64 at each of its three
alignments, hexadecimal, numbers, UTF-16) is looked for by what it makes of the word.
"""

from __future__ import annotations

import base64
import collections
import dataclasses
import os
import pathlib
import re
import stat
import threading
import typing

_OFTEN = 20  # looks at a process, after which it is looked at only now and then
STEM = "Kanarie7Zq4Xw"
# Whatever ends a value somewhere on its way: line, URL, JSON, hiera, puppet, ini file, oslo.config, paste, shell.
BETWEEN = "\n@:?#%$\"'{}[]\\ %{x} ${HOME} $(id) `id` %(here)s ;&=,é "
BETWEEN_IN_LINE = BETWEEN[1:]


def secret(name: str, between: str = BETWEEN) -> str:
    """A password called ``name``."""
    return f"{STEM}{name}{between}{STEM}"


def _base64(word: bytes) -> typing.Iterator[bytes]:
    """What the word becomes in base64, by its place in a group of three; without what its neighbours change."""
    for before in range(3):
        text = base64.b64encode(bytes(before) + word)
        yield text[-(-before * 8 // 6) : (before + len(word)) * 8 // 6]


def forms(word: str) -> dict[str, tuple[bytes, ...]]:
    """How a word of letters and digits may be written, by the name of the encoding."""
    plain = word.encode()
    numbers = [str(n) for n in plain]
    return {
        "plain": (plain,),
        "base64": tuple(_base64(plain)),
        "hexadecimal": (plain.hex().encode(), plain.hex().upper().encode(), plain.hex(" ").encode()),
        "numbers": (",".join(numbers).encode(), ", ".join(numbers).encode()),
        "UTF-16": (word.encode("utf-16-le"), word.encode("utf-16-be")),
        "percent": ("".join(f"%{n:02X}" for n in plain).encode(),),
        "backslash": ("".join(f"\\x{n:02x}" for n in plain).encode(), "".join(f"\\{n:03o}" for n in plain).encode()),
        "backwards": (plain[::-1],),
    }


class Searcher:
    """Finds canaries, and any further words that must not be seen."""

    def __init__(self, *more: str) -> None:
        known = {(name, form) for word in (STEM, *more) for name, all_ in forms(word).items() for form in all_}
        self._names = {form.lower(): name for name, form in known}
        self._pattern = re.compile(b"|".join(re.escape(form) for _, form in sorted(known)), re.IGNORECASE)

    def find(self, data: bytes | str) -> str:
        """The encoding of the first canary in ``data`` and what is around it; '' when there is none."""
        data = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
        match = self._pattern.search(data)
        if not match:
            return ""
        around = data[max(0, match.start() - 60) : match.end() + 20]
        return f"{self._names.get(match.group().lower(), 'some form')}: {around!r}"

    def tree(self, base: pathlib.Path, allowed: typing.Mapping[str, int]) -> list[str]:
        """What is wrong below ``base``: canaries in names, links and files, but for the files ``allowed`` (``x/*`` for
        all of a directory), each with the widest mode that it may have."""
        wrong = []
        for path in (base, *sorted(base.rglob("*"))):
            name = path.relative_to(base).as_posix()
            state = path.lstat()
            inside = os.readlink(path).encode() if stat.S_ISLNK(state.st_mode) else b""
            if stat.S_ISREG(state.st_mode):
                inside = path.read_bytes()
            found = self.find(name) or self.find(inside)
            most = allowed.get(name, allowed.get(f"{os.path.dirname(name)}/*"))
            if found and most is None:
                wrong.append(f"{name} (mode {stat.S_IMODE(state.st_mode):o}) holds {found}")
            elif found and most is not None and stat.S_IMODE(state.st_mode) & ~most:
                wrong.append(f"{name} has mode {stat.S_IMODE(state.st_mode):o}, and not {most:o} at most")
        return wrong


@dataclasses.dataclass
class Watcher:
    """Looks, all the time that it is entered, at every process's arguments and environment, and for files below
    ``base`` that everybody may read.

    :param processes: every (process, start time) that was seen.
    """

    searcher: Searcher
    base: pathlib.Path
    processes: set[tuple[int, bytes]] = dataclasses.field(default_factory=set)
    programs: set[bytes] = dataclasses.field(default_factory=set)
    looks: int = 0
    found: list[str] = dataclasses.field(default_factory=list)
    _times: collections.Counter[tuple[int, bytes]] = dataclasses.field(default_factory=collections.Counter)
    _files: dict[pathlib.Path, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    _stop: threading.Event = dataclasses.field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Watcher:
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.004):
            self.look()
            self.looks += 1

    def look(self) -> None:
        """Look once."""
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                self._process(pathlib.Path("/proc", entry))
        for directory, _, names in os.walk(self.base):
            for name in names:
                self._file(pathlib.Path(directory, name))

    def _process(self, process: pathlib.Path) -> None:
        try:
            start = (process / "stat").read_bytes().rpartition(b")")[2].split()[19]
            key = (int(process.name), start)
            self._times[key] += 1
            if self._times[key] > _OFTEN and self._times[key] % _OFTEN:
                return  # an old acquaintance: whoever runs another program does so at once
            for kind in ("cmdline", "environ"):
                data = (process / kind).read_bytes()
                if kind == "cmdline":
                    self.programs.add(os.path.basename(data.split(b"\0", 1)[0]))
                found = self.searcher.find(data)
                if found:
                    self.found.append(f"{process}/{kind}: {found}")
        except (OSError, IndexError):
            return  # it is gone, or is a kernel's own
        self.processes.add(key)

    def _file(self, path: pathlib.Path) -> None:
        try:
            state = path.lstat()
            known = (state.st_ino, state.st_mode, state.st_size, state.st_ctime_ns)
            if stat.S_ISREG(state.st_mode) and state.st_mode & 0o004 and self._files.get(path) != known:
                self._files[path] = known
                found = self.searcher.find(path.read_bytes())
                if found and path.lstat().st_mode & 0o004:
                    self.found.append(f"{path} (mode {stat.S_IMODE(state.st_mode):o}) holds {found}")
        except OSError:
            return
