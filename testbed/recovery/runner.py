"""Run cases: load, failure, and the time until everything works again."""

from __future__ import annotations

import collections.abc
import dataclasses
import itertools
import pathlib
import time

from om_agent import model

import testbed.recovery.cloud
from testbed import processes
from testbed.recovery import cases, network, traffic

BACKENDS = (cases.AMQP, cases.RABBIT)
_BEFORE_SECONDS = 3.0
_AFTER_SECONDS = 6.0
_LONGEST_SECONDS = 240.0


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    :param lasted: seconds from the failure until its cause was removed.
    :param well: seconds from then until every router and broker was connected to all others.
    :param starved: how often an interior router dropped an edge router because this machine was too busy.
    """

    case: str
    what: str
    backend: str
    lasted: float
    well: float
    outcome: traffic.Outcome
    remark: str
    starved: int


def run(
    supervisor: processes.Supervisor,
    directory: pathlib.Path,
    engine: model.Engine,
    backends: collections.abc.Iterable[model.Scheme],
    wanted: collections.abc.Sequence[cases.Case],
    show: collections.abc.Callable[[Row], None],
    driver: str = "amqp",
) -> list[Row]:
    """Run the cases on an overcloud for each backend of RPC.

    :param driver: the scheme of services' URLs, see `testbed.recovery.cloud.Cloud`.
    """
    addresses = {name: address for name, (_, address) in testbed.recovery.cloud.NODES.items()}
    network.resolve(addresses, directory / "hosts")
    net = network.Network(addresses)
    rows = []
    for backend, tls in itertools.product(backends, (False, True)):
        here = [case for case in wanted if backend in case.backends and case.tls == tls]
        if not here:
            continue
        where = directory / (backend.value + ("-tls" if tls else ""))
        cloud = testbed.recovery.cloud.Cloud(supervisor, where, net, backend, engine, tls, driver)
        cloud.start()
        for case in here:
            rows.append(one(cloud, case))
            show(rows[-1])
        cloud.end()
    return rows


def one(cloud: testbed.recovery.cloud.Cloud, case: cases.Case) -> Row:
    """Run one case with new services, on the routers and brokers that already run."""
    cloud.remark = ""
    starved = cloud.starved()
    cloud.load = load = traffic.Traffic(cloud.supervisor, cloud.hosts)
    try:
        time.sleep(2.0)  # until all routers know the servers
        load.warm_up()
        load.begin(_LONGEST_SECONDS)
        time.sleep(_BEFORE_SECONDS)
        failure = _drive(case.steps(cloud))
        healed = time.monotonic()
        cloud.wait()
        well = time.monotonic()
        time.sleep(_AFTER_SECONDS)
        outcome = load.result(failure)
    finally:
        load.end()
    backend = "rabbitmq"
    if cloud.rpc is model.Scheme.AMQP:
        backend = cloud.engine.value + ("" if cloud.driver == "amqp" else f", {cloud.driver}")
    return Row(
        case.name, case.what, backend, healed - failure, well - healed, outcome, cloud.remark, cloud.starved() - starved
    )


def _drive(steps: cases.Steps) -> float:
    """Run the steps of a case. Return the time of the failure."""
    failure = time.monotonic()
    for pause in steps:
        if pause == cases.NOW:
            failure = time.monotonic()
        time.sleep(pause)
    return failure
