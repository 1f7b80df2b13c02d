"""SASL: the vectors of the RFCs, and which mechanism is chosen."""

from __future__ import annotations

import pytest
from oslo_messaging_amqp1 import errors, sasl

# RFC 5802 section 5 and RFC 7677 section 3.
VECTORS = {
    "SCRAM-SHA-1": (
        "fyko+d2lbbFgONRv9qkxdawL",
        b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
        b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
        b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    ),
    "SCRAM-SHA-256": (
        "rOprNGfwEbeRWgbNEkqO",
        b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_scram(name: str) -> None:
    nonce, first, challenge, answer, proof = VECTORS[name]
    scram = sasl.Scram(name, "user", "pencil", nonce)
    assert scram.first() == first
    assert scram.answer(challenge) == answer
    scram.finish(proof)


@pytest.mark.parametrize("name", VECTORS)
def test_scram_refuses_a_server_that_does_not_know_the_password(name: str) -> None:
    nonce, _, challenge, _, proof = VECTORS[name]
    scram = sasl.Scram(name, "user", "pencil", nonce)
    with pytest.raises(errors.HandshakeError, match="did not prove"):
        scram.finish(proof)  # before any challenge
    scram.answer(challenge)
    for wrong in (None, b"", b"v=", b"v=AAAA", b"\xff"):
        with pytest.raises(errors.HandshakeError, match="did not prove"):
            scram.finish(wrong)
    assert scram.answer(proof) == b""  # as a second challenge, where the outcome carries nothing
    scram.finish(None)


@pytest.mark.parametrize(
    "challenge",
    [
        b"", b"r=other,s=QSXCR+Q6sek8bf92,i=4096", b"r=nonce1,s=***,i=4096", b"r=nonce1,s=QSXC,i=0", b"r=nonce1,s=QSXC",
        b"r=nonce1,s=QSXC,i=99999999999", b"r=nonce1,s=QSXC,i=-1", b"r=nonce1,s=QSXC,i=many", b"\xff",
        b"r=nonce1,s=QSXC,i=4095", b"r=nonce,s=QSXC,i=4096",
    ],
)  # fmt: skip
def test_scram_refuses_a_challenge_that_is_none(challenge: bytes) -> None:
    with pytest.raises(errors.HandshakeError):
        sasl.Scram("SCRAM-SHA-256", "user", "pencil", "nonce").answer(challenge)


def test_a_user_name_with_comma_and_equals_sign() -> None:
    assert sasl.Scram("SCRAM-SHA-1", "a,b=c", "x", "n").first() == b"n,,n=a=2Cb=3Dc,r=n"


PASSWORD = sasl.Credentials("user", "secret")
CERTIFICATE = sasl.Credentials("", "", certificate=True)
NOBODY = sasl.Credentials("", "")
ALL = ("PLAIN", "ANONYMOUS", "EXTERNAL", "SCRAM-SHA-1", "SCRAM-SHA-256", "GSSAPI")


@pytest.mark.parametrize(
    ("offered", "allowed", "credentials", "encrypted", "name"),
    [
        (ALL, (), PASSWORD, True, "SCRAM-SHA-256"),
        (ALL, (), PASSWORD, False, "SCRAM-SHA-256"),
        (ALL, ("PLAIN",), PASSWORD, False, "PLAIN"),
        (ALL, ("plain", "scram-sha-1"), PASSWORD, False, "SCRAM-SHA-1"),
        (("PLAIN",), (), PASSWORD, True, "PLAIN"),
        (ALL, (), CERTIFICATE, True, "EXTERNAL"),
        (ALL, ("EXTERNAL",), sasl.Credentials("user", "secret", True), True, "EXTERNAL"),
        (ALL, (), NOBODY, False, "ANONYMOUS"),
    ],
)
def test_which_mechanism(
    offered: tuple[str, ...], allowed: tuple[str, ...], credentials: sasl.Credentials, encrypted: bool, name: str
) -> None:
    assert sasl.choose(offered, allowed, credentials, encrypted).name == name


@pytest.mark.parametrize(
    ("offered", "allowed", "credentials", "encrypted", "said"),
    [
        (("PLAIN",), (), PASSWORD, False, "use TLS"),
        (("ANONYMOUS",), (), PASSWORD, True, "offers ANONYMOUS"),
        (("PLAIN",), ("SCRAM-SHA-256",), PASSWORD, True, "allows SCRAM-SHA-256"),
        ((), (), NOBODY, True, "offers none"),
        (("EXTERNAL",), (), NOBODY, True, "no password"),
    ],
)
def test_no_mechanism(
    offered: tuple[str, ...], allowed: tuple[str, ...], credentials: sasl.Credentials, encrypted: bool, said: str
) -> None:
    with pytest.raises(errors.HandshakeError, match=said) as caught:
        sasl.choose(offered, allowed, credentials, encrypted)
    assert "secret" not in str(caught.value)


def test_nothing_shows_the_password() -> None:
    assert "secret" not in repr(PASSWORD)
    assert "secret" not in str(PASSWORD)
    assert "secret" not in repr(sasl.choose(("PLAIN",), (), PASSWORD, True))
