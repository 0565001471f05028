"""Items of a run that come when a test lets them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from flask_sse_emitters import Run
from tests.support.waiting import PATIENCE


class HeldItems:
    """Yields ``"1"``, ``"2"`` and so on, as many as the test lets it, and notes when it is closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self._go_on = threading.Semaphore(0)
        self._yielded = 0

    def let(self, count: int) -> None:
        for _ in range(count):
            self._go_on.release()

    def items(self) -> Iterator[str]:
        try:
            while self._go_on.acquire(timeout=PATIENCE):
                self._yielded += 1
                yield str(self._yielded)
        finally:
            self.closed.set()


def await_over(run: Run) -> None:
    assert run.wait(PATIENCE)
    assert not run.is_running
