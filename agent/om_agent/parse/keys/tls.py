"""The keys of ``tls``."""

from __future__ import annotations

from om_agent import fields, model
from om_agent.parse import mapping, values

TLS: mapping.Keys = (
    mapping.Key(
        "ca_file",
        values.Text(fields.PATH),
        "The authorities that peers are verified with.",
        default="",
        default_text="the system's own authorities",
    ),
    mapping.Key(
        "certificate_file",
        values.Text(fields.PATH),
        "The certificate of the node's router and broker; needs ``tls.key_file``.",
        default="",
    ),
    mapping.Key(
        "key_file",
        values.Text(fields.PATH),
        "The key of that certificate.",
        default="",
    ),
    mapping.Key(
        "ca",
        values.Text(fields.CERTIFICATE),
        "The authorities as text.",
        default="",
    ),
    mapping.Key(
        "certificate",
        values.Text(fields.CERTIFICATE),
        "The certificate as text; needs ``tls.key``.",
        default="",
    ),
    mapping.Key(
        "key",
        values.Text(fields.PRIVATE_KEY),
        "The key as text, without a password.",
        default=model.NO_SECRET,
        secret=True,
    ),
    mapping.Key(
        "min_version",
        values.Word(model.TlsVersion),
        "The oldest version that routers and brokers speak with clients, and brokers with each other; a text, in "
        "quotes. Routers speak 1.3 with each other.",
        default=model.TlsVersion.TLS_1_2,
    ),
    mapping.Key(
        "ciphers",
        values.Names(fields.CIPHER, "cipher suite"),
        "The cipher suites of TLS 1.2, as OpenSSL calls them, out of those below. Those of TLS 1.3 cannot be "
        "chosen: the engines have no setting for them.",
        default=(),
        default_text="the engines' own",
    ),
)
