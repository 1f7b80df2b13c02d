"""The options of section ``[oslo_messaging_amqp]``, each also a query of the transport URL.

Names and meanings are those of the driver that oslo.messaging had until 14.9. Three defaults differ
(`_IN_TREE_DEFAULTS` has the former ones): a silent router is given up, messages are tried again after one second
instead of ten, and nothing is sent without an acknowledgement.
"""

from __future__ import annotations

import copy
import types
import typing

from oslo_config import cfg

GROUP = "oslo_messaging_amqp"


def _alike(kind: type) -> type:
    """Return an option class whose options equal any option of the same name.

    The in-tree driver registers the same names with other defaults. oslo.config refuses a second option that differs,
    and asks the subclass of the two whether they do.
    """

    class Option(kind):  # type: ignore[misc]
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return isinstance(other, cfg.Opt) and other.dest == self.dest

        def __ne__(self, other: object) -> bool:
            return not self == other

    return Option


_Str, _Int, _Bool, _Multi = (_alike(kind) for kind in (cfg.StrOpt, cfg.IntOpt, cfg.BoolOpt, cfg.MultiStrOpt))

_OLD = {"deprecated_group": "amqp1"}

OPTIONS = [
    _Str("container_name", help="Name of the AMQP container. It must be unique. Default: one that names host, "
         "program and process.", **_OLD),
    _Int("idle_timeout", default=10, min=0, help="Seconds after which a silent router is given up. 0: never.", **_OLD),
    _Bool("trace", default=False, help="Ignored: look at the router's own trace.", **_OLD),
    _Bool("ssl", default=False, help="Connect with TLS. The system's authorities verify the router unless ssl_ca_file "
          "names others."),
    _Str("ssl_ca_file", default="", help="PEM file of the authorities that verify the router.", **_OLD),
    _Str("ssl_cert_file", default="", help="PEM file of the certificate that this client shows.", **_OLD),
    _Str("ssl_key_file", default="", help="PEM file of the key of ssl_cert_file.", **_OLD),
    _Str("ssl_key_password", secret=True, help="Password of ssl_key_file.", **_OLD),
    _Bool("ssl_verify_vhost", default=False, help="The router's certificate must name the virtual host instead of the "
          "host of the transport URL."),
    _Str("sasl_mechanisms", default="", help="SASL mechanisms that may be used, separated by spaces. Default: any, but "
         "PLAIN only with TLS.", **_OLD),
    _Str("sasl_config_dir", default="", help="Ignored: this driver has its own SASL.", **_OLD),
    _Str("sasl_config_name", default="", help="Ignored: this driver has its own SASL.", **_OLD),
    _Str("sasl_default_realm", default="", help="SASL realm of a user name that has none."),
    _Int("connection_retry_interval", default=1, min=1, help="Seconds to wait after all hosts of the URL failed."),
    _Int("connection_retry_backoff", default=2, min=0, help="Seconds by which connection_retry_interval grows with "
         "each further failure."),
    _Int("connection_retry_interval_max", default=30, min=1, help="Seconds that connection_retry_interval grows to."),
    _Int("link_retry_delay", default=1, min=1, help="Seconds to wait before a link or a message is tried again."),
    _Int("default_reply_retry", default=0, min=-1, help="How often a reply is sent again that did not arrive. "
         "-1: until default_reply_timeout."),
    _Int("default_reply_timeout", default=30, min=5, help="Seconds in which a reply must be delivered."),
    _Int("default_send_timeout", default=30, min=5, help="Seconds in which a call or cast without a timeout of its own "
         "must be delivered."),
    _Int("undelivered_cast_timeout", default=30, min=0, help="Seconds for which a cast or notification that nobody "
         "listens to is tried again, in the background. 0: it is dropped at once."),
    _Int("default_notify_timeout", default=30, min=5, help="Seconds in which a notification must be delivered."),
    _Int("default_sender_link_timeout", default=600, min=1, help="Seconds after which an unused link is detached."),
    _Str("addressing_mode", default="dynamic", help="routable, legacy, or dynamic: legacy only for brokers that cannot "
         "route."),
    _Bool("pseudo_vhost", default=True, help="The virtual host is a part of each address instead of the hostname of "
          "the connection."),
    _Str("server_request_prefix", default="exclusive", help="Legacy address prefix of one server.", **_OLD),
    _Str("broadcast_prefix", default="broadcast", help="Legacy address prefix of all servers.", **_OLD),
    _Str("group_request_prefix", default="unicast", help="Legacy address prefix of any server.", **_OLD),
    _Str("rpc_address_prefix", default="openstack.org/om/rpc", help="Prefix of RPC addresses."),
    _Str("notify_address_prefix", default="openstack.org/om/notify", help="Prefix of notification addresses."),
    _Str("multicast_address", default="multicast", help="Word for all servers in an address."),
    _Str("unicast_address", default="unicast", help="Word for one server in an address."),
    _Str("anycast_address", default="anycast", help="Word for any server in an address."),
    _Str("default_notification_exchange", help="Exchange of notifications whose target has none. Default: "
         "control_exchange, else openstack."),
    _Str("default_rpc_exchange", help="Exchange of RPC whose target has none. Default: control_exchange, else "
         "openstack."),
    _Int("reply_link_credit", default=200, min=1, help="Replies that may be on their way to this process."),
    _Int("rpc_server_credit", default=100, min=1, help="Requests that may be on their way to a server."),
    _Int("notify_server_credit", default=100, min=1, help="Notifications that may be on their way to a listener."),
    _Multi("pre_settled", default=[], help="What is sent without an acknowledgement and may be lost: rpc-call, "
           "rpc-reply, rpc-cast, notify."),
]  # fmt: skip

# Defaults of the in-tree driver that are not this one's. A process may have both drivers, and each must see its own.
_IN_TREE_DEFAULTS: dict[str, typing.Any] = {
    "idle_timeout": 0,
    "link_retry_delay": 10,
    "pre_settled": ["rpc-cast", "rpc-reply"],
}


def _registered() -> list[cfg.Opt]:
    """Return the options as the configuration is told of them: with the in-tree driver's defaults."""
    found = []
    for option in OPTIONS:
        if option.dest in _IN_TREE_DEFAULTS:
            option = copy.copy(option)
            option.default = _IN_TREE_DEFAULTS[option.dest]
        found.append(option)
    return found


def read(conf: cfg.ConfigOpts, query: typing.Mapping[str, str]) -> types.SimpleNamespace:
    """Return the value of each option, from the URL, the configuration or this driver's default, in this order.

    :param query: of the transport URL.
    :raises ValueError: when the URL sets an option to what it cannot be.
    """
    conf.register_group(cfg.OptGroup(GROUP, title="AMQP 1.0 driver options"))
    conf.register_opts(_registered(), group=GROUP)
    values = {}
    for option in OPTIONS:
        name = option.dest
        if name in query:
            values[name] = _from_query(option, query[name])
        elif name in _IN_TREE_DEFAULTS and _is_default(conf, name):
            values[name] = option.default
        else:
            values[name] = conf[GROUP][name]
    return types.SimpleNamespace(**values)


def _is_default(conf: cfg.ConfigOpts, name: str) -> bool:
    found = conf.get_location(name, GROUP)
    return found is None or found.location is cfg.Locations.opt_default


def _from_query(option: cfg.Opt, text: str) -> typing.Any:
    try:
        if isinstance(option, cfg.MultiStrOpt):
            return [part.strip() for part in text.split(",") if part.strip()]
        return option.type(text)
    except ValueError as error:
        raise ValueError(f"the transport URL's {option.name} is not valid: {error}") from None


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return the options for oslo-config-generator."""
    return [(GROUP, list(OPTIONS))]
