"""The one background thread of a process: it keeps time, watches descriptors, and sends callbacks on their way.

Four kinds of work meet here, and none waits for another:

* Timers run on the thread itself. They are this package's own, short, and never block.
* Readers, too: whoever watches many sockets registers one descriptor that stands for all of them.
* Whoever has more to do than a moment allows does a slice of it, and is called again after the others.
* Jobs run on a few helper threads, which live while there are jobs: callbacks are foreign code, and may block.

The thread starts when it is first needed, so never at import and never before a fork; a forked child starts afresh.
Under gevent's patching all of these threads are greenlets.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing

from .calls import call_and_log
from .fork import reset_after_fork
from .gevent_loop import TIME_SLICE_SECONDS, on_main_loop, yield_now
from .locks import native_lock
from .selecting import Selector, selector
from .thread_pool import ThreadPool
from .waiter import WakeupSocket, make_waiter

#: What runs on helper threads, and how much of it at once; more waits for some of it to end. Slow rules hold up no
#: callbacks, and whoever looks on holds up neither. Jobs of a pool with one helper run in order.
CALLBACKS, RULES, FIGURES = "sse-callbacks", "sse-rules", "sse-figures"
MAX_HELPERS = {CALLBACKS: 8, RULES: 2, FIGURES: 1}

#: After so many slices of work the thread looks at its readers again.
SLICES = 8

#: So many timers are called in a row while other calls wait. Where more are due than there is time for, as when
#: thousands of clients come at once, those would else wait for all of them.
IN_A_ROW = 16

#: Whoever works in the background has this share of the time, where others need more than a moment when it gives way,
#: and this many seconds in one go at most.
SHARE, LONGEST_SLICE = 0.25, 0.02

#: Seconds until the system is asked again for a helper thread that it did not give.
NO_THREAD_SECONDS = 0.25

#: Seconds; the operating system takes no more than some weeks.
LONGEST_REST = 3600.0

#: Cancelled timers stay in the queue until their time, unless they are a quarter of all, and more than this many.
CANCELLED_KEPT = 128


class Timer:
    """A call to come, made by :meth:`Scheduler.call_at`."""

    __slots__ = ("call", "called", "next", "when")

    def __init__(self, when: float, call: Callable[[], object]) -> None:
        self.when = when
        self.next = self  # of the same time, for as long as it is waited for; after the last comes the first
        self.call: Callable[[], object] | None = call  # None once called or cancelled
        self.called: Callable[[], object] | None = None  # that, once it was called


class Scheduler:
    """Timers, readers and jobs. Every method may be called from any thread, and none blocks.

    :param clock: gives the time in seconds; must be monotonic.
    """

    _timers: dict[float, Timer]  # the last one of each time: heartbeats of thousands of clients share a few times
    _times: list[float]  # a heap of these times
    _count: int  # of timers, and of those that were cancelled
    _cancelled: int
    _readers: list[tuple[int, Callable[[], object]]]
    _wakeup: WakeupSocket | None = None
    _descriptors: Selector | None = None

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._reset()
        reset_after_fork(self._reset)

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        """Call on the background thread once the clock shows this time. O(log n). The call must not block."""
        return self._add(Timer(when, call))

    def call_again(self, timer: Timer, when: float) -> Timer:
        """As :meth:`call_at`, what this timer has called: it is used once more.

        Heartbeats of thousands of clients are thousands of timers a minute. New ones would outlive the garbage
        collector's young generations, and bring its next full collection near, which stops everybody.
        """
        timer.when, timer.next = when, timer
        timer.call, timer.called = timer.called, None
        return self._add(timer)

    def _add(self, timer: Timer) -> Timer:
        with self._lock:
            self._insert(timer)
            first = self._times[0] == timer.when and timer.next is timer
        if first or not self._running:
            self._wake()
        return timer

    def call_soon(self, call: Callable[[], object]) -> None:
        """Call on the background thread as soon as it gets there. The call must not block.

        What takes longer than a moment does a slice of it, and returns True to be called again after the others.
        """
        self._soon.append(call)
        self._wake()

    def cancel(self, timer: Timer) -> None:
        """Do not call, and let go of what would have been called. Again, or too late, is nothing."""
        with self._lock:
            call, timer.call = timer.call, None
            if call is None:
                return
            self._cancelled += 1
            if self._cancelled > CANCELLED_KEPT and self._cancelled * 4 > self._count:
                every = [self._remove_first() for _ in range(self._count)]
                for other in every:
                    if other.call is not None:
                        self._insert(other)

    def run(self, job: Callable[[], object], pool: str = CALLBACKS) -> None:
        """Run foreign code soon, on a helper thread, where it may block and raise.

        :param pool: one of :data:`MAX_HELPERS`.
        """
        self._pools[pool].put(job)
        self._wake()

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
        if self._descriptors is not None:  # before them: gevent's event loop aborts where it looks at what is closed
            self._descriptors.close()
        if self._wakeup is not None:
            self._wakeup.close()
        self._lock = native_lock()
        self._timers = {}
        self._times = []
        self._count = self._cancelled = 0
        self._soon: deque[Callable[[], object]] = deque()
        self._pools = {name: ThreadPool(name, most) for name, most in MAX_HELPERS.items()}
        self._readers = []
        self._running = False
        self._in_a_row = 0  # so many timers, since the last call that had been asked for soon
        self._awake = True  # nobody needs to wake the thread: it has not looked yet, or is about to look
        self._wakeup = None
        self._descriptors = None

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
        wakeup = descriptors = None
        try:
            self._wakeup = wakeup = WakeupSocket()
            self._descriptors = descriptors = selector()
            threading.Thread(target=self._loop, args=(wakeup, descriptors), name="sse-scheduler", daemon=True).start()
        except (OSError, RuntimeError):  # no descriptor, or no thread, to be had now
            self._running = False
            if wakeup is not None:
                wakeup.close()
            if descriptors is not None:
                descriptors.close()
            raise

    def _loop(self, wakeup: WakeupSocket, descriptors: Selector) -> None:
        try:
            with closing(descriptors):
                descriptors.register(wakeup.fileno(), wakeup.drain)
                self._serve(wakeup, descriptors)
        except BaseException:
            self._running = False  # whoever needs it next starts it again
            wakeup.close()
            raise
        # In a forked child gevent goes on with the parent's greenlets. Threads that end there are unknown to threading.
        make_waiter().wait()

    def _serve(self, wakeup: WakeupSocket, descriptors: Selector) -> None:
        registered = 0
        while self._wakeup is wakeup:
            for descriptor, call in self._readers[registered:]:
                descriptors.register(descriptor, call)
                registered += 1
            for pool in self._pools.values():
                if not pool.start_helpers():
                    self.call_at(self.clock() + NO_THREAD_SECONDS, pool.try_again)
            ready = descriptors.select(self._rest(registered))
            if self._wakeup is not wakeup:
                return
            for call in ready:
                call_and_log(call)
            with self._lock:
                self._awake = True
            self._call_due()

    def _rest(self, registered: int) -> float | None:
        """How long the thread may sleep now, None for as long as nobody wakes it."""
        with self._lock:
            self._awake = False  # from here on whoever brings something wakes it
            while self._times and self._timers[self._times[0]].next.call is None:
                self._remove_first()
            rest = min(max(0.0, self._times[0] - self.clock()), LONGEST_REST) if self._times else None
        if self._soon or len(self._readers) > registered or any(pool.wants_helper() for pool in self._pools.values()):
            return 0.0
        return rest

    def _call_due(self) -> None:
        slices, slice_ends = 0, time.monotonic() + TIME_SLICE_SECONDS
        while slices < SLICES and (call := self._next_call()) is not None:
            if call_and_log(call) is True:
                self._soon.append(call)
            if (now := time.monotonic()) > slice_ends:
                yield_now()
                slices, slice_ends = slices + 1, _slice_ends(now, time.monotonic())

    def _next_call(self) -> Callable[[], object] | None:
        """What is due, and what is to be called soon, in turns."""
        if self._soon and self._in_a_row >= IN_A_ROW:
            self._in_a_row = 0
            return self._soon.popleft()
        due = self._pop_due()
        if due is not None:
            self._in_a_row += 1
            return due
        self._in_a_row = 0
        return self._soon.popleft() if self._soon else None

    def _pop_due(self) -> Callable[[], object] | None:
        now = self.clock()
        with self._lock:
            while self._times and self._times[0] <= now:
                timer = self._remove_first()
                if timer.call is not None:
                    call, timer.call = timer.call, None
                    timer.called = call
                    return call
        return None

    def _remove_first(self) -> Timer:
        last = self._timers[self._times[0]]
        timer = last.next
        if timer is last:
            del self._timers[heapq.heappop(self._times)]
        last.next = timer.next
        del timer.next  # which may be itself: it is not to wait for the garbage collector
        self._count -= 1
        self._cancelled -= timer.call is None
        return timer

    def _insert(self, timer: Timer) -> None:
        last = self._timers.get(timer.when)
        if last is None:
            timer.next = timer
            heapq.heappush(self._times, timer.when)
        else:
            last.next, timer.next = timer, last.next
        self._timers[timer.when] = timer
        self._count += 1


def _slice_ends(gave_way: float, came_back: float) -> float:
    """When to give way again: a slice of time is nothing where a turn of the others takes a hundred."""
    return came_back + min(max(TIME_SLICE_SECONDS, SHARE * (came_back - gave_way)), LONGEST_SLICE)


#: The scheduler of this process.
SCHEDULER = Scheduler()
