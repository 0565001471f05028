"""A replay whose stream ends just as its writer looks for the position of the client."""

from __future__ import annotations

from typing import Any

import pytest

from flask_sse_emitters.channels.process_subscription import ProcessSubscription
from flask_sse_emitters.channels.replay.locating import locate_returning
from flask_sse_emitters.channels.replay.machine import Replay
from flask_sse_emitters.channels.replay.pages import PageCache
from flask_sse_emitters.config.settings import DEFAULTS
from flask_sse_emitters.testing import decode
from tests.support.brokers.broker_calls import publish
from tests.support.brokers.held_broker import HeldBroker
from tests.unit.doubles.clock import ManualScheduler, emitter_at


@pytest.fixture
def broker() -> HeldBroker:
    return HeldBroker()


@pytest.fixture
def replay(broker: HeldBroker, scheduler: ManualScheduler) -> Replay:
    """The replay of a client that lacks the only event of its channel, which is not known yet."""
    subscription = ProcessSubscription("a", broker, DEFAULTS, lambda: None)
    replay = Replay(emitter_at(scheduler), [subscription], "epoch-0", PageCache(scheduler))
    replay.begin()
    publish(broker, "a", "1")
    return replay


def test_replay_ended_just_before_it_is_located_reads_nothing_later(
    broker: HeldBroker, replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread ends the stream while its writer finds the position; then an event is published."""
    broker.start("a")

    def locate(*args: Any) -> Any:
        replay.end(is_synced=False)
        publish(broker, "a", "2")
        broker.deliver("a")
        return locate_returning(*args)

    monkeypatch.setattr("flask_sse_emitters.channels.replay.machine.locate_returning", locate)
    assert replay.prepare() is None


def test_replay_ended_inside_locating_is_prepared_again(
    broker: HeldBroker, replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channel becomes known, and the stream ends, right after it was found unknown."""
    try_locate = Replay._try_locate

    def and_end(self: Replay) -> object:
        found = try_locate(self)
        monkeypatch.undo()
        broker.start("a")
        self.end(is_synced=True)
        return found

    monkeypatch.setattr(Replay, "_try_locate", and_end)
    assert replay.prepare() is False, "None would end it"
    assert replay.prepare() is True
    assert [event.data for event in decode(replay.take().payload)] == ["1"]
