"""The slots of the connections to Redis."""

from __future__ import annotations

import threading

import pytest
import redis

from flask_sse_emitters.brokers.redis.client import FairSemaphore
from flask_sse_emitters.brokers.redis.connections import within
from tests.support.waiting import PATIENCE, until


def test_connection_slots_are_granted_in_order_of_waiting() -> None:
    slots, order = FairSemaphore(1), []

    def take(number: int) -> None:
        with within(PATIENCE), slots.slot():
            order.append(number)

    with slots.slot():
        threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
        for count, thread in enumerate(threads, 1):
            thread.start()
            until(lambda count=count: len(slots._waiting) == count, "the thread to wait")  # type: ignore[misc]
        with within(0.01), pytest.raises(redis.TimeoutError, match="all 8 connections are busy"), slots.slot():
            pass
    for thread in threads:
        thread.join()
    assert order == list(range(8))
    with slots.slot():
        assert slots._free == 0
