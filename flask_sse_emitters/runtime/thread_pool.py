"""Jobs, and the few helper threads that run them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from .calls import call_and_log
from .gevent_loop import TIME_SLICE_SECONDS, is_green, yield_now
from .locks import native_lock

log = logging.getLogger("flask_sse_emitters.lanes")


class ThreadPool:
    """Jobs that may block. Every method may be called from any thread.

    Helpers live while there are jobs. They are started by :meth:`start_helpers` alone, because where threads are
    greenlets, only who lives in the main loop can start any.

    :param max_helpers: so many jobs run at once; more wait for one of them to end.
    """

    def __init__(self, name: str, max_helpers: int) -> None:
        self.helpers = 0
        self._name = name
        self._max_helpers = max_helpers
        self._lock = native_lock()
        self._jobs: deque[Callable[[], object]] = deque()
        self._said = False  # that no thread is to be had
        self._coming = 0  # helpers that have been started, and have not begun yet
        self._is_refused = False  # the system gave no thread, and is to be asked again later

    def put(self, job: Callable[[], object]) -> None:
        with self._lock:
            self._jobs.append(job)

    def wants_helper(self) -> bool:
        return not self._is_refused and self._coming < len(self._jobs) and self.helpers < self._max_helpers

    @property
    def is_busy(self) -> bool:
        return bool(self._jobs or self.helpers)

    def start_helpers(self) -> bool:
        """Start as many as are wanted now. Never waits.

        :return: False where the system gave no thread: from then on none is wanted until :meth:`try_again`.
        """
        while self._count_in():
            try:
                threading.Thread(target=self._help, name=self._name, daemon=True).start()
            except RuntimeError:
                with self._lock:
                    self.helpers -= 1
                    self._coming -= 1
                    self._is_refused = True
                if not self._said:
                    self._said = True
                    log.exception("cannot start a thread for %s; it is tried again, and this is said once", self._name)
                return False
            self._said = False
        return True

    def try_again(self) -> None:
        """Want helpers again, after the system gave no thread."""
        self._is_refused = False

    def _count_in(self) -> bool:
        with self._lock:
            wanted = self.wants_helper()
            self.helpers += wanted
            self._coming += wanted
            return wanted

    def _help(self) -> None:
        with self._lock:
            self._coming -= 1
        slice_ends = time.monotonic() + TIME_SLICE_SECONDS
        while (job := self._next()) is not None:
            call_and_log(job)
            del job
            if time.monotonic() > slice_ends and is_green():  # threads are made to, greenlets are not
                call_and_log(yield_now)  # a job may have left a timeout behind, which is raised in here
                slice_ends = time.monotonic() + TIME_SLICE_SECONDS

    def _next(self) -> Callable[[], object] | None:
        with self._lock:
            if self._jobs:
                return self._jobs.popleft()
            self.helpers -= 1
            return None
