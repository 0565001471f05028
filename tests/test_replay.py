"""The seam between what is read from logs and what lists bring, with every step of the broker in the test's hands."""

from __future__ import annotations

import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask

from flask_sse_emitters import CloseReason, Event, SseEmitter, SseEmitters
from flask_sse_emitters.broadcast.delivery import Delivery
from flask_sse_emitters.brokers import Broker, Listener, Published, Start
from flask_sse_emitters.brokers.event_ids import read_ids
from flask_sse_emitters.brokers.event_log import Bounds, Log
from flask_sse_emitters.brokers.memory import MemoryBroker
from flask_sse_emitters.channels.registry import Channels
from flask_sse_emitters.channels.replay.machine import Replay
from flask_sse_emitters.channels.subscription import ChannelSubscription
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

from .clock import ManualScheduler
from .test_channels import Board, gap_of, moved, texts
from .waiting import PATIENCE, until

KEPT = Bounds(1000, 0.0)


class HeldBroker(Broker):
    """Tells nobody anything until the test says so, as one at the other end of a slow line."""

    def __init__(self) -> None:
        self.logs: dict[str, Log] = {}
        self.listeners: defaultdict[str, list[Listener]] = defaultdict(list)
        self.untold: defaultdict[str, list[Frame]] = defaultdict(list)
        self.looks: defaultdict[str, list[Callable[[], object]]] = defaultdict(list)
        self.started: set[str] = set()

    def publish(self, channel: str, frame: Frame, bounds: Bounds | None, _key: str | None = None) -> Published:
        log = self.log(channel)
        with log.guard:
            stamped = log.append(frame, bounds or KEPT)
        self.untold[channel].append(stamped)
        return Published(f"{log.epoch}-{stamped.offset}", is_new=True)

    def subscribe(self, channel: str, listener: Listener) -> Start | None:
        self.listeners[channel].append(listener)
        return None

    def unsubscribe(self, channel: str, listener: Listener) -> None:
        if listener in self.listeners[channel]:
            self.listeners[channel].remove(listener)
        if not self.listeners[channel]:
            self.started.discard(channel)

    def look_again(self, channel: str, done: Callable[[], object]) -> None:
        self.looks[channel].append(done)
        self._answer(channel)

    def close(self) -> None: ...

    def log(self, channel: str) -> Log:
        return self.logs.setdefault(channel, Log("epoch", 0, lambda: 0.0))

    def start(self, channel: str) -> None:
        self.untold[channel].clear()
        for each in list(self.listeners[channel]):
            each.started(Start(self.log(channel), self.log(channel).newest))
        self.started.add(channel)
        self._answer(channel)

    def tell(self, channel: str, most: int = 1000) -> None:
        told = self.untold[channel][:most]
        for each in list(self.listeners[channel]):
            each.arrived(told)
        del self.untold[channel][:most]
        self._answer(channel)

    def _answer(self, channel: str) -> None:
        """Call back those who wait until all has been told."""
        if channel in self.started and not self.untold[channel]:
            looks, self.looks[channel] = self.looks[channel], []
            for done in looks:
                done()


class HeldBoard(Board):
    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.broker = HeldBroker()
        self.channels = self.sse._channels()
        self.channels.broker = self.broker


@pytest.fixture
def held() -> HeldBoard:
    return HeldBoard()


def test_a_client_waits_for_its_channels_to_be_known_and_hears_nothing_meanwhile(held: HeldBoard) -> None:
    with held.open("a", "b") as stream:
        held.publish("a", 1)
        assert stream.ready() == []
        held.broker.start("a")
        held.publish("a", 2)
        held.broker.tell("a")
        assert stream.ready() == []
        held.broker.start("b")
        events = stream.ready()
        assert texts(events) == ["2"], "after what was known when the channel was"
        assert [event.id for event in events] == ["epoch-2,epoch-0"]
        held.publish("b", 3)
        held.broker.tell("b")
        assert [(event.data, event.id) for event in stream.ready()] == [("3", "epoch-2,epoch-1")]


def test_a_client_that_comes_back_before_its_channel_is_known_gets_all_it_missed_then(held: HeldBoard) -> None:
    ids = held.publish("a", 1, 2, 3)
    with held.open("a", last=ids[0]) as stream:
        assert stream.ready() == []
        held.broker.start("a")
        assert texts(stream.ready()) == ["2", "3"]


def test_a_client_that_is_ahead_of_this_process_waits_until_it_has_caught_up(held: HeldBoard) -> None:
    """Another process told it sooner."""
    held.publish("a", 1)
    with held.open("a") as other:
        held.broker.start("a")
        ids = held.publish("a", 2, 3, 4)
        with held.open("a", last=ids[1]) as stream:
            assert stream.ready() == []
            held.broker.tell("a", 1)
            assert (texts(other.ready()), stream.ready()) == (["2"], [])
            held.broker.tell("a", 1)
            assert (texts(other.ready()), stream.ready()) == (["3"], [])
            held.publish("a", 5)
            held.broker.tell("a")
            assert (texts(other.ready()), texts(stream.ready())) == (["4", "5"], ["4", "5"])


def test_what_is_told_before_a_channel_is_known_is_told_after_it_and_once(held: HeldBoard) -> None:
    held.publish("a", 1)
    with held.open("a") as stream:
        held.publish("a", 2)
        held.broker.tell("a")
        [ear] = held.broker.listeners["a"]
        ear.started(Start(held.broker.log("a"), 1))
        held.publish("a", 3)
        held.broker.tell("a")
        assert texts(stream.ready()) == ["2", "3"]


def test_who_is_put_in_the_list_by_hand_is_served_from_when_the_channel_is_known(held: HeldBoard) -> None:
    @held.app.get("/mine")
    def mine() -> Any:
        return held.sse.channel("a").emitters.add(SseEmitter())

    with open_stream(held.client, "/mine") as stream:
        held.publish("a", 1)
        held.broker.tell("a")
        [ear] = held.broker.listeners["a"]
        ear.started(Start(held.broker.log("a"), 0))
        held.publish("a", 2)
        held.broker.tell("a")
        assert texts(stream.ready()) == ["1", "2"]


def test_stream_completed_before_its_channel_is_known_leaves_once_it_is(held: HeldBoard) -> None:
    feed = held.sse._channels().subscription("a")
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
    assert feed._waiting == {}
    assert held.broker.listeners["a"] == []


def test_stream_sent_back_before_its_channel_is_known_ends_at_once(held: HeldBoard) -> None:
    with held.open("a") as stream:
        feed = held.sse.channel("a").emitters
        stream_of(next(iter(feed))).end_with_retry()
        assert stream.ready() == []
        assert (len(feed), held.broker.listeners["a"]) == (0, [])


def test_completed_stream_of_which_the_client_leaves_is_let_go_before_the_broker_answers(held: HeldBoard) -> None:
    feed = held.sse.channel("a").emitters
    with held.open("a"):
        next(iter(feed)).complete()
    assert (len(feed), held.broker.listeners["a"]) == (0, [])
    assert held.sse.stats()["closed"] == {"completed": 1}


@pytest.mark.parametrize("last", [None, 0], ids=["live", "catching up"])
def test_stream_completed_after_publish_gets_what_its_process_was_not_told_yet(
    held: HeldBoard, last: int | None
) -> None:
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
            held.broker.tell("a", 1)
            assert texts(stream.ready()) == ["3"]
            held.broker.tell("a", 1)
            held.publish("a", 5)
            held.broker.tell("a")
            assert texts(stream.ready()) == ["4"]
        assert texts(other.ready()) == ["3", "4", "5"]


def test_completed_stream_gets_more_than_its_bounds_allow_pending() -> None:
    """It is no slow client: the broker has told all of that in one answer."""
    held = HeldBoard(SSE_MAX_PENDING=2)
    with held.open("a") as stream:
        held.broker.start("a")
        emitter = next(iter(held.sse.channel("a").emitters))
        held.publish("a", *range(5))
        emitter.complete()
        held.broker.tell("a")
        assert texts(stream.ready()) == [*"01234"]
        assert emitter.close_reason is CloseReason.COMPLETED


def test_completed_stream_that_is_revoked_meanwhile_gets_nothing_more(held: HeldBoard) -> None:
    with held.open("a") as stream:
        held.broker.start("a")
        emitter = next(iter(held.sse.channel("a").emitters))
        assert stream.ready() == []
        held.publish("a", 1)
        emitter.complete()
        stream_of(emitter).end_with_retry(drops_pending=True)
        held.broker.tell("a")
        assert stream.ready() == []
        assert len(held.sse.channel("a").emitters) == 0


def test_list_completed_after_publish_ends_streams_after_what_was_published(held: HeldBoard) -> None:
    feed = held.sse.channel("a").emitters
    with held.open("a") as one, held.open("a", "b") as two:
        held.broker.start("a")
        held.broker.start("b")
        emitters = list(feed)
        held.publish("a", 1, 2)
        feed.complete()
        held.broker.tell("a", 1)
        assert all(emitter.is_open for emitter in emitters)
        held.broker.tell("a")
        until(lambda: not any(emitter.is_open for emitter in emitters), "their ends")
        assert texts(one.ready()) == texts(two.ready()) == ["1", "2"]


@pytest.mark.parametrize("completed", ["another channel", "plain list"])
def test_stream_completed_with_a_list_gets_what_was_published_to_its_channels(held: HeldBoard, completed: str) -> None:
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
        held.broker.tell("b")
        assert texts(stream.ready()) == ["1"]
        assert [len(held.sse.channel(name).emitters) for name in "ab"] == [0, 0]


def test_list_completed_while_another_thread_tells_ends_after_what_was_published(board: Board) -> None:
    """On memory:// one thread tells at a time, and leaves what comes meanwhile to later."""
    feed = board.sse.channel("a").emitters
    published = threading.Event()

    def publish_more() -> None:
        board.publish("a", 2)
        feed.complete()
        published.set()

    class Amid:
        clients = 0

        def arrived(self, frames: Sequence[Frame]) -> None:
            if frames[0].offset == 1:
                threading.Thread(target=publish_more).start()
                assert published.wait(PATIENCE)

    board.sse._channels().broker.subscribe("a", Amid())  # type: ignore[arg-type]
    with board.open("a") as stream:
        board.publish("a", 1)
        until(lambda: len(feed) == 0, "its end")
        assert texts(stream.ready()) == ["1", "2"]


def test_what_is_told_twice_is_put_in_once(held: HeldBoard) -> None:
    with held.open("a") as stream:
        held.broker.start("a")
        held.publish("a", 1, 2)
        told = list(held.broker.untold["a"])
        held.broker.tell("a")
        held.broker.untold["a"] = told
        held.broker.tell("a")
        assert texts(stream.ready()) == ["1", "2"]


def test_one_that_no_longer_listens_is_not_listened_to(held: HeldBoard) -> None:
    feed = held.sse._channels().subscription("a")
    with held.open("a"):
        held.broker.start("a")
        [old] = held.broker.listeners["a"]
    assert (held.broker.listeners["a"], feed.log) == ([], None)
    with held.open("a") as stream:
        old.started(Start(Log("older", 7, lambda: 0.0), 7))
        assert feed.log is None
        held.broker.start("a")
        [event_id] = held.publish("a", 1)
        old.arrived([Frame(b"id: epoch-9\ndata: stale\n\n", "message", 9, 12)])
        held.broker.tell("a")
        assert [(event.data, event.id) for event in stream.ready()] == [("1", event_id)]


def test_where_the_broker_begins_anew_clients_are_sent_back_and_told_of_the_gap(held: HeldBoard) -> None:
    with held.open("a") as stream, held.open("a", "b") as other:
        held.broker.start("a")
        held.broker.start("b")
        assert stream.ready() == other.ready() == []
        [last] = held.publish("a", 1)
        held.broker.tell("a")
        held.broker.logs["a"] = Log("later", 5, lambda: 0.0)
        held.broker.start("a")
        assert texts(other.ready()) == ["1"]
        rest = b"".join(stream.response.iter_encoded()).decode()
        event, farewell = rest.split("\n\n")[:-1]
        assert event == f"id: {last}\ndata: 1"
        assert 1500 <= int(farewell.removeprefix("retry: ")) <= 6000
    with held.open("a", last=last) as stream:
        held.broker.start("a")
        events = stream.ready()
        held.publish("a", 2)
        held.broker.tell("a")
        events += stream.ready()
    assert gap_of(events) == {"requested": last, "oldest": "later-6", "newest": "later-5"}
    assert [(event.data, event.id) for event in events[1:]] == [("2", "later-6")]


def test_where_all_leave_while_the_process_begins_to_listen_it_stops(held: HeldBoard) -> None:
    feed = held.sse.channel("a").emitters
    subscribe = held.broker.subscribe

    def leave_meanwhile(channel: str, listener: Listener) -> Start | None:
        for emitter in feed:
            emitter.complete()
        return subscribe(channel, listener)

    held.broker.subscribe = leave_meanwhile  # type: ignore[method-assign]
    with held.open("a"):
        pass
    assert (held.broker.listeners["a"], len(feed)) == ([], 0)


def test_an_end_of_the_list_comes_to_those_who_were_there_and_to_nobody_else(
    board: Board, busy: Callable[[], None], rest: Callable[[], None]
) -> None:
    """While others are still being told of it, somebody comes, and somebody who was there goes live."""
    feed = board.sse.channel("a").emitters
    ids = board.publish("a", 1, 2)
    with open_many(board, 150), board.open("a", last=ids[0]) as there:
        busy()
        feed.complete()
        with board.open("a", last=ids[0]) as newcomer:
            board.publish("a", 3)
            assert texts(newcomer.ready()) == ["2", "3"]
            board.publish("a", 4)
            [late] = [each for each in list(feed)[-1:] if each.is_open]
            assert late.try_send("by hand"), "it catches up with its list, and has not ended"
            assert texts(newcomer.ready()) == ["4", "by hand"]
        first = next(each for each in feed if each.last_event_id and each.is_open)
        assert texts(there.ready()) == ["2", "3", "4"], "the end has not come to it yet"
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


def test_replay_of_many_channels_reads_little_more_than_it_gives(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece is as large as it may be with the ids of all channels, and of each channel its share is read."""
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
        while stream._body.try_fetch():  # the test client has taken the first piece by itself
            pieces.append(next(stream._body))
    last = str(decode(b"".join(pieces))[-1].id)
    assert {position.offset for position in read_ids(last, 40) or ()} == {100}
    assert 10 < len(pieces) < 50
    assert max(map(len, pieces)) < 1.1 * BATCH_BYTES, "ids grow by a digit"
    assert read < 2 * 4_000


def test_replay_of_channels_of_different_ages_keeps_their_order(board: Board) -> None:
    """All of one channel is older than all of the other, and much more than its share of a piece."""
    board.publish("old", *range(900))
    board.publish("new", *range(900, 1_000))
    events = board.replayed("new", "old", last="0-0")
    assert texts(events[1:]) == [str(number) for number in range(1_000)]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[SseEmitter]:
    """An emitter with much to give, each piece of which takes a whole slice of time."""
    scheduler, emitter = ManualScheduler(), SseEmitter()
    for module in (direct, wsgi):
        monkeypatch.setattr(module, "SCHEDULER", scheduler)

    def next_output(_stream: Stream, **_: object) -> bytes:
        scheduler.now += 2 * TIME_SLICE_SECONDS
        return b"x"

    monkeypatch.setattr(Stream, "next_output", next_output)
    yield emitter
    emitter.complete()


def test_handed_off_client_with_much_to_get_has_others_served_after_a_slice(slow: SseEmitter) -> None:
    server, client = socket.socketpair()
    with server, client:
        watch = SOCKET_MONITOR.watch(server.fileno(), ResponseBody(stream_of(slow), b"", {}, "off"))
        outlet = SocketWriter(stream_of(slow), server, False, watch, ())
        assert outlet.begin(), "there is more to do"
        assert outlet.begin()
        assert client.recv(100) == b"x"
        SOCKET_MONITOR.forget(watch)


def test_stream_with_much_to_give_has_others_run_after_a_slice(
    slow: SseEmitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_way: list[None] = []
    monkeypatch.setattr(wsgi, "yield_now", lambda: given_way.append(None))
    stream = ResponseBody(stream_of(slow), b": hello\n\n", {}, "off")
    pieces = [next(stream) for _ in range(5)]
    assert len(pieces) - 1 == len(given_way)
    stream.close()


@pytest.fixture
def later() -> list[Callable[[], object]]:
    return []


@pytest.fixture
def busy(later: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have the background be at something else."""
    return lambda: monkeypatch.setattr(SCHEDULER, "call_soon", later.append)


@pytest.fixture
def rest(later: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Have it go on."""

    def go_on() -> None:
        monkeypatch.undo()
        while later:
            SCHEDULER.call_soon(later.pop(0))

    yield go_on
    go_on()


def test_ids_say_what_was_written_though_lists_bring_something_between(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One channel is live; an event of it comes after some of the other's log was read, and before that is written."""
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


def test_after_a_gap_in_one_of_many_channels_ids_go_on_from_there() -> None:
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


def test_a_hole_that_opens_while_the_log_is_read_is_announced(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_whoever_publishes_while_others_are_told_leaves_it_to_them_and_order_holds() -> None:
    broker = MemoryBroker()
    inside, go_on = threading.Event(), threading.Event()
    told: list[tuple[int, str]] = []

    class Slow:
        clients = 0

        def started(self, start: Start) -> None: ...

        def arrived(self, frames: Sequence[Frame]) -> None:
            inside.set()
            assert go_on.wait(PATIENCE)
            told.extend((each.offset, threading.current_thread().name) for each in frames)

    broker.subscribe("a", Slow())

    def publish(text: bytes) -> None:
        broker.publish("a", Frame(b"data: %b\n\n" % text, "message"), KEPT)

    first = threading.Thread(target=publish, args=(b"1",))
    first.start()
    assert inside.wait(PATIENCE)
    publish(b"2")
    publish(b"3")
    go_on.set()
    first.join(PATIENCE)
    until(lambda: len(told) == 3, "the others")
    assert [offset for offset, _ in told] == [1, 2, 3]
    assert {name for _, name in told[1:]} == {"sse-scheduler"}, "nobody is held by what others publish"


def test_the_last_client_and_the_first_may_come_and_go_at_once(board: Board) -> None:
    """Whoever is there hears everything, though the process begins and stops to listen all the time."""
    stop = threading.Event()
    faults: list[str] = []
    app: Flask = board.app

    def come_and_go() -> None:
        while not stop.is_set():
            with board.open("a"):
                pass

    def listen() -> None:
        client = app.test_client()
        for number in range(150):
            with open_stream(client, "/events/a") as stream:
                assert isinstance(stream, OpenStream)
                event_id = board.sse.publish("a", f"{number}")
                heard = until(stream.ready, "an event")
                if event_id not in [event.id for event in heard]:
                    until(lambda: event_id in [event.id for event in stream.ready()], "the event itself")  # noqa: B023

    threads = [threading.Thread(target=come_and_go) for _ in range(2)]
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
    assert isinstance(board.sse._channels().subscription("a"), ChannelSubscription)


def test_a_client_hears_of_everything_that_its_own_view_publishes() -> None:
    """While others publish without end, and faster than it may get to read; as long as the history has it."""
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


def test_the_position_at_the_beginning_has_nothing_that_comes_after_it(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event comes as soon as the first of two channels is live, and before the position is written."""
    start = [board.publish(name, 0)[0] for name in ("a", "b")]
    go_live = Delivery.go_live
    published: list[str] = []

    def and_publish(feed: Delivery, member: Any, offset: int) -> bool:
        live = go_live(feed, member, offset)
        if not published:
            published.extend(board.publish("a", 1))
        return live

    monkeypatch.setattr(Delivery, "go_live", and_publish)
    with board.client.get("/events?channel=a&channel=b") as response:
        pieces = response.iter_encoded()
        blocks = (next(pieces) + next(pieces)).decode().split("\n\n")
    assert blocks[1] == f"id: {start[0]},{start[1]}"
    assert blocks[2] == f"id: {published[0]},{start[1]}\ndata: 1"
