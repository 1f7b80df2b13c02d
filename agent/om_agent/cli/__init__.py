"""The ``om-agent`` command: the only package that knows arguments, the environment and exit codes.

Each module of this package adds a group of commands. A command consists of two functions in one module: ``_add_x`` adds
its arguments, and ``_x`` runs it and returns the exit code. ``_add_x`` names ``_x`` with ``set_defaults(run=_x)``. A
command that changes the node also names a function that describes the node after an interruption (``node_state``).
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

# In the order in which --help lists the commands.
_GROUPS: tuple[typing.Callable[[typing.Any], None], ...] = (
    change.add_commands,
    heat.add_commands,
    look.add_commands,
    routers.add_commands,
    elements.add_elements_path,
)

_EPILOG = """\
exit codes:
  0  success: the node is in the desired state; or there is no metadata, and the node keeps its present state
  1  failure: apply failed, and the node is as it was before unless the message says otherwise; plan found that apply
     would fail; drain failed, and the message says what is left; verify or status could not inspect the node, so they
     say nothing about messaging
  2  the metadata or the command line is invalid; the agent changed nothing
  3  verify or status found messaging degraded or broken, or drain left edge routers or messages at the router; the
     output names each problem and the next command to run

examples:
  om-agent validate overcloud.json
  om-agent plan overcloud.json --node overcloud-controller-0
  om-agent apply --wait
"""


class _HookArgumentsError(Exception):
    """heat-config called the hook with wrong arguments; ``str()`` is argparse's message."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="om-agent",
        description="Configure messaging on an overcloud node from its Heat metadata.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"om-agent {om_agent.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add_group in _GROUPS:
        add_group(commands)
    return parser


def main(argv: typing.Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    _open_standard_streams()
    _escape_unencodable_text()
    try:
        args = _parse(sys.argv[1:] if argv is None else argv)
    except _HookArgumentsError as e:
        return heat.answer_wrong_arguments(str(e))
    with signals.interrupting(), _private():
        return _run(args)


def _open_standard_streams() -> None:
    """Open /dev/null for each standard stream that is closed.

    Otherwise the next file that the agent opens would become, for example, its standard output.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the system gives it the lowest free number


def _escape_unencodable_text() -> None:
    """Print a character as an escape sequence if the terminal's encoding does not have it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _private() -> typing.Iterator[None]:
    """Protect new files and the agent's memory from other users within the context."""
    umask = os.umask(0o077)  # files for other users get their mode by name; 0777 would shut out the agent's own user
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))  # a core dump of the agent or its children has passwords in it
    try:
        yield
    finally:
        os.umask(umask)
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def _parse(argv: typing.Sequence[str]) -> argparse.Namespace:
    """Return the parsed arguments.

    :raises _HookArgumentsError: for wrong arguments of the hook. For any other command argparse prints the error and
        exits.
    """
    if list(argv[:1]) != ["hook"]:
        return build_parser().parse_args(argv)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):  # argparse gives its message to nobody: it prints it and exits
            return build_parser().parse_args(argv)
    except SystemExit as e:
        if not e.code:  # --help
            raise
    _, _, message = printed.getvalue().strip().rpartition(": error: ")
    raise _HookArgumentsError(message)


def _run(args: argparse.Namespace) -> int:
    """Run the command; print an error and return its exit code if the command fails."""
    try:
        status: int = args.run(args)
        return status
    except errors.InvalidInput as e:
        return _fail(args, str(e), e.problems, e.exit_code)
    except errors.AgentError as e:
        state = _node_state(args)
        text = f"{e} By now {state}." if state == clauses.HALF_DRAINED else str(e)
        return _fail(args, text, getattr(e, "problems", ()), e.exit_code)
    except OSError as e:
        return _fail(args, f"{files.reason(e)}.")
    except workflow.CutShort as e:
        return _fail(args, workflow.cut_short_text(e.cause, e.left))
    except (Exception, KeyboardInterrupt) as e:
        return _fail(args, workflow.cut_short_text(e, _node_state(args)))


def _node_state(args: argparse.Namespace) -> str:
    """Return a clause that describes the node after the command was interrupted."""
    describe: typing.Callable[[pathlib.Path], str] | None = vars(args).get("node_state")
    return describe(args.root) if describe else clauses.NOTHING_CHANGED


def _fail(
    args: argparse.Namespace,
    text: str,
    problems: typing.Sequence[errors.Problem] = (),
    exit_code: int = errors.EXIT_APPLY_FAILED,
) -> int:
    """Print why the command failed, and return ``exit_code``."""
    if vars(args).get("json"):
        output.say_json({"error": text, "problems": report.problems_json(problems)})
    elif problems:
        output.note(report.problems_text(problems))
    else:
        output.note(f"om-agent: {text}")
    return exit_code
