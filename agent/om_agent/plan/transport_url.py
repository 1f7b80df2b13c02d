"""Transport URLs, byte for byte as puppet-openstacklib's ``os_transport_url`` writes them.

Where that one is wrong this one is right: ``virtual_host`` and the values of the query are percent-encoded, and an
empty host list is refused. Source: puppet-openstacklib 21.0.0 lib/puppet/functions/os_transport_url.rb.

A user of a router of ours has the realm in the name (oslo.messaging leaves one with an ``@`` alone), so that the URL is
all that is needed to log in with a password: puppet-nova and its like take ``sasl_default_realm`` out of the files.
"""

from __future__ import annotations

import ipaddress
import typing
import urllib.parse

from om_agent import model
from om_agent.plan import policy


def url_of(backend: model.Backend, query: typing.Mapping[str, str] | None = None) -> model.Secret:
    """Return the URL of ``backend``: ``scheme://user:pass@host:port[,...]/vhost?key=value&ssl=0|1``.

    :param query: further options; ``ssl`` comes last and always, as TripleO writes it.
    :raises ValueError: when the backend has no host, which `om_agent.parse` never lets through.
    """
    if not backend.hosts:
        raise ValueError("a transport URL needs a host")
    user = encode(policy.login(backend))
    password = encode(backend.password.reveal())
    userinfo = f"{user}:{password}@" if password else f"{user}@"
    hosts = ",".join(f"{userinfo}{bracket(h)}:{backend.port}" for h in backend.hosts)
    options = {k: v for k, v in (query or {}).items() if k != "ssl"}
    options["ssl"] = "1" if backend.tls else "0"
    tail = "&".join(f"{encode(k)}={encode(v)}" for k, v in options.items())
    return model.Secret(f"{backend.scheme.value}://{hosts}/{encode(backend.virtual_host)}?{tail}")


def encode(text: str) -> str:
    """Return ``text`` as Ruby's ``ERB::Util.url_encode`` does: all but letters, digits and ``-._~`` as %XX of UTF-8."""
    return urllib.parse.quote(text, safe="")


def bracket(host: str) -> str:
    """Return ``host`` fit for a URL: an IPv6 address in brackets, anything else as it is."""
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host


def escape_oslo(value: str) -> str:
    """Return ``value`` as oslo.config must find it to read it back: ``$`` starts a substitution and doubles."""
    return value.replace("$", "$$")


def escape_paste(value: str) -> str:
    """Return ``value`` as PasteDeploy must find it: ConfigParser interpolates ``%``, so it doubles."""
    return value.replace("%", "%%")
