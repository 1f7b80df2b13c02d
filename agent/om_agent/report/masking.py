"""Remove passwords from values, keys and lines of a diff."""

from __future__ import annotations

import re

from om_agent import model

# A transport URL in which all hosts have a user and a password, or none has: only then is it clear which part is the
# password. Without a login, "a:b" may be a host and its port, or a user and a password. So it must clearly be a host.
_ADDRESS = r"(?:[0-9]+(?:\.[0-9]+){3}|\[[0-9A-Fa-f:.]+\])"
_HOST = rf"(?:[A-Za-z0-9._-]+|{_ADDRESS})(?::[0-9]+)?"
_PORT = rf"(?:5671|{model.RABBIT_PORT}|{model.AMQP_PORT})"
_PLAIN_HOST = rf"(?:{_ADDRESS}(?::[0-9]+)?|[A-Za-z0-9._-]+(?::{_PORT})?)"
_USER = r"[A-Za-z0-9._~%-]*"
_QUERY = r"(?:ssl|ssl_ca_file|sasl_default_realm)=[^&@\s]*"  # any other option may be a password
_LOGIN = rf"{_USER}:[^@/,:\s]*@"
_URL = re.compile(
    rf"[a-z][a-z0-9+]*://(?:{_LOGIN}{_HOST}(?:,{_LOGIN}{_HOST})*|{_PLAIN_HOST}(?:,{_PLAIN_HOST})*)"
    rf"(?:/[^:@?\s]*)?(?:\?{_QUERY}(?:&{_QUERY})*)?"
)
_URLS = ("transport_url", "url")  # keys whose value is always a URL
_PASSWORD = re.compile(rf"(?<=[/,])({_USER}):[^@/,:\s]*@")


def mask(value: str) -> str:
    """Return ``value`` without the passwords of a transport URL; ``***`` when it only resembles a URL."""
    if _URL.fullmatch(value):
        return _PASSWORD.sub(r"\1:***@", value)
    return "***" if "://" in value or "@" in value else value


def mask_key(detail: str, value: str) -> str:
    """Return the value of a key without passwords. Nothing of a malformed URL is shown.

    A forgotten slash is enough to put a password where `mask` does not expect one.

    :param detail: the key, as ``[section] key``.
    """
    url = detail.rpartition(" ")[2] in _URLS
    return "***" if url and value and not _URL.fullmatch(value) else mask(value)


def mask_line(line: str) -> str:
    """Return a line of a diff. For a removed line, which may not be from this program, only its key is shown."""
    if not line.startswith("-"):
        return line
    key = re.match(r"-\s*[\w.-]+\s*(?==\s*[^=\s])", line)  # the end of a key in base64 looks like one
    return (key.group() if key else "- ") + ("= ***" if key else "***")
