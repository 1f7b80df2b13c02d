"""What a unit starts, and in which environment. Its file and drop-ins say it, systemd's own configuration, Debian's
init scripts and uWSGI's ini file.

No program is run to find out.
"""

from __future__ import annotations

import glob
import itertools
import pathlib
import re
import shlex
import typing

from om_agent import reading

_UNIT_DIRECTORIES = (
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
_SYSTEMD_DIRECTORIES = ("etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd", "lib/systemd")
_ASSIGNMENT = re.compile(r"^[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)=[\"']?([^\n\"'`]*)", re.MULTILINE)
_EXPORT = re.compile(r"^[ \t]*export[ \t]+([A-Za-z_]\w*)=[\"']?([^\n\"'`]*)", re.MULTILINE)
_DIRECTIVE = re.compile(
    r"^[ \t]*(ExecStart|Environment|EnvironmentFile|UnsetEnvironment)[ \t]*=[ \t]*(.*)$", re.MULTILINE
)
_DEFAULTS = re.compile(r"^[ \t]*DefaultEnvironment[ \t]*=[ \t]*(.*)$", re.MULTILINE)
_INI = re.compile(r"--ini(?:-paste)?(?:=|\s+)[\"']?([^\s\"';]+)")
_UWSGI_NAME = re.compile(r"[\w-]+")
_UWSGI_VARIABLE = re.compile(r"([%$])\(([\w-]+)\)")
_ENV = re.compile(r"--env(?:=|\s+)[\"']?(\w+=[^\s\"']*)")
# What env(1) sets before the program that it starts.
_ENV_PROGRAM = re.compile(r"(?:^|/)env[ \t]+((?:[A-Za-z_]\w*=(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s\"'])*[ \t]+)+)")
_SPECIFIER = re.compile(r"%([pniN%])")
_WSGI = re.compile("wsgi|gunicorn|apache|httpd")  # what runs a WSGI program, in its command line
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")
_MAX_EXPANDED = 128 * 1024  # characters; the kernel takes no longer argument (MAX_ARG_STRLEN, execve(2))
_MAX_INIS = 100  # of one unit, each with those that it names
_MAX_ENVIRONMENTS = 1000  # files that one unit's lines EnvironmentFile= name


class Assigned(typing.NamedTuple):
    """The value of a variable, and the path of the file that sets it."""

    value: str
    path: str


class Option(typing.NamedTuple):
    """A line of uWSGI's ini file."""

    path: str
    line: int
    name: str
    value: str


class Service(typing.NamedTuple):
    """What a unit says, its drop-ins included.

    :param command: ExecStart, with the variables that are known.
    :param variables: the environment in which systemd starts it.
    """

    command: str
    variables: dict[str, Assigned]

    @property
    def program(self) -> str:
        """The program that systemd starts, or the init script."""
        words = self.command.split()
        return words[0].lstrip("-@:+!") if words else ""


def read(unit: str, root: pathlib.Path) -> Service | None:
    """Return what a unit says; None when there is no such unit, nor an init script of which systemd makes one."""
    names = list(dict.fromkeys((unit, re.sub(r"@.*", "@", unit))))  # a template's file stands for its instances
    directories = [root / d for d in _UNIT_DIRECTORIES]
    units = (directory / f"{name}.service" for name in names for directory in directories)
    file = next((path for path in units if reading.is_file(path, root)), None)
    script = f"/etc/init.d/{unit}"
    if file is None and not is_script(script, root):
        return None
    started: list[str] = [] if file else [script]
    told: dict[str, Assigned] = {}  # to uWSGI on its command line
    given: dict[str, Assigned] = {}
    from_files: dict[str, Assigned] = {}  # EnvironmentFile= counts before Environment= (systemd.exec(5))
    unset: set[str] = set()
    budget = itertools.repeat(True, _MAX_ENVIRONMENTS)
    forgotten: dict[str, tuple[list[str] | dict[str, Assigned] | set[str], ...]] = {
        "ExecStart": (started, told),
        "Environment": (given,),
        "EnvironmentFile": (from_files,),
        "UnsetEnvironment": (unset,),
    }
    for path in (*([file] if file else []), *_dropins(names, directories, root)):
        for key, value in _DIRECTIVE.findall(_text(path, root)):
            value = _specified(value, unit)
            if not value.strip():  # which forgets what was said before
                for said in forgotten[key]:
                    said.clear()
            elif key == "ExecStart":
                started.append(value)
                told.update(_at(dict(one.split("=", 1) for one in _ENV.findall(value)), path, root))
                told.update(_at(_assigned(" ".join(_ENV_PROGRAM.findall(value))), path, root))
            elif key == "Environment":
                given.update(_at(_assigned(value), path, root))
            elif key == "UnsetEnvironment":
                unset.update(_words(value))
            else:
                from_files.update(_from_files(value, root, budget))
    known = {**_for_all_units(root), **given, **from_files}
    known = {name: one for name, one in known.items() if not {name, f"{name}={one.value}"} & unset}
    command = expand(" ".join(started), {name: one.value for name, one in known.items()})
    return Service(command, {**known, **told})


def _specified(text: str, unit: str) -> str:
    """Return a line with what stands for the unit's own name (systemd.unit(5), Specifiers)."""
    prefix, _, instance = unit.partition("@")
    values = {"p": prefix, "i": instance, "n": f"{unit}.service", "N": unit, "%": "%"}
    return _SPECIFIER.sub(lambda match: values[match.group(1)], text)


def _for_all_units(root: pathlib.Path) -> dict[str, Assigned]:
    """Return DefaultEnvironment= of systemd's own files: the first system.conf, then all snippets."""
    directories = [root / d for d in _SYSTEMD_DIRECTORIES]
    snippets: dict[str, pathlib.Path] = {}
    for directory in (directory / "system.conf.d" for directory in directories):
        for name in reading.names(directory, root, ".conf"):
            snippets.setdefault(name, directory / name)
    mains = (directory / "system.conf" for directory in directories)
    first = [path for path in mains if reading.is_file(path, root)][:1]
    found: dict[str, Assigned] = {}
    for path in (*first, *(snippets[name] for name in sorted(snippets))):
        for value in _DEFAULTS.findall(_text(path, root)):
            if not value.strip():
                found.clear()
            found.update(_at(_assigned(value), path, root))
    return found


def environment(unit: str, service: Service, root: pathlib.Path) -> dict[str, Assigned]:
    """Return the environment of a unit's program: systemd's, what a script exports, and what uWSGI sets."""
    found = dict(service.variables)
    scripts: list[pathlib.Path] = []
    if is_script(service.program, root):
        scripts = [
            reading.on_disk(root, service.program),
            *(root / "etc/default" / name for name in ("openstack", unit)),
        ]
    elif unit == "apache2":  # what apachectl sources
        scripts = [root / "etc/apache2/envvars"]
    for path in scripts:
        found.update(_at(dict(_EXPORT.findall(_text(path, root))), path, root))
    for ini in uwsgi_files(unit, service, root):
        options = uwsgi_options(ini, root)
        known = {**{f"${name}": one.value for name, one in found.items()}, **{o.name: o.value for o in options}}
        for option in options:
            if option.name == "env" and "=" in option.value:
                name, _, value = _uwsgi_value(option.value, known).partition("=")
                found[name] = Assigned(value, option.path)
    return found


def is_wsgi(unit: str, service: Service, root: pathlib.Path) -> bool:
    """Return whether a unit runs WSGI programs, as an API may be one."""
    by_script = is_script(service.program, root)
    script = script_variables(script_text(service.program, root), unit, root) if by_script else {}
    return bool(_WSGI.search(service.command)) or any(name.startswith("UWSGI_") for name in script)


def uwsgi_files(unit: str, service: Service, root: pathlib.Path) -> list[str]:
    """Return uWSGI's ini files; the name of a section may stand behind a colon."""
    by_script = is_script(service.program, root)
    variables = script_variables(script_text(service.program, root), unit, root) if by_script else {}
    named = [variables["UWSGI_INI_PATH"]] if "UWSGI_INI_PATH" in variables else _INI.findall(service.command)
    return list(dict.fromkeys(named))[:_MAX_INIS]


def arguments(unit: str, service: Service, root: pathlib.Path) -> str:
    """Return what uWSGI's ini file has the program find in its arguments."""
    options = [one for path in uwsgi_files(unit, service, root) for one in uwsgi_options(path, root)]
    return " ".join(one.value for one in options if one.name == "pyargv")


def _uwsgi_value(value: str, options: typing.Mapping[str, str]) -> str:
    """Return a value with the options that it names, as in ``%(name)``, and variables, as in ``$(NAME)``."""
    found = _filled(_UWSGI_VARIABLE, value, lambda match: options.get(f"{match[1].strip('%')}{match[2]}"))
    return (value if found is None else found).replace("%%", "%")


def uwsgi_options(path: str, root: pathlib.Path) -> list[Option]:
    """Return the options of the section of an ini file that uWSGI reads, and of the files that those name, each once.

    The options of a file that is named stand behind the line that names it. A file may name many, one behind the other.
    """
    files: dict[str, dict[str, list[Option]]] = {}

    def section(path: str) -> typing.Iterator[Option]:
        name, _, wanted = path.partition(":")
        if name not in files:
            files[name] = _uwsgi_sections(name, root)
        return iter(files[name].get(wanted or "uwsgi", ()))

    found: list[Option] = []
    seen = {path}
    begun = [section(path)]
    while begun:
        option = next(begun[-1], None)
        if option is None:
            begun.pop()
            continue
        found.append(option)
        if option.name == "ini" and option.value not in seen and len(seen) < _MAX_INIS:
            seen.add(option.value)
            begun.append(section(option.value))
    return found


def _uwsgi_sections(name: str, root: pathlib.Path) -> dict[str, list[Option]]:
    """Return the options of an ini file of uWSGI's, by section."""
    found: dict[str, list[Option]] = {}
    section = ""
    for number, row in rows(reading.on_disk(root, name), root):
        key, equals, value = row.partition("=")
        if row.strip().startswith("["):
            section = row.strip().strip("[]")
        elif equals and _UWSGI_NAME.fullmatch(key.strip()):
            found.setdefault(section, []).append(Option(name, number, key.strip(), value.strip()))
    return found


def _at(values: dict[str, str], path: pathlib.Path, root: pathlib.Path) -> dict[str, Assigned]:
    below = f"/{path.relative_to(root)}"
    return {name: Assigned(value, below) for name, value in values.items()}


def _from_files(value: str, root: pathlib.Path, budget: typing.Iterator[bool]) -> dict[str, Assigned]:
    """Return the variables of the files that a line EnvironmentFile= names, which may have wildcards.

    :param budget: has one item for each file, and each line, that may still be looked at.
    """
    found: dict[str, Assigned] = {}
    pattern = reading.normal(value.strip().removeprefix("-"))
    if "\0" in pattern or len(pattern) > reading.PATH_LIMIT:  # no file has such a name
        return found
    if not next(budget, False):
        return found
    names = sorted(glob.glob(f"{glob.escape(str(root))}/{pattern.lstrip('/')}"))
    for name, _ in zip(names, budget):
        path = pathlib.Path(name)
        found.update(_at(dict(_ASSIGNMENT.findall(_text(path, root))), path, root))
    return found


def _dropins(
    names: typing.Sequence[str], directories: typing.Sequence[pathlib.Path], root: pathlib.Path
) -> list[pathlib.Path]:
    """Return a unit's drop-ins in the order in which systemd reads them: by file name, wherever they are.

    Of several with one name the one for the most specific unit counts, then the one in the first directory
    (systemd.unit(5)). ``a-.service.d`` is for all services whose names begin with ``a-``, ``service.d`` for all.
    """
    found: dict[str, pathlib.Path] = {}
    hyphens = [place for place, letter in enumerate(names[0].partition("@")[0], 1) if letter == "-"]
    beginnings = [names[0][:place] for place in reversed(hyphens) if place < len(names[0])]
    for name in (*names, *beginnings, ""):
        for directory in (directory / (f"{name}.service.d" if name else "service.d") for directory in directories):
            for file in reading.names(directory, root, ".conf"):
                found.setdefault(file, directory / file)
    return [found[name] for name in sorted(found)]


def _assigned(value: str) -> dict[str, str]:
    """Return the variables of a line Environment=, which may set several."""
    return dict(word.split("=", 1) for word in _words(value) if "=" in word)


def _words(value: str) -> list[str]:
    try:
        return [word.replace("%%", "%") for word in shlex.split(value)]
    except ValueError:  # a quotation mark without its fellow: systemd ignores the line
        return []


def is_script(path: str, root: pathlib.Path) -> bool:
    return reading.normal(path).startswith("/etc/init.d/") and reading.is_file(reading.on_disk(root, path), root)


def script_text(path: str, root: pathlib.Path) -> str:
    return without_comments(_text(reading.on_disk(root, path), root))


def script_variables(text: str, unit: str, root: pathlib.Path) -> dict[str, str]:
    """Return the variables of a script's text; what /etc/default says counts before what the script says."""
    variables: dict[str, str] = {}
    for name, value in (*_ASSIGNMENT.findall(defaults(unit, root)), *_ASSIGNMENT.findall(text)):
        variables.setdefault(name, value)  # what comes later is a default of the script's
    return variables


def defaults(unit: str, root: pathlib.Path) -> str:
    """Return what a Debian script sources."""
    return "\n".join(_text(root / "etc/default" / name, root) for name in ("openstack", unit))


def without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.lstrip()[:1] != "#")


def expand(text: str, variables: typing.Mapping[str, str], limit: int = _MAX_EXPANDED) -> str:
    """Return ``text`` with the variables that are known; a few rounds, since their values may hold others.

    :param limit: a round that gives more characters is left out: variables that hold each other grow without end.
    """
    for _ in range(4):
        found = _filled(_VARIABLE, text, lambda match: variables.get(match[1]), limit)
        if found is None:
            return text
        text = found
    return text


def _filled(
    names: re.Pattern[str],
    text: str,
    value: typing.Callable[[re.Match[str]], str | None],
    limit: int = _MAX_EXPANDED,
) -> str | None:
    """Return ``text`` with values in the place of ``names``, which stay where there is none; None when it is too
    long."""
    pieces: list[str] = []
    end = length = 0
    for match in names.finditer(text):
        found = value(match)
        if found is not None:
            pieces += (text[end : match.start()], found)
            length += match.start() - end + len(found)
            end = match.end()
            if length > limit:
                return None
    return "".join((*pieces, text[end:])) if pieces else text


def _text(path: pathlib.Path, root: pathlib.Path) -> str:
    """Return a file's text, its continued lines joined; '' when it cannot be read."""
    return re.sub(r"\\\n\s*", " ", reading.text(path, root, reading.UNIT_LIMIT))


def rows(path: pathlib.Path, root: pathlib.Path) -> list[tuple[int, str]]:
    """Return the lines of a file with their numbers; none when it cannot be read."""
    text = reading.text(path, root, reading.UNIT_LIMIT)
    return list(enumerate(text.split("\n"), 1)) if text else []
