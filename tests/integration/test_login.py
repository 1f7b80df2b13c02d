"""Logins with a certificate to a RabbitMQ with rendered files: each refusal next to an accepted login."""

from __future__ import annotations

import pathlib
import re
import typing

import pytest
from om_agent import model

from testbed import processes
from tests.integration import test_tls_wire as brokers
from tests.support import tls

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

pytest.importorskip("kombu")

NAME, USER = "ctl-1", brokers.USER


class Kind(typing.NamedTuple):
    """A broker that runs."""

    brokers: brokers.Brokers
    raw: dict[str, typing.Any]
    directory: pathlib.Path

    def log_in(self, shown: tuple[str, ...], method: str = "EXTERNAL", password: str = "") -> str:
        """Log in and out; return the reason of a refusal, or ''."""
        server = self.brokers.servers[0]
        return brokers.log_in(server, self.directory / "ca.pem", USER, password, method, shown)


def write(directory: pathlib.Path, name: str, authority: tls.Authority) -> tuple[str, str]:
    """Write the certificate and key of a user."""
    pair = authority.issue(common=name)
    paths = [directory / f"{name}-{authority.made.serial_number}.{part}" for part in ("pem", "key")]
    for path, text in zip(paths, (pair.certificate, pair.key)):
        path.write_text(text)
    return str(paths[0]), str(paths[1])


@pytest.fixture(scope="module")
def external(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[Kind]:
    """Services log in with a certificate."""
    directory = tmp_path_factory.mktemp("external")
    (directory / "ca.pem").write_text(tls.authority().pem)
    shown = dict(zip(model.CLIENT_FILES, write(directory, USER, tls.authority())))
    rpc = {"username": USER, "tls": True, "sasl_mechanism": "EXTERNAL", **shown}
    raw = {"rpc": rpc, "broker": {"erlang_cookie": "of-this-test"}}
    with brokers.running(directory, "127.0.71", NAME, **raw) as those:
        yield Kind(those, raw, directory)


def test_a_service_calls_with_its_certificate(external: Kind) -> None:
    address = external.brokers.servers[0].address[0]
    nodes = [{"name": NAME, "address": address}]
    raw = {**external.raw, "nodes": nodes, "tls": {**dict.fromkeys(("certificate_file", "key_file"), "/x"),
                                                   "ca_file": str(external.directory / "ca.pem")}}  # fmt: skip
    config = external.directory / "nova.conf"
    config.write_text(tls.service_file(raw, NAME, external.directory))
    said, log = tls.call(tls.resolving(external.directory, {NAME: address}), config, 20)
    assert said == "", log
    assert f"rabbit://{USER}@{NAME}:" in config.read_text()


def test_its_certificate_is_needed(external: Kind) -> None:
    """No certificate, another user's, or one of another authority is refused; the right one is accepted."""
    assert external.log_in(write(external.directory, USER, tls.authority())) == ""
    bare = external.log_in(())
    assert re.match("SSL|ConnectionReset", bare), bare  # the broker hangs up; its alert may come too late to be read
    (log,) = external.directory.rglob(f"var/log/rabbitmq/rabbit@{NAME}.log")
    processes.wait_until("the broker says why", lambda: "Certificate required" in log.read_text(), 10)
    stranger = external.log_in(write(external.directory, "stranger", tls.authority()))
    assert "ACCESS_REFUSED" in stranger, stranger
    forged = external.log_in(write(external.directory, USER, tls.Authority.create(tls.authority().name)))
    assert re.match("SSL|ConnectionReset", forged), forged


@pytest.mark.parametrize("password", ["", brokers.PASSWORD])
def test_a_password_does_not_do(external: Kind, password: str) -> None:
    """The broker offers no password mechanism and knows no password."""
    good = write(external.directory, USER, tls.authority())
    why = external.log_in(good, "PLAIN", password)
    assert "PLAIN" in why and external.log_in(good) == "", why
    assert external.brokers.ctl(NAME, "list_users").splitlines()[-1].split()[0] == USER
