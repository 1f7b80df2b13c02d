"""Sides do the same work in turn, A B A B, while the others of the pair stand idle."""

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
    """What a part of the benchmark is given.

    :param directory: a new one, for this part alone.
    :param repetitions: of each piece of work, at most.
    :param kinds: of the pairs' work, those to do.
    :param show: takes each sample as soon as there is one.
    :param say: takes a line on how far it is.
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
    """Run a pair's work; what it finds are its samples."""
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
        for one in work.plan(name):
            what = one.name.partition("/")[0]
            if what not in context.kinds:
                continue
            taking_part = [side for side in made if what in (side.kind.works or (what,))]
            for repetition in range(min(context.repetitions, one.repetitions)):
                for side in taking_part:
                    context.show(_sample(name, one, side, repetition, made))
    finally:
        for side in made:
            side.end()
    return {}


def _sample(pair: str, one: work.Work, side: sides.Side, repetition: int, everyone: list[sides.Side]) -> figures.Sample:
    side.forget()
    sides.settle(_PAUSE_SECONDS)
    idle = [process for other in everyone if other is not side for process in other.own()]
    own = [*idle, *side.own()]
    before = machine.Usage.now(idle, own)
    values = one.do(side)
    # What the work ended counts, and what it started.
    after = machine.Usage.now(idle, {*own, *side.own()})
    beside = (after.asked - before.asked) / (after.at - before.at)
    return figures.Sample(pair, one.name, side.kind.name, repetition, values, before.foreign(after), beside)
