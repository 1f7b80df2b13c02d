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

import os
import pathlib
import re
import typing

from om_agent import reading, unitfile

_OPTION = re.compile(r"--config-(file|dir)(?:=|\s+)[\"']?([^\s\"';]+)")
_SET = re.compile(r"(\w+)=")
_THREADS = re.compile("[0-9]{1,9}")
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
        service = unitfile.read(unit, root)
        for path in unitfile.uwsgi_files(unit, service, root) if service else ():
            options = unitfile.uwsgi_options(path, root)
            given = [one for one in options if one.name == "threads" and _THREADS.fullmatch(one.value)]
            if given and int(given[-1].value) > 1:
                found[given[-1].path] = Threaded(given[-1].path, given[-1].line, int(given[-1].value))
    return tuple(found.values())


def variables(units: typing.Iterable[str], root: pathlib.Path) -> tuple[Variable, ...]:
    """Return the options that the environment of ``units`` sets, each file's once."""
    found: dict[tuple[str, str], Variable] = {}
    lines: dict[str, dict[str, int]] = {}
    for unit in units:
        service = unitfile.read(unit, root)
        for name, (value, path) in unitfile.environment(unit, service, root).items() if service else ():
            option = _OPTION_VARIABLE.fullmatch(name)
            if not option or (name, path) in found:
                continue
            if path not in lines:
                lines[path] = _lines_of(path, root)
            line = lines[path].get(name, 1)
            section = option[1] if option[1] == "DEFAULT" else option[1].lower()
            found[name, path] = Variable(name, path, line, unit, section, option[2].lower(), value)
    return tuple(found.values())


def elsewhere(own: typing.Collection[str], units: typing.Iterable[str], root: pathlib.Path) -> tuple[Elsewhere, ...]:
    """Return where variables tell ``units`` to read other files, and none of ``own``, the service's files."""
    found: dict[tuple[str, str], Elsewhere] = {}
    real = {_real(path, root) for path in own}
    projects = dict.fromkeys(path.split("/")[2] for path in own)
    for unit in units:
        service = unitfile.read(unit, root)
        if service is None:
            continue
        for project in projects:
            named = [path for kind, path in _of_environment(project, unit, service, root) if kind == "file"]
            if not named or real & {_real(path, root) for path in named}:
                continue
            variables = unitfile.environment(unit, service, root)
            names = _NAMES[project]
            name = next(n for n in (names.file, names.files, names.directory) if n in variables)
            path = variables[name].path
            found.setdefault((name, path), Elsewhere(name, path, _lines_of(path, root).get(name, 1), unit))
    return tuple(found.values())


def _real(path: str, root: pathlib.Path) -> str:
    return os.path.realpath(reading.on_disk(root, path))


def _lines_of(path: str, root: pathlib.Path) -> dict[str, int]:
    """Return the number of the last line that sets each variable."""
    rows = unitfile.rows(reading.on_disk(root, path), root)
    said = ((number, row) for number, row in rows if not row.lstrip().startswith(("#", ";")))
    return {name: number for number, row in said for name in _SET.findall(row)}


def other_files(own: str, units: typing.Iterable[str], root: pathlib.Path) -> tuple[Source, ...]:
    """Return the files that ``units`` read in addition to ``own``, a path below ``root``, each once."""
    found: dict[str, Source] = {}
    for unit in units:
        service = unitfile.read(unit, root)
        for source in _of_unit(own, unit, service, root) if service else ():
            known = found.get(source.path)
            if not _readable(source.path, root):
                continue
            if _real(source.path, root) != _real(own, root) and (known is None or (source.after and not known.after)):
                found[source.path] = source
    return tuple(found.values())


def _readable(path: str, root: pathlib.Path) -> bool:
    """Return whether a service below ``root`` can have such a file, and no absurdly large one is there."""
    place = reading.on_disk(root, path)
    if not reading.is_below(place, root):
        return False
    return not os.path.isfile(place) or os.path.getsize(place) <= reading.SERVICE_LIMIT


def _of_unit(own: str, unit: str, service: unitfile.Service, root: pathlib.Path) -> typing.Iterator[Source]:
    by_script = unitfile.is_script(service.program, root)
    options = _of_script(service.program, unit, root) if by_script else _known(_OPTION.findall(service.command))
    options += _known(_OPTION.findall(unitfile.arguments(unit, service, root)))
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


def _of_environment(project: str, unit: str, service: unitfile.Service, root: pathlib.Path) -> list[tuple[str, str]]:
    """Return the files and the directory of snippets that variables name, as options of the command line would."""
    names = _NAMES.get(project, _Names())
    if not names.always and not unitfile.is_wsgi(unit, service, root):
        return []
    variables = {name: one.value.strip() for name, one in unitfile.environment(unit, service, root).items()}
    told = [name.strip() for name in variables.get(names.files, "").split(";") if name.strip()]
    files = [variables[names.file]] if variables.get(names.file) else []
    if names.directory in variables or told:
        directory = pathlib.PurePath(variables.get(names.directory) or names.home)
        files = [str(directory / name) for name in told or names.usual]
    options = [("file", path) for path in files]
    return _known([*options, ("dir", variables.get(names.snippets, ""))])


def _files(directory: str, root: pathlib.Path) -> list[str]:
    """Return the files that oslo.config reads of a directory."""
    return [f"{directory}/{name}" for name in reading.names(reading.on_disk(root, directory), root, ".conf")]


def _of_script(path: str, unit: str, root: pathlib.Path) -> list[tuple[str, str]]:
    """Return the options that a shell script names, with those of the files that Debian's scripts source."""
    text = unitfile.script_text(path, root)
    variables = unitfile.script_variables(text, unit, root)
    text = f"{text}\n{unitfile.without_comments(unitfile.defaults(unit, root))}"
    options = _OPTION.findall(text)
    if (
        "UWSGI_PORT" in variables
    ):  # then the script does not pass its CONFIG_FILE, and the service looks for files itself
        options = [(kind, value) for kind, value in options if value != "${CONFIG_FILE}"]
    return _known((kind, unitfile.expand(value, variables, reading.PATH_LIMIT)) for kind, value in options)


def _known(options: typing.Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the options, each once, but for those whose path is not known, since a variable in it was not found, and
    those whose path no file can have."""
    good = (
        (kind, reading.normal(value))
        for kind, value in options
        if value.startswith("/") and not {"$", "\0"} & set(value) and len(value) <= reading.PATH_LIMIT
    )
    return list(dict.fromkeys(good))
