"""Who listens to one channel that is kept in memory, and what is still to be delivered to them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from ...runtime.scheduler import Scheduler
from ...wire.frame import Frame
from ..base import Listener, Start


class Audience:
    """The listeners of one channel. Events are delivered in their order, by one thread at a time.

    :param guard: the lock of the channel's log. Where a method says so, the caller holds it.
    :ivar listeners: to whom events are delivered.
    """

    __slots__ = ("_calls", "_guard", "_is_delivering", "_restart", "_scheduler", "_undelivered", "listeners")

    def __init__(self, guard: AbstractContextManager[object], scheduler: Scheduler) -> None:
        self._guard = guard
        self._scheduler = scheduler
        self.listeners: tuple[Listener, ...] = ()
        self._undelivered: list[Frame] = []
        self._restart: tuple[int, Start] | None = None  # so many of these are delivered before all start again
        self._calls: list[Callable[[], object]] = []  # to make once all of these are delivered
        self._is_delivering = False  # some thread is: others leave their events to it

    def put(self, frame: Frame) -> None:
        """Have an event delivered by the next :meth:`deliver`. The caller holds the lock."""
        if self.listeners:
            self._undelivered.append(frame)

    def restart(self, start: Start) -> None:
        """Have all start again once what was put before is delivered, by the next :meth:`deliver`.

        The caller holds the lock.
        """
        if self.listeners:
            self._restart = len(self._undelivered), start

    def when_delivered(self, call: Callable[[], object]) -> None:
        """Call this once the events published so far are delivered: at once, where they are."""
        with self._guard:
            self._calls.append(call)
        self.deliver()

    def deliver(self) -> None:
        """Deliver the new events to the listeners, in order, unless another thread is doing so.

        One pass only: then the publisher goes on with its own work, and the events that others have published
        meanwhile are delivered in the background.
        """
        if self._has_more and self._deliver():
            self._scheduler.call_soon(self._deliver)

    def _deliver(self) -> bool:
        """:return: whether there is more to deliver, and no thread doing so."""
        with self._guard:
            if self._is_delivering or not self._has_more:
                return False
            listeners, frames, calls, restart = self.listeners, self._undelivered, self._calls, self._restart
            self._is_delivering, self._undelivered, self._calls, self._restart = True, [], [], None
        is_done = False
        try:
            for listener in listeners:
                _tell(listener, frames, restart)
            is_done = True
        finally:  # also after an interrupt of this thread: then the next one delivers them again
            with self._guard:
                if not is_done:
                    self._take_back(frames, calls, restart)
                self._is_delivering = False
        for call in calls:
            call()
        return self._has_more

    @property
    def _has_more(self) -> bool:
        return bool(self._undelivered or self._calls or self._restart)

    def _take_back(
        self, frames: list[Frame], calls: list[Callable[[], object]], restart: tuple[int, Start] | None
    ) -> None:
        self._undelivered, self._calls = frames + self._undelivered, calls + self._calls
        if self._restart is None:
            self._restart = restart
        else:
            before, start = self._restart
            self._restart = len(frames) + before, start


def _tell(listener: Listener, frames: list[Frame], restart: tuple[int, Start] | None) -> None:
    if restart is None:
        listener.arrived(frames)
        return
    before, start = restart
    listener.arrived(frames[:before])
    listener.started(start)
    listener.arrived(frames[before:])
