"""Waiting for room: until the client of a stream has taken something."""

from __future__ import annotations

import math
from collections.abc import Callable

from ...runtime.gevent_loop import in_hub
from ...runtime.locks import Lock
from ...runtime.scheduler import Scheduler, Sleeper


class Room:
    """Those who wait for room in one stream, on threads of their own, or greenlets.

    Made for the first that waits: most streams have none.

    :param lock: of the stream; it guards those who wait.
    """

    __slots__ = ("_lock", "_scheduler", "_waiting")

    def __init__(self, lock: Lock, scheduler: Scheduler) -> None:
        self._lock = lock
        self._scheduler = scheduler
        self._waiting: tuple[Sleeper, ...] = ()

    def wait_until(self, condition: Callable[[], bool], until: float = math.inf) -> bool:
        """Wait until a condition holds, which is asked now, and after each :meth:`notify`.

        :param condition: is called under the lock.
        :param until: by the scheduler's clock; then it is asked for the last time. In gevent's event loop itself, which
            must not wait, that is now.
        :return: whether it held.
        """
        sleeper = Sleeper()
        while True:
            with self._lock:
                if condition():
                    return True
                left = until - self._scheduler.clock()
                if in_hub() or left <= 0:
                    return False
                self._waiting += (sleeper,)
            try:
                sleeper.sleep(None if until == math.inf else left)
            finally:
                with self._lock:
                    self._waiting = tuple(other for other in self._waiting if other is not sleeper)

    def notify(self) -> None:
        """Have all who wait ask again. From any thread, without the lock."""
        for sleeper in self._waiting:
            sleeper.wake()
