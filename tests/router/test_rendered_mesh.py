"""What the agent renders for three controllers, run by the real engines: it starts, meshes, authenticates, encrypts."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time
import typing

import pytest
from om_agent import model
from om_agent.plan import layout, router

from testbed import processes, routers

pytestmark = pytest.mark.router

ENGINES = (model.Engine.QDROUTERD, model.Engine.SKROUTERD)
NAMES = ("c-1", "c-10", "c-2")  # two of them contain one another
PASSWORD = "p@:/?#%$\"'{}\\ ü"
PORT = 31459
_PREFIX = {model.Engine.QDROUTERD: "org.apache.qpid.dispatch.", model.Engine.SKROUTERD: "io.skupper.router."}


class Mesh(typing.NamedTuple):
    """A running mesh, and how programs have to be started to resolve its names."""

    engine: model.Engine
    tls: bool
    directory: pathlib.Path
    within: tuple[str, ...]

    def ask(self, i: int, user: str, password: str, tls: bool) -> subprocess.CompletedProcess[str]:
        """Ask the i-th router which others it reaches."""
        host = NAMES[i] if self.tls else address(i)
        ca = str(self.directory / "ca.pem") if tls else ""
        ask = pathlib.Path(__file__).with_name("ask.py")
        argv = [*self.within, sys.executable, str(ask), host, str(PORT), _PREFIX[self.engine], user, ca]
        return subprocess.run(argv, input=password, capture_output=True, text=True, timeout=30, check=False)

    def reached(self, i: int) -> list[str]:
        """Return which routers the i-th one reaches."""
        done = self.ask(i, f"rpc@{router.REALM}", PASSWORD, self.tls)
        return json.loads(done.stdout) if done.returncode == 0 else []


def address(i: int) -> str:
    """Return the address of the i-th node."""
    return f"127.0.34.{10 + i}"


def certificates(directory: pathlib.Path) -> None:
    """Make a CA and a certificate for all the names."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=60)

    (directory / "ext").write_text("subjectAltName=" + ",".join(f"DNS:{n}" for n in NAMES))
    new = ("-newkey", "rsa:2048", "-nodes")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test", "-days", "2")
    openssl("req", *new, "-keyout", "key.pem", "-out", "csr.pem", "-subj", "/CN=router")
    sign = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
    openssl("x509", "-req", "-in", "csr.pem", *sign, "-out", "cert.pem")


def names_resolve(directory: pathlib.Path) -> tuple[str, ...]:
    """Return the command prefix under which the names resolve: a mount namespace with a hosts file of its own."""
    if os.geteuid() != 0:
        pytest.skip("making names resolve needs root (a mount namespace with its own /etc/hosts)")
    lines = [f"{address(i)} {name}" for i, name in enumerate(NAMES)]
    (directory / "hosts").write_text("127.0.0.1 localhost\n" + "\n".join(lines) + "\n")
    script = f'mount --bind "{directory}/hosts" /etc/hosts && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, "sh")


def metadata(engine: model.Engine, tls: bool, directory: pathlib.Path) -> dict[str, object]:
    """Return the metadata of three controllers."""
    deployment: dict[str, object] = {
        "rpc": {"scheme": "amqp", "username": "rpc", "password": PASSWORD, "port": PORT, "tls": tls},
        "notify": {"scheme": "rabbit", "password": "n", "hosts": ["127.0.0.1"], "tls": False},
        "router": {"engine": engine.value, "http_port": 0},
        "nodes": [{"name": name, "address": address(i)} for i, name in enumerate(NAMES)],
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
    (directory / "metadata.json").write_text(json.dumps(metadata(engine, tls, directory)))
    within = names_resolve(directory) if tls else ()
    with processes.Supervisor(directory / "logs") as supervisor:
        for name in NAMES:
            config = apply(directory, name) / layout.ENGINES[engine].config.lstrip("/")
            supervisor.start(name, [*within, *command, "-c", str(config)])
        yield Mesh(engine, tls, directory, within)


def test_mesh_converges(mesh: Mesh) -> None:
    deadline = time.monotonic() + 45  # a connector that is refused at first tries again after 5 to 10 s
    while time.monotonic() < deadline:
        if all(mesh.reached(i) == sorted(NAMES) for i in range(3)):
            return
        time.sleep(0.5)
    logs = "\n".join(p.read_text(errors="replace")[-1500:] for p in (mesh.directory / "logs").iterdir())
    pytest.fail(f"reached: {[mesh.reached(i) for i in range(3)]}\n{logs}")


@pytest.mark.parametrize(("user", "password"), [("rpc", "wrong"), ("nobody", PASSWORD)])
def test_wrong_credentials_are_refused(mesh: Mesh, user: str, password: str) -> None:
    assert mesh.ask(0, f"{user}@{router.REALM}", password, mesh.tls).returncode != 0
    assert mesh.ask(0, f"rpc@{router.REALM}", PASSWORD, mesh.tls).returncode == 0


def test_plaintext_to_a_tls_listener_is_refused(mesh: Mesh) -> None:
    if not mesh.tls:
        pytest.skip("without TLS there is nothing to refuse")
    assert mesh.ask(0, f"rpc@{router.REALM}", PASSWORD, tls=False).returncode != 0


def test_no_password_is_shown(mesh: Mesh) -> None:
    mesh_password = model.derive(model.Secret(PASSWORD), "router mesh")
    for log in (mesh.directory / "logs").iterdir():
        text = log.read_text(errors="replace")
        assert PASSWORD not in text
        assert mesh_password not in text
