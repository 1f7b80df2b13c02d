"""Whatever fails after the first write, this run or the next one restores or completes: the command line as it is, with
a puppet that does what a test wants."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import typing
import urllib.parse

import pytest
from om_agent.apply import puppet

from tests.support import fakes, trees, waiting

REPOSITORY = pathlib.Path(__file__).parents[2]
CONTROLLER, COMPUTE = "overcloud-controller-0", "overcloud-novacompute-0"

pytestmark = pytest.mark.skipif(
    any(not any((d / name).is_dir() for d in puppet.module_directories()) for name in puppet.NEEDS),
    reason="the puppet modules stdlib and inifile are not installed, and the agent looks for them first",
)

# Counts what the agent does below the root, and at one of these operations sends the agent a signal.
HOOK = r"""
import os, sys

root, step, number, total = os.environ["OM_TEST"].split(":")
events = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.chmod", "os.chown"}
seen = 0


def count(event, arguments):
    global seen
    if event not in events or not str(arguments[0]).startswith(root):
        return
    if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        return
    seen += 1
    if seen == int(step):
        os.kill(os.getpid(), int(number))


sys.addaudithook(count)
if total:
    import atexit
    atexit.register(lambda: open(total, "w").write(str(seen)))
"""

RPC, NOTIFY = "canary: rpc p@ss", "canary: nötify 100%"
NODES = [
    {"name": CONTROLLER, "address": "192.0.2.10", "role": "controller"},
    {"name": "overcloud-controller-1", "address": "192.0.2.11", "role": "controller"},
    {"name": COMPUTE, "address": "192.0.2.20", "role": "compute"},
]
DUAL: dict[str, typing.Any] = {
    "rpc": {"scheme": "amqp", "tls": False, "username": "rpc", "password": RPC},
    "notify": {"scheme": "rabbit", "username": "notify", "password": NOTIFY},
    "router": {"mesh_password": "canary: mesh"},
    "nodes": NODES,
}
RABBIT: dict[str, typing.Any] = {"rpc": {"password": RPC}, "nodes": NODES}


def snapshot(root: pathlib.Path) -> trees.Tree:
    """Everything below ``root`` but the agent's own directory and what fills a disk."""
    return trees.snapshot(root, "var/lib/om-agent", "ballast")


@dataclasses.dataclass(frozen=True)
class Run:
    """What one run of the agent left."""

    code: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        return self.stdout + self.stderr


@dataclasses.dataclass(frozen=True)
class Node:
    """A root directory with services, and the programs that the agent finds on PATH."""

    root: pathlib.Path
    bin: pathlib.Path

    @classmethod
    def make(cls, base: pathlib.Path, root: pathlib.Path | None = None) -> Node:
        node = cls(root or base / "root", base / "bin")
        node.bin.mkdir(exist_ok=True)
        fakes.install(node.bin, REPOSITORY / "agent")
        (node.bin / "sitecustomize.py").write_text(HOOK)
        node.fill()
        return node

    def fill(self) -> None:
        """Write the services' files, each with details that an editor easily loses."""
        self.root.mkdir(exist_ok=True)
        for directory in ("etc/nova", "etc/neutron", "etc/swift", "etc/qpid-dispatch", "etc/rabbitmq", "var/lib"):
            (self.root / directory).mkdir(parents=True, exist_ok=True)
        self._file("etc/nova/nova.conf", 0o604, "[DEFAULT]\n# Ours: $my_ip\ndebug = true\n\n[api]\nx = 1\n")
        self._file("etc/neutron/neutron.conf", 0o640, "[DEFAULT]\ntransport_url = rabbit://guest:old@192.0.2.9/\n")
        self._file("etc/swift/proxy-server.conf", 0o600, "[filter:ceilometer]\nuse = egg:x\nurl = rabbit://old/\n")
        self._file("etc/rabbitmq/rabbitmq.conf", 0o444, "# somebody's own\n")
        (self.root / "etc/rabbitmq/enabled_plugins").symlink_to("/nowhere")
        if os.geteuid() == 0:
            os.chown(self.root / "etc/neutron/neutron.conf", 1234, 4321)

    def _file(self, name: str, mode: int, text: str) -> None:
        (self.root / name).write_text(text)
        (self.root / name).chmod(mode)

    def behave(self, how: str) -> None:
        """Set the fake puppet's behaviour from its next start on."""
        fakes.behave(self.bin, how)

    def calls(self) -> list[int]:
        """The process ids of the puppets that were started."""
        return [pid for pid, _, _ in fakes.calls(self.bin)]

    def start(self, metadata: dict[str, typing.Any], *options: str, node: str = CONTROLLER,
              hook: str = "") -> subprocess.Popen[str]:  # fmt: skip
        path = self.bin / "metadata.json"
        path.write_text(json.dumps({"oslo_messaging": metadata}))
        path.chmod(0o600)
        python_path = [str(REPOSITORY / "agent"), *([str(self.bin)] if hook else [])]
        environment = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "PYTHONPATH": os.pathsep.join(python_path),
            "OM_TEST": hook,
            "LC_ALL": "C.UTF-8",
        }
        command = [sys.executable, "-m", "om_agent", "apply", "--metadata", str(path), "--root", str(self.root)]
        return subprocess.Popen(
            [*command, "--node", node, *options],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def apply(self, metadata: dict[str, typing.Any], *options: str, node: str = CONTROLLER, hook: str = "") -> Run:
        return wait(self.start(metadata, *options, node=node, hook=hook))

    def hook(self, step: int, number: int, total: pathlib.Path | str = "") -> str:
        return f"{self.root}:{step}:{number}:{total}"

    def operations(self, metadata: dict[str, typing.Any]) -> int:
        """How many operations below the root a whole run takes."""
        total = self.bin / "total"
        assert self.apply(metadata, hook=self.hook(0, 0, total)).code == 0
        return int(total.read_text())

    def leftovers(self) -> list[str]:
        """Return files that a run must remove before it ends."""
        names = [p.name for p in self.root.rglob("*")]
        return [n for n in names if n.endswith((".om-agent-old", ".om-agent-new")) or n in ("journal.json", "sasl")]


def wait(process: subprocess.Popen[str], seconds: float = 60) -> Run:
    with process:
        try:
            stdout, stderr = process.communicate(timeout=seconds)
        finally:
            process.kill()
    return Run(process.returncode, stdout, stderr)


def runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def spellings(secret: str) -> list[bytes]:
    """Return a secret in each spelling: plain, in a URL, in a paste file, and in JSON."""
    quoted = urllib.parse.quote(secret, safe="")
    return [s.encode() for s in (secret, quoted, quoted.replace("%", "%%"), json.dumps(secret)[1:-1])]


CANARIES = [spelling for secret in (RPC, NOTIFY) for spelling in spellings(secret)]


def assert_tells_no_secret(node: Node, run: Run) -> None:
    """Check that no secret is on the terminal or in the agent's own directory."""
    own = [p for p in (node.root / "var/lib/om-agent").rglob("*") if p.is_file() and not p.is_symlink()]
    for where, content in [("output", run.said.encode()), *((str(p), p.read_bytes()) for p in own)]:
        assert not [c for c in CANARIES if c in content], where


def assert_failed(node: Node, run: Run, before: trees.Tree, sentence: str) -> None:
    """Check the contract of exit code 1: the node is unchanged, and the message explains why."""
    after = snapshot(node.root)
    assert after == before, trees.differences(after, before) + "\n" + run.said
    assert run.code == 1, run.said
    assert re.search(sentence, run.stderr), run.stderr
    assert "Traceback" not in run.said
    assert "defect" not in run.said
    assert node.leftovers() == []
    assert_tells_no_secret(node, run)


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    return Node.make(tmp_path)


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> trees.Tree:
    """The tree of a complete run, with puppet's paths normalized."""
    node = Node.make(tmp_path_factory.mktemp("right"))
    run = node.apply(DUAL)
    assert run.code == 0, run.said
    return neutral(node)


def neutral(node: Node) -> trees.Tree:
    root = str(node.root).encode()
    found = snapshot(node.root)
    return {name: e._replace(content=e.content.replace(root, b"ROOT")) for name, e in found.items()}


def assert_right(node: Node, right: trees.Tree) -> None:
    found = neutral(node)
    assert found == right, trees.differences(found, right)
    assert node.leftovers() == []


# -- all is well -----------------------------------------------------------------------------------------------------


def test_second_run_changes_nothing_and_starts_nothing(node: Node) -> None:
    first = node.apply(DUAL, "-v")
    assert (first.code, "applied" in first.stdout) == (0, True), first.said
    before = {p: p.lstat().st_mtime_ns for p in node.root.rglob("*")}
    second = node.apply(DUAL, "-v")
    assert (second.code, "nothing to do" in second.stdout) == (0, True), second.said
    assert {p: p.lstat().st_mtime_ns for p in node.root.rglob("*")} == before
    assert len(node.calls()) == 1
    for run in (first, second):
        assert_tells_no_secret(node, run)


def test_secrets_are_in_the_files_meant_for_them_alone(node: Node) -> None:
    node.apply(DUAL)
    meant = {"nova.conf", "neutron.conf", "proxy-server.conf", "messaging.json", "users.sasldb"}
    for path in node.root.rglob("*"):
        if path.is_file() and any(c in path.read_bytes() for c in CANARIES):
            assert path.name in meant, path
            assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0, path


def test_puppet_is_told_no_secret(node: Node) -> None:
    """Everyone can read a program's arguments, and the same user its environment."""
    node.apply(DUAL)
    seen = (node.bin / "puppet.calls").read_bytes()
    ((_, arguments, environment),) = fakes.calls(node.bin)
    assert not [c for c in CANARIES if c in seen]
    assert "--detailed-exitcodes" in arguments
    assert "--debug" not in arguments
    assert {n for n in environment if not n.startswith(("LC_", "OM_"))} == {"PATH", "HOME"}


def test_two_agents_at_once(node: Node, right: trees.Tree) -> None:
    """The second agent waits for the first, and then changes nothing."""
    both = [wait(p) for p in (node.start(DUAL), node.start(DUAL))]
    assert [run.code for run in both] == [0, 0], [run.said for run in both]
    assert sorted("nothing to do" in run.stdout for run in both) == [False, True]
    assert len(node.calls()) == 1
    assert_right(node, right)


# -- puppet fails ----------------------------------------------------------------------------------------------------

BEHAVIOURS = [
    ("compile error", r"puppet failed \(exit code 1\): Could not find class"),
    ("exit 4", r"puppet failed \(exit code 4\): change from \[redacted\]"),
    ("exit 6", r"puppet failed \(exit code 6\)"),
    ("half a file", r"puppet failed \(exit code 4\): could not write everything"),
    ("nothing", r"puppet reported success, but this is still to do: .*transport_url"),
    ("nothing and no word", r"puppet failed \(exit code 0\): it gave no reason"),
    ("good code, bad report", r"puppet failed \(exit code 2\)"),
    ("killed", r"puppet failed \(exit code -9\)"),
    ("hangs", r"The agent killed \S*puppet: it had not finished after 1 s"),
]


@pytest.mark.parametrize(("how", "sentence"), BEHAVIOURS, ids=[b[0] for b in BEHAVIOURS])
def test_puppet_fails(node: Node, right: trees.Tree, how: str, sentence: str) -> None:
    """puppet fails at the first apply and at a later change; after it is fixed, apply succeeds."""
    before = snapshot(node.root)
    node.behave(how)
    assert_failed(node, node.apply(DUAL, "-v", "--puppet-timeout", "1"), before, "as it was before: .*" + sentence)

    node.behave("good")
    assert node.apply(RABBIT).code == 0
    before = snapshot(node.root)
    state = (node.root / "var/lib/om-agent/state.json").read_bytes()
    node.behave(how)
    assert_failed(node, node.apply(DUAL, "-v", "--puppet-timeout", "1"), before, sentence)
    assert (node.root / "var/lib/om-agent/state.json").read_bytes() == state
    assert not [pid for pid in node.calls() if runs(pid)]

    node.behave("good")
    assert node.apply(DUAL).code == 0
    assert "nothing to do" in node.apply(DUAL).stdout


def test_puppet_cannot_be_started(node: Node) -> None:
    before = snapshot(node.root)
    (node.bin / "puppet").write_text("#!/nowhere/ruby\n")
    assert_failed(node, node.apply(DUAL), before, "puppet cannot be started: No such file or directory")


def test_saslpasswd_fails(node: Node) -> None:
    """Before anything is written."""
    before = snapshot(node.root)
    (node.bin / "saslpasswd2").write_text('#!/bin/sh\necho secret >"$4"\nexit 3\n')
    assert_failed(node, node.apply(DUAL), before, r'could not add the user "rpc" \(exit code 3\)')
    assert node.calls() == []


def test_a_program_that_puppet_left_behind_does_not_hold_up_the_end(node: Node) -> None:
    """Killing puppet's process group does not reach what has a session of its own and keeps the pipes open."""
    before = snapshot(node.root)
    node.behave("runs setsid sleep 40 & sleep 40")
    begin = time.monotonic()
    assert_failed(node, node.apply(DUAL, "--puppet-timeout", "1"), before, "had not finished after 1 s")
    assert time.monotonic() - begin < 30


def make_immutable(path: pathlib.Path, yes: bool) -> bool:
    """Make the file immutable even for root; return whether that worked."""
    command = ["chattr", "+i" if yes else "-i", str(path)]
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0


@pytest.fixture
def immutable(node: Node) -> collections.abc.Iterator[pathlib.Path]:
    conf = node.root / "etc/neutron/neutron.conf"
    if os.geteuid() != 0 or not make_immutable(conf, True):
        pytest.skip("chattr +i needs root and a file system that knows it")
    make_immutable(conf, False)
    yield conf
    make_immutable(conf, False)


def test_a_file_that_cannot_be_put_back(node: Node, immutable: pathlib.Path, right: trees.Tree) -> None:
    node.behave(f"runs chattr +i {immutable}")
    assert_put_back_later(node, immutable, right, lambda: make_immutable(immutable, False))


def test_a_directory_in_the_place_of_a_file(node: Node, right: trees.Tree) -> None:
    conf = node.root / "etc/neutron/neutron.conf"
    node.behave(f"runs rm {conf}; mkdir -p {conf}/x")
    assert_put_back_later(node, conf, right, lambda: shutil.rmtree(conf))


def assert_put_back_later(
    node: Node, conf: pathlib.Path, right: trees.Tree, mend: collections.abc.Callable[[], object]
) -> None:
    """The other files are restored, the message names this one, and a run after the repair completes."""
    before = snapshot(node.root)
    run = node.apply(DUAL)
    assert run.code == 1
    sentence = rf"Applying failed: puppet failed \(exit code 4\).*could not be put back: {re.escape(str(conf))} \("
    assert re.search(sentence, run.stderr), run.stderr
    after = snapshot(node.root)
    assert {n for n in before if before[n] != after[n]} <= {"etc/neutron/neutron.conf"}
    assert "Traceback" not in run.said
    assert_tells_no_secret(node, run)
    mend()
    node.behave("exit 4")
    assert_failed(node, node.apply(DUAL), before, "exit code 4")
    node.behave("good")
    assert node.apply(DUAL).code == 0
    assert_right(node, right)


# -- the agent dies --------------------------------------------------------------------------------------------------


def test_an_orphaned_puppet_keeps_the_next_agent_waiting(node: Node, right: trees.Tree) -> None:
    """The orphan holds the inherited lock; the next agent restores or completes its edits."""
    go = node.bin / "go"
    node.behave(f"waits for {go}")
    first = node.start(DUAL)
    waiting.until((node.bin / "started").exists)
    first.kill()
    wait(first)
    node.behave("good")

    busy = node.apply(DUAL, "--lock-timeout", "0.3")
    assert busy.code == 1
    assert re.search("Another om-agent, or a puppet that it started, still holds", busy.stderr)

    third = node.start(DUAL)
    time.sleep(0.5)
    assert third.poll() is None, "it waits"
    assert len(node.calls()) == 1
    go.touch()
    run = wait(third)
    assert run.code == 0, run.said
    assert "what an interrupted run left was put right first" in run.stderr
    assert len(node.calls()) == 2
    assert_right(node, right)


def test_an_interrupted_run_is_undone_even_when_the_metadata_is_bad_by_then(node: Node) -> None:
    total = node.operations(DUAL)
    shutil.rmtree(node.root)
    node.fill()
    before = snapshot(node.root)
    assert node.apply(DUAL, hook=node.hook(total * 2 // 3, signal.SIGKILL)).code == -signal.SIGKILL
    assert snapshot(node.root) != before
    run = node.apply({"rpc": {}})
    assert run.code == 2, run.said
    assert snapshot(node.root) == before
    assert node.leftovers() == []


def test_kill_at_chosen_instants(tmp_path: pathlib.Path, right: trees.Tree) -> None:
    """Then puppet fails in the next run, which must be back where it began, and the third completes."""
    node = Node.make(tmp_path)
    before = snapshot(node.root)
    total = node.operations(DUAL)
    assert total > 100
    ended_new = []
    for step in sorted({*range(1, total + 1, total // 18), total - 3, total - 1, total}):
        shutil.rmtree(node.root)
        node.fill()
        node.behave("good")
        assert node.apply(DUAL, hook=node.hook(step, signal.SIGKILL)).code == -signal.SIGKILL, step
        node.behave("exit 4")
        second = node.apply(DUAL)
        if second.code == 0:  # the killed run had come to its end
            ended_new.append(step)
            assert_right(node, right)
        else:
            assert_failed(node, second, before, "exit code 4")
        node.behave("good")
        third = node.apply(DUAL)
        assert third.code == 0, third.said
        assert_right(node, right)
    assert ended_new == [] or min(ended_new) > total * 0.7


def test_kill_at_any_time(tmp_path: pathlib.Path, right: trees.Tree) -> None:
    """Kill at random times, to reach points that no list has; the next run completes."""
    node = Node.make(tmp_path)
    begin = time.monotonic()
    node.apply(DUAL)
    whole = time.monotonic() - begin
    for i in range(12):
        shutil.rmtree(node.root)
        node.fill()
        process = node.start(DUAL)
        time.sleep(whole * (i + 0.5) / 12)
        process.kill()
        wait(process)
        run = node.apply(DUAL)
        assert run.code == 0, run.said
        assert_right(node, right)


# -- the agent is asked to end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_while_puppet_runs(node: Node, number: signal.Signals) -> None:
    """The agent ends puppet too, and restores everything."""
    before = snapshot(node.root)
    node.behave("waits for /nowhere/at/all")
    process = node.start(DUAL)
    waiting.until((node.bin / "started").exists)
    process.send_signal(number)
    assert_failed(node, wait(process, 20), before, "interrupted; the node is as it was before")
    assert not [pid for pid in node.calls() if runs(pid)]


def test_signals_at_chosen_instants(tmp_path: pathlib.Path, right: trees.Tree) -> None:
    """Exit code 1 means that the node is as it was, 0 that it is as it should be; there is nothing between."""
    node = Node.make(tmp_path)
    before = snapshot(node.root)
    total = node.operations(DUAL)
    codes = []
    for i, step in enumerate(sorted({*range(1, total + 1, total // 14), *range(total - 12, total + 1, 3)})):
        shutil.rmtree(node.root)
        node.fill()
        run = node.apply(DUAL, hook=node.hook(step, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)[i % 3]))
        codes.append(run.code)
        if run.code == 0:
            assert_right(node, right)
        else:
            assert_failed(node, run, before, "interrupted; the node is as it was before")
    assert set(codes) == {0, 1}
    assert codes == sorted(codes, reverse=True), "once it is too late, it stays too late"


# -- the disk --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def tmpfs(where: pathlib.Path, size: str) -> collections.abc.Iterator[None]:
    """A file system of its own, for root where mounting is allowed."""
    where.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "om-test", str(where)]
    if os.geteuid() != 0 or subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def leave_free(root: pathlib.Path, pages: int) -> None:
    """Fill the file system up to so many pages of 4 KiB."""
    with open(root / "ballast", "wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(4096))
    size = (root / "ballast").stat().st_size
    os.truncate(root / "ballast", size - size % 4096 - pages * 4096)


def empty(directory: pathlib.Path) -> None:
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def test_full_disk(tmp_path: pathlib.Path, right: trees.Tree) -> None:
    """Really full, with no page left, then one, and so on to enough, so that another write fails each time."""
    with tmpfs(tmp_path / "root", "2m"):
        node = Node.make(tmp_path)
        sentences = set()
        for pages in itertools.count():
            empty(node.root)
            node.fill()
            before = snapshot(node.root)
            leave_free(node.root, pages)
            run = node.apply(DUAL)
            if run.code == 0:
                break
            assert_failed(node, run, before, r"(disk is (not )?full|puppet failed)")
            sentences.add(run.stderr.splitlines()[-1].partition(":")[2][:20])
        assert_right(node, right)
        assert len(sentences) >= 3, sentences


@pytest.mark.parametrize("when", ["runs", "then"])
def test_disk_fills_up_while_puppet_runs(tmp_path: pathlib.Path, right: trees.Tree, when: str) -> None:
    """The disk fills up before puppet's last edits or before the commit. Restoring needs no space."""
    with tmpfs(tmp_path / "root", "2m"):
        node = Node.make(tmp_path)
        before = snapshot(node.root)
        node.behave(f"{when} cat /dev/zero >{node.root}/ballast 2>&-")
        run = node.apply(DUAL)
        assert_failed(node, run, before, "as it was before: (puppet failed|the disk is full)")
        (node.root / "ballast").unlink()
        node.behave("good")
        assert node.apply(DUAL).code == 0
        assert_right(node, right)


def test_disk_becomes_read_only(tmp_path: pathlib.Path, right: trees.Tree) -> None:
    """As after a disk error: nothing can be restored now, but the next run restores everything."""
    with tmpfs(tmp_path / "root/etc", "4m"):
        node = Node.make(tmp_path)
        before = snapshot(node.root)
        node.behave(f"runs mount -o remount,ro {node.root}/etc")
        run = node.apply(DUAL)
        assert run.code == 1
        assert re.search(r"could not be put back: .*Read-only file system.*run om-agent apply again", run.stderr)
        assert "Traceback" not in run.said
        assert_tells_no_secret(node, run)
        still = node.apply(DUAL)
        assert (still.code, "could not be put back" in still.stderr) == (1, True), still.said

        subprocess.run(["mount", "-o", "remount,rw", str(node.root / "etc")], check=True)
        node.behave("exit 4")
        assert_failed(node, node.apply(DUAL), before, "exit code 4")
        node.behave("good")
        assert node.apply(DUAL).code == 0
        assert_right(node, right)


def test_disk_is_read_only_from_the_start(tmp_path: pathlib.Path) -> None:
    with tmpfs(tmp_path / "root", "4m"):
        node = Node.make(tmp_path)
        before = snapshot(node.root)
        subprocess.run(["mount", "-o", "remount,ro", str(node.root)], check=True)
        assert_failed(node, node.apply(DUAL), before, "var/lib/om-agent cannot be used: Read-only file system")
