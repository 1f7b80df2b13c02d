"""TCP sockets on this machine: are they free, does something listen."""

from __future__ import annotations

import collections.abc
import socket

from testbed import errors

Address = tuple[str, int]


def show(address: Address) -> str:
    """Return ``HOST:PORT``."""
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def is_open(address: Address) -> bool:
    """Return whether something listens there."""
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


def refusal(address: Address) -> str:
    """Return why nothing could listen there, '' when it could."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)
            sock.listen()
        except OSError as e:
            return e.strerror or str(e)
    return ""


def check_free(wanted: collections.abc.Mapping[Address, str]) -> None:
    """Check that every socket can be had.

    :param wanted: by address, what for.
    :raises testbed.errors.TestbedError: naming the first that cannot, and how many more.
    """
    refused = [(address, why) for address in wanted for why in [refusal(address)] if why]
    if refused:
        address, why = refused[0]
        more = f", nor can {len(refused) - 1} more" if len(refused) > 1 else ""
        raise errors.TestbedError(
            f"{show(address)}, wanted for {wanted[address]}, cannot be had ({why.lower()}){more}: "
            f"end what listens there, or give the metadata another address or port."
        )
