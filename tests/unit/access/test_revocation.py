"""Receiving revocations: a process that cannot know what was revoked meanwhile ends all streams."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from flask_sse_emitters import SseEmitter
from flask_sse_emitters.access import revocation
from flask_sse_emitters.access.revocation import CHANNEL, LATE_SECONDS, Revocations
from flask_sse_emitters.brokers import Bounds, Log
from flask_sse_emitters.config.settings import DEFAULTS
from flask_sse_emitters.streams.registry.open_streams import StreamRegistry
from tests.support.brokers.broker_calls import frame
from tests.support.brokers.held_broker import HeldBroker
from tests.unit.doubles.clock import ManualScheduler


@pytest.fixture
def broker(scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch) -> HeldBroker:
    monkeypatch.setattr(revocation, "SCHEDULER", scheduler)
    broker = HeldBroker()
    broker.logs[CHANNEL] = Log("epoch", 0, scheduler.clock)
    return broker


@pytest.fixture
def emitter(scheduler: ManualScheduler, broker: HeldBroker) -> Iterator[SseEmitter]:
    """A stream of a process that listens to revocations, and has no answer of the broker yet."""
    streams, emitter = StreamRegistry(DEFAULTS, scheduler), SseEmitter()
    revocations = Revocations(broker, streams, lambda _: streams.streams(), lambda _: None)
    revocations.listen()
    streams.admit(emitter)
    yield emitter
    emitter.complete()


@pytest.mark.parametrize(("seconds", "ends"), [(LATE_SECONDS - 1, False), (LATE_SECONDS + 1, True)])
def test_broker_without_revocations_that_is_reached_late_ends_all_streams(
    seconds: float, ends: bool, broker: HeldBroker, emitter: SseEmitter, scheduler: ManualScheduler
) -> None:
    """It may have lost them, as Redis does that was flushed."""
    scheduler.pass_time(seconds)
    broker.start(CHANNEL)
    assert emitter.is_open is not ends


@pytest.mark.parametrize(("kept", "ends"), [(10, False), (3, True)])
def test_broker_that_has_dropped_revocations_ends_all_streams(
    kept: int, ends: bool, broker: HeldBroker, emitter: SseEmitter
) -> None:
    for number in range(5):
        broker.publish(CHANNEL, frame(json.dumps(["other", f"user {number}", None, False])), Bounds(kept, 300.0))
    broker.start(CHANNEL)
    assert emitter.is_open is not ends
