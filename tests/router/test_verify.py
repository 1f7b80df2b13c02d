"""Every fault that verify distinguishes, produced with the real engines."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import typing

import pytest
from om_agent import model

from testbed import overcloud, processes, routers
from testbed.recovery import network
from tests.router import cloud as clouds
from tests.support import tls

pytestmark = [pytest.mark.router, pytest.mark.timeout(240)]

NODES = {"ctl-1": "controller", "ctl-2": "controller", "ctl-3": "controller", "cmp-1": "compute"}
OTHER = {model.Engine.QDROUTERD: model.Engine.SKROUTERD, model.Engine.SKROUTERD: model.Engine.QDROUTERD}


class Made(typing.NamedTuple):
    """A cloud whose routers all run."""

    cloud: clouds.Cloud
    metadata: pathlib.Path


@pytest.fixture(params=(*clouds.ENGINES, model.Engine.EMBEDDED), ids=lambda e: e.value)
def any_engine(request: pytest.FixtureRequest) -> model.Engine:
    """The development router too."""
    clouds.need(request.param)
    return typing.cast("model.Engine", request.param)


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


def test_routers_that_die(made: Made) -> None:
    """An interior and an edge router, after kill -9: as their own nodes and the others see it."""
    cloud = made.cloud
    cloud.start(*NODES)
    cloud.converge()
    for name in ("ctl-2", "cmp-1"):
        cloud.routers[name].kill()
    code, found, _ = cloud.verify("ctl-1", made.metadata)
    assert (code, set(found)) == (3, {"peer-down"})  # a dead edge router concerns its own node alone
    assert found["peer-down"].startswith(
        "router on ctl-2: no router listens on ctl-2, so calls do not reach it. Run om-"
    )
    for name in ("ctl-2", "cmp-1"):
        code, found, _ = cloud.verify(name, made.metadata)
        assert (code, set(found)) == (3, {"router-down"})


def verdict(done: processes.Finished) -> str:
    return str(json.loads(done.output)["verdict"])


def said_at_last(
    cloud: clouds.Cloud, name: str, metadata: pathlib.Path, expected: set[str]
) -> tuple[int, set[str], str]:
    """Run verify until it finds the expected codes, for at most 20 s; return exit code, codes and verdict."""
    deadline = time.monotonic() + 20
    while True:
        code, found, done = cloud.verify(name, metadata)
        if set(found) == expected or time.monotonic() > deadline:
            return code, set(found), verdict(done)


def test_every_node_says_the_same_of_a_dead_interior(
    engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path
) -> None:
    """Edges with and without an uplink to it, and interiors; verify, status, and its own node."""
    edges = {f"cmp-{n}": "compute" for n in range(1, 5)}
    nodes = {**{n: r for n, r in NODES.items() if r == "controller"}, **edges}
    cloud = clouds.Cloud(supervisor, tmp_path, engine, "127.0.42", nodes, bare=True)
    metadata = cloud.metadata(*nodes)
    for name in nodes:
        cloud.apply(name, metadata)
    cloud.start(*nodes)
    cloud.converge()
    for name in nodes:
        code, found, done = cloud.verify(name, metadata, seconds=30)
        assert (code, found, verdict(done)) == (0, {}, "works"), (name, found)

    uplinks = {name: cloud.config(name).read_text().count('"uplink/ctl-2"') for name in edges}
    assert set(uplinks.values()) == {0, 1}
    cloud.routers.pop("ctl-2").kill()
    for name in sorted(set(nodes) - {"ctl-2"}):
        # Routes through the dead one are used until the others miss its greetings, for 3 s or more.
        seen = said_at_last(cloud, name, metadata, {"peer-down"})
        assert seen == (3, {"peer-down"}, "degraded"), (name, uplinks.get(name), seen)
        status = cloud.agent(name, "status", metadata, "--json")
        assert (status.returncode, verdict(status)) == (3, "degraded"), name
        text = cloud.agent(name, "verify", metadata, "--timeout", "1").output
        assert f"{name}: messaging is degraded: it works, and redundancy is lost: 1 fault" in text
    code, found, done = cloud.verify("ctl-2", metadata)
    assert (code, set(found), verdict(done)) == (3, {"router-down"}, "broken")

    said = cloud.agent("ctl-1", "topology", metadata, "--live", "--format", "json").output
    picture, _ = json.JSONDecoder().raw_decode(said)
    losses = {tuple(loss["of"]): set(loss["cuts_off"]) for loss in picture["losses"]}
    alone = {name for name, count in uplinks.items() if count}
    assert set().union(*(losses.get((n,), set()) for n in ("ctl-1", "ctl-3"))) == alone


def test_an_edge_that_lost_an_uplink(made: Made) -> None:
    """Both its interiors are up: it alone has lost its redundancy."""
    cloud = made.cloud
    cloud.start(*NODES)
    cloud.converge()
    assert cloud.verify("cmp-1", made.metadata, seconds=30)[:2] == (0, {})
    uplinks = [a["name"] for kind, a in json.loads(cloud.config("cmp-1").read_text()) if kind == "connector"]
    lost = uplinks[0].partition("/")[2]
    with cloud.routers[lost].manage() as client:
        client.delete("listener", "edge")
        names = {row["name"]: row for row in client.query("listener")}
        assert "edge" not in names, names
    with cloud.routers["cmp-1"].manage() as client:  # what is connected stays so
        kept = next(a for kind, a in json.loads(cloud.config("cmp-1").read_text()) if a.get("name") == uplinks[0])
        client.delete("connector", uplinks[0])
        client.create("connector", uplinks[0], kept)
    assert said_at_last(cloud, "cmp-1", made.metadata, {"link-down"}) == (3, {"link-down"}, "degraded")
    other = next(n for n in NODES if n not in ("cmp-1", lost))
    assert cloud.verify(other, made.metadata, seconds=10)[0] == 0


def test_a_router_that_hangs(made: Made) -> None:
    cloud = made.cloud
    cloud.start(*NODES)
    cloud.converge()
    process = cloud.routers["ctl-2"].process
    assert process
    process.signal(signal.SIGSTOP)
    for name, code in (("ctl-1", "peer-hung"), ("ctl-2", "router-hung")):
        begun = time.monotonic()
        ended, found, _ = cloud.verify(name, made.metadata)
        assert time.monotonic() - begun < 40
        assert ended == 3 and code in found and set(found) <= {code, "peer-partial", "link-down"}, found
    process.signal(signal.SIGCONT)
    assert cloud.verify("ctl-1", made.metadata, seconds=40)[:2] == (0, {})


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
    assert (
        "these changes would make it the same: - address stray; + connector inter-router/ctl-1" in found["router-drift"]
    )
    assert "om-agent drain --undo" in found["router-drift"]
    assert cloud.agent("ctl-3", "drain", made.metadata, "--undo").returncode == 0
    assert cloud.verify("ctl-3", made.metadata, seconds=20)[0] == 0

    cloud.config("ctl-3").write_text("[]")
    _, found, _ = cloud.verify("ctl-3", made.metadata)
    assert "1 things on disk" in found["config-differs"]
    assert "Run om-agent apply" in found["config-differs"]


def test_a_drain_that_is_interrupted(made: Made) -> None:
    """The message is true, and its remedy works."""
    cloud = made.cloud
    uplinks = [a["name"] for kind, a in json.loads(cloud.config("cmp-1").read_text()) if kind == "connector"]
    name = uplinks[0].partition("/")[2]
    cloud.start(name, "cmp-1")  # whose edge router has nowhere else to go
    processes.wait_until("the edge is connected", cloud.routers["cmp-1"].has_uplink, 40, interval=0.3)
    options = ("--node", name, "--root", cloud.hosts[name].root, "--relocate", "--no-services")
    draining = cloud.begin(name, "drain", made.metadata, "--timeout", "60", *options)
    address = cloud.routers[name].address
    processes.wait_until("the listener is gone", lambda: clouds.free(address), 30, [draining])
    draining.signal(signal.SIGTERM)
    done = cloud.supervisor.finish(draining, 30)
    assert done.returncode == 1
    assert "interrupted; the running router may be drained, wholly or by half; om-agent drain --undo" in done.output
    assert "router-drained" in cloud.verify(name, made.metadata)[1]
    assert cloud.agent(name, "drain", made.metadata, "--undo").returncode == 0
    assert set(cloud.verify(name, made.metadata)[1]) == {"peer-down"}


def test_a_certificate_by_path_that_was_renewed(
    any_engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path
) -> None:
    """Whoever renews it may not know of the router: told until it is restarted, where it does not read files anew."""
    name = "c-1"
    paths = {key: tmp_path / key for key in ("ca_file", "certificate_file", "key_file")}

    def renew() -> None:
        pair = tls.authority().issue(name)
        for path, text in zip(paths.values(), (tls.authority().pem, pair.certificate, pair.key)):
            path.write_text(text)

    renew()
    # Under a command of its own nodes are known by their names, which TLS wants; nobody looks this one up.
    given = {"rpc": {"scheme": "amqp", "username": "rpc", "password": "rpc-secret", "port": clouds.PORT, "tls": True}}
    given["tls"] = {key: str(path) for key, path in paths.items()}
    cloud = clouds.Cloud(supervisor, tmp_path, any_engine, "127.0.65", {name: "controller"}, ("env",), True, **given)
    metadata = cloud.metadata(name)
    cloud.apply(name, metadata)
    cloud.start(name)
    assert "stale-certificate" not in warnings(cloud.verify(name, metadata)[2])
    renew()
    told = warnings(cloud.verify(name, metadata)[2])
    reads_anew = any_engine is model.Engine.QDROUTERD  # for every connection
    assert ("stale-certificate" in told) is not reads_anew
    if not reads_anew:
        shown = f"at 127.0.65.10:{clouds.PORT} still shows an old certificate, not the present one in"
        assert f"{shown} {paths['certificate_file']}" in told["stale-certificate"]
    cloud.stop(name)
    cloud.start(name)
    assert "stale-certificate" not in warnings(cloud.verify(name, metadata)[2])


def test_two_routers_with_one_id(made: Made) -> None:
    cloud = made.cloud
    config = cloud.config("ctl-3")
    config.write_text(config.read_text().replace('"id": "ctl-3"', '"id": "ctl-2"'))
    cloud.start(*NODES)
    code, found, _ = cloud.verify("ctl-1", made.metadata, seconds=15)
    assert code == 3
    assert "two routers have the name" in found["duplicate-id"]
    assert '"ctl-2"' in found["duplicate-id"]
    _, found, _ = cloud.verify("ctl-3", made.metadata)
    assert "calls itself" in found["router-stranger"]


def test_a_copied_router_beside_the_original(made: Made) -> None:
    """As `testbed.recovery.cases.same_id` makes it: the mesh looks whole, and two are called ctl-2."""
    cloud = made.cloud
    cloud.start(*NODES)
    cloud.converge()
    entities = json.loads(cloud.config("ctl-2").read_text())
    moved = [(k, {**a, "port": int(a["port"]) + 10} if k == "listener" else a) for k, a in entities]
    known = next(a for k, a in entities if k == "connector")
    third = ("connector", {**known, "name": "copy", "host": cloud.nodes["ctl-3"]["host"]})
    copy = cloud.directory / "copy.json"
    copy.write_text(json.dumps([*moved, third]))
    cloud.supervisor.start("router-copy", [*(routers.find(cloud.engine) or ()), "-c", str(copy)])
    seen = {name: cloud.verify(name, made.metadata, seconds=15)[1] for name in ("ctl-1", "ctl-3")}
    assert any('two routers have the name "ctl-2"' in found.get("duplicate-id", "") for found in seen.values()), seen


class Apart(clouds.Cloud):
    """A cloud whose nodes each have their own network."""

    net: network.Network

    def begin(self, name: str, command: str, *arguments: str | pathlib.Path) -> processes.Process:
        """Start the agent on its node."""
        argv = [*self.net.within(name), sys.executable, "-m", "om_agent", command, *map(str, arguments)]
        return self.supervisor.start(f"{command}-{self._count}-{name}", argv, overcloud.python_environment())


def warnings(done: processes.Finished) -> dict[str, str]:
    """The warnings of a verify that are about routers, as path and message by code."""
    found = [f for f in json.loads(done.output)["findings"] if f["severity"] == "warning" and "router on" in f["path"]]
    return {f["code"]: f"{f['path']}: {f['message']}" for f in found}


@pytest.mark.timeout(480)
def test_links_that_are_cut(engine: model.Engine, supervisor: processes.Supervisor, tmp_path: pathlib.Path) -> None:
    """Packets are dropped silently, as by a firewall: first between two routers, then from all to one."""
    if os.geteuid() != 0:
        pytest.skip("networks that can be cut need root")
    with network.isolated():
        net = network.Network({name: f"{network.NETWORK}.{10 + i}" for i, name in enumerate(NODES)})
        try:
            cloud = Apart(supervisor, tmp_path, engine, network.NETWORK, NODES, bare=True)
            cloud.net = net
            cloud.hosts = {n: dataclasses.replace(h, within=net.within(n)) for n, h in cloud.hosts.items()}
            cut_links(cloud)
        finally:
            supervisor.end_all()
            net.close()


def linked(cloud: Apart, name: str) -> set[str]:
    """The routers to which one has a connection."""
    with cloud.routers[name].manage() as client:
        return {row["container"] for row in client.query("connection") if row["role"] == "inter-router"}


def cut_links(cloud: Apart) -> None:
    metadata = cloud.metadata(*NODES)
    for name in NODES:
        cloud.apply(name, metadata)
    cloud.start(*NODES)
    cloud.converge()
    code, found, done = cloud.verify("ctl-2", metadata, seconds=20)
    assert (code, found, warnings(done)) == (0, {}, {})

    # At first it is an open connection on which nothing comes; when that has timed out, there is another way.
    cloud.net.cut(["ctl-1"], ["ctl-2"])
    code, found, _ = cloud.verify("ctl-1", metadata)
    assert code == 3 and "peer-hung" in found and set(found) <= {"peer-hung", "peer-partial", "link-down"}, found
    processes.wait_until("the two are apart", lambda: "ctl-1" not in linked(cloud, "ctl-2"), 60, interval=1)
    processes.wait_until("there is another way", lambda: "ctl-1" in cloud.routers["ctl-2"].peers(), 60, interval=1)
    for name in NODES:  # the one that opens the connection, the one at its other end, and those that see it in the mesh
        code, found, done = cloud.verify(name, metadata, seconds=10)
        assert (code, set(found), verdict(done)) == (3, {"link-down"}, "degraded"), (name, found)
        assert found["link-down"].startswith(
            "router on ctl-1: the connection from the router on ctl-2 to the one on ctl-1"
        )

    cloud.net.cut(["ctl-2"], ["ctl-3", "cmp-1"])
    for name in ("ctl-1", "ctl-2", "cmp-1"):
        code, found, done = cloud.verify(name, metadata)
        assert code == 3 and "peer-hung" in found, (name, found)
        assert set(found) <= {"peer-hung", "peer-partial", "mesh-minority", "link-down"}, (name, found)
    processes.wait_until("ctl-2 is alone", lambda: cloud.reached("ctl-2") == set(), 60, interval=1)
    for name, expected in (("ctl-1", "degraded"), ("ctl-2", "broken"), ("cmp-1", "degraded")):
        assert verdict(cloud.verify(name, metadata)[2]) == expected, name
    cloud.net.heal()
    # A connector that was cut off for a minute waits as long again: Linux sends SYN after 1, 2, 4, 8, 16, 32, 64 s.
    code, found, done = cloud.verify("ctl-2", metadata, seconds=140)
    assert (code, found, warnings(done)) == (0, {}, {})


def test_another_engine_in_the_mesh(made: Made, engine: model.Engine) -> None:
    cloud, other = made.cloud, OTHER[engine]
    clouds.need(other)
    foreign = cloud.metadata(*NODES, router={"engine": other.value})
    cloud.apply("ctl-2", foreign)
    cloud.start("ctl-1", "ctl-3")
    config = cloud.hosts["ctl-2"].path(other.record.config)
    cloud.supervisor.start("router-foreign", [*(routers.find(other) or ()), "-c", str(config)])
    code, found, _ = cloud.verify("ctl-1", made.metadata, seconds=15)
    assert code == 3
    assert f"which cannot exchange messages with {engine.value}" in found["other-engine"]
    assert "the same router.engine" in found["other-engine"]


def test_another_mesh_password(made: Made) -> None:
    cloud = made.cloud
    admin = model.derive(model.Secret(str(clouds.ROUTER["mesh_password"])), "router admin")
    alien = cloud.metadata(*NODES, router={"mesh_password": "another-secret", "admin_password": admin})
    cloud.apply("ctl-2", alien)
    cloud.start("ctl-1", "ctl-2", "ctl-3")
    code, found, done = cloud.verify("ctl-1", made.metadata, seconds=15)
    assert code == 3
    said = found["peer-credentials"]
    assert "do not accept each other: the router on ctl-2 reports that a certificate was refused" in said
    assert "have different values of router.mesh_password, or a file of router.mesh_certificate_file is wrong" in said
    assert "openssl x509 -noout -issuer" in said and "mesh/certificate.pem on both" in said
    assert "another-secret" not in done.output and admin not in done.output
    _, found, _ = cloud.verify("ctl-2", made.metadata)
    assert {"config-differs", "peer-credentials"} <= set(found)

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
        assert "certificates are read anew: messaging" in said and "anew: mesh" not in said
        assert "could not be changed" not in said
    assert cloud.pids() == pids
    assert cloud.verify("ctl-1", renewed, seconds=20)[:2] == (0, {})

    # One of another authority, on one node: routers do not show it to each other.
    cloud.stop("ctl-2")
    cloud.apply("ctl-2", cloud.metadata(*NODES, tls=certificate(tmp_path, "alien")))
    cloud.start("ctl-2")
    assert cloud.verify("ctl-1", renewed, seconds=20)[:2] == (0, {})

    # One that has expired, as its own node sees it, and another one that does not reach it. The agent refuses it, so
    # it gets there as time does it: it was good when it was applied.
    cloud.stop("ctl-3")
    admin = cloud.all.deployment.router.admin_password.reveal()
    apart = {"mesh_password": "another-secret", "admin_password": admin}
    old = certificate(tmp_path, "ca", days=-1)
    refused = cloud.agent("ctl-3", "apply", cloud.metadata(*NODES, tls=old, router=apart))
    assert refused.returncode == 1 and "the certificate expired on" in refused.output
    expired = cloud.metadata(*NODES, router=apart)
    cloud.apply("ctl-3", expired)
    for key in ("certificate", "key"):
        cloud.hosts["ctl-3"].path(engine.record.tls(key)).write_text(old[key])
    cloud.start("ctl-3")
    _, found, _ = cloud.verify("ctl-3", expired)
    assert "has expired, or is of another authority" in found["router-certificate"]
    _, found, _ = cloud.verify("ctl-1", renewed)
    assert found["peer-certificate"].startswith("router on ctl-3: the router on ctl-3 cannot be asked over TLS: ")
    assert "its certificate is expired, of another authority" in found["peer-certificate"]
    assert "openssl x509 -noout -enddate" in found["peer-certificate"]
