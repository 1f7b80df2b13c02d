"""Whatever another user put in the way: nothing is followed or written outside, nothing is left open, and every
refusal is a sentence that names what to mend."""

from __future__ import annotations

import collections.abc
import errno
import os
import pathlib
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import typing

import pytest
from om_agent import errors
from om_agent.apply import access, copies, locking, transaction

from tests.security import canary, shapes
from tests.support import helpers, trees

MALLORY = 65534
ROOT = os.geteuid() == 0
SEARCHER = canary.Searcher(*shapes.words())
CONTROLLER = [
    "etc/qpid-dispatch/qdrouterd.json",
    "etc/qpid-dispatch/sasl2/users.sasldb",
    "etc/qpid-dispatch/tls/key.pem",
    "etc/rabbitmq/definitions.json",
    "etc/om-agent/hieradata/messaging.json",
    "etc/om-agent/hiera.yaml",
    "var/lib/rabbitmq/.erlang.cookie",
    "var/lib/om-agent/state.json",
]
SERVICES = ["etc/nova/nova.conf", "etc/swift/proxy-server.conf"]
OWN = "var/lib/om-agent"


class Node(helpers.Machine):
    """A controller, and a directory outside of it in which nothing may change."""

    @property
    def outside(self) -> pathlib.Path:
        return self.base / "outside"

    def apply(self, *more: str, **options: typing.Any) -> subprocess.CompletedProcess[str]:
        path = self.metadata(shapes.dual())
        os.chmod(path, 0o600)
        return subprocess.run(
            self.command("apply", "--metadata", path, "--node", "ctl-0", "--lock-timeout", "0", *more),
            cwd=self.base,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            **options,
        )

    def refused(self, said: str) -> None:
        """Apply, and see that it is refused with a sentence, and that nothing at all was touched."""
        before = trees.snapshot(self.root, OWN), trees.snapshot(self.outside)
        result = self.apply()
        told = result.stdout + result.stderr
        assert result.returncode == 1 and said in told, told
        assert "Traceback" not in told and "defect" not in told, told
        assert (trees.snapshot(self.root, OWN), trees.snapshot(self.outside)) == before
        assert not SEARCHER.find(told)

    def applied(self) -> None:
        """Apply, and see that it succeeds and that nothing outside changed or is left open."""
        before = trees.snapshot(self.outside)
        result = self.apply()
        told = result.stdout + result.stderr
        assert result.returncode == 0, told
        assert trees.snapshot(self.outside) == before
        assert not SEARCHER.find(told)
        assert_closed(self)


def assert_closed(node: Node) -> None:
    """Check that only owners can read secrets, no directory is open to all, and no copy remains."""
    for path in node.root.rglob("*"):
        state = path.lstat()
        if stat.S_ISREG(state.st_mode) and state.st_mode & 0o007:
            assert not SEARCHER.find(path.read_bytes()), path
        assert stat.S_ISLNK(state.st_mode) or not state.st_mode & 0o002, path
        assert not path.name.endswith((".om-agent-old", ".om-agent-new")), path


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Node:
    made = Node(helpers.machine(tmp_path).base)
    for name in CONTROLLER:
        (made.root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.startswith("etc/") and "om-agent" not in name:
            (made.root / name).write_text("what a package left\n")
    (made.root / OWN).chmod(0o700)
    made.outside.mkdir()
    (made.outside / "victim").write_text("of somebody else\n")
    (made.outside / "directory").mkdir()
    return made


def replace(path: pathlib.Path, kind: str, node: Node) -> None:
    """Put something else where a file is, or will be."""
    with_nothing_there(path)
    if kind == "link":
        path.symlink_to(node.outside / "victim")
    elif kind == "dangling link":
        path.symlink_to(node.outside / "made")
    elif kind == "link to itself":
        path.symlink_to(path.name)
    elif kind == "hard link":
        os.link(node.outside / "victim", path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
        (path / "file").touch()
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # the whole path is too long for one
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        finally:
            os.chdir(here)
    elif kind == "device":
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


def with_nothing_there(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


LINKS = ["link", "dangling link", "link to itself", "hard link"]
OTHERS = ["pipe", "directory", "socket", *(["device"] if ROOT else [])]


@pytest.mark.parametrize("kind", LINKS)
def test_links_in_the_place_of_every_file_of_ours(node: Node, kind: str) -> None:
    """A link is replaced by a file, and never written through; a state that says something else is told of."""
    for name in CONTROLLER:
        replace(node.root / name, kind, node)
    if kind == "hard link":
        node.refused("state.json: the agent's record of this node's last apply cannot be read")
        (node.root / OWN / "state.json").unlink()
    node.applied()
    for name in CONTROLLER:
        state = (node.root / name).lstat()
        assert stat.S_ISREG(state.st_mode) and state.st_nlink == 1, name


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", ["etc/rabbitmq/definitions.json", "etc/om-agent/hiera.yaml"])
def test_something_else_in_the_place_of_a_file_of_ours(node: Node, name: str, kind: str) -> None:
    replace(node.root / name, kind, node)
    node.refused(f"{node.root / name}: this is a directory or device, not a regular file. Move it away.")


@pytest.mark.parametrize("kind", [*LINKS[:3], *OTHERS])
@pytest.mark.parametrize("name", SERVICES[:1])
def test_something_else_in_the_place_of_a_services_file(node: Node, name: str, kind: str) -> None:
    replace(node.root / name, kind, node)
    node.refused(f"{node.root / name}: this is ")


def test_a_services_file_with_two_names(node: Node) -> None:
    """What puppet writes into it would be in both, and putting back replaces one of them."""
    os.link(node.root / SERVICES[0], node.outside / "copy")
    node.refused(f"{node.root / SERVICES[0]}: the file has 2 names (hard links)")


@pytest.mark.parametrize("kind", [*LINKS, "pipe"])
@pytest.mark.parametrize("suffix", ["old", "new"])
def test_temporary_names_that_are_taken(node: Node, suffix: str, kind: str) -> None:
    for name in (*CONTROLLER, *SERVICES):
        path = node.root / name
        replace(path.with_name(f".{path.name}.om-agent-{suffix}"), kind, node)
    node.applied()


@pytest.mark.parametrize("suffix", ["old", "new"])
def test_a_directory_at_a_temporary_name(node: Node, suffix: str) -> None:
    path = node.root / f"etc/rabbitmq/.definitions.json.om-agent-{suffix}"
    replace(path, "directory", node)
    node.refused(f"{path} cannot be used (Is a directory); fix this and run om-agent again.")


@pytest.mark.parametrize("kind", [*LINKS[:3], *OTHERS])
def test_something_else_in_the_place_of_the_lock(node: Node, kind: str) -> None:
    replace(node.root / OWN / "lock", kind, node)
    node.refused(f"{node.root / OWN}/lock cannot be used: ")


@pytest.mark.parametrize("name", ["state.json", "journal.json", "key", "units", "puppet", "sasl"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "directory"])
def test_something_else_among_the_agents_own_files(node: Node, name: str, kind: str) -> None:
    """Only root can have put it there, so that it is told or replaced, either is good; nobody waits for a pipe."""
    replace(node.root / OWN / name, kind, node)
    before = trees.snapshot(node.outside)
    result = node.apply()
    told = result.stdout + result.stderr
    assert result.returncode in (0, 1) and "Traceback" not in told and "defect" not in told, told
    assert result.returncode == 0 or str(node.root / OWN / name) in told, told
    assert trees.snapshot(node.outside) == before
    assert not SEARCHER.find(told)


# -- directories -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "etc", "etc/nova", "etc/rabbitmq", "etc/qpid-dispatch/sasl2", "etc/om-agent", "var/lib", OWN]
)
@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_directory_in_which_everybody_may_write(node: Node, name: str, mode: int) -> None:
    path = node.root / name if name else node.root
    path.chmod(mode)
    node.refused(f"{path}: every user may write in this directory")


@pytest.mark.parametrize("name", ["puppet", "puppet/modules", "puppet/var", "puppet/conf", "units", "sasl"])
def test_a_directory_of_our_own_that_is_a_link_out_of_the_root(node: Node, name: str) -> None:
    """Neither the agent nor puppet follows it; plan says so too."""
    path = node.root / OWN / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(node.outside / "directory")
    said = f"{path}: this symbolic link leads out of {node.root}"
    node.refused(said)
    planned = node.run("plan", "--node", "ctl-0", node.metadata(shapes.dual()))
    assert planned.returncode == 1 and said in planned.stderr


@pytest.mark.parametrize("name", ["etc/nova", "etc/rabbitmq", "etc/qpid-dispatch/tls", "etc/om-agent", OWN])
def test_a_directory_that_is_a_link_out_of_the_root(node: Node, name: str) -> None:
    """An image's absolute link, followed from outside, leads into the machine on which the image is made."""
    replace(node.root / name, "nothing", node)
    (node.root / name).symlink_to(node.outside / "directory")
    node.refused(f"{node.root / name}: this symbolic link leads out of {node.root}")


def test_a_directory_that_is_a_link_within_the_root(node: Node) -> None:
    """Operators put a directory on another disk."""
    (node.root / "srv").mkdir()
    (node.root / "etc/rabbitmq").rename(node.root / "srv/rabbitmq")
    (node.root / "etc/rabbitmq").symlink_to("../srv/rabbitmq")
    node.applied()
    assert SEARCHER.find((node.root / "srv/rabbitmq/tls/key.pem").read_bytes())
    (node.root / "srv").chmod(0o777)
    node.refused(f"{node.root}/srv: every user may write in this directory")


@pytest.mark.skipif(not ROOT, reason="only root can give files to others")
@pytest.mark.parametrize("name", ["etc/nova", "etc/rabbitmq", "etc/qpid-dispatch/tls", "etc/om-agent", OWN])
def test_a_directory_that_is_a_link_of_somebody_elses(node: Node, name: str) -> None:
    path = node.root / name
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")
    os.chown(path, MALLORY, MALLORY, follow_symlinks=False)
    node.refused(f"{path}: this symbolic link belongs to the user with the id {MALLORY}")


@pytest.mark.skipif(not ROOT, reason="only root can give files to others")
@pytest.mark.parametrize("name", ["etc/om-agent", "etc/om-agent/hieradata", OWN])
def test_a_directory_of_ours_that_is_somebody_elses(node: Node, name: str) -> None:
    """Who owns it could have puppet do anything, as root."""
    os.chown(node.root / name, MALLORY, MALLORY)
    node.refused(
        f"{node.root / name}: this directory is om-agent's own, but it belongs to the user with the id {MALLORY}"
    )


@pytest.mark.skipif(not ROOT, reason="only root can give files to others")
def test_a_directory_of_a_service_that_is_the_services_own(node: Node) -> None:
    """Packages give a service its directory; what it puts there leads nowhere else."""
    directory = node.root / "etc/rabbitmq"
    for path in (directory, *directory.rglob("*")):
        os.chown(path, MALLORY, MALLORY)
    as_mallory = {"user": MALLORY, "group": MALLORY, "extra_groups": []}
    victim = node.outside / "victim"
    victim.chmod(0o600)
    script = "cd etc/rabbitmq && for n in definitions.json rabbitmq.conf erl_inetrc; do rm -f $n;" + "".join(
        f"ln -s {victim} {name}; " for name in ("$n", ".$n.om-agent-old", ".$n.om-agent-new")
    )
    for parent in (node.base, *node.base.parents):  # pytest's own are closed to others
        if not parent.stat().st_mode & 0o001:
            pytest.skip("another user cannot come here")
    subprocess.run(["sh", "-c", script + "done"], cwd=node.root, check=True, **typing.cast("typing.Any", as_mallory))
    node.applied()
    assert (victim.read_text(), stat.S_IMODE(victim.stat().st_mode)) == ("of somebody else\n", 0o600)


@pytest.mark.skipif(not ROOT, reason="only root can give files to others")
def test_a_file_that_is_somebody_elses(node: Node) -> None:
    """Ours are made anew; a service's keeps its owner, whom somebody has given it, and is closed to all others."""
    for name in (*CONTROLLER[:-1], *SERVICES):
        (node.root / name).touch()
        os.chown(node.root / name, MALLORY, MALLORY)
        (node.root / name).chmod(0o666)
    node.applied()
    for name in CONTROLLER[:-1]:
        assert (node.root / name).stat().st_uid != MALLORY, name
    assert {stat.S_IMODE((node.root / name).stat().st_mode) for name in SERVICES} == {0o660}


# -- umask -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0, 0o777])
def test_any_umask(node: Node, mask: int) -> None:
    def before() -> None:
        os.umask(mask)

    result = node.apply(preexec_fn=before)
    assert result.returncode == 0, result.stderr
    assert_closed(node)
    again = node.apply(preexec_fn=before)
    assert "nothing to do" in again.stdout, again.stdout + again.stderr


@pytest.fixture
def ordinary() -> collections.abc.Iterator[tuple[Node, dict[str, typing.Any]]]:
    """A machine that an ordinary user owns, whom no permission is given for nothing; and how to become that user."""
    from tests.scenario.test_bad_input import python_for

    identity: dict[str, typing.Any] = {"user": MALLORY, "group": MALLORY, "extra_groups": []} if ROOT else {}
    with tempfile.TemporaryDirectory(prefix="om-agent-test-") as directory:
        base = pathlib.Path(directory)
        made = Node(helpers.machine(base, python_for(identity)).base, python_for(identity))
        made.outside.mkdir()
        made.metadata(shapes.dual())
        for path in (base, *base.rglob("*")) if ROOT else ():
            os.chown(path, MALLORY, MALLORY)
        yield made, identity


@pytest.mark.parametrize("mask", [0, 0o777])
def test_any_umask_of_an_ordinary_user(ordinary: tuple[Node, dict[str, typing.Any]], mask: int) -> None:
    node, identity = ordinary
    for said in ("applied", "nothing to do"):
        result = node.apply(preexec_fn=lambda: os.umask(mask) and None, **identity)
        if "cryptography" in result.stderr:
            pytest.skip("this Python has no cryptography")
        assert said in result.stdout, result.stdout + result.stderr
    assert_closed(node)


# -- copies ----------------------------------------------------------------------------------------------------------


def test_copies_are_closed_to_others_and_go_back_as_they_were(node: Node) -> None:
    """A run that is killed leaves them lying, with the passwords of before."""
    path = node.root / SERVICES[0]
    path.write_text(f"[DEFAULT]\ntransport_url = {shapes.OLD}\n")
    path.chmod(0o644)
    node.mode("hang")
    with node.start("apply", "--metadata", node.metadata(shapes.dual()), "--node", "ctl-0") as agent:
        node.wait_for_puppet()
        agent.send_signal(signal.SIGKILL)
        agent.wait()
        copies = list(node.root.rglob("*.om-agent-old"))
        assert len(copies) > 4 and {stat.S_IMODE(p.lstat().st_mode) for p in copies} == {0o600}
        children = [pid for pid in os.listdir("/proc") if pid.isdigit() and is_puppet(pid, node)]
        for pid in children:
            os.kill(int(pid), signal.SIGKILL)
    with locking.lock(node.root, 10):
        assert transaction.recover(node.root) is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o644 and shapes.OLD in path.read_text()
    assert not list(node.root.rglob("*.om-agent-*"))


def is_puppet(pid: str, node: Node) -> bool:
    try:
        return f"{node.bin}/puppet".encode() in pathlib.Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return False


def test_the_original_is_exchanged_for_a_link_in_the_last_moment(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it was found to be a file: a service that owns the directory would have root copy another's secret."""
    victim, path = tmp_path / "victim", tmp_path / "etc/rabbitmq/file"
    victim.write_text("of root alone")
    victim.chmod(0o600)
    path.parent.mkdir(parents=True)
    path.write_text("a service's own")
    (tmp_path / "var/lib/om-agent").mkdir(parents=True)
    real = copies.Original.copy_aside

    def exchange(original: copies.Original, root: pathlib.Path) -> copies.Original:
        path.unlink()
        path.symlink_to(victim)
        return real(original, root)

    monkeypatch.setattr(copies.Original, "copy_aside", exchange)
    with pytest.raises(OSError):
        transaction.begin(tmp_path, ["/etc/rabbitmq/file"], [])
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    assert (victim.read_text(), stat.S_IMODE(victim.stat().st_mode)) == ("of root alone", 0o600)


@pytest.mark.parametrize("linked", [False, True])
def test_a_mounted_file_is_put_back_by_its_content(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    """And not through a link that takes its place."""
    victim, path, old = (tmp_path / name for name in ("victim", "file", ".file.om-agent-old"))
    victim.write_text("of root alone")
    victim.chmod(0o600)
    old.write_text("old")
    old.chmod(0o640)
    path.symlink_to(victim) if linked else path.write_text("new and longer")

    def busy(*names: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(os, "replace", busy)
    if linked:
        with pytest.raises(OSError, match="symbolic links"):
            copies._replace(old, path)
        assert (victim.read_text(), stat.S_IMODE(victim.stat().st_mode)) == ("of root alone", 0o600)
        return
    copies._replace(old, path)
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode), old.exists()) == ("old", 0o640, False)


def test_hazards_of_a_sound_tree(tmp_path: pathlib.Path) -> None:
    (tmp_path / "etc").mkdir()
    assert access.hazards(tmp_path, ["/etc/made/later/file", "/etc/file", "/file"]) == []
    assert access.hazards(pathlib.Path("/"), ["/etc/nova/nova.conf", "/var/lib/om-agent/lock"]) == []
    assert isinstance(errors.NotReady([]), errors.ApplyFailed)
