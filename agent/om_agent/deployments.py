"""Carry out a deployment of Heat on this node, and send the result to Heat."""

from __future__ import annotations

import contextlib
import dataclasses
import typing

from om_agent import errors, heat_signal, kinds, metadata, report, signals, workflow
from om_agent.apply import files, locking, saved_state
from om_agent.kinds import clauses

_VERIFY_SECONDS = 300.0  # the other nodes of a new stack may start minutes later
MAX_SECONDS = 86400 * 7
_IGNORED_ACTIONS = ("DELETE", "SUSPEND")  # Heat's actions that must not change the node


@dataclasses.dataclass(frozen=True)
class Answer:
    """The result of a deployment, for Heat.

    :param status: the exit code that apply or verify would return.
    :param outputs: values by name, in addition to Heat's own three outputs.
    :param applied: whether the node is configured as the metadata says.
    """

    status: int
    stdout: str = ""
    stderr: str = ""
    outputs: typing.Mapping[str, str] = dataclasses.field(default_factory=dict)
    applied: bool = False

    @property
    def text(self) -> str:
        """The signal as JSON."""
        return report.signal(self.status, self.stdout, self.stderr, self.outputs)

    @property
    def reporting(self) -> contextlib.AbstractContextManager[None]:
        """The context for printing and sending the answer: an interruption then reports that apply succeeded."""
        return workflow.leaving(clauses.APPLIED) if self.applied else contextlib.nullcontext()


def carry_out(
    get: typing.Callable[[], heat_signal.Deployment], options: workflow.Options, tell: workflow.Tell
) -> Answer:
    """Carry out a deployment: apply, then verify. There is an answer even if a step fails.

    :param get: returns the deployment.
    :param tell: receives messages while a step runs.
    :raises KeyboardInterrupt: when a signal ends it; or `om_agent.workflow.CutShort` with that cause.
    """
    answer: Answer | None = None
    try:
        deployment = get()
        inputs = heat_signal.inputs(deployment)
        action = inputs.get("deploy_action")
        if action in _IGNORED_ACTIONS:
            return Answer(errors.EXIT_OK, stdout=f"om-agent does nothing at {action}: the node keeps its present state")
        if not deployment.get("config") and metadata.KEY not in inputs:
            raise errors.InvalidInput([kinds.problem("deployment", "no-config")])
        seconds = _verify_seconds(inputs)
        raw = metadata.from_deployment(dict(deployment))
        with workflow.applied(lambda: raw, options, tell) as done:
            answer = _verified(done, raw, options, seconds)
    except workflow.CutShort as e:
        if isinstance(e.cause, KeyboardInterrupt):
            raise
        return dataclasses.replace(_failure(e.cause, e.left), applied=True)
    except KeyboardInterrupt as e:
        if answer is not None:
            raise workflow.CutShort(e, clauses.APPLIED) from e
        raise
    except Exception as e:
        return _failure(e, workflow.left_by_apply(options.root))
    return answer


def _verified(done: workflow.Applied, raw: object, options: workflow.Options, seconds: float) -> Answer:
    """Verify what was applied. Signals, which apply ignores at its end, may interrupt this again."""
    with workflow.leaving(clauses.APPLIED), signals.handled_by(done.handlers):
        try:
            answer = _verify(done, raw, options, seconds)
        except (errors.AgentError, OSError) as e:
            answer = _failure(e, clauses.APPLIED)
    return dataclasses.replace(answer, applied=True)


def _verify(done: workflow.Applied, raw: object, options: workflow.Options, seconds: float) -> Answer:
    root = options.root
    ready = done.ready
    name = ready.plan.node.name
    changes = saved_state.load_state(root).changes
    generation = heat_signal.generation(raw, saved_state.load_key(root, make=True))
    seen, findings = workflow.verified(ready, root, seconds)
    outputs = {
        "node": name,
        "generation": generation,
        "changes": str(changes),
        "mesh": report.mesh_state(ready.deployment, ready.plan, findings),
    }
    lines = [report.deployed_text(name, done.outcome, changes), report.verify_text(ready.plan, seen, findings)]
    lines += [str(warning) for warning in _warnings(ready.plan.findings, findings)]
    faults = [str(finding) for finding in findings if finding.severity == errors.ERROR]
    works = kinds.verdict(findings) == kinds.WORKS
    status = errors.EXIT_OK if works else errors.EXIT_UNHEALTHY
    return Answer(status, "\n".join(lines), "\n".join(faults), outputs)


def _warnings(
    planned: typing.Sequence[errors.Problem], verified: typing.Sequence[errors.Problem]
) -> list[errors.Problem]:
    """Return the warnings of the plan and of verify.

    Both check the lines of services' files. Where both report a line, the severity from verify counts.
    """
    by_verify = {(finding.path, finding.code) for finding in verified}
    by_plan_alone = [finding for finding in planned if (finding.path, finding.code) not in by_verify]
    return [finding for finding in (*by_plan_alone, *verified) if finding.severity == errors.WARNING]


def _failure(error: BaseException, left: str) -> Answer:
    """Return the answer after an error.

    :param left: a clause that describes the node after an interruption.
    """
    if isinstance(error, errors.AgentError):
        return Answer(error.exit_code, stderr=str(error))
    if isinstance(error, OSError):
        return Answer(errors.EXIT_APPLY_FAILED, stderr=f"{files.reason(error)}.")
    text = workflow.cut_short_text(error, left)
    if not isinstance(error, KeyboardInterrupt):
        text = f"om-agent: {text}"
    return Answer(errors.EXIT_APPLY_FAILED, stderr=text)


def interrupted(left: str) -> Answer:
    """Return the answer after a signal ended a deployment.

    :param left: a clause that describes the node now.
    """
    return _failure(KeyboardInterrupt(), left)


def _verify_seconds(inputs: typing.Mapping[str, object]) -> float:
    """Return how long verify may wait: the deployment's input ``verify_timeout``, or the default."""
    value = seconds_of(str(inputs.get("verify_timeout", _VERIFY_SECONDS)))
    if value is None:
        raise errors.InvalidInput([kinds.problem("inputs.verify_timeout", "not-seconds")])
    return value


def seconds_of(text: str) -> float | None:
    """Return the number of seconds in ``text``, up to a week; None when it holds no such number."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= MAX_SECONDS else None


# -- sending the result to Heat ---------------------------------------------------------------------------------------


def collected(options: workflow.Options) -> tuple[heat_signal.Deployment | None, bool]:
    """Return the deployment to carry out, if there is one, and whether there is other messaging metadata as well."""
    merged = metadata.read(workflow.collected_files(options) or ())
    return metadata.newest_deployment(merged), metadata.KEY in merged


def tell_of_failure(error: errors.AgentError, options: workflow.Options, tell: workflow.Tell) -> None:
    """Send the failure of an apply to Heat, since nothing else would do so. The caller raises the error itself."""
    try:
        deployment, other = collected(options)
        if deployment is None or other or not heat_signal.wants_signal(deployment):
            return
        tell_heat(deployment, Answer(error.exit_code, stderr=str(error)), options)
    except errors.AgentError as e:
        tell(f"om-agent: {e}")
    except OSError as e:  # Heat has the result, and the disk has no space to store that
        tell(f"om-agent: {files.reason(e)}.")


def tell_heat(deployment: heat_signal.Deployment, answer: Answer, options: workflow.Options) -> None:
    """Send the result to Heat, unless Heat has a result of this deployment, and store it."""
    root = options.root
    sent_by_agent = heat_signal.status_told(root, deployment) is not None
    sent_by_heat_config = heat_signal.by_heat_config(root, deployment) is not None
    if not sent_by_agent and not sent_by_heat_config:
        heat_signal.tell(deployment, answer.text)
    with locking.lock(root, options.lock_seconds):
        heat_signal.note(root, deployment, answer.status)


def knows_of_success(deployment: heat_signal.Deployment, options: workflow.Options) -> bool:
    """Return whether Heat has the result that the deployment succeeded.

    :raises om_agent.errors.ApplyFailed: when heat-config reported to Heat that the deployment failed. heat-config then
        carries it out again.
    """
    by_heat_config = heat_signal.by_heat_config(options.root, deployment)
    if by_heat_config:
        heat_signal.try_again(options.root, deployment)
        raise errors.ApplyFailed(
            f"The deployment failed with status {by_heat_config}, and heat-config has reported that to Heat. The next"
            " run of os-refresh-config carries out the deployment again."
        )
    by_agent = heat_signal.status_told(options.root, deployment)
    return errors.EXIT_OK in (by_heat_config, by_agent)
