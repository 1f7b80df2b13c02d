"""What several tests share: metadata that is right, ways to make it wrong, a host, and a tree of files as data."""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib.resources
import json
import os
import pathlib
import shutil
import subprocess
import sys
import typing

import pytest
from om_agent import host_facts, model, parse, plan, render
from om_agent.plan import layout, services

from testbed import errors, rabbitmq
from tests.support import fakes, trees, waiting

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "agent" / "om_agent"
PUPPET_MODULES = pathlib.Path(os.environ.get("OM_PUPPET_MODULES", "/usr/share/puppet/modules"))

# No key of anything: what a PEM block looks like from afar.
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nbm90IGEga2V5\n-----END PRIVATE KEY-----\n"

# Whether this machine's RabbitMQ has them: 4.0 and newer has quorum queues instead.
MIRRORED_QUEUES = layout.numbers(host_facts.broker_version(pathlib.Path("/"))) < (4,)

Raw = dict[str, typing.Any]


def nodes(controllers: int = 3, computes: int = 1) -> list[Raw]:
    """Some controllers and computes, by address."""
    found = [{"name": f"ctl-{i}", "address": f"172.17.0.{11 + i}"} for i in range(controllers)]
    return found + [{"name": f"cmp-{i}", "address": f"172.17.0.{51 + i}", "role": "compute"} for i in range(computes)]


def default(controllers: int = 3, computes: int = 1) -> Raw:
    """The least that is valid: RabbitMQ for both halves."""
    return {"rpc": {"password": "rpc-secret"}, "nodes": nodes(controllers, computes)}


def dual(controllers: int = 3, computes: int = 1) -> Raw:
    """RPC over AMQP 1.0, notifications over RabbitMQ."""
    return {
        "rpc": {"scheme": "amqp", "username": "rpc", "password": "rpc-secret", "tls": False},
        "notify": {"scheme": "rabbit", "username": "notify", "password": "notify-secret"},
        "router": {"mesh_password": "mesh-secret"},
        "broker": {"erlang_cookie": "cookie-secret"},
        "nodes": nodes(controllers, computes),
    }


def with_tls(raw: Raw, form: str = "paths") -> Raw:
    """``raw`` with TLS for both halves; ``form`` is ``paths`` or ``pem``."""
    result = copy.deepcopy(raw)
    result["rpc"]["tls"] = True
    result.setdefault("notify", {})["tls"] = True
    if form == "paths":
        base = "/etc/pki/tls/"
        result["tls"] = {
            "ca_file": base + "ca.pem",
            "certificate_file": base + "node.pem",
            "key_file": base + "node.key",
        }
    else:
        result["tls"] = {"ca": CERTIFICATE, "certificate": CERTIFICATE, "key": KEY}
    return result


def put(raw: Raw, path: str, value: object) -> Raw:
    """A copy of ``raw`` with ``value`` at a dotted path; numbers are places in a list, ``-`` adds to one."""
    result: typing.Any = copy.deepcopy(raw)
    *parents, last = path.split(".")
    at = result
    for key in parents:
        at = at[int(key)] if isinstance(at, list) else at.setdefault(key, {})
    if last == "-":
        at.append(value)
    elif isinstance(at, list):
        at[int(last)] = value
    else:
        at[last] = value
    return typing.cast("Raw", result)


@functools.cache
def catalogue() -> dict[str, services.Service]:
    """The service catalogue."""
    text = importlib.resources.files("om_agent").joinpath("data/services.yaml").read_text("utf-8")
    return services.parse_catalogue(text)


def host(*names: str, family: str = "debian", **changes: typing.Any) -> layout.Host:
    """A machine with these services installed, all of the catalogue by default, and no file of theirs yet."""
    known = catalogue()
    files = [f for n in names or known for f in known[n].files]
    facts: dict[str, typing.Any] = {
        "family": family,
        "directories": frozenset(f.path[family].rpartition("/")[0] for f in files),
        "paste_sections": frozenset((f.path[family], f.section) for f in files if f.section),
        "manage_services": False,
        **changes,
    }
    return layout.Host(**facts)


def plan_for(raw: object, node: str, machine: layout.Host | None = None) -> plan.Plan:
    """The plan of one node."""
    return deployment_and_plan(raw, node, machine)[1]


def deployment_and_plan(
    raw: object, node: str, machine: layout.Host | None = None
) -> tuple[model.Deployment, plan.Plan]:
    """The deployment, and the plan of one of its nodes."""
    d = parse.deployment(raw, catalogue())
    return d, plan.build(d, model.local_node(d, [node]), catalogue(), machine or host())


def rendered(raw: object, node: str, machine: layout.Host | None = None) -> render.Rendered:
    """The files of one node."""
    machine = machine or host()
    return render.render(plan_for(raw, node, machine), machine)


def need_rabbitmq() -> None:
    """Skip a test that needs RabbitMQ where it is not, or fail there when CI runs it."""
    try:
        rabbitmq.find_server()
        rabbitmq.find_ctl()
    except errors.TestbedError as e:
        skip(str(e))


def skip(reason: str) -> typing.NoReturn:
    """Skip here, fail in CI: what a test needs is there, or the test has not run."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


# -- the command line under a temporary root -------------------------------------------------------------------------

STATE = "var/lib/om-agent"  # the agent's own directory, which may change whatever happens

NOVA = "[DEFAULT]\ndebug = true\n# transport_url = rabbit://\n\n[api]\nauth_strategy = keystone\n"
NEUTRON = "[DEFAULT]\ntransport_url = rabbit://guest:old-secret@old:5672/\n[oslo_messaging_rabbit]\nssl = true\n"
SWIFT = "[pipeline:main]\npipeline = ceilometer\n\n[filter:ceilometer]\nurl = rabbit://guest:old-secret@old/\n"


@dataclasses.dataclass(frozen=True)
class Machine:
    """A copy of the agent beside puppet modules that are only names, fake programs, and a root directory."""

    base: pathlib.Path
    python: str = sys.executable

    @property
    def root(self) -> pathlib.Path:
        """What ``--root`` is given."""
        return self.base / "root"

    @property
    def modules(self) -> pathlib.Path:
        """Where the agent looks for puppet's modules first."""
        return self.base / "agent/om_agent/puppet/modules"

    @property
    def bin(self) -> pathlib.Path:
        """Where the fake programs are."""
        return self.base / "bin"

    def mode(self, mode: str) -> None:
        """Say what the fake puppet does from now on."""
        fakes.behave(self.bin, mode)

    def metadata(self, raw: object, name: str = "metadata.json") -> str:
        """Write a file with ``raw`` under the project's key, or with these very bytes."""
        path = self.base / name
        path.write_bytes(raw if isinstance(raw, bytes) else json.dumps({"oslo_messaging": raw}).encode())
        return str(path)

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a run."""
        system = "/usr/sbin:/usr/bin:/sbin:/bin"
        return {
            "PATH": f"{self.bin}:{system}",
            "PYTHONPATH": str(self.base / "agent"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **more,
        }

    def command(self, command: str, *arguments: str) -> list[str]:
        """The arguments of a run."""
        rooted = [] if command in ("validate", "capacity") else ["--root", str(self.root)]
        return [self.python, "-m", "om_agent", command, *rooted, *arguments]

    def start(self, command: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """Start a run and leave it running."""
        pipes: dict[str, typing.Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(self.command(command, *arguments), cwd=self.base, env=self.environment(**more), **pipes)

    def run(self, command: str, *arguments: str, stdin: bytes = b"", **more: str) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        result = subprocess.run(
            self.command(command, *arguments),
            cwd=self.base,
            env=self.environment(**more),
            input=stdin,
            capture_output=True,
            check=False,
            timeout=120,
        )
        out, err = result.stdout.decode(), result.stderr.decode()
        assert "Traceback" not in err and "defect" not in err + out, err
        return subprocess.CompletedProcess(result.args, result.returncode, out, err)

    def puppet_runs(self) -> list[tuple[list[str], dict[str, str]]]:
        """Arguments and environment of each run of puppet."""
        return [(arguments, environment) for _, arguments, environment in fakes.calls(self.bin)]

    def tree(self) -> trees.Tree:
        """The root directory but for the agent's own."""
        return trees.snapshot(self.root, STATE)

    def wait_for_puppet(self) -> None:
        """Until the fake puppet is in the middle of its work."""
        waiting.until((self.bin / "started").exists, 60, lambda: "puppet was not started")


def machine(base: pathlib.Path, python: str = sys.executable) -> Machine:
    """A machine with nova, neutron and swift, in the state in which packages leave it."""
    unwanted = shutil.ignore_patterns("__pycache__", "elements", "puppet")
    shutil.copytree(PACKAGE, base / "agent" / "om_agent", ignore=unwanted)
    made = Machine(base, python)
    for name in ("om_messaging", "stdlib", "inifile"):
        (made.modules / name).mkdir(parents=True)
        (made.modules / name / "metadata.json").write_text("{}")
    made.bin.mkdir()
    fakes.install(made.bin, base / "agent", python)
    for path, content in (
        ("nova/nova.conf", NOVA),
        ("neutron/neutron.conf", NEUTRON),
        ("swift/proxy-server.conf", SWIFT),
    ):
        file = made.root / "etc" / path
        file.parent.mkdir(parents=True)
        file.write_text(content)
        file.chmod(0o644)
    (made.root / STATE).parent.mkdir(parents=True)
    return made
