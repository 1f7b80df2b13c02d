"""Run puppet, and judge what it did by its exit code and its own report, never by the text of its output."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import typing

from om_agent import errors, kinds, proc
from om_agent.apply import files
from om_agent.plan import layout

MODULE = "om_messaging"
NEEDS = (MODULE, "stdlib", "inifile")
# Where puppet is when it does not come from the distribution, and where modules are: Debian, RDO, TripleO.
_PUPPET_DIRECTORIES = ("/opt/puppetlabs/bin", "/usr/bin")
_MODULE_DIRECTORIES = (
    "/etc/puppet/modules",
    "/opt/stack/puppet-modules",
    "/usr/share/openstack-puppet/modules",
    "/usr/share/puppet/modules",
    "/etc/puppetlabs/code/modules",
)
# Exit codes of --detailed-exitcodes: 0 nothing to do, 2 changed; 4 and 6 failed resources, 1 no catalogue.
_GOOD = (0, 2)
# The directories in its work directory: those that it writes into, and the one that the agent fills.
DIRECTORIES = ("conf", "var", "ssl", "public", "run", "logs", "modules")
# Levels of puppet's log.
_BAD = ("err", "alert", "emerg", "crit")


@dataclasses.dataclass(frozen=True)
class Tools:
    """What a run needs, found before anything is written."""

    puppet: str
    modules: dict[str, pathlib.Path]


def module_directories() -> tuple[pathlib.Path, ...]:
    """Return where modules are looked for: first in the agent's own package, which links to them in a source tree."""
    own = pathlib.Path(__file__).resolve().parents[1] / "puppet/modules"
    return (own, *map(pathlib.Path, _MODULE_DIRECTORIES))


def find_tools(directories: typing.Sequence[pathlib.Path]) -> Tools:
    """Return puppet and the modules.

    :raises om_agent.errors.NotReady: naming everything that is missing.
    """
    problems = []
    puppet = proc.find("puppet", _PUPPET_DIRECTORIES)
    if not puppet:
        problems.append(kinds.problem("puppet", "no-puppet"))
    modules = {}
    for name in NEEDS:
        found = next((d / name for d in directories if (d / name / "metadata.json").is_file()), None)
        if found:
            modules[name] = found
        else:
            paths = ", ".join(map(str, directories))
            problems.append(kinds.problem("puppet", "no-module", name=name, paths=paths))
    if problems:
        raise errors.NotReady(problems)
    return Tools(typing.cast(str, puppet), modules)


def run(tools: Tools, root: pathlib.Path, timeout: float, lock: int) -> tuple[str, ...]:
    """Apply the module with the hieradata that is on disk below ``root``.

    :param timeout: seconds.
    :param lock: descriptor of the node's lock, inherited so that a puppet that outlives the agent keeps it.
    :return: what puppet says it did, a line each, without values.
    :raises om_agent.errors.ApplyFailed: when the exit code or the report shows a failure.
    """
    work = files.state_dir(root) / "puppet"
    log = prepare(work, tools)
    previous = os.umask(0o077)  # nobody else may read puppet's own files in its work directory
    try:
        result = proc.run(command(tools, root, work, log), timeout, env=environment(work), keep_open=(lock,))
    finally:
        os.umask(previous)
    messages = _messages(log)
    hieradata = str(files.on_disk(root, layout.HIERADATA))
    if any(hieradata in m for level, m in messages if level in _BAD):
        _forget(work)  # the parser quotes what it cannot read, and that holds passwords
        messages = [("err", f"{hieradata} is damaged")]
    failures = _failures(work)
    if result.returncode not in _GOOD or failures:
        complaints = dict.fromkeys(m for level, m in messages if level in _BAD)
        reason = "; ".join(complaints) or "it gave no reason"
        raise errors.ApplyFailed(
            f"puppet failed (exit code {result.returncode}): {reason[:2000]}. Fix this and run om-agent apply again."
        )
    return tuple(m for level, m in messages if level == "notice")


def prepare(work: pathlib.Path, tools: Tools) -> pathlib.Path:
    """Make puppet's work directory; return the log file."""
    modules = work / "modules"
    modules.mkdir(parents=True, exist_ok=True)
    work.chmod(0o700)
    for name, target in tools.modules.items():
        link = modules / name
        if not (link.is_symlink() and os.readlink(link) == str(target)):
            with contextlib.suppress(FileNotFoundError):
                link.unlink()
            link.symlink_to(target)
    _forget(work)  # a failed compile leaves the old ones
    log = work / "log.jsonl"
    log.touch(0o600)
    return log


def _forget(work: pathlib.Path) -> None:
    """Remove the report and the log of puppet's last run."""
    for name in ("last_run_summary.yaml", "last_run_report.yaml", "log.jsonl"):
        with contextlib.suppress(FileNotFoundError):
            (work / name).unlink()


def environment(work: pathlib.Path) -> dict[str, str]:
    """Return all of puppet's environment."""
    return {
        "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        "HOME": str(work),
        "LC_ALL": "C.UTF-8",  # puppet reads the hieradata and the files in the locale's encoding
    }


def command(tools: Tools, root: pathlib.Path, work: pathlib.Path, log: pathlib.Path) -> list[str]:
    """Return what starts puppet in its directory ``work``, where `prepare` has been."""
    user = _names()
    return [
        tools.puppet,
        "apply",
        "--detailed-exitcodes",
        f"--confdir={work}/conf",
        f"--vardir={work}/var",
        f"--ssldir={work}/ssl",  # Debian's is not below vardir, and puppet gives it to whom it runs as
        f"--publicdir={work}/public",
        f"--rundir={work}/run",
        f"--logdir={work}/logs",
        f"--lastrunfile={work}/last_run_summary.yaml",
        f"--lastrunreport={work}/last_run_report.yaml",
        f"--modulepath={work}/modules",
        f"--hiera_config={files.on_disk(root, layout.HIERA_CONFIG)}",
        f"--logdest={log}",
        "--reports=none",
        "--no-show_diff",
        f"--user={user[0]}",
        f"--group={user[1]}",
        "-e",
        f"include {MODULE}",
    ]


def _names() -> tuple[str, str]:
    """Return the names of this user and group: run as root, puppet would give its directories to user puppet."""
    import grp
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
    except KeyError:
        return str(os.geteuid()), str(os.getegid())


def _messages(log: pathlib.Path) -> list[tuple[str, str]]:
    """Return (level, "source: message") of every line of the log, Facter's noise about the machine left out."""
    found = []
    for line in (files.read(log) or b"").decode(errors="replace").splitlines():
        try:
            entry = json.loads(line.strip().strip("[],") or "{}")
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("source") != "Facter" and entry.get("message"):
            source = "" if entry.get("source") == "Puppet" else f"{entry.get('source')}: "
            found.append((str(entry.get("level")), source + str(entry["message"]).strip()))
    return found


def _failures(work: pathlib.Path) -> int:
    """Return how many resources failed or could not be restarted, from puppet's summary; 1 when there is none."""
    import yaml

    try:
        summary = yaml.safe_load((work / "last_run_summary.yaml").read_bytes())
        resources = summary["resources"]
        return int(resources["failed"]) + int(resources["failed_to_restart"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return 1
