"""Let the sides of a pair do the same work in turn (A B A B). All sides but one are idle at a time."""

from __future__ import annotations

import collections.abc
import dataclasses
import pathlib
import typing

from om_agent import host_facts, model

from bench import figures, machine, sides, work
from testbed import processes

_PAUSE_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Context:
    """The input of a part of the benchmark.

    :param directory: a new directory for this part.
    :param repetitions: the maximum number of repetitions of each piece of work.
    :param kinds: the kinds of work that the sides of a pair do.
    :param show: gets each sample as soon as it is measured.
    :param say: gets a line about the progress.
    """

    supervisor: processes.Supervisor
    directory: pathlib.Path
    engine: model.Engine
    repetitions: int
    kinds: collections.abc.Container[str]
    show: collections.abc.Callable[[figures.Sample], None]
    say: collections.abc.Callable[[str], None]


Part = collections.abc.Callable[[Context], dict[str, typing.Any]]


def pair(context: Context, name: str) -> dict[str, typing.Any]:
    """Run the work of a pair. All its results are samples."""
    made: list[sides.Side] = []
    version = host_facts.broker_version(pathlib.Path("/"))
    kinds = sides.kinds(name, version)
    for kind in sides.KINDS[name]:
        if kind not in kinds:
            context.say(f"left out: {kind.words}, which RabbitMQ {version} does not have")
    try:
        for number, kind in enumerate(kinds):
            context.say(f"starting {kind.words}")
            made.append(sides.Side(context.supervisor, context.directory, kind, context.engine, number))
            made[-1].start()
        for task in work.plan(name):
            kind_of_work = task.name.partition("/")[0]
            if kind_of_work not in context.kinds:
                continue
            taking_part = [side for side in made if kind_of_work in (side.kind.works or (kind_of_work,))]
            for repetition in range(min(context.repetitions, task.repetitions)):
                for side in taking_part:
                    context.show(_sample(name, task, side, repetition, made))
    finally:
        for side in made:
            side.end()
    return {}


def _sample(
    pair: str, task: work.Work, side: sides.Side, repetition: int, all_sides: collections.abc.Iterable[sides.Side]
) -> figures.Sample:
    side.forget()
    sides.settle(_PAUSE_SECONDS)
    idle: list[processes.Process] = []
    for other in all_sides:
        if other is not side:
            idle += other.own()
    own = [*idle, *side.own()]
    before = machine.Usage.now(idle, own)
    values = task.do(side)
    # Include the processes that the work has ended and those that it has started.
    after = machine.Usage.now(idle, {*own, *side.own()})
    beside = (after.asked - before.asked) / (after.at - before.at)
    return figures.Sample(pair, task.name, side.kind.name, repetition, values, before.foreign(after), beside)
