"""One node in a Debian root directory: real packages, a network and processes of its own, no systemd.

The root is never written to: the node has an overlay above it, in memory. All its mounts and processes belong to the
namespaces of one process, the holder. When the holder ends, or we do, nothing of them is left.
"""

from __future__ import annotations

import collections.abc
import concurrent.futures
import contextlib
import ctypes
import os
import pathlib
import subprocess
import typing

from testbed import errors, processes

TREE = pathlib.Path(__file__).resolve().parents[1]
INSIDE = "/opt/om-dual-backends"  # where the node sees this tree

_CLONE_NEWNET = 0x40000000  # setns(2)
_LIBC = ctypes.CDLL(None, use_errno=True)
_START_SECONDS = 60.0
_SAID = 3000  # characters of what a program that failed said
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FOREIGN = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "TMPDIR", "XDG_CACHE_HOME", "LANG", "LANGUAGE")

# /etc of this machine gets an overlay too: a router from this machine finds its files where the agent wrote them.
# resolv.conf is no use without a network, and a name server that does not answer costs seconds.
_HOLDER = """
set -eu
lower=$1 work=$2 tree=$3 inside=$4 name=$5 address=$6
mount -t tmpfs -o mode=755 tmpfs "$work"
mkdir "$work"/{upper,overlay,root,etc-upper,etc-overlay}
mount -t overlay -o lowerdir="$lower",upperdir="$work/upper",workdir="$work/overlay" overlay "$work/root"
mount -t overlay -o lowerdir=/etc,upperdir="$work/etc-upper",workdir="$work/etc-overlay" overlay /etc
root=$work/root
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir -p "$root$inside"
mount --bind "$tree" "$root$inside"
mount -o remount,bind,ro "$root$inside"
hostname "$name"
printf '%s\\n' "$name" >"$root/etc/hostname"
printf '127.0.0.1 localhost\\n%s %s\\n' "$address" "$name" >"$root/etc/hosts"
rm -f "$root/etc/resolv.conf"
chroot "$root" ip link set lo up
chroot "$root" ip address add "$address/32" dev lo
echo ready
# bash waits for orphans, as the first process has to.
while :; do
    sleep 3600 &
    wait $! || :
done
"""
_ROUTER = """
set -eu
mkdir -p "$2"
mount --bind "$1$2" "$2"
shift 2
exec "$@"
"""

Result = typing.TypeVar("Result")


class Node:
    """A node; use it as a context manager.

    :param work: a new, empty directory.
    :param name: its host name.
    :param address: its IPv4 address. Without one beside 127.0.0.1, resolvers take a host for one without IPv4.
    """

    def __init__(
        self, supervisor: processes.Supervisor, lower: pathlib.Path, work: pathlib.Path, name: str, address: str
    ) -> None:
        self.name = name
        self.address = address
        self._supervisor = supervisor
        self._root = work / "root"
        arguments = [str(lower), str(work), str(TREE), INSIDE, name, address]
        alone = ["unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--mount-proc", "--fork", "--kill-child"]
        work.mkdir(parents=True)
        self._holder = supervisor.start(f"holder-{name}", [*alone, "--", "bash", "-c", _HOLDER, "holder", *arguments])
        processes.wait_until("the node's mounts are there", self._is_ready, _START_SECONDS, [self._holder])
        children = pathlib.Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().split()
        self._leader = int(children[0])

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        # unshare --kill-child ends the first process with SIGKILL, and the kernel every other one.
        self._supervisor.end(self._holder, grace=0)

    def _is_ready(self) -> bool:
        assert self._holder.log
        return self._holder.log.read_text().endswith("ready\n")

    # -- files -------------------------------------------------------------------------------------------------------

    def path(self, inside: str) -> pathlib.Path:
        """Return where this process finds the node's absolute path ``inside``."""
        return pathlib.Path(f"/proc/{self._leader}/root{self._root}{inside}")

    # -- programs ----------------------------------------------------------------------------------------------------

    def inside(self, *argv: str, user: str = "root") -> list[str]:
        """Return the command that runs a program of the node as ``user``."""
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if user != "root" else []
        home = "/root" if user == "root" else f"/var/lib/{user}"
        unset = [word for name in _FOREIGN for word in ("--unset", name)]
        environment = ["env", *unset, f"HOME={home}", f"PATH={_PATH}", "LC_ALL=C.UTF-8", *argv]
        return [*self._enter(), "chroot", str(self._root), *as_user, *environment]

    def router(self, directory: str, *argv: str) -> list[str]:
        """Return the command that runs a router of this machine with the node's network and ``directory`` of files."""
        alone = ["unshare", "--mount", "--", "bash", "-c", _ROUTER, "router", str(self._root), directory]
        return [*self._enter(), *alone, *argv]

    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self._leader}", "--mount", "--net", "--uts", "--ipc", "--pid", "--"]

    def run(
        self, *argv: str, user: str = "root", timeout: float = 120, status: tuple[int, ...] = (0,), stdin: str = ""
    ) -> str:
        """Run a program of the node to its end; returns what it printed.

        :raises testbed.errors.TestbedError: when it fails, or is not done in time.
        """
        environment = {**processes.environment(), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                self.inside(*argv, user=user),
                env=environment,
                input=stdin,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise errors.TestbedError(f"{argv[0]} had not finished after {timeout:.0f} s.") from None
        if done.returncode not in status:
            said = (done.stdout + done.stderr)[-_SAID:]
            raise errors.TestbedError(f"{' '.join(argv)} ended with {done.returncode}:\n{said}")
        return done.stdout

    def start(self, name: str, *argv: str, user: str = "root") -> processes.Process:
        """Start a program of the node."""
        return self._supervisor.start(name, self.inside(*argv, user=user), {"PYTHONDONTWRITEBYTECODE": "1"})

    # -- network -----------------------------------------------------------------------------------------------------

    def connected(self, function: collections.abc.Callable[[], Result]) -> Result:
        """Return what ``function`` returns in a thread that has the node's network."""

        def enter() -> Result:
            with contextlib.closing(_File(f"/proc/{self._leader}/ns/net")) as namespace:
                if _LIBC.setns(namespace.descriptor, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            return function()

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return pool.submit(enter).result()


class _File:
    """An open file descriptor."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        os.close(self.descriptor)
