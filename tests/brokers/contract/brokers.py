"""The brokers that pass the contract: the tests in ``test_contract*.py``. Add yours to ``BROKERS``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from flask_sse_emitters.brokers import Broker, make_broker
from tests.apps.own_broker import OwnBroker
from tests.support.brokers.postgresql import PostgresqlServer
from tests.support.brokers.redis_server import RedisServer

#: Makes a broker, as each process does.
Make = Callable[[], Broker]


@contextmanager
def memory() -> Iterator[Make]:
    yield lambda: make_broker("memory://")


@contextmanager
def redis() -> Iterator[Make]:
    with RedisServer() as server:
        yield lambda: make_broker(server.url)


@contextmanager
def postgresql() -> Iterator[Make]:
    with PostgresqlServer() as server:
        yield lambda: make_broker(server.url())


@contextmanager
def own() -> Iterator[Make]:
    """Make the one that docs/brokers.rst shows: own_broker.py."""
    yield lambda: OwnBroker("own://")


#: Starts what a broker needs, once for all tests, and yields a function that makes the broker.
Start = Callable[[], AbstractContextManager[Make]]

BROKERS: list[Start] = [memory, redis, postgresql, own]


def each_of(starts: Iterable[Start]) -> list[Any]:
    """Return parameters whose tests run in one process for each broker: so its server is started once."""
    groups = {start: pytest.mark.xdist_group(f"contract of {start.__name__}") for start in starts}
    return [pytest.param(start, id=start.__name__, marks=group) for start, group in groups.items()]
