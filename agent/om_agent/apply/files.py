"""Files on disk, changed all together or not at all.

A transaction is a journal and a copy of every file that may change, beside that file: putting back is a rename, which
needs no space, so it works on a full disk. The journal goes through the phases

    prepare -> active -> puppet -> committed

and says at any instant, to this process or to the next one after a SIGKILL, what to do: before ``active`` nothing was
touched, from ``active`` on the copies go back, after ``committed`` they are thrown away. Its paths are those below the
root directory, so that a run in an image that was mounted somewhere is put right by the agent in the booted image.

A power loss may undo the last changes of one directory and keep those of another: they may be on different file
systems. So each step syncs every directory that it changed before the journal says that the step is done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import platform
import re
import secrets
import shutil
import stat
import struct
import time
import typing

from om_agent import errors, kinds, proc, render
from om_agent.plan import layout, services

PREPARE, ACTIVE, PUPPET, COMMITTED = "prepare", "active", "puppet", "committed"

_OLD = ".om-agent-old"
_NEW = ".om-agent-new"
_LOCK_POLL = 0.1  # seconds
# What opening says of a path where no regular file is.
_NOT_A_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
# Who could write here could have puppet, which runs as root, do anything.
_OWN_DIRECTORIES = (layout.STATE_DIR, layout.CONFIG_DIR, layout.HIERADATA.rpartition("/")[0])


@dataclasses.dataclass(frozen=True)
class State:
    """What the last successful apply left: no secret is in it.

    :param files: paths of the files that are ours.
    :param units: units of ours that run here.
    :param sasl: by path of a SASL database: (fingerprint of its users, SHA-256 of its bytes).
    :param changes: how many the last apply made that had anything to do.
    :param node: the node's name in the metadata; '' in the state of an older agent.
    :param drivers: by path of a service's file, the sections of the drivers that it was made to use.
    :param sections: by path of a service's file, the sections that were added to it. The state of an older agent has
        none, so the sections that it added stay when they become empty.
    :param queue_options: names of the options about queues that services were given.
    """

    files: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    sasl: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    changes: int = 0
    node: str = ""
    drivers: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    sections: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    queue_options: tuple[str, ...] = ()


def on_disk(root: pathlib.Path, path: str) -> pathlib.Path:
    """Return where ``path`` is below ``root``."""
    return root / path.lstrip("/")


def state_dir(root: pathlib.Path) -> pathlib.Path:
    """Return the agent's own directory below ``root``."""
    return on_disk(root, layout.STATE_DIR)


@contextlib.contextmanager
def lock(root: pathlib.Path, timeout: float) -> typing.Iterator[int]:
    """Hold the node's lock; yields the descriptor, which puppet inherits, so that a puppet that outlives a killed
    agent still keeps the next one waiting.

    :param timeout: seconds to wait for another agent.
    :raises om_agent.errors.Busy: when it does not finish in time.
    :raises om_agent.errors.ApplyFailed: when the state directory cannot be made.
    """
    directory = state_dir(root)
    problems = hazards(root, [f"{layout.STATE_DIR}/lock"])
    if problems:
        raise errors.NotReady(problems)
    try:
        for missing in _missing_parents(root, f"{layout.STATE_DIR}/lock"):
            with contextlib.suppress(FileExistsError):  # another agent made it meanwhile
                on_disk(root, missing).mkdir()
                on_disk(root, missing).chmod(0o755)  # whatever the umask
                _sync_directory(on_disk(root, missing).parent)
        directory.chmod(0o700)
        descriptor = _open_lock(directory / "lock")
    except OSError as e:
        if e.errno in (errno.ELOOP, errno.EISDIR, errno.EEXIST, errno.ENOTDIR, errno.ENXIO):
            raise errors.ApplyFailed(
                f"{e.filename} cannot be used: {e.strerror}. It is not as om-agent makes it: remove it and run again."
            ) from None
        raise errors.ApplyFailed(
            f"{directory} cannot be used: {e.strerror}. Run om-agent as root, or free some space."
        ) from None
    try:
        _wait_for_lock(descriptor, directory / "lock", timeout)
        yield descriptor
    finally:
        os.close(descriptor)


def _open_lock(path: pathlib.Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ENXIO, "it is a pipe or a device", str(path))
    return descriptor


def _wait_for_lock(descriptor: int, path: pathlib.Path, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise errors.Busy(
                    f"Another om-agent, or a puppet that it started, still holds {path} after {timeout:.0f} s. "
                    "Wait for it to end, or see what it hangs on (fuser tells its process id)."
                ) from None
            time.sleep(_LOCK_POLL)
        else:
            return


# -- the way to a file -----------------------------------------------------------------------------------------------


def hazards(root: pathlib.Path, paths: typing.Iterable[str]) -> list[errors.Problem]:
    """Return what could lead a write to ``paths`` elsewhere, or let somebody else say what this program does.

    That is a directory on the way in which everybody may put links, sticky or not; a link there that somebody else
    made (as fs.protected_symlinks, proc(5)), or that leads out of ``root``; and a directory of ours that is another
    user's. A directory that belongs to a service is trusted with the service's own files.
    """
    problems = []
    parents = dict.fromkeys(str(parent) for path in paths for parent in pathlib.PurePosixPath(path).parents)
    real_root = os.path.realpath(root)
    seen: set[str] = set()
    for parent in sorted(parents):
        place = on_disk(root, parent)
        if not os.path.lexists(place):
            continue
        real = os.path.realpath(place)
        trouble = _link_trouble(place, real, real_root)
        if trouble:
            problems.append(trouble)
            continue
        inside = [str(p) for p in (pathlib.Path(real), *pathlib.Path(real).parents) if _below(str(p), real_root)]
        for directory in [d for d in inside if d not in seen and os.path.isdir(d)]:
            seen.add(directory)
            if os.stat(directory).st_mode & stat.S_IWOTH:
                problems.append(kinds.problem(directory, "anybody-writes"))
        if parent in _OWN_DIRECTORIES and os.path.isdir(real) and os.stat(real).st_uid not in (0, os.geteuid()):
            problems.append(kinds.problem(str(place), "not-our-own", owner=os.stat(real).st_uid))
    return problems


def _link_trouble(place: pathlib.Path, real: str, real_root: str) -> errors.Problem | None:
    found = place.lstat()
    if stat.S_ISLNK(found.st_mode) and found.st_uid not in (0, os.geteuid()):
        return kinds.problem(str(place), "link-of-another", owner=found.st_uid)
    if not _below(real, real_root):
        return kinds.problem(str(place), "link-leads-out", root=real_root)
    return None


def _below(path: str, directory: str) -> bool:
    return os.path.commonpath([path, directory]) == directory


# What lsattr shows and even root cannot get round (linux/fs.h): flag, letter, name, what is not possible then.
_ATTRIBUTES = (
    (0x10, "i", "immutable", "change it"),
    (0x20, "a", "append only", "replace or shorten what is in it"),
)


def _get_flags_request() -> int:
    """Return the number of FS_IOC_GETFLAGS, _IOR('f', 1, long): some architectures number directions otherwise."""
    reading = 1 if platform.machine().startswith(("ppc", "mips", "sparc", "alpha")) else 2
    return reading << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 1


def obstacles(root: pathlib.Path, replaced: typing.Iterable[str], edited: typing.Iterable[str]) -> list[errors.Problem]:
    """Return what keeps even root from changing these files: attributes, mounts, file systems that are read-only.

    :param replaced: files in whose place another is put, or that are removed.
    :param edited: files that are changed in place; copies are made next to all of them.
    """
    replaced = tuple(replaced)
    mounted = _mount_points()
    problems = []
    directories = set()
    for path in dict.fromkeys((*replaced, *edited)):
        place = on_disk(root, path)
        directories.add(next(parent for parent in place.parents if parent.is_dir()))
        if not place.is_symlink() and place.is_file():
            problems += _fixed(place, "the file")
            if path in replaced and os.path.realpath(place) in mounted:
                problems.append(kinds.problem(str(place), "mounted-file"))
    for directory in sorted(directories):
        problems += _fixed(directory, "the directory")
        if os.statvfs(directory).f_flag & os.ST_RDONLY:
            problems.append(kinds.problem(str(directory), "read-only-directory"))
    return problems


def _fixed(place: pathlib.Path, what: str) -> list[errors.Problem]:
    """Return the attributes that keep a file or directory as it is."""
    flags = bytearray(struct.calcsize("l"))
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return []  # what reads it later reports that
    try:
        fcntl.ioctl(descriptor, _get_flags_request(), flags)
    except OSError:
        return []  # not every file system has them
    finally:
        os.close(descriptor)
    found = struct.unpack_from("i", flags)[0]  # the kernel writes an int, whatever the request says
    return [
        kinds.problem(str(place), "attribute", what=what, flag=letter, name=name, lacking=lacking)
        for bit, letter, name, lacking in _ATTRIBUTES
        if found & bit
    ]


def _mount_points() -> frozenset[str]:
    """Return where something is mounted; a single file can be such a place too."""
    try:
        text = pathlib.Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return frozenset()
    places = (line.split(" ")[4] for line in text.splitlines())
    return frozenset(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), place) for place in places)


# -- single files ----------------------------------------------------------------------------------------------------


def write(path: pathlib.Path, content: bytes, mode: int, uid: int | None = None, gid: int | None = None) -> None:
    """Replace ``path`` by a whole new file, durably; a symbolic link there is replaced, not followed."""
    new = path.with_name(f".{path.name}{_NEW}")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            if uid is not None or gid is not None:
                os.fchown(stream.fileno(), -1 if uid is None else uid, -1 if gid is None else gid)
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    _sync_directory(path.parent)


def remove(path: pathlib.Path) -> None:
    """Remove a file, durably; it is no error when there is none."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()
        _sync_directory(path.parent)


def _sync_directory(directory: pathlib.Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(path: pathlib.Path) -> None:
    """Make the content of a regular file durable, and that it is there; None of either is fine too."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        if e.errno in _NOT_A_FILE:
            return  # removed, or not ours to judge: the look at the files after puppet's run has been
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _sync_directory(path.parent)


def digest(content: bytes) -> str:
    """Return the SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read(path: pathlib.Path) -> bytes | None:
    """Return the content of a regular file; None when there is none, or when it is a link or anything else."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        with open_regular(path) as stream:
            return stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def open_regular(path: pathlib.Path, writable: bool = False) -> typing.BinaryIO:
    """Open a regular file: neither follow a link that was put there just now, nor wait for a pipe."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags | (os.O_RDWR if writable else os.O_RDONLY))
    stream: typing.BinaryIO = os.fdopen(descriptor, "r+b" if writable else "rb")
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "it is no regular file any more", str(path))
    return stream


def same(path: pathlib.Path, content: bytes, mode: int, uid: int | None, gid: int | None) -> bool:
    """Return whether ``path`` is a regular file of just this content, mode and owner."""
    if read(path) != content:
        return False
    found = path.lstat()
    owned = uid in (None, found.st_uid) and gid in (None, found.st_gid)
    return owned and stat.S_IMODE(found.st_mode) == mode


# -- state -----------------------------------------------------------------------------------------------------------


def load_state(root: pathlib.Path) -> State:
    """Return what the last apply left; an unreadable state counts as none, since apply compares with the disk."""
    try:
        raw = json.loads(read(state_dir(root) / "state.json") or b"")
        sasl = {str(k): (str(v[0]), str(v[1])) for k, v in raw["sasl"].items()}
        drivers = raw["drivers"] if "drivers" in raw else _written_drivers(root)
        return State(
            files=tuple(map(str, raw["files"])),
            units=tuple(map(str, raw["units"])),
            sasl=sasl,
            changes=int(raw.get("changes", 0)),
            node=str(raw.get("node", "")),
            drivers=_by_path(drivers),
            sections=_by_path(raw.get("sections", {})),
            queue_options=tuple(map(str, raw.get("queue_options", ()))),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return State()


def _by_path(raw: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    """Return lists of sections by path as JSON has them, checked."""
    return {str(path): tuple(map(str, sections)) for path, sections in raw.items()}


def _written_drivers(root: pathlib.Path) -> dict[str, list[str]]:
    """Return `State.drivers` as the hieradata tells them, for the state file of an agent that did not note them."""
    data = json.loads(read(on_disk(root, layout.HIERADATA)) or b"{}")
    target = "" if root == pathlib.Path("/") else str(root)
    found = {}
    for path, wanted in data.get("om_messaging::config_files", {}).items():
        sections = wanted["settings"].items()
        written = [name for name, keys in sections if any(value is not None for value in keys.values())]
        found[path.removeprefix(target)] = [name for name in written if name in services.DRIVERS.values()]
    return found


def dump_state(state: State) -> bytes:
    """Return the bytes of ``state.json``."""
    return json.dumps({"version": 1, **dataclasses.asdict(state)}, indent=2).encode() + b"\n"


def load_key(root: pathlib.Path, make: bool) -> bytes:
    """Return this node's own random key; it never leaves the node.

    :param make: keep a new one at first use.
    """
    path = state_dir(root) / "key"
    key = read(path)
    if key is None or len(key) != 32:
        key = secrets.token_bytes(32)
        if make:
            write(path, key, 0o600)
    return key


# -- transaction -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Transaction:
    """A journal in use. `begin` makes one, `commit` or `roll_back` ends it."""

    root: pathlib.Path
    journal: dict[str, typing.Any]
    _doubtful: bool = False  # whether the journal on disk may be of a later phase than this one

    def phase(self, name: str) -> None:
        """Enter the next phase, durably."""
        entered = {**self.journal, "phase": name}
        content = json.dumps(entered).encode()
        self._doubtful = True
        try:
            write(_journal_path(self.root), content, 0o600)
        except OSError:
            # A full disk fails before the new journal has its name: then the one on disk is surely the earlier one,
            # and putting back needs no space.
            with contextlib.suppress(OSError):
                self._doubtful = read(_journal_path(self.root)) == content
            raise
        self.journal = entered  # only now: a phase that is not on disk has not begun
        self._doubtful = False

    def put(self, file: render.File, content: bytes, uid: int | None, gid: int | None) -> None:
        """Write one file of ours."""
        write(on_disk(self.root, file.path), content, file.mode, uid, gid)

    def remove(self, path: str) -> None:
        """Remove one file."""
        remove(on_disk(self.root, path))

    @property
    def committed(self) -> bool:
        """True when it is too late to put anything back."""
        return bool(self.journal["phase"] == COMMITTED)

    def commit(self) -> None:
        """Keep everything."""
        with proc.uninterrupted():
            for entry in self.journal["entries"]:
                _sync_file(on_disk(self.root, entry["path"]))  # puppet does not: a power loss could empty the file
            self.phase(COMMITTED)
            with contextlib.suppress(OSError):  # all is well; the next run throws away what is left
                _finish(self.root, self.journal)

    def roll_back(self) -> bool:
        """Put everything back; return whether puppet had begun, so that units may run with what is now gone.

        :raises om_agent.errors.RollbackFailed: when a file cannot be put back; the journal stays.
        """
        with proc.uninterrupted():
            if self._doubtful:  # else a run after this one could throw away the copies that are not back yet
                try:
                    self.phase(self.journal["phase"])
                except OSError as e:
                    raise errors.RollbackFailed(
                        f"Nothing was put back, since {_journal_path(self.root)} cannot be written ({e.strerror}). "
                        "Fix that and run om-agent apply again: it goes on where this run stopped."
                    ) from None
            return _restore(self.root, self.journal)


def begin(root: pathlib.Path, paths: typing.Iterable[str], units: typing.Iterable[str]) -> Transaction:
    """Copy every file that may change, and make the directories that are missing.

    :param paths: files that will be written, edited or removed.
    :param units: units to restart should everything be put back after puppet ran.
    """
    entries: list[dict[str, typing.Any]] = []
    directories: list[str] = []
    paths = tuple(dict.fromkeys(paths))
    problems = hazards(root, paths)
    if problems:
        raise errors.NotReady(problems)
    for path in paths:
        entry = _describe(root, path)
        if entry is None:
            found = "a directory or device"
            raise errors.NotReady([kinds.problem(str(on_disk(root, path)), "not-a-file", found=found)])
        entries.append(entry)
        directories += _missing_parents(root, path)
    directories = list(dict.fromkeys(directories))
    journal = {"phase": PREPARE, "entries": entries, "directories": directories, "units": list(units)}
    transaction = Transaction(root, journal)
    try:
        transaction.phase(PREPARE)
        for directory in directories:
            made = on_disk(root, directory)
            os.mkdir(made, 0o755)
            os.chmod(made, 0o755)  # whatever the umask
            _sync_directory(made.parent)
        for entry in entries:
            _copy_aside(root, entry)
        transaction.phase(ACTIVE)
    except BaseException:
        with contextlib.suppress(errors.RollbackFailed):
            transaction.roll_back()
        raise
    return transaction


def recover(root: pathlib.Path) -> tuple[str, ...] | None:
    """End what an interrupted run left behind.

    :return: None when there was nothing; else the units that may run with a configuration that is gone.
    :raises om_agent.errors.RollbackFailed: when a file cannot be put back.
    """
    for leftover in state_dir(root).glob(f".*{_NEW}"):  # of a journal or a key that never came to be
        leftover.unlink()
    remove_directory(sasl_dir(root))
    path = _journal_path(root)
    content = read(path)
    if content is None:
        return None
    journal = _parse_journal(content)
    if journal is None:
        raise errors.RollbackFailed(
            f"{path} is damaged, so what an interrupted run left cannot be put back. "
            f"Look for files that end in {_OLD} beside the configuration files, then remove {path}."
        )
    with proc.uninterrupted():
        began = _restore(root, journal)
    return tuple(journal["units"]) if began else ()


def sasl_dir(root: pathlib.Path) -> pathlib.Path:
    """Return where SASL databases are made; `recover` removes what a killed run left there."""
    return state_dir(root) / "sasl"


def remove_directory(path: pathlib.Path) -> None:
    """Remove a directory with all that is in it; anything else stays, since rmtree would wait for a pipe's writer.

    :raises om_agent.errors.ApplyFailed: when that is not possible.
    """
    if not path.is_dir() or path.is_symlink():
        return
    try:
        shutil.rmtree(path)
    except OSError as e:
        why = errors.limit(e.errno) or e.strerror
        raise errors.ApplyFailed(
            f"{path} may hold passwords and cannot be removed ({why}). Remove it and run again."
        ) from None


def unfinished(root: pathlib.Path) -> bool:
    """Return whether a run's changes are neither complete nor taken back."""
    return os.path.lexists(_journal_path(root))


def _parse_journal(content: bytes) -> dict[str, typing.Any] | None:
    """Return a journal as `begin` writes it, or None when this is not one."""
    try:
        journal = json.loads(content)
        entries = journal["entries"]
        texts = [*journal["directories"], *journal["units"], *(e[k] for e in entries for k in ("path", "link"))]
        whole = all(isinstance(t, str) for t in texts) and all(isinstance(e["copy"], bool) for e in entries)
        return journal if whole and journal["phase"] in (PREPARE, ACTIVE, PUPPET, COMMITTED) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _journal_path(root: pathlib.Path) -> pathlib.Path:
    return state_dir(root) / "journal.json"


def _old(root: pathlib.Path, path: str) -> pathlib.Path:
    """Return where the copy of ``path`` is kept."""
    place = on_disk(root, path)
    return place.with_name(f".{place.name}{_OLD}")


def _missing_parents(root: pathlib.Path, path: str) -> list[str]:
    missing = []
    for parent in pathlib.PurePosixPath(path).parents:
        if on_disk(root, str(parent)).exists():
            break
        missing.append(str(parent))
    return missing[::-1]


def _describe(root: pathlib.Path, path: str) -> dict[str, typing.Any] | None:
    """Return what has to be known to put ``path`` back; None when it is neither a file nor a link nor absent."""
    entry: dict[str, typing.Any] = {"path": path, "copy": False, "link": ""}
    try:
        mode = on_disk(root, path).lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return entry
    if stat.S_ISLNK(mode):
        entry["link"] = os.readlink(on_disk(root, path))
        return entry
    entry["copy"] = True
    return entry if stat.S_ISREG(mode) else None


def _copy_aside(root: pathlib.Path, entry: dict[str, typing.Any]) -> None:
    """Copy one file beside itself with owner, times and labels, closed to all others: an old password may be in it,
    and it may stay for long when this run is killed. Whoever owns the directory cannot exchange what is looked at:
    all of it is done by descriptor."""
    if not entry["copy"]:
        return
    source, old = on_disk(root, entry["path"]), _old(root, entry["path"])
    with contextlib.suppress(FileNotFoundError):
        old.unlink()
    descriptor = os.open(old, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    copystat: typing.Any = shutil.copystat  # takes descriptors too, as all that it calls does
    with os.fdopen(descriptor, "wb") as to, open_regular(source) as original:
        shutil.copyfileobj(original, to)
        to.flush()
        found = os.fstat(original.fileno())
        with contextlib.suppress(PermissionError):  # as somebody else than root one's own files are all there is
            os.fchown(to.fileno(), found.st_uid, found.st_gid)
        copystat(original.fileno(), to.fileno())
        os.fchmod(to.fileno(), 0o600)
        entry["mode"] = stat.S_IMODE(found.st_mode)
        os.fsync(to.fileno())
    _sync_directory(old.parent)


def _restore(root: pathlib.Path, journal: dict[str, typing.Any]) -> bool:
    """Put back or throw away the copies, as the phase says; see the head of this module."""
    phase = journal["phase"]
    if phase in (PREPARE, COMMITTED):
        _finish_or_tell(root, journal, remove_directories=phase == PREPARE)
        return False
    failures = []
    for entry in journal["entries"]:
        try:
            _put_back(root, entry)
        except OSError as e:
            failures.append(f"{on_disk(root, entry['path'])} ({e.strerror})")
    if failures:
        raise errors.RollbackFailed(
            f"These files could not be put back: {', '.join(failures)}. Fix this and run om-agent apply again: "
            "it goes on where it stopped."
        )
    _finish_or_tell(root, journal, remove_directories=True)
    return bool(phase == PUPPET)


def _finish_or_tell(root: pathlib.Path, journal: dict[str, typing.Any], remove_directories: bool) -> None:
    try:
        _finish(root, journal, remove_directories)
    except OSError as e:
        raise errors.RollbackFailed(
            f"Every file is as it should be, but copies of the old ones may be left next to them, since "
            f"{e.filename or 'a directory'} cannot be changed ({e.strerror}). They end in {_OLD} and may hold "
            "passwords. Fix that and run om-agent apply again: it removes them."
        ) from None


def _put_back(root: pathlib.Path, entry: dict[str, typing.Any]) -> None:
    path = on_disk(root, entry["path"])
    if entry["copy"]:
        with contextlib.suppress(FileNotFoundError):  # gone: a run before this one has put it back already
            _open_up(_old(root, entry["path"]), entry.get("mode"))
            _replace(_old(root, entry["path"]), path)
        return
    remove(path)
    if entry["link"]:
        os.symlink(entry["link"], path)
        _sync_directory(path.parent)


def _open_up(old: pathlib.Path, mode: int | None) -> None:
    """Give the copy the mode that its original had; journals of earlier versions do not know it, and need not."""
    if mode is not None:
        with contextlib.suppress(PermissionError), open_regular(old) as stream:  # closed to its owner: done already
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())


def _replace(old: pathlib.Path, path: pathlib.Path) -> None:
    """Put the copy in the file's place; a mounted file (containers mount single ones) cannot be replaced, so its
    content is."""
    try:
        os.replace(old, path)
    except OSError as e:
        if e.errno != errno.EBUSY:
            raise
        copystat: typing.Any = shutil.copystat  # takes descriptors too
        with open_regular(old) as source, open_regular(path, writable=True) as target:
            shutil.copyfileobj(source, target)
            target.truncate()
            target.flush()
            copystat(source.fileno(), target.fileno())
            os.fsync(target.fileno())
        old.unlink()
    _sync_directory(path.parent)


def _finish(root: pathlib.Path, journal: dict[str, typing.Any], remove_directories: bool = False) -> None:
    """Remove copies, unfinished files and, when that is durable, the journal."""
    changed: set[pathlib.Path] = set()
    for entry in journal["entries"]:
        path = on_disk(root, entry["path"])
        for leftover in (_old(root, entry["path"]), path.with_name(f".{path.name}{_NEW}")):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                leftover.unlink()
        changed.add(path.parent)
    if remove_directories:
        for directory in reversed(journal["directories"]):
            with contextlib.suppress(OSError):  # somebody else's file may be in it by now
                on_disk(root, directory).rmdir()
            changed.add(on_disk(root, directory).parent)
    for parent in sorted(changed):  # all of them: a run that was killed may have changed one and not synced it
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            _sync_directory(parent)
    remove(_journal_path(root))


def full_disk(error: OSError) -> bool:
    """Return whether ``error`` says that there is no space left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
