"""The mesh's own authority: equal on every node, valid for OpenSSL, derivable only with the secret."""

from __future__ import annotations

import builtins
import hashlib
import ipaddress
import pathlib
import subprocess
import typing

import hypothesis
import pytest
from cryptography import exceptions, x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import strategies as st
from om_agent import errors, fields, model, parse
from om_agent.plan import authority

from tests.support import helpers

SECRET, OTHER = model.Secret("mesh-secret"), model.Secret("another")
DIGEST = "ced5d1b481b9c657986ec459b5cb0dcec7acb13560036243badc635ff14cb3a7"


def node(name: str = "ctl-0", address: str = "172.17.0.11", host: str = "") -> model.Node:
    return model.Node(name, address, host or address, "controller", "", model.RouterMode.INTERIOR)


def certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def public(pem: str) -> bytes:
    form = serialization.PublicFormat.Raw
    return certificate(pem).public_key().public_bytes(serialization.Encoding.Raw, form)


def names(pem: str) -> list[object]:
    found = certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [name.value for name in found]


def test_these_very_bytes() -> None:
    """Of cryptography 36.0.2, 38.0.4 and 50.0.2: a node's own may be any, and an upgrade of it changes no file."""
    made = authority.issue(SECRET, node(address="fd00::a"))
    found = "".join((made.ca, made.certificate, made.key.reveal()))
    assert hashlib.sha256(found.encode()).hexdigest() == DIGEST


def test_all_nodes_make_one_authority_and_each_its_own_key() -> None:
    made = [authority.issue(SECRET, node(f"ctl-{i}", f"10.0.0.{i + 1}")) for i in range(5)]
    assert len({m.ca for m in made}) == 1
    for part in ("certificate", "key"):
        assert len({getattr(m, part) for m in made}) == 5
    serials = {certificate(m.certificate).serial_number for m in made} | {certificate(made[0].ca).serial_number}
    assert len(serials) == 6 and all(0 < s < 1 << 159 for s in serials)
    publics = [public(pem) for pem in (made[0].ca, *(m.certificate for m in made))]
    assert len(set(publics)) == 6


def test_nothing_expires() -> None:
    made = authority.issue(SECRET, node())
    for pem in (made.ca, made.certificate):
        assert b"\x17\x0d700101000000Z\x18\x0f99991231235959Z" in certificate(pem).tbs_certificate_bytes


def test_what_a_certificate_may_be_used_for() -> None:
    made = authority.issue(SECRET, node())
    ca, own = certificate(made.ca), certificate(made.certificate)
    for found, is_ca in ((ca, True), (own, False)):
        basic = found.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = found.extensions.get_extension_for_class(x509.KeyUsage)
        assert (basic.critical, basic.value.ca, usage.critical) == (True, is_ca, True)
        assert (usage.value.key_cert_sign, usage.value.digital_signature) == (is_ca, not is_ca)
    extended = own.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(extended) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def openssl(directory: pathlib.Path, purpose: str, host: str) -> bool:
    argv = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.pem"]
    argv += ["-verify_ip" if fields.is_address(host) else "-verify_hostname", host, "certificate.pem"]
    return subprocess.run(argv, cwd=directory, capture_output=True, check=False).returncode == 0


@pytest.mark.subprocess
@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_openssl_accepts_the_chain_and_no_other(tmp_path: pathlib.Path, purpose: str) -> None:
    made = authority.issue(SECRET, node("ctl-0.example.com", "fd00::a"))
    (tmp_path / "ca.pem").write_text(made.ca)
    (tmp_path / "certificate.pem").write_text(made.certificate)
    assert openssl(tmp_path, purpose, "fd00::a") and openssl(tmp_path, purpose, "ctl-0.example.com")
    assert not openssl(tmp_path, purpose, "fd00::b")
    (tmp_path / "ca.pem").write_text(authority.issue(OTHER, node()).ca)
    assert not openssl(tmp_path, purpose, "fd00::a")


def test_another_secret_is_another_authority_by_name_too() -> None:
    first, second = (certificate(authority.issue(s, node()).ca) for s in (SECRET, OTHER))
    assert first.subject != second.subject and first.public_key() != second.public_key()


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (node(), ["172.17.0.11", "ctl-0", ipaddress.ip_address("172.17.0.11")]),
        (node("::1", "::1"), ["::1", ipaddress.ip_address("::1")]),
        (node("a", "fd00::a", "a.example.com."), ["a.example.com.", "a", "fd00::a", ipaddress.ip_address("fd00::a")]),
    ],
)
def test_every_way_to_call_a_node(made: model.Node, expected: list[object]) -> None:
    """An address as text too, which is what proton compares."""
    assert names(authority.issue(SECRET, made).certificate) == expected


LABEL = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", fullmatch=True)
GOOD = st.one_of(st.ip_addresses().map(str), st.lists(LABEL, min_size=1, max_size=4).map(".".join))
HOST = st.one_of(
    GOOD,
    st.sampled_from(["*", "*.example.com", "a,DNS:b", "CN=b", "b\0a", "a/CN=b", "ä", "xn--4ca", "a."]),
    st.just(".".join(["a" * 63] * 3)),
    st.text(max_size=20),
)  # fmt: skip


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(st.tuples(HOST, GOOD, GOOD).flatmap(st.permutations))
def test_a_certificate_holds_what_the_node_is_called_and_nothing_else(given: list[str]) -> None:
    """Whatever the metadata says: what the model lets through cannot be a second name or a pattern."""
    raw = helpers.put(helpers.dual(1, 0), "nodes.0", dict(zip(("name", "address", "host"), given)))
    try:
        (made,) = parse.deployment(raw).nodes
    except errors.InvalidInput:
        return
    found = authority.issue(SECRET, made).certificate
    called = {made.name, made.address, made.host}
    assert {str(n) for n in names(found)} == called | {str(ipaddress.ip_address(c)) for c in called if ":" in c}
    common = certificate(found).subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert [a.value for a in common] == ([made.host] if len(made.host) <= 64 else [])
    assert not any("*" in str(n) for n in called)


def test_the_key_is_that_of_the_certificate() -> None:
    made = authority.issue(SECRET, node())
    key = serialization.load_pem_private_key(made.key.reveal().encode(), None)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    assert key.public_key() == certificate(made.certificate).public_key()
    assert "PRIVATE" not in repr(made)


def test_without_the_module_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *rest: typing.Any) -> typing.Any:
        if name.partition(".")[0] == "cryptography":
            raise ModuleNotFoundError
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(errors.NotReady, match="python3-cryptography"):
        authority.issue(SECRET, node())
    helpers.rendered(helpers.default(), "ctl-0")
    helpers.rendered(
        {**helpers.dual(), "router": {**dict.fromkeys(model.MESH_FILES, "/x"), "admin_password": "a"}}, "ctl-0"
    )


@pytest.mark.parametrize("error", [exceptions.UnsupportedAlgorithm("ed25519"), ValueError("scrypt")])
def test_a_restricted_openssl_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(*_: object) -> bytes:
        raise error

    monkeypatch.setattr(authority, "_stretch", refuse)
    with pytest.raises(errors.NotReady, match=r"FIPS.*router\.mesh_ca_file"):
        authority.issue(SECRET, node())
