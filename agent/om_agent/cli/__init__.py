"""``om-agent``: the only package that knows of arguments, the environment and exit codes.

A command is two functions in one module: ``add_...`` adds its arguments, and names by ``set_defaults`` the function
that runs it (``run``) and, where it changes something, the one that says what a cut leaves behind (``left``).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import pathlib
import resource
import sys
import typing

import om_agent
from om_agent import errors, report, signals, workflow
from om_agent.apply import files
from om_agent.cli import change, elements, heat, look, output, routers
from om_agent.kinds import clauses

# In the order in which --help lists them.
_COMMANDS: tuple[typing.Callable[[typing.Any], None], ...] = (
    change.add_validate,
    change.add_plan,
    change.add_apply,
    heat.add_hook,
    heat.add_signal,
    look.add_verify,
    look.add_status,
    routers.add_drain,
    routers.add_resync,
    routers.add_watch,
    look.add_topology,
    look.add_capacity,
    elements.add_elements_path,
)

_EPILOG = """\
exit codes:
  0  the desired state holds, or there is no metadata and the present state was kept
  1  it could not be done: apply failed, and the node is as it was before, unless the message says otherwise; plan says
     that apply would fail so; drain failed, and it says what is left; verify or status could not look, and tell nothing
     of messaging
  2  the metadata or the command is invalid, and nothing was touched
  3  verify or status found messaging degraded or broken, or drain left something; what it is and the next command to
     run are printed

examples:
  om-agent validate overcloud.json
  om-agent plan overcloud.json --node overcloud-controller-0
  om-agent apply --wait
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="om-agent",
        description="Make an overcloud node's messaging configuration right, from its Heat metadata.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"om-agent {om_agent.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in _COMMANDS:
        add(commands)
    return parser


def main(argv: typing.Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    args = _parse(sys.argv[1:] if argv is None else argv)
    if isinstance(args, int):
        return args
    with signals.interrupting(), _private():
        return _run(args)


def _open_standard_streams() -> None:
    """A file opened later must not become standard output because that was closed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


@contextlib.contextmanager
def _private() -> typing.Iterator[None]:
    """Keep files and memory from others while this lasts."""
    umask = os.umask(0o077)  # what is for others is opened by name; one of 0777 would close all to an ordinary user
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))  # the memory of this program and its children holds passwords
    try:
        yield
    finally:
        os.umask(umask)
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def _parse(argv: typing.Sequence[str]) -> argparse.Namespace | int:
    """Return the arguments; the exit code for those of a hook that are wrong, which are answered here."""
    if list(argv[:1]) != ["hook"]:
        return build_parser().parse_args(argv)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):  # argparse prints what is wrong, and keeps it from its caller
            return build_parser().parse_args(argv)
    except SystemExit as e:
        if not e.code:  # --help
            raise
    return heat.answer_wrong_arguments(said.getvalue().strip().rpartition(": error: ")[2])


def _run(args: argparse.Namespace) -> int:
    try:
        status: int = args.run(args)
        return status
    except errors.InvalidInput as e:
        return _failed(args, str(e), e.problems, e.exit_code)
    except errors.AgentError as e:
        more = f" By now {_left(args)}." if _left(args) == clauses.HALF_DRAINED else ""
        return _failed(args, f"{e}{more}", getattr(e, "problems", ()), e.exit_code)
    except OSError as e:
        return _failed(args, f"{files.reason(e)}.")
    except workflow.CutShort as e:
        return _failed(args, workflow.cut_short_text(e.cause, e.left))
    except (Exception, KeyboardInterrupt) as e:
        return _failed(args, workflow.cut_short_text(e, _left(args)))


def _left(args: argparse.Namespace) -> str:
    """Return what is true of the node when a command was cut short, a clause."""
    left: typing.Callable[[pathlib.Path], str] | None = vars(args).get("left")
    return left(args.root) if left else clauses.NOTHING_CHANGED


def _failed(
    args: argparse.Namespace,
    text: str,
    problems: typing.Sequence[errors.Problem] = (),
    exit_code: int = errors.EXIT_APPLY_FAILED,
) -> int:
    """Say why a command could not do what it is for; returns ``exit_code``."""
    if vars(args).get("json"):
        output.say_json({"error": text, "problems": report.problems_json(problems)})
    elif problems:
        output.note(report.problems_text(problems))
    else:
        output.note(f"om-agent: {text}")
    return exit_code
