"""The broker in memory: what it forgets, and what interrupts its publishers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from flask_sse_emitters.brokers import CHANNEL_END, INTERRUPTED, Bounds, Frame, Publication, Published
from flask_sse_emitters.brokers.memory import MemoryBroker
from flask_sse_emitters.brokers.memory.record import KEY_SECONDS, LINGER_SECONDS
from tests.support.brokers.broker_calls import KEPT, RecordingListener, frame, listening, publish, subscribed
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
    broker.subscribe("x", RecordingListener())
    log = broker._records["x"].log
    scheduler.pass_time(15)
    assert all(each is None for each in log._frames)


def test_memory_broker_forgets_channels_when_their_events_expire(scheduler: ManualScheduler) -> None:
    """Also completed ones, those of which nothing is kept, and those whose client left before; not those in use."""
    broker = MemoryBroker(scheduler=scheduler)
    listener, gone = listening(broker, "subscribed"), listening(broker, "left")
    for channel in ("subscribed", "left", "first"):
        publish(broker, channel, *range(5), bounds=Bounds(3, 10.0))
    scheduler.pass_time(5)
    broker.unsubscribe("left", gone)
    for number in range(1000):
        publish(broker, f"job:{number}", "x", bounds=Bounds(number % 2, 10.0))
        broker.publish(f"job:{number}", CHANNEL_END, Bounds(number % 2, 10.0))
    timers = len(scheduler.live_timers())
    scheduler.pass_time(9.9)
    scheduler.run_calls()
    assert len(broker._records) == 1001, "all but those of the first five seconds"
    scheduler.pass_time(2.2)
    scheduler.run_calls()
    assert [*broker._records] == ["subscribed"]
    assert timers < 10, "none for each of them"
    publish(broker, "subscribed", "b")
    assert listener.texts[-1] == b"data: b\n\n"
    broker.unsubscribe("subscribed", listener)
    scheduler.pass_time(70)
    scheduler.run_calls()
    assert not broker._records
    assert not scheduler.live_timers()


def test_memory_broker_remembers_a_channel_without_events_for_a_minute(scheduler: ManualScheduler) -> None:
    """A client that comes back to it has missed nothing."""
    broker = MemoryBroker(scheduler=scheduler)
    state = broker.state("asked")
    broker.unsubscribe("left", listening(broker, "left"))
    broker.newest("named")
    scheduler.pass_time(LINGER_SECONDS - 0.1)
    assert {*broker._records} == {"asked", "left", "named"}
    assert broker.state("asked") == state
    scheduler.pass_time(2.1)
    assert {*broker._records} == {"asked"}
    scheduler.pass_time(LINGER_SECONDS)
    assert not broker._records
    assert broker.state("asked").epoch != state.epoch


def test_memory_broker_ends_a_dead_run_without_a_request(scheduler: ManualScheduler) -> None:
    broker = MemoryBroker(scheduler=scheduler)
    listener = listening(broker, "x")
    assert broker.start_run("x", "run", 10.0)
    scheduler.pass_time(9)
    [published] = broker.publish_many([Publication("x", frame("a"), KEPT, run="run")])
    assert isinstance(published, Published)
    scheduler.pass_time(9.9)
    assert broker.renew_run("x", "run", 10.0), "an event renews it as well"
    scheduler.pass_time(9.9)
    assert len(listener.frames) == 1
    scheduler.pass_time(2.1)
    assert listener.texts[1:] == [INTERRUPTED.payload, b""]
    assert not broker.renew_run("x", "run", 10.0)


def test_memory_broker_keeps_a_channel_for_as_long_as_a_key_of_it(scheduler: ManualScheduler) -> None:
    broker = MemoryBroker(scheduler=scheduler)
    first = broker.publish("x", frame("a"), Bounds(10, 1.0), key="k")
    scheduler.pass_time(KEY_SECONDS - 1)
    assert broker.publish("x", frame("a"), Bounds(10, 1.0), key="k") == (first.id, False)
    scheduler.pass_time(3.1)
    assert not broker._records


def test_memory_publish_from_a_finalizer_does_not_deadlock() -> None:
    """The garbage collector runs it while an event gets its number."""
    broker = MemoryBroker()
    finalizers = ["finalized"]

    class Epoch(str):
        __slots__ = ()

        def encode(self, *_: Any) -> bytes:
            if finalizers:
                publish(broker, "x", finalizers.pop())
            return super().encode()

    listener = listening(broker, "x")
    broker._records["x"].log.epoch = Epoch("abcde")
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


def test_memory_broker_ids_of_two_channels_are_never_equal() -> None:
    """Who looks an event up by its id alone must not mix channels up. A forgotten channel has other ids, too."""
    broker = MemoryBroker()
    assert len({publish(broker, f"x:{number}", "a")[0] for number in range(100)}) == 100
    assert len({broker.state(f"y:{number}").epoch for number in range(100)}) == 100
