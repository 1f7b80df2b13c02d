"""``om-agent signal``: content, number and way of signals to Heat, with and without heat-agents."""

from __future__ import annotations

import http.server
import json
import pathlib
import shutil
import threading
import typing

import pytest

from tests.support import helpers

SECRETS = ("rpc-secret", "heat-user-secret", "signature-secret", "token-secret")
GOOD: helpers.Raw = {
    "rpc": {"scheme": "amqp", "tls": False, "password": "rpc-secret", "hosts": ["198.51.100.1"]},
    "nodes": helpers.nodes(1, 0),
}
BAD = helpers.put(GOOD, "rpc.prot", 1)
# Nobody has started this node's router.
DOWN = {
    "rpc": {"scheme": "amqp", "tls": False, "password": "rpc-secret"},
    "notify": {"scheme": "amqp"},
    "router": {"engine": "embedded", "http_port": 0, "mesh_password": "mesh-secret"},
    "nodes": [{"name": "ctl-0", "address": "127.0.49.78"}],
}
TOLD = "var/lib/om-agent/deployments.json"
DEPLOYED = "var/lib/heat-config/deployed"


class Server:
    """Heat and Keystone, as far as a signal goes. ``codes`` are the answers by path; 200 otherwise."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, typing.Any], str]] = []
        self.codes: dict[str, int] = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None: ...

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.command, self.path, body, self.headers.get("X-Auth-Token", "")))
                code = outer.codes.get(self.path.partition("?")[0], 200)
                self.send_response(code)
                self.send_header("X-Subject-Token", "token-secret")
                if code == 302:
                    self.send_header("Location", f"{outer.url}/elsewhere")
                self.end_headers()
                self.wfile.write(json.dumps(outer.token()).encode())

            do_PUT = do_GET = do_POST

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def token(self) -> dict[str, typing.Any]:
        public = {"interface": "public", "region": "one", "url": f"{self.url}/heat/v1/p"}
        others = [{**public, "interface": "internal", "url": "http://198.51.100.1/"}, {**public, "region": "two"}]
        return {"token": {"catalog": [
            {"type": "identity", "endpoints": [{**public, "url": self.url}]},
            {"type": "orchestration", "endpoints": [*others, public]},
        ]}}  # fmt: skip

    def signals(self) -> list[dict[str, typing.Any]]:
        """Return the signals that Heat received, without logins, and clear them."""
        found = [body for _, _, body, _ in self.asked if "auth" not in body]
        self.asked.clear()
        return found


@pytest.fixture
def server() -> typing.Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, daemon=True)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


@pytest.fixture
def node(tmp_path: pathlib.Path) -> helpers.Machine:
    made = helpers.machine(tmp_path)
    for service in ("nova", "neutron", "swift"):
        shutil.rmtree(made.root / "etc" / service)  # with no service there are no messages to try out
    return made


def deployment(raw: object, server: Server, name: str = "1", more: dict[str, str] | None = None) -> helpers.Raw:
    """Return a deployment as Heat creates it, with a signed URL unless ``more`` has other inputs."""
    signed = {
        "deploy_signal_id": f"{server.url}/signal/{name}?Signature=signature-secret",
        "deploy_signal_verb": "POST",
    }
    given = {"deploy_action": "CREATE", "verify_timeout": "0", **(more or signed)}
    inputs = [{"name": k, "value": v} for k, v in given.items()]
    return {
        "id": name,
        "name": "messaging",
        "group": "om-messaging",
        "config": {"oslo_messaging": raw},
        "inputs": inputs,
    }


class Ran(typing.NamedTuple):
    code: int
    said: str


def run(node: helpers.Machine, deployments: list[helpers.Raw], *command: str, **metadata: object) -> Ran:
    """Run a command as os-refresh-config's scripts do."""
    path = node.base / "heat.json"
    path.write_text(json.dumps({"deployments": deployments, **metadata}))
    done = node.run(*(command or ("signal",)), "--node", "ctl-0", OS_CONFIG_FILES=str(path), no_proxy="*")
    said = done.stdout + done.stderr
    assert [secret for secret in SECRETS if secret in said] == []
    return Ran(done.returncode, said)


def test_success_is_told_once(node: helpers.Machine, server: Server) -> None:
    good = [deployment(GOOD, server)]
    assert run(node, good).code == 0
    method, path, body, _ = server.asked[0]
    assert (method, path) == ("POST", "/signal/1?Signature=signature-secret")
    assert (body["deploy_status_code"], body["node"], body["mesh"]) == (0, "ctl-0", "none")
    assert "problem" not in body and "messaging works" in body["deploy_stdout"]
    assert len(server.signals()) == 1
    again = run(node, good)
    assert again.code == 0 and "Heat knows" in again.said and server.signals() == []
    assert run(node, [deployment(GOOD, server, "2")]).code == 0
    assert len(server.signals()) == 1, "the next deployment is another one, though it says the same"


def test_failure_is_told_once_and_tried_again(node: helpers.Machine, server: Server) -> None:
    down = [deployment(DOWN, server)]
    failed = run(node, down)
    assert failed.code == 3 and "no router listens at 127.0.49.78:31459" in failed.said
    (told,) = server.signals()
    assert told["deploy_status_code"] == 3 and told["problem"].startswith("router on ctl-0: no router listens at ")
    assert run(node, down).code == 3 and server.signals() == [], "Heat passes over what comes after the first"
    # What was wrong is mended, outside the metadata: here by other metadata under the same id.
    assert run(node, [deployment(GOOD, server)]).code == 0
    assert run(node, [deployment(GOOD, server)]).said.count("Heat knows") == 1


def test_apply_that_fails_tells_it(node: helpers.Machine, server: Server) -> None:
    """A failed apply in configure.d reports to Heat itself, because later scripts do not run."""
    bad = [deployment(BAD, server)]
    for _ in range(2):
        failed = run(node, bad, "apply", "--signal")
        assert failed.code == 2 and '"prot" is not a key here' in failed.said
    (told,) = server.signals()
    assert told["deploy_status_code"] == 2 and '"prot" is not a key here' in told["problem"]
    assert run(node, bad, "apply").code == 2 and server.signals() == []
    assert run(node, [deployment(GOOD, server)], "apply", "--signal").code == 0
    assert server.signals() == [], "apply does not know whether messaging works"


def test_the_newest_deployment_counts_whatever_the_order(node: helpers.Machine, server: Server) -> None:
    """Heat sorts deployments by name; a failed one stays until its successor has succeeded."""
    old = deployment(BAD, server, "old") | {"creation_time": "2026-01-01T00:00:00Z"}
    new = deployment(GOOD, server, "new") | {"creation_time": "2026-01-01T00:00:01Z"}
    other = {"id": "x", "group": "script", "creation_time": "2027-01-01T00:00:00Z"}
    for name, order in (("a", [old, new, other]), ("b", [new, old, other])):
        named = [{**d, "id": d["id"] + name} for d in order]
        assert run(node, named, "apply", "--signal").code == 0
        assert run(node, named).code == 0
        assert [told["deploy_status_code"] for told in server.signals()] == [0]


def test_two_deliveries_are_refused(node: helpers.Machine, server: Server) -> None:
    """The key wins in configure.d, so the deployment would be the one that fights it."""
    assert run(node, [deployment(GOOD, server)], oslo_messaging=GOOD).code == 2
    (told,) = server.signals()
    assert told["deploy_status_code"] == 2 and "Keep one of the two" in told["problem"]


def test_nothing_to_tell(node: helpers.Machine, server: Server) -> None:
    before = node.tree()
    silent = deployment(DOWN, server, more={"deploy_signal_transport": "NO_SIGNAL"})
    for deployments in ([], [{"id": "x", "group": "script"}], [silent]):
        assert run(node, deployments).code == 0
    assert run(node, [silent | {"config": {"oslo_messaging": BAD}}], "apply", "--signal").code == 2
    assert server.asked == [] and node.tree() == before


# -- ways of telling -------------------------------------------------------------------------------------------------


def keystone(server: Server, **more: str) -> dict[str, str]:
    return {
        "deploy_auth_url": f"{server.url}/v3", "deploy_user_id": "user", "deploy_password": "heat-user-secret",
        "deploy_project_id": "project", "deploy_stack_id": "stack name/0-1", "deploy_resource_name": "a resource",
        "deploy_region_name": "one", **more,
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/v3", "/v3/", "/v2.0", ""])
def test_heat_signal(node: helpers.Machine, server: Server, path: str) -> None:
    inputs = keystone(server, deploy_auth_url=server.url + path)
    assert run(node, [deployment(GOOD, server, more=inputs)]).code == 0
    (_, login, who, _), (_, heat, _, token) = server.asked
    assert login == "/v3/auth/tokens"
    assert who["auth"]["identity"]["password"]["user"] == {"id": "user", "password": "heat-user-secret"}
    assert who["auth"]["scope"] == {"project": {"id": "project"}}
    assert heat == "/heat/v1/p/stacks/stack%20name/0-1/resources/a%20resource/signal"
    assert token == "token-secret"


def test_temp_url_signal(node: helpers.Machine, server: Server) -> None:
    inputs = {"deploy_signal_id": f"{server.url}/swift?temp_url_sig=signature-secret", "deploy_signal_verb": "PUT"}
    assert run(node, [deployment(GOOD, server, more=inputs)]).code == 0
    assert server.asked[0][:2] == ("PUT", "/swift?temp_url_sig=signature-secret")


UNTOLD = {
    "refused": ({"/signal/1": 403}, {}, "Heat: it answered 403"),
    "redirected": ({"/signal/1": 302}, {}, "Heat: it answered 302"),
    "wrong password": ({"/v3/auth/tokens": 401}, {"keystone": "yes"}, "Keystone: it answered 401"),
    "no such region": ({}, {"keystone": "yes", "deploy_region_name": "three"}, "no public endpoint"),
    "nobody there": ({}, {"deploy_signal_id": "http://127.0.0.1:1/?signature-secret"}, "connection refused"),
    "a file": ({}, {"deploy_signal_id": "file:///etc/signature-secret"}, "no http or https URL"),
    "no URL": ({}, {"deploy_signal_id": "http://[signature-secret"}, "is no URL"),
    "a blank": ({}, {"deploy_signal_id": "http://127.0.0.1:1/signature-secret x"}, "is no URL"),
    "Zaqar": ({}, {"deploy_queue_id": "signature-secret"}, "Install heat-agents"),
}


@pytest.mark.parametrize(("codes", "inputs", "said"), UNTOLD.values(), ids=UNTOLD.keys())
def test_what_cannot_be_told_is_told_next_time(
    node: helpers.Machine, server: Server, codes: dict[str, int], inputs: dict[str, str], said: str
) -> None:
    server.codes.update(codes)
    given = dict(inputs)
    more = {**(keystone(server) if given.pop("keystone", "") else {}), **given}
    failed = run(node, [deployment(GOOD, server, more=more)])
    assert failed.code == 1 and said in failed.said, failed.said
    assert not (node.root / TOLD).exists()
    server.codes.clear()
    server.asked.clear()
    assert run(node, [deployment(GOOD, server)]).code == 0
    assert len(server.signals()) == 1


# -- beside heat-agents ----------------------------------------------------------------------------------------------


def heat_config_ran(node: helpers.Machine, name: str, notify: str | None) -> pathlib.Path:
    """Leave what 55-heat-config does; returns the file that keeps it from running the deployment again."""
    directory = node.root / DEPLOYED
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text("{}")
    if notify is not None:
        (directory / f"{name}.notify.json").write_text(notify)
    return directory / f"{name}.json"


def test_what_heat_agents_did_is_not_done_again(node: helpers.Machine, server: Server) -> None:
    # 55-heat-config wrote over the longer answer of a run before this one.
    mark = heat_config_ran(node, "1", '{"deploy_status_code": 0}code": 3}')
    assert run(node, [deployment(DOWN, server)]).code == 0
    assert server.asked == [] and mark.exists()


@pytest.mark.parametrize("notify", [None, "", "{", "[]", '{"deploy_status_code": 3}', '{"deploy_status_code": "x"}'])
def test_what_heat_agents_failed_to_do_is_left_to_them(
    node: helpers.Machine, server: Server, notify: str | None
) -> None:
    mark = heat_config_ran(node, "1", notify)
    other = heat_config_ran(node, "2", notify)
    failed = run(node, [deployment(GOOD, server)])
    assert failed.code == 1 and "carries out the deployment again" in failed.said
    assert server.asked == [] and list(mark.parent.glob("1.*")) == [] and other.exists()


@pytest.mark.parametrize("name", ["../../../../etc/passwd", "", "a/b", 7])
def test_an_id_that_is_none_names_no_file(node: helpers.Machine, server: Server, name: object) -> None:
    victim = node.root / "etc/passwd.json"
    victim.write_text("kept")
    (node.root / DEPLOYED).mkdir(parents=True)
    run(node, [deployment(GOOD, server) | {"id": name}])
    assert victim.read_text() == "kept"


def test_a_link_is_not_followed_out_of_the_root(node: helpers.Machine, server: Server, tmp_path: pathlib.Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "1.json").write_text("{}")
    (node.root / "var/lib/heat-config").mkdir()
    (node.root / DEPLOYED).symlink_to(outside)
    assert run(node, [deployment(GOOD, server)]).code == 1
    assert (outside / "1.json").exists()
