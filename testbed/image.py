"""``make image``: build overcloud images on this machine with disk-image-create, and show what the elements cost.

Every image is built as a bootable qcow2 and as a plain tree below ``build/image``. Files that can be reused are kept in
``~/.cache/om-dual-backends``. This module needs only the standard library; ``tools/image`` does the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
import typing

ROOT = pathlib.Path(__file__).resolve().parents[1]
WORK = ROOT / "build/image"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "om-dual-backends"

BASE = ("vm", "block-device-mbr", "debian-minimal")
# Debian's releases with what their nodes can be configured for. Debian 13's oslo.messaging has no AMQP 1.0 driver:
# its services use RabbitMQ for both, and the router is installed for the day when there is a driver.
MESSAGING = {
    "trixie": ("overcloud-rabbitmq", "qpid-dispatch-router"),
    "bookworm": ("overcloud-messaging",),
}
RELEASE = os.environ.get("DIB_RELEASE") or "trixie"
NAMES = ("plain", "overcloud", "test")
_NEEDED_BYTES = 6 * 1024**3
_STAMP = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\.\d+ \| (.*)")
_PHASE = re.compile(r"^dib-run-parts Running \S*/(\w[\w-]*)\.d/(\S+)")

# Where the kernel has no device mapper: kpartx's job done by partx, which makes partition devices with no more than
# BLKPG. sudo is there because the real one would not find the other two.
_SHIMS = {
    "dmsetup": "#!/bin/sh\nexit 0\n",
    "sudo": """\
#!/bin/sh
while :; do
    case $1 in
        -E | -H | -n) shift ;;
        *) break ;;
    esac
done
exec env -- "$@"
""",
    "kpartx": """\
#!/bin/bash
set -eu
case $1 in
    -a* | -u*)
        partx --add "$2" 2>/dev/null || partx --update "$2"
        mkdir -p /dev/mapper
        for part in "$2"p*; do
            ln -sfn "$part" "/dev/mapper/${part##*/}"
        done
        ;;
    -d*)
        for part in "$2"p*; do
            rm -f "/dev/mapper/${part##*/}"
        done
        partx --delete "$2"
        ;;
esac
""",
}


class ImageError(Exception):
    """An error that ends the build. The text is a sentence for people."""


@dataclasses.dataclass(frozen=True)
class Built:
    """An image that was built.

    :param seconds: the time of the whole build.
    :param base_seconds: the part of it for the distribution's base system, which is cached.
    :param tree_bytes: the size of the tree's files together.
    :param digest: the digest of its sources, see `digest`.
    """

    name: str
    release: str
    seconds: float
    base_seconds: float
    qcow2_bytes: int
    tree_bytes: int
    digest: str

    @property
    def directory(self) -> pathlib.Path:
        """Where it is."""
        return WORK / self.release / self.name


def elements(name: str, release: str) -> tuple[str, ...]:
    """Return the elements of an image in addition to BASE."""
    messaging = {"plain": (), "overcloud": MESSAGING[release], "test": (*MESSAGING[release], "om-image-test")}
    return messaging[name]


def digest(name: str, release: str, engine: str) -> str:
    """Return a digest of the sources of an image. An existing image with another digest is out of date."""
    given = sorted(item for item in os.environ.items() if item[0].startswith("DIB_"))
    used = elements(name, release)
    found = hashlib.sha256(f"{BASE} {used} {release} {engine} {given}".encode())
    packages = os.environ.get("DIB_DISPATCH_ROUTER_PACKAGES_DIR")
    for path in sorted(pathlib.Path(packages).glob("*")) if packages else ():
        found.update(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    for top in ("elements", "tests/image/elements", "agent", "devrouter", "puppet") if used else ():
        for path in sorted((ROOT / top).rglob("*")):
            parts = path.relative_to(ROOT).parts
            if path.is_file() and not any(_is_generated(part) for part in parts):
                found.update(f"{parts} {path.stat().st_mode}".encode() + path.read_bytes())
    return found.hexdigest()


def _is_generated(name: str) -> bool:
    return name.startswith(".") or name.endswith((".egg-info", "__pycache__"))


def mirrors(sources: typing.Iterable[str], release: str) -> tuple[str, str]:
    """Return (main, security) mirrors of Debian's ``release`` in the texts of apt's sources.

    A mirror has every release. So when the texts do not name this release, the mirrors of another one are used.

    :raises ImageError: when the texts name no release of Debian with its security updates.
    """
    found: dict[str, str] = {}
    for text in sources:
        for uri, suites in _entries(text):
            for suite in suites:
                found.setdefault(suite, uri)
    for named in (release, *MESSAGING):
        security = found.get(f"{named}-security")
        if named in found and security:
            return found[named], security
    raise ImageError(
        f"this machine's apt sources do not name {release} and {release}-security: set DIB_DISTRIBUTION_MIRROR and "
        "DIB_DEBIAN_SECURITY_MIRROR"
    )


def _entries(text: str) -> typing.Iterator[tuple[str, list[str]]]:
    """Yield (URI, suites) of one file, of either format."""
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+\S", line)
        if match:
            yield match.group(1), [match.group(2)]
    for paragraph in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", paragraph, re.MULTILINE))
        if "deb" in fields.get("Types", "").split() and fields.get("Enabled", "yes") != "no":
            for uri in fields.get("URIs", "").split():
                yield uri, fields.get("Suites", "").split()


def _host_sources() -> list[str]:
    places = [pathlib.Path("/etc/apt/sources.list"), *sorted(pathlib.Path("/etc/apt/sources.list.d").glob("*"))]
    files = [path for path in places if path.is_file() and path.suffix in (".list", ".sources")]
    return [path.read_text(errors="replace") for path in files]


def _has_device_mapper() -> bool:
    with contextlib.suppress(OSError):
        return "device-mapper" in pathlib.Path("/proc/misc").read_text()
    return False


def _environment(release: str, engine: str, temporary: pathlib.Path) -> dict[str, str]:
    """Return the environment of disk-image-create. Variables that the caller has set override the defaults."""
    # The directory of TMPDIR does not exist inside the image.
    environment = {name: value for name, value in os.environ.items() if name != "TMPDIR"}
    paths = [str(pathlib.Path(sys.executable).parent), "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    if not _has_device_mapper():
        shims = temporary / "shims"
        shims.mkdir()
        for name, text in _SHIMS.items():
            (shims / name).write_text(text)
            (shims / name).chmod(0o755)
        paths.insert(0, str(shims))
    environment["PATH"] = os.pathsep.join(paths)
    if not {"DIB_DISTRIBUTION_MIRROR", "DIB_DEBIAN_SECURITY_MIRROR"} <= environment.keys():
        main, security = mirrors(_host_sources(), release)
        environment.setdefault("DIB_DISTRIBUTION_MIRROR", main)
        environment.setdefault("DIB_DEBIAN_SECURITY_MIRROR", security)
    ours = {
        "ARCH": "amd64",
        "DIB_RELEASE": release,
        "DIB_PYTHON_VERSION": "3",
        "DIB_IMAGE_CACHE": str(CACHE / "image-create"),
        "DIB_LOCKFILES": str(CACHE / "locks"),
        "DIB_DEBOOTSTRAP_CACHE": "1",
        "DIB_DEBIAN_USE_DEBOOTSTRAP_CACHE": "1",
        "DIB_BOOTLOADER_DEFAULT_CMDLINE": "nofb nomodeset gfxpayload=text net.ifnames=0 console=ttyS0",
        "DIB_GRUB_TIMEOUT": "0",
        "DIB_DISPATCH_ROUTER_ENGINE": engine,
        "TMP_DIR": str(temporary),
    }
    for name, value in ours.items():
        environment.setdefault(name, value)
    environment["ELEMENTS_PATH"] = os.pathsep.join(
        [str(ROOT / "elements"), str(ROOT / "tests/image/elements"), *filter(None, [os.environ.get("ELEMENTS_PATH")])]
    )
    return environment


# -- nothing is left behind ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def scratch(prefix: str) -> typing.Iterator[pathlib.Path]:
    """Make a directory. Afterwards remove it, with its mounts, loop devices and processes.

    A run that was killed cannot clean up, so the next run with the same prefix does. A directory without a lock belongs
    to a run that has ended.
    """
    parent = pathlib.Path(os.environ.get("TMPDIR") or "/var/tmp")  # much is written; /tmp may be in memory
    for old in parent.glob(f"{prefix}-*"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > 60:  # a younger one may not be locked yet
                with _locked(old):
                    _remove(old)
    directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=parent))
    with _locked(directory):
        try:
            yield directory
        finally:
            _remove(directory)


@contextlib.contextmanager
def _locked(directory: pathlib.Path) -> typing.Iterator[None]:
    """Hold the lock of a directory.

    :raises BlockingIOError: when another process has it.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove(directory: pathlib.Path) -> None:
    for top in cgroups(directory):
        with contextlib.suppress(OSError):
            (top / "cgroup.kill").write_text("1")
        remove_cgroup(top)
    inside = f"{directory}/"
    listed = subprocess.run(
        ["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"], capture_output=True, text=True, check=False
    )
    for device, _, file in (line.partition(" ") for line in listed.stdout.splitlines()):
        if file.strip().startswith(inside):
            subprocess.run(["partx", "--delete", device], stderr=subprocess.DEVNULL, check=False)
            subprocess.run(["losetup", "--detach", device], check=False)
    for mount in reversed(_mounts(inside)):
        subprocess.run(["umount", "--lazy", mount], check=False)
    if _mounts(inside):  # removing the directory would also remove the files of the mounted file systems
        print(f"not removed, because still mounted: {', '.join(_mounts(inside))}", file=sys.stderr)
    else:
        shutil.rmtree(directory, ignore_errors=True)


def _mounts(inside: str) -> list[str]:
    lines = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    mounts = [line.split(" ")[4] for line in lines]
    return [mount for mount in mounts if mount.startswith(inside)]


def cgroups(directory: pathlib.Path) -> list[pathlib.Path]:
    """Return the control groups that are named after a scratch directory."""
    tops = (pathlib.Path("/sys/fs/cgroup/unified"), pathlib.Path("/sys/fs/cgroup"))
    return [path for top in tops for path in top.glob(f"{directory.name}*")]


def remove_cgroup(top: pathlib.Path) -> None:
    """Remove a control group and those below it, once their processes have ended."""
    deadline = time.monotonic() + 10
    while top.is_dir() and time.monotonic() < deadline:
        for directory, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        if top.is_dir():
            time.sleep(0.1)


def raise_at_sigterm() -> None:
    """Make SIGTERM end this process as Ctrl-C does, with all clean-up."""

    def interrupt(number: int, _: types.FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # once is enough
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


# --------------------------------------------------------------------------------------------------------------------


class _Progress:
    """Show the progress of a build: on a terminal in one line, otherwise with a line for each phase."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._start = time.monotonic()
        self._phase = ""
        self._tty = sys.stdout.isatty()

    def show(self, phase: str, hook: str) -> None:
        elapsed = time.monotonic() - self._start
        if self._tty:
            text = f"{self._name}: {elapsed // 60:.0f}:{elapsed % 60:02.0f} {phase} {hook}"
            print(f"\r{text[:100]:100}", end="", flush=True)
        elif phase != self._phase:
            print(f"{self._name}: {elapsed // 60:.0f}:{elapsed % 60:02.0f} {phase}", flush=True)
        self._phase = phase

    def end(self) -> None:
        if self._tty:
            print("\r" + " " * 100 + "\r", end="", flush=True)


def _run(command: list[str], environment: dict[str, str], log: pathlib.Path, progress: _Progress) -> dict[str, float]:
    """Run disk-image-create. Return the seconds of each phase.

    It runs in its own mount and process namespaces. When it or this process is killed, its mounts and processes end.
    """
    alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]
    seconds: dict[str, float] = {}
    phase, since = "", time.monotonic()
    with log.open("w", errors="replace") as kept:
        process = subprocess.Popen(
            [*alone, "--", *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=log.parent,
        )
        assert process.stdout
        try:
            for line in process.stdout:
                kept.write(line)
                stamped = _STAMP.match(line)
                text = stamped.group(2) if stamped else line
                new_phase, hook = _phase_and_hook(text)
                if new_phase:
                    progress.show(new_phase, hook)
                if new_phase and new_phase != phase:
                    seconds[phase] = seconds.get(phase, 0) + time.monotonic() - since
                    phase, since = new_phase, time.monotonic()
            status = process.wait()
        except BaseException:
            process.kill()
            process.stdout.read()  # ends when the last process of the namespace has ended
            process.wait()
            raise
        finally:
            progress.end()
    seconds[phase] = seconds.get(phase, 0) + time.monotonic() - since
    if status:
        lines = [_STAMP.sub(r"\2", line) for line in log.read_text(errors="replace").splitlines()]
        reasons = [line for line in lines if line.startswith("ERROR: ")] or lines
        shown = "\n  ".join(reasons[-15:])
        raise ImageError(f"disk-image-create failed:\n  {shown}\nIts whole output: {log}")
    return seconds


def _phase_and_hook(text: str) -> tuple[str, str]:
    """Return the phase and the hook that a line of disk-image-create announces, '' for none."""
    match = _PHASE.match(text)
    if match:
        return match.group(1), match.group(2)
    if "Converting image using qemu-img" in text:
        return "converting", ""
    return "", ""


def build(name: str, release: str, engine: str) -> Built:
    """Build an image, and replace one that exists.

    :raises ImageError: when the build fails.
    """
    directory = WORK / release / name
    if shutil.disk_usage(ROOT).free < _NEEDED_BYTES:
        raise ImageError("less than 6 GB of disk are free, and building an image needs that much")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for cache in ("image-create", "locks"):
        (CACHE / cache).mkdir(parents=True, exist_ok=True)
    start, made_from = time.monotonic(), digest(name, release, engine)
    with scratch("om-image-build") as temporary:
        environment = _environment(release, engine, temporary)
        command = ["disk-image-create", "-t", "qcow2,tar", "--no-tmpfs", "-o", str(directory / "image")]
        if name == "test":
            command.append("-u")  # compressing takes long, and the size of this image does not matter
        log = directory / "build.log"
        phases = _run([*command, *BASE, *elements(name, release)], environment, log, _Progress(name))
        seconds = time.monotonic() - start
        _unpack(directory / "image.tar", directory / "tree")
    built = Built(
        name=name,
        release=release,
        seconds=seconds,
        base_seconds=phases.get("root", 0.0),
        qcow2_bytes=(directory / "image.qcow2").stat().st_size,
        tree_bytes=_size(directory / "tree"),
        digest=made_from,
    )
    (directory / "result.json").write_text(json.dumps(dataclasses.asdict(built), indent=2) + "\n")
    return built


def _unpack(archive: pathlib.Path, tree: pathlib.Path) -> None:
    tree.mkdir()
    command = ["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", str(archive), "-C", str(tree)]
    subprocess.run(command, check=True)
    archive.unlink()
    for name in ("proc", "sys"):  # which disk-image-create leaves out of the archive
        (tree / name).mkdir(mode=0o555, exist_ok=True)


def _size(tree: pathlib.Path) -> int:
    seen: set[int] = set()
    total = 0
    for top, _, names in os.walk(tree):
        for name in names:
            state = os.lstat(os.path.join(top, name))
            if state.st_ino not in seen:
                seen.add(state.st_ino)
                total += state.st_blocks * 512
    return total


def present(name: str, release: str, engine: str) -> Built | None:
    """Return the image if it was built from the same sources, otherwise None."""
    try:
        built = Built(**json.loads((WORK / release / name / "result.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    there = (built.directory / "image.qcow2").is_file() and (built.directory / "tree/etc").is_dir()
    return built if there and built.digest == digest(name, release, engine) else None


@contextlib.contextmanager
def _alone() -> typing.Iterator[None]:
    """Allow one build at a time on this machine, because builds share apt's cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another build is under way: waiting", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def table(images: typing.Sequence[Built]) -> str:
    """Return a table of sizes and times. If there are two images, it has their difference, too."""
    lines = [f"{'image':10} {'qcow2':>9} {'files':>9} {'build':>8} {'without base system':>20}"]
    for image in images:
        lines.append(
            f"{image.name:10} {image.qcow2_bytes / 1e6:6.0f} MB {image.tree_bytes / 1e6:6.0f} MB {image.seconds:6.0f} s"
            f" {image.seconds - image.base_seconds:18.0f} s"
        )
    first, last = images[0], images[-1]
    if first is not last:
        extra = (last.seconds - last.base_seconds) - (first.seconds - first.base_seconds)
        lines.append(
            f"{'cost':10} {(last.qcow2_bytes - first.qcow2_bytes) / 1e6:+6.0f} MB "
            f"{(last.tree_bytes - first.tree_bytes) / 1e6:+6.0f} MB {'':8} {extra:+18.0f} s"
        )
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(prog="tools/image", description=__doc__.partition("\n")[0])
    parser.add_argument("name", nargs="?", default="overcloud", choices=NAMES[1:],
                        help="overcloud (default), or test, with Debian's services, for make image-test")  # fmt: skip
    parser.add_argument("--release", default=RELEASE, choices=MESSAGING, help="Debian's release (default: %(default)s)")
    parser.add_argument("--engine", default=os.environ.get("DIB_DISPATCH_ROUTER_ENGINE") or "embedded",
                        help="router: qdrouterd, skrouterd or embedded (default: %(default)s)")  # fmt: skip
    parser.add_argument("--no-plain", action="store_true", help="build no plain image to compare with")
    parser.add_argument("--keep", action="store_true", help="keep an image that was built from the same sources")
    return parser


def main(argv: typing.Sequence[str] | None = None) -> int:
    """Build the images. Return the exit code."""
    args = build_parser().parse_args(argv)
    if os.geteuid() != 0:
        print("tools/image: run this as root, because disk-image-create mounts file systems.", file=sys.stderr)
        return 2
    images = []
    raise_at_sigterm()
    try:
        with _alone():
            if not args.no_plain:
                images.append(present("plain", args.release, "") or build("plain", args.release, ""))
            there = present(args.name, args.release, args.engine) if args.keep else None
            images.append(there or build(args.name, args.release, args.engine))
    except ImageError as e:
        print(f"tools/image: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("tools/image: interrupted", file=sys.stderr)
        return 130
    print(table(images))
    for image in images[-1:]:
        print(f"bootable: {image.directory / 'image.qcow2'}\ntree:     {image.directory / 'tree'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
