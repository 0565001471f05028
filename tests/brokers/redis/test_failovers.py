"""Clusters and sentinels: an outage of one Redis concerns no channel of others, and all follow the new master."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial

import pytest

from flask_sse_emitters import BrokerUnavailable
from flask_sse_emitters.brokers import Broker, Publication
from tests.support.brokers.broker_calls import KEPT, assert_events_are_delivered, frame, listening, publish
from tests.support.brokers.redis_topologies import SLOTS, cluster, sentinel
from tests.support.waiting import until


def published(broker: Broker, channel: str, text: str) -> bool:
    try:
        broker.publish(channel, frame(text), KEPT, key=text)
    except BrokerUnavailable:
        return False
    return True


def test_cluster_node_outage_delays_no_channel_of_other_nodes(new_broker: Callable[..., Broker]) -> None:
    """Each channel is on one node."""
    with cluster() as nodes:
        broker = new_broker("redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes))
        channels = [f"user:{number}" for number in range(20)]
        assert_events_are_delivered(broker, *channels)
        kept = [node.client().keys("sse:{user:*}:log") for node in nodes]
        assert sum(map(len, kept)) == len(channels)
        assert all(kept)
        other = new_broker(f"redis+cluster://127.0.0.1:{nodes[2].port}")
        listeners = [listening(other, channel) for channel in channels]
        assert all(listener.log is not None and listener.log.newest == 2 for listener in listeners)
        for channel in channels:
            publish(broker, channel, "c")
        until(lambda: all(listener.texts == [b"data: c\n\n"] for listener in listeners), "all events")
        other.count_again("user:1")
        until(lambda: broker.clients_elsewhere("user:1") == 1, "the other process's client")

        def node_of(key: str) -> int:
            return int(nodes[0].client().execute_command("CLUSTER KEYSLOT", key)) * len(nodes) // SLOTS

        lost = node_of("{here}")  # where clients are counted
        there = [f"new:{number}" for number in range(20)]
        away = [channel for channel in there if node_of(f"{{{channel}}}") == lost]
        up = [channel for channel in there if node_of(f"{{{channel}}}") != lost]
        heard = {channel: listening(broker, channel) for channel in [*away, *up[1:]]}
        nodes[lost].kill()
        heard[up[0]] = listening(broker, up[0])
        for channel in up:
            until(partial(published, broker, channel, "x"), "the other nodes to publish")
        until(lambda: all(heard[channel].texts for channel in up), "their events")
        together = [*up[:3], *away[:2], *up[:3]]
        results = broker.publish_many([Publication(channel, frame("together"), KEPT) for channel in together])
        assert [isinstance(each, BrokerUnavailable) for each in results] == [channel in away for channel in together]
        for channel in up[:2]:
            assert broker.start_run(channel, "run", 600)
            assert broker.cancel_run(channel, KEPT)
            assert broker.state(channel).is_complete
        with pytest.raises(BrokerUnavailable):
            broker.state(away[0])
        until(lambda: "counting clients" in broker.status().get("error", ""), "the outage to be noticed")
        nodes[lost].start()
        for channel in away:
            until(partial(published, broker, channel, "y"), "the node to be back")
        until(lambda: all(heard[channel].log.newest for channel in away), "their events")  # type: ignore[union-attr]
        until(lambda: broker.status()["state"] == "ok", "the end of the outage")
        for node in nodes:
            node.kill()
        with pytest.raises(BrokerUnavailable):
            broker.publish("a", frame("x"), KEPT)
        until(lambda: broker.status()["state"] == "degraded", "the outage of all nodes to be noticed")


@pytest.mark.parametrize("old_master", ["is gone", "still answers"])
def test_sentinel_url_follows_the_master_after_failover(new_broker: Callable[..., Broker], old_master: str) -> None:
    """An old master may answer, as one that had hung, but nothing is published there any more."""
    with sentinel() as (minder, master, replica):
        broker = new_broker(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{minder.port}/mymaster/0")
        assert_events_are_delivered(broker, "a")
        listener = listening(broker, "b")
        publish(broker, "b", "before")
        until(lambda: listener.frames, "an event")
        until(lambda: replica.client().exists("sse:{b}:log"), "the replica to have the event")
        if old_master == "is gone":
            master.signal(signal.SIGKILL)
        else:
            replica.client().replicaof("NO", "ONE")
            minder.client().execute_command("SENTINEL REMOVE mymaster")
            minder.client().execute_command(f"SENTINEL MONITOR mymaster 127.0.0.1 {replica.port} 1")
            master.client().client_kill_filter(_type="normal")  # all connections but the subscriber's
        until(partial(published, broker, "b", "after"), "the replica to be the master")
        until(lambda: listener.texts[-1:] == [b"data: after\n\n"], "an event of the new master")
        until(lambda: broker.status()["state"] == "ok", "the end of the outage")
