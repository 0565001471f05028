"""A thread that does nothing but compute, beside those that serve."""

from __future__ import annotations

import threading


class Computing:
    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> str:
        """Return the number that the system gives the thread."""
        self._over.clear()
        self._thread = threading.Thread(target=self._compute, daemon=True)
        self._thread.start()
        return str(self._thread.native_id)

    def end(self) -> str:
        assert self._thread is not None
        self._over.set()
        self._thread.join()
        return ""

    def _compute(self) -> None:
        number = 1
        while not self._over.is_set():
            for _ in range(10_000):
                number = number * 3 % 1_000_003
