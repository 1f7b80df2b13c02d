"""The puppet module, run by the real puppet against files under a temporary directory."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
from typing import Any, Optional

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
MODULE = REPOSITORY / "puppet" / "modules" / "om_messaging"
DEPENDENCIES = pathlib.Path(os.environ.get("OM_PUPPET_MODULES", "/usr/share/puppet/modules"))
PUPPET_DIRS = ("confdir", "vardir", "publicdir", "rundir", "logdir")
NOTHING_CHANGED, CHANGED, FAILED, CHANGED_AND_FAILED = 0, 2, 4, 6
COMPILE_ERROR = 1

# Puppet's own systemd provider refuses to work where systemd is not process 1; what derives from it does not, and
# finds the fake systemctl on PATH. Only the agent run mode keeps a transaction store; here every run does.
PROVIDER = """
Puppet::Type.type(:service).provide(:om_fake, parent: :systemd) do
  def self.specificity
    -1
  end
end
Puppet::Transaction::Persistence.define_method(:enabled?) { |_catalog| true }
"""
SYSTEMCTL = """#!/bin/sh
for unit; do :; done
echo "$1 $unit" >>'{base}/log'
case $1 in
is-active) test -e "{base}/running/$unit" || exit 3 ;;
is-enabled) test -e "{base}/enabled/$unit" && echo enabled || {{ echo disabled; exit 1; }} ;;
enable) : >"{base}/enabled/$unit" ;;
start | restart) test ! -e "{base}/broken/$unit" && : >"{base}/running/$unit" ;;
stop) rm -f "{base}/running/$unit" ;;
show) echo NeedDaemonReload=no ;;
esac
"""

Settings = dict[str, dict[str, Optional[str]]]


def hiera_escape(value: str) -> str:
    return value.replace("%{", "%{literal('%')}{")


def mode(path: pathlib.Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@dataclasses.dataclass(frozen=True)
class Run:
    code: int
    output: str


@dataclasses.dataclass(frozen=True)
class Sandbox:
    """An isolated puppet: it reads nothing outside `root` except the module and its dependencies."""

    root: pathlib.Path

    @classmethod
    def make(cls, root: pathlib.Path) -> Sandbox:
        sandbox = cls(root)
        for name in ("modules", "data", "etc", "units", "systemd/running", "systemd/enabled", "systemd/broken"):
            (root / name).mkdir(parents=True)
        for module in (MODULE, DEPENDENCIES / "stdlib", DEPENDENCIES / "inifile"):
            (root / "modules" / module.name).symlink_to(module.resolve())
        levels = [{"name": name, "path": f"{name}.json"} for name in ("secrets", "messaging")]
        defaults = {"datadir": str(root / "data"), "data_hash": "json_data"}
        (root / "hiera.yaml").write_text(json.dumps({"version": 5, "defaults": defaults, "hierarchy": levels}))
        sandbox.install_systemd()
        return sandbox

    def install_systemd(self) -> None:
        systemctl = self.root / "systemd" / "systemctl"
        systemctl.write_text(SYSTEMCTL.format(base=systemctl.parent))
        systemctl.chmod(0o755)
        provider = self.root / "modules" / "fake" / "lib" / "puppet" / "provider" / "service" / "om_fake.rb"
        provider.parent.mkdir(parents=True)
        provider.write_text(PROVIDER)

    def data(self, level: str = "messaging", **parameters: Any) -> None:
        content = {f"om_messaging::{name}": value for name, value in parameters.items()}
        (self.root / "data" / f"{level}.json").write_text(json.dumps(content), encoding="utf-8")

    def conf(self, name: str, content: bytes | None = None) -> pathlib.Path:
        path = self.root / "etc" / name
        if content is not None:
            path.write_bytes(content)
        return path

    def apply(self, *options: str, manifest: str = "include om_messaging", reports: str = "none") -> Run:
        directories = [word for name in PUPPET_DIRS for word in (f"--{name}", str(self.root / "puppet" / name))]
        command = ["puppet", "apply", "--detailed-exitcodes", "--color", "false", "--reports", reports]
        command += ["--modulepath", str(self.root / "modules"), "--hiera_config", str(self.root / "hiera.yaml")]
        command += directories + self.identity() + list(options) + ["-e", manifest]
        # Like a unit of systemd, which has no locale.
        path = os.pathsep.join([str(self.root / "systemd"), os.environ["PATH"]])
        environment = {"PATH": path, "HOME": str(self.root), "LC_ALL": "C"}
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False
        )
        return Run(done.returncode, done.stdout.decode("utf-8", "replace"))

    def identity(self) -> list[str]:
        return ["--user", "root", "--group", "root"] if os.geteuid() == 0 else []

    def running(self, *units: str) -> None:
        for unit in units:
            (self.root / "systemd" / "running" / unit).touch()

    def changes(self) -> list[str]:
        """Return the changes that systemctl was asked for since the last call, in order."""
        log = self.root / "systemd" / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line for line in lines if line.split()[0] not in ("is-active", "is-enabled", "show")]


@pytest.fixture
def sandbox(tmp_path: pathlib.Path) -> Sandbox:
    missing = [tool for tool in ("puppet",) if shutil.which(tool) is None]
    missing += [name for name in ("stdlib", "inifile") if not (DEPENDENCIES / name).is_dir()]
    if missing and "CI" in os.environ:
        pytest.fail(f"missing: {', '.join(missing)}")
    if missing:
        pytest.skip(f"missing: {', '.join(missing)}")
    return Sandbox.make(tmp_path)


NASTY = "@:/?#%$\"'{}\\ %{literal} [x] ; = äé☃"
# With blanks at the end of a line, which an editor would take away here.
NOVA = b"""\
# Nova, caf\xe9 in latin 1
[DEFAULT]
debug = true
#transport_url = rabbit://
rpc_backend = rabbit
  and what follows it

[oslo_messaging_notifications]
driver=noop
driver=log@@@

# the last section
[vnc]
enabled: false
""".replace(b"@", b" ")
NOVA_WANTED = """\
[DEFAULT]
debug = true
#transport_url = rabbit://
transport_url = {nasty}

[oslo_messaging_notifications]
driver=messagingv2{blanks}

# the last section
[vnc]
enabled: true

[oslo_messaging_rabbit]
ssl ={blank}
heartbeat_rate = 3
"""


def nova_settings() -> Settings:
    return {
        "DEFAULT": {"transport_url": hiera_escape(NASTY), "rpc_backend": None, "never_there": None},
        "oslo_messaging_notifications": {"driver": "messagingv2"},
        "vnc": {"enabled": "true"},
        "oslo_messaging_rabbit": {"ssl": ""},
        "absent_section": {"x": None},
    }


def test_under_the_defaults_of_puppet_8(sandbox: Sandbox) -> None:
    """Puppet 7 has these defaults as options. The run prints no deprecation warning."""
    sandbox.conf("nova.conf", NOVA)
    sandbox.data(config_files={str(sandbox.conf("nova.conf")): {"settings": nova_settings()}}, manage_service=False)
    run = sandbox.apply("--strict=error", "--strict_variables", "--noop")
    assert run.code == NOTHING_CHANGED, run.output
    assert not re.search("(?i)warning|deprecat|legacy fact", run.output), run.output
    questionable = sandbox.apply("--strict=error", "--strict_variables", manifest="notice($never_set)")
    assert questionable.code == COMPILE_ERROR, questionable.output


def test_edits_only_its_keys_and_then_nothing(sandbox: Sandbox) -> None:
    nova = sandbox.conf("nova.conf", NOVA)
    nova.chmod(0o604)
    if os.geteuid() == 0:
        os.chown(nova, 65534, 65534)
    before = nova.stat()
    settings: Settings = {"a": {"k": "w"}}
    sandbox.data(
        manage_service=False,
        config_files={
            str(nova): {"settings": nova_settings(), "units": ["nova-compute"]},
            str(sandbox.conf("new.conf")): {"settings": settings},
            str(sandbox.conf("closed.conf")): {"settings": settings, "mode": "0600"},
            str(sandbox.conf("unwanted.conf")): {"settings": {"a": {"k": None}}, "mode": "0600"},
        },
    )
    sandbox.data("secrets", config_files={str(nova): {"settings": {"oslo_messaging_rabbit": {"heartbeat_rate": "3"}}}})

    # The last resource is somebody else's, and must not meet this module's provider.
    theirs = sandbox.conf("stock")
    stock = f"ini_setting {{ 'stock': path => '{theirs}', section => 'a', setting => 'k', value => 'v' }}"
    first = sandbox.apply(manifest=f"include om_messaging {stock}")
    assert first.code == CHANGED, first.output
    assert "Warning" not in first.output
    after = nova.stat()
    assert nova.read_bytes().split(b"\n", 1)[0] == NOVA.split(b"\n", 1)[0]
    assert nova.read_bytes().split(b"\n", 1)[1].decode() == NOVA_WANTED.format(nasty=NASTY, blank=" ", blanks="   ")
    assert (after.st_ino, after.st_mode, after.st_uid) == (before.st_ino, before.st_mode, before.st_uid)
    assert sandbox.conf("new.conf").read_bytes() == b"[a]\nk = w\n"
    assert mode(sandbox.conf("new.conf")) == 0o640 and mode(sandbox.conf("closed.conf")) == 0o600
    assert not sandbox.conf("unwanted.conf").exists()
    assert mode(sandbox.conf("stock")) == 0o644
    assert sandbox.changes() == [] and not list((sandbox.root / "units").iterdir())

    times = {path: path.stat().st_mtime_ns for path in sandbox.conf(".").iterdir()}
    second = sandbox.apply()
    assert second.code == NOTHING_CHANGED, second.output
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_links_are_refused(sandbox: Sandbox) -> None:
    """Otherwise the owner of the directory would get the file to which the link leads."""
    victim = sandbox.root / "victim"
    victim.write_bytes(b"[a]\nk = secret\n")
    victim.chmod(0o600)
    paths = [sandbox.conf(name) for name in ("link.conf", "dangling.conf", "hard.conf", "bare.conf")]
    paths[0].symlink_to(victim)
    paths[1].symlink_to(sandbox.root / "made")
    os.link(victim, paths[2])
    paths[3].symlink_to(victim)
    file = {"settings": {"a": {"k": "w"}}, "owner": "65534", "mode": "0644"}
    bare = {"settings": {"a": {"k": None}}}
    before = victim.stat()
    sandbox.data(manage_service=False, config_files={str(p): bare if p == paths[3] else file for p in paths})
    run = sandbox.apply()
    assert run.code == FAILED, run.output
    assert all(f"{path} is a symbolic link" in run.output for path in (paths[0], paths[1], paths[3]))
    assert f"{paths[2]} has 2 names (hard links)" in run.output
    after = victim.stat()
    assert victim.read_bytes() == b"[a]\nk = secret\n" and not (sandbox.root / "made").exists()
    assert (after.st_uid, after.st_mode, after.st_mtime_ns) == (before.st_uid, before.st_mode, before.st_mtime_ns)


def test_owner_group_and_mode(sandbox: Sandbox) -> None:
    old, new = sandbox.conf("old.conf", b""), sandbox.conf("new.conf")
    own = {"owner": str(os.geteuid()), "group": str(os.getegid())}
    given = {"owner": "nobody", "group": "65534"} if os.geteuid() == 0 else own
    files = {str(path): {"settings": {"a": {"k": "v"}}, "mode": "u=rw,g=r,o=", **given} for path in (old, new)}
    sandbox.data(manage_service=False, config_files=files)
    first = sandbox.apply()
    assert first.code == CHANGED, first.output
    for path in (old, new):
        state = path.stat()
        assert mode(path) == 0o640 and (given is own or (state.st_uid, state.st_gid) == (65534, 65534))
    assert sandbox.apply().code == NOTHING_CHANGED
    files[str(old)]["owner"] = "no-such-user"
    sandbox.data(manage_service=False, config_files=files)
    run = sandbox.apply()
    assert run.code == FAILED and "the user no-such-user does not exist" in run.output


ORIGINALS = {
    "empty": b"",
    "plain": b"[DEFAULT]\ndebug = true\n",
    "no-newline-at-end": b"[DEFAULT]\ndebug = true\n\n[vnc]\nx = 1",
    "blank-lines-at-end": b"[DEFAULT]\ndebug = true\n\n\n\n",
    "examples": b"[DEFAULT]\n\n#transport_url = rabbit://\n\n[oslo_messaging_rabbit]\n#ssl = false\n\n[oslo_policy]\n",
    "other-keys": b"[oslo_messaging_amqp]\ntrace = 1\n[oslo_messaging_rabbit]\nssl_version = 1\n\n\n[vnc]\nx = 1\n",
    "same-section-twice": b"[DEFAULT]\na = 1\n[vnc]\nx = 1\n[DEFAULT]\nb = 2\n",
    "blank-sections": b"[DEFAULT]\n\n[Oslo_Messaging_AMQP]\n\n[oslo_messaging_rabbit]\n# none\n\n[vnc]\n",
    "windows": b"[DEFAULT]\r\na = 1\r\n",
}
RABBIT: Settings = {
    "DEFAULT": {"transport_url": "rabbit://a/", "rpc_response_timeout": "60"},
    "oslo_messaging_rabbit": {"ssl": "true", "heartbeat_rate": "3"},
    "oslo_messaging_amqp": {"sasl_mechanisms": None, "idle_timeout": None},
    "oslo_messaging_notifications": {"transport_url": None, "driver": "messagingv2"},
}
AMQP: Settings = {
    "DEFAULT": {"transport_url": "amqp://b/", "rpc_response_timeout": "60"},
    "oslo_messaging_rabbit": {"ssl": None, "heartbeat_rate": None},
    "oslo_messaging_amqp": {"sasl_mechanisms": "PLAIN", "idle_timeout": "30"},
    "oslo_messaging_notifications": {"transport_url": "rabbit://a/", "driver": "messagingv2"},
}
NEITHER: Settings = {section: dict.fromkeys(keys) for section, keys in AMQP.items()}


@pytest.mark.slow
def test_switching_gives_the_same_bytes_back(sandbox: Sandbox) -> None:
    paths = {name: sandbox.conf(name, content) for name, content in ORIGINALS.items()}

    def switch(settings: Settings) -> dict[str, bytes]:
        files = {}
        for name, path in paths.items():
            present = ORIGINALS[name].decode().lower()
            added = [section for section in settings if f"[{section}]".lower() not in present]
            files[str(path)] = {"settings": settings, "removable_sections": added}
        sandbox.data(config_files=files)
        run = sandbox.apply()
        assert run.code == CHANGED, run.output
        return {name: path.read_bytes() for name, path in paths.items()}

    rabbit = switch(RABBIT)
    amqp = switch(AMQP)
    assert rabbit["plain"] == (
        b"[DEFAULT]\ndebug = true\ntransport_url = rabbit://a/\nrpc_response_timeout = 60\n\n"
        b"[oslo_messaging_notifications]\ndriver = messagingv2\n\n"
        b"[oslo_messaging_rabbit]\nssl = true\nheartbeat_rate = 3\n"
    )
    assert all(b"amqp://b/" in content and b"heartbeat_rate" not in content for content in amqp.values())
    assert switch(RABBIT) == rabbit
    assert switch(AMQP) == amqp
    assert switch(NEITHER) == ORIGINALS


def test_missing_directory_fails_before_any_unit_is_touched(sandbox: Sandbox) -> None:
    sandbox.running("nova-compute", "neutron-server", "qdrouterd")
    missing = sandbox.root / "etc" / "nova" / "nova.conf"
    present = sandbox.conf("neutron.conf")
    settings: Settings = {"DEFAULT": {"transport_url": "amqp://x/"}}
    sandbox.data(
        service_provider="om_fake",
        state_dir=str(sandbox.root / "units"),
        units={"qdrouterd": {"config_digest": "0" * 64}},
        config_files={
            str(missing): {"settings": settings, "units": ["nova-compute"]},
            str(present): {"settings": settings, "units": ["neutron-server"]},
        },
    )
    run = sandbox.apply()
    assert run.code == CHANGED_AND_FAILED, run.output
    assert f"cannot create {missing}: the directory {missing.parent} does not exist" in run.output
    assert present.exists() and not missing.parent.exists()
    assert sandbox.changes() == []


def leaks(sandbox: Sandbox, output: str) -> list[str]:
    files = [path for path in (sandbox.root / "puppet").rglob("*") if path.is_file()]
    found = [str(path) for path in files if b"canary" in path.read_bytes() or "canary" in path.name]
    return found + [line for line in output.splitlines() if "canary" in line]


@pytest.mark.slow
def test_no_secret_leaves_the_configuration_files(sandbox: Sandbox) -> None:
    nova = sandbox.conf("nova.conf", b"[DEFAULT]\ntransport_url = canary-before\nremoved = canary-removed\n")
    new = sandbox.conf("new.conf")
    settings: Settings = {"DEFAULT": {"transport_url": "canary-first", "added": "canary-added", "removed": None}}

    def run(expected: int, transport_url: str, *options: str) -> str:
        settings["DEFAULT"]["transport_url"] = transport_url
        file = {"settings": settings, "mode": "0640", "units": ["nova-api"]}
        sandbox.data(config_files={str(nova): file, str(new): file}, service_provider="om_fake")
        options = ("--verbose", "--show_diff", "--write-catalog-summary", *options)
        done = sandbox.apply(*options, reports="store,log")
        assert done.code == expected, done.output
        # Now, since the next report within the same minute replaces this one.
        assert leaks(sandbox, done.output) == []
        return done.output

    run(NOTHING_CHANGED, "canary-first", "--noop")
    assert b"canary-before" in nova.read_bytes() and not new.exists()
    run(CHANGED, "canary-first")
    assert b"canary-first" in nova.read_bytes() and b"canary-removed" not in nova.read_bytes()
    new.unlink()
    new.mkdir()
    run(CHANGED_AND_FAILED, "canary-second")
    assert b"canary-second" in nova.read_bytes()
    assert "config_files" in run(COMPILE_ERROR, "canary-refused\nbecause of its second line")

    # Puppet did leave its traces, so that the search means something.
    traces = {path.name for path in (sandbox.root / "puppet").rglob("*") if path.is_file()}
    assert {"last_run_report.yaml", "last_run_summary.yaml", "transactionstore.yaml", "resources.txt"} <= traces
    assert list((sandbox.root / "puppet" / "vardir" / "reports").rglob("*.yaml"))


@pytest.mark.slow
def test_restarts_each_running_unit_once_and_in_order(sandbox: Sandbox) -> None:
    nova, neutron = sandbox.conf("nova.conf"), sandbox.conf("neutron.conf")
    state = sandbox.root / "units" / "stamps"
    sandbox.running("qdrouterd", "rabbitmq-server", "nova-compute@1", "neutron-server")
    settings: Settings = {"DEFAULT": {"transport_url": "amqp://x/", "rpc_response_timeout": "60"}}
    units: dict[str, dict[str, Any]] = {
        "qdrouterd": {"config_digest": "0" * 64},
        "rabbitmq-server": {"ensure": "running", "config_digest": "1" * 64},
        "router-new": {"ensure": "running", "enable": True, "config_digest": "2" * 64},
        "router-off": {"config_digest": "3" * 64},
    }

    def run(expected: int) -> list[str]:
        files = {
            str(nova): {"settings": settings, "units": ["nova-compute@1", "nova-api", "qdrouterd"]},
            str(neutron): {"settings": settings, "units": ["neutron-server", "nova-compute@1"]},
        }
        sandbox.data(config_files=files, units=units, state_dir=str(state), service_provider="om_fake")
        done = sandbox.apply()
        assert done.code == expected, done.output
        return sandbox.changes()

    # nova-api and router-off do not run and stay so; router-new is started, not also restarted.
    first = run(CHANGED)
    routers = ["restart qdrouterd", "restart rabbitmq-server", "start router-new"]
    services = ["restart neutron-server", "restart nova-compute@1"]
    acts = [change for change in first if re.match("(re)?start |stop ", change)]
    assert sorted(acts[:3]) == routers and sorted(acts[3:]) == services
    assert [change for change in first if change.startswith("enable")] == ["enable router-new"]
    assert {path.name: path.read_text() for path in state.iterdir()} == {
        name: f"{unit['config_digest']}\n" for name, unit in units.items()
    }
    assert mode(state) == 0o700 and {mode(path) for path in state.iterdir()} == {0o600}

    assert run(NOTHING_CHANGED) == []

    units["rabbitmq-server"]["config_digest"] = "a" * 64
    assert run(CHANGED) == ["restart rabbitmq-server"]

    units["qdrouterd"]["config_digest"] = "b" * 64
    settings["DEFAULT"] = {"transport_url": "amqp://y/", "rpc_response_timeout": None}
    both = run(CHANGED)
    assert both[0] == "restart qdrouterd" and sorted(both[1:]) == services

    # Services stay with the connections they have when the router did not come back.
    (sandbox.root / "systemd" / "broken" / "qdrouterd").touch()
    settings["DEFAULT"]["transport_url"] = "amqp://z/"
    assert run(CHANGED_AND_FAILED) == ["restart qdrouterd"]
