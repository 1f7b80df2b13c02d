"""A router's management returns exactly the values of the metadata, with any characters."""

from __future__ import annotations

import dataclasses
import pathlib
import typing

import hypothesis
import pytest
from hypothesis import strategies as st
from om_agent import amqp, errors, model, parse
from om_agent.apply import live_router, router_difference

from tests.security import routers
from tests.security import test_hostile_values as values
from tests.support import helpers, tls

STARTS = 3  # of each engine
TYPES = {**router_difference.TYPES, "router": "router", "sslProfile": "sslProfile", "policy": "policy"}
FIELDS = (
    "rpc.username", "rpc.password", "rpc.virtual_host", "rpc.also_accept.0.username", "rpc.also_accept.0.password",
    "notify.username", "notify.password", "notify.virtual_host", "router.mesh_password", "router.admin_password",
)  # fmt: skip
# What a path may hold; a router's own files are below such a one here.
PATH = "!%&()*+,-.:;<=>?@[]^_{|}~"


@pytest.fixture(params=routers.ENGINES, ids=lambda e: e.value)
def engine(request: pytest.FixtureRequest) -> model.Engine:
    return typing.cast("model.Engine", request.param)


def base(engine: model.Engine) -> helpers.Raw:
    """Both halves over one router."""
    raw = routers.metadata(engine, "127.0.68.10", helpers.dual(1))
    raw["rpc"]["also_accept"] = [{"username": "former", "password": "former-secret"}]
    raw["notify"] = {"scheme": "amqp", "tls": False, "username": "notify", "password": "notify-secret"}
    return raw


def hostile(raw: helpers.Raw, given: typing.Mapping[str, str]) -> helpers.Raw:
    """The metadata with those of the values that are accepted."""
    for path, value in given.items():
        with_it = helpers.put(raw, path, value)
        try:
            parse.deployment(with_it)
        except errors.InvalidInput:
            continue
        raw = with_it
    return raw


def assert_as_told(router: routers.Running) -> None:
    """Every entity of the file is there with its values, and no other of its kind."""
    wanted = router_difference._by_key(router.entities)
    known = set(router.types())
    for kind in {kind for kind, _ in wanted if TYPES[kind] in known}:
        rows = router_difference._by_key([(kind, row) for row in router.client.query(TYPES[kind])])
        if kind in ("router", "policy"):  # there is one, which is called otherwise
            rows = {(kind, name): next(iter(rows.values())) for k, name in wanted if k == kind}
        assert set(rows) == {key for key in wanted if key[0] == kind}
        for key, row in rows.items():
            differs = {a: (row[a], v) for a, v in wanted[key].items() if a in row and not same(row[a], v)}
            assert not differs
    assert {"router", "listener", "vhost"} <= known


def same(found: object, wanted: object) -> bool:
    """Return whether the values are equal. A router returns ports as strings, and groups with unset values too."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return found.keys() >= wanted.keys() and all(same(found[k], v) for k, v in wanted.items())
    return str(found) == str(wanted)


@pytest.mark.timeout(300)
def test_a_router_has_the_very_values_and_nothing_else(
    engine: model.Engine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also, every user in the metadata can log in with its own password."""

    @hypothesis.settings(values.FEW, max_examples=STARTS)
    @hypothesis.given(st.fixed_dictionaries({path: values.FIELDS[path] for path in FIELDS}))
    def start(given: dict[str, str]) -> None:
        raw = hostile(base(engine), given)
        with routers.run(raw, tmp_path_factory.mktemp("router")) as router:
            assert_as_told(router)
            assert router.plan.router
            for user in router.plan.router.users:
                login = live_router.login(router.plan.router)
                named = dataclasses.replace(login, user=f"{user.name}@{user.realm}", password=user.password)
                assert enters(named), user
            assert not enters(dataclasses.replace(named, password=model.Secret("another"))), user

    start()


def enters(login: amqp.Login) -> bool:
    """Whether somebody can log in, for whatever that is good."""
    try:
        amqp.Client(login).close()
    except amqp.Unreachable as e:
        assert e.kind == amqp.LOGIN, e
        return False
    return True


def test_paths_of_certificates(engine: model.Engine, tmp_path: pathlib.Path) -> None:
    """It opens the very files, or nobody could speak TLS to it."""
    raw = base(engine)
    pair = tls.authority().issue(routers.NAME)
    directory = tmp_path / PATH
    directory.mkdir()
    given = {"ca_file": tls.authority().pem, "certificate_file": pair.certificate, "key_file": pair.key}
    for key, text in given.items():
        (directory / f"{key}{PATH}").write_text(text)
    raw["tls"] = {key: str(directory / f"{key}{PATH}") for key in given}
    raw["rpc"]["tls"] = raw["notify"]["tls"] = True
    with routers.run(raw, tmp_path) as router:
        assert_as_told(router)
