"""A program for atheris: coverage leads it to metadata that nobody thought of. `tests.security.test_fuzz` runs it.

    python -m tests.security.fuzz_metadata [libFuzzer's options] [corpus]

Whatever the bytes, the agent gives a deployment or problems, and no problem repeats a value. A deployment's files are
what its values say: each transport URL comes apart into user, password, hosts and virtual host again, everything that
is written as JSON is JSON, and of services' files, one of each format, oslo.config and PasteDeploy read the very keys
and values. With OM_FUZZ_PLANT set a fault is planted, which a fuzzer that works has to find.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import tempfile
import urllib.parse

import atheris

with atheris.instrument_imports(include=["om_agent", "yaml"]):
    from om_agent import errors, fields, metadata, metadata_files, model, parse, plan, render, rules  # noqa: F401
    from om_agent.plan import policy, services, transport_url

from tests.support import helpers

try:  # as the services have them, and not on every machine that has atheris
    from oslo_config import iniparser
    from paste.deploy import loadwsgi
except ImportError:
    iniparser = loadwsgi = None

CATALOGUE, MACHINE = helpers.catalogue(), helpers.host()
MARK = "Kanarie7Zq4Xw"
FILE = pathlib.Path(tempfile.mkdtemp(prefix="om-fuzz-"), "proxy-server.conf")

if iniparser:

    class Reader(iniparser.BaseParser):  # type: ignore[misc]
        """oslo.config's own reader of files, which tells what it finds."""

        def __init__(self) -> None:
            super().__init__()
            self.section = ""
            self.found: list[tuple[str, str, list[str]]] = []

        def new_section(self, section: str) -> None:
            """Called for every one."""
            self.section = section

        def assignment(self, key: str, value: list[str]) -> None:
            """Called for every one, with its lines."""
            self.found.append((self.section, key, value))


def check_url(backend: model.Backend) -> None:
    """What is in a transport URL comes out of it again, as oslo.messaging and urllib read it."""
    parts = urllib.parse.urlsplit(transport_url.url_of(backend).reveal())
    netloc = parts.netloc.split(",")
    assert parts.scheme == backend.scheme.value and len(netloc) == len(backend.hosts), parts
    assert urllib.parse.unquote(parts.path[1:]) == backend.virtual_host, parts
    for text, host in zip(netloc, backend.hosts):
        login, _, where = text.rpartition("@")
        user, _, password = (urllib.parse.unquote(t) for t in login.partition(":"))
        assert (user, password) == (policy.login(backend), backend.password.reveal()), (login, backend)
        assert where == f"{transport_url.bracket(host)}:{backend.port}", (where, host)


def check_file(config: services.ConfigFile) -> None:
    """What a service's file says is what its own reader reads."""
    wanted: dict[str, dict[str, str]] = {}
    for s in config.settings:
        if s.value:
            wanted.setdefault(s.section, {})[s.key] = s.value.reveal()
    text = "".join(f"[{name}]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items()) for name, keys in wanted.items())
    if config.format == services.PASTE:
        (section,) = wanted
        FILE.write_text(text.replace("\n", "\npaste.filter_factory = builtins:dict\n", 1))
        found = loadwsgi.loadcontext(loadwsgi.FILTER, f"config:{FILE}", name=section.partition(":")[2]).local_conf
        assert found == {k: v.replace("%%", "%") for k, v in wanted[section].items()}, found
        return
    read = Reader()
    read.parse(text.splitlines(keepends=True))
    assert read.found == [(s, k, [v]) for s, keys in wanted.items() for k, v in keys.items()], read.found


def test_one(data: bytes) -> None:
    """Take some bytes as a file of metadata."""
    try:
        document = metadata_files.parse_text(data, "fuzzed")
        raw = metadata.select(document, "ctl-0") if isinstance(document, dict) else None
        if raw is None:
            return  # nothing about messaging
        deployment = parse.deployment(raw, CATALOGUE)
        node = deployment.nodes[0]
        for backend in deployment.halves:
            check_url(backend)
        if os.environ.get("OM_FUZZ_PLANT"):
            assert deployment.rpc.port != 5673, "planted"
        planned = plan.build(deployment, node, CATALOGUE, MACHINE)
        rendered = render.render(planned, MACHINE)
    except errors.InvalidInput as e:
        assert e.problems
        assert MARK not in str(e), "a value is repeated"
        return
    for file in rendered.files:
        if file.content is not None and file.path.endswith(".json"):
            json.loads(file.content)
    if iniparser:
        formats = {config.format: config for config in rendered.config_files}
        for config in formats.values():
            check_file(config)


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one)
    atheris.Fuzz()
