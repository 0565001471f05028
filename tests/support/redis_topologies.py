"""Real sentinels and a real cluster, on free ports and in temporary folders."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis

from tests.support.redis_server import RedisServer
from tests.support.waiting import until

SLOTS = 16384


@contextmanager
def sentinel(service: str = "mymaster") -> Iterator[tuple[str, RedisServer, RedisServer]]:
    """Start a sentinel with a master and its replica; yield its address and both."""
    with TemporaryDirectory() as folder, RedisServer() as master, ExitStack() as stack:
        replica = stack.enter_context(RedisServer("--replicaof", "127.0.0.1", str(master.port)))
        until(lambda: redis.Redis(port=master.port).info("replication")["connected_slaves"] == 1, "the replica")
        settings = Path(folder, "sentinel.conf")
        settings.write_text(
            f"sentinel monitor {service} 127.0.0.1 {master.port} 1\n"
            f"sentinel down-after-milliseconds {service} 500\n"
            f"sentinel failover-timeout {service} 5000\n"
        )
        sentinel_server = stack.enter_context(RedisServer("--sentinel", settings=settings))
        client: Any = redis.Redis(port=sentinel_server.port, protocol=2)
        until(lambda: client.sentinel_slaves(service), "the sentinel to know of the replica")
        yield f"127.0.0.1:{sentinel_server.port}", master, replica


@contextmanager
def cluster(nodes: int = 3) -> Iterator[list[RedisServer]]:
    """Start a cluster of ``nodes`` masters."""
    with ExitStack() as stack:
        buses = [free_port() for _ in range(nodes)]
        settings = (
            "--cluster-enabled",
            "yes",
            "--cluster-require-full-coverage",
            "no",
            "--cluster-node-timeout",
            "2000",
        )
        options = [[*settings, "--cluster-port", str(bus)] for bus in buses]
        servers = [stack.enter_context(RedisServer(*each)) for each in options]
        clients: list[Any] = [redis.Redis(port=server.port) for server in servers]
        for number, client in enumerate(clients):
            first, last = SLOTS * number // nodes, SLOTS * (number + 1) // nodes - 1
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
        for server, bus in zip(servers[1:], buses[1:], strict=True):
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", server.port, bus)
        _await_cluster(servers)
        yield servers


def join_again(servers: list[RedisServer]) -> None:
    """Start the nodes of a cluster that were killed, and delete all data."""
    for server in servers:
        if not server.is_running:
            server.start()
    _await_cluster(servers)
    for server in servers:
        server.run("FLUSHALL")


def _await_cluster(servers: list[RedisServer]) -> None:
    for server in servers:
        client: Any = redis.Redis(port=server.port)

        def is_complete(client: Any = client) -> bool:
            others = client.cluster("NODES").values()
            is_ok = client.cluster("INFO")["cluster_state"] == "ok"
            return is_ok and len(others) == len(servers) and all(other["connected"] for other in others)

        until(is_complete, "the node to reach all others")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
