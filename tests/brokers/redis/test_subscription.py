"""Subscriptions of a process to its channels in Redis: from the first client to the last, and how long keys stay."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from flask_sse_emitters.brokers import CHANNEL_END, Bounds, Broker, Frame, make_broker
from flask_sse_emitters.testing import decode, published
from tests.brokers.states import await_end, subscribers
from tests.support.board import Board, board_reads, closing_board, gap_of, moved, read, texts
from tests.support.brokers.broker_calls import RecordingListener, listening, publish, subscribed
from tests.support.brokers.redis_server import RedisServer
from tests.support.held_items import HeldItems
from tests.support.waiting import PATIENCE, until
from tests.support.wire import Wire


@pytest.mark.parametrize("is_flushed", [False, True])
def test_first_client_ahead_of_process_gets_next_event_without_gap(
    client: Any, wire: Wire, wired: Board, board: Board, is_flushed: bool
) -> None:
    """After a flush, it reconnects."""
    with wired.open("a") as before:
        wired.publish("a", 1)
        read(before, 1)
        wire.is_held = True
        if is_flushed:
            client.flushall()
        ids = board.publish("a", 2, 3)
        with wired.open("a", last=ids[0]) as stream:
            assert stream.ready() == []
            wire.is_held = False
            if is_flushed:
                await_end(wired, stream)
            else:
                assert texts(read(stream, 1)) == ["3"]
                assert texts(read(before, 2)) == ["2", "3"]
                board.publish("a", 4)
                assert texts(read(stream, 1)) == ["4"]
    if is_flushed:
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


@pytest.mark.parametrize("history", [2, 0])
def test_first_client_gets_gap_if_events_since_connect_are_dropped(
    wire: Wire, server: RedisServer, history: int
) -> None:
    with (
        closing_board(wire.url, SSE_HISTORY=history) as wired,
        closing_board(server.url, SSE_HISTORY=history) as other,
    ):
        wire.is_held = True
        with wired.open("a") as stream:
            assert stream.ready() == []
            time.sleep(0.01)  # times are known to milliseconds
            ids = other.publish("a", *range(5))
            wire.is_held = False
            events = read(stream, 1 + history)
            assert gap_of(events) == {"requested": "", "oldest": moved(ids[-1], 1 - history), "newest": ids[-1]}
            other.publish("a", "new")
            assert texts([*events[1:], *read(stream, 1)]) == [*map(str, range(5 - history, 5)), "new"]


def test_subscription_lookup_without_listener_calls_back_at_once() -> None:
    broker = make_broker("redis://127.0.0.1:1")
    looked: list[str] = []
    broker.look_again("c", lambda: looked.append("c"))
    assert looked == ["c"]


def test_subscription_to_busy_channel_without_history_resets_nobody(new_broker: Callable[[], Broker]) -> None:
    """An announcement from before the lookup is no sign of a loss."""
    broker, other, ends = new_broker(), new_broker(), threading.Event()

    def publishing() -> None:
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


def test_subscription_events_of_several_channels_arrive_in_publish_order(server: RedisServer, board: Board) -> None:
    with published(board.sse, "a", "b") as events, closing_board(server.url) as other:
        for number in range(200):
            other.publish("ab"[number % 3 == 0], number)
    assert texts(events) == [str(number) for number in range(200)]


def test_published_keeps_the_order_of_what_is_still_on_its_way(server: RedisServer, board: Board) -> None:
    """Decoding many short lines for several of them takes longer than publishing."""
    lines = "x\n" * 6_000
    with ExitStack() as stack, closing_board(server.url) as other:
        for _ in range(5):
            stack.enter_context(published(board.sse, "a", "b"))
        with published(board.sse, "a", "b") as events:
            for number in range(30):
                other.publish("ab"[number % 3 == 0], f"{number}\n{lines}")
        assert [int(event.data.partition("\n")[0]) for event in events] == [*range(30)]


def test_subscription_of_failing_listener_delays_no_other(
    new_broker: Callable[[], Broker], caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(RecordingListener):
        def arrived(self, frames: Sequence[Frame]) -> None:  # noqa: ARG002 - it fails
            raise RuntimeError("this one fails")

    broker = new_broker()
    subscribed(broker, "a", Failing())
    listener = listening(broker, "a")
    publish(broker, "a", "x", "y")
    until(partial(has_two, listener), "both events")
    assert "an error in" in caplog.messages[0]
    assert broker.status()["state"] == "ok"


def has_two(listener: RecordingListener) -> bool:
    return len(listener.frames) >= 2


def test_subscription_reads_channel_once_for_clients_that_reconnect(client: Any, board: Board) -> None:
    [*_, last, _] = board.publish("a", *["x" * 10_000] * 100)
    before = client.info("stats")["total_net_output_bytes"]
    for _ in range(20):
        with board.open("a", last=last) as stream:
            assert len(read(stream, 1)) == 1
    assert client.info("stats")["total_net_output_bytes"] - before < 2 * 100 * 10_000


def test_subscription_ends_some_seconds_after_last_client(client: Any, board: Board) -> None:
    with board.open("a") as stream:
        [first] = board.publish("a", "first")
        read(stream, 1)
    board.publish("a", "meanwhile")
    assert subscribers(client) == 1
    assert texts(board_reads(board, "a", last=first, count=1)) == ["meanwhile"]
    until(lambda: subscribers(client) == 0, "the channel to be let go")
    assert board.sse.channel("a").subscribers() == 0


def test_subscription_finds_event_whose_announcement_was_lost(client: Any, new_broker: Callable[[], Broker]) -> None:
    """As between the nodes of a cluster. The process looks the channel up again from time to time."""
    broker, looked_up = new_broker(), threading.Event()
    publish(broker, "a", 1)
    listener = listening(broker, "a")
    _, fields = client.xrange("sse:{a}:log")[0]
    client.xadd("sse:{a}:log", fields, id="2-0")
    client.hincrby("sse:{a}:at", "offset", 1)
    broker.look_again("a", looked_up.set)
    assert looked_up.wait(PATIENCE)
    assert [each.offset for each in listener.frames] == [2]


@pytest.mark.parametrize("what", ["list", "stream"])
def test_complete_delivers_events_published_before(board: Board, what: str) -> None:
    for number in range(20):
        channel = board.sse.channel(f"c{number}")
        with board.open(channel.name) as stream:
            board.publish(channel.name, *range(5))
            completed = channel.emitters if what == "list" else next(iter(channel.emitters))
            completed.complete()
            until(lambda channel=channel: len(channel.emitters) == 0, "the end")  # type: ignore[misc]
            assert texts(stream.ready()) == [*"01234"]


def test_complete_at_once_replays_missed_events(server: RedisServer, board: Board) -> None:
    ids = board.publish("c", *range(6))
    with closing_board(server.url) as other, other.app.test_request_context():
        emitter = other.sse.channel("c").subscribe(last_event_id=ids[0])
        emitter.complete()
        with emitter.response() as response:
            until(lambda: len(other.sse.channel("c").emitters) == 0, "the end")
            assert texts(decode(b"".join(response.iter_encoded()))) == [*"12345"]


def test_complete_during_redis_outage_ends_stream_after_it(server: RedisServer, board: Board) -> None:
    emitters = board.sse.channel("c").emitters
    with board.open("c") as stream:
        board.publish("c", 1)
        assert texts(read(stream, 1)) == ["1"]
        server.signal(signal.SIGSTOP)
        next(iter(emitters)).complete()
        assert (stream.ready(), len(emitters)) == ([], 1)
        server.signal(signal.SIGCONT)
        until(lambda: len(emitters) == 0, "the end")


@pytest.mark.parametrize("since", [None, "now"])
def test_reader_that_comes_during_an_outage_gets_the_whole_run_after_it(
    server: RedisServer, board: Board, since: str | None
) -> None:
    """Unless it asks for something else."""
    held = HeldItems()
    with closing_board(server.url) as other:
        run = other.sse.channel("c").publish_from(held.items(), every=0)
        held.let(2)
        until(lambda: other.sse.channel("c").position().endswith("-2"), "two items")
        server.signal(signal.SIGSTOP)
        with board.open("c" if since is None else f"c&since={since}") as stream:
            server.signal(signal.SIGCONT)
            held.let(1)
            assert texts(read(stream, 3 if since is None else 1))[-1] == "3"
            run.cancel()


def test_history_of_process_that_keeps_fewer_events_is_logged_once(
    server: RedisServer, board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    for channel in "ab":
        board.publish(channel, 1, 2)
    with closing_board(server.url) as same, closing_board(server.url, SSE_HISTORY=3) as other:
        same.publish("a", 3)
        assert caplog.messages == []
        for channel in "ab":
            other.publish(channel, 4, 5)
    [message] = caplog.messages
    assert "channel 'a' keeps 3 events for 300 s from now on" in message
    assert "kept 1000 for 300 s before" in message
    assert "SSE_HISTORY" in message


#: Milliseconds for which a channel without events is remembered.
UNUSED_MS = 600_000


def test_keys_expire_all(client: Any, board: Board) -> None:
    board.sse.publish("a", "x", key="k")
    with board.open("a"):
        until(lambda: len(client.keys()) == 7, "the client to be counted")
        left = {key.decode().split(":", 2)[2]: client.pttl(key) for key in client.keys("*{a}*")}
        here = [client.pttl(key) for key in client.keys("*{here}:process*")]
        lasting = client.pttl("sse:{here}:format")
        [revoked] = [client.pttl(key) for key in client.keys("*{!revoked}*")]
    assert 290_000 < left["key:k"] <= 300_000
    assert 290_000 < left["log"] <= 300_000
    assert left["at"] > 6 * 86_400_000
    assert revoked > 6 * 86_400_000
    assert lasting > 300 * 86_400_000
    assert all(0 < ttl <= 12_000 for ttl in here)


@pytest.mark.parametrize(
    ("bounds", "log_days", "epoch_days"),
    [
        (Bounds(9, 60.0), 0, 7),
        (Bounds(9, 30 * 86_400.0), 30, 30),
        (Bounds(9, 0.0), math.inf, math.inf),
        (Bounds(0, 0.0), 7, 7),
    ],
    ids=["a minute", "a month", "for ever", "none"],
)
def test_keys_remember_a_channel_for_as_long_as_its_events(
    client: Any, new_broker: Callable[[], Broker], bounds: Bounds, log_days: float, epoch_days: float
) -> None:
    """And for a week at least. Whoever looks it up, or has it, changes nothing of that."""

    def days(key: str) -> float:
        ttl = client.pttl(f"sse:{{a}}:{key}")
        return math.inf if ttl == -1 else round(ttl / 86_400_000)

    broker, other = new_broker(), new_broker()
    broker.publish("a", CHANNEL_END, bounds)
    assert (days("log"), days("at")) == (log_days, epoch_days)
    for ask in (
        lambda: other.state("a"),
        lambda: listening(other, "a"),
        lambda: other.start_run("a", "run", PATIENCE),
        lambda: other.renew_run("a", "run", PATIENCE),
    ):
        ask()
        assert (days("log"), days("at")) == (log_days, epoch_days)


def test_keys_of_unused_channel_are_renewed_by_lookup(client: Any, new_broker: Callable[[], Broker]) -> None:
    broker, looked_up = new_broker(), threading.Event()
    listening(broker, "asked-for")
    assert 0 < client.pttl("sse:{asked-for}:at") <= UNUSED_MS
    client.pexpire("sse:{asked-for}:at", UNUSED_MS // 2)
    broker.look_again("asked-for", looked_up.set)
    assert looked_up.wait(PATIENCE)
    assert UNUSED_MS // 2 < client.pttl("sse:{asked-for}:at") <= UNUSED_MS
    publish(broker, "asked-for", "x")
    assert client.pttl("sse:{asked-for}:at") > 6 * 86_400_000
