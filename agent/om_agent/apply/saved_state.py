"""What the agent keeps on the node: the state after the last apply, and the node's own key."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import secrets

from om_agent import errors, kinds
from om_agent.apply import files
from om_agent.plan import layout, services

PATH = f"{layout.STATE_DIR}/state.json"


@dataclasses.dataclass(frozen=True)
class State:
    """The state after the last successful apply. It holds no secret.

    :param files: paths of the files that are ours.
    :param units: units of ours that run here.
    :param sasl: by path of a SASL database: (fingerprint of its users, SHA-256 of its bytes).
    :param changes: how many the last apply made that had anything to do.
    :param node: the node's name in the metadata; '' in the state of an older agent.
    :param drivers: by path of a service's file, the sections of the drivers that it was made to use.
    :param sections: by path of a service's file, the sections that were added to it. The state of an older agent has
        none, so the sections that it added stay when they become empty.
    :param queue_options: names of the options about queues that services were given.
    :param texts: the texts that templates made, by digest of template and values; an older agent has none.
    """

    files: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    sasl: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    changes: int = 0
    node: str = ""
    drivers: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    sections: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    queue_options: tuple[str, ...] = ()
    texts: dict[str, str] = dataclasses.field(default_factory=dict)


def load_state(root: pathlib.Path) -> State:
    """Return the state after the last apply; an empty one if there was none, or if this user may not read it.

    :raises om_agent.errors.NotReady: when it is damaged.
    """
    found = files.find(root, PATH)
    if found.content is None:
        return State()
    try:
        raw = json.loads(found.content)
        sasl = {str(k): (str(v[0]), str(v[1])) for k, v in raw["sasl"].items()}
        drivers = raw["drivers"] if "drivers" in raw else _written_drivers(root)
        return State(
            files=tuple(map(str, raw["files"])),
            units=tuple(map(str, raw["units"])),
            sasl=sasl,
            changes=int(raw.get("changes", 0)),
            node=str(raw.get("node", "")),
            drivers=_by_path(drivers),
            sections=_by_path(raw.get("sections", {})),
            queue_options=tuple(map(str, raw.get("queue_options", ()))),
            texts={str(digest): str(text) for digest, text in raw.get("texts", {}).items()},
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise errors.NotReady([kinds.problem(str(found.place), "damaged-state")]) from None


def _by_path(raw: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    """Return lists of sections by path as JSON has them, checked."""
    return {str(path): tuple(map(str, sections)) for path, sections in raw.items()}


def _written_drivers(root: pathlib.Path) -> dict[str, list[str]]:
    """Return `State.drivers` from the hieradata, for a state file of an older agent, which has none."""
    data = json.loads(files.read(files.on_disk(root, layout.HIERADATA)) or b"{}")
    target = "" if root == pathlib.Path("/") else str(root)
    found = {}
    for path, wanted in data.get("om_messaging::config_files", {}).items():
        written = [name for name, keys in wanted["settings"].items() if set(keys.values()) - {None}]
        found[path.removeprefix(target)] = [name for name in written if name in services.DRIVERS.values()]
    return found


def dump_state(state: State) -> bytes:
    """Return the bytes of ``state.json``."""
    return json.dumps({"version": 1, **dataclasses.asdict(state)}, indent=2).encode() + b"\n"


def load_key(root: pathlib.Path, make: bool) -> bytes:
    """Return this node's own random key; it never leaves the node.

    :param make: keep a new one at first use.
    """
    path = files.state_dir(root) / "key"
    key = files.read(path)
    if key is None or len(key) != 32:
        key = secrets.token_bytes(32)
        if make:
            files.write(path, key, 0o600)
    return key


def sasl_dir(root: pathlib.Path) -> pathlib.Path:
    """Return where SASL databases are made; `recover` removes what a killed run left there."""
    return files.state_dir(root) / "sasl"
