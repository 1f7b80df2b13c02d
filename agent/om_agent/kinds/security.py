"""Kinds of problems with users, passwords, certificates and TLS."""

from __future__ import annotations

from om_agent import errors
from om_agent.kinds import kind

KINDS = {
    "two-passwords": kind.Kind(
        "rpc and notify name the same user of one {what}, but different passwords",
        "Use two user names, or one password",
        reads=(*kind.PASSWORDS, "username", "nodes", "hosts", "scheme"),
    ),
    "tls-no-certificate": kind.Kind(
        "clients are to use TLS, but the {what} has no certificate and key",
        "Set tls.certificate_file and tls.key_file (or tls.certificate and tls.key)",
        reads=(*kind.TLS, "nodes", "hosts", "scheme"),
    ),
    "tls-not-on-server": kind.Kind(
        "clients are to use TLS ({half}.tls), but {what}.tls is false",
        "Give both the same value",
        reads=(*kind.TLS, "nodes", "hosts", "scheme"),
    ),
    "tls-not-on-clients": kind.Kind(
        "{what}.tls is true, but {half}.tls is false: the server would refuse the clients",
        "Give both the same value",
        reads=(*kind.TLS, "nodes", "hosts", "scheme"),
    ),
    "tls-needs-name": kind.Kind(
        "TLS needs a host name here, not an address: the AMQP 1.0 driver cannot verify an address in a certificate",
        "Give the node a host key with the name that its certificate holds",
        reads=(*kind.TLS, "nodes", "hosts", "scheme"),
    ),
    "tls-no-ca": kind.Kind(
        "TLS is on, but there is no CA to verify peers with",
        "Set tls.ca_file (or tls.ca)",
        reads=(*kind.TLS, "nodes", "hosts", "scheme"),
    ),
    "tls-both": kind.Kind(
        "both a path and PEM text are given for the same thing",
        "Keep either {file_key} or {text_key}",
    ),
    "tls-half": kind.Kind(
        "a certificate needs its key, and a key its certificate",
        "Set both, in the same form",
    ),
    "not-a-cipher": kind.Kind(
        "this is not one of the supported cipher suites of TLS 1.2",
        "Use one of: {wanted}",
    ),
    "tls-ciphers": kind.Kind(
        "tls.ciphers lists cipher suites of TLS 1.2, but tls.min_version 1.3 excludes TLS 1.2",
        "Remove tls.ciphers, or set tls.min_version to 1.2",
    ),
    "tls-distribution": kind.Kind(
        "brokers that use TLS between each other need a CA, a certificate and a key",
        "Set the keys of tls, or set broker.distribution_tls to false",
        reads=(*kind.TLS, "nodes", "hosts", "scheme"),
    ),
    "tls-node-name": kind.Kind(
        "brokers that use TLS between each other need host names, not addresses: Erlang does not verify addresses",
        "Use the host name that its certificate holds, or set broker.distribution_tls to false",
        reads=(*kind.TLS, "nodes", "hosts", "scheme"),
    ),
    "cert-unreadable": kind.Kind(
        "the {what} cannot be read",
        "Give a whole X.509 certificate as PEM, from BEGIN CERTIFICATE to END CERTIFICATE",
    ),
    "cert-bad-key": kind.Kind(
        "the private key cannot be read: it is damaged, has a password, or is no private key",
        "Give a private key as PEM, without a password",
    ),
    "cert-other-key": kind.Kind(
        "this key does not belong to the certificate ({certificate})",
        "Give the key with which that certificate was requested, or the certificate of this key",
    ),
    "cert-other-host": kind.Kind(
        "the certificate is not valid for {name}, which peers require; it is valid for {found}",
        "Give this node a certificate with that name among its subject alternative names, in full where brokers "
        "speak TLS to each other",
    ),
    "cert-other-use": kind.Kind(
        "the certificate may not be used for a TLS {use}, but the {what} is one",
        "Request one whose extended key usage has both serverAuth and clientAuth",
    ),
    "cert-not-signed": kind.Kind(
        "the certificate does not lead to an authority in {ca}",
        "Give the CA that signed it, up to the root CA, and put intermediate certificates after the server's own",
    ),
    "cert-not-yet": kind.Kind(
        "the {whose} is not valid before {when}",
        "Wait until then, give another one, or correct the clock of this machine",
    ),
    "cert-expired": kind.Kind(
        "the {whose} expired on {when}",
        "Give a renewed one, or correct the clock of this machine",
    ),
    "mesh-files": kind.Kind(
        "routers with certificates of your own for each other need a CA, a certificate and a key",
        "Set router.mesh_ca_file, router.mesh_certificate_file and router.mesh_key_file, or none of them",
    ),
    "key-in-certificate": kind.Kind(
        "the text holds a private key, and every user may read its file",
        "Remove the key from here and put it in tls.key",
    ),
    "not-pem": kind.Kind(
        "the text is not PEM: it needs a line -----BEGIN {what}----- and the matching END line",
        "Paste the whole PEM block",
    ),
    "rabbit-slash": kind.Kind(
        "this contains a /, which oslo.messaging's RabbitMQ driver does not encode: no service could log in",
        "Choose one without /",
        reads=("scheme",),
    ),
    "rabbit-vhost": kind.Kind(
        "this contains one of % ? # ; which oslo.messaging's RabbitMQ driver does not encode",
        "Choose a virtual host without these characters",
        reads=("scheme",),
    ),
    "router-username": kind.Kind(
        "this contains a comma, or begins or ends with white space. A router's policy takes that for the end of a name",
        "Choose a user name without them",
        reads=("scheme",),
    ),
    "router-everybody": kind.Kind(
        "this is *, which in a router's policy means anyone who can log in, also with any certificate of the CA",
        "Choose another user name",
        reads=("scheme",),
    ),
    "router-vhost": kind.Kind(
        "this contains one of * # , $ or a space, which have a meaning in a router's policy",
        "Choose a virtual host without these characters",
        reads=("scheme",),
    ),
    "password-line-end": kind.Kind(
        "the password ends with a line break, which saslpasswd2 removes: no client could log in to the router",
        "Choose a password that does not end with a line break",
        reads=kind.CARRIERS,
    ),
    "username-realm": kind.Kind(
        "the user name contains an @, which separates user and realm in SASL",
        "Use a user name without @ for a router",
        reads=kind.CARRIERS,
    ),
    "username-taken": kind.Kind(
        "router-admin is reserved: it is om-agent's own user on routers",
        "Use another user name",
        reads=kind.CARRIERS,
    ),
    "external-accept": kind.Kind(
        "this backend is external, and the agent creates no users there",
        "Remove the key, and ask the operator of the backend to accept both users for a while",
        reads=kind.CARRIERS,
    ),
    "derived-changes": kind.Kind(
        "rpc.password is about to change. This secret is derived from it and would change too, and the brokers "
        "would lose each other",
        "Set it, for all nodes, to its present value (doc/operations.rst, Changing a password), and keep that value",
        reads=kind.CARRIERS,
    ),
    "still-accepted": kind.Kind(
        "the user {name} may also log in, with a password that no service uses",
        "Remove it once every service has the other password (doc/operations.rst, Changing a password)",
        severity=errors.WARNING,
    ),
    "plaintext": kind.Kind(
        "{half} runs without TLS: passwords cross the network in the clear",
        "Set {half}.tls to true and give the keys of tls",
        severity=errors.WARNING,
    ),
    "tls-not-said": kind.Kind(
        "the metadata does not say whether clients of the routers use TLS; without TLS, passwords cross the network "
        "in the clear",
        "Set it to true and give the keys of tls, or set it to false if the network is trusted with passwords",
    ),
    "external-password": kind.Kind(
        "services log in with a certificate here, so the password is ignored",
        "Remove the key, or remove sasl_mechanism: EXTERNAL",
    ),
    "external-files": kind.Kind(
        "the value is missing: services need it to log in, since sasl_mechanism is EXTERNAL",
        "Set it to the absolute path that services find it at on every node",
    ),
    "external-tls": kind.Kind(
        "services can log in with a certificate only over TLS, and {half} has none",
        "Set {half}.tls to true and give the keys of tls, or choose PLAIN",
        reads=(*kind.TLS, "nodes", "hosts", "scheme"),
    ),
    "client-files-unused": kind.Kind(
        "services log in with a password here, so this key is ignored",
        "Set sasl_mechanism to EXTERNAL, or remove the key",
    ),
    "login-differs": kind.Kind(
        "{key} differs between the two halves, and a service's file has one section for both",
        "Give both halves the same {key}",
        reads=kind.CARRIERS,
    ),
    "scram-rabbit": kind.Kind(
        "RabbitMQ does not know SCRAM",
        "Choose PLAIN, with tls: true, or EXTERNAL",
        reads=kind.CARRIERS,
    ),
    "scram-cyrus": kind.Kind(
        "SCRAM needs a python-qpid-proton that was built with Cyrus SASL; Debian's package was not",
        "Install such a build for the services and the agent, or choose PLAIN, with tls: true, or EXTERNAL",
        severity=errors.WARNING,
    ),
    "embedded-login": kind.Kind(
        "om-devrouter, which is for development, supports only PLAIN",
        "Choose PLAIN",
        reads=kind.CARRIERS,
    ),
    "cert-other-user": kind.Kind(
        "the certificate is for the user {found}, but services log in as {name}",
        "Use a certificate with the common name {name}, or set the user name to {found}",
    ),
    "mesh-secret": kind.Kind(
        "the value is missing: the routers' certificates and the agent's management password are derived from it",
        "Set it to a long random text, the same for all nodes (openssl rand -hex 32). Services must not know it",
    ),
    "admin-secret": kind.Kind(
        "the value is missing: it is the agent's password for managing running routers, which is otherwise derived "
        "from router.mesh_password",
        "Set it to a long random text, the same for all nodes (openssl rand -hex 32)",
    ),
    "cookie-derived": kind.Kind(
        "the brokers' cookie is derived from rpc.password: anyone who has a service's password and reaches the port "
        "between brokers has full control of them",
        "Set broker.erlang_cookie to a long random text, the same for all nodes (openssl rand -hex 32)",
        severity=errors.WARNING,
    ),
    "cookie-replaced": kind.Kind(
        "the cookie consists of 20 capital letters, like those that Erlang makes. Debian's rabbitmq-server package "
        "replaces such a cookie at every upgrade; the broker then leaves its cluster until the next om-agent apply",
        "Set broker.erlang_cookie to a long random text, the same for all nodes (openssl rand -hex 32)",
        severity=errors.WARNING,
    ),
}
