"""Redis goes away, in every way that it does, and comes back: streams stay, publishers know, and nothing is lost."""

from __future__ import annotations

import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
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

from .client import connected, get, post
from .redis_server import RedisServer
from .servers import ROOT, Server
from .test_brokers import KEPT, RecordingListener, frame, in_threads, listening, publish, subscribed
from .test_channels import Board, gap_of, moved, texts
from .waiting import PATIENCE, until
from .wire import Wire


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def kept() -> Iterator[RedisServer]:
    """One that has everything it has confirmed when it is started again."""
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
    """An app whose line to Redis is in the test's hands."""
    with closing_board(f"redis://127.0.0.1:{wire.port}", SSE_MAX_PENDING_BYTES=10**9) as board:
        yield board


@contextmanager
def closing_board(url: str, **config: Any) -> Iterator[Board]:
    board = Board(SSE_BROKER_URL=url, **config)
    yield board
    board.sse._channels().broker.close()


def client_of(server: RedisServer) -> Any:
    return redis_py.Redis(port=server.port)


def read(stream: OpenStream, count: int) -> list[Event]:
    """So many events, which come when they come."""
    events: list[Event] = []

    def has_all() -> bool:
        events.extend(stream.ready())
        return len(events) >= count

    until(has_all, f"{count} events")
    return events


def broker_state(board: Board) -> dict[str, Any]:
    state: dict[str, Any] = board.sse.stats()["broker"]
    return state


def await_state(board: Board, state: str) -> dict[str, Any]:
    return until(
        lambda: (found := broker_state(board))["state"] == state and found, f"{state}, not {broker_state(board)}"
    )


# published, and then completed


@pytest.mark.parametrize("what", ["list", "stream"])
def test_events_published_before_complete_reach_the_client(board: Board, what: str) -> None:
    for number in range(20):
        channel = board.sse.channel(f"c{number}")
        with board.open(channel.name) as stream:
            board.publish(channel.name, *range(5))
            completed = channel.emitters if what == "list" else next(iter(channel.emitters))
            completed.complete()
            until(lambda channel=channel: len(channel.emitters) == 0, "the end")  # type: ignore[misc]
            assert texts(list(stream.ready())) == [*"01234"]


def test_a_closed_broker_of_redis_keeps_no_connection_that_it_still_needs() -> None:
    with RedisServer() as server:
        broker = make_broker(server.url)
        publish(broker, "a", "x")
        broker.close()
        publish(broker, "a", "y")
        assert broker.clients_elsewhere("a") == 0
        until(lambda: len(client_of(server).client_list()) == 1, "the connections to end")


def test_stream_completed_at_once_replays_what_its_client_missed(server: RedisServer, board: Board) -> None:
    ids = board.publish("c", *range(6))
    with closing_board(server.url) as other, other.app.test_request_context():
        emitter = other.sse.channel("c").subscribe(last_event_id=ids[0])
        emitter.complete()
        response = emitter.response()
        until(lambda: len(other.sse.channel("c").emitters) == 0, "the end")
        assert texts(decode(b"".join(response.response))) == [*"12345"]  # type: ignore[arg-type]


def test_stream_completed_while_redis_is_away_ends_when_it_is_back(server: RedisServer, board: Board) -> None:
    with board.open("c") as stream:
        board.publish("c", 1)
        assert texts(read(stream, 1)) == ["1"]
        server.signal(signal.SIGSTOP)
        emitter = next(iter(board.sse.channel("c").emitters))
        emitter.complete()
        assert stream.ready() == []
        server.signal(signal.SIGCONT)
        until(lambda: len(board.sse.channel("c").emitters) == 0, "the end")


def test_completed_stream_taken_out_of_a_channel_meanwhile_ends_all_the_same(
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
        until(lambda: subscriber._topics.get("c1") is None, "the channel that nobody listens to any more to be let go")
        server.signal(signal.SIGCONT)
        until(lambda: len(two.emitters) == 0, "the end")


def test_channel_that_nobody_listens_to_has_nothing_to_be_awaited() -> None:
    broker = make_broker("redis://127.0.0.1:1")
    looked: list[str] = []
    broker.look_again("c", lambda: looked.append("c"))
    assert looked == ["c"]


# gone and back


def test_a_killed_server_is_told_once_and_what_comes_after_it_is_delivered(
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
        time.sleep(2 * LONGEST_WAIT_SECONDS)  # for several attempts: none of them is logged
        assert stream.ready() == []
        assert len(caplog.messages) == 1
        assert "degraded" in caplog.messages[0]
        kept.start()
        await_state(board, "ok")
        board.publish("a", 2)
        assert texts(read(stream, 1)) == ["2"]
    assert [("degraded" in text, "is back" in text) for text in caplog.messages] == [(True, False), (False, True)]


def test_listening_begins_again_within_two_seconds() -> None:
    assert LONGEST_WAIT_SECONDS * (1 + SPREAD) + 0.5 < 2
    assert BEGIN_SECONDS <= 2


def test_what_others_published_meanwhile_comes_in_order_and_then_what_is_new(
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


def test_a_server_that_restarts_without_its_data_is_one_gap_and_then_all_that_is_new() -> None:
    with RedisServer() as server:
        with closing_board(server.url) as board:
            with board.open("a") as stream:
                ids = board.publish("a", 1, 2)
                read(stream, 2)
                server.kill()
                server.start()
                until(lambda: is_over(stream), "the stream to be sent back")
            new = board.publish("a", 3, 4)
            events = board_reads(board, "a", last=ids[-1], count=3)
            assert gap_of(events) == {"requested": ids[-1], "oldest": moved(new[0], 0), "newest": new[-1]}
            assert [(event.data, event.id) for event in events[1:]] == [("3", new[0]), ("4", new[1])]
            assert new[0].split("-")[0] != ids[0].split("-")[0]


def test_a_flush_is_a_gap_and_never_a_wrong_event(server: RedisServer, board: Board) -> None:
    with board.open("a") as stream:
        ids = board.publish("a", 1, 2, 3)
        read(stream, 3)
        client_of(server).flushall()
        new = board.publish("a", 4)
        until(lambda: is_over(stream), "the stream to be sent back")
    events = board_reads(board, "a", last=ids[1], count=2)
    assert gap_of(events)["requested"] == ids[1]
    assert [(event.data, event.id) for event in events[1:]] == [("4", new[0])]


def test_a_flush_is_noticed_by_whoever_comes_back_after_it(server: RedisServer, board: Board) -> None:
    """Nothing has been published since, and other clients still listen to what was."""
    ids = board.publish("a", 1, 2, 3)
    events = board_reads(board, "a", last=ids[0], count=2)
    assert texts(events) == ["2", "3"]
    client_of(server).flushall()
    with board.open("a", last=ids[0]) as stream:  # what was revoked is lost as well: so this one comes again
        until(lambda: is_over(stream), "its end")
    events = board_reads(board, "a", last=ids[0], count=1)
    assert gap_of(events)["requested"] == ids[0]


@pytest.mark.parametrize("more", [0, 1, 2, 5], ids="{} more".format)
def test_a_server_that_has_lost_events_gives_none_of_their_ids_to_others(
    server: RedisServer, board: Board, more: int
) -> None:
    """As after a failover to a replica that lacked the last ones, with any number of new ones since."""
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
        until(lambda: is_over(stream), "the stream to be sent back")
    epoch = last.split("-")[0]
    [latest] = board.publish("a", "latest")
    events = board_reads(board, "a", last=seen[-1], count=2)
    assert gap_of(events)["requested"] == seen[-1]
    assert all(not str(event.id).startswith(epoch) for event in events)
    assert events[-1].id == latest
    assert len(new) == more


def test_who_publishes_finds_out_that_the_server_has_lost_events_before_any_id_is_given_again(
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


# cut off, held up, half-open


def test_a_connection_that_the_server_kills_is_made_again(server: RedisServer, board: Board) -> None:
    with board.open("a") as stream:
        board.publish("a", 1)
        read(stream, 1)
        for number in range(2, 6):
            assert client_of(server).client_kill_filter(_type="pubsub") == 1
            board.publish("a", number)
            assert texts(read(stream, 1)) == [str(number)]
            until(lambda: client_of(server).pubsub_numsub("sse:{a}@0")[0][1] == 1, "it to listen again")


def test_a_reader_that_the_server_cuts_off_because_it_is_slow_reads_the_rest_from_the_log(
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
        until(lambda: client_of(server).pubsub_numsub("sse:{a}@0")[0][1] == 0, "it to be cut off")
        wire.is_held = False
        got: list[Event] = []
        while len(got) < len(numbers):
            got += read(stream, 1)
        assert texts(got) == numbers


def test_a_paused_server_is_noticed_by_a_ping_and_listened_to_when_it_goes_on(
    server: RedisServer, board: Board
) -> None:
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


def test_publishing_to_a_paused_server_is_an_error_in_time_and_a_key_makes_a_retry_safe(server: RedisServer) -> None:
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


def test_a_pause_too_short_to_be_noticed_but_by_who_publishes_is_over_when_the_server_was_heard_again(
    server: RedisServer, board: Board
) -> None:
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


def test_all_steps_of_publishing_together_take_no_longer_than_allowed() -> None:
    """A server that takes half of that for each answer, of which a new connection needs several."""
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


# what fails for one channel, or for writing alone


def test_a_channel_whose_keys_hold_something_else_fails_alone(server: RedisServer, board: Board) -> None:
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
        until(lambda: "troubles" not in broker_state(board), "them to be over")
        board.publish("bad", 4)
        assert texts(read(bad, 2)) == ["3", "4"]


def test_times_are_right_where_the_last_of_the_channels_that_are_looked_up_together_fails(server: RedisServer) -> None:
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


def test_a_log_whose_entries_are_not_ours_fails_alone(server: RedisServer, board: Board) -> None:
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
    until(lambda: "troubles" not in broker_state(board), "it to be over: nobody reads it any more")


@pytest.mark.parametrize("foreign", ["SET sse:{bad}:log x", "XADD sse:{bad}:log * what this"])
def test_a_log_that_is_not_ours_is_begun_anew_by_the_next_event(
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


def test_a_log_whose_oldest_entry_is_not_ours_is_published_to(server: RedisServer, board: Board) -> None:
    client = client_of(server)
    client.xadd("sse:{bad}:log", {"what": "is this"}, id="0-1")
    client.hset("sse:{bad}:at", mapping={"epoch": "abcde", "offset": 0})
    [first] = board.publish("bad", 1)
    assert first == "abcde-1"
    assert [entry_id for entry_id, _ in client.xrange("sse:{bad}:log")] == [b"1-0"]


def test_scripts_that_the_server_has_forgotten_are_given_to_it_again(server: RedisServer, board: Board) -> None:
    with board.open("a") as stream:
        for number in range(3):
            client_of(server).script_flush()
            board.publish("a", number)
            assert texts(read(stream, 1)) == [str(number)]
    assert broker_state(board)["state"] == "ok"


def test_a_server_without_memory_refuses_to_publish_and_streams_stay(server: RedisServer, board: Board) -> None:
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


def test_that_clients_cannot_be_counted_holds_up_no_event(server: RedisServer, board: Board) -> None:
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


def test_a_server_that_is_full_is_read_all_the_same(server: RedisServer, board: Board) -> None:
    ids = board.publish("a", 1, 2, 3)
    client_of(server).config_set("maxmemory", 1)
    with closing_board(server.url) as other:
        assert texts(board_reads(other, "a", last=ids[0], count=2)) == ["2", "3"]


def test_a_channels_own_trouble_is_no_outage_and_is_named_once(
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


# full, and no longer


def refused(board: Board, channel: str = "a") -> None:
    with pytest.raises(BrokerUnavailable, match="maxmemory"):
        board.publish(channel, "refused")


def test_a_server_no_longer_full_is_ok_though_nobody_publishes(server: RedisServer, board: Board) -> None:
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


def test_that_a_client_has_left_is_no_write_that_a_full_server_took(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[None] = []
    client, broker = client_of(server), make_broker(server.url)
    ear = listening(broker, "a")
    publish(broker, "a", 1)
    client.config_set("maxmemory", 1)
    with pytest.raises(BrokerUnavailable, match="maxmemory"):
        publish(broker, "a", 2)
    monkeypatch.setattr(redis_health.Health, "wrote", lambda _health: writes.append(None))
    broker.unsubscribe("a", ear)
    broker.count_again("a")
    told = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    until(lambda: client.info("commandstats")["cmdstat_evalsha"]["calls"] > told + 1, "it to be told, twice")
    assert not writes
    broker.close()


def test_a_refused_event_is_forgotten_where_nothing_else_tells(
    server: RedisServer, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_of(server).config_set("maxmemory", 1)
    refused(board)
    assert broker_state(board)["state"] == "degraded"
    monkeypatch.setattr(redis_health, "STALE_SECONDS", 0.0)
    assert broker_state(board)["state"] == "ok"


def test_a_channel_that_was_asked_for_while_full_leaves_no_trouble(
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


def test_nothing_says_it_is_back_while_publishing_is_refused(
    server: RedisServer, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(server)
    with board.open("a") as stream:
        board.publish("a", 1)
        read(stream, 1)
        client.config_set("maxmemory", 1)
        refused(board)
        board.sse.channel("a").subscribers()  # that may be read
        assert "publishing: " in broker_state(board)["error"]
        [before] = listeners(client)
        client.client_kill_filter(_type="pubsub")
        until(lambda: before not in listeners(client) and listeners(client), "it to listen again")
        until(lambda: "listening: " not in broker_state(board)["error"], "it to be heard")
        assert "publishing: " in broker_state(board)["error"]
        assert not any("is back" in text for text in caplog.messages)


def test_an_outage_whose_cause_changes_says_so(
    server: RedisServer, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(server)
    with board.open("a") as stream:
        board.publish("a", 1)
        assert texts(read(stream, 1)) == ["1"], "from here on it listens"
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


def test_what_others_announce_there_is_no_event(
    server: RedisServer, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    with board.open("a") as stream:
        board.publish("a", 1)
        assert texts(read(stream, 1)) == ["1"]
        for junk in (b"", b"hello", b"\xff\n", b"a 1 2 3 4 x\n", b"1 2\n3"):
            client_of(server).publish("sse:{a}@0", junk)
        board.publish("a", 2)
        assert texts(read(stream, 1)) == ["2"]
    assert sum("something else" in text for text in caplog.messages) == 1


@pytest.mark.parametrize("publishes", [True, False], ids=["this process publishes", "another one publishes"])
@pytest.mark.parametrize("ahead", [0, 10**9], ids=["now", "in the future"])
def test_what_is_announced_and_was_never_published_costs_no_event(
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
        until(lambda: is_over(stream), "the stream to be sent back")
    assert client.xlen("sse:{a}:log") == 12
    events = board_reads(board, "a", last=forged, count=13)
    assert gap_of(events)["requested"] == forged
    assert texts(events[1:]) == [*map(str, range(10)), "real", "next"]


# who knows more than this process


def test_a_client_that_is_ahead_of_its_process_gets_the_next_event_and_no_gap(
    wire: Wire, wired: Board, board: Board
) -> None:
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


def test_a_client_that_knows_of_a_flush_before_its_process_does_is_sent_back_without_a_gap(
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
            until(lambda: is_over(stream), "it to be sent back")
    assert texts(board_reads(wired, "a", last=ids[0], count=1)) == ["3"]


def test_a_first_client_gets_what_is_published_after_it_came_though_its_process_hears_of_that_later(
    wire: Wire, wired: Board, board: Board
) -> None:
    board.publish("a", "before")
    time.sleep(0.01)  # times are known to milliseconds
    wire.is_held = True
    with wired.open("a") as stream:
        assert stream.ready() == []
        board.publish("a", 1, 2)
        wire.is_held = False
        assert texts(read(stream, 2)) == ["1", "2"]


def test_a_first_client_is_told_of_a_gap_where_what_was_published_since_is_gone_again(
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


def test_a_first_client_is_told_of_a_gap_where_nothing_is_kept_of_what_was_published_since(
    wire: Wire, server: RedisServer
) -> None:
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


def test_a_busy_channel_of_which_nothing_is_kept_cuts_nobody_off(server: RedisServer) -> None:
    """What was announced before it was looked up is no sign that anything was lost."""
    broker, ends = make_broker(server.url), threading.Event()

    def publishing() -> None:
        other = make_broker(server.url)
        while not ends.is_set():
            publish(other, "a", "x", bounds=Bounds(0, 300.0))

    thread = threading.Thread(target=publishing)
    thread.start()
    try:
        for _ in range(10):
            ear = listening(broker, "a")
            until(partial(has_two, ear), "two events")
            assert ear.starts == 1
            broker.unsubscribe("a", ear)
    finally:
        ends.set()
        thread.join()
        broker.close()


def test_events_of_several_channels_are_told_in_the_order_in_which_they_were_published(
    server: RedisServer, board: Board
) -> None:
    with published(board.sse, "a", "b") as events, closing_board(server.url) as other:
        for number in range(200):
            other.publish("ab"[number % 3 == 0], number)
    assert texts(events) == [str(number) for number in range(200)]


@pytest.mark.parametrize("by", [1, 1000, 10**15])
def test_an_id_that_no_event_has_yet_is_a_gap(board: Board, by: int) -> None:
    [event_id] = board.publish("a", 1)
    with board.open("a", last=moved(event_id, by)) as stream:
        events = read(stream, 2)
    assert gap_of(events)["requested"] == moved(event_id, by)
    assert [(event.data, event.id) for event in events[1:]] == [("1", event_id)]


# connections and keys


def test_two_connections_serve_a_process_however_many_clients_and_channels_it_has(
    server: RedisServer, board: Board
) -> None:
    own = client_of(server)
    with ExitStack() as stack:
        streams = [stack.enter_context(board.open(f"c{number % 20}")) for number in range(60)]
        for number in range(20):
            board.publish(f"c{number}", number)
        for number, stream in enumerate(streams):
            assert texts(read(stream, 1)) == [str(number % 20)]
        assert len(connections(own)) <= 3, "one to listen, and one for each of two threads that asked at once"
        assert len(own.pubsub_channels("sse:{c*")) == 20
        in_threads([partial(board.publish, "c1", *range(20))] * 30)
        assert len(connections(own)) <= 1 + MAX_CONNECTIONS
    until(lambda: not own.pubsub_channels("sse:{c*"), "nothing to be listened to any more")


def connections(client: Any) -> list[Any]:
    own = client.client_id()
    return [each for each in client.client_list() if int(each["id"]) != own]


def test_prefixes_and_databases_keep_apart_who_shares_a_server(server: RedisServer) -> None:
    places = [(server.url, "sse"), (server.url, "other"), (f"{server.url}/1", "sse")]
    brokers = [make_broker(url, prefix=prefix) for url, prefix in places]
    ears = [listening(broker, "a") for broker in brokers]
    for number, broker in enumerate(brokers):
        publish(broker, "a", f"{number} a", f"{number} b")
    for number, ear in enumerate(ears):
        until(partial(has_two, ear), "its own")
        assert ear.texts == [b"data: %d a\n\n" % number, b"data: %d b\n\n" % number]
        assert ear.starts == 1
    for broker in brokers:
        broker.close()


def test_a_closed_broker_leaves_no_connection(server: RedisServer) -> None:
    broker = make_broker(server.url)
    listening(broker, "a")
    publish(broker, "a", "x")
    own = client_of(server)
    assert connections(own)
    broker.close()
    until(lambda: not connections(own), "all connections to be closed")


def test_who_waits_for_a_connection_gets_it_in_the_order_of_coming() -> None:
    slots, order, first = FairSemaphore(1), [], threading.Event()

    def take(number: int) -> None:
        with within(PATIENCE), slots.slot():
            order.append(number)

    with slots.slot():
        threads = []
        for number in range(8):
            threads.append(threading.Thread(target=take, args=(number,)))
            threads[-1].start()
            until(partial(_are_waiting, slots, number + 1), "it to wait")
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


def test_a_fork_under_gevent_leaves_its_parents_subscription_alone(server: RedisServer) -> None:
    command = [sys.executable, "-m", "tests.gevent_fork_redis", server.url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=2 * PATIENCE)
    assert (done.returncode, done.stdout) == (0, "heard by the child: 0\n"), done.stderr


def test_a_thread_that_cannot_start_is_started_later(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[int] = []

    class FailsOnce(WakeupSocket):
        def __init__(self) -> None:
            attempts.append(1)
            if len(attempts) == 1:
                raise OSError(24, "Too many open files")
            super().__init__()

    monkeypatch.setattr(redis_thread, "WakeupSocket", FailsOnce)
    broker = make_broker(server.url)
    ear = listening(broker, "a")
    publish(broker, "a", "x")
    until(lambda: ear.frames, "an event")
    assert len(attempts) == 2
    broker.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_listening_thread_that_ends_is_followed_by_another(server: RedisServer, board: Board) -> None:
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


def test_a_listener_that_fails_holds_up_no_other_one(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(RecordingListener):
        def arrived(self, frames: Sequence[Frame]) -> None:  # noqa: ARG002 - it fails
            raise RuntimeError("this one fails")

    broker = make_broker(server.url)
    subscribed(broker, "a", Failing())
    ear = listening(broker, "a")
    publish(broker, "a", "x", "y")
    until(partial(has_two, ear), "both events")
    assert "an error in" in caplog.messages[0]
    assert broker.status()["state"] == "ok"
    broker.close()


def has_two(ear: RecordingListener) -> bool:
    return len(ear.frames) >= 2


def test_all_that_is_kept_ends_by_itself(server: RedisServer, board: Board) -> None:
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


def test_a_channel_without_events_is_remembered_for_as_long_as_it_has_clients(
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


def test_who_knows_nothing_of_the_bounds_leaves_them_as_they_are(server: RedisServer) -> None:
    broker = make_broker(server.url)
    publish(broker, "a", *range(10), bounds=Bounds(3, 60.0))
    broker.publish("a", frame("x"), None)
    assert client_of(server).xlen("sse:{a}:log") == 3
    broker.publish("b", frame("x"), None)
    assert client_of(server).hmget("sse:{b}:at", "events", "ms") == [b"1000", b"300000"]


def test_clients_that_come_and_go_have_a_channel_read_from_redis_once(server: RedisServer, board: Board) -> None:
    client = client_of(server)
    board.publish("a", *["x" * 10_000] * 100)
    before = client.info("stats")["total_net_output_bytes"]
    for _ in range(20):
        with board.open("a") as stream:
            stream.ready()
            until(lambda: board.sse._channels().subscription("a").log is not None, "the channel to be known")
    assert client.info("stats")["total_net_output_bytes"] - before < 2 * 100 * 10_000


def test_a_channel_is_let_go_some_seconds_after_its_last_client(
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


def test_a_process_that_keeps_less_than_others_did_says_so_once(
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


# how many there are


def test_the_clients_of_all_processes_are_counted(server: RedisServer, board: Board) -> None:
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


def test_many_changes_after_redis_has_forgotten_all_leave_the_count_right(server: RedisServer) -> None:
    """More of them than one command names."""
    broker, other = make_broker(server.url), make_broker(server.url)
    channels = [f"c{number}" for number in range(600)]
    for channel in channels:
        broker.subscribe(channel, RecordingListener())
        broker.count_again(channel)
    until(lambda: all(other.clients_elsewhere(channel) == 1 for channel in channels[-1:]), "them to be counted")
    client_of(server).flushall()
    for channel in channels[:300]:
        broker.count_again(channel)
    until(lambda: all(other.clients_elsewhere(channel) == 1 for channel in channels), "all to be counted again")
    for each in (broker, other):
        each.close()


def test_clients_of_a_killed_process_are_forgotten_within_twelve_seconds(server: RedisServer, board: Board) -> None:
    assert COUNT_EVERY < PRESENCE_SECONDS <= 12
    channel = board.sse.channel("a")
    with Server("gevent", "tests.channels_app:app", env=config(server)) as http, connected(http, "/events/a"):
        until(lambda: channel.subscribers() == 1, "its client")
        http.kill()
        until(lambda: channel.subscribers() == 0, "its client to be forgotten")


def test_what_a_process_says_of_itself_is_found_out_beside_listening(server: RedisServer) -> None:
    """It goes through all clients, so it must not hold up the events of others."""
    broker, other = make_broker(server.url), make_broker(server.url)
    threads: list[str] = []

    def about() -> dict[str, int]:
        threads.append(threading.current_thread().name)
        return {"clients": 7}

    broker.about = about
    listening(broker, "a")
    broker.count_again("a")
    until(lambda: [each.get("clients") for each in other.processes()] == [7], "it to be told")
    assert set(threads) == {"sse-figures"}
    for each in (broker, other):
        each.close()


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_workers_that_end_in_order_are_counted_no_longer(server: RedisServer, board: Board, kind: str) -> None:
    channel = board.sse.channel("a")
    arguments = ["--workers", "2", "--graceful-timeout", f"{PATIENCE:.0f}"]  # gunicorn kills those that take longer
    with (
        Server(kind, "tests.channels_app:app", env=config(server, SSE_DRAIN_SECONDS=1), arguments=arguments) as http,
        connected(http, "/events/a"),
        connected(http, "/events/a"),
    ):
        until(lambda: channel.subscribers() == 2, "their clients")
        until(board.sse.processes, "what they say of themselves")
        http.stop()  # and waits until they have ended
        assert (channel.subscribers(), board.sse.processes()) == (0, [])


def test_a_broker_that_is_closed_twice_takes_its_clients_off_the_list(server: RedisServer) -> None:
    broker, other = make_broker(server.url), make_broker(server.url)
    listening(broker, "a")
    broker.count_again("a")
    until(lambda: other.clients_elsewhere("a") == 1, "its client")
    for _ in range(2):
        broker.close()
        assert other.clients_elsewhere("a") == 0
    other.close()


def test_that_nobody_can_be_counted_is_an_error(server: RedisServer, board: Board) -> None:
    server.kill()
    with pytest.raises(BrokerUnavailable, match="Redis did not count the clients"):
        board.sse.channel("a").subscribers()


# under gunicorn


def config(server: RedisServer, **more: Any) -> dict[str, str]:
    return {
        "CONFIG": json.dumps({"SSE_BROKER_URL": server.url, "SSE_HEARTBEAT": 0.2, "SSE_PUBLISH_SECONDS": 1, **more})
    }


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_streams_of_real_workers_outlive_the_server(kept: RedisServer, kind: str) -> None:
    arguments = ["--workers", "2"]
    with (
        Server(kind, "tests.channels_app:app", env=config(kept, SSE_MAX_CLIENTS=5), arguments=arguments) as http,
        connected(http, "/events/a") as client,
        connected(http, "/events/a") as other,
    ):
        post(http, "/publish/a", 1)
        assert (client.texts(1), other.texts(1)) == (["1"], ["1"])
        kept.kill()
        with pytest.raises(AssertionError, match="Internal Server Error"):
            post(http, "/publish/a", 2)
        received = b""
        while received.count(b":\n") < 5:  # heartbeats go on
            received += client.read_some()
        kept.start()
        until(lambda: get(http, "/stats")["broker"]["state"] == "ok", "Redis to be back")
        post(http, "/publish/a", 3)
        assert (client.texts(1), other.texts(1)) == (["3"], ["3"])
        assert get(http, "/stats")["warnings"] == []


def test_a_gevent_program_whose_sockets_are_not_patched_is_refused(server: RedisServer) -> None:
    program = (
        "import gevent\n"
        "from flask_sse_emitters import SseEmitter, UnsupportedWorker\n"
        "from flask_sse_emitters.channels.subscription import ChannelSubscription\n"
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
        "        feed.add(SseEmitter())\n"
        "    except UnsupportedWorker as error:\n"
        "        print(error)\n"
        "gevent.spawn(publish).join()\n"
        "feed = ChannelSubscription('a', broker, DEFAULTS, list)\n"
        "for _ in range(2):\n"  # the next one is refused as well
        "    gevent.spawn(subscribe).join()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    first, *refused = done.stdout.splitlines()
    assert first == "True"
    assert ["call gevent.monkey.patch_all() first" in text for text in refused] == [True, True, True]


@pytest.mark.parametrize(("kind", "scheme"), [("rediss", "{}"), ("redis+sentinel", "{}/mymaster")])
def test_a_server_that_takes_the_connection_and_says_nothing_is_given_up_in_time(kind: str, scheme: str) -> None:
    """Long before redis-py itself would."""
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
        until(lambda: done, "it to be given up", seconds=READ_SECONDS)
        broker.close()


def is_over(stream: OpenStream) -> bool:
    """Whether a stream has ended; what it brings before that is of no interest."""
    stream.ready()
    source = stream._body._stream
    return source is None or source.close_reason is not None


def board_reads(board: Board, *channels: str, last: str, count: int) -> list[Event]:
    with board.open(*channels, last=last) as stream:
        return read(stream, count)
