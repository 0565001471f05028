"""The contract of brokers: written once, for any of them. A new broker adds a fixture to ``BROKERS``."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from flask import Flask

from flask_sse_emitters import SSE
from flask_sse_emitters.brokers import GROUP, Bounds, Broker, Frame, Log, Start, make_broker
from flask_sse_emitters.brokers.memory import KEY_SECONDS, MAX_IDLE_CHANNELS, SWEEP_SECONDS, MemoryBroker

from .client import new_name
from .clock import ManualScheduler
from .own_broker import OwnBroker
from .redis_server import RedisServer
from .waiting import PATIENCE, until

KEPT = Bounds(1000, 60.0)


@contextmanager
def memory() -> Iterator[Broker]:
    broker = make_broker("memory://")
    yield broker
    broker.close()


@contextmanager
def redis() -> Iterator[Broker]:
    with RedisServer() as server:
        broker = make_broker(server.url)
        yield broker
        broker.close()


@contextmanager
def own() -> Iterator[Broker]:
    """Make the one that docs/brokers.rst shows: own_broker.py."""
    broker = OwnBroker("own://")
    yield broker
    broker.close()


BROKERS: list[Callable[[], AbstractContextManager[Broker]]] = [memory, redis, own]


@pytest.fixture(params=BROKERS, ids=lambda make: make.__name__)
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    with request.param() as broker:
        yield broker


class Ear:
    """Remembers what it is told."""

    clients = 1

    def __init__(self) -> None:
        self.log: Log | None = None
        self.newest = -1
        self.starts = 0
        self.frames: list[Frame] = []

    def started(self, start: Start) -> None:
        self.log, self.newest = start
        self.starts += 1

    def arrived(self, frames: Sequence[Frame]) -> None:
        self.frames += frames

    @property
    def texts(self) -> list[bytes]:
        return [frame.payload[frame.body :] for frame in self.frames]


def listening(broker: Broker, channel: str) -> Ear:
    ear = Ear()
    subscribed(broker, channel, ear)
    return ear


def subscribed(broker: Broker, channel: str, ear: Ear) -> None:
    start = broker.subscribe(channel, ear)
    if start is not None:
        ear.started(start)
    until(lambda: ear.starts, "the beginning")


def frame(text: object) -> Frame:
    return Frame(b"data: %b\n\n" % str(text).encode(), "message")


def publish(broker: Broker, channel: str, *texts: object, bounds: Bounds = KEPT) -> list[str]:
    return [broker.publish(channel, frame(text), bounds).id for text in texts]


def test_ids_count_a_channels_events_from_where_it_is(broker: Broker) -> None:
    channel = new_name()
    ids = publish(broker, channel, "a", "b", "c")
    epochs, offsets = zip(*(event_id.split("-") for event_id in ids), strict=True)
    assert len(set(epochs)) == 1
    assert [int(offset) for offset in offsets] == list(range(int(offsets[0]), int(offsets[0]) + 3))


def test_who_listens_is_told_what_is_published_from_then_on(broker: Broker) -> None:
    channel = new_name()
    before = publish(broker, channel, "before")
    ear = listening(broker, channel)
    ids = publish(broker, channel, "a", "b")
    until(lambda: len(ear.frames) == 2, "two events")
    assert ear.texts == [b"data: a\n\n", b"data: b\n\n"]
    assert [frame.payload for frame in ear.frames] == [
        b"id: %b\ndata: %b\n\n" % (event_id.encode(), text) for event_id, text in zip(ids, (b"a", b"b"), strict=True)
    ]
    assert ear.log is not None
    assert before == [f"{ear.log.epoch}-{ear.newest}"]
    assert [frame.offset for frame in ear.frames] == [ear.newest + 1, ear.newest + 2]


def test_what_was_published_before_is_in_the_log(broker: Broker) -> None:
    channel = new_name()
    publish(broker, channel, "a", "b")
    ear = listening(broker, channel)
    assert ear.log is not None
    assert ear.newest == ear.log.newest
    log = ear.log
    found = until(lambda: log.after(ear.newest - 2, ear.newest), "the log")
    assert [frame.payload[frame.body :] for frame in found] == [b"data: a\n\n", b"data: b\n\n"]


def test_what_is_told_is_in_the_log_already(broker: Broker) -> None:
    channel = new_name()
    missing: list[Frame] = []

    class Looking(Ear):
        def arrived(self, frames: Sequence[Frame]) -> None:
            super().arrived(frames)
            log = self.log
            assert log is not None
            missing.extend(each for each in frames if log.after(each.offset - 1, each.offset) != [each])

    ear = Looking()
    subscribed(broker, channel, ear)
    publish(broker, channel, *range(100))
    until(lambda: len(ear.frames) == 100, "all events")
    assert not missing


def test_channels_know_nothing_of_each_other(broker: Broker) -> None:
    here, there = new_name(), new_name()
    ear, other = listening(broker, here), listening(broker, there)
    publish(broker, there, "x")
    publish(broker, here, "y")
    until(lambda: ear.frames and other.frames, "both")
    assert (ear.texts, other.texts) == ([b"data: y\n\n"], [b"data: x\n\n"])


def test_many_may_listen_and_each_until_it_stops(broker: Broker) -> None:
    channel = new_name()
    ears = [listening(broker, channel) for _ in range(3)]
    publish(broker, channel, "a")
    until(lambda: all(ear.frames for ear in ears), "the first event")
    broker.unsubscribe(channel, ears[1])
    broker.unsubscribe(channel, ears[1])
    publish(broker, channel, "b")
    until(lambda: len(ears[0].frames) == len(ears[2].frames) == 2, "the second event")
    assert [len(ear.frames) for ear in ears] == [2, 1, 2]


def test_who_never_listened_may_stop(broker: Broker) -> None:
    broker.unsubscribe(new_name(), Ear())


def test_whoever_listens_again_begins_with_what_is_new(broker: Broker) -> None:
    channel = new_name()
    broker.unsubscribe(channel, listening(broker, channel))
    publish(broker, channel, "missed")
    ear = listening(broker, channel)
    publish(broker, channel, "new")
    until(lambda: ear.frames, "an event")
    assert ear.texts == [b"data: new\n\n"]


def test_a_key_makes_one_event_of_many_attempts(broker: Broker) -> None:
    channel = new_name()
    ear = listening(broker, channel)
    first = broker.publish(channel, frame("once"), KEPT, key="k")
    assert first.is_new
    assert broker.publish(channel, frame("again"), KEPT, key="k") == (first.id, False)
    other = broker.publish(channel, frame("other"), KEPT, key="l")
    assert other.id != first.id
    until(lambda: len(ear.frames) == 2, "both events")
    assert ear.texts == [b"data: once\n\n", b"data: other\n\n"]


def test_a_key_is_one_of_its_channel(broker: Broker) -> None:
    here, there = new_name(), new_name()
    ears = [listening(broker, here), listening(broker, there)]
    for channel in (here, there):
        broker.publish(channel, frame(channel), KEPT, key="k")
    until(lambda: all(ear.frames for ear in ears), "both events")


def test_a_key_holds_whoever_comes_first(broker: Broker) -> None:
    channel, ids = new_name(), []
    ear = listening(broker, channel)
    begin = threading.Barrier(8)

    def attempt() -> None:
        begin.wait(PATIENCE)
        ids.append(broker.publish(channel, frame("x"), KEPT, key="k").id)

    in_threads([attempt] * 8)
    publish(broker, channel, "end")
    until(lambda: ear.texts[-1:] == [b"data: end\n\n"], "the end")
    assert (len(ids), len(set(ids)), len(ear.frames)) == (8, 1, 2)


def test_close_disturbs_no_thread_that_publishes(broker: Broker) -> None:
    ids: list[str] = []
    errors: list[Exception] = []
    is_over = threading.Event()

    def publish_on() -> None:
        while not is_over.is_set():
            try:
                ids.extend(publish(broker, "a", "x" * 2_000))
            except Exception as error:
                errors.append(error)

    def has_more(wanted: int) -> bool:
        return bool(errors) or len(ids) >= wanted

    threads = [threading.Thread(target=publish_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        wanted = len(ids) + 20
        until(partial(has_more, wanted), "some events")
        broker.close()
    is_over.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert errors == []
    assert len({*ids}) == len(ids)


def test_no_more_is_kept_than_the_bounds_say(broker: Broker) -> None:
    channel = new_name()
    publish(broker, channel, *range(10), bounds=Bounds(3, 60.0))
    ear = listening(broker, channel)
    assert ear.log is not None
    assert ear.log.oldest == ear.newest - 2
    assert len(ear.log.after(0, ear.newest)) == 3


def test_nothing_may_be_kept_and_all_is_told(broker: Broker) -> None:
    channel = new_name()
    ear = listening(broker, channel)
    publish(broker, channel, *range(10), bounds=Bounds(0, 60.0))
    until(lambda: len(ear.frames) == 10, "all events")
    assert ear.log is not None
    assert (ear.log.oldest, ear.log.after(0, ear.log.newest)) == (ear.log.newest + 1, [])


def test_nothing_is_kept_for_longer_than_the_bounds_say(broker: Broker) -> None:
    channel = new_name()
    publish(broker, channel, "a", bounds=Bounds(10, 0.05))
    ear = listening(broker, channel)
    log = ear.log
    assert log is not None
    until(lambda: log.oldest == log.newest + 1, "the end of its time")
    assert log.after(0, log.newest) == []


@pytest.mark.parametrize("late", [False, True], ids=["who was there", "who comes meanwhile"])
def test_all_hear_the_same_in_one_order_without_a_hole(broker: Broker, late: bool) -> None:
    """Four threads publish; others begin to listen before, or at any moment between."""
    channel = new_name()
    ears = [] if late else [listening(broker, channel) for _ in range(3)]
    running = threading.Event()

    def publisher(number: int) -> None:
        for count in range(500):
            publish(broker, channel, f"{number} {count}")
            if number == 0 and count == 100:
                running.set()

    def come() -> None:
        assert running.wait(PATIENCE)
        ears.extend(listening(broker, channel) for _ in range(10))

    in_threads([*(partial(publisher, number) for number in range(4)), come])
    newest = int(publish(broker, channel, "end")[0].split("-")[1])

    def ended(ear: Ear) -> bool:
        return bool(ear.frames) and ear.frames[-1].offset == newest

    for ear in ears:
        until(partial(ended, ear), "the end")
        # Some may come early, before it was known from where on.
        offsets = [each.offset for each in ear.frames if each.offset > ear.newest]
        assert offsets == list(range(ear.newest + 1, newest + 1))
    by_offset: dict[int, bytes] = {}
    for ear in ears:
        for each in ear.frames:
            assert by_offset.setdefault(each.offset, each.payload) == each.payload
    for number in range(4):
        mine = [text for each in ears[:1] for text in each.texts if text.startswith(b"data: %d " % number)]
        counts = [int(text.split()[2]) for text in mine]
        assert counts == sorted(counts), "one publisher's events keep their order"


# memory:// alone


def test_an_interrupt_of_the_publisher_loses_nothing() -> None:
    """Its own thread tells those who listen."""
    broker = MemoryBroker()
    channel = new_name()
    ear = listening(broker, channel)
    interrupts = [KeyboardInterrupt()]

    class Interrupted(Ear):
        def arrived(self, frames: Sequence[Frame]) -> None:
            if interrupts:
                raise interrupts.pop()
            super().arrived(frames)

    second = Interrupted()
    subscribed(broker, channel, second)
    with suppress(KeyboardInterrupt):
        publish(broker, channel, "a")
    publish(broker, channel, "b")
    until(lambda: len(second.frames) == 2, "both events")
    until(lambda: len(set(ear.frames)) == 2, "both events for the other one, perhaps told twice")


def test_each_brokers_epoch_is_its_own() -> None:
    with memory() as one, memory() as other:
        assert publish(one, "x", "a")[0].split("-")[0] != publish(other, "x", "a")[0].split("-")[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("make", [memory, own], ids=lambda make: make.__name__)
def test_a_forked_child_has_an_epoch_of_its_own_and_none_of_the_clients(
    make: Callable[[], AbstractContextManager[Broker]],
) -> None:
    with make() as broker:
        ear = listening(broker, "x")
        [mine] = publish(broker, "x", "a")
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writer, publish(broker, "x", "b")[0].encode() + b" %d" % len(ear.frames))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        theirs, told = os.read(reader, 100).decode().split()
        os.close(reader)
        os.close(writer)
        assert theirs.split("-")[0] != mine.split("-")[0]
        assert (theirs.split("-")[1], told) == ("1", "1")


def test_a_key_is_forgotten_after_five_minutes(scheduler: ManualScheduler) -> None:
    broker = MemoryBroker(scheduler=scheduler)
    first = broker.publish("x", frame("a"), KEPT, key="k")
    scheduler.pass_time(KEY_SECONDS - 1)
    assert broker.publish("x", frame("a"), KEPT, key="k") == (first.id, False)
    scheduler.pass_time(2)
    assert broker.publish("x", frame("a"), KEPT, key="k").is_new


def test_what_is_too_old_is_let_go_without_anybody_asking(scheduler: ManualScheduler) -> None:
    broker = MemoryBroker(scheduler=scheduler)
    publish(broker, "x", *range(100), bounds=Bounds(1000, 10.0))
    log = broker._records["x"].log
    scheduler.pass_time(SWEEP_SECONDS + 1)
    assert all(each is None for each in log._frames)


def test_idle_channels_are_forgotten_where_they_are_many_and_none_of_their_ids_comes_again(
    scheduler: ManualScheduler,
) -> None:
    broker = MemoryBroker(scheduler=scheduler)
    heard = Ear()
    broker.subscribe("heard", heard)
    ids = set(publish(broker, "first", *range(5), bounds=Bounds(1, 10.0)))
    publish(broker, "heard", "a", bounds=Bounds(1, 10.0))
    for number in range(MAX_IDLE_CHANNELS + 500):
        publish(broker, f"user:{number}", "x", bounds=Bounds(1, 10.0))
    scheduler.pass_time(SWEEP_SECONDS * 2)
    assert len(broker._records) <= MAX_IDLE_CHANNELS
    assert "first" not in broker._records
    assert publish(broker, "first", "again")[0] not in ids
    publish(broker, "heard", "b")
    assert heard.texts == [b"data: a\n\n", b"data: b\n\n"]


# which broker it is


def test_a_scheme_picks_the_broker() -> None:
    assert isinstance(make_broker("memory://"), MemoryBroker)


@pytest.mark.parametrize("url", ["memory://x", "memory:///1"])
def test_memory_takes_nothing_more(url: str) -> None:
    with pytest.raises(ValueError, match="memory:// takes nothing more"):
        make_broker(url)


def test_an_unknown_scheme_is_an_error_that_names_those_that_are_known() -> None:
    with pytest.raises(ValueError, match=f"no broker is known for 'kafka': known schemes are memory.*{GROUP}"):
        make_broker("kafka://localhost")
    app = Flask(__name__)
    app.config["SSE_BROKER_URL"] = "kafka://localhost"
    with pytest.raises(ValueError, match=r"SSE_BROKER_URL.*no broker is known for 'kafka'"):
        SSE(app)


def test_a_third_party_offers_a_broker_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"broker_{new_name()}"
    (tmp_path / f"{name}.py").write_text(
        "from flask_sse_emitters.brokers.memory import MemoryBroker\n"
        "class Theirs(MemoryBroker):\n"
        "    def __init__(self, url):\n"
        "        super().__init__()\n"
        "        self.url = url\n"
    )
    metadata = tmp_path / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\ntheirs = {name}:Theirs\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    app = Flask(__name__)
    app.config["SSE_BROKER_URL"] = "theirs://somewhere"
    sse = SSE(app)
    broker = sse._channels().broker
    assert (type(broker).__name__, getattr(broker, "url", None)) == ("Theirs", "theirs://somewhere")
    assert sse.publish("x", "hello").endswith("-1")


def in_threads(calls: Sequence[Callable[[], object]]) -> None:
    errors: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not errors
    assert not any(thread.is_alive() for thread in threads)


def test_a_channel_that_was_only_ever_asked_for_leaves_nothing() -> None:
    broker = MemoryBroker()
    for number in range(100):
        ear = listening(broker, f"asked:{number}")
        broker.unsubscribe(f"asked:{number}", ear)
    assert broker._records == {}


def test_a_finalizer_that_the_garbage_collector_runs_while_an_event_is_numbered_may_publish() -> None:
    broker = MemoryBroker()
    finalizers = ["finalized"]

    class Clock:
        def __call__(self) -> float:
            if finalizers:
                publish(broker, "x", finalizers.pop())
            return 0.0

    ear = listening(broker, "x")
    broker._records["x"].log._clock = Clock()
    done = threading.Event()

    def publishing() -> None:
        publish(broker, "x", "outer")
        done.set()

    threading.Thread(target=publishing, daemon=True).start()
    assert done.wait(PATIENCE), "no deadlock"
    assert [each.offset for each in ear.frames] == [1, 2]
