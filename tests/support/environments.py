"""Virtual environments with one release of oslo.messaging each, for the tests that run on several.

They are below pytest's cache. Making one takes half a minute, and only the first time: oslo.messaging brings some
thirty packages with it. Those with the in-tree driver need python-qpid-proton, which is compiled (pip keeps the result
for the others).
"""

from __future__ import annotations

import configparser
import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import venv

import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]
DRIVER, ALIAS = REPOSITORY / "driver", REPOSITORY / "driver/alias"
# The first is Debian 12's; the last of the line that answers RabbitMQ's RPC at once; the last with the in-tree driver.
WITH_IN_TREE_DRIVER = ("14.0.3", "14.3.1", "14.9.3")
# The first without it; Debian 13's; the last for Python 3.10; the newest.
WITHOUT_IN_TREE_DRIVER = ("15.0.0", "16.1.0", "17.3.0", "18.3.1")
RELEASES = (*WITH_IN_TREE_DRIVER, *WITHOUT_IN_TREE_DRIVER)
PYTHON = {"17.3.0": (3, 10), "18.3.1": (3, 11)}  # the oldest that a release can be installed on
INSTALL_SECONDS = 500
_OPTIONS = ("--quiet", "--disable-pip-version-check", "--no-input")


def _pins(lines: list[str]) -> dict[str, str]:
    found = (re.match(r"([\w.-]+)==([\w.]+)$", line.strip()) for line in lines)
    return {match[1]: match[2] for match in found if match}


def requirements(release: str) -> list[str]:
    """Return what is installed: a release and its dependencies, as setup.cfg or, from 18.0 on, Heat's environment pins
    them.
    """
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(REPOSITORY / "setup.cfg")
    pins = _pins(parser["options.extras_require"]["messaging"].splitlines())
    if release in WITHOUT_IN_TREE_DRIVER:
        for name in ("pyngus", "python-qpid-proton"):
            del pins[name]
    if int(release.partition(".")[0]) >= 18:
        newer = _pins((REPOSITORY / "tests/heat/constraints.txt").read_text().splitlines())
        pins = {name: newer.get(name, version) for name, version in pins.items()}
    pins["oslo.messaging"] = release
    # Some of these libraries still import pkg_resources, which setuptools 81 does not have. 70.1 builds wheels itself.
    return [*(f"{name}=={version}" for name, version in pins.items()), "setuptools>=70.1,<81"]


def distributions(release: str) -> list[pathlib.Path]:
    """Return what is installed of this tree: the driver, and where oslo.messaging allows it, its second name."""
    return [DRIVER] if release in WITH_IN_TREE_DRIVER else [DRIVER, ALIAS]


def python(config: pytest.Config, factory: pytest.TempPathFactory, release: str) -> str:
    """Return the interpreter of a release's environment, which is made if need be.

    Skips the test when this Python or pip's index does not have the release; in CI the latter is a failure.
    """
    if sys.version_info < PYTHON.get(release, (3, 9)):
        pytest.skip(f"oslo.messaging {release} needs Python {'.'.join(map(str, PYTHON[release]))}")
    cache = getattr(config, "cache", None)  # not there with -p no:cacheprovider
    base = cache.mkdir("oslo-messaging") if cache else factory.getbasetemp() / "oslo-messaging"
    directory = base / release
    complete = directory / "complete"
    if not complete.is_file() or complete.read_text() != _fingerprint(release):
        capture = config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            print(f"\ninstalling oslo.messaging {release} and what it needs into {directory}, once ...", flush=True)
        _make(directory, release)
    return str(directory / "bin/python")


def _make(directory: pathlib.Path, release: str) -> None:
    """Make it; the file `complete` says with what, so that an interrupted or outdated one is made again."""
    shutil.rmtree(directory, ignore_errors=True)
    venv.create(directory, symlinks=True, with_pip=True)
    install(directory / "bin/python", *requirements(release))
    for distribution in distributions(release):
        install(directory / "bin/python", "--no-build-isolation", "--no-deps", "--editable", str(distribution))
    (directory / "complete").write_text(_fingerprint(release))


def install(interpreter: pathlib.Path | str, *wanted: str) -> None:
    """Install something into an environment with pip; skips the test, in CI fails it, when that is not possible."""
    result = subprocess.run(
        [interpreter, "-m", "pip", "install", *_OPTIONS, *wanted],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    if result.returncode == 0:
        return
    said = [line for line in result.stdout.splitlines() if line.startswith("ERROR")]
    reason = f"pip cannot install {' '.join(wanted)}: {(said or ['it gave no reason'])[-1]}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _fingerprint(release: str) -> str:
    metadata = [(directory / "setup.cfg").read_text() for directory in distributions(release)]
    return hashlib.sha256("\n".join([sys.version, *requirements(release), *metadata]).encode()).hexdigest()
