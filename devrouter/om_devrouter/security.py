"""TLS and SASL of a listener, set up in proton.

The rules are qpid-dispatch 1.19's (``src/server.c``, listener_ssl and AMQP_open; ``src/connection_manager.c``).
"""

from __future__ import annotations

import os
import ssl
from typing import Any

import cproton
import proton

from om_devrouter import config, errors

#: Mechanisms that proton can serve without Cyrus SASL.
_BUILT_IN = frozenset(("ANONYMOUS", "EXTERNAL"))


class Security:
    """What every new connection of one listener gets. Making it checks files; later calls cannot fail for them."""

    def __init__(self, listener: config.Listener, settings: config.Config) -> None:
        self._listener = listener
        self._settings = settings
        self._domain = _domain(listener) if listener.ssl_profile is not None else None
        _check_sasl(listener, settings)

    def apply(self, transport: Any) -> None:
        """Set up a server transport before its first byte."""
        sasl = transport.sasl()
        # Cyrus is initialised once per process, with the first of these; there is one router, so they are all equal.
        if self._settings.sasl_config_dir is not None:
            sasl.config_path(self._settings.sasl_config_dir)
        sasl.config_name(self._settings.sasl_config_name)
        if self._listener.sasl_mechanisms:
            sasl.allowed_mechs(" ".join(self._listener.sasl_mechanisms))
        sasl.allow_insecure_mechs = not self._listener.require_encryption
        transport.require_auth(self._listener.authenticate_peer)
        transport.require_encryption(self._listener.require_encryption)
        if self._domain is not None:
            proton.SSL(transport, self._domain)


def _check_sasl(listener: config.Listener, settings: config.Config) -> None:
    wanted = [name for name in listener.sasl_mechanisms if name not in _BUILT_IN]
    if not wanted:
        return
    if not proton.SASL.extended():
        raise errors.DevRouterError(
            f"listener {listener.name!r}: proton has no Cyrus SASL here and cannot serve {', '.join(wanted)}."
        )
    directory, name = settings.sasl_config_dir, settings.sasl_config_name
    if directory is not None and not os.access(os.path.join(directory, name + ".conf"), os.R_OK):
        raise errors.DevRouterError(f"router: cannot read {name}.conf in saslConfigDir {directory}.")


def _domain(listener: config.Listener) -> Any:
    profile = listener.ssl_profile
    assert profile is not None
    password = _password(profile)
    _check_files(profile, password)
    domain = proton.SSLDomain(proton.SSLDomain.MODE_SERVER)
    try:
        domain.set_credentials(profile.cert_file, profile.private_key_file, password)
        if profile.ca_cert_file is not None:
            domain.set_trusted_ca_db(profile.ca_cert_file)
        if listener.authenticate_peer and "EXTERNAL" in listener.sasl_mechanisms:
            domain.set_peer_authentication(proton.SSLDomain.VERIFY_PEER, profile.ca_cert_file)
        if not listener.require_ssl:
            domain.allow_unsecured_client()
    except proton.SSLException:
        raise errors.DevRouterError(f"sslProfile {profile.name!r}: TLS refuses these files.") from None
    # The Python class has no method for these two; the C functions below it are part of proton's public API.
    impl = domain._domain
    if profile.ciphers is not None and cproton.pn_ssl_domain_set_ciphers(impl, profile.ciphers) != 0:
        raise errors.DevRouterError(f"sslProfile {profile.name!r}: TLS refuses these ciphers.")
    if profile.protocols is not None and cproton.pn_ssl_domain_set_protocols(impl, profile.protocols) != 0:
        raise errors.DevRouterError(f"sslProfile {profile.name!r}: TLS refuses these protocols.")
    return domain


def _check_files(profile: config.SslProfile, password: str | None) -> None:
    """Proton's own message would not say which file is wrong, nor why."""
    files: dict[str, str | None] = {
        "certFile": profile.cert_file,
        "privateKeyFile": profile.private_key_file,
        "caCertFile": profile.ca_cert_file,
    }
    for attribute, path in files.items():
        if path is not None and not (os.path.isfile(path) and os.access(path, os.R_OK)):
            raise errors.DevRouterError(f"sslProfile {profile.name!r}: cannot read {attribute} {path}.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password given, an empty one: OpenSSL would ask at the terminal otherwise.
        context.load_cert_chain(profile.cert_file, profile.private_key_file, lambda: password or "")
    except (OSError, ValueError):
        raise errors.DevRouterError(
            f"sslProfile {profile.name!r}: certFile and privateKeyFile are not a certificate and its key."
        ) from None
    if profile.ca_cert_file is not None:
        try:
            context.load_verify_locations(profile.ca_cert_file)
        except (OSError, ValueError):
            raise errors.DevRouterError(f"sslProfile {profile.name!r}: caCertFile holds no certificates.") from None


def _password(profile: config.SslProfile) -> str | None:
    """The key's password, from the forms that qdrouterd knows: file:, env:, pass:, literal:, or as it stands."""
    source = profile.password
    if profile.password_file is not None:
        source = "file:" + profile.password_file
    if source is None:
        return None
    kind, _, rest = source.partition(":")
    if kind == "env":
        if rest not in os.environ:
            raise errors.DevRouterError(f"sslProfile {profile.name!r}: password names an unset variable.")
        return os.environ[rest]
    if kind == "file":
        try:
            with open(rest, encoding="utf-8") as stream:
                return stream.readline().rstrip("\n")
        except (OSError, ValueError):
            raise errors.DevRouterError(f"sslProfile {profile.name!r}: cannot read its password file.") from None
    return rest if kind in ("pass", "literal") else source
