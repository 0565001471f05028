"""Servers whose workers give each other their streams."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from flask_sse_emitters import Publisher
from tests.servers.moves.between_workers import Site, names
from tests.support.brokers.redis_server import RedisServer
from tests.support.servers import Server
from tests.support.waiting import until


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as redis:
        yield redis


@pytest.fixture
def make(redis: RedisServer) -> Iterator[Callable[..., Site]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))  # its path is short, as that of a socket is

        def make(kind: str, *arguments: str, **config: Any) -> Site:
            code = folder / "code.json"
            code.write_text(json.dumps({"config": {"SSE_BROKER_URL": redis.url, "SSE_DRAIN_SECONDS": 1, **config}}))
            env = {"MOVING": str(code), "XDG_RUNTIME_DIR": str(folder)}
            command = ["--graceful-timeout=30", *arguments]
            server = stack.enter_context(Server(kind, "tests.apps.servers.moving:app", env=env, arguments=command))
            return Site(server, folder, stack.enter_context(Publisher(redis.url)))

        yield make


@pytest.fixture
def two(make: Callable[..., Site]) -> Callable[..., Site]:
    """Make a server of two workers that have found each other."""

    def two(kind: str, *arguments: str) -> Site:
        site = make(kind, "--workers=2", *arguments)
        until(lambda: len(names(site)) == 2, "both workers")
        return site

    return two
