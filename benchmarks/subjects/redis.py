"""A Redis server beside a subject, on the same core, whose CPU time is told apart."""

from __future__ import annotations

import shutil

from ..processes import Program
from .server import Server, Subject, free_port


class WithRedis(Subject):
    def missing(self) -> str | None:
        return super().missing() or (None if shutil.which("redis-server") else "not installed: redis-server")

    def server(self) -> ServerWithRedis:
        return ServerWithRedis()

    def prepare(self, server: Server) -> None:
        assert isinstance(server, ServerWithRedis)
        options = ["--port", str(server.redis_port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command = ["redis-server", *options, "--dir", str(server.folder), "--maxclients", "15000"]
        server.helpers["redis"] = server.add(Program(command, server.folder)).pid


class ServerWithRedis(Server):
    def __init__(self) -> None:
        super().__init__()
        self.redis_port = free_port()
        self.broker_url = f"redis://127.0.0.1:{self.redis_port}/0"

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

    def channels(self, pattern: str) -> int:
        """How many channels of Pub/Sub any connection listens to."""
        import redis

        with redis.Redis(port=self.redis_port) as connection:
            return len(connection.pubsub_channels(pattern))
