"""What a unit starts, and in which environment. Its file and drop-ins say it, systemd's own configuration, Debian's
init scripts and uWSGI's ini file.

No program is run to find out.
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
_SYSTEMD_DIRECTORIES = ("etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd", "lib/systemd")
_ASSIGNMENT = re.compile(r"^[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)=[\"']?([^\n\"'`]*)", re.MULTILINE)
_EXPORT = re.compile(r"^[ \t]*export[ \t]+([A-Za-z_]\w*)=[\"']?([^\n\"'`]*)", re.MULTILINE)
_DIRECTIVE = re.compile(
    r"^[ \t]*(ExecStart|Environment|EnvironmentFile|UnsetEnvironment)[ \t]*=[ \t]*(.*)$", re.MULTILINE
)
_DEFAULTS = re.compile(r"^[ \t]*DefaultEnvironment[ \t]*=[ \t]*(.*)$", re.MULTILINE)
_INI = re.compile(r"--ini(?:-paste)?(?:=|\s+)[\"']?([^\s\"';]+)")
_UWSGI_OPTION = re.compile(r"\s*([\w-]+)\s*=\s*(.*?)\s*")
_UWSGI_VARIABLE = re.compile(r"([%$])\(([\w-]+)\)")
_ENV = re.compile(r"--env(?:=|\s+)[\"']?(\w+=[^\s\"']*)")
_WSGI = re.compile("wsgi|gunicorn|apache|httpd")  # what runs a WSGI program, in its command line
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


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
    file = next((path for path in units if path.is_file()), None)
    script = f"/etc/init.d/{unit}"
    if file is None and not is_script(script, root):
        return None
    started: list[str] = [] if file else [script]
    told: dict[str, Assigned] = {}  # to uWSGI on its command line
    given: dict[str, Assigned] = {}
    from_files: dict[str, Assigned] = {}  # EnvironmentFile= counts before Environment= (systemd.exec(5))
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
    command = expand(" ".join(started), {name: one.value for name, one in known.items()})
    return Service(command, {**known, **told})


def _for_all_units(root: pathlib.Path) -> dict[str, Assigned]:
    """Return DefaultEnvironment= of systemd's own files: the first system.conf, then all snippets."""
    directories = [root / d for d in _SYSTEMD_DIRECTORIES]
    snippets: dict[str, pathlib.Path] = {}
    for path in (path for directory in directories for path in directory.glob("system.conf.d/*.conf")):
        snippets.setdefault(path.name, path)
    first = [path for directory in directories if (path := directory / "system.conf").is_file()][:1]
    found: dict[str, Assigned] = {}
    for path in (*first, *(snippets[name] for name in sorted(snippets))):
        for value in _DEFAULTS.findall(_text(path)):
            found = {**found, **_at(_assigned(value), path, root)} if value.strip() else {}
    return found


def environment(unit: str, service: Service, root: pathlib.Path) -> dict[str, Assigned]:
    """Return the environment of a unit's program: systemd's, what a script exports, and what uWSGI sets."""
    found = dict(service.variables)
    scripts: list[pathlib.Path] = []
    if is_script(service.program, root):
        scripts = [root / service.program.lstrip("/"), *(root / "etc/default" / name for name in ("openstack", unit))]
    elif unit == "apache2":  # what apachectl sources
        scripts = [root / "etc/apache2/envvars"]
    for path in scripts:
        found.update(_at(dict(_EXPORT.findall(_text(path))), path, root))
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
    return [variables["UWSGI_INI_PATH"]] if "UWSGI_INI_PATH" in variables else _INI.findall(service.command)


def arguments(unit: str, service: Service, root: pathlib.Path) -> str:
    """Return what uWSGI's ini file has the program find in its arguments."""
    options = [one for path in uwsgi_files(unit, service, root) for one in uwsgi_options(path, root)]
    return " ".join(one.value for one in options if one.name == "pyargv")


def _uwsgi_value(value: str, options: typing.Mapping[str, str]) -> str:
    """Return a value with the options that it names, as in ``%(name)``, and variables, as in ``$(NAME)``."""
    return _UWSGI_VARIABLE.sub(lambda match: options.get(f"{match[1].strip('%')}{match[2]}", match[0]), value).replace(
        "%%", "%"
    )


def uwsgi_options(path: str, root: pathlib.Path, seen: tuple[str, ...] = ()) -> list[Option]:
    """Return the options of the section of an ini file that uWSGI reads, and of the files that those name, each once.

    :param seen: files that are not read again.
    """
    name, _, wanted = path.partition(":")
    section = ""
    found: list[Option] = []
    seen = (*seen, path)
    for number, row in rows(root / name.lstrip("/")):
        option = _UWSGI_OPTION.fullmatch(row)
        if row.strip().startswith("["):
            section = row.strip().strip("[]")
        elif option and section == (wanted or "uwsgi"):
            found.append(Option(name, number, option[1], option[2]))
            if option[1] == "ini" and option[2] not in seen:
                found += uwsgi_options(option[2], root, seen)
                seen = (*seen, *(one.value for one in found if one.name == "ini"))
    return found


def _at(values: dict[str, str], path: pathlib.Path, root: pathlib.Path) -> dict[str, Assigned]:
    return {name: Assigned(value, f"/{path.relative_to(root)}") for name, value in values.items()}


def _from_files(value: str, root: pathlib.Path) -> dict[str, Assigned]:
    """Return the variables of the files that a line EnvironmentFile= names, which may have wildcards."""
    found: dict[str, Assigned] = {}
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


def is_script(path: str, root: pathlib.Path) -> bool:
    return path.startswith("/etc/init.d/") and (root / path.lstrip("/")).is_file()


def script_text(path: str, root: pathlib.Path) -> str:
    return without_comments(_text(root / path.lstrip("/")))


def script_variables(text: str, unit: str, root: pathlib.Path) -> dict[str, str]:
    """Return the variables of a script's text; what /etc/default says counts before what the script says."""
    variables: dict[str, str] = {}
    for name, value in (*_ASSIGNMENT.findall(defaults(unit, root)), *_ASSIGNMENT.findall(text)):
        variables.setdefault(name, value)  # what comes later is a default of the script's
    return variables


def defaults(unit: str, root: pathlib.Path) -> str:
    """Return what a Debian script sources."""
    return "\n".join(_text(root / "etc/default" / name) for name in ("openstack", unit))


def without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.lstrip()[:1] != "#")


def expand(text: str, variables: typing.Mapping[str, str]) -> str:
    """Return ``text`` with the variables that are known; a few rounds, since their values may hold others."""
    for _ in range(4):
        text = _VARIABLE.sub(lambda match: variables.get(match[1], match[0]), text)
    return text


def _text(path: pathlib.Path) -> str:
    """Return a file's text, its continued lines joined; '' when it cannot be read."""
    try:
        return re.sub(r"\\\n\s*", " ", path.read_text(errors="replace"))
    except OSError:
        return ""


def rows(path: pathlib.Path) -> list[tuple[int, str]]:
    """Return the lines of a file with their numbers; none when it cannot be read."""
    try:
        return list(enumerate(path.read_text(errors="replace").split("\n"), 1))
    except OSError:
        return []
