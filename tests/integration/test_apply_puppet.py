"""``om-agent apply`` with the real puppet: few runs, because each takes seconds, and many checks of each."""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import typing
import urllib.parse

import pytest
from om_agent import parse
from om_agent.apply import puppet as om_puppet
from om_agent.plan import services, transport_url

from tests.support import helpers

cfg = pytest.importorskip("oslo_config.cfg")
loadwsgi = pytest.importorskip("paste.deploy.loadwsgi")

REPOSITORY = pathlib.Path(__file__).parents[2]
REAL = shutil.which("puppet")
CPU_SECONDS = 0.5  # of a run with nothing to do, the interpreter's start included

pytestmark = pytest.mark.skipif(
    REAL is None or any(not any((d / n).is_dir() for d in om_puppet.module_directories()) for n in om_puppet.NEEDS),
    reason="puppet with the modules stdlib and inifile is not installed",
)

# Whatever ends a value somewhere on its way: URL, JSON, hiera, puppet, ini file, oslo.config, paste, shell.
NASTY = "\ncanary @:/?#%$\"'{}[]\\ %{::hostname} %{literal('x')} ${HOME} $$ %% %(here)s <%= 1 %> ; # ß→𝄞 &= "
NASTY_TOO = "canary2 \t\"' @:?#%$ {}\\n\\ %{} $ é"
NODES = [
    {"name": "ctl-0", "address": "192.0.2.10", "role": "controller"},
    {"name": "ctl-1", "address": "192.0.2.11", "role": "controller"},
    {"name": "cmp-0", "address": "192.0.2.20", "role": "compute"},
]
DUAL: dict[str, typing.Any] = {
    "rpc": {"scheme": "amqp", "tls": False, "username": "rpc user", "password": NASTY, "response_timeout": 90},
    "notify": {"scheme": "rabbit", "username": "notify", "password": NASTY_TOO, "virtual_host": "a/b"},
    "router": {"mesh_password": "canary4 of the mesh"},
    "nodes": NODES,
}
# How long a call waits is no backend's: once written it stays, so both say the same.
RABBIT: dict[str, typing.Any] = {"rpc": {"password": "canary3 of the broker", "response_timeout": 90}, "nodes": NODES}

# Lines as packages and operators leave them; none may get lost or move.
CONF = """\
# {name}.conf
[DEFAULT]

#
# From oslo.messaging
#
# The network address and optional user credentials (string value)
#transport_url = rabbit://
{url}
debug = true
my_ip = 192.0.2.10  # not ours
multi = one
multi = two

[oslo_messaging_rabbit]
# somebody's own choice
rabbit_interval_max = 30

[database]
connection = mysql://{name}:p%40ss$$word@192.0.2.9/{name}
    ?charset=utf8
[keystone_authtoken]
password: colon
"""
PASTE = """\
[pipeline:main]
pipeline = catch_errors ceilometer proxy-server

[filter:ceilometer]
paste.filter_factory = builtins:dict
topic = notifications
url = rabbit://guest:guest@192.0.2.9:5672/
# the end
[app:proxy-server]
paste.app_factory = builtins:dict
"""
OSLO_FILES = {
    "etc/nova/nova.conf": 0o640,
    "etc/neutron/neutron.conf": 0o644,
    "etc/cinder/cinder.conf": 0o600,
    "etc/heat/heat.conf": 0o640,
    "etc/keystone/keystone.conf": 0o640,
    "etc/ironic/ironic.conf": 0o640,
    "etc/glance/glance-api.conf": 0o640,
}
PASTE_FILE = "etc/swift/proxy-server.conf"
NO_RPC = {"etc/keystone/keystone.conf", "etc/glance/glance-api.conf"}
MEANT_FOR_SECRETS = {*OSLO_FILES, PASTE_FILE, "etc/om-agent/hieradata/messaging.json",
                     "etc/qpid-dispatch/sasl2/users.sasldb"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Run:
    """The result of one run of the agent, and its processor time in seconds."""

    code: int
    output: str
    cpu: float


@dataclasses.dataclass(frozen=True)
class Node:
    """A controller's root directory, and a wrapper on PATH that records its calls and runs the real puppet."""

    root: pathlib.Path
    bin: pathlib.Path

    @classmethod
    def make(cls, base: pathlib.Path) -> Node:
        node = cls(base / "root", base / "bin")
        for directory in (*{os.path.dirname(f) for f in (*OSLO_FILES, PASTE_FILE)}, "var/lib"):
            (node.root / directory).mkdir(parents=True)
        node.bin.mkdir()
        node.meddle("", "")
        (node.bin / "puppet").chmod(0o755)
        for name, mode in OSLO_FILES.items():
            old = "" if "heat" in name else "transport_url = rabbit://guest:guest@192.0.2.9/"
            text = CONF.format(name=pathlib.Path(name).stem, url=old)
            (node.root / name).write_bytes((text.replace("\n", "\r\n") if "cinder" in name else text).encode())
            (node.root / name).chmod(mode)
        (node.root / PASTE_FILE).write_text(PASTE)
        return node

    def meddle(self, before: str, after: str) -> None:
        """Run shell commands just before and after the real puppet."""
        lines = [f'echo $$ >>"{self.bin}/calls"', "set -e", before, "set +e", f'"{REAL}" "$@"', "code=$?", after]
        text = "\n".join(["#!/bin/sh", *lines, "exit $code", ""])
        (self.bin / "puppet").write_text(text)

    def calls(self) -> int:
        path = self.bin / "calls"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def apply(self, metadata: dict[str, typing.Any]) -> Run:
        path = self.bin / "metadata.json"
        path.write_text(json.dumps({"oslo_messaging": metadata}))
        options = ["--metadata", str(path), "--root", str(self.root), "--node", "ctl-0", "-v"]
        environment = {
            "PATH": os.pathsep.join([str(self.bin), os.environ["PATH"]]),
            "PYTHONPATH": str(REPOSITORY / "agent"),
            "LC_ALL": "C",  # as a unit of systemd has it
        }
        with open(self.bin / "output", "w+") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "om_agent", "apply", *options],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            return Run(process.returncode, output.read(), usage.ru_utime + usage.ru_stime)

    def services(self) -> dict[str, tuple[int, bytes]]:
        """Return mode and content of every file below etc."""
        paths = [p for p in sorted((self.root / "etc").rglob("*")) if not p.is_dir()]
        return {p.relative_to(self.root).as_posix(): (stat.S_IMODE(p.lstat().st_mode), p.read_bytes()) for p in paths}


@dataclasses.dataclass
class Story:
    """One node through four runs: RabbitMQ alone, then dual, then again, then RabbitMQ alone."""

    node: Node
    pristine: dict[str, tuple[int, bytes]]
    runs: dict[str, Run]
    files: dict[str, dict[str, tuple[int, bytes]]]
    calls: dict[str, int]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    node = Node.make(tmp_path_factory.mktemp("node"))
    told = Story(node, node.services(), {}, {}, {})
    for name, metadata in (("rabbit", RABBIT), ("dual", DUAL), ("again", DUAL), ("back", RABBIT)):
        told.runs[name] = node.apply(metadata)
        assert told.runs[name].code == 0, told.runs[name].output
        told.files[name] = node.services()
        told.calls[name] = node.calls()
        assert_secrets_are_kept(node, told.runs[name])
        if name == "again":
            told.runs["cheap"] = min((node.apply(DUAL) for _ in range(3)), key=lambda run: run.cpu)
    return told


def spellings(secret: str) -> set[bytes]:
    quoted = urllib.parse.quote(secret, safe="")
    json_text = json.dumps(secret, ensure_ascii=False)[1:-1]
    return {s.encode() for s in (secret, quoted, quoted.replace("%", "%%"), json_text, "canary")}


def secrets() -> set[bytes]:
    passwords = (NASTY, NASTY_TOO, RABBIT["rpc"]["password"])
    return set().union(*(spellings(p) for p in passwords))


def assert_secrets_are_kept(node: Node, run: Run) -> None:
    """Check that secrets are in no output, and only in their own files; search puppet's directories too."""
    assert not [s for s in secrets() if s in run.output.encode()]
    for path in node.root.rglob("*"):
        if path.is_file() and not path.is_symlink() and any(s in path.read_bytes() for s in secrets()):
            assert path.relative_to(node.root).as_posix() in MEANT_FOR_SECRETS
            assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0, path


def url_of(metadata: dict[str, typing.Any], half: str) -> str:
    d = parse.deployment(metadata)
    return transport_url.url_of(services.as_seen_from(d, d.by_name()["ctl-0"], getattr(d, half))).reveal()


def write_out(told: Story, run: str, name: str, directory: pathlib.Path) -> pathlib.Path:
    """Return one file as it was after that run."""
    path = directory / pathlib.Path(name).name
    path.write_bytes(told.files[run][name][1])
    return path


def read_with_oslo(path: pathlib.Path) -> typing.Any:
    conf = cfg.ConfigOpts()
    conf.register_opts([cfg.StrOpt("transport_url"), cfg.IntOpt("rpc_response_timeout"), cfg.BoolOpt("debug"),
                        cfg.MultiStrOpt("multi")])  # fmt: skip
    conf.register_opts([cfg.StrOpt("transport_url"), cfg.MultiStrOpt("driver")], "oslo_messaging_notifications")
    conf.register_opts([cfg.StrOpt("sasl_mechanisms"), cfg.StrOpt("sasl_default_realm")], "oslo_messaging_amqp")
    conf.register_opts([cfg.IntOpt("rabbit_interval_max"), cfg.IntOpt("heartbeat_timeout_threshold")],
                       "oslo_messaging_rabbit")  # fmt: skip
    conf.register_opts([cfg.StrOpt("connection")], "database")
    conf([], default_config_files=[str(path)])
    return conf


# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OSLO_FILES)
def test_oslo_config_reads_the_very_values(story: Story, tmp_path: pathlib.Path, name: str) -> None:
    conf = read_with_oslo(write_out(story, "dual", name, tmp_path))
    assert conf.transport_url == url_of(DUAL, "rpc")
    assert conf.rpc_response_timeout == 90
    rpc = any(service.rpc for service in helpers.catalogue().values() if f"/{name}" in service.files[0].path.values())
    assert conf.oslo_messaging_amqp.sasl_mechanisms == ("PLAIN" if rpc else None)
    assert conf.oslo_messaging_amqp.sasl_default_realm is None  # the realm is in the URL
    assert conf.oslo_messaging_notifications.transport_url == url_of(DUAL, "notify")
    assert conf.oslo_messaging_notifications.driver == ["messagingv2"]
    assert conf.oslo_messaging_rabbit.heartbeat_timeout_threshold == 30

    conf = read_with_oslo(write_out(story, "back", name, tmp_path))
    assert conf.transport_url == url_of(RABBIT, "rpc")
    assert conf.rpc_response_timeout == 90
    assert conf.oslo_messaging_amqp.sasl_mechanisms is None


@pytest.mark.parametrize("name", OSLO_FILES)
def test_what_is_not_ours_stays(story: Story, tmp_path: pathlib.Path, name: str) -> None:
    for run in ("rabbit", "dual", "back"):
        conf = read_with_oslo(write_out(story, run, name, tmp_path))
        assert (conf.debug, conf.multi, conf.oslo_messaging_rabbit.rabbit_interval_max) == (True, ["one", "two"], 30)
        assert conf.database.connection.startswith("mysql://")
        lines = iter(story.files[run][name][1].splitlines(keepends=True))
        others = [x for x in story.pristine[name][1].splitlines(keepends=True) if not x.startswith(b"transport_url")]
        missing = [line for line in others if line not in lines]  # `in` an iterator goes on from where it was
        assert missing == []


def test_passwords_come_out_of_the_urls_as_they_went_in(story: Story, tmp_path: pathlib.Path) -> None:
    """Read as oslo.messaging reads them."""
    messaging = pytest.importorskip("oslo_messaging")
    for name in OSLO_FILES:
        conf = read_with_oslo(write_out(story, "dual", name, tmp_path))
        for text, user, password, hosts in (
            (conf.transport_url, "rpc user@overcloud", NASTY, ["192.0.2.10"]),
            (conf.oslo_messaging_notifications.transport_url, "notify", NASTY_TOO, ["192.0.2.10", "192.0.2.11"]),
        ):
            url = messaging.TransportURL.parse(cfg.ConfigOpts(), text)
            assert {(h.username, h.password) for h in url.hosts} == {(user, password)}
            assert [h.hostname for h in url.hosts] == hosts


def test_paste_reads_the_very_values(story: Story, tmp_path: pathlib.Path) -> None:
    path = write_out(story, "dual", PASTE_FILE, tmp_path)
    found = loadwsgi.loadcontext(loadwsgi.FILTER, f"config:{path}", name="ceilometer").config()
    assert found["url"] == url_of(DUAL, "notify")
    assert (found["driver"], found["topic"]) == ("messagingv2", "notifications")


def test_modes(story: Story) -> None:
    """A file keeps its mode, without the permissions of others, because it contains passwords now."""
    for name, mode in {**OSLO_FILES, PASTE_FILE: 0o644}.items():
        assert story.files["dual"][name][0] == mode & ~0o007, name


def test_there_and_back_again_is_byte_for_byte_the_same(story: Story) -> None:
    ours = {n for n in story.files["back"] if n.startswith("etc/qpid-dispatch")}
    assert ours == set(), "the router's files go with the router"
    assert {n for n in story.files["rabbit"] if story.files["rabbit"][n] != story.files["back"].get(n)} == set()
    assert story.files["rabbit"].keys() == story.files["back"].keys()


def test_second_run_changes_nothing_and_starts_no_puppet(story: Story) -> None:
    assert "nothing to do" in story.runs["again"].output
    assert story.files["again"] == story.files["dual"]
    assert story.calls == {"rabbit": 1, "dual": 2, "again": 2, "back": 3}


def test_second_run_is_cheap(story: Story, record_property: collections.abc.Callable[[str, object], None]) -> None:
    record_property("cpu_seconds", story.runs["cheap"].cpu)
    print(f"a run with nothing to do took {story.runs['cheap'].cpu:.3f} s of processor time")
    assert "nothing to do" in story.runs["cheap"].output
    assert story.runs["cheap"].cpu < CPU_SECONDS


def test_puppet_tells_what_it_did(story: Story) -> None:
    told = [line for line in story.runs["dual"].output.splitlines() if line.startswith("  puppet: ")]
    assert [line for line in told if re.search(r"nova\.conf \[DEFAULT\] transport_url\].*changed \[redacted\]", line)]


# -- the real puppet fails -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Node:
    node = Node.make(tmp_path_factory.mktemp("applied"))
    assert node.apply(RABBIT).code == 0
    return node


CONF_PATH = "{root}/etc/neutron/neutron.conf"
FAILURES = {
    "a module goes missing": (
        "rm {root}/var/lib/om-agent/puppet/modules/inifile",
        "",
        r"exit code 1\): .*ini_setting",
    ),
    "a file cannot be written": (
        f"chattr +i {CONF_PATH}",
        f"chattr -i {CONF_PATH}",
        r"exit code [46]\): .*neutron\.conf.*(not permitted|Permission denied)",
    ),
    "a directory is in the way": (
        f"rm {CONF_PATH}; mkdir {CONF_PATH}",
        f"rmdir {CONF_PATH}",
        r"exit code [46]\): .*neutron\.conf is a symbolic link or not a regular file",
    ),
    "the hieradata is damaged": (
        "echo '{{\"canary' >{root}/etc/om-agent/hieradata/messaging.json",
        "",
        r"exit code 1\): \S+/messaging\.json is damaged",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_everything_is_as_it_was(applied: Node, failure: str) -> None:
    before_puppet, after_puppet = (s.format(root=applied.root) for s in FAILURES[failure][:2])
    if "chattr" in before_puppet and os.geteuid() != 0:
        pytest.skip("chattr +i needs root")
    before = applied.services()
    applied.meddle(before_puppet, after_puppet)
    run = applied.apply(DUAL)
    applied.meddle("", "")
    assert run.code == 1, run.output
    assert re.search("as it was before: puppet failed .*" + FAILURES[failure][2], run.output), run.output
    assert "Traceback" not in run.output
    assert applied.services() == before
    assert_secrets_are_kept(applied, run)
    assert "nothing to do" in applied.apply(RABBIT).output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_a_service_exchanges_its_file_for_a_link_in_the_last_moment(applied: Node) -> None:
    """puppet reads, writes and gives away nothing through the link, even after the agent has checked the file."""
    victim = applied.bin / "victim"
    victim.write_text("[DEFAULT]\nsecret = of root alone\n")
    victim.chmod(0o600)
    path, state = applied.root / "etc/nova/nova.conf", victim.stat()
    for own in (path, path.parent):
        os.chown(own, 65534, 65534)
    before = applied.services()
    applied.meddle(f"mv {path} {path}.away; ln -s {victim} {path}", f"rm {path}.away")
    run = applied.apply(DUAL)
    applied.meddle("", "")
    assert run.code == 1 and f"{path} is a symbolic link" in run.output, run.output
    found = victim.stat()
    assert victim.read_text() == "[DEFAULT]\nsecret = of root alone\n"
    assert (found.st_mode, found.st_uid, found.st_gid) == (state.st_mode, state.st_uid, state.st_gid)
    assert applied.services() == before and path.stat().st_uid == 65534
