"""Logins to routers with rendered files, by certificate and SCRAM: each refusal next to an accepted login."""

from __future__ import annotations

import pathlib
import typing

import pytest
from om_agent import amqp, model, parse
from om_agent.plan import router

from tests.router import cloud as clouds
from tests.support import helpers, tls

pytestmark = [pytest.mark.router, pytest.mark.timeout(200)]

proton = pytest.importorskip("proton")

NAME, USER = "c-1", "rpc"


class Kind(typing.NamedTuple):
    """A router that runs.

    :param config: what a service is configured with.
    """

    address: str
    cloud: clouds.Cloud
    config: pathlib.Path
    directory: pathlib.Path

    def issue(self, name: str, authority: tls.Authority) -> tuple[str, str]:
        """Write a certificate for a user, and its key."""
        return write(self.directory, name, authority)

    def connect(self, shown: tuple[str, ...], user: str = "", password: str = "", mechanism: str = "EXTERNAL") -> None:
        """Log in and attach to the services' addresses.

        :raises proton.ProtonException: when that is refused.
        """
        connection = self.open(shown, user, password, mechanism)
        try:
            connection.create_sender("openstack.org/om/rpc/anycast/x").close()
        finally:
            connection.close()

    def open(self, shown: tuple[str, ...], user: str, password: str, mechanism: str) -> typing.Any:
        """Log in alone."""
        utils = pytest.importorskip("proton.utils")
        domain = proton.SSLDomain(proton.SSLDomain.MODE_CLIENT)
        domain.set_trusted_ca_db(str(self.directory / "ca.pem"))
        domain.set_peer_authentication(proton.SSLDomain.VERIFY_PEER_NAME)
        if shown:
            domain.set_credentials(*shown, None)
        return utils.BlockingConnection(
            f"amqps://{self.address}:{clouds.PORT}", timeout=5, ssl_domain=domain, sni=NAME, user=user or None,
            password=password or None, allowed_mechs=mechanism, reconnect=False,
        )  # fmt: skip


def write(directory: pathlib.Path, name: str, authority: tls.Authority) -> tuple[str, str]:
    """Write the certificate and key of a user."""
    pair = authority.issue(common=name)
    paths = [directory / f"{name}-{authority.made.serial_number}.{part}" for part in ("pem", "key")]
    for path, text in zip(paths, (pair.certificate, pair.key)):
        path.write_text(text)
    return str(paths[0]), str(paths[1])


def start(engine: model.Engine, directory: pathlib.Path, network: str, login: dict[str, str]) -> typing.Iterator[Kind]:
    """Start one router, and write what a service beside it is configured with."""
    clouds.need(engine)
    pair = tls.authority().issue(NAME)
    given = {"ca": tls.authority().pem, "certificate": pair.certificate, "key": pair.key}
    (directory / "ca.pem").write_text(tls.authority().pem)
    rpc = {"scheme": "amqp", "username": USER, "port": clouds.PORT, "tls": True, **login}
    with clouds.supervised(directory) as supervisor:
        cloud = clouds.Cloud(
            supervisor, directory, engine, network, {NAME: "controller"}, ("env",), True, rpc=rpc, tls=given
        )
        cloud.apply(NAME, cloud.metadata(NAME))
        cloud.start(NAME)
        config = directory / "nova.conf"
        config.write_text(tls.service_file(cloud.raw(NAME), NAME, cloud.hosts[NAME].root))
        yield Kind(f"{network}.10", cloud, config, directory)


@pytest.fixture(scope="module", params=clouds.ENGINES, ids=lambda e: e.value)
def external(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[Kind]:
    """Services log in with a certificate."""
    directory = tmp_path_factory.mktemp("external")
    shown = dict(zip(model.CLIENT_FILES, write(directory, USER, tls.authority())))
    yield from start(request.param, directory, "127.0.69", {"sasl_mechanism": "EXTERNAL", **shown})


def test_a_service_calls_with_its_certificate(external: Kind) -> None:
    within = tls.resolving(external.directory, {NAME: external.address})
    said, log = tls.call(within, external.config)
    assert said == "", log
    assert "password" not in external.config.read_text() and "rpc@c-1" in external.config.read_text()


def test_its_certificate_is_needed(external: Kind) -> None:
    """No certificate, another user's, or one of another authority is refused; the right one is accepted."""
    good = external.issue(USER, tls.authority())
    external.connect(good)
    for shown in ((), external.issue(USER, tls.Authority.create(tls.authority().name))):
        with pytest.raises(proton.ProtonException):
            external.connect(shown)
    with pytest.raises(proton.ProtonException):
        external.connect(external.issue("stranger", tls.authority()))


def test_a_password_is_not_asked_for(external: Kind) -> None:
    """Only the agent has a password, and it also sends its certificate."""
    good = external.issue(USER, tls.authority())
    with pytest.raises(proton.ProtonException):
        external.connect(good, f"{USER}@{router.REALM}", "rpc-secret", "PLAIN")
    code, found, _ = external.cloud.verify(NAME, external.cloud.metadata(NAME))
    assert not [c for c in found if c.startswith("router")], (code, found)


def test_it_may_do_what_a_service_may(external: Kind) -> None:
    connection = external.open(external.issue(USER, tls.authority()), "", "", "EXTERNAL")
    try:
        connection.create_sender("openstack.org/om/rpc/anycast/x").close()
        for address in ("$management", "openstack.org/om/notify/anycast/x"):
            with pytest.raises(proton.ProtonException):
                connection.create_sender(address)
    finally:
        connection.close()


@pytest.fixture(scope="module", params=clouds.ENGINES, ids=lambda e: e.value)
def scram(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[Kind]:
    """Services log in with SCRAM, which does not send the password."""
    if not proton.SASL.extended():
        helpers.skip("this proton was built without Cyrus SASL, and cannot speak SCRAM")
    login = {"password": "rpc-secret", "sasl_mechanism": "SCRAM-SHA-256"}
    yield from start(request.param, tmp_path_factory.mktemp("scram"), "127.0.70", login)


def test_a_service_calls_with_scram(scram: Kind) -> None:
    said, log = tls.call(tls.resolving(scram.directory, {NAME: scram.address}), scram.config)
    assert said == "", log
    assert "sasl_mechanisms = SCRAM-SHA-256" in scram.config.read_text()


def test_scram_refuses_another_password(scram: Kind) -> None:
    user = f"{USER}@{router.REALM}"
    scram.connect((), user, "rpc-secret", "SCRAM-SHA-256")
    with pytest.raises(proton.ProtonException):
        scram.connect((), user, "another", "SCRAM-SHA-256")


def test_scram_is_what_the_router_was_asked_in(scram: Kind) -> None:
    d = parse.deployment(scram.cloud.raw(NAME))
    connection = scram.open((), f"{USER}@{router.REALM}", "rpc-secret", "SCRAM-SHA-256")
    try:
        ca = str(scram.directory / "ca.pem")
        admin = f"{model.ADMIN_USER}@{router.REALM}"
        password, engine = d.router.admin_password, d.router.engine
        login = amqp.Login(scram.address, clouds.PORT, NAME, admin, password, engine, True, ca)
        with amqp.Client(login) as client:
            assert "SCRAM-SHA-256" in [row["sasl"] for row in client.query("connection")]
    finally:
        connection.close()
    assert "SCRAM-SHA-256" in scram.cloud.hosts[NAME].path(d.router.engine.record.sasl_config).read_text()
