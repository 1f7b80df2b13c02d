"""Whoever is not of the mesh does not get in: routers of the real engines that try, beside one that may.

Each rogue is a router with one connector, and is given the mesh's CA, so that it is the mesh that refuses and not the
rogue.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import typing

import pytest
from om_agent import amqp, errors, model
from om_agent.plan import authority, layout, router

from testbed import processes, routers, sockets
from tests.router import cloud as clouds

pytestmark = pytest.mark.router

NODES = {"ctl-1": "controller", "cmp-1": "compute"}
PASSWORD, SECRET = "rpc-secret", "mesh-secret"
MESH = {"interior": ("inter-router", 31460), "edge": ("edge", 31461)}  # by mode: role and port of the mesh's listener
TRY_SECONDS = 30.0
ADDRESS = "127.0.43.99"
RPC = {"saslUsername": f"rpc@{router.REALM}", "saslPassword": PASSWORD}
EXTERNAL: dict[str, object] = {"saslMechanisms": "EXTERNAL", "sslProfile": "tls"}


class Way(typing.NamedTuple):
    """How a router tries to get in.

    :param shown: whose certificate it has, '' for none.
    """

    connector: dict[str, object]
    shown: str = ""


OWN = Way(EXTERNAL, "mesh")
WAYS = {
    "plain password": Way({"saslMechanisms": "PLAIN", **RPC}),
    "scram password": Way({"saslMechanisms": "SCRAM-SHA-256", **RPC}),
    "anonymous": Way({"saslMechanisms": "ANONYMOUS"}),
    "external in the clear": Way({"saslMechanisms": "EXTERNAL"}),
    "password over tls": Way({"saslMechanisms": "PLAIN", "sslProfile": "tls", **RPC}),
    "password over tls with a client's certificate": Way(
        {"saslMechanisms": "PLAIN", "sslProfile": "tls", **RPC}, "client"
    ),
    "no certificate": Way(EXTERNAL),
    "a client's certificate": Way(EXTERNAL, "client"),
    "of another deployment": Way(EXTERNAL, "other"),
}


class Target(typing.NamedTuple):
    """A deployment with TLS for clients, of which a controller's router runs.

    :param shown: files of CA, certificate and key that a rogue may have, by whose they are.
    """

    cloud: clouds.Cloud
    directory: pathlib.Path
    shown: dict[str, tuple[pathlib.Path, pathlib.Path, pathlib.Path]]

    def connections(self) -> set[str]:
        """Return the container ids of all connected peers."""
        with self.cloud.routers["ctl-1"].manage() as client:
            return {str(row["container"]) for row in client.query("connection") if row["opened"]}

    def reached(self) -> set[str]:
        """Return the ids of all routers that it knows."""
        with self.cloud.routers["ctl-1"].manage() as client:
            return {str(row["id"]) for row in client.query("router.node")}


def authority_and_certificate(directory: pathlib.Path, name: str) -> tuple[str, str, str]:
    """Make a CA and a certificate for both names, as a server and as a client; returns them and the key."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=60)

    ca, key, request, made = f"{name}-ca.pem", f"{name}.key", f"{name}.csr", f"{name}.pem"
    (directory / "ext").write_text("subjectAltName=" + ",".join(f"DNS:{n}" for n in NODES))
    new = ("-newkey", "rsa:2048", "-nodes")
    openssl("req", "-x509", *new, "-keyout", f"{ca}.key", "-out", ca, "-subj", f"/CN={name}", "-days", "2")
    openssl("req", *new, "-keyout", key, "-out", request, "-subj", "/CN=a")
    sign = ("-CA", ca, "-CAkey", f"{ca}.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
    openssl("x509", "-req", "-in", request, *sign, "-out", made)
    return (directory / ca).read_text(), (directory / made).read_text(), (directory / key).read_text()


def write(directory: pathlib.Path, name: str, texts: typing.Iterable[str]) -> tuple[pathlib.Path, ...]:
    paths = tuple(directory / f"{name}-{part}.pem" for part in ("ca", "certificate", "key"))
    for path, text in zip(paths, texts):
        path.write_text(text)
    return paths


@pytest.fixture(scope="module", params=clouds.ENGINES, ids=lambda e: e.value)
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[Target]:
    engine: model.Engine = request.param
    clouds.need(engine)
    directory = tmp_path_factory.mktemp(engine.value)
    client = authority_and_certificate(directory, "client")
    with clouds.supervised(directory) as supervisor:
        messaging = {
            "rpc": {"scheme": "amqp", "username": "rpc", "password": PASSWORD, "port": clouds.PORT, "tls": True},
            "tls": dict(zip(("ca", "certificate", "key"), client)),
            "router": {"engine": engine.value, "http_port": 0, "mesh_password": SECRET},
        }
        # No name has to resolve: the one router that is started connects to none.
        within = ("env",)
        cloud = clouds.Cloud(supervisor, directory, engine, "127.0.43", NODES, within, bare=True, **messaging)
        cloud.apply("ctl-1", cloud.metadata(*NODES))
        cloud.start("ctl-1")
        node = model.Node("real", "127.0.43.99", "real", "controller", "", model.RouterMode.INTERIOR)
        shown = {"client": client}
        for name, secret in (("mesh", SECRET), ("other", "another deployment's")):
            made = authority.issue(model.Secret(secret), node)
            shown[name] = (made.ca, made.certificate, made.key.reveal())
        paths = {name: write(directory, f"has-{name}", texts) for name, texts in shown.items()}
        yield Target(cloud, directory, typing.cast("typing.Any", paths))


class Rogue:
    """A router that opens one connection to the mesh, for as long as the ``with`` lasts."""

    def __init__(self, target: Target, mode: str, way: Way) -> None:
        self.name = f"rogue-{mode}"
        self._target = target
        role, port = MESH[mode]
        host = target.cloud.hosts["ctl-1"]
        where = target.cloud.engine.record
        profile = {"name": "tls", "caCertFile": str(target.shown["mesh"][0])}
        if way.shown:
            _, profile["certFile"], profile["privateKeyFile"] = map(str, target.shown[way.shown])
        door = {"name": "door", "host": ADDRESS, "port": clouds.PORT, "role": "normal", "saslMechanisms": "PLAIN"}
        sasl = {"saslConfigDir": str(host.path(where.sasl_dir)), "saslConfigName": where.program}
        connector = {"name": "in", "host": "127.0.43.10", "port": port, "role": role, "verifyHostname": False}
        config = [
            ["router", {"id": self.name, "mode": mode, "workerThreads": 1, **sasl}],
            ["sslProfile", profile],
            ["listener", {**door, "authenticatePeer": True}],
            ["connector", {**connector, **way.connector}],
        ]
        path = target.directory / f"{self.name}.json"
        path.write_text(json.dumps(config))
        command = routers.find(target.cloud.engine) or ()
        self._process = target.cloud.supervisor.start(self.name, [*command, "-c", str(path)], layout.ROUTER_ENVIRONMENT)

    def __enter__(self) -> Rogue:
        return self

    def __exit__(self, *exception: object) -> None:
        self._target.cloud.supervisor.end(self._process)

    def said(self) -> tuple[str, str]:
        """Return the state of its connector and the last message about it."""
        d = self._target.cloud.all.deployment
        user = f"{model.ADMIN_USER}@{router.REALM}"
        login = amqp.Login(ADDRESS, clouds.PORT, "", user, d.router.admin_password, d.router.engine)
        with contextlib.suppress(errors.Unreachable), amqp.Client(login) as client:
            (row,) = client.query("connector")
            return str(row["connectionStatus"]), str(row.get("connectionMsg") or "")
        return "", ""


@pytest.mark.parametrize("mode", MESH)
def test_one_of_the_mesh_gets_in(target: Target, mode: str) -> None:
    """The accepted counterpart of all tests below: the same router and names, with a certificate of the mesh."""
    with Rogue(target, mode, OWN) as own:
        processes.wait_until("it is in", lambda: own.name in target.connections(), TRY_SECONDS, interval=0.2)
        if mode == "interior":
            processes.wait_until("it is known", lambda: own.name in target.reached(), TRY_SECONDS, interval=0.2)
        assert own.said()[0] == "SUCCESS"


@pytest.mark.parametrize("mode", MESH)
@pytest.mark.parametrize("way", WAYS)
def test_a_rogue_does_not(target: Target, mode: str, way: str) -> None:
    with Rogue(target, mode, WAYS[way]) as rogue:
        seen: list[str] = []

        def refused() -> bool:
            seen.extend(target.connections())
            status, words = rogue.said()
            assert status != "SUCCESS"
            return bool(words)

        processes.wait_until("it is refused", refused, TRY_SECONDS, interval=0.1)
        refused()
        assert rogue.name not in seen
        print(f"{target.cloud.engine.value} {mode}, {way}: {rogue.said()[1]}")


@pytest.mark.parametrize("mode", MESH)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("user", ["rpc", model.ADMIN_USER])
def test_a_client_does_not_log_in_where_routers_do(target: Target, mode: str, tls: bool, user: str) -> None:
    d = target.cloud.all.deployment
    password = model.Secret(PASSWORD) if user == "rpc" else d.router.admin_password

    def login(port: int, ca: pathlib.Path, tls: bool) -> amqp.Login:
        return amqp.Login(
            "127.0.43.10", port, "ctl-1", f"{user}@{router.REALM}", password, d.router.engine, tls, str(ca)
        )

    with pytest.raises(amqp.Unreachable):
        amqp.Client(login(MESH[mode][1], target.shown["mesh"][0], tls))
    with amqp.Client(login(clouds.PORT, target.shown["client"][0], True)) as client:
        assert client.container == "ctl-1"


@pytest.mark.parametrize("mode", MESH)
@pytest.mark.parametrize("environment", [layout.ROUTER_ENVIRONMENT, {}], ids=["as it is started", "as proton would"])
def test_certificates_of_the_systems_authorities(
    target: Target, mode: str, environment: dict[str, str], tmp_path: pathlib.Path
) -> None:
    """Without `layout.ROUTER_ENVIRONMENT`, a router would accept any certificate that the system trusts."""
    if os.geteuid() != 0:
        pytest.skip("another set of authorities needs root (a mount namespace)")
    trusted = tmp_path / "certs"
    trusted.mkdir()
    shutil.copy(target.shown["client"][0], trusted / "ca.pem")
    subprocess.run(["openssl", "rehash", str(trusted)], check=True, timeout=60)
    within = ("unshare", "--mount", "sh", "-c", f'mount --bind "{trusted}" /etc/ssl/certs && exec "$@"', "sh")
    cloud, engine = target.cloud, target.cloud.engine
    usual = cloud.routers["ctl-1"].process
    assert usual
    cloud.supervisor.end(usual)
    argv = [*within, *(routers.find(engine) or ()), "-c", str(cloud.config("ctl-1"))]
    process = cloud.supervisor.start("router-trusting", argv, environment)
    try:
        address = ("127.0.43.10", clouds.PORT)
        processes.wait_until("it listens", lambda: sockets.is_open(address), TRY_SECONDS, [process])
        with Rogue(target, mode, WAYS["a client's certificate"]) as rogue:

            def decided(rogue: Rogue = rogue) -> bool:
                return rogue.name in target.connections() or bool(rogue.said()[1])

            processes.wait_until("it is in or refused", decided, TRY_SECONDS, interval=0.2)
            assert (rogue.name in target.connections()) is not bool(environment)
    finally:
        cloud.supervisor.end(process)
        cloud.start("ctl-1")
