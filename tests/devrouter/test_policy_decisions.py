"""What a policy allows: names, patterns, groups, limits. The names are those that somebody hostile would choose."""

from __future__ import annotations

import dataclasses
import ipaddress
import time

import pytest
from om_devrouter import admission, policy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("/", ()),
        ("./.", ()),
        ("a", ("a",)),
        ("/a", ("a",)),
        ("a/", ("a",)),
        ("a//", ("a", "")),
        ("a//b", ("a", "", "b")),
        ("./a.b/c", ("a", "b", "c")),
        ("amqp:/_topo/0/r.1/temp.x", ("amqp:", "_topo", "0", "r", "1", "temp", "x")),
        ("\u00fc/\u20ac\n", ("\u00fc", "\u20ac\n")),
        ("a\0/b", ("a\0", "b")),
    ],
)
def test_tokens(text: str, expected: tuple[str, ...]) -> None:
    assert policy.tokens(text) == expected


@pytest.mark.parametrize(
    ("rule", "name", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a.b", True),
        ("a.b", "/a/b/", True),
        ("a/b", "A/b", False),
        ("a/b", "a", False),
        ("a/b", "a/b/c", False),
        ("*", "a", True),
        ("*", "", False),
        ("*", "a/b", False),
        ("*/*", "a//", True),
        ("#", "", True),
        ("#", "a/b/c", True),
        ("a/#", "a", True),
        ("a/#", "ab", False),
        ("a/#", "x/a", False),
        ("#/z", "z", True),
        ("#/z", "a/b/z", True),
        ("#/z", "a/z/b", False),
        ("#/#", "a", True),
        ("#/*", "", False),
        ("#/*", "a/b", True),
        ("*/#", "a", True),
        ("a/#/b/#/c", "a/b/c", True),
        ("a/#/b/#/c", "a/x/b/b/y/c", True),
        ("a/#/b/#/c", "a/x/c", False),
        ("a*/b", "ax/b", False),
        ("a*/b", "a*/b", True),
        ("#x", "y/#x", False),
        ("a/*", "a/#", True),
        ("a/b", "a/*", False),
        ("\u00fc/*", "\u00fc/\u20ac", True),
        ("\u00fc", "u\u0308", False),
        ("amqp:/_topo/*/#/temp/*", "amqp:/_topo/0/ctl-0/temp.Ab+_9", True),
        ("amqp:/_topo/*/#/temp/*", "amqp:/_topo/0/ctl.0.example.org/temp.x", True),
        ("amqp:/_topo/*/#/temp/*", "amqp:/_topo/0/ctl-0/$management", False),
        ("amqp:/_topo/*/#/temp/*", "amqp:/_topo/0/ctl-0/temp.x/$management", False),
        ("amqp:/_topo/*/#/temp/*", "amqp:/_topo/0/temp", False),
        ("amqp:/_edge/#/temp/*", "amqp:/_edge/e/temp.x", True),
    ],
)
def test_patterns(rule: str, name: str, expected: bool) -> None:
    assert policy.matches(policy.tokens(rule), policy.tokens(name)) is expected


def test_no_name_makes_a_pattern_slow() -> None:
    rule = policy.tokens("/".join(["#", "a"] * 12 + ["b"]))
    began = time.process_time()
    assert not policy.matches(rule, ("a",) * 20_000)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("rules", "user", "name", "expected"),
    [
        ((), "u", "a", False),
        (("",), "u", "", False),
        (("",), "u", "a", False),
        (("*",), "u", "", False),
        (("*",), "u", "anything/at.all", True),
        (("a",), "u", "a", True),
        (("a",), "u", "a\0b", False),
        (("a",), "u", "a\n", False),
        (("a", "b*"), "u", "b", True),
        (("a", "b*"), "u", "bc/d", True),
        (("b*",), "u", "ab", False),
        (("a/#",), "u", "a/b", False),
        (("${user}",), "u", "u", True),
        (("${user}",), "", "", False),
        (("${user}",), "u", "${user}", False),
        (("x-${user}-y",), "o.b/c", "x-o.b/c-y", True),
        (("x-${user}",), "u", "x-v", False),
        (("${user}/*",), "u", "u/x", True),
        (("${user}/*",), "u", "uu/x", False),
        # As in qdrouterd, where the star is looked for in what the user's name was put into.
        (("x-${user}",), "u*", "x-u-other", True),
    ],
)
def test_names(rules: tuple[str, ...], user: str, name: str, expected: bool) -> None:
    assert policy.Names(rules).allow(user, name) is expected


@pytest.mark.parametrize(
    ("rules", "user", "name", "expected"),
    [
        ((), "u", "a", False),
        (("",), "u", "a", False),
        (("",), "u", "/", False),
        (("#",), "u", "", False),
        (("#",), "u", "/", True),
        (("a", "b/#"), "u", "b/c", True),
        (("${user}",), "u", "u", True),
        (("${user}/#",), "u", "u/a/b", True),
        (("${user}/#",), "u", "u.a", True),
        (("${user}/#",), "u", "ux/a", False),
        (("${user}/#",), "u", "/u/a", False),
        (("${user}/#",), "a.b/c", "a.b/c/d", True),
        (("${user}/#",), "a.b/c", "a/b/c/d", False),
        (("${user}/#",), "#", "x/d", False),
        (("${user}/#",), "*", "*/d", True),
        (("${user}/#",), "\u00fc@r", "\u00fc@r/d", True),
        (("${user}/#",), "", "a", False),
        (("${user}/#",), "", "/a", True),
        (("t/${user}",), "u", "t/u", True),
        (("t/${user}",), "u", "t.u", True),
        (("t/${user}",), "u", "t/xu", False),
        (("t/${user}",), "u", "u", False),
        (("t/${user}",), "longer-than-it", "t/u", False),
        (("t/${user}",), "u", "t/${user}", False),
        (("x", "t/${user}"), "u", "t/${user}", True),
        (("x/${user}", "${user}/y"), "u", "u/y", True),
    ],
)
def test_patterns_with_a_user(rules: tuple[str, ...], user: str, name: str, expected: bool) -> None:
    assert policy.patterns(rules).allow(user, name) is expected


ALL = policy.Names(("*",))


def group(name: str, *users: str, **more: object) -> policy.Group:
    made = policy.Group(name, users or ("",), None, ALL, ALL, True, True)
    return dataclasses.replace(made, **more)  # type: ignore[arg-type]


VHOST = policy.Vhost("v", groups=(group("named", "a@r", "b.c/d", "\u00fc"), group(policy.DEFAULT)))


@pytest.mark.parametrize(
    ("user", "unknown", "expected"),
    [
        ("a@r", False, "named"),
        ("b.c/d", False, "named"),
        ("\u00fc", False, "named"),
        ("A@r", False, None),
        ("a", False, None),
        ("*", False, None),
        ("a", True, policy.DEFAULT),
        (None, False, None),
        (None, True, policy.DEFAULT),
        # A group without users has that without a name, as there.
        ("", False, policy.DEFAULT),
    ],
)
def test_the_group_of_a_user(user: str | None, unknown: bool, expected: str | None) -> None:
    found = dataclasses.replace(VHOST, allow_unknown_user=unknown).group(user)
    assert (found.name if found else None) == expected


def test_everybody_is_whoever_no_group_names() -> None:
    vhost = policy.Vhost("v", groups=(group("any", "*"), group("one", "a")))
    assert [found.name for found in map(vhost.group, ("a", "b", None)) if found] == ["one", "any", "any"]


@pytest.mark.parametrize(
    ("name", "default", "expected"),
    [("v", "w", "v"), ("x", "w", "w"), ("", "w", "w"), ("x", "", None), ("x", "y", None), ("V", "v", "v")],
)
def test_the_vhost_of_a_name(name: str, default: str, expected: str | None) -> None:
    rules = policy.Policy(True, default_vhost=default, vhosts=(policy.Vhost("v"), policy.Vhost("w")))
    found = rules.vhost(name)
    assert (found.hostname if found else None) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("10.0.0.1", True),
        ("10.0.0.9", True),
        ("10.0.0.10", False),
        ("9.255.255.255", False),
        ("::1", True),
        ("::2", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1%eth0", True),
        ("", False),
        ("localhost", False),
    ],
)
def test_hosts(host: str, expected: bool) -> None:
    ranges = (("10.0.0.1", "10.0.0.9"), ("::1", "::1"), ("fe80::", "fe80::ff"))
    hosts = tuple(policy.Hosts(ipaddress.ip_address(first), ipaddress.ip_address(last)) for first, last in ranges)
    assert group("g", hosts=hosts).takes(host) is expected
    assert group("g", hosts=None).takes(host)
    assert not group("g", hosts=()).takes(host)


def permit(**more: object) -> policy.Permit:
    return policy.Permit("v", group("g", "u", **more), "u", "127.0.0.1")


def test_limits_count_what_is_there() -> None:
    limited = permit(max_sessions=2, max_senders=2, max_receivers=1)
    assert limited.session(1) is None and limited.sender("a", 1) is None and limited.receiver("a", False, 0) is None
    for denial in (limited.session(2), limited.sender("a", 2), limited.receiver("a", False, 1)):
        assert denial is not None and denial.condition == policy.RESOURCE_LIMIT
    none = permit(max_sessions=0, max_senders=0, max_receivers=0)
    assert none.session(9) is None and none.sender("a", 9) is None and none.receiver("a", False, 9) is None


def test_links_without_an_address() -> None:
    assert permit().sender(None, 0) is None and permit().receiver(None, True, 0) is None
    assert permit().receiver(None, False, 0) is not None and permit().receiver("", False, 0) is not None
    assert permit(allow_anonymous_sender=False).sender("", 0) is not None
    assert permit(allow_dynamic_source=False).receiver(None, True, 0) is not None
    # With neither, a name decides nothing about these.
    assert permit(targets=policy.Names()).sender(None, 0) is None


@pytest.mark.parametrize(
    ("user_id", "allowed"), [(None, True), (b"", True), (b"u", True), (b"U", False), (b"u\0", False), (b"\xff", False)]
)
def test_the_user_id_of_a_message(user_id: bytes | None, allowed: bool) -> None:
    assert (permit().user_id(user_id) is None) is allowed
    assert permit(allow_user_id_proxy=True).user_id(user_id) is None


def test_what_is_shown_fits_a_line() -> None:
    assert policy.shown("a\n[C1] ALLOW\x1b[0m\u2028") == r"'a\n[C1] ALLOW\x1b[0m\u2028'"
    assert len(policy.shown("x" * 100_000)) < 250
    assert policy.shown(None) == "None"


# Counting.


def door(**more: object) -> admission.Admission:
    vhost = dataclasses.replace(policy.Vhost("v", groups=(group("g", "*"),)), **more)  # type: ignore[arg-type]
    return admission.Admission(policy.Policy(True, vhosts=(vhost,)))


def enter(gate: admission.Admission, number: int, user: str = "u", host: str = "h") -> policy.Permit | None:
    found = gate.opened(number, user, host, "v")
    return found if isinstance(found, policy.Permit) else None


def test_a_connection_that_left_makes_room() -> None:
    gate = door(max_connections=1)
    assert gate.accept("h") and gate.accept("h")
    first = enter(gate, 1)
    assert first is not None and enter(gate, 2) is None
    gate.left(1, first)
    gate.left(2, None)
    assert gate.current == 0 and enter(gate, 3) is not None
    counts = gate.vhosts["v"]
    assert (counts.approved, counts.denied, counts.current) == (2, 1, 1)
    assert (dict(counts.users), dict(counts.hosts)) == ({"u": [3]}, {"h": [3]})


def test_users_and_hosts_are_counted_apart() -> None:
    gate = door(max_connections_per_user=1, max_connections_per_host=2)
    assert enter(gate, 1) and not enter(gate, 2) and enter(gate, 3, "w") and not enter(gate, 4, "x")
    assert enter(gate, 5, "x", "other")


def test_what_was_asked_for_in_vain_leaves_nothing_behind() -> None:
    gate = door(max_connections=0)
    for number in range(100):
        assert enter(gate, number, f"user{number}", f"host{number}") is None
    assert not gate.vhosts["v"].users and not gate.vhosts["v"].hosts


def test_the_router_counts_without_a_vhost_policy() -> None:
    gate = admission.Admission(policy.Policy(False, max_connections=1))
    assert [gate.accept("h") for _ in range(3)] == [True, False, False]
    assert gate.opened(1, "u", "h", "v") is None
    assert (gate.processed, gate.denied, gate.total_denials, gate.current) == (3, 2, 2, 1)


def test_a_denial_names_who_and_where_and_what(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    gate = door(groups=(group("g", "*", allow_anonymous_sender=False),))
    found = enter(gate, 7, "u@r\n")
    assert found is not None
    denial = found.sender(None, 0)
    assert denial is not None
    gate.link_denied(7, found, denial, sender=True)
    assert caplog.messages == [r"[C7] DENY anonymous sender (user 'u@r\n', host h, vhost 'v')"]
    assert (gate.links_denied, gate.total_denials, gate.vhosts["v"].senders_denied) == (1, 1, 1)


def test_denials_are_counted_by_kind() -> None:
    gate = door(max_connections=1)
    gate.accept("h")
    found = enter(gate, 1)
    assert found is not None and enter(gate, 2) is None
    denial = policy.refused_connection("test")
    gate.session_denied(1, found, denial)
    gate.link_denied(1, found, denial, sender=False)
    gate.message_denied(1, found, denial)
    assert gate.denials() == {"connection": 1, "session": 1, "link": 1, "message": 1}
    # That of a vhost is no denial of the router's, and messages are counted nowhere there.
    assert (gate.denied, gate.total_denials, gate.vhosts["v"].receivers_denied) == (0, 2, 1)
