"""A worker is killed, or stops, amid a run: readers in other workers are told, and their streams end."""

from __future__ import annotations

import os
import signal

import pytest

from flask_sse_emitters import Publisher
from tests.support.board import config
from tests.support.brokers.redis_server import RedisServer
from tests.support.client import answer, connected, new_name
from tests.support.waiting import until
from tests.support.web.workers_server import WorkersServer


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stops"])
def test_run_of_a_worker_that_is_gone_is_interrupted_for_readers_elsewhere(how: signal.Signals) -> None:
    name = new_name()
    with RedisServer() as redis, WorkersServer("gthread", "tests.apps.channels:app", 2, env=config(redis)) as server:
        with connected(server, f"/ask/{name}?count=100000&seconds=0.05") as first:
            worker = first.response.headers["X-Worker"]
            assert first.texts(1) == ["0"]

            def elsewhere() -> bool:
                with connected(server, f"/events/{name}") as reader:
                    if reader.response.headers["X-Worker"] == worker:
                        return False
                    assert reader.texts(1) == ["0"]
                    os.kill(int(worker), how)
                    body = reader.rest()
                    assert body.endswith(
                        b'event: interrupted\ndata: {"reason": "interrupted"}\n\nevent: ~end\nid: ~end\ndata:\n\n'
                    )
                    return True

            until(elsewhere, "a client of the other worker")
        assert answer(server, "GET", f"/events/{name}?lastEventId=~end") == (204, b"")
        with Publisher(redis.url) as publisher:
            publisher.publish(name, "anew")
