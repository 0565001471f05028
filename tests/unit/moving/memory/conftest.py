"""Two workers whose time a test holds still."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.support.waiting import until
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


def ask(workers: StillWorkers, call: Any) -> Any:
    """Call on another thread, which waits, and pass on the messages meanwhile."""
    thread, results = in_background(call)

    def has_come() -> bool:
        workers.settle()
        return not thread.is_alive()

    until(has_come, "the answer")
    return results[0]


def in_background(call: Any) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    return thread, results
