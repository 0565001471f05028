"""Timers, readers, calls and jobs of the scheduler, which has one background thread in a process."""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time

import psutil
import pytest

from flask_sse_emitters.runtime import thread_pool
from flask_sse_emitters.runtime.scheduler import CALLBACKS, MAX_HELPERS, SCHEDULER, Scheduler
from flask_sse_emitters.runtime.thread_pool import THREAD_RETRY_SECONDS
from tests.support.waiting import PATIENCE, until
from tests.unit.doubles.clock import ManualScheduler


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


def test_timers_fire_in_order_of_time(scheduler: ManualScheduler) -> None:
    fired: list[str] = []
    for delay, name in ((3, "c"), (1, "a"), (2, "b"), (1, "a, set later")):
        scheduler.call_at(scheduler.now + delay, lambda name=name: fired.append(name))  # type: ignore[misc]
    scheduler.pass_time(0.9)
    assert fired == []
    scheduler.pass_time(5)
    assert fired == ["a", "a, set later", "b", "c"]


def test_cancelled_timer_never_fires_and_releases_its_call(scheduler: ManualScheduler) -> None:
    timer = scheduler.call_at(scheduler.now + 1, lambda: pytest.fail("it was cancelled"))
    scheduler.cancel(timer)
    scheduler.cancel(timer)
    assert timer.call is None
    scheduler.pass_time(2)


def test_cancelled_timers_are_removed(scheduler: ManualScheduler) -> None:
    kept = scheduler.call_at(scheduler.now + 9999, lambda: None)
    for _ in range(10_000):
        scheduler.cancel(scheduler.call_at(scheduler.now + 1800, lambda: None))
    scheduler.pass_time(0)
    assert len(scheduler._timers) == 1
    assert scheduler.live_timers() == [kept]


def test_cancelled_timers_do_not_wake_the_thread() -> None:
    scheduler, fired = Scheduler(), threading.Event()
    rests: list[float | None] = []
    original = scheduler._sleep_seconds
    scheduler._sleep_seconds = lambda registered: rests.append(original(registered)) or rests[-1]  # type: ignore[method-assign,func-returns-value]
    for number in range(100):
        scheduler.cancel(scheduler.call_at(scheduler.clock() + 0.2 + number / 1000, pytest.fail))
    scheduler.call_at(scheduler.clock() + 0.5, fired.set)
    assert fired.wait(PATIENCE)
    assert len(rests) < 100


def test_timer_that_raises_is_logged_and_others_fire(caplog: pytest.LogCaptureFixture) -> None:
    scheduler = Scheduler()
    fired = threading.Event()
    scheduler.call_at(0, lambda: 1 / 0)
    scheduler.call_at(0, fired.set)
    assert fired.wait(PATIENCE)
    assert "ZeroDivisionError" in caplog.text


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads that this test starts, without those of the process's own scheduler."""
    threads: list[threading.Thread] = []
    start = threading.Thread.start

    def note_and_start(thread: threading.Thread) -> None:
        if thread._target.__self__ is not SCHEDULER:  # type: ignore[attr-defined]
            threads.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note_and_start)
    return threads


def test_scheduler_starts_one_thread_with_its_first_timer(started: list[threading.Thread]) -> None:
    scheduler = Scheduler()
    assert started == []
    for _ in range(100):
        scheduler.call_at(scheduler.clock() + 1000, lambda: None)
    assert [(thread.name, thread.daemon) for thread in started] == [("sse-scheduler", True)]


def test_blocked_callbacks_delay_no_timer() -> None:
    """Block as many callbacks as may run at once; due timers fire before they end."""
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
    now = scheduler.clock()
    for delay in range(20):
        scheduler.call_at(now + delay / 100, fired.release)
    for _ in range(20):
        assert fired.acquire(timeout=PATIENCE)
    assert not blocked.acquire(blocking=False), "more workers than the limit"
    release.set()
    for _ in range(2 * MAX_HELPERS[CALLBACKS]):
        assert blocked.acquire(timeout=PATIENCE)
    until(lambda: scheduler._pools[CALLBACKS].helpers == 0, "the workers to end")


def test_job_that_raises_is_logged_and_others_run(caplog: pytest.LogCaptureFixture) -> None:
    scheduler = Scheduler()
    done = threading.Event()
    scheduler.run(lambda: [][0])
    scheduler.run(done.set)
    assert done.wait(PATIENCE)
    until(lambda: "IndexError" in caplog.text, "the log")


def test_callback_waits_until_a_thread_can_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = Scheduler()
    scheduler.call_at(0, lambda: None)
    until(lambda: not scheduler._timers, "the background thread")
    start, refused = threading.Thread.start, threading.Event()

    def refuse(thread: threading.Thread) -> None:
        refused.set()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = threading.Event()
    scheduler.run(done.set)
    assert refused.wait(PATIENCE)
    monkeypatch.setattr(threading.Thread, "start", start)
    assert done.wait(PATIENCE)
    assert "cannot start a thread for sse-callbacks" in caplog.text


def test_scheduler_without_a_job_thread_still_serves_calls(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_job_that_raises_system_exit_is_logged_and_others_run(caplog: pytest.LogCaptureFixture) -> None:
    scheduler = Scheduler()

    def leave() -> None:
        raise SystemExit

    for _ in range(2 * MAX_HELPERS[CALLBACKS]):
        scheduler.run(leave)
    done = threading.Event()
    scheduler.run(done.set)
    assert done.wait(PATIENCE)
    until(lambda: scheduler._pools[CALLBACKS].helpers == 0, "the workers to end")
    assert "SystemExit" in caplog.text


def test_blocked_callbacks_delay_no_delivery() -> None:
    scheduler = Scheduler()
    release, delivered = threading.Event(), threading.Event()
    for _ in range(2 * MAX_HELPERS[CALLBACKS]):
        scheduler.run(lambda: release.wait(PATIENCE))
    scheduler.call_soon(delivered.set)
    assert delivered.wait(PATIENCE)
    release.set()


def test_one_job_starts_one_worker_thread(started: list[threading.Thread]) -> None:
    scheduler = Scheduler()
    done = threading.Event()
    scheduler.run(done.set)
    assert done.wait(PATIENCE)
    assert sorted(thread.name for thread in started) == ["sse-callbacks", "sse-scheduler"]


def test_timer_months_ahead_delays_no_other() -> None:
    scheduler = Scheduler()
    scheduler.call_at(scheduler.clock() + 100 * 86_400, lambda: pytest.fail("not yet"))
    fired = threading.Event()
    scheduler.call_at(scheduler.clock() + 0.01, fired.set)
    assert fired.wait(PATIENCE)
    again = threading.Event()
    scheduler.call_at(0, again.set)
    assert again.wait(PATIENCE), "the background thread survives"


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


def test_call_soon_runs_calls_in_order_on_background_thread() -> None:
    scheduler, called = Scheduler(), []
    for number in range(100):
        scheduler.call_soon(lambda number=number: called.append((number, threading.current_thread().name)))  # type: ignore[misc]
    until(lambda: len(called) == 100, "all calls")
    assert called == [(number, "sse-scheduler") for number in range(100)]
    scheduler.call_soon(lambda: called.clear())
    until(lambda: not called, "a call that wakes the thread")


def test_call_that_asks_to_continue_runs_after_waiting_calls() -> None:
    scheduler, done, begin = Scheduler(), [], threading.Event()

    def job(name: str) -> bool:
        assert begin.wait(PATIENCE)
        done.append(name)
        return done.count(name) < 3

    for name in ("a", "b", "c", "d", "e"):
        scheduler.call_soon(lambda name=name: job(name))  # type: ignore[misc]
    begin.set()
    until(lambda: len(done) == 15, "all slices of all jobs")
    assert set(done[:5]) == {"a", "b", "c", "d", "e"}, "each has its first slice before any has its last"


def test_endless_calls_delay_no_timer_reader_or_callback() -> None:
    scheduler, stop = Scheduler(), threading.Event()
    fired, received, ran = threading.Event(), threading.Event(), threading.Event()
    read_end, write_end = os.pipe()

    def always() -> bool:
        time.sleep(0.002)
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


def test_reader_is_called_when_its_descriptor_is_readable() -> None:
    scheduler = Scheduler()
    read_end, write_end = os.pipe()
    received: list[bytes] = []
    scheduler.add_reader(read_end, lambda: received.append(os.read(read_end, 100)))
    os.write(write_end, b"x")
    until(lambda: received == [b"x"], "the reader")
    os.write(write_end, b"y")
    until(lambda: received == [b"x", b"y"], "the reader, again")


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_forked_child_starts_with_no_timers_and_own_thread() -> None:
    scheduler = Scheduler()
    scheduler.call_at(0, lambda: None)
    until(lambda: not scheduler._timers, "the background thread")
    scheduler.call_at(scheduler.clock() + 1000, lambda: None)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        fired = threading.Event()
        scheduler.call_at(scheduler.clock(), fired.set)
        os.write(write_end, b"fired" if len(scheduler._timers) <= 1 and fired.wait(PATIENCE) else b"not")
        os._exit(0)
    os.close(write_end)
    assert os.read(read_end, 100) == b"fired"
    os.waitpid(child, 0)
    os.close(read_end)
    fired = threading.Event()
    scheduler.call_at(0, fired.set)
    assert fired.wait(PATIENCE), "the parent's scheduler continues"


def test_20000_pending_timers_use_no_cpu() -> None:
    """The background thread does not run at all while no timer is due."""
    scheduler = Scheduler()
    for number in range(20_000):
        scheduler.call_at(scheduler.clock() + 1000 + number, lambda: None)
    fired = threading.Event()
    scheduler.call_at(0, fired.set)
    assert fired.wait(PATIENCE)
    time.sleep(0.2)
    before = _thread_times()
    time.sleep(1.0)
    used = max(after - before.get(number, 0) for number, after in _thread_times().items() if number != _me())
    assert used <= 0.02, f"{used} s of processor time in one idle second"


def _me() -> int:
    return threading.get_native_id()


def _thread_times() -> dict[int, float]:
    return {thread.id: thread.user_time + thread.system_time for thread in psutil.Process().threads()}


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
