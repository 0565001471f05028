"""The servers that the tests of this folder share: one of each kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.kinds import OTHERS, each
from tests.servers.nginx.behind_nginx import App
from tests.support.brokers.postgresql import PostgresqlServer
from tests.support.servers import SERVERS, Server
from tests.support.web.apache import Apache


@pytest.fixture(scope="session", params=each("server", SERVERS))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Serve ``tests/apps/handoff.py``, to which a test may add an app of its own: see ``new_app``."""
    with Server(request.param, "tests.apps.handoff:app") as server:
        yield server


@pytest.fixture(scope="session", params=each("other", OTHERS))
def other(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Serve ``tests/apps/handoff.py`` by a server that hands no stream off. End each stream: it holds one of 8 threads.

    a2wsgi does not tell that a client has left.
    """
    app = "tests.apps.handoff:app"
    with Apache(app) if request.param == "mod_wsgi" else Server(request.param, app) as server:
        yield server


@pytest.fixture(scope="session")
def nginx_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """Serve ``tests/apps/channels.py`` with a short heartbeat, for the xdist group "nginx"."""
    with App(tmp_path_factory.mktemp("app"), SSE_HEARTBEAT=1) as app:
        yield app


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """Share a PostgreSQL, of which each test takes a database of its own, in the xdist group "postgresql"."""
    with PostgresqlServer() as server:
        yield server
