"""TLS of routers with rendered files: each refusal next to an accepted case."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
import typing

import pytest
from om_agent import model
from om_agent.plan import layout, router

from testbed import workers
from tests.router import cloud as clouds
from tests.support import tls

pytestmark = [pytest.mark.router, pytest.mark.timeout(200)]

proton = pytest.importorskip("proton")

NAME = "c-1"
USER, PASSWORD = f"rpc@{router.REALM}", "rpc-secret"
ENGINES = (*clouds.ENGINES, model.Engine.EMBEDDED)
# What AMQP 1.0 with SASL begins with, on both sides (specification, part 5, section 5.3.2).
SASL = b"AMQP\x03\x01\x00\x00"


class Kind(typing.NamedTuple):
    """A router that runs."""

    cloud: clouds.Cloud
    server: tls.Server
    ca: pathlib.Path


def start(engine: model.Engine, directory: pathlib.Path, network: str, **more: object) -> typing.Iterator[Kind]:
    """Start one router with its own certificate."""
    clouds.need(engine)
    pair = tls.authority().issue(NAME)
    given = {"ca": tls.authority().pem, "certificate": pair.certificate, "key": pair.key, **more}
    rpc = {"scheme": "amqp", "username": "rpc", "password": PASSWORD, "port": clouds.PORT, "tls": True}
    ca = directory / "ca.pem"
    ca.write_text(tls.authority().pem)
    with clouds.supervised(directory) as supervisor:
        # Under a command of its own nodes are known by their names, which TLS wants; nobody looks this one up.
        cloud = clouds.Cloud(
            supervisor, directory, engine, network, {NAME: "controller"}, ("env",), True, rpc=rpc, tls=given
        )
        cloud.apply(NAME, cloud.metadata(NAME))
        cloud.start(NAME)
        yield Kind(cloud, tls.Server((f"{network}.10", clouds.PORT), NAME, SASL, SASL), ca)


@pytest.fixture(scope="module", params=ENGINES, ids=lambda e: e.value)
def lenient(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[Kind]:
    """TLS 1.2 with one cipher suite, and 1.3."""
    yield from start(request.param, tmp_path_factory.mktemp("lenient"), "127.0.61", ciphers=[tls.CIPHER])


@pytest.fixture(scope="module", params=ENGINES, ids=lambda e: e.value)
def strict(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[Kind]:
    """TLS 1.3 alone."""
    yield from start(request.param, tmp_path_factory.mktemp("strict"), "127.0.62", min_version="1.3")


def connect(url: str, user: str | None, password: str | None, mechanisms: str, **options: typing.Any) -> None:
    """Connect, with proton."""
    from proton import utils

    given: dict[str, typing.Any] = {
        "allowed_mechs": mechanisms,
        "user": user,
        "password": password,
        "reconnect": False,
        **options,
    }
    utils.BlockingConnection(url, timeout=5, **given).close()


def log_in(kind: Kind, user: str | None, password: str | None, mechanisms: str) -> None:
    """Connect as services do: with TLS."""
    domain = proton.SSLDomain(proton.SSLDomain.MODE_CLIENT)
    domain.set_trusted_ca_db(str(kind.ca))
    domain.set_peer_authentication(proton.SSLDomain.VERIFY_PEER_NAME)
    host, port = kind.server.address
    connect(f"amqps://{host}:{port}", user, password, mechanisms, ssl_domain=domain, sni=NAME)


def test_plaintext(lenient: Kind) -> None:
    """Both engines let a client log in before they look whether there is TLS (allowInsecureAuthentication is true, and
    no setting, in src/connection_manager.c and server_config.c), and then refuse it; the password was sent by then."""
    host, port = lenient.server.address
    with pytest.raises(proton.ProtonException, match=r"Expected AMQP protocol header|unencrypted - forbidden"):
        connect(f"amqp://{host}:{port}", USER, PASSWORD, "PLAIN")
    logs = [path.read_text(errors="replace") for path in (lenient.cloud.directory / "logs").glob("router-*")]
    assert any("unencrypted - forbidden" in log for log in logs)
    with pytest.raises(proton.ProtonException, match="Authentication failed"):
        connect(f"amqp://{host}:{port}", USER, "another", "PLAIN")
    log_in(lenient, USER, PASSWORD, "PLAIN")


def test_tls_1_1(lenient: Kind, tmp_path: pathlib.Path) -> None:
    tls.refuses_1_1(lenient.server, tmp_path)


def test_tls_1_2(strict: Kind) -> None:
    tls.refuses_1_2(strict.server)


def test_ciphers(lenient: Kind) -> None:
    tls.refuses_other_ciphers(lenient.server)


def test_another_authority_and_another_name(lenient: Kind) -> None:
    tls.is_refused_by_clients(lenient.server)


@pytest.mark.parametrize(
    ("user", "password", "mechanisms"),
    [
        (None, None, "ANONYMOUS"),
        (USER, "", "PLAIN"),
        (USER, "another", "PLAIN"),
        ("nobody@overcloud", PASSWORD, "PLAIN"),
        (None, None, "EXTERNAL"),
    ],
)
def test_without_the_password(lenient: Kind, user: str | None, password: str | None, mechanisms: str) -> None:
    with pytest.raises(proton.ProtonException, match=r"amqp:unauthorized-access|[Aa]uthentication failed|mech"):
        log_in(lenient, user, password, mechanisms)
    log_in(lenient, USER, PASSWORD, "PLAIN")


def test_oslo_messaging(lenient: Kind, tmp_path: pathlib.Path) -> None:
    address = lenient.server.address[0]
    within = tls.resolving(tmp_path, {NAME: address, f"{NAME}-alias": address})
    raw = json.loads(lenient.cloud.metadata(NAME).read_text())["oslo_messaging"]
    root = lenient.cloud.hosts[NAME].root
    config = tls.service_file(raw, NAME, root)
    ca = f"{root}{layout.CA_FILE}"
    logs = tls.oslo_refuses(within, tmp_path, config, NAME, f"{NAME}-alias", ca, names=True)
    for what in ("the CA", "the name"):
        assert "SSL Failure" in logs[what], logs[what]


def test_renewal_loses_no_call(lenient: Kind, tmp_path: pathlib.Path) -> None:
    """A new certificate, with calls under way; nothing is restarted."""
    cloud, server = lenient.cloud, lenient.server
    if cloud.engine is model.Engine.EMBEDDED:
        pytest.skip("this engine is restarted for every change, and says so")
    host = dataclasses.replace(cloud.hosts[NAME], within=tls.resolving(tmp_path, {NAME: server.address[0]}))
    raw = json.loads(cloud.metadata(NAME).read_text())["oslo_messaging"]
    host.service_file("nova").parent.mkdir(parents=True, exist_ok=True)
    host.service_file("nova").write_text(tls.service_file(raw, NAME, host.root))
    before, old = cloud.pids(), server.accepts(tls.client_context()).certificate
    there = workers.Server(cloud.supervisor, host, "nova", "compute")
    here = workers.Client(cloud.supervisor, host, "nova")
    for worker in (there, here):
        worker.expect("ready", workers.READY_SECONDS)
    time.sleep(1.5)  # for the router to know of the server
    here.begin("call", 1_000_000, 60, there, interval=0.02, timeout=10.0)
    pair = tls.authority().issue(NAME)
    renewed = cloud.metadata(NAME, tls={"certificate": pair.certificate, "key": pair.key})
    # Without the directory that makes a service of nova, whose file is not puppet's here.
    host.service_file("nova").rename(tmp_path / "nova.conf")
    host.service_file("nova").parent.rmdir()
    assert "certificates are read anew: messaging" in cloud.apply(NAME, renewed)
    new = server.accepts(tls.client_context(tls.authority().pem)).certificate
    time.sleep(2)
    here.enough()
    sent = here.result()
    print(f"{len(sent)} calls, the longest {max(one.seconds for one in sent):.2f} s")
    assert new != old
    assert [one.error for one in sent if one.error] == [] and len(sent) > 50
    assert cloud.pids() == before
