"""What one call costs a process that publishes, in microseconds of CPU: python -m benchmarks.apps.costs URL CALLS.

It answers with one line of JSON: the least of several rounds of each call, in turns.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import redis
from flask import Flask

from flask_sse_emitters import SSE

from .evalsha import evalsha

ROUNDS = 7

#: Events of one ``publish_many``.
MANY = 100

#: What is sent to one reader.
EVENT = b"x" * 100


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
    reader = connection_to(read_all)
    spent = 0.0
    for _ in range(calls):
        time.sleep(0.0005)
        before = time.process_time()
        reader.send(EVENT)
        spent += time.process_time() - before
    reader.close()
    os.wait()
    return spent / calls * 1e6


def cpu_of_relay(calls: int) -> float:
    """The least that a process does for an event that comes from elsewhere: it sleeps, receives it, and sends it on.

    Those who send and read are on another processor, as beside a server.
    """
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)) - own or own)
    reader, source = connection_to(read_all), connection_to(partial(send_all, calls))
    os.sched_setaffinity(0, own)
    poll = select.poll()
    poll.register(source, select.POLLIN)
    received, before = 0, time.process_time()
    while poll.poll() and (event := source.recv(65536)):
        reader.send(event)
        received += len(event)
    spent = time.process_time() - before
    reader.close()
    source.close()
    os.wait()
    os.wait()
    return spent / (received / len(EVENT)) * 1e6


def connection_to(serve: Callable[[socket.socket], None]) -> socket.socket:
    """Return a connection to a process that does this with its end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    if not os.fork():
        ours.close()
        serve(theirs)
        os._exit(0)
    theirs.close()
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours


def read_all(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def send_all(calls: int, connection: socket.socket) -> None:
    """Send events one by one, 500 a second."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(calls):
        time.sleep(0.002)
        connection.send(EVENT)


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
    limits = {"send": cpu_of_send(calls), "relay": cpu_of_relay(calls)}
    print(json.dumps({**least, "many": least["many"] / MANY, **limits}))


if __name__ == "__main__":
    main()
