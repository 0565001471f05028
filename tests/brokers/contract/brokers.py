"""The brokers that pass the contract: the tests in ``test_contract*.py``. Add yours to ``BROKERS``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

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


#: Each starts what its broker needs, once for all tests, and yields a function that makes the broker.
BROKERS: list[Callable[[], AbstractContextManager[Make]]] = [memory, redis, postgresql, own]
