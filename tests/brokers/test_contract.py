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
from flask_sse_emitters.brokers import GROUP, Bounds, Broker, Frame, make_broker
from flask_sse_emitters.brokers.memory import KEY_SECONDS, MAX_IDLE_CHANNELS, SWEEP_SECONDS, MemoryBroker
from tests.apps.own_broker import OwnBroker
from tests.support.broker_calls import KEPT, RecordingListener, frame, in_threads, listening, publish, subscribed
from tests.support.client import new_name
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE, until
from tests.unit.doubles.clock import ManualScheduler


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


# memory:// alone


def test_memory_broker_loses_no_event_when_the_publisher_is_interrupted() -> None:
    """The publisher's own thread delivers to the listeners."""
    broker = MemoryBroker()
    channel = new_name()
    listener = listening(broker, channel)
    interrupts = [KeyboardInterrupt()]

    class Interrupted(RecordingListener):
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
    until(lambda: len(set(listener.frames)) == 2, "both events for the other one, perhaps delivered twice")


def test_memory_broker_epochs_differ() -> None:
    with memory() as one, memory() as other:
        assert publish(one, "x", "a")[0].split("-")[0] != publish(other, "x", "a")[0].split("-")[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("make", [memory, own], ids=lambda make: make.__name__)
def test_broker_after_fork_has_its_own_epoch_and_no_listeners(
    make: Callable[[], AbstractContextManager[Broker]],
) -> None:
    with make() as broker:
        listener = listening(broker, "x")
        [mine] = publish(broker, "x", "a")
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writer, publish(broker, "x", "b")[0].encode() + b" %d" % len(listener.frames))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        theirs, received = os.read(reader, 100).decode().split()
        os.close(reader)
        os.close(writer)
        assert theirs.split("-")[0] != mine.split("-")[0]
        assert (theirs.split("-")[1], received) == ("1", "1")


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


def test_memory_broker_forgets_many_idle_channels_and_repeats_no_id(
    scheduler: ManualScheduler,
) -> None:
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


# the choice of a broker


def test_broker_is_chosen_by_the_scheme_of_the_url() -> None:
    assert isinstance(make_broker("memory://"), MemoryBroker)


@pytest.mark.parametrize("url", ["memory://x", "memory:///1"])
def test_broker_url_memory_rejects_a_host_or_path(url: str) -> None:
    with pytest.raises(ValueError, match="memory:// takes nothing more"):
        make_broker(url)


def test_broker_url_with_an_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=f"no broker is known for 'kafka': known schemes are memory.*{GROUP}"):
        make_broker("kafka://localhost")
    app = Flask(__name__)
    app.config["SSE_BROKER_URL"] = "kafka://localhost"
    with pytest.raises(ValueError, match=r"SSE_BROKER_URL.*no broker is known for 'kafka'"):
        SSE(app)


def test_broker_of_a_third_party_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_memory_broker_keeps_nothing_of_a_channel_without_events() -> None:
    broker = MemoryBroker()
    for number in range(100):
        listener = listening(broker, f"asked:{number}")
        broker.unsubscribe(f"asked:{number}", listener)
    assert broker._records == {}


def test_memory_broker_publish_from_a_finalizer_during_a_publish_does_not_deadlock() -> None:
    """The garbage collector runs it while an event gets its number."""
    broker = MemoryBroker()
    finalizers = ["finalized"]

    class Clock:
        def __call__(self) -> float:
            if finalizers:
                publish(broker, "x", finalizers.pop())
            return 0.0

    listener = listening(broker, "x")
    broker._records["x"].log._clock = Clock()
    done = threading.Event()

    def publishing() -> None:
        publish(broker, "x", "outer")
        done.set()

    threading.Thread(target=publishing, daemon=True).start()
    assert done.wait(PATIENCE), "no deadlock"
    assert [each.offset for each in listener.frames] == [1, 2]
