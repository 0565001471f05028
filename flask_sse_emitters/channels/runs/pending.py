"""What a run has pulled, and not published yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ...runtime.locks import native_lock
from ...runtime.scheduler import Sleeper
from ...wire.frame import Frame

#: So much of a run may wait to be published; and is published in one step.
MAX_EVENTS, MAX_BYTES = 256, 262_144


class Pending:
    """The queue between the two threads of a run.

    :param every: what comes within so many seconds is taken together.
    :param is_stopped: whether neither is to wait for the other any more.
    """

    def __init__(self, every: float, is_stopped: Callable[[], bool]) -> None:
        self._every = every
        self._is_stopped = is_stopped
        self._lock = native_lock()
        self._frames: list[Frame] = []
        self._bytes = 0
        self._since = 0.0  # when the first of them came
        self.is_finished = False  #: the last of all has come
        self._giver, self._taker = Sleeper(), Sleeper()

    @property
    def _is_full(self) -> bool:
        return len(self._frames) >= MAX_EVENTS or self._bytes >= MAX_BYTES

    def give(self, frame: Frame) -> None:
        """Add an event, and wait where there are too many."""
        with self._lock:
            is_first = not self._frames
            if is_first:
                self._since = time.monotonic()
            self._frames.append(frame)
            self._bytes += len(frame.payload)
        if is_first or self._is_full:
            self._taker.wake()
        while self._is_full and not self._is_stopped():
            self._giver.sleep(None)

    def finish(self, frames: Sequence[Frame]) -> None:
        """Add the last events."""
        with self._lock:
            self._frames += frames
            self.is_finished = True
        self._taker.wake()

    def take(self) -> tuple[list[Frame], bool]:
        """Take all that there is. Return with it whether that is the last."""
        with self._lock:
            frames, self._frames, self._bytes = self._frames, [], 0
            is_last = self.is_finished
        self._giver.wake()
        return frames, is_last

    def await_some(self, until: float) -> None:
        """Wait until something is to be taken, or for this time of the monotonic clock."""
        while not (self.is_finished or self._is_full or self._is_stopped()):
            due = min(until, self._since + self._every) if self._frames else until
            left = due - time.monotonic()
            if left <= 0:
                return
            self._taker.sleep(left)

    def sleep(self, seconds: float) -> None:
        """Have the thread that takes sleep for so long, unless something happens."""
        self._taker.sleep(seconds)

    def wake(self) -> None:
        """Wake both threads."""
        self._giver.wake()
        self._taker.wake()
