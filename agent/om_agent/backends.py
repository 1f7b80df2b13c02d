"""What is true of one kind of backend, and of no other; the kinds are the values of ``scheme``."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Record:
    """A kind of backend.

    :param server: what runs on nodes for it, in one word; the metadata's section of its settings is called so too.
    :param port: of its clients, unless the metadata says another.
    :param section: of a service's file, which oslo.messaging's driver reads.
    :param mechanism: the option of that section which names the SASL mechanism.
    :param says_mechanism: whether that option is always written; the driver knows the mechanism by itself otherwise,
        unless services log in with a certificate.
    :param shared: keys of the two halves that must be alike where the same servers carry both.
    :param one_network: whether the servers of both halves find each other, and so must be the same.
    """

    server: str
    port: int
    section: str
    mechanism: str
    says_mechanism: bool
    shared: tuple[str, ...]
    one_network: bool


RECORDS = {
    "rabbit": Record(
        server="broker",
        port=5672,
        section="oslo_messaging_rabbit",
        mechanism="rabbit_login_method",
        says_mechanism=False,
        shared=("tls", "port"),
        one_network=False,
    ),
    "amqp": Record(
        server="router",
        port=31459,
        section="oslo_messaging_amqp",
        mechanism="sasl_mechanisms",
        says_mechanism=True,
        shared=("tls",),  # a router has a listener for each port
        one_network=True,
    ),
}
