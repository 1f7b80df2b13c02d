"""Run hot.py in .venv-heat, and name the paths of this project's templates."""

from __future__ import annotations

import json
import pathlib
import subprocess
import typing

from tests.support import helpers

HEAT = helpers.ROOT / "heat"
HERE = pathlib.Path(__file__).parent
PYTHON = helpers.ROOT / ".venv-heat/bin/python"

Result = dict[str, typing.Any]
Case = dict[str, typing.Any]


def python() -> str:
    """Return the Python of .venv-heat."""
    if not PYTHON.is_file():
        helpers.skip("there is no .venv-heat; tools/bootstrap heat makes it")
    return str(PYTHON)


def resolve(cases: typing.Sequence[Case]) -> list[Result]:
    """Return Heat's result for each case; see hot.py. One call takes many cases, because Heat starts slowly."""
    ready = [
        {**c, "template": str(c["template"]), "environments": list(map(str, c.get("environments", [])))} for c in cases
    ]
    command = [python(), str(HERE / "hot.py")]
    done = subprocess.run(command, input=json.dumps(ready), capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    return typing.cast("list[Result]", json.loads(done.stdout))


def resolve_all(cases: typing.Mapping[str, Case]) -> dict[str, Result]:
    """Return Heat's result for each case, by the case's name."""
    return dict(zip(cases, resolve(list(cases.values()))))
