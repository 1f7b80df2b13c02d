"""One mapping of the metadata, read key by key, and what its texts may be.

Pure. What is wrong is noted as a problem at its path and a value that is good is returned in its place, so that one
run tells of everything.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import re
import typing

from om_agent import ciphers, errors, kinds

_MAX_SEARCHED = 4096  # characters of a text that is not good in which to look for the reason
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
_TRUE = frozenset(("true", "yes", "on", "1", "t", "y"))
_FALSE = frozenset(("false", "no", "off", "0", "f", "n", ""))


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


class Section:
    """One mapping of the metadata, read key by key; problems go to the list that all sections share."""

    def __init__(self, raw: object, path: str, problems: list[errors.Problem]) -> None:
        self.path = path
        self.problems = problems
        self._asked: list[str] = []
        self._raw: dict[object, object] = {}
        if isinstance(raw, dict):
            self._raw = raw
        elif raw is not None:
            self.fail("", "wrong-type", found=type_name(raw), wanted="a mapping")

    def at(self, key: str) -> str:
        """Return the path of ``key`` below this section."""
        return ".".join(p for p in (self.path, key) if p)

    def fail(self, key: str, code: str, /, **values: object) -> None:
        """Note a problem at ``key``."""
        self.problems.append(kinds.problem(self.at(key), code, **values))

    def has(self, key: str) -> bool:
        """Return whether ``key`` is given."""
        return self.raw(key) is not None

    def raw(self, key: str) -> object:
        """Return the raw value of ``key``, or None; null and '' count as not given, since Heat's optional parameters
        are '' by default."""
        self._asked.append(key)
        value = self._raw.get(key)
        return None if value == "" else value

    def section(self, key: str) -> Section:
        """Return the mapping at ``key``, empty when absent."""
        return Section(self.raw(key), self.at(key), self.problems)

    def text(self, key: str, default: str = "", check: typing.Callable[[str], str] | None = None) -> str:
        """Return the text at ``key``; ``check`` returns what is wanted when the text is not good, else ''."""
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self.fail(key, "wrong-type", found=type_name(value), wanted="text (in quotes)")
            return default
        if check and check(value):
            self.fail_text(key, value, check)
            return default
        return value

    def fail_text(self, key: str, value: str, check: typing.Callable[[str], str]) -> None:
        """Note that ``check`` does not accept the text at ``key``."""
        code, what = ("empty", "") if not value else _TEXT_CODES.get(check, ("bad-text", ""))
        if check is check_certificate and "PRIVATE KEY-----" in value:
            code = "key-in-certificate"
        which = _odd_character(value[:_MAX_SEARCHED], check in _PLAIN_CHECKS) if code == "bad-text" else ""
        self.fail(key, code, which=which, wanted=check(value), what=what)

    def password(self, key: str) -> str:
        """Return the password at ``key``, '' when absent or bad."""
        return self.text(key, check=check_password)

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        """Return the whole number at ``key``; digits in quotes are taken too, since Heat delivers those."""
        value = self.raw(key)
        if value is None:
            return default
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value.strip()):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(key, "wrong-type", found=type_name(value), wanted="a whole number")
            return default
        if not low <= value <= high:
            self.fail(key, "out-of-range", low=low, high=high)
            return default
        return value

    def port(self, key: str, default: int) -> int:
        """Return the TCP port at ``key``."""
        return self.integer(key, default, 1, 65535)

    def boolean(self, key: str, default: bool) -> bool:
        """Return the truth value at ``key``; Heat's and hiera's spellings of it are taken too."""
        value = self.raw(key)
        if value is None:
            return default
        said = truth(value)
        if said is None:
            self.fail(key, "wrong-type", found=type_name(value), wanted="true or false")
            return default
        return said

    def word(self, key: str, default: str, known: typing.Sequence[str]) -> str:
        """Return one of ``known``."""
        value = self.text(key, default)
        if value in known:
            return value
        self.fail(key, "not-one-of", known=", ".join(known))
        return default

    def names(self, key: str, check: typing.Callable[[str], str], what: str) -> tuple[str, ...] | None:
        """Return the list of distinct names at ``key``, or None when absent."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, list):
            self.fail(key, "wrong-type", found=type_name(value), wanted="a list")
            return None
        if not value:
            self.fail(key, "empty-list", what=what)
        good: dict[str, int] = {}
        seen: dict[str, int] = {}
        for i, item in enumerate(value):
            at = f"{key}[{i}]"
            if not isinstance(item, str):
                self.fail(at, "wrong-type", found=type_name(item), wanted="text (in quotes)")
            elif check(item):
                self.fail_text(at, item, check)
            else:
                first = seen.setdefault(host_key(item) if check is check_host else item, i)
                if first == i:
                    good[item] = i
                else:
                    code = "twice" if item in good or is_address(item) else "same-name"
                    self.fail(at, code, name=errors.quoted(item), first=self.at(f"{key}[{first}]"))
        return tuple(good)

    def done(self) -> None:
        """Note every key that nobody asked for."""
        for key in self._raw:
            if key not in self._asked:
                known = ", ".join(sorted(set(self._asked)))
                self.fail("", "unknown-key", key=errors.key_name(key), known=known)


def truth(value: object) -> bool | None:
    """Return what a truth value says in any of Heat's and hiera's spellings, None for anything else."""
    if isinstance(value, int):
        return bool(value) if value in (0, 1) else None
    word = value.lower() if isinstance(value, str) else None
    if word in _TRUE:
        return True
    return False if word in _FALSE else None


def type_name(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "number that is not finite"
    names = {dict: "mapping", list: "list", str: "text", bool: "truth value", int: "number", float: "number"}
    return names.get(type(value), "null" if value is None else type(value).__name__)


def _odd_character(text: str, plain: bool) -> str:
    """Return a description of the first character that a check may not have accepted, without repeating the text.

    :param plain: whether the check accepts little more than letters and digits.
    """
    tests: list[typing.Callable[[str], bool]] = [_has_surrogate_or_nul, lambda c: not c.isprintable()]
    if plain:
        tests.append(lambda c: not (c.isascii() and (c.isalnum() or c in "._-/+=")))
    for test in tests:
        for i, c in enumerate(text):
            if test(c):
                return f"U+{ord(c):04X} at position {i + 1}"
    return "its form or length"


def _has_surrogate_or_nul(text: str) -> bool:
    return any(c == "\0" or 0xD800 <= ord(c) <= 0xDFFF for c in text)


def check_password(text: str) -> str:
    wanted = f"1 to {MAX_PASSWORD_BYTES} bytes of UTF-8 without NUL"
    if not text or _has_surrogate_or_nul(text):
        return wanted
    return "" if len(text.encode()) <= MAX_PASSWORD_BYTES else wanted


def check_mesh_password(text: str) -> str:
    good = not check_password(text) and text.isprintable() and len(text.encode()) <= MAX_MESH_PASSWORD_BYTES
    return "" if good else f"1 to {MAX_MESH_PASSWORD_BYTES} bytes of UTF-8 without control characters"


def check_username(text: str) -> str:
    good = text and text.isprintable() and len(text) <= 255 and not _has_surrogate_or_nul(text)
    return "" if good else "1 to 255 printable characters"


def check_virtual_host(text: str) -> str:
    good = (not text or text.isprintable()) and len(text) <= 255 and not _has_surrogate_or_nul(text)
    return "" if good else "at most 255 printable characters"


def check_path(text: str) -> str:
    # RabbitMQ puts another key's value in the place of $(key), and takes the bytes of UTF-8 for characters, each.
    good = re.fullmatch(r"/[!-~]*", text) and not set("\"'\\#$`") & set(text)
    return "" if good else "an absolute path of ASCII without spaces, quotes, backslash, # or $"


def check_word(text: str) -> str:
    return "" if _WORD.fullmatch(text) else "up to 64 letters, digits, dots, hyphens and underscores"


def check_cookie(text: str) -> str:
    return "" if re.fullmatch(r"[A-Za-z0-9_+/=-]{8,255}", text) else "8 to 255 letters, digits and _+/=-"


def erlang_made(cookie: str) -> bool:
    """Return whether Erlang could have made the cookie: Debian's rabbitmq-server replaces such a one."""
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


def check_host(text: str) -> str:
    name = len(text) <= 253 and not _NUMBERS.fullmatch(text) and _HOST_NAME.fullmatch(text)
    return "" if is_address(text) or name else "a host name, an IPv4 or an IPv6 address, without port, brackets or zone"


def check_certificate(text: str) -> str:
    if "PRIVATE KEY-----" in text:
        return "certificates alone"
    good, begun = len(_CERTIFICATE.findall(text)), len(_BEGINS_CERTIFICATE.findall(text))
    return "" if good and good == begun else _wanted_pem("CERTIFICATE")


def certificates(text: str) -> str:
    """Return the certificates of a PEM text that `check_certificate` accepts, without what stands around them.

    Everybody may read where they are written and ``plan`` shows them. OpenSSL puts a description before each, which
    does no harm, but the like may as well be a key whose marker is damaged, or a password.
    """
    return "".join(match.group() for match in _CERTIFICATE.finditer(text))


def check_key(text: str) -> str:
    return _check_pem(text, "PRIVATE KEY")


def check_cipher(text: str) -> str:
    return "" if text in ciphers.NAMES else ", ".join(ciphers.NAMES)


def _check_pem(text: str, what: str) -> str:
    # No two parts that follow each other may take the same characters, or the search is quadratic.
    block = rf"^-----BEGIN ([A-Z0-9 ]+ )?{what}-----[ \t\r]*\n[^-]+^-----END ([A-Z0-9 ]+ )?{what}-----[ \t\r]*$"
    good = re.search(block, text, re.MULTILINE) and text.isascii() and "\0" not in text
    return "" if good else _wanted_pem(what)


def _wanted_pem(what: str) -> str:
    return f"PEM text with a line -----BEGIN {what}----- and its END"


# What is said when a check does not accept a text: the code, and what it speaks of.
_TEXT_CODES: dict[typing.Callable[[str], str], tuple[str, str]] = {
    check_host: ("not-a-host", ""),
    check_cipher: ("not-a-cipher", ""),
    check_certificate: ("not-pem", "CERTIFICATE"),
    check_key: ("not-pem", "PRIVATE KEY"),
}
_PLAIN_CHECKS = (check_path, check_word, check_cookie)
