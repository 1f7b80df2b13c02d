"""The search finds canaries in every encoding and place; without this the other tests prove nothing."""

from __future__ import annotations

import base64
import functools
import html
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time
import typing
import urllib.parse

import pytest
import yaml

from tests.security import canary

SECRET = canary.secret("leak")


def behind(count: int, text: str) -> str:
    """Return the text in base64, after some other bytes."""
    return base64.b64encode(b"x" * count + text.encode()).decode()


LEAKS: dict[str, typing.Callable[[str], str]] = {
    "as it is": str,
    "its first half": lambda s: s.partition("@")[0],
    "its second half": lambda s: s.rpartition("@")[2],
    "in a URL": lambda s: f"rabbit://u:{urllib.parse.quote(s, safe='')}@h:1/",
    "in a URL, with small letters": lambda s: urllib.parse.quote(s, safe="").lower(),
    "in a form": lambda s: urllib.parse.urlencode({"password": s}),
    "in JSON": json.dumps,
    "in JSON in JSON": lambda s: json.dumps(json.dumps({"a": s})),
    "in YAML": yaml.safe_dump,
    "for a shell": shlex.quote,
    "for a shell, with backslashes": lambda s: "".join(c if c.isalnum() else f"\\{c}" for c in s),
    "for Erlang": lambda s: '"' + s.replace("\\", "\\\\").replace('"', '\\"') + '"',
    "as Erlang's list": lambda s: str(list(s.encode())).replace(" ", ""),
    "as a list of numbers": lambda s: str(list(s.encode())),
    "by repr": repr,
    "in HTML": html.escape,
    "for oslo.config": lambda s: s.replace("$", "$$"),
    "for paste": lambda s: s.replace("%", "%%"),
    "for hiera": lambda s: s.replace("%{", "%{literal('%')}{"),
    "in capitals": str.upper,
    "in hexadecimal": lambda s: s.encode().hex(),
    "in percent signs alone": lambda s: "".join(f"%{n:02x}" for n in s.encode()),
    "in octal": lambda s: "".join(f"\\{n:03o}" for n in s.encode()),
    "in UTF-16": lambda s: s.encode("utf-16").decode("latin-1"),
    "backwards": lambda s: s[::-1],
    **{f"in base64 behind {n}": functools.partial(behind, n) for n in range(6)},
    "in base64 for URLs": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "in base64 twice over in JSON": lambda s: json.dumps({"v": base64.b64encode(json.dumps([s]).encode()).decode()}),
}


@pytest.mark.parametrize("how", LEAKS)
def test_every_encoding_is_found(how: str) -> None:
    searcher = canary.Searcher()
    assert searcher.find(f"a log line, then {LEAKS[how](SECRET)} and more".encode("latin-1", "replace"))


def test_what_is_no_canary_is_not_found() -> None:
    searcher = canary.Searcher("another")
    innocent: list[bytes | str] = [
        canary.STEM[:-1],
        canary.BETWEEN,
        "canary",
        os.urandom(100_000).hex(),
        base64.b64encode(b"x" * 9000),
    ]
    assert [text for text in innocent if searcher.find(text)] == []
    assert searcher.find(b"so is another word, when it is asked for")


def test_files_names_and_links_are_searched(tmp_path: pathlib.Path) -> None:
    for name in ("meant", "meant and wide", "not meant"):
        (tmp_path / name).write_text(SECRET)
        (tmp_path / name).chmod(0o640)
    (tmp_path / "meant and wide").chmod(0o644)
    (tmp_path / f"a name {canary.STEM}").touch()
    (tmp_path / "link").symlink_to(f"to {canary.STEM}")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "log").write_bytes(b"\0\xff" + canary.STEM.encode())
    wrong = canary.Searcher().tree(tmp_path, {"meant": 0o640, "meant and wide": 0o640})
    assert sorted(line.split(" (mode")[0].split(" has mode")[0] for line in wrong) == [
        f"a name {canary.STEM}",
        "deep/er/log",
        "link",
        "meant and wide",
        "not meant",
    ]


LEAKY = "import sys, time, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.stdin.read()); time.sleep(20)"


@pytest.mark.parametrize("where", ["arguments", "environment", "a child's arguments", "a file for a moment"])
def test_a_program_that_leaks_is_caught(where: str, tmp_path: pathlib.Path) -> None:
    """A fake that does wrong on purpose, seen by the very watcher that the real programs run under."""
    command = [sys.executable, "-c", LEAKY, str(tmp_path / "file")]
    environment, given = {"PATH": os.environ["PATH"]}, ""
    if where == "arguments":
        command.append(SECRET)
    elif where == "environment":
        environment["PASSWORD"] = SECRET
    elif where == "a child's arguments":
        command = ["sh", "-c", f'"$@" {canary.STEM}leak; :', "sh", *command]
    else:
        given = SECRET
    with canary.Watcher(canary.Searcher(), tmp_path) as watcher:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True, text=True)
        assert process.stdin
        process.stdin.write(given)
        process.stdin.close()
        deadline = time.monotonic() + 20
        while not watcher.found and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, 9)
        process.wait()
    assert watcher.found and watcher.looks and watcher.processes
