"""The commands that carry out a deployment of Heat: hook, signal."""

from __future__ import annotations

import argparse
import sys
import typing

from om_agent import deployments, errors, heat_signal, kinds, metadata, workflow
from om_agent.cli import arguments, output


def add_commands(commands: typing.Any) -> None:
    """Add the commands of this module."""
    _add_hook(commands)
    _add_signal(commands)


def _add_hook(commands: typing.Any) -> None:
    parser = commands.add_parser(
        "hook",
        help="run as a heat-config hook: read a deployment from stdin, print its deploy_* outputs, exit with 0",
    )
    _add_options(parser)
    parser.set_defaults(run=_hook, node_state=workflow.left_by_apply)


def _add_signal(commands: typing.Any) -> None:
    parser = commands.add_parser(
        "signal",
        help="carry out Heat's deployment as the hook does, then send the result to Heat",
    )
    _add_options(parser)
    parser.set_defaults(run=_signal, node_state=workflow.left_by_apply)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="accepted as for apply; Heat always gets every detail"
    )
    arguments.add_node_options(parser)
    arguments.add_apply_options(parser)


def _hook(args: argparse.Namespace) -> int:
    """Carry out the deployment on standard input.

    Heat reads the result from ``deploy_status_code``. heat-config wants the exit code 0 in any case.
    """
    options = arguments.options(args)

    def read_deployment() -> heat_signal.Deployment:
        content = sys.stdin.buffer.read() if sys.stdin else b""
        return metadata.parse_deployment(content)

    try:
        answer = deployments.carry_out(read_deployment, options, output.note)
    except workflow.CutShort as e:
        answer = deployments.interrupted(e.left)
    except KeyboardInterrupt:
        state = workflow.left_by_apply(options.root)
        answer = deployments.interrupted(state)
    return _print_answer(answer)


def answer_wrong_arguments(what: str) -> int:
    """Answer a hook call with wrong arguments, so that Heat does not wait until its timeout."""
    problem = kinds.problem("arguments", "bad-arguments", what=what)
    answer = deployments.Answer(errors.EXIT_INVALID, stderr=str(problem))
    return _print_answer(answer)


def _print_answer(answer: deployments.Answer) -> int:
    """Print what heat-config sends to Heat."""
    if answer.stderr:
        output.note(answer.stderr)
    output.say(answer.text)
    return errors.EXIT_OK


def _signal(args: argparse.Namespace) -> int:
    """Carry out the deployment that os-collect-config got, and send the result to Heat.

    The exit code is the result. If it is not 0, os-refresh-config fails, and os-collect-config runs it again.
    """
    options = arguments.options(args)
    deployment, other = deployments.collected(options)
    if deployment is None or not heat_signal.wants_signal(deployment):
        output.say("om-agent: no deployment of group om-messaging waits for a signal")
        return errors.EXIT_OK
    if deployments.knows_of_success(deployment, options):
        output.say("om-agent: Heat knows that the deployment succeeded")
        return errors.EXIT_OK

    def get_deployment() -> heat_signal.Deployment:
        if other:
            raise errors.InvalidInput([kinds.problem("deployment", "two-deliveries")])
        return deployment

    answer = deployments.carry_out(get_deployment, options, output.note)
    with answer.reporting:
        if answer.stdout:
            output.say(answer.stdout)
        if answer.stderr:
            output.note(answer.stderr)
        deployments.tell_heat(deployment, answer, options)
        return answer.status
