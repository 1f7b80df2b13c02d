"""What the agent renders for three controllers and a compute, run by the real engines: it starts, meshes,
authenticates, encrypts."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing

import pytest
from om_agent import amqp, errors, model, parse, verify
from om_agent.plan import router

from testbed import processes, routers
from tests.support import waiting

pytestmark = pytest.mark.router

ENGINES = (model.Engine.QDROUTERD, model.Engine.SKROUTERD)
NAMES = ("c-1", "c-10", "c-2")  # two of them contain one another
EDGE = "c-11"
PASSWORD = "p@:/?#%$\"'{}\\ ü"
MESH_PASSWORD = "secret-of-the-mesh"
PORT = 31459


class Mesh(typing.NamedTuple):
    """A running mesh."""

    engine: model.Engine
    tls: bool
    directory: pathlib.Path
    admin_password: model.Secret

    def client(self, i: int, user: str, password: model.Secret, tls: bool) -> amqp.Client:
        """Log in to the management of the i-th router."""
        ca = str(self.directory / "ca.pem") if tls else ""
        name = (*NAMES, EDGE)[i]
        login = amqp.Login(address(i), PORT, name, f"{user}@{router.REALM}", password, self.engine, tls, ca)
        return amqp.Client(login)

    def admin(self, i: int) -> amqp.Client:
        """Log in as the agent does."""
        return self.client(i, model.ADMIN_USER, self.admin_password, self.tls)

    def reached(self, i: int) -> list[str]:
        """Return the interior routers that the i-th one reaches."""
        try:
            with self.admin(i) as client:
                return sorted(verify.reachable(client.query("router.node"), client.container))
        except errors.Unreachable:
            return []

    def edges(self, i: int) -> set[str]:
        """Return the ids of the edge routers that are connected to the i-th one."""
        with self.admin(i) as client:
            return {row["container"] for row in client.query("connection") if row["role"] == "edge" and row["opened"]}


def address(i: int) -> str:
    """Return the address of the i-th node."""
    return f"127.0.34.{10 + i}"


def certificates(directory: pathlib.Path) -> None:
    """Make a CA and a certificate for all the names."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=60)

    (directory / "ext").write_text("subjectAltName=" + ",".join(f"DNS:{n}" for n in (*NAMES, EDGE)))
    new = ("-newkey", "rsa:2048", "-nodes")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test", "-days", "2")
    openssl("req", *new, "-keyout", "key.pem", "-out", "csr.pem", "-subj", "/CN=router")
    sign = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
    openssl("x509", "-req", "-in", "csr.pem", *sign, "-out", "cert.pem")


def names_resolve(directory: pathlib.Path) -> tuple[str, ...]:
    """Return the command prefix under which the names resolve: a mount namespace with a hosts file of its own."""
    if os.geteuid() != 0:
        pytest.skip("making names resolve needs root (a mount namespace with its own /etc/hosts)")
    lines = [f"{address(i)} {name}" for i, name in enumerate((*NAMES, EDGE))]
    (directory / "hosts").write_text("127.0.0.1 localhost\n" + "\n".join(lines) + "\n")
    script = f'mount --bind "{directory}/hosts" /etc/hosts && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, "sh")


def metadata(engine: model.Engine, tls: bool, directory: pathlib.Path) -> dict[str, dict[str, object]]:
    """Return the metadata of three controllers."""
    deployment: dict[str, object] = {
        "rpc": {"scheme": "amqp", "username": "rpc", "password": PASSWORD, "port": PORT, "tls": tls},
        "notify": {"scheme": "rabbit", "password": "n", "hosts": ["127.0.0.1"], "tls": False},
        "router": {"engine": engine.value, "http_port": 0, "mesh_password": MESH_PASSWORD},
        "nodes": [
            {"name": name, "address": address(i), "role": "compute" if name == EDGE else "controller"}
            for i, name in enumerate((*NAMES, EDGE))
        ],
    }
    if tls:
        files = {"ca": "ca.pem", "certificate": "cert.pem", "key": "key.pem"}
        deployment["tls"] = {key: (directory / file).read_text() for key, file in files.items()}
    return {"oslo_messaging": deployment}


def apply(directory: pathlib.Path, name: str) -> pathlib.Path:
    """Make one node's files; return its root directory."""
    root = directory / name
    root.mkdir()
    argv = [sys.executable, "-m", "om_agent", "apply", "--metadata", str(directory / "metadata.json")]
    argv += ["--node", name, "--root", str(root), "--relocate"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="module", params=[(e, tls) for e in ENGINES for tls in (False, True)],
                ids=lambda p: f"{p[0].value}-{'tls' if p[1] else 'plain'}")  # fmt: skip
def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[Mesh]:
    """Start three routers from rendered files."""
    engine, tls = request.param
    command = routers.find(engine)
    if not command:
        pytest.skip(f"no {engine.value} on PATH or named by OM_{engine.value.upper()}")
    directory = tmp_path_factory.mktemp(engine.value)
    if tls:
        certificates(directory)
    raw = metadata(engine, tls, directory)
    (directory / "metadata.json").write_text(json.dumps(raw))
    within = names_resolve(directory) if tls else ()
    with processes.Supervisor(directory / "logs") as supervisor:
        for name in (*NAMES, EDGE):
            config = apply(directory, name) / engine.record.config.lstrip("/")
            supervisor.start(name, [*within, *command, "-c", str(config)])
        yield Mesh(engine, tls, directory, parse.deployment(raw["oslo_messaging"]).router.admin_password)


def wait(mesh: Mesh, what: typing.Callable[[], bool]) -> None:
    """Wait for a condition; on timeout fail with the routers' logs."""

    def report() -> str:
        logs = "\n".join(p.read_text(errors="replace")[-1500:] for p in (mesh.directory / "logs").iterdir())
        return f"reached: {[mesh.reached(i) for i in range(3)]}\n{logs}"

    # A connector that is refused at first tries again after 5 to 10 s.
    waiting.until(what, 60, report, interval=0.5)


def test_mesh_converges(mesh: Mesh) -> None:
    wait(mesh, lambda: all(mesh.reached(i) == sorted(NAMES) for i in range(3)))


def test_the_edge_has_both_uplinks(mesh: Mesh) -> None:
    wait(mesh, lambda: all(mesh.reached(i) for i in range(3)))
    wait(mesh, lambda: [mesh.edges(i) for i in range(3)].count({EDGE}) == 2)
    with mesh.admin(3) as client:
        assert [row["mode"] for row in client.query("router")] == ["edge"]


@pytest.mark.parametrize("i", [0, 3], ids=["interior", "edge"])
@pytest.mark.parametrize(("user", "password"), [("rpc", "wrong"), ("nobody", PASSWORD), (model.ADMIN_USER, PASSWORD)])
def test_wrong_credentials_are_refused(mesh: Mesh, user: str, password: str, i: int) -> None:
    wait(mesh, lambda: bool(mesh.reached(0)))
    with pytest.raises(amqp.Unreachable) as caught:
        mesh.client(i, user, model.Secret(password), mesh.tls)
    assert caught.value.kind == amqp.LOGIN
    with mesh.client(i, "rpc", model.Secret(PASSWORD), mesh.tls):
        pass


def test_plaintext_to_a_tls_listener_is_refused(mesh: Mesh) -> None:
    if not mesh.tls:
        pytest.skip("without TLS there is nothing to refuse")
    with pytest.raises(amqp.Unreachable):
        mesh.client(0, "rpc", model.Secret(PASSWORD), tls=False)


def test_no_password_is_shown(mesh: Mesh) -> None:
    for log in (mesh.directory / "logs").iterdir():
        text = log.read_text(errors="replace")
        assert PASSWORD not in text
        assert MESH_PASSWORD not in text
