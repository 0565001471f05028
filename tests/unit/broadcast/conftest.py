"""Gates, which hold up delivery passes, and a record of what is delivered."""

from __future__ import annotations

import pytest

from flask_sse_emitters.broadcast import delivery
from flask_sse_emitters.broadcast.batch import Batch
from flask_sse_emitters.broadcast.member import Member
from tests.unit.broadcast.gate import Gate
from tests.unit.doubles.clock import ManualScheduler


@pytest.fixture(autouse=True)
def delivered(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """Have each delivery to a gate wait there. Return a list of the batches that emitters are given."""
    batches: list[Batch] = []
    original = Member.deliver

    def deliver(member: Member, batch: Batch, **given: bool) -> None:
        batches.append(batch)
        if isinstance(member.emitter, Gate):
            member.emitter.stop()
        original(member, batch, **given)

    monkeypatch.setattr(Member, "deliver", deliver)
    return batches


@pytest.fixture
def background(scheduler: ManualScheduler, monkeypatch: pytest.MonkeyPatch) -> ManualScheduler:
    """Return what runs the deliveries that senders leave to the background. The clock stops, so no time slice ends."""
    monkeypatch.setattr(delivery, "SCHEDULER", scheduler)
    monkeypatch.setattr(delivery, "monotonic", lambda: 0.0)
    return scheduler
