"""The driver with each release of oslo.messaging, each in an environment of its own, over each router.

By default only some releases are tried: those that other tests need an environment of as well, Debian 13's and the
newest. With the variable OM_ALL_RELEASES all are tried.
"""

from __future__ import annotations

import collections.abc
import contextlib
import json
import os
import pathlib
import socket
import subprocess
import typing

import pytest

from tests.support import engines, environments, tls

SERVICE = pathlib.Path(__file__).with_name("service.py")
EVERYTHING = {"call": True, "cast": True, "fanout": True, "notification": True}
BY_DEFAULT = ("14.0.3", "14.3.1", "14.9.3", "16.1.0", "18.3.1")
WITH_EXECUTORS = ("14.3.1", "16.1.0", "18.3.1")
WITH_ALIAS = environments.WITHOUT_IN_TREE_DRIVER

pytestmark = pytest.mark.timeout(600)


def interpreter(request: pytest.FixtureRequest, factory: pytest.TempPathFactory) -> str:
    if request.param not in BY_DEFAULT and not os.environ.get("OM_ALL_RELEASES"):
        pytest.skip(f"oslo.messaging {request.param} is tried only with OM_ALL_RELEASES=1, to save time")
    return environments.python(request.config, factory, request.param)


@pytest.fixture(scope="module", params=environments.RELEASES)
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of a release's environment."""
    return interpreter(request, tmp_path_factory)


@pytest.fixture(scope="module", params=WITH_ALIAS)
def python_with_alias(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment in which `amqp` is this driver, too."""
    return interpreter(request, tmp_path_factory)


@pytest.fixture(scope="module", params=environments.WITH_IN_TREE_DRIVER)
def python_with_in_tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment in which `amqp` is the in-tree driver."""
    return interpreter(request, tmp_path_factory)


@pytest.fixture(scope="module", params=WITH_EXECUTORS)
def python_for_executors(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of one of the releases in which each executor is tried."""
    return interpreter(request, tmp_path_factory)


@pytest.fixture(scope="module", params=engines.ENGINES)
def router(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> collections.abc.Iterator[engines.Router]:
    with engines.running(request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


def run(*command: str | pathlib.Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def output(python: str, *arguments: str | pathlib.Path, **variables: str) -> str:
    """What a program of an environment prints; it must succeed."""
    done = run(python, "-W", "ignore", *arguments, **variables)
    assert done.returncode == 0, done.stderr
    assert "the driver has a defect" not in done.stderr  # what the driver logs when its thread meets an unknown error
    return done.stdout


def service(python: str, task: str, executor: str, *urls: str) -> dict[str, typing.Any]:
    """What a task of the service returned."""
    start = ("-c", PATCHED, str(SERVICE)) if executor == "eventlet" else (str(SERVICE),)
    found: dict[str, typing.Any] = json.loads(output(python, *start, task, executor, *urls))
    return found


PATCHED = """
import eventlet
eventlet.monkey_patch()
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

LOAD = """
import sys
from oslo_config import cfg
import importlib.metadata, oslo_messaging
cfg.CONF([], project="matrix")
transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=f"{sys.argv[1]}://127.0.0.1:1/")
print(importlib.metadata.version("oslo.messaging"), type(transport._driver).__module__)
"""


def test_it_loads(python: str) -> None:
    release = pathlib.Path(python).parts[-3]
    assert output(python, "-c", LOAD, "amqp1").split() == [release, "oslo_messaging_amqp1.driver"]


def test_the_generator_prints_its_options(python: str) -> None:
    """And those of oslo.messaging beside them: up to 14.9 both have a section of this name."""
    generator = pathlib.Path(python).with_name("oslo-config-generator")
    namespaces = ["--namespace", "oslo.messaging", "--namespace", "oslo.messaging.amqp1"]
    text = output(python, generator, *namespaces)
    section = text.partition("[oslo_messaging_amqp]")[2].partition("\n[")[0]
    own = section.partition("# From oslo.messaging.amqp1")[2].partition("# From oslo.messaging\n")[0]
    assert "#idle_timeout = 10\n" in own
    assert "#undelivered_cast_timeout = 30\n" in own
    assert text.count("[oslo_messaging_amqp]") == 1


def test_it_carries_every_pattern(python: str, router: engines.Router) -> None:
    found = service(python, "patterns", "threading", f"amqp1://{router.url}/")
    assert EVERYTHING.items() <= found.items()
    assert found["native"] >= found["threads"] == 4


# -- executors


def test_eventlet_has_no_native_threads(python_for_executors: str, router: engines.Router) -> None:
    """In a monkey-patched process every pattern works, and the driver's threads are green: the kernel sees none."""
    found = service(python_for_executors, "patterns", "eventlet", f"amqp1://{router.url}/")
    assert EVERYTHING.items() <= found.items()
    assert found["threads"] == 4
    assert found["native"] == 0


def test_eventlet_with_tls(python_for_executors: str, tmp_path: pathlib.Path) -> None:
    host = engines.loopback()
    (tmp_path / "ca.pem").write_text(tls.authority().pem)
    pair = tls.authority().issue(host)
    (tmp_path / "server.pem").write_text(pair.certificate)
    (tmp_path / "server.key").write_text(pair.key)
    files = {"certFile": "server.pem", "privateKeyFile": "server.key", "caCertFile": "ca.pem"}
    profile: dict[str, object] = {"name": "tls", **{key: str(tmp_path / name) for key, name in files.items()}}
    listener = {"sslProfile": "tls", "requireSsl": True}
    with engines.running(engines.DEVROUTER, tmp_path, host, listener, more=[("sslProfile", profile)]) as router:
        url = f"amqp1://{router.url}/?ssl=true&ssl_ca_file={tmp_path / 'ca.pem'}"
        assert EVERYTHING.items() <= service(python_for_executors, "patterns", "eventlet", url).items()


@contextlib.contextmanager
def silent() -> collections.abc.Iterator[str]:
    """An address that takes connections and never says anything."""
    host = engines.loopback()
    with socket.create_server((host, 0)) as server:
        yield f"{host}:{server.getsockname()[1]}"


def test_nothing_blocks_the_hub(python_for_executors: str, router: engines.Router) -> None:
    """While one green thread waits for a router, the others run: a blocked hub would show as a gap of a second."""
    with silent() as nobody:
        found = service(
            python_for_executors,
            "hub",
            "eventlet",
            f"amqp1://{router.url}/",
            f"amqp1://{nobody}/?default_send_timeout=5",
        )
    assert len(found) == 5
    assert {what: gap for what, gap in found.items() if gap > 0.5} == {}


@pytest.mark.parametrize("executor", ["threading", "eventlet"])
def test_parent_and_child_go_on_after_a_fork(python_for_executors: str, router: engines.Router, executor: str) -> None:
    found = service(python_for_executors, "fork", executor, f"amqp1://{router.url}/")
    assert found == {"parent": True, "same connection": True, "child": {"calls": True, "server": True}}


def test_workers_of_oslo_service_have_connections_of_their_own(
    python_for_executors: str, router: engines.Router
) -> None:
    assert service(python_for_executors, "workers", "eventlet", f"amqp1://{router.url}/") == {
        "workers": 2,
        "connected": True,
    }


# -- the name amqp


def test_the_alias_is_this_driver(python_with_alias: str, router: engines.Router) -> None:
    assert output(python_with_alias, "-c", LOAD, "amqp").split()[1] == "oslo_messaging_amqp1.driver"
    found = service(python_with_alias, "patterns", "threading", f"amqp://{router.url}/")
    assert EVERYTHING.items() <= found.items()


def test_pip_refuses_the_alias_where_the_in_tree_driver_is(python_with_in_tree: str) -> None:
    command = [python_with_in_tree, "-m", "pip", "install", "--no-index", "--no-build-isolation", "--dry-run"]
    # Neither a configuration nor the environment may name another source of packages.
    done = run(*command, environments.ALIAS, PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS="")
    assert done.returncode != 0
    assert "oslo.messaging>=15.0.0" in done.stderr


def test_with_the_alias_forced_oslo_messaging_loads_neither(python_with_in_tree: str, tmp_path: pathlib.Path) -> None:
    """So the metadata must refuse it, and amqp1 works all the same."""
    output(
        python_with_in_tree, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target",
        tmp_path, environments.ALIAS,
    )  # fmt: skip
    path = {"PYTHONPATH": str(tmp_path)}
    refused = run(python_with_in_tree, "-W", "ignore", "-c", LOAD, "amqp", **path)
    assert refused.returncode != 0
    assert "multiple" in refused.stderr.lower()
    assert output(python_with_in_tree, "-c", LOAD, "amqp1", **path).split()[1] == "oslo_messaging_amqp1.driver"
