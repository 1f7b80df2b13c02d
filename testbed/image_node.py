"""One node booted from an image's tree under systemd-nspawn, on a machine that systemd itself need not run.

The tree is never written to: each node has an overlay above it. nspawn gets a mount namespace with a cgroup2 hierarchy
and a ``/run`` of its own, since it hangs on a machine whose ``/run`` is on disk and whose cgroups are mixed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import time
import typing

from testbed import image

_BOOT = """
set -e
mount --make-rprivate /
umount -R /sys/fs/cgroup 2>/dev/null || :
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system "/sys/fs/cgroup/$1"
echo $$ >"/sys/fs/cgroup/$1/cgroup.procs"
exec systemd-nspawn --quiet -D "$2" --register=no --keep-unit --private-network --console=pipe -M node -b
"""
# When we are killed, nspawn gets SIGTERM and powers its node off.
_ENTER = ("setpriv", "--pdeathsig", "TERM", "unshare", "--mount", "bash", "-c", _BOOT, "bash")
_METADATA = "var/lib/os-collect-config/local-data/messaging.json"
_TIMEOUT = 300.0  # what takes 10 s on a quiet machine may take minutes on a busy one


class NodeError(Exception):
    """The node did not do what it was asked for; the text says what."""


@dataclasses.dataclass(frozen=True)
class Unit:
    """What systemd says of a unit.

    :param started: seconds since boot when its start began, 0 when it never did; ``active`` when it was up.
    """

    load: str
    state: str
    sub: str
    started: float
    active: float
    main_pid: int
    result: str


class Node:
    """A node; use it as a context manager, which ends and unmounts whatever is left.

    :param work: a new directory, directly below one of `image.scratch`, for the node alone.
    """

    def __init__(self, tree: pathlib.Path, work: pathlib.Path, name: str = "overcloud-controller-0") -> None:
        self._work = work
        self._cgroup = f"{work.parent.name}-{work.name}"  # where image.scratch looks for it
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self.tree = tree
        self.root = work / "root"
        for directory in ("upper", "work", "root"):
            (work / directory).mkdir(parents=True)
        options = f"lowerdir={tree},upperdir={work}/upper,workdir={work}/work"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(self.root)], check=True)
        # There is no network and there are no disks; these would wait for them for a minute or two.
        for unit in ("systemd-networkd-wait-online", "iscsid", "open-iscsi"):
            (self.root / f"etc/systemd/system/{unit}.service").unlink(missing_ok=True)
            (self.root / f"etc/systemd/system/{unit}.service").symlink_to("/dev/null")
        (self.root / "etc/hostname").write_text(name + "\n")
        (self.root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.0.11 {name}\n")

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.power_off()
        finally:
            subprocess.run(["umount", str(self.root)], check=False)

    # -- life --------------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Power on; returns when systemd answers, long before it is done."""
        console = (self._work / "console.log").open("ab")
        with console:
            self._process = subprocess.Popen(
                [*_ENTER, self._cgroup, str(self.root)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        self.wait(self._find_leader, "systemd-nspawn starts systemd")
        self.wait(lambda: self.call("systemctl", "show", "--property=Version")[0] == 0, "systemd answers")

    def _find_leader(self) -> bool:
        assert self._process
        if self._process.poll() is not None:
            said = (self._work / "console.log").read_text(errors="replace")[-2000:]
            raise NodeError(f"systemd-nspawn ended with {self._process.returncode}: {said}")
        children = pathlib.Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for child in children:
            with contextlib.suppress(OSError):
                # PID 1 of a namespace of its own: the one that nspawn started for good.
                status = pathlib.Path(f"/proc/{child}/status").read_text()
                ids = next(x for x in status.splitlines() if x.startswith("NSpid:")).split()[1:]
                if len(ids) > 1 and ids[-1] == "1":
                    self._leader = int(child)
                    return True
        return False

    def power_off(self) -> None:
        """Shut down in good order; a node that does not follow is ended."""
        if not self._process:
            return
        if self._leader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._leader, signal.SIGRTMIN + 4)  # systemd(1): poweroff.target
        try:
            self._process.wait(_TIMEOUT)
        except subprocess.TimeoutExpired:
            if self._leader:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._leader, signal.SIGKILL)
            self._process.terminate()
            self._process.wait(30)
        self._process, self._leader = None, 0
        for top in image.cgroups(pathlib.Path(self._cgroup)):
            image.remove_cgroup(top)

    # -- inside ------------------------------------------------------------------------------------------------------

    def call(self, *command: str, stdin: str = "", timeout: float = _TIMEOUT) -> tuple[int, str]:
        """Run a command inside; returns its exit code and all that it said."""
        enter = ["nsenter", f"--target={self._leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"]
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        result = subprocess.run(
            [*enter, "--", *command],
            env=environment,
            input=stdin.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
        return result.returncode, result.stdout.decode(errors="replace")

    def run(self, *command: str, stdin: str = "", timeout: float = _TIMEOUT) -> str:
        """Run a command inside that has to succeed."""
        status, said = self.call(*command, stdin=stdin, timeout=timeout)
        if status:
            raise NodeError(f"{' '.join(command)} exited with {status}: {said}")
        return said

    def python(self, program: str, *arguments: str, timeout: float = _TIMEOUT) -> str:
        """Run a program with the Python that the services use."""
        return self.run("/usr/bin/python3", "-W", "ignore", "-", *arguments, stdin=program, timeout=timeout)

    def unit(self, name: str) -> Unit:
        """Ask systemd for a unit."""
        keys = {
            "LoadState": "", "ActiveState": "", "SubState": "", "InactiveExitTimestampMonotonic": "0",
            "ActiveEnterTimestampMonotonic": "0", "MainPID": "0", "Result": "",
        }  # fmt: skip
        for line in self.run("systemctl", "show", f"--property={','.join(keys)}", name).splitlines():
            key, _, value = line.partition("=")
            keys[key] = value
        return Unit(
            load=keys["LoadState"],
            state=keys["ActiveState"],
            sub=keys["SubState"],
            started=int(keys["InactiveExitTimestampMonotonic"]) / 1e6,
            active=int(keys["ActiveEnterTimestampMonotonic"]) / 1e6,
            main_pid=int(keys["MainPID"]),
            result=keys["Result"],
        )

    def journal(self, unit: str) -> str:
        """What a unit said since this boot."""
        return self.run("journalctl", "--boot", "--no-pager", "--output=cat", f"--unit={unit}")

    def wait(self, is_so: typing.Callable[[], bool], what: str, seconds: float = _TIMEOUT) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > deadline:
                raise NodeError(f"not so after {seconds:.0f} s: {what}")
            time.sleep(0.2)

    def wait_active(self, *units: str, seconds: float = _TIMEOUT) -> None:
        """Wait until units are up."""
        for name in units:
            try:
                self.wait(lambda name=name: self.unit(name).state == "active", f"{name} is active", seconds)  # type: ignore[misc]
            except NodeError as e:
                raise NodeError(f"{e}\n{self.call('systemctl', 'status', '--no-pager', '--full', name)[1]}") from None

    # -- metadata ----------------------------------------------------------------------------------------------------

    def give(self, metadata: object) -> None:
        """Hand metadata to os-collect-config's local collector; text is written as it is."""
        path = self.root / _METADATA
        text = metadata if isinstance(metadata, str) else json.dumps(metadata)
        temporary = path.parents[1] / "new-metadata"
        temporary.write_text(text)
        temporary.chmod(0o600)
        temporary.rename(path)
