"""What tests call on a broker, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from flask_sse_emitters.brokers import CHANNEL_END, Bounds, Broker, Frame, Log, Publication, Published, Start
from tests.support.waiting import PATIENCE, until

KEPT = Bounds(1000, 60.0)


class RecordingListener:
    """Records what the broker delivers to it."""

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


def listening(broker: Broker, channel: str) -> RecordingListener:
    listener = RecordingListener()
    subscribed(broker, channel, listener)
    return listener


def subscribed(broker: Broker, channel: str, listener: RecordingListener) -> None:
    start = broker.subscribe(channel, listener)
    if start is not None:
        listener.started(start)
    until(lambda: listener.starts, "the answer of the broker")


def frame(text: object) -> Frame:
    return Frame(b"data: %b\n\n" % str(text).encode(), "message")


def publish(broker: Broker, channel: str, *texts: object, bounds: Bounds = KEPT) -> list[str]:
    return [broker.publish(channel, frame(text), bounds).id for text in texts]


def assert_events_are_delivered(broker: Broker, *channels: str) -> None:
    """Publish to each channel and check that its listener gets the events."""
    listeners = [listening(broker, channel) for channel in channels]
    for channel in channels:
        publish(broker, channel, "a", "b")
    until(lambda: all(each.texts == [b"data: a\n\n", b"data: b\n\n"] for each in listeners), "both events of each")
    assert broker.status()["state"] == "ok"


def in_threads(calls: Sequence[Callable[[], object]]) -> None:
    """Run each on a thread of its own, all at once, and raise the first error."""
    with ThreadPoolExecutor(len(calls)) as pool:
        for result in [pool.submit(call) for call in calls]:
            result.result(PATIENCE)


def end(broker: Broker, channel: str, bounds: Bounds = KEPT) -> str:
    """Publish the end of a channel, and return its id."""
    return broker.publish(channel, CHANNEL_END, bounds).id


def publish_as(broker: Broker, run: str, channel: str, *frames: Frame) -> list[Published | Exception]:
    """Publish as a run that may have the channel."""
    return broker.publish_many([Publication(channel, each, KEPT, run=run) for each in frames])
