"""What is true of one router program, and of no other."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Record:
    """A router engine.

    :param program: its name, and that of its systemd unit, its user and group, and its Cyrus SASL configuration.
    :param directory: of its configuration.
    :param product: as which it opens connections.
    :param prefix: of its management entity types.
    :param statistics: the management entity that counts deliveries.
    :param meshes: whether it connects to other routers.
    :param only_plain: whether services can log in with PLAIN alone.
    :param changes: whether listeners, connectors and addresses can be created and deleted while it runs.
    :param caches_tls: whether it reads certificates once and again when the sslProfile is updated, and not for every
        connection.
    :param repeats_fanouts: whether a fanout comes more than once in a mesh of more than two interior routers.
    :param interior_connections: that it opens to one other interior router.
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
        """Directory of the Cyrus configuration, our own so that a package's file is never edited."""
        return self.directory + "/sasl2"

    @property
    def sasl_config(self) -> str:
        """Path of the Cyrus configuration: the library looks for one of the program's name."""
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
