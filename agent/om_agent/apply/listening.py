"""Find out what listens at an address, and which certificate it shows."""

from __future__ import annotations

import pathlib
import socket
import time

from om_agent import errors
from om_agent.apply import results

_PORT_SECONDS = 5.0
POLL = 0.05


def wait_for_port(host: str, port: int, listening: bool, seconds: float = _PORT_SECONDS) -> None:
    """Wait until something listens there, or until nothing does.

    :raises om_agent.apply.results.NotAsTold: when that takes too long.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=2).close()
            open_ = True
        except OSError:
            open_ = False
        if open_ is listening:
            return
        if time.monotonic() >= deadline:
            raise results.NotAsTold(f"{'nothing' if listening else 'something'} listens at {errors.where(host, port)}")
        time.sleep(POLL)


def check_certificate(host: str, port: int, wanted: bytes) -> None:
    """Check the certificate that a listener shows.

    :raises om_agent.apply.results.NotAsTold: when it is not the one that is wanted.
    """
    shown = served_certificate(host, port)
    if shown is None or shown != first_certificate(wanted.decode(errors="replace")):
        raise results.NotAsTold(f"it still shows its old certificate at port {port}")


def first_certificate(text: str) -> bytes | None:
    """Return the first certificate of a PEM text as DER."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    if begin not in text or end not in text:
        return None
    import ssl  # only where a running router or broker has a certificate

    try:
        return ssl.PEM_cert_to_DER_cert(text[text.index(begin) : text.index(end) + len(end)])
    except ValueError:
        return None


def shows_another(host: str, port: int, file: pathlib.Path) -> bool:
    """Return whether a TLS listener shows another certificate than the first one of a file.

    Return false when one of the two cannot be read, which is reported elsewhere.
    """
    try:
        content = file.read_bytes() if file.is_file() else b""
    except OSError:
        return False
    wanted = first_certificate(content.decode(errors="replace"))
    served = served_certificate(host, port) if wanted else None
    return served is not None and served != wanted


def served_certificate(host: str, port: int, seconds: float = _PORT_SECONDS) -> bytes | None:
    """Return the certificate that a TLS listener shows, as DER; None when there is none."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), timeout=seconds) as plain, context.wrap_socket(plain) as secure:
            return secure.getpeercert(binary_form=True)
    except OSError:
        return None
