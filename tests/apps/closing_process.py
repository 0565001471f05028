"""Make apps and close or drop them, and check that nothing is left: ``URL close|drop threads|gevent``."""

from __future__ import annotations

import sys

if sys.argv[3:] == ["gevent"]:
    from gevent import monkey

    monkey.patch_all()

import gc
import os
import threading
import weakref
from typing import Any

import redis

from tests.support.board import Board
from tests.support.waiting import until

APPS = 20


def main(url: str, how: str) -> None:
    client = redis.Redis.from_url(url)
    own = client.client_id()

    def held() -> dict[str, int]:
        gc.collect()
        return {
            "threads": threading.active_count(),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "connections": sum(int(each["id"]) != own for each in client.client_list()),
        }

    for _ in range(2):  # warms up: makes what is made once and kept
        use(url, how)
    until(lambda: held()["connections"] == 0, "the first apps to be released")
    before = held()
    states = [use(url, how) for _ in range(APPS)]
    if how == "close":
        assert held()["connections"] == 0, "all is freed when close() returns"
    until(lambda: at_most(held(), before), f"no more than {before}, and not {held()}")
    until(lambda: gc.collect() is not None and not any(state() for state in states), "the apps to be freed")
    print("all is freed")  # noqa: T201


def use(url: str, how: str) -> weakref.ref[Any]:
    board = Board(SSE_BROKER_URL=url, SSE_DRAIN_SECONDS=1)
    with board.open("a") as stream:
        board.publish("a", 1)
        until(lambda: list(stream.ready()), "the event")
    if how == "close":
        board.sse.close()
    return weakref.ref(board.sse.find_state())


def at_most(now: dict[str, int], before: dict[str, int]) -> bool:
    return all(now[name] <= before[name] for name in before)


if __name__ == "__main__":
    main(*sys.argv[1:3])
