"""The wheel holds everything that a node needs, and the commands start from it."""

from __future__ import annotations

import configparser
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

pytestmark = [pytest.mark.subprocess, pytest.mark.slow]

ROOT = pathlib.Path(__file__).parents[2]
MODULE = pathlib.Path("puppet/modules/om_messaging")
# Of the puppet module, what only its own tests and tools need.
NOT_SHIPPED = {"Gemfile", "Rakefile", "spec"}


def run(*command: str | pathlib.Path, **environment: str) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Built from a copy, since setuptools leaves its build directory in the tree it builds from."""
    pytest.importorskip("setuptools")
    work = tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("agent", "puppet"):
        shutil.copytree(ROOT / name, work / "tree" / name, ignore=unwanted)
    for name in ("LICENSE", "README.rst", "pyproject.toml", "setup.cfg"):
        shutil.copy(ROOT / name, work / "tree")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", work, work / "tree")
    (built,) = work.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: pathlib.Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_is_for_every_platform(wheel: pathlib.Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")


@pytest.mark.parametrize("package", ["om_agent", "om_devrouter"])
def test_package_and_its_data(names: set[str], package: str) -> None:
    sources = [
        path for path in (ROOT / "agent" / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    assert sources
    assert {path.relative_to(ROOT / "agent").as_posix() for path in sources} - names == set()


def test_puppet_module(names: set[str]) -> None:
    files = [path.relative_to(ROOT / MODULE) for path in (ROOT / MODULE).rglob("*") if path.is_file()]
    shipped = {
        path.as_posix()
        for path in files
        if not NOT_SHIPPED.intersection(path.parts) and not any(part.startswith(".") for part in path.parts)
    }
    assert "metadata.json" in shipped
    (prefix,) = {name.partition(".data/")[0] for name in names if ".data/" in name}
    directory = f"{prefix}.data/data/share/om-dual-backends/{MODULE.as_posix()}/"
    packed = {name[len(directory) :] for name in names if name.startswith(directory)}
    assert packed == shipped, "each directory of the module has a line in [options.data_files] of setup.cfg"


def test_licence_and_entry_points(wheel: pathlib.Path, names: set[str]) -> None:
    (entry_points,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
    (licence,) = (name for name in names if name.endswith("/LICENSE"))
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
        parser = configparser.ConfigParser()
        parser.read_string(archive.read(entry_points).decode())
    assert dict(parser["console_scripts"]) == {
        "om-agent": "om_agent.cli:main",
        "om-devrouter": "om_devrouter.cli:main",
    }


def test_installed_commands_start(wheel: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """In an environment of their own, with PyYAML and the rest of this one's packages but not this tree."""
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv/bin/python"
    options = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel)
    module = tmp_path / "venv/share/om-dual-backends/puppet/modules/om_messaging"
    assert (module / "metadata.json").is_file()
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # PYTHONPATH does not read .pth files, so the editable installation of this tree is not seen.
    environment = {
        "PYTHONPATH": os.pathsep.join([packages, sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    }
    for command in ("om-agent", "om-devrouter"):
        assert command in run(tmp_path / "venv/bin" / command, "--help", **environment)
    where = run(python, "-c", "import om_agent; print(om_agent.__file__)", **environment)
    assert where.startswith(packages)
