"""Secrets are in the files meant for them, at their modes, nowhere else: not in any process's arguments or environment,
not in what is said, not in puppet's logs, reports, state or caches, not in what a failed or killed run leaves.

Every run is watched (`tests.security.canary.Watcher`), and then everything below the node's directory, which is its
home, its directory for temporary files and the place of its core files too, is searched.
"""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import dataclasses
import fcntl
import http.server
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import typing

import pytest
from om_agent.apply import puppet as om_puppet

from tests.security import canary, shapes
from tests.support import helpers

HOOKS = helpers.ROOT / "elements/om-agent/os-refresh-config"
PATH = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
# Where secrets belong, and who may read them: the service's group at most.
MEANT = {
    "root/etc/nova/nova.conf": 0o640,
    "root/etc/neutron/neutron.conf": 0o640,
    "root/etc/swift/proxy-server.conf": 0o640,
    "root/etc/om-agent/hieradata/messaging.json": 0o600,
    "root/etc/qpid-dispatch/sasl2/users.sasldb": 0o640,
    "root/etc/qpid-dispatch/tls/key.pem": 0o640,
    "root/etc/qpid-dispatch/mesh/key.pem": 0o640,
    "root/etc/rabbitmq/tls/key.pem": 0o640,
    "root/var/lib/rabbitmq/.erlang.cookie": 0o400,
    "metadata.json": 0o600,
}
# What is there while a run is under way, or was killed.
COPIES = {f"{os.path.dirname(n)}/.{os.path.basename(n)}.om-agent-{s}": 0o600 for n in MEANT for s in ("old", "new")}
SASL = {"root/var/lib/om-agent/sasl/users": 0o600}
OLD = f"[DEFAULT]\ntransport_url = {shapes.OLD}\n"

SEEN: collections.Counter[str] = collections.Counter()
PROCESSES: set[tuple[int, bytes]] = set()


@dataclasses.dataclass(frozen=True)
class Kept:
    """Runs programs and sees that they keep what is secret."""

    base: pathlib.Path
    searcher: canary.Searcher
    environment: dict[str, str]

    @contextlib.contextmanager
    def watched(self, also: typing.Mapping[str, int]) -> collections.abc.Iterator[None]:
        """Look all the time, and at everything in the end.

        :param also: files with a secret that may be left beside those of `MEANT`.
        """
        watcher = canary.Watcher(self.searcher, self.base)
        with watcher:
            yield
        watcher.look()
        assert watcher.found == []
        SEEN["looks"] += watcher.looks
        PROCESSES.update(watcher.processes)
        assert self.searcher.tree(self.base, {**MEANT, **also}) == []

    def start(self, command: typing.Sequence[str], **options: typing.Any) -> subprocess.Popen[bytes]:
        options |= {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        SEEN["commands"] += 1
        options |= {"cwd": self.base / "cwd", "env": self.environment, "preexec_fn": want_cores}
        made: subprocess.Popen[bytes] = subprocess.Popen(list(command), **options)
        return made

    def end(self, process: subprocess.Popen[bytes], stdin: bytes = b"") -> str:
        """Wait for the end; return what was said, which is searched too."""
        said, _ = process.communicate(stdin, timeout=120)
        text = said.decode(errors="replace")
        assert not self.searcher.find(said), self.searcher.find(said)
        assert "Traceback" not in text and "defect" not in text, text
        return text

    def run(
        self,
        command: typing.Sequence[str],
        *codes: int,
        stdin: bytes = b"",
        also: typing.Mapping[str, int] | None = None,
    ) -> str:
        with self.watched(also or {}):
            process = self.start(command)
            said = self.end(process, stdin)
            assert process.returncode in codes, (process.returncode, said)
        return said


def want_cores() -> None:
    """So that a program that crashes may leave one, if nothing forbids it."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


def make(base: pathlib.Path) -> tuple[helpers.Machine, Kept]:
    """A controller with a fake puppet and the passwords of before in its files."""
    machine = helpers.machine(base)
    for name in ("cwd", "tmp", "home"):
        (base / name).mkdir()
    for name, text in {
        "etc/neutron/neutron.conf": OLD,
        "etc/swift/proxy-server.conf": f"[filter:ceilometer]\nurl = {shapes.OLD}\n",
    }.items():
        (machine.root / name).write_text(text)
        (machine.root / name).chmod(0o640)
    metadata(base, shapes.dual())
    more = {"TMPDIR": str(base / "tmp"), "HOME": str(base / "home")}
    raw = shapes.rabbit()
    words = [*shapes.words(), *shapes.derived(raw), *shapes.derived(shapes.routers())]
    return machine, Kept(base, canary.Searcher(*words), machine.environment(**more))


def metadata(base: pathlib.Path, raw: object) -> None:
    path = base / "metadata.json"
    path.touch(0o600)
    path.write_bytes(raw if isinstance(raw, bytes) else json.dumps({"oslo_messaging": raw, **shapes.others()}).encode())


NODE = ["--node", "ctl-0"]
APPLY = ["--metadata", "../metadata.json", *NODE]
LOOKING: list[tuple[str, list[str]]] = [
    ("validate", ["../metadata.json"]),
    ("validate", ["--json", "../metadata.json"]),
    ("plan", ["../metadata.json", *NODE]),
    ("plan", ["--json", "../metadata.json", *NODE]),
    ("topology", ["--format", "dot", "../metadata.json", *NODE]),
    ("capacity", ["../metadata.json"]),
    ("drain", ["--timeout", "0", "../metadata.json", *NODE]),
    ("drain", ["--undo", "../metadata.json", *NODE]),
]


def test_every_command_after_every_success(tmp_path: pathlib.Path) -> None:
    """From one backend to another, so that every file of every backend is made and removed again."""
    machine, kept = make(tmp_path)
    for shape, more in (("dual", ["-v"]), ("rabbit", ["--json"]), ("routers", []), ("external", ["-v"])):
        metadata(tmp_path, shapes.BACKENDS[shape]())
        assert "changes" in kept.run(machine.command("apply", *APPLY, *more), 0)
        kept.run(machine.command("apply", *APPLY, *more), 0)
        for command, arguments in LOOKING if shape == "dual" else ():
            kept.run(machine.command(command, *arguments), 0, 1, 2, 3)
        assert not list(machine.root.rglob("*.om-agent-*")), "no copy is left"
    said = kept.run(machine.command("hook", *NODE), 0, stdin=shapes.heat())
    assert '"deploy_status_code": 3' in said, "applied, and nothing of it runs"


@pytest.mark.parametrize("document", shapes.documents())
def test_apply_of_every_kind_of_document(document: str, tmp_path: pathlib.Path) -> None:
    machine, kept = make(tmp_path)
    metadata(tmp_path, shapes.documents()[document])
    node = [] if document == "hieradata" else NODE
    kept.run(machine.command("apply", "--metadata", "../metadata.json", *node, "-v"), 0)


# -- failures --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def lock_held(machine: helpers.Machine) -> collections.abc.Iterator[None]:
    path = machine.root / helpers.STATE / "lock"
    path.parent.mkdir(exist_ok=True)
    with open(path, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def mounted(where: pathlib.Path, options: str) -> collections.abc.Iterator[None]:
    command = ["mount", "-t", "tmpfs", "-o", options, "om-test", str(where)]
    if os.geteuid() or subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def broken(name: str, machine: helpers.Machine) -> None:
    """Make one thing go wrong."""
    if name in ("fail", "lie"):
        machine.mode(name)
    elif name == "no puppet":
        (machine.bin / "puppet").write_text("#!/nonexistent\n")
    elif name == "no saslpasswd2":
        (machine.bin / "saslpasswd2").write_text("#!/bin/sh\ncat\ncat >&2\nexit 1\n")
    elif name == "saslpasswd2 tells all":
        (machine.bin / "saslpasswd2").write_text("#!/bin/sh\ntee /dev/stderr\nexit 1\n")
    elif name == "puppet tells all":
        said = repr(canary.secret("said"))
        text = f"import sys; print({said}, file=sys.stderr); print({said}); sys.exit(1)"
        (machine.bin / "puppet").write_text(f"#!{sys.executable}\n{text}\n")
        (machine.bin / "puppet").chmod(0o700)
    elif name == "a directory in the way":
        (machine.root / "etc/rabbitmq/definitions.json").mkdir(parents=True)
    elif name == "a hard link":
        os.link(machine.root / "etc/neutron/neutron.conf", machine.root / "etc/neutron/other.conf")
    elif name == "a damaged journal":
        (machine.root / helpers.STATE).mkdir()
        (machine.root / helpers.STATE / "journal.json").write_text("{")


ALSO: dict[str, dict[str, int]] = {
    "puppet tells all": {"bin/puppet": 0o700},
    "a hard link": {"root/etc/neutron/other.conf": 0o640},
}
FAILURES = ["fail", "lie", "no puppet", "no saslpasswd2", "saslpasswd2 tells all", "puppet tells all",
            "a directory in the way", "a hard link", "a damaged journal"]  # fmt: skip


@pytest.mark.parametrize("failure", FAILURES)
def test_every_failure(failure: str, tmp_path: pathlib.Path) -> None:
    machine, kept = make(tmp_path)
    broken(failure, machine)
    also = ALSO.get(failure, {})
    kept.run(machine.command("apply", *APPLY, "-v"), 1, also=also)
    said = kept.run(machine.command("hook", *NODE), 0, stdin=shapes.heat(), also=also)
    assert '"deploy_status_code": 1' in said
    assert not list(machine.root.rglob("*.om-agent-*"))
    SEEN["failures"] += 1


def test_lock_held(tmp_path: pathlib.Path) -> None:
    machine, kept = make(tmp_path)
    with lock_held(machine):
        assert "still holds" in kept.run(machine.command("apply", *APPLY, "--lock-timeout", "0"), 1)
    assert "had not finished" in kept.run(hanging(machine, "--puppet-timeout", "0.5"), 1)


def hanging(machine: helpers.Machine, *more: str) -> list[str]:
    machine.mode("hang")
    (machine.bin / "started").unlink(missing_ok=True)
    return machine.command("apply", *APPLY, *more)


@pytest.mark.parametrize("size", [0, 300, 2000, 4000, 6000])
def test_files_that_cannot_grow(size: int, tmp_path: pathlib.Path) -> None:
    """As a quota or ``ulimit -f`` has it; a write fails in the middle of a file."""
    machine, kept = make(tmp_path)
    code = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}));"
    limited = [sys.executable, "-c", f"{code} os.execv(sys.argv[1], sys.argv[1:])", *machine.command("apply", *APPLY)]
    kept.run(limited, 0, 1)
    assert not list(machine.root.rglob("*.om-agent-*"))


def fill(root: pathlib.Path, pages: int = 0) -> None:
    """Leave so much room and no more."""
    with open(root / "ballast", "wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(4096))
    size = (root / "ballast").stat().st_size
    os.truncate(root / "ballast", max(0, size // 4096 - pages) * 4096)


@pytest.mark.parametrize("pages", [0, 5, 12, 20])
def test_full_disk(pages: int, tmp_path: pathlib.Path) -> None:
    (tmp_path / "root").mkdir()
    with mounted(tmp_path / "root", "size=2m,mode=0755"):
        machine, kept = make(tmp_path)
        fill(machine.root, pages)
        kept.run(machine.command("apply", *APPLY, "-v"), 0, 1)
        assert not list(machine.root.rglob("*.om-agent-*"))
        os.truncate(machine.root / "ballast", 0)
        subprocess.run(["mount", "-o", "remount,ro", str(machine.root)], check=True)
        kept.run(machine.command("apply", *APPLY, "-v"), 0, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGABRT])
def test_ended_while_puppet_runs(number: signal.Signals, tmp_path: pathlib.Path) -> None:
    """Copies are closed to others; what a kill leaves, every command finds, and the next run clears away."""
    machine, kept = make(tmp_path)
    killed = number in (signal.SIGKILL, signal.SIGABRT)
    with kept.watched(COPIES if killed else {}):
        agent = kept.start(hanging(machine))
        machine.wait_for_puppet()
        (puppet,) = children(agent.pid)
        os.kill(agent.pid, number)
        if killed:
            agent.wait()
            os.killpg(puppet, number)
        kept.end(agent)
    assert bool(list(machine.root.rglob("*.om-agent-old"))) == killed
    machine.mode("good")
    if killed:
        for command, arguments in LOOKING[2:]:
            kept.run(machine.command(command, *arguments), 0, 1, 2, 3, also=COPIES)
        metadata(tmp_path, shapes.slips()["YAML, no blank behind the colon"])
        kept.run(machine.command("apply", *APPLY), 2)
        assert shapes.OLD in (machine.root / "etc/neutron/neutron.conf").read_text()
        metadata(tmp_path, shapes.dual())
    kept.run(machine.command("apply", *APPLY), 0)
    assert not list(machine.root.rglob("*.om-agent-*"))


def children(pid: int) -> list[int]:
    return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# -- the real programs -----------------------------------------------------------------------------------------------

TOOLS = ("puppet", "saslpasswd2", "os-collect-config", "os-refresh-config", "dib-run-parts")


def real(base: pathlib.Path) -> tuple[helpers.Machine, Kept]:
    """The same node with the real puppet and saslpasswd2, behind scripts that write down what they were given."""
    lacking = [t for t in TOOLS if not shutil.which(t, path=f"{PATH}:/usr/sbin")]
    modules = om_puppet.module_directories()
    if lacking or any(not any((d / n).is_dir() for d in modules) for n in om_puppet.NEEDS):
        helpers.skip(f"not installed: {', '.join(lacking) or 'puppet modules'}")
    machine, kept = make(base)
    shutil.rmtree(base / "agent")
    for name in ("puppet", "saslpasswd2"):
        before(machine, name, "")
    environment = {**kept.environment, "PATH": f"{machine.bin}:{PATH}", "PYTHONPATH": str(helpers.PACKAGE.parent)}
    return machine, dataclasses.replace(kept, environment={**environment, "LC_ALL": "C", "PYTHONWARNINGS": "ignore"})


def before(machine: helpers.Machine, name: str, script: str) -> None:
    """Let a shell do something, then become the real program."""
    program = shutil.which(name, path=f"{PATH}:/usr/sbin")
    one = f'tr "\\0" "\\n" </proc/$$/{{}} >>{machine.bin}/seen'
    record = "; ".join(one.format(what) for what in ("cmdline", "environ"))
    (machine.bin / name).write_text(f'#!/bin/sh\n{record}\n{script}\nexec "{program}" "$@"\n')


def halfway(machine: helpers.Machine, action: str) -> str:
    """When one file has its new password and another has not: do something."""
    conf = machine.root / "etc/neutron/neutron.conf"
    return f"(until grep -q amqp {conf}; do sleep 0.01; done; {action}) </dev/null >/dev/null 2>&1 &"


@pytest.fixture(scope="module")
def told() -> collections.abc.Iterator[None]:
    """What was looked at is told, since no news could mean that nothing was."""
    yield
    print(f"\n{dict(SEEN)}, {len(PROCESSES)} processes")


def chain(machine: helpers.Machine, kept: Kept) -> typing.Callable[..., str]:
    """os-collect-config, os-refresh-config and our hooks, with what is the metadata by now; returns what runs them."""
    base = kept.base
    local, cache = base / "local-data", base / "cache"  # which has room when the node's disk has none
    local.mkdir(0o700)
    shutil.move(base / "metadata.json", local / "metadata.json")
    cache.mkdir()
    for phase in ("configure.d", "post-configure.d"):
        shutil.copytree(HOOKS / phase, base / "orc" / phase)
    (machine.bin / "om-agent").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m om_agent "$@"\n')
    (machine.bin / "om-agent").chmod(0o755)
    (base / "occ.conf").write_text(
        f"[DEFAULT]\ncommand = os-refresh-config --lockfile {base}/orc.lock --timeout 120\ncollectors = local\n"
        f"cachedir = {cache}\nbackup_cachedir = {base}/backup\n[local]\npath = {local}\n"
    )
    kept.environment.update(
        OS_REFRESH_CONFIG_BASE_DIR=str(base / "orc"), OM_AGENT_ARGS=f"--root {machine.root} --node ctl-0 -v"
    )
    theirs = {f"{d}/*": 0o600 for d in ("cache", "backup", "local-data")}
    command = ["os-collect-config", "--config-file", str(base / "occ.conf"), "--one-time"]
    return lambda *codes: kept.run(command, *codes, also=theirs)


def test_the_real_chain(tmp_path: pathlib.Path, told: None) -> None:
    """os-collect-config, os-refresh-config, our hooks, puppet and saslpasswd2."""
    machine, kept = real(tmp_path)
    said = chain(machine, kept)(0)
    assert "applied" in said, said
    assert passwords(machine.root / "etc/nova/nova.conf") == [canary.secret("rpc"), canary.secret("notify")]
    assert not list(machine.root.rglob("*.om-agent-*"))
    log = (machine.root / helpers.STATE / "puppet/log.jsonl").read_text()
    assert "transport_url" in log and (machine.bin / "seen").read_text().count("saslpasswd2") > 2


class Heat(http.server.BaseHTTPRequestHandler):
    """Takes signals."""

    told: typing.ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        self.told.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def heat() -> collections.abc.Iterator[str]:
    """Heat's address."""
    Heat.told.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Heat) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/signal?Signature={canary.STEM}signature"
        server.shutdown()


# What is said, to Heat too, when the chain fails.
CHAIN_FAILS = {
    "broken input": "rpc.port: ",
    "no puppet": "puppet",
    "puppet fails halfway": "z.conf: the directory",
    "full disk": "the disk is full",
}


@pytest.mark.parametrize("failure", CHAIN_FAILS)
def test_the_real_chain_fails(failure: str, heat: str, tmp_path: pathlib.Path) -> None:
    """With a deployment of Heat's, which is told why; and then heat-config's hook with the same."""
    deployment = json.loads(shapes.heat())
    deployment["inputs"].append({"name": "deploy_signal_id", "value": heat})
    if failure == "broken input":
        wrong = shapes.misplaced()["rpc.port is a text"]
        deployment["config"] = json.dumps({"oslo_messaging": wrong})
    with contextlib.ExitStack() as stack:
        if failure == "full disk":
            (tmp_path / "root").mkdir()
            stack.enter_context(mounted(tmp_path / "root", "size=2m,mode=0755"))
        machine, kept = real(tmp_path)
        metadata(tmp_path, json.dumps({"deployments": [deployment], **shapes.others()}).encode())
        collect = chain(machine, kept)
        if failure == "puppet fails halfway":
            before(machine, "puppet", loses_a_directory(machine))
        elif failure == "full disk":
            fill(machine.root)
        else:
            broken(failure, machine)
        files = {n: (machine.root / n).read_bytes() for n in FILES}
        said = collect(1)
        assert CHAIN_FAILS[failure] in said.lower(), said
        assert len(Heat.told) == 1 and not kept.searcher.find(Heat.told[0]), Heat.told
        assert CHAIN_FAILS[failure] in json.loads(Heat.told[0])["deploy_stderr"].lower()
        assert_as_before(machine, files)
        if failure != "puppet fails halfway":  # `test_real_puppet_fails_halfway` has that
            theirs = {f"{d}/*": 0o600 for d in ("cache", "backup", "local-data")}
            told = kept.run(machine.command("hook", *NODE), 0, stdin=json.dumps(deployment).encode(), also=theirs)
            assert f'"deploy_status_code": {2 if failure == "broken input" else 1}' in told
            assert_as_before(machine, files)
    SEEN["failures"] += 1


def passwords(path: pathlib.Path) -> list[str]:
    """Those that a service finds in its file."""
    cfg, messaging = pytest.importorskip("oslo_config.cfg"), pytest.importorskip("oslo_messaging")
    conf = cfg.ConfigOpts()
    conf.register_opt(cfg.StrOpt("transport_url"))
    conf.register_opt(cfg.StrOpt("transport_url"), group="oslo_messaging_notifications")
    conf(args=[], default_config_files=[str(path)], default_config_dirs=[])
    urls = (conf.transport_url, conf.oslo_messaging_notifications.transport_url)
    return [messaging.TransportURL.parse(cfg.ConfigOpts(), url).hosts[0].password for url in urls]


@pytest.fixture
def failing(tmp_path: pathlib.Path) -> tuple[helpers.Machine, Kept, dict[str, bytes]]:
    machine, kept = real(tmp_path)
    return machine, kept, {n: (machine.root / n).read_bytes() for n in FILES}


FILES = ("etc/neutron/neutron.conf", "etc/swift/proxy-server.conf")
Failing = tuple[helpers.Machine, Kept, dict[str, bytes]]


def assert_as_before(machine: helpers.Machine, files: dict[str, bytes]) -> None:
    assert {n: (machine.root / n).read_bytes() for n in files} == files
    assert not list(machine.root.rglob("*.om-agent-*"))


def loses_a_directory(machine: helpers.Machine) -> str:
    """Give puppet one file more, the last, in a directory that is not there."""
    hieradata = machine.root / "etc/om-agent/hieradata/messaging.json"
    code = (
        f"import json, pathlib; path = pathlib.Path('{hieradata}'); data = json.loads(path.read_text());"
        f"files = data['om_messaging::config_files']; files['{machine.root}/none/z.conf'] = list(files.values())[0];"
        "path.write_text(json.dumps(data))"
    )
    return f'{sys.executable} -c "{code}"'


def test_real_puppet_fails_halfway(failing: Failing) -> None:
    machine, kept, files = failing
    before(machine, "puppet", loses_a_directory(machine))
    with kept.watched({}):
        agent = kept.start(machine.command("hook", *NODE))
        said = kept.end(agent, shapes.heat())
    assert "puppet failed" in said and '"deploy_status_code": 1' in said, said
    assert "z.conf: the directory" in said
    assert_as_before(machine, files)
    before(machine, "puppet", "")
    kept.run(machine.command("apply", *APPLY, "-v"), 0)
    assert not list(machine.root.rglob("*.om-agent-*"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_real_puppet_is_killed_halfway(failing: Failing, number: signal.Signals) -> None:
    machine, kept, files = failing
    before(machine, "puppet", halfway(machine, f"kill -{int(number)} $$"))
    said = kept.run(machine.command("apply", *APPLY, "-v"), 0, 1)
    if "puppet failed" in said:  # else it was through before
        assert_as_before(machine, files)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ended_while_the_real_puppet_works(failing: Failing, number: signal.Signals) -> None:
    machine, kept, files = failing
    before(machine, "puppet", halfway(machine, f"kill -STOP $$; touch {machine.bin}/started"))
    killed = number is signal.SIGKILL
    with kept.watched({**COPIES, **SASL} if killed else {}):
        agent = kept.start(machine.command("apply", *APPLY))
        machine.wait_for_puppet()
        (puppet,) = children(agent.pid)
        os.kill(agent.pid, number)
        if killed:
            agent.wait()
            os.killpg(puppet, signal.SIGKILL)
        kept.end(agent)
    assert bool(list(machine.root.rglob("*.om-agent-old"))) == killed
    metadata(kept.base, b"{}")
    time.sleep(0.1)
    kept.run(machine.command("apply", *APPLY), 2)
    assert_as_before(machine, files)
