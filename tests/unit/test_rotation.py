"""Two users at once: their effect on each part, and on a running broker or router."""

from __future__ import annotations

import json
import os
import pathlib
import typing

import pytest
from om_agent import errors, parse, proc
from om_agent.apply import files, live_broker, router_difference, running
from om_agent.plan import layout, router, transport_url

from tests.support import helpers

put = helpers.put

OLD = {"username": "rpc", "password": "old-word"}
NEW = {"username": "rpc-2", "password": "new-word"}


def default(**rpc: typing.Any) -> helpers.Raw:
    return put(put(helpers.default(), "rpc", rpc), "broker.erlang_cookie", "cookiecookie")


def dual(**rpc: typing.Any) -> helpers.Raw:
    pinned = put(put(helpers.dual(), "router.mesh_password", "m"), "broker.erlang_cookie", "cookiecookie")
    return put(pinned, "rpc", {"scheme": "amqp", "tls": False, **rpc})


BEFORE, ACCEPT, SWAP, AFTER = (OLD, {**OLD, "also_accept": [NEW]}, {**NEW, "also_accept": [OLD]}, NEW)


def content(raw: helpers.Raw, path: str = layout.RABBIT_DEFINITIONS) -> bytes:
    (found,) = [f for f in helpers.rendered(raw, "ctl-0").files if f.path == path]
    assert found.content is not None
    return found.content


def test_services_are_given_one_user() -> None:
    for given, user in ((ACCEPT, OLD), (SWAP, NEW)):
        url = transport_url.url_of(parse.deployment(default(**given)).rpc).reveal()
        assert url.startswith(f"rabbit://{user['username']}:{user['password']}@")


def test_notify_accepts_whom_rpc_does_where_it_has_its_user() -> None:
    assert parse.deployment(default(**ACCEPT)).notify.also_accept[0].username == "rpc-2"
    assert parse.deployment(put(default(**ACCEPT), "notify", {"username": "n"})).notify.also_accept == ()
    assert parse.deployment(put(default(**ACCEPT), "notify", {"hosts": ["elsewhere"]})).notify.also_accept == ()


def test_a_second_user_is_told_once() -> None:
    found = parse.deployment(default(**ACCEPT)).findings
    assert [p.path for p in found if p.code == "still-accepted"] == ["rpc.also_accept"]
    assert '"rpc-2"' in next(str(p) for p in found if p.code == "still-accepted")
    assert not [p for p in parse.deployment(default(**AFTER)).findings if p.code == "still-accepted"]


def test_no_password_is_shown() -> None:
    d = parse.deployment(default(**ACCEPT))
    assert "new-word" not in repr(d)


def test_swapping_changes_nothing_but_services_files() -> None:
    assert content(default(**ACCEPT)) == content(default(**SWAP))
    one, other = (
        {f.path: (f.content, f.users) for f in helpers.rendered(dual(**given), "ctl-0").files}
        for given in (ACCEPT, SWAP)
    )
    assert one == other


def test_both_may_log_in() -> None:
    definitions = json.loads(content(default(**ACCEPT)))
    assert [u["name"] for u in definitions["users"]] == ["rpc", "rpc-2"]
    assert [p["user"] for p in definitions["permissions"]] == ["rpc", "rpc-2"]
    (database,) = [f for f in helpers.rendered(dual(**ACCEPT), "ctl-0").files if f.users]
    assert [(u.name, u.password.reveal()) for u in database.users][:2] == [("rpc", "old-word"), ("rpc-2", "new-word")]


# -- a running broker ------------------------------------------------------------------------------------------------


def definitions(*users: str, **more: typing.Any) -> live_broker.Definitions:
    return {
        "users": [{"name": name, "password_hash": f"hash of {name}", "tags": []} for name in users],
        "permissions": [{"user": name, "vhost": "/", "configure": ".*"} for name in users],
        **more,
    }


def test_what_a_broker_lacks() -> None:
    wanted = definitions("a", "b")
    told = definitions("a", "b", "somebody's own", vhosts=[{"name": "/"}])
    told["users"][0].update(tags="administrator", limits={})  # type: ignore[attr-defined]
    assert live_broker.lacking(wanted, told) == ()
    assert live_broker.lacking(wanted, definitions("a")) == (("users", "b"), ("permissions", "b", "/"))
    told["users"][1].update(password_hash="of another")  # type: ignore[attr-defined]
    assert live_broker.lacking(wanted, told) == (("users", "b"),)


POLICY = {"vhost": "/", "name": "ha", "pattern": ".*"}


@pytest.mark.parametrize(
    ("old", "new", "noted", "remove", "staying"),
    [
        (definitions("a"), definitions("a", "b"), [], [], []),
        (definitions("a", "b"), definitions("b"), [], [("users", "a")], []),
        (definitions("a"), definitions("b"), [], [], [("users", "a")]),
        (definitions("a"), definitions("a"), [("users", "x"), ("users", "a")], [("users", "x")], []),
        (definitions("a"), definitions("a", "b"), [("users", "x")], [], [("users", "x")]),
        (definitions("a", policies=[POLICY]), definitions("b"), [], [("policies", "/", "ha")], [("users", "a")]),
        (definitions("a", vhosts=[{"name": "v"}]), definitions("a"), [], [], []),
    ],
    ids=["added", "dropped", "replaced", "interrupted", "interrupted and added", "policy", "a vhost holds messages"],
)
def test_what_is_deleted(
    old: live_broker.Definitions,
    new: live_broker.Definitions,
    noted: list[live_broker.Key],
    remove: object,
    staying: object,
) -> None:
    assert tuple(map(list, live_broker.superfluous(old, new, noted))) == (remove, staying)


class FakeBroker:
    """Stands in for rabbitmqctl and the broker behind it."""

    def __init__(self, knows: live_broker.Definitions) -> None:
        self.knows: dict[str, list[dict[str, typing.Any]]] = json.loads(json.dumps(knows))
        self.calls: list[tuple[str, ...]] = []
        self.code = 0

    def run(
        self, argv: typing.Sequence[str], timeout: float, keep_open: typing.Sequence[int], **options: object
    ) -> proc.Result:
        command = tuple(argv[argv.index("rabbit@ctl-0") + 1 :])
        self.calls.append(command)
        assert not [word for word in argv if "word" in word or "hash" in word]
        if self.code:
            return proc.Result(self.code, "", "")
        if command[0] == "import_definitions":
            assert [f"/proc/self/fd/{descriptor}" for descriptor in keep_open] == [command[1]]
            assert os.fstat(keep_open[0]).st_nlink == 0  # in no directory
            for kind, rows in json.loads(pathlib.Path(command[1]).read_text()).items():
                names = live_broker._KEYS[kind][1]
                known = self.knows.setdefault(kind, [])
                known[:] = [k for k in known if not any(all(k[n] == r[n] for n in names) for r in rows)] + rows
        if command[0] == "delete_user":
            self.knows["users"] = [u for u in self.knows["users"] if u["name"] != command[2]]
        return proc.Result(0, json.dumps(self.knows), "")


@pytest.fixture
def control(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> live_broker.Control:
    plan = helpers.plan_for(default(**BEFORE), "ctl-0").broker
    assert plan
    files.state_dir(tmp_path).mkdir(parents=True)
    monkeypatch.setattr(proc, "find", lambda *names: "rabbitmqctl")
    return live_broker.Control(plan, tmp_path, relocated=True)


def decide(
    control: live_broker.Control, old: helpers.Raw, new: helpers.Raw, outdated: str = ""
) -> live_broker.RunningBroker | None:
    path, other = layout.RABBIT_DEFINITIONS, f"{layout.RABBIT_DIR}/rabbitmq.conf"
    present = {path: content(old), other: content(old, other)}
    unit = running.UnitFiles(present, {path: content(new), other: content(new, other)}, outdated)
    found = live_broker.decide(control, unit).running
    assert found is None or isinstance(found, live_broker.RunningBroker)
    return found


def test_what_is_said_beforehand(control: live_broker.Control) -> None:
    assert decide(control, default(**BEFORE), default(**BEFORE)) is None
    work = decide(control, default(**BEFORE), default(**ACCEPT))
    assert work and not work.needs_restart
    assert work.lines() == ("+ user rpc-2", "+ permissions of rpc-2 in /")
    work = decide(control, default(**SWAP), default(**AFTER))
    assert work and work.lines() == ("- user rpc",)
    work = decide(control, default(**BEFORE), default(**{**OLD, "password": "another"}))
    assert work and work.lines() == ("~ user rpc",)


def test_with_another_file_it_is_restarted_too(control: live_broker.Control) -> None:
    work = decide(control, default(**BEFORE), put(default(**ACCEPT), "broker.metrics_port", 1234))
    assert work and work.needs_restart
    work = decide(control, default(**BEFORE), default(**ACCEPT), outdated=running.OTHER_FILES)
    assert work and work.needs_restart


def test_a_broker_that_knows_nothing_of_ours_is_left_alone(control: live_broker.Control) -> None:
    path = layout.RABBIT_DEFINITIONS
    for found in (None, b"", b"[]", b"not json"):
        unit = running.UnitFiles({path: found}, {path: content(default(**ACCEPT))})
        assert live_broker.decide(control, unit) == running.Decision()


def test_from_one_user_to_the_other(control: live_broker.Control, monkeypatch: pytest.MonkeyPatch) -> None:
    known = json.loads(content(default(**BEFORE)))
    fake = FakeBroker({**known, "users": [*known["users"], {"name": "by-hand", "password_hash": "h", "tags": []}]})
    monkeypatch.setattr(proc, "run", fake.run)
    for old, new, users in ((BEFORE, ACCEPT, {"rpc", "rpc-2"}), (SWAP, AFTER, {"rpc-2"})):
        work = decide(control, default(**old), default(**new))
        assert work
        work.set_mark()
        assert work.add_new() == ""
        assert work.remove_old("", True) == ()
        assert {u["name"] for u in fake.knows["users"]} == {*users, "by-hand"}
        assert not list(files.state_dir(control.root).iterdir())
    assert [call for call in fake.calls if call[0] not in ("export_definitions", "import_definitions")] == [
        ("delete_user", "--", "rpc")
    ]


def test_taken_back_and_later_deleted(control: live_broker.Control, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeBroker(json.loads(content(default(**BEFORE))))
    monkeypatch.setattr(proc, "run", fake.run)
    changed = default(**{**ACCEPT, "password": "another"})
    work = decide(control, default(**BEFORE), changed)
    assert work
    work.set_mark()
    assert work.add_new() == ""
    assert work.take_back() == ""
    assert live_broker.lacking(json.loads(content(default(**BEFORE))), fake.knows) == ()
    assert [u["name"] for u in fake.knows["users"]] == ["rpc-2", "rpc"]  # another node's services may have that one
    work = decide(control, default(**BEFORE), default(**BEFORE))
    assert work and work.lines() == ("- user rpc-2",)
    assert (work.add_new(), work.remove_old("", True)) == ("", ())
    assert [u["name"] for u in fake.knows["users"]] == ["rpc"]
    assert decide(control, default(**BEFORE), default(**BEFORE)) is None


@pytest.mark.parametrize(("code", "said"), [(69, "it does not run"), (75, "exit code 75")])
def test_a_broker_that_cannot_be_asked(
    control: live_broker.Control, monkeypatch: pytest.MonkeyPatch, code: int, said: str
) -> None:
    fake = FakeBroker(definitions())
    fake.code = code
    monkeypatch.setattr(proc, "run", fake.run)
    work = decide(control, default(**SWAP), default(**AFTER))
    assert work
    work.set_mark()
    assert said in work.add_new()
    assert said in " ".join(work.remove_old("", True))
    assert decide(control, default(**AFTER), default(**AFTER)) is not None  # it is tried again


def test_without_rabbitmqctl(control: live_broker.Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "find", lambda *names: None)
    monkeypatch.setattr("os.path.exists", lambda path: False)
    work = decide(control, default(**BEFORE), default(**ACCEPT))
    assert work and work.add_new() == "rabbitmqctl is not installed"
    with pytest.raises(errors.ProcessFailed):
        control.ctl("status")


def test_a_mark_that_is_damaged(control: live_broker.Control) -> None:
    (files.state_dir(control.root) / "broker-changing").write_bytes(b"\x80{")
    work = decide(control, default(**BEFORE), default(**BEFORE))
    assert work and work.remove == ()
    assert work.lines() == ("an interrupted run may have left it half changed",)


# -- a running router ------------------------------------------------------------------------------------------------


def entities(raw: helpers.Raw) -> tuple[router.Entity, ...]:
    planned = helpers.plan_for(raw, "ctl-0").router
    assert planned
    return planned.entities


@pytest.mark.parametrize(
    ("old", "new", "noted", "expected"),
    [
        (BEFORE, ACCEPT, (), ()),
        (ACCEPT, SWAP, (), ()),
        (SWAP, AFTER, (), ("rpc@overcloud",)),
        (BEFORE, AFTER, (), ()),
        (AFTER, AFTER, ("rpc@overcloud",), ("rpc@overcloud",)),
        (AFTER, SWAP, ("rpc@overcloud",), ()),
    ],
    ids=["added", "swapped", "dropped", "replaced", "interrupted", "taken back"],
)
def test_whose_connections_end(
    old: dict[str, typing.Any], new: dict[str, typing.Any], noted: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert router_difference.departed(entities(dual(**old)), entities(dual(**new)), noted) == expected
