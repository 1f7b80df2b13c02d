"""What users, passwords, certificates and TLS can have wrong."""

from __future__ import annotations

from om_agent import errors
from om_agent.kinds import kind

KINDS = {
    "two-passwords": kind.Kind(
        "rpc and notify name the same user of one {what} with different passwords",
        "Use two user names, or one password",
        reads=(*kind.PASSWORDS, "username", "nodes", "hosts", "scheme"),
    ),
    "tls-no-certificate": kind.Kind(
        "TLS is asked of the clients, but the {what} has no certificate and key",
        "Set tls.certificate_file and tls.key_file (or tls.certificate and tls.key)",
        reads=(*kind.TLS, "nodes", "hosts", "scheme"),
    ),
    "tls-not-on-server": kind.Kind(
        "TLS is asked of the clients ({half}.tls), but {what}.tls is false",
        "Make the two agree",
        reads=(*kind.TLS, "nodes", "hosts", "scheme"),
    ),
    "tls-not-on-clients": kind.Kind(
        "{what}.tls is true, but {half}.tls is false: the clients would be refused",
        "Make the two agree",
        reads=(*kind.TLS, "nodes", "hosts", "scheme"),
    ),
    "tls-needs-name": kind.Kind(
        "TLS needs a host name, and this is an address: the AMQP 1.0 driver cannot verify an address in a certificate",
        "Give the node a host key with the name that its certificate holds",
        reads=(*kind.TLS, "nodes", "hosts", "scheme"),
    ),
    "tls-no-ca": kind.Kind(
        "TLS is asked for, but there is no CA to verify peers with",
        "Set tls.ca_file (or tls.ca)",
        reads=(*kind.TLS, "nodes", "hosts", "scheme"),
    ),
    "tls-both": kind.Kind(
        "both a path and PEM text are given for the same thing",
        "Keep {file_key} or {text_key}",
    ),
    "tls-half": kind.Kind(
        "a certificate needs its key, and a key its certificate",
        "Set both, in the same form",
    ),
    "not-a-cipher": kind.Kind(
        "this is not one of the cipher suites of TLS 1.2 that may be chosen from",
        "Use one of: {wanted}",
    ),
    "tls-ciphers": kind.Kind(
        "tls.ciphers chooses among cipher suites of TLS 1.2, which tls.min_version 1.3 rules out",
        "Leave tls.ciphers out, or make tls.min_version 1.2",
    ),
    "tls-distribution": kind.Kind(
        "brokers that speak TLS to each other need a CA, a certificate and a key",
        "Set the keys of tls, or broker.distribution_tls: false",
        reads=(*kind.TLS, "nodes", "hosts", "scheme"),
    ),
    "tls-node-name": kind.Kind(
        "brokers that speak TLS to each other need host names, and this is an address: Erlang verifies no address",
        "Use the host name that its certificate holds, or set broker.distribution_tls: false",
        reads=(*kind.TLS, "nodes", "hosts", "scheme"),
    ),
    "cert-unreadable": kind.Kind(
        "the {what} cannot be read",
        "Give a whole X.509 certificate as PEM, from BEGIN CERTIFICATE to END CERTIFICATE",
    ),
    "cert-bad-key": kind.Kind(
        "the private key cannot be read: it is none, damaged, or has a password",
        "Give a private key as PEM, without a password",
    ),
    "cert-other-key": kind.Kind(
        "this is not the key of the certificate ({certificate})",
        "Give the key with which that certificate was requested, or the certificate of this key",
    ),
    "cert-other-host": kind.Kind(
        "the certificate is not for {name}, which peers look for in it; it is for {found}",
        "Give this node a certificate with that name among its subject alternative names, in full where brokers "
        "speak TLS to each other",
    ),
    "cert-other-use": kind.Kind(
        "the certificate may not be used as that of a TLS {use}, as the {what} does",
        "Request one whose extended key usage has both serverAuth and clientAuth",
    ),
    "cert-not-signed": kind.Kind(
        "the certificate does not lead to an authority in {ca}",
        "Give the CA that signed it, down to its root, and put intermediate certificates after the server's own",
    ),
    "cert-not-yet": kind.Kind(
        "the {whose} is valid only from {when} on",
        "Wait until then, give another one, or set the clock of this machine right",
    ),
    "cert-expired": kind.Kind(
        "the {whose} has expired on {when}",
        "Give a renewed one, or set the clock of this machine right",
    ),
    "mesh-files": kind.Kind(
        "routers that show certificates of your own to each other need a CA, a certificate and a key",
        "Set router.mesh_ca_file, router.mesh_certificate_file and router.mesh_key_file, or none of them",
    ),
    "key-in-certificate": kind.Kind(
        "the text holds a private key, and its file is readable to everybody",
        "Take the key out; it belongs into tls.key",
    ),
    "not-pem": kind.Kind(
        "the text is not PEM: it needs a line -----BEGIN {what}----- and the END of it",
        "Paste the whole PEM block",
    ),
    "rabbit-slash": kind.Kind(
        "this holds a /, which oslo.messaging's RabbitMQ driver passes on unencoded: no service could log in",
        "Choose one without /",
        reads=("scheme",),
    ),
    "rabbit-vhost": kind.Kind(
        "this holds one of % ? # ; which oslo.messaging's RabbitMQ driver passes on unencoded",
        "Choose a virtual host without them",
        reads=("scheme",),
    ),
    "router-username": kind.Kind(
        "this holds a comma, or begins or ends with white space, which a router's policy takes for the end of a name",
        "Choose a user name without",
        reads=("scheme",),
    ),
    "router-everybody": kind.Kind(
        "this is *, which a router's policy takes for anyone who can log in, with any certificate of the CA too",
        "Choose another user name",
        reads=("scheme",),
    ),
    "router-vhost": kind.Kind(
        "this holds one of * # , $ or a space, which mean something in a router's policy",
        "Choose a virtual host without them",
        reads=("scheme",),
    ),
    "password-line-end": kind.Kind(
        "the password ends in a line break, which saslpasswd2 cuts off: no client could log in to the router",
        "Choose a password that ends in something else",
        reads=kind.CARRIERS,
    ),
    "username-realm": kind.Kind(
        "the user name holds an @, which separates user and realm in SASL",
        "Use a user name without @ for a router",
        reads=kind.CARRIERS,
    ),
    "username-taken": kind.Kind(
        "router-admin is reserved: om-agent logs in to routers with it",
        "Use another user name",
        reads=kind.CARRIERS,
    ),
    "external-accept": kind.Kind(
        "somebody else runs this backend, so no user is made there",
        "Leave the key out, and have its operator accept both users meanwhile",
        reads=kind.CARRIERS,
    ),
    "derived-changes": kind.Kind(
        "rpc.password is about to be changed, and this secret, which is made from it, would change too: brokers "
        "would be parted",
        "Set it, for all nodes, to what it is now (doc/operations.rst, Changing a password), and leave it so",
        reads=kind.CARRIERS,
    ),
    "still-accepted": kind.Kind(
        "the user {name} may log in too, with a password that no service is given",
        "Take it off once every service has the other one (doc/operations.rst, Changing a password)",
        severity=errors.WARNING,
    ),
    "plaintext": kind.Kind(
        "{half} runs without TLS: passwords cross the network in the clear",
        "Set {half}.tls to true and give tls",
        severity=errors.WARNING,
    ),
    "tls-not-said": kind.Kind(
        "nothing says whether clients of the routers use TLS, and without it passwords cross the network in the clear",
        "Set it to true and give tls, or to false where the network is trusted with passwords",
    ),
    "external-password": kind.Kind(
        "services log in with a certificate here, so the password is ignored",
        "Leave the key out, or sasl_mechanism: EXTERNAL",
    ),
    "external-files": kind.Kind(
        "the value is missing: with it services log in, since sasl_mechanism is EXTERNAL",
        "Set it to the absolute path at which services find it on every node",
    ),
    "external-tls": kind.Kind(
        "a certificate can be shown over TLS only, and {half} has none",
        "Set {half}.tls to true and give tls, or choose PLAIN",
        reads=(*kind.TLS, "nodes", "hosts", "scheme"),
    ),
    "client-files-unused": kind.Kind(
        "services log in with a password here, so this is ignored",
        "Set sasl_mechanism to EXTERNAL, or leave the key out",
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
        "SCRAM needs a python-qpid-proton that was built with Cyrus SASL, and Debian's is not",
        "Install such a one for the services and the agent, or choose PLAIN, with tls: true, or EXTERNAL",
        severity=errors.WARNING,
    ),
    "embedded-login": kind.Kind(
        "om-devrouter, which is for development, knows no login but PLAIN",
        "Choose PLAIN",
        reads=kind.CARRIERS,
    ),
    "cert-other-user": kind.Kind(
        "the certificate is for the user {found}, and services log in as {name}",
        "Use a certificate with the common name {name}, or set the user name to {found}",
    ),
    "mesh-secret": kind.Kind(
        "the value is missing: from it routers make what they know each other by, and the agent what it manages "
        "them with",
        "Set it to a long random text, the same for all nodes (openssl rand -hex 32), which services do not know",
    ),
    "admin-secret": kind.Kind(
        "the value is missing: with it the agent manages running routers, and without router.mesh_password it "
        "cannot be made",
        "Set it to a long random text, the same for all nodes (openssl rand -hex 32)",
    ),
    "cookie-derived": kind.Kind(
        "the brokers' cookie is made from rpc.password: anyone who has a service's password and reaches the port "
        "between brokers can do anything to them",
        "Set broker.erlang_cookie to a long random text, the same for all nodes (openssl rand -hex 32)",
        severity=errors.WARNING,
    ),
    "cookie-replaced": kind.Kind(
        "the cookie is 20 capital letters, as Erlang makes them, and Debian's rabbitmq-server package replaces "
        "such a cookie at each of its upgrades: the broker then leaves its cluster until the next om-agent apply",
        "Set broker.erlang_cookie to a long random text, the same for all nodes (openssl rand -hex 32)",
        severity=errors.WARNING,
    ),
}
