"""Real sentinels and a real cluster, on free ports and in temporary folders."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.support.brokers.redis_server import RedisServer
from tests.support.waiting import until

SLOTS = 16384


@contextmanager
def sentinel() -> Iterator[tuple[RedisServer, RedisServer, RedisServer]]:
    """Start a sentinel of the service ``mymaster``; yield it, the master and a replica."""
    with RedisServer() as master, RedisServer("--replicaof", "127.0.0.1", str(master.port)) as replica:
        until(lambda: master.client().info("replication")["connected_slaves"] == 1, "the replica")
        with RedisServer(
            "--sentinel",
            settings=f"sentinel monitor mymaster 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds mymaster 500\n"
            "sentinel failover-timeout mymaster 5000\n",
        ) as minder:
            until(lambda: minder.client().sentinel_slaves("mymaster"), "the sentinel to know of the replica")
            yield minder, master, replica


@contextmanager
def cluster(nodes: int = 3) -> Iterator[list[RedisServer]]:
    """Start a cluster of ``nodes`` masters."""
    settings = "--cluster-enabled yes --cluster-require-full-coverage no --cluster-node-timeout 2000 --cluster-port"
    with ExitStack() as stack:
        buses = [free_port() for _ in range(nodes)]
        servers = [stack.enter_context(RedisServer(*settings.split(), str(bus))) for bus in buses]
        for number, server in enumerate(servers):
            first, last = SLOTS * number // nodes, SLOTS * (number + 1) // nodes - 1
            server.client().execute_command("CLUSTER ADDSLOTSRANGE", first, last)
        for server, bus in zip(servers[1:], buses[1:], strict=True):
            servers[0].client().execute_command("CLUSTER MEET", "127.0.0.1", server.port, bus)

        def is_complete(server: RedisServer) -> bool:
            others = server.client().cluster("NODES").values()
            is_ok = server.client().cluster("INFO")["cluster_state"] == "ok"
            return is_ok and len(others) == len(servers) and all(other["connected"] for other in others)

        until(lambda: all(map(is_complete, servers)), "each node to reach all others")
        yield servers


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
