"""Debian root directories with packages and data in them: made once by mmdebstrap, kept in the cache, never changed."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading

from testbed import errors, image

CACHE = image.CACHE / "roots"
Show = collections.abc.Callable[[str], None]

_NEEDED_BYTES = 4 * 1024**3
_SECONDS = 1800.0  # for each of the two steps; on a quiet machine the longest takes 110 s
_TAIL_LINES = 15

# A command behind these has mounts and processes of its own: whichever way it ends, nothing of it is left.
_ALONE = (
    "setpriv", "--pdeathsig", "KILL",
    "unshare", "--mount", "--net", "--pid", "--mount-proc", "--fork", "--kill-child", "--",
)  # fmt: skip
_DOWNLOAD = tuple(word for word in _ALONE if word != "--net")
_PREPARE = """
set -e
chroot "$1" ip link set lo up
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/tmp"
cat >"$1/tmp/prepare"
exec env --ignore-environment HOME=/root LC_ALL=C.UTF-8 \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin chroot "$1" bash -eu /tmp/prepare </dev/null
"""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is in a root.

    :param prepare: a bash script that runs inside, as root, when all packages are installed. It has loopback alone.
    """

    name: str
    release: str
    packages: tuple[str, ...]
    prepare: str

    @property
    def path(self) -> pathlib.Path:
        """Return where the root is, or will be."""
        text = repr((self.packages, self.prepare, _PREPARE))
        return CACHE / f"{self.name}-{self.release}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def make(recipe: Recipe, show: Show) -> pathlib.Path:
    """Return the root; make it first if it is not there.

    :param show: is told each step.
    :raises testbed.errors.TestbedError: with the last lines of the program that failed.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with _locked(CACHE, show):
        if recipe.path.is_dir():
            return recipe.path
        if shutil.disk_usage(CACHE).free < _NEEDED_BYTES:
            raise errors.TestbedError(f"Less than {_NEEDED_BYTES // 1024**3} GiB are free below {CACHE}.")
        for old in (*CACHE.glob(f"{recipe.name}-{recipe.release}-*"), *CACHE.glob("new-*")):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(prefix="new-", dir=CACHE) as new:
            directory = pathlib.Path(new) / "root"
            _run(_DOWNLOAD, _mmdebstrap(recipe, pathlib.Path(new)), "", show)
            show("preparing")
            _run(_ALONE, ["bash", "-c", _PREPARE, "prepare", str(directory)], recipe.prepare, show)
            directory.rename(recipe.path)
    return recipe.path


def mirror(listed: str, release: str) -> str:
    """Return the mirror to take ``release`` from: the one that this machine takes it from, or takes its own from.

    :param listed: a line ``URI SUITE`` for each of apt's sources.
    :raises testbed.errors.TestbedError: when it takes none from anywhere.
    """
    pairs = [line.split() for line in listed.splitlines()]
    suites = {suite: uri for uri, suite in reversed(pairs) if re.fullmatch("[a-z]+", suite)}
    found = suites.get(release) or next(iter(suites.values()), "")
    if not found:
        raise errors.TestbedError("apt on this machine has no source of a Debian release: add one to its sources.")
    return found


# --------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(directory: pathlib.Path, show: Show) -> collections.abc.Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            show("another run makes a root: waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _mmdebstrap(recipe: Recipe, new: pathlib.Path) -> list[str]:
    """Return the command. apt inside uses this machine's mirror, proxy and authorities."""
    listed = _output("apt-get", "indextargets", "Created-By: Packages", "--format", "$(REPO_URI) $(RELEASE)")
    settings = new / "apt.conf"
    known = [line for line in _output("apt-config", "dump").splitlines() if line.startswith("Acquire::")]
    settings.write_text("\n".join([*known, 'APT::Install-Recommends "false";', ""]))
    return [
        "mmdebstrap",
        "--variant=apt",
        f"--aptopt={settings}",
        "--dpkgopt=force-unsafe-io",
        f"--include={','.join(recipe.packages)}",
        recipe.release,
        str(new / "root"),
        f"deb {mirror(listed, recipe.release)} {recipe.release} main",
    ]


def _output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def _run(alone: tuple[str, ...], argv: list[str], stdin: str, show: Show) -> None:
    """Run a program; tell ``show`` what it tells with "I: "."""
    environment = {name: value for name, value in os.environ.items() if name != "TMPDIR"}
    process = subprocess.Popen(
        [*alone, *argv],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdin
    assert process.stdout
    timer = threading.Timer(_SECONDS, process.kill)
    timer.start()
    lines = []
    try:
        process.stdin.write(stdin)
        process.stdin.close()
        for line in process.stdout:
            lines.append(line)
            if line.startswith("I: "):
                show(line[3:].strip())
        status = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        timer.cancel()
        process.stdout.close()
    if status:
        raise errors.TestbedError(f"{argv[0]} failed with {status}.", "".join(lines[-_TAIL_LINES:]))
