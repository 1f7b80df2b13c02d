"""The record of one router engine: what distinguishes it from the others."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Record:
    """A router engine.

    :param program: the name of the program, of its systemd unit, user and group, and of its Cyrus SASL configuration.
    :param directory: the directory of its configuration.
    :param product: the product name that it announces when it opens a connection.
    :param prefix: the start of the names of its management entity types.
    :param statistics: the management entity that counts deliveries.
    :param meshes: whether it connects to other routers.
    :param only_plain: whether services can log in only with PLAIN.
    :param changes: whether listeners, connectors and addresses can be created and deleted while it runs.
    :param caches_tls: whether it reads certificates only at the start and when the sslProfile is updated, and not for
        every connection.
    :param repeats_fanouts: whether a fanout arrives more than once in a mesh of more than two interior routers.
    :param interior_connections: how many connections it opens to one other interior router.
    """

    program: str
    directory: str
    product: str
    prefix: str
    statistics: str
    meshes: bool
    only_plain: bool
    changes: bool
    caches_tls: bool
    repeats_fanouts: bool
    interior_connections: int

    @property
    def unit(self) -> str:
        """The systemd unit, without ``.service``."""
        return self.program

    @property
    def user(self) -> str:
        """The user and the group that it runs as."""
        return self.program

    @property
    def config(self) -> str:
        """Path of its configuration."""
        return f"{self.directory}/{self.program}.json"

    @property
    def sasl_dir(self) -> str:
        """Directory of the Cyrus configuration; the agent has its own, so that it never edits a package's file."""
        return self.directory + "/sasl2"

    @property
    def sasl_config(self) -> str:
        """Path of the Cyrus configuration. The library looks for a file with the program's name."""
        return f"{self.sasl_dir}/{self.program}.conf"

    @property
    def sasl_database(self) -> str:
        """Path of users and passwords."""
        return self.sasl_dir + "/users.sasldb"

    def tls(self, name: str) -> str:
        """Path of ``ca``, ``certificate`` or ``key`` when the metadata holds PEM text."""
        return f"{self.directory}/tls/{name}.pem"

    def mesh(self, name: str) -> str:
        """Path of ``ca``, ``certificate`` or ``key`` for other routers, unless the metadata names files."""
        return f"{self.directory}/mesh/{name}.pem"
