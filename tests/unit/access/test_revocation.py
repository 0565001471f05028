"""Receiving revocations: a process that reached its broker late cannot know what was revoked meanwhile."""

from __future__ import annotations

import pytest

from flask_sse_emitters import SseEmitter
from flask_sse_emitters.access import revocation
from flask_sse_emitters.access.revocation import CHANNEL, LATE_SECONDS, Revocations
from flask_sse_emitters.config.settings import DEFAULTS
from flask_sse_emitters.streams.registry.open_streams import StreamRegistry
from tests.support.held_broker import HeldBroker
from tests.unit.doubles.clock import ManualScheduler


@pytest.mark.parametrize(("seconds", "ends"), [(LATE_SECONDS - 1, False), (LATE_SECONDS + 1, True)])
def test_broker_without_revocations_that_is_reached_late_ends_all_streams(
    seconds: float, ends: bool, scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have lost them, as Redis does that was flushed."""
    monkeypatch.setattr(revocation, "SCHEDULER", scheduler)
    broker, streams = HeldBroker(), StreamRegistry(DEFAULTS, scheduler)
    revocations = Revocations(broker, streams, lambda _: streams.streams(), lambda _: None)
    revocations.listen()
    emitter = SseEmitter()
    streams.admit(emitter)
    scheduler.pass_time(seconds)
    broker.start(CHANNEL)
    assert emitter.is_open is not ends
    emitter.complete()
