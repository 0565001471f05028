"""The queue of timers, without a thread or a clock."""

from __future__ import annotations

import pytest

from flask_sse_emitters.runtime.timers import MAX_CANCELLED, Timer, TimerQueue


@pytest.fixture
def timers() -> TimerQueue:
    return TimerQueue()


def nothing() -> None: ...


def calls_until(timers: TimerQueue, now: float) -> list[object]:
    calls = []
    while (call := timers.pop_due(now)) is not None:
        calls.append(call())
    return calls


def test_timers_of_equal_time_are_called_in_order_of_adding(timers: TimerQueue) -> None:
    for number, when in enumerate([2.0, 1.0, 2.0, 3.0, 1.0, 2.0]):
        timers.add(Timer(when, lambda number=number: number))  # type: ignore[misc]
    assert calls_until(timers, 2.0) == [1, 4, 0, 2, 5]
    assert (calls_until(timers, 2.9), timers.nearest(), len(timers)) == ([], 3.0, 1)
    assert (calls_until(timers, 3.0), timers.nearest(), len(timers)) == ([3], None, 0)


def test_timers_nearest_skips_those_cancelled(timers: TimerQueue) -> None:
    first, second, third = (Timer(when, nothing) for when in (1.0, 1.0, 2.0))
    for timer in (first, second, third):
        timers.add(timer)
    timers.cancel(first)
    timers.cancel(first)
    assert (timers.nearest(), first.call, timers.cancelled) == (1.0, None, 1)
    timers.cancel(second)
    assert (timers.nearest(), list(timers)) == (2.0, [third])
    timers.cancel(third)
    assert (timers.nearest(), len(timers), timers.cancelled) == (None, 0, 0)


def test_due_timer_cancelled_before_its_turn_is_not_called(timers: TimerQueue) -> None:
    second = Timer(1.0, lambda: "second")
    for timer in (Timer(1.0, lambda: "first"), second, Timer(1.0, lambda: "third")):
        timers.add(timer)
    first = timers.pop_due(1.0)
    assert first is not None
    timers.cancel(second)
    assert [first(), *calls_until(timers, 1.0)] == ["first", "third"]
    assert (len(timers), timers.cancelled, second.called) == (0, 0, None)


def test_cancelled_timers_are_dropped_above_maximum(timers: TimerQueue) -> None:
    kept = [Timer(float(number % 7), nothing) for number in range(3 * MAX_CANCELLED)]
    dropped = [Timer(float(number % 7), nothing) for number in range(MAX_CANCELLED + 1)]
    for timer in (*kept, *dropped):
        timers.add(timer)
    for timer in dropped[:-1]:
        timers.cancel(timer)
    assert (timers.has_many_cancelled, timers.nearest(), len(timers)) == (False, 0.0, len(kept) + len(dropped))
    timers.cancel(dropped[-1])
    assert (timers.has_many_cancelled, timers.nearest(), len(timers)) == (True, 0.0, len(kept))
    assert (set(timers), timers.cancelled) == (set(kept), 0)


def test_finalizer_may_add_and_cancel_while_timers_are_dropped(timers: TimerQueue) -> None:
    """A list that changes the queue when iterated stands for a garbage collection at any point."""
    late = [Timer(float(number), nothing) for number in range(10)]

    class ListThatMeddles(list[Timer]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            for timer in list.__iter__(self):
                yield timer
                if late:
                    timers.add(late.pop())
                    timers.cancel(kept[0])

    kept = [Timer(float(number), nothing) for number in range(200)]
    cancelled = [Timer(float(number), nothing) for number in range(200)]
    for timer in (*kept, *cancelled):
        timers.add(timer)
    timers._timers = {when: ListThatMeddles(same) for when, same in timers._timers.items()}
    added = list(late)
    for timer in cancelled:
        timers.cancel(timer)
    timers.nearest()
    assert set(timers) == {*kept[1:], *added}
    assert calls_until(timers, 1000.0) == [None] * (len(kept) - 1 + len(added))
    assert (len(timers), timers.nearest()) == (0, None)
