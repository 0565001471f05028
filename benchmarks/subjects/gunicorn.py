"""What runs in a gevent worker of gunicorn, each with the same settings."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from ..processes import BenchmarkFailed, Program, children
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
        """The worker: the arbiter only watches."""
        return children(server.programs[-1].pid)


class Ours(OnGunicorn):
    """This package, with what waits for a client bounded far above what any figure needs."""

    app = "ours"

    def __init__(self, name: str, handoff: str, most_clients: int) -> None:
        super().__init__(name)
        self.most_clients = most_clients
        self._settings = {
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


class FlaskSse(OnGunicorn):
    """Flask-SSE, and a Redis server on the same core, whose CPU time is told apart."""

    app = "flask_sse_app"
    packages = ("gunicorn", "gevent", "flask_sse", "redis")
    most_clients = 1_000

    def missing(self) -> str | None:
        return super().missing() or (None if shutil.which("redis-server") else "not installed: redis-server")

    def server(self) -> Server:
        return _ServerWithRedis()

    def launch(self, server: Server) -> None:
        assert isinstance(server, _ServerWithRedis)
        options = ["--port", str(server.redis_port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command = ["redis-server", *options, "--dir", str(server.folder), "--maxclients", "15000"]
        server.helpers["redis"] = server.add(Program(command, server.folder)).pid
        server.settings = {"REDIS_URL": f"redis://127.0.0.1:{server.redis_port}/0", **server.settings}
        super().launch(server)


class _ServerWithRedis(Server):
    """gunicorn sends a response head with the first event, and a client subscribes some time after its request."""

    heads_come_late = True

    def __init__(self) -> None:
        super().__init__()
        self.redis_port = free_port()

    def await_clients(self, count: int) -> None:
        import redis

        deadline = time.monotonic() + 60
        with redis.Redis(port=self.redis_port) as connection:
            while (subscribed := connection.pubsub_numsub("sse")[0][1]) != count:
                if time.monotonic() > deadline:
                    raise BenchmarkFailed(f"{subscribed} of {count} clients are subscribed in Redis")
                time.sleep(0.05)
