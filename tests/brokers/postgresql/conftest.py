"""Apps and brokers that share a database, and statements that run in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from flask_sse_emitters.brokers import Broker, make_broker
from tests.support.board import Board, closing_board
from tests.support.brokers.postgresql import PostgresqlServer


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


@pytest.fixture
def role(postgresql: PostgresqlServer, database: str) -> str:
    """The name of a role that has no rights in the database."""
    name = f"role_{database.rpartition('/')[2]}"
    postgresql.run(f"CREATE ROLE {name} LOGIN")
    return name
