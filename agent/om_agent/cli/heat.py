"""The commands that carry out a deployment of Heat's: hook, signal."""

from __future__ import annotations

import argparse
import sys
import typing

from om_agent import deployments, errors, heat_signal, kinds, metadata, workflow
from om_agent.cli import arguments, output


def add_hook(commands: typing.Any) -> None:
    parser = commands.add_parser("hook", help="heat-config hook: deployment on stdin, deploy_* on stdout, exit 0")
    _add_options(parser)
    parser.set_defaults(run=_hook, left=workflow.left_by_apply)


def add_signal(commands: typing.Any) -> None:
    parser = commands.add_parser("signal", help="carry out Heat's deployment as the hook does, and tell Heat")
    _add_options(parser)
    parser.set_defaults(run=_signal, left=workflow.left_by_apply)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-v", "--verbose", action="store_true", help="as for apply; Heat is told of every change")
    arguments.add_node_options(parser)
    arguments.add_apply_options(parser)


def _hook(args: argparse.Namespace) -> int:
    """Heat takes the verdict from ``deploy_status_code``; the exit code is always 0, as heat-config wants it."""
    options = arguments.options(args)

    def get() -> heat_signal.Deployment:
        return metadata.parse_deployment(sys.stdin.buffer.read() if sys.stdin else b"")

    try:
        answer = deployments.carry_out(get, options, output.note)
    except workflow.CutShort as e:
        answer = deployments.interrupted(e.left)
    except KeyboardInterrupt:
        answer = deployments.interrupted(workflow.left_by_apply(options.root))
    return _give(answer)


def answer_wrong_arguments(what: str) -> int:
    """Answer a hook that was called wrongly, so that Heat does not wait for its timeout."""
    problem = kinds.problem("arguments", "bad-arguments", what=what)
    return _give(deployments.Answer(errors.EXIT_INVALID, stderr=str(problem)))


def _give(answer: deployments.Answer) -> int:
    """Print what heat-config is to tell Heat."""
    if answer.stderr:
        output.note(answer.stderr)
    output.say(answer.text)
    return errors.EXIT_OK


def _signal(args: argparse.Namespace) -> int:
    """End with what became of the deployment: os-refresh-config then fails, and os-collect-config runs it again."""
    options = arguments.options(args)
    deployment, other = deployments.collected(options)
    if deployment is None or not heat_signal.wants_signal(deployment):
        output.say("om-agent: no deployment of group om-messaging waits for a signal")
        return errors.EXIT_OK
    if deployments.knows_of_success(deployment, options):
        output.say("om-agent: Heat knows that the deployment succeeded")
        return errors.EXIT_OK

    def get() -> heat_signal.Deployment:
        if other:
            raise errors.InvalidInput([kinds.problem("deployment", "two-deliveries")])
        return deployment

    answer = deployments.carry_out(get, options, output.note)
    with answer.left:
        if answer.stdout:
            output.say(answer.stdout)
        if answer.stderr:
            output.note(answer.stderr)
        deployments.tell_heat(deployment, answer, options)
        return answer.status
