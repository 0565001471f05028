"""A PostgreSQL for all tests of a process, with a database for each of them, and apps and brokers that use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from flask_sse_emitters.brokers import Broker, make_broker
from tests.support.board import Board, closing_board
from tests.support.postgresql import PostgresqlServer


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
def run(postgresql: PostgresqlServer, database: str) -> Callable[[str], list[Any]]:
    """Run a statement in that database."""
    return lambda statement: postgresql.run(statement, database)


@pytest.fixture
def new_broker(database: str) -> Iterator[Callable[..., Broker]]:
    """Make brokers, as that many processes that share the database have them; they are closed after the test."""
    with ExitStack() as stack:

        def make(url: str = database, **options: Any) -> Broker:
            return stack.enter_context(closing(make_broker(url, **options)))

        yield make


@pytest.fixture
def board(database: str) -> Iterator[Board]:
    with closing_board(database) as board:
        yield board
