"""Files of other owners: what the agent reads, and what it refuses."""

from __future__ import annotations

import errno
import os
import pathlib
import socket

import pytest
from om_agent import reading


def test_a_regular_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").write_bytes(b"text\r\n\xff")
    assert reading.content(tmp_path / "a", 7) == b"text\r\n\xff"
    assert reading.text(tmp_path / "a", tmp_path, 7) == "text\n\ufffd"


def test_a_file_that_is_longer(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").write_bytes(b"12345678")
    with pytest.raises(OSError, match="larger") as caught:
        reading.content(tmp_path / "a", 7)
    assert caught.value.errno == errno.EFBIG
    assert reading.text(tmp_path / "a", tmp_path, 7) == ""


@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a device", "Is a directory"])
def test_what_is_no_regular_file(tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / "a"
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.relpath(path))
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    for handed in (False, True):
        with pytest.raises(OSError, match=kind):
            reading.content(path, 7, handed)
    assert reading.text(path, pathlib.Path("/"), 7) == ""


def test_a_pipe_that_was_handed_over() -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"text")
    os.close(theirs)
    path = f"/dev/fd/{ours}"
    with pytest.raises(OSError, match="a named pipe"):
        reading.content(path, 7)
    assert reading.content(path, 7, handed=True) == b"text"
    os.close(ours)


@pytest.mark.parametrize("path", ["/a\0b", "/\udcff\ud800", "/" + "a" * 5000, "/" + "a/" * 5000])
def test_a_name_that_no_file_has(tmp_path: pathlib.Path, path: str) -> None:
    with pytest.raises(OSError, match=r"not valid|too long"):
        reading.content(path, 7)
    place = reading.on_disk(tmp_path, path)
    assert reading.text(place, tmp_path, 7) == ""
    assert not reading.is_file(place, tmp_path) and reading.names(place, tmp_path, ".conf") == []


@pytest.mark.parametrize("link", ["../out", "{}/out"])
def test_a_link_that_leads_out_of_the_root(tmp_path: pathlib.Path, link: str) -> None:
    root = tmp_path / "root"
    for directory in (root / "etc", tmp_path / "out"):
        directory.mkdir(parents=True)
        (directory / "a.conf").write_text("text")
    (root / "out").symlink_to(link.format(tmp_path))
    (root / "a.conf").symlink_to(f"{link.format(tmp_path)}/a.conf")
    for path in (root / "out/a.conf", root / "a.conf"):
        assert reading.text(path, root, 7) == "" and not reading.is_file(path, root)
        assert reading.text(path, tmp_path, 7) == "text"
    assert reading.names(root / "out", root, ".conf") == []
    assert reading.names(root / "etc", root, ".conf") == ["a.conf"]


def test_a_path_that_leads_upwards(tmp_path: pathlib.Path) -> None:
    assert reading.on_disk(tmp_path, "/../../etc/../etc/passwd") == tmp_path / "etc/passwd"
    assert reading.on_disk(tmp_path, "//etc/./passwd") == tmp_path / "etc/passwd"
