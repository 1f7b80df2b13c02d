"""Check the certificates of servers before anything is written, since neither routers nor RabbitMQ report a bad one.

A router starts with any certificate and then refuses clients; RabbitMQ does not start. In both cases only a log has the
reason. The checks are those that clients make (RFC 5280 section 6, RFC 6125): key, names, dates, use, authority.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import ipaddress
import re
import typing

from om_agent import errors, fields, kinds, model
from om_agent.plan import layout

if typing.TYPE_CHECKING:
    from cryptography import x509

_LONGEST_CHAIN = 10  # certificates, from the server's own to that of its authority
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]*)CERTIFICATE-----[^-]+-----END \1CERTIFICATE-----")
_MOST_NAMES = 4  # in a sentence


@dataclasses.dataclass(frozen=True)
class Given:
    """The certificate, key and CA of a server, as PEM text; '' where the text is not known.

    :param server: says where the texts come from.
    """

    server: layout.Server
    ca: str
    certificate: str
    key: model.Secret


def check_server(given: Given, now: datetime.datetime) -> typing.Iterator[errors.Problem]:
    """Yield the reasons why peers would not accept the server's certificate.

    :param now: the time, with its time zone.
    """
    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError:
        yield kinds.problem("cryptography", "no-cryptography")
        return
    except ImportError as e:
        raise errors.CannotLoad("cryptography", e) from None
    at = given.server.certificate.where
    own = _certificates(given.certificate) if given.certificate else ()
    if given.certificate and not own:
        yield kinds.problem(at, "cert-unreadable", what="certificate")
    authorities = _certificates(given.ca) if given.ca else ()
    if given.ca and not authorities:
        yield kinds.problem(given.server.ca.where, "cert-unreadable", what="CA certificate")
    if given.key.reveal():
        yield from _check_key(given, own)
    if own:
        yield from _check_names(given.server, at, own[0])
        yield from _check_user(given.server, at, own[0])
        yield from _check_use(given.server, at, own[0])
        chain, complete = _chain(own, authorities)
        yield from _check_dates(at, chain, now)
        if authorities and not complete:
            yield kinds.problem(at, "cert-not-signed", ca=given.server.ca.where)


def _certificates(text: str) -> tuple[x509.Certificate, ...]:
    """Return the certificates in a PEM text; none when one of them cannot be read."""
    from cryptography import x509

    try:
        return tuple(x509.load_pem_x509_certificate(m.group().encode()) for m in _BLOCK.finditer(text))
    except ValueError:
        return ()


def _check_key(given: Given, own: tuple[x509.Certificate, ...]) -> typing.Iterator[errors.Problem]:
    from cryptography import exceptions
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_private_key(given.key.reveal().encode(), None)
    except (ValueError, TypeError, exceptions.UnsupportedAlgorithm):  # TypeError: it has a password
        yield kinds.problem(given.server.key.where, "cert-bad-key")
        return
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if own and key.public_key().public_bytes(*form) != own[0].public_key().public_bytes(*form):
        yield kinds.problem(given.server.key.where, "cert-other-key", certificate=given.server.certificate.where)


def names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the names that clients compare with: the common name counts only when there is no DNS name."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    found: list[str] = []
    addresses: list[str] = []
    with contextlib.suppress(x509.ExtensionNotFound, ValueError):
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found += extension.get_values_for_type(x509.DNSName)
        addresses += map(str, extension.get_values_for_type(x509.IPAddress))
    if not found:
        found += [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return (*found, *addresses)


def matches(name: str, pattern: str, wildcards: bool = True) -> bool:
    """Return whether a certificate with the name ``pattern`` is valid for the host ``name`` (RFC 6125 section 6.4)."""
    if fields.is_address(name) or fields.is_address(pattern):
        both = fields.is_address(name) and fields.is_address(pattern)
        return both and ipaddress.ip_address(name) == ipaddress.ip_address(pattern)
    host, wanted = (text.lower().rstrip(".") for text in (name, pattern))
    if wildcards and wanted.startswith("*."):
        first, dot, rest = host.partition(".")
        return bool(first and dot) and rest == wanted[2:]
    return host == wanted


def _check_names(server: layout.Server, at: str, own: x509.Certificate) -> typing.Iterator[errors.Problem]:
    found = names(own)
    for name in dict.fromkeys((*server.names, *server.exact)):
        if not any(matches(name, pattern, name not in server.exact) for pattern in found):
            listed = errors.listed(list(map(errors.quoted, found)), _MOST_NAMES) or "nothing"
            yield kinds.problem(at, "cert-other-host", name=errors.quoted(name), found=listed)


def _check_user(server: layout.Server, at: str, own: x509.Certificate) -> typing.Iterator[errors.Problem]:
    from cryptography.x509.oid import NameOID

    found = [str(a.value) for a in own.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if server.user and found != [server.user]:
        listed = errors.listed(list(map(errors.quoted, found)), _MOST_NAMES) or "nobody"
        yield kinds.problem(at, "cert-other-user", name=errors.quoted(server.user), found=listed)


def _check_use(server: layout.Server, at: str, own: x509.Certificate) -> typing.Iterator[errors.Problem]:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        uses = list(own.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except (x509.ExtensionNotFound, ValueError):
        return
    wanted = {} if server.user else {"server": ExtendedKeyUsageOID.SERVER_AUTH}
    if server.peer or server.user:
        wanted["client"] = ExtendedKeyUsageOID.CLIENT_AUTH
    for use, oid in wanted.items():
        if oid not in uses:
            yield kinds.problem(at, "cert-other-use", use=use, what=server.what)


def _chain(
    own: tuple[x509.Certificate, ...], authorities: tuple[x509.Certificate, ...]
) -> tuple[list[x509.Certificate], bool]:
    """Return the chain of certificates from the server's own, and whether it ends at an authority.

    As OpenSSL requires, such an authority has signed its own certificate.
    """
    chain = [own[0]]
    while len(chain) < _LONGEST_CHAIN:
        last = chain[-1]
        if last in authorities and _signed(last, last):
            return chain, True
        above = [c for c in (*authorities, *own[1:]) if c.subject == last.issuer and c not in chain]
        issuers = [c for c in above if _signed(last, c)]
        if not issuers:
            return chain, False
        chain.append(issuers[0])
    return chain, False


def _signed(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    """Return whether the key of ``by`` has signed a certificate; True for a kind of signature not known here."""
    from cryptography import exceptions
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

    if certificate.issuer != by.subject:
        return False
    key, signature, signed = by.public_key(), certificate.signature, certificate.tbs_certificate_bytes
    digest = certificate.signature_hash_algorithm
    try:
        if (
            isinstance(key, rsa.RSAPublicKey)
            and digest
            and "RSASSA-PSS" not in certificate.signature_algorithm_oid._name
        ):
            key.verify(signature, signed, padding.PKCS1v15(), digest)
        elif isinstance(key, ec.EllipticCurvePublicKey) and digest:
            key.verify(signature, signed, ec.ECDSA(digest))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, signed)
    except exceptions.InvalidSignature:
        return False
    return True


def _check_dates(at: str, chain: list[x509.Certificate], now: datetime.datetime) -> typing.Iterator[errors.Problem]:
    for i, certificate in enumerate(chain):
        begin, end = _dates(certificate)
        whose = "certificate" if i == 0 else "certificate of its authority"
        if now < begin:
            yield kinds.problem(at, "cert-not-yet", whose=whose, when=f"{begin:%Y-%m-%d %H:%M} UTC")
        if now > end:
            yield kinds.problem(at, "cert-expired", whose=whose, when=f"{end:%Y-%m-%d %H:%M} UTC")


def _dates(certificate: x509.Certificate) -> tuple[datetime.datetime, datetime.datetime]:
    if hasattr(certificate, "not_valid_after_utc"):  # since cryptography 42, where the older names warn
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    utc = datetime.timezone.utc
    return certificate.not_valid_before.replace(tzinfo=utc), certificate.not_valid_after.replace(tzinfo=utc)
