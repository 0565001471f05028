"""Two workers whose time a test holds still."""

from __future__ import annotations

import pytest

from tests.unit.doubles.clock import ManualScheduler
from tests.unit.doubles.two_workers import TwoWorkers


class StillWorkers(TwoWorkers):
    scheduler: ManualScheduler

    def settle(self) -> None:
        """Pass on all messages."""
        self.scheduler.run_calls()
        while any(self._on_way) or self.giver._outlet._packets or self.taker._outlet._packets:
            self.scheduler.pass_time(0.005)
            self.scheduler.run_calls()

    def move(self) -> None:
        """Give all channels away, and have them taken over."""
        self.give()
        self.settle()
        assert self.is_given


@pytest.fixture
def workers(scheduler: ManualScheduler) -> StillWorkers:
    return StillWorkers(scheduler)
