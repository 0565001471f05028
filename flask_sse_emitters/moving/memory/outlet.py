"""Sending messages on a thread that never waits, as room is made for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from ...runtime.calls import weakly
from ...runtime.locks import native_lock
from ...runtime.scheduler import Scheduler

#: Where the other side has no room, it is asked again after so long.
ROOM_SECONDS = 0.005

#: Sends a message. Returns False where there is no room now; raises a ConnectionError where the other side is gone.
Send: TypeAlias = Callable[[bytes], bool]


class Outlet:
    """Sends what it is given next, in order, on the scheduler's thread.

    :param refill: returns the next messages; none where there is nothing to send now. On that thread.
    :param on_lost: is called there once the other side is gone.
    """

    def __init__(
        self, send: Send, refill: Callable[[], list[bytes]], on_lost: Callable[[], object], scheduler: Scheduler
    ) -> None:
        self._send = send
        self._refill = refill
        self._on_lost = on_lost
        self._scheduler = scheduler
        self._lock = native_lock()
        self._packets: deque[bytes] = deque()
        self._is_sending = False  # a call of the scheduler is under way
        self._is_closed = False

    def wake(self) -> None:
        """Send what there is. From any thread; never blocks."""
        with self._lock:
            begins, self._is_sending = not self._is_sending, True
        if begins:
            self._scheduler.call_soon(self._send_one)

    def close(self) -> None:
        """Send nothing any more."""
        self._is_closed = True
        self._packets.clear()

    def _send_one(self) -> bool:
        """Send one message, so that others have their turn. Return whether there may be more."""
        if not self._packets:
            with self._lock:
                self._is_sending = False  # before it looks: what comes from here on wakes it
            self._packets += self._refill()
            if not self._packets or self._is_closed:
                return False
            with self._lock:
                self._is_sending = True
        try:
            is_sent = self._send(self._packets[0])
        except ConnectionError:
            self._on_lost()
            return False
        if is_sent:
            self._packets.popleft()
        else:
            self._scheduler.call_at(self._scheduler.clock() + ROOM_SECONDS, weakly(self._try_again))
        return is_sent

    def _try_again(self) -> None:
        self._scheduler.call_soon(self._send_one)
