"""Make apps, close some and drop the others, and check that nothing is left: ``URL threads|gevent``."""

from __future__ import annotations

import sys

if sys.argv[2:] == ["gevent"]:
    from gevent import monkey

    monkey.patch_all()

import gc
import os
import threading
import time
import weakref
from collections.abc import Callable

import psycopg
import redis
from flask import Flask

from tests.support.board import Board
from tests.support.waiting import until

APPS = int(os.environ.get("CLOSED_APPS", "10"))


def main(url: str) -> None:
    count = counting_connections(url)

    def held() -> dict[str, int]:
        return {
            "threads": threading.active_count(),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "connections": count(),
        }

    def is_all_freed() -> bool:
        gc.collect()
        now = held()
        if any(app() for app in apps) or any(now[name] > before[name] for name in before):
            time.sleep(0.1)  # a collection is much work
            return False
        return True

    before = dict.fromkeys(held(), 10**6)
    for closes in (True, False):  # warms up: makes what is made once and kept
        apps = [use(url, closes=closes)]
        until(lambda: is_all_freed() and not held()["connections"], "the first apps to be released")
    before = held()
    for closes in (True, False):
        apps = [use(url, closes=closes) for _ in range(APPS)]
        if closes and url.startswith("redis"):  # PostgreSQL ends the process of a connection a little later
            assert held()["connections"] == 0, "all is freed when close() returns"
        until(is_all_freed, f"no more than {before}, and not {held()}, with closes={closes}")
    print("all is freed")  # noqa: T201


def counting_connections(url: str) -> Callable[[], int]:
    """Return a function that counts the connections of others."""
    if url.startswith("redis"):
        client = redis.Redis.from_url(url)
        own = client.client_id()
        return lambda: sum(int(each["id"]) != own for each in client.client_list())
    connection = psycopg.connect(url, autocommit=True)
    others = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    return lambda: connection.execute(others).rowcount


def use(url: str, *, closes: bool) -> weakref.ref[Flask]:
    board = Board(SSE_BROKER_URL=url, SSE_DRAIN_SECONDS=0.1)
    with board.open("a") as stream:
        board.publish("a", 1)
        until(lambda: list(stream.ready()), "the event")
    if closes:
        board.sse.close()
    return weakref.ref(board.app)


if __name__ == "__main__":
    main(sys.argv[1])
