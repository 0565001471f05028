"""A process of the soak that runs clients, follows orders and reports."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from tests.faults.soak.crowd import Crowd, Habits
from tests.faults.soak.events import REPORT_SECONDS, Times
from tests.support.waiting import PATIENCE


def run_clients(pipe: Connection, port: int, habits: Habits, times: Times) -> None:
    """The main function of a process: it receives orders ``(name, value)``, see :class:`_Orders`, and reports."""
    crowd = Crowd(port, habits, times)
    crowd.run(_Orders(pipe, crowd).are_over)


class _Orders:
    """Orders to the process, one after the other. It answers each with ``"done"``."""

    def __init__(self, pipe: Connection, crowd: Crowd) -> None:
        self._pipe = pipe
        self._crowd = crowd
        self._due = 0.0  # the next report
        self._is_done: Callable[[], object] | None = None

    def are_over(self) -> bool:
        """Called in every turn."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + REPORT_SECONDS
            self._pipe.send(self._crowd.report())
        if self._is_done is not None and self._is_done():
            self._is_done = None
            self._pipe.send(self._crowd.report())
            self._pipe.send("done")
        if self._is_done is None and self._pipe.poll():
            name, value = self._pipe.recv()
            if name == "quit":
                return True
            self._is_done = getattr(self, f"_{name}")(value)
        return False

    def _come(self, _value: None) -> Callable[[], object]:
        self._crowd.connect_all()
        return self._crowd.all_are_connected

    def _churn(self, _value: None) -> Callable[[], object]:
        self._crowd.start_churn()
        return lambda: True

    def _end(self, newest: list[str]) -> Callable[[], object]:
        """Wait until all clients have reconnected and read up to ``newest``; finally report those that have not."""
        self._crowd.stop_churn()
        deadline = time.monotonic() + PATIENCE

        def is_done() -> bool:
            if not self._crowd.all_have(newest) and time.monotonic() < deadline:
                return False
            self._pipe.send(self._crowd.behind(newest))
            return True

        return is_done

    def _leave(self, _value: None) -> Callable[[], object]:
        self._crowd.disconnect_all()
        return lambda: True
