"""Jobs that may block, and the few helper threads that run them."""

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

#: When the system has refused a helper thread, it is asked again after so long.
THREAD_RETRY_SECONDS = 0.25


class ThreadPool:
    """Jobs that may block, in the order in which they came. Any thread may call any method, and none blocks.

    Helpers live while there are jobs. Only :meth:`start_helpers` starts them: where threads are greenlets, they live
    in the event loop of the thread that starts them, which must be the main one.

    :param name: of the helper threads.
    :param max_helpers: so many jobs run at once; more wait for one of them to end.
    """

    def __init__(self, name: str, max_helpers: int) -> None:
        self.helpers = 0  #: how many there are now
        self._name = name
        self._max_helpers = max_helpers
        self._lock = native_lock()
        self._jobs: deque[Callable[[], object]] = deque()
        self._starting = 0  # helpers that have been started, and have not begun yet
        self._is_refused = False  # the system gave no thread, and is to be asked again later
        self._is_reported = False  # that it gave none

    def put(self, job: Callable[[], object]) -> None:
        """Add a job; :meth:`start_helpers` has to be called after it."""
        with self._lock:
            self._jobs.append(job)

    def wants_helper(self) -> bool:
        """Return whether :meth:`start_helpers` would start one now."""
        return not self._is_refused and self._starting < len(self._jobs) and self.helpers < self._max_helpers

    @property
    def is_busy(self) -> bool:
        """Whether a job waits or runs."""
        return bool(self._jobs or self.helpers)

    def start_helpers(self) -> bool:
        """Start as many helpers as are wanted now.

        :return: False if the system gave no thread: from then on none is wanted until :meth:`try_again`.
        """
        while self._reserve_helper():
            try:
                threading.Thread(target=self._help, name=self._name, daemon=True).start()
            except RuntimeError:
                with self._lock:
                    self.helpers -= 1
                    self._starting -= 1
                    self._is_refused = True
                if not self._is_reported:
                    self._is_reported = True
                    log.exception(
                        "cannot start a thread for %s; it is tried again, and this is logged once", self._name
                    )
                return False
            self._is_reported = False
        return True

    def try_again(self) -> None:
        """Want helpers again, after the system gave no thread."""
        self._is_refused = False

    def _reserve_helper(self) -> bool:
        with self._lock:
            wanted = self.wants_helper()
            self.helpers += wanted
            self._starting += wanted
            return wanted

    def _help(self) -> None:
        with self._lock:
            self._starting -= 1
        slice_ends = time.monotonic() + TIME_SLICE_SECONDS
        while (job := self._next_job()) is not None:
            call_and_log(job)
            del job
            if time.monotonic() > slice_ends and is_green():  # the system switches threads; greenlets have to yield
                call_and_log(yield_now)  # a job may have left a timeout behind, which is raised in here
                slice_ends = time.monotonic() + TIME_SLICE_SECONDS

    def _next_job(self) -> Callable[[], object] | None:
        with self._lock:
            if self._jobs:
                return self._jobs.popleft()
            self.helpers -= 1
            return None
