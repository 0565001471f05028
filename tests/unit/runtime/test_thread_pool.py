"""Jobs that may block, the helper threads that run them, and how a thread waits."""

from __future__ import annotations

import threading

import pytest

from flask_sse_emitters.runtime import thread_pool
from flask_sse_emitters.runtime.scheduler import CALLBACKS, MAX_HELPERS, Scheduler
from flask_sse_emitters.runtime.thread_pool import THREAD_RETRY_SECONDS
from flask_sse_emitters.runtime.waiter import make_waiter
from tests.support.waiting import PATIENCE, until


def test_blocked_callbacks_delay_no_timer_and_no_call() -> None:
    """Block as many callbacks as may run at once; due timers fire, and calls are made, before they end."""
    scheduler = Scheduler()
    blocked, release = threading.Semaphore(0), threading.Event()

    def block() -> None:
        blocked.release()
        assert release.wait(PATIENCE)

    for _ in range(3 * MAX_HELPERS[CALLBACKS]):
        scheduler.run(block)
    for _ in range(MAX_HELPERS[CALLBACKS]):
        assert blocked.acquire(timeout=PATIENCE)
    fired = threading.Semaphore(0)
    for delay in range(20):
        scheduler.call_at(scheduler.clock() + delay / 1000, fired.release)
        scheduler.call_soon(fired.release)
    for _ in range(40):
        assert fired.acquire(timeout=PATIENCE)
    assert not blocked.acquire(blocking=False), "more workers than the limit"
    release.set()
    for _ in range(2 * MAX_HELPERS[CALLBACKS]):
        assert blocked.acquire(timeout=PATIENCE)
    until(lambda: scheduler._pools[CALLBACKS].helpers == 0, "the workers to end")


def test_callback_waits_until_a_thread_can_start_and_calls_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    scheduler = Scheduler(lambda: now)
    scheduler.call_soon(lambda: None)
    until(lambda: not scheduler._soon, "the background thread")
    start, refusals = threading.Thread.start, 0

    def refuse(_thread: threading.Thread) -> None:
        nonlocal refusals
        refusals += 1
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = threading.Event()
    scheduler.run(done.set)
    for _ in range(20):
        called = threading.Event()
        scheduler.call_soon(called.set)
        assert called.wait(PATIENCE)
    assert refusals == 1, "no retry before its time, and no call waits for it"
    monkeypatch.setattr(threading.Thread, "start", start)
    now = THREAD_RETRY_SECONDS
    scheduler.call_soon(lambda: None)
    assert done.wait(PATIENCE)
    assert "cannot start a thread for sse-callbacks" in caplog.text


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_job_that_raises_is_logged_and_others_run(error: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    scheduler = Scheduler()

    def fail() -> None:
        raise error

    for _ in range(2 * MAX_HELPERS[CALLBACKS]):
        scheduler.run(fail)
    done = threading.Event()
    scheduler.run(done.set)
    assert done.wait(PATIENCE)
    until(lambda: scheduler._pools[CALLBACKS].helpers == 0, "the workers to end")
    assert error.__name__ in caplog.text


def test_exception_while_worker_thread_yields_is_logged_and_jobs_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For example, a gevent timeout that a callback has started and not closed."""

    def yield_now() -> None:
        raise TimeoutError("left behind")

    monkeypatch.setattr(thread_pool, "yield_now", yield_now)
    monkeypatch.setattr(thread_pool, "is_green", lambda: True)
    monkeypatch.setattr(thread_pool, "TIME_SLICE_SECONDS", -1.0)
    scheduler, called = Scheduler(), list[int]()
    for number in range(MAX_HELPERS[CALLBACKS] + 1):
        scheduler.run(lambda number=number: called.append(number))  # type: ignore[misc]
    until(lambda: len(called) == MAX_HELPERS[CALLBACKS] + 1, "all jobs")
    until(lambda: scheduler._pools[CALLBACKS].helpers == 0, "the workers to end")
    assert "left behind" in caplog.text


def test_waiter_woken_before_or_during_its_wait_returns_once() -> None:
    waiter = make_waiter()
    waiter.wake_with(b"x")
    assert waiter.wait() == b"x"
    waker = threading.Thread(target=waiter.wake_with, args=(b"y",))
    waker.start()
    assert waiter.wait() == b"y"
    waker.join(PATIENCE)
    waiter.wake()
    with pytest.raises(RuntimeError):
        waiter.wake()
    assert waiter.wait() is None
