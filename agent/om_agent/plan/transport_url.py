"""Transport URLs, byte for byte as puppet-openstacklib's ``os_transport_url`` writes them.

There are two differences, where that function has defects: this module percent-encodes ``virtual_host`` and the values
of the query, and it refuses an empty list of hosts. Source: puppet-openstacklib 21.0.0
lib/puppet/functions/os_transport_url.rb.

The URL of a router of this overcloud names the user with its realm. So a service needs nothing but the URL to log in
with a password: puppet-nova and similar modules remove ``sasl_default_realm`` from the files. oslo.messaging does not
change a name that has an ``@``.
"""

from __future__ import annotations

import ipaddress
import typing
import urllib.parse

from om_agent import model
from om_agent.plan import policy


def url_of(backend: model.Backend, query: typing.Mapping[str, str] | None = None) -> model.Secret:
    """Return the URL of ``backend``: ``scheme://user:pass@host:port[,...]/vhost?key=value&ssl=0|1``.

    :param query: further options. ``ssl`` is always there and comes last, as TripleO writes it.
    :raises ValueError: when the backend has no host. `om_agent.parse` never accepts such a backend.
    """
    if not backend.hosts:
        raise ValueError("a transport URL needs a host")
    user = encode(policy.login(backend))
    password = encode(backend.password.reveal())
    userinfo = f"{user}:{password}@" if password else f"{user}@"
    hosts = ",".join(f"{userinfo}{bracket(host)}:{backend.port}" for host in backend.hosts)
    options = dict(query or {})
    options.pop("ssl", None)
    options["ssl"] = "1" if backend.tls else "0"
    query_text = "&".join(f"{encode(name)}={encode(value)}" for name, value in options.items())
    virtual_host = encode(backend.virtual_host)
    return model.Secret(f"{backend.scheme.value}://{hosts}/{virtual_host}?{query_text}")


def encode(text: str) -> str:
    """Return ``text`` with %XX for everything but letters, digits and ``-._~``, as Ruby's ``ERB::Util.url_encode``."""
    return urllib.parse.quote(text, safe="")


def bracket(host: str) -> str:
    """Return ``host`` for use in a URL: an IPv6 address in brackets, anything else unchanged."""
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host


def escape_oslo(value: str) -> str:
    """Return ``value`` escaped for oslo.config: ``$`` is doubled, since it starts a substitution."""
    return value.replace("$", "$$")


def escape_paste(value: str) -> str:
    """Return ``value`` escaped for PasteDeploy: ``%`` is doubled, since ConfigParser interpolates it."""
    return value.replace("%", "%%")
