"""Waiting for room: until the client of a stream has taken something."""

from __future__ import annotations

import math
from collections.abc import Callable

from ...runtime.gevent_loop import in_hub
from ...runtime.locks import Lock
from ...runtime.scheduler import Scheduler
from ...runtime.waiter import Waiter, make_waiter


class Room:
    """Those who wait for room in one stream, on threads of their own, or greenlets.

    Made for the first that waits: most streams have none.

    :param lock: of the stream; it guards those who wait.
    """

    __slots__ = ("_lock", "_scheduler", "_waiting")

    def __init__(self, lock: Lock, scheduler: Scheduler) -> None:
        self._lock = lock
        self._scheduler = scheduler
        self._waiting: tuple[Waiter, ...] = ()

    def wait_until(self, condition: Callable[[], bool], until: float = math.inf) -> bool:
        """Wait until a condition holds, which is asked now, and after each :meth:`notify`.

        :param condition: is called under the lock.
        :param until: by the scheduler's clock; then it is asked for the last time. In gevent's event loop itself, which
            must not wait, that is now.
        :return: whether it held.
        """
        while True:
            with self._lock:
                if condition():
                    return True
                if in_hub() or self._scheduler.clock() >= until:
                    return False
                waiter = make_waiter()
                self._waiting += (waiter,)
            self._wait(waiter, until)

    def notify(self) -> None:
        """Have all who wait ask again. From any thread, without the lock."""
        if self._waiting:
            with self._lock:
                waiting, self._waiting = self._waiting, ()
            for waiter in waiting:
                waiter.wake()

    def _wait(self, waiter: Waiter, until: float) -> None:
        timer = None if until == math.inf else self._scheduler.call_at(until, lambda: self._give_up(waiter))
        waiter.wait()
        if timer is not None:
            self._scheduler.cancel(timer)

    def _give_up(self, waiter: Waiter) -> None:
        with self._lock:
            waits = waiter in self._waiting
            self._waiting = tuple(other for other in self._waiting if other is not waiter)
        if waits:  # else it has been woken
            waiter.wake()
