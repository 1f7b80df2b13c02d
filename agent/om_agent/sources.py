"""Which configuration a service reads in addition to its own file. No program is run to find out.

It reads other files, and variables of its environment: oslo.config prefers OS_GROUP__OPTION to every file. The unit
also sets the number of threads with which uWSGI serves it.

A unit names files and directories on its command line. Debian's units start an init script, which composes the command
line from shell variables and files in /etc/default: what those name is taken as read after the service's own file.
oslo.config looks for files itself when no ``--config-file`` is given, and for directories when no ``--config-dir`` is
(``_parse_config_files`` in oslo_config/cfg.py): before the files of the command line, after those that it found itself.
The WSGI programs of some projects take the names of these files from their environment instead.
"""

from __future__ import annotations

import glob
import os
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
_SYSTEMD_DIRECTORIES = ("etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd", "lib/systemd")
_OPTION = re.compile(r"--config-(file|dir)(?:=|\s+)[\"']?([^\s\"';]+)")
_ASSIGNMENT = re.compile(r"^[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)=[\"']?([^\n\"'`]*)", re.MULTILINE)
_EXPORT = re.compile(r"^[ \t]*export[ \t]+([A-Za-z_]\w*)=[\"']?([^\n\"'`]*)", re.MULTILINE)
_DIRECTIVE = re.compile(
    r"^[ \t]*(ExecStart|Environment|EnvironmentFile|UnsetEnvironment)[ \t]*=[ \t]*(.*)$", re.MULTILINE
)
_DEFAULTS = re.compile(r"^[ \t]*DefaultEnvironment[ \t]*=[ \t]*(.*)$", re.MULTILINE)
_INI = re.compile(r"--ini(?:-paste)?(?:=|\s+)[\"']?([^\s\"';]+)")
_UWSGI_OPTION = re.compile(r"\s*([\w-]+)\s*=\s*(.*?)\s*")
_UWSGI_VARIABLE = re.compile(r"%\(([\w-]+)\)")
_ENV = re.compile(r"--env(?:=|\s+)[\"']?(\w+=[^\s\"']*)")
_WSGI = re.compile("wsgi|gunicorn|apache|httpd")  # what runs a WSGI program, in its command line
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")
_OPTION_VARIABLE = re.compile(r"OS_([A-Z0-9_]+?)__([A-Z0-9_]+)")  # oslo_config/sources/_environment.py


class _Names(typing.NamedTuple):
    """The variables with which a project's programs are told the files to read, in place of those that they look for.

    :param directory: where ``files`` are; ``home`` without it.
    :param files: names or paths between semicolons.
    :param usual: what is read of the directory when there is no such variable.
    :param file: the path of the only file.
    :param snippets: the directory whose files are read after that.
    :param always: whether every program of the project reads them, and not the WSGI programs alone.
    """

    directory: str = ""
    files: str = ""
    usual: tuple[str, ...] = ()
    home: str = ""
    file: str = ""
    snippets: str = ""
    always: bool = False


# By the directory in /etc. nova/api/openstack/wsgi_app.py, neutron/server/__init__.py, keystone/server/flask/core.py,
# glance/common/wsgi_app.py, designate/api/wsgi.py, masakari/cmd/api.py, ironic/common/config.py. No other project of
# the catalogue has such a variable; placement has OS_PLACEMENT_CONFIG_DIR, and no messaging.
_NAMES: typing.Mapping[str, _Names] = {
    "designate": _Names("OS_DESIGNATE_CONFIG_DIR", "", ("api-paste.ini", "designate.conf"), "/etc/designate"),
    "glance": _Names(
        "OS_GLANCE_CONFIG_DIR",
        "",
        ("glance-api-paste.ini", "glance-image-import.conf", "glance-api.conf"),
        "/etc/glance",
    ),
    "ironic": _Names(file="IRONIC_CONFIG_FILE", snippets="IRONIC_CONFIG_DIR", always=True),
    "keystone": _Names("OS_KEYSTONE_CONFIG_DIR", "OS_KEYSTONE_CONFIG_FILES", ("keystone.conf",)),
    "masakari": _Names("OS_MASAKARI_CONFIG_DIR", "", ("api-paste.ini", "masakari.conf"), "/etc/masakari"),
    "neutron": _Names(
        "OS_NEUTRON_CONFIG_DIR",
        "OS_NEUTRON_CONFIG_FILES",
        ("neutron.conf", "plugins/ml2/ml2_conf.ini"),
        "/etc/neutron",
    ),
    "nova": _Names("OS_NOVA_CONFIG_DIR", "OS_NOVA_CONFIG_FILES", ("api-paste.ini", "nova.conf"), "/etc/nova"),
}


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
    :param variables: the environment in which systemd starts it.
    """

    command: str
    variables: dict[str, _Assigned]

    @property
    def program(self) -> str:
        """The program that systemd starts, or the init script."""
        words = self.command.split()
        return words[0].lstrip("-@:+!") if words else ""


class Elsewhere(typing.NamedTuple):
    """The line with which a unit is told to read other files, and not a service's own.

    :param path: of the file that sets the variable.
    """

    name: str
    path: str
    line: int
    unit: str


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
        service = _service(unit, root)
        for path in _uwsgi_files(unit, service, root) if service else ():
            rows = _uwsgi_options(path, root)
            given = [(number, int(value)) for number, key, value in rows if key == "threads" and value.isdecimal()]
            if given and given[-1][1] > 1:
                name = path.partition(":")[0]
                found[name] = Threaded(name, *given[-1])
    return tuple(found.values())


def _uwsgi_files(unit: str, service: _Service, root: pathlib.Path) -> list[str]:
    """Return uWSGI's ini files; the name of a section may stand behind a colon."""
    by_script = _is_script(service.program, root)
    variables = _script_variables(_script_text(service.program, root), unit, root) if by_script else {}
    return [variables["UWSGI_INI_PATH"]] if "UWSGI_INI_PATH" in variables else _INI.findall(service.command)


def _uwsgi_value(value: str, options: typing.Mapping[str, str]) -> str:
    """Return a value with the options that it names, as in ``%(name)``."""
    return _UWSGI_VARIABLE.sub(lambda match: options.get(match[1], match[0]), value).replace("%%", "%")


def _uwsgi_options(path: str, root: pathlib.Path) -> list[tuple[int, str, str]]:
    """Return (line, option, value) of the section of an ini file that uWSGI reads."""
    name, _, wanted = path.partition(":")
    section = ""
    found: list[tuple[int, str, str]] = []
    for number, row in _rows(root / name.lstrip("/")):
        option = _UWSGI_OPTION.fullmatch(row)
        if row.strip().startswith("["):
            section = row.strip().strip("[]")
        elif option and section == (wanted or "uwsgi"):
            found.append((number, option[1], option[2]))
    return found


def variables(units: typing.Iterable[str], root: pathlib.Path) -> tuple[Variable, ...]:
    """Return the options that the environment of ``units`` sets, each file's once."""
    found: dict[tuple[str, str], Variable] = {}
    for unit in units:
        service = _service(unit, root)
        for name, (value, path) in _environment(unit, service, root).items() if service else ():
            option = _OPTION_VARIABLE.fullmatch(name)
            if not option or (name, path) in found:
                continue
            line = _line_of(name, path, root)
            section = option[1] if option[1] == "DEFAULT" else option[1].lower()
            found[name, path] = Variable(name, path, line, unit, section, option[2].lower(), value)
    return tuple(found.values())


def elsewhere(own: typing.Collection[str], units: typing.Iterable[str], root: pathlib.Path) -> tuple[Elsewhere, ...]:
    """Return where variables tell ``units`` to read other files, and none of ``own``, the service's files."""
    found: dict[tuple[str, str], Elsewhere] = {}
    real = {_real(path, root) for path in own}
    projects = dict.fromkeys(path.split("/")[2] for path in own)
    for unit in units:
        service = _service(unit, root)
        if service is None:
            continue
        for project in projects:
            named = [path for kind, path in _of_environment(project, unit, service, root) if kind == "file"]
            if not named or real & {_real(path, root) for path in named}:
                continue
            variables = _environment(unit, service, root)
            names = _NAMES[project]
            name = next(n for n in (names.file, names.files, names.directory) if n in variables)
            path = variables[name].path
            found.setdefault((name, path), Elsewhere(name, path, _line_of(name, path, root), unit))
    return tuple(found.values())


def _real(path: str, root: pathlib.Path) -> str:
    return os.path.realpath(root / path.lstrip("/"))


def _line_of(name: str, path: str, root: pathlib.Path) -> int:
    """Return the number of the last line that sets a variable; 1 when there is none."""
    rows = [(number, row) for number, row in _rows(root / path.lstrip("/")) if not row.lstrip().startswith(("#", ";"))]
    return max((number for number, row in rows if f"{name}=" in row), default=1)


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
        service = _service(unit, root)
        for source in _of_unit(own, unit, service, root) if service else ():
            known = found.get(source.path)
            if _real(source.path, root) != _real(own, root) and (known is None or (source.after and not known.after)):
                found[source.path] = source
    return tuple(found.values())


def _of_unit(own: str, unit: str, service: _Service, root: pathlib.Path) -> typing.Iterator[Source]:
    by_script = _is_script(service.program, root)
    options = _of_script(service.program, unit, root) if by_script else _known(_OPTION.findall(service.command))
    project = own.split("/")[2]
    named = _of_environment(project, unit, service, root)
    asked = [path for kind, path in options if kind == "file"]
    given = [path for kind, path in named if kind == "file"]
    program = pathlib.PurePath(service.program).name
    names = dict.fromkeys((project, unit.removeprefix("openstack-").partition("@")[0], program))
    if not asked and not given:
        yield from (Source(path, unit, True) for name in names if (path := f"/etc/{project}/{name}.conf") != own)
        yield Source(f"/usr/share/{project}/{project}-dist.conf", unit, False)
    for place, path in enumerate(given):
        yield Source(path, unit, own not in given[place:])
    if not any(kind == "dir" for kind, _ in options):
        looked_for = [place for name in names for place in (f"/etc/{project}/{name}.conf.d", f"/etc/{name}.conf.d")]
        for directory in [path for kind, path in named if kind == "dir"] or looked_for:
            yield from (Source(path, unit, bool(given) or not asked) for path in _files(directory, root))
    passed = by_script or bool(given) or own not in asked
    for kind, path in options:
        passed = passed or path == own
        yield from (Source(p, unit, passed) for p in ([path] if kind == "file" else _files(path, root)))


def _of_environment(project: str, unit: str, service: _Service, root: pathlib.Path) -> list[tuple[str, str]]:
    """Return the files and the directory of snippets that variables name, as options of the command line would."""
    names = _NAMES.get(project, _Names())
    if not names.always and not _is_wsgi(unit, service, root):
        return []
    variables = {name: one.value.strip() for name, one in _environment(unit, service, root).items()}
    told = [name.strip() for name in variables.get(names.files, "").split(";") if name.strip()]
    files = [variables[names.file]] if variables.get(names.file) else []
    if names.directory in variables or told:
        directory = pathlib.PurePath(variables.get(names.directory) or names.home)
        files = [str(directory / name) for name in told or names.usual]
    options = [("file", path) for path in files]
    return _known([*options, ("dir", variables.get(names.snippets, ""))])


def _is_wsgi(unit: str, service: _Service, root: pathlib.Path) -> bool:
    """Return whether a unit runs WSGI programs, as an API may be one."""
    by_script = _is_script(service.program, root)
    script = _script_variables(_script_text(service.program, root), unit, root) if by_script else {}
    return bool(_WSGI.search(service.command)) or any(name.startswith("UWSGI_") for name in script)


def _environment(unit: str, service: _Service, root: pathlib.Path) -> dict[str, _Assigned]:
    """Return the environment of a unit's program: systemd's, what a script exports, and what uWSGI sets."""
    found = dict(service.variables)
    scripts: list[pathlib.Path] = []
    if _is_script(service.program, root):
        scripts = [root / service.program.lstrip("/"), *(root / "etc/default" / name for name in ("openstack", unit))]
    elif unit == "apache2":  # what apachectl sources
        scripts = [root / "etc/apache2/envvars"]
    for path in scripts:
        found.update(_at(dict(_EXPORT.findall(_text(path))), path, root))
    for name in _uwsgi_files(unit, service, root):
        options = [(key, value) for _, key, value in _uwsgi_options(name, root)]
        for value in [value for key, value in options if key == "env" and "=" in value]:
            variable, _, told = _uwsgi_value(value, dict(options)).partition("=")
            found[variable] = _Assigned(told, name.partition(":")[0])
    return found


def _files(directory: str, root: pathlib.Path) -> list[str]:
    """Return the files that oslo.config reads of a directory."""
    return [f"{directory}/{p.name}" for p in sorted((root / directory.lstrip("/")).glob("*.conf"))]


def _service(unit: str, root: pathlib.Path) -> _Service | None:
    """Return what a unit says; None when there is no such unit, nor an init script of which systemd makes one."""
    names = list(dict.fromkeys((unit, re.sub(r"@.*", "@", unit))))  # a template's file stands for its instances
    directories = [root / d for d in _UNIT_DIRECTORIES]
    units = (directory / f"{name}.service" for name in names for directory in directories)
    file = next((path for path in units if path.is_file()), None)
    script = f"/etc/init.d/{unit}"
    if file is None and not _is_script(script, root):
        return None
    started: list[str] = [] if file else [script]
    told: dict[str, _Assigned] = {}  # to uWSGI on its command line
    given: dict[str, _Assigned] = {}
    from_files: dict[str, _Assigned] = {}  # EnvironmentFile= counts before Environment= (systemd.exec(5))
    unset: list[str] = []
    for path in (*([file] if file else []), *_dropins(names, directories)):
        for key, value in _DIRECTIVE.findall(_text(path)):
            empty = not value.strip()  # which forgets what was said before
            if key == "ExecStart":
                started = [] if empty else [*started, value]
                assigned = dict(one.split("=", 1) for one in _ENV.findall(value))
                told = {} if empty else {**told, **_at(assigned, path, root)}
            elif key == "Environment":
                given = {} if empty else {**given, **_at(_assigned(value), path, root)}
            elif key == "UnsetEnvironment":
                unset = [] if empty else [*unset, *_words(value)]
            else:
                from_files = {} if empty else {**from_files, **_from_files(value, root)}
    known = {**_for_all_units(root), **given, **from_files}
    known = {name: one for name, one in known.items() if not {name, f"{name}={one.value}"} & set(unset)}
    command = _expand(" ".join(started), {name: one.value for name, one in known.items()})
    return _Service(command, {**known, **told})


def _for_all_units(root: pathlib.Path) -> dict[str, _Assigned]:
    """Return DefaultEnvironment= of systemd's own files: the first system.conf, then all snippets."""
    directories = [root / d for d in _SYSTEMD_DIRECTORIES]
    snippets: dict[str, pathlib.Path] = {}
    for path in (path for directory in directories for path in directory.glob("system.conf.d/*.conf")):
        snippets.setdefault(path.name, path)
    first = [path for directory in directories if (path := directory / "system.conf").is_file()][:1]
    found: dict[str, _Assigned] = {}
    for path in (*first, *(snippets[name] for name in sorted(snippets))):
        for value in _DEFAULTS.findall(_text(path)):
            found = {**found, **_at(_assigned(value), path, root)} if value.strip() else {}
    return found


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
    return dict(word.split("=", 1) for word in _words(value) if "=" in word)


def _words(value: str) -> list[str]:
    try:
        return [word.replace("%%", "%") for word in shlex.split(value)]
    except ValueError:  # a quotation mark without its fellow: systemd ignores the line
        return []


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
