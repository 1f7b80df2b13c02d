"""What a unit starts, and in which environment.

The sources are the unit's file and drop-ins, systemd's own configuration, Debian's init scripts and uWSGI's ini files.
The agent runs no program to find out.
"""

from __future__ import annotations

import glob
import itertools
import pathlib
import re
import shlex
import typing

from om_agent import reading
from om_agent.unitfile import init_script, references, uwsgi

_SYSTEMD_DIRECTORIES = ("etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd", "lib/systemd")
_UNIT_DIRECTORIES = tuple(f"{directory}/system" for directory in _SYSTEMD_DIRECTORIES)
_DIRECTIVE = re.compile(
    r"^[ \t]*(ExecStart|Environment|EnvironmentFile|UnsetEnvironment)[ \t]*=[ \t]*(.*)$", re.MULTILINE
)
_DEFAULT_ENVIRONMENT = re.compile(r"^[ \t]*DefaultEnvironment[ \t]*=[ \t]*(.*)$", re.MULTILINE)
_UWSGI_INI = re.compile(r"--ini(?:-paste)?(?:=|\s+)[\"']?([^\s\"';]+)")
_UWSGI_ENV = re.compile(r"--env(?:=|\s+)[\"']?(\w+=[^\s\"']*)")
# The variables that env(1) sets before it starts the program.
_ENV_PROGRAM = re.compile(r"(?:^|/)env[ \t]+((?:[A-Za-z_]\w*=(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s\"'])*[ \t]+)+)")
_SPECIFIER = re.compile(r"%([pniN%])")
_WSGI_SERVER = re.compile("wsgi|gunicorn|apache|httpd")  # programs that run WSGI programs, in a command line
_MAX_ENVIRONMENT_FILES = 1000  # of one unit


class Assigned(typing.NamedTuple):
    """The value of a variable, and the path of the file that sets it."""

    value: str
    path: str


Variables = dict[str, Assigned]


class Service(typing.NamedTuple):
    """What a unit and its drop-ins define.

    :param command: ExecStart, with the variables that are known.
    :param variables: the environment in which systemd starts it.
    """

    command: str
    variables: Variables

    @property
    def program(self) -> str:
        """The program that systemd starts, or the init script."""
        words = self.command.split()
        return words[0].lstrip("-@:+!") if words else ""


class _Directives:
    """The directives of one unit that define what it starts. Later lines add to earlier ones; an empty line resets.

    :param commands: the unit's command lines at the beginning.
    """

    def __init__(self, unit: str, root: pathlib.Path, commands: typing.Iterable[str]) -> None:
        self._unit = unit
        self._root = root
        self._budget = itertools.repeat(True, _MAX_ENVIRONMENT_FILES)
        self.commands = list(commands)
        self.from_commands: Variables = {}  # variables that a command line passes to uWSGI or env(1)
        self.environment: Variables = {}
        self.from_files: Variables = {}
        self.unset: set[str] = set()

    def add(self, key: str, text: str, path: pathlib.Path) -> None:
        """Take one line into account."""
        value = _replace_specifiers(text, self._unit)
        if not value.strip():
            self._reset(key)
        elif key == "ExecStart":
            self.commands.append(value)
            passed = dict(one.split("=", 1) for one in _UWSGI_ENV.findall(value))
            passed.update(_parse_assignments(" ".join(_ENV_PROGRAM.findall(value))))
            self.from_commands.update(_with_path(passed, path, self._root))
        elif key == "Environment":
            self.environment.update(_with_path(_parse_assignments(value), path, self._root))
        elif key == "UnsetEnvironment":
            self.unset.update(_split(value))
        else:
            self.from_files.update(_read_environment_files(value, self._root, self._budget))

    def _reset(self, key: str) -> None:
        """Forget the earlier lines of this key, as systemd does at an empty value."""
        if key == "ExecStart":
            self.commands.clear()
            self.from_commands.clear()
        elif key == "Environment":
            self.environment.clear()
        elif key == "UnsetEnvironment":
            self.unset.clear()
        else:
            self.from_files.clear()

    def service(self) -> Service:
        """Return what the directives define together."""
        # EnvironmentFile= takes precedence over Environment= (systemd.exec(5)).
        variables = {**_default_environment(self._root), **self.environment, **self.from_files}
        known: Variables = {}
        for name, one in variables.items():
            if name not in self.unset and f"{name}={one.value}" not in self.unset:
                known[name] = one
        values = {name: one.value for name, one in known.items()}
        command = references.expand(" ".join(self.commands), values)
        return Service(command, {**known, **self.from_commands})


def read(unit: str, root: pathlib.Path) -> Service | None:
    """Return what a unit defines; None when there is neither a unit nor an init script, of which systemd makes one."""
    template = re.sub(r"@.*", "@", unit)
    names = list(dict.fromkeys((unit, template)))  # a template's file also defines its instances
    directories = [root / directory for directory in _UNIT_DIRECTORIES]
    file = _find_unit(names, directories, root)
    script = init_script.path_of(unit)
    if file is None and not init_script.exists(script, root):
        return None
    directives = _Directives(unit, root, [] if file else [script])
    paths = [file] if file else []
    paths += _dropins(names, directories, root)
    for path in paths:
        for key, value in _DIRECTIVE.findall(init_script.read_joined(path, root)):
            directives.add(key, value, path)
    return directives.service()


def _find_unit(
    names: typing.Iterable[str], directories: typing.Sequence[pathlib.Path], root: pathlib.Path
) -> pathlib.Path | None:
    """Return the unit's file: the first name in the first directory that has it."""
    for name in names:
        for directory in directories:
            path = directory / f"{name}.service"
            if reading.is_file(path, root):
                return path
    return None


def _replace_specifiers(text: str, unit: str) -> str:
    """Return a line with the values of the specifiers for the unit's own name (systemd.unit(5))."""
    prefix, _, instance = unit.partition("@")
    values = {"p": prefix, "i": instance, "n": f"{unit}.service", "N": unit, "%": "%"}
    return _SPECIFIER.sub(lambda match: values[match.group(1)], text)


def _default_environment(root: pathlib.Path) -> Variables:
    """Return DefaultEnvironment= of systemd's configuration: the first system.conf, then all its snippets."""
    directories = [root / directory for directory in _SYSTEMD_DIRECTORIES]
    snippets: dict[str, pathlib.Path] = {}
    for directory in directories:
        snippet_directory = directory / "system.conf.d"
        for name in reading.names(snippet_directory, root, ".conf"):
            snippets.setdefault(name, snippet_directory / name)
    mains = [directory / "system.conf" for directory in directories]
    paths = [path for path in mains if reading.is_file(path, root)][:1]
    paths += [snippets[name] for name in sorted(snippets)]
    found: Variables = {}
    for path in paths:
        for value in _DEFAULT_ENVIRONMENT.findall(init_script.read_joined(path, root)):
            if not value.strip():
                found.clear()
            found.update(_with_path(_parse_assignments(value), path, root))
    return found


def environment(unit: str, service: Service, root: pathlib.Path) -> Variables:
    """Return the environment of a unit's program: from systemd, from exports of scripts, and from uWSGI."""
    found = dict(service.variables)
    for path in _sourced_scripts(unit, service, root):
        found.update(_with_path(init_script.exported(path, root), path, root))
    for ini_path in uwsgi_files(unit, service, root):
        options = uwsgi.options(ini_path, root)
        known = {f"${name}": one.value for name, one in found.items()}
        known.update({option.name: option.value for option in options})
        for option in options:
            if option.name == "env" and "=" in option.value:
                name, _, value = uwsgi.resolve(option.value, known).partition("=")
                found[name] = Assigned(value, option.path)
    return found


def _sourced_scripts(unit: str, service: Service, root: pathlib.Path) -> list[pathlib.Path]:
    """Return the scripts that export variables to a unit's program."""
    if init_script.exists(service.program, root):
        return [reading.on_disk(root, service.program), *init_script.defaults_paths(unit, root)]
    if unit == "apache2":  # apachectl sources this file
        return [root / "etc/apache2/envvars"]
    return []


def is_wsgi(unit: str, service: Service, root: pathlib.Path) -> bool:
    """Return whether a unit runs WSGI programs. An API is often one."""
    variables = _script_variables(unit, service, root)
    sets_uwsgi = any(name.startswith("UWSGI_") for name in variables)
    return sets_uwsgi or bool(_WSGI_SERVER.search(service.command))


def uwsgi_files(unit: str, service: Service, root: pathlib.Path) -> list[str]:
    """Return the references to uWSGI's ini files: a path, and perhaps a colon and the name of a section."""
    variables = _script_variables(unit, service, root)
    if "UWSGI_INI_PATH" in variables:
        return [variables["UWSGI_INI_PATH"]]
    named = dict.fromkeys(_UWSGI_INI.findall(service.command))
    return list(named)[: uwsgi.MAX_FILES]


def _script_variables(unit: str, service: Service, root: pathlib.Path) -> dict[str, str]:
    """Return the variables of the unit's init script; none when it has no init script."""
    if not init_script.exists(service.program, root):
        return {}
    return init_script.variables(init_script.text(service.program, root), unit, root)


def arguments(unit: str, service: Service, root: pathlib.Path) -> str:
    """Return the arguments that uWSGI's ini files pass to the program."""
    found: list[str] = []
    for path in uwsgi_files(unit, service, root):
        found += [option.value for option in uwsgi.options(path, root) if option.name == "pyargv"]
    return " ".join(found)


def _with_path(values: dict[str, str], path: pathlib.Path, root: pathlib.Path) -> Variables:
    """Return the variables with the path below ``root`` of the file that sets them."""
    below = f"/{path.relative_to(root)}"
    return {name: Assigned(value, below) for name, value in values.items()}


def _read_environment_files(value: str, root: pathlib.Path, budget: typing.Iterator[bool]) -> Variables:
    """Return the variables of the files that an EnvironmentFile= line names; the name may have wildcards.

    :param budget: has one item for each line and each file that the agent may still read.
    """
    found: Variables = {}
    pattern = reading.normal(value.strip().removeprefix("-"))
    if "\0" in pattern or len(pattern) > reading.PATH_LIMIT:  # no file has such a name
        return found
    if not next(budget, False):
        return found
    names = sorted(glob.glob(f"{glob.escape(str(root))}/{pattern.lstrip('/')}"))
    for name, _ in zip(names, budget):
        path = pathlib.Path(name)
        found.update(_with_path(init_script.assigned(path, root), path, root))
    return found


def _dropins(
    names: typing.Sequence[str], directories: typing.Sequence[pathlib.Path], root: pathlib.Path
) -> list[pathlib.Path]:
    """Return a unit's drop-ins in the order in which systemd reads them: by file name, in whatever directory.

    If several have the same name, the one for the most specific unit counts, and then the one in the first directory
    (systemd.unit(5)). ``a-.service.d`` applies to all services whose names begin with ``a-``, ``service.d`` to all.
    """
    unit = names[0]
    hyphens = [place for place, letter in enumerate(unit.partition("@")[0], 1) if letter == "-"]
    prefixes = [unit[:place] for place in reversed(hyphens) if place < len(unit)]
    found: dict[str, pathlib.Path] = {}
    for name in (*names, *prefixes, ""):
        dropin_directory = f"{name}.service.d" if name else "service.d"
        for directory in directories:
            for file in reading.names(directory / dropin_directory, root, ".conf"):
                found.setdefault(file, directory / dropin_directory / file)
    return [found[name] for name in sorted(found)]


def _parse_assignments(value: str) -> dict[str, str]:
    """Return the variables that an Environment= line sets."""
    return dict(word.split("=", 1) for word in _split(value) if "=" in word)


def _split(value: str) -> list[str]:
    """Return the words of a line, unquoted."""
    try:
        words = shlex.split(value)
    except ValueError:  # a quotation mark is missing: systemd ignores the line
        return []
    return [word.replace("%%", "%") for word in words]
