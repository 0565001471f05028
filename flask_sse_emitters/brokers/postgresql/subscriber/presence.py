"""The clients of all processes, counted: each process reports its own to the database, and that it still lives.

A report holds for some seconds, so the clients of a process that was killed go with it. A process that ends in order
takes its report back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ....runtime.locks import native_lock
from ....runtime.scheduler import FIGURES, SCHEDULER
from ...listening.health import COUNTING, Health
from ...listening.topics import Topics
from ..client.errors import was_refused
from ..statements import REPORT

#: Seconds after which changes are reported, and after which all of it is confirmed.
COUNT_AFTER, COUNT_EVERY = 0.25, 4.0

#: Seconds until a report that was refused is sent again.
RETRY_SECONDS = 1.0


class Presence:
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
        self._facts: str | None = None  # what this process reports of itself, where that is to be sent
        self._is_collecting = False  # a helper thread is about to collect these
        self.is_listed = False  #: the database has had a report
        self.has_reported = False  #: all clients here, since the connection began
        self._report_at = self._confirm_at = self._collect_at = 0.0

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
        self.has_reported = False
        self._report_at = self._confirm_at = self._collect_at = 0.0

    @property
    def due(self) -> float:
        """The time at which to :meth:`report`, by ``time.monotonic``."""
        is_new = self._changed or not self.has_reported or self._facts is not None
        return self._report_at if is_new else self._confirm_at

    def report(self, run: Callable[[str, Sequence[Any]], list[Any]], now: float) -> None:
        """Report what has changed, or all where the database knows none, if that is due.

        :param run: runs a statement.
        :raises psycopg.Error: where the database cannot be reached.
        """
        if now < self.due:
            return
        self._confirm_at = now + COUNT_EVERY
        if self.has_reported and not (self._changed or len(self._topics) or self._health.is_refused):
            return
        if now >= self._collect_at:  # however often clients come and go
            self._collect_at = now + COUNT_EVERY
            self._collect_facts()
        facts, self._facts = self._facts, None
        with self._lock:
            changed, self._changed = self._changed, {}
        names = list(changed) if self.has_reported else self._topics.names()
        counts = [self._topics.clients(name) for name in names]
        self.is_listed = True
        try:
            [(was_known,)] = run(REPORT, [self._process, facts, names, counts, not self.has_reported])
        except Exception as error:  # it cannot be written to: events may come all the same
            if not was_refused(error):
                raise
            self.has_reported, self._report_at = False, now + RETRY_SECONDS
            self._health.failed(COUNTING, error)
            return
        is_lost = self.has_reported and not was_known  # with the tables that a crash empties
        self.has_reported, self._report_at = not is_lost, now + COUNT_AFTER
        self._collect_at = 0.0 if is_lost else self._collect_at
        self._health.worked(COUNTING)
        self._health.wrote()

    def _collect_facts(self) -> None:
        if not self._is_collecting:
            self._is_collecting = True
            SCHEDULER.run(self._take_facts, FIGURES)

    def _take_facts(self) -> None:
        try:
            about = self._about()
            if about is not None:
                self._facts = json.dumps(about)
                self._wake()
        finally:
            self._is_collecting = False
