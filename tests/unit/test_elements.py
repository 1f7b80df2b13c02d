"""The elements: lint, names of packages and units for every release that a README promises, and what is published."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import types
import typing

import pytest
import yaml
from om_agent import cli, engines, metadata
from om_agent.plan import layout

from testbed import image
from tests.support import exposure, helpers

ELEMENTS = helpers.ROOT / "elements"
OWN = sorted(path.name for path in ELEMENTS.iterdir() if path.is_dir())
NAMES = [
    "om-agent", "om-puppet", "oslo-messaging-amqp", "overcloud-messaging", "overcloud-rabbitmq", "qpid-dispatch-router",
    "rabbitmq-broker",
]  # fmt: skip

# Distribution, DIB_RELEASE, and how the READMEs call it.
RELEASES = [
    ("debian", "bookworm", "bookworm"),
    ("debian", "trixie", "trixie"),
    ("ubuntu", "noble", "noble"),
    ("centos", "9-stream", "9-stream"),
    ("rhel", "9", "RHEL"),
    ("fedora", "40", "Fedora 40"),
]


@pytest.fixture(scope="module")
def dib() -> pathlib.Path:
    """diskimage-builder's own elements."""
    found = importlib.util.find_spec("diskimage_builder")
    if found is None or not found.origin:
        helpers.skip("diskimage-builder is not installed; tools/bootstrap test installs it")
    return pathlib.Path(found.origin).parent / "elements"


def load(path: pathlib.Path) -> types.ModuleType:
    """A program without .py as a module, leaving no cache beside it."""
    name = "loaded_" + re.sub(r"\W", "_", path.name)
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writes
    return module


def test_all_are_there() -> None:
    assert OWN == NAMES


@pytest.mark.subprocess
@pytest.mark.slow
def test_dib_lint(dib: pathlib.Path) -> None:
    binary = pathlib.Path(sys.executable).parent
    lint = shutil.which("dib-lint", path=os.pathsep.join([str(binary), os.environ["PATH"]]))
    assert lint and shutil.which("file"), "dib-lint needs the program file"
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(binary), os.environ["PATH"]]),
        "ELEMENTS_DIR": "elements",
        "LIB_DIR": "elements",
    }
    result = subprocess.run([lint], cwd=helpers.ROOT, env=environment, capture_output=True, text=True, check=False)
    said = [x for x in result.stdout.splitlines() if not x.startswith(("Checking", "Parsing"))]
    assert result.returncode == 0 and said[-1] == "PASS", "\n".join(said) + result.stderr


@pytest.mark.parametrize("name", NAMES)
def test_element_deps_are_sorted_and_exist(name: str, dib: pathlib.Path) -> None:
    needed = (ELEMENTS / name / "element-deps").read_text().split()
    assert needed == sorted(set(needed))
    assert [n for n in needed if not (ELEMENTS / n).is_dir() and not (dib / n).is_dir()] == []


@pytest.mark.parametrize("name", NAMES)
def test_readme(name: str) -> None:
    text = (ELEMENTS / name / "README.rst").read_text()
    line = "=" * len(name)
    assert text.startswith(f"{line}\n{name}\n{line}\n")
    assert ".. element_deps::" in text
    assert max(map(len, text.splitlines())) <= 120


def variables(name: str) -> set[str]:
    files = (ELEMENTS / name).glob("environment.d/*")
    return {v for path in files for v in re.findall(r"^export (DIB_\w+)=", path.read_text(), re.MULTILINE)}


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_is_in_the_readme(name: str) -> None:
    text = (ELEMENTS / name / "README.rst").read_text()
    assert {v for v in variables(name) if v not in text} == set()


@pytest.mark.parametrize("name", [n for n in NAMES if (ELEMENTS / n / "pkg-map").exists()])
@pytest.mark.parametrize("release", RELEASES, ids=lambda r: r[1])
@pytest.mark.subprocess
def test_packages_resolve_for_every_release_of_the_readme(
    name: str, release: tuple[str, str, str], dib: pathlib.Path
) -> None:
    distribution, version, called = release
    assert called in (ELEMENTS / name / "README.rst").read_text()
    path = ELEMENTS / name / "pkg-map"
    logical: set[str] = set()
    installs = ELEMENTS / name / "package-installs.yaml"
    if installs.exists():
        logical = set(yaml.safe_load(installs.read_text()))
    known = json.loads(path.read_text())["family"]
    assert known["debian"].keys() == known["redhat"].keys()
    assert logical <= known["debian"].keys()
    for package in sorted(known["debian"]):
        tool = [sys.executable, str(dib / "pkg-map/bin/pkg-map"), "--pkg-map", str(path)]
        command = [*tool, "--distro", distribution, "--release", version, package]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        family = "redhat" if distribution in ("centos", "rhel", "fedora") else "debian"
        assert result.returncode == 0, result.stderr
        assert result.stdout.split() == known[family][package].split()


@pytest.mark.parametrize("release", RELEASES, ids=lambda r: r[1])
def test_units_resolve_and_are_those_of_the_agent(release: tuple[str, str, str], dib: pathlib.Path) -> None:
    merge = load(dib / "svc-map/extra-data.d/10-merge-svc-map-files").merge_data
    units: dict[str, str] = {}
    for name in NAMES:
        path = ELEMENTS / name / "svc-map"
        if path.exists():
            units = merge(yaml.safe_load(path.read_text()), units, release[0])
    expected = {f"dispatch-router-{engine}": where.unit for engine, where in engines.RECORDS.items()}
    assert units == {**expected, "rabbitmq-broker": layout.RABBIT_UNIT}


def test_router_paths_and_users_are_those_of_the_agent() -> None:
    text = (ELEMENTS / "qpid-dispatch-router/install.d/60-qpid-dispatch-router").read_text()
    configs = dict(re.findall(r"^    (\w+)\) config=(\S+) ", text, re.MULTILINE))
    assert configs == {engine: where.config for engine, where in engines.RECORDS.items()}
    for where in engines.RECORDS.values():
        unit = (ELEMENTS / f"qpid-dispatch-router/router-units/{where.unit}.service").read_text()
        assert f"User={where.user}\nGroup={where.user}\n" in unit


def test_presets_switch_off_what_the_agent_starts() -> None:
    presets = "".join(path.read_text() for path in ELEMENTS.glob("*/static/usr/lib/systemd/system-preset/*.preset"))
    lines = set(presets.splitlines())
    for unit in [*(e.unit for e in engines.RECORDS.values()), layout.RABBIT_UNIT]:
        assert f"disable {unit}.service" in lines
    assert "enable om-agent-apply.service" in lines


def test_a_router_has_its_watch() -> None:
    element = ELEMENTS / "qpid-dispatch-router"
    text = (element / "static/usr/lib/systemd/system/om-router-watch@.service").read_text()
    assert {"After=%i.service", "PartOf=%i.service", "ExecStart=/usr/bin/om-agent watch %i"} <= set(text.splitlines())
    assert "[Install]" not in text  # the router's drop-in wants it
    drop_in = (element / "install.d/60-qpid-dispatch-router").read_text().partition("[Unit]\n")[2]
    assert drop_in.startswith("Wants=om-router-watch@$1.service om-router-resync@$1.service\n")


def test_a_router_is_resynchronized_after_each_start() -> None:
    text = (ELEMENTS / "qpid-dispatch-router/static/usr/lib/systemd/system/om-router-resync@.service").read_text()
    command = "ExecStart=/usr/bin/om-agent resync --stay --timeout 120"
    assert {"After=%i.service", "PartOf=%i.service", command} <= set(text.splitlines())
    assert "[Install]" not in text and "Restart=" not in text  # the router's drop-in wants it, once for each start


def test_a_router_trusts_its_own_files_alone() -> None:
    text = (ELEMENTS / "qpid-dispatch-router/install.d/60-qpid-dispatch-router").read_text()
    environment = " ".join(f"{name}={value}" for name, value in layout.ROUTER_ENVIRONMENT.items())
    assert f"\nEnvironment={environment}\n" in text


# -- what units may do -----------------------------------------------------------------------------------------------

# Of every unit but those that say otherwise; doc/security.rst says why they do.
CONFINED: dict[str, str | None] = {
    "AmbientCapabilities": "",
    "CapabilityBoundingSet": "",
    "LimitCORE": "0",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "NoNewPrivileges": "yes",
    "PrivateDevices": "yes",
    "PrivateNetwork": None,
    "PrivateTmp": "yes",
    "ProcSubset": "pid",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHome": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectProc": "invisible",
    "ProtectSystem": "strict",
    "ReadOnlyPaths": "/run",
    "ReadWritePaths": None,
    "RemoveIPC": None,
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_NETLINK AF_UNIX",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "SystemCallArchitectures": "native",
    "SystemCallErrorNumber": "EPERM",
    "SystemCallFilter": "@system-service ~@aio @keyring @privileged @resources userfaultfd",
    "UMask": "0077",
}
# Unit, as doc/security.rst calls it: (its file, what is otherwise).
UNITS: dict[str, tuple[str, dict[str, str | None]]] = {
    "router": (
        "qpid-dispatch-router/router-units/20-hardening.conf",
        {"ProcSubset": None, "RemoveIPC": "yes"},
    ),
    "om-router-watch@": (
        "qpid-dispatch-router/static/usr/lib/systemd/system/om-router-watch@.service",
        {"AmbientCapabilities": None, "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX"},
    ),
    "om-router-resync@": (
        "qpid-dispatch-router/static/usr/lib/systemd/system/om-router-resync@.service",
        {"AmbientCapabilities": None, "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX"},
    ),
    "rabbitmq-server": (
        "rabbitmq-broker/static/usr/lib/systemd/system/rabbitmq-server.service.d/20-hardening.conf",
        {
            "MemoryDenyWriteExecute": None,
            "ProcSubset": None,
            "ReadWritePaths": "/var/lib/rabbitmq /var/log/rabbitmq -/run/rabbitmq",
            "RemoveIPC": "yes",
            "UMask": "0027",
        },
    ),
    "om-agent-apply": (
        "om-agent/static/usr/lib/systemd/system/om-agent-apply.service",
        {
            "AmbientCapabilities": None,
            "CapabilityBoundingSet": "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_KILL CAP_SETGID CAP_SETUID",
            "MemoryDenyWriteExecute": None,
            "ProcSubset": None,
            "ProtectHostname": None,
            "ProtectProc": None,
            "ReadWritePaths": "/etc -/var/lib/rabbitmq",
            "SystemCallFilter": "@system-service ~@aio @keyring userfaultfd",
        },
    ),
    "om-agent-retry": (
        "om-agent/static/usr/lib/systemd/system/om-agent-retry.service",
        {"AmbientCapabilities": None, "PrivateNetwork": "yes", "RestrictAddressFamilies": "AF_UNIX"},
    ),
    "os-collect-config": (
        "om-agent/agent-units/os-collect-config.service",
        {**dict.fromkeys(CONFINED), "LimitCORE": "0"},
    ),
}


def settings(path: pathlib.Path) -> dict[str, str]:
    """The settings of a unit's section [Service]; those that are given more than once add up, and empty ones reset."""
    text = re.sub(r"\\\n", " ", path.read_text())
    found: dict[str, str] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", text.partition("[Service]\n")[2].partition("\n[")[0], re.MULTILINE):
        found[key] = f"{found.get(key, '')} {value}".strip() if value else ""
    return found


@pytest.mark.parametrize("name", UNITS)
def test_no_unit_gets_laxer(name: str) -> None:
    path, otherwise = UNITS[name]
    found = settings(ELEMENTS / path)
    assert {key: found.get(key) for key in CONFINED} == {**CONFINED, **otherwise}
    assert exposure.documented().keys() == UNITS.keys()


def test_the_hook_is_where_heat_agents_look() -> None:
    """heat-agents find a hook by the deployment's group, and before them om-agent applies; the signal comes last."""
    element = ELEMENTS / "om-agent"
    hook = element / "heat-config-hooks" / metadata.HOOK_GROUP
    assert os.access(hook, os.X_OK) and "exec om-agent hook" in hook.read_text()
    installed = f'"${{hooks}}/heat-config-hooks/{hook.name}" /var/lib/heat-config/hooks/{hook.name}\n'
    assert f"install -D -m 0755 {installed}" in (element / "install.d/50-om-agent").read_text()
    scripts = element / "os-refresh-config"
    assert max(path.name for path in (scripts / "configure.d").iterdir()) < "55-heat-config"
    last = max((scripts / "post-configure.d").iterdir())
    assert "exec om-agent signal" in last.read_text()


def test_the_routers_own_units_leave_it_to_the_drop_in() -> None:
    element = ELEMENTS / "qpid-dispatch-router"
    for unit in element.glob("router-units/*.service"):
        assert settings(unit).keys() == {"Type", "User", "Group"}
    text = (element / "install.d/60-qpid-dispatch-router").read_text()
    assert 'install -m 0644 "${hooks}/router-units/20-hardening.conf" "${directory}/"\n' in text


@pytest.mark.subprocess
@pytest.mark.parametrize("name", UNITS)
def test_what_systemd_finds_is_what_the_documentation_says(name: str, tmp_path: pathlib.Path) -> None:
    tool = shutil.which("systemd-analyze")
    said = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout if tool else ""
    if tool is None or said.split()[:2] != ["systemd", "252"]:  # others weigh otherwise
        pytest.skip("systemd-analyze of systemd 252 is not there; what it would look at is, in the test before")
    path = ELEMENTS / UNITS[name][0]
    unit = f"{name}{'om-devrouter' if '@' in name else ''}.service"
    directory = tmp_path / "usr/lib/systemd/system"
    directory.mkdir(parents=True)
    if path.suffix == ".service":
        shutil.copy(path, directory)
    else:  # what the drop-in is for: of a package, and with the same in it
        (directory / f"{unit}.d").mkdir()
        shutil.copy(path, directory / f"{unit}.d")
        notify = "Type=notify\nNotifyAccess=all\n" if name == "rabbitmq-server" else ""
        (directory / unit).write_text(f"[Service]\nUser=somebody\n{notify}ExecStart=/bin/true\n")
    command = [tool, "security", "--offline=true", f"--root={tmp_path}", "--no-pager", unit]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert exposure.overall(result.stdout) == exposure.documented()[name][1]


# -- which units wait ------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    """A Debian with nova-compute, keystone in the web server, the broker and the development router."""
    files = {
        "etc/os-release": "ID=debian\n",
        "etc/nova/nova.conf": "",
        "etc/keystone/keystone.conf": "",
        "usr/lib/systemd/system/nova-compute.service": "[Unit]\nAfter=network.target\n",
        "usr/lib/systemd/system/heat-engine.service": "[Unit]\n",  # without /etc/heat: not a service of the node
        "usr/lib/systemd/system/om-devrouter.service": "",
        "lib/systemd/system/rabbitmq-server.service": "",
        "etc/init.d/apache2": "",
        "usr/lib/systemd/system/placement-api.service": "[Unit]\nAfter=network.target nova-compute.service\n",
        "usr/lib/systemd/system/last.service": "[Unit]\nAfter=placement-api.service\n",
        "usr/lib/systemd/system/ssh.service": "[Unit]\nAfter=network.target\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def drop_ins(tree: pathlib.Path) -> dict[str, str]:
    found = (tree / "usr/lib/systemd/system").glob("*.service.d/10-om-agent.conf")
    return {path.parent.name[: -len(".service.d")]: path.read_text() for path in found}


def gate(tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(sys, "argv", ["gate-units", "--root", str(tree)])
    load(ELEMENTS / "om-agent/static/usr/libexec/om-agent/gate-units").main()
    return drop_ins(tree)


def test_units_that_the_image_has_wait_for_the_agent(tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = gate(tree, monkeypatch)
    waiting = {name for name, text in made.items() if "Requires=om-agent-apply.service" in text}
    assert waiting == {"apache2", "nova-compute", "om-devrouter", "rabbitmq-server"}
    listed = (tree / "usr/lib/om-agent/gated-units").read_text().split()
    assert set(listed) == {f"{name}.service" for name in waiting}
    assert "After=om-agent-apply.service om-devrouter.service rabbitmq-server.service\n" in made["nova-compute"]
    assert "After=om-agent-apply.service\n" in made["rabbitmq-server"]


def test_multi_user_target_waits_for_none_of_them(tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = gate(tree, monkeypatch)
    assert {"placement-api", "last"} == {n for n, text in made.items() if "om-agent-apply" not in text}
    for text in made.values():
        assert "DefaultDependencies=no\nRequires=sysinit.target\nAfter=sysinit.target basic.target\n" in text
        assert "Conflicts=shutdown.target\nBefore=shutdown.target\n" in text


def test_a_second_run_forgets_what_is_gone(tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate(tree, monkeypatch)
    (tree / "usr/lib/systemd/system/nova-compute.service").unlink()
    made = gate(tree, monkeypatch)
    assert set(made) == {"apache2", "om-devrouter", "rabbitmq-server"}


# -- publishing ------------------------------------------------------------------------------------------------------


def test_elements_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["elements-path"]) == 0
    assert capsys.readouterr().out == f"{ELEMENTS}\n"


def test_image_building_configuration() -> None:
    """tests/image/test_tripleo.py parses it with the real tripleo-common."""
    path = ELEMENTS / "overcloud-messaging/overcloud-images.yaml"
    images: list[dict[str, typing.Any]] = yaml.safe_load(path.read_text())["disk_images"]
    assert [image["imagename"] for image in images] == ["overcloud-full"]
    assert set(images[0]["elements"]) <= set(NAMES)


# -- what this project's own images are made of ----------------------------------------------------------------------

BOOKWORM = """\
Types: deb
URIs: http://main.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main
"""


@pytest.mark.parametrize("release", image.MESSAGING)
def test_images_use_the_mirrors_of_the_build_host(release: str) -> None:
    """Debian's mirrors have every release, so a host can build images of another release."""
    assert image.mirrors([BOOKWORM], release) == (
        "http://main.example/debian",
        "http://security.example/debian-security",
    )


def test_a_mirror_that_names_the_release_comes_first() -> None:
    lines = [
        "deb [arch=amd64] http://trixie.example/debian trixie main",
        "deb http://trixie.example/security trixie-security main",
    ]
    found = ("http://trixie.example/debian", "http://trixie.example/security")
    assert image.mirrors([BOOKWORM, "\n".join(lines)], "trixie") == found


def test_sources_of_another_distribution_are_no_mirrors() -> None:
    noble = "deb http://ubuntu.example/ubuntu noble main\ndeb http://ubuntu.example/ubuntu noble-security main"
    with pytest.raises(image.ImageError, match="set DIB_DISTRIBUTION_MIRROR"):
        image.mirrors([noble], "trixie")


@pytest.mark.parametrize("release", image.MESSAGING)
def test_images_are_made_of_elements_that_exist(release: str) -> None:
    assert set(image.elements("overcloud", release)) <= set(NAMES)
    assert image.elements("plain", release) == ()


def refusal(tmp_path: pathlib.Path, candidate: str, **variables: str) -> tuple[int, str]:
    """Run the element's early check with an apt that offers ``candidate``."""
    apt = tmp_path / "apt-cache"
    apt.write_text(f"#!/bin/sh\nprintf 'python3-oslo.messaging:\\n  Installed: (none)\\n  Candidate: {candidate}\\n'\n")
    apt.chmod(0o755)
    given = {"PATH": f"{tmp_path}:{os.defpath}", "DISTRO_NAME": "debian", "DIB_RELEASE": "x"}
    given |= {"DIB_OSLO_MESSAGING_PYTHON": "/usr/bin/python3", **variables}
    script = ELEMENTS / "oslo-messaging-amqp/install.d/00-oslo-messaging-amqp"
    result = subprocess.run([str(script)], env=given, capture_output=True, text=True, check=False)
    return result.returncode, result.stderr


@pytest.mark.subprocess
@pytest.mark.parametrize("candidate", ["16.1.0-3+deb13u1", "15.0.0-1", "1:18.3.0-1"])
def test_no_dual_image_without_the_driver(candidate: str, tmp_path: pathlib.Path) -> None:
    status, said = refusal(tmp_path, candidate)
    version = candidate.partition(":")[2] or candidate
    assert status == 1
    assert said.startswith(
        f"ERROR: oslo-messaging-amqp: oslo.messaging {version.partition('-')[0]} of debian x has no AMQP"
    )
    assert "element overcloud-rabbitmq" in said and "DIB_RELEASE=bookworm" in said


@pytest.mark.subprocess
@pytest.mark.parametrize("candidate", ["14.0.3-0+deb12u1", "14.9.0-1", "1:14.0.0-1", "(none)", ""])
def test_a_dual_image_where_the_driver_may_be(candidate: str, tmp_path: pathlib.Path) -> None:
    assert refusal(tmp_path, candidate) == (0, "")


@pytest.mark.subprocess
def test_a_python_of_its_own_is_not_judged_by_packages(tmp_path: pathlib.Path) -> None:
    assert refusal(tmp_path, "16.1.0-3", DIB_OSLO_MESSAGING_PYTHON="/opt/venv/bin/python") == (0, "")
