"""Sentinels name the master: publishers and subscribers follow it."""

from __future__ import annotations

import signal
from functools import partial
from typing import Any

import redis as redis_py

from flask_sse_emitters.brokers import make_broker
from tests.brokers.deliveries import assert_events_are_delivered, published
from tests.support.broker_calls import listening, publish
from tests.support.redis_topologies import sentinel
from tests.support.waiting import until


def test_sentinel_url_follows_the_master_after_failover() -> None:
    with sentinel() as (address, master, replica):
        broker = make_broker(f"redis+sentinel://127.0.0.1:1,{address}/mymaster/0")
        assert_events_are_delivered(broker, "a")
        listener = listening(broker, "b")
        publish(broker, "b", "before")
        until(lambda: listener.frames, "an event")
        until(lambda: redis_py.Redis(port=replica.port).exists("sse:{b}:log"), "the replica to have the event")
        master.signal(signal.SIGKILL)
        until(partial(published, broker, "b", "after"), "the replica to be the master")
        until(lambda: listener.texts[-1:] == [b"data: after\n\n"], "an event of the new master")
        until(lambda: broker.status()["state"] == "ok", "the end of the outage")
        broker.close()


def test_sentinel_subscriber_leaves_replaced_master_that_still_answers() -> None:
    """It answers, as one that had hung, but nothing is published there any more."""
    with sentinel() as (address, master, replica):
        broker = make_broker(f"redis+sentinel://{address}/mymaster/0")
        listener = listening(broker, "b")
        publish(broker, "b", "before")
        old: Any = redis_py.Redis(port=master.port)
        new: Any = redis_py.Redis(port=replica.port)
        until(lambda: new.exists("sse:{b}:log"), "the replica to have the event")
        new.replicaof("NO", "ONE")
        minder: Any = redis_py.Redis(port=int(address.split(":")[1]))
        minder.execute_command("SENTINEL REMOVE mymaster")
        minder.execute_command(f"SENTINEL MONITOR mymaster 127.0.0.1 {replica.port} 1")
        old.client_kill_filter(_type="normal")  # all connections but the subscriber's
        until(partial(published, broker, "b", "after"), "the broker to find the new master")
        until(lambda: listener.texts[-1:] == [b"data: after\n\n"], "an event of the new master")
        broker.close()
