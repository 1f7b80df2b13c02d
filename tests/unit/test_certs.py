"""The agent reports a certificate that peers would reject, before it writes anything."""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from om_agent import certs, ciphers, errors, fields, model
from om_agent.plan import layout

from tests.support import helpers, tls, trees

NAME = "ctl-0.example.com"
SERVER = layout.Server(
    what="broker", names=(NAME,), exact=(), peer=False,
    ca=layout.Credential("tls.ca"), certificate=layout.Credential("tls.certificate"), key=layout.Credential("tls.key"),
)  # fmt: skip
PEER = dataclasses.replace(SERVER, exact=(NAME,), peer=True)
CA = tls.authority()
GOOD = CA.issue(NAME)
CLIENT, SERVING = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


def found(
    pair: tls.Pair, server: layout.Server = SERVER, ca: str = CA.pem, now: datetime.datetime = tls.NOW
) -> list[tuple[str, str]]:
    """(path, code) of what is wrong."""
    shown = certs.Given(server, ca, pair.certificate, model.Secret(pair.key))
    return [(p.path, p.code) for p in certs.check_server(shown, now)]


def with_password() -> str:
    key = serialization.load_pem_private_key(GOOD.key.encode(), None)
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"x")).decode()


def test_good_ones() -> None:
    assert found(GOOD) == found(GOOD, PEER) == []
    assert found(CA.issue(NAME, of_rsa=True)) == []
    assert found(CA.issue("*.example.com")) == []
    assert found(CA.issue(common=NAME)) == []  # no alternative name at all: the common name counts
    assert found(CA.issue(NAME, uses=()), PEER) == []
    assert found(GOOD, ca="") == []  # the system's own authorities: nothing is known of them
    assert found(CA.issue("10.0.0.1"), dataclasses.replace(SERVER, names=("10.0.0.1",))) == []


def test_of_a_user() -> None:
    """A user's certificate must be a client's, and its common name is the user name."""
    user = dataclasses.replace(SERVER, what="clients", names=(), user="rpc")
    assert found(CA.issue(common="rpc", uses=(CLIENT,)), user) == found(CA.issue(common="rpc"), user) == []
    assert found(CA.issue("rpc", common="nova"), user) == [("tls.certificate", "cert-other-user")]
    assert found(CA.issue(common="rpc", uses=(SERVING,)), user) == [("tls.certificate", "cert-other-use")]


ODD = {
    "no certificate": (
        dataclasses.replace(GOOD, certificate=helpers.CERTIFICATE), ("tls.certificate", "cert-unreadable"),
    ),
    "no key": (dataclasses.replace(GOOD, key=helpers.KEY), ("tls.key", "cert-bad-key")),
    "a key with a password": (dataclasses.replace(GOOD, key=with_password()), ("tls.key", "cert-bad-key")),
    "another's key": (dataclasses.replace(GOOD, key=CA.issue(NAME).key), ("tls.key", "cert-other-key")),
    "another's name": (CA.issue("ctl-1.example.com"), ("tls.certificate", "cert-other-host")),
    "its name in the common name beside others": (
        CA.issue("ctl-1.example.com", common=NAME), ("tls.certificate", "cert-other-host"),
    ),
    "a wildcard for two labels": (CA.issue("*.com"), ("tls.certificate", "cert-other-host")),
    "a client's": (CA.issue(NAME, uses=(CLIENT,)), ("tls.certificate", "cert-other-use")),
    "expired": (CA.issue(NAME, valid=(tls.NOW - 2 * tls.DAY, tls.NOW - tls.DAY)), ("tls.certificate", "cert-expired")),
    "early": (CA.issue(NAME, valid=(tls.NOW + tls.DAY, tls.NOW + 2 * tls.DAY)), ("tls.certificate", "cert-not-yet")),
    "another authority's": (tls.Authority.create().issue(NAME), ("tls.certificate", "cert-not-signed")),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_odd_ones(what: str) -> None:
    pair, wanted = ODD[what]
    assert found(pair) == [wanted]


def test_only_exact_names_and_clients_among_brokers() -> None:
    assert found(CA.issue("*.example.com"), PEER) == [("tls.certificate", "cert-other-host")]
    assert found(CA.issue(NAME, uses=(SERVING,)), PEER) == [("tls.certificate", "cert-other-use")]
    assert found(CA.issue(NAME, uses=(SERVING,))) == []


def test_an_authority_that_has_expired() -> None:
    later = tls.NOW + 3 * tls.DAY
    pair = CA.issue(NAME, valid=(tls.NOW, later + tls.DAY))
    assert found(pair, now=later) == [("tls.certificate", "cert-expired")]
    assert found(GOOD, ca=helpers.CERTIFICATE) == [("tls.ca", "cert-unreadable")]


def test_intermediates() -> None:
    between = CA.intermediate("between")
    pair = between.issue(NAME)
    assert found(pair) == [("tls.certificate", "cert-not-signed")]
    assert found(dataclasses.replace(pair, certificate=pair.certificate + between.pem)) == []
    assert found(pair, ca=CA.pem + between.pem) == []
    assert found(pair, ca=between.pem) == [("tls.certificate", "cert-not-signed")]  # OpenSSL wants the root


ONE, TWO = GOOD.certificate, CA.pem


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (ONE, ONE),
        (ONE + TWO, ONE + TWO),
        (ONE + "\n" + TWO.rstrip("\n"), ONE + "\n" + TWO.rstrip("\n")),
        (ONE.replace("\n", "\r\n"), ONE.replace("\n", "\r\n")),
        (ONE.replace("CERTIFICATE", "TRUSTED CERTIFICATE"), ONE.replace("CERTIFICATE", "TRUSTED CERTIFICATE")),
        (f"Certificate:\n    Data:\n        Version: 3 (0x2)\n{ONE}# é\n{TWO}password: x\n", ONE + TWO),
        (f"\n{ONE}\n\n  x: y\n", ONE + "\n\n"),
    ],
    # The certificates differ from process to process, and pytest-xdist wants the same names in every one.
    ids=["one", "two", "two with a line between", "CRLF", "trusted", "text around", "blank lines"],
)
def test_certificates_alone_are_kept_and_as_they_are(text: str, kept: str) -> None:
    assert fields.CERTIFICATE.good(text)
    assert fields.certificates(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "password: x",
        ONE.replace("-----END", "----END") + TWO,  # one that is damaged is not dropped: it may be what a peer needs
        ONE.replace("\n", "\npassword: x\n", 1),
        ONE + "  " + TWO,  # OpenSSL sees no marker that is not at the beginning of its line
        ONE.replace("END CERTIFICATE", "END TRUSTED CERTIFICATE"),
        ONE.rstrip("\n") + "x\n",
    ],
    ids=["empty", "text", "damaged marker", "text inside", "indented marker", "two kinds of marker", "text after"],
)
def test_what_is_no_certificate_or_a_damaged_one_is_refused(text: str) -> None:
    assert not fields.CERTIFICATE.good(text)


def test_a_sentence_says_what_to_do() -> None:
    pair = CA.issue("a", "b", "c", "d", "e")
    (said,) = certs.check_server(certs.Given(SERVER, CA.pem, pair.certificate, model.Secret(pair.key)), tls.NOW)
    assert f'is not valid for "{NAME}"' in said.message and '"a", "b", "c", "d" and 1 more' in said.message
    assert pair.key.splitlines()[1] not in str(said)


def test_without_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert found(GOOD) == [("cryptography", "no-cryptography")]


@pytest.mark.subprocess
@pytest.mark.parametrize("form", ["pem", "paths"])
def test_apply_refuses(form: str, tmp_path: pathlib.Path) -> None:
    """With nothing written, for text and for files that are on the node."""
    raw = helpers.with_tls(helpers.default(1, 0), "pem")
    pair = CA.issue("ctl-1")
    given = {"ca": CA.pem, "certificate": pair.certificate, "key": pair.key}
    root = tmp_path / "root"
    (root / "etc/pki").mkdir(parents=True)
    if form == "paths":
        for key, text in given.items():
            (root / f"etc/pki/{key}").write_text(text)
        given = {f"{key}_file": f"/etc/pki/{key}" for key in given}
    (tmp_path / "m.json").write_text(json.dumps({"oslo_messaging": {**raw, "tls": given}}))
    (root / helpers.STATE).mkdir(parents=True)
    before = trees.snapshot(root, helpers.STATE)
    argv = [sys.executable, "-m", "om_agent", "apply", str(tmp_path / "m.json"), "--node", "ctl-0", "--root", str(root)]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=60, check=False, env={"PYTHONPATH": str(helpers.ROOT / "agent")}
    )
    at = "tls.certificate" if form == "pem" else "/etc/pki/certificate"
    assert done.returncode == errors.EXIT_APPLY_FAILED
    assert (
        f'{at}: the certificate is not valid for "ctl-0", which peers require; it is valid for "ctl-1"' in done.stderr
    )
    assert trees.snapshot(root, helpers.STATE) == before


def test_this_openssl_knows_the_ciphers() -> None:
    context = tls.client_context(ciphers=":".join(ciphers.NAMES))
    assert {c["name"] for c in context.get_ciphers()} == {*ciphers.NAMES, *ciphers.TLS_1_3}


@pytest.mark.subprocess
@pytest.mark.parametrize("node", ["", "ctl-0", "ctl-1", "cmp-0"])
def test_validate_looks_at_pem(node: str, tmp_path: pathlib.Path) -> None:
    """Off-node, and so at the name only for a node that is named and has a server."""
    pair = CA.issue("ctl-0")
    raw = helpers.with_tls(helpers.default(2), "pem")
    raw["tls"] = {"ca": CA.pem, "certificate": pair.certificate, "key": pair.key}
    broken = helpers.put(raw, "tls.key", CA.issue("ctl-0").key)
    for given, good in ((raw, node != "ctl-1"), (broken, False)):
        path = tmp_path / "m.json"
        path.write_text(json.dumps({"oslo_messaging": given}))
        argv = [sys.executable, "-m", "om_agent", "validate", str(path), *(["--node", node] if node else [])]
        environment = {"PYTHONPATH": str(helpers.ROOT / "agent")}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=environment)
        assert done.returncode == (errors.EXIT_OK if good else errors.EXIT_INVALID), done.stderr
        assert ("does not belong to the certificate" in done.stderr) is (given is broken)
