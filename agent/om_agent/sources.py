"""Which configuration a service reads in addition to its own file. No program is run to find out.

It reads other files, and variables of its environment: oslo.config prefers OS_GROUP__OPTION to every file. The unit
also sets the number of threads with which uWSGI serves it.

A unit names files and directories on its command line. Debian's units start an init script, which composes the command
line from shell variables and files in /etc/default: what those name is taken as read after the service's own file.
oslo.config looks for files itself when no ``--config-file`` is given, and for directories when no ``--config-dir`` is
(``_parse_config_files`` in oslo_config/cfg.py): before the files of the command line, after those that it found itself.
"""

from __future__ import annotations

import glob
import pathlib
import re
import shlex
import typing

_UNIT_DIRECTORIES = (
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
_OPTION = re.compile(r"--config-(file|dir)(?:=|\s+)[\"']?([^\s\"';]+)")
_ASSIGNMENT = re.compile(r"^[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)=[\"']?([^\n\"'`]*)", re.MULTILINE)
_DIRECTIVE = re.compile(r"^[ \t]*(ExecStart|Environment|EnvironmentFile)[ \t]*=[ \t]*(.*)$", re.MULTILINE)
_INI = re.compile(r"--ini(?:-paste)?(?:=|\s+)[\"']?([^\s\"';]+)")
_THREADS = re.compile(r"[ \t]*threads[ \t]*=[ \t]*(\d+)[ \t]*\r?")
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")
_OPTION_VARIABLE = re.compile(r"OS_([A-Z0-9_]+?)__([A-Z0-9_]+)")  # oslo_config/sources/_environment.py


class Source(typing.NamedTuple):
    """A file that a service reads.

    :param unit: which of its units reads it.
    :param after: whether it is read after the service's own file, so that what it says counts.
    """

    path: str
    unit: str
    after: bool


class Variable(typing.NamedTuple):
    """A variable of a unit's environment that oslo.config takes for an option.

    :param path: of the file that sets it.
    :param section: as `om_agent.ini.read` returns it.
    """

    name: str
    path: str
    line: int
    unit: str
    section: str
    key: str
    value: str


class _Assigned(typing.NamedTuple):
    """The value of a variable, and the path of the file that sets it."""

    value: str
    path: str


class _Service(typing.NamedTuple):
    """What a unit says, its drop-ins included.

    :param command: ExecStart, with the variables that are known.
    """

    command: str
    variables: dict[str, _Assigned]


class Threaded(typing.NamedTuple):
    """The line that gives a program several threads.

    :param path: of uWSGI's ini file.
    """

    path: str
    line: int
    threads: int


def threads(units: typing.Iterable[str], root: pathlib.Path) -> tuple[Threaded, ...]:
    """Return where uWSGI is told to serve ``units`` with more than one thread; the last such line of each file.

    Debian's init scripts name the file in a variable, other units name it on the command line.
    """
    found: dict[str, Threaded] = {}
    for unit in units:
        command = _command(unit, root) or f"/etc/init.d/{unit}"
        script = command.split()[0].lstrip("-@:+!") if command.split() else ""
        by_script = _is_script(script, root)
        variables = _script_variables(_script_text(script, root), unit, root) if by_script else {}
        named = [variables["UWSGI_INI_PATH"]] if "UWSGI_INI_PATH" in variables else _INI.findall(command)
        for path in named:
            rows = _rows(root / path.lstrip("/"))
            given = [(number, int(m[1])) for number, row in rows if (m := _THREADS.fullmatch(row))]
            if given and given[-1][1] > 1:
                found[path] = Threaded(path, *given[-1])
    return tuple(found.values())


def variables(units: typing.Iterable[str], root: pathlib.Path) -> tuple[Variable, ...]:
    """Return the options that the environment of ``units`` sets, each file's once."""
    found: dict[tuple[str, str], Variable] = {}
    for unit in units:
        service = _service(unit, root)
        for name, (value, path) in service.variables.items() if service else ():
            option = _OPTION_VARIABLE.fullmatch(name)
            if not option or (name, path) in found:
                continue
            rows = [number for number, row in _rows(root / path.lstrip("/")) if f"{name}=" in row]
            line = rows[-1] if rows else 1
            section = option[1] if option[1] == "DEFAULT" else option[1].lower()
            found[name, path] = Variable(name, path, line, unit, section, option[2].lower(), value)
    return tuple(found.values())


def _rows(path: pathlib.Path) -> list[tuple[int, str]]:
    """Return the lines of a file with their numbers; none when it cannot be read."""
    try:
        return list(enumerate(path.read_text(errors="replace").split("\n"), 1))
    except OSError:
        return []


def other_files(own: str, units: typing.Iterable[str], root: pathlib.Path) -> tuple[Source, ...]:
    """Return the files that ``units`` read in addition to ``own``, a path below ``root``, each once."""
    found: dict[str, Source] = {}
    for unit in units:
        command = _command(unit, root)
        if command is None and not (root / f"etc/init.d/{unit}").is_file():
            continue
        for source in _of_unit(own, unit, command or f"/etc/init.d/{unit}", root):
            known = found.get(source.path)
            if source.path != own and (known is None or (source.after and not known.after)):
                found[source.path] = source
    return tuple(found.values())


def _of_unit(own: str, unit: str, command: str, root: pathlib.Path) -> typing.Iterator[Source]:
    words = command.split()
    script = words[0].lstrip("-@:+!") if words else ""
    by_script = _is_script(script, root)
    options = _of_script(script, unit, root) if by_script else _known(_OPTION.findall(command))
    asked = [path for kind, path in options if kind == "file"]
    project = own.split("/")[2]
    names = dict.fromkeys((project, unit.removeprefix("openstack-").partition("@")[0], pathlib.PurePath(script).name))
    if not asked:
        yield from (Source(path, unit, True) for name in names if (path := f"/etc/{project}/{name}.conf") != own)
        yield Source(f"/usr/share/{project}/{project}-dist.conf", unit, False)
    if not any(kind == "dir" for kind, _ in options):
        for name in names:
            for directory in (f"/etc/{project}/{name}.conf.d", f"/etc/{name}.conf.d"):
                yield from (Source(path, unit, not asked) for path in _files(directory, root))
    passed = by_script or own not in asked
    for kind, path in options:
        passed = passed or path == own
        yield from (Source(p, unit, passed) for p in ([path] if kind == "file" else _files(path, root)))


def _files(directory: str, root: pathlib.Path) -> list[str]:
    """Return the files that oslo.config reads of a directory."""
    return [f"{directory}/{p.name}" for p in sorted((root / directory.lstrip("/")).glob("*.conf"))]


def _command(unit: str, root: pathlib.Path) -> str | None:
    """Return the ExecStart of a unit; None when there is no such unit."""
    service = _service(unit, root)
    return service.command if service else None


def _service(unit: str, root: pathlib.Path) -> _Service | None:
    """Return what a unit says; None when there is no such unit."""
    names = list(dict.fromkeys((unit, re.sub(r"@.*", "@", unit))))  # a template's file stands for its instances
    directories = [root / d for d in _UNIT_DIRECTORIES]
    units = (directory / f"{name}.service" for name in names for directory in directories)
    file = next((path for path in units if path.is_file()), None)
    if file is None:
        return None
    started: list[str] = []
    given: dict[str, _Assigned] = {}
    from_files: dict[str, _Assigned] = {}  # EnvironmentFile= counts before Environment= (systemd.exec(5))
    for path in (file, *_dropins(names, directories)):
        for key, value in _DIRECTIVE.findall(_text(path)):
            empty = not value.strip()  # which forgets what was said before
            if key == "ExecStart":
                started = [] if empty else [*started, value]
            elif key == "Environment":
                given = {} if empty else {**given, **_at(_assigned(value), path, root)}
            else:
                from_files = {} if empty else {**from_files, **_from_files(value, root)}
    known = {**given, **from_files}
    return _Service(_expand(" ".join(started), {name: one.value for name, one in known.items()}), known)


def _at(values: dict[str, str], path: pathlib.Path, root: pathlib.Path) -> dict[str, _Assigned]:
    return {name: _Assigned(value, f"/{path.relative_to(root)}") for name, value in values.items()}


def _from_files(value: str, root: pathlib.Path) -> dict[str, _Assigned]:
    """Return the variables of the files that a line EnvironmentFile= names, which may have wildcards."""
    found: dict[str, _Assigned] = {}
    pattern = value.strip().removeprefix("-").lstrip("/")
    for name in sorted(glob.glob(f"{glob.escape(str(root))}/{pattern}")):
        path = pathlib.Path(name)
        found.update(_at(dict(_ASSIGNMENT.findall(_text(path))), path, root))
    return found


def _dropins(names: typing.Sequence[str], directories: typing.Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """Return a unit's drop-ins in the order in which systemd reads them: by file name, wherever they are.

    Of several with one name the one for the most specific unit counts, then the one in the first directory
    (systemd.unit(5)). ``a-.service.d`` is for all services whose names begin with ``a-``, ``service.d`` for all.
    """
    found: dict[str, pathlib.Path] = {}
    hyphens = [place for place, letter in enumerate(names[0].partition("@")[0], 1) if letter == "-"]
    beginnings = [names[0][:place] for place in reversed(hyphens) if place < len(names[0])]
    for name in (*names, *beginnings, ""):
        for directory in directories:
            for path in directory.glob(f"{name}.service.d/*.conf" if name else "service.d/*.conf"):
                found.setdefault(path.name, path)
    return [found[name] for name in sorted(found)]


def _assigned(value: str) -> dict[str, str]:
    """Return the variables of a line Environment=, which may set several."""
    try:
        words = shlex.split(value)
    except ValueError:  # a quotation mark without its fellow: systemd ignores the line
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def _text(path: pathlib.Path) -> str:
    """Return a file's text, its continued lines joined; '' when it cannot be read."""
    try:
        return re.sub(r"\\\n\s*", " ", path.read_text(errors="replace"))
    except OSError:
        return ""


def _is_script(path: str, root: pathlib.Path) -> bool:
    return path.startswith("/etc/init.d/") and (root / path.lstrip("/")).is_file()


def _of_script(path: str, unit: str, root: pathlib.Path) -> list[tuple[str, str]]:
    """Return the options that a shell script names, with those of the files that Debian's scripts source."""
    text = _script_text(path, root)
    variables = _script_variables(text, unit, root)
    text = f"{text}\n{_without_comments(_defaults(unit, root))}"
    options = _OPTION.findall(text)
    if (
        "UWSGI_PORT" in variables
    ):  # then the script does not pass its CONFIG_FILE, and the service looks for files itself
        options = [(kind, value) for kind, value in options if value != "${CONFIG_FILE}"]
    return _known((kind, _expand(value, variables)) for kind, value in options)


def _script_text(path: str, root: pathlib.Path) -> str:
    return _without_comments(_text(root / path.lstrip("/")))


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.lstrip()[:1] != "#")


def _defaults(unit: str, root: pathlib.Path) -> str:
    """Return what a Debian script sources."""
    return "\n".join(_text(root / "etc/default" / name) for name in ("openstack", unit))


def _script_variables(text: str, unit: str, root: pathlib.Path) -> dict[str, str]:
    """Return the variables of a script's text; what /etc/default says counts before what the script says."""
    variables: dict[str, str] = {}
    for name, value in (*_ASSIGNMENT.findall(_defaults(unit, root)), *_ASSIGNMENT.findall(text)):
        variables.setdefault(name, value)  # what comes later is a default of the script's
    return variables


def _known(options: typing.Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the options, each once, but for those whose path is not known: a variable in it was not found."""
    return [(kind, value) for kind, value in dict.fromkeys(options) if value.startswith("/") and "$" not in value]


def _expand(text: str, variables: typing.Mapping[str, str]) -> str:
    """Return ``text`` with the variables that are known; a few rounds, since their values may hold others."""
    for _ in range(4):
        text = _VARIABLE.sub(lambda match: variables.get(match[1], match[0]), text)
    return text
