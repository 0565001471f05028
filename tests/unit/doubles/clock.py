"""A scheduler under a test's control: the test decides when time passes, and nothing runs on another thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask_sse_emitters import SseEmitter
from flask_sse_emitters.runtime.scheduler import CALLBACKS, Scheduler
from flask_sse_emitters.runtime.timers import Timer


class ManualScheduler(Scheduler):
    def __init__(self) -> None:
        self.now = 1000.0
        self.jobs: list[Callable[[], object]] = []
        self.writes = True  #: the test is the thread that writes to clients
        super().__init__(clock=lambda: self.now)

    def pass_time(self, seconds: float) -> None:
        """Move the clock, stopping at each timer on the way."""
        end = self.now + seconds
        while (nearest := self._timers.nearest()) is not None and nearest <= end:
            self.now = max(self.now, nearest)
            self._call_due()
        self.now = end

    def run_calls(self) -> None:
        """Make the calls of ``call_soon``, and again those that ask for it."""
        while self._soon:
            self._call_due()

    def run_jobs(self) -> None:
        """Run the callbacks that are due."""
        while self.jobs:
            self.jobs.pop(0)()

    def run(self, job: Callable[[], object], pool: str = CALLBACKS) -> None:  # noqa: ARG002 - it has one for all
        self.jobs.append(job)

    def live_timers(self) -> list[Timer]:
        return list(self._timers)

    def is_writer(self) -> bool:
        return self.writes

    def _start(self) -> None:
        pass


#: Makes an emitter; arguments are those of :class:`SseEmitter`.
Make = Callable[..., SseEmitter]


def emitter_at(scheduler: Scheduler, *args: Any, **given: Any) -> SseEmitter:
    """Make an emitter with timers of this scheduler; arguments are those of :class:`SseEmitter`."""

    class Emitter(SseEmitter):
        _new_ones_scheduler = scheduler

    return Emitter(*args, **given)
