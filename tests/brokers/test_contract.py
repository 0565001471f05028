"""The contract of brokers: every broker passes all of this. Add yours to ``BROKERS``."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial

import pytest

from flask_sse_emitters.brokers import Bounds, Broker, Frame, make_broker
from tests.apps.own_broker import OwnBroker
from tests.support.broker_calls import KEPT, RecordingListener, frame, in_threads, listening, publish, subscribed
from tests.support.client import new_name
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, until

#: Makes a broker, as each process does.
Make = Callable[[], Broker]


@contextmanager
def memory() -> Iterator[Make]:
    yield lambda: make_broker("memory://")


@contextmanager
def redis() -> Iterator[Make]:
    with RedisServer() as server:
        yield lambda: make_broker(server.url)


@contextmanager
def own() -> Iterator[Make]:
    """Make the one that docs/brokers.rst shows: own_broker.py."""
    yield lambda: OwnBroker("own://")


#: Each starts what its broker needs, once for all tests, and yields a function that makes the broker.
BROKERS: list[Callable[[], AbstractContextManager[Make]]] = [memory, redis, own]


@pytest.fixture(scope="module", params=BROKERS, ids=lambda start: start.__name__)
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    with request.param() as make:
        yield make


@pytest.fixture
def broker(make: Make) -> Iterator[Broker]:
    with closing(make()) as broker:
        yield broker


def test_broker_ids_count_the_events_of_a_channel(broker: Broker) -> None:
    channel = new_name()
    ids = publish(broker, channel, "a", "b", "c")
    epochs, offsets = zip(*(event_id.split("-") for event_id in ids), strict=True)
    assert len(set(epochs)) == 1
    assert [int(offset) for offset in offsets] == list(range(int(offsets[0]), int(offsets[0]) + 3))


def test_broker_listener_receives_what_is_published_after_it_subscribed(broker: Broker) -> None:
    channel = new_name()
    before = publish(broker, channel, "before")
    listener = listening(broker, channel)
    ids = publish(broker, channel, "a", "b")
    until(lambda: len(listener.frames) == 2, "two events")
    assert listener.texts == [b"data: a\n\n", b"data: b\n\n"]
    assert [frame.payload for frame in listener.frames] == [
        b"id: %b\ndata: %b\n\n" % (event_id.encode(), text) for event_id, text in zip(ids, (b"a", b"b"), strict=True)
    ]
    assert listener.log is not None
    assert before == [f"{listener.log.epoch}-{listener.newest}"]
    assert [frame.offset for frame in listener.frames] == [listener.newest + 1, listener.newest + 2]


def test_broker_log_has_what_was_published_before_the_subscription(broker: Broker) -> None:
    channel = new_name()
    publish(broker, channel, "a", "b")
    listener = listening(broker, channel)
    assert listener.log is not None
    assert listener.newest == listener.log.newest
    log = listener.log
    found = until(lambda: log.after(listener.newest - 2, listener.newest), "the log")
    assert [frame.payload[frame.body :] for frame in found] == [b"data: a\n\n", b"data: b\n\n"]


def test_broker_event_is_in_the_log_before_it_is_delivered(broker: Broker) -> None:
    channel = new_name()
    missing: list[Frame] = []

    class Looking(RecordingListener):
        def arrived(self, frames: Sequence[Frame]) -> None:
            super().arrived(frames)
            log = self.log
            assert log is not None
            missing.extend(each for each in frames if log.after(each.offset - 1, each.offset) != [each])

    listener = Looking()
    subscribed(broker, channel, listener)
    publish(broker, channel, *range(100))
    until(lambda: len(listener.frames) == 100, "all events")
    assert not missing


def test_broker_channels_are_independent(broker: Broker) -> None:
    here, there = new_name(), new_name()
    listener, other = listening(broker, here), listening(broker, there)
    publish(broker, there, "x")
    publish(broker, here, "y")
    until(lambda: listener.frames and other.frames, "both")
    assert (listener.texts, other.texts) == ([b"data: y\n\n"], [b"data: x\n\n"])


def test_broker_delivers_to_each_listener_until_it_unsubscribes(broker: Broker) -> None:
    channel = new_name()
    listeners = [listening(broker, channel) for _ in range(3)]
    publish(broker, channel, "a")
    until(lambda: all(listener.frames for listener in listeners), "the first event")
    broker.unsubscribe(channel, listeners[1])
    broker.unsubscribe(channel, listeners[1])
    publish(broker, channel, "b")
    until(lambda: len(listeners[0].frames) == len(listeners[2].frames) == 2, "the second event")
    assert [len(listener.frames) for listener in listeners] == [2, 1, 2]


def test_broker_unsubscribe_without_a_subscription_is_harmless(broker: Broker) -> None:
    channel = new_name()
    broker.unsubscribe(channel, RecordingListener())
    listener = listening(broker, channel)
    publish(broker, channel, "after")
    until(lambda: listener.frames, "an event")
    assert listener.texts == [b"data: after\n\n"]


def test_broker_new_subscription_begins_with_new_events(broker: Broker) -> None:
    channel = new_name()
    broker.unsubscribe(channel, listening(broker, channel))
    publish(broker, channel, "missed")
    listener = listening(broker, channel)
    publish(broker, channel, "new")
    until(lambda: listener.frames, "an event")
    assert listener.texts == [b"data: new\n\n"]


def test_broker_key_makes_one_event_of_many_attempts(broker: Broker) -> None:
    channel = new_name()
    listener = listening(broker, channel)
    first = broker.publish(channel, frame("once"), KEPT, key="k")
    assert first.is_new
    assert broker.publish(channel, frame("again"), KEPT, key="k") == (first.id, False)
    other = broker.publish(channel, frame("other"), KEPT, key="l")
    assert other.id != first.id
    until(lambda: len(listener.frames) == 2, "both events")
    assert listener.texts == [b"data: once\n\n", b"data: other\n\n"]


def test_broker_key_belongs_to_one_channel(broker: Broker) -> None:
    here, there = new_name(), new_name()
    listeners = [listening(broker, here), listening(broker, there)]
    for channel in (here, there):
        broker.publish(channel, frame(channel), KEPT, key="k")
    until(lambda: all(listener.frames for listener in listeners), "both events")


def test_broker_key_makes_one_event_of_concurrent_attempts(broker: Broker) -> None:
    channel, ids = new_name(), []
    listener = listening(broker, channel)
    begin = threading.Barrier(8)

    def attempt() -> None:
        begin.wait(PATIENCE)
        ids.append(broker.publish(channel, frame("x"), KEPT, key="k").id)

    in_threads([attempt] * 8)
    publish(broker, channel, "end")
    until(lambda: listener.texts[-1:] == [b"data: end\n\n"], "the end")
    assert (len(ids), len(set(ids)), len(listener.frames)) == (8, 1, 2)


def test_broker_close_disturbs_no_thread_that_publishes(broker: Broker) -> None:
    channel = new_name()
    ids: list[str] = []
    errors: list[Exception] = []
    is_over = threading.Event()

    def publish_on() -> None:
        while not is_over.is_set():
            try:
                ids.extend(publish(broker, channel, "x" * 2_000))
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


def test_broker_keeps_no_more_events_than_the_bounds_allow(broker: Broker) -> None:
    channel = new_name()
    publish(broker, channel, *range(10), bounds=Bounds(3, 60.0))
    listener = listening(broker, channel)
    assert listener.log is not None
    assert listener.log.oldest == listener.newest - 2
    assert len(listener.log.after(0, listener.newest)) == 3


def test_broker_that_keeps_no_events_still_delivers_all(broker: Broker) -> None:
    channel = new_name()
    listener = listening(broker, channel)
    publish(broker, channel, *range(10), bounds=Bounds(0, 60.0))
    until(lambda: len(listener.frames) == 10, "all events")
    assert listener.log is not None
    assert (listener.log.oldest, listener.log.after(0, listener.log.newest)) == (listener.log.newest + 1, [])


def test_broker_keeps_no_event_longer_than_the_bounds_allow(broker: Broker) -> None:
    channel = new_name()
    publish(broker, channel, "a", bounds=Bounds(10, 0.05))
    listener = listening(broker, channel)
    log = listener.log
    assert log is not None
    until(lambda: log.oldest == log.newest + 1, "the end of its time")
    assert log.after(0, log.newest) == []


@pytest.mark.parametrize("late", [False, True], ids=["subscribed before", "subscribed meanwhile"])
def test_broker_listeners_receive_the_same_events_in_one_order_without_a_hole(broker: Broker, late: bool) -> None:
    """Four threads publish; listeners subscribe before, or at any moment meanwhile."""
    channel = new_name()
    listeners = [] if late else [listening(broker, channel) for _ in range(3)]
    running = threading.Event()

    def publisher(number: int) -> None:
        for count in range(500):
            publish(broker, channel, f"{number} {count}")
            if number == 0 and count == 100:
                running.set()

    def come() -> None:
        assert running.wait(PATIENCE)
        listeners.extend(listening(broker, channel) for _ in range(10))

    in_threads([*(partial(publisher, number) for number in range(4)), come])
    newest = int(publish(broker, channel, "end")[0].split("-")[1])

    def ended(listener: RecordingListener) -> bool:
        return bool(listener.frames) and listener.frames[-1].offset == newest

    for listener in listeners:
        until(partial(ended, listener), "the end")
        # Some may arrive early, before the broker has answered where the channel is.
        offsets = [each.offset for each in listener.frames if each.offset > listener.newest]
        assert offsets == list(range(listener.newest + 1, newest + 1))
    by_offset: dict[int, bytes] = {}
    for listener in listeners:
        for each in listener.frames:
            assert by_offset.setdefault(each.offset, each.payload) == each.payload
    for number in range(4):
        mine = [text for each in listeners[:1] for text in each.texts if text.startswith(b"data: %d " % number)]
        counts = [int(text.split()[2]) for text in mine]
        assert counts == sorted(counts), "one publisher's events keep their order"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_broker_after_fork_publishes_other_ids_and_has_no_listeners(broker: Broker) -> None:
    channel = new_name()
    listener = listening(broker, channel)
    [mine] = publish(broker, channel, "a")
    until(lambda: listener.frames, "the event")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            own = listening(broker, channel)
            [theirs] = publish(broker, channel, "b")
            until(lambda: own.frames, "its own event")
            os.write(writer, f"{theirs} {len(own.frames)} {len(listener.frames)}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    theirs, received, received_by_parents = os.read(reader, 100).decode().split()
    os.close(reader)
    os.waitpid(child, 0)
    assert theirs != mine
    assert (received, received_by_parents) == ("1", "1")
    if broker.is_shared:
        until(lambda: len(listener.frames) == 2, "the child's event")
    else:
        assert publish(broker, channel, "c") != [theirs], "each process numbers its own"
