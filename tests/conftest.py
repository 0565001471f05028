"""Shared by all tests: programs that may be missing, servers, and a scheduler under the test's control."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.servers import SERVERS, Server
from tests.unit.doubles.clock import ManualScheduler


@pytest.fixture
def scheduler() -> ManualScheduler:
    return ManualScheduler()


@pytest.fixture(scope="session", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Serve the contract application on each of the servers, one after the other."""
    with Server(request.param, "tests.apps.contract:app") as server:
        yield server
