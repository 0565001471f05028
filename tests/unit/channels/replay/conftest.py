"""Logs of channels."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flask_sse_emitters.brokers.event_log import Log
from tests.unit.channels.replay.logs import publish
from tests.unit.doubles.clock import ManualScheduler


@pytest.fixture
def make_log(scheduler: ManualScheduler) -> Callable[..., Log]:
    """Make logs of ``events`` events, one a second; the text of each is its offset."""

    def make(events: int, kept: int = 1000, epoch: str = "e", size: int = 0) -> Log:
        log = Log(epoch, 0, scheduler.clock)
        for offset in range(1, events + 1):
            scheduler.now += 1
            publish(log, f"{offset:0{size}}", kept)
        return log

    return make
