"""SASL mechanisms of a client: EXTERNAL, SCRAM (RFC 5802, RFC 7677), PLAIN (RFC 4616) and ANONYMOUS (RFC 4505). Pure.

PLAIN shows the password to who is at the other end and, without TLS, to who listens on the way. Without TLS it is used
only where the mechanisms that may be used name it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import typing

from oslo_messaging_amqp1 import errors

_MIN_ITERATIONS = 4096  # RFC 7677; fewer would let a hostile peer guess the password from one login
_MAX_ITERATIONS = 1_000_000  # a hostile peer could ask for hours of hashing; servers ask for 4096 to 600,000
_PREFERENCE = ("EXTERNAL", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "ANONYMOUS")


class Credentials(typing.NamedTuple):
    """With what a client may log in.

    :param certificate: whether it shows a certificate of its own.
    """

    username: str
    password: str
    certificate: bool = False

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, ***)"


class Mechanism:
    """A mechanism that sends one response and expects no challenge."""

    def __init__(self, name: str, response: bytes | None) -> None:
        self.name = name
        self._response = response

    def first(self) -> bytes | None:
        """Return the response that goes with the choice of the mechanism."""
        return self._response

    def answer(self, challenge: bytes) -> bytes:
        """Return the response to a challenge.

        :raises errors.HandshakeError: when none was to be expected, or it is not what the mechanism allows.
        """
        raise errors.HandshakeError(f"the peer sent a challenge, which {self.name} does not have")

    def finish(self, data: bytes | None) -> None:
        """Check what came with the peer's word that the login succeeded.

        :raises errors.HandshakeError: when the peer did not prove that it knows the password.
        """


class Scram(Mechanism):
    """SCRAM: neither side shows the password, and each proves to the other that it knows it."""

    def __init__(self, name: str, username: str, password: str, nonce: str | None = None) -> None:
        self._nonce = nonce or secrets.token_urlsafe(24)
        self._password = password.encode()
        self._hash = "sha256" if name == "SCRAM-SHA-256" else "sha1"
        self._bare = f"n={username.replace('=', '=3D').replace(',', '=2C')},r={self._nonce}"
        self._expected: bytes | None = None
        self._proven = False
        super().__init__(name, f"n,,{self._bare}".encode())

    def answer(self, challenge: bytes) -> bytes:
        if self._expected is not None:
            self.finish(challenge)
            return b""
        given = _attributes(challenge)
        try:
            salt, count = base64.b64decode(given["s"], validate=True), int(given["i"])
            nonce = given["r"]
        except (KeyError, ValueError, binascii.Error):
            raise errors.HandshakeError("the peer's SCRAM challenge cannot be read") from None
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise errors.HandshakeError("the peer's SCRAM challenge has a wrong nonce")
        if not _MIN_ITERATIONS <= count <= _MAX_ITERATIONS:
            raise errors.HandshakeError(
                f"the peer's SCRAM challenge asks for {count} iterations; {_MIN_ITERATIONS} to {_MAX_ITERATIONS} are "
                "allowed"
            )
        salted = hashlib.pbkdf2_hmac(self._hash, self._password, salt, count)
        client_key = self._mac(salted, b"Client Key")
        stored_key = hashlib.new(self._hash, client_key).digest()
        without_proof = f"c=biws,r={nonce}"
        signed = ",".join((self._bare, challenge.decode(), without_proof)).encode()
        signature = self._mac(stored_key, signed)
        proof = bytes(a ^ b for a, b in zip(client_key, signature))
        self._expected = self._mac(self._mac(salted, b"Server Key"), signed)
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def finish(self, data: bytes | None) -> None:
        if self._proven:
            return
        given = _attributes(data or b"")
        shown = base64.b64encode(self._expected or b"").decode()
        if self._expected is None or not hmac.compare_digest(given.get("v", "").encode(), shown.encode()):
            raise errors.HandshakeError("the peer did not prove that it knows the password (SCRAM)")
        self._proven = True

    def _mac(self, key: bytes, data: bytes) -> bytes:
        return hmac.new(key, data, self._hash).digest()


def _attributes(text: bytes) -> dict[str, str]:
    """Return the attributes of a SCRAM message, as in ``r=...,s=...,i=4096``."""
    try:
        parts = text.decode().split(",")
    except UnicodeDecodeError:
        return {}
    return {part[0]: part[2:] for part in parts if part[1:2] == "="}


def choose(
    offered: typing.Collection[str], allowed: typing.Collection[str], credentials: Credentials, encrypted: bool
) -> Mechanism:
    """Return the best mechanism that both sides have.

    :param allowed: those that the configuration names; none for any but PLAIN without TLS.
    :param encrypted: whether TLS protects the connection.
    :raises errors.HandshakeError: when there is none, with the reason.
    """
    wanted = {name.upper() for name in allowed}
    candidates = [name for name in _PREFERENCE if name in offered and (not wanted or name in wanted)]
    for name in candidates:
        if name == "EXTERNAL" and credentials.certificate and (wanted or not credentials.password):
            return Mechanism(name, b"")
        if name.startswith("SCRAM-") and credentials.password:
            return Scram(name, credentials.username, credentials.password)
        if name == "PLAIN" and credentials.password and (encrypted or "PLAIN" in wanted):
            return Mechanism(name, f"\0{credentials.username}\0{credentials.password}".encode())
        if name == "ANONYMOUS" and not credentials.password:
            return Mechanism(name, b"anonymous")
    if "PLAIN" in candidates and credentials.password:
        raise errors.HandshakeError(
            "the peer takes passwords only with PLAIN, which without TLS shows them on the network: use TLS (ssl), or "
            "allow it with sasl_mechanisms = PLAIN"
        )
    shown = ", ".join(sorted(offered)) or "none"
    what = "a user name and password" if credentials.password else "no password"
    limit = f", of which the configuration allows {', '.join(sorted(wanted))}" if wanted else ""
    raise errors.HandshakeError(f"no way to log in with {what}: the peer offers {shown}{limit}")
