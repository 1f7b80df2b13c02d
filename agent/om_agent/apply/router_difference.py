"""The steps from a running router to the entities of a file, and which of them need a restart."""

from __future__ import annotations

import dataclasses
import typing

from om_agent import amqp
from om_agent.plan import router

TYPES = {"listener": "listener", "connector": "connector", "address": "router.config.address", "vhost": "vhost"}
# The attributes of a listener that may change while it runs: they hold for new connections, and existing ones may keep
# the old ones. Who may log in must change for all connections at once, so that needs a restart.
_MOVES = frozenset(("host", "port", "linkCapacity", "idleTimeoutSeconds", "cost"))
_DEFAULTS: dict[str, object] = {"cost": 1}  # of attributes that are left out when they have this value


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing to create, delete or change.

    :param sign: ``+``, ``-`` or ``~``.
    :param attributes: as they shall be, of what is deleted as they are.
    :param differs: what changes.
    """

    sign: str
    kind: str
    name: str
    attributes: typing.Mapping[str, object] = dataclasses.field(repr=False)
    differs: tuple[str, ...] = ()

    @property
    def early(self) -> bool:
        """True when it is done before services move: it makes something that they may need."""
        return self.sign == "+" or (self.sign == "~" and self.kind in ("listener", "vhost"))

    def __str__(self) -> str:
        return f"{self.sign} {self.kind} {self.name}{': ' if self.differs else ''}{', '.join(self.differs)}"


@dataclasses.dataclass(frozen=True)
class Difference:
    """The way from one configuration to another.

    :param obstacles: what only a restart changes, a clause each.
    """

    steps: tuple[Step, ...]
    obstacles: tuple[str, ...]


def difference(old: typing.Sequence[router.Entity], new: typing.Sequence[router.Entity]) -> Difference:
    """Return the way from ``old`` to ``new``; pure."""
    before, after = _by_key(old), _by_key(new)
    steps, obstacles = [], []
    for key in dict.fromkeys((*after, *before)):
        kind, name = key
        was, to_be = before.get(key), after.get(key)
        if was == to_be:
            continue
        differs = tuple(a for a in dict.fromkeys((*(to_be or ()), *(was or ()))) if _differs(a, was, to_be))
        sign = "+" if was is None else "~"
        if to_be is None:
            sign = "-"
        attributes = to_be if to_be is not None else was or {}
        step = Step(sign, kind, name, attributes, differs if sign == "~" else ())
        if sign == "~" and not differs:
            continue
        if _possible(step, was or {}):
            steps.append(step)
        else:
            obstacles.append(_obstacle(step))
    order = {"address": 0, "vhost": 1, "listener": 2, "connector": 3}
    return Difference(tuple(sorted(steps, key=lambda s: order[s.kind])), tuple(obstacles))


def _by_key(entities: typing.Sequence[router.Entity]) -> dict[tuple[str, str], dict[str, typing.Any]]:
    return {(kind, str(a.get("prefix") or a.get("hostname") or a.get("name") or "")): dict(a) for kind, a in entities}


def _differs(
    attribute: str, was: typing.Mapping[str, object] | None, to_be: typing.Mapping[str, object] | None
) -> bool:
    default = _DEFAULTS.get(attribute)
    a, b = ((side or {}).get(attribute, default) for side in (was, to_be))
    return attribute != "name" and a != b and str(a) != str(b)  # a port comes back as text, and numbers as AMQP's own


def _possible(step: Step, was: typing.Mapping[str, object]) -> bool:
    if step.kind not in TYPES or step.attributes.get("http") or was.get("http"):
        return False
    if step.sign == "~" and step.kind == "listener":
        return set(step.differs) <= _MOVES
    return step.sign != "~" or step.kind in ("connector", "vhost")


def _obstacle(step: Step) -> str:
    if step.kind == "router":
        return f"{', '.join(f'router.{a}' for a in step.differs) or 'the router itself'} changes"
    if step.sign == "~":
        return f"{', '.join(step.differs)} of the {step.kind} {step.name} changes"
    return f"the {step.kind} {step.name} is {'new' if step.sign == '+' else 'gone'}"


def drift(p: router.RouterPlan, wanted: typing.Sequence[router.Entity], client: amqp.Client) -> Difference:
    """Return the way from the running router to ``wanted``.

    The uplink that an edge router uses stays as long as the router at its other end belongs to the mesh.
    """
    found: list[router.Entity] = []
    keyed = _by_key(wanted)
    for kind, entity in TYPES.items():
        for row in client.query(entity):
            (key,) = _by_key([(kind, row)])
            if kind == "listener" and row.get("http") and key not in keyed:
                row = {"name": row["name"], "http": True}
            named = {a: row[a] for a in ("name", "prefix", "hostname") if a in row}
            attributes = {a: row[a] for a in (*keyed.get(key, ()), *_DEFAULTS) if a in row}
            found.append((kind, {**attributes, **named}))
    whole = difference(found, [(kind, a) for kind, a in wanted if kind in TYPES])
    good_uplinks = {f"uplink/{name}" for name in p.interiors}
    used = uplink_in_use(client) if any(gives_up_uplink(step) for step in whole.steps) else ""
    kept = used if used in good_uplinks else None
    steps = [step for step in whole.steps if not (gives_up_uplink(step) and step.name == kept)]
    return Difference(tuple(steps), whole.obstacles)


def gives_up_uplink(step: Step) -> bool:
    """Return whether a step takes an uplink away from an edge router."""
    return step.sign == "-" and step.kind == "connector" and step.name.startswith("uplink/")


def uplink_in_use(client: amqp.Client) -> str:
    """Return the name of the connector that an edge router sends everything over; the other one waits for its turn.

    Taking that away loses the calls of the next 10 to 400 ms, until all interiors know where the edge is now (measured
    with both engines, doc/verify.rst).
    """
    rows = [r for r in client.query("connection") if r["role"] == "edge" and r["dir"] == "out" and r.get("active")]
    return f"uplink/{rows[0]['container']}" if rows else ""


def departed(
    old: typing.Sequence[router.Entity], new: typing.Sequence[router.Entity], noted: typing.Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the users who may not log in any more. Their connections have to be ended, since no engine does that.

    Return none while another user is new: services, also on other nodes, may still use the old one.

    :param noted: those of a run that did not come to its end.
    """
    before, after = _users(old), _users(new)
    return tuple(sorted({*before, *noted} - after)) if after <= before else ()


def _users(entities: typing.Sequence[router.Entity]) -> set[str]:
    groups = [g for kind, a in entities if kind == "vhost" for g in dict(a.get("groups") or {}).values()]
    return {user for group in groups for user in str(group.get("users") or "").split(",")} - {""}
