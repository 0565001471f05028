"""Steps of several threads at once have the outcome of some order of them, one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import permutations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flask_sse_emitters import CloseReason
from flask_sse_emitters.streams.emitter import stream_of
from tests.concurrency.model_machine import EXAMPLES, QUICK
from tests.support.waiting import PATIENCE
from tests.unit.doubles.clock import ManualScheduler, emitter_at
from tests.unit.doubles.journal import Journal
from tests.unit.doubles.writer import texts_of


class Played:
    """An emitter, and the steps that several threads do with it."""

    def __init__(self, overflow: Any) -> None:
        self.time = ManualScheduler()
        self.emitter = emitter_at(self.time, 20, heartbeat=0, max_pending=1, overflow=overflow)
        self.journal = Journal(self.emitter)
        self.late = 0

    def register(self) -> None:
        @self.emitter.on_completion
        def count() -> None:
            self.late += 1

    def outcome(self) -> tuple[Any, ...]:
        """Return everything observable afterwards."""
        self.time.run_jobs()
        emitter = self.emitter
        observed = (tuple(self.journal.calls), self.late, emitter.pending, emitter.dropped, tuple(texts_of(emitter)))
        return (emitter.close_reason, type(emitter.error), *observed)


STEPS: dict[str, Callable[[Played], object]] = {
    "send": lambda played: played.emitter.try_send("a"),
    "send other": lambda played: played.emitter.try_send("b"),
    "complete": lambda played: played.emitter.complete(),
    "error": lambda played: played.emitter.complete_with_error(KeyError("x")),
    "time": lambda played: played.time.pass_time(20),
    "disconnect": lambda played: stream_of(played.emitter).end(CloseReason.DISCONNECTED, ConnectionResetError("gone")),
    "register": Played.register,
}


def _play(steps: list[str], overflow: Any, order: Sequence[int] | None) -> tuple[Any, ...]:
    """Return the outcome of the steps in an order, or of all at once without one."""
    played = Played(overflow)
    calls = [partial(STEPS[name], played) for name in steps]
    if order is not None:
        results = {index: calls[index]() for index in order}
        return (*played.outcome(), *(results[index] for index in range(len(steps))))
    barrier = threading.Barrier(len(calls))
    with ThreadPoolExecutor(len(calls)) as pool:
        at_once = list(pool.map(lambda call: (barrier.wait(PATIENCE), call())[1], calls))
    return (*played.outcome(), *at_once)


@settings(QUICK, max_examples=max(20, EXAMPLES // 5))
@given(
    st.lists(st.sampled_from(sorted(STEPS)), min_size=2, max_size=4).filter(lambda steps: steps.count("time") < 2),
    st.sampled_from(["close", "drop_oldest"]),
)
def test_concurrent_steps_have_the_outcome_of_some_serial_order(steps: list[str], overflow: Any) -> None:
    allowed = {_play(steps, overflow, order) for order in permutations(range(len(steps)))}
    for _ in range(10):
        assert _play(steps, overflow, None) in allowed
