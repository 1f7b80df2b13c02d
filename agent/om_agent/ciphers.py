"""The cipher suites of TLS 1.2 that a deployment may choose from, by OpenSSL's names.

RabbitMQ's Erlang and the routers' OpenSSL both know these suites by the same names (Erlang/OTP 25, OpenSSL 3.0 at
security level 2). Suites that RFC 9325 (sections 4.1 and 4.2) advises against are left out: those without forward
secrecy (key exchange with RSA), with a tag of 64 bits (CCM8) or with DSS. OpenSSL ignores an unknown name, and RabbitMQ
does not start with one. With one list, every node accepts the same names. Suites of TLS 1.3 cannot be chosen: proton
has no function for it, and all of them are good.
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

# Erlang has one list for the suites of all versions. Without these names it would not offer TLS 1.3.
TLS_1_3 = ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256")
