"""A server that several processes share, of each kind that keeps channels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from tests.support.brokers.postgresql import PostgresqlServer
from tests.support.brokers.redis_server import RedisServer

SharedBroker = Literal["redis", "postgresql"]


@contextmanager
def shared_broker(kind: SharedBroker) -> Iterator[tuple[RedisServer | PostgresqlServer, str]]:
    """Run such a server, which may be killed and started again; give it, and what ``SSE_BROKER_URL`` is for it."""
    if kind == "redis":
        with RedisServer() as redis:
            yield redis, redis.url
    else:
        with PostgresqlServer() as postgresql:
            yield postgresql, postgresql.new_database()
