"""Every fault that verify tells apart, made with the real engines."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import typing

import pytest
from om_agent import model
from om_agent.plan import layout

from testbed import processes, routers
from tests.router import cloud as clouds

pytestmark = [pytest.mark.router, pytest.mark.timeout(240)]

NODES = {"ctl-1": "controller", "ctl-2": "controller", "ctl-3": "controller", "cmp-1": "compute"}
OTHER = {model.Engine.QDROUTERD: model.Engine.SKROUTERD, model.Engine.SKROUTERD: model.Engine.QDROUTERD}


class Made(typing.NamedTuple):
    """A cloud of which all routers run."""

    cloud: clouds.Cloud
    metadata: pathlib.Path


@pytest.fixture
def made(engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path) -> Made:
    cloud = clouds.Cloud(supervisor, tmp_path, engine, "127.0.42", NODES, bare=True)
    metadata = cloud.metadata(*NODES)
    for name in NODES:
        cloud.apply(name, metadata)
    return Made(cloud, metadata)


def test_all_is_well_on_every_node_with_messages(
    engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path
) -> None:
    cloud = clouds.Cloud(supervisor, tmp_path, engine, "127.0.42", NODES, notify={"scheme": "amqp"})
    metadata = cloud.metadata(*NODES)
    for name in NODES:
        cloud.apply(name, metadata)
    cloud.start(*NODES)  # and do not wait: verify does
    for name in NODES:
        code, _, done = cloud.verify(name, metadata, seconds=40)
        probes = json.loads(done.output)["probes"]
        assert code == 0
        assert sorted((p["half"], p["to"]) for p in probes) == [
            ("notify", ""), ("rpc", "ctl-1"), ("rpc", "ctl-2"), ("rpc", "ctl-3"),
        ]  # fmt: skip
    status = json.loads(cloud.agent("cmp-1", "status", metadata, "--json").output)
    assert status["router"]["mode"] == "edge"
    assert [(i["name"], i["reached"]) for i in status["router"]["interiors"]] == [
        ("ctl-1", True), ("ctl-2", True), ("ctl-3", True),
    ]  # fmt: skip


def test_a_router_that_does_not_run(made: Made) -> None:
    code, found, _ = made.cloud.verify("ctl-1", made.metadata)
    assert code == 3
    assert "no router listens at 127.0.42.10:31459" in found["router-down"]
    assert "systemctl status" in found["router-down"]


def test_a_peer_is_waited_for_and_then_told(made: Made) -> None:
    cloud = made.cloud
    cloud.start("ctl-1", "ctl-3")
    code, found, _ = cloud.verify("ctl-1", made.metadata, seconds=12)
    assert code == 3
    assert "peer-down" in found, found
    assert found["peer-down"].startswith("router on ctl-2: no router listens on ctl-2")
    options = ("--node", "ctl-1", "--root", cloud.hosts["ctl-1"].root, "--relocate", "--no-services")
    waiting = cloud.begin("ctl-1", "verify", made.metadata, "--timeout", "60", *options)
    assert waiting.wait(3) is None
    cloud.start("ctl-2")
    assert cloud.supervisor.finish(waiting, 60).returncode == 0


def test_files_and_running_router_differ(made: Made) -> None:
    cloud = made.cloud
    cloud.start(*NODES)
    cloud.converge()
    with cloud.routers["ctl-3"].manage() as client:
        client.delete("connector", "inter-router/ctl-1")
        client.create("router.config.address", "stray", {"prefix": "stray", "distribution": "multicast"})
    code, found, _ = cloud.verify("ctl-3", made.metadata)
    assert code == 3
    assert "this would make it so: - address stray; + connector inter-router/ctl-1" in found["router-drift"]
    assert "om-agent drain --undo" in found["router-drift"]
    assert cloud.agent("ctl-3", "drain", made.metadata, "--undo").returncode == 0
    assert cloud.verify("ctl-3", made.metadata, seconds=20)[0] == 0

    cloud.config("ctl-3").write_text("[]")
    _, found, _ = cloud.verify("ctl-3", made.metadata)
    assert "1 things on disk" in found["config-differs"]
    assert "Run om-agent apply" in found["config-differs"]


def test_two_routers_with_one_id(made: Made) -> None:
    cloud = made.cloud
    config = cloud.config("ctl-3")
    config.write_text(config.read_text().replace('"id": "ctl-3"', '"id": "ctl-2"'))
    cloud.start(*NODES)
    code, found, _ = cloud.verify("ctl-1", made.metadata, seconds=15)
    assert code == 3
    assert "two routers are called" in found["duplicate-id"]
    assert '"ctl-2"' in found["duplicate-id"]
    _, found, _ = cloud.verify("ctl-3", made.metadata)
    assert "calls itself" in found["router-stranger"]


def test_another_engine_in_the_mesh(made: Made, engine: model.Engine) -> None:
    cloud, other = made.cloud, OTHER[engine]
    clouds.need(other)
    foreign = cloud.metadata(*NODES, router={"engine": other.value})
    cloud.apply("ctl-2", foreign)
    cloud.start("ctl-1", "ctl-3")
    config = cloud.hosts["ctl-2"].path(layout.ENGINES[other].config)
    cloud.supervisor.start("router-foreign", [*(routers.find(other) or ()), "-c", str(config)])
    code, found, _ = cloud.verify("ctl-1", made.metadata, seconds=15)
    assert code == 3
    assert f"it does not route together with {engine.value}" in found["other-engine"]
    assert "one router.engine" in found["other-engine"]


def test_another_mesh_password(made: Made) -> None:
    cloud = made.cloud
    admin = model.derive(model.Secret("rpc-secret"), "router mesh")
    admin = model.derive(model.Secret(admin), "router admin")
    alien = cloud.metadata(*NODES, router={"mesh_password": "another-secret", "admin_password": admin})
    cloud.apply("ctl-2", alien)
    cloud.start("ctl-1", "ctl-2", "ctl-3")
    code, found, done = cloud.verify("ctl-1", made.metadata, seconds=15)
    assert code == 3
    assert "router.mesh_password" in found["peer-credentials"]
    assert "another-secret" not in done.output and admin not in done.output

    cloud.stop("ctl-2")
    cloud.apply("ctl-2", cloud.metadata(*NODES, router={"mesh_password": "another-secret"}))
    cloud.start("ctl-2")
    _, found, _ = cloud.verify("ctl-1", made.metadata, seconds=4)
    assert "passwords of another deployment" in found["peer-login"]


# -- TLS -------------------------------------------------------------------------------------------------------------


def openssl(directory: pathlib.Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=60)


def authority(directory: pathlib.Path, name: str) -> None:
    """Make a CA."""
    new = ("-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    openssl(directory, "req", "-x509", *new, "-subj", f"/CN={name}", "-days", "2")


def certificate(directory: pathlib.Path, ca: str, days: int = 2) -> dict[str, str]:
    """Make a certificate for all names; returns the metadata's ``tls``."""
    (directory / "ext").write_text("subjectAltName=" + ",".join(f"DNS:{n}" for n in NODES))
    openssl(directory, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "k.pem", "-out", "r.pem", "-subj", "/CN=r")
    sign = ("-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-days", str(days), "-extfile", "ext")
    openssl(directory, "x509", "-req", "-in", "r.pem", *sign, "-out", "c.pem")
    files = {"ca": f"{ca}.pem", "certificate": "c.pem", "key": "k.pem"}
    return {key: (directory / file).read_text() for key, file in files.items()}


def test_certificates(engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("making names resolve needs root (a mount namespace with its own /etc/hosts)")
    authority(tmp_path, "ca")
    authority(tmp_path, "alien")
    hosts = [f"127.0.42.{10 + i} {name}" for i, name in enumerate(NODES)]
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n" + "\n".join(hosts) + "\n")
    within = ("unshare", "--mount", "sh", "-c", f'mount --bind "{tmp_path}/hosts" /etc/hosts && exec "$@"', "sh")
    good = certificate(tmp_path, "ca")
    tls = {"rpc": {"scheme": "amqp", "username": "rpc", "password": "rpc-secret", "tls": True}, "tls": good}
    cloud = clouds.Cloud(supervisor, tmp_path, engine, "127.0.42", NODES, within, bare=True, **tls)
    metadata = cloud.metadata(*NODES)
    for name in NODES:
        cloud.apply(name, metadata)
    cloud.start(*NODES)
    assert cloud.verify("ctl-1", metadata, seconds=40)[:2] == (0, {})

    # A new certificate, of the same authority: the running routers take it without a restart.
    renewed = cloud.metadata(*NODES, tls=certificate(tmp_path, "ca"))
    pids = cloud.pids()
    for name in NODES:
        said = cloud.apply(name, renewed)
        assert "certificates are read anew" in said
        assert "could not be changed" not in said
    assert cloud.pids() == pids
    assert cloud.verify("ctl-1", renewed, seconds=20)[:2] == (0, {})

    # One of another authority, on one node.
    cloud.stop("ctl-2")
    cloud.apply("ctl-2", cloud.metadata(*NODES, tls=certificate(tmp_path, "alien")))
    cloud.start("ctl-2")
    code, found, _ = cloud.verify("ctl-1", renewed, seconds=6)
    assert code == 3
    assert "TLS between the routers here and on ctl-2 fails" in found.get("peer-certificate", ""), found
    assert "openssl x509 -noout -enddate" in found["peer-certificate"]

    # One that has expired, on this node itself.
    cloud.stop("ctl-3")
    expired = cloud.metadata(*NODES, tls=certificate(tmp_path, "ca", days=-1))
    cloud.apply("ctl-3", expired)
    cloud.start("ctl-3")
    _, found, _ = cloud.verify("ctl-3", expired)
    assert "is expired, of another authority" in found["router-certificate"]
