"""TLS from the outside: certificates for tests, and clients that speak one version or cipher suite and no other."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import ipaddress
import json
import os
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import threading
import typing
import warnings

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from testbed import overcloud, processes
from tests.support import helpers

NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
DAY = datetime.timedelta(days=1)
_BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)

Key = typing.Union[ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey]


@dataclasses.dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM text."""

    certificate: str
    key: str


@dataclasses.dataclass(frozen=True)
class Authority:
    """A CA; two of one name are two nevertheless."""

    name: str
    made: x509.Certificate
    key: Key

    @classmethod
    def create(cls, name: str = "test CA") -> Authority:
        """Make one."""
        key = _new_key()
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = _builder(name, name, key, (NOW - DAY, NOW + 2 * DAY))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(usage, critical=True)
        return cls(name, builder.sign(key, hashes.SHA256()), key)

    def intermediate(self, name: str) -> Authority:
        """Make one that this one signs."""
        key = _new_key()
        builder = _builder(name, self.name, key, (NOW - DAY, NOW + 2 * DAY))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        return Authority(name, builder.sign(self.key, hashes.SHA256()), key)

    @property
    def pem(self) -> str:
        """Its certificate."""
        return self.made.public_bytes(serialization.Encoding.PEM).decode()

    def issue(
        self,
        *names: str,
        valid: tuple[datetime.datetime, datetime.datetime] = (NOW - DAY, NOW + 2 * DAY),
        common: str = "server",
        uses: typing.Sequence[x509.ObjectIdentifier] = _BOTH,
        of_rsa: bool = False,
    ) -> Pair:
        """Return a certificate for names and addresses."""
        key = _new_key(of_rsa)
        builder = _builder(common, self.name, key, valid)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_name(n) for n in names]), critical=False)
        if uses:
            builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        made = builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        return Pair(made.decode(), key_pem(key))


def _new_key(of_rsa: bool = False) -> Key:
    return rsa.generate_private_key(65537, 2048) if of_rsa else ec.generate_private_key(ec.SECP256R1())


def key_pem(key: Key) -> str:
    """Return a key as PEM text."""
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def _name(text: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(text))
    return x509.DNSName(text)


def _builder(
    subject: str, issuer: str, key: Key, valid: tuple[datetime.datetime, datetime.datetime]
) -> x509.CertificateBuilder:
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (subject, issuer)]
    builder = x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(key.public_key())
    return builder.serial_number(x509.random_serial_number()).not_valid_before(valid[0]).not_valid_after(valid[1])


@functools.cache
def authority(name: str = "test CA") -> Authority:
    """Return a CA that all tests of this run share."""
    return Authority.create(name)


# -- clients ---------------------------------------------------------------------------------------------------------


class Spoken(typing.NamedTuple):
    """What was agreed upon, the certificate that was shown (DER), and the first of what was answered."""

    version: str
    cipher: str
    certificate: bytes
    answer: bytes


def client_context(
    ca: str | None = None, versions: tuple[ssl.TLSVersion, ssl.TLSVersion] | None = None, ciphers: str = ""
) -> ssl.SSLContext:
    """Return a client that can speak ``versions`` (the oldest and the newest), old ones included, and no others.

    :param ca: PEM text to verify with; without, nothing is verified.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = ca is not None
    context.verify_mode = ssl.CERT_REQUIRED if ca is not None else ssl.CERT_NONE
    if ca is not None:
        context.load_verify_locations(cadata=ca)
    _limit(context, versions, ciphers)
    return context


def _limit(context: ssl.SSLContext, versions: tuple[ssl.TLSVersion, ssl.TLSVersion] | None, ciphers: str = "") -> None:
    with warnings.catch_warnings():  # Python warns of TLS 1.1, which is the point here
        warnings.simplefilter("ignore", DeprecationWarning)
        if versions:
            context.minimum_version, context.maximum_version = versions
            if versions[0] < ssl.TLSVersion.TLSv1_2:
                ciphers = ciphers or "ALL:@SECLEVEL=0"  # its signatures are of SHA-1
    if ciphers:
        context.set_ciphers(ciphers)


def speak(
    address: tuple[str, int], context: ssl.SSLContext, hello: bytes, name: str = "", seconds: float = 10
) -> Spoken:
    """Shake hands, say ``hello`` and hear an answer: a server of TLS 1.3 refuses only after the client is done.

    :raises OSError: when that is refused; ssl.SSLError is one.
    """
    with (
        socket.create_connection(address, timeout=seconds) as plain,
        context.wrap_socket(plain, server_hostname=name or None) as secure,
    ):
        secure.sendall(hello)
        answer = secure.recv(4096)
        if not answer:
            raise ConnectionResetError("no answer")
        version, cipher = secure.version(), secure.cipher()
        shown = secure.getpeercert(binary_form=True)
        assert version and cipher and shown
        return Spoken(version, cipher[0], shown, answer)


def say(address: tuple[str, int], hello: bytes, seconds: float = 10) -> bytes:
    """Say ``hello`` without TLS; returns what is answered until the server hangs up or is silent for a second."""
    answer = b""
    with socket.create_connection(address, timeout=seconds) as plain:
        plain.sendall(hello)
        plain.settimeout(1)
        with contextlib.suppress(OSError):
            while more := plain.recv(4096):
                answer += more
    return answer


@contextlib.contextmanager
def old_server(directory: pathlib.Path, version: ssl.TLSVersion) -> typing.Iterator[tuple[str, int]]:
    """A server of one version, to prove of a client that it can speak that."""
    pair = authority().issue("server", of_rsa=True)
    path = directory / "old-server.pem"
    path.write_text(pair.certificate + pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    _limit(context, (version, version))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    plain, _ = listener.accept()
                    with contextlib.suppress(OSError), plain, context.wrap_socket(plain, server_side=True) as secure:
                        secure.sendall(secure.recv(4096))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


# -- what every server that om-agent configures has to refuse, each beside what it takes ------------------------------

V1_1, V1_2, V1_3 = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
CIPHER, OTHER_CIPHER = "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"


@dataclasses.dataclass(frozen=True)
class Server:
    """A server under test.

    :param hello: what its protocol begins with.
    :param welcome: what an answer to that begins with.
    """

    address: tuple[str, int]
    name: str
    hello: bytes
    welcome: bytes

    def accepts(self, context: ssl.SSLContext) -> Spoken:
        """Speak to it, which has to work."""
        spoken = speak(self.address, context, self.hello, self.name)
        assert spoken.answer.startswith(self.welcome)
        return spoken

    def refuses(self, context: ssl.SSLContext) -> str:
        """Try to speak to it, which must not work; returns why not."""
        try:
            spoken = speak(self.address, context, self.hello, self.name)
        except OSError as e:
            return str(e)
        raise AssertionError(f"accepted: {spoken}")


def refuses_plaintext(server: Server) -> None:
    """The same words are understood inside TLS alone."""
    answer = say(server.address, server.hello)
    assert not answer.startswith(server.welcome), answer
    server.accepts(client_context(authority().pem))


def refuses_1_1(server: Server, directory: pathlib.Path) -> None:
    """A client that can speak TLS 1.1, and proves it, is told that this one does not."""
    client = client_context(versions=(V1_1, V1_1))
    with old_server(directory, V1_1) as address:
        assert speak(address, client, b"x").version == "TLSv1.1"
    why = server.refuses(client)
    assert "VERSION" in why.upper(), why
    assert server.accepts(client_context(versions=(V1_1, V1_2))).version == "TLSv1.2"


def refuses_1_2(server: Server) -> None:
    """For servers of 1.3 alone."""
    why = server.refuses(client_context(versions=(V1_2, V1_2)))
    assert "VERSION" in why.upper(), why
    assert server.accepts(client_context(versions=(V1_2, V1_3))).version == "TLSv1.3"


def refuses_other_ciphers(server: Server) -> None:
    """For servers of `CIPHER` alone, which speak TLS 1.3 nevertheless."""
    why = server.refuses(client_context(versions=(V1_2, V1_2), ciphers=OTHER_CIPHER))
    assert "HANDSHAKE" in why.upper() or "SECURITY" in why.upper(), why
    accepted = server.accepts(client_context(versions=(V1_2, V1_2), ciphers=f"{OTHER_CIPHER}:{CIPHER}"))
    assert (accepted.version, accepted.cipher) == ("TLSv1.2", CIPHER)
    assert server.accepts(client_context()).version == "TLSv1.3"


def is_refused_by_clients(server: Server) -> None:
    """A client with another CA of the same name, and one that looks for another name, turn away."""
    server.accepts(client_context(authority().pem))
    why = server.refuses(client_context(Authority.create(authority().name).pem))
    assert "CERTIFICATE_VERIFY_FAILED" in why, why
    why = dataclasses.replace(server, name="elsewhere").refuses(client_context(authority().pem))
    assert "mismatch" in why, why


# -- oslo.messaging --------------------------------------------------------------------------------------------------


def resolving(directory: pathlib.Path, addresses: typing.Mapping[str, str]) -> tuple[str, ...]:
    """Return the command under which names resolve so: in a mount namespace with a hosts file of its own."""
    if os.geteuid() != 0:
        helpers.skip("making names resolve needs root (a mount namespace with its own /etc/hosts)")
    lines = [f"{address} {name}" for name, address in {"localhost": "127.0.0.1", **addresses}.items()]
    (directory / "hosts").write_text("\n".join(lines) + "\n")
    script = f'mount --bind "{directory}/hosts" /etc/hosts && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, "sh")


def service_file(raw: helpers.Raw, node: str, root: pathlib.Path) -> str:
    """Return what nova's file on ``node`` holds, whose other files are below ``root``."""
    planned = helpers.plan_for(raw, node, helpers.host("nova", prefix=str(root)))
    sections: dict[str, list[str]] = {}
    for s in planned.config_files[0].settings:
        if s.value:
            sections.setdefault(s.section, []).append(f"{s.key} = {s.value.reveal()}")
    return "\n".join(line for name, lines in sections.items() for line in (f"[{name}]", *lines)) + "\n"


def call(within: tuple[str, ...], config: pathlib.Path, seconds: float = 4) -> tuple[str, str]:
    """Make a call there and back as a service configured by ``config`` does; returns (error or '', the log)."""
    asked = {
        "config": [str(config)],
        "seconds": seconds,
        "jobs": [{"half": "rpc", "to": "", "client": "", "server": ""}],
    }
    done = subprocess.run(
        [*within, sys.executable, "-W", "ignore", "-m", "om_agent.probe"],
        input=json.dumps(asked), capture_output=True, text=True, timeout=60, check=True,
        env={**processes.environment(), **overcloud.python_environment()},
    )  # fmt: skip
    (result,) = json.loads(done.stdout)["results"]
    return typing.cast("str", result["error"]), done.stderr


def oslo_refuses(
    within: tuple[str, ...], directory: pathlib.Path, config: str, name: str, alias: str, ca: str, names: bool
) -> dict[str, str]:
    """Have oslo.messaging call with a file as rendered, and with that file wrong in one thing each, which must not
    work; returns its log by that.

    :param name: the server's, as its certificate has it.
    :param alias: another one of the same address.
    :param ca: the CA's file that ``config`` names.
    :param names: whether the driver looks at names at all.
    """
    assert ca in config and f"@{name}:" in config
    other = directory / "other-ca.pem"
    other.write_text(Authority.create(authority().name).pem)
    wrong = {
        "": config,
        "the CA": config.replace(ca, str(other)),
        "the name": config.replace(f"@{name}:", f"@{alias}:"),
        "the password": config.replace(f"@{name}:", f"x@{name}:"),
        # A CA alone makes the AMQP 1.0 driver speak TLS.
        "TLS": re.sub(r"(?m)^ssl(_ca_file)? = .*\n", "", config).replace("ssl=1", "ssl=0"),
    }
    logs = {}
    for what, text in wrong.items():
        path = directory / "service.conf"
        path.write_text(text)
        good = what == "" or (what == "the name" and not names)
        # A call that works takes 5 s and more on a busy machine; one that does not takes all of the time.
        error, logs[what] = call(within, path, 20 if good else 4)
        assert bool(error) is not good, (what, error, logs[what])
    return logs
