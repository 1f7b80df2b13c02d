"""A deployment of Heat's: carried out on this node, and what Heat is told of it."""

from __future__ import annotations

import contextlib
import dataclasses
import typing

from om_agent import errors, heat_signal, kinds, metadata, report, signals, workflow
from om_agent.apply import files, locking, saved_state
from om_agent.kinds import clauses

_VERIFY_SECONDS = 300.0  # the other nodes of a new stack may come up minutes later
MAX_SECONDS = 86400 * 7
_LEAVE = ("DELETE", "SUSPEND")  # what Heat does with a deployment that is not to change the node


@dataclasses.dataclass(frozen=True)
class Answer:
    """What Heat is told of a deployment.

    :param status: the exit code that apply would have given, or verify.
    :param outputs: beside Heat's own three, texts by name.
    :param applied: whether the node is as the metadata says.
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
        """The context in which the answer is printed and sent: an interruption there says that the node is done."""
        return workflow.leaving(clauses.APPLIED) if self.applied else contextlib.nullcontext()


def carry_out(
    get: typing.Callable[[], heat_signal.Deployment], options: workflow.Options, tell: workflow.Tell
) -> Answer:
    """Carry out a deployment: apply, then verify. Whatever fails, there is an answer.

    :raises KeyboardInterrupt: or `om_agent.workflow.CutShort` of one, when a signal ended it.
    """
    answer: Answer | None = None
    try:
        deployment = get()
        given = heat_signal.inputs(deployment)
        if given.get("deploy_action") in _LEAVE:
            action = given["deploy_action"]
            return Answer(errors.EXIT_OK, stdout=f"nothing is done at {action}: the present state stays")
        if not deployment.get("config") and metadata.KEY not in given:
            raise errors.InvalidInput([kinds.problem("deployment", "no-config")])
        seconds = _verify_seconds(given)
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
    """Verify what was applied; here a signal may cut it short again."""
    with workflow.leaving(clauses.APPLIED), signals.handled_by(done.handlers):
        try:
            answer = _verify(done, raw, options, seconds)
        except (errors.AgentError, OSError) as e:
            answer = _failure(e, clauses.APPLIED)
    return dataclasses.replace(answer, applied=True)


def _verify(done: workflow.Applied, raw: object, options: workflow.Options, seconds: float) -> Answer:
    ready, root = done.ready, options.root
    changes = saved_state.load_state(root).changes
    said = [report.deployed_text(ready.plan.node.name, done.outcome, changes)]
    outputs = {
        "node": ready.plan.node.name,
        "generation": heat_signal.generation(raw, saved_state.load_key(root, make=True)),
        "changes": str(changes),
    }
    seen, found = workflow.verified(ready, root, seconds)
    outputs["mesh"] = report.mesh_state(ready.deployment, ready.plan, found)
    faults = [f for f in found if f.severity == errors.ERROR]
    said += [report.verify_text(ready.plan, seen, found)]
    # apply and verify both look at the lines of services' files; verify says how much one matters
    seen_by_verify = {(f.path, f.code) for f in found}
    planned = [f for f in ready.plan.findings if (f.path, f.code) not in seen_by_verify]
    said += [str(f) for f in (*planned, *found) if f.severity == errors.WARNING]
    works = kinds.verdict(found) == kinds.WORKS
    status = errors.EXIT_OK if works else errors.EXIT_UNHEALTHY
    return Answer(status, "\n".join(said), "\n".join(map(str, faults)), outputs)


def _failure(error: BaseException, left: str) -> Answer:
    """Return the answer to what failed.

    :param left: what is true of the node when it was cut short, a clause.
    """
    if isinstance(error, errors.AgentError):
        return Answer(error.exit_code, stderr=str(error))
    if isinstance(error, OSError):
        return Answer(errors.EXIT_APPLY_FAILED, stderr=f"{files.reason(error)}.")
    said = workflow.cut_short_text(error, left)
    if not isinstance(error, KeyboardInterrupt):
        said = f"om-agent: {said}"
    return Answer(errors.EXIT_APPLY_FAILED, stderr=said)


def interrupted(left: str) -> Answer:
    """Return the answer to a deployment that a signal ended; ``left`` as for the others."""
    return _failure(KeyboardInterrupt(), left)


def _verify_seconds(given: typing.Mapping[str, object]) -> float:
    """Return how long a deployment wants to be waited for: its input ``verify_timeout``."""
    value = seconds_of(str(given.get("verify_timeout", _VERIFY_SECONDS)))
    if value is None:
        raise errors.InvalidInput([kinds.problem("inputs.verify_timeout", "not-seconds")])
    return value


def seconds_of(text: str) -> float | None:
    """Return a number of seconds of up to a week, None when the text is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= MAX_SECONDS else None


# -- telling Heat ----------------------------------------------------------------------------------------------------


def collected(options: workflow.Options) -> tuple[heat_signal.Deployment | None, bool]:
    """Return the deployment to carry out, if there is one, and whether other metadata stands in its place."""
    merged = metadata.read(workflow.collected_files(options) or ())
    return metadata.newest_deployment(merged), metadata.KEY in merged


def tell_of_failure(error: errors.AgentError, options: workflow.Options, tell: workflow.Tell) -> None:
    """Tell Heat of an apply that failed, after which nothing else would. The error itself is the caller's to raise."""
    try:
        deployment, other = collected(options)
        if deployment is None or other or not heat_signal.wants_signal(deployment):
            return
        tell_heat(deployment, Answer(error.exit_code, stderr=str(error)), options)
    except errors.AgentError as e:
        tell(f"om-agent: {e}")
    except OSError as e:  # it was told, and the disk has no room to note it
        tell(f"om-agent: {files.reason(e)}.")


def tell_heat(deployment: heat_signal.Deployment, answer: Answer, options: workflow.Options) -> None:
    """Tell Heat, unless it was told before."""
    root = options.root
    known = (
        heat_signal.status_told(root, deployment) is not None
        or heat_signal.by_heat_config(root, deployment) is not None
    )
    if not known:
        heat_signal.tell(deployment, answer.text)
    with locking.lock(root, options.lock_seconds):
        heat_signal.note(root, deployment, answer.status)


def knows_of_success(deployment: heat_signal.Deployment, options: workflow.Options) -> bool:
    """Return whether Heat was told that the deployment succeeded.

    :raises om_agent.errors.ApplyFailed: when heat-config has told Heat that it failed; it then carries it out again.
    """
    theirs = heat_signal.by_heat_config(options.root, deployment)
    if theirs:
        heat_signal.try_again(options.root, deployment)
        raise errors.ApplyFailed(
            f"The deployment failed with {theirs}, as heat-config has told Heat. The next run of os-refresh-config"
            " carries it out again."
        )
    return errors.EXIT_OK in (theirs, heat_signal.status_told(options.root, deployment))
