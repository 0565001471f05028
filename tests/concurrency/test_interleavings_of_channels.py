"""Channels under every interleaving of subscribe, publish, reconnect and end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flask_sse_emitters import CloseReason, SseEmitter
from flask_sse_emitters.brokers.memory import MemoryBroker
from flask_sse_emitters.brokers.memory import record as memory_record
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.testing import decode
from flask_sse_emitters.writers.response_body import ResponseBody
from tests.concurrency.interleavings import Scene
from tests.concurrency.stage import Every, Stage
from tests.support.brokers.held_broker import HeldBroker
from tests.unit.doubles.writer import FakeWriter, events_of, texts_of


@pytest.mark.parametrize("end", ["shut down", "lifetime over"])
def test_stream_end_during_channel_lookup_wakes_reader(end: str, stage: Stage, every: Every) -> None:
    """The reader is about to sleep until the channel is located. If the end does not wake it, it never returns."""

    def scene() -> Scene:
        emitter = stage.channel(HeldBroker()).subscribe("x-1")
        stream = ResponseBody(stream_of(emitter), b": hello\n\n", {}, "off")
        body: list[bytes] = []
        ends = {
            "shut down": lambda: stream_of(emitter).end(CloseReason.SHUTDOWN, closing=b"retry: 7\n\n"),
            "lifetime over": lambda: stream_of(emitter).end(CloseReason.TIMEOUT),
        }

        def check() -> None:
            assert b"".join(body) == b": hello\n\n" + b"retry: 7\n\n" * (end == "shut down")
            assert not emitter.is_open

        return Scene({"read": lambda: body.extend(stream), "end": ends[end]}, check)

    every(scene, takes=3)


def subscribe_during_publishes(stage: Stage, published: int, *, reconnects: bool) -> Callable[[], Scene]:
    """Subscribe, for the first time or again, while each of several threads publishes an event."""

    def scene() -> Scene:
        channel = stage.channel()
        other = channel.subscribe()
        ids = channel.publish("0", "1")
        begun: list[str] = []
        done: list[str] = []
        missed: list[str] = []  # published before it subscribed, and it has no id
        coming: list[str] = []  # published once it has subscribed
        clients: list[FakeWriter] = []

        def subscribe() -> None:
            missed.extend(done)
            emitter = channel.subscribe(ids[0] if reconnects else None)
            coming.extend(set(texts) - set(begun))
            clients.append(FakeWriter(emitter))
            clients[0].take_all()

        def publish(text: str) -> None:
            begun.append(text)
            channel.publish(text)
            done.append(text)

        def check() -> None:
            stage.background.finish()
            everything = texts_of(other)
            clients[0].take_all()
            got = clients[0].texts()
            assert sorted(everything) == ["0", "1", *texts]
            assert got == everything[-len(got) :] if got else not coming
            assert set(coming) <= set(got)
            if reconnects:
                assert got == everything[1:]
            else:
                assert not {"0", "1", *missed} & set(got)

        texts = [f"2{number}" for number in range(published)]
        calls: dict[str, Callable[[], object]] = {"subscribe": subscribe}
        calls |= {f"publish {text}": lambda text=text: publish(text) for text in texts}  # type: ignore[misc]
        return Scene(calls, check)

    return scene


@pytest.mark.parametrize("reconnects", [True, False], ids=["reconnect", "first connect"])
def test_subscribe_during_publish_delivers_each_event_once(reconnects: bool, stage: Stage, every: Every) -> None:
    """A subscriber that connects, or reconnects, during a publish loses no event and gets none twice."""
    every(subscribe_during_publishes(stage, 1, reconnects=reconnects), takes=2, edges=1)


def test_reconnect_during_two_publishes_delivers_each_event_once(stage: Stage, every: Every) -> None:
    every(subscribe_during_publishes(stage, 2, reconnects=True), takes=1, edges=1, lines=None)


def test_two_concurrent_publishes_reach_all_subscribers_in_one_order(stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        channel = stage.channel()
        each = [channel.subscribe() for _ in range(2)]
        ids: list[str] = []

        def check() -> None:
            stage.background.finish()
            events = events_of(each[0])
            assert events == events_of(each[1])
            assert sorted(event.data for event in events) == ["a", "b"]
            assert [event.id for event in events] == sorted(ids)

        publish = channel.publish
        return Scene({"one": lambda: ids.extend(publish("a")), "other": lambda: ids.extend(publish("b"))}, check)

    every(scene, takes=3)


@pytest.mark.parametrize("publishes", [False, True], ids=["", "and another publishes"])
def test_reconnect_while_last_subscriber_leaves_loses_no_event(publishes: bool, stage: Stage, every: Every) -> None:
    """The process releases the channel and subscribes to it again."""

    def scene() -> Scene:
        channel = stage.channel()
        last = channel.subscribe()
        ids = channel.publish("0", "1")
        made: list[SseEmitter] = []

        def check() -> None:
            stage.background.finish()
            if not publishes:
                channel.publish("2")
                stage.background.finish()
            assert [member.emitter for member in channel.subscription.members] == made
            assert texts_of(made[0]) == ["1", "2"]

        calls: dict[str, Callable[[], object]] = {"leave": last.complete}
        calls["come"] = lambda: made.append(channel.subscribe(ids[0]))
        if publishes:
            calls["publish"] = lambda: channel.publish("2")
        return Scene(calls, check)

    if publishes:
        every(scene, takes=1, edges=1, lines=None)
    else:
        every(scene, takes=3)


def test_publish_while_channel_is_swept_and_left_keeps_the_event(
    stage: Stage, every: Every, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channel is forgotten after its last client has left. Nothing may use the forgotten record afterwards."""
    monkeypatch.setattr(memory_record, "LINGER_SECONDS", 0.0)

    def scene() -> Scene:
        broker = MemoryBroker(scheduler=stage.background)
        channel = stage.channel(broker)
        last = channel.subscribe()
        records = list(broker._records.values())
        ids: list[str] = []

        def sweep() -> None:
            for record in records:
                record.look()

        def check() -> None:
            epoch, _, offset = ids[0].partition("-")
            emitter = channel.subscribe(f"{epoch}-{int(offset) - 1}")
            assert [(event.id, event.data) for event in events_of(emitter)] == [(ids[0], "1")]

        calls = {"leave": last.complete, "sweep": sweep, "publish": lambda: ids.extend(channel.publish("1"))}
        return Scene(calls, check)

    every(scene, takes=2, edges=1)


def test_reconnect_before_broker_locates_channel_loses_no_event(stage: Stage, every: Every) -> None:
    """As with Redis: one thread listens, and reports the channel's position some time after it was asked."""

    def scene() -> Scene:
        broker = HeldBroker()
        channel = stage.channel(broker)
        ids = channel.publish("0", "1")
        made: list[SseEmitter] = []

        def listen() -> None:
            stage.explorer.rest(lambda: bool(broker.listeners["a"]))
            broker.start("a")
            while True:
                stage.explorer.rest(lambda: bool(broker.undelivered["a"]))
                broker.deliver("a", 1)

        def check() -> None:
            assert texts_of(made[0]) == ["1", "2"]

        calls = {"come": lambda: made.append(channel.subscribe(ids[0])), "publish": lambda: channel.publish("2")}
        return Scene(calls, check, {"listen": listen})

    every(scene, takes=2, edges=1, lines=None)


def test_stream_completed_during_broker_delivery_gets_all_published(stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        broker = HeldBroker()
        channel = stage.channel(broker)
        emitter = channel.subscribe()
        broker.start("a")
        stream = ResponseBody(stream_of(emitter), b": hello\n\n", {}, "off")
        body: list[bytes] = []

        def complete() -> None:
            channel.publish("1", "2")
            emitter.complete()

        def listen() -> None:
            while True:
                stage.explorer.rest(lambda: bool(broker.undelivered["a"]))
                broker.deliver("a", 1)

        def check() -> None:
            assert [event.data for event in decode(b"".join(body))] == ["1", "2"]
            assert len(channel.subscription.members) == 0

        return Scene({"complete": complete, "read": lambda: body.extend(stream)}, check, {"listen": listen})

    every(scene, takes=2, edges=1, lines=None)
