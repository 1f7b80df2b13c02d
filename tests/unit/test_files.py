"""Either all files change or none, whenever a run is killed.

A run is made to die in a forked child, at every single operation on the file system in turn: an audit hook sees each
of them before it happens, whichever library makes it.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import errno
import fcntl
import functools
import itertools
import json
import os
import pathlib
import signal
import stat
import sys
import time
import typing

import pytest
from om_agent import errors
from om_agent.apply import files, journal, locking, saved_state, transaction

from tests.support import trees

DIED = 77  # exit code of a child that was made to die
FINISHED = 0
# Everything that changes what a directory or a file holds; "open" comes with os.open and once more with os.fdopen.
OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.chmod", "os.chown"}


def snapshot(root: pathlib.Path) -> trees.Tree:
    """Everything below ``root`` but the lock."""
    return trees.snapshot(root, "var/lib/om-agent/lock")


# -- a run that dies -------------------------------------------------------------------------------------------------


def die_at(step: int) -> None:
    """Make this process die just before its ``step``-th operation from now on."""
    seen = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event in OPERATIONS:
            seen += 1
            if seen == step:
                os._exit(DIED)

    def fsync(fd: object) -> None:  # has no audit event; the order is what matters here, not the disk
        count("open", ())

    sys.addaudithook(count)
    os.fsync = fsync


def in_child(work: collections.abc.Callable[[], object], step: int = 0) -> int:
    """Run ``work`` in a child that dies at its ``step``-th operation, 0 for never; return the child's exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            die_at(step)
            work()
            code = FINISHED
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


PATHS = (
    "/etc/om/changed",
    "/etc/om/link",
    "/etc/om/same",
    "/etc/om/removed",
    "/etc/om/new",
    "/etc/made/deep/new",
    "/etc/nova/nova.conf",
    "/etc/nova/made-by-puppet.conf",
    "/var/lib/om-agent/units/router",
    "/var/lib/om-agent/state.json",
)


def make_old(root: pathlib.Path) -> None:
    """Make the old tree: files with various modes, a link to replace, missing directories."""
    for directory in ("etc/om", "etc/nova", "var/lib/om-agent"):
        (root / directory).mkdir(parents=True)
    (root / "var/lib/om-agent").chmod(0o700)
    for name, content, mode in (
        ("etc/om/changed", "old\n", 0o640),
        ("etc/om/same", "same\n", 0o600),
        ("etc/om/removed", "to be removed\n", 0o444),
        ("etc/nova/nova.conf", "[DEFAULT]\ndebug = true\n", 0o604),
    ):
        (root / name).write_text(content)
        (root / name).chmod(mode)
    (root / "etc/om/link").symlink_to("changed")


def edit_in_place(path: pathlib.Path, content: bytes) -> None:
    """Edit a file like puppet: truncate it, write it in two parts, and close it without a sync."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    os.write(descriptor, content[: len(content) // 2])
    os.fsync(descriptor)  # nothing but one more instant to die at
    os.write(descriptor, content[len(content) // 2 :])
    os.close(descriptor)


def put(begun: transaction.Transaction, path: str, content: bytes, mode: int) -> None:
    begun.write(path, content, mode)


def change(root: pathlib.Path) -> None:
    """Do a complete run: finish an interrupted run, then change everything that can change."""
    with locking.lock(root, 0):
        transaction.recover(root)
        begun = transaction.begin(root, PATHS, ["router", "nova-api"])
        put(begun, "/etc/om/changed", b"new\n", 0o600)
        put(begun, "/etc/om/link", b"no link any more\n", 0o644)
        put(begun, "/etc/om/new", b"new too\n", 0o640)
        put(begun, "/etc/made/deep/new", b"deep\n", 0o400)
        begun.remove("/etc/om/removed")
        begun.phase(journal.PUPPET)
        edit_in_place(root / "etc/nova/nova.conf", b"[DEFAULT]\ndebug = true\ntransport_url = rabbit://\n")
        edit_in_place(root / "etc/nova/made-by-puppet.conf", b"[DEFAULT]\ntransport_url = rabbit://\n")
        edit_in_place(root / "var/lib/om-agent/units/router", b"digest\n")
        files.write(
            root / "var/lib/om-agent/state.json", saved_state.dump_state(saved_state.State(("/etc/om/new",))), 0o600
        )
        begun.commit()


def recover(root: pathlib.Path) -> None:
    with locking.lock(root, 0):
        transaction.recover(root)


@dataclasses.dataclass
class Runs:
    """Makes one old tree after the other below a directory, and knows the two that are right."""

    base: pathlib.Path
    count: int = 0

    def __post_init__(self) -> None:
        root = self.make()
        self.old = snapshot(root)
        change(root)
        self.new = snapshot(root)

    def make(self) -> pathlib.Path:
        self.count += 1
        root = self.base / str(self.count)
        make_old(root)
        return root

    def check(self, root: pathlib.Path) -> str:
        """Return which of the two trees exists; fail if it is neither."""
        found = snapshot(root)
        if found == self.new:
            return "new"
        assert found == self.old, trees.differences(found, self.old)
        return "old"


@pytest.fixture
def runs(tmp_path: pathlib.Path) -> Runs:
    return Runs(tmp_path)


def test_trees_differ(runs: Runs) -> None:
    assert runs.old["etc/om/link"][0] == "link"
    assert runs.new["etc/om/link"][0] == "file"
    assert "etc/om/removed" not in runs.new
    assert runs.new["etc/made/deep"][:2] == ("directory", 0o755)
    assert not [name for name in runs.new if "om-agent-" in name or "journal" in name]


def test_death_at_every_step(runs: Runs) -> None:
    outcomes = []
    for step in itertools.count(1):
        root = runs.make()
        code = in_child(functools.partial(change, root), step)
        if code == FINISHED:
            break
        assert code == DIED
        recover(root)
        outcomes.append(runs.check(root))
    assert len(outcomes) > 60
    first_new = outcomes.index("new")
    assert set(outcomes[first_new:]) == {"new"}, "once done, it stays done"


def test_death_at_every_step_and_in_every_step_of_the_recovery(runs: Runs) -> None:
    """The recovery is killed at its first step, begun anew and killed at its second, and so on to its end.

    Every third death of the run will do: between two neighbours little more than a temporary file differs.
    """
    for step in itertools.count(1, 3):
        root = runs.make()
        if in_child(functools.partial(change, root), step) == FINISHED:
            break
        for recovery in itertools.count(1):
            code = in_child(functools.partial(recover, root), recovery)
            assert code in (DIED, FINISHED)
            if code == FINISHED:
                break
        runs.check(root)


def die(*arguments: object, **options: object) -> typing.NoReturn:
    os._exit(DIED)


def change_until(phase: str, root: pathlib.Path) -> None:
    """Die in the last instant of a phase, when its journal is fullest; for a child only."""
    patch = pytest.MonkeyPatch()
    if phase == journal.COMMITTED:
        patch.setattr(transaction, "_clean_up", die)
    else:
        patch.setattr(transaction.Transaction, "commit", die)
    change(root)


@pytest.mark.parametrize(("phase", "wanted"), [(journal.PUPPET, "old"), (journal.COMMITTED, "new")])
def test_recovery_killed_at_each_of_its_steps_alone(runs: Runs, phase: str, wanted: str) -> None:
    for recovery in itertools.count(1):
        root = runs.make()
        assert in_child(functools.partial(change_until, phase, root)) == DIED
        assert json.loads((root / "var/lib/om-agent/journal.json").read_bytes())["phase"] == phase
        code = in_child(functools.partial(recover, root), recovery)
        recover(root)
        assert runs.check(root) == wanted
        if code == FINISHED:
            break
        assert code == DIED


def test_two_runs_that_die_one_after_the_other(runs: Runs) -> None:
    """The second run dies at another step each time, so that most pairs of phases meet."""
    for step in itertools.count(1, 2):
        root = runs.make()
        if in_child(functools.partial(change, root), step) == FINISHED:
            break
        for second in (1 + step * 7 % 40, 30 + step * 11 % 120):
            assert in_child(functools.partial(change, root), second) in (DIED, FINISHED)
        recover(root)
        runs.check(root)
        change(root)
        assert runs.check(root) == "new"


# -- a run that fails ------------------------------------------------------------------------------------------------


class Full:
    """Makes the n-th fsync, and all after it, fail as on a full disk; stands for any failing write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
        self.seen = 0

        def fsync(descriptor: int) -> None:
            self.seen += 1
            if self.seen == step and not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", fsync)


def change_or_put_back(root: pathlib.Path) -> bool:
    """As apply does it: one run, and everything back when it fails; return whether it went through."""
    begin = transaction.begin
    all_begun: list[transaction.Transaction] = []

    def remember(*arguments: typing.Any) -> transaction.Transaction:
        all_begun.append(begin(*arguments))
        return all_begun[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transaction, "begin", remember)
        try:
            change(root)
        except OSError:
            for begun in all_begun:
                begun.roll_back()
            return False
    return True


def test_every_write_fails_once(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same process restores the files, and leaves nothing for the next run."""
    outcomes = set()
    for step in range(1, 80):
        root = runs.make()
        with monkeypatch.context() as patch:
            Full(patch, step)
            whole = change_or_put_back(root)
        assert runs.check(root) == ("new" if whole else "old"), step
        assert transaction.recover(root) is None
        outcomes.add(whole)
    assert outcomes == {True, False}


def test_roll_back_tells_whether_units_may_run_with_what_is_gone(runs: Runs) -> None:
    for phase, began in ((None, False), (journal.PUPPET, True)):
        root = runs.make()
        begun = transaction.begin(root, PATHS, ["router"])
        put(begun, "/etc/om/new", b"", 0o600)
        if phase:
            begun.phase(phase)
        assert begun.roll_back() is began
        assert runs.check(root) == "old"


def test_recover_names_the_units(runs: Runs) -> None:
    assert transaction.recover(runs.make()) is None
    for phase, units in ((None, ()), (journal.PUPPET, ("router", "nova-api"))):
        root = runs.make()
        begun = transaction.begin(root, PATHS, ["router", "nova-api"])
        if phase:
            begun.phase(phase)
        assert transaction.recover(root) == units
        assert runs.check(root) == "old"


def test_times_and_attributes_come_back(runs: Runs) -> None:
    root = runs.make()
    conf = root / "etc/nova/nova.conf"
    os.utime(conf, ns=(10**18, 10**18 + 7))
    with contextlib.suppress(OSError):  # not every file system has them
        os.setxattr(conf, "user.label", b"kept")
    attributes = os.listxattr(conf)
    begun = transaction.begin(root, PATHS, [])
    edit_in_place(conf, b"new")
    begun.roll_back()
    assert conf.stat().st_mtime_ns == 10**18 + 7
    assert os.listxattr(conf) == attributes


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_owners_come_back(runs: Runs) -> None:
    root = runs.make()
    conf = root / "etc/nova/nova.conf"
    os.chown(conf, 1234, 4321)
    conf.chmod(0o2640)
    begun = transaction.begin(root, PATHS, [])
    conf.unlink()
    edit_in_place(conf, b"new")
    begun.roll_back()
    found = conf.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 4321, 0o2640)


def test_what_somebody_else_put_into_a_new_directory_stays(runs: Runs) -> None:
    root = runs.make()
    begun = transaction.begin(root, PATHS, [])
    (root / "etc/made/theirs").write_text("kept")
    begun.roll_back()
    assert sorted(p.name for p in (root / "etc/made").iterdir()) == ["theirs"]


def test_a_directory_in_the_way_is_told_before_anything_is_touched(runs: Runs) -> None:
    root = runs.make()
    (root / "etc/om/new").mkdir()
    before = snapshot(root)
    with pytest.raises(errors.NotReady, match="a directory or device"):
        transaction.begin(root, PATHS, [])
    assert snapshot(root) == before


def test_a_begin_that_fails_leaves_nothing(runs: Runs) -> None:
    root = runs.make()
    (root / "etc/made").symlink_to("nowhere")  # there, and yet nothing can be made below it
    before = snapshot(root)
    with pytest.raises(OSError, match="File exists"):
        transaction.begin(root, PATHS, [])
    assert snapshot(root) == before


def test_what_cannot_be_put_back_is_told_and_tried_again(runs: Runs) -> None:
    """All other files are back by then, and the journal stays until the last one is."""
    root = runs.make()
    conf = root / "etc/nova/nova.conf"
    begun = transaction.begin(root, PATHS, [])
    put(begun, "/etc/om/changed", b"new\n", 0o600)
    conf.unlink()
    (conf / "in the way").mkdir(parents=True)
    with pytest.raises(errors.RollbackFailed, match=r"nova\.conf \(.*run om-agent apply again"):
        begun.roll_back()
    assert (root / "etc/om/changed").read_text() == "old\n"
    with pytest.raises(errors.RollbackFailed):
        transaction.recover(root)
    (conf / "in the way").rmdir()
    conf.rmdir()
    assert transaction.recover(root) == ()
    assert runs.check(root) == "old"


def test_copies_that_cannot_be_thrown_away_are_no_failure(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run has succeeded by then; the next run removes the copies."""
    root = runs.make()

    unlink = pathlib.Path.unlink

    def refuse(path: pathlib.Path) -> None:
        if path.name.endswith("-old"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        unlink(path)

    begun = transaction.begin(root, ["/etc/om/changed"], [])
    put(begun, "/etc/om/changed", b"new\n", 0o600)
    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "unlink", refuse)
        begun.commit()
    assert begun.committed
    assert transaction.recover(root) == ()
    assert (root / "etc/om/changed").read_text() == "new\n"
    assert not list(root.rglob(".*om-agent*"))


def test_a_signal_waits_until_everything_is_back(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM raises KeyboardInterrupt wherever the program is, and that must not be in the middle of this."""
    root = runs.make()
    begun = transaction.begin(root, PATHS, [])
    put(begun, "/etc/om/changed", b"new\n", 0o600)
    replace = os.replace

    def signalled(*arguments: typing.Any) -> None:
        signal.raise_signal(signal.SIGINT)
        replace(*arguments)

    monkeypatch.setattr(os, "replace", signalled)
    with pytest.raises(KeyboardInterrupt):
        begun.roll_back()
    assert runs.check(root) == "old"


def test_files_of_others_are_on_the_disk_before_the_journal_goes(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puppet truncates a file, writes it and does not sync: without this a power loss could leave it empty."""
    root = runs.make()
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    change(root)
    journals = [i for i, path in enumerate(synced) if "journal" in path]
    assert str(root / "etc/nova/nova.conf") in synced[journals[-2] : journals[-1]]


def test_a_root_that_is_mounted_elsewhere_by_then(runs: Runs) -> None:
    """An image is changed below a directory, the run is killed, and the image is booted."""
    root = runs.make()
    begun = transaction.begin(root, PATHS, [])
    put(begun, "/etc/om/changed", b"new\n", 0o600)
    put(begun, "/etc/made/deep/new", b"new\n", 0o600)
    moved = root.rename(root.with_name("moved"))
    assert transaction.recover(moved) == ()
    assert runs.check(moved) == "old"


GOOD = {"phase": "active", "entries": [], "directories": [], "units": []}


def test_a_journal_of_an_earlier_version_is_read_and_written_the_same() -> None:
    """Without the mode, and with it; an older agent may have to read ours, too."""
    entries = [
        {"path": "/etc/a", "copy": True, "link": ""},
        {"path": "/etc/b", "copy": False, "link": "c", "mode": 416},
    ]
    content = json.dumps({"phase": "puppet", "entries": entries, "directories": ["/etc"], "units": ["u"]}).encode()
    found = journal.parse(content)
    assert found and [entry.mode for entry in found.entries] == [None, 416]
    assert found.dump() == content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps({**GOOD, "phase": "later"}).encode(),
        json.dumps({**GOOD, "entries": None}).encode(),
        json.dumps({**GOOD, "entries": [{}]}).encode(),
        json.dumps({**GOOD, "entries": ["/etc/passwd"]}).encode(),
        json.dumps({**GOOD, "entries": [{"path": 5, "copy": False, "link": ""}]}).encode(),
        json.dumps({**GOOD, "entries": [{"path": "/etc/passwd", "copy": None, "link": ""}]}).encode(),
        json.dumps({**GOOD, "entries": [{"path": "/etc/passwd", "copy": True, "link": "", "mode": "x"}]}).encode(),
        json.dumps({**GOOD, "directories": [None]}).encode(),
        json.dumps({k: v for k, v in GOOD.items() if k != "units"}).encode(),
    ],
    ids=lambda content: repr(content[:40]),
)
def test_damaged_journal(runs: Runs, content: bytes) -> None:
    """The agent changes nothing, and the message names the file and the remedy."""
    root = runs.make()
    damaged = root / "var/lib/om-agent/journal.json"
    damaged.write_bytes(content)
    before = snapshot(root)
    with pytest.raises(errors.RollbackFailed) as caught:
        transaction.recover(root)
    assert str(caught.value) == (
        f"{damaged} is damaged, so what an interrupted run left cannot be put back. "
        f"Look for files that end in .om-agent-old next to the configuration files, then remove {damaged}."
    )
    assert snapshot(root) == before


def test_what_a_killed_run_left_in_the_state_directory_goes(runs: Runs) -> None:
    """A journal that never came to be, and SASL databases, which hold passwords."""
    root = runs.make()
    state = root / "var/lib/om-agent"
    (state / ".journal.json.om-agent-new").write_text("{")
    (state / "sasl").mkdir()
    (state / "sasl/users").write_text("password")
    assert transaction.recover(root) is None
    assert runs.check(root) == "old"


# -- single files ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def umask(mask: int) -> collections.abc.Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o400, 0o640, 0o644, 0o600])
def test_write_has_its_mode_whatever_the_umask(tmp_path: pathlib.Path, mask: int, mode: int) -> None:
    path = tmp_path / "file"
    with umask(mask):
        files.write(path, b"content", mode)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_bytes() == b"content"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("mask", [0, 0o077, 0o777])
def test_directories_are_open_to_the_services_whatever_the_umask(runs: Runs, mask: int) -> None:
    root = runs.make()
    with umask(mask):
        begun = transaction.begin(root, ["/etc/made/deep/new"], [])
        put(begun, "/etc/made/deep/new", b"", 0o644)
        begun.commit()
    assert [stat.S_IMODE((root / name).stat().st_mode) for name in ("etc/made", "etc/made/deep")] == [0o755, 0o755]


def test_write_replaces_a_link_and_leaves_its_target(tmp_path: pathlib.Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("kept")
    link.symlink_to(target)
    files.write(link, b"new", 0o600)
    assert not link.is_symlink()
    assert (link.read_bytes(), target.read_text()) == (b"new", "kept")


def test_write_does_not_follow_a_leftover_that_is_a_link(tmp_path: pathlib.Path) -> None:
    """Another user could have put it there to redirect our content."""
    target = tmp_path / "target"
    target.write_text("kept")
    (tmp_path / ".file.om-agent-new").symlink_to(target)
    files.write(tmp_path / "file", b"new", 0o600)
    assert (target.read_text(), (tmp_path / "file").read_bytes()) == ("kept", b"new")
    assert sorted(os.listdir(tmp_path)) == ["file", "target"]


def test_copies_do_not_follow_a_leftover_that_is_a_link(runs: Runs) -> None:
    root = runs.make()
    target = root / "etc/om/same"
    (root / "etc/om/.changed.om-agent-old").symlink_to(target)
    begun = transaction.begin(root, ["/etc/om/changed"], [])
    assert target.read_text() == "same\n"
    begun.roll_back()
    assert runs.check(root) == "old"


def test_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    Full(monkeypatch, 1)
    with pytest.raises(OSError, match="No space left"):
        files.write(path, b"new", 0o600)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_write_onto_a_directory_fails_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(IsADirectoryError):
        files.write(tmp_path / "directory", b"new", 0o600)
    assert os.listdir(tmp_path) == ["directory"]


def test_write_is_durable_before_it_is_seen(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: order.append(os.readlink(f"/proc/self/fd/{fd}")))

    def replace_and_tell(*paths: typing.Any) -> None:
        order.append("replace")
        replace(*paths)

    monkeypatch.setattr(os, "replace", replace_and_tell)
    files.write(tmp_path / "file", b"new", 0o600)
    assert order == [str(tmp_path / ".file.om-agent-new"), "replace", str(tmp_path)]


def test_content_is_never_readable_to_more_than_it_ends_with(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checked at every fsync, when new content is first in a file."""
    root = runs.make()
    (root / "etc/nova/nova.conf").chmod(0o600)
    seen: set[int] = set()

    def look(descriptor: int) -> None:
        for path in root.rglob(".*.om-agent-*"):
            seen.add(stat.S_IMODE(path.stat().st_mode) & 0o077)

    monkeypatch.setattr(os, "fsync", look)
    with umask(0):
        begun = transaction.begin(root, ["/etc/nova/nova.conf", "/etc/om/new"], [])
        put(begun, "/etc/om/new", b"secret", 0o600)
        begun.commit()
    assert seen == {0}


def test_read_takes_regular_files_only(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("content")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    found = {n: files.read(tmp_path / n) for n in ("file", "link", "fifo", "none", "file/below", ".")}
    assert found == {"file": b"content", "link": None, "fifo": None, "none": None, "file/below": None, ".": None}


def test_same(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    files.write(path, b"content", 0o640)
    mine = path.stat()
    found = files.find(tmp_path, "/file")
    assert found.has(b"content", 0o640, None, None)
    assert found.has(b"content", 0o640, mine.st_uid, mine.st_gid)
    assert not found.has(b"content", 0o640, mine.st_uid + 1, None)
    assert not found.has(b"content", 0o640, None, mine.st_gid + 1)
    assert not found.has(b"content", 0o600, None, None)
    assert not found.has(b"other", 0o640, None, None)
    assert not files.find(tmp_path, "/none").has(b"", 0o640, None, None)


# -- state and lock --------------------------------------------------------------------------------------------------


def test_state_comes_back(tmp_path: pathlib.Path) -> None:
    state = saved_state.State(("/etc/a", "/etc/b"), ("router",), {"/etc/sasl": ("fingerprint", "digest")})
    files.state_dir(tmp_path).mkdir(parents=True)
    (files.state_dir(tmp_path) / "state.json").write_bytes(saved_state.dump_state(state))
    assert saved_state.load_state(tmp_path) == state


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"files": 1, "units": [], "sasl": {}}', b"\xff"])
def test_a_state_that_is_not_one_is_told_of(tmp_path: pathlib.Path, content: bytes) -> None:
    """The state names the router or broker that ran here, and this node."""
    files.state_dir(tmp_path).mkdir(parents=True)
    (files.state_dir(tmp_path) / "state.json").write_bytes(content)
    with pytest.raises(errors.NotReady, match=r"state\.json: the agent's record of this node's last apply"):
        saved_state.load_state(tmp_path)
    assert saved_state.load_state(tmp_path / "nowhere") == saved_state.State()


def test_key_is_made_once_and_only_when_asked(tmp_path: pathlib.Path) -> None:
    files.state_dir(tmp_path).mkdir(parents=True)
    assert saved_state.load_key(tmp_path, make=False) != saved_state.load_key(tmp_path, make=False)
    key = saved_state.load_key(tmp_path, make=True)
    assert saved_state.load_key(tmp_path, make=True) == saved_state.load_key(tmp_path, make=False) == key
    assert stat.S_IMODE((files.state_dir(tmp_path) / "key").stat().st_mode) == 0o600


def try_lock(root: pathlib.Path) -> bool:
    with contextlib.suppress(errors.Busy), locking.lock(root, 0):
        return True
    return False


def test_lock_keeps_others_out_and_tells_after_the_timeout(tmp_path: pathlib.Path) -> None:
    with locking.lock(tmp_path, 0):
        begin = time.monotonic()
        with pytest.raises(errors.Busy, match=r"still holds .*/lock after 0 s.*Wait for it to end"):
            locking.lock(tmp_path, 0.3).__enter__()
        assert 0.3 <= time.monotonic() - begin < 5
        assert in_child(lambda: os._exit(42 if try_lock(tmp_path) else 43)) == 43
    assert in_child(lambda: os._exit(42 if try_lock(tmp_path) else 43)) == 42


def test_lock_is_waited_for(tmp_path: pathlib.Path) -> None:
    said, says = os.pipe()
    child = os.fork()
    if child == 0:
        with locking.lock(tmp_path, 0):
            os.write(says, b"x")
            time.sleep(0.3)
        os._exit(0)
    os.read(said, 1)
    with locking.lock(tmp_path, 10):
        pass
    os.waitpid(child, 0)
    os.close(said)
    os.close(says)


def test_a_child_that_inherits_the_lock_keeps_it(tmp_path: pathlib.Path) -> None:
    """In this way a puppet that outlives its agent makes the next agent wait."""
    waits, ends = os.pipe()
    with locking.lock(tmp_path, 0) as descriptor:
        assert fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC, "and no other program inherits it"
        child = os.fork()
        if child == 0:
            os.close(ends)
            os.read(waits, 1)
            os._exit(0)
    assert not try_lock(tmp_path)
    os.close(ends)
    os.close(waits)
    os.waitpid(child, 0)
    assert try_lock(tmp_path)


def test_lock_is_private_and_no_link_is_followed(tmp_path: pathlib.Path) -> None:
    with umask(0), locking.lock(tmp_path, 0):
        pass
    directory = files.state_dir(tmp_path)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "lock").stat().st_mode) == 0o600
    (directory / "lock").unlink()
    (directory / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(errors.ApplyFailed, match="cannot be used"):
        locking.lock(tmp_path, 0).__enter__()
    assert not (tmp_path / "elsewhere").exists()
