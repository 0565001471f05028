"""Ends of channels under every interleaving with publishers, with readers that come and leave, and with each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flask_sse_emitters import CloseReason, SseEmitter
from flask_sse_emitters.brokers import CHANNEL_END, Bounds, Broker
from flask_sse_emitters.brokers.memory import MemoryBroker
from flask_sse_emitters.channels.process_subscription import ProcessSubscription
from flask_sse_emitters.channels.replay.arrivals import arrive
from flask_sse_emitters.channels.replay.machine import Replay
from flask_sse_emitters.channels.replay.pages import PageCache
from flask_sse_emitters.config.settings import DEFAULTS
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.testing import decode
from flask_sse_emitters.wire.frame import FINAL_BLOCK, make_frame
from flask_sse_emitters.writers.response_body import ResponseBody
from tests.concurrency.interleavings import Scene
from tests.concurrency.stage import Every, Stage
from tests.support.brokers.held_broker import HeldBroker
from tests.unit.doubles.writer import FakeWriter

KEPT = Bounds(1000, 0.0)


class Channels:
    """Some channels of one process, and their readers, as the package has them."""

    def __init__(self, stage: Stage, *names: str, broker: Broker | None = None) -> None:
        self._stage = stage
        self.broker = broker or MemoryBroker(scheduler=stage.background)
        self._pages = PageCache(stage.background)
        self._subscriptions = [ProcessSubscription(name, self.broker, DEFAULTS, lambda: None) for name in names]

    def publish(self, name: str, *texts: str) -> list[str]:
        return [self.broker.publish(name, make_frame(text, str, 1000), KEPT).id for text in texts]

    def end(self, name: str) -> None:
        self.broker.publish(name, CHANNEL_END, KEPT)

    def subscribe(self, last: str | None = None, since: str = "first") -> SseEmitter | None:
        """Return a client's emitter; None where nothing is left for it."""
        arrivals = arrive(last, self._subscriptions, [since] * len(self._subscriptions))
        if arrivals is None:
            return None
        emitter = self._stage.emitter()
        stream_of(emitter).last_event_id = last
        Replay(emitter, self._subscriptions, None if arrivals else last, self._pages, arrivals).begin()
        return emitter


def ended(writer: FakeWriter) -> list[str]:
    """Return the texts of all that a client has got, which must have ended for good."""
    writer.take_all()
    body = b"".join(writer.got)
    assert body.endswith(FINAL_BLOCK)
    assert body.count(FINAL_BLOCK) == 1
    assert writer.emitter.close_reason is CloseReason.COMPLETED
    return [event.data for event in decode(body.removesuffix(FINAL_BLOCK))]


@pytest.mark.parametrize("comes", ["back", "first"])
def test_client_that_comes_as_channel_ends_and_goes_on_gets_one_epoch(comes: str, stage: Stage, every: Every) -> None:
    """It gets all of it, and nothing of the next; one that comes without an id may also be in time for that."""

    def scene() -> Scene:
        channels = Channels(stage, "a")
        witness = channels.subscribe(since="now")
        assert witness is not None
        first, *_ = channels.publish("a", "0", "1")
        clients: list[FakeWriter] = []

        def come() -> None:
            emitter = channels.subscribe(first if comes == "back" else None)
            assert emitter is not None, "an event was kept at any time"
            clients.append(FakeWriter(emitter))
            clients[0].take_all()

        def publish() -> None:
            channels.publish("a", "2")
            channels.end("a")
            channels.publish("a", "new")

        def check() -> None:
            stage.background.finish()
            assert ended(FakeWriter(witness)) == ["0", "1", "2"]
            [client] = clients
            client.take_all()
            if client.emitter.is_open:
                assert (comes, client.texts()) == ("first", ["new"])
            else:
                assert ended(client) == (["1", "2"] if comes == "back" else ["0", "1", "2"])

        return Scene({"come": come, "publish": publish}, check)

    every(scene, takes=2, edges=1, lines=None)


@pytest.mark.parametrize("position", ["live", "amid the log"])
def test_stream_of_two_channels_that_end_at_once_ends_once(position: str, stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        channels = Channels(stage, "a", "b")
        before = [channels.publish(name, "0")[0] for name in "ab"]
        for name in "ab":
            channels.publish(name, "1")
        emitter = (
            channels.subscribe(",".join(before)) if position == "amid the log" else channels.subscribe(since="now")
        )
        assert emitter is not None
        client = FakeWriter(emitter)

        def end(name: str) -> None:
            channels.publish(name, f"{name}2")
            channels.end(name)

        def check() -> None:
            stage.background.finish()
            expected = ["a2", "b2"] if position == "live" else ["1", "1", "a2", "b2"]
            assert sorted(ended(client)) == expected

        return Scene({"end a": lambda: end("a"), "end b": lambda: end("b"), "read": client.take_all}, check)

    every(scene, takes=1, edges=1, lines=None)


def test_stream_of_two_channels_of_which_one_goes_on_gets_no_part_of_that(stage: Stage, every: Every) -> None:
    """It ends before that, or stays open and gets it: a part of it, and then the end, would be a loss."""

    def scene() -> Scene:
        channels = Channels(stage, "a", "b")
        emitter = channels.subscribe(since="now")
        assert emitter is not None
        client = FakeWriter(emitter)

        def go_on() -> None:
            channels.end("b")
            channels.publish("b", "new", "newer")

        def check() -> None:
            stage.background.finish()
            client.take_all()
            if emitter.is_open:
                assert client.texts() == ["new", "newer"]
            else:
                assert ended(client) == []

        return Scene({"end": lambda: channels.end("a"), "go on": go_on}, check)

    every(scene, takes=2, edges=2, lines=None)


@pytest.mark.parametrize("broker", ["memory", "held"])
def test_reader_of_channel_that_ends_returns_with_all_of_it(broker: str, stage: Stage, every: Every) -> None:
    """If the end does not wake it, or is taken before what was published, it never returns, or lacks some."""

    def scene() -> Scene:
        held = HeldBroker()
        channels = Channels(stage, "a", broker=held if broker == "held" else None)
        emitter = channels.subscribe(since="now")
        assert emitter is not None
        held.start("a")
        stream = ResponseBody(stream_of(emitter), b": hello\n\n", {}, "off")
        body: list[bytes] = []

        def publish() -> None:
            channels.publish("a", "1", "2")
            channels.end("a")
            channels.publish("a", "new")

        def listen() -> None:
            while True:
                stage.explorer.rest(lambda: bool(held.undelivered["a"]))
                held.deliver("a", 1)

        def check() -> None:
            received = b"".join(body)
            assert received.endswith(FINAL_BLOCK)
            assert [event.data for event in decode(received)] == ["1", "2", ""]

        calls: dict[str, Callable[[], object]] = {"publish": publish, "read": lambda: body.extend(stream)}
        return Scene(calls, check, {"listen": listen} if broker == "held" else {})

    every(scene, takes=1 if broker == "held" else 2, edges=1, lines=None)


def test_stream_that_app_and_channel_end_at_once_gets_all_published(stage: Stage, every: Every) -> None:
    def scene() -> Scene:
        channels = Channels(stage, "a")
        emitter = channels.subscribe(since="now")
        assert emitter is not None
        client = FakeWriter(emitter)
        channels.publish("a", "1")

        def check() -> None:
            stage.background.finish()
            client.take_all()
            assert client.texts()[0] == "1"
            assert b"".join(client.got).count(FINAL_BLOCK) <= 1
            assert emitter.close_reason is CloseReason.COMPLETED

        return Scene({"complete": emitter.complete, "end": lambda: channels.end("a")}, check)

    every(scene, takes=3)
