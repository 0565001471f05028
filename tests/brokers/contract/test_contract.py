"""The contract of brokers: every broker passes all of this. See :mod:`.brokers`."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import closing
from functools import partial

import pytest

from flask_sse_emitters.brokers import Bounds, Broker, Frame
from tests.apps.own_broker import OwnBroker
from tests.support.brokers.broker_calls import (
    KEPT,
    RecordingListener,
    frame,
    in_threads,
    listening,
    publish,
    subscribed,
)
from tests.support.client import new_name
from tests.support.waiting import PATIENCE, until


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
    log = listening(broker, channel).log
    assert log is not None
    found = until(lambda: log.after(log.newest - 2, log.newest), "the log")
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


def test_broker_delivers_to_each_listener_until_it_unsubscribes(broker: Broker) -> None:
    channel = new_name()
    broker.unsubscribe(channel, RecordingListener())  # it has no subscription, so this does nothing
    listeners = [listening(broker, channel) for _ in range(3)]
    publish(broker, channel, "a")
    until(lambda: all(listener.frames for listener in listeners), "the first event")
    for _ in range(2):
        broker.unsubscribe(channel, listeners[1])
    publish(broker, channel, "b")
    until(lambda: len(listeners[0].frames) == len(listeners[2].frames) == 2, "the second event")
    assert [len(listener.frames) for listener in listeners] == [2, 1, 2]
    for listener in listeners:
        broker.unsubscribe(channel, listener)
    publish(broker, channel, "missed")
    late = listening(broker, channel)
    publish(broker, channel, "new")
    until(lambda: late.frames, "an event")
    assert late.texts == [b"data: new\n\n"]


def test_broker_key_makes_one_event_of_many_attempts(broker: Broker) -> None:
    """Also of concurrent ones; another channel has its own keys."""
    here, there = new_name(), new_name()
    listener, other = listening(broker, here), listening(broker, there)
    first = broker.publish(here, frame("once"), KEPT, key="k")
    assert first.is_new
    assert broker.publish(here, frame("again"), KEPT, key="k") == (first.id, False)
    assert broker.publish(here, frame("other"), KEPT, key="l").id != first.id
    begin, ids = threading.Barrier(8), []

    def attempt() -> None:
        begin.wait(PATIENCE)
        ids.append(broker.publish(there, frame("there"), KEPT, key="k").id)

    in_threads([attempt] * 8)
    assert (len(ids), len({*ids})) == (8, 1)
    for channel in (here, there):
        publish(broker, channel, "end")
    until(lambda: len(listener.frames) >= 3 and len(other.frames) >= 2, "the end of both")
    assert listener.texts == [b"data: once\n\n", b"data: other\n\n", b"data: end\n\n"]
    assert other.texts == [b"data: there\n\n", b"data: end\n\n"]


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


@pytest.mark.parametrize("events", [0, 3])
def test_broker_keeps_no_more_events_than_the_bounds_allow(broker: Broker, events: int) -> None:
    channel = new_name()
    listener = listening(broker, channel)
    publish(broker, channel, *range(10), bounds=Bounds(events, 60.0))
    until(lambda: len(listener.frames) == 10, "all events, whatever is kept")
    late = listening(broker, channel)
    for log in (listener.log, late.log):
        assert log is not None
        assert log.oldest == log.newest - events + 1
        assert len(log.after(0, log.newest)) == events


def test_broker_keeps_no_event_longer_than_the_bounds_allow(broker: Broker) -> None:
    channel = new_name()
    publish(broker, channel, "a", bounds=Bounds(10, 0.05))
    listener = listening(broker, channel)
    log = listener.log
    assert log is not None
    until(lambda: log.oldest == log.newest + 1, "the end of its time")
    assert log.after(0, log.newest) == []


@pytest.mark.parametrize("late", [False, True], ids=["subscribed before", "subscribed meanwhile"])
def test_broker_listeners_receive_the_same_events_in_one_order(broker: Broker, late: bool) -> None:
    """Four threads publish; listeners subscribe before, or at any moment meanwhile."""
    channel = new_name()
    listeners = [] if late else [listening(broker, channel) for _ in range(3)]
    running = threading.Event()

    def publisher(number: int) -> None:
        for count in range(250):
            publish(broker, channel, f"{number} {count}")
            if number == 0 and count == 50:
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


def test_broker_of_your_own_says_that_it_knows_no_members() -> None:
    with closing(OwnBroker("own://")) as broker:
        for call in (
            lambda: broker.renew_members("", PATIENCE),
            lambda: broker.tell_members("", []),
            lambda: broker.members("a"),
        ):
            with pytest.raises(NotImplementedError, match=r"OwnBroker knows no members.*members=True"):
                call()
