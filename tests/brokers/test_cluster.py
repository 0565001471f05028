"""A Redis Cluster: each channel is on one node, and an outage of some nodes concerns no channel of the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest
import redis

from flask_sse_emitters import BrokerUnavailable
from flask_sse_emitters.brokers import Broker, make_broker
from tests.brokers.deliveries import assert_events_are_delivered, published
from tests.support.broker_calls import KEPT, frame, listening, publish
from tests.support.redis_server import RedisServer
from tests.support.redis_topologies import SLOTS, cluster, join_again
from tests.support.waiting import until


@pytest.fixture(scope="module")
def shared_nodes() -> Iterator[list[RedisServer]]:
    with cluster() as nodes:
        yield nodes


@pytest.fixture
def nodes(shared_nodes: list[RedisServer]) -> list[RedisServer]:
    """The nodes of a cluster that is empty and complete. A test may kill some."""
    join_again(shared_nodes)
    return shared_nodes


@pytest.fixture
def broker(nodes: list[RedisServer]) -> Iterator[Broker]:
    with closing(make_broker("redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes))) as broker:
        yield broker


def test_cluster_keeps_each_channel_on_one_node(nodes: list[RedisServer], broker: Broker) -> None:
    channels = [f"user:{number}" for number in range(20)]
    assert_events_are_delivered(broker, *channels)
    kept = [redis.Redis(port=node.port).keys("sse:{user:*}:log") for node in nodes]
    assert sum(map(len, kept)) == len(channels)
    assert all(kept)
    with closing(make_broker(f"redis+cluster://127.0.0.1:{nodes[2].port}")) as other:
        listeners = [listening(other, channel) for channel in channels]
        assert all(listener.log is not None and listener.log.newest == 2 for listener in listeners)
        for channel in channels:
            publish(broker, channel, "c")
        until(lambda: all(listener.texts == [b"data: c\n\n"] for listener in listeners), "all events")
        other.count_again("user:1")
        until(lambda: broker.clients_elsewhere("user:1") == 1, "the other process's client")


def test_cluster_outage_raises_and_degrades_state(nodes: list[RedisServer], broker: Broker) -> None:
    assert_events_are_delivered(broker, "a")
    for node in nodes:
        node.kill()
    with pytest.raises(BrokerUnavailable):
        broker.publish("a", frame("x"), KEPT)
    until(lambda: broker.status()["state"] == "degraded", "the outage to be noticed")


def test_cluster_node_outage_delays_no_channel_of_other_nodes(nodes: list[RedisServer], broker: Broker) -> None:
    client: Any = redis.Redis(port=nodes[0].port)

    def node_of(key: str) -> int:
        return int(client.execute_command("CLUSTER KEYSLOT", key)) * len(nodes) // SLOTS

    lost = node_of("{here}")  # where clients are counted
    there = [f"user:{number}" for number in range(20)]
    away = [channel for channel in there if node_of(f"{{{channel}}}") == lost]
    up = [channel for channel in there if node_of(f"{{{channel}}}") != lost]
    listeners = {channel: listening(broker, channel) for channel in [*away, *up[1:]]}
    nodes[lost].kill()
    listeners[up[0]] = listening(broker, up[0])
    for channel in up:
        until(partial(published, broker, channel, "x"), "the other nodes to publish")
    until(lambda: all(listeners[channel].texts for channel in up), "their events")
    until(lambda: "counting clients" in broker.status().get("error", ""), "the outage to be noticed")
    nodes[lost].start()
    for channel in away:
        until(partial(published, broker, channel, "y"), "the node to be back")
    until(lambda: all(listeners[channel].log.newest for channel in away), "their events")  # type: ignore[union-attr]
    until(lambda: broker.status()["state"] == "ok", "the end of the outage")
