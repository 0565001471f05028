"""Timers, readers and calls of the scheduler, which has one background thread in a process, also under load."""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections.abc import Callable
from functools import partial
from unittest.mock import MagicMock

import pytest

from flask_sse_emitters.runtime import fork
from flask_sse_emitters.runtime.scheduler import SCHEDULER, TIMERS_IN_A_ROW, Scheduler
from tests.support.waiting import PATIENCE, until
from tests.unit.doubles.clock import ManualScheduler


def test_timer_months_ahead_delays_no_other() -> None:
    scheduler = Scheduler()
    scheduler.call_at(scheduler.clock() + 100 * 86_400, lambda: pytest.fail("not yet"))
    for delay in (0.01, 0):
        fired = threading.Event()
        scheduler.call_at(scheduler.clock() + delay, fired.set)
        assert fired.wait(PATIENCE), "the background thread survives"


def test_call_again_reuses_a_fired_timer(scheduler: ManualScheduler) -> None:
    called: list[float] = []
    timer = scheduler.call_at(scheduler.now + 1, lambda: called.append(scheduler.now))
    scheduler.pass_time(2)
    assert scheduler.call_again(timer, scheduler.now + 1) is timer
    scheduler.pass_time(2)
    scheduler.call_again(timer, scheduler.now + 1)
    scheduler.cancel(timer)
    scheduler.pass_time(2)
    assert called == [1001.0, 1003.0]


def test_scheduler_with_20000_timers_sleeps_until_the_nearest_that_is_live() -> None:
    scheduler, fired = Scheduler(), threading.Event()
    rests: list[float | None] = []
    original = scheduler._sleep_seconds

    def note_and_return(registered: int) -> float | None:
        rests.append(original(registered))
        return rests[-1]

    scheduler._sleep_seconds = note_and_return  # type: ignore[method-assign]
    for number in range(20_000):
        scheduler.call_at(scheduler.clock() + 1000 + number, lambda: None)
    cancelled = [scheduler.call_at(scheduler.clock() + 200 + number, pytest.fail) for number in range(100)]
    for timer in cancelled:
        scheduler.cancel(timer)
    scheduler.call_at(0, fired.set)
    assert fired.wait(PATIENCE)
    until(lambda: (rests[-1] or 0) > 900, "the thread to sleep")
    assert len(rests) < 20, "timers that are not the nearest do not wake it"


def test_timer_that_raises_is_logged_and_others_fire(caplog: pytest.LogCaptureFixture) -> None:
    scheduler, fired = Scheduler(), threading.Event()
    scheduler.call_at(0, lambda: 1 / 0)
    scheduler.call_at(0, fired.set)
    assert fired.wait(PATIENCE)
    assert "ZeroDivisionError" in caplog.text


def test_scheduler_starts_a_thread_with_its_first_timer_and_its_first_job(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, bool]] = []
    start = threading.Thread.start

    def note_and_start(thread: threading.Thread) -> None:
        if thread._target.__self__ is not SCHEDULER:  # type: ignore[attr-defined]
            started.append((thread.name, thread.daemon))
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note_and_start)
    scheduler, done = Scheduler(), threading.Event()
    assert started == []
    for _ in range(100):
        scheduler.call_at(scheduler.clock() + 1000, lambda: None)
    assert started == [("sse-scheduler", True)]
    scheduler.run(done.set)
    assert done.wait(PATIENCE)
    assert started == [("sse-scheduler", True), ("sse-callbacks", True)]


@pytest.mark.parametrize("missing", ["socketpair", "DefaultSelector", "thread"])
def test_failed_start_raises_and_next_timer_starts_thread(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no more") if missing == "thread" else OSError("Too many open files")

    scheduler = Scheduler()
    with monkeypatch.context() as patch:
        target = {"socketpair": socket, "DefaultSelector": selectors, "thread": threading.Thread}[missing]
        patch.setattr(target, missing if missing != "thread" else "start", refuse)
        with pytest.raises((OSError, RuntimeError)):
            scheduler.call_at(0, lambda: None)
    fired = threading.Event()
    scheduler.call_at(0, fired.set)
    assert fired.wait(PATIENCE)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_dead_background_thread_is_replaced_at_next_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Scheduler()
    read_end, write_end = os.pipe()
    received: list[bytes] = []
    scheduler.add_reader(read_end, lambda: received.append(os.read(read_end, 100)))
    until(lambda: scheduler._running, "the background thread")

    broken: list[threading.Thread] = []

    def break_down() -> None:
        broken.append(threading.current_thread())
        raise OSError("the selector is broken")

    with monkeypatch.context() as patch:
        patch.setattr(scheduler, "_call_due", break_down)
        scheduler.call_at(0, lambda: None)
        until(lambda: not scheduler._running, "its end")
    broken[0].join(PATIENCE)  # so that its exception belongs to this test
    os.write(write_end, b"x")
    fired = threading.Event()
    scheduler.call_at(0, fired.set)
    assert fired.wait(PATIENCE)
    until(lambda: received == [b"x"], "the reader that was registered before")


def test_endless_calls_delay_no_timer_reader_or_callback() -> None:
    scheduler, stop = Scheduler(), threading.Event()
    fired, received, ran = threading.Event(), threading.Event(), threading.Event()
    read_end, write_end = os.pipe()

    def always() -> bool:
        return not stop.is_set()

    for _ in range(3):
        scheduler.call_soon(always)
    scheduler.call_at(scheduler.clock() + 0.05, fired.set)
    scheduler.add_reader(read_end, lambda: os.read(read_end, 1) and received.set())  # type: ignore[func-returns-value]
    os.write(write_end, b"x")
    scheduler.run(ran.set)
    for event in (fired, received, ran):
        assert event.wait(PATIENCE)
    assert scheduler._soon, "the calls continue"
    stop.set()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_forked_child_starts_with_no_timers_and_own_thread(in_child: Callable[[Callable[[], object]], str]) -> None:
    scheduler = Scheduler()
    scheduler.call_at(0, lambda: None)
    until(lambda: not scheduler._timers, "the background thread")
    scheduler.call_at(scheduler.clock() + 1000, lambda: None)

    def use() -> tuple[int, bool]:
        timers, fired = len(scheduler._timers), threading.Event()
        scheduler.call_at(0, fired.set)
        return timers, fired.wait(PATIENCE)

    assert in_child(use) == "(0, True)"
    fired = threading.Event()
    scheduler.call_at(0, fired.set)
    assert fired.wait(PATIENCE), "the parent's scheduler continues"


def test_call_that_asks_to_continue_runs_after_waiting_calls(scheduler: ManualScheduler) -> None:
    done: list[str] = []

    def job(name: str) -> bool:
        done.append(name)
        return done.count(name) < 3

    for name in "abc":
        scheduler.call_soon(partial(job, name))
    scheduler.run_calls()
    assert done == [*"abcabcabc"]


def test_scheduler_calls_wait_for_a_few_timers_and_not_for_all_due(scheduler: ManualScheduler) -> None:
    called: list[str] = []
    for number in range(1000):
        scheduler.call_at(number / 1000, lambda: called.append("timer"))
    for _ in range(3):
        scheduler.call_soon(lambda: called.append("call"))
    scheduler.run_calls()
    assert [index for index, kind in enumerate(called) if kind == "call"] == [
        TIMERS_IN_A_ROW + each * (TIMERS_IN_A_ROW + 1) for each in range(3)
    ]


def test_failed_reset_in_forked_child_leaves_others_to_be_reset(caplog: pytest.LogCaptureFixture) -> None:
    """Without a fork: the child does no more than this."""
    follows = MagicMock()
    fork.reset_all({object(): MagicMock(side_effect=OSError("no descriptor")), object(): follows})
    follows.assert_called_once()
    assert "could not be reset" in caplog.text
