"""The fate of messages over RabbitMQ and over the development router (the tables of doc/semantics.rst)."""

from __future__ import annotations

import pathlib
import shutil

import pytest
from om_agent import model

from testbed import overcloud
from tests.support import semantics

pytest.importorskip("proton", reason="python-qpid-proton is not installed")
pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(not shutil.which("puppet"), reason="puppet is not installed, and the agent needs it"),
    pytest.mark.skipif(not overcloud.find_program("saslpasswd2"), reason="saslpasswd2 is not installed"),
]


def test_development_router(tmp_path: pathlib.Path) -> None:
    with semantics.bus(tmp_path / "bus", "amqp", model.Engine.EMBEDDED, "127.0.88") as made:
        semantics.check(made)


@pytest.mark.skipif(not overcloud.find_program("rabbitmq-server"), reason="rabbitmq-server is not installed")
def test_rabbitmq(tmp_path: pathlib.Path) -> None:
    with semantics.bus(tmp_path / "bus", "rabbit", model.Engine.QDROUTERD, "127.0.88") as made:
        semantics.check(made)


def test_acknowledged_casts_stall_without_a_server(tmp_path: pathlib.Path) -> None:
    """The reason why they are not the default: 30 seconds and an error, where RabbitMQ has no delay."""
    with semantics.bus(tmp_path / "bus", "amqp", model.Engine.EMBEDDED, "127.0.88", delivery="acknowledged") as made:
        sent = made.send("fanout", "nobody")
    assert (sent[0].error, sent[0].seconds > 25) == ("MessageDeliveryFailure", True)
