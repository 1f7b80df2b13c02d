"""The certificate authority of the mesh, derived from the mesh's secret: anyone with the secret can be a router.

Nodes store, exchange and renew nothing. Every key is derived from the secret, Ed25519 signatures are deterministic
(RFC 8032 section 5.1.6), and nothing else in a certificate depends on chance or on the clock. So every node makes the
same authority, and every run makes the same bytes.

A router shows its certificate to anyone who connects, and with it an attacker could test guesses of the secret. So the
secret is stretched with scrypt first (RFC 7914): each guess costs 16 MiB and about 40 ms.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import ipaddress
import typing

from om_agent import errors, fields, kinds, model

if typing.TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ed25519

_NAME = "om-dual-backends"
_SALT = b"om-dual-backends router mesh 1"  # the same everywhere, since nodes share nothing but the secret
_COST = {"n": 1 << 14, "r": 8, "p": 1, "maxmem": 1 << 25}  # maxmem in bytes

# The clock of a node without a battery may start in 1970. The end means "no end" (RFC 5280 section 4.1.2.5).
_BEGIN = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_END = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.timezone.utc)
_MOST_COMMON_NAME = 64  # characters (RFC 5280 appendix A.1, ub-common-name)


@dataclasses.dataclass(frozen=True)
class Credentials:
    """The certificate and key that one router shows, and the CA that it trusts: PEM text."""

    ca: str
    certificate: str
    key: model.Secret


def issue(secret: model.Secret, node: model.Node) -> Credentials:
    """Return the credentials of the router on ``node``.

    :raises om_agent.errors.NotReady: when this system cannot make them.
    """
    try:
        from cryptography import exceptions
        from cryptography.hazmat.primitives import serialization
    except ModuleNotFoundError:
        raise errors.NotReady([kinds.problem("cryptography", "no-cryptography")]) from None
    except ImportError as e:
        raise errors.CannotLoad("cryptography", e) from None
    try:
        stretched = _stretch(secret)
        ca_key = _key(stretched, "authority")
        key = _key(stretched, f"router {node.name}")
    except (exceptions.UnsupportedAlgorithm, AttributeError, ValueError):  # OpenSSL was built or set up without it
        raise errors.NotReady([kinds.problem("router.mesh_password", "no-ed25519")]) from None
    ca = _authority(ca_key)
    certificate = _certificate(ca, ca_key, key, node)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Credentials(
        ca=ca.public_bytes(pem).decode(),
        certificate=certificate.public_bytes(pem).decode(),
        key=model.Secret(private.decode()),
    )


@functools.lru_cache(maxsize=16)
def _stretch(secret: model.Secret) -> bytes:
    return hashlib.scrypt(secret.reveal().encode(), salt=_SALT, dklen=32, **_COST)


def _key(stretched: bytes, purpose: str) -> ed25519.Ed25519PrivateKey:
    """Return the key for ``purpose`` by HKDF-SHA256 (RFC 5869): it reveals nothing about keys for other purposes."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.kdf import hkdf

    derived = hkdf.HKDF(hashes.SHA256(), 32, salt=None, info=f"{_NAME} {purpose}".encode()).derive(stretched)
    return ed25519.Ed25519PrivateKey.from_private_bytes(derived)


def _authority(key: ed25519.Ed25519PrivateKey) -> x509.Certificate:
    """Return the CA's certificate. Its name has the fingerprint of its key, so that two meshes can be distinguished."""
    from cryptography import x509

    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    name = _subject(f"mesh {identifier.digest.hex()[:16]}")
    builder = _builder(name, name, public, "authority")
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return builder.add_extension(identifier, critical=False).sign(key, None)


def _certificate(
    ca: x509.Certificate, ca_key: ed25519.Ed25519PrivateKey, key: ed25519.Ed25519PrivateKey, node: model.Node
) -> x509.Certificate:
    """Return a router's certificate, for use as server and as client.

    It holds every name and address of the node, so that peers whose metadata is older than this node's still accept it.
    An address is also there as a DNS name: proton compares only with DNS names and the common name (qpid-proton 0.40,
    c/src/ssl/openssl.c, verify_callback).
    """
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    own_names = tuple(dict.fromkeys((node.host, node.name, node.address)))
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in own_names]
    names += [x509.IPAddress(ipaddress.ip_address(name)) for name in own_names if fields.is_address(name)]
    common = node.host if len(node.host) <= _MOST_COMMON_NAME else ""
    public = key.public_key()
    builder = _builder(_subject(common), ca.subject, public, f"router {' '.join((node.name, *own_names))}")
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(both, critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return builder.add_extension(issuer, critical=False).sign(ca_key, None)


def _subject(common: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    given = ((NameOID.ORGANIZATION_NAME, _NAME), (NameOID.COMMON_NAME, common))
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in given if text])


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ed25519.Ed25519PublicKey, what: str
) -> x509.CertificateBuilder:
    """Return the builder of a certificate. Its serial number is unique within the authority."""
    from cryptography import x509

    digest = hashlib.sha256(f"{_NAME} {what}".encode()).digest()
    serial = (int.from_bytes(digest[:20], "big") >> 1) | 1  # at most 20 octets and positive (RFC 5280 section 4.1.2.2)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    return builder.serial_number(serial).not_valid_before(_BEGIN).not_valid_after(_END)


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
