"""A program for atheris: coverage leads it to metadata that nobody thought of. `tests.security.test_fuzz` runs it.

    python -m tests.security.fuzz_metadata [libFuzzer's options] [corpus]

Whatever the bytes, the agent gives a deployment or problems, and no problem repeats a value. A deployment's files are
what its values say: each transport URL comes apart into user, password, hosts and virtual host again, and everything
that is written as JSON is JSON. With OM_FUZZ_PLANT set a fault is planted, which a fuzzer that works has to find.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.parse

import atheris

with atheris.instrument_imports(include=["om_agent", "yaml"]):
    from om_agent import errors, fields, metadata, model, parse, plan, render, sense  # noqa: F401
    from om_agent.plan import transport_url

from tests import helpers

CATALOGUE, MACHINE = helpers.catalogue(), helpers.host()
MARK = "Kanarie7Zq4Xw"


def check_url(backend: model.Backend) -> None:
    """What is in a transport URL comes out of it again, as oslo.messaging and urllib read it."""
    parts = urllib.parse.urlsplit(transport_url.build(backend).reveal())
    netloc = parts.netloc.split(",")
    assert parts.scheme == backend.scheme.value and len(netloc) == len(backend.hosts), parts
    assert urllib.parse.unquote(parts.path[1:]) == backend.virtual_host, parts
    for text, host in zip(netloc, backend.hosts):
        login, _, where = text.rpartition("@")
        user, _, password = (urllib.parse.unquote(t) for t in login.partition(":"))
        assert (user, password) == (backend.username, backend.password.reveal()), (login, backend)
        assert where == f"{transport_url.bracket(host)}:{backend.port}", (where, host)


def test_one(data: bytes) -> None:
    """Take some bytes as a file of metadata."""
    try:
        document = metadata.parse_text(data, "fuzzed")
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


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one)
    atheris.Fuzz()
