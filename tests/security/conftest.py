"""Servers that all attempts share, one of each kind."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.security.attempts import GEVENT, GTHREAD, KEY, PUBLISHER, World
from tests.support.client import get, new_name
from tests.support.servers import Server
from tests.support.waiting import until


@pytest.fixture(scope="session", params=[GEVENT, GTHREAD])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    secrets = {"session": new_name(), "tokens": KEY, "publisher": PUBLISHER}
    # The most that gunicorn allows, so that what is too long reaches the library.
    limits = ["--limit-request-line", "8190", "--limit-request-field_size", "200000"]
    env = {"SECRETS": json.dumps(secrets)}
    with Server(request.param, "tests.apps.security.attempts:app", env=env, arguments=limits) as server:
        yield World(server)


@pytest.fixture(autouse=True)
def no_stream_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check after each attempt that no site keeps anything of it, and that none has failed."""
    if "world" not in request.fixturenames:
        yield
        return
    server = request.getfixturevalue("world").server
    logged = len(server.log)
    yield
    until(lambda: get(server, "/left") == {"clients": 0, "channels": {}, "emitters": 0}, "all clients to be gone")
    assert "Traceback" not in server.log[logged:]
