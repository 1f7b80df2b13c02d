"""A real Heat, API and engine in one process, on loopback: ``loop_engine.py DIRECTORY``.

It runs in .venv-heat, never in .venv. Everything it makes is in DIRECTORY: its configuration, database and log. When it
is ready it says where it is, as one line of JSON on standard output; it ends with its standard input.

There is no Keystone: a handler of 30 lines answers what clients and Heat itself ask one, always with the same token.
What else is not as in production is in `CONFIGURATION` and the functions called ``_patch_...``, each with its reason.
"""

import configparser
import http.server
import json
import os
import pathlib
import socketserver
import sys
import threading
import time
import typing
import warnings
from wsgiref import simple_server

warnings.simplefilter("ignore")  # Heat 27 still imports eventlet, which says at length that it should not

# Before anything of Heat is imported: without it oslo.service takes eventlet, and patches everything here.
from oslo_service import backend  # noqa: E402

backend.init_backend(backend.BackendType.THREADING)

from heat.common import config, messaging, noauth  # noqa: E402
from heat.db import migration  # noqa: E402
from heat.engine import scheduler, service, template  # noqa: E402
from heat.engine.clients.os.keystone import fake_keystoneclient  # noqa: E402
from heat.rpc import api as rpc_api  # noqa: E402
from oslo_config import cfg  # noqa: E402
from oslo_log import log as logging  # noqa: E402
from sqlalchemy import engine as sqlalchemy_engine  # noqa: E402
from sqlalchemy import event  # noqa: E402

from heat import version  # noqa: E402

HOST = "127.0.0.1"
PROJECT = "admin"

CONFIGURATION = {
    "DEFAULT": {
        "log_file": "heat.log",
        "transport_url": "fake://",  # API and engine are threads of this process
        "keystone_backend": "heat.engine.clients.os.keystone.fake_keystoneclient.FakeKeystoneClient",
        "deferred_auth_method": "password",  # trusts need a Keystone
        "num_engine_workers": "1",
        "auth_encryption_key": "0123456789abcdef0123456789abcdef",
        "max_resources_per_stack": "-1",
    },
    "paste_deploy": {"flavor": "noauth"},
    "oslo_policy": {"policy_file": "policy.yaml", "enforce_scope": "false", "enforce_new_defaults": "false"},
}
# Each node asks as a user of its stack's own domain, in production; here every user is the one of the token.
POLICY = '"software_deployments:metadata": ""\n"resource:metadata": ""\n"resource:signal": ""\n'


def token(heat_url: str) -> dict[str, typing.Any]:
    """Return the only token, of Keystone v3, whose catalogue has Heat."""
    domain = {"id": "default", "name": "Default"}
    endpoints = [
        {"id": str(i), "interface": name, "region": "regionOne", "region_id": "regionOne", "url": heat_url}
        for i, name in enumerate(("public", "internal", "admin"))
    ]
    return {
        "token": {
            "is_domain": False,
            "methods": ["password"],
            "roles": [{"id": "admin", "name": "admin"}],
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "expires_at": "2099-01-01T00:00:00.000000Z",
            "project": {"domain": domain, "id": PROJECT, "name": PROJECT},
            "user": {"domain": domain, "id": PROJECT, "name": PROJECT, "password_expires_at": None},
            "audit_ids": ["x"],
            "catalog": [{"type": "orchestration", "name": "heat", "id": "heat", "endpoints": endpoints}],
        }
    }


class Keystone(http.server.BaseHTTPRequestHandler):
    """The part of Keystone v3 that Heat needs: discovery, and a token for every client."""

    protocol_version = "HTTP/1.1"
    url = ""
    answer: typing.ClassVar[dict[str, typing.Any]] = {}

    def log_message(self, format: str, *args: object) -> None:
        """Log no requests."""

    def do_GET(self) -> None:
        """Answer discovery, and the question whether a token is good."""
        found = {"id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z"}
        found_at = {**found, "links": [{"rel": "self", "href": self.url + "/"}]}
        answers = {
            "": {"versions": {"values": [found_at]}},
            "/v3": {"version": found_at},
            "/v3/auth/tokens": self.answer,
        }
        body = answers.get(self.path.rstrip("/"))
        self._send(404 if body is None else 200, body or {"error": {"code": 404, "message": "no such thing"}})

    def do_POST(self) -> None:
        """Answer a login."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._send(201, self.answer)

    def _send(self, code: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        for name, value in (("Content-Type", "application/json"), ("X-Subject-Token", "token")):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class _Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True


class _Handler(simple_server.WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Log no requests."""


def _patch_durability() -> None:
    """Make SQLite not wait for the disk, because nobody reads the database after this program ends."""

    @event.listens_for(sqlalchemy_engine.Engine, "connect")
    def not_durable(connection: typing.Any, record: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")


def _patch_pauses() -> None:
    """Make the engine poll its resources ten times a second instead of once: a stack has a dozen such pauses."""
    sleep = scheduler.TaskRunner._sleep

    def sleep_less(self: object, wait_time: "float | None") -> None:
        sleep(self, wait_time and min(wait_time, 0.1))

    scheduler.TaskRunner._sleep = sleep_less


def _patch_database() -> None:
    """Let SQLite commit by itself.

    oslo.db begins every transaction with BEGIN; one that reads and later writes dies of "database is locked" as soon as
    another thread wrote meanwhile, whatever the timeout and journal mode.
    """

    @event.listens_for(sqlalchemy_engine.Engine, "connect")
    def no_transactions(connection: typing.Any, record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA busy_timeout=60000")

    @event.listens_for(sqlalchemy_engine.Engine, "before_cursor_execute", retval=True)
    def no_begin(
        connection: object, cursor: object, statement: str, parameters: object, context: object, many: object
    ) -> tuple[str, object]:
        return ("SELECT 1" if statement == "BEGIN" else statement), parameters


def _patch_keystone(url: str) -> None:
    """Make Heat, and the credentials that it gives to nodes, use this Keystone."""
    build, make = noauth.NoAuthProtocol._build_user_headers, fake_keystoneclient.FakeKeystoneClient.__init__

    def build_user_headers(self: object, env: object) -> dict[str, str]:
        # A signal reloads its context, and for that asks the Keystone of the request.
        return {**build(self, env), "HTTP_X_AUTH_URL": url}

    def init(self: typing.Any, *args: object, **options: object) -> None:
        make(self, *args, **options)
        self.v3_endpoint = url

    noauth.NoAuthProtocol._build_user_headers = build_user_headers
    fake_keystoneclient.FakeKeystoneClient.__init__ = init
    # What a server's os-collect-config is given; the fake client of Heat 27 has it without the argument.
    fake_keystoneclient.FakeKeystoneClient.server_keystone_endpoint_url = lambda self, fallback_endpoint=None: url


def configure(directory: pathlib.Path, heat_url: str) -> None:
    """Write Heat's files and read them, as ``heat-engine`` would."""
    (directory / "policy.yaml").write_text(POLICY)
    (directory / "token.json").write_text(json.dumps(token(heat_url)))
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_dict(CONFIGURATION)
    parser["DEFAULT"]["default_deployment_signal_transport"] = "HEAT_SIGNAL"
    parser["noauth"] = {"token_response": str(directory / "token.json")}
    parser["paste_deploy"]["api_paste_config"] = os.path.join(sys.prefix, "etc/heat/api-paste.ini")
    parser["database"] = {"connection": f"sqlite:///{directory}/heat.sqlite3?timeout=60"}
    with (directory / "heat.conf").open("w") as stream:
        parser.write(stream)
    logging.register_options(cfg.CONF)
    arguments = ["--config-file", str(directory / "heat.conf"), "--config-dir", str(directory)]
    cfg.CONF(arguments, project="heat", prog="heat", version=version.version_info.version_string())
    logging.setup(cfg.CONF, "heat")


def main() -> None:
    """Start everything and wait until standard input ends."""
    directory = pathlib.Path(sys.argv[1]).resolve()
    os.chdir(directory)  # of the log and the policy, whose names are relative
    start = time.monotonic()
    keystone = http.server.ThreadingHTTPServer((HOST, 0), Keystone)
    api = simple_server.make_server(HOST, 0, None, server_class=_Server, handler_class=_Handler)
    keystone_url = f"http://{HOST}:{keystone.server_port}/v3"
    heat_url = f"http://{HOST}:{api.server_port}/v1/{PROJECT}"
    Keystone.url, Keystone.answer = keystone_url, token(heat_url)
    configure(directory, heat_url)
    _patch_durability()
    migration.db_sync()
    _patch_database()
    _patch_pauses()
    _patch_keystone(keystone_url)
    messaging.setup()
    config.startup_sanity_check()
    template._get_template_extension_manager()  # as heat-engine does: not safe in several threads at first use
    service.EngineService(HOST, rpc_api.ENGINE_TOPIC).start()
    api.set_app(config.load_paste_app("heat-api"))
    for server in (keystone, api):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    ready = {"heat": heat_url, "keystone": keystone_url, "seconds": round(time.monotonic() - start, 1)}
    print(json.dumps(ready), flush=True)
    sys.stdin.read()
    os._exit(0)  # threads of the engine may be anywhere


if __name__ == "__main__":
    main()
