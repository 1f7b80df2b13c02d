"""Everything that services expect from RabbitMQ also holds over real routers (doc/semantics.rst)."""

from __future__ import annotations

import pathlib

import pytest
from om_agent import model

from tests.support import semantics

pytestmark = [pytest.mark.router, pytest.mark.timeout(400)]


def test_nothing_fails_or_stalls(engine: model.Engine, tmp_path: pathlib.Path) -> None:
    with semantics.bus(tmp_path / "bus", "amqp", engine, "127.0.89") as made:
        semantics.check(made)
