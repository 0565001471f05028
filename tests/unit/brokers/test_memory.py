"""The broker in memory: what it forgets, and what interrupts its publishers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress

from flask_sse_emitters.brokers import Bounds, Frame
from flask_sse_emitters.brokers.memory import KEY_SECONDS, MAX_IDLE_CHANNELS, SWEEP_SECONDS, MemoryBroker
from tests.support.broker_calls import KEPT, RecordingListener, frame, listening, publish, subscribed
from tests.support.waiting import PATIENCE, until
from tests.unit.doubles.clock import ManualScheduler


def test_memory_broker_loses_no_event_when_the_publisher_is_interrupted() -> None:
    """The publisher's own thread delivers to the listeners."""
    broker = MemoryBroker()
    listener = listening(broker, "a")
    interrupts = [KeyboardInterrupt()]

    class Interrupted(RecordingListener):
        def arrived(self, frames: Sequence[Frame]) -> None:
            if interrupts:
                raise interrupts.pop()
            super().arrived(frames)

    second = Interrupted()
    subscribed(broker, "a", second)
    with suppress(KeyboardInterrupt):
        publish(broker, "a", "1")
    publish(broker, "a", "2")
    assert len(second.frames) == 2
    assert len(set(listener.frames)) == 2, "perhaps delivered twice"


def test_memory_broker_forgets_a_key_after_five_minutes(scheduler: ManualScheduler) -> None:
    broker = MemoryBroker(scheduler=scheduler)
    first = broker.publish("x", frame("a"), KEPT, key="k")
    scheduler.pass_time(KEY_SECONDS - 1)
    assert broker.publish("x", frame("a"), KEPT, key="k") == (first.id, False)
    scheduler.pass_time(2)
    assert broker.publish("x", frame("a"), KEPT, key="k").is_new


def test_memory_broker_drops_expired_events_without_a_request(scheduler: ManualScheduler) -> None:
    broker = MemoryBroker(scheduler=scheduler)
    publish(broker, "x", *range(100), bounds=Bounds(1000, 10.0))
    log = broker._records["x"].log
    scheduler.pass_time(SWEEP_SECONDS + 1)
    assert all(each is None for each in log._frames)


def test_memory_broker_forgets_many_idle_channels_and_repeats_no_id(scheduler: ManualScheduler) -> None:
    broker = MemoryBroker(scheduler=scheduler)
    listener = RecordingListener()
    broker.subscribe("subscribed", listener)
    ids = set(publish(broker, "first", *range(5), bounds=Bounds(1, 10.0)))
    publish(broker, "subscribed", "a", bounds=Bounds(1, 10.0))
    for number in range(MAX_IDLE_CHANNELS + 500):
        publish(broker, f"user:{number}", "x", bounds=Bounds(1, 10.0))
    scheduler.pass_time(SWEEP_SECONDS * 2)
    assert len(broker._records) <= MAX_IDLE_CHANNELS
    assert "first" not in broker._records
    assert publish(broker, "first", "again")[0] not in ids
    publish(broker, "subscribed", "b")
    assert listener.texts == [b"data: a\n\n", b"data: b\n\n"]
    broker.unsubscribe("asked", listening(broker, "asked"))
    assert "asked" not in broker._records, "nothing is kept of a channel without events"


def test_memory_broker_publish_from_a_finalizer_during_a_publish_does_not_deadlock() -> None:
    """The garbage collector runs it while an event gets its number."""
    broker = MemoryBroker()
    finalizers = ["finalized"]

    def clock() -> float:
        if finalizers:
            publish(broker, "x", finalizers.pop())
        return 0.0

    listener = listening(broker, "x")
    broker._records["x"].log._clock = clock
    thread = threading.Thread(target=publish, args=(broker, "x", "outer"), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "no deadlock"
    assert [each.offset for each in listener.frames] == [1, 2]


def test_publish_during_delivery_leaves_events_to_it_in_order() -> None:
    broker = MemoryBroker()
    threads: list[str] = []

    class PublishingListener(RecordingListener):
        def arrived(self, frames: Sequence[Frame]) -> None:
            if not threads:
                publish(broker, "a", 2, 3)
            super().arrived(frames)
            threads.append(threading.current_thread().name)

    listener = PublishingListener()
    subscribed(broker, "a", listener)
    publish(broker, "a", 1)
    until(lambda: len(listener.frames) == 3 and len(threads) > 1, "the other events")
    assert [each.offset for each in listener.frames] == [1, 2, 3]
    assert {*threads[1:]} == {"sse-scheduler"}, "a publisher does not deliver the events of others"
