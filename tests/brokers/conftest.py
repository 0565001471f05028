"""A Redis and a PostgreSQL for all tests of a process, and apps and connections to that Redis."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from flask_sse_emitters.brokers import GROUP, Broker, make_broker
from tests.brokers.contract.brokers import BROKERS, Make, each_of
from tests.support.board import Board, closing_board
from tests.support.brokers.postgresql import PostgresqlServer
from tests.support.brokers.redis_server import RedisServer
from tests.support.wire import Wire


@pytest.fixture(scope="session")
def shared_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    """A Redis that is empty. A test may pause, kill and configure it."""
    shared_server.renew()
    return shared_server


@pytest.fixture(scope="session")
def shared_postgresql() -> Iterator[PostgresqlServer]:
    with PostgresqlServer("max_prepared_transactions=5") as server:
        yield server


@pytest.fixture
def postgresql(shared_postgresql: PostgresqlServer) -> PostgresqlServer:
    """A PostgreSQL that runs. A test may pause and kill it."""
    shared_postgresql.renew()
    return shared_postgresql


@pytest.fixture
def database(postgresql: PostgresqlServer) -> str:
    """The URL of an empty database."""
    return postgresql.new_database()


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    """A plain client of that Redis."""
    with server.client() as client:
        yield client


@pytest.fixture
def new_broker(server: RedisServer) -> Iterator[Callable[..., Broker]]:
    """Make brokers, as that many processes that share the Redis have them; they are closed after the test."""
    with ExitStack() as stack:

        def make(url: str = server.url, **options: Any) -> Broker:
            return stack.enter_context(closing(make_broker(url, **options)))

        yield make


@pytest.fixture(scope="session", params=each_of(BROKERS))
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    with request.param() as make:
        yield make


@pytest.fixture
def broker(make: Make) -> Iterator[Broker]:
    with closing(make()) as broker:
        yield broker


@pytest.fixture
def wire(server: RedisServer) -> Iterator[Wire]:
    with Wire(server.port) as wire:
        yield wire


@pytest.fixture
def board(server: RedisServer) -> Iterator[Board]:
    with closing_board(server.url) as board:
        yield board


@pytest.fixture
def wired(wire: Wire) -> Iterator[Board]:
    """An app whose connection to Redis the test can hold and cut."""
    with closing_board(wire.url, SSE_MAX_PENDING_BYTES=10**9) as board:
        yield board


@pytest.fixture
def install_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Install, as it were, a package with the entry point of a broker."""

    def install(scheme: str, target: str) -> None:
        metadata = tmp_path / f"{scheme}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {scheme}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{scheme} = {target}\n")
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    return install
