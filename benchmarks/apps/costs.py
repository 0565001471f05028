"""What one call costs a process that publishes, in microseconds of CPU: python -m benchmarks.apps.costs URL CALLS.

It answers with one line of JSON: the least of several rounds of each call, in turns.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import redis
from flask import Flask

from flask_sse_emitters import SSE

from .evalsha import evalsha

ROUNDS = 7

#: Events of one ``publish_many``.
MANY = 100


def app_on(url: str) -> tuple[Flask, SSE]:
    app = Flask(__name__)
    app.config["SSE_BROKER_URL"] = url
    return app, SSE(app)


def cpu_of(call: Callable[[], object], calls: int) -> float:
    before = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - before) / calls * 1e6


def cpu_of_send(calls: int) -> float:
    """One small event to one reader, which sleeps until it comes, as readers do."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    if not os.fork():
        server.close()
        while client.recv(65536):
            pass
        os._exit(0)
    client.close()
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    spent = 0.0
    for _ in range(calls):
        time.sleep(0.0005)
        before = time.process_time()
        server.send(b"x" * 100)
        spent += time.process_time() - before
    server.close()
    os.wait()
    return spent / calls * 1e6


def main() -> None:
    url, calls = sys.argv[1], int(sys.argv[2])
    _, in_memory = app_on("memory://")
    _, shared = app_on(url)
    data = {"n": 1}
    measured: dict[str, Callable[[], Any]] = {
        "memory": lambda: in_memory.publish("news", data),
        "publish": lambda: shared.publish("news", data),
        "many": lambda: shared.publish_many([("news", data)] * MANY),
    }
    if url.startswith("redis"):
        measured["evalsha"] = evalsha(redis.Redis.from_url(url))
    for call in measured.values():
        cpu_of(call, 50)
    rounds = [
        {name: cpu_of(call, calls // MANY if name == "many" else calls) for name, call in measured.items()}
        for _ in range(ROUNDS)
    ]
    least = {name: min(each[name] for each in rounds) for name in measured}
    print(json.dumps({**least, "many": least["many"] / MANY, "send": cpu_of_send(calls)}))


if __name__ == "__main__":
    main()
