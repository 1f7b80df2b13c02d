"""Whatever the metadata, the answer is a deployment or a list of problems, and a problem repeats no value."""

from __future__ import annotations

import json
import typing

import hypothesis
import pytest
from hypothesis import strategies as st
from om_agent import errors, metadata, metadata_files, parse
from om_agent.parse import keys, mapping

from tests.support import helpers

QUICK = hypothesis.settings(max_examples=150, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 1, 5672, 65536, "", "true", "5672", "\0", "\ud800", "a\nb", "%{x}", "{x}"]),
    st.floats(),
    st.text(max_size=20),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)

SECTIONS = {path: key.value.keys for path, key in keys.every() if isinstance(key.value, mapping.Nested)}
# The second node and the first entry of every other list have the value that is wrong.
PATHS = [path.replace("nodes[]", "nodes.1").replace("[]", ".0") for path, _ in keys.every()]
PATHS += ["sites.links.0"]
# Where a name stands; names may be repeated, so that people find them.
NAMES = {"node", "services", "rpc.nodes", "rpc.hosts", "notify.nodes", "notify.hosts", "nodes.1.name"}
NAMES |= {"nodes.1.address", "nodes.1.host", "nodes.1.site", "sites.links.0.between"}

BASES = {
    "default": helpers.default(),
    "dual": helpers.dual(),
    "paths": helpers.with_tls(helpers.dual()),
    "pem": helpers.with_tls(helpers.dual(), "pem"),
}
CANARY = "Canary7Zq"


def base(name: str) -> helpers.Raw:
    """Metadata in which every path of `PATHS` has its parents."""
    raw = helpers.put(BASES[name], "sites", {"links": [{"cost": 1}]})
    for half in ("rpc", "notify"):
        raw = helpers.put(raw, f"{half}.also_accept", [{"username": "second", "password": "p"}])
    return raw


def said(raw: object) -> list[errors.Problem]:
    try:
        return list(parse.deployment(raw).findings)
    except errors.InvalidInput as e:
        assert e.problems
        return list(e.problems)


def test_an_unknown_keys_remedy_names_the_known_ones() -> None:
    for section, known in SECTIONS.items():
        (problem,) = [p for p in said(helpers.put(helpers.default(), f"{section}.zz", 1)) if p.code == "unknown-key"]
        assert problem.remedy.rpartition(": ")[2] == ", ".join(sorted(key.name for key in known))


@QUICK
@hypothesis.given(st.sampled_from(sorted(BASES)), st.sampled_from(PATHS), JSON)
def test_any_value_under_any_known_key(name: str, path: str, value: object) -> None:
    said(helpers.put(base(name), path, value))


@QUICK
@hypothesis.given(st.dictionaries(st.sampled_from([key.name for key in keys.TOP]), JSON))
def test_any_values_under_the_top_keys(raw: dict[str, object]) -> None:
    said(raw)


@QUICK
@hypothesis.given(JSON)
def test_any_document(raw: object) -> None:
    said(raw)


@QUICK
@hypothesis.given(JSON)
def test_any_document_as_bytes(value: object) -> None:
    """The whole way from a file."""
    try:
        text = json.dumps({metadata.KEY: value}).encode()
    except ValueError:  # a number of more digits than Python writes
        return
    try:
        parsed = metadata_files.parse_text(text, "m")
    except errors.InvalidInput:
        return
    assert isinstance(parsed, dict)
    said(metadata.select(parsed, "ctl-0"))


@QUICK
@hypothesis.given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    try:
        metadata_files.parse_text(data, "m")
    except errors.InvalidInput as e:
        assert e.problems


def canaries() -> list[typing.Any]:
    """Values that hold a canary, of every type; a key is a name, so it holds none."""
    long = CANARY * 300
    texts = [CANARY, f"{CANARY} {CANARY}", f"{CANARY}\0", f"\ud800{CANARY}", f"/{CANARY} x", f"{CANARY}@x:1", long]
    return [*texts, [CANARY], [[CANARY]], {"key": CANARY}, [{"key": CANARY}], [f"{CANARY} "], CANARY.encode()]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", BASES)
def test_no_sentence_repeats_a_value(name: str, path: str) -> None:
    for value in canaries():
        for problem in said(helpers.put(base(name), path, value)):
            if path in NAMES and problem.code in ("twice", "unknown-node", "not-in-nodes", "site-apart"):
                continue
            assert CANARY not in str(problem), (path, value)


def test_no_sentence_repeats_a_password_of_valid_metadata_with_other_faults() -> None:
    raw = helpers.put(helpers.put(helpers.dual(), "rpc.password", CANARY), "notify.password", CANARY + "2")
    raw = helpers.put(raw, "router", {"mesh_password": CANARY + "3", "engine": "embedded"})
    raw = helpers.put(raw, "broker", {"erlang_cookie": CANARY + "4", "cluster": False})
    found = said(raw)
    assert len(found) == 2
    assert CANARY not in " ".join(map(str, found))


def test_numbers_are_not_repeated() -> None:
    for path in PATHS:
        for problem in said(helpers.put(base("dual"), path, 7654321)):
            assert "7654321" not in str(problem), path


def test_numbers_that_python_does_not_write() -> None:
    """YAML in hexadecimal has them; str() of one raises ValueError."""
    for path in PATHS:
        assert said(helpers.put(base("dual"), path, 1 << 20_000)), path


@QUICK
@hypothesis.given(st.text(min_size=1, max_size=30))
def test_a_password_that_is_refused_is_not_repeated(password: str) -> None:
    hypothesis.assume(len(password) > 3)
    for problem in said(helpers.put(helpers.default(), "rpc.password", password + "\0")):
        assert password not in str(problem)
