"""Ends of channels, their runs, and several events in one step, over Redis: failures, failovers, and what it keeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from flask_sse_emitters import BrokerUnavailable
from flask_sse_emitters.brokers import (
    CHANNEL_END,
    INTERRUPTED,
    Bounds,
    Broker,
    Position,
    Publication,
    Published,
    RunLost,
    make_broker,
)
from tests.support.brokers.broker_calls import KEPT, end, frame, listening, publish, publish_as
from tests.support.brokers.redis_server import RedisServer
from tests.support.waiting import until

MakeBroker = Callable[..., Broker]


def many(*channels: str, key: str | None = None) -> list[Publication]:
    return [Publication(channel, frame(channel), KEPT, key) for channel in channels]


def fill(client: Any) -> None:
    client.config_set("maxmemory", 1)


def test_publish_many_fails_only_in_the_channel_that_fails(client: Any, new_broker: MakeBroker) -> None:
    client.set("sse:{bad}:at", "something else")
    broker = new_broker()
    good, bad, again, worse = broker.publish_many(many("good", "bad", "good", "bad"))
    assert isinstance(good, Published)
    assert isinstance(again, Published)
    for failed in (bad, worse):
        assert isinstance(failed, BrokerUnavailable)
        assert "sse:{bad}:at" in str(failed)
        assert not failed.may_be_published
    assert [each.partition(":")[0] for each in broker.status()["troubles"]] == ["channel 'bad'"]


def test_publish_many_to_redis_that_is_away_fails_for_each(server: RedisServer, new_broker: MakeBroker) -> None:
    broker = new_broker()
    publish(broker, "a", "x")
    server.kill()
    results = broker.publish_many(many("a", "b", "a"))
    assert [type(each) for each in results] == [BrokerUnavailable] * 3
    for call in (
        lambda: broker.state("a"),
        lambda: broker.start_run("a", "run", 10),
        lambda: broker.renew_run("a", "run", 10),
        lambda: broker.cancel_run("a", None),
    ):
        with pytest.raises(BrokerUnavailable, match="does it run"):
            call()


def test_publish_many_after_scripts_are_flushed_publishes_each_once(client: Any, new_broker: MakeBroker) -> None:
    broker = new_broker()
    listener = listening(broker, "a")
    for _ in range(2):
        results = broker.publish_many(many("a", "b", "a", "c"))
        assert all(isinstance(each, Published) for each in results)
        client.script_flush()
    until(lambda: len(listener.frames) == 4, "all events")
    assert broker.state("a").newest == 4
    assert broker.state("c").newest == 2


def test_publish_many_to_redis_is_one_round_trip(client: Any, new_broker: MakeBroker) -> None:
    broker = new_broker()
    broker.publish_many(many("a", "b"))
    before = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    broker.publish_many(many("a", "b", "a", "a", "b"))
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == before + 2, "one script for each channel"


def test_state_of_redis_leaves_out_events_that_are_too_old(client: Any, new_broker: MakeBroker) -> None:
    """Redis still keeps these: it drops a few with each event."""
    broker = new_broker()
    [first] = publish(broker, "a", "x", bounds=Bounds(1000, 60.0))
    now = int(time.time() * 1000)
    for young in (0, 1, 7, 100):
        client.delete("sse:{a}:log")
        for offset in range(1, 101):
            at = now if offset > 100 - young else now - 3_600_000
            client.xadd("sse:{a}:log", {"b": "data: x\n\n", "n": "=message", "t": at}, id=f"{offset}-0")
        client.hset("sse:{a}:at", mapping={"offset": 100, "last": now})
        state = new_broker().state("a")
        assert (state.newest, state.oldest) == (100, 101 - young)
        assert f"{state.epoch}-1" == first


@pytest.mark.parametrize("foreign", ["first garbage", "offset garbage", "run_until garbage run x"])
def test_state_of_foreign_keys_is_an_error_that_names_them(
    server: RedisServer, new_broker: MakeBroker, foreign: str
) -> None:
    broker = new_broker()
    publish(broker, "bad", "x")
    server.run(f"HSET sse:{{bad}}:at {foreign}")
    with pytest.raises(BrokerUnavailable, match=r"sse:\{bad\}:at"):
        broker.state("bad")


def test_keys_of_an_ended_channel_expire_all(client: Any, new_broker: MakeBroker) -> None:
    """Also those of a channel that keeps no events, and of a run that has published nothing."""
    broker = new_broker()
    for events in (0, 10):
        broker.publish_many(many("a", key="k"))
        end(broker, "a", Bounds(events, 100.0))
        left = {key.decode().split(":", 2)[2]: client.pttl(key) for key in client.keys("*{a}*")}
        assert left.keys() == {"at", "log", "key:k"}
        assert 0 < left["log"] <= 100_000
        assert 0 < left["at"] <= 7 * 86_400_000
    assert broker.start_run("b", "run", 600)
    assert client.pttl("sse:{b}:at") > 600_000, "who comes later still finds it dead"
    client.pexpire("sse:{b}:at", 600_000)
    assert broker.renew_run("b", "run", 600)
    assert 600_000 < client.pttl("sse:{b}:at") <= 7 * 86_400_000
    broker.cancel_run("b", Bounds(0, 100.0))
    assert 0 < client.pttl("sse:{b}:log") <= 100_000
    assert b"run" not in client.hgetall("sse:{b}:at")


@pytest.mark.parametrize("by", ["cancel", "state", "lookup"])
def test_run_is_ended_though_redis_is_full(client: Any, new_broker: MakeBroker, by: str) -> None:
    broker = new_broker()
    publish(broker, "a", "x")
    broker.start_run("a", "run", 600 if by == "cancel" else 0.01)
    until(lambda: by == "cancel" or not broker.renew_run("a", "run", 0.001), "the end of its time")
    fill(client)
    if by == "cancel":
        assert broker.cancel_run("a", KEPT)
    elif by == "state":
        assert broker.state("a").is_complete
    log = listening(broker, "a").log
    assert log is not None
    assert log.is_complete
    texts = [each.payload[each.body :] for each in log.after(0, log.newest)]
    assert texts == [b"data: x\n\n", *([] if by == "cancel" else [INTERRUPTED.payload]), b""]
    with pytest.raises(BrokerUnavailable, match="Redis is full"):
        broker.start_run("a", "another", 10)
    assert broker.state("a").is_complete


def test_renewed_run_is_looked_up_no_more_than_its_lease_demands(client: Any, new_broker: MakeBroker) -> None:
    """A process that listens to it does not poll."""
    runner, reader = new_broker(), new_broker()
    runner.start_run("a", "run", 600)
    listener = listening(reader, "a")
    publish_as(runner, "run", "a", frame("x"))
    until(lambda: listener.frames, "an event")
    before = client.info("commandstats")["cmdstat_xrange"]["calls"]
    for _ in range(50):
        assert runner.renew_run("a", "run", 600)
    publish_as(runner, "run", "a", frame("y"))
    until(lambda: len(listener.frames) == 2, "another event")
    assert client.info("commandstats")["cmdstat_xrange"]["calls"] == before + 1, "of the publish, and of no lookup"


def test_dead_run_of_a_restarted_redis_is_ended_in_another_epoch(new_broker: MakeBroker) -> None:
    """It may have lost events: the end must not have the id of one of them."""
    with RedisServer("--appendonly", "yes") as server:
        with closing(make_broker(server.url)) as broker:
            [before] = publish(broker, "a", "x")
            broker.start_run("a", "run", 0.01)
            until(lambda: not broker.renew_run("a", "run", 0.001), "the end of its time")
            until(lambda: server.client().info("persistence")["aof_pending_bio_fsync"] == 0, "it to be on disk")
        server.client().shutdown(save=False)
        server.kill()
        server.start()
        broker = new_broker(server.url)
        state = broker.state("a")
        assert (state.is_complete, state.newest, state.oldest) == (True, 3, 1)
        assert state.epoch != before.split("-")[0]
        log = listening(broker, "a").log
        assert log is not None
        assert log.find(Position(before.split("-")[0], 1)) == 1
        [after] = publish(broker, "a", "anew")
        assert after.split("-")[1] == "4"
        assert after.split("-")[0] not in (state.epoch, before.split("-")[0])


def test_run_goes_on_with_a_promoted_replica(new_broker: MakeBroker) -> None:
    """In another epoch, as the replica may lack events. A channel that was complete begins yet another one."""
    with RedisServer() as master, RedisServer() as replica:
        client = replica.client()
        client.replicaof("127.0.0.1", master.port)
        until(lambda: client.info("replication")["master_link_status"] == "up", "a replica")
        broker = new_broker(master.url)
        broker.start_run("a", "run", 600)
        [before] = publish_as(broker, "run", "a", frame("x"))
        assert isinstance(before, Published)
        publish(broker, "b", "x")
        ended = end(broker, "b")
        until(lambda: client.hexists("sse:{b}:at", "complete"), "the replica to have all")
        client.replicaof("NO", "ONE")
        broker = new_broker(replica.url)
        assert broker.renew_run("a", "run", 600)
        after, last = publish_as(broker, "run", "a", frame("y"), CHANNEL_END)
        assert isinstance(after, Published)
        assert isinstance(last, Published)
        assert after.id.split("-")[0] == last.id.split("-")[0] != before.id.split("-")[0]
        assert after.id.split("-")[1] == "2"
        state = broker.state("b")
        assert (f"{state.epoch}-{state.newest}", state.is_complete) == (ended, True), "it is read as it is"
        [new] = publish(broker, "b", "y")
        assert new.split("-")[1] == "3"
        log = listening(broker, "b").log
        assert log is not None
        assert log.find(Position(state.epoch, 2)) == 2
        assert (log.first, log.is_complete) == (3, False)


def test_lost_end_of_a_channel_is_a_new_epoch_that_is_not_complete(client: Any, new_broker: MakeBroker) -> None:
    """As after a failover to a replica that lacked it."""
    broker = new_broker()
    publish(broker, "a", "x")
    kept = {key: client.dump(key) for key in client.keys("sse:{a}:*")}
    ended = end(broker, "a")
    for key, value in kept.items():
        client.restore(key, 0, value, replace=True)
    state = broker.state("a")
    assert not state.is_complete
    assert state.epoch != ended.split("-")[0]
    assert (state.newest, state.oldest) == (0, 1)
    assert publish(broker, "a", "y") == [f"{state.epoch}-1"]


def test_flushed_redis_knows_no_run_and_no_end(client: Any, new_broker: MakeBroker) -> None:
    broker = new_broker()
    broker.start_run("a", "run", 600)
    end(broker, "b")
    client.flushall()
    assert not broker.renew_run("a", "run", 600)
    assert not broker.cancel_run("a", None)
    [refused, refused_as_well] = publish_as(broker, "run", "a", frame("x"), CHANNEL_END)
    assert isinstance(refused, RunLost)
    assert isinstance(refused_as_well, RunLost)
    assert not broker.state("b").is_complete
