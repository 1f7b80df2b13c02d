"""Vhost policies: what the development router refuses, and how, is what qdrouterd and skrouterd refuse.

Most vhosts here are chosen by the hostname of the Open frame, so that one router of each engine serves many rules.
"""

from __future__ import annotations

import collections.abc
import contextlib
import pathlib
import shutil
import socket
import subprocess
import time
import typing

import pytest

from tests.support import engines, waiting

proton = engines.proton
Delivery = proton.Delivery

LINK = ("amqp:unauthorized-access", "link disallowed by local policy")
LINK_LIMIT = ("amqp:resource-limit-exceeded", "link disallowed by local policy")
CONNECTION = ("amqp:resource-limit-exceeded", "connection disallowed by local policy")
MESSAGE = ("amqp:unauthorized-access", "policy violation on target")
USER_ID = ("amqp:unauthorized-access", "user_id proxy violation")

EVERYTHING: dict[str, object] = {
    "remoteHosts": "*",
    "allowDynamicSource": True,
    "allowAnonymousSender": True,
    "sources": "*",
    "targets": "*",
}
NOTHING: dict[str, object] = {"remoteHosts": "*"}
ENABLED: engines.Entity = ("policy", {"enableVhostPolicy": True})

# What the agent renders (om_agent.plan.policy).
RPC = "openstack.org/om/rpc"
AGENTS: tuple[engines.Entity, ...] = (
    ("policy", {"enableVhostPolicy": True, "maxConnections": 65535}),
    (
        "vhost",
        {
            "hostname": "client-rpc",
            "allowUnknownUser": False,
            "groups": {
                "rpc": {
                    "users": "rpc@overcloud",
                    "remoteHosts": "*",
                    "allowDynamicSource": True,
                    "allowAnonymousSender": False,
                    "allowUserIdProxy": False,
                    "maxSessions": 32768,
                    "sourcePattern": f"{RPC}/#",
                    "targetPattern": f"{RPC}/#,amqp:/_topo/*/#/temp/*,amqp:/_edge/#/temp/*",
                },
                "operator": {"users": "router-admin@overcloud", **EVERYTHING},
            },
        },
    ),
)

#: Group attributes, a name, and whether a link to it and one from it is allowed: the same for every engine.
NAMES: dict[str, tuple[dict[str, str], dict[str, bool]]] = {
    "none": ({}, {"a": False}),
    "empty": ({"sources": "", "targets": ""}, {"a": False}),
    "star": ({"sources": "*", "targets": "*"}, {"a": True, "a/b": True, "\u00fc": True}),
    "whole": (
        {"sources": "a, b/c", "targets": "a, b/c"},
        {"a": True, "b/c": True, "a/": False, "/a": False, "A": False, "ab": False, "b.c": False, "b": False},
    ),
    "begin": (
        {"sources": "a*,b/*", "targets": "a*,b/*"},
        {"a": True, "ab": True, "a/b": True, "b/": True, "b": False, "b/*": True, "ba": False, "xa": False},
    ),
    "inner": ({"sources": "a*c,*d", "targets": "a*c,*d"}, {"abc": False, "a*c": True, "*d": True, "xd": False}),
    "user": (
        {"sources": "q-${user},${user}/x*,p-${user}-s", "targets": "q-${user},${user}/x*,p-${user}-s"},
        {
            "q-anonymous": True,
            "q-anonymou": False,
            "q-${user}": False,
            "anonymous/x/y": True,
            "p-anonymous-s": True,
            "p-other-s": False,
        },
    ),
    "hash": ({"sources": "a/#", "targets": "a/#"}, {"a/b": False, "a": False, "a/#": True}),
    "any": ({"sourcePattern": "#", "targetPattern": "#"}, {"a": True, "a/b.c": True, "#": True}),
    "one": (
        {"sourcePattern": "a/*", "targetPattern": "a/*"},
        {"a/b": True, "a.b": True, "a": False, "a/": False, "a//": True, "a/b/c": False, "/a/b": True, "./a.b/": True},
    ),
    "more": (
        {"sourcePattern": "a/#", "targetPattern": "a/#"},
        {"a": True, "a/b": True, "a.b/c": True, "a//b": True, "ab": False, "b/a": False, "amqp:/a/b": False},
    ),
    "last": (
        {"sourcePattern": "#/z", "targetPattern": "#/z"},
        {"z": True, "a/z": True, "a/b.z": True, "z/a": False, "az": False, "a/z/": True, "a/z//": False},
    ),
    "middle": (
        {"sourcePattern": "a/#/z/*", "targetPattern": "a/#/z/*"},
        {"a/z/1": True, "a/b/c/z/1": True, "a/z": False, "a/z/z/1": True, "a/z/1/2": False, "a/b/1": False},
    ),
    "both": (
        {"sourcePattern": "#/*,", "targetPattern": "#/*,"},
        {"a": True, "a/b": True, "//": False, "/a": True},
    ),
    "gap": ({"sourcePattern": "a//b", "targetPattern": "a//b"}, {"a//b": True, "a/b": False, "a./b": True}),
    "odd": (
        {"sourcePattern": "a*/b#,\u00fc/*", "targetPattern": "a*/b#,\u00fc/*"},
        {"a*/b#": True, "ax/bx": False, "\u00fc/\u20ac": True, "\u00fc": False, "u/x": False},
    ),
    "blank": ({"sourcePattern": "", "targetPattern": ""}, {"a": False, "/": False}),
    "own": (
        {"sourcePattern": "${user}/#,t/${user}", "targetPattern": "${user}/#,t/${user}"},
        {
            "anonymous": True,
            "anonymous/a": True,
            "anonymous.a": True,
            "anonymous-/a": False,
            "other/a": False,
            "t/anonymous": True,
            "t.anonymous": True,
            "t/x-anonymous": False,
            "t/anonymous/a": False,
            "t/${user}": False,
        },
    ),
    "mixed": (
        {"sourcePattern": "x,t/${user}", "targetPattern": "x,t/${user}"},
        # The patterns form one tree, in which the token is a word like any other.
        {"x": True, "t/anonymous": True, "t/${user}": True},
    ),
    "answers": (
        {"targetPattern": "amqp:/_topo/*/#/temp/*,amqp:/_edge/#/temp/*", "sourcePattern": "none"},
        {"none": True},
    ),
}


def vhost(hostname: str, groups: dict[str, dict[str, object]], **more: object) -> engines.Entity:
    return "vhost", {"hostname": hostname, "groups": groups, **more}


def all_of(hostname: str, **more: object) -> engines.Entity:
    """Return a vhost that allows its one user everything except the limits in ``more``."""
    return vhost(hostname, {"all": {"users": "*", **EVERYTHING, **more}})


def vhosts() -> list[engines.Entity]:
    found = [
        vhost(f"names-{name}", {"g": {"users": "anonymous", "remoteHosts": "*", **rules}})
        for name, (rules, _) in NAMES.items()
    ]
    found += [
        all_of("all"),
        vhost("nothing", {"g": {"users": "*", **NOTHING}}),
        vhost("known", {"g": {"users": "somebody, anonymous", **EVERYTHING}}),
        vhost("unknown", {"g": {"users": "somebody", **EVERYTHING}}),
        vhost("empty", {}),
        vhost("taken-in", {"g": {"users": "somebody", **EVERYTHING}, "$default": NOTHING}, allowUnknownUser=True),
        vhost("not-taken-in", {"g": {"users": "somebody", **EVERYTHING}, "$default": EVERYTHING | {"users": "else"}}),
        vhost("own-group-first", {"any": {"users": "*", **NOTHING}, "g": {"users": "anonymous", **EVERYTHING}}),
        all_of("host-same", remoteHosts="127.0.0.1"),
        all_of("host-range", remoteHosts="10.0.0.1, 127.0.0.0 - 127.0.0.9"),
        all_of("host-other", remoteHosts="127.0.0.2,10.0.0.0-10.255.255.255"),
        all_of("host-family", remoteHosts="::1,::-ffff::"),
        vhost("host-none", {"g": {"users": "*", "targets": "*"}}),
        vhost("max-2", {"g": {"users": "*", **EVERYTHING}}, maxConnections=2),
        vhost("max-0", {"g": {"users": "*", **EVERYTHING}}, maxConnections=0),
        vhost("per-user", {"g": {"users": "*", **EVERYTHING}}, maxConnectionsPerUser=1),
        vhost("per-host", {"g": {"users": "*", **EVERYTHING}}, maxConnectionsPerHost=1),
        all_of("group-user", maxConnectionsPerUser=1),
        all_of("group-host", maxConnectionsPerHost=1),
        all_of("links-2", maxSenders=2, maxReceivers=2),
        all_of("links-0", maxSenders=0, maxReceivers=0),
        all_of("frame", maxFrameSize=4096),
        all_of("sessions", maxSessions=2),
        all_of("no-dynamic", allowDynamicSource=False),
        all_of("no-anonymous", allowAnonymousSender=False),
        all_of("some-targets", targets="a*,b"),
        vhost("target-pattern", {"g": {"users": "*", **EVERYTHING, "targetPattern": "a/#"} | {"targets": None}}),
        all_of("proxy", allowUserIdProxy=True),
    ]
    for _, attributes in found:
        groups = typing.cast("dict[str, dict[str, object]]", attributes["groups"])
        attributes["groups"] = {
            name: {key: value for key, value in group.items() if value is not None} for name, group in groups.items()
        }
    return found


@pytest.fixture(scope="module", params=engines.ENGINES)
def router(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> collections.abc.Iterator[engines.Router]:
    directory = tmp_path_factory.mktemp(request.param)
    with engines.running(request.param, directory, more=[ENABLED, *vhosts()]) as started:
        yield started


@pytest.fixture(params=engines.ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def at(router: engines.Router, name: str | None, **options: object) -> typing.Any:
    """A connection to a vhost."""
    return engines.connected(router, **({} if name is None else {"virtual_host": name}), **options)


Condition = typing.Optional[tuple[str, str]]


def condition_of(endpoint: typing.Any) -> Condition:
    found = endpoint.remote_condition
    return (found.name, found.description) if found is not None else None


def refused_connection(router: engines.Router, name: str | None, **options: object) -> Condition:
    """Return the error condition of a refused connection, or None if it is accepted."""
    with at(router, name, **options) as connection:
        # The close of a refusal comes after an open that looks like any other.
        round_trip(connection)
        return condition_of(connection.conn)


def round_trip(connection: typing.Any) -> None:
    """Wait until the router has answered what was sent before."""
    session = connection.conn.session()
    session.open()
    active, closed = proton.Endpoint.REMOTE_ACTIVE, proton.Endpoint.REMOTE_CLOSED
    connection.wait(lambda: session.state & active or connection.conn.state & closed, timeout=5)
    session.close()


def open_link(connection: typing.Any, make: collections.abc.Callable[[typing.Any], typing.Any]) -> typing.Any:
    """Open a link and wait for the router's answer."""
    link = make(connection.conn)
    link.open()
    connection.wait(lambda: link.state & (proton.Endpoint.REMOTE_ACTIVE | proton.Endpoint.REMOTE_CLOSED), timeout=5)
    # The detach of a refusal follows its attach at once; a second round trip shows whether there is one.
    round_trip(connection)
    return link


_names = iter(range(1_000_000))


def session_of(connection: typing.Any) -> typing.Any:
    """Return a session for links that proton's blocking classes do not manage."""
    if not hasattr(connection, "plain_session"):
        connection.plain_session = connection.conn.session()
        connection.plain_session.open()
    return connection.plain_session


def sender(connection: typing.Any, target: str | None) -> typing.Any:
    def make(_: object) -> typing.Any:
        link = session_of(connection).sender(str(next(_names)))
        link.target.address = target
        return link

    return open_link(connection, make)


def receiver(connection: typing.Any, source: str | None, dynamic: bool = False) -> typing.Any:
    def make(_: object) -> typing.Any:
        link = session_of(connection).receiver(str(next(_names)))
        if dynamic:
            link.source.dynamic = True
        else:
            link.source.address = source
        return link

    return open_link(connection, make)


@pytest.fixture(autouse=True)
def _no_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace BlockingConnection's handlers, which would raise for the events that these tests check."""
    for name in ("on_link_remote_close", "on_connection_remote_close"):
        monkeypatch.setattr(engines.proton_utils.BlockingConnection, name, lambda self, event: None)


# The agent's own policy.


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A password file with three users."""
    if shutil.which("saslpasswd2", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("saslpasswd2 is not installed")
    directory = tmp_path_factory.mktemp("secrets")
    for user in ("rpc", "router-admin", "notify"):
        arguments = ["-c", "-p", "-f", str(directory / "db"), "-u", "overcloud", user]
        subprocess.run(["saslpasswd2", *arguments], input=b"right", check=True)
    directory.joinpath("qdrouterd.conf").write_text(
        f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {directory}/db\nmech_list: PLAIN\n"
    )
    return directory


@pytest.fixture(scope="module", params=engines.ENGINES)
def agents_router(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, secrets: pathlib.Path
) -> collections.abc.Iterator[engines.Router]:
    with engines.running(
        request.param,
        tmp_path_factory.mktemp(request.param),
        listener={"authenticatePeer": True, "saslMechanisms": "PLAIN", "policyVhost": "client-rpc"},
        router={"saslConfigDir": str(secrets), "saslConfigName": "qdrouterd"},
        more=AGENTS,
    ) as started:
        yield started


def login(user: str) -> dict[str, object]:
    return {
        "user": f"{user}@overcloud",
        "password": "right",
        "allowed_mechs": "PLAIN",
        "allow_insecure_mechs": True,
    }


def test_a_service_keeps_to_its_own_addresses(agents_router: engines.Router) -> None:
    topo = "amqp:/_topo/0/ctl-0"
    with at(agents_router, None, **login("rpc")) as connection:
        allowed = [f"{RPC}/anycast/x", f"{RPC}/multicast/a.b/c", RPC, f"{topo}/temp.x+Y_9", "amqp:/_edge/e.1/temp/x"]
        denied = [
            "openstack.org/om/notify/anycast/x",
            "$management",
            f"{topo}/$management",
            f"{topo}/temp.x/$management",
            "_local/$management",
            "openstack.org/om/rpcs/x",
            f"amqp:/{RPC}/x",
            "_topo/0/ctl-0/temp.x",
        ]
        assert {name: condition_of(sender(connection, name)) for name in allowed} == dict.fromkeys(allowed)
        assert {name: condition_of(sender(connection, name)) for name in denied} == dict.fromkeys(denied, LINK)
        denied += allowed[3:]
        assert {name: condition_of(receiver(connection, name)) for name in denied} == dict.fromkeys(denied, LINK)
        assert condition_of(receiver(connection, f"{RPC}/anycast/x")) is None
        assert condition_of(sender(connection, None)) == LINK
        assert condition_of(receiver(connection, None)) == LINK
        dynamic = receiver(connection, None, dynamic=True)
        assert condition_of(dynamic) is None
        assert condition_of(sender(connection, dynamic.remote_source.address)) is None


def test_dynamic_addresses_have_one_shape(agents_router: engines.Router) -> None:
    with at(agents_router, None, **login("rpc")) as connection:
        for _ in range(20):
            name = receiver(connection, None, dynamic=True).remote_source.address
            start, _, word = name.rpartition(".")
            assert start == "amqp:/_topo/0/ctl-0/temp"
            assert len(word) == 15 and set(word) <= set(proton_word()), name


def proton_word() -> str:
    return "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+_"


def test_the_operator_may_do_everything(agents_router: engines.Router) -> None:
    with at(agents_router, None, **login("router-admin")) as connection:
        assert engines.Management(connection, agents_router.engine).query("router")[0]["id"] == "ctl-0"
        assert condition_of(sender(connection, None)) is None
        assert condition_of(sender(connection, "openstack.org/om/notify/anycast/x")) is None


def test_another_user_is_not_let_in(agents_router: engines.Router) -> None:
    assert refused_connection(agents_router, None, **login("notify")) == CONNECTION
    # The listener says which vhost it is, whatever the peer says.
    assert refused_connection(agents_router, "elsewhere", **login("rpc")) is None
    if agents_router.engine == engines.DEVROUTER:
        waiting.until(lambda: "user 'notify@overcloud'" in agents_router.log)
        assert "DENY connection: user in no group" in agents_router.log
        assert "right" not in agents_router.log


@pytest.mark.parametrize(
    ("user_id", "refused"), [(None, False), (b"", False), (b"rpc@overcloud", False), (b"rpc", True), (b"x" * 300, True)]
)
def test_nobody_sends_in_anothers_name(agents_router: engines.Router, user_id: bytes | None, refused: bool) -> None:
    address = f"{RPC}/anycast/user/{next(_names)}"
    with at(agents_router, None, **login("rpc")) as connection:
        taking, sending = connection.create_receiver(address, credit=5), connection.create_sender(address)
        connection.wait(lambda: sending.link.credit > 0, timeout=5)
        message = proton.Message(body="x", id="1", address="elsewhere")
        if user_id is not None:
            message.user_id = user_id
        delivery = sending.link.send(message)
        if refused:
            connection.wait(lambda: delivery.settled, timeout=5)
            assert delivery.remote_state == Delivery.REJECTED
            assert (delivery.remote.condition.name, delivery.remote.condition.description) == USER_ID
        else:
            assert taking.receive(timeout=5).body == "x"


# Vhosts and groups.


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("all", True),
        ("nothing", True),
        ("known", True),
        ("unknown", False),
        ("empty", False),
        ("taken-in", True),
        ("not-taken-in", False),
        ("own-group-first", True),
        ("host-same", True),
        ("host-range", True),
        ("host-other", False),
        ("host-family", False),
        ("host-none", False),
        ("max-0", False),
        ("no-such-vhost", False),
        ("ALL", False),
        ("all.", False),
        ("../all", False),
        ("\u00fc", False),
    ],
)
def test_who_is_let_in(router: engines.Router, name: str, allowed: bool) -> None:
    assert refused_connection(router, name) == (None if allowed else CONNECTION)


def test_a_refused_connection_is_opened_before_it_is_closed(router: engines.Router) -> None:
    """The router does not answer frames that the peer sent together with the open frame."""
    connection, transport = proton.Connection(), proton.Transport()
    connection.hostname = "unknown"
    transport.bind(connection)
    connection.open()
    session = connection.session()
    session.open()
    link = session.sender("a")
    link.target.address = "a"
    link.open()
    with socket.create_connection((router.host, router.port), timeout=5) as sock:
        sock.sendall(transport.peek(transport.pending()))
        transport.pop(transport.pending())
        while transport.capacity() > 0 and not connection.state & proton.Endpoint.REMOTE_CLOSED:
            transport.push(sock.recv(4096))
    assert connection.remote_container == "ctl-0"
    assert condition_of(connection) == CONNECTION
    assert session.state & proton.Endpoint.REMOTE_UNINIT and link.state & proton.Endpoint.REMOTE_UNINIT


def test_a_user_is_in_the_group_that_names_it(router: engines.Router) -> None:
    for name, expected in (("own-group-first", None), ("taken-in", LINK), ("nothing", LINK)):
        with at(router, name) as connection:
            assert condition_of(sender(connection, "a")) == expected, name


@pytest.mark.parametrize("default", ["$default", "fallback", "", "missing", None])
def test_the_default_vhost(engine: str, tmp_path: pathlib.Path, default: str | None) -> None:
    policy: engines.Entity = (
        "policy",
        {"enableVhostPolicy": True, **({"defaultVhost": default} if default is not None else {})},
    )
    more: list[engines.Entity] = [policy, all_of("own", maxSenders=3), all_of("fallback"), all_of("$default")]
    with engines.running(engine, tmp_path, more=more) as router:
        expected = CONNECTION if default in ("", "missing") else None
        assert refused_connection(router, "nobody-defines-it") == expected
        assert refused_connection(router, "own") is None


def test_without_vhost_policy_nothing_is_refused(engine: str, tmp_path: pathlib.Path) -> None:
    more: list[engines.Entity] = [
        ("policy", {"enableVhostPolicy": False}),
        vhost("v", {"g": {"users": "x", **NOTHING}}),
    ]
    with (
        engines.running(engine, tmp_path, listener={"policyVhost": "v"}, more=more) as router,
        at(router, "v") as connection,
    ):
        assert condition_of(sender(connection, "a")) is None
        assert condition_of(sender(connection, None)) is None


# Limits.


@pytest.mark.parametrize("name", ["max-2", "per-user", "per-host", "group-user", "group-host"])
def test_connections_are_counted(router: engines.Router, name: str) -> None:
    limit = 2 if name == "max-2" else 1
    for _ in range(2):
        with contextlib.ExitStack() as stack:
            for _ in range(limit):
                stack.enter_context(at(router, name))
            for _ in range(2):
                assert refused_connection(router, name) == CONNECTION
        # Those that were let in have left.
        waiting.until(lambda: refused_connection(router, name) is None)
        time.sleep(0.1)


def test_the_routers_own_limit_hangs_up(engine: str, tmp_path: pathlib.Path) -> None:
    """The router closes the connection without any frame, also without a vhost policy."""

    def ended(sock: socket.socket) -> bool:
        sock.settimeout(5)
        try:
            return sock.recv(8) == b""
        except ConnectionResetError:
            return True

    with engines.running(engine, tmp_path, more=[("policy", {"maxConnections": 2})]) as router:
        with at(router, None) as one, at(router, None):
            with socket.create_connection((router.host, router.port), timeout=5) as third:
                third.sendall(b"AMQP\x03\x01\x00\x00")
                assert ended(third)
            counts = engines.Management(one, engine).query("policy")[0]
            assert (counts["connectionsCurrent"], counts["connectionsDenied"], counts["totalDenials"]) == (2, 1, 1)
        waiting.until(lambda: refused_connection(router, None) is None)


@pytest.mark.parametrize("make", [sender, receiver])
def test_links_are_counted(router: engines.Router, make: typing.Any) -> None:
    with at(router, "links-2") as connection:
        links = [make(connection, "a") for _ in range(3)]
        assert [condition_of(link) for link in links] == [None, None, LINK_LIMIT]
        for link in (links[2], links[0]):
            link.close()
        connection.wait(lambda: links[0].state & proton.Endpoint.REMOTE_CLOSED, timeout=5)
        assert [condition_of(make(connection, "a")) for _ in range(2)] == [None, LINK_LIMIT]
    with at(router, "links-0") as connection:
        assert [condition_of(make(connection, "a")) for _ in range(3)] == [None] * 3


def test_the_links_of_a_session_end_with_it(router: engines.Router) -> None:
    with at(router, "links-2") as connection:
        for _ in range(3):
            assert condition_of(sender(connection, "a")) is condition_of(receiver(connection, "a")) is None
            session = connection.plain_session
            session.close()
            connection.wait(lambda: session.state & proton.Endpoint.REMOTE_CLOSED, timeout=5)  # noqa: B023
            del connection.plain_session


def test_the_frame_size_is_the_groups(router: engines.Router) -> None:
    for name, size in (("all", 16384), ("frame", 4096)):
        with at(router, name) as connection:
            assert connection.conn.transport.remote_max_frame_size == size


def test_sessions_are_bounded(router: engines.Router) -> None:
    with at(router, "sessions") as connection:
        assert connection.conn.transport.remote_channel_max == 1
        for _ in range(3):
            sessions = [connection.conn.session() for _ in range(2)]
            for session in sessions:
                session.open()
            active = proton.Endpoint.REMOTE_ACTIVE
            connection.wait(lambda: all(s.state & active for s in sessions), timeout=5)  # noqa: B023
            for session in sessions:
                session.close()
            closed = proton.Endpoint.REMOTE_CLOSED
            connection.wait(lambda: all(s.state & closed for s in sessions), timeout=5)  # noqa: B023
            assert [condition_of(session) for session in sessions] == [None, None]


# Links.


@pytest.mark.parametrize("name", NAMES)
def test_names_and_patterns(router: engines.Router, name: str) -> None:
    expected = NAMES[name][1]
    with at(router, f"names-{name}") as connection:
        for make in (sender, receiver):
            wanted = expected if make is receiver or name != "answers" else {"none": False}
            found = {address: condition_of(make(connection, address)) for address in wanted}
            assert found == {address: None if allowed else LINK for address, allowed in wanted.items()}, make


def test_a_denied_link_has_no_ends(router: engines.Router) -> None:
    with at(router, "nothing") as connection:
        for link in (sender(connection, "a"), receiver(connection, "a"), receiver(connection, None, dynamic=True)):
            assert condition_of(link) == LINK
            assert (link.remote_source.type, link.remote_source.address) == (proton.Terminus.UNSPECIFIED, None)
            assert link.remote_target.address is None
        # The session goes on.
        assert condition_of(sender(connection, "b")) == LINK


@pytest.mark.parametrize("name", ["all", "no-dynamic", "no-anonymous", "nothing"])
def test_links_without_an_address(router: engines.Router, name: str) -> None:
    with at(router, name) as connection:
        refused = name in ("no-dynamic", "nothing")
        assert condition_of(receiver(connection, None, dynamic=True)) == (LINK if refused else None)
        refused = name in ("no-anonymous", "nothing")
        assert condition_of(sender(connection, None)) == (LINK if refused else None)
        assert condition_of(receiver(connection, None)) == LINK


# Messages.


@pytest.mark.parametrize("name", ["some-targets", "target-pattern"])
def test_an_anonymous_link_is_watched_message_by_message(router: engines.Router, name: str) -> None:
    address, other = f"a/{next(_names)}", f"c/{next(_names)}"
    with at(router, "all") as taking, at(router, name) as connection:
        receivers = [taking.create_receiver(found, credit=300) for found in (address, other)]
        sending = connection.create_sender(None)
        connection.wait(lambda: sending.link.credit > 0, timeout=5)
        management = engines.Management(taking, router.engine)
        before = management.counters()
        for _ in range(120):
            connection.wait(lambda: sending.link.credit > 0, timeout=5)
            delivery = sending.link.send(proton.Message(address=other, body="no"))
            connection.wait(lambda: delivery.settled, timeout=5)  # noqa: B023
            assert delivery.remote_state == Delivery.REJECTED
            assert (delivery.remote.condition.name, delivery.remote.condition.description) == MESSAGE
        sending.link.send(proton.Message(address=other, body="no")).settle()
        sending.link.send(proton.Message(address=address, body=b"no" * 40_000)).settle()
        sending.link.send(proton.Message(address=address, body="yes")).settle()
        delivery = sending.link.send(proton.Message(address=other, body=b"no" * 40_000))
        connection.wait(lambda: delivery.settled, timeout=5)
        assert delivery.remote_state == Delivery.REJECTED
        assert [len(receivers[0].receive(timeout=5).body) for _ in range(2)] == [80_000, 3]
        with pytest.raises(proton.Timeout):
            receivers[1].receive(timeout=0.2)
        after = management.counters()
        changed = [after[key] - before[key] for key in ("rejectedDeliveries", "presettledDeliveries")]
        assert changed == [0, 2]


@pytest.mark.parametrize("name", ["all", "some-targets"])
def test_a_message_without_a_destination(router: engines.Router, name: str) -> None:
    with at(router, name) as connection:
        sending = connection.create_sender(None)
        connection.wait(lambda: sending.link.credit > 0, timeout=5)
        found = []
        for message in (proton.Message(body="x"), proton.Message(address="a/nobody", body="x")):
            delivery = sending.link.send(message)
            connection.wait(lambda: delivery.settled, timeout=5)  # noqa: B023
            condition = delivery.remote.condition
            found.append((delivery.remote_state, condition.name if condition else None))
        assert found == [(Delivery.REJECTED, "amqp:precondition-failed"), (Delivery.RELEASED, None)]


def test_a_message_in_anothers_name_where_that_is_allowed(router: engines.Router) -> None:
    with at(router, "proxy") as connection:
        taking, sending = connection.create_receiver("p", credit=5), connection.create_sender("p")
        connection.wait(lambda: sending.link.credit > 0, timeout=5)
        sending.link.send(proton.Message(body="x", user_id=b"somebody"))
        assert taking.receive(timeout=5).user_id == b"somebody"


# Counting.


def test_denials_are_counted_as_qdrouterd_does(engine: str, tmp_path: pathlib.Path) -> None:
    limited = vhost("v", {"g": {"users": "anonymous", **EVERYTHING, "sources": "a", "targets": "a"}}, maxConnections=2)
    with (
        engines.running(engine, tmp_path, more=[ENABLED, limited, all_of("all")]) as router,
        at(router, "all") as operator,
    ):
        management = engines.Management(operator, engine)
        with at(router, "v") as one, at(router, "v"):
            assert refused_connection(router, "v") == CONNECTION
            for name in ("a", "b", "c"):
                sender(one, name)
                receiver(one, name)
            sender(one, "d")
            sending = one.create_sender(None)
            one.wait(lambda: sending.link.credit > 0, timeout=5)
            delivery = sending.link.send(proton.Message(address="b", body="x"))
            one.wait(lambda: delivery.settled, timeout=5)
            rows = {row["hostname"]: row for row in management.query("vhostStats")}
            row = rows["v"]
            names = ("connectionsApproved", "connectionsDenied", "connectionsCurrent")
            assert [row[name] for name in names] == [2, 1, 2]
            assert [row[name] for name in ("sessionDenied", "senderDenied", "receiverDenied")] == [0, 3, 2]
            assert {user: len(ends) for user, ends in row["perUserState"].items()} == {"anonymous": 2}
            assert {host: len(ends) for host, ends in row["perHostState"].items()} == {"127.0.0.1": 2}
            counts = management.query("policy")[0]
            assert (counts["connectionsDenied"], counts["linksDenied"], counts["totalDenials"]) == (0, 5, 5)
        configured = {row["hostname"]: row for row in management.query("vhost")}
        assert (configured["v"]["maxConnections"], configured["all"]["maxConnections"]) == (2, 65535)
        assert configured["v"]["groups"] == limited[1]["groups"]
