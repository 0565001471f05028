"""A plain client of a test's Redis."""

from __future__ import annotations

from typing import Any

import redis as redis_py

from tests.support.redis_server import RedisServer


def client_of(server: RedisServer) -> Any:
    return redis_py.Redis(port=server.port, protocol=2)
