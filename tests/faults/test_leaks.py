"""An emitter that ends leaves no object, memory, thread or descriptor behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.client import Client, get
from tests.support.servers import SERVERS, Server
from tests.support.waiting import until

CONNECTS = 5_000
THREADS = 20


@pytest.fixture(params=SERVERS)
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that no other test has used.

    Its malloc has one arena. How many more the C library makes depends on which threads contend for it, and each keeps
    the most that it ever held. That differs by megabytes from run to run, without one more object.
    """
    few_threads = ("--threads", "24") if request.param == "gthread" else ()  # fills its pool early
    # A stream that ends before its server has begun it is kept until the attach timeout.
    env = {"MALLOC_ARENA_MAX": "1", "SSE_ATTACH_SECONDS": "5"}
    with Server(request.param, "tests.apps.contract:app", env=env, arguments=few_threads) as server:
        yield server


@pytest.mark.timeout(600)
def test_thousands_of_disconnects_leave_no_objects_or_memory(own_server: Server) -> None:
    _connect_and_leave(own_server, 1_000)  # warms up: makes what is made once and kept
    before = _settled(own_server)
    _connect_and_leave(own_server, CONNECTS)
    after = _settled(own_server)
    assert after["objects"] == dict.fromkeys(after["objects"], 0) | {"Timer": after["objects"]["Timer"]}
    assert after["objects"]["Timer"] <= 200, "cancelled timers are swept"
    assert after["watched"] == 0
    assert after["all_objects"] - before["all_objects"] < 1_000
    assert (after["rss"] - before["rss"]) / 2**20 < 2
    assert after["descriptors"] <= before["descriptors"] + 2
    assert after["threads"] <= before["threads"] + 2
    assert after["python_threads"] <= before["python_threads"] + 2


def _connect_and_leave(server: Server, count: int) -> None:
    failures: list[BaseException] = []

    def visit(visits: int) -> None:
        try:
            for number in range(visits):
                ends_by_itself = number % 4 == 0
                client = Client(server, f"/unknown?timeout={0.001 if ends_by_itself else 60}")
                client.events(1)
                if ends_by_itself:
                    client.rest()
                elif number % 4 == 1:
                    client.reset()
                client.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=visit, args=(count // THREADS,)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def _settled(server: Server) -> dict[str, Any]:
    """Return what the process holds once all emitters have ended and their callbacks have run."""
    until(lambda: get(server, "/lists/unknown") == {"count": 0}, "all emitters to end")

    def found() -> dict[str, Any] | None:
        time.sleep(0.2)  # each request makes the server count all its objects
        now: dict[str, Any] = get(server, "/process")
        is_over = now["objects"]["SseEmitter"] == now["objects"]["Stream"] == now["watched"] == 0
        return now if is_over else None

    return until(found, "the last emitter to be released") or {}
