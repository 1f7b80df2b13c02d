"""Which configuration a service reads in addition to its own file. The agent runs no program to find out.

A service reads other files, and it reads variables of its environment: oslo.config prefers OS_GROUP__OPTION to every
file. The unit also sets the number of threads with which uWSGI serves it.

A unit names files and directories on its command line. Debian's units start an init script, which composes the command
line from shell variables and files in /etc/default. The agent assumes that the service reads those files after its own
file. oslo.config looks for files itself when there is no ``--config-file``, and for directories when there is no
``--config-dir`` (``_parse_config_files`` in oslo_config/cfg.py): it reads the directories before the files of the
command line, and after the files that it found itself. The WSGI programs of some projects take the names of these files
from their environment instead.
"""

from __future__ import annotations

import os
import pathlib
import re
import typing

from om_agent import reading, unitfile
from om_agent.unitfile import init_script, references, uwsgi

_OPTION = re.compile(r"--config-(file|dir)(?:=|\s+)[\"']?([^\s\"';]+)")
_ASSIGNED_NAME = re.compile(r"(\w+)=")
_THREADS = re.compile("[0-9]{1,9}")
_OPTION_VARIABLE = re.compile(r"OS_([A-Z0-9_]+?)__([A-Z0-9_]+)")  # oslo_config/sources/_environment.py

FileOption = tuple[str, str]  # ("file" or "dir", path), for --config-file and --config-dir


class _Names(typing.NamedTuple):
    """The variables that tell a project's programs which files to read instead of those that they look for.

    :param directory: variable that holds the directory of ``files``; without it that is ``home``.
    :param files: variable that holds names or paths, separated by semicolons.
    :param usual: the names that the programs read in the directory if there is no such variable.
    :param file: variable that holds the path of the only file.
    :param snippets: variable that holds a directory whose files the programs read after that.
    :param always: whether every program of the project reads the variables, and not only the WSGI programs.
    """

    directory: str = ""
    files: str = ""
    usual: tuple[str, ...] = ()
    home: str = ""
    file: str = ""
    snippets: str = ""
    always: bool = False


# By the project's directory in /etc. Sources: nova/api/openstack/wsgi_app.py, neutron/server/__init__.py,
# keystone/server/flask/core.py, glance/common/wsgi_app.py, designate/api/wsgi.py, masakari/cmd/api.py,
# ironic/common/config.py. No other project of the catalogue has such variables. placement has OS_PLACEMENT_CONFIG_DIR,
# but it does not use messaging.
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

    :param unit: the unit of the service that reads it.
    :param after: whether the service reads it after its own file, so that its values take precedence.
    """

    path: str
    unit: str
    after: bool


class Variable(typing.NamedTuple):
    """A variable in a unit's environment that sets an option of oslo.config.

    :param path: the file that sets the variable.
    :param section: the name as `om_agent.ini.read` returns it.
    """

    name: str
    path: str
    line: int
    unit: str
    section: str
    key: str
    value: str


class Elsewhere(typing.NamedTuple):
    """The line that makes a unit read other files instead of the service's own files.

    :param name: the variable.
    :param path: the file that sets the variable.
    """

    name: str
    path: str
    line: int
    unit: str


class Threaded(typing.NamedTuple):
    """The line that gives a program several threads.

    :param path: uWSGI's ini file.
    """

    path: str
    line: int
    threads: int


def _read_units(units: typing.Iterable[str], root: pathlib.Path) -> typing.Iterator[tuple[str, unitfile.Service]]:
    """Yield the units that exist, each with what it defines."""
    for unit in units:
        service = unitfile.read(unit, root)
        if service is not None:
            yield unit, service


def threads(units: typing.Iterable[str], root: pathlib.Path) -> tuple[Threaded, ...]:
    """Return the lines that make uWSGI serve ``units`` with more than one thread; the last such line of each file.

    Debian's init scripts name the ini file in a variable, other units name it on the command line.
    """
    found: dict[str, Threaded] = {}
    for unit, service in _read_units(units, root):
        for path in unitfile.uwsgi_files(unit, service, root):
            options = uwsgi.options(path, root)
            counts = [option for option in options if option.name == "threads" and _THREADS.fullmatch(option.value)]
            if not counts:
                continue
            last = counts[-1]
            if int(last.value) > 1:
                found[last.path] = Threaded(last.path, last.line, int(last.value))
    return tuple(found.values())


def variables(units: typing.Iterable[str], root: pathlib.Path) -> tuple[Variable, ...]:
    """Return the options that the environment of ``units`` sets, once for each file that sets one."""
    found: dict[tuple[str, str], Variable] = {}
    lines: dict[str, dict[str, int]] = {}
    for unit, service in _read_units(units, root):
        for name, (value, path) in unitfile.environment(unit, service, root).items():
            option = _OPTION_VARIABLE.fullmatch(name)
            if not option or (name, path) in found:
                continue
            if path not in lines:
                lines[path] = _lines_by_variable(path, root)
            group, key = option.groups()
            section = group if group == "DEFAULT" else group.lower()
            line = lines[path].get(name, 1)
            found[name, path] = Variable(name, path, line, unit, section, key.lower(), value)
    return tuple(found.values())


def elsewhere(own: typing.Collection[str], units: typing.Iterable[str], root: pathlib.Path) -> tuple[Elsewhere, ...]:
    """Return the lines that make ``units`` read other files, and none of ``own``, the service's files."""
    found: dict[tuple[str, str], Elsewhere] = {}
    own_files = {_resolve(path, root) for path in own}
    projects = dict.fromkeys(path.split("/")[2] for path in own)
    for unit, service in _read_units(units, root):
        for project in projects:
            options = _environment_options(project, unit, service, root)
            files = {_resolve(path, root) for kind, path in options if kind == "file"}
            if not files or own_files & files:
                continue
            environment = unitfile.environment(unit, service, root)
            names = _NAMES[project]
            name = next(name for name in (names.file, names.files, names.directory) if name in environment)
            path = environment[name].path
            line = _lines_by_variable(path, root).get(name, 1)
            found.setdefault((name, path), Elsewhere(name, path, line, unit))
    return tuple(found.values())


def _resolve(path: str, root: pathlib.Path) -> str:
    """Return the path on disk, with links followed."""
    return os.path.realpath(reading.on_disk(root, path))


def _lines_by_variable(path: str, root: pathlib.Path) -> dict[str, int]:
    """Return the number of the last line that sets each variable."""
    found: dict[str, int] = {}
    for number, row in reading.rows(reading.on_disk(root, path), root):
        if row.lstrip().startswith(("#", ";")):
            continue
        for name in _ASSIGNED_NAME.findall(row):
            found[name] = number
    return found


def other_files(own: str, units: typing.Iterable[str], root: pathlib.Path) -> tuple[Source, ...]:
    """Return the files that ``units`` read in addition to ``own``, a path below ``root``, each once."""
    found: dict[str, Source] = {}
    own_file = _resolve(own, root)
    for unit, service in _read_units(units, root):
        for source in _files_of_unit(own, unit, service, root):
            if not _is_readable(source.path, root) or _resolve(source.path, root) == own_file:
                continue
            known = found.get(source.path)
            if known is None or (source.after and not known.after):
                found[source.path] = source
    return tuple(found.values())


def _is_readable(path: str, root: pathlib.Path) -> bool:
    """Return whether a service below ``root`` could read such a file, and no absurdly large file is there."""
    place = reading.on_disk(root, path)
    if not reading.is_below(place, root):
        return False
    return not os.path.isfile(place) or os.path.getsize(place) <= reading.SERVICE_LIMIT


def _files_of_unit(own: str, unit: str, service: unitfile.Service, root: pathlib.Path) -> typing.Iterator[Source]:
    """Yield the files that one unit reads, in their order; ``own`` may be one of them."""
    project = own.split("/")[2]
    by_script = init_script.exists(service.program, root)
    options = _command_options(unit, service, root)
    from_environment = _environment_options(project, unit, service, root)
    named = [path for kind, path in options if kind == "file"]
    given = [path for kind, path in from_environment if kind == "file"]
    names = _names_of_program(project, unit, service)
    if not named and not given:
        for name in names:
            path = f"/etc/{project}/{name}.conf"
            if path != own:
                yield Source(path, unit, True)
        yield Source(f"/usr/share/{project}/{project}-dist.conf", unit, False)
    for place, path in enumerate(given):
        yield Source(path, unit, own not in given[place:])
    if not any(kind == "dir" for kind, _ in options):
        directories = [path for kind, path in from_environment if kind == "dir"]
        if not directories:
            directories = _usual_directories(project, names)
        is_after = bool(given) or not named
        for directory in directories:
            yield from (Source(path, unit, is_after) for path in _list_directory(directory, root))
    # oslo.config reads the files and directories of the command line in their order.
    passed_own = by_script or bool(given) or own not in named
    for kind, path in options:
        passed_own = passed_own or path == own
        paths = [path] if kind == "file" else _list_directory(path, root)
        for one in paths:
            yield Source(one, unit, passed_own)


def _names_of_program(project: str, unit: str, service: unitfile.Service) -> list[str]:
    """Return the names under which oslo.config looks for the files of a program."""
    unit_name = unit.removeprefix("openstack-").partition("@")[0]
    program = pathlib.PurePath(service.program).name
    return list(dict.fromkeys((project, unit_name, program)))


def _usual_directories(project: str, names: typing.Iterable[str]) -> list[str]:
    """Return the directories that oslo.config reads when there is no ``--config-dir``."""
    found: list[str] = []
    for name in names:
        found += [f"/etc/{project}/{name}.conf.d", f"/etc/{name}.conf.d"]
    return found


def _command_options(unit: str, service: unitfile.Service, root: pathlib.Path) -> list[FileOption]:
    """Return the files and directories that a unit's command line names, or the arguments that uWSGI passes."""
    if init_script.exists(service.program, root):
        options = _script_options(service.program, unit, root)
    else:
        options = _valid(_OPTION.findall(service.command))
    return options + _valid(_OPTION.findall(unitfile.arguments(unit, service, root)))


def _environment_options(project: str, unit: str, service: unitfile.Service, root: pathlib.Path) -> list[FileOption]:
    """Return the files, and the directory of snippets, that variables of the environment name."""
    names = _NAMES.get(project, _Names())
    if not names.always and not unitfile.is_wsgi(unit, service, root):
        return []
    environment = unitfile.environment(unit, service, root)
    values = {name: one.value.strip() for name, one in environment.items()}
    listed = [name.strip() for name in values.get(names.files, "").split(";")]
    listed = [name for name in listed if name]
    files: list[str] = []
    if names.directory in values or listed:
        directory = pathlib.PurePath(values.get(names.directory) or names.home)
        files = [str(directory / name) for name in listed or names.usual]
    elif values.get(names.file):
        files = [values[names.file]]
    options = [("file", path) for path in files]
    options.append(("dir", values.get(names.snippets, "")))
    return _valid(options)


def _list_directory(directory: str, root: pathlib.Path) -> list[str]:
    """Return the files that oslo.config reads in a directory."""
    names = reading.names(reading.on_disk(root, directory), root, ".conf")
    return [f"{directory}/{name}" for name in names]


def _script_options(path: str, unit: str, root: pathlib.Path) -> list[FileOption]:
    """Return the options that an init script names, and those in the files that it sources."""
    script = init_script.text(path, root)
    values = init_script.variables(script, unit, root)
    sourced = init_script.without_comments(init_script.defaults(unit, root))
    options: list[FileOption] = _OPTION.findall(f"{script}\n{sourced}")
    if "UWSGI_PORT" in values:  # then the script does not pass its CONFIG_FILE, and the service looks for files itself
        options = [(kind, value) for kind, value in options if value != "${CONFIG_FILE}"]
    return _valid((kind, references.expand(value, values, reading.PATH_LIMIT)) for kind, value in options)


def _valid(options: typing.Iterable[FileOption]) -> list[FileOption]:
    """Return the options whose path a file can have, each once.

    A path that still holds a ``$`` refers to a variable that the agent does not know.
    """
    found: dict[FileOption, None] = {}
    for kind, value in options:
        is_path = value.startswith("/") and "$" not in value and "\0" not in value
        if is_path and len(value) <= reading.PATH_LIMIT:
            found[kind, reading.normal(value)] = None
    return list(found)
