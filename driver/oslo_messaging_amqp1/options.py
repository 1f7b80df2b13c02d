"""The options of section ``[oslo_messaging_amqp]``. Each can also be a parameter of the transport URL.

Names and meanings are those of the driver that oslo.messaging had until 14.9, the in-tree driver. Three defaults
differ from the in-tree ones in `_IN_TREE_DEFAULTS`: the driver closes the connection to a silent router, sends messages
again after one second instead of ten, and asks for an acknowledgement of every message.
"""

from __future__ import annotations

import copy
import types
import typing

from oslo_config import cfg

GROUP = "oslo_messaging_amqp"


def _equal_by_name(kind: type) -> type:
    """Return a subclass of an option class. Its options equal all options of the same name.

    The in-tree driver registers the same names with other defaults. oslo.config refuses a second option of a name
    unless it equals the first. When Python compares an object with one of a subclass, it asks the subclass.
    """

    class Option(kind):  # type: ignore[misc]
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return isinstance(other, cfg.Opt) and other.dest == self.dest

        def __ne__(self, other: object) -> bool:
            return not self == other

    return Option


_Str, _Int, _Bool, _Multi = map(_equal_by_name, (cfg.StrOpt, cfg.IntOpt, cfg.BoolOpt, cfg.MultiStrOpt))

_OLD_GROUP = {"deprecated_group": "amqp1"}

OPTIONS = [
    _Str("container_name", help="Name of the AMQP container, which must be unique. Default: a name made from host, "
         "program and process.", **_OLD_GROUP),
    _Int("idle_timeout", default=10, min=0, help="Close the connection to a router that is silent for this many "
         "seconds. 0: never.", **_OLD_GROUP),
    _Bool("trace", default=False, help="Ignored. Trace connections at the router instead.", **_OLD_GROUP),
    _Bool("ssl", default=False, help="Connect with TLS. The system's authorities verify the router unless ssl_ca_file "
         "names others."),
    _Str("ssl_ca_file", default="", help="PEM file of the authorities that verify the router.", **_OLD_GROUP),
    _Str("ssl_cert_file", default="", help="PEM file of the certificate that this client presents.", **_OLD_GROUP),
    _Str("ssl_key_file", default="", help="PEM file of the key of ssl_cert_file.", **_OLD_GROUP),
    _Str("ssl_key_password", secret=True, help="Password of ssl_key_file.", **_OLD_GROUP),
    _Bool("ssl_verify_vhost", default=False, help="The router's certificate must name the virtual host instead of the "
         "host of the transport URL."),
    _Str("sasl_mechanisms", default="", help="Allowed SASL mechanisms, separated by spaces. Default: all, but PLAIN "
         "only with TLS.", **_OLD_GROUP),
    _Str("sasl_config_dir", default="", help="Ignored. This driver does not use the SASL library.", **_OLD_GROUP),
    _Str("sasl_config_name", default="", help="Ignored. This driver does not use the SASL library.", **_OLD_GROUP),
    _Str("sasl_default_realm", default="", help="SASL realm for a user name that has none."),
    _Int("connection_retry_interval", default=1, min=1, help="Seconds to wait after the connection to every host of "
         "the URL has failed."),
    _Int("connection_retry_backoff", default=2, min=0, help="Seconds to add to connection_retry_interval after each "
         "further failure."),
    _Int("connection_retry_interval_max", default=30, min=1, help="Maximum of connection_retry_interval in seconds."),
    _Int("link_retry_delay", default=1, min=1, help="Seconds to wait before a link or a message is tried again."),
    _Int("default_reply_retry", default=0, min=-1, help="How often to send a reply again that was not delivered. -1: "
         "until default_reply_timeout."),
    _Int("default_reply_timeout", default=30, min=5, help="Seconds within which a reply must be delivered."),
    _Int("default_send_timeout", default=30, min=5, help="Seconds within which a call or cast without a timeout of its "
         "own must be delivered."),
    _Int("undelivered_cast_timeout", default=30, min=0, help="Seconds for which the driver keeps trying to send a cast "
         "or notification that nobody listens to, in the background. 0: drop it at once."),
    _Int("default_notify_timeout", default=30, min=5, help="Seconds within which a notification must be delivered."),
    _Int("default_sender_link_timeout", default=600, min=1, help="Seconds after which an unused link is detached."),
    _Str("addressing_mode", default="dynamic", help="routable, legacy or dynamic. dynamic means legacy for brokers "
         "that cannot route, otherwise routable."),
    _Bool("pseudo_vhost", default=True, help="Put the virtual host into each address. false: send it as the hostname "
         "of the connection."),
    _Str("server_request_prefix", default="exclusive", help="Legacy address prefix for one server.", **_OLD_GROUP),
    _Str("broadcast_prefix", default="broadcast", help="Legacy address prefix for all servers.", **_OLD_GROUP),
    _Str("group_request_prefix", default="unicast", help="Legacy address prefix for any one of several "
         "servers.", **_OLD_GROUP),
    _Str("rpc_address_prefix", default="openstack.org/om/rpc", help="Prefix of RPC addresses."),
    _Str("notify_address_prefix", default="openstack.org/om/notify", help="Prefix of notification addresses."),
    _Str("multicast_address", default="multicast", help="Part of an address that means all servers."),
    _Str("unicast_address", default="unicast", help="Part of an address that means one server."),
    _Str("anycast_address", default="anycast", help="Part of an address that means any one of several servers."),
    _Str("default_notification_exchange", help="Exchange for notifications whose target names none. Default: "
         "control_exchange, otherwise openstack."),
    _Str("default_rpc_exchange", help="Exchange for RPC whose target names none. Default: control_exchange, otherwise "
         "openstack."),
    _Int("reply_link_credit", default=200, min=1, help="Maximum number of replies that may be on their way to this "
         "process."),
    _Int("rpc_server_credit", default=100, min=1, help="Maximum number of requests that may be on their way to a "
         "server."),
    _Int("notify_server_credit", default=100, min=1, help="Maximum number of notifications that may be on their way to "
         "a listener."),
    _Multi("pre_settled", default=[], help="Kinds of messages to send without acknowledgement, so that they may be "
         "lost: rpc-call, rpc-reply, rpc-cast, notify."),
]  # fmt: skip

# The defaults of the in-tree driver that differ. A process may load both drivers, and each must get its own defaults.
_IN_TREE_DEFAULTS: dict[str, typing.Any] = {
    "idle_timeout": 0,
    "link_retry_delay": 10,
    "pre_settled": ["rpc-cast", "rpc-reply"],
}


def _with_in_tree_defaults() -> list[cfg.Opt]:
    """Return the options to register with the configuration: they have the in-tree driver's defaults."""
    result = []
    for option in OPTIONS:
        if option.dest in _IN_TREE_DEFAULTS:
            option = copy.copy(option)
            option.default = _IN_TREE_DEFAULTS[option.dest]
        result.append(option)
    return result


def read(conf: cfg.ConfigOpts, query: typing.Mapping[str, str]) -> types.SimpleNamespace:
    """Return the value of each option: from the URL, otherwise the configuration, otherwise this driver's default.

    :param query: the parameters of the transport URL.
    :raises ValueError: when a parameter of the URL has an invalid value.
    """
    conf.register_group(cfg.OptGroup(GROUP, title="AMQP 1.0 driver options"))
    conf.register_opts(_with_in_tree_defaults(), group=GROUP)
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
    source = conf.get_location(name, GROUP)
    return source is None or source.location is cfg.Locations.opt_default


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
