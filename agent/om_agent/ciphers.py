"""The cipher suites of TLS 1.2 that a deployment may choose from, as OpenSSL calls them.

Those that RabbitMQ's Erlang and the routers' OpenSSL both know under the same name (Erlang/OTP 25, OpenSSL 3.0 at
security level 2), without what RFC 9325 (section 4.1 and 4.2) advises against: no forward secrecy (a key exchange with
RSA), or a tag of 64 bits (CCM8), or DSS. An unknown name would be passed over by OpenSSL and keep RabbitMQ from
starting; one list for all makes every node's verdict the same. Those of TLS 1.3 are not chosen: proton has no call for
it, and all of them are good.
"""

from __future__ import annotations

NAMES = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES256-CCM",
    "ECDHE-ECDSA-AES128-CCM",
    "ECDHE-ECDSA-AES256-SHA384",
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES256-SHA384",
    "ECDHE-RSA-AES128-SHA256",
    "DHE-RSA-AES256-GCM-SHA384",
    "DHE-RSA-AES128-GCM-SHA256",
    "DHE-RSA-CHACHA20-POLY1305",
    "DHE-RSA-AES256-SHA256",
    "DHE-RSA-AES128-SHA256",
)

# To Erlang one list holds the suites of every version: naming none of these would rule TLS 1.3 out.
TLS_1_3 = ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256")
