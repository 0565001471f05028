"""What is published through a broker, and arrives."""

from __future__ import annotations

from flask_sse_emitters import BrokerUnavailable
from flask_sse_emitters.brokers import Broker
from tests.support.broker_calls import KEPT, frame, listening, publish
from tests.support.waiting import until


def assert_events_are_delivered(broker: Broker, *channels: str) -> None:
    """Publish to each channel and check that its listener gets the events."""
    listeners = [listening(broker, channel) for channel in channels]
    for channel in channels:
        publish(broker, channel, "a", "b")
    for listener in listeners:
        until(lambda listener=listener: listener.texts == [b"data: a\n\n", b"data: b\n\n"], "both events")  # type: ignore[misc]
    assert broker.status()["state"] == "ok"


def published(broker: Broker, channel: str, text: str) -> bool:
    try:
        broker.publish(channel, frame(text), KEPT, key=text)
    except BrokerUnavailable:
        return False
    return True
