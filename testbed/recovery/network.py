"""Nodes with a network each, on one switch. Links between them can be cut and healed.

All networks are namespaces that end with this process. The machine's own network is neither used nor changed.
"""

from __future__ import annotations

import collections.abc
import contextlib
import ctypes
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from testbed import errors

NETWORK = "10.77.0"
OWN = f"{NETWORK}.1"
_NOBODY = "02:00:00:00:00:00"  # a hardware address that no node has: packets to it are lost
_CLONE_NEWNET = 0x40000000  # unshare(2)
_LIBC = ctypes.CDLL(None, use_errno=True)
_INSIDE = "OM_TESTBED_INSIDE"


def enter(module: str) -> None:
    """Start this module again with the same arguments, in network and mount namespaces of its own."""
    if os.environ.pop(_INSIDE, None):
        return
    if os.geteuid() != 0:
        raise errors.TestbedError("Making network namespaces needs root.")
    argv = ["unshare", "--net", "--mount", "--propagation", "private", sys.executable]
    argv += ["-m", module, *sys.argv[1:]]
    os.execvpe(argv[0], argv, {**os.environ, _INSIDE: "1"})


@contextlib.contextmanager
def isolated() -> collections.abc.Iterator[None]:
    """Give this thread, and the processes that it starts, an empty network for a while."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        made = _make_namespace()
        _set_namespace(made)
        os.close(made)
        try:
            yield
        finally:
            _set_namespace(own)
    finally:
        os.close(own)


def loopback() -> None:
    """Make the loopback addresses work here, all of 127.0.0.0/8."""
    _run((), "link set lo up")


def resolve(addresses: collections.abc.Mapping[str, str], file: pathlib.Path) -> None:
    """Make names resolve, here and on the nodes, by mounting ``file`` over /etc/hosts."""
    lines = [f"{address} {name}" for name, address in addresses.items()]
    file.write_text("\n".join(["127.0.0.1 localhost", *lines]) + "\n")
    subprocess.run(["mount", "--bind", str(file), "/etc/hosts"], check=True, timeout=20)


@contextlib.contextmanager
def directory(keep: pathlib.Path | None) -> collections.abc.Iterator[pathlib.Path]:
    """Make a work directory: ``keep``, or one that is unmounted and removed afterwards."""
    if keep:
        keep.mkdir(mode=0o700)
        yield keep.resolve()
        return
    made = pathlib.Path(tempfile.mkdtemp(prefix="om-testbed-")).resolve()
    try:
        yield made
    finally:
        for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
            if line.split()[1].startswith(f"{made}/"):
                subprocess.run(["umount", "--lazy", line.split()[1]], check=False, timeout=20)
        shutil.rmtree(made, ignore_errors=True)


class Network:
    """A switch with this process at one port and nodes at the others.

    :param addresses: the nodes' addresses by name.
    """

    def __init__(self, addresses: collections.abc.Mapping[str, str]) -> None:
        self._addresses = dict(addresses)
        self._namespaces = {name: _make_namespace() for name in addresses}
        self._cut: set[tuple[str, str]] = set()
        loopback()
        _run((), "link add switch type bridge", f"addr add {OWN}/24 dev switch", "link set switch up")
        for number, (name, address) in enumerate(addresses.items()):
            peer = f"link add port{number} type veth peer name eth0 netns {self._path(name)}"
            _run((), peer, f"link set port{number} master switch up")
            _run(self.within(name), "link set lo up", f"addr add {address}/24 dev eth0", "link set eth0 up")

    def _path(self, name: str) -> str:
        return f"/proc/{os.getpid()}/fd/{self._namespaces[name]}"

    def within(self, name: str) -> tuple[str, ...]:
        """Return the command that runs another command on a node and is replaced by it."""
        return ("nsenter", f"--net={self._path(name)}")

    def cut(self, some: collections.abc.Iterable[str], others: collections.abc.Iterable[str]) -> None:
        """Lose every packet between some nodes and others, without an error for the sender."""
        for one, other in itertools.product(some, others):
            self._lose(one, other)
            self._lose(other, one)

    def _lose(self, sender: str, receiver: str) -> None:
        self._cut.add((sender, receiver))
        address = self._addresses[receiver]
        _run(self.within(sender), f"neigh replace {address} lladdr {_NOBODY} dev eth0 nud permanent")

    def heal(self) -> None:
        """Undo every cut."""
        for sender, receiver in self._cut:
            _run(self.within(sender), f"neigh del {self._addresses[receiver]} dev eth0")
        self._cut.clear()

    def close(self) -> None:
        """Close the nodes' networks. Each ends with the last process in it."""
        while self._namespaces:
            os.close(self._namespaces.popitem()[1])


def _make_namespace() -> int:
    """Return a descriptor of a new network namespace. The namespace exists as long as the descriptor is open."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.unshare(_CLONE_NEWNET):
            raise errors.TestbedError(f"Cannot make a network namespace: {os.strerror(ctypes.get_errno())}.")
        made = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _set_namespace(own)
        return made
    finally:
        os.close(own)


def _set_namespace(descriptor: int) -> None:
    if _LIBC.setns(descriptor, _CLONE_NEWNET):
        raise errors.TestbedError(f"Cannot enter the network namespace: {os.strerror(ctypes.get_errno())}.")


def _run(within: tuple[str, ...], *commands: str) -> None:
    argv = [*within, "ip", "-batch", "-"]
    done = subprocess.run(argv, input="\n".join(commands), capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise errors.TestbedError(f"ip {'; '.join(commands)}: {done.stderr.strip()}")
