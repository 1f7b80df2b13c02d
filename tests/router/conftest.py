"""What the tests of real routers share: an engine, twice over, and what ends the processes of a test."""

from __future__ import annotations

import pathlib
import typing

import pytest
from om_agent import model

from testbed import processes
from tests.router import cloud as clouds


@pytest.fixture(params=clouds.ENGINES, ids=lambda e: e.value)
def engine(request: pytest.FixtureRequest) -> model.Engine:
    clouds.need(request.param)
    return typing.cast("model.Engine", request.param)


@pytest.fixture
def supervisor(tmp_path: pathlib.Path) -> typing.Iterator[processes.Supervisor]:
    with clouds.supervised(tmp_path) as made:
        yield made
