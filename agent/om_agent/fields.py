"""What one text of the metadata may be, and when two names or addresses are the same.

Pure. `om_agent.parse` reads the metadata with these checks.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import typing

from om_agent import ciphers

MAX_MESH_PASSWORD_BYTES = 128
MAX_PASSWORD_BYTES = 1024  # saslpasswd2 reads at most 2048 bytes (cyrus-sasl utils/saslpasswd.c PW_BUF_SIZE)
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
# What `ipaddress` takes for an IPv4 address, twenty times as fast: it is asked of every node.
_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(?:\.(?!\Z)|\Z)){4}")
# What inet_aton(3) reads as an IPv4 address, as every resolver does: 127.1, 0x7f.1, 2130706433, 010.0.0.1.
_NUMBERS = re.compile(r"(?:0[xX][0-9A-Fa-f]*|[0-9]*)(?:\.(?:0[xX][0-9A-Fa-f]*|[0-9]*))*")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
# A certificate as OpenSSL reads it, and the empty lines behind it.
_CERTIFICATE = re.compile(
    r"^-----BEGIN ((?:[A-Z0-9 ]+ )?CERTIFICATE)-----[ \t\r]*\n[A-Za-z0-9+/=\s]+"
    r"^-----END \1-----[ \t\r]*(?:\n(?:[ \t\r]*\n)*|\Z)",
    re.MULTILINE | re.ASCII,
)
_BEGINS_CERTIFICATE = re.compile(r"-----BEGIN [A-Z0-9 ]*CERTIFICATE-----")


class Check(typing.NamedTuple):
    """What a text must be.

    :param good: returns whether a text is.
    :param wanted: what a text must be, in words.
    :param code: of the problem that a text has which is not; a key of `om_agent.kinds.KINDS`.
    :param what: names the kind of PEM block, for the sentence of that problem.
    :param short: the same as ``wanted`` in a few words, for the reference.
    :param plain: whether good texts hold little more than letters and digits.
    :param echo: whether a message may repeat a text that is not good. It may not when people are likely to paste a
        secret there: a key next to its certificate, a URL with a password in place of a host.
    :param keep: returns the part of a good text that is used; None for the whole text.
    """

    good: typing.Callable[[str], bool]
    wanted: str
    code: str = "bad-text"
    what: str = ""
    short: str = ""
    plain: bool = False
    echo: bool = True
    keep: typing.Callable[[str], str] | None = None


class Guess(str):
    """The local node's name, found by the host's name among the metadata's names: nobody gave it."""


class Unlisted(Guess):
    """The host's own name, because the metadata has no name for this host."""


def host_key(host: str) -> str:
    """Return the same text for every spelling of one host name or address: DNS ignores case and a dot at the end, and
    ``::ffff:a.b.c.d`` is the IPv4 address a.b.c.d."""
    if ":" in host:
        with contextlib.suppress(ValueError):
            address = ipaddress.IPv6Address(host)
            return str(address.ipv4_mapped or address)
    return host.lower().removesuffix(".")


def first_label(host: str) -> str:
    """Return a host name up to its first dot, in lower case; an address has no such part and is returned whole."""
    key = host_key(host)
    return key if is_address(key) else key.partition(".")[0]


def keys_of(path: str) -> tuple[str, ...]:
    """Return the keys that lead to a place of the metadata: those of ``rpc.nodes[1]`` are ``rpc`` and ``nodes``."""
    return tuple(step.partition("[")[0] for step in path.split("."))


def has_surrogate_or_nul(text: str) -> bool:
    """Return whether ``text`` holds a NUL or half a character, which no program takes."""
    return any(c == "\0" or 0xD800 <= ord(c) <= 0xDFFF for c in text)


def erlang_made(cookie: str) -> bool:
    """Return whether Erlang could have made the cookie: Debian's rabbitmq-server replaces such a cookie."""
    return bool(re.fullmatch(r"[A-Z]{20}", cookie))


def is_address(host: str) -> bool:
    """Return whether ``host`` is an IPv4 or IPv6 address (without brackets or zone) rather than a name."""
    if ":" not in host:
        return bool(_IPV4.fullmatch(host))
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return "%" not in host


def certificates(text: str) -> str:
    """Return the certificates of a PEM text that `CERTIFICATE` accepts, without the text around them.

    Everybody may read the file that they go to, and ``plan`` shows them. OpenSSL puts a harmless description before
    each certificate, but that text could also be a key whose marker is damaged, or a password.
    """
    return "".join(match.group() for match in _CERTIFICATE.finditer(text))


def _is_password(text: str) -> bool:
    return bool(text) and not has_surrogate_or_nul(text) and len(text.encode()) <= MAX_PASSWORD_BYTES


def _is_mesh_password(text: str) -> bool:
    return _is_password(text) and text.isprintable() and len(text.encode()) <= MAX_MESH_PASSWORD_BYTES


def _is_username(text: str) -> bool:
    return bool(text) and _is_virtual_host(text)


def _is_virtual_host(text: str) -> bool:
    return text.isprintable() and len(text) <= 255 and not has_surrogate_or_nul(text)


def _is_path(text: str) -> bool:
    # RabbitMQ replaces $(key) by the value of another key, and reads each byte of UTF-8 as a character of its own.
    return bool(re.fullmatch(r"/[!-~]*", text)) and not set("\"'\\#$`") & set(text)


def _is_word(text: str) -> bool:
    return bool(_WORD.fullmatch(text))


def _is_cookie(text: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9_+/=-]{8,255}", text))


def _is_host(text: str) -> bool:
    return is_address(text) or (len(text) <= 253 and not _NUMBERS.fullmatch(text) and bool(_HOST_NAME.fullmatch(text)))


def _is_certificate(text: str) -> bool:
    if "PRIVATE KEY-----" in text:
        return False
    good, begun = len(_CERTIFICATE.findall(text)), len(_BEGINS_CERTIFICATE.findall(text))
    return good > 0 and good == begun


def _is_key(text: str) -> bool:
    # No two parts that follow each other may take the same characters, or the search is quadratic.
    block = (
        r"^-----BEGIN ([A-Z0-9 ]+ )?PRIVATE KEY-----[ \t\r]*\n[^-]+^-----END ([A-Z0-9 ]+ )?PRIVATE KEY-----[ \t\r]*$"
    )
    return bool(re.search(block, text, re.MULTILINE)) and text.isascii() and "\0" not in text


PASSWORD = Check(_is_password, f"1 to {MAX_PASSWORD_BYTES} bytes of UTF-8 without NUL", echo=False)
MESH_PASSWORD = Check(
    _is_mesh_password, f"1 to {MAX_MESH_PASSWORD_BYTES} bytes of UTF-8 without control characters", echo=False
)
USERNAME = Check(_is_username, "1 to 255 printable characters")
VIRTUAL_HOST = Check(_is_virtual_host, "at most 255 printable characters")
PATH = Check(
    _is_path,
    "an absolute path of ASCII without spaces, quotes, backslash, # or $",
    short="an absolute path",
    plain=True,
)
WORD = Check(_is_word, "up to 64 letters, digits, dots, hyphens and underscores", plain=True)
COOKIE = Check(
    _is_cookie,
    "8 to 255 letters, digits and _+/=-",
    short="8 to 255 letters, digits and ``_+/=-``",
    plain=True,
    echo=False,
)
HOST = Check(
    _is_host,
    "a host name, an IPv4 or an IPv6 address, without port, brackets or zone",
    "not-a-host",
    short="a host name or address",
    echo=False,
)
CERTIFICATE = Check(
    _is_certificate,
    "PEM text with a line -----BEGIN CERTIFICATE----- and its END",
    "not-pem",
    "CERTIFICATE",
    short="PEM text",
    echo=False,
    keep=certificates,
)
PRIVATE_KEY = Check(
    _is_key,
    "PEM text with a line -----BEGIN PRIVATE KEY----- and its END",
    "not-pem",
    "PRIVATE KEY",
    short="PEM text",
    echo=False,
)
CIPHER = Check(ciphers.NAMES.__contains__, ", ".join(ciphers.NAMES), "not-a-cipher", short="a cipher suite")
