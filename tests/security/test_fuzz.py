"""Coverage-guided fuzzing of metadata: thousands of inputs derived from valid ones, with new seeds each time."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import random
import subprocess
import sys

import pytest
from om_agent.parse import keys, values

from tests.security import shapes
from tests.support import helpers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RUNS, SECONDS = 50000, 40  # whichever comes first


@pytest.fixture
def corpus(tmp_path: pathlib.Path) -> pathlib.Path:
    """Good metadata of every kind, without the certificates, which would only be long."""
    directory = tmp_path / "corpus"
    directory.mkdir()
    for name, content in shapes.documents().items():
        (directory / name).write_bytes(content)
    for name, make in shapes.BACKENDS.items():
        raw = {k: v for k, v in make().items() if k != "tls"}
        (directory / name).write_text(json.dumps({"oslo_messaging": raw}))
    for path in (helpers.ROOT / "examples").glob("*.json"):
        (directory / path.name).write_bytes(path.read_bytes())
    return directory


def dictionary(corpus: pathlib.Path) -> pathlib.Path:
    """The names of the declared keys and the words that they take, so that the fuzzer need not find them by chance."""
    names = {key.name for _, key in keys.every()}
    words = {word for _, key in keys.every() if isinstance(key.value, values.Word) for word in key.value.known()}
    path = corpus.parent / "keys.dict"
    path.write_text("".join(f'"{word}"\n' for word in sorted(names | words)))
    return path


def fuzz(corpus: pathlib.Path, **environment: str) -> tuple[int, str]:
    """Run the fuzzer; returns its exit code and what it said."""
    if not importlib.util.find_spec("atheris"):
        helpers.skip("atheris is not installed")
    seed = random.randrange(1, 2**31)
    command = [sys.executable, "-m", "tests.security.fuzz_metadata", f"-runs={RUNS}", f"-max_total_time={SECONDS}"]
    command += ["-max_len=16384", "-timeout=20", f"-seed={seed}", f"-artifact_prefix={corpus.parent}/"]
    command += [f"-dict={dictionary(corpus)}", str(corpus)]
    done = subprocess.run(
        command, cwd=helpers.ROOT, env={**os.environ, "PYTHONPATH": str(helpers.ROOT), **environment},
        capture_output=True, text=True, errors="replace", timeout=SECONDS + 120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_whatever_it_finds_is_a_deployment_or_a_problem(corpus: pathlib.Path) -> None:
    code, said = fuzz(corpus)
    inputs = [f"{p.name}: {p.read_bytes()!r}" for p in corpus.parent.glob("*-*") if p.is_file()]
    assert code == 0, said[-6000:] + "\n".join(inputs)
    assert "cov:" in said and "Done" in said, said[-3000:]


def test_it_finds_a_fault_that_is_planted(corpus: pathlib.Path) -> None:
    """Proof that the other test can fail."""
    (corpus / "near").write_bytes(
        b'{"oslo_messaging": {"rpc": {"password": "x", "port": 5673}, "nodes": [{"name": "a"}]}}'
    )
    code, said = fuzz(corpus, OM_FUZZ_PLANT="1")
    assert code != 0 and "planted" in said, said[-3000:]
