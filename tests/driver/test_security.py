"""TLS and logins, at the development router and at real ones: what is accepted, and each refusal beside it."""

from __future__ import annotations

import collections.abc
import contextlib
import logging
import pathlib
import shutil
import subprocess
import typing
import urllib.parse

import pytest

from tests.support import engines, helpers, tls

oslo_messaging = pytest.importorskip("oslo_messaging", reason="oslo.messaging is not installed")
cfg = pytest.importorskip("oslo_config.cfg", reason="oslo.config is not installed")

PASSWORD = "right @:/?#%ß"
MECHANISMS = "PLAIN SCRAM-SHA-1 SCRAM-SHA-256"


def write(directory: pathlib.Path, name: str, pair: tls.Pair) -> tuple[str, str]:
    """Write a certificate and its key."""
    paths = directory / f"{name}.pem", directory / f"{name}.key"
    for path, text in zip(paths, (pair.certificate, pair.key)):
        path.write_text(text)
    return str(paths[0]), str(paths[1])


def users(directory: pathlib.Path) -> dict[str, object]:
    """Make a user; returns the router's settings for its logins."""
    if shutil.which("saslpasswd2", path="/usr/sbin:/usr/bin") is None:
        helpers.skip("saslpasswd2 is not installed (Debian: sasl2-bin)")
    database = directory / "users.sasldb"
    command = ["/usr/sbin/saslpasswd2", "-c", "-p", "-f", str(database), "-u", "overcloud", "rpc"]
    subprocess.run(command, input=PASSWORD.encode(), check=True)
    options = (
        f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {database}\nmech_list: {MECHANISMS} EXTERNAL\n"
    )
    (directory / "router.conf").write_text(options)
    return {"saslConfigDir": str(directory), "saslConfigName": "router"}


class Secured(typing.NamedTuple):
    """A router that wants TLS and a login."""

    router: engines.Router
    directory: pathlib.Path

    def call(self, user: str = "rpc@overcloud", password: str = PASSWORD, host: str = "", **options: str) -> str:
        """Make a call; returns the exception's text, '' when it was answered."""
        options = {"ssl": "true", "ssl_ca_file": str(self.directory / "ca.pem"), **options}
        login = f"{urllib.parse.quote(user, safe='')}:{urllib.parse.quote(password, safe='')}@" if user else ""
        where = f"{host or self.router.host}:{self.router.port}"
        url = f"amqp1://{login}{where}/?{urllib.parse.urlencode(options)}"
        cfg.CONF([], project="driver")
        transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=url)
        try:
            target = oslo_messaging.Target(topic="security", server="one")
            server = oslo_messaging.get_rpc_server(
                transport, target, [Endpoint()], "threading", access_policy=oslo_messaging.DefaultRPCAccessPolicy
            )
            client = oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(topic="security"), timeout=2)
            transport._driver._values.default_send_timeout = 2  # what start() waits for
            server.start()
            try:
                assert client.call({}, "ping") == "pong"
            finally:
                server.stop()
                server.wait()
        except oslo_messaging.MessagingTimeout as error:
            return str(error)
        finally:
            transport.cleanup()
        return ""


class Endpoint:
    def ping(self, context: object) -> str:
        return "pong"


def secure(engine: str, directory: pathlib.Path, mechanisms: str) -> contextlib.AbstractContextManager[engines.Router]:
    """A router that wants TLS and a login with one of ``mechanisms``."""
    host = engines.loopback()
    (directory / "ca.pem").write_text(tls.authority().pem)
    certificate, key = write(directory, "server", tls.authority().issue(host, "router.example"))
    profile: dict[str, object] = {"name": "tls", "certFile": certificate, "privateKeyFile": key}
    profile["caCertFile"] = str(directory / "ca.pem")
    listener = {"authenticatePeer": True, "saslMechanisms": mechanisms, "sslProfile": "tls", "requireSsl": True}
    return engines.running(engine, directory, host, listener, users(directory), [("sslProfile", profile)])


@pytest.fixture(scope="module", params=engines.ENGINES)
def secured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> collections.abc.Iterator[Secured]:
    directory = tmp_path_factory.mktemp(f"secured-{request.param}")
    with secure(request.param, directory, MECHANISMS) as router:
        yield Secured(router, directory)


@pytest.mark.parametrize("mechanism", ["", "PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256"])
def test_a_password(secured: Secured, mechanism: str) -> None:
    if mechanism.startswith("SCRAM") and secured.router.engine == engines.DEVROUTER:
        pytest.skip("the development router has no SCRAM")
    assert secured.call(sasl_mechanisms=mechanism) == ""
    assert secured.call("rpc", sasl_mechanisms=mechanism, sasl_default_realm="overcloud") == ""
    refused = secured.call(password="wrong", sasl_mechanisms=mechanism)
    assert 'refused the login as "rpc@overcloud"' in refused
    assert "wrong" not in refused


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_a_certificate(engine: str, tmp_path: pathlib.Path) -> None:
    """The client shows one of the router's authority, one of another, and none."""
    certificate, key = write(tmp_path, "client", tls.authority().issue(common="rpc"))
    strange, strange_key = write(tmp_path, "strange", tls.Authority.create("another CA").issue(common="rpc"))
    with secure(engine, tmp_path, "EXTERNAL") as router:
        secured = Secured(router, tmp_path)
        assert secured.call("", ssl_cert_file=certificate, ssl_key_file=key) == ""
        assert secured.call("", ssl_cert_file=strange, ssl_key_file=strange_key) != ""
        assert secured.call("") != ""


def test_the_routers_certificate_is_verified(secured: Secured) -> None:
    (secured.directory / "other.pem").write_text(tls.Authority.create("another CA").pem)
    assert "the certificate is not accepted" in secured.call(ssl_ca_file=str(secured.directory / "other.pem"))
    other = "127.0.0.1" if secured.router.host != "127.0.0.1" else "127.0.0.2"
    assert "the certificate is not accepted" in secured.call(host="localhost") or "cannot be reached" in secured.call(
        host=other
    )


def test_files_that_cannot_be_used_are_named(secured: Secured) -> None:
    missing = str(secured.directory / "missing.pem")
    said = secured.call(ssl_ca_file=missing)
    assert "TLS cannot use" in said and missing in said
    (secured.directory / "broken.pem").write_text("no certificate")
    assert "TLS cannot use" in secured.call(ssl_cert_file=str(secured.directory / "broken.pem"))


def test_without_tls_the_router_refuses(secured: Secured) -> None:
    said = secured.call(ssl="false", sasl_mechanisms="PLAIN")
    assert said != ""
    assert PASSWORD not in said


@pytest.fixture(scope="module", params=engines.ENGINES)
def plain(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> collections.abc.Iterator[Secured]:
    """A router without TLS that takes passwords."""
    directory = tmp_path_factory.mktemp(f"plain-{request.param}")
    (directory / "ca.pem").write_text(tls.authority().pem)
    listener = {"authenticatePeer": True, "saslMechanisms": "PLAIN"}
    with engines.running(request.param, directory, listener=listener, router=users(directory)) as router:
        yield Secured(router, directory)


def test_a_password_is_not_shown_without_tls_unless_that_is_allowed(plain: Secured) -> None:
    assert "use TLS (ssl), or allow it with sasl_mechanisms = PLAIN" in plain.call(ssl="false")
    assert plain.call(ssl="false", sasl_mechanisms="PLAIN") == ""


def test_tls_to_a_router_without_it(plain: Secured) -> None:
    assert "TLS failed" in plain.call() or "closed the connection" in plain.call()


def test_no_password_is_logged(plain: Secured, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "wr0ng-secret"
    said = plain.call(ssl="false", sasl_mechanisms="PLAIN", password=secret)
    assert 'refused the login as "rpc@overcloud"' in said
    assert secret not in said
    assert caplog.records
    # oslo.messaging itself logs nothing of the URL; what this driver logs must not either.
    assert not [record for record in caplog.records if secret in record.getMessage() + str(record.exc_text)]
