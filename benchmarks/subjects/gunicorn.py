"""What runs in a worker of gunicorn, mostly of gevent, each with the same settings."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from ..processes import BenchmarkFailed, Program, children, cpu_seconds
from .server import Server, Subject, free_port

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


class OnRedis(OnGunicorn):
    """A Redis server on the same core as the workers, whose CPU time is told apart.

    :ivar url_setting: the config key that says where it is.
    """

    packages = (*OnGunicorn.packages, "redis")
    url_setting: str

    def missing(self) -> str | None:
        return super().missing() or (None if shutil.which("redis-server") else "not installed: redis-server")

    def server(self) -> ServerWithRedis:
        return ServerWithRedis()

    def launch(self, server: Server) -> None:
        assert isinstance(server, ServerWithRedis)
        options = ["--port", str(server.redis_port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command = ["redis-server", *options, "--dir", str(server.folder), "--maxclients", "15000"]
        server.helpers["redis"] = server.add(Program(command, server.folder)).pid
        server.settings = {self.url_setting: server.redis_url, **server.settings}
        super().launch(server)


class ServerWithRedis(Server):
    def __init__(self) -> None:
        super().__init__()
        self.redis_port = free_port()
        self.redis_url = f"redis://127.0.0.1:{self.redis_port}/0"

    def redis_cpu(self) -> float:
        return cpu_seconds([self.helpers["redis"]])

    def redis_bytes(self) -> int:
        """What it holds in memory."""
        import redis

        with redis.Redis(port=self.redis_port) as connection:
            used: int = connection.info("memory")["used_memory"]
            return used

    def listeners(self, announced: str) -> int:
        """How many connections Redis tells what is published under this name."""
        import redis

        with redis.Redis(port=self.redis_port) as connection:
            count: int = connection.pubsub_numsub(announced)[0][1]
            return count


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

    def await_clients(self, count: int) -> None:
        deadline = time.monotonic() + 60
        while (subscribed := self.listeners("sse")) != count:
            if time.monotonic() > deadline:
                raise BenchmarkFailed(f"{subscribed} of {count} clients are subscribed in Redis")
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
