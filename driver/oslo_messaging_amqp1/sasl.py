"""SASL mechanisms of a client: EXTERNAL, SCRAM (RFC 5802, RFC 7677), PLAIN (RFC 4616) and ANONYMOUS (RFC 4505). Pure.

PLAIN sends the password to the peer. Without TLS, anyone on the network can read it there. So a login without TLS uses
PLAIN only when the configuration names it among the allowed mechanisms.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import typing

from oslo_messaging_amqp1 import errors

_MIN_ITERATIONS = 4096  # RFC 7677; with fewer, a hostile peer could guess the password from one login
_MAX_ITERATIONS = 1_000_000  # with more, a hostile peer could make the client hash for hours; servers use up to 600,000
_PREFERENCE = ("EXTERNAL", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "ANONYMOUS")


class Credentials(typing.NamedTuple):
    """The credentials of a client.

    :param certificate: whether the client presents a certificate.
    """

    username: str
    password: str
    certificate: bool = False

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, ***)"


class Mechanism:
    """A mechanism that sends one response and gets no challenge."""

    def __init__(self, name: str, response: bytes | None) -> None:
        self.name = name
        self._response = response

    def first(self) -> bytes | None:
        """Return the initial response, which is sent together with the name of the mechanism."""
        return self._response

    def answer(self, challenge: bytes) -> bytes:
        """Return the response to a challenge.

        :raises errors.HandshakeError: when the mechanism has no challenge, or does not allow this one.
        """
        raise errors.HandshakeError(f"the peer sent a challenge, but {self.name} has none")

    def finish(self, data: bytes | None) -> None:
        """Check the data that came with the peer's report of success.

        :raises errors.HandshakeError: when the peer did not prove that it knows the password.
        """


class Scram(Mechanism):
    """SCRAM: neither side sends the password, and each proves to the other that it knows the password."""

    def __init__(self, name: str, username: str, password: str, nonce: str | None = None) -> None:
        self._nonce = nonce or secrets.token_urlsafe(24)
        self._password = password.encode()
        self._hash = "sha256" if name == "SCRAM-SHA-256" else "sha1"
        escaped = username.replace("=", "=3D").replace(",", "=2C")
        self._first_bare = f"n={escaped},r={self._nonce}"  # RFC 5802: client-first-message-bare
        self._expected: bytes | None = None
        self._proven = False
        super().__init__(name, f"n,,{self._first_bare}".encode())

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
        # The names are those of RFC 5802, section 3.
        salted = hashlib.pbkdf2_hmac(self._hash, self._password, salt, count)
        client_key = self._mac(salted, b"Client Key")
        stored_key = hashlib.new(self._hash, client_key).digest()
        without_proof = f"c=biws,r={nonce}"
        auth_message = ",".join((self._first_bare, challenge.decode(), without_proof)).encode()
        signature = self._mac(stored_key, auth_message)
        proof = bytes(key_byte ^ signature_byte for key_byte, signature_byte in zip(client_key, signature))
        server_key = self._mac(salted, b"Server Key")
        self._expected = self._mac(server_key, auth_message)
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def finish(self, data: bytes | None) -> None:
        if self._proven:
            return
        given = _attributes(data or b"")
        expected = base64.b64encode(self._expected or b"")
        if self._expected is None or not hmac.compare_digest(given.get("v", "").encode(), expected):
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
    """Return the best mechanism that both sides support.

    :param allowed: the mechanisms that the configuration names. If it names none, all but PLAIN without TLS.
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
            "the peer accepts passwords only with PLAIN, which sends them unencrypted: use TLS (ssl), or allow it with "
            "sasl_mechanisms = PLAIN"
        )
    offer = ", ".join(sorted(offered)) or "none"
    given = "a user name and password" if credentials.password else "no password"
    limit = f"; the configuration allows {', '.join(sorted(wanted))}" if wanted else ""
    raise errors.HandshakeError(f"cannot log in with {given}: the peer offers {offer}{limit}")
