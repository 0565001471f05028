"""Timers, readers and jobs on the one background thread of a process."""

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

from .clock import ManualScheduler
from .waiting import PATIENCE, until


def test_a_timer_that_has_fired_is_used_once_more(scheduler: ManualScheduler) -> None:
    called: list[float] = []
    timer = scheduler.call_at(scheduler.now + 1, lambda: called.append(scheduler.now))
    scheduler.pass_time(2)
    assert scheduler.call_again(timer, scheduler.now + 1) is timer
    scheduler.pass_time(2)
    scheduler.call_again(timer, scheduler.now + 1)
    scheduler.cancel(timer)
    scheduler.pass_time(2)
    assert called == [1001.0, 1003.0]


def test_timers_fire_in_the_order_of_their_times(scheduler: ManualScheduler) -> None:
    fired: list[str] = []
    for delay, name in ((3, "c"), (1, "a"), (2, "b"), (1, "a, set later")):
        scheduler.call_at(scheduler.now + delay, lambda name=name: fired.append(name))  # type: ignore[misc]
    scheduler.pass_time(0.9)
    assert fired == []
    scheduler.pass_time(5)
    assert fired == ["a", "a, set later", "b", "c"]


def test_a_cancelled_timer_never_fires_and_lets_go_of_its_call(scheduler: ManualScheduler) -> None:
    timer = scheduler.call_at(scheduler.now + 1, lambda: pytest.fail("it was cancelled"))
    scheduler.cancel(timer)
    scheduler.cancel(timer)
    assert timer.call is None
    scheduler.pass_time(2)


def test_cancelled_timers_do_not_gather(scheduler: ManualScheduler) -> None:
    kept = scheduler.call_at(scheduler.now + 9999, lambda: None)
    for _ in range(10_000):
        scheduler.cancel(scheduler.call_at(scheduler.now + 1800, lambda: None))
    scheduler.pass_time(0)
    assert len(scheduler._timers) == 1
    assert scheduler.live_timers() == [kept]


def test_nobody_wakes_for_timers_that_were_cancelled() -> None:
    scheduler, fired = Scheduler(), threading.Event()
    rests: list[float | None] = []
    original = scheduler._sleep_seconds
    scheduler._sleep_seconds = lambda registered: rests.append(original(registered)) or rests[-1]  # type: ignore[method-assign,func-returns-value]
    for number in range(100):
        scheduler.cancel(scheduler.call_at(scheduler.clock() + 0.2 + number / 1000, pytest.fail))
    scheduler.call_at(scheduler.clock() + 0.5, fired.set)
    assert fired.wait(PATIENCE)
    assert len(rests) < 100


def test_a_timer_that_raises_is_logged_and_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    scheduler = Scheduler()
    fired = threading.Event()
    scheduler.call_at(0, lambda: 1 / 0)
    scheduler.call_at(0, fired.set)
    assert fired.wait(PATIENCE)
    assert "ZeroDivisionError" in caplog.text


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads that this test starts: those of other schedulers in this process do not count."""
    threads: list[threading.Thread] = []
    start = threading.Thread.start

    def note_and_start(thread: threading.Thread) -> None:
        if thread._target.__self__ is not SCHEDULER:  # type: ignore[attr-defined]
            threads.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note_and_start)
    return threads


def test_nothing_starts_before_it_is_needed_and_then_one_thread(started: list[threading.Thread]) -> None:
    scheduler = Scheduler()
    assert started == []
    for _ in range(100):
        scheduler.call_at(scheduler.clock() + 1000, lambda: None)
    assert [(thread.name, thread.daemon) for thread in started] == [("sse-scheduler", True)]


def test_blocked_callbacks_delay_no_timer() -> None:
    """As many callbacks as ever run at once block; timers that are due all the while fire before they end."""
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
    assert not blocked.acquire(blocking=False), "more helpers than the bound"
    release.set()
    for _ in range(2 * MAX_HELPERS[CALLBACKS]):
        assert blocked.acquire(timeout=PATIENCE)
    until(lambda: scheduler._pools[CALLBACKS].helpers == 0, "the helpers to end")


def test_jobs_that_raise_are_logged_and_stop_no_other(caplog: pytest.LogCaptureFixture) -> None:
    scheduler = Scheduler()
    done = threading.Event()
    scheduler.run(lambda: [][0])
    scheduler.run(done.set)
    assert done.wait(PATIENCE)
    until(lambda: "IndexError" in caplog.text, "the log")


def test_where_no_thread_can_be_started_callbacks_wait_until_one_can(
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


def test_scheduler_without_a_thread_for_jobs_serves_timers_and_calls(monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert refusals == 1, "the system is not asked again before its time, and nothing else waits for that"
    monkeypatch.setattr(threading.Thread, "start", start)
    now = THREAD_RETRY_SECONDS
    scheduler.call_soon(lambda: None)
    assert done.wait(PATIENCE)


def test_a_job_that_ends_its_thread_ends_no_other(caplog: pytest.LogCaptureFixture) -> None:
    scheduler = Scheduler()

    def leave() -> None:
        raise SystemExit

    for _ in range(2 * MAX_HELPERS[CALLBACKS]):
        scheduler.run(leave)
    done = threading.Event()
    scheduler.run(done.set)
    assert done.wait(PATIENCE)
    until(lambda: scheduler._pools[CALLBACKS].helpers == 0, "the helpers to end")
    assert "SystemExit" in caplog.text


def test_deliveries_do_not_wait_for_callbacks() -> None:
    scheduler = Scheduler()
    release, delivered = threading.Event(), threading.Event()
    for _ in range(2 * MAX_HELPERS[CALLBACKS]):
        scheduler.run(lambda: release.wait(PATIENCE))
    scheduler.call_soon(delivered.set)
    assert delivered.wait(PATIENCE)
    release.set()


def test_one_job_takes_one_helper(started: list[threading.Thread]) -> None:
    scheduler = Scheduler()
    done = threading.Event()
    scheduler.run(done.set)
    assert done.wait(PATIENCE)
    assert sorted(thread.name for thread in started) == ["sse-callbacks", "sse-scheduler"]


def test_a_timer_may_be_months_away() -> None:
    scheduler = Scheduler()
    scheduler.call_at(scheduler.clock() + 100 * 86_400, lambda: pytest.fail("not yet"))
    fired = threading.Event()
    scheduler.call_at(scheduler.clock() + 0.01, fired.set)
    assert fired.wait(PATIENCE)
    again = threading.Event()
    scheduler.call_at(0, again.set)
    assert again.wait(PATIENCE), "the background thread survives"


@pytest.mark.parametrize("missing", ["socketpair", "DefaultSelector", "thread"])
def test_where_it_cannot_start_it_says_so_and_starts_the_next_time(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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
def test_a_background_thread_that_dies_is_replaced_by_the_next_who_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Scheduler()
    read_end, write_end = os.pipe()
    heard: list[bytes] = []
    scheduler.add_reader(read_end, lambda: heard.append(os.read(read_end, 100)))
    until(lambda: scheduler._running, "the background thread")

    broken: list[threading.Thread] = []

    def break_down() -> None:
        broken.append(threading.current_thread())
        raise OSError("the selector is broken")

    with monkeypatch.context() as patch:
        patch.setattr(scheduler, "_call_due", break_down)
        scheduler.call_at(0, lambda: None)
        until(lambda: not scheduler._running, "its end")
    broken[0].join(PATIENCE)  # so that what it ended with is known to be this test's
    os.write(write_end, b"x")
    fired = threading.Event()
    scheduler.call_at(0, fired.set)
    assert fired.wait(PATIENCE)
    until(lambda: heard == [b"x"], "the reader that it had")


def test_what_is_to_be_called_soon_is_called_in_order_on_the_background_thread() -> None:
    scheduler, called = Scheduler(), []
    for number in range(100):
        scheduler.call_soon(lambda number=number: called.append((number, threading.current_thread().name)))  # type: ignore[misc]
    until(lambda: len(called) == 100, "all calls")
    assert called == [(number, "sse-scheduler") for number in range(100)]
    scheduler.call_soon(lambda: called.clear())
    until(lambda: not called, "a call that wakes the thread")


def test_a_long_job_goes_on_after_those_that_wait() -> None:
    scheduler, done, begin = Scheduler(), [], threading.Event()

    def job(name: str) -> bool:
        assert begin.wait(PATIENCE)
        done.append(name)
        return done.count(name) < 3

    for name in ("a", "b", "c", "d", "e"):
        scheduler.call_soon(lambda name=name: job(name))  # type: ignore[misc]
    begin.set()
    until(lambda: len(done) == 15, "all slices of all jobs")
    assert set(done[:5]) == {"a", "b", "c", "d", "e"}, "each has its first before any has its last"


def test_one_who_is_called_again_and_again_holds_up_neither_timers_nor_readers_nor_callbacks() -> None:
    scheduler, stop = Scheduler(), threading.Event()
    fired, heard, ran = threading.Event(), threading.Event(), threading.Event()
    read_end, write_end = os.pipe()

    def always() -> bool:
        time.sleep(0.002)
        return not stop.is_set()

    for _ in range(3):
        scheduler.call_soon(always)
    scheduler.call_at(scheduler.clock() + 0.05, fired.set)
    scheduler.add_reader(read_end, lambda: os.read(read_end, 1) and heard.set())  # type: ignore[func-returns-value]
    os.write(write_end, b"x")
    scheduler.run(ran.set)
    for event in (fired, heard, ran):
        assert event.wait(PATIENCE)
    assert scheduler._soon, "and it goes on"
    stop.set()


def test_a_reader_is_called_when_its_descriptor_can_be_read() -> None:
    scheduler = Scheduler()
    read_end, write_end = os.pipe()
    heard: list[bytes] = []
    scheduler.add_reader(read_end, lambda: heard.append(os.read(read_end, 100)))
    os.write(write_end, b"x")
    until(lambda: heard == [b"x"], "the reader")
    os.write(write_end, b"y")
    until(lambda: heard == [b"x", b"y"], "the reader, again")


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_starts_afresh() -> None:
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
    assert fired.wait(PATIENCE), "the parent goes on"


def test_twenty_thousand_pending_timers_cost_nothing() -> None:
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


def test_what_is_raised_in_a_helper_while_it_gives_way_ends_no_helper(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A timeout of gevent that a callback has begun and left behind, say."""

    def yield_now() -> None:
        raise TimeoutError("left behind")

    monkeypatch.setattr(thread_pool, "yield_now", yield_now)
    monkeypatch.setattr(thread_pool, "is_green", lambda: True)
    monkeypatch.setattr(thread_pool, "TIME_SLICE_SECONDS", -1.0)
    scheduler, called = Scheduler(), list[int]()
    for number in range(MAX_HELPERS[CALLBACKS] + 1):
        scheduler.run(lambda number=number: called.append(number))  # type: ignore[misc]
    until(lambda: len(called) == MAX_HELPERS[CALLBACKS] + 1, "all jobs")
    until(lambda: scheduler._pools[CALLBACKS].helpers == 0, "the helpers to end")
    assert "left behind" in caplog.text
