"""A stream that ends leaves no object, memory, thread or descriptor behind.

``LEAK_CONNECTS=5000 pytest tests/faults/crowds/test_leaks.py`` changes the number of connects; ``-s`` prints
the growth.
"""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.faults.network.network_clients import reset_when_closed
from tests.faults.processes.process_servers import config
from tests.support.client import get
from tests.support.servers import SERVERS, Server
from tests.support.waiting import PATIENCE, until

CONNECTS = int(os.environ.get("LEAK_CONNECTS", 2_000))
THREADS = 10

#: Blocks of memory that may come and go: cancelled timers have hundreds. One for every other connect is a leak.
NOISE = CONNECTS // 2


@pytest.mark.parametrize("kind", SERVERS)
def test_thousands_of_disconnects_leave_no_objects_or_memory(kind: str) -> None:
    few_threads = ("--threads", "12") if kind.startswith("gthread") else ()  # fills its pool early
    # How many arenas the C library makes depends on which threads contend for them, and each keeps the most that it
    # ever held. That differs by megabytes from run to run, without one more object. So there is one.
    # A stream that ends before its server has begun it is kept until the attach timeout.
    env = {"MALLOC_ARENA_MAX": "1", **config(SSE_ATTACH_SECONDS=5)}
    with Server(kind, "tests.apps.faults.crowd:app", env=env, arguments=few_threads) as server:
        connect_and_leave(server, 500)  # warms up: makes what is made once and kept
        before = settled(server)
        connect_and_leave(server, CONNECTS)
        after = settled(server)
    more = {name: after[name] - before[name] for name in before if name not in ("objects", "pid", "lists", "ends")}
    print(kind, more)  # noqa: T201 - measurements
    assert of_streams(after) == of_streams(before)
    assert after["objects"].get("runtime.timers.Timer", 0) <= 200, "cancelled timers are swept"
    assert more["blocks"] < NOISE
    assert more["rss"] < 2**20
    assert max(more["descriptors"], more["threads"], more["python_threads"]) <= 2


def connect_and_leave(server: Server, count: int) -> None:
    """Connect clients, of which every fourth reads to the end of its stream; the others leave, some with a reset."""

    def visit(visits: int) -> None:
        for number in range(visits):
            way = ("end", "reset", "close", "close")[number % 4]
            with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
                path = f"/connect/leaks?heartbeat=0&timeout={0.001 if way == 'end' else 60}"
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
                received = b""
                while (b"welcome\n\n" not in received or way == "end") and (got := client.recv(4096)):
                    received += got
                assert way == "end" or b"welcome\n\n" in received
                if way == "reset":
                    reset_when_closed(client)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(visit, [count // THREADS] * THREADS))


def settled(server: Server) -> dict[str, Any]:
    """Return what the process holds once all streams have ended and their callbacks have run."""
    until(lambda: not any(map(get(server, "/counts/leaks").get, ("clients", "listed"))), "all streams to end")

    def found() -> dict[str, Any] | None:
        time.sleep(0.2)  # each request makes the server count all its objects
        now: dict[str, Any] = get(server, "/state")
        return None if {"streams.emitter.SseEmitter", "streams.stream.Stream"} & set(now["objects"]) else now

    return until(found, "the last emitter to be released") or {}


def of_streams(held: dict[str, Any]) -> dict[str, int]:
    """Return the package's objects, without the cancelled timers, which are removed later."""
    return {name: count for name, count in held["objects"].items() if not name.startswith("runtime.timers.")}
