"""A Redis that hangs amid a broadcast: streams stay open, and no event is lost."""

from __future__ import annotations

import signal
import time

from tests.faults.crowd_clients import Crowd
from tests.faults.publishing_process import numbers, publishing, read_to, sharing
from tests.support.client import answer, get
from tests.support.redis_server import RedisServer
from tests.support.waiting import until


def test_stopped_redis_loses_no_event_and_streams_stay_open() -> None:
    number, last = 60, 150
    with RedisServer() as redis, sharing(redis, SSE_HEARTBEAT=0.2) as server, Crowd(server.port) as crowd:
        crowd.come(number, "/events?channel=a")
        crowd.read_until(lambda: crowd.answered == number, "all to be answered")
        with publishing(redis.url, last, pause=0.005) as publisher:
            crowd.read_until(lambda: publisher.confirmed > 30, "the first events")
            redis.signal(signal.SIGSTOP)
            try:
                began = time.monotonic()
                status, text = answer(server, "POST", "/publish/b", "1", {"Content-Type": "application/json"})
                refused = time.monotonic() - began
                assert (status, b"may have been published" in text) == (503, True)
                until(lambda: get(server, "/state")["stats"]["broker"]["state"] == "degraded", "the worker to know")
                beats = [visitor.received.count(b"\n:\n\n") for visitor in crowd.visitors]
                crowd.read_until(
                    lambda: all(
                        visitor.received.count(b"\n:\n\n") >= count + 3
                        for visitor, count in zip(crowd.visitors, beats, strict=True)
                    ),
                    "three heartbeats of each",
                )
                until(lambda: publisher.failures, "the publisher to get an error")
                assert publisher.confirmed < last, "it was amid its work"
            finally:
                redis.signal(signal.SIGCONT)
            began = time.monotonic()
            read_to(crowd, last)
            resumed = time.monotonic() - began
        until(lambda: get(server, "/state")["stats"]["broker"]["state"] == "ok", "Redis to be back")
        assert {tuple(numbers(visitor)) for visitor in crowd.visitors} == {tuple(range(1, last + 1))}
        assert crowd.returns == 0, "no stream was cut"
    print(  # noqa: T201 - measurements
        f"\nwhile Redis was stopped: 503 after {refused:.2f} s, publisher's error after {publisher.failures[0]:.2f} s "
        f"(SSE_PUBLISH_SECONDS=0.5); all at the end {resumed:.2f} s after it went on"
    )
