"""What runs in a worker of gunicorn, mostly of gevent, each with the same settings."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from ..load import Load
from ..processes import BenchmarkFailed, Program, children
from .postgresql import WithPostgresql
from .redis import ServerWithRedis, WithRedis
from .server import Server, Subject

_SETTINGS = Path(__file__).parent.parent / "apps" / "gunicorn_settings.py"


class OnGunicorn(Subject):
    app: str
    packages: tuple[str, ...] = ("gunicorn", "gevent")

    def launch(self, server: Server) -> None:
        command = [sys.executable, "-m", "gunicorn", "--config", str(_SETTINGS), f"benchmarks.apps.{self.app}:app"]
        env = {"BENCH_PORT": str(server.port), **{f"BENCH_{key}": value for key, value in server.settings.items()}}
        server.add(Program(command, server.folder, env=env))

    def pids(self, server: Server) -> list[int]:
        """The workers: the arbiter only watches."""
        count, deadline = int(server.settings.get("WORKERS", "1")), time.monotonic() + 30
        while len(pids := children(server.programs[-1].pid)) < count:
            if time.monotonic() > deadline:
                raise BenchmarkFailed(f"gunicorn started {len(pids)} workers of {count}")
            time.sleep(0.05)
        return pids


class Ours(OnGunicorn):
    """This package, with what waits for a client bounded far above what any figure needs."""

    app = "ours"

    def __init__(self, name: str, handoff: str, most_clients: int, worker_class: str = "gevent") -> None:
        super().__init__(name)
        self.most_clients = most_clients
        self._settings = {
            "WORKER_CLASS": worker_class,
            "SSE_HANDOFF": handoff,
            "SSE_MAX_CLIENTS": str(most_clients + 1_000),
            "SSE_MAX_PENDING": "100000",
            "SSE_MAX_PENDING_BYTES": str(64 << 20),
        }

    def launch(self, server: Server) -> None:
        server.settings = {**self._settings, **server.settings}
        super().launch(server)


class Recipe(OnGunicorn):
    app = "recipe"
    most_clients = 10_000


class OnRedis(WithRedis, OnGunicorn):
    """With a Redis server of its own.

    :ivar url_setting: the config key that says where it is.
    """

    packages = (*OnGunicorn.packages, "redis")
    url_setting: str

    def launch(self, server: Server) -> None:
        server.settings = {self.url_setting: str(server.broker_url), **server.settings}
        super().launch(server)


class FlaskSse(OnRedis):
    app = "flask_sse_app"
    packages = (*OnRedis.packages, "flask_sse")
    url_setting = "REDIS_URL"
    most_clients = 1_000

    def server(self) -> ServerWithRedis:
        return _FlaskSseServer()


class _FlaskSseServer(ServerWithRedis):
    """gunicorn sends a response head with the first event, and a client subscribes some time after its request."""

    heads_come_late = True
    channel_path = "/events?channel={}"

    def await_clients(self, count: int) -> None:
        self._await(count, lambda: self.listeners("sse"))

    def connect_each(self, load: Load, count: int, name: str, /) -> None:
        super().connect_each(load, count, name)
        self._await(count, lambda: self.channels(f"{name}-*"))

    def _await(self, count: int, subscribed: Callable[[], int]) -> None:
        deadline = time.monotonic() + 60
        while (there := subscribed()) != count:
            if time.monotonic() > deadline:
                raise BenchmarkFailed(f"{there} of {count} clients are subscribed in Redis")
            time.sleep(0.05)


class OursWithChannels(OnGunicorn):
    """This package with channels."""

    most_clients = 15_000

    def __init__(self, name: str, worker_class: str = "gevent") -> None:
        super().__init__(name)
        self._settings = {"WORKER_CLASS": worker_class, "SSE_MAX_CLIENTS": str(self.most_clients + 1_000)}

    def launch(self, server: Server) -> None:
        server.path = "/events/news"
        server.settings = {**self._settings, **server.settings}
        super().launch(server)


class OursOnRedis(OursWithChannels, OnRedis):
    """This package with channels, which its workers share."""

    app = "channels_on_redis"
    url_setting = "SSE_BROKER_URL"

    @staticmethod
    def announced(channel: str) -> str:
        """The name under which Redis announces what is published to a channel."""
        return f"sse:{{{channel}}}@0"


class OursInMemory(OursWithChannels):
    """This package with channels, in the memory of one worker."""

    app = "channels"


class OursOnPostgresql(WithPostgresql, OursWithChannels):
    """This package with channels, which its workers share over PostgreSQL."""

    app = "channels"
    packages = (*OnGunicorn.packages, "psycopg")

    def launch(self, server: Server) -> None:
        server.settings = {"SSE_BROKER_URL": str(server.broker_url), **server.settings}
        super().launch(server)
