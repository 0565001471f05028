"""Redis outages of every kind: streams stay open, publishers get errors, and no event is lost."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
import redis as redis_py

from flask_sse_emitters import BrokerUnavailable, Event
from flask_sse_emitters.brokers import make_broker
from flask_sse_emitters.brokers.event_log import Bounds
from flask_sse_emitters.brokers.redis import health as redis_health
from flask_sse_emitters.brokers.redis.client import BEGIN_SECONDS, MAX_CONNECTIONS, FairSemaphore
from flask_sse_emitters.brokers.redis.connections import READ_SECONDS, within
from flask_sse_emitters.brokers.redis.messages import PRESENCE_SECONDS
from flask_sse_emitters.brokers.redis.scripts import UNUSED_MS
from flask_sse_emitters.brokers.redis.subscriber import session, topics
from flask_sse_emitters.brokers.redis.subscriber import thread as redis_thread
from flask_sse_emitters.brokers.redis.subscriber.liveness import GONE_AFTER_SECONDS, PING_AFTER_SECONDS
from flask_sse_emitters.brokers.redis.subscriber.presence import COUNT_EVERY
from flask_sse_emitters.brokers.redis.subscriber.thread import LONGEST_WAIT_SECONDS, SPREAD
from flask_sse_emitters.runtime.scheduler import SCHEDULER
from flask_sse_emitters.runtime.waiter import WakeupSocket
from flask_sse_emitters.testing import OpenStream, decode, published
from flask_sse_emitters.wire.frame import Frame
from tests.support.board import Board, board_reads, closing_board, config, gap_of, moved, read, texts
from tests.support.broker_calls import KEPT, RecordingListener, frame, in_threads, listening, publish, subscribed
from tests.support.client import connected, get, post
from tests.support.redis_clients import client_of
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT, Server
from tests.support.waiting import PATIENCE, until
from tests.support.wire import Wire


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def kept() -> Iterator[RedisServer]:
    """A Redis that has every confirmed write after a restart."""
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture
def wire(server: RedisServer) -> Iterator[Wire]:
    with Wire(server.port) as wire:
        yield wire


@pytest.fixture
def board(server: RedisServer) -> Iterator[Board]:
    with closing_board(server.url) as board:
        yield board


@pytest.fixture
def wired(wire: Wire) -> Iterator[Board]:
    """An app whose connection to Redis the test can hold and cut."""
    with closing_board(f"redis://127.0.0.1:{wire.port}", SSE_MAX_PENDING_BYTES=10**9) as board:
        yield board


def broker_state(board: Board) -> dict[str, Any]:
    state: dict[str, Any] = board.sse.stats()["broker"]
    return state


def await_state(board: Board, state: str) -> dict[str, Any]:
    return until(
        lambda: (found := broker_state(board))["state"] == state and found, f"{state}, not {broker_state(board)}"
    )


# Publish, then complete.


@pytest.mark.parametrize("what", ["list", "stream"])
def test_events_published_before_complete_are_delivered(board: Board, what: str) -> None:
    for number in range(20):
        channel = board.sse.channel(f"c{number}")
        with board.open(channel.name) as stream:
            board.publish(channel.name, *range(5))
            completed = channel.emitters if what == "list" else next(iter(channel.emitters))
            completed.complete()
            until(lambda channel=channel: len(channel.emitters) == 0, "the end")  # type: ignore[misc]
            assert texts(list(stream.ready())) == [*"01234"]


def test_redis_broker_used_after_close_keeps_no_connection() -> None:
    with RedisServer() as server:
        broker = make_broker(server.url)
        publish(broker, "a", "x")
        broker.close()
        publish(broker, "a", "y")
        assert broker.clients_elsewhere("a") == 0
        until(lambda: len(client_of(server).client_list()) == 1, "the connections to end")


def test_stream_completed_at_once_replays_missed_events(server: RedisServer, board: Board) -> None:
    ids = board.publish("c", *range(6))
    with closing_board(server.url) as other, other.app.test_request_context():
        emitter = other.sse.channel("c").subscribe(last_event_id=ids[0])
        emitter.complete()
        response = emitter.response()
        until(lambda: len(other.sse.channel("c").emitters) == 0, "the end")
        assert texts(decode(b"".join(response.response))) == [*"12345"]  # type: ignore[arg-type]


def test_stream_completed_during_redis_outage_ends_after_it(server: RedisServer, board: Board) -> None:
    with board.open("c") as stream:
        board.publish("c", 1)
        assert texts(read(stream, 1)) == ["1"]
        server.signal(signal.SIGSTOP)
        emitter = next(iter(board.sse.channel("c").emitters))
        emitter.complete()
        assert stream.ready() == []
        server.signal(signal.SIGCONT)
        until(lambda: len(board.sse.channel("c").emitters) == 0, "the end")


def test_completed_stream_removed_from_channel_in_outage_still_ends(
    server: RedisServer, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "LINGER_SECONDS", 0.0)
    one, two = board.sse.channel("c1"), board.sse.channel("c2")
    with board.open("c1", "c2") as stream:
        board.publish("c1", 1)
        assert texts(read(stream, 1)) == ["1"]
        server.signal(signal.SIGSTOP)
        emitter = next(iter(one.emitters))
        emitter.complete()
        one.emitters.remove(emitter)
        subscriber = board.sse._channels().broker._subscriber  # type: ignore[attr-defined]
        until(lambda: subscriber._topics.get("c1") is None, "the channel without listeners to be released")
        server.signal(signal.SIGCONT)
        until(lambda: len(two.emitters) == 0, "the end")


def test_sync_of_channel_without_listener_calls_back_at_once() -> None:
    broker = make_broker("redis://127.0.0.1:1")
    looked: list[str] = []
    broker.look_again("c", lambda: looked.append("c"))
    assert looked == ["c"]


# Outage and recovery.


def test_killed_redis_is_logged_once_and_later_events_are_delivered(
    kept: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "flask_sse_emitters")
    with closing_board(kept.url) as board, board.open("a") as stream:
        board.publish("a", 1)
        assert texts(read(stream, 1)) == ["1"]
        kept.kill()
        for _ in range(3):
            with pytest.raises(BrokerUnavailable, match=r"published.*SSE_BROKER_URL.*does it run"):
                board.publish("a", "lost")
        found = await_state(board, "degraded")
        assert (found["scheme"], str(kept.port) in found["url"]) == ("redis", True)
        assert "onnect" in found["error"]
        time.sleep(2 * LONGEST_WAIT_SECONDS)  # several attempts, none of which is logged
        assert stream.ready() == []
        assert len(caplog.messages) == 1
        assert "degraded" in caplog.messages[0]
        kept.start()
        await_state(board, "ok")
        board.publish("a", 2)
        assert texts(read(stream, 1)) == ["2"]
    assert [("degraded" in text, "is back" in text) for text in caplog.messages] == [(True, False), (False, True)]


def test_subscriber_reconnects_within_two_seconds() -> None:
    assert LONGEST_WAIT_SECONDS * (1 + SPREAD) + 0.5 < 2
    assert BEGIN_SECONDS <= 2


def test_reconnect_delivers_missed_events_in_order_then_new_ones(
    server: RedisServer, wire: Wire, wired: Board, board: Board
) -> None:
    with wired.open("a", "b") as stream:
        wired.publish("a", 0)
        read(stream, 1)
        wire.is_closed = True
        wire.cut()
        await_state(wired, "degraded")
        for number in range(1, 50):
            board.publish("ab"[number % 2], number)
        assert stream.ready() == []
        wire.is_closed = False
        await_state(wired, "ok")
        events = read(stream, 49)
        for channel in (0, 1):
            assert [int(event.data) for event in events if int(event.data) % 2 == channel] == list(
                range(2 - channel, 50, 2)
            )
        board.publish("a", "new")
        assert texts(read(stream, 1)) == ["new"]


def test_redis_restart_without_data_is_one_gap_then_new_events() -> None:
    with RedisServer() as server:
        with closing_board(server.url) as board:
            with board.open("a") as stream:
                ids = board.publish("a", 1, 2)
                read(stream, 2)
                server.kill()
                server.start()
                until(lambda: is_over(stream), "the stream to end with retry")
            new = board.publish("a", 3, 4)
            events = board_reads(board, "a", last=ids[-1], count=3)
            assert gap_of(events) == {"requested": ids[-1], "oldest": moved(new[0], 0), "newest": new[-1]}
            assert [(event.data, event.id) for event in events[1:]] == [("3", new[0]), ("4", new[1])]
            assert new[0].split("-")[0] != ids[0].split("-")[0]


def test_redis_flush_is_a_gap_and_then_new_events(server: RedisServer, board: Board) -> None:
    with board.open("a") as stream:
        ids = board.publish("a", 1, 2, 3)
        read(stream, 3)
        client_of(server).flushall()
        new = board.publish("a", 4)
        until(lambda: is_over(stream), "the stream to end with retry")
    events = board_reads(board, "a", last=ids[1], count=2)
    assert gap_of(events)["requested"] == ids[1]
    assert [(event.data, event.id) for event in events[1:]] == [("4", new[0])]


def test_reconnect_after_redis_flush_gets_a_gap(server: RedisServer, board: Board) -> None:
    """Nothing has been published since, and other clients still listen to the channel."""
    ids = board.publish("a", 1, 2, 3)
    events = board_reads(board, "a", last=ids[0], count=2)
    assert texts(events) == ["2", "3"]
    client_of(server).flushall()
    with board.open("a", last=ids[0]) as stream:  # revocations are lost as well, so this client must reconnect
        until(lambda: is_over(stream), "its end")
    events = board_reads(board, "a", last=ids[0], count=1)
    assert gap_of(events)["requested"] == ids[0]


@pytest.mark.parametrize("more", [0, 1, 2, 5], ids="{} more".format)
def test_redis_that_lost_events_reuses_none_of_their_ids(server: RedisServer, board: Board, more: int) -> None:
    """As after a failover to a replica that lacked the last events, with any number of new ones since."""
    client = client_of(server)
    with board.open("a") as stream:
        [*_, last] = board.publish("a", 1, 2)
        keys = {key: client.dump(key) for key in client.keys("sse:{a}:*")}
        seen = board.publish("a", 3, 4)
        read(stream, 4)
        with client.pipeline() as at_once:
            for key, dumped in keys.items():
                at_once.restore(key, 0, dumped, replace=True)
            at_once.execute()
        other = make_broker(server.url)
        new = publish(other, "a", *[f"new {number}" for number in range(more)])
        client.client_kill_filter(_type="pubsub")
        until(lambda: is_over(stream), "the stream to end with retry")
    epoch = last.split("-")[0]
    [latest] = board.publish("a", "latest")
    events = board_reads(board, "a", last=seen[-1], count=2)
    assert gap_of(events)["requested"] == seen[-1]
    assert all(not str(event.id).startswith(epoch) for event in events)
    assert events[-1].id == latest
    assert len(new) == more


def test_publish_after_redis_lost_events_starts_a_new_epoch(
    server: RedisServer,
) -> None:
    client, broker = client_of(server), make_broker(server.url)
    publish(broker, "a", 1, 2)
    with closing_board(server.url) as other:
        kept = {key: client.dump(key) for key in client.keys("sse:{a}:*")}
        lost = [*publish(broker, "a", 3), *other.publish("a", 4), *publish(broker, "a", 5)]
        for key, dumped in kept.items():
            client.restore(key, 0, dumped, replace=True)
        epoch = lost[0].split("-")[0]
        [first] = publish(broker, "a", "first")
        assert not first.startswith(epoch)
        assert first.endswith("-1")
        assert other.publish("a", "second") == [moved(first, 1)]
    broker.close()


# Connections that are cut, delayed or half-open.


def test_subscriber_connection_killed_by_redis_reconnects(server: RedisServer, board: Board) -> None:
    with board.open("a") as stream:
        board.publish("a", 1)
        read(stream, 1)
        for number in range(2, 6):
            assert client_of(server).client_kill_filter(_type="pubsub") == 1
            board.publish("a", number)
            assert texts(read(stream, 1)) == [str(number)]
            until(lambda: client_of(server).pubsub_numsub("sse:{a}@0")[0][1] == 1, "the subscriber to listen again")


def test_slow_subscriber_cut_by_redis_reads_the_rest_from_log(
    server: RedisServer, wire: Wire, wired: Board, board: Board
) -> None:
    client_of(server).config_set("client-output-buffer-limit", "pubsub 200kb 100kb 1")
    with wired.open("a") as stream:
        wired.publish("a", "first")
        read(stream, 1)
        wire.is_held = True
        # More than its limit and the buffers between hold.
        numbers = [f"{number} {'x' * 50_000}" for number in range(400)]
        board.publish("a", *numbers)
        until(lambda: client_of(server).pubsub_numsub("sse:{a}@0")[0][1] == 0, "the subscriber to be cut off")
        wire.is_held = False
        got: list[Event] = []
        while len(got) < len(numbers):
            got += read(stream, 1)
        assert texts(got) == numbers


def test_paused_redis_is_noticed_by_ping_and_subscriber_recovers(server: RedisServer, board: Board) -> None:
    assert PING_AFTER_SECONDS < GONE_AFTER_SECONDS < 10
    with board.open("a") as stream:
        board.publish("a", 1)
        read(stream, 1)
        server.signal(signal.SIGSTOP)
        try:
            found = await_state(board, "degraded")
        finally:
            server.signal(signal.SIGCONT)
        assert "listening" in found["error"]
        await_state(board, "ok")
        board.publish("a", 2)
        assert texts(read(stream, 1)) == ["2"]


def test_publish_to_paused_redis_times_out_and_retry_with_key_is_safe(server: RedisServer) -> None:
    with closing_board(server.url, SSE_PUBLISH_SECONDS=0.2) as board:
        with board.open("a") as stream:
            board.publish("a", 1)
            read(stream, 1)
            server.signal(signal.SIGSTOP)
            try:
                with pytest.raises(BrokerUnavailable):
                    board.sse.publish("a", "2", key="k")
            finally:
                server.signal(signal.SIGCONT)
            event_id = until(partial(tried, board, "2", "k"), "the server to go on")
            assert board.sse.publish("a", "2", key="k") == event_id
            board.publish("a", 3)
            assert texts(read(stream, 2)) == ["2", "3"]


def test_short_pause_noticed_by_publisher_is_over_after_next_message(server: RedisServer, board: Board) -> None:
    with closing_board(server.url, SSE_PUBLISH_SECONDS=0.2) as other, other.open("a") as stream:
        other.publish("a", 1)
        read(stream, 1)
        server.signal(signal.SIGSTOP)
        try:
            with pytest.raises(BrokerUnavailable):
                other.publish("a", "perhaps")
        finally:
            server.signal(signal.SIGCONT)
        assert "publishing" in broker_state(other)["error"]
        board.publish("a", 2)
        assert texts(read(stream, 1))[-1:] == ["2"] or texts(read(stream, 1)) == ["2"]
        await_state(other, "ok")


def tried(board: Board, text: str, key: str) -> str | None:
    try:
        return board.sse.publish("a", text, key=key)
    except BrokerUnavailable:
        return None


def test_publish_timeout_covers_all_round_trips() -> None:
    """The server takes more than half of the timeout for each answer, and a new connection needs several."""
    answers: list[float] = []

    def serve(listener: Any) -> None:
        connection, _ = listener.accept()
        with connection:
            while connection.recv(65536) and not ends.wait(0.3):
                answers.append(time.monotonic())
                connection.sendall(b"+OK\r\n")

    ends = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        broker = make_broker(f"redis://127.0.0.1:{listener.getsockname()[1]}", publish_seconds=0.5)
        with pytest.raises(BrokerUnavailable):
            broker.publish("a", frame("x"), KEPT)
        answered = len(answers)
        ends.set()
        broker.close()
        thread.join()
    assert answered < 3


# Failures of one channel, or of writes alone.


def test_channel_with_foreign_keys_fails_without_affecting_others(server: RedisServer, board: Board) -> None:
    client = client_of(server)
    client.set("sse:{bad}:at", "something else")
    with board.open("bad") as bad, board.open("good") as good:
        assert bad.ready() == []
        board.publish("good", 1)
        assert texts(read(good, 1)) == ["1"]
        with pytest.raises(BrokerUnavailable, match="WRONGTYPE"):
            board.publish("bad", 1)
        until(lambda: len(broker_state(board).get("troubles", ())) == 2, "both troubles, of a reader and a publisher")
        for trouble in broker_state(board)["troubles"]:
            assert "channel 'bad'" in trouble
            assert "WRONGTYPE" in trouble
            assert "sse:{bad}:at and sse:{bad}:log" in trouble
        assert broker_state(board)["state"] == "ok"
        board.publish("good", 2)
        assert texts(read(good, 1)) == ["2"]
        client.delete("sse:{bad}:at")
        board.publish("bad", 3)
        until(lambda: "troubles" not in broker_state(board), "the troubles to be over")
        board.publish("bad", 4)
        assert texts(read(bad, 2)) == ["3", "4"]


def test_failed_lookup_of_last_channel_leaves_times_of_others_right(server: RedisServer) -> None:
    client_of(server).set("sse:{bad}:at", "something else")
    broker = make_broker(server.url)
    publish(broker, "good", "x")
    good = RecordingListener()
    broker.subscribe("good", good)
    broker.subscribe("bad", RecordingListener())
    until(lambda: good.log, "the channel to be known")
    assert good.log is not None
    [kept] = good.log.after(0, 1)
    assert abs(kept.at - SCHEDULER.clock()) < PATIENCE
    broker.close()


def test_log_with_foreign_entries_fails_without_affecting_others(server: RedisServer, board: Board) -> None:
    client = client_of(server)
    board.publish("bad", 1)
    client.xadd("sse:{bad}:log", {"what": "is this"}, id="2-0")
    with board.open("bad"), board.open("good") as good:
        board.publish("good", 1)
        assert texts(read(good, 1)) == ["1"]
        until(lambda: "troubles" in broker_state(board), "the trouble")
        [trouble] = broker_state(board)["troubles"]
        assert "channel 'bad': reading failed" in trouble
        assert broker_state(board)["state"] == "ok"
    until(lambda: "troubles" not in broker_state(board), "it to be over: the channel has no reader now")


@pytest.mark.parametrize("foreign", ["SET sse:{bad}:log x", "XADD sse:{bad}:log * what this"])
def test_foreign_log_is_reset_by_the_next_publish(
    server: RedisServer, board: Board, foreign: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(server)
    ids = board.publish("bad", 1, 2)
    if foreign.startswith("SET"):
        client.delete("sse:{bad}:log")
    server.run(foreign)
    with closing_board(server.url) as other:
        new = other.publish("bad", 3, 4)
        assert new == [moved(ids[1], 1), moved(ids[1], 2)]
        events = board_reads(other, "bad", last=ids[0], count=3)
        assert gap_of(events) == {"requested": ids[0], "oldest": new[0], "newest": new[1]}
        assert texts(events[1:]) == ["3", "4"]
        assert texts(board_reads(other, "bad", last=ids[1], count=2)) == ["3", "4"]
    assert sum("sse:{bad}:log held something else" in message for message in caplog.messages) == 1


def test_log_with_foreign_oldest_entry_accepts_publish(server: RedisServer, board: Board) -> None:
    client = client_of(server)
    client.xadd("sse:{bad}:log", {"what": "is this"}, id="0-1")
    client.hset("sse:{bad}:at", mapping={"epoch": "abcde", "offset": 0})
    [first] = board.publish("bad", 1)
    assert first == "abcde-1"
    assert [entry_id for entry_id, _ in client.xrange("sse:{bad}:log")] == [b"1-0"]


def test_flushed_lua_scripts_are_loaded_again(server: RedisServer, board: Board) -> None:
    with board.open("a") as stream:
        for number in range(3):
            client_of(server).script_flush()
            board.publish("a", number)
            assert texts(read(stream, 1)) == [str(number)]
    assert broker_state(board)["state"] == "ok"


def test_full_redis_refuses_publish_and_streams_stay_open(server: RedisServer, board: Board) -> None:
    client = client_of(server)
    with board.open("a") as stream:
        board.publish("a", 1)
        read(stream, 1)
        client.config_set("maxmemory", 1)
        with pytest.raises(BrokerUnavailable, match="maxmemory"):
            board.publish("a", 2)
        await_state(board, "degraded")
        client.config_set("maxmemory", 0)
        board.publish("a", 3)
        assert texts(read(stream, 1)) == ["3"]
        await_state(board, "ok")


def test_failure_to_count_clients_delays_no_event(server: RedisServer, board: Board) -> None:
    client = client_of(server)
    client.set("sse:{here}:processes", "something else")
    with board.open("a") as stream:
        assert "counting clients: WRONGTYPE" in await_state(board, "degraded")["error"]
        for number in range(3):
            board.publish("a", number)
            assert texts(read(stream, 1)) == [str(number)]
        client.delete("sse:{here}:processes")
        await_state(board, "ok")
    with closing_board(server.url) as other, board.open("a"):
        until(lambda: other.sse.channel("a").subscribers() == 1, "the client to be counted")


def test_full_redis_still_replays_events(server: RedisServer, board: Board) -> None:
    ids = board.publish("a", 1, 2, 3)
    client_of(server).config_set("maxmemory", 1)
    with closing_board(server.url) as other:
        assert texts(board_reads(other, "a", last=ids[0], count=2)) == ["2", "3"]


def test_trouble_of_one_channel_is_no_outage_and_logged_once(
    server: RedisServer, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(server)
    board.publish("bad", 0)
    client.hset("sse:{bad}:at", "offset", "garbage")
    for number in range(10):
        with pytest.raises(BrokerUnavailable, match=r"nothing was published; .*sse:\{bad\}:at"):
            board.publish("bad", number)
        board.publish("good", number)
    assert broker_state(board)["state"] == "ok"
    [trouble] = broker_state(board)["troubles"]
    [message] = caplog.messages
    assert message == f"{server.url}: {trouble}"
    assert trouble.startswith("channel 'bad': publishing failed: ")
    client.delete("sse:{bad}:at")
    board.publish("bad", 1)
    assert "troubles" not in broker_state(board)


# A full Redis.


def refused(board: Board, channel: str = "a") -> None:
    with pytest.raises(BrokerUnavailable, match="maxmemory"):
        board.publish(channel, "refused")


def test_state_is_ok_after_full_redis_has_room_without_publish(server: RedisServer, board: Board) -> None:
    client = client_of(server)
    for clients_stay in (True, False):
        with board.open("a"):
            client.config_set("maxmemory", 1)
            refused(board)
            if clients_stay:
                client.config_set("maxmemory", 0)
                await_state(board, "ok")
        await_state(board, "ok" if clients_stay else "degraded")
        client.config_set("maxmemory", 0)
        await_state(board, "ok")


def test_presence_update_of_full_redis_is_no_proof_of_room(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[None] = []
    client, broker = client_of(server), make_broker(server.url)
    listener = listening(broker, "a")
    publish(broker, "a", 1)
    client.config_set("maxmemory", 1)
    with pytest.raises(BrokerUnavailable, match="maxmemory"):
        publish(broker, "a", 2)
    monkeypatch.setattr(redis_health.Health, "wrote", lambda _health: writes.append(None))
    broker.unsubscribe("a", listener)
    broker.count_again("a")
    told = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    until(lambda: client.info("commandstats")["cmdstat_evalsha"]["calls"] > told + 1, "two presence updates")
    assert not writes
    broker.close()


def test_refused_publish_is_forgotten_after_stale_seconds(
    server: RedisServer, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_of(server).config_set("maxmemory", 1)
    refused(board)
    assert broker_state(board)["state"] == "degraded"
    monkeypatch.setattr(redis_health, "STALE_SECONDS", 0.0)
    assert broker_state(board)["state"] == "ok"


def test_lookup_refused_by_full_redis_leaves_no_trouble_behind(
    server: RedisServer, board: Board, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_health, "LOG_SECONDS", 0.0)
    client = client_of(server)
    with board.open("a"):
        until(lambda: board.sse._channels().subscription("a").log, "the channel to be known")
        client.config_set("maxmemory", 1)
        with board.open("new"):
            assert "reading: " in await_state(board, "degraded")["error"]
        client.config_set("maxmemory", 0)
        await_state(board, "ok")
        server.kill()
        await_state(board, "degraded")
    assert ["degraded" in text for text in caplog.messages] == [True, False, True]
    assert "reading failed" in caplog.messages[0]
    assert "listening failed" in caplog.messages[2]


def test_recovery_is_not_logged_while_publish_is_refused(
    server: RedisServer, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(server)
    with board.open("a") as stream:
        board.publish("a", 1)
        read(stream, 1)
        client.config_set("maxmemory", 1)
        refused(board)
        board.sse.channel("a").subscribers()  # reads are allowed
        assert "publishing: " in broker_state(board)["error"]
        [before] = listeners(client)
        client.client_kill_filter(_type="pubsub")
        until(lambda: before not in listeners(client) and listeners(client), "the subscriber to listen again")
        until(lambda: "listening: " not in broker_state(board)["error"], "it to receive")
        assert "publishing: " in broker_state(board)["error"]
        assert not any("is back" in text for text in caplog.messages)


def test_outage_with_a_new_cause_is_logged_again(
    server: RedisServer, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(server)
    with board.open("a") as stream:
        board.publish("a", 1)
        assert texts(read(stream, 1)) == ["1"], "the subscriber listens from here on"
        client.config_set("requirepass", "secret")
        client.client_kill_filter(_type="pubsub")
        until(lambda: any("asks for a password: put it into" in text for text in caplog.messages), "the cause")
        assert "asks for a password" in await_state(board, "degraded")["error"]
        causes = [text for text in caplog.messages if "degraded" in text]
        assert len(causes) == len(set(causes))
        client.config_set("requirepass", "")
        await_state(board, "ok")


def listeners(client: Any) -> list[str]:
    return [each["id"] for each in client.client_list(_type="pubsub")]


def test_foreign_pubsub_messages_are_ignored_and_logged_once(
    server: RedisServer, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    with board.open("a") as stream:
        board.publish("a", 1)
        assert texts(read(stream, 1)) == ["1"]
        for junk in (b"", b"hello", b"\xff\n", b"a 1 2 3 4 x\n", b"1 2\n3"):
            client_of(server).publish("sse:{a}@0", junk)
        board.publish("a", 2)
        assert texts(read(stream, 1)) == ["2"]
    assert sum("did not publish" in text for text in caplog.messages) == 1


@pytest.mark.parametrize("publishes", [True, False], ids=["this process publishes", "another one publishes"])
@pytest.mark.parametrize("ahead", [0, 10**9], ids=["now", "in the future"])
def test_forged_announcement_costs_no_published_event(
    server: RedisServer, board: Board, publishes: bool, ahead: int
) -> None:
    client = client_of(server)
    with board.open("a") as stream, closing_board(server.url) as other:
        ids = board.publish("a", *range(10))
        read(stream, 10)
        forged = moved(ids[-1], 1)
        head = f"{forged.replace('-', ' ')} {int(client.time()[0] * 1000) + ahead} 1000 300000 0"
        client.publish("sse:{a}@0", f"{head}\ndata: forged\n\n")
        assert texts(read(stream, 1)) == ["forged"]
        (board if publishes else other).publish("a", "real", "next")
        until(lambda: is_over(stream), "the stream to end with retry")
    assert client.xlen("sse:{a}:log") == 12
    events = board_reads(board, "a", last=forged, count=13)
    assert gap_of(events)["requested"] == forged
    assert texts(events[1:]) == [*map(str, range(10)), "real", "next"]


# Clients that know more than their process.


def test_client_ahead_of_process_gets_next_event_without_gap(wire: Wire, wired: Board, board: Board) -> None:
    with wired.open("a") as before:
        wired.publish("a", 1)
        read(before, 1)
        wire.is_held = True
        ids = board.publish("a", 2, 3)
        with wired.open("a", last=ids[0]) as stream:
            assert stream.ready() == []
            wire.is_held = False
            events = read(stream, 1)
            assert texts(events) == ["3"]
            assert texts(read(before, 2)) == ["2", "3"]
            board.publish("a", 4)
            assert texts(read(stream, 1)) == ["4"]


def test_client_ahead_of_process_after_flush_reconnects_without_gap(
    server: RedisServer, wire: Wire, wired: Board, board: Board
) -> None:
    with wired.open("a") as before:
        wired.publish("a", 1)
        read(before, 1)
        wire.is_held = True
        client_of(server).flushall()
        ids = board.publish("a", 2, 3)
        with wired.open("a", last=ids[0]) as stream:
            assert stream.ready() == []
            wire.is_held = False
            until(lambda: is_over(stream), "it to end with retry")
    assert texts(board_reads(wired, "a", last=ids[0], count=1)) == ["3"]


def test_first_client_gets_events_published_after_it_connected(wire: Wire, wired: Board, board: Board) -> None:
    """Its process receives their announcements later."""
    board.publish("a", "before")
    time.sleep(0.01)  # times are known to milliseconds
    wire.is_held = True
    with wired.open("a") as stream:
        assert stream.ready() == []
        board.publish("a", 1, 2)
        wire.is_held = False
        assert texts(read(stream, 2)) == ["1", "2"]


def test_first_client_gets_gap_if_events_since_connect_are_dropped(
    wire: Wire, wired: Board, server: RedisServer
) -> None:
    wire.is_held = True
    with wired.open("a") as stream, closing_board(server.url, SSE_HISTORY=2) as other:
        assert stream.ready() == []
        ids = other.publish("a", *range(5))
        wire.is_held = False
        events = read(stream, 3)
        assert gap_of(events) == {"requested": "", "oldest": ids[3], "newest": ids[4]}
        assert texts(events[1:]) == ["3", "4"]


def test_first_client_gets_gap_if_no_events_since_connect_are_kept(wire: Wire, server: RedisServer) -> None:
    with closing_board(f"redis://127.0.0.1:{wire.port}", SSE_HISTORY=0) as wired:
        wire.is_held = True
        with wired.open("a") as stream, closing_board(server.url, SSE_HISTORY=0) as other:
            assert stream.ready() == []
            time.sleep(0.01)  # times are known to milliseconds
            other.publish("a", 1, 2)
            wire.is_held = False
            assert gap_of(read(stream, 1))["requested"] == ""
            other.publish("a", 3)
            assert texts(read(stream, 1)) == ["3"]


def test_busy_channel_without_history_resets_no_listener(server: RedisServer) -> None:
    """An announcement from before the lookup is no sign of a loss."""
    broker, ends = make_broker(server.url), threading.Event()

    def publishing() -> None:
        other = make_broker(server.url)
        while not ends.is_set():
            publish(other, "a", "x", bounds=Bounds(0, 300.0))

    thread = threading.Thread(target=publishing)
    thread.start()
    try:
        for _ in range(10):
            listener = listening(broker, "a")
            until(partial(has_two, listener), "two events")
            assert listener.starts == 1
            broker.unsubscribe("a", listener)
    finally:
        ends.set()
        thread.join()
        broker.close()


def test_events_of_several_channels_arrive_in_publish_order(server: RedisServer, board: Board) -> None:
    with published(board.sse, "a", "b") as events, closing_board(server.url) as other:
        for number in range(200):
            other.publish("ab"[number % 3 == 0], number)
    assert texts(events) == [str(number) for number in range(200)]


@pytest.mark.parametrize("by", [1, 1000, 10**15])
def test_reconnect_with_future_id_gets_a_gap(board: Board, by: int) -> None:
    [event_id] = board.publish("a", 1)
    with board.open("a", last=moved(event_id, by)) as stream:
        events = read(stream, 2)
    assert gap_of(events)["requested"] == moved(event_id, by)
    assert [(event.data, event.id) for event in events[1:]] == [("1", event_id)]


# Connections and keys.


def test_number_of_redis_connections_is_independent_of_clients(server: RedisServer, board: Board) -> None:
    own = client_of(server)
    with ExitStack() as stack:
        streams = [stack.enter_context(board.open(f"c{number % 20}")) for number in range(60)]
        for number in range(20):
            board.publish(f"c{number}", number)
        for number, stream in enumerate(streams):
            assert texts(read(stream, 1)) == [str(number % 20)]
        assert len(connections(own)) <= 3, "one for the subscriber, and one for each of two concurrent lookups"
        assert len(own.pubsub_channels("sse:{c*")) == 20
        in_threads([partial(board.publish, "c1", *range(20))] * 30)
        assert len(connections(own)) <= 1 + MAX_CONNECTIONS
    until(lambda: not own.pubsub_channels("sse:{c*"), "all channels to be unsubscribed")


def connections(client: Any) -> list[Any]:
    own = client.client_id()
    return [each for each in client.client_list() if int(each["id"]) != own]


def test_prefix_and_database_separate_apps_on_one_redis(server: RedisServer) -> None:
    places = [(server.url, "sse"), (server.url, "other"), (f"{server.url}/1", "sse")]
    brokers = [make_broker(url, prefix=prefix) for url, prefix in places]
    subscribed_listeners = [listening(broker, "a") for broker in brokers]
    for number, broker in enumerate(brokers):
        publish(broker, "a", f"{number} a", f"{number} b")
    for number, listener in enumerate(subscribed_listeners):
        until(partial(has_two, listener), "its own")
        assert listener.texts == [b"data: %d a\n\n" % number, b"data: %d b\n\n" % number]
        assert listener.starts == 1
    for broker in brokers:
        broker.close()


def test_closed_broker_leaves_no_redis_connection(server: RedisServer) -> None:
    broker = make_broker(server.url)
    listening(broker, "a")
    publish(broker, "a", "x")
    own = client_of(server)
    assert connections(own)
    broker.close()
    until(lambda: not connections(own), "all connections to be closed")


def test_connection_slots_are_granted_in_order_of_waiting() -> None:
    slots, order, first = FairSemaphore(1), [], threading.Event()

    def take(number: int) -> None:
        with within(PATIENCE), slots.slot():
            order.append(number)

    with slots.slot():
        threads = []
        for number in range(8):
            threads.append(threading.Thread(target=take, args=(number,)))
            threads[-1].start()
            until(partial(_are_waiting, slots, number + 1), "the thread to wait")
        with within(0.05), pytest.raises(redis_py.TimeoutError, match="all 8 connections are busy"), slots.slot():
            first.set()
        assert not first.is_set()
    for thread in threads:
        thread.join()
    assert order == list(range(8))
    with slots.slot():
        assert slots._free == 0


def _are_waiting(slots: FairSemaphore, count: int) -> bool:
    return len(slots._waiting) == count


def test_fork_under_gevent_leaves_subscription_of_parent_alone(server: RedisServer) -> None:
    command = [sys.executable, "-m", "tests.apps.gevent_fork_redis", server.url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=2 * PATIENCE)
    assert (done.returncode, done.stdout) == (0, "received by the child: 0\n"), done.stderr


def test_subscriber_thread_that_fails_to_start_is_retried(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[int] = []

    class FailsOnce(WakeupSocket):
        def __init__(self) -> None:
            attempts.append(1)
            if len(attempts) == 1:
                raise OSError(24, "Too many open files")
            super().__init__()

    monkeypatch.setattr(redis_thread, "WakeupSocket", FailsOnce)
    broker = make_broker(server.url)
    listener = listening(broker, "a")
    publish(broker, "a", "x")
    until(lambda: listener.frames, "an event")
    assert len(attempts) == 2
    broker.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_subscriber_thread_that_dies_is_replaced(server: RedisServer, board: Board) -> None:
    about, ends = board.sse._channels().broker.about, [KeyboardInterrupt]

    def end_once() -> Any:
        if ends:
            raise ends.pop()
        return about()

    with board.open("a") as stream:
        board.publish("a", 1)
        read(stream, 1)
        board.sse._channels().broker.about = end_once
        until(lambda: not ends, "the thread to end")
        board.publish("a", 2)
        assert texts(read(stream, 1)) == ["2"]
        await_state(board, "ok")


def test_failing_listener_delays_no_other(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(RecordingListener):
        def arrived(self, frames: Sequence[Frame]) -> None:  # noqa: ARG002 - it fails
            raise RuntimeError("this one fails")

    broker = make_broker(server.url)
    subscribed(broker, "a", Failing())
    listener = listening(broker, "a")
    publish(broker, "a", "x", "y")
    until(partial(has_two, listener), "both events")
    assert "an error in" in caplog.messages[0]
    assert broker.status()["state"] == "ok"
    broker.close()


def has_two(listener: RecordingListener) -> bool:
    return len(listener.frames) >= 2


def test_every_redis_key_expires(server: RedisServer, board: Board) -> None:
    board.sse.publish("a", "x", key="k")
    with board.open("a"):
        client = client_of(server)
        until(lambda: len(client.keys()) == 6, "the client to be counted")
        left = {key.decode().split(":", 2)[2]: client.pttl(key) for key in client.keys("*{a}*")}
        here = [client.pttl(key) for key in client.keys("*{here}*")]
        [revoked] = [client.pttl(key) for key in client.keys("*{!revoked}*")]
    assert 290_000 < left["key:k"] <= 300_000
    assert 290_000 < left["log"] <= 300_000
    assert left["at"] > 6 * 86_400_000
    assert revoked > 6 * 86_400_000
    assert all(0 < ttl <= PRESENCE_SECONDS * 1000 for ttl in here)


def test_lookup_of_unused_channel_is_renewed_while_it_has_clients(
    server: RedisServer, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "UNUSED_LOOKUP_SECONDS", 0.1)
    monkeypatch.setattr(session, "SWEEP_SECONDS", 0.1)
    client = client_of(server)
    with board.open("made-up", "asked-for"):
        until(lambda: client.exists("sse:{made-up}:at"), "it to be looked up")
        assert 0 < client.pttl("sse:{made-up}:at") <= UNUSED_MS
        client.pexpire("sse:{made-up}:at", UNUSED_MS // 2)
        until(lambda: client.pttl("sse:{made-up}:at") > UNUSED_MS // 2, "it to be looked up again")
        board.publish("asked-for", "x")
        until(lambda: client.pttl("sse:{asked-for}:at") > 6 * 86_400_000, "it to be remembered")


def test_publish_without_bounds_keeps_bounds_of_channel(server: RedisServer) -> None:
    broker = make_broker(server.url)
    publish(broker, "a", *range(10), bounds=Bounds(3, 60.0))
    broker.publish("a", frame("x"), None)
    assert client_of(server).xlen("sse:{a}:log") == 3
    broker.publish("b", frame("x"), None)
    assert client_of(server).hmget("sse:{b}:at", "events", "ms") == [b"1000", b"300000"]


def test_reconnecting_clients_read_channel_from_redis_once(server: RedisServer, board: Board) -> None:
    client = client_of(server)
    board.publish("a", *["x" * 10_000] * 100)
    before = client.info("stats")["total_net_output_bytes"]
    for _ in range(20):
        with board.open("a") as stream:
            stream.ready()
            until(lambda: board.sse._channels().subscription("a").log is not None, "the channel to be known")
    assert client.info("stats")["total_net_output_bytes"] - before < 2 * 100 * 10_000


def test_channel_is_unsubscribed_some_seconds_after_last_client(
    server: RedisServer, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(server)
    with board.open("a") as stream:
        [first] = board.publish("a", "first")
        read(stream, 1)
    board.publish("a", "meanwhile")
    assert client.pubsub_numsub("sse:{a}@0")[0][1] == 1
    assert texts(board_reads(board, "a", last=first, count=1)) == ["meanwhile"]
    monkeypatch.setattr(topics, "LINGER_SECONDS", 0.1)
    until(lambda: client.pubsub_numsub("sse:{a}@0")[0][1] == 0, "the channel to be let go")
    assert board.sse.channel("a").subscribers() == 0


def test_process_that_keeps_fewer_events_is_logged_once(
    server: RedisServer, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    board.publish("a", *range(10))
    board.publish("b", 1)
    with closing_board(server.url) as same:
        same.publish("a", 10)
    assert caplog.messages == []
    with closing_board(server.url, SSE_HISTORY=3) as other:
        other.publish("a", 11, 12)
        other.publish("b", 2)
    [message] = caplog.messages
    assert "channel 'a' keeps 3 events for 300 s from now on" in message
    assert "kept 1000 for 300 s before" in message
    assert "SSE_HISTORY" in message


# Counts of clients.


def test_subscribers_counts_clients_of_all_processes(server: RedisServer, board: Board) -> None:
    with closing_board(server.url) as other:
        channel, there = board.sse.channel("a"), other.sse.channel("a")
        assert (channel.subscribers(), there.subscribers()) == (0, 0)
        with board.open("a"), other.open("a"), other.open("a", "b"):
            until(lambda: (channel.subscribers(), there.subscribers()) == (3, 3), "three clients")
            until(lambda: board.sse.channel("b").subscribers() == 1, "one client")
            assert other.sse.stats()["channels"] == {"a": 2, "b": 1}
            client_of(server).flushall()
            until(lambda: channel.subscribers() == 3, "three clients, once more")
        until(lambda: (channel.subscribers(), there.subscribers()) == (0, 0), "no client")


def test_count_is_right_after_redis_flush_and_many_changes(server: RedisServer) -> None:
    """More changes than one command names."""
    broker, other = make_broker(server.url), make_broker(server.url)
    channels = [f"c{number}" for number in range(600)]
    for channel in channels:
        broker.subscribe(channel, RecordingListener())
        broker.count_again(channel)
    until(lambda: all(other.clients_elsewhere(channel) == 1 for channel in channels[-1:]), "the clients to be counted")
    client_of(server).flushall()
    for channel in channels[:300]:
        broker.count_again(channel)
    until(lambda: all(other.clients_elsewhere(channel) == 1 for channel in channels), "all to be counted again")
    for each in (broker, other):
        each.close()


def test_clients_of_killed_process_are_forgotten_in_12_seconds(server: RedisServer, board: Board) -> None:
    assert COUNT_EVERY < PRESENCE_SECONDS <= 12
    channel = board.sse.channel("a")
    with Server("gevent", "tests.apps.channels:app", env=config(server)) as http, connected(http, "/events/a"):
        until(lambda: channel.subscribers() == 1, "its client")
        http.kill()
        until(lambda: channel.subscribers() == 0, "its client to be forgotten")


def test_figures_of_process_are_gathered_off_subscriber_thread(server: RedisServer) -> None:
    """Gathering them goes through all clients, so it must not delay the events of others."""
    broker, other = make_broker(server.url), make_broker(server.url)
    threads: list[str] = []

    def about() -> dict[str, int]:
        threads.append(threading.current_thread().name)
        return {"clients": 7}

    broker.about = about
    listening(broker, "a")
    broker.count_again("a")
    until(lambda: [each.get("clients") for each in other.processes()] == [7], "the figures to arrive")
    assert set(threads) == {"sse-figures"}
    for each in (broker, other):
        each.close()


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_workers_that_shut_down_are_no_longer_counted(server: RedisServer, board: Board, kind: str) -> None:
    channel = board.sse.channel("a")
    arguments = ["--workers", "2", "--graceful-timeout", f"{PATIENCE:.0f}"]  # gunicorn kills workers that take longer
    with (
        Server(kind, "tests.apps.channels:app", env=config(server, SSE_DRAIN_SECONDS=1), arguments=arguments) as http,
        connected(http, "/events/a"),
        connected(http, "/events/a"),
    ):
        until(lambda: channel.subscribers() == 2, "their clients")
        until(board.sse.processes, "their figures")
        http.stop()  # waits until they have ended
        assert (channel.subscribers(), board.sse.processes()) == (0, [])


def test_broker_closed_twice_removes_its_clients_from_count(server: RedisServer) -> None:
    broker, other = make_broker(server.url), make_broker(server.url)
    listening(broker, "a")
    broker.count_again("a")
    until(lambda: other.clients_elsewhere("a") == 1, "its client")
    for _ in range(2):
        broker.close()
        assert other.clients_elsewhere("a") == 0
    other.close()


def test_counting_clients_without_redis_raises(server: RedisServer, board: Board) -> None:
    server.kill()
    with pytest.raises(BrokerUnavailable, match="Redis did not count the clients"):
        board.sse.channel("a").subscribers()


# Under gunicorn.


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_streams_of_real_workers_survive_redis_restart(kept: RedisServer, kind: str) -> None:
    arguments = ["--workers", "2"]
    with (
        Server(kind, "tests.apps.channels:app", env=config(kept, SSE_MAX_CLIENTS=5), arguments=arguments) as http,
        connected(http, "/events/a") as client,
        connected(http, "/events/a") as other,
    ):
        post(http, "/publish/a", 1)
        assert (client.texts(1), other.texts(1)) == (["1"], ["1"])
        kept.kill()
        with pytest.raises(AssertionError, match="Internal Server Error"):
            post(http, "/publish/a", 2)
        received = b""
        while received.count(b":\n") < 5:  # heartbeats continue
            received += client.read_some()
        kept.start()
        until(lambda: get(http, "/stats")["broker"]["state"] == "ok", "Redis to be back")
        post(http, "/publish/a", 3)
        assert (client.texts(1), other.texts(1)) == (["3"], ["3"])
        assert get(http, "/stats")["warnings"] == []


def test_gevent_without_patched_sockets_is_refused(server: RedisServer) -> None:
    program = (
        "import gevent\n"
        "from flask_sse_emitters import SseEmitter, UnsupportedWorker\n"
        "from flask_sse_emitters.channels.process_subscription import ProcessSubscription\n"
        "from flask_sse_emitters.config.settings import DEFAULTS\n"
        "from flask_sse_emitters.brokers import make_broker\n"
        "from flask_sse_emitters.wire.frame import Frame\n"
        f"broker = make_broker({server.url!r})\n"
        "print(broker.publish('a', Frame(b'data\\n\\n', None), None).is_new)\n"
        "def publish():\n"
        "    try:\n"
        "        broker.publish('a', Frame(b'data\\n\\n', None), None)\n"
        "    except UnsupportedWorker as error:\n"
        "        print(error)\n"
        "def subscribe():\n"
        "    try:\n"
        "        subscription.add(SseEmitter())\n"
        "    except UnsupportedWorker as error:\n"
        "        print(error)\n"
        "gevent.spawn(publish).join()\n"
        "subscription = ProcessSubscription('a', broker, DEFAULTS, list)\n"
        "for _ in range(2):\n"  # the next one is refused as well
        "    gevent.spawn(subscribe).join()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    first, *refused = done.stdout.splitlines()
    assert first == "True"
    assert ["call gevent.monkey.patch_all() first" in text for text in refused] == [True, True, True]


@pytest.mark.parametrize(("kind", "scheme"), [("rediss", "{}"), ("redis+sentinel", "{}/mymaster")])
def test_silent_redis_times_out_on_publish(kind: str, scheme: str) -> None:
    """Long before redis-py itself would give up."""
    done: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = scheme.format(f"127.0.0.1:{silent.getsockname()[1]}")
        broker = make_broker(f"{kind}://{address}", publish_seconds=0.3)

        def publishing() -> None:
            try:
                broker.publish("a", frame("x"), KEPT)
            except BrokerUnavailable as error:
                done.append(error)

        threading.Thread(target=publishing, daemon=True).start()
        until(lambda: done, "publish to time out", seconds=READ_SECONDS)
        broker.close()


def is_over(stream: OpenStream) -> bool:
    """Return whether a stream has ended, and discard its events."""
    stream.ready()
    source = stream._body._stream
    return source is None or source.close_reason is not None
