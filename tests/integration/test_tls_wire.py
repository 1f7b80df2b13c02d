"""TLS of RabbitMQ with rendered files, for clients and between brokers: each refusal next to an accepted case."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import pathlib
import re
import ssl
import subprocess
import sys
import typing
import warnings

import pytest
from om_agent.apply import listening
from om_agent.plan import layout

from testbed import overcloud, processes, rabbitmq, workers
from tests.support import helpers, tls

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

kombu = pytest.importorskip("kombu")

USER, PASSWORD = "openstack", "a-very-secret-word"
PORT = 5672
# What AMQP 0-9-1 begins with, and the frame of method, on channel 0, that a server answers with.
HELLO, WELCOME = b"AMQP\x00\x00\x09\x01", b"\x01\x00\x00"


class Brokers:
    """Brokers with their own certificates, and the agent on each node."""

    def __init__(
        self,
        supervisor: processes.Supervisor,
        directory: pathlib.Path,
        network: str,
        names: typing.Sequence[str],
        **settings: typing.Any,
    ) -> None:
        self.supervisor = supervisor
        self.network = network
        self.directory = directory
        nodes = [{"name": name, "address": f"{network}.{10 + i}"} for i, name in enumerate(names)]
        rpc = {"username": USER, "password": PASSWORD, "tls": True}
        files = {name: directory / f"{name}.json" for name in names}
        self.files = files
        self._raw = {"rpc": rpc, "nodes": nodes, **settings}
        for name in names:
            self.renew(name)
        self.all = overcloud.create([files[names[0]]], directory / "nodes")
        self.erlang = rabbitmq.erlang_environment(self.all.deployment.broker.dist_port)
        overcloud.without_services(self.all.hosts)
        self.hosts = {host.name: host for host in self.all.hosts}
        for name in names:
            self.apply(name)
        self.cluster = rabbitmq.Cluster(supervisor, self.all)
        self.servers = [tls.Server((f"{network}.{10 + i}", PORT), n, HELLO, WELCOME) for i, n in enumerate(names)]

    def renew(self, name: str) -> None:
        """Put another certificate and key into a node's metadata."""
        pair = tls.authority().issue(name)
        given = {"ca": tls.authority().pem, "certificate": pair.certificate, "key": pair.key}
        raw = {**self._raw, "tls": {**given, **self._raw.get("tls", {})}}
        self.files[name].write_text(json.dumps({"oslo_messaging": raw}))

    def apply(self, name: str, *options: str) -> str:
        """Run the agent on a node and return its output."""
        argv = [sys.executable, "-m", "om_agent", "apply", str(self.files[name]), "--node", name, "--verbose"]
        argv += ["--root", str(self.hosts[name].root), "--relocate", "--no-services", *options]
        environment = {**overcloud.python_environment(), **self.erlang}
        done = self.supervisor.finish(self.supervisor.start(f"apply-{name}", argv, environment), 120)
        assert done.returncode == 0, done.output
        assert PASSWORD not in done.output
        return done.output

    def ctl(self, name: str, *command: str) -> str:
        """Run rabbitmqctl on a node."""
        return rabbitmq.ctl(self.hosts[name], *command)


@contextlib.contextmanager
def running(directory: pathlib.Path, network: str, *names: str, **settings: typing.Any) -> typing.Iterator[Brokers]:
    """Brokers that run."""
    helpers.need_rabbitmq()
    with processes.Supervisor(directory / "logs") as supervisor:
        brokers = Brokers(supervisor, directory, network, names, **settings)
        try:
            brokers.cluster.start()
            brokers.cluster.wait()
            yield brokers
        finally:
            brokers.cluster.end()


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[Brokers]:
    """A cluster of TLS 1.2 with one cipher suite, and 1.3."""
    with running(tmp_path_factory.mktemp("lenient"), "127.0.63", "ctl-1", "ctl-2", tls={"ciphers": [tls.CIPHER]}) as b:
        yield b


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[Brokers]:
    """One broker of TLS 1.3 alone."""
    settings = {"tls": {"min_version": "1.3"}, "broker": {"distribution_tls": True}}
    with running(tmp_path_factory.mktemp("strict"), "127.0.64", "ctl-1", **settings) as b:
        yield b


def test_plaintext(lenient: Brokers) -> None:
    for server in lenient.servers:
        tls.refuses_plaintext(server)


def test_tls_1_1(lenient: Brokers, tmp_path: pathlib.Path) -> None:
    tls.refuses_1_1(lenient.servers[0], tmp_path)


def test_tls_1_2(strict: Brokers) -> None:
    tls.refuses_1_2(strict.servers[0])


def test_ciphers(lenient: Brokers) -> None:
    tls.refuses_other_ciphers(lenient.servers[0])


def test_another_authority_and_another_name(lenient: Brokers) -> None:
    tls.is_refused_by_clients(lenient.servers[0])


@pytest.mark.parametrize(
    ("user", "password", "method"),
    [(USER, "", "PLAIN"), (USER, "another", "PLAIN"), ("guest", "guest", "PLAIN"), ("", "", "EXTERNAL")],
)
def test_without_the_password(lenient: Brokers, user: str, password: str, method: str) -> None:
    ca = lenient.directory / "ca.pem"
    ca.write_text(tls.authority().pem)
    why = log_in(lenient.servers[0], ca, user, password, method)
    assert re.search(r"ACCESS_REFUSED|[Mm]echanism|NOT_ALLOWED", why), why
    assert log_in(lenient.servers[0], ca, USER, PASSWORD, "PLAIN") == ""
    offered = lenient.servers[0].accepts(tls.client_context()).answer
    assert b"PLAIN" in offered and b"ANONYMOUS" not in offered and b"EXTERNAL" not in offered


def log_in(
    server: tls.Server, ca: pathlib.Path, user: str, password: str, method: str, shown: tuple[str, ...] = ()
) -> str:
    """Log in over TLS; return the reason of a refusal, or ''."""
    options: dict[str, typing.Any] = {
        "ca_certs": str(ca),
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": server.name,
    }
    options.update(zip(("certfile", "keyfile"), shown))
    host, port = server.address
    login = {"userid": user, "password": password, "login_method": method}
    why = ""
    connection = kombu.Connection(hostname=host, port=port, ssl=options, connect_timeout=5, **login)
    try:
        with contextlib.closing(connection):
            connection.connect()
    except Exception as e:  # kombu has a class for each kind
        why = f"{type(e).__name__}: {e}"
    del connection
    with warnings.catch_warnings():  # of the socket, which py-amqp does not close when it is refused
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    return why


def test_oslo_messaging(lenient: Brokers, tmp_path: pathlib.Path) -> None:
    """Its RabbitMQ driver hands no server_hostname on (impl_rabbit.py, _fetch_ssl_params, 14.3.1), so that py-amqp
    verifies the CA alone (transport.py, SSLTransport._wrap_socket_sni, 5.3.1); no option changes that."""
    address = lenient.servers[0].address[0]
    within = tls.resolving(tmp_path, {"ctl-1": address, "ctl-1-alias": address})
    root = lenient.hosts["ctl-1"].root
    raw = json.loads(lenient.files["ctl-1"].read_text())["oslo_messaging"]
    raw = {**raw, "rpc": {**raw["rpc"], "nodes": ["ctl-1"]}}
    config = tls.service_file(raw, "ctl-1", root)
    ca = f"{root}{layout.CA_FILE}"
    logs = tls.oslo_refuses(within, tmp_path, config, "ctl-1", "ctl-1-alias", ca, names=False)
    assert "certificate verify failed" in logs["the CA"]


# -- between brokers -------------------------------------------------------------------------------------------------


def test_brokers_are_one_cluster(lenient: Brokers, strict: Brokers) -> None:
    """The brokers form one cluster, and rabbitmqctl reaches them over TLS."""
    for name in ("ctl-1", "ctl-2"):
        found = json.loads(lenient.ctl(name, "cluster_status", "--formatter", "json"))
        assert sorted(found["running_nodes"]) == ["rabbit@ctl-1", "rabbit@ctl-2"]
        assert "tls" in lenient.ctl(name, "eval", "[inet_tls_dist:childspecs(), init:get_argument(proto_dist)].")
    assert "RabbitMQ" in strict.ctl("ctl-1", "status")


def ping(brokers: Brokers, *arguments: str, cookie: str = "") -> bool:
    """Return whether an Erlang node that is started with ``arguments`` can connect to the first broker."""
    host = brokers.hosts["ctl-1"]
    cookie = cookie or host.path(layout.RABBIT_COOKIE).read_text()
    code = "io:format(\"~p~n\", [net_adm:ping('rabbit@ctl-1')]), halt()."
    argv = ["erl", "-noinput", "-hidden", "-sname", "visitor", "-setcookie", cookie]
    argv += ["-kernel", "inetrc", f'"{host.path(layout.RABBIT_DIR)}/erl_inetrc"', *arguments, "-eval", code]
    environment = {**processes.environment(), **brokers.erlang, "HOME": str(brokers.directory)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    found = {"pong", "pang"} & set(done.stdout.split())
    assert len(found) == 1, done.stdout + done.stderr
    return found == {"pong"}


def visitor(directory: pathlib.Path, pair: tls.Pair | None, ca: str) -> tuple[str, ...]:
    """Return the arguments with which an Erlang node uses TLS, with or without a certificate."""
    files = {"certfile": pair.certificate, "keyfile": pair.key} if pair else {}
    lines = []
    for option, text in {**files, "cacertfile": ca}.items():
        (directory / option).write_text(text)
        lines.append(f'{{{option}, "{directory / option}"}}')
    client = ", ".join([*lines, "{verify, verify_peer}"])
    (directory / "visitor.config").write_text(f"[{{server, [{client}]}}, {{client, [{client}]}}].")
    return ("-proto_dist", "inet_tls", "-ssl_dist_optfile", str(directory / "visitor.config"))


def test_who_may_join(lenient: Brokers, tmp_path: pathlib.Path) -> None:
    ca, other = tls.authority(), tls.Authority.create()
    good = visitor(tmp_path, ca.issue("visitor"), ca.pem)
    assert ping(lenient, *good)
    assert not ping(lenient, *good, cookie="anothercookie")
    assert not ping(lenient)  # the cookie alone
    assert not ping(lenient, *visitor(tmp_path, None, ca.pem))
    assert not ping(lenient, *visitor(tmp_path, other.issue("visitor"), ca.pem))
    assert not ping(lenient, *visitor(tmp_path, ca.issue("visitor"), other.pem))
    assert ping(lenient, *visitor(tmp_path, ca.issue("visitor"), ca.pem))


def test_a_broker_that_has_not_read_its_file_anew_is_told_from_one_that_has(
    lenient: Brokers, tmp_path: pathlib.Path
) -> None:
    """Check it in the same way as verify."""
    name, address = lenient.servers[0].name, lenient.servers[0].address
    renewed = tmp_path / "renewed.pem"
    renewed.write_text(tls.authority().issue(name).certificate)
    own = lenient.hosts[name].path(f"{layout.RABBIT_DIR}/tls/certificate.pem")
    assert not listening.shows_another(*address, own)
    assert listening.shows_another(*address, renewed)
    assert not listening.shows_another(*address, tmp_path / "none.pem")


# -- renewal ---------------------------------------------------------------------------------------------------------


def test_renewal_loses_no_call(lenient: Brokers, tmp_path: pathlib.Path) -> None:
    """New certificates of both brokers, one after the other, with calls under way; nothing is restarted."""
    within = tls.resolving(tmp_path, {s.name: s.address[0] for s in lenient.servers})
    hosts = {name: dataclasses.replace(host, within=within) for name, host in lenient.hosts.items()}
    raw = json.loads(lenient.files["ctl-1"].read_text())["oslo_messaging"]
    for name, host in hosts.items():
        config = host.service_file("nova")
        config.parent.mkdir(parents=True)
        config.write_text(tls.service_file(raw, name, host.root))
    before = [process.pid for process in lenient.cluster.processes]
    server = workers.Server(lenient.supervisor, hosts["ctl-1"], "nova", "compute")
    client = workers.Client(lenient.supervisor, hosts["ctl-2"], "nova")
    for worker in (server, client):
        worker.expect("ready", workers.READY_SECONDS)
    client.begin("call", 1_000_000, 200, server, interval=0.05, timeout=10.0)
    old = [s.accepts(tls.client_context()).certificate for s in lenient.servers]
    for name in hosts:
        lenient.renew(name)
        said = lenient.apply(name, "--reconcile")
        assert "certificates are read anew" in said and "could not be changed" not in said, said
        assert "nothing to do" in lenient.apply(name, "--reconcile")
    new = [s.accepts(tls.client_context(tls.authority().pem)).certificate for s in lenient.servers]
    client.enough()
    sent = client.result()
    print(f"{len(sent)} calls, the longest {max(one.seconds for one in sent):.2f} s")
    assert not set(old) & set(new)
    assert [one.error for one in sent if one.error] == [] and len(sent) > 100
    assert [process.pid for process in lenient.cluster.processes] == before
    assert all(process.poll() is None for process in lenient.cluster.processes)
