"""The wheels hold everything that a node needs, and the commands start from them."""

from __future__ import annotations

import configparser
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

pytestmark = [pytest.mark.subprocess, pytest.mark.slow]

ROOT = pathlib.Path(__file__).parents[2]
# Of the puppet module, what only its own tests and tools need.
NOT_SHIPPED = {"Gemfile", "Rakefile", "spec", "__pycache__"}
UNWANTED = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")


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


def build(work: pathlib.Path, tree: pathlib.Path) -> pathlib.Path:
    """Build the wheel of a copied tree; setuptools leaves its build directory in the tree that it builds from."""
    pytest.importorskip("setuptools")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", work, tree)
    (built,) = work.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The agent's."""
    work = tmp_path_factory.mktemp("wheel")
    for name in ("agent", "elements", "puppet"):
        shutil.copytree(ROOT / name, work / "tree" / name, ignore=UNWANTED, symlinks=True)
    for name in ("LICENSE", "README.rst", "pyproject.toml", "setup.cfg"):
        shutil.copy(ROOT / name, work / "tree")
    return build(work, work / "tree")


@pytest.fixture(scope="module")
def router_wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The development router's."""
    work = tmp_path_factory.mktemp("router-wheel")
    shutil.copytree(ROOT / "devrouter", work / "tree", ignore=UNWANTED)
    return build(work, work / "tree")


def names(wheel: pathlib.Path) -> set[str]:
    """The files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def commands(wheel: pathlib.Path) -> dict[str, str]:
    """The commands of a wheel."""
    (entry_points,) = (name for name in names(wheel) if name.endswith(".dist-info/entry_points.txt"))
    parser = configparser.ConfigParser()
    with zipfile.ZipFile(wheel) as archive:
        parser.read_string(archive.read(entry_points).decode())
    return dict(parser["console_scripts"])


def test_wheels_are_for_every_platform(wheel: pathlib.Path, router_wheel: pathlib.Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    assert router_wheel.name.endswith("-py3-none-any.whl")


def sources(package: pathlib.Path) -> set[str]:
    """The files of a package, as a wheel names them."""
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(package.parent).as_posix() for path in files}


def test_package_and_its_data(wheel: pathlib.Path) -> None:
    wanted = sources(ROOT / "agent/om_agent")
    assert "om_agent/data/services.yaml" in wanted
    assert wanted - names(wheel) == set()
    assert not any(name.startswith("om_devrouter") for name in names(wheel))


def test_package_of_the_router(router_wheel: pathlib.Path) -> None:
    outside = {name for name in names(router_wheel) if ".dist-info/" not in name}
    assert outside == sources(ROOT / "devrouter/om_devrouter") != set()


def modes(wheel: pathlib.Path, directory: str) -> dict[str, bool]:
    """The files below a directory of the agent's package, and whether each can be executed."""
    with zipfile.ZipFile(wheel) as archive:
        found = [info for info in archive.infolist() if info.filename.startswith(f"om_agent/{directory}/")]
    return {info.filename.partition("/")[2]: bool(info.external_attr >> 16 & stat.S_IXUSR) for info in found}


def modes_in_tree(directory: str) -> dict[str, bool]:
    files = [path for path in (ROOT / directory).rglob("*") if path.is_file()]
    shipped = [path for path in files if not NOT_SHIPPED.intersection(path.relative_to(ROOT).parts)]
    return {path.relative_to(ROOT).as_posix(): os.access(path, os.X_OK) for path in shipped}


@pytest.mark.parametrize("directory", ["elements", "puppet"])
def test_elements_and_puppet_module_are_in_the_package(wheel: pathlib.Path, directory: str) -> None:
    """With their executable bits: dib runs what a hook directory holds only if it can be executed."""
    wanted = modes_in_tree(directory)
    assert modes(wheel, directory) == wanted
    assert "elements/om-agent/install.d/50-om-agent" in wanted or "puppet/modules/om_messaging/metadata.json" in wanted
    assert any(wanted.values()) == (directory == "elements")


def test_licence(wheel: pathlib.Path) -> None:
    (licence,) = (name for name in names(wheel) if name.endswith("/LICENSE"))
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()


def test_each_wheel_has_its_command(wheel: pathlib.Path, router_wheel: pathlib.Path) -> None:
    assert commands(wheel) == {"om-agent": "om_agent.cli:main"}
    assert commands(router_wheel) == {"om-devrouter": "om_devrouter.cli:main"}


def pinned(config: pathlib.Path, section: str, option: str) -> str:
    """The version of python-qpid-proton that a setup.cfg names."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(config)
    (line,) = [x for x in parser[section][option].splitlines() if x.startswith("python-qpid-proton")]
    return line


def test_the_router_needs_the_proton_of_the_tests() -> None:
    """The element om-agent compiles for an image what the router's wheel asks for."""
    tested = pinned(ROOT / "setup.cfg", "options.extras_require", "messaging")
    assert pinned(ROOT / "devrouter/setup.cfg", "options", "install_requires") == tested
    assert "==" in tested


def test_installed_commands_start(wheel: pathlib.Path, router_wheel: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """In an environment of their own, with PyYAML and the rest of this one's packages but not this tree."""
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv/bin/python"
    options = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel, router_wheel)
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # PYTHONPATH does not read .pth files, so the editable installation of this tree is not seen.
    environment = {
        "PYTHONPATH": os.pathsep.join([packages, sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    }
    for command in ("om-agent", "om-devrouter"):
        assert command in run(tmp_path / "venv/bin" / command, "--help", **environment)
    where = run(python, "-c", "import om_agent; print(om_agent.__file__)", **environment)
    assert where.startswith(packages)
    elements = pathlib.Path(run(tmp_path / "venv/bin/om-agent", "elements-path", **environment).strip())
    assert elements == pathlib.Path(packages).resolve() / "om_agent/elements"
    assert os.access(elements / "om-agent/install.d/50-om-agent", os.X_OK)
    code = "from om_agent.apply import puppet; print(puppet.module_directories()[0])"
    assert (pathlib.Path(run(python, "-c", code, **environment).strip()) / "om_messaging/metadata.json").is_file()
