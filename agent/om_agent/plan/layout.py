"""Name the paths, users and units on a node; `om_agent.engines` has those of routers.

Source of RabbitMQ's paths: Debian's package rabbitmq-server.
"""

from __future__ import annotations

import dataclasses
import re
import typing

from om_agent import model

STATE_DIR = "/var/lib/om-agent"
CONFIG_DIR = "/etc/om-agent"
HIERADATA = CONFIG_DIR + "/hieradata/messaging.json"
HIERA_CONFIG = CONFIG_DIR + "/hiera.yaml"
CA_FILE = CONFIG_DIR + "/tls/ca.pem"

# The environment of every router's process. proton trusts the system's CAs in addition to the CA file that it gets
# (qpid-proton 0.40, c/src/ssl/openssl.c, pni_init_ssl_domain), so a certificate of any of them could join the mesh.
ROUTER_ENVIRONMENT = {"SSL_CERT_FILE": "/dev/null", "SSL_CERT_DIR": "/dev/null"}

RABBIT_USER = "rabbitmq"
RABBIT_UNIT = "rabbitmq-server"
RABBIT_DIR = "/etc/rabbitmq"
RABBIT_DEFINITIONS = RABBIT_DIR + "/definitions.json"
RABBIT_DISTRIBUTION = RABBIT_DIR + "/distribution-tls.config"
RABBIT_TLS = {name: f"{RABBIT_DIR}/tls/{name}.pem" for name in ("ca", "certificate", "key")}  # when given as PEM
RABBIT_COOKIE = "/var/lib/rabbitmq/.erlang.cookie"


class Required(typing.NamedTuple):
    """A file that the operator must provide.

    :param what: what needs it.
    :param key: the metadata key that names it.
    """

    path: str
    what: str
    key: str


@dataclasses.dataclass(frozen=True)
class Credential:
    """A CA, certificate or key: a path on the node, or PEM text; neither when the metadata has none.

    :param key: the metadata key that gives it.
    """

    key: str
    path: str = ""
    text: model.Secret = model.NO_SECRET

    @property
    def where(self) -> str:
        """Return how messages name it."""
        return self.path or self.key


@dataclasses.dataclass(frozen=True)
class Server:
    """A server or client on this node that has a certificate.

    :param what: ``router``, ``broker`` or ``clients``.
    :param names: names that the certificate must contain.
    :param exact: more such names, which a wildcard does not cover.
    :param peer: whether the server presents the certificate as a client too, to its peers.
    :param user: the user name that a client logs in with; '' for a server.
    """

    what: str
    names: tuple[str, ...]
    exact: tuple[str, ...]
    peer: bool
    ca: Credential
    certificate: Credential
    key: Credential
    user: str = ""


def server(what: str, tls: model.Tls, names: tuple[str, ...], exact: tuple[str, ...] = ()) -> Server:
    """Return a server with the certificate of ``tls``; a server with exact names is a client of its peers too."""
    return Server(
        what=what,
        names=names,
        exact=exact,
        peer=bool(exact),
        ca=Credential("tls.ca", tls.ca_file, model.Secret(tls.ca)),
        certificate=Credential("tls.certificate", tls.certificate_file, model.Secret(tls.certificate)),
        key=Credential("tls.key", tls.key_file, tls.key),
    )


@dataclasses.dataclass(frozen=True)
class Host:
    """The facts of the machine that a plan is for; `om_agent.host_facts` collects them, so that planning stays pure.

    :param family: ``debian`` or ``redhat``.
    :param directories: the catalogue's directories that exist.
    :param existing: (permission bits, uid, gid) of the catalogue's files that exist, by path.
    :param paste_sections: (path, section) of the catalogue's paste files that exist.
    :param paste_filters: (path, section) of the sections that use the same module as the catalogue's filter, whatever
        their names are.
    :param uids: user ids by name.
    :param gids: group ids by name.
    :param uid: id of the user who runs the agent; this user owns a new file whose owner is unknown.
    :param gid: id of that user's group.
    :param prefix: put before every path *inside* a file: empty, or the root directory when daemons run from it without
        chroot.
    :param target: put before every path that is written or edited: the root directory, or empty.
    :param manage_services: whether the agent may restart units here.
    :param broker_version: version of the RabbitMQ package, as ``4.0.5``; '' when there is none or it is unknown.
    :param release: the distribution and its version, as ``debian 13``; '' when it is unknown.
    :param queue_options: names of the options about queues that the last apply wrote for services here.
    :param oslo_messaging: version of the oslo.messaging that packaged services import; '' when there is none.
    :param drivers: by path of a service's file, the driver sections in it that the last apply wrote.
    :param texts: the texts of the last apply, by digest of template and values (`om_agent.templating`).
    """

    family: str = "debian"
    directories: frozenset[str] = frozenset()
    existing: dict[str, tuple[int, int, int]] = dataclasses.field(default_factory=dict)
    paste_sections: frozenset[tuple[str, str]] = frozenset()
    paste_filters: frozenset[tuple[str, str]] = frozenset()
    uids: dict[str, int] = dataclasses.field(default_factory=dict)
    gids: dict[str, int] = dataclasses.field(default_factory=dict)
    uid: int | None = None
    gid: int | None = None
    prefix: str = ""
    target: str = ""
    manage_services: bool = True
    broker_version: str = ""
    oslo_messaging: str = ""
    drivers: typing.Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    release: str = ""
    queue_options: tuple[str, ...] = ()
    texts: typing.Mapping[str, str] = dataclasses.field(default_factory=dict)

    def inside(self, path: str) -> str:
        """Return ``path`` as the content of a file must name it."""
        return self.prefix + path


def numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: ``(4, 0, 5)`` for ``4.0.5-rc.1``, () for a text without any."""
    found = re.match(r"\d+(?:\.\d+)*", version, re.ASCII)
    return tuple(map(int, found[0].split("."))) if found else ()
