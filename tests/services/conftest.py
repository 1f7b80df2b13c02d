"""The Debian root that ``make services-test`` made, and a cloud on it over each backend."""

from __future__ import annotations

import contextlib
import os
import pathlib
import typing

import pytest
from om_agent import model

from testbed import processes, routers
from tests.services import cloud as clouds

COMPUTES = 20
IN_TREE, OWN = "amqp", "amqp1"  # schemes of URLs


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    """Directory with Debian and the services."""
    if not os.environ.get("OM_SERVICES_ROOT"):
        pytest.skip("make services-test makes a Debian root with nova, neutron and cinder, and runs these")
    return pathlib.Path(os.environ["OM_SERVICES_ROOT"]).resolve()


def engines() -> list[model.Engine]:
    """The real routers of this machine, or the development router."""
    real = [e for e in (model.Engine.QDROUTERD, model.Engine.SKROUTERD) if routers.find(e)]
    return real or [model.Engine.EMBEDDED]


@contextlib.contextmanager
def running(root: pathlib.Path, work: pathlib.Path, kind: clouds.Kind) -> typing.Iterator[clouds.Cloud]:
    """A cloud: the agent has applied, router, RabbitMQ and the services of the tests run."""
    with processes.Supervisor(work / "logs") as supervisor:
        cloud = clouds.Cloud(supervisor, root, work, kind)
        with cloud.node:
            cloud.start_database()
            cloud.apply(None)
            cloud.before = cloud.files()
            if kind.engine:
                cloud.apply(kind.engine)
            if kind.driver == OWN:
                cloud.install_driver()
            cloud.start_placement()
            cloud.start_broker()
            cloud.start_router()
            cloud.wait_for_messaging()
            # cinder-scheduler is looked at for a minute, and neutron takes long to start.
            for service in ("cinder-scheduler", "nova-conductor", "neutron-api"):
                cloud.start_service(service)
            cloud.start_service("nova-compute")
            cloud.start_computes(COMPUTES)
            yield cloud
    assert not supervisor.left()


def kinds() -> list[clouds.Kind]:
    """RabbitMQ, and each router with both drivers."""
    return [clouds.Kind(), *(clouds.Kind(engine, driver) for engine in engines() for driver in (IN_TREE, OWN))]


@pytest.fixture(scope="module", params=kinds(), ids=str)
def cloud(
    request: pytest.FixtureRequest, root: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> typing.Iterator[clouds.Cloud]:
    driver = root / "usr/lib/python3/dist-packages/oslo_messaging/_drivers/impl_amqp1.py"
    if request.param.engine and not driver.exists():
        pytest.skip("the agent refuses RPC over a router where oslo.messaging has no driver of its own for it")
    with running(root, tmp_path_factory.mktemp("services"), request.param) as made:
        yield made
