"""Messages about interrupted steps, and the handling of the signals that interrupt them."""

from __future__ import annotations

import argparse
import pathlib
import signal

import pytest
from om_agent import cli, errors, proc, signals, workflow
from om_agent.cli import arguments
from om_agent.kinds import clauses


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in proc.ENDING]


def test_handlers_are_put_back_whatever_happens() -> None:
    before = handlers()
    with pytest.raises(ValueError), signals.handled_by(signals.IGNORED) as old:
        assert handlers() == [signal.SIG_IGN] * len(proc.ENDING)
        assert list(old.values()) == before
        raise ValueError
    assert handlers() == before


def test_a_signal_interrupts_where_it_is_not_ignored() -> None:
    before = handlers()
    with pytest.raises(KeyboardInterrupt), signals.interrupting():
        signal.raise_signal(proc.ENDING[0])
    assert handlers() == before
    with signals.handled_by(signals.IGNORED), signals.interrupting():
        signal.raise_signal(proc.ENDING[0])


def test_what_is_ignored_within_is_heard_again_where_it_is_asked_for() -> None:
    with signals.interrupting(), signals.handled_by(signals.IGNORED) as before:
        signal.raise_signal(proc.ENDING[0])
        with pytest.raises(KeyboardInterrupt), signals.handled_by(before):
            signal.raise_signal(proc.ENDING[0])
        signal.raise_signal(proc.ENDING[0])


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (KeyboardInterrupt(), "interrupted; it is so."),
        (MemoryError(), f"{errors.OUT_OF_MEMORY}; by now it is so."),
        (RuntimeError("secret"), "defect: RuntimeError in test_workflow.py line "),
    ],
)
def test_what_cuts_a_step_short_is_kept_with_what_is_true_since(cause: BaseException, said: str) -> None:
    with pytest.raises(workflow.CutShort) as caught, workflow.leaving("it is so"):
        raise cause
    assert caught.value.cause is cause
    text = workflow.cut_short_text(caught.value.cause, caught.value.left)
    assert text.startswith(said) and "secret" not in text and "it is so" in text


@pytest.mark.parametrize("error", [errors.ApplyFailed("x"), PermissionError(13, "x")])
def test_an_error_that_says_itself_what_it_is_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, workflow.leaving("it is so"):
        raise error
    assert caught.value is error


def test_a_command_that_changes_nothing_leaves_nothing_changed(tmp_path: pathlib.Path) -> None:
    for command in (["verify"], ["status"], ["topology"], ["resync"]):
        args = cli.build_parser().parse_args([*command, "--root", str(tmp_path)])
        assert cli._node_state(args) == clauses.NOTHING_CHANGED
    for command in (["apply"], ["hook"], ["signal"]):
        args = cli.build_parser().parse_args([*command, "--root", str(tmp_path)])
        assert cli._node_state(args) == clauses.AS_BEFORE


def test_every_command_is_a_function() -> None:
    (commands,) = (a for a in cli.build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert commands.choices
    for parser in commands.choices.values():
        assert callable(parser.get_default("run"))


def test_options_come_from_the_arguments(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_CONFIG_FILES", "a:b")
    line = ["apply", "x", "--metadata", "y", "--node", "n", "--root", str(tmp_path), "--relocate", "--no-services"]
    line += ["--no-reconcile", "--lock-timeout", "1", "--puppet-timeout", "2"]
    assert arguments.options(cli.build_parser().parse_args(line)) == workflow.Options(
        ("x", "y"), "a:b", "n", tmp_path, True, False, False, 1.0, 2.0
    )
    monkeypatch.delenv("OS_CONFIG_FILES")
    assert arguments.options(cli.build_parser().parse_args(["apply"])) == workflow.Options()
