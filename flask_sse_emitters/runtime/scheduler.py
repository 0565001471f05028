"""The one background thread of a process: it keeps time, waits for descriptors, and passes callbacks to other threads.

It does four kinds of work, and none holds up another:

* Timers are called on the thread itself. They are this package's own, short, and never block.
* So are readers: calls for a descriptor that can be read. One descriptor stands for the sockets of all clients.
* Work that takes longer than a moment does a slice at a time, and is called again after the others.
* Jobs run on a few helper threads, which live while there are jobs: callbacks are foreign code, and may block.

The thread starts when it is first needed, so never at import and never before a fork; a forked child starts its own.
Where gevent has patched threads, all of these are greenlets.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing

from .calls import call_and_log
from .fork import reset_after_fork
from .gevent_loop import LOOK_SECONDS, TIME_SLICE_SECONDS, is_green, on_main_loop, unpatched, yield_now
from .locks import native_lock
from .thread_pool import THREAD_RETRY_SECONDS, ThreadPool
from .timers import Timer, TimerQueue
from .waiter import Selector, Waiter, WakeupSocket, make_selector, make_waiter

#: The thread pools, and how many threads each has at most. Slow rules hold up no callbacks, and figures for onlookers
#: hold up neither, nor does what a broker is told of members. Jobs of a pool with one thread run in order.
CALLBACKS, RULES, FIGURES, MEMBERS = "sse-callbacks", "sse-rules", "sse-figures", "sse-members"
MAX_HELPERS = {CALLBACKS: 8, RULES: 2, FIGURES: 1, MEMBERS: 1}

#: After so many slices of work the thread looks at its readers again.
SLICES_PER_TURN = 8

#: So many timers are called in a row while other calls wait. When thousands of clients come at once, more timers are
#: due than there is time for, and other calls would wait for all of them.
TIMERS_IN_A_ROW = 16

#: Where yielding takes longer than a slice, a slice grows to this many times as long, at most to so many seconds. A
#: thread that computes gives the interpreter back after 5 ms only: background work then gets as much.
GREENLETS_SHARE, THREADS_SHARE = 0.25, 1.0
LONGEST_SLICE_SECONDS = 0.02

#: The operating system takes no more than some weeks.
MAX_SLEEP_SECONDS = 3600.0


class Scheduler:
    """Timers, readers, calls and jobs in the background. Any thread may call any method, and none blocks.

    :param clock: gives the time in seconds; must be monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._wakeup: WakeupSocket | None = None
        self._selector: Selector | None = None
        self._reset()
        reset_after_fork(self._reset)

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        """Call on the background thread once the clock shows this time. O(log n). The call must not block."""
        return self._add(Timer(when, call))

    def call_again(self, timer: Timer, when: float) -> Timer:
        """Have a timer that has made its call make it again, as :meth:`call_at`; return the timer.

        Heartbeats of thousands of clients are thousands of timers a minute: new ones would outlive the garbage
        collector's young generations, and bring its next full collection near, which stops everything.
        """
        timer.when = when
        timer.call, timer.called = timer.called, None
        return self._add(timer)

    def call_soon(self, call: Callable[[], object]) -> None:
        """Call on the background thread as soon as it gets there. The call must not block.

        Work that takes longer than a moment does a slice of it, and returns True to be called again after the others.
        """
        self._soon.append(call)
        self._wake()

    def cancel(self, timer: Timer) -> None:
        """Release the timer's call, which is never made then. Idempotent, and too late once it is made."""
        self._timers.cancel(timer)
        if self._timers.has_many_cancelled:
            self._wake()

    def run(self, job: Callable[[], object], pool: str = CALLBACKS) -> None:
        """Run foreign code soon, on a helper thread, where it may block and raise.

        :param pool: one of :data:`MAX_HELPERS`.
        """
        self._pools[pool].put(job)
        self._wake()

    def is_writer(self) -> bool:
        """Return whether the caller may write to clients that were handed off: one thread of a process does.

        Where threads are greenlets that is the main event loop; elsewhere it is the background thread.
        """
        return on_main_loop() if is_green() else threading.get_ident() == self._thread

    @property
    def is_calling(self) -> bool:
        """Whether foreign code waits to be run, or runs."""
        return any(pool.is_busy for pool in self._pools.values())

    def add_reader(self, descriptor: int, call: Callable[[], object]) -> None:
        """Call on the background thread whenever this descriptor can be read, for as long as the process lives."""
        with self._lock:
            self._readers.append((descriptor, call))
        self._wake()

    def _reset(self) -> None:
        if self._selector is not None:  # before them: gevent's event loop aborts where it looks at what is closed
            self._selector.close()
        if self._wakeup is not None:
            self._wakeup.close()
        self._lock = native_lock()
        self._timers = TimerQueue()
        self._soon: deque[Callable[[], object]] = deque()
        self._pools = {name: ThreadPool(name, most) for name, most in MAX_HELPERS.items()}
        self._readers: list[tuple[int, Callable[[], object]]] = []
        self._running = False
        self._thread: int | None = None  # the background thread
        self._timers_in_a_row = 0  # since the last other call
        self._awake = True  # no need to wake the thread: it has not looked yet, or is about to look
        self._wakeup = None
        self._selector = None

    def _add(self, timer: Timer) -> Timer:
        is_first = self._timers.add(timer)
        if is_first or not self._running:
            self._wake()
        return timer

    def _wake(self) -> None:
        with self._lock:
            asleep, self._awake = not self._awake, True
        if not self._running:
            self._start()
        elif asleep and self._wakeup is not None:
            self._wakeup.wake()

    def _start(self) -> None:
        if not on_main_loop():  # the next call from there starts it
            return
        with self._lock:
            if self._running:
                return
            self._running = True
        wakeup = selector = None
        try:
            self._wakeup = wakeup = WakeupSocket()
            self._selector = selector = make_selector()
            threading.Thread(target=self._loop, args=(wakeup, selector), name="sse-scheduler", daemon=True).start()
        except (OSError, RuntimeError):  # the system has no descriptor, or no thread, now
            self._running = False
            if wakeup is not None:
                wakeup.close()
            if selector is not None:
                selector.close()
            raise

    def _loop(self, wakeup: WakeupSocket, selector: Selector) -> None:
        self._thread = threading.get_ident()
        try:
            with closing(selector):
                selector.register(wakeup.fileno(), wakeup.drain)
                self._serve(wakeup, selector)
        except BaseException:
            self._running = False  # the next call that needs it starts it again
            wakeup.close()
            raise
        # In a forked child gevent goes on with the parent's greenlets. Threads that end there are unknown to threading.
        make_waiter().wait()

    def _serve(self, wakeup: WakeupSocket, selector: Selector) -> None:
        registered = 0
        while self._wakeup is wakeup:
            for descriptor, call in self._readers[registered:]:
                selector.register(descriptor, call)
                registered += 1
            for pool in self._pools.values():
                if not pool.start_helpers():
                    self.call_at(self.clock() + THREAD_RETRY_SECONDS, pool.try_again)
            ready = selector.select(self._sleep_seconds(registered))
            if self._wakeup is not wakeup:
                return
            for call in ready:
                call_and_log(call)
            with self._lock:
                self._awake = True
            self._call_due()

    def _sleep_seconds(self, registered: int) -> float | None:
        """Return how long the thread may sleep now, None for until it is woken."""
        with self._lock:
            self._awake = False  # from here on what is added wakes it
        nearest = self._timers.nearest()
        if self._soon or len(self._readers) > registered or any(pool.wants_helper() for pool in self._pools.values()):
            return 0.0
        return None if nearest is None else min(max(0.0, nearest - self.clock()), MAX_SLEEP_SECONDS)

    def _call_due(self) -> None:
        slices, slice_ends = 0, time.monotonic() + TIME_SLICE_SECONDS
        while slices < SLICES_PER_TURN and (call := self._next_call()) is not None:
            if call_and_log(call) is True:
                self._soon.append(call)
            if (now := time.monotonic()) > slice_ends:
                yield_now()
                slices, slice_ends = slices + 1, _slice_ends(now, time.monotonic())

    def _next_call(self) -> Callable[[], object] | None:
        """Return what is due, and what is to be called soon, in turns."""
        if self._soon and self._timers_in_a_row >= TIMERS_IN_A_ROW:
            self._timers_in_a_row = 0
            return self._soon.popleft()
        due = self._timers.pop_due(self.clock())
        if due is not None:
            self._timers_in_a_row += 1
            return due
        self._timers_in_a_row = 0
        return self._soon.popleft() if self._soon else None


def _slice_ends(yielded: float, resumed: float) -> float:
    """Return when to yield again: a slice is nothing where a turn of the others takes a hundred times as long."""
    share = GREENLETS_SHARE if is_green() else THREADS_SHARE
    return resumed + min(max(TIME_SLICE_SECONDS, share * (resumed - yielded)), LONGEST_SLICE_SECONDS)


#: The scheduler of this process.
SCHEDULER = Scheduler()


def start_on_main_loop(start: Callable[[], object]) -> None:
    """Call what starts a thread, where that is a greenlet that lives: on a thread of its own it would end with that.

    :raises RuntimeError: where the system has no thread, if it was called at once.
    """
    if on_main_loop():
        start()
    else:
        SCHEDULER.call_soon(start)


class Sleeper:
    """Lets one thread, or greenlet, sleep for a time, or until it is woken: by any thread, at any time."""

    __slots__ = ("_is_woken", "_lock", "_waiter")

    def __init__(self) -> None:
        self._lock = native_lock()
        self._waiter: Waiter | None = None  # while it sleeps
        self._is_woken = False  # though it did not sleep: its next sleep is none

    def sleep(self, seconds: float | None) -> None:
        """Sleep for so long at most; None is without end. It may wake up for no reason."""
        if not on_main_loop():
            self._sleep_natively(seconds)
            return
        waiter = make_waiter()
        with self._lock:
            if self._is_woken:
                self._is_woken = False
                return
            self._waiter = waiter
        timer = None if seconds is None else SCHEDULER.call_at(SCHEDULER.clock() + seconds, self.wake)
        try:
            waiter.wait()
        finally:
            with self._lock:
                self._waiter = None  # it may have been interrupted
            if timer is not None:
                SCHEDULER.cancel(timer)

    def wake(self) -> None:
        """Wake it, or have its next sleep end at once. Never blocks."""
        with self._lock:
            waiter, self._waiter = self._waiter, None
            self._is_woken = waiter is None
        if waiter is not None:
            waiter.wake()

    def _sleep_natively(self, seconds: float | None) -> None:
        """Sleep in a thread of the operating system beside gevent: its own event loop would end, with nothing to do."""
        sleep, until = unpatched("time", "sleep"), None if seconds is None else time.monotonic() + seconds
        while not self._is_woken and (until is None or time.monotonic() < until):
            sleep(LOOK_SECONDS)
        self._is_woken = False
