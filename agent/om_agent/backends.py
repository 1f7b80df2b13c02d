"""The kinds of backend, by the values of ``scheme``: one record says what distinguishes a kind from the others."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Record:
    """A kind of backend.

    :param server: the program that nodes run for it, in one word; also the name of its section in the metadata.
    :param port: the port for clients, unless the metadata names another.
    :param section: the section of a service's file that oslo.messaging's driver reads.
    :param mechanism: the option of that section that names the SASL mechanism.
    :param says_mechanism: whether the agent always writes that option. Otherwise it writes the option only where
        services log in with a certificate, since the driver has the right default.
    :param shared: keys of a half that must be the same in both halves where the same servers carry both.
    :param one_network: whether the servers of both halves find each other, and so must be the same.
    :param runs_on_every_node: whether a service connects to the server on its own node, and to no other.
    :param declares_queues: whether services declare queues there, so that the driver has options about their type.
    :param driver_removed_in: the release of oslo.messaging that removed the driver; None while it has one.
    """

    server: str
    port: int
    section: str
    mechanism: str
    says_mechanism: bool
    shared: tuple[str, ...]
    one_network: bool
    runs_on_every_node: bool
    declares_queues: bool
    driver_removed_in: tuple[int, ...] | None


RECORDS = {
    "rabbit": Record(
        server="broker",
        port=5672,
        section="oslo_messaging_rabbit",
        mechanism="rabbit_login_method",
        says_mechanism=False,
        shared=("tls", "port"),
        one_network=False,
        runs_on_every_node=False,
        declares_queues=True,
        driver_removed_in=None,
    ),
    "amqp": Record(
        server="router",
        port=31459,
        section="oslo_messaging_amqp",
        mechanism="sasl_mechanisms",
        says_mechanism=True,
        shared=("tls",),  # a router has a listener for each port
        one_network=True,
        runs_on_every_node=True,
        declares_queues=False,
        driver_removed_in=(15,),  # its release notes, 2025.1
    ),
}
