"""The complete tree of one node for each kind of deployment, compared with the reviewed one.

To write the trees anew: OM_REGENERATE_GOLDEN=1 python -m pytest tests/unit/test_render_golden.py; then read the diff.
Every secret in them is made up. A SASL database is shown as its users; ``files.txt`` has modes and owners.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil

import pytest
from om_agent import render
from om_agent.plan import layout

from tests.support import helpers

GOLDEN = helpers.ROOT / "tests" / "golden"
CASES = ("default", "dual", "separate", "tls-paths", "tls-pem", "external", "ipv6", "embedded", "certificate-login")


def text_of(file: render.File) -> bytes:
    if file.content is not None:
        return file.content
    return b"".join(f"{u.name}@{u.realm} {u.password.reveal()}\n".encode() for u in file.users)


def made(case: str) -> dict[str, bytes]:
    """What the node named in the metadata would have, by path below the case's directory."""
    raw = json.loads((GOLDEN / case / "metadata.json").read_text("utf-8"))["oslo_messaging"]
    machine = helpers.host("glance", "neutron", "nova", "swift", manage_services=True)
    rendered = helpers.rendered(raw, raw["node"], machine)
    files = list(rendered.files)
    digests = {f.path: hashlib.sha256(text_of(f)).hexdigest() for f in files}
    hieradata = render.hieradata(rendered, machine, digests, ())
    files.append(render.File(layout.HIERADATA, hieradata, mode=0o600, secret=True))
    files.append(render.hiera_config(machine))
    listing = [f"{f.mode:04o} {f.owner}:{f.group} {f.path}{' secret' if f.secret else ''}\n" for f in files]
    found = {"root" + f.path: text_of(f) for f in files}
    return {**found, "files.txt": "".join(sorted(listing, key=lambda line: line.split()[2])).encode()}


def kept(case: str) -> dict[str, bytes]:
    base = GOLDEN / case
    paths = [p for p in base.rglob("*") if p.is_file() and p != base / "metadata.json"]
    return {p.relative_to(base).as_posix(): p.read_bytes() for p in paths}


def regenerate(base: pathlib.Path, found: dict[str, bytes]) -> None:
    shutil.rmtree(base / "root", ignore_errors=True)
    for name, content in found.items():
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_every_case_is_there() -> None:
    assert sorted(p.name for p in GOLDEN.iterdir() if p.is_dir()) == sorted(CASES)


@pytest.mark.parametrize("case", CASES)
def test_tree(case: str) -> None:
    found = made(case)
    if os.environ.get("OM_REGENERATE_GOLDEN"):
        regenerate(GOLDEN / case, found)
    expected = kept(case)
    assert sorted(found) == sorted(expected)
    for name, content in expected.items():
        assert found[name].decode() == content.decode(), f"{case}/{name}"


@pytest.mark.parametrize("case", CASES)
def test_the_tree_does_not_depend_on_the_order_of_nodes(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the order of hosts in a URL."""
    raw = json.loads((GOLDEN / case / "metadata.json").read_text("utf-8"))["oslo_messaging"]
    other = helpers.put(raw, "nodes", raw["nodes"][::-1])
    first, second = (helpers.rendered(r, raw["node"], layout.Host()) for r in (raw, other))
    assert {f.path: f for f in first.files} == {f.path: f for f in second.files}
