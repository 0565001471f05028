"""The states of a replay: locating, reading, live and ended; and the steps that are illegal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_sse_emitters import SseEmitter
from flask_sse_emitters.channels.process_subscription import ProcessSubscription, SubscriptionState
from flask_sse_emitters.channels.replay.locating import locate_returning
from flask_sse_emitters.channels.replay.machine import Replay, ReplayState
from flask_sse_emitters.channels.replay.pages import PageCache
from flask_sse_emitters.config.settings import DEFAULTS
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.testing import decode
from tests.support.broker_calls import publish
from tests.support.held_broker import HeldBroker
from tests.unit.doubles.clock import ManualScheduler, emitter_at


@pytest.fixture
def broker() -> HeldBroker:
    return HeldBroker()


@pytest.fixture
def subscription(broker: HeldBroker) -> ProcessSubscription:
    return ProcessSubscription("a", broker, DEFAULTS, lambda: None)


@pytest.fixture
def make_replay(subscription: ProcessSubscription) -> Callable[..., Replay]:
    scheduler = ManualScheduler()
    emitters: list[SseEmitter] = []

    def make(requested: str | None = None) -> Replay:
        emitters.append(emitter_at(scheduler, 0, heartbeat=0))
        return Replay(emitters[-1], [subscription], requested, PageCache(scheduler))

    return make


def arrive(broker: HeldBroker, *texts: str) -> None:
    publish(broker, "a", *texts)
    broker.deliver("a")


def texts(replay: Replay) -> list[Any]:
    return [event.data for event in decode(replay.take().payload)]


def test_subscription_buffers_until_broker_starts_it(
    broker: HeldBroker, subscription: ProcessSubscription, make_replay: Callable[..., Replay]
) -> None:
    states = [subscription.state]
    make_replay().begin()
    states.append(subscription.state)
    arrive(broker, "1")
    broker.start("a")
    states.append(subscription.state)
    assert (subscription.log, subscription.start_offset) == (broker.log("a"), 1)
    for emitter in [member.emitter for member in subscription.members]:
        stream_of(emitter).end_with_retry()
    states.append(subscription.state)
    unsubscribed, buffering, live = SubscriptionState
    assert states == [unsubscribed, buffering, live, unsubscribed]
    assert (subscription.log, broker.listeners["a"]) == (None, [])


def test_replay_is_live_at_once_if_channel_is_known(broker: HeldBroker, make_replay: Callable[..., Replay]) -> None:
    publish(broker, "a", "1")
    make_replay().begin()
    broker.start("a")
    replay = make_replay("epoch-1")
    states = [replay.state]
    replay.begin()
    states.append(replay.state)
    assert states == [ReplayState.LOCATING, ReplayState.LIVE]
    assert replay.prepare() is None


def test_replay_locates_reads_and_goes_live(broker: HeldBroker, make_replay: Callable[..., Replay]) -> None:
    publish(broker, "a", "1", "2")
    replay = make_replay("epoch-1")
    replay.begin()
    assert (replay.prepare(), replay.state) == (False, ReplayState.LOCATING)
    broker.start("a")
    assert (replay.prepare(), replay.state) == (True, ReplayState.READING)
    assert texts(replay) == ["2"]
    assert (replay.prepare(), replay.state) == (None, ReplayState.LIVE)


def test_replay_locates_unknown_id_after_broker_answers(broker: HeldBroker, make_replay: Callable[..., Replay]) -> None:
    make_replay().begin()
    broker.start("a")
    publish(broker, "a", "1")  # until this is delivered, the broker does not answer
    replay = make_replay("epoch-2")
    replay.begin()
    assert (replay.prepare(), replay.state, len(broker.lookups["a"])) == (False, ReplayState.LOCATING, 1)
    publish(broker, "a", "2")
    broker.deliver("a", 1)
    assert (replay.prepare(), replay.state, len(broker.lookups["a"])) == (False, ReplayState.LOCATING, 1)
    broker.deliver("a")
    assert (replay.prepare(), replay.state) == (None, ReplayState.LIVE)


def test_ended_replay_reads_events_that_had_arrived(broker: HeldBroker, make_replay: Callable[..., Replay]) -> None:
    publish(broker, "a", "1", "2", "3")
    make_replay().begin()
    broker.start("a")
    replay = make_replay("epoch-1")
    replay.begin()
    states = [replay.state]
    replay.end(is_synced=True)
    states.append(replay.state)
    assert states == [ReplayState.READING, ReplayState.ENDED]
    arrive(broker, "4")
    assert (replay.prepare(), texts(replay), replay.prepare()) == (True, ["2", "3"], None)
    assert replay.state is ReplayState.ENDED


def test_replay_ended_just_before_it_is_located_reads_nothing_later(
    broker: HeldBroker, make_replay: Callable[..., Replay], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread ends the stream while its writer finds the position; then an event is published."""
    replay = make_replay("epoch-0")
    replay.begin()
    publish(broker, "a", "1")
    broker.start("a")

    def locate(*args: Any) -> Any:
        replay.end(is_synced=False)
        arrive(broker, "2")
        return locate_returning(*args)

    monkeypatch.setattr("flask_sse_emitters.channels.replay.machine.locate_returning", locate)
    assert replay.prepare() is None


@pytest.mark.parametrize(("is_synced", "read"), [(True, ["1"]), (False, [])])
def test_replay_ended_while_locating_reads_awaited_events(
    is_synced: bool, read: list[str], broker: HeldBroker, make_replay: Callable[..., Replay]
) -> None:
    replay = make_replay("epoch-0")
    replay.begin()
    publish(broker, "a", "1")
    assert replay.prepare() is False
    if is_synced:
        broker.start("a")
    replay.end(is_synced=is_synced)
    assert (texts(replay) if replay.prepare() else []) == read
    assert replay.prepare() is None


def test_replay_ended_inside_locating_is_prepared_again(
    broker: HeldBroker, make_replay: Callable[..., Replay], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channel becomes known, and the stream ends, right after it was found unknown."""
    replay = make_replay("epoch-0")
    replay.begin()
    publish(broker, "a", "1")
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
    assert texts(replay) == ["1"]


def test_illegal_steps_of_replay_raise(broker: HeldBroker, make_replay: Callable[..., Replay]) -> None:
    replay = make_replay("epoch-0")
    with pytest.raises(RuntimeError, match="illegal step"):
        replay.prepare()
    replay.begin()
    with pytest.raises(RuntimeError, match="illegal step"):
        replay.begin()
    with pytest.raises(RuntimeError, match="illegal step"):
        replay.take()
    publish(broker, "a", "1")
    broker.start("a")
    assert replay.prepare() is True
    assert texts(replay) == ["1"]
    with pytest.raises(RuntimeError, match="illegal step"):
        replay.take()
