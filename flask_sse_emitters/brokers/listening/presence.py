"""What a process reports of itself to the others: how many clients each channel has there, and its figures."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from ...runtime.locks import native_lock
from ...runtime.scheduler import FIGURES, SCHEDULER
from ..remote.health import Health
from .topics import Topics

#: Seconds after which changes are reported, and after which all of it is confirmed.
COUNT_AFTER, COUNT_EVERY = 0.25, 4.0

#: Seconds until a report that was refused is sent again.
RETRY_SECONDS = 1.0


class BasePresence(ABC):
    """Reports the clients of this process. Only the subscriber's thread may call, but for :meth:`change`.

    :param process: the id of this process.
    :param about: see :attr:`.Broker.about`. It is called on a helper thread: it may go through all clients.
    :param wake: is called, from any thread, when there is something to report.
    """

    def __init__(
        self,
        process: str,
        health: Health,
        topics: Topics,
        about: Callable[[], Mapping[str, Any] | None],
        wake: Callable[[], object],
    ) -> None:
        self._process = process
        self._health = health
        self._topics = topics
        self._about = about
        self._wake = wake
        self._lock = native_lock()
        self._changed: dict[str, None] = {}  # channels
        self._figures: str | None = None  # of this process, as JSON, where they are to be sent
        self._is_collecting = False  # a helper thread is about to collect these
        self._report_at = self._confirm_at = self._collect_at = 0.0

    @property
    @abstractmethod
    def has_reported(self) -> bool:
        """Whether the server knows of all clients here, by what was sent since the connection began."""

    def change(self, channel: str) -> bool:
        """Note, from any thread, that the channel has more clients, or fewer.

        :return: whether the subscriber is to be woken.
        """
        with self._lock:
            is_first = not self._changed
            self._changed[channel] = None
        return is_first

    def reset(self) -> None:
        """Begin again with another connection, perhaps to another server."""
        self._report_at = self._confirm_at = self._collect_at = 0.0

    @property
    def due(self) -> float:
        """The time of the next report, by ``time.monotonic``."""
        is_new = self._changed or not self.has_reported or self._figures is not None
        return self._report_at if is_new else self._confirm_at

    def _take_changed(self) -> dict[str, None]:
        with self._lock:
            changed, self._changed = self._changed, {}
        return changed

    def _collect_if_due(self, now: float) -> None:
        """Have the figures collected, however often clients come and go."""
        if now >= self._collect_at:
            self._collect_at = now + COUNT_EVERY
            if not self._is_collecting:
                self._is_collecting = True
                SCHEDULER.run(self._collect, FIGURES)

    def _collect(self) -> None:
        try:
            about = self._about()
            if about is not None:
                self._figures = json.dumps(about)
                self._wake()
        finally:
            self._is_collecting = False
