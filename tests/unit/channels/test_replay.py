"""Replay from logs joined with live events of lists, with every step of the broker under the test's control."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask

from flask_sse_emitters import CloseReason, Event, SseEmitter, SseEmitters
from flask_sse_emitters.broadcast.delivery import Delivery
from flask_sse_emitters.brokers import Listener, Start
from flask_sse_emitters.brokers.event_ids import read_ids
from flask_sse_emitters.brokers.event_log import Bounds, Log
from flask_sse_emitters.brokers.memory import MemoryBroker
from flask_sse_emitters.channels.process_subscription import ProcessSubscription
from flask_sse_emitters.channels.registry import Channels
from flask_sse_emitters.channels.replay.machine import Replay
from flask_sse_emitters.runtime.gevent_loop import TIME_SLICE_SECONDS
from flask_sse_emitters.runtime.scheduler import SCHEDULER
from flask_sse_emitters.runtime.socket_monitor import SOCKET_MONITOR
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.stream import Stream
from flask_sse_emitters.testing import OpenStream, decode, open_stream
from flask_sse_emitters.wire.frame import BATCH_BYTES, Frame
from flask_sse_emitters.writers import response_body as wsgi
from flask_sse_emitters.writers import socket_writer as direct
from flask_sse_emitters.writers.response_body import ResponseBody
from flask_sse_emitters.writers.socket_writer import SocketWriter
from tests.support.board import Board, gap_of, moved, texts
from tests.support.held_broker import HeldBroker
from tests.support.waiting import PATIENCE, until
from tests.unit.doubles.clock import ManualScheduler

KEPT = Bounds(1000, 0.0)


class HeldBoard(Board):
    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.broker = HeldBroker()
        self.channels = self.sse._channels()
        self.channels.broker = self.broker


@pytest.fixture
def held() -> HeldBoard:
    return HeldBoard()


def test_client_waits_until_all_its_channels_are_located(held: HeldBoard) -> None:
    """Meanwhile it gets nothing, also of a channel that is located already."""
    with held.open("a", "b") as stream:
        held.publish("a", 1)
        assert stream.ready() == []
        held.broker.start("a")
        held.publish("a", 2)
        held.broker.deliver("a")
        assert stream.ready() == []
        held.broker.start("b")
        events = stream.ready()
        assert texts(events) == ["2"], "events after the start of the channel"
        assert [event.id for event in events] == ["epoch-2,epoch-0"]
        held.publish("b", 3)
        held.broker.deliver("b")
        assert [(event.data, event.id) for event in stream.ready()] == [("3", "epoch-2,epoch-1")]


def test_reconnect_before_channel_is_located_replays_after_it(held: HeldBoard) -> None:
    ids = held.publish("a", 1, 2, 3)
    with held.open("a", last=ids[0]) as stream:
        assert stream.ready() == []
        held.broker.start("a")
        assert texts(stream.ready()) == ["2", "3"]


def test_client_ahead_of_process_waits_until_process_caught_up(held: HeldBoard) -> None:
    """Another process delivered the events to the client earlier."""
    held.publish("a", 1)
    with held.open("a") as other:
        held.broker.start("a")
        ids = held.publish("a", 2, 3, 4)
        with held.open("a", last=ids[1]) as stream:
            assert stream.ready() == []
            held.broker.deliver("a", 1)
            assert (texts(other.ready()), stream.ready()) == (["2"], [])
            held.broker.deliver("a", 1)
            assert (texts(other.ready()), stream.ready()) == (["3"], [])
            held.publish("a", 5)
            held.broker.deliver("a")
            assert (texts(other.ready()), texts(stream.ready())) == (["4", "5"], ["4", "5"])


def test_events_that_arrive_before_start_are_delivered_once_after_it(held: HeldBoard) -> None:
    held.publish("a", 1)
    with held.open("a") as stream:
        held.publish("a", 2)
        held.broker.deliver("a")
        [listener] = held.broker.listeners["a"]
        listener.started(Start(held.broker.log("a"), 1))
        held.publish("a", 3)
        held.broker.deliver("a")
        assert texts(stream.ready()) == ["2", "3"]


def test_emitter_added_to_channel_list_gets_events_after_start(held: HeldBoard) -> None:
    @held.app.get("/mine")
    def mine() -> Any:
        return held.sse.channel("a").emitters.add(SseEmitter())

    with open_stream(held.client, "/mine") as stream:
        held.publish("a", 1)
        held.broker.deliver("a")
        [listener] = held.broker.listeners["a"]
        listener.started(Start(held.broker.log("a"), 0))
        held.publish("a", 2)
        held.broker.deliver("a")
        assert texts(stream.ready()) == ["1", "2"]


def test_stream_completed_before_channel_is_located_leaves_after_it(held: HeldBoard) -> None:
    subscription = held.sse._channels().subscription("a")
    with held.open("a", last="epoch-0") as stream:
        emitter = next(iter(held.sse.channel("a").emitters))
        held.publish("a", 1)
        emitter.complete()
        assert not emitter.is_open
        assert stream.ready() == []
        assert emitter in held.sse.channel("a").emitters
        held.broker.start("a")
        assert emitter not in held.sse.channel("a").emitters
        assert texts(stream.ready()) == ["1"]
    assert held.sse.stats()["closed"] == {"completed": 1}
    assert subscription._waiting == {}
    assert held.broker.listeners["a"] == []


def test_stream_ended_with_retry_before_channel_is_located_ends_at_once(held: HeldBoard) -> None:
    with held.open("a") as stream:
        channel_list = held.sse.channel("a").emitters
        stream_of(next(iter(channel_list))).end_with_retry()
        assert stream.ready() == []
        assert (len(channel_list), held.broker.listeners["a"]) == (0, [])


def test_completed_stream_is_released_at_disconnect_before_broker_answers(held: HeldBoard) -> None:
    channel_list = held.sse.channel("a").emitters
    with held.open("a"):
        next(iter(channel_list)).complete()
    assert (len(channel_list), held.broker.listeners["a"]) == (0, [])
    assert held.sse.stats()["closed"] == {"completed": 1}


@pytest.mark.parametrize("last", [None, 0], ids=["live", "catching up"])
def test_stream_completed_after_publish_gets_events_still_to_arrive(held: HeldBoard, last: int | None) -> None:
    ids = held.publish("a", 1, 2)
    with held.open("a") as other:
        held.broker.start("a")
        with held.open("a", last=None if last is None else ids[last]) as stream:
            missed = ["2"] if last is not None else []
            assert texts(stream.ready()) == missed
            emitter = list(held.sse.channel("a").emitters)[-1]
            held.publish("a", 3, 4)
            emitter.complete()
            assert not emitter.is_open
            assert not emitter.try_send("too late")
            assert stream.ready() == []
            held.broker.deliver("a", 1)
            assert texts(stream.ready()) == ["3"]
            held.broker.deliver("a", 1)
            held.publish("a", 5)
            held.broker.deliver("a")
            assert texts(stream.ready()) == ["4"]
        assert texts(other.ready()) == ["3", "4", "5"]


def test_completed_stream_may_get_more_events_than_max_pending() -> None:
    """It is no slow client: the broker has delivered all of that at once."""
    held = HeldBoard(SSE_MAX_PENDING=2)
    with held.open("a") as stream:
        held.broker.start("a")
        emitter = next(iter(held.sse.channel("a").emitters))
        held.publish("a", *range(5))
        emitter.complete()
        held.broker.deliver("a")
        assert texts(stream.ready()) == [*"01234"]
        assert emitter.close_reason is CloseReason.COMPLETED


def test_completed_stream_that_is_revoked_gets_no_later_event(held: HeldBoard) -> None:
    with held.open("a") as stream:
        held.broker.start("a")
        emitter = next(iter(held.sse.channel("a").emitters))
        assert stream.ready() == []
        held.publish("a", 1)
        emitter.complete()
        stream_of(emitter).end_with_retry(drops_pending=True)
        held.broker.deliver("a")
        assert stream.ready() == []
        assert len(held.sse.channel("a").emitters) == 0


def test_list_completed_after_publish_ends_streams_after_its_events(held: HeldBoard) -> None:
    channel_list = held.sse.channel("a").emitters
    with held.open("a") as one, held.open("a", "b") as two:
        held.broker.start("a")
        held.broker.start("b")
        emitters = list(channel_list)
        held.publish("a", 1, 2)
        channel_list.complete()
        held.broker.deliver("a", 1)
        assert all(emitter.is_open for emitter in emitters)
        held.broker.deliver("a")
        until(lambda: not any(emitter.is_open for emitter in emitters), "their ends")
        assert texts(one.ready()) == texts(two.ready()) == ["1", "2"]


@pytest.mark.parametrize("completed", ["another channel", "plain list"])
def test_stream_completed_by_list_gets_events_of_all_its_channels(held: HeldBoard, completed: str) -> None:
    with held.open("a", "b") as stream:
        held.broker.start("a")
        held.broker.start("b")
        assert stream.ready() == []
        emitter = next(iter(held.sse.channel("b").emitters))
        plain = SseEmitters()
        plain.add(emitter)
        held.publish("b", 1)
        (plain if completed == "plain list" else held.sse.channel("a").emitters).complete()
        until(lambda: not emitter.is_open, "its end")
        assert stream.ready() == []
        held.broker.deliver("b")
        assert texts(stream.ready()) == ["1"]
        assert [len(held.sse.channel(name).emitters) for name in "ab"] == [0, 0]


def test_list_completed_during_delivery_ends_after_published_events(board: Board) -> None:
    """With memory://, one thread delivers at a time, and events that arrive meanwhile follow later."""
    channel_list = board.sse.channel("a").emitters
    published = threading.Event()

    def publish_more() -> None:
        board.publish("a", 2)
        channel_list.complete()
        published.set()

    class PublishingListener:
        clients = 0

        def arrived(self, frames: Sequence[Frame]) -> None:
            if frames[0].offset == 1:
                threading.Thread(target=publish_more).start()
                assert published.wait(PATIENCE)

    board.sse._channels().broker.subscribe("a", PublishingListener())  # type: ignore[arg-type]
    with board.open("a") as stream:
        board.publish("a", 1)
        until(lambda: len(channel_list) == 0, "its end")
        assert texts(stream.ready()) == ["1", "2"]


def test_events_delivered_twice_by_broker_reach_client_once(held: HeldBoard) -> None:
    with held.open("a") as stream:
        held.broker.start("a")
        held.publish("a", 1, 2)
        delivered = list(held.broker.undelivered["a"])
        held.broker.deliver("a")
        held.broker.undelivered["a"] = delivered
        held.broker.deliver("a")
        assert texts(stream.ready()) == ["1", "2"]


def test_calls_of_a_former_listener_are_ignored(held: HeldBoard) -> None:
    subscription = held.sse._channels().subscription("a")
    with held.open("a"):
        held.broker.start("a")
        [old] = held.broker.listeners["a"]
    assert (held.broker.listeners["a"], subscription.log) == ([], None)
    with held.open("a") as stream:
        old.started(Start(Log("older", 7, lambda: 0.0), 7))
        assert subscription.log is None
        held.broker.start("a")
        [event_id] = held.publish("a", 1)
        old.arrived([Frame(b"id: epoch-9\ndata: stale\n\n", "message", 9, 12)])
        held.broker.deliver("a")
        assert [(event.data, event.id) for event in stream.ready()] == [("1", event_id)]


def test_broker_reset_ends_streams_with_retry_and_reconnect_gets_gap(held: HeldBoard) -> None:
    with held.open("a") as stream, held.open("a", "b") as other:
        held.broker.start("a")
        held.broker.start("b")
        assert stream.ready() == other.ready() == []
        [last] = held.publish("a", 1)
        held.broker.deliver("a")
        held.broker.logs["a"] = Log("later", 5, lambda: 0.0)
        held.broker.start("a")
        assert texts(other.ready()) == ["1"]
        rest = b"".join(stream.response.iter_encoded()).decode()
        event, closing = rest.split("\n\n")[:-1]
        assert event == f"id: {last}\ndata: 1"
        assert 1500 <= int(closing.removeprefix("retry: ")) <= 6000
    with held.open("a", last=last) as stream:
        held.broker.start("a")
        events = stream.ready()
        held.publish("a", 2)
        held.broker.deliver("a")
        events += stream.ready()
    assert gap_of(events) == {"requested": last, "oldest": "later-6", "newest": "later-5"}
    assert [(event.data, event.id) for event in events[1:]] == [("2", "later-6")]


def test_unsubscribes_if_all_clients_leave_during_subscribe(held: HeldBoard) -> None:
    channel_list = held.sse.channel("a").emitters
    subscribe = held.broker.subscribe

    def leave_meanwhile(channel: str, listener: Listener) -> Start | None:
        for emitter in channel_list:
            emitter.complete()
        return subscribe(channel, listener)

    held.broker.subscribe = leave_meanwhile  # type: ignore[method-assign]
    with held.open("a"):
        pass
    assert (held.broker.listeners["a"], len(channel_list)) == ([], 0)


def test_list_end_in_delivery_reaches_earlier_members_only(
    board: Board, busy: Callable[[], None], rest: Callable[[], None]
) -> None:
    """During the delivery pass, a client connects, and another one, a member before, goes live."""
    channel_list = board.sse.channel("a").emitters
    ids = board.publish("a", 1, 2)
    with open_many(board, 150), board.open("a", last=ids[0]) as there:
        busy()
        channel_list.complete()
        with board.open("a", last=ids[0]) as newcomer:
            board.publish("a", 3)
            assert texts(newcomer.ready()) == ["2", "3"]
            board.publish("a", 4)
            [late] = [each for each in list(channel_list)[-1:] if each.is_open]
            assert late.try_send("by hand"), "it has caught up with its list, and is open"
            assert texts(newcomer.ready()) == ["4", "by hand"]
        first = next(each for each in channel_list if each.last_event_id and each.is_open)
        assert texts(there.ready()) == ["2", "3", "4"], "the end has not reached it yet"
        assert first.is_open
        rest()
        until(lambda: not first.is_open, "its end")
        assert there.ready() == []


def open_many(board: Board, count: int) -> Any:
    stack = ExitStack()
    for _ in range(count):
        stack.enter_context(board.open("a"))
    return stack


@pytest.fixture
def board() -> Board:
    return Board()


def test_replay_of_many_channels_reads_little_more_than_it_writes(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page is as large as the ids of all channels allow, and each channel is read for its share only."""
    names = [f"channel-{number}" for number in range(40)]
    for _ in range(100):
        for name in names:
            board.publish(name, "x" * 200)
    after, read, pieces = Log.after, 0, []

    def counted(*args: Any) -> list[Frame]:
        nonlocal read
        frames = after(*args)
        read += len(frames)
        return frames

    monkeypatch.setattr(Log, "after", counted)
    with board.open(*names, last="0-0") as stream:
        while stream._body.try_fetch():  # the test client has taken the first piece already
            pieces.append(next(stream._body))
    last = str(decode(b"".join(pieces))[-1].id)
    assert {position.offset for position in read_ids(last, 40) or ()} == {100}
    assert 10 < len(pieces) < 50
    assert max(map(len, pieces)) < 1.1 * BATCH_BYTES, "ids grow by a digit"
    assert read < 2 * 4_000


def test_replay_of_channels_of_different_age_keeps_publish_order(board: Board) -> None:
    """All events of one channel are older than all of the other, and far more than its share of a page."""
    board.publish("old", *range(900))
    board.publish("new", *range(900, 1_000))
    events = board.replayed("new", "old", last="0-0")
    assert texts(events[1:]) == [str(number) for number in range(1_000)]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[SseEmitter]:
    """An emitter with much output, each piece of which takes a whole time slice."""
    scheduler, emitter = ManualScheduler(), SseEmitter()
    for module in (direct, wsgi):
        monkeypatch.setattr(module, "SCHEDULER", scheduler)

    def next_output(_stream: Stream, **_: object) -> bytes:
        scheduler.now += 2 * TIME_SLICE_SECONDS
        return b"x"

    monkeypatch.setattr(Stream, "next_output", next_output)
    yield emitter
    emitter.complete()


def test_handed_off_client_with_long_replay_yields_after_a_time_slice(slow: SseEmitter) -> None:
    server, client = socket.socketpair()
    with server, client:
        watch = SOCKET_MONITOR.watch(server.fileno(), ResponseBody(stream_of(slow), b"", {}, "off"))
        writer = SocketWriter(stream_of(slow), server, False, watch, ())
        assert writer.begin(), "there is more to do"
        assert writer.begin()
        assert client.recv(100) == b"x"
        SOCKET_MONITOR.forget(watch)


def test_response_body_with_long_replay_yields_after_a_time_slice(
    slow: SseEmitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    yields: list[None] = []
    monkeypatch.setattr(wsgi, "yield_now", lambda: yields.append(None))
    stream = ResponseBody(stream_of(slow), b": hello\n\n", {}, "off")
    pieces = [next(stream) for _ in range(5)]
    assert len(pieces) - 1 == len(yields)
    stream.close()


@pytest.fixture
def later() -> list[Callable[[], object]]:
    return []


@pytest.fixture
def busy(later: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Keep the background thread from delivering."""
    return lambda: monkeypatch.setattr(SCHEDULER, "call_soon", later.append)


@pytest.fixture
def rest(later: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Let the background thread deliver again."""

    def resume() -> None:
        monkeypatch.undo()
        while later:
            SCHEDULER.call_soon(later.pop(0))

    yield resume
    resume()


def test_ids_match_written_events_if_live_events_come_during_replay(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One channel is live; an event of it arrives after part of the other's log was read, but before it is written."""
    a = board.publish("a", *("x" * 1000 for _ in range(300)))
    b = board.publish("b", 1)
    prepare = Replay.prepare
    published: list[str] = []

    def and_then_publish(replay: Replay) -> bool | None:
        ready = prepare(replay)
        if ready and len(published) < 5:
            published.extend(board.publish("b", "between"))
        return ready

    last = f"{a[0]},{b[0]}"
    with monkeypatch.context() as patch:
        patch.setattr(Replay, "prepare", and_then_publish)
        with board.open("a", "b", last=last) as stream:
            events = stream.ready()
    assert len(published) == 5
    assert [event.data for event in events].count("between") == len(published)
    seen: list[Event] = []
    for event in events:
        seen.append(event)
        if event.data == "between" or len(seen) % 50 == 0:
            assert len(board.replayed("a", "b", last=str(event.id))) == len(events) - len(seen)


def test_ids_continue_after_a_gap_in_one_of_two_channels() -> None:
    board = Board(SSE_HISTORY=100)
    a = board.publish("a", *("x" * 1000 for _ in range(100)))
    b = board.publish("b", 1)
    with board.client.get("/events?channel=a&channel=b", headers={"Last-Event-ID": f"{a[0]},{b[0]}"}) as response:
        pieces = response.iter_encoded()
        next(pieces)
        a += board.publish("a", *range(150))
        board.sse.channel("a").emitters.complete()
        rest = b"".join(pieces).decode()
    blocks = rest.split("\n\n")
    assert blocks[0].startswith("event: gap\n")
    assert blocks[1] == f"id: {moved(a[-100], -1)},{b[0]}"
    assert blocks[2].startswith(f"id: {a[-100]},{b[0]}\n")


def test_hole_that_opens_while_log_is_read_is_a_gap(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(SSE_HISTORY=3)
    ids = board.publish("a", 1, 2, 3)
    after, meanwhile = Log.after, [True]

    def evict_meanwhile(log: Log, *where: int) -> list[Frame]:
        if meanwhile:
            meanwhile.clear()
            ids.extend(board.publish("a", 4, 5))
        return after(log, *where)

    monkeypatch.setattr(Log, "after", evict_meanwhile)
    events = board.replayed("a", last=ids[0])
    assert gap_of(events) == {"requested": ids[0], "oldest": ids[2], "newest": ids[4]}
    assert texts(events[1:]) == ["3", "4", "5"]


def test_publish_during_delivery_leaves_events_to_it_in_order() -> None:
    broker = MemoryBroker()
    inside, resume = threading.Event(), threading.Event()
    delivered: list[tuple[int, str]] = []

    class SlowListener:
        clients = 0

        def started(self, start: Start) -> None: ...

        def arrived(self, frames: Sequence[Frame]) -> None:
            inside.set()
            assert resume.wait(PATIENCE)
            delivered.extend((each.offset, threading.current_thread().name) for each in frames)

    broker.subscribe("a", SlowListener())

    def publish(text: bytes) -> None:
        broker.publish("a", Frame(b"data: %b\n\n" % text, "message"), KEPT)

    first = threading.Thread(target=publish, args=(b"1",))
    first.start()
    assert inside.wait(PATIENCE)
    publish(b"2")
    publish(b"3")
    resume.set()
    first.join(PATIENCE)
    until(lambda: len(delivered) == 3, "the other events")
    assert [offset for offset, _ in delivered] == [1, 2, 3]
    assert {name for _, name in delivered[1:]} == {"sse-scheduler"}, "a publisher does not deliver the events of others"


def test_concurrent_first_and_last_clients_of_a_channel_miss_no_event(board: Board) -> None:
    """A connected client gets every event, though the process subscribes and unsubscribes all the time."""
    stop = threading.Event()
    faults: list[str] = []
    app: Flask = board.app

    def connect_and_leave() -> None:
        while not stop.is_set():
            with board.open("a"):
                pass

    def listen() -> None:
        client = app.test_client()
        for number in range(150):
            with open_stream(client, "/events/a") as stream:
                assert isinstance(stream, OpenStream)
                event_id = board.sse.publish("a", f"{number}")
                received = until(stream.ready, "an event")
                if event_id not in [event.id for event in received]:
                    until(lambda: event_id in [event.id for event in stream.ready()], "the event itself")  # noqa: B023

    threads = [threading.Thread(target=connect_and_leave) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        listen()
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert not faults
    assert isinstance(board.sse._channels(), Channels)
    assert isinstance(board.sse._channels().subscription("a"), ProcessSubscription)


def test_client_gets_event_that_its_own_view_publishes() -> None:
    """Other threads publish without end, faster than it may read; the history holds all of it."""
    board = Board(SSE_HISTORY=10**6, SSE_MAX_PENDING=10**6, SSE_MAX_PENDING_BYTES=10**9)
    stop = threading.Event()

    def noise() -> None:
        while not stop.is_set():
            board.publish("a", "noise")

    @board.app.get("/mine")
    def mine() -> Any:
        emitter = board.sse.channel("a").subscribe()
        board.publish("a", "mine")
        return emitter

    threads = [threading.Thread(target=noise) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(100):
            with open_stream(board.client, "/mine") as stream:
                until(lambda: "mine" in texts(stream.ready()), "its event")
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)


def test_initial_position_excludes_events_that_follow_it(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event arrives once the first of two channels is live, before the position is written."""
    start = [board.publish(name, 0)[0] for name in ("a", "b")]
    go_live = Delivery.go_live
    published: list[str] = []

    def and_publish(delivery: Delivery, member: Any, offset: int) -> bool:
        live = go_live(delivery, member, offset)
        if not published:
            published.extend(board.publish("a", 1))
        return live

    monkeypatch.setattr(Delivery, "go_live", and_publish)
    with board.client.get("/events?channel=a&channel=b") as response:
        pieces = response.iter_encoded()
        blocks = (next(pieces) + next(pieces)).decode().split("\n\n")
    assert blocks[1] == f"id: {start[0]},{start[1]}"
    assert blocks[2] == f"id: {published[0]},{start[1]}\ndata: 1"
